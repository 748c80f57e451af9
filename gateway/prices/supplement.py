"""What the snapshot does not say: fees, factors by region and tier, single rates, some models. A shipped, sourced file.

Three kinds of entry, each with `source` and the day it was `checked`. Outside a `[[price]]` the provider is a glob, and
`model`, `region` and `service_tier` are one glob or a list of them:
`[[price]]` has all rates of a model that the provider's own list lacks; `[[rate]]` adds single rates to a listed model
(with `replaces`, it also overrules the list); `[[factor]]` multiplies a call's token rates, by `region` or
`service_tier`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from gateway.prices.entries import PRICE_KEYS, OwnPrice, Reader, Span
from gateway.prices.rates import Rates

SUPPLEMENT = Path(__file__).parent.parent / "price_books" / "supplement-2026-11-25.toml"
"""The shipped supplement."""

_PROOF = ("source", "checked")
ENTRIES = {
    "price": (*PRICE_KEYS, *_PROOF),
    "rate": (
        "provider", "model", "valid_from", "valid_to", "usd_per_million", "usd_each", "usd_once", "replaces", *_PROOF
    ),
    "factor": ("provider", "model", "region", "service_tier", "percent", "valid_from", "valid_to", *_PROOF),
}  # fmt: skip
ANYWHERE = ("global", "not_available")
"""Regions that no factor applies to: the list price is the price of being served anywhere."""


class _Change(Span, frozen=True, kw_only=True, eq=False):
    provider: str
    models: tuple[str, ...]

    def concerns(self, sellers: Iterable[str], names: Iterable[str]) -> bool:
        """`sellers`: the provider and whose list it is; `names` of one model: what its list calls it and what found
        it."""
        if not any(fnmatchcase(seller, self.provider) for seller in sellers):
            return False
        return any(fnmatchcase(name, model) for name in names for model in self.models)


class ExtraRates(_Change, frozen=True, kw_only=True, eq=False):
    rates: Rates
    replaces: bool

    def on(self, rates: Rates) -> Rates:
        return rates.overlaid(self.rates) if self.replaces else self.rates.overlaid(rates)


class Factor(_Change, frozen=True, kw_only=True, eq=False):
    """Of regions or of service tiers. Fees are not multiplied."""

    regions: tuple[str, ...]
    """Globs."""
    service_tiers: tuple[str, ...]
    percent: Decimal
    """Above the list price; negative = below."""

    @property
    def multiplier(self) -> Decimal:
        return ((100 + self.percent) / 100).normalize()

    def of_tier(self, at: datetime, tier: str | None) -> bool:
        return tier in self.service_tiers and self.active(at)

    def of_region(self, at: datetime, region: str | None) -> bool:
        """`*` is any region but `ANYWHERE`."""
        if not self.regions or region is None or region in ANYWHERE:
            return False
        return any(fnmatchcase(region, glob) for glob in self.regions) and self.active(at)


class Supplement(msgspec.Struct, frozen=True):
    prices: Mapping[tuple[str, str], tuple[OwnPrice, ...]] = msgspec.field(default_factory=dict)
    rates: tuple[ExtraRates, ...] = ()
    factors: tuple[Factor, ...] = ()
    digest: str = ""
    """Eight hex digits of the file's hash: part of the price book's id."""

    def price(self, provider: str, model: str) -> tuple[OwnPrice, ...]:
        return self.prices.get((provider, model), ())


def load_supplement(path: Path) -> Supplement:
    """Raises `ValueError` with one line per problem, naming the entry and what to write instead."""
    reader = Reader(path, ENTRIES)
    prices = reader.prices("price", "supplement")
    rates = []
    for entry in reader.entries("rate"):
        start, end = reader.span(entry)
        rates.append(
            ExtraRates(
                provider=reader.text(entry, "provider"),
                models=reader.texts(entry, "model"),
                rates=reader.rates(entry),
                replaces=entry.get("replaces", False) is True,
                valid_from=start,
                valid_to=end,
            )
        )
    factors = []
    for entry in reader.entries("factor"):
        start, end = reader.span(entry)
        if ("region" in entry) == ("service_tier" in entry):
            reader.problem("needs either region or service_tier")
        factors.append(
            Factor(
                provider=reader.text(entry, "provider"),
                models=reader.texts(entry, "model", "*"),
                regions=reader.texts(entry, "region") if "region" in entry else (),
                service_tiers=reader.texts(entry, "service_tier") if "service_tier" in entry else (),
                percent=reader.number(entry, "percent", -100, 1000),
                valid_from=start,
                valid_to=end,
            )
        )
    for kind in ENTRIES:
        for entry in reader.entries(kind):
            reader.text(entry, "source")
            if reader.moment(entry, "checked") is None:
                reader.problem("needs checked = the day its source was read, such as 2026-11-25")
    reader.finish()
    return Supplement(prices, tuple(rates), tuple(factors), reader.digest)
