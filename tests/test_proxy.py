"""The life of a request, over real sockets: what the provider gets, what the client gets, what is recorded."""

import asyncio
import gzip
import json
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import zstandard
from yarl import URL

from gateway.config import Auth, LedgerSettings, PriceSettings, Server, TicketSettings, Upstream
from gateway.keys import Keys
from tests.conftest import PROVIDER_KEY, Running, StartGateway
from tests.fakes.upstream import CLOSE, CUT, chunked, sse, whole
from tests.test_meter import (
    ANTHROPIC_STREAM,
    CHAT_CHUNKS,
    CHAT_STREAM,
    CHAT_USAGE,
    GEMINI_STREAM,
    RESPONSES_STREAM,
    aws_frame,
)

CHAT = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "a secret plan"}]}
ANSWER = {
    "id": "chatcmpl-9",
    "model": "gpt-5.4-mini",
    "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}


async def test_a_whole_answer(gateway: Running) -> None:
    gateway.upstream.answer(
        whole(ANSWER, headers=[("x-request-id", "req_1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    )
    body = json.dumps(CHAT, indent=3).encode() + b"\n "
    async with gateway.post(
        "/v1/chat/completions?api=%3A:", body, X_Custom="kept", x_outlay_ticket="PAY-7", x_outlay_task="run-1"
    ) as response:
        assert response.status == 200
        assert await response.read() == json.dumps(ANSWER).encode()
        assert response.headers["x-request-id"] == "req_1"
        assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert response.headers["x-outlay-ticket"] == "PAY-7"
        assert response.headers["x-outlay-ticket-source"] == "header"
        assert response.headers["x-outlay-task"] == "run-1"
        shown_cost = response.headers["x-outlay-cost-usd"]
        call_id = response.headers["x-outlay-call-id"]
    [got] = gateway.upstream.requests
    assert (got.method, got.target, got.body) == ("POST", "/v1/chat/completions?api=%3A:", body)
    assert got.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert got.header("x-custom") == "kept"
    assert not [name for name, _ in got.headers if name.lower().startswith("x-outlay")]
    [row] = gateway.closed()
    assert row["call_id"] == call_id
    assert (row["result"], row["status"], row["finish_reason"]) == ("completed", 200, "stop")
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (1000, 100, "reported")
    assert (row["tickets"], row["task_id"], row["task_source"]) == (["PAY-7"], "run-1", "header")
    assert (row["team_id"], row["user_id"], row["provider"], row["dialect"]) == (
        "payments", "dev-1", "openai", "openai_chat",
    )  # fmt: skip
    assert row["price_status"] == "exact"
    assert row["list_cost_nano"] == row["input_cost_nano"] + row["output_cost_nano"] > 0
    assert shown_cost == f"{row['list_cost_nano'] / 1e9:.9f}"
    assert (row["human_turn"], row["tool_calls"], row["edits"]) == (True, 0, 0)
    assert (len(row["request_hash"]), len(row["prefix_hash"]), row.get("action_hash")) == (32, 32, None)
    assert 0 < row["prefix_tokens"] < 1000
    assert row["tool_schema_tokens"] == 0


@pytest.mark.parametrize("size", [100, 200_000])
async def test_the_same_work_has_the_same_shape(gateway: Running, size: int) -> None:
    def asked(text: str, **more: Any) -> dict[str, Any]:
        return {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": text * size}], **more}

    gateway.upstream.answer(whole(ANSWER))
    for body in (asked("a", max_tokens=5), asked("a", max_tokens=50, user="somebody"), asked("b", max_tokens=5)):
        async with gateway.post("/v1/chat/completions", body) as response:
            assert response.status == 200
    first, again, other = gateway.closed()
    assert first["request_hash"] == again["request_hash"] != other["request_hash"]
    assert first["prefix_hash"] == again["prefix_hash"] != other["prefix_hash"]


async def test_what_a_subagent_is_told_no_person_has_said(gateway: Running) -> None:
    gateway.upstream.answer(whole({"type": "message", "model": "claude-haiku-4-5", "content": [], "usage": {}}))
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]}
    for fields in ({}, {"x-claude-code-agent-id": "a1"}):
        headers = {"User-Agent": "claude-cli/2.1.330 (external, cli)", **fields}
        async with gateway.post("/v1/messages", body, **headers) as response:
            assert response.status == 200
    assert [row["human_turn"] for row in gateway.closed()] == [True, False]


async def test_nothing_of_a_prompt_or_key_is_on_disk(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    async with gateway.post("/v1/chat/completions", CHAT):
        pass
    stored = b"".join(path.read_bytes() for path in gateway.dir.rglob("*") if path.is_file())
    for secret in (b"secret plan", gateway.key.encode(), PROVIDER_KEY.encode()):
        assert secret not in stored


STREAMS = [
    ("/v1/messages?beta=true", {"model": "claude-sonnet-4-5", "stream": True, "messages": []}, ANTHROPIC_STREAM),
    ("/v1/responses", {"model": "gpt-5.6-sol", "stream": True, "input": "x"}, RESPONSES_STREAM),
    ("/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse", {"contents": []}, GEMINI_STREAM),
    (
        "/v1/chat/completions",
        {"model": "gpt-5.4-mini", "stream": True, "stream_options": {"include_usage": True}, "messages": []},
        CHAT_STREAM,
    ),
]


@pytest.mark.parametrize(("path", "body", "stream"), STREAMS, ids=["messages", "responses", "gemini", "chat"])
@pytest.mark.parametrize("size", [1, 50, 100_000])
async def test_streams_pass_byte_for_byte(gateway: Running, path: str, body: Any, stream: bytes, size: int) -> None:
    gateway.upstream.answer(chunked(*(stream[i : i + size] for i in range(0, len(stream), size))))
    async with gateway.post(path, body) as response:
        assert await response.read() == stream
        assert response.headers["Content-Type"] == "text/event-stream"
    assert gateway.upstream.requests[0].body == json.dumps(body).encode()
    [row] = gateway.closed()
    assert (row["result"], row["usage_source"], row["stream"]) == ("completed", "reported", True)
    assert row["input_tokens"] > 0
    assert row["response_bytes"] == len(stream)


async def test_tokens_are_passed_on_at_once(gateway: Running) -> None:
    first, *rest = sse(*CHAT_CHUNKS)
    gateway.upstream.answer(chunked(first, 30.0, *rest))
    async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
        piece = await asyncio.wait_for(response.content.readany(), 5)
        assert piece == first


async def test_the_call_is_recorded_before_its_last_event_goes_out(gateway: Running) -> None:
    head, tail = ANTHROPIC_STREAM[:-60], ANTHROPIC_STREAM[-60:]
    gateway.upstream.answer(chunked(head, tail, 30.0))
    async with gateway.post("/v1/messages", {"model": "claude-sonnet-4-5", "stream": True}) as response:
        seen = b""
        while not seen.endswith(b'"message_stop"}\n\n'):
            seen += await asyncio.wait_for(response.content.readany(), 5)
        # The upstream has not ended its answer yet, and the tool may leave now.
        assert [row["result"] for row in gateway.closed()] == ["completed"]
    assert len(gateway.closed()) == 1


async def test_an_answer_of_known_length_is_recorded_before_its_last_byte_goes_out(gateway: Running) -> None:
    body = b"event: completion\ndata: " + json.dumps({"type": "completion", "completion": "one two"}).encode() + b"\n\n"
    gateway.upstream.answer([*whole(body, headers=[("Content-Type", "text/event-stream")]), 30.0])
    async with gateway.post("/v1/complete", {"model": "claude-2", "prompt": "x", "stream": True}) as response:
        assert await asyncio.wait_for(response.content.readexactly(len(body)), 5) == body
        [row] = gateway.closed()
        assert (row["result"], row["usage_source"]) == ("completed", "estimated")


async def test_usage_is_asked_for_and_hidden_again(gateway: Running) -> None:
    plain = b"".join(sse(*CHAT_CHUNKS)) + b"data: [DONE]\n\n"
    gateway.upstream.answer(chunked(*sse(*CHAT_CHUNKS, CHAT_USAGE), b"data: [DONE]\n\n"))
    async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
        assert await response.read() == plain
    sent = json.loads(gateway.upstream.requests[0].body)
    assert sent == {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    assert gateway.closed()[0]["input_tokens"] == 1200


async def test_lines_of_json_pass_at_once_though_usage_was_asked_for(gateway: Running) -> None:
    line = json.dumps({"choices": [{"delta": {"content": "hi"}}]}).encode() + b"\n"
    gateway.upstream.answer(chunked(line, 30.0, content_type="application/x-ndjson"))
    async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
        assert await asyncio.wait_for(response.content.readexactly(len(line)), 5) == line


async def test_a_2xx_without_usage_is_estimated_not_free(gateway: Running) -> None:
    said = {"message": {"role": "assistant", "content": "one two three four five"}, "finish_reason": "stop"}
    gateway.upstream.answer(whole({"id": "x", "choices": [said]}))
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert float(response.headers["x-outlay-cost-usd"]) > 0
    [row] = gateway.closed()
    assert (row["usage_source"], row["price_status"], row["output_tokens"]) == ("estimated", "exact", 5)
    assert 5 < row["input_tokens"] < 20


@pytest.mark.parametrize("count", [{}, {"completion_tokens": None}, {"completion_tokens": "400"}])
async def test_output_that_the_usage_leaves_out_is_estimated_not_free(gateway: Running, count: dict[str, Any]) -> None:
    said = {"message": {"role": "assistant", "content": "one two three four five"}, "finish_reason": "stop"}
    gateway.upstream.answer(whole({"id": "x", "choices": [said], "usage": {"prompt_tokens": 1000, **count}}))
    async with gateway.post("/v1/chat/completions", CHAT):
        pass
    [row] = gateway.closed()
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("partial", 1000, 5)
    assert row["output_cost_nano"] > 0


async def test_a_2xx_that_shows_nothing_is_unpriced_not_free(gateway: Running) -> None:
    gateway.upstream.answer(whole(b"ID3...", headers=[("Content-Type", "audio/mpeg")]))
    async with gateway.post(
        "/v1/audio/transcriptions", b"--x\r\n--x--", Content_Type="multipart/form-data"
    ) as response:
        assert "x-outlay-cost-usd" not in response.headers
    [row] = gateway.closed()
    assert (row["usage_source"], row["price_status"], row.get("list_cost_nano")) == ("none", "unpriced", None)


async def test_an_unknown_model_is_unpriced_not_free(gateway: Running) -> None:
    gateway.upstream.answer(whole({**ANSWER, "model": "nobody-knows-this-1"}))
    async with gateway.post("/v1/chat/completions", {**CHAT, "model": "nobody-knows-this-1"}):
        pass
    [row] = gateway.closed()
    assert (row["price_status"], row["input_tokens"]) == ("unpriced", 1000)
    assert "list_cost_nano" not in row
    async with gateway.session.get(gateway.url + "/-/metrics") as response:
        assert 'outlay_unpriced_calls_total{model="nobody-knows-this-1",provider="openai"} 1.0' in await response.text()


@pytest.mark.parametrize("status", [304, 307])
async def test_a_redirect_passes_and_costs_nothing(gateway: Running, status: int) -> None:
    gateway.upstream.answer(whole(b"", status, [("Location", "/elsewhere")]))
    async with gateway.session.post(
        gateway.url + "/v1/chat/completions",
        json=CHAT,
        headers={"Authorization": f"Bearer {gateway.key}"},
        allow_redirects=False,
    ) as response:
        assert (response.status, response.headers["Location"]) == (status, "/elsewhere")
    [row] = gateway.closed()
    assert (row["result"], row["list_cost_nano"], row["usage_source"]) == ("completed", 0, "none")


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_provider_errors_pass_untouched_and_cost_nothing(gateway: Running, status: int) -> None:
    error = b'{ "type":"error", "error":{"type":"x","message":"y"}}\n'
    gateway.upstream.answer(whole(error, status, [("retry-after", "7")]))
    async with gateway.post("/v1/messages", {"model": "claude-haiku-4-5", "stream": True}) as response:
        assert (response.status, await response.read()) == (status, error)
        assert response.headers["retry-after"] == "7"
        assert "x-outlay-refusal" not in response.headers
    [row] = gateway.closed()
    assert (row["result"], row["status"], row["list_cost_nano"], row["usage_source"]) == (
        "upstream_error", status, 0, "none",
    )  # fmt: skip
    assert "price_status" not in row


async def test_a_stream_that_is_cut_is_cut_for_the_client_too(gateway: Running) -> None:
    head = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: message_delta")]
    gateway.upstream.answer(chunked(head, 0.05, CUT))
    with pytest.raises(aiohttp.ClientError):
        async with gateway.post("/v1/messages", {"model": "claude-sonnet-4-5", "stream": True}) as response:
            await response.read()
    [row] = gateway.closed()
    assert (row["result"], row["usage_source"], row["input_tokens"]) == ("upstream_cut", "partial", 1000)


async def test_an_error_event_leaves_the_usage_partial(gateway: Running) -> None:
    start = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: content_block_delta")]
    error = sse({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, names=True)
    gateway.upstream.answer(chunked(start, *error))
    async with gateway.post("/v1/messages", {"model": "claude-sonnet-4-5", "stream": True}) as response:
        assert await response.read() == start + error[0]
    [row] = gateway.closed()
    assert (row["result"], row["usage_source"], row["input_tokens"]) == ("upstream_error", "partial", 1000)


@pytest.mark.parametrize("end", [CUT, b""], ids=["reset", "fin"])
async def test_a_stream_without_frame_that_ends_early_is_cut_for_the_client_too(gateway: Running, end: Any) -> None:
    head = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: message_delta")]
    unframed = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    gateway.upstream.answer([unframed + head, 0.05, end, CLOSE])
    with pytest.raises(aiohttp.ClientError):
        async with gateway.post("/v1/messages", {"model": "claude-sonnet-4-5", "stream": True}) as response:
            await response.read()
    [row] = gateway.closed()
    assert (row["result"], row["usage_source"]) == ("upstream_cut", "partial")


async def test_a_malformed_chunk_does_not_hang_the_call(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        quick = msgspec.structs.replace(gateway.config.upstreams["openai"], idle_seconds=0.3)
    gateway.upstream.answer([*chunked(*sse(CHAT_CHUNKS[0]), end=False), 0.05, b"zz\r\nbad", 30.0])
    async with start_gateway(upstreams={"openai": quick}) as gateway:
        with pytest.raises(aiohttp.ClientError):
            async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
                await asyncio.wait_for(response.read(), 5)
        assert gateway.closed()[0]["result"] == "upstream_cut"


async def test_a_whole_answer_that_is_cut_becomes_a_refusal(gateway: Running) -> None:
    gateway.upstream.answer([whole(ANSWER)[0][:-10], CUT])  # type: ignore[index]
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 502
        assert response.headers["x-outlay-refusal"] == "upstream_unreachable"
    [row] = gateway.closed()
    assert (row["result"], row["refusal"], row["usage_source"]) == (
        "upstream_cut", "upstream_unreachable", "estimated",
    )  # fmt: skip


async def test_a_client_that_leaves_is_noticed_upstream_and_recorded(gateway: Running) -> None:
    gateway.upstream.answer(chunked(sse(CHAT_CHUNKS[0])[0], 30.0))
    async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
        await response.content.readany()
        response.close()
    await asyncio.wait_for(gateway.upstream.disconnected.wait(), 5)
    while not gateway.closed():
        await asyncio.sleep(0.01)
    [row] = gateway.closed()
    assert (row["result"], row["usage_source"]) == ("client_cancelled", "estimated")
    assert row["output_tokens"] == 3  # of the one word that came
    assert row["list_cost_nano"] == row["input_cost_nano"] + row["output_cost_nano"] > 0


async def test_an_upstream_that_is_not_there(start_gateway: StartGateway) -> None:
    nowhere = Upstream(base_url="http://127.0.0.1:9", provider="anthropic", credential="env:PROVIDER_KEY")
    async with start_gateway(upstreams={"anthropic": nowhere}) as gateway:
        async with gateway.post("/v1/messages", {"model": "claude-haiku-4-5"}) as response:
            body = await response.json()
            assert (response.status, body["type"], body["error"]["type"]) == (502, "error", "api_error")
            assert "cannot be reached" in body["error"]["message"]
            assert "127.0.0.1" not in body["error"]["message"]
        [row] = gateway.closed()
        assert (row["result"], row["refusal"], row["list_cost_nano"]) == ("upstream_error", "upstream_unreachable", 0)


async def test_an_upstream_that_never_answers(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        quiet = msgspec.structs.replace(gateway.config.upstreams["openai"], idle_seconds=0.1)
    gateway.upstream.answer([30.0])
    async with start_gateway(upstreams={"openai": quiet}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (504, "upstream_timeout")
        [row] = gateway.closed()
        # The provider got the request and may bill it: nobody knows, so it is not 0.
        assert (row["result"], row["price_status"], row.get("list_cost_nano")) == ("upstream_error", "unpriced", None)


REFUSALS = [
    ("/v1/chat/completions", {"error": {"code": "unauthenticated", "type": "unauthenticated", "param": None}}),
    ("/v1/messages", {"type": "error", "error": {"type": "authentication_error"}}),
    ("/v1beta/models/g:generateContent", {"error": {"code": 401, "status": "UNAUTHENTICATED"}}),
]


@pytest.mark.parametrize(("path", "shape"), REFUSALS)
async def test_strangers_are_refused_in_their_dialect_and_not_recorded(gateway: Running, path: str, shape: Any) -> None:
    async with gateway.session.post(
        gateway.url + path, json=CHAT, headers={"Authorization": "Bearer sk-x"}
    ) as response:
        body = await response.json()
        assert response.status == 401
        assert response.headers["x-should-retry"] == "false"
        assert response.headers["x-outlay-refusal"] == "unauthenticated"
        assert "outlay keys create" in body["error"].pop("message")
        assert body.pop("request_id", response.headers["request-id"]) == response.headers["request-id"]
        assert body == shape
    assert gateway.upstream.requests == []
    assert gateway.closed() == []


async def test_bad_requests(gateway: Running) -> None:
    for path, body, status, code in [
        ("/v1/chat/completions", b"{broken", 400, "request_unreadable"),
        ("/v1/chat/completions", b'{"messages": 5}', 400, "request_unreadable"),
        ("/v1/chat/completions", b"\xff\xfe", 400, "request_unreadable"),
        ("/v1/chat/completions", b"[" * 100_000, 400, "request_unreadable"),
        ("/v1/fine_tuning/jobs", b"{}", 404, "route_unknown"),
        ("/nowhere/v1/chat/completions", b"{}", 404, "route_unknown"),
    ]:
        async with gateway.post(path, body) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (status, code)
    assert gateway.upstream.requests == []
    assert [row["refusal"] for row in gateway.closed()] == ["request_unreadable"] * 4 + ["route_unknown"] * 2
    assert {row["list_cost_nano"] for row in gateway.closed()} == {0}


async def test_a_body_that_is_too_large(start_gateway: StartGateway) -> None:
    async with start_gateway(server=Server(port=0, body_bytes_max=2048)) as gateway:
        async with gateway.post("/v1/chat/completions", b"x" * 4096) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (413, "request_too_large")
        bomb = gzip.compress(b" " * 1_000_000)
        async with gateway.post("/v1/chat/completions", bomb, Content_Encoding="gzip") as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (413, "request_too_large")


async def test_compressed_requests_are_forwarded_as_sent(gateway: Running) -> None:
    gateway.upstream.answer(whole({"model": "gpt-5.6-sol", "usage": {"input_tokens": 3, "output_tokens": 4}}))
    body = zstandard.compress(json.dumps({"model": "gpt-5.6-sol", "input": "x"}).encode())
    async with gateway.post("/v1/responses", body, Content_Encoding="zstd") as response:
        assert response.status == 200
    assert gateway.upstream.requests[0].body == body
    assert gateway.upstream.requests[0].header("content-encoding") == "zstd"
    assert gateway.closed()[0]["request_model"] == "gpt-5.6-sol"


async def test_compressed_answers_are_passed_on_as_sent(gateway: Running) -> None:
    small = gzip.compress(json.dumps(ANSWER).encode())
    gateway.upstream.answer(whole(small, headers=[("Content-Encoding", "gzip")]))
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert await response.read() == small
        assert response.headers["Content-Encoding"] == "gzip"
    assert gateway.closed()[0]["input_tokens"] == 1000


async def test_large_headers_and_bodies(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER, headers=[("x-large", "y" * 60_000)]))
    body = json.dumps({**CHAT, "padding": "x" * 40_000_000}).encode()
    async with gateway.post("/v1/chat/completions", body, x_codex_turn_metadata="z" * 60_000) as response:
        assert response.status == 200
        assert len(response.headers["x-large"]) == 60_000
    assert gateway.upstream.requests[0].body == body


async def test_websocket_upgrades_fall_back_at_once(gateway: Running) -> None:
    headers = {"Authorization": f"Bearer {gateway.key}", "Upgrade": "websocket", "Connection": "Upgrade"}
    async with gateway.session.get(gateway.url + "/v1/responses", headers=headers) as response:
        assert response.status == 426


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1beta/models/g:countTokens"),
        ("GET", "/v1/responses/resp_1"),
        ("GET", "/v1/models"),
    ],
)
async def test_what_providers_do_not_bill_is_not_booked(gateway: Running, method: str, path: str) -> None:
    gateway.upstream.answer(whole({"id": "resp_1", "input_tokens": 99, "usage": {"input_tokens": 5}}))
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with gateway.session.request(method, gateway.url + path, headers=headers) as response:
        assert response.status == 200
    assert gateway.closed() == []


async def test_unmetered_paths_where_they_are_allowed(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        loose = msgspec.structs.replace(gateway.config.upstreams["openai"], allow_unmetered_paths=True)
    gateway.upstream.answer(whole({"ok": True}))
    async with start_gateway(upstreams={"openai": loose}) as gateway:
        async with gateway.post("/openai/v1/fine_tuning/jobs", {}) as response:
            assert response.status == 200
        [row] = gateway.closed()
        assert (row["usage_source"], row["price_status"]) == ("none", "unpriced")


async def test_unmetered_streams_are_passed_on_at_once_too(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        loose = msgspec.structs.replace(gateway.config.upstreams["openai"], allow_unmetered_paths=True)
    gateway.upstream.answer(chunked(b"first", 30.0, content_type="audio/mpeg"))
    async with start_gateway(upstreams={"openai": loose}) as gateway:
        async with gateway.post("/openai/v1/some/speech", {}) as response:
            assert await asyncio.wait_for(response.content.readany(), 5) == b"first"


async def test_own_credentials_beside_a_gateway_key(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    async with gateway.post("/v1/chat/completions", CHAT, Authorization="Bearer sk-own", x_outlay_key=gateway.key):
        pass
    assert gateway.upstream.requests[0].header("authorization") == "Bearer sk-own"
    assert gateway.upstream.requests[0].header("x-outlay-key") is None


async def test_without_any_provider_credential(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start_gateway() as gateway:
        upstreams = gateway.config.upstreams
    monkeypatch.delenv("PROVIDER_KEY")
    unset = {"openai": msgspec.structs.replace(upstreams["openai"], credential="env:NOT_SET_ANYWHERE")}
    async with start_gateway(upstreams=unset) as gateway, gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 401
        assert "env:NOT_SET_ANYWHERE is not set" in await response.text()


async def test_gemini_key_in_the_query_never_reaches_the_provider(gateway: Running) -> None:
    gateway.upstream.answer(whole({"usageMetadata": {"promptTokenCount": 1}}))
    url = f"{gateway.url}/v1beta/models/gemini-3.5-flash-lite:generateContent?key={gateway.key}"
    async with gateway.session.post(url, json={"contents": []}) as response:
        assert response.status == 200
    [got] = gateway.upstream.requests
    assert got.target == "/v1beta/models/gemini-3.5-flash-lite:generateContent"
    assert got.header("x-goog-api-key") == PROVIDER_KEY


async def test_keys_bound_to_models_and_upstreams(gateway: Running) -> None:
    _, only = Keys(gateway.dir).create(models=("gpt-*",), upstreams=("openai",))
    for path, model in [("/v1/messages", "gpt-x"), ("/v1/chat/completions", "o9"), ("/v1/messages/count_tokens", "x")]:
        async with gateway.post(path, {"model": model}, Authorization=f"Bearer {only}") as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (403, "forbidden")


async def test_a_revoked_key_stops_at_once(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    ring = Keys(gateway.dir)
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 200
    ring.revoke(ring.all()[0].created.key_id)
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 401


async def test_nothing_that_is_sent_after_a_key_was_revoked_passes_among_many_others(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    ring, is_revoked = Keys(gateway.dir), threading.Event()
    answered = asyncio.Event()

    def revoke() -> None:
        ring.revoke(ring.all()[0].created.key_id)
        is_revoked.set()

    async def ask_until_refused() -> None:
        status = 200
        while status == 200:
            was_revoked = is_revoked.is_set()
            async with gateway.post("/v1/chat/completions", CHAT) as response:
                status = response.status
            assert status == 401 or not was_revoked
            answered.set()

    async with asyncio.timeout(20), asyncio.TaskGroup() as clients:
        for _ in range(32):
            clients.create_task(ask_until_refused())
        await answered.wait()
        await asyncio.to_thread(revoke)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages/count_tokens"])
async def test_a_key_that_is_revoked_while_its_body_comes_makes_no_call(gateway: Running, path: str) -> None:
    ring = Keys(gateway.dir)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"model":"gpt-5.4-mini",'
        await asyncio.sleep(0.2)
        ring.revoke(ring.all()[0].created.key_id)
        yield b'"messages":[]}'

    url, headers = gateway.url + path, {"Authorization": f"Bearer {gateway.key}"}
    async with gateway.session.post(url, data=body(), headers=headers) as response:
        assert response.status == 401
    assert gateway.upstream.requests == []


async def test_open_mode_needs_no_key(open_gateway: Running) -> None:
    open_gateway.upstream.answer(whole(ANSWER))
    async with open_gateway.session.post(open_gateway.url + "/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
    assert "key_id" not in open_gateway.closed()[0]


async def test_a_ticket_can_be_required(start_gateway: StartGateway) -> None:
    async with start_gateway(tickets=TicketSettings(policy="required")) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (400, "ticket_required")
        async with gateway.post("/t/PAY-3/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-ticket-source"]) == (200, "path")


async def test_models_without_a_price_can_be_blocked(start_gateway: StartGateway) -> None:
    async with start_gateway(prices=PriceSettings(policy="block")) as gateway:
        async with gateway.post("/v1/chat/completions", {**CHAT, "model": "nobody-knows-this-1"}) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (400, "model_unpriced")


async def test_a_journal_that_cannot_be_written_refuses(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (503, "ledger_unavailable")
        async with gateway.session.get(gateway.url + "/-/readyz") as response:
            assert response.status == 503
    assert gateway.upstream.requests == []


async def test_sync_per_answer(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        strict = LedgerSettings(dir=str(gateway.dir), sync="answer", sync_ms=1)
    gateway.upstream.answer(whole(ANSWER))
    async with start_gateway(ledger=strict) as gateway, gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 200


async def test_health(start_gateway: StartGateway) -> None:
    async with start_gateway(auth=Auth(mode="open")) as gateway:
        for path in ("/-/healthz", "/-/readyz", "/-/metrics"):
            async with gateway.session.get(gateway.url + path) as response:
                assert response.status == 200
        async with gateway.session.post(gateway.url + "/-/v1/chat/completions", json={}) as response:
            assert response.status == 404
    assert gateway.upstream.requests == []


async def test_a_compressed_stream_is_passed_on_at_once(gateway: Running) -> None:
    packed = gzip.compress(sse(CHAT_CHUNKS[0])[0])
    gateway.upstream.answer(chunked(packed, 30.0, headers=[("Content-Encoding", "gzip")]))
    async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
        assert await asyncio.wait_for(response.content.readany(), 5) == packed


async def test_sound_is_passed_on_at_once(gateway: Running) -> None:
    gateway.upstream.answer(chunked(b"ID3", 30.0, content_type="audio/mpeg"))
    async with gateway.post("/v1/audio/speech", {"model": "tts-1", "input": "hello"}) as response:
        assert await asyncio.wait_for(response.content.readany(), 5) == b"ID3"


STREAM = b"".join(sse(*CHAT_CHUNKS, CHAT_USAGE)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("version", "connection", "frames", "ends"),
    [("1.1", "keep-alive", True, False), ("1.1", "close", True, True), ("1.0", "close", False, True)],
)
async def test_how_a_stream_is_framed(
    gateway: Running, version: str, connection: str, frames: bool, ends: bool
) -> None:
    head = b"HTTP/1.1 200 Fine\r\nX-Own: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    gateway.upstream.answer([head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(STREAM), STREAM)])
    body = json.dumps({**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    fields = (
        f"Host: x\r\nAuthorization: Bearer {gateway.key}\r\nConnection: {connection}\r\nContent-Length: {len(body)}"
    )
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /openai/v1/chat/completions HTTP/{version}\r\n{fields}\r\n\r\n{body}".encode())
    async with asyncio.timeout(10):
        came = await (reader.read() if ends else reader.readuntil(b"0\r\n\r\n"))
    writer.close()
    answered, _, rest = came.partition(b"\r\n\r\n")
    status, *lines = answered.decode().split("\r\n")
    names = [line.partition(":")[0].lower() for line in lines]
    assert status == f"HTTP/{version} 200 Fine"
    assert {"x-own", "date", "server", "x-outlay-call-id"} <= set(names)
    assert ("transfer-encoding" in names, "Connection: close" in lines) == (frames, ends and version == "1.1")
    assert rest == (b"%x\r\n%b\r\n0\r\n\r\n" % (len(STREAM), STREAM) if frames else STREAM)
    assert [row["result"] for row in gateway.closed()] == ["completed"]


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body(gateway: Running, status: int) -> None:
    gateway.upstream.answer([f"HTTP/1.1 {status} Nothing\r\nX-Own: a\r\n\r\n".encode()])
    key = {"Authorization": f"Bearer {gateway.key}"}
    async with gateway.session.delete(gateway.url + "/openai/v1/responses/resp_1", headers=key) as response:
        assert (response.status, response.headers["X-Own"], await response.read()) == (status, "a", b"")
        assert "Transfer-Encoding" not in response.headers


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/v1/chat/completions", b"".join(sse(CHAT_CHUNKS[0])) + b"data: [DONE]"),  # no blank line, no reason
        ("/gemini/v1beta/models/g:streamGenerateContent?alt=sse", b"".join(sse({"modelVersion": "g"}))),
        ("/endpoints/e/invocations-response-stream", aws_frame("PayloadPart", {"bytes": "aGk="})),
    ],
)
async def test_a_whole_stream_without_the_usual_end_is_not_cut(gateway: Running, path: str, stream: bytes) -> None:
    kind = "application/vnd.amazon.eventstream" if stream[:1] == b"\x00" else "text/event-stream"
    gateway.upstream.answer(chunked(stream, content_type=kind))
    path = path if path.startswith("/gemini") else "/openai" + path
    asked = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    async with gateway.post(path, asked) as response:
        assert await response.read() == stream
    assert [row["result"] for row in gateway.closed()] == ["completed"]


async def test_requests_that_are_odd_are_refused_not_crashed(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    deep = b'{"a":' * 5000
    nested = {"metadata": {"user_id": '{"a":' * 5000}, "messages": []}
    for path, body, status in [
        ("/v1/images/generations", deep, 400),
        ("/v1/videos", b'{"seconds": "' + b"9" * 5000 + b'"}', 200),
        ("/v1/messages", json.dumps(nested).encode(), 200),
        ("/v1beta/models/g:generateContent", b'{"contents": {"role": "user"}, "tools": {}}', 200),
        ("/v1/audio/transcriptions", b"--a\r\ndecoy\r\n--b\r\nContent-Disposition: x\r\n\r\n\r\n--b--\r\n", 400),
    ]:
        async with gateway.post(path, body) as response:
            assert response.status == status, path
            assert ("x-outlay-refusal" in response.headers) == (status == 400)


async def test_a_key_for_some_models_reaches_no_other_by_another_name(gateway: Running) -> None:
    _, key = Keys(gateway.dir).create(team_id="payments", models=["text-embedding-3-small", "dall-e-2"])
    surrogate = b'{"model":"gpt-image-1","prompt":"\\ud83d"}'
    for path, body in [
        ("/openai/deployments/text-embedding-3-large/embeddings", b'{"model":"text-embedding-3-small"}'),
        ("/openai/deployments/gpt%2Dimage-1/images/generations", b'{"model":"dall-e-2"}'),
        ("/v1/images/generations", surrogate),
        ("/v1/realtime?model=gpt-realtime&model=dall-e-2", b""),
    ]:
        method = "GET" if "realtime" in path else "POST"
        url = URL(gateway.url + "/openai" + path, encoded=True)
        async with gateway.session.request(
            method, url, data=body, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            assert response.status in (400, 403), path
    assert gateway.upstream.requests == []


@pytest.mark.parametrize("odd", ['"\\ud800"', "NaN", "1e999", "9" * 5000])
async def test_a_key_for_some_models_hides_none_in_what_cannot_be_read(gateway: Running, odd: str) -> None:
    gateway.upstream.answer(whole(ANSWER))
    _, key = Keys(gateway.dir).create(models=["gpt-5*"])
    body = f'{{"model":"gpt-5.4","messages":[],"models":["o9"],"metadata":{odd}}}'.encode()
    async with gateway.post("/v1/chat/completions", body, Authorization=f"Bearer {key}") as response:
        assert (response.status, response.headers["x-outlay-refusal"]) == (400, "request_unreadable")
    assert gateway.upstream.requests == []


@pytest.mark.parametrize("tail", [b"", b"\n"])
async def test_what_is_not_reported_is_estimated_from_all_that_was_seen(gateway: Running, tail: bytes) -> None:
    said = " ".join(f"word{i}" for i in range(200))
    body = json.dumps({"id": "x", "choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode() + tail
    words = [{"delta": {"content": f" word{i}"}, "finish_reason": ""} for i in range(200)]
    stream = sse(*({"choices": [word], "error": None} for word in words))
    cut: Any = whole(body)[0]
    gateway.upstream.answer(whole(body), chunked(*stream, b"data: [DONE]\n\n"), [cut[:-20], 0.05, CUT])
    for stream in (False, True, False):
        async with gateway.post("/v1/chat/completions", {**CHAT, "stream": stream}) as response:
            await response.read()
    found = [row["output_tokens"] for row in gateway.closed()]
    assert all(300 < tokens < 500 for tokens in found), found
