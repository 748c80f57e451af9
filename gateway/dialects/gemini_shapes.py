"""Google's usage object, as generateContent, its live form and Vertex carry it, and the error shape.

Source: ai.google.dev/api/generate-content#UsageMetadata. Output = candidates + thoughts; the tool-use prompt is input
beside `promptTokenCount`. Enums may come as names or as numbers.
"""

from collections.abc import Mapping
from typing import Any

from gateway.call import Usage
from gateway.dialects.base import Caller, Written, add_units, last_wins
from gateway.errors import OF_LIMITS, Refusal
from gateway.reading import child, count, items, largest

OF_INPUT: dict[str | int, str] = {
    "IMAGE": "image_input_tokens", 2: "image_input_tokens",
    "VIDEO": "video_input_tokens", 3: "video_input_tokens",
    "AUDIO": "audio_input_tokens", 4: "audio_input_tokens",
    "DOCUMENT": "document_input_tokens", 5: "document_input_tokens",
}  # fmt: skip
OF_OUTPUT: dict[str | int, str] = {
    "IMAGE": "image_output_tokens", 2: "image_output_tokens",
    "AUDIO": "audio_output_tokens", 4: "audio_output_tokens",
}  # fmt: skip
OF_CACHE: dict[str | int, str] = {"AUDIO": "cache_read_audio_tokens", 4: "cache_read_audio_tokens"}
GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def fold_metadata(usage: Usage, data: Mapping[str, Any]) -> None:
    """Take a `usageMetadata` object, which is cumulative, into the usage."""
    prompt, tool_prompt = count(data.get("promptTokenCount")), count(data.get("toolUsePromptTokenCount"))
    candidates = count(data.get("candidatesTokenCount"))
    if "responseTokenCount" in data:
        candidates = largest(candidates, data["responseTokenCount"])
    thoughts = count(data.get("thoughtsTokenCount"))
    is_stated = (prompt, candidates, thoughts) != (None, None, None)
    if tool_prompt is None:  # stated before, and left out here
        tool_prompt = int((usage.other_units or {}).get("tool_use_prompt_tokens", 0))
    if thoughts is None:
        thoughts = usage.reasoning_output_tokens
    if prompt is not None:
        usage.input_tokens = prompt + tool_prompt
    if is_stated:
        # Absent candidates beside another count mean that nothing was generated, which is a number.
        usage.output_tokens = (candidates or 0) + (thoughts or 0)
    if tool_prompt:
        add_units(usage, tool_use_prompt_tokens=tool_prompt)
    if thoughts is not None:
        usage.reasoning_output_tokens = thoughts
    if "cachedContentTokenCount" in data:
        last_wins(usage, "cache_read_input_tokens", data["cachedContentTokenCount"])
    if details := data.get("promptTokensDetails") or data.get("promptTokenDetails"):
        _fold_modalities(usage, details, OF_INPUT)
    if details := data.get("candidatesTokensDetails") or data.get("responseTokensDetails"):
        _fold_modalities(usage, details, OF_OUTPUT)
    if details := data.get("cacheTokensDetails"):
        _fold_modalities(usage, details, OF_CACHE)


def metadata_of(usage: Usage) -> dict[str, int]:
    """The `usageMetadata` object that `fold_metadata` reads."""
    tool_prompt = int((usage.other_units or {}).get("tool_use_prompt_tokens", 0))
    thoughts, read = usage.reasoning_output_tokens or 0, usage.cache_read_input_tokens or 0
    given, output = usage.input_tokens or 0, usage.output_tokens or 0
    optional = {
        "cachedContentTokenCount": read,
        "thoughtsTokenCount": thoughts,
        "toolUsePromptTokenCount": tool_prompt,
    }
    return {
        "promptTokenCount": given - tool_prompt,
        "candidatesTokenCount": output - thoughts,
        **{name: number for name, number in optional.items() if number},
        "totalTokenCount": given + output,
    }


def _fold_modalities(usage: Usage, details: Any, names: Mapping[Any, str]) -> None:
    for entry in items(details):
        modality = child(entry).get("modality")
        name = names.get(modality) if isinstance(modality, str | int) else None
        if name is None:
            continue
        if name in usage.__struct_fields__:
            last_wins(usage, name, entry.get("tokenCount"))
        else:
            add_units(usage, **{name: entry.get("tokenCount")})


def refuse(refusal: Refusal, caller: Caller) -> Written:
    """Google's error body."""
    status = GRPC_STATUS.get(refusal.status, "INTERNAL")
    error: dict[str, Any] = {"code": refusal.status, "message": refusal.message, "status": status}
    if refusal.code in OF_LIMITS:
        error["details"] = [{"@type": RETRY_INFO, "retryDelay": f"{refusal.seconds}s"}]
    return Written(refusal.status, {}, {"error": error})
