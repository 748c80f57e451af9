"""Which connection a request goes over: those that are open and idle, by where they lead, and new ones."""

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence

import aiohappyeyeballs

from gateway.config import Server, Upstream
from gateway.errors import Refusal
from gateway.http1 import SAFE_TO_REPEAT, Answer, Connection, Origin, Request, head_of, origin_of
from gateway.turns import Turns
from gateway.upstream import Fields, UpstreamAnswer, not_in_time, not_reached

KEPT_SECONDS = 15.0
"""A connection that nobody needs is closed after so long: sooner than most servers do it."""
RESOLVED_SECONDS = 60.0
Addresses = Sequence[aiohappyeyeballs.AddrInfoType]


class Pool:
    """Idle connections by where they lead, the one last used first."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int, bool], list[Connection]] = {}
        self._all: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> None:
        self._all.add(connection)

    def take(self, origin: Origin) -> Connection | None:
        kept = self._idle.get(origin[:3])
        while kept:
            connection = kept.pop()
            is_young = connection.idle_since > time.monotonic() - KEPT_SECONDS
            if is_young and connection.is_usable and connection.is_quiet:
                return connection
            connection.abort()
        return None

    def put(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.setdefault(connection.origin[:3], []).append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEPT_SECONDS / 2, self._close_old)

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._all.discard(connection)
        kept = self._idle.get(connection.origin[:3])
        if kept and connection in kept:
            kept.remove(connection)

    def _close_old(self) -> None:
        self._sweep, until = None, time.monotonic() - KEPT_SECONDS
        for kept in self._idle.values():
            for connection in [each for each in kept if each.idle_since <= until]:
                kept.remove(connection)
                connection.abort()
        if any(self._idle.values()):
            self._sweep = asyncio.get_running_loop().call_later(KEPT_SECONDS / 2, self._close_old)

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.give_up()


class Http1:
    """Sends requests: see `UpstreamClient`."""

    def __init__(self, server: Server, turns: Turns) -> None:
        self._turns = turns
        self._head_bytes_max = 4 * server.header_bytes_max
        self._tls = _tls()
        self._pool = Pool()
        self._origins: dict[str, Origin] = {}
        self._resolved: dict[tuple[str, int], tuple[float, asyncio.Task[Addresses]]] = {}
        self._connecting: set[asyncio.Future[UpstreamAnswer] | None] = set()

    async def close(self) -> None:
        self._pool.close()
        await asyncio.sleep(0)  # transports tell their protocols in the next turn

    def send(
        self, name: str, upstream: Upstream, method: str, path: str, fields: Fields, body: bytes
    ) -> asyncio.Future[UpstreamAnswer]:
        try:
            origin = self._origins.get(upstream.base_url)
            if origin is None:
                origin = self._origins[upstream.base_url] = origin_of(upstream.base_url)
            head = head_of(origin, method, path, fields, body)
        except ValueError as error:
            failed: asyncio.Future[UpstreamAnswer] = asyncio.get_running_loop().create_future()
            failed.set_exception(not_reached(name, error))
            return failed
        request = Request(name, upstream, origin, method, head, body)
        connection = self._pool.take(origin)
        if connection is None:
            dialing = asyncio.ensure_future(self._dial_and_ask(request))
            self._connecting.add(dialing)
            dialing.add_done_callback(self._connecting.discard)
            return dialing
        answer = connection.ask(request)
        coming = answer.head  # taken now: the answer lets go of it once it has come
        if method not in SAFE_TO_REPEAT:
            return coming
        sent = asyncio.ensure_future(self._ask_again(answer, coming))
        # Given up before its first step, it would leave an answer that nobody reads.
        sent.add_done_callback(lambda ended: answer.close() if ended.cancelled() else None)
        return sent

    def is_connecting(self, sent: asyncio.Future[UpstreamAnswer]) -> bool:
        return sent in self._connecting

    async def _ask_again(self, answer: Answer, head: asyncio.Future[UpstreamAnswer]) -> UpstreamAnswer:
        """The answer; asked for once more where the kept connection was gone."""
        try:
            return await _head(answer, head)
        except Refusal as refusal:
            if refusal.code != "upstream_unreachable":
                raise
        return await self._dial_and_ask(answer.request)

    async def _dial_and_ask(self, request: Request) -> UpstreamAnswer:
        connection = await self._dial(request)
        self._connecting.discard(asyncio.current_task())
        answer = connection.ask(request)
        return await _head(answer, answer.head)

    async def _dial(self, request: Request) -> Connection:
        """A new connection. Raises `NotReachedError`."""
        loop, origin = asyncio.get_running_loop(), request.origin
        tcp: socket.socket | None = None
        try:
            async with asyncio.timeout(request.upstream.connect_seconds):
                addresses = await self._resolve(origin.host, origin.port)
                tcp = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=0.25)
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                _, connection = await loop.create_connection(
                    lambda: Connection(self._pool, origin, self._head_bytes_max, self._turns),
                    sock=tcp,
                    ssl=self._tls if origin.is_tls else None,
                    server_hostname=origin.host.rstrip(".") if origin.is_tls else None,
                )
        except TimeoutError:
            error = not_in_time(request.name)
        except (OSError, ValueError) as raised:
            error = not_reached(request.name, raised)
        else:
            self._pool.add(connection)
            return connection
        if tcp is not None:
            tcp.close()
        self._resolved.pop((origin.host, origin.port), None)  # it may have moved
        raise error

    async def _resolve(self, host: str, port: int) -> Addresses:
        """The addresses of a host; many who ask at once cause one look-up. Raises `OSError`."""
        until, looking = self._resolved.get((host, port), (0.0, None))
        if looking is None or until < time.monotonic():
            looking = asyncio.create_task(_look_up(host, port))
            looking.add_done_callback(lambda looked: self._looked_up(host, port, looked))
            self._resolved[host, port] = time.monotonic() + RESOLVED_SECONDS, looking
        return await asyncio.shield(looking)

    def _looked_up(self, host: str, port: int, looked: asyncio.Task[Addresses]) -> None:
        """Only what was found is kept. Whoever asked may have given up meanwhile."""
        if looked.cancelled() or looked.exception() is not None:
            _, now = self._resolved.get((host, port), (0.0, None))
            if now is looked:
                del self._resolved[host, port]


async def _look_up(host: str, port: int) -> Addresses:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _head(answer: Answer, head: asyncio.Future[UpstreamAnswer]) -> UpstreamAnswer:
    """The answer, once its head is there. Given up in the very turn in which it came, it is closed."""
    try:
        return await head
    except asyncio.CancelledError:
        answer.close()
        raise


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
