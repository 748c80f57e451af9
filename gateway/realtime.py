"""Realtime sessions over a WebSocket: messages pass both ways as they come, and each response of the model is a call of
its own, recorded before its last message goes out."""

import asyncio
import re

import aiohttp
import msgspec
from aiohttp import WSMsgType, web

from gateway.books import Books, OpenCall
from gateway.call import Ask, Call, Result
from gateway.dialects.base import Dialect
from gateway.errors import Refusal
from gateway.ids import uuid7
from gateway.ledger import Ledger, now_us

BEGINS = re.compile(rb'"type"\s*:\s*"response\.created"|"modelTurn"')
"""A server's message after which a bill will come."""
INTERNAL_ERROR = aiohttp.WSCloseCode.INTERNAL_ERROR


class Session:
    """One session. `call` is what is known of its caller: the template of each response's record."""

    def __init__(
        self, call: Call, dialect: Dialect, ask: Ask, region: str | None, books: Books, ledger: Ledger
    ) -> None:
        self._template = call
        self._dialect = dialect
        self._ask = ask
        self._region = region
        self._books = books
        self._ledger = ledger
        self._model: str | None = None
        self._tool_model: str | None = None
        self._open: OpenCall | None = None
        self._answering = False

    async def relay(
        self, request: web.Request, upstream: aiohttp.ClientWebSocketResponse, headers: dict[str, str]
    ) -> web.WebSocketResponse:
        """Serve the session until either side ends it."""
        client = web.WebSocketResponse(
            protocols=(upstream.protocol,) if upstream.protocol else (), compress=False, max_msg_size=0
        )
        client.headers.update(headers)
        result: Result = "interrupted"
        try:
            await client.prepare(request)
            up = asyncio.create_task(self._up(client, upstream))
            down = asyncio.create_task(self._down(upstream, client))
            try:
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
            result = "client_cancelled" if client.closed else "upstream_cut"
            await client.close(code=upstream.close_code or aiohttp.WSCloseCode.OK)
        except asyncio.CancelledError:
            if request.transport is None or request.transport.is_closing():
                result = "client_cancelled"
            raise
        finally:
            if self._open is not None:
                self._open.free = not self._answering
                await self._books.close(self._open, result if self._answering else "completed")
            await upstream.close(code=client.close_code or aiohttp.WSCloseCode.OK)
        return client

    async def _up(self, client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> None:
        async for message in client:
            try:
                self._begin()
            except Refusal as refusal:
                await client.close(code=INTERNAL_ERROR, message=refusal.message.encode()[:120])
                return
            await _pass_on(message, upstream)

    async def _down(self, upstream: aiohttp.ClientWebSocketResponse, client: web.WebSocketResponse) -> None:
        async for message in upstream:
            await self._see(message.data if isinstance(message.data, bytes) else message.data.encode())
            await _pass_on(message, client)

    async def _see(self, event: bytes) -> None:
        """Let the meter see a message of the server; close the call when it was a bill."""
        if BEGINS.search(event):
            self._begin()
            self._answering = True
        elif self._open is None and not self._dialect.may_matter.search(event):
            return
        open_call = self._begin()
        open_call.meter.see(event)
        answer = open_call.meter.answer
        self._model, self._tool_model = answer.response_model, answer.tool_model
        if answer.finish_reason is not None:
            await self._books.close(open_call, "completed")
            self._open, self._answering = None, False

    def _begin(self) -> OpenCall:
        """The open call; a new one after each bill. Raises the refusal `ledger_unavailable`."""
        if self._open is None:
            now = now_us()
            call = msgspec.structs.replace(self._template, call_id=uuid7(now), request_id=uuid7(now), started_us=now)
            self._ledger.open(call)
            self._open = OpenCall(call, self._dialect, self._ask, b"", self._region)
            self._open.answered(101, {})
            answer = self._open.meter.answer
            answer.response_model, answer.tool_model = self._model, self._tool_model
        return self._open


async def _pass_on(message: aiohttp.WSMessage, to: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
    if message.type is WSMsgType.TEXT:
        await to.send_str(message.data)
    elif message.type is WSMsgType.BINARY:
        await to.send_bytes(message.data)
