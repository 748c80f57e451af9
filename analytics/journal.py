"""Reads a journal segment record by record, with its checksums, which DuckDB does not look at."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway import ledger

CHECKSUM = re.compile(rb',"crc":"[0-9a-f]{8}"}$')
"""Ends a line that was written whole: one that does not fit it was damaged later, not cut off by a crash."""


class Sums(NamedTuple):
    """Numbers of calls and of corrections, with the list cost (nano-USD, 0 when unpriced) that each of them states."""

    calls: int
    list_cost_nano: int
    corrections: int
    corrections_nano: int


def total(sums: Iterable[Sums]) -> Sums:
    return Sums(*map(sum, zip(Sums(0, 0, 0, 0), *sums, strict=True)))


@dataclass
class Contents:
    """What a segment holds."""

    records: int = 0
    ended: bool = False
    """Its last record says that a gateway needs it no more."""
    torn: bool = False
    """The last line was cut off by a crash: expected, and nobody was answered from it."""
    damaged: list[int] = field(default_factory=list)
    """Numbers of all other lines that are no sound record."""
    opened: list[tuple[str, int | None]] = field(default_factory=list)
    """call_id of each open record, and what it holds in budgets (nano-USD)."""
    closed: list[tuple[str, int, int]] = field(default_factory=list)
    """call_id, time (microseconds since the epoch) and list cost (nano-USD, 0 when unpriced) of each close record."""
    corrected: list[tuple[str, int, int]] = field(default_factory=list)
    """The same of each correct record."""

    def sums(self, before_us: int | None = None) -> Sums:
        """Of all calls and corrections; with `before_us`, only of those recorded before."""
        calls, corrections = (
            [nano for _, at, nano in records if before_us is None or at < before_us]
            for records in (self.closed, self.corrected)
        )
        return Sums(len(calls), sum(calls), len(corrections), sum(corrections))


def read(path: Path) -> Contents:
    """Read a segment whole. Raises `OSError`."""
    contents = Contents()
    lines = path.read_bytes().split(b"\n")
    last = 0
    for number, line in enumerate(lines, 1):
        if not line:
            continue  # recovery begins with a line end, in case the last line has none
        record = ledger.decode(line)
        contents.ended = record is not None and record["e"] == "end"
        last = last if contents.ended else number
        if record is None:
            contents.damaged.append(number)
            continue
        contents.records += 1
        if record["e"] == "open":
            contents.opened.append((record["call_id"], record.get("held_nano")))
        elif record["e"] in ("close", "correct"):
            found = contents.closed if record["e"] == "close" else contents.corrected
            found.append((record["call_id"], record["at"], record.get("list_cost_nano") or 0))
    end = lines[last - 1] if last else b""
    # Zeroes are what a power loss leaves of records that were written: damage, not a line that was never whole.
    if last in contents.damaged and end.startswith(b"{") and b"\0" not in end and not CHECKSUM.search(end):
        contents.damaged.remove(last)
        contents.torn = True
    return contents
