"""What pages have in common: the console that serves them, who looks, what of, and how it is shown."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import jinja2
import msgspec
from aiohttp import web

from analytics import disk, kept
from analytics.web import asking, auth, charts, formats, spans, tables
from analytics.web.asking import Answer, Asking
from analytics.web.sessions import Attempts, Session, Sessions
from analytics.web.spans import Span
from analytics.web.tables import Shown, Table
from gateway.call import Principal, Role
from gateway.config import Config
from gateway.endpoints import ApiError, Asked, Endpoint, read_body
from gateway.errors import Refusal
from gateway.keys import Keys, NoSuchKeyError

T = TypeVar("T")
FOLDER = Path(__file__).parent
EMPTY: Mapping[str, str] = MappingProxyType({})
Access = Literal["anybody", "viewer", "finops", "admin"]
RANKS: dict[Role | None, int] = {None: 0, "viewer": 1, "finops": 2, "admin": 3}
NEEDS: dict[Access, int] = {"anybody": 0, "viewer": 1, "finops": 2, "admin": 3}
ZONE_COOKIE = "outlay_zone"
DAYS_DRAWN = 100
"""In a chart; more are drawn as months."""
SUMS = ("list_cost_usd", "unpriced_calls", "calls")
"""What most tables have the totals of."""
MENU = (
    ("/", "Overview"), ("/spend", "Spend"), ("/tickets", "Tickets"), ("/waste", "Waste"), ("/scorecard", "Scorecard"),
    ("/budgets", "Budgets"), ("/keys", "Keys"), ("/coverage", "Coverage"), ("/sql", "SQL"),
)  # fmt: skip


TOO_MANY = (
    f"CSV is sent with at most {tables.CSV_ROWS:,} rows and nothing is cut off: outlay.duckdb has all, for any shell."
)


class ProblemError(Exception):
    """A page that says why there is no other."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status, self.title, self.text = status, title, text


@dataclass(frozen=True)
class Page:
    """A route: who may ask for it, and what makes the answer, or raises `ProblemError`, `AskError`, a redirection."""

    method: Literal["GET", "POST"]
    path: str
    access: Access
    serve: Callable[["Visit"], Awaitable[web.Response]]


@dataclass
class Console:
    """What a running console consists of."""

    config: Config
    data: Path
    url: str
    """Where people reach it."""
    ring: Keys
    configured: Mapping[str, Principal]
    """Holders of the admin keys of the settings."""
    asks: Asking
    sessions: Sessions
    attempts: Attempts
    apis: Mapping[str, Endpoint]
    """The admin API's endpoints that change something, by method and path: the same code as behind `/-/api/v1`."""
    gateway: str | None
    provider: Any
    """The identity provider (`oidc.Provider`); `None` where there is none."""
    secret: bytes
    """Of this process: signs what is given to browsers before they are signed in."""
    pages: jinja2.Environment = field(default_factory=lambda: _environment())

    @property
    def can_anybody_sign_in(self) -> bool:
        return auth.can_anybody_sign_in(self.ring, self.configured, self.config)

    @property
    def is_https(self) -> bool:
        return self.url.startswith("https://")

    @property
    def is_synthetic(self) -> bool:
        return self.config.ledger.synthetic or (self.data / disk.MARKER).exists()


@dataclass
class Visit:
    """One request for a page."""

    console: Console
    request: web.Request
    session: Session | None
    form: Mapping[str, str] = field(default_factory=dict)
    """Of a POST whose token was right."""

    @property
    def principal(self) -> Principal:
        assert self.session is not None
        return self.session.principal

    @property
    def zone(self) -> ZoneInfo:
        """Chosen by the address, by a cookie, by the settings."""
        for name in (self.request.query.get("zone"), self.request.cookies.get(ZONE_COOKIE)):
            if name and (zone := zone_of(name)) is not None:
                return zone
        return ZoneInfo(self.console.config.console.timezone)

    @property
    def span(self) -> Span:
        return spans.of(self.request.query, today())

    @property
    def no_day(self) -> str | None:
        """What was asked for as a day, and is none."""
        return spans.unread(self.request.query)

    @property
    def who(self) -> str:
        """Whoever is signed in, as people call him: a key by its name."""
        assert self.session is not None
        with contextlib.suppress(NoSuchKeyError):
            return self.console.ring.one(self.principal.key_id or "").created.name or self.session.name
        return self.session.name

    def may(self, access: Access) -> bool:
        return self.session is not None and RANKS[self.session.principal.role] >= NEEDS[access]

    def here(self, path: str | None = None, **changes: str | None) -> str:
        """This address with other parameters; names with a dot are written with `__`."""
        given: dict[str, str | None] = dict(parse_qsl(self.request.query_string))
        given |= {name.replace("__", "."): value for name, value in changes.items()}
        return formats.query(path or self.request.rel_url.raw_path, given)

    # -- questions ----------------------------------------------------------------------------------------------------

    async def ask(self, query: str, *, is_exact: bool = False, **given: Any) -> Answer:
        return await self.console.asks.ask(asking.text(query), given, is_exact=is_exact)

    async def one(self, query: str, **given: Any) -> dict[str, Any] | None:
        rows = (await self.ask(query, **given)).dicts()
        return rows[0] if rows else None

    async def tables(self, *wanted: Table) -> list[Shown]:
        """Asked for together. When CSV of one is wanted, that alone is made, and sent."""
        await self._send_csv(wanted)
        asks = self.console.asks
        shown = (tables.show(asks, table, tables.asked(table, self.request.query)) for table in wanted)
        return list(await asyncio.gather(*shown))

    async def over(
        self, over: str, given: Mapping[str, Any], queries: Sequence[str], wanted: Sequence[Table]
    ) -> tuple[list[Answer], list[Shown]]:
        """Queries and tables that are about the rows of one query, which are found once for them all."""
        await self._send_csv(wanted)
        asked = [(table, tables.asked(table, self.request.query)) for table in wanted]
        of_tables = [tables.questions(table, of) for table, of in asked]
        questions = [(asking.text(query), given) for query in queries] + [each for some in of_tables for each in some]
        answers = iter(await self.console.asks.ask_all(questions, over))
        first = [next(answers) for _ in queries]
        return first, [
            tables.shown(table, of, [next(answers) for _ in some])
            for (table, of), some in zip(asked, of_tables, strict=True)
        ]

    async def _send_csv(self, wanted: Sequence[Table]) -> None:
        for table in wanted:
            if self.request.query.get("csv") == table.name:
                try:
                    text = await tables.as_csv(self.console.asks, table, tables.asked(table, self.request.query))
                except tables.TooManyError:
                    raise ProblemError(422, "Too many rows", f"{TOO_MANY} Choose fewer days, or a filter.") from None
                raise Download(text, table.name)

    async def recorded(self) -> dict[str, Any] | None:
        """First and last day with a call, to say where there is something, on a page without anything."""
        return await self.one("console/recorded")

    async def kept(self, kind: kept.Kind) -> kept.State:
        """Of what is written down, which the keeper, and no page, works out."""
        [found] = (await self.ask(kept.RECORDS, is_exact=True)).rows
        return await asyncio.to_thread(kept.state, self.console.data, kind, found=found)

    # -- answers ------------------------------------------------------------------------------------------------------

    def show(self, template: str, status: int = 200, /, **values: Any) -> web.Response:
        values = {"visit": self, "console": self.console, "zone": self.zone, "menu": MENU, **values}
        text = self.console.pages.get_template(template).render(values)
        return web.Response(text=text, status=status, content_type="text/html")


class Download(Exception):  # noqa: N818 - what is asked for, no error
    """A table as a file."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(name)
        self.text, self.name = text, name


def spelled_out(query: str, given: Mapping[str, Any], over: str = "") -> str:
    """The SQL of a query, to be run in any shell."""
    return asking.spelled_out(asking.whole(query, over), given)


def choice(visit: Visit, name: str, among: Mapping[str, str], default: str) -> str:
    asked = visit.request.query.get(name, default)
    return asked if asked in among else default


def today() -> date:
    return datetime.now(UTC).date()


def zone_of(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def cannot_write() -> ProblemError:
    return ProblemError(503, "It cannot be written", "The data folder cannot be written; nothing was changed.")


# -- the admin API ----------------------------------------------------------------------------------------------------


async def api(visit: Visit, what: str, path: Mapping[str, str] = EMPTY, body: Any = None) -> Any:
    """What an endpoint of the admin API does, for whoever is signed in: by the same code. Raises `ProblemError`."""
    endpoint = visit.console.apis[what]
    if not endpoint.admits(visit.principal):
        raise ProblemError(403, "Not with this role", f"This needs the role {endpoint.access}.")
    try:
        return await endpoint.serve(Asked(visit.principal, path, None, body))
    except (ApiError, Refusal) as error:
        raise _problem_of(error) from None


def form_body(given: Mapping[str, Any], kind: type[T]) -> T:
    """A form's fields as the body of an endpoint, checked in the same way. Raises `ProblemError`."""
    try:
        return read_body(msgspec.json.encode(given), kind)
    except ApiError as error:
        raise _problem_of(error) from None


def end_of_day(what: str, text: str) -> str:
    """Of a day in a form, as endpoints take moments. Raises `ProblemError`."""
    try:
        return f"{date.fromisoformat(text.strip()) + timedelta(days=1)}T00:00:00Z"
    except (ValueError, OverflowError):
        raise ProblemError(400, "This was not taken", f"{what}: choose a day.") from None


def _problem_of(error: ApiError | Refusal) -> ProblemError:
    title = {404: "It is not there", 403: "Not with this key"}.get(error.status, "This was not taken")
    text = error.message.removeprefix("Outlay: ")
    return ProblemError(error.status, title, text[:1].upper() + text[1:])


# -- templates --------------------------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals |= {
        "formats": formats, "charts": charts, "static": static_url, "spans": spans.NAMES, "link": link,
        "now": lambda: datetime.now(UTC),
    }  # fmt: skip
    pages.filters |= {
        "usd": formats.usd,
        "exact": formats.exact_usd,
        "percent": formats.percent,
        "label": formats.label,
    }
    return pages


def link(path: str, **given: str | None) -> str:
    return formats.query(path, {name.replace("__", "."): value for name, value in given.items()})


STATIC = {
    path.name: path.read_bytes()
    for path in sorted((FOLDER / "static").iterdir())
    if path.suffix in (".css", ".js", ".svg")
}


def static_url(name: str) -> str:
    """With a digest of what is in it, so that browsers may keep it."""
    return f"/static/{name}?{urlencode({'v': hashlib.sha256(STATIC[name]).hexdigest()[:12]})}"
