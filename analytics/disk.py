"""Files that appear whole or not at all, and locks between processes that write the same things."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb

from gateway import folders
from gateway.errors import UserError

MARKER = "SYNTHETIC"
"""A file that says of a data folder that all in it was made up."""


@contextlib.contextmanager
def put(path: Path) -> Iterator[Path]:
    """A path to write to; what was written there appears at `path` whole, and on the disk, or not at all."""
    aside = path.with_name(path.name + ".tmp")
    if not path.parent.exists():
        path.parent.mkdir()
        give(path.parent)
        sync(path.parent.parent)
    try:
        yield aside
        give(aside)
        sync(aside)
        aside.rename(path)
        sync(path.parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def put_table(rows: duckdb.DuckDBPyRelation, path: Path) -> None:
    """A Parquet file of them, likewise."""
    with put(path) as aside:
        rows.write_parquet(str(aside), compression="zstd")


@contextlib.contextmanager
def passing(path: Path) -> Iterator[None]:
    """While the block runs there may be a file, which is gone then."""
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def give(path: Path) -> None:
    """What root makes in a data folder is the folder's owner's, whose gateway and keeper work on with it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def check_journal(data: Path) -> None:
    """Raises `UserError` where nobody has made a data folder, or it was removed or moved away since: there may be the
    place of a volume that comes back, and what is written there would be hidden under it."""
    if not (data / "journal").is_dir():
        raise UserError(f"{data} has no journal: name the folder that the gateway writes to")


@contextlib.contextmanager
def alone(data: Path, name: str, *, wait: bool = False, may_be_first: bool = False) -> Iterator[bool]:
    """Hold a lock file of a data folder while the block runs. When another process holds it: gives False, and no lock,
    or waits. `may_be_first`: there may be no call yet, and no folder, which is made. Raises `OSError`, and else
    `UserError` where the folder has no journal."""
    if may_be_first:
        folders.make(data)
    else:
        check_journal(data)
    path = data / name
    if path.parent != data:
        path.parent.mkdir(exist_ok=True)
    with path.open("ab") as lock:
        give(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def correcting(data: Path, *, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
    """Held from reading calls until their corrections are written, so that no correction is lost under another one."""
    return alone(data, "corrections.lock", wait=wait)
