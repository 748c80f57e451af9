"""An installation's own prices, aliases and discounts: `config/prices.toml`. The file's help describes each entry."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from gateway.prices.entries import PRICE_KEYS, OwnPrice, Reader, Span
from gateway.prices.snapshot import PROVIDERS

ENTRIES = {
    "price": PRICE_KEYS,
    "alias": ("provider", "model", "to"),
    "discount": ("provider", "model", "percent", "valid_from", "valid_to"),
}


class Discount(Span, frozen=True, kw_only=True, eq=False):
    provider: str
    model: str
    """A glob."""
    percent: Decimal
    """Off the list price; negative = a surcharge."""


class Overrides(msgspec.Struct, frozen=True):
    """What an installation puts on top of a snapshot. Names are lower case."""

    prices: Mapping[tuple[str, str], tuple[OwnPrice, ...]] = msgspec.field(default_factory=dict)
    aliases: Mapping[tuple[str, str], str] = msgspec.field(default_factory=dict)
    discounts: tuple[Discount, ...] = ()
    digest: str = ""
    """Eight hex digits of the file's hash when it says anything: part of the price book's id."""

    def own(self, provider: str, model: str) -> tuple[OwnPrice, ...]:
        return self.prices.get((provider, model), ())

    def alias(self, provider: str, model: str) -> str | None:
        return self.aliases.get((provider, model))

    def discount(self, provider: str, models: Sequence[str | None], at: datetime) -> Decimal | None:
        """Percent off, of the first entry that matches one of the names or aliases; `None` when none does."""
        if not self.discounts:
            return None
        names = [model.lower() for model in models if model]
        names += [alias for name in names if (alias := self.alias(provider.lower(), name))]
        for entry in self.discounts:
            ours = entry.provider == provider.lower() and entry.active(at)
            if ours and any(fnmatchcase(name, entry.model) for name in names):
                return entry.percent
        return None


def load_overrides(path: Path, providers: Collection[str] = ()) -> Overrides:
    """Read `prices.toml`. Raises `ValueError` with one line per problem, naming the entry and what to write instead.

    `providers` are the names that calls can have; any other is taken for new, unless it looks like a slip of one.
    """
    reader = Reader(path, ENTRIES)
    for kind in ENTRIES:
        for entry in reader.entries(kind):
            _check_provider(reader, entry, providers)
    prices = reader.prices("price", "own")
    aliases: dict[tuple[str, str], str] = {}
    for entry in reader.entries("alias"):
        key, target = (reader.text(entry, "provider"), reader.text(entry, "model")), reader.text(entry, "to")
        if key in aliases:
            reader.problem(f'is the second alias of "{key[1]}": a name stands for one model')
        if target and target == key[1]:
            reader.problem('names itself: "to" must be another model')
        aliases[key] = target
    discounts = []
    for entry in reader.entries("discount"):
        start, end = reader.span(entry)
        discounts.append(
            Discount(
                provider=reader.text(entry, "provider"),
                model=reader.text(entry, "model", "*"),
                percent=reader.number(entry, "percent", -100, 100),
                valid_from=start,
                valid_to=end,
            )
        )
    reader.finish()
    return Overrides(prices, aliases, tuple(discounts), reader.digest if prices or aliases or discounts else "")


def _check_provider(reader: Reader, entry: Mapping[str, Any], providers: Collection[str]) -> None:
    name = entry.get("provider")
    if isinstance(name, str) and (meant := providers_meant(name, providers)):
        reader.problem(f'unknown provider "{name.strip().lower()}"; did you mean {" or ".join(meant)}?')


def providers_meant(name: str, providers: Collection[str]) -> list[str]:
    """Known providers that an unknown name is a slip of; none for a known one, and for one like no other."""
    name = name.strip().lower()
    if name in providers:
        return []
    meant = [ours for ours, theirs in PROVIDERS.items() if theirs == name and ours in providers]
    return meant or difflib.get_close_matches(name, providers, n=1, cutoff=0.8)
