"""The budgets' ledger: against a plain reference that keeps lists and adds them up anew for every question."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from gateway import scopes
from gateway.budgets import (
    BUCKET_US,
    NEAR,
    Account,
    Budget,
    Budgets,
    Charge,
    Hold,
    Quote,
    Raise,
    Sum,
    are_worth_a_notice,
    decide,
    hard,
    least_left,
)
from gateway.call import Call
from gateway.periods import FOREVER, ROLLING_US, span

HOUR_US = 3600 * 1_000_000
NOON = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z
SCOPES = ("org", "team:a", "team:b", "user:u", "ticket:PAY-1", "project:PAY", "each_ticket", "each_task", "model:m-*")


def call(at_us: int, number: int = 0, **fields: object) -> Call:
    return Call(call_id=f"c{number}", request_id="r", attempt=1, started_us=at_us, **fields)  # type: ignore[arg-type]


def quote(worst: int, usual: int | None = None, *, stops: bool = True, clamps: bool = True, fixed: int = 0) -> Quote:
    """Of a call whose output tokens cost 1 nano-USD each."""
    usual = worst if usual is None else usual
    return Quote(fixed, 1, worst - fixed, usual, usual, min(10, worst - fixed), clamps, stops)


# A call that costs at most `worst` and usually `usual`, and of which 10 is of use, with a limit of 1,000.
DECISIONS = """
on_exceed   spent  firm  ceilings  worst  usual  stream  waited  | verdict  amount  ceiling  tokens
block           0     0         0    100     30     yes      no  | admit        30      100       -
block           0     0         0    100     30      no      no  | admit       100      100       -
block         920     0         0    100     30     yes      no  | admit        30       80      80
block         920     0         0    100     30      no      no  | admit        80       80      80
block         991     0         0    100     30     yes      no  | refuse        -        -       -
block         990     0         0    100     30     yes      no  | admit        10       10      10
block         500    50       450    100     30     yes      no  | admit        30       30      30
block         500    50       480    100     30     yes      no  | wait          -        -       -
block         500    50       480    100     30     yes     yes  | admit        30      100       -
block         500   500       500    100     30     yes     yes  | refuse        -        -       -
block         500   470       470    100     30     yes      no  | admit        30       30      30
block         500   450       450    100     30      no      no  | admit        30       30      30
block         500   450       480    100     30      no      no  | wait          -        -       -
block         500   450       480    100     30      no     yes  | admit        20       20      20
block         500   450       495    100     30      no     yes  | refuse        -        -       -
block         975     0         5    100     30     yes      no  | admit        20       20      20
block         975     0        20    100     30     yes      no  | wait          -        -       -
stop_stream   920     0         0    100     30     yes      no  | admit        30      100       -
stop_stream   920     0         0    100     30      no      no  | refuse        -        -       -
stop_stream   500   480       800    100     30     yes      no  | admit        20      100       -
stop_stream   500   495       800    100     30     yes      no  | wait          -        -       -
stop_stream   500   495       800    100     30     yes     yes  | refuse        -        -       -
"""


@pytest.mark.parametrize("row", DECISIONS.strip().splitlines()[1:])
def test_decisions(row: str) -> None:
    given, _, expected = row.partition("|")
    on_exceed, spent, firm, ceilings, worst, usual, stream, waited = given.split()
    account = Account(Budget("b", scopes.parse("org"), 1000, on_exceed=on_exceed), "", FOREVER)
    account.spent, account.held, account.beyond_stops = int(spent), int(firm), int(ceilings) - int(firm)
    asks = quote(int(worst), int(usual), stops=stream == "yes")
    found = decide([Charge(account, (), 0)], asks, NOON, waited=waited == "yes")
    told = ("-",) * 3
    if found.verdict == "admit":
        told = (str(found.amount), str(found.ceiling), "-" if found.tokens is None else str(found.tokens))
    assert (found.verdict, *told) == tuple(expected.split())


@dataclass
class Posted:
    call: Call
    cost: int | None


@dataclass
class Pending:
    call: Call
    hold: Hold


def parts_of(budget: Budget, of: Call, amount: int) -> dict[str, int]:
    """What each account of a budget pays of an amount: its value → nano-USD."""
    found: dict[str, set[int] | None] = {}
    for part in scopes.of(of):
        if part.kind == budget.scope.kind and budget.scope.matches(part.value):
            value = part.value if budget.scope.value is None else ""
            found[value] = (found.get(value) or set()) | set(part.tickets) if part.tickets else None
    each, rest = divmod(amount, max(1, len(of.tickets)))
    return {
        value: amount if tickets is None else sum(each + (1 if t < rest else 0) for t in tickets)
        for value, tickets in found.items()
    }


class Ledger(RuleBasedStateMachine):
    """Any order of admitting, growing, settling, raising, of time passing, and of crashes."""

    optimistic = False
    """Calls that waited in vain go on upon what others reserve."""
    pending = Bundle("pending")

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.now = NOON
        self.posted: list[Posted] = []
        self.open: list[Pending] = []
        self.numbers = 0
        self.before: dict[int, tuple[int, int]] = {}
        chosen = data.draw(st.lists(st.sampled_from(SCOPES), min_size=1, max_size=5, unique=True))
        self.definitions = [
            Budget(
                f"b{number}",
                scopes.parse(scope),
                data.draw(st.integers(0, 2000)),
                data.draw(st.sampled_from(("day", "week", "month", "quarter", "total", "rolling_24h"))),
                data.draw(st.sampled_from(("UTC", "America/New_York", "Asia/Kolkata"))),
                data.draw(st.sampled_from(("block", "stop_stream", "warn", "reroute:m-small"))),
                mode=data.draw(st.sampled_from(("enforce", "enforce", "shadow"))),
            )
            for number, scope in enumerate(chosen)
        ]
        self.budgets = Budgets()
        self.budgets.replace(self.definitions)

    @rule(
        target=pending,
        team=st.sampled_from((None, "a", "b")),
        user=st.sampled_from((None, "u")),
        tickets=st.lists(st.sampled_from(("PAY-1", "PAY-2", "OPS-7")), max_size=3, unique=True),
        task=st.sampled_from((None, "t1", "t2")),
        worst=st.integers(0, 1500) | st.integers(0, 20),
        usual=st.integers(0, 1500),
        fixed=st.integers(0, 100),
        stops=st.booleans(),
        clamps=st.booleans(),
    )
    def admit(
        self,
        team: str | None,
        user: str | None,
        tickets: list[str],
        task: str | None,
        worst: int,
        usual: int,
        fixed: int,
        *,
        stops: bool,
        clamps: bool,
    ) -> object:
        self.numbers += 1
        worst = max(worst, fixed)
        asked = call(
            self.now,
            self.numbers,
            team_id=team,
            user_id=user,
            tickets=tuple(tickets),
            task_id=task,
            request_model="m-x",
        )
        asks = quote(worst, min(usual, worst), stops=stops, clamps=clamps, fixed=fixed)
        charges = self.budgets.charges(asked)
        decision = decide(hard(charges), asks, self.now, waited=self.optimistic)
        free = self.budgets.free(charges, NEAR * asks.worst(asks.tokens), self.now)
        assert decide(hard(charges), asks, self.now, free=free, waited=self.optimistic) == decision
        if decision.verdict != "admit":
            assert decision.account is not None
            if decision.verdict == "wait":
                assert any(charge.account.ceilings for charge in hard(charges)), "nothing to wait for"
                assert not self.optimistic
            return multiple()
        assert decision.amount <= decision.ceiling <= worst
        assert decision.tokens is None or clamps
        may_stop = stops and decision.near
        for charge in hard(charges):
            account = charge.account
            limit = account.limit(self.now)
            firm = decision.amount if may_stop else decision.ceiling
            assert account.spent + account.firm + charge.part(firm) <= limit
            if not self.optimistic and (not stops or (account.budget.clamps and clamps)):
                assert account.spent + account.ceilings + charge.part(decision.ceiling) <= limit
        hold = self.budgets.hold(asked, charges, decision.amount, decision.ceiling, may_stop=may_stop)
        pending = Pending(asked, hold)
        self.open.append(pending)
        return pending

    @rule(of=pending, share=st.floats(0, 1))
    def grow(self, of: Pending, share: float) -> None:
        if of not in self.open:
            return
        before = of.hold.amount
        amount = int(of.hold.ceiling * share)
        if self.budgets.grow(of.hold, amount, self.now):
            for charge in hard(of.hold.charges) if amount > before and of.hold.may_stop else ():
                assert charge.account.spent + charge.account.firm <= charge.account.limit(self.now)
        else:
            assert of.hold.may_stop
            assert of.hold.amount == before

    @rule(of=consumes(pending), share=st.floats(0, 1), unpriced=st.booleans())
    def settle(self, of: Pending, share: float, *, unpriced: bool) -> None:
        """A stream costs what its hold could follow, anything else up to its ceiling; 0 is a void."""
        if of not in self.open:
            return
        most = of.hold.amount if of.hold.may_stop else of.hold.ceiling
        cost = None if unpriced else int(most * share)
        self.open.remove(of)
        self.budgets.settle(of.hold, cost)
        self.posted.append(Posted(of.call, cost))

    @rule(hours=st.integers(1, 40))
    def time_passes(self, hours: int) -> None:
        self.now += hours * HOUR_US

    @rule(data=st.data(), amount=st.integers(1, 500), hours=st.integers(1, 48))
    def raise_limit(self, data: st.DataObject, amount: int, hours: int) -> None:
        index = data.draw(st.integers(0, len(self.definitions) - 1))
        old = self.definitions[index]
        value = data.draw(st.sampled_from((None, "PAY-1"))) if old.scope.value is None else None
        new = Raise(amount, self.now + hours * HOUR_US, "launch", "cli", self.now, value)
        fields = {name: getattr(old, name) for name in Budget.__struct_fields__}
        self.definitions[index] = Budget(**{**fields, "raises": (*old.raises, new)})
        assert self.budgets.replace(self.definitions) == []

    @rule()
    def crash(self) -> None:
        """What was open is closed with what it held, as its records say, and all is replayed from these."""
        for each in self.open:
            self.posted.append(Posted(each.call, each.hold.amount))
        self.open = []
        self.budgets = Budgets()
        self.budgets.replace(self.definitions)
        self.replay()

    @rule()
    def told(self) -> None:
        """The ledger's own sums change nothing, but for what is over."""
        sums = [
            Sum(account.budget.identity, account.value, account.period.start_us, tuple(self._posted(account)))
            for account in self.budgets.accounts()
        ]
        self.budgets.asking(self.now)
        for _ in self.budgets.told(sums, self.now):
            pass

    @rule()
    def forget(self) -> None:
        """Accounts that know nothing come back as they were."""
        self.budgets.forget(self.now)

    def replay(self) -> None:
        for each in self.posted:
            self.budgets.post(each.call, each.cost)

    def _posted(self, account: Account) -> list[tuple[int, int]]:
        """(start, amount) of all that an account has paid in its period."""
        return [
            (each.call.started_us, part)
            for each in self.posted
            if each.cost is not None
            and each.call.started_us >= account.period.start_us
            and (part := parts_of(account.budget, each.call, each.cost).get(account.value)) is not None
        ]

    @invariant()
    def balances_are_what_lists_add_up_to(self) -> None:
        for account in self.budgets.accounts():
            account.expire(self.now)
            assert are_worth_a_notice([account]) == (account.spent >= account.notice_from)
            counts_from = account.period.start_us
            if account.window is not None:
                counts_from = self.now - ROLLING_US - BUCKET_US
            posted = (
                (at - at % BUCKET_US if account.window is not None else at, sum_) for at, sum_ in self._posted(account)
            )
            inside = [sum_ for at, sum_ in posted if at > counts_from or account.window is None]
            assert account.spent == sum(inside)
            assert account.held == sum(
                parts_of(account.budget, each.call, each.hold.amount)[account.value]
                for each in self.open
                if any(charge.account is account for charge in each.hold.charges)
            )

    @invariant()
    def the_tightest_is_known(self) -> None:
        accounts = list(self.budgets.accounts())
        left = [each.limit(self.now) - each.spent - each.held for each in accounts]
        assert least_left(accounts, self.now) == (max(0, min(left)) if left else None)

    @invariant()
    def nothing_is_held_at_rest(self) -> None:
        if not self.open:
            assert all(not (a.held or a.firm or a.ceilings or self.budgets.running(a)) for a in self.budgets.accounts())


class Optimistic(Ledger):
    optimistic = True


SETTINGS = settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestLedger = pytest.mark.timeout(300)(Ledger.TestCase)
TestLedger.settings = SETTINGS
TestOptimistic = pytest.mark.timeout(300)(Optimistic.TestCase)
TestOptimistic.settings = SETTINGS


def test_what_is_posted_while_the_ledger_is_asked_counts_once() -> None:
    """With and without a price, by this gateway and by another one, which had booked before."""
    budgets = Budgets()
    budgets.replace([Budget("b", scopes.parse("org"), 1000)])
    budgets.post(call(NOON), 100)
    budgets.asking(NOON + 50)
    budgets.post(call(NOON), 7)
    budgets.post(call(NOON), None)
    budgets.post(call(NOON), 30, booked_us=NOON + 40)  # is in the answer
    budgets.post(call(NOON), 5, booked_us=NOON + 60)
    (account,) = budgets.accounts()
    assert (account.spent, account.unpriced) == (142, 1)
    told = Sum(account.budget.identity, "", account.period.start_us, ((account.period.start_us, 130),), 2)
    for _ in budgets.told([told], NOON + 70):
        pass
    assert (account.spent, account.unpriced) == (142, 3)


def test_a_hold_is_settled_once() -> None:
    budgets = Budgets()
    budgets.replace([Budget("b", scopes.parse("org"), 1000)])
    asked = call(NOON)
    hold = budgets.hold(asked, budgets.charges(asked), 10, 20)
    budgets.settle(hold, 5)
    with pytest.raises(KeyError):
        budgets.settle(hold, 5)
    assert [(each.spent, each.held) for each in budgets.accounts()] == [(5, 0)]


def test_others_draw_on_what_was_free() -> None:
    """What is remembered of a kind of calls becomes less by what calls of another kind hold and cost."""
    budgets = Budgets()
    budgets.replace([Budget("b", scopes.parse("org"), 1000)])
    mine, other = call(NOON, team_id="a"), call(NOON, team_id="b")
    budgets.hold(other, budgets.charges(other), 1, 1)
    assert budgets.free(budgets.charges(mine), 900, NOON) == 999
    budgets.hold(other, budgets.charges(other), 100, 300)
    assert budgets.free(budgets.charges(mine), 600, NOON) == 699
    budgets.post(other, 200)
    assert budgets.free(budgets.charges(mine), 500, NOON) == 499
    budgets.post(other, -200)
    assert budgets.free(budgets.charges(mine), 499, NOON) == 499, "it may be more"
    assert budgets.free(budgets.charges(mine), 500, NOON) == 699
    budgets.restore(
        next(iter(budgets)), "", NOON, Sum("b|org|month|UTC", "", span("month", "UTC", NOON).start_us, ((NOON, 50),))
    )
    assert budgets.free(budgets.charges(mine), 0, NOON) == 649
    list(budgets.told([], NOON))
    budgets.replace([Budget("b", scopes.parse("org"), 500)])
    assert budgets.free(budgets.charges(mine), 0, NOON) == 500 - 301 - 50
