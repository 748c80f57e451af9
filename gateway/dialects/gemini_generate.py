"""Gemini generateContent, streamGenerateContent and embeddings.

Source: ai.google.dev/api/generate-content. `usageMetadata` is cumulative and may stand on every chunk: the last one
wins. Output = candidates + thoughts; the tool-use prompt is input beside `promptTokenCount`. A stream is SSE with
`?alt=sse`, else one growing JSON array; it has no terminal event.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, last_wins, read_request, route
from gateway.errors import Refusal
from gateway.reading import child, count, items, text

GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: Any = None


class _Request(msgspec.Struct, rename="camel"):
    contents: list[msgspec.Raw] | None = None
    tools: list[msgspec.Raw] | None = None
    generation_config: _Config | None = None


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    model, _, verb = unquote(path.rpartition("/")[2]).partition(":")
    return Ask(
        model=text(model),
        stream=verb.startswith("stream"),
        max_output_tokens=count(request.generation_config.max_output_tokens) if request.generation_config else None,
        message_count=None if request.contents is None else len(request.contents),
        tool_count=None if request.tools is None else len(request.tools),
    )


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("modelVersion")) or answer.response_model
    answer.upstream_id = text(data.get("responseId")) or answer.upstream_id
    for candidate in items(data.get("candidates")):
        answer.finish_reason = text(child(candidate).get("finishReason")) or answer.finish_reason
    answer.finish_reason = text(child(data, "promptFeedback").get("blockReason")) or answer.finish_reason
    if error := child(data, "error"):
        answer.error = text(error.get("status")) or "error"
    metadata = child(data, "usageMetadata")
    if not metadata:
        return
    usage = answer.usage
    prompt, tool_prompt = count(metadata.get("promptTokenCount")), count(metadata.get("toolUsePromptTokenCount"))
    candidates, thoughts = count(metadata.get("candidatesTokenCount")), count(metadata.get("thoughtsTokenCount"))
    if prompt is not None:
        usage.input_tokens = prompt + (tool_prompt or 0)
    if (prompt, candidates, thoughts) != (None, None, None):
        # Absent candidates beside another count mean that nothing was generated, which is a number.
        usage.output_tokens = (candidates or 0) + (thoughts or 0)
    if tool_prompt:
        usage.other_units = {"tool_use_prompt_tokens": float(tool_prompt)}
    last_wins(usage, "cache_read_input_tokens", metadata.get("cachedContentTokenCount"))
    last_wins(usage, "reasoning_output_tokens", metadata.get("thoughtsTokenCount"))
    last_wins(usage, "audio_input_tokens", _of_modality(metadata.get("promptTokensDetails"), "AUDIO"))
    last_wins(usage, "image_output_tokens", _of_modality(metadata.get("candidatesTokensDetails"), "IMAGE"))


def _of_modality(details: Any, modality: str) -> Any:
    entries = (child(entry) for entry in items(details))
    return next((entry.get("tokenCount") for entry in entries if entry.get("modality") == modality), None)


def refuse(refusal: Refusal) -> tuple[dict[str, str], Any]:
    status = GRPC_STATUS.get(refusal.status, "INTERNAL")
    return {}, {"error": {"code": refusal.status, "message": refusal.message, "status": status}}


DIALECT = Dialect(
    name="gemini_generate",
    routes=(
        route("POST", r":(generateContent|streamGenerateContent)$", "generate_content"),
        route("POST", r":(embedContent|batchEmbedContents)$", "embeddings"),
        route("POST", r":countTokens$", None),
        route("GET", r"/v1beta/models(/[^/:]+)*$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"usageMetadata"|"finishReason"|"blockReason"|"error"'),
    fold=fold,
    refuse=refuse,
)
