"""`outlay sql`: a question, or a shell, over all views; each query runs in the sandbox."""

import asyncio
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import click
import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

import analytics
from analytics import build, cli, commands, output, sandbox
from analytics.output import Format
from gateway.errors import UserError

HISTORY = Path("~/.outlay_history")
WORDS = [
    "SELECT", "FROM", "WHERE", "GROUP", "BY", "ORDER", "LIMIT", "HAVING", "JOIN", "LEFT", "USING", "ON", "AS", "AND",
    "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "LIKE", "CASE", "WHEN", "THEN", "ELSE", "END", "WITH", "UNION", "ALL",
    "DISTINCT", "DESCRIBE", "SUMMARIZE", "EXPLAIN", "SHOW", "TABLES", "DESC", "count", "sum", "avg", "min", "max",
]  # fmt: skip
AFTER_THESE = re.compile(r"\b(from|join|describe|summarize)\s+\w*$", re.IGNORECASE)
"""A relation comes next."""
LEAVE = ("exit", "quit", r"\q")
GREETING = "Ends a query: ;  Relations: SHOW TABLES;  Columns: DESCRIBE calls;  Completes: Tab  Leave: Ctrl-D"


class Asked(NamedTuple):
    """What the options say."""

    data: Path
    format: Format
    rows: int
    seconds: float
    as_of: datetime | None


class _Sql(click.Command):
    """A query may begin with a comment, which is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f" {each}" if re.match(r"--\s", each) else each for each in args])


@click.command(cls=_Sql)
@click.argument("query", required=False)
@cli.folder_options
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@cli.json_option
@click.option("--rows", type=click.IntRange(1), default=10_000, show_default=True, help="At most so many.")
@click.option("--seconds", type=click.FloatRange(0.1), default=300, show_default=True, help="At most so long.")
@cli.as_of_option
def sql(
    query: str | None,
    data: Path,
    format_: Format,
    as_json_: bool,
    rows: int,
    seconds: float,
    as_of: datetime | None,
) -> None:
    """Read-only SQL over everything; without QUERY an interactive shell."""
    analytics.open(data).close()
    asked = Asked(data, "json" if as_json_ else format_, rows, seconds, as_of)
    if query is None and sys.stdin.isatty():
        shell(asked)
    else:
        answer(asked, sys.stdin.read() if query is None else query)


def answer(asked: Asked, text: str) -> None:
    """Run each statement, and print what it gives. Raises `UserError`."""
    with commands.errors_in_one_line():
        statements = [statement.query for statement in duckdb.extract_statements(text)]
    for statement in statements:
        try:
            with commands.patience():
                found = asyncio.run(
                    sandbox.run(
                        asked.data, statement, rows_max=asked.rows, seconds=asked.seconds, as_of=asked.as_of,
                        own_rights=True,
                    )
                )  # fmt: skip
        except sandbox.SqlError as error:
            raise UserError(str(error)) from None
        output.show(output.Rows(found.columns, found.rows), asked.format, is_exact=True)
        if found.truncated:
            click.echo(f"Only the first {len(found.rows):,} rows: --rows gives more, outlay.duckdb all.", err=True)


# -- the shell -----------------------------------------------------------------------------------------------------


class Names(Completer):
    """Relations, the columns of those that a query names, and words of SQL."""

    def __init__(self, columns: Mapping[str, Sequence[str]]) -> None:
        self._columns = columns

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        begun = document.get_word_before_cursor(pattern=re.compile(r"\w+"))
        if AFTER_THESE.search(document.text_before_cursor):
            names: list[str] = [*self._columns]
        else:
            named = [name for name in re.findall(r"\w+", document.text) if name in self._columns]
            names = [column for name in named for column in self._columns[name]]
            names += [*self._columns, *WORDS] if begun else []
        for name in dict.fromkeys(names):
            if name.lower().startswith(begun.lower()):
                yield Completion(name, -len(begun))


def columns_of(data: Path) -> dict[str, list[str]]:
    """Of each relation."""
    with analytics.open(data) as db:
        return dict(sorted(db.execute(build.step("view_columns")).fetchall()))


def shell(asked: Asked) -> None:
    """Ask until there is nothing more to ask."""
    click.echo(GREETING, err=True)
    session = _session(columns_of(asked.data))
    while True:
        try:
            text = session.prompt("outlay> ")
            if text.strip() in LEAVE:
                return
            answer(asked, text)
        except UserError as error:
            click.echo(str(error), err=True)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _session(columns: Mapping[str, Sequence[str]]) -> PromptSession[str]:
    keys = KeyBindings()
    session: PromptSession[str] = PromptSession(
        history=_history(),
        multiline=True,
        prompt_continuation=lambda width, *_: "> ".rjust(width),
        completer=Names(columns),
        complete_while_typing=False,
        lexer=PygmentsLexer(SqlLexer),
        auto_suggest=AutoSuggestFromHistory(),
        key_bindings=keys,
    )

    @Condition
    def is_whole() -> bool:
        text = session.default_buffer.text.strip()
        return text.endswith(";") or text in LEAVE

    @keys.add("enter", filter=is_whole)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return session


def _history() -> FileHistory:
    """The queries of earlier sessions, for their user alone."""
    file = HISTORY.expanduser()
    os.close(os.open(file, os.O_CREAT | os.O_APPEND, 0o600))
    return FileHistory(str(file))
