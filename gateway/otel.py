"""OpenTelemetry's names for what a call was: span attributes and metrics. Pure.

GenAI semantic conventions, status Development: v1.41 of open-telemetry/semantic-conventions, the last one there, and
`latest`, those of open-telemetry/semantic-conventions-genai. The names stand here and nowhere else, as the published
constants are all marked as moved. What has no standard name is below `outlay.`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from gateway.call import NANO, Call

Generation = Literal["v1.41", "latest"]
Value = str | int | float | bool | list[str]

DURATION: Mapping[Generation, str] = {
    "v1.41": "gen_ai.client.operation.duration", "latest": "gen_ai.client.inference.duration",
}  # fmt: skip
FIRST_CHUNK: Mapping[Generation, str] = {
    "v1.41": "gen_ai.client.operation.time_to_first_chunk", "latest": "gen_ai.client.inference.time_to_first_chunk",
}  # fmt: skip
CACHE_WRITE: Mapping[Generation, str] = {
    "v1.41": "gen_ai.usage.cache_creation.input_tokens", "latest": "gen_ai.usage.cache_write.input_tokens",
}  # fmt: skip
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - a name
"""v1.41: one histogram, with the type of the tokens as an attribute."""
TOKENS = "gen_ai.client.inference.operation.{}_tokens"
"""Latest: a histogram of input, and one of output."""
TOKEN_SUMS = {
    "gen_ai.client.inference.usage.input_tokens": "input_tokens",
    "gen_ai.client.inference.usage.output_tokens": "output_tokens",
    "gen_ai.client.inference.usage.cache_read.input_tokens": "cache_read_input_tokens",
    "gen_ai.client.inference.usage.cache_write.input_tokens": "cache_write_input_tokens",
    "gen_ai.client.inference.usage.reasoning.output_tokens": "reasoning_output_tokens",
}
"""Latest: counters, and the columns that they sum."""
OWN_DURATION = "outlay.call.duration"
"""As the standard one, for answers that take longer than its buckets reach."""
COST, CALLS, UNATTRIBUTED, UNPRICED = "outlay.cost", "outlay.calls", "outlay.unattributed.cost", "outlay.unpriced.calls"

OVERHEAD, HOLDS = "outlay.overhead.duration", "outlay.holds.open"

OVERHEAD_SECONDS = [0.0001 * 2**n for n in range(13)]
SECONDS = [0.01 * 2**n for n in range(14)]
LONG_SECONDS = [*SECONDS, 163.84, 327.68, 655.36]
TOKEN_STEPS = [4.0**n for n in range(14)]
BUCKETS: Mapping[str, list[float]] = {
    **dict.fromkeys((*DURATION.values(), *FIRST_CHUNK.values()), SECONDS),
    TOKEN_USAGE: TOKEN_STEPS,
    TOKENS.format("input"): TOKEN_STEPS,
    TOKENS.format("output"): TOKEN_STEPS,
    OWN_DURATION: LONG_SECONDS,
    OVERHEAD: OVERHEAD_SECONDS,
}
"""Boundaries of the histograms."""
COUNTERS: Mapping[str, str] = {
    **dict.fromkeys(TOKEN_SUMS, "{token}"), COST: "USD", CALLS: "{call}", UNATTRIBUTED: "USD", UNPRICED: "{call}",
}  # fmt: skip
"""Units of the counters."""

USAGE: Mapping[str, str] = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cache_read_input_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_output_tokens",
    "gen_ai.usage.audio.input_tokens": "audio_input_tokens",
    "gen_ai.usage.audio.output_tokens": "audio_output_tokens",
    "gen_ai.usage.image.input_tokens": "image_input_tokens",
    "gen_ai.usage.image.output_tokens": "image_output_tokens",
}
OWN: Mapping[str, str] = {
    "outlay.call.id": "call_id", "outlay.request.id": "request_id", "outlay.attempt": "attempt",
    "outlay.ticket.id": "ticket_id", "outlay.ticket.source": "ticket_source", "outlay.ticket.state": "ticket_state",
    "outlay.task.id": "task_id", "outlay.purpose": "purpose", "outlay.team.id": "team_id", "outlay.key.id": "key_id",
    "outlay.agent": "agent", "outlay.client": "client", "outlay.price.status": "price_status",
    "outlay.usage.source": "usage_source", "outlay.budget.action": "budget_action", "outlay.refusal": "refusal",
    "outlay.result": "result", "vcs.ref.head.name": "branch", "vcs.ref.head.revision": "commit_sha",
}  # fmt: skip
"""Attributes that have a column's value; a standard name where there is one."""
REPORTED = ("reported", "partial")
"""Where the counts come from the provider."""
ENDED_WELL = ("completed", "stopped_by_budget")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Parent(NamedTuple):
    """The span that a request was sent from."""

    trace_id: int
    span_id: int
    flags: int


def parent_of(traceparent: str | None) -> Parent | None:
    """`None` for what is none (W3C Trace Context §3.2.2)."""
    found = TRACEPARENT.fullmatch(traceparent or "")
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return Parent(int(found[1], 16), int(found[2], 16), int(found[3], 16))


def span_name(call: Call) -> str:
    return f"{call.operation or 'unknown'} {call.request_model or ''}".rstrip()


def start_attributes(call: Call, base_url: str) -> dict[str, Value]:
    """What samplers see. `base_url`: the upstream's."""
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _given(
        {
            "gen_ai.operation.name": call.operation,
            "gen_ai.provider.name": call.provider,
            "gen_ai.request.model": call.request_model,
            "server.address": parts.hostname,
            "server.port": port if parts.hostname else None,  # else it was refused before anything was known
        }
    )


def error_of(call: Call) -> str | None:
    """The kind of error that a call ended with; `None` where it did not."""
    if call.result == "refused" and call.refusal is not None:
        return f"outlay.refusal.{call.refusal}"
    if (call.status or 0) >= 400:
        return str(call.status)
    return None if call.result in ENDED_WELL else call.result


def attributes(call: Call, generations: tuple[Generation, ...], *, estimates: bool, own: bool) -> dict[str, Value]:
    """What a finished call was. `estimates`: counts that nobody reported are told, too; `own`: also `outlay.*`."""
    found: dict[str, Value | None] = {
        "gen_ai.response.model": call.response_model,
        "gen_ai.response.id": call.upstream_id,
        "gen_ai.response.finish_reasons": _finish(call),
        # Sessions over a WebSocket have one that the gateway has made: a made one is none (spec).
        "gen_ai.conversation.id": call.session_id if call.operation != "realtime" else None,
        "gen_ai.request.max_tokens": call.max_output_tokens,
        "gen_ai.request.stream": call.stream or None,
        "error.type": error_of(call),
    }
    if call.stream and call.first_byte_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = call.first_byte_ms / 1000
    if call.provider in ("openai", "azure.ai.openai"):
        found["openai.response.service_tier"] = call.service_tier
        found["openai.api.type"] = {"openai_chat": "chat_completions", "openai_responses": "responses"}.get(
            call.dialect or ""
        )
    if call.usage_source in REPORTED or estimates:
        found |= {name: getattr(call, column) for name, column in USAGE.items()}
        found |= {CACHE_WRITE[each]: call.cache_write_input_tokens for each in generations}
    if own:
        found |= {name: getattr(call, column) for name, column in OWN.items()}
        found |= {
            "outlay.cost.list": None if call.list_cost_nano is None else call.list_cost_nano / NANO,
            "outlay.cost.contracted": None if call.contracted_cost_nano is None else call.contracted_cost_nano / NANO,
            **_repository(call.repo),
        }
    return _given(found)


def _finish(call: Call) -> list[str] | None:
    if call.result in ("upstream_cut", "client_cancelled", "interrupted"):
        return ["error"]
    return [call.finish_reason] if call.finish_reason else None


def _repository(repo: str | None) -> dict[str, Value | None]:
    owner, slash, name = (repo or "").rpartition("/")
    return {"vcs.repository.name": name or None, "vcs.owner.name": owner if slash else None}


def _given(found: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if value is not None}


class Measured(NamedTuple):
    """A number for one instrument."""

    instrument: str
    value: int | float
    attributes: dict[str, Value]


def measures(call: Call, base_url: str, generations: tuple[Generation, ...], *, estimates: bool) -> Iterator[Measured]:
    """What a finished call adds to the metrics. No ticket, task, user or key is among the attributes."""
    of_cost = {
        "provider": call.provider or "", "response_model": call.response_model or "", "team": call.team_id or "",
        "purpose": call.purpose or "", "ticket_source": call.ticket_source or "none",
    }  # fmt: skip
    result = {
        "provider": call.provider or "", "dialect": call.dialect or "", "result": call.result or "",
        "usage_source": call.usage_source or "", "price_status": call.price_status or "",
    }  # fmt: skip
    yield Measured(CALLS, 1, dict(result))
    if call.list_cost_nano is None:
        yield Measured(UNPRICED, 1, {"provider": of_cost["provider"], "model": call.request_model or ""})
    elif call.list_cost_nano:
        yield Measured(COST, call.list_cost_nano / NANO, dict(of_cost))
        if not call.tickets:
            yield Measured(UNATTRIBUTED, call.list_cost_nano / NANO, {"team": of_cost["team"]})
    if call.result == "refused":
        return  # no provider was asked
    if call.overhead_us is not None:
        yield Measured(OVERHEAD, call.overhead_us / 1e6, {"route": call.dialect or "", "stream": call.stream is True})
    base = start_attributes(call, base_url) | _given({"gen_ai.response.model": call.response_model})
    if call.duration_ms is not None:
        timed = base | _given({"error.type": error_of(call)})
        yield Measured(OWN_DURATION, call.duration_ms / 1000, timed)
        yield from (Measured(DURATION[each], call.duration_ms / 1000, timed) for each in generations)
    if call.stream and call.first_byte_ms is not None:
        yield from (Measured(FIRST_CHUNK[each], call.first_byte_ms / 1000, base) for each in generations)
    is_told = call.usage_source in REPORTED or estimates
    counts = {"input": call.input_tokens, "output": call.output_tokens} if is_told else {}
    for kind, number in counts.items():
        if number is not None and "v1.41" in generations:
            yield Measured(TOKEN_USAGE, number, base | {"gen_ai.token.type": kind})
        if number is not None and "latest" in generations:
            yield Measured(TOKENS.format(kind), number, base)
    if "latest" in generations:
        yield from _token_sums(call, base, is_told=is_told)


def _token_sums(call: Call, base: dict[str, Value], *, is_told: bool) -> Iterator[Measured]:
    """By modality; a call without usage counts as 0 of an unknown one."""
    for instrument, column in TOKEN_SUMS.items():
        number = getattr(call, column) if is_told else None
        special = {}
        if column in ("input_tokens", "output_tokens"):
            kind = column.partition("_")[0]
            special = (
                {modality: getattr(call, f"{modality}_{kind}_tokens") or 0 for modality in ("audio", "image")}
                if is_told
                else {}
            )
        rest = None if number is None else max(0, number - sum(special.values()))
        if rest is None:
            yield Measured(instrument, 0, base | {"gen_ai.token.modality": "unknown"})
            continue
        for modality, part in {"text": rest, **special}.items():
            if part or modality == "text":
                yield Measured(instrument, part, base | {"gen_ai.token.modality": modality})
