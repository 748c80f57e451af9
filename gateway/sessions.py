"""What is remembered between calls: the ticket that a session was for, and the task of calls that name none.

In memory, bounded, by the gateway key: nobody inherits from another's session. What is lost with the process, late
evidence finds in the ledger (`outlay attribute`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from gateway.ids import uuid7

REMEMBERED_US = 24 * 3600 * 1_000_000
"""A session without a call for so long is forgotten; nor does a task last longer that only silence would end."""
GAP_US = 30 * 60 * 1_000_000
"""A silence that ends a task of calls that name none."""
SESSIONS_MAX = 50_000
SESSIONS_FAIR = 100
"""With more, a key and client displaces its own sessions, not those of others."""
TOLD_US = 3600 * 1_000_000
"""Others are told again that a session goes on, after so long."""
TASKS_AT_ONCE = 16
"""Tasks of one key and client that go on side by side."""

Who = tuple[str | None, str | None]
"""Gateway key and client."""


class Remembered(msgspec.Struct):
    """What a session's calls said last."""

    tickets: tuple[str, ...]
    repo: str | None
    branch: str | None
    is_now: bool
    """The branch was the present one then, not that of an earlier moment."""
    at_us: int
    told_us: int = 0
    """When others were told of it."""

    def is_news(self, before: "Remembered | None") -> bool:
        if before is None or self.at_us - before.told_us > TOLD_US:
            return True
        says, said = (self.tickets, self.repo, self.branch, self.is_now), before
        return says != (said.tickets, said.repo, said.branch, said.is_now)


class Task(msgspec.Struct):
    """A task that the gateway found: calls of one key and client, without a long silence between them."""

    task_id: str
    tickets: tuple[str, ...]
    """Those that its calls named; empty until one does."""
    since_us: int
    last_us: int

    def goes_on(self, now_us: int) -> bool:
        return now_us - self.last_us <= GAP_US and now_us - self.since_us <= REMEMBERED_US

    def is_next(self, tickets: tuple[str, ...], now_us: int) -> bool:
        """Of the last one: a call with these tickets is certainly its."""
        return self.tickets == tickets and self.last_us <= now_us and self.goes_on(now_us)


class Sessions:
    """What sessions said. Times are microseconds since the epoch. `tell` is told of what is new, for other processes
    that serve the same sessions; they `take` it."""

    def __init__(self, tell: Callable[[Who, str, Remembered], None] | None = None) -> None:
        self._tell = tell
        self._sessions: OrderedDict[Who, OrderedDict[str, Remembered]] = OrderedDict()
        """The most recent last."""
        self._number = 0

    def recall(self, who: Who, session: str, now_us: int) -> Remembered | None:
        """What the session's calls said, if that is not too long ago."""
        own = self._sessions.get(who)
        found = own.get(session) if own is not None else None
        if own is None or found is None or now_us - found.at_us > REMEMBERED_US:
            return None
        found.at_us = now_us
        if self._tell is not None and found.is_news(found):
            found.told_us = now_us
            self._tell(who, session, found)
        own.move_to_end(session)
        self._sessions.move_to_end(who)
        return found

    def remember(self, who: Who, session: str, said: Remembered) -> None:
        """What a session says now."""
        if self._tell is not None:
            before = self._sessions.get(who, OrderedDict[str, Remembered]()).get(session)
            if said.is_news(before):
                said.told_us = said.at_us
                self._tell(who, session, said)
            elif before is not None:
                said.told_us = before.told_us
        self.take(who, session, said)

    def all(self) -> Iterator[tuple[Who, str, Remembered]]:
        return ((who, session, said) for who, own in self._sessions.items() for session, said in own.items())

    def take(self, who: Who, session: str, said: Remembered) -> None:
        """Where there are too many, one with many sessions forgets its own first."""
        own = self._sessions.setdefault(who, OrderedDict())
        self._number += session not in own
        own[session] = said
        own.move_to_end(session)
        self._sessions.move_to_end(who)
        if self._number > SESSIONS_MAX:
            oldest = who if len(own) > SESSIONS_FAIR else next(iter(self._sessions))
            self._sessions[oldest].popitem(last=False)
            self._number -= 1
            if not self._sessions[oldest]:
                del self._sessions[oldest]


class Tasks:
    """The tasks that the gateway found."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[Who, list[Task]] = OrderedDict()

    def of(self, who: Who, tickets: tuple[str, ...], now_us: int) -> str:
        """The task of a call that names none: the last one that is for the same tickets or has none yet; of a call
        without tickets, the last one. It is a guess: several people may share a key, so it carries no ticket."""
        known = self._tasks.get(who, [])
        if known and (last := known[-1]).is_next(tickets, now_us):  # as most of the time
            last.last_us = now_us
            self._tasks.move_to_end(who)
            return last.task_id
        tasks = [task for task in known if task.goes_on(now_us)]
        fits = [task for task in tasks if not tickets or task.tickets in ((), tickets)]
        if fits:
            found = max(fits, key=lambda task: (bool(tickets) and task.tickets == tickets, task.last_us))
        else:
            tasks.append(found := Task(uuid7(now_us), tickets, now_us, now_us))
        found.tickets, found.last_us = found.tickets or tickets, now_us
        self._tasks[who] = sorted(tasks, key=lambda task: task.last_us)[-TASKS_AT_ONCE:]
        self._tasks.move_to_end(who)
        if len(self._tasks) > SESSIONS_MAX:
            self._tasks.popitem(last=False)
        return found.task_id
