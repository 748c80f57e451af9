"""What it costs a call to have its owner in another process: CPU of both ends together, and the wait.

Both ends are here, in one process and on one loop, so that nothing but the link is in the figures: the owner does the
same work either way. The wait is shorter than between processes, which have to be woken up.
"""

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path

import uvloop

from gateway import link
from gateway.admission import Admission, Looked, Wanted
from gateway.alerts import Alerts
from gateway.budget_file import BudgetTable, budget_of
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Budgets
from gateway.call import Ask, Call
from gateway.config import AlertSettings, Config, LedgerSettings
from gateway.guards import Guards
from gateway.late import Late
from gateway.ledger import Ledger, now_us
from gateway.limits import Limits
from gateway.owner import LocalOwner, Owner
from gateway.prices import load_prices
from gateway.quotes import Quotes
from gateway.remote import RemoteOwner
from gateway.telemetry import Telemetry
from gateway.workers import Desk, Workers

CALLS = 20_000
WANTED = Wanted(Ask(model="gpt-4.1", max_output_tokens=4000, stream=True), None, 30_000)


class View:
    async def look(self, model: str | None) -> Looked | None:
        raise AssertionError("no budget is near its limit")

    async def check(self) -> None:
        raise AssertionError("nothing waits")


@contextlib.contextmanager
def house(data: Path) -> Iterator[tuple[Config, LocalOwner]]:
    """An owner with 100 budgets, six of which cover each call."""
    config = Config(ledger=LedgerSettings(dir=str(data), reserve_bytes=0))
    journal, late, telemetry = Ledger(config.ledger, "g1"), Late(data), Telemetry()
    late.start()
    journal.start()
    budgets = Budgets()
    scopes = ["org", "each_ticket", "each_team", "each_key", "model:gpt-*", "project:PAY"]
    scopes += [f"team:x{number}" for number in range(94)]
    tables = [BudgetTable(scope=scope, limit_usd=Decimal(900_000)) for scope in scopes]
    budgets.replace(budget_of(f"b{number}", table) for number, table in enumerate(tables))
    admission = Admission(budgets, Quotes(load_prices(config)), 0, BudgetNotices(lambda *_, **__: None, str))
    yield (
        config,
        LocalOwner(
            journal, late, admission, Limits({}), Guards({}), Alerts(AlertSettings(), data, telemetry), telemetry
        ),
    )
    journal.stop()
    late.stop()


async def linked(config: Config, own: LocalOwner) -> RemoteOwner:
    ours, theirs = socket.socketpair()
    desk = Desk(own, Workers(config, own, Telemetry(), "g1", "book"))
    await desk.link.open(ours)
    desk.link.send(link.Begin(config, "g1", "book"))
    remote = RemoteOwner(Telemetry(), lambda: None)
    await remote.connect(theirs)
    return remote


async def one(owner: Owner, number: int) -> float:
    """A call from its opening to its end; returns how long it took to open it, in µs."""
    now = now_us()
    call = Call(
        call_id=f"c{now}-{number}", request_id=f"r{number}", attempt=1, started_us=now, key_id="key_1", team_id="t",
        client="claude-code", client_version="2.0.1", agent="main", tickets=("PAY-1",), ticket_id="PAY-1",
        ticket_source="header", ticket_state="known", task_id="t1", task_source="session", session_id="s1",
        repo="acme/shop", branch="fix/PAY-1", provider="openai", upstream="openai", dialect="openai_chat",
        operation="chat", request_model="gpt-4.1", stream=True, message_count=12, tool_count=13, request_bytes=30_000,
        gateway_id="g1",
    )  # fmt: skip
    began = time.perf_counter()
    await owner.open(call, WANTED, View())
    took = time.perf_counter() - began
    call.result, call.status, call.usage_source, call.price_status = "completed", 200, "reported", "exact"
    call.input_tokens, call.output_tokens, call.response_model = 9000, 300, "gpt-4.1"
    call.list_cost_nano = call.contracted_cost_nano = 20_400_000
    await owner.close(call, 2000)
    owner.leave(call)
    return took * 1e6


async def measure(owner: Owner, at_once: int) -> tuple[float, float]:
    """µs of CPU per call, best of 5, and of waiting for its opening, the median."""
    waits: list[float] = []
    numbers = iter(range(CALLS))
    best = float("inf")

    async def some(count: int) -> None:
        for _ in range(count):
            waits.append(await one(owner, next(numbers)))

    for _ in range(5):
        before = time.process_time()
        await asyncio.gather(*(some(CALLS // 5 // at_once) for _ in range(at_once)))
        best = min(best, (time.process_time() - before) / (CALLS // 5) * 1e6)
    return best, sorted(waits)[len(waits) // 2]


async def main() -> None:
    print(f"{'owner':<10} {'at once':>8} {'µs of CPU per call':>20} {'µs to open, p50':>17}")
    ways: dict[str, Callable[[Config, LocalOwner], Awaitable[Owner]]] = {"here": _here, "linked": linked}
    for name, reach in ways.items():
        for at_once in (1, 32):
            with tempfile.TemporaryDirectory() as folder, house(Path(folder)) as (config, own):
                cpu, wait = await measure(await reach(config, own), at_once)
            print(f"{name:<10} {at_once:>8} {cpu:>20.1f} {wait:>17.1f}")


async def _here(config: Config, own: LocalOwner) -> Owner:
    return own


if __name__ == "__main__":
    uvloop.run(main())
