"""What it costs to say how budgets stand: `python -m tests.benchmarks.bench_budget_status [--rows N]`.

Prints for 100 and for 10,000 budgets the best of some runs, in seconds and seconds of CPU: the view, with as many cores
as there are, and the gateway's question, with one. The made-up month has 2,000 users with keys, 20,000 tickets and
50,000 tasks; each call is in about eight budgets, beside those for each ticket, task and user.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import analytics
from analytics import budgeting, lake
from gateway.budget_file import BudgetTable, budget_of
from gateway.budgets import Budget
from gateway.ledger import now_us
from gateway.periods import span

RUNS = 3
DAYS = 28
CALLS = """
SELECT * EXCLUDE (day) FROM (
  (FROM booked_calls LIMIT 0)
  UNION ALL BY NAME
  SELECT
    CAST(uuid() AS VARCHAR) AS call_id, CAST($day AS TIMESTAMP) + to_seconds(i * 7919 % 86400) AS started_at,
    CAST($day AS TIMESTAMP) + to_microseconds(i * (86400000000 // $calls)) AS recorded_at,
    'team-' || hash(i) % 50 AS team_id, 'user-' || hash(i + 4) % 2000 AS user_id,
    'key_' || hash(i + 4) % 2000 AS key_id,
    'm-' || hash(i + 2) % 8 AS request_model, CASE WHEN i % 20 = 0 THEN 'ci' END AS purpose,
    CASE i % 20
      WHEN 0 THEN []
      WHEN 1 THEN ['PAY-' || hash(i + 1) % 20000, 'OPS-' || hash(i + 5) % 2000]
      ELSE ['PAY-' || hash(i + 1) % 20000]
    END AS tickets,
    tickets[1] AS ticket_id, 'task-' || hash(i + 3) % 50000 AS task_id, 'completed' AS result,
    CAST(hash(i) % 1000000000 * 0.000000001 AS DECIMAL(18,9)) AS list_cost_usd,
    'exact' AS price_status, $segment AS segment
  FROM range($calls) AS numbers(i)
)
"""


def make(data: Path, rows: int, today: date) -> None:
    lake.publish(data)
    state: list[lake.Row] = []
    with analytics.open(data) as db:
        for number in range(DAYS):
            day = today - timedelta(days=DAYS - number)
            lake.day_folder(data, day).mkdir()
            path = lake.day_file(data, day)
            calls = db.sql(CALLS, params={"day": day, "segment": "whole", "calls": rows // DAYS})
            calls.write_parquet(str(path), compression="zstd")
            state.append(lake.Row("closed", day, None, rows // DAYS, 0))
    lake.write_state(data, state)


def budgets(count: int) -> list[Budget]:
    """All about the last weeks, so that each call of the folder counts; one of ten is a rolling window."""
    scopes = ["org", "each_ticket", "each_task", "each_user", "model:m-[1-3]", "project:PAY", "purpose:ci"]
    scopes += [f"team:team-{number}" for number in range(50)] + [f"model:m-{number}" for number in range(8)]
    kinds = [("user:user-", 2000), ("key:key_", 2000), ("ticket:PAY-", 20000), ("task:task-", 50000)]
    number = 0
    while len(scopes) < count:
        scopes += [f"{kind}{number}" for kind, there in kinds if number < there]
        number += 1
    return [
        budget_of(f"budget-{n}", BudgetTable(scope, Decimal(100), "rolling_24h" if n % 10 == 9 else "total"))
        for n, scope in enumerate(scopes[:count])
    ]


def best(run: Callable[[], object]) -> str:
    times = []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(times)
    return f"{wall:.1f} ({cpu:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    now = datetime.now(UTC).replace(tzinfo=None)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make(data, options.rows, now.date())
        print(f"{options.rows:,} calls: seconds")
        print(f"{'budgets':>8}{'noted':>8}{'status':>12}{'rows':>8}{'asked':>12}{'sums':>8}")
        for count in (100, 10_000):
            found = budgets(count)
            start = time.perf_counter()
            budgeting.store(data, found, now)
            noted = time.perf_counter() - start
            asked = [
                budgeting.Asked(
                    each.identity,
                    each.scope.kind,
                    each.scope.value,
                    span(each.period, each.timezone, now_us()).start_us,
                    each.period == "rolling_24h",
                )
                for each in found
            ]
            sizes = {}

            def ask(asked: list[budgeting.Asked] = asked, sizes: dict[str, int] = sizes) -> None:
                with lake.scratch(data, threads=1) as db:
                    sizes["sums"] = len(budgeting.sums(db, data, budgeting.Question(now_us(), asked)))

            def look(sizes: dict[str, int] = sizes) -> None:
                with analytics.open(data) as db:
                    sizes["rows"] = len(db.execute("FROM budget_status").fetchall())

            times = best(look), best(ask)
            print(f"{count:>8,}{noted:>8.2f}{times[0]:>12}{sizes['rows']:>8,}{times[1]:>12}{sizes['sums']:>8,}")


if __name__ == "__main__":
    main()
