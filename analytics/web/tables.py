"""A query as a table: sorted, filtered and paged by DuckDB, as CSV, and as SQL to be run elsewhere."""

import asyncio
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any
from urllib.parse import quote

from analytics.web import asking
from analytics.web.asking import Answer, Asking, Question
from analytics.web.formats import is_number

ROWS = 50
"""On a page."""
CSV_ROWS = 100_000
NAMED = re.compile(r"\{(\w*)\}")
COLUMN = re.compile(r"[a-z][a-z0-9_]{0,62}")
FORMULA = re.compile(r"^(?=\s*[=+\-@]|[\t\r])", re.MULTILINE)
"""Where a line begins that a spreadsheet would take for a formula."""
NONE = "(none)"
"""In an address: what has no value."""
_COUNT, _TOTAL = "rows_in_all", "total_of_"


class TooManyError(Exception):
    """More rows than are sent as CSV."""


@dataclass(frozen=True)
class Table:
    """What is shown of a query."""

    query: str
    """Its file below analytics/queries; names the table on its page, too."""
    title: str
    given: Mapping[str, Any] = field(default_factory=dict)
    over: str = ""
    """Query whose rows it is about, where several tables are about the same: those are found once."""
    sort: str = ""
    """Column that comes first, `-` before it for the largest; by default as the query has it."""
    sorts: tuple[str, ...] = ()
    """Columns that it may be sorted by, where not by all."""
    search: tuple[str, ...] = ()
    """Columns that a filter looks at."""
    totals: tuple[str, ...] = ()
    """Columns that are summed up over all rows."""
    hidden: tuple[str, ...] = ()
    """Columns that a page leaves out; CSV and SQL have them."""
    empty: str = "There is nothing here in these days."
    """What to do, where there are no rows."""
    note: str = ""
    money: str | None = "list_cost_usd"
    """Column beside which calls without a price are told; `None` where they are a column."""
    lead: tuple[str, ...] = ()
    """Columns that stand first: on a phone the others are out of sight. By default the money stands second."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where cells of a column lead: an address with `{}` for the value, or `{name}` for that of another column."""
    unnamed: Mapping[str, str] = field(default_factory=dict)
    """Where those without a value lead."""
    is_long: bool = False
    """So many rows that they are counted apart from those that are shown."""
    rows: int = ROWS
    is_small: bool = False
    """Addresses do not sort, filter or page it."""
    is_exact: bool = False

    @property
    def name(self) -> str:
        return asking.name_of(self.query)

    def sorts_by(self, column: str) -> bool:
        return not self.sorts or column in self.sorts

    def to(self, column: str, row: Mapping[str, Any]) -> str | None:
        """Of a cell, if it leads anywhere."""
        addresses = self.links if row[column] else self.unnamed
        if column not in addresses:
            return None
        return NAMED.sub(lambda name: quote(str(row[name[1] or column] or NONE), safe=""), addresses[column])


@dataclass(frozen=True)
class Asked:
    """What a viewer wants of a table, as addresses have it: `NAME.sort`, `NAME.q`, `NAME.page`."""

    sort: str
    q: str
    page: int


@dataclass
class Shown:
    """A table with its rows."""

    table: Table
    asked: Asked
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    totals: dict[str, Any]
    count: int
    """Of rows in all."""
    sql: str
    at: float

    @cached_property
    def numbers(self) -> set[str]:
        """Columns that have numbers, or nothing."""
        return {
            column
            for column in self.columns
            if any(is_number(row[column]) for row in self.rows)
            and all(row[column] is None or is_number(row[column]) for row in self.rows)
        }

    @property
    def pages(self) -> int:
        return max(1, -(-self.count // self.table.rows))

    @property
    def first(self) -> int:
        return (self.asked.page - 1) * self.table.rows + 1


def asked(table: Table, query: Mapping[str, str]) -> Asked:
    """Of an address. What cannot be meant is left out."""
    if table.is_small:
        return Asked(table.sort, "", 1)
    sort = query.get(f"{table.name}.sort", "")
    column = sort.removeprefix("-")
    sort = sort if COLUMN.fullmatch(column) and table.sorts_by(column) else table.sort
    page = query.get(f"{table.name}.page", "1")
    return Asked(
        sort, query.get(f"{table.name}.q", "")[:200], int(page) if re.fullmatch(r"[1-9][0-9]{0,5}", page) else 1
    )


async def show(asks: Asking, table: Table, wanted: Asked) -> Shown:
    """Raises `AskError`."""
    asked = questions(table, wanted)
    answers = await asyncio.gather(*(asks.ask(sql, given, is_exact=table.is_exact) for sql, given in asked))
    return shown(table, wanted, answers)


def shown(table: Table, wanted: Asked, answers: Sequence[Answer]) -> Shown:
    found = answers[0].dicts()
    sums = answers[-1].dicts()[0] if answers[-1].rows else {}
    named = [each for each in answers[0].columns if not each.startswith(_TOTAL)]
    named = [each for each in named if each != _COUNT and each not in table.hidden]
    lead = table.lead or ((named[0], table.money) if table.money in named else ())
    columns = tuple(sorted(named, key=lambda each: lead.index(each) if each in lead else len(lead)))
    totals = {column: sums.get(_TOTAL + column) for column in table.totals} if found else {}
    return Shown(table, wanted, columns, found, totals, sums.get(_COUNT, 0), sql_text(table, wanted), answers[0].at)


def questions(table: Table, wanted: Asked) -> list[Question]:
    """The query for rows, and, where that has them not, the one for how many there are and their sums."""
    given = {**table.given, "console_q": wanted.q}
    over = "" if table.is_long else " OVER ()"
    sums = "".join(f', sum("{column}"){over} AS "{_TOTAL}{column}"' for column in table.totals)
    of = f"FROM (\n{asking.text(table.query)}\n){_where(table, wanted)}"
    page = f"{_order(wanted)}\nLIMIT {table.rows} OFFSET {(wanted.page - 1) * table.rows}"
    if table.is_long:
        return [(f"SELECT * {of}{page}", given), (f'SELECT count(*) AS "{_COUNT}"{sums} {of}', given)]
    return [(f'SELECT *, count(*){over} AS "{_COUNT}"{sums} {of}{page}', given)]


def sql_text(table: Table, wanted: Asked) -> str:
    """What makes the table, to be run in any shell."""
    plain = asking.spelled_out(asking.whole(table.query, table.over), table.given)
    where, order = _where(table, wanted), _order(wanted)
    if not where and (not order or wanted.sort == table.sort):
        return plain
    return f"SELECT *\nFROM (\n{plain}\n){asking.spelled_out(where, {'console_q': wanted.q})}{order}"


async def as_csv(asks: Asking, table: Table, wanted: Asked) -> str:
    """All rows, exact. Raises `AskError`, `TooManyError`."""
    asked = f"{_where(table, wanted)}{_order(wanted)}\nLIMIT {CSV_ROWS + 1}"
    sql = f"SELECT * FROM (\n{asking.whole(table.query, table.over)}\n){asked}"  # noqa: S608 - from our files alone
    answer = await asks.ask_once(sql, {**table.given, "console_q": wanted.q})
    if len(answer.rows) > CSV_ROWS:
        raise TooManyError
    return await asyncio.to_thread(csv_of, answer.columns, answer.rows)


def csv_of(columns: tuple[str, ...], rows: Any) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(map(plain, columns))
    writer.writerows([plain(value) for value in row] for row in rows)
    return lines.getvalue()


def plain(value: Any) -> Any:
    """For a spreadsheet, which would take some texts of strangers for formulas: those lines get a quote before them."""
    match value:
        case Decimal():
            return format(value, "f")
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
        case list() | tuple():
            return plain(", ".join(map(str, value)))
        case str():
            return FORMULA.sub("'", value)
        case _:
            return value


def _where(table: Table, wanted: Asked) -> str:
    if not wanted.q or not table.search:
        return ""
    texts = ", ".join(f'CAST("{column}" AS VARCHAR)' for column in table.search)
    return f"\nWHERE contains(lower(concat_ws(' ', {texts})), lower($console_q))"


def _order(wanted: Asked) -> str:
    column = wanted.sort.removeprefix("-")
    if not column:
        return ""
    return f'\nORDER BY "{column}" {"DESC" if wanted.sort.startswith("-") else "ASC"} NULLS LAST, 1'
