"""Gateway keys. Only SHA-256 digests are stored, in `keys.jsonl`: an append-only list of creations and revocations
that is also the audit trail. Another process's change is in force with the next call.

A key is 256 random bits, so a plain digest is safe; it is looked up by digest and compared in constant time. Claim
keys are in the same list: of them only the public half is stored.
"""

import fnmatch
import hmac
import os
import secrets
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway import claims, hashing
from gateway.call import Principal, TicketPolicy
from gateway.errors import Refusal, UserError

PREFIX = "olk_"


class KeyEvent(msgspec.Struct, omit_defaults=True):
    """One line of `keys.jsonl`. Times are whole seconds since the epoch, UTC."""

    event: Literal["create", "revoke"]
    key_id: str
    at: int
    digest: str | None = None
    public_key: str | None = None
    """Of a claim key, which signs claims and opens nothing."""
    name: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    ticket: str | None = None
    ticket_policy: TicketPolicy | None = None
    purpose: str | None = None
    models: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    expires_at: int | None = None


class Key(msgspec.Struct):
    """A key as it stands now."""

    created: KeyEvent
    revoked_at: int | None = None

    def state(self, now: float) -> Literal["active", "revoked", "expired"]:
        if self.revoked_at is not None:
            return "revoked"
        expires = self.created.expires_at
        return "expired" if expires is not None and now >= expires else "active"


class Keys:
    """The keys of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "keys.jsonl"
        self._seen: tuple[int, int, int] | None = None
        self._by_id: dict[str, Key] = {}
        self._by_digest: dict[str, Key] = {}

    def authenticate(self, secret: str | None) -> Principal:
        """The principal of a presented key. Raises the refusal `unauthenticated`."""
        self.refresh()
        if secret is None:
            raise Refusal(
                "unauthenticated",
                "Outlay: this call carries no gateway key. Use a key that starts with olk_ as the API key, or send it "
                "in the x-outlay-key header. An administrator makes one with `outlay keys create`.",
            )
        presented = hashing.digest(secret)
        key = self._by_digest.get(presented)
        if key is None or key.created.digest is None or not hmac.compare_digest(key.created.digest, presented):
            raise Refusal("unauthenticated", "Outlay: this gateway key is not known here. Ask your administrator.")
        state = key.state(time.time())
        if state != "active":
            raise Refusal(
                "unauthenticated", f"Outlay: the gateway key {key.created.key_id} is {state}. Ask for a new one."
            )
        made = key.created
        return Principal(
            made.key_id, made.user_id, made.team_id, made.ticket, made.purpose, made.models, made.upstreams,
            ticket_policy=made.ticket_policy, fingerprint=presented[: claims.FINGERPRINT_DIGITS],
            expires_at=made.expires_at,
        )  # fmt: skip

    def claim_key(self, key_id: str) -> tuple[str, str | None] | None:
        """Public half and team of a claim key that is in force."""
        self.refresh()
        key = self._by_id.get(key_id)
        if key is None or key.created.public_key is None or key.state(time.time()) != "active":
            return None
        return key.created.public_key, key.created.team_id

    def refresh(self) -> None:
        """Read the file again when it changed. One `stat` when it did not."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            self._seen, self._by_id, self._by_digest = None, {}, {}
            return
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen == self._seen:
            return
        by_id: dict[str, Key] = {}
        for line in self._file.read_bytes().splitlines():
            try:
                event = msgspec.json.decode(line, type=KeyEvent)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # a line torn by a crash: its command never reported success
            if event.event == "create":
                by_id[event.key_id] = Key(event)
            elif event.key_id in by_id:
                by_id[event.key_id].revoked_at = event.at
        self._by_id = by_id
        self._by_digest = {key.created.digest: key for key in by_id.values() if key.created.digest}
        self._seen = seen

    def all(self) -> list[Key]:
        self.refresh()
        return list(self._by_id.values())

    def create(self, **grant: Any) -> tuple[KeyEvent, str]:
        """Make a key with the given fields of `KeyEvent`. Returns its record and the secret, which is kept nowhere."""
        secret = PREFIX + secrets.token_urlsafe(32)
        return self._created(secrets.token_hex(6), digest=hashing.digest(secret), **grant), secret

    def create_claim_key(self, **grant: Any) -> tuple[KeyEvent, str]:
        """The same for a key that signs claims."""
        name = secrets.token_hex(6)
        secret, public = claims.new_key(name)
        return self._created(name, public_key=public, **grant), secret

    def _created(self, name: str, /, **grant: Any) -> KeyEvent:
        event = KeyEvent(event="create", key_id=f"key_{name}", at=int(time.time()), **grant)
        self._append(event)
        return event

    def revoke(self, key_id: str) -> KeyEvent:
        """Revoke a key. Raises `UserError` when there is no such active key."""
        self.refresh()
        key = self._by_id.get(key_id)
        if key is None:
            raise UserError(f"there is no key {key_id}; `outlay keys list` shows them")
        if key.revoked_at is not None:
            raise UserError(f"key {key_id} is revoked already")
        event = KeyEvent(event="revoke", key_id=key_id, at=int(time.time()))
        self._append(event)
        return event

    def _append(self, event: KeyEvent) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, (b"\n" if torn else b"") + msgspec.json.encode(event) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)


def check_upstream(principal: Principal, upstream: str) -> None:
    """Raises the refusal `forbidden` when the key may not use this upstream."""
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
