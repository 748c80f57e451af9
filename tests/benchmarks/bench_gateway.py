"""The gateway with everything on, beside a bare pass-through and, where installed, its peers: what a call costs.

`python tests/benchmarks/bench_gateway.py`; `--list` names the cells and targets. How to read it: docs/performance.md.
"""

import argparse
import contextlib
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.benchmarks.harness import measure, targets
from tests.benchmarks.harness.answers import Api
from tests.benchmarks.harness.bodies import Size
from tests.benchmarks.harness.load import Job, Outcome, Spread
from tests.benchmarks.harness.targets import Target

YARDSTICK = "bare"
FILES_PER_STREAM = 2
"""The gateway's, for each stream that it holds."""


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
            patience_seconds=600 if self.calls else 60,
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
LAG = {"lag2": Cell("two streams of 50 chunks, 10 ms apart", "small", True, "mock-c50d10", 2, calls=8)}
BESIDE = {"hol": Cell("8 streams, beside 40 requests of 500 kB a second", "small", True, "mock-c200d10", 8, calls=8)}
HOLD = {
    "hold1000": Cell("1,000 slow streams", "small", True, "mock-c10d1000", 1000, calls=1000, connects_per_second=300),
    "hold5000": Cell("5,000 slow streams", "small", True, "mock-c10d3000", 5000, calls=5000, connects_per_second=400),
}
MEMORY = {"mem": Cell("--calls calls of 1 kB", "small", False, "mock-c50d0", 32)}
CELLS = {**CPU, **LATENCY, **LAG, **BESIDE, **HOLD, **MEMORY}
DEFAULT_CELLS = (
    "ns_small", "ns_medium", "ns_large", "st50b", "st200b", "st50p", "st200p", "lat1", "lag2", "hol", "hold1000",
)  # fmt: skip
ONCE = (*HOLD, *MEMORY)
"""Cells that take long: in the first round only."""
LARGE = Cell("", "large", False, "mock-c50d0", 2)
LARGE_PER_SECOND = 40.0


class Row(msgspec.Struct):
    """What one run found."""

    round: int
    cell: str
    target: str
    figures: dict[str, float]
    errors: dict[str, int]


Found = tuple[dict[str, float], list[Outcome]]
"""What was measured, and the loads of which calls may have failed."""


class Bench:
    """A run over cells and targets."""

    def __init__(self, seconds: float, calls: int) -> None:
        self.seconds = seconds
        self.calls = calls
        self.rows: list[Row] = []
        self.complaints: list[str] = []

    def run(self, cells: Sequence[str], names: Sequence[str], rounds: int) -> None:
        """Each cell runs over all targets before the next begins, and all cells before the next round."""
        with tempfile.TemporaryDirectory(prefix="outlay-bench-") as folder, contextlib.ExitStack() as stack:
            self.folder = Path(folder)
            self.upstream_port = targets.free_port()
            self.direct = stack.enter_context(self.started("direct"))
            running = [self.direct if name == "direct" else stack.enter_context(self.started(name)) for name in names]
            for number in range(1, rounds + 1):
                for cell in cells:
                    for target in running if number == 1 or cell not in ONCE else ():
                        self.one(number, cell, target)

    @contextlib.contextmanager
    def started(self, name: str) -> Iterator[Target]:
        with targets.running(name, self.folder / f"{name}-{time.monotonic_ns()}", self.upstream_port) as target:
            yield target
        self.complaints += [f"{name}: {each}" for each in target.complaints]

    def one(self, number: int, name: str, target: Target) -> None:
        cell = CELLS[name]
        kind = next(kind for cells, kind in KINDS if name in cells)
        if cell.api not in target.recipe.apis or (target is self.direct and kind not in (cpu, beside_large)):
            return
        started = time.monotonic()
        figures, outcomes = kind(self, cell, target)
        errors = sum((Counter(outcome.errors) for outcome in outcomes), Counter[str]())
        self.rows.append(Row(number, name, target.name, figures, dict(errors)))
        told = "  ".join(f"{figure} {value:,.1f}" for figure, value in figures.items())
        marked = f"  ERRORS {dict(errors)}" if errors else ""
        took = f"{time.monotonic() - started:.1f} s"
        print(f"round {number}  {name:<11} {target.name:<14} {took:>7}  {told}{marked}", file=sys.stderr)

    def open_streams(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream_port}/_streams", timeout=10) as answer:
            return int(answer.read())


def of(found: Spread | None) -> Spread:
    """That of a load without any answer is all zero, and has errors beside it."""
    return found or Spread(0, 0, 0)


# -- kinds of cells ------------------------------------------------------------------------------------------------


def cpu(bench: Bench, cell: Cell, target: Target) -> Found:
    """Of all its processes, work after the answers included."""
    at_once = cell.model.rpartition("d")[0] + "d0"
    warm = target.load(msgspec.structs.replace(cell.job(), seconds=0.2, model=at_once))
    pids = target.pids()
    measure.settle(pids, 3)
    before = measure.cpu_ns(pids)
    outcome = target.load(msgspec.structs.replace(cell.job(), seconds=bench.seconds))
    measure.settle(pids)
    calls = outcome.ok + sum(outcome.errors.values())
    cpu_us = (measure.cpu_ns(pids) - before) / 1000 / max(1, calls)
    figures = {"cpu_us": cpu_us, "per_core": 1e6 / cpu_us, "reached": outcome.ok / outcome.seconds}
    if outcome.lag is not None:
        figures |= {"lag_p50_us": outcome.lag.p50, "lag_p99_us": outcome.lag.p99}
    return figures, [warm, outcome]


def latency(bench: Bench, cell: Cell, target: Target) -> Found:
    """What it adds to the same calls without it, just before."""
    without, outcome = bench.direct.load(cell.job()), target.load(cell.job())
    base, found = of(without.latency), of(outcome.latency)
    return {"added_p50_us": found.p50 - base.p50, "added_p99_us": found.p99 - base.p99}, [without, outcome]


def lag(bench: Bench, cell: Cell, target: Target) -> Found:
    """The same, to the first byte of a stream, and to each chunk."""
    without, outcome = bench.direct.load(cell.job()), target.load(cell.job())
    return {
        "first_byte_p50_us": of(outcome.first_byte).p50 - of(without.first_byte).p50,
        "chunk_p50_us": of(outcome.lag).p50 - of(without.lag).p50,
        "chunk_p99_us": of(outcome.lag).p99 - of(without.lag).p99,
    }, [without, outcome]


def beside_large(bench: Bench, cell: Cell, target: Target) -> Found:
    """Chunk lag of streams, alone and beside large requests."""
    alone = target.load(cell.job())
    large = msgspec.structs.replace(LARGE.job(), seconds=3.4, per_second=LARGE_PER_SECOND)
    with ThreadPoolExecutor(1) as pool:
        side = pool.submit(target.load, large)
        time.sleep(0.7)
        outcome = target.load(cell.job())
        beside = side.result()
    return {
        "alone_p99_us": of(alone.lag).p99,
        "beside_p99_us": of(outcome.lag).p99,
        "more_p99_us": of(outcome.lag).p99 - of(alone.lag).p99,
        "beside_max_us": of(outcome.lag).max,
        "large_p50_us": of(beside.latency).p50,
    }, [alone, outcome, beside]


def hold(bench: Bench, cell: Cell, target: Target) -> Found:
    """Memory for each of many slow streams, in a process that has done nothing else."""
    with bench.started(target.name) as fresh, ThreadPoolExecutor(1) as pool:
        before = most_memory = measure.memory_kb(fresh.pids())
        most_open = 0
        load = pool.submit(fresh.load, cell.job())
        while not load.done():
            time.sleep(0.5)
            if (now_open := bench.open_streams()) >= most_open:
                most_open, most_memory = now_open, measure.memory_kb(fresh.pids())
        outcome = load.result()
    return {
        "kb_each": (most_memory - before) / max(1, most_open),
        "most_open": most_open,
        "whole": outcome.ok,
        "first_byte_p99_us": of(outcome.first_byte).p99,
    }, [outcome]


def memory(bench: Bench, cell: Cell, target: Target) -> Found:
    """After a tenth, the half and all of many calls, in a process that has done nothing else."""
    figures, outcomes = {}, []
    with bench.started(target.name) as fresh:
        for name, share in (("tenth_mb", 0.1), ("half_mb", 0.4), ("all_mb", 0.5)):
            job = msgspec.structs.replace(cell.job(), calls=int(bench.calls * share), patience_seconds=3600)
            outcomes.append(fresh.load(job))
            measure.settle(fresh.pids())
            figures[name] = measure.memory_kb(fresh.pids()) / 1024
    figures["bytes_per_call"] = (figures["all_mb"] - figures["half_mb"]) * 2**20 / (bench.calls * 0.5)
    return figures, outcomes


KINDS: tuple[tuple[dict[str, Cell], Callable[[Bench, Cell, Target], Found]], ...] = (
    (CPU, cpu), (LATENCY, latency), (LAG, lag), (BESIDE, beside_large), (HOLD, hold), (MEMORY, memory),
)  # fmt: skip


# -- the tables ----------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One figure of one cell, a column for each target."""

    what: str
    cell: str
    figure: str
    has_ratio: bool = False
    places: int = 0


def tables() -> Iterator[tuple[str, list[Line]]]:
    yield "CPU, µs per call", [Line(f"{name}: {cell.what}", name, "cpu_us", True) for name, cell in CPU.items()]
    yield "CPU, µs per chunk of a stream", [
        Line("all at once", "st200b-st50b", "cpu_us", True, 2), Line("10 ms apart", "st200p-st50p", "cpu_us", True, 2),
    ]  # fmt: skip
    yield (
        "Calls a second, per core (a million by the CPU per call)",
        [
            Line(name, name, "per_core", True)
            for name in ("ns_small", "ns_medium", "ns_large", "st50b", "st200b", "msg_ns")
        ],
    )
    yield (
        "Calls a second that were reached",
        [Line(name, name, "reached") for name in ("ns_small", "ns_medium", "ns_large", "st50b", "st200b", "msg_ns")],
    )
    yield "Added latency, µs (minus the same without a gateway, just before)", [
        *(
            Line(f"{name}: {cell.what}, {share}", name, f"added_{share}_us")
            for name, cell in LATENCY.items()
            for share in ("p50", "p99")
        ),
        *(Line(f"lag2: {text}", "lag2", figure) for text, figure in (
            ("first byte of a stream, p50", "first_byte_p50_us"), ("chunk, p50", "chunk_p50_us"),
            ("chunk, p99", "chunk_p99_us"),
        )),
    ]  # fmt: skip
    yield (
        "Chunk lag, µs (from the upstream's write to the client)",
        [
            *(Line(f"st200p: 16 streams, {p}", "st200p", f"lag_{p}_us") for p in ("p50", "p99")),
            Line("hol: 8 streams, p99", "hol", "alone_p99_us"),
            Line("hol: beside large requests, p99", "hol", "beside_p99_us"),
            Line("hol: the difference", "hol", "more_p99_us"),
        ],
    )
    yield "Memory", [
        *(
            Line(f"{name}: {text}", name, figure, figure == "kb_each", int(figure == "kb_each"))
            for name in HOLD
            for text, figure in (("kB per stream", "kb_each"), ("most at once", "most_open"), ("whole", "whole"))
        ),
        *(Line(f"mem: MB after {text}", "mem", f"{name}_mb", places=1) for text, name in (
            ("a tenth", "tenth"), ("the half", "half"), ("all", "all"),
        )),
        Line("mem: bytes per call of the second half", "mem", "bytes_per_call", places=1),
    ]  # fmt: skip


def values(rows: Sequence[Row], line: Line, target: str) -> dict[int, float]:
    """By round. A cell `a-b` is the difference per chunk."""
    name, _, minus = line.cell.partition("-")
    found = {row.round: row.figures[line.figure] for row in rows if (row.cell, row.target) == (name, target)}
    if not minus:
        return found
    base = values(rows, line._replace(cell=minus), target)
    return {number: (value - base[number]) / 150 for number, value in found.items() if number in base}


def shown(rows: Sequence[Row], line: Line, target: str) -> str:
    """The median of the rounds and, in brackets, that of the rounds' ratios to the yardstick."""
    found, base = values(rows, line, target), values(rows, line, YARDSTICK)
    if not found:
        return "–"
    text = f"{statistics.median(found.values()):,.{line.places}f}"
    ratios = [value / base[number] for number, value in found.items() if base.get(number)]
    if line.has_ratio and ratios and target not in ("direct", YARDSTICK):
        text += f" ({statistics.median(ratios):.2f} ×)"
    failed = any(row.errors for row in rows if row.target == target and row.cell in line.cell.split("-"))
    return f"{text} !" if failed else text


def report(rows: Sequence[Row], names: Sequence[str]) -> str:
    parts = []
    for title, lines in tables():
        cells = [[line.what, *(shown(rows, line, name) for name in names)] for line in lines]
        cells = [row for row in cells if any(text != "–" for text in row[1:])]
        if cells:
            parts.append("\n".join(_table([[title, *names], *cells])))
    return "\n\n".join(parts)


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        texts = (
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"| {' | '.join(texts)} |"
        if not number:
            yield "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"


def commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=targets.ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def conditions(measured: str, seconds: float, rounds: int) -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {measured}, Python {platform.python_version()}, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; median of {rounds} rounds of "
        f"{seconds:g} s; ×: to {YARDSTICK}, in the same round; !: with errors"
    )


# -- the command ---------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the cells and targets")
    parser.add_argument("--cells", help=f"by default {','.join(DEFAULT_CELLS)}", metavar="A,B")
    parser.add_argument("--targets", help="by default bare, outlay and the peers that are there", metavar="A,B")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.7, metavar="S", help="of each cell of CPU; default 0.7")
    parser.add_argument("--calls", type=int, default=20_000, metavar="N", help="of the cell mem; default 20000")
    parser.add_argument("--json", action="store_true", help="print what each run found, not tables")
    options = parser.parse_args(arguments)
    missing = {name: reason for name in targets.PEERS if (reason := targets.absent(name))}
    if options.list:
        print("\n".join(f"{name:<12} {cell.what}" for name, cell in CELLS.items()))
        print("\n".join(f"{name:<15}{missing.get(name, 'here')}" for name in targets.RECIPES))
        return 0
    cells = options.cells.split(",") if options.cells else DEFAULT_CELLS
    chosen = [name for name in ("bare", "outlay", *targets.PEERS) if name not in missing]
    names = options.targets.split(",") if options.targets else chosen
    for name in (*cells, *names):
        if name not in CELLS and name not in targets.RECIPES:
            parser.error(f"{name} is no cell and no target: see --list")
        if name in names and name in missing:
            parser.error(f"{name} is absent: {missing[name]}")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = max(FILES_PER_STREAM * CELLS[name].connections for name in cells) + 200
    if most != resource.RLIM_INFINITY and needed > most:
        parser.error(f"these cells need {needed:,} open files, and {most:,} is the hard limit (ulimit -Hn)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bench, measured = Bench(options.seconds, options.calls), commit()
    try:
        bench.run(cells, names, options.rounds)
    except targets.NotUpError as error:
        sys.exit(str(error))
    if options.json:
        print(msgspec.json.encode(bench.rows).decode())
    else:
        print(f"{conditions(measured, options.seconds, options.rounds)}\n\n{report(bench.rows, names)}")
        print("".join(f"\nabsent: {name}: {reason}" for name, reason in missing.items()))
    for row in bench.rows:
        if row.errors:
            print(f"errors: round {row.round}, {row.cell}, {row.target}: {row.errors}", file=sys.stderr)
    for complaint in bench.complaints:
        print(f"NOT VALID: {complaint}", file=sys.stderr)
    return 1 if bench.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
