"""`POST /-/webhooks/{github,gitlab,jira,linear}`: answered as soon as the delivery is on the disk. No key opens these,
only a signature; where no secret is set there is no such endpoint."""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import get_args

from aiohttp import web

from gateway.config import WorkSettings, secret
from gateway.telemetry import Telemetry
from gateway.webhook_queue import WebhookQueue
from gateway.webhooks import Hint, Reason, RefusedError, Secrets, Source, check_signed, checked, hint_of

BODY_BYTES_MAX = 26_214_400
"""GitHub sends at most 25 MB."""
BODY_SECONDS = 10.0
SMALL_BYTES = 65_536
"""A connection holds as much anyway, and so little is checked at once. A larger body waits for room, and is checked in
a thread."""
ROOM_BYTES = 4 * BODY_BYTES_MAX
"""For larger bodies at a time: they are whole before anybody knows who sent them."""
STATUSES: Mapping[Reason, int] = {
    "unsigned": 401, "forged": 401, "stale": 401, "replayed": 200, "unreadable": 400, "too_large": 413, "too_slow": 408,
    "not_stored": 503,
}  # fmt: skip
"""A repeated delivery is refused in silence: who repeats it for want of an answer is to stop."""

log = logging.getLogger("outlay")


class Webhooks:
    def __init__(self, data: Path, settings: WorkSettings, telemetry: Telemetry) -> None:
        self._queue, self._telemetry = WebhookQueue(data), telemetry
        self._secrets = secrets_of(settings)
        self._room = Room(ROOM_BYTES)
        self._writer = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        sources: tuple[Source, ...] = get_args(Source)
        return [web.post(f"/-/webhooks/{source}", functools.partial(self._serve, source)) for source in sources]

    async def _serve(self, source: Source, request: web.Request) -> web.Response:
        secrets = self._secrets[source]
        if not secrets:
            return web.json_response({"error": "there is no such endpoint below /-/"}, status=404)
        try:
            status = await self._take(source, secrets, request)
        except RefusedError as refused:
            self._telemetry.webhook_refusals.labels(source, refused.reason).inc()
            return web.json_response({"refused": refused.reason}, status=STATUSES[refused.reason])
        self._telemetry.webhooks.labels(source).inc()
        return web.json_response({"status": status})

    async def _take(self, source: Source, secrets: Secrets, request: web.Request) -> str:
        headers = {name.lower(): value for name, value in request.headers.items()}
        check_signed(source, secrets, headers)
        async with _body(request, self._room) as body:
            judge = functools.partial(_judged, source, secrets, headers, body)
            delivery, hint = judge() if len(body) <= SMALL_BYTES else await asyncio.to_thread(judge)
        async with self._writer:  # of two at once with one identifier, the second is a repeated one
            try:
                if await asyncio.to_thread(self._queue.knows, source, delivery):
                    raise RefusedError("replayed")
                if hint is not None:
                    await asyncio.to_thread(self._queue.put, hint)
            except OSError as error:
                log.error("a webhook's delivery could not be stored: %s", error.strerror or error)
                raise RefusedError("not_stored") from None
        return "ignored" if hint is None else "stored"


def secrets_of(settings: WorkSettings) -> dict[Source, Secrets]:
    """Raises no error: where a secret that is set cannot be read, nothing is taken."""
    references: dict[Source, tuple[str | None, str | None]] = {
        "github": (settings.github.webhook_secret, None),
        "gitlab": (settings.gitlab.webhook_secret, settings.gitlab.webhook_signing_token),
        "jira": (settings.jira.webhook_secret, None),
        "linear": (settings.linear.webhook_secret, None),
    }
    found: dict[Source, Secrets] = {}
    for source, (of_secret, of_token) in references.items():
        values = {name: secret(name) or "" for name in (of_secret, of_token) if name}
        if missing := [name for name, value in values.items() if not value]:
            log.error("webhooks of %s are not taken: %s is not set or cannot be read", source, missing[0])
            values = {}
        found[source] = Secrets(values.get(of_secret or "", ""), values.get(of_token or "", ""))
    return found


class Room:
    """Bytes that may still be held."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._given = asyncio.Event()

    async def take(self, size: int) -> None:
        """Waits for it."""
        while self._free < size:
            self._given.clear()
            await self._given.wait()
        self._free -= size

    def give(self, size: int) -> None:
        self._free += size
        self._given.set()


def _judged(source: Source, secrets: Secrets, headers: Mapping[str, str], body: bytes) -> tuple[str, Hint | None]:
    delivery = checked(source, secrets, headers, body, time.time())
    return delivery, hint_of(source, delivery, headers, body)


@contextlib.asynccontextmanager
async def _body(request: web.Request, room: Room) -> AsyncIterator[bytes]:
    body, taken = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_any():
                size = len(body) + len(piece)
                if size > BODY_BYTES_MAX:
                    raise RefusedError("too_large")
                if size > SMALL_BYTES:
                    await room.take(size - len(body))
                    taken += size - len(body)
                body += piece
        yield bytes(body)
    except TimeoutError:
        raise RefusedError("too_slow") from None
    finally:
        room.give(taken)
