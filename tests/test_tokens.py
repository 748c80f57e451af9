"""Token estimates: the shipped tokenizer, what is read in a body, calibration, and that the loop is not held up."""

import asyncio
import base64
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway import texts, tokens
from gateway.errors import UserError
from gateway.tokens import Corrections, Estimator, Family, count, family_of

ROOT = Path(__file__).parent.parent
PROSE = "Refunds must be idempotent: a retried webhook may never pay out twice. " * 40
IMAGE = base64.b64encode(random.Random(7).randbytes(30_000)).decode()


@pytest.fixture
def estimator() -> Iterator[Estimator]:
    it = Estimator()
    yield it
    it.close()


# -- the tokenizer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # as another implementation of the same ranks counts them (bpe-openai 0.1.4)
        ("", 0),
        ("hello world", 2),
        ("tiktoken is great!", 6),
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 8),
        ("<|endoftext|>", 7),
        ("\n\n\t\tif x:\n", 5),
    ],
)
def test_known_counts(text: str, expected: int) -> None:
    assert count([text]) == expected


def test_the_tokenizer_needs_no_network_and_no_cache(tmp_path: Path) -> None:
    script = """
import socket
def refuse(*arguments, **options):
    raise SystemExit("the network was asked")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from gateway.tokens import count
print(count(["hello world"]))
"""
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_is_not_loaded_with_the_module() -> None:
    script = "import sys, gateway.tokens; print('tiktoken' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", script], env=environment, text=True) == "False\n"


@pytest.mark.parametrize("damage", ["one rank changed", "cut", "no zstd", "missing", "too long"])
async def test_damaged_ranks_are_refused_and_estimates_go_on(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "o200k_base.tiktoken.zst"
    packed = tokens.RANKS.read_bytes()
    ranks = zstandard.ZstdDecompressor().decompress(packed)
    pack = zstandard.ZstdCompressor(level=1).compress
    if damage != "missing":
        path.write_bytes(
            {
                "one rank changed": pack(ranks.replace(b" 199997\n", b" 199996\n")),
                "cut": packed[:-1000],
                "no zstd": gzip.compress(b"IQ== 0"),
                "too long": pack(ranks + b"IQ== 199998\n"),
            }[damage]
        )
    with pytest.raises(UserError, match=r"o200k_base.*Install Outlay again"):
        tokens.encoding(path)
    estimator = Estimator(path)
    body = b'{"prompt": "hello world, hello world"}'
    assert estimator.failure is None
    assert await estimator.request_tokens("openai", "gpt-4o", body) == len(body) // 4
    assert estimator.failure is not None
    assert str(path) in estimator.failure
    estimator.close()


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "a", "\u0301", "\ud800"])
def test_a_million_of_one_character(blank: str) -> None:
    assert 0 < count([blank * 1_000_000]) <= 1_000_000


def test_long_text_is_sampled_evenly() -> None:
    half = PROSE * (tokens.COUNTED_CHARS_MAX // len(PROSE))
    mixed = [half, "漢字仮名交じり文。" * (len(half) // 9)]
    exact = sum(count([part]) for part in mixed)
    assert sum(map(len, mixed)) > 1.9 * tokens.COUNTED_CHARS_MAX
    assert abs(count(mixed) / exact - 1) < 0.05


# -- requests -----------------------------------------------------------------------------------------------------

REQUESTS: dict[str, Any] = {
    "openai_chat": {"messages": [{"role": "user", "content": PROSE}]},
    "openai_chat parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": PROSE}]}]},
    "openai_responses": {"input": PROSE, "reasoning": {"effort": "high"}, "store": False},
    "openai_responses items": {"input": [{"role": "user", "content": [{"type": "input_text", "text": PROSE}]}]},
    "completions": {"prompt": PROSE, "max_tokens": 10},
    "embeddings": {"input": [PROSE[:1000], PROSE[1000:]], "encoding_format": "float"},
    "anthropic_messages": {"system": [{"type": "text", "text": PROSE, "cache_control": {"type": "ephemeral"}}]},
    "anthropic tool result": {
        "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": PROSE}]}]
    },
    "anthropic text document": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": PROSE}}
                ],
            }
        ]
    },
    "anthropic complete": {"prompt": f"\n\nHuman: {PROSE}\n\nAssistant:", "max_tokens_to_sample": 9},
    "gemini": {"contents": [{"parts": [{"text": PROSE}]}], "generationConfig": {"temperature": 0}},
    "gemini system": {"systemInstruction": {"parts": [{"text": PROSE}]}, "contents": []},
    "gemini embed": {"content": {"parts": [{"text": PROSE}]}, "taskType": "RETRIEVAL_QUERY"},
    "bedrock_converse": {"messages": [{"role": "user", "content": [{"text": PROSE}]}], "inferenceConfig": {"topP": 1}},
    "bedrock titan": {"inputText": PROSE, "textGenerationConfig": {"maxTokenCount": 9}},
    "cohere v1": {"message": PROSE, "chat_history": [], "stream": True},
    "ollama": {"prompt": PROSE, "options": {"num_ctx": 8192}},
}


@pytest.mark.parametrize("shape", REQUESTS)
def test_requests_of_any_dialect(shape: str) -> None:
    found = tokens.readable(
        json.dumps({"model": "a-model-with-a-name-of-many-tokens-" * 9, **REQUESTS[shape]}).encode()
    )
    assert 1 <= tokens.request_estimate(found, tokens.OTHER) / count([PROSE]) < 1.05
    assert found.attachments == 0


ATTACHMENTS: dict[str, Any] = {
    "openai_chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}", "detail": "high"}},
    "openai_chat link": {"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}},
    "openai_chat file": {"type": "file", "file": {"filename": "a.pdf", "file_data": IMAGE}},
    "openai_chat sound": {"type": "input_audio", "input_audio": {"data": IMAGE, "format": "wav"}},
    "openai_responses": {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"},
    "openai_responses file": {"type": "input_file", "file_id": "file-123"},
    "anthropic_messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
    "gemini": {"inlineData": {"mimeType": "image/png", "data": IMAGE}},
    "gemini short": {"type": "image", "mime_type": "image/png", "data": "iVBORw0KGgo="},
    "gemini file": {"file_data": {"mime_type": "video/mp4", "file_uri": "gs://bucket/film.mp4"}},
    "bedrock_converse": {"image": {"format": "png", "source": {"bytes": IMAGE}}},
    "anything": {"blob": IMAGE},
}


@pytest.mark.parametrize("shape", ATTACHMENTS)
def test_attachments_count_flat(shape: str) -> None:
    plain = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]}
    alone = tokens.request_estimate(tokens.readable(json.dumps(plain).encode()), tokens.OTHER)
    plain["messages"][0]["content"].append(ATTACHMENTS[shape])  # type: ignore[attr-defined]
    found = tokens.readable(json.dumps(plain).encode())
    assert found.attachments == 1
    assert tokens.request_estimate(found, tokens.OTHER) == pytest.approx(alone + tokens.ATTACHMENT_TOKENS, abs=5)


def test_settings_of_media_are_no_attachments() -> None:
    request = {"prompt": "?", "audio": {"voice": "alloy", "format": "wav"}, "image": None, "images": []}
    assert tokens.readable(json.dumps(request).encode()).attachments == 0


def test_ollama_images_count_each() -> None:
    assert tokens.readable(json.dumps({"prompt": "?", "images": [IMAGE, IMAGE]}).encode()).attachments == 2


def test_base64_in_a_large_request_is_left_out() -> None:
    content = [{"type": "text", "text": PROSE}, {"type": "image_url", "image_url": {"url": IMAGE * 100}}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    assert len(body) > tokens.PARSED_BYTES_MAX
    found = tokens.readable(body)
    assert (found.parts, found.attachments) == ([PROSE], 1)


MANY = {"type": "text", "text": PROSE}
PDF = {"type": "base64", "media_type": "application/pdf", "data": IMAGE}
MOST: dict[str, tuple[dict[str, Any], int]] = {
    "an image": (ATTACHMENTS["openai_chat"], tokens.IMAGE_TOKENS_MAX),
    "an image's address": (ATTACHMENTS["openai_chat link"], tokens.IMAGE_TOKENS_MAX),
    "an image beside its type": (
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo" + IMAGE}},
        tokens.IMAGE_TOKENS_MAX,
    ),
    "what is no image beside such a type": (ATTACHMENTS["gemini"], len(IMAGE)),
    "a document": ({"type": "document", "source": PDF}, len(IMAGE)),
    "a file": (ATTACHMENTS["openai_chat file"], len(IMAGE)),
    "a sound": (ATTACHMENTS["openai_chat sound"], len(IMAGE)),
    "text that calls itself a blob": ({"type": "text", "text": "data:a/b;base64," + PROSE}, len(PROSE)),
    "hex": ({"type": "text", "text": "0f" * 5000}, 10_000),
    "text that calls itself an image": ({"type": "image_url", "image_url": {"url": PROSE}}, len(PROSE)),
    "hidden reasoning": ({"type": "reasoning", "encrypted_content": IMAGE}, len(IMAGE)),
    "a blob in a tool's answer": ({"type": "tool_result", "input": {"page": IMAGE}}, len(IMAGE)),
    "fields that nobody knows": ({"rows": [{"a": n} for n in range(1000)]}, 2890 + 1000),
    "numbers": ({"vector": list(range(1000))}, 3890),
}


@pytest.mark.parametrize("shape", MOST)
async def test_what_is_sure_of_an_attachment(shape: str, estimator: Estimator) -> None:
    part, least = MOST[shape]
    plain, more = (
        json.dumps({"messages": [{"role": "user", "content": content}]}).encode() for content in ([MANY], [MANY, part])
    )
    alone, with_it = [await estimator.most_tokens("openai", "gpt-5", body) for body in (plain, more)]
    assert alone is not None
    assert with_it is not None
    assert least <= with_it - alone <= max(least * 1.1, 3000) + 100


async def test_images_that_are_billed_by_a_scale_count_more(estimator: Estimator) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": [ATTACHMENTS["openai_chat"]]}]}).encode()
    found = [await estimator.most_tokens("openai", model, body) for model in ("gpt-4o-mini", "gpt-4o")]
    assert found[0] == (found[1] or 0) - tokens.IMAGE_TOKENS_MAX + tokens.SCALED_IMAGE_TOKENS_MAX


CONTENT = st.fixed_dictionaries(
    {"type": st.just("text"), "text": st.text() | st.sampled_from([PROSE, "0123 " * 99, "Привет мир " * 50])}
) | st.sampled_from([*ATTACHMENTS.values(), *(part for part, _ in MOST.values())])


@given(st.lists(st.lists(CONTENT, max_size=3), max_size=4), st.booleans(), st.sampled_from(["gpt-5", "claude-opus-5"]))
async def test_what_is_sure_lies_between_the_count_and_the_bytes(
    contents: list[list[Any]], tools: bool, model: str
) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    body = json.dumps({"messages": messages, "tools": [{"name": "f"}] if tools else []}).encode()
    estimator, found, family = Estimator(), tokens.readable(body), family_of("p", model)
    try:
        plain, most = await estimator.request_tokens("p", model, body), await estimator.most_tokens("p", model, body)
    finally:
        estimator.close()
    assert most is not None
    assert plain <= most <= len(body) + tokens.overhead(found, family, model)


async def test_what_cannot_be_counted_is_not_sure(estimator: Estimator) -> None:
    body = json.dumps({"prompt": PROSE}).encode()
    assert await estimator.most_tokens("openai", "gpt-5", body) is not None
    for other in (b"", b'{"a": ', b"[" * 100_000, json.dumps({"prompt": "a " * 1_100_000}).encode()):
        assert await estimator.most_tokens("openai", "gpt-5", other) is None
    crowd = (estimator.most_tokens("openai", "gpt-5", body) for _ in range(tokens.WAITING_MAX + 9))
    assert [found is None for found in await asyncio.gather(*crowd)].count(True) == 9
    estimator.close()
    assert await estimator.most_tokens("openai", "gpt-5", body) is None


async def test_what_was_learned_raises_what_is_sure_and_never_lowers_it(estimator: Estimator) -> None:
    body = json.dumps({"prompt": PROSE}).encode()
    before = await estimator.most_tokens("p", "m", body)
    for factor, model in ((2, "more"), (0.6, "less")):
        reported = round(await estimator.request_tokens("p", model, body) * factor)
        for _ in range(tokens.OBSERVATIONS_MIN):
            await estimator.learn(
                "p", model, body=body, input_tokens=reported, sample=b"", total_bytes=0, output_tokens=None
            )
    assert await estimator.most_tokens("p", "less", body) == before
    assert (await estimator.most_tokens("p", "more", body) or 0) > (before or 0)


def test_token_ids_count_one_each() -> None:
    found = tokens.readable(b'{"model": "m", "input": [[1, 2, 3], [4, 5]]}')
    assert tokens.request_estimate(found, tokens.OTHER) == 5


def test_tool_schemas_are_read_and_numbers_of_settings_are_not() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}}
    request = {"temperature": 0.25, "tools": [{"name": "get_weather", "input_schema": schema}]}
    found = tokens.readable(json.dumps(request).encode())
    assert found.parts == [json.dumps(request["tools"], separators=(",", ":"))]
    assert found.has_tools


def test_messages_cost_their_template() -> None:
    one = {"messages": [{"role": "user", "content": "hello"}]}
    two = {"messages": [*one["messages"], {"role": "user", "content": ""}]}
    first, second = (tokens.request_estimate(tokens.readable(json.dumps(a).encode()), tokens.OTHER) for a in (one, two))
    assert first == 1 + tokens.OTHER.request + tokens.MESSAGE_TOKENS
    assert second - first == tokens.MESSAGE_TOKENS


async def test_what_is_no_json_counts_by_bytes(estimator: Estimator) -> None:
    for body in (b"", b"\x00\x01\x02\x03", b"[" * 100_000, b'{"a": '):
        assert await estimator.request_tokens("openai", None, body) == len(body) // 4


# -- answers ------------------------------------------------------------------------------------------------------

WORDS = [word + " " for word in PROSE.split()]
STREAMS: dict[str, list[dict[str, Any]]] = {
    "openai_chat": [{"id": "c1", "model": "m", "choices": [{"delta": {"content": word}}]} for word in WORDS],
    "openai_responses": [{"type": "response.output_text.delta", "item_id": "i", "delta": word} for word in WORDS],
    "anthropic_messages": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS
    ],
    "anthropic thinking": [
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": word}} for word in WORDS
    ],
    "gemini": [{"candidates": [{"content": {"parts": [{"text": word}], "role": "model"}}]} for word in WORDS],
    "bedrock_converse": [{"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": word}}} for word in WORDS],
    "cohere_chat": [{"type": "content-delta", "delta": {"message": {"content": {"text": word}}}} for word in WORDS],
    "ollama": [{"model": "m", "message": {"role": "assistant", "content": word}, "done": False} for word in WORDS],
    "perplexity": [  # says all so far beside each new piece
        {"choices": [{"delta": {"content": word}, "message": {"content": PROSE[: 9 * number]}}]}
        for number, word in enumerate(WORDS)
    ],
    "openrouter": [  # says each piece twice
        {"choices": [{"delta": {"reasoning": word, "reasoning_details": [{"text": word}]}}]} for word in WORDS
    ],
}


@pytest.mark.parametrize("shape", STREAMS)
def test_streams_of_any_dialect(shape: str) -> None:
    events = [json.dumps(event).encode() for event in STREAMS[shape]]
    assert all(map(texts.carries_text, events))
    assert "".join(texts.written_by_model(events).parts) == "".join(WORDS)
    assert texts.written_by_model(b"\n".join(events)) == texts.written_by_model(events)


@pytest.mark.parametrize("shape", sorted(STREAMS.keys() - {"perplexity"}))  # its events grow; it reports usage
def test_a_cut_sample_is_scaled(shape: str) -> None:
    events = [json.dumps(event).encode() for event in STREAMS[shape]]
    whole = b"".join(events)
    cut = tokens._answer(tokens.OTHER, whole[: len(whole) // 3], len(whole), tokens.RANKS)
    assert cut == pytest.approx(count(["".join(WORDS)]), rel=0.05)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.done", "text": PROSE},
        {"type": "response.completed", "response": {"output": [{"content": [{"text": PROSE}]}]}},
        {"event_type": "stream-end", "response": {"text": PROSE}},
        {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 3}}},
        {"type": "ping"},
    ],
)
def test_events_that_repeat_carry_no_text(event: dict[str, Any]) -> None:
    assert not texts.carries_text(json.dumps(event).encode())
    quoted = {"type": "response.output_text.delta", "delta": json.dumps(event)}
    assert texts.carries_text(json.dumps(quoted).encode())


def test_tool_calls_are_written_and_results_of_server_tools_are_not() -> None:
    answer = {
        "id": "msg_1",
        "model": "m",
        "content": [
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
            {"type": "web_search_tool_result", "content": [{"title": "t", "text": PROSE}]},
            {"type": "thinking", "thinking": "hm", "signature": IMAGE},
        ],
        "usage": {"output_tokens": 12},
    }
    found = texts.written_by_model(json.dumps(answer).encode())
    assert (found.parts, found.tool_calls) == (["get_weather", '{"city":"Paris"}', "hm"], 1)


def test_without_any_text_an_event_is_a_token() -> None:
    events = [b'{"choices": [{"delta": {}, "obscure": "x"}]}'] * 7
    assert tokens._answer(tokens.OTHER, events, 2 * sum(map(len, events)), tokens.RANKS) == 14


# -- never raises, never blocks -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["content", "text", "messages", "tools", "input", "source", "data", "type", "name", "images"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()), st.integers(-5, 10**12), st.text())
def test_any_bytes_give_a_count(body: bytes, total: int, model: str) -> None:
    async def ask() -> list[int]:
        estimator = Estimator()
        try:
            await estimator.learn(
                "p", model, body=body, input_tokens=5, sample=[body], total_bytes=total, output_tokens=5
            )
            return [
                await estimator.request_tokens("p", model, body),
                await estimator.answer_tokens("p", model, body, total),
                await estimator.answer_tokens("p", None, [body, body[:5]], total),
            ]
        finally:
            estimator.close()

    assert all(number >= 0 for number in asyncio.run(ask()))


async def test_the_loop_is_not_held_up_while_two_megabytes_are_counted(estimator: Estimator) -> None:
    await estimator.load()
    body = json.dumps({"messages": [{"role": "user", "content": PROSE * (2_000_000 // len(PROSE))}]}).encode()
    counting = asyncio.create_task(estimator.request_tokens("openai", "gpt-4o", body))
    ticks = 0
    while not counting.done():
        await asyncio.sleep(0)
        ticks += 1
    assert await counting > 300_000
    assert ticks > 10


async def test_estimates_do_not_pile_up(estimator: Estimator) -> None:
    body = json.dumps({"prompt": "hello " * 1000}).encode()
    found = await asyncio.gather(
        *(estimator.request_tokens("openai", None, body) for _ in range(tokens.WAITING_MAX + 9))
    )
    assert found[: tokens.WAITING_MAX] == [found[0]] * tokens.WAITING_MAX
    assert found[tokens.WAITING_MAX :] == [len(body) // 4] * 9
    assert await estimator.request_tokens("openai", None, body) == found[0] != len(body) // 4


async def test_a_cancelled_caller_frees_its_place(estimator: Estimator) -> None:
    tasks = [
        asyncio.create_task(estimator.request_tokens("openai", None, b'{"prompt": "hello"}'))
        for _ in range(tokens.WAITING_MAX)
    ]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await estimator.request_tokens("openai", None, b'{"prompt": "hello"}') == 1


async def test_after_closing_bytes_are_counted(estimator: Estimator) -> None:
    estimator.close()
    assert await estimator.request_tokens("openai", None, b'{"prompt": "hello"}') == 4


# -- calibration and learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "name"),
    [
        ("anthropic", "claude-3-5-sonnet-20240620", "claude"),
        ("anthropic", "claude-3-7-sonnet-20250219", "claude"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude"),
        ("anthropic", "claude-opus-4-20250514", "claude"),
        ("anthropic", "claude-opus-4-7", "claude 4.7+"),
        ("openrouter", "anthropic/claude-opus-4.7", "claude 4.7+"),
        ("anthropic", "claude-sonnet-5", "claude 4.7+"),
        ("aws.bedrock", "us.anthropic.claude-opus-5-20260801-v1:0", "claude 4.7+"),
        ("aws.bedrock", "anthropic.claude-v2", "claude"),
        ("anthropic", None, "claude"),
        ("gcp.vertex_ai", "claude-haiku-4-5@20251001", "claude"),
        ("gcp.gemini", "text-embedding-004", "gemini"),
        ("openai", "gpt-5.6-sol", "other"),
        ("groq", "openai/gpt-oss-120b", "gpt-oss"),
        ("mistral_ai", "ministral-8b-latest", "mistral"),
        ("together", "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral"),
        ("groq", "llama-3.3-70b-versatile", "llama 3.1+"),
        ("aws.bedrock", "meta.llama2-13b-chat-v1", "llama"),
        ("huggingface", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama"),
    ],
)
def test_families(provider: str, model: str | None, name: str) -> None:
    assert family_of(provider, model).name == name


def test_every_family_is_sound() -> None:
    assert all(isinstance(family, Family) and 0.5 <= family.factor <= 2 for family in tokens.FAMILIES)
    assert len({family.name for family in tokens.FAMILIES}) == len(tokens.FAMILIES)


@given(st.floats(0.01, 100), st.lists(st.floats(0.01, 100), max_size=20))
def test_corrections_converge_and_are_clamped(ratio: float, before: list[float]) -> None:
    corrections = Corrections()
    for other in before:
        corrections.observe("p", "m", "output", 10_000, round(10_000 * other))
    for _ in range(tokens.OBSERVATIONS_KEPT):
        corrections.observe("p", "m", "output", 10_000, round(10_000 * ratio))
    clamped = min(max(ratio, tokens.CORRECTION_MIN), tokens.CORRECTION_MAX)
    assert corrections.factor("p", "m", "output") == pytest.approx(clamped, rel=0.01)
    assert corrections.factor("p", "m", "input") == corrections.factor("p", "n", "output") == 1


def test_few_observations_and_single_outliers_change_nothing() -> None:
    corrections = Corrections()
    for _ in range(tokens.OBSERVATIONS_MIN - 1):
        corrections.observe("p", "m", "input", 100, 200)
    corrections.observe("p", "m", "input", 0, 200)
    assert corrections.factor("p", "m", "input") == 1
    corrections.observe("p", "m", "input", 100, 10**9)
    assert corrections.factor("p", "m", "input") == 2


def test_made_up_model_names_do_not_fill_the_memory() -> None:
    corrections = Corrections()
    for number in range(tokens.MODELS_MAX + 50):
        corrections.observe("p", f"m{number}", "input", 1, 1)
    assert len(corrections._ratios) == tokens.MODELS_MAX


async def test_learning_from_reported_calls(estimator: Estimator) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": PROSE}]}).encode()
    sample = [json.dumps({"choices": [{"delta": {"content": word}}]}).encode() for word in WORDS]
    size = sum(map(len, sample))

    async def estimates() -> tuple[int, int]:
        return (
            await estimator.request_tokens("someone", "new-model", body),
            await estimator.answer_tokens("someone", "new-model", sample, size),
        )

    asked, written = await estimates()
    for _ in range(tokens.OBSERVATIONS_MIN):
        await estimator.learn(
            "someone", "new-model", body=body, input_tokens=asked * 2, sample=sample, total_bytes=size,
            output_tokens=written * 9,
        )  # fmt: skip
    assert await estimates() == (asked * 2, written * 3)
    assert await estimator.request_tokens("someone", "other-model", body) == asked


async def test_requests_with_images_teach_nothing_about_text(estimator: Estimator) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": [ATTACHMENTS["gemini"], {"text": PROSE}]}]}).encode()
    before = await estimator.request_tokens("p", "m", body)
    for _ in range(tokens.OBSERVATIONS_MIN):
        await estimator.learn("p", "m", body=body, input_tokens=9, sample=b"", total_bytes=0, output_tokens=None)
    assert await estimator.request_tokens("p", "m", body) == before
