"""The providers' own SDKs, unmodified, through the gateway: whole and streamed, with tools. What the gateway records is
what the provider billed, and the bytes that left the SDK are the bytes that the provider got."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from analytics.simulated.providers import PROVIDERS, SimulatedProviders
from gateway import app, ledger
from gateway.config import Config, LedgerSettings, Server, Upstream
from gateway.keys import Keys

PARAMETERS: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
USAGE = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")


@dataclass
class World:
    """SDKs, gateway and providers on one machine."""

    url: str
    key: str
    dir: Path
    providers: SimulatedProviders
    sent: list[httpx.Request | httpx2.Request]
    transport: httpx.AsyncClient
    transport2: httpx2.AsyncClient

    def rows(self) -> list[dict[str, Any]]:
        found = [r for path in sorted((self.dir / "journal").glob("*.jsonl")) for r in ledger.records(path)]
        return [record for record in found if record["e"] == "close"]

    def check(self) -> dict[str, Any]:
        """The one call that was made: recorded as served, and forwarded as sent."""
        [row], served = self.rows(), self.providers.served[-1]
        assert (row["result"], row["status"], row["usage_source"]) == ("completed", 200, "reported")
        assert (row["response_model"], row["dialect"]) == (served.model, served.dialect)
        assert {name: row.get(name) or 0 for name in USAGE} == {name: getattr(served.billed, name) for name in USAGE}
        assert row["list_cost_nano"] > 0
        [sent], received = self.sent, self.providers.requests[-1]
        assert received.body == sent.content
        return row


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    sent: list[httpx.Request | httpx2.Request] = []

    async def remember(request: httpx.Request | httpx2.Request) -> None:
        sent.append(request)

    async with contextlib.AsyncExitStack() as stack:
        providers = await stack.enter_async_context(SimulatedProviders(record=True))
        upstreams = {}
        for name, provider in {"openai": "openai", "anthropic": "anthropic", "gemini": "gcp.gemini"}.items():
            monkeypatch.setenv(f"SIMULATED_{name.upper()}", PROVIDERS[name].credential)
            upstreams[name] = Upstream(
                base_url=providers.base_url(name), provider=provider, credential=f"env:SIMULATED_{name.upper()}"
            )
        config = Config(
            server=Server(port=0, drain_seconds=1.0), ledger=LedgerSettings(dir=str(tmp_path)), upstreams=upstreams
        )
        host, port = await stack.enter_async_context(app.gateway(config))
        transport = await stack.enter_async_context(httpx.AsyncClient(event_hooks={"request": [remember]}))
        transport2 = await stack.enter_async_context(httpx2.AsyncClient(event_hooks={"request": [remember]}))
        _, key = Keys(tmp_path).create(team_id="payments")
        yield World(f"http://{host}:{port}", key, tmp_path, providers, sent, transport, transport2)


@pytest.fixture
def openai_sdk(world: World) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=world.url + "/v1", api_key=world.key, http_client=world.transport2, max_retries=0
    )


@pytest.fixture
def anthropic_sdk(world: World) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=world.url, api_key=world.key, http_client=world.transport2, max_retries=0)


@pytest.fixture
def gemini_sdk(world: World) -> Any:
    options = types.HttpOptions(base_url=world.url, httpx_async_client=world.transport)
    return genai.Client(api_key=world.key, http_options=options).aio


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Why does this round twice?"}], **changes}


async def test_openai_chat(world: World, openai_sdk: openai.AsyncOpenAI) -> None:
    answer = await openai_sdk.chat.completions.create(**chat())
    row = world.check()
    assert answer.usage.prompt_tokens == row["input_tokens"]
    assert row["client"] == "openai-python"


async def test_openai_chat_stream_that_asks_for_usage(world: World, openai_sdk: openai.AsyncOpenAI) -> None:
    stream = await openai_sdk.chat.completions.create(**chat(stream=True, stream_options={"include_usage": True}))
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.completion_tokens == world.check()["output_tokens"]


async def test_openai_chat_stream_that_does_not(world: World, openai_sdk: openai.AsyncOpenAI) -> None:
    stream = await openai_sdk.chat.completions.create(**chat(stream=True))
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    [row], served = world.rows(), world.providers.served[-1]
    assert (row["usage_source"], row["output_tokens"]) == ("reported", served.billed.output_tokens)


async def test_openai_chat_tool(world: World, openai_sdk: openai.AsyncOpenAI) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    answer = await openai_sdk.chat.completions.create(**chat(tools=[tool], tool_choice="required"))
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"
    assert world.check()["tool_count"] == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_responses(world: World, openai_sdk: openai.AsyncOpenAI, stream: bool) -> None:
    answer: Any = await openai_sdk.responses.create(model="gpt-5.6-sol", input="Why?", stream=stream)
    if stream:
        answer = [event async for event in answer][-1].response
    row = world.check()
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (row["input_tokens"], row["output_tokens"])


async def test_openai_embeddings(world: World, openai_sdk: openai.AsyncOpenAI) -> None:
    answer = await openai_sdk.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert len(answer.data) == 2
    assert world.check()["operation"] == "embeddings"


def message(**changes: Any) -> dict[str, Any]:
    return {
        "model": "claude-haiku-4-5", "max_tokens": 2000, "messages": [{"role": "user", "content": "Why?"}], **changes,
    }  # fmt: skip


async def test_anthropic_messages(world: World, anthropic_sdk: anthropic.AsyncAnthropic) -> None:
    answer = await anthropic_sdk.messages.create(**message())
    assert answer.usage.output_tokens == world.check()["output_tokens"]


async def test_anthropic_stream_with_a_tool_and_the_cache(
    world: World, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    system = [{"type": "text", "text": "Round half to even. " * 800, "cache_control": {"type": "ephemeral"}}]
    tools = [{"name": "weather", "input_schema": PARAMETERS}]
    async with anthropic_sdk.messages.stream(
        **message(system=system, tools=tools, tool_choice={"type": "any"})
    ) as stream:
        final = await stream.get_final_message()
    assert final.stop_reason == "tool_use"
    row = world.check()
    assert row["cache_write_input_tokens"] == final.usage.cache_creation_input_tokens != 0


async def test_anthropic_counting_is_free(world: World, anthropic_sdk: anthropic.AsyncAnthropic) -> None:
    counted = await anthropic_sdk.messages.count_tokens(
        model="claude-haiku-4-5", messages=[{"role": "user", "content": "Why?"}]
    )
    assert counted.input_tokens > 0
    assert world.rows() == []


async def test_gemini(world: World, gemini_sdk: Any) -> None:
    answer = await gemini_sdk.models.generate_content(model="gemini-3.5-flash-lite", contents="Why?")
    assert answer.text
    assert answer.usage_metadata.prompt_token_count == world.check()["input_tokens"]


async def test_gemini_stream(world: World, gemini_sdk: Any) -> None:
    stream = await gemini_sdk.models.generate_content_stream(model="gemini-3.5-flash-lite", contents="Why?")
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text or "" for chunk in chunks)
    world.check()


async def test_refusals_stop_each_sdk_with_the_message(
    world: World, openai_sdk: openai.AsyncOpenAI, anthropic_sdk: anthropic.AsyncAnthropic, gemini_sdk: Any
) -> None:
    """With the SDKs' own retries switched on: one request each, and the reason is in the exception."""
    ring = Keys(world.dir)
    ring.revoke(ring.all()[0].created.key_id)
    with pytest.raises(openai.AuthenticationError, match="is revoked"):
        await openai_sdk.with_options(max_retries=2).chat.completions.create(**chat())
    with pytest.raises(anthropic.AuthenticationError, match="is revoked"):
        await anthropic_sdk.with_options(max_retries=2).messages.create(**message())
    with pytest.raises(genai.errors.ClientError, match="is revoked"):
        await gemini_sdk.models.generate_content(model="gemini-3.5-flash-lite", contents="Why?")
    assert len(world.sent) == 3
    assert world.providers.requests == []
