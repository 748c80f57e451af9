"""The load generator: closed loop, one process, about 20 µs a call. Reads a `Job`, prints an `Outcome`, both JSON.

Every answer is checked: status, end, number of chunks, number of bytes. Load goes to 127.0.0.1 and ends by itself.
"""

import asyncio
import re
import sys
import time
from collections import Counter
from typing import cast

import msgspec
import uvloop

from tests.benchmarks.harness import answers
from tests.benchmarks.harness.bodies import NUMBER, Size, body
from tests.benchmarks.harness.wire import Incoming

ERRORS_MAX = 200
"""A run ends after so many."""
STAMPED = re.compile(answers.STAMP + rb"(\d{%d})" % answers.STAMP_DIGITS)


class Job(msgspec.Struct, kw_only=True):
    port: int
    headers: dict[str, str]
    api: answers.Api
    size: Size
    model: str
    stream: bool
    connections: int
    seconds: float = 0.0
    """No call begins later than this …"""
    calls: int = 0
    """… nor after so many."""
    per_second: float = 0.0
    """Calls begun, over all connections; 0 = each as soon as the one before it has ended."""
    connects_per_second: float = 0.0
    relays_bytes: bool = True
    """The answer has to have as many bytes as the upstream wrote."""
    patience_seconds: float = 60.0
    """What has not ended so long after `seconds` never will."""


class Spread(msgspec.Struct):
    """Microseconds."""

    p50: float
    p99: float
    max: float


class Outcome(msgspec.Struct, kw_only=True):
    ok: int
    errors: dict[str, int]
    seconds: float
    latency: Spread | None
    first_byte: Spread | None
    lag: Spread | None
    """From a chunk's stamp to its arrival here."""


def spread(nanoseconds: list[int]) -> Spread | None:
    if not nanoseconds:
        return None
    found = sorted(nanoseconds)
    return Spread(*(found[min(len(found) - 1, int(share * len(found)))] / 1000 for share in (0.5, 0.99, 1.0)))


class Load:
    """The state of a run."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ok = 0
        self.errors: Counter[str] = Counter()
        self.latencies: list[int] = []
        self.first_bytes: list[int] = []
        self.lags: list[int] = []
        self.begun = 0
        self.running = 0
        self.connecting: set[asyncio.Task[None]] = set()
        self.all_ended = asyncio.Event()
        self.started = time.monotonic()
        self.chunks, delay = answers.shape(job.model)
        self.is_paced = job.stream and delay > 0
        self.bytes = answers.payload_bytes(job.api, job.model, job.stream) if job.relays_bytes else None
        before, number, after = body(job.size, job.model, job.stream, job.api).partition(NUMBER.encode())
        fields = "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
        self.before = (
            f"POST {answers.PATHS[job.api]} HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\n{fields}"
            f"content-type: application/json\r\ncontent-length: {len(before) + len(number) + len(after)}\r\n\r\n"
        ).encode() + before
        self.after = after

    def is_over(self) -> bool:
        """No call begins any more."""
        job, since = self.job, time.monotonic() - self.started
        is_used_up = bool(job.calls) and self.begun >= job.calls
        return is_used_up or (bool(job.seconds) and since >= job.seconds) or self.errors.total() >= ERRORS_MAX

    def next_call(self) -> float:
        """Seconds until it is due."""
        self.begun += 1
        since = time.monotonic() - self.started
        return max(0.0, self.begun / self.job.per_second - since) if self.job.per_second else 0.0

    def wrong(self, answer: Incoming) -> str | None:
        """What is wrong with a whole answer."""
        if not answer.start_line.startswith(b"HTTP/1.1 200 "):
            return f"status {answer.start_line[9:12].decode()}"
        try:
            found = answer.body()
        except ValueError:
            return "unreadable"
        if self.job.stream and answers.TERMINAL[self.job.api] not in found[-4096:]:
            return "no terminal event"
        if self.job.stream and found.count(answers.STAMP) != self.chunks:
            return "chunks missing"
        if self.bytes is not None and len(found) != self.bytes:
            return "other length"
        return None if found else "empty"

    async def connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self.job.port)
        except OSError:
            self.errors["no connection"] += 1
            self.ended()

    def ended(self) -> None:
        """A connection, for good."""
        self.running -= 1
        if not self.running:
            self.all_ended.set()

    async def run(self) -> Outcome:
        job = self.job
        self.running = job.connections
        for _ in range(job.connections):
            await self.connect()
            if job.connects_per_second:
                await asyncio.sleep(1 / job.connects_per_second)
        try:
            async with asyncio.timeout(job.seconds + job.patience_seconds):
                await self.all_ended.wait()
        except TimeoutError:
            self.errors["never ended"] += self.running
        return Outcome(
            ok=self.ok, errors=dict(self.errors), seconds=time.monotonic() - self.started,
            latency=spread(self.latencies), first_byte=spread(self.first_bytes), lag=spread(self.lags),
        )  # fmt: skip


class Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load = load
        self.answer: Incoming | None = None
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.go_on()

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None:
            self.load.errors["cut"] += 1
            self.again()

    def go_on(self) -> None:
        if self.load.is_over():
            self.transport.close()
            self.load.ended()
        elif due := self.load.next_call():
            asyncio.get_running_loop().call_later(due, self.send, self.load.begun)
        else:
            self.send(self.load.begun)

    def send(self, number: int) -> None:
        self.answer = Incoming()
        self.sent = time.monotonic_ns()
        self.transport.writelines([self.load.before, b"@N%08d" % number, self.load.after])

    def data_received(self, data: bytes) -> None:
        now, load, answer = time.monotonic_ns(), self.load, self.answer
        if answer is None:
            load.errors["unasked bytes"] += 1
            return
        if not answer.start_line:
            load.first_bytes.append(now - self.sent)
        answer.feed(data)
        if load.is_paced:
            load.lags.extend(now - int(stamp) for stamp in STAMPED.findall(data))
        if not answer.is_whole:
            return
        self.answer = None
        load.latencies.append(now - self.sent)
        if error := load.wrong(answer):
            load.errors[error] += 1
        else:
            load.ok += 1
        if b"\r\nconnection: close\r\n" in answer.fields:
            self.transport.close()
            self.again()
        else:
            self.go_on()

    def again(self) -> None:
        """Another connection in the place of this one."""
        if self.load.is_over():
            self.load.ended()
        else:
            task = asyncio.ensure_future(self.load.connect())
            self.load.connecting.add(task)
            task.add_done_callback(self.load.connecting.discard)


async def main(job: Job) -> Outcome:
    return await Load(job).run()


if __name__ == "__main__":
    outcome = uvloop.run(main(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
