"""`outlay comment`: one comment on a pull request that says what its tickets have cost, kept current.

It is written once and changed in place, and only when it would say something else. Ticket ids and names of models come
from clients: they stand in code spans, where nothing is markup, a link, a mention or a reference.
"""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import quote

import click
import httpx
import msgspec

from analytics.forges import FORGES, WAIT_MAX_SECONDS, Pull
from analytics.sources.http import send
from analytics.sources.source import Patience
from gateway.addresses import is_address
from gateway.errors import UserError
from gateway.options import json_option

MARKER = "<!-- outlay:cost -->"
COMPUTED = "<sub>Computed "
URL = "http://127.0.0.1:8080"
NAME_MAX = 80
MODELS_MAX = 4
REPO = re.compile(r"[\w.-]+(?:/[\w.-]+)+", re.ASCII)
REF = re.compile(r"([1-9][0-9]*)/(?:merge|head)")
SECRET = re.compile(r"[\x21-\x7e]+")
Did = Literal["created", "updated", "unchanged", "dry run", "nothing to say"]
Environment = Mapping[str, str]
T = TypeVar("T")


@click.command()
@click.option("--forge", type=click.Choice(list(FORGES)), help="Whose pull request.  [default: as the CI job tells]")
@click.option("--repo", help="Its repository: acme/shop.  [default: as the CI job tells]")
@click.option(
    "--pr", type=click.IntRange(1), help="Number of the pull or merge request.  [default: as the CI job tells]"
)
@click.option(
    "--ticket",
    "tickets",
    multiple=True,
    callback=lambda _context, _option, values: _split(values),
    help="Ticket, or several with commas; may be repeated.  [default: those of its branch]",
)
@click.option("--url", envvar="OUTLAY_URL", default=URL, show_default=True, help="The gateway's address.")
@click.option("--api", help="Address of the forge's API.  [default: as the CI job tells, else the public one]")
@click.option("--dry-run", is_flag=True, help="Show the comment, write nothing.")
@json_option
def comment(
    forge: str | None,
    repo: str | None,
    pr: int | None,
    tickets: Sequence[str],
    url: str,
    api: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say in one comment on a pull request what its tickets have cost, or bring that comment up to date.

    The gateway key comes from OUTLAY_KEY, the forge's token from GITHUB_TOKEN or GITLAB_TOKEN.
    """
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(url, os.environ))
        pull: Pull | None = None
        if not tickets or not dry_run:
            place = place_of(os.environ, forge, repo, pr, api)
            pull = stack.enter_context(pull_at(place, os.environ))
            tickets = tickets or gateway.tickets_of(pull.head_branch(), place.repo)
        answers = [gateway.spend_on(ticket) for ticket in tickets]
        body = render([gateway.read(answer, Spend) for answer in answers]) if answers else None
        did: Did = "nothing to say" if body is None else "dry run"
        if pull is not None and body is not None and not dry_run:
            did = write(pull, body)
    name = None if pull is None else pull.name
    if as_json:
        raw = [msgspec.Raw(answer) for answer in answers]
        click.echo(msgspec.json.encode({"pull_request": name, "did": did, "body": body, "tickets": raw}))
    elif did == "nothing to say":
        click.echo(f"{name}: its branch names no ticket, so nothing was written; name one with --ticket")
    else:
        click.echo(body if dry_run else f"{name}: {did}")


def _split(values: Sequence[str]) -> list[str]:
    tickets = [ticket.strip() for value in values for ticket in value.split(",")]
    if not all(tickets):
        raise click.BadParameter("write tickets like PAY-123 or PAY-123,acme/shop#45")
    return list(dict.fromkeys(tickets))


def write(pull: Pull, body: str) -> Did:
    """Leave one comment of ours, the oldest, with this body. Raises `UserError`."""
    did: Did = "unchanged"
    own = pull.own_comments(MARKER)
    if not own:
        posted, did = pull.post(body), "created"
        # Somebody else may have written one at the same time, or we before knowing who we are. Whoever looks last sees
        # all of them.
        own = pull.own_comments(MARKER) or [posted]
    first, *others = own
    if _without_time(first.body or "") != _without_time(body):
        pull.edit(first, body)
        did = "updated"
    for other in others:
        pull.delete(other)
    return did


# -- which pull request ------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a pull request is."""

    forge: str
    repo: str
    number: int
    api: str


def place_of(environ: Environment, forge: str | None, repo: str | None, number: int | None, api: str | None) -> Place:
    """As named, else as a CI job of GitHub or GitLab tells. Raises `click.UsageError`."""
    forge = forge or (
        "github" if environ.get("GITHUB_REPOSITORY") else "gitlab" if environ.get("CI_PROJECT_PATH") else ""
    )
    if forge not in FORGES:
        raise click.UsageError("say which pull request: --forge, --repo and --pr; here is no CI job that tells")
    if forge == "github":
        of_job, api_of_job = environ.get("GITHUB_REPOSITORY"), environ.get("GITHUB_API_URL")
        number_of_job = _number_on_github(environ)
    else:
        # A merge request of a fork is in the project that it asks to be merged to.
        of_job = environ.get("CI_MERGE_REQUEST_PROJECT_PATH") or environ.get("CI_PROJECT_PATH")
        api_of_job, number_of_job = environ.get("CI_API_V4_URL"), environ.get("CI_MERGE_REQUEST_IID")
    if number is None and repo in (None, of_job) and number_of_job and number_of_job.isdecimal():
        number = int(number_of_job)
    repo, api = repo or of_job, api or api_of_job or FORGES[forge].api
    if repo is None or not REPO.fullmatch(repo):
        raise click.UsageError("name the repository like acme/shop: --repo")
    if number is None:
        raise click.UsageError("this is no job of a pull request: name its number with --pr")
    if not is_address(api):
        raise click.UsageError(f"write an address like {FORGES[forge].api}: --api")
    return Place(forge, repo, number, api)


def _number_on_github(environ: Environment) -> str | None:
    if found := REF.fullmatch(environ.get("GITHUB_REF_NAME", "")):
        return found[1]
    try:
        event = msgspec.json.decode(Path(environ.get("GITHUB_EVENT_PATH", "")).read_bytes(), type=_Event)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if event.pull_request is None else str(event.pull_request.number)


class _Numbered(msgspec.Struct):
    number: int


class _Event(msgspec.Struct):
    pull_request: _Numbered | None = None


def pull_at(place: Place, environ: Environment) -> Pull:
    """Raises `UserError` without a token."""
    forge = FORGES[place.forge]
    token = next((found for name in forge.token_names if (found := secret(environ, name))), None)
    if token is None:
        raise UserError(f"set {forge.token_names[0]} to a token of {forge.name}; it needs {forge.needs}")
    in_workflow = environ.get("GITHUB_ACTIONS") == "true"
    return Pull(forge, place.api, token, place.repo, place.number, in_workflow=in_workflow)


def secret(environ: Environment, name: str) -> str | None:
    """What a variable holds. Raises `UserError` when that cannot be sent."""
    value = environ.get(name, "").strip()
    if value and not SECRET.fullmatch(value):
        raise UserError(f"{name} holds what no token and no key can: spaces, or letters beyond ASCII")
    return value or None


# -- what the gateway says ---------------------------------------------------------------------------------------------


class Part(msgspec.Struct):
    """A model's, or a source's, part in a ticket."""

    calls: int
    list_cost_usd: Decimal
    unpriced_calls: int = 0
    model: str | None = None
    ticket_source: str | None = None


class Spend(msgspec.Struct):
    """What a ticket has cost."""

    ticket_id: str
    list_cost_usd: Decimal
    calls: int
    unpriced_calls: int
    tasks: int
    models: list[Part]
    sources: list[Part]
    as_of: datetime


class _Ticket(msgspec.Struct):
    ticket_id: str


class _Me(msgspec.Struct):
    branch_tickets: list[_Ticket]


class _Problem(msgspec.Struct):
    message: str


class _Failure(msgspec.Struct):
    error: _Problem


class Gateway:
    """The gateway's API. To be used as a context manager. Methods raise `UserError`."""

    def __init__(self, url: str, environ: Environment) -> None:
        if not is_address(url):
            raise click.UsageError(f"write an address like {URL}: --url or OUTLAY_URL")
        key = secret(environ, "OUTLAY_KEY")
        headers = {"x-outlay-key": key} if key else {}
        self._url = url
        self._http = httpx.Client(base_url=url.rstrip("/") + "/-/api/v1/", headers=headers, timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def tickets_of(self, branch: str, repo: str) -> list[str]:
        """The tickets that the gateway reads in a branch."""
        me = self.read(self._get("me", params={"branch": branch, "repo": repo}), _Me)
        return [ticket.ticket_id for ticket in me.branch_tickets]

    def spend_on(self, ticket: str) -> bytes:
        return self._get(f"tickets/{quote(ticket, safe='')}")

    def read(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise UserError(f"what answers at {self._url} is no Outlay gateway of this version") from None

    def _get(self, path: str, **options: Any) -> bytes:
        answer = send(self._http, "the gateway", "GET", path, Patience(WAIT_MAX_SECONDS), **options)
        if answer.status_code == 200:
            return answer.content
        if answer.status_code == 401:
            raise UserError(f"the gateway at {self._url} wants a gateway key that is in force: set OUTLAY_KEY")
        message = self.read(answer.content, _Failure).error.message
        raise UserError(" ".join(message.split()))


# -- what the comment says ---------------------------------------------------------------------------------------------


def render(tickets: Sequence[Spend]) -> str:
    """The comment, in the Markdown of both forges."""
    rows = [
        f"| {code(spend.ticket_id)} | {_cost(spend)} | {spend.calls:,} | {spend.unpriced_calls:,} "
        f"| {spend.tasks:,} | {_sources(spend)} | {_models(spend)} |"
        for spend in tickets
    ]
    unpriced = any(spend.unpriced_calls for spend in tickets)
    return "\n".join(
        [
            MARKER,
            "**What the model calls for this work have cost**",
            "",
            "| Ticket | Spend, USD | Calls | Unpriced | Tasks | Ticket known by | Models |",
            "| --- | ---: | ---: | ---: | ---: | --- | --- |",
            *rows,
            "",
            "List prices, of all calls for the ticket up to now."
            + (" Calls without a known price are counted as unpriced, and are in no sum." if unpriced else ""),
            "",
            f"{COMPUTED}{min(spend.as_of for spend in tickets):%Y-%m-%d %H:%M} UTC by Outlay</sub>",
        ]
    )


def _sources(spend: Spend) -> str:
    return ", ".join(f"{code(part.ticket_source)} {part.calls:,}" for part in spend.sources) or "–"


def _models(spend: Spend) -> str:
    shown = [f"{code(part.model)} {_cost(part)}" for part in spend.models[:MODELS_MAX]]
    more = len(spend.models) - MODELS_MAX
    return ", ".join([*shown, f"{more} more"] if more > 0 else shown) or "–"


def _cost(of: Spend | Part) -> str:
    return "unpriced" if of.calls and of.unpriced_calls == of.calls else amount(of.list_cost_usd)


def amount(usd: Decimal) -> str:
    """Rounded for reading; what has a cost never reads as none."""
    return "under 0.01" if 0 < usd < Decimal("0.01") else f"{usd:,.2f}"


def code(text: str | None) -> str:
    """Foreign text in a code span of a table's cell, on one line, whatever is in it."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text or "").strip()
    shown = shown.replace("`", "'").replace("|", "¦")
    return f"`{shown[:NAME_MAX]}`" if shown else "–"


def _without_time(body: str) -> list[str]:
    """What a comment says. Forges may end lines otherwise, and lose spaces at the end."""
    lines = [line.rstrip() for line in body.strip().splitlines()]
    return [line for line in lines if not line.startswith(COMPUTED)]
