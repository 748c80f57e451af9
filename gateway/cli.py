"""The `outlay` command. Subcommands of the control plane are hung in by entry points (`outlay.commands`)."""

import json
import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn, get_args
from urllib.parse import urlsplit

import click
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from gateway import alerts, app, budgets_cli, hook_cli, keys, run_cli
from gateway.call import PURPOSES, TicketPolicy
from gateway.config import Config, LedgerSettings, load, secret
from gateway.errors import UserError
from gateway.ticket_keys import TicketKeys
from gateway.tracker import Tracker

CONFIG = Path("config/outlay.toml")


class Commands(click.Group):
    """Our commands and, loaded when they are called, those that other packages registered."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(point.name for point in _registered())})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        own = super().get_command(ctx, name)
        if own is not None:
            return own
        for point in _registered():
            if point.name == name:
                command = point.load()
                assert isinstance(command, click.Command)
                return command
        return None


def _registered() -> Any:
    return entry_points(group="outlay.commands")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outlay")
def outlay() -> None:
    """A cost-aware gateway for model APIs: what each call cost, for which ticket, and what came of it."""


for _command in (budgets_cli.budgets_, run_cli.run, run_cli.env_, hook_cli.hook):
    outlay.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit codes: 0 ok, 1 failed, 2 usage."""
    try:
        code = outlay(arguments, prog_name="outlay", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # `outlay … | head` is no mistake
        sys.exit(0)
    sys.exit(code or 0)


def _settings(path: Path | None) -> Config:
    """The named settings file; else config/outlay.toml where there is one; else the defaults."""
    if path is not None:
        return load(path)
    return load(CONFIG) if CONFIG.exists() else Config()


config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help=f"Settings file.  [default: {CONFIG}]"
)
data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="Data folder.  [default: [ledger] dir of the settings]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@outlay.command()
@config_option
@click.option("--port", type=click.IntRange(0, 65535), help="Listen here instead of [server] port; 0 = any free port.")
def serve(config_path: Path | None, port: int | None) -> None:
    """Run the gateway, and the control plane beside it, until Ctrl-C or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    config = app.with_port(_settings(config_path), port)

    def ready(host: str, bound: int) -> None:
        click.echo(f"Outlay listens on http://{host}:{bound} and writes to {Path(config.ledger.dir).resolve()}")
        for name, upstream in config.upstreams.items():
            if upstream.credential and secret(upstream.credential) is None:
                click.echo(f"  {name}: {upstream.credential} is not set, so clients must bring their own credential")

    uvloop.run(app.serve(config, ready))


@outlay.group(name="keys")
def keys_() -> None:
    """Gateway keys: who may call, and for which team."""


def _key_ring(config_path: Path | None, data: Path | None) -> keys.Keys:
    return keys.Keys(data or Path(_settings(config_path).ledger.dir))


@keys_.command(name="create")
@click.option("--team", "team_id", help="Team that calls with this key belong to.")
@click.option("--user", "user_id", help="Person or service that holds it.")
@click.option("--name", help="What it is for.")
@click.option("--ticket", help="Ticket that all its calls belong to (PAY-123, acme/shop#45).")
@click.option("--ticket-policy", type=click.Choice(get_args(TicketPolicy)), help="Outranks that of team and settings.")
@click.option("--purpose", type=click.Choice(PURPOSES), help="Declares its calls as overhead.")
@click.option("--model", "models", multiple=True, help="Only this model (a glob); may be repeated.")
@click.option("--upstream", "upstreams", multiple=True, help="Only this upstream; may be repeated.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Last moment, UTC.")
@click.option(
    "--claims", "for_claims", is_flag=True, help="A claim key: signs tickets (of --team's calls), opens nothing."
)
@config_option
@data_option
@json_option
def create_key(
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
    expires: datetime | None,
    for_claims: bool,
    **grant: Any,
) -> None:
    """Make a key. Its secret is shown now and kept nowhere."""
    if grant["ticket"]:
        rules = _settings(config_path).tickets
        if not TicketKeys(rules.projects, rules.patterns).named(grant["ticket"]).tickets:
            raise click.BadParameter(
                "write a ticket like PAY-123 or acme/shop#45, of a known project", param_hint="--ticket"
            )
    if for_claims and any(value for name, value in grant.items() if name not in ("team_id", "user_id", "name")):
        raise click.UsageError("a claim key opens nothing: it takes only --team, --user, --name and --expires")
    expires_at = None if expires is None else int(expires.replace(tzinfo=UTC).timestamp())
    ring = _key_ring(config_path, data)
    event, key = (ring.create_claim_key if for_claims else ring.create)(expires_at=expires_at, **grant)
    if as_json:
        click.echo(json.dumps({**_public(event), "secret": key}))
        return
    use = (
        "Set it as OUTLAY_CLAIM_KEY where `outlay run` or a CI job signs."
        if for_claims
        else ("Use it wherever the tool asks for an API key.")
    )
    click.echo(f"{event.key_id}\n{key}\nThis is shown once. {use}")


@keys_.command(name="list")
@config_option
@data_option
@json_option
def list_keys(config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """All keys and their state. Secrets are not known and not shown."""
    now = datetime.now(UTC).timestamp()
    rows = [{**_public(key.created), "state": key.state(now)} for key in _key_ring(config_path, data).all()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    columns = (
        "key_id", "kind", "state", "team_id", "user_id", "name", "ticket", "ticket_policy", "purpose", "models",
        "upstreams",
    )  # fmt: skip
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(", ".join(v) if isinstance(v := row.get(name) or "", list) else str(v) for name in columns))
    Console().print(table if rows else "No keys yet. Make one with: outlay keys create --team TEAM")


@keys_.command(name="revoke")
@click.argument("key_id")
@config_option
@data_option
@json_option
def revoke_key(key_id: str, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Revoke a key, in force with the next call."""
    event = _key_ring(config_path, data).revoke(key_id)
    click.echo(json.dumps(_public(event)) if as_json else f"{key_id} is revoked.")


@outlay.group(name="alerts")
def alerts_() -> None:
    """Notices about budgets and odd spending."""


@alerts_.command(name="test")
@config_option
@json_option
def try_alerts(config_path: Path | None, as_json: bool) -> None:
    """Send a test notice to each channel of [alerts], and say what came back."""
    outcomes = uvloop.run(alerts.try_out(_settings(config_path).alerts))
    if as_json:
        rows = [{"channel": name, "delivered": each.is_delivered, "detail": each.detail} for name, each in outcomes]
        click.echo(json.dumps(rows))
    else:
        for name, each in outcomes:
            click.echo(f"{'ok' if each.is_delivered else 'failed':<7}{name}: {each.detail}")
    if not outcomes:
        raise UserError("no notice goes anywhere: set slack, webhook or log in [alerts]")
    if not all(each.is_delivered for _, each in outcomes):
        raise click.exceptions.Exit(1)


def _public(event: keys.KeyEvent) -> dict[str, Any]:
    """A key's record without its digest."""
    fields = msgspec.to_builtins(event)
    kind = "claims" if event.public_key else "calls"
    return {"kind": kind} | {name: fields[name] for name in fields if name not in ("digest", "public_key", "event")}


@outlay.command()
@config_option
@click.option("--offline", is_flag=True, help="Do not try to reach the upstreams.")
@json_option
def check(config_path: Path | None, offline: bool, as_json: bool) -> None:
    """Validate the settings, prices, data folder and upstreams; says what is wrong and what to write instead."""
    config = _settings(config_path)
    findings = [("ok", "settings", config.file or "built-in defaults")]
    book = app.load_prices(config)
    findings.append(("ok", "prices", book.id))
    findings.append(_check_data(config.ledger))
    findings += _check_tickets(config)
    for reference in (config.alerts.slack, config.alerts.webhook, config.alerts.webhook_secret):
        if reference is not None and not reference.startswith("http") and secret(reference) is None:
            findings.append(("note", "alerts", f"{reference} is not set: no notices go there"))
    for name, upstream in config.upstreams.items():
        if upstream.credential is None:
            findings.append(("note", name, "has no credential: clients bring their own"))
        elif secret(upstream.credential) is None:
            findings.append(("note", name, f"{upstream.credential} is not set: clients bring their own"))
        if not offline:
            findings.append(_check_reachable(name, upstream.base_url))
    if as_json:
        click.echo(json.dumps([dict(zip(("state", "what", "detail"), finding, strict=True)) for finding in findings]))
    else:
        for state, what, detail in findings:
            click.echo(f"{state:<6} {what}: {detail}")
    if any(state == "wrong" for state, _, _ in findings):
        raise click.exceptions.Exit(1)


def _check_tickets(config: Config) -> Iterator[tuple[str, str, str]]:
    rules, tracker = config.tickets, Tracker(Path(config.ledger.dir))
    tracker.refresh()
    synced = tracker.now.synced_us
    when = f"read {datetime.fromtimestamp(synced / 1e6, UTC):%Y-%m-%d %H:%M} UTC" if synced else "not all were read yet"
    yield "ok", "tickets", f"policy {rules.policy}; {len(tracker.now.tickets):,} known, {when}"
    if not synced and "known" in (rules.policy, *rules.teams.values()):
        yield "note", "tickets", 'policy "known" refuses none until all are read: outlay import work --complete'
    for folder in rules.worktrees:
        if not Path(folder).expanduser().is_dir():
            yield "note", "tickets", f"worktrees: there is no folder {folder}"


def _check_data(settings: LedgerSettings) -> tuple[str, str, str]:
    folder = Path(settings.dir)
    while not folder.exists():
        folder = folder.parent
    probe = folder / ".outlay-check"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return "wrong", "data folder", f"{settings.dir} cannot be written: {error.strerror}"
    return "ok", "data folder", settings.dir


def _check_reachable(name: str, base_url: str) -> tuple[str, str, str]:
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except OSError as error:
        return "wrong", name, f"{parts.hostname}:{port} cannot be reached: {error.strerror or error}"
    return "ok", name, f"{parts.hostname}:{port} answers"
