"""What a tracker or forge is to `outlay sync`: parts that are read page by page, each going on where it stopped.

A source maps what it reads to rows of the work tables and does nothing else; `analytics.sync` stores them, remembers
how far each part was read, and tells what happened. A source is a class like `github.GitHub`, and a line in
`sync.sources`.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec

from analytics import work
from gateway.config import WorkSettings
from gateway.errors import UserError
from gateway.ticket_keys import TicketKeys

R = TypeVar("R", bound=work.Row)
T = TypeVar("T")


class SourceError(UserError):
    """Nothing more can be read of the whole source now: its token is refused, it is out of reach. A plain `UserError`
    ends a part alone."""


@dataclass
class Patience:
    """How long a tracker may be waited for, in all."""

    seconds: float
    pause: Callable[[float], object] = time.sleep

    def wait(self, seconds: float, whom: str) -> None:
        """Raises `SourceError` when that is too long."""
        if seconds > self.seconds:
            raise SourceError(f"{whom} asks to wait for {seconds:,.0f} s: try again then")
        self.seconds -= seconds
        self.pause(seconds)


@dataclass(frozen=True)
class Given:
    """What each source is made of."""

    settings: WorkSettings
    keys: TicketKeys
    """The rules for ticket keys in text."""
    patience: Patience
    """For its `http.Api`."""
    known: Callable[[str, Collection[str]], Mapping[str, datetime | None]]
    """Of a table (`pull_requests`) and ids: `updated_at` of those that are stored. With a day of overlap most of what
    is listed is stored already: what takes requests of its own for each is not read again."""
    ask: Callable[[str, Mapping[str, Any]], Sequence[tuple[Any, ...]]]
    """What a step answers (a file of `analytics/steps`, parameters) from the views of work tables."""


@dataclass
class Batch:
    """A page, as rows. Once they are stored, `cursor` is: reading goes on there, also after a kill."""

    rows: dict[str, list[work.Row]] = field(default_factory=dict)
    """By table. Of tables with `part_of` (links of a pull request), all rows of a group are in one batch."""
    cursor: Any = None
    """Where the next page begins; anything that JSON can hold. Not looked at after the last batch."""
    emptied: dict[str, list[str]] = field(default_factory=dict)
    """By table with `part_of`: groups that may have no rows now, such as pull requests that could have links."""
    problems: list[str] = field(default_factory=list)
    """What could not be read as it should, a line each; the rest went on."""
    done: int = 0
    """Items read so far, since the cursor that was given, …"""
    total: int | None = None
    """… of so many, where that is known."""
    missed: datetime | None = None
    """Last change of the oldest item that could not be read now, and may be another time."""

    def add(self, table: str, rows: Iterable[work.Row]) -> None:
        self.rows.setdefault(table, []).extend(rows)

    def miss(self, at: datetime | None) -> None:
        self.missed = min(filter(None, (self.missed, at)), default=None)


@dataclass(frozen=True)
class Tickets:
    """A part that reads the tickets of one project can say which there are. Asked once a day."""

    project: str
    """As in `tickets.project`."""
    ids: Callable[[], Iterator[Collection[str]]]
    """Of all tickets there are, page by page."""
    ticket: Callable[[str], Batch | None]
    """One ticket by an id that it has, or had, with all that is read of it, such as its statuses. `None` when there is
    none (any more)."""


@dataclass(frozen=True)
class Part:
    """What is read in one go: issues of a repository, a project's pull requests."""

    name: str
    """Shown, and its state is kept by it: `acme/shop issues`."""
    read: Callable[[Any, datetime | None], Iterator[Batch]]
    """From a cursor (`None` = the beginning), what changed since a time of the source's clock (`None` = all)."""
    tickets: Tickets | None = None
    renamed: tuple[str, str] | None = None
    """Former and present name of its repository or project, in any case: what is stored under the former one is renamed
    first."""
    told_by: Collection[str] = ()
    """Kinds of webhooks after which it is read; of tickets, those that they name."""
    goes_on: bool = False
    """The cursor of the last batch is kept: the next read begins there."""


class Source(Protocol):
    """One tracker, made of what is `Given`; a context manager. It and its methods raise `SourceError` and `UserError`,
    and nothing else, for what the other side does."""

    name: str
    """As in `[work.NAME]` and `tickets.source`."""

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        """Of all that is configured, or of these `projects`, in lower case: then nothing is asked of any other one.
        One after the other: each is read before the next one is asked for. One that cannot be read raises when it
        is read, not here."""

    def now(self) -> datetime:
        """By the source's own clock, in UTC without a zone: what changes later is read next time."""


# -- from what a tracker says to rows ----------------------------------------------------------------------------------


def among(names: Iterable[str], projects: Collection[str] | None) -> list[str]:
    """Configured names, as `Source.parts` reads them."""
    return [each for each in names if projects is None or each.lower() in projects]


def row(kind: type[R], **fields: Any) -> R:
    """A row that is sound. Raises `ValueError` (msgspec's is one) when it cannot be: a key is missing."""
    return msgspec.convert(fields, kind)


def moment(value: Any) -> datetime | None:
    """A time in ISO 8601, as UTC without a zone. `None` when it is none."""
    try:
        found = datetime.fromisoformat(value)
        return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        return None


def name(value: Any) -> str | None:
    """Of a person, status or label: text without blanks around it, cut at 255 characters. `None` when there is none."""
    return value.strip()[:255] or None if isinstance(value, str) else None


def labelled(labels: Iterable[str], meanings: Mapping[str, T]) -> T | None:
    """What the first label that has a meaning means, by its name or, where that has a scope, `workflow::Doing`, by what
    is behind it."""
    known = {label.casefold(): meaning for label, meaning in meanings.items()}
    for label in map(str.casefold, labels):
        if (found := known.get(label, known.get(label.rpartition("::")[2]))) is not None:
            return found
    return None
