"""Coverage and scorecard: how well founded sums are, and what came of what was spent, by team."""

import asyncio

from aiohttp import web

from analytics import scoring
from analytics.cli import QUADRANTS, SECTIONS
from analytics.web import formats
from analytics.web.spans import of as span_of
from analytics.web.tables import Table
from analytics.web.visit import SUMS, Page, Visit, spelled_out, today

EMPTY = {
    "sources": "No calls in these days.",
    "conflicts": "Weaker evidence named no other ticket.",
    "ignored": "All evidence that stood somewhere was one.",
    "untagged": "Each call is for a ticket, or has a declared purpose.",
    "late": "Nothing became known later that moved a call.",
    "statuses": "Nobody needs to say what a status means.",
    "waste": "No calls in these days.",
}
ITS_CALLS = "model={model}&price_status={price_status}&usage_source={usage_source}"
NO_SCORE = (
    "Nothing is shown here: there is no window with spend or delivered work, or groups are smaller than five builders. "
    "Import teams with outlay import work, and read trackers and forges with outlay sync."
)
NO_LOOK = "Nobody has worked this out yet."


async def coverage(visit: Visit) -> web.Response:
    span, team = visit.span, visit.request.query.get("team") or None
    given, its_calls = {**span.given, "team": team}, formats.onto(visit.here("/calls", csv=None), ITS_CALLS)
    wanted = [
        Table(
            "console/coverage_prices", "Prices and usage", given, totals=SUMS, money=None,
            note="Calls without a price are in no sum. An estimate says that no provider reported the usage.",
            links=dict.fromkeys(("price_status", "usage_source"), its_calls),
            unnamed=dict.fromkeys(("price_status", "usage_source"), its_calls),
        ),
        *(
            Table(f"coverage_{name}", title.partition(" ([")[0], given, empty=EMPTY[name], money=None, rows=20)
            for name, title in SECTIONS.items()
        ),
    ]  # fmt: skip
    teams, totals, shown = await asyncio.gather(
        visit.ask("console/teams"), visit.ask("console/coverage_totals", **span.given, team=team), visit.tables(*wanted)
    )
    [sums] = totals.dicts()
    return visit.show(
        "coverage.html", span=span, team=team, shown=shown, sums=sums, teams=[row[0] for row in teams.rows],
        sql=spelled_out("console/coverage_totals", given),
    )  # fmt: skip


async def scorecard(visit: Visit) -> web.Response:
    """Teams by name, each against its own past. What is too small for that, the views do not show."""
    span, team = span_of(visit.request.query, today(), "last-quarter"), visit.request.query.get("team") or None
    given = {**span.given, "team": team}
    there = await visit.kept(scoring.KEPT)
    empty = NO_SCORE if there.made else NO_LOOK
    wanted = [Table(f"scorecard_{name}", title, given, money=None, empty=empty) for name, title in QUADRANTS.items()]
    shown = await visit.tables(*wanted)
    teams = sorted({row["team_id"] for row in shown[0].rows if row["team_id"]} | ({team} if team else set()))
    return visit.show("scorecard.html", span=span, team=team, teams=teams, shown=shown, there=there)


PAGES = [
    Page("GET", "/scorecard", "viewer", scorecard),
    Page("GET", "/coverage", "viewer", coverage),
]
