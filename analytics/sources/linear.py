"""Linear, over its GraphQL API: issues with the history of their states, and the pull requests attached to them.

First what its payloads say, as rows: pure. Then how they are read: `Linear`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx

from analytics import work
from analytics.sources.http import Api, OverHttp, token_of
from analytics.sources.links import PULL_ADDRESS
from analytics.sources.pages import Pages
from analytics.sources.source import Batch, Given, Part, SourceError, Tickets, among, labelled, moment, name, row
from analytics.sources.statuses import Category, Change, course, rows
from gateway.errors import UserError
from gateway.reading import amount, child, items, text, whole_number

TITLE_MAX = 1024
CATEGORIES: Mapping[str | None, Category] = {
    **dict.fromkeys(("triage", "backlog", "unstarted"), "todo"),
    **dict.fromkeys(("completed", "canceled", "duplicate"), "done"),
}
"""By type of state. What is `started`, or of a type that nobody knows yet, is in progress."""
GIVEN_UP = ("canceled", "duplicate")

LISTS = {
    "labels": "name",
    "attachments": "url",
    "history": "createdAt actor { id email } fromState { name type } toState { name type }",
}
"""What an issue has several of: fields of each."""


def _page_of(what: str, first: int, after: str = "") -> str:
    archived = ", includeArchived: true" if what == "history" else ""
    return (
        f"{what}(first: {first}{after}{archived}) {{ nodes {{ {LISTS[what]} }} pageInfo {{ hasNextPage endCursor }} }}"
    )


ISSUE = f"""id identifier previousIdentifiers title url estimate trashed
  createdAt updatedAt startedAt completedAt canceledAt
  state {{ name type }} parent {{ identifier }} creator {{ id email }} assignee {{ id email }}
  {_page_of("labels", 10)} {_page_of("attachments", 10)} {_page_of("history", 20)}"""
"""Linear counts what could come, not what does: the pages in it are short."""
LIST = """query ($filter: IssueFilter, $first: Int, $after: String) {
  issues(filter: $filter, first: $first, after: $after, orderBy: createdAt, includeArchived: true) {
    nodes { %s } pageInfo { hasNextPage endCursor } } }"""
ISSUES, IDENTIFIERS = LIST % ISSUE, LIST % "identifier trashed"
ONE = f"query ($id: String!) {{ issue(id: $id) {{ {ISSUE} }} }}"
MORE = {
    what: f"query ($id: String!, $after: String) {{ issue(id: $id) {{ {_page_of(what, 100, ', after: $after')} }} }}"
    for what in LISTS
}
PAGE, IDS_PAGE = 50, 250
SETTING = "[work.linear] token"
LIMITS = ("requests", "complexity", "endpoint-requests")
LIMITED_SECONDS = 60.0
"""Of waiting, where Linear does not say how long: its limits come back little by little."""


# -- what issues say ---------------------------------------------------------------------------------------------------


def category(state: Any) -> Category:
    return CATEGORIES.get(text(child(state).get("type")), "in_progress")


def person(user: Any) -> str | None:
    return name(child(user).get("email")) or name(child(user).get("id"))


def history(item: Any, entries: Iterable[Any]) -> list[Change]:
    """States of an issue in the order of time: what it was made with, and each move. Most entries are of others."""

    def change(at: datetime, state: Any, by: str | None = None) -> Change:
        return Change(at, name(child(state).get("name")), category(state), by)

    item = child(item)
    made_at, present = moment(item.get("createdAt")), item.get("state")
    moves = sorted(
        (
            (at, child(entry))
            for entry in entries
            if child(entry, "toState") and (at := moment(child(entry).get("createdAt")))
        ),
        key=lambda move: move[0],
    )
    if not moves:
        ended_at = moment(item.get("completedAt")) or moment(item.get("canceledAt"))
        at = ended_at or made_at if category(present) == "done" else made_at
        return [change(at, present)] if at else []
    first_at, first = moves[0]
    made = [change(min(made_at or first_at, first_at), first.get("fromState"))] if child(first, "fromState") else []
    return made + [change(at, move.get("toState"), person(move.get("actor"))) for at, move in moves]


def ticket(item: Any, changes: Sequence[Change], types: Mapping[str, str]) -> work.Ticket:
    """Of an issue, with its history, and labels that say what kind of ticket it is."""
    item, state, went = child(item), child(item, "state"), course(changes)
    key, labels = text(item.get("identifier")) or "", _names(child(item, "labels"))
    is_done, kind = category(state) == "done", text(state.get("type"))
    parent = name(child(item, "parent").get("identifier"))
    ended_at = moment(item.get("completedAt")) or moment(item.get("canceledAt")) or went.done_at
    return row(
        work.Ticket,
        ticket_id=key,
        source="linear",
        project=key.rpartition("-")[0],
        type="subtask" if parent else labelled(labels, types),
        title=text(item.get("title"), TITLE_MAX),
        status=name(state.get("name")),
        status_category=category(state),
        resolution=kind if kind in GIVEN_UP else None,
        estimate=amount(item.get("estimate")),
        parent_id=parent,
        labels=labels,
        created_at=moment(item.get("createdAt")),
        started_at=moment(item.get("startedAt")) or went.started_at,
        done_at=ended_at if is_done else None,
        reopened_count=went.reopened_count,
        creator=person(item.get("creator")),
        assignee=person(item.get("assignee")),
        closer=went.closer,
        updated_at=moment(item.get("updatedAt")),
        url=text(item.get("url"), TITLE_MAX),
        aliases=sorted({found for old in items(item.get("previousIdentifiers")) if (found := name(old))} - {key}),
    )


def _names(labels: Mapping[str, Any]) -> list[str]:
    return [found for label in items(labels.get("nodes")) if (found := name(child(label).get("name")))]


def pull_requests(item: Any, ticket_id: str) -> list[work.TicketPr]:
    """Those that are attached to an issue, of any forge."""
    urls = [str(child(node).get("url")) for node in items(child(item, "attachments").get("nodes"))]
    pulls = {f"{at['repo']}!{at['number']}": None for url in urls if (at := PULL_ADDRESS.match(url))}
    return [work.TicketPr(ticket_id=ticket_id, pr_id=pr_id) for pr_id in pulls]


# -- how they are read -------------------------------------------------------------------------------------------------


class Linear(OverHttp):
    name = "linear"

    def __init__(self, given: Given) -> None:
        self._settings, self._patience = given.settings.linear, given.patience
        token = token_of(self._settings.token, SETTING)
        # A key of a person is sent as it is, that of an application is not.
        headers = {"Authorization": token if token.startswith("lin_api_") else f"Bearer {token}"} if token else {}
        self._api = Api("Linear", self._settings.api, headers, SETTING, given.patience)

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        for team in among(self._settings.teams, projects):
            tickets = Tickets(team, partial(self._ids, team), self._ticket)
            yield Part(f"{team} issues", partial(self._issues, team), tickets, told_by=("ticket",))

    def _issues(self, team: str, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        pages, condition = Pages(), {"updatedAt": {"gt": f"{since.isoformat()}Z"}} if since else {}
        for found, following in self._pages(ISSUES, team, condition, PAGE, cursor):
            for item in found:
                with pages.item(f"issue {child(item).get('identifier')}", child(item).get("updatedAt")):
                    if child(item).get("trashed") is not True:
                        self._issue(item, pages)
            yield pages.end(following, len(found))

    def _issue(self, item: Any, pages: Pages) -> None:
        item = {**child(item), **{what: {"nodes": list(self._all_of(item, what))} for what in LISTS}}
        changes = history(item, child(item, "history")["nodes"])
        one = ticket(item, changes, self._settings.types)
        pages.add("tickets", [one])
        pages.add("ticket_statuses", rows(one.ticket_id, changes))
        pages.add("ticket_prs", pull_requests(item, one.ticket_id), [one.ticket_id])

    def _all_of(self, item: Any, what: str) -> Iterator[Any]:
        """What an issue has several of: the first page came with it, the others are asked for."""
        page = child(item, what)
        yield from items(page.get("nodes"))
        while after := _next(page):
            page = child(self._ask(MORE[what], {"id": child(item).get("id"), "after": after}), "issue", what)
            yield from items(page.get("nodes"))

    def _ids(self, team: str) -> Iterator[list[str]]:
        for found, _ in self._pages(IDENTIFIERS, team, {}, IDS_PAGE, None):
            there = [item for item in map(child, found) if item.get("trashed") is not True]
            yield [key for item in there if (key := text(item.get("identifier")))]

    def _ticket(self, key: str) -> Batch | None:
        """Also by an identifier that it had before."""
        item = child(self._ask(ONE, {"id": key}), "issue")
        if not item or item.get("trashed") is True:
            return None
        pages = Pages()
        try:
            self._issue(item, pages)
        except ValueError as error:
            raise UserError(f"Linear's issue {key} is not what it should be: {error}") from None
        return pages.end(None, 1)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _pages(
        self, query: str, team: str, condition: Mapping[str, Any], size: int, after: Any
    ) -> Iterator[tuple[list[Any], str | None]]:
        """Issues of a team in the order of creation, and where the next page begins."""
        variables = {"filter": {"team": {"key": {"eq": team}}, **condition}, "first": size, "after": after}
        while True:
            page = child(self._ask(query, variables), "issues")
            yield items(page.get("nodes")), (after := _next(page))
            if after is None:
                return
            variables["after"] = after

    def _ask(self, query: str, variables: dict[str, Any]) -> Mapping[str, Any]:
        """The data of an answer. What is too much for one is asked for in smaller pages from then on."""
        while True:
            answer = self._api.post("graphql", {"query": query, "variables": variables}, allowed=(400,))
            answered = child(self._api.decode(answer))
            errors = list(map(child, items(answered.get("errors"))))
            kinds = {_kind(child(error, "extensions").get(key)) for error in errors for key in ("code", "type")}
            words = " ".join(str(error.get("message")) for error in errors).casefold()
            if "ratelimited" in kinds:
                self._patience.wait(_asked_to_wait(answer), "Linear")
            elif "complex" in words and variables.get("first", 1) > 1:
                variables["first"] //= 2
            elif "authenticationerror" in kinds:
                raise SourceError(f"Linear does not take the token of {SETTING}: it may have ended, or been revoked")
            elif "entity not found" in words:
                return {}
            elif errors or not answer.is_success:
                raise UserError("Linear does not answer what was asked: the next sync tries again")
            else:
                return child(answered, "data")


def _next(page: Mapping[str, Any]) -> str | None:
    info = child(page, "pageInfo")
    return text(info.get("endCursor")) if info.get("hasNextPage") is True else None


def _kind(value: Any) -> str:
    """`AUTHENTICATION_ERROR` and `authentication error` are the same."""
    return str(value).casefold().replace("_", "").replace(" ", "")


def _asked_to_wait(answer: httpx.Response) -> float:
    """Until the limit that is used up is back. Linear's times are milliseconds."""
    resets = [
        whole_number(answer.headers.get(f"x-ratelimit-{limit}-reset"))
        for limit in LIMITS
        if answer.headers.get(f"x-ratelimit-{limit}-remaining") == "0"
    ]
    known = [reset / 1000 - datetime.now(UTC).timestamp() for reset in resets if reset is not None]
    return max([1.0, *known]) if known else LIMITED_SECONDS
