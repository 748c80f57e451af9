"""Where budgets are written down: `[budgets.NAME]` in the settings and in `budgets.toml` beside them, and
`budgets.jsonl` in the data folder, an append-only list of changes by command and API that is also their audit trail.

A change of either file is in force within a second, without a restart. A `budgets.toml` that cannot be read changes
nothing, and says why in the log.
"""

import contextlib
import difflib
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from gateway import lines
from gateway.budgets import Budget, Mode, Raise
from gateway.call import NANO
from gateway.errors import UserError
from gateway.mistakes import in_words
from gateway.periods import Period
from gateway.scopes import VALUE_MAX, parse

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MODEL = re.compile(r"[\x21-\x7e]{1,200}")
LIMIT_USD_MAX = 999_999_999
OWNER_MAX = 200
REASON_MAX = 500
UNTIL_MAX = 253_402_300_799
"""The last second of the year 9999, UTC: later ones have no calendar."""
SETTLED_SECONDS = 0.2
"""A `budgets.toml` counts when it has not changed for so long: who writes it may empty it, or move it away, before."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class BudgetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A budget as people write it."""

    scope: Annotated[
        str,
        Meta(
            description="Whose spend: org, team:x, user:x, key:x, ticket:x, task:x, project:PAY, model:x, purpose:x; "
            "each_ticket, each_task, each_user, each_key, each_team give every one an account of its own."
        ),
    ]
    limit_usd: Annotated[Decimal, Meta(description="US dollars, up to nine decimals.")]
    period: Annotated[Period, Meta(description="day, week, month, quarter, total, or rolling_24h.")] = "month"
    timezone: Annotated[str, Meta(description="In whose midnight a period begins, as in Europe/Berlin.")] = "UTC"
    on_exceed: Annotated[
        str,
        Meta(
            description="block: lower a request's maximum to what is left, then refuse; stop_stream: end running "
            "streams; reroute:MODEL: a cheaper model near the limit; warn: only tell."
        ),
    ] = "block"
    warn_at: Annotated[tuple[float, ...], Meta(description="Fractions of the limit at which to tell.")] = (0.8,)
    mode: Annotated[Mode, Meta(description="shadow: compute and record everything, enforce nothing.")] = "enforce"
    owner: Annotated[str | None, Meta(description="Who can raise it: named in refusals.")] = None


class BudgetEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `budgets.jsonl`. Times are whole seconds since the epoch, UTC."""

    event: Literal["set", "remove", "raise"]
    name: str
    at: int
    by: str
    budget: BudgetTable | None = None
    amount_usd: Decimal | None = None
    until: int | None = None
    reason: str | None = None
    value: str | None = None


class UnreadableError(UserError):
    """A file of budgets cannot be read, so that nobody knows what is in force."""


class NoSuchBudgetError(UserError):
    """There is no budget of this name."""


class WrittenError(UserError):
    """The budget stands in a settings file, which alone can change it."""


def nano(usd: Decimal) -> int:
    """Whole nano-USD. Raises `UserError` for what is no amount of money."""
    negative, digits, exponent = usd.as_tuple()
    shown = "".join(map(str, digits)).rstrip("0")
    if not shown and isinstance(exponent, int):
        return 0
    if isinstance(exponent, int) and not negative:
        zeros = exponent + len(digits) - len(shown) + 9
        # Compared before they are written out: an exponent may have a billion zeros.
        if zeros >= 0 and len(shown) + zeros <= len(str(LIMIT_USD_MAX * NANO)):
            found = int(shown + "0" * zeros)
            if found <= LIMIT_USD_MAX * NANO:
                return found
    raise UserError(
        f"{str(usd)[:60]} is no limit: write US dollars from 0 to {LIMIT_USD_MAX:,}, with at most nine decimals"
    )


def _check_text(what: str, value: str, longest: int) -> None:
    if not 0 < len(value) <= longest or CONTROL.search(value):
        raise UserError(f"{what} has 1 to {longest} characters, and no control characters")


def budget_of(name: str, table: BudgetTable, raises: tuple[Raise, ...] = ()) -> Budget:
    """Raises `UserError` for what no single field can show."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name[:60]!r} is no name of a budget: write letters, digits, dots, - or _ (at most 100)")
    reroute, _, model = table.on_exceed.partition(":")
    if table.on_exceed not in ("block", "stop_stream", "warn") and not (
        reroute == "reroute" and MODEL.fullmatch(model)
    ):
        raise UserError(f"budget {name}: on_exceed is block, stop_stream, reroute:MODEL or warn")
    if any(not 0 < fraction <= 1 for fraction in table.warn_at):
        raise UserError(f"budget {name}: warn_at has fractions of the limit, above 0 and at most 1, as in [0.5, 0.8]")
    if table.owner is not None:
        _check_text(f"budget {name}: owner", table.owner, OWNER_MAX)
    try:
        scope = parse(table.scope)
    except UserError as error:
        raise UserError(f"budget {name}: {error}") from None
    try:
        ZoneInfo(table.timezone)
    except (KeyError, ValueError, OSError):
        raise UserError(
            f"budget {name}: there is no time zone {table.timezone[:60]!r}; write one as Europe/Berlin"
        ) from None
    return Budget(
        name, scope, nano(table.limit_usd), table.period, table.timezone, table.on_exceed,
        tuple(sorted(set(table.warn_at))), table.mode, table.owner, raises,
    )  # fmt: skip


def table_of(budget: Budget) -> BudgetTable:
    """As it is written."""
    return BudgetTable(
        str(budget.scope), Decimal(budget.limit_nano) / NANO, budget.period, budget.timezone, budget.on_exceed,
        budget.warn_at, budget.mode, budget.owner,
    )  # fmt: skip


def read_toml(path: Path) -> dict[str, BudgetTable]:
    """The budgets of a `budgets.toml`; none where there is no file. Raises `UserError`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: is not valid TOML: {error}") from None
    if wrong := [name for name in tables if name != "budgets"]:
        raise UserError(f"{path}: unknown section [{wrong[0]}]; budgets are written as [budgets.NAME]")
    found: dict[str, BudgetTable] = {}
    for name, fields in tables.get("budgets", {}).items():
        found[name] = table_from(name, fields, f"{path}: ")
    return found


def table_from(name: str, fields: Any, where: str = "") -> BudgetTable:
    """A budget from plain values. Raises `UserError`, naming the nearest right field."""
    known = BudgetTable.__struct_fields__
    for field in fields if isinstance(fields, Mapping) else ():
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
            advice = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
            raise UserError(f'{where}budget {name}: unknown setting "{field}"; {advice}')
    try:
        table = msgspec.convert(fields, BudgetTable, strict=False)
        budget_of(name, table)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = re.split(r"[.\[`]+", place)[1] if place else ""
        told = in_words(message, get_type_hints(BudgetTable).get(field))
        raise UserError(f"{where}budget {name}: {field}{': ' if field else ''}{told}") from None
    except UserError as error:
        raise UserError(f"{where}{error}") from None
    return table


class BudgetFile:
    """The budgets of one installation. Methods that write raise `UserError` and `OSError`."""

    def __init__(
        self, data_dir: Path, settings: Mapping[str, BudgetTable] | None = None, toml: Path | None = None
    ) -> None:
        """`settings`: those of the settings file. `toml`: the path of `budgets.toml`, if there may be one."""
        self._file = data_dir / "budgets.jsonl"
        self._settings = dict(settings or {})
        self._toml = toml
        self._seen: tuple[object, ...] | None = None
        self._coming: tuple[object, float] | None = None
        """A state of `budgets.toml` that does not count yet, and since when (monotonic) it is the present one."""
        self._changes = 0
        """Lines that `budgets.jsonl` has had: it is only ever added to."""
        self._budgets: list[Budget] = []
        self._written: frozenset[str] = frozenset()

    def all(self) -> list[Budget]:
        """What is in force, by name. Raises `UnreadableError`."""
        seen = _mark(self._file), self._toml and _mark(self._toml)
        if seen != self._seen and self._is_settled(seen[1]):
            try:
                self._budgets = self._read()
            except UserError as error:
                raise UnreadableError(str(error)) from None
            self._seen = seen
        return self._budgets

    def _is_settled(self, toml: object) -> bool:
        if self._seen is None or toml == self._seen[1]:
            return True
        now = time.monotonic()
        if self._coming is None or self._coming[0] != toml:
            self._coming = toml, now
        return now - self._coming[1] >= SETTLED_SECONDS

    def get(self, name: str) -> Budget | None:
        return next((budget for budget in self.all() if budget.name == name), None)

    def is_written(self, name: str) -> bool:
        """True for a budget of a settings file, which only that file can change."""
        self.all()
        return name in self._written

    def _read(self) -> list[Budget]:
        tables = dict(self._settings)
        for name, table in (read_toml(self._toml) if self._toml is not None else {}).items():
            if name in tables:
                raise UserError(f"{self._toml}: the budget {name} is in the settings file too: keep one")
            tables[name] = table
        self._written = frozenset(tables)
        raises: dict[str, list[Raise]] = {}
        events = list(self.events())
        if len(events) < self._changes:
            lost = "has lost lines" if self._file.exists() else "is gone"
            raise UnreadableError(
                f"{self._file} {lost}: restore it, or start the gateway anew if budgets that it had are to end"
            )
        self._changes = len(events)
        for event in events:
            if event.event == "remove":
                raises.pop(event.name, None)
            if event.event == "raise" and event.amount_usd is not None and event.until is not None:
                if event.name in tables:  # else it was for a budget that is no more
                    raises.setdefault(event.name, []).append(_raise_of(event, nano(event.amount_usd), event.until))
            elif event.name in self._written:
                continue  # written into a file since, which counts
            elif event.event == "set" and event.budget is not None:
                tables[event.name] = event.budget
            elif event.event == "remove":
                tables.pop(event.name, None)
        return [budget_of(name, tables[name], tuple(raises.get(name, ()))) for name in sorted(tables)]

    def events(self) -> Iterator[BudgetEvent]:
        """The audit trail, oldest first. Raises `UnreadableError` at a line of another version: nobody knows then what
        is in force."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnreadableError(f"{self._file}: cannot be read: {error.strerror}") from None
        for number, line in enumerate(content.split(b"\n"), 1):
            try:
                event = lines.read(line, BudgetEvent)
            except ValueError as error:
                raise UnreadableError(f"{self._file}: line {number} {error}") from None
            if event is None:
                continue
            is_raise = event.amount_usd is not None and event.until is not None
            if (event.event == "set" and event.budget is None) or (event.event == "raise" and not is_raise):
                raise UnreadableError(f"{self._file}: line {number} says too little")
            yield event

    # -- changes: each is decided while no other can be written ---------------------------------------------------

    def set(
        self, name: str, table: BudgetTable, by: str, check: Callable[[Budget | None, Budget], None] | None = None
    ) -> Budget:
        """Make a budget, or change one: what it has spent stays, unless scope or period change. The same again writes
        nothing. `check` is told of the budget before and after, and raises what forbids it."""
        after = budget_of(name, table)
        self.all()  # a list that is gone must not be begun anew

        def decide() -> BudgetEvent | None:
            before = self.get(name)
            if check is not None:
                check(before, after)
            if before is not None and msgspec.structs.replace(before, raises=()) == after:
                return None
            self._must_not_be_written(name)
            return BudgetEvent("set", name, _now(), by, budget=table)

        lines.append(self._file, decide)
        return self.get(name) or after  # it may be gone again

    def remove(self, name: str, by: str, check: Callable[[Budget], None] | None = None) -> Budget:
        """`check` is told of the budget, and raises what forbids it."""
        removed = self._there(name)

        def decide() -> BudgetEvent:
            nonlocal removed
            removed = self._there(name)
            if check is not None:
                check(removed)
            self._must_not_be_written(name)
            return BudgetEvent("remove", name, _now(), by)

        lines.append(self._file, decide)
        return removed

    def raise_(
        self,
        name: str,
        amount_usd: Decimal,
        until: int,
        reason: str,
        by: str,
        value: str | None = None,
        check: Callable[[Budget], None] | None = None,
    ) -> Budget:
        """Increase a limit until a moment (seconds since the epoch). `value`: for one account of a template. `check` is
        told of the budget, and raises what forbids it."""
        reason, budget = reason.strip(), self._there(name)

        def decide() -> BudgetEvent:
            nonlocal budget
            budget = self._there(name)
            if check is not None:
                check(budget)
            if nano(amount_usd) == 0:
                raise UserError("a raise of $0 raises nothing")
            if until <= _now():
                raise UserError("a raise ends in the future: it is temporary")
            if until > UNTIL_MAX:
                raise UserError("a raise ends before the year 10000, in UTC: it is temporary")
            if not reason:
                raise UserError("a raise needs a reason: others will read it")
            _check_text("a reason", reason, REASON_MAX)
            if value is not None:
                _check_text("for whom the raise is", value, VALUE_MAX)
            if value is not None and budget.scope.value is not None:
                raise UserError(
                    f"the budget {name} has one account, for {budget.scope}: leave out for whom the raise is"
                )
            return BudgetEvent(
                "raise", name, _now(), by, amount_usd=amount_usd, until=until, reason=reason, value=value
            )

        lines.append(self._file, decide)
        return self.get(name) or budget

    def _there(self, name: str) -> Budget:
        if (budget := self.get(name)) is None:
            raise NoSuchBudgetError(f"there is no budget {name[:100]}; `outlay budgets list` shows them")
        return budget

    def _must_not_be_written(self, name: str) -> None:
        if self.is_written(name):
            raise WrittenError(f"the budget {name} is written in a settings file: change it there (it applies at once)")


def _raise_of(event: BudgetEvent, amount_nano: int, until: int) -> Raise:
    at_us, until_us = event.at * 1_000_000, min(until, UNTIL_MAX) * 1_000_000
    return Raise(amount_nano, until_us, event.reason or "", event.by, at_us, event.value)


def _mark(path: Path) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):  # whoever reads it says what is wrong
        return lines.mark(path)
    return None


def _now() -> int:
    return int(time.time())
