"""Usage that comes later: background work and batches are asked for in one request, and billed in the answer to
another, whoever asks for it and however often.

`late.jsonl` in the data folder remembers what is expected and which results were booked, in lines of the journal's
format. All gateways of a folder share it: each reads what others wrote before it decides, and results are booked under
a lock. Lines older than any provider keeps results are dropped at a start.

`booked` precedes the journal's records of those calls, `recorded` follows them. Should a crash come between, the next
start looks for the calls in the journal, and forgets the results when they are not there.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway import folders
from gateway.call import Call
from gateway.ledger import decode, encode, now_us, segments_in

KEPT_US = 60 * 24 * 3600 * 1_000_000
"""Providers keep results for 29 or 30 days."""
DIGEST_BYTES = 8
LOCK_TRIES, LOCK_WAIT_SECONDS = 200, 0.01


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
        self._unsure: dict[str, bytes] = {}
        """Results that were booked in calls which may not be recorded, by the first call's id."""
        self._fd = self._users_fd = -1
        self._read_to = 0
        self._is_durable = True

    def start(self) -> None:
        """Read what is known. Call before the journal is started. Raises `OSError`."""
        folders.make(self._path.parent)
        self._users_fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):  # another gateway uses the file
            fcntl.flock(self._users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _drop_old(self._path)
        fcntl.flock(self._users_fd, fcntl.LOCK_SH)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)  # so nobody is in the midst of booking
        try:
            self._catch_up()
            recorded = _batch_calls(self._path.parent / "journal") if self._unsure else set()
            for call, results in list(self._unsure.items()):
                if call in recorded:
                    self.record(call)
                else:
                    self.forget([results])
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def stop(self) -> None:
        for fd in (self._fd, self._users_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._users_fd = -1

    def expect(self, key: str, call: Call, booked_us: int = 0) -> None:
        """Remember that the usage of `call` comes with `key`; when that cannot be written, until a restart."""
        self._expected[key] = Expected(call, booked_us)
        self._append("expected", key=key, call=call, booked_us=booked_us)

    def name(self, alias: str, key: str) -> None:
        """Remember another name of what is expected, such as the file that a batch's results are in."""
        if key in self._expected and self._names.get(alias) != key:
            self._names[alias] = key
            self._append("named", key=key, alias=alias)

    def find(self, key: str) -> Expected | None:
        self._catch_up()
        return self._expected.get(self._names.get(key, key))

    def settle(self, key: str) -> None:
        """The usage came, and is in the ledger."""
        self._append("settled", key=key)

    @contextlib.asynccontextmanager
    async def deciding(self) -> AsyncIterator[None]:
        """While the block runs, which must not wait, no other gateway books; what others booked before is known.

        Raises `OSError` when another holds the lock for long.
        """
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_WAIT_SECONDS)
        else:
            raise OSError(errno.EBUSY, "another process holds late.jsonl")
        try:
            self._catch_up()
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def unbooked(self, results: Iterable[bytes]) -> set[bytes]:
        """Those that nobody has booked, as far as is known outside of `deciding`."""
        self._catch_up()
        return {result for result in results if result not in self._booked}

    def book(self, results: Iterable[bytes], first_call: str) -> None:
        """Results are about to be recorded, in calls of which the first has this id. Inside of `deciding`."""
        self._append("booked", results=b64encode(b"".join(results)).decode(), call=first_call)

    def record(self, first_call: str) -> None:
        """They were recorded."""
        self._append("recorded", call=first_call)

    def forget(self, results: Iterable[bytes]) -> None:
        """They could not be recorded after all."""
        self._append("forgotten", results=b64encode(b"".join(results)).decode())

    async def durable(self) -> None:
        """Wait until what was written is on the disk."""
        if not self._is_durable:
            self._is_durable = True
            await asyncio.to_thread(os.fdatasync, self._fd)

    def __len__(self) -> int:
        return len(self._expected)

    def _append(self, kind: str, **fields: Any) -> None:
        self._is_durable = False
        # Begun with a line end, so that a torn half of another line swallows nothing.
        line = b"\n" + encode(kind, now_us(), msgspec.json.encode(fields))
        if os.write(self._fd, line) != len(line):
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
            if line and (record := decode(line)) is not None:
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
                self._booked.update(_digests(b64decode(record["results"])))
                self._unsure[record["call"]] = b64decode(record["results"])
            case "recorded":
                self._unsure.pop(record["call"], None)
            case "forgotten":
                self._booked.difference_update(_digests(b64decode(record["results"])))


def _digests(joined: bytes) -> Iterator[bytes]:
    return (joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _drop_old(path: Path) -> None:
    """Write the file anew without what is old."""
    if not path.exists():
        return
    oldest = now_us() - KEPT_US
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (record := decode(line)) is not None and record["at"] >= oldest]
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        file.write(b"".join(kept))
        os.fsync(file.fileno())
    aside.chmod(0o600)
    aside.rename(path)


def _batch_calls(journal: Path) -> set[str]:
    """The batches' calls in the journal."""
    found: set[str] = set()
    for segment in segments_in(journal):
        with contextlib.suppress(FileNotFoundError), segment.open("rb") as lines:  # removed, being sealed
            for line in lines:
                if b'"operation":"batch"' in line and (record := decode(line)) is not None:
                    found.add(record["call_id"])
    return found
