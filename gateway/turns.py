"""Turns of the event loop: a round of its work, in which everything runs that was ready when it began.

Where many calls are under way, a step for all of them costs less than all steps for one after the other: from the
second call on, code and data of the step are in the processor's caches, and whoever is written to is awake. So calls
that come at the same time take their large steps together, and what they write goes out together (measured:
docs/decisions/2026-11-26-cpu-of-a-call.md). A call alone waits for nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import TypeVarTuple

Arguments = TypeVarTuple("Arguments")

GROUP_MAX = 16
"""Calls of a group: a turn must not become so long that others, as streams, would notice."""
GROUP_TURNS = 3
"""So many turns a group takes for what it does together. What comes meanwhile goes with the next one."""


class Turns:
    """Lets calls go on in groups: those that came while others took their steps, in the order in which they came. It
    waits for nobody: not more than the turns that a group usually takes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._closed_turns = 0
        self._is_kept = False
        """It looks at each turn what to do."""
        self._in_groups = False
        """Others are under way beside whoever is."""

    def begin(self) -> Awaitable[None]:
        """Before a call takes its steps: go on at once where nobody came lately, else with the next group."""
        if self._is_kept:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            return waiter
        self._is_kept, self._closed_turns = True, 1
        self._loop.call_soon(self._turn)
        return self.next()  # at once: nobody else is under way

    @coroutine
    def next(self) -> Generator[None]:
        """Between two steps: go on when the others of the group have taken theirs."""
        if self._in_groups:
            yield  # to the event loop, as `asyncio.sleep(0)` does

    def soon(self, write: Callable[[*Arguments], object], *arguments: *Arguments) -> asyncio.Handle | None:
        """Write with the others of the group, at the beginning of the next turn; alone at once, which gives `None`."""
        if self._in_groups:
            return self._loop.call_soon(write, *arguments)
        write(*arguments)
        return None

    def _turn(self) -> None:
        if self._closed_turns:
            self._closed_turns -= 1
        elif self._waiting:
            group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
            for waiter in group:
                if not waiter.done():  # its call may have been cancelled
                    waiter.set_result(None)
            self._closed_turns, self._in_groups = GROUP_TURNS, len(group) > 1
        else:
            self._is_kept = self._in_groups = False
            return
        self._loop.call_soon(self._turn)


def write(transport: asyncio.WriteTransport, data: bytes) -> None:
    """Unless it is closing."""
    if not transport.is_closing():
        transport.write(data)
