"""The control plane's subcommands of `outlay`: sql, report, verify. Loaded by entry point, when they are called."""

import contextlib
import csv
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

import click
import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

import analytics
from analytics import budgeting, build, commands, findings, lake, scoring, verifying
from gateway import options
from gateway.app import load_prices
from gateway.config import Config, load
from gateway.errors import UserError
from gateway.findings import State

QUERIES = build.FOLDER / "queries"
HISTORY = Path("~/.outlay_history")
HISTORY_LINES = 1000
ROWS_SHOWN = 30
"""Of tickets and tasks, in a table."""
SUMMED = {"list_cost_usd", "lost_cost_usd", "claimed_usd"}
"""Columns that a table has the total of."""

Show = Callable[[duckdb.DuckDBPyConnection], None]
"""Prints the result of the query that was executed last."""

data_option = click.option(
    "--data", type=click.Path(path_type=Path), default="data", show_default=True, help="Data folder."
)
json_option = click.option("--json", "as_json_", is_flag=True, help="Print JSON: the same as --format json.")


# -- sql -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("query", required=False)
@data_option
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@json_option
def sql(query: str | None, data: Path, format_: str, as_json_: bool) -> None:
    """Read-only SQL over everything; without QUERY an interactive shell."""
    show: Show = FORMATS["json" if as_json_ else format_]
    if query is None and not sys.stdin.isatty():
        query = sys.stdin.read()
    with analytics.open(data) as db:
        if query is None:
            _shell(db, show)
        else:
            _answer(db, query, show)


def _answer(db: duckdb.DuckDBPyConnection, query: str, show: Show) -> None:
    with commands.errors_in_one_line():
        for statement in db.extract_statements(query):
            show(db.execute(statement))


def _shell(db: duckdb.DuckDBPyConnection, show: Show) -> None:
    click.echo("Ends a query: ;  Relations: SHOW TABLES;  Columns: DESCRIBE calls;  Leave: Ctrl-D", err=True)
    lines: list[str] = []
    with _history():
        while True:
            try:
                lines.append(input("      > " if lines else "outlay> "))
                if lines[-1].rstrip().endswith(";"):
                    query, lines = "\n".join(lines), []
                    _answer(db, query, show)
            except UserError as error:
                click.echo(str(error), err=True)
            except KeyboardInterrupt:
                lines = []
                click.echo()
            except EOFError:
                click.echo()
                return


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing, with the queries of earlier sessions."""
    try:
        import readline
    except ImportError:  # not made for every platform
        yield
        return
    history = HISTORY.expanduser()
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        readline.write_history_file(history)


# -- report --------------------------------------------------------------------------------------------------------


def _dimensions() -> list[str]:
    return sorted(path.stem.removeprefix("spend_by_") for path in QUERIES.glob("spend_by_*.sql"))


@click.group()
def report() -> None:
    """Tables of spend and what came of it."""


def _output_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            data_option,
            click.option(
                "--format",
                "format_",
                type=click.Choice(["table", "json", "csv", "parquet"]),
                default="table",
                show_default=True,
            ),
            click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Parquet file to write."),
            json_option,
        )
    ):
        command = option(command)
    return command


def _report_options(command: Callable[..., None]) -> Callable[..., None]:
    command = _output_options(command)
    for option in reversed(
        (
            click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), help="First day, UTC."),
            click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="Last day, UTC."),
            click.option("--team", help="Only calls of this team's keys."),
        )
    ):
        command = option(command)
    return command


def _print_query(
    db: duckdb.DuckDBPyConnection, name: str, parameters: dict[str, Any], format_: str, out: Path | None
) -> None:
    query = (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
    if out is not None:
        db.sql(query, params=parameters).write_parquet(str(out), compression="zstd")
    else:
        FORMATS[format_](db.execute(query, parameters))


def _parameters(from_: datetime | None, to: datetime | None, **others: Any) -> dict[str, Any]:
    if from_ and to and from_ > to:
        raise click.UsageError("--from is after --to")
    return {"from": from_ or date.min, "to": to + timedelta(days=1) if to else date.max, **others}


def _check_out(format_: str, out: Path | None) -> None:
    if (format_ == "parquet") != (out is not None):
        raise click.UsageError("write --format parquet and --out FILE together")


@report.command()
@click.option("--by", type=click.Choice(_dimensions()), default="team", show_default=True)
@_report_options
def spend(
    by: str,
    from_: datetime | None,
    to: datetime | None,
    team: str | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    """What calls cost at list price."""
    _check_out(format_, out)
    parameters = _parameters(from_, to, team=team)
    with analytics.open(data) as db, commands.errors_in_one_line():
        _print_query(db, f"spend_by_{by}", parameters, "json" if as_json_ else format_, out)


class _Moment(click.ParamType[datetime]):
    """A moment, UTC; a day alone is its end."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        with contextlib.suppress(ValueError, OverflowError):
            return datetime.combine(date.fromisoformat(value), time()) + timedelta(days=1)
        with contextlib.suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        raise click.BadParameter(f"{value!r} is neither a day nor a moment: write 2026-11-01 or 2026-11-01T12:00:00")


def _work_options(command: Callable[..., None]) -> Callable[..., None]:
    command = _report_options(command)
    for option in reversed(
        (
            click.option("--by", type=click.Choice(["project", "type", "outcome", "team", "month"]), help="In groups."),
            click.option(
                "--sort",
                type=click.Choice(["cost", "lost", "calls"]),
                default="cost",
                show_default=True,
                help="Most first.",
            ),
            click.option(
                "--limit", type=click.IntRange(min=1), help="Show so many rows.  [default: 30 in a table, else all]"
            ),
            click.option("--as-of", type=_Moment(), help="What was known then, UTC; a day means its end.  [now]"),
        )
    ):
        command = option(command)
    return command


def _report_work(
    name: str,
    by: str | None,
    sort: str,
    limit: int | None,
    as_of: datetime | None,
    from_: datetime | None,
    to: datetime | None,
    team: str | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    _check_out(format_, out)
    format_ = "json" if as_json_ else format_
    if limit is None and format_ == "table" and by is None:
        limit = ROWS_SHOWN
    parameters = _parameters(from_, to, team=team, sort=sort, limit=limit)
    with analytics.open(data) as db, commands.errors_in_one_line():
        if as_of is not None:
            db.execute("SET VARIABLE as_of = $as_of", {"as_of": as_of})
        if by is not None:
            db.execute("SET VARIABLE dimension = $by", {"by": by})
        _print_query(db, f"{name}_by" if by else name, parameters, format_, out)


@report.command()
@_work_options
def tickets(**options_: Any) -> None:
    """What tickets cost, and what became of them. lost_cost_usd is what was spent on those that delivered nothing."""
    _report_work("tickets", **options_)


@report.command()
@_work_options
def tasks(**options_: Any) -> None:
    """What tasks cost, and what became of the tickets that they were for."""
    _report_work("tasks", **options_)


@report.command()
@click.option("--by", type=click.Choice(["provider", "day", "model"]), default="provider", show_default=True)
@click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), help="First day, UTC.")
@click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="Last day, UTC.")
@_output_options
def invoices(
    by: str,
    from_: datetime | None,
    to: datetime | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    """What providers invoiced beside what was metered, and why they differ."""
    _check_out(format_, out)
    parameters = _parameters(from_, to)
    with analytics.open(data) as db, commands.errors_in_one_line():
        db.execute("SET VARIABLE dimensions = $by", {"by": [*dict.fromkeys(("provider", by))]})
        _print_query(db, "invoices", parameters, "json" if as_json_ else format_, out)


SECTIONS = {
    "sources": "How tickets are known, and what is known of them",
    "conflicts": "Where weaker evidence named other tickets",
    "ignored": "Evidence that was none, and why",
    "untagged": "For no ticket and no declared purpose",
    "late": "What late evidence moved",
    "waste": "What clients do not tell, so that rules of waste stay silent",
}
"""Of `report coverage`; each is a query `coverage_…`."""


@report.command()
@click.option("--section", type=click.Choice(list(SECTIONS)), help="Only this one.")
@_report_options
def coverage(
    section: str | None,
    from_: datetime | None,
    to: datetime | None,
    team: str | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    """How well founded it is what calls are for, and where to name more tickets."""
    _check_out(format_, out)
    format_ = "json" if as_json_ else format_
    if section is None and format_ in ("csv", "parquet"):
        raise click.UsageError(f"one table has one section: name it with --section {'|'.join(SECTIONS)}")
    with analytics.open(data) as db, commands.errors_in_one_line():
        _print_sections(db, "coverage", SECTIONS, section, _parameters(from_, to, team=team), format_, out)


def _print_sections(
    db: duckdb.DuckDBPyConnection,
    name: str,
    sections: dict[str, str],
    section: str | None,
    parameters: dict[str, Any],
    format_: str,
    out: Path | None,
) -> None:
    """One section of a report, or all: one table, or one object, after the other."""
    if section is not None:
        _print_query(db, f"{name}_{section}", parameters, format_, out)
    elif format_ == "json":
        queries = {each: (QUERIES / f"{name}_{each}.sql").read_text(encoding="utf-8") for each in sections}
        commands.print_json({each: _rows(db.execute(query, parameters)) for each, query in queries.items()})
    else:
        for each, title in sections.items():
            click.echo(f"{title}:")
            _print_query(db, f"{name}_{each}", parameters, format_, out)
            click.echo()


QUADRANTS = {
    "outcome": "What arrived in production, against the team's own past (normalized deployments)",
    "cost": "What models cost by normalized deployment",
    "flow": "How long it took, by type of ticket",
    "durability": "How long it lasted",
    "signals": "Signs that something may be gamed: to be looked at, no verdicts",
}
"""Of `report scorecard`; each is a query `scorecard_…`."""


@report.command()
@click.option("--section", type=click.Choice(list(QUADRANTS)), help="Only this one.")
@click.option("--as-of", type=_Moment(), help="What was known then, UTC; a day means its end.  [now]")
@_report_options
def scorecard(
    section: str | None,
    as_of: datetime | None,
    from_: datetime | None,
    to: datetime | None,
    team: str | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    """Delivered work of teams, each against its own past: docs/metrics.md says what each number can and cannot say."""
    _check_out(format_, out)
    format_ = "json" if as_json_ else format_
    if section is None and format_ in ("csv", "parquet"):
        raise click.UsageError(f"one table has one section: name it with --section {'|'.join(QUADRANTS)}")
    analytics.open(data).close()
    with lake.scratch(data) as db, commands.errors_in_one_line():
        if as_of is not None:
            db.execute("SET VARIABLE as_of = $as_of", {"as_of": as_of})
        scoring.look(db, data)
        _print_sections(db, "scorecard", QUADRANTS, section, _parameters(from_, to, team=team), format_, out)


@report.command()
@click.option("--shadow", is_flag=True, help="What those in shadow mode would have refused.")
@click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), help="With --shadow: first day, UTC.  [last month]")
@click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="With --shadow: last day, UTC.")
@_output_options
def budgets(
    shadow: bool,
    from_: datetime | None,
    to: datetime | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    """How budgets stand in their present period."""
    _check_out(format_, out)
    format_ = "json" if as_json_ else format_
    if not shadow:
        if from_ or to:
            raise click.UsageError("--from and --to go with --shadow: else a budget is shown in its present period")
        with analytics.open(data) as db, commands.errors_in_one_line():
            _print_query(db, "budgets", {}, format_, out)
        return
    this_month = datetime.now(UTC).replace(tzinfo=None, day=1, hour=0, minute=0, second=0, microsecond=0)
    first = from_ or min(to or this_month, this_month - timedelta(days=1)).replace(day=1)
    last = to + timedelta(days=1) if to else this_month
    if first >= last:
        raise click.UsageError("--from is after --to; without --to a report goes to the end of the last month")
    analytics.open(data).close()
    with lake.scratch(data) as db, commands.errors_in_one_line():
        budgeting.replay(db, data, first, last)
        _print_query(db, "budgets_shadow", {"from": first, "to": last}, format_, out)


config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file with the thresholds, prices."
)


def look(data: Path, config: Path | None, as_of: datetime | None = None, *, replace: bool = False) -> None:
    """Look for waste now, or as of a moment (UTC). Raises `UserError` for one before the last look, unless its findings
    are to be replaced."""
    analytics.open(data).close()
    last = None if as_of is None or replace else findings.looked_at(data)
    if as_of and last and as_of < last:
        raise UserError(
            f"what is shown was found as of {last:%Y-%m-%dT%H:%M:%S}: "
            "to have what is found as of an earlier moment in its place, say --replace"
        )
    settings = load(config) if config else Config()
    now = datetime.now(UTC).replace(tzinfo=None)
    with commands.errors_in_one_line():
        findings.look(data, settings.waste, load_prices(settings), as_of or now)


WASTE_GROUPS = {"team": "team_id", "ticket": "ticket_id", "model": "model"}


@report.command()
@click.option("--by", type=click.Choice(["rule", *WASTE_GROUPS]), default="rule", show_default=True)
@click.option("--state", type=click.Choice(get_args(State)), multiple=True, help="By default all but dismissed ones.")
@config_option
@_report_options
def waste(
    by: str,
    state: tuple[State, ...],
    config: Path | None,
    from_: datetime | None,
    to: datetime | None,
    team: str | None,
    data: Path,
    format_: str,
    out: Path | None,
    as_json_: bool,
) -> None:
    """What could have been saved, each dollar once; as of the last look."""
    _check_out(format_, out)
    format_ = "json" if as_json_ else format_
    parameters = _parameters(from_, to, team=team, states=list(state or findings.UNDISMISSED))
    analytics.open(data).close()
    if (as_of := findings.looked_at(data)) is None:  # nobody has looked yet
        look(data, config)
        as_of = findings.looked_at(data)
    with analytics.open(data) as db, commands.errors_in_one_line():
        if by != "rule":
            db.execute("SET VARIABLE dimension = $by", {"by": WASTE_GROUPS[by]})
        _print_query(db, "waste_by_rule" if by == "rule" else "waste_by_group", parameters, format_, out)
    if format_ == "table":
        click.echo(
            f"As of {as_of:%Y-%m-%d %H:%M} UTC: `outlay findings look` looks again, `outlay findings list` shows each."
        )


# -- verify --------------------------------------------------------------------------------------------------------


@click.command()
@data_option
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
def verify(data: Path, as_json_: bool) -> None:
    """Check the ledger: every journal record, every sealed file, all sums. Exit code 1 if anything is wrong."""
    findings = verifying.verify(data)
    if as_json_:
        click.echo(verifying.as_json(findings))
    else:
        click.echo(
            f"{findings.calls:,} calls of {findings.list_cost_usd:,.9f} USD as first recorded and "
            f"{findings.corrections:,} corrections until {findings.as_of:%H:%M:%S} UTC; "
            f"{findings.segments} segments with {findings.records:,} records in the journal"
        )
        if findings.torn:
            click.echo(f"{findings.torn} lines cut off by a crash (nobody was answered from them)")
        for call_id in findings.open_calls:
            click.echo(f"open: {call_id}")
        if findings.open_holds:
            click.echo(f"{findings.open_holds} of them hold {findings.held_usd:,.9f} USD in budgets")
        for line in findings.wrong:
            click.echo(f"wrong: {line}")
        click.echo(f"{len(findings.wrong)} things are wrong" if findings.wrong else "All is well.")
    if findings.wrong:
        raise click.exceptions.Exit(1)


# -- output --------------------------------------------------------------------------------------------------------


def _names(result: duckdb.DuckDBPyConnection) -> list[str]:
    return [column[0] for column in result.description or ()]


def _table(result: duckdb.DuckDBPyConnection) -> None:
    names, rows = _names(result), result.fetchall()
    numbers = [any(isinstance(row[i], int | float | Decimal) for row in rows) for i in range(len(names))]
    table = Table(box=None, header_style="bold", show_footer=bool(SUMMED & {*names}), footer_style="bold")
    for i, name in enumerate(names):
        amounts = [row[i] for row in rows if isinstance(row[i], Decimal)]
        total = sum(amounts, Decimal(0)) if name in SUMMED else None
        justify: Literal["left", "right"] = "right" if numbers[i] else "left"
        table.add_column(Text(options.shown(name)), Text(_text(total)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row))  # as text: a name may look like markup
    console = Console()
    # A file or pipe has no width, and must not lose columns to one.
    console.width = console.width if console.is_terminal else max(console.width, 20 * len(names), 200)
    console.print(table)
    unpriced = sum(row[names.index("unpriced_calls")] or 0 for row in rows) if "unpriced_calls" in names else 0
    if unpriced:
        click.echo(f"{unpriced} calls have no price and are in no sum; see: outlay sql 'FROM price_coverage'", err=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return options.shown(str(value))


def _rows(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = _names(result)
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _json(result: duckdb.DuckDBPyConnection) -> None:
    commands.print_json(_rows(result))


def _csv(result: duckdb.DuckDBPyConnection) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_names(result))
    while rows := result.fetchmany(1000):
        writer.writerows([_field(value) for value in row] for row in rows)


def _field(value: Any) -> Any:
    return (
        json.dumps(value)
        if isinstance(value, list | dict)
        else format(value, "f")
        if isinstance(value, Decimal)
        else value
    )


FORMATS: dict[str, Show] = {"table": _table, "json": _json, "csv": _csv}
