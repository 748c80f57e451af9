"""How long pages of the console take in a large organisation: `python -m tests.benchmarks.bench_console [--calls N]`

Wall seconds and seconds of CPU of each page for the first viewer after the start, and for the next one, over HTTP on
this machine, with the database that the console makes at its start. Calls are those of `harness.organisation`.
"""

import argparse
import asyncio
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import analytics
from analytics import scorecard
from analytics.web import asking
from tests import consoles
from tests.benchmarks.harness import organisation


async def look(data: Path) -> None:
    with analytics.open(data) as db:
        [(last, calls)] = db.execute("SELECT max(started_at), count(*) FROM calls").fetchall()
        [(ticket, task)] = db.execute(
            "SELECT ticket_id, task_id FROM calls WHERE ticket_id IS NOT NULL LIMIT 1"
        ).fetchall()
    scorecard.look(data)
    month = f"from={(last - timedelta(days=29)).date()}&to={last.date()}"
    print(f"{calls:,} calls; seconds, of CPU; again: seconds")
    async with consoles.looking(consoles.config(data), "viewer", base=asking.PAGES) as viewer:
        start, cpu = time.perf_counter(), time.process_time()
        await viewer.get("/spend?period=7d&by=day")
        print(f"{'made at the start':<28}{time.perf_counter() - start:>8.2f}{time.process_time() - cpu:>8.2f}")
        for name, path in {
            "overview": f"/?{month}", "spend by model": f"/spend?{month}&by=model", "tickets": f"/tickets?{month}",
            "delivered nothing": f"/tickets?{month}&only=nothing", "a ticket": f"/tickets/{ticket}",
            "a task": f"/tasks/{task}", "calls": f"/calls?{month}", "waste": f"/waste?{month}",
            "scorecard": f"/scorecard?{month}", "coverage": f"/coverage?{month}",
        }.items():  # fmt: skip
            took = []
            for _ in range(2):
                start, cpu = time.perf_counter(), time.process_time()
                await viewer.get(path)
                took.append((time.perf_counter() - start, time.process_time() - cpu))
            print(f"{name:<28}{took[0][0]:>8.2f}{took[0][1]:>8.2f}{took[1][0]:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="Keep the folder here, or use the one that is here.")
    options = parser.parse_args()
    os.environ |= {f"CONSOLE_{role.upper()}": secret for role, secret in consoles.SECRETS.items()}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "data"
        if not data.exists():
            organisation.make(data, organisation.Size(calls=options.calls))
        asyncio.run(look(data))


if __name__ == "__main__":
    main()
