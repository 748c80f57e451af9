"""Every route × every kind of caller × every method, on a gateway with real sockets. The rule stands in
tests/matrix.py, the routes in the code."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from yarl import URL

from gateway import dialects, endpoints
from gateway.config import AdminKey, Auth, Upstream, WorkSettings
from gateway.keys import Keys
from tests import matrix
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import FakeUpstream, whole
from tests.matrix import CALLERS, METHODS, Caller, Place, expected

DOCS = Path(__file__).parent.parent / "docs/threat-model.md"
CONFIGURED = f"olk_configured_{'0123456789abcdef' * 2}"
BODY = json.dumps({"model": "m", "messages": [], "input": "hello", "prompt": "x", "contents": []}).encode()
ANSWER = {"id": "x", "model": "m", "object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 1}}


@dataclass
class Callers:
    """The two gateways, and the key of each kind of caller; `None` = none."""

    gateway: Running
    keys: dict[str, str | None]
    key_id: str

    async def ask(self, place: Place, method: str, caller: Caller) -> tuple[int, str]:
        """The status, and who said it: the provider, or the code of our refusal."""
        key = self.keys[caller.name]
        fields = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        path = matrix.asked(place, self.key_id)
        is_own = place.kind in ("own", "hook", "api")
        url = URL(self.gateway.url + path if is_own else f"{self.gateway.url}/{place.provider}{path}", encoded=True)
        body = None if method in ("GET", "HEAD", "TRACE") else b"not JSON" if is_own else BODY
        async with self.gateway.session.request(method, url, data=body, headers=fields) as response:
            text = await response.text()
            assert key is None or key not in text
            return response.status, response.headers.get("x-outlay-refusal", "")


@pytest.fixture
async def asking(
    start_gateway: StartGateway,
    upstream: FakeUpstream,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callers]:
    monkeypatch.setenv("ADMIN_KEY", CONFIGURED)
    auth = Auth(mode=request.param, admin_keys={"the-admin": AdminKey("env:ADMIN_KEY", "admin")})
    providers = {place.provider for place in matrix.provider_places()} | {"elsewhere"}
    upstreams = {each: Upstream(upstream.url, each, "env:PROVIDER_KEY") for each in providers}
    monkeypatch.setenv("WEBHOOK_SECRET", "secret")
    hooked = {"webhook_secret": "env:WEBHOOK_SECRET"}
    work = msgspec.convert(dict.fromkeys(("github", "gitlab", "jira", "linear"), hooked), WorkSettings)
    async with start_gateway(auth=auth, upstreams=upstreams, work=work) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        ring = Keys(gateway.dir)
        keys: dict[str, str | None] = {caller.name: None for caller in CALLERS}
        for caller in CALLERS:
            if caller.grant is not None and "open" not in caller.name:
                event, keys[caller.name] = ring.create(**caller.grant)
                if caller.name == "revoked":
                    ring.revoke(event.key_id)
        keys |= {"unknown key": "olk_unknown", "admin of the settings": CONFIGURED}
        keys["claim key"] = ring.create_claim_key()[1]
        yield Callers(gateway, keys, ring.create(team_id="t")[0].key_id)


def of_mode(mode: str) -> list[Caller]:
    """An open gateway takes who has no key; who has one is who he is, there and elsewhere."""
    return [caller for caller in CALLERS if ("open" in caller.name) == (mode == "open")]


def meets(status: int, code: str, wanted: str) -> bool:
    if wanted == "yes":
        return status not in (401, 403, 405) and code != "route_unknown"
    return status == int(wanted)


@pytest.mark.parametrize("asking", ["keys", "open"], indirect=True)
async def test_our_own_routes(asking: Callers) -> None:
    by_path: dict[str, dict[str, Place]] = {}
    for place in matrix.own_places():
        by_path.setdefault(place.path, {}).update(dict.fromkeys(place.methods or ("",), place))
    for path, places in by_path.items():
        for caller in of_mode(asking.gateway.config.auth.mode):
            for method in METHODS:
                place = places.get("GET" if method == "HEAD" else method) or next(iter(places.values()))
                wanted = expected(place, method, caller)
                status, code = await asking.ask(place, method, caller)
                assert meets(status, code, wanted), (method, path, caller.name, status, code, wanted)
    assert asking.gateway.upstream.requests == []


@pytest.mark.parametrize("asking", ["keys", "open"], indirect=True)
async def test_routes_of_providers(asking: Callers) -> None:
    for place in matrix.provider_places():
        for caller in of_mode(asking.gateway.config.auth.mode):
            for method in METHODS if caller.name in ("key", "nobody") else place.methods or ("POST",):
                known = dialects.find(method, place.path, place.provider)
                here = Place(place.path, known[1].kind, (method,)) if known else Place(place.path, place.kind, ())
                before = len(asking.gateway.upstream.requests)
                wanted = expected(here, method, caller)
                status, code = await asking.ask(place, method, caller)
                assert meets(status, code, wanted), (method, place.path, caller.name, status, code, wanted)
                sent = asking.gateway.upstream.requests[before:]
                assert len(sent) == (wanted == "yes"), (method, place.path, caller.name, status, code)
                if sent:
                    assert (status, sent[0].method) == (200, method)
                    assert "olk_" not in str(sent[0])


def test_each_route_has_a_path_that_leads_to_it() -> None:
    """Or to one of the same kind that comes before."""
    for place in matrix.provider_places():
        for method in place.methods:
            found = dialects.find(method, place.path, place.provider)
            assert found is not None, place
            assert found[1].kind == place.kind, place


def test_each_access_and_role_has_its_rank() -> None:
    """A new one needs a rule."""
    assert {each.access for each in matrix.declared()} <= matrix.NEEDS.keys()
    assert {None, *endpoints._RANKS} == set(matrix.RANKS)


def test_the_table_in_the_docs_is_the_rule() -> None:
    rows = re.findall(
        r"^\|.*\|$", DOCS.read_text(encoding="utf-8").partition("## Who may ask for what")[2], re.MULTILINE
    )
    assert rows[: len(matrix.table())] == matrix.table(), "\n".join(matrix.table())
