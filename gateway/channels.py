"""Where notices go: a Slack-compatible webhook, a generic one that gets signed JSON, the log. One try each."""

import asyncio
import hmac
import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple, Protocol

import aiohttp
import msgspec

from gateway.config import AlertSettings, secret
from gateway.errors import UserError

ANSWER_SECONDS = 10.0

log = logging.getLogger("outlay")

Kind = Literal[
    "budget_warn",
    "budget_exceeded",
    "budget_overshoot",
    "spend_velocity",
    "runaway_task",
    "loop_stopped",
    "waste_found",
    "test",
]
Field = str | int | float | None


class Notice(msgspec.Struct, frozen=True):
    """Something that somebody should look at. It holds no prompt text, no secret and no person."""

    id: str
    """The same at each try, so that a receiver can tell that it has it already."""
    kind: Kind
    subject: str
    """What it is about."""
    message: str
    """For people: what happened, and what to do."""
    at_us: int
    fields: dict[str, Field] = {}


class Outcome(NamedTuple):
    """What became of one try."""

    is_delivered: bool
    detail: str
    may_help: bool = False
    """To try again."""
    wait_seconds: float | None = None
    """As the receiver asked for."""


class Channel(Protocol):
    async def send(self, notice: Notice) -> Outcome:
        """Raises nothing that a notice of plain values can cause."""


class Log:
    async def send(self, notice: Notice) -> Outcome:
        log.warning("%s: %s", notice.kind, notice.message)
        return Outcome(True, "written")


class Slack:
    """Slack's incoming webhooks, and those of others that take the same: Mattermost, Rocket.Chat, Discord's /slack."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def send(self, notice: Notice) -> Outcome:
        text = _plain(f"Outlay: {notice.message}")
        return await _post(self._session, self._url, msgspec.json.encode({"text": text}), {})


def _plain(text: str) -> str:
    """Names in it come from clients: none may call anybody (`<!here>`, `@all`) or be an address to click on."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("@", "@\u200b").replace("://", ":\u200b//")


class Webhook:
    """Signed JSON, as Standard Webhooks has it (standardwebhooks.com)."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: bytes) -> None:
        self._session = session
        self._url = url
        self._key = key

    async def send(self, notice: Notice) -> Outcome:
        at = datetime.fromtimestamp(notice.at_us / 1e6, UTC)
        data = {"subject": notice.subject, "message": notice.message, **notice.fields}
        body = msgspec.json.encode({"type": notice.kind, "timestamp": at, "data": data})
        now = int(time.time())
        return await _post(
            self._session,
            self._url,
            body,
            {
                "webhook-id": notice.id,
                "webhook-timestamp": str(now),
                "webhook-signature": signature(self._key, notice.id, now, body),
            },
        )


def signature(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.digest(key, signed, "sha256")).decode()


def key_of(text: str) -> bytes:
    """The bytes of a secret: `whsec_` and base64, or the text itself. Raises `UserError`."""
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise UserError("after whsec_ comes no base64") from None


def channels_of(settings: AlertSettings, session: aiohttp.ClientSession) -> Iterator[tuple[str, Channel | UserError]]:
    """The channels of the settings by name; in place of one that cannot be used, why."""
    if settings.log:
        yield "log", Log()
    if settings.slack is not None:
        try:
            yield "slack", Slack(session, _address(settings.slack))
        except UserError as error:
            yield "slack", error
    if settings.webhook is not None:
        try:
            key = key_of(_value(settings.webhook_secret or ""))
            yield "webhook", Webhook(session, _address(settings.webhook), key)
        except UserError as error:
            yield "webhook", error


def _address(given: str) -> str:
    url = given if given.startswith("http") else _value(given)
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{given} holds no address: it must begin with https://")
    return url


def _value(reference: str) -> str:
    found = secret(reference)
    if found is None:
        raise UserError(f"{reference} is not set, or cannot be read, here")
    return found


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
    headers = {"Content-Type": "application/json", "User-Agent": "outlay", **headers}
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status  # and no word of the body: it may repeat the address, which is a secret
            wait = _wait(response.headers.get("Retry-After", ""))
    except TimeoutError:
        return Outcome(False, f"no answer within {ANSWER_SECONDS:g} s", may_help=True)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Its text may hold the address, too.
        return Outcome(False, f"no answer ({type(error).__name__})", may_help=True)
    return Outcome(200 <= status < 300, str(status), status in (408, 429) or status >= 500, wait)


def _wait(retry_after: str) -> float | None:
    """Seconds, of either form of the header (RFC 9110 §10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
