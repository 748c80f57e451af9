"""The console over plain HTTP: who gets in, what is shown to whom, and that sums are those of the ledger."""

import asyncio
import re
import time
from pathlib import Path

import pytest
from yarl import URL

from analytics.web import app, sessions
from gateway.config import ConsoleSettings, OidcSettings, load
from gateway.errors import UserError
from gateway.keys import Keys
from tests import consoles
from tests.consoles import SECRETS, looking, plain

ALL = "?period=all"


@pytest.fixture
def made(empty_lake: Path) -> Path:
    """Without a call, and not changed."""
    return empty_lake


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    consoles.set_keys(monkeypatch)


# -- who gets in ------------------------------------------------------------------------------------------------------


async def test_strangers_see_the_sign_in_alone_and_come_back_to_where_they_were_going(made: Path) -> None:
    async with looking(consoles.config(made)) as viewer:
        async with viewer.session.get(f"{viewer.url}/{ALL}", allow_redirects=False) as response:
            assert response.status == 303
            assert response.headers["Location"] == "/sign-in?next=/?period%3Dall"
        page = await viewer.get("/sign-in?next=%2F%3Fperiod%3Dall")
        assert "PAY-" not in page
        assert await viewer.post("/sign-in", key=SECRETS["viewer"], next=f"/{ALL}") == f"/{ALL}"


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "/sign-out", "x"])
async def test_a_sign_in_leads_nowhere_else(made: Path, wanted: str) -> None:
    async with looking(consoles.config(made)) as viewer:
        await viewer.get("/sign-in")
        assert await viewer.post("/sign-in", key=SECRETS["viewer"], next=wanted) == "/"


async def test_only_unbound_keys_with_a_role_that_are_in_force_open_it(data: Path) -> None:
    ring = Keys(data)
    plain_key = ring.create(team_id="payments")[1]
    bound = ring.create(role="admin", team_id="payments")[1]
    ended = ring.create(role="admin", expires_at=int(time.time()) - 5)[1]
    event, good = ring.create(role="finops")
    async with looking(consoles.config(data)) as viewer:
        for secret, why in (
            (plain_key, "has no role"),
            (bound, "is bound to a team"),
            (ended, "is not known"),
            ("x", "is not known"),
        ):
            page = await viewer.sign_in(secret, 403)
            assert why in plain(page)
            assert secret == "x" or secret not in page
        assert await viewer.sign_in(good) == "/"
        ring.revoke(event.key_id)
        assert await viewer.get("/", 303) == ""


async def test_a_secret_that_was_rotated_out_ends_its_session(data: Path) -> None:
    ring = Keys(data)
    event, secret = ring.create(role="viewer")
    async with looking(consoles.config(data)) as viewer:
        await viewer.sign_in(secret)
        ring.rotate(event.key_id, overlap=3600)
        await viewer.get("/")
        ring.rotate(event.key_id, overlap=0)
        await viewer.get("/", 303)


async def test_sign_ins_that_fail_have_to_wait(made: Path) -> None:
    async with looking(consoles.config(made)) as viewer:
        for _ in range(sessions.ATTEMPTS):
            await viewer.sign_in("olk_wrong", 403)
        page = await viewer.sign_in(SECRETS["admin"], 429)
        assert "Too many" in page


def test_attempts_count_for_a_minute_and_each_address() -> None:
    now = [0.0]
    attempts = sessions.Attempts(lambda: now[0])
    for _ in range(sessions.ATTEMPTS):
        assert attempts.wait("a") == 0
        attempts.failed("a")
    assert attempts.wait("a") == sessions.ATTEMPT_SECONDS
    assert attempts.wait("b") == 0
    now[0] = sessions.ATTEMPT_SECONDS
    assert attempts.wait("a") == 0


def test_sessions_end_when_idle_when_old_and_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    kept = sessions.Sessions(60, 150, lambda: now[0])
    token, _ = kept.begin(consoles.nobody(), "", "")
    for at in (59, 110, 149):
        now[0] = at
        assert kept.find(token) is not None
    now[0] = 151
    assert kept.find(token) is None
    token, _ = kept.begin(consoles.nobody(), "", "")
    now[0] += 61
    assert kept.find(token) is None
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    tokens = []
    for _ in range(3):
        now[0] += 1
        tokens.append(kept.begin(consoles.nobody(), "", "")[0])
    assert [kept.find(each) is not None for each in tokens] == [False, True, True]


async def test_who_signs_out_is_out(made: Path) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        before = {cookie.key: cookie.value for cookie in viewer.session.cookie_jar}
        assert await viewer.post("/sign-out") == "/sign-in"
        await viewer.get("/", 303)
        await viewer.get("/", 303, Cookie=f"outlay_{viewer.port}_session={before[f'outlay_{viewer.port}_session']}")


async def test_a_sign_in_gives_another_session_each_time(made: Path) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        [first] = [cookie for cookie in viewer.session.cookie_jar if cookie.key == f"outlay_{viewer.port}_session"]
        assert first["httponly"]
        assert first["samesite"] == "Lax"
        assert not first["secure"]
        await viewer.post("/sign-out")
        await viewer.sign_in(SECRETS["viewer"])
        [second] = [cookie for cookie in viewer.session.cookie_jar if cookie.key == f"outlay_{viewer.port}_session"]
        assert first.value != second.value


async def test_under_https_cookies_are_secure_and_of_this_host_alone(made: Path) -> None:
    async with looking(consoles.config(made, url="https://outlay.example.com")) as viewer:
        async with viewer.session.get(
            f"http://127.0.0.1:{viewer.port}/sign-in", headers={"Host": "outlay.example.com"}
        ) as response:
            cookie = response.headers["Set-Cookie"]
            assert cookie.startswith("__Host-outlay_form=")
            assert "Secure" in cookie
            assert "Path=/" in cookie
            assert "Domain" not in cookie


async def test_without_a_key_the_console_says_how_to_make_one(data: Path) -> None:
    async with looking(consoles.config(data, ())) as viewer:
        page = await viewer.get("/sign-in")
        assert "outlay keys create --role admin" in page
        Keys(data).create(role="admin")
        assert "Nobody can sign in yet" not in await viewer.get("/sign-in")


async def test_it_is_for_this_machine_alone_until_somebody_could_sign_in(data: Path) -> None:
    settings = consoles.config(data, (), host="0.0.0.0", url="https://outlay.example.com")
    with pytest.raises(UserError, match="nobody could sign in"):
        async with looking(settings):
            pass


# -- what every answer has, and every request needs -------------------------------------------------------------------


async def test_each_answer_has_the_policy_and_is_not_kept(made: Path) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        for path in ("/", "/sign-in", "/nowhere", "/static/console.css", "/healthz"):
            async with viewer.session.get(viewer.url + path, allow_redirects=False) as response:
                assert response.headers["Content-Security-Policy"] == app.POLICY
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Server"] == "outlay"
                assert response.headers["Cache-Control"] in ("no-store", "no-cache")


async def test_no_page_has_a_script_or_style_of_its_own_or_asks_elsewhere(made: Path) -> None:
    async with looking(consoles.config(made), "admin") as viewer:
        for path in (f"/{ALL}", "/sign-in"):
            page = await viewer.get(path, 303 if path == "/sign-in" else 200)
            assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
            assert re.findall(r"<script(?! src=\"/static/)", page) == []
            assert re.findall(r"(?:src|action)=\"(?!/)", page) == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
async def test_it_answers_to_its_own_name_alone(made: Path, host: str) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        async with viewer.session.get(
            viewer.url, headers={"Host": host.format(port=viewer.port)}, allow_redirects=False
        ) as response:
            assert response.status == 421
            assert "PAY" not in await response.text()


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
async def test_names_of_this_machine_are_its_own(made: Path, host: str) -> None:
    async with looking(consoles.config(made)) as viewer:
        async with viewer.session.get(
            f"{viewer.url}/healthz", headers={"Host": host.format(port=viewer.port)}
        ) as response:
            assert response.status == 200


async def test_a_cookie_that_is_no_text_is_none(made: Path) -> None:
    async with looking(consoles.config(made)) as viewer:
        reader, writer = await asyncio.open_connection("127.0.0.1", viewer.port)
        for kind in ("session", "form", "oidc"):
            writer.write(
                b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % viewer.port
                + b"Cookie: outlay_%d_%b=\xff\xfe; outlay_zone=\xff\r\n\r\n" % (viewer.port, kind.encode())
            )
            answer = (await reader.readuntil(b"</html>")).decode()
            assert answer.startswith("HTTP/1.1 200")
            assert app.POLICY in answer
        writer.close()


async def test_two_consoles_of_a_machine_do_not_sign_each_other_out(made: Path) -> None:
    async with looking(consoles.config(made), "viewer") as one, looking(consoles.config(made)) as other:
        other.session.cookie_jar.update_cookies(
            {cookie.key: cookie.value for cookie in one.session.cookie_jar}, URL("http://127.0.0.1")
        )
        await other.sign_in(SECRETS["admin"])
        await other.post("/sign-out")
        kept = {cookie.key: cookie.value for cookie in other.session.cookie_jar}
        await one.get("/nowhere", 404, Cookie="; ".join(f"{name}={value}" for name, value in kept.items()))
        assert f"outlay_{one.port}_session" in kept
        assert f"outlay_{other.port}_session" not in kept


async def test_changes_need_the_forms_token_and_come_from_here(made: Path) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        await viewer.post("/sign-out", 403, csrf="guessed")
        await viewer.post("/sign-out", 403, csrf="")
        for origin in (
            "https://evil.example",
            "null",
            f"{viewer.url}.evil.example",
            viewer.url.replace("http", "https"),
            None,
        ):
            await viewer.post("/sign-out", 403, origin=origin)
        await viewer.get("/")
        assert await viewer.post("/sign-out") == "/sign-in"


async def test_a_sign_in_that_another_page_sends_is_refused(made: Path) -> None:
    async with looking(consoles.config(made)) as viewer:
        await viewer.get("/sign-in")
        await viewer.post("/sign-in", 403, origin="https://evil.example", key=SECRETS["viewer"])
        await viewer.post("/sign-in", 403, csrf="0" * 64, key=SECRETS["viewer"])
        viewer.session.cookie_jar.clear()
        await viewer.post("/sign-in", 403, key=SECRETS["viewer"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[console]\nhost = "0.0.0.0"\n', "set url to the address"),
        ('[console]\nhost = "0.0.0.0"\nurl = "https://x.example"\n', "set an admin key"),
        ('[console]\nurl = "https://x.example/outlay"\n', "without a path"),
        ('[console]\nurl = "https://x.example:port"\n', "without a path"),
        ('[console]\ntimezone = "Mars/Base"\n', "there is no zone 'Mars/Base'"),
        ('[console.oidc]\nissuer = "http://idp.example"\n', "must be https://"),
        ('[console.oidc]\nissuer = "https://idp.example"\n', 'needs "client_id"'),
        ('[console.oidc]\nissuer = "https://idp.example"\nclient_id = "x"\n', "roles is empty"),
        ('[console.oidc]\nscopes = ["email"]\nissuer = "https://idp.example"\n', 'must have "openid"'),
        ('[console.oidc]\nclient_secret = "s3cret"\n', "does not belong here"),
        ('[console.oidc]\nroles = {x = "root"}\n', "root"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "outlay.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "outlay.toml")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_each_setting_of_the_console_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs/console.md").read_text(encoding="utf-8")
    for struct in (ConsoleSettings, OidcSettings):
        assert [name for name in struct.__struct_fields__ if f"`{name}`" not in page and name != "oidc"] == []
