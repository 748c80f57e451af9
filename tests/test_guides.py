"""The questions of docs/finops.md and the notebook, asked of a small made-up organisation."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import polars
import pyarrow as pa
import pytest

import analytics
from analytics import budgeting, build, findings, lake, sandboxed, scorecard, simulate
from analytics.work import Ticket
from gateway import scopes
from gateway.budgets import Budget
from gateway.call import Call
from gateway.config import Config
from gateway.prices import DEFAULT_BOOK, PriceBook
from tests.test_corrections import correct
from tests.trackers import know

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs/finops.md").read_text(encoding="utf-8")
QUESTIONS = dict(re.findall(r"^### (\d+\. [^\n]+)\n```sql\n(.*?)```", GUIDE, re.MULTILINE | re.DOTALL))
NOTEBOOK = json.loads((ROOT / "docs/notebooks/spend.ipynb").read_text(encoding="utf-8"))
NOW = datetime(2027, 2, 1, tzinfo=UTC).replace(tzinfo=None)
ASKS_FOR_INVOICES = "15."


@pytest.fixture(scope="module")
def organisation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two quarters from July 2026 on, with waste that was found, a budget, a correction and an unpriced call."""
    data = tmp_path_factory.mktemp("guides") / "data"
    lake.publish(data)
    book = PriceBook.load(DEFAULT_BOOK)
    begins = datetime(2026, 7, 1, tzinfo=UTC).replace(tzinfo=None)
    plan = simulate.idle_agents("mobile", 4, 30)(simulate.plan(3, tickets=40, begins=begins), random.Random(3))
    late = datetime(2026, 10, 20, 9, tzinfo=UTC).replace(tzinfo=None)
    first = plan.sessions[0]
    assert first.ticket is not None
    afterwards = replace(first, begins_at=late)
    gone = f"{first.ticket}9999"
    lost = [replace(first, begins_at=at, ticket=gone) for at in (late, late + timedelta(days=20))]
    plan = replace(plan, sessions=[*plan.sessions, afterwards, *lost])
    simulate.store_work(data, [plan])
    know(data, Ticket(ticket_id=gone, status_category="done", resolution="Won't Do"))
    calls = list(simulate.calls(plan, book))
    unpriced = msgspec.structs.replace(calls[0], call_id="unpriced", list_cost_nano=None, price_status="unpriced")
    simulate.store_calls(data, [*calls, unpriced])
    october = next(each for each in calls if of(each).month == 10)
    correct(data, dearer(october), booked=of(october), at=datetime(2026, 11, 3, tzinfo=UTC))
    budget = Budget("all", scopes.parse("org"), 1000, "total", owner="fin@example.com")
    budgeting.store(data, [budget], NOW)
    findings.look(data, Config().waste, book, NOW)
    scorecard.look(data, NOW)
    return data


def of(call: Call) -> datetime:
    return datetime.fromtimestamp(call.started_us / 1e6, UTC)


def dearer(call: Call) -> Call:
    assert call.list_cost_nano is not None
    assert call.input_cost_nano is not None
    more = call.list_cost_nano + 1000
    return msgspec.structs.replace(call, list_cost_nano=more, input_cost_nano=call.input_cost_nano + 1000)


@pytest.fixture(scope="module")
def db(organisation: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with analytics.open(organisation, as_of=NOW) as connection:
        yield connection


def test_there_are_twenty_questions() -> None:
    assert [int(title.partition(".")[0]) for title in QUESTIONS] == [*range(1, 21)]


@pytest.mark.parametrize("title", QUESTIONS)
def test_a_question_has_an_answer(organisation: Path, db: duckdb.DuckDBPyConnection, title: str) -> None:
    if build.references(db, QUESTIONS[title]) & build.load(build.MEASURES).keys():
        with analytics.open(organisation) as now:  # what is written down is as of then
            found = now.execute(QUESTIONS[title]).fetchall()
    else:
        found = db.execute(QUESTIONS[title]).fetchall()
    assert found or title.startswith(ASKS_FOR_INVOICES)
    sandboxed.check(db, QUESTIONS[title])


def test_what_delivered_nothing_is_told_by_month_as_the_report_does(db: duckdb.DuckDBPyConnection) -> None:
    """A ticket that was called later, too, is in it with what was spent in that month."""
    [sql] = [sql for title, sql in QUESTIONS.items() if title.startswith("1. ")]
    report = (build.FOLDER / "queries" / "tickets.sql").read_text(encoding="utf-8")
    october = {"from": datetime(2026, 10, 1), "to": datetime(2026, 11, 1), "team": None, "sort": "lost", "limit": None}  # noqa: DTZ001
    rows = db.execute(report, october).fetchall()
    told = {ticket: lost for ticket, _, _, _, lost, *_ in rows if lost is not None}
    assert {ticket: usd for ticket, _, _, usd, *_ in db.execute(sql).fetchall()} == told
    later = db.execute("SELECT ticket_id FROM task_days WHERE day >= DATE '2026-11-01'").fetchall()
    assert {ticket for (ticket,) in later} & told.keys()


def test_the_notebook_runs(organisation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAY_DATA", str(organisation))
    names: dict[str, Any] = {}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            assert cell["outputs"] == []
    assert {team for team, _, _ in names["teams"]} == {*simulate.TEAMS}
    assert isinstance(names["table"], pa.Table)
    assert names["table"].schema.field("list_cost_usd").type == pa.decimal128(38, 9)
    assert isinstance(names["weekly"], polars.DataFrame)
    assert names["weekly"]["list_cost_usd"].sum() == sum(usd for _, usd, _ in names["teams"])
    assert names["lost"]
    assert names["before"]


def test_open_looks_from_a_moment(organisation: Path) -> None:
    def calls(as_of: datetime) -> Any:
        with analytics.open(organisation, as_of=as_of) as then:
            return then.execute("SELECT count(*) FROM calls").fetchone()

    middle = datetime(2026, 9, 1, 12, tzinfo=UTC)
    assert calls(NOW) > calls(middle)
    assert calls(middle) == calls(middle.replace(tzinfo=None)) == calls(middle.astimezone(timezone(timedelta(hours=5))))
