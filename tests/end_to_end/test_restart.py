"""A restart behind a second instance: the first is told to stop while it is under load, and no call is lost."""

import asyncio
import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from gateway import ledger
from tests.end_to_end.serving import Served, served, write_config
from tests.fakes.upstream import FakeUpstream, chunked, sse, whole
from tests.test_meter import CHAT_CHUNKS, CHAT_USAGE

EVENTS = sse(*CHAT_CHUNKS, CHAT_USAGE)
STREAM = b"".join(EVENTS) + b"data: [DONE]\n\n"
CHAT = {"model": "gpt-5.4-mini", "messages": []}
STREAMED = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}


def journal(data: Path) -> list[dict[str, Any]]:
    return [record for path in sorted((data / "journal").glob("*.jsonl")) for record in ledger.records(path)]


class Balancer:
    """What stands in front of several instances: each connection goes to the first one that takes it."""

    def __init__(self, *gateways: Served) -> None:
        self._ports = [int(gateway.url.rpartition(":")[2]) for gateway in gateways]
        self.taken: Counter[int] = Counter()
        """Connections by instance."""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, port in enumerate(self._ports):
            try:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                continue  # it takes none any more
            self.taken[number] += 1
            ways = [asyncio.create_task(_copy(*way)) for way in ((reader, inner_writer), (inner_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            inner_writer.close()
            break
        writer.close()

    async def __aenter__(self) -> "Balancer":
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()


async def test_a_restart_behind_a_second_instance_loses_no_call(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(chunked(EVENTS[0], 0.2, *EVENTS[1:], b"data: [DONE]\n\n"))
    config = write_config(tmp_path, upstream.url)
    config.write_text(config.read_text() + "\nenabled = false\n")
    answered: list[str] = []
    async with served(config) as first, served(config) as second, Balancer(first, second) as balancer:
        ends = asyncio.Event()

        async def client() -> None:
            """Asks again and again on connections that it keeps as long as it may. Nothing is tried twice."""
            url, headers = f"http://127.0.0.1:{balancer.port}/v1/chat/completions", {"Authorization": f"Bearer {key}"}
            async with aiohttp.ClientSession() as session:
                while not ends.is_set():
                    async with session.post(url, json=STREAMED, headers=headers) as response:
                        assert response.status == 200
                        assert await response.read() == STREAM
                        answered.append(response.headers["x-outlay-call-id"])

        key = second.key
        clients = [asyncio.create_task(client()) for _ in range(12)]
        await asyncio.sleep(1.0)
        assert balancer.taken[0] == 12
        first.process.terminate()
        assert await asyncio.wait_for(first.process.wait(), 20) == 0
        after = len(answered)
        await asyncio.sleep(0.5)
        ends.set()
        await asyncio.gather(*clients)
        assert balancer.taken[1] == 12  # each client went over once, and only when its stream had ended
        assert len(answered) > after > 12
    assert len(upstream.requests) == len(answered)
    rows = [record for record in journal(tmp_path / "data") if record["e"] == "close"]
    assert Counter(row["call_id"] for row in rows) == Counter(answered)
    assert {row["result"] for row in rows} == {"completed"}
    assert [record["e"] for record in journal(tmp_path / "data")].count("end") == 2


async def test_while_it_drains(tmp_path: Path, upstream: FakeUpstream) -> None:
    """New connections are refused, kept ones are told to go, what runs goes on, and the journal is ended."""
    upstream.answer([1.5, *whole(ANSWER)], chunked(EVENTS[0], 1.5, *EVENTS[1:], b"data: [DONE]\n\n"))
    config = write_config(tmp_path, upstream.url)
    config.write_text(config.read_text() + "\nenabled = false\n")
    async with served(config) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        running = [await ask(port, gateway.key, CHAT)]
        await until(lambda: len(upstream.requests) == 1)
        running.append(await ask(port, gateway.key, STREAMED))
        await until(lambda: len(upstream.requests) == 2)
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        idle_writer.write(b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle_reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        gateway.process.terminate()
        await until_closed(port)
        # What comes over a connection that was kept is still served, and is the last on it.
        idle_writer.write(b"GET /-/readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        last = await asyncio.wait_for(idle_reader.read(), 10)
        assert last.startswith(b"HTTP/1.1 503")
        assert b"draining" in last
        assert b"\r\nConnection: close\r\n" in last
        idle_writer.close()
        whole_one, stream = [await asyncio.wait_for(reader.read(), 20) for reader, _ in running]
        for _, writer in running:
            writer.close()
        assert b"\r\nConnection: close\r\n" in whole_one
        assert json.loads(whole_one.partition(b"\r\n\r\n")[2]) == ANSWER
        assert b"[DONE]" in stream
        assert stream.endswith(b"0\r\n\r\n")
        assert await asyncio.wait_for(gateway.process.wait(), 20) == 0
    records = journal(tmp_path / "data")
    assert [record["e"] for record in records] == ["start", "open", "open", "close", "close", "end"]
    assert {record["result"] for record in records if record["e"] == "close"} == {"completed"}


async def ask(port: int, key: str, body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return reader, writer


async def until_closed(port: int) -> None:
    """Until no new connection is taken."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await asyncio.sleep(0.01)


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)
