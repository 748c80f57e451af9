"""A provider on a real socket: answers with scripted bytes and keeps every request as it came."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

CUT = object()
"""A step of a script: reset the connection here."""

CLOSE = object()
"""A step of a script: end the connection in order here."""

Step = bytes | float | object
"""Bytes to write, seconds to wait, `CUT` or `CLOSE`."""


@dataclass
class Received:
    """One request, as it came over the socket."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    port: int = 0
    """Of the client: tells its connection from others."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class FakeUpstream:
    """Answers the n-th request with the n-th script; the last script repeats."""

    requests: list[Received] = field(default_factory=list)
    scripts: deque[Sequence[Step]] = field(default_factory=deque)
    port: int = 0
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, *scripts: Sequence[Step]) -> None:
        self.scripts = deque(scripts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = writer.get_extra_info("peername")[1]
            while request := await _read_request(reader, port):
                self.requests.append(request)
                script = self.scripts.popleft() if len(self.scripts) > 1 else self.scripts[0]
                for step in script:
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    elif isinstance(step, float):
                        # A client sends nothing meanwhile: whatever comes is the end of the connection.
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(1), step)
                            self.disconnected.set()
                            return
                    elif step is CLOSE:
                        return
                    else:
                        writer.transport.abort()
                        return
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnected.set()
        except asyncio.CancelledError:
            return  # the test has ended; asyncio's streams would log it as an error
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader, port: int) -> Received | None:
    head = b""
    while line := await reader.readline():
        head += line
        if line == b"\r\n":
            break
    if not head:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in rest if line)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Received(method, target, headers, await reader.readexactly(length), port)


@contextlib.asynccontextmanager
async def fake_upstream() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, limit=2**20)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()


def whole(body: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> list[Step]:
    """A JSON answer (bytes are sent as they are)."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(content))), *headers]
    return [_head(status, fields) + content]


def chunked(
    *pieces: Step,
    content_type: str = "text/event-stream",
    end: bool = True,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> list[Step]:
    """A chunked answer, each piece in a chunk and a write of its own."""
    fields = [("Content-Type", content_type), ("Transfer-Encoding", "chunked"), *headers]
    steps: list[Step] = [_head(status, fields)]
    for piece in pieces:
        steps.append(b"%x\r\n%s\r\n" % (len(piece), piece) if isinstance(piece, bytes) else piece)
    return [*steps, b"0\r\n\r\n"] if end else steps


def _head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode()


def sse(*events: Any, names: bool = False) -> list[bytes]:
    """Server-sent events of JSON objects; `names` adds the `event:` line of Anthropic and OpenAI responses."""
    return [
        (f"event: {event['type']}\n".encode() if names else b"") + b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    ]
