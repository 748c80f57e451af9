"""Budgets in the control plane: a table of those in force, and what the ledger's calls sum to in them.

The keeper writes down what `gateway.budget_file` finds, and the calendar that goes with it: views know neither files
of settings nor time zones. What calls count in budgets is said once, in models/budgets/budget_charges.sql, over the
relation `budget_terms`: the view has the budgets in their present period there, the gateway's question those that it
asks about, a report those of the past.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from analytics import build, disk
from analytics.beside import beside
from gateway.budget_file import BudgetFile
from gateway.budgets import BUCKET_US, Budget, Raise, Sum
from gateway.call import NANO
from gateway.periods import ROLLING_US, Period, span
from gateway.scopes import Kind, Scope

ROUND_SECONDS = 2.0
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, without a zone, as all times of the lake
SECONDS_MAX = int((datetime(9999, 1, 1) - EPOCH).total_seconds())  # noqa: DTZ001 - likewise
NOTHING = r"[^\x{0}-\x{10ffff}]"
"""A regular expression that fits no letter."""
ROWS = 10_000
"""Fetched at once."""

log = logging.getLogger("outlay.budgeting")


# -- what is in force --------------------------------------------------------------------------------------------------


def table_file(data: Path, table: str) -> Path:
    """Of `budgets` and `calendar`."""
    return data / "budgets" / f"{table}.parquet"


def prepare(data: Path) -> None:
    """Make what the views of budgets need to be there: tables with all columns."""
    with _alone(data), duckdb.connect() as db:
        for table in ("budgets", "calendar"):
            if _stored(db, data, table) is None:
                _write(db, data, table)


def store(data: Path, budgets: Iterable[Budget], now: datetime) -> bool:
    """Write down what is in force. False when nothing has changed. `now`: UTC, without a zone."""
    budgets, changed = list(budgets), False
    with _alone(data), duckdb.connect() as db:
        before = {row["name"]: row for row in _stored(db, data, "budgets") or ()}
        tables = {
            "calendar": _calendar(budgets, now.year),  # first: without its period a budget would count all time
            "budgets": [_row(budget, before.get(budget.name), now) for budget in budgets],
        }
        for table, rows in tables.items():
            if _stored(db, data, table) != rows:
                _write(db, data, table, rows)
                changed = True
    return changed


def _alone(data: Path) -> contextlib.AbstractContextManager[bool]:
    return disk.alone(data, "budgets.lock", wait=True)


def _row(budget: Budget, before: dict[str, Any] | None, now: datetime) -> dict[str, Any]:
    kind, value = budget.scope
    row = {
        "name": budget.name,
        "scope": str(budget.scope),
        "kind": kind,
        "value": value,
        "pattern": _pattern_of(budget.scope),
        "limit_usd": Decimal(budget.limit_nano) / NANO,
        "period": budget.period,
        "timezone": budget.timezone,
        "on_exceed": budget.on_exceed,
        "warn_at": list(budget.warn_at),
        "mode": budget.mode,
        "owner": budget.owner,
        "raises": [_raise(each) for each in budget.raises],
    }
    same = before is not None and all(
        before[name] == row[name] for name in ("scope", "limit_usd", "period", "timezone", "mode")
    )
    return {**row, "since": before["since"] if before is not None and same else now}


def _raise(each: Raise) -> dict[str, Any]:
    return {
        "amount_usd": Decimal(each.amount_nano) / NANO,
        "until_at": _moment(each.until_us),
        "reason": each.reason,
        "by": each.by,
        "at": _moment(each.at_us),
        "value": each.value,
    }


def _moment(at_us: int) -> datetime:
    return EPOCH + timedelta(seconds=min(at_us // 1_000_000, SECONDS_MAX), microseconds=at_us % 1_000_000)


def _calendar(budgets: Iterable[Budget], year: int) -> list[dict[str, Any]]:
    """The periods from the last year to the next of all that budgets are about."""
    kinds = {(budget.period, budget.timezone) for budget in budgets if budget.period not in ("total", "rolling_24h")}
    return [row for period, timezone in sorted(kinds) for row in _periods(period, timezone, year)]


def _periods(period: Period, timezone: str, year: int) -> Iterator[dict[str, Any]]:
    at = int(datetime(year - 1, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    end = int(datetime(year + 2, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    while at < end:
        start_us, end_us = span(period, timezone, at)
        assert end_us is not None
        yield {
            "period": period,
            "timezone": timezone,
            "period_start": _moment(start_us),
            "period_end": _moment(end_us),
        }
        at = end_us


def _stored(db: duckdb.DuckDBPyConnection, data: Path, table: str) -> list[dict[str, Any]] | None:
    """The rows of a file; `None` where it is not there, is broken, or has the columns of another version."""
    try:
        found = db.read_parquet(build.glob_of(table_file(data, table)), hive_partitioning=False)
        wanted = _table(db, table, [])
        if (found.columns, found.types) != (wanted.columns, wanted.types):
            return None
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    except duckdb.Error:
        return None


def _table(db: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> duckdb.DuckDBPyRelation:
    encoder = msgspec.json.Encoder(enc_hook=str)
    db.execute(build.step(f"read_{table}"), {"rows": encoder.encode(rows).decode()})
    return db.table("found")


def _write(db: duckdb.DuckDBPyConnection, data: Path, table: str, rows: Iterable[dict[str, Any]] = ()) -> None:
    disk.put_table(_table(db, table, list(rows)), table_file(data, table))


@contextlib.contextmanager
def noting(data: Path, file: BudgetFile) -> Iterator[None]:
    """Writes down what is in force beside the keeper's rounds. What cannot be read changes nothing, and is logged in
    one line, once."""

    def note() -> None:
        store(data, file.all(), datetime.now(UTC).replace(tzinfo=None))

    def failed(line: str) -> None:
        log.error("what is known of budgets stays as it was: %s", line)

    with beside("budgets", note, ROUND_SECONDS, failed, at_once=True):
        yield


# -- globs -------------------------------------------------------------------------------------------------------------


def pattern(glob: str) -> str:
    """A regular expression, as DuckDB has them, for what `fnmatch.fnmatchcase` takes a glob to mean."""
    found, at = [], 0
    while at < len(glob):
        letter, at = glob[at], at + 1
        if letter == "*":
            found.append(".*")
        elif letter == "?":
            found.append(".")
        elif letter == "[" and (end := glob.find("]", at + 1 + (glob[at : at + 1] == "!"))) >= 0:
            found.append(_class(glob[at:end]))
            at = end + 1
        else:
            found.append(_letter(letter))
    return "".join(found)


def _pattern_of(scope: Scope) -> str | None:
    return pattern(scope.value) if scope.value is not None and scope.is_glob else None


def _class(letters: str) -> str:
    """What stands between brackets. A range from a later letter to an earlier one is none."""
    negated, letters = letters.startswith("!"), letters.removeprefix("!")
    ranges, at = [], 0
    while at < len(letters):
        if letters[at + 1 : at + 2] == "-" and at + 2 < len(letters):
            first, last, at = letters[at], letters[at + 2], at + 3
        else:
            first, last, at = letters[at], letters[at], at + 1
        if first <= last:
            ranges.append(f"{_letter(first)}-{_letter(last)}")
    if not ranges:
        return "." if negated else NOTHING
    return f"[{'^' if negated else ''}{''.join(ranges)}]"


def _letter(letter: str) -> str:
    return letter if letter.isalnum() else f"\\x{{{ord(letter):x}}}"


# -- what the gateway asks ---------------------------------------------------------------------------------------------


class Asked(msgspec.Struct, frozen=True):
    """A budget, and the start of the period that it is asked about; of a rolling window `start_us` is echoed."""

    identity: str
    kind: Kind
    value: str | None
    start_us: int
    rolling: bool


class Question(msgspec.Struct, frozen=True):
    """What calls count in budgets that were booked before a moment (microseconds since the epoch), as they were
    corrected before it: what the gateway posts since then it remembers."""

    before_us: int
    budgets: list[Asked]


def sums(db: duckdb.DuckDBPyConnection, data: Path, question: Question) -> list[Sum]:
    """The ledger's answer; who has counted nothing is not named. `db` is a `lake.scratch`. Raises `duckdb.Error`."""
    if not question.budgets:
        return []
    window_us = (question.before_us - ROLLING_US) // BUCKET_US * BUCKET_US
    starts = [window_us if each.rolling else each.start_us for each in question.budgets]
    asked = [
        {
            "name": str(place),
            "kind": each.kind,
            "value": each.value,
            "pattern": _pattern_of(Scope(each.kind, each.value)),
            "period": "rolling_24h" if each.rolling else None,
            "period_start": _moment(starts[place]),
        }
        for place, each in enumerate(question.budgets)
    ]
    db.execute(build.step("bounded_session"))
    _table(db, "asked", asked)
    since = max(_moment(min(starts)) - timedelta(days=1), EPOCH)  # the clock may have been set back meanwhile
    for name, value in {"as_of": _moment(question.before_us), "since": since.date()}.items():
        db.execute(f"SET VARIABLE {name} = $value", {"value": value})
    build.create_views(db, data, _as_asked())
    db.execute((build.FOLDER / "queries" / "live_budgets.sql").read_text(encoding="utf-8"))
    found: list[Sum] = []
    while rows := db.fetchmany(ROWS):
        for place, value, bucket_us, nano, unpriced in rows:
            asked_for = question.budgets[place]
            posted = ((asked_for.start_us if bucket_us is None else bucket_us, nano),) if nano else ()
            last = found[-1] if found else None
            if last is not None and (last.identity, last.value) == (asked_for.identity, value):
                found[-1] = Sum(last.identity, value, last.start_us, last.posted + posted, last.unpriced + unpriced)
            else:
                found.append(Sum(asked_for.identity, value, asked_for.start_us, posted, unpriced))
    return found


def _as_asked() -> dict[str, build.Model]:
    """What `budget_charges` reads, for a question."""
    models = build.load()
    asked = {
        name: models[name]
        for name in ("lake_state", "lake_marks", "journal_entries", "restated_calls", "budget_charges")
    }
    asked["all_calls"] = dataclasses.replace(models["calls"], name="all_calls")
    return {**asked, "calls": _instead("calls", "calls_asked"), "budget_terms": _instead("budget_terms", "terms_asked")}


def _instead(name: str, step: str) -> build.Model:
    return dataclasses.replace(build.read_model(build.FOLDER / "steps" / f"{step}.sql"), name=name)


# -- what shadow budgets would have done -------------------------------------------------------------------------------


def replay(db: duckdb.DuckDBPyConnection, data: Path, first: datetime, last: datetime) -> None:
    """Make the views, with `budget_charges` of what calls count in budgets in shadow mode in their periods between two
    moments; `last` is outside. `db` is a `lake.scratch`."""
    for name, value in {"first": first, "last": last}.items():
        db.execute(f"SET VARIABLE {name} = $value", {"value": value})
    models = build.load()
    names = ("lake_state", "lake_marks", "journal_entries", "restated_calls", "calls", "budgets", "budget_calendar")
    read = {name: models[name] for name in (*names, "budget_charges")}
    build.create_views(db, data, {**read, "budget_terms": _instead("budget_terms", "terms_shadow")})
