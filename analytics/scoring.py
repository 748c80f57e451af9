"""The scorecard: what it holds fast, which are its constants, the yardsticks of each quarter, and what windows came to
when they settled; and what it comes to now.

Both are written down below `scorecard/`. To the first there is only ever added, so that views know what was announced,
and when. The second is worked out anew when something has changed (`kept`), and read by views, reports and pages, for
to plan it alone takes seconds. What is measured is said in models/scorecard, and how there and in models/measures.
"""

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from analytics import build, disk, kept, work
from gateway.config import ScorecardSettings, WorkSettings

FREEZE_DAYS = 7
"""Of a quarter, in which its yardsticks are written down; later would be no yardstick that was known before."""
PRODUCTION = WorkSettings().environments
TABLES = ("terms", "yardsticks", "settled")
READ_OFTEN = (
    "pull_requests", "tickets", "ticket_names", "pr_ticket_weights", "pr_reverts", "pr_revert_events", "waste_findings",
)  # fmt: skip
KEPT = kept.Kind(
    "scorecard",
    "scorecard.lock",
    (
        *kept.WORK,
        *(f"scorecard/{table}.parquet" for table in TABLES),
        *(f"findings/{name}" for name in ("found.parquet", "claims.parquet", "settings.parquet", "reviews.jsonl")),
    ),
)


def table_file(data: Path, table: str) -> Path:
    """Of `TABLES`, and of the relations in models/measures."""
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
        anew = []
        for name in build.load(build.MEASURES):
            db.execute(build.step(f"empty_{name}"))
            anew.append(kept.write_unless_alike(db, table_file(data, name)))
        if any(anew):
            kept.forget(data, KEPT)


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
    if not work.table_file(data, "pull_requests").exists():
        return 0
    steps: dict[str, tuple[str, dict[str, Any]]] = {"settled": ("note_settled", {"at": now})}
    if now - quarter < timedelta(days=FREEZE_DAYS):
        steps["yardsticks"] = "freeze_yardsticks", {"quarter": quarter, "at": now}
    with _alone(data), duckdb.connect() as db:
        db.execute("SET VARIABLE as_of = $at", {"at": now})
        asking = {step: build.read_model(build.FOLDER / "steps" / f"{step}.sql") for step, _ in steps.values()}
        _make(db, data, build.needed(db, _models(), asking))
        return sum(_add(db, data, table, *step) for table, step in steps.items())


def work_out(db: duckdb.DuckDBPyConnection, data: Path) -> None:
    """Make the scorecard's relations as tables of `db`, a `lake.scratch`. The variable `as_of` of `db` counts, as
    everywhere."""
    own = {name: model for name, model in _models().items() if name in _own()}
    _make(db, data, own | build.needed(db, _models(), own))


def _make(db: duckdb.DuckDBPyConnection, data: Path, models: Mapping[str, build.Model]) -> None:
    """Make relations: as tables all of the scorecard, and what many of them read, for to plan it takes as long as to
    ask it. All are as of one moment."""
    build.create_views(db, data, models, {"as_of", *READ_OFTEN, *_own()} & models.keys())


def _models() -> dict[str, build.Model]:
    """All relations, none of them written down."""
    return build.load() | build.load(build.MEASURES)


def _own() -> Collection[str]:
    return build.load(build.MODELS / "scorecard").keys()


def look(db: duckdb.DuckDBPyConnection, data: Path, as_of: datetime | None = None) -> None:
    """Work the scorecard out in `db`, a `lake.scratch`, and write it down. `as_of`: as of another moment than now, UTC,
    without a zone. Raises `duckdb.Error`, `OSError`."""
    with kept.noting(data, KEPT, as_of):
        db.execute("SET VARIABLE as_of = $as_of", {"as_of": as_of})
        work_out(db, data)
        kept.spoil(data, KEPT)
        for name in build.load(build.MEASURES):
            db.execute(build.step(f"empty_{name}"))
            db.execute(f"INSERT INTO found BY NAME FROM {name}")
            disk.put_table(db.table("found"), table_file(data, name))


def _add(db: duckdb.DuckDBPyConnection, data: Path, table: str, step: str, parameters: dict[str, Any]) -> int:
    """Add to a table what a step finds. The number of rows."""
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
    return disk.alone(data, KEPT.lock, wait=True)


def _columns(db: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    db.execute(build.step(f"read_{table}"), {"rows": "[]"})
    return db.table("found").columns


def _columns_stored(db: duckdb.DuckDBPyConnection, data: Path, table: str) -> list[str]:
    return db.read_parquet(build.glob_of(table_file(data, table))).columns


def _stored(db: duckdb.DuckDBPyConnection, data: Path, table: str) -> list[dict[str, Any]]:
    found = db.read_parquet(build.glob_of(table_file(data, table)), hive_partitioning=False)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _write(db: duckdb.DuckDBPyConnection, data: Path, table: str, rows: Iterable[dict[str, Any]]) -> None:
    db.execute(build.step(f"read_{table}"), {"rows": msgspec.json.encode(list(rows)).decode()})
    disk.put_table(db.table("found"), table_file(data, table))
