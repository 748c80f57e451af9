"""Queries that meet a file while it is replaced: half of one stands where a whole one comes a moment later."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from analytics import again, build, lake, sandbox, story
from gateway.cli import main

HALF = b"PAR1" + 16 * b"\xff" + (16).to_bytes(4, "little") + b"PAR1"
"""Of a Parquet file: what tells of its columns is no such thing."""


def whole(file: Path, query: str = "SELECT 1 AS n") -> None:
    duckdb.sql(query).write_parquet(str(file.with_suffix(".new")))
    file.with_suffix(".new").rename(file)


@contextlib.contextmanager
def half(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file is half there, and whole a moment later. Until then is asked as often as may be."""
    was = file.read_bytes()

    def mend() -> None:
        file.with_suffix(".new").write_bytes(was)
        file.with_suffix(".new").rename(file)

    file.write_bytes(HALF)
    for module in (again, sandbox):
        monkeypatch.setattr(module, "TRIES", 1_000_000)
    timer = threading.Timer(0.5, mend)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_what_is_half_there_is_asked_for_twice_more(tmp_path: Path) -> None:
    file, asked = tmp_path / "x.parquet", 0

    def ask() -> list[tuple[int]]:
        nonlocal asked
        asked += 1
        if asked == whole_at:
            whole(file)
        return duckdb.sql(f"FROM '{file}'").fetchall()

    for whole_at in (1, 2, 3):
        file.write_bytes(HALF)
        asked = 0
        assert again.again(ask) == [(1,)]
        assert asked == whole_at
    file.write_bytes(HALF)
    asked, whole_at = 0, 4
    with pytest.raises(duckdb.Error, match="don't know what type") as failed:
        again.again(ask)
    assert failed.type is duckdb.Error  # no class of its own
    assert asked == 3


def test_a_mistake_is_not_made_again() -> None:
    asked = []
    with pytest.raises(duckdb.CatalogException):
        again.again(lambda: asked.append(duckdb.sql("FROM nowhere")))
    assert asked == []
    assert not again.is_passing(duckdb.InterruptException())


def test_the_demos_story_is_told_while_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "calls.parquet"
    whole(
        file,
        "SELECT TIMESTAMP '2026-11-20' AS started_at, NULL AS purpose, 'a' AS team_id, 1 AS input_tokens, "
        "2 AS output_tokens",
    )
    with duckdb.connect() as db:
        db.execute(f"CREATE VIEW calls AS FROM '{file}'")
        quarter = {"from": "2026-10-01", "to": "2027-01-01"}
        with half(file, monkeypatch):
            rows = story._table(Console(), db, "story_board", "A board:", quarter)
    assert rows == [("a", 3)]


@pytest.mark.parametrize(
    "asked",
    [
        ["report", "budgets", "--format", "csv"],
        ["report", "budgets", "--format", "parquet", "--out", "{out}"],
        ["report", "budgets", "--shadow", "--from", "2026-11-01", "--to", "2026-11-30"],
        ["sql", "FROM budgets"],
    ],
)
def test_commands_ask_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    lake.publish(data)
    with half(data / "budgets" / "budgets.parquet", monkeypatch), pytest.raises(SystemExit) as exit_:
        main([*(each.format(out=tmp_path / "out.parquet") for each in asked), "--data", str(data)])
    assert exit_.value.code == 0


def test_tables_are_made_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.publish(data)
    with lake.scratch(data) as db, half(data / "budgets" / "budgets.parquet", monkeypatch):
        models = {name: build.load()[name] for name in ("budgets",)}
        build.create_views(db, data, models, {"budgets"})
        assert db.execute("SELECT count(*) FROM budgets").fetchall() == [(0,)]
