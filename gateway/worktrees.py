"""Which repository and branch a folder belongs to, read from git's own files. No git is run.

Small bounded reads; what is not there or not as git writes it is `None`, never an error.
"""

import asyncio
import contextlib
import re
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from gateway.repositories import branch_name, repo_name

HEAD_MAX, CONFIG_MAX = 4096, 2**18
REF = re.compile(r"refs(?:/(?!\.)[^\x00-\x20\x7f~^:?*\[\\/]+)+")
"""A reference name. No part starts with a dot: `refs/heads/.invalid` stands where references are kept elsewhere."""
REBASING = ("rebase-merge/head-name", "rebase-apply/head-name")
FRESH_SECONDS, WAIT_SECONDS = 2.0, 0.5
SEEN_MAX = 10_000
READERS = 2


class Checkout(msgspec.Struct, frozen=True):
    """A working tree and what it is at."""

    root: Path
    git_dir: Path
    """Its own one: linked worktrees and submodules have theirs elsewhere."""
    repo: str | None = None
    """`acme/billing-core`, of the remote `origin`."""
    branch: str | None = None
    """Also while the branch is being rebased; `None` on none."""


def checkout_of(folder: Path, within: Iterable[Path] = (Path("/"),)) -> Checkout | None:
    """The checkout that a folder is in; `None` outside of any. Only what lies `within` these folders is read."""
    folder = folder.absolute()
    for root in (folder, *folder.parents):
        if not any(root.is_relative_to(top) for top in within):
            return None
        entry = root / ".git"
        if _kind(entry / "HEAD"):
            return _read_checkout(root, entry)
        if _kind(entry) == stat.S_IFREG:
            git_dir = root / (git_dir_in(_read(entry, HEAD_MAX)) or "")
            is_within = any(git_dir.resolve().is_relative_to(top) for top in within)
            return _read_checkout(root, git_dir) if is_within and _kind(git_dir / "HEAD") else None
    return None


def _read_checkout(root: Path, git_dir: Path) -> Checkout:
    common = git_dir / (_read(git_dir / "commondir", HEAD_MAX).strip() or ".")
    ref = head_in(_read(git_dir / "HEAD", HEAD_MAX))
    if ref is None:
        ref = next((name for path in REBASING if (name := _read(git_dir / path, HEAD_MAX).strip())), None)
    url = origin_in(_read(common / "config", CONFIG_MAX))
    return Checkout(root, git_dir, repo_name(url), branch_of(ref) if ref else None)


def _kind(path: Path) -> int:
    """The type of what is there; 0 where nothing is that can be looked at."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return 0


def _read(path: Path, limit: int) -> str:
    """The text of a regular file (a FIFO would wait for ever); empty for anything else, or more."""
    if _kind(path) != stat.S_IFREG:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "replace") if len(data) <= limit else ""


def git_dir_in(text: str) -> str | None:
    """The path in a `.git` file: `gitdir: ../.git/worktrees/x`."""
    found = re.match(r"gitdir: ([^\r\n\0]+)", text)
    return found[1] if found else None


def head_in(text: str) -> str | None:
    """The reference in a `HEAD` file; `None` where it has a commit."""
    line = text.strip()
    ref = line[4:].strip() if line.startswith("ref:") else ""
    return ref if REF.fullmatch(ref) else None


def branch_of(ref: str) -> str | None:
    return branch_name(ref) if ref.startswith("refs/heads/") and REF.fullmatch(ref) else None


def origin_in(config: str) -> str | None:
    """The first `url` of the remote `origin` in a `.git/config`."""
    inside = False
    for line in map(str.strip, config.splitlines()):
        if line.startswith("["):
            section, _, line = line[1:].partition("]")
            name, _, of = section.strip().partition(" ")
            inside = name.lower() == "remote" and of.strip() == '"origin"'
        key, found, value = line.partition("=")
        if inside and found and key.strip().lower() == "url":
            value = value.strip()
            value = value[1:].partition('"')[0] if value.startswith('"') else re.split("[#;]", value, maxsplit=1)[0]
            return value.strip() or None
    return None


class Worktrees:
    """Checkouts below some folders of this machine, for the gateway: read in threads of its own, at most once in
    `FRESH_SECONDS` each, and not waited for when a disk does not answer."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = [Path(root).expanduser().resolve() for root in roots]
        self._readers = ThreadPoolExecutor(READERS, "worktrees") if self._roots else None
        self._seen: dict[str, tuple[float, Checkout | None]] = {}

    async def look(self, folder: str | None) -> Checkout | None:
        """The checkout at a folder, if it is below one of the roots."""
        if self._readers is None or folder is None:
            return None
        now = time.monotonic()
        at, checkout = self._seen.get(folder, (-FRESH_SECONDS, None))
        if now - at < FRESH_SECONDS:
            return checkout
        checkout = None
        with contextlib.suppress(TimeoutError, OSError, ValueError, RuntimeError):
            read = asyncio.get_running_loop().run_in_executor(self._readers, self._read, folder)
            checkout = await asyncio.wait_for(read, WAIT_SECONDS)
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[folder] = now, checkout
        return checkout

    def _read(self, folder: str) -> Checkout | None:
        return checkout_of(Path(folder).resolve(), self._roots)

    def stop(self) -> None:
        if self._readers is not None:
            self._readers.shutdown(wait=False, cancel_futures=True)
