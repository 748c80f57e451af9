"""Realtime sessions over a WebSocket, OpenAI's and Gemini's live form: each response of a session is its own bill, so
their counts are added up.

Source: platform.openai.com/docs/api-reference/realtime-server-events, ai.google.dev/api/live. What was said to the
model is transcribed by another model, billed beside it: a sub-pass.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from gateway.call import Answer, Ask, SubPass
from gateway.dialects.base import Dialect, add_subpasses, add_units, add_usage, route
from gateway.dialects.gemini_shapes import fold_metadata
from gateway.dialects.openai_shapes import fold_usage, refuse
from gateway.errors import Refusal
from gateway.reading import amount, child, text

TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


def read_ask(path: str, body: bytes) -> Ask:
    """The model stands in the query: `path` must have it."""
    query = parse_qs(path.partition("?")[2])
    named = query.get("model", []) + query.get("deployment", [])
    if len(named) > 1:
        raise Refusal("request_unreadable", "The query names more than one model.")
    return Ask(model=text(named[0]) if named else None, stream=True, refers=True)


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    kind = text(data.get("type")) or ""
    session = child(data, "session") or child(data, "setup")
    answer.response_model = text(session.get("model")) or answer.response_model
    transcription = child(session, "audio", "input", "transcription") or child(session, "input_audio_transcription")
    answer.tool_model = text(transcription.get("model")) or answer.tool_model
    if kind == "error":
        answer.error = text(child(data, "error").get("code")) or text(child(data, "error").get("type")) or "error"
    one = Answer()
    if kind == "response.done":
        response = child(data, "response")
        answer.upstream_id = text(response.get("id")) or answer.upstream_id
        answer.finish_reason = text(response.get("status")) or answer.finish_reason
        fold_usage(one, child(response, "usage"), provider, "input_tokens", "output_tokens")
        cached = child(response, "usage", "input_token_details", "cached_tokens_details")
        add_units(one.usage, cache_read_audio_tokens=cached.get("audio_tokens"))
        if seconds := amount(child(data, "usage").get("billable_audio_seconds")):  # xAI
            answer.units = {"seconds": answer.units.get("seconds", 0.0) + seconds}
    elif "usageMetadata" in data:
        answer.finish_reason = "turn_complete"
        fold_metadata(one.usage, child(data, "usageMetadata"))
    elif kind == TRANSCRIBED:
        usage = child(data, "usage")
        fold_usage(one, usage, provider, "input_tokens", "output_tokens")
        add_units(one.usage, seconds=usage.get("seconds"))
        if one.usage.reported():
            add_subpasses(answer, [*answer.subpasses, SubPass(answer.tool_model or "transcription", one.usage)])
        return
    add_usage(answer.usage, one.usage)


DIALECT = Dialect(
    name="openai_realtime",
    routes=(
        route("GET", r"/realtime$", "realtime"),
        route("GET", r"[./]BidiGenerateContent$", "realtime"),
    ),
    read_ask=read_ask,
    may_matter=re.compile(
        rb'"type"\s*:\s*"(?:session\.(?:created|updated)|response\.done|error'
        rb'|[\w.]*input_audio_transcription\.completed)"|"usageMetadata"\s*:'
    ),
    fold=fold,
    refuse=refuse,
)
