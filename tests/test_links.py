"""What pull requests and commits say: `analytics/sources/links.py`."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.sources import links
from gateway.ticket_keys import TicketKeys
from gateway.tracker import Snapshot
from tests.trackers import pull

KNOWN = TicketKeys(tracker=Snapshot(tickets={"PAY-1": "open", "PAY-2": "open", "acme/api#3": "open"}))
LISTED = TicketKeys(["PAY", "acme/shop"])
SHA = "0123456789abcdef0123456789abcdef01234567"


def said(keys: TicketKeys = KNOWN, title: str = "", branch: str | None = None, **given: object) -> set[str]:
    """Links of acme/shop!50 as `source ticket`."""
    fields = {"title": title, "url": given.pop("url", "https://github.com/acme/shop/pull/50")}
    found = links.links_of(pull(50, branch, **fields), keys, **given)  # type: ignore[arg-type]
    return {f"{link.source} {link.ticket_id}" for link in found}


def test_all_keys_of_all_fields_count_each_with_its_source() -> None:
    found = said(
        title="PAY-1: pay, PAY-2",
        branch="feature/pay-1-x",
        body="Closes #45. See PAY-2.",
        messages=["Pay\n\nTicket: PAY-2", "PAY-1 more"],
        tracker=["PAY-7", "#46", "acme/api#3", "https://t.example/browse/PAY-8"],
    )
    assert found == {
        *("title PAY-1", "title PAY-2", "branch PAY-1", "body_close acme/shop#45", "body_mention PAY-2"),
        *("commit PAY-2", "commit PAY-1", "tracker PAY-7", "tracker acme/shop#46", "tracker acme/api#3"),
        "tracker PAY-8",
    }


def test_the_best_founded_link_comes_first() -> None:
    found = links.links_of(
        pull(50, "fix/PAY-1", title="PAY-2"), KNOWN, body="PAY-1", messages=["PAY-1"], tracker=["#4"]
    )
    assert [link.source for link in found] == ["tracker", "title", "branch", "commit", "body_mention"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Closes #45",
            "closed #45",
            "FIX #45",
            "Fixes: #45",
            "resolves acme/shop#45",
            "Resolve GH-45",
            "x; fixes #45.",
        ),
        *("Fixes https://github.com/acme/shop/issues/45", "closes https://gitlab.example/acme/shop/-/issues/45)"),
        *("- fixed Acme/Shop#45",),
    ],
)
def test_closing_words(text: str) -> None:
    assert said(body=text) == {"body_close acme/shop#45"}
    assert said(title=text) == {"title acme/shop#45"}
    assert said(messages=[text]) == {"commit acme/shop#45"}
    assert said(body=text, title=text, messages=[text], closes=False) == {"body_mention acme/shop#45"}


@pytest.mark.parametrize(
    "text", ["#45", "See #45", "fixes #44x, #45", "prefix #45", "Fixes the thing of #45", "fix(#45)", "Refactor (#45)"]
)
def test_a_bare_number_is_a_mention_never_a_close(text: str) -> None:
    assert said(body=text) == said(title=text) == said(messages=[text]) == {"body_mention acme/shop#45"}


def test_each_number_needs_its_own_word() -> None:
    assert said(body="Fixes #1, #2 and fixes #3") == {
        *("body_close acme/shop#1", "body_mention acme/shop#2", "body_close acme/shop#3"),
    }


@pytest.mark.parametrize(
    "text",
    [
        *(
            "&#39;",
            "x#45",
            "docs/x.html#45",
            "#0",
            "#12345678",
            "#45x",
            "##45",
            "other/lib#45",
            "fixes other/lib#4",
            "!45",
        ),
        *("Closes #50", "Pay (#50)", "acme/shop#50", "<!-- Fixes #45, PAY-1 -->", "<!-- PAY-1", "```\nfixes #45\n```"),
        *("~~~\nPAY-1", "`fixes #45`", "UTF-8", "XPAY-1", "commons-lang-3.2", "https://docs.example/a#45"),
    ],
)
def test_what_is_no_ticket(text: str) -> None:
    assert said(body=text) == set()


def test_merge_requests_have_numbers_of_their_own() -> None:
    at_gitlab = "https://gitlab.example/acme/shop/-/merge_requests/50"
    assert said(body="Closes #50", url=at_gitlab) == {"body_close acme/shop#50"}


def test_the_address_of_a_ticket_names_it() -> None:
    body = "<https://t.example/browse/PAY-7?x=1>, [y](https://linear.app/acme/issue/PAY-8/words). https://x.example/browse/ZZ-1"
    assert said(body=body) == {"body_mention PAY-7", "body_mention PAY-8"}
    assert said(TicketKeys(), body="https://x.example/browse/ZZ-1") == {"body_mention ZZ-1"}, "no allow-list yet"


def test_with_a_list_of_projects_others_do_not_count() -> None:
    assert said(LISTED, body="Fixes #4 ZZ-1 fixes acme/api#3", tracker=["ZZ-2", "PAY-3"]) == {
        *("body_close acme/shop#4", "tracker PAY-3"),
    }
    assert said(TicketKeys(["PAY"]), body="Fixes #4", branch="4-x", tracker=["#4"]) == set(), "numbers are no tickets"


def test_numbers_in_branches_are_mentions() -> None:
    for branch in ("45-add-docs", "issue_45", "fix/45-x"):
        assert said(branch=branch) == {"body_mention acme/shop#45"}
    assert said(branch="patch-1") == said(branch="main") == set()


def test_what_was_merged_into_the_branch_is_anothers() -> None:
    merges = ["Merge branch 'PAY-1-x' into PAY-2", "Merge pull request #4 from acme/PAY-1", "Merged PAY-1"]
    assert said(messages=merges) == set()
    assert said(messages=["Merges PAY-1"]) == {"commit PAY-1"}


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Pay (#12)", 12),
        ("Pay (#11) (#12)\n\nbody", 12),
        ("Merge pull request #12 from acme/fix\n\nPay", 12),
        ("Merge branch 'fix' into 'main'\n\nPay\n\nSee merge request acme/shop!12", 12),
        ("Merged in fix (pull request #12)", 12),
        ("Merged PR 12: Pay", 12),
        ("Pull request #12: Pay", 12),
        ("Pay #12", None),
        ("Pay (#12) more", None),
        ("Pay\n\nSee merge request acme/shop!12", None),
        ("Pay (#0)", None),
        ("", None),
    ],
)
def test_the_pull_request_of_a_commit(message: str, number: int | None) -> None:
    assert links.pull_of(message) == number


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f'Revert "Pay"\n\nThis reverts commit {SHA}.', {f"sha {SHA}", "title Pay"}),
        ("Undo\n\nThis reverts commit 0123456, 89abcde and fedcba9.", {"sha 0123456", "sha 89abcde", "sha fedcba9"}),
        (f"X\n\nThis reverts commit {SHA}, reversing\nchanges made to 89abcdef.", {f"sha {SHA}"}),
        ('Revert "Pay (#12)" (#13)', {"pr acme/shop!12", "title Pay"}),
        ('Revert "Pay"\n\nReverts acme/api#12', {"pr acme/api!12", "title Pay"}),
        ('Revert "Pay"\n\nThis reverts merge request !12', {"pr acme/shop!12", "title Pay"}),
        ("Back\n\nThis reverts merge request acme/a/b!12", {"pr acme/a/b!12"}),
        ("Back\n\nReverts acme/shop#12, #13", {"pr acme/shop!12", "pr acme/shop!13"}),
        ('Revert "Pay"\n\nReverts #12', {"pr acme/shop!12", "title Pay"}),
        ('Revert "Pay"\n\nReverts https://github.com/acme/shop/pull/12', {"pr acme/shop!12", "title Pay"}),
        (f'Revert "Pay"\n\nReverts https://github.com/acme/shop/commit/{SHA}', {f"sha {SHA}", "title Pay"}),
        (f"* Undo\n\nThis reverts commit {SHA}.\n\n* More", {f"sha {SHA}"}),
        ("Update a library\n\n### Release notes\n\n* Reverts #12\n* revert #13 fix\nReverts #14", set()),
        ("Update a library\n\n* Reverts acme/shop#12\n> Reverts acme/shop#13\n> This reverts commit 0123456.", set()),
        ("Pay\n\nRollback plan:\n- Revert #12 first\nRevert commit 0123456", set()),
        ("Pay\n\n<!--\nReverts acme/shop#12\n-->\n<!-- Reverts acme/shop#13 -->", set()),
        ("Pay\n\n```\nThis reverts commit 0123456.\n```\n\n    This reverts commit 89abcde.", set()),
        ("Pay\n\nRe-land #9 was tried\nRelands acme/shop#9", set()),
        ('Revert "<!-- ```"\n\nThis reverts commit 0123456.', {"sha 0123456", "title <!-- ```"}),
        ("revert: feat: pay", {"title feat: pay"}),
        ('PAY-1: Revert "Pay"', {"ticket PAY-1", "title Pay"}),
        ('Revert "PAY-1: Pay"', {"ticket PAY-1", "title PAY-1: Pay"}),
        ('Revert "Fix "x" in y"', {'title Fix "x" in y'}),
        ('Reapply "Pay"', {"reland title Pay"}),
        ('Reapply "Pay (#12)"', {"reland pr acme/shop!12", "reland title Pay"}),
        ('Revert "Revert "Pay (#12)" (#13)" (#14)', {"reland pr acme/shop!13", "reland title Pay"}),
        (f'Revert "Revert "Pay""\n\nThis reverts commit {SHA}.', {f"reland sha {SHA}", "reland title Pay"}),
        ('Revert "Reapply "Pay""', {"title Pay"}),
        ('Revert "Revert "Revert "Pay"""', {"title Pay"}),
        ('Re-land "Pay"\n\nRelands #12', {"reland pr acme/shop!12", "reland title Pay"}),
        ("Fix reverts\n\nIt does not revert #12.\nThis changes commit 0123456.", set()),
        ("Reverting is hard", {"title is hard"}),
        ("", set()),
    ],
)
def test_reverts(message: str, expected: set[str]) -> None:
    found = links.reverts_of("acme/shop!50", "acme/shop", message, KNOWN)
    assert {("reland " if each.is_reland else "") + f"{each.kind} {each.reference}" for each in found} == expected


PARTS = [
    *('Revert "', "Reapply", '"', "(#1)", "#1", "PAY-1", "fixes ", "acme/shop", "!2", " ", "\n", "<!--", "-->", "```"),
    *(
        "`",
        "https://",
        "/browse/",
        "This reverts commit ",
        SHA,
        ",",
        "and",
        "\x00",
        "é",
        "Merge ",
        "See merge request ",
    ),
]
TEXTS = st.text() | st.lists(st.sampled_from(PARTS)).map("".join)


@settings(max_examples=50)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_text_raises_and_rows_are_sound(title: str, branch: str, body: str, message: str) -> None:
    for keys in (KNOWN, LISTED, TicketKeys()):
        found = links.links_of(pull(50, branch, title=title), keys, body=body, messages=[message], tracker=[message])
        rows = [(link.pr_id, link.ticket_id, link.source) for link in found]
        assert len(set(rows)) == len(rows)
        reverts = links.reverts_of("acme/shop!50", "acme/shop", f"{title}\n\n{body}", keys)
        for row in [*found, *reverts]:
            assert msgspec.json.decode(msgspec.json.encode(row), type=type(row)) == row
        assert (links.pull_of(message) or 1) > 0


@pytest.mark.parametrize(
    "part",
    [
        *(
            "<!--",
            "`",
            "```\n",
            "#",
            "#1",
            "fixes ",
            "fixes a/a",
            "a/",
            "a",
            "A_",
            "PAY-",
            "https://",
            "https://a/a/issues/",
        ),
        *(
            'Revert "',
            "Reverts #1, ",
            "This reverts commit \n",
            "revert \t",
            "(#1)",
            "[",
            "Merge ",
            "See merge request ",
        ),
        *("- > ", "See merge request a!1", "fix:" + " " * 20, "https://a/browse/A-"),
    ],
)
def test_hostile_text_takes_linear_time(part: str) -> None:
    """It ends at all: with a square, so much text would take longer than a test may."""
    text = part * (200_000 // len(part))
    links.links_of(pull(50, text, title=text), KNOWN, body=text, messages=[text], tracker=[text])
    links.reverts_of("acme/shop!50", "acme/shop", text, KNOWN)
    assert links.pull_of(text) is None or part == "(#1)"
