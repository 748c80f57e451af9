"""OpenAI responses. Events are numbered; usage stands in the terminal one."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from analytics.simulated import openai_shapes
from analytics.simulated.turns import ALPHANUMERIC, Piece, Prompt, Turn, compact, pieces, tokens
from analytics.simulated.wire import Failure, Wire, decode, positive

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


def _call(turn: Turn, status: str, arguments: str) -> dict[str, Any]:
    assert turn.reply.call is not None
    head = {"id": turn.id("fc_", 50, HEX), "type": "function_call", "status": status}
    return {**head, "arguments": arguments, "call_id": turn.id("call_", 24), "name": turn.reply.call.name}


def _output(turn: Turn) -> list[Any]:
    reply = turn.reply
    return [
        *([_reasoning(turn)] if reply.thoughts else []),
        *([_message(turn)] if reply.text else []),
        *([_call(turn, "completed", reply.call.arguments)] if reply.call else []),
    ]


def whole(turn: Turn) -> Any:
    return _response(turn, _ending(turn), _output(turn))


def stream(turn: Turn) -> Iterator[Piece]:
    reply = turn.reply
    number = iter(range(1_000_000))
    padding = random.Random(turn.tag)  # noqa: S311

    def event(kind: str, fields: dict[str, Any], count: int = 0) -> Piece:
        return Piece(_event({"type": kind, **fields, "sequence_number": next(number)}), count)

    def deltas(kind: str, text: str, at: dict[str, Any], words: int) -> Iterator[Piece]:
        for part in pieces(text, words):
            hidden = "".join(padding.choices(ALPHANUMERIC, k=padding.randint(2, 16)))
            yield event(kind, {"delta": part, **at, "obfuscation": hidden}, tokens(part))

    begun = _response(turn, "in_progress", [])
    yield event("response.created", {"response": begun})
    yield event("response.in_progress", {"response": begun})
    index = 0
    if reply.thoughts:
        yield event("response.output_item.added", {"item": _reasoning(turn), "output_index": index})
        done = {"item": _reasoning(turn), "output_index": index}
        yield event("response.output_item.done", done, reply.reasoning_tokens)
        index += 1
    if reply.text:
        yield from _stream_message(turn, index, event, deltas)
        index += 1
    if reply.call is not None:
        at = {"item_id": turn.id("fc_", 50, HEX), "output_index": index}
        item = _call(turn, "in_progress", "")
        yield event("response.output_item.added", {"item": item, "output_index": index}, tokens(reply.call.name))
        yield from deltas("response.function_call_arguments.delta", reply.call.arguments, at, 2)
        yield event("response.function_call_arguments.done", {"arguments": reply.call.arguments, **at})
        item = _call(turn, "completed", reply.call.arguments)
        yield event("response.output_item.done", {"item": item, "output_index": index})
    yield event(f"response.{_ending(turn)}", {"response": whole(turn)})


def _stream_message(
    turn: Turn, index: int, event: Callable[..., Piece], deltas: Callable[..., Iterator[Piece]]
) -> Iterator[Piece]:
    item = _message(turn)
    part = item["content"][0]
    at = {"content_index": 0, "item_id": item["id"], "output_index": index}
    added = {**item, "status": "in_progress", "content": []}
    yield event("response.output_item.added", {"item": added, "output_index": index})
    yield event("response.content_part.added", {**at, "part": {**part, "text": ""}})
    yield from deltas("response.output_text.delta", turn.reply.text, {**at, "logprobs": []}, 1)
    yield event("response.output_text.done", {**at, "logprobs": [], "text": turn.reply.text})
    yield event("response.content_part.done", {**at, "part": part})
    yield event("response.output_item.done", {"item": item, "output_index": index})


def break_off(failure: Failure, turn: Turn) -> bytes:
    """`response.failed`, without usage."""
    error = {"code": "server_error", "message": "An error occurred while processing your request."}
    failed = _response(turn, "failed", []) | {"error": error}
    return _event({"type": "response.failed", "response": failed, "sequence_number": 1_000_000})


def _event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {compact(value)}\n\n".encode()


WIRE = Wire("openai_responses", read, openai_shapes.bill, whole, stream, break_off)
