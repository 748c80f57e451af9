"""What marts and reports cost in a large organisation: `python -m tests.benchmarks.bench_marts [--rows N]`.

Prints for each mart, summed up, for each query of a report, and for each report as a command, from its start to its
end, the best of some runs, in seconds and seconds of CPU, and how often that is what it takes to sum one column of all
calls; then what it took to store the work tables with a long history.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import analytics
from analytics import build, findings, work
from tests.benchmarks.harness import organisation

RUNS = 3
MARTS = ("ticket_costs", "task_costs", "outcome_costs", "unattributed_spend", "overhead_spend")
REPORTS = ("tickets", "tasks", "tickets_by", "tasks_by")
COMMANDS = (
    "--help", "report tickets", "report tickets --by project", "report tickets --as-of 2026-09-15", "report tasks",
    "report tasks --by outcome", "report spend", "report spend --by ticket", "report spend --by task",
    "report coverage", "report waste", "report waste --by team", "report invoices", "report invoices --by day",
    "report budgets", "report budgets --shadow --from 2026-09-01 --to 2026-09-30", "report scorecard",
)  # fmt: skip
SPANS = {"all days": (date.min, date.max), "a month": (date(2026, 9, 1), date(2026, 10, 1))}


def best(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU, of this process and of those that it waited for."""
    times = []
    for _ in range(RUNS):
        wall, before = time.perf_counter(), os.times()
        run()
        wall, after = time.perf_counter() - wall, os.times()
        times.append((wall, sum(after[:4]) - sum(before[:4])))
    return min(times)


def outlay(data: Path, command: str) -> None:
    of_data = [] if command == "--help" else ["--data", str(data)]
    subprocess.run(
        [sys.executable, "-m", "gateway", *command.split(), *of_data],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def remember(data: Path, versions: int) -> float:
    """Change all tickets so often; the seconds that the last time took, for a single ticket."""
    with analytics.open(data) as db:
        found = db.execute("SELECT ticket_id, project, title, updated_at FROM tickets").fetchall()
    took = 0.0
    for version in range(versions):
        rows = [
            work.Ticket(
                ticket_id=key, project=project, title=title, status=f"{version}", updated_at=at + timedelta(version)
            )
            for key, project, title, at in found
        ]
        with work.alone(data):
            work.spool(data, "tickets", rows if version < versions - 1 else rows[:1])
            start = time.perf_counter()
            work.store(data, "tickets")
            took = time.perf_counter() - start
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="Keep the folder here, or use the one that is here.")
    parser.add_argument("--versions", type=int, default=0, help="Change all tickets so often before the end.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "data"
        if not data.exists():
            organisation.make(data, organisation.Size(calls=options.rows))
        with analytics.open(data) as db:
            [(calls,)] = db.execute("SELECT count(*) FROM calls").fetchall()
            plain = best(lambda: db.execute("SELECT sum(list_cost_usd) FROM calls").fetchall())
            print(f"{calls:,} calls; seconds, of CPU, times a plain sum ({plain[0]:.2f}, {plain[1]:.2f})")
            total = 0.0
            for mart in MARTS:
                wall, cpu = best(lambda mart=mart: db.execute(f"SELECT max(columns(*)) FROM {mart}").fetchall())  # type: ignore[misc]
                total += wall
                print(f"{mart:<48}{wall:>8.2f}{cpu:>8.2f}{cpu / plain[1]:>8.1f}")
            print(f"{'all marts':<48}{total:>8.2f}")
            db.execute("SET VARIABLE dimension = 'outcome'")
            for report in REPORTS:
                query = (build.FOLDER / "queries" / f"{report}.sql").read_text(encoding="utf-8")
                for span, (first, last) in SPANS.items():
                    given = {"from": first, "to": last, "team": None, "sort": "cost", "limit": 30}
                    wall, cpu = best(lambda query=query, given=given: db.execute(query, given).fetchall())  # type: ignore[misc]
                    print(f"{'report ' + report + ', ' + span:<48}{wall:>8.2f}{cpu:>8.2f}{cpu / plain[1]:>8.1f}")
        if findings.looked_at(data) is None:
            outlay(data, "findings look")
        for command in COMMANDS:
            wall, cpu = best(lambda command=command: outlay(data, command))  # type: ignore[misc]
            print(f"{command.removeprefix('report '):<48}{wall:>8.2f}{cpu:>8.2f}{cpu / plain[1]:>8.1f}", flush=True)
        print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
        if options.versions:
            took = remember(data, options.versions)
            size = work.table_file(data, "ticket_versions").stat().st_size
            print(f"one ticket changed, {options.versions} versions of each there: {took:.2f} s, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
