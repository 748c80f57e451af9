"""Rows for whoever asked for them: a table with totals and bars, JSON, CSV or a Parquet file."""

import csv
import json
import sys
from collections.abc import Sequence
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import click
import duckdb
from rich.bar import Bar
from rich.console import Console

from analytics import commands
from gateway import terminal
from gateway.terminal import BAR_WIDTH, Grid

Format = Literal["table", "json", "csv", "parquet"]
SUMMED = ("list_cost_usd", "lost_cost_usd", "claimed_usd")
"""Columns that a table has the total of."""
FIRST = (
    *SUMMED,
    *("invoiced_usd", "unexplained_usd", "not_invoiced_usd"),
    *("outcome", "advice", "sentence", "evidence", "signal", "ndi", "reading"),
    *("cts_ai_low_usd", "cts_ai_high_usd", "limit_usd", "spent_usd", "used"),
)
"""Columns for whose sake a report is read: a narrow window leaves out others before."""
DRAWN = ("claimed_usd", "list_cost_usd", "used")
"""Columns that a table on a terminal has bars of: the first of them that is there."""
NONE = "(none)"
FINEST = Decimal("0.0001")
SHARES = ("used",)
"""Of these, a full bar is 1; of the others the largest in the table."""


class Rows(NamedTuple):
    """What a query gave."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def of(result: duckdb.DuckDBPyConnection, most: int | None = None) -> Rows:
    """All of it, or at most so many rows."""
    rows = result.fetchall() if most is None else result.fetchmany(most)
    return Rows([column[0] for column in result.description or ()], rows)


def show(found: Rows, format_: Format, *, is_exact: bool = False, nothing: str = "(nothing)") -> None:
    """`is_exact`: all of it, as it is, and nothing summed up that was not asked for. `nothing`: said instead of a table
    without rows."""
    if format_ == "json":
        commands.print_json(dicts(found))
    elif format_ == "csv":
        _csv(found)
    elif found.rows:
        _table(found, is_exact=is_exact)
    else:
        click.echo(nothing)


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


def _table(found: Rows, *, is_exact: bool) -> None:
    names, rows = found
    columns = [_column(name, [row[i] for row in rows], is_exact=is_exact) for i, name in enumerate(names)]
    if not is_exact:  # what it is about may be none: calls for no ticket, of no team
        columns[0] = [NONE if row[0] is None else cell for row, cell in zip(rows, columns[0], strict=True)]
    numbers = {i for i in range(len(names)) if any(isinstance(row[i], int | float | Decimal) for row in rows)}
    terminal.show(
        Grid(
            names,
            [*zip(*columns, strict=True)],
            right=numbers | {i for i, name in enumerate(names) if name.endswith("_usd")},
            footer=[] if is_exact else _footer(found),
            bars=[] if is_exact else _bars(found),
            first=FIRST,
            is_whole=is_exact,
        )
    )
    unpriced = sum(row[names.index("unpriced_calls")] or 0 for row in rows) if "unpriced_calls" in names else 0
    if unpriced:
        told = "1 call has no price and is" if unpriced == 1 else f"{unpriced:,} calls have no price and are"
        click.echo(f"{told} in no sum; see: outlay sql 'FROM price_coverage'", err=True)


def _footer(found: Rows) -> list[str]:
    """Totals of amounts, where there is more than one row to sum up."""
    if len(found.rows) < 2 or not {*SUMMED} & {*found.columns}:
        return []
    footer = []
    for i, name in enumerate(found.columns):
        amounts = [row[i] for row in found.rows if name in SUMMED and isinstance(row[i], Decimal)]
        footer.append(_column(name, [sum(amounts), *amounts], is_exact=False)[0] if amounts else "")
    return [footer[0] or "total", *footer[1:]]


def _column(name: str, values: Sequence[Any], *, is_exact: bool) -> list[str]:
    """Values of a column as text. Unless it has to be exact, a window shows moments to the second, and amounts to a
    hundredth of a cent, where that is enough to tell them from nothing."""
    if is_exact or not Console().is_terminal:
        return [_text(value) for value in values]
    moments = [value for value in values if isinstance(value, datetime)]
    if moments:
        shape = "%Y-%m-%d" if all(each.time() == time() for each in moments) else "%Y-%m-%d %H:%M:%S"
        return [value.strftime(shape) if isinstance(value, datetime) else _text(value) for value in values]
    amounts = [value for value in values if isinstance(value, Decimal)]
    if name.endswith("_usd") and amounts and all(abs(each) >= FINEST or not each for each in amounts):
        return [f"{value:,.4f}" if isinstance(value, Decimal) else _text(value) for value in values]
    return [_text(value) for value in values]


def _bars(found: Rows) -> list[Bar]:
    """One for each row, where there is something to compare."""
    name = next((name for name in DRAWN if name in found.columns), None)
    if name is None or len(found.rows) < 2:
        return []
    values = [row[found.columns.index(name)] for row in found.rows]
    lengths = [float(value) if isinstance(value, int | float | Decimal) and value > 0 else 0.0 for value in values]
    full = 1.0 if name in SHARES else max(lengths)
    return [Bar(full, 0, min(length, full), width=BAR_WIDTH) for length in lengths] if full else []


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return f"{value:,f}"
        case bool():
            return str(value)
        case int():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(map(_text, value))
        case dict():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)
