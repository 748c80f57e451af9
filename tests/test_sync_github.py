"""`outlay sync` of GitHub: a server that pages, limits, fails and forgets as GitHub does."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics import build, disk, sync, work
from analytics.sources import github as github_source
from analytics.sources import http
from gateway import webhook_queue
from gateway.config import Config, GitHubSettings, WorkSettings
from gateway.tracker import Tracker
from gateway.webhook_queue import WebhookQueue
from gateway.webhooks import Hint
from tests.fakes import github as fake
from tests.fakes.github import BOT, NOW, TOKEN, Failure, FakeGitHub, ago, fake_github, person

Rows = list[dict[str, Any]]


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    monkeypatch.setenv("TRACKER_TOKEN", TOKEN)
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.001)
    with fake_github() as fake:
        yield fake


@pytest.fixture
def data(tmp_path: Path) -> Path:
    work.prepare(tmp_path)
    return tmp_path


def config(github: FakeGitHub, *repos: str, settings: dict[str, Any] | None = None, **fields: Any) -> Config:
    own = GitHubSettings(repos=[*repos] or ["acme/shop"], token="env:TRACKER_TOKEN", api=github.api, **fields)
    return Config(work=WorkSettings(github=own, **(settings or {})))


def synced(data: Path, config: Config, **options: Any) -> sync.Outcome:
    [outcome] = sync.sync(data, config, ["github"], **options)
    return outcome


def read(data: Path, github: FakeGitHub, *repos: str, **fields: Any) -> sync.Outcome:
    """Once, without trouble."""
    outcome = synced(data, config(github, *repos, **fields))
    assert (outcome.failures, outcome.problems) == ([], [])
    return outcome


def rows(data: Path, table: str) -> Rows:
    path = work.table_file(data, table)
    if not path.exists():
        return []
    with duckdb.connect() as db:
        result = db.execute("SELECT * FROM read_parquet($file) ORDER BY ALL", {"file": build.glob_of(path)})
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def tables(data: Path) -> dict[str, Rows]:
    """All there is, but for when it was read."""
    return {table: rows(data, table) for table in work.TABLES if table != "projects"}


def one(data: Path, table: str, **key: Any) -> dict[str, Any]:
    [found] = [row for row in rows(data, table) if all(row[name] == value for name, value in key.items())]
    return found


def tell(data: Path, kind: Any, thing: str = "", project: str = "acme/shop") -> None:
    """As a webhook does."""
    queue = WebhookQueue(data)
    queue.put(Hint("github", f"{kind} {thing} {project} {len(webhook_queue.waiting(data))}", "e", kind, project, thing))


# -- issues ------------------------------------------------------------------------------------------------------------


def test_issues_become_tickets_and_pull_requests_among_them_do_not(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop", page_size=2)
    shop.issue(
        1, labels=[{"name": "bug"}, "plain"], parent_issue_url="https://api.github.com/repos/acme/epics/issues/9"
    )
    shop.issue(2, type={"name": "Feature"}, assignees=[person("cid")], assignee=person("cid"))
    shop.issue(3, labels=[{"name": "in review"}])
    shop.issue(4, state="closed", state_reason="not_planned", closed_at=ago(days=2), closed_by=person("dan"))
    shop.issue(5, state="closed", closed_at=ago(days=2))
    shop.pull(6)
    read(data, github, statuses={"in review": "in_progress"})
    tickets = {row["ticket_id"]: row for row in rows(data, "tickets")}
    names = ("type", "status", "status_category", "resolution", "assignee", "closer", "parent_id", "reopened_count")
    assert {ticket_id: tuple(row[name] for name in names) for ticket_id, row in tickets.items()} == {
        "acme/shop#1": ("bug", "open", "todo", None, None, None, "acme/epics#9", None),
        "acme/shop#2": ("Feature", "open", "in_progress", None, "cid", None, None, None),
        "acme/shop#3": (None, "in review", "in_progress", None, None, None, None, None),
        "acme/shop#4": (None, "closed", "done", "not_planned", None, "dan", None, None),
        "acme/shop#5": (None, "closed", "done", None, None, None, None, None),
    }
    assert tickets["acme/shop#1"]["labels"] == ["bug", "plain"]
    assert tickets["acme/shop#4"]["done_at"] == NOW - timedelta(days=2)
    assert {(row["source"], row["project"], row["creator"]) for row in tickets.values()} == {
        ("github", "acme/shop", "ann")
    }
    assert [row["pr_id"] for row in rows(data, "pull_requests")] == ["acme/shop!6"]


def test_events_tell_how_an_issue_went(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop", page_size=2)
    shop.issue(1, days=3, created_at=ago(days=10), state="closed", closed_at=ago(days=3))
    days = {"assigned": 9, "labeled": 8.5, "closed": 8, "reopened": 7, "closed again": 3}
    shop.events[1] = [
        {"event": what.split()[0], "actor": person("eve"), "created_at": ago(days=number)}
        for what, number in days.items()
    ]
    shop.issue(2, days=900, state="closed", closed_at=ago(days=900))
    read(data, github)
    ticket = one(data, "tickets", ticket_id="acme/shop#1")
    assert (ticket["started_at"], ticket["reopened_count"], ticket["closer"]) == (NOW - timedelta(days=9), 1, "eve")
    statuses = [(row["changed_at"], row["status_category"], row["changed_by"]) for row in rows(data, "ticket_statuses")]
    assert statuses == [
        (NOW - timedelta(days=10), "todo", "ann"),
        (NOW - timedelta(days=9), "in_progress", "eve"),
        (NOW - timedelta(days=8), "done", "eve"),
        (NOW - timedelta(days=7), "in_progress", "eve"),
        (NOW - timedelta(days=3), "done", "eve"),
    ]
    assert github.asked("issues/2/events") == []  # from before what a first sync looks back to


def test_only_what_changed_is_asked_for_again(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.issue(1, days=0.1, state="closed", closed_at=ago(days=0.1))
    shop.issue(2, days=300)
    shop.pull(3, days=0.1)
    shop.deploy(7, "success", days=0.1)
    read(data, github)
    first, before = tables(data), len(github.requests)
    read(data, github)
    asked = github.requests[before:]
    assert [path.partition("?")[0] for path in asked] == [
        "/repos/acme/shop", *(f"/repos/acme/shop/{each}" for each in ("issues", "pulls", "deployments")),
    ]  # fmt: skip
    since = datetime.fromisoformat(parse_qs(urlsplit(asked[1]).query)["since"][0]).replace(tzinfo=None)
    now = datetime.now(UTC).replace(tzinfo=None)  # NOW is when this file was read
    assert NOW - timedelta(hours=24, minutes=1) <= since <= now - timedelta(hours=24) + timedelta(minutes=1)
    assert tables(data) == first
    shop.issue(2, days=0, title="New title")
    shop.pull(3, days=0, title="PAY-1: another")
    shop.deploy(8, "failure", days=0.05)
    read(data, github)
    assert one(data, "tickets", ticket_id="acme/shop#2")["title"] == "New title"
    assert one(data, "pr_tickets")["ticket_id"] == "PAY-1"
    assert one(data, "deployments", deployment_id="github:8")["status"] == "failure"
    shop.pull(3, days=-0.01)
    read(data, github)
    assert rows(data, "pr_tickets") == []  # it names none any more


def test_full_reads_all_again(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.issue(1, days=100)
    read(data, github)
    shop.issues[1]["title"] = "Changed, and its time did not"
    read(data, github)
    assert one(data, "tickets")["title"] == "Issue 1"
    assert synced(data, config(github), full=True).tables["tickets"].changed == 1


def test_what_moves_between_pages_while_they_are_read_is_not_lost(github: FakeGitHub, data: Path) -> None:
    """An issue of the first page is deleted, so those of the others move up; pull requests are updated, so they move to
    the front."""
    shop = github.add("acme/shop", page_size=2)
    for number in range(1, 8):
        shop.issue(number, days=100 - number)
    for number in range(11, 18):
        shop.pull(number, days=50 - number)

    def move(path: str) -> None:
        if github.asked(r"/issues\?.*page=2") and 1 in shop.issues:
            del shop.issues[1]
        if github.asked(r"/pulls\?.*page=2") and shop.pulls[12]["title"] != "Moved":
            shop.pulls[12] |= {"title": "Moved", "updated_at": ago()}

    github.before = move
    read(data, github)
    read(data, github)
    tickets = {row["ticket_id"]: row["status"] for row in rows(data, "tickets")}
    assert tickets == {f"acme/shop#{n}": "open" for n in range(2, 8)} | {"acme/shop#1": "deleted"}
    assert {row["number"]: row["title"] for row in rows(data, "pull_requests")} == {
        n: "Moved" if n == 12 else f"Pull request {n}" for n in range(11, 18)
    }


def test_issues_that_are_gone(github: FakeGitHub, data: Path) -> None:
    shop, store = github.add("acme/shop", page_size=2), github.add("acme/store")
    for number in (1, 2, 3, 4):
        shop.issue(number)
    read(data, github)
    known = Tracker(data)
    known.refresh()
    assert known.now.state("acme/shop#2") == "known"
    del shop.issues[2], shop.issues[3]
    store.issue(77, days=1, title="Issue 3")
    shop.moved[3] = "/repos/acme/store/issues/77"
    read(data, github)
    assert one(data, "tickets", ticket_id="acme/shop#2")["status"] == "open"  # ids were compared today
    _age(data, "swept")
    read(data, github)
    gone = one(data, "tickets", ticket_id="acme/shop#2")
    assert (gone["status"], gone["status_category"], gone["resolution"], gone["title"]) == (
        "deleted", "done", "deleted", "Issue 2",
    )  # fmt: skip
    assert one(data, "tickets", ticket_id="acme/store#77")["aliases"] == ["acme/shop#3"]
    known.refresh()
    assert (known.now.state("acme/shop#2"), known.now.aliases) == ("closed", {"acme/shop#3": "acme/store#77"})
    before = len(github.requests)
    _age(data, "swept")
    read(data, github, "acme/shop", "acme/store")
    assert github.asked(r"/issues/\d+$")[3:] == []  # each was looked up once, and one led elsewhere
    assert len(github.requests) > before
    assert one(data, "tickets", ticket_id="acme/store#77")["aliases"] == ["acme/shop#3"]  # not lost with an update


def test_a_tracker_that_shows_next_to_nothing_is_not_believed(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    for number in range(1, 31):
        shop.issue(number)
    read(data, github)
    _age(data, "swept")
    issues, shop.issues = shop.issues, {}
    outcome = synced(data, config(github))
    assert outcome.problems == [
        "github: acme/shop issues: 30 of 30 tickets are gone, which is not believed; --full does"
    ]
    assert {row["status"] for row in rows(data, "tickets")} == {"open"}
    synced(data, config(github), full=True)
    assert {row["status"] for row in rows(data, "tickets")} == {"deleted"}
    shop.issues = issues
    synced(data, config(github), full=True)
    assert {row["status"] for row in rows(data, "tickets")} == {"open"}


def test_a_renamed_repository_keeps_its_work(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop", page_size=2)
    for number in (1, 2, 3):
        shop.issue(number, days=number * 30, state="closed", closed_at=ago(days=90))
        shop.pull(10 + number, days=number * 30, title=f"Fixes #{number}")
    shop.deploy(1, "success", days=9)
    read(data, github)
    before = tables(data)
    shop.name, github.renamed["acme/shop"] = "acme/store", shop.id
    outcome = synced(data, config(github))
    said = "github: acme/shop is called acme/store now: write that in [work.github]"
    assert (outcome.failures, outcome.problems) == ([], [said])
    after = tables(data)
    assert {table: len(listed) for table, listed in after.items()} == {
        table: len(listed) for table, listed in before.items()
    }
    assert "acme/shop" not in str([{**row, "aliases": [], "url": ""} for listed in after.values() for row in listed])
    assert one(data, "tickets", ticket_id="acme/store#2")["aliases"] == ["acme/shop#2"]
    assert one(data, "pr_tickets", pr_id="acme/store!12")["ticket_id"] == "acme/store#2"
    read(data, github, "acme/store")
    assert tables(data) == after


def test_the_case_of_a_repository_makes_no_other_one(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.issue(1)
    read(data, github, "Acme/Shop")
    for name in ("acme/Shop", "acme/store"):
        shop.name, github.renamed["Acme/Shop"] = name, shop.id
        outcome = synced(data, config(github, "Acme/Shop"))
        assert (outcome.failures, len(outcome.problems)) == ([], name == "acme/store")
        assert [row["ticket_id"] for row in rows(data, "tickets")] == [f"{name}#1"]
    assert one(data, "tickets")["aliases"] == ["acme/Shop#1", "acme/shop#1"]


def test_a_ticket_that_a_webhook_told_of_has_its_history(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    read(data, github)
    shop.issue(7, days=0.1, state="closed", closed_at=ago(hours=3), assignees=[person("cid")])
    shop.events[7] = [
        {"event": what, "actor": person("cid"), "created_at": ago(hours=hours)}
        for what, hours in (("assigned", 5), ("closed", 3))
    ]
    tell(data, "ticket", "acme/shop#7")
    [outcome] = sync.follow(data, config(github))
    assert (outcome.failures, outcome.problems) == ([], [])
    found = one(data, "tickets")
    assert (found["started_at"], found["reopened_count"]) == (NOW - timedelta(hours=5), 0)
    assert [row["status_category"] for row in rows(data, "ticket_statuses")] == ["todo", "in_progress", "done"]


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("ticket", ["/issues/1", "/issues/1/events"]),
        ("commits", ["/pulls"]),
        ("pull_request", ["/pulls"]),
        ("deployment", ["/deployments"]),
    ],
)
def test_a_webhook_asks_for_what_it_told_of_alone(github: FakeGitHub, data: Path, kind: str, paths: list[str]) -> None:
    for name in ("acme/shop", "acme/api", "acme/web"):
        github.add(name).issue(1, state="closed", closed_at=ago(days=10))
    tell(data, kind, "acme/api#1" if kind == "ticket" else "", "Acme/API")
    [outcome] = sync.follow(data, config(github, "acme/shop", "acme/api", "acme/web"))
    assert outcome.failures == []
    assert [path.partition("?")[0] for path in github.requests] == [f"/repos/acme/api{path}" for path in ["", *paths]]


def test_one_ticket_that_cannot_be_read_blocks_no_other_and_waits(github: FakeGitHub, data: Path) -> None:
    shop, turns = github.add("acme/shop"), sync.Turns()
    for number in (1, 2, 3):
        shop.issue(number)
        tell(data, "ticket", f"acme/shop#{number}")
    github.broken.append(Failure("/issues/1$", 403))
    [outcome] = sync.follow(data, config(github), turns)
    assert (len(outcome.problems), outcome.failures) == (1, [])
    assert [row["ticket_id"] for row in rows(data, "tickets")] == ["acme/shop#2", "acme/shop#3"]
    assert [each.hint.id for each in webhook_queue.waiting(data)] == ["acme/shop#1"]
    assert sync.follow(data, config(github), turns) == []
    github.broken.clear()
    sync.follow(data, config(github))
    assert webhook_queue.waiting(data) == []


def test_when_the_source_fails_what_was_read_is_not_read_again(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    for number in (1, 2, 3):
        shop.issue(number)
        tell(data, "ticket", f"acme/shop#{number}")
    github.broken.append(Failure("/issues/2$", 401))
    sync.follow(data, config(github))
    assert [row["ticket_id"] for row in rows(data, "tickets")] == ["acme/shop#1"]
    assert [each.hint.id for each in webhook_queue.waiting(data)] == ["acme/shop#2", "acme/shop#3"]


@pytest.mark.parametrize("kind", ["ticket", "commits", "deployment"])
def test_what_is_told_of_a_repository_that_cannot_be_read_waits(github: FakeGitHub, data: Path, kind: str) -> None:
    github.add("acme/shop").issue(1)
    github.broken.append(Failure("/repos/acme/shop$", 502))
    tell(data, kind, "acme/shop#1" if kind == "ticket" else "")
    sync.follow(data, config(github))
    assert len(webhook_queue.waiting(data)) == 1


# -- pull requests -----------------------------------------------------------------------------------------------------


def test_a_pull_request_with_all_that_belongs_to_it(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop", page_size=2, attributes="gen/** linguist-generated\n*.map -linguist-generated\n")
    shop.issue(1)
    shop.pull(
        2,
        branch="PAY-7-pay",
        title="Pay",
        body="Closes #1",
        state="closed",
        merged_at=ago(days=10),
        closed_at=ago(days=10),
    )
    paths = ("app.py", "package-lock.json", "web/dist/app.js", "gen/a/b.py", "app.js.map", "docs/own.svg")
    shop.files[2] = [{"filename": path, "additions": 10, "deletions": 1} for path in paths]
    shop.files[2].append({"filename": None, "additions": 1000})
    shop.reviews[2] = [
        {"user": who, "state": state, "submitted_at": ago(days=9, hours=-hour)}
        for hour, (who, state) in enumerate(
            [
                (person("cid"), "APPROVED"), (person("cid"), "COMMENTED"), (person("dan"), "APPROVED"),
                (person("dan"), "CHANGES_REQUESTED"), (person("bob"), "APPROVED"), (BOT, "APPROVED"),
                (None, "APPROVED"),
            ]
        )
    ]  # fmt: skip
    shop.pull(3, title='Revert "Pay"', body="Reverts acme/shop#2", closed_at=ago(days=1), user=BOT)
    read(data, github, settings={"exclude": ["*.svg"]})
    pull = one(data, "pull_requests", number=2)
    assert (pull["additions"], pull["deletions"], pull["files"]) == (20, 2, ["app.py", "app.js.map"])
    assert (pull["approvals_by_others"], pull["author"], pull["author_is_bot"]) == (1, "bob", False)
    assert (pull["head_branch"], pull["base_branch"], pull["merge_commit"]) == ("PAY-7-pay", "main", f"{2:039x}f")
    links = {(row["ticket_id"], row["source"]) for row in rows(data, "pr_tickets") if row["pr_id"] == "acme/shop!2"}
    assert links == {("PAY-7", "branch"), ("acme/shop#1", "body_close")}
    closed = one(data, "pull_requests", number=3)
    assert (closed["merge_commit"], closed["merged_at"], closed["author_is_bot"]) == (None, None, True)
    assert {(row["kind"], row["reference"]) for row in rows(data, "reverts")} == {
        ("pr", "acme/shop!2"), ("title", "Pay"),
    }  # fmt: skip
    assert [(row["sha"], row["pr_id"], row["author"]) for row in rows(data, "commits")] == [
        (f"{number:040x}", f"acme/shop!{number}", "bob") for number in (2, 3)
    ]


@pytest.mark.parametrize("merged_first", [True, False])
@pytest.mark.parametrize("is_apart", [True, False])
def test_a_commit_of_two_pull_requests_is_of_the_merged_one(
    github: FakeGitHub, data: Path, merged_first: bool, is_apart: bool
) -> None:
    shop = github.add("acme/shop")
    kinds: list[dict[str, Any]] = [{"merged_at": ago(days=8), "closed_at": ago(days=8), "state": "closed"}, {}]
    for number, fields in enumerate(kinds if merged_first else kinds[::-1], start=1):
        shop.pull(number, days=9 - number, **fields)
        shop.commits[number] = [shop.commit("a" * 40, "Pay", days=9)]
        if is_apart:
            synced(data, config(github), full=True)
    synced(data, config(github), full=True)
    assert one(data, "commits", sha="a" * 40)["pr_id"] == f"acme/shop!{1 if merged_first else 2}"


def test_tickets_that_are_linked_by_hand(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    for number in (2, 3):
        shop.pull(number)
        shop.linked[number] = ["acme/shop#1", "acme/other#7"]
    read(data, github)
    assert {(row["pr_id"], row["ticket_id"], row["source"]) for row in rows(data, "pr_tickets")} == {
        (f"acme/shop!{number}", ticket, "tracker") for number in (2, 3) for ticket in ("acme/shop#1", "acme/other#7")
    }


@pytest.mark.parametrize("says_how_long", [True, False])
def test_a_limit_of_graphql_is_waited_out(github: FakeGitHub, data: Path, says_how_long: bool) -> None:
    shop = github.add("acme/shop")
    shop.pull(2)
    shop.linked[2] = ["acme/shop#1"]
    fields = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"} if says_how_long else {}
    github.failures.append(Failure("graphql", 200, fields, b'{"errors": [{"type": "RATE_LIMITED"}]}'))
    waits: list[float] = []
    assert synced(data, config(github), pause=waits.append).failures == []
    assert waits == [1.0 if says_how_long else 60.0]
    assert [row["ticket_id"] for row in rows(data, "pr_tickets")] == ["acme/shop#1"]


@pytest.mark.parametrize(
    "failure", [Failure("graphql", 403), Failure("graphql", 200, None, b'{"errors": [{"type": "FORBIDDEN"}]}')]
)
def test_a_token_that_may_not_see_links_is_told_of_once(github: FakeGitHub, data: Path, failure: Failure) -> None:
    shop = github.add("acme/shop")
    for number in (2, 3):
        shop.pull(number, title="PAY-7")
    github.broken.append(failure)
    outcome = synced(data, config(github))
    assert outcome.failures == []
    assert len(outcome.problems) == len(github.asked("graphql")) == 1
    assert "linked to by hand" in outcome.problems[0]
    assert {row["pr_id"] for row in rows(data, "pr_tickets")} == {"acme/shop!2", "acme/shop!3"}


def test_links_that_cannot_be_read_now_are_read_next_time(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.pull(2)
    shop.linked[2] = ["acme/shop#1"]
    github.broken.append(Failure("graphql", 200, None, b'{"errors": [{"type": "INTERNAL"}]}'))
    assert synced(data, config(github)).problems
    github.broken.clear()
    read(data, github)
    assert [row["ticket_id"] for row in rows(data, "pr_tickets")] == ["acme/shop#1"]


def test_closing_words_count_on_the_default_branch_alone(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.pull(2, body="Fixes #1", base={"ref": "release"})
    read(data, github)
    assert one(data, "pr_tickets")["source"] == "body_mention"


def test_a_pull_request_whose_files_cannot_be_read_does_not_stop_the_others(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    for number in (1, 2, 3):
        shop.pull(number, days=number, branch=f"PAY-{number}")
    github.broken.append(Failure("pulls/2/files", 500))
    outcome = synced(data, config(github))
    assert outcome.failures == []
    [problem] = outcome.problems
    assert "answers 500 to repos/acme/shop/pulls/2/files" in problem
    found = {row["number"]: (row["additions"], row["updated_at"] is None) for row in rows(data, "pull_requests")}
    assert found == {1: (1, False), 2: (None, True), 3: (3, False)}
    assert len(rows(data, "pr_tickets")) == 3
    synced(data, config(github))
    github.broken.clear()
    read(data, github)
    assert one(data, "pull_requests", number=2)["additions"] == 2, "the watermark stayed before it"


def test_what_cannot_be_read_for_long_is_given_up(
    github: FakeGitHub, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.add("acme/shop").issue(1, days=9, state="closed", closed_at=ago(days=9))
    github.broken.append(Failure("issues/1/events", 500))
    assert [len(synced(data, config(github)).problems) for _ in range(3)] == [1, 1, 1]
    monkeypatch.setattr(sync, "MISSED_MAX", timedelta(seconds=-1))
    assert [len(synced(data, config(github)).problems) for _ in range(2)] == [1, 0]


def test_when_all_are_broken_it_is_tried_again(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    for number in range(1, 9):
        shop.pull(number, days=number)
    github.broken.append(Failure("pulls/[3-9]/files", 500))
    outcome = synced(data, config(github))
    assert len(outcome.failures) == 1
    github.broken.clear()
    read(data, github)
    assert {row["number"]: row["additions"] for row in rows(data, "pull_requests")} == {n: n for n in range(1, 9)}


# -- deployments -------------------------------------------------------------------------------------------------------


def test_deployments_to_production_and_what_they_carry(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop", page_size=2)
    shop.deploy(1, "success", days=9)
    shop.deploy(2, "in_progress", "failure", days=8)
    shop.deploy(3, "success", days=7, environment="github-pages")
    shop.deploy(4, "queued", "in_progress", "success", "inactive", days=6, environment="Production")
    shop.deploy(5, days=5)
    shop.deploy(6, "success", days=4, sha=f"{4:040x}")
    messages = ["Pay (#12)", "Merge pull request #13 from acme/x", "Odd one", "Pay more (#14)"]
    shop.compared[f"{1:040x}...{4:040x}"] = [shop.commit(f"a{n}", text) for n, text in enumerate(messages)]
    read(data, github)
    found = {
        row["deployment_id"]: (row["status"], row["finished_at"], row["failed_at"]) for row in rows(data, "deployments")
    }
    at = lambda days, hours: NOW - timedelta(days=days, hours=-hours)  # noqa: E731
    assert found == {
        "github:1": ("success", at(9, 1), None),
        "github:2": ("failure", None, at(8, 2)),
        "github:4": ("inactive", at(6, 3), None),
        "github:5": (None, None, None),
        "github:6": ("success", at(4, 1), None),
    }
    carried = [(row["deployment_id"], row["pr_id"]) for row in rows(data, "deployment_prs")]
    assert carried == [("github:4", f"acme/shop!{number}") for number in (12, 13, 14)]  # the redeployed one none


def test_a_deployment_that_ends_later(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.deploy(1, "success", days=20)
    shop.deploy(2, "waiting", days=10)
    read(data, github)
    shop.statuses[2].insert(0, {"state": "success", "created_at": ago(hours=1)})
    shop.deployments[1]["updated_at"] = ago(hours=1)
    read(data, github)
    assert one(data, "deployments", deployment_id="github:2")["finished_at"] == NOW - timedelta(hours=1)


def test_a_deployment_long_after_the_one_before(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.deploy(1, "success", days=60)
    shop.deploy(8, "failure", days=59)
    shop.run(1, days=60)
    shop.run(8, "failure", days=59)
    read(data, github, workflows=["deploy.yml"])
    shop.deploy(9, "success", days=0.1)
    shop.run(9, days=0.2)
    shop.compared[f"{1:040x}...{9:040x}"] = [shop.commit("aa", "Pay (#12)")]
    read(data, github, workflows=["deploy.yml"])
    assert {(row["deployment_id"], row["pr_id"]) for row in rows(data, "deployment_prs")} == {
        ("github:9", "acme/shop!12"), ("github:run:9", "acme/shop!12"),
    }  # fmt: skip


def test_runs_are_asked_for_in_windows_that_github_shows(github: FakeGitHub, data: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(fake, "RUNS_MAX", 4)
    monkeypatch.setattr(github_source, "RUNS_MAX", 4)
    shop = github.add("acme/shop", page_size=2)
    for number in range(1, 20):
        shop.run(number, days=30 - number / 10, conclusion="failure" if number == 3 else "success")
    shop.run(99, None, days=1)
    shop.run(50, days=2)["head_branch"] = "other"
    shop.compared[f"{1:040x}...{2:040x}"] = [shop.commit("aa", "Pay (#12)")]
    settings = {"history_days": 40, "environments": ["live"]}
    read(data, github, workflows=["deploy.yml"], settings=settings)
    found = rows(data, "deployments")
    assert {row["deployment_id"] for row in found} == {f"github:run:{n}" for n in (*range(1, 20), 99)}
    assert {row["environment"] for row in found} == {"live"}
    failed = [row["deployment_id"] for row in found if row["failed_at"]]
    assert failed == ["github:run:3"]
    assert one(data, "deployment_prs")["deployment_id"] == "github:run:2"
    assert [row["status"] for row in found if row["finished_at"] is None] == ["failure", "in_progress"]


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Failure("/issues$", 429, {"Retry-After": "0"}),
        Failure("/issues$", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}),
        Failure("/pulls$", 502),
        Failure("/pulls$", 503, {"Retry-After": "soon"}),
    ],
)
def test_limits_and_failures_that_pass_are_waited_out(github: FakeGitHub, data: Path, failure: Failure) -> None:
    shop = github.add("acme/shop")
    shop.issue(1)
    shop.pull(2)
    github.failures.append(failure)
    waits: list[float] = []
    outcome = synced(data, config(github), pause=waits.append)
    assert (outcome.failures, len(waits), len(rows(data, "tickets"))) == ([], 1, 1)


def test_a_limit_is_waited_for_by_the_clock_of_who_says_it(github: FakeGitHub, data: Path) -> None:
    github.ahead = timedelta(days=3)
    github.add("acme/shop").issue(1)
    reset = int((datetime.now(UTC) + github.ahead).timestamp()) + 600
    github.failures.append(Failure("/issues$", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}))
    waits: list[float] = []
    outcome = synced(data, config(github), pause=waits.append)
    assert outcome.failures == []
    assert 500 < waits[0] <= 601


def test_who_asks_for_too_much_patience_is_read_on_next_time(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop", page_size=1)
    for number in (1, 2, 3):
        shop.issue(number)
    github.before = lambda _: (
        github.failures.append(Failure("/issues", 429, {"Retry-After": "9000"}))
        if len(github.asked(r"/issues\?")) == 2 and not github.failures
        else None
    )
    outcome = synced(data, config(github))
    assert outcome.failures == ["GitHub (127.0.0.1) asks to wait for 9,000 s: try again then"]
    assert len(rows(data, "tickets")) == 1
    github.before = lambda _: None
    github.failures.clear()
    before = len(github.requests)
    read(data, github)
    assert len(rows(data, "tickets")) == 3
    assert "page=2" in next(path for path in github.requests[before:] if "/issues?" in path)


@pytest.mark.parametrize("status", [401, 404, 403])
def test_a_token_that_is_refused_is_one_line_without_it(github: FakeGitHub, data: Path, status: int) -> None:
    github.add("acme/shop")
    github.broken.append(Failure("", status))
    outcome = synced(data, config(github))
    [line] = outcome.failures
    assert "[work.github] token" in line
    assert TOKEN not in line
    assert "\n" not in line
    assert len(github.requests) == 1


def test_another_host_does_not_get_the_token(github: FakeGitHub, data: Path) -> None:
    github.add("acme/shop").issue(1)
    with fake_github() as other:
        other.add("acme/shop").issue(2)
        github.failures.append(Failure("shop$", 301, {"Location": f"{other.api}/repos/acme/shop"}))
        [line] = synced(data, config(github)).failures
        assert ("does not take the token" in line, len(other.requests)) == (True, 1)  # it came without one


def test_one_repository_that_is_gone_does_not_stop_the_other(github: FakeGitHub, data: Path) -> None:
    github.add("acme/store").issue(1)
    outcome = synced(data, config(github, "acme/shop", "acme/store"))
    assert [line.partition(" does not show ")[0] for line in outcome.failures] == [
        "github: acme/shop: GitHub (127.0.0.1)"
    ]
    assert [row["ticket_id"] for row in rows(data, "tickets")] == ["acme/store#1"]


@pytest.mark.parametrize("body", [b"<html>", b"[1", b'{"a": 1}', b"\xff"])
def test_what_does_not_answer_as_github_does(github: FakeGitHub, data: Path, body: bytes) -> None:
    github.add("acme/shop")
    github.broken.append(Failure("/issues$", 200, body=body))
    [line] = synced(data, config(github)).failures
    assert line == "GitHub (127.0.0.1) does not answer as its API does: check [work.github] api"


def test_a_token_that_is_not_there(github: FakeGitHub, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACKER_TOKEN")
    assert synced(data, config(github)).failures == ["[work.github] token: there is nothing in env:TRACKER_TOKEN"]
    monkeypatch.setenv("TRACKER_TOKEN", "two words")
    [line] = synced(data, config(github)).failures
    assert ("blanks" in line, "two words" in line) == (True, False)


def test_half_broken_items_are_left_out_and_the_others_stored(github: FakeGitHub, data: Path) -> None:
    shop = github.add("acme/shop")
    shop.issue(1)["number"] = None
    shop.issue(2, labels=None, user=None, assignees="x", created_at="yesterday", state="frozen", type=7)
    shop.issue(3, title="\ud83d cut", created_at=None, html_url=3)
    shop.issues[4] = None
    shop.pull(5, head=None, base=[], user="x", created_at=12)
    shop.files[5] = [None, {"filename": "a", "additions": "3"}]
    shop.commits[5] += [None, {"sha": 3}]
    shop.reviews[5] = [None, 3]
    shop.deploy(6, "success")["environment"] = None
    shop.deploy(7, "success")["sha"] = None
    shop.statuses[7].append(None)
    outcome = synced(data, config(github))
    assert outcome.failures == []
    assert len(outcome.problems) == 4
    assert [row["ticket_id"] for row in rows(data, "tickets")] == ["acme/shop#2", "acme/shop#3"]
    odd = one(data, "tickets", ticket_id="acme/shop#2")
    assert (odd["status"], odd["status_category"], odd["creator"], odd["created_at"]) == ("frozen", "todo", None, None)
    assert one(data, "pull_requests")["additions"] == 0
    assert one(data, "deployments")["deployment_id"] == "github:7"


def test_a_clock_that_is_wrong_loses_nothing(github: FakeGitHub, data: Path) -> None:
    """Theirs is five days behind ours: what changes after a read is before our time."""
    github.ahead = timedelta(days=-5)
    shop = github.add("acme/shop")
    shop.issue(1, days=6)
    read(data, github)
    shop.issue(2, days=4.99)
    shop.pull(3, days=4.99)
    read(data, github)
    assert (len(rows(data, "tickets")), len(rows(data, "pull_requests"))) == (2, 1)


# -- stopped -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Whatever ends a process."""


def organisation(github: FakeGitHub) -> None:
    shop = github.add("acme/shop", page_size=2)
    for number in range(1, 4):
        shop.issue(number, days=number, state="closed", closed_at=ago(days=number))
        shop.events[number] = [{"event": "closed", "actor": person("eve"), "created_at": ago(days=number)}]
    for number in (11, 12, 13):
        shop.pull(number, days=number, title=f"Fixes #{number - 10}")
    for number in (1, 2):
        shop.deploy(number, "success", days=5 - number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeGitHub, dict[str, Rows]]]:
    """A GitHub, and what a sync without trouble reads of it."""
    data = tmp_path_factory.mktemp("whole")
    work.prepare(data)
    with pytest.MonkeyPatch.context() as patch, fake_github() as github:
        patch.setenv("TRACKER_TOKEN", TOKEN)
        organisation(github)
        read(data, github)
        yield github, tables(data)


@settings(max_examples=int(os.environ.get("OUTLAY_SYNC_EXAMPLES", "3")), deadline=None)
@given(kills=st.lists(st.tuples(st.sampled_from(["request", "store", "put", "told"]), st.integers(1, 20)), max_size=3))
def test_any_sequence_of_kills_gives_the_same_tables(whole: Any, kills: list[tuple[str, int]]) -> None:
    github, expected = whole
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        work.prepare(data)
        patch.setenv("TRACKER_TOKEN", TOKEN)
        patch.setattr(sync, "ROWS_MAX", 3)
        for what, count in kills:
            with pytest.MonkeyPatch.context() as killing, contextlib.suppress(Killed):
                synced(data, config(github), told=_killing(killing, what, count))
        read(data, github)
        assert tables(data) == expected


def _killing(patch: pytest.MonkeyPatch, what: str, count: int) -> Callable[[Any], object]:
    """Whatever is called for the so-many-th time is the last thing that happens."""
    left = [count]

    def tick(*_: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise Killed

    send, store, put = http.send, work.store, disk.put

    def killing(does: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            tick()
            return does(*args, **options)

        return run

    if what == "request":
        patch.setattr(http, "send", killing(send))
    elif what == "store":
        patch.setattr(work, "store", killing(store))
    elif what == "put":
        patch.setattr(disk, "put", killing(put))
    return tick if what == "told" else lambda _: None


def _age(data: Path, name: str) -> None:
    """As if it had been two days ago."""
    state = msgspec.json.decode(sync.state_file(data).read_bytes())
    for parts in state.values():
        for mark in parts.values():
            if mark[name]:
                mark[name] = (datetime.fromisoformat(mark[name]) - timedelta(days=2)).isoformat()
    sync.state_file(data).write_bytes(msgspec.json.encode(state))
