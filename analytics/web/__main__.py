"""`outlay console`, and what `outlay serve` starts beside the gateway: `python -m analytics.web`."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import click

from analytics.web import app
from gateway.config import Config
from gateway.errors import UserError
from gateway.options import config_option, data_folder, data_option, settings

log = logging.getLogger("outlay.console")

NICE = 5
"""So much behind the gateway when both want the same core."""


@click.command()
@config_option
@data_option
@click.option("--port", type=click.IntRange(0, 65535), help="Listen here instead of [console] port; 0 = any free port.")
@click.option("--gateway", help="Where the gateway is, as http://127.0.0.1:8080: asked for what running calls hold.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
def console(
    config_path: Path | None, data: Path | None, port: int | None, gateway: str | None, until_stdin_closes: bool
) -> None:
    """Serve the console, for people who would rather look than ask; `outlay serve` does, too."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    config = settings(config_path)
    try:
        asyncio.run(_run(config, data_folder(config, data), port, gateway, until_stdin_closes=until_stdin_closes))
    except OSError as error:
        raise UserError(f"the console cannot listen: {error.strerror or error}; set another [console] port") from None


async def _run(config: Config, data: Path, port: int | None, gateway: str | None, *, until_stdin_closes: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        os.nice(NICE)
        loop.add_reader(sys.stdin.fileno(), _read_to_end, stop)
    async with app.serving(config, data, port=port, gateway=gateway) as url:
        log.info("the console is at %s", url)
        await stop.wait()


def _read_to_end(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            console()
        except UserError as error:
            click.echo(str(error), err=True)
            sys.exit(1)
