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
from datetime import UTC, datetime, timedelta
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
from gateway.balances import question_about
from gateway.budget_file import BudgetFile, BudgetTable, budget_of
from gateway.budgets import BUCKET_US, Account, Budget, Budgets, Raise, Sum, cost_of
from gateway.call import NANO, Call
from gateway.config import LedgerSettings
from gateway.control import AwayError, Control
from gateway.ledger import Ledger, encode_correction
from gateway.periods import ROLLING_US, span
from tests.journals import NOON, Segment, call, micros, segment
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
    names = [
        name
        for name in models
        if name.startswith(("budget", "lake_", "journal_")) or name in ("restated_calls", "calls")
    ]
    with lake.scratch(data) as db:
        build.create_views(db, data, {name: models[name] for name in names} | {"budget_terms": fixed})
        yield db


def status(data: Path, at: datetime = NOON) -> list[dict[str, Any]]:
    with views(data, at) as db:
        result = db.execute("FROM budget_status ORDER BY name, value")
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def asked(budgets: list[Budget], before_us: int) -> budgeting.Question:
    """As the gateway asks."""
    question = {"before_us": before_us, "budgets": [question_about(each, before_us) for each in budgets]}
    return msgspec.json.decode(msgspec.json.encode(question), type=budgeting.Question)


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
    present = {each.name: span(each.period, each.timezone, at_us) for each in budgets}
    accounts = [each for each in found.accounts() if each.period == present[each.budget.name]]
    for account in accounts:
        account.expire(at_us)
    return accounts


# -- the same as the engine --------------------------------------------------------------------------------------------

TICKETS = [
    "PAY-1",
    "PAY-2",
    "OPS-7",
    "acme/shop#45",
    "acme/shop#46",
    "acme-2#7",
    "INC0001",
    "a-b",
    "PAY-1#2",
    "X-²",
    "X-٣",
]
SCOPES = [
    "org", "team:a", "team:[ab]", "user:ann", "user:*n", "key:k1", "model:m-*", "model:m-1", "model:[!m]*",
    "purpose:ci", "ticket:PAY-1", "ticket:PAY-?", "ticket:*#4[56]", "task:t1", "task:t[2-3]", "project:PAY",
    "project:acme/shop", "project:a*", "project:INC0001", "project:X", "each_ticket", "each_task", "each_user",
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
    cost=st.sampled_from([None, None, 0, 1, 7, 10**9, 999_999_999_999_999_999]),
    contracted=st.sampled_from([None, None, None, 0, 5]),
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
    min_size=4,
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


@settings(max_examples=12, deadline=None)
@given(BUDGETS, st.lists(CALLS, min_size=15, max_size=30))
def test_views_and_answers_are_the_engine_s(lasting: Path, budgets: list[Budget], calls: list[Call]) -> None:
    budgeting.store(lasting, budgets, PLAIN_NOW)
    path = segment(lasting, calls, at=NOON - timedelta(seconds=1))
    try:
        told, shown = sums(lasting, budgets), status(lasting)
    finally:
        path.unlink()
    rolling = [
        each for each in calls if each.started_us - each.started_us % BUCKET_US + BUCKET_US + ROLLING_US > NOW_US
    ]
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
    list(fresh.told(told, NOW_US))
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
            wanted = {a.value: (Decimal(a.spent).scaleb(-9), a.unpriced, 1, int(a.spent >= limit)) for a in found}
        assert rows[each.name] == wanted, each


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(zoneinfo.available_timezones())), min_size=1, max_size=5, unique=True),
    st.integers(micros(datetime(2025, 1, 3, tzinfo=UTC)), micros(datetime(2027, 12, 29, tzinfo=UTC))),
)
@example(GAPS, micros(datetime(2026, 4, 23, 22, 0, 0, 1, UTC)))  # Cairo: there is no midnight
@example(GAPS, micros(datetime(2026, 11, 1, 4, 30, tzinfo=UTC)))  # Havana: there are two
@example(GAPS, micros(datetime(2026, 9, 6, 3, 59, 59, 999_999, UTC)))  # Santiago: there is none
def test_periods_are_those_of_the_engine(lasting: Path, zones: list[str], at_us: int) -> None:
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC) + timedelta(microseconds=at_us % 1_000_000)
    budgets = [
        budget(f"{period}-{number}", "org", period=period, timezone=zone)
        for number, zone in enumerate(zones)
        for period in ("day", "week", "month", "quarter", "total", "rolling_24h")
    ]
    budgeting.store(lasting, budgets, at.replace(tzinfo=None))
    with views(lasting, at) as db:
        found = {
            name: (start, end)
            for name, start, end in db.execute(
                "SELECT name, epoch_us(period_start), epoch_us(period_end) FROM budget_terms"
            ).fetchall()
        }
    expected: dict[str, tuple[int | None, int | None]] = {}
    for each in budgets:
        start, end = span(each.period, each.timezone, at_us)
        expected[each.name] = (None, None) if each.period == "total" else (start, end)
        if each.period == "rolling_24h":
            account = Account(each, "", span(each.period, each.timezone, at_us))
            first = (at_us - ROLLING_US) // BUCKET_US * BUCKET_US
            account.post(1, first - 1)
            account.post(1, first)
            account.expire(at_us)
            assert account.spent == 1  # the first five minutes that the engine still counts
            expected[each.name] = (first, None)
    assert found == expected


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("ab-z*?[]!^\\.&|~é\n", max_size=9), st.text("ab-z*[]!^\\.é\n", max_size=5)),
        min_size=50,
        max_size=200,
    )
)
def test_a_glob_means_what_it_means_to_the_engine(pairs: list[tuple[str, str]]) -> None:
    with duckdb.connect() as db:
        for glob, text in pairs:
            [found] = (
                db.execute("SELECT regexp_full_match($1, $2, 's')", [text, budgeting.pattern(glob)]).fetchone() or ()
            )
            assert found == fnmatch.fnmatchcase(text, glob), (glob, text)


@pytest.mark.parametrize(
    "glob", ["claude-*", "a?c", "[a-c]x", "[!a-c]", "[]]", "[!]]", "[a", "[z-a]", "[!z-a]", "[a-]"]
)
def test_globs_that_people_write(glob: str) -> None:
    with duckdb.connect() as db:
        for text in ("claude-x", "claude-", "abc", "ax", "z", "]", "[a", "a", "-", ""):
            [found] = (
                db.execute("SELECT regexp_full_match($1, $2, 's')", [text, budgeting.pattern(glob)]).fetchone() or ()
            )
            assert found == fnmatch.fnmatchcase(text, glob), (glob, text)


# -- what the gateway asks ---------------------------------------------------------------------------------------------

ORG = budget("org", "org", period="total")
EACH_TICKET = budget("tickets", "each_ticket", period="total")


def total(data: Path, before_us: int) -> tuple[int, int]:
    found = sums(data, [ORG], before_us)
    return (sum(nano for each in found for _, nano in each.posted), sum(each.unpriced for each in found))


def test_a_call_counts_when_it_was_booked_before(data: Path) -> None:
    booked = NOON + timedelta(microseconds=7)
    with Segment(data, booked) as written:
        written.close(call(NOON - timedelta(hours=1), list_cost_nano=5))
    assert total(data, micros(booked)) == (0, 0)
    assert total(data, micros(booked) + 1) == (5, 0)


def test_wherever_the_calls_are_by_now(data: Path, moving: lake.Lake) -> None:
    for number in range(4):
        at = NOON + timedelta(minutes=number)
        segment(
            data, [call(at, list_cost_nano=10**number), call(at, list_cost_nano=None, price_status="unpriced")], at=at
        )
        for _ in range(number):
            moving.seal()
            moving.turn()
        assert total(data, micros(NOON + timedelta(hours=1))) == (int("1" * (number + 1)), number + 1)
        assert total(data, micros(at)) == (int("1" * number or "0"), number)


def test_the_latest_correction_that_was_made_before_counts(data: Path) -> None:
    first = call(NOON, tickets=("PAY-1",), list_cost_nano=100)
    segment(data, [first])
    dearer = msgspec.structs.replace(first, list_cost_nano=300)
    moved = msgspec.structs.replace(dearer, tickets=("OPS-7",))
    minutes = [NOON + timedelta(minutes=number) for number in range(4)]
    with Segment(data, minutes[1], "fix") as written:
        written.write(encode_correction(moved, "attribution", micros(NOON), micros(minutes[2])))
        written.write(encode_correction(dearer, "usage", micros(NOON), micros(minutes[1])))

    def tickets(at: datetime) -> dict[str, int]:
        return {each.value: each.posted[0][1] for each in sums(data, [EACH_TICKET], micros(at))}

    assert tickets(minutes[0]) == {}
    assert tickets(minutes[1]) == {"PAY-1": 100}
    assert tickets(minutes[2]) == {"PAY-1": 300}
    assert tickets(minutes[3]) == {"OPS-7": 300}


def test_a_correction_after_the_moment_is_left_to_the_gateway(data: Path) -> None:
    """Which posts the difference itself: no nano-dollar counts twice, or not at all."""
    first = call(NOON, list_cost_nano=100)
    segment(data, [first])
    asks_us, corrects = NOW_US + 60_000_000, NOON + timedelta(minutes=2)
    accounts = Budgets()
    accounts.replace([ORG])
    accounts.post(first, cost_of(first))
    accounts.asking(asks_us)
    after = msgspec.structs.replace(first, list_cost_nano=40)
    with Segment(data, corrects, "gw-2") as written:
        written.write(encode_correction(after, "usage", micros(NOON), micros(corrects)))
    accounts.post(first, -100)
    accounts.post(after, cost_of(after))
    list(accounts.told(sums(data, [ORG], asks_us), asks_us))
    assert [account.spent for account in accounts.accounts()] == [40]


def test_a_killed_gateway_s_calls_count_what_they_held(data: Path) -> None:
    lost = call(NOON, result=None, list_cost_nano=None, price_status=None, held_nano=77)
    nothing_held = call(NOON, result=None, list_cost_nano=None, price_status=None)
    killed = Segment(data, NOON)
    killed.open(lost)
    killed.open(nothing_held)
    killed.crash()
    assert total(data, micros(NOON + timedelta(days=1))) == (0, 0)
    again = Ledger(LedgerSettings(dir=str(data), reserve_bytes=0), "gw-2", clock=lambda: micros(NOON) + 5)
    assert again.start() == 2
    again.stop()
    assert total(data, micros(NOON + timedelta(days=1))) == (77, 1)


async def test_the_gateway_is_told_over_the_socket(data: Path) -> None:
    segment(data, [call(WEEK_AGO, tickets=("PAY-1", "OPS-7"), list_cost_nano=3)], at=WEEK_AGO)
    question = asked([ORG, EACH_TICKET], NOW_US)
    with live.serving(data):
        wait_for(data)
        control = Control(data)
        try:
            answer = await control.budget_sums(msgspec.json.encode(question), 20)
            found = msgspec.json.decode(answer, type=list[Sum])
            assert found == sums(data, [ORG, EACH_TICKET])
            assert [(each.value, each.posted) for each in found] == [
                ("", ((0, 3),)),
                ("OPS-7", ((0, 1),)),
                ("PAY-1", ((0, 2),)),
            ]
            many = asked([budget(f"b{n}", f"ticket:{'T' * 300}-{n}") for n in range(10_000)], NOW_US)
            assert msgspec.json.decode(await control.budget_sums(msgspec.json.encode(many), 30)) == []
            assert await control.budget_sums(b'{"before_us":1,"budgets":[]}', 20) == b"[]"
            for bad in (b"{", b'{"before_us":1}', b'{"before_us":1,"budgets":[{"kind":"person"}]}'):
                with pytest.raises(AwayError):
                    await control.budget_sums(bad, 20)
        finally:
            await control.close()


def test_what_was_spent_before_a_budget_was_made_is_told_or_said_to_be_unknown(
    data: Path, moving: lake.Lake, run: "Run"
) -> None:
    def told() -> tuple[str | None, str]:
        code, out, errors = run("budgets", "list", "--json")
        [row], plain = json.loads(out), run("budgets", "show", "late", "--json")
        assert (code, row.get("spent_usd")) == (plain[0], json.loads(plain[1]).get("spent_usd"))
        return row.get("spent_usd"), errors

    BudgetFile(data).set("late", BudgetTable("org", Decimal(10), period="total"), "test")
    assert told() == ("0", "")
    segment(data, [call(WEEK_AGO, list_cost_nano=3 * NANO)], at=WEEK_AGO)
    assert told() == ("3", "")  # in the journal, which is read here
    moving.seal()
    spent, errors = told()
    assert spent is None
    assert "What was spent of late is not known: the ledger tells it while `outlay serve` runs" in errors
    assert run("budgets", "list")[0] == 0
    with live.serving(data):
        wait_for(data)
        assert told() == ("3", "")


async def test_sums_that_cannot_be_had_are_said(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "lake_state.csv").rename(data / "aside.csv")
    of = live.Live(data)
    task = asyncio.create_task(of.answer())
    assert await of.budget_sums(asked([ORG], NOW_US)) is None
    (data / "aside.csv").rename(data / "lake_state.csv")
    assert await of.budget_sums(asked([ORG], NOW_US)) == b"[]"
    task.cancel()
    assert caplog.text.count("what budgets have spent cannot be told") == 1


async def test_sums_that_take_too_long_are_given_up(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def endless(db: duckdb.DuckDBPyConnection, *_: Any) -> list[Sum]:
        db.execute("SELECT count(*) FROM range(1000000000000) WHERE range % 7 = 3")
        return []

    monkeypatch.setattr(budgeting, "sums", endless)
    monkeypatch.setattr(live, "SUM_SECONDS", 0.2)
    of = live.Live(data)
    task = asyncio.create_task(of.answer())
    assert await of.budget_sums(asked([ORG], NOW_US)) is None
    task.cancel()
    assert "takes over 0.2 s" in caplog.text


# -- how budgets stand -------------------------------------------------------------------------------------------------


def test_a_budget_half_way_through_its_month(data: Path) -> None:
    until_us = NOW_US + 1
    raises = (
        Raise(5 * NANO, until_us, "launch", "admin"),
        Raise(50 * NANO, NOW_US, "over by now", "admin"),
    )
    mid = datetime(2026, 11, 16, tzinfo=UTC)
    budgeting.store(
        data,
        [budget("pay", "team:pay", "100", raises, mode="shadow", owner="fin@example.com", on_exceed="warn")],
        PLAIN_NOW,
    )
    calls = [
        call(mid - timedelta(days=1), team_id="pay", list_cost_nano=60 * NANO + 1),
        call(mid - timedelta(days=16), team_id="pay", list_cost_nano=NANO),  # in October
        call(mid - timedelta(days=1), team_id="pay", list_cost_nano=None, price_status="unpriced"),
        call(mid - timedelta(days=1), team_id="ops"),
    ]
    segment(data, calls, at=mid)
    [row] = status(data, mid)
    assert row == {
        "name": "pay",
        "scope": "team:pay",
        "value": "pay",
        "period": "month",
        "period_start": datetime(2026, 11, 1),  # noqa: DTZ001 - UTC
        "period_end": datetime(2026, 12, 1),  # noqa: DTZ001 - UTC
        "limit_usd": Decimal(155),  # of which one is over at noon of the 20th
        "spent_usd": Decimal("60.000000001"),
        "remaining_usd": Decimal("94.999999999"),
        "unpriced_calls": 1,
        "used": pytest.approx(60 / 155),
        "forecast_usd": Decimal("120.000000002"),
        "mode": "shadow",
        "on_exceed": "warn",
        "owner": "fin@example.com",
        "accounts": 1,
        "accounts_over": 0,
    }
    [row] = status(data, NOON)
    assert row["limit_usd"] == Decimal(105)


def test_no_forecast_where_it_means_nothing(data: Path) -> None:
    budgets = [
        budget("month", "org"),
        budget("total", "org", period="total"),
        budget("rolling", "org", period="rolling_24h"),
    ]
    budgeting.store(data, budgets, PLAIN_NOW)
    segment(data, [call(datetime(2026, 11, 3, 1, tzinfo=UTC), list_cost_nano=NANO)])
    early = {
        row["name"]: (row["spent_usd"], row["forecast_usd"])
        for row in status(data, datetime(2026, 11, 3, 23, tzinfo=UTC))
    }
    assert early == {"month": (1, None), "rolling": (1, None), "total": (1, None)}
    later = {row["name"]: row["forecast_usd"] for row in status(data, datetime(2026, 11, 4, tzinfo=UTC))}
    assert later == {"month": Decimal(10), "rolling": None, "total": None}


def test_users_are_counted_and_not_listed(data: Path) -> None:
    own = Raise(4 * NANO, NOW_US + 1, "needs it", "admin", value="ben")
    budgets = [
        budget("each", "each_user", "3", (own,)),
        budget("nobody", "each_user", "1", period="day"),
        budget("ann", "user:ann"),
    ]
    budgeting.store(data, budgets, PLAIN_NOW)
    spent = {"ann": 3, "ben": 6, "cid": 1}
    segment(data, [call(WEEK_AGO, user_id=name, list_cost_nano=usd * NANO) for name, usd in spent.items()])
    ann, each, nobody = status(data)
    assert (each["value"], each["limit_usd"], each["spent_usd"]) == (None, 3, 10)
    assert (each["accounts"], each["accounts_over"]) == (3, 1)  # ben has a raise
    assert [each[name] for name in ("remaining_usd", "used", "forecast_usd")] == [None] * 3
    assert (nobody["accounts"], nobody["accounts_over"], nobody["spent_usd"]) == (0, 0, 0)
    assert (ann["value"], ann["spent_usd"]) == ("ann", 3)  # somebody named her
    assert not {"ben", "cid"} & {value for row in (ann, each, nobody) for value in row.values()}


def test_accounts_of_a_template(data: Path) -> None:
    raises = (Raise(NANO, NOW_US + 1, "big one", "admin", value="PAY-1"),)
    budgeting.store(data, [budget("tickets", "each_ticket", "2", raises, period="total")], PLAIN_NOW)
    [row] = status(data)
    assert (row["value"], row["accounts"], row["accounts_over"], row["limit_usd"]) == (None, 0, 0, 2)
    segment(data, [call(LONG_AGO, tickets=("PAY-1", "OPS-7"), list_cost_nano=4 * NANO)])
    ops, pay = status(data)
    assert [(row["value"], row["limit_usd"], row["accounts_over"]) for row in (ops, pay)] == [
        ("OPS-7", 2, 1),
        ("PAY-1", 3, 0),
    ]


# -- what is in force --------------------------------------------------------------------------------------------------


def rows(data: Path) -> list[dict[str, Any]]:
    with analytics.open(data) as db:
        result = db.execute("FROM budgets")
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def test_what_is_written_down_is_noted(data: Path) -> None:
    raises = (Raise(1, 10**18, "why\n'\"", "admin", NOW_US, "PAY-1"),)
    budgets = [
        budget("all", "org", "999999999"),
        budget("globs", "model:claude-[!x]*", "0.000000001", warn_at=(0.5, 0.8), period="rolling_24h"),
        budget("tickets", "each_ticket", "1.5", raises, mode="shadow", on_exceed="reroute:m", owner="ö"),
    ]
    assert budgeting.store(data, budgets, PLAIN_NOW)
    everything, globs, tickets = rows(data)
    assert (everything["kind"], everything["value"], everything["limit_usd"]) == ("org", "", 999_999_999)
    assert (globs["value"], globs["limit_usd"], globs["warn_at"]) == ("claude-[!x]*", Decimal("1e-9"), [0.5, 0.8])
    assert (tickets["scope"], tickets["value"], tickets["on_exceed"], tickets["owner"]) == (
        "each_ticket",
        None,
        "reroute:m",
        "ö",
    )
    assert tickets["raises"] == [
        {
            "amount_usd": Decimal("1e-9"),
            "until_at": datetime(9999, 1, 1),  # noqa: DTZ001 - for ever, as far as SQL goes
            "reason": "why\n'\"",
            "by": "admin",
            "at": PLAIN_NOW,
            "value": "PAY-1",
        }
    ]
    assert {row["since"] for row in (everything, globs, tickets)} == {PLAIN_NOW}


def test_a_file_changes_only_when_something_does(data: Path) -> None:
    files = [budgeting.table_file(data, table) for table in ("budgets", "calendar")]
    first = [budget("all", "org"), budget("day", "org", period="day", timezone="Asia/Tokyo")]
    assert budgeting.store(data, first, PLAIN_NOW)
    before = [path.stat().st_ino for path in files]
    later = PLAIN_NOW + timedelta(hours=1)
    assert not budgeting.store(data, first, later)
    assert [path.stat().st_ino for path in files] == before
    second = [budget("all", "org", "11"), budget("day", "org", period="day", timezone="Asia/Tokyo", on_exceed="warn")]
    assert budgeting.store(data, second, later)
    assert [path.stat().st_ino == inode for path, inode in zip(files, before, strict=True)] == [False, True]
    assert {row["name"]: row["since"] for row in rows(data)} == {"all": later, "day": PLAIN_NOW}
    assert budgeting.store(data, second, PLAIN_NOW.replace(year=2027))  # another year of the calendar
    assert budgeting.store(data, [], later)
    assert rows(data) == []


@pytest.mark.parametrize("damage", ["other columns", "no parquet"])
def test_a_table_of_another_version_is_made_again(data: Path, damage: str) -> None:
    budgets = [budget("all", "org")]
    budgeting.store(data, budgets, PLAIN_NOW)
    file = budgeting.table_file(data, "budgets")
    if damage == "no parquet":
        file.write_bytes(b"PAR1")
    else:
        duckdb.sql("SELECT 'all' AS name").write_parquet(str(file))
    budgeting.prepare(data)
    assert rows(data) == []
    assert budgeting.store(data, budgets, PLAIN_NOW)
    assert [row["name"] for row in rows(data)] == ["all"]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.02)


def test_the_keeper_notes_what_changes(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budgeting, "ROUND_SECONDS", 0.05)
    caplog.set_level(logging.ERROR, "outlay.budgeting")
    toml = data.parent / "budgets.toml"
    toml.write_text('[budgets.pay]\nscope = "team:pay"\nlimit_usd = 3\n')
    file = BudgetFile(data, {"all": BudgetTable("org", Decimal(7))}, toml)

    def names() -> list[str]:
        try:
            return [row["name"] for row in rows(data)]
        except duckdb.Error:
            return []  # the file was replaced between two looks of one query: docs/data.md

    with budgeting.noting(data, file):
        until(lambda: names() == ["all", "pay"])
        toml.write_text("[budgets.pay\n")
        until(lambda: "budgets.toml" in caplog.text)
        BudgetFile(data).set("more", BudgetTable("each_task", Decimal(1)), "admin")
        time.sleep(0.3)
        assert names() == ["all", "pay"]
        toml.write_text("")
        until(lambda: names() == ["all", "more"])
    assert caplog.text.count("what is known of budgets stays as it was") == 1


# -- reports -----------------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([*arguments, "--data", str(data)])
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


def test_report_budgets(data: Path, run: Run, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    budgeting.store(
        data,
        [budget("tickets", "each_ticket", "2", period="total"), budget("all", "org", "3")],
        now.replace(tzinfo=None),
    )
    segment(
        data,
        [call(now, tickets=("PAY-1",), list_cost_nano=NANO), call(now, tickets=("OPS-7",), list_cost_nano=2 * NANO)],
        at=now,
    )
    code, out, _ = run("report", "budgets", "--format", "csv")
    assert code == 0
    found = list(csv.DictReader(io.StringIO(out)))
    assert [(row["name"], row["value"], row["spent_usd"], row["used"]) for row in found] == [
        ("all", "", "3.000000000", "1.0"),
        ("tickets", "OPS-7", "2.000000000", "1.0"),
        ("tickets", "PAY-1", "1.000000000", "0.5"),
    ]
    _, out, _ = run("report", "budgets", "--json")
    assert [row["remaining_usd"] for row in json.loads(out)] == [0, 0, 1]
    assert "PAY-1" in run("report", "budgets")[1]
    assert run("report", "budgets", "--format", "parquet", "--out", str(tmp_path / "b.parquet"))[0] == 0
    assert len(duckdb.read_parquet(str(tmp_path / "b.parquet"))) == 3
    code, _, errors = run("report", "budgets", "--from", "2026-01-01")
    assert code == 2
    assert "--shadow" in errors


def shadow(run: Run, *options: str) -> dict[tuple[str, str], dict[str, str]]:
    code, out, errors = run("report", "budgets", "--shadow", "--format", "csv", *options)
    assert code == 0, errors
    return {(row["name"], row["basis"]): row for row in csv.DictReader(io.StringIO(out))}


def test_what_a_shadow_budget_would_have_refused(data: Path, run: Run) -> None:
    since = datetime(2026, 11, 20)  # noqa: DTZ001 - UTC
    raises = (Raise(10 * NANO, micros(NOON), "once", "admin", micros(datetime(2026, 11, 3, tzinfo=UTC))),)
    budgets = [
        budget("all", "org", "3", mode="shadow"),
        budget("raised", "org", "3", raises, mode="shadow"),
        budget("real", "org", "3"),
        budget("rolling", "org", "1", mode="shadow", period="rolling_24h"),
        budget("users", "each_user", "1.5", mode="shadow", period="total"),
    ]
    budgeting.store(data, budgets, since)

    def on(day: int, hour: int = 0, usd: int | None = 1, **fields: Any) -> Call:
        cost = None if usd is None else usd * NANO
        status = "unpriced" if usd is None else "exact"
        return call(datetime(2026, 11, day, hour, tzinfo=UTC), list_cost_nano=cost, price_status=status, **fields)

    calls = [
        call(datetime(2026, 10, 31, tzinfo=UTC), list_cost_nano=9 * NANO, user_id="ann"),
        on(1, user_id="ann"),
        on(2, user_id="ann", tickets=("PAY-1", "PAY-2", "PAY-3")),
        on(3, user_id="ben", tickets=("PAY-1",)),
        on(4, user_id="ben", tickets=("PAY-1", "PAY-9")),  # the first after the limit of $3
        on(5, hour=3, usd=None, user_id="ben", tickets=("PAY-9",)),
        on(5, hour=4, result="refused", usd=0),
        on(21, budget_action="shadow_blocked", tickets=("OPS-7",)),
        on(22, budget_action="warned"),
    ]
    segment(data, calls, at=datetime(2026, 11, 23, tzinfo=UTC))
    found = shadow(run, "--from", "2026-11-01", "--to", "2026-11-30")
    assert set(found) == {
        (name, basis) for name in ("all", "raised", "rolling", "users") for basis in ("recorded", "replayed")
    }

    def told(name: str, basis: str) -> tuple[str, ...]:
        row = found[name, basis]
        return tuple(row[column] for column in ("calls", "spent_after_usd", "unpriced_calls", "tickets", "first_at"))

    assert told("all", "replayed") == ("2", "1.000000000", "1", "2", "2026-11-04 00:00:00")
    assert told("all", "recorded") == ("1", "1.000000000", "0", "1", "2026-11-21 00:00:00")
    assert told("raised", "replayed") == ("0", "0.000000000", "0", "0", "")
    # Each call came 24 hours after the one before, which still count, but for the one at three o'clock.
    assert told("rolling", "replayed") == ("4", "4.000000000", "0", "4", "2026-11-01 00:00:00")
    assert told("users", "replayed") == ("3", "2.000000000", "1", "4", "2026-11-01 00:00:00")
    assert "ann" not in str(found)
    november = shadow(run, "--from", "2026-11-05", "--to", "2026-11-05")
    assert november["all", "replayed"]["calls"] == "1"  # what was spent before is looked at, too
    assert ("all", "recorded") not in november
    assert run("report", "budgets", "--shadow", "--from", "2026-11-02", "--to", "2026-11-01")[0] == 2


def test_last_month_is_what_a_shadow_report_is_about(data: Path, run: Run) -> None:
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    budgeting.store(data, [budget("none", "org", "0", mode="shadow")], this_month.replace(tzinfo=None))
    at = [last_month - timedelta(seconds=1), last_month, this_month - timedelta(seconds=1), this_month]
    segment(data, [call(each, list_cost_nano=NANO) for each in at], at=this_month)
    [(basis, row)] = shadow(run).items()
    assert (basis, row["calls"], row["spent_after_usd"]) == (("none", "replayed"), "2", "2.000000000")


def test_verify_lists_what_open_calls_hold(data: Path, run: Run) -> None:
    held, free, done = call(held_nano=5 * NANO + 1), call(), call(held_nano=9)
    written = Segment(data)
    for each in (held, free, done):
        written.open(each)
    written.close(done)
    findings = verifying.verify(data)
    assert (len(findings.open_calls), findings.open_holds, findings.held_usd) == (2, 1, Decimal("5.000000001"))
    assert "1 of them hold 5.000000001 USD in budgets" in run("verify")[1]
    written.end()
