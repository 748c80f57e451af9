"""The admin API on a real socket: who may do what, issuers and their bounds, rotation, budgets, prices."""

import asyncio
import json
import re
import resource
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from yarl import URL

from gateway import endpoints
from gateway.admin_api import KeysApi, PricesApi
from gateway.api import Api
from gateway.budget_file import BudgetFile, BudgetTable
from gateway.budgets import Budgets
from gateway.budgets_api import BudgetsApi
from gateway.call import Call, Principal
from gateway.config import AdminKey, Auth
from gateway.endpoints import Asked
from gateway.findings import FindingsApi
from gateway.http_api import BODY_BYTES_MAX, HttpApi
from gateway.keys import Keys
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import whole

SECRETS = {role: f"olk_{role}_{'0123456789abcdef' * 2}" for role in ("viewer", "finops", "admin")}
DOCS = Path(__file__).parent.parent / "docs/api.md"
CHAT = {"model": "gpt-5.4-mini", "messages": []}
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}


def declared() -> list[endpoints.Endpoint]:
    """Every endpoint that there is."""
    parts = (Api, KeysApi, PricesApi, BudgetsApi, FindingsApi)
    found = [each for part in parts for each in part.endpoints(object.__new__(part))]
    return list(HttpApi(found, lambda request: pytest.fail("nobody asks")).endpoints)


class Admins:
    """A gateway with an admin key of each role in its settings."""

    def __init__(self, gateway: Running) -> None:
        self.gateway = gateway
        self.dir = gateway.dir
        self.ring = Keys(gateway.dir)

    async def ask(
        self, method: str, path: str, body: Any = None, key: str | None = SECRETS["admin"], **headers: str
    ) -> tuple[int, Any]:
        status, _, told = await self.answer(method, path, body, key, **headers)
        return status, told

    async def answer(
        self, method: str, path: str, body: Any = None, key: str | None = SECRETS["admin"], **headers: str
    ) -> tuple[int, Any, Any]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            fields.setdefault("content-type", "application/json")
        url = URL(f"{self.gateway.url}/-/api/v1/{path}", encoded=True)
        async with self.gateway.session.request(method, url, data=data, headers=fields) as response:
            text = await response.text()
            assert key is None or key not in text
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, response.headers, json.loads(text) if text else None

    async def code(self, *arguments: Any, **more: Any) -> tuple[int, str]:
        status, told = await self.ask(*arguments, **more)
        return status, told["error"]["code"]

    async def issuer(self, **grant: Any) -> str:
        """The secret of a key with the role admin."""
        return self.ring.create(role="admin", **grant)[1]


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch) -> Auth:
    admin_keys = {}
    for role, value in SECRETS.items():
        monkeypatch.setenv(f"KEY_{role}", value)
        admin_keys[f"the-{role}"] = msgspec.convert({"key": f"env:KEY_{role}", "role": role}, AdminKey)
    return Auth(admin_keys=admin_keys)


@pytest.fixture
async def admins(start_gateway: StartGateway, auth: Auth) -> AsyncIterator[Admins]:
    async with start_gateway(auth=auth) as gateway:
        yield Admins(gateway)


# -- who may do what ---------------------------------------------------------------------------------------------------

RANKS = ("key", "viewer", "finops", "admin")


def test_the_docs_name_every_endpoint_and_its_role() -> None:
    rows = re.findall(
        r"^\| `(GET|POST|PUT|DELETE) ([^`]*)` \| (\w+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )
    paths = {(each.method, re.sub(r":[^}]*", "", each.path)): each.access for each in declared()}
    assert {(method, path): access for method, path, access in rows} == paths


def path_of(endpoint: endpoints.Endpoint, key_id: str) -> str:
    path = endpoint.path.removeprefix("/-/api/v1/").replace("{key_id}", key_id).replace("{name}", "b")
    path += "?model=gpt-4.1" if path == "prices" else ""
    path = re.sub(r"\{finding_id[^}]*\}", "0123456789abcdef", path)
    return re.sub(r"\{id[^}]*\}", "PAY-1", path)


@pytest.mark.parametrize("endpoint", declared(), ids=lambda each: f"{each.method} {each.path}")
async def test_role_by_endpoint(admins: Admins, endpoint: endpoints.Endpoint) -> None:
    """Each kind of caller: let through exactly where the declaration says so, and told why where not."""
    made, plain = admins.ring.create(team_id="t")
    kept = {role: admins.ring.create(role=role)[1] for role in ("viewer", "finops", "admin")}
    revoked_event, revoked = admins.ring.create(role="admin")
    admins.ring.revoke(revoked_event.key_id)
    _, expired = admins.ring.create(role="admin", expires_at=1)
    callers: list[tuple[str | None, str | None]] = [
        (None, None), ("olk_unknown", None), (revoked, None), (expired, None), (plain, "key"),
        *((secret, role) for role, secret in SECRETS.items()), *((secret, role) for role, secret in kept.items()),
    ]  # fmt: skip
    body = None if endpoint.body is None else b"not JSON"
    for key, rank in callers:
        status, told = await admins.ask(endpoint.method, path_of(endpoint, made.key_id), body, key=key)
        if rank is None:
            assert (status, told["error"]["code"]) == (401, "unauthenticated")
        elif RANKS.index(rank) < RANKS.index(endpoint.access):
            assert (status, told["error"]["code"]) == (403, "forbidden")
            assert f"a key with the role {endpoint.access}" in told["error"]["message"]
        else:
            assert status not in (401, 403, 405)
            assert (status == 400) == (body is not None)


async def test_an_open_gateway_opens_no_administration(start_gateway: StartGateway, auth: Auth) -> None:
    async with start_gateway(auth=msgspec.structs.replace(auth, mode="open")) as gateway:
        admins = Admins(gateway)
        assert await admins.code("GET", "keys", key=None) == (403, "forbidden")
        assert (await admins.ask("GET", "me", key=None))[0] == 200
        assert (await admins.ask("GET", "keys"))[0] == 200


async def test_a_key_with_a_role_stands_in_two_places_alone(admins: Admins) -> None:
    _, kept = admins.ring.create(role="viewer")
    for key in (kept, SECRETS["viewer"]):
        for path in ("keys", "me"):
            assert (await admins.ask("GET", path, key=None, x_outlay_key=key))[0] == 200
            assert (await admins.ask("GET", path, key=key))[0] == 200
            for name in ("x-api-key", "api-key", "x-goog-api-key"):
                assert await admins.code("GET", path, key=None, **{name: key}) == (401, "unauthenticated")
            assert await admins.code("GET", f"{path}?key={key}", key=None) == (401, "unauthenticated")
            assert await admins.code("GET", path, key=None, authorization=key) == (401, "unauthenticated")
            empty = await admins.code("GET", f"{path}?key={key}", key=None, x_outlay_key="")
            assert empty == (401, "unauthenticated")
            decoy = await admins.code("GET", f"{path}?key={key}", key=None, authorization="Bearer x-olk_")
            assert decoy == (401, "unauthenticated")


@pytest.mark.parametrize("role", ["viewer", "admin"])
async def test_a_key_with_a_role_calls_no_provider(admins: Admins, role: str) -> None:
    for key in (SECRETS[role], admins.ring.create(role=role)[1]):
        async with admins.gateway.post("/v1/chat/completions", CHAT, Authorization=f"Bearer {key}") as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (403, "forbidden")
            text = await response.text()
            assert "opens the admin API and no provider" in text
            assert key not in text
    assert admins.gateway.upstream.requests == []


async def test_admin_keys_of_the_settings_never_reach_a_provider_of_an_open_gateway(
    start_gateway: StartGateway, auth: Auth
) -> None:
    async with start_gateway(auth=msgspec.structs.replace(auth, mode="open")) as gateway:
        fields = {"Authorization": f"Bearer {SECRETS['admin']}"}
        async with gateway.post("/v1/chat/completions", CHAT, **fields) as response:
            assert response.status == 403
        assert gateway.upstream.requests == []


# -- HTTP --------------------------------------------------------------------------------------------------------------


async def test_what_is_no_request_of_this_api(admins: Admins) -> None:
    status, headers, told = await admins.answer("DELETE", "keys")
    assert (status, headers["Allow"], told["error"]["code"]) == (405, "GET, POST, HEAD", "method_not_allowed")
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""):
        sent = await admins.code("POST", "keys", b"{}", content_type=kind)
        assert sent == (415, "unsupported_media_type")
    assert await admins.code("POST", "keys", b"{}", content_encoding="gzip") == (415, "unsupported_media_type")
    assert await admins.code("POST", "keys", b" " * (BODY_BYTES_MAX + 1)) == (413, "request_too_large")
    for body in (b"", b"{", b"[]", b"null", b"\xff", b'{"name": 1}', b"[" * 60_000):
        assert await admins.code("POST", "keys", body) == (400, "request_unreadable")
    assert await admins.code("GET", "keys?state=active") == (400, "request_unreadable")
    assert await admins.code("GET", "prices?model=a&model=b") == (400, "request_unreadable")
    assert await admins.code("GET", "prices") == (400, "request_unreadable")
    assert await admins.code("GET", "nothing/here") == (404, "not_found")
    async with admins.gateway.session.head(
        f"{admins.gateway.url}/-/api/v1/keys", headers={"x-outlay-key": SECRETS["viewer"]}
    ) as response:
        assert (response.status, await response.read()) == (200, b"")
    assert len(admins.ring.all()) == 1  # of the gateway itself: nothing was made


async def test_a_key_that_ends_while_its_body_comes_changes_nothing(admins: Admins) -> None:
    event, secret = admins.ring.create(role="admin")

    async def body() -> AsyncIterator[bytes]:
        yield b'{"team_id":'
        await asyncio.sleep(0.2)
        admins.ring.revoke(event.key_id)
        yield b'"a"}'

    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    url = f"{admins.gateway.url}/-/api/v1/keys"
    before = len(admins.ring.all())
    async with admins.gateway.session.post(url, data=body(), headers=headers) as response:
        assert response.status == 401
    assert len(admins.ring.all()) == before


async def test_a_body_that_takes_too_long(admins: Admins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http_api.BODY_SECONDS", 0.1)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    headers = {"Authorization": f"Bearer {SECRETS['admin']}", "Content-Type": "application/json"}
    url = f"{admins.gateway.url}/-/api/v1/keys"
    async with admins.gateway.session.post(url, data=body(), headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (408, "request_timeout")


async def test_mistakes_are_named_and_not_repeated(admins: Admins) -> None:
    for body, message in {
        '{"teamid": "x"}': "there is an unknown field; did you mean team_id?",
        '{"olk_secret": "x"}': "there is an unknown field; known here: team_id,",
        '{"purpose": "olk_secret"}': "purpose: write one of ci, eval, batch, research, support.",
        '{"role": "root"}': "role: write one of viewer, finops, admin.",
        '{"expires_at": "2027-01-01T00:00:00"}': "expires_at: Expected `datetime` with a timezone component.",
        '{"models": "gpt-*"}': "models: Expected `array`, got `str`.",
        '{"name": "a\\u0000b"}': "name must have 1 to 200 characters, and no control characters.",
        '{"upstreams": [""]}': "upstreams must have at most 100 entries",
    }.items():
        status, told = await admins.ask("POST", "keys", body.encode())
        assert status == 400
        assert message in told["error"]["message"]
        assert "olk_secret" not in told["error"]["message"]


# -- keys --------------------------------------------------------------------------------------------------------------


async def test_a_key_from_its_making_to_its_end(admins: Admins) -> None:
    wanted = {
        "team_id": "payments",
        "user_id": "dev-1",
        "models": ["gpt-*"],
        "upstreams": ["openai"],
        "ticket": "PAY-1",
    }
    status, made = await admins.ask("POST", "keys", wanted)
    assert status == 201
    assert {name: made[name] for name in wanted} == wanted
    assert (made["state"], made["by"], made["kind"]) == ("active", "config:the-admin", "calls")
    key_id = made["key_id"]

    status, rotated = await admins.ask("POST", f"keys/{key_id}/rotate", {"overlap_seconds": 3600})
    assert (status, rotated["key_id"], rotated["ended_secret_until"]) == (200, key_id, None)
    assert rotated["secret"] != made["secret"]
    until = datetime.fromisoformat(rotated["old_secret_until"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) < timedelta(minutes=61)
    for secret in (made["secret"], rotated["secret"]):
        assert (await admins.ask("GET", "me", key=secret))[1]["key_id"] == key_id

    status, again = await admins.ask("POST", f"keys/{key_id}/rotate", {})
    assert again["ended_secret_until"] == rotated["old_secret_until"]
    status, told = await admins.ask("GET", "me", key=made["secret"])
    assert (status, "has a new secret" in told["error"]["message"]) == (401, True)
    for secret in (rotated["secret"], again["secret"]):
        assert (await admins.ask("GET", "me", key=secret))[0] == 200

    for _ in range(2):
        status, ended = await admins.ask("POST", f"keys/{key_id}/revoke", {})
        assert (status, ended["state"]) == (200, "revoked")
    for secret in (rotated["secret"], again["secret"]):
        assert (await admins.ask("GET", "me", key=secret))[0] == 401
    assert await admins.code("POST", f"keys/{key_id}/rotate", {}) == (409, "conflict")

    status, told = await admins.ask("GET", f"keys/{key_id}")
    assert [(each["event"], each["by"]) for each in told["changes"]] == [
        ("create", "config:the-admin"), ("rotate", "config:the-admin"), ("rotate", "config:the-admin"),
        ("revoke", "config:the-admin"),
    ]  # fmt: skip
    text = (admins.dir / "keys.jsonl").read_text(encoding="utf-8") + json.dumps(told)
    assert not [secret for secret in (made["secret"], rotated["secret"], again["secret"]) if secret in text]


async def test_an_overlap_of_nothing(admins: Admins) -> None:
    event, old = admins.ring.create()
    status, told = await admins.ask("POST", f"keys/{event.key_id}/rotate", {"overlap_seconds": 0})
    assert (status, told["old_secret_until"]) == (200, None)
    assert (await admins.ask("GET", "me", key=old))[0] == 401
    assert (await admins.ask("GET", "me", key=told["secret"]))[0] == 200


async def test_claim_keys(admins: Admins) -> None:
    status, made = await admins.ask("POST", "keys", {"kind": "claims", "team_id": "payments"})
    assert (status, made["kind"], made["secret"][:4]) == (201, "claims", "olc_")
    assert await admins.code("POST", "keys", {"kind": "claims", "models": ["a"]}) == (422, "not_possible")
    assert await admins.code("POST", f"keys/{made['key_id']}/rotate", {}) == (409, "conflict")


async def test_what_cannot_be(admins: Admins) -> None:
    assert await admins.code("POST", "keys", {"ticket": "nonsense"}) == (422, "not_possible")
    assert await admins.code("POST", "keys", {"expires_at": "2020-01-01T00:00:00Z"}) == (422, "not_possible")
    for path in ("keys/key_nope", "keys/key_nope/rotate", "keys/a%2Fb"):
        method = "POST" if path.endswith("rotate") else "GET"
        assert await admins.code(method, path, {} if method == "POST" else None) == (404, "not_found")


async def test_people_are_shown_to_those_alone_who_manage_keys(admins: Admins) -> None:
    event, _ = admins.ring.create(user_id="dev-7")
    for role, secret in SECRETS.items():
        for path in ("keys", f"keys/{event.key_id}"):
            _, told = await admins.ask("GET", path, key=secret)
            assert ("dev-7" in json.dumps(told)) == (role == "admin")


async def test_a_full_disk(admins: Admins) -> None:
    file = admins.dir / "keys.jsonl"
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        assert await admins.code("POST", "keys", {}) == (503, "cannot_write")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert (await admins.ask("POST", "keys", {}))[0] == 201


# -- issuers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuer", "fits", "exceeds"),
    [
        ({"team_id": "a"}, {"team_id": "a"}, {"team_id": "b"}),
        ({"team_id": "a"}, {"team_id": "a", "user_id": "x"}, {}),
        ({"user_id": "x"}, {"user_id": "x"}, {"user_id": "y"}),
        ({"ticket": "PAY-1"}, {"ticket": "PAY-1"}, {"ticket": "PAY-2"}),
        ({"purpose": "ci"}, {"purpose": "ci"}, {}),
        ({"ticket_policy": "required"}, {"ticket_policy": "required"}, {"ticket_policy": "optional"}),
        ({"models": ["gpt-*"]}, {"models": ["gpt-5*", "gpt-4.1"]}, {"models": ["gpt-5", "claude-*"]}),
        ({"models": ["gpt-*"]}, {"models": ["gpt-*"]}, {}),
        ({"models": ["gpt-?"]}, {"models": ["gpt-5"]}, {"models": ["gpt-*"]}),
        ({"upstreams": ["openai", "gemini"]}, {"upstreams": ["gemini"]}, {"upstreams": ["*"]}),
        ({"upstreams": ["openai"]}, {"upstreams": ["openai"]}, {}),
    ],
)
async def test_a_key_has_no_more_than_its_issuer(
    admins: Admins, issuer: dict[str, Any], fits: dict[str, Any], exceeds: dict[str, Any]
) -> None:
    bound = {name: tuple(value) if isinstance(value, list) else value for name, value in issuer.items()}
    event, secret = admins.ring.create(role="admin", **bound)
    status, made = await admins.ask("POST", "keys", fits, key=secret)
    assert (status, made["by"]) == (201, event.key_id)
    status, told = await admins.ask("POST", "keys", exceeds, key=secret)
    assert (status, told["error"]["code"]) == (403, "forbidden")
    assert f"a key never has more than its issuer: {next(iter(issuer))} must be" in told["error"]["message"]


async def test_a_key_is_for_upstreams_that_there_are(admins: Admins) -> None:
    status, told = await admins.ask("POST", "keys", {"upstreams": ["openai", "nosuch"]})
    assert (status, told["error"]["code"]) == (422, "not_possible")
    assert "upstreams must be among openai, anthropic, gemini, those of the settings" in told["error"]["message"]


async def test_a_key_does_not_outlive_its_issuer(admins: Admins) -> None:
    ends = int(time.time()) + 3600
    secret = await admins.issuer(expires_at=ends)
    at = datetime.fromtimestamp(ends, UTC)
    assert (await admins.ask("POST", "keys", {"expires_at": at.isoformat()}, key=secret))[0] == 201
    for body in ({}, {"expires_at": (at + timedelta(seconds=1)).isoformat()}):
        assert await admins.code("POST", "keys", body, key=secret) == (403, "forbidden")
    for_ever, _ = admins.ring.create()
    assert await admins.code("POST", f"keys/{for_ever.key_id}/rotate", {}, key=secret) == (403, "forbidden")
    assert (await admins.ask("POST", f"keys/{for_ever.key_id}/revoke", {}, key=secret))[0] == 200


async def test_an_issuer_sees_and_changes_what_is_his_alone(admins: Admins) -> None:
    secret = await admins.issuer(team_id="a")
    ours, _ = admins.ring.create(team_id="a")
    theirs, their_secret = admins.ring.create(team_id="b")
    _, told = await admins.ask("GET", "keys", key=secret)
    assert {each["team_id"] for each in told["keys"]} == {"a"}
    for change in ("rotate", "revoke"):
        assert await admins.code("POST", f"keys/{theirs.key_id}/{change}", {}, key=secret) == (404, "not_found")
        assert (await admins.ask("POST", f"keys/{ours.key_id}/{change}", {}, key=secret))[0] == 200
    assert await admins.code("GET", f"keys/{theirs.key_id}", key=secret) == (404, "not_found")
    assert (await admins.ask("GET", "me", key=their_secret))[0] == 200


async def test_many_who_write_at_once(admins: Admins) -> None:
    event, _ = admins.ring.create()
    answers = await asyncio.gather(*(admins.ask("POST", f"keys/{event.key_id}/rotate", {}) for _ in range(20)))
    secrets = [told["secret"] for _, told in answers]
    assert [status for status, _ in answers] == [200] * 20
    works = [secret for secret in secrets if (await admins.ask("GET", "me", key=secret))[0] == 200]
    assert len(works) == 2
    revoked = await asyncio.gather(*(admins.ask("POST", f"keys/{event.key_id}/revoke", {}) for _ in range(10)))
    assert [status for status, _ in revoked] == [200] * 10
    changes = (await admins.ask("GET", f"keys/{event.key_id}"))[1]["changes"]
    assert [each["event"] for each in changes] == ["create", *["rotate"] * 20, "revoke"]


# -- budgets -----------------------------------------------------------------------------------------------------------


async def balance(admins: Admins, name: str, key: str = SECRETS["viewer"]) -> Any:
    """What is left of a budget, when it is in force."""
    async with asyncio.timeout(10):
        while (found := (await admins.ask("GET", f"budgets/{name}", key=key))[1])["balance"] is None:
            await asyncio.sleep(0.05)
    return found["balance"]


async def test_a_budget_from_its_making_to_its_end(admins: Admins) -> None:
    finops = SECRETS["finops"]
    table = {"scope": "team:payments", "limit_usd": "2.5", "owner": "ada"}
    for _ in range(2):  # the same again changes nothing
        status, made = await admins.ask("PUT", "budgets/pay", table, key=finops)
        assert (status, made["limit_usd"], made["scope"], made["in_settings"]) == (200, 2.5, "team:payments", False)
    assert (await balance(admins, "pay"))["left_usd"] == 2.5
    admins.gateway.upstream.answer(whole(ANSWER))
    async with admins.gateway.post("/v1/chat/completions", CHAT) as response:
        cost = float(response.headers["x-outlay-cost-usd"])
    assert cost > 0
    found = await balance(admins, "pay")
    assert (found["spent_usd"], found["held_usd"], found["unpriced_calls"]) == (cost, 0, 0)
    assert datetime.fromisoformat(found["resets_at"]) > datetime.now(UTC)
    _, me = await admins.ask("GET", "me", key=admins.gateway.key)
    assert [(each["name"], each["owner"], each["spent_usd"]) for each in me["budgets"]] == [("pay", "ada", cost)]

    until = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    more = {"amount_usd": 1, "until": until, "reason": "the audit"}
    status, raised = await admins.ask("POST", "budgets/pay/raise", more, key=finops)
    assert (status, raised["raises"][0]["reason"], raised["raises"][0]["by"]) == (200, "the audit", "config:the-finops")
    async with asyncio.timeout(10):
        while (await balance(admins, "pay"))["limit_usd"] != 3.5:
            await asyncio.sleep(0.05)

    status, told = await admins.ask("GET", "budgets/pay")
    assert [each["event"] for each in told["changes"]] == ["set", "raise"]
    assert (await admins.ask("DELETE", "budgets/pay", key=finops))[0] == 200
    assert await admins.code("DELETE", "budgets/pay", key=finops) == (404, "not_found")
    assert (await admins.ask("GET", "budgets"))[1] == {"budgets": []}


async def test_what_is_no_budget(admins: Admins) -> None:
    for name, table, message in [
        ("a", {"scope": "squad:x", "limit_usd": 1}, "is no scope"),
        ("a", {"scope": "org", "limit_usd": -1}, "is no limit"),
        ("a", {"scope": "org", "limit_usd": 1, "on_exceed": "explode"}, "on_exceed is block"),
        ("a", {"scope": "org", "limit_usd": 1, "timezone": "Mars/Olympus"}, "there is no time zone"),
        ("-a", {"scope": "org", "limit_usd": 1}, "is no name of a budget"),
    ]:
        status, told = await admins.ask("PUT", f"budgets/{name}", table)
        assert (status, told["error"]["code"]) == (422, "not_possible")
        assert message in told["error"]["message"]
    assert await admins.code("PUT", "budgets/a", {"scope": "org", "limit": 1}) == (400, "request_unreadable")
    assert (await admins.ask("PUT", "budgets/a", {"scope": "org", "limit_usd": 1}))[0] == 200
    for change in ({"amount_usd": 0}, {"until": "2020-01-01T00:00:00Z"}, {"reason": "  "}, {"value": "x"}):
        raised = {"amount_usd": 1, "until": "2100-01-01T00:00:00Z", "reason": "r", **change}
        assert await admins.code("POST", "budgets/a/raise", raised) == (422, "not_possible")


async def test_a_budget_of_the_settings_is_changed_there(start_gateway: StartGateway, auth: Auth) -> None:
    async with start_gateway(auth=auth, budgets={"all": BudgetTable(scope="org", limit_usd=Decimal(5))}) as gateway:
        admins = Admins(gateway)
        assert (await admins.ask("GET", "budgets/all"))[1]["in_settings"] is True
        assert await admins.code("PUT", "budgets/all", {"scope": "org", "limit_usd": 9}) == (409, "conflict")
        assert await admins.code("DELETE", "budgets/all") == (409, "conflict")


async def test_a_bound_key_has_the_budgets_of_its_team(admins: Admins) -> None:
    _, secret = admins.ring.create(role="finops", team_id="a")
    for name, scope in {"ours": "team:a", "theirs": "team:b", "all": "org"}.items():
        assert (await admins.ask("PUT", f"budgets/{name}", {"scope": scope, "limit_usd": 1}))[0] == 200
    _, told = await admins.ask("GET", "budgets", key=secret)
    assert [each["name"] for each in told["budgets"]] == ["ours"]
    assert (await admins.ask("PUT", "budgets/ours", {"scope": "team:a", "limit_usd": 2}, key=secret))[0] == 200
    for name, scope in {"ours": "org", "theirs": "org", "new": "user:x"}.items():
        sent = await admins.code("PUT", f"budgets/{name}", {"scope": scope, "limit_usd": 9}, key=secret)
        assert sent == (403, "forbidden")
    taken = await admins.code("PUT", "budgets/theirs", {"scope": "team:a", "limit_usd": 9}, key=secret)
    assert taken == (409, "conflict")
    raised = {"amount_usd": 1, "until": "2100-01-01T00:00:00Z", "reason": "r"}
    assert await admins.code("POST", "budgets/theirs/raise", raised, key=secret) == (404, "not_found")
    assert await admins.code("DELETE", "budgets/all", key=secret) == (404, "not_found")


async def test_a_bound_key_sees_no_other_teams_by_a_template_or_a_glob(admins: Admins) -> None:
    for name, scope in {"each": "each_team", "some": "team:*"}.items():
        assert (await admins.ask("PUT", f"budgets/{name}", {"scope": scope, "limit_usd": 1}))[0] == 200
    for grant in ({"models": ("gpt-*",)}, {"team_id": "*"}):
        _, secret = admins.ring.create(role="finops", **grant)
        assert (await admins.ask("GET", "budgets", key=secret))[1] == {"budgets": []}
        for name, scope in {"each": "each_team", "new": "team:*"}.items():
            sent = await admins.code("PUT", f"budgets/{name}", {"scope": scope, "limit_usd": 9}, key=secret)
            assert sent == (403, "forbidden")
        assert await admins.code("DELETE", "budgets/some", key=secret) == (404, "not_found")


async def test_no_budget_is_by_person(admins: Admins) -> None:
    assert (await admins.ask("PUT", "budgets/hers", {"scope": "user:dev-1", "limit_usd": 1}))[0] == 200
    assert (await admins.ask("PUT", "budgets/each", {"scope": "each_user", "limit_usd": 1}))[0] == 200
    assert (await admins.ask("PUT", "budgets/keys", {"scope": "each_key", "limit_usd": 1}))[0] == 200
    assert (await admins.ask("PUT", "budgets/tickets", {"scope": "each_ticket", "limit_usd": 1}))[0] == 200
    await balance(admins, "hers", SECRETS["finops"])
    admins.gateway.upstream.answer(whole(ANSWER))
    async with admins.gateway.post("/v1/chat/completions", CHAT, x_outlay_ticket="PAY-9") as response:
        assert response.status == 200
    for name in ("each", "keys"):
        assert (await admins.ask("GET", f"budgets/{name}"))[1]["accounts"] == []
    [account] = (await admins.ask("GET", "budgets/tickets"))[1]["accounts"]
    assert (account["value"], account["spent_usd"] > 0) == ("PAY-9", True)
    _, told = await admins.ask("GET", "budgets", key=SECRETS["viewer"])
    assert "dev-1" not in json.dumps(told)
    assert await admins.code("GET", "budgets/hers", key=SECRETS["viewer"]) == (404, "not_found")


@pytest.mark.parametrize("scope", ["each_user", "each_key", "each_ticket"])
async def test_for_whom_a_limit_is_raised_is_not_for_viewers(admins: Admins, scope: str) -> None:
    assert (await admins.ask("PUT", "budgets/each", {"scope": scope, "limit_usd": 1}))[0] == 200
    raised = {"amount_usd": 1, "until": "2100-01-01T00:00:00Z", "reason": "for her", "value": "dev-1"}
    assert (await admins.ask("POST", "budgets/each/raise", raised))[0] == 200
    for role in SECRETS:
        is_told = role != "viewer" or scope == "each_ticket"
        _, told = await admins.ask("GET", "budgets/each", key=SECRETS[role])
        [found] = told["raises"]
        assert (found["value"], found["reason"]) == (("dev-1", "for her") if is_told else (None, None))
        assert told["changes"][-1]["reason"] == ("for her" if is_told else None)
        _, listed = await admins.ask("GET", "budgets", key=SECRETS[role])
        assert listed["budgets"][0]["raises"] == [found]


async def test_accounts_of_what_a_name_was_before_are_not_shown(tmp_path: Path) -> None:
    file, budgets, now = BudgetFile(tmp_path), Budgets(), 1_700_000_000_000_000
    each = file.set("each", BudgetTable(scope="each_user", limit_usd=Decimal(1)), "cli")
    budgets.replace([each])
    call = Call(
        call_id="c", request_id="r", attempt=1, started_us=now, user_id="dev-1", tickets=("PAY-1",), task_id="task-1"
    )
    budgets.post(call, 5)
    assert [account.value for account in budgets.accounts("each")] == ["dev-1"]
    api, asked = (
        BudgetsApi(file, budgets, lambda: now),
        Asked(Principal("k", role="admin"), {"name": "each"}, None, None),
    )
    file.set("each", BudgetTable(scope="each_ticket", limit_usd=Decimal(1)), "cli")
    assert (await api.get_budget(asked)).accounts == [], "the new scope is not in force yet"
    file.set("each", BudgetTable(scope="each_task", limit_usd=Decimal(1)), "cli")
    budgets.replace(file.all())
    budgets.post(call, 5)
    assert [account.value for account in (await api.get_budget(asked)).accounts] == ["task-1"]


async def test_moments_that_no_calendar_has_break_nothing(admins: Admins) -> None:
    late = "9999-12-31T23:59:59-01:00"
    assert await admins.code("POST", "keys", {"expires_at": late}) == (422, "not_possible")
    assert (await admins.ask("PUT", "budgets/a", {"scope": "org", "limit_usd": 1}))[0] == 200
    raised = {"amount_usd": 1, "until": late, "reason": "r"}
    assert await admins.code("POST", "budgets/a/raise", raised) == (422, "not_possible")
    with (admins.dir / "keys.jsonl").open("a") as lines:
        lines.write('{"event":"create","key_id":"key_1","at":253402300800,"expires_at":253402300800}\n')
    with (admins.dir / "budgets.jsonl").open("a") as lines:
        lines.write(
            '{"event":"raise","name":"a","at":253402300800,"by":"x","amount_usd":1,"until":253402300800,"reason":"r"}\n'
        )
    for path in ("keys", "keys/key_1", "budgets", "budgets/a"):
        assert (await admins.ask("GET", path))[0] == 200


async def test_budgets_that_many_change_at_once(admins: Admins) -> None:
    assert (await admins.ask("PUT", "budgets/a", {"scope": "org", "limit_usd": 1}))[0] == 200
    answers = await asyncio.gather(*(admins.ask("DELETE", "budgets/a") for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] + [404] * 7


async def test_a_line_of_another_version_is_said(admins: Admins) -> None:
    assert (await admins.ask("PUT", "budgets/a", {"scope": "org", "limit_usd": 1}))[0] == 200
    await balance(admins, "a")
    with (admins.dir / "budgets.jsonl").open("a") as lines:
        lines.write('{"event":"freeze","name":"a","at":5,"by":"x"}\n')
    for method, path in (("GET", "budgets"), ("DELETE", "budgets/a")):
        assert await admins.code(method, path) == (503, "budgets_unreadable")


async def test_an_issuer_who_is_bound_to_a_user_makes_no_claim_key(admins: Admins) -> None:
    secret = await admins.issuer(user_id="dev-1", team_id="a")
    wanted = {"kind": "claims", "team_id": "a", "user_id": "dev-1"}
    assert await admins.code("POST", "keys", wanted, key=secret) == (403, "forbidden")
    assert (await admins.ask("POST", "keys", {"team_id": "a", "user_id": "dev-1"}, key=secret))[0] == 201


# -- prices ------------------------------------------------------------------------------------------------------------


async def test_prices(admins: Admins) -> None:
    status, told = await admins.ask("GET", "prices?model=gpt-4.1&provider=openai&at=2026-11-01T00:00:00Z")
    assert status == 200
    [standard] = [each for each in told["offers"] if each["service_tier"] == "standard" and each["counts"]]
    assert (standard["usd_per_million"]["input"], standard["usd_per_million"]["output"]) == (2, 8)
    status, told = await admins.ask("GET", "prices?model=gpt-4.11")
    assert (status, "did you mean" in told["error"]["message"]) == (404, True)
    assert (await admins.ask("GET", "prices/policy"))[1]["policy"] == "estimate"
    sent = await admins.code("GET", "prices?model=gpt-4.1&at=0001-01-01T00:00:00%2B14:00")
    assert sent == (422, "not_possible")
