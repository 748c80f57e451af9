"""The lake: journal segments become Parquet by day, while anybody may read, and a crash may come, at any moment.

A call is in the journal, then in the file of its segment, then in the file of its day. `lake_state.csv`, replaced by
rename, says which of them counts. The view `calls` lists the files first and reads the state after that, once, in each
query; so it is exact when each change is made in this order:

1. the state says `pending`, then files are put in place (written aside, synced, renamed); nothing counts them yet
2. `settle` seconds later, when each query that listed the files before that has read the state: the state turns
3. files that count no more are retired: replaced by a link, so that new queries do not list them (DuckDB passes over
   links in a pattern that ends in `**`), while those that did can open them
4. `grace` seconds later, when each query that listed them has opened them: link and file are removed

Corrections move the same way, in files of their own below `corrections/`, so that files of calls never change and the
few files with corrections are found by their place. The state has one row for both, so both turn at once.

Work that a crash cut off is simply done again: what the state does not count may be overwritten. A closed day never
changes; a call recorded on it later (a clock that stepped back) is booked on the first day that is still open, and a
correction is kept on the day on which it was made.
A segment is retired only when it is ended (a gateway's recovery wants it until then), and when its records, read once
more, are all sound, as many and cost as much as the state says: so damage is never sealed away.
"""

import contextlib
import csv
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import duckdb

from analytics import budgeting, build, disk, journal, scoring, waste, work
from gateway import folders, ledger
from gateway.errors import UserError

SETTLE_SECONDS = 5.0
GRACE_SECONDS = 900.0
ROUND_SECONDS = 5.0
ANCHOR_DAY = date(1970, 1, 1)
"""Before all others: the first file of a listing gives the columns. It is never read beyond that."""
KINDS = ("calls", "corrections")
"""Folders of sealed files."""
STATES = ("pending", "sealed", "kept", "closed")
ANCHOR_SEGMENT = "0-anchor"
DAY_ZERO = date(1, 1, 1)
STORAGE_VERSION = "v1.0.0"
"""Of outlay.duckdb, so that older clients open it."""

log = logging.getLogger("outlay.lake")


class Row(NamedTuple):
    """One line of the state; see models/staging/lake_state.sql."""

    state: str
    day: date | None
    segment: str | None
    calls: int
    list_cost_nano: int
    corrections: int = 0
    corrections_nano: int = 0
    late_calls: int = 0

    @property
    def sums(self) -> journal.Sums:
        return journal.Sums(*self[3:7])

    def count(self, kind: str) -> int:
        """Number of rows in the file of a kind; there is no file without rows."""
        return self.calls if kind == "calls" else self.corrections

    def file_sums(self, kind: str) -> tuple[int, int]:
        """Rows, and their list cost in nano-USD, of the file of a kind."""
        return self[3:5] if kind == "calls" else self[5:7]


# -- files ---------------------------------------------------------------------------------------------------------


def state_file(data: Path) -> Path:
    return data / "lake_state.csv"


def read_state(data: Path) -> list[Row]:
    """Raises `UserError` when it cannot be read."""
    try:
        with state_file(data).open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file, strict=True)
            if tuple(lines.fieldnames or ())[:5] != Row._fields[:5]:  # those that each version has written
                raise ValueError("no state")
            return [_row(line) for line in lines]
    except OSError as error:
        why = error.strerror
    except (ValueError, KeyError, TypeError, csv.Error):
        why = "it is damaged"
    raise UserError(
        f"{state_file(data)}, which says which files count, cannot be read ({why}): restore it from a backup"
    )


def _row(line: dict[str, str]) -> Row:
    """Raises `ValueError`, `KeyError`, `TypeError`."""
    if line["state"] not in STATES:
        raise ValueError("no state")
    return Row(
        line["state"],
        date.fromisoformat(line["day"]) if line["day"] else None,
        line["segment"] or None,
        *(int(line[name]) for name in Row._fields[3:5]),
        *(int(line.get(name) or 0) for name in Row._fields[5:]),
    )


def write_state(data: Path, rows: list[Row]) -> None:
    with disk.put(state_file(data)) as aside, aside.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def day_folder(data: Path, day: date, kind: str = "calls") -> Path:
    return data / kind / f"day={day}"


def part_file(data: Path, day: date, segment: str, kind: str = "calls") -> Path:
    return day_folder(data, day, kind) / f"part-{segment}.parquet"


def day_file(data: Path, day: date, kind: str = "calls") -> Path:
    return day_folder(data, day, kind) / "day.parquet"


def anchor_file(data: Path, kind: str) -> Path:
    return day_folder(data, ANCHOR_DAY, kind) / "anchor.parquet"


def part_files(data: Path, segment: str = "*") -> list[Path]:
    """All files of segments, or of one, and links to those that are retired."""
    return [path for kind in KINDS for path in (data / kind).glob(f"day=*/part-{segment}.parquet")]


def segments(data: Path) -> list[Path]:
    """The journal's segments, oldest first, without those that are retired, and what is no file."""
    found = ledger.segments_in(data / "journal")
    return [path for path in found if path.stem != ANCHOR_SEGMENT and not path.is_symlink()]


def is_held(path: Path) -> bool:
    """True while a gateway writes the segment."""
    with path.open("rb") as segment:
        # An empty one was made a moment ago and is about to be locked; probing its lock could make that fail.
        if os.fstat(segment.fileno()).st_size == 0:
            return True
        try:
            fcntl.flock(segment, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# -- views -----------------------------------------------------------------------------------------------------------


def make(data: Path) -> None:
    """Make a data folder, and in it the journal's: at a start only, see `disk.check_journal`. Raises `OSError`."""
    folders.make(data)
    (data / "journal").mkdir(exist_ok=True)


def publish(data: Path) -> bool:
    """Make `outlay.duckdb`: views and comments over the data folder. True when it was made new, False if it fits.

    It is written aside and renamed, so that readers meet no lock; who has the old one open keeps using it.
    """
    make(data)
    return _publish(data)


def _publish(data: Path) -> bool:
    """Likewise, in a folder that was made."""
    if odd := next((part for part in data.resolve().parts if "=" in part), None):
        raise UserError(f"{data}: a folder named like {odd} would be read as a column; choose another data folder")
    with _made_of(data).open("a+") as made_of:
        fcntl.flock(made_of, fcntl.LOCK_EX)
        _prepare(data)
        published, aside = data / "outlay.duckdb", data / "outlay.duckdb.new"
        aside.unlink(missing_ok=True)
        models, made = build.load(), _made_now(data.resolve())
        made_of.seek(0)
        if published.exists() and made_of.read() == made:
            return False
        with duckdb.connect() as db:
            db.execute(f"ATTACH {build.literal(str(aside))} AS lake (STORAGE_VERSION {build.literal(STORAGE_VERSION)})")
            db.execute("USE lake")
            build.describe_views(db, build.create_sound_views(db, data, models))
            db.execute("USE memory")
            db.execute("DETACH lake")
        disk.sync(aside)
        aside.rename(published)
        disk.sync(data)
        made_of.truncate(0)
        made_of.write(made)
        return True


def see_published(data: Path) -> None:
    """`publish` in a folder that was made, unless `outlay.duckdb` is there, of these models and over this folder. Who
    may not write is left with what another version has made, and so is who comes before the keeper has given files
    their new columns. Raises `UserError`."""
    if not work.folder(data).is_dir():  # which may be there before the first call
        disk.check_journal(data)
    made = ""
    try:
        made = _made(data)
        if made != _made_now(data.resolve()):
            _publish(data)
    except (OSError, duckdb.Error) as error:
        if not made.endswith(f" {data.resolve()}"):  # there is nothing, or it reads the place where the folder was
            why = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
            then = "restore what is damaged from a backup"
            if isinstance(error, OSError | duckdb.IOException):
                then = (
                    "where Outlay reads a folder for the first time, it has to be writable and to have some room. "
                    "Make it so, or copy it to where it is"
                )
            raise UserError(f"{data}: its views cannot be made ({why}): {then}") from None
    read_state(data)  # for its errors: the view of it would take what it cannot read for a state of nothing


def _made(data: Path) -> str:
    """What `outlay.duckdb` was made of, see `_made_now`; nothing where there is none."""
    if not (data / "outlay.duckdb").exists() or not _made_of(data).exists():
        return ""
    return _made_of(data).read_text()


@cache
def _made_now(folder: Path) -> str:
    """What it would be made of: models, and the folder."""
    return f"{build.digest(folder, build.load())} {folder}"


def _made_of(data: Path) -> Path:
    """Says which models over which folder `outlay.duckdb` was made of. Locked while it is made."""
    return data / "outlay.duckdb.made"


def _prepare(data: Path) -> None:
    """Make what the views need to be there: the state, and for each glob one file."""
    for folder in ("journal", *KINDS):
        (data / folder).mkdir(exist_ok=True)
    anchor = data / "journal" / f"{ANCHOR_SEGMENT}.jsonl"
    if not anchor.exists():
        with disk.put(anchor) as aside:  # an ended segment, so that a gateway's recovery passes it over
            aside.write_bytes(ledger.encode("end", 0, b"{}"))
    if not state_file(data).exists():
        if any(path for kind in KINDS for path in (data / kind).glob("day=*/*.parquet")):
            raise UserError(f"{state_file(data)} is missing, which says which files count: restore it from a backup")
        write_state(data, [])
    missing = [kind for kind in KINDS if not anchor_file(data, kind).exists()]
    if missing:
        with _anchor(data) as db:
            for kind in missing:
                with disk.put(anchor_file(data, kind)) as aside:
                    _write_anchor(db, kind, aside)
    work.prepare(data)
    budgeting.prepare(data)
    scoring.prepare(data)
    waste.prepare(data)


@contextlib.contextmanager
def _anchor(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that has read the anchor's segment: what is written of it has all columns."""
    with duckdb.connect(config={"threads": 1}) as db:
        _read_segment(db, data / "journal" / f"{ANCHOR_SEGMENT}.jsonl", DAY_ZERO)
        yield db


def _write_anchor(db: duckdb.DuckDBPyConnection, kind: str, file: Path) -> None:
    db.execute(build.step("fill_anchor"), {"day": ANCHOR_DAY, "correction": None if kind == "calls" else ""})
    db.execute(build.step(f"write_{kind}"), {"day": ANCHOR_DAY, "file": str(file)})


def add_columns(data: Path) -> None:
    """Give the files of another version the columns that they lack, empty. The keeper does it at its start.

    DuckDB wants the columns of a listing's first file, the anchor, in all of them, and passes over others. So the
    anchor comes last: before that each file may have the new columns, after that each has them. A crash repeats it.
    """
    kinds = [kind for kind in KINDS if anchor_file(data, kind).exists()]
    if kinds:
        with _anchor(data) as db:
            for kind in kinds:
                with disk.put(anchor_file(data, kind)) as anchor:
                    _write_anchor(db, kind, anchor)
                    _add_columns_of(db, data, kind, anchor)


def _add_columns_of(db: duckdb.DuckDBPyConnection, data: Path, kind: str, anchor: Path) -> None:
    wanted = _columns(db, anchor)
    for file in sorted((data / kind).glob("day=*/*.parquet")):
        try:
            if file.is_symlink() or file.stem == "anchor" or wanted <= _columns(db, file):
                continue
            with disk.put(file) as aside:
                names = {"like": build.glob_of(anchor), "from": build.glob_of(file), "file": str(aside)}
                db.execute(build.step("add_columns"), names)
                _check_sums(db, aside, file_sums(db, file))
        except duckdb.Error as error:  # a damaged file, which queries over it meet anyhow
            log.error("%s cannot be read: %s", file, str(error).partition("\n")[0])


def _columns(db: duckdb.DuckDBPyConnection, file: Path) -> set[tuple[str, str]]:
    """Names and types of a Parquet file's columns."""
    return set(db.execute(build.step("file_columns"), {"file": build.glob_of(file)}).fetchall())


def _read_segment(db: duckdb.DuckDBPyConnection, path: Path, first_open_day: date) -> None:
    """Make the table `segment_entries`, through the view `journal_entries` over one segment, not the whole journal."""
    sql = build.load()["journal_entries"].sql.replace("/**'", f"/{path.name}'")
    db.execute(f"CREATE OR REPLACE TEMP VIEW journal_entries AS {build.located(sql, path.parent.parent)}")
    db.execute(build.step("read_segment"), {"first_open_day": first_open_day})


def scratch(data: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A database in memory. What does not fit goes where readers of `outlay.duckdb` put it, too."""
    config: dict[str, str | bool | int | float | list[str]] = {"temp_directory": str(data / "outlay.duckdb.tmp")}
    if threads is not None:
        config["threads"] = threads
    return duckdb.connect(config=config)


# -- rounds ----------------------------------------------------------------------------------------------------------


class Lake:
    """Moves calls from the journal to Parquet. One process per data folder (see `keep`); call `round` repeatedly."""

    def __init__(
        self,
        data: Path,
        settle: float = SETTLE_SECONDS,
        grace: float = GRACE_SECONDS,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self.data = data
        self._settle = settle
        self._grace = grace
        self._today = today
        self._sealing: dict[str, float] = {}
        """Segments whose files are in place but do not count yet, with the (monotonic) time of that."""
        self._closing: dict[date, tuple[float, Row]] = {}
        """The same for days: time, and the row of the state that will say so."""
        self._unconfirmed: dict[str, int] = {}
        """Segments that must stay in the journal, with the size at which that was found."""
        self._retired: dict[Path, float] = {}
        """Links to retired files, with the (monotonic) time since which we know them."""
        for folder in ("journal", *KINDS):
            for left_by_a_crash in (data / folder).rglob("*.tmp"):
                left_by_a_crash.unlink()

    def round(self) -> None:
        """One round of all steps. Raises `OSError` or `duckdb.Error`; the next round tries again."""
        errors: list[Exception] = []
        # Room first; and what one step cannot do keeps no other from its work.
        for each in (self._remove_retired, self.seal, self.turn, self.compact, self.remove):
            try:
                each()
            except (OSError, ValueError, duckdb.Error) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def seal(self) -> None:
        """Write each finished segment to the files of its days, where nothing counts them yet."""
        state = read_state(self.data)
        counted = {row.segment for row in state if row.state != "pending"}
        for path in segments(self.data):
            if path.stem in counted or path.stem in self._sealing or is_held(path):
                continue
            with scratch(self.data, threads=1) as db:
                first_open_day = max([_closed_through(state), *self._closing]) + timedelta(days=1)
                _read_segment(db, path, first_open_day)
                days = db.execute(build.step("segment_days")).fetchall() or [(None, 0, 0)]
                rows = [Row("pending", day, path.stem, *sums) for day, *sums in days]
                state = [row for row in state if row.segment != path.stem] + rows
                write_state(self.data, state)
                files = {
                    part_file(self.data, row.day, path.stem, kind): (row, kind)
                    for row in rows
                    for kind in KINDS
                    if row.day and row.count(kind)
                }
                for stray in part_files(self.data, path.stem):
                    # Left by a keeper that died while it judged the first open day otherwise; nothing counts it yet.
                    if not stray.is_symlink() and stray not in files:
                        self._retire(stray)
                for file, (row, kind) in files.items():
                    with disk.put(file) as aside:
                        db.execute(build.step(f"write_{kind}"), {"day": row.day, "file": str(aside)})
                        _check_sums(db, aside, row.file_sums(kind))
            self._sealing[path.stem] = time.monotonic()

    def turn(self) -> None:
        """Let the files count that have been in place for long enough."""
        settled = time.monotonic() - self._settle
        sealed = {segment for segment, since in self._sealing.items() if since <= settled}
        closed = {day: row for day, (since, row) in self._closing.items() if since <= settled}
        if not sealed and not closed:
            return
        state = [
            row._replace(state="sealed") if row.state == "pending" and row.segment in sealed else row
            for row in read_state(self.data)
        ]
        write_state(self.data, state + [row for _, row in sorted(closed.items())])
        for segment in sealed:
            del self._sealing[segment]
        for day in closed:
            del self._closing[day]

    def compact(self) -> None:
        """Write one file for each past day that nothing can be added to."""
        state = read_state(self.data)
        counted = {row.segment for row in state if row.state in ("sealed", "kept")}
        may_grow = {self._today()}
        may_grow |= {row.day for row in state if row.state == "pending" and row.day}
        may_grow |= {_first_day(path) for path in segments(self.data) if path.stem not in counted}
        for day in sorted({row.day for row in state if row.day and row.day > _closed_through(state)}):
            if day >= min(may_grow):
                break
            if day in self._closing:
                continue
            rows = [row for row in state if row.day == day and row.segment]
            whole = Row(
                "closed", day, None, *(sum(numbers) for numbers in zip(*(row[3:] for row in rows), strict=True))
            )
            for kind in KINDS:
                parts = [
                    part_file(self.data, day, row.segment, kind) for row in rows if row.segment and row.count(kind)
                ]
                file = day_file(self.data, day, kind)
                _check_nothing_is_lost(file, whole.count(kind))
                if parts:
                    with scratch(self.data, threads=1) as db, disk.put(file) as aside:
                        db.execute(build.step("write_day"), {"parts": [*map(build.glob_of, parts)], "file": str(aside)})
                        _check_sums(db, aside, whole.file_sums(kind))
            self._closing[day] = (time.monotonic(), whole)

    def remove(self) -> None:
        """Retire what counts no more, remove what was retired long ago, forget what nobody needs to know any more."""
        state = read_state(self.data)
        sealed: dict[str | None, list[Row]] = {}
        for row in state:
            if row.state == "sealed":
                sealed.setdefault(row.segment, []).append(row)
        for path in segments(self.data):
            if path.stem in sealed and self._is_confirmed(path, sealed[path.stem]):
                self._retire(path)
        closed = {f"day={row.day}" for row in state if row.state == "closed"}
        for path in part_files(self.data):
            if path.parent.name in closed and not path.is_symlink():
                self._retire(path)
        self._remove_retired()
        left = {path.stem for path in (self.data / "journal").glob("*.jsonl")}
        through = _closed_through(state)
        after = [r._replace(state="kept") if r.state == "sealed" and r.segment not in left else r for r in state]
        after = [row for row in after if row.state != "kept" or (row.day or DAY_ZERO) > through]
        if after != state:
            write_state(self.data, after)

    def _retire(self, path: Path) -> None:
        retired = self.data / "retired" / "-".join(path.relative_to(self.data).parts)
        retired.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):  # a crash came right after this
            retired.hardlink_to(path)
        aside = path.with_name(path.name + ".tmp")
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(retired, path.parent))
        aside.rename(path)

    def _remove_retired(self) -> None:
        now = time.monotonic()
        links = [*(self.data / "journal").glob("*.jsonl"), *part_files(self.data)]
        self._retired = {path: self._retired.get(path, now) for path in links if path.is_symlink()}
        for path, since in self._retired.items():
            if now - since >= self._grace:
                retired = path.resolve()
                path.unlink()  # first: a link to nothing would be listed
                retired.unlink(missing_ok=True)

    def _is_confirmed(self, path: Path, rows: list[Row]) -> bool:
        size = path.stat().st_size
        if self._unconfirmed.get(path.stem) == size:
            return False
        contents = journal.read(path)
        sound = not contents.damaged and contents.sums() == journal.total(row.sums for row in rows)
        if not sound:
            log.error("%s is damaged, or not what was sealed of it, and is kept; see `outlay verify`", path.name)
        if sound and contents.ended:
            return True
        self._unconfirmed[path.stem] = size
        return False


def _closed_through(state: list[Row]) -> date:
    return max((row.day for row in state if row.state == "closed" and row.day), default=DAY_ZERO)


def _first_day(segment: Path) -> date:
    """The day in a segment's name. Raises `ValueError` for a file that no gateway wrote."""
    try:
        return datetime.strptime(segment.name[:8], "%Y%m%d").date()  # noqa: DTZ007 - a day, UTC by definition
    except ValueError:
        raise ValueError(f"{segment} is not named like a journal segment: move it out of the journal") from None


def file_sums(db: duckdb.DuckDBPyConnection, file: Path) -> tuple[int, int]:
    """Rows and their list cost in nano-USD, as a Parquet file has them. Raises `duckdb.Error`."""
    row = db.execute(build.step("file_sums"), {"file": build.glob_of(file)}).fetchone()
    assert row is not None
    return row[0], row[1]


def _check_nothing_is_lost(day: Path, rows: int) -> None:
    """Raises `OSError` when a day's file holds more rows than what would replace it: the state lost something."""
    if day.exists():
        with duckdb.connect() as db:
            held, _ = file_sums(db, day)
        if held > rows:
            raise OSError(f"{day} holds {held} rows, the state knows of {rows}: restore lake_state.csv from a backup")


def _check_sums(db: duckdb.DuckDBPyConnection, file: Path, expected: tuple[int, int]) -> None:
    found = file_sums(db, file)
    if found != expected:
        raise OSError(f"{file} has {found}, not {expected} rows and nano-USD: written again in the next round")


def keep(
    data: Path,
    stop: threading.Event,
    *,
    wait: bool = False,
    beside: Callable[[Path], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> None:
    """Keep a data folder until `stop` is set: publish the views, then rounds, one last of them after `stop`.

    `beside` is entered meanwhile, in the one process that keeps the folder. Raises `UserError` when another one does;
    with `wait`, waits for it to end instead, and wants the folder to be there: a gateway has made it. Raises `OSError`
    when it cannot be locked. A later failure is logged in one line, once, and tried again.
    """
    if wait:
        disk.check_journal(data)
    else:
        make(data)
    while True:
        with disk.alone(data, "keeper.lock") as mine:
            if mine:
                with beside(data):
                    _keep_rounds(data, stop)
                return
        if not wait:
            raise UserError(f"another process keeps {data} already")
        if stop.wait(0.2):
            return


def settle(data: Path) -> None:
    """Seal, and compact, what is finished, unless another process keeps the folder and does so itself. Takes three
    times as long as readers need (`SETTLE_SECONDS`)."""
    with disk.alone(data, "keeper.lock") as mine:
        if mine:
            lake = Lake(data, settle=SETTLE_SECONDS)
            lake.round()
            for _ in ("segments count", "days count"):
                time.sleep(SETTLE_SECONDS)
                lake.round()


def _keep_rounds(data: Path, stop: threading.Event) -> None:
    lake: Lake | None = None
    failure = ""
    while True:
        last = stop.is_set()
        try:
            disk.check_journal(data)
            if lake is None:
                add_columns(data)
                _publish(data)
                lake = Lake(data)
            lake.round()
            failure = ""
        except (OSError, ValueError, duckdb.Error, UserError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            if line != failure:
                log.error("the lake could not be kept, trying again: %s", line)
            failure = line
        if last:
            return
        stop.wait(ROUND_SECONDS)
