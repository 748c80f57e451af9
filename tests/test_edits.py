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
