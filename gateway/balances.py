"""Keeps the budgets' accounts in step with what is written down: definitions with their files, balances with the
ledger.

At start the last checkpoint (`balances.json`) is read, and after it what the journal has gained since. While the
gateway runs its own calls are posted as they are closed; those of another gateway beside it are read from its segments.
The control plane is asked for the ledger's own sums now and then, and when a budget is new: so what was corrected
counts, and a new budget knows what its period has cost before it was made.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gateway.budget_file import BudgetFile
from gateway.budgets import Account, Budget, Budgets, Sum, cost_of
from gateway.call import Call
from gateway.control import AwayError, Control
from gateway.errors import UserError
from gateway.ledger import BALANCES, decode_as, now_us
from gateway.periods import span

ROUND_SECONDS = 1.0
ASK_SECONDS = 600.0
"""Between two questions for the ledger's sums, when nothing else calls for one."""
ANSWER_SECONDS = 60.0
RETRY_SECONDS = 5.0
"""After a question that got no answer: the control plane may be starting."""

log = logging.getLogger("outlay")


class Balance(msgspec.Struct, array_like=True):
    """An account in `balances.json`."""

    identity: str
    value: str
    start_us: int
    spent: int
    unpriced: int
    window: list[tuple[int, int]] | None


class Checkpoint(msgspec.Struct):
    """`balances.json`."""

    through: dict[str, int]
    """Bytes of each segment that are in the balances; what is in none is older than all of them."""
    accounts: list[Balance]


class Balances:
    """The accounts of one data folder."""

    def __init__(
        self,
        data_dir: Path,
        file: BudgetFile,
        budgets: Budgets,
        gateway_id: str = "",
        control: Control | None = None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        """`gateway_id`: whose own calls are posted without the journal. `control`: who knows the ledger's sums.
        `on_change` is called when limits or balances have changed."""
        self._journal = data_dir / "journal"
        self._checkpoint = data_dir / BALANCES
        self._file = file
        self._budgets = budgets
        self._control = control
        self._on_change = on_change
        self._gateway_id = gateway_id
        self._clock = clock
        self._through: dict[str, int] = {}
        self._is_started = False
        self._problem: str | None = None
        self._asks_at = 0.0

    def start(self) -> None:
        """Before the journal is started. Raises `UserError` for budgets that cannot be read, `OSError`."""
        self._budgets.replace(self._file.all())
        with contextlib.suppress(FileNotFoundError):
            try:
                self._load(msgspec.json.decode(self._checkpoint.read_bytes(), type=Checkpoint))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.error("%s is damaged (%s): balances are taken from the ledger", self._checkpoint, error)
        self._catch_up(own=True)

    def checkpoint(self, own_segment: str, size: int) -> bytes:
        """What goes into `balances.json` now, when nothing else is being posted."""
        now = self._clock()
        self._catch_up(own=not self._is_started)  # at the start the own segment has what a crash left open
        self._is_started = True
        self._through[own_segment] = size
        self._budgets.forget(now)
        accounts = [_balance(each) for each in self._budgets.accounts() if each.spent or each.unpriced]
        return msgspec.json.encode(Checkpoint(self._through, accounts))

    async def keep(self) -> None:
        """Run beside the server."""
        loop = asyncio.get_running_loop()
        while True:
            is_new = self.refresh()
            self._catch_up()
            if len(self._budgets) and (is_new or loop.time() >= self._asks_at):
                self._asks_at = loop.time() + (ASK_SECONDS if await self._ask() else RETRY_SECONDS)
            await asyncio.sleep(ROUND_SECONDS)

    def refresh(self) -> bool:
        """Put the budgets in force that are written down now. True when there are new ones."""
        try:
            budgets, problem = self._file.all(), None
        except UserError as error:
            budgets, problem = None, str(error)
        except OSError as error:
            budgets, problem = None, f"budgets cannot be read: {error.strerror}"
        if problem is not None and problem != self._problem:
            log.error("%s; the budgets stay as they were", problem)
        self._problem = problem
        if budgets is None or budgets == list(self._budgets):
            return False
        fresh = self._budgets.replace(budgets)
        self._on_change()
        return bool(fresh)

    async def _ask(self) -> bool:
        """Take over the ledger's own sums. False when they could not be had."""
        if self._control is None:
            return True
        self._catch_up()  # what others wrote by now is in the answer, and must not be posted after it
        before_us = self._clock()
        question = [_question(budget, before_us) for budget in self._budgets]
        self._budgets.asking()
        try:
            body = msgspec.json.encode({"before_us": before_us, "budgets": question})
            sums = msgspec.json.decode(await self._control.budget_sums(body, ANSWER_SECONDS), type=list[Sum])
        except (AwayError, msgspec.DecodeError):
            self._budgets.not_told()
            return False
        except BaseException:
            self._budgets.not_told()
            raise
        self._budgets.told(sums, before_us)
        self._on_change()
        return True

    # -- the journal --------------------------------------------------------------------------------------------

    def _load(self, saved: Checkpoint) -> None:
        self._through = saved.through
        of = {budget.identity: budget for budget in self._budgets}
        now = self._clock()
        for balance in saved.accounts:
            if (budget := of.get(balance.identity)) is None:
                continue
            account = self._budgets.account(budget, balance.value, now)
            if account.period.start_us == balance.start_us:
                account.unpriced = balance.unpriced
                for started_us, amount in balance.window or ((balance.start_us, balance.spent),):
                    account.post(amount, started_us)

    def _catch_up(self, *, own: bool = False) -> None:
        """Post what the segments of others have gained (`own`: and ours)."""
        try:
            names = sorted(path.name for path in self._journal.glob("*.jsonl"))
        except OSError:
            return
        for name in names:
            if own or not name.endswith(f"-{self._gateway_id}.jsonl"):
                with contextlib.suppress(FileNotFoundError):  # sealed meanwhile
                    self._read(self._journal / name)
        self._through = {name: self._through[name] for name in names if name in self._through}

    def _read(self, path: Path) -> None:
        start = self._through.get(path.name, 0)
        if path.stat().st_size <= start:
            return
        with path.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # being written
                start += len(line)
                call = decode_as(line, Call) if line.startswith(b'{"e":"close"') else None
                if call is not None and call.result != "refused":
                    self._budgets.post(call, cost_of(call))
        self._through[path.name] = start


def _balance(account: Account) -> Balance:
    window = None if account.window is None else list(account.window)
    start_us = account.period.start_us
    return Balance(account.budget.identity, account.value, start_us, account.spent, account.unpriced, window)


def _question(budget: Budget, at_us: int) -> dict[str, Any]:
    return {
        "identity": budget.identity,
        "kind": budget.scope.kind,
        "value": budget.scope.value,
        "start_us": span(budget.period, budget.timezone, at_us).start_us,
        "rolling": budget.period == "rolling_24h",
    }
