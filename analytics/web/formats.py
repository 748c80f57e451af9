"""How values look on a page: money, numbers, moments, and where a name leads. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

NOTHING = "–"
SMALL = Decimal("0.1")
CENT, FINE, NANO = Decimal("0.01"), Decimal("0.0001"), Decimal("0.000000001")
SHARES = ("used", "coverage", "precision", "survival_14", "survival_30")
"""Columns with fractions, beside those that end with `share`."""
LABELS = {
    "team_id": "team", "key_id": "key", "ticket_id": "ticket", "task_id": "task", "call_id": "call",
    "pr_id": "pull request",
    "list_cost_usd": "list cost", "contracted_cost_usd": "contracted cost", "lost_cost_usd": "delivered nothing",
    "claimed_usd": "claimed", "recoverable_usd": "recoverable", "spent_usd": "spent", "limit_usd": "limit",
    "remaining_usd": "left", "forecast_usd": "forecast", "percent": "share", "finding_id": "finding",
    "request_model": "model asked for", "response_model": "model that answered", "ticket_source": "known by",
    "ticket_state": "tracker says", "window_start": "window", "nd": "ND", "nd_low": "ND, low", "nd_high": "ND, high",
    "ndi": "NDI", "cts_ai_low_usd": "cost to serve, low", "cts_ai_high_usd": "cost to serve, high",
}  # fmt: skip


def label(column: str) -> str:
    """What a column is called on a page."""
    return LABELS.get(column) or column.removesuffix("_usd").removesuffix("_id").removesuffix("_at").replace("_", " ")


def usd(amount: Decimal | None) -> str:
    """In cents, or finer where cents show little: `$1,234.50`, `$0.0421`, `$0.000016`."""
    if amount is None:
        return NOTHING
    size = abs(amount)
    step = CENT if size >= SMALL or not amount else FINE if size >= FINE else Decimal((0, (1,), amount.adjusted() - 1))
    sign = "−" if amount < 0 else ""
    return f"{sign}${Decimal(size).quantize(max(step, NANO)):,f}"


def exact_usd(amount: Decimal | None) -> str:
    """To the nano-dollar."""
    return "" if amount is None else f"{Decimal(amount):,.9f} USD"


def without_price(calls: int | None) -> str:
    """What a sum of money does not have in it."""
    return f"+ {count(calls, 'call')} without a price" if calls else ""


def count(number: int | None, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number or 0:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float | Decimal | None, *, digits: int = 1) -> str:
    """Of a fraction."""
    return NOTHING if share is None else f"{float(share) * 100:.{digits}f} %"


def moment(at: datetime | None, zone: ZoneInfo, *, seconds: bool = False) -> str:
    """In a viewer's zone, which the page names. `at` is UTC, with or without a zone."""
    return NOTHING if at is None else in_zone(at, zone).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def clock(at: float, zone: ZoneInfo) -> str:
    """The time of day of seconds since the epoch."""
    return f"{datetime.fromtimestamp(at, zone):%H:%M:%S}"


def in_zone(at: datetime, zone: ZoneInfo) -> datetime:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(zone)


def hours(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value / 24:,.1f} days" if abs(value) >= 72 else f"{value:,.1f} h"


def milliseconds(value: int | None) -> str:
    if value is None:
        return NOTHING
    return f"{value / 1000:,.1f} s" if value >= 1000 else f"{value:,} ms"


def cell(column: str, value: Any, zone: ZoneInfo) -> str:
    """A value of a column, as text."""
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case datetime() if column.startswith("window"):
            return str(value.date())
        case datetime():
            return moment(value, zone, seconds=column == "started_at")  # many calls begin within a minute
        case date():
            return str(value)
        case Decimal() if column.endswith("_usd") or column == "usd":
            return usd(value)
        case float() | Decimal() if column == "percent":
            return f"{value:.1f} %"
        case float() | Decimal() if column.endswith("share") or column in SHARES:
            return percent(value)
        case float() | Decimal() if "hours" in column:
            return hours(float(value))
        case int() if column.endswith("_ms"):
            return milliseconds(value)
        case float() | Decimal():
            return f"{value:,.2f}"
        case int():
            return f"{value:,}"
        case str():
            return value or NOTHING
        case Sequence():
            return ", ".join(map(str, value)) or NOTHING
        case _:
            return str(value)


def answered(column: str, value: Any) -> str:
    """A value of somebody's own query: moments as they are, for nobody knows what of them is UTC."""
    return str(value) if isinstance(value, datetime) else cell(column, value, ZoneInfo("UTC"))


def fact_label(name: str) -> str:
    """A number of a finding's evidence, or a threshold of its rule: `w03_calls` is that of calls."""
    return label(re.sub(r"^w[0-9]{2}_|_s$", "", name))


def fact(name: str, value: Any) -> str:
    """As it stands in JSON."""
    match value:
        case int() | float() | str() if name.endswith("_usd"):
            return usd(Decimal(str(value)))
        case int() | float() if name.endswith("_s") and not isinstance(value, bool):
            return f"{value:,g} s"
        case float():
            return f"{value:,g}"
        case _:
            return cell(name, value, ZoneInfo("UTC"))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


PLACES = {
    "ticket_id": "/tickets/", "task_id": "/tasks/", "call_id": "/calls/", "finding_id": "/waste/", "name": "/budgets/",
}  # fmt: skip
"""Pages of things, by the column that names them."""


SHORT = 20
"""Characters of an id that is shown whole where a table has others beside it."""
ID_SHOWN = 8


def short_id(column: str, value: Any) -> str | None:
    """The end of a long id of a call or task, which tells it from others."""
    if column not in ("call_id", "task_id") or len(str(value)) <= SHORT:
        return None
    return f"…{str(value)[-ID_SHOWN:]}"


def place(column: str, value: Any) -> str | None:
    """The page of what a cell names."""
    if value in (None, "") or column not in PLACES:
        return None
    return PLACES[column] + quote(str(value), safe="")


def outside(url: Any) -> str | None:
    """An address of a tracker or forge that may be a link: nothing that a browser would run."""
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) else None


def query(path: str, given: Mapping[str, str | None]) -> str:
    """An address with what it is asked for, without what is empty."""
    asked = urlencode({name: value for name, value in given.items() if value})
    return f"{path}?{asked}" if asked else path


def onto(address: str, asked: str) -> str:
    """An address that asks for more, which is written as it is to stand there."""
    return f"{address}{'&' if '?' in address else '?'}{asked}"


def time_tag(at: datetime | None, zone: ZoneInfo, *, seconds: bool = False) -> Markup:
    if at is None:
        return escape(NOTHING)
    return Markup('<time datetime="{}">{}</time>').format(
        f"{in_zone(at, ZoneInfo('UTC')):%Y-%m-%dT%H:%M:%SZ}", moment(at, zone, seconds=seconds)
    )
