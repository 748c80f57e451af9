"""When a budget is worth a notice."""

from typing import Any

import pytest

from gateway import scopes
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Account, Budget
from gateway.periods import FOREVER, span

NANO = 10**9
NOON = 1_790_000_000_000_000


class Said:
    """Posts to one account, and keeps what was said of it."""

    def __init__(self, scope: str = "team:pay", value: str = "", **more: Any) -> None:
        budget = Budget("b", scopes.parse(scope), 100 * NANO, warn_at=(0.5, 0.8), **more)
        self.account = Account(budget, value, span("month", "UTC", NOON))
        self.notices: list[tuple[str, str, str, dict[str, Any]]] = []
        self.watch = BudgetNotices(self._keep, lambda name: str(len(name)))

    def _keep(self, kind: str, subject: str, message: str, **more: Any) -> None:
        if (kind, subject) not in {each[:2] for each in self.notices}:  # as `Alerts` does
            self.notices.append((kind, subject, message, more))

    def post(self, usd: float) -> list[str]:
        """The kinds of notice that a post of so many dollars brings."""
        had = len(self.notices)
        self.account.post(int(usd * NANO), NOON)
        if self.account.spent >= self.account.notice_from:
            self.watch.look(self.account, NOON)
        return [kind for kind, *_ in self.notices[had:]]


def test_each_mark_is_said_once_when_it_is_passed() -> None:
    said = Said()
    steps = [said.post(usd) for usd in (49, 1, 20, 15, 14, 1, 5)]
    assert steps == [[], ["budget_warn"], [], ["budget_warn"], [], ["budget_exceeded"], ["budget_overshoot"]]
    assert len({subject for _, subject, *_ in said.notices}) == 3  # two marks, and the limit


def test_one_call_may_pass_all_marks() -> None:
    assert Said().post(120) == ["budget_warn", "budget_warn", "budget_overshoot", "budget_exceeded"]


def test_what_only_warns_is_never_overrun() -> None:
    assert Said(on_exceed="warn").post(120) == ["budget_warn", "budget_warn", "budget_exceeded"]


def test_a_notice_says_what_to_do_until_the_period_ends() -> None:
    said = Said("each_ticket", "PAY-1", owner="fin@example.com")
    said.post(55)
    kind, _, message, fields = said.notices[0]
    assert kind == "budget_warn"
    for part in (
        "budget b",
        "ticket:PAY-1",
        "has reached 50% of its limit",
        "$55.00 of $100.00",
        "outlay budgets raise b",
    ):
        assert part in message
    assert fields["until_us"] == said.account.period.end_us
    assert (fields["value"], fields["owner"]) == ("PAY-1", "fin@example.com")
    assert (fields["limit_usd"], fields["spent_usd"]) == ("100.000000000", "55.000000000")


@pytest.mark.parametrize(("scope", "value"), [("each_user", "ada@example.com"), ("user:ada@example.com", "")])
def test_a_person_is_not_named(scope: str, value: str) -> None:
    said = Said(scope, value)
    said.post(120)
    assert "ada" not in repr(said.notices)


def test_a_refusal_is_said() -> None:
    account = Account(Budget("b", scopes.parse("org"), 0), "", FOREVER)
    said = Said()
    said.watch.refused(account, NOON)
    account = Account(Budget("b", scopes.parse("org"), NANO), "", FOREVER)
    said.watch.refused(account, NOON)
    account.spent = NANO
    said.watch.refused(account, NOON)
    says = ("is used up, and calls are refused", "has no room for a call", "is used up, and calls are refused")
    for (kind, _, message, _), part in zip(said.notices, says, strict=True):
        assert kind == "budget_exceeded"
        assert part in message


def test_what_became_so_without_a_post_is_said_at_the_next_look() -> None:
    said = Said()
    assert said.post(60) == ["budget_warn"]
    said.account.budget = Budget("b", scopes.parse("team:pay"), 50 * NANO, warn_at=(0.5, 0.8))
    said.watch.look(said.account, NOON)
    assert [kind for kind, *_ in said.notices[1:]] == [
        "budget_warn", "budget_warn", "budget_overshoot", "budget_exceeded",
    ]  # fmt: skip
