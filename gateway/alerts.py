"""Notices about budgets and odd spending, beside the calls: said from the event loop with plain function calls that
never wait and never raise, delivered by a task per channel, so that a dead webhook delays nothing but its own notices.

What was said to a channel is not said there again before its time. `alerts.json` in the data folder remembers that,
once it is delivered, and what keys usually spend.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

from gateway import money
from gateway.call import Call
from gateway.channels import Channel, Field, Kind, Notice, Outcome, channels_of
from gateway.config import AlertSettings
from gateway.errors import UserError
from gateway.ids import uuid7
from gateway.ledger import now_us
from gateway.oddities import HOUR_US, KEYS_MAX, Fast, Runaway, Runaways, Spending, Velocity
from gateway.telemetry import Telemetry

QUEUE_MAX = 1000
"""Notices that wait for one channel; more are dropped, and counted."""
SAID_MAX = 20_000
SAID_FOR_US = 400 * 24 * HOUR_US
"""No period is that long: what was said until a later time was said when the clock was wrong, and does not count."""
AGAIN_US = 10 * 60 * 1_000_000
"""What could not be delivered may be said again after this long, if it is still so."""
WAITS = (1.0, 5.0, 30.0, 120.0)
"""Seconds before each further try, where the receiver does not say."""
WAIT_MAX = 300.0
DRAIN_SECONDS = 5.0
"""At the end, for what is still to be delivered."""

log = logging.getLogger("outlay")


class _State(msgspec.Struct):
    """`alerts.json`."""

    said: dict[str, int] = {}
    """Channel, kind and subject → until when it is not said there again."""
    keys: dict[str, Spending] = {}


class Alerts:
    """The notices of one gateway. `start` it on the event loop."""

    def __init__(
        self,
        settings: AlertSettings,
        folder: Path,
        telemetry: Telemetry,
        *,
        clock: Callable[[], int] = now_us,
        waits: Sequence[float] = WAITS,
    ) -> None:
        self._settings = settings
        self._file = folder / "alerts.json"
        self._aside = folder / f"alerts.json.{secrets.token_hex(8)}"  # a pid is not one's own: in containers all are 1
        self._writer = ThreadPoolExecutor(1, "alerts")
        """One thread, so that what is written last is what was last."""
        self._telemetry = telemetry
        self._clock = clock
        self._waits = waits
        self._velocity, self._runaways = Velocity(settings), Runaways(settings)
        self._said: dict[str, int] = {}
        self._pending: set[str] = set()
        """What of it is not delivered yet."""
        self._queues: dict[str, asyncio.Queue[Notice]] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._hour = 0
        self._changed = asyncio.Event()

    # -- on the hot path ----------------------------------------------------------------------------------------------

    def notice(self, kind: Kind, subject: str, message: str, *, until_us: int | None = None, **fields: Field) -> None:
        """Say something, unless the same kind was said of the same subject: before `until_us`, the end of the period
        that it is about, or within the last hour. It names no person and holds no secret."""
        now = self._clock()
        if not (names := self._due(kind, subject, now)):
            return
        notice = Notice(uuid7(now), kind, subject, message, now, fields)
        for name in names:
            key, queue = f"{name} {kind} {subject}", self._queues[name]
            try:
                queue.put_nowait(notice)
            except asyncio.QueueFull:
                self._telemetry.alerts.labels(kind, name, "dropped").inc()
            else:
                self._said[key] = now + HOUR_US if until_us is None else until_us
                self._pending.add(key)
        if len(self._said) > SAID_MAX:
            self._forget(now)

    def _due(self, kind: Kind, subject: str, now: int) -> list[str]:
        """The channels where it may be said."""
        return [name for name in self._queues if not _holds(self._said.get(f"{name} {kind} {subject}", 0), now)]

    def finished(self, call: Call) -> None:
        """Take in a recorded call."""
        now = self._clock()
        if now // HOUR_US != self._hour:
            self._hour = now // HOUR_US
            self._changed.set()
        # Each call of what is odd comes by here: what was said already is not worded again.
        if (fast := self._velocity.see(call, now)) and self._due("spend_velocity", fast.key_id, now):
            self._say_fast(fast, call)
        if (runaway := self._runaways.see(call, now)) and self._due("runaway_task", runaway.task_id, now):
            self._say_runaway(runaway, call)
        if call.refusal == "loop_stopped":
            session = call.session_id or call.task_id
            if session and self._due("loop_stopped", session, now):
                self._say_stopped(session, call)

    def _say_fast(self, fast: Fast, call: Call) -> None:
        since = _time(fast.hour_us)
        self.notice(
            "spend_velocity",
            fast.key_id,
            f"The {_key(call)} has spent {money.short(fast.spent_nano)} since {since}; usually it spends "
            f"{money.short(fast.usual_nano)} an hour. If nobody expects that, `outlay keys revoke {fast.key_id}` stops "
            "it.",
            until_us=fast.hour_us + HOUR_US,
            key_id=fast.key_id,
            team_id=call.team_id,
            since=since,
            spent_usd=money.exact(fast.spent_nano),
            usual_usd=money.exact(fast.usual_nano),
        )

    def _say_runaway(self, runaway: Runaway, call: Call) -> None:
        since, tickets = _time(runaway.since_us), ", ".join(call.tickets)
        self.notice(
            "runaway_task",
            runaway.task_id,
            f"The task {runaway.task_id} ({f'ticket {tickets}' if tickets else 'no ticket'}, {_key(call)}) has made "
            f"{runaway.calls:,} calls for {money.short(runaway.spent_nano)} since {since}. Look whether it gets "
            "anywhere or asks the same again and again. Whoever started it can stop it"
            + (f", or `outlay keys revoke {call.key_id}`." if call.key_id else "."),
            task_id=runaway.task_id,
            tickets=tickets or None,
            key_id=call.key_id,
            team_id=call.team_id,
            since=since,
            calls=runaway.calls,
            spent_usd=money.exact(runaway.spent_nano),
        )

    def _say_stopped(self, session: str, call: Call) -> None:
        tickets, was = ", ".join(call.tickets), "was" if call.result == "refused" else "would have been"
        self.notice(
            "loop_stopped",
            session,
            f"The session {session} ({f'ticket {tickets}' if tickets else 'no ticket'}, {_key(call)}) {was} stopped: "
            "it goes round, or has spent much since a person last said something to it. Whoever started it can look "
            "at what it does.",
            task_id=call.task_id,
            tickets=tickets or None,
            key_id=call.key_id,
            team_id=call.team_id,
            is_shadow=str(call.result != "refused").lower(),
        )

    def _forget(self, now: int) -> None:
        """What may be said again, and of the rest what was said first, down to three quarters."""
        left = [(key, until) for key, until in self._said.items() if _holds(until, now)]
        self._said = dict(left[-SAID_MAX * 3 // 4 :])

    # -- beside it ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what was said before, and begin to deliver."""
        state = self._read()
        now = self._clock()
        self._said = {key: until for key, until in state.said.items() if _holds(until, now)}
        self._velocity.keys = OrderedDict(state.keys)
        self._session = aiohttp.ClientSession()
        for name, channel in channels_of(self._settings, self._session):
            if isinstance(channel, UserError):
                log.error("no notices go to [alerts] %s: %s", name, channel)
                continue
            queue = self._queues[name] = asyncio.Queue[Notice](QUEUE_MAX)
            self._workers.append(asyncio.create_task(self._deliver(name, channel, queue), name=f"alerts {name}"))
        self._workers.append(asyncio.create_task(self._keep(), name="alerts"))

    async def stop(self) -> None:
        """Deliver what is waiting, within `DRAIN_SECONDS`. What is not may be said again after the next start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.gather(*(queue.join() for queue in self._queues.values()))
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._pending:
            log.error("%d notices could not be delivered before the end", len(self._pending))
        await self._save()
        self._writer.shutdown()
        if self._session is not None:
            await self._session.close()

    async def _deliver(self, name: str, channel: Channel, queue: asyncio.Queue[Notice]) -> None:
        """One after the other, in order."""
        while True:
            notice = await queue.get()
            outcome = await self._try_again_and_again(channel, notice)
            key = f"{name} {notice.kind} {notice.subject}"
            if not outcome.is_delivered:
                log.error("a notice (%s) did not reach %s: %s", notice.kind, name, outcome.detail)
                self._said[key] = self._clock() + AGAIN_US
            result = "delivered" if outcome.is_delivered else "failed"
            self._telemetry.alerts.labels(notice.kind, name, result).inc()
            self._pending.discard(key)
            self._changed.set()
            queue.task_done()

    async def _try_again_and_again(self, channel: Channel, notice: Notice) -> Outcome:
        for wait in (*self._waits, None):
            try:
                outcome = await channel.send(notice)
            except Exception as error:  # noqa: BLE001 - one notice must not silence all that follow
                return Outcome(False, type(error).__name__)
            if outcome.is_delivered or not outcome.may_help or wait is None:
                break
            await asyncio.sleep(wait if outcome.wait_seconds is None else min(outcome.wait_seconds, WAIT_MAX))
        return outcome

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._save()
            await asyncio.sleep(1)

    def _read(self) -> _State:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_State)
        except FileNotFoundError:
            return _State()
        except (OSError, ValueError) as error:
            log.error("%s cannot be read, so some notices may come again: %s", self._file, type(error).__name__)
            return _State()

    async def _save(self) -> None:
        """Copied here, encoded and written by the thread."""
        said = {key: until for key, until in self._said.items() if key not in self._pending}
        state = _State(said, dict(self._velocity.keys))
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write, state, self._clock())

    def _write(self, state: _State, now: int) -> None:
        """By rename, and with what other gateways have written. Not synced: all that a crash can do is to have
        something said again."""
        try:
            lock = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                fd = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(msgspec.json.encode(_merged(self._read(), state, now)))
                self._aside.rename(self._file)
            finally:
                os.close(lock)
                self._aside.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s cannot be written, so some notices may come again: %s", self._file, error.strerror)


def _holds(until: int, now: int) -> bool:
    return now < until <= now + SAID_FOR_US


def _merged(theirs: _State, ours: _State, now: int) -> _State:
    """What several gateways know: of each notice the longest, of each key the latest. Ours is forgotten last."""
    said = {notice: until for notice, until in theirs.said.items() if _holds(until, now)}
    keys = dict(theirs.keys)
    for notice, until in ours.said.items():
        said[notice] = max(until, said.pop(notice, 0))
    for key, spending in ours.keys.items():
        other = keys.pop(key, spending)
        keys[key] = other if spending.hour < other.hour <= now // HOUR_US + 1 else spending
    left = [(notice, until) for notice, until in said.items() if _holds(until, now)]
    return _State(dict(left[-SAID_MAX:]), dict(list(keys.items())[-KEYS_MAX:]))


async def try_out(settings: AlertSettings) -> list[tuple[str, Outcome]]:
    """Send a test notice to each channel, once."""
    now = now_us()
    notice = Notice(uuid7(now), "test", "outlay", "This is a test of Outlay's notices. Nothing is to be done.", now)
    async with aiohttp.ClientSession() as session:
        return [
            (name, Outcome(False, str(channel)) if isinstance(channel, UserError) else await channel.send(notice))
            for name, channel in channels_of(settings, session)
        ]


def _key(call: Call) -> str:
    if call.key_id is None:
        return "calls without a key"
    return f"key {call.key_id}" + (f" of team {call.team_id}" if call.team_id else "")


def _time(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
