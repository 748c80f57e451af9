"""`outlay hook`: a git hook that writes the settings of each branch, as it is checked out, to `outlay.env` in the git
folder. The hook is a marked block in the repository's `post-checkout`; the rest of that file stays as it is.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click

from gateway import launch, run_cli, worktrees
from gateway.errors import UserError

ASK_SECONDS = 0.5
HOOK_SECONDS = 2.0
"""A checkout waits no longer for the hook."""
SETTINGS, UNFINISHED = "outlay.env", "outlay.env.new"
SHELL_LINE = re.compile(r"#![ \t]*(?:\S*/)?(?:env\s+(?:-S\s+)?)?(?:\S*/)?(?:sh|bash|dash|ksh|zsh)(?:[ \t\r].*)?\n")
BEGIN, END = "# >>> outlay: the settings of the branch", "# <<< outlay"
BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n", re.MULTILINE | re.DOTALL)


@click.group()
def hook() -> None:
    """A git hook that keeps the settings of `outlay env` at those of the branch."""


@hook.command()
def install() -> None:
    """Write the settings at each checkout, for direnv or eval."""
    checkout = _checkout()
    file, _ = _git_folders(checkout)
    before = _text(file)
    if before and not os.access(file, os.X_OK):
        raise UserError(f"{file} is not executable, so git does not run it: make it so, or remove it")
    after = with_block(before, sys.executable)
    if after is None:
        raise UserError(f"{file} is no shell script: have it call `{sys.executable} {' '.join(COMMAND)}` itself")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(after.encode("utf-8", "surrogateescape"))
        file.chmod(file.stat().st_mode | 0o111)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    write_settings(checkout, run_cli.ASK_SECONDS)
    click.echo(f"{file} writes the settings of each branch to {checkout.git_dir / SETTINGS}")
    click.echo('With direnv, in .envrc: source_env "$(git rev-parse --absolute-git-dir)/outlay.env"')


@hook.command()
def remove() -> None:
    """Take the hook away again, and what it wrote."""
    checkout = _checkout()
    file, common = _git_folders(checkout)
    before = _text(file)
    after = BLOCK.sub("", before)
    try:
        if after == before:
            click.echo("The hook is not installed")
        elif re.fullmatch(r"#!.*\s*", after):
            file.unlink()
        else:
            file.write_bytes(after.encode("utf-8", "surrogateescape"))
        for git_dir in (common, *common.glob("worktrees/*")):
            _unlink_settings(git_dir)
    except OSError as error:
        raise UserError(f"{file} cannot be changed: {error.strerror}") from None
    if after != before:
        click.echo(f"{file} writes no settings any more")


COMMAND = ("-P", "-m", "gateway.hook_cli", "checked-out")
"""`-P`: nothing is imported from the folder that was checked out."""
FAILED = f'rm -f "$(git rev-parse --git-dir)/{SETTINGS}" || :'
"""Also where Python or Outlay is gone, the settings of the branch before do not stay."""


@hook.command(name="checked-out", hidden=True)
@click.argument("refs", nargs=-1)
def checked_out(refs: tuple[str, ...]) -> None:
    """What git runs after a checkout: never fails, never waits for long, says nothing where the gateway is not."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, HOOK_SECONDS)
    if refs[2:] != ("0",):  # else files were checked out, not a branch
        told = write_settings(_checkout(), ASK_SECONDS)
        if told:
            click.echo(told)


def write_settings(checkout: worktrees.Checkout, seconds: float) -> str | None:
    """Write the settings of the branch. Returns the line about its ticket; `None` when the gateway does not tell.

    Those of the branch before go first: whatever fails then, no call is for its ticket. There is no claim in them: it
    would end before the branch does.
    """
    _unlink_settings(checkout.git_dir)
    session = run_cli.session_of(os.environ.get("OUTLAY_URL") or run_cli.URL, None, None)
    me, told = None, None
    with contextlib.suppress(UserError):
        me = run_cli.ask(session, seconds)
        told = run_cli.said(session, me)
    session = run_cli.told_by(me, session)
    text = launch.printed("bash", launch.environment(None, session, os.environ), session)
    run_cli.write_private(checkout.git_dir / SETTINGS, checkout.git_dir / UNFINISHED, text + "\n")
    return told


def with_block(before: str, python: str) -> str | None:
    """A `post-checkout` hook with our block behind its first line, before any `exit`. `None`: it is no shell script."""
    plain = BLOCK.sub("", before) or "#!/bin/sh\n"
    first = SHELL_LINE.match(plain)
    if first is None:
        return None
    command = f'{shlex.join([python, *COMMAND])} "$@" 2>/dev/null || {FAILED}'
    return f"{first[0]}{BEGIN}\n{command}\n{END}\n{plain[first.end() :]}"


def _unlink_settings(git_dir: Path) -> None:
    for name in (SETTINGS, UNFINISHED):
        (git_dir / name).unlink(missing_ok=True)


def _checkout() -> worktrees.Checkout:
    checkout = worktrees.checkout_of(Path.cwd())
    if checkout is None:
        raise UserError("this folder is in no git repository")
    return checkout


def _git_folders(checkout: worktrees.Checkout) -> tuple[Path, Path]:
    """The `post-checkout` hook, where git looks for it (core.hooksPath, from any of its configurations), and the git
    folder that all working trees share."""
    asked = ["git", "rev-parse", "--git-path", "hooks", "--git-common-dir"]
    try:
        done = subprocess.run(asked, cwd=checkout.root, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except FileNotFoundError:
        raise UserError("git is not there: install it") from None
    except subprocess.SubprocessError:
        raise UserError(f"git does not answer in {checkout.root}") from None
    hooks, common = (checkout.root / line for line in done.stdout.splitlines())
    if hooks.exists() and not hooks.is_dir():
        raise UserError(f"core.hooksPath is {hooks}, which is no folder: git runs no hooks here")
    return hooks / "post-checkout", common


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None


if __name__ == "__main__":
    hook()
