"""What is kept of a request's head goes with its connection and hides no change. All these requests come over one."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway import guard
from gateway.heads import KEPT_MAX
from gateway.keys import Keys
from tests.conftest import Running
from tests.fakes.upstream import whole

ASKED = {"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "go"}]}
ANSWER = {"model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
PATH = "/v1/chat/completions"


@pytest.fixture
async def over_one(gateway: Running) -> AsyncIterator[Running]:
    gateway.upstream.answer(whole(ANSWER))
    connections = 0

    async def count(*_: object) -> None:
        nonlocal connections
        connections += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), trace_configs=[trace]) as session:
        own, gateway.session = gateway.session, session
        yield gateway
        gateway.session = own
    assert connections == 1


async def ask(gateway: Running, **headers: str) -> int:
    async with gateway.post(PATH, ASKED, **headers) as response:
        await response.read()
        return response.status


async def test_a_key_that_is_revoked_or_another_one_counts_at_once(over_one: Running) -> None:
    event, other = Keys(over_one.dir).create(team_id="other")
    for _ in range(2):
        assert await ask(over_one) == 200
        assert await ask(over_one, Authorization=f"Bearer {other}") == 200
    assert [row["team_id"] for row in over_one.closed()] == ["payments", "other"] * 2
    Keys(over_one.dir).revoke(event.key_id)
    assert await ask(over_one, Authorization=f"Bearer {other}") == 401
    assert await ask(over_one) == 200


async def test_what_a_field_says_now_counts(over_one: Running) -> None:
    for ticket in ("PAY-1", "PAY-2", "PAY-1"):
        assert await ask(over_one, x_outlay_ticket=ticket, x_custom=ticket) == 200
    assert [row["tickets"] for row in over_one.closed()] == [["PAY-1"], ["PAY-2"], ["PAY-1"]]
    assert [got.header("x-custom") for got in over_one.upstream.requests] == ["PAY-1", "PAY-2", "PAY-1"]


async def test_traces_and_lengths_are_those_of_each_request(over_one: Running) -> None:
    traces = [f"00-{'a' * 32}-{number:016x}-01" for number in (1, 2)]
    for trace in traces:
        assert await ask(over_one, traceparent=trace) == 200
    assert await ask(over_one) == 200
    assert await ask(over_one, traceparent=traces[0], Connection="keep-alive, traceparent") == 200
    assert await ask(over_one, traceparent=traces[1], Connection="keep-alive, x-traceparent-id") == 200
    got = over_one.upstream.requests
    assert [each.header("traceparent") for each in got] == [*traces, None, None, traces[1]]
    assert [row.get("traceparent") for row in over_one.closed()] == [*traces, None, *traces]
    async with over_one.post(PATH, {**ASKED, "max_tokens": 5}) as response:
        assert response.status == 200
    assert [len(each.body) for each in over_one.upstream.requests] == [
        int(each.header("content-length") or 0) for each in over_one.upstream.requests
    ]


async def test_many_different_heads_are_served_all_the_same(over_one: Running) -> None:
    for number in range(2 * KEPT_MAX + 1):
        assert await ask(over_one, x_outlay_task=f"run-{number}") == 200
    assert [row["task_id"] for row in over_one.closed()] == [f"run-{number}" for number in range(2 * KEPT_MAX + 1)]


async def test_strangers_and_large_heads_fill_no_memory(over_one: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    monkeypatch.setattr(guard.Connection, "heads", property(lambda _: heads, lambda *_: None), raising=False)
    heads: dict[object, object] = {}
    for key in ("olk_stranger", over_one.key):
        for size in (10_000, 10):
            status = await ask(over_one, Authorization=f"Bearer {key}", x_custom="x" * size)
            kept.append((status, len(heads)))
    assert kept == [(401, 0), (401, 0), (200, 0), (200, 1)]


async def test_the_own_credential_of_a_client_is_that_of_each_request(over_one: Running) -> None:
    for own in ("sk-own-1", "sk-own-2"):
        assert await ask(over_one, Authorization=f"Bearer {own}", x_outlay_key=over_one.key) == 200
    sent = [each.header("authorization") for each in over_one.upstream.requests]
    assert sent == ["Bearer sk-own-1", "Bearer sk-own-2"]
