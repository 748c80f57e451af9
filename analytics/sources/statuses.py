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
    """When it first was under way, or done at once; of one that is only known to be done, not known."""
    done_at: datetime | None
    """When it last became done; of one that is not done, never."""
    closer: str | None
    """Who did that."""
    reopened_count: int


def course(changes: Iterable[Change]) -> Course:
    """Of changes in the order of time."""
    listed = list(changes)
    moves = list(pairwise(listed))
    begun = [change for change in listed[:1] if change.category == "in_progress"]
    begun += [after for before, after in moves if _is_begin(before, after)]
    closed = [*listed[:1], *(after for before, after in moves if after.category == "done" != before.category)]
    is_done = bool(listed) and listed[-1].category == "done"
    return Course(
        started_at=begun[0].at if begun else None,
        done_at=closed[-1].at if is_done else None,
        closer=closed[-1].by if is_done else None,
        reopened_count=sum(before.category == "done" != after.category for before, after in moves),
    )


def _is_begin(before: Change, after: Change) -> bool:
    return after.category == "in_progress" or (before.category == "todo" and after.category == "done")


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
