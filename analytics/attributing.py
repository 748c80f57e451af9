"""Late evidence: what became known of a call's ticket after the call, and the corrections that make it count.

Each rule is one step in SQL, `steps/attribute_*.sql`, over a table of the calls that it may concern. What the rules
changed is written as corrections, the whole call restated. Run again, they find nothing: to stop at any moment is safe.
"""

import contextlib
import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

from analytics import build, disk, lake, work
from analytics.beside import beside
from gateway.call import Call
from gateway.config import LedgerSettings, TicketSettings
from gateway.ledger import Correction, write_corrections
from gateway.lines import mark
from gateway.ticket_keys import TicketKeys
from gateway.tracker import Snapshot, Tracker

PREPARATION = ("span", "calls", "links", "evidence", "strange")
RULES = ("branch", "commit", "task", "present", "judge", "changes")
"""Steps, in the order of trust."""
BATCH_ROWS = 10_000
"""Read at once: what writing corrections needs of memory."""
PART = timedelta(days=31)
"""Looked at in one go: another bound of memory."""
PASSES_MAX = 5
"""Over all parts. What is left then is for the next run."""
LOOK_SECONDS = 60.0
LOOK_BACK = timedelta(days=2)

log = logging.getLogger("outlay.attributing")


class Span(NamedTuple):
    """Moments, UTC, between which calls started; both included."""

    first: datetime = datetime.combine(date.min, clock.min)
    last: datetime = datetime.combine(date.max, clock.max)


class Line(msgspec.Struct, frozen=True):
    """Calls that one rule changes. A call without a price is in no sum."""

    rule: str
    calls: int
    unpriced_calls: int
    list_cost_usd: Decimal


class StoppedError(Exception):
    """Another run has to go on: the process is to end, or another process writes corrections."""


def find(data: Path, span: Span, tickets: TicketSettings | None) -> list[Line]:
    """What late evidence changes, by rule. Without settings, no ticket is taken back: it may be of their projects."""
    with _open(data) as db:
        tracker = _tracker(data)
        found = (_find(db, part, tickets, tracker, _now(), lambda: False) for part in _parts(db, span))
        return _summed(line for lines in found for line in lines)


def correct(
    data: Path,
    span: Span,
    tickets: TicketSettings | None,
    ledger: LedgerSettings,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
    wait: bool = True,
    threads: int | None = None,
) -> list[Line]:
    """Find and correct what late evidence changes, until it changes nothing more: a call at the end of one part of the
    span may have its evidence in the next. Returns what was changed, by rule.

    Raises `StoppedError` as soon as `is_stopped` says so, or without `wait` when somebody else writes corrections;
    `UserError`, `OSError`.
    """
    lines: list[Line] = []
    with disk.correcting(data, wait=wait) as mine, _open(data, threads) as db:
        _go_on(lambda: not mine)
        parts, tracker = _parts(db, span), _tracker(data)
        for _ in range(PASSES_MAX):
            before = len(lines)
            for part in parts:
                as_of = _now()
                lines += (found := _find(db, part, tickets, tracker, as_of, is_stopped))
                if found:
                    changed = _corrections(db, as_of, is_stopped)
                    write_corrections(ledger, changed, f"attribute-{secrets.token_hex(4)}")
            if len(parts) < 2 or len(lines) == before:
                break
    return _summed(lines)


def _tracker(data: Path) -> Snapshot:
    tracker = Tracker(data)
    tracker.refresh()
    return tracker.now


def _open(data: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """The views, in a database of its own: others in this process have the published one open, with other limits."""
    lake.see_published(data)
    db = lake.scratch(data, threads)
    db.execute(build.step("bounded_session"))
    db.execute(f"ATTACH {build.literal(str(data / 'outlay.duckdb'))} AS lake (READ_ONLY)")
    db.execute("USE lake")
    return db


def _parts(db: duckdb.DuckDBPyConnection, span: Span) -> list[Span]:
    """What is looked at in one go, so that memory is bounded."""
    parts: list[Span] = []
    first, last = db.execute(build.step("attribute_range"), span._asdict()).fetchone() or (None, None)
    while first is not None and first <= last:
        parts.append(Span(first, min(first + PART - timedelta(microseconds=1), last)))
        first += PART
    return parts


def _summed(lines: Iterable[Line]) -> list[Line]:
    sums: dict[str, Line] = {}
    for line in lines:
        before = sums.get(line.rule, Line(line.rule, 0, 0, Decimal(0)))
        sums[line.rule] = Line(
            line.rule,
            before.calls + line.calls,
            before.unpriced_calls + line.unpriced_calls,
            before.list_cost_usd + line.list_cost_usd,
        )
    return [sums[rule] for rule in sorted(sums)]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _find(
    db: duckdb.DuckDBPyConnection,
    span: Span,
    tickets: TicketSettings | None,
    tracker: Snapshot,
    as_of: datetime,
    is_stopped: Callable[[], bool],
) -> list[Line]:
    """Makes the table `changes`."""
    for name, value in {**span._asdict(), "before": as_of, "projects": tickets.projects if tickets else []}.items():
        db.execute(f"SET VARIABLE {name} = $value", {"value": value})

    def run(*steps: str) -> None:
        for step in steps:
            _go_on(is_stopped)
            db.execute(build.step(f"attribute_{step}"))

    run(*PREPARATION)
    strange = [ticket for (ticket,) in db.execute("FROM strange").fetchall()]
    own = [ticket for ticket in strange if tickets is None or _is_own(ticket, tickets)]
    db.execute(build.step("attribute_own"), {"own": own})
    run("taken_back", "taken_back_task", "candidates")
    if tickets is not None:
        db.execute(build.step("attribute_names"), {"names": _names(db, tickets, tracker)})
    run(*RULES)
    return [Line(*row) for row in db.execute(build.step("attribute_sums")).fetchall()]


def _names(db: duckdb.DuckDBPyConnection, tickets: TicketSettings, tracker: Snapshot) -> str:
    """What the gateway would read in the branches of calls without a ticket, by their names alone, as JSON."""
    keys = TicketKeys(tickets.projects, tickets.patterns, tickets.deny, msgspec.structs.replace(tracker, branches={}))
    (branches,) = db.execute(build.step("attribute_branches")).fetchone() or ("[]",)
    places = msgspec.json.decode(branches)
    found = [{**place, "tickets": keys.in_branch(place["branch"], place["repo"]).tickets} for place in places]
    return msgspec.json.encode([each for each in found if each["tickets"]]).decode()


def _is_own(ticket: str, tickets: TicketSettings) -> bool:
    return any(re.fullmatch(pattern, ticket) for pattern in tickets.patterns)


def _go_on(is_stopped: Callable[[], bool]) -> None:
    if is_stopped():
        raise StoppedError


def _corrections(
    db: duckdb.DuckDBPyConnection, as_of: datetime, is_stopped: Callable[[], bool]
) -> Iterator[Correction]:
    """Calls restated. One that changed after it was found is left to the next run."""
    as_of_us = _micros(as_of)
    result = db.execute(build.step("attribute_rows"))
    names = [column[0] for column in result.description or ()]
    while rows := result.fetchmany(BATCH_ROWS):
        _go_on(is_stopped)
        for row in rows:
            fields = dict(zip(names, row, strict=True))
            booked_us, corrected_us = fields.pop("booked_us"), fields.pop("corrected_us")
            was, now = _attribution(fields, "was"), _attribution(fields, "now")
            call = msgspec.convert(fields, Call)
            if all(getattr(call, name) == value for name, value in was.items()):
                first = now["tickets"][0] if now["tickets"] else None
                new = msgspec.structs.replace(call, ticket_id=first, **now)
                # Later than what it overrules, and earlier than whatever came after the call was read.
                yield Correction(new, "attribution", booked_us, max(as_of_us, (corrected_us or 0) + 1))


def _attribution(fields: dict[str, Any], when: str) -> dict[str, Any]:
    return {
        "tickets": tuple(fields.pop(f"{when}_tickets")),
        "ticket_source": fields.pop(f"{when}_source"),
        "ticket_state": fields.pop(f"{when}_state"),
        "ticket_candidates": tuple(fields.pop(f"{when}_candidates")),
    }


def _micros(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC).replace(tzinfo=None)) // timedelta(microseconds=1)


# -- beside the gateway ------------------------------------------------------------------------------------------------


class Looks:
    """Looks at all calls first, and when the tracker's extract is another one; else at those of the last days, when the
    journal is another one."""

    def __init__(
        self,
        data: Path,
        tickets: TicketSettings | None,
        ledger: LedgerSettings,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._data = data
        self._tickets = tickets
        self._ledger = ledger
        self._is_stopped = is_stopped
        self._seen: tuple[Any, Any] | None = None
        """The journal and the tracker's extract, as they were before the last look."""

    def look(self) -> None:
        """Raises `UserError`, `OSError`, `duckdb.Error`; the next look tries again."""
        journal, tracker = _journal_mark(self._data), _tracker_mark(self._data)
        if (journal, tracker) == self._seen:
            return
        is_tracker_new = self._seen is None or tracker != self._seen[1]
        span = Span() if is_tracker_new else Span(_now() - LOOK_BACK)
        with contextlib.suppress(StoppedError):
            lines = correct(
                self._data, span, self._tickets, self._ledger, is_stopped=self._is_stopped, wait=False, threads=1
            )
            self._seen = journal, tracker
            if lines:
                log.info("late evidence changed the attribution of %d calls", sum(line.calls for line in lines))


@contextlib.contextmanager
def looking(data: Path, tickets: TicketSettings | None, ledger: LedgerSettings) -> Iterator[None]:
    """Looks beside the keeper's rounds, in a thread of their own, so that sealing does not wait for them. A failure is
    logged in one line, once."""
    stop = threading.Event()
    looks = Looks(data, tickets, ledger, stop.is_set)

    def failed(line: str) -> None:
        log.error("late evidence could not be looked for, trying again: %s", line)

    with beside("late evidence", looks.look, LOOK_SECONDS, failed, stop=stop):
        yield


def _journal_mark(data: Path) -> list[tuple[str, Any]]:
    return [(path.name, mark(path)) for path in lake.segments(data)]


def _tracker_mark(data: Path) -> str:
    """Another one when something else is known: the first line says only when it was synced."""
    with contextlib.suppress(FileNotFoundError), work.tracker_file(data).open("rb") as lines:
        next(lines, b"")
        return hashlib.file_digest(lines, "sha256").hexdigest()
    return ""
