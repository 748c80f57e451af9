"""A console on a real socket over a small made-up folder, and somebody who looks at it."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp

from analytics import findings, lake, scorecard, work
from analytics.web import app, asking
from gateway.call import Principal
from gateway.config import AdminKey, Auth, Config, ConsoleSettings, LedgerSettings, WasteSettings
from gateway.prices import load_prices
from tests.journals import NOON, call, segment
from tests.trackers import know, pull

DOLLAR = 10**9
SECRETS = {role: f"olk_{role}_{'0123456789abcdef' * 2}" for role in ("viewer", "finops", "admin")}
AS_OF = datetime(2026, 11, 22, tzinfo=UTC).replace(tzinfo=None)


def make(data: Path) -> None:
    """Four tickets' worth of calls: $1 delivered, $2.50 and an unpriced call given up, $0.30 for nothing, $0.10 of CI;
    two of the calls are the same question."""
    lake.publish(data)
    done = AS_OF - timedelta(days=1)
    known = [
        work.Ticket(
            ticket_id="PAY-1", project="PAY", title="Refunds <b>in</b> full", type="story", status_category="done",
            created_at=done - timedelta(days=9), started_at=done - timedelta(days=5), done_at=done, updated_at=done,
            url="https://tracker.example/PAY-1",
        ),
        work.Ticket(
            ticket_id="PAY-2", project="PAY", title="=cmd|' /C calc'!A0", type="bug", status_category="done",
            resolution="Won't Do", done_at=done, updated_at=done, url="javascript:alert(1)",
        ),
    ]  # fmt: skip
    merged = pull(
        7, merged_at=done, closed_at=done, created_at=done - timedelta(days=1), title="Refunds", merge_commit="c7"
    )
    know(data, *known, pulls={merged.pr_id: ["PAY-1"]}, prs=[merged])
    deployed = work.Deployment(
        deployment_id="d1", repo=merged.repo, environment="production", status="success", sha="c7",
        started_at=done + timedelta(hours=1), finished_at=done + timedelta(hours=1), updated_at=done,
    )  # fmt: skip
    with work.alone(data):
        work.spool(data, "deployments", [deployed])
        work.store(data, "deployments")
        work.spool(data, "deployment_prs", [work.DeploymentPr(deployment_id="d1", pr_id=merged.pr_id)])
        work.store(data, "deployment_prs")
        people = {"ada": "payments", "grace": "payments", "edsger": "core"}
        work.spool(data, "users", [work.User(user_id=user, team_id=team) for user, team in people.items()])
        work.store(data, "users")
    same = {"request_hash": "d" * 32, "input_tokens": 1000, "output_tokens": 100}
    segment(
        data,
        [
            *(
                call(
                    NOON + timedelta(minutes=n), tickets=("PAY-1",), ticket_id="PAY-1", ticket_source="branch",
                    ticket_state="known", task_id="task/one", team_id="payments", key_id="key_1", user_id="ada",
                    request_model="gpt-5.4", response_model="gpt-5.4", provider="openai", client="codex",
                    list_cost_nano=DOLLAR // 2, contracted_cost_nano=DOLLAR // 2, **same,
                )
                for n in range(2)
            ),
            *(
                call(
                    NOON + timedelta(hours=1, minutes=n), tickets=("PAY-2",), ticket_id="PAY-2", ticket_source="header",
                    ticket_state="known", task_id="task-2", team_id="payments", key_id="key_2", user_id="grace",
                    request_model="gpt-5.4", provider="openai", client="aider", **cost,
                )
                for n, cost in enumerate(
                    [
                        {"list_cost_nano": 5 * DOLLAR // 2, "contracted_cost_nano": 5 * DOLLAR // 2},
                        {
                            "list_cost_nano": None, "price_status": "unpriced", "input_cost_nano": None,
                            "output_cost_nano": None,
                        },
                    ]
                )
            ),
            call(NOON, team_id="core", key_id="key_3", list_cost_nano=3 * DOLLAR // 10, usage_source="estimated"),
            call(NOON, team_id="core", key_id="key_3", purpose="ci", list_cost_nano=DOLLAR // 10),
        ],
    )  # fmt: skip
    findings.look(data, WasteSettings(), load_prices(Config()), AS_OF, threads=1)
    scorecard.look(data, threads=1)


@dataclass
class Viewer:
    """A browser that knows forms and cookies, and nothing else."""

    url: str
    session: aiohttp.ClientSession
    folder: Path
    token: str = ""
    port: int = 0

    async def get(self, path: str, status: int = 200, **fields: str) -> str:
        async with self.session.get(self.url + path, allow_redirects=False, headers=fields) as response:
            text = await response.text()
            assert response.status == status, (path, response.status, text[-2000:])
            self._learn(text)
            return text

    async def post(self, path: str, status: int = 303, *, origin: str | None = "", **form: str) -> str:
        """Returns where it leads, or the page."""
        fields = {"Origin": self.url if origin == "" else origin} if origin is not None else {}
        form = {"csrf": self.token, **form}
        async with self.session.post(self.url + path, data=form, allow_redirects=False, headers=fields) as response:
            text = await response.text()
            assert response.status == status, (path, response.status, text[-2000:])
            self._learn(text)
            return response.headers.get("Location", text)

    async def sign_in(self, secret: str, status: int = 303) -> str:
        await self.get("/sign-in")
        where = await self.post("/sign-in", status, key=secret)
        if status == 303:
            await self.get("/nowhere", 404)
        return where

    def _learn(self, text: str) -> None:
        if found := re.search(r'name="csrf" value="([^"]+)"', text):
            self.token = found[1]


def rows(page: str, table: str) -> list[list[str]]:
    """The cells of a table's body, as a reader sees them."""
    [section] = re.findall(rf'<section class="table"[^>]* id="{table}">(.*?)</section>', page, re.DOTALL)
    body = "".join(re.findall(r"<tbody>(.*?)</tbody>", section, re.DOTALL))
    return [
        [plain(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


def plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def config(data: Path, roles: Iterable[str] = SECRETS, **console: Any) -> Config:
    """Its admin keys are in the environment: see `set_keys`."""
    keys = {role: AdminKey(f"env:CONSOLE_{role.upper()}", role) for role in roles}  # type: ignore[arg-type]
    return Config(
        auth=Auth(admin_keys=keys),
        ledger=LedgerSettings(dir=str(data)),
        console=ConsoleSettings(**{"port": 0, **console}),
    )


def set_keys(monkeypatch: Any) -> None:
    for role, secret in SECRETS.items():
        monkeypatch.setenv(f"CONSOLE_{role.upper()}", secret)


def nobody() -> Principal:
    return Principal("config:x", role="viewer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def soon(seconds: float = 20.0) -> AsyncIterator[None]:
    """What is tried within has to come true some day."""
    async with asyncio.timeout(seconds):
        yield


@contextlib.asynccontextmanager
async def looking(settings: Config, role: str | None = None, **more: Any) -> AsyncIterator[Viewer]:
    """A console with these settings, and a viewer of it, signed in where a role is named. Unless another base is given
    it asks the published views, which are made already."""
    more.setdefault("base", asking.Base(asking.opened))
    data = Path(settings.ledger.dir)
    jar = aiohttp.CookieJar(unsafe=True)
    port = free_port()
    async with app.serving(settings, data, port=port, **more) as url, aiohttp.ClientSession(cookie_jar=jar) as session:
        viewer = Viewer(url, session, data, port=port)
        if role is not None:
            await viewer.sign_in(SECRETS[role])
        yield viewer
