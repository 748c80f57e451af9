"""What the control plane's commands have in common."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import duckdb
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from analytics import disk, lake
from gateway import options, terminal
from gateway.config import Config, LedgerSettings
from gateway.errors import UserError
from gateway.terminal import Grid

PATIENCE_SECONDS = 2.0


def data_folder(config: Config, data: Path | None) -> Path:
    """The one named, else that of the settings, with its views. Raises `UserError` where there is none."""
    folder = options.data_folder(config, data)
    if not folder.is_dir():
        raise UserError(f"there is no data folder {folder}: name the one that the gateway writes to")
    lake.publish(folder)
    return folder


def journal_settings(config: Config, data: Path) -> LedgerSettings:
    """To write to the journal of a data folder."""
    return msgspec.structs.replace(config.ledger, dir=str(data), synthetic=(data / disk.MARKER).exists())


@contextlib.contextmanager
def tidy_when_terminated() -> Iterator[None]:
    """SIGTERM ends the process as an error does: what is half written is removed."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], first: Sequence[str] = ()) -> None:
    """`first`: columns that are left out last where a window is narrow."""
    cells = [[usd(v) if isinstance(v, Decimal) else "" if v is None else str(v) for v in row] for row in rows]
    numbers = range(len(columns))
    amounts = [n for n in numbers if any(isinstance(row[n], Decimal | int) for row in rows)]
    terminal.show(Grid(columns, cells, right=amounts, first=first))


def print_left_out(left_out: Mapping[str, Mapping[Any, int]]) -> None:
    """Rows of files that were not imported, by file and reason."""
    for path, reasons in left_out.items():
        click.echo(f"{path}: left out: " + ", ".join(f"{rows:,} rows ({reason})" for reason, rows in reasons.items()))


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode(value), indent=2))


def usd(amount: Decimal) -> str:
    """Without the zeroes that say nothing."""
    return f"{amount.normalize():,f}"


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """What takes longer than a moment shows on the terminal that it goes on, and for how long; elsewhere nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    progress = Progress(
        TextColumn("working"), BarColumn(bar_width=20), TimeElapsedColumn(), console=console, transient=True
    )
    progress.add_task("", total=None)
    timer = threading.Timer(PATIENCE_SECONDS, progress.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """DuckDB's message, without the picture of the query, as the user's mistake that it is."""
    try:
        yield
    except duckdb.Error as error:
        message = str(error).partition("\nLINE ")[0]
        raise UserError(" ".join(line for line in message.splitlines() if line)) from None
