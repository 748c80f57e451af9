"""Realtime sessions: messages pass both ways, each response is a call of its own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.budget_file import BudgetTable
from gateway.config import PriceSettings, Upstream
from gateway.keys import Keys
from tests.conftest import Running, StartGateway

TRANSCRIPTION = {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}}
CREATED = {"type": "session.created", "session": {"id": "sess_1", "model": "gpt-realtime", "audio": TRANSCRIPTION}}
BEGUN = {"type": "response.created", "response": {"id": "resp_1"}}
DELTA = {"type": "response.output_audio.delta", "delta": "AAAA"}
TRANSCRIBED = {
    "type": "conversation.item.input_audio_transcription.completed",
    "usage": {"type": "tokens", "input_tokens": 26, "input_token_details": {"audio_tokens": 26}, "output_tokens": 9},
}


def done(number: int, status: str = "completed") -> dict[str, Any]:
    usage = {
        "input_tokens": 100 * number,
        "output_tokens": 50,
        "input_token_details": {
            "audio_tokens": 30,
            "cached_tokens": 20,
            "cached_tokens_details": {"text_tokens": 15, "audio_tokens": 5},
        },
        "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
    }
    return {"type": "response.done", "response": {"id": f"resp_{number}", "status": status, "usage": usage}}


@dataclass
class Provider:
    """A WebSocket server: sends the next batch of messages for each message it gets."""

    batches: list[list[Any]] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cut_at_end: bool = False
    url: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    close_code: int | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        if request.query.get("model") == "refused":
            return web.Response(status=403)
        socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=0)
        await socket.prepare(request)
        batches = list(self.batches)
        async for message in socket:
            self.got.append(message.data)
            for answer in batches.pop(0) if batches else []:
                await (socket.send_bytes(answer) if isinstance(answer, bytes) else socket.send_str(json.dumps(answer)))
            if self.cut_at_end and not batches and request.transport is not None:
                request.transport.abort()
        self.close_code = socket.close_code
        self.ended.set()
        return socket


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    fake = Provider()
    app = web.Application()
    app.router.add_get("/{path:.*}", fake.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@contextlib.asynccontextmanager
async def started(start_gateway: StartGateway, provider: Provider, **sections: Any) -> AsyncIterator[Running]:
    to = Upstream(base_url=provider.url, provider="openai", credential="env:PROVIDER_KEY")
    google = Upstream(base_url=provider.url, provider="gcp.gemini", credential="env:PROVIDER_KEY")
    async with start_gateway(upstreams={"openai": to, "gemini": google}, **sections) as gateway:
        yield gateway


def connect(gateway: Running, path: str = "/v1/realtime?model=gpt-realtime", **more: Any) -> Any:
    headers = {"Authorization": f"Bearer {gateway.key}", "x-outlay-ticket": "PAY-7"}
    return gateway.session.ws_connect(gateway.url + path, headers=headers, **more)


async def ask(socket: aiohttp.ClientWebSocketResponse, message: Any, answers: int) -> list[Any]:
    await socket.send_str(json.dumps(message))
    return [json.loads((await socket.receive(5)).data) for _ in range(answers)]


async def test_each_response_is_a_call(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[CREATED], [BEGUN, DELTA, done(1)], [TRANSCRIBED, BEGUN, DELTA, done(2)]]
    async with started(start_gateway, provider) as gateway:
        async with connect(gateway, protocols=("realtime",)) as socket:
            assert socket.protocol == "realtime"
            assert await ask(socket, {"type": "session.update"}, 1) == [CREATED]
            assert await ask(socket, {"type": "response.create"}, 3) == [BEGUN, DELTA, done(1)]
            # The call is recorded before its last message goes out.
            assert [row["upstream_id"] for row in gateway.closed()] == ["resp_1"]
            assert await ask(socket, {"type": "response.create"}, 4) == [TRANSCRIBED, BEGUN, DELTA, done(2)]
        assert [json.loads(data)["type"] for data in provider.got] == [
            "session.update", "response.create", "response.create",
        ]  # fmt: skip
        assert provider.headers["authorization"] == "Bearer sk-the-providers-own"
        assert not [name for name in provider.headers if name.startswith("x-outlay")]
        first, second = gateway.closed()
        for row, tokens in ((first, 100), (second, 200)):
            assert (row["input_tokens"], row["output_tokens"], row["audio_output_tokens"]) == (tokens, 50, 40)
            assert (row["result"], row["usage_source"], row["status"]) == ("completed", "reported", 101)
            assert (row["response_model"], row["tickets"]) == ("gpt-realtime", ["PAY-7"])
            assert row["list_cost_nano"] > 0
        assert first["request_id"] != second["request_id"]
        assert second["other_units"]["subpass_input_tokens"] == 26
        assert second["other_cost_nano"] > 0
        assert "gpt-4o-mini-transcribe" in second["price_id"]  # named messages, and calls, before


async def test_a_session_without_a_response_costs_nothing(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[CREATED]]
    async with started(start_gateway, provider) as gateway:
        async with connect(gateway) as socket:
            await ask(socket, {"type": "session.update"}, 1)
        async with asyncio.timeout(5):
            while not gateway.closed():
                await asyncio.sleep(0.01)
        [row] = gateway.closed()
        assert (row["result"], row["list_cost_nano"], row["usage_source"]) == ("completed", 0, "none")


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_a_session_that_ends_in_a_response_leaves_its_cost_unknown(
    start_gateway: StartGateway, provider: Provider, who: str
) -> None:
    provider.batches = [[BEGUN, DELTA]]
    provider.cut_at_end = who == "upstream"
    async with started(start_gateway, provider) as gateway:
        async with connect(gateway) as socket:
            await ask(socket, {"type": "response.create"}, 2)
            if who == "upstream":
                assert (await socket.receive(5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        async with asyncio.timeout(5):
            while not gateway.closed():
                await asyncio.sleep(0.01)
        [row] = gateway.closed()
        assert row["result"] == ("client_cancelled" if who == "client" else "upstream_cut")
        assert (row["price_status"], row.get("list_cost_nano")) == ("unpriced", None)


async def test_geminis_live_form(start_gateway: StartGateway, provider: Provider) -> None:
    metadata = {
        "promptTokenCount": 1185,
        "responseTokenCount": 51,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1184}, {"modality": 4, "tokenCount": 1}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 44}],
    }
    turn = [
        json.dumps({"serverContent": {"modelTurn": {"parts": []}}}).encode(),
        json.dumps({"serverContent": {"turnComplete": True}, "usageMetadata": metadata}).encode(),
    ]
    provider.batches = [turn]
    path = "/gemini/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    async with started(start_gateway, provider) as gateway:
        async with connect(gateway, path) as socket:
            await socket.send_bytes(b'{"setup": {"model": "models/gemini-2.5-flash"}}')
            assert [(await socket.receive(5)).data for _ in turn] == turn
        [row] = gateway.closed()
        assert (row["input_tokens"], row["output_tokens"], row["audio_input_tokens"]) == (1185, 51, 1)
        assert (row["audio_output_tokens"], row["provider"]) == (44, "gcp.gemini")


async def test_refusals(start_gateway: StartGateway, provider: Provider) -> None:
    async with started(start_gateway, provider, prices=PriceSettings(policy="block")) as gateway:
        for path, key, status in [
            ("/v1/realtime?model=gpt-realtime", "olk_wrong", 401),
            ("/v1/realtime?model=nobody-knows-this-1", gateway.key, 400),
        ]:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await gateway.session.ws_connect(gateway.url + path, headers={"Authorization": f"Bearer {key}"})
            assert refused.value.status == status
            assert refused.value.headers is not None
            assert "x-outlay-refusal" in refused.value.headers
    async with started(start_gateway, provider) as gateway:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(gateway, "/v1/realtime?model=refused")
        assert refused.value.status == 403
        provider.url = "http://127.0.0.1:9"
    async with started(start_gateway, provider) as gateway:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(gateway)
        assert refused.value.status == 502


async def test_a_gateway_that_stops_ends_its_sessions(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[BEGUN]]
    async with started(start_gateway, provider) as gateway:
        socket = await connect(gateway)
        await ask(socket, {"type": "response.create"}, 1)
    [row] = gateway.closed()
    assert row["result"] in ("interrupted", "client_cancelled")
    assert gateway.records()[-1]["e"] == "end"


async def test_a_provider_that_is_lost_is_no_clean_end(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[BEGUN]]
    provider.cut_at_end = True
    async with started(start_gateway, provider) as gateway:
        async with connect(gateway) as socket:
            await socket.send_str(json.dumps({"type": "response.create"}))
            with contextlib.suppress(ConnectionError):
                for _ in range(2000):  # a client that sends all the time
                    await socket.send_str(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 100}))
            while not socket.closed:
                await socket.receive(5)
            assert socket.close_code == 1006
        async with asyncio.timeout(5):
            while not gateway.closed():
                await asyncio.sleep(0.01)
        assert [row["result"] for row in gateway.closed()] == ["upstream_cut"]


async def test_each_side_ends_as_the_other(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[CREATED]]
    async with started(start_gateway, provider) as gateway:
        socket = await connect(gateway)
        assert socket._response.headers["Server"] == "outlay"
        await ask(socket, {"type": "session.update"}, 1)
        await socket.close(code=4000, message=b"bye")
        await asyncio.wait_for(provider.ended.wait(), 5)
        assert provider.close_code == 4000


async def test_keys_in_subprotocols_open_sessions_and_go_no_further(
    start_gateway: StartGateway, provider: Provider
) -> None:
    provider.batches = [[CREATED]]
    async with started(start_gateway, provider) as gateway:
        url, key = gateway.url + "/v1/realtime?model=gpt-realtime", f"openai-insecure-api-key.{gateway.key}"
        async with gateway.session.ws_connect(url, protocols=("realtime", key)) as socket:
            assert await ask(socket, {"type": "session.update"}, 1) == [CREATED]
        assert provider.headers["sec-websocket-protocol"] == "realtime"
        assert gateway.key not in str(provider.headers)


async def test_a_session_names_no_model_that_its_key_may_not_use(
    start_gateway: StartGateway, provider: Provider
) -> None:
    provider.batches = [[CREATED], [CREATED]]
    async with started(start_gateway, provider) as gateway:
        _, key = Keys(gateway.dir).create(models=("gpt-realtime*", "gpt-4o-mini-transcribe"))
        headers = {"Authorization": f"Bearer {key}"}
        for path in ("/v1/realtime?model=gpt-5-realtime", "/v1/realtime"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await gateway.session.ws_connect(gateway.url + path, headers=headers)
            assert refused.value.status == 403
        async with gateway.session.ws_connect(
            gateway.url + "/v1/realtime?model=gpt-realtime", headers=headers
        ) as socket:
            mine = {"type": "session.update", "session": {"audio": TRANSCRIPTION}}
            assert await ask(socket, mine, 1) == [CREATED]
            audio = {"input": {"transcription": {"model": "whisper-1"}}}
            await socket.send_str(json.dumps({"type": "session.update", "session": {"audio": audio}}))
            end = await socket.receive(5)
            assert end.type is aiohttp.WSMsgType.CLOSE
            assert "may not use this model" in end.extra
        assert [json.loads(message) for message in provider.got] == [mine]


async def test_a_session_hides_no_model_in_what_cannot_be_read(start_gateway: StartGateway, provider: Provider) -> None:
    async with started(start_gateway, provider) as gateway:
        _, key = Keys(gateway.dir).create(models=("gpt-realtime",))
        url, headers = gateway.url + "/v1/realtime?model=gpt-realtime", {"Authorization": f"Bearer {key}"}
        async with gateway.session.ws_connect(url, headers=headers) as socket:
            await socket.send_str('{"type":"session.update","session":{"model":"o9"},"event_id":"\\ud800"}')
            end = await socket.receive(5)
            assert (end.type, "not strict JSON" in end.extra) == (aiohttp.WSMsgType.CLOSE, True)
        assert provider.got == []


async def test_a_session_ends_with_its_budget(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[BEGUN, DELTA, done(2000)] for _ in range(20)]
    budgets = {"talk": BudgetTable(scope="org", limit_usd=Decimal(4))}
    async with started(start_gateway, provider, budgets=budgets) as gateway:
        async with connect(gateway) as socket:
            answered = 0
            while answered < 20:
                await socket.send_str(json.dumps({"type": "response.create"}))
                told = [await socket.receive(5)]
                if told[0].type is aiohttp.WSMsgType.CLOSE:
                    break
                told += [await socket.receive(5), await socket.receive(5)]
                answered += 1
            assert (told[0].data, "talk" in told[0].extra) == (1008, True)
        assert 0 < answered < 20
        assert len(provider.got) == answered
        async with gateway.session.ws_connect(
            gateway.url + "/v1/realtime?model=gpt-realtime", headers={"Authorization": f"Bearer {gateway.key}"}
        ) as socket:
            await socket.send_str(json.dumps({"type": "response.create"}))
            assert (await socket.receive(5)).data == 1008


async def test_a_session_ends_with_its_key(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[CREATED], [BEGUN, DELTA, done(1)]]
    async with started(start_gateway, provider) as gateway:
        ring = Keys(gateway.dir)
        event, key = ring.create()
        url = gateway.url + "/v1/realtime?model=gpt-realtime"
        async with gateway.session.ws_connect(url, headers={"Authorization": f"Bearer {key}"}) as socket:
            assert await ask(socket, {"type": "session.update"}, 1) == [CREATED]
            ring.revoke(event.key_id)
            await socket.send_str(json.dumps({"type": "response.create"}))
            end = await socket.receive(5)
            assert (end.type, "is revoked" in end.extra) == (aiohttp.WSMsgType.CLOSE, True)
        assert len(provider.got) == 1
