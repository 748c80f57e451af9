"""Parts of the console without a server: spans of days, amounts as text, charts, and the runner of queries."""

import asyncio
import csv
import io
import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import again, work
from analytics.web import asking, charts, formats, spans, tables
from tests import consoles
from tests.journals import NOON, call, segment
from tests.trackers import hours, know

OPENED = asking.Base(asking.opened)


def test_spans_are_whole_days_months_and_quarters() -> None:
    today = date(2026, 11, 26)
    assert spans.named("30d", today) == spans.Span("30d", date(2026, 10, 28), today)
    assert spans.named("last-month", today) == spans.Span("last-month", date(2026, 10, 1), date(2026, 10, 31))
    assert spans.named("last-quarter", today) == spans.Span("last-quarter", date(2026, 7, 1), date(2026, 9, 30))
    assert spans.named("last-quarter", date(2026, 1, 5)).first == date(2025, 10, 1)
    assert spans.of({"month": "2026-02"}, today) == spans.Span("", date(2026, 2, 1), date(2026, 2, 28))
    assert spans.of({"from": "2026-02-03", "to": "2026-01-01"}, today).first == date(2026, 1, 1)
    assert spans.of({"month": "9999-12"}, today) == spans.Span("", date(2999, 12, 1), date(2999, 12, 31))
    for asked in (
        {"month": "0001-01"},
        {"from": "9999-12-31"},
        {"to": "0001-01-01"},
        {"from": "9999-12-31", "to": "x"},
    ):
        span = spans.of(asked, today)
        assert spans.FIRST <= span.first <= span.last <= spans.LAST
        assert span.given["from"] < span.given["to"]
    assert spans.of({"from": "nonsense", "period": "nonsense"}, today).name == "30d"
    for asked, no_day in (
        ({"from": "2026-13-01"}, "2026-13-01"),
        ({"from": "2026-11-01", "to": "soon"}, "soon"),
        ({"month": "2026-13"}, "2026-13"),
        ({"from": "", "to": "2026-11-02", "month": "2026-11"}, None),
        ({}, None),
    ):
        assert spans.unread(asked) == no_day


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "$0.00"), ("1234567.891", "$1,234,567.89"), ("0.0421", "$0.0421"), ("0.000000042", "$0.000000042"),
        ("-2.5", "−$2.50"), ("0.1", "$0.10"), (None, "–"), ("0.00001556", "$0.000016"), ("0.000000001", "$0.000000001"),
    ],
)  # fmt: skip
def test_money_is_shown_as_fine_as_it_has_to_be(amount: str | None, text: str) -> None:
    assert formats.usd(None if amount is None else Decimal(amount)) == text


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.text("xyz<&", max_size=3), st.decimals(0, 10**6, places=9)), max_size=40
    )
)
def test_bars_sum_to_what_they_are_made_of(rows: list[tuple[str, str, Decimal]]) -> None:
    chart = charts.bars("abc", rows)
    assert sum(chart.total(slot) for slot in "abc") == sum(amount for _, _, amount in rows)
    assert len(chart.series) <= charts.SERIES_MAX
    drawn = charts.stacked(chart)
    assert drawn.count("<svg") == 2
    ElementTree.fromstring(f"<x>{drawn}</x>")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=1+1", "'=1+1"), ("a\n=1", "a\n'=1"), (" =1", "' =1"), ("\t=1", "'\t=1"), ("a\n\nb = 1", "a\n\nb = 1"),
        (["=1", "b"], "'=1, b"), ("1-1", "1-1"), (-1, -1), (Decimal("-1.50"), "-1.50"), (None, None),
    ],
)  # fmt: skip
def test_no_line_of_a_csv_is_a_formula(value: object, text: object) -> None:
    assert tables.plain(value) == text
    if isinstance(value, str):
        assert next(csv.reader(io.StringIO(tables.csv_of((value,), [])))) == [text]


def test_an_address_asks_for_more() -> None:
    assert formats.onto("/calls", "key={}") == "/calls?key={}"
    assert formats.onto("/calls?team=a", "key={}") == "/calls?team=a&key={}"


def test_a_chart_of_months_has_a_table_of_months() -> None:
    assert '"col">month<' in charts.table(charts.bars(["2026-11"], []), "x")
    assert '"col">day<' in charts.table(charts.bars(["2026-11-20"], []), "x")


def test_parameters_are_found_and_written_out_in_text_alone() -> None:
    sql = "SELECT '$a', \"$b\", $c -- $d\n, $e"
    assert asking.parameters(sql) == {"c", "e"}
    assert asking.spelled_out(sql, {"c": "it's", "e": [1, None]}) == "SELECT '$a', \"$b\", 'it''s' -- $d\n, [1, NULL]"


async def test_a_query_that_takes_too_long_is_given_up_and_others_go_on(data: Path) -> None:
    asks = asking.Asking(data, 0.5, 1, OPENED)
    slow = "SELECT count(*) AS n FROM range(1000000) AS a(x), range(1000000) AS b(y) WHERE (x + y) % 7 = $n"
    try:
        with pytest.raises(asking.AskError, match="was given up"):
            await asks.ask(slow, {"n": 1})
        assert (await asks.ask("SELECT $n AS n", {"n": 2})).dicts() == [{"n": 2}]
    finally:
        await asks.close()


async def test_an_answer_is_given_again_until_something_changes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FRESH_SECONDS", 0.0)
    asks = asking.Asking(data, 30, 2, OPENED)
    try:
        await asks.ask("SELECT 1 AS n", {})  # makes what the views need to be there
        first = await asks.ask("SELECT count(*) AS n FROM calls", {})
        assert await asks.ask("SELECT count(*) AS n FROM calls", {}) is first
        segment(data, [call()])
        assert (await asks.ask("SELECT count(*) AS n FROM calls", {})).dicts() == [{"n": 1}]
    finally:
        await asks.close()


async def test_what_is_worked_out_is_made_anew_when_something_changed_and_until_then_the_one_before_answers(
    data: Path,
) -> None:
    made: list[int] = []

    def make(folder: Path) -> duckdb.DuckDBPyConnection:
        made.append(len(made) + 1)
        db = asking.opened(folder)
        db.execute(f"SET VARIABLE made = {made[-1]}")
        return db

    asks = asking.Asking(data, 30, 2, asking.Base(make, ("work",)))
    try:
        for _ in range(2):
            assert (await asks.ask("SELECT count(*) AS n FROM tickets", {})).dicts() == [{"n": 0}]
        assert made == [1]
        know(data, "PAY-1")
        async with consoles.soon():
            while len(made) < 2:
                await asks.ask("SELECT count(*) AS n FROM tickets WHERE $n > 0", {"n": len(made)}, is_exact=True)
        assert (await asks.ask("SELECT count(*) AS n FROM tickets", {}, is_exact=True)).dicts() == [{"n": 1}]
    finally:
        await asks.close()


def test_a_tickets_page_has_the_sums_and_outcome_of_ticket_costs(data: Path) -> None:
    """Calls for several tickets are split on it without the views that split them."""
    moved = work.Ticket(ticket_id="PAY-1", aliases=["OLD-5"], status_category="in_progress", updated_at=hours(-1))
    given_up = work.Ticket(ticket_id="PAY-2", status_category="done", resolution="Won't Do", done_at=hours(-1))
    know(data, moved, given_up, synced=hours(24 * 40))
    named = (
        ("OLD-5",),
        ("OLD-5", "PAY-2", "PAY-1"),
        ("PAY-2", "PAY-404", "PAY-1"),
        ("PAY-404",),
        ("NEW-1", "PAY-1"),
        (),
    )
    segment(
        data,
        [
            call(
                NOON + timedelta(minutes=number), tickets=tickets, ticket_id=tickets[0] if tickets else None,
                task_id=f"task-{number % 2}", team_id="core", list_cost_nano=cost, contracted_cost_nano=cost,
            )
            for tickets in named
            for number, cost in enumerate((10**9 + 1, 10**9 + 2, 7, None))
        ],
    )  # fmt: skip
    seen = {}
    with asking.opened(data) as db:
        columns = "ticket_id, outcome, calls, unpriced_calls, tasks, list_cost_usd, contracted_cost_usd"
        costs = db.execute(f"SELECT {columns} FROM ticket_costs").fetchall()
        for row in costs:
            [(ticket, names)] = db.execute(asking.text("console/ticket_names"), {"ticket": row[0]}).fetchall()
            given = {"ticket": ticket, "names": names}

            def ask(query: str, columns: str, given: dict[str, object] = given) -> list[tuple[object, ...]]:
                sql = asking.spelled_out(asking.whole(query, "console/ticket_parts"), given)
                return db.execute(f"SELECT {columns} FROM ({sql})").fetchall()

            [head] = ask("console/ticket", columns)
            assert head == row
            for query in ("console/ticket_tasks", "console/ticket_days"):
                assert ask(query, "sum(calls), sum(unpriced_calls), sum(list_cost_usd)") == [(row[2], row[3], row[5])]
            assert ask("console/ticket_calls", "count(*), sum(list_cost_usd)") == [(row[2], row[5])]
            seen[ticket] = row[1]
        assert db.execute(asking.text("console/ticket_names"), {"ticket": "OLD-5"}).fetchall() == [
            ("PAY-1", ["OLD-5", "PAY-1"])
        ]
    assert seen == {"PAY-1": "in_progress", "PAY-2": "abandoned", "PAY-404": "unknown_ticket", "NEW-1": None}


async def test_a_query_of_a_file_that_is_being_replaced_is_asked_once_more(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"PAR1, and not yet all of it: PAR1")
    asks = asking.Asking(data, 30, 1, OPENED)
    query = f"SELECT count(*) AS n FROM read_parquet('{file}')"

    async def mend() -> None:
        await asyncio.sleep(0.1)
        duckdb.sql("SELECT 1 AS n").write_parquet(str(tmp_path / "whole"))
        (tmp_path / "whole").rename(file)

    try:
        with pytest.raises(asking.AskError, match="the log of the console says why"):
            await asks.ask(query, {})
        monkeypatch.setattr(again, "TRIES", 1_000_000)  # until it is mended
        mending = asyncio.create_task(mend())
        assert (await asks.ask(query, {})).dicts() == [{"n": 1}]
        await mending
    finally:
        await asks.close()


@pytest.mark.parametrize(
    ("top", "ticks"),
    [
        ("2.4", ["$0", "$0.60", "$1.20", "$1.80", "$2.40"]), ("0.3", ["$0", "$0.075", "$0.150", "$0.225", "$0.300"]),
        ("60000", ["$0", "$15k", "$30k", "$45k", "$60k"]), ("10000", ["$0", "$2.5k", "$5.0k", "$7.5k", "$10.0k"]),
        ("2000", ["$0", "$500", "$1,000", "$1,500", "$2,000"]), ("1", ["$0", "$0.25", "$0.50", "$0.75", "$1.00"]),
    ],
)  # fmt: skip
def test_ticks_of_an_axis_are_all_as_fine_as_the_finest(top: str, ticks: list[str]) -> None:
    drawn = charts.stacked(charts.bars(["2026-11-20"], [("2026-11-20", "a", Decimal(top))]))
    assert re.findall(r">([$][^<]*)</text>", drawn)[:5] == ticks


def test_facts_of_evidence_are_to_be_read() -> None:
    assert formats.fact_label("w03_polling_seconds") == "polling seconds"
    assert (formats.fact("spent_usd", "1.250000000"), formats.fact("mean_gap_s", 42.37)) == ("$1.25", "42.37 s")
    assert formats.short_id("call_id", "019f829f-df58-7a08-8bf7-8eab20faa3ec") == "…20faa3ec"
    assert formats.short_id("task_id", "task-1") is None
