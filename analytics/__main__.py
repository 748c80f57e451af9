"""`python -m analytics --data DIR`: keeps a data folder (`lake.keep`) and answers the gateway (`live`), beside it."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

import click

from analytics import lake, live
from gateway.errors import UserError


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default="data", show_default=True)
@click.option("--until-stdin-closes", is_flag=True, help="End with the process that holds the other end of stdin.")
def main(data: Path, until_stdin_closes: bool) -> None:
    """Seal the journal of a data folder to Parquet, keep its views and answer the gateway, until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if until_stdin_closes:
        threading.Thread(target=_read_to_end, args=(stop,), daemon=True).start()
    try:
        lake.keep(data, stop, wait=until_stdin_closes, beside=live.serving)
    except UserError as error:
        raise click.ClickException(str(error)) from None


def _read_to_end(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    main()
