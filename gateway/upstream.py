"""Forwarding: one pooled connection set, raw paths, answers relayed as they come. Foreign errors get our names here."""

import io
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from gateway.config import Server, Upstream
from gateway.errors import Refusal

READ_BYTES = 256 * 1024
LARGE_BYTES = 1024 * 1024
"""A larger body is written in pieces, so that other streams go on meanwhile."""


class UpstreamLost(Exception):  # noqa: N818 - names an event
    """The upstream went away in the middle of its answer, or fell silent for longer than `idle_seconds`."""


class UpstreamAnswer:
    """A provider's answer: status, header fields and a body that can be read once, whole or in pieces."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in whatever pieces arrive, at once. Raises `UpstreamLost`."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise UpstreamLost(type(error).__name__) from None

    async def body(self) -> bytes:
        """The whole body. Raises `UpstreamLost`."""
        return b"".join([piece async for piece in self.pieces()])


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
        )

    async def close(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def forward(
        self, name: str, upstream: Upstream, method: str, path: str, fields: Iterable[tuple[str, str]], body: bytes
    ) -> AsyncIterator[UpstreamAnswer]:
        """Send a request and yield the answer once its head is there.

        Raises the refusals `upstream_unreachable` and `upstream_timeout`. Leaving the block before the body was read
        to its end closes the connection.
        """
        try:
            response = await self._session.request(
                method,
                URL(upstream.base_url.rstrip("/") + path, encoded=True),
                headers=list(fields),
                data=(body or None) if len(body) < LARGE_BYTES else io.BytesIO(body),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=upstream.connect_seconds, sock_read=upstream.idle_seconds
                ),
            )
        except TimeoutError:
            raise Refusal(
                "upstream_timeout", f"Outlay: the provider behind the upstream {name} did not answer in time."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refusal(
                "upstream_unreachable",
                f"Outlay: the provider behind the upstream {name} cannot be reached ({type(error).__name__}).",
            ) from None
        try:
            yield UpstreamAnswer(response)
        finally:
            # Gives a connection whose answer was read to its end back to the pool, closes any other.
            response.close()
