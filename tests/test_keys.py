"""Gateway keys: only digests on disk, revocation in force at once, a torn file survives."""

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import hashing
from gateway.call import Principal
from gateway.cli import outlay
from gateway.config import AdminKey, Auth
from gateway.errors import Refusal, UserError
from gateway.keys import Keys, of_settings


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


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_a_rotated_key_has_two_secrets_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, now = Keys(tmp_path), 1_000_000
    monkeypatch.setattr(time, "time", lambda: now)
    event, first = ring.create(team_id="a", models=("gpt-*",))
    done = ring.rotate(event.key_id, 100)
    assert (done.ended, done.key.old_until(now)) == (None, now + 100)
    second = done.secret
    for secret in (first, second):
        principal = ring.authenticate(secret)
        assert (principal.key_id, principal.team_id, principal.models) == (event.key_id, "a", ("gpt-*",))
    assert ring.authenticate(first).fingerprint != ring.authenticate(second).fingerprint

    now += 50
    done = ring.rotate(event.key_id, 100)
    assert done.ended == 1_000_100
    assert "has a new secret" in refused(ring, first)
    for secret in (second, done.secret):
        assert ring.authenticate(secret).key_id == event.key_id

    now += 100
    assert "has a new secret" in refused(ring, second)
    assert ring.authenticate(done.secret).key_id == event.key_id
    assert Keys(tmp_path).one(event.key_id).old_until(now) is None
    last = ring.rotate(event.key_id, 0)
    assert (last.ended, last.key.old_until(now)) == (None, None)
    assert "has a new secret" in refused(ring, done.secret)


def test_what_cannot_be_rotated(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    revoked, _ = ring.create()
    ring.revoke(revoked.key_id)
    expired, _ = ring.create(expires_at=1)
    claim, _ = ring.create_claim_key()
    for event, message in ((revoked, "is revoked"), (expired, "is expired"), (claim, "is a claim key")):
        with pytest.raises(UserError, match=message):
            ring.rotate(event.key_id)
    with pytest.raises(UserError, match="there is no key"):
        ring.rotate("key_nope")


def test_a_rotation_keeps_expiry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, now = Keys(tmp_path), 1_000_000
    monkeypatch.setattr(time, "time", lambda: now)
    event, first = ring.create(expires_at=now + 10)
    second = ring.rotate(event.key_id, 100).secret
    now += 10
    assert "is expired" in refused(ring, first)
    assert "is expired" in refused(ring, second)


@given(overlaps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_there_are_never_more_than_two_secrets(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, overlaps: list[tuple[int, int]]
) -> None:
    ring, now = Keys(tmp_path_factory.mktemp("keys")), 1_000_000
    monkeypatch.setattr(time, "time", lambda: now)
    event, first = ring.create()
    secrets: list[tuple[str, int | None]] = [(first, None)]
    for overlap, wait in overlaps:
        secrets[-1] = (secrets[-1][0], now + overlap)
        secrets.append((ring.rotate(event.key_id, overlap).secret, None))
        now += wait
        works = [secret for secret, _ in secrets if _works(ring, secret)]
        old, until = secrets[-2]
        assert works == ([old] if until is not None and now < until else []) + [secrets[-1][0]]


DEEDS = st.tuples(
    st.sampled_from(["create", "create", "rotate", "revoke", "wait", "wait", "step back"]), st.integers(0, 40)
)


@given(deeds=st.lists(DEEDS, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_what_was_judged_before_hides_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, deeds: list[tuple[str, int]]
) -> None:
    """A ring that has judged every secret at every moment says what one says that has just read the list."""
    folder, now = tmp_path_factory.mktemp("keys"), 1_000_000
    monkeypatch.setattr(time, "time", lambda: now)
    ring, admin = Keys(folder), Keys(folder)
    event, secret = admin.create()
    secrets, key_ids = ["olk_unknown", secret], [event.key_id]
    for deed, number in deeds:
        key_id = key_ids[number % len(key_ids)]
        with contextlib.suppress(UserError):
            if deed == "create":
                event, secret = admin.create(expires_at=now + number if number % 3 else None)
                secrets.append(secret)
                key_ids.append(event.key_id)
            elif deed == "rotate":
                secrets.append(admin.rotate(key_id, number // 2).secret)
            elif deed == "revoke":
                admin.revoke(key_id)
            else:
                now += -number if deed == "step back" else number
        assert [_judged(ring, secret) for secret in secrets] == [_judged(Keys(folder), secret) for secret in secrets]


def _judged(ring: Keys, secret: str) -> Principal | str:
    try:
        return ring.authenticate(secret)
    except Refusal as refusal:
        return refusal.message


def _works(ring: Keys, secret: str) -> bool:
    try:
        ring.authenticate(secret)
    except Refusal:
        return False
    return True


WRITER = """
import sys
from pathlib import Path
from gateway.keys import Keys
ring = Keys(Path(sys.argv[1]))
for number in range(20):
    ring.create(team_id=sys.argv[3])
    print(ring.rotate(sys.argv[2], 3600).secret)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    event, _ = Keys(tmp_path).create()
    command = [sys.executable, "-c", WRITER, str(tmp_path), event.key_id]
    writers = [subprocess.Popen([*command, f"t{number}"], stdout=subprocess.PIPE, text=True) for number in range(4)]
    told = [secret for writer in writers for secret in writer.communicate(timeout=60)[0].split()]
    assert [writer.returncode for writer in writers] == [0] * 4
    ring = Keys(tmp_path)
    assert len(ring.all()) == 1 + 4 * 20
    assert len(ring.one(event.key_id).events) == 1 + 4 * 20
    assert len(told) == 80
    assert sum(_works(ring, secret) for secret in told) == 2


def test_the_audit_trail(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    event, _ = ring.create("key_issuer", team_id="a")
    ring.rotate(event.key_id, by="config:ops")
    ring.revoke(event.key_id)
    assert [(each.event, each.by) for each in ring.log()] == [
        ("create", "key_issuer"), ("rotate", "config:ops"), ("revoke", "cli"),
    ]  # fmt: skip


def test_keys_of_before_are_read_on(tmp_path: Path) -> None:
    line = f'{{"event":"create","key_id":"key_1","at":5,"digest":"{hashing.digest("olk_old")}","name":""}}\n'
    (tmp_path / "keys.jsonl").write_text(line)
    ring = Keys(tmp_path)
    assert ring.authenticate("olk_old").key_id == "key_1"
    assert ring.log()[0].by is None


def test_a_key_with_a_line_of_another_version_is_revoked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring, file = Keys(tmp_path), tmp_path / "keys.jsonl"
    event, secret = ring.create()
    _, other = ring.create()
    assert ring.authenticate(secret).key_id == event.key_id
    with file.open("a") as lines:
        lines.write('{"event":"suspend","key_id":"' + event.key_id + '","at":7,"why":"hush"}\n[1]\n{"torn\n')
    for reader in (ring, Keys(tmp_path)):
        assert "is revoked" in refused(reader, secret)
        assert _works(reader, other)
        assert reader.one(event.key_id).revoked_at == 7
    assert [record.getMessage() for record in caplog.records] == [
        f"keys.jsonl: line {line} is of another version; its key counts as revoked" for line in (3, 4, 3, 4)
    ]


def test_what_was_read_counts_on_when_the_file_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring, file = Keys(tmp_path), tmp_path / "keys.jsonl"
    _, secret = ring.create()
    assert _works(ring, secret)
    file.rename(tmp_path / "aside")
    file.mkdir()  # not even root reads it
    assert _works(ring, secret)
    assert _works(ring, secret)
    assert [record.getMessage() for record in caplog.records] == [
        f"{file} cannot be read: Is a directory; the keys stay as they were"
    ]
    file.rmdir()
    assert not _works(ring, secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_list_that_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    Keys(tmp_path).create()
    stat = (tmp_path / "keys.jsonl").stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (65534, 65534, 0o600)


def test_the_list_is_in_the_order_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, now = Keys(tmp_path), 1_000_000
    monkeypatch.setattr(time, "time", lambda: now)
    first, _ = ring.create()
    second, _ = ring.create()
    now -= 100  # a clock that was set back
    ring.revoke(first.key_id)
    ring.rotate(second.key_id)
    for reader in (ring, Keys(tmp_path)):
        assert [(each.key_id, each.event) for each in reader.log()] == [
            (first.key_id, "create"), (second.key_id, "create"), (first.key_id, "revoke"), (second.key_id, "rotate"),
        ]  # fmt: skip


def test_moments_that_no_calendar_has(tmp_path: Path) -> None:
    ring = Keys(tmp_path)
    with pytest.raises(UserError, match="before the year 10000"):
        ring.create(expires_at=253_402_300_800)
    assert not (tmp_path / "keys.jsonl").exists()
    for at in (253_402_300_800, 10**30, -1):
        (tmp_path / "keys.jsonl").write_text(f'{{"event":"create","key_id":"key_1","at":5,"expires_at":{at}}}\n')
        assert len(json.loads(run(tmp_path, "list", "--json"))) == 1


# -- keys of the settings ----------------------------------------------------------------------------------------------


def test_keys_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "olk_" + "x" * 32
    monkeypatch.setenv("ONE", secret)
    monkeypatch.delenv("OTHER", raising=False)
    auth = Auth(admin_keys={"ops": AdminKey("env:ONE", "admin"), "bi": AdminKey("env:OTHER", "viewer")})
    ring = Keys(tmp_path, of_settings(auth))
    principal = ring.authenticate(secret)
    assert (principal.key_id, principal.role) == ("config:ops", "admin")
    assert "not known" in refused(ring, secret + "x")
    monkeypatch.setenv("OTHER", secret)
    with pytest.raises(UserError, match="has the key of another name"):
        of_settings(auth)
    for weak in ("x" * 40, "olk_short", "olk_ " + "x" * 32):
        monkeypatch.setenv("OTHER", weak)
        with pytest.raises(UserError, match=r"\[auth.admin_keys.bi\] the key behind env:OTHER must be") as error:
            of_settings(auth)
        assert weak not in str(error.value)


# -- the command line --------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(outlay, ["keys", *arguments, "--data", str(folder)])
    if isinstance(result.exception, UserError):
        assert code == 1
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_keys_at_the_command_line(tmp_path: Path) -> None:
    made = json.loads(run(tmp_path, "create", "--team", "a", "--role", "viewer", "--model", "gpt-*", "--json"))
    assert (made["role"], made["models"], made["by"], made["state"]) == ("viewer", ["gpt-*"], "cli", "active")
    key_id, ring = made["key_id"], Keys(tmp_path)
    told = run(tmp_path, "rotate", key_id, "--overlap", "90m").split("\n")
    assert (told[0], ring.authenticate(told[1]).role) == (key_id, "viewer")
    assert "The old secret works until" in told[2]
    assert "The secret before that, which was to work until" in run(tmp_path, "rotate", key_id, "--overlap", "0")
    assert "The old secret has ended" in run(tmp_path, "rotate", key_id, "--overlap", "0")
    rotated = json.loads(run(tmp_path, "rotate", key_id, "--json"))
    assert (rotated["key_id"], rotated["ended_secret_until"]) == (key_id, None)
    until = datetime.fromisoformat(rotated["old_secret_until"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < until <= timedelta(hours=24)
    [shown] = json.loads(run(tmp_path, "list", "--json"))
    assert shown["old_secret_until"] == rotated["old_secret_until"]
    assert rotated["secret"] not in run(tmp_path, "list") + run(tmp_path, "log") + json.dumps(shown)
    assert "is revoked" in run(tmp_path, "revoke", key_id)
    assert "make another one" in run(tmp_path, "rotate", key_id, code=1)
    log = json.loads(run(tmp_path, "log", "--json"))
    assert [each["event"] for each in log] == ["create", *["rotate"] * 4, "revoke"]
    assert {each["by"] for each in log} == {"cli"}


def test_mistakes_at_the_command_line(tmp_path: Path) -> None:
    assert "No keys yet" in run(tmp_path, "list")
    for overlap in ("soon", "-1h", "31d", "1w", ""):
        assert "write a time like 90m" in run(tmp_path, "rotate", "key_1", "--overlap", overlap, code=2)
    assert "this moment is over" in run(tmp_path, "create", "--expires", "2020-01-01", code=2)
    assert "a claim key opens nothing" in run(tmp_path, "create", "--claims", "--role", "admin", code=2)
    assert "team_id must have 1 to 200 characters" in run(tmp_path, "create", "--team", "", code=1)
    (tmp_path / "keys.jsonl").unlink(missing_ok=True)
    (tmp_path / "file").touch()
    assert "the keys cannot be read" in run(tmp_path / "file", "create", code=1)
    (tmp_path / "keys.jsonl").mkdir()
    assert "the keys cannot be read" in run(tmp_path, "list", code=1)


def test_whoever_makes_a_key_with_a_role_is_told_what_it_opens(tmp_path: Path) -> None:
    assert "opens the console and /-/api/v1 as finops" in run(tmp_path, "create", "--role", "finops")
    bound = run(tmp_path, "create", "--role", "finops", "--team", "a")
    assert "opens /-/api/v1 as finops" in bound
    assert "opens the console" not in bound


def test_a_key_is_for_upstreams_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "outlay.toml"
    file.write_text("[upstreams.azure]\nbase_url = 'https://x'\nprovider = 'azure.ai.openai'\n", encoding="utf-8")
    command = ["keys", "create", "--config", str(file), "--data", str(tmp_path), "--upstream"]
    done = CliRunner().invoke(outlay, [*command, "nosuch"])
    assert done.exit_code == 2
    assert "--upstream: upstreams must be among azure, those of the settings" in done.output
    assert CliRunner().invoke(outlay, [*command, "azure"]).exit_code == 0
    [key] = Keys(tmp_path).all()
    assert key.created.upstreams == ("azure",)


def test_what_people_wrote_is_shown_as_it_is(tmp_path: Path) -> None:
    for name in ("[/red]", "[bold]x", ":smile:", "a\\[b]"):
        run(tmp_path, "create", "--name", name)
        assert name in run(tmp_path, "list")


@pytest.mark.parametrize("option", ["--team", "--user", "--name", "--ticket", "--model", "--upstream"])
def test_bytes_that_are_no_text(tmp_path: Path, option: str) -> None:
    command = [sys.executable, "-m", "gateway", "keys", "create", "--data", str(tmp_path), option, b"x\xff"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert option.strip("-") in done.stderr
    assert not (tmp_path / "keys.jsonl").exists()


def test_another_file_in_its_place(tmp_path: Path) -> None:
    ring, file = Keys(tmp_path), tmp_path / "keys.jsonl"
    event, secret = ring.create(team_id="a")
    assert ring.authenticate(secret).team_id == "a"
    before = file.read_bytes()
    ring.revoke(event.key_id)
    assert "is revoked" in refused(ring, secret)
    (tmp_path / "backup").write_bytes(before)
    (tmp_path / "backup").replace(file)
    assert ring.authenticate(secret).team_id == "a"
    file.unlink()
    assert "not known" in refused(ring, secret)
    assert ring.all() == []


def test_a_line_that_is_being_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    ring, file = Keys(tmp_path), tmp_path / "keys.jsonl"
    line = f'{{"event":"create","key_id":"key_1","at":5,"digest":"{hashing.digest("olk_new")}"}}\n'.encode()
    for end in range(0, len(line), 7):
        file.write_bytes(line[:end])
        assert "not known" in refused(ring, "olk_new")
    with file.open("ab") as more:
        more.write(line[end:])
    assert ring.authenticate("olk_new").key_id == "key_1"
    assert len(ring.one("key_1").events) == 1
