"""An identity provider on a real socket that signs: OpenID Connect's code flow, with PKCE, and what may go wrong."""

import base64
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Identity:
    """Everybody who asks is signed in at once, as whom `claims` say."""

    client_id: str = "outlay"
    client_secret: str | None = "the-clients-own"
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "ada", "groups": ["finance"]})
    about: dict[str, Any] = field(default_factory=dict)
    """In place of what the discovery document says."""
    answers: dict[str, str] = field(default_factory=dict)
    """Parameters of the way back, in place of the right ones."""
    algorithm: str = "RS256"
    key: rsa.RSAPrivateKey = field(default_factory=new_key)
    signing_key: Any = None
    """In place of the one that is published."""
    key_id: str = "one"
    encode: Any = jwt.encode
    url: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    token_requests: list[dict[str, str]] = field(default_factory=list)

    async def discovery(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/keys", **self.about,
            }
        )  # fmt: skip

    async def keys(self, request: web.Request) -> web.Response:
        published = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return web.json_response({"keys": [{**published, "kid": self.key_id, "use": "sig", "alg": "RS256"}]})

    async def authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["client_id"] == self.client_id
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], **self.answers}
        return web.Response(status=302, headers={"Location": f"{asked['redirect_uri']}?{urlencode(back)}"})

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.token_requests.append(form)
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if asked is None or asked["code_challenge"] != challenge.decode() or not self._is_client(request, form):
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert form["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        usual = {"iss": self.url, "aud": self.client_id, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = usual | self.claims
        signed = self.encode(
            {name: value for name, value in claims.items() if value is not None},
            self.key if self.signing_key is None else self.signing_key,
            algorithm=self.algorithm,
            headers={"kid": self.key_id},
        )
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": signed})

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        if self.client_secret is None:
            return form.get("client_id") == self.client_id
        given = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {given}"

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@contextlib.asynccontextmanager
async def identity() -> AsyncIterator[Identity]:
    fake = Identity()
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", fake.discovery), web.get("/keys", fake.keys),
            web.get("/authorize", fake.authorize), web.post("/token", fake.token),
        ]
    )  # fmt: skip
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()
