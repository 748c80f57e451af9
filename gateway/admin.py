"""The gateway's own endpoints below `/-/`. They are never forwarded."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.budgets import Budgets
from gateway.ledger import Ledger, now_us
from gateway.telemetry import CONTENT_TYPE, Telemetry


class Admin:
    """Health and metrics."""

    def __init__(self, ledger: Ledger, telemetry: Telemetry, budgets: Budgets) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._telemetry = telemetry
        self.draining = False
        self.gather: Callable[[], Awaitable[None]] | None = None
        """Brings in what workers count."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/-/healthz", self.healthz),
            web.get("/-/readyz", self.readyz),
            web.get("/-/metrics", self.metrics),
            web.route("*", "/-/{rest:.*}", self.unknown),
        ]

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the process can answer at all."""
        return web.json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """200 while calls can be taken; 503 with the reason while not."""
        reason = "draining" if self.draining else self._ledger.failure
        if reason is not None:
            return web.json_response({"status": "not ready", "reason": reason}, status=503)
        return web.json_response({"status": "ready"})

    async def metrics(self, request: web.Request) -> web.Response:
        if self.gather is not None:
            await self.gather()
        self._telemetry.balances(self._budgets, now_us())
        self._telemetry.journal_failed.set(self._ledger.failure is not None)
        return web.Response(body=self._telemetry.render(), headers={"Content-Type": CONTENT_TYPE})

    async def unknown(self, request: web.Request) -> web.Response:
        return web.json_response({"error": "there is no such endpoint below /-/"}, status=404)
