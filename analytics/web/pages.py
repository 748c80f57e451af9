"""Pages that show spend and what came of it. Each asks queries of analytics/queries, and fills a template."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from aiohttp import web

from analytics.web import asking, charts, signin
from analytics.web.spans import Span
from analytics.web.tables import Table
from analytics.web.visit import ZONE_COOKIE, Page, Visit, today, zone_of

UNDISMISSED = ["new", "accepted", "fixed", "regressed"]
DAYS_DRAWN = 100
"""More are drawn as weeks or months."""


async def overview(visit: Visit) -> web.Response:
    span = visit.span
    given = span.given
    days = (span.last - span.first).days + 1
    before = given["from"] - (timedelta(0) if span.name == "all" else timedelta(days=days))
    small: dict[str, Any] = {"rows": 5, "hidden": ("contracted_cost_usd", "percent", "calls", "last_call_at", "tasks")}
    lost = Table(
        "console/tickets", "Tickets that cost most and delivered nothing", {**given, "team": None, "only": "nothing"},
        totals=("lost_cost_usd",), empty="No ticket that delivered nothing had calls in these days.", **small,
    )  # fmt: skip
    budgets = Table(
        "console/budgets_near", "Budgets closest to their limit", money="spent_usd", rows=5, is_exact=True,
        empty="There is no budget yet. An admin sets one under Budgets.",
    )  # fmt: skip
    totals, waste, chart, tables = await asyncio.gather(
        visit.ask("console/overview_totals", before=before, **given),
        visit.ask("console/waste_totals", states=UNDISMISSED, team=None, **given),
        spend_chart(visit, span, "team", None),
        visit.tables(lost, budgets),
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
        lost_usd=tables[0].totals.get("lost_cost_usd", Decimal()),
        sql=asking.spelled_out(asking.text("console/overview_totals"), {"before": before, **given}),
        tables=tables,
        **chart,
    )


def _change(now: Decimal, before: Decimal) -> str | None:
    if not before:
        return None
    share = (now - before) / before
    return f"{abs(float(share)) * 100:.0f} % {'more' if share >= 0 else 'less'}"


async def spend_chart(visit: Visit, span: Span, by: str, team: str | None) -> dict[str, Any]:
    """Bars of spend by day, or by what still fits, and a dimension."""
    unit = "day" if (span.last - span.first).days < DAYS_DRAWN else "month"
    given = {**span.given, "team": team, "unit": unit, "by": by}
    answer = await visit.ask("console/spend_over_time", **given)
    rows = [
        (str(row["slot"])[: 7 if unit == "month" else 10], row["series"], row["list_cost_usd"])
        for row in answer.dicts()
    ]
    slots = _slots(span, unit, [slot for slot, _, _ in rows])
    sql = asking.spelled_out(asking.text("console/spend_over_time"), given)
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
    Page("GET", "/zone", "viewer", zone),
]
