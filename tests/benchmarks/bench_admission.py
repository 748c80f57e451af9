"""What admission adds to a call, with 10,000 budgets loaded: CPU per call, admitted and settled again, beside what the
same call costs with none (baseline). Run: python tests/benchmarks/bench_admission.py"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from gateway import scopes
from gateway.admission import Admission, Wanted
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Budget, Budgets
from gateway.call import Ask, Call
from gateway.ledger import now_us
from gateway.prices import DEFAULT_BOOK, PriceBook
from gateway.quotes import Quotes

CALLS = 20_000
NANO = 10**9
BODY = b'{"model":"claude-sonnet-4-5","messages":[]}' + b" " * 50_000


def budgets(count: int) -> list[Budget]:
    """Most are for one team, key or ticket each; a few cover every call."""
    wide = [
        Budget("org", scopes.parse("org"), 10**9 * NANO),
        Budget("each-ticket", scopes.parse("each_ticket"), 10**6 * NANO, "total"),
        Budget("each-task", scopes.parse("each_task"), 10**6 * NANO, "day"),
        Budget("claude", scopes.parse("model:claude-*"), 10**6 * NANO, "rolling_24h"),
    ]
    kinds = ("team", "key", "ticket", "project")
    named = [Budget(f"b{n}", scopes.parse(f"{kinds[n % 4]}:x{n // 4}"), 10**6 * NANO) for n in range(count)]
    return (wide + named)[:count]


def call() -> Call:
    return Call(
        call_id="c", request_id="r", attempt=1, started_us=now_us(), team_id="x1", key_id="x2", user_id="u",
        tickets=("x-3",), task_id="t1", provider="anthropic", request_model="claude-sonnet-4-5", operation="chat",
        client="claude-code",
    )  # fmt: skip


async def measure(what: Callable[[], Awaitable[None]]) -> float:
    """Microseconds of CPU per call, best of 5."""
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(CALLS // 5):
            await what()
        best = min(best, (time.process_time() - started) / (CALLS // 5) * 1e6)
    return best


async def main() -> None:
    prices = PriceBook.load(DEFAULT_BOOK)
    ask = Ask(model="claude-sonnet-4-5", stream=True, max_output_tokens=64_000)
    wanted = Wanted(ask, None, len(BODY))

    def with_budgets(count: int) -> Callable[[], Awaitable[None]]:
        ledger = Budgets()
        ledger.replace(budgets(count))
        admission = Admission(ledger, Quotes(prices), 0, BudgetNotices(lambda *_, **__: None, str))

        async def admit() -> None:
            one = call()
            admission.admit_at_once(one, wanted)
            one.contracted_cost_nano = 1_000_000
            admission.settle(one)

        return admit

    none = await measure(with_budgets(0))
    print(f"{'budgets':>8}  {'µs per call':>11}  {'added':>6}")
    print(f"{0:>8}  {none:>11.1f}  {'–':>6}")
    for count in (1, 4, 100, 10_000):
        found = await measure(with_budgets(count))
        print(f"{count:>8}  {found:>11.1f}  {found - none:>6.1f}  ({found / none:.1f} × none)")


if __name__ == "__main__":
    asyncio.run(main())
