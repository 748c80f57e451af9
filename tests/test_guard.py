"""Clients that take their time, or everything: each is bounded, and the others are served meanwhile."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.helpers import DEFAULT_CHUNK_SIZE

from gateway.config import Server, Upstream
from gateway.limits import LimitTable
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import chunked, sse, whole
from tests.test_meter import CHAT_CHUNKS

CHAT = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
LONG = 60.0
TCP_REPAIR = 19


def server(**settings: Any) -> Server:
    return Server(port=0, drain_seconds=1.0, **settings)


def head(gateway: Running, length: int | str, *fields: str) -> bytes:
    lines = [
        "POST /openai/v1/chat/completions HTTP/1.1",
        "Host: gateway",
        f"Authorization: Bearer {gateway.key}",
        f"Content-Length: {length}",
        *fields,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def request(gateway: Running, **asked: Any) -> bytes:
    body = json.dumps({**CHAT, **asked}).encode()
    return head(gateway, len(body)) + body


@contextlib.asynccontextmanager
async def connected(
    gateway: Running, receive_bytes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway; `receive_bytes`: how much may come unread."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    host, port = gateway.url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**14 if receive_bytes else 2**20)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the gateway ends the connection. Fails when it does not."""
    async with asyncio.timeout(20):
        came = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(2**16):
                came += piece
        return came


async def test_a_long_body_on_a_kept_connection(gateway: Running) -> None:
    """Several pieces of it may be read in one turn of the loop, before anybody has the head."""
    gateway.upstream.answer(whole(ANSWER))
    asked = request(gateway, user="u" * 2_000_000)
    async with connected(gateway) as (reader, writer):
        for _ in range(10):
            writer.write(asked)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            rest = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(rest.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))


async def at_rest(gateway: Running, calls: int) -> list[Any]:
    """The calls, when so many are closed and none runs."""
    async with asyncio.timeout(20):
        while len(gateway.closed()) < calls or "outlay_calls_in_flight 0.0" not in await metrics(gateway):
            await asyncio.sleep(0.02)
    return gateway.closed()


async def metrics(gateway: Running) -> str:
    async with gateway.session.get(gateway.url + "/-/metrics") as response:
        return str(await response.text())


async def serves(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 200
        assert await response.json() == ANSWER


# -- clients that do not read --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def flood(piece: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """An upstream that sends as much as is taken; the list counts the bytes of each connection."""
    sent: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(sent)
        sent.append(0)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                sent[number] += len(piece)
        ended.set()
        writer.transport.abort()

    ended = asyncio.Event()
    upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}", sent
        await asyncio.wait_for(ended.wait(), 20)
    finally:
        upstream.close()


def to(url: str) -> dict[str, Upstream]:
    return {"openai": Upstream(base_url=url, provider="openai", credential="env:PROVIDER_KEY", idle_seconds=LONG)}


EVENTS = b"".join(sse({**CHAT_CHUNKS[0], "choices": [{"index": 0, "delta": {"content": "word " * 200}}]})) * 50


async def test_a_client_that_knows_no_chunks_learns_the_end_of_a_stream(gateway: Running) -> None:
    gateway.upstream.answer(chunked(*sse(*CHAT_CHUNKS)))
    asked = request(gateway, stream=True).replace(b"HTTP/1.1", b"HTTP/1.0\r\nConnection: keep-alive", 1)
    async with connected(gateway) as (reader, writer):
        writer.write(asked)
        assert (await until_end(reader)).endswith(b"".join(sse(*CHAT_CHUNKS)))


async def test_a_client_that_stops_reading_is_cut_off(start_gateway: StartGateway) -> None:
    """Its money and its place are free again, and the upstream was not read on for it."""
    one = {"one": LimitTable(scope="each_key", in_flight=1)}
    async with flood(EVENTS) as (url, sent):
        async with start_gateway(server=server(write_seconds=1.0), upstreams=to(url), limits=one) as gateway:
            async with connected(gateway, 4096) as (reader, writer):
                writer.write(request(gateway, stream=True))
                assert (await reader.readexactly(12)) == b"HTTP/1.1 200"
                [row] = await at_rest(gateway, 1)
                assert (row["result"], row["usage_source"]) == ("client_cancelled", "estimated")
                assert row["output_tokens"] > 0
                assert row["list_cost_nano"] > 0
                assert row["response_bytes"] <= sent[0] < 32 * 2**20
            url = gateway.url + "/openai/v1/models"
            headers = {"Authorization": f"Bearer {gateway.key}"}
            async with gateway.session.get(url, headers=headers) as response:  # others are served
                assert response.status == 200
                response.close()


async def test_a_client_that_reads_slowly_is_served(start_gateway: StartGateway) -> None:
    async with flood(EVENTS) as (url, _):
        async with start_gateway(server=server(write_seconds=1.0), upstreams=to(url)) as gateway:
            async with connected(gateway, 2**16) as (reader, writer):
                writer.write(request(gateway, stream=True))
                taken = 0
                for _ in range(25):
                    taken += len(await reader.readexactly(2**17))
                    await asyncio.sleep(0.1)
                assert gateway.closed() == []
                assert taken == 25 * 2**17
            [row] = await at_rest(gateway, 1)
            assert row["result"] == "client_cancelled"


async def test_a_client_that_does_not_take_a_whole_answer(start_gateway: StartGateway) -> None:
    """The call is complete and recorded; what is left of it is not kept for ever."""
    large = {**ANSWER, "choices": [{"message": {"content": "word " * 4_000_000}, "finish_reason": "stop"}]}
    async with start_gateway(server=server(write_seconds=1.0)) as gateway:
        gateway.upstream.answer(whole(large))
        async with connected(gateway, 4096) as (reader, writer):
            writer.write(request(gateway))
            assert (await reader.readexactly(12)) == b"HTTP/1.1 200"
            [row] = await at_rest(gateway, 1)
            assert row["result"] == "completed"
            await asyncio.sleep(2.5)
            assert len(await until_end(reader)) < 16 * 2**20
        await serves(gateway)


async def test_a_client_that_is_gone_without_a_word(start_gateway: StartGateway) -> None:
    """Its machine lost power, or the network its path: nothing tells, so the kernel asks."""
    async with start_gateway(server=server(write_seconds=1.0)) as gateway:
        gateway.upstream.answer([LONG])
        host, port = gateway.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(request(gateway, stream=True))
            async with asyncio.timeout(10):
                while not gateway.upstream.requests:
                    await asyncio.sleep(0.01)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # then it closes without a packet
            except PermissionError:
                pytest.skip("needs CAP_NET_ADMIN")
        [row] = await at_rest(gateway, 1)
        assert row["result"] == "client_cancelled"
        await asyncio.wait_for(gateway.upstream.disconnected.wait(), 10)


# -- clients that do not send --------------------------------------------------------------------------------------


async def drip(writer: asyncio.StreamWriter, data: bytes, seconds: float = 0.02) -> None:
    """Byte by byte, until the gateway has had enough."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(seconds)


@pytest.mark.parametrize("data", [b"", b"POST /v1/chat/completions HT", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x" * 5000])
async def test_a_head_that_does_not_come_is_not_waited_for(start_gateway: StartGateway, data: bytes) -> None:
    async with start_gateway(server=server(header_seconds=0.5)) as gateway, connected(gateway) as (reader, writer):
        sending = asyncio.create_task(drip(writer, data))
        await until_end(reader)
        sending.cancel()
        await serves(gateway)


async def test_idle_connections_are_closed_and_used_ones_are_not(start_gateway: StartGateway) -> None:
    async with start_gateway(server=server(header_seconds=1.0)) as gateway, connected(gateway) as (reader, writer):
        for _ in range(8):
            writer.write(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(b'{"status": "ok"}'))
            await asyncio.sleep(0.2)
        assert await until_end(reader) == b""


async def test_a_connection_is_not_closed_while_its_answer_is_waited_for(start_gateway: StartGateway) -> None:
    async with start_gateway(server=server(header_seconds=0.2)) as gateway:
        gateway.upstream.answer([0.6, *whole(ANSWER)])
        async with connected(gateway) as (reader, writer):
            writer.write(request(gateway))
            assert (await until_end(reader)).startswith(b"HTTP/1.1 200")


async def body_of(gateway: Running, sent: bytes, *, drips: bytes = b"") -> bytes:
    """What is answered to a request of which not all comes."""
    async with connected(gateway) as (reader, writer):
        writer.write(sent)
        sending = asyncio.create_task(drip(writer, drips))
        came = await until_end(reader)
        sending.cancel()
    assert gateway.upstream.requests == []
    assert gateway.closed() == []
    assert "outlay_calls_in_flight 0.0" in await metrics(gateway)
    return came


async def test_a_body_that_does_not_come_is_not_waited_for(start_gateway: StartGateway) -> None:
    async with start_gateway(server=server(body_seconds=0.5)) as gateway:
        for sent, drips in [
            (head(gateway, 5000) + b'{"model":', b""),
            (head(gateway, 5000), b" " * 5000),
            (head(gateway, "0").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"5\r\n{", b""),
        ]:
            came = await body_of(gateway, sent, drips=drips)
            assert came.startswith(b"HTTP/1.1 408")
            assert b"Connection: close" in came
        await serves(gateway)


async def test_a_body_that_comes_slowly_is_taken(start_gateway: StartGateway) -> None:
    padding = " " * 30_000
    async with start_gateway(server=server(body_seconds=1.0)) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        body = json.dumps({**CHAT, "padding": padding}).encode()
        async with connected(gateway) as (reader, writer):
            writer.write(head(gateway, len(body)))
            for at in range(0, len(body), 2000):
                writer.write(body[at : at + 2000])
                await asyncio.sleep(0.1)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert gateway.upstream.requests[0].body == body


@pytest.mark.parametrize("later", [b"zz\r\n", b"5\r\nhello-and-more\r\n", b"-1\r\n\r\n"])
async def test_a_body_that_is_framed_wrongly_is_refused(start_gateway: StartGateway, later: bytes) -> None:
    async with start_gateway(server=server(body_seconds=0.5)) as gateway:
        async with connected(gateway) as (reader, writer):
            writer.write(
                head(gateway, "0").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"1\r\n{\r\n"
            )
            await asyncio.sleep(0.05)
            writer.write(later)
            came = await until_end(reader)
            assert came.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408"))
            assert b"hello" not in came
        assert gateway.upstream.requests == []
        await serves(gateway)


# -- requests behind one another -----------------------------------------------------------------------------------


def numbered(gateway: Running, number: int, size: int = 0, chunk: int | None = None) -> bytes:
    """A request of at least this size whose answer says its number; in chunks of so many bytes."""
    body, field = json.dumps(CHAT).encode().ljust(size), f"x-outlay-ticket: PAY-{number}"
    if chunk is None:
        return head(gateway, len(body), field) + body
    chunks = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in [*chunks, b""])
    return head(gateway, 0, field).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + framed


async def answered(reader: asyncio.StreamReader) -> int:
    """The number of the request that the next answer is for."""
    came = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert came.startswith(b"HTTP/1.1 200")
    lines = dict(line.split(": ", 1) for line in came.decode().lower().splitlines()[1:] if line)
    await reader.readexactly(int(lines["content-length"]))
    return int(lines["x-outlay-ticket"].removeprefix("pay-"))


@pytest.mark.parametrize("bytes_at_once", [2**22, 150_000, 900])
async def test_requests_are_answered_in_their_order_however_they_come(gateway: Running, bytes_at_once: int) -> None:
    """More than aiohttp takes at once, and bodies at which it pauses reading, in bytes and in chunks."""
    gateway.upstream.answer(whole(ANSWER))
    sizes = [0, 0, 500, 0, 80_000, 0, 150_000, 0, 300_000, 0]
    sent = [numbered(gateway, number, sizes[number % 10]) for number in range(1, 100)]
    sent += [numbered(gateway, 100 + more, DEFAULT_CHUNK_SIZE // 16 + more, chunk=1) for more in range(4)]
    sent += [numbered(gateway, number) for number in range(104, 110)]
    data = b"".join(sent)

    async def write(writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(data), bytes_at_once):
            writer.write(data[at : at + bytes_at_once])
            await writer.drain()
            await asyncio.sleep(0)

    async with connected(gateway) as (reader, writer):
        writing = asyncio.create_task(write(writer))
        assert [await answered(reader) for _ in sent] == list(range(1, 110))
        await writing


@pytest.mark.parametrize("more", range(3))
async def test_a_body_of_as_many_chunks_as_are_kept(gateway: Running, more: int) -> None:
    gateway.upstream.answer(whole(ANSWER))
    async with connected(gateway) as (reader, writer):
        for number in range(1, 6):
            writer.write(numbered(gateway, number, DEFAULT_CHUNK_SIZE // 16 + more, chunk=1))
            assert await answered(reader) == number


async def test_requests_behind_one_whose_body_came_later(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    async with connected(gateway) as (reader, writer):
        start, blank, body = numbered(gateway, 1).partition(b"\r\n\r\n")
        writer.write(start + blank)
        await asyncio.sleep(0.1)
        writer.write(body)
        assert await answered(reader) == 1
        writer.write(b"".join(numbered(gateway, number) for number in range(2, 62)))
        assert [await answered(reader) for _ in range(60)] == list(range(2, 62))


# -- heads that are large ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["x: " + "y" * 65_000], b"200"),
        ([f"x-{number}: y" for number in range(450)], b"200"),
        (["x: " + "y" * 70_000], b"400"),
        ([f"x-{number}: y" for number in range(600)], b"400"),
        ([f"x-{number}: " + "y" * 60_000 for number in range(400)], b"431"),
        (["x" * 70_000 + ": y"], b"400"),
    ],
    ids=["a large field", "many fields", "too large a field", "too many fields", "many large fields", "a large name"],
)
async def test_a_head_is_bounded(gateway: Running, fields: list[str], status: bytes) -> None:
    gateway.upstream.answer(whole(ANSWER))
    body = json.dumps(CHAT).encode()
    async with connected(gateway) as (reader, writer):
        writer.write(head(gateway, len(body), *fields) + body)
        assert (await asyncio.wait_for(reader.read(12), 20))[9:] == status
    await serves(gateway)


async def test_a_target_is_bounded(gateway: Running) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(b"GET /" + b"a" * 4_000_000)
        assert (await until_end(reader)).startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    await serves(gateway)
