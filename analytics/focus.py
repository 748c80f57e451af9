"""`outlay export focus`: charges in the FinOps Open Cost and Usage Specification, checked before they are written.

The specification's own validator lets much pass (units, dates, one wrong value among right ones), so the checks are
here: docs/focus.md. A month's rows are the same whenever they are exported: what is corrected later is on a later bill.
"""

import calendar
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import duckdb

import analytics
from analytics import build, cli, commands, disk
from analytics.again import again
from gateway.errors import UserError
from gateway.options import json_option

VERSIONS = ("1.2", "1.4")
SUFFIXES = (".csv", ".parquet")
CHECKS = build.FOLDER / "checks_focus"
EXAMPLES = 3


class Exported(NamedTuple):
    """What was written."""

    rows: int
    billed_usd: str
    unpriced_calls: int
    corrections: int


def export(db: duckdb.DuckDBPyConnection, out: Path, version: str, first: date, last: date) -> Exported:
    """Write the charges of days, both included, and the corrections on the bills of their months. Raises `UserError`
    when a row is not as it should be; nothing is written then."""
    db.execute("SET VARIABLE period = $period", {"period": [first, last]})
    db.execute(build.step("focus_rows"), {"version": version})
    for check in build.load(CHECKS).values():
        wrong = db.execute(check.sql).fetchmany(EXAMPLES)
        if wrong:
            raise UserError(f"nothing was written: {check.description} Not so: {wrong[0]}")
    with disk.put(out) as aside:
        db.execute(build.step(f"write_focus_{out.suffix[1:]}"), {"file": str(aside)})
    found = db.execute(build.step("focus_sums")).fetchone()
    assert found is not None
    return Exported(*found)


@click.group(name="export")
def export_() -> None:
    """Hand over what was spent to other programs."""


@export_.command(name="focus")
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First day, UTC; else that of the last month.")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last day, UTC; else the end of --from's month.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File: .csv or .parquet.")
@click.option("--version", type=click.Choice(VERSIONS), default="1.2", show_default=True)
@cli.folder_options
@json_option
def focus(first: datetime | None, last: datetime | None, out: Path, version: str, data: Path, as_json: bool) -> None:
    """FOCUS rows: one per day, model, meter, team, ticket, …; they sum to the ledger, to the nano-dollar.

    Calls without a price are in it with a cost of 0 and x_PriceStatus unpriced, and are counted here: they were not
    free. What is corrected after the end of a month is on the bill of the month in which it is corrected.
    """
    if out.suffix not in SUFFIXES:
        raise click.UsageError(f"--out: {out.name} must end in {' or '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise click.UsageError(f"--out: there is no folder {out.parent}: make it, or name a file elsewhere")
    begin, end = _period(first, last)
    with analytics.open(data) as db, commands.patience(), commands.errors_in_one_line():
        found = again(lambda: export(db, out, version, begin, end))
    if as_json:
        commands.print_json({"file": str(out), "from": begin, "to": end, **found._asdict()})
        return
    click.echo(f"{out}: {found.rows:,} rows, {found.billed_usd} USD, {begin} to {end}, FOCUS {version}")
    if found.corrections:
        click.echo(f"{found.corrections:,} rows correct bills of earlier months.")
    if found.unpriced_calls:
        click.echo(f"{found.unpriced_calls:,} calls have no price: they are in it with a cost of 0, and were not free.")


def _period(first: datetime | None, last: datetime | None) -> tuple[date, date]:
    """Raises `UsageError`."""
    begin = first.date() if first else (datetime.now(UTC).date().replace(day=1) - timedelta(1)).replace(day=1)
    end = last.date() if last else begin.replace(day=calendar.monthrange(begin.year, begin.month)[1])
    if begin > end:
        raise click.UsageError("--from is after --to")
    return begin, end
