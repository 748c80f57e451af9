"""Several processes that serve, and one that owns: this one. It starts the workers, answers what they ask of the owner,
starts one again that dies, and ends them.

Each worker listens on sockets of its own for the same address (SO_REUSEPORT): the system spreads connections evenly.
The sockets are made, and kept, here: when a worker dies, those that wait to be taken wait for the next one.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec

from gateway import guard, link
from gateway.admission import Grant, Looked
from gateway.call import Call
from gateway.config import Config, Server
from gateway.errors import Refusal, UserError
from gateway.limits import ENDED
from gateway.link import FromWorker, Link
from gateway.owner import LocalOwner
from gateway.quotes import Estimate
from gateway.sessions import Sessions
from gateway.telemetry import Sample, Telemetry

START_SECONDS = 60.0
STOP_SECONDS = 20.0
"""For what a worker does after its last call, beside `drain_seconds`."""
STARTS_MAX = 5
"""So often in a row a worker is started in vain."""
SHORT_SECONDS, PAUSE_SECONDS = 5.0, 1.0
"""A worker that died so soon is not started again at once."""
COUNT_SECONDS = 1.0
"""A worker that takes longer is left out of the metrics of this moment."""
_DECODER = msgspec.msgpack.Decoder(FromWorker)

log = logging.getLogger("outlay")


class Desk:
    """Answers one worker. What it has opened is closed when it is gone."""

    def __init__(self, owner: LocalOwner, workers: "Workers") -> None:
        self.listens = asyncio.Event()
        self.gone = asyncio.Event()
        self.levels: list[Sample] = []
        self.counting: dict[int, asyncio.Future[None]] = {}
        self.link: Link[FromWorker] = Link(_DECODER, self._received, self._lost)
        self._owner = owner
        self._workers = workers
        self._open: dict[str, Call] = {}
        """By call_id."""
        self._places: dict[str, Call] = {}
        """Requests that may have a place in flight, by request_id."""
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._looking: dict[int, asyncio.Future[link.Seen]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _received(self, message: FromWorker) -> None:
        """Most is answered at once. A mistake in one must not end the link."""
        try:
            self._take(message)
        except Exception as error:  # noqa: BLE001
            self._say_no(getattr(message, "n", 0), error, getattr(message, "call", None))

    def _take(self, message: FromWorker) -> None:
        match message:
            case link.Open():
                told = self._owner.open_at_once(message.call, message.wanted)
                if isinstance(told, Estimate):
                    self._opening[message.n] = self._beside(message.n, self._open_closely(message, told), message.call)
                else:
                    self._opened(message)
                    self._tell(message.n, told)
            case link.Close():
                self._close(message)
            case link.Grow():
                self._tell(message.n, self._owner.grow_now(message.call_id, message.cost))
            case link.Leave():
                if (call := self._places.pop(message.request_id, None)) is not None:
                    self._owner.leave(call)
            case link.Said():
                self._workers.pass_on(self, message)
            case link.Seen():
                if (looking := self._looking.get(message.n)) is not None and not looking.done():
                    looking.set_result(message)
            case link.Cancel():
                if (task := self._opening.get(message.n)) is not None:
                    task.cancel()
            case link.Refuse():
                self._beside(message.n, self._owner.refuse(message.call))
            case link.Demand():
                self._beside(message.n, self._owner.demand(message.call), message.call)
            case link.Enter():
                self._owner.enter_now(message.call)
                if self._owner.has_limits:
                    self._places[message.call.request_id] = message.call
                self._tell(message.n, None)
            case link.Book():
                self._beside(message.n, self._owner.book(message.results))
            case link.Correct():
                self._beside(message.n, self._owner.correct(message.key, message.call))
            case link.TaskOf():
                self._beside(message.n, self._owner.task(message.who, message.tickets, message.now_us))
            case link.Counted():
                self._workers.telemetry.add(message.gained)
                self.levels = message.levels
                if (counting := self.counting.pop(message.n, None)) is not None and not counting.done():
                    counting.set_result(None)
            case link.Listens():
                self.listens.set()

    # -- calls --------------------------------------------------------------------------------------------------------

    async def _open_closely(self, message: link.Open, known: Estimate) -> Grant:
        view = _View(message.n, self.link, self._looking)
        grant = await self._owner.open_closely(message.call, message.wanted, known, view)
        self._opened(message)
        return grant

    def _opened(self, message: link.Open) -> None:
        call = message.call
        self._open[call.call_id] = call
        if self._owner.has_limits and not message.wanted.in_session:
            self._places[call.request_id] = call

    def _close(self, message: link.Close) -> None:
        call = message.call
        self._open.pop(call.call_id, None)
        if call.result in ENDED:
            self._places.pop(call.request_id, None)
        remaining = self._owner.close_now(call, message.content_bytes, is_pending=message.is_pending)
        if self._owner.waits_for_disk:
            self._beside(message.n, self._owner.durable(remaining))
        else:
            self._tell(message.n, remaining)

    def _lost(self) -> None:
        """The worker is gone. What it had under way is what a crash leaves."""
        for task in self._opening.values():
            task.cancel()
        if self._open:
            log.warning("%d calls were interrupted by the end of a worker and are recorded as such", len(self._open))
        for call in self._open.values():
            self._interrupt(call)
        for call in self._places.values():
            self._owner.leave(call)
        self._open.clear()
        self._places.clear()
        self.levels = []
        for counting in self.counting.values():
            counting.cancel()
        self.gone.set()

    def _interrupt(self, call: Call) -> None:
        """One that fails must not keep the others open."""
        try:
            self._owner.interrupt(call)
        except Exception as error:
            log.critical("call %s may stay open until the next start", call.call_id, exc_info=error)

    # -- answers ------------------------------------------------------------------------------------------------------

    def _tell(self, n: int, value: Any) -> None:
        self.link.send(link.Told(n, value))

    def _beside(self, n: int, answer: Coroutine[Any, Any, Any], call: Call | None = None) -> asyncio.Task[None]:
        """Answer what may have to wait."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._opening.pop(n, None)
            if task.cancelled():  # perhaps before it began
                answer.close()
                self.link.send(link.Failed(n, "cancelled"))

        task = asyncio.create_task(self._answer(n, answer, call), name=f"question {n}")
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    async def _answer(self, n: int, answer: Coroutine[Any, Any, Any], call: Call | None) -> None:
        try:
            self._tell(n, await answer)
        except Exception as error:  # noqa: BLE001
            self._say_no(n, error, call)

    def _say_no(self, n: int, error: Exception, call: Call | None) -> None:
        if isinstance(error, Refusal):
            self.link.send(link.refused(n, error, call))
            return
        if not isinstance(error, OSError):
            log.critical("a worker's question could not be answered", exc_info=error)
        if call is not None and self._open.pop(call.call_id, None) is not None:  # it was opened, and nobody will know
            self._places.pop(call.request_id, None)
            self._owner.leave(call)
            self._interrupt(call)
        self.link.send(link.Failed(n, type(error).__name__))


class _View:
    """The way to a request at a worker: see `admission.View`."""

    def __init__(self, n: int, to: "Link[FromWorker]", looking: dict[int, asyncio.Future[link.Seen]]) -> None:
        self._n = n
        self._link = to
        self._looking = looking

    async def look(self, model: str | None) -> Looked | None:
        return (await self._ask(link.Look(self._n, model))).looked

    async def check(self) -> None:
        await self._ask(link.Check(self._n))

    async def _ask(self, question: link.Look | link.Check) -> link.Seen:
        answer = self._looking[self._n] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(question)
            seen: link.Seen = await answer
        finally:
            del self._looking[self._n]
        if seen.refusal is not None:
            raise seen.refusal.refusal()
        return seen


class Workers:
    """The workers of one gateway."""

    def __init__(
        self, config: Config, owner: LocalOwner, telemetry: Telemetry, gateway_id: str, price_book: str
    ) -> None:
        self.telemetry = telemetry
        self._config = config
        self._owner = owner
        self._begin = link.Begin(config, gateway_id, price_book)
        self._sockets: list[list[socket.socket]] = []
        """Those of each worker."""
        self._sessions = Sessions()
        """What they have said, for the next one."""
        self._desks: dict[int, Desk] = {}
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._running: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)
        self._is_up = False
        self.are_lost = False
        """None of them is left, nor will one start."""
        self._stopping = asyncio.Event()

    async def start(self) -> tuple[str, int]:
        """Start them, and wait until all listen. Returns where. Raises `UserError`."""
        server, port = self._config.server, self._config.server.port
        try:
            _probe(server.host, port)
            for _ in range(server.workers):
                self._sockets.append(list(_bound(server.host, port)))
                port = self._sockets[0][0].getsockname()[1]
        except OSError as error:
            raise cannot_listen(server, error) from None
        for number in range(server.workers):
            self._running.append(asyncio.create_task(self._run(number), name=f"worker {number}"))
        try:
            async with asyncio.timeout(START_SECONDS):
                while len(self._desks) < server.workers or not all(d.listens.is_set() for d in self._desks.values()):
                    if any(task.done() for task in self._running):
                        raise UserError("a worker could not start: what is said above tells why")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise UserError(f"a worker was not ready in {START_SECONDS:g} s") from None
        self._is_up = True
        host: str = self._sockets[0][0].getsockname()[0]
        return host, port

    async def stop(self) -> None:
        """Let running calls finish, and end the workers. Nothing of them is open when this returns."""
        self._stopping.set()
        for each in itertools.chain(*self._sockets):
            each.close()  # else connections would wait for nobody
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._config.server.drain_seconds + STOP_SECONDS)
        for process in self._processes.values() if late else ():
            log.error("a worker does not end, and is killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def gather(self) -> None:
        """Take in what the workers' counters have gained up to now."""
        n = next(self._numbers)
        desks = list(self._desks.values())
        answers = [desk.counting.setdefault(n, asyncio.get_running_loop().create_future()) for desk in desks]
        for desk in desks:
            desk.link.send(link.Count(n))
        if answers:
            await asyncio.wait(answers, timeout=COUNT_SECONDS)
        self.telemetry.show(sample for desk in self._desks.values() for sample in desk.levels)

    def pass_on(self, by: Desk, message: link.Said) -> None:
        """What a session said to one of them is known to all."""
        self._sessions.take(message.who, message.session, message.said)
        for desk in self._desks.values():
            if desk is not by:
                desk.link.send(message)

    async def _run(self, number: int) -> None:
        """One worker, started again when it dies. One that does not start leaves its share to the others."""
        loop, in_vain = asyncio.get_running_loop(), 0
        while not self._stopping.is_set():
            since = loop.time()
            try:
                code, was_ready = await self._run_once(number)
            except OSError as error:
                log.error("worker %d cannot be started: %s", number, error.strerror)
                code, was_ready = 1, False
            if self._stopping.is_set() or not (was_ready or self._is_up):
                return
            in_vain = 0 if was_ready else in_vain + 1
            if in_vain == STARTS_MAX:
                self._give_up(number)
                return
            log.error("worker %d ended with code %d; it is started again", number, code)
            if loop.time() - since < SHORT_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)

    def _give_up(self, number: int) -> None:
        for each in self._sockets[number]:
            each.close()  # else connections would go on coming in that nobody takes
        log.critical("worker %d does not start, and the gateway goes on without it: restart the gateway", number)
        if not self._desks:
            log.critical("no worker is left: the gateway ends")
            self.are_lost = True
            signal.raise_signal(signal.SIGTERM)

    async def _run_once(self, number: int) -> tuple[int, bool]:
        own, theirs = socket.socketpair()
        listeners = [each.fileno() for each in self._sockets[number]]
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "gateway.worker", str(theirs.fileno()), *map(str, listeners),
                pass_fds=(theirs.fileno(), *listeners), start_new_session=True,  # Ctrl-C is for the owner alone
            )  # fmt: skip
        desk = Desk(self._owner, self)
        await desk.link.open(own)
        self._desks[number], self._processes[number] = desk, process
        desk.link.send(self._begin)
        for said in self._sessions.all():
            desk.link.send(link.Said(*said))
        if self._stopping.is_set():
            process.terminate()
        code = await process.wait()
        await desk.gone.wait()
        del self._desks[number], self._processes[number]
        return code, desk.listens.is_set()


def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Sockets that share an address with others of ours. Raises `OSError`."""
    for family, kind, protocol, _, address in _places(host, port):
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address[0], port, *address[2:]))
            made.listen(guard.BACKLOG)  # from now on nobody else can have the address
        except OSError:
            made.close()
            raise
        port = made.getsockname()[1]  # where the system chose it, all get the same
        yield made


def _places(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)


def _probe(host: str, port: int) -> None:
    """Raises `OSError` when somebody else has the address, with whom it would be shared."""
    for family, kind, protocol, _, address in _places(host, port):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


def cannot_listen(server: Server, error: OSError) -> UserError:
    return UserError(
        f"{server.host}:{server.port} cannot be used: {os.strerror(error.errno or 0)}; set [server] port to another one"
    )
