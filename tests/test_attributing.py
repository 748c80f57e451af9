"""Late evidence: each rule where it holds and where it does not; nothing is lost, doubled or found twice."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

import analytics
from analytics import attributing, work
from analytics.attributing import Span
from gateway.call import Call
from gateway.config import LedgerSettings, TicketSettings
from gateway.ticket_keys import SHARED_BRANCHES
from tests.journals import NOON, call, segment
from tests.trackers import hours, know, pull

ANYTHING = TicketSettings()


def ledger(data: Path) -> LedgerSettings:
    return LedgerSettings(dir=str(data), segment_bytes=4096, reserve_bytes=0)


def settle(data: Path, span: Span = Span(), tickets: TicketSettings | None = ANYTHING) -> dict[str, int]:  # noqa: B008
    """Correct what late evidence says; returns the number of calls by rule. Then nothing is left to find."""
    found = attributing.correct(data, span, tickets, ledger(data))
    assert attributing.find(data, span, tickets) == []
    return {line.rule: line.calls for line in found}


def named(*tickets: str, source: str = "header", state: str = "unchecked", **fields: Any) -> dict[str, Any]:
    """The attribution of a call."""
    return {
        "tickets": tickets,
        "ticket_id": tickets[0] if tickets else None,
        "ticket_source": source,
        "ticket_state": state if tickets else None,
        **fields,
    }


def later(hours: float, **fields: Any) -> Call:
    return call(NOON + timedelta(hours=hours), **{"ticket_source": "none", **fields})


def seen(data: Path) -> list[tuple[str, str, str | None, tuple[str, ...]]]:
    """Attribution of all calls, by their start: tickets with spaces, source, state, candidates."""
    with analytics.open(data) as db:
        rows = db.execute(
            "SELECT array_to_string(tickets, ' '), ticket_source, ticket_state, ticket_candidates, ticket_id, tickets "
            "FROM calls ORDER BY started_at, call_id"
        ).fetchall()
    assert all(ticket_id == (tickets[0] if tickets else None) for *_, ticket_id, tickets in rows)
    return [(tickets, source, state, tuple(candidates)) for tickets, source, state, candidates, _, _ in rows]


def judged(data: Path, *calls: Call, tickets: TicketSettings | None = ANYTHING) -> list[tuple[str, str, str | None]]:
    """The attribution of calls after late evidence, without candidates."""
    segment(data, calls)
    settle(data, tickets=tickets)
    return [each[:3] for each in seen(data)]


NOTHING = ("", "none", None)
T = TypeVar("T")


def apart(number: int, value: T, kind: type[T]) -> T:
    """The same with other names, so that many cases fit in one folder."""
    text = msgspec.json.encode(value).decode()
    return msgspec.json.decode(
        re.sub(r"\b([Aa]cme|[Ff]ix|PAY|OPS|OLD|abc|t|s|k)\b", rf"\g<1>{number}", text), type=kind
    )


# -- the ticket of the task --------------------------------------------------------------------------------------------


def test_a_call_takes_the_ticket_of_the_nearest_call_before_it_in_its_task_else_after_it(data: Path) -> None:
    task = {"task_id": "t", "task_source": "header", "key_id": "k"}
    calls = [
        later(-1, **task),
        later(0, **task | named("PAY-1")),
        later(1, **task),
        later(3, **task | named("PAY-2", "PAY-3", source="path")),
        later(4, **task),
    ]
    assert judged(data, *calls) == [
        ("PAY-1", "task", "unchecked"),
        ("PAY-1", "header", "unchecked"),
        ("PAY-1", "task", "unchecked"),
        ("PAY-2 PAY-3", "path", "unchecked"),
        ("PAY-2 PAY-3", "task", "unchecked"),
    ]


CARRIED: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({"session_id": "s", "task_id": "t"}, {"session_id": "s", "task_id": "t-2"}, True),
    ({"task_id": "t"}, {"task_id": "t-2"}, False),
    ({"key_id": "k"}, {"key_id": "k-2"}, False),
    ({"key_id": None}, {"key_id": None}, True),
    ({"ticket_source": "task"}, {}, False),
    ({"task_source": "none"}, {"task_source": "none"}, False),
    ({"task_source": "header"}, {"task_source": "none"}, False),
    ({"branch": "a"}, {"branch": "a"}, True),
    ({"branch": "a"}, {"branch": "b"}, False),
    ({"branch": "a"}, {}, True),
    ({}, {"branch": "b"}, False),
    ({"client": "codex"}, {"client": "codex"}, True),
    ({"client": "codex"}, {"client": "aider"}, False),
    ({}, {"repo": "acme/b"}, False),
    ({"repo": "acme/a"}, {"repo": "acme/b"}, False),
    ({"repo": "acme/a"}, {"repo": "Acme/A"}, True),
    ({"repo": "acme/a"}, {}, True),
    ({}, {"ticket_candidates": ("header:(malformed)",)}, False),
    ({}, {"ticket_candidates": ("header:acme/x#9",)}, False),
    (
        {"session_id": "s", "task_id": "t", "task_source": "header"},
        {"session_id": "s", "task_id": "t-2", "task_source": "header"},
        False,
    ),
]


def test_a_ticket_is_carried_over_only_within_a_task_of_a_key_and_a_branch(data: Path) -> None:
    calls, expected = [], []
    for number, (evidence, fields, holds) in enumerate(CARRIED):
        task = {"task_id": "t", "task_source": "session", "key_id": "k"}
        calls.append(later(number, **apart(number, task | named("PAY-1") | evidence, dict)))
        calls.append(later(number + 0.5, **apart(number, task | fields, dict)))
        expected.append(apart(number, ("PAY-1", "task", "unchecked") if holds else NOTHING, tuple))
    assert judged(data, *calls)[1::2] == expected


@pytest.mark.parametrize(("distance", "holds"), [(24, True), (24.1, False), (-24, True), (-24.1, False)])
def test_a_ticket_is_carried_over_for_a_day(data: Path, distance: float, holds: bool) -> None:
    task = {"task_id": "t", "task_source": "session"}
    segment(data, [later(0, **task | named("PAY-1")), later(distance, **task)], at=NOON + timedelta(days=2))
    settle(data)
    assert (("PAY-1", "task", "unchecked", ()) in seen(data)) == holds


def test_evidence_may_be_of_the_day_before_the_span(data: Path) -> None:
    task = {"task_id": "t", "task_source": "session"}
    segment(data, [later(-20, **task | named("PAY-1")), later(1, **task), later(-1, **task)])
    assert settle(data, Span(hours(0))) == {"task": 1}
    assert settle(data) == {"task": 1}


def test_evidence_of_a_task_may_come_with_a_branch(data: Path) -> None:
    task = {"task_id": "t", "task_source": "session"}
    know(data, prs=[pull(46)], pulls={"acme/shop!46": ["PAY-1"]})
    calls = [later(0, repo="acme/shop", branch="fix", **task), later(1, **task)]
    assert judged(data, *calls) == [("PAY-1", "branch", "unchecked"), ("PAY-1", "task", "unchecked")]


def test_a_refused_call_is_left_alone(data: Path) -> None:
    task = {"task_id": "t", "task_source": "session"}
    refused = later(1, result="refused", refusal="ticket_required", price_status=None, list_cost_nano=None, **task)
    assert judged(data, later(0, **task | named("PAY-1")), refused)[1] == NOTHING


# -- the pull request of the branch ------------------------------------------------------------------------------------

HERE = {"repo": "acme/shop", "branch": "fix"}


BRANCHES: list[tuple[list[work.PullRequest], dict[str, list[str]], dict[str, Any], str]] = [
    ([pull(46)], {"acme/shop!46": ["PAY-1"]}, {}, "PAY-1"),
    ([pull(46)], {"acme/shop!46": ["PAY-2", "PAY-1"]}, {}, "PAY-1 PAY-2"),
    ([pull(46, created_at=hours(-9), merged_at=hours(2))], {"acme/shop!46": ["PAY-1"]}, {}, "PAY-1"),
    ([pull(46, created_at=hours(-9), merged_at=hours(-1))], {"acme/shop!46": ["PAY-1"]}, {}, ""),
    ([pull(46, created_at=hours(-9), closed_at=hours(0))], {"acme/shop!46": ["PAY-1"]}, {}, ""),
    # A name that is used again: the first that had not ended.
    (
        [pull(46, merged_at=hours(-5), created_at=hours(-9)), pull(47), pull(48, created_at=hours(3))],
        {"acme/shop!46": ["PAY-1"], "acme/shop!47": ["PAY-2"], "acme/shop!48": ["PAY-3"]},
        {},
        "PAY-2",
    ),
    # That one counts though it names no ticket.
    ([pull(47), pull(48, created_at=hours(3))], {"acme/shop!48": ["PAY-3"]}, {}, ""),
    ([pull(46)], {"acme/shop!46": ["PAY-1"]}, {"repo": "Acme/Shop"}, "PAY-1"),
    ([pull(46)], {"acme/shop!46": ["PAY-1"]}, {"repo": "acme/other"}, ""),
    ([pull(46)], {"acme/shop!46": ["PAY-1"]}, {"branch": "Fix"}, ""),
    # Without a repository: others have branches of that name, too.
    ([pull(46)], {"acme/shop!46": ["PAY-1"]}, {"repo": None}, ""),
    # Opened much later.
    ([pull(46, created_at=hours(29 * 24))], {"acme/shop!46": ["PAY-1"]}, {}, "PAY-1"),
    ([pull(46, created_at=hours(31 * 24))], {"acme/shop!46": ["PAY-1"]}, {}, ""),
    # Branches that belong to nobody.
    ([pull(46, "main", base_branch="release")], {"acme/shop!46": ["PAY-1"]}, {"branch": "main"}, ""),
    ([pull(46, "Develop")], {"acme/shop!46": ["PAY-1"]}, {"branch": "Develop"}, ""),
    *(([pull(46, name)], {"acme/shop!46": ["PAY-1"]}, {"branch": name}, "") for name in sorted(SHARED_BRANCHES)),
    ([pull(46, "next", base_branch="next")], {"acme/shop!46": ["PAY-1"]}, {"branch": "next"}, ""),
    ([pull(46, None)], {"acme/shop!46": ["PAY-1"]}, {"branch": None}, ""),
]  # fmt: skip


def test_a_call_on_a_branch_is_for_the_tickets_of_its_pull_request(data: Path) -> None:
    calls, expected = [], []
    for number, (prs, pulls, place, tickets) in enumerate(BRANCHES):
        know(data, prs=apart(number, prs, list[work.PullRequest]), pulls=apart(number, pulls, dict))
        calls.append(later(number / 60, **apart(number, HERE | place, dict)))
        expected.append(apart(number, (tickets, "branch", "unchecked") if tickets else NOTHING, tuple))
    assert judged(data, *calls) == expected


def test_a_mention_in_a_pull_request_is_no_evidence_and_the_best_founded_ticket_comes_first(data: Path) -> None:
    sources = {"PAY-1": "commit", "PAY-2": "body_mention", "PAY-3": "tracker", "PAY-4": "body_close", "PAY-5": "title"}
    links = [
        msgspec.convert({"pr_id": "acme/shop!46", "ticket_id": ticket, "source": source}, work.PrTicket)
        for ticket, source in sources.items()
    ]
    know(data, prs=[pull(46)], links=links)
    assert judged(data, later(0, **HERE)) == [("PAY-3 PAY-5 PAY-4 PAY-1", "branch", "unchecked")]


def test_what_a_call_says_itself_outranks_its_branch(data: Path) -> None:
    know(data, "PAY-1", prs=[pull(46)], pulls={"acme/shop!46": ["PAY-1"]})
    assert judged(data, later(0, **HERE | named("PAY-9", source="metadata")))[0][:2] == ("PAY-9", "metadata")


# -- the pull request of the commit ------------------------------------------------------------------------------------


COMMITS: list[tuple[work.PullRequest, dict[str, Any], bool]] = [
    (pull(46), {}, True),
    (pull(46), {"repo": "acme/fork"}, True),
    (pull(46, merged_at=hours(-1)), {}, False),
    (pull(46, merged_at=hours(1)), {}, True),
    (pull(46, "develop"), {}, False),
    (pull(46), {"branch": "another"}, False),
    (pull(46), {"commit_sha": "other"}, False),
]


def test_a_call_at_a_commit_is_for_the_tickets_of_its_pull_request(data: Path) -> None:
    calls, expected = [], []
    for number, (pr, place, holds) in enumerate(COMMITS):
        own = work.Commit(sha="abc", repo="acme/shop", pr_id="acme/shop!46", tickets=["PAY-8"])
        know(
            data,
            prs=[apart(number, pr, work.PullRequest)],
            pulls=apart(number, {"acme/shop!46": ["PAY-1"]}, dict),
            commits=[apart(number, own, work.Commit)],
        )
        calls.append(later(number / 60, **apart(number, {"commit_sha": "abc"} | place, dict)))
        expected.append(apart(number, ("PAY-1", "branch", "unchecked") if holds else NOTHING, tuple))
    assert judged(data, *calls) == expected


def test_what_the_head_commit_names_was_the_work_before(data: Path) -> None:
    know(data, "PAY-8", commits=[work.Commit(sha="a" * 40, repo="acme/shop", tickets=["PAY-8"])])
    assert judged(data, later(0, commit_sha="a" * 40)) == [NOTHING]


# -- what may have been meant ------------------------------------------------------------------------------------------

OF_PULL = {"acme/shop!46": ["PAY-1", "PAY-2"]}


CANDIDATES: list[tuple[tuple[str, ...], tuple[str, str, str | None], tuple[str, ...]]] = [
    (("header:acme/shop#45",), ("acme/shop#45", "header", "known"), ()),
    (("path:acme/shop#45",), ("acme/shop#45", "path", "known"), ()),
    (("metadata:acme/shop#46",), ("PAY-1 PAY-2", "metadata", "known"), ()),
    (("header:acme/shop#46", "branch:acme/shop#46"), ("PAY-1 PAY-2", "header", "known"), ("branch:acme/shop#46",)),
    (("header:acme/shop#9", "path:acme/shop#45"), ("acme/shop#45", "path", "known"), ("header:acme/shop#9",)),
    (("header:acme/shop#45", "path:PAY-1"), ("acme/shop#45", "header", "known"), ("path:PAY-1",)),
    (("header:PAY-2", "header:acme/shop#45"), ("PAY-2 acme/shop#45", "header", "known"), ()),
    # Half of it is not known: it is no evidence.
    (("header:PAY-2", "header:acme/shop#9"), NOTHING, ("header:PAY-2", "header:acme/shop#9")),
    (("branch:acme/shop#45",), NOTHING, ("branch:acme/shop#45",)),
    (("header:acme/shop#47",), NOTHING, ("header:acme/shop#47",)),
    (("branch:PAY-1",), NOTHING, ("branch:PAY-1",)),
    # GitLab numbers merge requests apart.
    (("header:group/app#7",), NOTHING, ("header:group/app#7",)),
    (("header:OLD-5",), ("PAY-2", "header", "known"), ()),
]


def test_a_candidate_that_the_tracker_knows_by_now_is_the_ticket(data: Path) -> None:
    gitlab = pull(7, repo="group/app", url="https://gitlab.example/group/app/-/merge_requests/7")
    moved = work.Ticket(ticket_id="PAY-2", aliases=["OLD-5"])
    pulls = OF_PULL | {"group/app!7": ["PAY-1"]}
    know(data, "PAY-1", moved, "acme/shop#45", prs=[pull(46), pull(47), gitlab], pulls=pulls)
    place = {"branch": "me/fix", "repo": "acme/else"}
    segment(data, [later(n / 60, ticket_candidates=each, **place) for n, (each, _, _) in enumerate(CANDIDATES)])
    settle(data)
    assert seen(data) == [(*found, left) for _, found, left in CANDIDATES]


def test_the_name_of_a_branch_is_read_again_when_more_is_known(data: Path) -> None:
    segment(data, [later(n / 60, branch=b) for n, b in enumerate(["fix/pay-1", "fix/pay-9", "fix/OPS-7", "main"])])
    settle(data)
    know(data, "PAY-1", "PAY-20")
    settle(data, tickets=TicketSettings())
    assert [each[:3] for each in seen(data)] == [("PAY-1", "branch", "known"), NOTHING, NOTHING, NOTHING]
    settle(data, tickets=TicketSettings(projects=["PAY", "OPS"]))
    assert [each[:2] for each in seen(data)] == [("PAY-1", "branch"), ("", "none"), ("OPS-7", "branch"), ("", "none")]


# -- what is known of a ticket -----------------------------------------------------------------------------------------


STATES: list[tuple[work.Ticket, str, float, str]] = [
    (work.Ticket(ticket_id="PAY-1"), "unchecked", 0, "known"),
    (work.Ticket(ticket_id="PAY-1"), "unknown", 0, "known"),
    (work.Ticket(ticket_id="PAY-1", status_category="done", done_at=hours(-1)), "unchecked", 0, "closed"),
    (work.Ticket(ticket_id="PAY-1", status_category="done", done_at=hours(99)), "unchecked", 0, "known"),
    (work.Ticket(ticket_id="PAY-1", status_category="todo", done_at=hours(-1)), "unchecked", 0, "known"),
    (work.Ticket(ticket_id="PAY-1", status_category="done", done_at=hours(-1)), "known", 0, "known"),
    (work.Ticket(ticket_id="PAY-2"), "unchecked", 23, "unchecked"),
    (work.Ticket(ticket_id="PAY-2"), "unchecked", 24, "unknown"),
    (work.Ticket(ticket_id="PAY-2"), "unknown", 0, "unknown"),
    (work.Ticket(ticket_id="OPS-1"), "unchecked", 99, "unchecked"),
]


def test_a_ticket_is_judged_again(data: Path) -> None:
    calls, expected = [], []
    for number, (ticket, was, synced, now) in enumerate(STATES):
        know(data, apart(number, ticket, work.Ticket), synced=hours(synced + number))
        calls.append(later(number, **apart(number, named("PAY-1", state=was), dict)))
        expected.append(apart(number, ("PAY-1", "header", now), tuple))
    assert judged(data, *calls) == expected


def test_of_several_tickets_the_worst_counts(data: Path) -> None:
    know(data, "PAY-1", work.Ticket(ticket_id="PAY-2", status_category="done", done_at=hours(-1)), synced=hours(30))
    calls = [
        later(0, **named("PAY-1", "PAY-2")),
        later(1, **named("PAY-1", "PAY-3")),
        later(2, **named("PAY-2", "OPS-1")),
    ]
    assert [state for _, _, state in judged(data, *calls)] == ["closed", "unknown", "unchecked"]


def test_a_ticket_that_only_some_of_were_read_makes_no_other_unknown(data: Path) -> None:
    know(data, "PAY-1", synced=hours(30))
    with work.alone(data):
        work.mark_synced(data, ["OPS"], None)
        work.mark_synced(data, ["PAY"], None)  # takes nothing back
    calls = [later(0, **named("OPS-1")), later(1, **named("PAY-2"))]
    assert [state for _, _, state in judged(data, *calls)] == ["unchecked", "unknown"]


def test_a_moved_ticket_has_its_present_key(data: Path) -> None:
    """Also twice, and though it is still stored under the keys that it had before."""
    know(data, work.Ticket(ticket_id="OLD-5", updated_at=hours(-9)))
    know(data, work.Ticket(ticket_id="PAY-9", aliases=["OLD-5"], updated_at=hours(-8)))
    know(data, work.Ticket(ticket_id="FIN-2", aliases=["PAY-9"], updated_at=hours(-7)))
    calls = [
        later(0, **named("OLD-5")),
        later(1, **named("PAY-9", state="closed")),
        later(2, **named("OLD-5", "FIN-2", "PAY-9", state="known")),
        later(3, **named("OPS-1", "OLD-5", source="claim")),
    ]
    assert judged(data, *calls) == [
        ("FIN-2", "header", "known"),
        ("FIN-2", "header", "known"),
        ("FIN-2", "header", "known"),
        ("OPS-1 FIN-2", "claim", "unchecked"),
    ]


def test_a_ticket_that_was_moved_back_is_found(data: Path) -> None:
    know(data, work.Ticket(ticket_id="OLD-5", updated_at=hours(-9)))
    know(data, work.Ticket(ticket_id="PAY-9", aliases=["OLD-5"], updated_at=hours(-8)))
    know(data, work.Ticket(ticket_id="OLD-5", aliases=["PAY-9"], updated_at=hours(-7)))
    assert judged(data, later(0, **named("PAY-9")), later(1, **named("OLD-5"))) == [("OLD-5", "header", "known")] * 2


def test_a_pull_request_that_was_taken_for_a_ticket_is_its_tickets(data: Path) -> None:
    know(data, "PAY-1", "PAY-2", prs=[pull(46), pull(47)], pulls=OF_PULL)
    calls = [later(0, **named("acme/shop#46")), later(1, **named("acme/shop#47"))]
    assert judged(data, *calls) == [("PAY-1 PAY-2", "header", "known"), ("acme/shop#47", "header", "unchecked")]


# -- branches that named no ticket -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "source", "found"),
    [
        (ANYTHING, "branch", ("", "none", None, ("branch:GPT-5",))),
        (ANYTHING, "header", ("GPT-5", "header", "unchecked", ())),
        (TicketSettings(projects=["GPT"]), "branch", ("GPT-5", "branch", "unchecked", ())),
        (TicketSettings(projects=["PAY"]), "branch", ("", "none", None, ("branch:GPT-5",))),
        (TicketSettings(patterns=["GPT-[0-9]"]), "branch", ("GPT-5", "branch", "unchecked", ())),
        (None, "branch", ("GPT-5", "branch", "unchecked", ())),
    ],
)
def test_a_ticket_of_a_branch_is_taken_back_when_nobody_knows_its_project(
    data: Path, settings: TicketSettings | None, source: str, found: Any
) -> None:
    segment(data, [later(0, **named("GPT-5", source=source, branch="GPT-5-prompts"))])
    assert settle(data, tickets=settings) == {}  # before anything is known
    know(data, "PAY-1")
    settle(data, tickets=settings)
    assert seen(data) == [found]


def test_what_was_taken_back_comes_again_when_its_project_is_known(data: Path) -> None:
    task = {"task_id": "t", "task_source": "session"}
    calls = [
        later(0, **named("OPS-5", source="branch", branch="OPS-5"), **task),
        later(1, **named("OPS-5", source="task"), **task),
    ]
    know(data, "PAY-1")
    assert judged(data, *calls) == [NOTHING, NOTHING]
    know(data, "OPS-5")
    settle(data)
    assert seen(data) == [("OPS-5", "branch", "known", ()), ("OPS-5", "task", "known", ())]


def test_only_strange_tickets_are_taken_back(data: Path) -> None:
    know(data, "PAY-1", prs=[pull(46)], pulls={"acme/shop!46": ["FIN-2"]})
    calls = [
        later(0, **named("GPT-5", "PAY-1", source="branch")),
        later(1, **named("PAY-99", source="branch")),
        later(2, **named("FIN-2", source="branch")),  # a pull request names it, too
        later(3, **named("GPT-5", source="task", task_id="t", task_source="session")),  # from a header, who knows
    ]
    assert judged(data, *calls) == [
        ("PAY-1", "branch", "known"),
        ("PAY-99", "branch", "unchecked"),
        ("FIN-2", "branch", "unchecked"),
        ("GPT-5", "task", "unchecked"),
    ]
    assert seen(data)[0][3] == ("branch:GPT-5",)


def test_what_is_taken_back_may_have_other_evidence(data: Path) -> None:
    know(data, "PAY-1", prs=[pull(46, "GPT-5")], pulls={"acme/shop!46": ["PAY-1"]})
    assert judged(data, later(0, **named("GPT-5", source="branch", branch="GPT-5", repo="acme/shop"))) == [
        ("PAY-1", "branch", "known")
    ]


def test_what_another_call_of_the_task_names_is_not_taken_back_with_a_branch(data: Path) -> None:
    task = {"task_id": "t", "task_source": "session"}
    know(data, "PAY-1")
    calls = [
        later(0, **named("GPT-5", source="branch"), **task),
        later(1, **named("GPT-5"), **task),
        later(2, **named("GPT-5", source="task"), **task),
    ]
    assert judged(data, *calls) == [NOTHING, ("GPT-5", "header", "unchecked"), ("GPT-5", "task", "unchecked")]
    with analytics.open(data) as db:
        assert db.execute("SELECT count(*) FROM corrections").fetchall() == [(1,)]
