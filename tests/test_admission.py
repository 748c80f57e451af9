"""Budgets on a running gateway: what was spent, by the ledger and by the provider, and what was not allowed."""

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway import app, credentials, scopes
from gateway.admission import Admission, Grant, Looked, Wanted
from gateway.asking import Asking
from gateway.budget_file import BudgetFile, BudgetTable
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Budget, Budgets
from gateway.call import Ask, Call
from gateway.config import LedgerSettings, Server, Upstream
from gateway.dialects import openai_chat
from gateway.errors import Refusal
from gateway.keys import Keys
from gateway.ledger import encode, now_us
from gateway.prices import DEFAULT_BOOK, PriceBook
from gateway.quotes import Estimate, Quotes
from tests.conftest import Running, StartGateway
from tests.fakes.model import FakeModel, fake_model

NANO = 10**9
PRICES = {"gpt-4.1": (2000, 8000), "gpt-4.1-nano": (100, 400), "claude-sonnet-4-5": (3000, 15000)}
"""Nano-USD per input and output token."""
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@pytest.fixture
async def model() -> AsyncIterator[FakeModel]:
    async with fake_model() as fake:
        yield fake


StartBudgeted = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def budgeted(start_gateway: StartGateway, model: FakeModel) -> StartBudgeted:
    """Start a gateway before the model with budgets: `budgeted(b=BudgetTable(…), wait=1.0)`."""

    def start(wait: float = 20.0, **budgets: BudgetTable) -> contextlib.AbstractAsyncContextManager[Running]:
        def to(provider: str) -> Upstream:
            return Upstream(base_url=model.url, provider=provider, credential="env:PROVIDER_KEY")

        server = Server(port=0, drain_seconds=1.0, budget_wait_seconds=wait)
        upstreams = {"openai": to("openai"), "anthropic": to("anthropic")}
        return start_gateway(server=server, upstreams=upstreams, budgets=budgets)

    return start


def limit(usd: str, scope: str = "team:payments", **more: Any) -> BudgetTable:
    return BudgetTable(scope=scope, limit_usd=Decimal(usd), **more)


def ask(model: str, *, stream: bool = False, max_tokens: int | None = 4000, text: str = "hi") -> dict[str, Any]:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    return body if max_tokens is None else {**body, "max_tokens": max_tokens}


async def send(running: Running, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], bytes]:
    path = MESSAGES if body["model"].startswith("claude") else CHAT
    async with running.post(path, body, **headers) as response:
        return response.status, dict(response.headers), await response.read()


def billed(model: FakeModel) -> int:
    """What the provider has served, nano-USD."""
    rates = ((PRICES[one.model], one) for one in model.served)
    return sum(rate[0] * one.input_tokens + rate[1] * one.output_tokens for rate, one in rates)


def booked(running: Running) -> int:
    return sum(record.get("contracted_cost_nano") or 0 for record in running.closed())


async def balance(running: Running, what: str, budget: str = "b") -> float:
    """One of the gauges of a budget."""
    async with running.session.get(running.url + "/-/metrics") as response:
        found = re.search(
            rf'^outlay_budget_{what}_usd{{budget="{budget}"}} (\S+)$', await response.text(), re.MULTILINE
        )
    assert found is not None
    return float(found[1])


# -- the cap holds, and money is usable -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [4000, 64_000])
async def test_400_concurrent_mixed_calls_spend_a_dollar_and_no_more(
    budgeted: StartBudgeted, model: FakeModel, most: int
) -> None:
    chance = random.Random(1)
    model.wants, model.seconds_per_token = (lambda body: chance.choice((20, 100, 300, 1000, 3000))), 0.0005
    async with budgeted(b=limit("1")) as running:
        running.session.connector._limit = 0  # type: ignore[union-attr]
        bodies = [
            ask(
                ("gpt-4.1", "claude-sonnet-4-5")[n % 2],
                stream=n % 4 < 2,
                max_tokens=most,
                text="hi " * chance.randint(1, 300),
            )
            for n in range(400)
        ]
        answers = await asyncio.gather(*(send(running, body) for body in bodies))
        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) == {200, 400, 402}, "the budget is too large for this test, or something broke"
        assert booked(running) == billed(model), "what the ledger says is what the provider served"
        assert 0.95 * NANO <= booked(running) <= NANO
        assert await balance(running, "held") == 0
        assert await balance(running, "spent") == booked(running) / NANO
        refused = [record for record in running.closed() if record["result"] == "refused"]
        assert {(record["refusal"], record["budget_action"]) for record in refused} == {("budget_exceeded", "blocked")}
        assert len(model.served) == statuses[200]


async def test_agents_are_not_refused_while_there_is_money(budgeted: StartBudgeted, model: FakeModel) -> None:
    """Three agents at a time, each asks for up to 64,000 tokens ($0.96 alone) of a budget of $0.40."""
    chance = random.Random(2)
    model.wants, model.seconds_per_token = (lambda body: chance.randint(50, 600)), 0.0002
    async with budgeted(b=limit("0.4")) as running:

        async def agent() -> None:
            while True:
                status, _, _ = await send(
                    running, ask("claude-sonnet-4-5", stream=True, max_tokens=64_000, text="x" * 3000)
                )
                if status != 200:
                    assert status == 402
                    return

        await asyncio.gather(*(agent() for _ in range(3)))
        assert booked(running) == billed(model)
        useful = 15_000 * 256 + 3750 * (3000 + 4096)  # the least output, and the input at a token per byte, cached
        assert 0.4 * NANO - useful <= booked(running) <= 0.4 * NANO
        assert all(one.whole for one in model.served), "no stream was ended"
        assert await balance(running, "held") == 0


async def test_calls_that_run_long_do_not_shut_out_others(budgeted: StartBudgeted, model: FakeModel) -> None:
    """20 calls of up to $0.96 each, none of which ends before all have begun, on a budget of $5."""
    together = asyncio.Barrier(20)
    model.wants = lambda body: 100

    async def texts(bill: Any, tokens: int) -> AsyncIterator[str]:
        await together.wait()
        bill.output_tokens, bill.whole = tokens, True
        yield "token " * tokens

    model._texts = texts  # type: ignore[method-assign]
    async with budgeted(b=limit("5"), wait=0.5) as running:
        body = ask("claude-sonnet-4-5", stream=True, max_tokens=64_000)
        answers = await asyncio.gather(*(send(running, body) for _ in range(20)))
        assert {status for status, _, _ in answers} == {200}
        assert booked(running) == billed(model)


async def test_a_maximum_is_lowered_to_what_is_left(budgeted: StartBudgeted, model: FakeModel) -> None:
    model.wants = lambda body: 50_000
    async with budgeted(b=limit("0.05")) as running:
        status, headers, body = await send(running, ask("gpt-4.1", max_tokens=64_000))
        assert status == 200
        (served,) = model.served
        assert served.max_tokens is not None
        assert served.max_tokens < 0.05 * NANO / 8000
        assert served.output_tokens == served.max_tokens > 5000
        assert json.loads(body)["choices"][0]["finish_reason"] == "length"
        (record,) = running.closed()
        assert record["budget_action"] == "clamped"
        assert record["max_output_tokens"] == served.max_tokens
        assert record["contracted_cost_nano"] <= record["held_nano"] <= 0.05 * NANO
        remaining = 0.05 * NANO - booked(running)
        assert Decimal(headers["x-outlay-budget-remaining-usd"]) * NANO == remaining


async def test_a_request_without_a_maximum_gets_one_near_the_limit(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0.05")) as running:
        assert (await send(running, ask("gpt-4.1", max_tokens=None)))[0] == 200
        assert model.served[0].max_tokens is not None
    model.served.clear()
    async with budgeted(b=limit("50")) as running:
        assert (await send(running, ask("gpt-4.1", max_tokens=None)))[0] == 200
        assert model.served[0].max_tokens is None


async def test_a_tiny_budget_refuses_before_the_provider_is_asked(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0.0001", owner="fin@example.com")) as running:
        status, headers, body = await send(running, ask("claude-sonnet-4-5", stream=True))
        assert (status, model.served) == (402, [])
        assert headers["x-outlay-refusal"] == "budget_exceeded"
        assert headers["x-should-retry"] == "false"
        assert "retry-after" not in {name.lower() for name in headers}
        message = json.loads(body)["error"]["message"]
        for part in (
            "budget b",
            "team:payments",
            "per month",
            "$0.00 of $0.0001 spent",
            "fin@example.com",
            "begins anew on",
        ):
            assert part in message


# -- other ways near the limit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt-4.1", "claude-sonnet-4-5"])
async def test_stop_stream_ends_a_stream_as_if_by_its_maximum(
    budgeted: StartBudgeted, model: FakeModel, name: str
) -> None:
    model.wants, model.seconds_per_token = (lambda body: 20_000), 0.0001
    async with budgeted(b=limit("0.02", on_exceed="stop_stream")) as running:
        status, _, body = await send(running, ask(name, stream=True, max_tokens=64_000))
        assert status == 200
        assert model.served[0].max_tokens == 64_000, "the request was not touched"
        assert b"error" not in body
        if name == "gpt-4.1":
            assert b'"finish_reason":"length"' in body
            assert body.endswith(b"data: [DONE]\n\n")
        else:
            assert b'"stop_reason":"max_tokens"' in body
            assert body.rstrip().endswith(b'data: {"type":"message_stop"}')
        (record,) = running.closed()
        assert (record["result"], record["budget_action"]) == ("stopped_by_budget", "stopped")
        assert 0.005 * NANO < record["contracted_cost_nano"] <= 0.02 * NANO
        assert not model.served[0].whole
        assert await balance(running, "held") == 0


async def test_a_stream_that_said_its_length_is_stopped_without_it(start_gateway: StartGateway) -> None:
    """Else its client would wait for the rest, or take what follows for a part of it."""
    event = {"id": "x", "model": "gpt-4.1", "choices": [{"index": 0, "delta": {"content": "so much " * 100}}]}
    events = [b"data: %b\n\n" % json.dumps(event).encode() for _ in range(60)] + [b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % sum(map(len, events))
    budgets = {"b": limit("0.02", on_exceed="stop_stream")}
    async with start_gateway(budgets=budgets) as running:
        running.upstream.answer([head, *(step for each in events for step in (each, 0.002))])
        asked = ask("gpt-4.1", stream=True, max_tokens=64_000) | {"stream_options": {"include_usage": True}}
        for _ in range(2):  # the second one over the same connection, if the first has ended as it should
            async with asyncio.timeout(10), running.post(CHAT, asked) as response:
                body = await response.read()
            assert body.count(b"data: [DONE]") == 1
            assert body.endswith(b"data: [DONE]\n\n")
        assert [each["result"] for each in running.closed()] == ["stopped_by_budget"] * 2


async def test_reroute_asks_a_cheaper_model_near_the_limit(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0.2", on_exceed="reroute:gpt-4.1-nano")) as running:
        assert (await send(running, ask("gpt-4.1", max_tokens=4000)))[0] == 200
        assert (await send(running, ask("gpt-4.1", max_tokens=60_000)))[0] == 200
        assert [one.model for one in model.served] == ["gpt-4.1", "gpt-4.1-nano"]
        assert [record["budget_action"] for record in running.closed()] == ["none", "rerouted"]
        assert running.closed()[1]["request_model"] == "gpt-4.1-nano"
        assert booked(running) == billed(model)


class Fixed:
    """A request (`View`) that can be lowered, and cannot ask for another model, which takes a moment to find out."""

    async def look(self, model: str | None) -> Looked | None:
        await asyncio.sleep(0)
        return Looked(100, None, clamps=True, stops=False) if model is None else None

    async def check(self) -> None:
        pass


async def test_what_others_hold_while_a_request_is_looked_at_counts() -> None:
    budgets = Budgets()
    budgets.replace([Budget("b", scopes.parse("org"), NANO // 50, on_exceed="reroute:gpt-4.1-nano")])
    notices = BudgetNotices(lambda *said, **more: None, lambda name: name)
    admission = Admission(budgets, Quotes(PriceBook.load(DEFAULT_BOOK)), 0.0, notices)

    async def admitted(number: int) -> Grant | Refusal:
        call = Call(
            call_id=f"c{number}", request_id="r", attempt=1, started_us=now_us(), operation="chat", provider="openai",
            request_model="gpt-4.1",
        )  # fmt: skip
        wanted = Wanted(Ask(max_output_tokens=4000), None, 100)
        known = admission.admit_at_once(call, wanted)
        assert isinstance(known, Estimate)
        try:
            return await admission.admit_closely(call, wanted, known, Fixed())
        except Refusal as refused:
            return refused

    got = await asyncio.gather(*map(admitted, range(3)))
    assert [type(each) for each in got] == [Grant, Refusal, Refusal]
    assert [0 < each.ceilings <= NANO // 50 for each in budgets.accounts()] == [True]


async def test_a_key_is_not_rerouted_to_what_it_may_not_use(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0.2", "org", on_exceed="reroute:gpt-4.1-nano")) as running:
        _, running.key = Keys(running.dir).create(models=("gpt-4.1",))
        assert (await send(running, ask("gpt-4.1", max_tokens=60_000)))[0] == 200
        assert model.served[0].model == "gpt-4.1"
        assert running.closed()[0]["budget_action"] == "clamped"


async def test_warn_and_shadow_enforce_nothing_and_say_so(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(w=limit("0.0001", on_exceed="warn"), s=limit("0.0001", mode="shadow")) as running:
        assert (await send(running, ask("gpt-4.1", max_tokens=60_000)))[0] == 200
        assert model.served[0].max_tokens == 60_000
        assert running.closed()[0]["budget_action"] == "shadow_blocked"
        assert await balance(running, "spent", "w") == await balance(running, "spent", "s") > 0.0001
    async with budgeted(w=limit("0.0001", on_exceed="warn")) as running:
        assert (await send(running, ask("gpt-4.1")))[0] == 200
        assert running.closed()[-1]["budget_action"] == "warned"


async def test_all_budgets_or_none(budgeted: StartBudgeted) -> None:
    """A refusal by one budget holds nothing in the others."""
    async with budgeted(
        org=limit("100", "org"), ticket=limit("0.0001", "each_ticket"), project=limit("50", "project:PAY")
    ) as running:
        status, _, body = await send(running, ask("gpt-4.1"), x_outlay_ticket="PAY-1")
        assert status == 400
        assert "ticket:PAY-1" in json.loads(body)["error"]["message"]
        assert await balance(running, "held", "org") == await balance(running, "held", "project") == 0
        assert (await send(running, ask("gpt-4.1")))[0] == 200, "without a ticket, only the company pays"
        assert await balance(running, "spent", "project") == 0
        assert await balance(running, "spent", "org") > 0


async def test_a_budget_says_when_it_is_used_up(
    budgeted: StartBudgeted, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.wants = lambda body: 900
    async with budgeted(b=limit("0.01", warn_at=(0.5,))) as running:
        assert [(await send(running, ask("gpt-4.1")))[0] for _ in range(3)] == [200, 400, 400]
        while "has no room for a call" not in caplog.text:
            await asyncio.sleep(0.01)
    assert caplog.text.count("has reached 50% of its limit") == 1
    assert caplog.text.count("has no room for a call") == 1


# -- every way that a call can end ----------------------------------------------------------------------------------


async def test_a_client_that_leaves_gives_its_money_back(budgeted: StartBudgeted, model: FakeModel) -> None:
    model.wants, model.seconds_per_token = (lambda body: 60_000), 0.01
    async with budgeted(b=limit("0.97")) as running:
        first = asyncio.create_task(send(running, ask("claude-sonnet-4-5", stream=True, max_tokens=64_000)))
        while not model.served or not await balance(running, "held"):
            await asyncio.sleep(0.01)
        second = asyncio.create_task(send(running, ask("claude-sonnet-4-5", max_tokens=64_000)))  # waits for it
        await asyncio.sleep(0.2)
        assert len(model.served) == 1
        second.cancel()
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        while await balance(running, "held"):
            await asyncio.sleep(0.01)
        (record,) = running.closed()
        assert record["result"] == "client_cancelled"
        assert await balance(running, "spent") == record["contracted_cost_nano"] / NANO > 0


async def test_who_waits_goes_on_when_others_settle(budgeted: StartBudgeted, model: FakeModel) -> None:
    model.wants, model.seconds_per_token = (lambda body: 400), 0.001
    async with budgeted(b=limit("1")) as running:
        body = ask("claude-sonnet-4-5", max_tokens=64_000)
        started = time.monotonic()
        answers = await asyncio.gather(*(send(running, body) for _ in range(12)))
        assert {status for status, _, _ in answers} == {200}
        assert time.monotonic() - started < 15


async def test_who_waits_is_woken_by_the_budget_whose_holds_are_in_the_way(
    budgeted: StartBudgeted, model: FakeModel
) -> None:
    """The ticket's budget has the least left, but the team's money is held."""
    model.wants, model.seconds_per_token = (lambda body: 400), 0.001
    async with budgeted(team=limit("0.07"), ticket=limit("0.065", "each_ticket")) as running:
        body = ask("claude-sonnet-4-5", max_tokens=4000)
        started = time.monotonic()
        answers = await asyncio.gather(*(send(running, body, x_outlay_ticket=f"PAY-{n}") for n in range(4)))
        assert {status for status, _, _ in answers} == {200}
        assert time.monotonic() - started < 15


async def test_a_raise_lets_those_go_on_who_wait(budgeted: StartBudgeted, model: FakeModel) -> None:
    model.wants, model.seconds_per_token = (lambda body: 3000 if body["max_tokens"] == 4000 else 50), 0.002
    async with budgeted(wait=15) as running:
        file = BudgetFile(running.dir)
        file.set("b", limit("0.07"), "cli")
        await asyncio.sleep(1.2)
        first = asyncio.create_task(send(running, ask("claude-sonnet-4-5", max_tokens=4000)))
        while not model.served:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(send(running, ask("claude-sonnet-4-5", max_tokens=3999)))
        await asyncio.sleep(0.1)
        assert len(model.served) == 1
        file.raise_("b", Decimal(1), int(time.time()) + 60, "launch", "cli")
        assert (await second)[0] == 200
        assert not first.done()
        await first


async def test_a_request_that_only_its_provider_can_read_leaks_nothing(
    budgeted: StartBudgeted, model: FakeModel
) -> None:
    async with budgeted(b=limit("1"), s=limit("0.5", on_exceed="stop_stream")) as running:
        odd = b'{"model":"gpt-4.1","stream":true,"stream_options":1e999,"max_tokens":9,"messages":[]}'
        for _ in range(3):
            with contextlib.suppress(aiohttp.ClientPayloadError):  # it cannot, either
                async with running.post(CHAT, odd) as response:
                    await response.read()
        assert await balance(running, "held") == await balance(running, "held", "s") == 0


async def test_a_name_without_a_price_does_not_get_past_a_spent_budget(
    budgeted: StartBudgeted, model: FakeModel
) -> None:
    """Its answer names a model that has one."""
    model.wants, model.renames = (lambda body: 1000), {"my-deployment": "gpt-4.1"}
    async with budgeted(b=limit("0.01")) as running:
        statuses = [(await send(running, ask("my-deployment")))[0] for _ in range(4)]
        assert statuses == [200, 200, 400, 400]
        assert await balance(running, "spent") > 0.01


async def test_signed_requests_are_not_changed() -> None:
    """Near the limit they are refused rather than rejected by the provider."""
    fields = [("Authorization", "AWS4-HMAC-SHA256 Credential=x")]
    assert credentials.is_signed(fields)
    assert not credentials.is_signed([("Authorization", "Bearer x")])
    body = msgspec.json.encode(ask("gpt-4.1"))
    plain = Asking(openai_chat.DIALECT, Ask(), CHAT, body, None, "openai", lambda name: True)
    assert plain.clamped(5) is not None
    assert plain.for_model("gpt-4.1-nano") is not None
    signed = msgspec.structs.replace(plain, is_signed=True)
    assert signed.clamped(5) is None
    assert signed.for_model("gpt-4.1-nano") is None


async def test_upstream_errors_cost_nothing(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("1")) as running:
        await asyncio.gather(*(send(running, {**ask("gpt-4.1"), "messages": None, "n": 1}) for _ in range(3)))
        async with running.post("/openai/v1/chat/completions", b"{") as response:
            assert response.status == 400
        assert await balance(running, "held") == 0


async def test_balances_outlive_a_restart_and_the_sealing_of_segments(
    budgeted: StartBudgeted, model: FakeModel
) -> None:
    model.wants = lambda body: 2000
    async with budgeted(b=limit("1"), r=limit("5", "org", period="rolling_24h")) as running:
        for _ in range(3):
            assert (await send(running, ask("gpt-4.1")))[0] == 200
    spent = booked(running)
    for segment in (running.dir / "journal").glob("*.jsonl"):
        segment.unlink()
    saved = json.loads((running.dir / "balances.json").read_bytes())
    assert 0 < saved.pop("latest_us") <= now_us()
    (running.dir / "balances.json").write_text(json.dumps(saved))  # as earlier versions wrote it
    async with budgeted(b=limit("1"), r=limit("5", "org", period="rolling_24h")) as running:
        assert await balance(running, "spent") == spent / NANO
        assert await balance(running, "spent", "r") == spent / NANO
        assert (await send(running, ask("gpt-4.1")))[0] == 200
        assert await balance(running, "spent") == (spent + booked(running)) / NANO
        before = booked(running)
    async with budgeted(b=limit("1")) as running:  # the journal is there this time, and must not count twice
        assert await balance(running, "spent") == (spent + before) / NANO


async def test_another_gateway_on_the_same_folder_is_seen(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("1")) as one, budgeted(b=limit("1")) as other:
        assert (await send(one, ask("gpt-4.1")))[0] == 200
        deadline = time.monotonic() + 10
        while await balance(other, "spent") != await balance(one, "spent"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert await balance(one, "spent") == booked(one) / NANO


async def test_balances_are_counted_once_over_rotation_and_restart(
    model: FakeModel, start_gateway: StartGateway, tmp_path: Path
) -> None:
    upstreams = {"openai": Upstream(base_url=model.url, provider="openai", credential="env:PROVIDER_KEY")}
    budgets = {"b": limit("1"), "t": limit("1", "each_task", period="rolling_24h")}

    def rotating(data: Path) -> Any:
        ledger = LedgerSettings(dir=str(data), segment_bytes=4096, reserve_bytes=0)
        return start_gateway(upstreams=upstreams, budgets=budgets, ledger=ledger)

    data = tmp_path / "data"
    for round_ in range(3):
        async with rotating(data) as running:
            for _ in range(8):
                assert (await send(running, ask("gpt-4.1")))[0] == 200
                await asyncio.sleep(0.06)
            assert len(list((data / "journal").glob("*.jsonl"))) > round_ + 1
            assert await balance(running, "spent") == await balance(running, "spent", "t") == booked(running) / NANO


async def test_a_record_of_another_version_stops_nothing(
    budgeted: StartBudgeted, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    async with budgeted(b=limit("1")) as running:
        assert (await send(running, ask("gpt-4.1")))[0] == 200
        later = encode("close", 1, b'{"call_id":"c","request_id":"r","attempt":"first","started_us":1}')
        (running.dir / "journal" / "20260101T000000000000-other.jsonl").write_bytes(later)
        while "of another version" not in caplog.text:
            await asyncio.sleep(0.05)
        assert (await send(running, ask("gpt-4.1")))[0] == 200
        BudgetFile(running.dir).set("new", limit("0", "org"), "cli")
        await asyncio.sleep(1.3)
        assert (await send(running, ask("gpt-4.1")))[0] == 400


async def test_a_damaged_checkpoint_is_said_and_the_journal_read(
    budgeted: StartBudgeted, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    async with budgeted(b=limit("1")) as running:
        assert (await send(running, ask("gpt-4.1")))[0] == 200
    spent = booked(running)
    (running.dir / "balances.json").write_bytes(b"{")
    async with budgeted(b=limit("1")) as running:
        assert await balance(running, "spent") == spent / NANO
    assert "balances.json is damaged" in caplog.text


# -- what is written down, while it runs -----------------------------------------------------------------------------


async def test_budgets_apply_without_a_restart(budgeted: StartBudgeted, caplog: pytest.LogCaptureFixture) -> None:
    async with budgeted() as running:
        assert (await send(running, ask("gpt-4.1")))[0] == 200
        file = BudgetFile(running.dir)
        file.set("b", limit("0"), "cli")
        await asyncio.sleep(1.3)
        assert (await send(running, ask("gpt-4.1")))[0] == 400
        listed, aside = running.dir / "budgets.jsonl", running.dir / "aside"
        listed.rename(aside)
        await asyncio.sleep(1.3)
        assert (await send(running, ask("gpt-4.1")))[0] == 400
        assert caplog.text.count("budgets.jsonl is gone") == 1
        aside.rename(listed)
        file.remove("b", "cli")
        await asyncio.sleep(1.3)
        assert (await send(running, ask("gpt-4.1")))[0] == 200


async def test_refusals_in_order_of_precedence(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0", "org")) as running:
        _, bound = Keys(running.dir).create(models=("claude-*",))
        steps = [
            ("unauthenticated", {"Authorization": "Bearer olk_nobody"}, ask("gpt-4.1")),
            ("forbidden", {"Authorization": f"Bearer {bound}"}, ask("gpt-4.1")),
            ("request_unreadable", {}, b"{"),
            ("budget_exceeded", {}, ask("gpt-4.1")),
        ]
        for code, headers, body in steps:
            async with running.post("/openai/v1/chat/completions", body, **headers) as response:
                assert response.headers["x-outlay-refusal"] == code
        assert model.served == []


async def test_free_routes_are_never_refused(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0", "org")) as running:
        async with running.post("/v1/messages/count_tokens", ask("claude-sonnet-4-5")) as response:
            assert "x-outlay-refusal" not in response.headers


async def test_batches_are_not_begun_on_a_spent_budget(budgeted: StartBudgeted, model: FakeModel) -> None:
    async with budgeted(b=limit("0", "org")) as running:
        batch = {"requests": [{"custom_id": "1", "params": ask("claude-sonnet-4-5")}]}
        async with running.post("/v1/messages/batches", batch) as response:
            assert response.status == 402
            assert response.headers["x-outlay-refusal"] == "budget_exceeded"
        assert model.served == []


async def test_a_keeper_that_fails_begins_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        rounds = 0

        async def keep(self) -> None:
            self.rounds += 1
            if self.rounds == 1:
                raise ValueError("what a record says")
            await asyncio.Event().wait()

    keeper = Failing()
    task = asyncio.create_task(app.kept(keeper))
    while keeper.rounds < 2:
        await asyncio.sleep(0.05)
    task.cancel()
    assert "Failing has failed (ValueError), and begins anew" in caplog.text
    assert "what a record says" not in caplog.text
