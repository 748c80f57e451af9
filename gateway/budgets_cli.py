"""`outlay budgets`: what may be spent by whom, and temporary raises."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from gateway import app, money, options, terminal
from gateway.balances import Balances
from gateway.budget_file import UNTIL_MAX, BudgetFile, table_from, table_of
from gateway.budgets import Account, Budget, Budgets, Mode
from gateway.errors import UserError
from gateway.options import config_option, data_folder, data_option, json_option, settings, told_if_new
from gateway.periods import Period
from gateway.terminal import Grid

T = TypeVar("T")
BY = "cli"
"""Who did it, in the audit trail: whoever can write the data folder."""


class Usd(click.ParamType[Decimal]):
    """An amount of money, exact."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            return Decimal(str(value).removeprefix("$").replace("_", ""))
        except InvalidOperation:
            self.fail(f"{str(value)[:60]!r} is no amount: write US dollars like 25 or 0.5", param, ctx)


@click.group(name="budgets")
def budgets_() -> None:
    """Budgets: what may be spent by whom, in which time."""


def _file(config_path: Path | None, data: Path | None) -> BudgetFile:
    return app.budget_file(settings(config_path), data)


def _written(change: Callable[[], T]) -> T:
    try:
        return change()
    except OSError as error:
        raise UserError(f"the budgets cannot be written: {error.strerror}: {error.filename}") from None


@budgets_.command(name="set")
@click.argument("name")
@click.option("--scope", required=True, help="org, team:x, key:x, ticket:x, …, each_ticket, each_task, each_user.")
@click.option("--limit-usd", type=Usd(), required=True, help="US dollars, up to nine decimals.")
@click.option("--period", type=click.Choice(get_args(Period)), default="month", show_default=True)
@click.option("--timezone", default="UTC", show_default=True, help="In whose midnight a period begins.")
@click.option(
    "--on-exceed",
    default="block",
    show_default=True,
    help="block, stop_stream, reroute:MODEL or warn: what happens near the limit.",
)
@click.option("--warn-at", type=float, multiple=True, default=(0.8,), show_default=True, help="May be repeated.")
@click.option("--mode", type=click.Choice(get_args(Mode)), default="enforce", show_default=True)
@click.option("--owner", help="Who can raise it: named in refusals.")
@config_option
@data_option
@json_option
def set_budget(name: str, config_path: Path | None, data: Path | None, as_json: bool, **fields: Any) -> None:
    """Make a budget, or change it. In force within a second; what it has spent stays, unless scope or period change."""
    table = table_from(name, {field: value for field, value in fields.items() if value is not None})
    file = _file(config_path, data)
    with told_if_new(data_folder(settings(config_path), data)):
        budget = _written(lambda: file.set(name, table, BY))
    click.echo(json.dumps(_public(budget)) if as_json else f"{name}: {_told(budget)}")


@budgets_.command(name="list")
@config_option
@data_option
@json_option
def list_budgets(config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """All budgets, and what each has spent in its present period."""
    file = _file(config_path, data)
    balances = _balances(config_path, data, file)
    rows = [_public(budget) | _spent(budget, balances) for budget in file.all()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    columns = {
        "name": "name", "scope": "scope", "period": "period", "limit_usd": "limit $", "spent_usd": "spent $",
        "remaining_usd": "left $", "on_exceed": "on exceed", "mode": "mode", "owner": "owner",
    }  # fmt: skip
    shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    if not rows:
        click.echo("No budgets yet. Make one with: outlay budgets set NAME --scope team:TEAM --limit-usd 100")
        return
    cells = [["" if row.get(name) is None else str(row[name]) for name in shown] for row in rows]
    amounts = [number for number, name in enumerate(shown) if name.endswith("_usd")]
    terminal.show(Grid([columns[name] for name in shown], cells, right=amounts))


@budgets_.command(name="show")
@click.argument("name")
@click.option("--for", "value", help="Of a template: this ticket's or task's account.")
@config_option
@data_option
@json_option
def show_budget(name: str, value: str | None, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """One budget: its limit with raises, what is spent, and who changed it."""
    file = _file(config_path, data)
    budget = file.get(name)
    if budget is None:
        raise UserError(f"there is no budget {name}; `outlay budgets list` shows them")
    if value is not None and budget.scope.value is not None:
        raise UserError(f"the budget {name} has one account, for {budget.scope}: leave out --for")
    if value is not None and budget.scope.kind in ("user", "key"):
        raise UserError(f"what {budget.scope} has spent is not told by person: leave out --for")
    spent = _spent(budget, _balances(config_path, data, file), value)
    changes = [
        {"at": _iso(event.at), "event": event.event, "by": event.by} for event in file.events() if event.name == name
    ]
    raises = [
        {
            "amount_usd": money.trimmed(each.amount_nano),
            "until": _iso(each.until_us // 1_000_000),
            "for": each.value,
            "reason": each.reason,
            "by": each.by,
        }
        for each in budget.raises
    ]
    if as_json:
        click.echo(json.dumps({**_public(budget), **spent, "raises": raises, "changes": changes}))
        return
    click.echo(options.shown(f"{name}: {_told(budget)}"))
    for what, found in spent.items():
        if found is not None:
            click.echo(f"  {what.replace('_usd', '')}: {'$' if what.endswith('_usd') else ''}{found}")
    for each in raises:
        whom = f" for {each['for']}" if each["for"] else ""
        raised = f"  raised by ${each['amount_usd']}{whom} until {each['until']}: {each['reason']} ({each['by']})"
        click.echo(options.shown(raised))
    for change in changes:
        click.echo(f"  {change['at']} {change['event']} by {change['by']}")


@budgets_.command(name="remove")
@click.argument("name")
@config_option
@data_option
@json_option
def remove_budget(name: str, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Remove a budget. What was spent stays in the ledger."""
    file = _file(config_path, data)
    budget = _written(lambda: file.remove(name, BY))
    click.echo(json.dumps(_public(budget)) if as_json else f"{name} is removed.")


@budgets_.command(name="raise")
@click.argument("name")
@click.option("--by-usd", "amount", type=Usd(), required=True, help="US dollars on top of the limit.")
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), required=True, help="When it ends, UTC."
)
@click.option("--reason", required=True, help="Others will read it.")
@click.option("--for", "value", help="Of a template: for this ticket, task or user alone.")
@config_option
@data_option
@json_option
def raise_budget(
    name: str,
    amount: Decimal,
    until: datetime,
    reason: str,
    value: str | None,
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Raise a limit for a time, with a reason. In force within a second."""
    file, ends = _file(config_path, data), int(until.replace(tzinfo=UTC).timestamp())
    budget = _written(lambda: file.raise_(name, amount, ends, reason, BY, value))
    limit = budget.limit_of(value or "", int(time.time()) * 1_000_000)
    if as_json:
        click.echo(json.dumps({**_public(budget), "limit_now_usd": money.trimmed(limit)}))
        return
    click.echo(f"{name}: the limit is {money.short(limit)} until {until:%Y-%m-%d %H:%M} UTC.")


# -- what is shown ------------------------------------------------------------------------------------------------


def _balances(config_path: Path | None, data: Path | None, file: BudgetFile) -> Budgets:
    """The accounts as checkpoint and journal have them."""
    found = Budgets()
    Balances(data_folder(settings(config_path), data), file, found).start()
    return found


def _public(budget: Budget) -> dict[str, Any]:
    table = table_of(budget)
    fields = {name: getattr(table, name) for name in table.__struct_fields__}
    return {
        "name": budget.name,
        **fields,
        "limit_usd": money.trimmed(budget.limit_nano),
        "warn_at": list(table.warn_at),
    }


def _spent(budget: Budget, balances: Budgets, value: str | None = None) -> dict[str, Any]:
    """What one account has spent; of a template without a value how many accounts there are, and how many are used up:
    they are not listed, for that would rank people and tickets."""
    now = int(time.time()) * 1_000_000
    if budget.scope.value is None and value is None:
        accounts = [each for each in balances.accounts(budget.name) if each.period.has(now)]
        over = sum(1 for each in accounts if each.spent >= each.limit(now))
        return {"accounts": len(accounts), "used_up": over}
    account: Account = balances.account(budget, value or "", now)
    account.expire(now)
    limit, ends = account.limit(now), account.frees_at(now)
    return {
        "limit_now_usd": money.trimmed(limit),
        "spent_usd": money.trimmed(account.spent),
        "remaining_usd": money.trimmed(max(0, limit - account.spent)),
        "unpriced_calls": account.unpriced,
        "resets_at": None if ends is None else _iso(ends // 1_000_000),
    }


def _told(budget: Budget) -> str:
    per = {"total": "in all", "rolling_24h": "in any 24 hours"}.get(budget.period, f"a {budget.period}")
    does = "computed only, enforces nothing" if budget.mode == "shadow" else budget.on_exceed
    return f"{money.short(budget.limit_nano)} {per} for {budget.scope}; {does}"


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(max(0, min(seconds, UNTIL_MAX)), UTC).isoformat().replace("+00:00", "Z")
