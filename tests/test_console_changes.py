"""What is changed in the console: findings, budgets and keys, by the code of commands and API; and who may."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from analytics import budgeting
from analytics.web import app, budgets, visit
from analytics.web.visit import RANKS, Page
from gateway.app import budget_file
from gateway.keys import Keys
from tests import consoles
from tests.conftest import StartGateway
from tests.consoles import SECRETS, looking, plain
from tests.fakes.upstream import FakeUpstream, whole
from tests.journals import NOON, call, segment

MENU = [path for path, _ in visit.MENU]
ROLES = (None, "viewer", "finops", "admin")
DOCS = Path(__file__).parent.parent / "docs/console.md"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    consoles.set_keys(monkeypatch)


# -- who may ----------------------------------------------------------------------------------------------------------


def address(page: Page) -> str:
    return re.sub(r"\{\w+\}", "no-such", page.path)


def expected(page: Page, role: str | None) -> set[int]:
    """What an answer to somebody may be: the rule of roles, and nothing else, decides on 303 to the sign-in and 403."""
    if page.access != "anybody" and role is None:
        return {303}
    if page.access != "anybody" and RANKS[role] < RANKS[page.access]:  # type: ignore[index]
        return {403}
    return {200, 303, 400, 404, 422, 503}


async def test_each_route_for_each_role(data: Path) -> None:
    routes = sorted(app.routes(), key=lambda each: each.path == "/sign-out")
    async with looking(consoles.config(data)) as viewer:
        for role in ROLES:
            if role is None:
                await viewer.get("/sign-in")
            else:
                await viewer.sign_in(SECRETS[role])
            for page in routes:
                if (page.method, page.path) == ("POST", "/sign-in"):
                    continue  # the right form, without a key
                fields, form = {"Origin": viewer.url}, {"csrf": viewer.token} if page.method == "POST" else None
                async with viewer.session.request(
                    page.method, viewer.url + address(page), data=form, headers=fields, allow_redirects=False
                ) as response:
                    where = response.headers.get("Location", "")
                    assert response.status in expected(page, role), (page.method, page.path, role, response.status)
                    if role is None and page.access != "anybody":
                        assert where.startswith("/sign-in"), page.path
                    if role == "admin" and page.method == "GET" and page.path in MENU:  # of an empty folder
                        assert response.status == 200, page.path
                        assert "<h1>" in await response.text()


async def test_no_change_is_made_without_the_forms_token(data: Path) -> None:
    async with looking(consoles.config(data), "admin") as viewer:
        for page in app.routes():
            if page.method == "POST":
                await viewer.post(address(page), 403, csrf="x" * 43)
                await viewer.post(address(page), 403, origin="https://evil.example")
        assert "no-such" not in (data / "keys.jsonl").read_text() if (data / "keys.jsonl").exists() else True


def test_the_table_of_roles_in_the_docs_is_that_of_the_routes() -> None:
    rows = re.findall(r"^\| `(GET|POST) (/[^`]*)` \| (\w+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    routes = [(page.method, re.sub(r":[^}]*\}", "}", page.path), page.access) for page in app.routes()]
    assert sorted(rows) == sorted(routes)


# -- budgets ----------------------------------------------------------------------------------------------------------


async def test_a_budget_is_set_changed_raised_and_removed(data: Path) -> None:
    segment(data, [call(NOON, team_id="core", list_cost_nano=10**9)])
    given = {"name": "core", "scope": "team:core", "limit_usd": "5", "period": "total", "warn_at": "50, 90 %"}
    async with looking(consoles.config(data), "admin") as viewer:
        assert "No budget is in force" in await viewer.get("/budgets")
        assert await viewer.post("/budgets", **given, owner="fin@example.com") == "/budgets?done=set"
        [budget] = budget_file(consoles.config(data)).all()
        assert (budget.name, budget.limit_nano, budget.warn_at) == ("core", 5 * 10**9, (0.5, 0.9))
        assert "figures to come" in await viewer.get("/budgets?done=set")
        budgeting.store(data, [budget], NOON.replace(tzinfo=None))
        page = await viewer.get("/budgets")
        assert consoles.rows(page, "budgets")[0][:7] == [
            "core",
            "20.0 %",
            "$1.00",
            "$5.00",
            "team:core",
            "total",
            "$4.00",
        ]
        await viewer.post("/budgets", 409, **given)
        page = await viewer.get("/budgets/core")
        assert "config:admin: set to $5.00" in page
        assert 'name="change" value="yes"' in page
        assert "<polyline" in page
        for until in ("soon", "9999-12-31"):
            await viewer.post("/budgets/core/raise", 400, amount_usd="2", until=until, reason="x")
        await viewer.get("/budgets/core")
        await viewer.post("/budgets/core/raise", amount_usd="2", until="2999-01-01", reason="launch")
        assert "Raised: by $2.00" in plain(await viewer.get("/budgets/core"))
        for wrong in (
            {"limit_usd": "much"},
            {"scope": "nobody"},
            {"period": "century"},
            {"name": "a b"},
            {"warn_at": "x"},
        ):
            page = await viewer.post(
                "/budgets", 422 if "scope" in wrong or "name" in wrong else 400, **{**given, "change": "yes", **wrong}
            )
            assert "This was not taken" in page
            await viewer.get("/budgets")
        await viewer.post("/budgets/core/remove")
        await viewer.get("/budgets/core", 404)
    trail = [json.loads(line) for line in (data / "budgets.jsonl").read_text().splitlines()]
    assert [(each["event"], each["by"]) for each in trail] == [
        ("set", "config:admin"), ("raise", "config:admin"), ("remove", "config:admin"),
    ]  # fmt: skip


async def test_budgets_of_persons_are_not_for_viewers(data: Path) -> None:
    file = budget_file(consoles.config(data))
    async with looking(consoles.config(data), "admin") as viewer:
        for name, scope in (("hers", "user:ada"), ("all", "org")):
            await viewer.post("/budgets", name=name, scope=scope, limit_usd="5")
        page = await viewer.get("/budgets?budgets.sort=-spent_usd")
        assert set(re.findall(r"budgets\.sort=-?(\w+)#", page)) <= {"name", "scope", "period", "mode", "owner"}
    budgeting.store(data, file.all(), NOON.replace(tzinfo=None))
    async with (
        holding(hers=3, all=4, gone=5) as gateway,
        looking(consoles.config(data), "viewer", gateway=gateway) as viewer,
    ):
        text = plain(await viewer.get("/budgets"))
        assert "all $4.00" in text
        assert "gone" not in text
        for path in ("/", "/budgets"):
            page = await viewer.get(path)
            assert "ada" not in page.partition("<main")[2]
            assert "hers" not in page.partition("<main")[2]
        await viewer.get("/budgets/hers", 404)


@contextlib.asynccontextmanager
async def holding(**held: float) -> AsyncIterator[str]:
    """A gateway whose running calls hold so much of budgets."""
    said = "".join(f'outlay_budget_held_usd{{budget="{name}"}} {usd}\n' for name, usd in held.items())

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=f"# TYPE outlay_budget_held_usd gauge\n{said}")

    app_ = web.Application()
    app_.add_routes([web.get("/-/metrics", metrics)])
    async with TestServer(app_) as gateway:
        yield str(gateway.make_url(""))


def test_a_burn_down_shows_the_last_days_from_the_sum_of_those_before() -> None:
    first = date(2024, 1, 1)
    days = [{"day": first + timedelta(days=n), "spent_usd": Decimal(1)} for n in range(1200)]
    row = {"starts_at": None, "ends_at": None, "limit_usd": Decimal(5000), "forecast_usd": None}
    drawn = budgets._drawn(days, row)
    assert drawn is not None
    assert len(drawn["slots"]) == budgets.SLOTS_MAX
    [spent] = [line for line in drawn["lines"] if line.kind == "spent"]
    assert spent.points[-1] == (budgets.SLOTS_MAX - 1, Decimal(1200))
    before = sum(str(day["day"]) < drawn["slots"][0] for day in days)
    assert spent.points[0] == (0, min(before + 1, 1200))


async def test_the_gateway_refuses_a_call_once_a_budget_is_set_and_takes_it_when_it_is_gone(
    start_gateway: StartGateway, upstream: FakeUpstream
) -> None:
    upstream.answer(whole({"id": "x", "model": "gpt-5.4", "choices": [], "usage": {"prompt_tokens": 10}}))
    body = {"model": "gpt-5.4", "messages": [], "max_tokens": 1000}
    async with start_gateway() as gateway:
        settings = consoles.config(gateway.dir)
        async with looking(settings, "admin", gateway=gateway.url) as viewer:
            assert (await gateway.post("/v1/chat/completions", body)).status == 200
            await viewer.post("/budgets", name="tiny", scope="org", limit_usd="0.000001", period="total")
            async with consoles.soon():
                while (refused := await gateway.post("/v1/chat/completions", body)).status == 200:
                    pass
            assert refused.headers["x-outlay-refusal"] == "budget_exceeded"
            assert "Nothing is held" in await viewer.get("/budgets")
            await viewer.post("/budgets/tiny/remove")
            async with consoles.soon():
                while (await gateway.post("/v1/chat/completions", body)).status != 200:
                    pass


async def test_what_a_gateway_that_does_not_answer_holds_is_not_known(data: Path) -> None:
    async with looking(consoles.config(data), "viewer", gateway="http://127.0.0.1:9") as viewer:
        assert "did not answer" in await viewer.get("/budgets")


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_is_made_shown_once_and_revoked(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    upstream.answer(whole({"id": "x", "model": "gpt-5.4", "choices": [], "usage": {"prompt_tokens": 10}}))
    async with start_gateway() as gateway, looking(consoles.config(gateway.dir), "admin") as viewer:
        page = await viewer.post(
            "/keys", 200, team_id="core", user_id="ada", models="gpt-*, claude-*", purpose="ci", expires="2999-01-01"
        )
        [secret] = re.findall(r'id="secret">(olk_[^<]+)<', page)
        assert secret not in await viewer.get("/keys?state=")
        key = Keys(gateway.dir).all()[-1]
        assert (key.created.by, key.created.team_id, key.created.models) == (
            "config:admin",
            "core",
            ("gpt-*", "claude-*"),
        )
        gateway.key = secret
        body = {"model": "gpt-5.4", "messages": []}
        assert (await gateway.post("/v1/chat/completions", body)).status == 200
        page = await viewer.get(f"/keys/{key.created.key_id}")
        assert "ada" in page
        await viewer.post(f"/keys/{key.created.key_id}/revoke")
        assert (await gateway.post("/v1/chat/completions", body)).status == 401
        assert "revoked" in await viewer.get(f"/keys/{key.created.key_id}?done=revoked")
        for wrong in (
            {"models": "x" * 201},
            {"expires": "soon"},
            {"expires": "9999-12-31"},
            {"role": "root"},
            {"ticket": "?"},
        ):
            assert "This was not taken" in await viewer.post("/keys", 422 if "ticket" in wrong else 400, **wrong)
            await viewer.get("/keys")


async def test_a_viewer_sees_keys_without_people(data: Path) -> None:
    event, _ = Keys(data).create(team_id="core", user_id="ada")
    async with looking(consoles.config(data), "viewer") as viewer:
        for path in ("/keys", f"/keys/{event.key_id}"):
            page = await viewer.get(path)
            assert event.key_id in page
            assert "ada" not in page.partition("<main")[2]
            assert 'action="/keys' not in page


async def test_what_a_key_with_a_role_opens(data: Path) -> None:
    """The console shows all teams, so that one that is bound to a team does not open it."""
    free, _ = Keys(data).create(role="viewer")
    bound, _ = Keys(data).create(role="viewer", team_id="core")
    async with looking(consoles.config(data), "viewer") as viewer:
        assert "opens console and API as viewer" in await viewer.get(f"/keys/{free.key_id}")
        assert "opens the API as viewer" in await viewer.get(f"/keys/{bound.key_id}")
