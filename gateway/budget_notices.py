"""When a budget is worth a notice, and what it says: near its limit, used up, overrun. Pure."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from gateway.budgets import Account
from gateway.call import NANO
from gateway.periods import Period
from gateway.scopes import Scope


class BudgetNotices:
    """Watches what is posted to accounts. `notice`: see `Alerts.notice`."""

    def __init__(self, notice: Callable[..., None]) -> None:
        self._notice = notice

    def posted(self, account: Account, before: int, at_us: int) -> None:
        """An account had spent `before`, and has what it has now."""
        budget, spent, limit = account.budget, account.spent, account.limit(at_us)
        marks = [(fraction, int(fraction * limit)) for fraction in budget.warn_at]
        for fraction, mark in marks:
            if before < mark <= spent:
                self._say("budget_warn", account, at_us, f" {fraction:g}", f"has reached {fraction:.0%} of its limit")
        if before <= limit < spent and budget.is_hard:
            self._say("budget_overshoot", account, at_us, "", f"is overrun by {usd(spent - limit)}")
        if before < limit <= spent:
            self._say("budget_exceeded", account, at_us, "", "is used up")
        ahead = [mark for _, mark in (*marks, (1, limit)) if mark > spent]
        account.notice_from = min(ahead, default=0)

    def refused(self, account: Account, at_us: int) -> None:
        """A call was refused for an account's sake."""
        self._say("budget_exceeded", account, at_us, "", "is used up: calls are refused")

    def _say(self, kind: str, account: Account, at_us: int, detail: str, says: str) -> None:
        budget, limit = account.budget, account.limit(at_us)
        value, whose = account.value or None, account.value
        if budget.scope.kind == "user":  # a person's account is not named: the notice goes to others
            value, whose = None, hashlib.blake2b(whose.encode(), digest_size=6).hexdigest()
        self._notice(
            kind,
            f"{budget.identity} {whose} {limit}{detail}",
            f"The budget {budget.name} ({scope_of(account, named=value is not None)}, {per(budget.period)}) {says}: "
            f"{usd(account.spent)} of {usd(limit)} spent. `outlay budgets show {budget.name}` tells more, "
            f"`outlay budgets raise {budget.name}` gives it more for a time.",
            until_us=account.frees_at(at_us),
            budget=budget.name,
            scope=str(budget.scope),
            value=value,
            owner=budget.owner,
            mode=budget.mode,
            limit_usd=_exact(limit),
            spent_usd=_exact(account.spent),
        )


# -- how budgets are spoken of --------------------------------------------------------------------------------------


def scope_of(account: Account, *, named: bool = True) -> Scope:
    """`ticket:PAY-1` for that account of `each_ticket`."""
    scope = account.budget.scope
    return Scope(scope.kind, account.value) if named and account.value else scope


def per(period: Period) -> str:
    return {"total": "in all", "rolling_24h": "in 24 hours"}.get(period, f"per {period}")


def usd(nano: int) -> str:
    """For reading: in cents, or finer where cents show nothing."""
    amount = nano / NANO
    return f"${amount:,.2f}" if not 0 < abs(amount) < 0.1 else f"${amount:.4f}"


def local(at_us: int, zone: str) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M ") + zone


def _exact(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d}"
