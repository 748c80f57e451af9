"""`/-/api/v1` over HTTP: who may pass, JSON in and out, and each "no" in one form."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from gateway import openapi
from gateway.call import Principal
from gateway.endpoints import ApiError, Asked, Detail, Endpoint, Line, Problem, read_body, read_query
from gateway.errors import Refusal

BODY_BYTES_MAX = 65_536
BODY_SECONDS = 10.0
HEADERS = {"Cache-Control": "no-store", "Server": "outlay", "X-Content-Type-Options": "nosniff"}
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class HttpApi:
    """Serves endpoints. `authenticate` tells who asks, or raises a refusal."""

    def __init__(self, endpoints: Sequence[Endpoint], authenticate: Callable[[web.Request], Principal]) -> None:
        self.endpoints = (*endpoints, self._description())
        self._authenticate = authenticate

    def routes(self) -> list[web.RouteDef]:
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in self.endpoints:
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        known = [web.route("*", path, functools.partial(self._serve, methods)) for path, methods in by_path.items()]
        return [*known, web.route("*", "/-/api{rest:(?:/.*)?}", self._unknown)]

    def _description(self) -> Endpoint:
        async def describe(asked: Asked) -> Any:
            return openapi.document(self.endpoints)

        return Endpoint(
            method="GET",
            path="/-/api/v1/openapi.json",
            access="key",
            summary="This description.",
            serve=describe,
            answer=dict[str, Any],
        )

    async def _serve(self, methods: dict[str, Endpoint], request: web.Request) -> web.Response:
        try:
            endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
            if endpoint is None:
                allowed = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
                response = _error(405, "method_not_allowed", f"Outlay: this endpoint takes {allowed}.")
                response.headers["Allow"] = allowed
                return response
            principal = self._admitted(request, endpoint)
            query = read_query(request.query.items(), endpoint.query)
            body = None
            if endpoint.body is not None:
                body = read_body(await _body(request), endpoint.body)
                principal = self._admitted(request, endpoint)  # a body takes time, in which a key may end
            answer = await endpoint.serve(Asked(principal, request.match_info, query, body))
            if isinstance(answer, Line):
                return web.Response(text=answer.text + "\n", headers=HEADERS)
            return _json(endpoint.status, answer)
        except Refusal as refusal:
            return _refused(refusal)
        except ApiError as error:
            return _error(error.status, error.code, error.message)

    def _admitted(self, request: web.Request, endpoint: Endpoint) -> Principal:
        principal = self._authenticate(request)
        if not endpoint.admits(principal):
            raise Refusal("forbidden", f"Outlay: this needs a key with the role {endpoint.access} (docs/api.md).")
        return principal

    async def _unknown(self, request: web.Request) -> web.Response:
        return _error(404, "not_found", "Outlay: there is no such endpoint; /-/api/v1/openapi.json describes them.")


async def _body(request: web.Request) -> bytes:
    """Only what no form of a web page can send."""
    if request.content_type != "application/json" or "Content-Encoding" in request.headers:
        raise ApiError(
            415, "unsupported_media_type", "Outlay: send Content-Type: application/json, and no Content-Encoding."
        )
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise Refusal("request_too_large", f"Outlay: the body has more than {BODY_BYTES_MAX:,} bytes.")
    except TimeoutError:
        raise ApiError(408, "request_timeout", f"Outlay: the body did not come within {BODY_SECONDS:g} s.") from None
    return bytes(body)


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=_ENCODER.encode(value), content_type="application/json", headers=HEADERS)


def _refused(refusal: Refusal) -> web.Response:
    response = _error(refusal.status, refusal.code, refusal.message)
    response.headers["x-outlay-refusal"] = refusal.code
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Outlay"'
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    return _json(status, Problem(Detail(code, message)))
