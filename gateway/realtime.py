"""Realtime sessions over a WebSocket: messages pass both ways as they come, and each response of the model is a call of
its own, recorded before its last message goes out."""

import asyncio
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMessage, WSMsgType, web

from gateway.answers import cut_off, own_headers
from gateway.asking import Asking
from gateway.books import Books, OpenCall
from gateway.call import Ask, Call, Result
from gateway.dialects.base import Dialect
from gateway.errors import Refusal
from gateway.ids import uuid7
from gateway.ledger import now_us

ASKED = re.compile(rb'"type"\s*:\s*"response\.create"|"clientContent"')
"""A client's message that asks for a response."""
BEGUN = re.compile(rb'"type"\s*:\s*"response\.created"|"modelTurn"')
"""A server's message after which a bill will come."""
REASON_MAX = 120
"""A close frame holds so many bytes of a reason (RFC 6455 §5.5.1), which must be whole letters."""
NOT_SENDABLE = frozenset({None, 1005, 1006, 1015})
"""Close codes that only say that no close frame came (RFC 6455 §7.4.1)."""

By = Literal["client", "upstream", "gateway"]
Socket = web.WebSocketResponse | ClientWebSocketResponse


class _End(NamedTuple):
    """How a session ended."""

    by: By
    code: int | None = None
    reason: bytes = b""

    def sendable(self) -> int | None:
        """The code to end the other side with; `None` where this one was lost."""
        return None if self.code in NOT_SENDABLE else self.code


RESULTS: dict[By, Result] = {"client": "client_cancelled", "upstream": "upstream_cut", "gateway": "interrupted"}
"""Of a response that was under way, by who ended the session."""


class Session:
    """One session. `call` is what is known of its caller: the template of each response's record."""

    def __init__(
        self,
        call: Call,
        dialect: Dialect,
        ask: Ask,
        region: str | None,
        books: Books,
        may_send: Callable[[bytes], None],
    ) -> None:
        """`may_send` raises the refusal of a client's message."""
        self._call = call
        self._dialect = dialect
        self._ask = ask
        self._region = region
        self._books = books
        self._may_send = may_send
        self._model: str | None = None
        self._tool_model: str | None = None
        self._open: OpenCall | None = None
        """Free until a response is asked for or begun."""
        self._beginning = asyncio.Lock()
        """Either side may be the first to do something."""

    async def relay(
        self, request: web.Request, upstream: ClientWebSocketResponse, message_bytes_max: int
    ) -> web.WebSocketResponse:
        """Serve the session until either side ends it."""
        protocols = (upstream.protocol,) if upstream.protocol else ()
        client = web.WebSocketResponse(protocols=protocols, compress=False, max_msg_size=message_bytes_max)
        client.headers.update(own_headers(self._call))
        client.headers["Server"] = "outlay"
        result: Result = "interrupted"
        end = _End("gateway")
        try:
            await client.prepare(request)
            up = asyncio.create_task(self._up(client, upstream))
            down = asyncio.create_task(self._down(upstream, client))
            try:
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            finally:
                first = up if up.done() else down
                if first.done() and first.exception() is None:
                    end = first.result()
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
            result = RESULTS[end.by]
            if end.by != "client":
                if (code := end.sendable()) is not None:
                    await client.close(code=code, message=end.reason)
                else:
                    cut_off(request)  # the provider was lost, and so it is for the client
        except asyncio.CancelledError:
            if request.transport is None or request.transport.is_closing():
                result = "client_cancelled"
            raise
        except ConnectionError:
            result = "client_cancelled"
        finally:
            if self._open is not None:
                await self._books.close(self._open, "completed" if self._open.free_without_usage else result)
            await upstream.close(code=end.sendable() or WSCloseCode.GOING_AWAY, message=end.reason)
        return client

    async def _up(self, client: web.WebSocketResponse, upstream: ClientWebSocketResponse) -> _End:
        while (message := await client.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            try:
                self._may_send(_bytes(message))
                open_call = await self._begin()
                if ASKED.search(_bytes(message)):
                    open_call.free_without_usage = False
                await _pass_on(message, upstream)
            except Refusal as refusal:
                return _refused(refusal)
            except ConnectionError:
                return _End("upstream")
        return _end("client", message, client)

    async def _down(self, upstream: ClientWebSocketResponse, client: web.WebSocketResponse) -> _End:
        while (message := await upstream.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            try:
                await self._see(_bytes(message))
                await _pass_on(message, client)
            except Refusal as refusal:
                return _refused(refusal)
            except ConnectionError:
                return _End("client")
        return _end("upstream", message, upstream)

    async def _see(self, event: bytes) -> None:
        """Let the meter see a message of the server; close the call when it was a bill."""
        begins = BEGUN.search(event) is not None
        if self._open is None and not begins and not self._dialect.may_matter.search(event):
            return
        open_call = await self._begin()
        if begins:
            open_call.free_without_usage = False
        open_call.meter.see(event)
        answer = open_call.meter.answer
        self._model, self._tool_model = answer.response_model, answer.tool_model
        if answer.finish_reason is not None:
            await self._books.close(open_call, "completed")
            if self._open is open_call:  # else the next one has begun meanwhile
                self._open = None

    async def _begin(self) -> OpenCall:
        """The open call; a new one after each bill. Raises refusals."""
        async with self._beginning:
            if self._open is None or self._open.is_closed:
                now = now_us()
                call = msgspec.structs.replace(self._call, call_id=uuid7(now), request_id=uuid7(now), started_us=now)
                call.session_id = call.session_id or self._call.call_id
                asking = Asking(
                    self._dialect, self._ask, "", b"", self._region, call.provider or "", lambda model: True,
                    in_session=True,
                )  # fmt: skip
                self._open = await self._books.open(call, asking, lambda: None)
                self._open.answered(101, {})
                self._open.free_without_usage = True
                answer = self._open.meter.answer
                answer.response_model, answer.tool_model = self._model, self._tool_model
            return self._open


def _bytes(message: WSMessage) -> bytes:
    return message.data if isinstance(message.data, bytes) else message.data.encode()


async def _pass_on(message: WSMessage, to: Socket) -> None:
    if message.type is WSMsgType.TEXT:
        await to.send_str(message.data)
    else:
        await to.send_bytes(message.data)


def _refused(refusal: Refusal) -> _End:
    code = WSCloseCode.POLICY_VIOLATION if refusal.status < 500 else WSCloseCode.INTERNAL_ERROR
    return _End("gateway", code, refusal.message.encode()[:REASON_MAX].decode(errors="ignore").encode())


def _end(by: By, message: WSMessage, socket: Socket) -> _End:
    """What the last thing that was received says: a close frame, an error, a lost connection."""
    if message.type is WSMsgType.CLOSE:
        return _End(by, message.data, (message.extra or "").encode())
    return _End(by, socket.close_code)
