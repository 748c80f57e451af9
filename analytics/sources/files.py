"""Work tables from files: CSV, JSONL or Parquet, one file per table, named like it. Each row is checked.

A row that is wrong is told to `Problems` and left out; what makes a whole file useless is a `UserError`. Rows are
counted as an editor or a spreadsheet shows them: the header of a CSV file is row 1.
"""

import contextlib
import csv
import difflib
import gzip
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import msgspec

from analytics import build, work
from gateway.errors import UserError

TABLES = tuple(name for name in work.TABLES if name not in ("environments", "projects", "invoice_lines", "ticket_prs"))
SHOWN = 10
CELL_MAX = 2**26
"""Longest cell of a CSV file, characters."""
BATCH_ROWS = 10_000

Reason = Literal["unreadable", "missing key", "wrong type", "wrong value", "duplicate key"]
Numbered = tuple[int, dict[str, Any]]
Choose = Callable[[list[str]], Collection[str]]
"""Of the columns of a file, those that are read. Raises `UserError` when no row of it can be of use."""
Number = Callable[[str], Any]
"""What a number with a fraction is read as."""


class Problems:
    """What is wrong with one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        """Of the first problems."""
        self.rows: Counter[Reason] = Counter()
        """Rows left out, by reason."""
        self.columns: list[str] = []
        """Columns left out, because the table has none of that name."""

    def row(self, number: int, reason: Reason, text: str) -> None:
        self.rows[reason] += 1
        self._say(number, text)

    def column(self, number: int, name: str, known: Collection[str]) -> None:
        if name not in self.columns:
            self.columns.append(name)
            near = difflib.get_close_matches(name, known, n=1)
            advice = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
            self._say(number, f'unknown column "{short(name)}"; {advice}')

    def _say(self, number: int, text: str) -> None:
        if len(self.lines) < SHOWN:
            self.lines.append(f"{self.path} row {number}: {text}")

    def __len__(self) -> int:
        return self.rows.total() + len(self.columns)


def demand_none(problems: Collection[Problems]) -> None:
    """Raises `UserError`, which tells them, where there are any: then nothing is imported."""
    if total := sum(map(len, problems)):
        lines = [line for each in problems for line in each.lines]
        more = [f"… and {total - len(lines):,} more"] if total > len(lines) else []
        raise UserError("\n".join([*lines, *more, "Nothing was imported; --skip-bad leaves out what is wrong."]))


def table_of(path: Path) -> str:
    """The table that a file is of. Raises `UserError` for a name or format that none has."""
    table, kind = path.stem.lower(), path.suffix.lower()
    if table not in TABLES or kind not in READERS:
        raise UserError(
            f"{path}: name the file like its table and format: {', '.join(TABLES)}, each {', '.join(READERS)}"
        )
    return table


def read(path: Path, table: str, problems: Problems) -> Iterator[work.Row]:
    """The sound rows of a file. Raises `UserError` when it cannot be read at all."""
    kind = work.TABLES[table]
    lax = path.suffix.lower() == ".csv"
    seen: dict[tuple[Any, ...], int] = {}
    try:
        for number, values in READERS[path.suffix.lower()](
            path, problems, lambda header: _checked(path, header), float
        ):
            for name in [name for name in values if name not in kind.columns]:
                problems.column(number, name, kind.columns)
                del values[name]
            try:
                row = msgspec.convert(typed(values, kind.columns, lax=lax), kind.row, strict=not lax)
            except msgspec.ValidationError as error:
                problems.row(number, *told(error, values, kind.choices))
                continue
            key = tuple(getattr(row, name) for name in kind.key)
            if key in seen:
                problems.row(
                    number, "duplicate key", f"{' and '.join(map(str, key))} stands in row {seen[key]} already"
                )
                continue
            seen[key] = number
            yield row
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


# -- formats -----------------------------------------------------------------------------------------------------------


def opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """For reading, unpacked where its name ends in `.gz`."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_csv(path: Path, problems: Problems, choose: Choose, number_of: Number) -> Iterator[Numbered]:
    csv.field_size_limit(CELL_MAX)
    with io.TextIOWrapper(opened(path), newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        rows = enumerate(csv.reader(lines, strict=True), 1)
        number = 0
        try:
            number, header = next(rows, (1, []))
            chosen = choose(header)
            wanted = [(place, name) for place, name in enumerate(header) if name in chosen]
            for number, cells in rows:
                if cells and len(cells) != len(header):
                    problems.row(number, "unreadable", f"has {len(cells)} cells, the header has {len(header)}")
                elif cells and not _is_text("".join(cells)):
                    problems.row(number, "unreadable", "is not UTF-8 text")
                elif cells:
                    yield number, {name: cells[place] for place, name in wanted if cells[place] != ""}
        except csv.Error as error:
            problems.row(number + 1, "unreadable", f"is not CSV: {error}")


def _read_jsonl(path: Path, problems: Problems, choose: Choose, number_of: Number) -> Iterator[Numbered]:
    decoder = msgspec.json.Decoder(dict[str, Any], float_hook=number_of)
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    values = decoder.decode(line.removeprefix(b"\xef\xbb\xbf"))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    problems.row(number, "unreadable", "is no JSON object, or not a whole one")
                    continue
                yield number, {name: value for name, value in values.items() if value is not None}


def _read_parquet(path: Path, problems: Problems, choose: Choose, number_of: Number) -> Iterator[Numbered]:
    path.open("rb").close()  # a missing file is told as for the other formats
    decoder = msgspec.json.Decoder(dict[str, Any], float_hook=number_of)
    try:
        for number, text in enumerate(_parquet_rows(path, choose), 1):
            try:
                values = decoder.decode(text)
            except msgspec.MsgspecError:
                problems.row(number, "unreadable", "has a number that is none")
                continue
            yield number, {name: value for name, value in values.items() if value is not None}
    except duckdb.Error as error:
        raise UserError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _parquet_rows(path: Path, choose: Choose) -> Iterator[str]:
    """Each as JSON."""
    file = {"file": build.glob_of(path)}
    with duckdb.connect() as db:
        with contextlib.suppress(duckdb.Error):  # where DuckDB knows no other zones
            db.execute("SET TimeZone = 'UTC'")
        columns = choose([name for name, _ in db.execute(build.step("file_columns"), file).fetchall()])
        db.execute("SET VARIABLE columns = $columns", {"columns": list(columns)})
        result = db.execute(build.step("read_work_rows"), file)
        while rows := result.fetchmany(BATCH_ROWS):
            yield from (text for (text,) in rows)


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def _checked(path: Path, header: list[str]) -> list[str]:
    """All columns. Raises `UserError` when no row can be told from another."""
    table = work.TABLES[table_of(path)]
    if missing := [name for name in table.required if name not in header]:
        raise UserError(f"{path} row 1: the column {missing[0]} is missing; {', '.join(table.required)} must be there")
    check_unique(path, header)
    return header


def check_unique(path: Path, header: list[str]) -> None:
    """Raises `UserError` when two columns have one name."""
    if twice := [name for name, times in Counter(header).items() if times > 1]:
        raise UserError(f'{path} row 1: the column "{short(twice[0])}" is there twice')


# -- values ------------------------------------------------------------------------------------------------------------


def typed(values: dict[str, Any], columns: Mapping[str, str], *, lax: bool) -> dict[str, Any]:
    """Times, and with `lax` lists, from the text that they are written as. `columns`: their types in SQL."""
    found = dict(values)
    for name, value in values.items():
        if isinstance(value, str):
            if columns[name] == "TIMESTAMP":
                found[name] = _moment(name, value)
            elif lax and columns[name] == "VARCHAR[]":
                found[name] = _list(name, value)
    return found


def _moment(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise msgspec.ValidationError(
            f'"{short(text)}" is no time: write 2026-11-25T10:00:00Z - at `$.{name}`'
        ) from None


def _list(name: str, text: str) -> list[str]:
    """`a, b`, or a JSON array where a part has a comma."""
    if not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        raise msgspec.ValidationError(f'"{short(text)}" is no list of texts - at `$.{name}`') from None


def told(
    error: msgspec.ValidationError, values: Mapping[str, Any], choices: Callable[[str], Collection[str]]
) -> tuple[Reason, str]:
    """What msgspec says ("Expected `int`, got `str` - at `$.number`"), in our words. `choices`: all values that a
    column can have, where there are but some."""
    message, _, where = str(error).replace("` | `", " | ").partition(" - at `$.")
    name = where.rstrip("`").partition("[")[0]
    message = message.replace("`", "").replace(" | null", "")
    if message.startswith("Object missing required field "):
        return "missing key", f"{message.removeprefix('Object missing required field ')} is missing"
    at = f"{name}: " if name else ""
    if message.startswith("Invalid enum value"):
        return "wrong value", f'{at}"{short(values[name])}" is none of {", ".join(choices(name))}'
    if " matching regex " in message:
        return "wrong value", f"{at}must be printable text without blanks around it"
    return "wrong type" if ", got " in message else "wrong value", f"{at}{message}"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
