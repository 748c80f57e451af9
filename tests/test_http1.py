"""The lean upstream client by itself: what it keeps, gives up and bounds. What upstreams do wrong, seen through the
gateway: test_upstream_faults.py."""

import asyncio
import contextlib
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from gateway import credentials, http1_client
from gateway.afterwards import let_go
from gateway.config import Server, Upstream
from gateway.errors import Refusal
from gateway.http1 import PIECE_BYTES, head_of, origin_of
from gateway.http1_client import Http1
from gateway.turns import Turns
from gateway.upstream import NotReachedError, UpstreamAnswer, UpstreamLost

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def serving(
    handle: Handler, turns: Turns | None = None
) -> AsyncIterator[tuple[Http1, Callable[..., "asyncio.Future[UpstreamAnswer]"], list[int]]]:
    """A client, a way to send to a server that does as it likes, and the server's connections: how many are open."""
    is_open = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_open[0] += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.transport.abort()
        is_open[0] -= 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = Http1(Server(), turns or Turns())

    def send(method: str = "POST", body: bytes = b"{}", **settings: Any) -> "asyncio.Future[UpstreamAnswer]":
        upstream = Upstream(**{"base_url": url, "provider": "p", "idle_seconds": 20.0, **settings})
        return client.send("a", upstream, method, "/x", [], body)

    try:
        yield client, send, is_open
    finally:
        await client.close()
        await gone(is_open)
        server.close()
        await server.wait_closed()


async def gone(is_open: list[int]) -> None:
    async with asyncio.timeout(10):
        while is_open[0]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_answer_that_is_there_at_once_is_none_too_early(run: Callable[[Any], Any]) -> None:
    """uvloop looks for bytes before the next step of a task: an answer may come before anybody waits for it."""

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(WHOLE)

    async def ask() -> None:
        async with serving(at_once) as (_, send, is_open):
            for _ in range(200):
                answer = await send("GET")
                assert [piece async for piece in answer.pieces()] == [b"ok"]
            assert is_open == [1]

    run(ask())


async def test_given_up_before_the_first_step_an_answer_is_closed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        await reader.read()

    async with serving(serve) as (_, send, is_open):
        answer = await send("GET")
        assert [piece async for piece in answer.pieces()] == [b"ok"]
        let_go(send("GET"))
        await gone(is_open)


async def test_given_up_in_the_turn_in_which_its_head_came_an_answer_is_closed() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    async with serving(endless) as (_, send, is_open):
        for turns in range(60):  # whichever of them it is
            sent = send()
            while not is_open[0]:
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            let_go(sent)
            with contextlib.suppress(asyncio.CancelledError):
                await sent
            await gone(is_open)


@pytest.mark.parametrize("start", [b"", b"1\r\nx\r\n0\r\n"], ids=["head", "trailer"])
async def test_a_field_without_an_end_is_not_kept_in_memory(start: bytes) -> None:
    sent_bytes = 0

    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.readuntil(b"\r\n\r\n")
        writer.write((HEAD if start else b"HTTP/1.1 200 OK\r\n") + start + b"x-a: ")
        while sent_bytes < 50_000_000:
            writer.write(b"y" * 65_536)
            sent_bytes += 65_536
            await writer.drain()

    async with serving(long) as (_, send, is_open):
        with pytest.raises((UpstreamLost, Refusal)):
            _ = [piece async for piece in (await send()).pieces()]
        await gone(is_open)
    assert sent_bytes < 20_000_000  # what the sockets hold


@pytest.mark.parametrize(("of_head", "of_trailer", "passes"), [(500, 600, True), (513, 0, False)])
async def test_fields_of_a_head_are_counted_and_trailers_are_not(of_head: int, of_trailer: int, passes: bool) -> None:
    async def many(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD.removesuffix(b"\r\n") + b"x-a: b\r\n" * (of_head - 1) + b"\r\n1\r\nx\r\n0\r\n")
        for field in [b"x-t: y\r\n"] * of_trailer:
            writer.write(field)
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        writer.write(b"\r\n")
        await reader.read()

    async with serving(many) as (_, send, _):
        if passes:
            answer = await send()
            assert b"".join([piece async for piece in answer.pieces()]) == b"x"
            assert len(answer.headers) == of_head
        else:
            with pytest.raises((UpstreamLost, Refusal)):
                _ = [piece async for piece in (await send()).pieces()]


async def test_hints_without_an_end_are_no_sign_of_life() -> None:
    async def hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(hints) as (_, send, is_open):
        with pytest.raises(Refusal, match="in time"):
            await asyncio.wait_for(send(idle_seconds=0.3), 10)
        await gone(is_open)


async def test_a_client_that_ends_tells_who_reads() -> None:
    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        await reader.read()

    async with serving(stalls) as (client, send, _):
        answer = await send()
        reading = asyncio.ensure_future(anext(answer.pieces()))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(UpstreamLost):
            await asyncio.wait_for(reading, 10)


def say(writer: asyncio.StreamWriter) -> None:
    """Bytes that nobody asked for."""
    writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")


def end(writer: asyncio.StreamWriter) -> None:
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("body", [b"{}", b"x" * 2 * PIECE_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("farewell", [say, end])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_kept_connection_on_which_something_came_is_not_used_again(
    run: Callable[[Any], Any], farewell: Callable[[asyncio.StreamWriter], None], body: bytes
) -> None:
    """Also when the loop has not read it yet: what a server says unasked is no answer to the next request."""
    requests: list[bytes] = []
    kept: list[asyncio.StreamWriter] = []

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        while head := await reader.readuntil(b"\r\n\r\n"):
            requests.append(await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])))
            writer.write(WHOLE)

    async def ask() -> None:
        async with serving(answers) as (_, send, _is_open):
            assert [piece async for piece in (await send()).pieces()] == [b"ok"]
            farewell(kept[0])
            answer = await send(body=body)
            assert (answer.status, [piece async for piece in answer.pieces()]) == (200, [b"ok"])

    run(ask())
    assert (requests, len(kept)) == ([b"{}", body], 2)


@pytest.mark.parametrize("body", [b"{}", b"x" * 2 * PIECE_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("farewell", [say, end])
def test_what_comes_before_the_request_went_out_is_no_answer_to_it(
    farewell: Callable[[asyncio.StreamWriter], None], body: bytes
) -> None:
    """In groups it goes out in the turn after it was asked for: nobody has it yet, so it may be sent to others."""
    requests = 0
    kept: list[asyncio.StreamWriter] = []

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        kept.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            requests += 1
            writer.write(WHOLE)

    async def ask() -> None:
        turns = Turns()
        async with serving(answers, turns) as (_, send, is_open):
            assert [piece async for piece in (await send()).pieces()] == [b"ok"]
            await asyncio.gather(*(turns.begin() for _ in range(3)))  # others are under way
            sent = send(body=body)
            farewell(kept[0])
            with pytest.raises(NotReachedError):
                await sent
            await gone(is_open)

    uvloop.run(ask())
    assert requests == 1


async def test_an_answer_that_was_read_does_not_wait_for_the_garbage_collector() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            writer.write(WHOLE)

    async with serving(answers) as (_, send, _is_open):
        gc.disable()
        try:
            for _ in range(2):  # over a new connection, and over a kept one
                answer = await send()
                assert [piece async for piece in answer.pieces()] == [b"ok"]
                seen = weakref.ref(answer)
                del answer
                await asyncio.sleep(0)
                assert seen() is None
        finally:
            gc.enable()


async def test_an_old_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = 0

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            writer.write(WHOLE)

    async with serving(answers) as (_, send, _is_open):
        for _ in range(2):
            assert [piece async for piece in (await send()).pieces()] == [b"ok"]
        assert connections == 1
        monkeypatch.setattr(http1_client, "KEPT_SECONDS", 0.0)
        assert [piece async for piece in (await send()).pieces()] == [b"ok"]
        assert connections == 2


async def test_a_name_that_does_not_resolve_is_asked_for_again() -> None:
    client = Http1(Server(), Turns())
    upstream = Upstream(base_url="http://nowhere.invalid", provider="p", connect_seconds=20.0)
    for _ in range(2):
        with pytest.raises(NotReachedError):
            await client.send("a", upstream, "GET", "/", [], b"")
        assert client._resolved == {}
    await client.close()


def test_a_head_is_written_byte_for_byte() -> None:
    fields = [("User-Agent", "a  b"), ("X-Odd", b"\xff\xc3\xa9".decode("utf-8", "surrogateescape"))]
    head = head_of(origin_of("https://[::1]:8443/p/"), "POST", "/v1/x%2Fy?q=%20", fields, b"{}")
    assert head == (
        b"POST /p/v1/x%2Fy?q=%20 HTTP/1.1\r\nHost: [::1]:8443\r\nUser-Agent: a  b\r\nX-Odd: \xff\xc3\xa9\r\n"
        b"Content-Length: 2\r\n\r\n"
    )
    assert b"Content-Length" not in head_of(origin_of("http://h"), "GET", "/", [], b"")
    assert b"Content-Length: 0" in head_of(origin_of("http://h"), "DELETE", "/", [], b"")
    for odd in ("a\r\nb: c", "a\nb", "a\0"):
        with pytest.raises(ValueError, match="line break"):
            head_of(origin_of("http://h"), "GET", "/", [("x", odd)], b"")


def test_strangers_cannot_fill_what_is_remembered_of_names() -> None:
    for number in range(credentials.NAMES_MAX + 10):
        credentials.readable({f"x-stranger-{number}": "", "y" * 50_000 + str(number): ""})
    assert credentials.readable({"Authorization": "a"}) == {"authorization": "a"}
    assert "Authorization" in credentials._names
    assert max(map(len, credentials._names)) <= credentials.NAME_CHARS_MAX
    assert len(credentials._names) <= credentials.NAMES_MAX
