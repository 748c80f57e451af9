"""Checks the ledger: every journal record, every sealed file, the views' sums. Only reads, also while all runs."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import msgspec

from analytics import build, lake
from gateway import ledger
from gateway.call import NANO
from gateway.errors import UserError

AGE = timedelta(seconds=2)
"""Calls younger than this are left out of the sums: they may be written while we look."""
EXAMPLES = 5
CHECKSUM = re.compile(rb',"crc":"[0-9a-f]{8}"}$')
"""Ends a line that was written whole: one that does not fit it was damaged later, not cut off."""


@dataclass
class Findings:
    """What was checked, and what is wrong. Sums are of the calls recorded before `as_of` (UTC)."""

    as_of: datetime
    segments: int = 0
    records: int = 0
    torn: int = 0
    """Lines cut off at a crash: expected, and never acknowledged to anybody."""
    calls: int = 0
    list_cost_usd: Decimal = Decimal(0)
    open_calls: list[str] = field(default_factory=list)
    """call_id of each call in flight, or left open by a crash and not yet recovered."""
    wrong: list[str] = field(default_factory=list)


@dataclass
class _Segment:
    """What one journal segment holds."""

    calls: int = 0
    nano: int = 0
    calls_as_of: int = 0
    nano_as_of: int = 0
    open: dict[str, None] = field(default_factory=dict)
    ended: bool = False

    def add(self, nano: int, before_as_of: bool) -> None:
        self.calls, self.nano = self.calls + 1, self.nano + nano
        if before_as_of:
            self.calls_as_of, self.nano_as_of = self.calls_as_of + 1, self.nano_as_of + nano


def verify(data: Path) -> Findings:
    """Check a data folder. Raises `UserError` when there is none."""
    if not lake.state_file(data).exists() and not (data / "journal").is_dir():
        raise UserError(f"{data} has no journal: name the folder that the gateway writes to")
    lake.publish(data)
    findings = Findings(datetime.now(UTC).replace(tzinfo=None) - AGE)
    state = lake.read_state(data)
    journal = dict(_read_journal(data, findings))
    _check_files(data, state, findings)
    _check_sealed(state, journal, findings)
    closed = [row for row in state if row.state == "closed"]
    through = max((row.day for row in closed if row.day), default=lake.DAY_ZERO)
    counted = closed + [r for r in state if r.state in ("sealed", "kept") and (r.day or lake.DAY_ZERO) > through]
    sealed = {row.segment for row in state if row.state in ("sealed", "kept")}
    unsealed = [segment for name, segment in journal.items() if name not in sealed]
    calls = sum(row.calls for row in counted) + sum(segment.calls_as_of for segment in unsealed)
    nano = sum(row.list_cost_nano for row in counted) + sum(segment.nano_as_of for segment in unsealed)
    findings.calls, findings.list_cost_usd = calls, Decimal(nano) / NANO
    try:
        _check_views(data, calls, nano, findings)
    except duckdb.Error as error:
        findings.wrong.append(f"the views cannot be read: {str(error).splitlines()[0]}")
    return findings


def _read_journal(data: Path, findings: Findings) -> Iterator[tuple[str, _Segment]]:
    as_of_us = int(findings.as_of.replace(tzinfo=UTC).timestamp() * 1_000_000)
    opened: dict[str, None] = {}
    closed: set[str] = set()
    for path in lake.segments(data):
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            continue  # sealed long ago, and removed just now
        segment, damaged, last = _Segment(), [], 0
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            record = ledger.decode(line)
            segment.ended = record is not None and record["e"] == "end"
            last = last if segment.ended else number
            if record is None:
                damaged.append(number)
                continue
            findings.records += 1
            if record["e"] == "open":
                segment.open[record["call_id"]] = None
            elif record["e"] == "close":
                closed.add(record["call_id"])
                segment.add(record.get("list_cost_nano") or 0, record["at"] < as_of_us)
        if last in damaged and not CHECKSUM.search(lines[last - 1]):
            damaged.remove(last)
            findings.torn += 1
        findings.segments += 1
        findings.wrong += [f"{path.name} line {n}: the record is damaged (its checksum does not fit)" for n in damaged]
        if not segment.ended:
            opened |= segment.open
        yield path.stem, segment
    findings.open_calls = [call_id for call_id in opened if call_id not in closed]


def _check_files(data: Path, state: list[lake.Row], findings: Findings) -> None:
    """Each Parquet file that counts, against the state; and that the state names all there are."""
    expected = {
        lake.day_file(data, row.day) if row.state == "closed" else lake.part_file(data, row.day, row.segment or ""): row
        for row in state
        if row.day and row.state != "pending"
    }
    closed = {row.day for row in state if row.state == "closed"}
    with duckdb.connect() as db:
        for path, row in expected.items():
            if row.state != "closed" and row.day in closed:
                continue
            name = path.relative_to(data)
            try:
                found = lake.file_sums(db, path)
            except duckdb.Error as error:
                findings.wrong.append(f"{name} cannot be read: {str(error).splitlines()[0]}")
                continue
            if found != (row.calls, row.list_cost_nano):
                findings.wrong.append(
                    f"{name} has {_amount(*found)}, but {_amount(row.calls, row.list_cost_nano)} were sealed"
                )
    pending = {row.segment for row in state if row.state == "pending"}
    for path in sorted((data / "calls").glob("day=*/part-*.parquet")):
        segment = path.stem.removeprefix("part-")
        day = path.parent.name.removeprefix("day=")
        if path not in expected and segment not in pending | {lake.ANCHOR_SEGMENT} and day not in map(str, closed):
            findings.wrong.append(f"{path.relative_to(data)} is not in the state, and yet counted")


def _check_sealed(state: list[lake.Row], journal: dict[str, _Segment], findings: Findings) -> None:
    """Each sealed segment that is still in the journal, against the state."""
    for name, segment in journal.items():
        rows = [row for row in state if row.segment == name and row.state == "sealed"]
        sums = sum(row.calls for row in rows), sum(row.list_cost_nano for row in rows)
        if rows and sums != (segment.calls, segment.nano):
            findings.wrong.append(
                f"{name} has {_amount(segment.calls, segment.nano)} in sound records, but {_amount(*sums)} were sealed"
            )


def _check_views(data: Path, calls: int, nano: int, findings: Findings) -> None:
    """The view's totals against the files' and the journal's, and all checks that must give no row."""
    models = build.load()
    as_of = build.read_model(build.FOLDER / "steps" / "calls_as_of.sql")
    models["all_calls"] = dataclasses.replace(models["calls"], name="all_calls")
    models["calls"] = dataclasses.replace(as_of, name="calls")
    with duckdb.connect() as db:
        db.execute("SET VARIABLE as_of = $as_of", {"as_of": findings.as_of})
        build.create_views(db, data, models)
        sums = db.execute(lake.step("calls_sums")).fetchone()
        if sums != (calls, nano):
            findings.wrong.append(
                f"the view calls has {_amount(*(sums or (0, 0)))}, "
                f"but the sealed files and the journal have {_amount(calls, nano)}"
            )
        for check in build.load(build.FOLDER / "checks").values():
            rows = db.execute(check.sql).fetchmany(EXAMPLES)
            names = [column[0] for column in db.description or ()]
            findings.wrong += [
                f"{check.name}: {check.description} Not so: "
                + ", ".join(f"{name} {value}" for name, value in zip(names, row, strict=True))
                for row in rows
            ]


def _amount(calls: int, nano: int) -> str:
    return f"{calls} calls of {Decimal(nano) / NANO:f} USD"


def as_json(findings: Findings) -> bytes:
    return msgspec.json.Encoder(decimal_format="number").encode(findings)
