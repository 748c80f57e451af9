"""Admission: a call goes on when every budget that covers it has room for it, waits while money is only held by others,
and is refused when it is spent. `budgets.decide` decides; here is the waiting, and what a person is told.

The request itself is elsewhere, perhaps in another process: what admission has to know of it is told (`Wanted`), or
asked for where it matters (`View`).
"""

import asyncio
from collections import deque
from typing import Protocol

import msgspec

from gateway import money
from gateway.budget_notices import BudgetNotices, local, per, scope_of
from gateway.budgets import (
    NEAR,
    Account,
    Budgets,
    Charges,
    Decision,
    Hold,
    Quote,
    are_worth_a_notice,
    cost_of,
    decide,
    least_left,
)
from gateway.call import Ask, BudgetAction, Call
from gateway.errors import Refusal
from gateway.ledger import now_us
from gateway.quotes import Estimate, Quotes

MOST_NANO = 2**62
"""A call that states a senseless maximum holds no more: it has to fit into a column of the ledger, and a message."""
WAITING_MAX = 1000
"""Calls that wait for money."""
HEADROOM = 1.25
"""A hold that grows, grows by more than is needed just now."""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """What admission has to know of a request beside the call's record."""

    ask: Ask
    region: str | None
    request_bytes: int
    """Decoded."""
    in_session: bool = False
    """A response in a session cannot wait, be lowered or be ended. It holds what is usual."""


class Looked(msgspec.Struct, frozen=True, array_like=True):
    """What a closer look at a request shows."""

    request_bytes: int
    input_tokens: int | None
    """The most that were counted; `None` where each byte may be one."""
    clamps: bool
    """Its maximum can be lowered."""
    stops: bool
    """Something can end the stream of its answer."""


class View(Protocol):
    """The way back to a request."""

    async def look(self, model: str | None) -> Looked | None:
        """Look at it closely; with `model`, at the same request for another model. `None` where it cannot ask for that
        one."""

    async def check(self) -> None:
        """It has waited. Raises the refusal of one that may not go on."""


class Grant(msgspec.Struct, array_like=True):
    """What a call got, whole nano-USD."""

    amount: int
    """Held for it now."""
    ceiling: int
    """What it can be made to cost at most."""
    may_stop: bool
    """It is a stream that its budgets may have to end."""
    action: BudgetAction
    model: str | None
    """What is asked for: with the action `rerouted`, in place of the client's own."""
    max_output_tokens: int | None = None
    """The maximum that the request gets; `None` = its own."""
    rate: int | None = None
    """The most that an output token costs; `None` where the model has no price."""
    input_cost: int = 0
    """What the input usually costs."""
    tokens_per_byte: float | None = None
    """Output tokens for each byte of the events that a stream carries them in; `None` = nothing is known."""

    def set_on(self, call: Call) -> None:
        """On the call's record."""
        call.held_nano, call.budget_action, call.request_model = self.amount, self.action, self.model
        if self.max_output_tokens is not None:
            call.max_output_tokens = self.max_output_tokens


class _Held(msgspec.Struct, frozen=True):
    """A call that has a hold."""

    hold: Hold
    estimate: Estimate | None
    """`None` where the model has no price."""
    request_bytes: int


class _Waiter:
    """A call that waits for money that others hold."""

    def __init__(self, call: Call, quote: Quote, account: Account) -> None:
        self.call = call
        self.quote = quote
        self.account = account
        """Whose holds are in the way."""
        self.decided: asyncio.Future[tuple[Decision, Hold | None]] = asyncio.get_running_loop().create_future()


class Admission:
    """Admits calls to their budgets, and settles them."""

    def __init__(self, budgets: Budgets, quotes: Quotes, wait_seconds: float, notices: BudgetNotices) -> None:
        self.budgets = budgets
        self._quotes = quotes
        self._wait_seconds = wait_seconds
        self._notices = notices
        self._held: dict[str, _Held] = {}
        """By call_id."""
        self._waiting: dict[Account, deque[_Waiter]] = {}

    @property
    def open_holds(self) -> int:
        return len(self._held)

    # -- before the call ----------------------------------------------------------------------------------------

    def admit_at_once(self, call: Call, wanted: Wanted) -> Grant | Estimate | None:
        """Hold money for a call in all its budgets; `None` where there is none. An estimate is none of it: the request
        has to be looked at (`admit_closely`). Raises the refusal `budget_exceeded`.

        Sets `held_nano` and `budget_action` of the call.
        """
        charges = self.budgets.charges(call)
        if not charges:
            return None
        estimate = self._estimate(call, wanted)
        if estimate is None:  # its budgets count it among those that cost nobody knows what
            self.demand(call)
            return self._granted(call, wanted, None, self.budgets.hold(call, charges, 0, 0), "none")
        if wanted.in_session:
            return self._admit_usual(call, wanted, charges, estimate)
        decision = self._decide(charges, estimate.quote)
        if not decision.is_untouched or (action := self._soft_action(charges, estimate.quote)) == "shadow_blocked":
            return estimate
        hold = self._hold(call, charges, estimate.quote, decision)
        assert hold is not None, "an admitted call has a hold"
        return self._granted(call, wanted, estimate, hold, action)

    def _admit_usual(self, call: Call, wanted: Wanted, charges: Charges, estimate: Estimate) -> Grant:
        """Its most is far above what any response costs, and sessions are open for long."""
        usual = estimate.quote.usual
        quote = msgspec.structs.replace(
            estimate.quote, fixed=usual, rate=0, tokens=0, tokens_min=0, clamps=False, stops=False
        )
        decision = self._decide(charges, quote, waited=True)
        if (hold := self._hold(call, charges, quote, decision)) is None:
            raise self._refuse(call, decision.account)
        return self._granted(call, wanted, estimate, hold, self._soft_action(charges, quote))

    async def admit_closely(self, call: Call, wanted: Wanted, known: Estimate, view: View) -> Grant:
        """Now that it matters: with the input counted, and the request tried whether its maximum can be lowered. Waits
        for money that is held. Raises refusals.

        Sets also the call's model, where another one is asked for, and its maximum.
        """
        estimate = self._estimate_well(call, wanted, known, await view.look(None))
        charges = self.budgets.charges(call)  # anew after each wait: balances and budgets may have changed
        decision = self._decide(charges, estimate.quote)
        if not decision.is_untouched:
            if (other := await self._rerouted(call, wanted, charges, view)) is not None:
                wanted, estimate = other
            charges = self.budgets.charges(call)
            decision = self._decide(charges, estimate.quote)
        if decision.verdict == "wait":
            decision, hold = await self._wait(call, estimate.quote, decision)
        else:
            hold = self._hold(call, charges, estimate.quote, decision)
        if hold is None:
            raise self._refuse(call, decision.account)
        try:
            await view.check()
        except BaseException:
            self._settle(hold, 0)
            call.budget_action = None
            raise
        action, tokens = call.budget_action or self._soft_action(hold.charges, estimate.quote), None
        if decision.tokens is not None:
            action = "rerouted" if action == "rerouted" else "clamped"
            tokens = max(1, decision.tokens // wanted.ask.choices)
        return self._granted(call, wanted, estimate, hold, action, tokens)

    def demand(self, call: Call) -> None:
        """For what is billed later, and holds nothing: a batch. Raises the refusal `budget_exceeded` when a budget that
        covers it is spent."""
        now = now_us()
        for charge in self.budgets.charges(call).hard:
            charge.account.expire(now)
            if charge.account.spent >= charge.account.limit(now):
                raise self._refuse(call, charge.account)

    def _refuse(self, call: Call, account: Account | None) -> Refusal:
        assert account is not None
        now = now_us()
        self._notices.refused(account, now)
        call.budget_action = "blocked"
        return _refusal(account, self.budgets.running(account) if account.held else 0, now)

    def _decide(self, charges: Charges, quote: Quote, *, waited: bool = False) -> Decision:
        able, now = charges.hard, now_us()
        free = self.budgets.free(charges, NEAR * quote.worst(quote.tokens), now)
        waiting = max((len(self._waiting.get(each.account, ())) for each in able), default=0) if self._waiting else 0
        return decide(able, quote, now, free=free, waiting=waiting, waited=waited)

    def _hold(self, call: Call, charges: Charges, quote: Quote, decision: Decision) -> Hold | None:
        """What a decision reserves; `None` where it lets the call not go on."""
        if decision.verdict != "admit":
            return None
        amount, ceiling = min(decision.amount, MOST_NANO), min(decision.ceiling, MOST_NANO)
        return self.budgets.hold(call, charges, amount, ceiling, may_stop=quote.stops and decision.near)

    def _estimate(self, call: Call, wanted: Wanted, *, input_tokens: int | None = None) -> Estimate | None:
        request_bytes = 0 if wanted.in_session else wanted.request_bytes
        return self._quotes.quote(call, wanted.ask, wanted.region, request_bytes, input_tokens=input_tokens)

    def _estimate_well(self, call: Call, wanted: Wanted, known: Estimate, looked: Looked | None) -> Estimate:
        assert looked is not None, "a request can ask for its own model"
        estimate = known
        if looked.input_tokens is not None:
            estimate = self._estimate(call, wanted, input_tokens=looked.input_tokens) or known
        clamps = estimate.quote.clamps and looked.clamps
        quote = msgspec.structs.replace(estimate.quote, clamps=clamps, stops=looked.stops)
        return msgspec.structs.replace(estimate, quote=quote)

    async def _rerouted(
        self, call: Call, wanted: Wanted, charges: Charges, view: View
    ) -> tuple[Wanted, Estimate] | None:
        """The same request for the model that a budget names, where it can ask for it."""
        model = next((m for charge in charges.hard if (m := charge.account.budget.reroute_to)), None)
        if model is None or model == call.request_model or (looked := await view.look(model)) is None:
            return None
        asked, call.request_model = call.request_model, model
        other = msgspec.structs.replace(wanted, request_bytes=looked.request_bytes)
        estimate = self._estimate(call, other)
        if estimate is None:  # what it costs, nobody knows
            call.request_model = asked
            return None
        call.budget_action = "rerouted"
        return other, self._estimate_well(call, other, estimate, looked)

    def _soft_action(self, charges: Charges, quote: Quote) -> BudgetAction:
        """What budgets that enforce nothing say to the call."""
        if not charges.soft:
            return "none"
        now = now_us()
        shadows = [each for each in charges.soft if each.account.budget.on_exceed != "warn"]
        if shadows and decide(shadows, quote, now, waited=True).verdict == "refuse":
            return "shadow_blocked"
        for charge in charges.soft:
            account = charge.account
            account.expire(now)
            if account.spent + account.held + charge.part(quote.usual) > account.limit(now):
                return "warned"
        return "none"

    def _granted(
        self,
        call: Call,
        wanted: Wanted,
        estimate: Estimate | None,
        hold: Hold,
        action: BudgetAction,
        max_output_tokens: int | None = None,
    ) -> Grant:
        self._held[call.call_id] = _Held(hold, estimate, wanted.request_bytes)
        grant = Grant(hold.amount, hold.ceiling, hold.may_stop, action, call.request_model, max_output_tokens)
        if estimate is not None:
            grant.rate, grant.input_cost = min(estimate.quote.rate, MOST_NANO), min(estimate.input_cost, MOST_NANO)
            grant.tokens_per_byte = estimate.tokens_per_byte
        grant.set_on(call)
        return grant

    # -- waiting ------------------------------------------------------------------------------------------------

    async def _wait(self, call: Call, quote: Quote, decision: Decision) -> tuple[Decision, Hold | None]:
        """Wait for settlements, first come, first served, for a bounded time. No hold: the call is refused."""
        assert decision.account is not None
        waiter = _Waiter(call, quote, decision.account)
        if sum(map(len, self._waiting.values())) >= WAITING_MAX:  # each of them has its request in memory
            return decision, None
        self._waiting.setdefault(waiter.account, deque()).append(waiter)
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await asyncio.shield(waiter.decided)
        except TimeoutError:
            if waiter.decided.done():
                return waiter.decided.result()
            charges = self.budgets.charges(call)
            decision = self._decide(charges, quote, waited=True)
            return decision, self._hold(call, charges, quote, decision)
        except asyncio.CancelledError:
            if waiter.decided.done() and (hold := waiter.decided.result()[1]) is not None:
                self._settle(hold, 0)
            raise
        finally:
            if not waiter.decided.done():
                self._waiting[waiter.account].remove(waiter)
                if not self._waiting[waiter.account]:
                    del self._waiting[waiter.account]
            waiter.decided.cancel()

    def _wake(self, account: Account) -> None:
        """Decide anew for those that wait for an account, as far as they fit in."""
        queue = self._waiting.get(account)
        while queue:
            waiter = queue[0]
            charges = self.budgets.charges(waiter.call)
            decision = decide(charges.hard, waiter.quote, now_us(), waiting=len(queue) - 1)
            if decision.verdict == "wait" and decision.account in (account, None):
                return
            queue.popleft()
            if decision.verdict != "wait":
                waiter.decided.set_result((decision, self._hold(waiter.call, charges, waiter.quote, decision)))
            elif decision.account is not None:  # another one is in the way now
                waiter.account = decision.account
                self._waiting.setdefault(waiter.account, deque()).append(waiter)
        self._waiting.pop(account, None)

    def wake_all(self) -> None:
        """The limits have changed."""
        for account in list(self._waiting):
            self._wake(account)

    # -- while it runs, and at its end --------------------------------------------------------------------------

    def grow(self, call_id: str, cost: int) -> int | None:
        """Keep a hold ahead of the running cost of its stream. What it holds then; `None` when a budget has not so much
        left."""
        hold, now = self._held[call_id].hold, now_us()
        grown = self.budgets.grow(hold, int(cost * HEADROOM), now) or self.budgets.grow(hold, cost, now)
        return hold.amount if grown else None

    def held(self, call_id: str) -> int | None:
        """What a call holds now, nano-USD; `None` where no budget covers it."""
        held = self._held.get(call_id)
        return None if held is None else held.hold.amount

    def void(self, call: Call) -> None:
        """Nothing was sent after all."""
        if (held := self._held.pop(call.call_id, None)) is not None:
            self._settle(held.hold, 0)
            call.held_nano = call.budget_action = None

    def settle(self, call: Call, content_bytes: int | None = None) -> Hold | None:
        """A call has ended: give its hold back, and post what it cost. What it cost in the end is learned from where
        `content_bytes`, of its answer's events with text, tell that it was reported whole."""
        held = self._held.pop(call.call_id, None)
        if held is None:
            if call.result != "refused":
                self.budgets.post(call, cost_of(call))
            return None
        self._settle(held.hold, cost_of(call))
        if content_bytes is not None and held.estimate is not None:
            self._quotes.learn(call, held.estimate, held.request_bytes, content_bytes)
        return held.hold

    def _settle(self, hold: Hold, cost: int | None) -> None:
        """Once per hold: see `Budgets.settle`."""
        self.budgets.settle(hold, cost)
        accounts = hold.charges.accounts
        if cost and are_worth_a_notice(accounts):
            for account in accounts:
                if account.spent >= account.notice_from:
                    self._notices.look(account, now_us())
        if self._waiting:
            for account in accounts:
                self._wake(account)

    def correct(self, before: Call, now: Call) -> None:
        """A call that was posted costs something else."""
        self.budgets.post(before, -(cost_of(before) or 0))
        self.budgets.post(now, cost_of(now) or 0)

    def remaining(self, hold: Hold) -> int | None:
        """What is left of the tightest of the call's budgets, nano-USD."""
        return least_left(hold.charges.accounts, now_us())


# -- what a person is told ----------------------------------------------------------------------------------------


def _refusal(account: Account, running: int, now: int) -> Refusal:
    budget, limit = account.budget, account.limit(now)
    state = f"{money.short(account.spent)} of {money.short(limit)} spent"
    if account.held:
        state += f", {money.short(account.held)} held by {running} running calls"
    if account.spent < limit:
        state += "; what is left does not pay for this call"
    ends = account.frees_at(now)
    resets = f" It begins anew on {local(ends, budget.timezone)}." if ends is not None else ""
    owner = f"{budget.owner} or an administrator" if budget.owner else "an administrator"
    return Refusal(
        "budget_exceeded",
        f"Outlay: the budget {budget.name} ({scope_of(account)}, {per(budget.period)}) is used up: {state}.{resets} "
        f"To go on, ask {owner} for a raise: `outlay budgets raise {budget.name} --by-usd … --until … --reason …`. "
        "[budget_exceeded]",
        resets_at=None if ends is None else ends // 1_000_000,
    )
