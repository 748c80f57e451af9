"""The owner as a worker has it: at the other end of a link. See `owner.Owner`."""

import asyncio
import contextlib
import errno
import itertools
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gateway import link
from gateway.admission import Grant, View, Wanted
from gateway.call import Call
from gateway.errors import Refusal
from gateway.link import FromOwner, Link
from gateway.owner import Results
from gateway.sessions import Sessions, Who
from gateway.telemetry import Telemetry

STOP_SECONDS = 5.0
_DECODER = msgspec.msgpack.Decoder(FromOwner)


class RemoteOwner:
    """A worker's end of the link. `lost` is called when the owner is gone."""

    def __init__(self, telemetry: Telemetry, lost: Callable[[], None]) -> None:
        self.begun: asyncio.Future[link.Begin] = asyncio.get_running_loop().create_future()
        self.sessions = Sessions(lambda who, session, said: self._link.send(link.Said(who, session, said)))
        """What they said, at this worker or another."""
        self._telemetry = telemetry
        self._link: Link[FromOwner] = Link(_DECODER, self._received, lost)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._views: dict[int, View] = {}
        """Of calls that are being opened."""
        self._opening: dict[int, Call] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._counts_limits = False
        self._is_quiet = asyncio.Event()
        """Nothing is asked."""

    async def connect(self, own: socket.socket) -> link.Begin:
        """Returns what the owner says first."""
        await self._link.open(own)
        begin = await self.begun
        self._counts_limits = bool(begin.config.limits)
        return begin

    def listens(self) -> None:
        """Say that calls are taken."""
        self._link.send(link.Listens())

    async def stop(self) -> None:
        """Say everything that is still to be said, and hear the answers. Nothing may be asked any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                if self._waiting:
                    self._is_quiet.clear()
                    await self._is_quiet.wait()
        self.count()
        self._link.close()

    def count(self, n: int = 0) -> None:
        """Say what the own counters have gained."""
        self._link.send(link.Counted(self._telemetry.gained(), self._telemetry.levels(), n))

    # -- the owner ----------------------------------------------------------------------------------------------------

    async def open(self, call: Call, wanted: Wanted, view: View) -> Grant | None:
        n = next(self._numbers)
        self._views[n], self._opening[n] = view, call
        answer = self._ask(n, link.Open(n, call, wanted))
        try:
            grant: Grant | None = await self._heard(answer, call)
        except asyncio.CancelledError:
            if answer.cancelled():  # what comes is given back
                self._link.send(link.Cancel(n))
            else:
                self._give_back(call, answer.result())
            raise
        finally:
            del self._views[n]
        if grant is not None:
            grant.set_on(call)
        return grant

    async def grow(self, call: Call, cost: int) -> int | None:
        n = next(self._numbers)
        amount: int | None = await self._asked(n, link.Grow(n, call.call_id, cost))
        return amount

    def close(self, call: Call, content_bytes: int | None = None, *, is_pending: bool = False) -> Awaitable[int | None]:
        n = next(self._numbers)
        return _value(self._ask(n, link.Close(n, call, content_bytes, is_pending)))

    async def refuse(self, call: Call) -> None:
        n = next(self._numbers)
        await self._asked(n, link.Refuse(n, call))

    async def demand(self, call: Call) -> None:
        n = next(self._numbers)
        await self._asked(n, link.Demand(n, call), call)

    async def enter(self, call: Call) -> None:
        n = next(self._numbers)
        try:
            await self._asked(n, link.Enter(n, call))
        except asyncio.CancelledError:
            self.leave(call)
            raise

    def leave(self, call: Call) -> None:
        if self._counts_limits:
            self._link.send(link.Leave(call.request_id))

    async def book(self, results: Results) -> bool:
        n = next(self._numbers)
        booked: bool = await self._asked(n, link.Book(n, list(results)))
        return booked

    async def correct(self, key: str, call: Call) -> None:
        n = next(self._numbers)
        await self._asked(n, link.Correct(n, key, call))

    async def task(self, who: Who, tickets: tuple[str, ...], now_us: int) -> str:
        n = next(self._numbers)
        task_id: str = await self._asked(n, link.TaskOf(n, who, tickets, now_us))
        return task_id

    # -- questions and answers ----------------------------------------------------------------------------------------

    def _ask(self, n: int, question: link.Message) -> asyncio.Future[Any]:
        answer = self._waiting[n] = asyncio.get_running_loop().create_future()
        self._link.send(question)
        return answer

    async def _asked(self, n: int, question: link.Message, call: Call | None = None) -> Any:
        """The answer. Raises the refusal that it is, with what it says on the call; `OSError` when there is none."""
        return await self._heard(self._ask(n, question), call)

    async def _heard(self, answer: asyncio.Future[Any], call: Call | None) -> Any:
        told = await answer
        if isinstance(told, link.Refused) and call is not None:
            call.budget_action, call.request_model = told.action, told.model
        return _sound(told)

    def _received(self, message: FromOwner) -> None:
        match message:
            case link.Told():
                self._answered(message.n, message.value)
            case link.Refused() | link.Failed():
                self._answered(message.n, message)
            case link.Look() | link.Check():
                if (view := self._views.get(message.n)) is not None:
                    task = asyncio.create_task(self._show(message, view), name="look")
                    self._looking.add(task)
                    task.add_done_callback(self._looking.discard)
            case link.Said():
                self.sessions.take(message.who, message.session, message.said)
            case link.Count():
                self.count(message.n)
            case link.Begin():
                self.begun.set_result(message)

    def _answered(self, n: int, answer: Any) -> None:
        future, call = self._waiting.pop(n, None), self._opening.pop(n, None)
        if not self._waiting:
            self._is_quiet.set()
        if future is None:
            return  # to what was no question
        if not future.done():
            future.set_result(answer)
        elif call is not None:
            self._give_back(call, answer)

    def _give_back(self, call: Call, answer: Grant | link.Refused | link.Failed | None) -> None:
        """It was opened, as the answer tells, while it was being cancelled. Nothing was sent."""
        if isinstance(answer, link.Refused | link.Failed):
            return
        if (grant := answer) is not None:
            grant.set_on(call)
        call.result, call.usage_source = "client_cancelled", "none"
        call.list_cost_nano = call.contracted_cost_nano = 0
        n = next(self._numbers)
        self._ask(n, link.Close(n, call, None, False))
        self.leave(call)

    async def _show(self, asked: link.Look | link.Check, view: View) -> None:
        seen = link.Seen(asked.n)
        try:
            if isinstance(asked, link.Look):
                seen.looked = await view.look(asked.model)
            else:
                await view.check()
        except Refusal as refusal:
            seen.refusal = link.refused(asked.n, refusal)
        finally:
            self._link.send(seen)


async def _value(future: asyncio.Future[Any]) -> Any:
    return _sound(await future)


def _sound(answer: Any) -> Any:
    """Raises what the answer says."""
    if isinstance(answer, link.Refused):
        raise answer.refusal()
    if isinstance(answer, link.Failed):
        raise OSError(errno.EIO, answer.why)
    return answer
