"""Jira Cloud as a source: what its payloads become, and how it is read over a real socket."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from analytics import sync, work
from analytics.sources import http, jira
from analytics.sources.statuses import Category
from gateway.config import Config, JiraSettings, WorkSettings
from gateway.tracker import Tracker
from tests.fakes.trackers import TOKEN, USER, Answer, Asked, FakeJira, Read, read, serving, table

WORK_DATA = os.environ.get("OUTLAY_WORK_DATA")
STATUSES = [
    {"id": number, "name": name, "statusCategory": {"key": key}}
    for number, name, key in (
        ("1", "Open", "new"),
        ("3", "In Progress", "indeterminate"),
        ("6", "Done", "done"),
        *((f"10{n}", "Done", "new") for n in range(5)),
        ("20", "发布中", "new"),
    )
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def status(number: str) -> dict[str, Any]:
    return next(each for each in STATUSES if each["id"] == number)


def issue(number: int, state: str = "1", key: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"{10_000 + number}",
        "key": key or f"PAY-{number}",
        "fields": {
            "summary": f"Issue {number}",
            "status": status(state),
            "resolution": None,
            "resolutiondate": None,
            "statuscategorychangedate": f"2026-10-{number:02}T10:00:00.000+0200",
            "issuetype": {"name": "Story", "subtask": False},
            "labels": ["shop"],
            "created": f"2026-10-{number:02}T10:00:00.000+0200",
            "updated": f"2026-10-{number:02}T10:00:30.000+0200",
            "creator": {"accountId": "5e:ann", "displayName": "Ann"},
            "assignee": None,
            "description": "never asked for",
            **fields,
        },
    }


def entry(day: int, *moves: tuple[str, str, str], field: str = "status") -> dict[str, Any]:
    items = [{"field": field, "from": a, "fromString": b, "to": c, "toString": c} for a, b, c in moves]
    return {"created": f"2026-10-{day:02}T12:00:00.000+0000", "author": {"accountId": f"5e:by{day}"}, "items": items}


def move(day: int, before: str, after: str) -> dict[str, Any]:
    made = entry(day, (before, "", after))
    for key, number in (("fromString", before), ("toString", after)):
        made["items"][0][key] = next((each["name"] for each in STATUSES if each["id"] == number), f"old {number}")
    return made


def ticket(item: dict[str, Any], *changelog: dict[str, Any], meant: dict[str, Category] | None = None) -> work.Ticket:
    changes = jira.history(item, changelog, jira.Statuses(STATUSES, meant or {}))
    return jira.ticket(item, changes, jira.former_keys(changelog), ["customfield_7"], "https://acme.example")


RESOLVED = {"resolution": {"name": "完成"}, "resolutiondate": "2026-10-09T10:00:00.000+0800"}


# -- payloads ------------------------------------------------------------------------------------------------------


def test_an_issue_as_a_ticket() -> None:
    item = issue(3, "6", parent={"key": "PAY-1"}, customfield_7=5.0, assignee={"accountId": "5e:bob"}, **RESOLVED)
    found = ticket(item, move(4, "1", "3"), move(5, "3", "6"), move(6, "6", "3"), move(8, "3", "6"))
    assert (found.ticket_id, found.project, found.type, found.parent_id) == ("PAY-3", "PAY", "Story", "PAY-1")
    assert (found.status, found.status_category, found.resolution, found.estimate) == ("Done", "done", "完成", 5)
    assert (found.created_at, found.started_at) == (at("2026-10-03T08:00:00"), at("2026-10-04T12:00:00"))
    assert (found.done_at, found.closer, found.reopened_count) == (at("2026-10-08T12:00:00"), "5e:by8", 1)
    assert (found.creator, found.assignee, found.url) == ("5e:ann", "5e:bob", "https://acme.example/browse/PAY-3")
    assert ticket(issue(4, issuetype={"name": "子任务", "subtask": True})).type == "subtask"


@pytest.mark.parametrize(
    ("state", "fields", "meant", "category", "doubted"),
    [
        ("1", {}, {}, "todo", False),
        ("3", {}, {}, "in_progress", False),
        ("6", {}, {}, "done", False),
        ("103", RESOLVED, {}, "done", True),
        ("103", {}, {}, "todo", False),
        ("103", {"resolution": {"name": "完成"}}, {}, "todo", False),
        ("103", RESOLVED, {"103": "in_progress"}, "in_progress", False),
        ("103", {}, {"done": "done"}, "done", False),
        ("20", {}, {"发布中": "in_progress"}, "in_progress", False),
        ("6", {"status": {"id": "77", "name": "?", "statusCategory": {"key": "undefined"}}}, {}, "in_progress", True),
        ("6", {"status": {"id": "77", "name": "?"}}, {}, "in_progress", True),
        ("6", {"status": None}, {}, "in_progress", True),
    ],
)
def test_category(state: str, fields: dict[str, Any], meant: dict[str, Category], category: str, doubted: bool) -> None:
    found, doubt = jira.category(issue(1, state, **fields), jira.Statuses(STATUSES, meant))
    assert (found, doubt is not None) == (category, doubted)
    assert doubt is None or "needs mapping" in doubt


def test_a_resolved_ticket_is_done_whatever_its_status_is_called() -> None:
    item = issue(1, "103", **RESOLVED)
    without = ticket(item)
    assert (without.status_category, without.done_at) == ("done", at("2026-10-09T02:00:00"))
    moved = ticket(item, move(4, "1", "6"), move(6, "6", "103"))
    assert (moved.done_at, moved.reopened_count) == (at("2026-10-04T12:00:00"), 0)


@pytest.mark.parametrize(
    ("first", "started_day"),
    [("1", 5), ("99", 5), ("3", 3)],
)
def test_a_status_that_is_gone_says_nothing_of_the_start(first: str, started_day: int) -> None:
    """What a ticket was made with is no start of work, unless its site says that it is."""
    found = ticket(issue(3, "6"), move(5, first, "3"), move(7, "3", "6"))
    assert found.started_at is not None
    assert found.started_at.day == started_day


def test_a_change_of_the_workflow_is_in_no_changelog() -> None:
    item = issue(1, "6", statuscategorychangedate="2026-10-07T10:00:00.000+0000")
    found = ticket(item, move(5, "1", "3"))
    assert (found.status_category, found.done_at) == ("done", at("2026-10-07T10:00:00"))


def test_moves_of_anything_else_and_broken_ones_are_no_moves() -> None:
    noise = [
        *(entry(4, ("", "", "x"), field=field) for field in ("RemoteIssueLink", "Sprint", "resolution")),
        {"created": "today", "items": [{"field": "status", "to": "6"}]},
        {"items": None},
        None,
    ]
    changes = jira.history(issue(1), noise, jira.Statuses(STATUSES, {}))
    assert [change.category for change in changes] == ["todo"]


def test_former_keys_are_aliases() -> None:
    found = ticket(issue(3), entry(4, ("", "OLD-9", "MID-1"), ("", "MID-1", "PAY-3"), field="Key"))
    assert found.aliases == ["MID-1", "OLD-9"]


def test_story_points_are_found_by_schema_and_name() -> None:
    fields = [
        {"id": "customfield_1", "name": "Story Points", "schema": {"custom": "com.x:float"}},
        {"id": "customfield_2", "name": "Story point estimate", "schema": {"type": "number", "custom": "jsw-points"}},
        {"id": "customfield_3", "name": "Story Points", "schema": {"type": "string"}},
        {"id": "customfield_4", "name": "Cost", "schema": {"custom": "com.x:float"}},
        {"name": "Story Points", "schema": {"custom": "com.x:float"}},
        None,
    ]
    assert jira.points_fields(fields) == ["customfield_1", "customfield_2"]


# -- recorded payloads ---------------------------------------------------------------------------------------------


def recorded(name: str) -> list[Any]:
    if WORK_DATA is None:
        pytest.skip("OUTLAY_WORK_DATA does not name the folder of recorded tracker payloads")
    csv.field_size_limit(2**26)
    with (Path(WORK_DATA) / "devlake" / f"{name}.csv").open(encoding="utf-8") as lines:
        return [json.loads(line["data"]) for line in csv.DictReader(lines)]


def test_recorded_statuses() -> None:
    statuses = recorded("_raw_jira_api_status")
    known = jira.Statuses(statuses, {})
    assert Counter(known.category(each["id"], each["name"]) for each in statuses) == {
        "todo": 21,
        "in_progress": 21,
        "done": 11,
    }


def test_recorded_issues_are_done_by_their_resolution() -> None:
    statuses = jira.Statuses(recorded("_raw_jira_api_status"), {})
    tickets, doubts = [], set()
    for item in recorded("_raw_jira_api_issues"):
        changelog = (item.get("changelog") or {}).get("histories", [])
        tickets.append(jira.ticket(item, jira.history(item, changelog, statuses), [], [], "https://acme.example"))
        doubts.add(jira.category(item, statuses)[1])
    assert Counter(found.status_category for found in tickets) == {"done": 30, "todo": 3}
    assert Counter(found.resolution for found in tickets) == {"完成": 25, "Won't Do": 5, None: 3}
    assert sum(found.type == "subtask" for found in tickets) == 12
    assert all((found.done_at is not None) == (found.status_category == "done") for found in tickets)
    assert len(doubts - {None}) == 1


def test_recorded_changelogs_have_ten_moves() -> None:
    entries = recorded("_raw_jira_api_issue_changelogs")
    statuses = jira.Statuses(recorded("_raw_jira_api_status"), {})
    moves = [(each["created"], item) for each in entries for item in each["items"] if item["field"] == "status"]
    last = max(moves, key=lambda move: at(move[0]))[1]
    found = jira.history(issue(1, status={"id": last["to"], "name": last["toString"]}), entries, statuses)
    assert (len(moves), len(found), found[-1].status) == (10, 11, last["toString"])


# -- over a socket -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeJira]:
    monkeypatch.setenv("JIRA_TOKEN", TOKEN)
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    work.prepare(Path("data"))
    tracker = FakeJira(statuses=STATUSES)
    with serving(tracker):
        yield tracker


def settings(fake: FakeJira, *projects: str, **more: Any) -> WorkSettings:
    of = JiraSettings(projects=list(projects or ["PAY"]), token="env:JIRA_TOKEN", user=USER, api=fake.url, **more)
    return WorkSettings(jira=of, wait_minutes=10, resolutions={"Wird nicht gemacht": False, "Duplicate": True})


def run(fake: FakeJira, *projects: str) -> sync.Outcome:
    """A whole sync."""
    (outcome,) = sync.sync(Path("data"), Config(work=settings(fake, *projects)), ["jira"], pause=lambda _: None)
    assert TOKEN not in str(outcome)
    return outcome


def source(fake: FakeJira, *projects: str, since: datetime | None = None, **more: Any) -> Read:
    """What Jira gives, without a sync around it."""
    found = read(jira.Jira, settings(fake, *projects, **more), since)
    assert TOKEN not in str((found.problems, found.failures))
    return found


def test_all_pages_of_everything(fake: FakeJira) -> None:
    fake.issues = [issue(n, customfield_7=float(n)) for n in range(1, 9)]
    fake.issues[1]["fields"]["status"] = status("6")
    noise = [entry(3, ("", "", "x"), field="RemoteIssueLink") for _ in range(7)]
    fake.changelogs["10002"] = [*noise, move(4, "1", "3"), move(5, "3", "6")]
    fake.fields = [{"id": "customfield_7", "name": "Story Points", "schema": {"custom": "com.x:float"}}]
    found = source(fake)
    assert (found.failures, found.problems) == ([], [])
    assert [(row.ticket_id, row.estimate) for row in found.rows["tickets"]] == [(f"PAY-{n}", n) for n in range(1, 9)]
    assert (found.rows["tickets"][1].closer, len(found.rows["ticket_statuses"])) == ("5e:by5", 10)
    assert all("description" not in each.body["fields"] for each in fake.asked if each.path.endswith("/jql"))
    assert source(fake, points="customfield_8").rows["tickets"][0].estimate is None


@pytest.mark.parametrize("hours", [-12, 0, 14])
def test_the_time_zone_of_the_user_and_whole_minutes_lose_nothing(fake: FakeJira, hours: int) -> None:
    """The watermark, less a day of overlap, is sent as a local time, whatever zone Jira reads it in."""
    fake.zone = timezone(timedelta(hours=hours))
    watermark = at("2026-10-20T10:00:59")
    fake.issues = [issue(n) for n in (1, 2)]
    fake.change(fake.issues[0]["fields"], updated="2026-10-20T10:01:00.000+0000")
    found = source(fake, since=watermark - sync.OVERLAP)
    assert found.ids() == ["PAY-1"]
    (asked,) = (each.body["jql"] for each in fake.asked if each.path.endswith("/jql"))
    assert 'updated >= "2026-10-19 10:00"' in asked


def test_a_page_token_that_ended_begins_again(fake: FakeJira) -> None:
    fake.issues, before = [issue(n) for n in range(1, 9)], fake.answer
    left = [1]

    def answer(asked: Asked) -> Answer:
        if asked.body and asked.body.get("nextPageToken") and left:
            left.pop()
            fake.tokens.clear()
        return before(asked)

    fake.answer = answer  # type: ignore[method-assign]
    found = source(fake)
    assert (found.failures, len(set(found.ids()))) == ([], 8)


def test_tokens_that_always_end_do_not_go_on_for_ever(fake: FakeJira) -> None:
    fake.issues, before = [issue(n) for n in range(1, 9)], fake.answer

    def answer(asked: Asked) -> Answer:
        if asked.body and asked.body.get("nextPageToken"):
            fake.tokens.clear()
        return before(asked)

    fake.answer = answer  # type: ignore[method-assign]
    (failure,) = source(fake).failures
    assert "does not take a search in PAY" in failure


def test_the_same_page_again_and_again(fake: FakeJira) -> None:
    page = Answer(200, {"issues": [], "nextPageToken": "t", "isLast": False})
    fake.failures.extend([("search", page)] * 3)
    (failure,) = source(fake).failures
    assert "with the same page of PAY again and again" in failure


@pytest.mark.parametrize("how", ["refused", "ignored"])
def test_a_revoked_token(fake: FakeJira, how: str) -> None:
    """Some answers are then those that anybody may see: none."""
    fake.issues, fake.revoked = [issue(1)], how
    (failure,) = source(fake).failures
    assert "may have ended, or been revoked" in failure


def test_limits_and_failures_that_pass(fake: FakeJira) -> None:
    fake.issues = [issue(n) for n in range(1, 5)]
    fake.failures.append(("search", Answer(429, {}, {"Retry-After": "7"})))
    fake.failures.append(("changelog", Answer(503, b"<html>")))
    found = source(fake)
    assert (found.failures, len(found.ids()), found.waits[0]) == ([], 4, 7)


def test_half_broken_items_are_told_and_left_out(fake: FakeJira) -> None:
    fake.issues = [issue(n) for n in range(1, 6)]
    fake.issues[0]["id"] = None
    fake.issues[1]["key"] = "PAY-"
    fake.issues[2]["fields"] = {"labels": 7, "status": "x", "created": 5}
    fake.issues.append(issue(6, issuetype=None, creator="ann", labels=None, summary=None))
    found = source(fake)
    assert found.failures == []
    assert "issue PAY-1 is left out: id is missing" in found.problems
    assert {"PAY-3", "PAY-4", "PAY-5", "PAY-6"} <= set(found.ids())


def test_a_status_that_needs_mapping_is_told_once(fake: FakeJira) -> None:
    fake.issues = [issue(n, "103", **RESOLVED) for n in range(1, 6)]
    found = source(fake)
    (line,) = found.problems
    assert line.startswith('the status "Done" (103) needs mapping: its category is new, and yet tickets with it are')
    assert {row.status_category for row in found.rows["tickets"]} == {"done"}
    told = source(fake, statuses={"103": "done"})
    assert (told.problems, len(told.ids())) == ([], 5)


def test_a_project_that_is_not_there_stops_no_others(fake: FakeJira) -> None:
    fake.issues = [issue(1)]
    found = source(fake, "NONE", "PAY")
    assert (len(found.failures), found.ids()) == (1, ["PAY-1"])
    assert "check [work.jira] projects" in found.failures[0]


# -- whole syncs ---------------------------------------------------------------------------------------------------


def test_moved_deleted_and_changed_issues(fake: FakeJira) -> None:
    fake.issues, fake.ahead = [issue(n) for n in range(1, 6)], timedelta(days=-2)
    fake.issues.append(issue(6, "6", resolution={"name": "WIRD nicht gemacht"}))
    fake.issues.append(issue(7, "6", resolution={"name": "Duplicate"}))
    fake.issues.append(issue(8, "6", resolution={"name": "Won't Do"}))
    assert run(fake).failures == []
    fake.ahead = timedelta()
    now = datetime.now(UTC).isoformat()
    fake.change(fake.issues[0], key="OPS-4")
    fake.changelogs["10001"] = [entry(9, ("", "PAY-1", "OPS-4"), field="Key")]
    fake.change(fake.issues[1]["fields"], summary="Another title", updated=now)
    del fake.issues[2]
    fake.asked.clear()
    assert run(fake).failures == []
    assert table("SELECT ticket_id FROM ticket_names WHERE name = 'PAY-1'") == [("OPS-4",)]
    tracker = Tracker(Path("data"))
    tracker.refresh()  # of OPS nothing is known but what was moved there
    assert [tracker.now.state(key) for key in ("OPS-4", "OPS-2", "PAY-3", "PAY-2")] == [
        *("known", "unchecked", "closed", "known")
    ]
    assert table("SELECT ticket_id FROM tickets WHERE resolution = 'deleted'") == [("PAY-3",)]
    assert table("SELECT ticket_id FROM tickets WHERE title = 'Another title'") == [("PAY-2",)]
    assert fake.paths("changelog") == ["/rest/api/3/issue/10002/changelog", "/rest/api/3/issue/10001/changelog"]
    query = (
        "SELECT ticket_id FROM tickets JOIN undelivered_resolutions AS u ON u.resolution = lower(tickets.resolution)"
    )
    assert table(f"{query} JOIN resolutions ON true GROUP BY ALL ORDER BY ALL") == [("PAY-3",), ("PAY-6",), ("PAY-8",)]


def test_the_next_sync_goes_on_with_a_token_that_has_ended(fake: FakeJira) -> None:
    fake.issues, before = [issue(n) for n in range(1, 9)], fake.answer

    def answer(asked: Asked) -> Answer:
        is_third = len(fake.paths("search")) == 3
        return Answer(429, {}, {"Retry-After": "4000"}) if is_third else before(asked)

    fake.answer = answer  # type: ignore[method-assign]
    assert "try again then" in run(fake).failures[0]
    assert table("SELECT count(*) FROM tickets") == [(6,)]
    fake.answer = before  # type: ignore[method-assign]
    fake.tokens.clear()
    assert run(fake).failures == []
    assert table("SELECT count(*), count(DISTINCT ticket_id) FROM tickets") == [(8, 8)]
