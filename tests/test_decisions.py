"""The pure decisions of the request's path: routes, credentials, clients, tickets, readers, ids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import credentials, dialects, reading, routes
from gateway.config import Upstream
from gateway.ids import uuid7

UPSTREAMS = {"openai", "anthropic", "gemini", "bedrock", "local"}


@pytest.mark.parametrize(
    ("raw", "headers", "upstream", "path"),
    [
        ("/openai/v1/chat/completions?a=b", {}, "openai", "/v1/chat/completions?a=b"),
        ("/local/v1/responses", {}, "local", "/v1/responses"),
        ("/v1/messages?beta=true", {}, "anthropic", "/v1/messages?beta=true"),
        ("/v1/messages/count_tokens", {}, "anthropic", "/v1/messages/count_tokens"),
        ("/v1/chat/completions", {}, "openai", "/v1/chat/completions"),
        ("/v1beta/models/gemini-3.5-flash:generateContent", {}, "gemini", None),
        ("/v1/models/gemini-3.5-flash%3AstreamGenerateContent?alt=sse", {}, "gemini", None),
        ("/v1/models/gemini-3.5-flash:streamGenerateContent", {}, "gemini", None),
        ("/model/anthropic.claude%3A0/converse", {}, "bedrock", None),
        ("/v1/models", {}, "openai", None),
        ("/v1/models?client_version=0.169.0", {}, "openai", None),
        ("/v1/models?limit=1000", {"anthropic-version": "2026-10-21"}, "anthropic", None),
        ("/v1/models", {"x-goog-api-key": "x"}, "gemini", None),
        ("/v1/models?key=abc", {}, "gemini", None),
        ("http://any.host:80/v1/chat/completions?x", {}, "openai", "/v1/chat/completions?x"),
        ("/v1/files/a..b/.hidden/...?path=/../", {}, "openai", None),
    ],
)
def test_routes(raw: str, headers: dict[str, str], upstream: str, path: str | None) -> None:
    target = routes.resolve(raw, headers, UPSTREAMS)
    assert target == routes.Target(upstream, path or raw)


def test_ticket_and_task_in_the_path() -> None:
    assert routes.resolve("/t/PAY-123/v1/messages", {}, UPSTREAMS) == routes.Target(
        "anthropic", "/v1/messages", "PAY-123"
    )
    assert routes.resolve("/t/acme~shop~45/task/run%2D7/openai/v1/responses?x", {}, UPSTREAMS) == routes.Target(
        "openai", "/v1/responses?x", "acme/shop#45", "run-7"
    )


@pytest.mark.parametrize(
    "raw",
    [
        "/",
        "/nowhere/v1/x",
        "/v1/chat/completions#/moderations",
        "/openai/v1/x#/v1/chat/completions",
        "/v1/models/../files",
        "/v1/models/%2e%2E/files",
        "/openai/../../admin",
        "/v1/models/..%2ffiles",
        "/v1/./files",
        "/v1/models/..",
        "/openai",
        "/openai/",
        "/t/PAY-1",
        "/v2/things",
        "*",
    ],
)
def test_nothing_is_configured_for_it(raw: str) -> None:
    assert routes.resolve(raw, {}, UPSTREAMS) is None


@pytest.mark.parametrize(
    ("method", "path", "dialect", "operation"),
    [
        ("POST", "/v1/chat/completions", "openai_chat", "chat"),
        ("POST", "/openai/deployments/gpt/chat/completions", "openai_chat", "chat"),
        ("POST", "/v1/completions", "openai_chat", "text_completion"),
        ("POST", "/v1/responses", "openai_responses", "chat"),
        ("POST", "/v1/responses/compact", "openai_responses", "chat"),
        ("GET", "/v1/responses/resp_1", "openai_responses", None),
        ("POST", "/v1/responses/input_tokens", "openai_responses", None),
        ("POST", "/v1/embeddings", "openai_embeddings", "embeddings"),
        ("POST", "/v1/messages", "anthropic_messages", "chat"),
        ("POST", "/v1/messages/count_tokens", "anthropic_messages", None),
        ("POST", "/v1beta/models/g:generateContent", "gemini_generate", "generate_content"),
        ("POST", "/v1beta/models/g%3AstreamGenerateContent", "gemini_generate", "generate_content"),
        ("POST", "/v1beta/models/g:countTokens", "gemini_generate", None),
        ("POST", "/v1beta/models/g:batchEmbedContents", "gemini_generate", "embeddings"),
        ("POST", "/model/anthropic.claude%3A0/converse-stream", "bedrock_converse", "chat"),
        ("POST", "/model/arn%3Aaws%2Fx/invoke-with-response-stream", "bedrock_invoke", "chat"),
        ("POST", "/model/m/count-tokens", "bedrock_converse", None),
        (
            "POST",
            "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict",
            "anthropic_messages",
            "chat",
        ),
        ("POST", "/openai/deployments/d/embeddings", "openai_embeddings", "embeddings"),
        ("POST", "/openai/batches", "openai_batches", None),
        ("GET", "/v1/models/ft:gpt-4.1:acme::x", "openai_chat", None),
        ("DELETE", "/v1/chat/completions/c1", "openai_chat", None),
        ("POST", "/v1beta/fileSearchStores/s:importFile", "gemini_generate", None),
        ("POST", "/v1/projects/p/publishers/google/models/imagen-4:predict", "gemini_generate", "image_generation"),
        ("POST", "/ml/v1/text/embeddings", "watsonx_generate", "embeddings"),
        ("POST", "/rerank", "cohere_chat", "rerank"),
        ("POST", "/v1/complete", "anthropic_messages", "text_completion"),
        ("POST", "/v2/chat", "cohere_chat", "chat"),
        ("POST", "/api/chat", "ollama_chat", "chat"),
    ],
)
def test_dialects_by_path(method: str, path: str, dialect: str, operation: str | None) -> None:
    found = dialects.find(method, path)
    assert found is not None
    assert (found[0].name, found[1].operation) == (dialect, operation)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/fine_tuning/jobs"),
        ("GET", "/v1/messages"),
        ("POST", "/v1/unheard/of"),
    ],
)
def test_paths_no_dialect_knows(method: str, path: str) -> None:
    assert dialects.find(method, path) is None


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"authorization": "Bearer olk_a"}, "/"),
        ({"authorization": "bearer olk_a"}, "/"),
        ({"x-api-key": "olk_a"}, "/"),
        ({"api-key": "olk_a"}, "/"),
        ({"x-goog-api-key": "olk_a"}, "/"),
        ({}, "/v1beta/x?alt=sse&key=olk_a"),
        ({}, "/v1beta/x?key=AIza&key=olk_a"),
        ({"x-outlay-key": "olk_a", "authorization": "Bearer sk-own"}, "/"),
        ({"x-api-key": "sk-own", "authorization": "Bearer olk_a"}, "/"),
    ],
)
def test_where_a_gateway_key_may_stand(headers: dict[str, str], path: str) -> None:
    found = credentials.presented(headers, path)
    assert found is not None
    assert found.key == "olk_a"


def test_a_key_is_only_found_where_it_is_also_taken_out() -> None:
    odd = "/v1/x?a=1?key=olk_a"
    assert credentials.presented({}, odd) is None
    assert credentials.without_gateway_key(odd, any_key=True) == odd


def test_own_credentials_are_told_from_gateway_keys() -> None:
    assert credentials.presented({"authorization": "Bearer sk-own"}, "/") is None
    assert credentials.brings_own({"authorization": "Bearer sk-own"}, "/")
    assert credentials.brings_own({}, "/x?key=AIza")
    assert not credentials.brings_own({"authorization": "Bearer olk_a", "x-api-key": "olk_a"}, "/x?key=olk_a")


def test_outgoing_fields() -> None:
    sent = [
        ("Host", "gateway"),
        ("Connection", "keep-alive, X-Private"),
        ("X-Private", "1"),
        ("Content-Length", "5"),
        ("X-Outlay-Ticket", "PAY-1"),
        ("Authorization", "Bearer olk_a"),
        ("x-api-key", "sk-own"),
        ("Anthropic-Version", "2026-10-21"),
        ("X-Twice", "a"),
        ("X-Twice", "b"),
    ]
    kept = [("Anthropic-Version", "2026-10-21"), ("X-Twice", "a"), ("X-Twice", "b")]
    assert credentials.outgoing(sent, ("x-api-key", "sk-provider")) == [*kept, ("x-api-key", "sk-provider")]
    assert credentials.outgoing(sent, None) == [("x-api-key", "sk-own"), *kept]


@pytest.mark.parametrize(
    ("path", "any_key", "expected"),
    [
        ("/x?alt=sse&key=olk_a", False, "/x?alt=sse"),
        ("/x?key=olk_a&alt=sse", False, "/x?alt=sse"),
        ("/x?key=olk_a", False, "/x"),
        ("/x?key=AIza", False, "/x?key=AIza"),
        ("/x?key=AIza&b=%3A", True, "/x?b=%3A"),
        ("/x?monkey=olk_a", True, "/x?monkey=olk_a"),
        ("/x?key=AIza&key=olk_a&a=b", False, "/x?key=AIza&a=b"),
        ("/x?key=olk_a&key=olk_b&a=b", False, "/x?a=b"),
        ("/x?key=%6Flk_a", False, "/x"),
        ("/x?", True, "/x?"),
    ],
)
def test_key_in_the_query(path: str, any_key: bool, expected: str) -> None:
    assert credentials.without_gateway_key(path, any_key=any_key) == expected


@given(st.integers(0, 2**57))
def test_ids_are_version_7_and_sort_by_time(now: int) -> None:
    parsed = uuid.UUID(uuid7(now))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == now // 1000
    assert uuid7(now) < uuid7(now + 1000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), (5.0, 5), (5.5, None), (-1, None), (True, None), ("5", None), (None, None), (2**60, None),
     (float("inf"), None), (float("nan"), None)],
)  # fmt: skip
def test_counts(value: object, expected: int | None) -> None:
    assert reading.count(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00417, 4_170_000), ("1.5", 1_500_000_000), (0, 0), (-1, None), (float("nan"), None), ("x", None), (True, None)],
)
def test_money_that_a_provider_reports(value: object, expected: int | None) -> None:
    assert reading.usd(value) == expected


@pytest.mark.parametrize(
    ("upstream", "path", "region"),
    [
        (Upstream(base_url="https://api.openai.com", provider="openai"), "/v1/responses", None),
        (Upstream(base_url="https://eu.api.openai.com", provider="openai"), "/v1/responses", "eu"),
        (Upstream(base_url="https://us.api.x.ai", provider="x_ai"), "/v1/responses", "us"),
        (Upstream(base_url="https://us-east-1.api.x.ai", provider="x_ai"), "/v1/responses", None),
        (
            Upstream(base_url="https://x", provider="gcp.vertex_ai"),
            "/v1/projects/p/locations/us-east5/models",
            "us-east5",
        ),
        (Upstream(base_url="https://x", provider="gcp.vertex_ai"), "/v1/projects/p/locations/global/models", None),
        (Upstream(base_url="https://x", provider="azure.ai.openai", region="eu"), "/openai/v1/responses", "eu"),
    ],
)
def test_where_an_upstream_computes(upstream: Upstream, path: str, region: str | None) -> None:
    assert routes.region_of(upstream, path) == region


@pytest.mark.parametrize(
    ("raw", "headers", "upstream"),
    [
        ("/v1/files", {"anthropic-version": "2023-06-01"}, "anthropic"),
        ("/v1/files", {}, "openai"),
        ("/v1/complete", {}, "anthropic"),
        ("/v1/completions", {}, "openai"),
        ("/upload/v1beta/files", {}, "gemini"),
        ("/upload/v1/files", {}, "gemini"),
        ("/v1/files/abc", {"x-goog-api-key": "k"}, "gemini"),
        ("/v1/cachedContents", {"x-goog-api-key": "k"}, "gemini"),
        ("/v1/what-comes-next", {"x-goog-api-key": "k"}, "gemini"),
        ("/v1/batches?key=k", {}, "gemini"),
        ("/v1/batches?monkey=k", {}, "openai"),
        ("/v1/chat/completions?key=k", {}, "openai"),
        ("/v1alpha/models/g:generateContent", {}, "gemini"),
        ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", {}, "gemini"),
    ],
)
def test_bare_paths_of_later_apis(raw: str, headers: dict[str, str], upstream: str) -> None:
    found = routes.resolve(raw, headers, UPSTREAMS)
    assert found is not None
    assert (found.upstream, found.path) == (upstream, raw)
