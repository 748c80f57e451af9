"""`/-/api/v1/`: what a key, a task, a ticket has cost up to now, for people where they decide. See docs/api.md.

Nothing here is by person, and nothing lists tasks or tickets: they are asked for by name.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
from aiohttp import web

from gateway import credentials
from gateway.call import Principal
from gateway.control import ID, AwayError, Control
from gateway.errors import Refusal
from gateway.keys import Keys
from gateway.routes import written_out
from gateway.tickets import Tickets

TICKETS_IN_LINE = 3
OWN_SPEND_SECONDS, BRANCH_SECONDS = 2.0, 0.3
"""All else about a key is known at once. Programs that ask about a branch want nothing else, and do not wait long."""
NO_STORE = {"Cache-Control": "no-store"}


class Spend(msgspec.Struct):
    """What a line shows of an answer."""

    list_cost_usd: Decimal
    unpriced_calls: int
    tickets: list[str] = []


class KeySpend(msgspec.Struct):
    """What a key sees of its own spend, amounts as they came."""

    today_usd: msgspec.Raw
    month_usd: msgspec.Raw
    unpriced_calls: int


class Api:
    """The endpoints for holders of gateway keys."""

    def __init__(self, mode: Literal["keys", "open"], key_ring: Keys, tickets: Tickets, control: Control) -> None:
        self._mode = mode
        self._tickets = tickets
        self._keys = key_ring
        self._control = control

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/-/api/v1/me", self.me),
            web.get(r"/-/api/v1/tasks/{id:[\s\S]+}", self.task),
            web.get(r"/-/api/v1/tickets/{id:[\s\S]+}", self.ticket),
        ]

    async def me(self, request: web.Request) -> web.Response:
        """The key that asks: whose it is, what it may do, what it has spent; and the tickets of a branch, if asked."""
        try:
            principal = self._authenticate(request)
        except Refusal as refusal:
            return _refused(refusal)
        branch = request.query.get("branch")
        spend = await self._spend_of(principal, OWN_SPEND_SECONDS if branch is None else BRANCH_SECONDS)
        told = {**_grant(principal), "ticket_policy": self._tickets.policy_of(principal), "spend": spend, "budgets": []}
        if branch is not None:
            of_branch = self._tickets.of_branch(branch, request.query.get("repo"))
            told["branch_tickets"] = [{"ticket_id": ticket, "ticket_state": state} for ticket, state in of_branch]
        return _json(msgspec.json.encode(told))

    async def task(self, request: web.Request) -> web.Response:
        """A task, or a session of a tool."""
        return await self._spend_on(request, "tasks", request.match_info["id"])

    async def ticket(self, request: web.Request) -> web.Response:
        return await self._spend_on(request, "tickets", written_out(request.match_info["id"]))

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _authenticate(self, request: web.Request) -> Principal:
        headers = credentials.readable(request.headers)
        return credentials.authenticate(self._keys, self._mode, headers, request.raw_path)

    async def _spend_of(self, principal: Principal, seconds: float) -> KeySpend | None:
        """`None` where nobody can say: without a key, or without the control plane, which all else does without."""
        if principal.key_id is None:
            return None
        try:
            return msgspec.json.decode(await self._control.ask("keys", principal.key_id, seconds), type=KeySpend)
        except AwayError:
            return None

    async def _spend_on(self, request: web.Request, kind: Literal["tasks", "tickets"], name: str) -> web.Response:
        try:
            self._authenticate(request)
            as_line = _wants_line(request.query.get("format", "json"))
            if not ID.fullmatch(name):
                raise Refusal(
                    "request_unreadable", "Outlay: a name has at most 512 characters, and no control characters."
                )
            spend = await self._control.ask(kind, name)
            if not as_line:
                return _json(spend)
            return web.Response(text=await self._line(kind, name, spend) + "\n", headers=NO_STORE)
        except Refusal as refusal:
            return _refused(refusal)
        except AwayError as away:
            return _error(503, "control_plane_away", str(away))

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


def _grant(principal: Principal) -> dict[str, Any]:
    """The key as it was made."""
    ends = principal.expires_at
    return {
        "key_id": principal.key_id,
        "user_id": principal.user_id,
        "team_id": principal.team_id,
        "ticket": principal.ticket,
        "purpose": principal.purpose,
        "models": principal.models,
        "upstreams": principal.upstreams,
        "expires_at": None if ends is None else datetime.fromtimestamp(ends, UTC),
    }


def _wants_line(format_: str) -> bool:
    if format_ not in ("json", "line"):
        raise Refusal("request_unreadable", "Outlay: the format is json or line.")
    return format_ == "line"


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers=NO_STORE)


def _refused(refusal: Refusal) -> web.Response:
    response = _error(refusal.status, refusal.code, refusal.message)
    response.headers["x-outlay-refusal"] = refusal.code
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=NO_STORE)
