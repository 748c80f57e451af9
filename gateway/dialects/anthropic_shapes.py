"""Anthropic's message body and events, as its own API, Vertex and Bedrock carry them.

Source: docs.anthropic.com/en/api/messages and …/messages-streaming. `input_tokens` of the wire EXCLUDES cache reads and
writes; ours includes them. In a stream `message_start` brings the input and `message_delta` restates some or all
fields: merged field by field, the last statement wins.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, SubPass, Usage
from gateway.dialects.base import add_subpasses, add_units, last_wins
from gateway.framing import Event
from gateway.reading import Count, child, count, items, text

NO_REGION = frozenset({"global", "not_available"})


def output_tokens_min(thinking: Any, maximum: int | None) -> int:
    """The least maximum that leaves room for the thinking which a request turns on."""
    if thinking is None:
        return 1
    given = child(thinking)
    return above(given.get("budget_tokens"), maximum) if given.get("type") == "enabled" else 1


def above(budget: Any, maximum: int | None) -> int:
    """A thinking budget must be smaller than the maximum, unless it may span several turns: then it is larger."""
    tokens = count(budget)
    return 1 if tokens is None or (maximum is not None and tokens >= maximum) else tokens + 1


def usage_of(usage: Usage) -> dict[str, int]:
    """The usage object that `fold_message` reads."""
    read, write = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    given = {} if usage.input_tokens is None else {
        "input_tokens": usage.input_tokens - read - write,
        "cache_creation_input_tokens": write,
        "cache_read_input_tokens": read,
    }  # fmt: skip
    return {**given, "output_tokens": usage.output_tokens or 0}


class MessageEnding:
    """Ends the content blocks that are open, then the message."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._has_begun = self._has_reason = self._has_ended = False

    def see(self, event: Mapping[str, Any]) -> None:
        kind, index = event.get("type"), count(event.get("index")) or 0
        self._has_begun = self._has_begun or kind == "message_start"
        self._has_ended = self._has_ended or kind == "message_stop"
        if kind == "content_block_start":
            self._open.append(index)
        elif kind == "content_block_stop" and index in self._open:
            self._open.remove(index)
        elif kind == "message_delta":
            self._has_reason = self._has_reason or child(event, "delta").get("stop_reason") is not None

    def events(self, usage: Usage) -> list[Event] | None:
        if not self._has_begun:
            return None
        ends: list[dict[str, Any]] = [] if self._has_ended else [{"type": "message_stop"}]
        if not self._has_reason:
            delta = {"stop_reason": "max_tokens", "stop_sequence": None}
            ends.insert(0, {"type": "message_delta", "delta": delta, "usage": usage_of(usage)})
        stops = [{"type": "content_block_stop", "index": index} for index in self._open]
        return [Event(end["type"], msgspec.json.encode(end)) for end in (*stops, *ends)]


def fold_message(answer: Answer, data: Mapping[str, Any]) -> None:
    """Take a whole message, or one event of a stream, into the answer."""
    kind = data.get("type")
    message = child(data, "message") if kind == "message_start" else data
    if kind in ("message", "message_start"):
        answer.response_model = text(message.get("model")) or answer.response_model
        answer.upstream_id = text(message.get("id")) or answer.upstream_id
    if kind in ("message", "message_start", "message_delta"):
        delta = child(data, "delta") if kind == "message_delta" else message
        answer.finish_reason = text(delta.get("stop_reason")) or answer.finish_reason
        usage = child(message, "usage")
        fast = "fast" if usage.get("speed") == "fast" else None
        answer.service_tier = fast or text(usage.get("service_tier")) or answer.service_tier
        if (region := text(usage.get("inference_geo"))) and region not in NO_REGION:
            answer.region = region
        _fold_usage(answer.usage, usage)
        if "iterations" in usage:
            _fold_iterations(answer, [child(one) for one in items(usage["iterations"])])
    elif kind == "error":
        answer.error = text(child(data, "error").get("type")) or "error"
    answer.finished = answer.finished or kind == "message_stop"


def _fold_iterations(answer: Answer, iterations: list[Mapping[str, Any]]) -> None:
    """The top level sums the passes of type `message`, not an advisor's or a compaction's. After a fallback to another
    model it has that one's numbers alone."""
    fallbacks = [one for one in iterations if one.get("type") == "fallback_message"]
    if fallbacks:
        answer.response_model = text(fallbacks[-1].get("model")) or answer.response_model
    top_level = "fallback_message" if fallbacks else "message"
    add_subpasses(answer, [_subpass(one) for one in iterations if one.get("type") != top_level])


def _subpass(iteration: Mapping[str, Any]) -> SubPass:
    usage = Usage()
    _fold_usage(usage, iteration)
    return SubPass(text(iteration.get("model")), usage)


class _Created(msgspec.Struct, frozen=True):
    ephemeral_1h_input_tokens: Count | None = None


class _Details(msgspec.Struct, frozen=True):
    thinking_tokens: Count | None = None


class _Stated(msgspec.Struct, frozen=True):
    """The counts of a usage object."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _Created | None = None
    output_tokens_details: _Details | None = None


def _stated(data: Mapping[str, Any]) -> _Stated:
    """As `count` takes them: mostly all at once, or else one by one."""
    try:
        return msgspec.convert(data, _Stated)
    except msgspec.ValidationError:
        created, details = child(data.get("cache_creation")), child(data.get("output_tokens_details"))
        return _Stated(
            count(data.get("input_tokens")),
            count(data.get("output_tokens")),
            count(data.get("cache_read_input_tokens")),
            count(data.get("cache_creation_input_tokens")),
            _Created(count(created.get("ephemeral_1h_input_tokens"))),
            _Details(count(details.get("thinking_tokens"))),
        )


def _fold_usage(usage: Usage, data: Mapping[str, Any]) -> None:
    """Recover the fresh part from what is known so far, overwrite what is restated, add up again."""
    stated = _stated(data)
    fresh, read, write = stated.input_tokens, stated.cache_read_input_tokens, stated.cache_creation_input_tokens
    had_read, had_write = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    if fresh is None and usage.input_tokens is not None:
        fresh = usage.input_tokens - (had_read or 0) - (had_write or 0)
    usage.cache_read_input_tokens = read = had_read if read is None else read
    usage.cache_write_input_tokens = write = had_write if write is None else write
    if fresh is not None:
        usage.input_tokens = fresh + (read or 0) + (write or 0)
    if stated.output_tokens is not None:
        usage.output_tokens = stated.output_tokens
    if (created := stated.cache_creation) is not None and created.ephemeral_1h_input_tokens is not None:
        usage.cache_write_1h_input_tokens = created.ephemeral_1h_input_tokens
    if (details := stated.output_tokens_details) is not None and details.thinking_tokens is not None:
        usage.reasoning_output_tokens = details.thinking_tokens
    if tools := child(data.get("server_tool_use")):
        last_wins(usage, "web_search_requests", tools.get("web_search_requests"))
        add_units(usage, code_executions=tools.get("code_execution_requests"))
