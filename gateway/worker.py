"""A worker: a process that serves calls and owns nothing. `workers` starts it, as `python -m gateway.worker` with the
numbers of open sockets: the link to the owner, and where to listen.

When the owner is gone it ends at once, as the whole gateway does in one process: nothing that it answers could be
recorded.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from gateway import app, prices
from gateway.claims import Claims
from gateway.errors import UserError
from gateway.keys import Keys, of_settings
from gateway.late import Late
from gateway.link import Begin
from gateway.relay import Relay
from gateway.remote import RemoteOwner
from gateway.telemetry import Telemetry
from gateway.tickets import Tickets
from gateway.tracker import Tracker

COUNT_SECONDS = 5.0
"""Between two reports of what was counted: so much of it a crash may lose."""

log = logging.getLogger("outlay")


async def work(own: socket.socket, listeners: Sequence[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT. Raises `UserError`."""
    telemetry, stops = Telemetry(), False
    owner = RemoteOwner(telemetry, lambda: None if stops else _orphaned())
    try:
        await _serve(await owner.connect(own), owner, telemetry, listeners)
    finally:
        stops = True
        await owner.stop()


async def _serve(begin: Begin, owner: RemoteOwner, telemetry: Telemetry, listeners: Sequence[socket.socket]) -> None:
    stop = asyncio.Event()
    config, data = begin.config, Path(begin.config.ledger.dir)
    book = prices.load_prices(config)
    if book.id != begin.price_book:
        raise UserError("prices.toml has changed since the gateway was started, and counts after its next start only")
    key_ring, tracker, late = Keys(data, of_settings(config.auth)), Tracker(data), Late(data)
    key_ring.refresh()
    tracker.refresh()
    late.start()
    tickets = Tickets(config.tickets, Claims(key_ring.claim_key), tracker, owner.sessions)
    relay = Relay(data, begin.gateway_id, config.server)
    beside = [asyncio.create_task(app.kept(tracker)), asyncio.create_task(_count(owner))]
    try:
        async with app.serving(
            config, book, owner, late, telemetry, key_ring, tickets, relay.routes(), begin.gateway_id, lambda: None,
            listeners,
        ):  # fmt: skip
            for number in (signal.SIGTERM, signal.SIGINT):  # before, it may just die
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            app.settled()
            owner.listens()
            await stop.wait()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await relay.close()
        late.stop()


async def _count(owner: RemoteOwner) -> None:
    while True:
        await asyncio.sleep(COUNT_SECONDS)
        owner.count()


def _orphaned() -> None:
    log.critical("the gateway's owner is gone: this worker ends")
    os._exit(1)


def main() -> None:
    app.log_to_stderr()
    own, *listeners = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    try:
        uvloop.run(work(own, listeners))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
