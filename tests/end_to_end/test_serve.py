"""The main job, end to end: serve, record, survive kill -9, be read while it writes, drain."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.processes import children
from tests.end_to_end.serving import Served, run_outlay, served, write_config
from tests.fakes.upstream import FakeUpstream, chunked, sse, whole
from tests.test_meter import ANTHROPIC_STREAM, CHAT_CHUNKS, CHAT_USAGE

ANSWER = {
    "id": "x",
    "model": "gpt-5.4-mini",
    "choices": [],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}


class Load:
    """Clients that call as fast as they can and remember what was answered to its end."""

    def __init__(self, gateway: Served, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.session = session
        self.answered: set[str] = set()

    async def client(self, ticket: str) -> None:
        headers = {"Authorization": f"Bearer {self.gateway.key}", "x-outlay-ticket": ticket}
        body = {"model": "gpt-5.4-mini", "messages": [], "stream": True}
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                url = self.gateway.url + "/v1/chat/completions"
                async with self.session.post(url, json=body, headers=headers) as response:
                    assert response.status == 200
                    if (await response.read()).endswith(b"data: [DONE]\n\n"):
                        self.answered.add(response.headers["x-outlay-call-id"])

    @contextlib.asynccontextmanager
    async def running(self, clients: int = 8) -> Any:
        tasks = [asyncio.create_task(self.client(f"PAY-{number % 3 + 1}")) for number in range(clients)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def query(data: Path, sql: str) -> Any:
    """Ask as a FinOps person does: another process opens the published file."""
    code, out, err = await run_outlay("sql", "--data", str(data), "--json", sql)
    assert code == 0, err
    return json.loads(out)


async def test_kill_9_under_load_loses_no_answered_call(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(chunked(*sse(*CHAT_CHUNKS), 0.01, *sse(CHAT_USAGE), b"data: [DONE]\n\n"))
    config = write_config(tmp_path, upstream.url, segment_seconds=1)
    answered: set[str] = set()
    for _ in range(3):
        async with served(config) as gateway, aiohttp.ClientSession() as session:
            async with Load(gateway, session).running() as load:
                await asyncio.sleep(1.5)
                gateway.kill()
                await gateway.process.wait()
            answered |= load.answered
    assert len(answered) > 50
    async with served(config):
        pass  # the restart closes what was interrupted, and seals
    rows = await query(
        tmp_path / "data", "SELECT call_id, count(*) AS n, any_value(result) AS result FROM calls GROUP BY 1"
    )
    assert {row["n"] for row in rows} == {1}
    completed = {row["call_id"] for row in rows if row["result"] == "completed"}
    assert answered <= completed
    assert {row["result"] for row in rows} <= {"completed", "interrupted", "client_cancelled", "upstream_cut"}
    code, out, err = await run_outlay("verify", "--data", str(tmp_path / "data"))
    assert code == 0, out + err


READER = """
import sys, time, duckdb
file, seconds = sys.argv[1], float(sys.argv[2])
until, last, rounds = time.monotonic() + seconds, 0, 0
while time.monotonic() < until:
    with duckdb.connect(file, read_only=True) as connection:
        count, ids = connection.execute("SELECT count(*), count(DISTINCT call_id) FROM calls").fetchone()
    assert count == ids >= last, (count, ids, last)
    last, rounds = count, rounds + 1
print(rounds, last)
"""


async def test_others_read_while_the_gateway_writes(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(chunked(*sse(*CHAT_CHUNKS, CHAT_USAGE), b"data: [DONE]\n\n"))
    config = write_config(tmp_path, upstream.url, segment_seconds=1)
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        file = gateway.dir / "outlay.duckdb"
        async with asyncio.timeout(20):
            while not file.exists():
                await asyncio.sleep(0.05)
        load = Load(gateway, session)
        async with load.running(4):
            reader = await asyncio.create_subprocess_exec(
                sys.executable, "-c", READER, str(file), "6", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await reader.communicate()
        assert reader.returncode == 0
        rounds, last = map(int, out.split())
        assert rounds > 5
        assert last > 0
        # What was answered is visible at once: no flush, no wait.
        rows = await query(gateway.dir, "SELECT call_id FROM calls")
        assert load.answered <= {row["call_id"] for row in rows}


async def test_the_console_is_served_beside_the_gateway_and_ends_with_it(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    with (tmp_path / "log").open("w+b") as log:
        async with served(write_config(tmp_path, upstream.url, pages=True), stderr=log) as gateway:
            async with aiohttp.ClientSession() as session, asyncio.timeout(30):
                while not (found := re.search(rb"the console is at (http://\S+)", (tmp_path / "log").read_bytes())):
                    await asyncio.sleep(0.1)
                url = found[1].decode()
                async with session.get(url) as response:
                    assert "outlay keys create --role admin" in await response.text()
                gateway.kill()
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    while True:  # until it is gone
                        await (await session.get(url)).read()
                        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]]
)
async def test_running_streams_finish_on_a_signal(
    tmp_path: Path, upstream: FakeUpstream, signals: list[signal.Signals]
) -> None:
    upstream.answer(chunked(ANTHROPIC_STREAM[:100], 1.0, ANTHROPIC_STREAM[100:]))
    config = write_config(tmp_path, upstream.url)
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        headers = {"x-api-key": gateway.key}
        body = {"model": "claude-sonnet-4-5", "stream": True}
        async with session.post(gateway.url + "/v1/messages", json=body, headers=headers) as response:
            first = await response.content.readany()
            for number in signals:
                gateway.process.send_signal(number)
                await asyncio.sleep(0.05)
            assert first + await response.content.read() == ANTHROPIC_STREAM
        assert await asyncio.wait_for(gateway.process.wait(), 20) == 0
    [row] = await query(tmp_path / "data", "SELECT result, input_tokens FROM calls")
    assert row == {"result": "completed", "input_tokens": 1500 + 6289 + 300}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_for_all_its_processes_is_an_ordinary_stop(
    tmp_path: Path, upstream: FakeUpstream, number: signal.Signals
) -> None:
    log, config = tmp_path / "log", write_config(tmp_path, upstream.url, pages=True)
    with log.open("wb") as stderr:
        async with served(config, stderr=stderr, start_new_session=True) as gateway:
            async with asyncio.timeout(30):
                while b"the console is at" not in log.read_bytes() or not (gateway.dir / "control.sock").exists():
                    await asyncio.sleep(0.1)
            # Those beside it hear it first, as may happen.
            beside = children(gateway.process.pid)
            assert len(beside) == 2
            for child in beside:
                os.kill(child, number)
            await asyncio.sleep(0.1)
            os.killpg(gateway.process.pid, number)
            assert await asyncio.wait_for(gateway.process.wait(), 30) == 0
    assert "ERROR" not in log.read_text(encoding="utf-8")


async def test_a_control_plane_that_ends_by_itself_is_said(tmp_path: Path, upstream: FakeUpstream) -> None:
    log, config = tmp_path / "log", write_config(tmp_path, upstream.url)
    with log.open("wb") as stderr:
        async with served(config, stderr=stderr) as gateway:
            [child] = children(gateway.process.pid)
            os.kill(child, signal.SIGKILL)
            async with asyncio.timeout(30):
                while b"the control plane ended with code -9; it is started again" not in log.read_bytes():
                    await asyncio.sleep(0.1)


async def test_mistakes_at_the_command_line(tmp_path: Path, upstream: FakeUpstream) -> None:
    config = write_config(tmp_path, upstream.url)
    config.write_text(config.read_text() + "\n[sever]\n", encoding="utf-8")
    for command in ("serve", "check"):
        code, _, err = await run_outlay(command, "--config", str(config))
        assert code == 1
        assert err.strip().endswith('unknown section "sever"; did you mean "server"?')
    code, _, err = await run_outlay("serve", "--nonsense")
    assert code == 2
    assert "Traceback" not in err


async def test_a_port_that_is_taken(tmp_path: Path, upstream: FakeUpstream) -> None:
    config = write_config(tmp_path, upstream.url)
    code, _, err = await run_outlay("serve", "--config", str(config), "--port", str(upstream.port))
    assert code == 1
    assert err.strip().endswith("Address already in use; set [server] port to another one")


async def test_check_names_what_is_wrong(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(whole(ANSWER))
    config = write_config(tmp_path, upstream.url)
    code, out, _ = await run_outlay("check", "--config", str(config), "--json")
    assert code == 0
    assert {finding["state"] for finding in json.loads(out)} == {"ok"}
    config = write_config(tmp_path, "http://127.0.0.1:9")
    code, out, _ = await run_outlay("check", "--config", str(config))
    assert code == 1
    assert "wrong  openai: 127.0.0.1:9 cannot be reached: Connection refused" in out


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('[budgets.a]\nscope = "org"\nlimit_usd = 1\nperiod = "monthly"', "budget a: "),
        ("[budget.a]", "unknown section [budget]"),
        ('[budgets.twice]\nscope = "org"\nlimit_usd = 1', "the budget twice is in the settings file too: keep one"),
    ],
)
async def test_check_refuses_budgets_that_serve_refuses(tmp_path: Path, toml: str, says: str) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    with config.open("a", encoding="utf-8") as more:
        more.write('\n[budgets.twice]\nscope = "org"\nlimit_usd = 1\n')
    assert "ok     budgets: 1 in force" in (await run_outlay("check", "--offline", "--config", str(config)))[1]
    (tmp_path / "budgets.toml").write_text(toml, encoding="utf-8")
    code, out, _ = await run_outlay("check", "--offline", "--config", str(config))
    [line] = [line for line in out.splitlines() if line.startswith("wrong")]
    assert (code, line.startswith(f"wrong  budgets: {tmp_path}/budgets.toml: "), says in line) == (1, True, True)
    code, _, err = await run_outlay("serve", "--config", str(config))
    assert (code, err.strip()) == (1, line.removeprefix("wrong  budgets: "))


@pytest.mark.parametrize("command", ["list", "create", "revoke"])
async def test_keys_over_the_command_line(tmp_path: Path, command: str) -> None:
    data = ["--data", str(tmp_path)]
    code, out, err = await run_outlay("keys", "create", "--team", "payments", "--ticket", "PAY-1", "--json", *data)
    assert code == 0, err
    made = json.loads(out)
    assert made["secret"].startswith("olk_")
    if command == "revoke":
        assert (await run_outlay("keys", "revoke", made["key_id"], *data))[0] == 0
        assert (await run_outlay("keys", "revoke", made["key_id"], *data))[0] == 1
    code, out, _ = await run_outlay("keys", "list", "--json", *data)
    [listed] = json.loads(out)
    assert listed["state"] == ("revoked" if command == "revoke" else "active")
    assert "secret" not in listed
    assert "digest" not in listed
    code, _, err = await run_outlay("keys", "create", "--ticket", "nonsense", *data)
    assert code == 2
    assert "write a ticket like PAY-123" in err
