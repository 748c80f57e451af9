"""A provider on a real socket that writes as many tokens as it is told to, up to the request's own maximum, and bills
them: OpenAI's chat and Anthropic's messages, streamed or whole."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORD = "token "
"""One token."""


@dataclass
class Served:
    """One answer as it was billed."""

    model: str
    input_tokens: int
    output_tokens: int
    max_tokens: int | None
    whole: bool = False


@dataclass
class FakeModel:
    """`wants(body)` says how many tokens the answer would like to have."""

    wants: Callable[[dict[str, Any]], int] = lambda body: 100
    seconds_per_token: float = 0.0
    tokens_per_event: int = 5
    renames: dict[str, str] = field(default_factory=dict)
    """Name that is asked for → name that the answer has, as with deployments."""
    port: int = 0
    served: list[Served] = field(default_factory=list)
    at_once: int = 0
    at_once_max: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        is_chat = request.path.endswith("/chat/completions")
        stated = body.get("max_completion_tokens", body.get("max_tokens"))
        tokens = min(self.wants(body), stated or 128_000)
        stop = "length" if tokens == stated else "stop"
        input_tokens = len(json.dumps(body.get("messages"))) // 4 + 8
        bill = Served(self.renames.get(body["model"], body["model"]), input_tokens, 0, stated)
        self.served.append(bill)
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            if body.get("stream"):
                write = self._chat_stream if is_chat else self._messages_stream
                return await write(request, body, bill, tokens, stop)
            bill.output_tokens = tokens  # written whether or not somebody waits
            await asyncio.sleep(tokens * self.seconds_per_token)
            bill.whole = True
            return web.json_response((_chat if is_chat else _message)(bill, WORD * tokens, stop))
        finally:
            self.at_once -= 1

    async def _texts(self, bill: Served, tokens: int) -> AsyncIterator[str]:
        while bill.output_tokens < tokens:
            now = min(self.tokens_per_event, tokens - bill.output_tokens)
            if self.seconds_per_token:
                await asyncio.sleep(now * self.seconds_per_token)
            bill.output_tokens += now
            yield WORD * now
        bill.whole = True

    async def _chat_stream(
        self, request: web.Request, body: dict[str, Any], bill: Served, tokens: int, stop: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": bill.model}

        async def send(choices: list[Any], **more: Any) -> None:
            await response.write(b"data: %s\n\n" % json.dumps({**head, "choices": choices, **more}).encode())

        async for text in self._texts(bill, tokens):
            await send([{"index": 0, "delta": {"content": text}, "finish_reason": None}])
        await send([{"index": 0, "delta": {}, "finish_reason": stop}])
        if (body.get("stream_options") or {}).get("include_usage"):
            await send([], usage=_chat(bill, "", stop)["usage"])
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _messages_stream(
        self, request: web.Request, body: dict[str, Any], bill: Served, tokens: int, stop: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(kind: str, **fields: Any) -> None:
            data = json.dumps({"type": kind, **fields}).encode()
            await response.write(b"event: %s\ndata: %s\n\n" % (kind.encode(), data))

        message = _message(bill, "", None) | {"content": []}
        message["usage"] = {"input_tokens": bill.input_tokens, "output_tokens": 1}
        await send("message_start", message=message)
        await send("content_block_start", index=0, content_block={"type": "text", "text": ""})
        async for text in self._texts(bill, tokens):
            await send("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        await send("content_block_stop", index=0)
        reason = "max_tokens" if stop == "length" else "end_turn"
        usage = {"output_tokens": bill.output_tokens}
        await send("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)
        await send("message_stop")
        return response


def _chat(bill: Served, text: str, stop: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": stop}
    total = bill.input_tokens + bill.output_tokens
    usage = {"prompt_tokens": bill.input_tokens, "completion_tokens": bill.output_tokens, "total_tokens": total}
    kind = "chat.completion"
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": bill.model, "choices": [choice], "usage": usage}


def _message(bill: Served, text: str, stop: str | None) -> dict[str, Any]:
    reason = None if stop is None else "max_tokens" if stop == "length" else "end_turn"
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": bill.model, "stop_sequence": None,
        "content": [{"type": "text", "text": text}], "stop_reason": reason,
        "usage": {"input_tokens": bill.input_tokens, "output_tokens": bill.output_tokens},
    }  # fmt: skip


@contextlib.asynccontextmanager
async def fake_model(**settings: Any) -> AsyncIterator[FakeModel]:
    fake = FakeModel(**settings)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/{path:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        await runner.cleanup()
