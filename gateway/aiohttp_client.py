"""aiohttp's client: WebSockets, and requests where the settings ask for it in place of `http1`."""

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Iterable

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from gateway.config import Server, Upstream
from gateway.upstream import Fields, UpstreamAnswer, UpstreamLost, broken, not_in_time, not_reached, silent

READ_BYTES = 256 * 1024
LARGE_BYTES = 1024 * 1024
"""A larger body is written in pieces, so that other streams go on meanwhile."""


class HandshakeRefusedError(Exception):
    """The upstream answered a WebSocket upgrade with another status. aiohttp gives no body."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Answer:
    """See `UpstreamAnswer`."""

    def __init__(self, response: aiohttp.ClientResponse, idle_seconds: float) -> None:
        self._response = response
        self._idle_seconds = idle_seconds
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while True:
                # A timeout of our own: the client's does not run any more after a malformed chunk.
                async with asyncio.timeout(self._idle_seconds):
                    piece = await content.readany()
                if not piece:
                    return
                yield piece
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise UpstreamLost(type(error).__name__) from None

    @property
    def has_piece(self) -> bool:
        return False

    @property
    def is_read(self) -> bool:
        return self._response.content.at_eof() and self._response.content.exception() is None

    def close(self) -> None:
        self._response.close()


class _Connection(ResponseHandler):
    """One that is not used again when bytes came that nobody asked for: they would be taken for the next answer."""

    def is_connected(self) -> bool:
        return super().is_connected() and not len(self)


class AiohttpClient:
    """See `UpstreamClient`; and WebSockets."""

    def __init__(self, server: Server) -> None:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=60)
        connector._factory = functools.partial(_Connection, asyncio.get_running_loop())  # type: ignore[assignment]
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            max_line_size=server.header_bytes_max,
            max_field_size=server.header_bytes_max,
            max_headers=512,
            read_bufsize=READ_BYTES,
            middlewares=(_unredirected,),
        )

    async def close(self) -> None:
        await self._session.close()

    async def connect(
        self,
        name: str,
        upstream: Upstream,
        path: str,
        fields: Fields,
        protocols: Iterable[str],
        message_bytes_max: int,
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket, which has to be closed. Raises `HandshakeRefusedError` and `NotReachedError`."""
        try:
            async with asyncio.timeout(upstream.connect_seconds):
                return await self._session.ws_connect(
                    URL(upstream.base_url.rstrip("/") + path, encoded=True),
                    headers=list(fields),
                    protocols=tuple(protocols),
                    timeout=aiohttp.ClientWSTimeout(ws_close=upstream.connect_seconds),
                    max_msg_size=message_bytes_max,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise HandshakeRefusedError(error.status) from None
        except TimeoutError:
            raise not_in_time(name) from None
        except (aiohttp.ClientError, OSError) as error:
            raise not_reached(name, error) from None

    def send(
        self, name: str, upstream: Upstream, method: str, path: str, fields: Fields, body: bytes
    ) -> asyncio.Future[UpstreamAnswer]:
        return asyncio.ensure_future(self._send(name, upstream, method, path, fields, body))

    def is_connecting(self, sent: asyncio.Future[UpstreamAnswer]) -> bool:
        return False  # it does not tell

    async def _send(
        self, name: str, upstream: Upstream, method: str, path: str, fields: Fields, body: bytes
    ) -> UpstreamAnswer:
        timeout = aiohttp.ClientTimeout(total=None, connect=upstream.connect_seconds, sock_read=upstream.idle_seconds)
        try:
            # A timeout of our own: the client's does not run while a body is not taken, nor after an early hint.
            async with asyncio.timeout(upstream.connect_seconds + upstream.idle_seconds):
                response = await self._session.request(
                    method,
                    URL(upstream.base_url.rstrip("/") + path, encoded=True),
                    headers=list(fields),
                    data=(body or None) if len(body) < LARGE_BYTES else io.BytesIO(body),
                    allow_redirects=False,
                    middlewares=(),
                    timeout=timeout,
                )
        except aiohttp.ConnectionTimeoutError:
            raise not_in_time(name) from None
        except aiohttp.ClientConnectorError as error:
            raise not_reached(name, error) from None
        except TimeoutError:
            raise silent(name) from None
        except (aiohttp.ClientError, OSError) as error:
            raise broken(name, error) from None
        if response.status < 200:
            response.close()
            raise broken(name, ValueError("nobody asked for another protocol"))
        return Answer(response, upstream.idle_seconds)


async def _unredirected(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Of WebSockets: aiohttp follows redirects there, and takes along the provider's key unless it is a bearer's."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise HandshakeRefusedError(response.status)
    return response
