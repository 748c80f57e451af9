"""Budgets in the admin API: what they are, what is left of them, and changing those that no settings file has.

A key with a role that is bound to anything sees and changes the budgets of its own team alone (scope `team:x`).
Nothing is by person: accounts of `each_user` and `each_key` are not shown. Viewers see no budget of a person, and not
for whom and why those of each were raised.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from gateway.budget_file import (
    NAME,
    UNTIL_MAX,
    BudgetEvent,
    BudgetFile,
    BudgetTable,
    NoSuchBudgetError,
    UnreadableError,
    WrittenError,
    table_of,
)
from gateway.budgets import Account, Budget, Budgets
from gateway.call import NANO, Call, Principal
from gateway.endpoints import ApiError, Asked, Endpoint
from gateway.errors import Refusal, UserError
from gateway.ledger import now_us
from gateway.scopes import EACH, KINDS, Scope

ACCOUNTS_MAX = 100
STEP = 100
"""Budgets told at a time."""
T = TypeVar("T")
SCOPE = f"^(org|{'|'.join(EACH)}|({'|'.join(KINDS[1:])}):[!-~]{{1,200}})$"
ON_EXCEED = "^(block|stop_stream|warn|reroute:[!-~]{1,200})$"
_INPUT = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"}]}
Usd = Annotated[Decimal, Meta(description="US dollars, exact, up to nine decimals.", extra_json_schema=_INPUT)]


class NewBudget(BudgetTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A budget, as `[budgets.NAME]` has it."""

    scope: Annotated[str, Meta(description="Whose spend: see docs/budgets.md.", extra_json_schema={"pattern": SCOPE})]
    limit_usd: Usd
    on_exceed: Annotated[
        str, Meta(description="What happens near the limit.", extra_json_schema={"pattern": ON_EXCEED})
    ] = "block"


class NewRaise(msgspec.Struct, forbid_unknown_fields=True):
    """A temporary increase of a limit."""

    amount_usd: Usd
    until: Annotated[datetime, Meta(tz=True, description="When it ends: ISO 8601, with a zone.")]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    value: Annotated[str, Meta(max_length=512, description="Of a template: for whom.")] | None = None


class Balance(msgspec.Struct):
    """An account of a budget, in the present period."""

    limit_usd: Annotated[Decimal, Meta(description="With the raises that are in force.")]
    spent_usd: Decimal
    held_usd: Annotated[Decimal, Meta(description="Reserved by calls that run.")]
    left_usd: Annotated[Decimal, Meta(description="Below 0 after an overshoot.")]
    unpriced_calls: int
    resets_at: datetime | None


class ValueBalance(Balance):
    """An account of a template."""

    value: str


class RaiseInfo(msgspec.Struct):
    amount_usd: Decimal
    until: datetime
    reason: Annotated[str | None, Meta(description="`null` for viewers where the budget is of each user or key.")]
    by: str
    value: Annotated[str | None, Meta(description="The same.")]


class BudgetChange(msgspec.Struct):
    at: datetime
    event: Literal["set", "remove", "raise"]
    by: str
    limit_usd: Decimal | None
    amount_usd: Decimal | None
    reason: str | None


class BudgetInfo(msgspec.Struct, kw_only=True):
    name: str
    scope: str
    limit_usd: Decimal
    period: str
    timezone: str
    on_exceed: str
    warn_at: tuple[float, ...]
    mode: str
    owner: str | None
    in_settings: Annotated[bool, Meta(description="Stands in a settings file, which alone can change it.")]
    raises: list[RaiseInfo]
    balance: Annotated[Balance | None, Meta(description="`null` for templates, and until a new budget is in force.")]


class BudgetDetail(BudgetInfo, kw_only=True):
    accounts: Annotated[list[ValueBalance], Meta(description=f"Of a template: the {ACCOUNTS_MAX} with the least left.")]
    changes: list[BudgetChange]


class BudgetList(msgspec.Struct):
    budgets: list[BudgetInfo]


class OwnBudget(Balance):
    """A budget that calls of a key are charged to, as the key's holder sees it."""

    name: str
    owner: str | None


class BudgetsApi:
    """Budgets, for all roles; changes for finops and admins."""

    def __init__(self, file: BudgetFile, budgets: Budgets, clock: Callable[[], int] = now_us) -> None:
        """`file`: not shared with others, for it is read in threads here."""
        self._file = file
        self._budgets = budgets
        self._clock = clock
        self._lock = asyncio.Lock()

    def endpoints(self) -> list[Endpoint]:
        one, missing = "/-/api/v1/budgets/{name}", {404: "No such budget, or none that this key may see."}
        named = {"name": NAME.pattern}
        unread = {503: "A budgets file cannot be read, or not be written."}
        refuses = {
            409: "It stands in a settings file, or its name is taken.",
            422: "It is no budget; the message says why.",
            **unread,
        }
        return [
            Endpoint(
                method="GET", path="/-/api/v1/budgets", access="viewer", summary="All budgets and their balances.",
                serve=self.list_budgets, answer=BudgetList, refuses=unread,
            ),
            Endpoint(
                method="GET", path=one, access="viewer", summary="A budget, and what was done to it.",
                serve=self.get_budget, answer=BudgetDetail, refuses={**missing, **unread}, shapes=named,
            ),
            Endpoint(
                method="PUT", path=one, access="finops", summary="Make a budget, or change one.",
                serve=self.set_budget, body=NewBudget, answer=BudgetInfo, refuses=refuses, shapes=named,
            ),
            Endpoint(
                method="DELETE", path=one, access="finops", summary="Remove a budget.", serve=self.remove_budget,
                answer=BudgetInfo, refuses={**missing, 409: "It stands in a settings file.", **unread}, shapes=named,
            ),
            Endpoint(
                method="POST", path=one + "/raise", access="finops", summary="Increase a limit until a moment.",
                serve=self.raise_budget, body=NewRaise, answer=BudgetInfo,
                refuses={**missing, 422: "It is no raise; the message says why.", **unread}, shapes=named,
            ),
        ]  # fmt: skip

    async def list_budgets(self, asked: Asked) -> BudgetList:
        written = await self._in_turn(lambda: [(each, self._file.is_written(each.name)) for each in self._file.all()])
        found: list[BudgetInfo] = []
        for number, (budget, in_settings) in enumerate(written):
            if _may_see(asked.principal, budget.scope):
                found.append(self._told(budget, asked.principal, in_settings=in_settings))
            if number % STEP == 0:
                await asyncio.sleep(0)  # streams go on
        return BudgetList(found)

    async def get_budget(self, asked: Asked) -> BudgetDetail:
        def read() -> tuple[Budget | None, list[BudgetEvent]]:
            name = asked.path["name"]
            return self._file.get(name), [event for event in self._file.events() if event.name == name]

        budget, events = await self._in_turn(read)
        if budget is None or not _may_see(asked.principal, budget.scope):
            raise _not_found()
        is_told = _may_see_raises(asked.principal, budget.scope)
        return BudgetDetail(
            **msgspec.structs.asdict(await self._info(budget, asked.principal)),
            accounts=self._accounts(budget),
            changes=[_change(event, is_told=is_told) for event in events],
        )

    async def set_budget(self, asked: Asked) -> BudgetInfo:
        name, wanted, by = asked.path["name"], asked.body, _by(asked)
        table = BudgetTable(**msgspec.structs.asdict(wanted))

        def check(before: Budget | None, after: Budget) -> None:
            if not _may_change(asked.principal, after.scope):
                raise Refusal("forbidden", "Outlay: a key that is bound to a team sets budgets of this team alone.")
            if before is not None and not _may_change(asked.principal, before.scope):
                raise ApiError(409, "conflict", "Outlay: this name is taken; use another one.")

        return await self._info(await self._in_turn(lambda: self._file.set(name, table, by, check)), asked.principal)

    async def remove_budget(self, asked: Asked) -> BudgetInfo:
        name, by, check = asked.path["name"], _by(asked), _seen_by(asked.principal)
        return await self._info(await self._in_turn(lambda: self._file.remove(name, by, check)), asked.principal)

    async def raise_budget(self, asked: Asked) -> BudgetInfo:
        name, wanted, by, check = asked.path["name"], asked.body, _by(asked), _seen_by(asked.principal)
        until = int(wanted.until.timestamp())

        def change() -> Budget:
            return self._file.raise_(name, wanted.amount_usd, until, wanted.reason, by, wanted.value, check)

        return await self._info(await self._in_turn(change), asked.principal)

    def own(self, principal: Principal) -> list[OwnBudget]:
        """The budgets that cover every call of a key. Of templates and tickets only a call can tell."""
        now, tickets = self._clock(), (principal.ticket,) if principal.ticket else ()
        call = Call(
            call_id="", request_id="", attempt=1, started_us=now, key_id=principal.key_id, user_id=principal.user_id,
            team_id=principal.team_id, purpose=principal.purpose, tickets=tickets,
        )  # fmt: skip
        accounts = (charge.account for charge in self._budgets.charges(call))
        return [_balance(OwnBudget, each, now, name=each.budget.name, owner=each.budget.owner) for each in accounts]

    # -- the parts ----------------------------------------------------------------------------------------------------

    async def _in_turn(self, use: Callable[[], T]) -> T:
        """In a thread, for it waits for the disk."""
        async with self._lock:
            try:
                return await asyncio.to_thread(use)
            except UnreadableError:
                raise ApiError(
                    503, "budgets_unreadable", "Outlay: the files of budgets cannot be read; see the log."
                ) from None
            except NoSuchBudgetError:
                raise _not_found() from None
            except WrittenError:
                raise ApiError(
                    409, "conflict", "Outlay: this budget stands in a settings file: change it there."
                ) from None
            except UserError as error:
                raise ApiError(422, "not_possible", f"Outlay: {error}.") from None
            except OSError:
                raise ApiError(
                    503, "cannot_write", "Outlay: the data folder cannot be used; nothing was changed."
                ) from None

    async def _info(self, budget: Budget, to: Principal) -> BudgetInfo:
        in_settings = await self._in_turn(lambda: self._file.is_written(budget.name))
        return self._told(budget, to, in_settings=in_settings)

    def _told(self, budget: Budget, to: Principal, *, in_settings: bool) -> BudgetInfo:
        now, is_told = self._clock(), _may_see_raises(to, budget.scope)
        in_force = self._budgets.get(budget.name)
        balance = None
        if in_force is not None and in_force.identity == budget.identity and budget.scope.value is not None:
            balance = _balance(Balance, self._budgets.account(in_force, "", now), now)
        return BudgetInfo(
            **msgspec.structs.asdict(table_of(budget)),
            name=budget.name,
            in_settings=in_settings,
            raises=[
                RaiseInfo(
                    _usd(each.amount_nano),
                    _moment(each.until_us),
                    each.reason if is_told else None,
                    each.by,
                    each.value if is_told else None,
                )
                for each in budget.raises
                if now < each.until_us
            ],
            balance=balance,
        )

    def _accounts(self, budget: Budget) -> list[ValueBalance]:
        if budget.scope.value is not None or _is_of_people(budget.scope):
            return []
        now = self._clock()
        accounts = (
            each
            for each in self._budgets.accounts(budget.name)
            if each.budget.identity == budget.identity and each.period.has(now)  # the name may just have changed scope
        )
        found = [_balance(ValueBalance, each, now, value=each.value) for each in accounts]
        return sorted(found, key=lambda each: each.left_usd)[:ACCOUNTS_MAX]


def _not_found() -> ApiError:
    return ApiError(404, "not_found", "Outlay: there is no such budget.")


def _seen_by(principal: Principal) -> Callable[[Budget], None]:
    """Raises `ApiError` for a budget that one may not see."""

    def check(budget: Budget) -> None:
        if not _may_see(principal, budget.scope):
            raise _not_found()

    return check


def _is_of_people(scope: Scope) -> bool:
    """True for a template of persons, or of keys, each of which a person may hold."""
    return scope.value is None and scope.kind in ("user", "key")


def _is_bound(principal: Principal) -> bool:
    bounds = (
        principal.team_id, principal.user_id, principal.ticket, principal.purpose, principal.models,
        principal.upstreams, principal.ticket_policy,
    )  # fmt: skip
    return any(bounds)


def _may_change(principal: Principal, scope: Scope) -> bool:
    """A scope that is a glob, or a template, is more than one team."""
    if not _is_bound(principal):
        return True
    return principal.team_id is not None and not scope.is_glob and scope == Scope("team", principal.team_id)


def _may_see(principal: Principal, scope: Scope) -> bool:
    is_person = scope.kind == "user" and scope.value is not None
    return _may_change(principal, scope) and not (is_person and principal.role == "viewer")


def _may_see_raises(principal: Principal, scope: Scope) -> bool:
    """For whom, and why: of people that is not for viewers."""
    return principal.role != "viewer" or not _is_of_people(scope)


def _by(asked: Asked) -> str:
    assert asked.principal.key_id is not None
    return asked.principal.key_id


def _balance(kind: Callable[..., T], account: Account, now: int, **more: object) -> T:
    account.expire(now)
    limit = account.limit(now)
    frees_at = account.frees_at(now)
    return kind(
        limit_usd=_usd(limit),
        spent_usd=_usd(account.spent),
        held_usd=_usd(account.held),
        left_usd=_usd(limit - account.spent - account.held),
        unpriced_calls=account.unpriced,
        resets_at=None if frees_at is None else _moment(frees_at),
        **more,
    )


def _change(event: BudgetEvent, *, is_told: bool) -> BudgetChange:
    limit, reason = None if event.budget is None else event.budget.limit_usd, event.reason if is_told else None
    return BudgetChange(_moment(event.at * 1_000_000), event.event, event.by, limit, event.amount_usd, reason)


def _usd(nano: int) -> Decimal:
    return Decimal(nano) / NANO


def _moment(at_us: int) -> datetime:
    return datetime.fromtimestamp(max(0, min(at_us / 1_000_000, UNTIL_MAX)), UTC)
