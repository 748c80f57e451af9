"""The lake: each call counts exactly once, at every step, for every reader, whatever is killed."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import pytest

import analytics
from analytics import lake
from gateway.errors import UserError
from tests.journals import DAY, NEXT_DAY, NOON, Segment, Today, call, line, segment

SPAWN = multiprocessing.get_context("spawn")


def counted(db: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    """Calls, different calls, and their cost in nano-USD."""
    row = db.execute(
        "SELECT count(*), count(DISTINCT call_id), CAST(sum(list_cost_usd) * 1000000000 AS BIGINT) FROM calls"
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2] or 0


def states(data: Path) -> list[tuple[str, date | None]]:
    return [(row.state, row.day) for row in lake.read_state(data)]


def names(data: Path) -> set[str]:
    """All files with calls, without the anchors."""
    return {
        str(path.relative_to(data)) for pattern in ("journal/2*.jsonl", "calls/day=2*/*") for path in data.glob(pattern)
    }


# -- every step ----------------------------------------------------------------------------------------------------


def test_a_held_connection_counts_each_call_once_at_every_step(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    assert counted(db) == (0, 0, 0)
    first = segment(data, [call() for _ in range(10)])
    live = Segment(data, NOON + timedelta(minutes=5))
    live.close(call(list_cost_nano=7))
    expected = (11, 11, 10_007)
    assert counted(db) == expected

    def step(does: Callable[[], None], state: list[tuple[str, date | None]], files: set[str]) -> None:
        does()
        assert counted(db) == expected
        assert states(data) == state
        assert names(data) == files

    journal = {f"journal/{first.name}", f"journal/{live.path.name}"}
    parts = {f"calls/day=2026-11-20/part-{first.stem}.parquet"}
    step(moving.seal, [("pending", DAY)], journal | parts)
    step(moving.turn, [("sealed", DAY)], journal | parts)
    step(moving.compact, [("sealed", DAY)], journal | parts)  # today
    moving._grace = 1000
    step(moving.remove, [("sealed", DAY)], journal | parts)
    assert first.is_symlink()
    moving._grace = 0
    step(moving.remove, [("kept", DAY)], {f"journal/{live.path.name}"} | parts)

    live.close(call(list_cost_nano=3))
    expected = (12, 12, 10_010)
    today.day = NEXT_DAY
    step(moving.compact, [("kept", DAY)], {f"journal/{live.path.name}"} | parts)  # the live segment may still add
    live.end()
    parts |= {f"calls/day=2026-11-20/part-{live.path.stem}.parquet"}
    files = parts | {f"journal/{live.path.name}"}
    step(moving.seal, [("kept", DAY), ("pending", DAY)], files)
    step(moving.compact, [("kept", DAY), ("pending", DAY)], files)
    step(moving.turn, [("kept", DAY), ("sealed", DAY)], files)
    whole = {"calls/day=2026-11-20/day.parquet"}
    step(moving.compact, [("kept", DAY), ("sealed", DAY)], files | whole)
    step(moving.turn, [("kept", DAY), ("sealed", DAY), ("closed", DAY)], files | whole)
    step(moving.remove, [("closed", DAY)], whole)
    assert not any((data / "retired").iterdir())
    for _ in range(3):
        step(moving.round, [("closed", DAY)], whole)


def test_a_segment_over_midnight_is_sealed_to_both_days(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    with Segment(data, NOON) as written:
        written.close(call(), call(), at=NOON)
        written.close(call(), at=NOON + timedelta(days=1))
    today.day = NEXT_DAY
    for _ in range(3):
        moving.round()
    assert counted(db) == (3, 3, 3000)
    assert states(data) == [
        ("kept", NEXT_DAY),
        ("closed", DAY),
    ]
    assert db.execute("SELECT day, count(*) FROM calls GROUP BY day ORDER BY day").fetchall() == [
        (DAY, 2),
        (NEXT_DAY, 1),
    ]


def test_a_call_recorded_on_a_closed_day_is_booked_on_the_next_one(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    segment(data, [call()])
    today.day = NEXT_DAY
    for _ in range(3):
        moving.round()
    segment(data, [call(list_cost_nano=5)], at=NOON - timedelta(hours=1))  # a clock that stepped back
    assert counted(db) == (2, 2, 1005)
    for _ in range(3):
        moving.round()
        assert counted(db) == (2, 2, 1005)
    assert ("kept", NEXT_DAY) in states(data)
    assert db.execute("SELECT DISTINCT CAST(recorded_at AS DATE) FROM calls").fetchall() == [(DAY,)]


def test_an_empty_segment_is_removed_and_forgotten(data: Path, today: Today, moving: lake.Lake) -> None:
    segment(data, [])
    for _ in range(4):
        moving.round()
    assert states(data) == []
    assert names(data) == set()


# -- what must stay in the journal ---------------------------------------------------------------------------------


def test_a_held_segment_is_not_sealed(data: Path, moving: lake.Lake) -> None:
    live = Segment(data)
    live.close(call())
    moving.round()
    assert states(data) == []
    live.end()
    moving.round()
    assert states(data) == [("kept", DAY)]


def test_a_new_segment_that_is_not_locked_yet_is_left_alone(data: Path, moving: lake.Lake) -> None:
    (data / "journal" / f"{NOON:%Y%m%dT%H%M%S%f}-gw-1.jsonl").touch()
    moving.round()
    assert states(data) == []


def test_a_crashed_segment_is_sealed_but_kept_for_the_recovery(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    crashed = Segment(data)
    crashed.open(call())
    crashed.close(call())
    crashed.write(line("close", NOON, call())[:200])
    crashed.crash()
    for _ in range(4):
        moving.round()
        assert counted(db) == (1, 1, 1000)
    assert crashed.path.exists()
    with crashed.path.open("ab") as recovered:
        recovered.write(b"\n" + line("end", NOON))
    moving.remove()
    assert not crashed.path.exists()
    assert counted(db) == (1, 1, 1000)


@pytest.mark.parametrize("tail", [b"\0" * 4096, b'{"e":"close","at":17', b"\xff\xfe\n", b"\n\n"])
def test_a_torn_tail_hides_no_call(data: Path, moving: lake.Lake, db: duckdb.DuckDBPyConnection, tail: bytes) -> None:
    crashed = Segment(data)
    crashed.close(call(), call())
    crashed.write(tail)
    crashed.crash()
    assert counted(db) == (2, 2, 2000)
    moving.round()
    assert counted(db) == (2, 2, 2000)


@pytest.mark.parametrize(
    ("found", "damage"),
    [
        (b'"list_cost_nano":1000', b'"list_cost_nano":9000'),
        (b'"attempt":1', b'"attempt":2'),
        (b'{"e":"close"', b'{"e:"close"'),
    ],
)
def test_a_damaged_segment_is_never_removed(
    data: Path, moving: lake.Lake, caplog: pytest.LogCaptureFixture, found: bytes, damage: bytes
) -> None:
    path = segment(data, [call(), call()])
    path.write_bytes(path.read_bytes().replace(found, damage, 1))
    for _ in range(3):
        moving.round()
    assert states(data) == [("sealed", DAY)]
    assert not path.is_symlink()
    assert caplog.text.count(path.name) == 1


def test_a_file_that_no_gateway_wrote_is_named(data: Path, today: Today, moving: lake.Lake) -> None:
    (data / "journal" / "notes.jsonl").touch()
    segment(data, [call()])
    moving.seal()
    moving.turn()
    today.day = NEXT_DAY
    with pytest.raises(ValueError, match=r"notes\.jsonl is not named like a journal segment"):
        moving.round()


# -- the published views -------------------------------------------------------------------------------------------


def test_views_are_published_again_only_when_they_changed(tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] *folder*"
    assert lake.publish(folder)
    assert not lake.publish(folder)
    segment(folder, [call()])
    with analytics.open(folder) as db:
        assert counted(db) == (1, 1, 1000)
    moved = folder.rename(tmp_path / "moved")
    with analytics.open(moved) as db:
        assert counted(db) == (1, 1, 1000)


def test_views_of_another_version_are_replaced_or_used_where_nothing_can_be_written(data: Path) -> None:
    published, made_of = data / "outlay.duckdb", data / "outlay.duckdb.made"
    with duckdb.connect(str(published)) as old:
        old.execute("DROP VIEW calls")
    made_of.write_text(f"another {data}")
    in_the_way = data / "outlay.duckdb.new"
    in_the_way.mkdir()
    with analytics.open(data) as db, pytest.raises(duckdb.CatalogException):
        db.execute("FROM calls")
    made_of.write_text("another /elsewhere")
    with pytest.raises(UserError, match="its views cannot be made"):
        analytics.open(data)
    in_the_way.rmdir()
    with analytics.open(data) as db:
        assert db.execute("FROM calls").fetchall() == []


def test_the_state_is_never_made_up(data: Path, moving: lake.Lake) -> None:
    segment(data, [call()])
    moving.round()
    lake.state_file(data).unlink()
    with pytest.raises(UserError, match="restore it from a backup"):
        lake.publish(data)


def test_the_views_cannot_be_written(db: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.Error, match="read-only"):
        db.execute("CREATE VIEW mine AS SELECT 1")


def test_a_filter_on_the_day_reads_only_that_day(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    for days in range(3):
        segment(data, [call()], at=NOON + timedelta(days=days))
    today.day = NEXT_DAY + timedelta(days=9)
    for _ in range(3):
        moving.round()
    assert states(data)[-1] == ("closed", date(2026, 11, 22))
    plan = db.execute("EXPLAIN ANALYZE SELECT sum(list_cost_usd) FROM calls WHERE day = DATE '2026-11-21'").fetchall()
    assert "Scanning Files: 1/4" in plan[0][1]  # one is the anchor


# -- other processes -----------------------------------------------------------------------------------------------


def _keep_moving(data: str, settle: float, grace: float, today: date) -> None:
    moving = lake.Lake(Path(data), settle, grace, lambda: today)
    while True:
        moving.round()
        time.sleep(0.01)


def _read_on(data: str, expected: int, stop: Event, wrong: "multiprocessing.Queue[str]") -> None:
    with analytics.open(data) as held:
        while not stop.is_set():
            try:
                with analytics.open(data) as fresh:
                    for db in (held, fresh):
                        if counted(db)[:2] != (expected, expected):
                            wrong.put(f"{counted(db)}")
            except duckdb.Error as error:
                wrong.put(str(error))


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def _process(
    *, target: Callable[..., None], args: tuple[object, ...]
) -> Iterator["multiprocessing.process.BaseProcess"]:
    process = SPAWN.Process(target=target, args=args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def test_readers_in_other_processes_never_see_an_error_or_a_wrong_count(data: Path) -> None:
    for minutes in range(4):
        segment(data, [call() for _ in range(50)], at=NOON + timedelta(minutes=minutes))
    stop, wrong = SPAWN.Event(), SPAWN.Queue()
    reader = SPAWN.Process(target=_read_on, args=(str(data), 200, stop, wrong))
    reader.start()
    with _process(target=_keep_moving, args=(str(data), 0.5, 1.5, NEXT_DAY)):
        _until(lambda: names(data) == {"calls/day=2026-11-20/day.parquet"})
        time.sleep(0.3)
    stop.set()
    reader.join()
    assert wrong.empty(), wrong.get()
    assert reader.exitcode == 0
    wrong.close()


def test_a_keeper_killed_at_any_moment_loses_and_doubles_nothing(data: Path) -> None:
    written = 0
    moments = random.Random(20261120)
    for round_ in range(10):
        with _process(target=_keep_moving, args=(str(data), 0.0, 0.0, DAY + timedelta(days=round_))) as keeper:
            for each in range(4):
                at = NOON + timedelta(days=round_, seconds=each)
                segment(data, [call(at) for _ in range(20)], at=at)
                written += 20
                time.sleep(moments.uniform(0, 0.1))
            if round_ % 3 == 0:
                _until(lambda: len(lake.read_state(data)) > 0)
            assert keeper.pid is not None
            os.kill(keeper.pid, signal.SIGKILL)
            keeper.join()
        with analytics.open(data) as db:
            assert counted(db) == (written, written, written * 1000)
    moving = lake.Lake(data, 0, 0, lambda: date(2026, 12, 24))
    for _ in range(4):
        moving.round()
    assert {state for state, _ in states(data)} == {"closed"}
    assert not any(data.glob("journal/2*"))
    assert not any(data.rglob("*.tmp"))
    with analytics.open(data) as db:
        assert counted(db) == (written, written, written * 1000)


def _keeper(data: Path, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "analytics", "--data", str(data), *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_keeper_process_is_alone_and_ends_with_sigterm(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with _keeper(folder) as keeper:
        _until(lambda: (folder / "outlay.duckdb").exists())
        with _keeper(folder) as second:
            _, errors = second.communicate(timeout=30)
            assert second.returncode == 1
            assert errors.decode().strip() == f"Error: another process keeps {folder} already"
        segment(folder, [call()])
        keeper.terminate()
        _, errors = keeper.communicate(timeout=30)
        assert (keeper.returncode, errors) == (0, b"")
    assert states(folder) == [("pending", DAY)]  # a last round was made


def test_a_keeper_ends_with_the_process_that_started_it_and_the_next_takes_over(data: Path) -> None:
    with _keeper(data, "--until-stdin-closes") as first:
        _until(lambda: (data / "keeper.lock").exists())
        with _keeper(data, "--until-stdin-closes") as second:
            assert first.stdin is not None
            assert second.stdin is not None
            first.stdin.close()
            assert first.wait(timeout=30) == 0
            segment(data, [call()])
            _until(lambda: states(data) != [])
            second.stdin.close()
            assert second.wait(timeout=30) == 0


def test_a_failed_round_is_logged_in_one_line_and_tried_again(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lake, "ROUND_SECONDS", 0.01)
    in_the_way = data / "calls" / "day=2026-11-20"
    in_the_way.write_text("a file where a folder has to be")
    segment(data, [call()])
    stop = threading.Event()
    keeper = threading.Thread(target=lake.keep, args=(data, stop))
    keeper.start()
    try:
        _until(lambda: "trying again" in caplog.text)
        in_the_way.unlink()
        _until(lambda: any(data.glob("calls/day=2026-11-20/part-*.parquet")))
    finally:
        stop.set()
        keeper.join()
    assert caplog.text.count("trying again") == 1
    with analytics.open(data) as db:
        assert counted(db) == (1, 1, 1000)


# -- another version -------------------------------------------------------------------------------------------------


def test_files_of_a_version_with_fewer_columns_are_given_the_others(
    data: Path, today: Today, moving: lake.Lake
) -> None:
    segment(data, [call(commit_sha="86977fc")])
    moving.round()
    segment(data, [call(commit_sha="86977fc")], NOON + timedelta(days=1))
    today.day = NEXT_DAY
    for _ in range(3):
        moving.round()
    for kind in lake.KINDS:  # as a version wrote them that did not know the commit
        for file in (data / kind).glob("day=*/*.parquet"):
            old = duckdb.sql(f"SELECT * EXCLUDE (commit_sha) FROM read_parquet('{file}', hive_partitioning = false)")
            old.write_parquet(f"{file}.old")
            Path(f"{file}.old").rename(file)
    before = {file: file.stat().st_ino for file in (data / "calls").glob("day=2*/*.parquet")}
    assert len(before) == 2
    lake.add_columns(data)
    assert all(file.stat().st_ino != inode for file, inode in before.items())
    lake.publish(data)
    segment(data, [call(commit_sha="90abc")], NOON + timedelta(days=1, hours=1))
    with analytics.open(data) as db:
        assert counted(db) == (3, 3, 3000)
        assert db.execute("SELECT commit_sha FROM calls ORDER BY recorded_at").fetchall() == [
            (None,), (None,), ("90abc",),
        ]  # fmt: skip
    [closed] = (data / "calls").glob("day=2026-11-20/day.parquet")  # as the old version writes it, run once more
    duckdb.sql(f"SELECT * EXCLUDE (commit_sha) FROM '{closed}'").write_parquet(f"{closed}.old")
    Path(f"{closed}.old").rename(closed)
    damaged = data / "calls" / "day=2026-11-19"
    damaged.mkdir()
    (damaged / "day.parquet").write_bytes(b"PAR1 and then nothing")
    lake.add_columns(data)
    (damaged / "day.parquet").unlink()
    moving.round()
    with analytics.open(data) as db:
        assert counted(db) == (3, 3, 3000)
    inodes = {file: file.stat().st_ino for file in (data / "calls").glob("day=2*/*.parquet")}
    lake.add_columns(data)
    assert {file: file.stat().st_ino for file in inodes} == inodes, "nothing is written that has all columns"
