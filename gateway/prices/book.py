"""The price book: which rates a call pays. Compiled from a snapshot file, with an installation's overrides on top.

A snapshot is gzip around two lines of JSON: a header with the SHA-256 of the second line, and the payload that
`tools/price_snapshot.py` writes. Of a model's `periods` the last that is active counts (and the first when none is);
`variants` then replace single rates for a service tier or batch.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.call import Cost, PriceStatus, SubPass, Usage
from gateway.prices.overrides import Overrides, OwnPrice
from gateway.prices.rates import ZERO, Band, Rates, RateSet, parts, usd_per, whole

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

TOKEN_RATES = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
    "output_reasoning_mtok": "output_reasoning",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cache_read_audio",
    "output_audio_mtok": "output_audio",
    "input_image_mtok": "input_image",
    "cache_image_read_mtok": "cache_read_image",
    "output_image_mtok": "output_image",
}
UNIT_RATES = {
    "web_searches_kcount": "web_search_requests",
    "storage_searches_kcount": "file_searches",
    "requests_kcount": "requests",
    "rerank_searches_kcount": "search_units",
    "audio_hours": "seconds",
    "input_audio_hours": "seconds",
    "input_document_kpages": "pages",
    "input_annotated_document_kpages": "annotated_pages",
    "input_mchars": "characters",
    "input_text_messages_kcount": "messages",
    "output_citation_mtok": "citation_tokens",
}
"""The snapshot's price keys → fields of `Rates`, and units of `Rates.each`. Others (video) are not metered."""

STANDARD_TIERS = frozenset({"default", "standard", "standard_only", "auto", "on_demand"})
CACHED_LOOKUPS = 4096

Rate = Decimal | tuple[Decimal, list[tuple[int, Decimal]]]
"""USD per unit of the key; or base and, ascending, what the whole call costs above so many input tokens."""
RateTable = Mapping[str, Rate]


class Period(msgspec.Struct, frozen=True, rename={"start": "from"}):
    """Rates from a UTC date on, or daily between two UTC times. A variant also says `when`."""

    rates: dict[str, Rate] = {}
    start: date | None = None
    daily: tuple[time, time] | None = None
    when: dict[str, str] = {}

    def active(self, at: datetime) -> bool:
        if self.daily is not None:
            start, end = self.daily
            now = at.time()
            return start <= now < end if start <= end else now >= start or now < end
        return self.start is None or at.date() >= self.start

    def label(self) -> str:
        if self.daily is not None:
            return f"@{self.daily[0]:%H:%M}-{self.daily[1]:%H:%M}"
        return f"@{self.start}" if self.start else ""


class ModelData(msgspec.Struct, frozen=True):
    id: str
    match: dict[str, Any]
    periods: list[Period]
    variants: list[Period] = []


class ProviderData(msgspec.Struct, frozen=True):
    id: str
    models: list[ModelData] = []
    match: dict[str, Any] | None = None
    fallback: list[str] = []


class Payload(msgspec.Struct, frozen=True):
    units: dict[str, int]
    providers: list[ProviderData]


class Header(msgspec.Struct, frozen=True):
    source: str
    source_version: str
    created_at: date
    licence: str
    sha256: str


Rule = Callable[[str], bool]


class Model:
    """One model of one provider: `rate_set` is what it costs at a moment."""

    def __init__(self, provider: str, data: ModelData, units: Mapping[str, int]) -> None:
        self.id = data.id
        self._provider = provider
        self._data = data
        self._units = units
        self._compiled: dict[tuple[bool, int, tuple[int, ...]], RateSet] = {}

    def rate_set(self, at: datetime, tier: str | None) -> RateSet:
        """`status` is `exact`, or `fallback` when `tier` has no rates of its own at that time."""
        period = self._period(at)
        variants, known = self._variants(at, period, tier)
        key = (known, period, variants)
        if (found := self._compiled.get(key)) is None:
            found = self._compiled[key] = self._compile(tier, period, variants, known=known)
        return found

    def _period(self, at: datetime) -> int:
        periods = self._data.periods
        return next((i for i in reversed(range(len(periods))) if periods[i].active(at)), 0)

    def _variants(self, at: datetime, period: int, tier: str | None) -> tuple[tuple[int, ...], bool]:
        """The variants that apply, and whether that is certain."""
        if tier is None:
            return (), True
        named = [i for i, variant in enumerate(self._data.variants) if tier in variant.when.values()]
        if active := tuple(i for i in named if self._data.variants[i].active(at)):
            return active, True
        # The source dates a variant by the day it was written down, not the day it was sold: an earlier call takes it
        # too, flagged, as long as the standard price was the same.
        for i in sorted(named, key=lambda i: self._data.variants[i].start or date.max):
            start = self._data.variants[i].start
            if start is not None and self._period(datetime.combine(start, at.time(), UTC)) == period:
                return (i,), False
        return (), False

    def _compile(self, tier: str | None, period: int, variants: tuple[int, ...], *, known: bool) -> RateSet:
        table: dict[str, Rate] = {}
        for i in variants:
            table = self._data.variants[i].rates | table  # the first that names a rate wins
        chosen = self._data.periods[period]
        label = f"{self._provider}/{self.id}{chosen.label()}" + (f"#{tier}" if variants else "")
        rates = dict(chosen.rates) | table
        if not rates and self.id.endswith(":free"):
            rates = {"input_mtok": ZERO, "output_mtok": ZERO}
        bands = _bands(rates, self._units) if rates else ()
        return RateSet(self._provider, self.id, label, "exact" if known else "fallback", bands)


class Provider:
    """A provider's models and the rules that find one by name. The first rule that matches wins."""

    def __init__(self, data: ProviderData, units: Mapping[str, int]) -> None:
        self.id = data.id
        self.fallback = tuple(data.fallback)
        self.models = [Model(data.id, model, units) for model in data.models]
        self.named = _rule(data.match) if data.match else None
        # Nine of ten rules are plain equality: one dictionary, so that a miss costs microseconds, not milliseconds.
        self._equal: dict[str, int] = {}
        self._bare: dict[str, int] = {}
        self._rules: list[tuple[int, Rule]] = []
        for i, model in enumerate(data.models):
            for clause in model.match.get("or", [model.match]):
                if "equals" in clause:
                    name = clause["equals"].lower()
                    self._equal.setdefault(name, i)
                    self._bare.setdefault(name.rsplit("/", 1)[-1], i)
                else:
                    self._rules.append((i, _rule(clause)))

    def find(self, name: str) -> Model | None:
        best = self._equal.get(name)
        for i, matches in self._rules:
            if best is not None and i >= best:
                break
            if matches(name):
                best = i
                break
        return None if best is None else self.models[best]

    def find_bare(self, name: str) -> Model | None:
        """The model that this provider, a reseller, lists as `vendor/name`."""
        return self.models[self._bare[name]] if name in self._bare else None


class Entry(NamedTuple):
    """What is known of a (provider, names) pair at any time."""

    own: tuple[OwnPrice, ...]
    own_status: PriceStatus
    models: tuple[Model, ...]
    """Several only for a fallback: the dearest counts."""
    status: PriceStatus


class PriceBook:
    """Prices calls. Build with `PriceBook.load`; immutable but for its caches."""

    def __init__(self, book_id: str, providers: Mapping[str, Provider], overrides: Overrides) -> None:
        self.id = book_id
        """`genai-prices-0.2.3-` and eight digits of the payload's hash; with overrides, `+` and eight of theirs."""
        self._providers = providers
        self._overrides = overrides
        self._entry = lru_cache(CACHED_LOOKUPS)(self._look_up)

    @classmethod
    def load(cls, path: Path) -> "PriceBook":
        """Read a snapshot. Raises `ValueError` (one readable line) unless its hash and shape are right."""
        try:
            head, _, payload = gzip.decompress(path.read_bytes()).partition(b"\n")
            header = msgspec.json.decode(head, type=Header)
        except OSError as error:
            raise ValueError(f"{path}: the price snapshot cannot be read: {error.strerror or 'not gzip'}") from None
        except (EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError):
            raise ValueError(f"{path}: not a price snapshot; make one with tools/price_snapshot.py") from None
        payload = payload.removesuffix(b"\n")
        digest = hashlib.sha256(payload).hexdigest()
        if digest != header.sha256:
            raise ValueError(
                f"{path}: SHA-256 of the prices is {digest[:12]}…, the header says {header.sha256[:12]}…: the file was "
                "changed; restore it or make a new one with tools/price_snapshot.py"
            )
        try:
            data = msgspec.json.decode(payload, type=Payload)
            _validate(data)
            providers = {provider.id: Provider(provider, data.units) for provider in data.providers}
        except (msgspec.DecodeError, ValueError, re.error) as error:
            raise ValueError(f"{path}: the price snapshot is malformed: {error}") from None
        return cls(f"{header.source}-{header.source_version}-{digest[:8]}", providers, Overrides())

    def with_overrides(self, overrides: Overrides) -> "PriceBook":
        """This book with an installation's own prices, aliases and discounts on top."""
        book_id = self.id.partition("+")[0] + (f"+{overrides.digest}" if overrides.digest else "")
        return PriceBook(book_id, self._providers, overrides)

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
    ) -> Cost:
        """The cost of a usage at a moment (UTC). `models`: the served name first, then the one asked for.

        Never raises on odd usage. All amounts are `None` when nothing that the usage counts has a rate.
        """
        found = self._rate_set(provider, models, at, _tier(service_tier, batch=batch))
        band = found.band(usage.input_tokens or 0) if found else None
        cost = parts(band.rates, usage) if band else None
        if found is None or band is None or cost is None:
            return Cost("unpriced", self.id)
        total = sum(cost)
        percent = self._overrides.discount(provider, models, at)
        return Cost(
            found.status,
            self.id,
            found.price_id + (f">{band.over_input_tokens}" if band.over_input_tokens else ""),
            total,
            cost.input,
            cost.cache_read,
            cost.cache_write,
            cost.output,
            cost.other,
            total if percent is None else whole(total * (100 - percent) / 100),
        )

    def find(self, provider: str, model: str, at: datetime, *, service_tier: str | None = None) -> RateSet | None:
        """The rates a call of `model` would pay at a moment (UTC), before discounts; `None` when there are none."""
        return self._rate_set(provider, (model,), at, _tier(service_tier))

    def _rate_set(self, provider: str, models: Sequence[str | None], at: datetime, tier: str | None) -> RateSet | None:
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        entry = self._entry(provider.lower(), tuple(model.lower() for model in models if model))
        own = [price for price in entry.own if price.active(at)]
        for price in own:
            if price.service_tier == tier:
                return _with_status(price.rate_set, entry.own_status)
        for price in own:
            if price.service_tier is None:
                return _with_status(price.rate_set, entry.own_status)
        # An empty price list may mean free, included or unknown: only a name that says `:free` is taken for free.
        candidates = [found for model in entry.models if (found := model.rate_set(at, tier)).bands]
        return _with_status(max(candidates, key=RateSet.rank), entry.status) if candidates else None

    def _look_up(self, provider: str, names: tuple[str, ...]) -> Entry:
        """Own prices before the table; the table by each name before another provider's by any."""
        aliases = [alias for name in names if (alias := self._overrides.alias(provider, name))]
        steps: list[tuple[str, PriceStatus]] = [
            *((alias, "alias") for alias in aliases),
            *((name, "alias" if name.endswith("-latest") else "exact") for name in names),
        ]
        models, status = self._in_table(provider, steps)
        for name in (*names, *aliases):
            if own := self._overrides.own(provider, name):
                return Entry(own, "exact" if name in names else "alias", models, status)
        return Entry((), "exact", models, status)

    def _in_table(
        self, provider: str, steps: Sequence[tuple[str, PriceStatus]]
    ) -> tuple[tuple[Model, ...], PriceStatus]:
        home = self._provider(provider)
        if home is not None:
            for name, status in steps:
                if model := home.find(name):
                    return (model,), status
                for rewritten in _rewritten(name):
                    if model := home.find(rewritten):
                        return (model,), "alias"
        if provider in SELF_HOSTED:
            return (), "unpriced"
        vendors = [self._providers[other] for other in home.fallback if other in self._providers] if home else []
        for providers in (vendors, self._providers.values()):
            for name, _ in steps:
                if models := _candidates(providers, (name, *_rewritten(name))):
                    return models, "fallback"
        for name, _ in steps:
            if models := _family([home, *vendors] if home else [], name):
                return models, "fallback"
        return (), "unpriced"

    def _provider(self, name: str) -> Provider | None:
        name = PROVIDERS.get(name, name)
        if name in self._providers:
            return self._providers[name]
        return next((p for p in self._providers.values() if p.named is not None and p.named(name)), None)


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


def _rule(clause: Mapping[str, Any]) -> Rule:
    """A match rule as a function of a lower-case name."""
    ((kind, value),) = clause.items()
    if kind in ("or", "and"):
        rules = [_rule(inner) for inner in value]
        test = any if kind == "or" else all
        return lambda name: test(rule(name) for rule in rules)
    if kind == "regex":
        pattern = re.compile(value)
        return lambda name: pattern.search(name) is not None
    text = value.lower()
    match kind:
        case "equals":
            return lambda name: name == text
        case "starts_with":
            return lambda name: name.startswith(text)
        case "ends_with":
            return lambda name: name.endswith(text)
        case "contains":
            return lambda name: text in name
        case _:
            raise ValueError(f'unknown match rule "{kind}"')


def _bands(table: RateTable, units: Mapping[str, int]) -> tuple[Band, ...]:
    limits = sorted({0, *(start for rate in table.values() if isinstance(rate, tuple) for start, _ in rate[1])})
    return tuple(Band(limit, _rates(table, units, limit)) for limit in limits)


def _rates(table: RateTable, units: Mapping[str, int], limit: int) -> Rates:
    tokens: dict[str, Decimal] = {}
    each: dict[str, Decimal] = {}
    for key, rate in table.items():
        if isinstance(rate, tuple):
            base, tiers = rate
            usd = next((price for start, price in reversed(tiers) if start <= limit), base)
        else:
            usd = rate
        nano = usd_per(usd, units[key])
        if key in TOKEN_RATES:
            tokens[TOKEN_RATES[key]] = nano
        elif key in UNIT_RATES:
            each[UNIT_RATES[key]] = nano
    return Rates(**tokens, each=each).complete()


def _validate(data: Payload) -> None:
    for provider in data.providers:
        for model in provider.models:
            for table in (period.rates for period in (*model.periods, *model.variants)):
                for key, rate in table.items():
                    values = [rate[0], *(price for _, price in rate[1])] if isinstance(rate, tuple) else [rate]
                    if data.units.get(key, 0) <= 0 or not all(v.is_finite() and v >= 0 for v in values):
                        raise ValueError(f"{provider.id}/{model.id}: bad rate {key}")
            if not model.periods:
                raise ValueError(f"{provider.id}/{model.id}: no prices")
