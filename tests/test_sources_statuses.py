"""Courses of tickets, from the statuses that they had."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.sources.statuses import Category, Change, course, rows

DAY = datetime.fromisoformat("2026-11-01")
SHORT: dict[str, Category] = {"t": "todo", "p": "in_progress", "d": "done"}


def history(letters: str) -> list[Change]:
    """A change a day, by who is called like the day."""
    return [Change(DAY + timedelta(n), letter, SHORT[letter], f"by{n}") for n, letter in enumerate(letters)]


@pytest.mark.parametrize(
    ("letters", "started", "done", "reopened"),
    [
        ("", None, None, 0),
        ("t", None, None, 0),
        ("tt", None, None, 0),
        ("p", 0, None, 0),
        ("tp", 1, None, 0),
        ("tpd", 1, 2, 0),
        ("td", 1, 1, 0),
        ("d", None, 0, 0),
        ("tpdd", 1, 2, 0),
        ("tpdp", 1, None, 1),
        ("tpdpd", 1, 4, 1),
        ("tdtdpdd", 1, 5, 2),
        ("tptp", 1, None, 0),
        ("ddp", 2, None, 1),
    ],
)
def test_course(letters: str, started: int | None, done: int | None, reopened: int) -> None:
    found = course(history(letters))
    assert found.started_at == (None if started is None else DAY + timedelta(started))
    assert found.done_at == (None if done is None else DAY + timedelta(done))
    assert found.closer == (None if done is None else f"by{done}")
    assert found.reopened_count == reopened


@given(st.text("tpd", max_size=12))
def test_course_holds_together(letters: str) -> None:
    found = course(history(letters))
    assert (found.done_at is not None) == letters.endswith("d")
    if found.started_at and found.done_at and not letters.startswith("d"):
        assert found.started_at <= found.done_at
    assert found.reopened_count == letters.count("dp") + letters.count("dt")


def test_of_two_changes_at_one_moment_the_last_counts() -> None:
    changes = [Change(DAY, "Open", "todo"), Change(DAY, "Doing", "in_progress", "ann"), Change(DAY, "Done", "done")]
    (row,) = rows("PAY-1", changes)
    assert (row.ticket_id, row.changed_at, row.status, row.status_category) == ("PAY-1", DAY, "Done", "done")
