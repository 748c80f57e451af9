"""`outlay report` and `outlay verify`: what is asked most, as tables. Loaded by entry point, when they are called."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import duckdb

import analytics
from analytics import budgeting, build, commands, findings, kept, lake, output, scorecard, scoring, verifying
from analytics.again import again
from analytics.output import Format
from gateway import options
from gateway.config import Config
from gateway.errors import UserError
from gateway.prices import load_prices
from gateway.verdicts import State

QUERIES = build.FOLDER / "queries"
ROWS_SHOWN = 30
"""Of tickets and tasks, in a table."""

json_option = click.option("--json", "as_json_", is_flag=True, help="Print JSON: the same as --format json.")


def _folder(config_path: Path | None, data: Path | None) -> Path:
    """The named one, whatever the settings say; else theirs."""
    return data or options.data_folder(options.settings(config_path), None)


def folder_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --config and --data, and what they name as its argument `data`."""

    @functools.wraps(command)
    def run(config_path: Path | None, data: Path | None, **own: Any) -> None:
        command(data=_folder(config_path, data), **own)

    return options.config_option(options.data_option(run))


# -- report --------------------------------------------------------------------------------------------------------


def _dimensions() -> list[str]:
    return sorted(path.stem.removeprefix("spend_by_") for path in QUERIES.glob("spend_by_*.sql"))


@click.group()
def report() -> None:
    """Tables of spend and what came of it."""


OUTPUT = (
    options.config_option,
    options.data_option,
    click.option("--format", "format_", type=click.Choice(get_args(Format)), default="table", show_default=True),
    click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Parquet file to write."),
    json_option,
)
PERIOD = (
    click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), help="First day, UTC."),
    click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="Last day, UTC."),
)
TEAM = (click.option("--team", help="Only calls of this team's keys."),)


class Asked(NamedTuple):
    """What the options that reports have in common say."""

    config_path: Path | None
    data: Path
    format: Format
    out: Path | None
    from_: datetime | None = None
    to: datetime | None = None
    team: str | None = None

    def parameters(self, *, is_open: bool = False, **others: Any) -> dict[str, Any]:
        """Of a query. `is_open`: a bound that nobody has set is NULL, where calls are read more quickly without. Raises
        `UsageError`."""
        if self.from_ and self.to and self.from_ > self.to:
            raise click.UsageError("--from is after --to")
        first, last = (None, None) if is_open else (date.min, date.max)
        return {"from": self.from_ or first, "to": self.to + timedelta(days=1) if self.to else last, **others}

    @contextlib.contextmanager
    def open(self, *, writable: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """The views; what goes wrong is one line. `writable`: a database in memory instead."""
        connection = analytics.open(self.data)
        if writable:
            connection.close()
            connection = lake.scratch(self.data)
        with connection as db, commands.errors_in_one_line():
            yield db

    def print(
        self,
        db: duckdb.DuckDBPyConnection,
        name: str,
        parameters: dict[str, Any],
        most: int | None = None,
        nothing: str = "(nothing)",
    ) -> None:
        """What a query of ours gives, in the format asked for; `most`: at most so many rows, and it is said."""
        if self.out is not None:
            with commands.patience():
                again(functools.partial(_write, db, name, parameters, most, self.out))
            return
        found = _found(db, name, parameters, most + 1 if most else None)
        is_cut = most is not None and len(found.rows) > most
        output.show(found._replace(rows=found.rows[:most]) if is_cut else found, self.format, nothing=nothing)
        if is_cut:
            click.echo(
                f"These are {most}, with their total, of more: --limit says how many, --by sums up all.", err=True
            )

    def print_sections(
        self,
        db: duckdb.DuckDBPyConnection,
        name: str,
        sections: dict[str, str],
        section: str | None,
        parameters: dict[str, Any],
        *,
        together: bool = False,
    ) -> None:
        """One section of a report, or all: one table, or one object, after the other. `together`: see
        `_found_together`."""
        if section is not None:
            self.print(db, f"{name}_{section}", parameters)
            return
        names = [f"{name}_{each}" for each in sections]
        rows = _found_together(db, names, parameters) if together else [_found(db, each, parameters) for each in names]
        found = dict(zip(sections, rows, strict=True))
        if self.format == "json":
            commands.print_json({each: output.dicts(rows) for each, rows in found.items()})
        else:
            for each, title in sections.items():
                click.echo(f"{title}:")
                output.show(found[each], self.format)
                click.echo()


def _query(name: str) -> str:
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")


def _write(db: duckdb.DuckDBPyConnection, name: str, parameters: dict[str, Any], most: int | None, file: Path) -> None:
    found = db.sql(_query(name), params=parameters)
    (found.limit(most) if most else found).write_parquet(str(file), compression="zstd")


def _found(
    db: duckdb.DuckDBPyConnection, name: str, parameters: dict[str, Any], most: int | None = None
) -> output.Rows:
    with commands.patience():
        return again(lambda: output.of(db.execute(_query(name), parameters), most))


def _found_together(
    db: duckdb.DuckDBPyConnection, names: Sequence[str], parameters: dict[str, Any]
) -> list[output.Rows]:
    """The same of several, two at a time: what one of them does on one core alone, such as planning, holds up none.
    The connection's variables are not there."""

    def found(name: str) -> output.Rows:
        with db.cursor() as cursor:
            return again(lambda: output.of(cursor.execute(_query(name), parameters)))

    with commands.patience(), ThreadPoolExecutor(2) as pool:
        return list(pool.map(found, names))


def _asks(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options, and what they and those of the output say as its first argument."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(
            config_path: Path | None,
            data: Path | None,
            format_: Format,
            out: Path | None,
            as_json_: bool,
            from_: datetime | None = None,
            to: datetime | None = None,
            team: str | None = None,
            **own: Any,
        ) -> None:
            if (format_ == "parquet") != (out is not None):
                raise click.UsageError("write --format parquet and --out FILE together")
            command(
                Asked(config_path, _folder(config_path, data), "json" if as_json_ else format_, out, from_, to, team),
                **own,
            )

        for option in reversed([option for group in (*groups, OUTPUT) for option in group]):
            run = option(run)
        return run

    return decorate


@report.command()
@click.option("--by", type=click.Choice(_dimensions()), default="team", show_default=True)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Show so many rows.  [default: 30 tickets or tasks in a table, else all]",
)
@_asks(PERIOD, TEAM)
def spend(asked: Asked, by: str, limit: int | None) -> None:
    """What calls cost at list price."""
    most = ROWS_SHOWN if limit is None and asked.format == "table" and by in ("ticket", "task") else limit
    parameters = asked.parameters(team=asked.team)
    with asked.open() as db:
        asked.print(db, f"spend_by_{by}", parameters, most)


class _Moment(click.ParamType[datetime]):
    """A moment, UTC; a day alone is its end."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = kept.now()
        with contextlib.suppress(ValueError, OverflowError):
            day = date.fromisoformat(value)
            return self._come(day <= now.date(), value, datetime.combine(day, time()) + timedelta(days=1))
        with contextlib.suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value)
            moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
            return self._come(moment <= now, value, moment)
        raise click.BadParameter(f"{value!r} is neither a day nor a moment: write 2026-11-01 or 2026-11-01T12:00:00")

    @staticmethod
    def _come(has_come: bool, value: Any, moment: datetime) -> datetime:
        if not has_come:
            raise click.BadParameter(f"{value} has not come yet: name a day or a moment of the past")
        return moment


as_of_option = click.option("--as-of", type=_Moment(), help="What was known then, UTC; a day means its end.  [now]")

WORK = (
    click.option("--by", type=click.Choice(["project", "type", "outcome", "team", "month"]), help="In groups."),
    click.option(
        "--sort",
        type=click.Choice(["cost", "lost", "calls"]),
        default="cost",
        show_default=True,
        help="Most first.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Show so many rows.  [default: 30 in a table, else all]"),
    as_of_option,
)


def _report_work(name: str, asked: Asked, by: str | None, sort: str, limit: int | None, as_of: datetime | None) -> None:
    most = ROWS_SHOWN if limit is None and asked.format == "table" and by is None else None
    parameters = asked.parameters(team=asked.team, sort=sort, limit=most + 1 if most else limit)
    with asked.open() as db:
        if as_of is not None:
            db.execute("SET VARIABLE as_of = $as_of", {"as_of": as_of})
        if by is not None:
            db.execute("SET VARIABLE dimension = $by", {"by": by})
        asked.print(db, f"{name}_by" if by else name, parameters, most)


@report.command()
@_asks(WORK, PERIOD, TEAM)
def tickets(asked: Asked, **own: Any) -> None:
    """What tickets cost, and what became of them. lost_cost_usd is what was spent on those that delivered nothing."""
    _report_work("tickets", asked, **own)


@report.command()
@_asks(WORK, PERIOD, TEAM)
def tasks(asked: Asked, **own: Any) -> None:
    """What tasks cost, and what became of the tickets that they were for."""
    _report_work("tasks", asked, **own)


@report.command()
@click.option("--by", type=click.Choice(["provider", "day", "model"]), default="provider", show_default=True)
@_asks(PERIOD)
def invoices(asked: Asked, by: str) -> None:
    """What providers invoiced beside what was metered, and why they differ."""
    parameters = asked.parameters()
    with asked.open(writable=True) as db:
        build.define_views(db, asked.data, _query("invoices"))
        with commands.patience():
            again(lambda: build.work_out(db, ["metered_models"]))  # it is read twice, and reads all calls
        db.execute("SET VARIABLE dimensions = $by", {"by": [*dict.fromkeys(("provider", by))]})
        asked.print(db, "invoices", parameters)


SECTIONS = {
    "sources": "How tickets are known, and what is known of them",
    "conflicts": "Where weaker evidence named other tickets",
    "ignored": "Evidence that was none, and why",
    "untagged": "For no ticket and no declared purpose",
    "late": "What late evidence moved",
    "statuses": "Statuses of tickets that need mapping ([work] settings): nobody can tell what they mean",
    "waste": "What clients do not tell, so that rules of waste stay silent",
}
"""Of `report coverage`; each is a query `coverage_…`."""


@report.command()
@click.option("--section", type=click.Choice(list(SECTIONS)), help="Only this one.")
@_asks(PERIOD, TEAM)
def coverage(asked: Asked, section: str | None) -> None:
    """How well founded it is what calls are for, and where to name more tickets."""
    _check_section(asked, SECTIONS, section)
    parameters = asked.parameters(is_open=True, team=asked.team)
    with asked.open() as db:
        asked.print_sections(db, "coverage", SECTIONS, section, parameters, together=True)


def _check_section(asked: Asked, sections: dict[str, str], section: str | None) -> None:
    if section is None and asked.format in ("csv", "parquet"):
        raise click.UsageError(f"one table has one section: name it with --section {'|'.join(sections)}")


QUADRANTS = {
    "outcome": "What arrived in production, against the team's own past (normalized deployments)",
    "cost": "What models cost by normalized deployment",
    "flow": "How long it took, by type of ticket",
    "durability": "How long it lasted",
    "signals": "Signs that something may be gamed: to be looked at, no verdicts",
}
"""Of `report scorecard`; each is a query `scorecard_…`."""


def refreshed(data: Path, refresh: Callable[[], kept.State]) -> kept.State:
    """What is written down, as `refresh` leaves it. Raises `UserError`."""
    analytics.open(data).close()
    try:
        with commands.patience(), commands.errors_in_one_line():
            return again(refresh)
    except OSError as error:
        raise UserError(f"{error.filename or data} cannot be written: {error.strerror or error}") from None


def say_as_of(there: kept.State, format_: Format, again: str, more: str = "") -> None:
    """Below a table as of when it is; and in any format, where there is newer data, what has it counted."""
    if there.made is not None and format_ == "table":
        click.echo(f"As of {there.made.as_of:%Y-%m-%d %H:%M} UTC{more}")
    if there.is_newer:
        click.echo(f"There is newer data, or there are other settings, since then: {again}", err=True)


@report.command("scorecard")
@click.option("--section", type=click.Choice(list(QUADRANTS)), help="Only this one.")
@as_of_option
@click.option("--anew", is_flag=True, help="Work it out anew, however long that takes.")
@_asks(PERIOD, TEAM)
def scorecard_(asked: Asked, section: str | None, as_of: datetime | None, anew: bool) -> None:
    """Delivered work of teams, each against its own past: docs/metrics.md says what each number can and cannot say."""
    _check_section(asked, QUADRANTS, section)
    parameters = asked.parameters(team=asked.team)
    if as_of is not None:
        with asked.open(writable=True) as db:
            db.execute("SET VARIABLE as_of = $as_of", {"as_of": as_of})
            with commands.patience():
                scoring.work_out(db, asked.data)
            asked.print_sections(db, "scorecard", QUADRANTS, section, parameters)
        return
    config = options.settings(asked.config_path)
    with contextlib.suppress(UserError):  # who cannot write has the waste that was found
        refreshed(asked.data, lambda: findings.refresh(asked.data, config))
    there = refreshed(asked.data, lambda: scorecard.refresh(asked.data, anew=anew))
    with asked.open() as db:
        asked.print_sections(db, "scorecard", QUADRANTS, section, parameters)
    say_as_of(there, asked.format, "`outlay report scorecard --anew` works it out again.")


NO_BUDGETS = (
    "No budget is known here. `outlay budgets set` makes one; `outlay serve` has it here within a minute, "
    "`outlay budgets list` at once."
)


@report.command()
@click.option("--shadow", is_flag=True, help="What those in shadow mode would have refused.")
@click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), help="With --shadow: first day, UTC.  [last month]")
@click.option("--to", type=click.DateTime(["%Y-%m-%d"]), help="With --shadow: last day, UTC.")
@_asks()
def budgets(asked: Asked, shadow: bool) -> None:
    """How budgets stand in their present period."""
    if not shadow:
        if asked.from_ or asked.to:
            raise click.UsageError("--from and --to go with --shadow: else a budget is shown in its present period")
        with asked.open() as db:
            asked.print(db, "budgets", {}, nothing=NO_BUDGETS)
        return
    this_month = datetime.now(UTC).replace(tzinfo=None, day=1, hour=0, minute=0, second=0, microsecond=0)
    first = asked.from_ or min(asked.to or this_month, this_month - timedelta(days=1)).replace(day=1)
    last = asked.to + timedelta(days=1) if asked.to else this_month
    if first >= last:
        raise click.UsageError("--from is after --to; without --to a report goes to the end of the last month")
    with asked.open(writable=True) as db:
        with commands.patience():
            budgeting.replay(db, asked.data, first, last)
        asked.print(db, "budgets_shadow", {"from": first, "to": last})


def look(data: Path, config: Config, as_of: datetime | None = None, *, replace: bool = False) -> None:
    """Look for waste now, or as of a moment (UTC). Raises `UserError` for one before the last look, unless its findings
    are to be replaced."""
    analytics.open(data).close()
    last = None if as_of is None or replace else findings.looked_at(data)
    if as_of and last and as_of < last:
        raise UserError(
            f"what is shown was found as of {last:%Y-%m-%dT%H:%M:%S}: "
            "to have what is found as of an earlier moment in its place, say --replace"
        )
    with commands.patience(), commands.errors_in_one_line():
        again(lambda: findings.look(data, config.waste, load_prices(config), as_of))


LOOK_AGAIN = "`outlay findings look` looks again."
WASTE_GROUPS = {"team": "team_id", "ticket": "ticket_id", "model": "model"}


@report.command()
@click.option("--by", type=click.Choice(["rule", *WASTE_GROUPS]), default="rule", show_default=True)
@click.option("--state", type=click.Choice(get_args(State)), multiple=True, help="By default all but dismissed ones.")
@_asks(PERIOD, TEAM)
def waste(asked: Asked, by: str, state: tuple[State, ...]) -> None:
    """What could have been saved, each dollar once."""
    parameters = asked.parameters(team=asked.team, states=list(state or findings.UNDISMISSED))
    config = options.settings(asked.config_path)
    there = refreshed(asked.data, lambda: findings.refresh(asked.data, config))
    with asked.open() as db:
        if by != "rule":
            db.execute("SET VARIABLE dimension = $by", {"by": WASTE_GROUPS[by]})
        asked.print(db, "waste_by_rule" if by == "rule" else "waste_by_group", parameters)
    say_as_of(there, asked.format, LOOK_AGAIN, ": `outlay findings list` shows each.")


# -- verify --------------------------------------------------------------------------------------------------------


@click.command()
@folder_options
@click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
def verify(data: Path, as_json_: bool) -> None:
    """Check the ledger: every journal record, every sealed file, all sums. Exit code 1 if anything is wrong."""
    with commands.patience():
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
