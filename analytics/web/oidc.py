"""Sign-in with an identity provider: OpenID Connect's code flow, with PKCE.

What begins a sign-in is kept by the browser alone, in a signed cookie, until it comes back. Signatures and claims of
the ID token are checked by PyJWT; keys and addresses are the provider's own, by its discovery document.
"""

import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp
import jwt
import msgspec
from aiohttp import web

from analytics.web import formats, signin
from analytics.web.visit import RANKS, Console, Page, ProblemError, Visit
from gateway.call import Principal, Role
from gateway.config import OidcSettings, is_loopback, secret

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of signatures; none that a public key could make."""
BEGUN_SECONDS, KEPT_SECONDS, AGAIN_SECONDS = 600.0, 3600.0, 60.0
ANSWER_SECONDS, BYTES_MAX, LEEWAY_SECONDS, NAME_MAX = 10.0, 1_000_000, 60, 200
BACK = "/sign-in/oidc/callback"

log = logging.getLogger("outlay.console")


class OidcError(Exception):
    """Why a sign-in failed: for the log, and, without what was sent, for the page."""


class Begun(msgspec.Struct, frozen=True):
    """A sign-in under way, as the browser keeps it."""

    state: str
    nonce: str
    verifier: str
    next: str
    at: float


class Provider:
    """An identity provider, as far as it is known here."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._about: tuple[float, dict[str, Any]] = 0.0, {}
        self._keys: tuple[float, dict[str, Any]] = 0.0, {}

    async def address(self, begun: Begun, back: str) -> str:
        """Where to send a browser that begins. Raises `OidcError`."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode()
        given = {
            "response_type": "code", "client_id": self._settings.client_id, "redirect_uri": back,
            "scope": " ".join(self._settings.scopes), "state": begun.state, "nonce": begun.nonce,
            "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        endpoint = (await self._known())["authorization_endpoint"]
        return formats.onto(endpoint, urlencode(given))

    async def claims(self, begun: Begun, asked: Mapping[str, str], back: str) -> dict[str, Any]:
        """What the provider says of whoever came back. Raises `OidcError`."""
        about = await self._known()
        if "error" in asked:
            raise OidcError("the provider refused it")
        if asked.get("iss", self._settings.issuer) != self._settings.issuer:
            raise OidcError("another provider answered")
        if about.get("authorization_response_iss_parameter_supported") and "iss" not in asked:
            raise OidcError("the answer does not say who gave it")
        token = await self._token(about, asked.get("code", ""), begun.verifier, back)
        return await self._checked(token, begun.nonce)

    async def _token(self, about: Mapping[str, Any], code: str, verifier: str, back: str) -> str:
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        own, fields = secret(self._settings.client_secret or "env:"), {}
        methods = about.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._settings.client_secret is not None and own is None:
            raise OidcError(f"{self._settings.client_secret} is not set")
        if own is not None and "client_secret_basic" in methods:
            pair = f"{quote_plus(self._settings.client_id)}:{quote_plus(own)}"  # as OAuth has it
            fields["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            given |= {"client_id": self._settings.client_id} | ({} if own is None else {"client_secret": own})
        answer = await _asked("POST", about["token_endpoint"], data=given, headers=fields)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OidcError("the answer has no ID token")
        return token

    async def _checked(self, token: str, nonce: str) -> dict[str, Any]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._key(key_id),
                algorithms=ALGORITHMS,
                issuer=self._settings.issuer,
                audience=self._settings.client_id,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError as error:
            raise OidcError(f"the ID token is not good: {type(error).__name__}") from None
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise OidcError("the ID token is for another sign-in")
        if claims.get("azp", self._settings.client_id) != self._settings.client_id:
            raise OidcError("the ID token is for another client")
        return claims

    async def _key(self, key_id: str | None) -> jwt.PyJWK:
        """The provider's key of this id; its keys are asked for again where it is a new one."""
        for is_again in (False, True):
            since, keys = self._keys
            age = time.monotonic() - since
            if not keys or age > KEPT_SECONDS or (is_again and age > AGAIN_SECONDS):
                keys = await _asked("GET", (await self._known())["jwks_uri"])
                self._keys = time.monotonic(), keys
            found = [
                each for each in jwt.PyJWKSet.from_dict(keys).keys
                if each.public_key_use in (None, "sig") and (key_id is None or each.key_id == key_id)
            ]  # fmt: skip
            if len(found) == 1:
                return found[0]
        raise OidcError("the ID token names no key of the provider")

    async def _known(self) -> dict[str, Any]:
        """The discovery document."""
        since, about = self._about
        if about and time.monotonic() - since < KEPT_SECONDS:
            return about
        about = await _asked("GET", f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        if about.get("issuer") != self._settings.issuer:
            raise OidcError("the provider calls itself by another name than [console.oidc] issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not _is_safe(about.get(name)):
                raise OidcError(f"the provider's {name} is no https:// address")
        self._about = time.monotonic(), about
        return about


def _is_safe(address: Any) -> bool:
    parts = urlsplit(address if isinstance(address, str) else "")
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


async def _asked(method: str, address: str, **more: Any) -> dict[str, Any]:
    """An object of the provider. Raises `OidcError`."""
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    where = urlsplit(address).hostname
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, headers={"Accept": "application/json"}) as session,
            session.request(method, address, allow_redirects=False, **more) as response,
        ):
            if response.status != 200:
                raise OidcError(f"{where} answered {response.status}")
            body = await response.content.read(BYTES_MAX + 1)
            while len(body) <= BYTES_MAX and (piece := await response.content.read(BYTES_MAX)):
                body += piece
            if len(body) > BYTES_MAX:
                raise OidcError(f"{where} answered too much")
            answer = msgspec.json.decode(body)
    except (TimeoutError, aiohttp.ClientError, OSError):
        raise OidcError(f"{where} does not answer") from None
    except msgspec.DecodeError:
        raise OidcError(f"{where} answered what is no JSON") from None
    if not isinstance(answer, dict):
        raise OidcError(f"{where} answered what is no object")
    return answer


# -- who it is --------------------------------------------------------------------------------------------------------


def principal_of(claims: Mapping[str, Any], settings: OidcSettings) -> Principal | None:
    """With the highest of the roles that the claim gives; `None` where it gives none."""
    said = claims.get(settings.role_claim)
    values = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    roles: list[Role] = [
        settings.roles[value] for value in values if isinstance(value, str) and value in settings.roles
    ]
    if not roles:
        return None
    return Principal(f"oidc:{name_of(claims)}", role=max(roles, key=lambda role: RANKS[role]))


def name_of(claims: Mapping[str, Any]) -> str:
    """For the audit trail: a verified e-mail address, else the provider's own name for somebody."""
    email = claims.get("email")
    name = email if isinstance(email, str) and email and claims.get("email_verified") is True else str(claims["sub"])
    return "".join(letter for letter in name if letter.isprintable())[:NAME_MAX]


# -- pages ------------------------------------------------------------------------------------------------------------


def _signed(console: Console, begun: Begun) -> str:
    body = base64.urlsafe_b64encode(msgspec.json.encode(begun)).decode()
    return f"{body}.{_mark(console, body)}"


def _mark(console: Console, body: str) -> str:
    return hmac.new(console.secret, b"oidc:" + body.encode(), "sha256").hexdigest()


def _begun(console: Console, cookie: str) -> Begun | None:
    body, _, mark = cookie.rpartition(".")
    if not body or not hmac.compare_digest(_mark(console, body).encode(), mark.encode()):
        return None
    begun = msgspec.json.decode(base64.urlsafe_b64decode(body), type=Begun)
    return begun if time.time() - begun.at < BEGUN_SECONDS else None


def _provider(visit: Visit) -> Provider:
    provider: Provider | None = visit.console.provider
    if provider is None:
        raise ProblemError(404, "There is no such sign-in", "No identity provider is set: [console.oidc].")
    return provider


async def begin(visit: Visit) -> web.Response:
    provider, console = _provider(visit), visit.console
    wanted = signin.after(visit.request.query.get("next"))
    # Cookies are by name, and the provider calls back by ours.
    if visit.request.headers.get("Host", "").lower() != urlsplit(console.url).netloc.lower():
        raise web.HTTPSeeOther(f"{console.url}/sign-in/oidc?{urlencode({'next': wanted})}")
    begun = Begun(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64), wanted, time.time())
    try:
        where = await provider.address(begun, console.url + BACK)
    except OidcError as error:
        raise _failed(error) from None
    response = web.Response(status=303, headers={"Location": where})
    signin.put_cookie(console, response, "oidc", _signed(console, begun), int(BEGUN_SECONDS))
    return response


async def back(visit: Visit) -> web.Response:
    provider, console, asked = _provider(visit), visit.console, visit.request.query
    begun = _begun(console, signin.cookie(console, visit.request, "oidc"))
    if begun is None or not hmac.compare_digest(begun.state.encode(), asked.get("state", "").encode()):
        raise _failed(OidcError("it was not begun here, or too long ago"))
    try:
        claims = await provider.claims(begun, asked, console.url + BACK)
    except OidcError as error:
        raise _failed(error) from None
    principal = principal_of(claims, console.config.console.oidc)
    if principal is None:
        log.warning("%s signed in without a role", name_of(claims))
        text = f"No value of “{console.config.console.oidc.role_claim}” has one in [console.oidc] roles. Ask an admin."
        raise ProblemError(403, "You have no role here", text)
    response = signin.let_in(visit, principal, principal.key_id or "", "", begun.next)
    signin.drop_cookie(console, response, "oidc")
    return response


def _failed(error: OidcError) -> ProblemError:
    log.warning("a sign-in with the identity provider failed: %s", error)
    return ProblemError(403, "The sign-in failed", f"Reason: {error}. Begin again from the sign-in page.")


PAGES = [
    Page("GET", "/sign-in/oidc", "anybody", begin),
    Page("GET", BACK, "anybody", back),
]
