"""Re-rating: what past calls would have cost with another price book, and the corrections that make it so.

Only the cost is computed anew. Usage, service tier, batch and region stay as the call was priced; what a row does not
say cannot be computed from it, and such calls are left as they are, with a reason.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import msgspec

import analytics
from analytics import build
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


Reason = Literal[
    "not_billed", "usage_unknown", "subpasses", "region_unknown", "no_price", "not_reproducible", "batch_parts",
    "batch_limit",
]  # fmt: skip
REASONS: Mapping[Reason, str] = {
    "not_billed": "nothing was billed",
    "usage_unknown": "the usage is not known",
    "subpasses": "the models of sub-passes are not recorded",
    "region_unknown": "the region's factor is not known",
    "no_price": "the book has no price",
    "not_reproducible": "the book that priced the call gives another amount, so the row does not say all",
    "batch_parts": "one row of many calls, whose cost is not of plain and cached tokens alone",
    "batch_limit": "one row of many calls, whose sum is above a context limit",
}
"""Why a call cannot be re-rated."""


class Kept(NamedTuple):
    """A call that stays as it is: `None` where its cost is the same."""

    reason: Reason | None


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
    left: Counter[Reason] = field(default_factory=Counter)
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
        elif outcome.reason is not None:
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
        row = db.execute(build.step("count_rerate_calls"), span.parameters()).fetchone()
    assert row is not None
    return int(row[0])


def outcomes(
    data: Path, span: Span, book: PriceBook, *, guesses: bool, known: Collection[PriceBook] = ()
) -> Iterator[Rerated | Kept]:
    """Each call of a span, re-rated; see `rerate`."""
    with analytics.open(data) as db:
        for call, booked_us, corrected_us in _calls(db, span):
            found = rerate(call, book, guesses=guesses, known=known)
            at_us = max(span.as_of_us, (corrected_us or 0) + 1)
            yield Rerated(call, found, booked_us, at_us) if isinstance(found, Call) else Kept(found)


def _calls(db: duckdb.DuckDBPyConnection, span: Span) -> Iterator[tuple[Call, int, int | None]]:
    """Each with the times at which it was booked and last corrected, microseconds since the epoch."""
    result = db.execute(build.step("rerate_calls"), span.parameters())
    names = [column[0] for column in result.description or ()]
    while rows := result.fetchmany(BATCH_ROWS):
        for row in rows:
            fields = dict(zip(names, row, strict=True))
            booked_us, corrected_us = fields.pop("booked_us"), fields.pop("corrected_us")
            yield msgspec.convert(fields, Call), booked_us, corrected_us


# -- one call, pure ----------------------------------------------------------------------------------------------------


def rerate(
    call: Call, book: PriceBook, *, guesses: bool = True, known: Collection[PriceBook] = ()
) -> Call | Reason | None:
    """The call at the book's prices; else why it stays: `None` when its cost is the same.

    `guesses`: prices of guessed models count, as the price policy has it. `known` are other books that may have priced
    the call: the one that did must give the same amount again, or else the row does not say all that was billed.
    """
    if call.price_status is None or call.result == "refused":
        return "not_billed"
    if call.usage_source == "none":
        return "usage_unknown"
    if "+" in (call.price_id or "") or any(unit.startswith("subpass_") for unit in call.other_units or {}):
        return "subpasses"
    cost = _cost(call, book)
    if cost is None:
        return "region_unknown"
    if cost.list_nano is None or (cost.guessed_model and not guesses):
        return None if call.list_cost_nano is None else "no_price"
    new = _costing(call, cost)
    if _is_same(call, new):
        return None
    if call.list_cost_nano is not None:
        same = (_cost(call, other) for other in (book, *known) if other.id == call.price_book)
        if any(cost is None or not _amounts_agree(call, _costing(call, cost)) for cost in same):
            return "not_reproducible"
    if _results(call) > 1:
        if not (_is_plain(call) and _is_plain(new)):
            return "batch_parts"
        if ">" in (new.price_id or ""):
            return "batch_limit"
    return new


def _costing(call: Call, cost: Cost) -> Call:
    return msgspec.structs.replace(
        call,
        price_status=cost.status,
        price_id=cost.price_id,
        price_book=cost.price_book,
        **{theirs: getattr(cost, f"{ours}_nano") for ours, theirs in _COSTS.items()},
    )


def _is_same(old: Call, new: Call) -> bool:
    if old.operation == "batch" and old.list_cost_nano is not None:
        return _amounts_agree(old, new)
    return all(getattr(old, name) == getattr(new, name) for name in (*_COSTS.values(), "price_status"))


def _amounts_agree(old: Call, new: Call) -> bool:
    """The same, but for the rounding of the results of a batch."""
    rounding = ROUNDING * _results(old) if old.operation == "batch" else 0
    amounts = ((getattr(call, f"{name}_cost_nano") or 0 for call in (old, new)) for name in ("list", "contracted"))
    return all(abs(one - other) <= rounding for one, other in amounts)


def _results(call: Call) -> float:
    """Number of calls that the row sums."""
    return (call.other_units or {}).get("batch_results", 1) if call.operation == "batch" else 1


def _is_plain(call: Call) -> bool:
    """What many calls cost can be told from their sum: fees may be for each, and parts were cut to what can be."""
    odd = (
        "web_search_requests",
        *(f"{kind}_{way}_tokens" for kind in ("audio", "image") for way in ("input", "output")),
    )
    units = (call.other_units or {}).keys() - {"batch_results"}
    return not (units or call.other_cost_nano or any(getattr(call, name) for name in odd))


def _cost(call: Call, book: PriceBook) -> Cost | None:
    """`None` when the region that the call was priced for cannot be told: the row has only its factor. An own price is
    the same in all regions, and where the row has one, it says none."""
    usage = Usage(**{name: getattr(call, name) for name in Usage.__struct_fields__})
    wanted = _region_factor(call.price_id, book)
    for region in (None, *book.regions):
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
        if (cost.price_id or "").startswith("own:") or _region_factor(cost.price_id, book) == wanted:
            return cost
    return None


def _region_factor(price_id: str | None, book: PriceBook) -> Decimal | None:
    """A lone factor after a tier is the tier's only where it is one of the book's: the list may state the tier."""
    factors = [Decimal(found[1:]) for found in _FACTOR.findall(price_id or "")]
    if "#" in (price_id or "") and factors and (len(factors) > 1 or factors[0] in book.tier_factors):
        factors = factors[1:]
    return factors[0] if factors else None


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
