"""Memory of a real `outlay serve` over many calls: it does not grow with them. `OUTLAY_CALLS=200000` for the long run,
which also prints the curve."""

import asyncio
import contextlib
import itertools
import os
import re
import socket
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from tests.end_to_end.processes import open_files, resident_bytes
from tests.end_to_end.serving import served, write_config
from tests.fakes.upstream import fake_upstream, sse, whole
from tests.test_meter import CHAT_CHUNKS, CHAT_USAGE

CALLS = int(os.environ.get("OUTLAY_CALLS", "3000"))
CLIENTS = 8
TASKS = 8
"""Fewer than a caller may have at once: of each new one some things are remembered, of up to 20,000."""
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
STREAM = b"".join(sse(*CHAT_CHUNKS, CHAT_USAGE)) + b"data: [DONE]\n\n"
BUDGETS = '[budgets.b]\nscope = "org"\nlimit_usd = 100000\n[budgets.t]\nscope = "each_ticket"\nlimit_usd = 100000\n'


@pytest.mark.timeout(120 + CALLS // 200)
async def test_memory_is_flat(tmp_path: Path) -> None:
    """A leak of 1 kB a call would be seen."""
    async with fake_upstream() as upstream, aiohttp.ClientSession() as session:
        event_stream = whole(STREAM, headers=[("x-kind", "stream")])
        event_stream = [step.replace(b"application/json", b"text/event-stream") for step in event_stream]  # type: ignore[union-attr]
        upstream.answer(*([whole(ANSWER), event_stream] * (CALLS + CALLS // 2)))
        config = write_config(tmp_path, upstream.url, segment_seconds=5)
        (tmp_path / "budgets.toml").write_text(BUDGETS)
        config.write_text(config.read_text() + "\nenabled = false\n")
        async with served(config) as gateway:
            numbers = itertools.count()

            async def client(until: int) -> None:
                while (number := next(numbers)) < until:
                    body = {
                        "model": "gpt-5.4-mini",
                        "stream": number % 2 == 1,
                        "messages": [],
                        "user": f"{number % TASKS}",
                    }
                    headers = {"Authorization": f"Bearer {gateway.key}", "x-outlay-ticket": f"PAY-{number % TASKS + 1}"}
                    url = gateway.url + "/v1/chat/completions"
                    async with session.post(url, json=body, headers=headers) as response:
                        assert response.status == 200
                        await response.read()

            async def calls(until: int) -> int:
                await asyncio.gather(*(client(until) for _ in range(CLIENTS)))
                upstream.requests.clear()
                return resident_bytes(gateway.process.pid)

            warm = CALLS // 2  # caches are full, and the allocator has what it needs
            before = await calls(warm)
            files = open_files(gateway.process.pid)
            step = max(CALLS // 20, 1000)
            curve = [before]
            for until in range(warm + step, warm + CALLS + 1, step):
                numbers = itertools.count(until - step)
                curve.append(await calls(until))
            print(f"after {warm:,} calls, then each {step:,}: {[round(each / 2**20, 1) for each in curve]} MiB")
            async with session.get(gateway.url + "/-/metrics") as response:
                lines = (await response.text()).splitlines()
            counted = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("outlay_calls_total{"))
            assert counted == warm + step * (len(curve) - 1) >= CALLS
            grown = curve[-1] - before
            assert grown < CALLS * 1000, f"{grown:,} bytes more over {CALLS:,} calls: {curve}"
            assert open_files(gateway.process.pid) <= files + 2


async def test_clients_that_do_not_read_cost_little(tmp_path: Path) -> None:
    """Their answers stay with the provider: what it sent, and what the process holds for each, is bounded."""
    readers, piece = 20, b"data: {}\n\n" * 20_000
    sent = [0] * readers

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                sent[number] += len(piece)
        writer.transport.abort()

    numbers = itertools.count()
    upstream = await asyncio.start_server(flood, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
    config = write_config(tmp_path, url, more=["write_seconds = 4.0"])
    config.write_text(config.read_text() + "\nenabled = false\n")
    async with served(config) as gateway, contextlib.AsyncExitStack() as stack:
        before = resident_bytes(gateway.process.pid)
        host, port = gateway.url.removeprefix("http://").split(":")
        body = b'{"model":"gpt-5.4-mini","stream":true,"messages":[]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
        for _ in range(readers):
            client = stack.enter_context(socket.create_connection((host, int(port))))
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        last: list[int] = []
        async with asyncio.timeout(40):
            while last != sent or not all(sent):
                last = list(sent)
                await asyncio.sleep(0.5)
        grown = resident_bytes(gateway.process.pid) - before
        print(f"{readers} clients that do not read: {max(sent):,} bytes sent to one at most, {grown:,} bytes of memory")
        assert max(sent) < 32 * 2**20  # most of it lies in the kernel's buffers
        assert grown < readers * 3 * 2**20
        async with asyncio.timeout(40), aiohttp.ClientSession() as session:  # and in the end they are cut off
            cut, text = re.compile(rf'outlay_calls_total{{.*result="client_cancelled".*}} {readers}.0\n'), ""
            while "outlay_calls_in_flight 0.0" not in text or not cut.search(text):
                await asyncio.sleep(0.2)
                async with session.get(gateway.url + "/-/metrics") as response:
                    text = await response.text()
    upstream.close()


async def test_a_conversation_of_tiny_messages_costs_its_bytes_while_it_waits(tmp_path: Path) -> None:
    """To look into one takes many times as much, but only for so long."""
    calls, body = 5, b'{"model":"gpt-5.4-mini","messages":[%b1]}' % (b"1," * 1_000_000)
    received: asyncio.Queue[int] = asyncio.Queue()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 0
        while size < len(body):
            size += len(await reader.read(2**16))
        received.put_nowait(size)
        await reader.read()
        writer.transport.abort()

    upstream = await asyncio.start_server(stall, "127.0.0.1", 0)
    config = write_config(tmp_path, f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}")
    config.write_text(config.read_text() + "\nenabled = false\n")
    async with served(config) as gateway, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {gateway.key}"}

        async def call() -> None:
            async with session.post(gateway.url + "/v1/chat/completions", data=BytesIO(body), headers=headers):
                raise AssertionError("it was answered")

        before = resident_bytes(gateway.process.pid)
        waiting = [asyncio.create_task(call()) for _ in range(calls)]
        async with asyncio.timeout(20):
            for _ in range(calls):
                await received.get()
        grown = resident_bytes(gateway.process.pid) - before
        print(f"{calls} calls of {len(body):,} bytes that wait: {grown:,} bytes of memory")
        assert grown < calls * len(body) * 8
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    upstream.close()
