"""Pages that go from tickets to their tasks, calls, and the evidence of each."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

from aiohttp import web

from analytics.web import charts, formats
from analytics.web.asking import Answer
from analytics.web.tables import Table
from analytics.web.visit import DAYS_DRAWN, SUMS, Page, ProblemError, Visit, choice, link, spelled_out

NO_WASTE = "No rule of waste found anything here."
FINDINGS: dict[str, Any] = {"hidden": ("finding_id",), "links": {"title": "/waste/{finding_id}"}}
CALL_LEAD = ("started_at", "call_id", "list_cost_usd")
CALL_FILTERS = (
    "team", "model", "provider", "client", "repo", "key", "purpose", "task", "ticket_source", "price_status",
    "usage_source", "result",
)  # fmt: skip


FOR = {
    "": "anything", "ticket": "a ticket", "no_ticket": "no ticket", "overhead": "a declared purpose and no ticket",
    "nothing": "no ticket and no declared purpose",
}  # fmt: skip


async def calls(visit: Visit) -> web.Response:
    """The evidence behind a sum."""
    asked = visit.request.query
    given = {name: asked.get(name) or None for name in CALL_FILTERS} | {"for": choice(visit, "for", FOR, "")}
    table = Table(
        "console/calls", "Calls", {**visit.span.given, **given}, lead=CALL_LEAD, totals=("list_cost_usd",), money=None,
        is_long=True, sort="-started_at", links={"team_id": formats.onto(link("/spend", by="ticket"), "team={}")},
    )  # fmt: skip
    [shown] = await visit.tables(table)
    chosen = [
        (formats.label(name), FOR[value] if name == "for" else value, visit.here(**{name: None}))
        for name, value in given.items()
        if value
    ]
    return visit.show(
        "calls.html", span=visit.span, shown=shown, chosen=chosen, under="/spend",
        recorded=None if shown.count else await visit.recorded(),
    )  # fmt: skip


# -- tickets ----------------------------------------------------------------------------------------------------------

OUTCOMES = {
    "": "All", "nothing": "Delivered nothing", "delivered": "Delivered", "in_progress": "In progress",
    "abandoned": "Abandoned", "stale": "Stale", "reverted": "Reverted", "unknown_ticket": "Unknown",
    "unread": "Not read",
}  # fmt: skip


async def tickets(visit: Visit) -> web.Response:
    span, only = visit.span, choice(visit, "only", OUTCOMES, "")
    team = visit.request.query.get("team") or None
    table = Table(
        "console/tickets", "Tickets by what they cost", {**span.given, "team": team, "only": only},
        totals=("list_cost_usd", "lost_cost_usd", "unpriced_calls"), search=("ticket_id", "title", "type", "teams"),
        hidden=("contracted_cost_usd",), sort="-list_cost_usd",
        empty="No ticket of this kind had calls in these days. Coverage shows calls that name none, and what to do.",
    )  # fmt: skip
    teams, outcomes, [shown] = await asyncio.gather(
        visit.ask("console/teams"), visit.ask("console/ticket_outcomes", **span.given, team=team), visit.tables(table)
    )
    return visit.show(
        "tickets.html", span=span, only=only, team=team, kinds=OUTCOMES, shown=shown, outcomes=outcomes.dicts(),
        recorded=None if outcomes.rows else await visit.recorded(),
        teams=[row[0] for row in teams.rows],
        sql=spelled_out("console/ticket_outcomes", {**span.given, "team": team}),
    )  # fmt: skip


PARTS = "console/ticket_parts"
"""A ticket's calls, which most of its page is about."""


async def ticket(visit: Visit) -> web.Response:
    name = visit.request.match_info["ticket_id"]
    called = await visit.one("console/ticket_names", ticket=name)
    assert called is not None
    if called["ticket_id"] != name:
        raise web.HTTPSeeOther("/tickets/" + quote(called["ticket_id"], safe=""))
    given = {"ticket": name, "names": called["names"]}
    about_calls = (
        Table("console/ticket_tasks", "Tasks", given, PARTS, totals=SUMS, empty="No call was for this ticket."),
        Table("console/ticket_findings", "Waste", given, PARTS, money="claimed_usd", empty=NO_WASTE, **FINDINGS),
        Table(
            "console/ticket_calls", "Calls", given, PARTS, money=None, lead=CALL_LEAD, sort="-started_at",
            totals=("list_cost_usd",), note="Of a call for several tickets the cost is this ticket's share.",
            empty="No call was for this ticket.",
        ),
    )  # fmt: skip
    about_work = (
        Table(
            "console/ticket_pull_requests", "Pull requests", given, money=None, hidden=("url", "closed_at"),
            empty="No pull request names this ticket, in its title, branch, text or commits.",
        ),
        Table(
            "console/ticket_deployments", "Deployments", given, money=None, hidden=("url",),
            empty="No deployment that was read carried its pull requests.",
        ),
    )  # fmt: skip
    ([facts, spent], [tasks, waste, its_calls]), events, [pulls, deployments] = await asyncio.gather(
        visit.over(PARTS, given, ("console/ticket", "console/ticket_days"), about_calls),
        visit.ask("console/ticket_events", ticket=name),
        visit.tables(*about_work),
    )
    if not facts.rows:
        raise ProblemError(404, "No such ticket", f"No call was for {name}, and no tracker that was read knows it.")
    [found] = facts.dicts()
    return visit.show(
        "ticket.html", found=found, shown=[tasks, pulls, deployments, waste, its_calls],
        events=_timeline(found, events.dicts()), under="/tickets", sql=spelled_out("console/ticket", given, PARTS),
        **days_chart(spent, "console/ticket_days", given, PARTS),
    )  # fmt: skip


def _timeline(found: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    calls = [("first call", found["first_call_at"]), ("last call", found["last_call_at"])]
    own = [{"happened_at": at, "event": name, "detail": None} for name, at in calls if at is not None]
    return sorted([*events, *own], key=lambda each: each["happened_at"])


def days_chart(spent: Answer, query: str, given: Mapping[str, Any], over: str = "") -> dict[str, Any]:
    rows = [(str(row["slot"]), row["series"], row["list_cost_usd"]) for row in spent.dicts()]
    slots: list[str] = []
    if rows:
        first, last = date.fromisoformat(rows[0][0]), date.fromisoformat(rows[-1][0])
        slots = [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]
        if len(slots) > DAYS_DRAWN:
            rows, slots = [(slot[:7], *more) for slot, *more in rows], list(dict.fromkeys(slot[:7] for slot in slots))
    return {"chart": charts.bars(slots, rows), "chart_sql": spelled_out(query, given, over)}


async def task(visit: Visit) -> web.Response:
    given = {"task": visit.request.match_info["task_id"]}
    found = await visit.one("console/task", **given)
    if found is None:
        raise ProblemError(404, "No such task", "No call that is recorded was of this task.")
    wanted = (
        Table(
            "console/task_calls",
            "Calls",
            given,
            money=None,
            sort="started_at",
            totals=("list_cost_usd",),
            lead=CALL_LEAD,
        ),
        Table(
            "console/task_sessions", "Where they came from", given, totals=("list_cost_usd", "calls", "unpriced_calls")
        ),
        Table(
            "console/task_findings", "Waste", given, money="claimed_usd", empty="No rule of waste found anything here."
        ),
    )
    shown = await visit.tables(*wanted)
    return visit.show(
        "task.html",
        found=found,
        shown=shown,
        under="/tickets",
        sql=spelled_out("console/task", given),
    )


# -- a call -----------------------------------------------------------------------------------------------------------

USAGE = (
    ("Input", "input_tokens", "input_cost_usd"),
    ("… read from the cache", "cache_read_input_tokens", "cache_read_cost_usd"),
    ("… written to the cache", "cache_write_input_tokens", "cache_write_cost_usd"),
    ("Output", "output_tokens", "output_cost_usd"),
    ("… reasoning", "reasoning_output_tokens", None),
    ("Searches and the like", "web_search_requests", "other_cost_usd"),
)
SOURCES = {
    "claim": "a signed claim, made where the work is done", "key": "the key, which is bound to the ticket",
    "header": "the request's header x-outlay-ticket", "path": "the address that the tool calls",
    "metadata": "the request's metadata", "branch": "the branch that the tool works on",
    "task": "an earlier call of the same task", "none": "nothing",
}  # fmt: skip
TASK_SOURCES = {
    "header": "the request's header x-outlay-task", "path": "the address that the tool calls",
    "session": "the tool's session", "conversation": "the conversation that it goes on with",
    "none": "nothing: it is that of this request",
}  # fmt: skip


async def call(visit: Visit) -> web.Response:
    given = {"call": visit.request.match_info["call_id"]}
    found = await visit.one("console/call", **given)
    if found is None:
        raise ProblemError(404, "No such call", "No call of this id is recorded.")
    small: dict[str, Any] = {"money": None, "is_small": True}
    wanted = [
        Table("console/call_changes", "What became known of its ticket later", given, empty="Nothing.", **small),
        Table("console/call_findings", "Waste", given, empty=NO_WASTE, **FINDINGS, **small),
        Table("console/call_attempts", "Attempts of the request", {"request": found["request_id"]}, **small),
    ]
    shown = await visit.tables(*wanted)
    sql = spelled_out("console/call", given)
    return visit.show(
        "call.html", found=found, shown=shown, usage=USAGE, sources=SOURCES, task_sources=TASK_SOURCES, sql=sql,
        under="/spend",
    )  # fmt: skip


PAGES = [
    Page("GET", "/calls", "viewer", calls),
    Page("GET", "/calls/{call_id}", "viewer", call),
    Page("GET", "/tasks/{task_id}", "viewer", task),
    Page("GET", "/tickets", "viewer", tickets),
    Page("GET", "/tickets/{ticket_id}", "viewer", ticket),
]
