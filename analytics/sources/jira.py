"""Jira Cloud, over its REST API (v3): issues with the history of their statuses.

First what its payloads say, as rows: pure. Then how they are read: `Jira`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from analytics import work
from analytics.sources.source import moment, name, row
from analytics.sources.statuses import Category, Change, course
from gateway.reading import amount, child, items, text

TITLE_MAX = 1024
CATEGORIES: Mapping[str, Category] = {"new": "todo", "indeterminate": "in_progress", "done": "done"}
POINTS = frozenset({"story points", "story point estimate"})
"""What sites call the field, in lower case; each has another number for it."""


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
    key, kind = str(child(item).get("key")), child(fields, "issuetype")
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
