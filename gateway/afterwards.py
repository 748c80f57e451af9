"""What happens to a call after its client has gone: its answer is read on to the usage where that costs nothing more
than guessing would, and it is closed. Bounded in number, time and bytes."""

import asyncio

from gateway.books import Books, OpenCall
from gateway.call import Answer, Ask, Result
from gateway.config import Server
from gateway.errors import Refusal
from gateway.telemetry import Telemetry
from gateway.upstream import NotReachedError, UpstreamAnswer, UpstreamClient, UpstreamLost

SHORT_TOKENS = 256
"""An answer that cannot be longer costs about as much to read as to cut off."""


def is_worth_reading_on(ask: Ask, answer: Answer) -> bool:
    """True when the provider bills the whole answer anyway, or nearly so.

    An answer that is not streamed is computed, and billed, whether or not somebody waits. A stream stops costing when
    it is cut, unless the model has already stopped and only the usage is outstanding.
    """
    if not ask.stream or answer.finish_reason is not None:
        return True
    return ask.max_output_tokens is not None and ask.max_output_tokens <= SHORT_TOKENS


def let_go(sent: asyncio.Future[UpstreamAnswer]) -> None:
    """Give up a request, answered or not."""
    if not sent.cancel() and not sent.cancelled() and sent.exception() is None:
        sent.result().close()


class Afterwards:
    """Owns the calls whose client has gone."""

    def __init__(self, settings: Server, books: Books, forwarder: UpstreamClient, telemetry: Telemetry) -> None:
        self._settings = settings
        self._books = books
        self._forwarder = forwarder
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._stops = False

    def take(self, open_call: OpenCall, result: Result, sent: asyncio.Future[UpstreamAnswer]) -> None:
        """The client has its answer, or has gone: let go of the request (`sent`, answered or not). A call that is still
        open is closed as `result`, after reading on if that pays."""
        if open_call.is_closed:
            let_go(sent)
            return
        task = asyncio.create_task(self._finish(open_call, result, sent), name=f"after {open_call.call.call_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Stop reading on. Every call that was taken is closed when this returns."""
        self._stops = True
        for reading in self._reading:
            reading.cancel()
        await self.idle()

    async def idle(self) -> None:
        """Wait until every call that was taken is closed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _finish(self, open_call: OpenCall, result: Result, sent: asyncio.Future[UpstreamAnswer]) -> None:
        if result == "client_cancelled" and self._may_read_on(open_call):
            # A task of its own, so that to stop reading is not to stop closing.
            reading = asyncio.create_task(self._read_on(open_call, sent))
            self._reading.add(reading)
            await asyncio.wait([reading])
            self._reading.discard(reading)
        open_call.free_without_usage |= self._forwarder.is_connecting(sent)
        let_go(sent)
        await self._books.close(open_call, result)

    def _may_read_on(self, open_call: OpenCall) -> bool:
        if self._stops or open_call.dialect is None or open_call.closing is not None:
            return False
        pays = is_worth_reading_on(open_call.ask, open_call.meter.answer)
        return pays and len(self._reading) < self._settings.read_on_calls

    async def _read_on(self, open_call: OpenCall, sent: asyncio.Future[UpstreamAnswer]) -> None:
        self._telemetry.read_on.inc()
        left = self._settings.read_on_bytes
        try:
            async with asyncio.timeout(self._settings.read_on_seconds):
                answer = await asyncio.shield(sent)
                open_call.answered(answer.status, answer.headers)
                async for piece in answer.pieces():
                    open_call.meter.feed(piece)
                    left -= len(piece)
                    if left < 0:
                        return
                open_call.came_whole = open_call.meter.is_complete()
        except NotReachedError:
            open_call.free_without_usage = True
        except (TimeoutError, UpstreamLost, Refusal):
            return  # what has come by now counts
