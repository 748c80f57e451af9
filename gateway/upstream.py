"""Forwarding: one pooled connection set, raw paths, answers relayed as they come. Foreign errors get our names here."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterable

import aiohttp
from yarl import URL

from gateway.config import Server, Upstream
from gateway.errors import Refusal

READ_BYTES = 256 * 1024
LARGE_BYTES = 1024 * 1024
"""A larger body is written in pieces, so that other streams go on meanwhile."""


class UpstreamLost(Exception):  # noqa: N818 - names an event
    """The upstream went away in the middle of its answer, or fell silent for longer than `idle_seconds`."""


class NotReachedError(Refusal):
    """No connection: the provider got nothing, so nothing can be billed."""


class HandshakeRefusedError(Exception):
    """The upstream answered a WebSocket upgrade with another status. aiohttp gives no body."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class UpstreamAnswer:
    """A provider's answer: status, header fields and a body that can be read once, in pieces."""

    def __init__(self, response: aiohttp.ClientResponse, idle_seconds: float) -> None:
        self._response = response
        self._idle_seconds = idle_seconds
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in whatever pieces arrive, at once. Raises `UpstreamLost`."""
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

    def close(self) -> None:
        """Give a connection whose answer was read to its end back to the pool; close any other."""
        self._response.close()


class Forwarder:
    """Owns the connections to all upstreams."""

    def __init__(self, server: Server) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
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
        fields: Iterable[tuple[str, str]],
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
            raise NotReachedError(
                "upstream_timeout", f"Outlay: the provider behind the upstream {name} opened no session in time."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _not_reached(name, error) from None

    async def send(
        self, name: str, upstream: Upstream, method: str, path: str, fields: Iterable[tuple[str, str]], body: bytes
    ) -> UpstreamAnswer:
        """Send a request; returns the answer, which has to be closed, once its head is there.

        Raises the refusals `upstream_unreachable` and `upstream_timeout`, as `NotReachedError` when nothing was sent.
        """
        try:
            response = await self._session.request(
                method,
                URL(upstream.base_url.rstrip("/") + path, encoded=True),
                headers=list(fields),
                data=(body or None) if len(body) < LARGE_BYTES else io.BytesIO(body),
                allow_redirects=False,
                middlewares=(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=upstream.connect_seconds, sock_read=upstream.idle_seconds
                ),
            )
        except aiohttp.ConnectionTimeoutError:
            raise NotReachedError(
                "upstream_timeout", f"Outlay: no connection to the provider behind the upstream {name} in time."
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise _not_reached(name, error) from None
        except TimeoutError:
            raise Refusal(
                "upstream_timeout", f"Outlay: the provider behind the upstream {name} did not answer in time."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refusal(
                "upstream_unreachable",
                f"Outlay: the provider behind the upstream {name} broke the connection ({type(error).__name__}).",
            ) from None
        return UpstreamAnswer(response, upstream.idle_seconds)


async def _unredirected(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Of WebSockets: aiohttp follows redirects there, and takes along the provider's key unless it is a bearer's."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise HandshakeRefusedError(response.status)
    return response


def _not_reached(name: str, error: Exception) -> NotReachedError:
    return NotReachedError(
        "upstream_unreachable",
        f"Outlay: the provider behind the upstream {name} cannot be reached ({type(error).__name__}).",
    )
