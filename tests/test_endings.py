"""A stream that is ended from our side is a whole answer that reached its maximum: to our own reader, and to the
official SDKs."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.dialects import DIALECTS
from gateway.framing import AwsEvents, Event, Events, aws_frame
from gateway.meter import Meter
from tests.fakes.upstream import FakeUpstream, chunked
from tests.streams import BILLED, Stream, recorded, transcript, transcripts

AT_THE_MAXIMUM = {"length", "max_tokens", "MAX_TOKENS", "max_output_tokens"}
STREAMS = transcripts()
RECORDED = list(recorded())
NEEDS_CORPUS = "set OUTLAY_CORPUS to a folder with recorded provider traffic"
CUTS_MAX = 40


def names(streams: list[Stream]) -> list[str]:
    return [stream.name for stream in streams]


def cuts(stream: Stream, most: int = CUTS_MAX) -> list[int]:
    """After every event, or after some of many."""
    total = len(stream.pieces)
    return list(range(1, total)) if total <= most else sorted({1 + at * (total - 2) // most for at in range(most + 1)})


def read(stream: Stream, body: bytes) -> Meter:
    meter = stream.meter()
    meter.feed(body)
    assert meter.unfinished == 0, "it ends inside an event"
    return meter


def check(stream: Stream, events: int) -> None:
    """The stream, ended after so many events, is whole and says that it is; all that was written before is in it."""
    body = stream.ended(events)
    if body is None:
        return
    passed = b"".join(stream.pieces[:events])
    assert body.startswith(passed)
    before, after = read(stream, passed), read(stream, body)
    assert after.is_complete()
    assert after.failed is None
    seen = before.finish()
    ways = AT_THE_MAXIMUM if seen.finish_reason is None else {*AT_THE_MAXIMUM, seen.finish_reason}
    assert after.answer.finish_reason in ways
    assert after.answer.error == seen.error


@pytest.mark.parametrize("stream", STREAMS, ids=names(STREAMS))
def test_a_stream_can_be_ended_after_each_event(stream: Stream) -> None:
    for events in range(1, len(stream.pieces)):
        check(stream, events)
    ended = [stream.ended(events) is not None for events in range(1, len(stream.pieces))]
    assert ended == sorted(ended), "it can once it has begun"
    assert sum(ended) >= len(ended) - 1


@pytest.mark.skipif(not RECORDED, reason=NEEDS_CORPUS)
def test_all_recorded_streams_can_be_ended() -> None:
    never = []
    for stream in RECORDED:
        for events in cuts(stream):
            check(stream, events)
        if len(stream.pieces) > 1 and all(stream.ended(events) is None for events in range(1, len(stream.pieces))):
            never.append(stream.name.partition(" ")[2])
    assert sorted(never) == [
        "anthropic/anthropic_complete/stream/sse",
        "cohere/cohere_chat/stream/ndjson",  # version 1
        "openai/responses/stream/sse",  # in the background
        "writer/completions/stream/sse",  # not OpenAI's format
    ]


@given(stream=st.sampled_from(STREAMS), data=st.data())
def test_a_torn_event_is_cut_off(stream: Stream, data: st.DataObject) -> None:
    events = data.draw(st.integers(1, len(stream.pieces) - 1))
    torn = data.draw(st.integers(0, len(stream.pieces[events]) - 1))
    _, passed = stream.cut(events, torn=torn)
    whole, next_ = b"".join(stream.pieces[:events]), stream.pieces[events]
    assert passed.startswith(whole)
    assert next_.startswith(passed[len(whole) :])
    assert passed == whole or stream.name == "gemini-array", "only an array has something between its items"
    body = stream.ended(events, torn=torn)
    if body is not None:
        assert read(stream, body).is_complete()


def test_nothing_is_ended_that_cannot_be() -> None:
    stream = transcript("chat")
    meter = stream.meter()
    meter.feed(stream.pieces[0])
    assert meter.end(BILLED) is None, "nobody asked to see it"

    compressed = Meter(stream.dialect, "", {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"})
    assert stream.dialect.ending is not None
    compressed.ending = stream.dialect.ending(stream.path, stream.request)
    assert compressed.end(BILLED) is None, "its bytes cannot be continued"

    assert stream.ended(0) is None, "it has not begun"
    assert stream.ended(len(stream.pieces)) == b"".join(stream.pieces), "it has ended by itself"


def test_an_array_is_closed_with_one_comma_between_two_items() -> None:
    stream = transcript("gemini-array")
    for events in range(1, len(stream.pieces)):
        for torn in range(6):  # `,`, a line's end, and the beginning of an item
            body = stream.ended(events, torn=torn)
            assert body is not None
            assert len(json.loads(body)) == events + 1


def test_the_usage_is_stated_where_it_was_asked_for() -> None:
    asked, unasked = transcript("chat"), transcript("chat-choices")
    body, other = asked.ended(3) or b"", unasked.ended(3) or b""
    answer = read(asked, body).finish()
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (30, 7)
    assert b"usage" not in other
    ends = [json.loads(event.partition(b"data: ")[2]) for event in Events().feed(other)[3:5]]
    assert [end["choices"][0]["index"] for end in ends] == [0, 1], "each choice is ended"


@pytest.mark.parametrize(
    "name", ["messages", "responses", "gemini", "bedrock-converse", "bedrock-invoke-llama", "cohere", "ollama"]
)
def test_the_usage_up_to_now_is_stated(name: str) -> None:
    stream = transcript(name)
    body = stream.ended(2)
    assert body is not None
    usage = read(stream, body).finish().usage
    assert (usage.input_tokens, usage.output_tokens) == (30, 7)


def test_half_a_tool_call_is_not_handed_out() -> None:
    """Codex runs each call that is done, whether or not the response is."""
    stream = transcript("responses")
    at = next(number for number, piece in enumerate(stream.pieces) if b"rm -rf " in piece)
    body = stream.ended(at + 1)
    assert body is not None
    events = [json.loads(event.partition(b"data: ")[2]) for event in Events().feed(body)]
    assert [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"] == [
        "reasoning",
        "message",
    ]
    last = events[-1]
    assert [item["type"] for item in last["response"]["output"]] == ["reasoning", "message"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_the_end_has_the_id_and_model_of_the_stream() -> None:
    stream = transcript("chat-azure")
    body = stream.ended(2)
    assert body is not None
    last = json.loads(Events().feed(body)[-2].partition(b"data: ")[2])
    assert (last["id"], last["model"]) == ("chatcmpl-1", "gpt-4.1-mini-2025-04-14")


def test_background_work_is_not_ended() -> None:
    stream = transcript("responses")
    assert stream.dialect.ending is not None
    assert stream.dialect.ending(stream.path, b'{"background":true}') is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
# fmt: off
EVENT_NAMES = st.sampled_from([
    "type", "index", "choices", "delta", "finish_reason", "usage", "response", "sequence_number", "output_index",
    "content_index", "item", "part", "annotation", "candidates", "finishReason", "message", "contentBlockStart",
    "contentBlockDelta", "contentBlockStop", "contentBlockIndex", "messageStart", "messageStop", "metadata",
    "generation", "stop_reason", "results", "done", "id", "model",
])
KINDS = st.sampled_from([
    "message_start", "content_block_start", "content_block_stop", "message_delta", "message", "response.created",
    "response.output_item.added", "response.output_item.done", "response.content_part.added",
    "response.content_part.done", "response.output_text.delta", "response.output_text.annotation.added",
    "content-start", "content-end", "message-start", "message-end",
])
# fmt: on
EVENTS = st.dictionaries(
    EVENT_NAMES, JSON | KINDS | st.dictionaries(EVENT_NAMES, JSON | KINDS, max_size=4), min_size=1, max_size=5
)
ENDINGS = [(dialect.ending, path) for dialect in DIALECTS if dialect.ending for path in ("/v2/chat", "/v1/completions")]


@given(which=st.sampled_from(ENDINGS), events=st.lists(EVENTS, max_size=6))
def test_odd_events_never_raise(which: tuple[Callable[[str, bytes], Any], str], events: list[dict[str, Any]]) -> None:
    make, path = which
    ending = make(path, b"{}")
    if ending is None:
        return
    for event in events:
        ending.see(json.loads(json.dumps(event)))
    for end in ending.events(Usage()) or []:
        assert end.data == b"[DONE]" or isinstance(json.loads(end.data), dict)


@given(name=st.sampled_from(["messageStop", "chunk", "é"]), data=st.dictionaries(st.text(), st.integers()))
def test_frames_are_read_as_they_were_written(name: str, data: dict[str, int]) -> None:
    payload = json.dumps(data).encode()
    (event,) = AwsEvents().feed(aws_frame(Event(name, payload)))
    assert json.loads(event) == (data if name == "chunk" else {name: data})


# -- the official SDKs --------------------------------------------------------------------------------------------


async def served(upstream: FakeUpstream, stream: Stream, events: int) -> bool:
    """Serve the stream, ended after so many events. False where that cannot be."""
    body = stream.ended(events)
    if body is None:
        return False
    upstream.answer(chunked(body, content_type=stream.content_type))
    return True


def sdk_streams(*apis: str, own: tuple[str, ...]) -> list[Stream]:
    return [*map(transcript, own), *(stream for stream in recorded(*apis) if has_no_error(stream))]


def has_no_error(stream: Stream) -> bool:
    meter = stream.meter()
    meter.feed(b"".join(stream.pieces))
    return meter.answer.error is None


CHATS = sdk_streams("chat_completions", own=("chat", "chat-choices", "chat-azure"))
COMPLETIONS = sdk_streams("completions", own=("completions",))
MESSAGES = sdk_streams("messages", own=("messages",))
RESPONSES = sdk_streams("responses", own=("responses",))
GENERATED = [each for each in sdk_streams("generate_content", own=("gemini",)) if b"data:" in each.pieces[0][:6]]


@pytest.fixture
async def openai_sdk(upstream: FakeUpstream) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=upstream.url + "/v1", api_key="k", max_retries=0) as client:
        yield client


def text_of_choices(body: bytes) -> str:
    """What the first choice had said, read without any SDK."""
    said = ""
    for event in Events().feed(body):
        data = event.partition(b"data:")[2].strip()
        if data.startswith(b"{"):
            for choice in json.loads(data).get("choices") or []:
                if not choice.get("index"):
                    said += (choice.get("delta") or {}).get("content") or choice.get("text") or ""
    return said


@pytest.mark.parametrize("stream", CHATS, ids=names(CHATS))
async def test_chat_ends_for_the_openai_sdk(
    upstream: FakeUpstream, openai_sdk: openai.AsyncOpenAI, stream: Stream
) -> None:
    for events in cuts(stream, 12):
        if not await served(upstream, stream, events):
            continue
        said, reasons = "", set()
        async for chunk in await openai_sdk.chat.completions.create(model="m", messages=[], stream=True):
            for choice in chunk.choices:
                said += (choice.delta.content or "") if not choice.index else ""
                reasons |= {choice.finish_reason} - {None}
        assert said == text_of_choices(b"".join(stream.pieces[:events]))
        assert reasons
        assert reasons <= {"length", *_reasons(stream, events)}


def _reasons(stream: Stream, events: int) -> set[str]:
    """How choices had ended by themselves."""
    return {
        reason
        for event in Events().feed(b"".join(stream.pieces[:events]))
        if (data := event.partition(b"data:")[2].strip()).startswith(b"{")
        for choice in json.loads(data).get("choices") or []
        if (reason := choice.get("finish_reason"))
    }


@pytest.mark.parametrize("stream", COMPLETIONS, ids=names(COMPLETIONS))
async def test_completions_end_for_the_openai_sdk(
    upstream: FakeUpstream, openai_sdk: openai.AsyncOpenAI, stream: Stream
) -> None:
    for events in cuts(stream, 12):
        if not await served(upstream, stream, events):
            continue
        chunks = [chunk async for chunk in await openai_sdk.completions.create(model="m", prompt="x", stream=True)]
        said = "".join(choice.text for chunk in chunks for choice in chunk.choices)
        assert said == text_of_choices(b"".join(stream.pieces[:events]))
        assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == (
            ["length"] if not _reasons(stream, events) else [*_reasons(stream, events)]
        )


@pytest.mark.parametrize("stream", RESPONSES, ids=names(RESPONSES))
async def test_responses_end_for_the_openai_sdk(
    upstream: FakeUpstream, openai_sdk: openai.AsyncOpenAI, stream: Stream
) -> None:
    for events in cuts(stream, 12):
        if not await served(upstream, stream, events):
            continue
        said = ""
        async for event in await openai_sdk.responses.create(model="m", input="x", stream=True):
            said += event.delta if event.type == "response.output_text.delta" else ""
        if any(b'"response.completed"' in piece for piece in stream.pieces[:events]):
            continue  # `[DONE]` follows at times
        assert event.type == "response.incomplete"
        assert event.response.incomplete_details is not None
        assert event.response.incomplete_details.reason == "max_output_tokens"
        assert event.response.output_text == said
        assert event.response.usage is not None
        assert event.response.usage.total_tokens == 37


async def test_responses_end_for_the_sdks_own_snapshot(upstream: FakeUpstream, openai_sdk: openai.AsyncOpenAI) -> None:
    stream = transcript("responses")
    for events in range(1, len(stream.pieces)):
        assert await served(upstream, stream, events)
        async with openai_sdk.responses.stream(model="m", input="x") as manager:
            kinds = [event.type async for event in manager]
        assert kinds[-1] == "response.incomplete"


@pytest.mark.parametrize("stream", MESSAGES, ids=names(MESSAGES))
async def test_messages_end_for_the_anthropic_sdk(upstream: FakeUpstream, stream: Stream) -> None:
    async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key="k", max_retries=0) as client:
        for events in cuts(stream, 12):
            if not await served(upstream, stream, events):
                continue
            said = ""
            async with client.messages.stream(model="m", max_tokens=9, messages=[]) as manager:
                async for event in manager:
                    said += event.text if event.type == "text" else ""
                message = await manager.get_final_message()
            has_reason = any(b"message_delta" in piece for piece in stream.pieces[:events])
            assert has_reason or message.stop_reason == "max_tokens"
            assert "".join(block.text for block in message.content if block.type == "text") == said
            assert message.usage.output_tokens == 7 or has_reason


@pytest.fixture
async def google_sdk(upstream: FakeUpstream) -> AsyncIterator[Any]:
    # With httpx: its other transport uses aiohttp in a way that aiohttp warns of.
    async with httpx.AsyncClient() as transport:
        options = types.HttpOptions(base_url=upstream.url, httpx_async_client=transport)
        async with genai.Client(api_key="k", http_options=options).aio as client:
            yield client


@pytest.mark.parametrize("stream", GENERATED, ids=names(GENERATED))
async def test_gemini_ends_for_the_google_sdk(upstream: FakeUpstream, google_sdk: Any, stream: Stream) -> None:
    for events in cuts(stream, 12):
        if not await served(upstream, stream, events):
            continue
        said, last = "", None
        async for chunk in await google_sdk.models.generate_content_stream(model="m", contents="x"):
            for candidate in chunk.candidates or []:
                parts = (candidate.content and candidate.content.parts) or []
                said += "".join(part.text or "" for part in parts)
                last = candidate.finish_reason or last
        own = [json.loads(piece.partition(b"data:")[2]) for piece in stream.pieces[:events]]
        candidates = [one for each in own for one in each.get("candidates") or []]
        parts_of = [part for one in candidates for part in (one.get("content") or {}).get("parts") or []]
        assert said == "".join(part.get("text", "") for part in parts_of)
        assert last is not None
        assert last.value == next((one["finishReason"] for one in candidates if "finishReason" in one), "MAX_TOKENS")
