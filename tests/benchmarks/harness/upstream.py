"""The upstream: a provider that costs about 20 µs an answer. `python -m tests.benchmarks.harness.upstream PORT`

What it answers is in `answers`. `GET /_streams` tells how many streams are open.
"""

import asyncio
import random
import re
import sys
import time
from typing import cast

import uvloop

from tests.benchmarks.harness import answers
from tests.benchmarks.harness.wire import Incoming

MODEL = re.compile(rb'"model" *: *"([^"]*)"')
STREAM = re.compile(rb'"stream" *: *true')
ENDS = 32_768
"""What is asked for stands before the messages, or after them: a large body is not looked through."""

open_streams = 0


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.request = Incoming()
        self.timer: asyncio.TimerHandle | None = None
        self.script = answers.script("chat", "mock-c50d0")
        self.left = 0
        self.delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer is not None:
            self.ended()

    def data_received(self, data: bytes) -> None:
        self.request.feed(data)
        if self.request.is_whole:
            request, self.request = self.request, Incoming()
            self.answer(request)

    def answer(self, request: Incoming) -> None:
        if request.start_line.startswith(b"GET"):
            count = str(open_streams).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(count), count))
            return
        body = request.body()
        if len(body) > 2 * ENDS:
            body = body[:ENDS] + body[-ENDS:]
        path = request.start_line
        api: answers.Api = "messages" if b"/messages" in path else "responses" if b"/responses" in path else "chat"
        model = model_of(body)
        has_usage = api != "chat" or b'"include_usage"' in body
        chunks, self.delay = answers.shape(model)
        self.script = answers.script(api, model, has_usage)
        if not is_streamed(body):
            self.transport.write(self.script.plain)
        elif not self.delay:
            self.transport.write(self.script.burst)
        else:
            self.left = chunks
            self.transport.write(self.script.start)
            self.begun()

    def begun(self) -> None:
        global open_streams
        open_streams += 1
        # Streams must not beat in step.
        self.timer = asyncio.get_running_loop().call_later(random.random() * self.delay, self.tick)

    def ended(self) -> None:
        global open_streams
        open_streams -= 1
        assert self.timer is not None
        self.timer.cancel()
        self.timer = None

    def tick(self) -> None:
        self.left -= 1
        stamped = b"%b%016d%b" % (self.script.before_stamp, time.monotonic_ns(), self.script.after_stamp)
        if self.left:
            self.transport.write(stamped)
            self.timer = asyncio.get_running_loop().call_later(self.delay, self.tick)
        else:
            self.transport.write(stamped + self.script.end)
            self.ended()


def model_of(body: bytes) -> str:
    found = MODEL.match(body, body.rfind(b'"model"'))
    return found[1].decode() if found else ""


def is_streamed(body: bytes) -> bool:
    return STREAM.match(body, body.rfind(b'"stream"')) is not None


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
