"""What is worked out and written down: as of when, of what, in what time; and whether that still holds.

Findings of waste are such, and the scorecard. What is written down is fresh for an hour, unless the calls, corrections,
work, settings or rules are others by now than those that it was made of. Where it is not, whoever reads it by a command
has it worked out anew, if that took `WAIT_SECONDS` at most the last time; else he is told as of when it is, and that
there is newer data. The keeper works it out anew in any case.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

import analytics
from analytics import build, disk, work
from analytics.again import again

FRESH = timedelta(hours=1)
"""Much of it depends on the time, too."""
WAIT_SECONDS = 5.0
RECORDS = "kept_records"
"""A query: other rows when calls or corrections were recorded; the same ones when they are moved to other files."""
WORK = tuple(f"work/{table}.parquet" for table in work.TABLES if table != "invoice_lines")


class Kind(NamedTuple):
    """Something that is written down."""

    folder: str
    """Where, in the data folder."""
    lock: str
    """Of those who write there, in the data folder."""
    files: tuple[str, ...] = WORK
    """What it is made of, in the data folder, beside calls and corrections."""

    def note(self, data: Path) -> Path:
        return data / self.folder / "made.json"


class Made(msgspec.Struct, frozen=True):
    """How something was worked out that is written down."""

    at: datetime
    """When that was begun, UTC, as all moments here."""
    as_of: datetime
    of: str
    """A digest of all that it was made of, but the settings."""
    settings: str = ""
    """What is another text when they are others."""
    seconds: float = 0.0


class State(NamedTuple):
    made: Made | None
    """`None` when nobody has worked it out."""
    is_newer: bool = False
    """Whether it would be made of something else now."""

    def is_fresh(self, within: timedelta = FRESH) -> bool:
        return self.made is not None and not self.is_newer and abs(now() - self.made.at) < within


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def read(data: Path, kind: Kind) -> Made | None:
    try:
        return msgspec.json.decode(kind.note(data).read_bytes(), type=Made)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


@contextlib.contextmanager
def noting(data: Path, kind: Kind, as_of: datetime | None, settings: str = "") -> Iterator[datetime]:
    """While the block runs something is worked out and written down, by nobody else; how is noted when it has ended
    well. Yields as of when: by default a moment after what it is made of was looked at, so that nothing between is
    missed."""
    of = _made_of(data, kind, records(data))  # before the lock: to ask may make views, which need the lock
    at = now()
    with disk.alone(data, kind.lock, wait=True):
        begun = now()
        yield as_of or at
        _note(data, kind, Made(at, as_of or at, of, settings, (now() - begun).total_seconds()))


def spoil(data: Path, kind: Kind) -> None:
    """Its files are about to be replaced one by one: until all are, they are of nothing that there is."""
    if (made := read(data, kind)) is not None:
        _note(data, kind, msgspec.structs.replace(made, of=""))


def _note(data: Path, kind: Kind, made: Made) -> None:
    with disk.put(kind.note(data)) as aside:
        aside.write_bytes(msgspec.json.encode(made))


def forget(data: Path, kind: Kind) -> None:
    """What was written down is gone."""
    kind.note(data).unlink(missing_ok=True)


def state(data: Path, kind: Kind, settings: str | None = None, found: Iterable[Any] | None = None) -> State:
    """Of what is written down. `settings`: those of now, where they are known. `found`: what `RECORDS` gives, where
    somebody has asked."""
    made = read(data, kind)
    if made is None:
        return State(None)
    is_other = settings is not None and made.settings != settings
    return State(made, is_other or made.of != _made_of(data, kind, records(data) if found is None else found))


def refresh(
    data: Path, kind: Kind, look: Callable[[], object], settings: str | None = None, *, anew: bool = False
) -> State:
    """Have it worked out anew where it is not fresh, unless that takes too long; with `anew` in any case. Of several
    who ask at once, one works it out. Who cannot write has what is there."""
    there = state(data, kind, settings)
    if not anew and there.made is not None and (there.is_fresh() or there.made.seconds > WAIT_SECONDS):
        return there
    try:
        with disk.alone(data, f"{kind.folder}/made.lock", wait=True):
            if read(data, kind) != there.made and (now_there := state(data, kind, settings)).is_fresh():
                return now_there
            look()
    except OSError:
        if there.made is None or anew:
            raise
        return there
    return State(read(data, kind))


def records(data: Path) -> tuple[Any, ...]:
    with analytics.open(data) as db:
        sql = (build.FOLDER / "queries" / f"{RECORDS}.sql").read_text(encoding="utf-8")
        [row] = again(lambda: db.execute(sql).fetchall())
    return tuple(row)


def _made_of(data: Path, kind: Kind, found: Iterable[Any]) -> str:
    files = []
    for name in kind.files:
        with contextlib.suppress(FileNotFoundError):
            stat = (data / name).stat()
            files.append((name, stat.st_size, stat.st_mtime_ns))
    return sha256(repr((_version(), tuple(found), files)).encode()).hexdigest()[:16]


@cache
def _version() -> str:
    """Of the SQL that works it out."""
    texts = (path.read_bytes() for path in sorted(build.MODELS.rglob("*.sql")))
    return sha256(b"\n".join(texts)).hexdigest()


# -- files -------------------------------------------------------------------------------------------------------------


def write_unless_alike(db: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Write the table `found`, unless the file has its columns. False when it has."""
    wanted = db.table("found")
    try:
        there = db.read_parquet(build.glob_of(path), hive_partitioning=False)
        if (there.columns, there.types) == (wanted.columns, wanted.types):
            return False
    except duckdb.Error:  # it is not there, or broken
        pass
    disk.put_table(wanted, path)
    return True
