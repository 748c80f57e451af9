"""What the views cost over a plain list of files: `python -m tests.benchmarks.bench_lake [--rows N] [--days D]`.

Prints for each query the best of some runs, in milliseconds, and the ratio; `few` is the same with a thousand
corrections in three days, `1%` with each hundredth call corrected. The made-up folder has all days but one in a file
each, one day in a file per segment, and a live journal.
"""

import argparse
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb

import analytics
from analytics import build, lake
from tests.journals import NOON, call, segment

RUNS = 6
PARTS = 288
LIVE = 5_000
FIRST_DAY = date(2026, 1, 1)
CALLS = """
SELECT * EXCLUDE (day) FROM (
  (FROM booked_calls LIMIT 0)
  UNION ALL BY NAME
  SELECT
    CAST(uuid() AS VARCHAR) AS call_id, CAST($day AS TIMESTAMP) + to_seconds(i * 7919 % 86400) AS started_at,
    CAST($day AS TIMESTAMP) + to_microseconds(i * (86400000000 // $calls)) AS recorded_at,
    'team-' || hash(i) % 20 AS team_id, 'm-' || hash(i + 2) % 8 AS request_model,
    ['PAY-' || hash(i + 1) % 2000] AS tickets, tickets[1] AS ticket_id, 'task-' || hash(i + 3) % 20000 AS task_id,
    CAST(hash(i) % 100000 AS BIGINT) AS input_tokens,
    CAST(hash(i) % 1000000000 * 0.000000001 AS DECIMAL(18,9)) AS list_cost_usd,
    'exact' AS price_status, sha256(CAST(i AS VARCHAR)) AS request_hash, $segment AS segment
  FROM range($calls) AS numbers(i)
)
"""
CORRECTED = {
    "few": "day(day) = 3 AND month(day) < 4 AND hash(call_id) % 300 = 0",
    "1%": "hash(call_id) % 100 = 0",
}
CORRECTIONS = """
SELECT * EXCLUDE (day), 'price' AS correction, now()::TIMESTAMP AS corrected_at FROM booked_calls WHERE
"""
QUERIES = {
    "count": "SELECT count(*) FROM {}",
    "sum": "SELECT sum(list_cost_usd) FROM {}",
    "day x team": "SELECT CAST(started_at AS DATE) AS d, team_id, sum(list_cost_usd) FROM {} GROUP BY ALL",
    "top tickets": "SELECT ticket_id, sum(list_cost_usd) AS s FROM {} GROUP BY ALL ORDER BY s DESC LIMIT 100",
    "one day": "SELECT team_id, sum(list_cost_usd) FROM {} WHERE day = DATE '2026-01-03' GROUP BY ALL",
    "started on a day": "SELECT sum(list_cost_usd) FROM {} WHERE CAST(started_at AS DATE) = DATE '2026-01-03'",
    "last 20 calls": "SELECT call_id, started_at, list_cost_usd FROM {} ORDER BY started_at DESC LIMIT 20",
    "last 20 of a day": "SELECT call_id FROM {} WHERE day = DATE '2026-01-03' ORDER BY started_at DESC LIMIT 20",
}


def make(data: Path, rows: int, days: int) -> None:
    lake.publish(data)
    state: list[lake.Row] = []
    with analytics.open(data) as db:
        for number in range(days):
            day = FIRST_DAY + timedelta(days=number)
            lake.day_folder(data, day).mkdir()
            names = ["whole"] if number < days - 1 else [f"s{part}" for part in range(PARTS)]
            for name in names:
                calls = rows // days // len(names)
                whole = name == "whole"
                path = lake.day_file(data, day) if whole else lake.part_file(data, day, name)
                db.sql(CALLS, params={"day": day, "segment": name, "calls": calls}).write_parquet(
                    str(path), compression="zstd"
                )
                state.append(lake.Row("closed" if whole else "sealed", day, None if whole else name, calls, 0))
    lake.write_state(data, state)
    segment(data, [call() for _ in range(LIVE)], at=NOON)


def best(db: duckdb.DuckDBPyConnection, query: str) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        db.execute(query).fetchall()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        make(data, options.rows, options.days)
        with duckdb.connect() as db:
            build.create_views(db, data, build.load())
            files = (
                "[" + ", ".join(build.literal(str(path)) for path in sorted(data.glob("calls/day=*/*.parquet"))) + "]"
            )
            db.execute(
                f"CREATE VIEW listed AS FROM read_parquet({files}, hive_partitioning = true) "
                "UNION ALL BY NAME SELECT * EXCLUDE (correction, corrected_at) FROM journal_entries"
            )
            times = {
                name: [best(db, query.format("listed")), best(db, query.format("calls"))]
                for name, query in QUERIES.items()
            }
            lake.day_folder(data, NOON.date(), "corrections").mkdir()
            for condition in CORRECTED.values():
                corrections = db.sql(CORRECTIONS + condition)
                row = lake.Row("sealed", NOON.date(), "fix", 0, 0, len(corrections))
                corrections.write_parquet(str(lake.part_file(data, NOON.date(), "fix", "corrections")))
                lake.write_state(data, [row, *(row for row in lake.read_state(data) if row.segment != "fix")])
                for name, query in QUERIES.items():
                    times[name].append(best(db, query.format("calls")))
        print(f"{options.rows:,} calls in {options.days} days")
        print(f"{'query':<20}" + "".join(f"{name:>9}" for name in ("listed", "calls", "ratio", *CORRECTED)))
        for name, (listed, calls, *corrected) in times.items():
            rest = "".join(f"{value:>7.0f}ms" for value in corrected)
            print(f"{name:<20}{listed:>7.0f}ms{calls:>7.0f}ms{calls / listed:>9.2f}{rest}")


if __name__ == "__main__":
    main()
