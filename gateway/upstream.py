"""What an upstream is to the rest of the house: a request goes out, an answer comes back in pieces, or it does not. The
clients that do it (`http1`, `aiohttp_client`) give foreign errors the names of this page."""

import asyncio
import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from multidict import MultiMapping

from gateway.config import Upstream
from gateway.errors import Refusal

Fields = Sequence[tuple[str, str]]
TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
TELL_AGAIN_SECONDS = 60.0

log = logging.getLogger("outlay.upstream")
_told_until = 0.0


class UpstreamLost(Exception):  # noqa: N818 - names an event
    """The upstream went away in the middle of its answer, or fell silent for longer than `idle_seconds`."""


class NotReachedError(Refusal):
    """No connection: the provider got nothing, so nothing can be billed."""


class TooManyFilesError(NotReachedError):
    """No descriptor was left for a connection. It says nothing of the provider, and another attempt needs one, too."""


class UpstreamAnswer(Protocol):
    """A provider's answer, once its head is there: a body that can be read once, in pieces."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def headers(self) -> MultiMapping[str]:
        """Case-insensitive; `items` gives a field that comes twice twice."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The body in whatever pieces arrive, at once. Raises `UpstreamLost`."""

    @property
    def has_piece(self) -> bool:
        """A piece is here already; not sure when false."""

    @property
    def is_read(self) -> bool:
        """The last piece was taken, and the body is whole; not sure when false."""

    def close(self) -> None:
        """Give a connection whose answer was read to its end back to the pool; close any other."""


class UpstreamClient(Protocol):
    """Owns the connections to all upstreams."""

    def send(
        self, name: str, upstream: Upstream, method: str, path: str, fields: Fields, body: bytes
    ) -> asyncio.Future[UpstreamAnswer]:
        """Send a request: at once where a connection is open. Done with the answer, which has to be closed, once its
        head is there. Cancelled, the request is given up.

        It fails with the refusals `upstream_unreachable` and `upstream_timeout`, as `NotReachedError` when nothing was
        sent.
        """

    def is_connecting(self, sent: asyncio.Future[UpstreamAnswer]) -> bool:
        """True while there is no connection for a request: given up now, it has not reached the provider. Not sure when
        false."""

    async def close(self) -> None: ...


def not_reached(name: str, error: Exception) -> NotReachedError:
    if isinstance(error, OSError) and _is_out_of_files(error):
        _tell_of_files()
        return TooManyFilesError(
            "upstream_unreachable",
            f"Outlay: the gateway has too many open files (ulimit -n) to reach the provider behind the upstream "
            f"{name}. An administrator has to raise that limit.",
        )
    return NotReachedError(
        "upstream_unreachable",
        f"Outlay: the provider behind the upstream {name} cannot be reached ({type(error).__name__}).",
    )


def not_in_time(name: str) -> NotReachedError:
    return NotReachedError(
        "upstream_timeout", f"Outlay: no connection to the provider behind the upstream {name} in time."
    )


def silent(name: str) -> Refusal:
    return Refusal("upstream_timeout", f"Outlay: the provider behind the upstream {name} did not answer in time.")


def broken(name: str, error: Exception) -> Refusal:
    return Refusal(
        "upstream_unreachable",
        f"Outlay: the provider behind the upstream {name} broke the connection ({type(error).__name__}).",
    )


def _is_out_of_files(error: OSError) -> bool:
    if error.errno in TOO_MANY_FILES:
        return True
    try:  # whoever looks a name up, or tries several addresses, may give it another name
        os.close(os.dup(2))
    except OSError as dup_error:
        return dup_error.errno in TOO_MANY_FILES
    return False


def _tell_of_files() -> None:
    """Not for each call."""
    global _told_until
    if time.monotonic() >= _told_until:
        _told_until = time.monotonic() + TELL_AGAIN_SECONDS
        log.error("too many open files (ulimit -n): providers cannot be reached; see docs/operations.md, Sizing")
