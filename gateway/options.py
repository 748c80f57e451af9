"""What the commands have in common: which settings file, which data folder, JSON or not, how names are shown."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from gateway.config import Config, load

CONFIG = Path("config/outlay.toml")

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help=f"Settings file.  [default: {CONFIG}]"
)
data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="Data folder.  [default: [ledger] dir of the settings]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings(path: Path | None) -> Config:
    """The named settings file; else config/outlay.toml where there is one; else the defaults."""
    if path is not None:
        return load(path)
    return load(CONFIG) if CONFIG.exists() else Config()


def data_folder(config: Config, data: Path | None) -> Path:
    """The named one; else that of the settings."""
    return data or Path(config.ledger.dir)


@contextlib.contextmanager
def told_if_new(folder: Path) -> Iterator[None]:
    """For what may make a data folder: it is said, as it may be another one than the gateway's."""
    was_there = folder.exists()
    yield
    if not was_there and folder.exists():
        click.echo(
            f"Made the data folder {folder.resolve()}: no gateway knows it yet. If one runs elsewhere, name its "
            "folder with --data, or its settings with --config.",
            err=True,
        )


def no_ticket() -> click.BadParameter:
    """Says what --ticket takes."""
    return click.BadParameter("write a ticket like PAY-123 or acme/shop#45, of a known project", param_hint="--ticket")


def shown(text: str) -> str:
    """For a terminal, which some characters steer: names come from clients, trackers and providers."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
