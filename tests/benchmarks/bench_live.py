"""What live answers cost: `python -m tests.benchmarks.bench_live [--rows N] [--days D]`.

Prints for each kind of question, asked for one name and for a hundred at once, the best of some runs: wall-clock and
CPU time in milliseconds; `few` and `1%` with corrections as in bench_lake, whose folder this is. Each task and ticket
of it has calls on all days, which is worse than in life.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import analytics
from analytics import lake, live
from gateway.control import Kind
from tests.benchmarks.bench_lake import CORRECTED, CORRECTIONS, FIRST_DAY, RUNS, make
from tests.journals import NOON

NAMES: dict[Kind, str] = {"keys": "key_{}", "tasks": "task-{}", "tickets": "PAY-{}"}


def best(of: live.Live, kind: Kind, count: int) -> str:
    names = [NAMES[kind].format(number) for number in range(count)]
    times = []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        of._query(kind, names)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(times)
    return f"{wall * 1000:>8.0f} ({cpu * 1000:.0f})".rjust(16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        make(data, options.rows, options.days)
        last = datetime.combine(FIRST_DAY + timedelta(days=options.days - 1), NOON.timetz(), UTC)
        of = live.Live(data, lambda: last)
        rows = [(kind, count) for kind in NAMES for count in (1, 100)]
        shown = {row: [best(of, *row)] for row in rows}
        lake.day_folder(data, NOON.date(), "corrections").mkdir()
        for condition in CORRECTED.values():
            with analytics.open(data) as db:
                corrections = db.sql(CORRECTIONS + condition)
                row = lake.Row("sealed", NOON.date(), "fix", 0, 0, len(corrections))
                corrections.write_parquet(str(lake.part_file(data, NOON.date(), "fix", "corrections")))
            lake.write_state(data, [row, *(row for row in lake.read_state(data) if row.segment != "fix")])
            for each in rows:
                shown[each].append(best(of, *each))
        print(f"{options.rows:,} calls in {options.days} days: ms (ms of CPU)")
        print("question".ljust(16) + "".join(name.rjust(16) for name in ("calls", *CORRECTED)))
        for (kind, count), times in shown.items():
            print(f"{count:>4} {kind:<11}" + "".join(times))


if __name__ == "__main__":
    main()
