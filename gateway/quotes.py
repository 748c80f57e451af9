"""What a call may cost, before it is made: at most, and usually. Pure.

The most is sure: no token is shorter than a byte, every rate is taken at its highest, and the request's own maximum
bounds the output. Three things no request shows: input that it only refers to, fees by use, and the tier that the
provider puts it in by itself. Of these the highest of the last calls of the same kind is taken. What is usual is
learned from the same calls: it is what a stream reserves to begin with. Nothing of it is kept over a restart: until
something was seen, a guess stands in.
"""

from bisect import bisect_left, insort
from collections import deque
from typing import Generic, NamedTuple, TypeVar

import msgspec

from gateway.budgets import Quote
from gateway.call import Ask, Call
from gateway.prices import PriceBook
from gateway.prices.entries import tier_of
from gateway.prices.rates import Worst
from gateway.tokens import IMAGE_TOKENS_MAX

TOKENS_MAX = 128_000
"""Output of a request that states no maximum: no model that is sold writes more in one answer."""
USEFUL_TOKENS = 256
"""With less output an answer is of no use."""
GUESSED_TOKENS = 1024
"""Output of a call nothing like which was seen."""
GUESSED_BYTES_PER_TOKEN = 3
OVERHEAD_TOKENS = 1024
"""What providers add to a request: templates, descriptions of tools."""
SEEN, SEEN_MIN = 64, 4
"""So many of the last calls of a kind count, from so many on."""
QUANTILE = 0.9
KINDS_MAX = 10_000
WRITES = frozenset({"chat", "generate_content", "text_completion", "invoke_agent"})
"""Operations whose output is tokens up to the maximum of the request."""


class Most(NamedTuple):
    tokens: int
    unit: str | None = None
    """Of `Ask.units`: so many for each of them; else for the call."""


OUTPUT_MOST = {
    # gpt-image-2 at high quality and its most pixels: 96 × 96 × (2,000,000 + 8,294,400) / 4,000,000 = 23,719, by the
    # calculator at developers.openai.com/api/docs/guides/image-generation (read out at community.openai.com/t/1382699);
    # 100 for each of up to 3 partial images, and some text. gpt-image-1: 6,240.
    "image_generation": Most(24_576, "images"),
    # gpt-4o-mini-tts: USD 0.015 a minute at USD 12 a million, so 21 tokens a second (developers.openai.com/api/docs/
    # pricing); nobody reads aloud fewer than 2.5 characters a second.
    "speech": Most(8, "characters"),
    # gpt-4o-transcribe writes 2,000 tokens for a part of the recording; its context, which is for all, is 16,000
    # (developers.openai.com/api/docs/models/gpt-4o-transcribe).
    "transcription": Most(16_000),
    # gpt-realtime: 4,096 (developers.openai.com/api/docs/models/gpt-realtime); Gemini's native audio: 8,192
    # (ai.google.dev/gemini-api/docs/models).
    "realtime": Most(8_192),
}
"""The most output of operations whose requests state no maximum, as far as they are billed by tokens. The others bill
none: embeddings, pages, …"""
REFERRED_TOKENS = IMAGE_TOKENS_MAX
"""What is taken for input that a request refers to, until such a request was billed."""
REFERRED_BYTES_PER_TOKEN = 4
"""To tell what a request referred to from what stood in it: there, text has no fewer tokens than that."""

Shape = tuple[object, ...]


class Estimate(msgspec.Struct, frozen=True):
    """A quote, and what is needed to follow the call's running cost."""

    quote: Quote
    shape: Shape
    input_cost: int
    """What the input usually costs, nano-USD."""
    input_tokens: int
    """The most that it can have."""
    tokens_per_byte: float | None
    """Output tokens for each byte of the events that a stream carries them in, hidden reasoning included; `None` =
    nothing is known."""
    known_tokens: int
    """Input tokens that the request itself accounts for: more than these, it referred to."""
    known_fees: int
    """Nano-USD."""


Number = TypeVar("Number", int, float)


class Last(Generic[Number]):
    """The last values of something, and how high they are."""

    __slots__ = ("_sorted", "_values", "high")

    def __init__(self) -> None:
        self._values: deque[Number] = deque(maxlen=SEEN)
        self._sorted: list[Number] = []
        self.high: Number | None = None
        """Nine of ten are not higher. `None` while there are few."""

    def add(self, value: Number) -> None:
        oldest = self._values[0] if len(self._values) == SEEN else None
        self._values.append(value)  # which lets go of the oldest
        if oldest == value:
            return  # as most of those that never change
        if oldest is not None:
            del self._sorted[bisect_left(self._sorted, oldest)]
        insort(self._sorted, value)
        if len(self._sorted) >= SEEN_MIN:
            self.high = self._sorted[int(len(self._sorted) * QUANTILE)]

    @property
    def highest(self) -> Number:
        return self._sorted[-1]


class _Seen:
    """The last calls of a kind."""

    __slots__ = (
        "_fees", "_surplus", "_tiers", "density", "has_unknown", "highest_fees", "highest_surplus", "input_costs",
        "outputs", "tier",
    )  # fmt: skip

    def __init__(self, highest_surplus: int = 0) -> None:
        self.outputs = Last[int]()
        self.input_costs = Last[float]()
        """Nano-USD per byte of the request."""
        self.density = Last[float]()
        """Output tokens per byte of the answer's events with text."""
        self.has_unknown = False
        """Of one of them the request did not show all."""
        self._surplus = Last[int]()
        """Input tokens above the known ones."""
        self._fees = Last[int]()
        """Above the known ones, nano-USD."""
        self._tiers: deque[str | None] = deque(maxlen=SEEN)
        self.highest_surplus, self.highest_fees = highest_surplus, 0
        self.tier: str | None = None
        """One that the provider chose."""

    def add_unknown(self, surplus: int, fees: int, tier: str | None) -> None:
        """What the request did not show."""
        self._surplus.add(surplus)
        self._fees.add(fees)
        self._tiers.append(tier)
        self.highest_surplus, self.highest_fees = self._surplus.highest, self._fees.highest
        self.tier = next((each for each in self._tiers if each is not None), None)
        self.has_unknown = self.highest_surplus > 0 or self.highest_fees > 0 or self.tier is not None


UNSEEN = _Seen()
UNSEEN_REFERS = _Seen(REFERRED_TOKENS)


class Quotes:
    """Makes quotes, and learns from what calls cost in the end."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._seen: dict[Shape, _Seen] = {}

    def quote(
        self,
        call: Call,
        ask: Ask,
        region: str | None,
        request_bytes: int,
        *,
        input_tokens: int | None = None,
        stops: bool | None = None,
    ) -> Estimate | None:
        """`input_tokens`: the most that were counted in the request, where they were; else there is one in each byte.
        `stops`: false for a stream that nothing can end. `None` where the model has no price."""
        tokens = _most_output(call.operation, ask)
        # Requests for 100 tokens and for 64,000 are of different kinds.
        shape = (
            call.client, call.agent, call.provider, call.request_model, call.operation, tokens.bit_length(), ask.stream,
            ask.refers, ask.service_tier,
        )  # fmt: skip
        seen = self._seen.get(shape) or (UNSEEN_REFERS if ask.refers else UNSEEN)
        own = (request_bytes if input_tokens is None else input_tokens) + OVERHEAD_TOKENS
        most = own + seen.highest_surplus
        rates = self._worst(call, ask, ask.service_tier, region, most)
        if rates is None:
            return None
        if seen.tier is not None:
            chosen = self._worst(call, ask, seen.tier, region, most)
            rates = rates if chosen is None else Worst(*map(max, rates, chosen))
        rate, fees = rates.output, rates.fees
        fixed = fees + seen.highest_fees + most * rates.input
        usual_tokens, input_cost = _usual(seen, tokens, request_bytes, rates)
        input_cost += fees
        usual = min(fixed + tokens * rate, input_cost + usual_tokens * rate)
        quote = Quote(
            fixed=fixed,
            rate=rate,
            tokens=tokens,
            usual=usual,
            usual_tokens=usual_tokens,
            tokens_min=min(tokens, max(USEFUL_TOKENS, ask.output_tokens_min) * ask.choices),
            clamps=tokens > 0 and call.operation in WRITES,
            stops=ask.stream and stops is not False,
        )
        known = min(own, request_bytes // REFERRED_BYTES_PER_TOKEN) if ask.refers else own
        return Estimate(quote, shape, input_cost, most, seen.density.high, known, fees)

    def _worst(self, call: Call, ask: Ask, tier: str | None, region: str | None, most: int) -> Worst | None:
        return self._prices.worst(
            call.provider or "", call.request_model or "", call.started_us // 1_000_000, most,
            service_tier=tier, region=region or ask.region, units=ask.units, cached_1h=ask.may_cache == "1h",
        )  # fmt: skip

    def learn(self, call: Call, estimate: Estimate, request_bytes: int, content_bytes: int) -> None:
        """Take in a call whose usage was reported. `content_bytes`: of the answer's events with text."""
        if call.usage_source != "reported" or call.list_cost_nano is None:
            return
        if (seen := self._seen.get(estimate.shape)) is None:
            if len(self._seen) >= KINDS_MAX:
                self._seen.clear()
            seen = self._seen[estimate.shape] = _Seen()
        output_tokens = call.output_tokens or 0
        seen.outputs.add(output_tokens)
        seen.input_costs.add((call.list_cost_nano - (call.output_cost_nano or 0)) / (request_bytes or 1))
        if content_bytes:
            seen.density.add(output_tokens / content_bytes)
        surplus = (call.input_tokens or 0) - estimate.known_tokens
        fees = (call.other_cost_nano or 0) - estimate.known_fees
        tier = tier_of(call.service_tier)
        if surplus > 0 or fees > 0 or tier is not None or seen.has_unknown:
            seen.add_unknown(max(0, surplus), max(0, fees), tier)


def _most_output(operation: str | None, ask: Ask) -> int:
    if operation in WRITES:
        return (TOKENS_MAX if ask.max_output_tokens is None else ask.max_output_tokens) * ask.choices
    most = OUTPUT_MOST.get(operation or "")
    if most is None:
        return 0
    return round(most.tokens * (ask.units.get(most.unit, 1) if most.unit else 1))


def _usual(seen: _Seen, tokens: int, request_bytes: int, rates: Worst) -> tuple[int, int]:
    """Output tokens, and the cost of the input."""
    if seen.outputs.high is None or seen.input_costs.high is None:
        return min(tokens, GUESSED_TOKENS), request_bytes // GUESSED_BYTES_PER_TOKEN * rates.input
    return min(tokens, seen.outputs.high), round(seen.input_costs.high * (request_bytes or 1))
