"""Calls from files: CSV, JSONL or Parquet with columns of `calls`, as another gateway, or another Outlay, has them.

A row that is wrong is told to `Problems` and left out; what makes a whole file useless is a `UserError`. Money is
exact: what has more than nine decimals is wrong, not rounded. What a row does not say is not made up, with these
exceptions, without which a sum or a check would mean something else:

- a call without a cost is unpriced, unless it was refused: it does not become free
- a cost that is not divided into parts is `other_cost_usd`, and one after discounts that is not told is the list cost
- `tickets` and `ticket_id` stand for each other
"""

import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from analytics.sources.files import READERS, Problems, Reason, check_unique, short, told, typed
from gateway.call import NANO, Call
from gateway.errors import UserError

TEXT_MAX = 1024
WHOLE_MAX = 2**63
MICROS_MAX = 4_102_444_800_000_000
"""The year 2100."""
NUMBER_DIGITS_MAX = 40
"""Of a number in a file: one with more is no count, and takes long to work out."""
USD_MAX = 10**9
"""What DECIMAL(18,9) can hold, and more than a call costs."""
KEPT_HERE = ("day", "segment")
"""Columns that say where this Outlay keeps a call: of another one they mean nothing."""
REQUIRED = ("call_id", "started_at")
EXACT = Context(prec=60)
PARTS = ("input_cost_nano", "cache_read_cost_nano", "cache_write_cost_nano", "output_cost_nano")
AFTER_DISCOUNTS = "contracted_cost_nano"
HINTS = get_type_hints(Call)


def _column(field: str) -> str:
    return "started_at" if field == "started_us" else field.replace("_nano", "_usd")


def _sql_type(field: str) -> str:
    if field == "started_us":
        return "TIMESTAMP"
    return "VARCHAR[]" if get_origin(HINTS[field]) is tuple else "DECIMAL" if field.endswith("_nano") else ""


COLUMNS = {_column(field): _sql_type(field) for field in Call.__struct_fields__} | {"recorded_at": "TIMESTAMP"}
"""What a file can have, with those types in SQL that are not as they are written."""


class Booked(NamedTuple):
    call: Call
    recorded_us: int
    """When it was recorded, microseconds since the epoch."""


class BadError(Exception):
    """Of a row."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason


def read(path: Path, problems: Problems, seen: Collection[str]) -> Iterator[Booked]:
    """The sound rows of a file, but for those whose call_id was seen already, in this file or in another one. Raises
    `UserError` when it cannot be read at all."""
    kind = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind not in READERS or path.name.lower().endswith(".parquet.gz"):
        raise UserError(f"{path}: calls are imported from {', '.join(READERS)}")
    try:
        for number, values in READERS[kind](path, problems, lambda header: _chosen(path, header), Decimal):
            for name in [name for name in values if name not in COLUMNS]:
                if name not in KEPT_HERE:
                    problems.column(number, name, COLUMNS)
                del values[name]
            try:
                row = booked(values, lax=kind == ".csv")
            except msgspec.ValidationError as error:
                problems.row(number, *told(error, values, _choices))
            except BadError as error:
                problems.row(number, error.reason, str(error))
            else:
                if row.call.call_id in seen:
                    problems.row(number, "duplicate key", f"{short(row.call.call_id)} stands there twice")
                else:
                    yield row
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _chosen(path: Path, header: list[str]) -> list[str]:
    if missing := [name for name in REQUIRED if name not in header]:
        raise UserError(f"{path} row 1: the column {missing[0]} is missing; {', '.join(REQUIRED)} must be there")
    check_unique(path, header)
    return header


def _choices(column: str) -> tuple[str, ...]:
    hint = HINTS.get(column)
    return next((get_args(each) for each in get_args(hint) if get_origin(each) is Literal), ())


def booked(values: Mapping[str, Any], *, lax: bool) -> Booked:
    """A row as a call; `lax`: all values are text. Raises `msgspec.ValidationError` and `BadError`."""
    row = typed(dict(values), COLUMNS, lax=lax)
    for name in REQUIRED:
        if name not in row:
            raise BadError("missing key", f"{name} is missing")
    found: dict[str, Any] = {"request_id": row["call_id"], "attempt": 1}
    for name, value in row.items():
        if COLUMNS[name] == "TIMESTAMP" or (value == "" and name not in REQUIRED):
            continue
        if COLUMNS[name] == "DECIMAL":
            found[name.replace("_usd", "_nano")] = _nano(name, value)
        elif name == "other_units":
            found[name] = _units(value)
        else:
            found[name] = _whole(name, value)
    found["started_us"] = started_us = _micros("started_at", row["started_at"])
    _add_tickets(found)
    _add_cost(found)
    call = msgspec.convert(found, Call, strict=not lax)
    for name in found:
        _check(_column(name), getattr(call, name))
    recorded_us = started_us + 1000 * (call.duration_ms or 0)
    if "recorded_at" in row:
        recorded_us = _micros("recorded_at", row["recorded_at"])
    elif recorded_us >= MICROS_MAX:
        raise BadError("wrong value", f"duration_ms: {call.duration_ms:,} ms is no call's duration")
    return Booked(call, recorded_us)


# -- values ------------------------------------------------------------------------------------------------------------


def _micros(name: str, value: Any) -> int:
    if not isinstance(value, datetime):
        raise BadError("wrong type", f'{name}: "{short(value)}" is no time: write 2026-11-25T10:00:00Z')
    moment = value.replace(tzinfo=UTC)
    micros = int(moment.timestamp()) * 1_000_000 + moment.microsecond
    if not 0 <= micros < MICROS_MAX:
        raise BadError("wrong value", f'{name}: "{short(value)}" is before 1970, or after 2099')
    return micros


def _nano(name: str, value: Any) -> int:
    """USD, as nano-USD."""
    try:
        usd = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise BadError("wrong type", f'{name}: "{short(value)}" is no amount') from None
    if not usd.is_finite() or not 0 <= usd < USD_MAX:
        raise BadError("wrong value", f"{name}: {short(value)} is no cost of a call")
    if usd != (exact := usd.quantize(Decimal(1) / NANO, context=EXACT)):
        raise BadError("wrong value", f"{name}: {short(value)} has more than nine decimals: it would not stay exact")
    return int(exact.scaleb(9))


def _whole(name: str, value: Any) -> Any:
    """A table that has empty cells may have written 12 as 12.0."""
    if not isinstance(value, Decimal) or not value.is_finite() or abs(value.adjusted()) > NUMBER_DIGITS_MAX:
        return value
    return int(value) if value == value.to_integral_value() else value


def _units(value: Any) -> dict[str, float]:
    try:
        units = msgspec.json.decode(value) if isinstance(value, str) else value
        found = {str(name): float(amount) for name, amount in units.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        found = {"": -1.0}
    if not all(0 <= amount < math.inf for amount in found.values()):
        raise BadError("wrong type", f'other_units: "{short(value)}" is no map of amounts: write {{"seconds": 12.5}}')
    return found


def _check(column: str, value: Any) -> None:
    """What the ledger's columns cannot hold, or no call has."""
    if isinstance(value, int) and not 0 <= value < WHOLE_MAX:
        raise BadError("wrong value", f"{column}: {short(value)} is no count")
    for text in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
        if not text or len(text) > TEXT_MAX or not text.isprintable():
            raise BadError("wrong value", f"{column}: must be printable text of at most {TEXT_MAX:,} characters")


# -- what belongs together ---------------------------------------------------------------------------------------------


def _add_tickets(found: dict[str, Any]) -> None:
    tickets = found["tickets"] = found.get("tickets") or ([found["ticket_id"]] if "ticket_id" in found else [])
    if not isinstance(tickets, list):
        return  # msgspec says so
    if tickets and found.setdefault("ticket_id", tickets[0]) != tickets[0]:
        raise BadError("wrong value", f"ticket_id must be the first of tickets, {short(tickets[0])}")
    if len(set(map(str, tickets))) < len(tickets):
        raise BadError("wrong value", "a ticket stands twice in tickets")


def _add_cost(found: dict[str, Any]) -> None:
    whole, status = found.get("list_cost_nano"), found.get("price_status")
    parts, rest = (
        [found.get(part) for part in PARTS],
        [found.get(part) for part in ("other_cost_nano", AFTER_DISCOUNTS)],
    )
    if status is None and not any((whole, *parts, *rest)) and (whole == 0 or found.get("result") == "refused"):
        for part in ("list_cost_nano", *PARTS, "other_cost_nano", AFTER_DISCOUNTS):
            found.pop(part, None)  # nothing was billed, which is how the ledger writes that
        return
    if (whole is None) != (status == "unpriced") and (whole is not None or status is not None):
        raise BadError("wrong value", "a call has no list_cost_usd exactly when its price_status is unpriced")
    if whole is None:
        found["price_status"] = "unpriced"
        if any(part is not None for part in (*parts, *rest)):
            raise BadError("wrong value", "a call without list_cost_usd has no other cost either")
        return
    found.setdefault("price_status", "exact")
    found.setdefault(AFTER_DISCOUNTS, whole)
    left = whole - sum(filter(None, (*parts, rest[0])))
    if left < 0 or (left and rest[0] is not None):
        raise BadError("wrong value", "the parts of its cost do not sum to list_cost_usd")
    if left:
        found["other_cost_nano"] = left
