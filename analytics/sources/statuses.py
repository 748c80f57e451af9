"""What the history of a ticket's statuses tells: when work began, when it was done, how often it was opened again."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from analytics.work import TicketStatus

Category = Literal["todo", "in_progress", "done"]


class Change(NamedTuple):
    """From when a ticket had a status; the first one is that it was made with."""

    at: datetime
    status: str | None
    category: Category
    by: str | None = None


class Course(NamedTuple):
    """How a ticket went."""

    started_at: datetime | None
    """When it first was not to be done."""
    done_at: datetime | None
    """When it last became done; of one that is not done, never."""
    closer: str | None
    """Who did that."""
    reopened_count: int


def course(changes: Iterable[Change]) -> Course:
    """Of changes in the order of time."""
    listed = list(changes)
    closed = None
    if listed and listed[-1].category == "done":
        closed = next(
            (after for before, after in reversed(list(pairwise(listed))) if before.category != "done"), listed[0]
        )
    return Course(
        started_at=next((change.at for change in listed if change.category != "todo"), None),
        done_at=closed.at if closed else None,
        closer=closed.by if closed else None,
        reopened_count=sum(before.category == "done" != after.category for before, after in pairwise(listed)),
    )


def rows(ticket_id: str, changes: Iterable[Change]) -> Iterator[TicketStatus]:
    """Of changes in the order of time. Of several at one moment the last one counts."""
    for at, change in {change.at: change for change in changes}.items():
        yield TicketStatus(
            ticket_id=ticket_id,
            changed_at=at,
            status=change.status,
            status_category=change.category,
            changed_by=change.by,
        )
