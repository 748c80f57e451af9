"""Anthropic's messages as recorded.

`input_tokens` leaves out what was read from or written to the cache. A stream states its usage in `message_start` and
states it again, complete, in `message_delta`.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from analytics.simulated.model import Mark, Prompt, Reply, ToolSpec, Usage, deltas, prose, segment, tokens
from analytics.simulated.wire import Piece, Provider, Trouble, Wire, server_sent, strings

MODELS = ("claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001", "claude-opus-5-5")


def _read(path_model: str, body: dict[str, Any]) -> Prompt:
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not isinstance(messages, list) or not messages:
        raise ValueError("model and messages: field required")
    tools = strings(body.get("tools"))
    parts: list[Any] = [*tools, *strings(body.get("system"))]
    for message in messages:
        # Each block is a place where a cache breakpoint may stand.
        parts += [
            {"role": message.get("role"), **(block if isinstance(block, dict) else {"text": block})}
            for block in strings(message.get("content"))
        ]
    marks = [
        Mark(place, part["cache_control"].get("ttl") == "1h")
        for place, part in enumerate(parts, start=1)
        if isinstance(part, dict) and part.get("cache_control")
    ]
    return Prompt(
        request=body,
        model=model,
        segments=tuple(map(segment, parts)),
        stream=bool(body.get("stream")),
        output_max=body.get("max_tokens"),
        tools=tuple(ToolSpec(tool["name"], tool["input_schema"]) for tool in tools if "input_schema" in tool),
        must_call=(body.get("tool_choice") or {}).get("type") in ("any", "tool"),
        reasons=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
        marks=tuple(marks),
    )


def _input_usage(usage: Usage) -> dict[str, Any]:
    written, hour = usage.cache_write_input_tokens, usage.cache_write_1h_input_tokens
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_input_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour},
    }


def _output_usage(usage: Usage) -> dict[str, Any]:
    thinking = usage.reasoning_output_tokens
    return {
        "output_tokens": usage.output_tokens,
        **({"output_tokens_details": {"thinking_tokens": thinking}} if thinking else {}),
    }


def _blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.usage.reasoning_output_tokens:
        signature = base64.b64encode(hashlib.sha512(reply.id.encode()).digest()).decode()
        blocks.append({"type": "thinking", "thinking": _thoughts(reply), "signature": signature})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    if reply.tool:
        blocks.append(
            {
                "type": "tool_use",
                "id": f"toolu_{reply.id[:24]}",
                "name": reply.tool.name,
                "input": json.loads(reply.arguments),
            }
        )
    return blocks


def _thoughts(reply: Reply) -> str:
    import random

    return prose(random.Random(reply.id), reply.usage.reasoning_output_tokens)


def _message(reply: Reply, content: list[dict[str, Any]], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": reply.model,
        "id": f"msg_{reply.id[:24]}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {**usage, "service_tier": "standard", "inference_geo": "global"},
    }


def _stop(reply: Reply) -> str:
    return "max_tokens" if reply.cut_short else "tool_use" if reply.tool else "end_turn"


def _whole(prompt: Prompt, reply: Reply) -> bytes:
    usage = _input_usage(reply.usage) | _output_usage(reply.usage)
    return _compact(_message(reply, _blocks(reply), _stop(reply), usage))


def _pieces(prompt: Prompt, reply: Reply) -> Iterator[Piece]:
    start = _message(reply, [], None, _input_usage(reply.usage) | {"output_tokens": 1})
    yield Piece(_event("message_start", {"message": start}))
    for index, block in enumerate(_blocks(reply)):

        def delta(kind: str, key: str, text: str, generated: int, index: int = index) -> Piece:
            fields = {"index": index, "delta": {"type": kind, key: text}}
            return Piece(_event("content_block_delta", fields), generated)

        match block["type"]:
            case "thinking":
                empty = {"type": "thinking", "thinking": "", "signature": ""}
                parts = [delta("thinking_delta", "thinking", text, tokens(text)) for text in deltas(block["thinking"])]
                parts.append(delta("signature_delta", "signature", block["signature"], 0))
            case "text":
                empty = {"type": "text", "text": ""}
                parts = [delta("text_delta", "text", text, tokens(text)) for text in deltas(block["text"])]
            case _:
                empty = {**block, "input": {}}
                parts = [delta("input_json_delta", "partial_json", "", 0)]
                parts += [
                    delta("input_json_delta", "partial_json", text, tokens(text)) for text in deltas(reply.arguments)
                ]
        yield Piece(_event("content_block_start", {"index": index, "content_block": empty}))
        if index == 0:
            yield Piece(b'event: ping\ndata: {"type": "ping"}\n\n')
        yield from parts
        yield Piece(_event("content_block_stop", {"index": index}))
    usage = _input_usage(reply.usage) | _output_usage(reply.usage)
    del usage["cache_creation"]
    end = {"delta": {"stop_reason": _stop(reply), "stop_sequence": None, "stop_details": None}, "usage": usage}
    yield Piece(_event("message_delta", end))
    yield Piece(_event("message_stop", {}))


def _error_event(prompt: Prompt, reply: Reply, after: int) -> bytes:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    return _event("error", {"error": error, "request_id": f"req_{reply.id}"})


def _trouble(kind: str, request_id: str, after: int) -> Trouble:
    status, error_type, message, headers = {
        "unauthenticated": (401, "authentication_error", "invalid x-api-key", {"x-should-retry": "false"}),
        "bad_request": (400, "invalid_request_error", "The request body is not valid.", {"x-should-retry": "false"}),
        "not_found": (404, "not_found_error", "Not found", {"x-should-retry": "false"}),
        "rate_limited": (
            429, "rate_limit_error", "This request would exceed your organization's rate limit.",
            {"retry-after": str(after), "x-should-retry": "true"},
        ),
        "overloaded": (529, "overloaded_error", "Overloaded", {"x-should-retry": "true"}),
    }.get(kind, (500, "api_error", "Internal server error", {"x-should-retry": "true"}))  # fmt: skip
    body = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": f"req_{request_id}"}
    return Trouble(status, _compact(body), headers)


def _models() -> bytes:
    data = [{"type": "model", "id": name, "display_name": name, "created_at": "2025-09-29T00:00:00Z"} for name in MODELS]
    return _compact({"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})


def _headers(answer_id: str) -> dict[str, str]:
    return {"request-id": f"req_{answer_id}"}


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: ".encode() + _compact({"type": kind, **fields}) + b"\n\n"


def counted(length: int) -> bytes:
    """The answer to `count_tokens`."""
    return _compact({"input_tokens": length})


MESSAGES = Wire("anthropic_messages", _read, _whole, _pieces, _error_event, server_sent)
PROVIDER = Provider("anthropic", _headers, _trouble, _models)
