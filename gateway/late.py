"""Usage that comes later: background work and batches are asked for in one request, and billed in the answer to
another, whoever asks for it and however often.

`late.jsonl` in the data folder remembers what is awaited and what was booked, in lines of the journal's format. A line
is on the disk before the answer that it belongs to ends. Lines older than any provider keeps results are dropped.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from gateway.call import Call
from gateway.ledger import decode, encode, now_us

KEPT_US = 60 * 24 * 3600 * 1_000_000
"""Providers keep results for 29 or 30 days."""
AWAITED, BOOKED, NAMED = "awaited", "booked", "named"


class Awaited(msgspec.Struct, frozen=True):
    """A request whose usage has not come yet."""

    call: Call
    """As it was recorded; for a batch, which is not recorded before its results, what is known of who asked."""
    booked_us: int
    """When its record was written."""


class Late:
    """What is awaited and what was booked, by upstream and the provider's identifier."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "late.jsonl"
        self._awaited: dict[str, Awaited] = {}
        self._booked: set[str] = set()
        self._claimed: set[str] = set()
        self._names: dict[str, str] = {}
        self._fd = -1

    def start(self) -> None:
        """Read what is known, and write it anew without what is too old. Raises `OSError`."""
        kept: list[bytes] = []
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for line in lines:
            record = decode(line)
            if record is None or record["at"] < now_us() - KEPT_US:
                continue
            kept.append(line)
            self._take(record)
        self._booked |= _booked_batches(self._path.parent / "journal")
        aside = self._path.with_suffix(".new")
        aside.write_bytes(b"".join(kept))
        aside.chmod(0o600)
        aside.rename(self._path)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def stop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait(self, key: str, call: Call) -> None:
        """Remember that the usage of `call`, which was just recorded, comes with `key`. Raises `OSError`."""
        self._write(AWAITED, {"key": key, "call": call})

    def name(self, alias: str, key: str) -> None:
        """Remember another name of what is awaited, such as the file that a batch's results are in."""
        if key in self._awaited and self._names.get(alias) != key:
            self._write(NAMED, {"key": key, "alias": alias})

    def find(self, key: str) -> Awaited | None:
        return self._awaited.get(self._names.get(key, key))

    def book(self, key: str) -> None:
        """Remember that the usage of `key` is in the ledger. Raises `OSError`."""
        self._write(BOOKED, {"key": key})

    def claim(self, key: str) -> bool:
        """True for the first who wants to book `key`: it has to call `book` then."""
        if key in self._booked or key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def release(self, key: str) -> None:
        """Give up a claim without having booked."""
        self._claimed.discard(key)

    def __len__(self) -> int:
        return len(self._awaited)

    def _write(self, kind: str, fields: dict[str, object]) -> None:
        at = now_us()
        line = encode(kind, at, msgspec.json.encode(fields))
        if os.write(self._fd, line) != len(line):
            raise OSError
        os.fdatasync(self._fd)
        self._take({"e": kind, "at": at, **fields})

    def _take(self, record: dict[str, object]) -> None:
        key = str(record["key"])
        if record["e"] == AWAITED:
            self._awaited[key] = Awaited(msgspec.convert(record["call"], Call), int(str(record["at"])))
        elif record["e"] == NAMED:
            self._names[str(record["alias"])] = key
        else:
            self._awaited.pop(key, None)
            self._booked.add(key)


def _booked_batches(journal: Path) -> set[str]:
    """Batches whose record was written, in case a crash came before `late.jsonl` was told."""
    found: set[str] = set()
    for segment in journal.glob("*.jsonl"):
        # A segment may be removed, being sealed, while we look.
        with contextlib.suppress(FileNotFoundError), segment.open("rb") as lines:
            for line in lines:
                if b'"operation":"batch"' in line and (record := decode(line)) is not None:
                    found.add(f"{record['upstream']}/{record.get('upstream_id')}")
    return found
