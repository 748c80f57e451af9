"""The price book: which rates a call pays, and what it costs. See docs/prices.md.

It is a snapshot of published prices, the supplement to it, and on top an installation's own prices.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.call import Cost, PriceStatus, SubPass, Usage
from gateway.prices.entries import OwnPrice, Span, in_force, tier_of
from gateway.prices.names import NAME_MAX, spellings, stems
from gateway.prices.overrides import Overrides
from gateway.prices.rates import Band, Parts, Rates, RateSet, Worst, is_floor, plain, whole, worst
from gateway.prices.snapshot import PROVIDERS, Model, Provider, Quote, load_snapshot
from gateway.prices.supplement import SUPPLEMENT, ExtraRates, Factor, Supplement, load_supplement

DEFAULT_BOOK = Path(__file__).parent.parent / "price_books" / "genai-prices-0.2.3.json.gz"
"""The shipped snapshot."""

SELF_HOSTED = frozenset({"ollama", "llamacpp", "llama.cpp", "lmstudio", "vllm", "sglang", "mistralrs", "gpustack"})
"""Nobody sends a bill for these: another provider's price for the same weights would be an invention."""

CACHED_LOOKUPS = 4096
CACHED_BOOKS = 4

REPORTED_NANO_MAX = 10**18 - 1
"""The most that `DECIMAL(18,9)` holds. A provider's figure above it, or below 0, is not believed."""


class Listed:
    """A model that the installation prices itself, or that the supplement adds to a provider's own list."""

    def __init__(self, model: str, prices: tuple[OwnPrice, ...]) -> None:
        self.id = model
        self._prices = prices

    def quote(self, at: datetime, tier: str | None) -> Quote | None:
        """As `Model.quote`; `None` when the model had no price yet. An own price is certain for every tier."""
        found = in_force(self._prices, at, tier)
        if found is None:
            return None
        of_tier = found.service_tier == tier or found.rate_set.own
        return Quote(found.rate_set, of_tier, of_tier)

    def dated(self, today: date) -> Iterator[tuple[datetime | None, str | None]]:
        """As `Model.dated`."""
        return ((moment, price.service_tier) for price in self._prices for moment in price.ends())


class Candidate:
    """A model as the calls of one provider pay for it: its list, with the supplement's rates and factors."""

    def __init__(
        self,
        model: Model | Listed,
        status: PriceStatus,
        rates: tuple[ExtraRates, ...] = (),
        factors: tuple[Factor, ...] = (),
    ) -> None:
        self._model = model
        self._status = status
        self._rates = rates
        self._factors = factors
        self._compiled: dict[tuple[object, ...], RateSet] = {}

    def dated(self, today: date) -> Iterator[tuple[datetime | None, str | None]]:
        """As `Model.dated`."""
        yield from self._model.dated(today)
        yield from ((moment, None) for rates in self._rates for moment in rates.ends())
        for factor in self._factors:
            yield from ((moment, tier) for tier in factor.service_tiers or (None,) for moment in factor.ends())

    def rate_set(self, at: datetime, tier: str | None, region: str | None) -> RateSet | None:
        """`None` when there are no rates."""
        quote = self._model.quote(at, tier)
        extra = tuple(rates for rates in self._rates if rates.active(at))
        if tier and any(entry.replaces and entry.rates.input is not None for entry in extra):
            # The list's rates of the tier belong to the price that is overruled here.
            quote = standard._replace(is_certain=False) if (standard := self._model.quote(at, None)) else None
        # An empty price list may mean free, included or unknown: only a name that says `:free` is taken for free.
        if quote is None or not (quote.rates.bands or any(rates.rates.input is not None for rates in extra)):
            return None
        of_tier = of_region = None
        if tier and not quote.of_tier:
            of_tier = next((factor for factor in self._factors if factor.of_tier(at, tier)), None)
        if region:
            of_region = next((factor for factor in self._factors if factor.of_region(at, region)), None)
        key = quote.rates, quote.is_certain, extra, of_tier, of_region, of_tier and tier
        if (compiled := self._compiled.get(key)) is None:
            compiled = self._compiled[key] = self._compile(quote, extra, of_tier, of_region, tier)
        return compiled

    def _compile(
        self,
        quote: Quote,
        extra: tuple[ExtraRates, ...],
        of_tier: Factor | None,
        of_region: Factor | None,
        tier: str | None,
    ) -> RateSet:
        """Single rates first, then the factors, each once; last the stand-ins for what nobody states."""
        label, factor = quote.rates.price_id, Decimal(1)
        label += "".join(f"&{rates.valid_from:%Y-%m-%d}" for rates in extra if rates.valid_from)
        if of_tier is not None:
            label += f"#{tier}*{of_tier.multiplier:f}"
            factor *= of_tier.multiplier
        if of_region is not None:
            label += f"*{of_region.multiplier:f}"
            factor *= of_region.multiplier
        bands = []
        for band in quote.rates.bands or (Band(0, Rates()),):
            rates = band.rates
            for entry in extra:
                rates = entry.on(rates)
            rates = rates.times(factor).complete()
            bands.append(Band(band.over_input_tokens, rates, plain(rates)))
        return msgspec.structs.replace(
            quote.rates,
            price_id=label,
            bands=tuple(bands),
            status=self._status if quote.is_certain or of_tier is not None else "fallback",
            guessed_model=self._status == "fallback",
        )


class Entry(NamedTuple):
    """What is known of a (provider, names) pair at any time."""

    known: tuple[Candidate, ...]
    """The first that has rates at the moment counts."""
    guesses: tuple[Candidate, ...]
    """Where none has: other sellers, or other models. The dearest counts."""


class Pass(msgspec.Struct, frozen=True):
    """What one pass of a call costs, whole nano-USD."""

    cost: Parts
    status: PriceStatus
    price_id: str
    own: bool = False
    """At the installation's own price."""
    guessed_model: bool = False

    @property
    def total(self) -> int:
        return self.cost.total


NOTHING = Parts(0, 0, 0, 0, 0)
UNPRICED = Pass(NOTHING, "fallback", "unpriced")
"""A sub-pass whose cost nobody knows, beside others."""


class PriceBook:
    """Prices calls. Build with `PriceBook.load`; immutable but for its caches."""

    def __init__(
        self, list_id: str, providers: Mapping[str, Provider], supplement: Supplement, overrides: Overrides
    ) -> None:
        self.id = list_id + (f"+{overrides.digest}" if overrides.digest else "")
        """`genai-prices-0.2.3-` and eight digits of the snapshot's hash, `.` and eight of the supplement's; with
        overrides, `+` and eight of theirs."""
        self._list_id = list_id
        self._providers = providers
        self._supplement = supplement
        self.overrides = overrides
        self._entry = lru_cache(CACHED_LOOKUPS)(self._look_up)
        self._worst = lru_cache(CACHED_LOOKUPS)(_worst)
        self._changes, self._hours = _changes(providers.values(), supplement, overrides)
        self._found: dict[tuple[object, ...], list[RateSet]] = {}
        self._rate_sets_in = lru_cache(CACHED_LOOKUPS)(self._rate_sets_of_minute)

    @property
    def providers(self) -> frozenset[str]:
        """The provider names that calls can have, as far as the book knows them."""
        listed = self._providers.keys() - set(PROVIDERS.values())
        return frozenset({*PROVIDERS, *listed, *SELF_HOSTED})

    @classmethod
    def load(cls, path: Path, supplement: Path | None = SUPPLEMENT) -> "PriceBook":
        """Read a snapshot and a supplement to it, or give the book that was made of the same files before: who looks
        for waste asks each time. Raises `ValueError`, a readable line per problem, when one is bad."""
        return _load(path, supplement, _stamp(path), supplement and _stamp(supplement))

    def with_overrides(self, overrides: Overrides) -> "PriceBook":
        """This book with an installation's own prices, aliases and discounts on top."""
        return PriceBook(self._list_id, self._providers, self._supplement, overrides)

    def price(
        self,
        provider: str,
        models: tuple[str | None, ...],
        usage: Usage,
        at: datetime,
        *,
        service_tier: str | None = None,
        batch: bool = False,
        region: str | None = None,
        subpasses: Sequence[SubPass] = (),
        reported_nano: int | None = None,
    ) -> Cost:
        """The cost of a usage at a moment (UTC). `models`: the served name first, then the one asked for.

        `reported_nano` is what the provider itself says that it bills for the call: it is the contracted cost unless
        the installation has its own price or a discount, and the list cost where no list is certain.
        Never raises on odd usage. All amounts are `None` when nothing that the usage counts has a rate.
        """
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        tier = tier_of(service_tier, batch=batch)
        region = region.lower() if region else None
        percent = self.overrides.discount(provider, models, at)
        if reported_nano is not None and not 0 <= reported_nano <= REPORTED_NANO_MAX:
            reported_nano = None

        main = self._pass(provider, models, usage, at, tier, region)
        also = list(self._subpasses(provider, models, subpasses, at, tier, region)) if subpasses else []
        if main is None and not (usage.input_tokens or usage.output_tokens):
            main = _of_subpasses_alone([part for _, part in also])
        if main is None:
            return Cost("unpriced", self.id) if reported_nano is None else self._as_reported(reported_nano, percent)
        cost = main.cost
        status, price_id, other, total = main.status, main.price_id, cost.other, cost.total
        contracted, own_terms = _discounted(total, percent), main.own or percent is not None
        for model, part in also:
            discount = self.overrides.discount(provider, (model,) if model else models, at)
            status, price_id = _weaker(status, part.status), _joined(price_id, part.price_id)
            other, total = other + part.total, total + part.total
            contracted += _discounted(part.total, discount)
            own_terms = own_terms or part.own or discount is not None
        if reported_nano is not None and not main.own:
            if status == "fallback":
                return self._as_reported(reported_nano, percent)
            status, contracted = "exact", contracted if own_terms else reported_nano
        return Cost(
            status,
            self.id,
            price_id,
            total,
            cost.input,
            cost.cache_read,
            cost.cache_write,
            cost.output,
            other,
            contracted,
            main.guessed_model,
        )

    def worst(
        self,
        provider: str,
        model: str,
        at_seconds: int,
        input_tokens: int,
        *,
        service_tier: str | None = None,
        region: str | None = None,
        units: Mapping[str, float] | None = None,
        cached_1h: bool = False,
    ) -> Worst | None:
        """The highest rates that a call with at most so much input can pay at a moment (seconds since the epoch, UTC),
        with surcharges and before discounts; `None` when there are none."""
        dearest: Worst | None = None
        for found in self._rate_sets_in(provider, model, at_seconds // 60, service_tier, region):
            for number, band in enumerate(found.bands):
                if band.over_input_tokens and input_tokens <= band.over_input_tokens:
                    continue
                if units:
                    rates = worst(band.rates, units, cached_1h=cached_1h)
                else:
                    rates = self._worst(found, number, cached_1h)
                dearest = rates if dearest is None else Worst(*map(max, dearest, rates))
        if dearest is None or not self.overrides.discounts:
            return dearest
        at = datetime.fromtimestamp(at_seconds, UTC)
        return dearest.raised(self.overrides.discount(provider, (model,), at))

    def find(self, provider: str, model: str, at: datetime, *, service_tier: str | None = None) -> RateSet | None:
        """The rates a call of `model` would pay at a moment (UTC), before discounts; `None` when there are none."""
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return max(self._rate_sets(provider, (model,), at, tier_of(service_tier), None), key=RateSet.rank, default=None)

    def dated(self, provider: str, model: str, today: date) -> set[tuple[datetime | None, str | None]]:
        """When rates of a model begin or end (UTC; `None` = ever), and of which service tier they are (`None` =
        standard). Daily hours are those of `today`."""
        entry = self._entry(provider.lower(), (model.lower(),))
        return set().union(*(candidate.dated(today) for candidate in (*entry.known, *entry.guesses)))

    @property
    def lists(self) -> Mapping[str, Provider]:
        """The snapshot's lists, by its name of the provider."""
        return self._providers

    def sellers(self, model: str) -> list[str]:
        """Providers (OpenTelemetry's names) that have a price for just this name."""
        model = model.lower()
        listed = {provider.id for provider in self._providers.values() if provider.find(model)}
        renamed = {name for name, listed_as in PROVIDERS.items() if listed_as in listed}
        priced = {p for prices in (self._supplement.prices, self.overrides.prices) for p, m in prices if m == model}
        return sorted(listed - set(PROVIDERS.values()) | renamed | priced)

    @property
    def regions(self) -> tuple[str, ...]:
        """One region of each kind that has a factor of its own."""
        return tuple(sorted({glob.replace("*", "x") for factor in self._supplement.factors for glob in factor.regions}))

    @property
    def tier_factors(self) -> frozenset[Decimal]:
        """Multipliers of service tiers."""
        return frozenset(factor.multiplier for factor in self._supplement.factors if factor.service_tiers)

    def _as_reported(self, nano: int, percent: Decimal | None) -> Cost:
        """Where no list is certain the provider's own figure is the list price. It does not say which part is what."""
        return Cost("exact", self.id, "reported", nano, 0, 0, 0, 0, nano, _discounted(nano, percent))

    def _pass(
        self,
        provider: str,
        models: tuple[str | None, ...],
        usage: Usage,
        at: datetime,
        tier: str | None,
        region: str | None,
    ) -> Pass | None:
        """`None` when nothing that the usage counts has a rate."""
        dearest: Pass | None = None
        for found in self._rate_sets(provider, models, at, tier, region):
            band = found.band(usage.input_tokens or 0)
            cost = band.parts(usage)
            if cost is None or (dearest is not None and cost.total <= dearest.total):
                continue
            limit = f">{band.over_input_tokens}" if band.over_input_tokens else ""
            status = "fallback" if is_floor(band.rates, usage) else found.status
            dearest = Pass(cost, status, found.price_id + limit, found.own, found.guessed_model)
        return dearest

    def _subpasses(
        self,
        provider: str,
        models: tuple[str | None, ...],
        subpasses: Sequence[SubPass],
        at: datetime,
        tier: str | None,
        region: str | None,
    ) -> Iterator[tuple[str | None, Pass]]:
        """Each pass at its own model's rates; without any, at those of the served model, flagged."""
        for model, usage in ((subpass.model, subpass.usage) for subpass in subpasses):
            if part := self._pass(provider, (model,) if model else models, usage, at, tier, region):
                yield model, part
            elif part := self._pass(provider, models, usage, at, tier, region):
                yield model, msgspec.structs.replace(part, status="fallback")
            elif usage.reported():
                yield model, UNPRICED

    def _rate_sets(
        self, provider: str, models: tuple[str | None, ...], at: datetime, tier: str | None, region: str | None
    ) -> list[RateSet]:
        """One; or several where the model is guessed, and the dearest for the call counts. Until the next change of any
        price they stay the same."""
        era = bisect_right(self._changes, at), bisect_right(self._hours, at.time())
        key = provider, models, tier, region, era
        if (found := self._found.get(key)) is None:
            if len(self._found) >= CACHED_LOOKUPS:
                self._found.clear()  # names come from outside
            found = self._found[key] = self._rate_sets_now(provider, models, at, tier, region)
        return found

    def _rate_sets_now(
        self, provider: str, models: tuple[str | None, ...], at: datetime, tier: str | None, region: str | None
    ) -> list[RateSet]:
        entry = self._entry(provider.lower(), tuple(model.lower() for model in models if model))
        for candidate in entry.known:
            if rates := candidate.rate_set(at, tier, region):
                return [rates]
        return [rates for candidate in entry.guesses if (rates := candidate.rate_set(at, tier, region))]

    def _rate_sets_of_minute(
        self, provider: str, model: str, minute: int, service_tier: str | None, region: str | None
    ) -> list[RateSet]:
        """In a minute since the epoch: no price changes within one."""
        at = datetime.fromtimestamp(minute * 60, UTC)
        return self._rate_sets(provider, (model,), at, tier_of(service_tier), region.lower() if region else None)

    def _look_up(self, provider: str, names: tuple[str, ...]) -> Entry:
        """Own prices of either name before the list; then name by name, first what it is an alias of; then guesses."""
        known = [own for name in names if (own := self._own(provider, name, "exact"))]
        steps: list[tuple[str, PriceStatus]] = []
        for name in names:
            if alias := self.overrides.alias(provider, name):
                steps.append((alias, "alias"))
            steps.append((name, "alias" if name.endswith("-latest") else "exact"))
        for name, status in steps:
            if name not in names and (own := self._own(provider, name, status)):
                known.append(own)
            if listed := self._listed(provider, name, status):
                return Entry((*known, listed), ())
        guesses = () if provider in SELF_HOSTED else self._guesses(provider, [name for name, _ in steps])
        return Entry(tuple(known), guesses)

    def _own(self, provider: str, name: str, status: PriceStatus) -> Candidate | None:
        for spelling in spellings(name):
            if prices := self.overrides.own(provider, spelling):
                return Candidate(Listed(spelling, prices), status if spelling == name else "alias")
        return None

    def _listed(self, provider: str, name: str, status: PriceStatus) -> Candidate | None:
        """On the provider's own list, or on those of the vendors whose models it sells at their price, as the snapshot
        states."""
        home = self._home(provider)
        for spelling in spellings(name):
            if found := self._on_list(home, (provider,), spelling):
                named = spelling == name and (isinstance(found, Listed) or found.is_called(name))
                return self._candidate((provider,), found, spelling, status if named else "alias")
        for vendor in home.fallback if home else ():
            sellers = _called(vendor)
            for spelling in spellings(name):
                if found := self._on_list(self._providers.get(vendor), sellers, spelling):
                    return self._candidate((provider, *sellers), found, spelling, "alias")
        return None

    def _on_list(self, home: Provider | None, sellers: Iterable[str], name: str) -> Model | Listed | None:
        """On a provider's list; what that lacks, the supplement has."""
        if home is not None and (model := home.find(name)):
            return model
        prices = next((prices for seller in sellers if (prices := self._supplement.price(seller, name))), None)
        return Listed(name, prices) if prices else None

    def _guesses(self, provider: str, names: Sequence[str]) -> tuple[Candidate, ...]:
        """The same model at any other seller; or else the models that share the most leading words of a new name, at
        the provider and its vendors: `claude-opus-9` → `claude-opus-…`."""
        home = self._home(provider)
        near = [home, *(self._providers[vendor] for vendor in home.fallback)] if home else []
        everyone = self._providers.values()
        for name in names:
            if len(name) > NAME_MAX:
                continue
            for spelling in spellings(name):
                found = [model for other in everyone if (model := other.find(spelling) or other.find_bare(spelling))]
                if found:
                    return self._guessed(provider, found, name)
        for name in names:
            for stem in stems(name):
                if found := [model for other in near for model in other.family(stem)]:
                    return self._guessed(provider, found, name)
        return ()

    def _guessed(self, provider: str, models: Iterable[Model], name: str) -> tuple[Candidate, ...]:
        return tuple(self._candidate((provider, *_called(m.provider)), m, name, "fallback") for m in models)

    def _candidate(self, sellers: tuple[str, ...], model: Model | Listed, name: str, status: PriceStatus) -> Candidate:
        """Single rates are those of the list it is on too; factors are the caller's provider's, the first seller."""
        called = (model.id, name)
        rates = tuple(entry for entry in self._supplement.rates if entry.concerns(sellers, called))
        factors = tuple(entry for entry in self._supplement.factors if entry.concerns(sellers[:1], called))
        return Candidate(model, status, rates, factors)

    def _home(self, name: str) -> Provider | None:
        name = PROVIDERS.get(name, name)
        if name in self._providers:
            return self._providers[name]
        return next((p for p in self._providers.values() if p.named is not None and p.named(name)), None)


def _changes(
    providers: Iterable[Provider], supplement: Supplement, overrides: Overrides
) -> tuple[list[datetime], list[time]]:
    """When any price begins or ends: moments (UTC), and hours of each day."""
    periods = [period for provider in providers for model in provider.models for period in model.periods]
    own = [price for book in (supplement, overrides) for prices in book.prices.values() for price in prices]
    spans: Iterable[Span] = chain(own, supplement.rates, supplement.factors)
    moments = {datetime.combine(period.start, time(), UTC) for period in periods if period.start}
    moments |= {end for span in spans for end in (span.valid_from, span.valid_to) if end}
    return sorted(moments), sorted({hour for period in periods for hour in period.daily or ()})


def _worst(rate_set: RateSet, band_number: int, cached_1h: bool) -> Worst:
    return worst(rate_set.bands[band_number].rates, {}, cached_1h=cached_1h)


def _called(provider: str) -> tuple[str, ...]:
    """The names that calls have for a provider of the snapshot."""
    return (provider, *(ours for ours, theirs in PROVIDERS.items() if theirs == provider))


def _of_subpasses_alone(also: Sequence[Pass]) -> Pass | None:
    """The main pass of a call that counts no tokens itself: nothing beside its sub-passes, if these have a price."""
    priced = [part for part in also if part is not UNPRICED]
    if not priced:
        return None
    return Pass(NOTHING, "exact", "", guessed_model=any(part.guessed_model for part in priced))


def _discounted(nano: int, percent: Decimal | None) -> int:
    return nano if percent is None else whole(nano * (100 - percent) / 100)


_WEAKER: tuple[PriceStatus, ...] = ("exact", "alias", "fallback", "unpriced")


def _weaker(one: PriceStatus, other: PriceStatus) -> PriceStatus:
    return max(one, other, key=_WEAKER.index)


def _joined(price_id: str, other: str) -> str:
    if not price_id:
        return other
    return price_id if other in price_id.split("+") else f"{price_id}+{other}"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Another one whenever the file is; none where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(CACHED_BOOKS)
def _load(path: Path, supplement: Path | None, *_stamps: tuple[int, int, int] | None) -> PriceBook:
    list_id, providers = load_snapshot(path)
    if supplement is None:
        return PriceBook(list_id, providers, Supplement(), Overrides())
    more = load_supplement(supplement)
    return PriceBook(f"{list_id}.{more.digest}", providers, more, Overrides())
