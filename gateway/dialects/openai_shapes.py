"""What OpenAI's dialects share: the usage object, body metadata and the error shape.

Source: platform.openai.com/docs/api-reference (chat, responses, embeddings).
"""

from collections.abc import Mapping
from typing import Any

from gateway.call import Usage
from gateway.errors import Refusal
from gateway.reading import child, count, text

SESSION_KEYS = ("session_id", "conversation_id", "thread_id")
TICKET_KEYS = ("outlay_ticket", "ticket", "ticket_id")


def named(metadata: Any, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that the request's own metadata holds."""
    found = child(metadata)
    return next((value for key in keys if (value := text(found.get(key)))), None)


def fold_usage(usage: Usage, data: Mapping[str, Any], input_key: str, output_key: str) -> None:
    """Take an OpenAI usage object into `usage`: input includes cached, output includes reasoning."""
    details_in = child(data, f"{input_key}_details")
    details_out = child(data, f"{output_key}_details")
    last_wins(usage, "input_tokens", data.get(input_key))
    last_wins(usage, "output_tokens", data.get(output_key))
    last_wins(usage, "cache_read_input_tokens", details_in.get("cached_tokens"))
    last_wins(usage, "cache_write_input_tokens", details_in.get("cache_write_tokens"))
    last_wins(usage, "audio_input_tokens", details_in.get("audio_tokens"))
    last_wins(usage, "reasoning_output_tokens", details_out.get("reasoning_tokens"))
    last_wins(usage, "audio_output_tokens", details_out.get("audio_tokens"))


def last_wins(usage: Usage, name: str, value: Any) -> None:
    """Set one count where the provider gave one: a stream may state it many times, the last statement is the bill."""
    number = count(value)
    if number is not None:
        setattr(usage, name, number)


def refuse(refusal: Refusal) -> tuple[dict[str, str], Any]:
    """OpenAI's error body. Its SDKs and Codex print `message` and stop."""
    error = {"message": refusal.message, "type": refusal.code, "param": None, "code": refusal.code}
    return {}, {"error": error}
