"""Guards: what goes round without getting anywhere is slowed down, or stopped. Pure: the time is an argument.

Three mechanical kinds of waste, live (docs/guards.md): a retry storm (the same request again and again, and it fails),
an agent loop (the same tool call with the same result, or the same request, again and again), a runaway (much money and
no person has said anything). What a session cannot show is never guessed at: without one, nothing is guarded.
"""

from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gateway import money
from gateway.budgets import cost_of
from gateway.call import NANO, Call
from gateway.errors import Refusal, RefusalCode, UserError
from gateway.scopes import Scope, of, parse

Rule = Literal["retry_storm", "agent_loop", "runaway"]
Mode = Literal["shadow", "enforce"]

WINDOW_US = 10 * 60 * 1_000_000
"""Attempts that lie further apart are no storm."""
FAILED_MIN = 2
"""So many of them have to have failed."""
WAIT_SECONDS_MAX = 10
POLLING_US = 60 * 1_000_000
"""With so much time between them, repetitions wait for something."""
DECLARED = frozenset({"ci", "eval", "batch"})
"""Purposes that may ask the same again and again."""
NO_AGENTS = frozenset({"side", "compaction"})
"""What these do is no step of the work."""
SESSION_US = 6 * 3600 * 1_000_000
"""A session without a call for so long is forgotten."""
SESSIONS_MAX = 20_000
ATTEMPTS_MAX = 100
KINDS_MAX = 32
"""Of requests, and of conversations side by side, in one session."""
SHADOWED_MAX = 10_000


def _help(text: str, **limits: Any) -> Meta:
    return Meta(description=text, **limits)


class GuardTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guard as people write it."""

    scope: Annotated[str, _help("Whose calls: as of a budget. Each session is looked at by itself.")]
    mode: Annotated[
        Mode, _help("shadow: only recorded, as what would have been refused; enforce: slowed down or stopped.")
    ] = "shadow"
    retry_attempts: Annotated[
        int,
        _help("The same request, of which two have failed, has to wait from this attempt on, 10 s at most; 0 = never.",
              ge=0),
    ] = 4  # fmt: skip
    loop_calls: Annotated[
        int,
        _help(
            "The same tool call with the same result, or the same request, is refused from here on; 0 = never.", ge=0
        ),
    ] = 6
    runaway_usd: Annotated[
        Decimal, _help("A session that has spent more since a person last said something is stopped; 0 = never.")
    ] = Decimal(0)
    runaway_calls: Annotated[int, _help("But not before it has made so many calls since then.", ge=1)] = 100


class Guard(NamedTuple):
    """A guard in force."""

    name: str
    scope: Scope
    table: GuardTable
    runaway_nano: int


class GuardedError(Refusal):
    """A guard stands in the way."""

    def __init__(self, code: RefusalCode, message: str, rule: Rule, retry_after: int | None = None) -> None:
        super().__init__(code, message, retry_after=retry_after)
        self.rule: Rule = rule


class Shadowed(NamedTuple):
    """What would have been refused."""

    code: RefusalCode
    rule: Rule


class _Attempts:
    """The last attempts at one request."""

    __slots__ = ("ended_us", "failed", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.failed: list[int] = []
        self.ended_us = 0

    def add(self, moments: list[int], now_us: int) -> None:
        self.forget(now_us)
        moments.append(now_us)
        del moments[:-ATTEMPTS_MAX]

    def forget(self, now_us: int) -> None:
        for moments in (self.times, self.failed):
            while moments and now_us - moments[0] > WINDOW_US:
                del moments[0]


class _Run:
    """The same, several times in a row."""

    __slots__ = ("count", "since_us", "what")

    def __init__(self) -> None:
        self.what: str | None = None
        self.count = self.since_us = 0

    def repeats(self, what: str | None, now_us: int) -> int:
        """How often it would have been now; 0 for a run of something that waits."""
        if what is None or what != self.what:
            return 0
        return 0 if now_us - self.since_us >= self.count * POLLING_US else self.count + 1

    def add(self, what: str | None, now_us: int) -> None:
        if what != self.what:
            self.what, self.count, self.since_us = what, 0, now_us
        self.count += 1

    def take_back(self, what: str | None) -> None:
        """It brought nothing, and was no step."""
        if what == self.what and self.count:
            self.count -= 1


class _Session:
    """What is remembered of a session."""

    __slots__ = ("attempts", "calls", "last_us", "runs", "spent")

    def __init__(self) -> None:
        self.attempts: OrderedDict[str, _Attempts] = OrderedDict()
        self.runs: OrderedDict[tuple[str | None, ...], tuple[_Run, _Run]] = OrderedDict()
        """By conversation: of actions, and of requests."""
        self.calls = 0
        self.last_us = 0
        self.spent = 0
        """Nano-USD; both since a person last said something."""

    def attempts_at(self, request: str) -> _Attempts:
        found = self.attempts.setdefault(request, _Attempts())
        self.attempts.move_to_end(request)
        if len(self.attempts) > KINDS_MAX:
            self.attempts.popitem(last=False)
        return found

    def runs_of(self, call: Call) -> tuple[_Run, _Run]:
        conversation = call.agent, call.request_model, call.prefix_hash
        found = self.runs.setdefault(conversation, (_Run(), _Run()))
        self.runs.move_to_end(conversation)
        if len(self.runs) > KINDS_MAX:
            self.runs.popitem(last=False)
        return found


class Guards:
    """All guards in force, and what is remembered of sessions."""

    def __init__(self, tables: Mapping[str, GuardTable]) -> None:
        self._guards = [guard_of(name, table) for name, table in tables.items()]
        self._sessions: OrderedDict[tuple[str | None, str], _Session] = OrderedDict()
        self._shadowed: OrderedDict[str, Shadowed] = OrderedDict()
        """By call_id."""

    def admit(self, call: Call, now_us: int) -> Shadowed | None:
        """May a call be made? What a guard in shadow would have refused is returned. Remembers nothing: once the call
        is made, it has `begun`. Raises the refusals `rate_limited` and `loop_stopped`."""
        shadowed = None
        guards = self._guards_of(call)
        if call.attempt > 1 or not guards or (session := self._session(call)) is None:
            return None
        for guard in guards:
            refusal = _storm(guard, call, session, now_us) or _loop(guard, call, session, now_us)
            refusal = refusal or _runaway(guard, call, session)
            if refusal is not None and guard.table.mode == "enforce":
                raise refusal
            if refusal is not None:
                shadowed = Shadowed(refusal.code, refusal.rule)
        return shadowed

    def begun(self, call: Call, shadowed: Shadowed | None, now_us: int) -> None:
        """Remember a call that is made. `shadowed`: what `admit` said of it."""
        if not self._guards_of(call) or call.request_hash is None or (session := self._session(call)) is None:
            return
        if shadowed is not None:
            self._shadowed[call.call_id] = shadowed
            if len(self._shadowed) > SHADOWED_MAX:
                self._shadowed.popitem(last=False)
        if call.human_turn:
            session.calls = session.spent = 0
        session.last_us = now_us
        self._forget(now_us)
        attempts = session.attempts_at(call.request_hash)
        attempts.add(attempts.times, now_us)
        attempts.ended_us = max(attempts.ended_us, now_us)
        if call.attempt == 1:
            session.calls += 1
            for run, what in zip(session.runs_of(call), (call.action_hash, call.request_hash), strict=True):
                run.add(what, now_us)

    def finished(self, call: Call, now_us: int) -> None:
        """Take what became of a call, before it is recorded. One that would have been refused says so: it has that
        refusal, and `budget_action` shadow_blocked."""
        if call.result == "refused" or call.operation == "batch" or not self._guards_of(call):
            return
        if (shadowed := self._shadowed.pop(call.call_id, None)) is not None and call.refusal is None:
            call.refusal = shadowed.code
            if call.budget_action in (None, "none"):
                call.budget_action = "shadow_blocked"
        if (session := self._session(call)) is None or call.request_hash is None:
            return
        session.spent += cost_of(call) or 0
        attempts = session.attempts_at(call.request_hash)
        attempts.ended_us = max(attempts.ended_us, now_us)
        if (call.status or 0) >= 400 or call.result in ("upstream_error", "upstream_cut"):
            attempts.add(attempts.failed, now_us)
            for run, what in zip(session.runs_of(call), (call.action_hash, call.request_hash), strict=True):
                run.take_back(what)

    def __bool__(self) -> bool:
        return bool(self._guards)

    def _forget(self, now_us: int) -> None:
        """Look at the two sessions that were not seen for longest, so that no call pays for all of them."""
        for _ in range(min(2, len(self._sessions))):
            key, session = next(iter(self._sessions.items()))
            if now_us - session.last_us <= SESSION_US:
                return
            del self._sessions[key]

    def _guards_of(self, call: Call) -> list[Guard]:
        """Those that cover the call; what is enforced comes first."""
        if not self._guards:
            return []
        parts = [(part.kind, part.value) for part in of(call)]
        found = [
            guard
            for guard in self._guards
            if any(guard.scope.kind == kind and guard.scope.matches(value) for kind, value in parts)
        ]
        return sorted(found, key=lambda guard: guard.table.mode != "enforce")

    def _session(self, call: Call) -> _Session | None:
        if call.request_hash is None:
            return None
        name = call.session_id or (call.task_id if call.task_source != "none" else None)
        if name is None:
            return None
        key = call.key_id, name
        found = self._sessions.get(key)
        if found is None:
            found = self._sessions[key] = _Session()
            if len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(key)
        return found


def guard_of(name: str, table: GuardTable) -> Guard:
    """Raises `UserError`."""
    nano = table.runaway_usd * NANO
    if nano < 0 or nano % 1:
        raise UserError("runaway_usd must be 0 or more, with nine decimals at most")
    if not (table.retry_attempts or table.loop_calls or nano):
        raise UserError("guards nothing: set retry_attempts, loop_calls or runaway_usd, or delete it")
    if 0 < table.retry_attempts <= FAILED_MIN or table.loop_calls == 1:
        raise UserError(f"retry_attempts must be more than {FAILED_MIN}, and loop_calls more than 1: once is no habit")
    return Guard(name, parse(table.scope), table, int(nano))


def _storm(guard: Guard, call: Call, session: _Session, now_us: int) -> GuardedError | None:
    """The same request, which has failed: it waits, longer each time. A client that waits so long by itself passes."""
    least = guard.table.retry_attempts
    attempts = session.attempts.get(call.request_hash or "")
    if not least or attempts is None:
        return None
    attempts.forget(now_us)
    number = len(attempts.times) + 1
    if number < least or len(attempts.failed) < FAILED_MIN:
        return None
    seconds = min(WAIT_SECONDS_MAX, 2 ** min(number - least + 1, 8))
    left_us = attempts.ended_us + seconds * 1_000_000 - now_us
    if left_us <= 0:
        return None
    wait = -(-left_us // 1_000_000)
    return GuardedError(
        "rate_limited",
        f"Outlay: this is attempt {number} at the same request within ten minutes, and {len(attempts.failed)} of them "
        f"have failed. The next one can be made in {wait} s. (Guard {guard.name}.)",
        "retry_storm",
        wait,
    )


def _loop(guard: Guard, call: Call, session: _Session, now_us: int) -> GuardedError | None:
    most = guard.table.loop_calls
    if not most or call.agent in NO_AGENTS or call.purpose in DECLARED:
        return None
    actions, requests = session.runs_of(call)
    if (number := actions.repeats(call.action_hash, now_us)) >= most:
        what = "the same tool call with the same result"
    elif (number := requests.repeats(call.request_hash, now_us)) >= most:
        what = "the same request"
    else:
        return None
    return GuardedError(
        "loop_stopped",
        f"Outlay: this task goes round: {what}, {number} times in a row. It was stopped, so that it costs no more. "
        f"Say something new to it, and it can go on. (Guard {guard.name}.) [loop_stopped]",
        "agent_loop",
    )


def _runaway(guard: Guard, call: Call, session: _Session) -> GuardedError | None:
    if not guard.runaway_nano or call.human_turn is not False or session.spent <= guard.runaway_nano:
        return None
    if session.calls < guard.table.runaway_calls:
        return None
    return GuardedError(
        "loop_stopped",
        f"Outlay: this session has made {session.calls:,} calls for {money.short(session.spent)} since a person last "
        f"said something to it, more than {money.short(guard.runaway_nano)}. It was stopped. Look at what it does; "
        f"a message from you lets it go on. (Guard {guard.name}.) [loop_stopped]",
        "runaway",
    )
