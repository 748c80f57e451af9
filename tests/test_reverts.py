"""Reverted pull requests and shares of tickets: `analytics/models/work/`. Each case has a repository of its own."""

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics import build, lake, work
from analytics.sources import links
from gateway.ticket_keys import TicketKeys
from tests.trackers import hours, pull

KEYS = TicketKeys(["PAY"])
CASES: dict[str, list[work.Row]] = {}


def merged(repo: str, number: int, at: float, **fields: Any) -> work.PullRequest:
    """A pull request that was merged so many hours after the beginning; its commit is named after its number."""
    given: dict[str, Any] = {"title": f"Change {number}", "merge_commit": sha(number), "author": "somebody"}
    return pull(number, repo=repo, merged_at=hours(at), closed_at=hours(at), **given | fields)


def sha(number: int) -> str:
    return f"{number:08x}" * 5


def said(repo: str, reverting: str | int, text: str, at: float | None = None) -> list[work.Row]:
    name = reverting if isinstance(reverting, str) else f"{repo}!{reverting}"
    return list(links.reverts_of(name, repo, text, KEYS, at=None if at is None else hours(at)))


def case(repo: str, *rows: work.Row | list[work.Row]) -> str:
    CASES[repo] = [row for each in rows for row in (each if isinstance(each, list) else [each])]
    return repo


BY_SHA = case(
    "acme/by-sha",
    merged("acme/by-sha", 1, 10),
    merged("acme/by-sha", 2, 20),
    said("acme/by-sha", 2, f'Revert "Change 1"\n\nThis reverts commit {sha(1)}.'),
)
SHORT_SHA = case(
    "acme/short-sha",
    merged("acme/short-sha", 1, 10),
    said("acme/short-sha", "c" * 40, f"Undo\n\nThis reverts commit {sha(1)[:8]}", 20),
)
UNCLEAR_SHA = case(
    "acme/unclear-sha",
    merged("acme/unclear-sha", 1, 10, merge_commit="abcdef0" + "1" * 33),
    merged("acme/unclear-sha", 2, 11, merge_commit="abcdef0" + "2" * 33),
    said("acme/unclear-sha", "c1" * 20, "Undo\n\nThis reverts commit abcdef0", 20),
)
OWN_COMMIT = case(
    "acme/own-commit",
    merged("acme/own-commit", 1, 10),
    work.Commit(sha="d" * 40, repo="acme/own-commit", pr_id="acme/own-commit!1"),
    said("acme/own-commit", "a" * 40, f"Undo\n\nThis reverts commit {'d' * 40}", 20),
)
BY_NUMBER = case(
    "acme/by-number",
    merged("acme/by-number", 1, 10),
    merged("acme/by-number", 2, 20),
    said("acme/by-number", 2, 'Revert "Another"\n\nReverts acme/by-number#1'),
)
BY_TITLE = case(
    "acme/by-title",
    merged("acme/by-title", 1, 5, title="Bump"),
    merged("acme/by-title", 2, 10, title="Bump (#2)"),
    merged("acme/by-title", 3, 30, title="Bump"),
    merged("acme/by-title", 4, 20),
    said("acme/by-title", 4, 'Revert "Bump"'),
)
SUBJECT = case(
    "acme/subject",  # without a forge, from commits alone
    work.Commit(
        sha="d" * 40, repo="acme/subject", pr_id="acme/subject!1", message_subject="Pay (#1)", committed_at=hours(10)
    ),
    said("acme/subject", "b" * 40, 'Revert "Pay"', 20),
)
SUBJECT_OF_KNOWN = case(
    "acme/subject-of-known",
    merged("acme/subject-of-known", 1, 10, title="Payments"),
    pull(2, repo="acme/subject-of-known", title="Never merged"),
    merged("acme/subject-of-known", 3, 20, title="Bump"),
    merged("acme/subject-of-known", 4, 30, title="More payments"),
    *(
        work.Commit(
            sha=letter * 40, repo="acme/subject-of-known", pr_id=f"acme/subject-of-known!{number}",
            message_subject=subject, committed_at=hours(1),
        )
        for letter, number, subject in (("a", 1, "Pay: add (#9)"), ("b", 2, "Pay: try"), ("c", 4, "Bump"))
    ),
    merged("acme/subject-of-known", 5, 40),
    merged("acme/subject-of-known", 6, 50),
    merged("acme/subject-of-known", 7, 60),
    said("acme/subject-of-known", 5, 'Revert "Pay: add"'),
    said("acme/subject-of-known", 6, 'Revert "Pay: try"'),
    said("acme/subject-of-known", 7, 'Revert "Bump"'),
)  # fmt: skip
UNMERGED = case(
    "acme/unmerged",
    merged("acme/unmerged", 1, 10),
    pull(2, repo="acme/unmerged", merge_commit=sha(2)),
    said("acme/unmerged", 2, f'Revert "Change 1"\n\nThis reverts commit {sha(1)}.'),
    work.Commit(sha="c2" * 20, repo="acme/unmerged", pr_id="acme/unmerged!2", committed_at=hours(12)),
    said("acme/unmerged", "c2" * 20, f"Undo\n\nThis reverts commit {sha(1)}.", 12),
    said("acme/unmerged", "e" * 40, f"Undo\n\nThis reverts commit {sha(2)}.", 13),
)
ITSELF = case(
    "acme/itself",
    merged("acme/itself", 1, 10),
    work.Commit(sha="c" * 40, repo="acme/itself", pr_id="acme/itself!1"),
    work.Commit(sha="d" * 40, repo="acme/itself", pr_id="acme/itself!1"),
    said("acme/itself", "d" * 40, f"Undo\n\nThis reverts commit {'c' * 40}.", 9),
)
BEST = case(
    "acme/best",
    merged("acme/best", 1, 10, title="Pay"),
    merged("acme/best", 2, 11, title="Pay"),
    merged("acme/best", 3, 20),
    said("acme/best", 3, f'Revert "Pay (#2)"\n\nThis reverts commit {sha(1)}.'),
)
BOTH = case(
    "acme/both",
    merged("acme/both", 1, 10),
    merged("acme/both", 2, 11),
    work.Commit(sha="f" * 40, repo="acme/both", pr_id="acme/both!2"),
    merged("acme/both", 3, 20),
    said("acme/both", 3, f"Undo\n\nThis reverts commit {sha(1)}.\nThis reverts commit {'f' * 40}."),
)
AGAIN = case(
    "acme/again",
    merged("acme/again", 1, 10, title="Pay"),
    merged("acme/again", 2, 20),
    merged("acme/again", 3, 30),
    said("acme/again", 2, 'Revert "Pay"\n\nReverts acme/again#1'),
    said("acme/again", 3, 'Revert "Revert "Pay""\n\nReverts acme/again#2'),
)
REAPPLIED = case(
    "acme/reapplied",
    merged("acme/reapplied", 1, 10, title="Pay"),
    merged("acme/reapplied", 2, 20),
    merged("acme/reapplied", 3, 30),
    said("acme/reapplied", 2, f"Undo\n\nThis reverts commit {sha(1)}."),
    said("acme/reapplied", 3, 'Reapply "Pay (#1)"'),
)
THRICE = case(
    "acme/thrice",
    merged("acme/thrice", 1, 10),
    *(merged("acme/thrice", number, number * 10) for number in (2, 3, 4)),
    *(said("acme/thrice", n, f"Undo\n\nThis reverts commit {sha(n - 1)}.") for n in (2, 3, 4)),
)
PARTLY = case(
    "acme/partly",
    merged("acme/partly", 1, 10, additions=90, deletions=10),
    merged("acme/partly", 2, 20, additions=10, deletions=20),
    merged("acme/partly", 3, 30, additions=200, deletions=0),
    said("acme/partly", 2, "Undo\n\nReverts acme/partly#1"),
    merged("acme/partly", 4, 10, additions=50, deletions=0),
    said("acme/partly", 3, "Undo\n\nReverts acme/partly#4"),
)
ALIKE = case(
    "acme/alike",
    merged("acme/alike", 1, 10, files=["a", "b"], additions=100, deletions=0),
    merged("acme/alike", 2, 20, files=["a", "b"], additions=0, deletions=100),
    merged("acme/alike", 3, 30, files=["a", "b"], additions=95, deletions=0),
    said("acme/alike", 2, "Undo\n\nReverts acme/alike#1"),
    merged("acme/alike", 4, 10, files=["c", "d"], additions=100, deletions=0),
    merged("acme/alike", 5, 20),
    merged("acme/alike", 6, 30, files=["c"], additions=100, deletions=0),
    merged("acme/alike", 7, 30, files=["c", "d"], additions=40, deletions=0),
    merged("acme/alike", 8, 30, files=["a", "b"], additions=100, deletions=0, author="another"),
    merged("acme/alike", 9, 24 * 60, files=["a", "b"], additions=100, deletions=0),
    said("acme/alike", 5, "Undo\n\nReverts acme/alike#4"),
)
SILENT = case(
    "acme/silent",
    merged("acme/silent", 1, 10, files=["a", "b"], additions=75, deletions=25),
    merged("acme/silent", 2, 20, files=["a", "b"], additions=26, deletions=73),
    merged("acme/silent", 3, 30, files=["a"], additions=180, deletions=0),
    merged("acme/silent", 4, 10, files=["c"], additions=50, deletions=50),  # would look the same if done again
    merged("acme/silent", 5, 20, files=["c"], additions=50, deletions=50),
    merged("acme/silent", 6, 10, files=["d"], additions=100, deletions=0),
    merged("acme/silent", 7, 24 * 100, files=["d"], additions=0, deletions=100),
)
ONE_LINE = case(
    "acme/one-line",
    merged("acme/one-line", 1, 10, additions=100, deletions=0),
    merged("acme/one-line", 2, 20, additions=0, deletions=100),
    merged("acme/one-line", 3, 30, additions=1, deletions=0),
    merged("acme/one-line", 4, 40, additions=30, deletions=0),
    said("acme/one-line", 2, "Undo\n\nReverts acme/one-line#1"),
    said("acme/one-line", 3, "Reland\n\nRelands #1"),
    said("acme/one-line", 4, "Reland\n\nRelands #1"),
)
STATED = case(
    "acme/stated",
    merged("acme/stated", 1, 10, reverted_at=hours(15), reverted_by="a person"),
    merged("acme/stated", 2, 20),
    said("acme/stated", 2, "Undo\n\nReverts acme/stated#1"),
    merged("acme/stated", 3, 30),
    said("acme/stated", 3, "Reland\n\nRelands #1"),
)
BY_TICKET = case(
    "acme/by-ticket",
    work.Ticket(ticket_id="PAY-7"),
    merged("acme/by-ticket", 1, 10, files=["a"]),
    merged("acme/by-ticket", 2, 11, files=["z"]),
    merged("acme/by-ticket", 3, 20, files=["a", "b"]),
    *(work.PrTicket(pr_id=f"acme/by-ticket!{number}", ticket_id="PAY-7", source="title") for number in (1, 2)),
    said("acme/by-ticket", 3, "PAY-7: revert the new form"),
)
SHARED = case(
    "acme/shared",
    work.Ticket(ticket_id="PAY-2", aliases=["OLD-2"]),
    work.Ticket(ticket_id="acme/shared#5"),
    *(pull(number, repo="acme/shared") for number in (1, 2, 3)),
    *(
        work.PrTicket(pr_id=f"acme/shared!{number}", ticket_id=ticket, source=source)
        for number, ticket, source in (
            (1, "PAY-9", "title"),
            (1, "PAY-9", "branch"),
            (1, "OLD-2", "branch"),
            (1, "PAY-2", "commit"),
            (1, "acme/shared#5", "body_close"),
            (1, "PAY-3", "body_mention"),
            (2, "acme/shared#1", "body_close"),
            (2, "acme/shared#99", "commit"),
            (3, "acme/shared#98", "tracker"),
            (3, "acme/shared#99", "body_close"),
        )
    ),
)


def deployed(name: str, sha_: str, at: float, **fields: Any) -> work.Deployment:
    given: dict[str, Any] = {"environment": "production", "finished_at": hours(at)}
    return work.Deployment(deployment_id=name, repo="acme/deployed", sha=sha_, **given | fields)


case(
    "acme/deployed",
    deployed("a", "sha-1", 1),
    deployed("b", "sha-2", 2),
    deployed("c", "sha-3", 3),
    deployed("elsewhere", "sha-9", 3, environment="staging"),
    deployed("back", "sha-1", 4),
    deployed("d", "sha-4", 50),
    deployed("too late", "sha-1", 80),
    *(deployed(f"swing {place}", f"swing-{place % 2}", 200 + place) for place in range(5)),
    deployed("broken", "sha-5", 90, finished_at=None, failed_at=hours(91)),
)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    data = tmp_path_factory.mktemp("reverts")
    store(data, [row for rows in CASES.values() for row in rows])
    with duckdb.connect() as db:
        build.create_views(db, data, build.load(build.MODELS / "work"))
        db.execute("CREATE TABLE found AS FROM pr_reverts")
        yield db


def store(data: Path, rows: list[work.Row]) -> None:
    lake.publish(data)
    tables = defaultdict(list)
    for row in rows:
        tables[next(name for name, table in work.TABLES.items() if isinstance(row, table.row))].append(row)
    with work.alone(data):
        for table, each in tables.items():
            work.spool(data, table, each)
            work.store(data, table)


def reverted(db: duckdb.DuckDBPyConnection, repo: str) -> dict[int, str]:
    """Number → method, what did it and when; when it landed again and with what."""
    rows = db.execute("FROM found WHERE starts_with(pr_id, $repo || '!')", {"repo": repo}).fetchall()

    def hour(at: Any) -> str:
        return f"{(at - hours(0)).total_seconds() / 3600:.0f}h"

    return {
        int(pr_id.rpartition("!")[2]): f"{method} by {by.removeprefix(repo)[:2]} at {hour(at)}"
        + (f", again by {again_by.removeprefix(repo)[:2]} at {hour(again)}" if again else "")
        for pr_id, at, by, method, _, again, again_by, _ in rows
    }


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        (BY_SHA, {1: "sha by !2 at 20h"}),
        (SHORT_SHA, {1: "sha by cc at 20h"}),
        (UNCLEAR_SHA, {}),
        (OWN_COMMIT, {1: "commit by aa at 20h"}),
        (BY_NUMBER, {1: "pr by !2 at 20h"}),
        (BY_TITLE, {2: "title by !4 at 20h"}),
        (SUBJECT, {1: "title by bb at 20h"}),
        (SUBJECT_OF_KNOWN, {1: "title by !5 at 40h", 3: "title by !7 at 60h"}),
        (UNMERGED, {}),
        (ITSELF, {}),
        (BEST, {1: "sha by !3 at 20h"}),
        (BOTH, {1: "sha by !3 at 20h", 2: "commit by !3 at 20h"}),
        (AGAIN, {1: "pr by !2 at 20h, again by !3 at 30h", 2: "pr by !3 at 30h"}),
        (REAPPLIED, {1: "sha by !2 at 20h, again by !3 at 30h"}),
        (THRICE, {1: "sha by !4 at 40h", 2: "sha by !3 at 30h, again by !4 at 40h", 3: "sha by !4 at 40h"}),
        (ALIKE, {1: "pr by !2 at 20h", 4: "pr by !5 at 20h"}),
        (ONE_LINE, {1: "pr by !2 at 20h"}),
        (STATED, {1: "stated by a  at 15h, again by !3 at 30h"}),
        (BY_TICKET, {}),
    ],
)
def test_reverted_pull_requests(db: duckdb.DuckDBPyConnection, repo: str, expected: dict[int, str]) -> None:
    assert reverted(db, repo) == expected


def test_part_of_a_pull_request_is_reverted_by_its_share_of_lines(db: duckdb.DuckDBPyConnection) -> None:
    rows = db.execute("SELECT pr_id, share FROM found WHERE starts_with(pr_id, 'acme/partly')").fetchall()
    assert dict(rows) == {"acme/partly!1": Decimal("0.3"), "acme/partly!4": Decimal(1)}


def test_what_lands_in_part_leaves_the_rest_reverted(db: duckdb.DuckDBPyConnection) -> None:
    [(share, again)] = db.execute(
        "SELECT share, landed_again_at FROM found WHERE starts_with(pr_id, 'acme/one-line')"
    ).fetchall()
    assert (share, again) == (Decimal("0.69"), None)


def test_what_no_word_tells_of_is_a_guess(db: duckdb.DuckDBPyConnection) -> None:
    rows = db.execute("SELECT pr_id, reverted_by, lands FROM pr_revert_events WHERE method = 'files'").fetchall()
    assert sorted(rows) == [
        ("acme/alike!1", "acme/alike!3", True),
        ("acme/alike!4", "acme/alike!6", True),
        ("acme/silent!1", "acme/silent!2", False),
        ("acme/silent!1", "acme/silent!3", True),
    ]


def test_a_ticket_alone_makes_a_candidate(db: duckdb.DuckDBPyConnection) -> None:
    rows = db.execute("SELECT pr_id, reverted_by, ticket_id FROM revert_candidates").fetchall()
    assert rows == [("acme/by-ticket!1", "acme/by-ticket!3", "PAY-7")]


def test_tickets_share_a_pull_request(db: duckdb.DuckDBPyConnection) -> None:
    rows = db.execute(
        "SELECT pr_id, ticket_id, source, weight FROM pr_ticket_weights WHERE starts_with(pr_id, 'acme/shared')"
    ).fetchall()
    third = Decimal("0.333333333")
    assert {(pr_id[-2:], *row) for pr_id, *row in rows} == {
        ("!1", "PAY-9", "title", third + Decimal("0.000000001")),
        ("!1", "PAY-2", "branch", third),
        ("!1", "acme/shared#5", "body_close", third),
        ("!2", "PAY-2", "body_close", third + Decimal("0.000000001")),
        ("!2", "PAY-9", "body_close", third),
        ("!2", "acme/shared#5", "body_close", third),
        ("!3", "acme/shared#98", "tracker", Decimal(1)),
    }
    sums = db.execute("SELECT DISTINCT sum(weight) FROM pr_ticket_weights GROUP BY pr_id").fetchall()
    assert sums == [(Decimal(1),)]


def test_deployments_that_failed_or_were_rolled_back(db: duckdb.DuckDBPyConnection) -> None:
    rows = db.execute("FROM deployment_failures ORDER BY ALL").fetchall()
    assert rows == [
        ("b", hours(4), "back"),
        ("broken", hours(91), None),
        ("c", hours(4), "back"),
        ("swing 1", hours(202), "swing 2"),
        ("swing 3", hours(204), "swing 4"),
    ]
