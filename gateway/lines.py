"""Lists in the data folder that are only ever added to, a JSON object a line: what was done to keys, and to budgets."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway import folders
from gateway.reading import tidied

T = TypeVar("T")
E = TypeVar("E")


def append(file: Path, decide: Callable[[], E | None]) -> E | None:
    """Write what `decide` says, with no other writer between the two; nothing when that is `None`. Raises `OSError`."""
    folders.make(file.parent)
    fd = _opened(file)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if (event := decide()) is None:
            return None
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        line = (b"\n" if torn else b"") + msgspec.json.encode(event) + b"\n"
        if os.write(fd, line) != len(line):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        os.fsync(fd)
    finally:
        os.close(fd)
    return event


def _opened(file: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(file, flags | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(file, flags, 0o600)
    if os.geteuid() == 0:
        folder = file.parent.stat()  # whose owner runs the gateway, and reads the list
        with contextlib.suppress(OSError):  # not every file system has owners
            os.fchown(fd, folder.st_uid, folder.st_gid)
    return fd


def read(line: bytes, kind: type[T]) -> T | None:
    """`None` for a line that a crash tore: what wrote it never reported success. Raises `ValueError` for one that is
    whole and yet cannot be understood, as of another version: to skip it could open what it closed."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        tidied(line)
    except ValueError:
        return None
    raise ValueError("is of another version")


def mark(path: Path | str) -> tuple[int, int, int] | None:
    """Another one when the file was written to or replaced; `None` where there is none. Raises `OSError`."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - asked for each call
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
