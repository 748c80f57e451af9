"""Who may see the console: holders of an admin key, by the same list as the admin API (`gateway/keys.py`)."""

import time
from collections.abc import Mapping

from gateway import hashing
from gateway.call import Principal
from gateway.config import Config
from gateway.errors import Refusal
from gateway.keys import Keys, NoSuchKeyError

BOUND = "This key is bound to a team or the like; the console shows all teams. Use a key with a role and no bounds."
NO_ROLE = "This key makes calls and has no role. Use one made with `outlay keys create --role viewer` (finops, admin)."
UNKNOWN = "This key is not known here, or has ended."
_BOUNDS = ("team_id", "user_id", "ticket", "purpose", "models", "upstreams", "ticket_policy")


class SignInError(Exception):
    """Why somebody gets in not. The message never holds what was shown."""


def principal_of(ring: Keys, secret: str) -> Principal:
    """Whom a key signs in. Raises `SignInError`."""
    try:
        principal = ring.authenticate(secret)
    except Refusal:
        raise SignInError(UNKNOWN) from None
    if principal.role is None:
        raise SignInError(NO_ROLE)
    if any(getattr(principal, bound) for bound in _BOUNDS):
        raise SignInError(BOUND)
    return principal


def is_in_force(ring: Keys, principal: Principal, proof: str) -> bool:
    """True while the key that somebody signed in with is good: asked for each page."""
    assert principal.key_id is not None
    if principal.key_id.startswith(("config:", "oidc:")):  # they change with a restart, and end with the session
        return True
    try:
        key = ring.one(principal.key_id)
    except NoSuchKeyError:
        return False
    now = time.time()
    return key.state(now) == "active" and any(
        each.digest == proof and (each.until is None or now < each.until) for each in key.secrets
    )


def proof_of(secret: str) -> str:
    return hashing.digest(secret)


def can_anybody_sign_in(ring: Keys, configured: Mapping[str, Principal], config: Config) -> bool:
    """True when somebody could sign in."""
    now = time.time()
    return (
        bool(configured)
        or bool(config.console.oidc.issuer)
        or any(key.created.role is not None and key.state(now) == "active" for key in ring.all())
    )
