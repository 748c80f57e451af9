"""Usage that comes later: background work and batches are asked for in one request, and billed in the answer to
another, whoever asks for it and however often.

`late.jsonl` in the data folder remembers what is expected and which results were booked, in lines of the journal's
format. All gateways of a folder share it: each reads what others wrote before it decides, and decides and writes under
one lock. Lines older than any provider keeps results are dropped.

A line that says `booked` precedes the journal's records of those calls. Should a crash come between the two, the next
start finds none of them in the journal, and drops the line.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.call import Call
from gateway.ledger import decode, encode, now_us

KEPT_US = 60 * 24 * 3600 * 1_000_000
"""Providers keep results for 29 or 30 days."""
DIGEST_BYTES = 8


class Expected(msgspec.Struct, frozen=True):
    """A request whose usage has not come yet."""

    call: Call
    """As it was recorded; for a batch, which is not recorded before its results, what is known of who asked."""
    booked_us: int
    """When its record was written; 0 for a batch."""


def digest(upstream: str, result_id: str) -> bytes:
    """Stands for one result of a batch."""
    return hashlib.blake2b(f"{upstream}\0{result_id}".encode(), digest_size=DIGEST_BYTES).digest()


class Late:
    """What is expected, by `upstream/identifier`, and what was booked. Methods that write raise `OSError`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "late.jsonl"
        self._expected: dict[str, Expected] = {}
        self._names: dict[str, str] = {}
        self._booked: set[bytes] = set()
        self._fd = self._users_fd = -1
        self._read_to = 0

    def start(self) -> None:
        """Read what is known. Call before the journal is started. Raises `OSError`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._users_fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):  # another gateway uses the file; it has tidied it
            fcntl.flock(self._users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _tidy(self._path)
        fcntl.flock(self._users_fd, fcntl.LOCK_SH)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._catch_up()

    def stop(self) -> None:
        for fd in (self._fd, self._users_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._users_fd = -1

    def expect(self, key: str, call: Call, booked_us: int = 0) -> None:
        """Remember that the usage of `call` comes with `key`; when that cannot be written, until a restart."""
        self._expected[key] = Expected(call, booked_us)
        with self.deciding():
            self._append("expected", key=key, call=call, booked_us=booked_us)

    def name(self, alias: str, key: str) -> None:
        """Remember another name of what is expected, such as the file that a batch's results are in."""
        if key in self._expected and self._names.get(alias) != key:
            self._names[alias] = key
            with self.deciding():
                self._append("named", key=key, alias=alias)

    def find(self, key: str) -> Expected | None:
        self._catch_up()
        return self._expected.get(self._names.get(key, key))

    def settle(self, key: str) -> None:
        """The usage came, and is in the ledger."""
        with self.deciding():
            self._append("settled", key=key)

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """While the block runs, which must not wait, no other gateway writes; what others wrote before is known."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._catch_up()
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def is_booked(self, result: bytes) -> bool:
        return result in self._booked

    def book(self, results: Iterable[bytes], calls: Iterable[str]) -> None:
        """Results are about to be recorded, in calls with these ids. Inside of `deciding`."""
        self._append("booked", results=b64encode(b"".join(results)).decode(), calls=list(calls))

    def forget(self, results: Iterable[bytes]) -> None:
        """They could not be recorded after all. Inside of `deciding`."""
        self._append("forgotten", results=b64encode(b"".join(results)).decode())

    async def durable(self) -> None:
        """Wait until what was written is on the disk."""
        await asyncio.to_thread(os.fdatasync, self._fd)

    def __len__(self) -> int:
        return len(self._expected)

    def _append(self, kind: str, **fields: Any) -> None:
        line = encode(kind, now_us(), msgspec.json.encode(fields))
        size = os.fstat(self._fd).st_size
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, size)  # a torn half would swallow the next line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._catch_up()

    def _catch_up(self) -> None:
        """Take in what was written since the last look, by anybody."""
        size = os.fstat(self._fd).st_size
        if size == self._read_to:
            return
        *lines, rest = os.pread(self._fd, size - self._read_to, self._read_to).split(b"\n")
        self._read_to = size - len(rest)
        for line in lines:
            if (record := decode(line)) is not None:
                with contextlib.suppress(KeyError, ValueError, msgspec.ValidationError):  # of another version
                    self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        match record["e"]:
            case "expected":
                call = msgspec.convert(record["call"], Call)
                self._expected[record["key"]] = Expected(call, record["booked_us"])
            case "named":
                self._names[record["alias"]] = record["key"]
            case "settled":
                self._expected.pop(record["key"], None)
            case "booked":
                self._booked.update(_results(record))
            case "forgotten":
                self._booked.difference_update(_results(record))


def _results(record: dict[str, Any]) -> Iterator[bytes]:
    digests = b64decode(record["results"])
    return (digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES))


def _tidy(path: Path) -> None:
    """Write the file anew without what is old, and without what a crash kept out of the journal."""
    if not path.exists():
        return
    oldest, last, recorded = now_us() - KEPT_US, *_last_segment(path.parent / "journal")
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        record = decode(line)
        if record is None or record["at"] < oldest:
            continue
        if record["e"] == "booked" and record["at"] >= last and recorded.isdisjoint(record["calls"]):
            continue
        kept.append(line)
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        file.write(b"".join(kept))
        os.fsync(file.fileno())
    aside.chmod(0o600)
    aside.rename(path)


def _last_segment(journal: Path) -> tuple[int, set[str]]:
    """When the journal's last segment was begun, and the batches' calls in it. Earlier ones were ended in order."""
    segments = sorted(path for path in journal.glob("*.jsonl") if path.stat().st_size and not path.is_symlink())
    if not segments:
        return now_us(), set()
    with segments[-1].open("rb") as lines:
        begun = decode(lines.readline())
        found = (decode(line) for line in lines if b'"operation":"batch"' in line)
        calls = {record["call_id"] for record in found if record is not None and record["e"] == "close"}
    return (begun["at"] if begun is not None else now_us()), calls
