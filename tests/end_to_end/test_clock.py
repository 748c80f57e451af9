"""A machine's clock that is set back, and forward, under a running `outlay serve`."""

import asyncio
import contextlib
import itertools
from pathlib import Path

import aiohttp
import pytest

from gateway import ledger
from tests.end_to_end.serving import Served, served, write_config
from tests.end_to_end.test_budgets_survive import counted, gauge
from tests.fakes.upstream import FakeUpstream, chunked, sse, whole
from tests.test_meter import CHAT_CHUNKS, CHAT_USAGE

CLOCK = """
import os, time
true, file = time.time_ns, os.environ["OUTLAY_TEST_CLOCK"]
def time_ns():
    with open(file) as offset:
        return true() + int(offset.read() or 0) * 1_000_000_000
time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
"""
"""Run by the interpreter before everything else: a wall clock that is so many seconds off, as a file says."""
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
CHAT = {"model": "gpt-5.4-mini", "messages": []}
HOUR, DAY = 3600, 86400
BUDGETS = """
[budgets.ever]
scope = "org"
limit_usd = 100
period = "total"
[budgets.daily]
scope = "org"
limit_usd = 100
period = "day"
[budgets.rolling]
scope = "org"
limit_usd = 100
period = "rolling_24h"
"""


async def call(session: aiohttp.ClientSession, gateway: Served, **asked: object) -> None:
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with session.post(gateway.url + "/v1/chat/completions", json={**CHAT, **asked}, headers=headers) as response:
        assert response.status == 200
        await response.read()


def clock_of(folder: Path) -> tuple[Path, dict[str, str]]:
    """The file that sets it, and the environment of processes that go by it."""
    offset, site = folder / "offset", folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK)
    offset.write_text("0")
    return offset, {"PYTHONPATH": str(site), "OUTLAY_TEST_CLOCK": str(offset)}


async def test_a_clock_that_jumps(tmp_path: Path, upstream: FakeUpstream) -> None:
    offset, environment = clock_of(tmp_path)
    events = sse(*CHAT_CHUNKS, CHAT_USAGE)
    config = write_config(tmp_path, upstream.url, segment_seconds=1)
    (tmp_path / "budgets.toml").write_text(BUDGETS)
    config.write_text(config.read_text() + "\nenabled = false\n")
    data = tmp_path / "data"
    jumps = [0, -HOUR, -40 * DAY, DAY, 3 * DAY, 0]
    async with aiohttp.ClientSession() as session:
        async with served(config, env=environment) as gateway:
            for before, after in itertools.pairwise(jumps):
                upstream.answer(chunked(events[0], 0.3, *events[1:], b"data: [DONE]\n\n"))
                running = asyncio.create_task(
                    call(session, gateway, stream=True, stream_options={"include_usage": True})
                )
                await asyncio.sleep(0.1)
                offset.write_text(str(after))  # in the middle of a call
                await running
                upstream.answer(whole(ANSWER))
                await call(session, gateway)
                async with session.get(gateway.url + "/-/readyz") as response:
                    assert response.status == 200, (before, after)
                assert await gauge(session, gateway, "held", "ever") == 0
            spent = {name: await gauge(session, gateway, "spent", name) for name in ("ever", "daily", "rolling")}
        calls = 2 * (len(jumps) - 1)
        assert spent["ever"] == counted(data) / 1e9
        assert 0 < spent["daily"] < spent["ever"]  # each call counts in one day, and not all on this one
        async with served(config, env=environment) as gateway:  # and the balances say so after a restart, too
            for name, amount in spent.items():
                if name != "rolling":
                    assert await gauge(session, gateway, "spent", name) == amount
    records = [record for path in (data / "journal").glob("*.jsonl") for record in ledger.records(path)]
    closed = [record for record in records if record["e"] == "close"]
    assert len(closed) == len({record["call_id"] for record in closed}) == calls
    assert {record["result"] for record in closed} == {"completed"}
    assert all(0 <= record["duration_ms"] < 30_000 for record in closed)  # no clock on the wall measures that
    booked = [record["at"] for record in closed]
    assert len(set(booked)) == calls


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_clock_that_was_set_back_while_nothing_ran(
    tmp_path: Path, upstream: FakeUpstream, is_killed: bool
) -> None:
    """The control plane is asked for what was booked up to now, and now is before the last calls."""
    offset, environment = clock_of(tmp_path)
    config, toml, data = write_config(tmp_path, upstream.url), tmp_path / "budgets.toml", tmp_path / "data"
    toml.write_text(BUDGETS)
    upstream.answer(whole(ANSWER))

    def make(budget: str, scope: str) -> None:
        toml.write_text(f'{toml.read_text()}[budgets.{budget}]\nscope = "{scope}"\nlimit_usd = 9\nperiod = "total"\n')

    async def known(session: aiohttp.ClientSession, gateway: Served, budget: str) -> None:
        """Wait until a budget knows what was spent before it was made: an answer has come."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(AssertionError):  # it is not in force yet
                    if await gauge(session, gateway, "spent", budget) == counted(data) / 1e9:
                        return
                await asyncio.sleep(0.1)

    async with aiohttp.ClientSession() as session:
        async with served(config, env=environment) as gateway:
            await call(session, gateway)
            if is_killed:
                gateway.kill()
                await gateway.process.wait()
        offset.write_text("-240")
        async with served(config, env=environment) as gateway:
            make("later", "team:payments")
            await known(session, gateway, "later")
            assert await gauge(session, gateway, "spent", "ever") == counted(data) / 1e9 > 0
            await call(session, gateway)
        offset.write_text(str(-HOUR))
        with (tmp_path / "log").open("wb") as log:
            async with served(config, env=environment, stderr=log) as gateway:
                make("last", "model:gpt-5.4-mini")
                async with asyncio.timeout(30):
                    while "behind the last call" not in (tmp_path / "log").read_text():
                        await asyncio.sleep(0.1)
                await asyncio.sleep(3)  # the control plane answers by now
                assert await gauge(session, gateway, "spent", "ever") == counted(data) / 1e9
                offset.write_text("0")
                await known(session, gateway, "last")
                assert await gauge(session, gateway, "spent", "ever") == counted(data) / 1e9
        assert (tmp_path / "log").read_text().count("behind the last call") == 1
