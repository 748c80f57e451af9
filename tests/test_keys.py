"""Gateway keys: only digests on disk, revocation in force at once, a torn file survives."""

from pathlib import Path

import pytest

from gateway import hashing
from gateway.errors import Refusal, UserError
from gateway.keys import Keys


def refused(ring: Keys, secret: str | None) -> str:
    with pytest.raises(Refusal) as error:
        ring.authenticate(secret)
    assert error.value.code == "unauthenticated"
    assert secret is None or secret not in error.value.message
    return error.value.message


def test_create_authenticate_revoke_across_processes(tmp_path: Path) -> None:
    gateway, admin = Keys(tmp_path), Keys(tmp_path)
    event, secret = admin.create(team_id="payments", user_id="dev-1", ticket="PAY-1", models=("gpt-*",))
    principal = gateway.authenticate(secret)
    assert (principal.key_id, principal.team_id, principal.ticket) == (event.key_id, "payments", "PAY-1")
    admin.revoke(event.key_id)
    assert "is revoked" in refused(gateway, secret)


def test_only_the_digest_is_stored(tmp_path: Path) -> None:
    _, secret = Keys(tmp_path).create()
    assert secret.startswith("olk_")
    content = (tmp_path / "keys.jsonl").read_text()
    assert secret not in content
    assert hashing.digest(secret) in content
    assert (tmp_path / "keys.jsonl").stat().st_mode & 0o077 == 0


def test_strangers(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    assert "outlay keys create" in refused(ring, None)
    assert "not known" in refused(ring, "olk_guess")
    event, _ = ring.create()
    assert "not known" in refused(ring, event.key_id)


def test_expiry(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    _, old = ring.create(expires_at=1)
    assert "expired" in refused(ring, old)


def test_a_torn_line_hides_no_other_key(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    _, first = ring.create(team_id="a")
    with (tmp_path / "keys.jsonl").open("ab") as file:
        file.write(b'{"event":"create","key_id":"key_to')
    _, second = ring.create(team_id="b")
    assert Keys(tmp_path).authenticate(first).team_id == "a"
    assert Keys(tmp_path).authenticate(second).team_id == "b"


def test_revoking_what_is_not_there(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    with pytest.raises(UserError, match="there is no key"):
        ring.revoke("key_nope")
    event, _ = ring.create()
    ring.revoke(event.key_id)
    with pytest.raises(UserError, match="revoked already"):
        ring.revoke(event.key_id)
