"""A lean HTTP/1.1 client, on the wire: llhttp (httptools) parses, whole buffers are passed on as they come.

aiohttp's client is two thirds of what a proxy costs; this one does what a proxy needs and no more: no redirects, no
cookies, no decoding, no session. RFC 9112; what it does in each fault: docs/relaying.md.
"""

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import chain
from operator import methodcaller
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import httptools
import msgspec
from multidict import CIMultiDict

from gateway.config import Upstream
from gateway.turns import Turns
from gateway.upstream import (
    Fields,
    UpstreamAnswer,
    UpstreamLost,
    broken,
    not_reached,
    silent,
)

BUFFERED_BYTES_MAX = 64 * 1024
"""Of an answer that its reader does not take so much is held; then no more is read."""
PIECE_BYTES = 256 * 1024
"""A larger body is written in pieces, so that other streams go on meanwhile."""
FIELDS_MAX = 512
LATE_SECONDS, EXCUSED_SECONDS = 0.1, 1.0
"""A timer that rings so late tells that this process was busy: what has come by then is read first."""
SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Sent once more when a kept connection turns out to be gone (RFC 9110 §9.2.2). What is billed never is."""


BARE = methodcaller("strip", " \t")
"""The value of a header field without the blanks around it, which are none of it."""


class Origin(NamedTuple):
    """Where an upstream's requests go."""

    host: str
    port: int
    is_tls: bool
    field: str
    """The `Host` field."""
    prefix: str
    """Before the path."""


class Request(msgspec.Struct, frozen=True):
    """One request, ready to be written."""

    name: str
    """The upstream's."""
    upstream: Upstream
    origin: Origin
    method: str
    head: bytes
    body: bytes


def origin_of(base_url: str) -> Origin:
    """Raises `ValueError`."""
    parts = urlsplit(base_url)
    is_tls, host = parts.scheme == "https", parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    shown = f"[{host}]" if ":" in host else host
    field = shown if parts.port is None else f"{shown}:{parts.port}"
    return Origin(host, parts.port or (443 if is_tls else 80), is_tls, field, parts.path.rstrip("/"))


def head_of(origin: Origin, method: str, path: str, fields: Fields, body: bytes) -> bytes:
    """The head of a request. Raises `ValueError` where a field would end before its value does."""
    lines = [f"{method} {origin.prefix}{path} HTTP/1.1", f"Host: {origin.field}"]
    lines += map(": ".join, fields)
    if body or method not in SAFE_TO_REPEAT:
        lines.append(f"Content-Length: {len(body)}")
    head = encoded_head(lines)
    if b"\0" in head:
        raise ValueError("a header field has a line break in it")
    return head


def encoded_head(lines: Sequence[str]) -> bytes:
    """The head of a message, by its lines. Raises `ValueError` where a field would end before its value does."""
    text = "\r\n".join(lines)
    if not text.count("\n") == text.count("\r") == len(lines) - 1:
        raise ValueError("a header field has a line break in it")
    return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"


class Keeper(Protocol):
    """Where connections are kept."""

    def put(self, connection: "Connection") -> None:
        """Nobody needs it for now."""

    def forget(self, connection: "Connection") -> None:
        """It is gone."""


class Answer:
    """One request, and its answer: see `UpstreamAnswer`."""

    status = 0
    reason = ""
    headers: CIMultiDict[str]
    has_head = False
    is_over = False
    """No more bytes will come."""
    _buffered = 0
    _lost: UpstreamLost | None = None
    _waiter: asyncio.Future[None] | None = None
    _excused = 0.0
    """The silence that was once excused, by its beginning."""

    def __init__(self, connection: "Connection", request: Request) -> None:
        loop = asyncio.get_running_loop()
        self.head: asyncio.Future[UpstreamAnswer] = loop.create_future()
        """Done once the head of the answer is there. Then it holds the answer, which lets go of it: else both, and the
        request's body, would wait for the garbage collector."""
        self.request = request
        self._connection: Connection | None = connection
        self._parts: deque[bytes] = deque()
        self._idle_seconds = request.upstream.idle_seconds
        self._heard = loop.time()
        self._looks_at = self._heard + self._idle_seconds
        self._timer = loop.call_later(self._idle_seconds, self._look)
        self.head.add_done_callback(self._head_is_done)

    def pieces(self) -> AsyncIterator[bytes]:
        """The body in whatever pieces arrive, at once. Raises `UpstreamLost`."""
        return self

    @property
    def has_piece(self) -> bool:
        return bool(self._parts)

    @property
    def is_read(self) -> bool:
        return self.is_over and not self._parts and self._lost is None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._lost is not None:
                raise self._lost
            if self.is_over:
                raise StopAsyncIteration
            loop = asyncio.get_running_loop()
            self._heard, self._waiter = loop.time(), loop.create_future()
            await self._waiter
        piece = b"".join(self._parts)  # a single one is not copied
        self._parts.clear()
        self._buffered = 0
        if self._connection is not None:
            self._connection.go_on()
        return piece

    def close(self) -> None:
        """Close the connection of an answer that was not read to its end."""
        self._end(UpstreamLost("closed"))

    # -- told by the connection ---------------------------------------------------------------------------------------

    def begin(self, status: int, reason: str, headers: CIMultiDict[str]) -> None:
        self.status, self.reason, self.headers, self.has_head = status, reason, headers, True
        head = self.head
        del self.head, self.request  # a stream may go on for long, and the body be large
        if not head.done():
            head.set_result(self)

    def take(self, parts: Sequence[bytes], size: int) -> bool:
        """Some of the body. False when no more should be read for now."""
        self._parts.extend(parts)
        self._buffered += size
        self._wake()
        return self._buffered < BUFFERED_BYTES_MAX

    def hear(self) -> None:
        """Something came, or could be sent."""
        self._heard = asyncio.get_running_loop().time()

    def finish(self) -> None:
        """The answer came whole."""
        self._timer.cancel()
        self.is_over, self._connection = True, None
        self._wake()

    def fail(self, error: Exception) -> None:
        """It will not come (whole)."""
        if self.is_over:
            return
        self.finish()
        if self.has_head:
            self._lost = error if isinstance(error, UpstreamLost) else UpstreamLost(type(error).__name__)
        elif not self.head.done():
            self.head.set_exception(error)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _head_is_done(self, head: asyncio.Future[UpstreamAnswer]) -> None:
        if head.cancelled():
            self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, lost: Exception) -> None:
        connection = self._connection
        if connection is not None:
            self.fail(lost)
            connection.abort()

    def _look(self) -> None:
        """Has it been silent for too long? One timer per answer, moved on only when it rings."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        left = self._heard + self._idle_seconds - now
        if left <= 0 and self._parts:  # its reader has not taken what lies here: the silence is not the upstream's
            left = self._idle_seconds
        elif left <= 0 and now - self._looks_at > LATE_SECONDS and self._excused != self._heard:
            left, self._excused = min(self._idle_seconds, EXCUSED_SECONDS), self._heard
        if left > 0:
            self._looks_at = now + left
            self._timer = loop.call_later(left, self._look)
        else:
            self._end(UpstreamLost("TimeoutError") if self.has_head else silent(self.request.name))


class Connection(asyncio.Protocol):
    """One connection: at most one answer at a time."""

    def __init__(self, keeper: Keeper, origin: Origin, head_bytes_max: int, turns: Turns) -> None:
        self._keeper = keeper
        self._turns = turns
        self.origin = origin
        self._head_bytes_max = head_bytes_max
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        """Told by the parser, for each chunk of a body."""
        self._fields: list[tuple[bytes, bytes]] = []
        """Names and values: of the head, then of trailers."""
        append = self._fields.append
        self.on_header: Callable[[bytes, bytes], None] = lambda *field: append(field)
        """Told by the parser."""
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._answer: Answer | None = None
        self._coming = select.poll()
        self.idle_since = 0.0
        self._writing: asyncio.Task[None] | asyncio.Handle | None = None
        self._is_unsent = False
        """Of a request that was asked for no byte has gone out yet."""
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._is_paused = False
        self._barren_bytes = 0
        """So many came since the last of a body: of heads, trailers, extensions."""
        self._reset()

    def _reset(self) -> None:
        self._reason = ""
        self._fields.clear()
        self._head_fields = 0
        self._in_body = self._is_framed = self._is_complete = self._is_interim = False
        self._parts.clear()
        self._parts_max: int | None = None
        """Where the answer is complete: what more comes is none of it."""
        self._keeps = False

    # -- a request ----------------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> Answer:
        """Send a request."""
        answer = Answer(self, request)
        if not self.is_usable:  # gone in the moment in which it was opened
            answer.fail(not_reached(request.name, ConnectionResetError()))
            return answer
        self._answer, self._barren_bytes, self._is_unsent = answer, 0, True
        self._reset()
        if len(request.body) <= PIECE_BYTES:
            self._writing = self._turns.soon(self._write_whole, request)
        else:
            self._writing = asyncio.ensure_future(self._write(answer))
        return answer

    def _write_whole(self, request: Request) -> None:
        """Perhaps in the turn after `ask`, with what others ask."""
        self._writing = None
        if self._transport is not None and not self._transport.is_closing():
            self._is_unsent = False
            self._transport.write(request.head + request.body)

    async def _write(self, answer: Answer) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._is_unsent = False
        self._transport.write(answer.request.head)
        body = memoryview(answer.request.body)
        for at in range(0, len(body), PIECE_BYTES):
            if at:
                await asyncio.sleep(0)  # others first
            await self._can_write.wait()
            if answer.is_over:
                return
            self._transport.write(body[at : at + PIECE_BYTES])
            answer.hear()
        self._writing = None

    def go_on(self) -> None:
        """There is room again for what comes."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        self._answer = None
        if self._writing is not None:
            self._writing.cancel()
        if self._transport is not None:
            self._transport.abort()

    @property
    def _is_written(self) -> bool:
        """The request went out to its end."""
        return self._writing is None and (self._transport is None or not self._transport.get_write_buffer_size())

    @property
    def is_usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Nothing came that nobody asked for, not even the end: asked of the kernel, as the loop may not have read it
        yet."""
        return not self._coming.poll(0)

    # -- told by the transport ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._coming.register(transport.get_extra_info("socket"), select.POLLIN)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self._is_unsent:  # bytes that nobody asked for
            self._fail(ConnectionResetError())
            return
        if self._in_body:
            answer.hear()
        error: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as raised:
            error = raised
        self._barren_bytes = 0 if self._parts else self._barren_bytes + len(data)
        if not self._is_complete:
            fields = self._head_fields or len(self._fields)
            if self._barren_bytes > self._head_bytes_max or fields > FIELDS_MAX:
                error = ValueError("the head, or what follows the body, is too long")
        if self._parts:
            parts = self._parts[: self._parts_max]
            self._parts.clear()
            if not answer.take(parts, sum(map(len, parts))) and not self._is_complete and not error:
                assert self._transport is not None
                self._is_paused = True
                self._transport.pause_reading()
        if self._is_complete:
            self._done(keeps=self._keeps and error is None)
        elif error is not None:
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._can_write.set()
        self._keeper.forget(self)
        answer = self._answer
        if answer is None:
            return
        if error is None and self._in_body and not self._is_framed:
            self._done(keeps=False)
        else:
            self._fail(error or ConnectionResetError())

    def _done(self, *, keeps: bool) -> None:
        """The answer is whole. A connection over which a request was not written to its end cannot be used again."""
        answer, self._answer = self._answer, None
        assert answer is not None
        answer.finish()
        if keeps and self._is_written and self.is_usable:
            self.go_on()
            self._keeper.put(self)
        elif self._transport is not None and self._is_written:
            self._transport.close()
        else:
            self.abort()

    def _fail(self, error: Exception) -> None:
        answer = self._answer
        refusal = not_reached if self._is_unsent else broken
        self.abort()
        if answer is not None:
            answer.fail(error if answer.has_head else refusal(answer.request.name, error))

    def give_up(self) -> None:
        """The process ends."""
        self._fail(ConnectionAbortedError())

    # -- told by the parser -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._keeps = False  # a second answer, which nobody asked for

    def on_status(self, reason: bytes) -> None:
        self._reason += reason.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        if self._is_complete:
            return
        status = self._parser.get_status_code()
        answer = self._answer
        if status < 200 or answer is None:
            if status == 101:
                raise ValueError("nobody asked for another protocol")
            self._is_interim = True
            return
        self._head_fields = len(self._fields)
        joined = b"\n".join(chain.from_iterable(self._fields))
        texts = joined.decode("utf-8", "surrogateescape").split("\n") if joined else []
        if len(texts) != 2 * self._head_fields:
            raise ValueError("a header field has a line break in it")
        headers = CIMultiDict(zip(texts[::2], map(BARE, texts[1::2]), strict=True))
        self._in_body, has_body = True, answer.request.method != "HEAD"
        self._is_framed = "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "").lower()
        answer.begin(status, self._reason, headers)
        if not has_body:  # only its length: the parser would wait for one
            self._is_complete, self._keeps, self._parts_max = True, False, 0

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._reset()
        elif not self._is_complete:
            self._is_complete, self._keeps = True, self._parser.should_keep_alive()
            self._parts_max = len(self._parts)
