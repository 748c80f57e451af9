"""`outlay keys`: who may call, who may administer, and what was done to keys."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec

from gateway import grants, keys, terminal
from gateway.call import PURPOSES, Role, TicketPolicy
from gateway.config import Config
from gateway.errors import UserError
from gateway.grants import Grant
from gateway.keys import Change, KeyInfo, Keys
from gateway.options import config_option, data_folder, data_option, json_option, no_ticket, settings, told_if_new
from gateway.terminal import Grid
from gateway.ticket_keys import TicketKeys

T = TypeVar("T")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
COLUMNS = (
    "key_id", "kind", "state", "role", "team_id", "user_id", "name", "ticket", "ticket_policy", "purpose", "models",
    "upstreams", "expires_at", "old_secret_until", "by",
)  # fmt: skip


@click.group(name="keys")
def keys_() -> None:
    """Gateway keys: who may call, and for which team."""


def _key_ring(config_path: Path | None, data: Path | None) -> Keys:
    ring = Keys(data_folder(settings(config_path), data))
    try:
        ring.load()
    except OSError as error:
        raise UserError(f"the keys cannot be read: {error.strerror}: {error.filename}") from None
    return ring


def _written(change: Callable[[], T]) -> T:
    try:
        return change()
    except OSError as error:
        raise UserError(f"the keys cannot be written: {error.strerror}: {error.filename}") from None


@keys_.command()
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
    "--role",
    type=click.Choice(get_args(Role)),
    help="A key for the admin API, which makes no calls. What else it is bound to bounds the keys that it makes.",
)
@click.option(
    "--claims", "for_claims", is_flag=True, help="A claim key: signs tickets (of --team's calls), opens nothing."
)
@config_option
@data_option
@json_option
def create(
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
    expires: datetime | None,
    for_claims: bool,
    **grant: Any,
) -> None:
    """Make a key. Its secret is shown now and kept nowhere."""
    if grant["ticket"]:
        rules = settings(config_path).tickets
        if not TicketKeys(rules.projects, rules.patterns).named(grant["ticket"]).tickets:
            raise no_ticket()
    if grant["upstreams"]:
        _check_upstreams(grant["upstreams"], settings(config_path), data)
    if for_claims and any(value for name, value in grant.items() if name not in ("team_id", "user_id", "name")):
        raise click.UsageError("a claim key opens nothing: it takes only --team, --user, --name and --expires")
    expires_at = None if expires is None else int(expires.replace(tzinfo=UTC).timestamp())
    if expires_at is not None and expires_at <= time.time():
        raise click.BadParameter("this moment is over", param_hint="--expires")
    ring = _key_ring(config_path, data)
    make = ring.create_claim_key if for_claims else ring.create
    with told_if_new(data_folder(settings(config_path), data)):
        event, secret = _written(lambda: make(expires_at=expires_at, **grant))
    if as_json:
        _print_json({**_public(ring, event.key_id), "secret": secret})
        return
    use = "Use it wherever the tool asks for an API key."
    if for_claims:
        use = "Set it as OUTLAY_CLAIM_KEY where `outlay run` or a CI job signs."
    elif event.role is not None:
        bound = event.team_id or event.user_id or event.ticket or event.purpose or event.models or event.upstreams
        what = "/-/api/v1" if bound or event.ticket_policy else "the console and /-/api/v1"
        use = f"It opens {what} as {event.role} (docs/console.md, docs/api.md), and makes no calls."
    click.echo(f"{event.key_id}\n{secret}\nThis is shown once. {use}")


def _check_upstreams(upstreams: tuple[str, ...], config: Config, data: Path | None) -> None:
    if config.file is None and data is not None:
        return  # those of another installation, whose settings were not named
    try:
        grants.check_upstreams(Grant(upstreams=upstreams), config.upstreams)
    except UserError as error:
        raise click.BadParameter(str(error), param_hint="--upstream") from None


@keys_.command(name="list")
@config_option
@data_option
@json_option
def list_(config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """All keys and their state. Secrets are not known and not shown."""
    now = time.time()
    _print(
        [keys.info(key, now) for key in _key_ring(config_path, data).all()],
        COLUMNS,
        as_json,
        "No keys yet. Make one with: outlay keys create --team TEAM",
    )


@keys_.command()
@click.argument("key_id")
@click.option(
    "--overlap", default="24h", show_default=True, metavar="TIME", help="How long the old secret works on: 90m, 7d, 0."
)
@config_option
@data_option
@json_option
def rotate(key_id: str, overlap: str, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Give a key a new secret, shown now and kept nowhere. What the key may do and what it has spent stay.

    The old secret works until the overlap ends. A key has two secrets at most: the one before the old one ends at once.
    """
    ring, seconds = _key_ring(config_path, data), _seconds(overlap)
    done = _written(lambda: ring.rotate(key_id, seconds))
    if as_json:
        _print_json({**_public(ring, key_id), "secret": done.secret, "ended_secret_until": _moment(done.ended)})
        return
    until = done.key.old_until(time.time())
    old = "has ended" if until is None else f"works until {_moment(until):%Y-%m-%d %H:%M:%S} UTC"
    click.echo(f"{key_id}\n{done.secret}\nThis is shown once. The old secret {old}.")
    if done.ended is not None:
        click.echo(
            f"The secret before that, which was to work until {_moment(done.ended):%Y-%m-%d %H:%M} UTC, has ended."
        )


@keys_.command()
@click.argument("key_id")
@config_option
@data_option
@json_option
def revoke(key_id: str, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Revoke a key with all its secrets, in force with the next call."""
    ring = _key_ring(config_path, data)
    _written(lambda: ring.revoke(key_id))
    if as_json:
        _print_json(_public(ring, key_id))
    else:
        click.echo(f"{key_id} is revoked.")


@keys_.command()
@config_option
@data_option
@json_option
def log(config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Every change to keys: when, what, which, and by whom (a key, one of the settings, or this command line)."""
    _print(_key_ring(config_path, data).log(), Change.__struct_fields__, as_json, "Nothing was done to keys yet.")


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    seconds = int(found[1]) * SECONDS[found[2]] if found else -1
    if not 0 <= seconds <= keys.OVERLAP_SECONDS_MAX:
        raise click.BadParameter("write a time like 90m, 24h, 7d or 0, at most 30d", param_hint="--overlap")
    return seconds


def _moment(at: int | None) -> datetime | None:
    return None if at is None else keys.moment(at)


def _public(ring: Keys, key_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(keys.info(ring.one(key_id), time.time()))
    return shown


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.encode(value))


def _print(rows: list[KeyInfo] | list[Change], columns: tuple[str, ...], as_json: bool, nothing: str) -> None:
    if as_json:
        _print_json(rows)
        return
    shown = [
        name for name in columns if any(_cell(getattr(row, name)) for row in rows)
    ]  # what nobody has takes no room
    if not rows:
        click.echo(nothing)
        return
    terminal.show(Grid(shown, [[_cell(getattr(row, name)) for name in shown] for row in rows]))


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return ", ".join(value) if isinstance(value, tuple) else str(value or "")
