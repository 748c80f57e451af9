"""What a process and its children use: CPU by the scheduler's clock, memory by proportional set size. Linux only."""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def tree(pid: int, without: str | None = None) -> list[int]:
    """The process and all below it, but those whose command line holds `without`."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return [each for each in found if without is None or without not in _command(each)]


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_text()
    except OSError:
        return ""


def cpu_ns(pids: Iterable[int]) -> int:
    """On a CPU until now, all living threads together."""
    total = 0
    for pid in pids:
        for thread in (PROC / str(pid) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(thread.read_text().split()[0])
    return total


def memory_kb(pids: Iterable[int]) -> int:
    """Pages that several processes share count in parts."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total


def settle(pids: list[int], most_seconds: float = 6.0) -> None:
    """Wait until late work, such as writing down, has died down: less than a twentieth of a core."""
    until, before = time.monotonic() + most_seconds, cpu_ns(pids)
    while time.monotonic() < until:
        time.sleep(0.1)
        now = cpu_ns(pids)
        if now - before < 0.1 * 1e9 / 20:
            return
        before = now
