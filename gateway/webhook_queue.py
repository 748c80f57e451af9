"""Deliveries of webhooks on disk: `webhooks/` in the data folder, a file each, until the control plane has read what
changed. Then the file moves to `webhooks/done/`, where it tells a repeated delivery for some days.

Names begin with the time; what follows is a digest of source and delivery, so that one delivery is one file.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.webhooks import Hint

KEPT_SECONDS = 3 * 86_400.0
KEPT_MAX = 100_000
WAITING_MAX = 20_000
DIGEST_CHARS = 32
NAME = re.compile(rf"[0-9]{{20}}-[0-9a-f]{{{DIGEST_CHARS}}}\.json")


class Waiting(NamedTuple):
    path: Path
    hint: Hint


class WebhookQueue:
    """The gateway's side: one process puts."""

    def __init__(self, data: Path) -> None:
        self._folder = folder(data)
        self._seen: dict[str, None] = {}
        self._is_loaded = False
        self._waiting = 0
        """At most so many: what was read since it was counted is counted, too."""

    def knows(self, source: str, delivery: str) -> bool:
        """Whether it came before. Raises `OSError`."""
        self._load()
        return _digest(source, delivery) in self._seen

    def put(self, hint: Hint) -> None:
        """On the disk when this returns. Raises `OSError`, also when too many wait."""
        self._load()
        if self._waiting >= WAITING_MAX:
            self._waiting = len(_names(self._folder))
        if self._waiting >= WAITING_MAX:
            raise OSError("too many deliveries wait")
        digest = _digest(hint.source, hint.delivery)
        path = self._folder / f"{time.time_ns() // 1000:020d}-{digest}.json"
        aside = path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(msgspec.json.encode(hint))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        self._waiting += 1
        _sync(self._folder)
        self._seen[digest] = None
        while len(self._seen) > KEPT_MAX + WAITING_MAX:
            del self._seen[next(iter(self._seen))]

    def _load(self) -> None:
        if not self._is_loaded:
            for each in (self._folder, done(self._folder)):
                each.mkdir(mode=0o700, exist_ok=True)
            for left in self._folder.glob("*.tmp"):
                left.unlink()
            waits, kept = _names(self._folder), _names(done(self._folder))
            self._seen = dict.fromkeys(_digest_in(name) for name in sorted([*waits, *kept]))
            self._waiting = len(waits)
            self._is_loaded = True


def folder(data: Path) -> Path:
    return data / "webhooks"


def done(queue: Path) -> Path:
    return queue / "done"


def waiting(data: Path) -> list[Waiting]:
    """What changed and was not read since, the oldest first."""
    found = []
    for path in sorted(folder(data).glob("*.json")):
        try:
            found.append(Waiting(path, msgspec.json.decode(path.read_bytes(), type=Hint)))
        except msgspec.MsgspecError:
            path.unlink(missing_ok=True)  # not of this version
    return found


def finish(data: Path, read: Iterable[Waiting]) -> None:
    """These were read; what was so long ago is forgotten."""
    kept = done(folder(data))
    for each in read:
        each.path.rename(kept / each.path.name)
    oldest = f"{int((time.time() - KEPT_SECONDS) * 1_000_000):020d}"
    names = sorted(_names(kept))
    surplus = len(names) - KEPT_MAX
    for place, name in enumerate(names):
        if place >= surplus and name >= oldest:
            break
        (kept / name).unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    """Of deliveries; other files are not ours."""
    return [path.name for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.exists() else []


def _digest_in(name: str) -> str:
    return name.removesuffix(".json")[-DIGEST_CHARS:]


def _digest(source: str, delivery: str) -> str:
    return hashlib.sha256(f"{source} {delivery}".encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_CHARS]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
