"""What each wire format means by its numbers: one small answer per shape, whole or as a stream."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import dialects
from gateway.call import Answer, Ask
from gateway.dialects import DIALECTS
from gateway.dialects.base import Dialect
from gateway.dialects.openai_shapes import fold_usage
from gateway.errors import Refusal
from gateway.framing import Events, Items, Json, data_of
from gateway.meter import Meter
from gateway.reading import names
from tests.fakes.upstream import sse


def dialect_of(path: str, method: str = "POST") -> Dialect:
    found = dialects.find(method, path)
    assert found is not None
    return found[0]


def metered(path: str, *body: Any, provider: str = "openai", kind: str = "application/json") -> Answer:
    """One JSON value is a whole answer, several are a stream."""
    method = "GET" if path.endswith("/realtime") else "POST"
    meter = Meter(dialect_of(path, method), provider, {"Content-Type": kind if len(body) == 1 else "text/event-stream"})
    content = json.dumps(body[0]).encode() if len(body) == 1 else b"".join(sse(*body))
    for start in range(0, len(content), 7):
        meter.feed(content[start : start + 7])
    answer = meter.finish()
    assert meter.failed is None
    return answer


def counts(answer: Answer) -> dict[str, Any]:
    """What is known of the usage, without what is not and the 0s beside it."""
    usage = {name: getattr(answer.usage, name) for name in answer.usage.__struct_fields__}
    return {name.removesuffix("_tokens"): value for name, value in usage.items() if value}


KEYS = st.sampled_from(
    [
        "model",
        "id",
        "type",
        "object",
        "usage",
        "choices",
        "message",
        "delta",
        "response",
        "data",
        "results",
        "output",
        "metadata",
        "error",
        "status",
        "model_id",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "cost",
        "cost_in_usd_ticks",
        "cache_creation",
        "iterations",
        "server_tool_use",
        "usageMetadata",
        "promptTokenCount",
        "modality",
        "promptTokensDetails",
        "tokenCount",
        "candidates",
        "groundingMetadata",
        "webSearchQueries",
        "predictions",
        "embeddings",
        "statistics",
        "token_count",
        "inputTokens",
        "outputTokens",
        "cacheDetails",
        "trace",
        "done",
        "eval_count",
        "billed_units",
        "meta",
        "seconds",
        "duration",
        "n",
        "stream",
        "messages",
        "contents",
        "tools",
        "parameters",
        "durationSeconds",
        "generation_config",
        "max_tokens",
        "user_id",
        "session",
        "transcription",
        "video",
        "units",
        "usage_info",
        "pages_processed",
        "input_token_count",
        "service_tier",
        "speed",
        "interaction",
    ]
)
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
GEMINI, INTERACTIONS = "/v1beta/models/g:generateContent", "/v1beta/interactions"
TWO_TO_ONE = {"prompt_tokens": 20, "completion_tokens": 10}


@pytest.mark.parametrize(
    ("usage", "provider", "found"),
    [
        ({**TWO_TO_ONE, "num_cached_tokens": 8}, "mistral_ai", {"cache_read_input": 8}),
        ({**TWO_TO_ONE, "cached_tokens": 8}, "together", {"cache_read_input": 8}),
        ({**TWO_TO_ONE, "prompt_cache_hit_tokens": 8}, "deepseek", {"cache_read_input": 8}),
        (
            {**TWO_TO_ONE, "cache_read_input_tokens": 8, "prompt_tokens_details": {"cached_tokens": 6}},
            "venice",
            {"cache_read_input": 8},  # two statements of one thing: the larger
        ),
        (
            {**TWO_TO_ONE, "cache_creation_input_tokens": 7, "cache_creation": {"ephemeral_1h_input_tokens": 3}},
            "doubleword",
            {"cache_write_input": 7, "cache_write_1h_input": 3},
        ),
        ({**TWO_TO_ONE, "reasoning_tokens": 4}, "github-copilot", {"reasoning_output": 4}),
        ({**TWO_TO_ONE, "prompt_tokens_details": {"image_tokens": 5}}, "azure.ai.inference", {"image_input": 5}),
        ({**TWO_TO_ONE, "search_context_size": "low"}, "perplexity", {"other_units": {"search_context_low": 1.0}}),
        ({**TWO_TO_ONE, "num_search_queries": 3, "citation_tokens": 9}, "perplexity",
         {"web_search_requests": 3, "other_units": {"citation_tokens": 9.0}}),
        ({**TWO_TO_ONE, "server_tool_use_details": {"web_search_requests": 2}}, "openrouter",
         {"web_search_requests": 2}),
    ],
)  # fmt: skip
def test_names_that_compatible_servers_use(usage: dict[str, Any], provider: str, found: dict[str, Any]) -> None:
    answer = metered(CHAT, {"model": "m", "choices": [], "usage": usage}, provider=provider)
    assert counts(answer) == {"input": 20, "output": 10, **found}


def test_usage_inside_a_choice() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": TWO_TO_ONE}
    assert counts(metered(CHAT, {"id": "1"}, {"id": "1", "choices": [choice]})) == {"input": 20, "output": 10}


def test_a_search_model_searches_once_per_call() -> None:
    answer = metered(CHAT, {"model": "gpt-4o-search-preview-2025-03-11", "usage": TWO_TO_ONE})
    assert answer.usage.web_search_requests == 1


def test_xai_counts_its_own_tools() -> None:
    usage = {
        "input_tokens": 20,
        "output_tokens": 10,
        "server_side_tool_usage_details": {"web_search_calls": 0, "x_search_calls": 1, "code_interpreter_calls": 2},
        "cost_in_usd_ticks": 161_508_500,
    }
    output = [{"type": "web_search_call", "action": {"type": "search"}}] * 4
    answer = metered(RESPONSES, {"object": "response", "output": output, "usage": usage}, provider="x_ai")
    assert (answer.usage.web_search_requests, answer.provider_cost_nano) == (0, 16_150_850)
    assert answer.usage.other_units == {"social_searches": 1.0, "code_executions": 2.0}


def test_the_image_tool_is_a_pass_of_another_model() -> None:
    image = {"input_tokens": 60, "output_tokens": 1000, "output_tokens_details": {"image_tokens": 1000}}
    answer = metered(
        RESPONSES,
        {
            "model": "gpt-5.6-sol",
            "output": [
                {"type": "image_generation_call"},
                {"type": "file_search_call"},
                {"type": "code_interpreter_call"},
            ],
            "tools": [{"type": "web_search"}, {"type": "image_generation", "model": "gpt-image-1.5"}],
            "tool_usage": {"image_gen": image, "web_search": {"num_requests": 2}},
            "usage": {"input_tokens": 20, "output_tokens": 10},
        },
    )
    [one] = answer.subpasses
    assert (one.model, one.usage.input_tokens, one.usage.image_output_tokens) == ("gpt-image-1.5", 60, 1000)
    assert counts(answer) == {
        "input": 20,
        "output": 10,
        "web_search_requests": 2,
        "other_units": {
            "images": 1.0,
            "file_searches": 1.0,
            "code_interpreter_calls": 1.0,
            "subpass_input_tokens": 60.0,
            "subpass_output_tokens": 1000.0,
        },
    }


def pass_of(kind: str, tokens: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "input_tokens": tokens, "output_tokens": tokens // 10, **more}


def test_an_advisor_and_a_compaction_are_passes_beside_the_message() -> None:
    iterations = [
        pass_of("compaction", 100, cache_creation_input_tokens=55_000),
        pass_of("message", 30),
        pass_of("advisor_message", 200, model="claude-opus-4-8"),
        pass_of("message", 40),
    ]
    usage = {"input_tokens": 70, "output_tokens": 7, "iterations": iterations, "inference_geo": "us", "speed": "fast"}
    answer = metered(MESSAGES, {"type": "message", "model": "claude-sonnet-5", "usage": usage}, provider="anthropic")
    assert [(one.model, one.usage.input_tokens) for one in answer.subpasses] == [
        (None, 55_100),
        ("claude-opus-4-8", 200),
    ]
    assert counts(answer) == {
        "input": 70,
        "output": 7,
        "other_units": {"subpass_input_tokens": 55_300.0, "subpass_output_tokens": 30.0},
    }
    assert (answer.region, answer.service_tier) == ("us", "fast")


def test_a_stream_restates_its_passes() -> None:
    start = {"type": "message_start", "message": {"model": "claude-sonnet-5", "usage": {"input_tokens": 70}}}
    deltas = [
        {"type": "message_delta", "usage": {"output_tokens": 7, "iterations": [pass_of("compaction", tokens)]}}
        for tokens in (100, 200)
    ]
    answer = metered(MESSAGES, start, *deltas, provider="anthropic")
    assert [one.usage.input_tokens for one in answer.subpasses] == [200]
    assert answer.usage.other_units == {"subpass_input_tokens": 200.0, "subpass_output_tokens": 20.0}


def test_after_a_fallback_the_other_model_served() -> None:
    iterations = [pass_of("message", 408), pass_of("fallback_message", 412, model="claude-opus-4-8")]
    start = {"type": "message_start", "message": {"model": "claude-fable-5", "usage": {"input_tokens": 408}}}
    delta = {"type": "message_delta", "usage": {"input_tokens": 412, "output_tokens": 41, "iterations": iterations}}
    answer = metered(MESSAGES, start, delta, provider="anthropic")
    assert (answer.response_model, answer.usage.input_tokens) == ("claude-opus-4-8", 412)
    assert [one.usage.input_tokens for one in answer.subpasses] == [408]


def test_openrouter_states_its_cost_in_anthropics_format_too() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "cost": 0.000112}
    message = {"type": "message", "model": "m", "usage": usage}
    assert metered(MESSAGES, message, provider="openrouter").provider_cost_nano == 112_000
    assert metered(MESSAGES, message, provider="anthropic").provider_cost_nano is None


def test_geminis_modalities_tiers_and_searches() -> None:
    metadata = {
        "promptTokenCount": 1000,
        "candidatesTokenCount": 200,
        "cachedContentTokenCount": 300,
        "trafficType": "ON_DEMAND_FLEX",
        "promptTokensDetails": [
            {"modality": 2, "tokenCount": 258},
            {"modality": "AUDIO", "tokenCount": 90},
            {"modality": "VIDEO", "tokenCount": 80},
            {"modality": "DOCUMENT", "tokenCount": 70},
        ],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 60}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 111}],
    }
    grounded = {"groundingMetadata": {"webSearchQueries": ["a", "b", "a", ""]}}
    body = {"modelVersion": "gemini-3-flash", "candidates": [grounded], "usageMetadata": metadata}
    answer = metered(GEMINI, {"response": body}, provider="gcp.gemini")  # wrapped, as Code Assist sends it
    assert counts(answer) == {
        "input": 1000,
        "output": 200,
        "cache_read_input": 300,
        "audio_input": 90,
        "audio_output": 111,
        "image_input": 258,
        "web_search_requests": 2,
        "other_units": {
            "cache_read_audio_tokens": 60.0,
            "video_input_tokens": 80.0,
            "document_input_tokens": 70.0,
        },
    }
    assert answer.service_tier == "ON_DEMAND_FLEX"


def test_vertex_counts_embeddings_per_text() -> None:
    texts = [{"embeddings": {"statistics": {"token_count": number}}} for number in (1, 2)]
    path = "/v1/projects/p/locations/l/publishers/google/models/text-embedding-004:predict"
    answer = metered(path, {"predictions": texts, "metadata": {"billableCharacterCount": 20}}, provider="gcp.vertex_ai")
    assert counts(answer) == {"input": 3, "other_units": {"characters": 20.0}}


def test_mistrals_conversations_answer_where_others_only_keep() -> None:
    path, usage = "/v1/conversations/c/restart", {**TWO_TO_ONE, "connectors": {"web_search": 1}}
    found = dialects.find("POST", path, "mistral_ai")
    assert found is not None
    assert (found[0].name, found[1].operation) == ("openai_chat", "chat")
    for provider in ("openai", "azure.ai.openai"):
        other = dialects.find("POST", path, provider)
        assert other is not None
        assert other[1].operation is None
    whole = {"object": "conversation.response", "outputs": [{"model": "mistral-medium-latest"}], "usage": usage}
    delta = {"type": "message.output.delta", "model": "mistral-medium-latest", "content": "a"}
    for body in [[whole], [delta, {"type": "conversation.response.done", "usage": usage}]]:
        answer = metered(CHAT, *body, provider="mistral_ai")
        assert counts(answer) == {"input": 20, "output": 10, "web_search_requests": 1}
        assert answer.response_model == "mistral-medium-latest"
    assert answer.finished


def test_interactions() -> None:
    usage = {
        "total_input_tokens": 53,
        "total_output_tokens": 269,
        "total_thought_tokens": 279,
        "total_tool_use_tokens": 10,
        "total_cached_tokens": 4,
        "raw_prompt_token": 4779,
        "input_tokens_by_modality": [{"modality": "image", "tokens": 50}],
    }
    done = {"id": "v1_1", "model": "gemini-3-flash-preview", "status": "completed", "usage": usage}
    begun = {"event_type": "interaction.created", "interaction": {"id": "v1_1", "status": "in_progress"}}
    for body in [[done], [begun, {"event_type": "interaction.completed", "interaction": done}]]:
        answer = metered(INTERACTIONS, *body, provider="gcp.gemini")
        assert counts(answer) == {
            "input": 63,
            "output": 548,
            "reasoning_output": 279,
            "cache_read_input": 4,
            "image_input": 50,
            "other_units": {"tool_use_prompt_tokens": 10.0},
        }
        assert (answer.finish_reason, answer.pending) == ("completed", False)
    assert metered(INTERACTIONS, {"id": "v1_1", "status": "in_progress"}).pending


def test_images() -> None:
    details = {"input_tokens_details": {"image_tokens": 194}, "output_tokens_details": {"image_tokens": 272}}
    usage = {"input_tokens": 221, "output_tokens": 415, **details}
    answer = metered("/v1/images/edits", {"data": [{"b64_json": "x"}], "usage": usage})
    assert counts(answer) == {"input": 221, "output": 415, "image_input": 194, "image_output": 272}
    partial = {"type": "image_generation.partial_image", "b64_json": "x"}
    end = {"type": "image_generation.completed", "usage": usage}
    streamed = metered("/v1/images/generations", partial, end)
    assert (counts(streamed), streamed.finish_reason) == (counts(answer), "completed")
    silent = metered("/v1/images/generations", {"data": [{"url": "x"}, {"url": "y"}]})
    assert (counts(silent), silent.units) == ({}, {"images": 2.0})
    own = metered(
        "/v1/images/generations", {"data": [{}], "usage": {"cost_in_usd_ticks": 700_000_000}}, provider="x_ai"
    )
    assert own.provider_cost_nano == 70_000_000
    router = metered("/api/v1/images", {"data": [{}], "usage": {"prompt_tokens": 5, "completion_tokens": 1537}})
    assert counts(router) == {"input": 5, "output": 1537}


@pytest.mark.parametrize(
    ("body", "found", "units"),
    [
        ({"usage": {"type": "duration", "seconds": 6}}, {"other_units": {"seconds": 6.0}}, {}),
        (
            {"usage": {"input_tokens": 37, "input_token_details": {"audio_tokens": 37}, "output_tokens": 145}},
            {"input": 37, "audio_input": 37, "output": 145},
            {},
        ),
        (
            {"usage": {"prompt_audio_seconds": 3, "prompt_tokens": 3, "completion_tokens": 11, "total_tokens": 389,
                       "prompt_tokens_details": {"audio_tokens": 375}}},
            {"input": 378, "audio_input": 375, "output": 11, "other_units": {"seconds": 3.0}},
            {},
        ),
        ({"text": "x", "duration": 5.5}, {}, {"seconds": 5.5}),
        ({"text": "the sun rises in the east"}, {}, {"seconds": 2.4}),  # six words at 150 a minute
    ],
)  # fmt: skip
def test_transcriptions(body: Any, found: dict[str, Any], units: dict[str, float]) -> None:
    answer = metered("/v1/audio/transcriptions", body)
    assert (counts(answer), answer.units) == (found, units)


def test_a_transcription_that_streams() -> None:
    done = {"type": "transcript.text.done", "usage": {"type": "tokens", "input_tokens": 37, "output_tokens": 145}}
    answer = metered("/v1/audio/transcriptions", {"type": "transcript.text.delta", "delta": "a"}, done)
    assert (counts(answer), answer.finished) == ({"input": 37, "output": 145}, True)


def test_other_shapes() -> None:
    pages = {"model": "mistral-ocr-latest", "usage_info": {"pages_processed": 2, "doc_size_bytes": 9}}
    assert counts(metered("/v1/ocr", pages)) == {"other_units": {"pages": 2.0}}
    policies = {"action": "NONE", "usage": {"contentPolicyUnits": 1, "topicPolicyUnits": 0, "wordPolicyFreeUnits": 3}}
    assert counts(metered("/guardrail/g/version/1/apply", policies)) == {
        "other_units": {"guardrail_content_units": 1.0}
    }
    run = {"object": "thread.run", "id": "run_1", "model": "gpt-4o-mini", "status": "queued", "usage": None}
    assert metered("/v1/threads/t/runs", run).pending
    used = {"prompt_tokens": 381, "completion_tokens": 88, "prompt_token_details": {"cached_tokens": 5}}
    ended = metered("/v1/threads/t/runs", run, {**run, "status": "completed", "usage": used})
    assert (counts(ended), ended.pending, ended.finish_reason) == (
        {"input": 381, "output": 88, "cache_read_input": 5}, False, "completed",
    )  # fmt: skip
    generated = [{"results": [{"input_token_count": n, "generated_token_count": m}]} for n, m in ((7, 1), (0, 2))]
    assert counts(metered("/ml/v1/text/generation_stream", *generated)) == {"input": 7, "output": 2}
    video = metered("/v1/videos/generations", {"request_id": "q1"}, provider="x_ai")
    assert (video.pending, video.upstream_id) == (True, "q1")


def test_steps_of_a_bedrock_agent_add_up() -> None:
    steps = [
        {"trace": {"trace": {"orchestrationTrace": {"modelInvocationOutput": {"metadata": {"usage": usage}}}}}}
        for usage in ({"inputTokens": 10, "outputTokens": 1}, {"inputTokens": 20, "outputTokens": 2})
    ]
    answer = metered("/agents/a/agentAliases/b/sessions/c/text", *steps, provider="aws.bedrock")
    assert counts(answer) == {"input": 30, "output": 3}


def test_the_responses_of_a_session_add_up() -> None:
    def done(tokens: int) -> dict[str, Any]:
        details = {"input_token_details": {"audio_tokens": tokens}}
        usage = {"input_tokens": tokens, "output_tokens": 1, **details}
        return {"type": "response.done", "response": {"status": "completed", "usage": usage}}

    assert counts(metered("/v1/realtime", done(95), done(122))) == {"input": 217, "output": 2, "audio_input": 217}


FORM = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'


@pytest.mark.parametrize(
    ("path", "body", "ask"),
    [
        ("/v1/audio/speech", b'{"model": "tts-1", "input": "hello"}', Ask(model="tts-1", units={"characters": 5.0})),
        ("/v1/images/generations", b'{"n": 2, "prompt": "x"}', Ask(model="dall-e-2", units={"images": 2.0})),
        ("/v1/videos", b'{"model": "sora-2", "seconds": "4"}', Ask(model="sora-2", units={"video_seconds": 4.0})),
        (
            "/v1/audio/transcriptions",
            FORM + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n\x00\x00\r\n--x--\r\n',
            Ask(model="whisper-1"),
        ),
        ("/v1/audio/transcriptions", b"\x00\xff", Ask()),
        ("/endpoints/my-model/invocations", b"\x00\xff", Ask(model="my-model", refers=True)),
    ],
)
def test_what_a_request_itself_decides(path: str, body: bytes, ask: Ask) -> None:
    assert dialect_of(path).read_ask(path, body) == ask


def test_a_form_with_two_models_is_refused() -> None:
    with pytest.raises(Refusal, match="the field model twice"):
        dialect_of("/v1/audio/transcriptions").read_ask("/v1/audio/transcriptions", FORM * 2 + b"--x--")


def test_the_model_of_a_session_stands_in_its_query() -> None:
    path = "/v1/realtime?api-version=1&deployment=gpt-realtime"
    assert dialect_of("/v1/realtime", "GET").read_ask(path, b"").model == "gpt-realtime"


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("9" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from(DIALECTS), st.dictionaries(KEYS, VALUES, max_size=6), st.sampled_from(["openai", "x_ai", "gcp.x"])
)
def test_no_answer_is_too_odd_to_fold(dialect: Dialect, data: dict[str, Any], provider: str) -> None:
    answer = Answer()
    for _ in range(2):
        dialect.fold(answer, data, provider)
    for name in answer.usage.__struct_fields__:
        value = getattr(answer.usage, name)
        assert value is None or name == "other_units" or (isinstance(value, int) and value >= 0)


@given(st.sampled_from(DIALECTS), VALUES | st.dictionaries(KEYS, VALUES, max_size=6))
def test_no_request_is_too_odd_to_read(dialect: Dialect, value: Any) -> None:
    for body in (json.dumps(value).encode(), str(value).encode("utf-8", "replace")):
        with contextlib.suppress(Refusal):
            dialect.read_ask("/v1/models/m:predict", body)


def test_one_odd_value_hides_no_usage() -> None:
    usage = b'"usage":{"prompt_tokens":1000,"completion_tokens":2000}}'
    for odd in (b'"\xff"', b"1e400", b"9" * 5000, b"NaN", b'"\\ud83d"'):
        meter = Meter(dialect_of(CHAT), "openai", {"Content-Type": "application/json"})
        meter.feed(b'{"odd":' + odd + b"," + usage)
        assert meter.finish().usage.output_tokens == 2000, odd[:9]


def test_the_model_may_come_after_events_that_name_none() -> None:
    filtered = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    meter = Meter(dialect_of(CHAT), "azure.ai.openai", {})
    meter.feed(b"".join(sse(filtered, {"id": "c1", "model": "gpt-4o", "choices": [{"delta": {"content": "a"}}]})))
    assert meter.finish().response_model == "gpt-4o"
    assert not meter.is_complete()  # recognised, and cut


# Framings that only some dialects need

ITEMS: Any = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30)  # to make such values up takes nearly all of the time
@given(st.lists(st.dictionaries(st.text(), ITEMS)), st.sampled_from([None, 1]), st.integers(1, 50))
def test_items_of_an_array_come_whole_wherever_it_is_cut(values: list[Any], indent: int | None, size: int) -> None:
    content = json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    framing, found = Items(), []
    for start in range(0, len(content), size):
        found += framing.feed(content[start : start + size])
    assert [json.loads(item) for item in found] == json.loads(content)
    assert not framing.is_open
    assert len(framing) == 0


def test_a_long_array_is_never_held_whole() -> None:
    framing = Items()
    framing.feed(b"[")
    for _ in range(1000):
        assert len(framing.feed(b'{"text": "' + b"x" * 1000 + b'"}\n,\n')) == 1
        assert len(framing) < 10
    assert framing.is_open


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(), ITEMS), min_size=2, max_size=4), st.integers(1, 50))
def test_lines_that_nobody_announced(values: list[Any], size: int) -> None:
    lines = [json.dumps(value) for value in values]
    content = "\n".join(lines).encode()
    framing, found = Json(), []
    for start in range(0, len(content), size):
        found += framing.feed(content[start : start + size])
    assert [json.loads(line) for line in [*found, framing.rest()] if line] == values


LINE = st.sampled_from(
    [b"data: {}", b"data:{}", b"data: ", b"event: data: x", b": data: x", b"data", b"error: e", b"id: 1", b"x data: y"]
)
END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(LINE, max_size=3), END, st.sampled_from([0, 1, 2]))
def test_the_data_of_an_event_is_that_of_its_lines(lines: list[bytes], end: bytes, ends: int) -> None:
    wanted = [line.partition(b":")[2].removeprefix(b" ") for line in lines if line.startswith((b"data:", b"error:"))]
    assert data_of(end.join(lines) + end * ends) == b"\n".join(wanted)


@given(
    st.lists(st.tuples(st.lists(LINE, min_size=1, max_size=2), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]))),
    st.data(),
)
def test_events_are_the_same_wherever_the_network_cuts(events: list[tuple[list[bytes], bytes]], data: Any) -> None:
    content = b"".join(b"\n".join(lines) + end for lines, end in events)
    framing, found, at = Events(), [], 0
    while at < len(content):
        size = data.draw(st.integers(1, 30))
        found += framing.feed(content[at : at + size])
        at += size
    assert b"".join(found) + framing.rest() == content
    assert found == Events().feed(content)


good_counts = st.integers(0, 3000)
odd_counts = st.sampled_from([None, -1, 12.0, 12.5, True, "5", 2**53, 2**53 + 1, 2**70, {}, []])


def objects(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), values, max_size=4)


DETAILS = names(
    "cached_tokens cache_write_tokens audio_tokens image_tokens reasoning_tokens video_tokens text_tokens "
    "cache_creation_input_tokens"
)
in_detail = st.one_of(objects(sorted(DETAILS), each) for each in (good_counts, good_counts, good_counts | odd_counts))
sides = st.sampled_from(["prompt", "completion", "input", "output"])
usage_objects = st.builds(
    lambda totals, details, more: totals | details | more,
    st.dictionaries(sides.map("{}_tokens".format) | st.just("total_tokens"), good_counts | odd_counts),
    st.dictionaries(sides.map("{}_tokens_details".format), in_detail, max_size=2),
    st.just({}) | objects(["prompt_token_details", "cached_tokens", "service_tier"], in_detail | good_counts),
)


@settings(max_examples=500)
@given(
    st.lists(usage_objects, min_size=1, max_size=2),
    st.sampled_from([("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")]),
    st.sampled_from(["openai", "gcp.gemini", "openrouter"]),
)
def test_counts_that_are_read_at_once_are_those_that_are_read_one_by_one(
    stated: list[dict[str, Any]], keys: tuple[str, str], provider: str
) -> None:
    at_once, one_by_one = Answer(), Answer()
    for data in stated:
        fold_usage(at_once, data, provider, *keys)
        fold_usage(one_by_one, {**data, "citation_tokens": None}, provider, *keys)  # an unusual field, of no count
    assert at_once == one_by_one


def test_an_odd_count_hides_no_other() -> None:
    openai = {"prompt_tokens": 9, "completion_tokens": "7", "prompt_tokens_details": {"cached_tokens": 4.0}}
    assert counts(metered("/v1/chat/completions", {"id": "x", "usage": openai})) == {"input": 9, "cache_read_input": 4}
    created = {"ephemeral_1h_input_tokens": 3.0}
    claude = {"input_tokens": 9, "output_tokens": -7, "cache_creation_input_tokens": 5, "cache_creation": created}
    message = {"type": "message", "usage": {**claude, "cache_read_input_tokens": True, "output_tokens_details": []}}
    assert counts(metered("/v1/messages", message)) == {
        "input": 14,
        "cache_write_input": 5,
        "cache_write_1h_input": 3,
    }
