"""Outlay's control plane: seals the journal, joins spend to delivered work, reports."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb


def open(  # noqa: A001 - analytics.open(...) reads well
    path: str | Path = "data", *, as_of: datetime | None = None
) -> duckdb.DuckDBPyConnection:
    """A read-only connection to all views over a data folder, current with each query, while a gateway runs or not.

    With `as_of`, all is as it was known at that moment: UTC, unless it has a time zone of its own. The views are
    published first where they are missing or of another version, or the folder has moved. Raises `UserError` when there
    is no such folder.
    """
    from analytics import build, lake
    from gateway.errors import UserError

    data = Path(path)
    if not data.is_dir():
        raise UserError(f"there is no data folder {data}: name the one that the gateway writes to")
    lake.see_published(data)
    db = duckdb.connect(str(data / "outlay.duckdb"), read_only=True)
    db.execute("SET parquet_metadata_cache = true")  # of a file that was replaced, DuckDB forgets what it read
    if as_of is not None:
        moment = as_of.astimezone(UTC).replace(tzinfo=None) if as_of.tzinfo else as_of
        db.execute("SET VARIABLE as_of = $as_of", {"as_of": moment})
        for view in build.views_of_another_moment():
            db.execute(view)
    return db
