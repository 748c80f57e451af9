"""The front door: connections of clients, each bounded in what it may send and in how long it may take.

The kernel watches clients that do not read: no timer runs per connection, and no write has to know of it.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.config import Server
from gateway.errors import Refusal

Body = TypeVar("Body", bytes, bytearray)

BACKLOG = 1024
"""Connections that wait to be taken."""
FIELDS_MAX = 512
"""Header fields of a request."""
BYTES_PER_SECOND_MIN = 1000
"""A body may take a second for each so many bytes, beside `body_seconds`."""
HEAD_FIELDS = 4
"""A whole head may be so many times as long as the longest field."""
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
LINGERING_SECONDS = 10.0
"""How long the rest of a body is read and thrown away that was refused: else the client may never see the refusal."""
PROBES = 4
"""To a client that has said nothing, before it is taken to be gone."""


class Connection(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ("_came_whole", "_head_bytes", "heads")

    _came_whole: bool
    """Each request so far was whole when its head had been read. Then the parser holds nothing back, unless too many
    requests wait: with these aiohttp goes on when there is room."""
    _head_bytes: int
    """Of a head that is not whole yet."""
    heads: dict[tuple[object, ...], Any]
    """What was read out of heads: see `heads`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._came_whole, self._head_bytes, self.heads = True, 0, {}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        requests = self._request_count
        super().data_received(data)
        if self._request_count > requests:
            self._head_bytes = 0
            if self._upgraded or not self._messages[-1][1].is_eof():
                self._came_whole = False
        elif self._waiter is None or self._waiter.done():  # a request is here: these are its body, or come behind it
            self._head_bytes = 0
        else:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_FIELDS * self.max_field_size and self.transport is not None:
                self.transport.write(TOO_LARGE)
                self.force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Asked of aiohttp's streams for each body, and seldom needed."""
        if self._reading_paused or not self._came_whole:
            super().resume_reading(resume_parser)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no request that can be understood is refused. It is not quoted, as a key may stand in it, and not
        logged, as anyone can send any number of them."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=400, text="Outlay: this is not a valid HTTP/1.1 request.\n")
        response.headers["Server"] = "outlay"
        response.force_close()
        return response


async def listen(
    manager: web.Server, settings: Server, listeners: Sequence[socket.socket] = ()
) -> list[asyncio.Server]:
    """Take connections, on `listeners` or at the address of the settings. Raises `OSError`."""
    loop = asyncio.get_running_loop()

    def connection() -> Connection:
        return Connection(
            manager,
            loop=loop,
            keepalive_timeout=settings.header_seconds,
            lingering_time=min(LINGERING_SECONDS, settings.body_seconds),
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
            max_line_size=settings.header_bytes_max,
            max_field_size=settings.header_bytes_max,
            max_headers=FIELDS_MAX,
        )

    servers = [
        await loop.create_server(connection, sock=each, backlog=BACKLOG, start_serving=False) for each in listeners
    ] or [
        await loop.create_server(
            connection, settings.host, settings.port, backlog=BACKLOG, reuse_address=True, start_serving=False
        )
    ]
    for server in servers:
        for each in server.sockets:  # connections inherit these
            _watch(each, settings.write_seconds)
        await server.start_serving()
    return servers


def _watch(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end connections whose peer takes nothing for so long, or is gone without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(seconds)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(seconds / PROBES)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


async def read_body(request: web.Request, settings: Server) -> bytes:
    """The whole body of a request. Raises refusals, and the answer 408 to a client that is silent, or slow beyond
    measure."""
    content = request.content
    try:
        if content.is_eof():
            return _bounded(content.read_nowait(), settings)
        content.set_read_chunk_size(settings.body_bytes_max)  # no pause between pieces
        body = bytearray()
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.timeout(settings.body_seconds) as deadline:
            while piece := await content.readany():
                body += piece
                _bounded(body, settings)
                slowest = began + len(body) / BYTES_PER_SECOND_MIN
                deadline.reschedule(min(clock(), slowest) + settings.body_seconds)
        return bytes(body)
    except TimeoutError:
        late = web.HTTPRequestTimeout(text="Outlay: the request body did not come in time.\n")
        late.force_close()
        raise late from None
    except web.RequestPayloadError:
        raise Refusal("request_unreadable", "Outlay: the request body is not framed as HTTP/1.1 asks for.") from None


def _bounded(body: Body, settings: Server) -> Body:
    if len(body) > settings.body_bytes_max:
        raise Refusal(
            "request_too_large", "Outlay: the request body is larger than this gateway takes (body_bytes_max)."
        )
    return body
