"""Work in a thread beside the keeper's rounds, so that sealing does not wait for it."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import duckdb

from gateway.errors import UserError


@contextlib.contextmanager
def beside(
    name: str,
    does: Callable[[], object],
    seconds: float,
    failed: Callable[[str], None],
    *,
    stop: threading.Event | None = None,
    at_once: bool = False,
) -> Iterator[None]:
    """While the block runs, do something every so many seconds, the first time after that long or `at_once`. `failed`
    is told a failure in one line, once while it stays the same. `stop` is set when the block ends."""
    stop = stop or threading.Event()

    def run() -> None:
        failure, pause = "", 0.0 if at_once else seconds
        while not stop.wait(pause):
            pause = seconds
            try:
                does()
                failure = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the next time may go well
                is_told = isinstance(error, (OSError, duckdb.Error, UserError)) and str(error)
                line = str(error).splitlines()[0] if is_told else type(error).__name__
                if line != failure:
                    failed(line)
                failure = line

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
