"""OpenAI responses. Events are numbered; usage stands in the terminal one."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from analytics.simulated import openai_shapes
from analytics.simulated.turns import ALPHANUMERIC, Piece, Prompt, ToolCall, Turn, compact, pieces, tokens
from analytics.simulated.wire import Wire, decode, positive

HEX = "0123456789abcdef"


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Request(msgspec.Struct):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    max_output_tokens: Any = None
    reasoning: _Reasoning | None = None


def read(path: str, body: bytes) -> Prompt:
    request = decode(body, _Request)
    tools = request.tools or []
    given = [request.input] if isinstance(request.input, str) else request.input
    instructions = [] if request.instructions is None else [request.instructions]
    return Prompt(
        model=request.model,
        stream=bool(request.stream),
        segments=openai_shapes.segments(tools, [*instructions, *given]),
        tools=() if request.tool_choice == "none" else openai_shapes.functions(tools),
        must_call=request.tool_choice == "required" or isinstance(request.tool_choice, dict),
        limit=positive(request.max_output_tokens),
        thinks=openai_shapes.thinks(request.model, request.reasoning.effort if request.reasoning else None),
    )


def count(path: str, body: bytes) -> Any:
    """The answer of `/v1/responses/input_tokens`, which is free."""
    return {"object": "response.input_tokens", "input_tokens": read(path, body).tokens}


def _response(turn: Turn, status: str, output: list[Any]) -> dict[str, Any]:
    """A response object; usage and the tier that served it are known only at the end."""
    billed = turn.billed
    ended = status in ("completed", "incomplete")
    usage = {
        "input_tokens": billed.input_tokens,
        "input_tokens_details": {
            "cached_tokens": billed.cache_read_input_tokens,
            "cache_write_tokens": billed.cache_write_input_tokens,
        },
        "output_tokens": billed.output_tokens,
        "output_tokens_details": {"reasoning_tokens": billed.reasoning_output_tokens},
        "total_tokens": billed.input_tokens + billed.output_tokens,
    }
    return {
        "id": turn.id("resp_", 50, HEX),
        "object": "response",
        "created_at": turn.created,
        "status": status,
        "background": False,
        "completed_at": turn.created if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": turn.prompt.limit,
        "model": turn.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium" if turn.prompt.thinks else None, "summary": None},
        "service_tier": "default" if ended else "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage if ended else None,
        "user": None,
        "metadata": {},
    }


def _ending(turn: Turn) -> str:
    return "incomplete" if turn.reply.finish == "length" else "completed"


def _reasoning(turn: Turn) -> dict[str, Any]:
    return {"id": turn.id("rs_", 50, HEX), "type": "reasoning", "summary": []}


def _message(turn: Turn) -> dict[str, Any]:
    content = {"type": "output_text", "annotations": [], "logprobs": [], "text": turn.reply.text}
    head = {"id": turn.id("msg_", 50, HEX), "type": "message", "status": _ending(turn)}
    return {**head, "content": [content], "role": "assistant"}


def _call(turn: Turn, call: ToolCall) -> dict[str, Any]:
    head = {"id": turn.id("fc_", 50, HEX), "type": "function_call", "status": "completed"}
    return {**head, "arguments": call.arguments, "call_id": turn.id("call_", 24), "name": call.name}


def _output(turn: Turn) -> list[Any]:
    reply = turn.reply
    return [
        *([_reasoning(turn)] if reply.thoughts else []),
        *([_message(turn)] if reply.text else []),
        *([_call(turn, reply.call)] if reply.call else []),
    ]


def whole(turn: Turn) -> Any:
    return _response(turn, _ending(turn), _output(turn))


class _Events:
    """Writes numbered events."""

    def __init__(self, turn: Turn) -> None:
        self._numbers = itertools.count()
        self._padding = random.Random(turn.tag)  # noqa: S311

    def one(self, kind: str, fields: dict[str, Any], count: int = 0) -> Piece:
        return Piece(_event({"type": kind, **fields, "sequence_number": next(self._numbers)}), count)

    def deltas(self, kind: str, parts: Iterator[str], at: dict[str, Any]) -> Iterator[Piece]:
        for part in parts:
            obfuscation = "".join(self._padding.choices(ALPHANUMERIC, k=self._padding.randint(2, 16)))
            yield self.one(kind, {"delta": part, **at, "obfuscation": obfuscation}, tokens(part))


def stream(turn: Turn) -> Iterator[Piece]:
    reply, events = turn.reply, _Events(turn)
    begun = _response(turn, "in_progress", [])
    yield events.one("response.created", {"response": begun})
    yield events.one("response.in_progress", {"response": begun})
    for index, item in enumerate(_output(turn)):
        at = {"output_index": index}
        if item["type"] == "message":
            yield from _stream_message(events, item, at)
        elif item["type"] == "function_call":
            yield from _stream_call(events, item, at)
        else:
            yield events.one("response.output_item.added", {"item": item, **at})
            yield events.one("response.output_item.done", {"item": item, **at}, reply.reasoning_tokens)
    yield events.one(f"response.{_ending(turn)}", {"response": whole(turn)})


def _stream_message(events: _Events, item: dict[str, Any], at: dict[str, Any]) -> Iterator[Piece]:
    part = item["content"][0]
    inner = {"content_index": 0, "item_id": item["id"], **at}
    said = {**inner, "logprobs": []}
    yield events.one("response.output_item.added", {"item": {**item, "status": "in_progress", "content": []}, **at})
    yield events.one("response.content_part.added", {**inner, "part": {**part, "text": ""}})
    yield from events.deltas("response.output_text.delta", pieces(part["text"], 1), said)
    yield events.one("response.output_text.done", {**said, "text": part["text"]})
    yield events.one("response.content_part.done", {**inner, "part": part})
    yield events.one("response.output_item.done", {"item": item, **at})


def _stream_call(events: _Events, item: dict[str, Any], at: dict[str, Any]) -> Iterator[Piece]:
    inner = {"item_id": item["id"], **at}
    begun = {**item, "status": "in_progress", "arguments": ""}
    yield events.one("response.output_item.added", {"item": begun, **at}, tokens(item["name"]))
    yield from events.deltas("response.function_call_arguments.delta", pieces(item["arguments"], 2), inner)
    yield events.one("response.function_call_arguments.done", {"arguments": item["arguments"], **inner})
    yield events.one("response.output_item.done", {"item": item, **at})


def break_off(turn: Turn, sent: int) -> bytes:
    """`response.failed`, without usage."""
    error = {"code": "server_error", "message": "An error occurred while processing your request."}
    failed = _response(turn, "failed", []) | {"error": error}
    return _event({"type": "response.failed", "response": failed, "sequence_number": sent})


def _event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {compact(value)}\n\n".encode()


WIRE = Wire("openai_responses", read, openai_shapes.bill, whole, stream, break_off)
