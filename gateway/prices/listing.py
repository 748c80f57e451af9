"""What a price book says, to be read by people: the rates of a model through time, and what differs between two books.
Pure."""

import difflib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from gateway.call import NANO
from gateway.prices.book import PriceBook
from gateway.prices.rates import Rates, RateSet
from gateway.prices.snapshot import Model, Provider

EVER = datetime(1, 1, 1, tzinfo=UTC)
_TOKEN_NAMES = tuple(name for name in Rates.__struct_fields__ if name not in ("each", "once"))


class Offer(msgspec.Struct, frozen=True):
    """The rates of one model, service tier and context length since a moment."""

    provider: str
    model: str
    """As the list calls it."""
    service_tier: str
    """`standard`, `batch`, `flex`, …"""
    valid_from: datetime | None
    """UTC; `None` = ever. Of rates by the time of day: today's hour."""
    counts: bool
    """At the moment that was asked for."""
    over_input_tokens: int
    """For calls with more input tokens."""
    price_id: str
    status: str
    usd_per_million: dict[str, Decimal]
    """Tokens, by kind; what has no rate of its own has the rate that applies in its place."""
    usd_each: dict[str, Decimal]
    usd_once: dict[str, Decimal]


def offers(book: PriceBook, provider: str, model: str, at: datetime) -> list[Offer]:
    """All rates that a call of `model` pays at any time, by tier and time; empty when there are none. `at`: UTC."""
    dated = book.dated(provider, model, at.date())
    moments = sorted({moment or EVER for moment, _ in dated} | {EVER})
    found: list[Offer] = []
    for tier in (None, *sorted({tier for _, tier in dated if tier})):
        last = ""
        now = book.find(provider, model, at, service_tier=tier)
        for moment in moments:
            rates = book.find(provider, model, moment, service_tier=tier)
            standard = book.find(provider, model, moment)
            if rates is None or rates.price_id == last:
                continue
            last = rates.price_id
            if tier is None or standard is None or rates.price_id != standard.price_id:
                counts = now is not None and now.price_id == rates.price_id
                if counts and now is not None:
                    rates = now  # the same rates; how certain they are may depend on the moment
                since = None if moment == EVER else moment
                found += _offers(provider, rates, tier or "standard", since, counts=counts)
    return found


def _offers(provider: str, rates: RateSet, tier: str, since: datetime | None, *, counts: bool) -> Iterator[Offer]:
    for band in rates.bands:
        tokens = {name: usd for name in _TOKEN_NAMES if (usd := _per_million(getattr(band.rates, name))) is not None}
        each, once = (
            {unit: rate / NANO for unit, rate in units.items()} for units in (band.rates.each, band.rates.once)
        )
        yield Offer(
            provider,
            rates.model,
            tier,
            since,
            counts,
            band.over_input_tokens,
            rates.price_id,
            rates.status,
            tokens,
            each,
            once,
        )


def _per_million(nano: Decimal | None) -> Decimal | None:
    return None if nano is None else nano * 1_000_000 / NANO


def sellers(book: PriceBook, model: str, at: datetime) -> list[str]:
    """Providers that have a price for the name: on their lists, at any time; or, at the moment (UTC), by another
    spelling of it or as a host of a vendor's models at his prices. Not those where it could only be guessed."""
    known = (name for name in book.providers if (rates := book.find(name, model, at)) and not rates.guessed_model)
    return sorted({*book.sellers(model), *known})


def at_sellers(book: PriceBook, model: str, provider: str | None, at: datetime) -> list[Offer]:
    """The rates of a model at one provider, or at all that have it; of sellers with the same rates, one's."""
    found: list[Offer] = []
    for seller in [provider] if provider else sellers(book, model, at):
        here = offers(book, seller, model, at)
        same = [[msgspec.structs.replace(offer, provider=other.provider) for offer in here] for other in found]
        found += [] if any(copy and all(offer in found for offer in copy) for copy in same) else here
    return found


def near(book: PriceBook, model: str) -> list[str]:
    """Names in the book that a person may have meant."""
    names = {model.id for provider in book.lists.values() for model in provider.models}
    return difflib.get_close_matches(model.lower(), sorted(names), n=5, cutoff=0.6)


class Change(msgspec.Struct, frozen=True):
    """What differs between two books for one model. `rate` is `None` for a model that only one of them has."""

    provider: str
    model: str
    what: str
    """`added`, `removed` or `changed`."""
    service_tier: str | None = None
    over_input_tokens: int = 0
    rates: tuple[str, ...] = ()
    """Kinds of tokens (USD per million) or a unit (USD each) whose price changes alike."""
    since: datetime | None = None
    """First moment at which they differ, UTC; `None` = ever."""
    old: Decimal | None = None
    new: Decimal | None = None

    @property
    def percent(self) -> Decimal | None:
        """By how much the new price is above the old one; `None` where one of them is missing or 0."""
        if self.old is None or self.new is None or not self.old:
            return None
        return (self.new - self.old) / self.old * 100


def changes(old: PriceBook, new: PriceBook, at: datetime) -> list[Change]:
    """What differs between the lists of two snapshots, at any moment. `at`: UTC, its day is taken for daily hours."""
    found: list[Change] = []
    for provider in sorted({*old.lists, *new.lists}):
        before, after = _models(old.lists.get(provider)), _models(new.lists.get(provider))
        for model in sorted({*before, *after}):
            if model not in after or model not in before:
                found.append(Change(provider, model, "removed" if model in before else "added"))
            else:
                found += _changed(provider, before[model], after[model], at)
    return found


def _models(provider: Provider | None) -> dict[str, Model]:
    return {model.id: model for model in provider.models} if provider else {}


Key = tuple[str | None, int, str]
"""Service tier, context limit, rate."""


def _changed(provider: str, old: Model, new: Model, at: datetime) -> Iterator[Change]:
    dated = {*old.dated(at.date()), *new.dated(at.date())}
    tiers = (None, *sorted({tier for _, tier in dated if tier}))
    now: dict[Key, tuple[Decimal | None, Decimal | None]] = {}
    for moment in sorted({moment or EVER for moment, _ in dated} | {EVER}):
        alike: dict[tuple[str | None, int, Decimal | None, Decimal | None], list[str]] = {}
        for tier in tiers:
            before, after = _flat(old, moment, tier), _flat(new, moment, tier)
            for key in sorted(before.keys() | after.keys(), key=str):
                pair = before.get(key), after.get(key)
                if now.get(key, (None, None)) != pair and pair[0] != pair[1]:
                    alike.setdefault((key[0], key[1], *pair), []).append(key[2])
                now[key] = pair
        since = None if moment == EVER else moment
        for (tier, limit, was, becomes), rates in alike.items():
            yield Change(provider, old.id, "changed", tier, limit, tuple(rates), since, was, becomes)


def _flat(model: Model, at: datetime, tier: str | None) -> Mapping[Key, Decimal]:
    """A model's own rates of a tier; without any of its own, the tier has none here."""
    said = model.quote(at, tier)
    if tier is not None and not (said.of_tier and said.is_certain):
        return {}
    flat: dict[Key, Decimal] = {}
    for band in said.rates.bands:
        for name in _TOKEN_NAMES:
            if (usd := _per_million(getattr(band.rates, name))) is not None:
                flat[tier, band.over_input_tokens, name] = usd
        for unit, rate in {**band.rates.each, **band.rates.once}.items():
            flat[tier, band.over_input_tokens, unit] = rate / NANO
    return flat
