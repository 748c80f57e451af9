"""Jira Cloud, over its REST API (v3): issues with the history of their statuses.

First what its payloads say, as rows: pure. Then how they are read: `Jira`.
"""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote

import httpx

from analytics import work
from analytics.sources.http import Api, OverHttp, token_of
from analytics.sources.pages import Pages, changed
from analytics.sources.source import Batch, Given, Part, SourceError, Tickets, among, moment, name, row
from analytics.sources.statuses import Category, Change, course, rows
from gateway.errors import UserError
from gateway.reading import amount, child, items, text, whole_number

TITLE_MAX = 1024
CATEGORIES: Mapping[str, Category] = {"new": "todo", "indeterminate": "in_progress", "done": "done"}
POINTS = frozenset({"story points", "story point estimate"})
"""What sites call the field, in lower case; each has another number for it."""
FIELDS = (
    *("summary", "status", "resolution", "resolutiondate", "statuscategorychangedate", "issuetype", "parent"),
    *("labels", "created", "updated", "creator", "assignee"),
)
PAGE, IDS_PAGE = 100, 5000
TOKEN_MAX = 2**16
SETTING = "[work.jira] token"


class Statuses:
    """What the statuses of one site mean, by their numbers: several may have one name, and mean different things."""

    def __init__(self, listed: Any, meant: Mapping[str, Category]) -> None:
        """`meant`, by name or number, overrules what the site says."""
        self._meant = {word.casefold(): category for word, category in meant.items()}
        self._by_number: dict[str | None, Category] = {}
        self._by_name: dict[str | None, set[Category]] = defaultdict(set)
        for status in map(child, items(listed)):
            category = CATEGORIES.get(str(child(status, "statusCategory").get("key")), "in_progress")
            self._by_number[text(status.get("id"))] = category
            self._by_name[name(status.get("name"))].add(category)

    def meant(self, number: str | None, called: str | None) -> Category | None:
        """What somebody said that it means."""
        return self._meant.get(number or "") or self._meant.get((called or "").casefold())

    def category(self, number: str | None, called: str | None) -> Category | None:
        """Of a status that a ticket had. One that is no more there means what all others of its name do."""
        if known := self.meant(number, called) or self._by_number.get(number):
            return known
        of_name = self._by_name.get(called, set())
        return next(iter(of_name)) if len(of_name) == 1 else None


def category(item: Any, statuses: Statuses) -> tuple[Category, str | None]:
    """Of an issue now, and what is wrong with what its site says of that status.

    A resolved issue is done, whatever its status means: nobody resolves what goes on, and categories are often wrong.
    """
    fields, status = child(item, "fields"), child(item, "fields", "status")
    number, called = text(status.get("id")), name(status.get("name"))
    if meant := statuses.meant(number, called):
        return meant, None
    key = text(child(status, "statusCategory").get("key"))
    found = CATEGORIES.get(key or "")
    doubt = f'the status "{called}" ({number}) needs mapping: its category is {key or "none"}'
    advice = "say what it means in [work.jira] statuses"
    if found != "done" and child(fields, "resolution") and moment(fields.get("resolutiondate")):
        return "done", f"{doubt}, and yet tickets with it are resolved; {advice}"
    return ("in_progress", f"{doubt}, taken for in_progress; {advice}") if found is None else (found, None)


def history(item: Any, changelog: Iterable[Any], statuses: Statuses) -> list[Change]:
    """Its statuses in the order of time: what it was made with, and each move. Most of a changelog is no move."""
    fields, status = child(item, "fields"), child(item, "fields", "status")
    present, (meaning, _) = text(status.get("id")), category(item, statuses)
    made_at, turned_at = moment(fields.get("created")), moment(fields.get("statuscategorychangedate"))

    def change(
        at: datetime, number: Any, called: Any, by: str | None = None, unknown: Category = "in_progress"
    ) -> Change:
        number, called = text(number), name(called)
        known = meaning if number == present else statuses.category(number, called)
        return Change(at, called, known or unknown, by)

    moves = sorted(
        (
            (at, move, account(child(entry).get("author")))
            for entry in changelog
            for move in items(child(entry).get("items"))
            if child(move).get("field") == "status" and (at := moment(child(entry).get("created")))
        ),
        key=lambda move: move[0],
    )
    if not moves:
        done_at = moment(fields.get("resolutiondate")) or turned_at or made_at
        at = done_at if meaning == "done" else made_at
        return [change(at, present, status.get("name"))] if at else []
    (first_at, first, _), (last_at, last, _) = moves[0], moves[-1]
    changes = [change(min(made_at or first_at, first_at), first.get("from"), first.get("fromString"), unknown="todo")]
    changes += [change(at, move.get("to"), move.get("toString"), by) for at, move, by in moves]
    if text(last.get("to")) != present:  # a change of the workflow itself is in no changelog
        changes.append(change(max(turned_at or last_at, last_at), present, status.get("name")))
    return changes


def former_keys(changelog: Iterable[Any]) -> list[str]:
    """Keys that an issue had in other projects."""
    moves = [child(move) for entry in changelog for move in items(child(entry).get("items"))]
    return [key for move in moves if move.get("field") == "Key" and (key := name(move.get("fromString")))]


def ticket(
    item: Any, changes: Sequence[Change], former: Iterable[str], points: Iterable[str], site: str
) -> work.Ticket:
    """Of an issue: with the history of its statuses, its former keys, and the fields that may hold its estimate."""
    fields, went = child(item, "fields"), course(changes)
    key, kind = text(child(item).get("key")) or "", child(fields, "issuetype")
    return row(
        work.Ticket,
        ticket_id=key,
        source="jira",
        project=key.rpartition("-")[0],
        type="subtask" if kind.get("subtask") is True else name(kind.get("name")),
        title=text(fields.get("summary"), TITLE_MAX),
        status=name(child(fields, "status").get("name")),
        status_category=changes[-1].category if changes else None,
        resolution=name(child(fields, "resolution").get("name")),
        estimate=next((size for field in points if (size := amount(fields.get(field))) is not None), None),
        parent_id=name(child(fields, "parent").get("key")),
        labels=[found for label in items(fields.get("labels")) if (found := name(label))],
        created_at=moment(fields.get("created")),
        started_at=went.started_at,
        done_at=went.done_at,
        reopened_count=went.reopened_count,
        creator=account(fields.get("creator")),
        assignee=account(fields.get("assignee")),
        closer=went.closer,
        updated_at=moment(fields.get("updated")),
        url=f"{site}/browse/{key}",
        aliases=sorted({*former} - {key}),
    )


def account(person: Any) -> str | None:
    return name(child(person).get("accountId"))


def points_fields(listed: Any) -> list[str]:
    """Custom fields that hold story points: numbers, by their name."""
    return [
        found
        for field in items(listed)
        if child(field, "schema").get("type") == "number"
        or str(child(field, "schema").get("custom")).endswith(":float")
        if (name(child(field).get("name")) or "").casefold() in POINTS
        if (found := name(child(field).get("id")))
    ]


# -- how they are read -------------------------------------------------------------------------------------------------


class Jira(OverHttp):
    name = "jira"

    def __init__(self, given: Given) -> None:
        self._given, self._settings = given, given.settings.jira
        self._site = self._settings.api.rstrip("/")
        self._told: set[str] = set()
        """What is wrong with statuses: one line of each is enough."""
        token = token_of(self._settings.token, SETTING)
        account = b64encode(f"{self._settings.user}:{token}".encode()).decode()
        headers = {"Authorization": f"Basic {account}"} if token else {}
        self._api = Api("Jira", self._site, headers, SETTING, given.patience)

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        for project in among(self._settings.projects, projects):
            tickets = Tickets(project, partial(self._ids, project), self._ticket)
            yield Part(f"{project} issues", partial(self._issues, project), tickets, told_by=("ticket",))

    def _issues(self, project: str, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        """What changed: by the minute, in the time zone of the token's user, which the day's overlap makes up for."""
        pages, condition = Pages(), f' AND updated >= "{since:%Y-%m-%d %H:%M}"' if since else ""
        for found, following in self._search(project, condition, self._fields, PAGE, cursor):
            for item in changed(self._given, "tickets", found, since, _mark):
                with pages.item(f"issue {child(item).get('key')}", child(item, "fields").get("updated")):
                    self._issue(item, pages)
                _, doubt = category(item, self._statuses)
                if doubt is not None and doubt not in self._told:
                    self._told.add(doubt)
                    pages.problem(doubt)
            yield pages.end(following, len(found))

    def _issue(self, item: Any, pages: Pages) -> None:
        changelog = list(self._changelog(item))
        changes = history(item, changelog, self._statuses)
        one = ticket(item, changes, former_keys(changelog), self._points, self._site)
        pages.add("tickets", [one])
        pages.add("ticket_statuses", rows(one.ticket_id, changes))

    def _changelog(self, item: Any) -> Iterator[Any]:
        if not (number := text(child(item).get("id"))):
            raise ValueError("id is missing")
        read, is_last = 0, False
        while not is_last:
            answer = self._ask("GET", f"issue/{number}/changelog", {"startAt": read, "maxResults": PAGE}, (404,))
            page = child(self._api.decode(answer)) if answer.is_success else {}
            entries, total = items(page.get("values")), whole_number(page.get("total"))
            yield from entries
            read += len(entries)
            is_last = not entries or page.get("isLast") is True or (total is not None and read >= total)

    def _ids(self, project: str) -> Iterator[list[str]]:
        for found, _ in self._search(project, "", ["key"], IDS_PAGE, None):
            yield [key for item in found if (key := text(child(item).get("key")))]

    def _ticket(self, key: str) -> Batch | None:
        """Also by a key that it had in another project."""
        answer = self._ask("GET", f"issue/{quote(key)}", {"fields": ",".join(self._fields)}, (404,))
        if not answer.is_success:
            return None
        pages = Pages()
        try:
            self._issue(self._api.decode(answer), pages)
        except ValueError as error:
            raise UserError(f"Jira's issue {key} is not what it should be: {error}") from None
        return pages.end(None, 1)

    # -- the site -----------------------------------------------------------------------------------------------------

    @cached_property
    def _statuses(self) -> Statuses:
        return Statuses(self._api.decode(self._ask("GET", "status")), self._settings.statuses)

    @cached_property
    def _points(self) -> list[str]:
        if self._settings.points:
            return [self._settings.points]
        return points_fields(self._api.decode(self._ask("GET", "field")))

    @property
    def _fields(self) -> list[str]:
        return [*FIELDS, *self._points]

    # -- requests -----------------------------------------------------------------------------------------------------

    def _search(
        self, project: str, condition: str, fields: Sequence[str], size: int, token: Any
    ) -> Iterator[tuple[list[Any], str | None]]:
        """Issues of a project in the order of creation, and the token of the next page. Tokens end after a week: where
        one is refused, reading begins again, once."""
        jql = f'project = "{project}"{condition} ORDER BY created ASC'
        body = {"jql": jql, "fields": [*fields], "maxResults": size}
        is_again = False
        while True:
            answer = self._ask("POST", "search/jql", {**body, **({"nextPageToken": token} if token else {})}, (400,))
            if not answer.is_success:
                if token is None or is_again:
                    raise UserError(
                        f"Jira ({self._site}) does not take a search in {project}: check [work.jira] projects, and "
                        "that its user may browse it"
                    )
                token, is_again = None, True
                continue
            page = child(self._api.decode(answer))
            following = None if page.get("isLast") is True else text(page.get("nextPageToken"), TOKEN_MAX)
            if following is not None and following == token:
                raise UserError(f"Jira ({self._site}) answers with the same page of {project} again and again")
            yield items(page.get("issues")), following
            if following is None:
                return
            token = following

    def _ask(self, method: str, path: str, asked: Any = None, allowed: Collection[int] = ()) -> httpx.Response:
        at = f"rest/api/3/{path}"
        if method == "POST":
            answer = self._api.post(at, asked, allowed=allowed)
        else:
            answer = self._api.get(at, asked, allowed=allowed)
        if "FAILED" in answer.headers.get("x-seraph-loginreason", ""):  # it goes on, and shows what anybody may see
            raise SourceError(
                f"Jira ({self._site}) does not take [work.jira] user and token: it may have ended, or been revoked"
            )
        return answer


def _mark(item: Any) -> tuple[str | None, Any]:
    return text(child(item).get("key")), child(item, "fields").get("updated")
