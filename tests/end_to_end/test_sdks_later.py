"""The providers' own SDKs, unmodified, where the usage comes later or over a socket: background work, batches,
pictures, sound, realtime sessions."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import types

from gateway.config import Upstream
from tests.conftest import PROVIDER_KEY, Running, StartGateway
from tests.fakes.upstream import whole
from tests.test_late import CHAT, DONE, GEMINI, MESSAGE, QUEUED, lines
from tests.test_realtime import BEGUN, CREATED, Provider, done, provider

__all__ = ["provider"]


@pytest.fixture
async def openai_sdk(gateway: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0) as sdk:
        yield sdk


async def test_openai_background(gateway: Running, openai_sdk: openai.AsyncOpenAI) -> None:
    gateway.upstream.answer(whole({**QUEUED, "output": []}), whole({**DONE, "output": []}))
    started = await openai_sdk.responses.create(model="gpt-5.6-sol", input="Why?", background=True)
    ended = await openai_sdk.responses.retrieve(started.id)
    assert ended.usage is not None
    [correction] = [record for record in gateway.records() if record["e"] == "correct"]
    assert correction["output_tokens"] == ended.usage.output_tokens == 200


async def test_openai_batch(gateway: Running, openai_sdk: openai.AsyncOpenAI) -> None:
    batch = {"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "status": "completed"}
    batch |= {"input_file_id": "file-1", "output_file_id": "file-2", "completion_window": "24h", "created_at": 1}
    file = {"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "x", "purpose": "batch"}
    results = lines(*({"id": f"b{i}", "response": {"body": {**CHAT, "id": f"c{i}"}}} for i in range(2)))
    gateway.upstream.answer(whole(file), whole(batch), whole(batch), whole(results))
    uploaded = await openai_sdk.files.create(file=b"{}\n", purpose="batch")
    started = await openai_sdk.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h",
        extra_headers={"x-outlay-ticket": "PAY-7"},
    )  # fmt: skip
    polled = await openai_sdk.batches.retrieve(started.id)
    assert polled.output_file_id is not None
    for _ in range(2):
        content = await openai_sdk.files.content(polled.output_file_id)
        assert content.content == results
    [row] = gateway.closed()
    assert (row["operation"], row["tickets"], row["input_tokens"]) == ("batch", ["PAY-7"], 2000)


async def test_openai_pictures_and_sound(gateway: Running, openai_sdk: openai.AsyncOpenAI) -> None:
    usage = {"input_tokens": 10, "output_tokens": 4160, "total_tokens": 4170,
             "input_tokens_details": {"image_tokens": 0, "text_tokens": 10}}  # fmt: skip
    gateway.upstream.answer(
        whole({"created": 1, "data": [{"b64_json": "aGk="}], "usage": usage}),
        whole(b"ID3 sound", headers=[("Content-Type", "audio/mpeg")]),
        whole({"text": "hello", "usage": {"type": "duration", "seconds": 6}}),
    )
    picture = await openai_sdk.images.generate(model="gpt-image-1.5", prompt="a lighthouse")
    assert picture.usage is not None
    speech = await openai_sdk.audio.speech.create(model="tts-1", input="hello there", voice="alloy")
    assert speech.content == b"ID3 sound"
    said = await openai_sdk.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"\x00" * 100_000))
    assert said.text == "hello"
    made, spoken, heard = gateway.closed()
    assert (made["output_tokens"], made["usage_source"], made["request_model"]) == (4160, "reported", "gpt-image-1.5")
    assert (spoken["other_units"], spoken["usage_source"]) == ({"characters": 11.0}, "estimated")
    assert (heard["other_units"], heard["usage_source"], heard["request_model"]) == (
        {"seconds": 6.0}, "reported", "whisper-1",
    )  # fmt: skip
    assert all(row["list_cost_nano"] > 0 for row in (made, spoken, heard))


async def test_openai_realtime(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[CREATED], [BEGUN, done(1)]]
    to = Upstream(base_url=provider.url, provider="openai", credential="env:PROVIDER_KEY")
    async with start_gateway(upstreams={"openai": to}) as gateway:
        sdk = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.key)
        async with sdk, sdk.realtime.connect(model="gpt-realtime") as session:
            await session.session.update(session={"type": "realtime"})
            await session.response.create()
            kinds = [(await session.recv()).type for _ in range(3)]
        assert kinds == ["session.created", "response.created", "response.done"]
        [row] = gateway.closed()
        assert (row["response_model"], row["output_tokens"], row["usage_source"]) == ("gpt-realtime", 50, "reported")


async def test_anthropic_batch(gateway: Running) -> None:
    batch = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended",
             "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results"}  # fmt: skip
    result = {
        "custom_id": "1",
        "result": {"type": "succeeded", "message": {**MESSAGE, "role": "assistant", "content": []}},
    }
    gateway.upstream.answer(whole(batch), whole(batch), whole(lines(result), headers=[("x-a", "b")]))
    request: Any = {"custom_id": "1", "params": {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": []}}
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as sdk:
        started = await sdk.messages.batches.create(requests=[request])
        assert gateway.closed() == []
        results = [entry async for entry in await sdk.messages.batches.results(started.id)]
    assert results[0].result.type == "succeeded"
    [row] = gateway.closed()
    assert (row["operation"], row["output_tokens"]) == ("batch", 100)
    assert "#batch" in row["price_id"]


async def test_what_googles_sdk_asks_for_goes_to_google(gateway: Running) -> None:
    """Given a base URL, it asks for `/v1/`, where OpenAI has some of the same names."""
    gateway.upstream.answer(whole({"name": "x"}))
    async with httpx.AsyncClient() as transport:
        options = types.HttpOptions(base_url=gateway.url, httpx_async_client=transport)
        sdk = genai.Client(api_key=gateway.key, http_options=options).aio
        await sdk.caches.create(model="gemini-3.5-flash", config={"contents": "hi"})
        await sdk.caches.get(name="cachedContents/c1")
        await sdk.files.get(name="files/f1")
        await sdk.files.delete(name="files/f1")
        await sdk.batches.get(name="batches/b1")
        await sdk.batches.cancel(name="batches/b1")
        await sdk.batches.delete(name="batches/b1")
        await sdk.file_search_stores.get(name="fileSearchStores/s1")
        await sdk.models.get(model="gemini-3.5-flash")
        [_ async for _ in await sdk.models.list()]
        await sdk.interactions.create(model="gemini-3.5-flash", input="hi")
    assert len(gateway.upstream.requests) == 11
    for request in gateway.upstream.requests:
        assert request.target.startswith("/v1/")
        assert request.header("x-goog-api-key") == PROVIDER_KEY, request.target
        assert request.header("authorization") is None, request.target


async def test_gemini_batch(gateway: Running) -> None:
    inlined = {"inlinedResponses": [{"response": GEMINI}]}
    metadata = {"state": "BATCH_STATE_SUCCEEDED", "output": {"inlinedResponses": inlined}}
    job = {"name": "batches/b1", "metadata": metadata, "done": True, "response": {"inlinedResponses": inlined}}
    gateway.upstream.answer(whole(job))
    async with httpx.AsyncClient() as transport:
        options = types.HttpOptions(base_url=gateway.url, httpx_async_client=transport)
        sdk = genai.Client(api_key=gateway.key, http_options=options).aio
        for _ in range(2):
            assert (await sdk.batches.get(name="batches/b1")).name == "batches/b1"
    [row] = gateway.closed()
    assert (row["operation"], row["input_tokens"], row["output_tokens"]) == ("batch", 1000, 100)
