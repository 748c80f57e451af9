"""`outlay import work` and `outlay attribute`: what trackers know, and what it says of calls that were made before."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click
import duckdb

from analytics import attributing, commands, sync, work
from analytics.attributing import Line, Span
from analytics.calls_cli import import_calls
from analytics.invoice_cli import import_invoice
from analytics.sources import devlake, files, links
from gateway.config import Config, TicketSettings
from gateway.errors import UserError
from gateway.options import config_option, data_option, json_option, settings
from gateway.ticket_keys import TicketKeys
from gateway.tracker import split

RULES = {
    "task": "as another call of its task",
    "name": "its branch is named after a ticket that is known now",
    "branch": "as the pull request of its branch",
    "commit": "as the pull request of its commit",
    "candidate": "what may have been meant is known now",
    "moved": "its ticket has another key, or was a pull request",
    "state": "more is known of its ticket",
    "taken_back": "its branch named no ticket of a known project",
}
"""What late evidence says of a call, by rule of `attributing`."""


# -- import ------------------------------------------------------------------------------------------------------------


@click.group(name="import")
def import_() -> None:
    """Bring in what other programs know."""


import_.add_command(import_calls)
import_.add_command(import_invoice)


class Imported(NamedTuple):
    table: str
    path: Path
    counts: work.Counts
    problems: files.Problems


@import_.command(name="work")
@click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["tables", "devlake"]),
    default="tables",
    show_default=True,
    help="devlake: a folder with DevLake's tables, as CSV or Parquet.",
)
@click.option("--complete", is_flag=True, help="The tickets are all that there are: others are unknown.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are wrong, and columns that the table has not.")
@config_option
@data_option
@json_option
def import_work(
    paths: Sequence[Path],
    form: str,
    complete: bool,
    skip_bad: bool,
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Tickets, pull requests, their links and commits, from CSV, JSONL or Parquet.

    One file per table, named like it: tickets.csv, pull_requests.jsonl, pr_tickets.parquet, commits.csv. A row replaces
    the one with the same key, unless that is of a later updated_at. Nothing is imported if anything is wrong. Then the
    attribution of calls is corrected where it is known better now. Without --complete, a ticket that is not in the file
    is unchecked, not unknown, and calls keep the tickets of other projects.
    """
    config = settings(config_path)
    folder = commands.data_folder(config, data)
    with contextlib.ExitStack() as stack:
        if form == "devlake":
            paths = _devlake(paths, stack.enter_context(TemporaryDirectory()), sync.ticket_keys(folder, config))
        _import_files(paths, complete, skip_bad, config, folder, as_json)


def _devlake(paths: Sequence[Path], into: str, keys: TicketKeys) -> list[Path]:
    if len(paths) != 1 or not paths[0].is_dir():
        raise click.UsageError("--format devlake takes one folder")
    files_of, left_out = devlake.convert(paths[0], Path(into), keys)
    for table, number in left_out.items():
        click.echo(f"{table}: {number:,} rows left out: they do not tell which ticket or repository", err=True)
    return files_of


def _import_files(
    paths: Sequence[Path], complete: bool, skip_bad: bool, config: Config, folder: Path, as_json: bool
) -> None:
    tables = [files.table_of(path) for path in paths]
    if twice := next((table for table in tables if tables.count(table) > 1), None):
        raise click.UsageError(f"there are two files for {twice}: import one after the other")
    try:
        with commands.patience(), work.alone(folder):
            keys = sync.ticket_keys(folder, config)
            of_table = dict(zip(tables, paths, strict=True))
            imported = _import(folder, of_table, keys, complete=complete, skip_bad=skip_bad)
    except OSError as error:
        raise UserError(f"{error.filename or work.folder(folder)} cannot be written: {error.strerror}") from None
    except duckdb.Error as error:
        raise UserError(f"{work.folder(folder)} cannot be brought up to date: {str(error).splitlines()[0]}") from None
    if not as_json:
        for each in imported:
            click.echo(_told(each))
    lines = correct(config, folder, Span())
    if not as_json:
        print_lines(lines, applied=True)
        return
    rows = [
        {
            "table": each.table,
            "file": str(each.path),
            **each.counts._asdict(),
            "left_out_rows": dict(each.problems.rows),
            "left_out_columns": each.problems.columns,
        }
        for each in imported
    ]
    commands.print_json({"tables": rows, "attribution": lines})


def _import(
    folder: Path, paths: dict[str, Path], keys: TicketKeys, *, complete: bool, skip_bad: bool
) -> list[Imported]:
    """Raises `UserError`, and changes nothing, when anything is wrong."""
    problems = {table: files.Problems(path) for table, path in paths.items()}
    projects: set[str] = set()
    reverts: list[work.Revert] = []
    for table, path in paths.items():
        work.spool(folder, table, _noting(files.read(path, table, problems[table]), keys, projects, reverts))
    if not skip_bad:
        files.demand_none(problems.values())
    imported = [Imported(table, path, work.store(folder, table), problems[table]) for table, path in paths.items()]
    if reverts and "reverts" not in paths:
        work.spool(folder, "reverts", reverts)
        work.store(folder, "reverts")
    if "tickets" in paths:
        is_whole = complete and not problems["tickets"].rows
        work.mark_synced(folder, projects, datetime.now(UTC).replace(tzinfo=None) if is_whole else None)
    work.write_tracker(folder)
    return imported


def _noting(
    rows: Iterable[work.Row], keys: TicketKeys, projects: set[str], reverts: list[work.Revert]
) -> Iterator[work.Row]:
    """Rows, and beside them the projects of tickets, and what titles of pull requests say that these take back."""
    for row in rows:
        if isinstance(row, work.Ticket):
            project, number = split(row.ticket_id)
            projects |= {project} if number else set()
        elif isinstance(row, work.PullRequest):
            reverts += links.reverts_of(row.pr_id, row.repo, row.title or "", keys, at=row.merged_at)
        yield row


def counted(table: str, counts: work.Counts) -> str:
    rare = ("older", "gone")
    parts = [f"{number:,} {what}" for what, number in counts._asdict().items() if number or what not in rare]
    return f"{table}: {', '.join(parts)}"


def _told(imported: Imported) -> str:
    problems = imported.problems
    line = counted(imported.table, imported.counts)
    left = [f"{number:,} rows ({reason})" for reason, number in problems.rows.most_common()]
    left += [f"the column {name}" for name in problems.columns]
    return f"{line}; left out: {', '.join(left)}" if left else line


# -- attribute ---------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), help="First day, UTC.")
@click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="Last day, UTC.")
@click.option("--apply", "apply_", is_flag=True, help="Write the corrections. Without it, nothing is written.")
@config_option
@data_option
@json_option
def attribute(
    from_: datetime | None,
    to: datetime | None,
    apply_: bool,
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """What is known of past calls' tickets by now; with --apply, correct them. What was recorded stays."""
    if from_ and to and from_ > to:
        raise click.UsageError("--from is after --to")
    config = settings(config_path)
    folder = commands.data_folder(config, data)
    span = Span(from_ or Span().first, datetime.combine(to, time.max) if to else Span().last)
    lines = correct(config, folder, span) if apply_ else attributing.find(folder, span, _ticket_settings(config))
    if as_json:
        commands.print_json({"changes": lines, "applied": apply_})
    else:
        print_lines(lines, applied=apply_)


def correct(config: Config, folder: Path, span: Span) -> list[Line]:
    try:
        with commands.patience(), commands.tidy_when_terminated():
            settings = commands.journal_settings(config, folder)
            return attributing.correct(folder, span, _ticket_settings(config), settings)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}; some corrections may be missing: outlay attribute --apply "
            "writes what is missing"
        ) from None


def _ticket_settings(config: Config) -> TicketSettings | None:
    return config.tickets if config.file else None


def print_lines(lines: Sequence[Line], *, applied: bool) -> None:
    if not lines:
        click.echo("Nothing is known better of any call's ticket.")
        return
    rows = [[line.rule, RULES[line.rule], line.calls, line.unpriced_calls or "", line.list_cost_usd] for line in lines]
    commands.print_table(("rule", "what is known of the call by now", "calls", "unpriced", "list cost, USD"), rows)
    calls = sum(line.calls for line in lines)
    click.echo(f"{calls:,} calls were corrected." if applied else "Nothing was written; --apply corrects them.")
