"""What the commands have in common: which settings file, which data folder, JSON or not."""

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
