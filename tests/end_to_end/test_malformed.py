"""Thousands of requests that are none, at a real `outlay serve`: it goes on serving, keeps and says nothing of them,
and never takes what is ambiguous for two requests. `OUTLAY_MALFORMED=10000` for the long run."""

import asyncio
import contextlib
import json
import os
import random
import re
from pathlib import Path

import aiohttp

from tests.end_to_end.processes import open_files, resident_bytes
from tests.end_to_end.serving import Served, served, write_config
from tests.fakes.upstream import FakeUpstream, whole

COUNT = int(os.environ.get("OUTLAY_MALFORMED", "1500"))
AT_ONCE = 32
MARK = "not-to-be-seen-anywhere"
"""Stands in every request: nothing of it may be logged or answered."""
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
SMUGGLED = b"POST /openai/v1/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
METHODS = [b"GET", b"POST", b"get", b"PRI", b"CONNECT", b"G\0T", b"TRACE", b"\xc3\xa9", b"POST" * 9, b"", b"(x)"]
TARGETS = [
    b"/", b"*", b"/v1/chat/completions", b"http://elsewhere.invalid/", b"/\0", b"/%00", b"//", b"/" + b"a" * 99_999,
    b"/../../x", b"/v1/\xff\xfe", b"elsewhere:443", b"/ HTTP/1.1\r\nx", b"/-/healthz", b"?", b"/#",
]  # fmt: skip
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTP/9", b"http/1.1", b"", b"HTTP/1.11"]
FRAMINGS = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 500\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length: 5 \0\r\n",
    b"Content-Length: " + b"9" * 40 + b"\r\n",
    b"Content-Length:\r\n 5\r\n",
    b"Content-Length : 5\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"\x00Transfer-Encoding: chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\nTransfer-Encoding: chunked\r\n",
    b"X: a\rTransfer-Encoding: chunked\r\n",
]
BODIES = [
    b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"-5\r\nhello\r\n", b"5\r\nhello-and-more\r\n0\r\n\r\n",
    b"f" * 17 + b"\r\n", b"5;" + b"x" * 70_000 + b"\r\nhello", b"0\r\n" + b"x: y\r\n" * 2000, b"5\nhello\n0\n\n",
    b"\0" * 50, b"{}", b"5 \r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"",
]  # fmt: skip
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64))


def malformed(chance: random.Random) -> bytes:
    """A request, or what claims to be one; perhaps a part of it, perhaps with another one behind it."""
    kind = chance.randrange(6)
    mark = b"x-mark: " + MARK.encode() + b"\r\n"
    line = b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    if kind == 0:
        sent = chance.randbytes(chance.randrange(1, 3000)) + b"\r\n" + mark + b"\r\n"
    elif kind == 1:
        sent = b" ".join((chance.choice(METHODS), chance.choice(TARGETS), chance.choice(VERSIONS))) + b"\r\nHost: x\r\n"
        sent += mark + b"\r\n"
    elif kind == 2:
        sent = line + mark + chance.choice(FRAMINGS) + b"\r\n" + chance.choice(BODIES) + SMUGGLED
    elif kind == 3:
        field = bytes(chance.choice(b"abcXYZ-_\0 \t:;\r\n\x7f\xff(") for _ in range(chance.randrange(1, 60)))
        sent = line + mark + field + b": " + chance.randbytes(40) + b"\r\n\r\n"
    elif kind == 4:
        sent = TLS_HELLO[: chance.randrange(1, len(TLS_HELLO))] + mark
    else:
        sent = line + mark + b"Transfer-Encoding: chunked\r\n\r\n" + chance.choice(BODIES) + chance.randbytes(200)
    cut = chance.randrange(len(sent)) if chance.random() < 0.2 else len(sent)
    return sent[:cut]


async def send(gateway: Served, sent: bytes, *, leaves: bool = False) -> bytes:
    """What is answered until the connection ends. `leaves`: the client ends its side at once."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    came = b""
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        if leaves:
            with contextlib.suppress(OSError):  # the gateway may have reset the connection already
                writer.write_eof()
        async with asyncio.timeout(20):
            while piece := await reader.read(65536):
                came += piece
    writer.transport.abort()
    return came


async def test_what_is_no_request_does_no_harm(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(whole(ANSWER))
    config = write_config(tmp_path, upstream.url, more=["body_seconds = 0.5", "header_seconds = 0.5"])
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        async with served(config, stderr=stderr) as gateway, aiohttp.ClientSession() as session:
            pid = gateway.process.pid
            chance = random.Random(20261126)

            async def client() -> None:
                while requests:
                    came = await send(gateway, requests.pop(), leaves=chance.random() < 0.5)
                    assert MARK.encode() not in came
                    if came:
                        assert came.startswith(b"HTTP/"), came[:80]

            async def batch(count: int) -> tuple[int, int]:
                requests.extend(malformed(chance) for _ in range(count))
                await asyncio.gather(*(client() for _ in range(AT_ONCE)))
                async with asyncio.timeout(10):
                    while open_files(pid) > files + 2:  # its control plane may be at something
                        await asyncio.sleep(0.05)
                async with session.post(
                    gateway.url + "/v1/chat/completions", json={"model": "gpt-5.4-mini", "messages": []},
                    headers={"Authorization": f"Bearer {gateway.key}"},
                ) as response:  # fmt: skip
                    assert response.status == 200
                    assert await response.json() == ANSWER
                return resident_bytes(pid), open_files(pid)

            requests: list[bytes] = []
            async with session.get(gateway.url + "/-/healthz") as response:
                assert response.status == 200
            files = open_files(pid) + AT_ONCE
            first, _ = await batch(COUNT // 3)
            files = open_files(pid)
            last, _ = await batch(COUNT - COUNT // 3)
            assert last - first < 8 * 2**20, f"{first:,} → {last:,} bytes"
    said = log.read_text(errors="replace")
    assert "Traceback" not in said
    assert MARK not in said
    assert [json.loads(request.body) for request in upstream.requests] == [
        {"model": "gpt-5.4-mini", "messages": []}
    ] * 2
    print(f"{COUNT:,} malformed requests: {first:,} → {last:,} bytes")


async def test_what_is_ambiguous_is_refused_and_ends_its_connection(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(whole(ANSWER))
    config = write_config(tmp_path, upstream.url, more=["body_seconds = 0.5"])
    async with served(config) as gateway:
        credential = b"Authorization: Bearer " + gateway.key.encode() + b"\r\n"
        line = b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + credential
        for framing in FRAMINGS:
            came = await send(gateway, line + framing + b"\r\n0\r\n\r\n" + SMUGGLED)
            assert came[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400"), framing
            assert len(re.findall(rb"HTTP/1\.[01] \d", came)) == 1, framing  # nothing after it is taken for a request
    assert upstream.requests == []
