"""Sign-in with a key, sign-out, and the cookies of both."""

import hmac
import secrets
from urllib.parse import quote, urlsplit

from aiohttp import web

from analytics.web import auth
from analytics.web.visit import Console, Page, Visit
from gateway.call import Principal

FORM_SECONDS = 3600


def cookie_name(console: Console, kind: str) -> str:
    """Under https with a prefix that keeps other hosts of the domain from setting it; with the port, for browsers give
    cookies to all of a host."""
    port = urlsplit(console.url).port
    name = f"outlay_{kind}" if port is None else f"outlay_{port}_{kind}"
    return f"__Host-{name}" if console.is_https else name


def cookie(console: Console, request: web.Request, kind: str) -> str:
    """What a browser sent; empty where it is none of ours."""
    given = request.cookies.get(cookie_name(console, kind), "")
    return given if given.isascii() else ""


def put_cookie(console: Console, response: web.Response, kind: str, value: str, seconds: int | None = None) -> None:
    response.set_cookie(
        cookie_name(console, kind),
        value,
        max_age=seconds,
        httponly=True,
        secure=console.is_https,
        samesite="Lax",
        path="/",
    )


def drop_cookie(console: Console, response: web.Response, kind: str) -> None:
    response.del_cookie(cookie_name(console, kind), path="/", secure=console.is_https, httponly=True, samesite="Lax")


def address(request: web.Request) -> str:
    """Of the form, with where to go on."""
    wanted = request.rel_url.raw_path_qs
    return "/sign-in" if wanted == "/" else f"/sign-in?next={quote(wanted, safe='')}"


def after(wanted: str | None) -> str:
    """Where to go on: a page of ours, whatever was asked for."""
    if wanted and wanted.startswith("/") and not wanted.startswith(("//", "/\\", "/sign-")) and wanted.isprintable():
        return wanted
    return "/"


# -- the form's token: nobody is signed in yet, so nothing is kept of it here -----------------------------------------


def _form_token(console: Console, nonce: str) -> str:
    return hmac.new(console.secret, b"form:" + nonce.encode(), "sha256").hexdigest()


def is_form_of(visit: Visit, given: str) -> bool:
    nonce = cookie(visit.console, visit.request, "form")
    return bool(nonce) and hmac.compare_digest(_form_token(visit.console, nonce).encode(), given.encode())


def _form(visit: Visit, status: int = 200, said: str = "") -> web.Response:
    nonce = cookie(visit.console, visit.request, "form") or secrets.token_urlsafe(16)
    wanted = visit.form.get("next") or visit.request.query.get("next") or ""
    response = visit.show(
        "sign_in.html", status, said=said, token=_form_token(visit.console, nonce), next=after(wanted),
        is_ready=visit.console.can_anybody_sign_in,
    )  # fmt: skip
    put_cookie(visit.console, response, "form", nonce, FORM_SECONDS)
    return response


# -- pages ------------------------------------------------------------------------------------------------------------


async def ask(visit: Visit) -> web.Response:
    if visit.session is not None:
        raise web.HTTPSeeOther(after(visit.request.query.get("next")))
    return _form(visit)


async def take(visit: Visit) -> web.Response:
    console, address = visit.console, visit.request.remote or ""
    if wait := console.attempts.wait(address):
        response = _form(visit, 429, f"Too many sign-ins have failed. Try again in {wait:.0f} seconds.")
        response.headers["Retry-After"] = f"{wait:.0f}"
        return response
    secret = visit.form.get("key", "").strip()
    try:
        principal = auth.principal_of(console.ring, secret)
    except auth.SignInError as error:
        console.attempts.failed(address)
        return _form(visit, 403, str(error))
    return let_in(visit, principal, principal.key_id or "", auth.proof_of(secret), visit.form.get("next"))


def let_in(visit: Visit, principal: Principal, name: str, proof: str, wanted: str | None) -> web.Response:
    token, _ = visit.console.sessions.begin(principal, name, proof)
    response = web.Response(status=303, headers={"Location": after(wanted)})
    put_cookie(visit.console, response, "session", token)
    drop_cookie(visit.console, response, "form")
    return response


async def leave(visit: Visit) -> web.Response:
    visit.console.sessions.end(cookie(visit.console, visit.request, "session"))
    response = web.Response(status=303, headers={"Location": "/sign-in"})
    drop_cookie(visit.console, response, "session")
    return response


PAGES = [
    Page("GET", "/sign-in", "anybody", ask),
    Page("POST", "/sign-in", "anybody", take),
    Page("POST", "/sign-out", "viewer", leave),
]
