"""What one rate set makes of one usage: five parts in whole nano-USD, each rounded once, half to even."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from operator import attrgetter
from typing import NamedTuple

import msgspec

from gateway.call import NANO, PriceStatus, Usage

TOKENS_MAX = 10**9
"""More tokens than any one call can have. Nonsense is cut here, so that no price can leave `DECIMAL(18,9)`."""
UNITS_MAX = 10**6
"""The same for searches, seconds, pages, characters, …"""

ZERO = Decimal(0)


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-USD per token, and per unit of `each`. `None` = nothing known, which is not 0.

    After `complete`, what has no rate of its own has the rate that applies in its place.
    """

    input: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    output: Decimal | None = None
    output_reasoning: Decimal | None = None
    input_audio: Decimal | None = None
    cache_read_audio: Decimal | None = None
    output_audio: Decimal | None = None
    input_image: Decimal | None = None
    cache_read_image: Decimal | None = None
    output_image: Decimal | None = None
    each: Mapping[str, Decimal] = msgspec.field(default_factory=dict)
    """Unit → nano-USD: `web_search_requests`, `requests` (one per call), and the units of `Usage.other_units`."""
    once: Mapping[str, Decimal] = msgspec.field(default_factory=dict)
    """Unit → nano-USD for all of a call's together, however many."""

    def complete(self) -> "Rates":
        """With the usual stand-ins: cached, audio and image tokens cost what plain ones cost, reasoning what output
        costs. A 1 h cache write without a rate costs the 5 min rate: vendors that sell one lifetime only publish one
        write rate, and doubling it would invent a price nobody charges."""
        write = _first(self.cache_write, self.input)
        return msgspec.structs.replace(
            self,
            cache_read=_first(self.cache_read, self.input),
            cache_write=write,
            cache_write_1h=_first(self.cache_write_1h, write),
            output_reasoning=_first(self.output_reasoning, self.output),
            input_audio=_first(self.input_audio, self.input),
            cache_read_audio=_first(self.cache_read_audio, self.cache_read, self.input_audio, self.input),
            output_audio=_first(self.output_audio, self.output),
            input_image=_first(self.input_image, self.input),
            cache_read_image=_first(self.cache_read_image, self.cache_read, self.input_image, self.input),
            output_image=_first(self.output_image, self.output),
        )

    def overlaid(self, above: "Rates") -> "Rates":
        """With every rate that `above` states in place of this one's."""
        tokens = {name: _first(getattr(above, name), getattr(self, name)) for name in TOKEN_NAMES}
        stated = above.each.keys() | above.once.keys()  # a unit is billed each or once, never both
        return Rates(
            **tokens,
            each={unit: rate for unit, rate in self.each.items() if unit not in stated} | dict(above.each),
            once={unit: rate for unit, rate in self.once.items() if unit not in stated} | dict(above.once),
        )

    def times(self, factor: Decimal) -> "Rates":
        """With all token rates multiplied; fees are not."""
        stated = ((name, getattr(self, name)) for name in TOKEN_NAMES)
        return msgspec.structs.replace(self, **{name: rate * factor for name, rate in stated if rate is not None})


TOKEN_NAMES = tuple(name for name in Rates.__struct_fields__ if name not in ("each", "once"))


class Plain(msgspec.Struct, frozen=True):
    """Rates of text that are whole nano-USD, as most are: what most usages cost is then a few products of integers."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    output_reasoning: int
    other: int
    """Of the call itself."""

    def parts(self, usage: Usage) -> "Parts | None":
        """As `parts`, to the last nano-USD; `None` where it has to say: there is more than text, or less, or counts
        contradict each other."""
        given, written_out = usage.input_tokens, usage.output_tokens
        if given is None or written_out is None or any(BESIDE_TEXT(usage)):
            return None
        read, reasoning = usage.cache_read_input_tokens or 0, usage.reasoning_output_tokens or 0
        write, write_1h = usage.cache_write_input_tokens or 0, usage.cache_write_1h_input_tokens or 0
        fresh, said = given - read - write, written_out - reasoning
        if min(read, write_1h, write - write_1h, fresh, reasoning, said) < 0 or max(given, written_out) > TOKENS_MAX:
            return None
        return Parts(
            fresh * self.input,
            read * self.cache_read,
            (write - write_1h) * self.cache_write + write_1h * self.cache_write_1h,
            said * self.output + reasoning * self.output_reasoning,
            self.other,
        )


BESIDE_TEXT = attrgetter(
    "audio_input_tokens", "audio_output_tokens", "image_input_tokens", "image_output_tokens",
    "web_search_requests", "other_units",
)  # fmt: skip


def plain(rates: Rates) -> Plain | None:
    """`None` where a rate is not known, or no whole number."""
    texts = (getattr(rates, name) for name in Plain.__struct_fields__ if name != "other")
    stated = [*texts, rates.each.get("requests", ZERO)]
    whole_numbers = [int(rate) for rate in stated if rate is not None and rate == int(rate)]
    return Plain(*whole_numbers) if len(whole_numbers) == len(stated) else None


class Band(msgspec.Struct, frozen=True):
    """The rates of calls with more than `over_input_tokens` input tokens (cache included): the whole call pays them."""

    over_input_tokens: int
    rates: Rates
    plain: Plain | None = None
    """The same for most calls, where that is quicker."""

    def parts(self, usage: Usage) -> "Parts | None":
        """What a usage costs; see `parts`."""
        found = None if self.plain is None else self.plain.parts(usage)
        return parts(self.rates, usage) if found is None else found


class RateSet(msgspec.Struct, frozen=True, eq=False):
    """Everything that decides the price of a model at one moment and tier. Equal to itself alone."""

    provider: str
    model: str
    price_id: str
    bands: tuple[Band, ...]
    """Ascending; the first is over 0 and always applies."""
    own: bool = False
    """The installation's own price."""
    status: PriceStatus = "exact"
    """How sure it is that these are the rates of the model that was called, at its tier."""
    guessed_model: bool = False
    """They are those of another seller, or of another model of the family."""

    def rank(self) -> Decimal:
        """For "the highest of several": nano-USD of one input and one output token."""
        rates = self.bands[0].rates
        return (rates.input or ZERO) + (rates.output or ZERO)

    def band(self, input_tokens: int) -> Band:
        found = self.bands[0]
        for band in self.bands[1:]:
            if input_tokens > band.over_input_tokens:
                found = band
        return found


class Parts(msgspec.Struct, frozen=True):
    """Whole nano-USD."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    other: int

    @property
    def total(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.output + self.other


def usd_per(value: Decimal, units: int) -> Decimal:
    """A rate in USD per so many units, as nano-USD per unit."""
    return value * NANO / units


def whole(nano: Decimal) -> int:
    return round(nano)  # half to even


def parts(rates: Rates, usage: Usage) -> Parts | None:
    """The cost of a usage, or `None` when nothing in it has a rate. Never negative, never raises on odd counts.

    Units without a rate cost nothing here, the tokens of sub-passes (`subpass_*`) among them: `PriceBook.price` takes
    those from the sub-passes themselves.

    Counts that contradict each other are cut to what can be: no part is larger than its total. Where reads and writes
    together exceed the input they cover the same tokens (some resellers bill both): such a token pays the read rate,
    and of the write rate what it has above input, because the write rate includes the reading of a fresh token (all of
    a write rate below input, which is for storage alone).
    """
    total_in, total_out = _count(usage.input_tokens), _count(usage.output_tokens)
    read = min(_count(usage.cache_read_input_tokens), total_in)
    write = min(_count(usage.cache_write_input_tokens), total_in)
    write_1h = min(_count(usage.cache_write_1h_input_tokens), write)
    both = min(read, write) if read + write > total_in else 0
    cached = read + write - both
    # Most calls have nothing but text.
    fresh_audio = fresh_image = read_audio = read_image = audio_out = image_out = 0
    if usage.audio_input_tokens or usage.image_input_tokens:
        audio = min(_count(usage.audio_input_tokens), total_in)
        image = min(_count(usage.image_input_tokens), total_in - audio)
        text = total_in - audio - image
        # Few providers say which modality the cached tokens had. Where they do not: text first, by far the most common.
        stated = (usage.other_units or {}).get("cache_read_audio_tokens")
        if stated is None:
            cached_audio = min(max(0, cached - text), audio)
        else:
            cached_audio = max(min(int(_quantity(stated, TOKENS_MAX)), audio, cached), cached - text - image)
        cached_image = max(0, cached - text - cached_audio)
        fresh_audio, fresh_image = audio - cached_audio, image - cached_image
        read_audio = min(cached_audio, read)
        read_image = min(cached_image, read - read_audio)
    if usage.audio_output_tokens or usage.image_output_tokens:
        audio_out = min(_count(usage.audio_output_tokens), total_out)
        image_out = min(_count(usage.image_output_tokens), total_out - audio_out)
    reasoning = min(_count(usage.reasoning_output_tokens), total_out - audio_out - image_out)

    units = usage.other_units or {}
    if usage.web_search_requests is not None:
        units = {**units, "web_search_requests": usage.web_search_requests}
    if not (
        (rates.input is not None and usage.input_tokens is not None)
        or (rates.output is not None and usage.output_tokens is not None)
        or any(count > 0 and (unit in rates.each or unit in rates.once) for unit, count in units.items())
    ):
        return None
    return Parts(
        input=_sum(
            (total_in - cached - fresh_audio - fresh_image, rates.input),
            (fresh_audio, rates.input_audio),
            (fresh_image, rates.input_image),
        ),
        cache_read=_sum(
            (read - read_audio - read_image, rates.cache_read),
            (read_audio, rates.cache_read_audio),
            (read_image, rates.cache_read_image),
        )
        if read
        else 0,
        cache_write=_sum(
            (write - write_1h, rates.cache_write),
            (write_1h, rates.cache_write_1h),
            (-both, _included(rates) if both else None),
        )
        if write
        else 0,
        output=_sum(
            (total_out - audio_out - image_out - reasoning, rates.output),
            (reasoning, rates.output_reasoning),
            (audio_out, rates.output_audio),
            (image_out, rates.output_image),
        ),
        other=_sum(
            (1, rates.each.get("requests")),
            *((_quantity(count, UNITS_MAX), rates.each.get(unit)) for unit, count in units.items()),
            *((1, rates.once.get(unit)) for unit, count in units.items() if count > 0),
        )
        if units or "requests" in rates.each
        else 0,
    )


class Worst(NamedTuple):
    """The most that a call can pay, whole nano-USD, rounded up."""

    input: int
    """Per token, however it is read or cached."""
    output: int
    """Per token, of whatever kind."""
    fees: int
    """Of the call itself, and of the units that its request asks for."""

    def raised(self, percent: Decimal | None) -> "Worst":
        """With a surcharge: a negative discount. Others leave it as it is, since not all budgets count what is paid."""
        if percent is None or percent >= 0:
            return self
        return Worst(*(_up(nano * (100 - percent) / 100) for nano in self))


def worst(rates: Rates, units: Mapping[str, float], *, cached_1h: bool) -> Worst:
    """Token rates at their highest: each token may be fresh, or written to a cache (`cached_1h`: for an hour)."""
    written = rates.cache_write_1h if cached_1h else rates.cache_write
    read = (rates.input, written, rates.input_audio, rates.input_image)
    made = (rates.output, rates.output_reasoning, rates.output_audio, rates.output_image)
    fees = rates.each.get("requests", ZERO)
    for unit, count in units.items():
        fees += _quantity(count, UNITS_MAX) * rates.each.get(unit, ZERO) + rates.once.get(unit, ZERO)
    return Worst(_highest(read), _highest(made), _up(fees))


def _highest(rates: tuple[Decimal | None, ...]) -> int:
    return _up(max((rate for rate in rates if rate is not None), default=ZERO))


def _up(nano: Decimal) -> int:
    return int(nano.to_integral_value(ROUND_CEILING))


def is_floor(rates: Rates, usage: Usage) -> bool:
    """True when output or searches were counted that have no rate: the cost lacks them. Other units may only inform."""
    if (usage.web_search_requests or 0) > 0 and not any(
        "web_search_requests" in fees for fees in (rates.each, rates.once)
    ):
        return True
    if rates.output is not None:
        return False
    audio = usage.audio_output_tokens if rates.output_audio is not None else None
    image = usage.image_output_tokens if rates.output_image is not None else None
    return _count(usage.output_tokens) > _count(audio) + _count(image)


def _count(value: int | None) -> int:
    if value is None or value < 0:
        return 0
    return value if value <= TOKENS_MAX else TOKENS_MAX


def _quantity(value: float, most: int) -> Decimal:
    value = min(value, most)
    return Decimal(str(value)) if value > 0 else ZERO  # NaN is not > 0


def _sum(*terms: tuple[int | Decimal, Decimal | None]) -> int:
    total = ZERO
    for count, rate in terms:
        if count and rate:
            total += count * rate
    return round(total) if total else 0  # as `whole`


def _first(*rates: Decimal | None) -> Decimal | None:
    return next((rate for rate in rates if rate is not None), None)


def _included(rates: Rates) -> Decimal | None:
    """What of the write rates is for reading a fresh token."""
    writes = [rate for rate in (rates.cache_write, rates.cache_write_1h) if rate is not None]
    return rates.input if rates.input is not None and min(writes, default=ZERO) >= rates.input else None
