"""The attempts of one request, one after the other, until the outcome of one is to be passed on. Each is a call of its
own, opened and closed in the books; `retries.Plan` decides what follows."""

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from gateway.answers import broke_off, collect
from gateway.books import Books, OpenCall
from gateway.breaker import Breakers, Verdict
from gateway.call import Call, Result
from gateway.errors import Refusal
from gateway.ids import uuid7
from gateway.ledger import now_us
from gateway.retries import Outcome, Plan
from gateway.telemetry import Telemetry
from gateway.upstream import NotReachedError, TooManyFilesError, UpstreamAnswer, UpstreamLost

T = TypeVar("T")


class Attempt(msgspec.Struct, frozen=True):
    """A call that was opened and sent."""

    open_call: OpenCall
    sent: asyncio.Future[UpstreamAnswer]
    asked_for_usage: bool
    """Where the client did not: an extra chunk has to be taken out of the answer."""


OpenAttempt = Callable[[str, Call], Awaitable[Attempt]]
"""(upstream, call) → opened and sent. Raises refusals, and has done nothing then."""
AsWhole = Callable[[OpenCall, UpstreamAnswer, bytes], web.StreamResponse]
"""(closed call, its answer, the body) → what the client gets."""


class Attempts:
    """Owns the attempts of one request. Whoever has begun it has to take care of the `current` one in the end."""

    current: Attempt
    """The one that is under way, or whose outcome the client gets."""
    _done: asyncio.Future[None]
    """It is answered, or will not be. To wait for this is not to wait for `sent`: whoever is cancelled meanwhile gives
    up nothing, so that the answer may be read on when the client has gone."""

    def __init__(
        self,
        call: Call,
        plan: Plan,
        open_attempt: OpenAttempt,
        as_whole: AsWhole,
        books: Books,
        breakers: Breakers,
        telemetry: Telemetry,
    ) -> None:
        self._call = call
        self._template = msgspec.structs.replace(call)
        self._plan = plan
        self._open_attempt = open_attempt
        self._as_whole = as_whole
        self._books = books
        self._breakers = breakers
        self._telemetry = telemetry
        self._number = 0

    async def begin(self) -> None:
        """Open and send the next attempt. Raises refusals; nothing was sent then."""
        name, call = self._plan.upstream, self._call
        if self._number:
            now = now_us()
            call = msgspec.structs.replace(self._template, call_id=uuid7(now), attempt=self._number + 1, started_us=now)
        model = self._template.request_model or ""  # as it was asked for: a budget may put in another one
        entry = self._breakers.enter(name, model, time.monotonic())  # now: to open a call may take time
        try:
            self.current = await self._open_attempt(name, call)
        except BaseException:
            self._breakers.leave(name, model, entry, "unknown", time.monotonic())
            raise
        self._number += 1
        if self._number > 1 or name != self._plan.asked:
            self._telemetry.attempted(self._number, self._plan.asked, name)
        self._done = asyncio.get_running_loop().create_future()
        self.current.sent.add_done_callback(functools.partial(self._is_done, name, model, entry))

    def _is_done(self, name: str, model: str, entry: int, sent: asyncio.Future[UpstreamAnswer]) -> None:
        self._breakers.leave(name, model, entry, _verdict(sent), time.monotonic())
        if not self._done.done():
            self._done.set_result(None)

    async def answer(self) -> UpstreamAnswer | web.StreamResponse:
        """The answer of the `current` attempt, of which only the head was read; a whole one where others came after it.
        Raises the refusal that stands in for an answer."""
        # What the client gets when nothing better comes.
        kept: tuple[Attempt, web.StreamResponse | Refusal] | None = None
        while True:
            await self._done
            came = self._came()
            step = self._plan.after(_outcome(came), time.monotonic(), random.random())  # noqa: S311 - jitter
            if step == "pass":
                return _answered(came)
            failed = self.current, await self._close(came)
            if kept is None or self._is_asked(self.current) or not self._is_asked(kept[0]):
                kept = failed
            if step == "earlier" or not await self._again(step):
                self.current, outcome = kept
                return _answered(outcome)

    def _is_asked(self, attempt: Attempt) -> bool:
        """True at the upstream that the client asked; else at a fallback."""
        return attempt.open_call.call.upstream == self._plan.asked

    def _came(self) -> UpstreamAnswer | Refusal:
        """What the current attempt has brought: the head of an answer, or the refusal that stands in for it."""
        try:
            answer = self.current.sent.result()
        except Refusal as refusal:
            return refusal
        self.current.open_call.answered(answer.status, answer.headers)
        return answer

    async def _close(self, came: UpstreamAnswer | Refusal) -> web.StreamResponse | Refusal:
        """Close the current attempt, which has failed; returns what the client would get of it."""
        open_call = self.current.open_call
        if isinstance(came, Refusal):
            await close_unanswered(self._books, open_call, came, "upstream_error")
            return came
        try:
            body, open_call.came_whole = await collect(came.pieces(), open_call.meter)
            if not open_call.came_whole:
                raise UpstreamLost("too long")
        except UpstreamLost as lost:
            refusal = broke_off(lost)
            await close_unanswered(self._books, open_call, refusal, "upstream_cut")
            return refusal
        finally:
            came.close()
        await self._books.close(open_call, "completed")
        return self._as_whole(open_call, came, body)

    async def _again(self, seconds: float) -> bool:
        """Wait, and begin the next attempt. False when it may not be made: no budget for it, no journal."""
        await asyncio.sleep(seconds)
        try:
            await self.begin()
        except Refusal:
            return False
        return True


async def close_unanswered(books: Books, open_call: OpenCall, refusal: Refusal, result: Result) -> None:
    """Close a call that brought no answer that could be passed on; `refusal` stands in for it."""
    open_call.free_without_usage |= isinstance(refusal, NotReachedError)
    open_call.call.refusal, open_call.call.status = refusal.code, refusal.status
    await books.close(open_call, result)


def _answered(came: T | Refusal) -> T:
    if isinstance(came, Refusal):
        raise came
    return came


def _outcome(came: UpstreamAnswer | Refusal) -> Outcome:
    if isinstance(came, TooManyFilesError):
        return Outcome()  # as what was sent: no other attempt is made
    if isinstance(came, Refusal):
        return Outcome(was_sent=not isinstance(came, NotReachedError))
    return Outcome(came.status, came.headers)


def _verdict(sent: asyncio.Future[UpstreamAnswer]) -> Verdict:
    """What a request that was sent tells of its upstream."""
    if sent.cancelled() or isinstance(sent.exception(), TooManyFilesError):
        return "unknown"
    status = 500 if sent.exception() is not None else sent.result().status
    return "fails" if status >= 500 else "unknown" if status == 429 else "works"
