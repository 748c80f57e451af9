"""The `outlay` command. Subcommands of the control plane are hung in by entry points (`outlay.commands`)."""

import contextlib
import json
import resource
import socket
import sys
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click

from gateway.config import Config, LedgerSettings, Upstream, secret, why_none
from gateway.errors import UserError
from gateway.options import config_option, json_option, settings
from gateway.tracker import Tracker

OWN = ("budgets", "env", "hook", "keys", "run")


class Commands(click.Group):
    """Our commands and those that other packages registered. Each is loaded when it is called: `outlay run` starts
    before a tool, and what a gateway consists of takes long to load."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *OWN, *(point.name for point in _registered())})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        own = super().get_command(ctx, name) or _own(name)
        if own is not None:
            return own
        for point in _registered():
            if point.name == name:
                command = point.load()
                assert isinstance(command, click.Command)
                return command
        return None


def _own(name: str) -> click.Command | None:
    command: click.Command
    match name:
        case "budgets":
            from gateway.budgets_cli import budgets_ as command
        case "env":
            from gateway.run_cli import env_ as command
        case "hook":
            from gateway.hook_cli import hook as command
        case "keys":
            from gateway.keys_cli import keys_ as command
        case "run":
            from gateway.run_cli import run as command
        case _:
            return None
    return command


def _registered() -> Any:
    return entry_points(group="outlay.commands")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outlay")
def outlay() -> None:
    """A cost-aware gateway for model APIs: what each call cost, for which ticket, and what came of it."""


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


@outlay.command()
@config_option
@click.option("--port", type=click.IntRange(0, 65535), help="Listen here instead of [server] port; 0 = any free port.")
@click.option("--workers", type=click.IntRange(1, 64), help="So many processes serve, instead of [server] workers.")
def serve(config_path: Path | None, port: int | None, workers: int | None) -> None:
    """Run the gateway, and the control plane beside it, until Ctrl-C or SIGTERM."""
    import uvloop

    from gateway import app

    app.log_to_stderr()
    _raise_file_limit()
    config = app.with_options(settings(config_path), port, workers)

    def ready(host: str, bound: int) -> None:
        click.echo(f"Outlay listens on http://{host}:{bound} and writes to {Path(config.ledger.dir).resolve()}")
        for name, upstream in config.upstreams.items():
            if upstream.credential and secret(upstream.credential) is None:
                click.echo(f"  {name}: {why_none(upstream.credential)}, so clients must bring their own credential")
        for name, admin in config.auth.admin_keys.items():
            if secret(admin.key) is None:
                click.echo(f"  admin key {name}: {why_none(admin.key)}, so it opens nothing")

    uvloop.run(app.serve(config, ready))


def _raise_file_limit() -> None:
    """Of this process and its children: each running call needs two descriptors, and systems give 1024 to whoever asks
    for no more, for the sake of programs that use `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # not every system takes its own limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@outlay.group(name="alerts")
def alerts_() -> None:
    """Notices about budgets and odd spending."""


@alerts_.command(name="test")
@config_option
@json_option
def try_alerts(config_path: Path | None, as_json: bool) -> None:
    """Send a test notice to each channel of [alerts], and say what came back."""
    import uvloop

    from gateway import alerts

    outcomes = uvloop.run(alerts.try_out(settings(config_path).alerts))
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


@outlay.command()
@config_option
@click.option("--offline", is_flag=True, help="Do not try to reach the upstreams.")
@json_option
def check(config_path: Path | None, offline: bool, as_json: bool) -> None:
    """Validate the settings, prices, data folder and upstreams; says what is wrong and what to write instead."""
    from gateway import keys, prices

    config = settings(config_path)
    findings = [("ok", "settings", config.file or "built-in defaults")]
    book = prices.load_prices(config)
    findings.append(("ok", "prices", book.id))
    findings.append(_check_data(config.ledger))
    findings += _check_tickets(config)
    findings.append(_check_budgets(config))
    admins = keys.of_settings(config.auth)
    for name, admin in config.auth.admin_keys.items():
        if not any(principal.key_id == f"config:{name}" for principal in admins.values()):
            findings.append(("note", f"admin key {name}", f"{why_none(admin.key)}: it opens nothing"))
    for what, reference, so in _secrets(config):
        if reference is not None and not reference.startswith("http") and secret(reference) is None:
            findings.append(("note", what, f"{why_none(reference)}: {so}"))
    for name, upstream in config.upstreams.items():
        if upstream.credential is None:
            findings.append(("note", name, "has no credential: clients bring their own"))
        elif secret(upstream.credential) is None:
            findings.append(("note", name, f"{why_none(upstream.credential)}: clients bring their own"))
        findings += _check_upstream(name, upstream, book.providers)
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


def _secrets(config: Config) -> Iterator[tuple[str, str | None, str]]:
    """Where secrets stand beside those of upstreams and admins, and what is lacking without them."""
    alerts, work = config.alerts, config.work
    for reference in (alerts.slack, alerts.webhook, alerts.webhook_secret):
        yield "alerts", reference, "no notices go there"
    for tracker in ("github", "gitlab", "jira", "linear"):
        its = getattr(work, tracker)
        yield f"work.{tracker}", its.token, "nothing is read there"
        for setting in ("webhook_secret", "webhook_signing_token"):
            yield f"work.{tracker}", getattr(its, setting, None), "its webhooks are not taken"
    for name, reference in config.telemetry.otlp_headers.items():
        yield "telemetry", reference, f"what is sent lacks the header {name}"
    yield "console.oidc", config.console.oidc.client_secret, "nobody can sign in there"


def _check_upstream(name: str, upstream: Upstream, providers: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """What is allowed, and yet is hardly what was meant."""
    from gateway import prices

    if meant := prices.providers_meant(upstream.provider, providers):
        yield "note", name, f'unknown provider "{upstream.provider}"; did you mean {" or ".join(meant)}?'
    if upstream.base_url.rstrip("/").endswith("/v1"):
        yield "note", name, "base_url ends in /v1, which the paths of clients begin with: leave it out"


def _check_budgets(config: Config) -> tuple[str, str, str]:
    """All places where budgets stand, read as a gateway reads them when it starts."""
    from gateway import app

    try:
        budgets = app.budget_file(config).all()
    except UserError as error:
        return "wrong", "budgets", str(error)
    return "ok", "budgets", f"{len(budgets):,} in force"


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
