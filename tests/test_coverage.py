"""`outlay report coverage`: each dollar in one line of each section that it belongs to, and nobody by name."""

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

import analytics
from analytics import build, lake, work
from analytics.cli import QUERIES, SECTIONS
from gateway import cli
from tests.journals import NOON, segment
from tests.test_attributing import later, named, settle
from tests.trackers import know, pull

Run = Callable[..., tuple[int, str, str]]


def fill(data: Path) -> None:
    """With calls of all kinds. What late evidence says is settled."""
    pay: dict[str, Any] = {"team_id": "pay", "user_id": "ada", "key_id": "k-1", "client": "claude-code"}
    ops: dict[str, Any] = {"team_id": "ops", "user_id": "bob", "key_id": "k-2"}
    know(data, "PAY-1", prs=[pull(46)], pulls={"acme/shop!46": ["PAY-1"]})
    segment(
        data,
        [
            later(0, **pay, **named("PAY-1"), list_cost_nano=3_000),
            later(1, **pay, **named("PAY-1", "PAY-2", source="branch", ticket_candidates=("branch:acme/shop#45",))),
            later(2, **pay, **named("PAY-3", source="claim", state="closed"), ticket_candidates=("header:PAY-1",)),
            later(3, **pay, list_cost_nano=500, task_id="a", task_source="none"),
            later(4, **pay, list_cost_nano=100, task_id="b", task_source="none"),
            later(5, **pay, repo="acme/shop", branch="fix", list_cost_nano=2_000),  # late evidence knows better
            later(6, **ops, price_status="unpriced", list_cost_nano=None),
            later(7, **ops, client="somebodys-sdk", list_cost_nano=7, ticket_candidates=("header:(malformed)",)),
            later(30, **ops, purpose="ci", list_cost_nano=900),
        ],
    )
    assert settle(data) == {"branch": 1, "state": 1}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tests that do not change it."""
    data = tmp_path_factory.mktemp("coverage") / "data"
    lake.publish(data)
    fill(data)
    return data


def running(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["report", "coverage", *arguments, "--data", str(data)])
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


@pytest.fixture
def run(filled: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return running(filled, capsys)


def sections(run: Run, *options: str) -> dict[str, list[dict[str, Any]]]:
    code, out, _ = run("--json", *options)
    assert code == 0
    found: dict[str, list[dict[str, Any]]] = json.loads(out)
    assert list(found) == list(SECTIONS)
    return found


def nano(row: dict[str, Any]) -> int:
    return round(row["list_cost_usd"] * 1e9)


def test_spend_is_shown_by_source_and_state_of_its_tickets(run: Run) -> None:
    rows = sections(run)["sources"]
    assert [(r["ticket_source"], r["ticket_state"], r["calls"], r["unpriced_calls"], nano(r)) for r in rows] == [
        ("claim", "closed", 1, 0, 1_000),
        ("header", "known", 1, 0, 3_000),
        ("branch", "known", 1, 0, 2_000),
        ("branch", "unchecked", 1, 0, 1_000),
        ("none", None, 5, 1, 1_507),
    ]
    assert [r["percent"] for r in rows] == [11.8, 35.3, 23.5, 11.8, 17.7]


def test_conflicts_are_what_names_other_tickets_and_no_number_of_a_branch(run: Run) -> None:
    assert [(r["ticket_source"], r["other_source"], r["calls"], nano(r)) for r in sections(run)["conflicts"]] == [
        ("claim", "header", 1, 1_000)
    ]


def test_what_was_no_evidence_is_shown_with_its_reason(run: Run) -> None:
    assert [(r["source"], r["reason"], r["calls"], r["untagged_calls"], nano(r)) for r in sections(run)["ignored"]] == [
        ("header", "malformed", 1, 1, 7)
    ]


def test_what_is_for_nothing_comes_with_advice_by_client(run: Run) -> None:
    rows = sections(run)["untagged"]
    assert [(r["team_id"], r["client"], r["calls"], r["unpriced_calls"], r["tasks"], nano(r)) for r in rows] == [
        ("pay", "claude-code", 2, 0, 2, 600),
        ("ops", "somebodys-sdk", 1, 0, 0, 7),
        ("ops", None, 1, 1, 0, 0),
    ]
    assert ["outlay run" in rows[0]["advice"], "/t/PAY-123" in rows[1]["advice"]] == [True, True]
    assert "--purpose" in rows[2]["advice"]


def test_what_late_evidence_moved_is_shown_by_rule(run: Run) -> None:
    assert [(r["rule"], r["calls"], r["corrections"], r["moved_usd"]) for r in sections(run)["late"]] == [
        ("state", 1, 1, 3e-6),
        ("branch", 1, 1, 2e-6),
    ]


def test_statuses_of_which_nobody_can_tell_what_they_mean_are_shown(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(data)
    told = [
        ("已完成", "todo", "jira"),
        ("已完成", "done", "jira"),
        ("Review", None, "linear"),
        ("Done", "done", "jira"),
        ("Parked", None, "jira"),
        ("Lost", None, "jira"),
    ]
    told += [("open", "todo", "github"), ("open", "in_progress", "github")]
    known: list[Any] = [
        work.Ticket(ticket_id=f"OPS-{number}", project="OPS", status=status, status_category=category, source=source)
        for number, (status, category, source) in enumerate(told, 1)
    ]
    know(data, *known)
    called = [
        named("OPS-4", "OPS-5"),
        *(named(each.ticket_id) for each in known if each.status not in ("Parked", "Lost")),
    ]
    segment(data, [later(9 + n, **each) for n, each in enumerate(called)], at=NOON + timedelta(days=1))
    assert [(r["status"], r["taken_for"], r["tickets"]) for r in sections(running(data, capsys))["statuses"]] == [
        ("已完成", ["done", "todo"], 2),
        ("Parked", ["?"], 1),
        ("Review", ["?"], 1),
    ]


def test_days_and_teams_can_be_chosen(run: Run) -> None:
    def calls(*options: str) -> list[int]:
        found = sections(run, *options)
        return [sum(row["calls"] for row in found[name]) for name in found if name not in ("statuses", "waste")]

    assert calls() == [9, 1, 1, 4, 2]
    assert calls("--team", "ops") == [3, 0, 1, 2, 0]
    assert calls("--from", "2026-11-21") == [1, 0, 0, 0, 0]
    assert calls("--to", "2026-11-20") == [8, 1, 1, 4, 2]
    assert run("--from", "2026-11-21", "--to", "2026-11-20")[0] == 2


def test_a_table_shows_all_sections_and_a_file_one(run: Run, tmp_path: Path) -> None:
    code, out, errors = run()
    assert code == 0
    assert [line.rstrip(":") for line in out.splitlines() if line.endswith(":")] == [*SECTIONS.values()]
    assert "1 call has no price" in errors
    assert run("--format", "csv")[0] == 2
    rows = list(csv.reader(io.StringIO(run("--format", "csv", "--section", "late")[1])))
    assert rows[2] == ["branch", "1", "1", "0", "0.000002000"]
    out_file = tmp_path / "untagged.parquet"
    assert run("--format", "parquet", "--out", str(out_file), "--section", "untagged")[0] == 0
    assert duckdb.sql(f"SELECT count(*) FROM '{out_file}'").fetchall() == [(3,)]
    assert run("--format", "parquet", "--section", "untagged")[0] == 2
    code, out, _ = run("--json", "--section", "conflicts")
    assert (code, len(json.loads(out))) == (0, 1)


def test_nobody_is_in_it_by_name(run: Run) -> None:
    _, out, _ = run("--json")
    assert not {"ada", "bob", "k-1", "k-2"} & set(out.replace('"', " ").split())
    queries = {name: build.read_model(QUERIES / f"coverage_{name}.sql") for name in SECTIONS}
    for query in (*queries.values(), build.load()["ticket_coverage"], build.load()["attribution_changes"]):
        assert "user_id" not in query.sql
        assert "key_id" not in query.sql


def test_coverage_by_day_sums_to_all_calls(filled: Path) -> None:
    models = build.load()
    models["ticket_coverage"] = build.Model(
        "ticket_coverage", "", {}, f"FROM ({models['ticket_coverage'].sql}) LIMIT 1"
    )
    check = build.load(build.FOLDER / "checks")["coverage_sums"].sql
    with analytics.open(filled) as db:
        assert db.execute(
            "SELECT sum(calls), sum(unpriced_calls), CAST(sum(list_cost_usd) * 1e9 AS BIGINT) FROM ticket_coverage"
        ).fetchone() == (9, 1, 8_507)
        assert db.execute(check).fetchall() == []
    with duckdb.connect() as other:
        build.create_views(other, filled, models)
        assert len(other.execute(check).fetchall()) == 1
