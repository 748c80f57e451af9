"""What providers charged, from the files that they export. A file's kind is known by its columns.

A row that is wrong is told to `Problems` and left out; what makes a whole file useless is a `UserError`. Amounts are
exact: whole atto-dollars (1e-18 USD) until they are summed by statement and item, then rounded once to nano-dollars.
"""

import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from analytics.sources import files
from analytics.sources.files import Numbered, Problems, short
from gateway.errors import UserError

Charge = Literal["usage", "discount", "credit", "tax", "fee", "none"]
CHARGES: tuple[Charge, ...] = get_args(Charge)
NO_ACCOUNT = "default"
NOTHING, OTHERS = "(nothing)", "(other services)"
"""Items of no charge: the export covers the day all the same."""
ATTO = 10**18
ATTO_IN_NANO = 10**9
AMOUNT_MAX = Decimal(10**9)
EXACT = Context(prec=60)
DAY = timedelta(days=1)

OPENAI, ANTHROPIC, BEDROCK, GEMINI, VERTEX = "openai", "anthropic", "aws.bedrock", "gcp.gemini", "gcp.vertex_ai"


class Line(NamedTuple):
    """One charge, or part of one row's charges."""

    provider: str
    account: str
    day: date
    item: str
    charge: Charge
    atto_usd: int
    model: str | None = None
    """The text that names it."""
    is_final: bool | None = None


class _BadError(Exception):
    """Of a row."""

    def __init__(self, reason: files.Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass
class Terms:
    """What the user says beside the files."""

    usd_per: Mapping[str, Decimal] = field(default_factory=dict)
    """By currency."""
    account: str | None = None
    providers: Collection[str] = ()
    """Those that calls can have."""


@dataclass(frozen=True)
class Kind:
    """A kind of export."""

    title: str
    known_by: frozenset[str]
    """Columns that no other kind has all of."""
    columns: frozenset[str]
    """Columns that are read."""
    lines: Callable[[Mapping[str, Any], Terms], list[Line]]
    """Those of a row; none where it is of another service."""
    key: tuple[str, ...] = ()
    """Columns that no two rows of an export have alike."""


# -- files -------------------------------------------------------------------------------------------------------------


def read(path: Path, terms: Terms, problems: Problems) -> Iterator[tuple[str, int, list[Line]]]:
    """Kind of the export, row number and lines of each sound row. Raises `UserError` when the file is of no use."""
    try:
        yield from _read(path, terms, problems)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _read(path: Path, terms: Terms, problems: Problems) -> Iterator[tuple[str, int, list[Line]]]:
    name: str | None = None
    seen: dict[tuple[Any, ...], int] = {}
    for number, values in _rows(path, problems):
        name = name or kind_of(path, values.keys())
        kind = KINDS[name]
        values = _flat(values)
        try:
            lines = kind.lines(values, terms)
        except _BadError as error:
            problems.row(number, error.reason, str(error))
            continue
        key = tuple(_hashable(values.get(column)) for column in kind.key)
        if any(key) and any(line.charge != "none" for line in lines):
            if key in seen:
                problems.row(number, "duplicate key", f"says the same as row {seen[key]}")
                continue
            seen[key] = number
        yield name, number, lines


def _rows(path: Path, problems: Problems) -> Iterator[Numbered]:
    suffix = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix == ".json" or (suffix == ".jsonl" and _is_page(path)):
        return _results(path)
    if suffix not in files.READERS:
        raise UserError(f"{path}: {_advice()}")
    return files.READERS[suffix](path, problems, lambda header: _choose(path, header), Decimal)


def _is_page(path: Path) -> bool:
    """True where each line is a page of an API, not a row."""
    with files.opened(path) as lines:
        return b'"results"' in lines.readline(2**20)


def _results(path: Path) -> Iterator[Numbered]:
    """The results of API pages, each with the times of its bucket. A file has one page, an array, or one a line."""
    decoder = msgspec.json.Decoder(float_hook=Decimal)
    with files.opened(path) as file:
        text = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        pages = decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            pages = decoder.decode_lines(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise UserError(f"{path}: is no JSON, or not a whole one: export it again") from None
    number = 0
    for page in pages if isinstance(pages, list) else [pages]:
        buckets = page.get("data") if isinstance(page, dict) else None
        if not isinstance(buckets, list):
            raise UserError(f"{path}: {_advice()}")
        for bucket in buckets:
            results = bucket.get("results") if isinstance(bucket, dict) else None
            if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
                raise UserError(f"{path}: {_advice()}")
            times = {name: bucket.get(name) for name in ("start_time", "end_time", "starting_at", "ending_at")}
            if not all("amount" in result for result in results):
                raise UserError(f"{path}: says no amounts, as exports of usage do. {_advice()}")
            for result in results or [{"amount": {}}]:
                number += 1
                yield number, {name: v for name, v in {**result, **times}.items() if v is not None}


def kind_of(path: Path, columns: Collection[str]) -> str:
    """Raises `UserError` where it is none that is known."""
    flat = {_column(name) for name in columns} | {name.partition("_")[0] for name in map(_column, columns)}
    for name, kind in KINDS.items():
        if kind.known_by <= flat:
            return name
    raise UserError(f"{path}: {_advice()}")


def _advice() -> str:
    titles = "; ".join(kind.title for kind in KINDS.values())
    return f"is no export that is known here. Known by their columns, as .csv, .json, .jsonl or .parquet: {titles}"


def _choose(path: Path, header: list[str]) -> list[str]:
    files.check_unique(path, header)
    kind = KINDS[kind_of(path, header)]
    return [name for name in header if _column(name) in kind.columns or _column(name).partition("_")[0] in kind.columns]


@lru_cache(1024)
def _column(name: str) -> str:
    """`sku.description` and `SKU_description` are one."""
    return name.strip().lower().replace(".", "_")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Records of BigQuery, and maps of AWS, as columns of their own."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        column = _column(name)
        if column == "product" and isinstance(value, str):
            value = _json(value) if "edrock" in value else {}  # other services are many, and decoding is slow
        if isinstance(value, dict):
            flat.update((f"{column}_{_column(str(inner))}", v) for inner, v in value.items() if v is not None)
        else:
            flat[column] = value
    return flat


def _json(text: str) -> Any:
    try:
        return msgspec.json.Decoder(float_hook=Decimal).decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return {}


def _hashable(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | Decimal) else str(value)


# -- values ------------------------------------------------------------------------------------------------------------


def _needed(values: Mapping[str, Any], column: str) -> Any:
    if (value := values.get(column)) is None:
        raise _BadError("missing key", f"{column} is missing")
    if isinstance(value, list | dict):
        raise _BadError("wrong type", f"{column}: is no single value")
    return value


def _text(value: Any, otherwise: str = "") -> str:
    """In one line, as a key may be."""
    text = "" if value is None else str(value)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:255].strip() or otherwise


def _decimal(column: str, value: Any) -> Decimal:
    try:
        amount = EXACT.create_decimal(value if isinstance(value, int | Decimal) else str(value).strip())
    except InvalidOperation:
        raise _BadError("wrong value", f'{column}: "{short(value)}" is no amount: write 12.34') from None
    if isinstance(value, bool) or not amount.is_finite() or abs(amount) >= AMOUNT_MAX:
        raise _BadError("wrong value", f'{column}: "{short(value)}" is no amount below {AMOUNT_MAX:,}')
    return amount


def _atto(amount: Decimal) -> int:
    return int(EXACT.to_integral_value(EXACT.scaleb(amount, 18)))


def _usd(amount: Decimal, currency: Any, terms: Terms, local_per_usd: Any = None) -> int:
    """Atto-USD. What a bill itself says of its rate counts where the user gives none."""
    code = _text(currency, "USD").upper()
    if code in terms.usd_per:
        return _atto(EXACT.multiply(amount, terms.usd_per[code]))
    if code == "USD":
        return _atto(amount)
    rate = _decimal("currency_conversion_rate", local_per_usd) if local_per_usd is not None else Decimal(0)
    if rate <= 0:
        raise _BadError("wrong value", f"is in {code}: give the rate with --usd-per {code}=RATE, USD for one {code}")
    return _atto(EXACT.divide(amount, rate))


@lru_cache(4096)
def _moment(column: str, value: str | int | Decimal) -> datetime:
    """Seconds since the epoch, or ISO 8601 as APIs, AWS and BigQuery write it. Without a zone it is UTC."""
    try:
        if isinstance(value, int | Decimal) or str(value).isdecimal():
            return datetime.fromtimestamp(int(value), UTC)
        moment = datetime.fromisoformat(str(value).strip().replace(" UTC", "+00:00"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise _BadError("wrong value", f'{column}: "{short(value)}" is no time: write 2026-11-25T10:00:00Z') from None


def _bucket_day(values: Mapping[str, Any], start_column: str, end_column: str) -> date:
    """Of a cost bucket, which must be one UTC day."""
    start = _moment(start_column, _needed(values, start_column))
    end = _moment(end_column, _needed(values, end_column)) if end_column in values else start + DAY
    if start.time() != datetime.min.time() or not start < end <= start + DAY:
        raise _BadError("wrong value", f"{start:%Y-%m-%dT%H:%MZ} to {end:%Y-%m-%dT%H:%MZ} is no UTC day: export by day")
    return start.date()


# -- kinds -------------------------------------------------------------------------------------------------------------


def _usage_or_credit(atto: int) -> Charge:
    return "credit" if atto < 0 else "usage"


def _openai(values: Mapping[str, Any], terms: Terms) -> list[Line]:
    start, end = ("start_time", "end_time") if "start_time" in values else ("start_time_iso", "end_time_iso")
    day = _bucket_day(values, start, end)
    account = terms.account or _text(values.get("organization_id"), NO_ACCOUNT)
    if "amount_value" not in values:
        return [Line(OPENAI, account, day, NOTHING, "none", 0)]
    atto = _usd(_decimal("amount_value", values["amount_value"]), values.get("amount_currency"), terms)
    item = values.get("line_item")
    return [Line(OPENAI, account, day, _text(item, "(not by line item)"), _usage_or_credit(atto), atto, item)]


def _anthropic(values: Mapping[str, Any], terms: Terms) -> list[Line]:
    day = _bucket_day(values, "starting_at", "ending_at")
    account = terms.account or NO_ACCOUNT
    if "amount" not in values:
        return [Line(ANTHROPIC, account, day, NOTHING, "none", 0)]
    cents = _decimal("amount", values["amount"])
    atto = _usd(EXACT.scaleb(cents, -2), values.get("currency"), terms)
    item = _text(values.get("description") or values.get("model") or values.get("cost_type"), "(not by description)")
    model = values.get("model") or (values.get("description") if values.get("cost_type") == "tokens" else None)
    return [Line(ANTHROPIC, account, day, item, _usage_or_credit(atto), atto, model)]


AWS_CHARGES: Mapping[str, Charge] = {
    "Usage": "usage", "DiscountedUsage": "usage", "SavingsPlanCoveredUsage": "usage",
    "SavingsPlanNegation": "discount", "EdpDiscount": "discount", "PrivateRateDiscount": "discount",
    "BundledDiscount": "discount", "DistributorDiscount": "discount", "RiVolumeDiscount": "discount",
    "Credit": "credit", "Refund": "credit", "Tax": "tax",
    "Fee": "fee", "RIFee": "fee", "SavingsPlanRecurringFee": "fee", "SavingsPlanUpfrontFee": "fee",
}  # fmt: skip
PROVISIONED = re.compile(r"provisioned[ -]?throughput", re.IGNORECASE)
"""Capacity that costs the same however much it is used."""
AWS_EDITION = re.compile(r"\s*\(Amazon Bedrock(?: Edition)?\)", re.IGNORECASE)
AWS_REGION = re.compile(
    r"^(?:US[EW]\d|UG[EW]\d|EU[A-Z]*\d?|AP[A-Z]+\d|CA[NW]\d|SAE\d|ME[A-Z]\d|AFS\d|IL[A-Z]\d|MX[A-Z]\d)-"
)


def _aws(values: Mapping[str, Any], terms: Terms) -> list[Line]:
    kind = str(_needed(values, "line_item_line_item_type"))
    product = _text(values.get("product_product_name"))
    code = str(values.get("line_item_product_code") or "")
    day = _moment("line_item_usage_start_date", _needed(values, "line_item_usage_start_date")).date()
    account = terms.account or _text(values.get("line_item_usage_account_id"), NO_ACCOUNT)
    is_final = bool(values.get("bill_invoice_id"))
    if not any("bedrock" in text.lower() for text in (code, str(values.get("product_servicecode") or ""), product)):
        return [Line(BEDROCK, account, day, OTHERS, "none", 0)]
    if kind not in AWS_CHARGES:
        raise _BadError("wrong value", f'line_item_line_item_type: "{short(kind)}" is none of {", ".join(AWS_CHARGES)}')
    amount = _decimal("line_item_unblended_cost", values.get("line_item_unblended_cost", 0))
    atto = _usd(amount, values.get("line_item_currency_code"), terms)
    usage_type = AWS_REGION.sub("", _text(values.get("line_item_usage_type")))
    edition = AWS_EDITION.sub("", product) if AWS_EDITION.search(product) else None
    item = _text(f"{edition or ''} {usage_type}", _text(values.get("line_item_line_item_description"), kind))
    charge = "fee" if PROVISIONED.search(usage_type) else AWS_CHARGES[kind]
    return [Line(BEDROCK, account, day, item, charge, atto, edition or usage_type or None, is_final)]


GCP_SERVICES = {
    "gemini api": GEMINI, "generative language api": GEMINI, "vertex ai": VERTEX, "cloud vertex ai": VERTEX,
}  # fmt: skip
GCP_CREDITS = frozenset({"PROMOTION"})
"""Types of credits that pay; the others lower the price."""


def _gcp(values: Mapping[str, Any], terms: Terms) -> list[Line]:
    service = _text(values.get("service_description"))
    provider = GCP_SERVICES.get(service.lower()) or (VERTEX if service.lower().startswith("claude") else None)
    day = _moment("usage_start_time", _needed(values, "usage_start_time")).date()
    account = terms.account or _text(values.get("billing_account_id"), NO_ACCOUNT)
    if provider is None:
        return [Line(name, account, day, OTHERS, "none", 0) for name in (GEMINI, VERTEX)]
    currency, rate = values.get("currency"), values.get("currency_conversion_rate")
    kind = str(values.get("cost_type") or "regular")
    amount = _usd(_decimal("cost", _needed(values, "cost")), currency, terms, rate)
    sku = _text(values.get("sku_description"), "(no SKU)")
    usage: Charge = "fee" if PROVISIONED.search(sku) else "usage"
    charge: Charge = "tax" if kind == "tax" else usage if kind == "regular" else "credit"
    other = VERTEX if provider == GEMINI else GEMINI  # which the export covers as well
    lines = [Line(provider, account, day, sku, charge, amount, sku), Line(other, account, day, NOTHING, "none", 0)]
    given = values.get("credits") or []
    given = _json(given) if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise _BadError("wrong type", "credits: is no list of records: export the table as JSON lines or Parquet")
    for each in given:
        atto = _usd(_decimal("credits.amount", _needed(each, "amount")), currency, terms, rate)
        lines.append(
            Line(provider, account, day, sku, "credit" if each.get("type") in GCP_CREDITS else "discount", atto, sku)
        )
    return lines


def _plain(values: Mapping[str, Any], terms: Terms) -> list[Line]:
    provider = _text(_needed(values, "provider"))
    if provider not in terms.providers:
        raise _BadError("wrong value", f'provider: "{short(provider)}" is none of {", ".join(sorted(terms.providers))}')
    try:
        day = date.fromisoformat(str(_needed(values, "day")).strip())
    except ValueError:
        raise _BadError("wrong value", f'day: "{short(values["day"])}" is no day: write 2026-11-25') from None
    atto = _atto(_decimal("amount_usd", _needed(values, "amount_usd")))
    charge = values.get("charge") or _usage_or_credit(atto)
    if charge not in CHARGES[:-1]:
        raise _BadError("wrong value", f'charge: "{short(charge)}" is none of {", ".join(CHARGES[:-1])}')
    account = terms.account or _text(values.get("account"), NO_ACCOUNT)
    model = values.get("model")
    item = _text(values.get("item") or model, "(no item)")
    return [Line(provider, account, day, item, charge, atto, model)]


_AWS_KEY = ("identity_line_item_id", "identity_time_interval")
KINDS: Mapping[str, Kind] = {
    "openai_costs": Kind(
        "OpenAI costs (JSON of /v1/organization/costs, or the CSV of the console: start_time, amount_value, line_item)",
        frozenset({"start_time", "amount"}),
        frozenset({
            "start_time", "end_time", "start_time_iso", "end_time_iso", "amount_value", "amount_currency", "line_item",
            "project_id", "organization_id",
        }),
        _openai,
        ("start_time", "organization_id", "project_id", "line_item", "api_key_id"),
    ),
    "anthropic_cost_report": Kind(
        "Anthropic cost report (JSON of /v1/organizations/cost_report)",
        frozenset({"starting_at", "amount"}),
        frozenset(),
        _anthropic,
        (
            "starting_at", "workspace_id", "description", "model", "cost_type", "token_type", "service_tier",
            "context_window", "inference_geo", "speed",
        ),
    ),
    "aws_cur": Kind(
        "AWS CUR 2.0 (line_item_usage_start_date, line_item_unblended_cost, …)",
        frozenset({"line_item_usage_start_date", "line_item_unblended_cost", "line_item_line_item_type"}),
        frozenset({
            *_AWS_KEY, "bill_invoice_id", "line_item_currency_code", "line_item_line_item_description",
            "line_item_line_item_type", "line_item_product_code", "line_item_unblended_cost",
            "line_item_usage_account_id", "line_item_usage_start_date", "line_item_usage_type", "product",
            "product_product_name", "product_servicecode",
        }),
        _aws,
        _AWS_KEY,
    ),
    "gcp_billing": Kind(
        "GCP billing export (billing_account_id, service, sku, usage_start_time, cost, …)",
        frozenset({"service", "sku", "usage_start_time", "cost", "currency"}),
        frozenset({
            "billing_account_id", "service", "sku", "usage_start_time", "cost", "currency", "currency_conversion_rate",
            "cost_type", "credits",
        }),
        _gcp,
    ),
    "plain": Kind(
        "a table of your own (provider, day, amount_usd; and model, item, account, charge)",
        frozenset({"provider", "day", "amount_usd"}),
        frozenset({"provider", "day", "model", "item", "account", "charge", "amount_usd"}),
        _plain,
    ),
}  # fmt: skip
