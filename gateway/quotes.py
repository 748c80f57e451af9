"""What a call may cost, before it is made: at most, and usually. Pure.

The most is sure: no token is shorter than a byte, every rate is taken at its highest, and the request's own maximum
bounds the output. What is usual is learned from the calls of the same client, model and shape: it is what a stream
reserves to begin with. Nothing of it is kept over a restart: until something was seen, a guess from the price book
stands in.
"""

from collections import deque
from typing import NamedTuple

from gateway.budgets import Quote
from gateway.call import Ask, Call
from gateway.prices import PriceBook
from gateway.prices.rates import Worst

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
WRITES = frozenset({"chat", "generate_content", "text_completion", "invoke_agent", "realtime"})
"""Operations whose output is tokens up to a maximum."""

Shape = tuple[str | None, ...]


class Estimate(NamedTuple):
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


class _Seen:
    """The last calls of a kind."""

    __slots__ = ("density", "input_costs", "outputs", "usual_density", "usual_input", "usual_output")

    def __init__(self) -> None:
        self.outputs: deque[int] = deque(maxlen=SEEN)
        self.input_costs: deque[float] = deque(maxlen=SEEN)
        """Nano-USD per byte of the request."""
        self.density: deque[float] = deque(maxlen=SEEN)
        """Output tokens per byte of the answer's events with text."""
        self.usual_output: int | None = None
        self.usual_input: float | None = None
        self.usual_density: float | None = None

    def add(self, output_tokens: int, input_cost: float, content_bytes: int) -> None:
        self.outputs.append(output_tokens)
        self.input_costs.append(input_cost)
        if content_bytes:
            self.density.append(output_tokens / content_bytes)
            self.usual_density = _high(self.density) if len(self.density) >= SEEN_MIN else None
        if len(self.outputs) >= SEEN_MIN:
            self.usual_output, self.usual_input = int(_high(self.outputs)), _high(self.input_costs)


class Quotes:
    """Makes quotes, and learns from what calls cost in the end."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._seen: dict[Shape, _Seen] = {}
        self._surplus: dict[tuple[str, str], int] = {}
        """Input tokens above what we took for the most, per provider and model: what a provider adds to a request."""

    def quote(
        self,
        call: Call,
        ask: Ask,
        region: str | None,
        request_bytes: int,
        *,
        input_tokens: int | None = None,
    ) -> Estimate | None:
        """`input_tokens`: the most that were counted in the request, where they were; else there is one in each byte.
        `None` where the model has no price."""
        provider, model = call.provider or "", call.request_model or ""
        most = request_bytes if input_tokens is None else min(input_tokens, request_bytes)
        most += OVERHEAD_TOKENS + self._surplus.get((provider, model), 0)
        rates = self._prices.worst(
            provider, model, call.started_us // 1_000_000, most,
            service_tier=ask.service_tier, region=region, units=ask.units, cached_1h=ask.may_cache == "1h",
        )  # fmt: skip
        if rates is None:
            return None
        fixed = rates.fees + most * rates.input
        tokens = (ask.max_output_tokens or TOKENS_MAX) * ask.choices if call.operation in WRITES else 0
        shape = call.client, call.agent, provider, model, call.operation, _size_of(tokens), str(ask.stream)
        seen = self._seen.get(shape)
        usual_tokens, input_cost = _usual(seen, tokens, request_bytes, rates)
        usual = min(fixed + tokens * rates.output, rates.fees + input_cost + usual_tokens * rates.output)
        quote = Quote(
            fixed=fixed,
            rate=rates.output,
            tokens=tokens,
            usual=usual,
            usual_tokens=usual_tokens,
            tokens_min=min(tokens, max(USEFUL_TOKENS, ask.output_tokens_min) * ask.choices),
            clamps=tokens > 0,
            stops=ask.stream,
        )
        return Estimate(quote, shape, rates.fees + input_cost, most, seen.usual_density if seen else None)

    def learn(self, call: Call, estimate: Estimate, request_bytes: int, content_bytes: int) -> None:
        """Take in a call whose usage was reported. `content_bytes`: of the answer's events with text."""
        if call.usage_source != "reported" or call.list_cost_nano is None or not request_bytes:
            return
        if (seen := self._seen.get(estimate.shape)) is None:
            if len(self._seen) >= KINDS_MAX:
                self._seen.clear()
            seen = self._seen[estimate.shape] = _Seen()
        input_cost = (call.list_cost_nano - (call.output_cost_nano or 0)) / request_bytes
        seen.add(call.output_tokens or 0, input_cost, content_bytes)
        more = (call.input_tokens or 0) - estimate.input_tokens
        if more > 0:
            key = call.provider or "", call.request_model or ""
            if len(self._surplus) >= KINDS_MAX:
                self._surplus.clear()
            self._surplus[key] = self._surplus.get(key, 0) + more


def _usual(seen: _Seen | None, tokens: int, request_bytes: int, rates: Worst) -> tuple[int, int]:
    """Output tokens, and the cost of the input."""
    if seen is None or seen.usual_output is None or seen.usual_input is None:
        return min(tokens, GUESSED_TOKENS), request_bytes // GUESSED_BYTES_PER_TOKEN * rates.input
    return min(tokens, seen.usual_output), round(seen.usual_input * request_bytes)


def _high(values: deque[int] | deque[float]) -> int | float:
    return sorted(values)[min(len(values) - 1, int(len(values) * QUANTILE))]


def _size_of(tokens: int) -> str:
    """A class of maxima: requests for 100 tokens and for 64,000 are of different kinds."""
    return str(tokens.bit_length())
