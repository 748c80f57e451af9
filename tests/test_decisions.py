"""The pure decisions of the request's path: routes, credentials, clients, tickets, readers, ids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import clients, credentials, dialects, reading, routes, tickets
from gateway.call import Ask, Attribution, Principal
from gateway.config import TicketSettings
from gateway.errors import Refusal
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
    assert credentials.presented(headers, path) == "olk_a"


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
    ],
)
def test_key_in_the_query(path: str, any_key: bool, expected: str) -> None:
    assert credentials.without_gateway_key(path, any_key=any_key) == expected


@pytest.mark.parametrize(
    ("agent", "name", "version"),
    [
        ("claude-cli/2.1.330 (external, cli)", "claude-code", "2.1.330"),
        ("codex_exec/0.169.0 (Debian; x86_64)", "codex", "0.169.0"),
        ("GeminiCLI-tui/0.61.0/gemini-3.1-pro-preview (linux; x64; terminal)", "gemini-cli", "0.61.0"),
        ("opencode/1.18.33 ai-sdk/provider-utils/4.0", "opencode", "1.18.33"),
        ("litellm/1.81.10", "litellm", "1.81.10"),
        ("OpenAI/Python 3.54.0", "openai-python", "3.54.0"),
        ("AsyncAnthropic/Python 2.12.0", "anthropic-python", "2.12.0"),
        ("google-genai-sdk/2.34.0 gl-python/3.11", "google-genai", "2.34.0"),
        ("ai/7.0.173 ai-sdk-provider-utils/4", "ai-sdk", "7.0.173"),
        ("Mozilla/5.0", None, None),
    ],
)
def test_clients(agent: str, name: str | None, version: str | None) -> None:
    client = clients.recognise({"user-agent": agent})
    assert (client.name, client.version) == (name, version)


def test_agents_and_sessions() -> None:
    claude = {"user-agent": "claude-cli/2.1.330", "x-claude-code-session-id": "s1"}
    assert clients.recognise(claude).session_id == "s1"
    assert clients.recognise({**claude, "x-claude-code-agent-id": "a"}).agent == "subagent"
    assert clients.recognise({**claude, "x-claude-code-request-class": "auxiliary"}).agent == "side"
    codex = {"user-agent": "codex_exec/0.169.0", "session-id": "s2", "x-openai-subagent": "collab_spawn"}
    assert (clients.recognise(codex).agent, clients.recognise(codex).session_id) == ("subagent", "s2")


ANY = TicketSettings()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("PAY-123", ("PAY-123",)),
        (" PAY-1 , acme/shop#45,PAY-1", ("PAY-1", "acme/shop#45")),
        ("pay-123", ()),
        ("PAY-0", ()),
        ("PAY-1,nonsense", ()),
        ("ΡΑΥ-123", ()),  # Greek capitals that look the same
        ("PAY-1\u0661", ()),
        ("PAY-1\n", ("PAY-1",)),
        ("PAY-1" + " " * 2000, ()),
        (",".join(f"PAY-{n}" for n in range(1, 60)), ()),
        ("", ()),
        (None, ()),
    ],
)
def test_ticket_values(value: str | None, expected: tuple[str, ...]) -> None:
    assert tickets.parse(value, ANY) == expected


def test_only_known_projects() -> None:
    settings = TicketSettings(projects=["PAY", "acme/shop"])
    assert tickets.parse("PAY-1,acme/shop#2", settings) == ("PAY-1", "acme/shop#2")
    assert tickets.parse("UTF-8", settings) == ()
    assert tickets.parse("acme/other#2", settings) == ()


def attribute(settings: TicketSettings = ANY, session_id: str | None = None, **given: str) -> Attribution:
    headers = {name.replace("_", "-"): value for name, value in given.items() if name.startswith("x_")}
    return tickets.attribute(
        settings,
        Principal(ticket=given.get("key")),
        headers,
        given.get("path"),
        given.get("task"),
        Ask(ticket=given.get("metadata")),
        session_id,
    )


def test_the_strongest_evidence_wins_and_the_rest_is_kept() -> None:
    found = attribute(key="PAY-1", x_outlay_ticket="PAY-2,PAY-3", path="PAY-1", metadata="PAY-4")
    assert (found.tickets, found.ticket_source, found.ticket_state) == (("PAY-1",), "key", "unchecked")
    assert found.candidates == ("header:PAY-2", "header:PAY-3", "metadata:PAY-4")
    assert attribute(path="PAY-9", x_outlay_ticket="oops").ticket_source == "path"
    assert attribute().ticket_source == "none"


def test_tasks() -> None:
    assert attribute(x_outlay_task="t1", task="t2", session_id="s").task_id == "t1"
    assert attribute(task="t2", session_id="s").task_source == "path"
    assert attribute(session_id="s").task_source == "session"
    assert attribute(x_outlay_task="no spaces allowed").task_id is None


@pytest.mark.parametrize(
    ("client", "how"),
    [
        ("claude-code", "ANTHROPIC_CUSTOM_HEADERS"),
        ("gemini-cli", "GEMINI_CLI_CUSTOM_HEADERS"),
        (None, "x-outlay-ticket"),
    ],
)
def test_a_demand_for_a_ticket_says_how_to_give_one_with_this_tool(client: str | None, how: str) -> None:
    with pytest.raises(Refusal, match=how) as refused:
        tickets.demand(TicketSettings(policy="required"), client)
    assert refused.value.code == "ticket_required"


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
