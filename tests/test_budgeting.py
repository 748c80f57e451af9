"""Budgets in the control plane: what the views and the gateway's question say is what the engine says, to the
nano-dollar; what is in force is noted; reports list no person."""

import asyncio
import contextlib
import csv
import dataclasses
import fnmatch
import io
import json
import logging
import time
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import analytics
from analytics import budgeting, build, lake, live, verifying
from gateway import cli
from gateway.budget_file import BudgetFile, BudgetTable, budget_of
from gateway.budgets import BUCKET_US, Account, Budget, Budgets, Raise, Sum, cost_of
from gateway.call import NANO, Call
from gateway.config import LedgerSettings
from gateway.control import AwayError, Control
from gateway.ledger import Ledger, encode_correction
from gateway.periods import ROLLING_US, span
from tests.journals import NOON, Segment, call, line, micros, segment
from tests.test_live import wait_for

NOW_US = micros(NOON)
WEEK_AGO = NOON - timedelta(days=7)
LONG_AGO = NOON - timedelta(days=400)
PLAIN_NOW = NOON.replace(tzinfo=None)
GAPS = ["Africa/Cairo", "America/Havana", "Asia/Beirut", "America/Asuncion", "America/Santiago", "Pacific/Apia"]
"""Zones that put clocks forward, or back, at midnight."""


def budget(name: str, scope: str, limit: str = "10", raises: tuple[Raise, ...] = (), **fields: Any) -> Budget:
    return budget_of(name, BudgetTable(scope, Decimal(limit), **fields), raises)


@contextlib.contextmanager
def views(data: Path, at: datetime = NOON) -> Iterator[duckdb.DuckDBPyConnection]:
    """All views, at a moment that a test sets."""
    models = build.load()
    terms = models["budget_terms"]
    assert "epoch_us(now())" in terms.sql
    fixed = dataclasses.replace(terms, sql=terms.sql.replace("epoch_us(now())", str(micros(at))))
    with lake.scratch(data) as db:
        build.create_views(db, data, models | {"budget_terms": fixed})
        yield db


def status(data: Path, at: datetime = NOON) -> list[dict[str, Any]]:
    with views(data, at) as db:
        result = db.execute("FROM budget_status ORDER BY name, value")
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def asked(budgets: list[Budget], before_us: int) -> budgeting.Question:
    """As gateway/balances.py asks."""
    return budgeting.Question(
        before_us,
        [
            budgeting.Asked(
                each.identity,
                each.scope.kind,
                each.scope.value,
                span(each.period, each.timezone, before_us).start_us,
                each.period == "rolling_24h",
            )
            for each in budgets
        ],
    )


def sums(data: Path, budgets: list[Budget], before_us: int = NOW_US) -> list[Sum]:
    with lake.scratch(data, threads=1) as db:
        return budgeting.sums(db, data, asked(budgets, before_us))


def engine(budgets: list[Budget], calls: list[Call], at_us: int = NOW_US) -> list[Account]:
    """The accounts of the present periods, after all calls."""
    found = Budgets()
    found.replace(budgets)
    for each in calls:
        if each.result != "refused":
            found.post(each, cost_of(each))
    accounts = [each for each in found.accounts() if each.period == span(each.budget.period, each.budget.timezone, at_us)]
    for account in accounts:
        account.expire(at_us)
    return accounts


# -- the same as the engine --------------------------------------------------------------------------------------------

TICKETS = ["PAY-1", "PAY-2", "OPS-7", "acme/shop#45", "acme/shop#46", "acme-2#7", "INC0001", "a-b", "PAY-1#2", "X-²"]
SCOPES = [
    "org", "team:a", "team:[ab]", "user:ann", "user:*n", "key:k1", "model:m-*", "model:m-1", "model:[!m]*",
    "purpose:ci", "ticket:PAY-1", "ticket:PAY-?", "ticket:*#4[56]", "task:t1", "task:t[2-3]", "project:PAY",
    "project:acme/shop", "project:a*", "project:INC0001", "each_ticket", "each_task", "each_user",
]  # fmt: skip
MAYBE = st.sampled_from([None, "ann", "ben", ""])
CALLS = st.builds(
    lambda ago, cost, contracted, held, result, **fields: call(
        NOON - timedelta(microseconds=ago),
        result=result,
        list_cost_nano=cost,
        contracted_cost_nano=contracted,
        held_nano=held,
        price_status="unpriced" if cost is None else "exact",
        **fields,
    ),
    ago=st.one_of(
        st.integers(1, 2 * ROLLING_US),
        st.integers(1, 100 * ROLLING_US),
        st.sampled_from([ROLLING_US + n * BUCKET_US + d for n in (0, 1) for d in (-1, 0, 1)]),
    ),
    cost=st.sampled_from([None, 0, 1, 7, 10**9, 999_999_999_999_999_999]),
    contracted=st.sampled_from([None, None, 0, 5, 11]),
    held=st.sampled_from([None, 13, 10**10]),
    result=st.sampled_from(["completed", "completed", "interrupted", "refused"]),
    team_id=st.sampled_from([None, "a", "b", "[ab]"]),
    user_id=MAYBE,
    key_id=st.sampled_from([None, "k1", "k2"]),
    purpose=st.sampled_from([None, "ci"]),
    request_model=st.sampled_from([None, "m-1", "m-2", "n"]),
    task_id=st.sampled_from([None, "t1", "t2", "t3"]),
    tickets=st.lists(st.sampled_from(TICKETS), max_size=4).map(tuple),
)
BUDGETS = st.lists(
    st.tuples(
        st.sampled_from(SCOPES),
        st.sampled_from(["day", "week", "month", "quarter", "total", "rolling_24h"]),
        st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland", *GAPS]),
    ),
    max_size=12,
    unique=True,
).map(
    lambda drawn: [
        budget(f"b{number:02}", scope, period=period, timezone=zone)
        for number, (scope, period, zone) in enumerate(drawn)
    ]
)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("lasting")
    lake.publish(data)
    return data


@settings(max_examples=40, deadline=None)
@given(BUDGETS, st.lists(CALLS, max_size=25))
def test_views_and_answers_are_the_engine_s(lasting: Path, budgets: list[Budget], calls: list[Call]) -> None:
    budgeting.store(lasting, budgets, PLAIN_NOW)
    path = segment(lasting, calls, at=NOON - timedelta(seconds=1))
    try:
        told, shown = sums(lasting, budgets), status(lasting)
    finally:
        path.unlink()
    rolling = [each for each in calls if each.started_us - each.started_us % BUCKET_US + BUCKET_US + ROLLING_US > NOW_US]
    accounts = engine([b for b in budgets if b.period != "rolling_24h"], calls)
    accounts += engine([b for b in budgets if b.period == "rolling_24h"], rolling)

    expected = {}
    for account in accounts:
        posted = [(account.period.start_us, account.spent)] if account.window is None else list(account.window)
        posted = [(start, nano) for start, nano in posted if nano]
        if posted or account.unpriced:
            expected[account.budget.identity, account.value] = (posted, account.unpriced)
    assert {(each.identity, each.value): (list(each.posted), each.unpriced) for each in told} == expected
    assert len(told) == len(expected)

    # A fresh engine that is told this has these balances.
    fresh = Budgets()
    fresh.replace(budgets)
    fresh.told(told, NOW_US)
    assert {(a.budget.identity, a.value): (a.spent, a.unpriced) for a in fresh.accounts()} == {
        (a.budget.identity, a.value): (a.spent, a.unpriced)
        for a in accounts
        if (a.budget.identity, a.value) in expected
    }

    of: dict[str, list[Account]] = {each.name: [] for each in budgets}
    for account in accounts:
        of[account.budget.name].append(account)
    rows: dict[str, dict[str | None, tuple[Any, ...]]] = {}
    for row in shown:
        values = row["spent_usd"], row["unpriced_calls"], row["accounts"], row["accounts_over"]
        rows.setdefault(row["name"], {})[row["value"]] = values
    assert sum(map(len, rows.values())) == len(shown)
    for each in budgets:
        found, limit = of[each.name], each.limit_nano
        if str(each.scope) == "each_user" or each.scope.value is not None or not found:
            there = 1 if each.scope.value is not None else len(found)
            spent = sum(account.spent for account in found)
            over = sum(account.spent >= limit for account in found)
            unpriced = sum(account.unpriced for account in found)
            wanted = {each.scope.value or None: (Decimal(spent).scaleb(-9), unpriced, there, over)}
        else:
            wanted = {
                a.value: (Decimal(a.spent).scaleb(-9), a.unpriced, 1, int(a.spent >= limit)) for a in found
            }
        assert rows[each.name] == wanted, each
