"""Late evidence: what became known of a call's ticket after the call, and the corrections that make it count.

Each rule is one step in SQL, `steps/attribute_*.sql`, over a table of the calls that it may concern. What the rules
changed is written as corrections, the whole call restated. Run again, they find nothing: to stop at any moment is safe.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

import analytics
from analytics import build, disk, lake, work
from gateway.call import Call
from gateway.config import LedgerSettings
from gateway.ledger import Correction, write_corrections

PREPARATION = ("span", "calls", "links", "evidence", "strange")
RULES = (
    "taken_back", "taken_back_task", "task", "branch", "commit", "candidates",
    "task",  # once more: the evidence of a task may have come with a branch
    "judge", "changes",
)  # fmt: skip
"""Steps, in their order."""
BATCH_ROWS = 10_000
"""Read at once: what writing corrections needs of memory."""
PART = timedelta(days=31)
"""Looked at in one go: another bound of memory."""
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


def find(data: Path, span: Span, projects: Sequence[str]) -> list[Line]:
    """What late evidence changes, by rule. `projects` are those that tickets may be of, whatever the tracker knows."""
    with _open(data) as db:
        return _summed(line for part in _parts(db, span) for line in _find(db, part, projects, _now(), lambda: False))


def correct(
    data: Path,
    span: Span,
    projects: Sequence[str],
    settings: LedgerSettings,
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
        parts = _parts(db, span)
        while True:
            before = len(lines)
            for part in parts:
                as_of = _now()
                lines += (found := _find(db, part, projects, as_of, is_stopped))
                if found:
                    changed = _corrections(db, as_of, is_stopped)
                    write_corrections(settings, changed, f"attribute-{secrets.token_hex(4)}")
            if len(parts) < 2 or len(lines) == before:
                return _summed(lines)


def _open(data: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    db = analytics.open(data)
    db.execute(build.step("attribute_session"))
    if threads is not None:
        db.execute("SET threads = $threads", {"threads": threads})
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
    db: duckdb.DuckDBPyConnection, span: Span, projects: Sequence[str], as_of: datetime, is_stopped: Callable[[], bool]
) -> list[Line]:
    """Makes the table `changes`."""
    for name, value in {**span._asdict(), "as_of": as_of, "projects": list(projects)}.items():
        db.execute(f"SET VARIABLE {name} = $value", {"value": value})
    for step in (*PREPARATION, *RULES):
        _go_on(is_stopped)
        db.execute(build.step(f"attribute_{step}"))
    return [Line(*row) for row in db.execute(build.step("attribute_sums")).fetchall()]


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
    """Called between the keeper's rounds: now and then looks at the calls of the last days, if there is anything new,
    and at all calls when the tracker's extract is another one."""

    def __init__(
        self, data: Path, projects: Sequence[str], settings: LedgerSettings, is_stopped: Callable[[], bool]
    ) -> None:
        self._data = data
        self._projects = projects
        self._settings = settings
        self._is_stopped = is_stopped
        self._next = 0.0
        self._seen: tuple[Any, Any] = (None, None)
        """The journal and the tracker's extract, as they were before the last look."""

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        journal, tracker = _journal_mark(self._data), _mark(work.tracker_file(self._data))
        if (journal, tracker) == self._seen:
            return
        span = Span(_now() - LOOK_BACK) if tracker == self._seen[1] else Span()
        with contextlib.suppress(StoppedError):
            lines = correct(
                self._data, span, self._projects, self._settings, is_stopped=self._is_stopped, wait=False, threads=1
            )
            self._seen = journal, tracker
            if lines:
                log.info("late evidence changed the attribution of %d calls", sum(line.calls for line in lines))


def _journal_mark(data: Path) -> list[tuple[str, Any]]:
    return [(path.name, _mark(path)) for path in lake.segments(data)]


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Another one when the file was written to or replaced."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
