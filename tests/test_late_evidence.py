"""Late evidence beside all else: sums stay exact, no other correction is lost, and it may be stopped at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics
from analytics import attributing, build, disk, lake, verifying, work
from analytics.attributing import Span, StoppedError
from gateway import cli
from gateway.call import NANO, Call
from gateway.config import LedgerSettings
from gateway.ledger import Ledger, now_us, records
from gateway.tracker import Snapshot
from tests.journals import NOON, call, segment
from tests.test_attributing import ANYTHING, HERE, later, ledger, named, seen, settle
from tests.test_corrections import correct, restated
from tests.test_lake import _process, _until
from tests.test_prices_cli import booked, dearer, other_snapshot
from tests.trackers import hours, know, pull

TASK: dict[str, Any] = {"task_id": "t", "task_source": "session"}
ATTRIBUTION = {"ticket_id", "tickets", "ticket_source", "ticket_state", "ticket_candidates"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in a directory with settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/outlay.toml").write_text("")

    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


# -- money ---------------------------------------------------------------------------------------------------------

TICKETS = ["PAY-1", "PAY-2", "OLD-5", "OPS-7", "GPT-5", "acme/shop#46"]
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "list_cost_nano": st.integers(0, 10**12),
            "tickets": st.lists(st.sampled_from(TICKETS), max_size=4, unique=True).map(tuple),
            "ticket_source": st.sampled_from(["header", "branch", "task"]),
            "ticket_state": st.sampled_from(["unchecked", "unknown", "known"]),
            "task_id": st.sampled_from([None, "a", "b"]),
            "session_id": st.sampled_from([None, "s"]),
            "branch": st.sampled_from([None, "fix", "main", "GPT-5"]),
            "commit_sha": st.sampled_from([None, "abc"]),
            "ticket_candidates": st.sampled_from([(), ("header:acme/shop#46",), ("branch:PAY-2", "path:OLD-5")]),
            "purpose": st.sampled_from([None, "ci"]),
            "price_status": st.sampled_from(["exact", "unpriced"]),
            "minutes": st.integers(0, 3000),
        }
    ),
    max_size=12,
)


def drawn(fields: dict[str, Any]) -> Call:
    at = NOON + timedelta(minutes=fields.pop("minutes"))
    if not fields["tickets"]:
        fields |= {"ticket_source": "none", "ticket_state": None}
    if fields["price_status"] == "unpriced":
        fields["list_cost_nano"] = None
    return call(at, task_source="session", repo="acme/shop", ticket_id=next(iter(fields["tickets"]), None), **fields)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, duckdb.DuckDBPyConnection]]:
    data = tmp_path_factory.mktemp("lasting")
    lake.publish(data)
    with analytics.open(data) as connection:
        moved = work.Ticket(ticket_id="PAY-2", aliases=["OLD-5"], status_category="done", done_at=hours(9))
        own = work.Commit(sha="abc", repo="acme/shop", pr_id="acme/shop!47")
        prs = [pull(46), pull(47, "more")]
        pulls = {"acme/shop!46": ["PAY-1", "OLD-5", "FIN-3"], "acme/shop!47": ["PAY-1"]}
        know(data, "PAY-1", moved, prs=prs, pulls=pulls, commits=[own], synced=hours(30))
        yield data, connection


@settings(max_examples=3, deadline=None)
@given(CALLS)
def test_late_evidence_changes_no_cost_and_every_nano_dollar_stays_in_one_place(
    lasting: tuple[Path, duckdb.DuckDBPyConnection], given_: list[dict[str, Any]]
) -> None:
    data, db = lasting
    calls = [drawn(dict(fields)) for fields in given_]
    try:
        segment(data, calls)
        found = settle(data)
        sums = dict.fromkeys((), 0)
        costs = {each.call_id: each.list_cost_nano for each in calls}
        rows = db.execute("SELECT call_id, list_cost_usd, tickets FROM calls").fetchall()
        assert {id_: None if usd is None else int(usd * NANO) for id_, usd, _ in rows} == costs
        for id_, _, tickets in rows:
            for position, ticket in enumerate(tickets):
                share, rest = divmod(costs[id_] or 0, len(tickets))
                sums[ticket] = sums.get(ticket, 0) + share + (position < rest)
        by_ticket = db.execute("SELECT ticket_id, list_cost_usd FROM ticket_costs").fetchall()
        assert {ticket: int(usd * NANO) for ticket, usd in by_ticket} == sums
        by_rule = db.execute("SELECT rule, count(*) FROM attribution_changes GROUP BY rule").fetchall()
        assert sum(dict(by_rule).values()) == sum(found.values())
        assert verifying.verify(data).wrong == []
        originals = {each.call_id: each for each in calls}
        for path in (data / "journal").glob("*-attribute-*.jsonl"):
            for record in records(path):
                if record["e"] == "correct":
                    after = msgspec.to_builtins(msgspec.convert(record, Call))
                    before = msgspec.to_builtins(originals[record["call_id"]])
                    assert {k: v for k, v in after.items() if k not in ATTRIBUTION} == {
                        k: v for k, v in before.items() if k not in ATTRIBUTION
                    }
    finally:
        for path in (data / "journal").glob("2*.jsonl"):
            path.unlink()


def test_what_changed_is_visible_and_all_views_follow(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    moved = work.Ticket(ticket_id="PAY-9", aliases=["OLD-5"])
    own = work.Commit(sha="abc", repo="acme/shop", pr_id="acme/shop!46")
    pulls = {"acme/shop!46": ["PAY-1", "PAY-2"]}
    know(data, "PAY-1", moved, "acme/shop#45", prs=[pull(46)], pulls=pulls, commits=[own])
    calls = {
        "evidence": later(0, **TASK, **named("PAY-1", state="known")),
        "task": later(1, **TASK),
        "branch": later(2, **HERE, list_cost_nano=1001, team_id="pay"),
        "commit": later(3, commit_sha="abc"),
        "candidate": later(4, ticket_candidates=("header:acme/shop#45",)),
        "moved": later(5, **named("OLD-5", state="known")),
        "state": later(6, **named("PAY-1")),
        "taken_back": later(7, **named("GPT-5", source="branch", branch="GPT-5")),
        "nothing": later(8),
    }
    segment(data, calls.values())
    rules = [name for name in calls if name not in ("evidence", "nothing")]
    unattributed = "SELECT sum(calls), sum(list_cost_usd) FROM unattributed_spend"
    assert db.execute(unattributed).fetchone() == (5, Decimal("0.000005001"))
    assert settle(data) == dict.fromkeys(rules, 1)
    changes = db.execute("SELECT rule, call_id FROM attribution_changes ORDER BY started_at").fetchall()
    assert changes == [(rule, calls[rule].call_id) for rule in rules]
    [branch] = db.execute("FROM attribution_changes WHERE rule = 'branch'").fetchall()
    assert branch[-7:] == ([], ["PAY-1", "PAY-2"], "none", "branch", None, "unchecked", Decimal("0.000001001"))
    assert db.execute("SELECT DISTINCT cause FROM corrections").fetchall() == [("attribution",)]
    assert db.execute(unattributed).fetchone() == (2, Decimal("0.000002000"))
    costs = dict(db.execute("SELECT ticket_id, list_cost_usd FROM ticket_costs").fetchall())
    # 1 for each of evidence, task and state; half of branch and of commit, the odd nano-dollar to the first ticket.
    assert {ticket: int(usd * NANO) for ticket, usd in costs.items()} == {
        "PAY-1": 3000 + 501 + 500, "PAY-2": 500 + 500, "PAY-9": 1000, "acme/shop#45": 1000,
    }  # fmt: skip
    assert db.execute("SELECT tickets, calls FROM task_costs").fetchall() == [(["PAY-1"], 2)]
    assert verifying.verify(data).wrong == []


def test_the_check_finds_an_attribution_that_changes_a_cost(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    first = call()
    segment(data, [first])
    check = build.load(build.FOLDER / "checks")["attribution_costs"].sql
    settled = [
        (restated(first, 1000), "attribution"),
        (restated(first, 7), "price"),
        (restated(first, 8), "attribution"),
    ]
    for number, (each, cause) in enumerate(settled):
        correct(data, each, at=NOON + timedelta(minutes=number + 1), cause=cause)
        assert len(db.execute(check).fetchall()) == (number == 2)


# -- other corrections -----------------------------------------------------------------------------------------------


def test_rerating_and_late_evidence_keep_each_others_corrections(data: Path, run: Run, tmp_path: Path) -> None:
    new = str(other_snapshot(tmp_path / "new.json.gz", dearer))
    rerate = ("prices", "rerate", "--from", "2026-11-20", "--to", "2026-11-20", "--apply", "--json")
    late = ("attribute", "--apply", "--json")
    segment(
        data, [booked(**TASK, **named("PAY-1")), booked(at=NOON + timedelta(hours=1), ticket_source="none", **TASK)]
    )

    def spent() -> list[tuple[str, str, Decimal]]:
        with analytics.open(data) as db:
            return db.execute(
                "SELECT ticket_id, ticket_source, list_cost_usd FROM calls ORDER BY started_at"
            ).fetchall()

    assert json.loads(run(*late)[1])["changes"][0]["calls"] == 1
    assert json.loads(run(*rerate, "--book", new)[1])["corrections_written"] == 2
    assert spent() == [("PAY-1", "header", Decimal("0.008")), ("PAY-1", "task", Decimal("0.008"))]
    know(data, "PAY-1")
    assert json.loads(run(*late)[1])["changes"][0] == {
        "rule": "state", "calls": 2, "unpriced_calls": 0, "list_cost_usd": 0.016,
    }  # fmt: skip
    assert json.loads(run(*rerate)[1])["corrections_written"] == 2
    assert spent() == [("PAY-1", "header", Decimal("0.006")), ("PAY-1", "task", Decimal("0.006"))]
    assert seen(data) == [("PAY-1", "header", "known", ()), ("PAY-1", "task", "known", ())]
    assert verifying.verify(data).wrong == []


def test_only_one_writes_corrections_at_a_time(data: Path, run: Run, tmp_path: Path) -> None:
    segment(data, [booked(**TASK, **named("PAY-1")), booked(ticket_source="none", **TASK)])
    new = str(other_snapshot(tmp_path / "new.json.gz", dearer))
    rerate = ("prices", "rerate", "--from", "2026-11-20", "--to", "2026-11-20", "--apply", "--book", new)
    program = [sys.executable, "-c", "from gateway.cli import main; main()"]
    commands = ([*program, *rerate], [*program, "attribute", "--apply"])
    with disk.correcting(data):
        with pytest.raises(StoppedError):
            attributing.correct(data, Span(), ANYTHING, ledger(data), wait=False)
        waiting = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
        time.sleep(3)
        assert [each.poll() for each in waiting] == [None, None]
        assert not list((data / "journal").glob("*-rerate-*")) + list((data / "journal").glob("*-attribute-*"))
    assert [each.wait(60) for each in waiting] == [0, 0]
    for each in waiting:
        each.communicate()
    with analytics.open(data) as db:
        assert db.execute("SELECT ticket_id, list_cost_usd FROM calls").fetchall() == [("PAY-1", Decimal("0.008"))] * 2
    assert verifying.verify(data).wrong == []


def test_what_the_gateway_learns_later_is_kept_and_the_ticket_found_again(data: Path) -> None:
    gateway = Ledger(ledger(data), "gw-1", clock=now_us)
    gateway.start()
    evidence, first = later(0, **TASK, **named("PAY-1")), later(1, **TASK)
    gateway.close(evidence)
    at = gateway.close(first)
    assert at is not None
    assert settle(data) == {"task": 1}
    gateway.correct(restated(first, 7), "usage", at)  # it knows nothing of the ticket
    assert seen(data)[1][0] == ""
    assert settle(data) == {"task": 1}
    assert seen(data)[1][0] == "PAY-1"
    with analytics.open(data) as db:
        assert db.execute("SELECT list_cost_usd FROM calls WHERE ticket_source = 'task'").fetchall() == [
            (Decimal("0.000000007"),)
        ]
    gateway.stop()
    assert verifying.verify(data).wrong == []


def test_a_call_that_changed_after_it_was_found_is_left_to_the_next_run(data: Path) -> None:
    first = later(1, **TASK)
    segment(data, [later(0, **TASK, **named("PAY-1")), first])
    with analytics.open(data) as db:
        moment = attributing._now()
        [line] = attributing._find(db, Span(), ANYTHING, Snapshot(), moment, lambda: False)
        assert line.rule == "task"
        correct(data, msgspec.structs.replace(restated(first, 1000), **named("PAY-2", source="claim")))
        assert list(attributing._corrections(db, moment, lambda: False)) == []
    assert settle(data) == {}


# -- stopped at any moment -------------------------------------------------------------------------------------------


def test_what_is_stopped_leaves_nothing(data: Path) -> None:
    segment(data, [later(0, **TASK, **named("PAY-1")), *(later(1, **TASK) for _ in range(30))])
    before = set((data / "journal").iterdir())
    for steps in (0, 1, 5, 11, 14):
        left = iter(range(steps))
        with pytest.raises(StoppedError):
            attributing.correct(data, Span(), ANYTHING, ledger(data), is_stopped=lambda: next(left, None) is None)  # noqa: B023
    assert set((data / "journal").iterdir()) == before
    assert settle(data) == {"task": 30}


def _correct_on(data: str) -> None:
    while True:
        attributing.correct(Path(data), Span(), ANYTHING, ledger(Path(data)))


def test_killed_at_any_moment_it_goes_on(data: Path) -> None:
    moments, calls = random.Random(20261122), 0
    for round_ in range(3):
        at = timedelta(minutes=round_)
        task = {"task_id": f"t-{round_}", "task_source": "session"}
        segment(data, [later(0, **task, **named("PAY-1")), *(later(1, **task) for _ in range(40))], at=NOON + at)
        calls += 41
        with _process(target=_correct_on, args=(str(data),)) as process:
            _until(lambda: any((data / "journal").glob("*-attribute-*")) or round_ == 0)  # noqa: B023
            time.sleep(moments.uniform(0.5, 2))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    settle(data)
    assert len(seen(data)) == calls
    assert {tickets for tickets, *_ in seen(data)} == {"PAY-1"}
    assert verifying.verify(data).wrong == []


def test_beside_a_gateway_that_writes_nothing_is_lost(data: Path) -> None:
    """Calls, and what is learnt of their usage, while the ticket comes with the last call of each task."""
    stop = threading.Event()
    expected: dict[str, int] = {}

    def write() -> None:
        gateway = Ledger(ledger(data), "gw-1")
        gateway.start()
        for number in range(10_000):
            task = {"task_id": f"t-{number}", "task_source": "session"}
            calls = [later(0, **task), later(0.1, **task), later(0.2, **task, **named("PAY-1"))]
            for each in calls:
                gateway.open(each)
                at = gateway.close(each)
                assert at is not None
                time.sleep(0.003)
                if number % 2:
                    gateway.correct(restated(each, number), "usage", at)
                expected[each.call_id] = number if number % 2 else 1000
            if stop.is_set():
                break
        gateway.stop()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            attributing.correct(data, Span(), ANYTHING, LedgerSettings(dir=str(data)))
    finally:
        stop.set()
        writer.join()
    attributing.correct(data, Span(), ANYTHING, LedgerSettings(dir=str(data)))
    assert attributing.find(data, Span(), ANYTHING) == []
    with analytics.open(data) as db:
        rows = db.execute("SELECT call_id, list_cost_usd, tickets FROM calls").fetchall()
    assert {call_id: int(usd * NANO) for call_id, usd, _ in rows} == expected
    assert {tuple(tickets) for _, _, tickets in rows} == {("PAY-1",)}
    assert verifying.verify(data).wrong == []


def test_a_long_span_is_looked_at_in_parts(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in one of them may be evidence in the one before."""
    monkeypatch.setattr(attributing, "PART", timedelta(hours=3))
    know(data, prs=[pull(46)], pulls={"acme/shop!46": ["PAY-1"]})
    at = [0, 5, 9, 14]
    calls = [*(later(each, **TASK) for each in at[:3]), later(at[3], **TASK, **HERE)]
    segment(data, calls)
    assert settle(data) == {"branch": 1, "task": 3}


# -- by the keeper ---------------------------------------------------------------------------------------------------


def test_a_look_is_at_the_last_days_or_at_all_when_the_tracker_knows_more(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributing, "_now", lambda: hours(24 * 10))
    looks = attributing.Looks(data, ANYTHING, ledger(data))
    looks.look()  # the first is at all calls
    old = segment(data, [later(0, **TASK, **named("PAY-1")), later(1, **TASK)], at=NOON)
    recent = {"task_id": "r", "task_source": "session"}
    days = 24 * 9
    segment(data, [later(days, **recent, **named("PAY-2")), later(days + 1, **recent)], at=NOON + timedelta(days=9))
    looks.look()
    assert [source for _, source, _, _ in seen(data)] == ["header", "none", "header", "task"]
    know(data, "PAY-1")
    with disk.correcting(data):
        looks.look()  # not now
    assert [source for _, source, _, _ in seen(data)] == ["header", "none", "header", "task"]
    looks.look()
    assert seen(data)[1] == ("PAY-1", "task", "known", ())
    journal = (data / "journal").stat().st_mtime_ns
    looks.look()  # the journal is another one: by what was just written
    looks.look()
    assert (data / "journal").stat().st_mtime_ns == journal
    assert old.exists()


def test_a_look_with_nothing_new_asks_nothing(data: Path) -> None:
    segment(data, [later(0, **TASK, **named("PAY-1")), later(1, **TASK)])
    looks = attributing.Looks(data, ANYTHING, ledger(data))
    looks.look()
    looks.look()
    (data / "outlay.duckdb").write_bytes(b"not to be opened")
    looks.look()
    segment(data, [later(2)], gateway_id="gw-2")
    with pytest.raises(duckdb.Error):
        looks.look()


def test_the_keeper_looks_in_a_thread_of_its_own_and_goes_on_after_a_failure(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attributing, "LOOK_SECONDS", 0.02)
    published = (data / "outlay.duckdb").read_bytes()
    (data / "outlay.duckdb").write_bytes(b"not a database")
    segment(data, [later(0, **TASK, **named("PAY-1")), later(1, **TASK)])
    with attributing.looking(data, ANYTHING, ledger(data)):
        _until(lambda: "trying again" in caplog.text)
        time.sleep(0.2)
        aside = data / "outlay.duckdb.aside"
        aside.write_bytes(published)
        aside.rename(data / "outlay.duckdb")
        _until(lambda: any((data / "journal").glob("*-attribute-*.jsonl")))
    assert caplog.text.count("trying again") == 1
    assert seen(data)[1][:2] == ("PAY-1", "task")


def test_the_keeper_takes_the_gateways_settings_and_goes_on_without(data: Path, tmp_path: Path) -> None:
    (tmp_path / "outlay.toml").write_text("[ticket]\n")
    command = [sys.executable, "-m", "analytics", "--data", str(data), "--config", str(tmp_path / "outlay.toml")]
    segment(data, [call()])
    with subprocess.Popen(command, stderr=subprocess.PIPE) as keeper:
        _until(lambda: lake.read_state(data) != [])
        keeper.terminate()
        _, errors = keeper.communicate(timeout=30)
    assert keeper.returncode == 0
    assert "late evidence is not looked for: " in errors.decode()
    assert 'unknown section "ticket"; did you mean "tickets"?' in errors.decode()


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_attribute_shows_then_corrects_and_finds_nothing_the_second_time(run: Run, data: Path) -> None:
    calls = [
        later(0, **TASK, **named("PAY-1")),
        later(1, **TASK),
        later(25, **TASK, price_status="unpriced", list_cost_nano=None),
    ]
    segment(data, calls)
    know(data, "PAY-1")
    before = seen(data)
    code, out, _ = run("attribute")
    assert (code, out.splitlines()[-1]) == (0, "Nothing was written; --apply corrects them.")
    assert out.splitlines()[1].split() == ["state", "more", "is", "known", "of", "its", "ticket", "1", "0.000001"]
    assert json.loads(run("attribute", "--json")[1]) == {
        "changes": [
            {"rule": "state", "calls": 1, "unpriced_calls": 0, "list_cost_usd": 0.000001},
            {"rule": "task", "calls": 1, "unpriced_calls": 0, "list_cost_usd": 0.000001},
        ],
        "applied": False,
    }
    assert seen(data) == before
    code, out, _ = run("attribute", "--apply", "--from", "2026-11-21")
    assert (code, out) == (0, "Nothing is known better of any call's ticket.\n")
    code, out, _ = run("attribute", "--apply", "--to", "2026-11-20")
    assert (code, out.splitlines()[-1]) == (0, "2 calls were corrected.")
    assert json.loads(run("attribute", "--apply", "--json")[1]) == {"changes": [], "applied": True}
    assert [each[1] for each in seen(data)] == ["header", "task", "none"]


def test_attribute_asks_for_what_it_needs(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("attribute", "--from", "2026-11-21", "--to", "2026-11-20")[0] == 2
    code, _, errors = run("attribute", "--data", str(tmp_path / "nowhere"))
    assert (code, errors.count("\n")) == (1, 1)
    assert "there is no data folder" in errors


def test_without_settings_no_ticket_is_taken_back(run: Run, data: Path, tmp_path: Path) -> None:
    segment(data, [later(0, **named("GPT-5", source="branch", branch="GPT-5"))])
    know(data, "PAY-1")
    assert json.loads(run("attribute", "--json")[1])["changes"][0]["rule"] == "taken_back"
    (tmp_path / "config/outlay.toml").write_text('[tickets]\nprojects = ["GPT"]\n')
    assert json.loads(run("attribute", "--json")[1])["changes"] == []
    (tmp_path / "config/outlay.toml").unlink()
    assert json.loads(run("attribute", "--json")[1])["changes"] == []
