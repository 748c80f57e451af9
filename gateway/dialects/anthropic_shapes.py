"""Anthropic's message body and events, as its own API, Vertex and Bedrock carry them.

Source: docs.anthropic.com/en/api/messages and …/messages-streaming. `input_tokens` of the wire EXCLUDES cache reads and
writes; ours includes them. In a stream `message_start` brings the input and `message_delta` restates some or all
fields: merged field by field, the last statement wins.
"""

from collections.abc import Mapping
from typing import Any

from gateway.call import Answer
from gateway.dialects.base import last_wins
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
    stated = count(data.get("input_tokens"))
    fresh = known if stated is None else stated
    last_wins(usage, "cache_read_input_tokens", data.get("cache_read_input_tokens"))
    last_wins(usage, "cache_write_input_tokens", data.get("cache_creation_input_tokens"))
    if fresh is not None:
        usage.input_tokens = fresh + (usage.cache_read_input_tokens or 0) + (usage.cache_write_input_tokens or 0)
    one_hour = child(data, "cache_creation").get("ephemeral_1h_input_tokens")
    last_wins(usage, "cache_write_1h_input_tokens", one_hour)
    last_wins(usage, "output_tokens", data.get("output_tokens"))
    last_wins(usage, "reasoning_output_tokens", child(data, "output_tokens_details").get("thinking_tokens"))
    last_wins(usage, "web_search_requests", child(data, "server_tool_use").get("web_search_requests"))
