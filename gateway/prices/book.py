"""The price book: which rates a call pays, and what it costs. See docs/prices.md.

It is a snapshot of published prices, the supplement to it, and on top an installation's own prices.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.call import Cost, PriceStatus, SubPass, Usage
from gateway.prices.entries import OwnPrice, in_force
from gateway.prices.overrides import Overrides
from gateway.prices.rates import Band, Parts, Rates, RateSet, parts, whole
from gateway.prices.snapshot import Model, Provider, load_snapshot
from gateway.prices.supplement import SUPPLEMENT, ExtraRates, Factor, Supplement, load_supplement

DEFAULT_BOOK = Path(__file__).parent.parent / "price_books" / "genai-prices-0.2.3.json.gz"
"""The shipped snapshot."""

PROVIDERS = {
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
}
"""OpenTelemetry's provider names → the snapshot's, where they differ."""

SELF_HOSTED = frozenset({"ollama", "llamacpp", "llama.cpp", "lmstudio", "vllm", "sglang", "mistralrs", "gpustack"})
"""Nobody sends a bill for these: another provider's price for the same weights would be an invention."""

STANDARD_TIERS = frozenset({"default", "standard", "standard_only", "auto", "on_demand"})
CACHED_LOOKUPS = 4096


REPORTED_NANO_MAX = 10**18 - 1
"""The most that `DECIMAL(18,9)` holds. A provider's figure above it, or below 0, is not believed."""


class Listed:
    """A model that the supplement adds to a provider's own list."""

    def __init__(self, model: str, prices: tuple[OwnPrice, ...]) -> None:
        self.id = model
        self._prices = prices
        self._unsure = {price: msgspec.structs.replace(price.rate_set, status="fallback") for price in prices}

    def rate_set(self, at: datetime, tier: str | None, *, guess: bool = True) -> RateSet | None:
        """As `Model.rate_set`; `None` when the model had no price yet. There is nothing to `guess` from."""
        found = in_force(self._prices, at, tier)
        if found is None:
            return None
        return found.rate_set if found.service_tier == tier else self._unsure[found]

    def dated(self, today: date) -> Iterator[tuple[datetime | None, str | None]]:
        """As `Model.dated`."""
        return ((moment, price.service_tier) for price in self._prices for moment in price.ends())


class Candidate:
    """A model as the calls of one provider pay for it: its list, with the supplement's rates and factors."""

    def __init__(self, model: Model | Listed, rates: tuple[ExtraRates, ...], factors: tuple[Factor, ...]) -> None:
        self._model = model
        self._rates = rates
        self._factors = factors
        self._compiled: dict[tuple[object, ...], RateSet] = {}

    def dated(self, today: date) -> Iterator[tuple[datetime | None, str | None]]:
        """As `Model.dated`."""
        yield from self._model.dated(today)
        yield from ((moment, None) for rates in self._rates for moment in rates.ends())
        yield from ((moment, factor.service_tier) for factor in self._factors for moment in factor.ends())

    def rate_set(self, at: datetime, tier: str | None, region: str | None) -> RateSet | None:
        """`None` when there are no rates. `status` says only whether those of the tier are known."""
        of_tier = next((factor for factor in self._factors if factor.of_tier(at, tier)), None) if tier else None
        of_region = next((factor for factor in self._factors if factor.of_region(at, region)), None) if region else None
        found = self._model.rate_set(at, tier, guess=of_tier is None)
        extra = tuple(rates for rates in self._rates if rates.active(at))
        # An empty price list may mean free, included or unknown: only a name that says `:free` is taken for free.
        if found is None or not (found.bands or any(rates.rates.input is not None for rates in extra)):
            return None
        if found.status == "exact":  # the list has the tier: its factor is in there already
            of_tier = None
        key = found, extra, of_tier, of_region
        if (compiled := self._compiled.get(key)) is None:
            compiled = self._compiled[key] = _adjusted(found, extra, of_tier, of_region)
        return compiled


def _adjusted(
    found: RateSet, extra: tuple[ExtraRates, ...], of_tier: Factor | None, of_region: Factor | None
) -> RateSet:
    """Single rates first, then the factors, each once; last the stand-ins for what nobody states."""
    label, status, factor = found.price_id, found.status, Decimal(1)
    label += "".join(f"&{rates.valid_from:%Y-%m-%d}" for rates in extra if rates.valid_from)
    if of_tier is not None:
        label, status = f"{label}#{of_tier.service_tier}*{of_tier.multiplier:f}", "exact"
        factor *= of_tier.multiplier
    if of_region is not None:
        label += f"*{of_region.multiplier:f}"
        factor *= of_region.multiplier
    bands = []
    for band in found.bands or (Band(0, Rates()),):
        rates = band.rates
        for entry in extra:
            rates = entry.on(rates)
        bands.append(Band(band.over_input_tokens, rates.times(factor).complete()))
    return msgspec.structs.replace(found, price_id=label, status=status, bands=tuple(bands))


class Entry(NamedTuple):
    """What is known of a (provider, names) pair at any time."""

    own: tuple[OwnPrice, ...]
    own_status: PriceStatus
    candidates: tuple[Candidate, ...]
    """Several only for a fallback: the dearest counts."""
    status: PriceStatus


class Pass(NamedTuple):
    """What one pass of a call costs, whole nano-USD."""

    cost: Parts
    status: PriceStatus
    price_id: str
    own: bool
    """At the installation's own price."""

    @property
    def total(self) -> int:
        return sum(self.cost)


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
        self._overrides = overrides
        self._entry = lru_cache(CACHED_LOOKUPS)(self._look_up)

    @classmethod
    def load(cls, path: Path, supplement: Path | None = SUPPLEMENT) -> "PriceBook":
        """Read a snapshot and a supplement to it. Raises `ValueError`, a readable line per problem, when one is bad."""
        list_id, providers = load_snapshot(path)
        if supplement is None:
            return cls(list_id, providers, Supplement(), Overrides())
        more = load_supplement(supplement)
        return cls(f"{list_id}.{more.digest}", providers, more, Overrides())

    def with_overrides(self, overrides: Overrides) -> "PriceBook":
        """This book with an installation's own prices, aliases and discounts on top."""
        return PriceBook(self._list_id, self._providers, self._supplement, overrides)

    def price(
        self,
        provider: str,
        models: Sequence[str | None],
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
        tier = _tier(service_tier, batch=batch)
        region = region.lower() if region else None
        percent = self._overrides.discount(provider, models, at)
        if reported_nano is not None and not 0 <= reported_nano <= REPORTED_NANO_MAX:
            reported_nano = None

        main = self._pass(provider, models, usage, at, tier, region)
        if main is None:
            return Cost("unpriced", self.id) if reported_nano is None else self._as_reported(reported_nano, percent)
        status, price_id, other, total = main.status, main.price_id, main.cost.other, main.total
        contracted, own_terms = _discounted(total, percent), main.own or percent is not None
        for model, part in self._subpasses(provider, models, subpasses, at, tier, region):
            discount = self._overrides.discount(provider, (model,) if model else models, at)
            status, price_id = _weaker(status, part.status), _joined(price_id, part.price_id)
            other, total = other + part.total, total + part.total
            contracted += _discounted(part.total, discount)
            own_terms = own_terms or part.own or discount is not None
        if reported_nano is not None and not main.own:
            if status == "fallback":
                return self._as_reported(reported_nano, percent)
            status, contracted = "exact", contracted if own_terms else reported_nano
        cost = main.cost
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
        )

    def find(self, provider: str, model: str, at: datetime, *, service_tier: str | None = None) -> RateSet | None:
        """The rates a call of `model` would pay at a moment (UTC), before discounts; `None` when there are none."""
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return self._rate_set(provider, (model,), at, _tier(service_tier), None)

    def dated(self, provider: str, model: str, today: date) -> set[tuple[datetime | None, str | None]]:
        """When rates of a model begin or end (UTC; `None` = ever), and of which service tier they are (`None` =
        standard). Daily hours are those of `today`."""
        entry = self._entry(provider.lower(), (model.lower(),))
        own = {(moment, price.service_tier) for price in entry.own for moment in price.ends()}
        return own.union(*(candidate.dated(today) for candidate in entry.candidates))

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The snapshot's lists, by its name of the provider."""
        return self._providers

    def sellers(self, model: str) -> list[str]:
        """Providers (OpenTelemetry's names) that have a price for just this name."""
        model = model.lower()
        listed = {provider.id for provider in self._providers.values() if provider.find(model)}
        renamed = {name for name, listed_as in PROVIDERS.items() if listed_as in listed}
        priced = {p for prices in (self._supplement.prices, self._overrides.prices) for p, m in prices if m == model}
        return sorted(listed - set(PROVIDERS.values()) | renamed | priced)

    @property
    def regions(self) -> tuple[str, ...]:
        """One region of each kind that has a factor of its own."""
        return tuple(sorted({f.region.replace("*", "x") for f in self._supplement.factors if f.region}))

    def _as_reported(self, nano: int, percent: Decimal | None) -> Cost:
        """Where no list is certain the provider's own figure is the list price. It does not say which part is what."""
        return Cost("exact", self.id, "reported", nano, 0, 0, 0, 0, nano, _discounted(nano, percent))

    def _pass(
        self,
        provider: str,
        models: Sequence[str | None],
        usage: Usage,
        at: datetime,
        tier: str | None,
        region: str | None,
    ) -> Pass | None:
        """`None` when nothing that the usage counts has a rate."""
        found = self._rate_set(provider, models, at, tier, region)
        if found is None:
            return None
        band = found.band(usage.input_tokens or 0)
        cost = parts(band.rates, usage)
        if cost is None:
            return None
        limit = f">{band.over_input_tokens}" if band.over_input_tokens else ""
        return Pass(cost, found.status, found.price_id + limit, found.own)

    def _subpasses(
        self,
        provider: str,
        models: Sequence[str | None],
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
                yield model, part._replace(status="fallback")
            elif usage.reported():
                yield model, Pass(Parts(0, 0, 0, 0, 0), "fallback", "unpriced", own=False)

    def _rate_set(
        self, provider: str, models: Sequence[str | None], at: datetime, tier: str | None, region: str | None
    ) -> RateSet | None:
        entry = self._entry(provider.lower(), tuple(model.lower() for model in models if model))
        if entry.own and (own := in_force(entry.own, at, tier)):
            return _with_status(own.rate_set, entry.own_status)
        found = [rates for candidate in entry.candidates if (rates := candidate.rate_set(at, tier, region))]
        return _with_status(max(found, key=RateSet.rank), entry.status) if found else None

    def _look_up(self, provider: str, names: tuple[str, ...]) -> Entry:
        """Own prices before the list; the list by each name before another provider's by any."""
        aliases = [alias for name in names if (alias := self._overrides.alias(provider, name))]
        steps: list[tuple[str, PriceStatus]] = [
            *((alias, "alias") for alias in aliases),
            *((name, "alias" if name.endswith("-latest") else "exact") for name in names),
        ]
        models, status = self._listed(provider, steps)
        candidates = tuple(self._candidate(provider, model, name) for model, name in models)
        for name in (*names, *aliases):
            if own := self._overrides.own(provider, name):
                return Entry(own, "exact" if name in names else "alias", candidates, status)
        return Entry((), "exact", candidates, status)

    def _candidate(self, provider: str, model: Model | Listed, name: str) -> Candidate:
        called = (model.id, name)
        rates = tuple(entry for entry in self._supplement.rates if entry.concerns(provider, called))
        factors = tuple(entry for entry in self._supplement.factors if entry.concerns(provider, called))
        return Candidate(model, rates, factors)

    def _listed(
        self, provider: str, steps: Sequence[tuple[str, PriceStatus]]
    ) -> tuple[list[tuple[Model | Listed, str]], PriceStatus]:
        """The models that may set the price, each with the name that found it."""
        home = self._provider(provider)
        for name, status in steps:
            for rewritten in dict.fromkeys((name, *_rewritten(name))):
                found = self._at_home(home, provider, rewritten)
                if found is not None:
                    return [(found, rewritten)], status if rewritten == name else "alias"
        if provider in SELF_HOSTED:
            return [], "unpriced"
        vendors = [self._providers[other] for other in home.fallback if other in self._providers] if home else []
        for providers in (vendors, self._providers.values()):
            for name, _ in steps:
                if models := _candidates(providers, (name, *_rewritten(name))):
                    return [(model, name) for model in models], "fallback"
        for name, _ in steps:
            if models := _family([home, *vendors] if home else [], name):
                return [(model, name) for model in models], "fallback"
        return [], "unpriced"

    def _at_home(self, home: Provider | None, provider: str, name: str) -> Model | Listed | None:
        """The provider's own list; what that lacks, the supplement has."""
        if home is not None and (model := home.find(name)):
            return model
        prices = self._supplement.price(provider, name)
        return Listed(name, prices) if prices else None

    def _provider(self, name: str) -> Provider | None:
        name = PROVIDERS.get(name, name)
        if name in self._providers:
            return self._providers[name]
        return next((p for p in self._providers.values() if p.named is not None and p.named(name)), None)


def _discounted(nano: int, percent: Decimal | None) -> int:
    return nano if percent is None else whole(nano * (100 - percent) / 100)


_WEAKER: tuple[PriceStatus, ...] = ("exact", "alias", "fallback", "unpriced")


def _weaker(one: PriceStatus, other: PriceStatus) -> PriceStatus:
    return max(one, other, key=_WEAKER.index)


def _joined(price_id: str, other: str) -> str:
    return price_id if other in price_id.split("+") else f"{price_id}+{other}"


def _with_status(found: RateSet, status: PriceStatus) -> RateSet:
    """The weaker of how the model was found and how its tier was."""
    weaker = status if found.status == "exact" else found.status
    return found if weaker == found.status else msgspec.structs.replace(found, status=weaker)


def _tier(service_tier: str | None, *, batch: bool = False) -> str | None:
    """`None` for the standard tier. Vertex says `ON_DEMAND_FLEX` for what others call `flex`."""
    if batch:
        return "batch"
    tier = (service_tier or "default").lower()
    return None if tier in STANDARD_TIERS else tier.removeprefix("on_demand_")


_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])(?=[-:]|$)")
_VERSION = re.compile(r"([-@](20\d\d-?\d\d-?\d\d|latest|default|v\d+(:\d+)?))+$")
_VENDOR_DOTS = re.compile(r"^([a-z-]+\.)+(?=[a-z])")


def _rewritten(name: str) -> Iterator[str]:
    """The name as other catalogues write it: without path (`models/…`, an ARN), vendor (`us.anthropic.…`), date."""
    bare = name.rsplit("/", 1)[-1]
    for plain in dict.fromkeys((name, bare, _VENDOR_DOTS.sub("", bare))):
        yield plain
        yield _COMPACT_DATE.sub(r"-\1-\2-\3", plain)
        yield _VERSION.sub("", plain)


def _candidates(providers: Iterable[Provider], names: Iterable[str]) -> tuple[Model, ...]:
    """Each provider's model of the first name that anyone knows."""
    providers = list(providers)
    for name in names:
        if models := [model for provider in providers if (model := provider.find(name) or provider.find_bare(name))]:
            return tuple(models)
    return ()


def _family(providers: Iterable[Provider], name: str) -> tuple[Model, ...]:
    """The models that share the most leading words of a new name, at least two: `claude-opus-9` → `claude-opus-…`."""
    words = _VENDOR_DOTS.sub("", name.rsplit("/", 1)[-1]).split("-")
    models = [model for provider in providers for model in provider.models]
    for size in range(len(words) - 1, 1, -1):
        stem = "-".join(words[:size])
        if found := tuple(m for m in models if m.id == stem or m.id.startswith(stem + "-")):
            return found
    return ()
