"""What a budget changes in a request: its maximum or its model, and not a byte beside them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import dialects
from gateway.call import Ask
from gateway.dialects import DIALECTS
from gateway.dialects.base import Dialect, may_cache
from gateway.edits import capped, renamed

LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
NAMES = st.sampled_from(["max_tokens", "max_completion_tokens", "model", 'a"\\', "{[", "é"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(), inner, max_size=4)
)
OBJECTS = st.dictionaries(NAMES | st.text(max_size=3), JSON, max_size=6)
STYLES = st.sampled_from([{}, {"indent": 1}, {"separators": (" , ", "\t:\r\n")}, {"ensure_ascii": False}])
TOKENS = st.integers(1, 10**5)


def dialect_of(path: str) -> Dialect:
    found = dialects.find("POST", path, "openai")
    assert found is not None
    return found[0]


@given(OBJECTS, STYLES, TOKENS)
def test_only_the_maximum_changes(value: dict[str, Any], style: dict[str, Any], tokens: int) -> None:
    names = ("max_tokens", "max_completion_tokens")
    body = json.dumps(value, **style).encode()
    changed = capped(body, tokens, names)
    assert changed is not None
    after = json.loads(changed)
    stated = [after[name] for name in names if after.get(name) is not None]
    assert stated
    assert all(0 <= float(number) <= tokens for number in stated)
    assert {k: v for k, v in after.items() if k not in names} == {k: v for k, v in value.items() if k not in names}
    assert capped(changed, tokens, names) == changed
    if changed != body and all(value.get(name) is None for name in names) and not any(n in value for n in names):
        assert changed.replace(b'"max_tokens":%d' % tokens, b"", 1).lstrip(b"{,") == body.lstrip(b"{"), "put in front"


@given(OBJECTS, STYLES, TOKENS)
def test_a_maximum_further_in(value: dict[str, Any], style: dict[str, Any], tokens: int) -> None:
    body = json.dumps({**value, "options": value}, **style).encode()
    changed = capped(body, tokens, ("options",), ("max_tokens",))
    assert changed is not None
    after = json.loads(changed)
    assert after["options"].pop("max_tokens") <= tokens or value["max_tokens"] == str(tokens)
    assert after == {**value, "options": {k: v for k, v in value.items() if k != "max_tokens"}}


@given(OBJECTS, OBJECTS, TOKENS)
def test_a_name_that_stands_twice_is_capped_twice(one: dict[str, Any], other: dict[str, Any], tokens: int) -> None:
    parts = [json.dumps({"max_tokens": part.get("max_tokens"), **part})[1:-1] for part in (one, other)]
    changed = capped(("{" + ",".join(parts) + "}").encode(), tokens, ("max_tokens",))
    assert changed is not None
    seen: list[Any] = []
    json.loads(changed, object_pairs_hook=lambda pairs: seen.append(pairs) or dict(pairs))
    outermost = [value for name, value in seen[-1] if name == "max_tokens"]
    assert len(outermost) == 2
    assert all(0 <= float(value) <= tokens for value in outermost)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), TOKENS)
def test_no_body_makes_it_raise(body: bytes, tokens: int) -> None:
    for dialect in DIALECTS:
        for path in (
            "/v1/chat/completions",
            "/model/amazon.nova-micro-v1:0/invoke",
            "/v1beta/models/x:generateContent",
        ):
            if dialect.clamp is not None:
                dialect.clamp(path, "openai", body, tokens)
            if dialect.reroute is not None:
                dialect.reroute(path, body, "m")


@given(OBJECTS, STYLES, st.text(min_size=1))
def test_only_the_model_changes(value: dict[str, Any], style: dict[str, Any], model: str) -> None:
    body = json.dumps({**value, "model": "a"}, **style).encode()
    changed = renamed(body, model, "model")
    assert changed is not None
    assert json.loads(changed) == {**value, "model": model}
    without = {name: each for name, each in value.items() if name != "model"}
    assert renamed(json.dumps(without).encode(), model, "model") is None


def test_names_and_numbers_in_odd_spellings() -> None:
    assert capped(rb'{"max\u005ftokens": 1e9}', 100, ("max_tokens",)) == rb'{"max\u005ftokens": 100}'
    assert capped(b'{"x": "\\"max_tokens\\": 5", "max_tokens": -1 }', 9, ("max_tokens",)) == (
        b'{"x": "\\"max_tokens\\": 5", "max_tokens": 9 }'
    )
    assert capped(b'{"a": null, "b": 7}', 9, ("a", "b")) == b'{"a": null, "b": 7}', "null is as good as absent"
    assert capped(b'{"a": null, "b": null}', 9, ("a", "b")) == b'{"a": null, "b": 9}'
    assert capped(b'{"o": null}', 9, ("o",), ("a",)) == b'{"o": {"a":9}}'
    assert capped(b'{"o": [1]}', 9, ("o",), ("a",)) is None
    assert capped(b'{"a": 0}', 9, ("a",), least=1) == b'{"a": 9}'
    assert capped(b'[{"a": 5}]', 1, ("a",)) is None
    assert capped(b'{"a": 5', 1, ("a",)) is None
    assert capped(b'{"n": NaN, "a": "\xff", "t": 5}', 1, ("t",)) == b'{"n": NaN, "a": "\xff", "t": 1}'


CLAMPED = {
    ("/v1/chat/completions", "openai"): [
        ({"max_tokens": 64000}, {"max_tokens": 100}),
        ({"max_tokens": 64000, "max_completion_tokens": 50}, {"max_tokens": 100, "max_completion_tokens": 50}),
        ({}, {"max_completion_tokens": 100}),
    ],
    ("/v1/chat/completions", "deepseek"): [({}, {"max_tokens": 100})],
    ("/openai/deployments/d/chat/completions", "azure.ai.openai"): [({}, {"max_completion_tokens": 100})],
    ("/v1/completions", "openai"): [({"max_tokens": 10}, {"max_tokens": 10}), ({}, {"max_tokens": 100})],
    ("/v1/conversations", "mistral_ai"): [({"inputs": "x"}, {"inputs": "x", "completion_args": {"max_tokens": 100}})],
    ("/v1/responses", "openai"): [({"max_output_tokens": None}, {"max_output_tokens": 100})],
    ("/v1/responses/compact", "openai"): [({}, None)],
    ("/backend-api/codex/responses", "openai"): [({}, None)],
    ("/v1/messages", "anthropic"): [({"max_tokens": 64000}, {"max_tokens": 100})],
    ("/v1/complete", "anthropic"): [({"max_tokens_to_sample": 300}, {"max_tokens_to_sample": 100})],
    ("/v1beta/models/gemini-2.5-pro:generateContent", "gcp.gemini"): [
        ({"generationConfig": {"maxOutputTokens": 9000}}, {"generationConfig": {"maxOutputTokens": 100}}),
        ({"generation_config": {"max_output_tokens": 9000}}, {"generation_config": {"max_output_tokens": 100}}),
        ({"generationConfig": {"topK": 1}}, {"generationConfig": {"maxOutputTokens": 100, "topK": 1}}),
        ({}, {"generationConfig": {"maxOutputTokens": 100}}),
    ],
    ("/v1internal:streamGenerateContent", "gcp.gemini"): [
        ({"request": {}}, {"request": {"generationConfig": {"maxOutputTokens": 100}}})
    ],
    ("/v1beta/models/gemini-embedding-001:embedContent", "gcp.gemini"): [({}, None)],
    ("/model/amazon.nova-micro-v1%3A0/converse", "aws.bedrock"): [({}, {"inferenceConfig": {"maxTokens": 100}})],
    ("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke", "aws.bedrock"): [({}, {"max_tokens": 100})],
    ("/model/amazon.nova-micro-v1%3A0/invoke", "aws.bedrock"): [
        ({"inferenceConfig": {"max_new_tokens": 500}}, {"inferenceConfig": {"max_new_tokens": 100}})
    ],
    ("/model/meta.llama3-8b-instruct-v1%3A0/invoke", "aws.bedrock"): [({"max_gen_len": 512}, {"max_gen_len": 100})],
    ("/model/amazon.titan-text-lite-v1/invoke", "aws.bedrock"): [
        ({}, {"textGenerationConfig": {"maxTokenCount": 100}})
    ],
    ("/model/amazon.titan-embed-text-v1/invoke", "aws.bedrock"): [({}, None)],
    ("/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/invoke", "aws.bedrock"): [({}, None)],
    ("/v2/chat", "cohere"): [({}, {"max_tokens": 100})],
    ("/v2/embed", "cohere"): [({}, None)],
    ("/api/chat", "ollama"): [({"options": {"num_predict": -1}}, {"options": {"num_predict": 100}})],
    ("/ml/v1/text/generation", "ibm.watsonx.ai"): [
        ({"parameters": {"max_new_tokens": 200}}, {"parameters": {"max_new_tokens": 100}})
    ],
    ("/v1beta/interactions", "gcp.gemini"): [({}, {"generation_config": {"max_output_tokens": 100}})],
    ("/v1/threads/t/runs", "openai"): [({}, {"max_completion_tokens": 100})],
}


@pytest.mark.parametrize(("path", "provider"), CLAMPED)
def test_each_dialect_has_its_maximum(path: str, provider: str) -> None:
    found = dialects.find("POST", path, provider)
    assert found is not None
    assert found[0].clamp is not None
    for body, expected in CLAMPED[path, provider]:
        changed = found[0].clamp(path, provider, json.dumps(body).encode(), 100)
        assert changed == found[0].clamp(path + "?v=/x/compact", provider, json.dumps(body).encode(), 100)
        assert (None if changed is None else json.loads(changed)) == expected
        if expected is not None and changed is not None:
            stated = found[0].read_ask(path, changed).max_output_tokens
            assert stated in (100, 50, 10) or "conversations" in path or "v1internal" in path


SPELLINGS: dict[tuple[str, str], list[tuple[str, ...]]] = {
    ("/v1/chat/completions", "openai"): [("max_tokens", "max_completion_tokens")],
    ("/v1/completions", "vllm"): [("max_tokens", "max_completion_tokens")],
    ("/v1/conversations", "mistral_ai"): [("completion_args",), ("max_tokens",)],
    ("/v1/responses", "openai"): [("max_output_tokens",)],
    ("/v1/messages", "anthropic"): [("max_tokens",)],
    ("/v1/complete", "anthropic"): [("max_tokens_to_sample",)],
    ("/v1beta/models/gemini-2.5-pro:generateContent", "gcp.gemini"): [
        ("generationConfig", "generation_config"), ("maxOutputTokens", "max_output_tokens"),
    ],
    ("/v1internal:generateContent", "gcp.gemini"): [
        ("request",), ("generationConfig", "generation_config"), ("maxOutputTokens", "max_output_tokens"),
    ],
    ("/v1beta/interactions", "gcp.gemini"): [("generation_config",), ("max_output_tokens",)],
    ("/model/amazon.nova-micro-v1%3A0/converse", "aws.bedrock"): [("inferenceConfig",), ("maxTokens",)],
    ("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke", "aws.bedrock"): [("max_tokens",)],
    ("/model/amazon.nova-micro-v1%3A0/invoke", "aws.bedrock"): [("inferenceConfig",), ("maxTokens", "max_new_tokens")],
    ("/model/amazon.titan-text-lite-v1/invoke", "aws.bedrock"): [("textGenerationConfig",), ("maxTokenCount",)],
    ("/model/meta.llama3-8b-instruct-v1%3A0/invoke", "aws.bedrock"): [("max_gen_len",)],
    ("/model/ai21.j2-mid-v1/invoke", "aws.bedrock"): [("maxTokens",)],
    ("/model/openai.gpt-oss-20b-1%3A0/invoke", "aws.bedrock"): [("max_completion_tokens", "max_tokens")],
    ("/v2/chat", "cohere"): [("max_tokens",)],
    ("/api/chat", "ollama"): [("options",), ("num_predict",)],
    ("/ml/v1/text/generation", "ibm.watsonx.ai"): [("parameters",), ("max_new_tokens",)],
    ("/v1/threads/t/runs", "openai"): [("max_completion_tokens",)],
}  # fmt: skip
"""Where each dialect's maximum stands, in which spellings."""
STATED = (
    st.integers(0, 10**5) | st.none() | st.integers() | st.floats(0, 1e6) | st.booleans() | st.integers(0, 999).map(str)
)


def test_each_clamp_is_among_the_spellings() -> None:
    clamps = {dialect.name for dialect in DIALECTS if dialect.clamp is not None}
    found = [dialects.find("POST", path, provider) for path, provider in SPELLINGS]
    assert {each[0].name for each in found if each is not None} == clamps


@pytest.mark.parametrize(("path", "provider"), SPELLINGS)
@given(st.data(), TOKENS)
def test_the_largest_maximum_counts_and_is_lowered(path: str, provider: str, data: st.DataObject, tokens: int) -> None:
    """Under any name, twice, or beside one that means no limit."""
    stated: list[float] = []

    def drawn(names: list[tuple[str, ...]]) -> str:
        """An object's text, with what states a maximum in it."""
        fields = [("seed", "7")]
        for name in data.draw(st.lists(st.sampled_from(names[0]), max_size=3)):
            if names[1:]:
                fields.append((name, data.draw(st.just("null") | st.builds(drawn, st.just(names[1:])))))
            else:
                value = data.draw(STATED)
                if value is not None and not isinstance(value, bool):
                    stated.append(float(value))
                fields.append((name, json.dumps(value)))
        order = data.draw(st.permutations(fields))
        return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in order) + "}"

    body = drawn(SPELLINGS[path, provider]).encode()
    found = dialects.find("POST", path, provider)
    assert found is not None
    dialect = found[0]
    assert dialect.clamp is not None
    most = dialect.read_ask(path, body).max_output_tokens
    assert most is None or most >= max(stated)
    changed = dialect.clamp(path, provider, body, tokens)
    assert changed is not None
    after = dialect.read_ask(path, changed).max_output_tokens
    assert after is not None
    assert after <= tokens


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("/v1/chat/completions", '{"max_completion_tokens": 5, "max_tokens": 900}', 900),
        ("/v1/chat/completions", '{"max_completion_tokens": 5, "max_tokens": null}', 5),
        ("/v1/chat/completions", '{"max_tokens": 900, "max_tokens": 5}', 900),
        ("/v1/chat/completions", '{"max_tokens": 900, "max_tokens": null}', None),
        ("/v1/chat/completions", '{"max_tokens": 900, "max_completion_tokens": -1}', None),
        ("/v1/chat/completions", r'{"max_tokens": 5, "max\u005ftokens": 900}', 900),
        ("/v1/messages", '{"max_tokens": 0}', 0),
        ("/v1beta/models/x:generateContent", '{"generationConfig": {"maxOutputTokens": 0}}', None),
        (
            "/v1beta/models/x:generateContent",
            '{"generationConfig": {"maxOutputTokens": 5}, "generation_config": {"max_output_tokens": 900}}',
            900,
        ),
        ("/v1beta/models/x:generateContent", '{"generationConfig": {"max_output_tokens": 7}}', 7),
        ("/v1internal:generateContent", '{"request": {"generationConfig": {"maxOutputTokens": 8}}}', 8),
        ("/model/arn%3Aaws%3Ax/invoke", '{"max_tokens": 5, "max_gen_len": 900}', 900),
        ("/api/chat", '{"options": {"num_predict": 5}, "options": {}}', None),
    ],
)
def test_a_request_with_several_maxima(path: str, body: str, most: int | None) -> None:
    assert dialect_of(path).read_ask(path, body.encode()).max_output_tokens == most


REFERRING: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"previous_response_id": "resp_1"}),
    ("/v1/responses", {"conversation": "conv_1"}),
    ("/v1/responses", {"prompt": {"id": "pmpt_1"}}),
    ("/v1/responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}),
    ("/v1/responses", {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}),
    ("/v1/chat/completions", {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]}),
    ("/v1/chat/completions", {"messages": [{"content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}),
    ("/v1/chat/completions", {"web_search_options": {}}),
    ("/v1/messages", {"messages": [{"content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]}),
    ("/v1/messages", {"container": "container_1"}),
    ("/v1/messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("/v1beta/models/x:generateContent", {"cachedContent": "cachedContents/1"}),
    ("/v1beta/models/x:generateContent", {"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}),
    ("/v1beta/models/x:generateContent", {"tools": [{"googleSearch": {}}]}),
    ("/v1internal:generateContent", {"request": {"cachedContent": "c"}}),
    ("/v1beta/interactions", {"previous_interaction_id": "i"}),
    ("/model/x/converse", {"messages": [{"content": [{"image": {"source": {"s3Location": {"uri": "s3://x"}}}}]}]}),
    ("/model/anthropic.x/invoke", {"messages": [{"content": [{"type": "image", "source": {"type": "base64"}}]}]}),
    ("/v2/chat", {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]}),
    ("/v1/threads/t/runs", {}),
]
PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"input": "see file_id and image_url", "tools": [{"type": "function", "name": "f"}]}),
    ("/v1/chat/completions", {"messages": [{"content": "x"}], "tools": [{"type": "function", "function": {}}]}),
    ("/v1/messages", {"messages": [{"content": 'the "source"'}], "tools": [{"name": "f", "input_schema": {}}]}),
    ("/v1beta/models/x:generateContent", {"contents": [], "tools": [{"functionDeclarations": []}]}),
    ("/v1beta/interactions", {"input": "x", "tools": [{"type": "function"}]}),
    ("/model/x/converse", {"messages": [{"content": [{"text": "x"}]}]}),
    ("/v2/chat", {"messages": [{"content": "x"}]}),
]


@pytest.mark.parametrize(
    ("path", "body", "refers"), [(*each, True) for each in REFERRING] + [(*each, False) for each in PLAIN]
)
def test_a_request_may_refer_to_input_that_is_not_in_it(path: str, body: dict[str, Any], refers: bool) -> None:
    assert ask_of(path, body).refers == refers


def test_a_request_may_ask_for_a_tier_and_a_region() -> None:
    fast = ask_of("/v1/messages", {"speed": "fast", "service_tier": "auto", "inference_geo": "us"})
    assert (fast.service_tier, fast.region) == ("fast", "us")
    assert ask_of("/v1/messages", {"speed": "standard", "service_tier": "auto"}).service_tier == "auto"
    assert ask_of("/model/x/converse", {"serviceTier": {"type": "priority"}}).service_tier == "priority"
    assert ask_of("/v1beta/models/x:generateContent", {"serviceTier": "flex"}).service_tier == "flex"


REROUTED = [
    ("/v1/chat/completions", {"model": "a"}, "/v1/chat/completions", {"model": "b@c"}),
    (
        "/openai/deployments/a/chat/completions?api-version=1", {"model": "a"},
        "/openai/deployments/b%40c/chat/completions?api-version=1", {"model": "b@c"},
    ),
    ("/v1/responses", {"model": "a", "input": "model"}, "/v1/responses", {"model": "b@c", "input": "model"}),
    ("/v1/messages?beta=true", {"model": "a"}, "/v1/messages?beta=true", {"model": "b@c"}),
    (
        "/v1/projects/p/locations/l/publishers/anthropic/models/a:streamRawPredict", {},
        "/v1/projects/p/locations/l/publishers/anthropic/models/b%40c:streamRawPredict", {},
    ),
    (
        "/v1beta/models/a:streamGenerateContent?alt=sse", {},
        "/v1beta/models/b%40c:streamGenerateContent?alt=sse", {},
    ),
    ("/v1internal:generateContent", {"model": "a"}, "/v1internal:generateContent", {"model": "b@c"}),
    ("/model/a%3A0/converse-stream", {}, "/model/b%40c/converse-stream", {}),
    ("/v2/chat", {"model": "a"}, "/v2/chat", {"model": "b@c"}),
    ("/api/generate", {"model": "a"}, "/api/generate", {"model": "b@c"}),
    ("/ml/v1/text/generation?version=1", {"model_id": "a"}, "/ml/v1/text/generation?version=1", {"model_id": "b@c"}),
    ("/v1/chat/completions", {}, None, None),
    ("/v2/embed", {"model": "a"}, None, None),
    ("/v1beta/models/a:embedContent", {}, None, None),
    ("/v1beta/interactions", {"agent": "a"}, None, None),
    ("/model/meta.llama3-8b-instruct-v1%3A0/invoke", {}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "new_path", "new_body"), REROUTED)
def test_another_model_is_asked(path: str, body: Any, new_path: str | None, new_body: Any) -> None:
    dialect = dialect_of(path.partition("?")[0])
    assert dialect.reroute is not None
    found = dialect.reroute(path, json.dumps(body).encode(), "b@c")
    if new_path is None:
        assert found is None
    else:
        assert found is not None
        assert (found[0], json.loads(found[1])) == (new_path, new_body)
        plain = found[0].partition("?")[0]
        assert dialect.read_ask(plain, found[1]).model == "b@c"


def test_within_one_vendor_of_bedrock() -> None:
    path, to = "/model/us.meta.llama3-8b-instruct-v1%3A0/invoke", "meta.llama3-2-1b-instruct-v1:0"
    reroute = dialect_of(path).reroute
    assert reroute is not None
    assert reroute(path, b"{}", to) == ("/model/meta.llama3-2-1b-instruct-v1%3A0/invoke", b"{}")


def ask_of(path: str, body: dict[str, Any]) -> Ask:
    return dialect_of(path).read_ask(path, json.dumps(body).encode())


def test_the_least_maximum_leaves_room_for_thinking() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2048}
    claude = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
    assert ask_of("/v1/messages", {"max_tokens": 9000, "thinking": thinking}).output_tokens_min == 2049
    assert ask_of("/v1/messages", {"max_tokens": 2000, "thinking": thinking}).output_tokens_min == 1, "interleaved"
    assert ask_of("/v1/messages", {"thinking": {"type": "adaptive"}}).output_tokens_min == 1
    assert ask_of("/v1/messages", {"thinking": [1]}).output_tokens_min == 1
    assert ask_of(claude + "/invoke", {"max_tokens": 9000, "thinking": thinking}).output_tokens_min == 2049
    more = {"additionalModelRequestFields": {"thinking": thinking}, "inferenceConfig": {"maxTokens": 9000}}
    assert ask_of(claude + "/converse", more).output_tokens_min == 2049
    assert ask_of("/v1/chat/completions", {"reasoning": {"max_tokens": 1024}}).output_tokens_min == 1025
    assert ask_of("/v1/chat/completions", {"reasoning": "x"}).output_tokens_min == 1
    assert ask_of("/v1/responses", {}).output_tokens_min == 16


def test_a_request_may_ask_for_several_outputs() -> None:
    assert ask_of("/v1/chat/completions", {}).choices == 1
    assert ask_of("/v1/chat/completions", {"n": 3}).choices == 3
    assert ask_of("/v1/completions", {"n": 2, "best_of": 5, "prompt": ["a", "b"]}).choices == 10
    assert ask_of("/v1/completions", {"prompt": [1, 2, 3]}).choices == 1, "token ids"
    assert ask_of("/v1/completions", {"prompt": [[1, 2], [3]]}).choices == 2
    assert ask_of("/v1beta/models/x:generateContent", {"generationConfig": {"candidateCount": 4}}).choices == 4
    assert ask_of("/v1beta/models/x:generateContent", {"generation_config": {"candidate_count": 2}}).choices == 2


def test_a_request_may_ask_for_cache_writes() -> None:
    def asking(mark: Any) -> bytes:
        return json.dumps({"system": [{"type": "text", "text": "x", **mark}]}).encode()

    assert may_cache(asking({})) is None
    assert may_cache(asking({"cache_control": {"type": "ephemeral"}})) == "5m"
    assert may_cache(asking({"cache_control": {"type": "ephemeral", "ttl": "1h"}})) == "1h"
    assert may_cache(asking({"cache_control": {"type": "ephemeral"}}) + b'"1h"') == "5m"
    assert may_cache(b" cache_control" * 100) == "1h", "so many that it is not worth to look at each"
    point = {"messages": [{"content": [{"text": "x"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]}]}
    assert ask_of("/model/amazon.nova-micro-v1%3A0/converse", point).may_cache == "1h"
    for path in ("/v1/messages", "/v1/chat/completions", "/model/anthropic.claude-v2/invoke"):
        assert ask_of(path, {"system": [{"cache_control": {"type": "ephemeral"}}]}).may_cache == "5m"
