"""Waste: what rules found, the evidence of it, and what people say of it."""

import asyncio
from typing import Any, cast, get_args

import msgspec
from aiohttp import web

from analytics import findings
from analytics.waste import KEPT
from analytics.web import formats
from analytics.web.tables import Table
from analytics.web.visit import Page, ProblemError, Visit, cannot_write, choice, spelled_out
from gateway.errors import UserError
from gateway.verdicts import Reason, State, Verdict

STATES = {
    "": "All but dismissed", "open": "To look at", "accepted": "Accepted", "fixed": "Fixed", "regressed": "Came back",
    "dismissed": "Dismissed",
}  # fmt: skip
REASONS = {
    "intended": "intended", "test": "a test", "wrong_tag": "a wrong ticket", "false_positive": "the rule is wrong here",
    "other": "other: say what",
}  # fmt: skip
DONE = {"accepted": "Accepted.", "dismissed": "Dismissed.", "new": "To be looked at again."}


def _states(name: str) -> list[State]:
    match name:
        case "":
            return list(findings.UNDISMISSED)
        case "open":
            return ["new", "regressed"]
        case _:
            return [cast(State, name)]


async def waste(visit: Visit) -> web.Response:
    span, state = visit.span, choice(visit, "state", STATES, "")
    team, rule = visit.request.query.get("team") or None, visit.request.query.get("rule") or None
    given = {**span.given, "team": team, "states": _states(state)}
    rules = Table(
        "waste_by_rule", "By rule, each dollar once", given, totals=("claimed_usd", "findings", "unpriced_calls"),
        money="claimed_usd", links={"rule": formats.onto(visit.here(rule=None, csv=None), "rule={}")},
        is_exact=True, empty="Nothing was found in these days.",
    )  # fmt: skip
    found = Table(
        "console/waste_findings", "Findings", {**given, "rule": rule}, totals=("claimed_usd",), money="claimed_usd",
        search=("finding_id", "title", "sentence", "ticket_id"), is_exact=True, hidden=("finding_id",),
        lead=("rule", "title", "state", "claimed_usd"), links={"title": "/waste/{finding_id}"},
        note="What is recoverable a rule says for itself, of all its calls, and dollars are in it twice. What is "
        "claimed may be added up, and is of these days and this team.",
        empty="No finding is in this state in these days. Findings are looked for once an hour.",
    )  # fmt: skip
    teams, there, shown = await asyncio.gather(visit.ask("console/teams"), visit.kept(KEPT), visit.tables(rules, found))
    return visit.show(
        "waste.html", span=span, state=state, states=STATES, team=team, rule=rule, shown=shown,
        teams=[row[0] for row in teams.rows], there=there,
    )  # fmt: skip


async def finding(visit: Visit) -> web.Response:
    found, evidence = await _found(visit)
    given = {"finding": found["finding_id"]}
    [shown] = await visit.tables(
        Table(
            "console/finding_calls",
            "Its calls",
            given,
            money=None,
            totals=("list_cost_usd", "part_claimed_usd"),
            lead=("started_at", "call_id", "part_claimed_usd", "list_cost_usd"),
        )
    )
    return visit.show(
        "finding.html", found=found, evidence=evidence, shown=shown, reasons=REASONS, under="/waste",
        done=DONE.get(visit.request.query.get("done", "")),
        sql=spelled_out("finding", {"finding_id": found["finding_id"], "team": None}),
    )  # fmt: skip


async def review(visit: Visit) -> web.Response:
    """As `outlay findings accept`, `dismiss` and `reopen` do."""
    found, _ = await _found(visit)
    verdict, reason, note = (visit.form.get(name, "").strip() for name in ("state", "reason", "note"))
    if verdict not in get_args(Verdict) or (reason and reason not in get_args(Reason)):
        raise ProblemError(400, "This is no review", "Accept, dismiss with a reason, or have it looked at again.")
    said = cast(Verdict, verdict), cast(Reason, reason) if reason and verdict == "dismissed" else None, note or None
    by, folder = visit.principal.key_id or "", visit.console.data
    try:
        await asyncio.to_thread(findings.review, folder, found["finding_id"], by, *said)
    except UserError as error:
        raise ProblemError(422, "This was not taken", f"{error}.") from None
    except OSError:
        raise cannot_write() from None
    raise web.HTTPSeeOther(f"/waste/{found['finding_id']}?done={verdict}")


async def _found(visit: Visit) -> tuple[dict[str, Any], dict[str, Any]]:
    """A finding, and its evidence. Who it is about is not for pages (rule W18): the API tells it."""
    name = visit.request.match_info["finding_id"]
    found = await visit.one("finding", is_exact=True, finding_id=name, team=None)
    if found is None:
        raise ProblemError(404, "No such finding", "It may be gone: prices, tickets and reverts arrive late.")
    evidence: dict[str, Any] = msgspec.json.decode(found["evidence"])
    return found, evidence


PAGES = [
    Page("GET", "/waste", "viewer", waste),
    Page("GET", "/waste/{finding_id}", "viewer", finding),
    Page("POST", "/waste/{finding_id}", "finops", review),
]
