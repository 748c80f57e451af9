"""What the client gets: the provider's header fields with ours, and refusals in the caller's dialect."""

import asyncio
import re
from collections.abc import AsyncIterator
from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from gateway import credentials, money
from gateway.call import Call
from gateway.config import Config
from gateway.dialects import openai_chat
from gateway.dialects.base import Caller, Dialect
from gateway.errors import OF_LIMITS, Refusal
from gateway.http1 import encoded_head
from gateway.meter import Meter
from gateway.turns import Turns, write
from gateway.upstream import UpstreamAnswer, UpstreamLost

WHOLE_BYTES_MAX = 64 * 1024 * 1024
"""A larger answer is passed on as it comes, without a cost header."""
SOON_BYTES = 64 * 1024
"""A larger answer is written at once: a client that does not read it has to be noticed before its next request."""
NO_BODY = (204, 304)
"""Answers of these statuses have none, whatever they say (RFC 9110 §6.4.1)."""
LAST_CHUNK = b"0\r\n\r\n"
LINK_FIELDS = ("X-Goog-Upload-URL", "X-Goog-Upload-Control-URL")
"""Header fields with addresses that clients follow."""
ORIGIN = re.compile(r"^https?://[^/]+")


def headers_of(
    answer: UpstreamAnswer, call: Call | None, *, keep_length: bool = True, remaining_nano: int | None = None
) -> CIMultiDict[str]:
    """The provider's header fields without hop-by-hop ones, and ours. `remaining_nano`: of the tightest budget."""
    headers = CIMultiDict(credentials.returned(answer.headers))
    if not keep_length:
        headers.popall("Content-Length", None)
    headers.setdefault("Server", "outlay")
    if call is not None:
        headers.update(own_headers(call))
    if remaining_nano is not None:
        headers["x-outlay-budget-remaining-usd"] = money.exact(remaining_nano)
    return headers


def led_back(
    links: re.Pattern[bytes] | None, headers: CIMultiDict[str], pieces: AsyncIterator[bytes], own: str
) -> AsyncIterator[bytes]:
    """The pieces of an answer, with absolute addresses of the upstream led back to the gateway (`own`: its address as
    the client knows it). SDKs follow them with their key, which is a gateway key. `headers` are changed to fit."""
    for name in LINK_FIELDS:
        if name in headers:
            headers[name] = ORIGIN.sub(lambda _: own, headers[name], count=1)
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if links is None or kind != "application/json" or "Content-Encoding" in headers:
        return pieces
    headers.popall("Content-Length", None)
    return _replaced(links, pieces, own.encode("utf-8", "replace"))


async def _replaced(links: re.Pattern[bytes], pieces: AsyncIterator[bytes], own: bytes) -> AsyncIterator[bytes]:
    yield links.sub(lambda found: found[1] + own, b"".join([piece async for piece in pieces]))


async def collect(pieces: AsyncIterator[bytes], meter: Meter) -> tuple[bytes, bool]:
    """The pieces up to `WHOLE_BYTES_MAX`, past the meter, and whether that was all."""
    found: list[bytes] = []
    size = 0
    async for piece in pieces:
        meter.feed(piece)
        found.append(piece)
        size += len(piece)
        if size > WHOLE_BYTES_MAX:
            return b"".join(found), False
    return b"".join(found), True


class Plain(web.StreamResponse):
    """An answer with a body, to an HTTP/1.1 client, that is written as it is: what aiohttp's responses do besides, no
    provider's answer needs."""

    def __init__(self, answer: UpstreamAnswer, headers: CIMultiDict[str]) -> None:
        super().__init__(status=answer.status, reason=answer.reason, headers=headers)

    def _begin(self, request: web.BaseRequest) -> asyncio.Transport:
        """Where it is written to. Raises `ConnectionResetError` when the client has gone."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._writer = request.writer
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        return transport

    def _head(self) -> bytes:
        headers = self.headers
        if not self._keep_alive:
            headers["Connection"] = "close"
        if "Date" not in headers:
            headers["Date"] = formatdate(usegmt=True)
        return encoded_head([f"HTTP/1.1 {self.status} {self.reason}", *map(": ".join, headers.items())])


class Passing(Plain):
    """An answer that is passed on as it comes. `has_piece`: some of it is here already, and its head goes out with that
    in one write."""

    _transport: asyncio.Transport | None = None
    _is_over = False

    def __init__(self, answer: UpstreamAnswer, headers: CIMultiDict[str], *, has_piece: bool) -> None:
        super().__init__(answer, headers)
        self._has_piece = has_piece
        self._is_chunked = "Content-Length" not in headers
        self._unsent = b""
        """The head, until it goes out."""

    @property
    def prepared(self) -> bool:
        return self._transport is not None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        if self._transport is None:
            self._transport = self._begin(request)
            if self._is_chunked:
                self.headers["Transfer-Encoding"] = "chunked"
            self._unsent = self._head()
            if not self._has_piece:
                self._send(b"")
        return self._writer

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `ConnectionResetError` when the client has gone."""
        if data or self._unsent:
            self._send(self._framed(data))
            await self._writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """The end, with the last of it. Raises as `write`."""
        if not self._is_over:
            self._is_over = True
            self._send(self._framed(data) + (LAST_CHUNK if self._is_chunked else b""))
            await self._writer.drain()

    def _framed(self, data: bytes | bytearray | memoryview) -> bytes:
        if not self._is_chunked or not data:  # a chunk of no length would be the last one
            return bytes(data)
        return b"%x\r\n%b\r\n" % (len(data), bytes(data))

    def _send(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(self._unsent + data)
        self._unsent = b""


class Whole(Plain):
    """A whole answer, written at once."""

    def __init__(self, answer: UpstreamAnswer, headers: CIMultiDict[str], body: bytes, turns: Turns) -> None:
        super().__init__(answer, headers)
        self._whole = body
        self._turns = turns

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        transport = self._begin(request)
        self.headers["Content-Length"] = str(len(self._whole))
        answer = self._head() + self._whole
        if len(answer) <= SOON_BYTES:
            # aiohttp goes on with the connection, or closes it, in a turn that was asked for later.
            self._turns.soon(write, transport, answer)
        else:
            write(transport, answer)
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """It is written. A client that does not read waits here with its next request."""
        await self._writer.drain()


def has_body(request: web.BaseRequest, answer: UpstreamAnswer) -> bool:
    return request.method != "HEAD" and answer.status not in NO_BODY


def is_plain(request: web.BaseRequest, answer: UpstreamAnswer) -> bool:
    """True for an answer with a body, to an HTTP/1.1 client."""
    return has_body(request, answer) and request.version == HttpVersion11


def own_headers(call: Call) -> dict[str, str]:
    headers = {"x-outlay-call-id": call.call_id, "x-outlay-ticket-source": call.ticket_source or "none"}
    if call.tickets:
        headers["x-outlay-ticket"] = ",".join(call.tickets)
    if call.task_id:
        headers["x-outlay-task"] = call.task_id
    if call.result is not None and call.list_cost_nano is not None:
        headers["x-outlay-cost-usd"] = money.exact(call.list_cost_nano)
    return headers


def refusal_response(refusal: Refusal, dialect: Dialect | None, call: Call | None) -> web.Response:
    """Our own "no", in the caller's dialect (OpenAI's where none is known)."""
    caller = Caller() if call is None else Caller(call.client, call.request_id)
    status, headers, body = (dialect or openai_chat.DIALECT).refuse(refusal, caller)
    headers |= {"x-outlay-refusal": refusal.code, "Server": "outlay"}
    if refusal.code in OF_LIMITS:
        headers["retry-after"] = str(refusal.seconds)
    elif status < 500:
        headers["x-should-retry"] = "false"
    if call is not None:
        headers |= {"request-id": call.request_id, "x-request-id": call.request_id, "x-outlay-call-id": call.call_id}
    return web.json_response(body, status=status, headers=headers)


def no_route(config: Config) -> Refusal:
    names = ", ".join(f"/{name}/" for name in config.upstreams)
    return Refusal(
        "route_unknown",
        f"Outlay: no upstream is configured for this path. Paths start with {names}, or are a provider's own, as "
        "/v1/chat/completions: OpenAI's tools want a base URL that ends in /v1.",
    )


def not_metered(method: str, path: str, name: str) -> Refusal:
    return Refusal(
        "route_unknown",
        f"Outlay cannot meter {method} {path[:100]}, so it is not forwarded. "
        f"An administrator can set allow_unmetered_paths = true in [upstreams.{name}], for keys that may use all "
        "models.",
    )


def broke_off(lost: UpstreamLost) -> Refusal:
    return Refusal("upstream_unreachable", f"Outlay: the provider's answer broke off ({lost}).")


def cut_off(request: web.Request) -> None:
    """Cut the client off, so that it takes what it has for no whole answer."""
    if request.transport is not None:
        request.transport.abort()
