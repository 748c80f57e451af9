"""Which ticket and task a call belongs to: keys in what people write, the weighing of evidence, what is remembered."""

import csv
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Ask, Attribution, Client, Principal
from gateway.claims import Claim, Claims, fingerprint, new_key, sign
from gateway.config import TicketSettings
from gateway.errors import Refusal
from gateway.repositories import branch_name, repo_name
from gateway.sessions import GAP_US, REMEMBERED_US, SESSIONS_MAX, Remembered, Sessions, Tasks
from gateway.ticket_keys import Found, TicketKeys
from gateway.tickets import Tickets
from gateway.tracker import Snapshot, Tracker, split
from gateway.worktrees import Checkout

WORK_DATA = os.environ.get("OUTLAY_WORK_DATA")
NOW = 1_795_653_349_000_000
SYNCED = Snapshot(
    synced_us=NOW,
    tickets={"PAY-123": "open", "PAY-7": "closed", "OPS-2": "open", "acme/shop#45": "open", "lib/x#1": "closed"},
    aliases={"OLD-5": "PAY-7"},
    pulls={"acme/shop#46": ("PAY-123", "OPS-2"), "acme/shop#47": ()},
    branches={"acme/shop": {"fix-rounding": ("PAY-123",), "feature/OPS-2": ("PAY-123",)}},
    commits={"b16e3137": ("PAY-123",)},
)
ANY, LISTED, KNOWN = TicketKeys(), TicketKeys(["PAY", "acme/shop"]), TicketKeys(tracker=SYNCED)


# -- keys in what people write ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("PAY-123", Found(("PAY-123",))),
        (" PAY-1 , acme/shop#45,PAY-1", Found(("PAY-1", "acme/shop#45"))),
        ("group/sub/project#3", Found(("group/sub/project#3",))),
        ("https://acme.example.net/browse/PAY-7", Found(("PAY-7",))),
        ("https://linear.app/acme/issue/ENG-12/fix-it", Found(("ENG-12",))),
        ("https://github.com/acme/shop/issues/45", Found(("acme/shop#45",))),
        ("https://gitlab.example.com/group/sub/project/-/issues/3", Found(("group/sub/project#3",))),
        ("#45", Found(candidates=("acme/shop#45",))),
        ("PAY-1,#45", Found(candidates=("PAY-1", "acme/shop#45"))),
        ("pay-123", Found(ignored="malformed")),
        ("PAY-0", Found(ignored="malformed")),
        ("PAY-123456789", Found(ignored="malformed")),
        ("PAY-1,nonsense", Found(ignored="malformed")),
        ("ΡΑΥ-123", Found(ignored="malformed")),  # Greek capitals that look the same
        ("РAY-1", Found(ignored="malformed")),  # a Cyrillic one
        ("PAY-1\u0661", Found(ignored="malformed")),
        ("PAY\u20111", Found(ignored="malformed")),
        ("PAY-1\x00", Found(ignored="malformed")),
        ("PAY-1,", Found(ignored="malformed")),
        ("INT-42", Found(("INT-42",))),  # the deny list is for what is searched, not for what is stated
        ("CVE-2021-44228", Found(ignored="malformed")),
        ("PAY-1\n", Found(ignored="malformed")),
        ("PAY-1" + " " * 2000, Found(ignored="too_long")),
        ("P" * 10_000, Found(ignored="too_long")),
        (",".join(f"PAY-{n}" for n in range(1, 60)), Found(ignored="too_many")),
        ("", Found()),
        (None, Found()),
    ],
)
def test_values_that_name_tickets(value: str | None, expected: Found) -> None:
    assert ANY.named(value, "acme/shop") == expected


def test_an_allow_list_is_the_law() -> None:
    assert LISTED.named("PAY-1,acme/shop#2").tickets == ("PAY-1", "acme/shop#2")
    assert LISTED.named("pay-1").tickets == ("PAY-1",), "lower case can be told with a list"
    assert LISTED.named("OPS-8").ignored == "other_project"
    assert LISTED.named("acme/other#2").ignored == "other_project"
    assert TicketKeys(["UTF"]).named("UTF-8").tickets == ("UTF-8",), "a project of the list that is on the deny list"
    assert LISTED.named("Acme/Shop#2").tickets == ("acme/shop#2",), "forges take any case"
    assert TicketKeys(deny=["rel"]).in_branch("fix/REL-2") == Found()


def test_what_the_tracker_knows() -> None:
    assert KNOWN.named("OLD-5").tickets == ("PAY-7",), "a moved ticket"
    assert KNOWN.named("#45", "acme/shop").tickets == ("acme/shop#45",)
    assert KNOWN.named("#46", "acme/shop").tickets == ("PAY-123", "OPS-2"), "a pull request stands for its tickets"
    assert KNOWN.named("acme/shop#46").tickets == ("PAY-123", "OPS-2")
    assert KNOWN.named("#99", "acme/shop") == Found(candidates=("acme/shop#99",))
    assert KNOWN.named("#99").ignored == "malformed", "of which repository?"
    assert KNOWN.named("NEW-1").tickets == ("NEW-1",), "stated, so it counts, as unknown"
    assert KNOWN.named("#47", "acme/shop") == Found(candidates=("acme/shop#47",)), "a pull request without tickets"
    assert KNOWN.named("ACME/Shop#45").tickets == ("acme/shop#45",)
    assert KNOWN.in_branch("fix/OLD-5").tickets == ("PAY-7",), "the project that it was moved from has none left"
    only_pay = TicketKeys(["PAY"], tracker=SYNCED)
    assert only_pay.named("#46", "acme/shop").ignored == "other_project", "also by way of a pull request"


def test_pull_requests_that_name_each_other_lead_nowhere() -> None:
    pulls = {"acme/shop#1": ("acme/shop#2",), "acme/shop#2": ("acme/shop#1",), "acme/shop#3": ("acme/shop#3",)}
    pulls |= {f"acme/shop#{n}": (f"acme/shop#{n + 1}",) for n in range(100, 2000)}
    keys = TicketKeys(tracker=Snapshot(tickets={"PAY-1": "open"}, pulls=pulls))
    for number in (1, 2, 3, 100):
        found = keys.named(f"acme/shop#{number}")
        assert found.tickets == ()
        assert found.candidates


def test_a_tracker_of_another_kind_changes_nothing_for_keys() -> None:
    synced = Snapshot(tickets={"acme/shop#45": "open"})
    keys = TicketKeys(tracker=synced)
    assert keys.in_branch("feature/PAY-123-x").tickets == ("PAY-123",)
    assert synced.state("PAY-123") == "unchecked"
    assert synced.state("acme/other#1") == "unknown"


def test_projects_that_are_partly_known() -> None:
    partly = Snapshot(tickets={"PAY-123": "open", "OPS-2": "closed"}, partial=["PAY"])
    states = [partly.state(ticket) for ticket in ("PAY-123", "PAY-7", "OPS-1", "NEW-1")]
    assert states == ["known", "unchecked", "unknown", "unknown"]
    only = Snapshot(tickets={"PAY-123": "open"}, partial=["PAY"])
    assert [only.state(ticket) for ticket in ("PAY-123", "PAY-7", "NEW-1")] == ["known", "unchecked", "unchecked"]
    assert TicketKeys(tracker=only).in_branch("fix/NEW-1").tickets == ("NEW-1",), "no allow-list of a part"


@pytest.mark.parametrize(
    ("ticket", "state"),
    [
        ("PAY-123", "known"),
        ("PAY-7", "closed"),
        ("PAY-8", "unknown"),
        ("PAY-124", "unchecked"),  # may be newer than the last sync
        ("NEW-1", "unknown"),
        ("acme/shop#45", "known"),
        ("acme/shop#44", "unknown"),
        ("INC0000001", "unknown"),
        ("PAY-" + "9" * 5000, "unknown"),
    ],
)
def test_states(ticket: str, state: str) -> None:
    assert SYNCED.state(ticket) == state
    assert Snapshot().state(ticket) == "unchecked"


@pytest.mark.parametrize(
    ("branch", "any_", "listed", "known"),
    [
        ("feature/PAY-123-fix-rounding", "PAY-123", "PAY-123", "PAY-123"),
        ("PAY-123", "PAY-123", "PAY-123", "PAY-123"),
        ("dev/PAY-123_fix", "PAY-123", "PAY-123", "PAY-123"),
        ("fix/pay-123", "", "PAY-123", "PAY-123"),
        ("fix/pay-99", "", "PAY-99", ""),  # lower case has to be a ticket that there is, where that is known
        ("fix/pay-124", "", "PAY-124", "PAY-124"),  # perhaps a new one
        ("user_pay-123-x", "", "PAY-123", "PAY-123"),
        ("fix-pay-123", "", "", ""),  # not at the start of a segment
        ("PAY-1-PAY-2", "PAY-1 PAY-2", "PAY-1 PAY-2", "PAY-1 PAY-2"),
        ("FIX_PAY-123", "PAY-123", "PAY-123", "PAY-123"),
        ("RC_UTF-8", "", "", ""),
        ("fix/V2-1", "", "", ""),
        ("feature/PAY-123-größe", "PAY-123", "PAY-123", "PAY-123"),
        ("feature/жPAY-123", "", "", ""),
        ("fix/ſPAY-1", "", "", ""),
        ("fix/OPS-8-x", "OPS-8", "", "OPS-8"),
        ("XPAY-12", "XPAY-12", "", ""),
        ("PAY-0", "", "", ""),
        ("PAY-123456789", "", "", ""),
        ("feature/UTF-8-names", "", "", ""),
        ("fix/CVE-2021-44228", "", "", ""),
        ("release/3.2", "", "", ""),
        ("commons-lang-3.2", "", "", ""),
        ("dependabot/npm_and_yarn/lodash-4.17.21", "", "", ""),
        ("patch-1", "", "", ""),
        ("main", "", "", ""),
        ("fix/ΡΑΥ-123", "", "", ""),
        ("fix-rounding", "", "", "PAY-123"),  # its pull request says so
    ],
)
def test_branches(branch: str, any_: str, listed: str, known: str) -> None:
    for keys, expected in ((ANY, any_), (LISTED, listed), (KNOWN, known)):
        assert " ".join(keys.in_branch(branch, "acme/shop").tickets) == expected


def test_a_number_in_a_branch_is_a_candidate() -> None:
    for branch in ("45-fix-rounding", "issue-45", "feature/45", "gh-45-x", "issue/45"):
        assert KNOWN.in_branch(branch, "acme/shop") == Found(candidates=("acme/shop#45",))
    assert KNOWN.in_branch("45-fix") == Found()
    everything = Snapshot(branches={"acme/shop": {"release/1": tuple(f"PAY-{n}" for n in range(1, 60))}})
    assert TicketKeys(tracker=everything).in_branch("release/1", "acme/shop").ignored == "too_many"
    assert KNOWN.in_branch("feature/OPS-2", "acme/shop") == Found(("OPS-2",), ("PAY-123",)), "its pull request differs"


@pytest.mark.parametrize(
    ("text", "any_", "known"),
    [
        ("PAY-123: fix rounding (#46)", "PAY-123", "PAY-123"),
        ("Fix PAY-123, PAY-7 and OLD-5", "PAY-123 PAY-7 OLD-5", "PAY-123 PAY-7"),
        ("see https://t.example/browse/PAY-7", "", "PAY-7"),
        ("Read UTF-8 with SHA-256 (CVE-2021-44228)", "", ""),
        ("[pay-123] fix", "", ""),
        ("Upgrade commons-lang-3.20.0 and zookeeper-3.5.9.jar", "", ""),
        ("closes acme/shop#45", "", "acme/shop#45"),
        ("xacme/shop#45", "", ""),
    ],
)
def test_texts(text: str, any_: str, known: str) -> None:
    assert " ".join(ANY.in_text(text)) == any_
    assert " ".join(KNOWN.in_text(text)) == known


def test_an_installations_own_patterns() -> None:
    keys = TicketKeys(["PAY"], patterns=["(INC|CHG)[0-9]{7}", "WO[0-9]+"])
    assert keys.named("INC0012345,WO7").tickets == ("INC0012345", "WO7")
    assert keys.in_branch("fix/INC0012345-x").tickets == ("INC0012345",)
    assert keys.in_branch("fix/XINC0012345-x").tickets == ()
    assert keys.in_text("CHG0000001 and PAY-2") == ("CHG0000001", "PAY-2")
    assert keys.named("INC\u0661234567").ignored == "malformed", "digits of other scripts are none"
    wide = TicketKeys(patterns=["INC[^,]+", "(?i)chg[0-9]+", "(?P<n>A)1", "(?P<n>B)1"])
    assert wide.named("INC1\nx-evil: 1").ignored == "malformed"
    assert wide.named("chg12").tickets == ("chg12",)


@pytest.mark.skipif(WORK_DATA is None, reason="OUTLAY_WORK_DATA does not name the folder of recorded tracker payloads")
def test_recorded_branches_titles_and_commits_name_no_wrong_ticket() -> None:
    """None of those projects has keys like these: whatever is found is wrong."""
    csv.field_size_limit(2**31)
    branches, texts = set(), []
    of = "github_api_pull_requests", "github_api_pull_request_commits", "gitlab_api_merge_requests"
    for name in (*of, "gitlab_api_merge_request_commits"):
        with (Path(WORK_DATA or "") / "devlake" / f"_raw_{name}.csv").open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                data = json.loads(row["data"])
                branches.add(data.get("source_branch") or data.get("head", {}).get("ref") or "")
                texts += [data.get(key) or "" for key in ("title", "description", "body", "message")]
                texts.append(data.get("commit", {}).get("message", ""))
    assert len(branches) > 30
    assert len(texts) > 500
    for keys in (ANY, KNOWN, TicketKeys(["PAY", "OPS", "K5", "EE"])):
        assert not [found for name in branches if (found := keys.in_branch(name, "acme/other").tickets)]
        assert not [found for text in texts if (found := keys.in_text(text))]


@given(st.text(alphabet="PAYpay-_/123#acme.shop ſﬁжü١", max_size=60))
def test_only_what_is_written_there_is_found(text: str) -> None:
    for ticket in (*LISTED.in_branch(text, "acme/shop").tickets, *LISTED.in_text(text), *LISTED.named(text).tickets):
        assert ticket.isascii()
        assert ticket in text or ticket.lower() in text or ticket.replace("PAY", "Pay") in text


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("acme/billing-core", "acme/billing-core"),
        ("git@github.com:acme/billing-core.git", "acme/billing-core"),
        ("https://dev:secret@github.com/acme/billing-core.git", "acme/billing-core"),
        ("https://gitlab.example.com/group/sub/project", "group/sub/project"),
        ("ssh://git@example.com:2222/acme/shop.git", "acme/shop"),
        ("/srv/git/shop.git", None),
        ("acme", None),
        ("acme/shop; rm -rf", None),
        ("acme/../shop", None),
        ("аcme/shop", None),
        ("x/" * 200, None),
        (None, None),
    ],
)
def test_names_of_repositories(value: str | None, name: str | None) -> None:
    assert repo_name(value) == name


def test_names_of_branches() -> None:
    assert branch_name("feature/x") == "feature/x"
    assert branch_name("refs/heads/feature/größe") == "feature/größe"
    for odd in ("", None, "a b", "a\nb", "a\u200bb", "x" * 256):
        assert branch_name(odd) is None


def test_projects_of_tickets() -> None:
    assert [split(ticket) for ticket in ("PAY-12", "acme/a-1#3", "INC7")] == [("PAY", 12), ("acme/a-1", 3), ("INC7", 0)]


# -- the weighing ----------------------------------------------------------------------------------------------------


class Weighing:
    """`Tickets`, and a call's evidence given by name."""

    def __init__(self, settings: TicketSettings | None = None, tracker: Snapshot | None = None) -> None:
        self.claim_key, public = new_key("ab12")
        self.known = Tracker.__new__(Tracker)
        self.known.now = tracker or Snapshot()
        self.claim_keys = {"key_ab12": (public, None)}
        self.checkouts: dict[str | None, Checkout] = {}
        self.tickets = Tickets(settings or TicketSettings(), Claims(self.claim_keys.get, lambda: NOW / 1e6), self.known)
        self.tasks = Tasks()
        self.now = NOW

    def claim(self, *tickets: str, **fields: object) -> str:
        at = NOW // 1_000_000
        made = {"key": fingerprint("olk_1"), "issued_at": at, "expires_at": at + 60, **fields}
        return sign(self.claim_key, msgspec.convert({"tickets": tickets, **made}, Claim))

    def __call__(self, client: Client | None = None, **given: str) -> Attribution:
        headers = {name.replace("_", "-"): value for name, value in given.items() if name.startswith("x_")}
        principal = Principal("key_1", ticket=given.get("key"), fingerprint=fingerprint("olk_1"))
        ask, client = Ask(ticket=given.get("metadata")), client or Client()
        self.now += 1_000_000
        checkout = self.checkouts.get(client.folder)
        found = self.tickets.attribute(
            principal, headers, given.get("path"), given.get("task"), ask, client, checkout, self.now
        )
        task = found.task_id or self.tasks.of(("key_1", client.name), found.tickets, self.now)
        return msgspec.structs.replace(found, task_id=task)


def test_the_strongest_evidence_wins_and_the_rest_is_kept() -> None:
    weigh = Weighing()
    given = {
        "x_outlay_claim": weigh.claim("PAY-1"),
        "key": "PAY-2",
        "x_outlay_ticket": "PAY-3,PAY-2",
        "path": "PAY-4",
        "metadata": "PAY-5",
        "x_outlay_branch": "fix/PAY-6",
    }
    order = ["claim", "key", "header", "path", "metadata", "branch"]
    for source, name in zip(order, list(given), strict=True):
        found = weigh(**given)
        assert found.ticket_source == source
        assert found.ticket_state == "unchecked"
        assert not any(candidate.endswith(found.tickets) for candidate in found.candidates)
        del given[name]
    assert weigh().ticket_source == "none"
    found = weigh(key="PAY-2", x_outlay_ticket="PAY-3,PAY-2", path="PAY-2", x_outlay_branch="fix/PAY-6")
    assert found.candidates == ("header:PAY-3", "branch:PAY-6")


def test_what_is_no_evidence_is_ignored_and_counted() -> None:
    found = Weighing()(x_outlay_ticket="nonsense", path="PAY-9", x_outlay_repo="a b", x_outlay_branch="a b")
    assert (found.tickets, found.ticket_source) == (("PAY-9",), "path")
    assert found.ignored == ("repo:malformed", "branch:malformed", "header:malformed")
    assert found.candidates == ("repo:(malformed)", "branch:(malformed)", "header:(malformed)")


def test_the_branch_that_is_believed() -> None:
    weigh = Weighing()
    weigh.checkouts["/src/shop"] = Checkout(Path("/src/shop"), Path("/src/shop/.git"), "acme/shop", "fix/PAY-2-now")
    started = Client(branch="fix/PAY-1-old", is_branch_old=True)
    assert weigh(started).branch == "fix/PAY-1-old"
    here = msgspec.structs.replace(started, folder="/src/shop")
    found = weigh(here)
    assert (found.branch, found.repo) == ("fix/PAY-2-now", "acme/shop")
    assert weigh(msgspec.structs.replace(here, is_branch_old=False)).branch == "fix/PAY-1-old"
    moved = weigh(here, x_outlay_branch="fix/PAY-3")
    assert (moved.tickets, moved.candidates) == (("PAY-2",), ("branch:PAY-3",)), (
        "the tool was started before a checkout"
    )
    assert weigh(started, x_outlay_branch="fix/PAY-3").tickets == ("PAY-3",)
    assert weigh(Client(folder="/src/elsewhere")).branch is None
    weigh.checkouts["/src/shop"] = Checkout(Path("/src/shop"), Path("/src/shop/.git"), "acme/shop", None)
    assert (weigh(here).branch, weigh(here).tickets) == ("HEAD", ()), "a checkout on no branch"
    assert weigh(here, x_outlay_branch="fix/PAY-3").tickets == ("PAY-3",), "as CI systems leave it"


@pytest.mark.parametrize(
    ("header", "branch"),
    [
        ("PAY-3/%E6%97%A5%E6%9C%AC", "PAY-3/日本"),
        ("PAY-3/日本", "PAY-3/日本"),  # of a client that encodes nothing
        ("PAY-3/日本%25", "PAY-3/日本%25"),
        ("PAY-3/100%", "PAY-3/100%"),
        ("PAY-3/%2541", "PAY-3/%41"),
        ("PAY-3%0Ax-outlay-ticket:%20PAY-4", None),
        ("PAY-3%20x", None),
        ("%00", None),
    ],
)
def test_the_branch_in_a_header_is_decoded(header: str, branch: str | None) -> None:
    found = Weighing()(x_outlay_branch=header)
    assert (found.branch, found.tickets) == (branch, ("PAY-3",) if branch else ())
    assert found.ignored == (() if branch else ("branch:malformed",))


def test_a_commit_of_an_open_pull_request() -> None:
    found = Weighing(tracker=SYNCED)(Client(repo="acme/shop", commit_sha="b16e3137"))
    assert (found.tickets, found.ticket_source, found.ticket_state) == (("PAY-123",), "branch", "known")


def test_several_tickets_are_as_known_as_the_least_known_one() -> None:
    weigh = Weighing(tracker=SYNCED)
    assert weigh(x_outlay_ticket="PAY-123,PAY-7").ticket_state == "closed"
    assert weigh(x_outlay_ticket="PAY-123,PAY-8").ticket_state == "unknown"


def test_what_the_tracker_learns_counts_with_the_next_call() -> None:
    weigh = Weighing()
    assert weigh(x_outlay_ticket="#46", x_outlay_repo="acme/shop").candidates == ("header:acme/shop#46",)
    weigh.known.now = SYNCED
    assert weigh(x_outlay_ticket="#46", x_outlay_repo="acme/shop").tickets == ("PAY-123", "OPS-2")


EVIDENCE = st.fixed_dictionaries(
    {},
    optional={
        "key": st.just("PAY-8"),
        "x_outlay_ticket": st.sampled_from(["PAY-1", "PAY-1,#46", "#46", "nonsense", "x" * 600]),
        "path": st.sampled_from(["PAY-2", "#46"]),
        "metadata": st.just("PAY-3"),
        "x_outlay_repo": st.sampled_from(["acme/shop", "a b"]),
        "x_outlay_branch": st.sampled_from(["PAY-123-x", "main", "a b", "HEAD"]),
    },
)
PLACES = st.builds(
    Client,
    st.sampled_from([None, "codex"]),
    derived_task=st.sampled_from([None, "d"]),
    branch=st.sampled_from([None, "fix/PAY-5"]),
    is_branch_old=st.booleans(),
    commit_sha=st.sampled_from([None, "c" * 40]),
)


@given(st.lists(st.tuples(EVIDENCE, PLACES, st.booleans()), max_size=20))
def test_what_is_remembered_of_calls_without_a_session_is_what_it_would_be_anew(
    calls: list[tuple[dict[str, str], Client, bool]],
) -> None:
    one, each_anew = Weighing(), Weighing()
    for shown, client, is_synced in calls:
        for weigh in (one, each_anew):
            weigh.known.now = SYNCED if is_synced else Snapshot()
        each_anew.tickets._alone.clear()
        each_anew.tickets._weighings.clear()
        found, anew = one(client, **shown), each_anew(client, **shown)
        assert msgspec.structs.replace(found, task_id=None) == msgspec.structs.replace(anew, task_id=None)
        assert client.derived_task in (None, found.task_id)


# -- claims ----------------------------------------------------------------------------------------------------------


def test_a_claim_is_bound_to_key_repository_and_branch() -> None:
    weigh = Weighing()
    claim = weigh.claim("PAY-1", "PAY-2", repo="acme/shop", branch="fix/PAY-1")
    found = weigh(x_outlay_claim=claim)
    assert (found.tickets, found.ticket_source) == (("PAY-1", "PAY-2"), "claim")
    assert (found.repo, found.branch) == ("acme/shop", "fix/PAY-1")
    assert weigh(x_outlay_claim=claim, x_outlay_branch="fix/PAY-1", x_outlay_repo="acme/shop").ticket_source == "claim"
    assert weigh(x_outlay_claim=claim, x_outlay_branch="main").ignored == ("claim:other_branch",)
    assert weigh(x_outlay_claim=claim, x_outlay_repo="acme/other").ignored == ("claim:other_repo",)
    assert weigh(x_outlay_claim=weigh.claim("PAY-1", key=fingerprint("olk_2"))).ignored == ("claim:other_key",)
    assert weigh(x_outlay_claim=weigh.claim("PAY-1", key=None)).ignored == ("claim:other_key",)


def test_claims_that_do_not_count() -> None:
    weigh, other = Weighing(), Weighing()
    good = weigh.claim("PAY-1")
    head, payload, signature = good.split(".")
    at = NOW // 1_000_000
    for sent, reason in {
        "nonsense": "malformed",
        "a.b.c": "malformed",
        "x" * 10_000: "malformed",
        f"{head}.{payload}.": "bad_signature",
        f"{head}.{payload}.{'A' * len(signature)}": "bad_signature",
        f"{head}.{weigh.claim('PAY-2').split('.')[1]}.{signature}": "bad_signature",
        other.claim("PAY-1"): "bad_signature",  # of a key with the same name
        weigh.claim("PAY-1", expires_at=at - 100): "expired",
        weigh.claim("PAY-1", issued_at=at + 100): "not_yet",
        weigh.claim("PAY-1", expires_at=at + 30 * 24 * 3600): "too_long_lived",
    }.items():
        found = weigh(x_outlay_claim=sent)
        assert (found.tickets, found.ignored) == ((), (f"claim:{reason}",)), sent
    assert weigh(x_outlay_claim=good).tickets == ("PAY-1",)
    assert weigh(x_outlay_claim=weigh.claim("nonsense")).ignored == ("claim:malformed",)
    assert weigh(x_outlay_claim=weigh.claim("#1")).tickets == ()


def test_no_other_algorithm_signs_a_claim() -> None:
    import jwt

    weigh = Weighing()
    payload = {"iat": NOW // 1_000_000, "exp": NOW // 1_000_000 + 60, "tickets": ["PAY-1"], "key": fingerprint("olk_1")}
    none = jwt.encode(payload, None, algorithm="none", headers={"kid": "key_ab12"})
    shared = jwt.encode(payload, "a-shared-secret-of-enough-bytes-00", algorithm="HS256", headers={"kid": "key_ab12"})
    for forged in (none, shared):
        assert weigh(x_outlay_claim=forged).ignored in (("claim:malformed",), ("claim:bad_signature",))


def test_a_claim_key_that_is_revoked_or_of_another_team() -> None:
    claim_key, public = new_key("ab12")
    in_force: dict[str, tuple[str, str | None]] = {"key_ab12": (public, "payments")}
    tracker = Tracker.__new__(Tracker)
    tracker.now = Snapshot()
    tickets = Tickets(TicketSettings(), Claims(in_force.get, lambda: NOW / 1e6), tracker)
    at = NOW // 1_000_000
    sent = sign(claim_key, Claim(tickets=("PAY-1",), issued_at=at, expires_at=at + 60))

    def weigh(team: str) -> Attribution:
        headers = {"x-outlay-claim": sent}
        return tickets.attribute(Principal(team_id=team), headers, None, None, Ask(), Client(), None, NOW)

    assert weigh("payments").tickets == ("PAY-1",)
    assert weigh("search").ignored == ("claim:other_team",)
    in_force.clear()
    assert weigh("payments").ignored == ("claim:unknown_claim_key",), "also when it was verified before"


@given(st.text(max_size=200))
def test_no_claim_is_too_odd(sent: str) -> None:
    assert Weighing()(x_outlay_claim=sent).ticket_source == "none"


# -- sessions and tasks ----------------------------------------------------------------------------------------------


def test_tasks_that_are_named() -> None:
    weigh = Weighing()
    session = Client(session_id="s", conversation_id="p")
    assert weigh(session, x_outlay_task="t1", task="t2").task_id == "t1"
    assert weigh(session, task="t2").task_source == "path"
    assert (weigh(session).task_id, weigh(session).task_source) == ("p", "conversation")
    assert weigh(Client(session_id="s")).task_source == "session"
    odd = weigh(x_outlay_task="no spaces allowed")
    assert (odd.task_source, odd.ignored) == ("none", ("header:malformed_task",))


def test_a_session_carries_its_ticket() -> None:
    weigh = Weighing()
    main = Client("claude-code", session_id="s", branch="fix/PAY-1", is_branch_old=True)
    side = Client("claude-code", session_id="s", agent="side")
    assert weigh(side).tickets == (), "nothing was said yet"
    weigh(main)
    found = weigh(side)
    assert (found.tickets, found.ticket_source, found.branch) == (("PAY-1",), "task", "fix/PAY-1")
    assert weigh(Client("claude-code", session_id="other")).tickets == ()
    assert weigh(Client("codex", session_id="s")).tickets == ()
    weigh(main, x_outlay_ticket="PAY-2")
    assert weigh(side).tickets == ("PAY-2",), "the last word counts"


def test_a_session_that_changes_its_branch_carries_nothing_over() -> None:
    weigh = Weighing()
    weigh(Client("x", session_id="s", branch="fix/PAY-1"))
    found = weigh(Client("x", session_id="s", branch="main"))
    assert (found.tickets, found.branch) == ((), "main")
    assert weigh(Client("x", session_id="s")).tickets == (), "the last word was that there is none"


@pytest.mark.parametrize(
    "shown",
    [
        {"x_outlay_ticket": "pay-2"},
        {"x_outlay_ticket": "#46", "x_outlay_repo": "acme/shop"},
        {"x_outlay_claim": "no claim"},
        {"x_outlay_branch": "no branch"},
        {"x_outlay_branch": "45-fix", "x_outlay_repo": "acme/shop"},
        {"x_outlay_repo": "acme/other"},
        {"x_outlay_repo": "no repo"},
        {"path": "nonsense"},
        {"metadata": "nonsense"},
    ],
)
def test_a_call_that_shows_something_of_its_own_inherits_nothing(shown: dict[str, str]) -> None:
    weigh = Weighing()
    weigh(Client("x", session_id="s"), x_outlay_ticket="PAY-1", x_outlay_repo="acme/shop")
    assert weigh(Client("x", session_id="s"), **shown).tickets == ()
    assert weigh(Client("x", session_id="s")).tickets == (() if "45-fix" in shown.values() else ("PAY-1",))


def test_a_revoked_claim_ends_at_once_in_its_session_too() -> None:
    weigh = Weighing()
    claim = weigh.claim("PAY-1")
    assert weigh(Client("x", session_id="s"), x_outlay_claim=claim).tickets == ("PAY-1",)
    weigh.claim_keys.clear()
    assert weigh(Client("x", session_id="s"), x_outlay_claim=claim).tickets == ()


def test_what_a_session_began_with_is_no_reason_against_a_claim() -> None:
    weigh = Weighing()
    began = Client("claude-code", session_id="s", branch="fix/PAY-1", is_branch_old=True)
    found = weigh(began, x_outlay_claim=weigh.claim("PAY-2", branch="fix/PAY-2"))
    assert (found.tickets, found.branch) == (("PAY-2",), "fix/PAY-2")


def test_the_present_branch_of_a_session_outranks_what_others_of_its_calls_began_with() -> None:
    weigh = Weighing()
    began = Client("claude-code", session_id="s", branch="fix/PAY-1", is_branch_old=True)
    weigh(began)
    weigh(msgspec.structs.replace(began, branch="fix/PAY-2", is_branch_old=False))
    assert weigh(began).tickets == ("PAY-2",)
    assert weigh(began, x_outlay_branch="fix/PAY-1").tickets == ("PAY-2",)
    assert weigh(Client("claude-code", session_id="s")).tickets == ("PAY-2",)


def test_a_subagent_inherits_from_its_parent() -> None:
    weigh = Weighing()
    weigh(Client("opencode", session_id="root"), x_outlay_ticket="PAY-1")
    found = weigh(Client("opencode", session_id="child", conversation_id="root"))
    assert (found.tickets, found.task_id) == (("PAY-1",), "root")


def test_a_derived_task_passes_nothing_on() -> None:
    weigh = Weighing()
    derived = Client("gemini-cli", derived_task="d")
    weigh(derived, x_outlay_ticket="PAY-1")
    found = weigh(derived)
    assert (found.task_id, found.task_source, found.tickets) == ("d", "none", ())


def test_a_named_task_carries_its_ticket_and_no_other_does() -> None:
    weigh = Weighing()
    session = Client("x", session_id="s")
    weigh(session, x_outlay_ticket="PAY-1", x_outlay_task="t1")
    assert weigh(session, x_outlay_task="t1").tickets == ("PAY-1",)
    assert weigh(session, x_outlay_task="t2").tickets == ()


def test_a_key_that_is_bound_to_a_ticket_says_nothing_of_the_session() -> None:
    weigh = Weighing()
    weigh(Client("x", session_id="s"), key="PAY-1")
    assert weigh(Client("x", session_id="s")).tickets == ()


def test_calls_that_name_no_task_are_one_until_silence() -> None:
    weigh = Weighing()
    first = weigh(Client("aider"))
    assert (first.task_source, first.ticket_source) == ("none", "none")
    assert weigh(Client("aider"), path="PAY-1").task_id == first.task_id, "it takes the first ticket"
    guessed = weigh(Client("aider"))
    assert (guessed.task_id, guessed.tickets) == (first.task_id, ()), "a guessed task carries no ticket"
    assert weigh(Client("aider"), path="PAY-2").task_id != first.task_id
    assert weigh(Client("aider"), path="PAY-1").task_id == first.task_id
    assert weigh(Client("curl")).task_id != first.task_id
    weigh.now += GAP_US + 1
    assert weigh(Client("aider"), path="PAY-1").task_id != first.task_id


def test_a_guessed_task_ends_after_a_day() -> None:
    tasks = Tasks()
    first = tasks.of(("k", None), (), NOW)
    later = NOW
    while later < NOW + REMEMBERED_US:
        assert tasks.of(("k", None), (), later) == first
        later += GAP_US
    assert tasks.of(("k", None), (), later + 1) != first


def test_sessions_are_forgotten_and_bounded() -> None:
    sessions = Sessions()
    said = Remembered(("PAY-1",), None, None, False, NOW)
    sessions.remember(("k", None), "s", said)
    assert sessions.recall(("other", None), "s", NOW) is None
    assert sessions.recall(("k", None), "s", NOW + REMEMBERED_US) is said
    assert sessions.recall(("k", None), "s", NOW + 2 * REMEMBERED_US + 1) is None
    for number in range(SESSIONS_MAX):
        sessions.remember(("greedy", None), f"s{number}", said)
    assert sessions.recall(("k", None), "s", NOW) is said, "who has many sessions displaces its own"
    assert sessions.recall(("greedy", None), "s0", NOW) is None
    for number in range(SESSIONS_MAX):
        sessions.remember((f"k{number}", None), "s", said)
    assert sessions.recall(("k", None), "s", NOW) is None


# -- policies --------------------------------------------------------------------------------------------------------


def demanded(settings: TicketSettings, principal: Principal, client: Client, tracker: Snapshot, **given: str) -> str:
    weigh = Weighing(settings, tracker)
    try:
        weigh.tickets.demand(principal, client, weigh(client, **given))
    except Refusal as refusal:
        return f"{refusal.code}: {refusal.message}"
    return "passes"


@pytest.mark.parametrize(
    ("client", "how"),
    [
        ("claude-code", "ANTHROPIC_CUSTOM_HEADERS"),
        ("codex", "http_headers"),
        ("gemini-cli", "GEMINI_CLI_CUSTOM_HEADERS"),
        ("opencode", "outlay run --ticket PAY-123 -- opencode"),
        ("aider", "/t/PAY-123"),
        (None, "x-outlay-ticket"),
    ],
)
def test_a_demand_for_a_ticket_says_how_to_give_one_with_this_tool(client: str | None, how: str) -> None:
    said = demanded(TicketSettings(policy="required"), Principal(), Client(client), Snapshot())
    assert said.startswith("ticket_required")
    assert how in said


def test_a_demand_says_what_was_ignored() -> None:
    said = demanded(TicketSettings(policy="required"), Principal(), Client(), Snapshot(), x_outlay_ticket="utf8")
    assert "header:malformed" in said


def test_policies_of_key_team_and_all() -> None:
    settings = TicketSettings(policy="optional", teams={"payments": "required"})
    assert demanded(settings, Principal(team_id="search"), Client(), Snapshot()) == "passes"
    assert demanded(settings, Principal(team_id="payments"), Client(), Snapshot()).startswith("ticket_required")
    free = Principal(team_id="payments", ticket_policy="optional")
    assert demanded(settings, free, Client(), Snapshot()) == "passes"


def test_known_tickets_only() -> None:
    settings = TicketSettings(policy="known")
    for ticket in ("PAY-123", "PAY-7", "PAY-999"):  # open, closed, newer than the last sync
        assert demanded(settings, Principal(), Client(), SYNCED, x_outlay_ticket=ticket) == "passes"
    said = demanded(settings, Principal(), Client("codex"), SYNCED, x_outlay_ticket="PAY-8")
    assert said.startswith("ticket_unknown")
    assert "PAY-8 (from the header)" in said
    assert demanded(settings, Principal(), Client(), Snapshot(), x_outlay_ticket="PAY-8") == "passes", "nothing synced"


def test_side_calls_pass_without_a_ticket() -> None:
    settings = TicketSettings(policy="required")
    assert demanded(settings, Principal(), Client("gemini-cli", agent="side"), Snapshot()) == "passes"
