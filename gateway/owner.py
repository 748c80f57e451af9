"""What all calls share has one owner: money and limits, the journal, alerts, the metrics of finished calls.

`Owner` is all that the stages of a request know of it. `LocalOwner` has everything in this process. Where several
workers serve, it is in a process of its own, and each of them has the other end of a link (`remote`).
"""

import errno
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol

from gateway.admission import Admission, Grant, View, Wanted
from gateway.alerts import Alerts
from gateway.call import Call
from gateway.guards import GuardedError, Guards, Shadowed
from gateway.late import DIGEST_BYTES, Late
from gateway.ledger import Ledger
from gateway.limits import LimitedError, Limits
from gateway.quotes import Estimate
from gateway.sessions import Tasks, Who
from gateway.telemetry import Telemetry

log = logging.getLogger("outlay")

Results = Sequence[tuple[Call, bytes]]
"""Calls that sum up results of a batch, each with the digests of its results, joined."""


class Owner(Protocol):
    """What a request needs of the owner. What is called here goes through, also when the caller is cancelled while it
    waits for the answer."""

    async def open(self, call: Call, wanted: Wanted, view: View) -> Grant | None:
        """Admit a call to its budgets and limits, and record that it is about to be forwarded. `None`: no budget covers
        it. Sets on the call what the grant says. Raises refusals, and has done nothing then; nor has it when it is
        cancelled."""

    async def grow(self, call: Call, cost: int) -> int | None:
        """Keep what a call holds ahead of its running cost: see `Admission.grow`."""

    def close(self, call: Call, content_bytes: int | None = None, *, is_pending: bool = False) -> Awaitable[int | None]:
        """Record a finished call, and settle it: at once. To be awaited until it is on the disk, where the settings say
        so; gives what is left of the tightest of its budgets, nano-USD. `content_bytes`: see `Admission.settle`.
        `is_pending`: what it cost comes in a later answer."""

    async def refuse(self, call: Call) -> None:
        """Record a call that was refused, while the journal can be written."""

    async def demand(self, call: Call) -> None:
        """Of what is billed later, and holds nothing: see `Admission.demand`."""

    async def enter(self, call: Call) -> None:
        """Count a session against limits, until `leave`. Raises their refusals."""

    def leave(self, call: Call) -> None:
        """The request is over: give its place in flight back, if it still has one."""

    async def book(self, results: Results) -> bool:
        """Record results of a batch. False when one of them was booked already: then none is. Raises `OSError`."""

    async def correct(self, key: str, call: Call) -> None:
        """What was expected by this key is known now: restate its call, once. Raises `OSError`."""

    async def task(self, who: Who, tickets: tuple[str, ...], now_us: int) -> str:
        """The task of a call that shows none: see `Tasks`."""


class Exporter(Protocol):
    """Tells others of finished calls."""

    def take(self, call: Call) -> None: ...


class LocalOwner:
    """The owner in this process."""

    def __init__(
        self,
        ledger: Ledger,
        late: Late,
        admission: Admission,
        limits: Limits,
        guards: Guards,
        alerts: Alerts,
        telemetry: Telemetry,
        exporter: Exporter | None = None,
    ) -> None:
        self._ledger = ledger
        self._late = late
        self._admission = admission
        self._limits = limits
        self._guards = guards
        self._alerts = alerts
        self._telemetry = telemetry
        self._exporter = exporter
        self._tasks = Tasks()
        self._watches = bool(limits) or bool(guards)
        """There are limits or guards."""

    async def open(self, call: Call, wanted: Wanted, view: View) -> Grant | None:
        told = self.open_at_once(call, wanted)
        return await self.open_closely(call, wanted, told, view) if isinstance(told, Estimate) else told

    def open_at_once(self, call: Call, wanted: Wanted) -> Grant | Estimate | None:
        """`open`, unless the request has to be looked at: then an estimate, to go on from with `open_closely`."""
        told = self._admission.admit_at_once(call, wanted)
        if not isinstance(told, Estimate):
            self._record(call, wanted)
        return told

    async def open_closely(self, call: Call, wanted: Wanted, known: Estimate, view: View) -> Grant:
        grant = await self._admission.admit_closely(call, wanted, known, view)
        self._record(call, wanted)
        return grant

    def _record(self, call: Call, wanted: Wanted) -> None:
        shadowed, watches = None, self._watches and not wanted.in_session
        try:
            if watches:
                self._admit_to_limits(call)
                shadowed = self._admit_to_guards(call)
            self._ledger.open(call)
        except BaseException:
            self._admission.void(call)
            if call.attempt == 1 and not wanted.in_session:
                self._limits.take_back(call)
            raise
        if watches:
            self._guards.begun(call, shadowed, _clock_us())

    async def grow(self, call: Call, cost: int) -> int | None:
        return self.grow_now(call.call_id, cost)

    def grow_now(self, call_id: str, cost: int) -> int | None:
        return self._admission.grow(call_id, cost)

    def close(self, call: Call, content_bytes: int | None = None, *, is_pending: bool = False) -> Awaitable[int | None]:
        return self.durable(self.close_now(call, content_bytes, is_pending=is_pending))

    def close_now(self, call: Call, content_bytes: int | None = None, *, is_pending: bool = False) -> int | None:
        """`close`, but for the disk."""
        if self._watches:
            self._guards.finished(call, _clock_us())
        booked_us = self._ledger.close(call)
        hold = self._admission.settle(call, content_bytes)
        self._recorded(call, booked_us)
        if is_pending and booked_us is not None:
            try:
                self._late.expect(f"{call.upstream}/{call.upstream_id}", call, booked_us)
            except OSError as error:
                log.critical("the usage of call %s may stay an estimate: %s", call.call_id, error.strerror)
        is_stream = call.stream and (call.status or 0) < 400
        return None if hold is None or is_stream else self._admission.remaining(hold)  # a stream has no place for it

    async def durable(self, remaining: int | None) -> int | None:
        """The rest of `close`: wait for the disk where the settings say so."""
        await self._ledger.durable()
        return remaining

    @property
    def waits_for_disk(self) -> bool:
        return self._ledger.waits_for_disk

    @property
    def has_limits(self) -> bool:
        return bool(self._limits)

    def interrupt(self, call: Call) -> None:
        """Close a call whose worker has died, as the journal does after a crash: it counts as what was held for it."""
        call.held_nano = self._admission.held(call.call_id) or call.held_nano
        call.result, call.usage_source, call.price_status = "interrupted", "none", "unpriced"
        self.close_now(call)

    async def refuse(self, call: Call) -> None:
        if self._ledger.failure is None:
            await self.close(call)

    async def demand(self, call: Call) -> None:
        self._admission.demand(call)

    async def enter(self, call: Call) -> None:
        self.enter_now(call)

    def enter_now(self, call: Call) -> None:
        self._admit_to_limits(call)

    def leave(self, call: Call) -> None:
        if self._watches:
            self._limits.release(call)

    async def book(self, results: Results) -> bool:
        digests = [each for _, joined in results for each in split(joined)]
        async with self._late.deciding():
            if len(self._late.unbooked(digests)) < len(digests):
                return False
            first_call = results[0][0].call_id
            self._late.book(digests, first_call)
            lost = [each for call, joined in results if not self._book(call) for each in split(joined)]
            if lost:
                self._late.forget(lost)
            self._late.record(first_call)
        if lost:
            raise _cannot_be_written()
        await self._late.durable()
        await self._ledger.durable()
        return True

    async def correct(self, key: str, call: Call) -> None:
        if (expected := self._late.find(key)) is None:
            return  # somebody else has read the same answer
        if not self._ledger.correct(call, "usage", expected.booked_us):
            raise _cannot_be_written()
        self._late.settle(key)  # where that fails the answer is read again: then it is posted, once
        self._admission.correct(expected.call, call)
        await self._late.durable()
        await self._ledger.durable()

    async def task(self, who: Who, tickets: tuple[str, ...], now_us: int) -> str:
        return self._tasks.of(who, tickets, now_us)

    def _book(self, call: Call) -> bool:
        booked_us = self._ledger.close(call, keeps=False)
        self._admission.settle(call)
        self._recorded(call, booked_us)
        return booked_us is not None

    def _recorded(self, call: Call, booked_us: int | None) -> None:
        if booked_us is None:
            self._telemetry.unrecorded.inc()
        self._telemetry.finished(call)
        if self._watches:
            self._limits.finished(call, _clock_us())
        self._alerts.finished(call)
        if self._exporter is not None:
            self._exporter.take(call)

    def _admit_to_limits(self, call: Call) -> None:
        """Raises the refusals of limits."""
        try:
            self._limits.admit(call, _clock_us())
        except LimitedError as limited:
            self._telemetry.limited.labels(limited.kind, limited.what).inc()
            raise

    def _admit_to_guards(self, call: Call) -> Shadowed | None:
        """Raises the refusals of guards."""
        try:
            shadowed = self._guards.admit(call, _clock_us())
        except GuardedError as guarded:
            self._telemetry.guarded.labels(guarded.rule, "enforce").inc()
            raise
        if shadowed is not None:
            self._telemetry.guarded.labels(shadowed.rule, "shadow").inc()
        return shadowed


def split(joined: bytes) -> list[bytes]:
    return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]


def _cannot_be_written() -> OSError:
    return OSError(errno.EIO, "the journal cannot be written")


def _clock_us() -> int:
    """Never goes back."""
    return time.monotonic_ns() // 1000
