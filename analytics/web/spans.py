"""The span of days that a page is about. Days are UTC days, as in the ledger. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

NAMES = {
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "this-month": "This month",
    "last-month": "Last month",
    "this-quarter": "This quarter",
    "last-quarter": "Last quarter",
    "all": "All time",
}
DEFAULT = "30d"
FIRST, LAST = date(2000, 1, 1), date(2999, 12, 31)


@dataclass(frozen=True)
class Span:
    name: str
    """Of `NAMES`, or empty for days that were chosen."""
    first: date
    last: date

    @property
    def given(self) -> dict[str, Any]:
        """As queries take it: from the first moment up to that after the last."""
        return {
            "from": datetime.combine(self.first, time()),
            "to": datetime.combine(self.last + timedelta(days=1), time()),
        }

    @property
    def asked(self) -> dict[str, str | None]:
        """As addresses have it."""
        if self.name:
            return {"period": None if self.name == DEFAULT else self.name, "from": None, "to": None}
        return {"period": None, "from": str(self.first), "to": str(self.last)}


def of(asked: Mapping[str, str], today: date, default: str = DEFAULT) -> Span:
    """What a query says; the default where it says nothing that can be read."""
    first, last = _day(asked.get("from")), _day(asked.get("to"))
    if first or last:
        first, last = first or FIRST, last or today
        return Span("", min(first, last), max(first, last))
    if month := _day(f"{asked.get('month', '')}-01"):
        month = month.replace(day=1)
        return Span("", month, _month_after(month) - timedelta(days=1))
    name = asked.get("period", default)
    return named(name if name in NAMES else default, today)


def unread(asked: Mapping[str, str]) -> str | None:
    """What a query has in place of a day or month, if that is none."""
    given = (asked.get("from", ""), asked.get("to", ""), f"{month}-01" if (month := asked.get("month")) else "")
    return next(
        (text.removesuffix("-01") if text == given[2] else text for text in given if text and not _day(text)), None
    )


def named(name: str, today: date) -> Span:
    month = today.replace(day=1)
    quarter = month.replace(month=(month.month - 1) // 3 * 3 + 1)
    match name:
        case "7d":
            return Span(name, today - timedelta(days=6), today)
        case "this-month":
            return Span(name, month, today)
        case "last-month":
            return Span(name, (month - timedelta(days=1)).replace(day=1), month - timedelta(days=1))
        case "this-quarter":
            return Span(name, quarter, today)
        case "last-quarter":
            before = quarter - timedelta(days=1)
            return Span(name, before.replace(month=before.month - 2, day=1), before)
        case "all":
            return Span(name, FIRST, LAST)
        case _:
            return Span("30d", today - timedelta(days=29), today)


def _month_after(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _day(text: str | None) -> date | None:
    """Within the calendar that pages know, so that there is a day before and one after it."""
    try:
        return min(max(date.fromisoformat(text or ""), FIRST), LAST)
    except ValueError:
        return None
