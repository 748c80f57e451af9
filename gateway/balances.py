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
from gateway.budgets import Account, Budget, Budgets, Hold, Sum, cost_of
from gateway.call import Call
from gateway.control import AwayError, Control
from gateway.errors import UserError
from gateway.ledger import BALANCES, Ledger, decode_as, is_imported, now_us, segments_in
from gateway.periods import span

ROUND_SECONDS = 0.4
"""A change of `budgets.toml` counts when it is seen a second time: two rounds take less than a second."""
ASK_SECONDS = 600.0
"""Between two questions for the ledger's sums, when nothing else calls for one."""
ANSWER_SECONDS = 60.0
LOOK_SECONDS, LOOKED_AT_A_TIME = 30.0, 500
AGAIN_SECONDS = 60.0
RETRY_SECONDS = 5.0
"""After a question that got no answer: the control plane may be starting."""

log = logging.getLogger("outlay")


class Record(Call, kw_only=True):
    """An open or close record of the journal."""

    e: str
    at: int


class Checkpoint(msgspec.Struct):
    """`balances.json`."""

    through: dict[str, int]
    """Bytes of each segment that are in the balances; what is in none is older than all of them."""
    accounts: list[Sum]
    latest_us: int = 0
    """When the last of what is in the balances was booked; 0 where an earlier version did not say."""


class Balances:
    """The accounts of one data folder."""

    def __init__(
        self,
        data_dir: Path,
        file: BudgetFile,
        budgets: Budgets,
        gateway_id: str = "",
        ask_from: tuple[Control, Ledger] | None = None,
        on_change: Callable[[], None] = lambda: None,
        look: Callable[[Account, int], None] = lambda account, at_us: None,
    ) -> None:
        """`gateway_id`: whose own calls are posted without the journal. `ask_from`: who knows the ledger's sums, and
        when it was written to.
        `on_change` is called when limits or balances have changed, `look` with each account now and then."""
        self._journal = data_dir / "journal"
        self._checkpoint = data_dir / BALANCES
        self._file = file
        self._budgets = budgets
        self._ask_from = ask_from
        self._latest_us = 0
        """The latest moment at which others booked, or an earlier run did."""
        self._is_behind = False
        """The clock, and that was said."""
        self._on_change = on_change
        self._look = look
        self._gateway_id = gateway_id
        self.saved: frozenset[str] = frozenset()
        """Identities of the budgets that the checkpoint has accounts of; another one may be newer than its segments."""
        self._through: dict[str, int] = {}
        self._is_started = False
        self._held: dict[str, Hold] = {}
        """By call_id: what other gateways hold for calls that run, as their open records say."""
        self._problem: str | None = None
        self._asks_at = 0.0
        self._looks_at = 0.0
        self._asking: asyncio.Task[None] | None = None

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
        self._catch_up(own=not self._is_started)  # at the start the own segment has what a crash left open
        self._is_started = True
        for path in self._journal.glob(f"*-{self._gateway_id}.jsonl"):
            with contextlib.suppress(FileNotFoundError):  # sealed meanwhile
                self._through[path.name] = path.stat().st_size  # all of it was posted as it was written
        self._through[own_segment] = size
        self._budgets.forget(now_us())
        accounts = [_balance(each) for each in self._budgets.accounts() if each.spent or each.unpriced]
        own_us = 0 if self._ask_from is None else self._ask_from[1].latest_us
        return msgspec.json.encode(Checkpoint(self._through, accounts, max(own_us, self._latest_us)))

    async def keep(self) -> None:
        """Run beside the server."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                is_new = self.refresh()
                self._catch_up()
                is_due = is_new or loop.time() >= self._asks_at
                if len(self._budgets) and is_due and (self._asking is None or self._asking.done()):
                    # A new budget asks twice: what ran when it was made is booked by then.
                    self._asks_at = loop.time() + (AGAIN_SECONDS if is_new else ASK_SECONDS)
                    self._asking = asyncio.create_task(self._ask(), name="balances")
                if loop.time() >= self._looks_at:
                    self._looks_at = loop.time() + LOOK_SECONDS
                    await self._look_over()
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            if self._asking is not None:
                self._asking.cancel()

    async def _look_over(self) -> None:
        """Whatever changed a balance or a limit, and whoever missed it."""
        for number, account in enumerate(list(self._budgets.accounts())):
            account.expire(now := now_us())
            if account.spent and account.period.has(now):
                self._look(account, now)
            if number % LOOKED_AT_A_TIME == 0:
                await asyncio.sleep(0)

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

    async def _ask(self) -> None:
        """Take over the ledger's own sums. Where they cannot be had, ask again soon."""
        if self._ask_from is None:
            return
        control, ledger = self._ask_from
        if ledger.failure is not None:  # it lacks what cannot be recorded now
            self._asks_at = asyncio.get_running_loop().time() + RETRY_SECONDS
            return
        before_us = ledger.moment(self._latest_us)
        if before_us <= self._latest_us:  # an answer would lack what was booked since
            self._asks_at = asyncio.get_running_loop().time() + RETRY_SECONDS
            if not self._is_behind:
                self._is_behind = True
                log.warning(
                    "the clock is %d s behind the last call that was booked: until it gets there budgets go on with "
                    "what they know, without corrections, and new ones begin at 0; if it is wrong, set it right",
                    (self._latest_us - before_us) // 1_000_000,
                )
            return
        self._is_behind = False
        question = [question_about(budget, before_us) for budget in self._budgets]
        self._budgets.asking(before_us)
        try:
            body = msgspec.json.encode({"before_us": before_us, "budgets": question})
            answer = await control.budget_sums(body, ANSWER_SECONDS)
            sums = await asyncio.to_thread(msgspec.json.decode, answer, type=list[Sum])
        except (AwayError, msgspec.DecodeError):
            self._budgets.not_told()
            self._asks_at = min(self._asks_at, asyncio.get_running_loop().time() + RETRY_SECONDS)
        else:
            for _ in self._budgets.told(sums, before_us):
                await asyncio.sleep(0)
            self._on_change()

    # -- the journal --------------------------------------------------------------------------------------------

    def _load(self, saved: Checkpoint) -> None:
        self._through, self._latest_us = saved.through, saved.latest_us
        self.saved = frozenset(each.identity for each in saved.accounts)
        of = {budget.identity: budget for budget in self._budgets}
        now = now_us()
        for each in saved.accounts:
            if each.identity in of:
                self._budgets.restore(of[each.identity], each.value, now, each)

    def _catch_up(self, *, own: bool = False) -> None:
        """Take in what the segments of others have gained (`own`: and ours). What cannot be read is said, and left."""
        try:
            names = [path.name for path in segments_in(self._journal)]
        except OSError:
            return
        for name in names:
            if not own and self._ask_from is not None and is_imported(name):
                # Not here: what is long past may be in an answer that is on its way, and would count twice.
                if name not in self._through:
                    self._through[name], self._asks_at = 0, 0.0
            elif own or not name.endswith(f"-{self._gateway_id}.jsonl"):
                try:
                    self._read(self._journal / name)
                except FileNotFoundError:
                    pass  # sealed meanwhile
                except OSError as error:
                    log.error("%s cannot be read, its calls may be missing in budgets: %s", name, error.strerror)
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
                if line.startswith((b'{"e":"open"', b'{"e":"close"')):
                    self._take(line)
        self._through[path.name] = start

    def _take(self, line: bytes) -> None:
        """A record of another gateway, or of the past."""
        try:
            record = decode_as(line, Record)
        except msgspec.DecodeError:
            log.error("a record of another version cannot be read, and is missing in budgets")
            return
        if record is None:
            return
        if record.e == "open":
            if record.call_id not in self._held and record.held_nano:  # restated at the head of each segment
                charges, held = self._budgets.charges(record), record.held_nano
                self._held[record.call_id] = self._budgets.hold(record, charges, held, held)
            return
        self._latest_us = max(self._latest_us, record.at)
        if (hold := self._held.pop(record.call_id, None)) is not None:
            self._budgets.settle(hold, 0)
        if record.result != "refused":
            self._budgets.post(record, cost_of(record), record.at)


def _balance(account: Account) -> Sum:
    start_us = account.period.start_us
    posted = ((start_us, account.spent),) if account.window is None else tuple(account.window)
    return Sum(account.budget.identity, account.value, start_us, posted, account.unpriced)


def question_about(budget: Budget, at_us: int) -> dict[str, Any]:
    """For the ledger: what have its accounts spent."""
    return {
        "identity": budget.identity,
        "kind": budget.scope.kind,
        "value": budget.scope.value,
        "start_us": span(budget.period, budget.timezone, at_us).start_us,
        "rolling": budget.period == "rolling_24h",
    }
