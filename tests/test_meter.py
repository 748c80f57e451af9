"""The meter: any cut of the network gives the same usage; any bytes pass without an exception."""

import base64
import gzip
import json
import re
import struct
import tracemalloc
import zlib
from itertools import pairwise
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway import alike
from gateway.call import Answer
from gateway.dialects import (
    DIALECTS,
    anthropic_messages,
    bedrock_converse,
    bedrock_invoke,
    cohere_chat,
    gemini_generate,
    ollama_chat,
    openai_chat,
    openai_embeddings,
    openai_responses,
)
from gateway.dialects.base import Dialect
from gateway.encodings import TooLargeError, decoded
from gateway.framing import data_of
from gateway.meter import Meter, UsageHider
from gateway.texts import MAY_REPEAT, REPEATS
from tests.fakes.upstream import sse

CHAT_CHUNKS: list[Any] = [
    {"id": "chatcmpl-1", "model": "gpt-5.4-mini-2026-03-01", "choices": [{"index": 0, "delta": {"content": "Grüße"}}]},
    {"id": "chatcmpl-1", "model": "gpt-5.4-mini-2026-03-01", "choices": [{"delta": {}, "finish_reason": "stop"}]},
]
CHAT_USAGE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "gpt-5.4-mini-2026-03-01",
    "choices": [],
    "service_tier": "default",
    "usage": {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 128},
    },
}
CHAT_STREAM = b"".join(sse(*CHAT_CHUNKS, CHAT_USAGE)) + b"data: [DONE]\n\n"
RESPONSES_STREAM = b"".join(
    sse(
        {
            "type": "response.created",
            "response": {"id": "resp_1", "model": "gpt-5.6-sol", "status": "in_progress", "usage": None},
        },
        {"type": "response.output_text.delta", "delta": 'a "usage" of \\"response.completed\\"'},
        {
            "type": "response.completed",
            "response": {
                "id": "resp_1",
                "model": "gpt-5.6-sol",
                "status": "completed",
                "service_tier": "priority",
                "output": [
                    {"type": "web_search_call", "action": {"type": "search"}},
                    {"type": "web_search_call", "action": {"type": "open_page"}},
                ],
                "usage": {
                    "input_tokens": 50,
                    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
                    "output_tokens": 20,
                    "output_tokens_details": {"reasoning_tokens": 15},
                },
            },
        },
        names=True,
    )
)
ANTHROPIC_STREAM = b"".join(
    sse(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "model": "claude-sonnet-4-5",
                "usage": {
                    "input_tokens": 700,
                    "cache_read_input_tokens": 0,
                    "cache_creation_input_tokens": 300,
                    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
                    "output_tokens": 1,
                    "service_tier": "standard",
                },
            },
        },
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
        # Server tools: the delta states the input again, higher.
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {
                "input_tokens": 1500,
                "cache_read_input_tokens": 6289,
                "output_tokens": 90,
                "server_tool_use": {"web_search_requests": 2},
            },
        },
        {"type": "message_stop"},
        names=True,
    )
)
GEMINI_CHUNKS: list[Any] = [
    {
        "candidates": [{"content": {"parts": [{"text": "a"}]}}],
        "modelVersion": "gemini-3.5-flash-lite",
        "responseId": "r1",
        "usageMetadata": {"promptTokenCount": 32, "candidatesTokenCount": 4, "totalTokenCount": 36},
    },
    {
        "candidates": [{"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}],
        "modelVersion": "gemini-3.5-flash-lite",
        "usageMetadata": {
            "promptTokenCount": 32,
            "toolUsePromptTokenCount": 4610,
            "candidatesTokenCount": 11,
            "thoughtsTokenCount": 40,
            "cachedContentTokenCount": 8,
        },
    },
]
GEMINI_STREAM = b"".join(sse(*GEMINI_CHUNKS)).replace(b"\n\n", b"\r\n\r\n")
GEMINI_ARRAY = json.dumps(GEMINI_CHUNKS).encode()

STREAMS = [
    (openai_chat.DIALECT, CHAT_STREAM),
    (openai_responses.DIALECT, RESPONSES_STREAM),
    (anthropic_messages.DIALECT, ANTHROPIC_STREAM),
    (gemini_generate.DIALECT, GEMINI_STREAM),
    (gemini_generate.DIALECT, GEMINI_ARRAY),
]


def metered(dialect: Dialect, *pieces: bytes, encoding: str = "", provider: str = "openai", **headers: str) -> Answer:
    meter = Meter(dialect, provider, {"Content-Encoding": encoding, **headers})
    for piece in pieces:
        meter.feed(piece)
    assert meter.failed is None
    return meter.finish()


def test_chat_stream() -> None:
    answer = metered(openai_chat.DIALECT, CHAT_STREAM)
    assert answer.finished
    assert (answer.response_model, answer.upstream_id) == ("gpt-5.4-mini-2026-03-01", "chatcmpl-1")
    assert (answer.finish_reason, answer.service_tier) == ("stop", "default")
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (1200, 300)
    assert (usage.cache_read_input_tokens, usage.audio_input_tokens, usage.reasoning_output_tokens) == (1024, 7, 128)


def test_chat_stream_without_usage_reports_none() -> None:
    answer = metered(openai_chat.DIALECT, *sse(*CHAT_CHUNKS), b"data: [DONE]\n\n")
    assert answer.finished
    assert not answer.usage.reported()


def test_responses_stream_counts_searches_not_page_views() -> None:
    answer = metered(openai_responses.DIALECT, RESPONSES_STREAM)
    assert answer.finished
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens) == (50, 10, 5)
    assert (usage.output_tokens, usage.reasoning_output_tokens, usage.web_search_requests) == (20, 15, 1)
    assert (answer.service_tier, answer.finish_reason) == ("priority", "completed")


def test_a_responses_stream_that_is_cut_has_no_finish_reason() -> None:
    cut = RESPONSES_STREAM[: RESPONSES_STREAM.index(b"event: response.completed")]
    assert metered(openai_responses.DIALECT, cut).finish_reason is None


def test_anthropic_stream_restates_its_input() -> None:
    answer = metered(anthropic_messages.DIALECT, ANTHROPIC_STREAM)
    usage = answer.usage
    assert usage.input_tokens == 1500 + 6289 + 300
    assert (usage.cache_read_input_tokens, usage.cache_write_input_tokens) == (6289, 300)
    assert usage.cache_write_1h_input_tokens == 200
    assert (usage.output_tokens, usage.web_search_requests, answer.finish_reason) == (90, 2, "end_turn")


def test_anthropic_stream_that_is_cut_keeps_its_input() -> None:
    answer = metered(anthropic_messages.DIALECT, ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: message_delta")])
    assert not answer.finished
    assert answer.usage.input_tokens == 1000


@pytest.mark.parametrize("stream", [GEMINI_STREAM, GEMINI_ARRAY], ids=["sse", "array"])
def test_gemini_stream_is_cumulative(stream: bytes) -> None:
    usage = metered(gemini_generate.DIALECT, stream).usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_output_tokens) == (32 + 4610, 11 + 40, 40)
    assert usage.cache_read_input_tokens == 8
    assert usage.other_units == {"tool_use_prompt_tokens": 4610.0}


def test_a_gemini_event_without_usage_changes_none() -> None:
    for later in ({"candidates": [{"finishReason": "STOP"}]}, {"usageMetadata": {"trafficType": "ON_DEMAND"}}):
        usage = metered(gemini_generate.DIALECT, *sse(*GEMINI_CHUNKS, later)).usage
        assert (usage.input_tokens, usage.output_tokens) == (32 + 4610, 11 + 40)


def test_whole_answers() -> None:
    chat = metered(openai_chat.DIALECT, json.dumps({**CHAT_USAGE, "choices": [{"finish_reason": "length"}]}).encode())
    assert (chat.usage.input_tokens, chat.finish_reason) == (1200, "length")
    body = {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    embeddings = metered(openai_embeddings.DIALECT, json.dumps(body).encode())
    assert embeddings.usage.input_tokens == 5
    message = {
        "type": "message",
        "id": "msg_2",
        "model": "claude-haiku-4-5",
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5},
    }
    anthropic = metered(anthropic_messages.DIALECT, json.dumps(message).encode())
    assert (anthropic.usage.input_tokens, anthropic.usage.output_tokens, anthropic.finish_reason) == (7, 5, "tool_use")


def test_errors_inside_a_200() -> None:
    error = sse({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, names=True)
    assert metered(anthropic_messages.DIALECT, *error).error == "overloaded_error"
    failed = sse({"type": "response.failed", "response": {"error": {"code": "server_error"}}}, names=True)
    assert metered(openai_responses.DIALECT, *failed).error == "server_error"


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 2000), max_size=12))
def test_cuts_do_not_matter(case: tuple[Dialect, bytes], cuts: list[int]) -> None:
    dialect, stream = case
    places = sorted({min(cut, len(stream)) for cut in cuts})
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    assert metered(dialect, *pieces) == metered(dialect, stream)


LONG_STREAMS = {
    openai_chat.DIALECT: [
        *sse(*CHAT_CHUNKS, CHAT_USAGE, {"choices": [{"delta": {"content": '"usage": {\n'}}], "usage": None}),
        b"data: [DONE]\n\n",
    ],
    openai_responses.DIALECT: [event + b"\n\n" for event in RESPONSES_STREAM.split(b"\n\n")[:-1]],
    anthropic_messages.DIALECT: [
        *(event + b"\n\n" for event in ANTHROPIC_STREAM.split(b"\n\n")[:-1]),
        *sse({"type": "ping"}, {"type": "content_block_start", "content_block": {"type": "text"}}, names=True),
    ],
    gemini_generate.DIALECT: [
        *sse(*GEMINI_CHUNKS, {"candidates": [{"content": {"parts": [{"text": "c"}]}}]}, {"modelVersion": "m"})
    ],
    bedrock_converse.DIALECT: sse({"contentBlockDelta": {"delta": {"text": "a"}}}, {"metadata": {"usage": {}}}),
}
"""Events of each dialect, to be put together in any order."""
OTHER_EVENTS = [
    *(event for events in LONG_STREAMS.values() for event in events),
    *sse({"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": 4}}}}, {"is_finished": True}),
    *sse(
        {"model": "m", "done": True, "eval_count": 3}, {"results": [{"input_token_count": 5}]}, {"status": "completed"}
    ),
    *sse({"object": "thread.run", "usage": {"prompt_tokens": 6}}, {"usage_info": {"pages_processed": 1}}),
    *sse({"type": "transcript.text.done", "usage": {"input_tokens": 7}}, {"type": "image_edit.completed"}),
    *sse({"event_type": "interaction.complete", "interaction": {"usage": {"total_input_tokens": 8}}}),
]
"""For all other dialects."""
ODD_EVENTS = [
    b": a comment\n\n", b"\n\n", b"\n", b"event: ping\ndata:\n\n", b"data: hello\n\n", b'data:{"no": "blank"}\n\n',
    b'data: {"usage"\ndata: :{"prompt_tokens": 7}}\n\n', b'data: {"two":\ndata: "lines"}\n\n', b"data:  [DONE] \n\n",
    b'data: {"type":\ndata: "ping"}\n\n', b'error: {"error": {"type": "full"}}\n\n', b'id: 1\ndata: {"id": "x"}\n\n',
    b'data: {"a": 1}\nevent: late\n\n', b'event: {"type": "ping"}\ndata: {"a": 2}\n\n', b'data: {"half": \n\n',
    b'data: {"type": "response.output_text.done"}\n\n', b'data: {"event_type" : "stream-end"}\n\n',
    b'data: {"choices": []}\r\n\r\n', b'data: {"a": 3}\r\rdata: {"a": 4}\r\n\n',
]  # fmt: skip
EVENTS_END = re.compile(rb"\r?\n\r?\n|\r\r")


@st.composite
def long_streams(draw: st.DrawFn) -> tuple[Dialect, bytes]:
    """Streams that are mostly alike, as a model's are, with something odd in between now and then."""
    dialect = draw(st.sampled_from([*LONG_STREAMS, *DIALECTS]))
    usual = LONG_STREAMS.get(dialect, OTHER_EVENTS)
    odd = ODD_EVENTS if draw(st.booleans()) else ODD_EVENTS[:-2]
    event = st.sampled_from([*usual, *odd]) if draw(st.booleans()) else st.sampled_from(usual)
    times = st.one_of(st.sampled_from([[None], [None] * 2, [None] * 30]), st.lists(TEXTS, max_size=4))
    parts = draw(st.lists(st.tuples(event, times), min_size=1, max_size=12))
    stream = b"".join(saying(text, event) for event, texts in parts for text in texts)
    return dialect, stream + draw(st.sampled_from([b"", b"\n", b"data: {"]))


WORDS = ('"usage": {', "usage", "stop", "ping", "error", "message_stop", "shell_call", "reason", "\\")
TEXTS = st.one_of(st.none(), st.text('ab "\\\n{}:é', max_size=6), st.sampled_from(WORDS))


def saying(text: str | None, event: bytes) -> bytes:
    """The same event with another text, where it has one."""
    like = alike.of(event)
    if text is None or like is None:
        return event
    return like.head + json.dumps(text, ensure_ascii=False)[1:-1].encode() + like.tail


def seen(meter: Meter) -> tuple[Answer, int, bytes, bool]:
    complete = meter.is_complete()
    return meter.answer, meter.content_bytes, b"".join(meter.sample), complete


@settings(deadline=None)
@given(long_streams(), st.lists(st.integers(0, 20_000), max_size=6), st.sampled_from([1, 3, 64, 10**6]))
def test_a_long_stream_is_metered_as_if_each_event_came_alone(
    case: tuple[Dialect, bytes], cuts: list[int], size: int
) -> None:
    dialect, stream = case
    begin = len(stream) - len(stream.lstrip(b"\xef\xbb\xbf \t\r\n"))
    ends = [begin, *(end.end() for end in EVENTS_END.finditer(stream, begin))]
    alone, cut, sized = (Meter(dialect, "openai", {}) for _ in range(3))
    for start, end in pairwise(ends):
        alone.see(data_of(stream[start:end]))
    places = [0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]
    for start, end in pairwise(places):
        cut.feed(stream[start:end])
    size = max(size, len(stream) // 2000)
    for start in range(0, len(stream), size):
        sized.feed(stream[start : start + size])
    assert cut.unfinished == sized.unfinished == len(stream) - ends[-1]
    assert (cut.bytes_seen, cut.failed, sized.failed) == (len(stream), None, None)
    assert seen(cut) == seen(sized)
    if not stream[ends[-1] :].strip():
        assert seen(cut)[:3] == seen(alone)[:3]


@given(st.from_regex(REPEATS))
def test_no_event_without_text_is_passed_over(event: bytes) -> None:
    assert MAY_REPEAT.search(event)


@pytest.mark.parametrize(("dialect", "stream"), STREAMS)
def test_byte_by_byte_and_carriage_returns(dialect: Dialect, stream: bytes) -> None:
    whole = metered(dialect, stream)
    assert metered(dialect, *(stream[i : i + 1] for i in range(len(stream)))) == whole
    crlf = stream.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert metered(dialect, *(crlf[i : i + 1] for i in range(len(crlf)))) == whole
    assert metered(dialect, b"\xef\xbb\xbf" + stream) == whole


@given(st.sampled_from(DIALECTS), st.lists(st.binary(max_size=400), max_size=5))
def test_arbitrary_bytes_never_raise(dialect: Dialect, pieces: list[bytes]) -> None:
    for encoding in ("", "gzip", "br", "zstd", "deflate", "something"):
        meter = Meter(dialect, "openai", {"Content-Encoding": encoding})
        for piece in pieces:
            meter.feed(piece)
        meter.finish()
        assert meter.bytes_seen == sum(map(len, pieces))


KEYS = st.sampled_from(
    ["type", "message", "usage", "response", "choices", "delta", "model", "id", "candidates", "usageMetadata", "error",
     "output", "promptTokenCount", "input_tokens", "output_tokens", "prompt_tokens", "cache_creation", "x_groq",
     "promptTokensDetails", "finish_reason", "metadata", "messageStop", "results", "delta", "meta", "cacheDetails"]
)  # fmt: skip
JSON = st.recursive(
    st.sampled_from([None, True, -1, 7, 2**70, 1.5, float("nan"), "", "message_delta", "error"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)


@given(st.sampled_from(DIALECTS), st.dictionaries(KEYS, JSON, max_size=4))
def test_odd_json_never_raises_and_counts_stay_counts(dialect: Dialect, data: dict[str, Any]) -> None:
    answer = Answer()
    dialect.fold(answer, data, "openrouter")
    for name in answer.usage.__struct_fields__:
        value = getattr(answer.usage, name)
        if name != "other_units":
            assert value is None or (isinstance(value, int) and value >= 0)


FIVE_AND_SIX = {"prompt_tokens": 5, "completion_tokens": 6}


@pytest.mark.parametrize(
    ("provider", "usage", "expected"),
    [
        # (input, output, reasoning, cost in nano-USD); shapes as recorded from each provider.
        (
            "x_ai",
            {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 241, "cost_in_usd_ticks": 1_176_500,
             "completion_tokens_details": {"reasoning_tokens": 228}},
            (12, 229, 228, 117_650),
        ),
        ("gcp.gemini", {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}, (66, 34, 28, None)),
        (
            "mistral_ai",
            {"prompt_tokens": 11, "completion_tokens": 15, "total_tokens": 401,
             "prompt_tokens_details": {"audio_tokens": 375}},
            (386, 15, None, None),
        ),
        ("openai", {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}, (66, 6, None, None)),
        (
            "openrouter",
            {**FIVE_AND_SIX, "cost": 0, "cost_details": {"upstream_inference_cost": 0.00417}},
            (5, 6, None, 4_170_000),
        ),
        ("openrouter", {**FIVE_AND_SIX, "cost": 0}, (5, 6, None, 0)),
        ("azure.ai.inference", {**FIVE_AND_SIX, "cost_in_usd_ticks": 0}, (5, 6, None, None)),
        ("perplexity", {**FIVE_AND_SIX, "cost": {"total_cost": 0.006}}, (5, 6, None, 6_000_000)),
    ],
)  # fmt: skip
def test_servers_mean_different_things_by_one_format(provider: str, usage: Any, expected: Any) -> None:
    # Twice, as servers do that send usage on every chunk: adding up would be wrong by far.
    answer = metered(openai_chat.DIALECT, *sse({"usage": usage}, {"usage": usage}), provider=provider)
    found = answer.usage
    assert (
        found.input_tokens,
        found.output_tokens,
        found.reasoning_output_tokens,
        answer.provider_cost_nano,
    ) == expected


def test_embeddings_that_report_a_total_only() -> None:
    answer = metered(openai_embeddings.DIALECT, b'{"model":"voyage-4","usage":{"total_tokens":3}}')
    assert answer.usage.input_tokens == 3


def aws_frame(kind: str, payload: Any, message_type: str = "event") -> bytes:
    name = b":event-type" if message_type == "event" else b":exception-type"
    head = b"".join(
        bytes([len(key)]) + key + b"\x07" + len(value).to_bytes(2, "big") + value
        for key, value in ((name, kind.encode()), (b":message-type", message_type.encode()))
    )
    body = head + json.dumps(payload).encode()
    prelude = struct.pack(">II", len(body) + 16, len(head))
    frame = prelude + zlib.crc32(prelude).to_bytes(4, "big") + body
    return frame + zlib.crc32(frame).to_bytes(4, "big")


def invoke_frame(event: Any) -> bytes:
    return aws_frame("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abc"})


CONVERSE_STREAM = b"".join(
    [
        aws_frame("messageStart", {"role": "assistant"}),
        aws_frame("contentBlockDelta", {"delta": {"text": '"metadata"'}}),
        aws_frame("messageStop", {"stopReason": "end_turn"}),
        aws_frame(
            "metadata",
            {"usage": {"inputTokens": 10, "outputTokens": 4, "cacheReadInputTokens": 5, "cacheWriteInputTokens": 7351,
                       "cacheDetails": [{"inputTokens": 51, "ttl": "1h"}, {"inputTokens": 7300, "ttl": "5m"}]},
             "serviceTier": {"type": "flex"}},
        ),
    ]
)  # fmt: skip
INVOKE_CLAUDE = b"".join(
    invoke_frame(event)
    for event in (
        {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 37, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 133}},
        # The metrics contradict the body, as recorded once: the body counts.
        {"type": "message_stop",
         "amazon-bedrock-invocationMetrics": {"inputTokenCount": 37, "outputTokenCount": 97}},
    )
)  # fmt: skip
INVOKE_METRICS_ONLY = b"".join(
    invoke_frame(event)
    for event in (
        {"outputText": "a"},
        {"outputText": "b", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 8, "outputTokenCount": 2}},
    )
)
INVOKE_LLAMA = b"".join(
    invoke_frame(event)
    for event in (
        {"generation": "a", "prompt_token_count": 21, "generation_token_count": 1},
        {"generation": "b", "prompt_token_count": None, "generation_token_count": 2, "stop_reason": "stop"},
    )
)
NDJSON = b"\n".join(
    [
        b'{"model":"llama3","done":false}',
        b'{"model":"llama3","done_reason":"stop","done":true,"prompt_eval_count":17,"eval_count":50}',
        b"",
    ]
)


@pytest.mark.parametrize(
    ("dialect", "stream", "content_type", "expected"),
    [
        # (input, output, cache read, cache write, finish reason, finished)
        (bedrock_converse.DIALECT, CONVERSE_STREAM, "application/vnd.amazon.eventstream",
         (7366, 4, 5, 7351, "end_turn", True)),
        (bedrock_invoke.DIALECT, INVOKE_CLAUDE, "application/vnd.amazon.eventstream",
         (37, 133, None, None, "end_turn", True)),
        (bedrock_invoke.DIALECT, INVOKE_METRICS_ONLY, "", (8, 2, None, None, None, True)),
        (bedrock_invoke.DIALECT, INVOKE_LLAMA, "", (21, 2, None, None, "stop", False)),
        (ollama_chat.DIALECT, NDJSON, "application/x-ndjson", (17, 50, None, None, "stop", True)),
    ],
    ids=["converse", "invoke-claude", "invoke-metrics", "invoke-llama", "ndjson"],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_binary_and_line_streams(dialect: Dialect, stream: bytes, content_type: str, expected: Any, size: int) -> None:
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    answer = metered(dialect, *pieces, **{"Content-Type": content_type})
    found = answer.usage
    assert expected == (
        found.input_tokens, found.output_tokens, found.cache_read_input_tokens, found.cache_write_input_tokens,
        answer.finish_reason, answer.finished,
    )  # fmt: skip


def test_converse_details() -> None:
    answer = metered(bedrock_converse.DIALECT, CONVERSE_STREAM)
    assert (answer.usage.cache_write_1h_input_tokens, answer.service_tier) == (51, "flex")
    failed = metered(bedrock_converse.DIALECT, aws_frame("throttlingException", {"message": "x"}, "exception"))
    assert failed.error == "throttlingException"
    ask = bedrock_converse.read_ask(
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Aprofile%2Fx/converse-stream",
        b'{"messages":[{}],"inferenceConfig":{"maxTokens":9},"requestMetadata":{"ticket":"PAY-1"}}',
    )
    assert (ask.model, ask.stream, ask.max_output_tokens, ask.ticket) == (
        "arn:aws:bedrock:us-east-1::profile/x", True, 9, "PAY-1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            b'{"inputTextTokenCount":9,"results":[{"tokenCount":17,"outputText":"x","completionReason":"FINISH"}]}',
            "FINISH",
        ),
        (b'{"choices":[{"index":0,"text":"x","finish_reason":"length"}],"usage":{"prompt_tokens":6}}', "length"),
        (b'{"outputs":[{"text":"x","stop_reason":"stop"}]}', "stop"),
        (b'{"generations":[{"text":"x","finish_reason":"COMPLETE"}]}', "COMPLETE"),
        (b'{"messageStop":{"stopReason":"max_tokens"}}', "max_tokens"),
        (b'{"generation":"x","prompt_token_count":1,"stop_reason":"length"}', "length"),
    ],
)
def test_each_model_of_bedrock_says_elsewhere_why_it_stopped(body: bytes, reason: str) -> None:
    meter = Meter(bedrock_invoke.DIALECT, "aws.bedrock", {})
    meter.feed(body)
    assert meter.finish().finish_reason == reason


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_damaged_aws_frame_stops_the_meter_not_the_call_and_keeps_what_came_before(size: int) -> None:
    damaged = bytearray(INVOKE_CLAUDE)
    damaged[-30] ^= 1
    meter = Meter(bedrock_invoke.DIALECT, "aws.bedrock", {})
    for start in range(0, len(damaged), size):
        meter.feed(bytes(damaged[start : start + size]))
    usage = meter.finish().usage
    assert meter.failed == "ValueError"
    assert (meter.bytes_seen, usage.input_tokens, usage.output_tokens) == (len(damaged), 37, 133)


@pytest.mark.parametrize(
    ("dialect", "stream", "complete"),
    [
        (bedrock_converse.DIALECT, CONVERSE_STREAM, True),
        (bedrock_converse.DIALECT, CONVERSE_STREAM[:-60], False),
        (anthropic_messages.DIALECT, ANTHROPIC_STREAM, True),
        (anthropic_messages.DIALECT, ANTHROPIC_STREAM[:400], False),
        (openai_chat.DIALECT, b'data: {"value":"a stream of some other kind"}\n\n', True),
        (openai_chat.DIALECT, b'{"id":"x","choices":[]}', True),
    ],
)
def test_what_counts_as_a_complete_stream(dialect: Dialect, stream: bytes, complete: bool) -> None:
    meter = Meter(dialect, "openai", {})
    meter.feed(stream)
    assert meter.is_complete() is complete


def test_an_answer_in_many_gzip_members() -> None:
    members = b"".join(gzip.compress(event) for event in sse(*CHAT_CHUNKS, CHAT_USAGE))
    for size in (1, 13, 100_000):
        pieces = [members[i : i + size] for i in range(0, len(members), size)]
        assert metered(openai_chat.DIALECT, *pieces, encoding="gzip").usage.input_tokens == 1200


def test_events_with_mixed_line_ends() -> None:
    mixed = CHAT_STREAM.replace(b"\n\n", b"\n\r\n")
    assert metered(openai_chat.DIALECT, mixed) == metered(openai_chat.DIALECT, CHAT_STREAM)


def test_bedrock_header_counts_stand_in_for_a_body_without_usage() -> None:
    headers = {"X-Amzn-Bedrock-Input-Token-Count": "10", "X-Amzn-Bedrock-Output-Token-Count": "3",
               "X-Amzn-Bedrock-Cache-Read-Input-Token-Count": "100"}  # fmt: skip
    meter = Meter(bedrock_invoke.DIALECT, "aws.bedrock", CIMultiDict(headers))
    meter.feed(b'{"embeddings":[]}')
    usage = meter.finish().usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (110, 3, 100)


def test_cohere_bills_its_billed_units() -> None:
    usage = {"billed_units": {"input_tokens": 12, "output_tokens": 36}, "tokens": {"input_tokens": 212},
             "cached_tokens": 208}  # fmt: skip
    stream = sse({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}})
    answer = metered(cohere_chat.DIALECT, *stream)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.finished) == (12, 36, True)
    lines = b'{"is_finished":true,"response":{"meta":{"billed_units":{"input_tokens":7,"search_units":1}}}}\n'
    v1 = metered(cohere_chat.DIALECT, lines, **{"Content-Type": "application/stream+json"})
    assert (v1.usage.input_tokens, v1.usage.other_units) == (7, {"search_units": 1.0})


COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
def test_compressed_answers(encoding: str) -> None:
    small = COMPRESS[encoding](CHAT_STREAM)
    pieces = [small[i : i + 3] for i in range(0, len(small), 3)]
    assert metered(openai_chat.DIALECT, *pieces, encoding=encoding).usage.input_tokens == 1200


@pytest.mark.parametrize("encoding", COMPRESS)
def test_compressed_requests(encoding: str) -> None:
    body = json.dumps({"model": "m", "input": "x" * 100_000}).encode()
    small = COMPRESS[encoding](body)
    assert decoded(small, encoding, len(body)) == body
    with pytest.raises(TooLargeError):
        decoded(small, encoding, len(body) - 1)
    with pytest.raises(ValueError, match="do not match"):
        decoded(b"this is not compressed at all", encoding, 1000)


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_small_body_that_decodes_to_much_is_stopped_early(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(64 * 1024 * 1024))
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        decoded(bomb, encoding, 1024 * 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 1024 * 1024


def test_bodies_of_several_members_are_decoded_whole() -> None:
    for encoding in ("gzip", "zstd"):
        assert (
            decoded(COMPRESS[encoding](b'{"a":1,') + COMPRESS[encoding](b'"b":2}'), encoding, 100) == b'{"a":1,"b":2}'
        )


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])  # a cut zstd body comes out short: no valid JSON
def test_a_compressed_body_that_is_cut_is_an_error(encoding: str) -> None:
    with pytest.raises(ValueError, match="do not match"):
        decoded(COMPRESS[encoding](bytes(range(256)) * 40)[:-5], encoding, 100_000)


def test_json_that_strict_readers_refuse_is_metered_and_read() -> None:
    odd = (
        b'{"model":"m","choices":[{"logprob":NaN,"text":"\\ud83d"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    )
    assert metered(openai_chat.DIALECT, odd).usage.input_tokens == 3
    assert openai_chat.read_ask("/v1/chat/completions", b'{"model":"m","messages":["\\ud83d"]}').message_count == 1


def test_an_answer_that_is_no_json_is_a_failure_that_shows() -> None:
    meter = Meter(openai_chat.DIALECT, "openai", {})
    meter.feed(b'{"usage": {"prompt_tok')
    meter.finish()
    assert meter.failed is not None


def test_the_deployment_that_is_asked_counts_not_the_name_in_the_body() -> None:
    path = "/openai/deployments/gpt-5-pro/chat/completions"
    assert openai_chat.read_ask(path, b'{"model":"gpt-5.4-mini"}').model == "gpt-5-pro"


def test_names_are_cut() -> None:
    assert len(openai_chat.read_ask("/", b'{"model":"%s"}' % (b"x" * 5000)).model or "") == 256


def test_usage_chunk_is_hidden_and_nothing_else() -> None:
    plain = b"".join(sse(*CHAT_CHUNKS)) + b": a comment\n\ndata: [DONE]\n\n"
    with_usage = plain.replace(b": a comment", sse(CHAT_USAGE)[0] + b": a comment")
    for size in (1, 7, 100_000):
        hider = UsageHider()
        shown = b"".join(hider.feed(with_usage[i : i + size]) for i in range(0, len(with_usage), size)) + hider.rest()
        assert shown == plain


def test_a_usage_chunk_that_still_has_choices_is_not_hidden() -> None:
    chunk = sse({**CHAT_USAGE, "choices": [{"delta": {"content": "x"}}]})[0]
    assert UsageHider().feed(chunk) == chunk


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m","stream":true}', b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream":true , "n": 1.0 }\n', b'{"stream":true , "n": 1.0 ,"stream_options":{"include_usage":true}}\n'),
        (b'{"stream":true,"stream_options":{"include_usage":true}}', None),
        (b'{"stream":true,"stream_options":[]}', None),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream":false}', None),
        (b"{}", None),
    ],
)
def test_asking_for_usage_leaves_the_other_bytes(body: bytes, expected: bytes | None) -> None:
    assert openai_chat.ask_for_usage(body) == expected


def test_asking_for_usage_keeps_other_stream_options() -> None:
    body = b'{"a":1e3,"stream":true,"stream_options":{"include_obfuscation":false,"include_usage":false}}'
    changed = openai_chat.ask_for_usage(body)
    assert changed is not None
    assert json.loads(changed)["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert changed.startswith(b'{"a":1e3,')


def test_what_an_answer_says_does_not_stand_in_a_log() -> None:
    meter = Meter(openai_chat.DIALECT, "openai", {"X-Secret": "a secret"})
    meter.feed(b'{"choices":[{"message":{"content":"a sec')
    meter.feed(b'ret"}}]}')
    for shown in (repr(meter), repr(meter.feed), repr(meter._reader), repr(meter._framing)):
        assert "secret" not in shown
        assert "a sec" not in shown
