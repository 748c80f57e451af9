"""Gateway keys. Only SHA-256 digests are stored, in `keys.jsonl`: an append-only list of what was done to keys, and so
the audit trail. Another process's change is in force with the next call.

A key is 256 random bits, so a plain digest is safe; it is looked up by digest and compared in constant time. Claim
keys are in the same list: of them only the public half is stored. Keys of the settings (`[auth.admin_keys]`) are known
here as well, and change with the settings alone.
"""

import fnmatch
import hmac
import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from gateway import claims, grants, hashing, lines
from gateway.call import Principal
from gateway.config import Auth, secret
from gateway.errors import Refusal, UserError
from gateway.grants import Grant
from gateway.reading import child, count, text, tidied

log = logging.getLogger("outlay")

PREFIX = "olk_"
OVERLAP_SECONDS = 24 * 3600
OVERLAP_SECONDS_MAX = 30 * 24 * 3600
MOMENT_MAX = 253_402_300_799
"""The last second of the year 9999, UTC: later ones have no calendar."""
CLI = "cli"
"""Who issues keys at the command line: whoever may write to the data folder, and so without limits."""


class KeyEvent(Grant, omit_defaults=True, kw_only=True):
    """One line of `keys.jsonl`. Times are whole seconds since the epoch, UTC."""

    event: Literal["create", "rotate", "revoke"]
    key_id: str
    at: int
    by: str | None = None
    """The key_id of the issuer, or `cli`; `None` in files from before it was kept."""
    digest: str | None = None
    public_key: str | None = None
    """Of a claim key, which signs claims and opens nothing."""
    expires_at: int | None = None
    old_until: int | None = None
    """Of a rotation: until when the secret before works beside the new one."""


class Secret(NamedTuple):
    """A secret of a key, by its digest."""

    digest: str
    until: int | None = None
    """When it was, or will be, rotated out."""


class Key(msgspec.Struct):
    """A key as it stands now."""

    created: KeyEvent
    events: list[KeyEvent]
    secrets: list[Secret] = []
    """The newest last; no more than two work at a time."""
    revoked_at: int | None = None

    def state(self, now: float) -> Literal["active", "revoked", "expired"]:
        if self.revoked_at is not None:
            return "revoked"
        expires = self.created.expires_at
        return "expired" if expires is not None and now >= expires else "active"

    def old_until(self, now: float) -> int | None:
        """Until when the secret before the last rotation works; `None` when it does not."""
        return max((secret.until for secret in self.secrets if secret.until and secret.until > now), default=None)

    def rotated(self, event: KeyEvent) -> None:
        ends = [event.at] * (len(self.secrets) - 1) + [event.at if event.old_until is None else event.old_until]
        self.secrets = [
            Secret(secret.digest, end if secret.until is None else min(secret.until, end))
            for secret, end in zip(self.secrets, ends, strict=True)
        ]


class Change(msgspec.Struct):
    """One line of the audit trail."""

    at: datetime
    event: Literal["create", "rotate", "revoke"]
    key_id: str
    by: str | None


class KeyInfo(Grant, kw_only=True):
    """A key as it is shown: never with a secret or a digest."""

    key_id: str
    kind: Literal["calls", "claims"]
    state: Literal["active", "revoked", "expired"]
    created_at: datetime
    by: str | None
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    old_secret_until: datetime | None = None
    revoked_at: datetime | None = None


class Rotated(NamedTuple):
    """What a rotation did."""

    key: Key
    secret: str
    ended: int | None
    """A secret from before the last rotation, which would have worked until then, has ended now."""


class NoSuchKeyError(UserError):
    """There is no key of this id."""


class KeyStateError(UserError):
    """The key is not in a state for that."""


class Keys:
    """The keys of one data folder, and those of the settings by their digests."""

    def __init__(self, data_dir: Path, configured: Mapping[str, Principal] | None = None) -> None:
        self._file = data_dir / "keys.jsonl"
        self._name = str(self._file)
        self._configured = configured or {}
        self._by_id: dict[str, Key] = {}
        self._by_digest: dict[str, tuple[Key, Secret]] = {}
        self._principals: dict[str, tuple[Principal, float]] = {}
        """Of secrets that were presented, by their digests, and until when each opens. Another one when something was
        read: what was judged before that, in whatever thread, stays in the old one."""
        self._seen: tuple[int, int, int] | None = None
        self._read_to = 0
        self._lines = 0
        """How many were read."""
        self._events: list[KeyEvent] = []
        self._problem: str | None = None
        """Why the file cannot be read, as the log was told."""
        self._lock = threading.Lock()
        """Of reading: changes are made in threads."""

    # -- who is it? ---------------------------------------------------------------------------------------------------

    def authenticate(self, secret: str | None) -> Principal:
        """The principal of a presented key. Raises the refusal `unauthenticated`."""
        self.refresh()
        return self.of_digest(None if secret is None else hashing.digest(secret))

    def of_digest(self, presented: str | None) -> Principal:
        """The same by the key's digest, as of the last `refresh`."""
        if presented is None:
            raise Refusal(
                "unauthenticated",
                "Outlay: this call carries no gateway key. Use a key that starts with olk_ as the API key, or send it "
                "in the x-outlay-key header. An administrator makes one with `outlay keys create`.",
            )
        principals, now = self._principals, time.time()
        if (found := principals.get(presented)) is not None and now < found[1]:
            return found[0]
        key, known = self._by_digest.get(presented, (None, None))
        if key is None or known is None or not hmac.compare_digest(known.digest, presented):
            return self._of_settings(presented)
        made, state = key.created, key.state(now)
        if state != "active":
            raise Refusal("unauthenticated", f"Outlay: the gateway key {made.key_id} is {state}. Ask for a new one.")
        if known.until is not None and now >= known.until:
            raise Refusal(
                "unauthenticated", f"Outlay: the gateway key {made.key_id} has a new secret, and this one has ended."
            )
        principal = Principal(
            made.key_id, made.user_id, made.team_id, made.ticket, made.purpose, made.models, made.upstreams,
            ticket_policy=made.ticket_policy, fingerprint=presented[: claims.FINGERPRINT_DIGITS],
            expires_at=made.expires_at, role=made.role,
        )  # fmt: skip
        ends = [each for each in (made.expires_at, known.until) if each is not None]
        principals[presented] = principal, min(ends, default=math.inf)
        return principal

    def _of_settings(self, presented: str) -> Principal:
        for digest, principal in self._configured.items():
            if hmac.compare_digest(digest, presented):
                return principal
        raise Refusal("unauthenticated", "Outlay: this gateway key is not known here. Ask your administrator.")

    def claim_key(self, key_id: str) -> tuple[str, str | None] | None:
        """Public half and team of a claim key that is in force."""
        self.refresh()
        key = self._by_id.get(key_id)
        if key is None or key.created.public_key is None or key.state(time.time()) != "active":
            return None
        return key.created.public_key, key.created.team_id

    def refresh(self) -> None:
        """`load`; where the file cannot be read, what was read before counts on, and the log says so once."""
        try:
            self.load()
            self._problem = None
        except OSError as error:
            if error.strerror != self._problem:
                log.error("%s cannot be read: %s; the keys stay as they were", self._file, error.strerror)
            self._problem = error.strerror

    def load(self) -> None:
        """Read what the file has gained. One `stat` when it did not change. Raises `OSError`."""
        if lines.mark(self._name) != self._seen:
            with self._lock:
                seen = self._read(lines.mark(self._file))
                self._principals = {}
                self._seen = seen  # last: whoever finds it so has the principals of now

    def _read(self, now: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if now is None:
            self._by_id, self._by_digest, self._events, self._read_to, self._lines = {}, {}, [], 0, 0
            return None
        is_same = self._seen is not None and self._seen[0] == now[0] and self._read_to <= now[1]
        by_id, by_digest, events = (self._by_id, self._by_digest, self._events) if is_same else ({}, {}, [])
        start, number = (self._read_to, self._lines) if is_same else (0, 0)
        with self._file.open("rb") as file:
            file.seek(start)
            gained = file.read()
        gained = gained[: gained.rfind(b"\n") + 1]  # what follows is being written
        for key in _folded(gained, number, by_id, events):
            by_digest.update((secret.digest, (key, secret)) for secret in key.secrets)
        self._by_id, self._by_digest, self._events = by_id, by_digest, events
        self._read_to, self._lines = start + len(gained), number + gained.count(b"\n")
        return now

    def all(self) -> list[Key]:
        self.refresh()
        return list(self._by_id.values())

    def one(self, key_id: str) -> Key:
        """Raises `NoSuchKeyError`."""
        self.refresh()
        key = self._by_id.get(key_id)
        if key is None:
            raise NoSuchKeyError(f"there is no key {key_id}; `outlay keys list` shows them")
        return key

    def log(self) -> list[Change]:
        """Every change there was, as written: the oldest first."""
        self.refresh()
        return [_change(event) for event in self._events]

    # -- changes ------------------------------------------------------------------------------------------------------

    def create(self, by: str = CLI, /, **grant: Any) -> tuple[KeyEvent, str]:
        """Make a key with the given fields of `KeyEvent`. Returns its record and the secret, which is kept nowhere."""
        secret = _new_secret()
        return self._created(secrets.token_hex(6), by, digest=hashing.digest(secret), **grant), secret

    def create_claim_key(self, by: str = CLI, /, **grant: Any) -> tuple[KeyEvent, str]:
        """The same for a key that signs claims."""
        name = secrets.token_hex(6)
        secret, public = claims.new_key(name)
        return self._created(name, by, public_key=public, **grant), secret

    def _created(self, name: str, by: str, /, **grant: Any) -> KeyEvent:
        event = KeyEvent(event="create", key_id=f"key_{name}", at=int(time.time()), by=by, **grant)
        grants.check(event)
        if event.expires_at is not None and event.expires_at > MOMENT_MAX:
            raise UserError("expires_at must be before the year 10000, in UTC; leave it out for a key that never ends")
        lines.append(self._file, lambda: event)
        return event

    def rotate(self, key_id: str, overlap: int = OVERLAP_SECONDS, by: str = CLI) -> Rotated:
        """Give a key a new secret; the one before works for `overlap` more seconds.

        Raises `NoSuchKeyError`, and `KeyStateError` for a claim key or one that is not in force.
        """
        secret = _new_secret()
        ended: int | None = None

        def decide() -> KeyEvent:
            nonlocal ended
            key, now = self.one(key_id), int(time.time())
            if key.created.public_key is not None:
                raise KeyStateError(f"{key_id} is a claim key: make another one, and revoke this when it is in use")
            if (state := key.state(now)) != "active":
                raise KeyStateError(f"key {key_id} is {state}: make another one")
            ended = key.old_until(now)
            digest = hashing.digest(secret)
            return KeyEvent(event="rotate", key_id=key_id, at=now, by=by, digest=digest, old_until=now + overlap)

        lines.append(self._file, decide)
        return Rotated(self.one(key_id), secret, ended)

    def revoke(self, key_id: str, by: str = CLI) -> Key:
        """Revoke a key. Raises `NoSuchKeyError`, and `KeyStateError` when it is revoked already."""

        def decide() -> KeyEvent:
            if self.one(key_id).revoked_at is not None:
                raise KeyStateError(f"key {key_id} is revoked already")
            return KeyEvent(event="revoke", key_id=key_id, at=int(time.time()), by=by)

        lines.append(self._file, decide)
        return self.one(key_id)


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _folded(gained: bytes, before: int, keys: dict[str, Key], events: list[KeyEvent]) -> Iterator[Key]:
    """Take lines into the keys that there are, and into all events; the keys that they changed. `before`: how many
    lines came before. A key with a line that cannot be understood is revoked: what it says may be just that."""
    for number, line in enumerate(gained.split(b"\n")[:-1], before + 1):
        try:
            event = lines.read(line, KeyEvent)
        except ValueError as error:
            log.error("keys.jsonl: line %d %s; its key counts as revoked", number, error)
            told = child(msgspec.json.decode(tidied(line)))
            if (key := keys.get(text(told.get("key_id")) or "")) is not None and key.revoked_at is None:
                key.revoked_at = count(told.get("at")) or key.created.at
            continue
        if event is None:
            continue
        if event.event == "create":
            keys[event.key_id] = Key(event, [])
        if (key := keys.get(event.key_id)) is None:
            continue
        events.append(event)
        key.events.append(event)
        if event.event == "revoke":
            key.revoked_at = event.at
        elif event.event == "rotate":
            key.rotated(event)
        if event.digest is not None:
            key.secrets = [*key.secrets, Secret(event.digest)]
        yield key


ADMIN_KEY = re.compile(r"olk_[\x21-\x7e]{32,}")


def of_settings(auth: Auth) -> dict[str, Principal]:
    """Who holds the admin keys of the settings, by digest; without those that are not set. Raises `UserError`."""
    found: dict[str, Principal] = {}
    for name, admin in auth.admin_keys.items():
        if (value := secret(admin.key)) is None:
            continue
        if not ADMIN_KEY.fullmatch(value):
            raise UserError(
                f"[auth.admin_keys.{name}] the key behind {admin.key} must be olk_ and at least 32 more characters, as "
                'made by: echo "olk_$(openssl rand -hex 32)"'
            )
        if (digest := hashing.digest(value)) in found:
            raise UserError(f"[auth.admin_keys.{name}] has the key of another name: each needs its own")
        found[digest] = Principal(f"config:{name}", role=admin.role)
    return found


# -- what is shown ----------------------------------------------------------------------------------------------------


def info(key: Key, now: float) -> KeyInfo:
    made = key.created
    rotations = [event.at for event in key.events if event.event == "rotate"]
    return KeyInfo(
        **{field: getattr(made, field) for field in Grant.__struct_fields__},
        key_id=made.key_id,
        kind="claims" if made.public_key else "calls",
        state=key.state(now),
        created_at=moment(made.at),
        by=made.by,
        expires_at=_moment(made.expires_at),
        rotated_at=_moment(max(rotations, default=None)),
        old_secret_until=_moment(key.old_until(now)),
        revoked_at=_moment(key.revoked_at),
    )


def changes(key: Key) -> list[Change]:
    return [_change(event) for event in key.events]


def _change(event: KeyEvent) -> Change:
    return Change(moment(event.at), event.event, event.key_id, event.by)


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(max(0, min(at, MOMENT_MAX)), UTC)


def _moment(at: int | None) -> datetime | None:
    return None if at is None else moment(at)


# -- what a key may be used for ---------------------------------------------------------------------------------------


def check_upstream(principal: Principal, upstream: str) -> None:
    """Raises the refusal `forbidden` when the key may not use this upstream."""
    if principal.role is not None:
        raise Refusal(
            "forbidden",
            f"Outlay: the key {principal.key_id} has the role {principal.role}: it opens the admin API and no "
            "provider. Use a key without a role for calls.",
        )
    if principal.upstreams and upstream not in principal.upstreams:
        allowed = ", ".join(principal.upstreams)
        raise Refusal(
            "forbidden", f"Outlay: the key {principal.key_id} may not use the upstream {upstream}, only {allowed}."
        )


def may_use(principal: Principal, model: str | None) -> bool:
    """True for a model that the key may use."""
    return not principal.models or any(fnmatch.fnmatchcase(model or "", glob) for glob in principal.models)


def check_model(principal: Principal, model: str | None) -> None:
    """Raises the refusal `forbidden` when the key may not use this model."""
    if not may_use(principal, model):
        allowed = ", ".join(principal.models)
        raise Refusal("forbidden", f"Outlay: the key {principal.key_id} may not use this model, only {allowed}.")
