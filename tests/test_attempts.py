"""Retries, fallbacks and circuit breakers over real sockets: what providers get, what clients get, what is booked."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway.budget_file import BudgetTable
from gateway.config import PriceSettings, Server, Upstream
from gateway.keys import Keys
from gateway.limits import LimitTable
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import CUT, FakeUpstream, chunked, fake_upstream, sse, whole
from tests.test_meter import ANTHROPIC_STREAM, CHAT_CHUNKS

CHAT = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "id": "chatcmpl-9",
    "model": "gpt-5.4-mini",
    "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}
ERROR = b'{ "error": {"message": "busy", "type": "server_error"}}\n'
NOWHERE = "http://127.0.0.1:9"


def failing(status: int, **headers: str) -> list[Any]:
    return whole(ERROR, status, [(name.replace("_", "-"), value) for name, value in headers.items()])


@pytest.fixture
async def spare() -> AsyncIterator[FakeUpstream]:
    """The fallback."""
    async with fake_upstream() as fake:
        fake.answer(whole(ANSWER))
        yield fake


def to(url: str, provider: str = "openai", credential: str | None = "env:PROVIDER_KEY", **settings: Any) -> Upstream:
    return Upstream(base_url=url, provider=provider, credential=credential, idle_seconds=5.0, **settings)


def rows(gateway: Running) -> list[tuple[Any, ...]]:
    """Attempt, upstream, status, result and cost of each call, in order."""
    return [
        (row["attempt"], row["upstream"], row["status"], row["result"], (row.get("list_cost_nano") or 0) > 0)
        for row in gateway.closed()
    ]


def is_one_request(gateway: Running) -> bool:
    """True when all calls are attempts of one request, each opened and closed once."""
    closed = gateway.closed()
    opened = [record["call_id"] for record in gateway.records() if record["e"] == "open"]
    ids = {row["call_id"] for row in closed}
    return (
        len({row["request_id"] for row in closed}) == 1
        and [row["attempt"] for row in closed] == list(range(1, len(closed) + 1))
        and len(ids) == len(closed)
        and sorted(opened) == sorted(ids)
    )


async def metric(gateway: Running, name: str) -> float | None:
    async with gateway.session.get(gateway.url + "/-/metrics") as response:
        lines = (await response.text()).splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), None)


async def at_rest(gateway: Running) -> None:
    """Wait until nothing is under way."""
    async with asyncio.timeout(10):
        while await metric(gateway, "outlay_calls_in_flight") or any(
            record["call_id"] not in {row["call_id"] for row in gateway.closed()}
            for record in gateway.records()
            if record["e"] == "open"
        ):
            await asyncio.sleep(0.02)


# -- retries ----------------------------------------------------------------------------------------------------------


async def test_a_failed_call_is_tried_again_and_the_client_sees_one_answer(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.answer(failing(500), failing(529), whole(ANSWER))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=2)}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT, x_outlay_ticket="PAY-7") as response:
            assert (response.status, await response.json()) == (200, ANSWER)
            call_id = response.headers["x-outlay-call-id"]
            assert float(response.headers["x-outlay-cost-usd"]) > 0
        assert rows(gateway) == [
            (1, "openai", 500, "upstream_error", False),
            (2, "openai", 529, "upstream_error", False),
            (3, "openai", 200, "completed", True),
        ]
        assert is_one_request(gateway)
        closed = gateway.closed()
        assert closed[2]["call_id"] == call_id
        assert [row["list_cost_nano"] for row in closed[:2]] == [0, 0]
        assert {(row["ticket_id"], row["team_id"], row["request_model"]) for row in closed} == {
            ("PAY-7", "payments", "gpt-5.4-mini")
        }
        assert closed[0]["started_us"] < closed[1]["started_us"] < closed[2]["started_us"]
        assert len({(got.target, got.body, tuple(got.headers)) for got in upstream.requests}) == 1
        assert await metric(gateway, 'outlay_retries_total{upstream="openai"}') == 2
        assert await metric(gateway, "outlay_calls_in_flight") == 0


async def test_after_the_last_attempt_the_last_answer_passes_untouched(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.answer(failing(500), failing(429, retry_after_ms="5", x_request_id="req_2"))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, await response.read()) == (429, ERROR)
            assert (response.headers["x-request-id"], response.headers["retry-after-ms"]) == ("req_2", "5")
            assert "x-outlay-refusal" not in response.headers
            assert response.headers["x-outlay-call-id"] == gateway.closed()[1]["call_id"]
        assert [row[:3] for row in rows(gateway)] == [(1, "openai", 500), (2, "openai", 429)]
        assert is_one_request(gateway)


async def test_retry_after_is_waited_for(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    upstream.answer(failing(429, retry_after="1"), whole(ANSWER))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.status == 200
        first, second = gateway.closed()
        assert 1_000_000 <= second["started_us"] - first["started_us"] < 3_000_000
        assert first["duration_ms"] < 900


@pytest.mark.parametrize(
    "headers", [{"retry_after": "3600"}, {"x_should_retry": "false"}, {"retry_after": "31", "x": "y"}]
)
async def test_what_is_not_worth_waiting_for_passes_at_once(
    start_gateway: StartGateway, upstream: FakeUpstream, headers: dict[str, str]
) -> None:
    upstream.answer(failing(429, **headers))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=5)}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, await response.read()) == (429, ERROR)
        assert len(upstream.requests) == len(gateway.closed()) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 408, 504])
async def test_other_errors_are_not_tried_again(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream, status: int
) -> None:
    upstream.answer(failing(status))
    upstreams = {"openai": to(upstream.url, retries=5, fallbacks=("spare",)), "spare": to(spare.url)}
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, await response.read()) == (status, ERROR)
    assert (len(upstream.requests), spare.requests) == (1, [])


async def test_an_upstream_that_is_not_there_is_tried_again(start_gateway: StartGateway) -> None:
    async with start_gateway(upstreams={"openai": to(NOWHERE, retries=1)}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (502, "upstream_unreachable")
            assert response.headers["x-outlay-call-id"] == gateway.closed()[1]["call_id"]
        assert [(row["attempt"], row["refusal"], row["list_cost_nano"]) for row in gateway.closed()] == [
            (1, "upstream_unreachable", 0), (2, "upstream_unreachable", 0),
        ]  # fmt: skip
        assert is_one_request(gateway)
        assert await metric(gateway, 'outlay_refusals_total{code="upstream_unreachable"}') == 1


async def test_what_was_sent_and_not_answered_is_never_paid_twice(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer([CUT], [30.0])
    quick = msgspec.structs.replace(to(upstream.url, retries=5, fallbacks=("spare",)), idle_seconds=0.2)
    async with start_gateway(upstreams={"openai": quick, "spare": to(spare.url)}) as gateway:
        for status, code in [(502, "upstream_unreachable"), (504, "upstream_timeout")]:
            async with gateway.post("/v1/chat/completions", CHAT) as response:
                assert (response.status, response.headers["x-outlay-refusal"]) == (status, code)
        assert [(row["attempt"], row.get("list_cost_nano"), row["price_status"]) for row in gateway.closed()] == [
            (1, None, "unpriced"), (1, None, "unpriced"),
        ]  # fmt: skip
    assert (len(upstream.requests), spare.requests) == (2, [])


async def test_an_error_that_breaks_off_is_tried_again(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    [head] = failing(503)
    upstream.answer([head[:-9], 0.05, CUT], whole(ANSWER))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, await response.json()) == (200, ANSWER)
        assert [(row["attempt"], row["result"], row["list_cost_nano"] > 0) for row in gateway.closed()] == [
            (1, "upstream_cut", False), (2, "completed", True),
        ]  # fmt: skip


async def test_a_stream_is_tried_again_until_its_head(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    upstream.answer(failing(529), chunked(ANTHROPIC_STREAM))
    body = {"model": "claude-sonnet-4-5", "stream": True, "messages": []}
    async with start_gateway(upstreams={"anthropic": to(upstream.url, "anthropic", retries=1)}) as gateway:
        async with gateway.post("/v1/messages", body) as response:
            assert await response.read() == ANTHROPIC_STREAM
        assert rows(gateway) == [
            (1, "anthropic", 529, "upstream_error", False), (2, "anthropic", 200, "completed", True),
        ]  # fmt: skip
        assert is_one_request(gateway)


async def test_a_stream_that_has_begun_is_not_tried_again(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(chunked(sse(CHAT_CHUNKS[0])[0], 0.05, CUT))
    upstreams = {"openai": to(upstream.url, retries=5, fallbacks=("spare",)), "spare": to(spare.url)}
    async with start_gateway(upstreams=upstreams) as gateway:
        with pytest.raises(aiohttp.ClientError):
            async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
                await response.read()
        assert [row[:4] for row in rows(gateway)] == [(1, "openai", 200, "upstream_cut")]
    assert (len(upstream.requests), spare.requests) == (1, [])


async def test_usage_is_asked_for_and_hidden_in_each_attempt(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    """The fallback is a provider that brings usage unasked."""
    stream = [*sse(*CHAT_CHUNKS), b"data: [DONE]\n\n"]
    upstream.answer(failing(503))
    spare.answer(chunked(*stream))
    upstreams = {"openai": to(upstream.url, fallbacks=("spare",)), "spare": to(spare.url, "groq")}
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
            assert await response.read() == b"".join(stream)
    assert [b"include_usage" in got.body for got in (upstream.requests[0], spare.requests[0])] == [True, False]


# -- fallbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("primary", [[failing(503), failing(503)], []], ids=["busy", "not there"])
async def test_a_fallback_takes_over(
    start_gateway: StartGateway,
    upstream: FakeUpstream,
    spare: FakeUpstream,
    primary: list[list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARE_KEY", "sk-spare")
    upstream.answer(*primary)
    upstreams = {
        "openai": to(upstream.url if primary else NOWHERE, retries=1, fallbacks=("spare",)),
        "spare": to(spare.url + "/prefix", "azure.ai.openai", "env:SPARE_KEY"),
    }
    body = json.dumps(CHAT, indent=3).encode()
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post("/v1/chat/completions?api=%3A:", body, X_Custom="kept") as response:
            assert (response.status, await response.json()) == (200, ANSWER)
            assert response.headers["x-outlay-call-id"] == gateway.closed()[2]["call_id"]
        status = 503 if primary else 502
        assert rows(gateway) == [
            (1, "openai", status, "upstream_error", False),
            (2, "openai", status, "upstream_error", False),
            (3, "spare", 200, "completed", True),
        ]
        assert is_one_request(gateway)
        assert [row["provider"] for row in gateway.closed()] == ["openai", "openai", "azure.ai.openai"]
        assert await metric(gateway, 'outlay_fallbacks_total{fallback="spare",upstream="openai"}') == 1
    [got] = spare.requests
    assert (got.target, got.body, got.header("x-custom")) == ("/prefix/v1/chat/completions?api=%3A:", body, "kept")
    assert (got.header("api-key"), got.header("authorization")) == ("sk-spare", None)


@pytest.mark.parametrize("worse", [failing(401), failing(404), failing(503), [CUT]], ids=["401", "404", "503", "cut"])
async def test_a_fallback_that_fails_leaves_the_first_answer(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream, worse: list[Any]
) -> None:
    upstream.answer(whole(b"first", 503, [("retry-after", "7"), ("Content-Encoding", "odd")]))
    spare.answer(worse)
    upstreams = {"openai": to(upstream.url, fallbacks=("spare",)), "spare": to(spare.url)}
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, await response.read()) == (503, b"first")
            assert (response.headers["retry-after"], response.headers["content-encoding"]) == ("7", "odd")
            assert response.headers["x-outlay-call-id"] == gateway.closed()[0]["call_id"]
        assert [(row["attempt"], row["upstream"]) for row in gateway.closed()] == [(1, "openai"), (2, "spare")]
        assert is_one_request(gateway)
        assert await metric(gateway, "outlay_calls_in_flight") == 0


async def test_of_several_answers_the_last_one_of_the_asked_upstream_stays(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(failing(500), failing(429))
    spare.answer(failing(503))
    upstreams = {"openai": to(upstream.url, retries=1, fallbacks=("spare",)), "spare": to(spare.url, retries=1)}
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.status == 429
            assert response.headers["x-outlay-call-id"] == gateway.closed()[1]["call_id"]
        assert [row[:3] for row in rows(gateway)] == [
            (1, "openai", 500), (2, "openai", 429), (3, "spare", 503), (4, "spare", 503),
        ]  # fmt: skip


async def test_of_an_upstream_that_is_not_there_the_refusal_stays(
    start_gateway: StartGateway, spare: FakeUpstream
) -> None:
    spare.answer(failing(401))
    upstreams = {"openai": to(NOWHERE, fallbacks=("spare",)), "spare": to(spare.url)}
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (502, "upstream_unreachable")
            assert response.headers["x-outlay-call-id"] == gateway.closed()[0]["call_id"]
        assert [row[:3] for row in rows(gateway)] == [(1, "openai", 502), (2, "spare", 401)]


async def test_who_may_not_use_a_fallback_gets_none(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answer(failing(503))
    fallbacks = ("spare", "unset")
    upstreams = {
        "openai": to(upstream.url, fallbacks=fallbacks),
        "spare": to(spare.url),
        "unset": to(spare.url, credential="env:NOT_SET_ANYWHERE"),
    }
    async with start_gateway(upstreams=upstreams) as gateway:
        _, key = Keys(gateway.dir).create(upstreams=("openai", "unset"))
        for headers in (
            {"Authorization": f"Bearer {key}"},  # a key for other upstreams
            {"Authorization": "Bearer sk-own", "x_outlay_key": gateway.key},  # never sent on to others
        ):
            async with gateway.post("/v1/chat/completions", CHAT, **headers) as response:
                assert (response.status, await response.read()) == (503, ERROR)
        assert spare.requests == []


async def test_what_another_provider_means_by_a_path_is_another_thing(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    """Mistral answers where OpenAI keeps what was said."""
    upstream.answer(failing(503))
    upstreams = {"mistral": to(upstream.url, "mistral_ai", fallbacks=("spare",)), "spare": to(spare.url)}
    async with start_gateway(upstreams=upstreams) as gateway:
        async with gateway.post(
            "/mistral/v1/conversations", {"model": "mistral-small-2503", "inputs": "x"}
        ) as response:
            assert response.status == 503
        assert len(gateway.closed()) == 1
    assert spare.requests == []


async def test_jobs_stay_where_they_are_asked_for_again(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(failing(503))
    upstreams = {"openai": to(upstream.url, fallbacks=("spare",)), "spare": to(spare.url)}
    async with start_gateway(upstreams=upstreams) as gateway:
        for path in ("/v1/videos", "/v1/threads/t/runs"):
            async with gateway.post(path, {"model": "sora-2", "prompt": "x"}) as response:
                assert response.status == 503
    assert spare.requests == []


async def test_a_fallback_without_a_price_is_not_asked_where_prices_are_a_must(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(failing(503))
    upstreams = {"openai": to(upstream.url, fallbacks=("spare",)), "spare": to(spare.url, "own-servers")}
    async with start_gateway(upstreams=upstreams, prices=PriceSettings(policy="block")) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.status == 503
    assert spare.requests == []


# -- budgets and journal ----------------------------------------------------------------------------------------------


async def test_each_attempt_holds_and_settles_for_itself(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(failing(503), failing(503))
    upstreams = {"openai": to(upstream.url, retries=1, fallbacks=("spare",)), "spare": to(spare.url)}
    budgets = {"all": BudgetTable(scope="org", limit_usd=Decimal(5), period="total")}
    async with start_gateway(upstreams=upstreams, budgets=budgets) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            left = Decimal(response.headers["x-outlay-budget-remaining-usd"])
        cost = [row["list_cost_nano"] for row in gateway.closed()]
        assert cost[:2] == [0, 0]
        assert left == 5 - Decimal(cost[2]) / 10**9  # nothing is held any more
        assert all(row["held_nano"] > 0 for row in gateway.closed())


async def test_limits_count_a_request_once(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    upstream.answer(failing(503), whole(ANSWER))
    limits = {"slow": LimitTable(scope="org", requests_per_minute=1, in_flight=1)}
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}, limits=limits) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.status == 200
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.headers["x-outlay-refusal"] == "rate_limited"  # and not too many in flight


async def test_without_a_journal_no_further_attempt_is_made(
    start_gateway: StartGateway, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answer(failing(503, retry_after="1"))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}) as gateway:
        asked = asyncio.ensure_future(gateway.post("/v1/chat/completions", CHAT))
        async with asyncio.timeout(5):
            while not gateway.closed():
                await asyncio.sleep(0.01)

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            async with await asked as response:
                assert (response.status, await response.read()) == (503, ERROR)
                assert "x-outlay-refusal" not in response.headers
    assert len(upstream.requests) == 1


async def test_a_key_that_is_revoked_meanwhile_makes_no_further_attempt(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.answer(failing(503, retry_after="1"))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}) as gateway:
        asked = asyncio.ensure_future(gateway.post("/v1/chat/completions", CHAT))
        async with asyncio.timeout(5):
            while not gateway.closed():
                await asyncio.sleep(0.01)
        ring = Keys(gateway.dir)
        ring.revoke(ring.all()[0].created.key_id)
        async with await asked as response:
            assert (response.status, await response.read()) == (503, ERROR)
    assert len(upstream.requests) == 1


# -- breakers ---------------------------------------------------------------------------------------------------------


async def test_an_upstream_that_fails_again_and_again_is_not_asked_first(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(failing(500), failing(500), whole({**ANSWER, "id": "back"}))
    upstreams = {
        "openai": to(upstream.url, fallbacks=("spare",), breaker_failures=2, breaker_seconds=1.5),
        "spare": to(spare.url),
    }
    async with start_gateway(upstreams=upstreams) as gateway:

        async def ask() -> tuple[str, int]:
            async with gateway.post("/v1/chat/completions", CHAT) as response:
                return (await response.json())["id"], len(upstream.requests)

        assert [await ask() for _ in range(3)] == [("chatcmpl-9", 1), ("chatcmpl-9", 2), ("chatcmpl-9", 2)]
        assert rows(gateway)[-1][:3] == (1, "spare", 200)
        assert await metric(gateway, 'outlay_breakers_open{upstream="openai"}') == 1
        await asyncio.sleep(1.6)
        assert await ask() == ("back", 3)
        assert await ask() == ("back", 4)
        assert await metric(gateway, 'outlay_breakers_open{upstream="openai"}') == 0


async def test_one_call_at_a_time_finds_out(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    upstream.answer(failing(500), [0.5, *whole(ANSWER)])
    upstreams = {
        "openai": to(upstream.url, fallbacks=("spare",), breaker_failures=1, breaker_seconds=1.5),
        "spare": to(spare.url),
    }
    async with start_gateway(upstreams=upstreams) as gateway:

        async def ask() -> str:
            async with gateway.post("/v1/chat/completions", CHAT) as response:
                return response.headers["x-outlay-call-id"]

        await ask()
        await asyncio.sleep(1.6)
        ids = await asyncio.gather(*(ask() for _ in range(5)))
        asked = [row["upstream"] for row in gateway.closed() if row["call_id"] in ids]
        assert sorted(asked) == ["openai", *["spare"] * 4]


async def test_without_a_fallback_calls_are_forwarded_all_the_same(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.answer(failing(500), failing(500), whole(ANSWER))
    async with start_gateway(upstreams={"openai": to(upstream.url, breaker_failures=1)}) as gateway:
        found = []
        for _ in range(3):
            async with gateway.post("/v1/chat/completions", CHAT) as response:
                found.append(response.status)
        assert found == [500, 500, 200]


async def test_where_it_is_wanted_they_are_refused_at_once(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    upstream.answer(failing(500), whole(ANSWER))
    strict = to(upstream.url, breaker_failures=1, breaker_seconds=1.5, breaker_refuses=True)
    async with start_gateway(upstreams={"openai": strict}) as gateway:
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.status == 500
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (502, "upstream_unreachable")
            assert " UTC. Try again after " in (await response.json())["error"]["message"]
            assert "x-should-retry" not in response.headers
        async with gateway.post("/v1/chat/completions", {**CHAT, "model": "gpt-5.4"}) as response:
            assert response.status == 200  # another model
        [_, refused, _] = gateway.closed()
        assert (refused["result"], refused["list_cost_nano"]) == ("refused", 0)
        await asyncio.sleep(1.6)
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert response.status == 200


@pytest.mark.parametrize("status", [400, 404, 429])
async def test_a_provider_that_says_no_is_not_broken(
    start_gateway: StartGateway, upstream: FakeUpstream, status: int
) -> None:
    upstream.answer(failing(status))
    strict = to(upstream.url, breaker_failures=1, breaker_refuses=True)
    async with start_gateway(upstreams={"openai": strict}) as gateway:
        for _ in range(3):
            async with gateway.post("/v1/chat/completions", CHAT) as response:
                assert response.status == status


# -- clients that leave -----------------------------------------------------------------------------------------------

HANGS = 30.0
HALF_AN_ERROR = b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nab"
SLOW: list[Any] = [0.1, HALF_AN_ERROR, 0.1, b"cde"]
[WHOLE] = whole(ANSWER)
HALF_AN_ANSWER = WHOLE[:-20]  # type: ignore[index]


class Leaver:
    """A client that asks, and goes."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway

    async def __aenter__(self) -> None:
        _, self._writer = await asyncio.open_connection("127.0.0.1", int(self._gateway.url.rpartition(":")[2]))
        content = json.dumps(CHAT).encode()
        fields = f"Host: x\r\nAuthorization: Bearer {self._gateway.key}\r\nContent-Length: {len(content)}\r\n\r\n"
        self._writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{fields}".encode() + content)
        await self._writer.drain()

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()


FAILED, GONE = "upstream_error", "client_cancelled"


@pytest.mark.parametrize(
    ("scripts", "of_spare", "expected"),
    [
        ([[HANGS]], [], [GONE]),
        ([[HALF_AN_ERROR, HANGS]], [], [GONE]),
        ([failing(429, retry_after="20")], [], [FAILED]),
        ([failing(503), [HANGS]], [], [FAILED, GONE]),
        ([failing(503), [HALF_AN_ERROR, HANGS]], [], [FAILED, GONE]),
        ([failing(503), [HALF_AN_ANSWER, HANGS]], [], [FAILED, GONE]),
        ([failing(503), failing(503)], [HANGS], [FAILED, FAILED, GONE]),
        ([failing(503), failing(503)], [HALF_AN_ERROR, HANGS], [FAILED, FAILED, GONE]),
        ([failing(503), failing(503)], [HALF_AN_ANSWER, HANGS], [FAILED, FAILED, GONE]),
    ],
    ids=["head", "error", "wait", "head 2", "error 2", "answer 2", "head 3", "error 3", "answer 3"],
)
async def test_a_client_that_leaves_causes_no_further_attempt(
    start_gateway: StartGateway,
    upstream: FakeUpstream,
    spare: FakeUpstream,
    scripts: list[list[Any]],
    of_spare: list[Any],
    expected: list[str],
) -> None:
    upstream.answer(*scripts)
    spare.answer(of_spare)
    upstreams = {"openai": to(upstream.url, retries=1, fallbacks=("spare",)), "spare": to(spare.url)}
    budgets = {"all": BudgetTable(scope="org", limit_usd=Decimal(5), period="total")}
    server = Server(port=0, read_on_seconds=0.2)
    async with start_gateway(upstreams=upstreams, budgets=budgets, server=server) as gateway:
        async with Leaver(gateway), asyncio.timeout(10):
            while len(upstream.requests) + len(spare.requests) < len(expected):
                await asyncio.sleep(0.01)
            assert await metric(gateway, "outlay_holds_open") == int(expected[-1] == GONE)
            await asyncio.sleep(0.2)  # so that what comes of the answer has come
        await at_rest(gateway)
        assert [row["result"] for row in gateway.closed()] == expected
        assert is_one_request(gateway)
        assert len(upstream.requests) + len(spare.requests) == len(expected)
        assert await metric(gateway, 'outlay_budget_held_usd{budget="all"}') == 0
        assert await metric(gateway, "outlay_holds_open") == 0


async def test_whenever_a_client_leaves_nothing_is_left_open(
    start_gateway: StartGateway, upstream: FakeUpstream, spare: FakeUpstream
) -> None:
    """Many at a time, each after another while."""
    upstream.answer(SLOW)
    spare.answer([0.1, *whole(ANSWER)])
    upstreams = {
        "openai": to(upstream.url, retries=1, fallbacks=("spare",), breaker_failures=3, breaker_seconds=0.3),
        "spare": to(spare.url),
    }
    budgets = {"all": BudgetTable(scope="org", limit_usd=Decimal(5), period="total")}
    async with start_gateway(upstreams=upstreams, budgets=budgets) as gateway:

        async def stay(seconds: float) -> None:
            async with Leaver(gateway):
                await asyncio.sleep(seconds)

        await asyncio.gather(*(stay(0.02 * number) for number in range(60)))
        await at_rest(gateway)
        closed = gateway.closed()
        attempts: dict[str, list[Any]] = {}
        for row in sorted(closed, key=lambda row: row["attempt"]):
            attempts.setdefault(row["request_id"], []).append(row)
        assert len(attempts) >= 30
        for calls in attempts.values():
            assert [call["attempt"] for call in calls] == list(range(1, len(calls) + 1))
            assert [call["result"] for call in calls[:-1]] == ["upstream_error"] * (len(calls) - 1)
            assert sum(call["upstream"] == "spare" for call in calls) <= 1
        spent = sum(row["list_cost_nano"] for row in closed)
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            left = Decimal(response.headers["x-outlay-budget-remaining-usd"])
            spent += round(Decimal(response.headers["x-outlay-cost-usd"]) * 10**9)
        assert left == 5 - Decimal(spent) / 10**9  # nothing is held


async def test_a_gateway_that_stops_during_a_wait(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    upstream.answer(failing(429, retry_after="20"))
    async with start_gateway(upstreams={"openai": to(upstream.url, retries=1)}) as gateway:
        asked = asyncio.ensure_future(gateway.post("/v1/chat/completions", CHAT))
        async with asyncio.timeout(5):
            while not gateway.closed():
                await asyncio.sleep(0.01)
    with pytest.raises(aiohttp.ClientError):
        await asked
    assert [row[:4] for row in rows(gateway)] == [(1, "openai", 429, "upstream_error")]
