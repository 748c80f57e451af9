"""OpenAI's wire formats as recorded: chat completions, responses, embeddings.

Usage of a chat stream comes only with `stream_options.include_usage`, on a last chunk without choices; usage of a
responses stream stands in its terminal event.
"""

import base64
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

from analytics.simulated.model import Prompt, Reply, ToolSpec, Usage, deltas, segment, tokens
from analytics.simulated.wire import Piece, Provider, Trouble, Wire, server_sent, strings

MODELS = ("gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano", "gpt-5.6-sol", "text-embedding-3-small")
REASONING = ("gpt-5", "o1", "o3", "o4")
BILLS_CACHE_WRITES = ("gpt-5.6", "gpt-6")
DIMENSIONS = {"text-embedding-3-large": 3072}
SORRY = "The server had an error processing your request. Sorry about that!"


# -- chat completions ---------------------------------------------------------------------------------------------


def _read_chat(path_model: str, body: dict[str, Any]) -> Prompt:
    model, messages = _required(body, "model", str), _required(body, "messages", list)
    tools = strings(body.get("tools"))
    return Prompt(
        request=body,
        model=model,
        segments=tuple(map(segment, [*tools, *messages])),
        stream=bool(body.get("stream")),
        output_max=body.get("max_completion_tokens") or body.get("max_tokens"),
        tools=tuple(
            ToolSpec(tool["function"]["name"], tool["function"].get("parameters", {}))
            for tool in tools
            if tool.get("type") == "function"
        ),
        must_call=body.get("tool_choice", "auto") not in ("auto", "none"),
        reasons=model.startswith(REASONING) and body.get("reasoning_effort") != "none",
        bills_cache_writes=model.startswith(BILLS_CACHE_WRITES),
    )


def _chat_usage(prompt: Prompt, usage: Usage) -> dict[str, Any]:
    written = {"cache_write_tokens": usage.cache_write_input_tokens} if prompt.bills_cache_writes else {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_input_tokens, "audio_tokens": 0, **written},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_output_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish(reply: Reply) -> str:
    return "length" if reply.cut_short else "tool_calls" if reply.tool else "stop"


def _chat_whole(prompt: Prompt, reply: Reply) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    if reply.tool:
        function = {"name": reply.tool.name, "arguments": reply.arguments}
        message["tool_calls"] = [{"id": _id("call", reply), "type": "function", "function": function}]
    return _pretty(
        {
            "id": f"chatcmpl-{reply.id}",
            "object": "chat.completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}],
            "usage": _chat_usage(prompt, reply.usage),
            "service_tier": "default",
            "system_fingerprint": None,
        }
    )


def _chat_pieces(prompt: Prompt, reply: Reply) -> Iterator[Piece]:
    head = {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion.chunk",
        "created": reply.created,
        "model": reply.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }
    with_usage = bool((prompt.request.get("stream_options") or {}).get("include_usage"))
    no_usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**head, "choices": [choice], **no_usage})

    # Reasoning is not shown, so it is billed with the first chunk.
    yield Piece(chunk({"role": "assistant", "content": "", "refusal": None}), reply.usage.reasoning_output_tokens)
    for text in deltas(reply.text):
        yield Piece(chunk({"content": text}), tokens(text))
    if reply.tool:
        function = {"name": reply.tool.name, "arguments": ""}
        yield Piece(
            chunk({"tool_calls": [{"index": 0, "id": _id("call", reply), "type": "function", "function": function}]})
        )
        for text in deltas(reply.arguments):
            yield Piece(chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}), tokens(text))
    yield Piece(chunk({}, _finish(reply)))
    if with_usage:
        yield Piece(_data({**head, "choices": [], "usage": _chat_usage(prompt, reply.usage)}))
    yield Piece(b"data: [DONE]\n\n")


def _chat_error_event(prompt: Prompt, reply: Reply, after: int) -> bytes:
    return _data({"error": {"message": SORRY, "type": "server_error", "param": None, "code": "server_error"}})


# -- responses ----------------------------------------------------------------------------------------------------


def _read_responses(path_model: str, body: dict[str, Any]) -> Prompt:
    model = _required(body, "model", str)
    tools = strings(body.get("tools"))
    return Prompt(
        request=body,
        model=model,
        segments=tuple(map(segment, [*tools, *strings(body.get("instructions")), *strings(body.get("input"))])),
        stream=bool(body.get("stream")),
        output_max=body.get("max_output_tokens"),
        tools=tuple(
            ToolSpec(tool["name"], tool.get("parameters") or {}) for tool in tools if tool.get("type") == "function"
        ),
        must_call=body.get("tool_choice", "auto") not in ("auto", "none"),
        reasons=model.startswith(REASONING) and (body.get("reasoning") or {}).get("effort") != "none",
        bills_cache_writes=model.startswith(BILLS_CACHE_WRITES),
    )


def _response(prompt: Prompt, reply: Reply, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    asked = prompt.request
    done = status in ("completed", "incomplete")
    written = {"cache_write_tokens": reply.usage.cache_write_input_tokens} if prompt.bills_cache_writes else {}
    usage = {
        "input_tokens": reply.usage.input_tokens,
        "input_tokens_details": {**written, "cached_tokens": reply.usage.cache_read_input_tokens},
        "output_tokens": reply.usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.usage.reasoning_output_tokens},
        "total_tokens": reply.usage.input_tokens + reply.usage.output_tokens,
    }
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "background": False,
        "completed_at": reply.created if status == "completed" else None,
        "error": {"code": "server_error", "message": SORRY} if status == "failed" else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "max_tool_calls": None,
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "prompt_cache_key": asked.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **(asked.get("reasoning") or {})},
        "safety_identifier": None,
        "service_tier": "default" if done else "auto",
        "store": asked.get("store", True),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools") or [],
        "top_logprobs": 0,
        "top_p": 0.98,
        "truncation": "disabled",
        "usage": usage if done else None,
        "user": None,
        "metadata": asked.get("metadata") or {},
    }


def _items(reply: Reply) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.usage.reasoning_output_tokens:
        items.append({"id": _id("rs", reply), "type": "reasoning", "summary": []})
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": reply.text}
    status = "incomplete" if reply.cut_short else "completed"
    items.append({"id": _id("msg", reply), "type": "message", "status": status, "content": [part], "role": "assistant"})
    if reply.tool:
        items.append(
            {
                "id": _id("fc", reply),
                "type": "function_call",
                "status": "completed",
                "arguments": reply.arguments,
                "call_id": _id("call", reply),
                "name": reply.tool.name,
            }
        )
    return items


def _last_status(reply: Reply) -> str:
    return "incomplete" if reply.cut_short else "completed"


def _responses_whole(prompt: Prompt, reply: Reply) -> bytes:
    return _pretty(_response(prompt, reply, _last_status(reply), _items(reply)))


def _responses_pieces(prompt: Prompt, reply: Reply) -> Iterator[Piece]:
    number = 0

    def event(kind: str, fields: dict[str, Any], generated: int = 0) -> Piece:
        nonlocal number
        piece = Piece(_event(f"response.{kind}", {**fields, "sequence_number": number}), generated)
        number += 1
        return piece

    for kind in ("created", "in_progress"):
        yield event(kind, {"response": _response(prompt, reply, "in_progress", [])})
    items = _items(reply)
    for index, item in enumerate(items):
        at = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "reasoning":
                yield event("output_item.added", {"item": item, "output_index": index})
                yield event(
                    "output_item.done", {"item": item, "output_index": index}, reply.usage.reasoning_output_tokens
                )
                continue
            case "message":
                part = item["content"][0]
                at_part = {**at, "content_index": 0}
                opened = {**item, "status": "in_progress", "content": []}
                yield event("output_item.added", {"item": opened, "output_index": index})
                yield event("content_part.added", {**at_part, "part": {**part, "text": ""}})
                for text in deltas(reply.text):
                    yield event("output_text.delta", {**at_part, "delta": text, "logprobs": []}, tokens(text))
                yield event("output_text.done", {**at_part, "text": reply.text, "logprobs": []})
                yield event("content_part.done", {**at_part, "part": part})
            case _:
                opened = {**item, "status": "in_progress", "arguments": ""}
                yield event("output_item.added", {"item": opened, "output_index": index})
                for text in deltas(reply.arguments):
                    yield event("function_call_arguments.delta", {**at, "delta": text}, tokens(text))
                yield event(
                    "function_call_arguments.done", {**at, "arguments": reply.arguments, "name": item["name"]}
                )
        yield event("output_item.done", {"item": item, "output_index": index})
    status = _last_status(reply)
    yield event(status, {"response": _response(prompt, reply, status, items)})


def _responses_error_event(prompt: Prompt, reply: Reply, after: int) -> bytes:
    error = {"type": "server_error", "code": "server_error", "message": SORRY, "param": None}
    failed = _response(prompt, reply, "failed", [])
    return _event("error", {"sequence_number": after, "error": error}) + _event(
        "response.failed", {"sequence_number": after + 1, "response": failed}
    )


# -- embeddings, models, errors -----------------------------------------------------------------------------------


def embeddings(body: dict[str, Any], dice: random.Random) -> tuple[str, int, bytes]:
    """Answer an embeddings request: served model, input tokens, body. Raises `ValueError` on nonsense."""
    model = _required(body, "model", str)
    given = body.get("input")
    if not given:
        raise ValueError("you must provide 'input'")
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    length = sum(tokens(text) if isinstance(text, str) else len(text) for text in inputs)
    size = body.get("dimensions") or DIMENSIONS.get(model, 1536)
    vectors = [[dice.uniform(-0.05, 0.05) for _ in range(size)] for _ in inputs]
    as_base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": length, "total_tokens": length}
    return model, length, _pretty({"object": "list", "data": data, "model": model, "usage": usage})


def _trouble(kind: str, request_id: str, after: int) -> Trouble:
    status, error_type, code, message, headers = {
        "unauthenticated": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.", {}),
        "bad_request": (400, "invalid_request_error", None, "We could not parse your request.", {}),
        "not_found": (404, "invalid_request_error", "unknown_url", "Unknown request URL.", {}),
        "rate_limited": (
            429, "tokens", "rate_limit_exceeded", f"Rate limit reached. Please try again in {after}s.",
            {"retry-after": str(after), "retry-after-ms": str(after * 1000)},
        ),
        "overloaded": (503, "service_unavailable_error", "server_is_overloaded", "Our servers are overloaded.", {}),
    }.get(kind, (500, "server_error", None, SORRY, {}))  # fmt: skip
    error = {"message": message, "type": error_type, "param": None, "code": code}
    return Trouble(status, _pretty({"error": error}), headers)


def _models() -> bytes:
    data = [{"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "system"} for name in MODELS]
    return _pretty({"object": "list", "data": data})


def _headers(answer_id: str) -> dict[str, str]:
    return {"x-request-id": f"req_{answer_id}", "openai-version": "2020-10-01", "openai-processing-ms": "317"}


def _required(body: dict[str, Any], name: str, kind: type) -> Any:
    value = body.get(name)
    if not isinstance(value, kind) or not value:
        raise ValueError(f"missing required parameter: '{name}'")
    return value


def _id(prefix: str, reply: Reply) -> str:
    return f"{prefix}_{reply.id}"


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _data(value: Any) -> bytes:
    return b"data: " + _compact(value) + b"\n\n"


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})


CHAT = Wire("openai_chat", _read_chat, _chat_whole, _chat_pieces, _chat_error_event, server_sent)
RESPONSES = Wire(
    "openai_responses", _read_responses, _responses_whole, _responses_pieces, _responses_error_event, server_sent
)
PROVIDER = Provider("openai", _headers, _trouble, _models)
