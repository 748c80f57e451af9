"""Linear as a source: what its payloads become, and how it is read over a real socket."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import sync, work
from analytics.sources import http, linear
from gateway.config import Config, LinearSettings, WorkSettings
from gateway.webhook_queue import WebhookQueue
from gateway.webhooks import Hint
from tests.fakes.trackers import LINEAR_TOKEN, Answer, Asked, FakeLinear, Read, read, serving, table

TYPES = ("triage", "backlog", "unstarted", "started", "completed", "canceled", "duplicate", "dreaming")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def state(kind: str) -> dict[str, Any]:
    return {"name": kind.title(), "type": kind, "color": "#fff"}


def issue(number: int, kind: str = "backlog", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"uuid-{number}",
        "identifier": f"ENG-{number}",
        "previousIdentifiers": [],
        "title": f"Issue {number}",
        "url": f"https://linear.app/acme/issue/ENG-{number}/issue",
        "estimate": None,
        "trashed": None,
        "archivedAt": None,
        "createdAt": f"2026-10-{number:02}T10:00:00.000Z",
        "updatedAt": f"2026-10-{number:02}T10:00:00.000Z",
        "startedAt": None,
        "completedAt": None,
        "canceledAt": None,
        "state": state(kind),
        "parent": None,
        "creator": {"id": "u-ann", "email": "ann@acme.example"},
        "assignee": None,
        "labels": [],
        "attachments": [],
        "history": [],
        **fields,
    }


def move(day: int, before: str | None, after: str | None, by: str | None = "bob") -> dict[str, Any]:
    return {
        "createdAt": f"2026-10-{day:02}T12:00:00.000Z",
        "actor": {"id": f"u-{by}", "email": f"{by}@acme.example"} if by else None,
        "fromState": state(before) if before else None,
        "toState": state(after) if after else None,
    }


def ticket(item: dict[str, Any]) -> work.Ticket:
    whole = {**item, "labels": {"nodes": item["labels"]}}
    return linear.ticket(whole, linear.history(item, item["history"]), LinearSettings().types)


# -- payloads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "category", "resolution"),
    [
        ("triage", "todo", None),
        ("backlog", "todo", None),
        ("unstarted", "todo", None),
        ("started", "in_progress", None),
        ("completed", "done", None),
        ("canceled", "done", "canceled"),
        ("duplicate", "done", "duplicate"),
        ("dreaming", "in_progress", None),
    ],
)
def test_status_and_resolution(kind: str, category: str, resolution: str | None) -> None:
    found = ticket(issue(1, kind))
    assert (found.status, found.status_category, found.resolution) == (kind.title(), category, resolution)


def test_an_issue_as_a_ticket() -> None:
    item = issue(
        3,
        "completed",
        previousIdentifiers=["OPS-9", "ENG-3"],
        estimate=3,
        labels=[{"name": "Bug"}, {"name": "p1"}],
        assignee={"id": "u-dan", "email": None},
        startedAt="2026-10-04T09:00:00.000Z",
        completedAt="2026-10-08T09:00:00.000Z",
        history=[
            move(8, "started", "completed", by=None),
            move(7, "completed", "started"),
            move(6, "started", "completed"),
            move(5, None, None),
            move(4, "backlog", "started"),
        ],
    )
    found = ticket(item)
    assert (found.ticket_id, found.project, found.type, found.aliases) == ("ENG-3", "ENG", "bug", ["OPS-9"])
    assert (found.creator, found.assignee, found.closer) == ("ann@acme.example", "u-dan", None)
    assert (found.started_at, found.done_at) == (at("2026-10-04T09:00:00"), at("2026-10-08T09:00:00"))
    assert (found.reopened_count, found.estimate, found.labels) == (1, 3, ["Bug", "p1"])
    assert ticket({**item, "parent": {"identifier": "ENG-1"}}).type == "subtask"


def test_an_issue_without_moves_was_done_when_linear_says() -> None:
    found = ticket(issue(1, "canceled", canceledAt="2026-10-05T10:00:00Z"))
    assert (found.done_at, found.started_at, found.reopened_count) == (at("2026-10-05T10:00:00"), None, 0)


def test_attachments_that_are_pull_requests() -> None:
    urls = [
        "https://github.com/acme/shop/pull/45",
        "https://github.com/acme/shop/pull/45/files",
        "https://gitlab.example/acme/core/till/-/merge_requests/7#note_1",
        "https://github.com/acme/shop/issues/3",
        "https://acme.slack.com/archives/1",
        None,
    ]
    item = issue(1, attachments={"nodes": [{"url": url} for url in urls]})
    assert [row.pr_id for row in linear.pull_requests(item, "ENG-1")] == ["acme/shop!45", "acme/core/till!7"]


# -- over a socket -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeLinear]:
    monkeypatch.setenv("LINEAR_TOKEN", LINEAR_TOKEN)
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    work.prepare(Path("data"))
    tracker = FakeLinear()
    with serving(tracker):
        yield tracker


def settings(fake: FakeLinear, *teams: str) -> WorkSettings:
    return WorkSettings(
        linear=LinearSettings(teams=list(teams or ["ENG"]), token="env:LINEAR_TOKEN", api=fake.url), wait_minutes=10
    )


def run(fake: FakeLinear) -> sync.Outcome:
    """A whole sync."""
    (outcome,) = sync.sync(Path("data"), Config(work=settings(fake)), ["linear"], pause=lambda _: None)
    assert LINEAR_TOKEN not in str(outcome)
    return outcome


def source(fake: FakeLinear, *teams: str, since: datetime | None = None) -> Read:
    """What Linear gives, without a sync around it."""
    found = read(linear.Linear, settings(fake, *teams), since)
    assert LINEAR_TOKEN not in str((found.problems, found.failures))
    return found


def sizes(fake: FakeLinear) -> list[int]:
    """Of the pages that were asked for."""
    return [each.body["variables"]["first"] for each in fake.asked if "first" in each.body["variables"]]


def test_all_pages_of_everything_also_what_is_archived(fake: FakeLinear) -> None:
    fake.issues = [issue(n, "completed", archivedAt="2026-11-01T10:00:00Z" if n % 2 else None) for n in range(1, 9)]
    fake.issues[0]["history"] = [move(day, "backlog", "started") for day in (9, 8, 7, 6, 5, 4)]
    fake.issues[0]["labels"] = [{"name": f"label {n}"} for n in range(5)]
    fake.issues[0]["attachments"] = [{"url": f"https://github.com/acme/shop/pull/{n}"} for n in range(1, 6)]
    fake.issues.append(issue(20, identifier="OPS-20"))
    fake.issues.append(issue(21, trashed=True))
    found = source(fake)
    assert (found.failures, found.problems) == ([], [])
    assert found.ids() == [f"ENG-{n}" for n in range(1, 9)]
    assert sum(row.ticket_id == "ENG-1" for row in found.rows["ticket_statuses"]) == 7
    assert [len(row.labels) for row in found.rows["tickets"] if row.ticket_id == "ENG-1"] == [5]
    assert len(found.rows["ticket_prs"]) == 5


def test_what_changed_since(fake: FakeLinear) -> None:
    fake.issues = [issue(n) for n in range(1, 9)]
    assert source(fake, since=at("2026-10-06T10:00:00")).ids() == ["ENG-7", "ENG-8"]


@pytest.mark.parametrize("status", [400, 200])
def test_limits_are_waited_for(fake: FakeLinear, status: int) -> None:
    """Linear answers 400, and says in milliseconds when the limit that is used up is back."""
    fake.issues = [issue(1)]
    reset = str(int((datetime.now(UTC) + timedelta(seconds=300)).timestamp() * 1000))
    used_up = {"X-RateLimit-Complexity-Remaining": "0", "X-RateLimit-Complexity-Reset": reset}
    left = {"X-RateLimit-Requests-Remaining": "9", "X-RateLimit-Requests-Reset": str(int(reset) + 10**7)}
    fake.failures.append(("", fake.error(status, "RATELIMITED", "Rate limit exceeded", {**used_up, **left})))
    fake.failures.append(("", fake.error(status, "RATELIMITED", "Rate limit exceeded")))
    found = source(fake)
    assert (found.failures, found.ids()) == ([], ["ENG-1"])
    assert 0 < found.waits[0] <= 300
    assert found.waits[1:] == [linear.LIMITED_SECONDS]


def test_a_limit_that_asks_for_too_much(fake: FakeLinear) -> None:
    fake.issues = [issue(1)]
    fake.failures.extend([("", fake.error(400, "RATELIMITED", "Rate limit exceeded"))] * 20)
    found = source(fake)
    assert found.failures == ["Linear asks to wait for 60 s: try again then"]
    assert len(found.waits) == 10


def test_what_is_too_complex_is_asked_for_in_smaller_pages(fake: FakeLinear) -> None:
    fake.issues, fake.page_size, fake.complexity_max = [issue(n) for n in range(1, 29)], 250, 2000
    found = source(fake)
    assert (found.failures, len(found.ids())) == ([], 28)
    assert sizes(fake) == [50, 25, 12, 12, 12]


def test_what_is_too_complex_for_one_issue(fake: FakeLinear) -> None:
    fake.complexity_max = 1
    (failure,) = source(fake).failures
    assert failure == "Linear does not answer what was asked: the next sync tries again"
    assert sizes(fake)[-1] == 1


@pytest.mark.parametrize("status", [401, 400, 200])
def test_a_revoked_token(fake: FakeLinear, status: int) -> None:
    fake.failures.append(("", fake.error(status, "AUTHENTICATION_ERROR", f"not {LINEAR_TOKEN}")))
    (failure,) = source(fake).failures
    assert "does not take the token of [work.linear] token: it may have ended, or been revoked" in failure


def test_failures_that_pass(fake: FakeLinear) -> None:
    fake.issues = [issue(1)]
    fake.failures.append(("", Answer(503, b"<html>")))
    fake.failures.append(("", Answer(429, {}, {"Retry-After": "7"})))
    found = source(fake)
    assert (found.failures, found.ids(), found.waits[-1]) == ([], ["ENG-1"], 7)


def test_half_broken_items_are_told_and_left_out(fake: FakeLinear) -> None:
    fake.issues = [issue(n) for n in range(1, 5)]
    fake.issues[0]["state"] = None
    fake.issues[1].update(labels=None, attachments=7, creator="ann", createdAt="yesterday", previousIdentifiers=[None])
    fake.issues[2]["title"] = ["no text"]
    before = fake.answer

    def answer(asked: Asked) -> Answer:
        found = before(asked)
        found.body["data"]["issues"]["nodes"].append(None)
        return found

    fake.answer = answer  # type: ignore[method-assign]
    found = source(fake)
    assert (found.failures, found.ids()) == ([], [f"ENG-{n}" for n in range(1, 5)])
    assert [line.partition(":")[0] for line in found.problems] == ["issue None is left out"] * len(fake.asked)


def test_what_is_no_answer_of_linear(fake: FakeLinear) -> None:
    fake.failures.append(("", Answer(200, b"<html>")))
    assert source(fake).failures == ["Linear (127.0.0.1) does not answer as its API does: check [work.linear] api"]


# -- whole syncs ---------------------------------------------------------------------------------------------------


def test_moved_deleted_and_linked_issues(fake: FakeLinear) -> None:
    link = [{"url": "https://github.com/acme/shop/pull/45"}]
    fake.issues, fake.ahead = [issue(n, attachments=link) for n in range(1, 6)], timedelta(days=-2)
    assert run(fake).failures == []
    assert table("SELECT DISTINCT pr_id, source FROM pr_tickets") == [("acme/shop!45", "tracker")]
    fake.ahead = timedelta()
    fake.change(fake.issues[0], identifier="OPS-4", previousIdentifiers=["ENG-1"])
    fake.change(fake.issues[1], trashed=True, archivedAt="2026-11-01T10:00:00Z")
    del fake.issues[2]
    fake.change(fake.issues[2], attachments=[], updatedAt=datetime.now(UTC).isoformat())
    assert run(fake).failures == []
    assert table("SELECT ticket_id FROM ticket_names WHERE name = 'ENG-1'") == [("OPS-4",)]
    assert table("SELECT ticket_id FROM tickets WHERE resolution = 'deleted' ORDER BY ALL") == [("ENG-2",), ("ENG-3",)]
    assert ("ENG-4",) not in table("SELECT ticket_id FROM pr_tickets")
    assert ("ENG-5",) in table("SELECT ticket_id FROM pr_tickets")


def test_a_ticket_that_a_webhook_told_of_has_its_history_and_pull_requests(fake: FakeLinear) -> None:
    run(fake)
    fake.issues = [issue(1, history=[move(5, "backlog", "started")])]
    fake.issues[0]["attachments"] = [{"url": "https://github.com/acme/shop/pull/3"}]
    WebhookQueue(Path("data")).put(Hint("linear", "a", "Issue", "ticket", "ENG", "ENG-1"))
    (outcome,) = sync.follow(Path("data"), Config(work=settings(fake)))
    assert (outcome.failures, outcome.problems) == ([], [])
    assert table("SELECT pr_id FROM ticket_prs") == [("acme/shop!3",)]
    assert len(table("SELECT * FROM ticket_statuses")) == 2
