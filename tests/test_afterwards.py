"""After a client has gone: answers are read on where that pays, and every call is closed."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.afterwards import is_worth_reading_on
from gateway.call import Answer, Ask
from gateway.config import Server
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import chunked, sse, whole
from tests.test_meter import ANTHROPIC_STREAM, CHAT_CHUNKS, CHAT_USAGE

ANSWER = {"id": "c", "model": "gpt-4.1", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
CHAT: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Count to a hundred."}]}


async def closed(gateway: Running) -> dict[str, Any]:
    """The one close record, as soon as it is there."""
    async with asyncio.timeout(10):
        while not gateway.closed():
            await asyncio.sleep(0.01)
    [row] = gateway.closed()
    return row


@pytest.mark.parametrize(
    ("stream", "most", "finish_reason", "worth"),
    [
        (False, None, None, True),
        (True, None, None, False),
        (True, 100_000, None, False),
        (True, 256, None, True),
        (True, None, "stop", True),
    ],
)
def test_when_reading_on_pays(stream: bool, most: int | None, finish_reason: str | None, worth: bool) -> None:
    ask = Ask(stream=stream, max_output_tokens=most)
    assert is_worth_reading_on(ask, Answer(finish_reason=finish_reason)) is worth


async def leave(gateway: Running, path: str, body: Any, *, after_bytes: int = 0, after_seconds: float = 0.2) -> None:
    """Ask, and close the connection: after so many bytes of the answer, or before its head has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    content = json.dumps(body).encode()
    fields = f"Host: x\r\nAuthorization: Bearer {gateway.key}\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(f"POST {path} HTTP/1.1\r\n{fields}".encode() + content)
    await writer.drain()
    seen = 0
    while seen < after_bytes:
        seen += len(await asyncio.wait_for(reader.read(65536), 5))
    await asyncio.sleep(after_seconds)
    writer.transport.abort()


async def test_an_answer_that_is_not_streamed_is_read_on_to_its_usage(gateway: Running) -> None:
    gateway.upstream.answer([1.0, *whole(ANSWER)])
    await leave(gateway, "/v1/chat/completions", CHAT)
    row = await closed(gateway)
    assert (row["result"], row["usage_source"], row["output_tokens"]) == ("client_cancelled", "reported", 100)
    assert row["list_cost_nano"] > 0
    async with gateway.session.get(gateway.url + "/-/metrics") as response:
        assert "outlay_read_on_calls_total 1.0" in await response.text()


async def test_a_stream_whose_model_has_stopped_is_read_on_to_its_usage(gateway: Running) -> None:
    gateway.upstream.answer(chunked(*sse(*CHAT_CHUNKS), 1.0, *sse(CHAT_USAGE), b"data: [DONE]\n\n"))
    await leave(gateway, "/v1/chat/completions", {**CHAT, "stream": True}, after_bytes=10)
    row = await closed(gateway)
    assert (row["result"], row["usage_source"], row["input_tokens"]) == ("client_cancelled", "reported", 1200)


async def test_a_stream_that_goes_on_is_cut_and_estimated(gateway: Running) -> None:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"word number {i} "}}
        for i in range(50)
    ]
    start = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: content_block_delta")]
    gateway.upstream.answer(chunked(start, *sse(*deltas, names=True), 30.0))
    body = {"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 4000, "messages": []}
    await leave(gateway, "/v1/messages", body, after_bytes=7000)
    await asyncio.wait_for(gateway.upstream.disconnected.wait(), 5)
    row = await closed(gateway)
    assert (row["result"], row["usage_source"], row["input_tokens"]) == ("client_cancelled", "partial", 1000)
    assert 150 < row["output_tokens"] < 400  # 50 times about 4 tokens; Claude's are smaller
    assert row["output_cost_nano"] > 0


async def test_reading_on_is_bounded_in_time(start_gateway: StartGateway) -> None:
    async with start_gateway(server=Server(port=0, read_on_seconds=0.2)) as gateway:
        gateway.upstream.answer([30.0])
        await leave(gateway, "/v1/chat/completions", CHAT)
        row = await closed(gateway)
        assert (row["result"], row["usage_source"]) == ("client_cancelled", "estimated")
        assert row["list_cost_nano"] == row["input_cost_nano"] > 0


async def test_reading_on_is_bounded_in_number(start_gateway: StartGateway) -> None:
    async with start_gateway(server=Server(port=0, read_on_calls=0)) as gateway:
        gateway.upstream.answer([5.0, *whole(ANSWER)])
        await leave(gateway, "/v1/chat/completions", CHAT)
        assert (await closed(gateway))["usage_source"] == "estimated"
        await asyncio.wait_for(gateway.upstream.disconnected.wait(), 5)


async def test_reading_on_is_bounded_in_bytes(start_gateway: StartGateway) -> None:
    async with start_gateway(server=Server(port=0, read_on_bytes=100)) as gateway:
        gateway.upstream.answer(whole({**ANSWER, "padding": "x" * 1_000_000}))
        gateway.upstream.answer([0.5, *whole({**ANSWER, "padding": "x" * 1_000_000})])
        await leave(gateway, "/v1/chat/completions", CHAT)
        assert (await closed(gateway))["usage_source"] == "estimated"


async def test_a_gateway_that_stops_closes_what_it_was_reading_on(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        gateway.upstream.answer([30.0])
        await leave(gateway, "/v1/chat/completions", CHAT)
        await asyncio.sleep(0.2)
    [row] = gateway.closed()
    assert (row["result"], row["call_id"]) == (
        "client_cancelled",
        next(record["call_id"] for record in gateway.records() if record["e"] == "open"),
    )
    assert gateway.records()[-1]["e"] == "end"


async def test_a_short_stream_that_is_left_before_its_head_is_read_on(gateway: Running) -> None:
    gateway.upstream.answer([0.8, *chunked(*sse(*CHAT_CHUNKS, CHAT_USAGE), b"data: [DONE]\n\n")])
    await leave(gateway, "/v1/chat/completions", {**CHAT, "stream": True, "max_tokens": 16})
    row = await closed(gateway)
    assert (row["result"], row["usage_source"], row["input_tokens"]) == ("client_cancelled", "reported", 1200)


async def test_a_gateway_that_stops_first_lets_answers_be_read_on(start_gateway: StartGateway) -> None:
    async with start_gateway(server=Server(port=0, drain_seconds=5.0)) as gateway:
        gateway.upstream.answer([0.8, *whole(ANSWER)])
        await leave(gateway, "/v1/chat/completions", CHAT)
    [row] = gateway.closed()
    assert (row["result"], row["usage_source"]) == ("client_cancelled", "reported")


async def test_a_provider_that_refuses_after_the_client_left_costs_nothing(gateway: Running) -> None:
    gateway.upstream.answer([0.6, *whole({"error": {"message": "no"}}, 429)])
    await leave(gateway, "/v1/chat/completions", CHAT)
    row = await closed(gateway)
    assert (row["result"], row["status"], row["list_cost_nano"], row["usage_source"]) == (
        "client_cancelled", 429, 0, "none",
    )  # fmt: skip


def test_the_settings_are_bounded() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"read_on_seconds": 0}, Server)
