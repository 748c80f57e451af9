"""What the scorecard holds fast: its constants, the yardsticks of each quarter, what windows came to when they settled.

The keeper writes them down below `scorecard/`, so that views know what was announced, and when; nothing there is ever
changed, only added to. What is measured, and how, is said in models/scorecard.
"""

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from analytics import build, disk, work
from analytics.beside import beside
from gateway.config import Config, ScorecardSettings, WorkSettings

ROUND_SECONDS = 6 * 3600.0
FREEZE_DAYS = 7
"""Of a quarter, in which its yardsticks are written down; later would be no yardstick that was known before."""
PRODUCTION = WorkSettings().environments
TABLES = ("terms", "yardsticks", "settled")

log = logging.getLogger("outlay.scoring")


def table_file(data: Path, table: str) -> Path:
    """Of `TABLES`."""
    return data / "scorecard" / f"{table}.parquet"


def prepare(data: Path) -> None:
    """Make what the views of the scorecard need to be there. Until settings are noted, the shipped ones hold; they hold
    for settings that came later than what was noted, too."""
    shipped = _terms(0, None, ScorecardSettings(), PRODUCTION)
    with _alone(data), duckdb.connect() as db:
        for table in TABLES:
            defaults = shipped if table == "terms" else {}
            if not table_file(data, table).exists():
                _write(db, data, table, [defaults] if defaults else [])
            elif _columns_stored(db, data, table) != _columns(db, table):
                _write(db, data, table, [{**defaults, **row} for row in _stored(db, data, table)])


def note_terms(
    data: Path, settings: ScorecardSettings, now: datetime, environments: Sequence[str] = PRODUCTION
) -> bool:
    """Write down settings that are not those of the last version. False when they are. `now`: UTC, without a zone.
    `environments` are production."""
    with _alone(data), duckdb.connect() as db:
        # The zeroth stands for no settings at all.
        stored = [row for row in _stored(db, data, "terms") if row["version"]]
        latest = stored[-1] if stored else _terms(0, None, settings, environments)
        new = _terms(latest["version"] + 1, now, settings, environments)
        if stored and {**new, "version": latest["version"], "since": latest["since"]} == latest:
            return False
        _write(db, data, "terms", [*stored, new])
        return True


def freeze(data: Path, now: datetime) -> int:
    """Write down the yardsticks of a quarter that has just begun, and what windows that have just settled came to, as
    of `now`. The number of rows that are new. `now`: UTC, without a zone. Raises `duckdb.Error`."""
    quarter = datetime(now.year, (now.month - 1) // 3 * 3 + 1, 1)  # noqa: DTZ001 - UTC, as all times of the lake
    new = 0
    if not work.table_file(data, "pull_requests").exists():
        return 0
    with _alone(data):
        if now - quarter < timedelta(days=FREEZE_DAYS):
            new += _add(data, "yardsticks", "freeze_yardsticks", {"quarter": quarter, "at": now})
        return new + _add(data, "settled", "note_settled", {"at": now})


def look(db: duckdb.DuckDBPyConnection, data: Path, also: Collection[str] = ()) -> None:
    """Make the scorecard's relations as tables of `db`, a `lake.scratch`: worked out once for many questions. The
    variable `as_of` of `db` counts, as everywhere. `also`: other relations that are asked."""
    models = build.load()
    own = build.load(build.MODELS / "scorecard")
    wanted = own | {name: models[name] for name in also}
    build.create_views(db, data, wanted | build.needed(db, models, wanted), own)


def _add(data: Path, table: str, step: str, parameters: dict[str, Any]) -> int:
    """Add to a table what a step finds in the views, which read that table. Only those that it asks are made."""
    with duckdb.connect() as db:
        db.execute("SET VARIABLE as_of = CAST($at AS TIMESTAMP)", {"at": parameters["at"]})
        read = build.needed(db, build.load(), {step: build.read_model(build.FOLDER / "steps" / f"{step}.sql")})
        build.create_views(db, data, read, read.keys() & build.load(build.MODELS / "scorecard").keys())
        result = db.execute(build.step(step), parameters)
        names_found = [column[0] for column in result.description or ()]
        found = [dict(zip(names_found, row, strict=True)) for row in result.fetchall()]
        if found:
            _write(db, data, table, [*_stored(db, data, table), *found])
    return len(found)


def _terms(
    version: int, since: datetime | None, settings: ScorecardSettings, environments: Sequence[str]
) -> dict[str, Any]:
    production = sorted(name.strip().lower() for name in environments)
    return {
        "version": version,
        "since": since,
        "production": production,
        **msgspec.json.decode(msgspec.json.encode(settings)),
    }


def _alone(data: Path) -> contextlib.AbstractContextManager[bool]:
    return disk.alone(data / "scorecard.lock", wait=True)


def _columns(db: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    db.execute(build.step(f"read_{table}"), {"rows": "[]"})
    return db.table("found").columns


def _columns_stored(db: duckdb.DuckDBPyConnection, data: Path, table: str) -> list[str]:
    return db.read_parquet(build.glob_of(table_file(data, table))).columns


def _stored(db: duckdb.DuckDBPyConnection, data: Path, table: str) -> list[dict[str, Any]]:
    found = db.read_parquet(build.glob_of(table_file(data, table)), hive_partitioning=False)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _write(db: duckdb.DuckDBPyConnection, data: Path, table: str, rows: Iterable[dict[str, Any]]) -> None:
    with disk.put(table_file(data, table)) as aside:
        db.execute(build.step(f"read_{table}"), {"rows": msgspec.json.encode(list(rows)).decode()})
        db.table("found").write_parquet(str(aside), compression="zstd")


@contextlib.contextmanager
def noting(data: Path, config: Config | None) -> Iterator[None]:
    """Writes down, beside the keeper's rounds, what is to be held fast. Without settings, the constants stay
    as they are."""

    def note() -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        if config is not None:
            note_terms(data, config.scorecard, now, config.work.environments)
        freeze(data, now)

    def failed(line: str) -> None:
        log.error("the scorecard's yardsticks stay as they were: %s", line)

    with beside("scorecard", note, ROUND_SECONDS, failed, at_once=True):
        yield
