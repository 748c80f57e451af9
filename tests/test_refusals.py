"""How a refusal looks on the wire: so that each tool stops at a budget, and waits for a limit."""

import json
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types
from hypothesis import given
from hypothesis import strategies as st

from gateway import clients, dialects
from gateway.answers import refusal_response
from gateway.call import Call
from gateway.dialects.base import Caller, Written
from gateway.errors import OF_BUDGETS, OF_LIMITS, STATUS, Refusal
from tests.fakes.upstream import FakeUpstream, whole

MESSAGE = "Outlay: the budget PAY-123 is used up: $25.00 of $25.00. Owner: ana@example.com. It begins anew on 1 May."
SPENT = Refusal("budget_exceeded", MESSAGE, resets_at=1_777_593_600)
TOO_FAST = Refusal("rate_limited", "Outlay: more than 60 requests a minute.", retry_after=7)
PATHS = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "gemini": "/v1beta/models/g:generateContent",
    "bedrock": "/model/m/converse",
    "invoke": "/model/m/invoke",
    "cohere": "/v2/chat",
}


def on_the_wire(api: str, refusal: Refusal, client: str | None = None) -> tuple[int, dict[str, str], Any]:
    """Status, header fields (in lower case) and body."""
    found = dialects.find("POST", PATHS[api])
    assert found is not None
    call = Call(call_id="c-1", request_id="r-1", attempt=1, started_us=1, gateway_id="g", client=client)
    response = refusal_response(refusal, found[0], call)
    assert isinstance(response.body, bytes)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return response.status, headers, json.loads(response.body)


@pytest.mark.parametrize("code", sorted(OF_BUDGETS))
@pytest.mark.parametrize(
    ("api", "client", "status"),
    [
        ("messages", "claude-code", 402),
        ("messages", None, 402),
        ("messages", "litellm", 400),
        ("messages", "aider", 400),
        ("chat", "opencode", 400),
        ("chat", "codex", 400),
        ("embeddings", None, 400),
        ("cohere", None, 400),
        ("responses", "openai-python", 400),
        ("responses", "codex", 429),
        ("gemini", "gemini-cli", 402),
        ("bedrock", "boto3", 402),
        ("invoke", "claude-code", 402),
    ],
)
def test_a_budget_is_answered_as_each_tool_needs_it(code: Any, api: str, client: str | None, status: int) -> None:
    found, headers, body = on_the_wire(api, Refusal(code, MESSAGE, resets_at=1_777_593_600), client)
    assert found == status
    assert headers["x-should-retry"] == "false"
    assert headers["x-outlay-refusal"] == code
    assert "retry-after" not in headers
    assert MESSAGE in json.dumps(body)


def test_the_bodies_of_a_spent_budget() -> None:
    assert on_the_wire("messages", SPENT)[2] == {
        "type": "error",
        "error": {"type": "billing_error", "message": MESSAGE},
        "request_id": "r-1",
    }
    assert on_the_wire("chat", SPENT)[2] == {
        "error": {"message": MESSAGE, "type": "budget_exceeded", "param": None, "code": "budget_exceeded"}
    }
    assert on_the_wire("gemini", SPENT)[2] == {
        "error": {"code": 402, "message": MESSAGE, "status": "FAILED_PRECONDITION"}
    }
    _, headers, body = on_the_wire("bedrock", SPENT)
    assert (headers["x-amzn-errortype"], body) == ("ServiceQuotaExceededException", {"message": MESSAGE})


def test_codex_is_told_when_its_plan_begins_anew() -> None:
    _, headers, body = on_the_wire("responses", SPENT, "codex")
    assert body == {"error": {"type": "usage_limit_reached", "message": MESSAGE, "resets_at": 1_777_593_600}}
    assert headers["x-codex-promo-message"] == MESSAGE
    assert "resets_at" not in on_the_wire("responses", Refusal("loop_stopped", "x"), "codex")[2]["error"]


@given(st.text())
def test_any_message_fits_into_a_header_field(message: str) -> None:
    found = dialects.find("POST", "/v1/responses")
    assert found is not None
    written = found[0].refuse(Refusal("budget_exceeded", message), Caller("codex"))
    value = written.headers["x-codex-promo-message"]
    assert value.isascii()
    assert value.isprintable()
    assert len(value) <= 1000


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("code", sorted(OF_LIMITS))
def test_a_limit_is_the_providers_own_rate_limit(api: str, code: Any) -> None:
    status, headers, body = on_the_wire(api, Refusal(code, "slow down", retry_after=7), "codex")
    assert (status, headers["retry-after"], headers["x-outlay-refusal"]) == (429, "7", code)
    assert "x-should-retry" not in headers
    expected: dict[str, Any] = {
        "messages": {
            "type": "error",
            "error": {"type": "rate_limit_error", "message": "slow down"},
            "request_id": "r-1",
        },
        "gemini": {
            "error": {
                "code": 429,
                "message": "slow down",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}],
            }
        },
        "bedrock": {"message": "slow down"},
        "invoke": {"message": "slow down"},
    }
    openai_shape = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    assert body == expected.get(api, openai_shape)
    if "message" in body:
        assert headers["x-amzn-errortype"] == "ThrottlingException"


@pytest.mark.parametrize("dialect", dialects.DIALECTS, ids=lambda dialect: dialect.name)
def test_every_refusal_has_a_shape_in_every_dialect(dialect: Any) -> None:
    for code, status in STATUS.items():
        written: Written = dialect.refuse(Refusal(code, "why"), Caller())
        assert written.status in ({400, 402} if code in OF_BUDGETS else {status})
        assert "why" in json.dumps(written.body)


@pytest.mark.parametrize("originator", ["codex_cli_rs", "Codex Desktop", "codex_vscode"])
def test_codex_is_known_by_its_originator(originator: str) -> None:
    assert clients.recognise({"originator": originator, "user-agent": "Codex Desktop/1.0 (Linux)"}).name == "codex"
    assert clients.recognise({"originator": "opencode"}).name is None


# -- the official SDKs, which try again at most errors -----------------------------------------------------------


def refusing(upstream: FakeUpstream, api: str, refusal: Refusal) -> None:
    status, headers, body = on_the_wire(api, refusal)
    fields = [(name, value) for name, value in headers.items() if not name.startswith("content-")]
    upstream.answer(whole(body, status, fields))


async def test_openai_stops_at_a_budget(upstream: FakeUpstream) -> None:
    async with openai.AsyncOpenAI(base_url=upstream.url + "/v1", api_key="k") as client:
        refusing(upstream, "chat", SPENT)
        with pytest.raises(openai.BadRequestError, match="the budget PAY-123 is used up") as refused:
            await client.chat.completions.create(model="m", messages=[])
        assert refused.value.code == "budget_exceeded"
        refusing(upstream, "responses", SPENT)
        with pytest.raises(openai.BadRequestError, match="the budget PAY-123 is used up"):
            await client.responses.create(model="m", input="x", stream=True)
    assert len(upstream.requests) == 2


async def test_anthropic_stops_at_a_budget(upstream: FakeUpstream) -> None:
    async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key="k") as client:
        refusing(upstream, "messages", SPENT)
        with pytest.raises(anthropic.APIStatusError, match="the budget PAY-123 is used up") as refused:
            await client.messages.create(model="m", max_tokens=9, messages=[])
        assert (refused.value.status_code, refused.value.request_id) == (402, "r-1")
    assert len(upstream.requests) == 1


async def test_google_stops_at_a_budget(upstream: FakeUpstream) -> None:
    async with httpx.AsyncClient() as transport:
        options = types.HttpOptions(base_url=upstream.url, httpx_async_client=transport)
        async with genai.Client(api_key="k", http_options=options).aio as client:
            refusing(upstream, "gemini", SPENT)
            with pytest.raises(errors.ClientError, match="the budget PAY-123 is used up") as refused:
                await client.models.generate_content(model="m", contents="x")
            assert (refused.value.code, refused.value.status) == (402, "FAILED_PRECONDITION")
    assert len(upstream.requests) == 1


async def test_a_limit_is_tried_again(upstream: FakeUpstream) -> None:
    async with openai.AsyncOpenAI(base_url=upstream.url + "/v1", api_key="k", max_retries=1) as client:
        refusing(upstream, "chat", Refusal("rate_limited", "slow down", retry_after=1))
        with pytest.raises(openai.RateLimitError, match="slow down"):
            await client.chat.completions.create(model="m", messages=[])
    assert len(upstream.requests) == 2
