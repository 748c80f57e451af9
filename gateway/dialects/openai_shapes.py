"""What OpenAI's dialects share: the usage object, body metadata and the error shape.

Source: platform.openai.com/docs/api-reference (chat, responses, embeddings).
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.call import Answer, Usage
from gateway.dialects.base import last_wins
from gateway.errors import Refusal
from gateway.reading import child, count, text, usd

SESSION_KEYS = ("session_id", "conversation_id", "thread_id")
USD_TICKS = 10_000_000_000
"""xAI's unit of money: this many in one US dollar."""
TICKET_KEYS = ("outlay_ticket", "ticket", "ticket_id")


def named(metadata: Any, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that the request's own metadata holds."""
    found = child(metadata)
    return next((value for key in keys if (value := text(found.get(key)))), None)


def fold_usage(answer: Answer, data: Mapping[str, Any], provider: str, input_key: str, output_key: str) -> None:
    """Take an OpenAI usage object into the answer: input includes cached, output includes reasoning."""
    usage = answer.usage
    details_in = child(data, f"{input_key}_details")
    details_out = child(data, f"{output_key}_details")
    last_wins(usage, "input_tokens", data.get(input_key))
    last_wins(usage, "output_tokens", data.get(output_key))
    last_wins(usage, "cache_read_input_tokens", details_in.get("cached_tokens"))
    last_wins(usage, "cache_write_input_tokens", details_in.get("cache_write_tokens"))
    last_wins(usage, "audio_input_tokens", details_in.get("audio_tokens"))
    last_wins(usage, "reasoning_output_tokens", details_out.get("reasoning_tokens"))
    last_wins(usage, "audio_output_tokens", details_out.get("audio_tokens"))
    if usage.input_tokens is None and usage.output_tokens is None:
        last_wins(usage, "input_tokens", data.get("total_tokens"))  # all that some embedding servers report
    _take_in_what_stands_outside(usage, count(data.get("total_tokens")), provider)
    cost = _own_cost(data, provider)
    answer.provider_cost_nano = answer.provider_cost_nano if cost is None else cost


def _take_in_what_stands_outside(usage: Usage, total: int | None, provider: str) -> None:
    """Some servers count reasoning or audio beside the two totals; the grand total gives it away."""
    if total is None or usage.input_tokens is None or usage.output_tokens is None:
        return
    outside = total - usage.input_tokens - usage.output_tokens
    if outside <= 0:
        return
    if outside == usage.reasoning_output_tokens:
        usage.output_tokens += outside
    elif outside == usage.audio_input_tokens:
        usage.input_tokens += outside
    elif provider.startswith("gcp."):  # Google's compatible endpoint names its thinking nowhere else
        usage.output_tokens += outside
        usage.reasoning_output_tokens = outside


def _own_cost(data: Mapping[str, Any], provider: str) -> int | None:
    """What the provider itself says the answer cost. Only from those for whom the field is the bill: others relay it
    as a placeholder."""
    match provider:
        case "openrouter":
            # 0 with the customer's own key at the vendor: the bill then comes from there.
            own = usd(data.get("cost"))
            return own or usd(child(data, "cost_details").get("upstream_inference_cost")) or own
        case "x_ai":
            ticks = count(data.get("cost_in_usd_ticks"))
            return None if ticks is None else usd(Decimal(ticks) / USD_TICKS)
        case "perplexity":
            return usd(child(data, "cost").get("total_cost"))
        case _:
            return None


def refuse(refusal: Refusal) -> tuple[dict[str, str], Any]:
    """OpenAI's error body. Its SDKs and Codex print `message` and stop."""
    error = {"message": refusal.message, "type": refusal.code, "param": None, "code": refusal.code}
    return {}, {"error": error}
