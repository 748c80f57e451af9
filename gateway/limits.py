"""Limits: requests, tokens and cost per minute, and calls in flight, per scope. Pure: the time is an argument.

A call is admitted against every limit that covers it, or against none. It counts as a request, and has a place in
flight, from then on; what it used is known only afterwards, and is taken from the minutes that follow.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from gateway.budgets import cost_of
from gateway.call import NANO, Call
from gateway.errors import Refusal, RefusalCode, UserError
from gateway.scopes import Kind, Scope, of, parse, share

MINUTE_US = 60_000_000
RETRY_SECONDS_MAX = 10
IN_FLIGHT_RETRY_SECONDS = 5
"""Nobody knows when a call will end; those of agents take some seconds to some minutes."""
ENDED = frozenset({"completed", "stopped_by_budget"})
"""Results after which the client may ask again at once. After others it waits, or another attempt follows."""


def _help(text: str) -> Meta:
    return Meta(description=text)


Positive = Annotated[int, Meta(ge=1)]


class LimitTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit as people write it."""

    scope: Annotated[
        str,
        _help(
            "Whose calls: as of a budget; each_key, each_team, each_user, each_ticket, each_task give every one a "
            "limit of its own."
        ),
    ]
    requests_per_minute: Annotated[Positive | None, _help("Calls that may begin.")] = None
    tokens_per_minute: Annotated[
        Positive | None, _help("Input, cached or not, and output; known, and counted, when a call has ended.")
    ] = None
    usd_per_minute: Annotated[
        Decimal | None, _help("US dollars, up to nine decimals; known, and counted, when a call has ended.")
    ] = None
    in_flight: Annotated[Positive | None, _help("Calls at the same time.")] = None


What = Literal["requests", "tokens", "usd", "in_flight"]


class Rate(NamedTuple):
    what: What
    per_minute: int
    """Requests, tokens, or nano-USD."""

    def wait_us(self, mark: int, now_us: int) -> int:
        """How long until one unit is there, of a rate of which none is."""
        return -(((now_us + MINUTE_US) * self.per_minute - MINUTE_US - mark) // self.per_minute)


class Limit(NamedTuple):
    """What the calls of a scope may use. A template has an account for each value, any other scope one account."""

    name: str
    scope: Scope
    rates: tuple[Rate, ...]
    requests_per_minute: int
    """0 = any number; else it is the first of the rates."""
    in_flight: int | None


class LimitedError(Refusal):
    """A limit is reached."""

    def __init__(self, code: RefusalCode, message: str, retry_after: int, kind: Kind, what: What) -> None:
        super().__init__(code, message, retry_after=retry_after)
        self.kind = kind
        self.what = what


class Account:
    """What one limit counts for one value of its scope.

    Each rate is a token bucket that a minute fills and that holds one minute's worth, kept as GCRA keeps it: as the one
    moment at which it will be full again (`marks`, microseconds × the rate, so that all of it is exact in whole
    numbers). An account that is full and idle is like none, and can be dropped. A bucket lets short bursts through and
    needs no history; over any span it passes the rate and one minute's worth at most. For admission one unit must be
    there; what tokens and cost take afterwards may go below nothing, and then delays the next call until that is paid.
    """

    __slots__ = ("in_flight", "limit", "marks", "value")

    def __init__(self, limit: Limit, value: str) -> None:
        self.limit = limit
        self.value = value
        self.marks = [0] * len(limit.rates)
        self.in_flight = 0

    def begin(self, now_us: int) -> None:
        self.in_flight += 1
        if self.limit.requests_per_minute:
            self.marks[0] = max(self.marks[0], now_us * self.limit.requests_per_minute) + MINUTE_US

    def never_began(self) -> None:
        """Give the request of `begin` back, at the same moment."""
        if self.limit.requests_per_minute:
            self.marks[0] -= MINUTE_US

    def used(self, tokens: int, nano: int, now_us: int) -> None:
        for index, (what, per_minute) in enumerate(self.limit.rates):
            amount = tokens if what == "tokens" else nano if what == "usd" else 0
            if amount:
                self.marks[index] = max(self.marks[index], now_us * per_minute) + amount * MINUTE_US

    def is_idle(self, now_us: int) -> bool:
        return not self.in_flight and all(
            mark <= now_us * rate.per_minute for mark, rate in zip(self.marks, self.limit.rates, strict=True)
        )


class Limits:
    """All limits in force, and their accounts."""

    def __init__(self, tables: Mapping[str, LimitTable]) -> None:
        self._of_kind: dict[Kind, tuple[dict[str, list[Limit]], list[Limit]]] = {}
        """Those of one value, and the templates and globs."""
        for limit in map(limit_of, tables, tables.values()):
            kind, value = limit.scope
            exact, wide = self._of_kind.setdefault(kind, ({}, []))
            (wide if value is None or limit.scope.is_glob else exact.setdefault(value, [])).append(limit)
        self._accounts: OrderedDict[tuple[str, str], Account] = OrderedDict()
        self._new = 0
        """Accounts made since idle ones were last looked for."""
        self._held: dict[str, tuple[Account, ...]] = {}
        """Places in flight, by request."""

    def admit(self, call: Call, now_us: int) -> None:
        """Count a request and give it a place in flight, until `release`. Further attempts of it keep both.

        Raises the refusals `rate_limited` and `too_many_in_flight`, and has then counted nothing.
        """
        if not self._of_kind or call.request_id in self._held:
            return
        self._drop_idle(now_us)
        accounts = tuple(self._accounts_of(call))
        self._check(accounts, now_us)
        for account in accounts:
            account.begin(now_us)
        self._held[call.request_id] = accounts

    def take_back(self, call: Call) -> None:
        """A later stage refused, in the same moment: the call has not been. Harmless for one that was not admitted."""
        for account in self.release(call):
            account.never_began()

    def release(self, call: Call) -> tuple[Account, ...]:
        """Free the place in flight. The first time counts."""
        accounts = self._held.pop(call.request_id, ())
        for account in accounts:
            account.in_flight -= 1
        return accounts

    def finished(self, call: Call, now_us: int) -> None:
        """Take what a recorded call has used. One that ended well frees its place now, before its client has the last
        byte: what that asks next is not in the way of itself."""
        if not self._of_kind:
            return
        if call.result in ENDED:
            self.release(call)
        if call.operation == "batch" or call.result == "refused":
            return  # results of a batch come when they are asked for, and say nothing about this minute
        tokens = (call.input_tokens or 0) + (call.output_tokens or 0)
        nano, of_tickets = cost_of(call) or 0, len(call.tickets)
        for account, tickets in self._accounts_of(call).items():
            account.used(share(tokens, tickets, of_tickets), share(nano, tickets, of_tickets), now_us)

    def __bool__(self) -> bool:
        return bool(self._of_kind)

    @property
    def in_flight(self) -> int:
        return len(self._held)

    def accounts(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def _check(self, accounts: tuple[Account, ...], now_us: int) -> None:
        full_us = now_us + MINUTE_US
        waits = [
            (rate.wait_us(mark, now_us), account, rate)
            for account in accounts
            for rate, mark in zip(account.limit.rates, account.marks, strict=True)
            if mark > full_us * rate.per_minute - MINUTE_US  # not one unit is there
        ]
        if waits:
            raise _rate_limited(*max(waits, key=lambda each: each[0]))
        for account in accounts:
            if account.limit.in_flight is not None and account.in_flight >= account.limit.in_flight:
                raise _too_many(account)

    def _accounts_of(self, call: Call) -> dict[Account, tuple[int, ...]]:
        """The accounts that a call counts in, and which of its tickets (empty = the whole call) they are for."""
        found: dict[Account, tuple[int, ...]] = {}
        for kind, value, tickets in of(call):
            if kind in self._of_kind:
                exact, wide = self._of_kind[kind]
                for limit in exact.get(value, ()):
                    self._add(found, limit, "", tickets)
                for limit in wide:
                    if limit.scope.matches(value):
                        self._add(found, limit, value if limit.scope.value is None else "", tickets)
        return found

    def _add(self, found: dict[Account, tuple[int, ...]], limit: Limit, value: str, tickets: tuple[int, ...]) -> None:
        key = limit.name, value
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(limit, value)
            self._new += 1
        # A glob may be over several of the call's tickets.
        found[account] = found[account] + tickets if account in found else tickets

    def _drop_idle(self, now_us: int) -> None:
        """Look at two accounts for each new one, the longest unseen first, so that no call pays for all of them."""
        for _ in range(min(2 * self._new, len(self._accounts))):
            key, account = next(iter(self._accounts.items()))
            if account.is_idle(now_us):
                del self._accounts[key]
            else:
                self._accounts.move_to_end(key)
        self._new = 0


def limit_of(name: str, table: LimitTable) -> Limit:
    """Raises `UserError`."""
    nano = None if table.usd_per_minute is None else table.usd_per_minute * NANO
    if nano is not None and (nano <= 0 or nano % 1):
        raise UserError("usd_per_minute must be more than 0, with nine decimals at most")
    given: tuple[tuple[What, int | Decimal | None], ...] = (
        ("requests", table.requests_per_minute), ("tokens", table.tokens_per_minute), ("usd", nano),
    )  # fmt: skip
    rates = tuple(Rate(what, int(per_minute)) for what, per_minute in given if per_minute is not None)
    if not rates and table.in_flight is None:
        raise UserError(
            "limits nothing: write requests_per_minute, tokens_per_minute, usd_per_minute or in_flight, or delete it"
        )
    return Limit(name, parse(table.scope), rates, table.requests_per_minute or 0, table.in_flight)


def _rate_limited(wait_us: int, account: Account, rate: Rate) -> LimitedError:
    amount = f"{rate.per_minute:,} {rate.what}"
    if rate.what == "usd":
        amount = f"${rate.per_minute // NANO:,}.{rate.per_minute % NANO:09d}".rstrip("0").rstrip(".")
    seconds = -(-wait_us // 1_000_000)
    why = "" if rate.what == "requests" else ", counting what earlier calls turned out to use"
    return LimitedError(
        "rate_limited",
        f"Outlay: {_whose(account)} allows {amount} a minute, and that is used up{why}. The next call can be made in "
        f"{seconds:,} s. Ask less at a time, or ask whoever runs this gateway to raise {rate.what}_per_minute in "
        f"[limits.{account.limit.name}].",
        min(seconds, RETRY_SECONDS_MAX),
        account.limit.scope.kind,
        rate.what,
    )


def _too_many(account: Account) -> LimitedError:
    return LimitedError(
        "too_many_in_flight",
        f"Outlay: {_whose(account)} allows {account.limit.in_flight:,} calls at a time, and so many are running. Try "
        "again when one has ended, run fewer agents side by side, or ask whoever runs this gateway to raise in_flight "
        f"in [limits.{account.limit.name}].",
        IN_FLIGHT_RETRY_SECONDS,
        account.limit.scope.kind,
        "in_flight",
    )


def _whose(account: Account) -> str:
    scope = account.limit.scope
    covered = scope if scope.value is not None else Scope(scope.kind, account.value)
    return f"the limit {account.limit.name} of {covered}"
