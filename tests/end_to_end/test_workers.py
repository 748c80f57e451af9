"""`outlay serve` with several workers: what one process promises holds over all of them, also when one is killed."""

import asyncio
import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import ledger
from gateway.keys import Keys
from tests.end_to_end.serving import Served, run_outlay, served, write_config
from tests.end_to_end.test_budgets_survive import counted
from tests.fakes.model import FakeModel, fake_model

NANO = 10**9
ROUNDS = int(os.environ.get("OUTLAY_ROUNDS", "1"))
PRICES = {"gpt-4.1": (2000, 8000), "claude-sonnet-4-5": (3000, 15000)}
"""Nano-USD per input and output token."""


def settings(folder: Path, url: str, workers: int, more: str = "") -> Path:
    config = write_config(folder, url)
    text = config.read_text().replace("[server]", f"[server]\nworkers = {workers}")
    config.write_text(f"{text}\nenabled = false\n{more}")
    return config


def workers_of(gateway: Served) -> list[int]:
    """The processes that the gateway has started."""
    pid = gateway.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def many_connections() -> aiohttp.ClientSession:
    """A session that makes a connection for each request: so they go to all workers."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))


async def ask(
    session: aiohttp.ClientSession, gateway: Served, model: str = "gpt-4.1", text: str = "hi", **more: Any
) -> tuple[int, dict[str, str], bytes]:
    headers = {"x-outlay-key": more.pop("key", gateway.key), **more.pop("headers", {})}
    path = "/v1/messages" if model.startswith("claude") else "/v1/chat/completions"
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4000, **more}
    async with session.post(gateway.url + path, json=body, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def metrics(session: aiohttp.ClientSession, gateway: Served) -> dict[str, float]:
    """The samples by name and labels."""
    async with session.get(gateway.url + "/-/metrics") as response:
        found = re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", await response.text(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def billed(model: FakeModel) -> int:
    """What the provider has served, nano-USD."""
    rates = ((PRICES[one.model], one) for one in model.served)
    return sum(rate[0] * one.input_tokens + rate[1] * one.output_tokens for rate, one in rates)


def journal(data: Path, what: str) -> list[dict[str, Any]]:
    """Its records of a kind."""
    segments = sorted((data / "journal").glob("*.jsonl"))
    return [record for segment in segments for record in ledger.records(segment) if record["e"] == what]


async def test_400_concurrent_calls_over_three_workers_spend_a_budget_and_no_more(tmp_path: Path) -> None:
    chance = random.Random(1)
    async with fake_model() as model, many_connections() as session:
        model.wants, model.seconds_per_token = (lambda body: chance.choice((20, 100, 300, 1000, 3000))), 0.0005
        budget = '[budgets.b]\nscope = "team:payments"\nlimit_usd = 1\n'
        config = settings(tmp_path, model.url, 3, budget)
        async with served(config) as gateway:
            assert len(workers_of(gateway)) == 3
            answers = await asyncio.gather(
                *(
                    ask(
                        session, gateway, ("gpt-4.1", "claude-sonnet-4-5")[n % 2], "hi " * chance.randint(1, 300),
                        stream=n % 4 < 2,
                    )
                    for n in range(400)
                )
            )  # fmt: skip
            statuses = Counter(status for status, _, _ in answers)
            assert set(statuses) == {200, 400, 402}, "the budget is too large for this test, or something broke"
            assert counted(tmp_path / "data") == billed(model), "what the ledger says is what the provider served"
            assert 0.95 * NANO <= billed(model) <= NANO
            assert len(model.served) == statuses[200]
            found = await metrics(session, gateway)
            assert found['outlay_budget_held_usd{budget="b"}'] == 0
            assert found['outlay_budget_spent_usd{budget="b"}'] == billed(model) / NANO
            assert found['outlay_refusals_total{code="budget_exceeded"}'] == 400 - statuses[200]
            calls = sum(value for name, value in found.items() if name.startswith("outlay_calls_total"))
            assert calls == 400, "each is counted once, and by one process"
            assert found["outlay_calls_in_flight"] == 0
        closes = journal(tmp_path / "data", "close")
        assert len({record["call_id"] for record in closes}) == len(closes) == 400
        assert {record["gateway_id"] for record in closes} == {closes[0]["gateway_id"]}
        assert not list((tmp_path / "data").glob("gateway-*.sock"))


LIMITS = """
[limits.five]
scope = "each_key"
in_flight = 5
[limits.thirty]
scope = "team:search"
requests_per_minute = 30
"""


async def test_limits_keys_and_tasks_are_those_of_all_workers(tmp_path: Path) -> None:
    async with fake_model(wants=lambda body: 100, seconds_per_token=0.01) as model, many_connections() as session:
        config = settings(tmp_path, model.url, 2, LIMITS)
        ring = Keys(tmp_path / "data")
        _, searching = ring.create(team_id="search")
        _, admin = ring.create(role="admin")
        async with served(config) as gateway:
            # In flight: of calls that all run at the same time five go on, wherever they come.
            answers = await asyncio.gather(*(ask(session, gateway) for _ in range(30)))
            assert Counter(status for status, _, _ in answers) == {200: 5, 429: 25}
            assert model.at_once_max == 5
            model.seconds_per_token = 0
            assert (await ask(session, gateway))[0] == 200, "the places are free again"

            # Requests a minute.
            before = time.monotonic()
            answers = [await ask(session, gateway, key=searching) for _ in range(45)]
            statuses = Counter(status for status, _, _ in answers)
            assert 30 <= statuses[200] <= 31 + (time.monotonic() - before) / 2
            found = await metrics(session, gateway)
            assert found['outlay_limited_calls_total{limit="in_flight",scope="key"}'] == 25
            assert found['outlay_limited_calls_total{limit="requests",scope="team"}'] == statuses[429]

            # A key that is made, and one that is revoked, over whichever worker, is so at once in all.
            api, as_admin = gateway.url + "/-/api/v1/keys", {"Authorization": f"Bearer {admin}"}
            async with session.post(api, json={"team_id": "payments"}, headers=as_admin) as response:
                assert response.status == 201, await response.text()
                made = await response.json()
            async with session.post(api, json={"team_id": "payments"}) as response:
                assert response.status == 401
            for _ in range(8):
                status, headers, _ = await ask(session, gateway, key=made["secret"], stream=True)
                assert status == 200
            assert headers["x-outlay-task"]
            async with session.post(f"{api}/{made['key_id']}/revoke", json={}, headers=as_admin) as response:
                assert response.status == 200
            answers = [await ask(session, gateway, key=made["secret"]) for _ in range(8)]
            assert {status for status, _, _ in answers} == {401}

            # Calls that name no task are one; what a session said is known wherever it goes on.
            answers = [await ask(session, gateway) for _ in range(8)]
            assert len({headers["x-outlay-task"] for _, headers, _ in answers}) == 1
            of_session = {"x-outlay-task": "t-1"}
            await ask(session, gateway, headers={**of_session, "x-outlay-ticket": "PAY-7"})
            answers = [await ask(session, gateway, headers=of_session) for _ in range(8)]
            assert {headers["x-outlay-ticket"] for _, headers, _ in answers} == {"PAY-7"}


async def load(session: aiohttp.ClientSession, gateway: Served, seen: Counter[str]) -> None:
    while True:
        try:
            status, headers, body = await ask(session, gateway, stream=True)
            assert status == 200
            seen[headers["x-outlay-call-id"] if body.endswith(b"data: [DONE]\n\n") else "cut"] += 1
        except (aiohttp.ClientError, ConnectionError):
            seen["lost"] += 1


@contextlib.asynccontextmanager
async def loaded(session: aiohttp.ClientSession, gateway: Served, clients: int = 12) -> Any:
    seen: Counter[str] = Counter()
    tasks = [asyncio.create_task(load(session, gateway, seen)) for _ in range(clients)]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def connect_again_and_again(gateway: Served) -> None:
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.close()
        await asyncio.sleep(0.01)


async def test_a_worker_that_is_killed_loses_only_what_it_had_under_way(tmp_path: Path) -> None:
    budget = f'{LIMITS}[budgets.b]\nscope = "org"\nlimit_usd = 1000\n'.replace("in_flight = 5", "in_flight = 24")
    async with fake_model(wants=lambda body: 100, seconds_per_token=0.002) as model, many_connections() as session:
        async with served(settings(tmp_path, model.url, 2, budget)) as gateway:
            of_session = {"x-outlay-task": "t-1"}
            await ask(session, gateway, headers={**of_session, "x-outlay-ticket": "PAY-7"})
            async with loaded(session, gateway) as seen:
                for _ in range(ROUNDS):
                    await asyncio.sleep(0.7)
                    killed, other = random.sample(workers_of(gateway), 2)
                    os.kill(killed, signal.SIGKILL)
                    async with asyncio.timeout(30):
                        while len(now := workers_of(gateway)) < 2 or killed in now:
                            await asyncio.sleep(0.05)
                    assert other in now
                    answered = len(seen)
                    async with asyncio.timeout(30):
                        while len(seen) < answered + 30:
                            await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                while (await metrics(session, gateway))["outlay_calls_in_flight"]:
                    await asyncio.sleep(0.05)
            answers = await asyncio.gather(*(ask(session, gateway) for _ in range(24)))
            assert {status for status, _, _ in answers} == {200}, "no place in flight was lost"
            answers = await asyncio.gather(*(ask(session, gateway, headers=of_session) for _ in range(12)))
            assert {headers["x-outlay-ticket"] for _, headers, _ in answers} == {"PAY-7"}, "the new one knows, too"
            found = await metrics(session, gateway)
            assert found['outlay_budget_held_usd{budget="b"}'] == 0
            assert found['outlay_budget_spent_usd{budget="b"}'] == counted(tmp_path / "data") / NANO
            # And at the end: what runs is finished, and nobody is taken any more.
            model.seconds_per_token = 0.01
            running = asyncio.create_task(ask(session, gateway, stream=True))
            async with asyncio.timeout(10):
                while model.at_once == 0:
                    await asyncio.sleep(0.01)
            gateway.process.terminate()
            async with asyncio.timeout(10):
                with pytest.raises(ConnectionRefusedError):
                    await connect_again_and_again(gateway)
            status, _, body = await running
            assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
            assert await asyncio.wait_for(gateway.process.wait(), 30) == 0
    code, out, err = await run_outlay("verify", "--data", str(tmp_path / "data"))
    assert code == 0, out + err
    closes = journal(tmp_path / "data", "close")
    results = Counter(record["result"] for record in closes)
    assert len({record["call_id"] for record in closes}) == len(closes)
    assert {record["call_id"] for record in journal(tmp_path / "data", "open")} == {each["call_id"] for each in closes}
    interrupted = [record for record in closes if record["result"] == "interrupted"]
    assert 1 <= len(interrupted) <= seen["lost"] + seen["cut"]
    assert all(record["held_nano"] > 0 for record in interrupted)
    assert set(results) <= {"completed", "interrupted", "client_cancelled"}
    completed = {record["call_id"] for record in closes if record["result"] == "completed"}
    assert set(seen) - {"lost", "cut"} <= completed, "what was answered is recorded"


async def test_without_its_owner_no_worker_goes_on(tmp_path: Path) -> None:
    async with fake_model(wants=lambda body: 100, seconds_per_token=0.002) as model, many_connections() as session:
        config = settings(tmp_path, model.url, 2)
        async with served(config) as gateway:
            async with loaded(session, gateway) as seen:
                await asyncio.sleep(0.7)
                workers = workers_of(gateway)
                while len(journal(tmp_path / "data", "open")) == len(journal(tmp_path / "data", "close")):
                    await asyncio.sleep(0.01)  # the clients keep step: now and then nothing is under way
                gateway.kill()
                await gateway.process.wait()
                async with asyncio.timeout(10):
                    while any(map(_lives, workers)):
                        await asyncio.sleep(0.02)
        assert list((tmp_path / "data").glob("gateway-*.sock")), "left by the one that was killed"
        async with served(config) as gateway:
            assert (await ask(session, gateway))[0] == 200
            assert len(list((tmp_path / "data").glob("gateway-*.sock"))) == 1
    closes = journal(tmp_path / "data", "close")
    assert len({record["call_id"] for record in closes}) == len(closes)
    completed = {record["call_id"] for record in closes if record["result"] == "completed"}
    answered = set(seen) - {"lost", "cut"}
    assert len(answered) > 10
    assert answered <= completed, "what was answered to its end was recorded before"
    assert {record["result"] for record in closes} == {"completed", "interrupted"}


def _lives(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


async def test_a_gateway_that_has_lost_all_workers_ends_as_one_that_failed(tmp_path: Path) -> None:
    async with fake_model() as model, served(settings(tmp_path, model.url, 2)) as gateway:
        (tmp_path / "prices.toml").write_text("[discounts]\nopenai = 0.1\n")
        for worker in workers_of(gateway):
            os.kill(worker, signal.SIGKILL)
        assert await asyncio.wait_for(gateway.process.wait(), 120) == 1
    assert [record["e"] for record in journal(tmp_path / "data", "end")] == ["end"], "and yet the journal is whole"


async def test_what_cannot_be(tmp_path: Path) -> None:
    async with fake_model() as model:
        config = settings(tmp_path, model.url, 2)
        code, _, err = await run_outlay("serve", "--config", str(config), "--workers", "0")
        assert code == 2
        assert "0 is not in the range 1<=x<=64" in err
        code, _, err = await run_outlay("serve", "--config", str(config), "--port", str(model.port))
        assert code == 1
        assert err.strip().endswith("Address already in use; set [server] port to another one")
