"""Findings over time: reviews, states, the report, the API, the notice of new ones."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from click.testing import CliRunner, Result

from analytics import build, findings, kept, lake, live, waste
from gateway import findings as shown
from gateway.cli import outlay
from gateway.config import Config, WasteSettings
from gateway.errors import UserError
from gateway.keys import Keys
from gateway.ledger import now_us
from gateway.prices import load_prices
from tests import wasteful
from tests.conftest import Running, StartGateway, starter
from tests.fakes.upstream import fake_upstream
from tests.test_live import wait_for
from tests.wasteful import AS_OF

BOOK = load_prices(Config())
UNTOLD = (
    "edits", "tool_calls", "tool_count", "tool_schema_tokens", "human_turn", "request_hash", "action_hash",
    "session_id",
)  # fmt: skip


def made(data: Path) -> None:
    """Loops of the team payments, a tag that was typed in by somebody, and a client that tells nothing."""
    plan = wasteful.Plan(3)
    for plant in (wasteful.loops, wasteful.stuffers):
        plant(plan)
    plan.call(AS_OF - timedelta(days=9), client="plain", **dict.fromkeys(UNTOLD))
    lake.publish(data)
    wasteful.store(data, plan)
    findings.look(data, WasteSettings(), BOOK, AS_OF)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    data = tmp_path_factory.mktemp("looked")
    made(data)
    return data, waste.file(data, "found").read_bytes()


@pytest.fixture
def data(looked: tuple[Path, bytes]) -> Path:
    """As it was found, and without a review."""
    data, found = looked
    waste.file(data, "found").write_bytes(found)
    waste.reviews_file(data).write_bytes(b"")
    return data


def first(data: Path, rule: str = "W03") -> str:
    finding_id: str = findings.listed(data, rule=rule)[0]["finding_id"]
    return finding_id


def state(data: Path, finding_id: str) -> str:
    found = findings.one(data, finding_id)
    assert found is not None
    told: str = found["state"]
    return told


def run(*arguments: str) -> Result:
    return CliRunner().invoke(outlay, list(arguments))


# -- reviews and states ------------------------------------------------------------------------------------------------


def test_what_is_dismissed_stays_dismissed_under_any_version_of_its_rule(data: Path) -> None:
    finding_id, listed = first(data), len(findings.listed(data))
    findings.review(data, finding_id, "key_1", "dismissed", "intended")
    assert state(data, finding_id) == "dismissed"
    assert len(findings.listed(data)) == listed - 1
    try:
        findings.look(data, WasteSettings(w03_polling_seconds=61), BOOK, AS_OF)
        [again] = findings.listed(data, ["dismissed"])
        assert again["finding_id"] != finding_id
        assert (again["rule"], again["reason"]) == ("W03", "intended")
    finally:
        findings.look(data, WasteSettings(), BOOK, AS_OF)
    findings.review(data, finding_id, "key_1", "new")
    assert state(data, finding_id) == "new"


@pytest.mark.parametrize(
    ("reviewed_after_days", "expected"),
    [(-20, "fixed"), (-13.9, "accepted"), (-40, "fixed")],
)
def test_what_is_accepted_is_fixed_when_no_call_comes_for_two_weeks(
    data: Path, reviewed_after_days: float, expected: str
) -> None:
    said(data, AS_OF + timedelta(days=reviewed_after_days), called_before=AS_OF - timedelta(days=30))
    assert state(data, "0123456789abcdef") == expected


def test_it_has_regressed_when_calls_come_again(data: Path) -> None:
    said(data, AS_OF - timedelta(days=30), called_before=AS_OF - timedelta(days=3))
    assert state(data, "0123456789abcdef") == "regressed"
    said(data, AS_OF - timedelta(days=2), called_before=AS_OF - timedelta(days=1))  # accepted again
    assert state(data, "0123456789abcdef") == "accepted"


def said(data: Path, at: datetime, called_before: datetime) -> None:
    """A finding with calls until a moment, accepted at another one."""
    with lake.scratch(data) as db:
        found = db.read_parquet(str(waste.file(data, "found"))).filter("finding_id <> '0123456789abcdef'")
        found.create("kept")
        one = (
            "* REPLACE ('0123456789abcdef' AS finding_id, 'made up' AS group_key, "
            f"[TIMESTAMP '2026-01-01', TIMESTAMP '{called_before}'] AS called_at)"
        )
        both = db.table("kept").union(db.table("kept").filter("rule = 'W03'").limit(1).project(one))
        both.create("all_of_them")
        db.table("all_of_them").write_parquet(str(waste.file(data, "found")))
    review = {"at": int(at.replace(tzinfo=UTC).timestamp() * 1e6), "by": "key_1", "finding_id": "0123456789abcdef"}
    line = {**review, "rule": "W03", "group_key": "made up", "state": "accepted"}
    waste.reviews_file(data).write_bytes(msgspec.json.encode(line) + b"\n")


def test_precision_is_of_what_people_judged(data: Path) -> None:
    loops = [each["finding_id"] for each in findings.listed(data, rule="W03")]
    for each in loops[:2]:
        findings.review(data, each, "key_1", "accepted")
    findings.review(data, loops[2], "key_1", "dismissed", "false_positive")
    rows = {row["rule"]: row for row in findings.ask(data, "waste_by_rule", **everything())}
    assert (rows["W03"]["precision"], rows["W03"]["reviewed"]) == (0.667, 3)
    assert (rows["W18"]["precision"], rows["W18"]["reviewed"]) == (None, 0)
    assert rows.keys() == {"W03", "W18"}


def everything() -> dict[str, Any]:
    first, last = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    times = {"from": first.replace(tzinfo=None), "to": last.replace(tzinfo=None)}
    return {**times, "team": None, "states": list(findings.UNDISMISSED)}


def test_a_review_that_a_crash_cut_off_costs_no_other(data: Path) -> None:
    finding_id = first(data)
    waste.reviews_file(data).write_bytes(b'{"at": 1, "by": "key_1", "fin')
    assert state(data, finding_id) == "new"
    findings.review(data, finding_id, "key_1", "accepted")
    assert [each["state"] for each in (findings.one(data, finding_id) or {})["reviews"]] == ["accepted"]


def test_reviews_at_the_same_time_are_all_kept(data: Path) -> None:
    finding_id = first(data)
    threads = [
        threading.Thread(target=findings.review, args=(data, finding_id, f"key_{n}", "accepted")) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reviews = (findings.one(data, finding_id) or {})["reviews"]
    assert {each["reviewed_by"] for each in reviews} == {f"key_{n}" for n in range(8)}


@pytest.mark.parametrize(
    ("verdict", "reason", "note", "told"),
    [
        ("dismissed", None, None, "a reason is given"),
        ("accepted", "test", None, "a reason is given"),
        ("dismissed", "other", None, "say in a note"),
        ("dismissed", "other", "x" * 501, "at most 500"),
        ("dismissed", "other", "a\nb", "in one line"),
    ],
)
def test_a_review_that_says_too_little_is_none(data: Path, verdict: Any, reason: Any, note: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        findings.review(data, first(data), "key_1", verdict, reason, note)
    assert waste.reviews_file(data).read_bytes() == b""


def test_nobody_reviews_what_is_not_there(data: Path) -> None:
    with pytest.raises(UserError, match="no finding ffffffffffffffff"):
        findings.review(data, "f" * 16, "key_1", "accepted")
    with pytest.raises(UserError, match="no finding"):
        findings.review(data, first(data), "key_1", "accepted", team="another")


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_commands(data: Path) -> None:
    finding_id, place = first(data), ("--data", str(data))
    listed = json.loads(run("findings", "list", "--json", *place).stdout)
    assert {"W03", "W18"} <= {each["rule"] for each in listed}
    assert run("findings", "dismiss", finding_id, "--reason", "test", "--note", "a try", *place).exit_code == 0
    told = run("findings", "show", finding_id, *place).stdout
    assert "dismissed test a try" in told
    assert "threshold w03_calls: 5" in told.splitlines()
    assert "{" not in told
    assert finding_id not in run("findings", "list", *place).stdout
    assert finding_id in run("findings", "list", "--state", "dismissed", "--rule", "w03", *place).stdout
    assert run("findings", "reopen", finding_id, *place).exit_code == 0
    assert run("findings", "accept", finding_id, *place).exit_code == 0
    assert state(data, finding_id) == "accepted"
    for arguments, code in ((("show", "0" * 16), 1), (("dismiss", finding_id), 2), (("accept", "0" * 16), 1)):
        failed = run("findings", *arguments, *place)
        assert (failed.exit_code, "Traceback" in failed.output) == (code, False)


@pytest.mark.parametrize("by", ["rule", "team", "ticket", "model"])
def test_the_report_has_the_same_sum_by_whatever(data: Path, by: str) -> None:
    rows = json.loads(run("report", "waste", "--by", by, "--json", "--data", str(data)).stdout, parse_float=Decimal)
    listed = findings.listed(data, most=1000)
    assert sum(row["claimed_usd"] for row in rows) == sum(each["claimed_usd"] for each in listed) > 0
    told = run("report", "waste", "--by", by, "--data", str(data)).stdout
    assert "As of 2026-11-20 12:00 UTC" in told


def test_the_report_is_of_a_time_a_team_and_states(data: Path) -> None:
    def total(*arguments: str) -> Decimal:
        told = run("report", "waste", "--json", "--data", str(data), *arguments)
        return sum((row["claimed_usd"] for row in json.loads(told.stdout, parse_float=Decimal)), Decimal(0))

    assert total("--team", "payments") == total()
    assert total("--team", "search") == 0
    assert total("--to", "2026-01-01") == 0
    finding_id = first(data)
    claimed = (findings.one(data, finding_id) or {})["claimed_usd"]
    findings.review(data, finding_id, "key_1", "dismissed", "test")
    assert total("--state", "dismissed") == claimed > 0
    assert run("report", "waste", "--by", "user", "--data", str(data)).exit_code == 2


def test_a_report_looks_first_where_nobody_has(tmp_path: Path) -> None:
    lake.publish(tmp_path)
    assert run("report", "waste", "--data", str(tmp_path)).exit_code == 0
    assert findings.looked_at(tmp_path) is not None


def test_what_clients_do_not_tell_is_said(data: Path) -> None:
    told = json.loads(run("report", "coverage", "--section", "waste", "--json", "--data", str(data)).stdout)
    assert [row["client"] for row in told] == ["claude-code", "plain"]
    assert told[0]["silent_rules"] == []
    assert told[1]["silent_rules"] == [f"W{number:02}" for number in range(1, 14) if number != 4]


# -- the API -----------------------------------------------------------------------------------------------------------


async def asked(running: Running, key: str, path: str = "", body: Any = None) -> tuple[int, Any]:
    method = "GET" if body is None else "POST"
    url = f"{running.url}/-/api/v1/findings{path}"
    async with running.session.request(method, url, json=body, headers={"x-outlay-key": key}) as response:
        return response.status, await response.json()


async def test_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "x")
    made(tmp_path / "data")
    async with fake_upstream() as upstream:
        start: StartGateway = starter(tmp_path, upstream)
        async with start() as running:
            ring = Keys(running.dir)
            keys = {role: ring.create(role=role)[1] for role in ("viewer", "finops", "admin")}
            _, bound = ring.create(role="finops", team_id="search")
            with live.serving(running.dir):
                await asyncio.to_thread(wait_for, running.dir)
                status, told = await asked(running, keys["viewer"])
                assert status == 200
                rules = {each["rule"]: each["finding_id"] for each in told["findings"]}
                assert rules.keys() == {"W03", "W18"}
                assert (await asked(running, keys["viewer"], "?rule=W18"))[1]["findings"][0]["rule"] == "W18"
                assert (await asked(running, running.key))[0] == 403  # a key for calls
                assert await asked(running, bound) == (200, {"findings": []})
                assert await asked(running, bound, "?team=payments") == (200, {"findings": []})
                assert (await asked(running, bound, f"/{rules['W03']}"))[0] == 404

                async def callers(role: str) -> Any:
                    return (await asked(running, keys[role], f"/{rules['W18']}"))[1].get("callers")

                assert await callers("viewer") is None
                assert len(await callers("finops")) == len(await callers("admin")) == 1
                one = (await asked(running, keys["finops"], f"/{rules['W03']}"))[1]
                assert one["evidence"]["numbers"]["length"] >= 5
                assert "callers" not in one

                review, said = f"/{rules['W03']}/review", {"state": "dismissed", "reason": "intended"}
                assert (await asked(running, keys["viewer"], review, said))[0] == 403
                assert (await asked(running, bound, review, said))[0] == 404
                assert (await asked(running, keys["finops"], review, {"state": "dismissed"}))[0] == 422
                assert (await asked(running, keys["finops"], review, {"state": "closed"}))[0] == 400
                status, done = await asked(running, keys["finops"], review, said)
                assert (status, done["state"], done["reason"]) == (200, "dismissed", "intended")
                assert done["reviews"][0]["reviewed_by"].startswith("key_")
                assert (await asked(running, keys["finops"], f"/{'0' * 16}"))[0] == 404
            assert (await asked(running, keys["viewer"]))[0] == 503


# -- the keeper, and the notice ----------------------------------------------------------------------------------------


def test_the_keeper_looks_and_notes_what_is_new_once(tmp_path: Path) -> None:
    plan = wasteful.Plan(3)
    wasteful.runaways(plan)
    wasteful.background(plan)
    lake.publish(tmp_path)
    now = datetime.now(UTC).replace(tzinfo=None)
    shift = (now - AS_OF) // timedelta(microseconds=1)
    plan.calls = [msgspec.structs.replace(call, started_us=call.started_us + shift) for call in plan.calls]
    wasteful.store(tmp_path, plan)

    def looked() -> shown.News | None:
        before = findings.looked_at(tmp_path)
        with findings.looking(tmp_path, WasteSettings(), lambda: BOOK):
            while findings.looked_at(tmp_path) == before:
                threading.Event().wait(0.05)
        path = tmp_path / shown.NEWS
        return msgspec.json.decode(path.read_bytes(), type=shown.News) if path.exists() else None

    news = looked()
    assert news is not None
    assert news.findings >= 2
    assert news.claimed_nano > 100 * 10**9
    kept.forget(tmp_path, waste.KEPT)  # else it is fresh, and nobody looks
    assert looked() == news  # nothing is new the second time
    waste.file(tmp_path, "found").unlink()
    lake.publish(tmp_path)
    assert run("report", "waste", "--data", str(tmp_path)).exit_code == 0
    after = msgspec.json.decode((tmp_path / shown.NEWS).read_bytes(), type=shown.News)
    assert after.findings == news.findings  # told of by whoever looks
    assert after.as_of > news.as_of


def test_what_is_new_is_neither_dismissed_nor_known_nor_from_before(data: Path) -> None:
    def new(settings: WasteSettings, as_of: datetime) -> int:
        return findings.look(data, settings, BOOK, as_of).findings

    place, later = ("--data", str(data)), AS_OF + timedelta(days=1)
    try:
        findings.review(data, first(data), "key_1", "dismissed", "intended")
        assert new(WasteSettings(), later) == 0
        assert new(WasteSettings(w03_polling_seconds=61), later + timedelta(hours=1)) == 0  # another version
        waste.file(data, "found").unlink()
        waste.prepare(data)  # as if nothing had been found
        assert new(WasteSettings(), later + timedelta(hours=2)) == len(findings.listed(data)) > 0
        earlier = ("findings", "look", "--as-of", "2026-11-01", *place)
        refused = run(*earlier)
        assert refused.exit_code == 1
        assert "what is shown was found as of 2026-11-21T14:00:00" in str(refused.exception)
        assert findings.looked_at(data) == later + timedelta(hours=2)
        assert run(*earlier, "--replace").exit_code == 0
        assert findings.looked_at(data) == datetime(2026, 11, 1)  # noqa: DTZ001
    finally:
        findings.look(data, WasteSettings(), BOOK, AS_OF)


def test_a_gateway_tells_of_what_is_new_once(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    notices = shown.FindingNotices(tmp_path, lambda *arguments, **fields: told.append((*arguments, fields)))
    assert notices.refresh() is None
    (tmp_path / "findings").mkdir()
    news = shown.News(datetime(2026, 11, 20, 12, tzinfo=UTC), 7, 12_345_000_000)
    (tmp_path / shown.NEWS).write_bytes(msgspec.json.encode(news))
    found = notices.refresh()
    assert found == news
    notices.tell(news)
    assert notices.refresh() is None
    [(kind, subject, message, fields)] = told
    assert (kind, subject) == ("waste_found", "2026-11-20T12:00:00Z")
    assert "7 new findings of waste claim $12.3" in message
    assert fields["claimed_usd"] == "12.345000000"
    assert fields["until_us"] > now_us() - 10**15
    (tmp_path / shown.NEWS).write_bytes(b"{")
    assert notices.refresh() is None


def test_what_is_disputed_is_found_by_the_key_that_the_ticket_has_now() -> None:
    """W18 names PAY-1; the call still said OLD-1, and is for PAY-2, too."""
    with duckdb.connect() as db:
        db.execute("""
            CREATE TABLE ticket_names AS FROM (VALUES ('OLD-1', 'PAY-1'), ('PAY-1', 'PAY-1')) AS names(name, ticket_id);
            CREATE TABLE waste_findings AS
            FROM (VALUES ('W18', 'new', ['a', 'b'], 'PAY-1'), ('W18', 'dismissed', ['b'], 'PAY-2'))
              AS findings(rule, state, call_ids, ticket_id);
            CREATE TABLE call_tickets AS
            FROM (VALUES ('a', 'OLD-1', 3, NULL), ('a', 'PAY-2', 2, 1), ('b', 'PAY-1', 5, 4), ('b', 'PAY-2', 1, 1))
              AS shares(call_id, ticket_id, ticket_cost_usd, ticket_contracted_cost_usd)
        """)
        found = db.execute(f"FROM ({build.load()['disputed_spend'].sql}) ORDER BY call_id").fetchall()
    assert found == [("a", 3), ("b", 4)]
