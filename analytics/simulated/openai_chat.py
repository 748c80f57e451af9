"""OpenAI chat completions. A stream reports usage only when it is asked to, in a last chunk without choices."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from analytics.simulated import openai_shapes
from analytics.simulated.turns import ALPHANUMERIC, Piece, Prompt, Turn, compact, pieces, tokens
from analytics.simulated.wire import Wire, decode, positive

FINISH = {"stop": "stop", "tool": "tool_calls", "length": "length"}


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    reasoning_effort: str | None = None


def read(path: str, body: bytes) -> Prompt:
    request = decode(body, _Request)
    if not request.messages:
        raise ValueError("Invalid 'messages': empty array. Expected an array with minimum length 1.")
    tools = request.tools or []
    options = request.stream_options
    return Prompt(
        model=request.model,
        stream=bool(request.stream),
        segments=openai_shapes.segments(tools, request.messages),
        tools=() if request.tool_choice == "none" else openai_shapes.functions(tools),
        must_call=request.tool_choice == "required" or isinstance(request.tool_choice, dict),
        limit=positive(request.max_completion_tokens) or positive(request.max_tokens),
        thinks=openai_shapes.thinks(request.model, request.reasoning_effort),
        own=options is not None and bool(options.include_usage),
    )


def _include_usage(turn: Turn) -> bool:
    return bool(turn.prompt.own)


def _usage(turn: Turn) -> dict[str, Any]:
    billed = turn.billed
    details = {"cached_tokens": billed.cache_read_input_tokens, "audio_tokens": 0}
    if openai_shapes.reports_cache_writes(turn.model):
        details["cache_write_tokens"] = billed.cache_write_input_tokens
    return {
        "prompt_tokens": billed.input_tokens,
        "completion_tokens": billed.output_tokens,
        "total_tokens": billed.input_tokens + billed.output_tokens,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": billed.reasoning_output_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _tool_call(turn: Turn, arguments: str) -> dict[str, Any]:
    assert turn.reply.call is not None
    name = turn.reply.call.name
    return {"id": turn.id("call_", 24), "type": "function", "function": {"name": name, "arguments": arguments}}


def whole(turn: Turn) -> Any:
    reply = turn.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.call is not None:
        message["tool_calls"] = [_tool_call(turn, reply.call.arguments)]
    message |= {"refusal": None, "annotations": []}
    return {
        "id": turn.id("chatcmpl-", 29),
        "object": "chat.completion",
        "created": turn.created,
        "model": turn.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[reply.finish]}],
        "usage": _usage(turn),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def stream(turn: Turn) -> Iterator[Piece]:
    reply = turn.reply
    padding = random.Random(turn.tag)  # noqa: S311
    head = {
        "id": turn.id("chatcmpl-", 29),
        "object": "chat.completion.chunk",
        "created": turn.created,
        "model": turn.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }

    def chunk(choices: list[Any], tail: dict[str, Any], count: int = 0) -> Piece:
        obfuscation = "".join(padding.choices(ALPHANUMERIC, k=padding.randint(2, 16)))
        return Piece(_event(head | {"choices": choices} | tail | {"obfuscation": obfuscation}), count)

    def delta(fields: dict[str, Any], count: int = 0, finish: str | None = None) -> Piece:
        choice = {"index": 0, "delta": fields, "logprobs": None, "finish_reason": finish}
        return chunk([choice], {"usage": None} if _include_usage(turn) else {}, count)

    yield delta({"role": "assistant", "content": "", "refusal": None}, reply.reasoning_tokens)
    for part in pieces(reply.text, 1):
        yield delta({"content": part}, tokens(part))
    if reply.call is not None:
        yield delta({"tool_calls": [{"index": 0, **_tool_call(turn, "")}]}, tokens(reply.call.name))
        for part in pieces(reply.call.arguments, 2):
            yield delta({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}, tokens(part))
    yield delta({}, finish=FINISH[reply.finish])
    if _include_usage(turn):
        yield chunk([], {"usage": _usage(turn)})
    yield Piece(b"data: [DONE]\n\n")


def break_off(turn: Turn, sent: int) -> bytes:
    message = "The server had an error while processing your request. Sorry about that!"
    return _event(openai_shapes.error("internal", 500, message, ""))


def _event(value: Any) -> bytes:
    return f"data: {compact(value)}\n\n".encode()


WIRE = Wire("openai_chat", read, openai_shapes.bill, whole, stream, break_off)
