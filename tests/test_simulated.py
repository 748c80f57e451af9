"""The simulated providers, asked by the providers' own SDKs: all is parsed, and usage is what was billed."""

import asyncio
import base64
import contextlib
import json
import random
import re
import socket
import sys
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from click.testing import CliRunner
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.demo import MARKER, demo, fresh_folder
from analytics.simulated import anthropic_messages, gemini_generate, openai_chat, openai_responses
from analytics.simulated.people import PEOPLE, Organisation
from analytics.simulated.providers import PROVIDERS, Served, SimulatedProviders
from analytics.simulated.turns import Billed, Prompt, PromptCache, Segment, Tool, Turn, answer, pieces, prose
from analytics.story import GAMING_TEAM
from gateway.config import Upstream, load
from gateway.errors import UserError
from gateway.keys import Keys
from tests.conftest import StartGateway

WEATHER: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}
LONG = prose(random.Random(5), 3_000)


@pytest.fixture
async def providers() -> AsyncIterator[SimulatedProviders]:
    async with SimulatedProviders() as running:
        yield running


@pytest.fixture
async def openai_sdk(providers: SimulatedProviders) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(providers) as client:
        yield client


@pytest.fixture
async def anthropic_sdk(providers: SimulatedProviders) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic_client(providers) as client:
        yield client


@pytest.fixture
async def gemini_sdk(providers: SimulatedProviders) -> AsyncIterator[Any]:
    async with gemini_client(providers) as client:
        yield client


def openai_client(providers: SimulatedProviders, key: str = PROVIDERS["openai"].credential) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=providers.base_url("openai") + "/v1", api_key=key, max_retries=0)


def anthropic_client(
    providers: SimulatedProviders, key: str = PROVIDERS["anthropic"].credential
) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=providers.base_url("anthropic"), api_key=key, max_retries=0)


@contextlib.asynccontextmanager
async def gemini_client(providers: SimulatedProviders, key: str = PROVIDERS["gemini"].credential) -> AsyncIterator[Any]:
    # With httpx: its other transport uses aiohttp in a way that aiohttp warns of.
    async with httpx.AsyncClient() as transport:
        options = types.HttpOptions(base_url=providers.base_url("gemini"), httpx_async_client=transport)
        async with genai.Client(api_key=key, http_options=options).aio as client:
            yield client


def the_last(providers: SimulatedProviders) -> Served:
    return providers.served[-1]


# -- OpenAI -------------------------------------------------------------------------------------------------------


async def test_chat_usage_is_what_was_billed(providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI) -> None:
    answered = await openai_sdk.chat.completions.create(
        model="gpt-5.4-mini", messages=[{"role": "user", "content": "Why does this round twice?"}]
    )
    served = the_last(providers)
    assert (answered.id, answered.model) == (served.upstream_id, "gpt-5.4-mini-2026-03-17")
    assert answered.choices[0].finish_reason == "stop"
    assert answered.usage is not None
    assert answered.usage.completion_tokens_details is not None
    assert answered.usage.prompt_tokens == served.billed.input_tokens > 0
    assert answered.usage.completion_tokens == served.billed.output_tokens > 0
    assert answered.usage.total_tokens == served.billed.input_tokens + served.billed.output_tokens
    assert answered.usage.completion_tokens_details.reasoning_tokens == served.billed.reasoning_output_tokens > 0


@pytest.mark.parametrize("include", [True, False])
async def test_chat_stream_reports_usage_only_when_asked(
    providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI, include: bool
) -> None:
    stream = await openai_sdk.chat.completions.create(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": "Why?"}],
        stream=True,
        stream_options={"include_usage": include},
    )
    chunks = [chunk async for chunk in stream]
    reported = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    if include:
        assert chunks[-1].choices == []
        assert [usage.completion_tokens for usage in reported] == [the_last(providers).billed.output_tokens]
    else:
        assert reported == []
        assert chunks[-1].choices[0].finish_reason == "stop"


async def test_chat_tool_call_streamed(openai_sdk: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    async with openai_sdk.chat.completions.stream(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": "Weather?"}],
        tools=[tool],
        tool_choice="required",
    ) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert final.choices[0].finish_reason == "tool_calls"
    assert calls is not None
    assert json.loads(calls[0].function.arguments)["unit"] in ("celsius", "fahrenheit")


async def test_responses_events_are_numbered_and_end_with_usage(
    providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI
) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    async with openai_sdk.responses.stream(
        model="gpt-5.6-sol", input="Weather? " + LONG, tools=[tool], tool_choice="required"
    ) as stream:
        events: list[Any] = [event async for event in stream]
        final = await stream.get_final_response()
    served = the_last(providers)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert final.usage is not None
    assert final.usage.input_tokens == served.billed.input_tokens
    assert final.usage.output_tokens == served.billed.output_tokens
    assert final.usage.input_tokens_details.cache_write_tokens == served.billed.cache_write_input_tokens > 1024
    assert final.usage.output_tokens_details.reasoning_tokens == served.billed.reasoning_output_tokens


async def test_responses_stop_at_the_limit(providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI) -> None:
    answered = await openai_sdk.responses.create(model="gpt-5.4-mini", input="Write a lot.", max_output_tokens=16)
    assert answered.status == "incomplete"
    assert answered.usage is not None
    assert answered.usage.output_tokens == 16 == the_last(providers).billed.output_tokens


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI, encoding: Any) -> None:
    answered = await openai_sdk.embeddings.create(
        model="text-embedding-3-small", input=["one text", "and another"], encoding_format=encoding, dimensions=8
    )
    vectors: list[Any] = [each.embedding for each in answered.data]
    if encoding == "base64":
        vectors = [list(array("f", base64.b64decode(vector))) for vector in vectors]
    assert [len(vector) for vector in vectors] == [8, 8]
    assert answered.usage.total_tokens == the_last(providers).billed.input_tokens == 5


async def test_a_repeated_prefix_is_read_from_the_cache(
    providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI
) -> None:
    messages: list[Any] = [{"role": "system", "content": LONG}, {"role": "user", "content": "First."}]
    await openai_sdk.chat.completions.create(model="gpt-5.4-mini", messages=messages)
    assert the_last(providers).billed.cache_read_input_tokens == 0
    more = [*messages, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Second."}]
    answered = await openai_sdk.chat.completions.create(model="gpt-5.4-mini", messages=more)
    assert answered.usage is not None
    assert answered.usage.prompt_tokens_details is not None
    cached = answered.usage.prompt_tokens_details.cached_tokens
    assert cached == the_last(providers).billed.cache_read_input_tokens
    assert cached is not None
    assert cached >= 2_944
    assert cached % 128 == 0


# -- Anthropic ----------------------------------------------------------------------------------------------------


async def test_messages_cache_writes_then_reads(
    providers: SimulatedProviders, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    long_lived: Any = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    question: Any = {"type": "text", "text": "Why? " + LONG, "cache_control": {"type": "ephemeral"}}

    async def ask(*more: Any) -> anthropic.types.Usage:
        answered = await anthropic_sdk.messages.create(
            model="claude-sonnet-5",
            max_tokens=500,
            system=[long_lived],
            messages=[{"role": "user", "content": [question]}, *more],
        )
        return answered.usage

    first = await ask()
    billed = the_last(providers).billed
    assert first.cache_creation is not None
    assert first.cache_read_input_tokens == 0
    assert first.cache_creation_input_tokens == billed.cache_write_input_tokens == billed.input_tokens
    assert first.cache_creation.ephemeral_1h_input_tokens == billed.cache_write_1h_input_tokens > 2_900
    assert first.cache_creation.ephemeral_5m_input_tokens > 2_900
    second = await ask({"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"})
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0
    assert second.input_tokens == the_last(providers).billed.input_tokens - (second.cache_read_input_tokens or 0) > 0


async def test_messages_stream_with_thinking_and_a_tool(
    providers: SimulatedProviders, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    async with anthropic_sdk.messages.stream(
        model="claude-haiku-4-5",
        max_tokens=2_000,
        thinking={"type": "enabled", "budget_tokens": 1_024},
        tools=[{"name": "weather", "input_schema": WEATHER}],
        tool_choice={"type": "any"},
        messages=[{"role": "user", "content": "Weather?"}],
    ) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    served = the_last(providers)
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
    assert final.stop_reason == "tool_use"
    assert (final.id, final.model) == (served.upstream_id, "claude-haiku-4-5-20251001")
    assert final.usage.input_tokens == served.billed.input_tokens
    assert final.usage.output_tokens == served.billed.output_tokens


async def test_messages_count_tokens_as_they_are_billed_and_are_free(
    providers: SimulatedProviders, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    messages: list[Any] = [{"role": "user", "content": LONG}]
    counted = await anthropic_sdk.messages.count_tokens(model="claude-sonnet-5", messages=messages)
    assert not providers.served
    answered = await anthropic_sdk.messages.create(model="claude-sonnet-5", max_tokens=20, messages=messages)
    assert counted.input_tokens == answered.usage.input_tokens
    assert answered.stop_reason == "max_tokens"


# -- Gemini -------------------------------------------------------------------------------------------------------


def gemini_total(usage: Any) -> int:
    parts = (
        usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count,
        usage.tool_use_prompt_token_count,
    )  # fmt: skip
    return sum(part or 0 for part in parts)


async def test_gemini_stream_usage_grows_and_adds_up(providers: SimulatedProviders, gemini_sdk: Any) -> None:
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    stream = await gemini_sdk.models.generate_content_stream(
        model="gemini-3.5-flash", contents="Why does it round?", config=config
    )
    usages = [chunk.usage_metadata async for chunk in stream]
    billed = the_last(providers).billed
    totals = [usage.total_token_count for usage in usages]
    assert len(usages) > 2
    assert totals == sorted(totals)
    assert totals == [gemini_total(usage) for usage in usages]
    assert totals[-1] == billed.input_tokens + billed.output_tokens
    assert usages[-1].thoughts_token_count == billed.reasoning_output_tokens


async def test_gemini_fetched_pages_are_input_beside_the_prompt(providers: SimulatedProviders, gemini_sdk: Any) -> None:
    config = types.GenerateContentConfig(tools=[types.Tool(url_context=types.UrlContext())])
    answered = await gemini_sdk.models.generate_content(
        model="gemini-3.5-flash", contents="Read https://example.org", config=config
    )
    billed = the_last(providers).billed
    usage = answered.usage_metadata
    assert usage.tool_use_prompt_token_count == billed.tool_use_prompt_tokens >= 1_000
    assert usage.prompt_token_count + usage.tool_use_prompt_token_count == billed.input_tokens
    assert usage.total_token_count == gemini_total(usage)


async def test_gemini_function_call(gemini_sdk: Any) -> None:
    declared = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    forced = types.ToolConfig(
        function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
    )
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        tool_config=forced,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    answered = await gemini_sdk.models.generate_content(
        model="gemini-3.5-flash-lite", contents="Weather?", config=config
    )
    assert answered.function_calls[0].args["unit"] in ("celsius", "fahrenheit")


async def test_gemini_embeddings_and_token_counts(providers: SimulatedProviders, gemini_sdk: Any) -> None:
    counted = await gemini_sdk.models.count_tokens(model="gemini-3.5-flash", contents="How many?")
    assert counted.total_tokens > 0
    assert not providers.served
    answered = await gemini_sdk.models.embed_content(
        model="gemini-embedding-001",
        contents=["one", "two"],
        config=types.EmbedContentConfig(output_dimensionality=4),
    )
    assert [len(each.values) for each in answered.embeddings] == [4, 4]
    assert the_last(providers).billed.input_tokens == 2


async def test_gemini_stream_without_alt_sse_is_one_json_array(providers: SimulatedProviders) -> None:
    async with httpx.AsyncClient() as client:
        answered = await client.post(
            providers.base_url("gemini") + "/v1beta/models/gemini-3.5-flash:streamGenerateContent",
            headers={"x-goog-api-key": PROVIDERS["gemini"].credential},
            json={"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]},
        )
    chunks = answered.json()
    assert len(chunks) > 1
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    billed = the_last(providers).billed
    assert chunks[-1]["usageMetadata"]["totalTokenCount"] == billed.input_tokens + billed.output_tokens


# -- errors -------------------------------------------------------------------------------------------------------


async def test_a_foreign_credential_is_refused_in_the_providers_own_shape(providers: SimulatedProviders) -> None:
    async with openai_client(providers, "sk-other") as client:
        with pytest.raises(openai.AuthenticationError, match="invalid API key"):
            await client.models.list()
    async with anthropic_client(providers, "sk-other") as other:
        with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
            await other.models.list()
    async with gemini_client(providers, "other") as gemini:
        with pytest.raises(genai_errors.ClientError, match="UNAUTHENTICATED"):
            await gemini.models.generate_content(model="gemini-3.5-flash", contents="Hi")


async def test_each_provider_lists_its_models(
    openai_sdk: openai.AsyncOpenAI, anthropic_sdk: anthropic.AsyncAnthropic, gemini_sdk: Any
) -> None:
    assert "gpt-5.4-mini" in [model.id async for model in openai_sdk.models.list()]
    assert "claude-sonnet-5" in [model.id async for model in anthropic_sdk.models.list()]
    assert "models/gemini-3.5-flash" in [model.name async for model in await gemini_sdk.models.list()]


async def test_unknown_models_and_bad_requests(
    openai_sdk: openai.AsyncOpenAI, anthropic_sdk: anthropic.AsyncAnthropic
) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-0"):
        await openai_sdk.chat.completions.create(model="gpt-0", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.BadRequestError, match="empty array"):
        await openai_sdk.chat.completions.create(model="gpt-5.4-mini", messages=[])
    with pytest.raises(anthropic.BadRequestError, match="invalid_request_error"):
        await anthropic_sdk.messages.create(model="claude-sonnet-5", max_tokens=0, messages=[])


STREAMS: list[tuple[str, str, dict[str, Any]]] = [
    ("openai", "/v1/chat/completions", {"model": "gpt-5.4-mini", "stream": True}),
    ("openai", "/v1/responses", {"model": "gpt-5.4-mini", "stream": True}),
    ("anthropic", "/v1/messages", {"model": "claude-haiku-4-5", "max_tokens": 50, "stream": True}),
    ("gemini", "/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse", {}),
    ("gemini", "/v1beta/models/gemini-3.5-flash:streamGenerateContent", {}),
]


def question(text: str) -> dict[str, Any]:
    """The same question in every format."""
    said = [{"role": "user", "content": text}]
    return {"messages": said, "input": said, "contents": [{"role": "user", "parts": [{"text": text}]}]}


@pytest.mark.parametrize(("name", "path", "fields"), STREAMS)
async def test_every_kind_of_failure_happens_and_is_told_apart(name: str, path: str, fields: dict[str, Any]) -> None:
    key = PROVIDERS[name].credential
    headers = {"Authorization": f"Bearer {key}", "x-goog-api-key": key}
    outcomes: Counter[str] = Counter()
    async with SimulatedProviders(error_rate=0.8) as failing, httpx.AsyncClient(headers=headers) as client:
        for number in range(100):
            try:
                answered = await client.post(failing.base_url(name) + path, json=fields | question(f"Try {number}"))
            except httpx.RemoteProtocolError:
                outcomes["cut"] += 1
                continue
            if answered.status_code != 200:
                assert "error" in answered.json()
                assert answered.headers.get("retry-after") == (
                    "1" if answered.status_code == 429 and name != "gemini" else None
                )
                outcomes["error"] += 1
            else:
                tail = answered.text[-1_500:]
                failed = '"error":{' in tail.replace(" ", "").replace("\n", "")
                outcomes["error_event" if failed else "completed"] += 1
    assert outcomes == Counter(served.ended for served in failing.served)
    assert outcomes.keys() == {"completed", "error", "error_event", "cut"}
    broken = [served.billed for served in failing.served if served.ended in ("cut", "error_event")]
    assert all(billed.input_tokens > 0 for billed in broken)
    assert any(billed.output_tokens > 0 for billed in broken)
    assert all(served.billed == Billed(0) for served in failing.served if served.ended == "error")


async def test_a_client_that_leaves_is_billed_for_what_was_said_until_then() -> None:
    async with SimulatedProviders(tokens_per_second=50) as slow:
        async with openai_client(slow) as client:
            stream = await client.chat.completions.create(
                model="gpt-4.1-mini", messages=[{"role": "user", "content": LONG}], stream=True
            )
            await anext(aiter(stream))
            await stream.close()
        while not slow.served:
            await asyncio.sleep(0.01)
    assert the_last(slow).ended == "client_left"
    assert the_last(slow).billed.input_tokens > 2_900


# -- the tally, the record, the seed ------------------------------------------------------------------------------


async def test_the_tally_adds_up(providers: SimulatedProviders, openai_sdk: openai.AsyncOpenAI) -> None:
    for text in ("one", "two", "three"):
        await openai_sdk.responses.create(model="gpt-5.4-mini", input=text)
    async with httpx.AsyncClient() as client:
        tally = (await client.get(f"{providers.url}/__served")).json()
    (total,) = tally["totals"]
    assert (total["calls"], total["ended"], total["dialect"]) == (3, "completed", "openai_responses")
    assert total["output_tokens"] == sum(served["billed"]["output_tokens"] for served in tally["served"])


async def test_requests_are_recorded_byte_for_byte() -> None:
    body = b'{ "model":"gpt-5.4-mini",  "messages":[{"role":"user","content":"\xc3\xa9"}] }'
    async with SimulatedProviders(record=True) as recording, httpx.AsyncClient() as client:
        key = PROVIDERS["openai"].credential
        headers = {"Authorization": f"Bearer {key}", "X-Odd-Case": "kept"}
        await client.post(recording.base_url("openai") + "/v1/chat/completions?a=%3A", content=body, headers=headers)
    (received,) = recording.requests
    assert (received.method, received.body) == ("POST", body)
    assert received.target == "/openai/v1/chat/completions?a=%3A"
    assert (b"X-Odd-Case", b"kept") in received.headers


async def test_the_same_seed_gives_the_same_answer() -> None:
    async def ask(seed: int) -> tuple[str, str | None]:
        async with SimulatedProviders(seed=seed) as running, openai_client(running) as client:
            answered = await client.chat.completions.create(
                model="gpt-5.4-mini", messages=[{"role": "user", "content": "Why?"}]
            )
            return answered.id, answered.choices[0].message.content

    assert await ask(1) == await ask(1)
    assert await ask(1) != await ask(2)


# -- properties ---------------------------------------------------------------------------------------------------


@given(st.text(), st.integers(1, 20))
def test_pieces_lose_nothing(text: str, words: int) -> None:
    assert "".join(pieces(text, words)) == (text if text.strip() else "")


@settings(deadline=None)
@given(st.integers(), st.integers(1, 400), st.booleans(), st.booleans(), st.booleans())
def test_usage_adds_up_in_every_format(
    seed: int, limit: int, thinks: bool, shows_thoughts: bool, fetches_pages: bool
) -> None:
    prompt = Prompt(
        model="m",
        stream=True,
        segments=(Segment(LONG, cache="5m"), Segment("Why?")),
        tools=(Tool("weather", WEATHER),),
        limit=limit,
        thinks=thinks,
        shows_thoughts=shows_thoughts,
        fetches_pages=fetches_pages,
        own=True,
    )
    reply = answer(prompt, random.Random(seed))
    assert reply.tokens <= limit
    for wire in (openai_chat.WIRE, openai_responses.WIRE, anthropic_messages.WIRE, gemini_generate.WIRE):
        assert wire.stream is not None
        entered = wire.bill(prompt, PromptCache())
        billed = Billed(
            input_tokens=entered.input_tokens,
            output_tokens=reply.tokens,
            reasoning_output_tokens=reply.reasoning_tokens,
            cache_write_input_tokens=entered.cache_write_input_tokens,
            tool_use_prompt_tokens=entered.tool_use_prompt_tokens,
        )
        turn = Turn(prompt, reply, billed, "m", 0, str(seed))
        whole = wire.whole(turn)
        usage = whole.get("usage") or whole["usageMetadata"]
        assert total_of(usage) == billed.input_tokens + billed.output_tokens
        assert sum(piece.tokens for piece in wire.stream(turn)) >= reply.tokens


def total_of(usage: dict[str, Any]) -> int:
    """The total that a usage object states, after checking that its parts are it."""
    if "totalTokenCount" in usage:
        names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
        assert usage["totalTokenCount"] == sum(usage.get(name, 0) for name in names)
        return int(usage["totalTokenCount"])
    if "prompt_tokens" in usage:
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        return int(usage["total_tokens"])
    if "total_tokens" in usage:
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        return int(usage["total_tokens"])
    written, read = usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]
    return int(usage["input_tokens"] + written + read + usage["output_tokens"])


# -- people at work -------------------------------------------------------------------------------------------------


async def test_the_ledger_holds_what_the_providers_billed(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SimulatedProviders(error_rate=0.1, tokens_per_second=20_000) as providers:
        upstreams = {}
        for name, otel in (("openai", "openai"), ("anthropic", "anthropic"), ("gemini", "gcp.gemini")):
            monkeypatch.setenv(f"SIMULATED_{name.upper()}", PROVIDERS[name].credential)
            upstreams[name] = Upstream(
                base_url=providers.base_url(name), provider=otel, credential=f"env:SIMULATED_{name.upper()}"
            )
        async with start_gateway(upstreams=upstreams) as gateway:
            ring = Keys(gateway.dir)
            keys = {
                person.user: ring.create(team_id=person.team, user_id=person.user, ticket=person.key_ticket,
                                         purpose=person.purpose)[1]
                for person in PEOPLE
            }  # fmt: skip
            organisation = Organisation(gateway.url, keys, calls=250, at_once=12)
            await organisation.work()
    recorded = gateway.closed()
    assert len(recorded) == len(providers.served) == organisation.outcomes.total() == 250
    billed = {served.upstream_id: served.billed for served in providers.served if served.ended == "completed"}
    compared = 0
    for call in recorded:
        if call["result"] == "completed" and call.get("upstream_id"):
            wanted = billed[call["upstream_id"]]
            assert {name: call.get(name, 0) for name in COMPARED} == {name: getattr(wanted, name) for name in COMPARED}
            compared += 1
    assert compared > 150
    assert {call["ticket_source"] for call in recorded} >= {"header", "path", "key", "metadata", "none"}
    assert {call["team_id"] for call in recorded} == {person.team for person in PEOPLE}
    assert {call["dialect"] for call in recorded} == {
        "openai_chat", "openai_responses", "openai_embeddings", "anthropic_messages", "gemini_generate",
    }  # fmt: skip


COMPARED = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "cache_write_1h_input_tokens", "reasoning_output_tokens",
)  # fmt: skip


# -- outlay demo ----------------------------------------------------------------------------------------------------


def test_the_demo_runs_from_start_to_end_and_may_be_run_again(tmp_path: Path) -> None:
    data = tmp_path / "demo-data"
    for calls, history in (("30", "--history"), ("5", "--no-history")):
        ran = CliRunner().invoke(demo, ["--calls", calls, "--data", str(data), history], catch_exceptions=False)
        assert ran.exit_code == 0
        assert f"The providers served {calls} calls, the gateway recorded {calls}." in ran.output
        assert (f"What put {GAMING_TEAM} at the top of the board" in ran.output) == (history == "--history")
        assert ("W12" in ran.output and "spend_without_outcome" in ran.output) == (history == "--history")
    assert load(data / "outlay.toml").ledger.synthetic
    assert (data / MARKER).is_file()


async def test_the_demo_stops_when_it_is_told_to(tmp_path: Path) -> None:
    command = f"from analytics.demo import demo; demo(['--no-history', '--data', {str(tmp_path / 'data')!r}])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert b"listens on" in await process.stdout.readline()
    process.terminate()
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert b"outlay verify" in output
    [counted] = re.findall(rb"The providers served (\d+) calls, the gateway recorded (\d+)(?:: (\d+) were)?", output)
    served, recorded, early = (int(each or 0) for each in counted)
    assert recorded == served + early
    with fresh_folder(tmp_path / "data"):  # no gateway is left behind that would hold it
        pass


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept", encoding="utf-8")
    with pytest.raises(UserError, match="was not made by a demo"), fresh_folder(tmp_path):
        pass
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "kept"


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        fresh_folder(tmp_path / "data"),
        pytest.raises(UserError, match="still running"),
        fresh_folder(tmp_path / "data"),
    ):
        pass


def test_a_port_that_is_taken_costs_no_data(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "data"):
        (tmp_path / "data" / "earlier").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = CliRunner().invoke(demo, ["--data", str(tmp_path / "data"), "--port", port])
    assert isinstance(ran.exception, UserError)
    assert f"port {port} cannot be used" in str(ran.exception)
    assert (tmp_path / "data" / "earlier").exists()
