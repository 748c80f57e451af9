"""A snapshot of published prices: its file, and what each model costs at a moment and tier.

The file is gzip around two lines of JSON: a header with the SHA-256 of the second line, and the payload that
`tools/price_snapshot.py` writes. Of a model's `periods` the last that is active counts (and the first when none is);
`variants` then replace single rates for a service tier or batch.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.prices.names import plain, stems
from gateway.prices.rates import ZERO, Band, Rates, RateSet, usd_per

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


class Quote(NamedTuple):
    """What a list says of a model at a moment and tier."""

    rates: RateSet
    of_tier: bool
    """The tier has rates of its own here; otherwise these are the standard ones."""
    is_certain: bool


class Model:
    """One model of one provider: `rate_set` is what it costs at a moment."""

    def __init__(self, provider: str, data: ModelData, units: Mapping[str, int]) -> None:
        self.id = data.id
        self.provider = provider
        self._data = data
        self._units = units
        self._called = {plain(text) for text in (data.id.lower(), *_texts(data.match))}
        self._compiled: dict[tuple[bool, int, tuple[int, ...]], Quote] = {}

    @property
    def periods(self) -> Iterator[Period]:
        """All that the list has, of any tier."""
        return chain(self._data.periods, self._data.variants)

    def is_called(self, name: str) -> bool:
        """True when the list has this name, or differs in vendor, region, date or version alone. Otherwise one of its
        rules takes a group of names for the model."""
        return plain(name) in self._called

    def quote(self, at: datetime, tier: str | None) -> Quote:
        """What the snapshot states, without stand-ins for what it does not.

        Where `tier` has no rates of its own at that time: those that it got later, as long as the standard price was
        the same, because the source dates them by the day they were written down, not the day they were sold. Or else
        the standard ones. Neither is certain.
        """
        period = self._period(at)
        variants, known = self._variants(at, period, tier)
        key = (known, period, variants)
        if (found := self._compiled.get(key)) is None:
            rates = self._compile(tier, period, variants)
            found = self._compiled[key] = Quote(rates, bool(variants), known)
        return found

    def dated(self, today: date) -> Iterator[tuple[datetime | None, str | None]]:
        """When rates begin (`None` = ever), and of which service tier they are (`None` = standard)."""
        for period in self.periods:
            for tier in period.when.values() or (None,):
                if period.daily is not None:
                    yield from ((datetime.combine(today, moment, UTC), tier) for moment in period.daily)
                else:
                    yield datetime.combine(period.start, time(), UTC) if period.start else None, tier

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
        for i in sorted(named, key=lambda i: self._data.variants[i].start or date.max):
            start = self._data.variants[i].start
            if start is not None and self._period(datetime.combine(start, at.time(), UTC)) == period:
                return (i,), False
        return (), False

    def _compile(self, tier: str | None, period: int, variants: tuple[int, ...]) -> RateSet:
        table: dict[str, Rate] = {}
        for i in variants:
            table = self._data.variants[i].rates | table  # the first that names a rate wins
        chosen = self._data.periods[period]
        label = f"{self.provider}/{self.id}{chosen.label()}" + (f"#{tier}" if variants else "")
        rates = dict(chosen.rates) | table
        if not rates and self.id.endswith(":free"):
            rates = {"input_mtok": ZERO, "output_mtok": ZERO}
        bands = _bands(rates, self._units) if rates else ()
        return RateSet(self.provider, self.id, label, bands)


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

    def family(self, stem: str) -> Sequence[Model]:
        """The models whose names begin with these words."""
        return self._families.get(stem, ())

    @cached_property
    def _families(self) -> dict[str, list[Model]]:
        families: dict[str, list[Model]] = {}
        for model in self.models:
            for stem in stems(model.id.lower()):
                families.setdefault(stem, []).append(model)
        return families


def load_snapshot(path: Path) -> tuple[str, dict[str, Provider]]:
    """A snapshot's id (source, version and eight digits of the payload's hash) and its providers by name.

    Raises `ValueError` (one readable line) unless the file's hash and shape are right.
    """
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
    return f"{header.source}-{header.source_version}-{digest[:8]}", providers


def _texts(clause: Mapping[str, Any]) -> Iterator[str]:
    """The names, or beginnings of names, that a match rule takes by themselves, in lower case."""
    ((kind, value),) = clause.items()
    if kind == "or":
        for inner in value:
            yield from _texts(inner)
    elif kind not in ("and", "regex"):
        yield value.lower()


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
    return msgspec.structs.replace(Rates(each=each), **tokens)


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
