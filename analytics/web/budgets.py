"""Budgets: how they stand, and setting, raising and removing them: by the admin API's own code."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from analytics.web import charts
from analytics.web.charts import Line
from analytics.web.tables import Table
from analytics.web.visit import Page, ProblemError, Visit, api, end_of_day, form_body, spelled_out
from gateway.budgets_api import BudgetDetail, BudgetList, NewBudget, NewRaise
from gateway.periods import Period
from gateway.scopes import EACH, KINDS

HOLDS_SECONDS = 1.0
SLOTS_MAX = 400
"""Days that a burn-down shows: the last ones, beginning with the sum of those before."""
PERIODS = get_args(Period)
SCOPES = ("org", *EACH, *(f"{kind}:…" for kind in KINDS if kind != "org"))
FIELDS = ("scope", "limit_usd", "period", "timezone", "on_exceed", "mode", "owner")
DONE = {
    "set": "Set. It is in force within a second; its figures come a moment later.",
    "removed": "Removed.", "raised": "Raised.",
}  # fmt: skip


async def budgets(visit: Visit) -> web.Response:
    listed: BudgetList = await api(visit, "GET /-/api/v1/budgets")
    names = [budget.name for budget in listed.budgets]
    is_of_persons = any(budget.scope.startswith(("user:", "key:")) for budget in listed.budgets)
    table = Table(
        "console/budgets", "How budgets stand in their present period", {"names": names}, money="spent_usd",
        sorts=("name", "scope", "period", "mode", "owner") if is_of_persons else (),  # they are not ranked by spend
        search=("name", "scope", "owner"), is_exact=True, lead=("name", "used", "spent_usd", "limit_usd"),
        note="Calls that run are not in these figures. Of a budget for each ticket or the like, used is that of the "
        "account that has used most, and the limit that of each.",
        empty="No budget is in force. An admin sets one below, or with outlay budgets set.",
    )  # fmt: skip
    held, [shown] = await asyncio.gather(holds(visit), visit.tables(table))
    if held is not None:
        held = {name: held[name] for name in names if name in held}  # of those alone that a role may see
    known = {row["name"] for row in shown.rows} if shown.pages == 1 and not shown.asked.q else set(names)
    return visit.show(
        "budgets.html", shown=shown, held=held, scopes=SCOPES, periods=PERIODS,
        waiting=[name for name in names if name not in known], done=DONE.get(visit.request.query.get("done", "")),
    )  # fmt: skip


async def budget(visit: Visit) -> web.Response:
    name = visit.request.match_info["name"]
    found: BudgetDetail = await api(visit, "GET /-/api/v1/budgets/{name}", {"name": name})
    hidden = ("starts_at",) if found.scope in ("each_user", "each_key") else ("starts_at", "accounts", "accounts_over")
    table = Table(
        "console/budget_accounts", "Its accounts in the present period", {"name": name}, money="spent_usd",
        search=("value",), is_exact=True, sort="-spent_usd", hidden=hidden,
        links={"value": "/tickets/{}"} if found.scope in ("each_ticket", "ticket") else {},
        empty="Its figures come within a few seconds, while the control plane runs.",
    )  # fmt: skip
    held, spent, [shown] = await asyncio.gather(
        holds(visit), visit.ask("console/budget_days", name=name), visit.tables(table)
    )
    is_template = ":" not in found.scope and found.scope != "org"
    row = shown.rows[0] if shown.rows else None
    drawn = _drawn(spent.dicts(), row) if row is not None and not is_template else None
    return visit.show(
        "budget.html", found=found, shown=shown, held=None if held is None else held.get(name), drawn=drawn, row=row,
        sql=spelled_out("console/budget_days", {"name": name}), scopes=SCOPES, periods=PERIODS, under="/budgets",
        done=DONE.get(visit.request.query.get("done", "")), is_template=is_template,
    )  # fmt: skip


def _drawn(days: list[dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Spend summed up day by day, the limit, and where it goes if it goes on like this."""
    end: datetime | None = row["ends_at"]
    if not days:
        return None
    begin: datetime | None = row["starts_at"]
    first, today = begin.date() if begin else days[0]["day"], max(days[-1]["day"], datetime.now(UTC).date())
    last = max(today, (end - timedelta(microseconds=1)).date() if end else today)
    first = max(first, last - timedelta(days=SLOTS_MAX - 1))
    slots = [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]
    by_day, points = {str(each["day"]): each["spent_usd"] for each in days}, []
    total = sum((amount for day, amount in by_day.items() if day < slots[0]), Decimal())
    for number, slot in enumerate(slots):
        if slot > str(today):
            break
        total += by_day.get(slot, Decimal())
        points.append((number, total))
    lines = [Line("spent", "spent", points), Line("limit", "limit", [(n, row["limit_usd"]) for n in range(len(slots))])]
    if row["forecast_usd"] is not None and points[-1][0] < len(slots) - 1:
        lines.append(Line("forecast", "forecast", [points[-1], (len(slots) - 1, row["forecast_usd"])]))
    return {"svg": charts.lines(slots, lines), "lines": lines, "slots": slots}


async def holds(visit: Visit) -> dict[str, Decimal] | None:
    """What running calls hold by budget, USD, as the gateway says now; `None` when it does not."""
    if visit.console.gateway is None:
        return None
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HOLDS_SECONDS)) as session,
            session.get(f"{visit.console.gateway}/-/metrics") as response,
        ):
            text = await response.text()
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None
    return {
        sample.labels["budget"]: Decimal(str(sample.value))
        for family in text_string_to_metric_families(text)
        if family.name == "outlay_budget_held_usd"
        for sample in family.samples
    }


# -- changes ----------------------------------------------------------------------------------------------------------


async def set_budget(visit: Visit) -> web.Response:
    form = visit.form
    name = form.get("name", "").strip()
    listed: BudgetList = await api(visit, "GET /-/api/v1/budgets")
    if "change" not in form and any(budget.name == name for budget in listed.budgets):
        raise ProblemError(
            409, "This was not taken", f"There is a budget {name}: change it on its page, or choose another name."
        )
    body = {field: form[field].strip() for field in FIELDS if form.get(field, "").strip()}
    if warn_at := form.get("warn_at", "").replace("%", "").strip():
        try:
            fractions = [Decimal(each.strip()) / 100 for each in warn_at.split(",")]
        except ArithmeticError:
            raise ProblemError(400, "This was not taken", "Warn at: write percentages, as 80, 95.") from None
        body |= {"warn_at": [float(each) for each in fractions]}  # type: ignore[dict-item]
    await api(visit, "PUT /-/api/v1/budgets/{name}", {"name": name}, form_body(body, NewBudget))
    raise web.HTTPSeeOther("/budgets?done=set")


async def remove_budget(visit: Visit) -> web.Response:
    await api(visit, "DELETE /-/api/v1/budgets/{name}", {"name": visit.request.match_info["name"]})
    raise web.HTTPSeeOther("/budgets?done=removed")


async def raise_budget(visit: Visit) -> web.Response:
    name, form = visit.request.match_info["name"], visit.form
    body = {field: form[field].strip() for field in ("amount_usd", "reason", "value") if form.get(field, "").strip()}
    body["until"] = end_of_day("Until", form.get("until", ""))
    await api(visit, "POST /-/api/v1/budgets/{name}/raise", {"name": name}, form_body(body, NewRaise))
    raise web.HTTPSeeOther(f"/budgets/{name}?done=raised")


PAGES = [
    Page("GET", "/budgets", "viewer", budgets),
    Page("POST", "/budgets", "admin", set_budget),
    Page("GET", "/budgets/{name}", "viewer", budget),
    Page("POST", "/budgets/{name}/remove", "admin", remove_budget),
    Page("POST", "/budgets/{name}/raise", "admin", raise_budget),
]
