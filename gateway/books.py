"""Bookkeeping: what the meter saw becomes usage, the usage becomes money, and the money is recorded, exactly once,
however the call ended."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from gateway import actions
from gateway.admission import HEADROOM, Grant
from gateway.asking import Admitted, Asking, Request
from gateway.call import Answer, Ask, Call, Cost, Result, Usage
from gateway.config import PriceSettings
from gateway.dialects.base import Dialect
from gateway.late import Late
from gateway.meter import Meter
from gateway.owner import Owner, Results
from gateway.prices import PriceBook
from gateway.shape import Shape
from gateway.telemetry import Telemetry
from gateway.texts import written_by_model
from gateway.tokens import Estimator

log = logging.getLogger("outlay")

READ_BY_A_MODEL = frozenset({"chat", "generate_content", "text_completion", "invoke_agent", "embeddings", "rerank"})
"""Operations whose input can be estimated from the request's text."""
WRITTEN_BY_A_MODEL = READ_BY_A_MODEL - {"embeddings", "rerank"}

LOOK_BYTES = 1024
"""The running cost of a stream is looked at again after so much more text, or when its hold may be used up."""
GUESSED_CHARS_PER_TOKEN, GUESSED_DENSITY = 2.5, 1 / 12
"""Few models write tokens that are shorter, and few events carry one in fewer bytes."""

LEARN_SECONDS, LEARNED_BYTES_MAX = 5.0, 64 * 1024
"""After so long the next reported call of a model is estimated too, if its request is no larger."""
MODELS_MAX = 1000


class OpenCall(msgspec.Struct, eq=False):
    """A call between its two records: all that is needed to close it, however it ends."""

    call: Call
    dialect: Dialect | None
    ask: Ask
    request: bytes
    """The decoded body, for estimates."""
    region: str | None
    """Where the upstream computes, as far as settings and address tell."""
    admitted: Admitted | None
    """What its budgets hold for it; `None` where no budget covers it."""
    shape: Shape
    meter: Meter
    is_answered: bool = False
    free_without_usage: bool = False
    """When no usage comes it certainly cost nothing: the provider refused it, or was not reached."""
    came_whole: bool = False
    """The answer came whole."""
    closing: asyncio.Task[None] | None = None
    """Set while the close record waits for an estimate."""
    began: float = msgspec.field(default_factory=time.perf_counter)

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer is there. The first time counts."""
        if not self.is_answered:
            self.is_answered = True
            self.call.status, self.call.first_byte_ms, self.free_without_usage = status, self.ms(), status >= 300
            self.meter.begin(headers)

    @property
    def is_closed(self) -> bool:
        return self.call.result is not None

    def ms(self) -> int:
        return round((time.perf_counter() - self.began) * 1000)


class Books:
    """Prices and closes calls."""

    def __init__(
        self,
        settings: PriceSettings,
        prices: PriceBook,
        owner: Owner,
        late: Late,
        estimator: Estimator,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._prices = prices
        self._owner = owner
        self.late = late
        """What is billed in a later answer."""
        self._estimator = estimator
        self._telemetry = telemetry
        self._open: set[OpenCall] = set()
        self._learns_from: dict[tuple[str, str], float] = {}
        """When the next call is compared, by provider and model."""
        self._learning: asyncio.Task[None] | None = None

    async def open(self, call: Call, asking: Asking, may_go_on: Callable[[], object]) -> OpenCall:
        """Admit a call to its budgets and limits, and record that it is about to be forwarded. Raises refusals, and has
        done nothing then. `may_go_on`: see `Request`."""
        request = Request(asking, call.request_model, self._estimator, may_go_on)
        grant = await self._owner.open(call, asking.wanted, request)
        admitted = None if grant is None else asking.admitted(grant)
        meter = Meter(asking.dialect, call.provider or "", {})
        open_call = OpenCall(
            call, asking.dialect, asking.ask, asking.body, asking.region, admitted, asking.shape, meter
        )
        self._open.add(open_call)
        return open_call

    async def close(self, open_call: OpenCall, result: Result) -> None:
        """Record a call, and wait for the disk where the settings say so. The first time only.

        What the provider did not report is estimated, unless nobody knows whether it took the request at all. That
        takes a moment, and goes on when the caller is cancelled meanwhile.
        """
        if open_call.closing is not None:
            await asyncio.shield(open_call.closing)
        elif not open_call.is_closed:
            answer = open_call.meter.finish()
            whole = _is_whole(open_call, answer, result)
            unknown = result == "upstream_error" and not open_call.is_answered
            if whole or open_call.free_without_usage or unknown:
                await self._record(open_call, result, answer, answer.usage, whole=whole)
            else:
                open_call.closing = asyncio.create_task(self._close_estimated(open_call, result, answer))
                await asyncio.shield(open_call.closing)

    async def _close_estimated(self, open_call: OpenCall, result: Result, answer: Answer) -> None:
        usage = await self._estimate(open_call, answer)
        await self._record(open_call, result, answer, usage, whole=False)

    async def stop(self) -> None:
        """Close what is still open: the process ends."""
        while self._open:
            await asyncio.gather(*(self.close(open_call, "interrupted") for open_call in self._open))

    def not_metered(self, dialect: str, error: Exception) -> None:
        """Count an answer, or a part of one, that could not be read."""
        self._telemetry.meter_failures.labels(dialect, type(error).__name__).inc()

    async def _record(self, open_call: OpenCall, result: Result, answer: Answer, usage: Usage, *, whole: bool) -> None:
        """Everything is done when this waits for the first time, which is for the owner's word that it is recorded."""
        self._open.discard(open_call)
        call, meter = open_call.call, open_call.meter
        failed = result == "completed" and (answer.error is not None or (call.status or 0) >= 400)
        call.result = "upstream_error" if failed else result
        call.duration_ms, call.response_bytes = open_call.ms(), meter.bytes_seen
        call.response_model, call.finish_reason = answer.response_model, answer.finish_reason
        call.service_tier, call.upstream_id = answer.service_tier or call.service_tier, answer.upstream_id
        call.provider_cost_nano = answer.provider_cost_nano
        if not open_call.free_without_usage and usage.input_tokens is None and usage.output_tokens is None:
            # What the request or the answer itself shows: characters spoken, images made.
            shown = {**open_call.ask.units, **answer.units, **(usage.other_units or {})}
            usage = msgspec.structs.replace(usage, other_units=shown or None)
        if whole:
            call.usage_source = "reported"
        elif is_reported(answer):
            call.usage_source = "partial"
        else:
            call.usage_source = "estimated" if usage.reported() else "none"
        set_usage(call, usage)
        _set_shape(open_call, answer)
        if open_call.free_without_usage and call.usage_source == "none":
            call.list_cost_nano = call.contracted_cost_nano = 0
        else:
            set_cost(call, self.price(call, answer, usage, open_call.region))
        if meter.failed is not None:
            self._telemetry.meter_failures.labels(call.dialect or "", meter.failed).inc()
        is_sure = whole and answer.error is None
        told = self._owner.close(
            call,
            meter.content_bytes if is_sure else None,
            is_pending=answer.pending and answer.upstream_id is not None,
        )
        if is_sure:
            self._learn_from(open_call, answer)
        remaining = await told
        if open_call.admitted is not None:
            open_call.admitted.remaining_nano = remaining

    def price(self, call: Call, answer: Answer, usage: Usage, region: str | None, *, batch: bool = False) -> Cost:
        """What a usage costs, by the price policy."""
        cost = self._prices.price(
            call.provider or "",
            (answer.response_model, call.request_model),
            usage,
            datetime.fromtimestamp(call.started_us / 1e6, UTC),
            service_tier=answer.service_tier or call.service_tier,
            batch=batch,
            region=region or answer.region,
            subpasses=answer.subpasses,
            reported_nano=answer.provider_cost_nano,
        )
        if cost.guessed_model and self._settings.policy == "allow":
            return Cost("unpriced", cost.price_book)
        return cost

    async def refuse(self, call: Call) -> None:
        """Record a call that was refused; nothing was billed for it."""
        call.result, call.usage_source = "refused", "none"
        call.list_cost_nano = call.contracted_cost_nano = 0
        await self._owner.refuse(call)

    async def book(self, results: Results) -> bool:
        """Record results of a batch: see `Owner.book`."""
        return await self._owner.book(results)

    async def settle(self, key: str, answer: Answer, region: str | None) -> None:
        """Correct the record of work in the background, now that it has ended and its usage is known. Harmless when
        repeated. Raises `OSError`."""
        expected = self.late.find(key)
        ended = answer.finish_reason is not None and not answer.pending
        if expected is None or not expected.booked_us or not ended or not is_reported(answer):
            return
        call = msgspec.structs.replace(expected.call, usage_source="reported")
        call.response_model, call.finish_reason = answer.response_model or call.response_model, answer.finish_reason
        call.service_tier = answer.service_tier or call.service_tier
        call.provider_cost_nano = answer.provider_cost_nano
        set_usage(call, answer.usage)
        set_cost(call, self.price(call, answer, answer.usage, region))
        await self._owner.correct(key, call)

    async def _estimate(self, open_call: OpenCall, answer: Answer) -> Usage:
        """The reported usage with what is missing filled in, as far as anything can be said."""
        call, meter, usage = open_call.call, open_call.meter, msgspec.structs.replace(answer.usage)
        provider, model = call.provider or "", answer.response_model or call.request_model
        if call.operation in READ_BY_A_MODEL and usage.input_tokens is None:
            usage.input_tokens = await self._estimator.request_tokens(provider, model, open_call.request)
        if answer.pending and not open_call.ask.stream:
            return usage  # nothing was written yet
        cut_short = usage.output_tokens is None or not (open_call.came_whole or answer.finished)
        if call.operation in WRITTEN_BY_A_MODEL and meter.content_bytes and cut_short:
            written = await self._estimator.answer_tokens(provider, model, meter.sample, meter.content_bytes)
            admitted = open_call.admitted
            if admitted is not None and admitted.grant.tokens_per_byte is not None:
                # What its budgets were told while it ran: with the reasoning that such answers usually hide.
                written = max(written, self._usage_so_far(open_call, admitted.grant).output_tokens or 0)
            usage.output_tokens = max(written, usage.output_tokens or 0)
        return usage

    def _learn_from(self, open_call: OpenCall, answer: Answer) -> None:
        """Compare an estimate with what was reported, for a call of each model now and then, beside the work."""
        call, meter, now = open_call.call, open_call.meter, time.monotonic()
        key = call.provider or "", answer.response_model or ""
        if now < self._learns_from.get(key, 0.0) or (self._learning is not None and not self._learning.done()):
            return
        if call.operation not in WRITTEN_BY_A_MODEL or len(open_call.request) > LEARNED_BYTES_MAX:
            return
        if len(self._learns_from) > MODELS_MAX:
            self._learns_from.clear()
        self._learns_from[key] = now + LEARN_SECONDS
        self._learning = asyncio.create_task(
            self._estimator.learn(
                *key,
                body=open_call.request,
                input_tokens=answer.usage.input_tokens,
                sample=meter.sample,
                total_bytes=meter.content_bytes,
                output_tokens=answer.usage.output_tokens,
            ),
            name="learning",
        )

    def is_near(self, open_call: OpenCall) -> bool:
        """True when what its budgets hold for a stream may be used up: see whether it `keeps_up`."""
        admitted = open_call.admitted
        if admitted is None or open_call.is_closed or open_call.meter.content_bytes < admitted.enough_to:
            return False
        return admitted.grant.rate is not None

    async def keeps_up(self, open_call: OpenCall) -> bool:
        """Compare what a stream has cost so far with what its budgets hold for it. False when they cannot hold more:
        the stream has to be ended."""
        admitted, meter = open_call.admitted, open_call.meter
        if admitted is None or (rate := admitted.grant.rate) is None:
            return True
        grant, cost = admitted.grant, self._running_cost(open_call, admitted.grant)
        if min(int(cost * HEADROOM), grant.ceiling) > grant.amount:
            if (amount := await self._owner.grow(open_call.call, cost)) is None:
                return False
            grant.amount = open_call.call.held_nano = amount
        if grant.amount == grant.ceiling:
            admitted.enough_to = sys.maxsize
        else:
            more = (grant.amount - cost) / max(1, rate) / _density(meter, grant) / 2  # the rest may be denser
            admitted.enough_to = meter.content_bytes + max(LOOK_BYTES, int(more))
        return True

    def _running_cost(self, open_call: OpenCall, grant: Grant) -> int:
        """Nano-USD: what the provider has reported up to now, and for the text since then what such text usually is."""
        meter, so_far = open_call.meter, self._usage_so_far(open_call, grant)
        tokens = so_far.output_tokens or 0
        if so_far.input_tokens is not None:
            cost = self.price(open_call.call, meter.answer, so_far, open_call.region).contracted_nano
            if cost is not None:
                return cost
        return grant.input_cost + tokens * (grant.rate or 0)

    def _usage_so_far(self, open_call: OpenCall, grant: Grant) -> Usage:
        meter, usage = open_call.meter, open_call.meter.answer.usage
        tokens = max(usage.output_tokens or 0, round(meter.content_bytes * _density(meter, grant)))
        return msgspec.structs.replace(usage, output_tokens=tokens)

    def ending(self, open_call: OpenCall) -> bytes | None:
        """What ends the stream now as if its maximum had been reached; `None` where it can only be broken off."""
        admitted, usage = open_call.admitted, open_call.meter.answer.usage
        if admitted is not None and admitted.grant.rate is not None:
            usage = self._usage_so_far(open_call, admitted.grant)
        return open_call.meter.end(usage)


def is_reported(answer: Answer) -> bool:
    """True when the provider gave any number."""
    return answer.usage.reported() or answer.provider_cost_nano is not None


def _is_whole(open_call: OpenCall, answer: Answer, result: Result) -> bool:
    """True when the provider's numbers are all there is to know."""
    if answer.pending:
        return False
    ended = answer.finished or (answer.error is None and (open_call.came_whole or result == "completed"))
    usage, operation = answer.usage, open_call.call.operation
    meter = open_call.meter
    lacks_input = usage.input_tokens is None and operation in READ_BY_A_MODEL
    lacks_output = usage.output_tokens is None and operation in WRITTEN_BY_A_MODEL and meter.content_bytes > 0
    is_enough = not (lacks_input or lacks_output) or bool(usage.other_units)
    return is_reported(answer) and ended and meter.failed is None and is_enough


def _density(meter: Meter, grant: Grant) -> float:
    """Output tokens for each byte of a stream's events with text."""
    if grant.tokens_per_byte:
        return grant.tokens_per_byte
    sample = meter.sample
    seen = sum(map(len, sample))
    written = sum(map(len, written_by_model(sample).parts)) if seen else 0
    return written / GUESSED_CHARS_PER_TOKEN / seen if written else GUESSED_DENSITY


# -- usage and cost on the record -------------------------------------------------------------------------------------


def set_usage(call: Call, usage: Usage) -> None:
    (
        call.input_tokens, call.output_tokens, call.cache_read_input_tokens, call.cache_write_input_tokens,
        call.cache_write_1h_input_tokens, call.reasoning_output_tokens, call.audio_input_tokens,
        call.audio_output_tokens, call.image_input_tokens, call.image_output_tokens, call.web_search_requests,
        call.other_units,
    ) = msgspec.structs.astuple(usage)  # fmt: skip


def _set_shape(open_call: OpenCall, answer: Answer) -> None:
    """What became of the request's shape: tokens for its parts, and what tools the answer calls."""
    call, shape = open_call.call, open_call.shape
    if shape.prefix_hash is not None and (tokens := call.input_tokens) is not None:
        call.prefix_tokens = round(tokens * shape.prefix_part)
        call.tool_schema_tokens = round(tokens * shape.tools_part)
    is_read = (
        open_call.dialect is not None
        and open_call.is_answered
        and open_call.meter.failed is None
        and not answer.pending  # else it comes with a later answer
    )
    if is_read and call.operation in WRITTEN_BY_A_MODEL and (call.status or 0) < 400:
        call.tool_calls, call.edits = actions.counted(answer.tools, call.client)


def add_cost(a: Cost, b: Cost) -> Cost:
    """Two costs at one price, part by part."""
    parts = {
        name: None if (left := getattr(a, name)) is None else left + (getattr(b, name) or 0)
        for name in Cost.__struct_fields__
        if name.endswith("_nano")
    }
    return msgspec.structs.replace(a, **parts)


def set_cost(call: Call, cost: Cost) -> None:
    (
        call.price_status, call.price_book, call.price_id, call.list_cost_nano, call.input_cost_nano,
        call.cache_read_cost_nano, call.cache_write_cost_nano, call.output_cost_nano, call.other_cost_nano,
        call.contracted_cost_nano, _,
    ) = msgspec.structs.astuple(cost)  # fmt: skip
