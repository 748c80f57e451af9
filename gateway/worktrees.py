"""Which repository, branch and commit a folder belongs to, read from git's own files. No git is run.

Small bounded reads; what is not there or not as git writes it is `None`, never an error.
"""

import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.repositories import repo_name

READ_MAX = 16_777_216
"""Of any one file. `packed-refs` of the largest repositories has some megabytes."""
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
REF = re.compile(r"refs(?:/(?!\.)[^\x00-\x20\x7f~^:?*\[\\/]+)+")
"""A reference name. No part starts with a dot: `refs/heads/.invalid` stands where references are kept elsewhere."""
FRESH_SECONDS = 2.0
SEEN_MAX = 10_000
REBASING = ("rebase-merge/head-name", "rebase-apply/head-name")


class Checkout(msgspec.Struct, frozen=True):
    """A working tree and what it is at."""

    root: Path
    git_dir: Path
    """Its own one: linked worktrees and submodules have theirs elsewhere."""
    repo: str | None = None
    """`acme/billing-core`, of the remote `origin`."""
    branch: str | None = None
    """Also while the branch is being rebased."""
    commit: str | None = None


def checkout_of(folder: Path) -> Checkout | None:
    """The checkout that a folder is in; `None` outside of any."""
    folder = folder.absolute()
    for root in (folder, *folder.parents):
        entry = root / ".git"
        if (entry / "HEAD").is_file():
            return _read_checkout(root, entry)
        if entry.is_file():
            return _read_checkout(root, root / (git_dir_in(_read(entry)) or ".git"))
    return None


def _read_checkout(root: Path, git_dir: Path) -> Checkout:
    common = git_dir / (_read(git_dir / "commondir").strip() or ".")
    ref, commit = head_in(_read(git_dir / "HEAD"))
    if ref is not None:
        loose = _read(common / ref).strip()
        commit = loose if SHA.fullmatch(loose) else packed_in(_read(common / "packed-refs"), ref)
    else:
        ref = next((name for path in REBASING if (name := _read(git_dir / path).strip())), None)
    url = origin_in(_read(common / "config"))
    return Checkout(root, git_dir, repo_name(url), branch_of(ref) if ref else None, commit)


def _read(path: Path) -> str:
    """The text of a regular file; empty for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would wait for ever
            return ""
        with path.open("rb") as file:
            return file.read(READ_MAX).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def git_dir_in(text: str) -> str | None:
    """The path in a `.git` file: `gitdir: ../.git/worktrees/x`."""
    found = re.match(r"gitdir: ([^\r\n\0]+)", text)
    return found[1] if found else None


def head_in(text: str) -> tuple[str | None, str | None]:
    """Reference or commit of a `HEAD` file, whichever it has."""
    line = text.strip()
    if line.startswith("ref:"):
        ref = line[4:].strip()
        return (ref, None) if REF.fullmatch(ref) else (None, None)
    return None, line if SHA.fullmatch(line) else None


def branch_of(ref: str) -> str | None:
    return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") and REF.fullmatch(ref) else None


def packed_in(text: str, ref: str) -> str | None:
    """The commit of a reference in `packed-refs`."""
    found = re.search(rf"^([0-9a-f]+) {re.escape(ref)}\r?$", text, re.MULTILINE)
    return found[1] if found and SHA.fullmatch(found[1]) else None


def origin_in(config: str) -> str | None:
    """The first `url` of the remote `origin` in a `.git/config`."""
    inside = False
    for line in config.splitlines():
        if section := re.match(r'\s*\[\s*(?:remote\s+"(?P<name>[^"]*)"|[^\]]*)\s*\]', line, re.IGNORECASE):
            inside = section["name"] == "origin"
            line = line[section.end() :]
        if inside and (setting := re.match(r'\s*url\s*=\s*(?:"([^"]*)"|([^#;]*))', line, re.IGNORECASE)):
            return (setting[1] or setting[2] or "").strip() or None
    return None


class Worktrees:
    """Checkouts below some folders of this machine. A look costs a few small reads, at most once in `FRESH_SECONDS`."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = [Path(root).expanduser().resolve() for root in roots]
        self._seen: dict[str, tuple[float, Checkout | None]] = {}

    def look(self, folder: str) -> Checkout | None:
        """The checkout at a folder, if it is below one of the roots."""
        if not self._roots:
            return None
        now = time.monotonic()
        at, checkout = self._seen.get(folder, (-FRESH_SECONDS, None))
        if now - at >= FRESH_SECONDS:
            checkout = self._read(folder)
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen[folder] = now, checkout
        return checkout

    def _read(self, folder: str) -> Checkout | None:
        try:
            path = Path(folder).resolve()
        except (OSError, RuntimeError, ValueError):
            return None
        if not any(path.is_relative_to(root) for root in self._roots):
            return None
        return checkout_of(path)
