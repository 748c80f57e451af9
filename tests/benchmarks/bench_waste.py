"""What looking for waste costs: `python -m tests.benchmarks.bench_waste [--calls N] [--days D]`

Time and memory of one look of the keeper (all rules, the claims, and writing both down), in a process of its own, by
relation, and the ratio of the whole to `SELECT sum(list_cost_usd) FROM calls`. The made-up calls are sessions of honest
work with the plants of `tests.wasteful` among them.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

import analytics
from analytics import lake, waste, work
from gateway.config import Config, WasteSettings
from gateway.prices import load_prices
from tests import wasteful

SPAWN = multiprocessing.get_context("spawn")
RUNS = 3
THREADS = 2
TICKETS = 20_000
CALLS = """
SELECT * EXCLUDE (day, task, place, fate, size) FROM (
  (FROM booked_calls LIMIT 0)
  UNION ALL BY NAME
  SELECT
    i // 25 AS task, i % 25 AS place, hash(task) % 100 AS fate,
    3000 + CAST(hash(task, 1) % 30000 AS BIGINT) AS size,
    format('{}-{:x}', CAST($day AS DATE), i) AS call_id, call_id AS request_id, 1 AS attempt,
    CAST($day AS TIMESTAMP) + to_seconds(CAST(hash(task, 2) % 70000 + place * 40 + hash(i) % 20 AS BIGINT))
      AS started_at,
    started_at + INTERVAL 5 SECOND AS recorded_at, 5000 AS duration_ms, 600 AS first_byte_ms,
    'team-' || hash(task, 3) % 20 AS team_id, 'user-' || hash(task, 4) % 200 AS user_id,
    ['claude-code', 'codex', 'aider'][CAST(hash(task, 5) % 3 + 1 AS INTEGER)] AS client, 'main' AS agent,
    'model-' || hash(task, 6) % 6 AS request_model, request_model AS response_model, 'openai' AS provider,
    'openai' AS upstream, 'completed' AS result, 200 AS status, 'stop' AS finish_reason, 'reported' AS usage_source,
    CASE WHEN fate < 20 THEN [] ELSE ['WEB-' || hash(task, 7) % $tickets + 1] END AS tickets, tickets[1] AS ticket_id,
    CASE WHEN fate < 20 THEN 'none' ELSE 'branch' END AS ticket_source, [] AS ticket_candidates,
    concat('session-', CAST($day AS DATE), '-', task) AS session_id, session_id AS task_id,
    size + 300 * place AS input_tokens, CASE WHEN place > 0 THEN size ELSE 0 END AS cache_read_input_tokens,
    CASE WHEN place > 0 THEN 250 ELSE size END AS cache_write_input_tokens,
    CAST(hash(i, 8) % 900 AS BIGINT) AS output_tokens, CAST(hash(i, 9) % 300 AS BIGINT) AS reasoning_output_tokens,
    (input_tokens - cache_read_input_tokens - cache_write_input_tokens) * 0.000003 AS input_cost_usd,
    cache_read_input_tokens * 0.0000003 AS cache_read_cost_usd,
    cache_write_input_tokens * 0.00000375 AS cache_write_cost_usd,
    output_tokens * 0.000015 AS output_cost_usd,
    CAST(input_cost_usd + cache_read_cost_usd + cache_write_cost_usd + output_cost_usd AS DECIMAL(18,9))
      AS list_cost_usd,
    list_cost_usd AS contracted_cost_usd, 'exact' AS price_status, request_model AS price_id,
    2 * place + 1 AS message_count, 20 AS tool_count, 4000 AS tool_schema_tokens,
    CAST(hash(i, 10) % 3 AS BIGINT) AS tool_calls,
    CAST(hash(i, 11) % 2 AS BIGINT) AS edits, place % 8 = 0 AS human_turn, sha256(call_id) AS request_hash,
    sha256(concat('p', session_id)) AS prefix_hash, 3000 AS prefix_tokens, sha256(concat('a', call_id)) AS action_hash,
    'made' AS segment
  FROM range($calls) AS numbers(i)
)
"""


def make(data: Path, calls: int, days: int) -> int:
    """A folder of sealed days before the moment of judgement, with plants. Returns the number of calls."""
    lake.publish(data)
    state: list[lake.Row] = []
    with analytics.open(data) as db:
        for number in range(days):
            day = wasteful.AS_OF.date() - timedelta(days=days - number)
            lake.day_folder(data, day).mkdir()
            path = lake.day_file(data, day)
            db.sql(CALLS, params={"day": day, "calls": calls // days, "tickets": TICKETS}).write_parquet(
                str(path), compression="zstd"
            )
            with duckdb.connect() as sums:
                state.append(lake.Row("closed", day, None, *lake.file_sums(sums, path)))
    lake.write_state(data, state)
    plan = wasteful.make(1)
    plan.rows["tickets"] += [work.Ticket(ticket_id=f"WEB-{n}", status_category="todo") for n in range(1, TICKETS + 1)]
    wasteful.store(data, plan)
    return calls // days * days + len(plan.calls)


class Timed:
    """A connection that says how long statements took."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db
        self.seconds: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, query: str, *parameters: Any) -> Any:
        start = time.perf_counter()
        result = self._db.execute(query, *parameters)
        if query.startswith("CREATE TABLE made_"):
            self.seconds[query.split()[2].removeprefix("made_")] = time.perf_counter() - start
        return result


def run(data: str) -> tuple[dict[str, float], float, float, float, int, float]:
    book = load_prices(Config())
    with lake.scratch(Path(data), threads=THREADS) as db:
        db.execute("SET enable_progress_bar = false")
        timed: Any = Timed(db)
        start, before = time.perf_counter(), time.process_time()
        news = waste.look(timed, Path(data), WasteSettings(), book, wasteful.AS_OF)
        seconds, busy = time.perf_counter() - start, time.process_time() - before
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return timed.seconds, seconds, busy, memory, news.findings, news.claimed_nano / 1e9


def plain(data: Path) -> float:
    with analytics.open(data) as db:
        db.execute(f"SET threads = {THREADS}")
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            db.execute("SELECT sum(list_cost_usd) FROM calls").fetchall()
            times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        calls = make(data, options.calls, options.days)
        unit = plain(data)
        print(f"{calls:,} calls in {options.days} days; sum(list_cost_usd): {unit * 1000:.0f} ms")
        with ProcessPoolExecutor(1, SPAWN) as processes:
            by_relation, seconds, busy, memory, findings, usd = processes.submit(run, str(data)).result()
        for name, taken in sorted(by_relation.items(), key=lambda item: -item[1]):
            print(f"{name:<24}{taken:>8.2f} s")
        print(f"{'everything':<24}{seconds:>8.2f} s, {busy:.1f} s of processor time, {memory:.0f} MiB")
        print(f"{seconds / unit:.0f} times the sum")
        print(f"{findings:,} findings claim {usd:,.2f} USD")


if __name__ == "__main__":
    main()
