"""When a budget is worth a notice, and what it says: near its limit, used up, overrun. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from gateway import money
from gateway.budgets import Account
from gateway.periods import ROLLING_US, Period
from gateway.scopes import Scope

FOR_GOOD_US = 366 * ROLLING_US


class BudgetNotices:
    """Watches what is posted to accounts. `notice`: see `Alerts.notice`. `pseudonym`: a name → one that nobody can
    undo."""

    def __init__(self, notice: Callable[..., None], pseudonym: Callable[[str], str]) -> None:
        self._notice = notice
        self._pseudonym = pseudonym

    def look(self, account: Account, at_us: int) -> None:
        """Say whatever is so now; what was said already is not said again (`Alerts.notice`)."""
        budget, spent, limit = account.budget, account.spent, account.limit(at_us)
        marks = [(fraction, int(fraction * limit)) for fraction in budget.warn_at]
        for fraction, mark in marks:
            if mark <= spent:
                self._say("budget_warn", account, at_us, f" {fraction:g}", f"has reached {fraction:.0%} of its limit")
        if limit < spent and budget.is_hard:
            self._say("budget_overshoot", account, at_us, "", f"is overrun by {money.short(spent - limit)}")
        if limit <= spent:
            self._say("budget_exceeded", account, at_us, "", "is used up")
        account.notice_from = min((mark for _, mark in (*marks, (1, limit), (1, limit + 1)) if mark > spent), default=0)

    def refused(self, account: Account, at_us: int) -> None:
        """A call was refused for an account's sake."""
        if account.spent >= account.limit(at_us):
            self._say("budget_exceeded", account, at_us, "", "is used up, and calls are refused")
        else:
            self._say("budget_exceeded", account, at_us, " room", "has no room for a call, which was refused")

    def _say(self, kind: str, account: Account, at_us: int, detail: str, says: str) -> None:
        budget, limit = account.budget, account.limit(at_us)
        scope, value, subject = str(scope_of(account)), account.value or None, f"{budget.identity} {account.value}"
        if budget.scope.kind == "user":  # a person is not named: the notice goes to others
            scope, value, subject = "a person", None, self._pseudonym(subject)
        self._notice(
            kind,
            f"{subject} {limit}{detail}",
            f"The budget {budget.name} ({scope}, {per(budget.period)}) {says}: "
            f"{money.short(account.spent)} of {money.short(limit)} spent. `outlay budgets show {budget.name}` tells "
            f"more, `outlay budgets raise {budget.name}` gives it more for a time.",
            until_us=account.period.end_us or at_us + (ROLLING_US if account.window is not None else FOR_GOOD_US),
            budget=budget.name,
            scope=scope,
            value=value,
            owner=budget.owner,
            mode=budget.mode,
            limit_usd=money.exact(limit),
            spent_usd=money.exact(account.spent),
        )


# -- how budgets are spoken of --------------------------------------------------------------------------------------


def scope_of(account: Account) -> Scope:
    """`ticket:PAY-1` for that account of `each_ticket`."""
    scope = account.budget.scope
    return Scope(scope.kind, account.value) if account.value else scope


def per(period: Period) -> str:
    return {"total": "in all", "rolling_24h": "in 24 hours"}.get(period, f"per {period}")


def local(at_us: int, zone: str) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M ") + zone
