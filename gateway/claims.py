"""Signed claims: who made a call vouches for its ticket, and the gateway can tell without asking anybody.

A claim is a JWT (RFC 7519) signed with Ed25519 (RFC 8037), sent as `x-outlay-claim` with each call of a run. It names
tickets, is bound to a repository and a branch, to the gateway key it is sent with, and ends. Its claim key is a secret
of the signer; here only the public half is kept (`outlay keys create --claims`).

A claim is good for many calls until it ends: what keeps a stolen one from being used is that the thief needs the
gateway key as well.
"""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Literal, cast

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway import hashing
from gateway.errors import UserError

PREFIX = "olc_"
LIFETIME_SECONDS = 12 * 3600
LIFETIME_MAX_SECONDS = 7 * 24 * 3600
CLAIM_MAX = 4096
LEEWAY_SECONDS = 60
"""How far the signer's clock may be off."""
REMEMBERED = 1024
FINGERPRINT_DIGITS = 16
"""Of the digest of a gateway key."""
ALGORITHM = "EdDSA"

ClaimReason = Literal[
    "malformed", "unknown_claim_key", "bad_signature", "expired", "not_yet", "too_long_lived", "other_key",
    "other_team", "other_repo", "other_branch",
]  # fmt: skip
"""Why a claim is no evidence."""


class ClaimError(Exception):
    """A claim that is no evidence."""

    def __init__(self, reason: ClaimReason) -> None:
        super().__init__(reason)
        self.reason: ClaimReason = reason


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is claimed. Times are whole seconds since the epoch, UTC."""

    tickets: tuple[str, ...]
    issued_at: int
    expires_at: int
    repo: str | None = None
    branch: str | None = None
    key: str | None = None
    """`fingerprint` of the gateway key that may use it; `None` only where no keys are used."""
    team: str | None = None
    """Only calls of this team; by the claim key, not by the claim."""


def fingerprint(secret: str) -> str:
    """Stands for a gateway key in a claim."""
    return hashing.digest(secret)[:FINGERPRINT_DIGITS]


def new_key(name: str) -> tuple[str, str]:
    """A new claim key, of the id `key_NAME`, and its public half, which is all that is kept."""
    private = Ed25519PrivateKey.generate()
    secret = f"{PREFIX}{name}_{_encode(private.private_bytes_raw())}"
    return secret, _encode(private.public_key().public_bytes_raw())


def sign(claim_key: str, claim: Claim) -> str:
    """The claim as a header value. Raises `UserError` when the claim key is none."""
    name, _, seed = claim_key.removeprefix(PREFIX).partition("_")
    try:
        if not claim_key.startswith(PREFIX):  # a gateway key would do as one that nobody knows
            raise ValueError
        private = Ed25519PrivateKey.from_private_bytes(_decode(seed))
    except ValueError:
        raise UserError(
            "the claim key is not one: it starts with olc_ and is shown once by `outlay keys create --claims`"
        ) from None
    payload: dict[str, Any] = {
        "iat": claim.issued_at,
        "exp": claim.expires_at,
        "tickets": claim.tickets,
        "repo": claim.repo,
        "branch": claim.branch,
        "key": claim.key,
    }
    return jwt.encode(payload, private, algorithm=ALGORITHM, headers={"kid": f"key_{name}"})


class Claims:
    """Verifies claims. `public_key` gives the public half and the team of a claim key that is in force, by its id."""

    def __init__(
        self, public_key: Callable[[str], tuple[str, str | None] | None], clock: Callable[[], float] = time.time
    ):
        self._public_key = public_key
        self._clock = clock
        self._verified: dict[str, tuple[str, str, Claim]] = {}
        """Claims by what was sent, with id and public half of the key that signed: tools send one with each call."""

    def verify(self, sent: str) -> Claim:
        """What is claimed, if it is signed and in force. Raises `ClaimError`."""
        if len(sent) > CLAIM_MAX:
            raise ClaimError("malformed")
        known = self._verified.get(sent)
        key_id = known[0] if known else _key_id(sent)
        found = self._public_key(key_id)
        if found is None:
            raise ClaimError("unknown_claim_key")
        public, team = found
        if known is None or known[1] != public:
            known = key_id, public, _read(sent, public)
            if len(self._verified) >= REMEMBERED:
                self._verified.clear()
            self._verified[sent] = known
        claim, now = known[2], self._clock()
        if now >= claim.expires_at + LEEWAY_SECONDS:
            raise ClaimError("expired")
        if now < claim.issued_at - LEEWAY_SECONDS:
            raise ClaimError("not_yet")
        return msgspec.structs.replace(claim, team=team)


def check(claim: Claim, key: str | None, team: str | None, repo: str | None, branch: str | None) -> None:
    """A claim counts only where it was made for: this gateway key (its fingerprint; `None` where no keys are used), and
    whatever repository and branch the request shows. Raises `ClaimError`."""
    if key is not None and claim.key != key:
        raise ClaimError("other_key")
    if claim.team is not None and claim.team != team:
        raise ClaimError("other_team")
    if claim.repo is not None and repo is not None and claim.repo != repo:
        raise ClaimError("other_repo")
    if claim.branch is not None and branch is not None and claim.branch != branch:
        raise ClaimError("other_branch")


def _key_id(sent: str) -> str:
    try:
        return str(jwt.get_unverified_header(sent)["kid"])
    except (jwt.InvalidTokenError, KeyError, UnicodeError, RecursionError):
        raise ClaimError("malformed") from None


class _Payload(msgspec.Struct):
    iat: int
    exp: int
    tickets: tuple[str, ...]
    repo: str | None = None
    branch: str | None = None
    key: str | None = None


def _read(sent: str, public: str) -> Claim:
    try:
        key = Ed25519PublicKey.from_public_bytes(_decode(public))
        # The times are ours to judge: a claim is read once and used often.
        unjudged = {"require": ["iat", "exp"], "verify_exp": False, "verify_iat": False}
        payload = msgspec.convert(jwt.decode(sent, key, [ALGORITHM], cast(Any, unjudged)), _Payload)
    except jwt.InvalidSignatureError:
        raise ClaimError("bad_signature") from None
    except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError, RecursionError):
        raise ClaimError("malformed") from None
    if payload.exp - payload.iat > LIFETIME_MAX_SECONDS:
        raise ClaimError("too_long_lived")
    return Claim(
        tickets=payload.tickets,
        issued_at=payload.iat,
        expires_at=payload.exp,
        repo=payload.repo,
        branch=payload.branch,
        key=payload.key,
    )


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
