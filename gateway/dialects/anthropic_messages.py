"""Anthropic messages. Source: docs.anthropic.com/en/api/messages and …/messages-streaming.

`input_tokens` of the wire EXCLUDES cache reads and writes; ours includes them. In a stream `message_start` brings the
input and `message_delta` restates some or all fields: merged field by field, the last statement wins.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, read_request, route
from gateway.errors import Refusal
from gateway.reading import child, count, text

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    504: "timeout_error",
}


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Any = None
    service_tier: Any = None
    messages: list[msgspec.Raw] | None = None
    tools: list[msgspec.Raw] | None = None
    metadata: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    return Ask(
        model=text(request.model),
        stream=bool(request.stream),
        max_output_tokens=count(request.max_tokens),
        service_tier=text(request.service_tier),
        message_count=None if request.messages is None else len(request.messages),
        tool_count=None if request.tools is None else len(request.tools),
        session_id=_session(child(request.metadata).get("user_id")),
    )


def _session(user_id: Any) -> str | None:
    """Claude Code puts a JSON string with `session_id` into `metadata.user_id`."""
    if not isinstance(user_id, str) or not user_id.startswith("{"):
        return None
    try:
        return text(child(msgspec.json.decode(user_id)).get("session_id"))
    except (msgspec.DecodeError, UnicodeError):
        return None


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
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


def refuse(refusal: Refusal) -> tuple[dict[str, str], Any]:
    kind = ERROR_TYPES.get(refusal.status, "api_error")
    return {}, {"type": "error", "error": {"type": kind, "message": refusal.message}}


DIALECT = Dialect(
    name="anthropic_messages",
    routes=(
        route("POST", r"/v1/messages$", "chat"),
        route("POST", r"/v1/messages/count_tokens$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"type"\s*:\s*"(?:message_start|message_delta|message_stop|error)"'),
    fold=fold,
    refuse=refuse,
)
