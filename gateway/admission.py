"""Admission: a call goes on when every budget that covers it has room for it, waits while money is only held by others,
and is refused when it is spent. `budgets.decide` decides; here is the waiting, and what a person is told."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from gateway import money
from gateway.budget_notices import BudgetNotices, local, per, scope_of
from gateway.budgets import Account, Budgets, Charge, Decision, Hold, Quote, cost_of, decide, hard, tightest
from gateway.call import Ask, BudgetAction, Call
from gateway.dialects.base import Dialect, Ending
from gateway.errors import Refusal
from gateway.ledger import now_us
from gateway.quotes import Estimate, Quotes
from gateway.tokens import Estimator

COUNTED_BYTES_MIN = 2048
"""A shorter request is not counted: each of its bytes may be a token."""
WAITING_MAX = 1000
"""Calls that wait for money."""
HEADROOM = 1.25
"""A hold that grows, grows by more than is needed just now."""


class Admitted(msgspec.Struct):
    """What a call got."""

    hold: Hold
    estimate: Estimate | None = None
    """`None` where the model has no price."""
    path: str | None = None
    body: bytes | None = None
    """What is sent in place of the client's own path and (decoded) body, where a budget asked for it."""
    ending: Ending | None = None
    """Of a stream that its budgets may have to end."""
    enough_to: int = 0
    """The hold is enough for so many bytes of content."""


class Asking(msgspec.Struct, frozen=True):
    """What admission has to know of a request."""

    dialect: Dialect | None
    ask: Ask
    path: str
    """As it goes upstream."""
    body: bytes
    """Decoded."""
    region: str | None
    provider: str
    may_use: Callable[[str], bool]
    """True for the models that the caller's key may use."""
    is_signed: bool = False
    """The client has signed the request's bytes: they cannot be changed."""

    def clamped(self, tokens: int) -> bytes | None:
        """The body with a maximum of at most so many output tokens; `None` where it has none."""
        clamp = None if self.dialect is None or self.is_signed else self.dialect.clamp
        return None if clamp is None else clamp(self.path, self.provider, self.body, tokens)

    def ending(self) -> Ending | None:
        """What can end the stream of the answer; `None` where nothing can."""
        ending = None if self.dialect is None or not self.ask.stream else self.dialect.ending
        try:
            return None if ending is None else ending(self.path, self.body)
        except (Refusal, ValueError, RecursionError):
            return None  # a body that only its provider can read

    def for_model(self, model: str) -> "Asking | None":
        reroute = None if self.dialect is None or self.is_signed else self.dialect.reroute
        changed = None if reroute is None else reroute(self.path, self.body, model)
        return None if changed is None else msgspec.structs.replace(self, path=changed[0], body=changed[1])


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

    def __init__(
        self,
        budgets: Budgets,
        quotes: Quotes,
        estimator: Estimator,
        wait_seconds: float,
        notices: BudgetNotices,
    ) -> None:
        self.budgets = budgets
        self._quotes = quotes
        self._estimator = estimator
        self._wait_seconds = wait_seconds
        self._notices = notices
        self._waiting: dict[Account, deque[_Waiter]] = {}

    # -- before the call ----------------------------------------------------------------------------------------

    async def admit(self, call: Call, asking: Asking) -> Admitted | None:
        """Hold money for a call in all its budgets; `None` where there is none. Raises the refusal `budget_exceeded`.

        Sets `held_nano` and `budget_action` of the call, and its model where another one is asked for.
        """
        charges = self.budgets.charges(call)
        if not charges:
            return None
        estimate = self._estimate(call, asking)
        if estimate is None:  # its budgets count it among those that cost nobody knows what
            self.demand(call)
            return self._admitted(call, Admitted(self.budgets.hold(call, charges, 0, 0)))
        decision = self._decide(charges, estimate.quote)
        if not decision.is_untouched or self._soft_action(charges, estimate.quote) == "shadow_blocked":
            estimate = await self._estimate_well(call, asking, estimate)
            charges = self.budgets.charges(call)  # anew after each wait: balances and budgets may have changed
            decision = self._decide(charges, estimate.quote)
        if not decision.is_untouched and (other := self._rerouted(call, asking, charges)) is not None:
            asking, estimate = other, await self._estimate_well(call, other, self._estimate(call, other) or estimate)
            charges = self.budgets.charges(call)
            decision = self._decide(charges, estimate.quote)
        if decision.verdict == "wait":
            decision, hold = await self._wait(call, estimate.quote, decision)
        else:
            hold = self._hold(call, charges, estimate.quote, decision)
        if hold is None:
            raise self._refuse(call, decision.account)
        call.budget_action = call.budget_action or self._soft_action(hold.charges, estimate.quote)
        admitted = Admitted(hold, estimate, ending=asking.ending() if hold.may_stop else None)
        if call.budget_action == "rerouted":
            admitted.path, admitted.body = asking.path, asking.body
        if decision.tokens is not None:
            call.budget_action = "rerouted" if call.budget_action == "rerouted" else "clamped"
            call.max_output_tokens = max(1, decision.tokens // asking.ask.choices)
            admitted.body = asking.clamped(call.max_output_tokens)
        return self._admitted(call, admitted)

    def admit_now(self, call: Call, ask: Ask, region: str | None) -> Admitted | None:
        """The same for what cannot wait, be lowered or be ended: a response in a session. It holds what is usual."""
        charges = self.budgets.charges(call)
        if not charges:
            return None
        estimate = self._quotes.quote(call, ask, region, 0)
        if estimate is None:
            self.demand(call)
            return self._admitted(call, Admitted(self.budgets.hold(call, charges, 0, 0)))
        # Its most is far above what any response costs, and sessions are open for long.
        usual = estimate.quote.usual
        quote = estimate.quote._replace(fixed=usual, rate=0, tokens=0, tokens_min=0, clamps=False, stops=False)
        decision = self._decide(charges, quote, waited=True)
        if (hold := self._hold(call, charges, quote, decision)) is None:
            raise self._refuse(call, decision.account)
        call.budget_action = self._soft_action(charges, quote)
        return self._admitted(call, Admitted(hold, estimate))

    def demand(self, call: Call) -> None:
        """For what is billed later, and holds nothing: a batch. Raises the refusal `budget_exceeded` when a budget that
        covers it is spent."""
        now = now_us()
        for charge in hard(self.budgets.charges(call)):
            charge.account.expire(now)
            if charge.account.spent >= charge.account.limit(now):
                raise self._refuse(call, charge.account)

    def _refuse(self, call: Call, account: Account | None) -> Refusal:
        assert account is not None
        now = now_us()
        self._notices.refused(account, now)
        call.budget_action = "blocked"
        return _refusal(account, now)

    def _decide(self, charges: Sequence[Charge], quote: Quote, *, waited: bool = False) -> Decision:
        able = hard(charges)
        waiting = max((len(self._waiting.get(each.account, ())) for each in able), default=0) if self._waiting else 0
        return decide(able, quote, now_us(), waiting=waiting, waited=waited)

    def _hold(self, call: Call, charges: tuple[Charge, ...], quote: Quote, decision: Decision) -> Hold | None:
        """What a decision reserves; `None` where it lets the call not go on."""
        if decision.verdict != "admit":
            return None
        return self.budgets.hold(
            call, charges, decision.amount, decision.ceiling, may_stop=quote.stops and decision.near
        )

    def _estimate(self, call: Call, asking: Asking) -> Estimate | None:
        return self._quotes.quote(call, asking.ask, asking.region, len(asking.body))

    async def _estimate_well(self, call: Call, asking: Asking, known: Estimate) -> Estimate:
        """Now that it matters: with the input counted, and the request tried whether its maximum can be lowered."""
        estimate: Estimate | None = known
        if len(asking.body) >= COUNTED_BYTES_MIN:
            most = await self._estimator.most_tokens(call.provider or "", call.request_model, asking.body)
            estimate = self._quotes.quote(call, asking.ask, asking.region, len(asking.body), input_tokens=most)
        estimate = estimate or known
        clamps = estimate.quote.clamps and asking.clamped(1) is not None
        return estimate._replace(quote=estimate.quote._replace(clamps=clamps, stops=asking.ending() is not None))

    def _rerouted(self, call: Call, asking: Asking, charges: Sequence[Charge]) -> Asking | None:
        """The same request for the model that a budget names, where it can ask for it."""
        model = next((m for charge in hard(charges) if (m := charge.account.budget.reroute_to)), None)
        if model is None or model == call.request_model or not asking.may_use(model):
            return None
        changed, asked = asking.for_model(model), call.request_model
        if changed is None:
            return None
        call.request_model = model
        if self._estimate(call, changed) is None:  # what it costs, nobody knows
            call.request_model = asked
            return None
        call.budget_action = "rerouted"
        return changed

    def _soft_action(self, charges: Sequence[Charge], quote: Quote) -> BudgetAction:
        """What budgets that enforce nothing say to the call."""
        soft = [charge for charge in charges if not charge.account.budget.is_hard]
        if not soft:
            return "none"
        now = now_us()
        shadows = [each for each in soft if each.account.budget.on_exceed != "warn"]
        if shadows and decide(shadows, quote, now, waited=True).verdict == "refuse":
            return "shadow_blocked"
        for charge in soft:
            account = charge.account
            account.expire(now)
            if account.spent + account.held + charge.part(quote.usual) > account.limit(now):
                return "warned"
        return "none"

    def _admitted(self, call: Call, admitted: Admitted) -> Admitted:
        call.held_nano = admitted.hold.amount
        call.budget_action = call.budget_action or "none"
        return admitted

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
                self.settle(hold, 0)
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
            decision = decide(hard(charges), waiter.quote, now_us(), waiting=len(queue) - 1)
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

    def grow(self, hold: Hold, cost: int) -> bool:
        """Keep a hold ahead of the running cost of its stream. False when a budget has not so much left."""
        now = now_us()
        return self.budgets.grow(hold, int(cost * HEADROOM), now) or self.budgets.grow(hold, cost, now)

    def void(self, call: Call, admitted: Admitted | None) -> None:
        """Nothing was sent after all."""
        if admitted is not None:
            self.settle(admitted.hold, 0)
            call.held_nano = call.budget_action = None

    def settle(self, hold: Hold, cost: int | None) -> None:
        """Once per hold: see `Budgets.settle`."""
        self.budgets.settle(hold, cost)
        for charge in hold.charges:
            account = charge.account
            if cost and account.spent >= account.notice_from:
                self._notices.look(account, now_us())
            if self._waiting:
                self._wake(account)

    def post(self, call: Call) -> None:
        """What held nothing: a batch's results."""
        self.budgets.post(call, cost_of(call))

    def correct(self, before: Call, now: Call) -> None:
        """A call that was posted costs something else."""
        self.budgets.post(before, -(cost_of(before) or 0))
        self.budgets.post(now, cost_of(now) or 0)

    def learn(self, call: Call, estimate: Estimate, request_bytes: int, content_bytes: int) -> None:
        self._quotes.learn(call, estimate, request_bytes, content_bytes)

    def remaining(self, hold: Hold) -> int | None:
        """What is left of the tightest of the call's budgets, nano-USD."""
        found = tightest(hold.charges, now_us())
        return None if found is None else found[1]


# -- what a person is told ----------------------------------------------------------------------------------------


def _refusal(account: Account, now: int) -> Refusal:
    budget, limit = account.budget, account.limit(now)
    state = f"{money.short(account.spent)} of {money.short(limit)} spent"
    if account.held:
        state += f", {money.short(account.held)} held by {account.holds} running calls"
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
