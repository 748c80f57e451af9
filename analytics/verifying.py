"""Checks the ledger: every journal record, every sealed file, the views' sums. Only reads, also while all runs."""

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import msgspec

from analytics import build, journal, lake
from gateway.call import NANO

AGE = timedelta(seconds=2)
"""While a gateway writes, calls younger than this are left out of the sums: more may come while we look."""
EXAMPLES = 5
READ_OFTEN = (
    "journal_entries", "lake_state", "pull_requests", "tickets", "pr_tickets", "deployments", "told_reverts",
    "pr_revert_events", "ticket_facts", "task_days", "metered_models", "model_keys", "invoice_reconciliation",
    "arrived_prs", "unit_prs", "unit_sizes",
)  # fmt: skip
"""Relations that several checks read, each worked out once: to plan and to sum them takes most of the time. The journal
is read before the state, as in each query (see analytics/lake.py)."""


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
    """As first recorded; corrections come on top."""
    corrections: int = 0
    open_calls: list[str] = field(default_factory=list)
    """call_id of each call in flight, or left open by a crash and not yet recovered."""
    open_holds: int = 0
    """How many of them hold money in budgets."""
    held_usd: Decimal = Decimal(0)
    """What they held when they were forwarded; a stream may hold more by now."""
    wrong: list[str] = field(default_factory=list)


def verify(data: Path) -> Findings:
    """Check a data folder. Raises `UserError` when there is none, or it cannot be read."""
    lake.see_published(data)
    findings = _look(data)
    # Corrections of a command may appear between our looks, and bear a time before them. What is wrong stays wrong.
    return _look(data) if findings.wrong else findings


def _look(data: Path) -> Findings:
    written_now = any(lake.is_held(path) for path in lake.segments(data))
    findings = Findings(datetime.now(UTC).replace(tzinfo=None) - (AGE if written_now else timedelta(0)))
    state = lake.read_state(data)
    read = _read_journal(data, findings)
    _check_files(data, state, findings)
    _check_sealed(state, read, findings)
    closed = [row for row in state if row.state == "closed"]
    through = max((row.day for row in closed if row.day), default=lake.DAY_ZERO)
    counted = closed + [r for r in state if r.state in ("sealed", "kept") and (r.day or lake.DAY_ZERO) > through]
    sealed = {row.segment for row in state if row.state in ("sealed", "kept")}
    as_of_us = int(findings.as_of.replace(tzinfo=UTC).timestamp() * 1_000_000)
    unsealed = [contents.sums(as_of_us) for name, contents in read.items() if name not in sealed]
    sums = journal.total([*(row.sums for row in counted), *unsealed])
    findings.calls, findings.list_cost_usd = sums.calls, Decimal(sums.list_cost_nano) / NANO
    findings.corrections = sums.corrections
    try:
        _check_views(data, sums, findings)
    except duckdb.Error as error:
        findings.wrong.append(f"the views cannot be read: {str(error).splitlines()[0]}")
    return findings


def _read_journal(data: Path, findings: Findings) -> dict[str, journal.Contents]:
    """Each segment's contents, by its name."""
    read: dict[str, journal.Contents] = {}
    for path in lake.segments(data):
        with contextlib.suppress(FileNotFoundError):  # sealed long ago, and removed just now
            read[path.stem] = journal.read(path)
            findings.wrong += [
                f"{path.name} line {number}: the record is damaged (its checksum does not fit)"
                for number in read[path.stem].damaged
            ]
    findings.segments = len(read)
    findings.records = sum(contents.records for contents in read.values())
    findings.torn = sum(contents.torn for contents in read.values())
    # An ended segment's open calls were carried on, to a segment that may be sealed and gone.
    opened = {id_: nano for contents in read.values() if not contents.ended for id_, nano in contents.opened}
    closed = {call_id for contents in read.values() for call_id, _, _ in contents.closed}
    findings.open_calls = [call_id for call_id in opened if call_id not in closed]
    holds = [nano for call_id in findings.open_calls if (nano := opened[call_id]) is not None]
    findings.open_holds, findings.held_usd = len(holds), Decimal(sum(holds)) / NANO
    return read


def _check_files(data: Path, state: list[lake.Row], findings: Findings) -> None:
    """Each Parquet file that counts, against the state; and that the state names all there are."""
    closed = {row.day for row in state if row.state == "closed"}
    expected: dict[Path, tuple[int, int]] = {}
    for row, kind in ((row, kind) for row in state for kind in lake.KINDS):
        if row.day and row.count(kind) and row.state != "pending":
            if row.state == "closed":
                expected[lake.day_file(data, row.day, kind)] = row.file_sums(kind)
            elif row.day not in closed:
                expected[lake.part_file(data, row.day, row.segment or "", kind)] = row.file_sums(kind)
    with duckdb.connect() as db:
        for path, sums in expected.items():
            name = path.relative_to(data)
            try:
                found = lake.file_sums(db, path)
            except duckdb.Error as error:
                findings.wrong.append(f"{name} cannot be read: {str(error).splitlines()[0]}")
                continue
            if found != sums:
                what = path.parent.parent.name
                findings.wrong.append(f"{name} has {_amount(*found, what)}, but {_amount(*sums, what)} were sealed")
    days = {str(row.day) for row in state} | {str(lake.ANCHOR_DAY)}
    for path in sorted(path for kind in lake.KINDS for path in (data / kind).glob("day=*/day.parquet")):
        if path.parent.name.removeprefix("day=") not in days:
            findings.wrong.append(f"{path.relative_to(data)} is not in the state, so it is not counted")
    pending = {row.segment for row in state if row.state == "pending"}
    for path in sorted(lake.part_files(data)):
        segment = path.stem.removeprefix("part-")
        day = path.parent.name.removeprefix("day=")
        if path not in expected and segment not in pending | {lake.ANCHOR_SEGMENT} and day not in map(str, closed):
            findings.wrong.append(f"{path.relative_to(data)} is not in the state, and yet counted")


def _check_sealed(state: list[lake.Row], read: dict[str, journal.Contents], findings: Findings) -> None:
    """Each sealed segment that is still in the journal, against the state."""
    for name, contents in read.items():
        rows = [row for row in state if row.segment == name and row.state == "sealed"]
        sealed = journal.total(row.sums for row in rows)
        if rows and sealed != contents.sums():
            findings.wrong.append(
                f"{name} has {_told(contents.sums())} in sound records, but {_told(sealed)} were sealed"
            )


def _check_views(data: Path, sums: journal.Sums, findings: Findings) -> None:
    """The views' totals against the files' and the journal's, and all checks that must give no row."""
    with lake.scratch(data) as db:
        db.execute("SET VARIABLE as_of = $as_of", {"as_of": findings.as_of})
        checks = build.load(build.FOLDER / "checks")
        build.create_views(db, data, build.needed(db, build.load(), checks))
        build.work_out(db, READ_OFTEN)
        found = journal.Sums(*(db.execute(build.step("entries_sums")).fetchone() or (0, 0, 0, 0)))
        if found != sums:
            findings.wrong.append(
                f"the views have {_told(found)}, but the sealed files and the journal have {_told(sums)}"
            )
        for check in checks.values():
            rows = db.execute(check.sql).fetchmany(EXAMPLES)
            names = [column[0] for column in db.description or ()]
            findings.wrong += [
                f"{check.name}: {check.description} Not so: "
                + ", ".join(f"{name} {value}" for name, value in zip(names, row, strict=True))
                for row in rows
            ]


def _amount(rows: int, nano: int, what: str) -> str:
    return f"{rows} {what} of {Decimal(nano) / NANO:f} USD"


def _told(sums: journal.Sums) -> str:
    calls = _amount(sums.calls, sums.list_cost_nano, "calls")
    return (
        f"{calls} and {_amount(sums.corrections, sums.corrections_nano, 'corrections')}" if sums.corrections else calls
    )


def as_json(findings: Findings) -> bytes:
    return msgspec.json.Encoder(decimal_format="number").encode(findings)
