"""Attribution: which ticket and task a call belongs to, and how we know. The strongest evidence wins, the rest is kept.

Order of trust: claim, key, header, path, metadata, branch, task. What is no ticket is ignored and counted with its
reason, never guessed at; what only may be one is a candidate.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from gateway import claims
from gateway.call import Ask, Attribution, Client, Principal, TaskSource, TicketPolicy, TicketSource, TicketState
from gateway.claims import Claim, ClaimError, Claims
from gateway.config import TicketSettings
from gateway.errors import Refusal
from gateway.repositories import branch_name, header_branch, repo_name
from gateway.sessions import Remembered, Sessions
from gateway.ticket_keys import SEEN_CHARS_MAX, SEEN_MAX, Found, TicketKeys
from gateway.tracker import Tracker
from gateway.worktrees import Checkout

Headers = Mapping[str, str]
TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}", re.ASCII)
STATES: tuple[TicketState, ...] = ("unknown", "unchecked", "closed", "known")
"""Of several tickets, the first of these that one of them is in."""
CANDIDATES_MAX = 20
ALONE_MAX = 1000
"""Calls of no session, each another one, of which it is remembered what they come to."""
DETACHED = "HEAD"
"""What git calls the branch of a checkout that is on none."""


FLEETING = frozenset({"x-outlay-claim", "x-outlay-task"})
"""Fields by which what a call comes to depends on the time, or on what was said before."""


class Place(NamedTuple):
    """Where the work is done, as far as the request shows."""

    repo: str | None
    branch: str | None
    commit_sha: str | None
    age: Literal["now", "start", "begin"] = "start"
    """Since when the branch was so: it is so now; when the tool was started; when its session began."""
    before: str | None = None
    """The branch that the tool was started on, where it is another one now."""


Named = tuple[str | None, ...]
"""What each of `NAMED` says."""
NAMED: tuple[TicketSource, ...] = ("claim", "key", "header", "path", "metadata")


class Weighed(NamedTuple):
    """What a call's own evidence comes to."""

    tickets: tuple[str, ...]
    source: TicketSource
    state: TicketState | None
    others: tuple[str, ...]
    """What else was named, as `source:ticket`, strongest first."""
    ignored: tuple[str, ...]
    """As `source:reason`."""
    says_nothing: bool


class Tickets:
    """Weighs the evidence of each call."""

    def __init__(
        self, settings: TicketSettings, verifier: Claims, tracker: Tracker, sessions: Sessions | None = None
    ) -> None:
        """`sessions`: what is remembered of them, where others share it."""
        self._settings = settings
        self._claims = verifier
        self._tracker = tracker
        self._sessions = sessions or Sessions()
        self._made = self._make_keys()
        self._weighings: dict[tuple[Named, Place], Weighed] = {}
        """Calls repeat their evidence."""
        self._alone: dict[tuple[object, ...], Attribution] = {}
        """What calls of no session come to, by all that it depends on beside the tracker."""

    def attribute(
        self,
        principal: Principal,
        headers: Headers,
        path_ticket: str | None,
        path_task: str | None,
        ask: Ask,
        client: Client,
        checkout: Checkout | None,
        now_us: int,
    ) -> Attribution:
        """The ticket and task of a call that begins now; no task where the call shows none (see `Tasks`). `checkout` is
        what is found in the client's folder, where that is one of this machine."""
        shown: tuple[object, ...] | None = None
        if not (path_task or client.session_id or client.conversation_id) and FLEETING.isdisjoint(headers):
            self.keys()  # forgets what the tracker knows better now
            shown = (
                principal.ticket, headers.get("x-outlay-ticket"), path_ticket, ask.ticket,
                headers.get("x-outlay-repo"), headers.get("x-outlay-branch"), client, checkout,
            )  # fmt: skip
            if (known := self._alone.get(shown)) is not None:
                return known
        ignored: list[str] = []
        who = principal.key_id, client.name
        task_id, task_source = _named_task(headers, path_task, client, ignored)
        sessions = _sessions_of(client, task_id, task_source)
        earlier = next((said for session in sessions if (said := self._sessions.recall(who, session, now_us))), None)

        place = _place(headers, client, checkout, ignored)
        if earlier is not None and earlier.is_now and place.age != "now" and place.repo in (None, earlier.repo):
            place = place._replace(repo=earlier.repo, branch=earlier.branch, age="now")
        claim = self._claim(headers, principal, place, ignored)
        if claim is not None and place.age == "begin":
            place = place._replace(repo=place.repo or claim.repo, branch=claim.branch or place.branch)

        named = (
            ",".join(claim.tickets) if claim else None,
            principal.ticket,
            headers.get("x-outlay-ticket"),
            path_ticket,
        )
        weighed = self._weighed((*named, ask.ticket), place)
        ignored += weighed.ignored
        tickets, source, state = weighed.tickets, weighed.source, weighed.state

        if earlier is not None and weighed.says_nothing and not ignored and _may_be_same(place, earlier):
            place = place._replace(repo=earlier.repo, branch=earlier.branch)
            tickets, source = earlier.tickets, "task" if earlier.tickets else "none"
            state = state_of(tickets, self.keys())
        elif place.branch or source not in ("none", "key"):
            said = Remembered(tickets if source != "key" else (), place.repo, place.branch, place.age == "now", now_us)
            for session in sessions:
                self._sessions.remember(who, session, said)
        made = Attribution(
            tickets=tickets,
            ticket_source=source,
            ticket_state=state,
            candidates=(*weighed.others, *_in_brackets(ignored)) if ignored else weighed.others,
            task_id=task_id or client.derived_task,
            task_source=task_source,
            repo=place.repo,
            branch=place.branch,
            commit_sha=place.commit_sha,
            ignored=tuple(ignored),
        )
        if shown is not None and sum(len(each) for each in shown if isinstance(each, str)) <= SEEN_CHARS_MAX:
            if len(self._alone) >= ALONE_MAX:
                self._alone.clear()
            self._alone[shown] = made
        return made

    def demand(self, principal: Principal, client: Client, attribution: Attribution) -> None:
        """Raises the refusals `ticket_required` and `ticket_unknown` when policy demands a ticket, or a known one.

        Side calls may go without: tools take their refusal for a broken model and go on with another, dearer one.
        """
        policy = self.policy_of(principal)
        if policy == "optional" or client.agent == "side":
            return
        if attribution.ticket_source == "none":
            raise Refusal("ticket_required", _demand(client.name, attribution.ignored))
        if policy == "known" and attribution.ticket_state == "unknown":
            raise Refusal("ticket_unknown", _unknown(attribution, client.name))

    def policy_of(self, principal: Principal) -> TicketPolicy:
        """What is demanded of a caller: by its key, else its team, else everybody."""
        settings = self._settings
        return principal.ticket_policy or settings.teams.get(principal.team_id or "") or settings.policy

    def of_branch(self, branch: str, repo: str | None) -> list[tuple[str, TicketState]]:
        """The tickets that a call from this branch would be for, and what is known of them."""
        keys = self.keys()
        found = keys.in_branch(branch_name(branch) or DETACHED, repo_name(repo)).tickets
        return [(ticket, keys.tracker.state(ticket)) for ticket in found]

    def of_value(self, value: str, repo: str | None) -> list[tuple[str, TicketState]]:
        """The same for a ticket that a call names; none where it would be ignored."""
        keys = self.keys()
        return [(ticket, keys.tracker.state(ticket)) for ticket in keys.named(value, repo_name(repo)).tickets]

    def keys(self) -> TicketKeys:
        """The rules for keys, with what the tracker knows now."""
        if self._made.tracker is not self._tracker.now:
            self._made, self._weighings, self._alone = self._make_keys(), {}, {}
        return self._made

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _make_keys(self) -> TicketKeys:
        settings = self._settings
        return TicketKeys(settings.projects, settings.patterns, settings.deny, self._tracker.now)

    def _weighed(self, named: Named, place: Place) -> Weighed:
        keys = self.keys()
        found = self._weighings.get((named, place))
        if found is None:
            found = _weigh(named, place, keys)
            if sum(len(each or "") for each in named) <= SEEN_CHARS_MAX:
                if len(self._weighings) >= SEEN_MAX:
                    self._weighings.clear()
                self._weighings[named, place] = found
        return found

    def _claim(self, headers: Headers, principal: Principal, place: Place, ignored: list[str]) -> Claim | None:
        sent = headers.get("x-outlay-claim")
        if not sent:
            return None
        try:
            claim = self._claims.verify(sent)
            # What its session began with may be long ago, and is no reason against a claim.
            branch = place.branch if place.age != "begin" else None
            claims.check(claim, principal.fingerprint, principal.team_id, place.repo, branch)
        except ClaimError as error:
            ignored.append(f"claim:{error.reason}")
            return None
        return claim


def state_of(tickets: tuple[str, ...], keys: TicketKeys) -> TicketState | None:
    """What the tracker knows of the tickets; `None` where there are none."""
    states = {keys.tracker.state(ticket) for ticket in tickets}
    return next((state for state in STATES if state in states), None)


def _place(headers: Headers, client: Client, checkout: Checkout | None, ignored: list[str]) -> Place:
    """What is so now outranks what a header said when the tool started, and that what its session began with."""
    repo, branch = headers.get("x-outlay-repo"), headers.get("x-outlay-branch")
    if repo and not repo_name(repo):
        ignored.append("repo:malformed")
    started = header_branch(branch)
    if branch and not started:
        ignored.append("branch:malformed")
    now = (None if client.is_branch_old else client.branch) or (checkout.branch if checkout else None)
    if checkout is not None and now is None and started is None:
        now = DETACHED  # whatever it was on when the session began
    return Place(
        repo_name(repo) or client.repo or (checkout.repo if checkout else None),
        now or started or client.branch,
        client.commit_sha,
        "now" if now else "start" if started else "begin",
        started if now else None,
    )


def _of_place(place: Place, keys: TicketKeys) -> Found:
    if place.branch is None:
        return keys.of_commit(place.commit_sha)
    found = keys.in_branch(place.branch, place.repo)
    before = keys.in_branch(place.before, place.repo).tickets if place.before else ()
    return Found(found.tickets, (*found.candidates, *before), found.ignored)


def _may_be_same(place: Place, earlier: Remembered) -> bool:
    return place.repo in (None, earlier.repo) and place.branch in (None, earlier.branch)


def _named_task(
    headers: Headers, path_task: str | None, client: Client, ignored: list[str]
) -> tuple[str | None, TaskSource]:
    named: tuple[tuple[TaskSource, str | None], ...] = (
        ("header", headers.get("x-outlay-task")),
        ("path", path_task),
        ("conversation", client.conversation_id),
        ("session", client.session_id),
    )
    for source, value in named:
        if value and TASK.fullmatch(value):
            return value, source
        if value and source in ("header", "path"):
            ignored.append(f"{source}:malformed_task")
    return None, "none"


def _sessions_of(client: Client, task_id: str | None, task_source: TaskSource) -> tuple[str, ...]:
    """By what its calls are known to belong together: a task that was named to us, else the client's session, and what
    that is a part of."""
    if task_id is None:
        return ()
    if task_source in ("header", "path"):
        return (task_id,)
    return tuple(dict.fromkeys(filter(None, (client.session_id, task_id))))


def _weigh(named: Named, place: Place, keys: TicketKeys) -> Weighed:
    evidence = {source: keys.named(value, place.repo) for source, value in zip(NAMED, named, strict=True)}
    evidence["branch"] = _of_place(place, keys)
    source: TicketSource = next((source for source, found in evidence.items() if found.tickets), "none")
    tickets = evidence[source].tickets if source != "none" else ()
    others = [
        f"{source}:{ticket}"
        for source, found in evidence.items()
        for ticket in (*found.tickets, *found.candidates)
        if ticket not in tickets
    ]
    return Weighed(
        tickets,
        source,
        state_of(tickets, keys),
        tuple(dict.fromkeys(others[:CANDIDATES_MAX])),
        tuple(f"{source}:{found.ignored}" for source, found in evidence.items() if found.ignored),
        all(found.says_nothing for found in evidence.values()),
    )


def _in_brackets(ignored: list[str]) -> Iterable[str]:
    """What was no evidence, as `source:(reason)`, each once."""
    return dict.fromkeys(f"{source}:({reason})" for source, _, reason in (each.partition(":") for each in ignored))


# -- what a refusal says ----------------------------------------------------------------------------------------------

BY_TOOL = {
    "claude-code": "`outlay run --ticket PAY-123 -- claude`, ANTHROPIC_CUSTOM_HEADERS='x-outlay-ticket: PAY-123', or "
    "work on a branch that is named after the ticket",
    "codex": '`outlay run --ticket PAY-123 -- codex`, or http_headers = { "x-outlay-ticket" = "PAY-123" } in its model '
    "provider",
    "gemini-cli": "`outlay run --ticket PAY-123 -- gemini`, or GEMINI_CLI_CUSTOM_HEADERS='x-outlay-ticket: PAY-123'",
    "opencode": '`outlay run --ticket PAY-123 -- opencode`, or "headers": {"x-outlay-ticket": "PAY-123"} in the '
    "options of its provider",
    "aider": "`outlay run --ticket PAY-123 -- aider`, or /t/PAY-123 before the path of its base URL",
}
OTHERWISE = "the header x-outlay-ticket: PAY-123, or /t/PAY-123 before the path of the base URL"


def _demand(client: str | None, ignored: tuple[str, ...]) -> str:
    why = f" What came was ignored ({', '.join(ignored)})." if ignored else ""
    how = BY_TOOL.get(client or "", OTHERWISE)
    return f"Outlay: calls need a ticket here, and this one names none.{why} Use {how}."


def _unknown(attribution: Attribution, client: str | None) -> str:
    named = ", ".join(attribution.tickets)
    return (
        f"Outlay: calls need a ticket of the tracker here, and {named} (from the {attribution.ticket_source}) is none "
        f"that it knows. Look for a typing error; a new ticket is known after the next sync. To name another one: "
        f"{BY_TOOL.get(client or '', OTHERWISE)}."
    )
