"""Groups of calls that go step by step together, and writes that go out together."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest
import uvloop
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.answers import Whole
from gateway.turns import GROUP_MAX, GROUP_TURNS, Turns, write
from gateway.upstream import UpstreamAnswer


class Clock:
    """Counts the turns of the loop from now on."""

    def __init__(self) -> None:
        self.turn = -1
        self._tick()

    def _tick(self) -> None:
        self.turn += 1
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        self._handle.cancel()


async def _departures(comings: list[int]) -> list[int]:
    """In which turn calls may go on that came in these turns."""
    turns, clock, loop = Turns(), Clock(), asyncio.get_running_loop()
    began = [0] * len(comings)

    async def call(number: int, turn: int) -> None:
        while clock.turn < turn:
            await asyncio.sleep(0)
        await turns.begin()
        began[number] = clock.turn

    await asyncio.gather(*(loop.create_task(call(*each)) for each in enumerate(comings)))
    clock.stop()
    return began


def departures(*comings: int) -> list[int]:
    return uvloop.run(_departures(list(comings)))


def test_a_call_alone_waits_for_nothing() -> None:
    assert departures(5, 15, 25) == [5, 15, 25]


def test_who_comes_in_the_same_turn_goes_on_in_the_same_turn_but_for_the_first() -> None:
    first, *others = departures(*[5] * (GROUP_MAX + 1))
    assert (first, len(set(others))) == (5, 1)
    assert others[0] <= 5 + 3


def test_who_comes_while_a_group_takes_its_steps_goes_with_the_next() -> None:
    _, leads, *others = departures(5, 5, 8, 9, 10)
    assert len(set(others)) == 1
    assert others[0] - leads == GROUP_TURNS + 1


def test_a_group_is_bounded_and_nobody_overtakes() -> None:
    began = departures(*[5] * (2 * GROUP_MAX + 2))
    assert [began.count(turn) for turn in sorted(set(began))] == [1, GROUP_MAX, GROUP_MAX, 1]
    assert began == sorted(began)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_everyone_goes_on_soon_in_the_order_of_coming(comings: list[int]) -> None:
    comings.sort()
    began = departures(*comings)
    assert began == sorted(began)
    groups = len(comings) // GROUP_MAX + 1
    assert all(turn - came <= (GROUP_TURNS + 1) * (groups + 1) + 2 for came, turn in zip(comings, began, strict=True))


async def test_one_who_has_gone_holds_nobody_up() -> None:
    turns = Turns()
    waiting = [asyncio.ensure_future(turns.begin()) for _ in range(4)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(waiting[0], *waiting[2:])
        await turns.begin()


async def test_in_a_group_each_takes_a_step_before_one_takes_the_next() -> None:
    turns, steps = Turns(), list[str]()

    async def call(name: str) -> None:
        await turns.begin()
        steps.append(f"{name}1")
        await turns.next()
        steps.append(f"{name}2")

    await asyncio.gather(*map(call, "abc"))
    assert steps == ["a1", "a2", "b1", "c1", "b2", "c2"]


@pytest.fixture
async def pair() -> AsyncIterator[tuple[asyncio.WriteTransport, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    yield transport, theirs
    transport.abort()
    theirs.close()


async def in_groups(turns: Turns) -> None:
    await asyncio.gather(*(turns.begin() for _ in range(3)))


async def test_alone_it_is_written_at_once(pair: tuple[asyncio.WriteTransport, socket.socket]) -> None:
    transport, theirs = pair
    theirs.setblocking(False)
    assert Turns().soon(write, transport, b"now") is None
    assert theirs.recv(100) == b"now"


async def test_in_groups_it_is_written_in_order_in_the_next_turn(
    pair: tuple[asyncio.WriteTransport, socket.socket],
) -> None:
    transport, theirs = pair
    theirs.setblocking(False)
    await in_groups(turns := Turns())
    turns.soon(write, transport, b"one ")
    turns.soon(write, transport, b"two")
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    await asyncio.sleep(0)
    assert theirs.recv(100) == b"one two"


async def test_a_transport_that_closes_before_gets_nothing(pair: tuple[asyncio.WriteTransport, socket.socket]) -> None:
    transport, theirs = pair
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await in_groups(turns := Turns())
    turns.soon(write, transport, b"late")
    transport.close()
    await asyncio.sleep(0.01)
    assert (await asyncio.to_thread(theirs.recv, 100), complaints) == (b"", [])


class Answer:
    """Of an upstream: what `Whole` needs of it."""

    status, reason = 200, "OK"


async def test_a_large_answer_that_is_not_read_holds_up_the_next_request_of_its_client() -> None:
    """It is written at once, also in groups: else aiohttp takes the request for done, and a process that ends, too."""
    turns, handled, size = Turns(), list[str](), 30_000_000

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        handled.append(request.path)
        await in_groups(turns)
        return Whole(cast("UpstreamAnswer", Answer()), CIMultiDict(), b"x" * size, turns)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2], limit=65_536)
        writer.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        assert handled == ["/1"]
        answers = await asyncio.wait_for(reader.read(), 20)
        assert (handled, answers.count(b"x")) == (["/1", "/2"], 2 * size)
        writer.close()
    finally:
        await runner.cleanup()
