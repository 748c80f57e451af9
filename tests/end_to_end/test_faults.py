"""`outlay serve` under what machines do to it: kill -9 again and again, a journal that cannot be written, a full disk.
Nothing that was answered is lost or counted twice, and it heals by itself. `OUTLAY_ROUNDS=20` for the long run."""

import asyncio
import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import ledger
from tests.end_to_end.serving import Served, run_outlay, served, write_config
from tests.end_to_end.test_budgets_survive import counted, gauge
from tests.fakes.model import FakeModel, fake_model
from tests.fakes.upstream import FakeUpstream, chunked, sse, whole
from tests.test_meter import CHAT_CHUNKS, CHAT_USAGE

ROUNDS = int(os.environ.get("OUTLAY_ROUNDS", "2"))
BUDGETS = """
[budgets.b]
scope = "org"
limit_usd = 1000
[budgets.t]
scope = "each_ticket"
limit_usd = 1000
"""
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": []}
CHAT = {"model": "gpt-5.4-mini", "messages": []}


def settings(folder: Path, upstream: str, **ledger_settings: object) -> Path:
    config = write_config(folder, upstream, segment_seconds=1, **ledger_settings)
    config.write_text(config.read_text() + "\nenabled = false\n")
    (folder / "budgets.toml").write_text(BUDGETS)
    return config


def journal(data: Path) -> list[dict[str, Any]]:
    return [record for path in sorted((data / "journal").glob("*.jsonl")) for record in ledger.records(path)]


def closed(data: Path) -> list[dict[str, Any]]:
    return [record for record in journal(data) if record["e"] == "close"]


# -- kill -9 -------------------------------------------------------------------------------------------------------


async def client(
    session: aiohttp.ClientSession, gateway: Served, number: int, answered: dict[str, tuple[int, int]]
) -> None:
    """Calls, streamed and whole in turn, and remembers the usage of each answer that came whole."""
    headers = {"Authorization": f"Bearer {gateway.key}", "x-outlay-ticket": f"PAY-{number + 1}"}
    body = {"model": "gpt-4.1", "max_tokens": 3000, "messages": [{"role": "user", "content": f"hi {number}"}]}
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        for stream in itertools.cycle([{"stream": True, "stream_options": {"include_usage": True}}, {}]):
            url = gateway.url + "/v1/chat/completions"
            async with session.post(url, json={**body, **stream}, headers=headers) as response:
                assert response.status == 200
                text = await response.read()
                if stream:
                    if not text.endswith(b"data: [DONE]\n\n"):
                        continue
                    text = text.split(b"\n\n")[-3].removeprefix(b"data: ")
                usage = json.loads(text)["usage"]
                answered[response.headers["x-outlay-call-id"]] = usage["prompt_tokens"], usage["completion_tokens"]


async def test_kill_9_again_and_again(tmp_path: Path) -> None:
    wanted = itertools.count()
    async with (
        fake_model(wants=lambda body: 50 + next(wanted) % 200, seconds_per_token=0.0002) as model,
        aiohttp.ClientSession() as session,
    ):
        config = settings(tmp_path, model.url)
        data = tmp_path / "data"
        answered: dict[str, tuple[int, int]] = {}
        for number in range(ROUNDS):
            async with served(config) as gateway:
                # What the last crash left is closed before the first call is taken.
                assert await gauge(session, gateway, "held") == 0
                assert await gauge(session, gateway, "spent") == pytest.approx(counted(data) / 1e9, abs=1e-9)
                clients = [asyncio.create_task(client(session, gateway, each, answered)) for each in range(8)]
                await asyncio.sleep(0.4 + 0.05 * (number % 7))
                gateway.kill()
                await gateway.process.wait()
                await asyncio.gather(*clients)
        async with served(config) as gateway:
            for budget in ("b", "t"):
                assert await gauge(session, gateway, "held", budget) == 0
                spent = await gauge(session, gateway, "spent", budget)
                assert spent == pytest.approx(counted(data) / 1e9, abs=1e-9), budget
    rows = {row["call_id"]: row for row in closed(data)}
    results = Counter(row["result"] for row in rows.values())
    assert len(closed(data)) == len(rows)  # none twice
    assert {record["call_id"] for record in journal(data) if record["e"] == "open"} == rows.keys()  # none left open
    assert results.keys() <= {"completed", "interrupted", "client_cancelled"}
    assert len(answered) > 20 * ROUNDS
    for call_id, usage in answered.items():
        assert rows[call_id]["result"] == "completed"
        assert (rows[call_id]["input_tokens"], rows[call_id]["output_tokens"]) == usage
    check_what_was_served(model, list(rows.values()), results)
    code, out, err = await run_outlay("verify", "--data", str(data))
    assert code == 0, out + err
    print(f"{ROUNDS} rounds: {len(answered)} answered, recorded {dict(results)}, served {len(model.served)}")


def check_what_was_served(model: FakeModel, rows: list[dict[str, Any]], results: Counter[str]) -> None:
    """Each request that the provider got is a call; what it wrote for the others is within the interrupted ones."""
    completed = [row for row in rows if row["result"] == "completed"]
    assert len(completed) <= len(model.served) <= len(rows)
    written, recorded = sum(one.output_tokens for one in model.served), sum(row["output_tokens"] for row in completed)
    assert recorded <= written <= recorded + 250 * (len(rows) - len(completed))
    whole_ones = sum(one.whole for one in model.served)
    assert len(completed) <= whole_ones
    assert whole_ones - len(completed) <= results["interrupted"] + results["client_cancelled"]


# -- a journal that cannot be written ------------------------------------------------------------------------------


async def post(session: aiohttp.ClientSession, gateway: Served, path: str, body: Any) -> tuple[int, str | None, Any]:
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with session.post(gateway.url + path, json=body, headers=headers) as response:
        return response.status, response.headers.get("x-outlay-refusal"), await response.json()


async def ready(session: aiohttp.ClientSession, gateway: Served) -> tuple[int, str]:
    async with session.get(gateway.url + "/-/readyz") as response:
        return response.status, await response.text()


async def refused(session: aiohttp.ClientSession, gateway: Served) -> None:
    """In the shape of each dialect, and the gateway says that it is not ready, and alive."""
    status, refusal, body = await post(session, gateway, "/v1/chat/completions", CHAT)
    assert (status, refusal, body["error"]["code"]) == (503, "ledger_unavailable", "ledger_unavailable")
    status, refusal, body = await post(session, gateway, "/v1/messages", MESSAGE)
    assert (status, refusal, body["type"], body["error"]["type"]) == (503, "ledger_unavailable", "error", "api_error")
    assert "cannot record" in body["error"]["message"]
    assert (await ready(session, gateway))[0] == 503
    async with session.get(gateway.url + "/-/healthz") as response:
        assert response.status == 200


async def heals(session: aiohttp.ClientSession, gateway: Served) -> None:
    async with asyncio.timeout(30):
        while (await ready(session, gateway))[0] != 200:
            await asyncio.sleep(0.1)
    assert (await post(session, gateway, "/v1/chat/completions", CHAT))[0] == 200


class Streams:
    """Streams that run while the journal fails."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Served) -> None:
        self._session, self._gateway = session, gateway
        self.call_ids: set[str] = set()

    async def one(self) -> bytes:
        url, headers = self._gateway.url + "/v1/chat/completions", {"Authorization": f"Bearer {self._gateway.key}"}
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        async with self._session.post(url, json=body, headers=headers) as response:
            assert response.status == 200
            self.call_ids.add(response.headers["x-outlay-call-id"])
            return await response.read()

    @contextlib.asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.one()) for _ in range(count)]
        async with asyncio.timeout(20):
            while len(self.call_ids) < count:
                await asyncio.sleep(0.01)
        yield
        assert await asyncio.gather(*tasks) == [STREAM] * count


EVENTS = sse(*CHAT_CHUNKS, CHAT_USAGE)
STREAM = b"".join(EVENTS) + b"data: [DONE]\n\n"
SLOW = chunked(EVENTS[0], 1.5, *EVENTS[1:], b"data: [DONE]\n\n")


async def test_a_journal_that_cannot_be_written_at_all(tmp_path: Path, upstream: FakeUpstream) -> None:
    """As on a disk that became read-only. Running streams go on, and are recorded when it can be written again."""
    config = settings(tmp_path, upstream.url)
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        streams = Streams(session, gateway)
        upstream.answer(SLOW)
        async with streams.running(5):
            limit_files(gateway, 0)
            await refused(session, gateway)
        assert len(upstream.requests) == 5
        await refused(session, gateway)  # and goes on so
        limit_files(gateway, resource.RLIM_INFINITY)
        upstream.answer(whole(ANSWER))
        await heals(session, gateway)
        async with session.get(gateway.url + "/-/metrics") as response:
            assert "outlay_unrecorded_calls_total 0.0" in await response.text()
    rows = closed(tmp_path / "data")
    assert Counter(row["result"] for row in rows if row["result"] != "refused") == {"completed": 6}
    assert streams.call_ids < {row["call_id"] for row in rows}
    assert len({row["call_id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 1)])
async def test_a_journal_that_cannot_be_written_when_the_process_ends(
    tmp_path: Path, upstream: FakeUpstream, number: signal.Signals, code: int
) -> None:
    """What it could not write is counted at the next start, as interrupted: never forgotten."""
    config = settings(tmp_path, upstream.url)
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        streams = Streams(session, gateway)
        upstream.answer(SLOW)
        async with streams.running(3):
            limit_files(gateway, 0)
            await refused(session, gateway)
        gateway.process.send_signal(number)
        assert await asyncio.wait_for(gateway.process.wait(), 20) == code
    async with served(config):
        pass
    rows = [row for row in closed(tmp_path / "data") if row["result"] != "refused"]
    assert {row["call_id"]: row["result"] for row in rows} == dict.fromkeys(streams.call_ids, "interrupted")
    assert len(rows) == 3


async def test_a_data_folder_that_is_moved_away_and_comes_back(tmp_path: Path, upstream: FakeUpstream) -> None:
    """As a volume that is unmounted under the gateway. Nobody makes another folder in its place meanwhile."""
    config = write_config(tmp_path, upstream.url)
    config.write_text(config.read_text() + '\n[auth]\nmode = "open"\n')  # keys are in the folder, too
    data, away = tmp_path / "data", tmp_path / "away"
    with (tmp_path / "stderr").open("wb") as stderr:
        async with served(config, stderr=stderr) as gateway, aiohttp.ClientSession() as session:
            gateway.key = "sk-of-the-client"
            async with asyncio.timeout(30):
                while not (data / "control.sock").exists():
                    await asyncio.sleep(0.1)
            streams = Streams(session, gateway)
            upstream.answer(SLOW)
            async with streams.running(3):
                data.rename(away)
                await is_not_ready(session, gateway)
                await refused(session, gateway)
            await asyncio.sleep(6)  # a round of the control plane
            await refused(session, gateway)
            assert not data.exists()
            data.mkdir()  # the place where a volume belongs
            await asyncio.sleep(6)
            await refused(session, gateway)
            assert not list(data.iterdir())
            data.rmdir()
            away.rename(data)
            upstream.answer(whole(ANSWER))
            await heals(session, gateway)
    rows = [row for row in closed(data) if row["result"] != "refused"]
    assert Counter(row["result"] for row in rows) == {"completed": 4}
    assert streams.call_ids < {row["call_id"] for row in rows}
    code, out, err = await run_outlay("verify", "--data", str(data))
    assert code == 0, out + err
    told = (tmp_path / "stderr").read_text()
    assert told.count("the journal cannot be written: its folder was removed or moved away; policy: refuse") == 1
    assert told.count("is gone: put the folder back, or make it anew and restart the gateway") == 1
    assert "Traceback" not in told


@pytest.mark.parametrize("what", ["segment", "journal", "data"])
async def test_a_journal_that_is_removed(tmp_path: Path, upstream: FakeUpstream, what: str) -> None:
    """What runs meanwhile is recorded as soon as there is a place for it."""
    config = settings(tmp_path, upstream.url)
    journal = tmp_path / "data" / "journal"
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        streams = Streams(session, gateway)
        upstream.answer(SLOW)
        keys = (tmp_path / "data" / "keys.jsonl").read_bytes()
        async with streams.running(3):
            if what == "segment":
                for segment in journal.glob("*.jsonl"):
                    segment.unlink()
                await is_not_ready(session, gateway)
            else:
                shutil.rmtree(tmp_path / "data" if what == "data" else journal)
                await is_not_ready(session, gateway)
                await asyncio.sleep(1.5)
                assert not journal.exists()
                assert (await ready(session, gateway))[0] == 503
                journal.mkdir(parents=True)
                (tmp_path / "data" / "keys.jsonl").write_bytes(keys)
        upstream.answer(whole(ANSWER))
        await heals(session, gateway)
        assert list(journal.glob("reserve-*"))
    rows = {row["call_id"]: row for row in closed(tmp_path / "data")}
    assert streams.call_ids < rows.keys()
    assert all(row["result"] == "completed" for row in rows.values())


async def is_not_ready(session: aiohttp.ClientSession, gateway: Served) -> None:
    async with asyncio.timeout(5):
        while (await ready(session, gateway))[0] == 200:
            await asyncio.sleep(0.01)
    assert "removed or moved away" in (await ready(session, gateway))[1]


def limit_files(gateway: Served, size: int) -> None:
    """No file of this process may become longer: every write fails."""
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "outlay-test", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, b"x" * 4096)
    os.close(fd)


async def test_a_full_disk(small_disk: Path, upstream: FakeUpstream) -> None:
    config = settings(small_disk, upstream.url, reserve_bytes=65536)
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        streams = Streams(session, gateway)
        upstream.answer(SLOW)
        async with streams.running(5):
            filler = small_disk / "filler"
            fill(filler)
            upstream.answer(whole(ANSWER))
            async with asyncio.timeout(20):
                while (await post(session, gateway, "/v1/chat/completions", CHAT))[0] == 200:
                    pass
            await refused(session, gateway)
        filler.unlink()
        await heals(session, gateway)
    rows = [row for row in closed(small_disk / "data") if row["result"] != "refused"]
    assert streams.call_ids <= {row["call_id"] for row in rows}
    assert len({row["call_id"] for row in rows}) == len(rows)


# -- no descriptor left --------------------------------------------------------------------------------------------


def low_limit() -> None:
    """As most systems have it for whoever asks for no more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))


def first_free(gateway: Served) -> int:
    """The number that the next descriptor would have."""
    used = {int(each.name) for each in Path(f"/proc/{gateway.process.pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in used)


async def test_too_many_open_files_are_not_the_provider_s_fault(tmp_path: Path, upstream: FakeUpstream) -> None:
    config = settings(tmp_path, upstream.url)
    more = 'retries = 2\nbreaker_failures = 1\nfallbacks = ["spare"]\n'
    spare = f'[upstreams.spare]\nbase_url = "{upstream.url}"\nprovider = "openai"\ncredential = "env:PROVIDER_KEY"\n'
    text = config.read_text().replace('provider = "openai"\n', f'provider = "openai"\n{more}')
    config.write_text(text.replace("[console]", f"{spare}[console]"))
    upstream.answer(whole(ANSWER))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "stderr").open("wb") as stderr:
        async with (
            served(config, stderr=stderr, preexec_fn=low_limit) as gateway,
            aiohttp.ClientSession() as session,
        ):
            assert resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            assert (await ready(session, gateway))[0] == 200  # over the connection that is used below
            resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (first_free(gateway), hard))
            for _ in range(3):
                status, refusal, body = await post(session, gateway, "/v1/chat/completions", CHAT)
                assert (status, refusal) == (502, "upstream_unreachable")
                assert "the gateway has too many open files (ulimit -n)" in body["error"]["message"]
            resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
            assert (await post(session, gateway, "/v1/chat/completions", CHAT))[0] == 200
    rows = closed(tmp_path / "data")
    assert [(row["upstream"], row["attempt"], row["status"]) for row in rows] == [
        *[("openai", 1, 502)] * 3,
        ("openai", 1, 200),
    ]
    assert [row["list_cost_nano"] for row in rows[:3]] == [0, 0, 0]
    assert (tmp_path / "stderr").read_text().count("too many open files") == 1
