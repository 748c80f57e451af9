"""Re-rating: what past calls would have cost with another price book, and the corrections that make it so.

Only the cost is computed anew. Usage, service tier, batch and region stay as the call was priced; what a row does not
say cannot be computed from it, and such calls are left as they are, with a reason.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import msgspec

import analytics
from analytics import lake
from gateway import ledger
from gateway.call import Call, Cost, Usage
from gateway.prices import PriceBook

BATCH_ROWS = 10_000
"""Read at once: what re-rating needs of memory."""
ROUNDING = 3
"""Nano-USD per result of a batch: its parts, and its contracted cost, were rounded before they were summed."""

Cause = Literal["price", "alias", "fee", "tier", "discount"]
_FACTOR = re.compile(r"\*[\d.]+")
_COSTS = {"list": "list_cost_nano", **{part: f"{part}_cost_nano" for part in (
    "input", "cache_read", "cache_write", "output", "other", "contracted",
)}}  # fmt: skip
"""Fields of `Cost` (without `_nano`) → fields of `Call`."""


class Rerated(NamedTuple):
    """A call whose cost changes."""

    old: Call
    new: Call
    booked_us: int
    at_us: int
    """Later than what it overrules, and earlier than whatever came after the call was read."""

    def correction(self) -> ledger.Correction:
        return ledger.Correction(self.new, "price", self.booked_us, self.at_us)


class Kept(NamedTuple):
    """A call that stays as it is. `reason` is empty where its cost is the same."""

    reason: str


class Line(msgspec.Struct):
    """Sums of the changed calls of one model and cause, nano-USD; a call without a price counts 0."""

    calls: int = 0
    unpriced_before: int = 0
    list_before: int = 0
    list_after: int = 0
    contracted_before: int = 0
    contracted_after: int = 0


@dataclass
class Summary:
    lines: dict[tuple[str, Cause], Line] = field(default_factory=dict)
    """By model and cause."""
    unchanged: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """Calls that cannot be re-rated, by reason."""

    def add(self, outcome: Rerated | Kept) -> None:
        if isinstance(outcome, Rerated):
            old, new = outcome.old, outcome.new
            line = self.lines.setdefault((new.response_model or new.request_model or "", cause_of(old, new)), Line())
            line.calls += 1
            line.unpriced_before += old.list_cost_nano is None
            line.list_before += old.list_cost_nano or 0
            line.list_after += new.list_cost_nano or 0
            line.contracted_before += old.contracted_cost_nano or 0
            line.contracted_after += new.contracted_cost_nano or 0
        elif outcome.reason:
            self.left[outcome.reason] += 1
        else:
            self.unchanged += 1


class Span(NamedTuple):
    """UTC days, both included; only calls recorded before `as_of` (UTC)."""

    first: date
    last: date
    as_of: datetime

    @property
    def as_of_us(self) -> int:
        return (self.as_of - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)

    def parameters(self) -> dict[str, Any]:
        start, end = datetime.combine(self.first, time.min), datetime.combine(self.last, time.max)
        return {"from": start, "to": end, "as_of": self.as_of.replace(tzinfo=None)}


def count(data: Path, span: Span) -> int:
    """Number of calls that started in a span. Raises `UserError` when there is no such folder."""
    with analytics.open(data) as db:
        row = db.execute(lake.step("count_rerate_calls"), span.parameters()).fetchone()
    assert row is not None
    return int(row[0])


def outcomes(data: Path, span: Span, book: PriceBook, *, guesses: bool) -> Iterator[Rerated | Kept]:
    """Each call of a span, re-rated. `guesses`: prices of guessed models count, as the price policy has it."""
    with analytics.open(data) as db:
        for call, booked_us, corrected_us in _calls(db, span):
            found = rerate(call, book, guesses=guesses)
            at_us = max(span.as_of_us, (corrected_us or 0) + 1)
            yield Rerated(call, found, booked_us, at_us) if isinstance(found, Call) else Kept(found)


def _calls(db: duckdb.DuckDBPyConnection, span: Span) -> Iterator[tuple[Call, int, int | None]]:
    """Each with the times at which it was booked and last corrected, microseconds since the epoch."""
    result = db.execute(lake.step("rerate_calls"), span.parameters())
    names = [column[0] for column in result.description or ()]
    while rows := result.fetchmany(BATCH_ROWS):
        for row in rows:
            fields = dict(zip(names, row, strict=True))
            booked_us, corrected_us = fields.pop("booked_us"), fields.pop("corrected_us")
            yield msgspec.convert(fields, Call), booked_us, corrected_us


# -- one call, pure ----------------------------------------------------------------------------------------------------


def rerate(call: Call, book: PriceBook, *, guesses: bool = True) -> Call | str:
    """The call at the book's prices; else why it stays: empty when its cost is the same."""
    if call.price_status is None or call.result == "refused":
        return "nothing was billed"
    if call.usage_source == "none":
        return "the usage is not known"
    if any(unit.startswith("subpass_") for unit in call.other_units or {}):
        return "the models of sub-passes are not recorded"
    cost = _cost(call, book)
    if cost is None:
        return "the region's factor is not known"
    if cost.list_nano is None or (cost.guessed_model and not guesses):
        return "" if call.list_cost_nano is None else "the book has no price"
    new = msgspec.structs.replace(
        call,
        price_status=cost.status,
        price_id=cost.price_id,
        price_book=cost.price_book,
        **{theirs: getattr(cost, f"{ours}_nano") for ours, theirs in _COSTS.items()},
    )
    if call.operation == "batch" and call.list_cost_nano is not None:
        if _limit(call) != _limit(new):
            return "one row of many calls, and a context limit between them and their sum"
        rounding = ROUNDING * (call.other_units or {}).get("batch_results", 1)
        amounts = ("list_cost_nano", "contracted_cost_nano")
        if all(abs((getattr(new, name) or 0) - (getattr(call, name) or 0)) <= rounding for name in amounts):
            return ""
    same = all(getattr(call, name) == getattr(new, name) for name in (*_COSTS.values(), "price_status"))
    return "" if same else new


def _cost(call: Call, book: PriceBook) -> Cost | None:
    """`None` when the region that the call was priced for cannot be told: the row has only its factor."""
    usage = Usage(**{name: getattr(call, name) for name in Usage.__struct_fields__})
    factors = _FACTOR.findall(call.price_id or "")
    first: Cost | None = None
    for region in (None, *book.regions) if factors else (None,):
        cost = book.price(
            call.provider or "",
            (call.response_model, call.request_model),
            usage,
            datetime.fromtimestamp(call.started_us / 1e6, UTC),
            service_tier=call.service_tier,
            batch=call.operation == "batch" or "#batch" in (call.price_id or ""),
            region=region,
            reported_nano=call.provider_cost_nano,
        )
        if _FACTOR.findall(cost.price_id or "") == factors:
            return cost
        first = first or cost
    # A lone factor after a tier is most likely the tier's, which the new book states outright or otherwise.
    lone = len(factors) == 1 and re.search(r"#[^#*&>+]+\*[\d.]+(>\d+)?$", call.price_id or "")
    return first if not factors or lone else None


def _limit(call: Call) -> str:
    return (call.price_id or "").partition(">")[2]


def cause_of(old: Call, new: Call) -> Cause:
    """Why the cost of a call changes, as far as the two rows tell: the first of these that differs."""
    parts = [name for part, name in _COSTS.items() if part != "contracted"]
    if all(getattr(old, name) == getattr(new, name) for name in parts) and old.price_status == new.price_status:
        return "discount"
    (model, terms), (new_model, new_terms) = _named(old), _named(new)
    if old.price_id is None:
        return "alias" if new.price_status == "alias" else "price"
    if model != new_model:
        return "alias"
    if terms != new_terms:
        return "tier"
    changed = {name for name in parts[1:] if getattr(old, name) != getattr(new, name)}
    return "fee" if changed == {"other_cost_nano"} else "price"


def _named(call: Call) -> tuple[str, str]:
    """A price id's list and model, and its tier and context limit, without dates and factors."""
    price_id = _FACTOR.sub("", call.price_id or "")
    model = re.split("[@&#>]", price_id, maxsplit=1)[0]
    return model, "".join(re.findall(r"[#>][^@&#>+]+", price_id))
