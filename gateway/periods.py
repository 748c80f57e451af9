"""The spans of time that budgets are about: days to quarters in a time zone, all time, the last 24 hours. Pure.

A calendar period begins at local midnight, also where a clock change makes the day 23 or 25 hours long.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

Period = Literal["day", "week", "month", "quarter", "total", "rolling_24h"]
ROLLING_US = 24 * 3600 * 1_000_000


class Span(NamedTuple):
    """Microseconds since the epoch, UTC. `end_us` is outside; `None` = never."""

    start_us: int
    end_us: int | None

    def has(self, at_us: int) -> bool:
        return self.start_us <= at_us and (self.end_us is None or at_us < self.end_us)


FOREVER = Span(0, None)


def span(period: Period, zone: str, at_us: int) -> Span:
    """The period that a moment is in. `rolling_24h` and `total` have no bounds of their own: `FOREVER`."""
    if period in ("total", "rolling_24h"):
        return FOREVER
    local = datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone))
    return _calendar(period, zone, local.year, local.month, local.day)


@lru_cache(maxsize=4096)
def _calendar(period: Period, zone: str, year: int, month: int, day: int) -> Span:
    start = datetime(year, month, day)  # noqa: DTZ001 - local, made absolute below
    if period == "day":
        end = start + timedelta(days=1)
    elif period == "week":  # ISO 8601: from Monday
        start -= timedelta(days=start.weekday())
        end = start + timedelta(days=7)
    else:
        months = 1 if period == "month" else 3
        start = start.replace(month=month - (month - 1) % months, day=1)
        end = _months_later(start, months)
    return Span(_absolute_us(start, zone), _absolute_us(end, zone))


def _months_later(start: datetime, months: int) -> datetime:
    over, month = divmod(start.month - 1 + months, 12)
    return start.replace(year=start.year + over, month=month + 1)


def _absolute_us(local: datetime, zone: str) -> int:
    """A local midnight; where a clock change leaves it out or brings it twice, the first moment of the day."""
    return int(local.replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000
