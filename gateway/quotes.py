"""What a call may cost, before it is made: at most, and usually. Pure.

The most is sure: no token is shorter than a byte, every rate is taken at its highest, and the request's own maximum
bounds the output. Three things no request shows: input that it only refers to, fees by use, and the tier that the
provider puts it in by itself. Of these the highest of the last calls of the same kind is taken. What is usual is
learned from the same calls: it is what a stream reserves to begin with. Nothing of it is kept over a restart: until
something was seen, a guess stands in.
"""

from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

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

Shape = tuple[str | None, ...]


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


class Last:
    """The last values of something, and how high they are."""

    __slots__ = ("_sorted", "_values")

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        self._values.append(value)
        if len(self._values) > SEEN:
            if (oldest := self._values.popleft()) == value:
                return  # as most of those that never change
            del self._sorted[bisect_left(self._sorted, oldest)]
        insort(self._sorted, value)

    @property
    def highest(self) -> float:
        return self._sorted[-1]

    @property
    def high(self) -> float:
        """Nine of ten are not higher."""
        return self._sorted[int(len(self._sorted) * QUANTILE)]


class _Seen:
    """The last calls of a kind."""

    __slots__ = (
        "_density", "_fees", "_input_costs", "_outputs", "_surplus", "_tiers", "highest_fees", "highest_surplus",
        "tier", "usual_density", "usual_input", "usual_output",
    )  # fmt: skip

    def __init__(self) -> None:
        self._outputs = Last()
        self._input_costs = Last()
        """Nano-USD per byte of the request."""
        self._density = Last()
        """Output tokens per byte of the answer's events with text."""
        self._surplus = Last()
        """Input tokens above the known ones."""
        self._fees = Last()
        """Above the known ones, nano-USD."""
        self._tiers: deque[str | None] = deque(maxlen=SEEN)
        self.highest_surplus = self.highest_fees = 0
        self.tier: str | None = None
        """One that the provider chose."""
        self.usual_output: int | None = None
        self.usual_input: float | None = None
        self.usual_density: float | None = None

    def add(self, output_tokens: int, input_cost: float, content_bytes: int) -> None:
        self._outputs.add(output_tokens)
        self._input_costs.add(input_cost)
        if content_bytes:
            self._density.add(output_tokens / content_bytes)
            self.usual_density = self._density.high if len(self._density) >= SEEN_MIN else None
        if len(self._outputs) >= SEEN_MIN:
            self.usual_output, self.usual_input = int(self._outputs.high), self._input_costs.high

    def add_unknown(self, surplus: int, fees: int, tier: str | None) -> None:
        """What the request did not show."""
        self._surplus.add(surplus)
        self._fees.add(fees)
        self._tiers.append(tier)
        self.highest_surplus, self.highest_fees = int(self._surplus.highest), int(self._fees.highest)
        if tier is not None or self.tier is not None:
            self.tier = next((each for each in self._tiers if each is not None), None)


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
        provider, model = call.provider or "", call.request_model or ""
        tokens = _most_output(call.operation, ask)
        shape = (
            call.client, call.agent, provider, model, call.operation, _size_of(tokens),
            "stream" if ask.stream else None, "refers" if ask.refers else None, ask.service_tier,
        )  # fmt: skip
        seen = self._seen.get(shape)
        own = (request_bytes if input_tokens is None else input_tokens) + OVERHEAD_TOKENS
        most = own + (seen.highest_surplus if seen is not None else REFERRED_TOKENS if ask.refers else 0)
        rates = self._worst(call, ask, ask.service_tier, region, most)
        if rates is not None and seen is not None and seen.tier is not None:
            chosen = self._worst(call, ask, seen.tier, region, most)
            rates = rates if chosen is None else Worst(*map(max, rates, chosen))
        if rates is None:
            return None
        fees = rates.fees + (seen.highest_fees if seen is not None else 0)
        fixed = fees + most * rates.input
        usual_tokens, input_cost = _usual(seen, tokens, request_bytes, rates)
        usual = min(fixed + tokens * rates.output, rates.fees + input_cost + usual_tokens * rates.output)
        quote = Quote(
            fixed=fixed,
            rate=rates.output,
            tokens=tokens,
            usual=usual,
            usual_tokens=usual_tokens,
            tokens_min=min(tokens, max(USEFUL_TOKENS, ask.output_tokens_min) * ask.choices),
            clamps=tokens > 0 and call.operation in WRITES,
            stops=ask.stream and stops is not False,
        )
        known = min(own, request_bytes // REFERRED_BYTES_PER_TOKEN) if ask.refers else own
        density = seen.usual_density if seen else None
        return Estimate(quote, shape, rates.fees + input_cost, most, density, known, rates.fees)

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
        input_cost = (call.list_cost_nano - (call.output_cost_nano or 0)) / max(1, request_bytes)
        seen.add(call.output_tokens or 0, input_cost, content_bytes)
        seen.add_unknown(
            max(0, (call.input_tokens or 0) - estimate.known_tokens),
            max(0, (call.other_cost_nano or 0) - estimate.known_fees),
            tier_of(call.service_tier),
        )


def _most_output(operation: str | None, ask: Ask) -> int:
    if operation in WRITES:
        return (TOKENS_MAX if ask.max_output_tokens is None else ask.max_output_tokens) * ask.choices
    most = OUTPUT_MOST.get(operation or "")
    if most is None:
        return 0
    return round(most.tokens * (ask.units.get(most.unit, 1) if most.unit else 1))


def _usual(seen: _Seen | None, tokens: int, request_bytes: int, rates: Worst) -> tuple[int, int]:
    """Output tokens, and the cost of the input."""
    if seen is None or seen.usual_output is None or seen.usual_input is None:
        return min(tokens, GUESSED_TOKENS), request_bytes // GUESSED_BYTES_PER_TOKEN * rates.input
    return min(tokens, seen.usual_output), round(seen.usual_input * max(1, request_bytes))


def _size_of(tokens: int) -> str:
    """A class of maxima: requests for 100 tokens and for 64,000 are of different kinds."""
    return str(tokens.bit_length())
