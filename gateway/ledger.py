"""The journal: append-only, checksummed segments. One writer per segment, group commit of fsync in a thread.

A record is written (`write(2)`) before the answer's last byte goes out, so that a killed process loses nothing that
was answered; `fdatasync` follows within `sync_ms`, or is awaited per answer with `sync = "answer"`, for power loss.

Format of a line: a JSON object whose last key is `crc`, eight hex digits of CRC-32 over the bytes before `,"crc":"`.
Kinds (`e`): `start` heads a segment, `open` precedes forwarding, `close` is the finished call, `end` says that nothing
in the segment waits for recovery: its open calls were carried into the next segment. A segment without `end` whose
owner is gone is what a crash left: recovery closes its open calls as `interrupted` in a new segment, then ends it.

`correct` restates a closed call: all its fields anew, and beside them `cause` (`usage`, `price` or `attribution`) and
`booked_us`, the `at` of its close record. The close record stays; the call counts as its latest correction says. Since
a correction holds absolute values, to write one twice changes nothing.
"""

import asyncio
import contextlib
import errno
import fcntl
import itertools
import logging
import os
import secrets
import stat
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import msgspec

from gateway import folders
from gateway.call import Call
from gateway.config import LedgerSettings
from gateway.errors import Refusal, UserError

FORMAT_VERSION = 1
BALANCES = "balances.json"
"""What the budgets had spent when the present segments were begun."""
AHEAD_US = 5 * 60 * 1_000_000
IMPORT = "import"
KEPT_MAX = 10_000
"""Records of finished calls that wait in memory for a journal that can be written again."""
T = TypeVar("T")
Cause = Literal["usage", "price", "attribution"]
"""Why a call is corrected: what was billed became known later; another price book; another ticket or task."""
CRC_TAIL = len(b',"crc":"00000000"}')

log = logging.getLogger("outlay.ledger")


def encode(kind: str, at_us: int, fields: bytes) -> bytes:
    """One journal line from the JSON object `fields`."""
    line = (b'{"e":"%s","at":%d,%s' % (kind.encode(), at_us, fields[1:-1])).rstrip(b",")  # there may be no fields
    return b'%s,"crc":"%08x"}\n' % (line, zlib.crc32(line))


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of one journal line, or `None` when it is torn or damaged."""
    body = line.rstrip(b"\n")
    record: dict[str, Any] | None = msgspec.json.decode(body) if _is_sound(body) else None
    return record


def _is_sound(body: bytes) -> bool:
    return (
        body[-CRC_TAIL : -CRC_TAIL + 8] == b',"crc":"'
        and b"%08x" % zlib.crc32(body[:-CRC_TAIL]) == body[-CRC_TAIL + 8 : -2]
    )


def decode_as(line: bytes, shape: type[T]) -> T | None:
    """Only what `shape` has of a journal line, or `None` when it is torn or damaged."""
    body = line.rstrip(b"\n")
    return msgspec.json.decode(body, type=shape) if _is_sound(body) else None


def records(path: Path) -> Iterator[dict[str, Any]]:
    """All sound records of a segment; damaged lines are skipped (`outlay verify` reports them)."""
    with path.open("rb") as lines:
        for line in lines:
            record = decode(line)
            if record is not None:
                yield record


def segments_in(journal: Path) -> list[Path]:
    """All segments, oldest first, with the links to those that are retired; a folder put there is none."""
    return sorted(path for path in journal.glob("*.jsonl") if path.is_file())


def encode_correction(call: Call, cause: Cause, booked_us: int, at_us: int) -> bytes:
    """The journal line that restates a call whose close record was written at `booked_us`."""
    fields = b'%s,"cause":"%s","booked_us":%d}' % (msgspec.json.encode(call)[:-1], cause.encode(), booked_us)
    return encode("correct", at_us, fields)


def now_us() -> int:
    return time.time_ns() // 1000


class Ledger:
    """The gateway's only writer of money. `open` before forwarding, `close` exactly once, however the call ends."""

    def __init__(self, settings: LedgerSettings, gateway_id: str, clock: Callable[[], int] = now_us) -> None:
        self.dir = Path(settings.dir)
        self.failure: str | None = None
        """Why the journal cannot be written now; `None` while it can."""
        self._kept: list[bytes] = []
        """Records of finished calls that could not be written."""
        self._settings = settings
        self.waits_for_disk = settings.sync == "answer"
        self._gateway_id = gateway_id
        self._clock = clock
        self._encoder = msgspec.json.Encoder()
        self._in_flight: dict[str, bytes] = {}
        self._fd = -1
        self._segment = ""
        self._is_lost = False
        """The segment is not where it was begun: what is written to it, nobody will find."""
        self._size = self._head_size = 0
        self._segment_until_us = 0
        self.latest_us = 0
        """The last moment that was given."""
        self._written = self._synced = 0
        """Records so far, and how many of them are certainly on the disk."""
        self._waiting: asyncio.Future[None] | None = None
        self._unended: list[int] = []
        """Descriptors of full segments whose end could not be written yet; their locks keep recovery away."""
        self._ending = threading.Lock()
        self._reserve_fd = -1
        self.checkpoint: Callable[[str, int], bytes] | None = None
        """(own segment, its size) → what `balances.json` has to say when all older segments are gone. It is on the disk
        before a segment gets its end, and may be sealed."""
        self._checkpoint = b""

    # -- life of the process ------------------------------------------------------------------------------------

    def start(self) -> int:
        """Recover what a crash left open, then open a fresh segment. Returns the number of interrupted calls.

        Raises `OSError` when the data folder cannot be written.
        """
        folders.make(self.dir)
        self.journal.mkdir(exist_ok=True)
        for left in (*self.journal.glob("reserve-*"), *self.journal.glob("*.new")):
            if _is_free(left):
                left.unlink(missing_ok=True)
        self._make_reserve()
        with contextlib.ExitStack() as locks:
            crashed = _lock_crashed(segments_in(self.journal), locks)
            left_open = _left_open(crashed, self.journal)
            self._new_segment()
            self._recover(crashed, left_open)
        return len(left_open)

    def _recover(self, crashed: dict[Path, int], left_open: dict[str, dict[str, Any]]) -> None:
        for fields in left_open.values():
            fields["result"] = "interrupted"
            fields["usage_source"] = "none"
            fields["price_status"] = "unpriced"
            self._append(encode("close", self.moment(), self._encoder.encode(fields)))
        if (error := _sync(self._fd)) is not None:
            raise error
        self._take_checkpoint()
        self._save_checkpoint()
        for fd in crashed.values():
            # Only now: had we died before this line, the next start would have found the same opens.
            line = b"\n" + self._end_line()  # "\n" closes a line torn by the crash
            size = os.fstat(fd).st_size
            if os.write(fd, line) != len(line):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _sync(fd)

    async def keep(self) -> None:
        """Run beside the server: group commit, rotation, and the way back after a full disk or a lost folder."""
        while True:
            await asyncio.sleep(self._settings.sync_ms / 1000)
            self._look_after_segment()
            if self._synced < self._written:
                through = self._written
                waiting, self._waiting = self._waiting, None
                error = await asyncio.to_thread(_sync, self._fd)
                if error is None:
                    self._synced = through
                else:
                    self._failed(error)
                if waiting is not None:
                    waiting.set_result(None)
            if self.failure is not None:
                await asyncio.sleep(1)
                if await self._switch():
                    log.warning("the journal can be written again")
            elif self._size > self._head_size and (
                self._size >= self._settings.segment_bytes or self._clock() >= self._segment_until_us
            ):
                await self._switch()

    def stop(self) -> int:
        """Write everything out and let go of the segment. With calls in flight, or finished ones that it does not have,
        it gets no end: the next start closes them. Returns how many finished ones it does not have."""
        if self._kept:
            try:
                self._append(b"".join(self._kept))
                self._kept.clear()
            except OSError as error:
                log.critical("%d finished calls could not be recorded: %s", len(self._kept), error.strerror)
        if self._fd >= 0 and not self._in_flight and not self._kept:
            self._take_checkpoint()
            self._unended.append(self._fd)
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):  # without it the segments get no end, and are read at the next start
            self._save_checkpoint()
            self._write_ends()
        for fd in self._unended:
            os.close(fd)
        self._drop_reserve()
        return len(self._kept)

    @property
    def journal(self) -> Path:
        return self.dir / "journal"

    # -- records ------------------------------------------------------------------------------------------------

    def open(self, call: Call) -> None:
        """Record that a call is about to be forwarded. Raises the refusal `ledger_unavailable`."""
        if self.failure is not None and self._settings.on_failure == "refuse":
            raise self._refusal()
        fields = self._encoder.encode(call)
        try:
            self._append(encode("open", call.started_us, fields))
        except OSError as error:
            self._failed(error)
            if self._settings.on_failure == "refuse":
                raise self._refusal() from None
        self._in_flight[call.call_id] = fields

    def close(self, call: Call, *, keeps: bool = True) -> int | None:
        """Record a finished call. When the disk is full the reserve is given up so that this still succeeds; where that
        does not help the record is kept until the journal can be written again, unless it must not be (`keeps`): a
        crash could then lose one that was never opened.

        Returns when it was booked (microseconds since the epoch), or `None` when it could not be recorded, which is
        logged as critical.
        """
        self._in_flight.pop(call.call_id, None)
        at = self.moment()
        line = encode("close", at, self._encoder.encode(call))
        return at if self._record(call.call_id, line, keeps=keeps) else None

    def correct(self, call: Call, cause: Cause, booked_us: int) -> bool:
        """Restate a call that was closed at `booked_us` (microseconds since the epoch), by any process.

        False when it could not be recorded, which is logged as critical.
        """
        return self._record(call.call_id, encode_correction(call, cause, booked_us, self.moment()))

    def moment(self, after_us: int = 0) -> int:
        """Now (microseconds since the epoch), after everything that was booked and before everything that will be, also
        when the clock is set back: which of two records is the later one must be certain. `after_us`: and after what
        others booked; not so when that is far ahead of the clock."""
        now = self._clock()
        self.latest_us = max(now, self.latest_us + 1, after_us + 1 if after_us < now + AHEAD_US else 0)
        return self.latest_us

    def _record(self, call_id: str, line: bytes, *, keeps: bool = False) -> bool:
        try:
            self._append(line)
        except OSError as error:
            self._failed(error)
            if not self._use_reserve(line):
                if keeps and len(self._kept) < KEPT_MAX:
                    self._kept.append(line)
                    return True
                log.critical("call %s could not be recorded: %s", call_id, error.strerror)
                return False
        return True

    async def durable(self) -> None:
        """With `sync = "answer"`: wait until what was written is on the disk. Else returns at once."""
        if not self.waits_for_disk:
            return
        written = self._written
        while self._synced < written and self.failure is None:
            if self._waiting is None:
                self._waiting = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiting)

    # -- files --------------------------------------------------------------------------------------------------

    def _append(self, line: bytes) -> None:
        if self._is_lost:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        written = os.write(self._fd, line)
        if written != len(line):
            # A short write means a full disk: take the torn half back, so that it cannot swallow the next line.
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._written += 1

    def _look_after_segment(self) -> None:
        """A folder that is removed or moved away fails no write: the open file goes on to take them."""
        if self._is_lost:
            return
        path, own = self.journal / self._segment, os.fstat(self._fd)
        try:
            there = path.stat()
            self._is_lost = (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino)
        except OSError:
            self._is_lost = True
        if self._is_lost:
            self._failed(OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
            log.error("%s is gone: put the folder back, or make it anew and restart the gateway", path)
            self._drop_reserve()  # it was beside it

    def _new_segment(self) -> int:
        """Switch to a fresh segment that starts with the opens in flight. Returns the old one's descriptor, or -1."""
        now = self._clock()
        path = _segment_path(self.journal, now, self._gateway_id)
        lines = [_start_line(now, self._gateway_id, synthetic=self._settings.synthetic)]
        lines += self._kept
        lines += [encode("open", now, fields) for fields in self._in_flight.values()]
        content = b"".join(lines)
        # Under another name until it is locked and has its head, so that nobody takes it for what a crash left.
        unborn = path.with_suffix(".new")
        fd = os.open(unborn, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # at most a probe of another start is in the way
            if os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            unborn.rename(path)
        except OSError:
            os.close(fd)
            unborn.unlink(missing_ok=True)
            raise
        self._kept.clear()
        old, self._fd = self._fd, fd
        self._segment = path.name
        self._is_lost = False
        self._size = self._head_size = len(content)
        self._segment_until_us = now + self._settings.segment_seconds * 1_000_000
        self._written += 1
        return old

    def _write_ends(self) -> None:
        """End the segments that wait for it, as far as the disk takes it."""
        try:
            with self._ending:  # a switch's thread may still be at it when the process stops
                self._end_segments()
        except OSError:
            return  # the next switch tries again

    def _end_segments(self) -> None:
        while self._unended:
            fd, line = self._unended[0], self._end_line()
            size = os.fstat(fd).st_size
            if os.write(fd, line) != len(line):
                os.ftruncate(fd, size)
                return
            os.fdatasync(fd)
            os.close(self._unended.pop(0))

    def _end_old(self) -> None:
        """End old segments, once the new one, which carries the calls in flight, is safely on the disk."""
        try:
            folder = os.open(self.journal, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # the next switch tries again
        try:
            if _sync(self._fd) is None and _sync(folder) is None:
                self._save_checkpoint()
                self._write_ends()
        except OSError:
            return  # likewise
        finally:
            os.close(folder)

    async def _switch(self) -> bool:
        """Go on in a fresh segment. False when it cannot be written."""
        try:
            self._make_reserve()
            old = self._new_segment()
        except OSError as error:
            self._failed(error)
            return False
        self.failure = None
        self._take_checkpoint()
        if old >= 0:
            self._unended.append(old)
        await asyncio.to_thread(self._end_old)
        return True

    def _take_checkpoint(self) -> None:
        """At a moment at which nothing is being written."""
        if self.checkpoint is None:
            return
        try:
            self._checkpoint = self.checkpoint(self._segment, self._size)
        except OSError as error:
            log.error("the budgets' balances cannot be saved: %s", error.strerror)

    def _save_checkpoint(self) -> None:
        """Raises `OSError`."""
        with self._ending:  # a switch's thread may still be at it when the process stops
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        content, self._checkpoint = self._checkpoint, b""
        if not content:
            return
        aside = self.dir / f"balances-{self._gateway_id}.new"
        try:
            with open(aside, "wb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.dir / BALANCES)
        except OSError:
            self._checkpoint = content
            aside.unlink(missing_ok=True)
            raise

    def _end_line(self) -> bytes:
        return encode("end", self._clock(), b"{}")

    # -- a disk that is full or gone ----------------------------------------------------------------------------

    @property
    def _reserve(self) -> Path:
        return self.journal / f"reserve-{self._gateway_id}"

    def _make_reserve(self) -> None:
        """Raises `OSError` when there is no room for it. Its lock says that somebody still needs it."""
        if self._reserve_fd < 0:
            self._reserve_fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._reserve_fd, fcntl.LOCK_EX)
        os.posix_fallocate(self._reserve_fd, 0, max(self._settings.reserve_bytes, 1))

    def _drop_reserve(self) -> None:
        if self._reserve_fd >= 0:
            self._reserve.unlink(missing_ok=True)
            os.close(self._reserve_fd)
            self._reserve_fd = -1

    def _use_reserve(self, line: bytes) -> bool:
        self._drop_reserve()
        try:
            self._append(line)
        except OSError:
            return False
        return True

    def _failed(self, error: OSError) -> None:
        # The journal's folder is made at a start only: one made anew could be underneath the place of a lost volume.
        is_gone = error.errno == errno.ENOENT
        why = "its folder was removed or moved away" if is_gone else error.strerror or "unknown error"
        if self.failure is None:
            log.error("the journal cannot be written: %s; policy: %s", why, self._settings.on_failure)
        self.failure = why

    def _refusal(self) -> Refusal:
        return Refusal(
            "ledger_unavailable",
            f"Outlay cannot record calls at the moment ({self.failure}), so it does not forward them. "
            "An administrator has to look at the gateway's data folder.",
        )


# -- calls and corrections by a command ------------------------------------------------------------------------------


class Correction(NamedTuple):
    """A call restated. Times are in microseconds since the epoch."""

    call: Call
    cause: Cause
    booked_us: int
    """When the call was booked."""
    at_us: int
    """When what the correction is made of was known: of several corrections of a call, the one with the latest counts.
    The time of writing would overrule what came between reading and writing."""


def write_corrections(settings: LedgerSettings, corrections: Iterable[Correction], writer_id: str) -> int:
    """Restate calls, beside running gateways. See `_write_segments`; the same corrections may be written again."""
    return _write_segments(settings, (encode_correction(*each) for each in corrections), writer_id, now_us)


def encode_close(call: Call, recorded_us: int) -> bytes:
    """The journal line of a call that has ended."""
    return encode("close", recorded_us, msgspec.json.encode(call))


def write_calls(settings: LedgerSettings, lines: Iterable[bytes], first_us: int) -> int:
    """Book calls that were made elsewhere (lines of `encode_close`, recorded at `first_us` or later, microseconds since
    the epoch), beside running gateways. See `_write_segments`."""
    writer_id = f"{IMPORT}-{secrets.token_hex(4)}"
    return _write_segments(settings, lines, writer_id, itertools.count(first_us).__next__)


def is_imported(segment: str) -> bool:
    """True of the name of a segment that `write_calls` wrote: its records are from before they were written."""
    return f"-{IMPORT}-" in segment


def _write_segments(
    settings: LedgerSettings, lines: Iterable[bytes], writer_id: str, moment_us: Callable[[], int]
) -> int:
    """Write records to segments of their own, each named after a moment, which is another one for each of them.

    They come under their names only when all of them are whole and on the disk: until then a crash leaves nothing, and
    only between the renames a part. The segments are the gateway's, like the journal, also when root writes them.
    Returns how many records there were. Raises `UserError` when the journal is another user's, `OSError`, and whatever
    `lines` raises.
    """
    journal = Path(settings.dir) / "journal"
    owner = journal.stat()
    if os.geteuid() not in (0, owner.st_uid):
        raise UserError(
            f"{journal} belongs to the user with the id {owner.st_uid}: run this as that user, whose gateway has to "
            "read what is written, or as root"
        )
    written = 0
    with contextlib.ExitStack() as segments:
        unborn: list[tuple[Path, Path]] = []
        file: BinaryIO | None = None
        for line in lines:
            if file is None or file.tell() >= settings.segment_bytes:
                _finish(file)
                start_us = moment_us()
                path = _segment_path(journal, start_us, writer_id)
                aside = path.with_suffix(".new")
                unborn.append((aside, path))
                segments.callback(aside.unlink, missing_ok=True)
                file = segments.enter_context(open(aside, "xb", opener=_private))
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                fcntl.flock(file, fcntl.LOCK_EX)  # says to a starting gateway that no crash left this
                file.write(_start_line(start_us, writer_id, synthetic=settings.synthetic))
            file.write(line)
            written += 1
        _finish(file)
        for aside, path in unborn:
            aside.rename(path)
    if written:
        folder = os.open(journal, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return written


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _finish(file: BinaryIO | None) -> None:
    if file is not None:
        file.write(encode("end", now_us(), b"{}"))
        file.flush()
        os.fsync(file.fileno())


def _segment_path(journal: Path, at_us: int, writer_id: str) -> Path:
    name = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y%m%dT%H%M%S%f")
    return journal / f"{name}-{writer_id}.jsonl"


def _start_line(at_us: int, writer_id: str, *, synthetic: bool) -> bytes:
    head = {"v": FORMAT_VERSION, "gateway_id": writer_id, "synthetic": synthetic}
    return encode("start", at_us, msgspec.json.encode(head))


# -- recovery --------------------------------------------------------------------------------------------------------


def _lock_crashed(segments: list[Path], locks: contextlib.ExitStack) -> dict[Path, int]:
    """Segments without an end that no process holds, oldest first, each now held by us so that nobody else recovers
    it at the same time."""
    crashed: dict[Path, int] = {}
    for path in segments:
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # sealed and removed meanwhile
        if not _lock(fd):
            os.close(fd)
            continue
        if _has_end(path):
            os.close(fd)
            continue
        locks.callback(os.close, fd)
        crashed[path] = fd
    return crashed


def _lock(fd: int) -> bool:
    """Take a segment's lock. Somebody may be probing it just now, so a refusal counts only when it lasts."""
    for _ in range(5):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


def _left_open(crashed: Collection[Path], journal: Path) -> dict[str, dict[str, Any]]:
    """The fields of each call that a crashed segment opened and that was never closed, by call_id.

    A later segment may hold the close: it was carried along, and only the end could not be written.
    """
    opened: dict[str, dict[str, Any]] = {}
    for path in crashed:
        for record in records(path):
            if record["e"] == "open":
                opened[record["call_id"]] = {k: v for k, v in record.items() if k not in ("e", "at", "crc")}
    if opened:
        oldest = min(crashed)
        for path in segments_in(journal):
            # A segment may be removed, being sealed, while we look.
            with contextlib.suppress(FileNotFoundError):
                for record in records(path) if path >= oldest else ():
                    if record["e"] == "close":
                        opened.pop(record["call_id"], None)
    return opened


def _has_end(path: Path) -> bool:
    """True when nothing in the segment waits for recovery."""
    with path.open("rb") as segment:
        segment.seek(max(0, segment.seek(0, os.SEEK_END) - 256))
        last = decode(b"{" + segment.read().rpartition(b"\n{")[2])
    return last is not None and last["e"] == "end"


def _is_free(path: Path) -> bool:
    """True when no process holds the file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _sync(fd: int) -> OSError | None:
    """Flush a file or a folder."""
    try:
        os.fsync(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else os.fdatasync(fd)
    except OSError as error:
        return error
    return None
