"""Sign-in with an identity provider, on real sockets: who gets in as what, and what is believed of nobody."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from yarl import URL

from analytics.web import oidc
from analytics.web.sessions import ATTEMPTS
from gateway.config import OidcSettings
from tests import consoles
from tests.consoles import Viewer, looking
from tests.fakes.identity import Identity, identity, new_key


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Identity]:
    monkeypatch.setenv("OIDC_SECRET", "the-clients-own")
    consoles.set_keys(monkeypatch)
    async with identity() as fake:
        yield fake


def settings(provider: Identity, **more: Any) -> OidcSettings:
    given = {
        "issuer": provider.url, "client_id": "outlay", "client_secret": "env:OIDC_SECRET",
        "roles": {"finance": "finops", "everybody": "viewer", "platform": "admin"},
    }  # fmt: skip
    return OidcSettings(**{**given, **more})


async def follow(viewer: Viewer, path: str = "/sign-in/oidc?next=/spend") -> tuple[int, str, str]:
    """As a browser does: to the provider and back. Status, where it leads, and the page."""
    where = URL(viewer.url + path, encoded=True)
    for _ in range(4):
        async with viewer.session.get(where, allow_redirects=False) as response:
            location = response.headers.get("Location", "")
            if not location.startswith("http") or response.status == 200:
                return response.status, location, await response.text()
            where = URL(location, encoded=True)
    raise AssertionError(where)


async def test_who_comes_back_with_a_role_is_in(empty_lake: Path, provider: Identity) -> None:
    config = consoles.config(empty_lake, (), oidc=settings(provider))
    async with looking(config) as viewer:
        assert "/sign-in/oidc?next=/spend" in await viewer.get("/sign-in?next=/spend")
        status, where, _ = await follow(viewer)
        assert (status, where) == (303, "/spend")
        page = await viewer.get("/nowhere", 404)
        assert "oidc:ada" in page
        assert "finops" in page
        assert [cookie.key for cookie in viewer.session.cookie_jar] == [f"outlay_{viewer.port}_session"]
        assert len(provider.token_requests[0]["code_verifier"]) >= 43
        await viewer.post("/sign-out")
        await viewer.get("/", 303)


async def test_a_client_without_a_secret_proves_itself_with_pkce(empty_lake: Path, provider: Identity) -> None:
    provider.client_secret = None
    async with looking(consoles.config(empty_lake, (), oidc=settings(provider, client_secret=None))) as viewer:
        assert (await follow(viewer))[:2] == (303, "/spend")


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["everybody", "platform", "finance"]}, "admin"),
        ({"groups": "everybody"}, "viewer"),
        ({"groups": ["nobody"]}, None),
        ({"groups": []}, None),
        ({"groups": {"platform": True}}, None),
        ({"groups": [["platform"], 1, None]}, None),
        ({}, None),
    ],
)
def test_roles_are_the_highest_of_those_that_are_mapped(claims: dict[str, Any], role: str | None) -> None:
    mapped = OidcSettings(roles={"finance": "finops", "everybody": "viewer", "platform": "admin"})
    found = oidc.principal_of({"sub": "ada", **claims}, mapped)
    assert (found.role if found else None) == role


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "1", "email": "a@x.example", "email_verified": True}, "a@x.example"),
        ({"sub": "1", "email": "a@x.example", "email_verified": False}, "1"),
        ({"sub": "1", "email": "a@x.example"}, "1"),
        ({"sub": "a\nb\x1b[2J"}, "ab[2J"),
    ],
)
def test_who_is_written_down_is_what_the_provider_vouches_for(claims: dict[str, Any], name: str) -> None:
    assert oidc.name_of(claims) == name


async def test_without_a_role_nobody_is_in(empty_lake: Path, provider: Identity) -> None:
    provider.claims["groups"] = ["nobody"]
    async with looking(consoles.config(empty_lake, (), oidc=settings(provider))) as viewer:
        status, _, page = await follow(viewer)
        assert status == 403
        assert "You have no role here" in page
        await viewer.get("/", 303)


def unsigned(provider: Identity) -> None:
    provider.algorithm, provider.signing_key = "none", ""


def as_hmac_of_the_public_key(provider: Identity) -> None:
    """PyJWT does not sign so: by hand."""
    public = provider.public_pem

    def encode(claims: dict[str, Any], *_: Any, **__: Any) -> str:
        parts = [{"alg": "HS256", "kid": provider.key_id}, claims]
        body = b".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts)
        mark = base64.urlsafe_b64encode(hmac.new(public, body, hashlib.sha256).digest()).rstrip(b"=")
        return (body + b"." + mark).decode()

    provider.encode = encode


def with_claims(**claims: Any) -> Callable[[Identity], None]:
    return lambda provider: provider.claims.update(claims)


def with_answers(**answers: str) -> Callable[[Identity], None]:
    return lambda provider: provider.answers.update(answers)


def with_about(**about: Any) -> Callable[[Identity], None]:
    return lambda provider: provider.about.update(about)


def with_another_key(provider: Identity) -> None:
    provider.signing_key = new_key()


@pytest.mark.parametrize(
    "spoil",
    [
        with_another_key, unsigned, as_hmac_of_the_public_key,
        with_claims(nonce="another"), with_claims(nonce=None), with_claims(aud="another"), with_claims(aud=None),
        with_claims(iss="https://evil.example"), with_claims(exp=int(time.time()) - 3600), with_claims(exp=None),
        with_claims(iat=None), with_claims(sub=None), with_claims(azp="another"),
        with_answers(state="another"), with_answers(code="another"), with_answers(iss="https://evil.example"),
        with_answers(error="access_denied"), with_about(issuer="https://evil.example"),
        with_about(token_endpoint="http://idp.example/token"), with_about(jwks_uri=None),
        with_about(authorization_response_iss_parameter_supported=True),
    ],
)  # fmt: skip
async def test_what_is_not_right_lets_nobody_in(
    empty_lake: Path, provider: Identity, spoil: Callable[[Identity], None]
) -> None:
    spoil(provider)
    async with looking(consoles.config(empty_lake, (), oidc=settings(provider))) as viewer:
        status, _, page = await follow(viewer)
        assert status == 403
        assert "The sign-in failed" in page
        assert "the-clients-own" not in page
        await viewer.get("/", 303)


async def test_a_sign_in_that_another_browser_began_is_none(empty_lake: Path, provider: Identity) -> None:
    """Else somebody could be made to be signed in as another."""
    async with looking(consoles.config(empty_lake, (), oidc=settings(provider))) as viewer:
        async with viewer.session.get(f"{viewer.url}/sign-in/oidc", allow_redirects=False) as response:
            at_provider = response.headers["Location"]
        async with viewer.session.get(URL(at_provider, encoded=True), allow_redirects=False) as response:
            back = response.headers["Location"]
        viewer.session.cookie_jar.clear()
        async with viewer.session.get(URL(back, encoded=True), allow_redirects=False) as response:
            assert response.status == 403
        viewer.session.cookie_jar.update_cookies({f"outlay_{viewer.port}_oidc": "e30=.0000"}, URL(viewer.url))
        async with viewer.session.get(URL(back, encoded=True), allow_redirects=False) as response:
            assert response.status == 403


async def test_new_keys_of_the_provider_are_asked_for(
    empty_lake: Path, provider: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "AGAIN_SECONDS", 0.0)
    async with looking(consoles.config(empty_lake, (), oidc=settings(provider))) as viewer:
        assert (await follow(viewer))[0] == 303
        provider.key, provider.key_id = new_key(), "two"
        assert (await follow(viewer))[0] == 303


async def test_a_provider_that_is_away_is_said_so_and_keeps_nobody_from_signing_in_with_a_key(
    empty_lake: Path, provider: Identity
) -> None:
    away = settings(provider, issuer="http://127.0.0.1:9")
    async with looking(consoles.config(empty_lake, oidc=away)) as viewer:
        for path in ("/sign-in/oidc", f"{oidc.BACK}?state=x") * ATTEMPTS:
            status, _, page = await follow(viewer, path)
            assert status == 403
            assert "does not answer" in page or "was not begun here" in page
        assert await viewer.sign_in(consoles.SECRETS["viewer"]) == "/"


async def test_an_address_in_capitals_is_the_same_one(empty_lake: Path, provider: Identity) -> None:
    config = consoles.config(empty_lake, url="https://Outlay.Example.com", oidc=settings(provider))
    async with (
        looking(config) as viewer,
        viewer.session.get(
            f"http://127.0.0.1:{viewer.port}/sign-in/oidc",
            headers={"Host": "outlay.example.com"},
            allow_redirects=False,
        ) as response,
    ):
        assert response.headers["Location"].startswith(provider.url)


async def test_by_another_name_of_this_machine_it_begins_at_its_own(empty_lake: Path, provider: Identity) -> None:
    async with looking(consoles.config(empty_lake, (), oidc=settings(provider))) as viewer:
        async with viewer.session.get(
            f"{viewer.url}/sign-in/oidc", headers={"Host": f"localhost:{viewer.port}"}, allow_redirects=False
        ) as response:
            assert response.headers["Location"].startswith(f"{viewer.url}/sign-in/oidc?")


def test_signatures_that_a_public_key_could_make_are_not_taken() -> None:
    assert not {each for each in oidc.ALGORITHMS if each.startswith("HS") or each == "none"}
    assert set(oidc.ALGORITHMS) <= set(jwt.algorithms.get_default_algorithms())
