"""What late evidence costs: `python -m tests.benchmarks.bench_attribution [--calls N] [--tickets N] [--prs N]`

Time and memory of a whole attribution and of the keeper's look at the last two days, each in a process of its own, and
the ratio of its time to `SELECT sum(list_cost_usd) FROM calls`. Of the made-up calls, 40 % name a known ticket, 10 %
one that was not checked; 20 % are on the branch of a pull request, 15 % have it from their task, 15 % have nothing.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

import analytics
from analytics import attributing, lake, work
from gateway.config import LedgerSettings, TicketSettings

SPAWN = multiprocessing.get_context("spawn")
RUNS = 3
NOW = datetime.now(UTC).replace(tzinfo=None)
CALLS = """
SELECT * EXCLUDE (day, part, ticket, task) FROM (
  (FROM booked_calls LIMIT 0)
  UNION ALL BY NAME
  SELECT
    CAST(uuid() AS VARCHAR) AS call_id, CAST($day AS TIMESTAMP) + to_seconds(i * 7919 % 86400) AS started_at,
    'r' AS request_id, 1 AS attempt,
    CAST($day AS TIMESTAMP) + INTERVAL 1 DAY - INTERVAL 1 SECOND AS recorded_at,
    'key-' || i // 100 % 200 AS key_id, 'team-' || hash(i) % 20 AS team_id, 'claude-code' AS client,
    'claude-sonnet-4-5' AS request_model, 'anthropic' AS provider, 'completed' AS result, 'reported' AS usage_source,
    CAST(i % 100 AS INTEGER) AS part,
    'PAY-' || (hash(i + 1) % $tickets + 1) AS ticket,
    CASE WHEN part < 50 THEN [ticket] ELSE [] END AS tickets, tickets[1] AS ticket_id,
    CASE WHEN part < 50 THEN 'header' ELSE 'none' END AS ticket_source,
    CASE WHEN part < 40 THEN 'known' WHEN part < 50 THEN 'unchecked' END AS ticket_state, [] AS ticket_candidates,
    CASE WHEN part < 40 OR part BETWEEN 70 AND 84 THEN i // 100 ELSE i END AS task,
    concat('task-', CAST($day AS DATE), '-', task) AS task_id,
    CASE WHEN part BETWEEN 50 AND 69 THEN 'acme/shop' END AS repo,
    CASE WHEN part BETWEEN 50 AND 69 THEN 'work-' || (hash(i + 3) % $prs) END AS branch,
    CAST(hash(i) % 100000 AS BIGINT) AS input_tokens,
    CAST(hash(i) % 1000000000 * 0.000000001 AS DECIMAL(18,9)) AS list_cost_usd, list_cost_usd AS input_cost_usd,
    'exact' AS price_status, sha256(CAST(i AS VARCHAR)) AS request_hash, $segment AS segment
  FROM range($calls) AS numbers(i)
)
"""


def make(data: Path, calls: int, tickets: int, prs: int, days: int) -> None:
    """A folder of sealed days up to now, and a tracker that knows more than it did."""
    lake.publish(data)
    state: list[lake.Row] = []
    with analytics.open(data) as db:
        for number in range(days):
            day = NOW.date() - timedelta(days=days - number)
            lake.day_folder(data, day).mkdir()
            parameters = {"day": day, "segment": "made", "calls": calls // days, "tickets": tickets, "prs": prs}
            path = lake.day_file(data, day)
            db.sql(CALLS, params=parameters).write_parquet(str(path), compression="zstd")
            with duckdb.connect() as sums:
                state.append(lake.Row("closed", day, None, *lake.file_sums(sums, path)))
    lake.write_state(data, state)
    numbers = range(1, tickets + 1)
    store(data, "tickets", [work.Ticket(ticket_id=f"PAY-{n}", status_category="todo") for n in numbers])
    store(data, "projects", [work.Project(project="PAY", synced_at=NOW)])
    opened = NOW - timedelta(days=days)
    pulls = [
        work.PullRequest(
            pr_id=f"acme/shop!{n}", repo="acme/shop", number=n, head_branch=f"work-{n}", base_branch="main",
            created_at=opened, merged_at=None if n % 2 else NOW, url=f"https://github.com/acme/shop/pull/{n}",
        )
        for n in range(prs)
    ]  # fmt: skip
    store(data, "pull_requests", pulls)
    links = [
        work.PrTicket(pr_id=each.pr_id, ticket_id=f"PAY-{n % tickets + 1}", source="title")
        for n, each in enumerate(pulls)
    ]
    store(data, "pr_tickets", links)
    work.write_tracker(data)


def store(data: Path, table: str, rows: Any) -> None:
    work.spool(data, table, rows)
    work.store(data, table)


def run(data: str, span: attributing.Span) -> tuple[int, float, float]:
    start = time.perf_counter()
    lines = attributing.correct(Path(data), span, TicketSettings(), LedgerSettings(dir=data))
    seconds = time.perf_counter() - start
    return sum(line.calls for line in lines), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(data: Path, span: attributing.Span) -> tuple[int, float, float]:
    """Corrections, seconds, MiB at most, of one run in a new process."""
    with ProcessPoolExecutor(1, SPAWN) as processes:
        return processes.submit(run, str(data), span).result()


def plain(data: Path) -> float:
    with analytics.open(data) as db:
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            db.execute("SELECT sum(list_cost_usd) FROM calls").fetchall()
            times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"calls": 1_000_000, "tickets": 20_000, "prs": 10_000, "days": 50}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        make(data, options.calls, options.tickets, options.prs, options.days)
        unit = plain(data)
        print(f"{options.calls:,} calls in {options.days} days; sum(list_cost_usd): {unit * 1000:.0f} ms")
        print(f"{'':<34}{'corrections':>12}{'seconds':>9}{'ratio':>8}{'MiB':>7}")
        everything, recent = attributing.Span(), attributing.Span(NOW - attributing.LOOK_BACK)
        for name, span in {
            "look at two days, all is new": recent,
            "look at two days, nothing is new": recent,
            "all calls, all is new": everything,
            "all calls, nothing is new": everything,
            "look at two days, after that": recent,
        }.items():
            written, seconds, memory = measured(data, span)
            print(f"{name:<34}{written:>12,}{seconds:>9.2f}{seconds / unit:>8.1f}{memory:>7.0f}")
        print(f"sum(list_cost_usd) afterwards: {plain(data) / unit:.1f} times as long")


if __name__ == "__main__":
    main()
