"""What OpenAI's dialects share: the usage object, body metadata and the error shape.

Source: platform.openai.com/docs/api-reference (chat, responses, embeddings). Compatible servers put the same counts
under other names; each name that was seen in recorded traffic is read.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.call import NO_USAGE, Answer, Usage
from gateway.dialects.base import Caller, Written, add_units, last_wins, renamed_model
from gateway.errors import OF_BUDGETS, OF_LIMITS, Refusal
from gateway.reading import Count, child, count, text, usd

SESSION_KEYS = ("session_id", "conversation_id", "thread_id")
USD_TICKS = 10_000_000_000
"""xAI's unit of money: this many in one US dollar."""
TICKET_KEYS = ("outlay_ticket", "ticket", "ticket_id")


DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")


def azure_deployment(path: str) -> str | None:
    """The deployment that an Azure path names, which outranks a model in the body."""
    found = DEPLOYMENT.search(path)
    return text(unquote(found[1])) if found else None


def named(metadata: Any, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that the request's own metadata holds."""
    if metadata is None or not (found := child(metadata)):
        return None
    return next((value for key in keys if (value := text(found.get(key)))), None)


def ticket_in(metadata: Any) -> str | None:
    """The ticket that the request's own metadata names, whole: cut short, it would be another one."""
    if metadata is None or not (found := child(metadata)):
        return None
    return next((value for key in TICKET_KEYS if isinstance(value := found.get(key), str) and value), None)


OF_USAGE = {
    "cached_tokens": "cache_read_input_tokens",  # Together
    "num_cached_tokens": "cache_read_input_tokens",  # Mistral
    "cache_read_input_tokens": "cache_read_input_tokens",  # Venice
    "prompt_cache_hit_tokens": "cache_read_input_tokens",  # DeepSeek
    "cache_creation_input_tokens": "cache_write_input_tokens",
    "audio_prompt_tokens": "audio_input_tokens",
    "reasoning_tokens": "reasoning_output_tokens",
}
OF_INPUT = {
    "cached_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "cache_creation_input_tokens": "cache_write_input_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
OF_OUTPUT = {
    "reasoning_tokens": "reasoning_output_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}
"""What the fields of a usage object and of its details count. Where several count one thing, the largest is right."""


FEES = frozenset(
    {"server_side_tool_usage_details", "server_tool_use", "server_tool_use_details", "num_search_queries", "connectors"}
    | {"citation_tokens", "search_context_size"}
)
"""Fields that few usage objects have."""
UNUSUAL = (
    FEES
    | OF_USAGE.keys()
    | {"cache_creation"}
    | {f"{name}_token_details" for name in ("prompt", "completion", "input", "output")}
)
"""Without these, what counts are `Stated`."""


class _OfGiven(msgspec.Struct, frozen=True):
    """Fields of type `None` are unusual, too: with a value it is no object of this type."""

    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None
    cache_creation_input_tokens: None = None
    video_tokens: None = None


class _OfMade(msgspec.Struct, frozen=True):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None


class _Stated(msgspec.Struct, frozen=True):
    """The usual counts of a usage object, under the names of chat completions."""

    given: Count | None = msgspec.field(name="prompt_tokens", default=None)
    made: Count | None = msgspec.field(name="completion_tokens", default=None)
    total: Count | None = msgspec.field(name="total_tokens", default=None)
    of_given: _OfGiven | None = msgspec.field(name="prompt_tokens_details", default=None)
    of_made: _OfMade | None = msgspec.field(name="completion_tokens_details", default=None)


class _StatedAnew(_Stated, frozen=True):
    """The same under the names of responses."""

    given: Count | None = msgspec.field(name="input_tokens", default=None)
    made: Count | None = msgspec.field(name="output_tokens", default=None)
    of_given: _OfGiven | None = msgspec.field(name="input_tokens_details", default=None)
    of_made: _OfMade | None = msgspec.field(name="output_tokens_details", default=None)
    prompt_tokens_details: None = None  # video is looked for there


STATED = {"prompt_tokens": _Stated, "input_tokens": _StatedAnew}
NO_GIVEN, NO_MADE = _OfGiven(), _OfMade()


def fold_usage(answer: Answer, data: Mapping[str, Any], provider: str, input_key: str, output_key: str) -> None:
    """Take an OpenAI usage object into the answer: input includes cached, output includes reasoning."""
    if not data:
        return
    if (stated := _usual(answer, data, input_key)) is not None:
        total, given, made = stated.total, stated.of_given or NO_GIVEN, stated.of_made or NO_MADE
        answer.usage = usage = Usage(
            stated.given,
            stated.made,
            given.cached_tokens,
            given.cache_write_tokens,
            None,
            made.reasoning_tokens,
            given.audio_tokens,
            made.audio_tokens,
            given.image_tokens,
            made.image_tokens,
        )
    else:
        usage, total = answer.usage, count(data.get("total_tokens"))
        _fold_counts(usage, data, input_key, output_key)
    if usage.input_tokens is None and usage.output_tokens is None:
        usage.input_tokens = total  # all that some embedding servers report
    _take_in_what_stands_outside(usage, total, provider)
    if stated is None:
        _fold_fees(usage, data)
    if "service_tier" in data:  # Mistral
        answer.service_tier = answer.service_tier or text(data["service_tier"])
    fold_own_cost(answer, data, provider)


def _usual(answer: Answer, data: Mapping[str, Any], input_key: str) -> _Stated | None:
    """The counts of a usage object that is the first of its answer, and has no more than the usual ones, each as
    `count` would take it: then they are read at once."""
    if answer.usage != NO_USAGE or not UNUSUAL.isdisjoint(data):
        return None
    try:
        return msgspec.convert(data, STATED[input_key])
    except msgspec.ValidationError:
        return None


def _fold_counts(usage: Usage, data: Mapping[str, Any], input_key: str, output_key: str) -> None:
    """All that a usage object may count, one by one."""
    stated: dict[str, int] = {}
    _read_counts(stated, data, OF_USAGE)
    _read_counts(stated, _details(data, input_key), OF_INPUT)
    _read_counts(stated, _details(data, output_key), OF_OUTPUT)
    for name, number in stated.items():
        setattr(usage, name, number)
    last_wins(usage, "input_tokens", data.get(input_key))
    last_wins(usage, "output_tokens", data.get(output_key))
    if "cache_creation" in data:
        last_wins(usage, "cache_write_1h_input_tokens", child(data, "cache_creation").get("ephemeral_1h_input_tokens"))


def _read_counts(stated: dict[str, int], data: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for key in data.keys() & names.keys():
        if (number := count(data[key])) is not None:
            name = names[key]
            stated[name] = max(number, stated.get(name, 0))


def _details(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """`prompt_tokens_details`, or `prompt_token_details` as realtime and assistants spell it."""
    return child(data.get(f"{key}_details")) or child(data.get(f"{key[:-1]}_details"))


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


def _fold_fees(usage: Usage, data: Mapping[str, Any]) -> None:
    """What is billed per use, as OpenRouter, xAI and Perplexity count it."""
    if video := child(data.get("prompt_tokens_details")).get("video_tokens"):
        add_units(usage, video_input_tokens=video)
    if FEES.isdisjoint(data):
        return
    tools = child(data, "server_side_tool_usage_details")
    last_wins(usage, "web_search_requests", tools.get("web_search_calls"))
    for tool_use in (child(data, "server_tool_use"), child(data, "server_tool_use_details")):
        last_wins(usage, "web_search_requests", tool_use.get("web_search_requests"))
    last_wins(usage, "web_search_requests", data.get("num_search_queries"))
    last_wins(usage, "web_search_requests", child(data, "connectors").get("web_search"))  # Mistral
    add_units(
        usage,
        social_searches=tools.get("x_search_calls"),
        code_executions=tools.get("code_interpreter_calls"),
        attachment_searches=tools.get("document_search_calls"),
        file_searches=tools.get("file_search_calls"),
        citation_tokens=data.get("citation_tokens"),
    )
    if size := text(data.get("search_context_size")):
        add_units(usage, **{f"search_context_{size.lower()}": 1})


STATE_COSTS = frozenset({"openrouter", "x_ai", "perplexity"})


def fold_own_cost(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    """What the provider itself says the answer cost, beside the counts of its usage object `data`."""
    if provider not in STATE_COSTS:
        return
    cost = _own_cost(data, provider)
    answer.provider_cost_nano = answer.provider_cost_nano if cost is None else cost


def _own_cost(data: Mapping[str, Any], provider: str) -> int | None:
    """Only from those for whom the field is the bill: others relay it as a placeholder."""
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


def fold_error(answer: Answer, data: Mapping[str, Any]) -> None:
    """An error inside an answer of status 200: its kind, never its text."""
    if error := data.get("error"):
        found = child(error)
        answer.error = text(found.get("type")) or text(found.get("code")) or "error"


def refuse(refusal: Refusal, caller: Caller) -> Written:
    """OpenAI's error body. Its SDKs print `message` and stop; budgets are a 400, at which no tool tries again."""
    kind, code = ("requests", "rate_limit_exceeded") if refusal.code in OF_LIMITS else (refusal.code, refusal.code)
    status = 400 if refusal.code in OF_BUDGETS else refusal.status
    return Written(status, {}, {"error": {"message": refusal.message, "type": kind, "param": None, "code": code}})


def usage_of(usage: Usage, input_key: str, output_key: str) -> dict[str, Any]:
    """The usage object that `fold_usage` reads."""
    read, reasoning = usage.cache_read_input_tokens or 0, usage.reasoning_output_tokens or 0
    given, written = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        input_key: given,
        f"{input_key}_details": {"cached_tokens": read},
        output_key: written,
        f"{output_key}_details": {"reasoning_tokens": reasoning},
        "total_tokens": given + written,
    }


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """Of a request that names its model in the body, or in an Azure path."""
    return renamed_model(path, body, model, in_path=DEPLOYMENT)
