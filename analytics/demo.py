"""`outlay demo`: a made-up organisation, on this machine alone, without a key or a network.

Simulated providers and people's tools on real sockets, and between them the real gateway with its control plane, as
`outlay serve` starts them: what they record went over the sockets. Before that, two quarters of history are written
into the ledger, whose story is told (`story`).
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import click
import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table

import analytics
from analytics import build, lake, story
from analytics.again import again
from analytics.disk import MARKER as MARKER
from analytics.simulated import tracker
from analytics.simulated.people import PEOPLE, Organisation
from analytics.simulated.providers import PROVIDERS, SimulatedProviders
from gateway import folders
from gateway.errors import UserError
from gateway.keys import Keys
from gateway.prices import DEFAULT_BOOK, PriceBook

MARKER_TEXT = "All data in this folder was made up by `outlay demo`, which replaces the folder when it is run again.\n"
OTEL_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "gemini": "gcp.gemini"}
ERROR_RATE = 0.04
START_SECONDS = 30.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Pace:
    """How fast the simulated world is."""

    latency_seconds: float
    tokens_per_second: float
    pause_seconds: float
    at_once: int


LIFELIKE = Pace(latency_seconds=0.3, tokens_per_second=300, pause_seconds=1.0, at_once=8)
"""To be watched: a few calls a second, for as long as one likes."""
BRISK = Pace(latency_seconds=0.02, tokens_per_second=20_000, pause_seconds=0.0, at_once=16)
"""To be done with: so many calls, as soon as possible."""


@click.command()
@click.option("--calls", type=click.IntRange(min=1), help="Stop after so many calls.  [default: run until Ctrl-C]")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another organisation at work.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Folder for the made-up data. Replaced if an earlier demo made it; never otherwise.",
)
@click.option(
    "--history/--no-history",
    default=True,
    show_default=True,
    help="Two quarters of made-up work before, and their story.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Where the gateway listens.  [default: any free port]")
def demo(calls: int | None, seed: int, data: Path, history: bool, port: int | None) -> None:
    """Watch Outlay meter a made-up organisation. Needs no keys and no network."""
    listen = _port(port)  # before the folder is replaced: a mistake must not cost the last demo's data
    with fresh_folder(data) as lock:
        lake.publish(data)
        tracker.write(data, datetime.now(UTC).replace(tzinfo=None))
        asyncio.run(_run(data, lock, calls, seed, listen, history=history))


@contextlib.contextmanager
def fresh_folder(data: Path) -> Iterator[IO[str]]:
    """An empty folder with our marker. Yields the marker's file, which is locked: one demo in a folder at a time.

    Raises `UserError` for a folder that no demo made, or that a demo still works in.
    """
    marker = data / MARKER
    try:
        if data.is_symlink() or (data.exists() and not data.is_dir()):
            raise UserError(f"{data} is not a folder; name another one with --data")
        if data.exists() and any(data.iterdir()):
            if not marker.is_file() or marker.read_text(encoding="utf-8") != MARKER_TEXT:
                raise UserError(f"{data} was not made by a demo and is left alone; name another folder with --data")
            with _locked(marker, data):
                shutil.rmtree(data)
        folders.make(data)
        marker.write_text(MARKER_TEXT, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename or data}: {error.strerror}; name another folder with --data") from None
    with _locked(marker, data) as lock:
        yield lock


@contextlib.contextmanager
def _locked(marker: Path, data: Path) -> Iterator[IO[str]]:
    with marker.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"a demo is still running in {data}; stop it, or name another folder with --data") from None
        yield file


def _port(wanted: int | None) -> int:
    """The wanted port if it can be had, else any free one. Raises `UserError`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise UserError(
                f"port {wanted} cannot be used ({error.strerror}); give another --port, or none for any free one"
            ) from None
        return int(probe.getsockname()[1])


async def _run(data: Path, lock: IO[str], calls: int | None, seed: int, port: int, *, history: bool) -> None:
    console = Console()
    pace = LIFELIKE if calls is None else BRISK
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Left in reverse: first the people stop, then the gateway has recorded all, then the providers go.
    async with contextlib.AsyncExitStack() as stack:
        providers = await stack.enter_async_context(
            SimulatedProviders(
                seed=seed,
                error_rate=ERROR_RATE,
                latency_seconds=pace.latency_seconds,
                tokens_per_second=pace.tokens_per_second,
            )
        )
        url = f"http://127.0.0.1:{port}"
        console_port = _port(None)
        config = write_config(data, port, providers, console_port)
        people = Organisation(
            url, make_keys(data), seed=seed, calls=calls, at_once=pace.at_once, pause_seconds=pace.pause_seconds
        )
        now, book = datetime.now(UTC).replace(tzinfo=None), PriceBook.load(DEFAULT_BOOK)
        # Before the gateway, which takes the journal for an earlier one's.
        plan = await asyncio.to_thread(story.make, data, seed, now, book) if history else None
        gateway = await stack.enter_async_context(_gateway(config, data, lock, url))
        console.print(f"Simulated providers, people and their tools; the gateway listens on {url}")
        console.print(
            f"The console: http://127.0.0.1:{console_port}, with the key {make_console_key(data)}", soft_wrap=True
        )
        if plan is not None:
            console.print("There, the story below is that of the last two quarters: choose Last quarter.")
        console.print(f"All data is made up and stays in {data}. Ask it things, in another terminal:", highlight=False)
        for question in (
            "outlay report spend --by team",
            "outlay report tickets --sort lost",
            "outlay report scorecard",
            "outlay sql",
        ):
            console.print(f"  {question} --data {data}", highlight=False, soft_wrap=True)
        if plan is not None:
            console.print()
            await asyncio.to_thread(story.tell, console, data, plan)
        begun = datetime.now(UTC).replace(tzinfo=None)
        await _watch(console, url, people, gateway, data, stop)
    # Now all is recorded, also of calls that were broken off at the end.
    books = await asyncio.to_thread(recorded_since, data, begun)
    _print_summary(console, books, people, sum(total["calls"] for total in providers.totals.values()), data)


def write_config(data: Path, port: int, providers: SimulatedProviders, console_port: int | None = None) -> Path:
    """The gateway's settings, with the simulated providers as its upstreams."""
    lines = [
        *("# Written by `outlay demo`.", "[server]", f"port = {port}", "drain_seconds = 5.0", ""),
        *("[ledger]", f"dir = {json.dumps(str(data))}", "synthetic = true", ""),
        *("[auth]", 'mode = "keys"', ""),
        *("[console]", f"port = {console_port}" if console_port else "pages = false", ""),
    ]
    for name, provider in OTEL_PROVIDERS.items():
        lines += [
            f"[upstreams.{name}]",
            f"base_url = {json.dumps(providers.base_url(name))}",
            f"provider = {json.dumps(provider)}",
            f"credential = {json.dumps(f'env:{_variable(name)}')}",
            "",
        ]
    config = data / "outlay.toml"
    config.write_text("\n".join(lines), encoding="utf-8")
    return config


def _variable(provider: str) -> str:
    return f"DEMO_{provider.upper()}_KEY"


def make_keys(data: Path) -> dict[str, str]:
    """A gateway key for each of the simulated people, by user."""
    ring = Keys(data)
    made: dict[str, str] = {}
    for person in PEOPLE:
        grant = {"team_id": person.team, "user_id": person.user, "purpose": person.purpose, "name": person.tool.name}
        made[person.user] = ring.create(ticket=person.key_ticket, **grant)[1]
    return made


def make_console_key(data: Path) -> str:
    """What opens the demo's console, with all that can be done there."""
    return Keys(data).create(role="admin", name="console")[1]


@contextlib.asynccontextmanager
async def _gateway(config: Path, data: Path, lock: IO[str], url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`outlay serve`, ready for calls. It is stopped as SIGTERM stops it: with everything recorded."""
    credentials = {_variable(name): provider.credential for name, provider in PROVIDERS.items()}
    with (data / "gateway.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **credentials},
            # Its own group, or Ctrl-C would stop it before the people stop calling; and a copy of the lock, so that
            # no other demo takes the folder from it, should it outlive this one.
            start_new_session=True, pass_fds=(lock.fileno(),),
        )  # fmt: skip
    try:
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
            while not await _is_ready(client, url):
                if process.returncode is not None:
                    raise _died(data)
                await asyncio.sleep(0.1)
        yield process
    except TimeoutError:
        raise UserError(f"the gateway was not ready in {START_SECONDS:g} s; see {data / 'gateway.log'}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/-/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def _died(data: Path) -> UserError:
    """What to say when the gateway is gone: its own last words."""
    log = data / "gateway.log"
    last = next(iter(log.read_text(encoding="utf-8", errors="replace").splitlines()[::-1]), "it said nothing")
    return UserError(f"the gateway stopped: {last} (all of it: {log})")


@dataclass(frozen=True)
class Books:
    """What was recorded, by the gateway's metrics while it runs, and by the ledger when it has ended."""

    calls: int = 0
    in_flight: int = 0
    usd: Mapping[str, Decimal] = field(default_factory=dict)
    """Spend by team, USD."""


def read_books(metrics: str) -> Books:
    calls = in_flight = 0
    usd: dict[str, Decimal] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            match sample.name:
                case "outlay_calls_total":
                    calls += int(sample.value)
                case "outlay_calls_in_flight":
                    in_flight = int(sample.value)
                case "outlay_cost_usd_total":
                    team = sample.labels["team"]
                    usd[team] = usd.get(team, Decimal()) + Decimal(str(sample.value))
    return Books(calls, in_flight, usd)


def recorded_since(data: Path, since: datetime) -> Books:
    """What the ledger has of calls that began at a moment (UTC) or later."""
    query = (build.FOLDER / "queries" / "demo_spend.sql").read_text(encoding="utf-8")
    with analytics.open(data) as db:
        teams = again(lambda: db.execute(query, {"since": since}).fetchall())
    return Books(sum(calls for _, calls, _ in teams), usd={team: usd for team, _, usd in teams})


async def _watch(
    console: Console,
    url: str,
    people: Organisation,
    gateway: asyncio.subprocess.Process,
    data: Path,
    stop: asyncio.Event,
) -> None:
    """Let the people work until they are done or `stop` is set; says how far they are."""
    working = asyncio.create_task(people.work(), name="people")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    died = asyncio.create_task(gateway.wait(), name="gateway")
    try:
        async with httpx.AsyncClient(base_url=url) as client:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                done: set[asyncio.Task[Any]] = set()
                while not done:
                    done, _ = await asyncio.wait(
                        {working, stopped, died}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    if died in done:
                        raise _died(data)
                    live.update(_line(await _look(client)), refresh=True)
                if working in done:
                    working.result()
                live.update("stopping …", refresh=True)
                working.cancel()
                await asyncio.wait({working})
    finally:
        for task in (working, stopped, died):
            task.cancel()
        await asyncio.gather(working, stopped, died, return_exceptions=True)


async def _look(client: httpx.AsyncClient) -> Books:
    try:
        return read_books((await client.get("/-/metrics")).text)
    except httpx.TransportError:
        return Books()  # it is going away, which is noticed elsewhere


def _line(books: Books) -> str:
    total = sum(books.usd.values(), Decimal())
    return f"{books.calls:,} calls, ${total:,.4f} so far, {books.in_flight} in flight. Ctrl-C stops and keeps the data."


def _print_summary(console: Console, books: Books, people: Organisation, served: int, data: Path) -> None:
    spend = Table("team", "spend, USD (made up)", box=None, header_style="bold")
    spend.columns[1].justify = "right"
    for team, usd in sorted(books.usd.items()):
        spend.add_row(team, f"{usd:,.4f}")
    spend.add_row("all", f"{sum(books.usd.values(), Decimal()):,.4f}", style="bold")
    outcomes = sorted({outcome for _, outcome in people.outcomes})
    tools = Table("tool", "calls", *outcomes, box=None, header_style="bold")
    for column in tools.columns[1:]:
        column.justify = "right"
    for tool in sorted({name for name, _ in people.outcomes}):
        counts = [people.outcomes[tool, outcome] for outcome in outcomes]
        tools.add_row(tool, str(sum(counts)), *(str(count or "") for count in counts))
    console.print(spend, "", tools, "", sep="\n")
    early = f": {books.calls - served:,} were broken off before they got there" if books.calls > served else ""
    console.print(f"The providers served {served:,} calls, the gateway recorded {books.calls:,}{early}.")
    console.print(f"The data stays in {data}. Check it: outlay verify --data {data}", highlight=False, soft_wrap=True)
