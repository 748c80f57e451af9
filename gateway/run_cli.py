"""`outlay run` and `outlay env`: developer tools through the gateway, with the ticket of the branch.

The gateway is asked first: whether it is there, knows the key, and which ticket it reads in the branch. Nothing is
guessed here. `launch` decides, this module reads and writes.
"""

import contextlib
import http.client
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from gateway import claims, launch, tickets, worktrees
from gateway.addresses import is_address
from gateway.errors import UserError
from gateway.options import no_ticket
from gateway.repositories import branch_name, repo_name

URL = "http://127.0.0.1:8080"
ASK_SECONDS = 5.0
TICKET = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,400}[\x21-\x7e])?")
"""What may be one: which it is, the gateway judges."""
HOW_TO_GET_A_KEY = "set OUTLAY_KEY to a gateway key (olk_…); `outlay keys create --team TEAM` makes one"


class BranchTicket(msgspec.Struct):
    ticket_id: str
    ticket_state: str = "unchecked"


class Me(msgspec.Struct):
    """What the gateway says of the key and the branch (`GET /-/api/v1/me`)."""

    role: str | None = None
    ticket_policy: str = "optional"
    branch_tickets: tuple[BranchTicket, ...] = ()
    named_tickets: tuple[BranchTicket, ...] = ()
    """What it reads in --ticket."""


url_option = click.option("--url", envvar="OUTLAY_URL", default=URL, show_default=True, help="The gateway's address.")
ticket_option = click.option(
    "--ticket", help="Ticket of these calls: PAY-123, acme/shop#45, or several with commas.  [default: of the branch]"
)


@click.command(context_settings={"allow_interspersed_args": False})
@ticket_option
@click.option("--task", help="Task of these calls.  [default: the tool's own session]")
@url_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], ticket: str | None, task: str | None, url: str) -> None:
    """Run a tool through the gateway: outlay run -- claude

    Its base URL, its key (OUTLAY_KEY) and its headers are set for it. The ticket is that of the git branch.
    """
    tool = launch.tool_of(command[0])
    if task is None and tool in launch.WITHOUT_SESSION:
        task = f"run-{uuid.uuid4()}"
    session, line = _asked(url, ticket, task)
    settings = launch.environment(tool, session, os.environ)
    settings["OUTLAY_CLAIM_KEY"] = None  # whoever has it can claim any ticket: not the tool
    if tool == "gemini" and (home := _gemini_home(os.environ)):
        settings["GEMINI_CLI_HOME"] = str(home)
    environ = {name: value for name, value in {**os.environ, **settings}.items() if value is not None}
    click.echo(line, err=True)
    _become([command[0], *launch.arguments(tool, session), *command[1:]], environ)


def _become(command: list[str], environ: Mapping[str, str]) -> NoReturn:
    """From here on this process is the tool: terminal, signals and exit code are its own."""
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 - what the user typed
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run: {error.strerror}") from None


@click.command(name="env")
@ticket_option
@click.option("--task", help="Task of these calls.  [default: the tool's own session]")
@url_option
@click.option(
    "--shell", type=click.Choice(launch.SHELLS), default="bash", show_default=True, help="bash serves zsh too."
)
def env_(ticket: str | None, task: str | None, url: str, shell: str) -> None:
    """Print what `outlay run` sets, for all tools at once."""
    session, line = _asked(url, ticket, task)
    click.echo(launch.printed(shell, launch.environment(None, session, os.environ), session))
    click.echo(line, err=True)


# -- what a session is made of --------------------------------------------------------------------------------------


def _asked(url: str, ticket: str | None, task: str | None) -> tuple[launch.Session, str]:
    """The session, and the line that says which ticket its calls go to."""
    session = session_of(url, ticket, task)
    me = ask(session)
    if session.ticket and not me.named_tickets:
        raise no_ticket()
    session = _signed(told_by(me, session))
    return session, said(session, me)


def session_of(url: str, ticket: str | None, task: str | None) -> launch.Session:
    """The session of this folder, as far as it is known here."""
    if ticket and not TICKET.fullmatch(ticket):
        raise no_ticket()
    if task and not tickets.TASK.fullmatch(task):
        raise click.BadParameter("at most 128 letters, digits and any of . _ : @ / -", param_hint="--task")
    checkout = _checkout()
    repo, branch = launch.place(checkout.repo if checkout else None, checkout.branch if checkout else None, os.environ)
    return launch.Session(
        url=_checked_url(url),
        key=os.environ.get("OUTLAY_KEY") or None,
        ticket=ticket or None,
        task=task,
        repo=repo_name(repo),
        branch=branch_name(branch),
    )


def told_by(me: Me | None, session: launch.Session) -> launch.Session:
    """The session with what the gateway reads in its branch."""
    of_branch = ",".join(found.ticket_id for found in me.branch_tickets) if me else ""
    return msgspec.structs.replace(session, path_ticket=session.ticket or of_branch or None)


def _signed(session: launch.Session) -> launch.Session:
    """The session with a claim, where there is a claim key."""
    claim_key = os.environ.get("OUTLAY_CLAIM_KEY")
    if not claim_key:
        return session
    now, ticket = int(time.time()), session.path_ticket
    claim = claims.Claim(
        tickets=tuple(part.strip() for part in ticket.split(",")) if ticket else (),
        issued_at=now,
        expires_at=now + claims.LIFETIME_SECONDS,
        repo=session.repo,
        branch=session.branch,
        key=claims.fingerprint(session.key) if session.key else None,
    )
    return msgspec.structs.replace(session, claim=claims.sign(claim_key, claim))


def _checked_url(url: str) -> str:
    if not is_address(url):
        raise click.BadParameter(f"write an address like {URL}", param_hint="--url or OUTLAY_URL")
    return url.rstrip("/")


def _checkout() -> worktrees.Checkout | None:
    try:
        return worktrees.checkout_of(Path.cwd())
    except OSError:  # the folder is gone
        return None


def ask(session: launch.Session, seconds: float = ASK_SECONDS) -> Me:
    """What the gateway says. Raises `UserError` when it would take no call."""
    url, key = session.url, session.key
    shown = ("branch", session.branch), ("ticket", session.ticket), ("repo", session.repo)
    asked = urlencode({k: v for k, v in shown if v})
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=seconds)) as connection:
            path = f"{parts.path}/-/api/v1/me" + (f"?{asked}" if asked else "")
            connection.request("GET", path, headers={"x-outlay-key": key} if key else {})
            answer = connection.getresponse()
            status, body = answer.status, answer.read(1_048_576)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"no Outlay gateway answers at {url} ({reason}): start one with `outlay serve`, "
            "or name yours with --url or OUTLAY_URL"
        ) from None
    if status in (401, 403):
        told = f"{url} does not take the key in OUTLAY_KEY" if key else f"{url} asks for a gateway key"
        raise UserError(f"{told}: {HOW_TO_GET_A_KEY}")
    try:
        if status != 200:
            raise ValueError
        me = msgspec.json.decode(body, type=Me)
    except ValueError:
        raise UserError(
            f"what answers at {url} (status {status}) is no Outlay gateway that takes calls: "
            f"name yours with --url or OUTLAY_URL, without a path like /v1, as {URL}"
        ) from None
    if me.role is not None:
        raise UserError(f"the key in OUTLAY_KEY has the role {me.role} and makes no calls: {HOW_TO_GET_A_KEY}")
    return me


def said(session: launch.Session, me: Me) -> str:
    calls = "Outlay: calls of this session"
    if named := me.named_tickets if session.ticket else me.branch_tickets:
        states = {"unknown": ", which the tracker does not know", "closed": ", which is closed"}
        shown = ", ".join(found.ticket_id + states.get(found.ticket_state, "") for found in named)
        return f"{calls} go to {shown}" + ("" if session.ticket else f" (branch {session.branch})")
    refused = ", and this gateway takes none without" if me.ticket_policy != "optional" else ""
    return f"{calls} name no ticket{refused}: use --ticket"


def _gemini_home(environ: Mapping[str, str]) -> Path | None:
    """A home for Gemini CLI that accepts the key, beside the user's own one and with links to all that is in that.
    `None` when the user's own one accepts it, or cannot be told."""
    own = Path(environ.get("GEMINI_CLI_HOME") or Path.home()) / ".gemini"
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outlay" / "gemini"
    file = own / "settings.json"
    try:
        settings = launch.gemini_settings(file.read_text(encoding="utf-8") if file.exists() else "")
        if settings is None:
            return None
        ours = home / ".gemini"
        ours.mkdir(parents=True, exist_ok=True)
        for entry in own.iterdir() if own.is_dir() else ():
            if entry != file and not os.path.lexists(ours / entry.name):
                (ours / entry.name).symlink_to(entry)
        write_private(ours / file.name, ours / f"{file.name}.{os.getpid()}", settings)
    except ValueError:  # JSON with comments: left to Gemini CLI
        return None
    except OSError as error:
        raise UserError(f"{error.filename} cannot be used: {error.strerror}") from None
    return home


def write_private(path: Path, beside: Path, text: str) -> None:
    """Whole or not at all, by way of a file beside it, and readable by its owner only."""
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
