"""`python -m analytics --data DIR`: keeps a data folder (`lake.keep`), notes budgets (`budgeting`) and yardsticks
(`scorecard`), looks for late evidence (`attributing`) and waste (`findings`), reads trackers (`sync`) and answers the
gateway (`live`)."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from analytics import attributing, budgeting, commands, findings, lake, live, scorecard, sync
from gateway.app import budget_file
from gateway.config import Config, load
from gateway.errors import UserError
from gateway.prices import load_prices

log = logging.getLogger("outlay.analytics")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default="data", show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file of the gateway.")
@click.option("--until-stdin-closes", is_flag=True, help="End with the process that holds the other end of stdin.")
def main(data: Path, config: Path | None, until_stdin_closes: bool) -> None:
    """Seal the journal of a data folder to Parquet, keep its views, note budgets, look for late evidence, read
    trackers, answer the gateway, until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each request to a tracker
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if until_stdin_closes:
        threading.Thread(target=_read_to_end, args=(stop,), daemon=True).start()
    try:
        lake.keep(data, stop, wait=until_stdin_closes, beside=lambda folder: _beside(folder, config))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{data} cannot be kept: {error.strerror}") from None


@contextlib.contextmanager
def _beside(data: Path, config: Path | None) -> Iterator[None]:
    try:
        settings = load(config) if config else Config()
    except UserError as error:  # it was edited since the gateway's start; sealing goes on
        log.error(
            "budgets are not noted, trackers not read, late evidence is not looked for: %s", str(error).splitlines()[0]
        )
        with live.serving(data):
            yield
        return
    tickets = settings.tickets if config else None
    with contextlib.suppress(UserError):  # else the keeper says so, and each that finds nothing to read
        lake.see_published(data)
    with (
        live.serving(data),
        budgeting.noting(data, budget_file(settings, data)),
        scorecard.keeping(data, settings if config else None),
        attributing.looking(data, tickets, commands.journal_settings(settings, data)),
        sync.syncing(data, settings),
        findings.looking(data, settings.waste, lambda: load_prices(settings)),
    ):
        yield


def _read_to_end(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    main()
