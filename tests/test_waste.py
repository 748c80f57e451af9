"""The rules of waste: they find what was planted, leave its honest twins alone, and claim each dollar once."""

import os
import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

import analytics
from analytics import build, findings, lake, verifying, waste
from gateway.call import NANO
from gateway.config import Config, WasteSettings
from gateway.prices import load_prices
from tests import wasteful
from tests.journals import NOON, segment
from tests.wasteful import AS_OF, Plan

SEEDS = range(1, int(os.environ.get("OUTLAY_WASTE_SEEDS", "2")) + 1)
RULES = sorted(waste.RULES)
BOOK = load_prices(Config())


@dataclass
class Found:
    """What one look found."""

    data: Path
    findings: list[dict[str, Any]]
    claims: list[dict[str, Any]]

    def calls(self, rule: str) -> set[str]:
        return {call for found in self.findings if found["rule"] == rule for call in found["call_ids"]}

    def sums(self) -> dict[str, tuple[Decimal, Decimal, int]]:
        """By finding: recoverable, claimed, calls."""
        return {f["finding_id"]: (f["recoverable_usd"], f["claimed_usd"], f["calls"]) for f in self.findings}


def look(data: Path, plan: Plan, synced_at: datetime = wasteful.SYNCED_AT) -> Found:
    lake.publish(data)
    wasteful.store(data, plan, synced_at)
    return again(data)


def again(data: Path, as_of: datetime = AS_OF, settings: WasteSettings | None = None) -> Found:
    findings.look(data, settings or WasteSettings(), BOOK, as_of)
    with analytics.open(data) as db:
        return Found(data, rows(db, "FROM waste_findings"), rows(db, "FROM waste_claimed"))


def rows(db: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    result = db.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def only(*plants: Any) -> Plan:
    """A plan with some plants alone."""
    plan = Plan(7)
    for plant in plants:
        plant(plan)
    return plan


@pytest.fixture(scope="module", params=SEEDS)
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Found]:
    plan = wasteful.make(request.param, bare=request.param % 2 == 0)
    return plan, look(tmp_path_factory.mktemp("planted"), plan)


# -- what is found -------------------------------------------------------------------------------------------------


def test_every_rule_finds_what_was_planted_and_leaves_twins_alone(planted: tuple[Plan, Found]) -> None:
    plan, found = planted
    assert sorted(plan.planted) == RULES
    for rule in RULES:
        calls = found.calls(rule)
        assert len(calls & plan.planted[rule]) >= 0.95 * len(plan.planted[rule]), rule
        assert calls & plan.twins[rule] == set(), rule
    # Beyond that, only calls that were made alike on purpose: requests that were repeated in a storm's twins.
    honest = {call.call_id for call in plan.calls} - set().union(*plan.planted.values(), *plan.twins.values())
    assert {rule for rule in RULES if found.calls(rule) & honest} <= {"W01"}


def test_no_dollar_is_claimed_twice(planted: tuple[Plan, Found]) -> None:
    plan, found = planted
    costs = {call.call_id: Decimal(call.list_cost_nano or 0) / NANO for call in plan.calls}
    ids = [claim["call_id"] for claim in found.claims]
    assert len(ids) == len(set(ids)) > 500
    for claim in found.claims:
        assert 0 < claim["claimed_usd"] <= claim["cost_usd"] == costs[claim["call_id"]]
        assert claim["claimed_usd"] == sum(part["claimed_usd"] for part in claim["parts"])
    assert len(found.sums()) == len(found.findings)
    assert sum(claim["claimed_usd"] for claim in found.claims) == sum(each["claimed_usd"] for each in found.findings)
    for each in found.findings:
        assert 0 <= each["claimed_usd"] <= each["recoverable_usd"] <= each["high_usd"]
        assert each["low_usd"] <= each["recoverable_usd"]
        assert (each["rule"] not in ("W10", "W18")) or each["claimed_usd"] == 0


def test_every_finding_has_its_evidence(planted: tuple[Plan, Found]) -> None:
    _, found = planted
    for each in found.findings:
        told = evidence(each)
        assert told.keys() == {
            "sentence", "numbers", "rule_version", "parameters", "low_usd", "high_usd", "also_in", "as_of",
        }  # fmt: skip
        assert told["rule_version"] == each["rule_version"] == "1"
        assert len(each["call_ids"]) == each["calls"] > 0
        assert each["sentence"].endswith(".")
        assert "{" not in each["sentence"]
        assert each["unpriced_calls"] == 0  # attempts without a usage have no price
        assert not re.search(r"\bdev-\d", each["evidence"] + each["sentence"] + each["group_key"])  # nobody is named
        assert not any(sha256(f"dev-{n}".encode()).hexdigest()[:12] in each["group_key"] for n in range(10))


def test_all_checks_hold(planted: tuple[Plan, Found]) -> None:
    _, found = planted
    assert verifying.verify(found.data).wrong == []


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        ("claims_per_call", "SELECT * REPLACE (cost_usd + 1 AS claimed_usd)"),
        ("claims_per_call", "SELECT * REPLACE ([] AS parts)"),
        ("claims_per_call", "SELECT unnest([c, c], max_depth := 2)"),
        ("claims_sums", "SELECT * REPLACE (1000000::DECIMAL(18,9) AS claimed_usd)"),
        ("claims_of_findings", "SELECT * REPLACE ([] AS parts)"),
        ("claims_sums", "SELECT * REPLACE ('elsewhere' AS team_id)"),
    ],
)
def test_checks_of_claims_fire(planted: tuple[Plan, Found], check: str, wrong: str) -> None:
    _, found = planted
    models = build.load()
    sql = models["waste_claimed"].sql
    models["waste_claimed"] = build.Model("waste_claimed", "", {}, f"{wrong} FROM ({sql}\n) AS c")
    query = build.load(build.FOLDER / "checks")[check]
    needed = build.needed(duckdb.connect(), models, {check: query})
    with duckdb.connect() as db:
        build.create_views(db, found.data, needed)
        assert db.execute(query.sql).fetchall() != []


# -- what it does not depend on ------------------------------------------------------------------------------------


def test_neither_order_nor_place_nor_time_nor_others_calls_change_what_is_found(
    planted: tuple[Plan, Found], tmp_path: Path
) -> None:
    plan, found = planted
    days = timedelta(days=37)
    moved = Plan(99, bare=plan.bare)
    for number in range(300):  # honest work of another client and model
        moved.call(
            AS_OF - timedelta(minutes=number), client="opencode", call_id=f"other-{number}", response_model="other",
            request_hash=f"other-{number}", session_id=f"other-{number // 9}", action_hash=f"other-{number}",
        )  # fmt: skip
    moved.calls = [
        msgspec.structs.replace(call, started_us=call.started_us + days // timedelta(microseconds=1))
        for call in [*plan.calls, *moved.calls]
    ]
    random.Random(5).shuffle(moved.calls)
    for table, kept in plan.rows.items():
        for row in kept:
            values = {n: v + days if isinstance(v, datetime) else v for n, v in msgspec.structs.asdict(row).items()}
            moved.rows[table].append(type(row)(**values))
    lake.publish(tmp_path)
    segment(tmp_path, moved.calls[2000:], at=NOON + timedelta(minutes=5))
    del moved.calls[2000:]
    wasteful.store(tmp_path, moved, wasteful.SYNCED_AT + days)
    later = again(tmp_path, AS_OF + days)
    for rule in RULES:
        assert later.calls(rule) == found.calls(rule), rule
    assert sorted(later.sums().values()) == sorted(found.sums().values())


# -- single cases, in one folder ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Found]:
    """Calls of each case have a team of their own. The tracker was read after the moment of judgement, too."""
    plan = only(wasteful.loops, wasteful.failures)
    dead, gone, live = plan.ticket(), plan.ticket(), plan.ticket()
    plan.pull(live)
    day, second = timedelta(days=1), timedelta(seconds=1)
    for n in range(12):
        at = AS_OF - 50 * day - n * 60 * second
        plan.call(at, team_id="split", tickets=(gone, live), input_tokens=33_333)
    loop = {"session_id": plan.name("session"), "action_hash": plan.name("action")}
    for n in range(20):
        plan.call(AS_OF - 50 * day + 9 * n * second, team_id="loop", tickets=(dead,), input_tokens=30_000, **loop)
    for pauses in BACKOFFS:
        storm, at = {"session_id": plan.name("session"), "request_hash": plan.name("request")}, AS_OF - 3 * day
        for pause in (0, *pauses):
            at += pause * second
            plan.call(at, team_id="backoff", result="upstream_cut", duration_ms=100, **storm)
    loop = {"session_id": plan.name("session"), "action_hash": plan.name("action")}
    for n in range(10):
        plan.call(AS_OF - 2 * day + 120 * n * second, team_id="polling", **loop)
    loop = {"session_id": plan.name("session"), "action_hash": plan.name("action")}
    for n in range(10):
        plan.call(AS_OF - 2 * day + 9 * n * second, team_id="unpriced", **loop)
    for n in range(6):  # a prompt so long that its tokens are dearer, at the same price's name, comes last
        plan.call(
            AS_OF - 2 * day + 60 * n * second,
            team_id="long",
            prefix_hash="long",
            prefix_tokens=6000,
            price_id="made-up-3000-300",
            **({"rates": DEARER, "input_tokens": 300_000} if n == 5 else {"input_tokens": 7000}),
        )
    for n in range(8):  # sessions of two teams that have one name
        given = {"session_id": "main", "tool_schema_tokens": 9000, "input_tokens": 12_000}
        plan.call(AS_OF - 2 * day + 60 * n * second, team_id="idle", tool_calls=0, edits=0, **given)
        plan.call(AS_OF - 2 * day + 60 * n * second, team_id="busy", tool_calls=1, edits=0, **given)
    plan.call(AS_OF - day / 2, team_id="lag", tickets=("PAY-99903",), ticket_source="header", ticket_state="unknown")
    undone, merged = plan.ticket(), {"merged_at": AS_OF - 40 * day, "closed_at": AS_OF - 40 * day}
    back = plan.pull(undone, **{**merged, "merged_at": AS_OF - 39 * day})
    plan.pull(undone, reverted_at=AS_OF - 39 * day, reverted_by=back, **merged)
    for n in range(3):
        plan.call(AS_OF - 45 * day + n * day, team_id="undone", tickets=(undone,))
    for n in range(6):
        plan.call(
            AS_OF - 2 * day + 60 * n * second,
            team_id="discount",
            prefix_hash="p",
            prefix_tokens=6000,
            input_tokens=7000,
        )
    unpriced = dict.fromkeys(
        ("list_cost_nano", "input_cost_nano", "output_cost_nano", "cache_read_cost_nano", "cache_write_cost_nano")
    )
    for place, call in enumerate(plan.calls):
        if call.team_id == "unpriced":
            plan.calls[place] = msgspec.structs.replace(call, price_status="unpriced", **unpriced)
        elif call.team_id == "discount":
            plan.calls[place] = msgspec.structs.replace(call, contracted_cost_nano=(call.list_cost_nano or 0) // 2)
    plan.call(AS_OF - 9 * day, cache_read_input_tokens=5000)  # tells what reading costs
    return plan, look(tmp_path_factory.mktemp("cases"), plan, synced_at=AS_OF + 30 * day)


BACKOFFS = ((2, 4, 8, 16, 32), (1, 4, 16, 64), (0.5, 1, 2, 4, 8, 8, 8), (1.1, 1.8, 4.3, 7.1, 17), (1.2, 1.6, 4.9, 7))
DEARER = {name: 2 * rate for name, rate in wasteful.RATES.items()}


def of_team(found: Found, team: str) -> list[dict[str, Any]]:
    return sorted((f for f in found.findings if f["team_id"] == team), key=lambda f: str(f["rule"]))


def test_a_call_split_over_tickets_is_judged_by_its_shares(cases: tuple[Plan, Found]) -> None:
    plan, found = cases
    [finding] = of_team(found, "split")
    [cost, *_] = [Decimal(call.list_cost_nano or 0) / NANO for call in plan.calls if call.team_id == "split"]
    assert (finding["rule"], finding["kind"], finding["calls"]) == ("W15", "sunk", 12)
    assert (finding["recoverable_usd"], finding["low_usd"]) == (12 * cost / 2, 0)


def test_mechanical_causes_come_first_and_the_others_stay_visible(cases: tuple[Plan, Found]) -> None:
    _, found = cases
    loop, sunk = of_team(found, "loop")
    assert (loop["rule"], sunk["rule"]) == ("W03", "W15")
    assert (loop["also_in"], sunk["also_in"]) == (["W15"], ["W03"])
    assert loop["claimed_usd"] == loop["recoverable_usd"]
    assert sunk["claimed_usd"] == sunk["recoverable_usd"] * 3 / 20  # the calls that the loop leaves
    parts = [part for claim in found.claims if claim["team_id"] == "loop" for part in claim["parts"]]
    assert {part["ticket_id"] for part in parts} == {sunk["ticket_id"]}


def test_pauses_that_grow_are_listed_without_money_and_so_is_polling(cases: tuple[Plan, Found]) -> None:
    _, found = cases
    backoffs, [polling] = of_team(found, "backoff"), of_team(found, "polling")
    assert len(backoffs) == len(BACKOFFS)
    for backed_off in backoffs:
        assert (backed_off["rule"], backed_off["kind"]) == ("W02", "backed_off")
        assert (backed_off["recoverable_usd"], backed_off["high_usd"]) == (0, 0)
    assert (polling["rule"], polling["kind"], polling["recoverable_usd"]) == ("W03", "polling", 0)
    assert polling["high_usd"] > 0
    assert (polling["claimed_usd"], polling["low_usd"]) == (0, 0)


def test_calls_without_a_price_are_counted_beside_the_sums(cases: tuple[Plan, Found]) -> None:
    _, found = cases
    [loop] = of_team(found, "unpriced")
    assert (loop["calls"], loop["unpriced_calls"], loop["recoverable_usd"]) == (7, 7, 0)
    assert [claim for claim in found.claims if claim["team_id"] == "unpriced"] == []


def test_discounts_count(cases: tuple[Plan, Found]) -> None:
    _, found = cases
    [missed] = of_team(found, "discount")
    assert missed["rule"] == "W06"
    assert missed["recoverable_usd"] == 5 * 6000 * Decimal(3000 - 300) / NANO / 2


def test_a_long_prompt_that_pays_more_for_its_tokens_changes_no_other_price(cases: tuple[Plan, Found]) -> None:
    _, found = cases
    [missed] = of_team(found, "long")
    assert missed["rule"] == "W06"
    assert missed["recoverable_usd"] == (4 + 2) * 6000 * Decimal(3000 - 300) / NANO


def test_sessions_are_told_apart_by_team(cases: tuple[Plan, Found]) -> None:
    _, found = cases
    assert [each["rule"] for each in of_team(found, "idle")] == ["W09"]
    assert of_team(found, "busy") == []


def test_what_came_a_moment_before_the_moment_of_judgement_is_not_judged_by_a_later_sync(
    cases: tuple[Plan, Found],
) -> None:
    _, found = cases
    assert of_team(found, "lag") == []


def test_a_pull_request_that_reverts_is_no_work_of_its_own(cases: tuple[Plan, Found]) -> None:
    plan, found = cases
    [reverted] = of_team(found, "undone")
    assert reverted["rule"] == "W16"
    cost = sum(call.list_cost_nano or 0 for call in plan.calls if call.team_id == "undone")
    assert reverted["recoverable_usd"] == Decimal(cost) / NANO


def test_a_version_is_of_the_thresholds_of_its_rule() -> None:
    def others(settings: WasteSettings) -> set[str]:
        return {rule for rule in RULES if waste.version(settings, rule) != waste.version(WasteSettings(), rule)}

    assert others(WasteSettings(w14_hours=48)) == {"W14"}
    assert others(WasteSettings(w15_hours=48)) == {"W15"}
    assert others(WasteSettings(window_days=30)) == {"W08", "W11", "W13"}
    assert others(WasteSettings(notice_usd=Decimal(5), fixed_days=3)) == set()


def test_another_threshold_is_another_version_and_what_came_later_is_not_seen(cases: tuple[Plan, Found]) -> None:
    _, before = cases
    after = again(before.data, AS_OF - timedelta(days=2, hours=1), WasteSettings(w03_calls=9))
    loops, failures = [
        [{f["rule_version"] for f in found.findings if f["rule"] == rule} for found in (before, after)]
        for rule in ("W03", "W04")
    ]
    assert loops[0] == {"1"}
    assert re.fullmatch(r"1-[0-9a-f]{6}", *loops[1])
    assert failures == [{"1"}, {"1"}]
    assert after.calls("W03") < before.calls("W03")
    assert of_team(after, "polling") == []
    [parameters] = {
        f["parameters"]["w03_calls"] for f in map(evidence, after.findings) if "w03_calls" in f["parameters"]
    }
    assert parameters == 9


def evidence(finding: dict[str, Any]) -> Any:
    return msgspec.json.decode(finding["evidence"])


# -- the models --------------------------------------------------------------------------------------------------------


def test_every_relation_and_column_of_the_rules_is_described(tmp_path: Path) -> None:
    lake.publish(tmp_path)
    rules = build.load(build.ON_DEMAND)
    described: dict[str, set[str]] = {}
    with duckdb.connect() as db:
        # As build.describe_views, but over empty tables: to look through views over views takes long.
        for model, reads in build.in_order(db, {**build.needed(db, build.load(), rules), **rules}):
            db.execute(f"CREATE TABLE {model.name} AS FROM ({build.located(model.sql, tmp_path)}\n) WITH NO DATA")
            columns = set(db.table(model.name).columns)
            described[model.name] = columns & (set().union(*(described[name] for name in reads)) | model.columns.keys())
            if model.name in rules:
                assert columns - described[model.name] == set(), model.name
                assert "One row per" in model.description, model.name
        for name, kept in (("waste_found", "found"), ("waste_claims", "claims")):
            db.execute(build.step(f"empty_{kept}"))
            assert db.table(name).columns == db.table("found").columns
            assert db.table(name).types == db.table("found").types
    assert {rule[:3].upper() for rule in rules if re.match(r"w\d\d_", rule)} == set(RULES)


def test_nothing_ranks_people() -> None:
    for model in [*build.load(build.ON_DEMAND).values(), *build.load(build.MODELS / "findings").values()]:
        assert "user_id" not in model.columns
        if model.name not in ("w18_tag_stuffing", "waste_ticket_calls", "waste_calls"):
            assert "user_id" not in model.sql, model.name
    for query in (build.FOLDER / "queries").glob("waste_by_*.sql"):
        assert not re.search("user|key_id|caller", query.read_text(encoding="utf-8"))


def test_rates_of_models_that_are_only_guessed_are_left_out() -> None:
    told = list(
        waste.rates(BOOK, [("anthropic", "claude-opus-4-5"), ("anthropic", "nobody-knows")], WasteSettings(), AS_OF)
    )
    assert {row["model"] for row in told} >= {"claude-opus-4-5", "claude-haiku-4-5"}
    assert "nobody-knows" not in {row["model"] for row in told}
    [opus] = [row for row in told if row["model"] == "claude-opus-4-5"]
    assert (opus["input_rate"], opus["cache_read_rate"], opus["output_rate"]) == (5 * 10**9, 5 * 10**8, 25 * 10**9)


def test_a_file_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    lake.publish(tmp_path)
    for name in ("found", "claims", "settings"):
        duckdb.sql("SELECT 1 AS x").write_parquet(str(waste.file(tmp_path, name)))
    waste.prepare(tmp_path)
    with analytics.open(tmp_path) as db:
        assert db.execute("SELECT count(*) FROM waste_findings").fetchall() == [(0,)]
        assert len(db.execute("FROM waste_rules").fetchall()) == len(RULES)
