"""Runs SQL that somebody wrote, read-only, in a process that can write nothing and read but what the views read.

DuckDB alone does not do it: read-only and confined to folders by its own settings, it still writes into those by
`COPY … TO`, also inside `WITH` and `EXPLAIN ANALYZE`. So each query has a process of its own (`analytics.sandboxed`),
which Linux's Landlock confines, and which is killed when its time is up.
"""

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from analytics import build, lake, landlock, sandboxed
from analytics.sandboxed import Answer, Request

AT_ONCE = 4
"""Queries at a time, of all together: each may take much memory."""
TRIES = 5
"""Where the state is replaced while a query begins: once in a few seconds, while a gateway writes."""

_running = 0


class SqlError(Exception):
    """Why there is no answer, in one line for who asked."""


class Result(NamedTuple):
    """What a query gave; `truncated` when there was more than the rows asked for, or than an answer may have bytes."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool


def why_off() -> str | None:
    """Why queries of others cannot be run on this system, in one line; None where they can."""
    if landlock.version():
        return None
    return (
        "SQL is switched off here: this system has no Landlock (Linux 5.13 or newer, and allowed in the container), "
        "without which a query could write files; ask with `outlay sql` or `duckdb -readonly` instead"
    )


async def run(
    data: Path,
    sql: str,
    *,
    rows_max: int,
    seconds: float,
    as_of: datetime | None = None,
    own_rights: bool = False,
) -> Result:
    """Run one query over the views of a data folder. Raises `SqlError`.

    `own_rights`: who asks could write to the folder anyhow, and is answered where the kernel has no Landlock, too.
    """
    global _running
    if not own_rights and (why := why_off()):
        raise SqlError(why)
    if _running >= AT_ONCE:
        raise SqlError(f"{AT_ONCE} queries run already: ask again when one of them has ended")
    _running += 1
    try:
        async with asyncio.timeout(seconds):
            return await _ask(data, sql, rows_max, seconds, as_of)
    except TimeoutError:
        raise SqlError(f"the query took longer than {seconds:g} s and was stopped: ask for less at once") from None
    finally:
        _running -= 1


async def _ask(data: Path, sql: str, rows_max: int, seconds: float, as_of: datetime | None) -> Result:
    await asyncio.to_thread(lake.see_published, data)
    request = _request(data, sql, rows_max, int(seconds) + 2, as_of)
    for _ in range(TRIES):
        answer = await _process(request)
        if not answer.moved:
            break
    if answer.error:
        raise SqlError(answer.error)
    rows = await asyncio.to_thread(_rows, answer)  # there may be many
    return Result(answer.columns, answer.types, rows, answer.truncated)


def _request(data: Path, sql: str, rows_max: int, cpu_seconds: int, as_of: datetime | None) -> Request:
    folders, files = read_places()
    views = [] if as_of is None else build.views_of_another_moment()
    confined = landlock.version() > 0
    return Request(str(data.resolve()), folders, files, sql, rows_max, cpu_seconds, confined, as_of, views)


def _rows(answer: Answer) -> list[tuple[Any, ...]]:
    read = [_READ.get(kind.partition("(")[0]) if not kind.endswith("]") else None for kind in answer.types]
    return [tuple(map(_value, msgspec.msgpack.decode(row), read)) for row in answer.rows]


async def _process(request: Request) -> Answer:
    """Let a new process answer, with nothing of ours but the request."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", sandboxed.__name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.msgpack.encode(request))
        process.stdin.close()
        said = bytearray()
        while part := await process.stdout.read(1 << 20):
            said += part
            if len(said) > 2 * sandboxed.BYTES_MAX:
                raise SqlError("the answer is too large: ask for less at once")
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
    if code == 0:
        return await asyncio.to_thread(msgspec.msgpack.decode, said, type=Answer)
    if code == -signal.SIGXCPU:
        raise SqlError("the query computed longer than its time and was stopped: ask for less at once")
    raise SqlError("the query was ended by the system, most likely for want of memory: ask for less at once")


def read_places() -> tuple[list[str], list[str]]:
    """What the views read, of a data folder: whole folders, and files. `retired` is where files lie that queries listed
    before they were replaced by links (`lake`)."""
    named = {place for model in build.load().values() for place in re.findall(r"'lake:([^']*)'", model.sql)}
    folders = {place.partition("/")[0] for place in named if "*" in place}
    return sorted({*folders, "retired"}), sorted(place for place in named if place.partition("/")[0] not in folders)


_READ: dict[str, Callable[[str], Any]] = {
    "DECIMAL": Decimal,
    "HUGEINT": int,
    "UHUGEINT": int,
    "BIGNUM": int,
    "DATE": date.fromisoformat,
    "TIMESTAMP": datetime.fromisoformat,
    "TIMESTAMP_S": datetime.fromisoformat,
    "TIMESTAMP_MS": datetime.fromisoformat,
    "TIMESTAMP_NS": datetime.fromisoformat,
}
"""How values of a type are read, that come as text."""


def _value(value: Any, read: Callable[[str], Any] | None) -> Any:
    if value is None or read is None:
        return value
    try:
        return read(value)
    except ValueError:  # Python has no such day: before the year 1, or after 9999
        return value
