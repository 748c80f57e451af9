"""What became of tickets and what they cost: each rule, each moment it is looked at from, and sums that always fit."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics
from analytics import build, disk, lake, verifying, work
from gateway import cli
from tests.benchmarks.harness import organisation
from tests.journals import NOON, call, segment
from tests.trackers import BEGIN, know, pull

NOW = BEGIN + timedelta(days=100)
"""When the trackers were read last."""
LATER = datetime(2100, 1, 1, tzinfo=UTC).replace(tzinfo=None)
"""When it is looked at, so that the clock of the machine does not matter."""
SCALE = int(os.environ.get("OUTLAY_TEST_CALLS", "20000"))
"""Calls of the made-up organisation; 1000000 takes a minute."""
EXAMPLES = max(2, SCALE // 20_000)


def days(number: float) -> datetime:
    return BEGIN + timedelta(days=number)


def ticket(number: int, category: str | None = "done", **fields: Any) -> work.Ticket:
    return work.Ticket(
        ticket_id=f"PAY-{number}", status_category=category, **{"project": "PAY", "updated_at": days(50), **fields}
    )


def merged(number: int, at: float = 10, reverted: float | None = None, **fields: Any) -> work.PullRequest:
    return pull(
        number,
        merged_at=days(at),
        closed_at=days(at),
        reverted_at=None if reverted is None else days(reverted),
        **fields,
    )


def rows(data: Path, query: str, as_of: datetime | None = None) -> list[tuple[Any, ...]]:
    with analytics.open(data) as db:
        if as_of is not None:
            db.execute("SET VARIABLE as_of = $as_of", {"as_of": as_of})
        return db.execute(query).fetchall()


def spend(data: Path, *tickets: str, at: datetime = NOON, **fields: Any) -> None:
    """One call for each of the tickets."""
    calls = [call(at, tickets=(each,), ticket_id=each, task_id=f"task-{each}", **fields) for each in tickets]
    segment(data, calls, at=at)


def outcome(data: Path, ticket_id: str = "PAY-1", as_of: datetime = LATER) -> str | None:
    [(found,)] = rows(data, f"SELECT outcome FROM ticket_costs WHERE ticket_id = '{ticket_id}'", as_of)
    assert found is None or isinstance(found, str)
    return found


def put(data: Path, table: str, seen_at: datetime, *given: work.Row, emptied: tuple[str, ...] = ()) -> work.Counts:
    with work.alone(data):
        work.spool(data, table, given)
        return work.store(data, table, emptied, seen_at)


# -- outcomes ------------------------------------------------------------------------------------------------------

Case = tuple[str | None, work.Ticket, list[work.PullRequest]]
CASES: dict[int, Case] = {
    1: ("delivered", ticket(1), []),
    2: ("delivered", ticket(2, resolution="Done"), []),
    3: ("abandoned", ticket(3, resolution="Won't Do"), []),
    4: ("abandoned", ticket(4, resolution="not_planned"), []),
    5: ("abandoned", ticket(5, resolution="不做"), []),
    19: ("abandoned", ticket(19, resolution=" Won’t Do "), []),
    6: ("delivered", ticket(6, resolution="完成"), []),
    7: ("reverted", ticket(7), [merged(7, 10, reverted=39)]),
    8: ("delivered", ticket(8), [merged(8, 10, reverted=41)]),  # later than 30 days
    9: ("delivered", ticket(9), [merged(9, 10, reverted=12), merged(109, 13)]),  # not all of them
    10: ("reverted", ticket(10, "in_progress"), [merged(10, 10, reverted=11)]),
    11: ("reverted", ticket(11, resolution="Won't Do"), [merged(11, 10, reverted=11)]),  # the first that fits
    12: ("abandoned", ticket(12, "in_progress", updated_at=days(60)), [pull(12, closed_at=days(5))]),
    13: ("in_progress", ticket(13, "in_progress", updated_at=days(80)), [pull(13, closed_at=days(5))]),
    14: ("stale", ticket(14, "in_progress", updated_at=days(60)), []),
    15: ("stale", ticket(15, "todo", updated_at=days(60)), [pull(15)]),
    16: ("in_progress", ticket(16, "in_progress", updated_at=days(60)), [pull(16, updated_at=days(90))]),
    17: ("in_progress", ticket(17, None, updated_at=None), []),  # nothing is known of when it changed
    18: ("stale", ticket(18, None, updated_at=days(1)), []),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ticket for each case, a call for each, and one more call for PAY-900, of which nobody knows."""
    data = tmp_path_factory.mktemp("judged") / "data"
    lake.publish(data)
    know(
        data,
        *(each for _, each, _ in CASES.values()),
        prs=[pr for _, _, prs in CASES.values() for pr in prs],
        pulls={pr.pr_id: [each.ticket_id] for _, each, prs in CASES.values() for pr in prs},
        synced=NOW,
    )
    with work.alone(data):
        work.spool(data, "resolutions", [work.Resolution(resolution="不做", is_delivering=False)])
        work.store(data, "resolutions")
    spend(data, *(each.ticket_id for _, each, _ in CASES.values()), "PAY-900", "OPS-1")
    return data


@pytest.fixture(scope="module")
def outcomes(judged: Path) -> dict[str, str | None]:
    return dict(rows(judged, "SELECT ticket_id, outcome FROM ticket_costs", LATER))


@pytest.mark.parametrize("number", CASES)
def test_the_first_rule_that_fits_tells_the_outcome(outcomes: dict[str, str | None], number: int) -> None:
    expected, each, _ = CASES[number]
    assert outcomes[each.ticket_id] == expected


def revert(number: int, of: int, at: float, **fields: Any) -> work.Revert:
    return work.Revert(
        reverting=f"acme/shop!{number}",
        repo="acme/shop",
        kind="pr",
        reference=f"acme/shop!{of}",
        reverted_at=days(at),
        **fields,
    )


def test_a_revert_that_names_the_ticket_delivers_nothing(data: Path) -> None:
    """As GitHub's button writes it: `Revert "PAY-1: add form"`. The same for what lands again."""
    named = {f"acme/shop!{number}": ["PAY-1"] for number in (1, 2, 3)}
    know(data, ticket(1, done_at=days(9)), prs=[merged(1, 10), merged(2, 12)], pulls=named, synced=NOW)
    put(data, "reverts", days(20), revert(2, 1, at=12))
    spend(data, "PAY-1")
    asked = """SELECT outcome, survived_14d, pull_requests, merged_pull_requests, reverted_pull_requests,
        pull_request_share, delivered_at FROM ticket_costs"""
    assert rows(data, asked, LATER) == [("reverted", "reverted", 1, 1, 1, 1, days(10))]
    put(data, "pull_requests", days(21), merged(3, 15))
    put(data, "reverts", days(21), revert(3, 1, at=15, is_reland=True))
    assert rows(data, asked, LATER) == [("delivered", "survived", 1, 1, 0, 1, days(15))]


def test_what_takes_back_and_brings_back_again_and_again_is_no_work(data: Path) -> None:
    named = {f"acme/shop!{number}": ["PAY-1"] for number in range(1, 5)}
    know(data, ticket(1), prs=[merged(n, 10 + n) for n in range(1, 5)], pulls=named, synced=NOW)
    for number in (2, 3, 4):
        put(data, "reverts", days(20), revert(number, number - 1, at=10 + number))
    spend(data, "PAY-1")
    asked = "SELECT outcome, pull_requests, merged_pull_requests FROM ticket_costs"
    assert rows(data, asked, LATER) == [("reverted", 1, 1)]


def test_a_ticket_whose_work_is_a_revert_delivers_that(data: Path) -> None:
    prs = [merged(1, 10), merged(2, 12)]
    know(data, ticket(1), ticket(2), prs=prs, pulls={"acme/shop!1": ["PAY-1"], "acme/shop!2": ["PAY-2"]}, synced=NOW)
    put(data, "reverts", days(20), revert(2, 1, at=12))
    spend(data, "PAY-1", "PAY-2")
    asked = "SELECT outcome, merged_pull_requests FROM ticket_costs ORDER BY ticket_id"
    assert rows(data, asked, LATER) == [("reverted", 1), ("delivered", 1)]


def test_a_ticket_that_nobody_made_is_unknown_and_one_that_was_not_read_is_not(outcomes: dict[str, str | None]) -> None:
    assert outcomes["PAY-900"] == "unknown_ticket"
    assert outcomes["OPS-1"] is None


def test_a_ticket_is_not_unknown_until_its_tracker_was_read_a_day_after_the_call(data: Path) -> None:
    spend(data, "PAY-900")
    for synced, expected in ((days(0.9), None), (days(1), "unknown_ticket")):
        know(data, "PAY-1", synced=synced)
        assert outcome(data, "PAY-900") == expected


def test_a_call_keeps_a_ticket_from_being_stale(data: Path) -> None:
    know(data, ticket(1, "in_progress", updated_at=days(1)), synced=NOW)
    spend(data, "PAY-1", at=NOON + timedelta(days=71))
    assert outcome(data) == "in_progress"


def test_what_a_tracker_was_not_asked_for_is_no_silence(data: Path) -> None:
    know(data, ticket(1, "in_progress", updated_at=days(1)), synced=days(20))
    spend(data, "PAY-1")
    assert outcome(data) == "in_progress"
    know(data, "PAY-2", synced=days(32))
    assert outcome(data) == "stale"


# -- cost ----------------------------------------------------------------------------------------------------------


def test_cost_is_told_by_the_present_key_before_the_start_and_after_the_end(data: Path) -> None:
    moved = ticket(1, started_at=days(1), done_at=days(3), created_at=days(-1), aliases=["OLD-1"])
    know(data, moved, synced=NOW)
    spend(data, "OLD-1", at=NOON)
    spend(data, "PAY-1", at=NOON + timedelta(days=2), contracted_cost_nano=900)
    spend(data, "PAY-1", at=NOON + timedelta(days=3, seconds=1))
    segment(
        data,
        [call(tickets=("OLD-1", "PAY-1", "PAY-2"), ticket_id="OLD-1", task_id="both", list_cost_nano=8)],
        at=NOON + timedelta(minutes=1),
    )
    segment(
        data, [call(tickets=("PAY-1",), price_status="unpriced", list_cost_nano=None)], at=NOON + timedelta(minutes=2)
    )
    found = rows(
        data,
        "SELECT ticket_id, list_cost_usd, contracted_cost_usd, before_start_usd, after_done_usd, calls, unpriced_calls,"
        " tasks, lead_time_hours, cycle_time_hours FROM ticket_costs ORDER BY ticket_id",
    )
    nano = Decimal("0.000000001")
    assert found == [
        ("PAY-1", 3006 * nano, 900 * nano, 1006 * nano, 1000 * nano, 5, 1, 3, 96.0, 48.0),
        ("PAY-2", 2 * nano, 0, None, None, 1, 0, 1, None, None),
    ]
    assert rows(data, "SELECT sum(calls), sum(whole_calls) FROM task_days") == [(6, 5)]


def test_what_was_delivered_is_durable_when_it_was_there_later(data: Path) -> None:
    done = [ticket(1, done_at=days(10)), ticket(2, done_at=days(80)), ticket(3, done_at=days(10))]
    going_on = ticket(4, "in_progress"), ticket(6, "in_progress", done_at=days(1))
    put(data, "tickets", days(90), *done, *going_on, ticket(5, done_at=days(1)))
    pulls = {3: "PAY-3", 5: "PAY-5", 6: "PAY-5", 7: "PAY-6", 8: "PAY-6"}
    put(data, "pull_requests", days(90), merged(3, 10, reverted=30), merged(5, 10, reverted=12), merged(6, 10))
    put(data, "pull_requests", days(90), merged(7, 10, reverted=12), merged(8, 10))
    links = [work.PrTicket(pr_id=f"acme/shop!{n}", ticket_id=id_, source="title") for n, id_ in pulls.items()]
    put(data, "pr_tickets", days(90), *links)
    spend(data, "PAY-1", "PAY-2", "PAY-3", "PAY-4", "PAY-5", "PAY-6", at=NOON + timedelta(days=2))
    assert rows(data, "SELECT done_at, after_done_usd FROM ticket_costs WHERE ticket_id = 'PAY-6'") == [(None, None)]
    asked = "SELECT ticket_id, survived_14d, survived_30d FROM ticket_costs ORDER BY ticket_id"
    assert rows(data, asked, NOW) == [
        ("PAY-1", "survived", "survived"),
        ("PAY-2", "survived", "pending"),
        ("PAY-3", "survived", "reverted"),
        ("PAY-4", None, None),
        ("PAY-5", "reverted", "reverted"),
        ("PAY-6", None, None),
    ]
    names = ("durable_14d_usd", "pending_14d_usd", "durable_30d_usd", "pending_30d_usd")
    sums = f"SELECT {', '.join(f'sum({name})' for name in names)} FROM outcome_costs"
    usd = Decimal("0.000001")
    assert rows(data, sums, NOW) == [(3 * usd, 0, usd, usd)]


def test_a_pull_request_counts_once_over_its_tickets_and_arrives_with_a_good_deployment(data: Path) -> None:
    """Not with one that failed (b, g), or was rolled back to an earlier commit (e, by f)."""
    know(
        data,
        *(ticket(number) for number in (1, 2, 3)),
        prs=[merged(1, 10)],
        pulls={"acme/shop!1": ["PAY-1", "PAY-2", "PAY-3"]},
        synced=NOW,
    )
    deployed = [
        ("a", "staging", 11, None),
        ("b", "Production", 12, 12.5),
        ("c", "prod", 13, None),
        ("d", "prod", 14, None),
        ("e", "prod", 12.1, None),
        ("f", "prod", 12.7, None),
        ("g", "prod", 12.2, None),
    ]
    shas = {"a0": "1", "e": "2", "f": "1"}
    with work.alone(data):
        given = [
            work.Deployment(
                deployment_id=name,
                repo="acme/shop",
                environment=environment,
                status="failure" if name == "g" else None,
                sha=shas.get(name),
                finished_at=days(finished),
                failed_at=None if failed is None else days(failed),
            )
            for name, environment, finished, failed in [*deployed, ("a0", "prod", 9, None)]
        ]
        work.spool(data, "deployments", given)
        work.spool(
            data,
            "deployment_prs",
            [work.DeploymentPr(deployment_id=n, pr_id="acme/shop!1") for n, *_ in deployed if n != "f"],
        )
        for table in ("deployments", "deployment_prs"):
            work.store(data, table)
    spend(data, "PAY-1", "PAY-2", "PAY-3")
    found = rows(data, "SELECT pull_request_share, merged_pull_requests, deployed_at FROM ticket_costs")
    assert sum(share for share, _, _ in found) == 1
    assert {(number, at) for _, number, at in found} == {(1, days(13))}


def test_a_task_has_the_outcome_of_the_ticket_that_it_cost_most_for(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over all its days, and also in the report."""
    know(data, ticket(1), ticket(2, resolution="Duplicate"), synced=NOW)
    calls = [
        *(call(NOON - timedelta(days=n), tickets=("PAY-1",), task_id="t", list_cost_nano=2) for n in range(4)),
        call(tickets=("PAY-2",), task_id="t", list_cost_nano=7),
        call(task_id="t", list_cost_nano=20),
        call(task_id="none"),
        call(tickets=("OPS-1",), task_id="unread"),
        call(list_cost_nano=9),
    ]
    segment(data, calls)
    assert rows(data, "SELECT task_id, tickets, outcome, calls FROM task_costs ORDER BY task_id") == [
        ("none", [], None, 1),
        ("t", ["PAY-1", "PAY-2"], "delivered", 6),
        ("unread", ["OPS-1"], None, 1),
    ]
    told = json.loads(report(capsys, "tasks", "--data", data, "--json"))
    assert {row["task_id"]: row["outcome"] for row in told} == {"none": None, "t": "delivered", "unread": None}


# -- as of ---------------------------------------------------------------------------------------------------------


def test_what_was_known_at_any_time_can_be_told_again(data: Path) -> None:
    spend(data, "PAY-1")
    put(data, "tickets", days(2), ticket(1, "in_progress", updated_at=days(1)))
    put(data, "tickets", days(4), ticket(1, updated_at=days(3)))
    put(data, "pull_requests", days(5), pull(1))
    put(data, "pr_tickets", days(5), work.PrTicket(pr_id="acme/shop!1", ticket_id="PAY-1", source="title"))
    put(data, "pull_requests", days(7), merged(1, 6, updated_at=days(6)))
    put(data, "pull_requests", days(18), merged(1, 6, reverted=17, updated_at=days(17)))
    put(data, "pr_tickets", days(20), emptied=("acme/shop!1",))
    told = [(1, None), (3, "in_progress"), (5, "delivered"), (8, "delivered"), (19, "reverted"), (21, "delivered")]
    for _ in range(2):
        assert [(at, outcome(data, as_of=days(at))) for at, _ in told] == told
    assert outcome(data) == "delivered"
    assert rows(data, "SELECT count(*) FROM pr_tickets", days(19)) == [(1,)]
    assert rows(data, "SELECT count(*) FROM pr_tickets") == [(0,)]
    versions = rows(data, "SELECT seen_at, status_category FROM ticket_versions ORDER BY seen_at")
    assert versions == [(days(2), "in_progress"), (days(4), "done")]


def test_a_table_whose_rows_come_and_go_is_told_as_it_was(data: Path) -> None:
    """Of statuses, too, it counts when they were seen, not which time they bear."""
    kept = {
        "ticket_statuses": work.TicketStatus(ticket_id="PAY-1", changed_at=days(1), status="Done"),
        "ticket_prs": work.TicketPr(ticket_id="PAY-1", pr_id="acme/shop!1"),
        "commits": work.Commit(sha="a" * 40, repo="acme/shop", committed_at=days(1)),
    }
    for table, row in kept.items():
        put(data, table, days(3), row)
        if group := work.TABLES[table].part_of:
            put(data, table, days(5), emptied=(getattr(row, group),))
        told = [rows(data, f"SELECT count(*) FROM {table}", at) for at in (days(2), days(4), days(6), None)]
        left = 0 if group else 1
        assert told == [[(0,)], [(1,)], [(left,)], [(left,)]]


def test_calls_are_those_that_were_recorded_by_then(data: Path) -> None:
    segment(data, [call(tickets=("PAY-1",))])
    segment(data, [call(NOON + timedelta(days=2), tickets=("PAY-1",))], at=NOON + timedelta(days=2))
    asked = "SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM booked_calls), sum(calls) FROM ticket_costs"
    assert rows(data, asked, days(1)) == [(1, 1, 1)]
    assert rows(data, asked) == [(2, 2, 2)]


def test_versions_that_a_crash_cut_off_are_written_the_next_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(data, "tickets", days(1), ticket(1, "todo"))
    real = disk.put

    def broken(path: Path) -> Any:
        if path.name == "tickets.parquet":
            raise OSError("cut off")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "put", broken)
        with pytest.raises(OSError, match="cut off"):
            put(data, "tickets", days(2), ticket(1, "in_progress"))
    assert rows(data, "SELECT status_category FROM tickets") == [("todo",)]
    assert put(data, "tickets", days(3), ticket(1, "in_progress")).changed == 1
    assert put(data, "tickets", days(1), ticket(1, "done")).changed == 1  # a clock that stepped back
    found = rows(data, "SELECT status_category, is_gone FROM ticket_versions ORDER BY seen_at")
    assert found == [("todo", False), ("in_progress", False), ("done", False)]
    assert rows(data, "SELECT status_category FROM tickets", days(4)) == [("done",)]
    work.table_file(data, "ticket_versions").unlink()  # as in a folder of an earlier version
    assert put(data, "tickets", days(5), ticket(1, "done")).same == 1
    assert rows(data, "SELECT seen_at FROM ticket_versions") == [(days(5),)]


# -- sums ----------------------------------------------------------------------------------------------------------

TICKETS = st.sampled_from(["PAY-1", "PAY-2", "PAY-3", "OLD-1", "PAY-900", "OPS-1", """O'"],{\\-1"""])
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "tickets": st.lists(TICKETS, max_size=5, unique=True).map(tuple),
            "list_cost_nano": st.one_of(st.none(), st.integers(0, 10**12)),
            "contracted_cost_nano": st.one_of(st.none(), st.integers(0, 10**12)),
            "task_id": st.sampled_from([None, "t1", "t2"]),
            "team_id": st.sampled_from([None, "a", "b"]),
            "purpose": st.sampled_from([None, "ci"]),
        }
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def conserved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("sums") / "data"
    lake.publish(data)
    know(data, ticket(1, aliases=["OLD-1"]), ticket(2, "todo"), ticket(3, resolution="Duplicate"), synced=NOW)
    return data


@settings(max_examples=EXAMPLES, deadline=None)
@given(CALLS)
def test_nothing_is_lost_and_nothing_counts_twice(conserved: Path, drawn: list[dict[str, Any]]) -> None:
    data = conserved
    for path in lake.segments(data):
        path.unlink()
    segment(
        data,
        [call(**each, price_status="exact" if each["list_cost_nano"] is not None else "unpriced") for each in drawn],
    )
    assert verifying.verify(data).wrong == []
    with analytics.open(data) as db:
        split = (
            "SELECT coalesce(names.ticket_id, t.ticket_id) AS id, sum(ticket_cost_usd), sum(ticket_contracted_cost_usd)"
        )
        split += " FROM call_tickets AS t LEFT JOIN ticket_names AS names ON names.name = t.ticket_id GROUP BY id"
        summed = (
            "SELECT ticket_id, sum(list_cost_usd), sum(contracted_cost_usd) FROM task_days WHERE ticket_id IS NOT NULL"
        )
        expected = [(id_, usd or 0, paid or 0) for id_, usd, paid in db.execute(f"{split} ORDER BY id").fetchall()]
        assert db.execute(f"{summed} GROUP BY ticket_id ORDER BY ticket_id").fetchall() == expected


PLANTED: dict[str, tuple[str, Callable[[str], str]]] = {
    "conservation": ("overhead_spend", lambda sql: f"FROM ({sql}) LIMIT 0"),
    "task_sums": ("task_days", lambda sql: f"SELECT * REPLACE (whole_calls + 1 AS whole_calls) FROM ({sql})"),
    "outcome_sums": (
        "ticket_costs", lambda sql: f"SELECT * REPLACE (replace(outcome, 'abandoned', 'gone') AS outcome) FROM ({sql})"
    ),
    "pr_weights": (
        "pr_ticket_weights", lambda sql: f"SELECT * REPLACE (weight - 0.000000001 AS weight) FROM ({sql})"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def planting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Views over a folder in which all is well, to be spoilt one at a time."""
    data = tmp_path_factory.mktemp("planting") / "data"
    lake.publish(data)
    tickets = [ticket(1), ticket(3, resolution="Duplicate")]
    know(data, *tickets, prs=[merged(1)], pulls={"acme/shop!1": ["PAY-1"]}, synced=NOW)
    spend(data, "PAY-1", "PAY-3")
    segment(data, [call(purpose="ci", task_id="ci")], at=NOON + timedelta(minutes=1))
    with duckdb.connect() as db:
        build.create_views(db, data, build.load())
        yield db, data


@pytest.mark.parametrize("name", PLANTED)
def test_each_check_finds_what_is_planted(planting: tuple[duckdb.DuckDBPyConnection, Path], name: str) -> None:
    db, data = planting
    check = build.read_model(build.FOLDER / "checks" / f"{name}.sql").sql
    assert db.execute(check).fetchall() == []
    model, plant = PLANTED[name]
    sql = build.located(build.load()[model].sql, data)
    db.execute(f"CREATE OR REPLACE VIEW {model} AS {plant(sql)}")
    try:
        assert db.execute(check).fetchall() != []
    finally:
        db.execute(f"CREATE OR REPLACE VIEW {model} AS {sql}")


# -- reports, and a larger folder ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("large") / "data"
    size = organisation.Size(calls=SCALE, tickets=400, pull_requests=200, deployments=60, projects=10, days=20)
    organisation.make(data, size)
    return data


def test_a_made_up_organisation_is_sound(large: Path) -> None:
    findings = verifying.verify(large)
    assert findings.wrong == []
    assert findings.calls == SCALE // 20 * 20
    found = {each for (each,) in rows(large, "SELECT DISTINCT outcome FROM ticket_costs")}
    assert {"delivered", "in_progress", "abandoned", "reverted", "unknown_ticket"} <= found


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", *map(str, arguments)])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_the_report_tells_which_tickets_cost_most_and_delivered_nothing(
    judged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analytics.kept.now", lambda: LATER + timedelta(days=1))
    lines = report(
        capsys,
        "tickets",
        "--data",
        judged,
        "--sort",
        "lost",
        "--as-of",
        LATER,
        "--from",
        "2026-11-01",
        "--to",
        "2026-11-30",
    ).splitlines()
    assert lines[0].split()[:5] == ["ticket_id", "type", "outcome", "list_cost_usd", "lost_cost_usd"]
    assert [line.split()[0] for line in lines[1:4]] == ["PAY-10", "PAY-11", "PAY-12"]
    assert lines[-1].split()[:3] == ["total", "0.000021000", "0.000012000"]
    assert len(report(capsys, "tickets", "--data", judged, "--limit", 3).splitlines()) == 5
    assert "PAY" not in report(capsys, "tickets", "--data", judged, "--from", "2026-12-01")


@pytest.mark.parametrize(
    ("what", "by"),
    [("tickets", "project"), ("tickets", "type"), ("tickets", "month"), ("tasks", "outcome"), ("tasks", "team")],
)
def test_groups_sum_to_all(large: Path, capsys: pytest.CaptureFixture[str], what: str, by: str) -> None:
    out = report(capsys, what, "--by", by, "--data", large, "--format", "csv").splitlines()
    names = out[0].split(",")
    assert names[0] == by
    total = sum(Decimal(line.split(",")[names.index("list_cost_usd")]) for line in out[1:])
    condition = "ticket_id IS NOT NULL" if what == "tickets" else "task_id IS NOT NULL"
    assert rows(large, f"SELECT sum(list_cost_usd) FROM task_days WHERE {condition}") == [(total,)]
    groups = [line.split(",")[0] for line in out[1:]]
    assert by not in ("team", "month") or [name for name in groups if name] == sorted(filter(None, groups))


def test_months_are_in_their_order(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = {9: 9000, 10: 1000, 11: 2000}
    made = [(datetime(2026, month, 10, tzinfo=UTC), nano) for month, nano in costs.items()]
    segment(data, [call(at, tickets=("PAY-1",), task_id="t", list_cost_nano=nano) for at, nano in made])
    for what in ("tickets", "tasks"):
        out = report(capsys, what, "--by", "month", "--data", data, "--format", "csv").splitlines()
        assert [line.split(",")[0] for line in out] == ["month", "2026-09", "2026-10", "2026-11"]


def test_a_report_can_be_of_an_earlier_moment(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend(data, "PAY-1")
    put(data, "tickets", days(1), ticket(1, "in_progress", updated_at=days(0)))
    put(data, "tickets", days(3), ticket(1, updated_at=days(2)))
    for moment, expected in (
        ("2026-11-20", ""),
        ("2026-11-21", "in_progress"),
        ("2026-11-23T11:59:59Z", "in_progress"),
        ("2026-11-23", "delivered"),
    ):
        [_, line] = report(capsys, "tickets", "--data", data, "--as-of", moment, "--format", "csv").splitlines()
        assert line.split(",")[2] == expected
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", "tickets", "--data", str(data), "--as-of", "yesterday"])
    assert exit_.value.code == 2
    assert "neither a day nor a moment" in capsys.readouterr().err
    for moment in ("9999-01-01", "9999-01-01T12:00:00"):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["report", "tickets", "--data", str(data), "--as-of", moment])
        assert exit_.value.code == 2
        assert f"{moment} has not come yet" in capsys.readouterr().err
