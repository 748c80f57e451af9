"""Limits: against a plain reference, and on a running gateway, where every place in flight becomes free again."""

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import scopes
from gateway.budget_file import BudgetTable
from gateway.call import NANO, Call
from gateway.config import Upstream
from gateway.errors import Refusal
from gateway.limits import MINUTE_US, LimitedError, Limits, LimitTable
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import CUT, chunked, sse, whole
from tests.test_afterwards import leave
from tests.test_meter import CHAT_CHUNKS, CHAT_STREAM
from tests.test_proxy import ANSWER, CHAT
from tests.test_realtime import BEGUN, Provider, ask, connect, done, provider, started

__all__ = ["provider"]


def call(request: int = 0, **fields: Any) -> Call:
    return Call(call_id=f"c{request}", request_id=f"r{request}", attempt=1, started_us=0, **fields)


# -- against a plain reference ----------------------------------------------------------------------------------------


class Bucket:
    """A token bucket as a textbook has it: it holds a minute's worth, a minute fills it, exact in fractions."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.level = Fraction(per_minute)
        self.at = 0

    def fill(self, now_us: int) -> None:
        self.level = min(
            self.level + Fraction(self.per_minute * (now_us - self.at), MINUTE_US), Fraction(self.per_minute)
        )
        self.at = now_us

    def wait_us(self, now_us: int) -> int:
        self.fill(now_us)
        missing = 1 - self.level
        return -(-missing * MINUTE_US // self.per_minute) if missing > 0 else 0


class Reference:
    """The same decisions without an index, without shared state, and without ever forgetting anything."""

    def __init__(self, tables: dict[str, LimitTable]) -> None:
        self.tables = tables
        self.buckets: dict[tuple[str, str, str], Bucket] = {}
        self.places: dict[str, set[tuple[str, str]]] = {}

    def accounts(self, call: Call) -> dict[tuple[str, str], list[int]]:
        found: dict[tuple[str, str], list[int]] = {}
        for name, table in self.tables.items():
            scope = scopes.parse(table.scope)
            for part in scopes.of(call):
                if part.kind == scope.kind and scope.matches(part.value):
                    found.setdefault((name, part.value if scope.value is None else ""), []).extend(part.tickets)
        return found

    def bucket(self, account: tuple[str, str], what: str) -> Bucket | None:
        table = self.tables[account[0]]
        per_minute = {
            "requests": table.requests_per_minute,
            "tokens": table.tokens_per_minute,
            "usd": None if table.usd_per_minute is None else int(table.usd_per_minute * NANO),
        }[what]
        return None if per_minute is None else self.buckets.setdefault((*account, what), Bucket(per_minute))

    def admit(self, call: Call, now_us: int) -> str:
        accounts = self.accounts(call)
        buckets = [
            b for account in accounts for what in ("requests", "tokens", "usd") if (b := self.bucket(account, what))
        ]
        if (wait := max((bucket.wait_us(now_us) for bucket in buckets), default=0)) > 0:
            return f"rate_limited {min(10, -(-wait // 1_000_000))}"
        for account in accounts:
            most = self.tables[account[0]].in_flight
            if most is not None and sum(account in held for held in self.places.values()) >= most:
                return "too_many_in_flight 5"
        self.take(accounts, "requests", 1, now_us, 0)
        self.places[call.request_id] = set(accounts)
        return "admitted"

    def take(
        self, accounts: dict[tuple[str, str], list[int]], what: str, amount: int, now_us: int, of_tickets: int
    ) -> None:
        for account, tickets in accounts.items():
            if bucket := self.bucket(account, what):
                bucket.fill(now_us)
                bucket.level -= amount if what == "requests" else scopes.share(amount, tuple(tickets), of_tickets)

    def finished(self, call: Call, now_us: int) -> None:
        self.places.pop(call.request_id, None)
        accounts = self.accounts(call)
        tokens = (call.input_tokens or 0) + (call.output_tokens or 0)
        self.take(accounts, "tokens", tokens, now_us, len(call.tickets))
        self.take(accounts, "usd", call.list_cost_nano or 0, now_us, len(call.tickets))


NAMES = st.sampled_from(["a", "b"])
CALLS = st.fixed_dictionaries(
    {
        "team_id": NAMES,
        "key_id": st.none() | NAMES,
        "request_model": st.sampled_from(["claude-1", "gpt-1"]),
        "tickets": st.lists(st.sampled_from(["PAY-1", "PAY-2", "OPS-1"]), max_size=3, unique=True).map(tuple),
    }
)
TABLES = st.builds(
    LimitTable,
    scope=st.sampled_from(
        [
            "org",
            "team:a",
            "key:b",
            "each_key",
            "each_team",
            "each_ticket",
            "model:claude-*",
            "ticket:PAY-*",
            "project:PAY",
        ]
    ),
    requests_per_minute=st.none() | st.sampled_from([1, 2, 3, 7, 60]),
    tokens_per_minute=st.none() | st.sampled_from([1, 10, 1000]),
    usd_per_minute=st.none() | st.sampled_from([Decimal("0.000000003"), Decimal(1)]),
    in_flight=st.integers(1, 3),
)
MOVES = st.one_of(
    st.tuples(st.just("admit"), CALLS),
    st.tuples(st.just("take_back"), CALLS),
    st.tuples(st.just("finish"), st.integers(0, 20), st.integers(0, 3000), st.integers(0, 3 * NANO)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("wait"), st.sampled_from([1, 999_999, 1_000_000, 7_654_321, 60_000_000, 200_000_000])),
)


@settings(max_examples=300, deadline=None)
@given(tables=st.lists(TABLES, max_size=5), moves=st.lists(MOVES, max_size=40), begin=st.integers(0, 10**12))
def test_limits_decide_as_the_reference_does(tables: list[LimitTable], moves: list[Any], begin: int) -> None:
    named = {f"limit-{number}": table for number, table in enumerate(tables)}
    limits, reference = Limits(named), Reference(named)
    now, running = begin, list[Call]()
    for number, (move, *values) in enumerate(moves):
        if move == "wait":
            now += values[0]
        elif move in ("admit", "take_back"):
            one = call(number, **values[0])
            before = {key: (bucket.level, bucket.at) for key, bucket in reference.buckets.items()}
            expected = reference.admit(one, now)
            try:
                limits.admit(one, now)
                got = "admitted"
            except Refusal as refusal:
                got = f"{refusal.code} {refusal.retry_after}"
            assert got == expected
            if move == "take_back":
                limits.take_back(one)
                limits.take_back(one)
                reference.places.pop(one.request_id, None)
                for key, bucket in reference.buckets.items():
                    bucket.level, bucket.at = before.get(key, (Fraction(bucket.per_minute), 0))
            elif got == "admitted":
                running.append(one)
        elif running and move == "leave":
            gone = running.pop(values[0] % len(running))
            limits.release(gone)
            reference.places.pop(gone.request_id)
        elif running:
            ended = running.pop(values[0] % len(running))
            ended.result, ended.input_tokens, ended.list_cost_nano = "completed", values[1], values[2]
            limits.finished(ended, now)
            limits.release(ended)
            reference.finished(ended, now)
        assert limits.in_flight == (len(reference.places) if named else 0)
    for each in running:
        limits.release(each)
    assert limits.in_flight == 0
    assert [account for account in limits.accounts() if account.in_flight] == []


def refusal_of(limits: Limits, one: Call, now_us: int = 0) -> LimitedError:
    with pytest.raises(LimitedError) as refused:
        limits.admit(one, now_us)
    return refused.value


def test_a_minutes_worth_at_once_and_then_at_the_rate() -> None:
    limits = Limits({"slow": LimitTable(scope="each_key", requests_per_minute=60)})
    passed = 0
    for now in range(0, 3 * MINUTE_US, 250_000):
        with contextlib.suppress(Refusal):
            limits.admit(call(now, key_id="k"), now)
            passed += 1
    assert passed == 60 + 3 * 60 - 1
    limits.admit(call(-1, key_id="another"), 0)


def test_the_message_names_the_limit_and_what_to_do() -> None:
    limits = Limits(
        {
            "fair": LimitTable(scope="each_key", requests_per_minute=2, in_flight=1),
            "money": LimitTable(scope="team:payments", usd_per_minute=Decimal("1.50")),
        }
    )
    first = call(1, key_id="k_1", team_id="payments")
    limits.admit(first, 0)
    crowded = refusal_of(limits, call(2, key_id="k_1"))
    assert (crowded.code, crowded.retry_after, crowded.kind, crowded.what) == (
        "too_many_in_flight",
        5,
        "key",
        "in_flight",
    )
    assert "the limit fair of key:k_1 allows 1 calls at a time" in crowded.message
    assert "raise in_flight in [limits.fair]" in crowded.message
    first.result, first.list_cost_nano = "completed", 10 * NANO
    limits.finished(first, 0)
    # $8.50 too much at $1.50 a minute: the message says how long that is, the header what a tool may wait.
    dear = refusal_of(limits, call(3, key_id="k_2", team_id="payments"))
    assert (dear.code, dear.retry_after, dear.kind, dear.what) == ("rate_limited", 10, "team", "usd")
    assert "the limit money of team:payments allows $1.5 a minute" in dear.message
    assert "in 341 s" in dear.message
    limits.admit(call(4, key_id="k_1"), 0)
    limits.release(call(4))
    fast = refusal_of(limits, call(5, key_id="k_1"), 21_500_000)
    assert (fast.code, fast.retry_after, fast.what) == ("rate_limited", 9, "requests")
    assert "The next call can be made in 9 s" in fast.message
    assert "raise requests_per_minute in [limits.fair]" in fast.message


def test_further_attempts_and_other_records_of_a_request_keep_its_place() -> None:
    limits = Limits({"one": LimitTable(scope="org", requests_per_minute=1, in_flight=1)})
    limits.admit(call(1), 0)
    first_attempt = call(1)
    first_attempt.result = "upstream_error"
    limits.finished(first_attempt, 0)
    limits.admit(call(1), 0)
    assert limits.in_flight == 1
    last = call(1)
    last.result = "completed"
    limits.finished(last, 0)
    assert limits.in_flight == 0


def test_results_of_batches_are_no_calls_of_this_minute() -> None:
    limits = Limits({"t": LimitTable(scope="org", tokens_per_minute=10)})
    limits.finished(call(1, operation="batch", result="completed", input_tokens=10**9), 0)
    limits.admit(call(2), 0)


def test_idle_accounts_are_dropped() -> None:
    limits = Limits({"tasks": LimitTable(scope="each_task", requests_per_minute=60, in_flight=5)})
    most = 0
    for number in range(20_000):
        one = call(number, task_id=f"task-{number}")
        limits.admit(one, number * 10_000)
        limits.release(one)
        most = max(most, sum(1 for _ in limits.accounts()))
    assert most < 400  # of 100 at a time that are not full again after a second


# -- on a running gateway ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def limited(
    start_gateway: StartGateway, more: dict[str, Any] | None = None, **table: Any
) -> AsyncIterator[Running]:
    async with start_gateway(limits={"one": LimitTable(scope="each_key", **table)}, **(more or {})) as gateway:
        yield gateway


async def ask_once(gateway: Running, **body: Any) -> tuple[int, str | None]:
    async with gateway.post("/v1/chat/completions", {**CHAT, **body}) as response:
        await response.read()
        return response.status, response.headers.get("x-outlay-refusal")


async def is_free(gateway: Running) -> None:
    """The only place is free, at once or as soon as what has been sent before is noticed."""
    gateway.upstream.answer(whole(ANSWER))
    async with asyncio.timeout(5):
        while (await ask_once(gateway))[0] != 200:
            await asyncio.sleep(0.02)
    assert await ask_once(gateway) == (200, None)


async def test_a_rate_limit_is_refused_with_an_honest_wait(start_gateway: StartGateway) -> None:
    async with limited(start_gateway, requests_per_minute=2) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        assert [(await ask_once(gateway))[0] for _ in range(2)] == [200, 200]
        async with gateway.post("/v1/chat/completions", CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (429, "rate_limited")
            assert response.headers["retry-after"] == "10"
            assert "x-should-retry" not in response.headers
            message = (await response.json())["error"]["message"]
        assert "the limit one of key:" in message
        assert " 30 s" in message
        assert len(gateway.upstream.requests) == 2
        assert [row.get("refusal") for row in gateway.closed()] == [None, None, "rate_limited"]
        async with gateway.session.get(gateway.url + "/-/metrics") as response:
            metrics = await response.text()
        assert 'outlay_limited_calls_total{limit="requests",scope="key"} 1.0' in metrics
        assert 'outlay_refusals_total{code="rate_limited"} 1.0' in metrics


@pytest.mark.parametrize("table", [{"tokens_per_minute": 1099}, {"usd_per_minute": Decimal("0.0001")}])
async def test_what_a_call_used_is_counted_afterwards(start_gateway: StartGateway, table: dict[str, Any]) -> None:
    async with limited(start_gateway, **table) as gateway:
        gateway.upstream.answer(whole(ANSWER))  # 1,100 tokens
        assert await ask_once(gateway) == (200, None)
        assert await ask_once(gateway) == (429, "rate_limited")


async def test_counting_tokens_is_never_limited(start_gateway: StartGateway) -> None:
    async with limited(start_gateway, requests_per_minute=1, in_flight=1) as gateway:
        gateway.upstream.answer(whole({"input_tokens": 9}))
        for _ in range(5):
            async with gateway.post("/v1/messages/count_tokens", {"model": "claude-haiku-4-5"}) as response:
                assert response.status == 200
        gateway.upstream.answer(whole(ANSWER))
        assert await ask_once(gateway) == (200, None)


async def test_too_many_at_a_time_and_then_not_any_more(start_gateway: StartGateway) -> None:
    async with limited(start_gateway, in_flight=2) as gateway:
        gateway.upstream.answer([0.5, *whole(ANSWER)])
        answers = await asyncio.gather(*(ask_once(gateway) for _ in range(6)))
        assert sorted(answers, key=str) == [(200, None)] * 2 + [(429, "too_many_in_flight")] * 4
        assert [status for status, _ in await asyncio.gather(*(ask_once(gateway) for _ in range(2)))] == [200, 200]


async def test_the_place_is_free_before_the_client_has_the_last_event(start_gateway: StartGateway) -> None:
    """A tool that asks again at once, while the provider's connection is still open, must not meet itself."""
    async with limited(start_gateway, in_flight=1) as gateway:
        for _ in range(20):
            gateway.upstream.answer(chunked(CHAT_STREAM, 5.0))
            async with gateway.post("/v1/chat/completions", {**CHAT, "stream": True}) as response:
                assert response.status == 200
                seen = b""
                while b"[DONE]" not in seen:
                    seen += await asyncio.wait_for(response.content.readany(), 5)
                gateway.upstream.answer(whole(ANSWER))
                assert await ask_once(gateway) == (200, None)


FAULTS: dict[str, Any] = {
    "error": whole({"error": {"message": "x"}}, 500),
    "whole, cut": [whole(ANSWER)[0][:-10], CUT],  # type: ignore[index]
    "reset": [CUT],
    "stream, cut": chunked(*sse(CHAT_CHUNKS[0]), 0.05, CUT),
    "silence": [30.0],
    "malformed": [*chunked(*sse(CHAT_CHUNKS[0]), end=False), b"zz\r\nbad", 30.0],
    "error event": chunked(*sse({"error": {"message": "x"}}), b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_place_is_free_whatever_the_provider_does(
    start_gateway: StartGateway, fault: str, stream: bool
) -> None:
    async with start_gateway() as gateway:
        quick = Upstream(
            base_url=gateway.upstream.url, provider="openai", credential="env:PROVIDER_KEY", idle_seconds=0.2
        )
    async with limited(start_gateway, {"upstreams": {"openai": quick}}, in_flight=1) as gateway:
        gateway.upstream.answer(FAULTS[fault])
        for _ in range(3):
            with contextlib.suppress(aiohttp.ClientError):
                status, refusal = await ask_once(gateway, stream=stream)
                assert (status, refusal) != (429, "too_many_in_flight")
            await asyncio.sleep(0.02)
        await is_free(gateway)


async def test_the_place_is_free_when_the_provider_is_not_there(start_gateway: StartGateway) -> None:
    nowhere = Upstream(base_url="http://127.0.0.1:9", provider="openai", credential="env:PROVIDER_KEY")
    async with limited(start_gateway, {"upstreams": {"openai": nowhere}}, in_flight=1) as gateway:
        assert [await ask_once(gateway) for _ in range(3)] == [(502, "upstream_unreachable")] * 3


async def test_the_place_is_free_when_the_client_leaves_although_the_answer_is_read_on(
    start_gateway: StartGateway,
) -> None:
    async with limited(start_gateway, in_flight=1) as gateway:
        gateway.upstream.answer([1.0, *whole(ANSWER)])
        await leave(gateway, "/v1/chat/completions", CHAT)
        await is_free(gateway)
        assert gateway.closed()[0]["result"] == "completed"  # the first one is still being read
        async with asyncio.timeout(5):
            while not any(row["result"] == "client_cancelled" for row in gateway.closed()):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("after_bytes", [0, 10])
async def test_the_place_is_free_when_the_client_leaves_a_stream(start_gateway: StartGateway, after_bytes: int) -> None:
    async with limited(start_gateway, in_flight=1) as gateway:
        gateway.upstream.answer(chunked(*sse(CHAT_CHUNKS[0]), 30.0) if after_bytes else [30.0])
        for _ in range(3):
            await leave(
                gateway, "/v1/chat/completions", {**CHAT, "stream": True}, after_bytes=after_bytes, after_seconds=0.1
            )
        await is_free(gateway)


@pytest.mark.parametrize("seed", range(3))
async def test_all_places_are_free_after_a_storm(start_gateway: StartGateway, seed: int) -> None:
    chance = random.Random(seed)
    async with start_gateway() as gateway:
        quick = Upstream(
            base_url=gateway.upstream.url, provider="openai", credential="env:PROVIDER_KEY", idle_seconds=1.0
        )
    async with limited(start_gateway, {"upstreams": {"openai": quick}}, in_flight=4) as gateway:

        async def behave() -> None:
            await asyncio.sleep(chance.random())
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                body = {**CHAT, "stream": chance.random() < 0.5}
                if chance.random() < 0.4:
                    await leave(gateway, "/v1/chat/completions", body, after_seconds=chance.random() / 3)
                else:
                    await ask_once(gateway, **body)

        scripts = [
            *FAULTS.values(),
            whole(ANSWER),
            [0.2, *whole(ANSWER)],
            chunked(CHAT_STREAM),
            chunked(CHAT_STREAM, 0.2),
        ]
        gateway.upstream.answer(*(chance.choice(scripts) for _ in range(200)))
        await asyncio.gather(*(behave() for _ in range(60)))
        gateway.upstream.answer([0.7, *whole(ANSWER)])
        async with asyncio.timeout(10):
            while [answer[0] for answer in await asyncio.gather(*(ask_once(gateway) for _ in range(4)))] != [200] * 4:
                await asyncio.sleep(0.05)
        answers = await asyncio.gather(*(ask_once(gateway) for _ in range(5)))
        assert sorted(status for status, _ in answers) == [200] * 4 + [429]


async def test_an_sdk_waits_as_told_and_is_served(start_gateway: StartGateway) -> None:
    async with limited(start_gateway, requests_per_minute=30) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        messages = [{"role": "user", "content": "x"}]
        async with (
            openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=1) as sdk,
            asyncio.timeout(60),
        ):
            while True:  # until a request finds no place; on a busy machine one comes free before the SDK asks
                while await ask_once(gateway) == (200, None):
                    pass
                refused = len(rate_limited(gateway))
                done = await sdk.chat.completions.create(model="gpt-5.4-mini", messages=messages)
                assert done.usage is not None  # with one retry: sooner than it was told, that would be refused, too
                if len(rate_limited(gateway)) > refused:
                    break


def rate_limited(gateway: Running) -> list[dict[str, Any]]:
    return [row for row in gateway.closed() if row.get("refusal") == "rate_limited"]


async def test_a_refusal_of_the_ledger_takes_the_request_back(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    async with limited(start_gateway, requests_per_minute=1, in_flight=1) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for _ in range(3):
                assert await ask_once(gateway) == (503, "ledger_unavailable")
        async with asyncio.timeout(10):
            while (answer := await ask_once(gateway)) == (503, "ledger_unavailable"):
                await asyncio.sleep(0.05)
        assert answer == (200, None)
        assert await ask_once(gateway) == (429, "rate_limited")


@pytest.mark.parametrize(("usd", "refusal"), [("0.01", (429, "rate_limited")), ("0.0009", (400, "budget_exceeded"))])
async def test_a_limit_refuses_after_the_budget_and_leaves_no_hold(
    start_gateway: StartGateway, usd: str, refusal: tuple[int, str]
) -> None:
    budgets = {"all": BudgetTable(scope="org", limit_usd=Decimal(usd))}
    async with limited(start_gateway, {"budgets": budgets}, requests_per_minute=1) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        assert await ask_once(gateway, max_tokens=1) == (200, None)
        for _ in range(3):
            assert await ask_once(gateway, max_tokens=1) == refusal
        row = gateway.closed()[-1]
        assert (row["refusal"], row.get("held_nano")) == (refusal[1], None)
        async with gateway.session.get(gateway.url + "/-/metrics") as response:
            assert 'outlay_budget_held_usd{budget="all"} 0.0\n' in await response.text()


async def test_a_session_has_a_place_until_it_ends(start_gateway: StartGateway, provider: Provider) -> None:
    provider.batches = [[BEGUN, done(1)]]
    table = LimitTable(scope="each_key", in_flight=1, tokens_per_minute=149)
    async with started(start_gateway, provider, limits={"one": table}) as gateway:
        async with connect(gateway) as socket:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(gateway)
            assert refused.value.status == 429
            assert refused.value.headers is not None
            assert refused.value.headers["x-outlay-refusal"] == "too_many_in_flight"
            await ask(socket, {"type": "response.create"}, 2)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(gateway)
            assert refused.value.headers is not None
            assert refused.value.headers["x-outlay-refusal"] == "rate_limited"  # the response took 150 tokens


@pytest.mark.parametrize("end", ["client", "client lost", "provider lost", "refused", "not there"])
async def test_the_place_of_a_session_is_free_however_it_ends(
    start_gateway: StartGateway, provider: Provider, end: str
) -> None:
    provider.batches = [[BEGUN]]
    provider.cut_at_end = end == "provider lost"
    path = "/v1/realtime?model=" + ("refused" if end == "refused" else "gpt-realtime")
    if end == "not there":
        provider.url = "http://127.0.0.1:9"
    limits = {"one": LimitTable(scope="each_key", in_flight=1)}
    async with started(start_gateway, provider, limits=limits) as gateway:
        for _ in range(3):
            if end in ("refused", "not there"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await connect(gateway, path)
                assert refused.value.status == (403 if end == "refused" else 502)
                continue
            socket = await connected(gateway)
            await socket.send_str(json.dumps({"type": "response.create"}))
            if end == "client":
                await socket.close()
            elif end == "client lost":
                assert socket._response.connection is not None
                assert socket._response.connection.transport is not None
                socket._response.connection.transport.abort()
            else:
                while not socket.closed:
                    await socket.receive(5)


async def connected(gateway: Running) -> aiohttp.ClientWebSocketResponse:
    """A session in the only place, as soon as the end of the one before is noticed."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(aiohttp.WSServerHandshakeError):
                socket: aiohttp.ClientWebSocketResponse = await connect(gateway)
                return socket
            await asyncio.sleep(0.02)
