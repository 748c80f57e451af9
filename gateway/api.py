"""`/-/api/v1/`: what a key, a task, a ticket has cost up to now, for people where they decide. See docs/api.md.

Nothing here is by person, and nothing lists tasks or tickets: they are asked for by name.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway import keys
from gateway.budgets_api import OwnBudget
from gateway.call import Principal, Role, TicketPolicy, TicketState
from gateway.control import ID, AwayError, Control
from gateway.endpoints import ApiError, Asked, Endpoint, Line
from gateway.errors import Refusal
from gateway.routes import written_out
from gateway.tickets import Tickets

SHAPE = r"[^\x00-\x1f\x7f-\x9f]{1,512}"
TICKETS_IN_LINE = 3
OWN_SPEND_SECONDS, BRANCH_SECONDS = 2.0, 0.3
"""All else about a key is known at once. Programs that ask about a branch want nothing else, and do not wait long."""


Amount = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "number"})]


class Spend(msgspec.Struct):
    """What a line shows of an answer."""

    list_cost_usd: Decimal
    unpriced_calls: int
    tickets: list[str] = []


class KeySpend(msgspec.Struct):
    """What a key sees of its own spend, amounts as they came."""

    today_usd: Amount
    month_usd: Amount
    unpriced_calls: int


class ModelSpend(msgspec.Struct):
    model: str | None
    calls: int
    unpriced_calls: int
    list_cost_usd: Decimal


class SourceSpend(msgspec.Struct):
    ticket_source: str | None
    calls: int
    list_cost_usd: Decimal


class TaskSpend(msgspec.Struct, kw_only=True):
    """What a task has cost, as the control plane tells it."""

    task_id: str
    tickets: list[str]
    list_cost_usd: Decimal
    calls: int
    unpriced_calls: int
    first_call_at: datetime | None
    last_call_at: datetime | None
    models: list[ModelSpend]
    as_of: datetime


class TicketSpend(msgspec.Struct, kw_only=True):
    """What a ticket has cost, as the control plane tells it."""

    ticket_id: str
    ticket_state: str | None
    list_cost_usd: Decimal
    calls: int
    unpriced_calls: int
    tasks: int
    first_call_at: datetime | None
    last_call_at: datetime | None
    models: list[ModelSpend]
    sources: list[SourceSpend]
    as_of: datetime


class BranchTicket(msgspec.Struct):
    ticket_id: str
    ticket_state: TicketState


class Me(msgspec.Struct, kw_only=True):
    """A key as it was made, and its spend."""

    key_id: str | None
    user_id: str | None
    team_id: str | None
    ticket: str | None
    purpose: str | None
    models: tuple[str, ...]
    upstreams: tuple[str, ...]
    expires_at: datetime | None
    role: Role | None
    ticket_policy: TicketPolicy
    spend: KeySpend | None
    budgets: list[OwnBudget]
    branch_tickets: list[BranchTicket] | msgspec.UnsetType = msgspec.UNSET
    named_tickets: list[BranchTicket] | msgspec.UnsetType = msgspec.UNSET


class OfCalls(msgspec.Struct, forbid_unknown_fields=True):
    """What calls would show."""

    branch: str | None = None
    ticket: str | None = None
    repo: str | None = None


class Format(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["json", "line"] = "json"


class Api:
    """The endpoints for holders of gateway keys."""

    def __init__(self, tickets: Tickets, control: Control, budgets: Callable[[Principal], list[OwnBudget]]) -> None:
        self._tickets = tickets
        self._control = control
        self._budgets = budgets

    def endpoints(self) -> list[Endpoint]:
        away, named = {503: "The control plane is not running, or took too long."}, {"id": SHAPE}
        return [
            Endpoint(
                method="GET", path="/-/api/v1/me", access="key", summary="The key that asks.",
                serve=self.me, query=OfCalls, answer=Me,
            ),
            Endpoint(
                method="GET", path=r"/-/api/v1/tasks/{id:[\s\S]+}", access="key", summary="What a task has cost.",
                serve=self.task, query=Format, answer=TaskSpend, refuses=away, may_be_line=True, shapes=named,
            ),
            Endpoint(
                method="GET", path=r"/-/api/v1/tickets/{id:[\s\S]+}", access="key", summary="What a ticket has cost.",
                serve=self.ticket, query=Format, answer=TicketSpend, refuses=away, may_be_line=True, shapes=named,
            ),
        ]  # fmt: skip

    async def me(self, asked: Asked) -> Me:
        """The key that asks: whose it is, what it may do, what it has spent; if asked, the tickets of a branch and of a
        value."""
        principal, query = asked.principal, asked.query
        is_about_key = query.branch is None and query.ticket is None
        spend = await self._spend_of(principal, OWN_SPEND_SECONDS if is_about_key else BRANCH_SECONDS)
        ends = principal.expires_at
        told = Me(
            key_id=principal.key_id, user_id=principal.user_id, team_id=principal.team_id, ticket=principal.ticket,
            purpose=principal.purpose, models=principal.models, upstreams=principal.upstreams,
            expires_at=None if ends is None else keys.moment(ends), role=principal.role,
            ticket_policy=self._tickets.policy_of(principal), spend=spend, budgets=self._budgets(principal),
        )  # fmt: skip
        if query.branch is not None:
            of_branch = self._tickets.of_branch(query.branch, query.repo)
            told.branch_tickets = [BranchTicket(ticket, state) for ticket, state in of_branch]
        if query.ticket is not None:
            named = self._tickets.of_value(query.ticket, query.repo)
            told.named_tickets = [BranchTicket(ticket, state) for ticket, state in named]
        return told

    async def task(self, asked: Asked) -> msgspec.Raw | Line:
        """A task, or a session of a tool."""
        return await self._spend_on("tasks", asked.path["id"], asked.query)

    async def ticket(self, asked: Asked) -> msgspec.Raw | Line:
        return await self._spend_on("tickets", written_out(asked.path["id"]), asked.query)

    # -- the parts ----------------------------------------------------------------------------------------------------

    async def _spend_of(self, principal: Principal, seconds: float) -> KeySpend | None:
        """`None` where nobody can say: without a key, or without the control plane, which all else does without."""
        if principal.key_id is None:
            return None
        try:
            return msgspec.json.decode(await self._control.ask("keys", principal.key_id, seconds), type=KeySpend)
        except AwayError:
            return None

    async def _spend_on(self, kind: Literal["tasks", "tickets"], name: str, query: Format) -> msgspec.Raw | Line:
        if not ID.fullmatch(name):
            raise Refusal("request_unreadable", "Outlay: a name has at most 512 characters, and no control characters.")
        try:
            spend = await self._control.ask(kind, name)
            return msgspec.Raw(spend) if query.format == "json" else Line(await self._line(kind, name, spend))
        except AwayError as away:
            raise ApiError(503, "control_plane_away", str(away)) from None

    async def _line(self, kind: Literal["tasks", "tickets"], name: str, spend: bytes) -> str:
        found = msgspec.json.decode(spend, type=Spend)
        if kind == "tickets":
            return line([name], ticket=found)
        of_ticket = await self._control.ask("tickets", found.tickets[0]) if found.tickets else None
        ticket = None if of_ticket is None else msgspec.json.decode(of_ticket, type=Spend)
        return line(found.tickets, task=found, ticket=ticket)


# -- what is said -----------------------------------------------------------------------------------------------------


def line(tickets: list[str], task: Spend | None = None, ticket: Spend | None = None) -> str:
    """For status lines: `PAY-123 · task $0.42 · ticket $12.30`. The ticket's sum is that of the first one."""
    names = ", ".join(tickets[:TICKETS_IN_LINE]) + (", …" if len(tickets) > TICKETS_IN_LINE else "")
    parts = [names or "no ticket"]
    parts += [f"{what} {_amount(spend)}" for what, spend in (("task", task), ("ticket", ticket)) if spend is not None]
    return "".join(letter if letter.isprintable() else "?" for letter in " · ".join(parts))


def _amount(spend: Spend) -> str:
    """Rounded for reading; what has a cost never reads as none."""
    usd = spend.list_cost_usd
    amount = "<$0.01" if 0 < usd < Decimal("0.01") else f"${usd:,.2f}"
    return amount + (f" +{spend.unpriced_calls} unpriced" if spend.unpriced_calls else "")
