"""`outlay import work --format devlake`: DevLake's domain tables."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from analytics import build, work
from analytics.work_cli import import_

SHOP = "https://github.com/acme/shop"
TABLES: dict[str, list[dict[str, str]]] = {
    "issues": [
        {"id": "github:I:1", "url": f"{SHOP}/issues/4", "issue_key": "4", "title": "Pay", "status": "DONE",
         "resolution_date": "2026-01-02 10:00:00.000", "updated_date": "2026-01-03 10:00:00", "story_point": "3"},
        {"id": "jira:J:1", "url": "https://t.example/browse/PAY-7", "issue_key": "PAY-7", "status": "TODO",
         "resolution_date": "2026-01-02 10:00:00", "parent_issue_id": "github:I:1", "story_point": "x"},
        {"id": "linear:L:1", "issue_key": "eng seven", "status": "TODO"},
    ],
    "pull_requests": [
        {"id": "p1", "url": f"{SHOP}/pull/9", "title": "PAY-7: pay", "description": "Fixes #4", "status": "MERGED",
         "merged_date": "2026-01-04 10:00:00", "closed_date": "2026-01-04 10:00:00", "merge_commit_sha": "aaaaaaa1"},
        {"id": "p2", "url": f"{SHOP}/pull/10", "title": 'Revert "PAY-7: pay"', "description": "Reverts acme/shop#9",
         "status": "CLOSED", "merged_date": "2026-01-05 10:00:00", "merge_commit_sha": "bbbbbbb1"},
        {"id": "p3", "url": "https://gitlab.example/acme/a/b/-/merge_requests/3", "title": "Other", "status": "OPEN"},
        {"id": "p4", "url": "nowhere"},
    ],
    "pull_request_issues": [
        {"pull_request_id": "p1", "issue_id": "github:I:1"},
        {"pull_request_id": "p3", "issue_id": "jira:J:1"},
        {"pull_request_id": "p3", "issue_id": "unknown"},
    ],
    "pull_request_commits": [{"pull_request_id": "p1", "commit_sha": "c1"}],
    "commits": [{"sha": "c1", "message": "Pay\n\nTicket: PAY-8", "authored_date": "2026-01-03 09:00:00"}],
    "cicd_deployment_commits": [
        {"id": "d1", "repo_url": SHOP, "result": "SUCCESS", "environment": "PRODUCTION", "commit_sha": "aaaaaaa1",
         "finished_date": "2026-01-04 11:05:00"},
        {"id": "d2", "repo_url": "git@github.com:acme/shop.git", "result": "FAILURE", "environment": "PRODUCTION",
         "finished_date": "2026-01-05 11:05:00"},
        {"id": "d3", "result": "SUCCESS"},
    ],
    "board_issues": [{"board_id": "1", "issue_id": "2"}],
}  # fmt: skip


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    for table, rows in TABLES.items():
        with (folder / f"{table}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def run(data: Path, *arguments: object) -> Result:
    return CliRunner().invoke(
        import_, ["work", "--format", "devlake", *map(str, arguments), "--data", str(data), "--json"]
    )


def stored(data: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        build.create_views(db, data, build.load(build.MODELS / "work"))
        return db.execute(query).fetchall()


def test_an_export_is_imported_and_again_says_nothing_new(data: Path, export: Path) -> None:
    result = run(data, export)
    assert result.exit_code == 0, result.output
    assert {line.split(" rows")[0] for line in result.stderr.splitlines()} == {
        "issues: 1", "pull_requests: 1", "pull_request_issues: 1", "cicd_deployment_commits: 1",
    }  # fmt: skip
    assert stored(data, "SELECT ticket_id, status_category, estimate, parent_id, done_at IS NULL FROM tickets") == [
        ("PAY-7", "todo", None, "acme/shop#4", True),
        ("acme/shop#4", "done", 3.0, None, False),
    ]
    assert stored(data, "SELECT pr_id, merged_at IS NULL, merge_commit FROM pull_requests ORDER BY pr_id") == [
        ("acme/a/b!3", True, None),
        ("acme/shop!10", True, None),
        ("acme/shop!9", False, "aaaaaaa1"),
    ]
    assert {f"{pr} {source} {ticket}" for pr, ticket, source in stored(data, "FROM pr_tickets")} == {
        "acme/shop!9 title PAY-7", "acme/shop!9 body_close acme/shop#4", "acme/shop!9 commit PAY-8",
        "acme/shop!10 title PAY-7", "acme/shop!10 body_mention acme/shop#9", "acme/a/b!3 body_close PAY-7",
    }  # fmt: skip
    assert stored(data, "SELECT deployment_id, environment, status, finished_at IS NULL FROM deployments") == [
        ("d1", "production", "success", False),
        ("d2", "production", "failure", True),
    ]
    assert stored(data, "SELECT sha, tickets, pr_id FROM commits") == [("c1", ["PAY-8"], "acme/shop!9")]
    assert stored(data, "FROM pr_reverts") == [], "what was closed unmerged took nothing back"
    again = json.loads(run(data, export).stdout)
    assert all(table["new"] == table["changed"] == table["gone"] == 0 for table in again["tables"])


def test_parquet_says_the_same(data: Path, export: Path) -> None:
    for path in export.glob("*.csv"):
        duckdb.execute(f"COPY (FROM read_csv('{path}')) TO '{path.with_suffix('.parquet')}'")
        path.unlink()
    assert run(data, export).exit_code == 0
    assert stored(data, "SELECT count(*) FROM pr_tickets") == [(6,)]


@pytest.mark.parametrize("what", ["empty", "file", "two"])
def test_what_is_no_export_is_one_line(data: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / what
    folder.mkdir() if what != "file" else folder.write_text("x")
    result = run(data, folder, *([folder] if what == "two" else []))
    assert result.exit_code in (1, 2)
    assert not work.table_file(data, "tickets").exists()


@pytest.mark.skipif("OUTLAY_WORK_DATA" not in os.environ, reason="OUTLAY_WORK_DATA names no recorded payloads")
def test_recorded_tables(data: Path, tmp_path: Path) -> None:
    export = tmp_path / "recorded"
    export.mkdir()
    for path in (Path(os.environ["OUTLAY_WORK_DATA"]) / "devlake").glob("linker_*.csv"):
        shutil.copy(path, export / path.name.removeprefix("linker_"))
    assert run(data, export).exit_code == 0
    assert stored(data, "SELECT source, ticket_id FROM pr_tickets WHERE pr_id = 'apache/incubator-devlake!7317'") != []
    assert stored(data, "SELECT count(*) FROM tickets") == [(3,)]
    assert stored(data, "SELECT count(*) FROM pull_requests WHERE merged_at IS NOT NULL") == [(1,)]
