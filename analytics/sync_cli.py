"""`outlay sync`: what the configured trackers know, with progress."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import duckdb
import msgspec
from rich import progress
from rich.console import Console

from analytics import commands, sync, work
from analytics.attributing import Span
from analytics.sync import Outcome, Progress
from analytics.work_cli import correct, counted, print_lines
from gateway import options
from gateway.config import Config
from gateway.errors import UserError
from gateway.options import config_option, data_option, json_option, settings

PROBLEMS_SHOWN = 10
WAIT_SHOWN = 5.0
"""Seconds of a wait that is worth a word."""


@click.command(name="sync")
@click.argument("sources", metavar="[SOURCE]…", nargs=-1, type=click.Choice([*sync.SOURCES]))
@click.option("--full", is_flag=True, help="Read all, also what was read before.")
@config_option
@data_option
@json_option
def sync_(sources: Sequence[str], full: bool, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Tickets, pull requests, commits and deployments from the trackers and forges that are configured in [work].

    What changed since the last time, or with --full all. Stopped at any moment, the next one goes on from there. Then
    the attribution of calls is corrected where it is known better now. When a source fails, the others go on, and the
    exit code is 1.
    """
    config = settings(config_path)
    names = _named(config, sources)
    folder = commands.data_folder(config, data)
    try:
        with commands.tidy_when_terminated(), _showing() as told:
            outcomes = sync.sync(folder, config, names, full=full, told=told)
    except OSError as error:
        raise UserError(f"{error.filename or work.folder(folder)} cannot be written: {error.strerror}") from None
    except duckdb.Error as error:
        raise UserError(f"{work.folder(folder)} cannot be brought up to date: {str(error).splitlines()[0]}") from None
    if not as_json:
        for each in outcomes:
            for table, counts in each.tables.items():
                click.echo(f"{each.source}: {counted(table, counts)}")
    for each in outcomes:
        _complain(each)
    lines = correct(config, folder, Span())
    if as_json:
        commands.print_json({"sources": [msgspec.to_builtins(_row(each)) for each in outcomes], "attribution": lines})
    else:
        print_lines(lines, applied=True)
    if any(each.failures for each in outcomes):
        raise click.exceptions.Exit(1)


def _named(config: Config, sources: Sequence[str]) -> list[str]:
    """The sources to read, each once, in the order in which they build on each other."""
    there = sync.configured(config.work)
    if not there:
        raise UserError("no tracker is configured: say in [work.github], say, which repos to read (docs/sync.md)")
    if away := [name for name in sources if name not in there]:
        raise UserError(f"[work.{away[0]}] does not say what to read; configured: {', '.join(there)}")
    return [name for name in there if not sources or name in sources]


def _row(outcome: Outcome) -> dict[str, object]:
    return {
        "source": outcome.source,
        "tables": {table: counts._asdict() for table, counts in outcome.tables.items()},
        "problems": outcome.problems,
        "failures": outcome.failures,
    }


def _complain(outcome: Outcome) -> None:
    for line in outcome.problems[:PROBLEMS_SHOWN]:
        click.echo(options.shown(line), err=True)
    if (more := len(outcome.problems) - PROBLEMS_SHOWN) > 0:
        click.echo(
            f"{outcome.source}: … and {more:,} more that could not be read as they should; --json has all", err=True
        )
    for line in outcome.failures:
        click.echo(options.shown(line), err=True)


@contextlib.contextmanager
def _showing() -> Iterator[Callable[[Progress], None]]:
    """Progress on stderr: bars on a terminal, elsewhere a line when a part begins and when its tracker asks to wait."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines().tell
        return
    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console) as bars:
        yield _Bars(bars).tell


class _Lines:
    def __init__(self) -> None:
        self._part: tuple[str, str] | None = None

    def tell(self, now: Progress) -> None:
        if (now.source, now.part) != self._part:
            self._part = now.source, now.part
            click.echo(options.shown(f"{now.source}: {now.part}"), err=True)
        if now.waits > WAIT_SHOWN:
            click.echo(f"{now.source} asks to wait for {now.waits:,.0f} s", err=True)


class _Bars:
    """One for each part."""

    def __init__(self, bars: progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], progress.TaskID] = {}

    def tell(self, now: Progress) -> None:
        part = (now.source, now.part)
        if part not in self._tasks:
            for before in self._tasks.values():
                self._bars.stop_task(before)
            self._tasks[part] = self._bars.add_task("", total=None)
        what = options.shown(f"{now.source}: {now.part}")
        waits = f", waits {now.waits:,.0f} s" if now.waits > WAIT_SHOWN else ""
        self._bars.update(self._tasks[part], description=what + waits, completed=now.done, total=now.total)
