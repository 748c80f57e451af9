"""Google's usage object, as generateContent, its live form and Vertex carry it, and the error shape.

Source: ai.google.dev/api/generate-content#UsageMetadata. Output = candidates + thoughts; the tool-use prompt is input
beside `promptTokenCount`. Enums may come as names or as numbers.
"""

from collections.abc import Mapping
from typing import Any

from gateway.call import Usage
from gateway.dialects.base import add_units, last_wins
from gateway.errors import Refusal
from gateway.reading import child, count, items, largest

IMAGE, VIDEO, AUDIO, DOCUMENT = ("IMAGE", 2), ("VIDEO", 3), ("AUDIO", 4), ("DOCUMENT", 5)
"""Modalities, by name and number."""
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


def fold_metadata(usage: Usage, data: Mapping[str, Any]) -> None:
    """Take a `usageMetadata` object, which is cumulative, into the usage."""
    prompt, tool_prompt = count(data.get("promptTokenCount")), count(data.get("toolUsePromptTokenCount"))
    candidates = largest(data.get("candidatesTokenCount"), data.get("responseTokenCount"))
    thoughts = count(data.get("thoughtsTokenCount"))
    if prompt is not None:
        usage.input_tokens = prompt + (tool_prompt or 0)
    if (prompt, candidates, thoughts) != (None, None, None):
        # Absent candidates beside another count mean that nothing was generated, which is a number.
        usage.output_tokens = (candidates or 0) + (thoughts or 0)
    add_units(usage, tool_use_prompt_tokens=tool_prompt)
    last_wins(usage, "cache_read_input_tokens", data.get("cachedContentTokenCount"))
    last_wins(usage, "reasoning_output_tokens", data.get("thoughtsTokenCount"))
    prompt_details = data.get("promptTokensDetails") or data.get("promptTokenDetails")
    output_details = data.get("candidatesTokensDetails") or data.get("responseTokensDetails")
    last_wins(usage, "audio_input_tokens", _of_modality(prompt_details, AUDIO))
    last_wins(usage, "image_input_tokens", _of_modality(prompt_details, IMAGE))
    last_wins(usage, "audio_output_tokens", _of_modality(output_details, AUDIO))
    last_wins(usage, "image_output_tokens", _of_modality(output_details, IMAGE))
    add_units(
        usage,
        cache_read_audio_tokens=_of_modality(data.get("cacheTokensDetails"), AUDIO),
        video_input_tokens=_of_modality(prompt_details, VIDEO),
        document_input_tokens=_of_modality(prompt_details, DOCUMENT),
    )


def _of_modality(details: Any, modality: tuple[str, int]) -> Any:
    entries = (child(entry) for entry in items(details))
    return next((entry.get("tokenCount") for entry in entries if entry.get("modality") in modality), None)


def refuse(refusal: Refusal) -> tuple[dict[str, str], Any]:
    """Google's error body."""
    status = GRPC_STATUS.get(refusal.status, "INTERNAL")
    return {}, {"error": {"code": refusal.status, "message": refusal.message, "status": status}}
