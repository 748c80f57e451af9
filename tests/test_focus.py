"""FOCUS rows sum to the ledger, a closed bill never changes, and each check of them fires."""

import csv
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analytics
from analytics import build, disk, focus, lake
from analytics.work import Ticket
from gateway import cli
from gateway.call import NANO, Call
from gateway.errors import UserError
from tests.journals import NOON, call, segment
from tests.test_corrections import correct
from tests.trackers import BEGIN, know

MONTH = (date(2026, 11, 1), date(2026, 11, 30))
NEXT = (date(2026, 12, 1), date(2026, 12, 31))


def moment(year: int, month: int, day: int) -> datetime:
    """UTC, as files have it: without a zone."""
    return datetime(year, month, day, tzinfo=UTC).replace(tzinfo=None)


def priced(at: datetime = NOON, **fields: Any) -> Call:
    """1,000 fresh, 4,000 cached and 100 written input tokens, 10 output tokens: 999 + 201 + 77 + 400 nano-USD."""
    made: dict[str, Any] = {
        "upstream": "anthropic", "provider": "anthropic", "request_model": "claude-x", "response_model": "claude-x",
        "input_tokens": 5100, "cache_read_input_tokens": 4000, "cache_write_input_tokens": 100, "output_tokens": 10,
        "input_cost_nano": 999, "cache_read_cost_nano": 201, "cache_write_cost_nano": 77, "output_cost_nano": 400,
        "contracted_cost_nano": 1500, "price_id": "claude-x@2026", "team_id": "payments", "ticket_source": "header",
        "tickets": ("PAY-1",), "ticket_id": "PAY-1",
    }  # fmt: skip
    return msgspec.structs.replace(call(at, list_cost_nano=1677), **{**made, **fields})


def exported(data: Path, version: str = "1.2", period: Any = MONTH) -> list[dict[str, Any]]:
    """The rows of an export, through the file."""
    out = data.parent / f"focus-{version}.parquet"
    with analytics.open(data) as db:
        focus.export(db, out, version, *period)
    result = duckdb.execute("SELECT * FROM read_parquet($file)", {"file": str(out)})
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@pytest.fixture
def made(data: Path) -> Callable[..., Path]:
    def make(*calls: Call, at: datetime = NOON) -> Path:
        segment(data, list(calls), at)
        lake.publish(data)
        return data

    return make


def test_a_call_is_a_row_for_each_meter(made: Callable[..., Path]) -> None:
    rows = {row["SkuMeter"]: row for row in exported(made(priced()))}
    assert {meter: (row["PricingQuantity"], row["ListCost"] * NANO) for meter, row in rows.items()} == {
        "Input Tokens": (1000, 999), "Cached Input Tokens": (4000, 201), "Cache Write Tokens": (100, 77),
        "Output Tokens": (10, 400),
    }  # fmt: skip
    assert sum(row["ContractedCost"] for row in rows.values()) * NANO == 1500
    row = rows["Input Tokens"]
    assert json.loads(row["Tags"]) == {"ticket": "PAY-1", "team": "payments"}
    assert json.loads(row["SkuPriceDetails"]) == {
        "x_Model": "claude-x", "x_TokenType": "Input Tokens", "x_ServiceTier": "default",
    }  # fmt: skip
    assert row.items() >= {
        "ProviderName": "Anthropic", "PublisherName": "Anthropic", "ServiceName": "Claude API", "x_Calls": 1,
        "SkuId": "anthropic/claude-x/Input Tokens", "SkuPriceId": "claude-x@2026/anthropic/claude-x/Input Tokens",
        "SubAccountId": "payments",
        "ChargeClass": None,
        "ChargePeriodStart": moment(2026, 11, 20), "ChargePeriodEnd": moment(2026, 11, 21),
        "BillingPeriodStart": moment(2026, 11, 1), "BillingPeriodEnd": moment(2026, 12, 1),
        "PricingUnit": "Tokens", "ListUnitPrice": Decimal("9.99e-10"),
    }.items()  # fmt: skip


def test_a_call_for_several_tickets_is_divided(made: Callable[..., Path]) -> None:
    rows = exported(made(priced(tickets=("PAY-1", "PAY-2", "OPS-3"))))
    assert len(rows) == 12
    assert {row["x_TicketId"] for row in rows} == {"PAY-1", "PAY-2", "OPS-3"}
    outputs = [row for row in rows if row["SkuMeter"] == "Output Tokens"]
    assert sorted(row["PricingQuantity"] for row in outputs) == [
        Decimal("3.333333333"),
        Decimal("3.333333333"),
        Decimal("3.333333334"),
    ]
    assert sum(row["ListCost"] for row in rows) * NANO == 1677


def test_a_call_without_a_price_is_there_and_not_free(made: Callable[..., Path]) -> None:
    unpriced = priced(
        list_cost_nano=None, contracted_cost_nano=None, price_status="unpriced", price_id=None, input_cost_nano=None,
        output_cost_nano=None, cache_read_cost_nano=None, cache_write_cost_nano=None,
    )  # fmt: skip
    rows = exported(made(unpriced, call(result="interrupted", list_cost_nano=None, price_status="unpriced")))
    assert {row["x_PriceStatus"] for row in rows} == {"unpriced"}
    assert {row["ListCost"] for row in rows} == {0}
    assert {row["SkuMeter"] for row in rows} >= {"Input Tokens", "Requests"}


def test_refused_calls_are_no_charges(made: Callable[..., Path]) -> None:
    assert exported(made(call(result="refused", list_cost_nano=0))) == []


def test_a_closed_bill_stays_as_it_was(made: Callable[..., Path], data: Path) -> None:
    wrong = priced()
    made(wrong)
    november = exported(data)
    right = msgspec.structs.replace(wrong, list_cost_nano=2677, input_cost_nano=1999, contracted_cost_nano=2500)
    correct(data, right, at=datetime(2026, 12, 3, tzinfo=UTC))
    lake.publish(data)
    assert exported(data) == november
    december = exported(data, period=NEXT)
    assert {row["ChargeClass"] for row in december} == {"Correction"}
    assert {row["BillingPeriodStart"] for row in december} == {moment(2026, 12, 1)}
    assert {row["ChargePeriodStart"] for row in december} == {moment(2026, 11, 20)}
    assert sum(row["BilledCost"] for row in december) * NANO == 1000
    assert sum(row["PricingQuantity"] for row in december) == 0
    assert sum(row["ListCost"] for row in november + december) * NANO == 2677


def test_outcomes_are_those_of_now(made: Callable[..., Path], data: Path) -> None:
    made(priced(), priced(tickets=("PAY-2",), ticket_id="PAY-2"), priced(tickets=(), ticket_id=None))
    assert {row["x_Outcome"] for row in exported(data)} == {None}
    know(data, Ticket(ticket_id="PAY-1", project="PAY", status_category="done"), synced=BEGIN + timedelta(days=30))
    assert {(row["x_TicketId"], row["x_Outcome"]) for row in exported(data)} == {
        ("PAY-1", "delivered"), ("PAY-2", "unknown_ticket"), (None, None),
    }  # fmt: skip


def test_what_is_made_up_says_so(made: Callable[..., Path], data: Path) -> None:
    made(priced())
    assert {row["x_Synthetic"] for row in exported(data)} == {False}
    (data / disk.MARKER).touch()
    assert {row["x_Synthetic"] for row in exported(data)} == {True}


def test_a_correction_of_the_same_month_is_on_its_bill(made: Callable[..., Path], data: Path) -> None:
    wrong = priced()
    made(wrong)
    correct(data, msgspec.structs.replace(wrong, list_cost_nano=2677, input_cost_nano=1999))
    lake.publish(data)
    rows = exported(data)
    assert {row["ChargeClass"] for row in rows} == {None}
    assert sum(row["ListCost"] for row in rows) * NANO == 2677


def test_what_is_booked_later_is_on_a_later_bill(made: Callable[..., Path], data: Path) -> None:
    made(priced())
    november = exported(data)
    segment(data, [priced(datetime(2026, 11, 30, 23, 59, tzinfo=UTC))], datetime(2026, 12, 1, 0, 30, tzinfo=UTC))
    lake.publish(data)
    assert exported(data) == november
    assert sum(row["BilledCost"] for row in exported(data, period=NEXT)) * NANO == 1500


def test_a_large_row_of_two_rates(made: Callable[..., Path], data: Path) -> None:
    large = priced(cache_write_input_tokens=90_000_007, input_tokens=90_005_107, cache_write_cost_nano=123_456_789_013)
    nano = 999 + 201 + 123_456_789_013 + 400
    made(msgspec.structs.replace(large, list_cost_nano=nano, contracted_cost_nano=nano))
    assert sum(row["ListCost"] for row in exported(data)) * NANO == nano


AMOUNT = st.integers(0, 10**9)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    parts = [draw(AMOUNT) for _ in range(5)]
    total = sum(parts)
    is_priced = draw(st.booleans()) or total == 0
    tokens = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    return msgspec.structs.replace(
        call(NOON + timedelta(hours=draw(st.integers(-400, 200)))),
        list_cost_nano=total if is_priced else None,
        contracted_cost_nano=draw(st.sampled_from([total, total * 2 // 3, 0])) if is_priced else None,
        **dict(zip(
            ("input_cost_nano", "cache_read_cost_nano", "cache_write_cost_nano", "output_cost_nano", "other_cost_nano"),
            parts if is_priced else [None] * 5, strict=True)),
        price_status="exact" if is_priced else "unpriced",
        input_tokens=sum(tokens), cache_read_input_tokens=tokens[0], cache_write_input_tokens=tokens[1],
        output_tokens=draw(st.none() | st.integers(0, 1000)), web_search_requests=draw(st.none() | st.integers(0, 3)),
        team_id=draw(st.sampled_from([None, "a", "b"])), upstream=draw(st.sampled_from([None, "openai"])),
        provider=draw(st.sampled_from([None, "openai", "x"])), response_model=draw(st.sampled_from([None, "m"])),
        tickets=tuple(draw(st.lists(st.sampled_from(["A-1", "A-2", "acme/shop#3"]), unique=True))),
        result=draw(st.sampled_from(["completed", "client_cancelled", "interrupted"])),
    )  # fmt: skip


@given(st.lists(calls(), min_size=1, max_size=8))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_sum_to_the_ledger(data: Path, made_calls: list[Call]) -> None:
    journal = segment(data, made_calls)
    everything = (date(2026, 10, 1), date(2026, 12, 31))
    try:
        rows = exported(data, period=everything)
    finally:
        journal.unlink()
    assert sum(row["ListCost"] for row in rows) * NANO == sum(each.list_cost_nano or 0 for each in made_calls)
    contracted = sum(each.contracted_cost_nano or 0 for each in made_calls)
    assert sum(row["ContractedCost"] for row in rows) * NANO == contracted
    tokens = sum(row["PricingQuantity"] for row in rows if row["SkuMeter"] == "Output Tokens")
    assert tokens <= sum(each.output_tokens or 0 for each in made_calls) + len(made_calls)


WRONG = {
    "focus_ids": "INSERT INTO exported FROM exported LIMIT 1",
    "focus_periods": 'UPDATE exported SET "ChargePeriodEnd" = "ChargePeriodStart"',
    "focus_values": "UPDATE exported SET \"PricingUnit\" = 'furlongs' WHERE \"SkuMeter\" = 'Output Tokens'",
    "focus_nulls": 'UPDATE exported SET "SkuPriceId" = NULL WHERE "SkuMeter" = \'Output Tokens\'',
    "focus_prices": 'UPDATE exported SET "ListUnitPrice" = 1 WHERE "SkuMeter" = \'Output Tokens\'',
    "focus_quantities": 'UPDATE exported SET "PricingQuantity" = -1 WHERE "SkuMeter" = \'Output Tokens\'',
    "focus_tags": """UPDATE exported SET "Tags" = '{"ticket": ["a"]}'""",
    "focus_corrections": "UPDATE exported SET \"ChargeClass\" = 'Correction' WHERE \"SkuMeter\" = 'Output Tokens'",
    "focus_skus": "UPDATE exported SET \"SkuPriceId\" = 'one'",
    "focus_sums": 'UPDATE exported SET "ListCost" = 1 WHERE "SkuMeter" = \'Output Tokens\'',
}


def test_each_check_fires(made: Callable[..., Path]) -> None:
    checks = build.load(focus.CHECKS)
    assert checks.keys() == WRONG.keys()
    with analytics.open(made(priced())) as db:
        for name, mutation in WRONG.items():
            db.execute("SET VARIABLE period = $period", {"period": [*MONTH]})
            db.execute(build.step("focus_rows"), {"version": "1.2"})
            assert db.execute(checks[name].sql).fetchall() == []
            db.execute(mutation)
            assert db.execute(checks[name].sql).fetchall() != [], name


def test_what_is_wrong_is_not_written(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = build.read_model(focus.CHECKS / "focus_ids.sql")
    with analytics.open(made(priced())) as db:
        monkeypatch.setattr(build, "load", lambda _: {"x": build.Model("x", bad.description, {}, "SELECT 'row-1'")})
        with pytest.raises(UserError, match=r"nothing was written: Each row is there once"):
            focus.export(db, tmp_path / "f.csv", "1.2", *MONTH)
    assert not (tmp_path / "f.csv").exists()


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", "focus", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("version", focus.VERSIONS)
def test_the_command(made: Callable[..., Path], tmp_path: Path, capsys: Any, version: str) -> None:
    data, out = made(priced(), priced(price_status="unpriced", price_id=None)), tmp_path / "november.csv"
    assert run("--data", data, "--from", "2026-11-01", "--out", out, "--version", version) == 0
    said = capsys.readouterr().out
    assert f"0.000003000 USD, 2026-11-01 to 2026-11-30, FOCUS {version}" in said
    assert "1 calls have no price: they are in it with a cost of 0, and were not free" in said
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["BillingPeriodStart"] for row in rows} == {"2026-11-01T00:00:00Z"}
    assert {row["ChargeClass"] for row in rows} == {""}
    assert ("ProviderName" in rows[0], "HostProviderName" in rows[0]) == (version == "1.2", version == "1.4")
    before = out.read_bytes()
    assert run("--data", data, "--from", "2026-11-01", "--out", out, "--version", version) == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "f.xlsx"], "f.xlsx must end in .csv or .parquet"),
        (["--out", "f.csv", "--from", "2026-11-02", "--to", "2026-11-01"], "--from is after --to"),
        (["--out", "/nowhere/f.csv"], "there is no folder /nowhere: make it"),
        (["--out", "f.csv", "--version", "1.0"], "'1.0' is not one of"),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: Any) -> None:
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err
