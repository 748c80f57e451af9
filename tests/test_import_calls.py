"""`outlay import calls`: what comes in is what went out, money stays exact, and what is wrong changes nothing."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics
from analytics import lake, live, verifying
from analytics.sources import call_files
from gateway import balances
from gateway.budget_file import BudgetFile, BudgetTable
from gateway.budgets import Budgets
from gateway.call import NANO, Call
from gateway.cli import outlay
from gateway.config import LedgerSettings
from gateway.control import Control
from gateway.errors import UserError
from gateway.ledger import Ledger, encode_close, write_calls
from tests.journals import NOON, call, segment
from tests.test_live import wait_for

ALL = "SELECT * EXCLUDE (segment, day) FROM calls ORDER BY call_id"
FULL: dict[str, Any] = {
    "user_id": "ann", "team_id": "pay", "client": "claude-code", "agent": "main", "task_id": "t1", "purpose": "ci",
    "tickets": ("PAY-1", "PAY-2"), "ticket_id": "PAY-1", "ticket_source": "header", "ticket_candidates": ("task:X-1",),
    "stream": True, "status": 200, "finish_reason": "stop", "input_tokens": 12, "other_units": {"seconds": 1.5},
    "contracted_cost_nano": 900, "human_turn": False, "request_hash": "ab", "duration_ms": 1500, "upstream_id": "msg_1",
}  # fmt: skip
CALLS = [
    call(**FULL),
    call(NOON + timedelta(seconds=1), contracted_cost_nano=1000),
    call(NOON + timedelta(days=40, microseconds=7), list_cost_nano=1, contracted_cost_nano=0),
    call(price_status="unpriced", list_cost_nano=None, input_cost_nano=None),
    call(result="refused", refusal="budget_exceeded", price_status=None, list_cost_nano=None, input_cost_nano=None),
]


def imported(data: Path, *paths: Path, options: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(outlay, ["import", "calls", *map(str, paths), "--data", str(data), *options])


def told(result: Result) -> str:
    return result.output + str(result.exception or "")


def rows(data: Path, query: str = ALL) -> list[tuple[Any, ...]]:
    with analytics.open(data) as db:
        return db.execute(query).fetchall()


def written(folder: Path, *lines: dict[str, Any], name: str = "calls.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def made(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"call_id": f"c-{number}", "started_at": "2026-11-20T12:00:00Z", **fields}


@pytest.mark.parametrize("name", ["calls.parquet", "calls.csv", "calls.jsonl"])
def test_what_one_ledger_tells_another_one_takes_once(data: Path, tmp_path: Path, name: str) -> None:
    segment(data, CALLS)
    file, other = tmp_path / name, tmp_path / "other"
    other.mkdir()
    form = {"jsonl": "JSON"}.get(file.suffix[1:], file.suffix[1:])
    with analytics.open(data) as db:
        lists = ", ".join(f"CAST({each} AS JSON) AS {each}" for each in ("tickets", "ticket_candidates", "other_units"))
        chosen = f"* REPLACE ({lists})" if form == "csv" else "*"
        db.execute(f"COPY (SELECT {chosen} FROM calls) TO '{file}' (FORMAT {form})")
    first = imported(other, file)
    assert told(first) == "5 calls were imported, 0 were there already.\n"
    assert rows(other) == rows(data)
    assert verifying.verify(other).wrong == []
    assert imported(other, file).output == "0 calls were imported, 5 were there already.\n"
    assert len(rows(other)) == 5


def test_what_is_not_told(data: Path, tmp_path: Path) -> None:
    """No price is no cost, not 0; a ticket is one of the tickets; a cost without parts is the sum of its parts."""
    file = written(
        tmp_path,
        made(1),
        made(2, list_cost_usd=0.000000003, input_cost_usd=0.000000001, ticket_id="PAY-1"),
        made(3, list_cost_usd=0, tickets=["PAY-2", "PAY-3"]),
        made(4, list_cost_usd="12.5", tickets=[], duration_ms=2000.0, recorded_at="2026-11-20T13:00:10+01:00"),
        made(5, result="refused", branch=""),
    )
    assert imported(data, file).exit_code == 0
    asked = """SELECT list_cost_usd, other_cost_usd, contracted_cost_usd, price_status, ticket_id, tickets, recorded_at
        FROM calls ORDER BY call_id"""
    noon, nano = NOON.replace(tzinfo=None), Decimal("1e-9")
    assert rows(data, asked) == [
        (None, None, None, "unpriced", None, [], noon),
        (3 * nano, 2 * nano, 3 * nano, "exact", "PAY-1", ["PAY-1"], noon),
        (0, 0, 0, None, "PAY-2", ["PAY-2", "PAY-3"], noon),
        (Decimal("12.5"), Decimal("12.5"), Decimal("12.5"), "exact", None, [], noon + timedelta(seconds=10)),
        (0, 0, 0, None, None, [], noon),
    ]
    assert verifying.verify(data).wrong == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"call_id": None}, "call_id is missing"),
        ({"call_id": ""}, "must be printable text"),
        ({"started_at": "yesterday"}, '"yesterday" is no time'),
        ({"started_at": 1763640000}, '"1763640000" is no time'),
        ({"started_at": "1969-12-31T23:59:59Z"}, "before 1970"),
        ({"recorded_at": "2100-01-01T00:00:00Z"}, "after 2099"),
        ({"duration_ms": 10**15}, "is no call's duration"),
        ({"recorded_at": True}, '"True" is no time'),
        ({"list_cost_usd": 1e-10}, "more than nine decimals"),
        ({"list_cost_usd": "0.0000000010000000000000000000000000001"}, "more than nine decimals"),
        ({"list_cost_usd": "1e99999999"}, "is no cost of a call"),
        ({"list_cost_usd": -1}, "-1 is no cost of a call"),
        ({"list_cost_usd": "NaN"}, "NaN is no cost of a call"),
        ({"list_cost_usd": 1e9}, "is no cost of a call"),
        ({"list_cost_usd": "much"}, '"much" is no amount'),
        ({"list_cost_usd": 1, "price_status": "unpriced"}, "exactly when its price_status is unpriced"),
        ({"price_status": "exact"}, "exactly when its price_status is unpriced"),
        ({"contracted_cost_usd": 1}, "has no other cost either"),
        ({"list_cost_usd": 1, "output_cost_usd": 2}, "do not sum to list_cost_usd"),
        ({"list_cost_usd": 3, "output_cost_usd": 2, "other_cost_usd": 2}, "do not sum to list_cost_usd"),
        ({"input_tokens": -5}, "input_tokens: -5 is no count"),
        ({"input_tokens": 1.5}, "input_tokens: Expected int, got"),
        ({"input_tokens": 2**63}, "is no count"),
        ({"input_tokens": 1e300}, "input_tokens: Expected int"),
        ({"result": "done"}, '"done" is none of completed, client_cancelled'),
        ({"ticket_id": "PAY-2", "tickets": ["PAY-1"]}, "ticket_id must be the first of tickets"),
        ({"tickets": ["PAY-1", "PAY-1"]}, "stands twice"),
        ({"tickets": "PAY-1"}, "tickets: Expected array"),
        ({"team_id": "a\nb"}, "team_id: must be printable text"),
        ({"other_units": {"seconds": "long"}}, "is no map of amounts"),
        ({"other_units": {"seconds": -1}}, "is no map of amounts"),
        ({"other_units": {"seconds": float("inf")}}, "row 2"),
        ({"list_cost": 1}, 'unknown column "list_cost"; did you mean "list_cost_usd"?'),
    ],
)
def test_what_is_wrong_is_told_and_nothing_imported(
    data: Path, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    file = written(tmp_path, made(1), made(2, **fields))
    result = imported(data, file)
    assert result.exit_code == 1
    assert isinstance(result.exception, UserError)
    assert f"{file} row 2: " in told(result)
    assert said in told(result)
    assert rows(data) == []
    skipped = imported(data, file, options=("--skip-bad", "--json"))
    assert json.loads(skipped.stdout)["imported"] == (2 if "list_cost" in fields else 1)
    assert sorted(path.name for path in data.glob("calls.incoming*")) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("calls.txt", "", "calls are imported from .csv, .jsonl, .parquet"),
        ("calls.csv", "call_id\nc-1\n", "the column started_at is missing"),
        ("calls.csv", "call_id,started_at,call_id\n", 'the column "call_id" is there twice'),
        ("calls.parquet", "no", "cannot be read as Parquet"),
        ("calls.jsonl", "[1]\n", "row 1: is no JSON object"),
        ("calls.csv.gz", "call_id", "cannot be read: Not a gzipped file"),
    ],
)
def test_files_that_are_none(data: Path, tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    result = imported(data, tmp_path / name)
    assert (result.exit_code, said in told(result)) == (1, True)


def test_a_call_that_stands_twice_is_one_of_two(data: Path, tmp_path: Path) -> None:
    one = written(tmp_path, made(1), made(2), name="one.jsonl")
    other = written(tmp_path, made(3), made(2, input_tokens=7), name="other.jsonl")
    assert "other.jsonl row 2: c-2 stands there twice" in told(imported(data, one, other))
    assert imported(data, tmp_path / "missing.csv").exit_code == 1


def test_many_calls_are_sealed_where_nobody_keeps_the_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analytics.calls_cli.SEALED_FROM", 3)
    monkeypatch.setattr(lake, "SETTLE_SECONDS", 0.01)
    file = written(tmp_path, *(made(n, started_at=str(NOON - timedelta(days=n))) for n in range(9)))
    assert imported(data, file).exit_code == 0
    assert {row.state for row in lake.read_state(data)} == {"closed", "sealed"}
    assert len(rows(data)) == 9
    assert lake.segments(data) == []
    assert verifying.verify(data).wrong == []


@settings(max_examples=60, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(sorted(call_files.COLUMNS)),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.text(max_size=3)),
    )
)
def test_any_row_is_a_call_or_told(fields: dict[str, Any]) -> None:
    values = {**made(), **{name: value for name, value in fields.items() if value is not None}}
    if isinstance(values.get("other_units"), float):
        values["other_units"] = {"seconds": values["other_units"]}
    for lax in (False, True):
        try:
            found = call_files.booked({k: str(v) for k, v in values.items()} if lax else values, lax=lax)
        except (msgspec.ValidationError, call_files.BadError):
            continue
        assert msgspec.json.decode(msgspec.json.encode(found.call), type=Call) == found.call
        assert (found.call.list_cost_nano is None) == (found.call.price_status in (None, "unpriced"))


async def test_budgets_count_an_import_once_beside_a_gateway(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway does not read such a segment, which may be in an answer on its way: it asks for the ledger's sums."""
    monkeypatch.setattr(balances, "ROUND_SECONDS", 0.02)
    file = BudgetFile(data)
    file.set("all", BudgetTable(scope="org", limit_usd=Decimal(100)), "cli")
    budgets, at = Budgets(), datetime.now(UTC) - timedelta(hours=1)
    settings = LedgerSettings(dir=str(data), reserve_bytes=0)
    ledger = Ledger(settings, "gw-1")
    with live.serving(data):
        wait_for(data)
        control = Control(data)
        kept = balances.Balances(data, file, budgets, "gw-1", (control, ledger))
        kept.start()
        running = asyncio.create_task(kept.keep())
        seen: set[int] = set()
        try:
            for number in (1, 2):
                one = call(at, list_cost_nano=NANO, contracted_cost_nano=NANO)
                assert write_calls(settings, [encode_close(one, one.started_us)], one.started_us) == 1
                async with asyncio.timeout(20):
                    while number * NANO not in seen:
                        seen |= {account.spent for account in budgets.accounts()}
                        await asyncio.sleep(0.005)
        finally:
            running.cancel()
            await control.close()
    assert seen - {0} == {NANO, 2 * NANO}
    again = Budgets()
    balances.Balances(data, file, again, "gw-2").start()  # without anybody to ask, the journal is read
    assert [account.spent for account in again.accounts()] == [2 * NANO]
