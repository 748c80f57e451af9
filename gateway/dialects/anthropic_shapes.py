"""Anthropic's message body and events, as its own API, Vertex and Bedrock carry them.

Source: docs.anthropic.com/en/api/messages and …/messages-streaming. `input_tokens` of the wire EXCLUDES cache reads and
writes; ours includes them. In a stream `message_start` brings the input and `message_delta` restates some or all
fields: merged field by field, the last statement wins.
"""

from collections.abc import Mapping
from typing import Any

from gateway.call import Answer
from gateway.reading import child, count, text


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
        answer.service_tier = text(usage.get("service_tier")) or answer.service_tier
        _fold_usage(answer, usage)
    elif kind == "error":
        answer.error = text(child(data, "error").get("type")) or "error"
    answer.finished = answer.finished or kind == "message_stop"


def _fold_usage(answer: Answer, data: Mapping[str, Any]) -> None:
    """Recover the fresh part from what is known so far, overwrite what is restated, add up again."""
    usage = answer.usage
    read, write = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    known = None if usage.input_tokens is None else usage.input_tokens - read - write
    fresh = _stated(data, "input_tokens", known)
    usage.cache_read_input_tokens = _stated(data, "cache_read_input_tokens", usage.cache_read_input_tokens)
    usage.cache_write_input_tokens = _stated(data, "cache_creation_input_tokens", usage.cache_write_input_tokens)
    if fresh is not None:
        usage.input_tokens = fresh + (usage.cache_read_input_tokens or 0) + (usage.cache_write_input_tokens or 0)
    usage.cache_write_1h_input_tokens = _stated(
        child(data, "cache_creation"), "ephemeral_1h_input_tokens", usage.cache_write_1h_input_tokens
    )
    usage.output_tokens = _stated(data, "output_tokens", usage.output_tokens)
    usage.reasoning_output_tokens = _stated(
        child(data, "output_tokens_details"), "thinking_tokens", usage.reasoning_output_tokens
    )
    usage.web_search_requests = _stated(
        child(data, "server_tool_use"), "web_search_requests", usage.web_search_requests
    )


def _stated(data: Mapping[str, Any], name: str, known: int | None) -> int | None:
    number = count(data.get(name))
    return known if number is None else number
