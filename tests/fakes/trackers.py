"""GitLab, Jira Cloud and Linear on real sockets, as far as syncing goes: pages, limits, failures, tokens that end."""

import json
import re
import threading
from base64 import b64encode
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import duckdb

from analytics import build, work
from analytics.sources.source import Given, Patience, SourceError
from gateway.config import WorkSettings
from gateway.errors import UserError
from gateway.ticket_keys import TicketKeys

TOKEN = "glpat-not-for-any-eye"
LINEAR_TOKEN = "lin_api_not-for-any-eye"
USER = "bot@acme.example"


class Asked(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never written


@dataclass
class Tracker:
    """What all of them do."""

    page_size: int = 3
    """Fewer than asked for, as trackers may."""
    failures: deque[tuple[str, Answer]] = field(default_factory=deque)
    """Patterns of paths, and what is answered first instead, each once."""
    asked: list[Asked] = field(default_factory=list)
    ahead: timedelta = timedelta()
    """Of our clock is theirs."""
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self, pattern: str = "") -> list[str]:
        """Those asked for, of which some part matches."""
        return [each.path for each in self.asked if re.search(pattern, each.path)]

    def respond(self, asked: Asked) -> Answer:
        with self.lock:
            self.asked.append(asked)
            for failure in list(self.failures):
                if re.search(failure[0], asked.path):
                    self.failures.remove(failure)
                    return failure[1]
            return self.answer(asked)

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def change(self, item: dict[str, Any], **fields: Any) -> None:
        with self.lock:
            item.update(fields)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tracker: Tracker

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(datetime.now(UTC) + self.tracker.ahead, usegmt=True)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(
            self.command,
            url.path,
            dict(parse_qsl(url.query)),
            json.loads(sent) if sent else None,
            self.headers.get("Authorization"),
        )
        status, body, headers = self.tracker.respond(asked)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815


@contextmanager
def serving(tracker: Tracker) -> Iterator[None]:
    handler = type("Handler", (_Handler,), {"tracker": tracker})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        tracker.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


MODELS = build.load(build.MODELS / "work")


def table(query: str) -> list[Any]:
    """What is stored of work in the folder `data`, after a sync."""
    named = {"ticket_prs", "tickets", *re.findall(r"\w+", query)}
    with duckdb.connect() as db:
        wanted = {name: model for name, model in MODELS.items() if name in named}
        build.create_views(db, Path("data"), wanted | build.needed(db, MODELS, wanted))
        return db.execute(query).fetchall()


@dataclass
class Read:
    """What a source gives, without a sync around it."""

    rows: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def ids(self, table: str = "tickets") -> list[str]:
        return sorted(getattr(row, work.TABLES[table].key[0]) for row in self.rows[table])


def read(
    kind: Callable[[Given], Any], settings: WorkSettings, since: datetime | None = None, patience: float = 600.0
) -> Read:
    found = Read()
    given = Given(
        settings, TicketKeys(["PAY", "acme/shop"]), Patience(patience, found.waits.append), lambda *_: {}, lambda *_: []
    )
    try:
        with kind(given) as source:
            for part in source.parts():
                try:
                    for batch in part.read(None, since):
                        for name, rows in batch.rows.items():
                            found.rows[name] += rows
                        found.problems += batch.problems
                except SourceError:
                    raise
                except UserError as error:
                    found.failures.append(str(error))
    except SourceError as error:
        found.failures.append(str(error))
    return found


# -- GitLab ------------------------------------------------------------------------------------------------------------


@dataclass
class FakeGitLab(Tracker):
    path: str = "acme/shop"
    former: str | None = None
    """Of the project, from before it was renamed."""
    issues: list[dict[str, Any]] = field(default_factory=list)
    merge_requests: list[dict[str, Any]] = field(default_factory=list)
    deployments: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """What is below an item, by the end of its path: `issues/1/resource_state_events`."""
    hidden: tuple[str, ...] = ()
    """Ends of paths that this edition does not have."""
    total_max: int = 10_000
    """Above that no list says how long it is."""
    has_links: bool = True
    """Between the pages; a proxy may take them away."""

    def answer(self, asked: Asked) -> Answer:
        if asked.authorization != f"Bearer {TOKEN}":
            return Answer(401, {"message": f"401 Unauthorized {asked.authorization}"})
        at = asked.path.removeprefix("/api/v4/")
        project, _, below = at.removeprefix("projects/").partition("/")
        project = unquote(project)
        if project == self.former:
            return Answer(301, {}, {"Location": f"{self.url}/api/v4/projects/7/{below}".rstrip("/")})
        if project not in ("7", self.path) or below in self.hidden or below.rpartition("/")[2] in self.hidden:
            return Answer(404, {"message": "404 Not found"})
        if not below:
            return Answer(200, {"id": 7, "path_with_namespace": self.path, "default_branch": "main"})
        if below in ("issues", "merge_requests", "deployments"):
            return self._list(asked, list(getattr(self, below)))
        if one := re.fullmatch(r"issues/(\d+)", below):
            found = [issue for issue in self.issues if str(issue["iid"]) == one[1]]
            return Answer(200, found[0]) if found else Answer(404, {"message": "404 Not found"})
        if below.startswith("repository/files/"):
            found = self.details.get("attributes")
            return Answer(200, found.encode()) if found else Answer(404, {"message": "404 File Not Found"})
        found = self.details.get(below, {"approved_by": []} if below.endswith("approvals") else [])
        return self._list(asked, found) if isinstance(found, list) else Answer(200, found)

    def _list(self, asked: Asked, found: list[dict[str, Any]]) -> Answer:
        if after := asked.query.get("updated_after"):
            if asked.path.endswith("deployments") and asked.query.get("order_by") != "updated_at":
                return Answer(400, {"message": "`updated_at` filter and `updated_at` sorting must be paired"})
            found = [item for item in found if moment(item["updated_at"]) >= moment(after)]
        if (order := asked.query.get("order_by")) is not None:
            found.sort(key=lambda item: item[order], reverse=asked.query.get("sort") == "desc")
        size, page = min(int(asked.query.get("per_page", 20)), self.page_size), int(asked.query.get("page", 1))
        has_more = len(found) > page * size
        headers = {"x-next-page": str(page + 1) if has_more else "", "x-per-page": str(size)}
        if has_more and self.has_links:
            query = urlencode({**asked.query, "page": page + 1})
            headers["Link"] = f'<https://elsewhere.example{asked.path}?{query}>; rel="next"'
        if len(found) <= self.total_max:
            headers["x-total"] = str(len(found))
        return Answer(200, found[(page - 1) * size : page * size], headers)


def moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


# -- Jira --------------------------------------------------------------------------------------------------------------

JQL = re.compile(r'project = "(\w+)"(?: AND updated >= "([\d-]+ \d\d:\d\d)")? ORDER BY created ASC')


@dataclass
class FakeJira(Tracker):
    issues: list[dict[str, Any]] = field(default_factory=list)
    changelogs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By number of the issue."""
    statuses: list[dict[str, Any]] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    zone: timezone = timezone(timedelta(hours=-12))
    """Of the token's user: JQL is read in it."""
    revoked: str | None = None
    """"refused", or "ignored": it goes on as if nobody had asked."""
    tokens: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Of next pages: the search, and the numbers of the issues that are left."""

    def answer(self, asked: Asked) -> Answer:
        expected = b64encode(f"{USER}:{TOKEN}".encode()).decode()
        if self.revoked or asked.authorization != f"Basic {expected}":
            failed = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
            if self.revoked == "ignored":
                return Answer(200, {"issues": [], "isLast": True}, failed)
            return Answer(401, {"message": f"Client must be authenticated, not as {asked.authorization}"}, failed)
        at = asked.path.removeprefix("/rest/api/3/")
        if at == "search/jql" and asked.method == "POST":
            return self._search(asked.body)
        if at == "status":
            return Answer(200, self.statuses)
        if at == "field":
            return Answer(200, self.fields)
        if one := re.fullmatch(r"issue/(\w+)/changelog", at):
            start, size = int(asked.query["startAt"]), min(int(asked.query["maxResults"]), self.page_size)
            all_ = self.changelogs.get(one[1], [])
            page = {"startAt": start, "maxResults": size, "total": len(all_), "values": all_[start : start + size]}
            return Answer(200, {**page, "isLast": start + size >= len(all_)})
        if one := re.fullmatch(r"issue/([\w-]+)", at):
            former = [
                number
                for number, entries in self.changelogs.items()
                if any(item.get("fromString") == one[1] for entry in entries for item in entry["items"])
            ]
            for issue in self.issues:
                if issue["key"] == one[1] or issue["id"] in former:
                    return Answer(200, issue)
        return Answer(404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]})

    def _search(self, body: dict[str, Any]) -> Answer:
        if token := body.get("nextPageToken"):
            if token not in self.tokens or self.tokens[token][0] != body["jql"]:
                return Answer(400, {"errorMessages": ["The provided next page token is invalid or expired."]})
            left = self.tokens[token][1]
        else:
            jql = JQL.fullmatch(body["jql"])
            if jql is None or all(self._project(issue) != jql[1] for issue in self.issues):
                return Answer(400, {"errorMessages": ["The value does not exist for the field 'project'."]})
            since = datetime.fromisoformat(jql[2]).replace(tzinfo=self.zone) if jql[2] else None
            found = [
                issue
                for issue in self.issues
                if self._project(issue) == jql[1]
                and (since is None or moment(issue["fields"]["updated"]).replace(second=0, microsecond=0) >= since)
            ]
            left = [issue["id"] for issue in sorted(found, key=lambda issue: str(issue["fields"].get("created")))]
        size = min(body["maxResults"], self.page_size)
        by_number = {issue["id"]: issue for issue in self.issues}
        page: dict[str, Any] = {
            "issues": [self._shown(by_number[number], body["fields"]) for number in left[:size] if number in by_number],
            "isLast": len(left) <= size,
        }
        if len(left) > size:
            page["nextPageToken"] = f"token-{len(self.tokens)}-{'x' * 600}"
            self.tokens[page["nextPageToken"]] = body["jql"], left[size:]
        return Answer(200, page)

    def _project(self, issue: dict[str, Any]) -> str:
        return str(issue.get("key")).rpartition("-")[0]

    def _shown(self, issue: dict[str, Any], fields: list[str]) -> dict[str, Any]:
        shown = {name: value for name, value in issue["fields"].items() if name in fields}
        return {**{name: value for name, value in issue.items() if name != "fields"}, "fields": shown}


# -- Linear ------------------------------------------------------------------------------------------------------------


@dataclass
class FakeLinear(Tracker):
    issues: list[dict[str, Any]] = field(default_factory=list)
    """With all of their `history`, oldest last, and `archivedAt`."""
    complexity_max: int = 10_000

    def answer(self, asked: Asked) -> Answer:
        if asked.authorization != LINEAR_TOKEN:
            return self.error(401, "AUTHENTICATION_ERROR", f"Authentication required, not {asked.authorization}")
        query, variables = asked.body["query"], asked.body["variables"]
        selection = selected(query)
        if "issue" in selection:
            found = [
                issue
                for issue in self.issues
                if variables["id"] in (issue["id"], issue["identifier"], *issue["previousIdentifiers"])
            ]
            if not found:
                return self.error(200, "INPUT_ERROR", "Entity not found: Issue")
            sizes = {what: int(first) for what, first in re.findall(r"(\w+)\(first: (\d+)", query)}
            whole = self._with_lists(found[0], sizes, variables.get("after"))
            return Answer(200, {"data": {"issue": shown(whole, selection["issue"])}})
        first = min(variables.get("first") or 50, self.page_size)
        if (variables.get("first") or 50) * (120 if "history" in query else 2) > self.complexity_max:
            return self.error(400, "INPUT_ERROR", "Query too complex")
        condition = variables["filter"]
        since = condition.get("updatedAt", {}).get("gt")
        found = [
            issue
            for issue in self.issues
            if issue["identifier"].rpartition("-")[0] == condition["team"]["key"]["eq"]
            and (since is None or moment(issue["updatedAt"]) > moment(since))
            and (issue["archivedAt"] is None or "includeArchived: true" in query)
        ]
        found.sort(key=lambda issue: issue["createdAt" if "orderBy: createdAt" in query else "updatedAt"])
        page = self._connection(found, first, variables.get("after"))
        sizes = {"labels": 2, "attachments": 2, "history": 2}
        page["nodes"] = [self._with_lists(issue, sizes, None) for issue in page["nodes"]]
        return Answer(200, {"data": {"issues": shown(page, selection["issues"])}})

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
        error = {"message": message, "extensions": {"code": code, "type": code.lower().replace("_", " ")}}
        return Answer(status, {"errors": [error], "data": None}, headers or {})

    def _with_lists(self, issue: dict[str, Any], sizes: dict[str, int], after: str | None) -> dict[str, Any]:
        """With a page of so many of each of its lists."""
        lists = {what: issue[what] for what in sizes if isinstance(issue[what], list)}
        return {**issue, **{what: self._connection(nodes, sizes[what], after) for what, nodes in lists.items()}}

    def _connection(self, found: list[dict[str, Any]], first: int, after: str | None) -> dict[str, Any]:
        start = int(after) if after else 0
        info = {"hasNextPage": start + first < len(found), "endCursor": str(start + first)}
        return {"nodes": found[start : start + first], "pageInfo": info}


def selected(query: str) -> dict[str, Any]:
    """The fields that a query asks for, as nested names."""
    body = re.sub(r"\([^()]*\)", "", query)
    words: list[str] = re.findall(r"[{}]|\w+", body[body.index("{") :])
    top: dict[str, Any] = {}
    open_, last = [top], "query"
    for word in words:
        if word == "{":
            open_.append(open_[-1].setdefault(last, {}))
        elif word == "}":
            open_.pop()
        else:
            last = word
            open_[-1][word] = {}
    found: dict[str, Any] = top["query"]
    return found


def shown(value: Any, selection: dict[str, Any]) -> Any:
    """Of an answer, what was asked for."""
    if isinstance(value, list):
        return [shown(each, selection) for each in value]
    if not isinstance(value, dict) or not selection:
        return value
    return {name: shown(value.get(name), below) for name, below in selection.items()}
