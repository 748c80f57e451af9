"""An installation's own prices, aliases and discounts: `config/prices.toml`. The file's help describes each entry."""

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from gateway.prices.rates import Band, Rates, RateSet, usd_per

RATE_USD_MAX = 100_000
"""Highest believable rate, USD per million tokens. With `TOKENS_MAX` it keeps every cost inside `DECIMAL(18,9)`."""
FEE_USD_MAX = 100
"""Highest believable fee, USD each."""

TOKEN_NAMES = tuple(name for name in Rates.__struct_fields__ if name != "each")
UNIT_NAMES = (
    "web_search_requests", "requests", "file_searches", "search_units", "seconds", "pages", "annotated_pages",
    "characters", "messages", "images", "citation_tokens",
)  # fmt: skip

ENTRIES = {
    "price": ("provider", "model", "service_tier", "valid_from", "valid_to", "usd_per_million", "usd_each"),
    "alias": ("provider", "model", "to"),
    "discount": ("provider", "model", "percent", "valid_from", "valid_to"),
}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """`valid_from` ≤ moment < `valid_to`, UTC."""

    valid_from: datetime | None = None
    valid_to: datetime | None = None

    def active(self, at: datetime) -> bool:
        return (self.valid_from is None or at >= self.valid_from) and (self.valid_to is None or at < self.valid_to)

    def overlaps(self, other: "Span") -> bool:
        return (self.valid_to is None or other.valid_from is None or other.valid_from < self.valid_to) and (
            other.valid_to is None or self.valid_from is None or self.valid_from < other.valid_to
        )


class OwnPrice(Span, frozen=True, kw_only=True):
    rate_set: RateSet
    service_tier: str | None
    """`None` = every tier that has no entry of its own."""


class Discount(Span, frozen=True, kw_only=True):
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
        """Percent off, of the first entry that matches one of the names; `None` when none does."""
        if not self.discounts:
            return None
        names = [model.lower() for model in models if model]
        for entry in self.discounts:
            ours = entry.provider == provider.lower() and entry.active(at)
            if ours and any(fnmatchcase(name, entry.model) for name in names):
                return entry.percent
        return None


def load_overrides(path: Path) -> Overrides:
    """Read `prices.toml`. Raises `ValueError` with one line per problem, naming the entry and what to write instead."""
    try:
        source = path.read_bytes()
        tables = tomllib.loads(source.decode(), parse_float=Decimal)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: is not valid TOML: {error}") from None
    reader = _Reader(path)
    overrides = reader.read(tables, hashlib.sha256(source).hexdigest()[:8])
    if reader.problems:
        raise ValueError("\n".join(reader.problems))
    return overrides


class _Reader:
    """Collects every problem of a file, so that one run shows them all."""

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self._path = path
        self._entry = ""

    def read(self, tables: Mapping[str, Any], digest: str) -> Overrides:
        self._known(tables, ENTRIES, "table")
        prices: dict[tuple[str, str], tuple[OwnPrice, ...]] = {}
        aliases: dict[tuple[str, str], str] = {}
        discounts: list[Discount] = []
        for entry in self._entries(tables, "price"):
            key = self._text(entry, "provider"), self._text(entry, "model")
            price = self._price(entry, *key)
            others = prices.get(key, ())
            if any(price.service_tier == other.service_tier and price.overlaps(other) for other in others):
                self._problem("overlaps an earlier [[price]] of this model: end that one with valid_to")
            prices[key] = (*others, price)
        for entry in self._entries(tables, "alias"):
            aliases[self._text(entry, "provider"), self._text(entry, "model")] = self._text(entry, "to")
        for entry in self._entries(tables, "discount"):
            provider, model = self._text(entry, "provider"), self._text(entry, "model", "*")
            start, end = self._span(entry)
            percent = self._number(entry, "percent", -100, 100)
            discounts.append(
                Discount(provider=provider, model=model, percent=percent, valid_from=start, valid_to=end)
            )  # fmt: skip
        return Overrides(prices, aliases, tuple(discounts), digest if prices or aliases or discounts else "")

    def _price(self, entry: Mapping[str, Any], provider: str, model: str) -> OwnPrice:
        start, end = self._span(entry)
        tier = self._text(entry, "service_tier", "") or None
        tokens = self._rates(entry, "usd_per_million", TOKEN_NAMES, RATE_USD_MAX)
        units = self._rates(entry, "usd_each", UNIT_NAMES, FEE_USD_MAX)
        if not tokens and not units:
            self._problem('has no rate: write usd_per_million = { input = "2.50", output = "10" }')
        if tokens and "input" not in tokens:
            self._problem('needs usd_per_million "input" (and "output" unless the model has none)')
        rates = Rates(
            **{name: usd_per(value, 1_000_000) for name, value in tokens.items()},
            each={name: usd_per(value, 1) for name, value in units.items()},
        ).complete()
        label = f"own:{provider}/{model}" + (f"@{start:%Y-%m-%d}" if start else "") + (f"#{tier}" if tier else "")
        rate_set = RateSet(provider, model, label, "exact", (Band(0, rates),))
        return OwnPrice(rate_set=rate_set, service_tier=tier, valid_from=start, valid_to=end)

    def _entries(self, tables: Mapping[str, Any], kind: str) -> Iterable[Mapping[str, Any]]:
        self._entry = ""
        entries = tables.get(kind, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._problem(f"write [[{kind}]] with two brackets, once per entry")
            return
        for number, entry in enumerate(entries, start=1):
            self._entry = f"[[{kind}]] {number}: "
            self._known(entry, ENTRIES[kind], "key")
            yield entry

    def _known(self, table: Mapping[str, Any], names: Iterable[str], what: str) -> None:
        names = tuple(names)
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                advice = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(names)}"
                self._problem(f'unknown {what} "{key}"; {advice}')

    def _rates(self, entry: Mapping[str, Any], key: str, names: Iterable[str], most: int) -> dict[str, Decimal]:
        table = entry.get(key, {})
        if not isinstance(table, dict):
            self._problem(f'{key} must be a table such as {{ {next(iter(names))} = "2.50" }}')
            return {}
        self._known(table, names, "rate")
        return {name: self._number(table, name, 0, most) for name in names if name in table}

    def _text(self, entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = entry.get(key, default)
        if isinstance(value, str) and (value.strip() or value == default):
            return value.strip().lower()
        self._problem(f'needs {key} = "…"')
        return ""

    def _number(self, table: Mapping[str, Any], key: str, least: int, most: int) -> Decimal:
        value = table.get(key)
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
                raise InvalidOperation
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite() and least <= number <= most:
            return number
        self._problem(f'{key} must be a number from {least} to {most}, such as "2.50"')
        return Decimal(0)

    def _span(self, entry: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
        start, end = (self._moment(entry, key) for key in ("valid_from", "valid_to"))
        if start and end and start >= end:
            self._problem("valid_to must be later than valid_from")
        return start, end

    def _moment(self, entry: Mapping[str, Any], key: str) -> datetime | None:
        value = entry.get(key)
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        if value is not None:
            self._problem(f"{key} must be a date without quotes, such as 2027-01-01")
        return None

    def _problem(self, message: str) -> None:
        self.problems.append(f"{self._path}: {self._entry}{message}")
