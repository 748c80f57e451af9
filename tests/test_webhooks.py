"""Webhooks: signatures over raw bytes, the queue on disk, and what the control plane does of it."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway import webhook_queue, webhook_routes
from gateway.config import WorkSettings
from gateway.webhook_queue import WebhookQueue, waiting
from gateway.webhooks import Hint, RefusedError, Secrets, Source, checked, hint_of
from tests.conftest import Running, StartGateway

HELLO = "It's a Secret to Everybody"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GITLAB = "whsec_b3V0bGF5LWdpdGxhYi1zaWduaW5nLXRlc3Qta2V5ISE="
LINEAR_BODY = b'{"action":"update","type":"Issue","webhookTimestamp":1763856000000}'
LINEAR_SIGNATURE = "03a0f8a148b8056ae8c5639f432f9e970bca33e287bc879fc589d2d6f2606a0d"
GITLAB_SIGNATURE = "v1,UeMoZ9aSDQegbE+jXPz5LIvSRXnd5dmhqLv0dC2g0kI="


def standard(id_: str, at: int | str, signature: str) -> dict[str, str]:
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": signature}


VECTORS: dict[str, tuple[Source, Secrets, dict[str, str], bytes, float]] = {
    "github": (
        "github", Secrets(HELLO),
        {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        b"Hello, World!", 0,
    ),
    "jira": (
        "jira", Secrets(HELLO),
        {"x-hub-signature": "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"},
        b"Hello World!", 0,
    ),
    "standard": (
        "gitlab", Secrets("", STANDARD),
        standard("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        b'{"test": 2432232314}', 1614265330,
    ),
    "gitlab": (
        "gitlab", Secrets("", GITLAB),
        standard("11111111-2222-3333-4444-555555555555", 1763856000, GITLAB_SIGNATURE),
        b'{"object_kind":"issue"}', 1763856000,
    ),
    "gitlab, old": ("gitlab", Secrets("a secret"), {"x-gitlab-token": "a secret"}, b"{}", 0),
    "linear": (
        "linear", Secrets("outlay-test-secret"), {"linear-signature": LINEAR_SIGNATURE}, LINEAR_BODY, 1763856000,
    ),
}  # fmt: skip


def reason(source: Source, secrets: Secrets, headers: dict[str, str], body: bytes, now: float) -> str | None:
    try:
        checked(source, secrets, headers, body, now)
    except RefusedError as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    source, secrets, headers, body, now = VECTORS[name]
    assert checked(source, secrets, headers, body, now)


@pytest.mark.parametrize("name", VECTORS)
def test_anything_else_is_refused(name: str) -> None:
    source, secrets, headers, body, now = VECTORS[name]
    signature = next(header for header in headers if "signature" in header or "token" in header)
    value = headers[signature]
    if name != "gitlab, old":  # which signs no body
        assert reason(source, secrets, headers, body + b" ", now) == "forged"
        assert reason(source, secrets, headers, b"\xef\xbb\xbf" + body, now) == "forged"
    assert reason(source, secrets, {**headers, signature: value[:-1] + "!"}, body, now) == "forged"
    assert reason(source, secrets, {**headers, signature: value.upper() + "\udcff"}, body, now) == "forged"
    assert reason(source, secrets, {}, body, now) == "unsigned"
    assert reason(source, secrets, {**headers, signature: ""}, body, now) == "unsigned"
    assert reason(source, Secrets(), headers, body, now) == "unsigned", "no secret takes nothing"


@pytest.mark.parametrize("name", ["github", "jira", "linear"])
def test_a_hex_signature_is_as_providers_write_it(name: str) -> None:
    source, secrets, headers, body, now = VECTORS[name]
    ((header, value),) = headers.items()
    digest = value.removeprefix("sha256=")
    for wrong in (digest.upper(), "sha256=" + digest.upper(), "sha1=" + digest, "SHA256=" + digest, " " + value):
        assert reason(source, secrets, {header: wrong}, body, now) == "forged"


def test_an_older_or_another_header_is_no_signature() -> None:
    source, secrets, headers, body, now = VECTORS["github"]
    assert reason(source, secrets, {"x-hub-signature": headers["x-hub-signature-256"]}, body, now) == "unsigned"
    source, secrets, headers, body, now = VECTORS["jira"]
    assert reason(source, secrets, {"x-hub-signature-256": headers["x-hub-signature"]}, body, now) == "unsigned"


def test_one_of_several_signatures_is_enough() -> None:
    source, secrets, headers, body, now = VECTORS["gitlab"]
    for signatures in (
        f"v1,AAAA {GITLAB_SIGNATURE}",
        f"v1a,xyz v9,k {GITLAB_SIGNATURE}",
        f"{GITLAB_SIGNATURE} v1,AAAA",
    ):
        assert reason(source, secrets, {**headers, "webhook-signature": signatures}, body, now) is None
    assert reason(source, secrets, {**headers, "webhook-signature": "v1a,xyz v1,AAAA"}, body, now) == "forged"


@pytest.mark.parametrize(("name", "seconds"), [("gitlab", 300), ("linear", 60)])
def test_signed_times_are_bounded_both_ways(name: str, seconds: int) -> None:
    source, secrets, headers, body, now = VECTORS[name]
    for away in (-seconds, seconds):
        assert reason(source, secrets, headers, body, now + away) is None
    for away in (-seconds - 1, seconds + 1):
        assert reason(source, secrets, headers, body, now + away) == "stale"


def test_the_time_of_a_standard_webhook_is_signed_and_a_number() -> None:
    source, secrets, headers, body, now = VECTORS["gitlab"]
    assert reason(source, secrets, {**headers, "webhook-timestamp": "1763856001"}, body, now) == "forged"
    digest = hmac.new(base64.b64decode(GITLAB[6:]), b"x.soon." + body, hashlib.sha256).digest()
    headers = standard("x", "soon", "v1," + base64.b64encode(digest).decode())
    assert reason(source, secrets, headers, body, now) == "stale"


def test_a_signing_token_may_be_any_text_and_the_secret_alone_is_not_enough() -> None:
    digest = hmac.new(b"plain text", b"x.100.{}", hashlib.sha256).digest()
    headers = standard("x", 100, "v1," + base64.b64encode(digest).decode())
    assert reason("gitlab", Secrets("a secret", "plain text"), headers, b"{}", 100) is None
    assert reason("gitlab", Secrets("a secret", "plain text"), {"x-gitlab-token": "a secret"}, b"{}", 100) == "unsigned"
    assert reason("gitlab", Secrets("a secret"), {"x-gitlab-token": "a secret "}, b"{}", 100) == "forged"


@given(st.sampled_from(["github", "gitlab", "jira", "linear"]), st.binary(), st.text(), st.booleans())
@settings(max_examples=100)
def test_no_bytes_raise_anything_else(source: Source, body: bytes, text: str, is_token: bool) -> None:
    names = ("x-hub-signature-256", "x-hub-signature", "linear-signature", "x-gitlab-token", "webhook-signature")
    headers = dict.fromkeys((*names, "webhook-id", "webhook-timestamp"), text)
    secrets = Secrets("" if is_token else "s", "whsec_not base64" if is_token else "")
    assert reason(source, secrets, headers, body, 0) in ("unsigned", "forged", "stale", "unreadable", None)
    with_json = json.dumps({"repository": text, "issue": [text], "data": {"identifier": text}}).encode()
    assert hint_of(source, "d", {"x-github-event": "issues"}, with_json) is None or source == "linear"


@pytest.mark.parametrize(
    ("source", "event", "said", "expected"),
    [
        ("github", "issues", {"repository": {"full_name": "a/b"}, "issue": {"number": 4}}, "ticket a/b a/b#4"),
        ("github", "pull_request_review", {"repository": {"full_name": "a/b"}, "pull_request": {"number": 4}},
         "pull_request a/b a/b!4"),
        ("github", "push", {"repository": {"full_name": "a/b"}, "after": "x"}, "commits a/b "),
        ("github", "ping", {"repository": {"full_name": "a/b"}}, None),
        ("github", "issues", {"issue": {"number": 4}}, None),
        ("gitlab", "", {"object_kind": "issue", "project": {"path_with_namespace": "a/b/c"},
                        "object_attributes": {"iid": 4}}, "ticket a/b/c a/b/c#4"),
        ("gitlab", "", {"object_kind": "merge_request", "project": {"path_with_namespace": "a/b"},
                        "object_attributes": {"iid": 4}}, "pull_request a/b a/b!4"),
        ("gitlab", "", {"object_kind": "deployment", "project": {"path_with_namespace": "a/b"}}, "deployment a/b "),
        ("jira", "", {"webhookEvent": "jira:issue_updated", "issue": {"key": "PAY-7"}}, "ticket PAY PAY-7"),
        ("jira", "", {"webhookEvent": "comment_created", "issue": {"key": "PAY-7"}}, None),
        ("linear", "", {"type": "Issue", "data": {"identifier": "ENG-7"}}, "ticket ENG ENG-7"),
        ("linear", "", {"type": "Comment", "data": {}}, None),
    ],
)  # fmt: skip
def test_what_a_delivery_is_about(source: Source, event: str, said: dict[str, Any], expected: str | None) -> None:
    hint = hint_of(source, "d", {"x-github-event": event}, b"\xef\xbb\xbf" + json.dumps(said).encode())
    assert (hint and f"{hint.kind} {hint.project} {hint.id}") == expected


# -- on disk -----------------------------------------------------------------------------------------------------------


def hint(delivery: str = "d-1", project: str = "acme/shop", id_: str = "acme/shop#4") -> Hint:
    return Hint("github", delivery, "issues", "ticket", project, id_)


def test_a_delivery_is_known_until_long_after_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WebhookQueue(tmp_path).put(hint())
    WebhookQueue(tmp_path).put(hint("d-2"))
    assert [each.hint.delivery for each in waiting(tmp_path)] == ["d-1", "d-2"]
    webhook_queue.finish(tmp_path, waiting(tmp_path)[:1])
    webhook_queue.finish(tmp_path / "elsewhere", [])
    assert [each.hint.delivery for each in waiting(tmp_path)] == ["d-2"]
    again = WebhookQueue(tmp_path)
    assert again.knows("github", "d-1")
    assert again.knows("github", "d-2")
    assert not again.knows("gitlab", "d-1")
    now = time.time() + webhook_queue.KEPT_SECONDS + 60
    monkeypatch.setattr(webhook_queue.time, "time", lambda: now)
    webhook_queue.finish(tmp_path, [])
    assert not WebhookQueue(tmp_path).knows("github", "d-1")
    assert WebhookQueue(tmp_path).knows("github", "d-2"), "what waits is never forgotten"


def test_too_many_that_wait_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_queue, "WAITING_MAX", 1)
    queue = WebhookQueue(tmp_path)
    queue.put(hint())
    for place in (queue, WebhookQueue(tmp_path)):
        with pytest.raises(OSError, match="too many"):
            place.put(hint("d-2"))
    webhook_queue.finish(tmp_path, waiting(tmp_path))
    queue.put(hint("d-2"))


def test_those_that_wait_are_not_counted_for_each_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = WebhookQueue(tmp_path)
    queue.put(hint())
    listed: list[object] = []
    monkeypatch.setattr(Path, "glob", lambda *of: listed.append(of) or [])
    monkeypatch.setattr(Path, "iterdir", lambda *of: listed.append(of) or [])
    queue.put(hint("d-2"))
    assert listed == []


def test_what_could_not_be_stored_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    queue = WebhookQueue(tmp_path)
    assert not queue.knows("github", "d-1")
    with monkeypatch.context() as full:
        full.setattr(webhook_queue.os, "fsync", is_full)
        with pytest.raises(OSError, match="No space"):
            queue.put(hint())
    assert [each.name for each in webhook_queue.folder(tmp_path).iterdir()] == ["done"]
    assert not queue.knows("github", "d-1")
    (webhook_queue.folder(tmp_path) / "killed.tmp").touch()
    WebhookQueue(tmp_path).put(hint())
    assert sorted(each.suffix for each in webhook_queue.folder(tmp_path).iterdir()) == ["", ".json"]


def test_so_many_that_were_read_are_kept_and_other_files_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_queue, "KEPT_MAX", 2)
    queue = WebhookQueue(tmp_path)
    for number in range(4):
        queue.put(hint(f"d-{number}"))
    kept = webhook_queue.done(webhook_queue.folder(tmp_path))
    (kept / "notes.json").touch()
    webhook_queue.finish(tmp_path, waiting(tmp_path))
    assert (kept / "notes.json").exists()
    again = WebhookQueue(tmp_path)
    assert [again.knows("github", f"d-{number}") for number in range(4)] == [False, False, True, True]


# -- over HTTP ---------------------------------------------------------------------------------------------------------

SECRET = "only-between-us"
SAID = {"action": "opened", "repository": {"full_name": "acme/shop"}, "issue": {"number": 4, "title": "confidential"}}
BODY = json.dumps(SAID).encode()


def hooked(monkeypatch: pytest.MonkeyPatch, *sources: str) -> WorkSettings:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    return msgspec.convert({name: {"webhook_secret": "env:WEBHOOK_SECRET"} for name in sources}, WorkSettings)


async def post(gateway: Running, delivery: str = "d-1", body: bytes = BODY, **fields: str) -> tuple[int, Any]:
    headers = {
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    } | fields
    async with gateway.session.post(f"{gateway.url}/-/webhooks/github", data=body, headers=headers) as response:
        return response.status, await response.json()


async def counted(gateway: Running) -> dict[str, float]:
    async with gateway.session.get(f"{gateway.url}/-/metrics") as response:
        lines = (await response.text()).splitlines()
    rows = [line.rsplit(" ", 1) for line in lines if line.startswith("outlay_webhook") and "_created" not in line]
    return {name.removeprefix("outlay_"): float(value) for name, value in rows}


async def test_deliveries_over_http(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_routes, "BODY_BYTES_MAX", 10_000)
    async with start_gateway(work=hooked(monkeypatch, "github")) as gateway:
        assert await post(gateway) == (200, {"status": "stored"})
        (stored,) = waiting(gateway.dir)
        assert stored.hint == hint()
        assert "confidential" not in stored.path.read_text()
        assert await post(gateway) == (200, {"refused": "replayed"})
        assert await post(gateway, "d-2", **{"X-Hub-Signature-256": "sha256=00"}) == (401, {"refused": "forged"})
        assert await post(gateway, "d-2", **{"X-Hub-Signature-256": ""}) == (401, {"refused": "unsigned"})
        assert await post(gateway, "d-2", b"no JSON") == (400, {"refused": "unreadable"})
        assert await post(gateway, "d-2", b" " * 10_001) == (413, {"refused": "too_large"})
        assert await post(gateway, "d-3", **{"X-GitHub-Event": "ping"}) == (200, {"status": "ignored"})
        assert await post(gateway, "d-4", b"\xef\xbb\xbf" + BODY) == (200, {"status": "stored"})
        assert len(waiting(gateway.dir)) == 2
        assert await counted(gateway) == {
            'webhooks_total{source="github"}': 3.0,
            **{
                f'webhook_refusals_total{{reason="{why}",source="github"}}': 1.0
                for why in ("replayed", "forged", "unsigned", "unreadable", "too_large")
            },
        }


async def connect(gateway: Running, headers: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends the beginning of a delivery."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(gateway.url).port)
    writer.write(f"POST /-/webhooks/github HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + body)
    await writer.drain()
    return reader, writer


FORGED = "X-Hub-Signature-256: sha256=00\r\n"


async def test_idle_connections_hold_nothing_up(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_routes, "BODY_SECONDS", 3600.0)
    async with start_gateway(work=hooked(monkeypatch, "github")) as gateway:
        idle = [await connect(gateway, f"Content-Length: 100\r\n{FORGED}", b"{") for _ in range(12)]
        async with asyncio.timeout(60):
            assert await post(gateway) == (200, {"status": "stored"})
            reader, writer = await connect(gateway, "Content-Length: 100\r\n", b"")
            assert b" 401 " in await reader.readline(), "unsigned is told before there is a body"
        for _, each in (*idle, (reader, writer)):
            each.close()


async def test_large_bodies_wait_for_room(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_routes, "SMALL_BYTES", 1000)
    monkeypatch.setattr(webhook_routes, "ROOM_BYTES", 30_000)
    large = json.dumps({**SAID, "padding": "x" * 20_000}).encode()
    async with start_gateway(work=hooked(monkeypatch, "github")) as gateway:
        for name in ("d-1", "d-2"):
            assert await post(gateway, name, large) == (200, {"status": "stored"}), "room is given back"
        assert await post(gateway, "d-3", large, **{"X-Hub-Signature-256": "no"}) == (401, {"refused": "forged"})
        assert await post(gateway, "d-4", large) == (200, {"status": "stored"})
        monkeypatch.setattr(webhook_routes, "BODY_SECONDS", 0.2)
        assert await post(gateway, "d-5", b" " * 30_000 + large) == (408, {"refused": "too_slow"})
        monkeypatch.setattr(webhook_routes, "BODY_SECONDS", 60.0)
        assert await post(gateway, "d-5", large) == (200, {"status": "stored"})


async def test_room_is_had_in_turn() -> None:
    room = webhook_routes.Room(10)
    await room.take(8)
    waits = [asyncio.create_task(room.take(6)) for _ in range(2)]
    await asyncio.sleep(0)
    room.give(2)
    await asyncio.sleep(0)
    assert not any(each.done() for each in waits)
    room.give(6)
    done, (waiting_,) = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    room.give(6)
    await waiting_


async def test_without_a_secret_there_is_no_such_endpoint(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_gateway(work=hooked(monkeypatch, "gitlab")) as gateway:
        assert (await post(gateway))[0] == 404
    work = hooked(monkeypatch, "github")
    monkeypatch.delenv("WEBHOOK_SECRET")
    async with start_gateway(work=work) as gateway:
        assert (await post(gateway))[0] == 404, "a secret that is not set takes nothing"


async def test_a_queue_that_cannot_be_written_is_told(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_gateway(work=hooked(monkeypatch, "github")) as gateway:
        webhook_queue.folder(gateway.dir).write_text("in the way")
        assert await post(gateway) == (503, {"refused": "not_stored"})
        webhook_queue.folder(gateway.dir).unlink()
        assert await post(gateway) == (200, {"status": "stored"}), "the same delivery, once it can be"
    assert "could not be stored" in caplog.text
