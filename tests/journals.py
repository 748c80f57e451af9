"""Writes journals as a gateway does: `Segment` is a segment that this process holds until it is finished."""

import fcntl
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from gateway.call import Call
from gateway.ids import uuid7
from gateway.ledger import encode

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY, NEXT_DAY = date(2026, 11, 20), date(2026, 11, 21)


class Today:
    """A clock of days that a test sets."""

    def __init__(self) -> None:
        self.day = DAY

    def __call__(self) -> date:
        return self.day


def micros(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def call(at: datetime = NOON, **fields: Any) -> Call:
    """A priced call of 1,000 nano-USD; with another `list_cost_nano`, all of that is for input."""
    call_id = uuid7(micros(at))
    given = {
        "call_id": call_id,
        "request_id": call_id,
        "attempt": 1,
        "started_us": micros(at),
        "duration_ms": 5,
        "result": "completed",
        "usage_source": "reported",
        "price_status": "exact",
        "list_cost_nano": 1000,
        "input_cost_nano": 600,
        "output_cost_nano": 400,
    }
    if "list_cost_nano" in fields:
        given |= {"input_cost_nano": fields["list_cost_nano"], "output_cost_nano": None}
    return Call(**{**given, **fields})


def line(kind: str, at: datetime, fields: Any = None) -> bytes:
    return encode(kind, micros(at), msgspec.json.encode(fields if fields is not None else {}))


class Segment:
    """A segment being written. As a context manager it is ended cleanly."""

    def __init__(self, data: Path, at: datetime = NOON, gateway_id: str = "gw-1") -> None:
        self.path = data / "journal" / f"{at:%Y%m%dT%H%M%S%f}-{gateway_id}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.at = at
        self._file = self.path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.write(line("start", at, {"v": 1, "gateway_id": gateway_id, "synthetic": False}))

    def write(self, raw: bytes) -> None:
        self._file.write(raw)

    def open(self, call: Call) -> None:
        self.write(line("open", self.at, call))

    def close(self, *calls: Call, at: datetime | None = None) -> None:
        for finished in calls:
            self.write(line("close", at or self.at, finished))

    def crash(self) -> None:
        """Let go of the segment without an end."""
        self._file.close()

    def end(self) -> None:
        self.write(line("end", self.at))
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


def segment(data: Path, calls: Iterable[Call], at: datetime = NOON, gateway_id: str = "gw-1") -> Path:
    """A whole, ended segment with these calls closed in it."""
    with Segment(data, at, gateway_id) as written:
        for each in calls:
            written.open(each)
            written.close(each)
    return written.path
