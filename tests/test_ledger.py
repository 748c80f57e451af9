"""The journal: nothing that was recorded is lost, whatever happens to the process or the disk."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import ledger
from gateway.call import Call
from gateway.config import LedgerSettings
from gateway.errors import Refusal
from gateway.ledger import Ledger


def settings(path: Path, **changes: Any) -> LedgerSettings:
    return LedgerSettings(dir=str(path), **{"reserve_bytes": 4096, **changes})


def a_call(name: str, **fields: Any) -> Call:
    return Call(call_id=name, request_id=name, attempt=1, started_us=1_700_000_000_000_000, **fields)


@contextlib.contextmanager
def running(path: Path, gateway_id: str = "g1", **changes: Any) -> Iterator[Ledger]:
    journal = Ledger(settings(path, **changes), gateway_id)
    journal.start()
    try:
        yield journal
    finally:
        journal.stop()


def all_records(path: Path, kind: str) -> list[dict[str, Any]]:
    segments = ledger.segments_in(path / "journal")
    return [record for segment in segments for record in ledger.records(segment) if record["e"] == kind]


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=10), max_size=5), st.integers(0, 2**60))
def test_a_line_survives_and_a_damaged_one_is_noticed(fields: dict[str, Any], at: int) -> None:
    fields = {f"f{key}": value for key, value in fields.items()}
    line = ledger.encode("close", at, msgspec.json.encode(fields))
    record = ledger.decode(line)
    assert record is not None
    assert {**fields, "e": "close", "at": at} == {key: value for key, value in record.items() if key != "crc"}
    for torn in range(0, len(line) - 1, 7):
        assert ledger.decode(line[:torn]) is None
    assert ledger.decode(line.replace(b"close", b"clone")) is None


async def test_what_is_no_file_is_no_segment(tmp_path: Path) -> None:
    (tmp_path / "journal" / "20261120T000000000000-abcd1234.jsonl").mkdir(parents=True)
    with running(tmp_path) as journal:
        journal.open(a_call("c1"))
    with running(tmp_path):
        assert [closed["result"] for closed in all_records(tmp_path, "close")] == ["interrupted"]


async def test_open_then_close(tmp_path: Path) -> None:
    with running(tmp_path) as journal:
        call = a_call("c1", team_id="payments")
        journal.open(call)
        assert len(journal._in_flight) == 1
        call.result, call.list_cost_nano = "completed", 42
        assert journal.close(call)
        assert len(journal._in_flight) == 0
        [opened], [closed] = all_records(tmp_path, "open"), all_records(tmp_path, "close")
        assert (opened["call_id"], opened["team_id"]) == ("c1", "payments")
        assert (closed["result"], closed["list_cost_nano"]) == ("completed", 42)
    assert len(all_records(tmp_path, "end")) == 1


async def test_a_crash_leaves_interrupted_calls_exactly_once(tmp_path: Path) -> None:
    crashed = Ledger(settings(tmp_path), "g1")
    crashed.start()
    crashed.open(a_call("lost", request_model="gpt-5.4-mini"))
    crashed.open(a_call("done"))
    crashed.close(a_call("done", result="completed"))
    os.write(crashed._fd, b'{"e":"close","call_id":"torn')
    os.close(crashed._fd)  # the process is gone: its lock goes, no end is written
    for gateway_id in ("g2", "g3"):
        with running(tmp_path, gateway_id):
            closed = {record["call_id"]: record for record in all_records(tmp_path, "close")}
            assert len(all_records(tmp_path, "close")) == 2
            assert closed["lost"]["result"] == "interrupted"
            assert closed["lost"]["price_status"] == "unpriced"
            assert "list_cost_nano" not in closed["lost"]
            assert closed["lost"]["request_model"] == "gpt-5.4-mini"
            assert closed["done"]["result"] == "completed"


async def test_a_recovered_segment_is_ended_and_what_a_crash_left_is_cleared(tmp_path: Path) -> None:
    crashed = Ledger(settings(tmp_path), "g1")
    crashed.start()
    crashed.open(a_call("lost"))
    (tmp_path / "journal" / "unborn.new").touch()
    os.close(crashed._fd)
    os.close(crashed._reserve_fd)
    with running(tmp_path, "g2") as second:
        [ended] = all_records(tmp_path, "end")
        assert ended
        assert [path.name for path in (tmp_path / "journal").glob("reserve-*")] == ["reserve-g2"]
        assert not list((tmp_path / "journal").glob("*.new"))
        with running(tmp_path, "g3"):
            assert second._reserve.exists()  # it lives


async def test_a_stop_with_calls_in_flight_leaves_them_to_the_next_start(tmp_path: Path) -> None:
    with running(tmp_path, "g1") as journal:
        journal.open(a_call("running"))
    assert all_records(tmp_path, "end") == []
    with running(tmp_path, "g2"):
        assert [record["result"] for record in all_records(tmp_path, "close")] == ["interrupted"]


async def test_ends_that_the_disk_did_not_take_are_written_later(tmp_path: Path) -> None:
    with running(tmp_path, "g1") as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        old = journal._new_segment()
        journal._unended.append(full)
        journal._unended.append(old)
        journal._write_ends()
        assert all_records(tmp_path, "end") == []
        os.close(journal._unended.pop(0))
        journal._write_ends()
        assert len(all_records(tmp_path, "end")) == 1


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _is_refused(journal: Ledger, name: str) -> bool:
    try:
        journal.open(a_call(name, branch="x" * 200))
    except Refusal:
        return True
    return False


async def test_the_reserve_takes_what_is_in_flight_when_the_disk_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not _mount(disk):
        pytest.skip("needs the right to mount a small file system")
    try:
        with running(disk, reserve_bytes=65_536) as journal:
            journal.open(a_call("in-flight"))
            filler = (disk / "filler").open("wb")
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"x" * 4096)
                    filler.flush()
            refused = [_is_refused(journal, f"c{number}") for number in range(100)]
            assert refused[-1]
            assert journal.close(a_call("in-flight", result="completed"))
            assert "in-flight" in {record["call_id"] for record in all_records(disk, "close")}
            with contextlib.suppress(OSError):
                filler.close()
            (disk / "filler").unlink()
            assert await journal._switch()
            assert journal.failure is None
            for number in range(100):
                if f"c{number}" in journal._in_flight:
                    journal.close(a_call(f"c{number}"))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # noqa: ASYNC221 - nothing else runs


async def test_a_segment_of_a_living_gateway_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path, "g1") as first:
        first.open(a_call("running"))
        with running(tmp_path, "g2"):
            assert all_records(tmp_path, "close") == []
        first.close(a_call("running", result="completed"))
    assert [record["result"] for record in all_records(tmp_path, "close")] == ["completed"]


async def test_an_end_that_could_not_be_written_interrupts_nothing_that_was_closed(tmp_path: Path) -> None:
    with running(tmp_path, "g1") as journal:
        journal.open(a_call("carried"))
        os.close(journal._new_segment())  # no end: the disk was full
        journal.close(a_call("carried", result="completed"))
    with running(tmp_path, "g2"):
        assert [record["result"] for record in all_records(tmp_path, "close")] == ["completed"]


async def test_two_gateways_that_start_together_recover_a_crash_once(tmp_path: Path) -> None:
    with running(tmp_path, "g1") as journal:
        journal.open(a_call("lost"))
        [path] = (tmp_path / "journal").glob("*.jsonl")
        os.close(journal._fd)
        journal._fd = -1
    with contextlib.ExitStack() as locks:
        assert list(ledger._lock_crashed([path], locks)) == [path]
        with running(tmp_path, "g2"):
            assert all_records(tmp_path, "close") == []
    with running(tmp_path, "g3"):
        assert [record["call_id"] for record in all_records(tmp_path, "close")] == ["lost"]


async def test_rotation_carries_open_calls_along(tmp_path: Path) -> None:
    with running(tmp_path, segment_bytes=4096) as journal:
        keeper = asyncio.create_task(journal.keep())
        journal.open(a_call("long"))
        for number in range(40):
            journal.open(a_call(f"c{number}"))
            journal.close(a_call(f"c{number}", result="completed"))
        while len(segments := sorted((tmp_path / "journal").glob("*.jsonl"))) < 2:
            await asyncio.sleep(0.01)
        assert [r["call_id"] for r in ledger.records(segments[-1]) if r["e"] == "open"] == ["long"]
        for old in segments[:-1]:
            old.unlink()  # as sealing does
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        os.close(journal._fd)
        journal._fd = -1
    with running(tmp_path, "g2"):
        assert [r["call_id"] for r in all_records(tmp_path, "close")] == ["long"]


async def test_sync_per_answer_waits_for_the_disk(tmp_path: Path) -> None:
    with running(tmp_path, sync="answer", sync_ms=1) as journal:
        journal.open(a_call("c1"))
        waiting = asyncio.create_task(journal.durable())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        keeper = asyncio.create_task(journal.keep())
        await asyncio.wait_for(waiting, 5)
        keeper.cancel()


DISK_FULL = """
import asyncio, resource, sys
from pathlib import Path
from gateway.call import Call
from gateway.config import LedgerSettings
from gateway.errors import Refusal
from gateway.ledger import Ledger

async def main(path):
    journal = Ledger(LedgerSettings(dir=path, reserve_bytes=4096, on_failure=sys.argv[2]), "g1")
    journal.start()
    calls = []
    # A limit on the size of files stands for a full disk: writes come back short, then fail.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    for number in range(1000):
        call = Call(call_id=f"c{number}", request_id="r", attempt=1, started_us=1)
        try:
            journal.open(call)
        except Refusal as refusal:
            print(refusal.code, number, journal.failure)
            break
        call.result = "completed"
        if not journal.close(call):
            print("unrecorded", number)
            break
        calls.append(call.call_id)
    print(len(calls))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    keeper = asyncio.create_task(journal.keep())
    while journal.failure is not None:
        await asyncio.sleep(0.05)
    journal.open(Call(call_id="after", request_id="r", attempt=1, started_us=1))
    journal.close(Call(call_id="after", request_id="r", attempt=1, started_us=1, result="completed"))
    keeper.cancel()
    journal.stop()

asyncio.run(main(sys.argv[1]))
"""


def test_a_full_disk_refuses_loses_nothing_and_heals(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path), "refuse"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    first, count = done.stdout.split("\n")[:2]
    assert first.startswith(("ledger_unavailable", "unrecorded"))
    recorded = {record["call_id"] for record in all_records(tmp_path, "close")}
    assert {f"c{number}" for number in range(int(count))} | {"after"} <= recorded
    for segment in (tmp_path / "journal").glob("*.jsonl"):
        assert all(ledger.decode(line) is not None for line in segment.read_bytes().splitlines(keepends=True))


async def test_a_journal_that_cannot_be_written_refuses_or_forwards(tmp_path: Path) -> None:
    for policy in ("refuse", "forward"):
        with running(tmp_path, policy, on_failure=policy) as journal:
            os.close(journal._fd)
            journal._fd = os.open("/dev/full", os.O_WRONLY)
            if policy == "refuse":
                with pytest.raises(Refusal) as refused:
                    journal.open(a_call("c1"))
                assert refused.value.code == "ledger_unavailable"
            else:
                journal.open(a_call("c1"))
            assert journal.failure == "No space left on device"


async def test_finished_calls_wait_for_a_journal_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """… up to a number, and they are neither lost nor written twice when the process stops meanwhile."""
    monkeypatch.setattr(ledger, "KEPT_MAX", 2)
    with running(tmp_path) as journal:
        for number in range(3):
            journal.open(a_call(f"c{number}"))
        os.dup2(full := os.open("/dev/full", os.O_WRONLY), journal._fd)
        os.close(full)
        booked = [journal.close(a_call(f"c{number}", result="completed")) for number in range(3)]
        assert [at is None for at in booked] == [False, False, True]
        assert all_records(tmp_path, "close") == []
        assert await journal._switch()
        assert journal.failure is None
        assert [record["call_id"] for record in all_records(tmp_path, "close")] == ["c0", "c1"]
        assert [record["at"] for record in all_records(tmp_path, "close")] == booked[:2]
    with running(tmp_path):
        pass
    results = [(record["call_id"], record["result"]) for record in all_records(tmp_path, "close")]
    assert results == [("c0", "completed"), ("c1", "completed"), ("c2", "interrupted")]


WRITER = """
import asyncio, itertools, os, sys
from gateway.call import Call
from gateway.config import LedgerSettings
from gateway.ledger import Ledger

async def main(path):
    journal = Ledger(LedgerSettings(dir=path, reserve_bytes=4096, segment_bytes=65536, sync_ms=1), f"{os.getpid():x}")
    journal.start()
    keeper = asyncio.create_task(journal.keep())
    for number in itertools.count():
        call = Call(call_id=f"{os.getpid()}-{number}", request_id="r", attempt=1, started_us=1)
        journal.open(call)
        call.result = "completed"
        journal.close(call)
        os.write(1, f"{call.call_id}\\n".encode())  # the answer's last byte
        if number % 20 == 0:
            await asyncio.sleep(0)

asyncio.run(main(sys.argv[1]))
"""


def test_kill_9_loses_no_acknowledged_call(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for round_ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _, line in zip(range(300 + 97 * round_), process.stdout, strict=False):
            acknowledged.add(line.strip())
        process.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.wait()
        process.stdout.close()
    with running(tmp_path, "last"):
        closed = [record["call_id"] for record in all_records(tmp_path, "close")]
    assert len(closed) == len(set(closed))
    assert acknowledged <= set(closed)


def test_moments_go_forward_when_the_clock_is_set_back(tmp_path: Path) -> None:
    times = iter([10**15, 10**15, 10**15 - 10**9, 10**15 - 10**9, 10**15 - 10**9, 10**15 + 10**9])
    ledger = Ledger(LedgerSettings(dir=str(tmp_path)), "g", clock=lambda: next(times))
    seen = [ledger.moment() for _ in range(4)]
    assert seen == sorted(set(seen))
    after_another = ledger.moment(after_us=10**15 + 5)
    assert seen[-1] < after_another < 10**15 + 5, "a clock that is far ahead is not followed"
    assert ledger.moment(after_us=10**15 + 10**9 + 7) == 10**15 + 10**9 + 8
