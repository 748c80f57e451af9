"""Spending out of the ordinary: a key that spends much faster than it usually does, a task that runs away. Pure: the
time is an argument. Memory is bounded: what was not seen for longest is forgotten first.

Neither says that something is wrong, only that somebody should look. Results of batches are left out: they are booked
when they are asked for, however long ago they were made.
"""

import sys
from collections import OrderedDict
from statistics import median
from typing import NamedTuple

import msgspec

from gateway.budgets import cost_of
from gateway.call import NANO, Call
from gateway.config import AlertSettings

HOUR_US = 3600 * 1_000_000
KEYS_MAX, TASKS_MAX = 10_000, 20_000
HOURS_MAX, HOURS_MIN = 24, 8
"""A key's usual is the median of so many of its hours, and unknown before there are so many."""


class Spending(msgspec.Struct, frozen=True):
    """What a key spends, nano-USD, in whole hours of the clock (UTC). Hours without a call do not count: a night says
    nothing about a day."""

    hour: int
    spent: int = 0
    """In this hour, up to now."""
    before: list[int] = []
    """In those before it in which there were calls, the latest last."""

    def plus(self, nano: int, hour: int) -> "Spending":
        if hour != self.hour:  # also back: one moment of a wrong clock must not hold it up until then
            return Spending(hour, nano, [*self.before, self.spent][-HOURS_MAX:])
        return Spending(self.hour, self.spent + nano, self.before)

    def usual(self) -> int | None:
        """Nano-USD an hour; the median, which one wild hour does not move."""
        return round(median(self.before)) if len(self.before) >= HOURS_MIN else None


class Fast(NamedTuple):
    """A key spends much faster than usual."""

    key_id: str
    hour_us: int
    """When the hour began."""
    spent_nano: int
    usual_nano: int


class Runaway(NamedTuple):
    """A task does more within an hour than tasks do."""

    task_id: str
    since_us: int
    calls: int
    spent_nano: int


class Velocity:
    """Watches keys: one has spent `velocity_factor` times its usual in this hour, and at least `velocity_usd`."""

    def __init__(self, settings: AlertSettings) -> None:
        self._factor = settings.velocity_factor
        self._floor = int(settings.velocity_usd * NANO)
        self.keys: OrderedDict[str, Spending] = OrderedDict()

    def see(self, call: Call, now_us: int) -> Fast | None:
        """Take a recorded call in. As long as a key is fast, each of its calls says so."""
        nano = cost_of(call) or 0
        if call.key_id is None or not nano or not self._factor or call.operation == "batch":
            return None
        hour = now_us // HOUR_US
        key = self.keys.pop(call.key_id, None)
        if key is None:
            key = Spending(hour)
            if len(self.keys) >= KEYS_MAX:
                self.keys.popitem(last=False)
        key = self.keys[call.key_id] = key.plus(nano, hour)
        if key.spent < self._floor or (usual := key.usual()) is None or key.spent < self._factor * usual:
            return None
        return Fast(call.key_id, hour * HOUR_US, key.spent, usual)


class _Task:
    __slots__ = ("calls", "since_us", "spent")

    def __init__(self, since_us: int) -> None:
        self.since_us = since_us
        self.calls = 0
        self.spent = 0


class Runaways:
    """Watches tasks: one makes `runaway_calls` calls or spends `runaway_usd` within an hour. Refused calls count:
    a tool that goes on asking in vain has run away, too."""

    def __init__(self, settings: AlertSettings) -> None:
        calls, nano = settings.runaway_calls, int(settings.runaway_usd * NANO)
        self._watches = bool(calls or nano)
        self._calls, self._nano = calls or sys.maxsize, nano or sys.maxsize
        self._tasks: OrderedDict[str, _Task] = OrderedDict()

    def see(self, call: Call, now_us: int) -> Runaway | None:
        """Take a recorded call in. A task's hour begins with its first call, and the next one with the first call after
        that."""
        if call.task_id is None or call.operation == "batch" or not self._watches:
            return None
        task = self._tasks.get(call.task_id)
        if task is None or not 0 <= now_us - task.since_us < HOUR_US:
            task = self._tasks[call.task_id] = _Task(now_us)
            if len(self._tasks) > TASKS_MAX:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(call.task_id)
        task.calls += 1
        task.spent += cost_of(call) or 0
        if task.calls >= self._calls or task.spent >= self._nano:
            return Runaway(call.task_id, task.since_us, task.calls, task.spent)
        return None
