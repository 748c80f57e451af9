"""GitHub's payloads as rows: as recorded, and which files count as written."""

import csv
import json
import os
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from analytics.sources import github
from analytics.sources.generated import left_out
from gateway.config import WorkSettings
from gateway.ticket_keys import TicketKeys

RECORDED = Path(os.environ.get("OUTLAY_WORK_DATA", "none"))
recorded = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="needs recorded payloads of trackers (OUTLAY_WORK_DATA names their folder)"
)
SETTINGS = WorkSettings()


def of_devlake(name: str) -> list[Any]:
    csv.field_size_limit(sys.maxsize)
    with (RECORDED / "devlake" / f"_raw_github_api_{name}.csv").open(encoding="utf-8", newline="") as lines:
        return [json.loads(row["data"]) for row in csv.DictReader(lines)]


def of_webhook(name: str) -> Any:
    return json.loads((RECORDED / "github-webhooks" / f"{name}.json").read_text(encoding="utf-8"))


@recorded
def test_recorded_issues() -> None:
    listed = of_devlake("issues")
    issues = [issue for issue in listed if not github.is_pull(issue)]
    assert (len(listed), len(issues)) == (42, 26)
    tickets = [github.ticket("panjf2000/ants", issue, SETTINGS) for issue in issues]
    assert Counter(ticket.status_category for ticket in tickets) == {"done": 26}
    assert all(ticket.done_at and ticket.created_at and ticket.updated_at and ticket.creator for ticket in tickets)
    assert {ticket.resolution for ticket in tickets} == {"completed"}


@recorded
def test_recorded_pull_requests() -> None:
    pulls = [
        github.pull_request("panjf2000/ants", pull, None, None, (), left_out()) for pull in of_devlake("pull_requests")
    ]
    assert len(pulls) == 50
    assert sum(pull.merged_at is not None for pull in pulls) == 27
    assert sum(pull.merge_commit is not None for pull in pulls) == 27  # 19 that were closed have one, too
    assert {(pull.additions, pull.approvals_by_others) for pull in pulls} == {(None, None)}


@recorded
def test_recorded_reviews_and_commits() -> None:
    assert github.approvals({"login": "x"}, of_devlake("pull_request_reviews"), ()) == 0
    commits = [github.commit("panjf2000/ants", each, None, TicketKeys()) for each in of_devlake("pull_request_commits")]
    assert len(commits) == 91
    assert all(commit.committed_at and commit.author for commit in commits)


@recorded
def test_recorded_events() -> None:
    issue = of_devlake("issues")[0]
    events = of_devlake("events")
    changes = github.changes_of(issue, events)
    assert changes[0].category == "todo"
    assert [change.at for change in changes] == sorted(change.at for change in changes)


@recorded
def test_recorded_runs() -> None:
    runs = [github.run("panjf2000/ants", run, "production") for run in of_devlake("runs")]
    assert len(runs) == 35
    assert all(run.sha and run.started_at for run in runs)
    assert {run.status for run in runs if run.finished_at} == {"success"}
    assert {run.status for run in runs if run.failed_at} <= {"failure", "timed_out", "startup_failure"}


@recorded
@pytest.mark.parametrize("name", ["deployment_status.gh-pages", "deployment_status.payload"])
def test_recorded_deployments(name: str) -> None:
    event = of_webhook(name)
    made = github.deployment("octokit/webhooks", event["deployment"], [event["deployment_status"]])
    assert made.status == event["deployment_status"]["state"]
    assert (made.finished_at is not None) == (made.status == "success")
    assert made.started_at is not None


@recorded
@pytest.mark.parametrize("name", ["pull_request.closed", "pull_request.closed.with-organization"])
def test_recorded_pull_requests_that_were_closed_have_no_merge(name: str) -> None:
    event = of_webhook(name)
    pull = github.pull_request(event["repository"]["full_name"], event["pull_request"], [], [], (), left_out())
    assert event["pull_request"]["merge_commit_sha"]
    assert (pull.merge_commit, pull.merged_at, pull.closed_at is None) == (None, None, False)


@recorded
@pytest.mark.parametrize("name", ["issues.opened", "issues.reopened", "issues.transferred", "issues.deleted"])
def test_recorded_issues_of_webhooks(name: str) -> None:
    event = of_webhook(name)
    ticket = github.ticket(event["repository"]["full_name"], event["issue"], SETTINGS)
    assert ticket.ticket_id == f"{event['repository']['full_name']}#{event['issue']['number']}"
    assert isinstance(ticket.created_at, datetime)


@pytest.mark.parametrize(
    ("path", "is_it"),
    [
        ("app.py", False),
        ("package-lock.json", True),
        ("web/pnpm-lock.yaml", True),
        ("go.sum", True),
        ("uv.lock", True),
        (".terraform.lock.hcl", True),
        ("dist/app.js", True),
        ("web/dist/deep/app.js", True),
        ("src/distance/app.js", False),
        ("dist", False),
        ("vendor/x.go", True),
        ("vendors/x.go", False),
        ("web/jquery.min.js", True),
        ("admin.js", False),
        ("tests/__snapshots__/a.py", True),
        ("ui/button.snap", True),
        ("api/orders_pb2.py", True),
        ("locked.py", False),
        ("docs/own.svg", True),
        ("schema/v1/a.json", True),
        ("deep/schema/v1/a.json", False),
        ("src/a/b/gen.go", True),
        ("src/gen.go", True),
        ("lib/parser.c", True),
        ("lib/keep.min.js", False),
        ("quoted name", False),
    ],
)
def test_which_files_nobody_wrote(path: str, is_it: bool) -> None:
    attributes = """
        # comment linguist-generated
        src/**/gen.go linguist-generated=true
        lib/*.c text linguist-vendored
        lib/keep.min.js -linguist-generated
        "quoted name" linguist-generated
        app.py linguist-generated=false
        admin.js notlinguist-generated
    """
    assert left_out(["*.svg", "/schema/**/*.json"], attributes)(path) == is_it


@pytest.mark.parametrize(
    ("states", "finished", "failed"),
    [("fs", 2, None), ("sf", 1, 2), ("ff", None, 1), ("fsff", 2, 3), ("s-", 1, None), ("", None, None)],
)
def test_of_a_deployment_that_is_tried_again_the_newest_status_counts(
    states: str, finished: int | None, failed: int | None
) -> None:
    said = {"f": "failure", "s": "success", "-": "inactive"}
    statuses = [
        {"state": said[state], "created_at": f"2026-01-0{day}T00:00:00Z"} for day, state in enumerate(states, start=1)
    ]
    made = github.deployment("acme/shop", {"id": 1}, statuses[::-1])
    assert (made.finished_at and made.finished_at.day, made.failed_at and made.failed_at.day) == (finished, failed)


@pytest.mark.parametrize(
    ("pattern", "path", "is_it"),
    [
        ("*a" * 12 + "*b", "a" * 250 + "c", False),
        ("**/a/" * 30 + "b", "a/" * 120 + "c", False),
        ("**/" + "*a*/" * 40 + "b", "aa/" * 80 + "c", False),
        ("*ab*b", "xabab", True),
        ("**/a/b", "a/a/b", True),
        ("a/**/b/**/c", "a/b/x/b/y/c", True),
        ("a", "a/b/a", True),
        ("?", "/", False),
    ],
)
def test_a_pattern_full_of_stars_is_matched_without_going_back(pattern: str, path: str, is_it: bool) -> None:
    """With backtracking the first ones would not end."""
    assert left_out([], f"{pattern} linguist-generated")(path) == is_it


def test_no_repository_has_more_patterns_than_are_looked_at() -> None:
    long, many = f"{'a' * 256} linguist-generated", "\n".join(f"f{n} linguist-generated" for n in range(501))
    assert not left_out([], long)("a" * 256)
    assert [left_out([], many)(path) for path in ("f499", "f500")] == [True, False]
    assert not left_out([], " " * 2**17 + "\nf0 linguist-generated")("f0")
