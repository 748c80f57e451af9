"""The console as a server: what every request passes before a page is made, and what every answer has.

In this order: the name it was asked by, the route, who is signed in, the role, and of changes where they come from.
"""

import asyncio
import contextlib
import functools
import logging
import math
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web

from analytics.web import asking, auth, budgets, keys, oidc, pages, quality, questions, signin, tickets, waste
from analytics.web.asking import AskError, Asking
from analytics.web.sessions import Attempts, Sessions
from analytics.web.visit import STATIC, Console, Download, Page, ProblemError, Visit
from gateway.admin_api import KeysApi
from gateway.app import budget_file
from gateway.budgets import Budgets
from gateway.budgets_api import BudgetsApi
from gateway.claims import Claims
from gateway.config import Config, is_loopback
from gateway.endpoints import Endpoint
from gateway.errors import UserError
from gateway.keys import Keys, of_settings
from gateway.tickets import Tickets
from gateway.tracker import Tracker

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # "no-referrer" would make the origin of our own forms "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "outlay",
}
FORM_BYTES_MAX = 262_144

log = logging.getLogger("outlay.console")


def routes() -> list[Page]:
    parts = (signin, oidc, pages, tickets, waste, quality, budgets, keys, questions)
    return [page for part in parts for page in part.PAGES]


@contextlib.asynccontextmanager
async def serving(
    config: Config,
    data: Path,
    *,
    port: int | None = None,
    gateway: str | None = None,
    base: asking.Base = asking.PAGES,
) -> AsyncIterator[str]:
    """Serve while the block runs. Yields where. Raises `OSError`, `UserError`."""
    if not await asyncio.to_thread(data.is_dir):
        raise UserError(f"there is no data folder {data}: name the one that the gateway writes to")
    settings = config.console
    listener = _listener(settings.host, settings.port if port is None else port)
    url = settings.url or f"http://{_host(settings.host)}:{listener.getsockname()[1]}"
    configured = of_settings(config.auth)
    ring = Keys(data, configured)
    if not is_loopback(settings.host) and not auth.can_anybody_sign_in(ring, configured, config):
        listener.close()
        raise UserError("the console is not on 127.0.0.1 and nobody could sign in: see docs/console.md")
    console = Console(
        config=config,
        data=data,
        url=url,
        ring=ring,
        configured=configured,
        asks=Asking(data, settings.query_seconds, settings.queries, base),
        sessions=Sessions(settings.idle_minutes * 60, settings.session_hours * 3600),
        attempts=Attempts(),
        apis=_endpoints(config, data, ring),
        gateway=gateway,
        provider=oidc.Provider(settings.oidc) if settings.oidc.issuer else None,
        secret=secrets.token_bytes(32),
    )
    runner = web.AppRunner(application(console), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        if base.most < math.inf:
            console.asks.begin()
        yield url
    finally:
        await runner.cleanup()
        await console.asks.close()


def _endpoints(config: Config, data: Path, ring: Keys) -> dict[str, Endpoint]:
    """Those of the admin API that pages use: they write the files that the gateway reads, and ask it nothing."""
    tracker = Tracker(data)
    tracker.refresh()
    tickets = Tickets(config.tickets, Claims(ring.claim_key), tracker)
    made = [
        *KeysApi(ring, tickets, config.upstreams).endpoints(),
        # The balances of running calls are the gateway's alone: see `budgets.holds`.
        *BudgetsApi(budget_file(config, data), Budgets()).endpoints(),
    ]
    return {f"{endpoint.method} {endpoint.path}": endpoint for endpoint in made}


def application(console: Console) -> web.Application:
    app = web.Application(client_max_size=FORM_BYTES_MAX, middlewares=[_guarded(console)])
    for page in routes():
        app.router.add_route(page.method, page.path, functools.partial(_serve, console, page))
    app.router.add_get("/static/{name}", _static)
    app.router.add_get("/healthz", _healthz)
    return app


def _listener(host: str, port: int) -> socket.socket:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# -- before a page ----------------------------------------------------------------------------------------------------


def _guarded(console: Console) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        response = await _answer(console, request, handler)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guard


async def _answer(console: Console, request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path != "/healthz" and not is_own_host(console, request.headers.get("Host", "")):
        return web.Response(status=421, text=f"The console is reached at {console.url}\n")
    visit = Visit(console, request, None)
    try:
        visit = _visit(console, request)
        response: web.StreamResponse = await handler(request)
        return response
    except Download as download:
        return web.Response(
            text=download.text,
            content_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="outlay-{quote(download.name, safe="")}.csv"'},
        )
    except ProblemError as problem:
        return _problem(visit, problem.status, problem.title, problem.text)
    except AskError as error:
        return _problem(visit, 503, "No answer", str(error))
    except web.HTTPNotFound:
        return _problem(visit, 404, "There is no such page", "The menu leads to all there are.")
    except web.HTTPMethodNotAllowed as error:
        return web.Response(
            status=405, text="This is not done here in that way.\n", headers={"Allow": error.headers["Allow"]}
        )
    except web.HTTPRedirection as redirection:
        return web.Response(status=redirection.status, headers={"Location": redirection.headers["Location"]})
    except web.HTTPException as error:
        return _problem(visit, error.status, error.reason, "The console does not take this.")
    except Exception as error:
        log.exception("a page failed", exc_info=error)
        return _problem(visit, 500, "This page failed", "The log of the console says where.")


def is_own_host(console: Console, host: str) -> bool:
    """Asked for by a name of ours: a page whose name was made to lead here asks by its own."""
    own = urlsplit(console.url)
    if host.lower() == own.netloc.lower():
        return True
    if console.config.console.url or not is_loopback(own.hostname or ""):
        return False
    try:
        asked = urlsplit(f"//{host}")
        return asked.port == own.port and is_loopback(asked.hostname or "")
    except ValueError:
        return False


def _visit(console: Console, request: web.Request) -> Visit:
    token = signin.cookie(console, request, "session")
    session = console.sessions.find(token)
    if session is not None and not auth.is_in_force(console.ring, session.principal, session.proof):
        console.sessions.end(token)
        session = None
    return Visit(console, request, session)


async def _serve(console: Console, page: Page, request: web.Request) -> web.StreamResponse:
    visit = _visit(console, request)
    session = visit.session
    if page.access != "anybody":
        if session is None:
            raise web.HTTPSeeOther(signin.address(request) if request.method == "GET" else "/sign-in")
        if not visit.may(page.access):
            return _problem(
                visit,
                403,
                "Not with this role",
                f"You are signed in as {session.principal.role}; this needs {page.access}.",
            )
    if page.method == "POST":
        if not is_same_origin(console, request):
            return _problem(visit, 403, "This came from elsewhere", "Go to the page in the console, and do it there.")
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        given = form.pop("csrf", "")
        if not (session.is_answered_by(given) if session else signin.is_form_of(visit, given)):
            return _problem(visit, 403, "This form is too old", "Go back, load the page again, and send it once more.")
        visit.form = form
    return await page.serve(visit)


def is_same_origin(console: Console, request: web.Request) -> bool:
    """True for a form of our own: browsers say where each one comes from."""
    origin = request.headers.get("Origin")
    if origin is None:
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    scheme, _, host = origin.partition("://")
    return scheme == urlsplit(console.url).scheme and host.lower() == request.headers.get("Host", "").lower()


def _problem(visit: Visit, status: int, title: str, text: str) -> web.Response:
    return visit.show("problem.html", status, title=title, text=text)


# -- beside the pages -------------------------------------------------------------------------------------------------

KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    return web.Response(
        body=STATIC[name],
        content_type=KINDS[name.rpartition(".")[2]],
        charset="utf-8",
        headers={"Cache-Control": "public, max-age=31536000, immutable" if "v" in request.query else "no-cache"},
    )


async def _healthz(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
