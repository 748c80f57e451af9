"""Corrections: the latest one counts, at every step and for every reader, and what was booked stays."""

import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

import analytics
from analytics import build, lake, verifying
from gateway.call import NANO, Call
from gateway.config import LedgerSettings
from gateway.errors import UserError
from gateway.ledger import Cause, Correction, Ledger, encode_correction, now_us, records, write_corrections
from tests.journals import DAY, NEXT_DAY, NOON, Segment, Today, call, micros, segment
from tests.test_lake import _keep_moving, _process

LATER = NOON + timedelta(minutes=10)


def restated(of: Call, nano: int, **fields: object) -> Call:
    return msgspec.structs.replace(
        of, list_cost_nano=nano, input_cost_nano=nano, output_cost_nano=None, price_book="new", **fields
    )


def correct(
    data: Path,
    *calls: Call,
    booked: datetime = NOON,
    at: datetime = LATER,
    writer: str = "fix",
    cause: Cause = "price",
) -> Path:
    """A segment of corrections that a command wrote at a moment."""
    with Segment(data, at, writer) as written:
        for number, each in enumerate(calls):
            written.write(encode_correction(each, cause, micros(booked), micros(at) + number))
    return written.path


def nano(db: duckdb.DuckDBPyConnection, relation: str = "calls") -> dict[str, int]:
    rows = db.execute(f"SELECT call_id, list_cost_usd FROM {relation}").fetchall()
    assert len(rows) == len(dict(rows))
    return {call_id: int(usd * NANO) for call_id, usd in rows}


def all_is_well(data: Path) -> bool:
    assert verifying.verify(data).wrong == []
    return True


# -- the journal ---------------------------------------------------------------------------------------------------


def test_a_gateway_corrects_a_call_that_it_closed(tmp_path: Path) -> None:
    ledger = Ledger(LedgerSettings(dir=str(tmp_path), reserve_bytes=0), "gw-1", clock=lambda: micros(NOON))
    ledger.start()
    first = call()
    ledger.open(first)
    ledger.close(first)
    assert ledger.correct(restated(first, 5), "usage", micros(NOON))
    assert ledger.correct(restated(first, 6), "usage", micros(NOON))
    ledger.stop()
    (path,) = (tmp_path / "journal").glob("2*.jsonl")
    lines = list(records(path))
    assert [line["e"] for line in lines] == ["start", "open", "close", "correct", "correct", "end"]
    assert lines[3]["at"] < lines[4]["at"]  # even within one microsecond
    assert (lines[4]["cause"], lines[4]["booked_us"], lines[4]["list_cost_nano"]) == ("usage", micros(NOON), 6)
    with analytics.open(tmp_path) as db:
        assert nano(db) == {first.call_id: 6}


def test_recovery_passes_corrections_over(tmp_path: Path) -> None:
    crashed = Segment(tmp_path)
    first, lost = call(), call(list_cost_nano=None, price_status=None)
    crashed.open(first)
    crashed.close(first)
    crashed.open(lost)
    crashed.write(encode_correction(restated(first, 5), "usage", micros(NOON), micros(LATER)))
    crashed.crash()
    ledger = Ledger(LedgerSettings(dir=str(tmp_path), reserve_bytes=0), "gw-2")
    assert ledger.start() == 1
    ledger.stop()
    with analytics.open(tmp_path) as db:
        assert db.execute("SELECT call_id, result, list_cost_usd FROM calls ORDER BY result").fetchall() == [
            (first.call_id, "completed", Decimal("0.000000005")),
            (lost.call_id, "interrupted", None),
        ]


def test_a_command_writes_all_corrections_or_none_beside_a_gateway(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    settings = LedgerSettings(dir=str(data), segment_bytes=4096, reserve_bytes=0)
    gateway = Ledger(settings, "gw-1")
    gateway.start()
    calls = [(each := call(), gateway.close(each) or 0) for _ in range(20)]

    def corrections(stop_after: int) -> Iterator[Correction]:
        for number, (each, booked_us) in enumerate(calls):
            if number == stop_after:
                assert set(nano(db).values()) == {1000}
                Ledger(settings, "gw-2").start()  # takes nothing of it for what a crash left
                raise KeyboardInterrupt
            yield Correction(restated(each, 5), "price", booked_us, now_us())

    before = set((data / "journal").iterdir())
    with pytest.raises(KeyboardInterrupt):
        write_corrections(settings, corrections(15), "fix-1")
    assert {path.name for path in set((data / "journal").iterdir()) - before if "fix" in path.name} == set()
    assert set(nano(db).values()) == {1000}
    assert write_corrections(settings, corrections(99), "fix-2") == 20
    written = list((data / "journal").glob("*-fix-2.jsonl"))
    assert len(written) > 1
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    assert set(nano(db).values()) == {5}
    assert write_corrections(settings, [], "fix-3") == 0
    assert all_is_well(data)
    gateway.stop()


@contextlib.contextmanager
def _user(id_: int) -> Iterator[None]:
    os.setegid(id_)
    os.seteuid(id_)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_corrections_that_root_writes_are_the_gateways_and_another_user_is_refused() -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as name:  # below no folder that only root may enter
        data = Path(name)
        try:
            os.chown(data, nobody, nobody)
        except PermissionError:
            pytest.skip("needs the right to act as other users, as root has it")
        data.chmod(0o755)
        settings = LedgerSettings(dir=name, reserve_bytes=0)

        def serve() -> None:
            gateway = Ledger(settings, "gw-1")
            gateway.start()
            gateway.close(call())
            gateway.stop()

        def write() -> None:
            write_corrections(settings, [Correction(call(), "price", micros(NOON), micros(LATER))], "fix")

        with _user(nobody):
            serve()
        write()
        assert {path.stat().st_uid for path in (data / "journal").iterdir()} == {nobody}
        with _user(nobody):
            serve()
        with _user(1), pytest.raises(UserError, match="belongs to the user with the id 65534"):
            write()


# -- the lake ------------------------------------------------------------------------------------------------------


def test_a_correction_counts_at_once_and_at_every_step(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    first, other = call(), call()
    segment(data, [first, other])
    expected = {first.call_id: 1000, other.call_id: 1000}
    assert nano(db) == expected
    path = correct(data, restated(first, 7))
    expected[first.call_id] = 7

    def step(does: Callable[[], None]) -> None:
        does()
        assert nano(db) == expected
        assert nano(db, "booked_calls") == {first.call_id: 1000, other.call_id: 1000}
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (2,)

    step(moving.seal)
    assert all_is_well(data)
    step(moving.turn)
    step(moving.remove)
    assert not path.exists()
    assert [p.name for p in data.glob("corrections/day=2026-11-20/*")] == [f"part-{path.stem}.parquet"]
    today.day = NEXT_DAY
    step(moving.compact)
    step(moving.turn)
    step(moving.remove)
    step(moving.round)
    assert all_is_well(data)
    assert [p.name for p in data.glob("corrections/day=2026-11-20/*")] == ["day.parquet"]
    assert lake.read_state(data) == [lake.Row("closed", DAY, None, 2, 2000, 1, 7, 0)]


def test_of_two_corrections_of_a_closed_day_the_latest_counts(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    first, other = call(), call(price_status="unpriced", list_cost_nano=None)
    segment(data, [first, other])
    today.day = NEXT_DAY
    for _ in range(2):
        moving.round()
    closed = lake.day_file(data, DAY).read_bytes()
    tomorrow = NOON + timedelta(days=1)
    correct(data, restated(first, 7), restated(other, 50, price_status="exact"), at=tomorrow)
    correct(data, restated(first, 9, team_id="ops"), at=tomorrow + timedelta(minutes=1))
    for _ in range(4):
        assert nano(db) == {first.call_id: 9, other.call_id: 50}
        moving.round()
    today.day = NEXT_DAY + timedelta(days=1)
    for _ in range(4):
        moving.round()
        assert nano(db) == {first.call_id: 9, other.call_id: 50}
    assert all_is_well(data)
    assert lake.day_file(data, DAY).read_bytes() == closed
    assert not lake.day_file(data, NEXT_DAY).exists()  # no call was booked on it
    assert db.execute("SELECT day, team_id, count(*) FROM calls GROUP BY ALL ORDER BY team_id").fetchall() == [
        (DAY, "ops", 1),
        (DAY, None, 1),
    ]
    assert db.execute("SELECT DISTINCT recorded_at FROM calls").fetchall() == [(NOON.replace(tzinfo=None),)]
    assert db.execute("SELECT count(*) FROM calls WHERE day = DATE '2026-11-20'").fetchone() == (2,)
    changes = db.execute(
        "SELECT call_id, cause, CAST(list_cost_before_usd * 1000000000 AS BIGINT), "
        "CAST(list_cost_after_usd * 1000000000 AS BIGINT), price_book_after FROM corrections ORDER BY corrected_at"
    ).fetchall()
    assert changes == [
        (first.call_id, "price", 1000, 7, "new"),
        (other.call_id, "price", None, 50, "new"),
        (first.call_id, "price", 7, 9, "new"),
    ]


def test_a_call_that_is_kept_on_a_later_day_than_it_was_recorded_on_can_be_corrected(
    data: Path, today: Today, moving: lake.Lake, db: duckdb.DuckDBPyConnection
) -> None:
    segment(data, [call()])
    today.day = NEXT_DAY
    for _ in range(3):
        moving.round()
    late = call(list_cost_nano=5)
    back = NOON - timedelta(hours=1)  # a clock that stepped back
    segment(data, [late], at=back)
    correct(data, restated(late, 6), booked=back, at=NOON + timedelta(days=1))
    for _ in range(4):
        assert nano(db)[late.call_id] == 6
        assert len(nano(db)) == 2
        moving.round()
    assert all_is_well(data)
    assert [(row.day, row.late_calls) for row in lake.read_state(data) if row.segment] == [(NEXT_DAY, 1), (NEXT_DAY, 0)]


def test_a_keeper_killed_at_any_moment_loses_and_doubles_no_correction(data: Path) -> None:
    moments = random.Random(20261121)
    expected: dict[str, int] = {}
    for round_ in range(4):
        with _process(target=_keep_moving, args=(str(data), 0.0, 0.0, DAY + timedelta(days=round_))) as keeper:
            at = NOON + timedelta(days=round_)
            calls = [call(at) for _ in range(10)]
            segment(data, calls, at=at)
            time.sleep(moments.uniform(0, 0.2))
            correct(data, *(restated(each, 3) for each in calls[:5]), booked=at, at=at + timedelta(minutes=1))
            expected |= {each.call_id: 3 if number < 5 else 1000 for number, each in enumerate(calls)}
            time.sleep(moments.uniform(0.3, 0.6))
            assert keeper.pid is not None
            os.kill(keeper.pid, signal.SIGKILL)
            keeper.join()
        with analytics.open(data) as db:
            assert nano(db) == expected
    moving = lake.Lake(data, 0, 0, lambda: date(2026, 12, 24))
    for _ in range(4):
        moving.round()
    assert {row.state for row in lake.read_state(data)} == {"closed"}
    assert not any(data.glob("journal/2*"))
    with analytics.open(data) as db:
        assert nano(db) == expected
    assert all_is_well(data)


def test_a_folder_from_before_there_were_corrections_is_read_on(data: Path, moving: lake.Lake) -> None:
    first = call()
    segment(data, [first])
    for _ in range(2):
        moving.round()
    state = lake.state_file(data)
    rows = [line.split(",")[:5] for line in state.read_text().splitlines()]
    state.write_text("".join(",".join(row) + "\n" for row in rows))
    for path in data.glob("corrections/*/*"):
        path.unlink()
    old_anchor = data / "calls" / "day=1970-01-01" / "day.parquet"
    with duckdb.connect() as db:
        parts = str(data / "calls" / "day=2026-11-20" / "part-*")
        db.read_parquet(parts, hive_partitioning=False).limit(0).write_parquet(str(old_anchor))
    lake.publish(data)
    correct(data, restated(first, 7))
    with analytics.open(data) as db:
        for _ in range(3):
            assert nano(db) == {first.call_id: 7}
            moving.round()
    assert all_is_well(data)


# -- checks --------------------------------------------------------------------------------------------------------


def test_verify_finds_a_correction_without_its_call_and_a_damaged_file(data: Path, moving: lake.Lake) -> None:
    correct(data, restated(call(), 7))
    assert any("corrected_calls: Each correction is of a call" in line for line in verifying.verify(data).wrong)
    for _ in range(2):
        moving.round()
    path = next(data.glob("corrections/day=2026-11-20/part-*"))
    with duckdb.connect() as db:
        db.read_parquet(str(path), hive_partitioning=False).limit(0).write_parquet(str(path))
    wrong = verifying.verify(data).wrong
    assert any("has 0 corrections of 0 USD, but 1 corrections of 0.000000007 USD" in line for line in wrong)


def test_verify_looks_again_when_corrections_appear_meanwhile(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call()
    segment(data, [first])
    looks = 0
    check = verifying._check_files

    def appear(*arguments: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            correct(data, restated(first, 7))
        check(*arguments)

    monkeypatch.setattr(verifying, "_check_files", appear)
    assert all_is_well(data)
    assert looks == 2


def test_the_check_of_corrections_finds_a_missing_one(data: Path) -> None:
    first = call()
    segment(data, [first])
    correct(data, restated(first, 7))
    models = build.load()
    models["corrections"] = build.Model("corrections", "", {}, f"FROM ({models['corrections'].sql}) LIMIT 0")
    with duckdb.connect() as db:
        build.create_views(db, data, models)
        check = build.load(build.FOLDER / "checks")["corrections"].sql
        assert len(db.execute(check).fetchall()) == 1
