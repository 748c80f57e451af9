"""Attribution: which ticket and task a call belongs to, and how we know. The strongest evidence wins, the rest is kept.

Order of trust: claim, key, header, path, metadata, branch, task. What is no ticket is ignored and counted with its
reason, never guessed at; what only may be one is a candidate.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway import claims
from gateway.call import Ask, Attribution, Client, Principal, TaskSource, TicketPolicy, TicketSource, TicketState
from gateway.claims import Claim, ClaimError, Claims
from gateway.config import TicketSettings
from gateway.errors import Refusal
from gateway.repositories import branch_name, repo_name
from gateway.sessions import Remembered, Sessions
from gateway.ticket_keys import Found, TicketKeys
from gateway.tracker import Tracker
from gateway.worktrees import Checkout

Headers = Mapping[str, str]
TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}", re.ASCII)
STATES: tuple[TicketState, ...] = ("unknown", "unchecked", "closed", "known")
"""Of several tickets, the first of these that one of them is in."""
CANDIDATES_MAX = 20


class Place(NamedTuple):
    """Where the work is done, as far as the request shows."""

    repo: str | None
    branch: str | None
    commit_sha: str | None
    branch_before: str | None = None
    """What was said when the tool was started, where the work has moved on to another branch."""


class Tickets:
    """Weighs the evidence of each call."""

    def __init__(
        self,
        settings: TicketSettings,
        claims_: Claims,
        tracker: Tracker,
        look: Callable[[str], Checkout | None] = lambda folder: None,
    ) -> None:
        """`look` reads the checkout at a client's working directory, where that is a folder of this machine."""
        self._settings = settings
        self._claims = claims_
        self._tracker = tracker
        self._look = look
        self._sessions = Sessions()
        self._made = self._make_keys()

    def attribute(
        self,
        principal: Principal,
        headers: Headers,
        path_ticket: str | None,
        path_task: str | None,
        ask: Ask,
        client: Client,
        now_us: int,
    ) -> Attribution:
        """The ticket and task of a call that begins now."""
        ignored: list[str] = []
        place = self._place(headers, client, ignored)
        claim = self._claim(headers, principal, place, ignored)
        if claim is not None:
            place = place._replace(repo=place.repo or claim.repo, branch=place.branch or claim.branch)
        keys = self.keys()
        evidence: dict[TicketSource, Found] = {
            "claim": keys.named(",".join(claim.tickets) if claim else None, place.repo),
            "key": keys.named(principal.ticket, place.repo),
            "header": keys.named(headers.get("x-outlay-ticket"), place.repo),
            "path": keys.named(path_ticket, place.repo),
            "metadata": keys.named(ask.ticket, place.repo),
            "branch": self._of_place(place, keys),
        }
        ignored += (f"{source}:{found.ignored}" for source, found in evidence.items() if found.ignored)
        source: TicketSource = next((source for source, found in evidence.items() if found.tickets), "none")
        tickets = evidence[source].tickets if source != "none" else ()
        task_id, task_source = _named_task(headers, path_task, client)

        who = principal.key_id, client.name
        session = task_id if task_source in ("header", "path") else client.session_id or task_id
        if session is not None:
            earlier = self._sessions.recall(who, session, now_us)
            if earlier is not None and place.branch in (None, earlier.branch):
                place = place._replace(repo=place.repo or earlier.repo, branch=earlier.branch)
                if not tickets and earlier.tickets:
                    tickets, source = earlier.tickets, "task"
            if (tickets and source not in ("key", "task")) or place.branch:
                said = tickets if source != "key" else ()
                self._sessions.remember(who, session, Remembered(said, place.repo, place.branch, now_us))
        if task_id is None:
            task_id = self._sessions.task(who, tickets, now_us)

        return Attribution(
            tickets=tickets,
            ticket_source=source,
            ticket_state=state_of(tickets, keys),
            candidates=_candidates(evidence, tickets),
            task_id=task_id,
            task_source=task_source,
            repo=place.repo,
            branch=place.branch,
            commit_sha=place.commit_sha,
            ignored=tuple(ignored),
        )

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
        of_team = self._settings.teams.get(principal.team_id or "")
        return principal.ticket_policy or of_team or self._settings.policy

    def keys(self) -> TicketKeys:
        """The rules for keys, with what the tracker knows now."""
        if self._made.tracker is not self._tracker.now:
            self._made = self._make_keys()
        return self._made

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _make_keys(self) -> TicketKeys:
        settings = self._settings
        return TicketKeys(settings.projects, settings.patterns, settings.deny, self._tracker.now)

    def _place(self, headers: Headers, client: Client, ignored: list[str]) -> Place:
        """What is so now outranks what a header said when the tool started, and that what its session began with."""
        repo, branch = headers.get("x-outlay-repo"), headers.get("x-outlay-branch")
        if repo and not repo_name(repo):
            ignored.append("repo:malformed")
        if branch and not branch_name(branch):
            ignored.append("branch:malformed")
        checkout = self._look(client.folder) if client.folder else None
        now = (None if client.is_branch_old else client.branch) or (checkout.branch if checkout else None)
        started = branch_name(branch) or client.branch
        return Place(
            repo_name(repo) or client.repo or (checkout.repo if checkout else None),
            now or started,
            client.commit_sha or (checkout.commit if checkout else None),
            started if now else None,
        )

    @staticmethod
    def _of_place(place: Place, keys: TicketKeys) -> Found:
        if place.branch is None:
            return keys.of_commit(place.commit_sha)
        found = keys.in_branch(place.branch, place.repo)
        before = keys.in_branch(place.branch_before, place.repo).tickets
        return Found(found.tickets, (*found.candidates, *before), found.ignored)

    def _claim(self, headers: Headers, principal: Principal, place: Place, ignored: list[str]) -> Claim | None:
        sent = headers.get("x-outlay-claim")
        if not sent:
            return None
        try:
            claim = self._claims.verify(sent)
            claims.check(claim, principal.fingerprint, principal.team_id, place.repo, place.branch)
        except ClaimError as error:
            ignored.append(f"claim:{error.reason}")
            return None
        return claim


def state_of(tickets: tuple[str, ...], keys: TicketKeys) -> TicketState | None:
    """What the tracker knows of the tickets; `None` where there are none."""
    states = {keys.tracker.state(ticket) for ticket in tickets}
    return next((state for state in STATES if state in states), None)


def _named_task(
    headers: Headers, path_task: str | None, client: Client
) -> tuple[str, TaskSource] | tuple[None, TaskSource]:
    named: tuple[tuple[TaskSource, str | None], ...] = (
        ("header", headers.get("x-outlay-task")),
        ("path", path_task),
        ("conversation", client.conversation_id),
        ("session", client.session_id),
    )
    for source, value in named:
        if value and TASK.fullmatch(value):
            return value, source
    return None, "none"


def _candidates(evidence: Mapping[TicketSource, Found], tickets: tuple[str, ...]) -> tuple[str, ...]:
    """What else was named, as `source:ticket`, strongest first."""
    others = (
        f"{source}:{ticket}"
        for source, found in evidence.items()
        for ticket in (*found.tickets, *found.candidates)
        if ticket not in tickets
    )
    return tuple(dict.fromkeys(others))[:CANDIDATES_MAX]


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
