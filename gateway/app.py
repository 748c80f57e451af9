"""The composition root: settings in, a running gateway out. The only module that knows all others."""

import asyncio
import contextlib
import functools
import gc
import logging
import secrets
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway import credentials, guard, hashing, prices, relay
from gateway.admin import Admin
from gateway.admin_api import KeysApi, PricesApi
from gateway.admission import Admission
from gateway.aiohttp_client import AiohttpClient
from gateway.alerts import Alerts
from gateway.api import Api
from gateway.balances import Balances
from gateway.budget_file import BudgetFile
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Budgets
from gateway.budgets_api import BudgetsApi
from gateway.call import Principal
from gateway.claims import Claims
from gateway.config import Config
from gateway.control import Control
from gateway.errors import UserError
from gateway.findings import FindingNotices, FindingsApi
from gateway.guards import Guards
from gateway.http1_client import Http1
from gateway.http_api import HttpApi
from gateway.keys import Keys, of_settings
from gateway.late import Late
from gateway.ledger import Ledger
from gateway.limits import Limits
from gateway.owner import LocalOwner, Owner
from gateway.proxy import Proxy
from gateway.quotes import Quotes
from gateway.telemetry import Telemetry
from gateway.tickets import Tickets
from gateway.tokens import Estimator
from gateway.tracker import Tracker
from gateway.turns import Turns
from gateway.upstream import UpstreamClient
from gateway.webhook_routes import Webhooks
from gateway.workers import Workers, cannot_listen
from gateway.worktrees import Worktrees

LAST_REQUEST_SECONDS = 0.2
"""So soon after an answer whose head went out before SIGTERM its client may ask again, over the same connection."""

SIGNAL_SECONDS = 0.5
"""A process beside this one that ends so soon before a signal comes here was told to stop, too."""

if TYPE_CHECKING:
    from gateway.exporter import Exporter

log = logging.getLogger("outlay")

GARBAGE_OBJECTS = 20_000
"""Calls leave little in cycles: so many new objects at a time are looked through for it."""


def _without_values(record: logging.LogRecord) -> bool:
    """A log filter: where it happened and what kind of error, but no message, which may quote a header or a body."""
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, trace = record.exc_info
        where = "".join(traceback.format_tb(trace)) if not issubclass(kind, HttpProcessingError) else ""
        record.msg, record.args = f"a request failed: {kind.__name__}\n{where}".rstrip(), ()
        record.exc_info = record.exc_text = None
    return True


logging.getLogger("aiohttp.server").addFilter(_without_values)


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


def budget_file(config: Config, data: Path | None = None) -> BudgetFile:
    """Where this installation's budgets are written down. `data`: a data folder other than that of the settings."""
    toml = None if config.file is None else Path(config.file).parent / "budgets.toml"
    return BudgetFile(data or Path(config.ledger.dir), config.budgets, toml)


class Owned(NamedTuple):
    """The owner, and what is made of it."""

    owner: LocalOwner
    late: Late
    telemetry: Telemetry
    admin: Admin
    key_ring: Keys
    tickets: Tickets
    routes: list[web.RouteDef]
    """Below `/-/`."""
    gateway_id: str


@contextlib.asynccontextmanager
async def gateway(config: Config) -> AsyncIterator[tuple[str, int]]:
    """A gateway that listens; yields its address and port. On exit running calls may finish for `drain_seconds`.

    Raises `UserError` when the port or the data folder cannot be used.
    """
    book = prices.load_prices(config)
    async with _owned(config, book) as owned:
        if config.server.workers > 1:
            async with _workers(config, book, owned) as place:
                yield place
        else:
            async with serving(
                config, book, owned.owner, owned.late, owned.telemetry, owned.key_ring, owned.tickets, owned.routes,
                owned.gateway_id, lambda: setattr(owned.admin, "draining", True),
            ) as place:  # fmt: skip
                yield place


@contextlib.asynccontextmanager
async def _owned(config: Config, book: prices.PriceBook) -> AsyncIterator[Owned]:
    """Everything that there is once, and that calls share: money, limits, journal, alerts, the API."""
    admin_keys, gateway_id = of_settings(config.auth), secrets.token_hex(4)
    ledger = Ledger(config.ledger, gateway_id)
    late = Late(ledger.dir)
    telemetry = Telemetry()
    alerts = Alerts(config.alerts, ledger.dir, telemetry)
    try:
        late.start()
        hash_key = hashing.load_key(ledger.dir)
        notices = BudgetNotices(alerts.notice, functools.partial(hashing.keyed, hash_key))
        admission = Admission(Budgets(), Quotes(book), config.server.budget_wait_seconds, notices)
        control = Control(ledger.dir)
        balances = Balances(
            ledger.dir,
            budget_file(config),
            admission.budgets,
            gateway_id,
            (control, ledger),
            admission.wake_all,
            notices.look,
        )
        balances.start()
        ledger.checkpoint = balances.checkpoint
        interrupted = ledger.start()
    except OSError as error:
        raise UserError(f"the data folder {config.ledger.dir} cannot be written: {error.strerror}") from None
    if interrupted:
        log.warning("%d calls were interrupted by a crash and are recorded as such", interrupted)
    exporter = _exporter(config, telemetry, gateway_id)
    owner = LocalOwner(
        ledger, late, admission, Limits(config.limits), Guards(config.guards), alerts, telemetry, exporter
    )
    telemetry.holds_open.set_function(lambda: admission.open_holds)
    admin = Admin(ledger, telemetry, admission.budgets)
    key_ring, tracker = Keys(ledger.dir, admin_keys), Tracker(ledger.dir)
    key_ring.refresh()
    tracker.refresh()
    tickets = Tickets(config.tickets, Claims(key_ring.claim_key), tracker)

    def who(request: web.Request) -> Principal:
        headers = credentials.readable(request.headers)
        return credentials.authenticate_api(key_ring, config.auth.mode, headers, request.raw_path)

    of_budgets = BudgetsApi(budget_file(config), admission.budgets)
    parts = (
        Api(tickets, control, of_budgets.own), KeysApi(key_ring, tickets, config.upstreams),
        PricesApi(book, config.prices.policy), of_budgets, FindingsApi(control),
    )  # fmt: skip
    api = HttpApi([endpoint for part in parts for endpoint in part.endpoints()], who)
    alerts.start()
    told = FindingNotices(ledger.dir, alerts.notice)
    keepers = [
        asyncio.create_task(kept(each), name=type(each).__name__.lower()) for each in (ledger, tracker, balances, told)
    ]
    try:
        webhooks = Webhooks(ledger.dir, config.work, telemetry)
        routes = [*api.routes(), *webhooks.routes(), *admin.routes()]
        yield Owned(owner, late, telemetry, admin, key_ring, tickets, routes, gateway_id)
    finally:
        await alerts.stop()
        await control.close()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        lost = ledger.stop()
        if exporter is not None:
            await asyncio.to_thread(exporter.stop)
        late.stop()
    if lost:
        raise UserError(
            f"the journal could not be written at the end, and lacks the costs of {lost} calls: see that the data "
            "folder can be written before the next start"
        )


def _exporter(config: Config, telemetry: Telemetry, gateway_id: str) -> "Exporter | None":
    """`None` where nothing is to be sent: then its libraries, which take long to load, are not loaded."""
    if config.telemetry.otlp is None:
        return None
    from gateway.exporter import Exporter

    return Exporter(config, config.telemetry.otlp.rstrip("/"), telemetry, gateway_id)


@contextlib.asynccontextmanager
async def serving(
    config: Config,
    book: prices.PriceBook,
    owner: Owner,
    late: Late,
    telemetry: Telemetry,
    key_ring: Keys,
    tickets: Tickets,
    routes: Iterable[web.RouteDef],
    gateway_id: str,
    on_drain: Callable[[], None],
    listeners: Sequence[socket.socket] = (),
) -> AsyncIterator[tuple[str, int]]:
    """Serve calls: on `listeners`, or at the address of the settings. `on_drain` is called when no connection is taken
    any more."""
    estimator = Estimator()
    await estimator.load()  # now, while nobody waits
    if estimator.failure is not None:
        log.error("%s", estimator.failure)
    sockets = AiohttpClient(config.server)
    turns = Turns()
    forwarder: UpstreamClient = Http1(config.server, turns) if config.server.upstream_client == "lean" else sockets
    worktrees = Worktrees(config.tickets.worktrees)
    hash_key = hashing.load_key(Path(config.ledger.dir))
    proxy = Proxy(
        config, key_ring, book, owner, late, forwarder, sockets, telemetry, estimator, gateway_id, tickets, worktrees,
        hash_key, turns,
    )  # fmt: skip
    app = web.Application(client_max_size=config.server.body_bytes_max)

    async def tell(_: web.Request, response: web.StreamResponse) -> None:
        proxy.tell(response)

    app.add_routes([*routes, web.route("*", "/{path:[\\s\\S]*}", proxy.serve)])
    app.on_response_prepare.append(tell)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        shutdown_timeout=0.5,  # of those that were not waited for
    )
    await runner.setup()
    try:
        assert runner.server is not None
        routed = runner.server.request_handler

        def straight(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            """What cannot be for `/-/`, however it is written, needs no router."""
            assert isinstance(request, web.Request)
            path = request.raw_path
            is_plain = path[:1] == "/" and path[1:2].isalnum() and "Expect" not in request.headers
            return proxy.serve(request) if is_plain else routed(request)

        runner.server.request_handler = straight
        try:
            servers = await guard.listen(runner.server, config.server, listeners)
        except OSError as error:
            raise cannot_listen(config.server, error) from None
        host, port = servers[0].sockets[0].getsockname()[:2]
        try:
            yield host, port
        finally:
            for server in servers:
                server.close()
            proxy.drains = True
            on_drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(config.server.drain_seconds):
                    await _drained(runner.server, proxy)
            proxy.ends = True
    finally:
        await runner.cleanup()
        await proxy.stop()
        await forwarder.close()
        await sockets.close()
        estimator.close()
        worktrees.stop()


async def _drained(server: web.Server, proxy: Proxy) -> None:
    """Wait until nothing runs, and no client goes on over a connection that it could not be told to close."""
    await asyncio.sleep(0.01)  # clients that have gone are noticed
    asked = -1
    while server.connections and asked < server.requests_count:
        asked = server.requests_count
        await proxy.idle()
        await asyncio.sleep(LAST_REQUEST_SECONDS)
    await proxy.idle()


@contextlib.asynccontextmanager
async def _workers(config: Config, book: prices.PriceBook, owned: Owned) -> AsyncIterator[tuple[str, int]]:
    """Others serve calls. What they get below `/-/` they pass on to here."""
    folder = Path(config.ledger.dir)
    workers = Workers(config, owned.owner, owned.telemetry, owned.gateway_id, book.id)
    owned.admin.gather = workers.gather
    app = web.Application(client_max_size=config.server.body_bytes_max)
    app.add_routes(owned.routes)
    field_bytes = config.server.header_bytes_max
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        max_line_size=field_bytes,
        max_field_size=field_bytes,
        max_headers=guard.FIELDS_MAX,
        shutdown_timeout=0.5,
    )
    await runner.setup()
    with relay.listener(folder, owned.gateway_id) as listener:
        try:
            await web.SockSite(runner, listener).start()
            yield await workers.start()
        finally:
            owned.admin.draining = True
            await workers.stop()
            await runner.cleanup()
    if workers.are_lost:  # whoever watches the process has to see a failure
        raise UserError("the gateway ended, since no worker started any more: what is said above tells why")


class Keeper(Protocol):
    async def keep(self) -> None: ...


async def kept(keeper: Keeper) -> None:
    """Run what has to run beside the server, for ever: an error that nobody thought of must not end it in silence."""
    while True:
        try:
            await keeper.keep()
        except Exception as error:  # noqa: BLE001
            log.critical("%s has failed (%s), and begins anew", type(keeper).__name__, type(error).__name__)
            await asyncio.sleep(1)


def settled() -> None:
    """What is there now stays: the collector need not look at prices and modules again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)


async def serve(config: Config, ready: Callable[[str, int], None]) -> None:
    """Run gateway and control plane until SIGTERM, SIGINT or a closed terminal. `ready` is told the address."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        # Entered first, so left last: what the gateway records while it drains is still sealed.
        if config.console.enabled:
            await stack.enter_async_context(_beside("the control plane", _control_plane(config), stop))
        try:
            address = await stack.enter_async_context(gateway(config))
        except UserError:
            if stop.is_set():
                return  # workers were told to stop, too, before they had begun
            raise
        if config.console.enabled and config.console.pages:
            await stack.enter_async_context(_beside("the console", _control_plane(config, address), stop))
        settled()
        ready(*address)
        await stop.wait()
        log.info("stopping: running calls may finish for %g s", config.server.drain_seconds)


def _control_plane(config: Config, address: tuple[str, int] | None = None) -> list[str]:
    """The command line of the keeper, or, with the gateway's address, of the console."""
    given = ["--until-stdin-closes"] + (["--config", config.file] if config.file else [])
    if address is None:
        return ["-m", "analytics", "--data", config.ledger.dir, *given]
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return ["-m", "analytics.web", "--gateway", f"http://{host}:{address[1]}", *given]


@contextlib.asynccontextmanager
async def _beside(name: str, arguments: list[str], stop: asyncio.Event) -> AsyncIterator[None]:
    """Another process, started again when it dies. It ends by itself when this one is gone: its stdin closes. `stop`:
    set when this one is told to stop."""
    process: asyncio.subprocess.Process | None = None

    async def run() -> None:
        nonlocal process
        while True:
            process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=asyncio.subprocess.PIPE)
            code = await process.wait()
            with contextlib.suppress(TimeoutError):  # Ctrl-C is for both, and may be heard there first
                await asyncio.wait_for(stop.wait(), SIGNAL_SECONDS)
            if not stop.is_set():
                log.error("%s ended with code %d; it is started again", name, code)
            await asyncio.sleep(5)

    task = asyncio.create_task(run(), name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 20)
            if process.returncode is None:
                process.kill()
                await process.wait()


def with_options(config: Config, port: int | None, workers: int | None) -> Config:
    """The same settings with what the command line says instead (`--port`, `--workers`)."""
    given = {name: value for name, value in (("port", port), ("workers", workers)) if value is not None}
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **given))
