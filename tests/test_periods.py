"""Periods: calendars in time zones."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.periods import FOREVER, Period, span

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "Asia/Beirut",
    "Asia/Kolkata",
)
CALENDAR: tuple[Period, ...] = ("day", "week", "month", "quarter")
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda d: int(d.replace(tzinfo=UTC).timestamp()))  # noqa: DTZ001


def local(us: int | None, zone: str) -> datetime:
    assert us is not None
    return datetime.fromtimestamp(us / 1e6, ZoneInfo(zone))


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), moments)
def test_periods_follow_each_other_without_a_gap(period: Period, zone: str, second: int) -> None:
    at_us = second * 1_000_000
    found = span(period, zone, at_us)
    assert found.has(at_us)
    assert found.end_us is not None
    assert span(period, zone, found.start_us) == found == span(period, zone, found.end_us - 1)
    assert span(period, zone, found.end_us).start_us == found.end_us
    assert span(period, zone, found.start_us - 1).end_us == found.start_us


@given(st.sampled_from(CALENDAR), st.sampled_from(ZONES), moments)
def test_a_period_begins_on_its_first_local_day(period: Period, zone: str, second: int) -> None:
    start_us = span(period, zone, second * 1_000_000).start_us
    start = local(start_us, zone)
    assert local(start_us - 1_000_000, zone).date() < start.date()
    assert period != "week" or start.weekday() == 0
    assert period not in ("month", "quarter") or start.day == 1
    assert period != "quarter" or start.month in (1, 4, 7, 10)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("America/Havana", (2024, 3, 10), 23),  # midnight is left out
        ("America/Havana", (2024, 11, 3), 25),  # midnight comes twice
        ("UTC", (2026, 3, 29), 24),
    ],
)
def test_days_of_clock_changes(zone: str, day: tuple[int, int, int], hours: int) -> None:
    found = span("day", zone, int(datetime(*day, 15, tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000)
    assert found.end_us is not None
    assert found.end_us - found.start_us == hours * 3600 * 1_000_000


def test_what_has_no_calendar_has_no_bounds() -> None:
    assert span("total", "UTC", 0) == span("rolling_24h", "Asia/Kolkata", 10**15) == FOREVER
