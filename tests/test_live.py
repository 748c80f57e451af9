"""Live spend, from the ledger to the socket: exact sums, fresh answers, a socket that is there for one user alone."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

import analytics
from analytics import build, lake, live
from gateway.call import Call
from gateway.control import ID, AwayError, Control, Kind, socket_path
from gateway.errors import UserError
from tests.journals import NOON, Segment, call, segment
from tests.test_corrections import correct, restated

TODAY_NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


@contextlib.asynccontextmanager
async def asking(data: Path) -> AsyncIterator[Control]:
    """A client on the socket of a folder that is served."""
    control = Control(data)
    try:
        yield control
    finally:
        await control.close()


async def told(data: Path, kind: Kind, name: str) -> Any:
    """One answer, over the socket; amounts as exact decimals."""
    async with asking(data) as control:
        return exact(await control.ask(kind, name))


def exact(answer: bytes) -> Any:
    """JSON with each amount as the decimal that was written."""
    return json.loads(answer, parse_float=Decimal)


async def answered(of: live.Live, *questions: tuple[Kind, str]) -> list[Any]:
    """Answers without the socket, for days that a test sets."""
    task = asyncio.create_task(of.answer())
    try:
        return [
            msgspec.json.decode(answer or b"null") for answer in await asyncio.gather(*(of.ask(*q) for q in questions))
        ]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def served(data: Path) -> Iterator[Path]:
    with live.serving(data):
        wait_for(data)
        yield data


def wait_for(data: Path) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError), connected(data):
            return
        time.sleep(0.01)
    raise AssertionError("nobody listens")


@contextlib.contextmanager
def connected(data: Path) -> Iterator[socket.socket]:
    folder = os.open(data, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(socket_path(folder))
            yield client
    finally:
        os.close(folder)


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_a_ticket(served: Path) -> None:
    first = call(TODAY_NOON, tickets=("PAY-1", "PAY-2"), list_cost_nano=1_000_000_001, task_id="t1",
                 ticket_source="branch", ticket_state="known", response_model="m-2", request_model="m")  # fmt: skip
    second = call(TODAY_NOON + timedelta(minutes=1), tickets=("PAY-1",), list_cost_nano=7, task_id="t1",
                  ticket_source="header", ticket_state="closed", request_model="m")  # fmt: skip
    unpriced = call(TODAY_NOON + timedelta(seconds=9), tickets=("PAY-1",), list_cost_nano=None, price_status="unpriced",
                    task_id="t2", ticket_source="header", ticket_state="known", request_model="m")  # fmt: skip
    segment(served, [first, second, unpriced, call(TODAY_NOON)], at=TODAY_NOON)
    async with asking(served) as control:
        raw = await control.ask("tickets", "PAY-1")
    answer = exact(raw)
    assert datetime.fromisoformat(answer.pop("as_of")) > datetime.now(UTC) - timedelta(minutes=1)
    assert answer == {
        "ticket_id": "PAY-1",
        "ticket_state": "closed",
        "list_cost_usd": Decimal("0.500000008"),
        "calls": 3,
        "unpriced_calls": 1,
        "tasks": 2,
        "first_call_at": f"{TODAY_NOON:%Y-%m-%dT%H:%M:%SZ}",
        "last_call_at": f"{TODAY_NOON:%Y-%m-%dT}12:01:00Z",
        "models": [
            {"model": "m-2", "calls": 1, "unpriced_calls": 0, "list_cost_usd": Decimal("0.500000001")},
            {"model": "m", "calls": 2, "unpriced_calls": 1, "list_cost_usd": Decimal("0.000000007")},
        ],
        "sources": [
            {"ticket_source": "branch", "calls": 1, "list_cost_usd": Decimal("0.500000001")},
            {"ticket_source": "header", "calls": 2, "list_cost_usd": Decimal("0.000000007")},
        ],
    }
    assert b'"list_cost_usd":0.000000007}' in raw  # all nine decimals, and no exponent
    assert (await told(served, "tickets", "PAY-2"))["list_cost_usd"] == Decimal("0.500000000")


async def test_what_nobody_called_for_is_zero(served: Path) -> None:
    async with asking(served) as control:
        ticket, task, key = [await control.ask(kind, "acme/shop#45 ü") for kind in ("tickets", "tasks", "keys")]
    nothing = b'"list_cost_usd":0.000000000,"calls":0,"unpriced_calls":0,'
    never = b'"first_call_at":null,"last_call_at":null,"models":[],'
    start = b'{"ticket_id":"acme/shop#45 \xc3\xbc","ticket_state":null,' + nothing + b'"tasks":0,' + never
    assert ticket.startswith(start + b'"sources":[],"as_of":"')
    assert task.startswith(b'{"task_id":"acme/shop#45 \xc3\xbc","tickets":[],' + nothing + never + b'"as_of":"')
    assert b'"today_usd":0.000000000,"month_usd":0.000000000,"unpriced_calls":0,"as_of":"' in key


async def test_a_task_is_found_by_its_own_id_and_by_its_session(served: Path) -> None:
    def at(minute: int, nano: int, **fields: Any) -> Call:
        return call(TODAY_NOON + timedelta(minutes=minute), list_cost_nano=nano, **fields)

    segment(
        served,
        [
            at(0, 1, task_id="s1", session_id="s1", tickets=("PAY-1",)),
            at(1, 10, task_id="run-1", session_id="s1", tickets=("PAY-9", "PAY-3")),
            at(2, 100, task_id="run-1", tickets=("PAY-9",)),
            at(3, 1000, session_id="s1"),
            at(4, 10_000, session_id="s2", task_id="other"),
        ],
        at=TODAY_NOON,
    )
    session, run = await told(served, "tasks", "s1"), await told(served, "tasks", "run-1")
    assert (session["list_cost_usd"], session["calls"]) == (Decimal("0.000001011"), 3)
    assert session["tickets"] == ["PAY-9", "PAY-3", "PAY-1"]  # that of the latest call first
    assert (run["list_cost_usd"], run["calls"], run["tickets"]) == (Decimal("0.000000110"), 2, ["PAY-9", "PAY-3"])
    assert run["first_call_at"] == f"{TODAY_NOON:%Y-%m-%dT}12:01:00Z"


async def test_a_task_counts_its_calls_of_35_days(data: Path, moving: lake.Lake) -> None:
    days = (0, 34, 35, 36, 400)
    for ago in days:
        at = TODAY_NOON - timedelta(days=ago)
        segment(data, [call(at, task_id="t", tickets=("PAY-1",), list_cost_nano=10**ago if ago < 40 else 1)], at=at)
    moving._today = lambda: TODAY_NOON.date()
    for _ in range(4):
        moving.round()
    task, ticket = await answered(live.Live(data, lambda: TODAY_NOON), ("tasks", "t"), ("tickets", "PAY-1"))
    assert task["calls"] == days.index(36)
    assert ticket["calls"] == len(days)


async def test_a_key_sees_its_day_and_its_month(data: Path) -> None:
    segment(
        data,
        [
            call(datetime(2026, 10, 31, 23, 59, 59, 999_999, UTC), key_id="key_1", list_cost_nano=1),
            call(datetime(2026, 11, 1, tzinfo=UTC), key_id="key_1", list_cost_nano=20),
            call(datetime(2026, 11, 19, 23, 59, 59, 999_999, UTC), key_id="key_1", list_cost_nano=300),
            call(datetime(2026, 11, 20, tzinfo=UTC), key_id="key_1", list_cost_nano=4000),
            call(NOON, key_id="key_1", list_cost_nano=None, price_status="unpriced"),
            call(NOON, key_id="key_2", list_cost_nano=50_000),
        ],
    )
    of = live.Live(data, lambda: NOON)
    assert await answered(of, ("keys", "key_1"), ("keys", "key_3")) == [
        {
            "key_id": "key_1",
            "today_usd": 4e-06,
            "month_usd": 4.32e-06,
            "unpriced_calls": 1,
            "as_of": "2026-11-20T12:00:00Z",
        },
        {"key_id": "key_3", "today_usd": 0.0, "month_usd": 0.0, "unpriced_calls": 0, "as_of": "2026-11-20T12:00:00Z"},
    ]


@pytest.mark.parametrize("seed", range(4))
async def test_each_ticket_and_task_is_told_what_the_views_say(data: Path, moving: lake.Lake, seed: int) -> None:
    """Splits and corrections included, wherever the calls are by now, to the nano-dollar."""
    dice = random.Random(seed)
    tickets = [f"PAY-{number}" for number in range(1, 8)]

    def some() -> Call:
        cost = dice.choice([None, 0, 1, 7, dice.randrange(10**12)])
        return call(
            TODAY_NOON + timedelta(seconds=dice.randrange(3600)),
            tickets=tuple(dice.sample(tickets, dice.choice([0, 1, 1, 1, 2, 3, 7]))),
            ticket_source=dice.choice(["header", "branch", "key"]),
            task_id=dice.choice(["t1", "t2", "t3", None]),
            request_model=dice.choice(["a", "b", None]),
            list_cost_nano=cost,
            price_status="unpriced" if cost is None else "exact",
        )

    first, second = [some() for _ in range(40)], [some() for _ in range(40)]
    segment(data, first, at=TODAY_NOON)
    moving._today = lambda: TODAY_NOON.date()
    for _ in range(dice.randrange(4)):
        moving.seal()
        moving.turn()
    segment(data, second, at=TODAY_NOON + timedelta(minutes=1))
    fixed = [restated(each, dice.randrange(10**12), tickets=(dice.choice(tickets),)) for each in first[:9] + second[:9]]
    correct(data, *fixed, booked=TODAY_NOON, at=TODAY_NOON + timedelta(minutes=2))
    with analytics.open(data) as db:
        of_tickets = db.execute(
            "SELECT ticket_id, list_cost_usd, calls, unpriced_calls, tasks FROM ticket_costs"
        ).fetchall()
        of_tasks = db.execute("SELECT task_id, list_cost_usd, calls, unpriced_calls FROM task_costs").fetchall()
    assert len(of_tickets) == len(tickets)
    of = live.Live(data)
    task = asyncio.create_task(of.answer())
    for name, *numbers in of_tickets:
        answer = exact(await of.ask("tickets", name) or b"")
        assert [answer[of_] for of_ in ("list_cost_usd", "calls", "unpriced_calls", "tasks")] == numbers
        for parts in ("models", "sources"):
            assert sum(part["list_cost_usd"] for part in answer[parts]) == answer["list_cost_usd"]
            assert sum(part["calls"] for part in answer[parts]) == answer["calls"]
    for name, *numbers in of_tasks:
        answer = exact(await of.ask("tasks", name) or b"")
        assert [answer[of_] for of_ in ("list_cost_usd", "calls", "unpriced_calls")] == numbers
        assert sum(part["list_cost_usd"] for part in answer["models"]) == answer["list_cost_usd"]
        assert sum(part["unpriced_calls"] for part in answer["models"]) == answer["unpriced_calls"]
    task.cancel()


# -- how it is told ----------------------------------------------------------------------------------------------------


async def test_an_answer_is_given_again_for_a_while(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await told(served, "tickets", "PAY-1")
    segment(served, [call(TODAY_NOON, tickets=("PAY-1",))], at=TODAY_NOON)
    assert await told(served, "tickets", "PAY-1") == first
    assert (await told(served, "tickets", "PAY-2"))["as_of"] > first["as_of"]
    monkeypatch.setattr(live, "FRESH_SECONDS", 0.0)
    await told(served, "tickets", "PAY-3")  # asked after this, an answer is new
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 3.0)
    assert (await told(served, "tickets", "PAY-1"))["calls"] == 1


async def test_each_call_is_told_as_soon_as_it_is_answered(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the keeper seals, beside the answers."""
    monkeypatch.setattr(live, "FRESH_SECONDS", 0.0)
    moving = lake.Lake(served, settle=1.0, today=lambda: TODAY_NOON.date())
    for number in range(1, 16):
        with Segment(served, TODAY_NOON + timedelta(seconds=number)) as written:
            written.close(call(TODAY_NOON, tickets=("PAY-1",)))
            answer, _ = await asyncio.gather(told(served, "tickets", "PAY-1"), asyncio.to_thread(moving.round))
            assert answer["calls"] == number
    assert any(row.state == "sealed" for row in lake.read_state(served))


async def test_one_query_answers_all_that_wait(served: Path) -> None:
    async with asking(served) as control:
        await control.ask("tickets", "PAY-0")
        answers = await asyncio.gather(*(control.ask("tickets", f"PAY-{number}") for number in range(1, 101)))
    found = [msgspec.json.decode(answer) for answer in answers]
    assert [answer["ticket_id"] for answer in found] == [f"PAY-{number}" for number in range(1, 101)]
    assert len({answer["as_of"] for answer in found}) < 10


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.from_regex(ID, fullmatch=True), min_size=1, max_size=50, unique=True))
async def test_every_name_has_its_answer(data: Path, names: list[str]) -> None:
    found = await answered(live.Live(data), *(("tickets", name) for name in names))
    assert [answer["ticket_id"] for answer in found] == names


async def test_what_is_kept_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ANSWERS_MAX", 5)
    of = live.Live(data)
    await answered(of, *(("tasks", f"t{number}") for number in range(20)))
    assert len(of._answers) == 5


async def test_a_folder_that_cannot_be_read_is_said_and_gets_well(
    served: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = lake.state_file(served)
    aside = state.rename(state.with_suffix(".aside"))
    with pytest.raises(AwayError, match="cannot answer at the moment; its log says why"):
        await told(served, "tickets", "PAY-1")
    assert "lake_state.csv, which says which files count, cannot be read" in caplog.text
    aside.rename(state)
    assert (await told(served, "tickets", "PAY-1"))["calls"] == 0


@pytest.fixture
def endless(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Queries about tasks that do not end by themselves, over a folder that is published."""
    folder = tmp_path / "sql"
    (folder / "queries").mkdir(parents=True)
    for path in (build.FOLDER / "queries").glob("live_*.sql"):
        (folder / "queries" / path.name).write_bytes(path.read_bytes())
    (folder / "queries" / "live_tasks.sql").write_text(
        "SELECT $ids[1], count(*) FROM range(1000000000000) WHERE range % 7 = epoch($since::TIMESTAMP)"
    )
    monkeypatch.setattr(build, "FOLDER", folder)


@pytest.mark.usefixtures("endless")
async def test_a_query_that_takes_too_long_is_given_up(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUERY_SECONDS", 1.5)
    with live.serving(data):
        wait_for(data)
        with pytest.raises(AwayError, match="cannot answer"):
            await told(data, "tasks", "t")
        assert (await told(data, "tickets", "PAY-1"))["calls"] == 0


@pytest.mark.usefixtures("endless")
async def test_what_was_given_up_is_not_started_again_for_a_while(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "QUERY_SECONDS", 0.0)  # it has not even begun
    monkeypatch.setattr(live, "REST_SECONDS", 100.0)
    of = live.Live(data)
    assert await answered(of, ("tasks", "t")) == [None]
    monkeypatch.setattr(
        live, "QUERY_SECONDS", 100.0
    )  # what runs from here on runs to its end, or as long as a test may
    assert await answered(of, ("tasks", "t"), ("tasks", "other")) == [None, None]
    [zero] = await answered(of, ("tickets", "PAY-1"))
    assert zero["calls"] == 0, "another kind is told"
    assert len(caplog.records) == 1
    (build.FOLDER / "queries" / "live_tasks.sql").write_text("SELECT $ids[1] AS id, $since AS since")
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 100.0)
    [task] = await answered(of, ("tasks", "t"))
    assert task["id"] == "t", "and this one again, afterwards"


@pytest.mark.usefixtures("endless")
async def test_a_query_takes_one_core(data: Path) -> None:
    """The gateway streams with the others."""
    query = "SELECT $ids[1] AS id, current_setting('threads') AS threads, $since AS since"
    (build.FOLDER / "queries" / "live_tasks.sql").write_text(query)
    [task] = await answered(live.Live(data), ("tasks", "t"))
    assert task["threads"] == 1


@pytest.mark.usefixtures("endless")
async def test_it_stops_while_a_query_runs(data: Path) -> None:
    with live.serving(data):
        wait_for(data)
        async with asking(data) as control:
            with pytest.raises(AwayError, match=r"took longer than 0\.5 s"):
                await control.ask("tasks", "t", 0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tickets/" + "x" * 512, 200),
        ("/tickets/" + "x" * 513, 400),
        ("/tasks/a%0Ab", 400),
        ("/tasks/a%00b", 400),
        ("/keys/%C2%85", 400),
        ("/tickets/", 404),
        ("/people/dev-1", 404),
        ("/tickets", 404),
    ],
)
async def test_what_may_be_asked(served: Path, path: str, status: int) -> None:
    folder = os.open(served, os.O_RDONLY)
    connector = aiohttp.UnixConnector(socket_path(folder))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(URL(f"http://control{path}", encoded=True)) as response:
            assert response.status == status
    os.close(folder)


def test_names() -> None:
    for name in ("PAY-1", "acme/shop#45", "a b", "ü", "x" * 512, "'; DROP VIEW calls; --"):
        assert ID.fullmatch(name)
    for name in ("", "x" * 513, "a\nb", "\x7f", "\udcff", "a\x00"):
        assert not ID.fullmatch(name)


# -- the socket --------------------------------------------------------------------------------------------------------


def test_its_user_alone_may_open_it(served: Path) -> None:
    found = (served / "control.sock").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (found.st_uid, found.st_gid) == (served.stat().st_uid, served.stat().st_gid)


async def test_a_deep_folder(tmp_path: Path) -> None:
    """A path to a socket may have 107 bytes."""
    data = tmp_path.joinpath(*(["deep" * 10] * 20)) / "data"
    lake.publish(data)
    assert len(bytes(data)) > 700
    segment(data, [call(TODAY_NOON, tickets=("PAY-1",))], at=TODAY_NOON)
    with live.serving(data):
        wait_for(data)
        assert (await told(data, "tickets", "PAY-1"))["calls"] == 1
    assert not (data / "control.sock").exists()


async def test_a_relative_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    with live.serving(Path("data")):
        wait_for(data)
        assert (await told(Path("data"), "tickets", "PAY-1"))["calls"] == 0


@pytest.mark.parametrize("left", ["socket", "file"])
async def test_what_a_crash_left_is_replaced(data: Path, left: str) -> None:
    if left == "socket":
        live.listen(data).close()  # nobody listens there any more
        with pytest.raises(AwayError, match="is not running"):
            await told(data, "tickets", "PAY-1")
    else:
        (data / "control.sock").write_text("not a socket")
    with live.serving(data):
        wait_for(data)
        assert (await told(data, "tickets", "PAY-1"))["calls"] == 0


async def test_it_begins_when_the_folder_lets_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.05)
    in_the_way = data / "control.sock"
    in_the_way.mkdir()
    with live.serving(data):
        await asyncio.sleep(0.3)
        in_the_way.rmdir()
        wait_for(data)
        assert (await told(data, "tickets", "PAY-1"))["calls"] == 0
    assert caplog.text.count("nobody can ask for live spend, trying again") == 1


async def test_a_second_keeper_does_not_serve(data: Path) -> None:
    stop = threading.Event()
    first = threading.Thread(target=lake.keep, args=(data, stop), kwargs={"beside": live.serving})
    first.start()
    try:
        wait_for(data)
        served_by = (data / "control.sock").stat().st_ino
        with pytest.raises(UserError, match="another process keeps"):
            lake.keep(data, threading.Event(), beside=live.serving)
        assert (data / "control.sock").stat().st_ino == served_by
        assert (await told(data, "tickets", "PAY-1"))["calls"] == 0
    finally:
        stop.set()
        first.join()
    assert not (data / "control.sock").exists()


def test_the_keeper_serves_after_kill_9(data: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "analytics", "--data", str(data)]
    for end in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, stderr=subprocess.PIPE) as keeper:
            wait_for(data)
            assert asyncio.run(told(data, "tickets", "PAY-1"))["calls"] == 0
            keeper.send_signal(end)
            _, errors = keeper.communicate(timeout=30)
        assert (data / "control.sock").exists() == (end == signal.SIGKILL)
    assert (keeper.returncode, errors) == (0, b"")
