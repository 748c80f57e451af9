"""What the upstream answers: OpenAI chat and responses, Anthropic messages, in the providers' shapes and sizes.

Each content chunk carries `@T` and 16 digits: when it was written, nanoseconds of the monotonic clock, which all
processes share. The model's name says what is asked for: `mock-c200d10` is 200 chunks, 10 ms apart; `d0`, all at once.
"""

import json
import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from tests.benchmarks.harness.wire import chunk, without_chunks

Api = Literal["chat", "messages", "responses"]
PATHS: dict[Api, str] = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
TERMINAL: dict[Api, bytes] = {
    "chat": b"data: [DONE]",
    "messages": b'"message_stop"',
    "responses": b'"response.completed"',
}
STAMP = b"@T"
STAMP_DIGITS = 16
MODEL = re.compile(r"mock-c(\d+)d(\d+)")

FIELDS = (
    "date: Mon, 23 Nov 2026 04:00:00 GMT\r\n"
    "openai-organization: org-mock\r\nopenai-processing-ms: 312\r\nopenai-version: 2020-10-01\r\n"
    "x-ratelimit-limit-requests: 30000\r\nx-ratelimit-limit-tokens: 150000000\r\n"
    "x-ratelimit-remaining-requests: 29999\r\nx-ratelimit-remaining-tokens: 149999975\r\n"
    "x-ratelimit-reset-requests: 2ms\r\nx-ratelimit-reset-tokens: 0s\r\n"
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\nserver: mock\r\n"
)
TEXT = (
    "The gateway forwards each call, reads the usage record from the answer, prices it and books it on the ticket "
    "that the call was made for. Budgets are checked before a call leaves, and again when the bill is known. "
) * 3
EMPTY_STAMP = " " + STAMP.decode() + "0" * STAMP_DIGITS


class Script(NamedTuple):
    """An answer in pieces, as they go over the wire."""

    plain: bytes
    """Whole, not streamed."""
    burst: bytes
    """A whole stream at once. Its chunks have numbers for stamps: some gateways stop a model that repeats itself."""
    start: bytes
    """Of a paced stream: the head and the first events."""
    before_stamp: bytes
    after_stamp: bytes
    end: bytes


def shape(model: str) -> tuple[int, float]:
    """Content chunks, and the seconds between two."""
    found = MODEL.search(model)
    return (int(found[1]), int(found[2]) / 1000) if found else (50, 0.0)


@lru_cache(maxsize=256)
def script(api: Api, model: str, with_usage: bool = True) -> Script:
    events = {"chat": _chat, "messages": _messages, "responses": _responses}[api](model, with_usage)
    before, _, after = chunk(events.delta.encode()).partition(b"0" * STAMP_DIGITS)
    body = json.dumps(events.plain, separators=(",", ":")).encode()
    plain = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{FIELDS}content-length: {len(body)}\r\n\r\n"
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        f"{FIELDS}transfer-encoding: chunked\r\n\r\n"
    )
    start, end = head.encode() + chunk(events.first.encode()), chunk(events.last.encode()) + b"0\r\n\r\n"
    numbered = (b"%b%016d%b" % (before, number, after) for number in range(shape(model)[0]))
    return Script(plain.encode() + body, start + b"".join(numbered) + end, start, before, after, end)


def payload_bytes(api: Api, model: str, stream: bool) -> int:
    """Length of an answer's body, without the frames of its chunks."""
    found = script(api, model)
    if not stream:
        return len(found.plain.partition(b"\r\n\r\n")[2])
    return len(without_chunks(found.burst.partition(b"\r\n\r\n")[2]))


class _Events(NamedTuple):
    plain: dict[str, Any]
    first: str
    delta: str
    last: str


def _sse(*events: dict[str, Any], named: bool = True) -> str:
    lines = (json.dumps(event, separators=(",", ":")) for event in events)
    if not named:
        return "".join(f"data: {line}\n\n" for line in lines)
    return "".join(f"event: {event['type']}\ndata: {line}\n\n" for event, line in zip(events, lines, strict=True))


def _chat(model: str, with_usage: bool) -> _Events:
    common = {
        "id": "chatcmpl-CfMock0123456789abcdefghijklm", "created": 1763870400, "model": model,
        "service_tier": "default", "system_fingerprint": "fp_34a54ae93c",
    }  # fmt: skip
    usage = {
        "prompt_tokens": 1234, "completion_tokens": 210, "total_tokens": 1444,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0},
    }  # fmt: skip

    def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**common, "object": "chat.completion.chunk", "choices": [choice], "usage": None}

    last = [event({}, "stop")]
    if with_usage:
        last.append({**common, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    message = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _Events(
        plain={**common, "object": "chat.completion", "choices": [choice], "usage": usage},
        first=_sse(event({"role": "assistant", "content": "", "refusal": None}), named=False),
        delta=_sse(event({"content": EMPTY_STAMP}), named=False),
        last=_sse(*last, named=False) + "data: [DONE]\n\n",
    )


def _messages(model: str, with_usage: bool) -> _Events:
    usage = {
        "input_tokens": 210, "cache_creation_input_tokens": 512, "cache_read_input_tokens": 1024,
        "cache_creation": {"ephemeral_5m_input_tokens": 512, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    }  # fmt: skip
    message = {"id": "msg_01Mock0123456789abcdefgh", "type": "message", "role": "assistant", "model": model}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    begun = {"stop_reason": None, "stop_sequence": None, "usage": usage | {"output_tokens": 1}}
    return _Events(
        plain={**message, "content": [{"type": "text", "text": TEXT}], **stop, "usage": usage | {"output_tokens": 210}},
        first=_sse(
            {"type": "message_start", "message": {**message, "content": [], **begun}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
        ),
        delta=_sse(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": EMPTY_STAMP}}
        ),
        last=_sse(
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 210}},
            {"type": "message_stop"},
        ),
    )  # fmt: skip


def _responses(model: str, with_usage: bool) -> _Events:
    usage = {
        "input_tokens": 1234, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 210,
        "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 1444,
    }  # fmt: skip
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": TEXT}
    item = {"id": "msg_mock01", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    place = {"item_id": "msg_mock01", "output_index": 0, "content_index": 0}

    def response(status: str) -> dict[str, Any]:
        is_done = status == "completed"
        return {
            "id": "resp_mock0123456789abcdef0123456789abcdef", "object": "response", "created_at": 1763870400,
            "status": status, "error": None, "incomplete_details": None, "instructions": None,
            "max_output_tokens": None, "model": model, "output": [item] if is_done else [],
            "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": "low", "summary": None},
            "service_tier": "default", "store": False, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "truncation": "disabled", "usage": usage if is_done else None, "metadata": {},
        }  # fmt: skip

    return _Events(
        plain=response("completed"),
        first=_sse(
            {"type": "response.created", "sequence_number": 0, "response": response("in_progress")},
            {"type": "response.in_progress", "sequence_number": 1, "response": response("in_progress")},
            {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0,
             "item": {**item, "status": "in_progress", "content": []}},
            {"type": "response.content_part.added", "sequence_number": 3, **place, "part": {**part, "text": ""}},
        ),
        delta=_sse({"type": "response.output_text.delta", "sequence_number": 4, **place, "delta": EMPTY_STAMP}),
        last=_sse(
            {"type": "response.output_text.done", "sequence_number": 5, **place, "text": TEXT},
            {"type": "response.content_part.done", "sequence_number": 6, **place, "part": part},
            {"type": "response.output_item.done", "sequence_number": 7, "output_index": 0, "item": item},
            {"type": "response.completed", "sequence_number": 8, "response": response("completed")},
        ),
    )  # fmt: skip
