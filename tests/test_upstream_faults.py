"""What providers and the network to them do wrong: what the client sees, what is recorded, and that nothing hangs, is
sent twice, or comes into the answer of another call. All of it through the gateway, over real sockets."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from gateway.config import Server, Upstream
from tests.certificates import self_signed
from tests.conftest import PROVIDER_KEY, Running, StartGateway, starter
from tests.fakes.upstream import CLOSE, CUT, Step, chunked, fake_upstream, sse, whole
from tests.test_meter import CHAT_CHUNKS, CHAT_USAGE

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = 0.3
"""Seconds of silence after which the upstream is given up. No test depends on how long that takes in truth."""
LONG = 60.0
"""Seconds that a fake would wait; the gateway has to end it before."""

CHAT = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "hi"}]}
STREAMED = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
EVENTS = [*sse(*CHAT_CHUNKS, CHAT_USAGE), b"data: [DONE]\n\n"]
STREAM = b"".join(EVENTS)
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(mark: str = "asked") -> dict[str, Any]:
    """A whole answer; `mark` tells it from the others."""
    return {
        "id": mark,
        "model": "gpt-5.4-mini",
        "choices": [{"message": {"content": mark}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
    }


BODY = json.dumps(answer()).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
LEAK = b"".join(step for step in whole(answer("leaked")) if isinstance(step, bytes))
"""An answer that nobody asked for."""


class Seen(NamedTuple):
    """What the client got. `body` is `None` when its connection was cut."""

    status: int
    refusal: str | None
    body: bytes | None


@dataclass
class Shared(Running):
    """One gateway for many tests; each sees what came since it began."""

    before: frozenset[str] = frozenset()

    def records(self) -> list[dict[str, Any]]:
        return [record for record in super().records() if record.get("call_id") not in self.before]


@pytest.fixture(scope="module", params=["lean", "aiohttp"])
def client(request: pytest.FixtureRequest) -> str:
    """What speaks to the upstream."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(client: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway that loses patience with its upstream soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROVIDER_KEY", PROVIDER_KEY)
        async with fake_upstream() as upstream:
            start = starter(tmp_path_factory.mktemp("faults"), upstream)
            async with start(
                server=server(client), upstreams={"openai": to(upstream.url, connect_seconds=5.0)}
            ) as running:
                yield running


@pytest.fixture
def gateway(shared: Running) -> Shared:
    shared.upstream.requests.clear()
    shared.upstream.disconnected.clear()
    before = frozenset(record["call_id"] for record in shared.records() if "call_id" in record)
    return Shared(**vars(shared), before=before)


@pytest.fixture
def start(client: str, start_gateway: StartGateway) -> StartGateway:
    """Start a gateway whose upstream `openai` is at an address: `start(url, idle_seconds=1.0)`."""

    def start_with(url: str, **settings: Any) -> contextlib.AbstractAsyncContextManager[Running]:
        return start_gateway(server=server(client), upstreams={"openai": to(url, **settings)})

    return start_with


def server(client: Any) -> Server:
    return Server(port=0, drain_seconds=1.0, upstream_client=client)


def to(url: str, **settings: Any) -> Upstream:
    settings = {"idle_seconds": QUICK, "connect_seconds": QUICK, **settings}
    return Upstream(base_url=url, provider="openai", credential="env:PROVIDER_KEY", **settings)


async def ask(gateway: Running, body: Any = None, path: str = "/openai/v1/chat/completions") -> Seen:
    """One request, to the end of its answer; fails when that does not come."""
    async with asyncio.timeout(20), gateway.post(path, CHAT if body is None else body) as response:
        refusal = response.headers.get("x-outlay-refusal")
        try:
            return Seen(response.status, refusal, await response.read())
        except aiohttp.ClientError:
            return Seen(response.status, refusal, None)


async def recorded(gateway: Running) -> list[dict[str, Any]]:
    """The calls, each opened and closed once, when nothing is under way any more."""
    async with asyncio.timeout(10):
        while await in_flight(gateway) or len(_ids(gateway, "open")) != len(_ids(gateway, "close")):
            await asyncio.sleep(0.01)
    opened, closed = _ids(gateway, "open"), _ids(gateway, "close")
    assert len(set(opened)) == len(opened)
    assert sorted(opened) == sorted(closed)
    return gateway.closed()


def _ids(gateway: Running, event: str) -> list[str]:
    return [record["call_id"] for record in gateway.records() if record["e"] == event]


async def in_flight(gateway: Running) -> float:
    async with gateway.session.get(gateway.url + "/-/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith("outlay_calls_in_flight "))


async def serves_on(gateway: Running, calls: int = 1) -> None:
    """Calls that come after a fault get their own answers."""
    before = len(gateway.upstream.requests)
    for number in range(calls):
        gateway.upstream.answer(whole(answer(f"later-{number}")))
        seen = await ask(gateway)
        assert seen.status == 200, seen
        assert json.loads(seen.body or b"null") == answer(f"later-{number}")
    assert len(gateway.upstream.requests) == before + calls


def after(head: bytes, *steps: Step) -> list[Step]:
    return [head + b"\r\n", *steps]


# -- before the answer ---------------------------------------------------------------------------------------------

NO_ANSWER: dict[str, tuple[Sequence[Step], set[int]]] = {
    "reset": ([CUT], {502}),
    "closed": ([CLOSE], {502}),
    "silent": ([LONG], {504}),
    "reset in the head": ([JSON_HEAD[:30], 0.05, CUT], {502}),
    "closed in the head": ([JSON_HEAD[:30], 0.05, CLOSE], {502}),
    "silent in the head": ([JSON_HEAD[:30], LONG], {504}),
    "silent after an early hint": ([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", LONG], {504}),
    "closed after an early hint": ([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.05, CLOSE], {502}),
    "garbage": ([b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n\x00garbage\r\n\r\n", LONG], {502}),
    "another protocol": ([b"SSH-2.0-OpenSSH_9.6\r\n", LONG], {502}),
    "HTTP/2": ([b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}", LONG], {502}),
    "no status": ([b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}", LONG], {502}),
    "status that is no number": ([b"HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\n{}", LONG], {502}),
    "a switch of protocols nobody asked for": (
        [b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nxxx", LONG],
        {502, 504},
    ),
    "a field without a name": ([JSON_HEAD + b": x\r\n" + LENGTH + b"\r\n" + BODY, LONG], {502}),
    "a field that is huge": ([JSON_HEAD + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n", LONG], {502, 504}),
    "a first line that never ends": ([b"HTTP/1.1 200 " + b"y" * 4_000_000, LONG], {502, 504}),
    "a head that never ends": ([JSON_HEAD + b"".join(b"x-%d: y\r\n" % n for n in range(20_000)), LONG], {502, 504}),
    "NUL in a field": ([JSON_HEAD + b"x: a\0b\r\n" + LENGTH + b"\r\n" + BODY, LONG], {502}),
    "two lengths": ([JSON_HEAD + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY, LONG], {502}),
    "a length that is no number": ([JSON_HEAD + b"Content-Length: 5x\r\n\r\n" + BODY, LONG], {502}),
    "a negative length": ([JSON_HEAD + b"Content-Length: -5\r\n\r\n" + BODY, LONG], {502}),
    "a length beyond measure": ([JSON_HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + BODY, LONG], {502}),
}


@pytest.mark.parametrize(("script", "statuses"), NO_ANSWER.values(), ids=NO_ANSWER)
async def test_no_answer_is_a_refusal_and_of_unknown_cost(
    gateway: Running, script: Sequence[Step], statuses: set[int]
) -> None:
    gateway.upstream.answer(script)
    seen = await ask(gateway, STREAMED)
    assert seen.status in statuses
    assert seen.refusal == {502: "upstream_unreachable", 504: "upstream_timeout"}[seen.status]
    assert seen.body is not None
    assert "the upstream openai" in json.loads(seen.body)["error"]["message"]
    assert len(gateway.upstream.requests) == 1  # sent, and perhaps billed: never sent again
    [row] = await recorded(gateway)
    assert (row["result"], row["status"], row["refusal"]) == ("upstream_error", seen.status, seen.refusal)
    assert (row["price_status"], row.get("list_cost_nano")) == ("unpriced", None)
    await serves_on(gateway)


INFORMATION = {
    "100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "103 Early Hints": b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    "several": b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3,
}


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "in pieces"])
@pytest.mark.parametrize("first", INFORMATION.values(), ids=INFORMATION)
async def test_information_before_the_answer_is_not_the_answer(gateway: Running, first: bytes, apart: bool) -> None:
    head, body = JSON_HEAD + LENGTH + b"\r\n", BODY
    gateway.upstream.answer([first, 0.05, head, body] if apart else [first + head + body])
    assert await ask(gateway) == Seen(200, None, BODY)
    gateway.upstream.answer([first, *chunked(*EVENTS)])
    assert await ask(gateway, STREAMED) == Seen(200, None, STREAM)
    assert [row["result"] for row in await recorded(gateway)] == ["completed"] * 2
    await serves_on(gateway)


# -- in the answer -------------------------------------------------------------------------------------------------

PART = BODY[:-10]
CHUNK = b"%x\r\n%s\r\n" % (len(PART), PART)
CHUNKED = JSON_HEAD + b"Transfer-Encoding: chunked\r\n"
BROKEN_OFF: dict[str, list[Step]] = {
    "reset": after(JSON_HEAD + LENGTH, PART, 0.05, CUT),
    "closed": after(JSON_HEAD + LENGTH, PART, 0.05, CLOSE),
    "silent": after(JSON_HEAD + LENGTH, PART, LONG),
    "silent before the body": after(JSON_HEAD + LENGTH, LONG),
    "closed before the body": after(JSON_HEAD + LENGTH, CLOSE),
    "reset between chunks": after(CHUNKED, CHUNK, 0.05, CUT),
    "closed between chunks": after(CHUNKED, CHUNK, 0.05, CLOSE),
    "closed in a chunk": after(CHUNKED, CHUNK[:-20], 0.05, CLOSE),
    "closed in the size of a chunk": after(CHUNKED, CHUNK, b"a", 0.05, CLOSE),
    "closed in the end": after(CHUNKED, CHUNK, b"0\r\n", 0.05, CLOSE),
    "silent in the end": after(CHUNKED, CHUNK, b"0\r\n", LONG),
    "a size that is no number": after(CHUNKED, CHUNK, 0.05, b"zz\r\n", LONG),
    "a negative size": after(CHUNKED, CHUNK, 0.05, b"-5\r\nhello\r\n", LONG),
    "a size beyond measure": after(CHUNKED, CHUNK, 0.05, b"f" * 17 + b"\r\nx", LONG),
    "a size that never ends": after(CHUNKED, CHUNK, 0.05, b"5;" + b"x" * 4_000_000, LONG),
    "a chunk that is longer than its size": after(CHUNKED, CHUNK, 0.05, b"3\r\nhello\r\n", LONG),
    "trailers that never end": after(CHUNKED, CHUNK, 0.05, b"0\r\n" + b"x: y\r\n" * 100_000, LONG),
}


@pytest.mark.parametrize("script", BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_a_whole_answer_that_breaks_off_is_a_refusal(gateway: Running, script: list[Step]) -> None:
    gateway.upstream.answer(script)
    seen = await ask(gateway)
    assert (seen.status, seen.refusal) == (502, "upstream_unreachable")
    assert seen.body is not None
    assert b"broke off" in seen.body
    assert len(gateway.upstream.requests) == 1
    [row] = await recorded(gateway)
    assert (row["result"], row["refusal"], row["usage_source"]) == ("upstream_cut", seen.refusal, "estimated")
    assert row["list_cost_nano"] > 0
    await serves_on(gateway)


@pytest.mark.parametrize("script", BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_a_stream_that_breaks_off_is_cut(gateway: Running, script: list[Step]) -> None:
    """Never a clean end: tools would take it for an answer."""
    event = EVENTS[0]
    begun = {
        len(PART): event, len(CHUNK): b"%x\r\n%s\r\n" % (len(event), event),
    }  # fmt: skip
    head, *rest = script
    assert isinstance(head, bytes)
    steps = [begun.get(len(step), step) if isinstance(step, bytes) else step for step in rest]
    gateway.upstream.answer([head.replace(b"application/json", b"text/event-stream"), *steps])
    seen = await ask(gateway, STREAMED)
    assert seen == Seen(200, None, None)
    assert len(gateway.upstream.requests) == 1
    [row] = await recorded(gateway)
    assert (row["result"], row["usage_source"]) == ("upstream_cut", "estimated")
    assert row["list_cost_nano"] > 0
    await serves_on(gateway)


async def test_a_chunk_that_is_malformed_is_noticed_at_once(client: str, shared: Running, start: StartGateway) -> None:
    """Not only after `idle_seconds`, which are minutes."""
    if client == "aiohttp":
        pytest.skip("aiohttp's client notices it after idle_seconds")
    shared.upstream.answer([*chunked(EVENTS[0], end=False), 0.05, b"zz\r\nbad", LONG])
    async with start(shared.upstream.url, idle_seconds=LONG) as gateway:
        assert await ask(gateway, STREAMED) == Seen(200, None, None)
        [row] = await recorded(gateway)
        assert row["result"] == "upstream_cut"


GOOD: dict[str, list[Step]] = {
    "byte by byte": [bytes([byte]) for byte in JSON_HEAD + LENGTH + b"\r\n" + BODY],
    "chunks of one byte": after(CHUNKED, *(b"1\r\n%c\r\n" % byte for byte in BODY), b"0\r\n\r\n"),
    "chunks with extensions": after(CHUNKED, b"%x;a=b;c\r\n%s\r\n" % (len(BODY), BODY), b"0;last\r\n\r\n"),
    "trailers": after(CHUNKED, b"%x\r\n%s\r\n" % (len(BODY), BODY), b"0\r\nx-checksum: 1\r\nx-other: 2\r\n\r\n"),
    "until it closes": after(JSON_HEAD + b"Connection: close\r\n", BODY, 0.05, CLOSE),
    "HTTP/1.0": after(JSON_HEAD.replace(b"1.1", b"1.0"), BODY, 0.05, CLOSE),
    "lower case and no space": after(JSON_HEAD + b"content-length:%d\r\nCONNECTION:Keep-Alive\r\n" % len(BODY), BODY),
    "no reason": after(JSON_HEAD.replace(b" OK", b" ") + LENGTH, BODY),
    "closed after the last byte": after(JSON_HEAD + LENGTH, BODY, CLOSE),
}


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD)
async def test_odd_answers_that_are_whole_pass(gateway: Running, script: list[Step]) -> None:
    gateway.upstream.answer(script)
    assert await ask(gateway) == Seen(200, None, BODY)
    [row] = await recorded(gateway)
    assert (row["result"], row["usage_source"], row["input_tokens"]) == ("completed", "reported", 1000)
    await serves_on(gateway)


# -- what may not come into another call's answer ------------------------------------------------------------------

EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
SURPLUS: dict[str, list[Step]] = {
    "an answer too many, in one piece": [JSON_HEAD + LENGTH + b"\r\n" + BODY + LEAK],
    "an answer too many, at once": [JSON_HEAD + LENGTH + b"\r\n" + BODY, LEAK],
    "an answer too many, later": [JSON_HEAD + LENGTH + b"\r\n" + BODY, 0.1, LEAK],
    "an answer too many, after chunks": [*chunked(BODY, content_type="application/json"), 0.1, LEAK],
    "half an answer too many": [JSON_HEAD + LENGTH + b"\r\n" + BODY + LEAK[:40]],
    "half an answer too many, later": [JSON_HEAD + LENGTH + b"\r\n" + BODY, 0.1, LEAK[:40]],
    "more than its length": [JSON_HEAD + LENGTH + b"\r\n" + BODY + b"x" * 100],
    "more than its length, later": [JSON_HEAD + LENGTH + b"\r\n" + BODY, 0.1, b"x" * 100],
    "a line end, later": [JSON_HEAD + LENGTH + b"\r\n" + BODY, 0.1, b"\r\n"],
    "a length that is too short": after(JSON_HEAD + b"Content-Length: 10\r\n", BODY),
    "a body where none may be": [EMPTY + BODY],
    "a body where none may be, later": [EMPTY, 0.1, LEAK],
    "length and chunks": after(CHUNKED + b"Content-Length: 5\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) + LEAK),
    "a space before the colon": after(JSON_HEAD + b"Content-Length : 10\r\n", BODY, 0.3, CLOSE),
    "a folded field": after(JSON_HEAD + b"Content-Length:\r\n 10\r\n", BODY, 0.3, CLOSE),
    "a carriage return in a field": after(JSON_HEAD + LENGTH + b"x: a\rContent-Length: 5\r\n", BODY),
    "bare line ends": [(JSON_HEAD + LENGTH).replace(b"\r\n", b"\n") + b"\n" + BODY],
}


@pytest.mark.parametrize("script", SURPLUS.values(), ids=SURPLUS)
async def test_what_comes_too_much_is_in_nobody_elses_answer(gateway: Running, script: list[Step]) -> None:
    gateway.upstream.answer(script)
    seen = await ask(gateway)
    assert seen.status in (200, 204, 502)
    assert (seen.status == 502) == (seen.refusal is not None)
    assert b"leaked" not in (seen.body or b"")
    if seen.status == 200:
        assert BODY.startswith(seen.body or b"")
    await asyncio.sleep(0.15)  # what is sent later has come
    await serves_on(gateway, calls=3)
    assert len(await recorded(gateway)) == 4


async def test_fields_are_not_split(gateway: Running) -> None:
    """A carriage return in the value of a provider's field makes no field of its own for the client."""
    gateway.upstream.answer([JSON_HEAD + b"x-a: 1\rx-outlay-cost-usd: 0\r\n" + LENGTH + b"\r\n" + BODY])
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.headers.getall("x-outlay-cost-usd", []) != ["0"]
        assert response.status in (200, 502)


# -- connections that are kept -------------------------------------------------------------------------------------


async def test_connections_are_kept_and_used_again(gateway: Running) -> None:
    ports: set[int] = set()
    async with asyncio.timeout(20):
        for number in range(6):
            gateway.upstream.answer(whole(answer(f"{number}")) if number % 2 else chunked(*EVENTS))
            padded = {**(CHAT if number % 2 else STREAMED), "padding": "x" * (number // 2 * 1_000_000)}
            await ask(gateway, padded)
            ports.add(gateway.upstream.requests[-1].port)
    assert len(ports) == 1


@pytest.mark.parametrize("end", [CLOSE, CUT], ids=["closed", "reset"])
async def test_a_kept_connection_that_was_closed_is_not_used(gateway: Running, end: object) -> None:
    for number in range(3):
        gateway.upstream.answer([*whole(answer(f"{number}")), 0.02, end])
        assert await ask(gateway) == Seen(200, None, json.dumps(answer(f"{number}")).encode())
        await asyncio.sleep(0.3)  # the end has come
    assert [row["result"] for row in await recorded(gateway)] == ["completed"] * 3
    assert len(gateway.upstream.requests) == 3


@pytest.mark.parametrize("end", [CLOSE, CUT], ids=["closed", "reset"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_kept_connection_that_ends_on_the_next_request(gateway: Running, end: object, stream: bool) -> None:
    """The request was sent, so the provider may have taken, and bill, it: the client is told, and decides."""
    gateway.upstream.answer(whole(answer()))
    await ask(gateway)
    gateway.upstream.answer([end], whole(answer("again")))
    seen = await ask(gateway, STREAMED if stream else CHAT)
    assert (seen.status, seen.refusal) == (502, "upstream_unreachable")
    assert len(gateway.upstream.requests) == 2
    assert len({request.port for request in gateway.upstream.requests}) == 1
    _, row = await recorded(gateway)
    assert (row["result"], row["price_status"]) == ("upstream_error", "unpriced")
    await serves_on(gateway)


async def test_many_at_once_of_which_some_fail(shared: Running, start: StartGateway) -> None:
    """Patient, as so many calls may keep this process busy for longer than `QUICK`."""
    scripts = [
        chunked(*EVENTS), [CUT], chunked(EVENTS[0], 0.05, CUT), [JSON_HEAD[:20], CLOSE], whole({"error": {}}, 500),
    ]  # fmt: skip
    async with start(shared.upstream.url, idle_seconds=LONG, connect_seconds=LONG) as gateway:
        shared.upstream.requests.clear()
        shared.upstream.answer(*(scripts * 12))
        seen = await asyncio.gather(*(ask(gateway, STREAMED) for _ in range(60)))
        assert sum(each.body == STREAM for each in seen) == 12
        assert sum(each.status == 200 and each.body is None for each in seen) == 12
        assert sum(each.status == 502 for each in seen) == 24
        assert sum(each.status == 500 for each in seen) == 12
        assert len(shared.upstream.requests) == 60
        results = [row["result"] for row in await recorded(gateway)]
        assert {name: results.count(name) for name in set(results)} == {
            "completed": 12, "upstream_cut": 12, "upstream_error": 36,
        }  # fmt: skip
        await serves_on(replace(gateway, upstream=shared.upstream))


# -- requests that are not taken -----------------------------------------------------------------------------------

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LARGE = json.dumps({**CHAT, "padding": "x" * 24_000_000}).encode()


@contextlib.asynccontextmanager
async def raw(handle: Handler, **settings: Any) -> AsyncIterator[str]:
    """A server that does as it likes; yields its address. Connections end with it."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**16, **settings)
    scheme = "https" if "ssl" in settings else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_answer_that_comes_before_the_request_was_read(start: StartGateway) -> None:
    too_large = b'{"error":{"message":"too large"}}'

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(too_large), too_large))
        await asyncio.sleep(LONG)  # and reads nothing of the body

    async with raw(early) as url, start(url, idle_seconds=10.0) as gateway:
        assert await ask(gateway, LARGE) == Seen(413, None, too_large)
        [row] = await recorded(gateway)
        assert (row["result"], row["status"], row["list_cost_nano"]) == ("upstream_error", 413, 0)


async def test_an_upstream_that_answers_and_closes_before_the_request_was_read(start: StartGateway) -> None:
    """The reset that follows may destroy the answer on its way: then it is a refusal. Nothing hangs either way."""
    refused = b'{"error":{"message":"no"}}'

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 X\r\nContent-Length: %d\r\n\r\n%s" % (len(refused), refused))
        await writer.drain()
        writer.close()

    async with raw(early) as url, start(url) as gateway:
        for _ in range(3):
            seen = await ask(gateway, LARGE)
            assert seen.status in (401, 502)
            assert (seen.refusal is None) == (seen.status == 401)
        assert len(await recorded(gateway)) == 3


async def test_an_upstream_that_does_not_take_the_body(start: StartGateway) -> None:
    async def deaf(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(LONG)

    async with raw(deaf) as url, start(url) as gateway:
        seen = await ask(gateway, LARGE)
        assert (seen.status, seen.refusal) == (504, "upstream_timeout")
        [row] = await recorded(gateway)
        assert (row["result"], row["price_status"]) == ("upstream_error", "unpriced")


async def test_an_upstream_that_takes_the_body_slowly(start: StartGateway) -> None:
    """As long as it takes something it is not silent."""
    taken = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))[15:])
        while taken < length:
            taken += len(await reader.read(2**20))
            await asyncio.sleep(0.01)
        writer.write(JSON_HEAD + LENGTH + b"\r\n" + BODY)
        await writer.drain()
        await asyncio.sleep(LONG)

    async with raw(slow) as url, start(url, idle_seconds=2.0) as gateway:
        assert await ask(gateway, LARGE) == Seen(200, None, BODY)
    assert taken == len(LARGE)


# -- clients that leave --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [[LONG], [SSE_HEAD[:30], LONG], chunked(EVENTS[0], LONG)])
async def test_a_client_that_leaves_a_stream_ends_it_upstream(
    gateway: Shared, start: StartGateway, script: list[Step]
) -> None:
    gateway.upstream.answer(script)
    async with start(gateway.upstream.url, idle_seconds=LONG) as patient:
        patient.upstream = gateway.upstream
        leaving = asyncio.create_task(ask(patient, STREAMED))
        async with asyncio.timeout(10):
            while not patient.upstream.requests or not patient.records():
                await asyncio.sleep(0.01)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await patient.upstream.disconnected.wait()
        [row] = await recorded(patient)
        assert row["result"] == "client_cancelled"
        await serves_on(patient)


async def test_a_client_that_reads_slowly_slows_the_upstream(start: StartGateway) -> None:
    """Nobody holds what the client does not take: the upstream has to wait."""
    sent, piece = 0, b"x" * 2**18

    async def generous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SSE_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            sent += len(piece)

    async with raw(generous) as url, start(url, idle_seconds=LONG) as gateway:
        async with gateway.post("/v1/chat/completions", STREAMED) as response:
            assert response.status == 200
            before = -1
            async with asyncio.timeout(20):
                while before != sent:
                    before = sent
                    await asyncio.sleep(0.3)
            assert 0 < sent < 32 * 2**20
            response.close()
        [row] = await recorded(gateway)
        assert row["result"] == "client_cancelled"


# -- no connection -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_backlog() -> Any:
    """A port that takes no connection and refuses none."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def not_reached(start: StartGateway, url: str, refusal: str) -> str:
    """Nothing was sent, so that it costs nothing, and the message names the upstream and no address."""
    async with start(url) as gateway:
        seen = await ask(gateway)
        assert (seen.status, seen.refusal) == ({"upstream_unreachable": 502}.get(refusal, 504), refusal)
        message: str = json.loads(seen.body or b"null")["error"]["message"]
        assert "the upstream openai" in message
        assert url.partition("//")[2].partition(":")[0] not in message
        [row] = await recorded(gateway)
        assert (row["result"], row["refusal"], row["list_cost_nano"]) == ("upstream_error", refusal, 0)
        assert gateway.upstream.requests == []
    return message


async def test_a_name_that_does_not_exist(start: StartGateway) -> None:
    assert "cannot be reached" in await not_reached(start, "http://outlay.invalid", "upstream_unreachable")


async def test_a_port_that_is_closed(start: StartGateway) -> None:
    assert "cannot be reached" in await not_reached(start, "http://127.0.0.1:9", "upstream_unreachable")


async def test_a_black_hole(start: StartGateway) -> None:
    with full_backlog() as port:
        message = await not_reached(start, f"http://127.0.0.1:{port}", "upstream_timeout")
    assert "no connection" in message


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def never_asked(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    raise AssertionError(await reader.read(100))


async def test_a_certificate_that_nobody_signed(start: StartGateway, certificate: Path) -> None:
    async with raw(never_asked, ssl=tls(certificate)) as url:
        message = await not_reached(start, url, "upstream_unreachable")
    assert "cert" in message.lower()  # what the operator has to look at


async def test_plain_http_where_tls_is_expected(start: StartGateway) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(LONG)

    async with raw(plain) as url:
        await not_reached(start, url.replace("http://", "https://"), "upstream_unreachable")


@pytest.mark.parametrize("end", ["silent", "closed", "reset"])
async def test_a_handshake_that_comes_to_nothing(start: StartGateway, end: str) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 if end == "reset" else 10_000)
        if end == "silent":
            await asyncio.sleep(LONG)

    async with raw(deaf) as url:
        refusal = "upstream_timeout" if end == "silent" else "upstream_unreachable"
        await not_reached(start, url.replace("http://", "https://"), refusal)


async def test_a_client_that_leaves_while_there_is_no_connection_yet_pays_nothing(
    client: str, start: StartGateway
) -> None:
    is_reached = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_reached.set()
        await asyncio.sleep(LONG)

    async with raw(deaf) as url, start(url.replace("http://", "https://"), connect_seconds=LONG) as gateway:
        leaving = asyncio.create_task(ask(gateway, STREAMED))
        await asyncio.wait_for(is_reached.wait(), 10)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        [row] = await recorded(gateway)
        assert row["result"] == "client_cancelled"
        if client == "lean":  # aiohttp's does not tell how far it came: estimated
            assert (row["list_cost_nano"], row["usage_source"]) == (0, "none")


async def test_tls_where_plain_http_is_expected(start: StartGateway, certificate: Path) -> None:
    """The request was sent, to something that speaks another language."""
    async with raw(never_asked, ssl=tls(certificate)) as url, start(url.replace("https://", "http://")) as gateway:
        seen = await ask(gateway)
        assert (seen.status, seen.refusal) == (502, "upstream_unreachable")
        [row] = await recorded(gateway)
        assert (row["result"], row["price_status"]) == ("upstream_error", "unpriced")
