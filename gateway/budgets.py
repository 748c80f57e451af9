"""Budgets as a ledger: accounts with a limit, and two-phase transfers in whole nano-USD. Pure: no clock, no I/O.

A call is admitted against every budget that covers it, or against none. It then *holds* money in each account until it
is *settled* with what it cost. A hold has two amounts: what is reserved now (`amount`, which may grow), and what the
call can cost at most (`ceiling`). A stream that can be ended from here is kept to its amount, anything else may reach
its ceiling: that sum is `firm`. For every account of a hard budget `spent + firm <= limit` is kept by all that `decide`
and `grow` do; a cost above that is the provider's doing, is posted all the same, and shows as overshoot.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from operator import add, attrgetter, ge, sub
from typing import Literal, NamedTuple

import msgspec

from gateway import scopes
from gateway.call import Call
from gateway.periods import ROLLING_US, Period, Span, span
from gateway.scopes import Kind, Scope, share

Mode = Literal["enforce", "shadow"]
UNBOUNDED = 1 << 200
BUCKET_US = 5 * 60 * 1_000_000
"""A rolling window forgets so much at once, late rather than early."""


class Raise(msgspec.Struct, frozen=True):
    """A temporary increase of a limit."""

    amount_nano: int
    until_us: int
    reason: str
    by: str
    at_us: int = 0
    value: str | None = None
    """Of a template: the ticket, task or user that it is for; `None` = each."""


class Budget(msgspec.Struct, frozen=True, dict=True):
    """What may be spent by whom, in which time, and what happens near the limit."""

    name: str
    scope: Scope
    limit_nano: int
    period: Period = "month"
    timezone: str = "UTC"
    on_exceed: str = "block"
    """`block`, `stop_stream`, `warn` or `reroute:MODEL`."""
    warn_at: tuple[float, ...] = ()
    mode: Mode = "enforce"
    owner: str | None = None
    raises: tuple[Raise, ...] = ()

    @cached_property
    def is_hard(self) -> bool:
        return self.mode == "enforce" and self.on_exceed != "warn"

    @cached_property
    def reroute_to(self) -> str | None:
        return self.on_exceed.partition(":")[2] or None

    @cached_property
    def clamps(self) -> bool:
        """It may lower a request's maximum; `stop_stream` never touches a request."""
        return self.on_exceed != "stop_stream"

    @cached_property
    def identity(self) -> str:
        """What its accounts are about: with another scope or period they begin anew."""
        return f"{self.name}|{self.scope}|{self.period}|{self.timezone}"

    def limit_of(self, value: str, at_us: int) -> int:
        """Nano-USD, with the raises that are in force."""
        return self.limit_nano + sum(
            each.amount_nano for each in self.raises if at_us < each.until_us and each.value in (None, value)
        )


class Account:
    """The balance of one budget, for one value of its scope (of a template) and one period."""

    __slots__ = (
        "beyond", "beyond_stops", "budget", "held", "notice_from", "period", "recent", "spent", "unpriced", "value",
        "window",
    )  # fmt: skip

    def __init__(self, budget: Budget, value: str, period: Span) -> None:
        self.budget = budget
        self.value = value
        self.period = period
        self.spent = 0
        self.held = 0
        """What running calls reserve: what they usually cost, or have cost up to now."""
        self.beyond = 0
        """What they can cost at most beyond that, without the streams that can be ended."""
        self.beyond_stops = 0
        """What those can."""
        self.unpriced = 0
        """Calls whose cost nobody knows: not in `spent`, and not free."""
        self.notice_from = 0
        """Nothing is worth a notice before so much is spent."""
        self.recent: list[tuple[int, int | None]] | None = None
        """What was posted since the ledger was asked, as (start of the call, cost); see `Budgets.asking`."""
        self.window: deque[tuple[int, int]] | None = deque() if budget.period == "rolling_24h" else None
        """Start and sum of the buckets of a rolling window, oldest first."""

    @property
    def firm(self) -> int:
        """What running calls cannot be kept below: of a stream that can be ended what it holds, of any other call the
        most."""
        return self.held + self.beyond

    @property
    def ceilings(self) -> int:
        """What running calls can cost at most."""
        return self.held + self.beyond + self.beyond_stops

    def limit(self, at_us: int) -> int:
        budget = self.budget
        return budget.limit_of(self.value, at_us) if budget.raises else budget.limit_nano

    def post(self, cost: int | None, started_us: int, *, is_told: bool = False) -> None:
        """`is_told`: it is in the ledger's answer that is outstanding."""
        if self.recent is not None and not is_told:
            self.recent.append((started_us, cost))
        if cost is None:
            self.unpriced += 1
            return
        self.spent += cost
        if self.window is not None:
            bucket = started_us - started_us % BUCKET_US
            if not self.window or bucket > self.window[-1][0]:
                self.window.append((bucket, cost))
            else:
                self._post_late(bucket, cost)

    def _post_late(self, bucket: int, amount: int) -> None:
        assert self.window is not None
        index = len(self.window)
        while index and self.window[index - 1][0] > bucket:
            index -= 1
        if index and self.window[index - 1][0] == bucket:
            self.window[index - 1] = (bucket, self.window[index - 1][1] + amount)
        else:
            self.window.insert(index, (bucket, amount))

    def clear(self) -> None:
        self.spent = self.unpriced = 0
        if self.window is not None:
            self.window.clear()

    def take(self, told: "Sum") -> None:
        """Add what the ledger knows."""
        self.unpriced += told.unpriced
        for started_us, amount in told.posted:
            self.post(amount, started_us)

    def expire(self, at_us: int) -> None:
        """Let go of what is older than a rolling window."""
        while self.window and self.window[0][0] + BUCKET_US + ROLLING_US <= at_us:
            self.spent -= self.window.popleft()[1]

    def frees_at(self, at_us: int) -> int | None:
        """When the budget has room again by itself, µs since the epoch."""
        if self.window is None:
            return self.period.end_us
        return self.window[0][0] + BUCKET_US + ROLLING_US if self.window else None


class Charge(NamedTuple):
    """An account, and which of the call's tickets it pays for (empty = the whole call)."""

    account: Account
    tickets: tuple[int, ...]
    of_tickets: int

    def part(self, amount: int) -> int:
        return share(amount, self.tickets, self.of_tickets)

    def whole(self, part: int) -> int:
        """An amount of a whole call of which this account's part is at most `part`, as it is of every smaller one."""
        return part // len(self.tickets) * self.of_tickets if self.tickets and part > 0 else part


class Payers(NamedTuple):
    """Accounts that pay the same share of a call."""

    accounts: tuple[Account, ...]
    tickets: tuple[int, ...]
    of_tickets: int


class Charges(tuple[Charge, ...]):
    """All that a call charges."""

    is_kept = False
    """All of its accounts are in force."""
    free_to = -UNBOUNDED
    """What was drawn in all when `Budgets.free` was last worked out, and what was free then."""

    @cached_property
    def start_us(self) -> int:
        """Calls of the kind that begin from here to `end_us` are in the same periods."""
        return max((each.period.start_us for each in self.accounts), default=0)

    @cached_property
    def end_us(self) -> int:
        ends = (each.period.end_us for each in self.accounts)
        return min((each for each in ends if each is not None), default=UNBOUNDED)

    @cached_property
    def accounts(self) -> tuple[Account, ...]:
        return tuple(charge.account for charge in self)

    @cached_property
    def payers(self) -> tuple[Payers, ...]:
        found: dict[tuple[tuple[int, ...], int], list[Account]] = {}
        for account, tickets, of_tickets in self:
            found.setdefault((tickets, of_tickets), []).append(account)
        return tuple(Payers(tuple(accounts), *share_of) for share_of, accounts in found.items())

    @cached_property
    def hard(self) -> tuple[Charge, ...]:
        """Those that can refuse the call."""
        return tuple(hard(self))

    @cached_property
    def soft(self) -> tuple[Charge, ...]:
        """Those that enforce nothing."""
        return tuple(charge for charge in self if not charge.account.budget.is_hard)

    @cached_property
    def is_steady(self) -> bool:
        """What is free in those that can refuse the call changes by what calls hold and cost, not by time; and they pay
        for the whole call."""
        return not any(tickets or each.window is not None or each.budget.raises for each, tickets, _ in self.hard)

    @cached_property
    def has_windows(self) -> bool:
        """It matters when what is posted began."""
        return any(account.window is not None for account in self.accounts)


class Hold(msgspec.Struct, eq=False):
    """What a call reserves, in every account that it charges, until it is settled."""

    call: Call
    charges: Charges
    amount: int
    ceiling: int
    may_stop: bool
    """It is a stream that can be ended from here."""
    version: int
    """Of the budgets that were in force."""


class Quote(msgspec.Struct, frozen=True):
    """What a call may cost, nano-USD. The worst case of `t` output tokens is `fixed + t * rate`."""

    fixed: int
    """The most that its input and fees can cost."""
    rate: int
    """The most that an output token costs, rounded up. All outputs of the call together count (`choices`)."""
    tokens: int
    """The request's own maximum, or the model's, of all outputs together."""
    usual: int
    """What such calls cost when they cost much: a high quantile of what was seen, never above the worst case."""
    usual_tokens: int
    """The output tokens of the same."""
    tokens_min: int
    """With less output the call is of no use."""
    clamps: bool
    """The maximum can be lowered in the request."""
    stops: bool
    """The answer is a stream that can be ended from here."""

    def worst(self, tokens: int) -> int:
        return self.fixed + tokens * self.rate

    def pays(self, amount: int) -> int:
        """How many output tokens an amount pays for, even in the worst case."""
        if self.rate <= 0:
            return self.tokens if amount >= self.fixed else 0
        return max(0, min(self.tokens, (amount - self.fixed) // self.rate))


Verdict = Literal["admit", "wait", "refuse"]


NEAR = 20
"""So many calls at their worst."""


class Decision(msgspec.Struct, frozen=True):
    verdict: Verdict
    amount: int = 0
    ceiling: int = 0
    tokens: int | None = None
    """The maximum that the request gets; `None` = its own."""
    account: Account | None = None
    """What is in the way: the account with the least left, or the one whose holds leave the least room."""
    near: bool = True
    """With less left than some calls like it need, a stream is watched so closely that it can be ended properly."""

    @property
    def is_untouched(self) -> bool:
        return self.verdict == "admit" and self.tokens is None


def decide(
    charges: Sequence[Charge],
    quote: Quote,
    at_us: int,
    *,
    free: int | None = None,
    waiting: int = 0,
    waited: bool = False,
) -> Decision:
    """May the call go on? Looks at the accounts given, those of hard budgets, and changes none. `free`: see
    `Budgets.free`, where it is known.

    In this order: it is refused when what is not spent does not pay for a useful answer; it goes on untouched when even
    its worst case fits beside the worst cases of all others; it waits while others hold what such calls usually need;
    it goes on with a lower maximum that fits so (`waiting` others leave it less). A stream that `waited` in vain goes
    on upon what others are kept to, rather than what they can cost at most: then growing holds keep the limit, and a
    stream is ended when its hold cannot grow.
    """
    worst = quote.worst(quote.tokens)
    if not charges:
        return Decision("admit", quote.usual, worst, near=False)
    if (_free(charges, at_us) if free is None else free) >= NEAR * worst:  # as it is most of the time
        return Decision("admit", quote.usual if quote.stops else worst, worst, near=False)
    may_clamp = quote.clamps and any(charge.account.budget.clamps for charge in charges)
    least = quote.worst(min(quote.tokens, quote.tokens_min)) if may_clamp or quote.stops else worst
    needed = max(least, quote.worst(min(quote.tokens, quote.usual_tokens))) if may_clamp else least
    left = sure = unheld = free = UNBOUNDED
    tightest = held_up_by = narrowest = None
    stops = quote.stops
    for charge in charges:
        account, tickets, _ = charge
        unspent = account.limit(at_us) - account.spent
        unfirm, uncovered = unspent - account.firm, unspent - account.ceilings
        if tickets:
            unspent, unfirm, uncovered = map(charge.whole, (unspent, unfirm, uncovered))
        if unspent < left or tightest is None:
            left, tightest = unspent, account
        if unfirm < unheld:
            unheld = unfirm
        if uncovered < free:
            free = uncovered
        room = unfirm
        if not stops or account.budget.clamps:
            room = uncovered
            if uncovered < sure:
                sure, narrowest = uncovered, account
        # Waiting helps when the money is there, and only held.
        if room < (needed if unspent >= needed else least) <= unspent:
            held_up_by = held_up_by or account
    if left < least:
        return Decision("refuse", account=tightest)
    near = free < NEAR * worst
    may_stop = quote.stops and near
    first = quote.usual if may_stop else worst
    if worst <= sure and first <= unheld:
        return Decision("admit", quote.usual if quote.stops else worst, worst, near=near)
    if held_up_by is not None and not waited:
        return Decision("wait", account=held_up_by)
    if may_clamp and sure >= least and (held_up_by is None or not quote.stops):
        is_shared = waiting > 0 or (narrowest is not None and narrowest.ceilings > 0)
        tokens = quote.pays(min(sure, max(needed, sure // (2 + waiting))) if is_shared else sure)
        ceiling = quote.worst(tokens)
        first = min(quote.usual, ceiling) if quote.stops else ceiling
        if first <= unheld:
            return Decision("admit", first, ceiling, tokens if tokens < quote.tokens else None)
    if quote.stops and unheld >= least:
        tokens = quote.pays(left) if may_clamp else quote.tokens
        amount = min(max(quote.usual, least), unheld)
        return Decision("admit", amount, max(amount, quote.worst(tokens)), tokens if tokens < quote.tokens else None)
    return Decision("refuse", account=tightest)


def _free(charges: Iterable[Charge], at_us: int) -> int:
    """What is left in the account that has the least, when all that run cost the most that they can."""
    least = UNBOUNDED
    for charge in charges:
        account, tickets, _ = charge
        if account.window:
            account.expire(at_us)
        budget = account.budget
        free = (account.limit(at_us) if budget.raises else budget.limit_nano) - account.spent - account.ceilings
        if tickets:
            free = charge.whole(free)
        if free < least:
            least = free
    return least


Covering = tuple[Budget, str, tuple[int, ...]]
"""A budget that covers a call, the value of its account, and the tickets that it is about; empty = the whole call."""
TOLD_AT_A_TIME = 1000
COVERED_MAX = 2000
"""Kinds of calls of which it is remembered what covers them."""
CLOCK_US = 3600 * 1_000_000
"""A clock that was set back further had been wrong."""


class Budgets:
    """All budgets in force, and their accounts."""

    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}
        self._exact: dict[tuple[Kind, str], list[Budget]] = {}
        self._wide: dict[Kind, list[Budget]] = {}
        """Templates and globs."""
        self._accounts: dict[tuple[str, str], Account] = {}
        """By identity of the budget, and value: those that know anything."""
        self._covered: dict[tuple[object, ...], tuple[Covering, ...]] = {}
        self._charged: dict[tuple[object, ...], Charges] = {}
        """Until another account comes or one goes."""
        self._open: set[Hold] = set()
        self._drawn = 0
        """All that was ever held, at its most, and posted: what is free in an account has not become less by more."""
        self._version = 0
        self._asked_us = 0
        self._is_asking = False

    # -- what is in force ---------------------------------------------------------------------------------------

    def replace(self, budgets: Iterable[Budget]) -> list[Budget]:
        """Put other budgets in force. Accounts whose budget goes on keep their balance. Returns the budgets that were
        not there before: their past spend is not known yet."""
        before = {budget.identity for budget in self._budgets.values()}
        self._version += 1
        self._budgets = {budget.name: budget for budget in budgets}
        self._exact, self._wide, self._covered, self._charged = {}, {}, {}, {}
        for budget in self._budgets.values():
            kind, value = budget.scope
            if value is None or budget.scope.is_glob:
                self._wide.setdefault(kind, []).append(budget)
            else:
                self._exact.setdefault((kind, value), []).append(budget)
        now = {budget.identity: budget for budget in self._budgets.values()}
        for (identity, value), account in list(self._accounts.items()):
            if identity in now:
                account.budget, account.notice_from = now[identity], 0
            else:
                del self._accounts[identity, value]  # holds keep it, and settle into nothing
        return [budget for identity, budget in now.items() if identity not in before]

    def __iter__(self) -> Iterator[Budget]:
        return iter(self._budgets.values())

    def __len__(self) -> int:
        return len(self._budgets)

    def get(self, name: str) -> Budget | None:
        return self._budgets.get(name)

    def accounts(self, name: str | None = None) -> Iterator[Account]:
        """The accounts that exist: those that a call has charged."""
        return (each for each in self._accounts.values() if name is None or each.budget.name == name)

    def account(self, budget: Budget, value: str, at_us: int) -> Account:
        """The account of the period that the moment is in, or of a later one: when the clock is set back a little, time
        does not begin anew. It is kept only when something is held or posted: clients choose the names of tasks."""
        found = self._accounts.get((budget.identity, value))
        if found is None or not found.period.has(at_us):
            period = span(budget.period, budget.timezone, at_us)
            if found is None or not 0 <= found.period.start_us - period.start_us <= CLOCK_US:
                return Account(budget, value, period)
        return found

    def charges(self, call: Call, *, past: bool = False) -> Charges:
        """The accounts that a call charges, by when it started. `past`: only those of the present period."""
        if not self._budgets:
            return Charges()
        kind = (
            call.team_id, call.user_id, call.key_id, call.purpose, call.request_model, call.task_id, call.tickets,
        )  # fmt: skip
        at_us = call.started_us
        charges = self._charged.get(kind)
        if charges is not None and charges.start_us <= at_us < charges.end_us:
            return charges
        found: list[Charge] = []
        is_kept = True
        for budget, value, tickets in self._covering(kind, call):
            account = self._accounts.get((budget.identity, value))
            if account is None or not account.period.has(at_us):
                is_kept = False
                if past and account is not None and account.period.start_us > at_us:
                    continue
                account = self.account(budget, value, at_us)
            found.append(Charge(account, tickets, len(call.tickets)))
        charges = Charges(found)
        if is_kept:
            charges.is_kept = True
            self._charged[kind] = charges
        return charges

    def _covering(self, kind: tuple[object, ...], call: Call) -> tuple[Covering, ...]:
        """The budgets that cover a call. Remembered: most calls are like one before."""
        covering = self._covered.get(kind)
        if covering is not None:
            return covering
        found: dict[tuple[str, str], Covering] = {}
        for part in scopes.of(call):
            for budget in self._exact.get((part.kind, part.value), ()):
                _cover(found, budget, "", part.tickets)
            for budget in self._wide.get(part.kind, ()):
                if budget.scope.value is None:
                    _cover(found, budget, part.value, part.tickets)
                elif budget.scope.matches(part.value):
                    _cover(found, budget, "", part.tickets)
        if len(self._covered) >= COVERED_MAX:
            self._covered.clear()
            self._charged.clear()
        covering = self._covered[kind] = tuple(found.values())
        return covering

    # -- transfers ----------------------------------------------------------------------------------------------

    def hold(self, call: Call, charges: Charges, amount: int, ceiling: int, *, may_stop: bool = False) -> Hold:
        """Reserve money in all accounts at once. Whether it is there is for `decide` to say."""
        hold = Hold(call, charges, amount, ceiling, may_stop, self._version)
        if not charges.is_kept:
            for account in charges.accounts:
                self._keep(account)
        self._open.add(hold)
        self._drawn += ceiling
        _reserve(hold, 1)
        return hold

    def running(self, account: Account) -> int:
        """Calls that hold something in an account."""
        return sum(account in hold.charges.accounts for hold in self._open)

    def free(self, charges: Charges, enough: int, at_us: int) -> int:
        """What is free in the account that has the least of those that can refuse the call, when all that run cost the
        most that they can. Where that is `enough`, it is so much at least: what was free once, less all that was drawn
        since, from whichever accounts."""
        at_least = charges.free_to - self._drawn
        if at_least >= enough:
            return at_least
        free = _free(charges.hard, at_us)
        if charges.is_steady:
            charges.free_to = self._drawn + free
        return free

    def grow(self, hold: Hold, amount: int, at_us: int) -> bool:
        """Reserve more, up to the ceiling, in all accounts or in none. False when a hard one has not so much left, and
        the stream can be ended."""
        amount = min(amount, hold.ceiling)
        if amount <= hold.amount:
            return True
        for charge in hold.charges if hold.may_stop else ():
            account = charge.account
            if account.budget.is_hard:
                account.expire(at_us)
                more = charge.part(amount) - charge.part(hold.amount)
                if account.spent + account.firm + more > account.limit(at_us):
                    return False
        _reserve(hold, -1)
        hold.amount = amount
        _reserve(hold, 1)
        return True

    def settle(self, hold: Hold, cost: int | None) -> None:
        """Give the hold back and post what the call cost; 0 voids it, `None` = nobody knows. Once per hold."""
        self._open.remove(hold)
        _reserve(hold, -1)
        if hold.version == self._version:
            self._post(hold.charges, cost, hold.call.started_us)
        else:  # other budgets are in force by now
            self.post(hold.call, cost)

    def post(self, call: Call, cost: int | None, booked_us: int | None = None) -> None:
        """Post what a call cost that held nothing: one of another process, of the past, of a batch. A negative amount
        takes back. What began before the period of an account is not its."""
        charges = self.charges(call, past=True)
        for charge in charges:
            self._keep(charge.account)
        self._post(charges, cost, call.started_us, booked_us)

    def _post(self, charges: Charges, cost: int | None, started_us: int, booked_us: int | None = None) -> None:
        if not cost or charges.has_windows or self._is_asking:
            self._post_each(charges, cost, started_us, booked_us)
        else:
            for accounts, tickets, of_tickets in charges.payers:
                part = share(cost, tickets, of_tickets) if tickets else cost
                for account in accounts:
                    account.spent += part
        if cost and cost > 0:
            self._drawn += cost

    def _post_each(self, charges: Charges, cost: int | None, started_us: int, booked_us: int | None) -> None:
        """Where more counts than how much it is."""
        is_told = booked_us is not None and booked_us < self._asked_us
        for account, tickets, of_tickets in charges if cost != 0 else ():
            part = None if cost is None else share(cost, tickets, of_tickets)
            account.post(part, started_us, is_told=is_told)

    def _keep(self, account: Account) -> None:
        key = account.budget.identity, account.value
        if self._accounts.get(key) is not account:
            self._accounts[key] = account
            self._charged.clear()

    # -- the ledger's own sums ----------------------------------------------------------------------------------

    def asking(self, before_us: int) -> None:
        """The ledger is asked for what was booked before a moment: from now on remember what is posted."""
        self._asked_us, self._is_asking = before_us, True
        for account in self._accounts.values():
            account.recent = []

    def told(self, sums: Iterable["Sum"], at_us: int) -> Iterator[None]:
        """Take over the ledger's answer, and what was posted since. Accounts that it does not name had spent nothing.

        After this the balances are the ledger's, whatever was corrected in it since they were posted. Yields now and
        then: others may have the processor.
        """
        found = {(each.identity, each.value): each for each in sums}
        of = {budget.identity: budget for budget in self._budgets.values()}
        for identity, value in found.keys() - self._accounts.keys():
            if identity in of:
                self._keep(self.account(of[identity], value, at_us))
        for number, (key, account) in enumerate(list(self._accounts.items())):
            told = found.get(key)
            recent, account.recent = account.recent, None
            if recent is not None:  # else it is new, and all that it has was posted since
                account.clear()
                for started_us, cost in recent:
                    account.post(cost, started_us)
            if told is not None and told.start_us == account.period.start_us:
                account.take(told)
            if number % TOLD_AT_A_TIME == 0:
                self._charged.clear()  # with what was remembered to be free
                yield
        self._is_asking = False
        self._charged.clear()

    def not_told(self) -> None:
        """No answer came."""
        self._is_asking = False
        for account in self._accounts.values():
            account.recent = None

    def restore(self, budget: Budget, value: str, at_us: int, told: "Sum") -> None:
        """An account as it was saved, if its period goes on."""
        account = self.account(budget, value, at_us)
        if account.period.start_us == told.start_us:
            self._keep(account)
            account.take(told)
            self._charged.clear()

    def forget(self, at_us: int) -> None:
        """Drop accounts of periods that are over, and those that know nothing: clients choose the names of tasks."""
        held = {account for hold in self._open for account in hold.charges.accounts}
        for key, account in list(self._accounts.items()):
            account.expire(at_us)
            is_over = account.period.end_us is not None and account.period.end_us <= at_us
            if account not in held and (is_over or not (account.spent or account.unpriced or account.recent)):
                del self._accounts[key]
                self._charged.clear()


class Sum(msgspec.Struct, frozen=True):
    """What the ledger knows of an account in its present period."""

    identity: str
    value: str
    start_us: int
    """Of the period, as `Account.period`."""
    posted: tuple[tuple[int, int], ...]
    """(start, nano-USD): one pair for the whole period, or one per bucket of a rolling window."""
    unpriced: int = 0


def _cover(found: dict[tuple[str, str], Covering], budget: Budget, value: str, tickets: tuple[int, ...]) -> None:
    """A glob may cover several tickets of a call: together they are one charge."""
    _, _, before = found.get((budget.identity, value), (budget, value, ()))
    found[budget.identity, value] = budget, value, tuple(sorted({*before, *tickets}))


def _reserve(hold: Hold, sign: Literal[1, -1]) -> None:
    """Add what a call reserves to its accounts, or take it off."""
    for accounts, tickets, of_tickets in hold.charges.payers:
        held, most = hold.amount * sign, hold.ceiling * sign
        if tickets:
            held, most = share(held, tickets, of_tickets), share(most, tickets, of_tickets)
        for account in accounts:
            account.held += held
        beyond = most - held
        if beyond and hold.may_stop:
            for account in accounts:
                account.beyond_stops += beyond
        elif beyond:
            for account in accounts:
                account.beyond += beyond


def hard(charges: Iterable[Charge]) -> list[Charge]:
    """Those that can refuse a call."""
    return [charge for charge in charges if charge.account.budget.is_hard]


def least_left(accounts: Sequence[Account], at_us: int) -> int | None:
    """What is left of the tightest account: nano-USD, held money taken off, never below 0."""
    if not accounts:
        return None
    limits = [each.limit(at_us) for each in accounts] if any(map(_RAISES, accounts)) else map(_LIMIT, accounts)
    left: int = min(map(sub, limits, map(add, map(_SPENT, accounts), map(_HELD, accounts))))
    return max(left, 0)


def are_worth_a_notice(accounts: Iterable[Account]) -> bool:
    """One of them may be: see `Account.notice_from`."""
    return any(map(ge, map(_SPENT, accounts), map(_NOTICE_FROM, accounts)))


_SPENT, _HELD, _NOTICE_FROM, _LIMIT, _RAISES = map(
    attrgetter, ("spent", "held", "notice_from", "budget.limit_nano", "budget.raises")
)


def cost_of(call: Call) -> int | None:
    """What a budget counts for a call, nano-USD: what is paid for it; `None` = nobody knows.

    Of a call that was under way when the gateway died it counts what was held: a provider has billed some of it.
    """
    if call.contracted_cost_nano is not None:
        return call.contracted_cost_nano
    if call.list_cost_nano is None and call.result == "interrupted":
        return call.held_nano
    return call.list_cost_nano
