"""`outlay findings`: look for waste, at what was found, accept or dismiss it."""

import getpass
import json
from datetime import datetime
from pathlib import Path
from typing import get_args

import click
import msgspec

from analytics import cli, commands, findings, output
from analytics.output import Format
from gateway import options
from gateway.errors import UserError
from gateway.options import config_option, data_folder, data_option, settings
from gateway.verdicts import Reason, State


@click.group("findings")
def findings_() -> None:
    """Waste that was found: list, show, accept, dismiss."""


@findings_.command("list")
@click.option("--state", type=click.Choice(get_args(State)), multiple=True, help="By default all but dismissed ones.")
@click.option("--rule", help="Only those of this rule, W01 to W18.")
@click.option("--team", help="Only those of this team.")
@click.option("--ticket", help="Only those about this ticket.")
@click.option("--most", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@config_option
@data_option
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@cli.json_option
def list_(
    state: tuple[State, ...],
    rule: str | None,
    team: str | None,
    ticket: str | None,
    most: int,
    config_path: Path | None,
    data: Path | None,
    format_: Format,
    as_json_: bool,
) -> None:
    """Findings, those that claim most first."""
    config = settings(config_path)
    folder = data_folder(config, data)
    there = cli.refreshed(folder, lambda: findings.refresh(folder, config))
    rows = findings.listed(folder, state or findings.UNDISMISSED, rule and rule.upper(), team, ticket, most)
    format_ = "json" if as_json_ else format_
    if format_ == "json":
        commands.print_json(rows)
    else:
        shown = ("finding_id", "rule", "state", "team_id", "ticket_id", "calls", "claimed_usd", "sentence")
        output.show(output.Rows(shown, [[row[name] for name in shown] for row in rows]), format_)
    cli.say_as_of(there, format_, cli.LOOK_AGAIN)


@findings_.command()
@click.argument("finding_id")
@cli.folder_options
@cli.json_option
def show(finding_id: str, data: Path, as_json_: bool) -> None:
    """A finding with its evidence, and what was said of it."""
    found = findings.one(data, finding_id)
    if found is None:
        raise UserError(f"there is no finding {finding_id}: see `outlay findings list`")
    if as_json_:
        commands.print_json(found)
        return
    click.echo(f"{found['rule']} {found['title']}: {found['sentence']}")
    money = {name: found[name] for name in ("recoverable_usd", "low_usd", "high_usd", "claimed_usd")}
    for name, value in {"state": found["state"], "reason": found["reason"], **money}.items():
        if value is not None:
            click.echo(f"{name}: {value if isinstance(value, str) else commands.usd(value)}")
    evidence = msgspec.json.decode(bytes(found["evidence"]))
    for part, title in (("numbers", "found"), ("parameters", "threshold")):
        for name, value in (evidence[part] or {}).items():
            told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(options.shown(f"{title} {name}: {told}"))
    click.echo(f"calls: {len(found['call_ids'])}")
    for call_id in found["call_ids"]:
        click.echo(f"  {call_id}")
    for each in found["reviews"]:
        said = " ".join(part for part in (each["state"], each["reason"], each["note"]) if part)
        click.echo(f"{each['reviewed_at']:%Y-%m-%d %H:%M} {each['reviewed_by']}: {said}")


@findings_.command()
@click.argument("finding_id", nargs=-1, required=True)
@click.option("--note", help="What else is to be said.")
@cli.folder_options
def accept(finding_id: tuple[str, ...], note: str | None, data: Path) -> None:
    """It is waste. It counts as fixed when no call came for 14 days."""
    for each in finding_id:
        findings.review(data, each, _me(), "accepted", note=note)


@findings_.command()
@click.argument("finding_id", nargs=-1, required=True)
@click.option("--reason", type=click.Choice(get_args(Reason)), required=True, help="Why it is none.")
@click.option("--note", help="What else is to be said; needed for other.")
@cli.folder_options
def dismiss(finding_id: tuple[str, ...], reason: Reason, note: str | None, data: Path) -> None:
    """It is none. It stays dismissed when the same is found again."""
    for each in finding_id:
        findings.review(data, each, _me(), "dismissed", reason, note)


@findings_.command()
@click.argument("finding_id", nargs=-1, required=True)
@click.option("--note", help="What else is to be said.")
@cli.folder_options
def reopen(finding_id: tuple[str, ...], note: str | None, data: Path) -> None:
    """It is to be looked at again."""
    for each in finding_id:
        findings.review(data, each, _me(), "new", note=note)


@findings_.command("look")
@click.option(
    "--as-of", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Moment of judgement, UTC.  [now]"
)
@click.option("--replace", is_flag=True, help="Also when what is shown was found as of a later moment.")
@config_option
@data_option
def look_(as_of: datetime | None, replace: bool, config_path: Path | None, data: Path | None) -> None:
    """Look for waste now; `outlay serve` does it once an hour."""
    config = settings(config_path)
    cli.look(data_folder(config, data), config, as_of, replace=replace)


def _me() -> str:
    return f"local:{getpass.getuser()}"
