"""What the simulated OpenAI APIs share. Source: platform.openai.com/docs/api-reference and recorded answers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from analytics.simulated.turns import Billed, Prompt, PromptCache, Segment, Tool, compact
from analytics.simulated.wire import Failure, Provider

CACHE_STEP = 128
MESSAGES: dict[Failure, tuple[str, str | None]] = {
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "invalid": ("invalid_request_error", None),
    "not_found": ("invalid_request_error", "model_not_found"),
    "rate_limited": ("requests", "rate_limit_exceeded"),
    "overloaded": ("server_error", "server_is_overloaded"),
    "internal": ("server_error", None),
}


def error(failure: Failure, status: int, message: str, request_id: str) -> Any:
    kind, code = MESSAGES[failure]
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def headers(request_id: str) -> dict[str, str]:
    return {
        "x-request-id": request_id,
        "openai-version": "2020-10-01",
        "openai-processing-ms": "42",
        "x-ratelimit-limit-requests": "15000",
        "x-ratelimit-remaining-requests": "14999",
    }


PROVIDER = Provider(
    name="openai",
    credential="simulated-openai-credential",
    models={
        "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
        "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
        "gpt-5.4": "gpt-5.4-2026-03-05",
        "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
        "gpt-5.4-nano": "gpt-5.4-nano-2026-03-17",
        "gpt-5.6-sol": "gpt-5.6-sol",
        "text-embedding-3-small": "text-embedding-3-small",
        "text-embedding-3-large": "text-embedding-3-large",
    },
    status={
        "unauthenticated": 401,
        "invalid": 400,
        "not_found": 404,
        "rate_limited": 429,
        "overloaded": 503,
        "internal": 500,
    },
    error=error,
    headers=headers,
)


def reports_cache_writes(model: str) -> bool:
    """GPT-5.6 and later bill cache writes and report them."""
    found = re.match(r"gpt-(\d+)(?:\.(\d+))?", model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= (5, 6)


def thinks(model: str, effort: str | None) -> bool:
    return model.startswith(("gpt-5", "gpt-6")) and effort != "none"


def functions(tools: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """The functions among the tools: nested below `function` (chat) or flat (responses)."""
    flat = [tool.get("function", tool) for tool in tools if tool.get("type") == "function"]
    return tuple(Tool(str(tool["name"]), tool.get("parameters") or {}) for tool in flat if tool.get("name"))


def segments(tools: Iterable[Any], messages: Iterable[Any]) -> tuple[Segment, ...]:
    """Tools first, then the messages: the order in which OpenAI's cache compares."""
    return tuple(Segment(compact(part)) for part in [*tools, *messages])


def bill(prompt: Prompt, cache: PromptCache) -> Billed:
    read, written = cache.implicit(prompt.model, prompt.segments, CACHE_STEP)
    return Billed(
        input_tokens=prompt.tokens,
        cache_read_input_tokens=read,
        cache_write_input_tokens=written if reports_cache_writes(prompt.model) else 0,
    )
