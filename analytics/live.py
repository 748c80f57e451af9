"""Live spend: answers the gateway's questions about keys, tasks and tickets, and about what its budgets have spent,
beside the keeper's rounds.

HTTP over a Unix domain socket in the data folder, `control.sock`, which its user alone may open; the other side is
`gateway/control.py`. One query runs at a time, in a thread, and answers everybody who waits for that kind of thing: it
reads the calls once, however many ask, and takes one core, for the gateway streams with the others. Each query sees the
calls up to the last one answered; an answer is given again for `FRESH_SECONDS`. A task's calls count when they were
booked in the last `TASK_DAYS`. What budgets have spent is asked for as of a moment, and is answered anew each time.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import duckdb
import msgspec
from aiohttp import web

import analytics
from analytics import budgeting, build, findings, lake
from gateway.control import ASKING_MAX, ID, SOCKET, Kind, socket_path
from gateway.errors import UserError
from gateway.verdicts import State

FRESH_SECONDS = 3.0
GATHER_SECONDS = 0.01
"""Before a query, so that questions of one moment are answered together."""
ANSWERS_MAX = 1000
"""Answers kept."""
TASK_DAYS = 35
QUERY_SECONDS = 30.0
"""A query that takes longer is given up. The gateway waits less; who asks again then finds the answer."""
SUM_SECONDS = 50.0
"""The same for what budgets have spent, which is asked for seldom, and which the gateway waits for."""
AGAIN_SECONDS = 0.1
"""Between two attempts to interrupt a query."""
REST_SECONDS = 30.0
"""After a query that was given up nobody starts another of its kind: it would end no sooner."""
RETRY_SECONDS = 5.0
QUESTION_BYTES_MAX = 67_108_864

T = TypeVar("T")

log = logging.getLogger("outlay.live")


# -- questions and answers --------------------------------------------------------------------------------------------


class Live:
    """Answers for one data folder."""

    def __init__(self, data: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._data = data
        self._clock = clock
        self._waiting: dict[Kind, dict[str, asyncio.Future[bytes | None]]] = {kind: {} for kind in get_args(Kind)}
        self._asked = asyncio.Event()
        self._answers: dict[tuple[Kind, str], tuple[float, bytes]] = {}
        """With the (monotonic) time until which they are given again; oldest first."""
        self._rests: dict[Kind, float] = {}
        """Until when (monotonic) a kind is not asked for."""
        self._questions: list[tuple[budgeting.Question, asyncio.Future[bytes | None]]] = []
        self._db: duckdb.DuckDBPyConnection | None = None

    async def ask(self, kind: Kind, name: str) -> bytes | None:
        """What something has cost, as JSON. `None` when that cannot be said now. Needs `answer` to run beside."""
        known = self._answers.get((kind, name))
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        waiting = self._waiting[kind]
        answer = waiting.setdefault(name, asyncio.get_running_loop().create_future())
        self._asked.set()
        return await asyncio.shield(answer)  # others may wait for it, too

    async def budget_sums(self, question: budgeting.Question) -> bytes | None:
        """What budgets have spent, a list of `gateway.budgets.Sum` as JSON. Else as `ask`."""
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._questions.append((question, answer))
        self._asked.set()
        return await answer  # cancelled when nobody waits any more

    async def answer(self) -> None:
        """Answer whatever is asked, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            while any(self._waiting.values()) or self._questions:
                for kind in self._waiting:
                    if self._waiting[kind]:
                        await asyncio.sleep(GATHER_SECONDS)
                        await self._answer_some(kind)
                if self._questions:
                    await self._answer_sums(*self._questions.pop(0))

    async def _answer_some(self, kind: Kind) -> None:
        names = list(self._waiting[kind])
        answers: dict[str, bytes] = {}
        try:
            if time.monotonic() >= self._rests.get(kind, 0.0):
                answers = await self._in_time(QUERY_SECONDS, lambda: self._query(kind, names))
        except duckdb.InterruptException:
            self._rests[kind] = time.monotonic() + REST_SECONDS
            log.error("the spend of %s takes over %g s: not asked for %g s", kind, QUERY_SECONDS, REST_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            log.error("the spend of %s cannot be told: %s", kind, str(error).partition("\n")[0] or type(error).__name__)
        finally:
            until = time.monotonic() + FRESH_SECONDS
            for name in names:
                self._waiting[kind].pop(name).set_result(answers.get(name))
            for name, answer in answers.items():
                self._answers.pop((kind, name), None)
                self._answers[kind, name] = until, answer
            while len(self._answers) > ANSWERS_MAX:
                del self._answers[next(iter(self._answers))]

    async def _answer_sums(self, question: budgeting.Question, waiting: asyncio.Future[bytes | None]) -> None:
        if waiting.done():
            return
        answer = None
        try:
            answer = await self._in_time(SUM_SECONDS, lambda: self._sum(question))
        except duckdb.InterruptException:
            log.error("what budgets have spent takes over %g s to sum", SUM_SECONDS)
        except Exception as error:  # noqa: BLE001 - as above
            line = str(error).partition("\n")[0] or type(error).__name__
            log.error("what budgets have spent cannot be told: %s", line)
        finally:
            if not waiting.done():
                waiting.set_result(answer)

    async def _in_time(self, seconds: float, query: Callable[[], T]) -> T:
        """Run a query in a thread. Raises `duckdb.InterruptException` when it takes too long."""
        running = asyncio.ensure_future(asyncio.to_thread(query))
        try:
            await asyncio.wait([running], timeout=seconds)
        finally:
            while not running.done():
                self._interrupt()  # more than once: what has not begun yet does not notice
                await asyncio.wait([running], timeout=AGAIN_SECONDS)
            running.exception()  # or nobody asks for it, where this is cancelled
        return running.result()

    def _sum(self, question: budgeting.Question) -> bytes:
        """As `_query`."""
        with lake.scratch(self._data, threads=1) as db:
            self._db = db
            try:
                return msgspec.json.encode(budgeting.sums(db, self._data, question))
            finally:
                self._db = None

    def _query(self, kind: Kind, names: list[str]) -> dict[str, bytes]:
        """Runs in a thread. Raises `duckdb.Error`, `OSError`, `UserError`."""
        now = self._clock()
        sql = (build.FOLDER / "queries" / f"live_{kind}.sql").read_text(encoding="utf-8")
        with analytics.open(self._data) as db:
            self._db = db
            try:
                db.execute("SET threads = 1")
                result = db.execute(sql, {"ids": names, **_days(kind, now.date())})
                columns = [column[0] for column in result.description or ()]
                rows = result.fetchall()
            finally:
                self._db = None
        return {row[0]: as_json({**dict(zip(columns, row, strict=True)), "as_of": now}) for row in rows}

    def _interrupt(self) -> None:
        db = self._db
        if db is not None:
            with contextlib.suppress(duckdb.Error):  # it has just been closed
                db.interrupt()


def _days(kind: Kind, today: date) -> dict[str, date]:
    """What a query needs to know of the calendar."""
    match kind:
        case "keys":
            return {"today": today, "month": today.replace(day=1)}
        case "tasks":
            return {"since": today - timedelta(days=TASK_DAYS)}
        case "tickets":
            return {}


def as_json(value: Any) -> bytes:
    """Amounts become exact numbers with all their decimals, times UTC."""
    return msgspec.json.encode(_plain(value))


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return msgspec.Raw(format(value, "f").encode())
        case datetime():
            return value.replace(tzinfo=UTC)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


# -- the socket -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(data: Path) -> Iterator[None]:
    """Answer on the data folder's socket while the block runs, in a thread of its own. For one process at a time: what
    another one left at the socket's place is replaced."""
    loop, ends = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=_run, args=(loop, data, ends), name="live")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, data: Path, ends: asyncio.Event) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_serve_until(ends, data))


async def _serve_until(ends: asyncio.Event, data: Path) -> None:
    served = asyncio.create_task(_serve(data))
    await ends.wait()
    served.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await served


async def _serve(data: Path) -> None:
    live = Live(data)

    async def tell(request: web.Request) -> web.Response:
        kind, name = cast(Kind, request.match_info["kind"]), request.match_info["name"]
        if not ID.fullmatch(name):
            return web.json_response({"error": "a name has 1 to 512 characters, none of control"}, status=400)
        answer = await live.ask(kind, name)
        if answer is None:
            return web.json_response({"error": "this cannot be told now"}, status=503)
        return web.Response(body=answer, content_type="application/json")

    async def sums(request: web.Request) -> web.Response:
        try:
            question = msgspec.json.decode(await request.read(), type=budgeting.Question)
        except msgspec.DecodeError as error:
            return web.json_response({"error": f"this is no question: {error}"}, status=400)
        answer = await live.budget_sums(question)
        if answer is None:
            return web.json_response({"error": "this cannot be told now"}, status=503)
        return web.Response(body=answer, content_type="application/json")

    one_at_a_time = asyncio.Lock()

    async def tell_findings(request: web.Request) -> web.Response:
        finding_id, given = request.match_info.get("finding_id"), request.query
        state, rule, team, ticket = (given.get(name) for name in ("state", "rule", "team", "ticket"))

        def answer() -> web.Response:
            if finding_id is None:
                states = findings.UNDISMISSED if state is None else (cast(State, state),)
                return _json({"findings": findings.listed(data, states, rule, team, ticket)})
            found = findings.one(data, finding_id, team, names="names" in given)
            return _json(found) if found else web.Response(status=404)

        return await _in_words(one_at_a_time, answer)

    async def review(request: web.Request) -> web.Response:
        finding_id, team = request.match_info["finding_id"], request.query.get("team")
        said = msgspec.json.decode(await request.read())

        def answer() -> web.Response:
            if findings.one(data, finding_id, team) is None:
                return web.Response(status=404)
            try:
                findings.review(data, finding_id, said["by"], said["state"], said["reason"], said["note"], team)
            except UserError as error:
                return web.Response(status=422, text=str(error))
            return _json(findings.one(data, finding_id, team, names="names" in request.query))

        return await _in_words(one_at_a_time, answer)

    app = web.Application(client_max_size=QUESTION_BYTES_MAX)
    app.add_routes([web.get("/findings", tell_findings), web.get("/findings/{finding_id}", tell_findings)])
    app.add_routes([web.post("/findings/{finding_id}", review)])
    app.add_routes([web.get(f"/{{kind:{'|'.join(get_args(Kind))}}}/{{name:[\\s\\S]+}}", tell)])
    app.add_routes([web.post("/budgets", sums)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, await _listener(data), backlog=ASKING_MAX).start()
        await live.answer()
    finally:
        await runner.cleanup()
        (data / SOCKET).unlink(missing_ok=True)


def _json(value: Any) -> web.Response:
    return web.Response(body=as_json(value), content_type="application/json")


async def _in_words(lock: asyncio.Lock, answer: Callable[[], web.Response]) -> web.Response:
    """An answer, in a thread, one at a time; 503 when there is none, whose cause is logged."""
    async with lock:
        try:
            return await asyncio.to_thread(answer)
        except (OSError, duckdb.Error, UserError) as error:
            log.error("findings cannot be told: %s", str(error).partition("\n")[0])
            return web.Response(status=503)


async def _listener(data: Path) -> socket.socket:
    """A socket in the folder, as soon as that lets us. A failure is logged once, and tried again."""
    failure = ""
    while True:
        try:
            return listen(data)
        except OSError as error:
            if str(error) != failure:
                failure = str(error)
                log.error("nobody can ask for live spend, trying again: %s cannot be made: %s", data / SOCKET, failure)
            await asyncio.sleep(RETRY_SECONDS)


def listen(data: Path) -> socket.socket:
    """A socket at its place in the folder, for the folder's user alone. Raises `OSError`."""
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX)
    try:
        path = Path(socket_path(folder))
        path.unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # before it has a place: nobody else can reach it, not for a moment
        listener.bind(str(path))
        if os.geteuid() == 0:
            os.chown(path, (owner := os.fstat(folder)).st_uid, owner.st_gid)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener
