"""Fixtures: a fake provider and a gateway in front of it, both on real sockets of this machine; an empty lake."""

import asyncio
import contextlib
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from yarl import URL

import analytics
from analytics import lake
from gateway import app, ledger
from gateway.config import Auth, Config, LedgerSettings, Server, Upstream
from gateway.keys import Keys
from tests.fakes.upstream import FakeUpstream, fake_upstream
from tests.journals import Today

# To compile all modules anew in each process, where the environment says so, takes a fifth of the suite's time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No test asserts a time: a machine may be busy.
settings.register_profile("outlay", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("outlay")

PROVIDER_KEY = "sk-the-providers-own"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the gateway has. It reads more in one turn than asyncio's own, for one."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def nothing_fails_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is raised in a callback of the loop, or in a task that nobody waits for, is only logged."""
    yield
    records = [record for when in ("setup", "call", "teardown") for record in caplog.get_records(when)]
    assert [each.getMessage() for each in records if (each.name, each.levelno) == ("asyncio", logging.ERROR)] == []


@dataclass
class Running:
    """A gateway under test."""

    url: str
    dir: Path
    key: str
    upstream: FakeUpstream
    session: aiohttp.ClientSession
    config: Config

    def records(self) -> list[dict[str, Any]]:
        """All records of the journal, in order."""
        return [r for path in sorted((self.dir / "journal").glob("*.jsonl")) for r in ledger.records(path)]

    def closed(self) -> list[dict[str, Any]]:
        """The close records of the journal, in order."""
        return [record for record in self.records() if record["e"] == "close"]

    def post(self, path: str, body: Any, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(URL(self.url + path, encoded=True), data=io.BytesIO(data), headers=fields)


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        yield fake


StartGateway = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def start_gateway(tmp_path: Path, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> StartGateway:
    """Start a gateway with sections of the settings replaced: `start_gateway(auth=Auth(mode="open"))`."""
    monkeypatch.setenv("PROVIDER_KEY", PROVIDER_KEY)
    return starter(tmp_path, upstream)


def starter(folder: Path, upstream: FakeUpstream) -> StartGateway:
    """See `start_gateway`; for fixtures of their own scope. `PROVIDER_KEY` has to be set."""

    @contextlib.asynccontextmanager
    async def start(**sections: Any) -> AsyncIterator[Running]:
        def to(provider: str) -> Upstream:
            return Upstream(base_url=upstream.url, provider=provider, credential="env:PROVIDER_KEY", idle_seconds=5.0)

        config = Config(
            server=Server(port=0, drain_seconds=1.0),
            ledger=LedgerSettings(dir=str(folder / "data"), reserve_bytes=4096),
            upstreams={"openai": to("openai"), "anthropic": to("anthropic"), "gemini": to("gcp.gemini")},
        )
        config = msgspec.structs.replace(config, **sections)
        data = Path(config.ledger.dir)
        _, key = Keys(data).create(team_id="payments", user_id="dev-1")
        async with (
            app.gateway(config) as (host, port),
            aiohttp.ClientSession(auto_decompress=False, max_field_size=100_000) as session,
        ):
            yield Running(f"http://{host}:{port}", data, key, upstream, session, config)

    return start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with start_gateway() as running:
        yield running


@pytest.fixture
async def open_gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    async with start_gateway(auth=Auth(mode="open")) as running:
        yield running


@pytest.fixture(scope="session")
def lake_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `data` is copied from, as views take long to make. They name the place of `data`: nobody opens these."""
    folder = tmp_path_factory.mktemp("lake") / "data"
    lake.publish(folder)
    return folder.rename(folder.with_name("template"))


@pytest.fixture(scope="session")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder without a call, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    lake.publish(folder)
    return folder


@pytest.fixture
def data(lake_template: Path, tmp_path: Path) -> Iterator[Path]:
    """A data folder without a call, at `tmp_path / "data"`: there in truth after the test, until then in the place that
    its views name, which is the same in each test."""
    folder, here = lake_template.with_name("data"), tmp_path / "data"
    shutil.copytree(lake_template, folder)
    here.symlink_to(folder)
    yield folder
    here.unlink()
    folder.rename(here)


@pytest.fixture
def today() -> Today:
    return Today()


@pytest.fixture
def moving(data: Path, today: Today) -> lake.Lake:
    """A lake that does not wait: what it does in one step, queries are between the steps."""
    return lake.Lake(data, settle=0, grace=0, today=today)


@pytest.fixture
def db(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection held open through the whole test."""
    with analytics.open(data) as connection:
        yield connection
