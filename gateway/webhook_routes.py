"""`POST /-/webhooks/{github,gitlab,jira,linear}`: answered as soon as the delivery is on the disk. No key opens these,
only a signature; where no secret is set there is no such endpoint."""

import asyncio
import functools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from aiohttp import web

from gateway.config import WorkSettings, secret
from gateway.telemetry import Telemetry
from gateway.webhook_queue import WebhookQueue
from gateway.webhooks import Reason, RefusedError, Secrets, Source, checked, hint_of

BODY_BYTES_MAX = 26_214_400
"""GitHub sends at most 25 MB."""
BODY_SECONDS = 10.0
READERS_MAX = 4
"""Bodies in memory at a time: they are whole before anybody knows who sent them."""
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
        self._readers = asyncio.Semaphore(READERS_MAX)
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
        async with self._readers:
            body = await _body(request)
            delivery = checked(source, secrets, headers, body, time.time())
            hint = hint_of(source, delivery, headers, body)
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


async def _body(request: web.Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise RefusedError("too_large")
    except TimeoutError:
        raise RefusedError("too_slow") from None
    return bytes(body)
