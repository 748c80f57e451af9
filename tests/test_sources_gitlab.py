"""GitLab as a source: what its payloads become, and how it is read over a real socket."""

import csv
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import sync, work
from analytics.sources import gitlab, http
from analytics.sources.statuses import Change
from gateway.config import Config, GitLabSettings, WorkSettings
from gateway.webhook_queue import WebhookQueue
from gateway.webhooks import Hint
from tests.fakes.trackers import TOKEN, Answer, Asked, FakeGitLab, Read, read, serving, table

WORK_DATA = os.environ.get("OUTLAY_WORK_DATA")
SETTINGS = GitLabSettings()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def person(username: str, **more: Any) -> dict[str, Any]:
    return {"id": len(username), "username": username, "name": username.title(), **more}


def issue(iid: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": 7000 + iid,
        "iid": iid,
        "project_id": 7,
        "title": f"Issue {iid}",
        "state": "opened",
        "created_at": f"2026-10-{iid:02}T10:00:00.000Z",
        "updated_at": f"2026-10-{iid:02}T10:00:00.000Z",
        "closed_at": None,
        "closed_by": None,
        "labels": [],
        "author": person("ann"),
        "assignees": [],
        "issue_type": "issue",
        "weight": None,
        "time_stats": {"time_estimate": 0},
        "moved_to_id": None,
        "merge_requests_count": 0,
        "references": {"full": f"acme/shop#{iid}"},
        "web_url": f"https://gitlab.example/acme/shop/-/issues/{iid}",
        **fields,
    }


def merge_request(iid: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": 9000 + iid,
        "iid": iid,
        "project_id": 7,
        "title": f"Change {iid}",
        "description": "",
        "state": "opened",
        "created_at": f"2026-10-{iid:02}T11:00:00.000Z",
        "updated_at": f"2026-10-{iid:02}T11:00:00.000Z",
        "merged_at": None,
        "closed_at": None,
        "source_branch": f"topic-{iid}",
        "target_branch": "main",
        "author": person("ann"),
        "sha": f"{iid:040x}",
        "merge_commit_sha": None,
        "squash_commit_sha": None,
        "references": {"full": f"acme/shop!{iid}"},
        "web_url": f"https://gitlab.example/acme/shop/-/merge_requests/{iid}",
        **fields,
    }


def deployment(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "status": "success",
        "sha": f"{number:040x}",
        "created_at": f"2026-10-{number:02}T12:00:00.000Z",
        "updated_at": f"2026-10-{number:02}T12:30:00.000Z",
        "environment": {"name": "Production"},
        "deployable": {"finished_at": f"2026-10-{number:02}T12:20:00.000Z"},
        **fields,
    }


def ticket(item: dict[str, Any], changes: list[Change] | None = None) -> Any:
    return gitlab.ticket(item, changes or [], SETTINGS.types, SETTINGS.statuses, SETTINGS.resolutions)


# -- payloads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "category", "resolution"),
    [
        ({}, "todo", None),
        ({"assignees": [person("bob")]}, "in_progress", None),
        ({"merge_requests_count": 1}, "in_progress", None),
        ({"labels": ["workflow::Doing"]}, "in_progress", None),
        ({"state": "closed"}, "done", None),
        ({"state": "closed", "labels": ["WontFix"]}, "done", "won't fix"),
        ({"state": "closed", "labels": ["resolution::invalid"]}, "done", "invalid"),
        ({"state": "closed", "_links": {"closed_as_duplicate_of": "https://…/issues/2"}}, "done", "duplicate"),
        ({"state": "closed", "moved_to_id": 12}, "done", "moved"),
        ({"state": "opened", "labels": ["wontfix"]}, "todo", None),
        ({"state": "dreaming"}, "todo", None),
    ],
)
def test_status_and_resolution_of_an_issue(fields: dict[str, Any], category: str, resolution: str | None) -> None:
    found = ticket(issue(1, **fields))
    assert (found.status_category, found.resolution) == (category, resolution)


def test_an_issue_as_a_ticket() -> None:
    item = issue(
        3,
        title="Pay twice",
        state="closed",
        closed_at="2026-10-09T12:00:00.000+02:00",
        closed_by=person("cid"),
        labels=["type::bug", "p1"],
        assignees=[person("bob"), person("dan")],
        weight=5,
        time_stats={"time_estimate": 7200},
        epic={"url": "/groups/acme/core/-/epics/4"},
    )
    found = ticket(item)
    assert (found.ticket_id, found.source, found.project, found.type) == ("acme/shop#3", "gitlab", "acme/shop", "bug")
    assert (found.title, found.status, found.estimate, found.parent_id) == ("Pay twice", "closed", 5, "acme/core&4")
    assert (found.creator, found.assignee, found.closer) == ("ann", "bob", "cid")
    assert (found.done_at, found.labels) == (at("2026-10-09T10:00:00"), ["type::bug", "p1"])
    assert ticket({**item, "weight": None}).estimate == 2
    assert ticket({**item, "issue_type": "incident"}).type == "incident"


def test_history_is_of_states_and_of_labels_that_say_how_far_it_is() -> None:
    item = issue(1, state="closed", closed_at="2026-10-09T10:00:00Z")
    states = [
        {"created_at": "2026-10-05T10:00:00Z", "state": "closed", "user": person("ann")},
        {"created_at": "2026-10-06T10:00:00Z", "state": "reopened", "user": person("bob")},
        {"created_at": "2026-10-09T10:00:00Z", "state": "closed", "user": person("cid")},
    ]
    labels = [
        {"created_at": "2026-10-03T10:00:00Z", "action": "add", "label": {"name": "status::Doing"}, "user": None},
        {"created_at": "2026-10-02T10:00:00Z", "action": "add", "label": {"name": "p1"}},
        {"created_at": "2026-10-04T10:00:00Z", "action": "remove", "label": {"name": "status::Doing"}},
        {"created_at": "2026-10-05T11:00:00Z", "action": "add", "label": {"name": "Doing"}},
        {"created_at": "2026-10-07T10:00:00Z", "action": "add", "label": None},
    ]
    changes = gitlab.history(item, states, labels, SETTINGS.statuses)
    assert [(change.status, change.category, change.by) for change in changes] == [
        ("opened", "todo", "ann"),
        ("status::Doing", "in_progress", None),
        ("closed", "done", "ann"),
        ("opened", "in_progress", "bob"),
        ("closed", "done", "cid"),
    ]
    found = ticket(item, changes)
    assert (found.started_at, found.reopened_count, found.closer) == (at("2026-10-03T10:00:00"), 1, "cid")


def test_an_issue_of_before_events_was_closed_all_the_same() -> None:
    item = issue(1, state="closed", closed_at="2026-10-09T10:00:00Z", closed_by=person("cid"))
    changes = gitlab.history(item, [], [], {})
    assert [change.category for change in changes] == ["todo", "done"]
    found = ticket(item, changes)
    assert (found.started_at, found.done_at, found.closer) == (None, at("2026-10-09T10:00:00"), "cid")


@pytest.mark.parametrize(
    ("squash", "merge", "merged_at", "expected"),
    [
        ("aa", "bb", "2026-10-09T10:00:00Z", "aa"),
        (None, "bb", "2026-10-09T10:00:00Z", "bb"),
        (None, None, "2026-10-09T10:00:00Z", "head"),
        ("aa", "bb", None, None),
    ],
)
def test_merged_at_alone_decides(squash: str | None, merge: str | None, merged_at: str | None, expected: str) -> None:
    shas = {"squash_commit_sha": squash, "merge_commit_sha": merge, "sha": "head"}
    found = gitlab.pull_request(merge_request(1, state="merged", merged_at=merged_at, **shas), None, None, ())
    assert found.merge_commit == expected
    assert (found.merged_at is None) == (merged_at is None)


def test_approvals_are_by_other_people() -> None:
    approved = [{"user": person(who)} for who in ("ann", "bob", "bob", "project_7_bot_1f", "renovate")]
    found = gitlab.pull_request(merge_request(1), None, {"approved_by": approved}, ["renovate"])
    assert (found.approvals_by_others, found.author_is_bot) == (1, False)
    assert gitlab.pull_request(merge_request(1), None, None, ()).approvals_by_others is None
    made = gitlab.pull_request(merge_request(1, author=person("group_2_bot")), None, None, ())
    assert made.author_is_bot is True


def test_size_leaves_out_what_nobody_wrote() -> None:
    diffs = [
        {"new_path": "a.py", "diff": "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-old\n+new\n+more\n same\n"},
        {"new_path": "package-lock.json", "diff": "@@ -1 +1 @@\n-1\n+2\n"},
        {"new_path": "api.go", "generated_file": True, "diff": "@@ -0,0 +1 @@\n+x\n"},
    ]
    assert gitlab.size(diffs, lambda path: path.endswith("lock.json")) == (2, 1, [d["new_path"] for d in diffs])
    assert gitlab.size([*diffs, {"new_path": "b.py", "too_large": True, "diff": ""}], lambda path: False)[:2] == (
        None,
        None,
    )


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ({"system": True, "body": "moved to acme/till#12"}, "acme/till#12"),
        ({"system": True, "body": "moved to till#12"}, "acme/till#12"),
        ({"system": True, "body": "moved to #12"}, "acme/shop#12"),
        ({"system": False, "body": "moved to acme/till#12"}, None),
        ({"system": True, "body": "moved from acme/till#12"}, None),
        ({"body": None}, None),
        (None, None),
    ],
)
def test_where_an_issue_was_moved_to(note: Any, expected: str | None) -> None:
    assert gitlab.moved_to(note, "acme/shop") == expected


@pytest.mark.parametrize("status", ["created", "running", "success", "failed", "canceled", "blocked", "skipped"])
def test_a_deployment_is_finished_or_failed_by_its_status(status: str) -> None:
    found = gitlab.deployment(deployment(1, status=status), "acme/shop")
    assert (found.finished_at is not None, found.failed_at is not None) == (status == "success", status == "failed")
    assert (found.deployment_id, found.environment) == ("gitlab:1", "Production")


# -- recorded payloads ---------------------------------------------------------------------------------------------


def recorded(name: str) -> list[Any]:
    if WORK_DATA is None:
        pytest.skip("OUTLAY_WORK_DATA does not name the folder of recorded tracker payloads")
    csv.field_size_limit(2**26)
    with (Path(WORK_DATA) / "devlake" / f"{name}.csv").open(encoding="utf-8") as lines:
        return [json.loads(line["data"]) for line in csv.DictReader(lines)]


def test_recorded_issues() -> None:
    tickets = [ticket(item, gitlab.history(item, [], [], {})) for item in recorded("_raw_gitlab_api_issues")]
    assert len({found.ticket_id for found in tickets}) == 16
    for found in tickets:
        assert (found.status_category == "done") == (found.done_at is not None) == (found.status == "closed")


def test_recorded_merge_requests() -> None:
    pulls = [gitlab.pull_request(item, None, None, ()) for item in recorded("_raw_gitlab_api_merge_requests")]
    merged = [pull for pull in pulls if pull.merged_at]
    assert (len(pulls), len(merged)) == (18, 10)
    assert all((pull.merge_commit is not None) == (pull.merged_at is not None) for pull in pulls)


def test_recorded_deployments() -> None:
    found = [gitlab.deployment(item, "acme/shop") for item in recorded("_raw_gitlab_api_deployments")]
    assert len({one.deployment_id for one in found}) == 8
    assert {one.status for one in found if one.finished_at} == {"success"}


# -- over a socket -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGitLab]:
    monkeypatch.setenv("GITLAB_TOKEN", TOKEN)
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    work.prepare(Path("data"))
    tracker = FakeGitLab()
    with serving(tracker):
        yield tracker


def settings(fake: FakeGitLab, *projects: str) -> WorkSettings:
    of = GitLabSettings(projects=list(projects or ["acme/shop"]), token="env:GITLAB_TOKEN", api=f"{fake.url}/api/v4")
    return WorkSettings(gitlab=of, history_days=36_500, wait_minutes=10)


def run(fake: FakeGitLab, *projects: str) -> sync.Outcome:
    """A whole sync."""
    (outcome,) = sync.sync(Path("data"), Config(work=settings(fake, *projects)), ["gitlab"], pause=lambda _: None)
    assert TOKEN not in str(outcome)
    return outcome


def source(fake: FakeGitLab, *projects: str) -> Read:
    """What GitLab gives, without a sync around it."""
    found = read(gitlab.GitLab, settings(fake, *projects))
    assert TOKEN not in str((found.problems, found.failures))
    return found


def whole(fake: FakeGitLab) -> None:
    """A project with some of everything."""
    fake.issues = [issue(n) for n in range(1, 8)]
    fake.issues[1].update(state="closed", closed_at="2026-10-05T10:00:00Z", updated_at="2026-10-05T10:00:00Z")
    fake.details["issues/2/resource_state_events"] = [
        {"created_at": f"2026-10-{day:02}T10:00:00Z", "state": state, "user": person("bob")}
        for day, state in ((3, "closed"), (4, "reopened"), (5, "closed"))
    ]
    fake.merge_requests = [
        merge_request(n, merged_at=f"2026-10-{n + 10}T11:00:00Z", merge_commit_sha=f"{n}f") for n in range(1, 5)
    ]
    fake.merge_requests[0]["description"] = "Closes #1"
    fake.details["merge_requests/1/closes_issues"] = [issue(1), {"id": "PAY-12", "title": "of Jira"}]
    fake.details["merge_requests/1/commits"] = [
        {"id": f"c{n}", "message": f"Part {n}\n\nPAY-3", "committed_date": "2026-10-02T10:00:00Z", "author_name": "Ann"}
        for n in range(5)
    ]
    fake.details["merge_requests/1/diffs"] = [
        {"new_path": path, "diff": "@@ -1 +1 @@\n-1\n+2\n"} for path in ("a.py", "b.py", "c.py", "gen/x.py", "go.sum")
    ]
    fake.details["attributes"] = "gen/** linguist-generated\n"
    fake.details["merge_requests/1/approvals"] = {"approved_by": [{"user": person("bob")}]}
    fake.deployments = [deployment(n) for n in range(1, 6)]
    fake.deployments[2]["environment"] = {"name": "staging"}
    fake.deployments[3]["status"] = "failed"
    fake.details["deployments/1/merge_requests"] = [merge_request(1), merge_request(2)]


def test_all_pages_of_everything(fake: FakeGitLab) -> None:
    whole(fake)
    found = source(fake)
    assert (found.failures, found.problems) == ([], [])
    assert [(row.ticket_id, row.reopened_count) for row in found.rows["tickets"]] == [
        (f"acme/shop#{n}", 1 if n == 2 else 0) for n in range(1, 8)
    ]
    assert [row.status for row in found.rows["ticket_statuses"] if row.ticket_id == "acme/shop#2"] == [
        *("opened", "closed", "opened", "closed")
    ]
    pull = found.rows["pull_requests"][0]
    assert (pull.pr_id, pull.additions, pull.deletions, len(pull.files)) == ("acme/shop!1", 3, 3, 5)
    assert pull.approvals_by_others == 1
    assert [(link.ticket_id, link.source) for link in found.rows["pr_tickets"]] == [
        ("acme/shop#1", "tracker"),
        ("PAY-12", "tracker"),
        ("acme/shop#1", "body_close"),
        ("PAY-3", "commit"),
    ]
    assert [(row.sha, row.message_subject, row.tickets) for row in found.rows["commits"]] == [
        (f"c{n}", f"Part {n}", ["PAY-3"]) for n in range(5)
    ]
    assert [(row.deployment_id, row.status) for row in found.rows["deployments"]] == [
        ("gitlab:5", "success"),
        ("gitlab:4", "failed"),
        ("gitlab:2", "success"),
        ("gitlab:1", "success"),
    ]
    assert found.ids("deployment_prs") == ["gitlab:1", "gitlab:1"]


def test_more_rows_than_are_counted_and_no_links_between_pages(fake: FakeGitLab) -> None:
    fake.issues, fake.total_max, fake.has_links = [issue(n) for n in range(1, 12)], 5, False
    assert len(source(fake).ids()) == 11


def test_what_changes_while_pages_are_read_is_not_lost(fake: FakeGitLab) -> None:
    """The newest deployments come first: one that changes moves to the front, and pushes the others on."""
    fake.deployments = [deployment(n) for n in range(1, 8)]
    before = fake.answer

    def answer(asked: Asked) -> Answer:
        found = before(asked)
        if asked.path.endswith("/deployments") and "page" not in asked.query:
            fake.deployments[1]["updated_at"] = datetime.now(UTC).isoformat()
        return found

    fake.answer = answer  # type: ignore[method-assign]
    assert {*source(fake).ids("deployments"), "gitlab:2"} == {f"gitlab:{n}" for n in range(1, 8)}
    assert source(fake).ids("deployments") == [f"gitlab:{n}" for n in range(1, 8)]


def test_limits_and_failures_that_pass(fake: FakeGitLab) -> None:
    whole(fake)
    fake.failures.append(("/issues$", Answer(429, {}, {"Retry-After": "7"})))
    fake.failures.append(("/issues$", Answer(503, b"<html>")))
    fake.failures.append(("commits$", Answer(500, {})))
    found = source(fake)
    assert (found.failures, len(found.ids()), len(found.waits), found.waits[0]) == ([], 7, 3, 7)


def test_a_revoked_token(fake: FakeGitLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", "glpat-of-before")
    found = source(fake)
    assert found.failures == [
        "GitLab (127.0.0.1) does not take the token of [work.gitlab] token: it may have ended, or been revoked"
    ]


def test_half_broken_items_are_told_and_left_out(fake: FakeGitLab) -> None:
    whole(fake)
    fake.issues[0]["references"] = None
    fake.issues[2].update(labels=None, time_stats="none", author=7, created_at="yesterday", assignees={"a": 1})
    fake.merge_requests[1]["iid"] = None
    fake.deployments[0]["id"] = "?"
    found = source(fake)
    assert found.failures == []
    assert [line.partition(" is left out")[0] for line in found.problems] == [
        *("issue 1", "merge request None", "deployment ?")
    ]
    assert found.ids() == [f"acme/shop#{n}" for n in range(2, 8)]
    (odd,) = (row for row in found.rows["tickets"] if row.ticket_id == "acme/shop#3")
    assert (odd.creator, odd.created_at, odd.labels) == (None, None, [])


@pytest.mark.parametrize(("broken", "left"), [(1, 4), (2, 3), (3, 0)])
def test_some_items_that_gitlab_cannot_show_stop_no_others(fake: FakeGitLab, broken: int, left: int) -> None:
    fake.issues, fake.page_size = [issue(n) for n in range(1, 6)], 10
    for number in range(2, 2 + broken):
        fake.failures.extend([(f"issues/{number}/resource_state_events", Answer(500, {}))] * http.TRIES)
    found = source(fake)
    assert len(found.ids()) == left
    assert len(found.problems) == (broken if left else 0)
    assert all("is left out: GitLab (127.0.0.1) answers 500 to " in line for line in found.problems)
    assert len(found.failures) == (0 if left else 1)


def test_what_an_edition_does_not_have_is_not_known(fake: FakeGitLab) -> None:
    whole(fake)
    fake.hidden = ("resource_state_events", "approvals", "diffs", "closes_issues", "deployments/1/merge_requests")
    found = source(fake)
    assert found.failures == []
    pull = found.rows["pull_requests"][0]
    assert (pull.additions, pull.deletions, pull.approvals_by_others) == (None, None, None)


def test_a_project_that_is_not_there_stops_no_others(fake: FakeGitLab) -> None:
    whole(fake)
    found = source(fake, "acme/secret", "acme/shop")
    (failure,) = found.failures
    assert "GitLab (127.0.0.1) does not show projects/acme%2Fsecret: it may be gone" in failure
    assert len(found.ids()) == 7


# -- whole syncs ---------------------------------------------------------------------------------------------------


def test_a_second_sync_reads_what_changed_alone(fake: FakeGitLab) -> None:
    whole(fake)
    run(fake)
    now = datetime.now(UTC).isoformat()
    fake.change(fake.issues[4], title="Another title", updated_at=now)
    fake.change(fake.merge_requests[3], title="Another title", updated_at=now)
    fake.asked.clear()
    again = run(fake)
    assert {name: counts[:2] for name, counts in again.tables.items() if any(counts[:2])} == {
        "tickets": (0, 1),
        "pull_requests": (0, 1),
    }
    assert {path.rpartition("projects/7/")[2] for path in fake.paths("events|commits")} == {
        "issues/5/resource_state_events",
        "issues/5/resource_label_events",
        "merge_requests/4/commits",
    }


def test_after_a_limit_that_asks_for_too_much_the_next_sync_goes_on(fake: FakeGitLab) -> None:
    fake.issues = [issue(n) for n in range(1, 12)]
    before = fake.answer

    def answer(asked: Asked) -> Answer:
        is_third = asked.path.endswith("/issues") and asked.query.get("page") == "3"
        return Answer(429, {}, {"Retry-After": "4000"}) if is_third else before(asked)

    fake.answer = answer  # type: ignore[method-assign]
    (failure,) = run(fake).failures
    assert "asks to wait for 4,000 s: try again then" in failure
    assert table("SELECT count(*) FROM tickets") == [(6,)]
    fake.answer = before  # type: ignore[method-assign]
    fake.asked.clear()
    assert run(fake).failures == []
    assert [each.query.get("page") for each in fake.asked if each.path.endswith("/issues")][:2] == ["3", "4"]
    assert table("SELECT count(*), count(DISTINCT ticket_id) FROM tickets") == [(11, 11)]


def test_a_renamed_project(fake: FakeGitLab) -> None:
    whole(fake)
    run(fake)
    fake.path, fake.former = "acme/store", "acme/shop"
    for item in [*fake.issues, *fake.merge_requests]:
        item["references"] = {"full": item["references"]["full"].replace("shop", "store")}
    assert run(fake).failures == []
    assert table("SELECT project, count(*) FROM tickets GROUP BY ALL") == [("acme/store", 7)]
    assert table("SELECT repo FROM pull_requests UNION SELECT repo FROM deployments") == [("acme/store",)]
    assert table("SELECT ticket_id FROM ticket_names WHERE name = 'acme/shop#3'") == [("acme/store#3",)]


def test_moved_and_deleted_issues(fake: FakeGitLab) -> None:
    fake.issues, fake.ahead = [issue(n) for n in range(1, 5)], timedelta(days=-2)
    run(fake)
    fake.ahead = timedelta()
    now = datetime.now(UTC).isoformat()
    fake.issues.append(issue(9, title="Moved here", updated_at=now))
    fake.change(fake.issues[0], state="closed", moved_to_id=7009, updated_at=now)
    fake.details["issues/1/notes"] = [{"system": False, "body": "moved to #2"}, {"system": True, "body": "moved to #9"}]
    del fake.issues[2]
    assert run(fake).failures == []
    assert table("SELECT ticket_id FROM ticket_names WHERE name = 'acme/shop#1'") == [("acme/shop#9",)]
    assert table("SELECT ticket_id, status_category FROM tickets WHERE resolution = 'deleted'") == [
        ("acme/shop#3", "done")
    ]


def test_a_clock_that_goes_wrong_loses_nothing(fake: FakeGitLab) -> None:
    """What counts is GitLab's clock: ours may be days ahead of it."""
    fake.issues, fake.ahead = [issue(1)], timedelta(days=-3)
    run(fake)
    fake.issues.append(issue(2, updated_at=(datetime.now(UTC) - timedelta(days=3)).isoformat()))
    run(fake)
    assert table("SELECT count(*) FROM tickets") == [(2,)]


def test_what_could_not_be_read_once_is_read_the_next_time(fake: FakeGitLab) -> None:
    whole(fake)
    for path in ("merge_requests/2/commits", "issues/3/resource_state_events"):
        fake.failures.extend([(path, Answer(502, {}))] * http.TRIES)
    outcome = run(fake)
    assert (len(outcome.problems), outcome.failures) == (2, [])
    outcome = run(fake)
    assert (outcome.problems, outcome.failures) == ([], [])
    assert len(table("SELECT pr_id FROM pull_requests")) == 4
    assert len(table("SELECT ticket_id FROM tickets")) == 7


def test_an_issue_that_may_not_be_read_is_not_gone(fake: FakeGitLab, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.issues = [issue(1), issue(2)]
    run(fake)
    monkeypatch.setattr(sync, "SWEEP_EVERY", timedelta(days=-1))
    hidden, fake.issues = fake.issues, []
    fake.failures.append(("issues/1$", Answer(403, {})))
    outcome = run(fake)
    assert (len(outcome.problems), outcome.failures) == (1, [])
    assert table("SELECT ticket_id, status FROM tickets ORDER BY ALL") == [
        ("acme/shop#1", "opened"), ("acme/shop#2", "deleted"),
    ]  # fmt: skip
    fake.issues = hidden
    fake.failures.append(("issues/1$", Answer(403, {})))
    WebhookQueue(Path("data")).put(Hint("gitlab", "a", "issue", "ticket", "acme/shop", "acme/shop#1"))
    sync.follow(Path("data"), Config(work=settings(fake)))
    assert table("SELECT status FROM tickets WHERE ticket_id = 'acme/shop#1'") == [("opened",)]
