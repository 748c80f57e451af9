"""The gateway with everything on, beside a bare pass-through and, where installed, its peers: what a call costs.

`python tests/benchmarks/bench_gateway.py [--cells …] [--targets …] [--rounds N] [--seconds S]`; `--list` tells both names.
How to read it: docs/performance.md. The parts are in `harness/`; peers are named there, in `targets`.
"""

import argparse
import contextlib
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.benchmarks.harness import measure, targets
from tests.benchmarks.harness.answers import Api
from tests.benchmarks.harness.bodies import Size
from tests.benchmarks.harness.load import Job, Outcome
from tests.benchmarks.harness.targets import Target

YARDSTICK = "bare"


class Cell(NamedTuple):
    """One kind of work."""

    what: str
    size: Size
    stream: bool
    model: str
    connections: int
    api: Api = "chat"
    calls: int = 0
    connects_per_second: float = 0.0

    def job(self) -> Job:
        return Job(
            port=0, headers={}, api=self.api, size=self.size, model=self.model, stream=self.stream,
            connections=self.connections, calls=self.calls, connects_per_second=self.connects_per_second,
        )  # fmt: skip


CPU = {
    "ns_small": Cell("1 kB, not streamed", "small", False, "mock-c50d0", 32),
    "ns_medium": Cell("30 kB, an agent's turn", "medium", False, "mock-c50d0", 32),
    "ns_large": Cell("500 kB", "large", False, "mock-c50d0", 8),
    "st50b": Cell("a stream of 50 chunks, all at once", "small", True, "mock-c50d0", 8),
    "st200b": Cell("200 chunks, all at once", "small", True, "mock-c200d0", 8),
    "st50p": Cell("50 chunks, 10 ms apart", "small", True, "mock-c50d10", 16),
    "st200p": Cell("200 chunks, 10 ms apart", "small", True, "mock-c200d10", 16),
    "msg_ns": Cell("Anthropic messages, 30 kB", "medium", False, "claude-mock-c50d0", 32, "messages"),
    "msg_st200p": Cell("the same, 200 chunks, 10 ms apart", "medium", True, "claude-mock-c200d10", 16, "messages"),
    "resp_st200p": Cell("OpenAI responses, the same", "medium", True, "mock-c200d10", 16, "responses"),
}
LATENCY = {
    "lat1": Cell("1 kB, one connection", "small", False, "mock-c50d0", 1, calls=500),
    "lat1_medium": Cell("30 kB, one connection", "medium", False, "mock-c50d0", 1, calls=500),
}
LAG = {"lag2": Cell("two streams of 50 chunks, 10 ms apart", "small", True, "mock-c50d10", 2, calls=12)}
HOL = {"hol": Cell("streams beside 40 requests of 500 kB a second", "small", True, "mock-c200d10", 8, calls=16)}
HOLD = {
    "hold1000": Cell("1,000 slow streams at once", "small", True, "mock-c20d1000", 1000, calls=1000, connects_per_second=200),
    "hold5000": Cell("5,000 slow streams at once", "small", True, "mock-c10d3000", 5000, calls=5000, connects_per_second=400),
}  # fmt: skip
MEM = {"mem": Cell("memory over --calls calls", "small", False, "mock-c50d0", 32)}
CELLS = {**CPU, **LATENCY, **LAG, **HOL, **HOLD, **MEM}
DEFAULT_CELLS = [name for name in CELLS if name not in ("msg_ns", "msg_st200p", "resp_st200p", "hold5000", "mem")]
BESIDE = Cell("", "large", False, "mock-c50d0", 2)
BESIDE_PER_SECOND = 40.0


class Row(msgspec.Struct):
    """What one run found."""

    round: int
    cell: str
    target: str
    figures: dict[str, float]
    errors: dict[str, int]


class Bench:
    """A run over cells and targets."""

    def __init__(self, seconds: float, calls: int, console: bool) -> None:
        self.seconds = seconds
        self.calls = calls
        self.console = console
        self.rows: list[Row] = []
        self.complaints: list[str] = []

    def run(self, cells: Sequence[str], names: Sequence[str], rounds: int) -> None:
        """Rounds are interleaved: each cell runs over all targets before the next begins."""
        with tempfile.TemporaryDirectory(prefix="outlay-bench-") as folder, contextlib.ExitStack() as stack:
            self.folder = Path(folder)
            self.upstream_port = targets.free_port()
            self.direct = stack.enter_context(self.started("direct"))
            up = {name: self.direct if name == "direct" else stack.enter_context(self.started(name)) for name in names}
            for number in range(1, rounds + 1):
                for cell in cells:
                    for target in up.values():
                        self.one(number, cell, target)

    @contextlib.contextmanager
    def started(self, name: str):  # type: ignore[no-untyped-def]
        folder = self.folder / f"{name}-{time.monotonic_ns()}"
        with targets.running(name, folder, self.upstream_port, self.console) as target:
            yield target
        self.complaints += [f"{name}: {each}" for each in target.complaints]

    def one(self, number: int, name: str, target: Target) -> None:
        cell = CELLS[name]
        measured = next(found for kinds, found in KINDS if name in kinds)
        if cell.api not in target.recipe.apis or (target is self.direct and measured is not cpu):
            return
        started = time.monotonic()
        figures, outcomes = measured(self, cell, target)
        errors: dict[str, int] = {}
        for outcome in outcomes:
            for error, count in outcome.errors.items():
                errors[error] = errors.get(error, 0) + count
        self.rows.append(Row(number, name, target.name, figures, errors))
        told = "  ".join(f"{key} {value:,.1f}" for key, value in figures.items())
        print(
            f"{number}  {name:<12} {target.name:<11} {told}{'  ERRORS ' + str(errors) if errors else ''}"
            f"  ({time.monotonic() - started:.1f} s)", file=sys.stderr,
        )  # fmt: skip


Found = tuple[dict[str, float], list[Outcome]]


def cpu(bench: Bench, cell: Cell, target: Target) -> Found:
    """Microseconds per call of all its processes, late work included."""
    warm = target.load(msgspec.structs.replace(cell.job(), seconds=0.2))
    pids = target.pids()
    measure.settle(pids, 3)
    before = measure.cpu_ns(pids)
    outcome = target.load(msgspec.structs.replace(cell.job(), seconds=bench.seconds))
    measure.settle(pids)
    calls = outcome.ok + sum(outcome.errors.values())
    figures = {"cpu_us": (measure.cpu_ns(pids) - before) / 1000 / max(1, calls), "per_second": calls / outcome.seconds}
    if outcome.lag is not None:
        figures |= {"lag_p50_us": outcome.lag.p50, "lag_p99_us": outcome.lag.p99}
    return figures, [warm, outcome]


KINDS: tuple[tuple[dict[str, Cell], Callable[[Bench, Cell, Target], Found]], ...] = ((CPU, cpu),)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default=",".join(DEFAULT_CELLS))
    parser.add_argument("--targets", default=",".join(targets.NAMES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--console", action="store_true")
    options = parser.parse_args(arguments)
    cells = [c for c in options.cells.split(",") if any(c in k for k, _ in KINDS)]
    bench = Bench(options.seconds, options.calls, options.console)
    bench.run(cells, options.targets.split(","), options.rounds)
    for cell in cells:
        print(
            f"{cell:<12}"
            + "".join(
                f"{t:>12}{statistics.median(r.figures['cpu_us'] for r in bench.rows if r.cell == cell and r.target == t):>9,.0f}"
                for t in options.targets.split(",")
            )
        )
    print(bench.complaints)
    return 1 if bench.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
