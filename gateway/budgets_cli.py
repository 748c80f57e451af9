"""`outlay budgets`: what may be spent by whom, and temporary raises."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec

from gateway import app, ledger, money, options, terminal
from gateway.balances import Balances, question_about
from gateway.budget_file import UNTIL_MAX, BudgetFile, BudgetTable, table_from, table_of
from gateway.budgets import Account, Budget, Budgets, Mode, Sum
from gateway.control import AwayError, Control
from gateway.errors import UserError
from gateway.options import config_option, data_folder, data_option, json_option, settings, told_if_new
from gateway.periods import Period
from gateway.terminal import Grid

T = TypeVar("T")
ANSWER_SECONDS = 30.0
BY = "cli"
"""Who did it, in the audit trail: whoever can write the data folder."""
_NEW = BudgetTable(scope="org", limit_usd=Decimal(0))
"""For the defaults of a new one."""


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
@click.option(
    "--scope", help="org, team:x, key:x, ticket:x, …, each_ticket, each_task, each_user. A new budget needs one."
)
@click.option("--limit-usd", type=Usd(), help="US dollars, up to nine decimals. A new budget needs one.")
@click.option("--period", type=click.Choice(get_args(Period)), show_default=_NEW.period)
@click.option("--timezone", show_default=_NEW.timezone, help="In whose midnight a period begins.")
@click.option(
    "--on-exceed",
    show_default=_NEW.on_exceed,
    help="block, stop_stream, reroute:MODEL or warn: what happens near the limit.",
)
@click.option("--warn-at", type=float, multiple=True, show_default=str(*_NEW.warn_at), help="May be repeated.")
@click.option("--mode", type=click.Choice(get_args(Mode)), show_default=_NEW.mode)
@click.option("--owner", help='Who can raise it: named in refusals; "" for nobody.')
@config_option
@data_option
@json_option
def set_budget(name: str, config_path: Path | None, data: Path | None, as_json: bool, **fields: Any) -> None:
    """Make a budget, or change it: what is not given keeps its value, or has its default in a new one.

    In force within a second; what it has spent stays, unless scope or period change.
    """
    file = _file(config_path, data)
    before = file.get(name)
    given = {field: value for field, value in fields.items() if value not in (None, ())}
    if before is None and (missing := [field for field in ("scope", "limit_usd") if field not in given]):
        options_ = " and ".join(f"--{field.replace('_', '-')}" for field in missing)
        raise click.UsageError(f"there is no budget {name} yet: to make it, give {options_}")
    if given.get("owner") == "":
        given["owner"] = None
    present = {} if before is None else msgspec.structs.asdict(table_of(before))
    table = table_from(name, present | given)

    def unchanged(found: Budget | None, _: Budget) -> None:
        if found != before:
            raise UserError(f"the budget {name} was changed at the same time: look at it, and set it again")

    with told_if_new(data_folder(settings(config_path), data)):
        budget = _written(lambda: file.set(name, table, BY, unchanged))
    click.echo(json.dumps(_public(budget)) if as_json else f"{name}: {_told(budget)}")


@budgets_.command(name="list")
@config_option
@data_option
@json_option
def list_budgets(config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """All budgets, and what each has spent in its present period."""
    file = _file(config_path, data)
    balances = _balances(config_path, data, file)
    rows = [_public(budget) | _spent(budget, balances[budget.name]) for budget in file.all()]
    _say_unknown(balances)
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
    balances = _balances(config_path, data, file)
    spent = _spent(budget, balances[name], value)
    _say_unknown({name: balances[name]})
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


def _balances(config_path: Path | None, data: Path | None, file: BudgetFile) -> dict[str, Budgets | None]:
    """The accounts of each budget, by its name: as checkpoint and journal have them, or, of budgets that may be newer
    than those, the ledger. `None` where it cannot be asked."""
    folder, found = data_folder(settings(config_path), data), Budgets()
    saved = Balances(folder, file, found)
    saved.start()
    of: dict[str, Budgets | None] = dict.fromkeys((budget.name for budget in found), found)
    unsaved = [budget for budget in found if budget.identity not in saved.saved]
    if unsaved and _has_sealed(folder):  # else all calls are in the journal
        of |= dict.fromkeys((budget.name for budget in unsaved), asyncio.run(_by_ledger(folder, unsaved)))
    return of


def _has_sealed(folder: Path) -> bool:
    """A lake has a file without calls from the start, its anchor."""
    return any(path.name != "anchor.parquet" for path in (folder / "calls").glob("day=*/*.parquet"))


async def _by_ledger(folder: Path, budgets: list[Budget]) -> Budgets | None:
    now, found = ledger.now_us(), Budgets()
    found.replace(budgets)
    question = {"before_us": now, "budgets": [question_about(budget, now) for budget in budgets]}
    control = Control(folder)
    try:
        answer = await control.budget_sums(msgspec.json.encode(question), ANSWER_SECONDS)
        for _ in found.told(msgspec.json.decode(answer, type=list[Sum]), now):
            pass
    except (AwayError, msgspec.DecodeError):
        return None
    finally:
        await control.close()
    return found


def _say_unknown(balances: dict[str, Budgets | None]) -> None:
    if unknown := [name for name, found in balances.items() if found is None]:
        click.echo(
            f"What was spent of {', '.join(unknown)} is not known: the ledger tells it while `outlay serve` runs, "
            "or in `outlay report budgets`.",
            err=True,
        )


def _public(budget: Budget) -> dict[str, Any]:
    table = table_of(budget)
    fields = {name: getattr(table, name) for name in table.__struct_fields__}
    return {
        "name": budget.name,
        **fields,
        "limit_usd": money.trimmed(budget.limit_nano),
        "warn_at": list(table.warn_at),
    }


def _spent(budget: Budget, balances: Budgets | None, value: str | None = None) -> dict[str, Any]:
    """What one account has spent; of a template without a value how many accounts there are, and how many are used up:
    they are not listed, for that would rank people and tickets. Nothing where it is not known."""
    now = int(time.time()) * 1_000_000
    if balances is None:
        return {}
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
