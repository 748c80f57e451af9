"""Pages that show spend and what came of it. Each asks queries of analytics/queries, and fills a template."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from aiohttp import web

from analytics import findings
from analytics.web import charts, formats, signin, tables
from analytics.web.asking import Answer
from analytics.web.spans import Span
from analytics.web.tables import Table
from analytics.web.visit import (
    DAYS_DRAWN,
    SUMS,
    ZONE_COOKIE,
    Page,
    ProblemError,
    Visit,
    api,
    choice,
    link,
    spelled_out,
    today,
    zone_of,
)
from gateway.budgets_api import BudgetList

CALLS = "console/overview_calls"
"""What the sums and the chart of the overview are about."""


async def overview(visit: Visit) -> web.Response:
    span = visit.span
    given = span.given
    days = (span.last - span.first).days + 1
    before = given["from"] - (timedelta(0) if span.name == "all" else timedelta(days=days))
    hidden = ("contracted_cost_usd", "percent", "calls", "last_call_at", "tasks", "lost_cost_usd")
    lost = Table(
        "console/tickets", "Tickets that cost most and delivered nothing", {**given, "team": None, "only": "nothing"},
        empty="No ticket that delivered nothing had calls in these days.", rows=5, is_small=True, hidden=hidden,
        totals=("list_cost_usd", "unpriced_calls"),
    )  # fmt: skip
    budgets = Table(
        "console/budgets_near", "Budgets closest to their limit", money="spent_usd", rows=5, is_small=True,
        is_exact=True, empty="There is no budget yet. An admin sets one under Budgets.",
    )  # fmt: skip
    of_calls = {**given, "before": before, "unit": unit_of(span)}
    ([totals, by_day], _), waste, shown = await asyncio.gather(
        visit.over(CALLS, of_calls, ("console/overview_totals", "console/overview_days"), ()),
        visit.ask("console/waste_totals", states=list(findings.UNDISMISSED), team=None, **given),
        visit.tables(lost, *([budgets] if await _has_budgets(visit) else [])),
    )
    [sums], [wasted] = totals.dicts(), waste.dicts()
    return visit.show(
        "overview.html",
        span=span,
        totals=sums,
        waste=wasted,
        days=days,
        change=None if span.name == "all" else _change(sums["list_cost_usd"], sums["before_usd"]),
        share=lambda part: part / sums["list_cost_usd"] if sums["list_cost_usd"] else None,
        recorded=None if sums["calls"] else await visit.recorded(),
        lost=shown[0].totals or {"list_cost_usd": Decimal(), "unpriced_calls": 0},
        sql=spelled_out("console/overview_totals", of_calls, CALLS),
        tables=shown,
        **spend_chart(span, by_day, spelled_out("console/overview_days", of_calls, CALLS)),
    )


async def _has_budgets(visit: Visit) -> bool:
    """To ask how budgets stand takes as long where there are none."""
    try:
        listed: BudgetList = await api(visit, "GET /-/api/v1/budgets")
    except ProblemError:  # their files cannot be read: what was noted before can
        return True
    return bool(listed.budgets)


def _change(now: Decimal, before: Decimal) -> str | None:
    if not before:
        return None
    share = (now - before) / before
    return f"{abs(float(share)) * 100:.0f} % {'more' if share >= 0 else 'less'}"


def unit_of(span: Span) -> str:
    """Of time, that a chart has bars of: days, or what still fits."""
    return "day" if (span.last - span.first).days < DAYS_DRAWN else "month"


def spend_chart(span: Span, spent: Answer, sql: str) -> dict[str, Any]:
    """Bars of spend by unit of time and a dimension."""
    unit = unit_of(span)
    rows = [
        (str(row["slot"])[: 7 if unit == "month" else 10], row["series"], row["list_cost_usd"]) for row in spent.dicts()
    ]
    slots = _slots(span, unit, [slot for slot, _, _ in rows])
    return {"chart": charts.bars(slots, rows), "chart_sql": sql, "unit": unit}


def _slots(span: Span, unit: str, used: Sequence[str]) -> list[str]:
    """Each day, or month, of the span, also those without a call; of all time from the first one on."""
    if span.name == "all":
        if not used:
            return []
        first, last = date.fromisoformat(f"{min(used)}-01"), date.fromisoformat(f"{max(used)}-01")
    else:
        first, last = span.first, min(span.last, max(today(), span.first))
    if unit == "day":
        return [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    return [f"{first.year + (first.month - 1 + n) // 12}-{(first.month - 1 + n) % 12 + 1:02d}" for n in range(months)]


# -- spend ------------------------------------------------------------------------------------------------------------

DIMENSIONS = {
    "team": "Team", "model": "Model", "ticket": "Ticket", "task": "Task", "key": "Key", "purpose": "Purpose",
    "client": "Client", "provider": "Provider", "repo": "Repository", "day": "Day",
}  # fmt: skip
NOTES = {
    "key": "Keys stand in the order of their ids, and nothing is told of what came of it: a key may be a person's.",
    "ticket": "The row without a ticket is all spend that is for none.",
}
SORTS = {"key": "key_id", "day": "day"}
CHARTED = ("team", "model", "purpose", "client", "provider", "repo")


async def spend(visit: Visit) -> web.Response:
    span, by, team = visit.span, choice(visit, "by", DIMENSIONS, "team"), visit.request.query.get("team") or None
    calls = visit.here("/calls", by=None, csv=None)
    links = {
        "team": {"team_id": formats.onto(visit.here("/spend", by="ticket", csv=None), "team={}")},
        "key": {"key_id": formats.onto(calls, "key={}")},
        "day": {"day": formats.onto(link("/calls", team=team), "from={}&to={}")},
    } | {
        each: {each: formats.onto(calls, f"{each}={{}}")} for each in ("model", "purpose", "client", "provider", "repo")
    }
    unnamed = "for=no_ticket" if by == "ticket" else f"{by}={tables.NONE}"
    columns = {"team": "team_id", "ticket": "ticket_id", "task": "task_id", "key": "key_id"}
    table = Table(
        f"spend_by_{by}", f"Spend by {DIMENSIONS[by].lower()}", {**span.given, "team": team}, totals=SUMS,
        search=(columns.get(by, by),) if by != "day" else (), links=links.get(by, {}),
        unnamed={} if by == "day" else {columns.get(by, by): formats.onto(calls, unnamed)},
        sort=SORTS.get(by, "-list_cost_usd"), sorts=("key_id", "team_id") if by == "key" else (),
        note=NOTES.get(by, ""), empty="No calls in these days. Choose others, or send one through the gateway.",
    )  # fmt: skip
    drawn = {**span.given, "team": team, "unit": unit_of(span), "by": by if by in CHARTED else ""}
    teams, spent, [shown] = await asyncio.gather(
        visit.ask("console/teams"), visit.ask("console/spend_over_time", **drawn), visit.tables(table)
    )
    return visit.show(
        "spend.html", span=span, by=by, team=team, dimensions=DIMENSIONS, shown=shown,
        teams=[row[0] for row in teams.rows], recorded=None if shown.count or shown.asked.q else await visit.recorded(),
        **spend_chart(span, spent, spelled_out("console/spend_over_time", drawn)),
    )  # fmt: skip


async def zone(visit: Visit) -> web.Response:
    """Choose the zone that moments are shown in."""
    asked = visit.request.query.get("zone", "").strip()
    response = web.Response(status=303, headers={"Location": signin.after(visit.request.query.get("next"))})
    if zone_of(asked) is not None:
        response.set_cookie(
            ZONE_COOKIE, asked, max_age=365 * 86_400, httponly=True, secure=visit.console.is_https, samesite="Lax"
        )
    return response


PAGES = [
    Page("GET", "/", "viewer", overview),
    Page("GET", "/spend", "viewer", spend),
    Page("GET", "/zone", "viewer", zone),
]
