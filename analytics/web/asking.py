"""Runs queries for pages: in threads, so many at a time, each with a limit, and each once while nothing changes.

A query is one of the files below analytics/queries, with named parameters. An answer is given again while the data
folder is as it was, and in any case for `FRESH_SECONDS`: pages of many viewers read the calls once.
"""

import asyncio
import logging
import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

import analytics
from analytics import again, build, lake
from gateway.errors import UserError

FRESH_SECONDS = 10.0
KEPT_SECONDS = 300.0
"""Longest that an answer is given again, though nothing changed: some ask what time it is."""
ANSWERS_MAX = 500
FACTS = ("ticket_facts", "ticket_names", "pr_ticket_weights", "pr_fates", "pr_reverts", "projects")
"""Relations that follow from the work tables alone."""
WATCHED = ("journal", "calls", "corrections", "work", "findings", "budgets", "scorecard", "prices")

log = logging.getLogger("outlay.console")

Given = Mapping[str, Any]
Question = tuple[str, Given]
"""SQL, and what it is given."""


class AskError(Exception):
    """There is no answer. The message is for whoever looks at the page."""


@dataclass(frozen=True)
class Answer:
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    at: float
    """When it was asked, seconds since the epoch."""

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Base:
    """A database that queries run in: how it is made, and when it is made anew, beside those that run."""

    make: Callable[[Path], duckdb.DuckDBPyConnection]
    watched: tuple[str, ...] = ()
    """Folders in the data folder; when one of them has changed it is made anew, but not before `least` seconds."""
    least: float = 0.0
    most: float = math.inf
    """After so many seconds it is made anew in any case: some of it asks what time it is."""


class Asking:
    """Queries of one data folder."""

    def __init__(self, data: Path, seconds: float, at_once: int, base: Base) -> None:
        self._data = data
        self._base = base
        self._seconds = seconds
        self._turn = asyncio.Semaphore(at_once)
        self._opening = asyncio.Lock()
        self._db: duckdb.DuckDBPyConnection | None = None
        self._made: tuple[Any, float] = None, 0.0
        """What was watched was like when the database was made, and when (monotonic)."""
        self._times_anew = 0
        self._making: asyncio.Task[None] | None = None
        self._answers: OrderedDict[Any, tuple[Any, float, asyncio.Task[list[Answer]]]] = OrderedDict()
        """By questions: what the data folder was like, when they were asked (monotonic), and the answers."""

    def begin(self) -> None:
        """Make the database before somebody asks."""
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make_anew(), name="database")

    async def ask(self, sql: str, given: Given, *, is_exact: bool = False) -> Answer:
        """The rows of a query. `is_exact`: as of now, though the same was answered a moment ago. Raises `AskError`."""
        [answer] = await self.ask_all([(sql, given)], is_exact=is_exact)
        return answer

    async def ask_all(
        self, questions: Sequence[Question], over: str = "", *, is_exact: bool = False
    ) -> Sequence[Answer]:
        """The rows of each query, one after the other. `over`: of what another query gives, which is run once for them
        all, with what the first is given, and is a relation of its name to them. Raises `AskError`."""
        key = (over, *((sql, repr(sorted(given.items()))) for sql, given in questions))
        mark, now = (self._times_anew, self._mark()), time.monotonic()
        known = self._answers.get(key)
        if known is not None:
            was, since, task = known
            if now - since < (KEPT_SECONDS if was == mark else 0.0 if is_exact else FRESH_SECONDS) and not _failed(
                task
            ):
                self._answers.move_to_end(key)
                return await asyncio.shield(task)
        task = asyncio.create_task(self._answer(questions, over))
        self._answers[key] = mark, now, task
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
        return await asyncio.shield(task)  # others may wait for it, too

    async def ask_once(self, sql: str, given: Given) -> Answer:
        """The same for what is too much to be kept."""
        [answer] = await self._answer([(sql, given)])
        return answer

    async def close(self) -> None:
        running: list[asyncio.Task[Any]] = [task for _, _, task in self._answers.values() if not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *([self._making] if self._making else []), return_exceptions=True)
        if self._db is not None:
            self._db.close()

    async def _answer(self, questions: Sequence[Question], over: str = "") -> list[Answer]:
        try:
            async with asyncio.timeout(self._seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise AskError("Too many queries are running. Try again in a moment.") from None
        try:
            return await self._once_more(questions, over)
        except duckdb.InterruptException:
            raise AskError(
                f"This took longer than {self._seconds:g} s, and was given up. Choose a shorter span."
            ) from None
        except duckdb.BinderException as error:
            log.warning("a page asked for what is not there: %s", str(error).partition("\n")[0])
            raise AskError("This table has no such column.") from None
        except (duckdb.Error, OSError, UserError) as error:
            log.error("a page could not be answered: %s", str(error).partition("\n")[0])
            raise AskError("This cannot be answered at the moment; the log of the console says why.") from None
        finally:
            self._turn.release()

    async def _once_more(self, questions: Sequence[Question], over: str) -> list[Answer]:
        """A file that is replaced while a query reads it fails that query, and not the next one."""
        for _ in range(again.TRIES - 1):
            try:
                return await self._in_time((await self._database()).cursor(), questions, over)
            except duckdb.Error as error:
                if not again.is_passing(error):
                    raise
                log.info("a query is asked once more: %s", str(error).partition("\n")[0])
        return await self._in_time((await self._database()).cursor(), questions, over)

    async def _database(self) -> duckdb.DuckDBPyConnection:
        if self._db is None:
            async with self._opening:
                if self._db is None:
                    await self._make()
        else:
            mark, since = self._made
            age = time.monotonic() - since
            if age > self._base.most or (age > self._base.least and mark != self._mark(self._base.watched)):
                self.begin()
        assert self._db is not None
        return self._db

    async def _make(self) -> None:
        self._made = self._mark(self._base.watched), time.monotonic()
        self._times_anew += self._db is not None
        self._db = await asyncio.to_thread(self._base.make, self._data)  # queries that run keep the one before

    async def _make_anew(self) -> None:
        try:
            async with self._opening:
                await self._make()
        except (duckdb.Error, OSError, UserError) as error:
            log.error("the pages' database cannot be made: %s", str(error).partition("\n")[0])

    async def _in_time(
        self, cursor: duckdb.DuckDBPyConnection, questions: Sequence[Question], over: str
    ) -> list[Answer]:
        loop = asyncio.get_running_loop()
        limit = loop.call_later(self._seconds, cursor.interrupt)
        running = loop.run_in_executor(None, _run, cursor, questions, over)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:  # a thread cannot be: it is waited for, so that nothing is closed under it
            cursor.interrupt()
            await asyncio.wait([running])
            raise
        finally:
            limit.cancel()

    def _mark(self, places: Sequence[str] = (".", *WATCHED)) -> tuple[Any, ...]:
        """Another one when something in the data folder has changed."""
        return tuple(_marks(self._data, places))


def _failed(task: "asyncio.Task[list[Answer]]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def opened(data: Path) -> duckdb.DuckDBPyConnection:
    """The published views, as anybody opens them."""
    db = analytics.open(data)
    db.execute("SET enable_progress_bar = false")
    return db


def with_facts(data: Path) -> duckdb.DuckDBPyConnection:
    """All views, and as tables what trackers and forges tell: as views, to plan a query takes longer than to run it."""
    lake.see_published(data)
    db = lake.scratch(data)
    db.execute("SET enable_progress_bar = false")
    db.execute("SET parquet_metadata_cache = true")
    build.create_views(db, data, build.load(), FACTS)
    return db


PAGES = Base(with_facts, ("work",), 10.0, 600.0)


def _run(cursor: duckdb.DuckDBPyConnection, questions: Sequence[Question], over: str) -> list[Answer]:
    try:
        if over:
            _execute(cursor, f"CREATE TEMP TABLE {name_of(over)} AS\n{text(over)}", questions[0][1])
        return [_rows(cursor, sql, given) for sql, given in questions]
    finally:
        cursor.close()


def _rows(cursor: duckdb.DuckDBPyConnection, sql: str, given: Given) -> Answer:
    at = time.time()
    result = _execute(cursor, sql, given)
    columns = tuple(column[0] for column in result.description or ())
    return Answer(columns, tuple(result.fetchall()), at)


def _execute(cursor: duckdb.DuckDBPyConnection, sql: str, given: Given) -> duckdb.DuckDBPyConnection:
    return cursor.execute(sql, {name: given[name] for name in parameters(sql) if name in given})


def _marks(data: Path, places: Sequence[str]) -> Iterator[Any]:
    for place in places:
        try:
            with os.scandir(data / place) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    if not entry.name.endswith((".tmp", ".lock", ".log", ".sock")):
                        stat = entry.stat(follow_symlinks=False)
                        yield entry.name, stat.st_size, stat.st_mtime_ns
        except OSError:
            yield None


# -- the text of queries ----------------------------------------------------------------------------------------------

_TOKENS = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(?P<name>[a-z_]+)")
_TEXTS: dict[str, str] = {}


def text(name: str) -> str:
    """The SQL of a query, by the name of its file below analytics/queries."""
    if name not in _TEXTS:
        _TEXTS[name] = (build.FOLDER / "queries" / f"{name}.sql").read_text(encoding="utf-8").rstrip().rstrip(";")
    return _TEXTS[name]


def name_of(query: str) -> str:
    """What a query is called: its file without the folder."""
    return query.rpartition("/")[2]


def whole(query: str, over: str = "") -> str:
    """The SQL of a query with what it is over, to be run alone."""
    return f"WITH {name_of(over)} AS MATERIALIZED (\n{text(over)}\n)\n{text(query)}" if over else text(query)


def parts(sql: str) -> Iterator[tuple[str, str]]:
    """A query in pieces: `text`, and `name` for each of its parameters; comments and strings hold none."""
    at = 0
    for match in _TOKENS.finditer(sql):
        if match["name"]:
            yield "text", sql[at : match.start()]
            yield "name", match["name"]
            at = match.end()
    yield "text", sql[at:]


def parameters(sql: str) -> set[str]:
    return {piece for kind, piece in parts(sql) if kind == "name"}


def spelled_out(sql: str, given: Given) -> str:
    """The same query with its parameters written in, to be run anywhere."""
    return "".join(literal(given.get(piece)) if kind == "name" else piece for kind, piece in parts(sql))


def literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case datetime():
            return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S}'"
        case date():
            return f"DATE '{value}'"
        case str():
            return build.literal(value)
        case Sequence():
            return f"[{', '.join(map(literal, value))}]"
    raise TypeError(type(value).__name__)
