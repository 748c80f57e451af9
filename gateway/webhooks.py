"""What trackers and forges post when something changed: whether it is theirs, and what it is about. Pure.

A signature is over the raw bytes of a body and is checked before anything in it is read. What a delivery says is a hint
that something changed, never a fact: the control plane reads the object itself. Schemes: docs/webhooks.md.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.reading import child, text, whole_number

Source = Literal["github", "gitlab", "jira", "linear"]
Reason = Literal["unsigned", "forged", "stale", "replayed", "unreadable", "too_large", "too_slow", "not_stored"]
Kind = Literal["ticket", "pull_request", "commits", "deployment"]

STANDARD_SECONDS, LINEAR_SECONDS = 300, 60
"""How far a signed time may be away, both ways."""
ID_MAX, NAME_MAX = 255, 255
SIGNATURES_MAX = 16

GITHUB: Mapping[str, Kind] = {
    "issues": "ticket",
    "pull_request": "pull_request",
    "pull_request_review": "pull_request",
    "push": "commits",
    "deployment": "deployment",
    "deployment_status": "deployment",
    "workflow_run": "deployment",
}
GITLAB: Mapping[str, Kind] = {
    "issue": "ticket",
    "work_item": "ticket",
    "merge_request": "pull_request",
    "push": "commits",
    "deployment": "deployment",
    "pipeline": "deployment",
}
SIGNED: Mapping[Source, tuple[str, ...]] = {
    "github": ("x-hub-signature-256",),
    "gitlab": ("x-gitlab-token",),
    "jira": ("x-hub-signature",),
    "linear": ("linear-signature",),
}
SIGNED_TOKEN = ("webhook-id", "webhook-timestamp", "webhook-signature")
JIRA = frozenset({"jira:issue_created", "jira:issue_updated", "jira:issue_deleted"})


class Secrets(msgspec.Struct, frozen=True):
    """What one source's deliveries are checked with; empty = nothing is taken."""

    secret: str = ""
    signing_token: str = ""
    """GitLab's newer scheme. Where it is set, the secret alone is not enough."""

    def __bool__(self) -> bool:
        return bool(self.secret or self.signing_token)


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """All that is read of a body: nothing is made of the rest, which can be megabytes."""

    repository: Any = None
    project: Any = None
    issue: Any = None
    pull_request: Any = msgspec.field(name="pull_request", default=None)
    object_kind: Any = msgspec.field(name="object_kind", default=None)
    object_attributes: Any = msgspec.field(name="object_attributes", default=None)
    webhook_event: Any = None
    webhook_timestamp: Any = None
    type: Any = None
    data: Any = None


class RefusedError(Exception):
    """Not taken. Holds nothing of what was sent."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Hint(msgspec.Struct, frozen=True):
    """Something changed there."""

    source: Source
    delivery: str
    event: str
    kind: Kind
    project: str
    """`PAY`, `acme/shop`."""
    id: str = ""
    """Of the ticket or pull request: `PAY-7`, `acme/shop#45`, `acme/shop!46`. Empty: look at all that is new there."""


def check_signed(source: Source, secrets: Secrets, headers: Mapping[str, str]) -> None:
    """Whether there is a signature at all, which is known before a body is read. Raises `RefusedError`."""
    names = SIGNED_TOKEN if source == "gitlab" and secrets.signing_token else SIGNED[source]
    if not secrets or not all(headers.get(name) for name in names):
        raise RefusedError("unsigned")


def checked(source: Source, secrets: Secrets, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The identifier of a delivery that is signed as it must be; `headers` by name in lower case. Raises
    `RefusedError`."""
    check_signed(source, secrets, headers)
    if source == "github":
        _check_hex(headers["x-hub-signature-256"], "sha256=", secrets.secret, body)
        delivery = headers.get("x-github-delivery")
    elif source == "jira":
        _check_hex(headers["x-hub-signature"], "sha256=", secrets.secret, body)
        delivery = headers.get("x-atlassian-webhook-identifier")
    elif source == "linear":
        _check_hex(headers["linear-signature"], "", secrets.secret, body)
        sent_ms = whole_number(_decoded(body).webhook_timestamp)
        if sent_ms is None or abs(now - sent_ms / 1000) > LINEAR_SECONDS:
            raise RefusedError("stale")
        delivery = headers.get("linear-delivery")
    elif secrets.signing_token:
        delivery = _check_standard(secrets.signing_token, headers, body, now)
    else:
        if not _same(headers["x-gitlab-token"], secrets.secret):
            raise RefusedError("forged")
        delivery = headers.get("idempotency-key") or headers.get("x-gitlab-event-uuid")
    return delivery if delivery and len(delivery) <= ID_MAX else hashlib.sha256(body).hexdigest()


def hint_of(source: Source, delivery: str, headers: Mapping[str, str], body: bytes) -> Hint | None:
    """What a checked delivery is about; `None` when it is of no interest. Raises `RefusedError`."""
    said = _decoded(body)
    event, kind, project, thing = READERS[source](said, headers)
    if kind is None or not project or max(len(project), len(thing)) > NAME_MAX:
        return None
    return Hint(source, delivery, event[:NAME_MAX], kind, project, thing)


# -- signatures --------------------------------------------------------------------------------------------------------


def _check_hex(given: str, prefix: str, secret: str, body: bytes) -> None:
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not secret or not _same(given, prefix + expected):
        raise RefusedError("forged")


def _check_standard(token: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Standard Webhooks: any of several signatures, while a secret is changed."""
    delivery, sent, given = (headers[name] for name in SIGNED_TOKEN)
    message = f"{delivery}.{sent}.".encode("utf-8", "surrogateescape") + body
    digest = hmac.new(_key(token), message, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    if not any(_same(each, expected) for each in given.split(" ")[:SIGNATURES_MAX]):
        raise RefusedError("forged")
    if not re.fullmatch(r"[0-9]{1,12}", sent, re.ASCII) or abs(now - int(sent)) > STANDARD_SECONDS:
        raise RefusedError("stale")
    return delivery


def _key(token: str) -> bytes:
    """`whsec_` and base64, or any other text as it is."""
    if token.startswith("whsec_"):
        try:
            return base64.b64decode(token.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return token.encode()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


# -- what it is about --------------------------------------------------------------------------------------------------

Read = tuple[str, Kind | None, str, str]
"""Event, kind, project and id."""


def _decoded(body: bytes) -> Said:
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"), type=Said)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RefusedError("unreadable") from None


def _github(said: Said, headers: Mapping[str, str]) -> Read:
    event = headers.get("x-github-event", "")
    kind, repo = GITHUB.get(event), text(child(said.repository).get("full_name")) or ""
    number = whole_number(child(said.issue if kind == "ticket" else said.pull_request).get("number"))
    return event, kind, repo, _numbered(kind, repo, number)


def _gitlab(said: Said, headers: Mapping[str, str]) -> Read:
    event = text(said.object_kind) or ""
    kind, repo = GITLAB.get(event), text(child(said.project).get("path_with_namespace")) or ""
    return event, kind, repo, _numbered(kind, repo, whole_number(child(said.object_attributes).get("iid")))


def _jira(said: Said, headers: Mapping[str, str]) -> Read:
    event, key = text(said.webhook_event) or "", text(child(said.issue).get("key")) or ""
    return event, "ticket" if event in JIRA else None, key.rpartition("-")[0], key


def _linear(said: Said, headers: Mapping[str, str]) -> Read:
    event, key = text(said.type) or "", text(child(said.data).get("identifier")) or ""
    return event, "ticket" if event == "Issue" else None, key.rpartition("-")[0], key


def _numbered(kind: Kind | None, repo: str, number: int | None) -> str:
    mark = {"ticket": "#", "pull_request": "!"}.get(kind or "", "")
    return f"{repo}{mark}{number}" if mark and number else ""


READERS = {"github": _github, "gitlab": _gitlab, "jira": _jira, "linear": _linear}
