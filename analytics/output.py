"""Rows for whoever asked for them: a table with totals and bars, JSON, CSV or a Parquet file."""

import csv
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import click
import duckdb
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics import commands
from gateway import options

Format = Literal["table", "json", "csv", "parquet"]
SUMMED = ("list_cost_usd", "lost_cost_usd", "claimed_usd")
"""Columns that a table has the total of."""
DRAWN = ("claimed_usd", "list_cost_usd", "used")
"""Columns that a table on a terminal has bars of: the first of them that is there."""
BAR_WIDTH = 16
NARROWEST = 7
"""Of a column, for a table to be one that can be read."""
SHARES = ("used",)
"""Of these, a full bar is 1; of the others the largest in the table."""


class Rows(NamedTuple):
    """What a query gave."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def of(result: duckdb.DuckDBPyConnection) -> Rows:
    return Rows([column[0] for column in result.description or ()], result.fetchall())


def show(found: Rows, format_: Format) -> None:
    if format_ == "json":
        commands.print_json(dicts(found))
    elif format_ == "csv":
        _csv(found)
    else:
        _table(found)


def dicts(found: Rows) -> list[dict[str, Any]]:
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def _csv(found: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows([_field(value) for value in row] for row in found.rows)


def _field(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value)
    return format(value, "f") if isinstance(value, Decimal) else value


def _table(found: Rows) -> None:
    names, rows = found
    console = Console()
    numbers = [any(isinstance(row[i], int | float | Decimal) for row in rows) for i in range(len(names))]
    table = Table(box=None, header_style="bold", show_footer=bool({*SUMMED} & {*names}), footer_style="bold")
    for i, name in enumerate(names):
        amounts = [row[i] for row in rows if isinstance(row[i], Decimal)]
        total = sum(amounts, Decimal(0)) if name in SUMMED else None
        justify: Literal["left", "right"] = "right" if numbers[i] else "left"
        table.add_column(Text(options.shown(name)), Text(_text(total)), justify=justify, overflow="fold")
    bars = _bars(found) if console.is_terminal else None
    if bars is not None:
        table.add_column("", width=BAR_WIDTH)
    for number, row in enumerate(rows):
        cells = (Text(_text(value)) for value in row)  # as text: a name may look like markup
        table.add_row(*cells, *([] if bars is None else [bars[number]]))
    if not console.is_terminal:
        # A file or pipe has no width, and must not lose columns to one.
        console.width = max(console.width, 20 * len(names), 200)
        console.print(table)
    elif rows and len(names) * NARROWEST > console.width:
        for row in rows:
            console.print(_record(names, row))
    else:
        console.print(table)
    unpriced = sum(row[names.index("unpriced_calls")] or 0 for row in rows) if "unpriced_calls" in names else 0
    if unpriced:
        click.echo(f"{unpriced} calls have no price and are in no sum; see: outlay sql 'FROM price_coverage'", err=True)


def _record(names: Sequence[str], row: Sequence[Any]) -> Table:
    """A row with a line for each column that has a value: what is too wide for a table."""
    record = Table(box=None, show_header=False)
    for name, value in zip(names, row, strict=True):
        if value is not None:
            record.add_row(Text(options.shown(name), style="bold"), Text(_text(value)))
    record.add_row()
    return record


def _bars(found: Rows) -> list[Bar] | None:
    """One for each row, where there is something to compare."""
    name = next((name for name in DRAWN if name in found.columns), None)
    if name is None or len(found.rows) < 2:
        return None
    values = [row[found.columns.index(name)] for row in found.rows]
    lengths = [float(value) if isinstance(value, int | float | Decimal) and value > 0 else 0.0 for value in values]
    full = 1.0 if name in SHARES else max(lengths)
    return [Bar(full, 0, min(length, full), width=BAR_WIDTH) for length in lengths] if full else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return options.shown(str(value))
