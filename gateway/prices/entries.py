"""Reading price entries from TOML: an installation's `prices.toml` and the shipped supplement share a format."""

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import msgspec

from gateway.prices.rates import TOKEN_NAMES, Band, Rates, RateSet, usd_per

RATE_USD_MAX = 100_000
"""Highest believable rate, USD per million tokens. With `TOKENS_MAX` it keeps every cost inside `DECIMAL(18,9)`."""
FEE_USD_MAX = 100
"""Highest believable fee, USD each."""

UNIT_NAMES = (
    "web_search_requests", "requests", "file_searches", "search_units", "seconds", "pages", "annotated_pages",
    "characters", "messages", "images", "citation_tokens", "social_searches", "attachment_searches",
    "code_executions", "containers", "search_context_medium", "search_context_high",
)  # fmt: skip
"""`requests` counts once in every call, the others as `Usage.web_search_requests` and `Usage.other_units` say."""

PRICE_KEYS = (
    "provider", "model", "service_tier", "valid_from", "valid_to", "usd_per_million", "usd_each", "usd_once",
)  # fmt: skip

STANDARD_TIERS = frozenset({"default", "standard", "standard_only", "auto", "on_demand"})


@lru_cache(1024)
def tier_of(service_tier: str | None, *, batch: bool = False) -> str | None:
    """`None` for the standard tier. Vertex says `ON_DEMAND_FLEX` for what others call `flex`."""
    if batch:
        return "batch"
    tier = (service_tier or "default").lower()
    return None if tier in STANDARD_TIERS else tier.removeprefix("on_demand_")


class Span(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`valid_from` ≤ moment < `valid_to`, UTC. An entry is equal to itself alone, so that it is a quick key."""

    valid_from: datetime | None = None
    valid_to: datetime | None = None

    def active(self, at: datetime) -> bool:
        return (self.valid_from is None or at >= self.valid_from) and (self.valid_to is None or at < self.valid_to)

    def ends(self) -> tuple[datetime | None, ...]:
        """Where it begins (`None` = ever) and, if it does, ends."""
        return (self.valid_from, self.valid_to) if self.valid_to else (self.valid_from,)

    def overlaps(self, other: "Span") -> bool:
        return (self.valid_to is None or other.valid_from is None or other.valid_from < self.valid_to) and (
            other.valid_to is None or self.valid_from is None or self.valid_from < other.valid_to
        )


class OwnPrice(Span, frozen=True, kw_only=True, eq=False):
    """All rates of a model."""

    rate_set: RateSet
    service_tier: str | None
    """`None` = every tier that has no entry of its own."""


def in_force(prices: Iterable[OwnPrice], at: datetime, tier: str | None) -> OwnPrice | None:
    """The entry for the tier, or else the one for every tier."""
    active = [price for price in prices if price.active(at)]
    return next((price for wanted in (tier, None) for price in active if price.service_tier == wanted), None)


class Reader:
    """One file. Collects every problem in it, so that one run shows them all: `finish` raises them."""

    def __init__(self, path: Path, kinds: Mapping[str, tuple[str, ...]]) -> None:
        """`kinds`: table → its entries' keys. Raises `ValueError` (one readable line) when the file is not TOML."""
        self._path = path
        self._kinds = kinds
        self._problems: list[str] = []
        self._entry = ""
        try:
            source = path.read_bytes()
            self._tables = tomllib.loads(source.decode(), parse_float=Decimal)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: is not valid TOML: {error}") from None
        self.digest = hashlib.sha256(source).hexdigest()[:8]
        """Eight hex digits of the file's hash."""
        self.known(self._tables, kinds, "table")

    def finish(self) -> Self:
        if self._problems:
            raise ValueError("\n".join(self._problems))
        return self

    def entries(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """The entries of a table; a problem found while one is read names it."""
        self._entry = ""
        entries = self._tables.get(kind, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.problem(f"write [[{kind}]] with two brackets, once per entry")
            return
        for number, entry in enumerate(entries, start=1):
            self._entry = f"[[{kind}]] {number}: "
            self.known(entry, self._kinds[kind], "key")
            yield entry
        self._entry = ""

    def price(self, entry: Mapping[str, Any], origin: str) -> OwnPrice:
        """An entry with all rates of a model. `origin` begins its price id: `own` is the installation's."""
        provider, model = self.text(entry, "provider"), self.text(entry, "model")
        if any(sign in model for sign in "*?["):
            self.problem(f'model must be one name, not a pattern such as "{model}": one entry per model')
        start, end = self.span(entry)
        tier = tier_of(self.text(entry, "service_tier", ""))
        rates = self.rates(entry)
        if (rates.input is None or rates.output is None) and any(
            getattr(rates, name) is not None for name in TOKEN_NAMES
        ):
            self.problem('needs usd_per_million "input" and "output" (output = 0 for a model without: embeddings, …)')
        label = f"{origin}:{provider}/{model}" + (f"@{start:%Y-%m-%d}" if start else "") + (f"#{tier}" if tier else "")
        rate_set = RateSet(provider, model, label, (Band(0, rates.complete()),), own=origin == "own")
        return OwnPrice(rate_set=rate_set, service_tier=tier, valid_from=start, valid_to=end)

    def prices(self, kind: str, origin: str) -> dict[tuple[str, str], tuple[OwnPrice, ...]]:
        """(provider, model) → entries that do not overlap."""
        prices: dict[tuple[str, str], tuple[OwnPrice, ...]] = {}
        for entry in self.entries(kind):
            price = self.price(entry, origin)
            key = price.rate_set.provider, price.rate_set.model
            others = prices.get(key, ())
            if any(price.service_tier == other.service_tier and price.overlaps(other) for other in others):
                self.problem(f"overlaps an earlier [[{kind}]] of this model: end that one with valid_to")
            prices[key] = (*others, price)
        return prices

    def rates(self, entry: Mapping[str, Any]) -> Rates:
        """What the entry states, and nothing else."""
        tokens = self._numbers(entry, "usd_per_million", TOKEN_NAMES, RATE_USD_MAX)
        each = self._numbers(entry, "usd_each", UNIT_NAMES, FEE_USD_MAX)
        once = self._numbers(entry, "usd_once", UNIT_NAMES, FEE_USD_MAX)
        if not tokens and not each and not once:
            self.problem('has no rate: write usd_per_million = { input = "2.50", output = "10" }')
        for unit in each.keys() & once.keys():
            self.problem(f'has "{unit}" in usd_each and in usd_once: a unit is billed one way')
        return Rates(
            **{name: usd_per(value, 1_000_000) for name, value in tokens.items()},
            each={name: usd_per(value, 1) for name, value in each.items()},
            once={name: usd_per(value, 1) for name, value in once.items()},
        )

    def known(self, table: Mapping[str, Any], names: Iterable[str], what: str) -> None:
        names = tuple(names)
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                advice = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(names)}"
                self.problem(f'unknown {what} "{key}"; {advice}')

    def _numbers(self, entry: Mapping[str, Any], key: str, names: Iterable[str], most: int) -> dict[str, Decimal]:
        table = entry.get(key, {})
        if not isinstance(table, dict):
            self.problem(f'{key} must be a table such as {{ {next(iter(names))} = "2.50" }}')
            return {}
        self.known(table, names, "rate")
        return {name: self.number(table, name, 0, most) for name in names if name in table}

    def text(self, entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
        """Stripped and in lower case."""
        value = entry.get(key, default)
        if isinstance(value, str) and (value.strip() or value == default):
            return value.strip().lower()
        self.problem(f'needs {key} = "…"')
        return ""

    def texts(self, entry: Mapping[str, Any], key: str, default: str | None = None) -> tuple[str, ...]:
        """One text or a list of them."""
        value = entry.get(key, default)
        values = value if isinstance(value, list) and value else [value]
        return tuple(self.text({key: value}, key) for value in values)

    def number(self, table: Mapping[str, Any], key: str, least: int, most: int) -> Decimal:
        value = table.get(key)
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
                raise InvalidOperation
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite() and least <= number <= most:
            return number
        self.problem(f'{key} must be a number from {least} to {most}, such as "2.50"')
        return Decimal(0)

    def span(self, entry: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
        start, end = (self.moment(entry, key) for key in ("valid_from", "valid_to"))
        if start and end and start >= end:
            self.problem("valid_to must be later than valid_from")
        return start, end

    def moment(self, entry: Mapping[str, Any], key: str) -> datetime | None:
        value = entry.get(key)
        if isinstance(value, datetime):
            try:
                return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
            except OverflowError:
                self.problem(f"{key} is outside the calendar: leave it out")
                return None
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        if value is not None:
            self.problem(f"{key} must be a date without quotes, such as 2027-01-01")
        return None

    def problem(self, message: str) -> None:
        self._problems.append(f"{self._path}: {self._entry}{message}")
