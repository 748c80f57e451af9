"""Budgets of `outlay serve` over kill -9: what was spent stays spent, what was held is given back or counted."""

import asyncio
import contextlib
import re
from pathlib import Path

import aiohttp

from gateway import ledger
from gateway.budgets import cost_of
from gateway.call import Call
from tests.end_to_end.serving import Served, served, write_config
from tests.fakes.model import FakeModel, fake_model

LIMIT = 0.3
BUDGET = f'[budgets.b]\nscope = "org"\nlimit_usd = {LIMIT}\n[budgets.t]\nscope = "each_task"\nlimit_usd = 1\n'


async def gauge(session: aiohttp.ClientSession, gateway: Served, what: str, budget: str = "b") -> float:
    async with session.get(gateway.url + "/-/metrics") as response:
        found = re.search(
            rf'^outlay_budget_{what}_usd{{budget="{budget}"}} (\S+)$', await response.text(), re.MULTILINE
        )
    assert found is not None
    return float(found[1])


async def load(session: aiohttp.ClientSession, gateway: Served, statuses: list[int]) -> None:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3000, "stream": True}
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        while True:
            async with session.post(gateway.url + "/v1/chat/completions", json=body, headers=headers) as response:
                statuses.append(response.status)
                await response.read()


def counted(data: Path) -> int:
    """What the journal says was spent, nano-USD."""
    closes: dict[str, Call] = {}
    for segment in (data / "journal").glob("*.jsonl"):
        with segment.open("rb") as lines:
            for line in lines:
                if line.startswith(b'{"e":"close"') and (call := ledger.decode_as(line, Call)) is not None:
                    assert call.call_id not in closes
                    closes[call.call_id] = call
    return sum(cost_of(call) or 0 for call in closes.values() if call.result != "refused")


async def test_kill_9_under_load(tmp_path: Path) -> None:
    async with (
        fake_model(wants=lambda body: 300, seconds_per_token=0.0005) as model,
        aiohttp.ClientSession() as session,
    ):
        config = write_config(tmp_path, model.url, segment_seconds=1)
        (tmp_path / "budgets.toml").write_text(BUDGET)
        config.write_text(config.read_text() + "\nenabled = false\n")
        statuses: list[int] = []
        for _ in range(4):
            async with served(config) as gateway:
                workers = [asyncio.create_task(load(session, gateway, statuses)) for _ in range(8)]
                await asyncio.sleep(0.8)
                gateway.kill()
                await gateway.process.wait()
                await asyncio.gather(*workers)
        async with served(config) as gateway:
            assert await gauge(session, gateway, "held") == 0
            assert await gauge(session, gateway, "spent") == counted(tmp_path / "data") / 1e9
            worker = asyncio.create_task(load(session, gateway, statuses))
            async with asyncio.timeout(60):
                while 400 not in statuses:
                    await asyncio.sleep(0.05)
            worker.cancel()
            assert await gauge(session, gateway, "held") == 0
            assert await gauge(session, gateway, "spent") == counted(tmp_path / "data") / 1e9 <= LIMIT
        assert counted(tmp_path / "data") / 1e9 >= 0.9 * LIMIT
        assert _served(model) <= LIMIT


def _served(model: FakeModel) -> float:
    return sum(one.input_tokens * 2000 + one.output_tokens * 8000 for one in model.served) / 1e9
