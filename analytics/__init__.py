"""Outlay's control plane: seals the journal, joins spend to delivered work, reports."""

from pathlib import Path

import duckdb


def open(path: str | Path = "data") -> duckdb.DuckDBPyConnection:  # noqa: A001 - analytics.open(...) reads well
    """A read-only connection to all views over a data folder, current with each query, while a gateway runs or not.

    The views are published first where they are missing or the folder has moved. Raises `UserError` when there is no
    such folder.
    """
    from analytics import lake
    from gateway.errors import UserError

    data = Path(path)
    if not data.is_dir():
        raise UserError(f"there is no data folder {data}: name the one that the gateway writes to")
    if not lake.is_published(data):
        lake.publish(data)
    return duckdb.connect(str(data / "outlay.duckdb"), read_only=True)
