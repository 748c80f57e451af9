"""Anthropic messages. Input tokens on the wire EXCLUDE the cache; `message_delta` restates the usage.

Source: docs.anthropic.com/en/api/messages-streaming and recorded answers.
"""

import base64
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from analytics.simulated.turns import (
    Billed,
    Piece,
    Prompt,
    PromptCache,
    Segment,
    Tool,
    Ttl,
    Turn,
    compact,
    pieces,
    tokens,
)
from analytics.simulated.wire import Failure, Provider, Wire, decode, positive

STOP = {"stop": "end_turn", "tool": "tool_use", "length": "max_tokens"}
ERROR_TYPES: dict[Failure, str] = {
    "unauthenticated": "authentication_error",
    "invalid": "invalid_request_error",
    "not_found": "not_found_error",
    "rate_limited": "rate_limit_error",
    "overloaded": "overloaded_error",
    "internal": "api_error",
}


def error(failure: Failure, status: int, message: str, request_id: str) -> Any:
    return {"type": "error", "error": {"type": ERROR_TYPES[failure], "message": message}, "request_id": request_id}


def headers(request_id: str) -> dict[str, str]:
    return {
        "request-id": request_id,
        "anthropic-ratelimit-requests-limit": "10000",
        "anthropic-ratelimit-requests-remaining": "9999",
    }


PROVIDER = Provider(
    name="anthropic",
    credential="simulated-anthropic-credential",
    models={
        "claude-haiku-4-5": "claude-haiku-4-5-20251001",
        "claude-opus-4-8": "claude-opus-4-8",
        "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
        "claude-sonnet-5": "claude-sonnet-5",
    },
    status={
        "unauthenticated": 401,
        "invalid": 400,
        "not_found": 404,
        "rate_limited": 429,
        "overloaded": 529,
        "internal": 500,
    },
    error=error,
    headers=headers,
)


class _Request(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    max_tokens: Any = None
    stream: bool | None = None
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None


def _decode(body: bytes) -> tuple[_Request, tuple[Segment, ...]]:
    request = decode(body, _Request)
    if not request.messages:
        raise ValueError("messages: at least one message is required")
    blocks: list[Any] = [*(request.tools or []), *_blocks(request.system)]
    for message in request.messages:
        blocks += _blocks(message.get("content"))
    return request, tuple(_segment(block) for block in blocks)


def read(path: str, body: bytes) -> Prompt:
    request, segments = _decode(body)
    limit = positive(request.max_tokens)
    if limit is None:
        raise ValueError("max_tokens: Field required")
    choice = (request.tool_choice or {}).get("type")
    tools = [Tool(str(tool["name"]), tool["input_schema"]) for tool in request.tools or [] if "input_schema" in tool]
    return Prompt(
        model=request.model,
        stream=bool(request.stream),
        segments=segments,
        tools=() if choice == "none" else tuple(tools),
        must_call=choice in ("any", "tool"),
        limit=limit,
        thinks=(request.thinking or {}).get("type") in ("enabled", "adaptive"),
    )


def count(path: str, body: bytes) -> Any:
    """The answer of `/v1/messages/count_tokens`, which is free."""
    _, segments = _decode(body)
    return {"input_tokens": sum(segment.tokens for segment in segments)}


def _blocks(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [] if content is None else [{"type": "text", "text": content}]


def _segment(block: Any) -> Segment:
    """The cache mark moves from turn to turn, so it is no part of what is compared."""
    if not isinstance(block, dict):
        raise ValueError("messages.content: Input should be a valid dictionary")
    mark = block.get("cache_control")
    ttl: Ttl | None = None if not isinstance(mark, dict) else "1h" if mark.get("ttl") == "1h" else "5m"
    return Segment(compact({name: value for name, value in block.items() if name != "cache_control"}), ttl)


def bill(prompt: Prompt, cache: PromptCache) -> Billed:
    read_, written, written_1h = cache.explicit(prompt.model, prompt.segments)
    return Billed(
        input_tokens=prompt.tokens,
        cache_read_input_tokens=read_,
        cache_write_input_tokens=written,
        cache_write_1h_input_tokens=written_1h,
    )


def _input_usage(billed: Billed) -> dict[str, Any]:
    read_, written = billed.cache_read_input_tokens, billed.cache_write_input_tokens
    return {
        "input_tokens": billed.input_tokens - read_ - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read_,
    }


def _cache_creation(billed: Billed) -> dict[str, Any]:
    long = billed.cache_write_1h_input_tokens
    return {
        "cache_creation": {
            "ephemeral_5m_input_tokens": billed.cache_write_input_tokens - long,
            "ephemeral_1h_input_tokens": long,
        }
    }


def _output_usage(billed: Billed) -> dict[str, Any]:
    details = {"thinking_tokens": billed.reasoning_output_tokens}
    return {"output_tokens": billed.output_tokens, "output_tokens_details": details}


SERVED_AS = {"service_tier": "standard", "inference_geo": "global"}


def _message(turn: Turn, content: list[Any], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    head = {"model": turn.model, "id": turn.id("msg_01", 22), "type": "message", "role": "assistant"}
    return {**head, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def _content(turn: Turn) -> list[dict[str, Any]]:
    reply = turn.reply
    content: list[dict[str, Any]] = []
    if reply.thoughts:
        signature = base64.b64encode(turn.id("sig", 120).encode()).decode()
        content.append({"type": "thinking", "thinking": reply.thoughts, "signature": signature})
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    if reply.call is not None:
        arguments = msgspec.json.decode(reply.call.arguments)
        name = reply.call.name
        content.append({"type": "tool_use", "id": turn.id("toolu_01", 22), "name": name, "input": arguments})
    return content


def whole(turn: Turn) -> Any:
    usage = _input_usage(turn.billed) | _cache_creation(turn.billed) | _output_usage(turn.billed) | SERVED_AS
    return _message(turn, _content(turn), STOP[turn.reply.finish], usage)


def stream(turn: Turn) -> Iterator[Piece]:
    padding = random.Random(turn.tag)  # noqa: S311

    def event(kind: str, fields: dict[str, Any], count: int = 0) -> Piece:
        text = compact({"type": kind, **fields})[:-1] + " " * padding.randint(0, 15) + "}"
        return Piece(f"event: {kind}\ndata: {text}\n\n".encode(), count)

    begun = _input_usage(turn.billed) | _cache_creation(turn.billed) | {"output_tokens": 1} | SERVED_AS
    yield event("message_start", {"message": _message(turn, [], None, begun)})
    for index, block in enumerate(_content(turn)):
        at = {"index": index}
        yield event("content_block_start", {**at, "content_block": _empty(block)})
        if index == 0:
            yield Piece(b'event: ping\ndata: {"type": "ping"}\n\n')
        for delta, said in _deltas(turn, block):
            yield event("content_block_delta", {**at, "delta": delta}, said)
        yield event("content_block_stop", at)
    usage = _input_usage(turn.billed) | _output_usage(turn.billed)
    yield event(
        "message_delta", {"delta": {"stop_reason": STOP[turn.reply.finish], "stop_sequence": None}, "usage": usage}
    )
    yield event("message_stop", {})


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "text":
            return {"type": "text", "text": ""}
        case _:
            return {**block, "input": {}}


def _deltas(turn: Turn, block: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """(delta, output tokens in it)"""
    match block["type"]:
        case "thinking":
            for part in pieces(block["thinking"], 6):
                yield {"type": "thinking_delta", "thinking": part}, tokens(part)
            yield {"type": "signature_delta", "signature": block["signature"]}, 0
        case "text":
            for part in pieces(block["text"], 6):
                yield {"type": "text_delta", "text": part}, tokens(part)
        case _:
            assert turn.reply.call is not None
            yield {"type": "input_json_delta", "partial_json": ""}, tokens(block["name"])
            for part in pieces(turn.reply.call.arguments, 3):
                yield {"type": "input_json_delta", "partial_json": part}, tokens(part)


def break_off(turn: Turn, sent: int) -> bytes:
    body = error("overloaded", 529, "Overloaded", turn.id("req_01", 22))
    return f"event: error\ndata: {compact(body)}\n\n".encode()


WIRE = Wire("anthropic_messages", read, bill, whole, stream, break_off)
