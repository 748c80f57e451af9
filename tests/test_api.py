"""The gateway's own API: a gateway on a real socket, and a keeper that serves its folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from analytics import live
from gateway import api, control
from gateway.api import Spend, line
from gateway.config import TicketSettings
from gateway.keys import Keys
from tests.conftest import Running, StartGateway
from tests.end_to_end.serving import served, write_config
from tests.fakes.upstream import FakeUpstream, whole
from tests.journals import call, segment
from tests.test_live import exact, wait_for

CHAT = {"model": "gpt-5.4-mini", "messages": []}
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
NOW = datetime.now(UTC)


class Got:
    """What an endpoint answered."""

    def __init__(self, status: int, headers: Any, text: str) -> None:
        self.status, self.headers, self.text = status, headers, text

    @property
    def json(self) -> Any:
        return exact(self.text.encode())

    @property
    def error(self) -> Any:
        return self.json["error"]["code"]


async def get(gateway: Running, path: str, key: str | None = "", **headers: str) -> Got:
    """Ask below /-/api/v1/. `key`: another than the gateway's own, or none."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        fields["Authorization"] = f"Bearer {key or gateway.key}"
    url = URL(f"{gateway.url}/-/api/v1/{path}", encoded=True)
    async with gateway.session.get(url, headers=fields) as response:
        return Got(response.status, response.headers, await response.text())


async def spend(gateway: Running, **headers: str) -> Decimal:
    """One call, through the gateway. Returns what it cost."""
    gateway.upstream.answer(whole(ANSWER))
    async with gateway.post("/v1/chat/completions", CHAT, **headers) as response:
        assert response.status == 200
        return Decimal(response.headers["x-outlay-cost-usd"])


@pytest.fixture
async def told(data: Path, gateway: Running) -> AsyncIterator[Running]:
    """A gateway whose control plane is there, over a folder whose views are made."""
    with live.serving(gateway.dir):
        await asyncio.to_thread(wait_for, gateway.dir)
        yield gateway


# -- spend -------------------------------------------------------------------------------------------------------------


async def test_what_was_just_called_is_told_exactly(told: Running) -> None:
    costs = [await spend(told, x_outlay_ticket="PAY-7,PAY-8", x_outlay_task="run-1") for _ in range(3)]
    costs.append(await spend(told, x_outlay_ticket="PAY-7", x_outlay_task="run-2"))
    ticket, task = await get(told, "tickets/PAY-7"), await get(told, "tasks/run-1")
    assert ticket.headers["Content-Type"] == "application/json"
    assert ticket.headers["Cache-Control"] == "no-store"
    nano = [int(cost * 10**9) for cost in costs]
    assert ticket.json["list_cost_usd"] == Decimal(sum((each + 1) // 2 for each in nano[:3]) + nano[3]) / 10**9
    assert (ticket.json["calls"], ticket.json["tasks"], ticket.json["unpriced_calls"]) == (4, 2, 0)
    assert ticket.json["sources"][0]["ticket_source"] == "header"
    assert ticket.json["models"][0]["model"] == "gpt-5.4-mini"
    assert (task.json["tickets"], task.json["list_cost_usd"]) == (["PAY-7", "PAY-8"], sum(costs[:3]))


async def test_the_session_of_a_tool_is_a_task(told: Running) -> None:
    cost = await spend(told, x_claude_code_session_id="5b1c", x_outlay_task="own")
    for name in ("5b1c", "own"):
        assert (await get(told, f"tasks/{name}")).json["list_cost_usd"] == cost


async def test_a_ticket_may_be_written_as_in_base_urls(told: Running) -> None:
    await spend(told, x_outlay_ticket="acme/shop#45")
    for name in ("acme%2Fshop%2345", "acme~shop~45", "acme%7Eshop%7E45", "acme/shop%2345"):
        found = (await get(told, f"tickets/{name}")).json
        assert (found["ticket_id"], found["calls"]) == ("acme/shop#45", 1)
    for name, read in {"a~b~c~4": "a/b/c#4", "PAY-1%2CPAY-2": "PAY-1,PAY-2", "%2541": "%41", "a~b": "a~b"}.items():
        assert (await get(told, f"tickets/{name}")).json["ticket_id"] == read


async def test_nobody_called_for_it_yet(told: Running) -> None:
    found = await get(told, "tickets/PAY-404")
    assert found.status == 200
    assert (found.json["calls"], found.json["list_cost_usd"], found.json["last_call_at"]) == (0, 0, None)


async def test_lines(told: Running) -> None:
    segment(
        told.dir,
        [
            call(NOW, tickets=("PAY-1",), task_id="t1", list_cost_nano=420_000_000),
            call(NOW, tickets=("PAY-1",), task_id="t2", list_cost_nano=11_880_000_000),
            call(NOW, tickets=("PAY-1",), task_id="t2", list_cost_nano=None, price_status="unpriced"),
            call(NOW, task_id="t3", list_cost_nano=1),
        ],
        gateway_id="gw-2",
        at=NOW - timedelta(days=1),
    )
    for path, text in {
        "tasks/t1": "PAY-1 · task $0.42 · ticket $12.30 +1 unpriced\n",
        "tasks/t2": "PAY-1 · task $11.88 +1 unpriced · ticket $12.30 +1 unpriced\n",
        "tasks/t3": "no ticket · task <$0.01\n",
        "tasks/t4": "no ticket · task $0.00\n",
        "tickets/PAY-1": "PAY-1 · ticket $12.30 +1 unpriced\n",
    }.items():
        found = await get(told, f"{path}?format=line")
        assert (found.status, found.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert found.text == text


def test_a_line_is_one_line() -> None:
    some, little = Spend(Decimal("1234.567"), 0), Spend(Decimal("0.000000001"), 2)
    assert line([], some) == "no ticket · task $1,234.57"
    assert line(["A-1", "A-2", "A-3"], little, some) == "A-1, A-2, A-3 · task <$0.01 +2 unpriced · ticket $1,234.57"
    assert line(["A-1", "A-2", "A-3", "A-4"], some, some).startswith("A-1, A-2, A-3, … · ")
    assert line(["A\n\x1b[31m\u202e"], ticket=Spend(Decimal(0), 3)) == "A??[31m? · ticket $0.00 +3 unpriced"


# -- me ----------------------------------------------------------------------------------------------------------------


async def test_a_key_sees_itself(told: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "OWN_SPEND_SECONDS", 30.0)  # a busy machine
    event, key = Keys(told.dir).create(
        team_id="ops", user_id="ci", ticket="OPS-1", purpose="ci", models=("gpt-*",), upstreams=("openai",),
        expires_at=4_102_444_800,
    )  # fmt: skip
    cost = await spend(told)
    assert (await get(told, "me")).json["spend"]["today_usd"] == cost
    found = (await get(told, "me", key)).json
    assert found == {
        "key_id": event.key_id,
        "user_id": "ci",
        "team_id": "ops",
        "ticket": "OPS-1",
        "purpose": "ci",
        "models": ["gpt-*"],
        "upstreams": ["openai"],
        "expires_at": "2100-01-01T00:00:00Z",
        "role": None,
        "ticket_policy": "optional",
        "spend": {"today_usd": 0, "month_usd": 0, "unpriced_calls": 0},
        "budgets": [],
    }


async def test_a_key_asks_for_the_tickets_of_a_branch(start_gateway: StartGateway) -> None:
    async with start_gateway(tickets=TicketSettings(policy="optional", teams={"payments": "required"})) as gateway:
        found = (await get(gateway, "me?branch=feature%2FPAY-7-x&repo=acme%2Fshop")).json
        assert found["branch_tickets"] == [{"ticket_id": "PAY-7", "ticket_state": "unchecked"}]
        assert found["ticket_policy"] == "required"
        for branch in ("main", "fix%2Frounding", "a%20b", ""):
            assert (await get(gateway, f"me?branch={branch}")).json["branch_tickets"] == []
        found = (await get(gateway, "me?ticket=PAY-8,acme/shop%2345")).json
        assert found["named_tickets"] == [
            {"ticket_id": "PAY-8", "ticket_state": "unchecked"},
            {"ticket_id": "acme/shop#45", "ticket_state": "unchecked"},
        ]
        assert (await get(gateway, "me?ticket=pay-8")).json["named_tickets"] == []


async def test_a_key_is_known_without_the_control_plane(gateway: Running) -> None:
    found = await get(gateway, "me")
    assert (found.status, found.json["team_id"], found.json["spend"]) == (200, "payments", None)
    assert gateway.key not in found.text


async def test_whoever_calls_without_a_key_has_none(open_gateway: Running) -> None:
    found = await get(open_gateway, "me", None)
    assert (found.status, found.json["key_id"], found.json["spend"]) == (200, None, None)
    assert (await get(open_gateway, "me")).json["team_id"] == "payments"
    assert (await get(open_gateway, "me", "olk_wrong")).status == 401


# -- who may ask, and for what -----------------------------------------------------------------------------------------

ENDPOINTS = ("me", "tasks/t", "tickets/PAY-1", "tickets/PAY-1?format=line")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_strangers_are_refused(gateway: Running, path: str) -> None:
    event, revoked = Keys(gateway.dir).create()
    _, expired = Keys(gateway.dir).create(expires_at=1)
    Keys(gateway.dir).revoke(event.key_id)
    for key in (None, "olk_guess", "sk-not-ours", revoked, expired, "olk_ü"):
        found = await get(gateway, path, key)
        assert (found.status, found.error) == (401, "unauthenticated")
        assert found.headers["x-outlay-refusal"] == "unauthenticated"
        assert key is None or key not in found.text
        assert found.json["error"]["message"].startswith("Outlay: ")


async def test_a_key_may_stand_where_calls_have_it(gateway: Running) -> None:
    for name in ("x-api-key", "api-key", "x-goog-api-key", "x-outlay-key"):
        assert (await get(gateway, "me", None, **{name: gateway.key})).status == 200
    assert (await get(gateway, f"me?key={gateway.key}", None)).status == 200
    assert (await get(gateway, "me", "sk-own", x_outlay_key=gateway.key)).status == 200


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("tickets/" + "x" * 513, 400, "request_unreadable"),
        ("tasks/a%0Ab", 400, "request_unreadable"),
        ("tickets/a%1Bb", 400, "request_unreadable"),
        ("tickets/PAY-1?format=xml", 400, "request_unreadable"),
        ("tickets/a%FFb", 503, "control_plane_away"),
        ("tickets/PAY-1", 503, "control_plane_away"),
        ("tasks/t?format=line", 503, "control_plane_away"),
    ],
)
async def test_what_cannot_be_told(gateway: Running, path: str, status: int, error: str) -> None:
    found = await get(gateway, path)
    assert (found.status, found.error) == (status, error)
    if status == 503:
        assert "the control plane, which knows the spend, is not running" in found.json["error"]["message"]


@pytest.mark.parametrize("path", ["tickets", "tickets/", "tasks/", "people/dev-1", "users", ""])
async def test_nothing_is_listed(told: Running, path: str) -> None:
    assert (await get(told, path)).status == 404


async def test_nothing_is_changed(told: Running) -> None:
    for method in ("POST", "PUT", "DELETE"):
        async with told.session.request(method, f"{told.url}/-/api/v1/tickets/PAY-1") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    assert not told.upstream.requests


# -- a control plane that is not well ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(folder: Path, answer: bytes | None) -> AsyncIterator[None]:
    """Something that takes each question on the socket, and gives this answer, or none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
        else:
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=live.listen(folder))
    try:
        yield
    finally:
        server.close()


async def test_it_is_not_waited_for_long(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "OWN_SPEND_SECONDS", 0.2)
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.2)
    async with answering(gateway.dir, None):
        found = await get(gateway, "tickets/PAY-1")
        assert (found.status, found.error) == (503, "control_plane_away")
        assert "took longer than 0.2 s" in found.json["error"]["message"]
        assert (await get(gateway, "me")).json["spend"] is None
        monkeypatch.setattr(api, "OWN_SPEND_SECONDS", 60.0)
        async with asyncio.timeout(5):
            assert (await get(gateway, "me?branch=PAY-1-x&repo=acme/shop")).json["spend"] is None


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"],
)
async def test_it_answers_nonsense(gateway: Running, answer: bytes) -> None:
    async with answering(gateway.dir, answer):
        assert (await get(gateway, "tasks/t")).status == 503
        assert (await get(gateway, "me")).json["spend"] is None


async def test_it_may_be_started_again(gateway: Running) -> None:
    for _ in range(2):
        with live.serving(gateway.dir):
            await asyncio.to_thread(wait_for, gateway.dir)
            async with asyncio.timeout(30):
                while (found := (await get(gateway, "tickets/PAY-1")).status) != 200:
                    assert found == 503  # a busy machine answers too late
        assert (await get(gateway, "tickets/PAY-1")).status == 503


async def test_both_planes_as_a_user_starts_them(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer(whole(ANSWER))
    async with served(write_config(tmp_path, upstream.url)) as gateway, aiohttp.ClientSession() as session:
        headers = {"x-outlay-key": gateway.key, "x-outlay-ticket": "PAY-5"}
        async with session.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=headers) as response:
            cost = Decimal(response.headers["x-outlay-cost-usd"])
        async with asyncio.timeout(30):
            while True:
                async with session.get(f"{gateway.url}/-/api/v1/tickets/PAY-5", headers=headers) as response:
                    if response.status == 200:
                        assert exact(await response.read())["list_cost_usd"] == cost
                        break
                    assert response.status == 503
                await asyncio.sleep(0.1)
    assert not (gateway.dir / control.SOCKET).exists()
