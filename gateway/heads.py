"""What the head of a request says, read once for all the requests of a connection that have the same one: tools repeat
theirs. It is kept with the connection and goes with it, since secrets stand in it; and only that of a caller who may
call: strangers fill no memory. Nothing is judged here: what may be otherwise at the next request, such as a key, is
asked for each time.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

from aiohttp import web

from gateway import clients, credentials, dialects, hashing, routes
from gateway.call import PURPOSES, Call, Client
from gateway.config import Upstream
from gateway.credentials import Fields
from gateway.dialects.base import Dialect, Route
from gateway.errors import Refusal
from gateway.guard import Connection
from gateway.repositories import header_branch, repo_name
from gateway.routes import Target, region_of

TRACE = ("traceparent", "")
VARYING = frozenset({b"Content-Length", b"content-length", b"Traceparent", b"traceparent"})
"""Fields whose value is another one in each request: no part of what is kept."""
KEPT_MAX, KEPT_BYTES_MAX = 8, 8192
"""Different heads of a connection, and the size of each."""


class Way(NamedTuple):
    """How a request goes to one upstream."""

    fields: Fields
    is_signed: bool
    region: str | None


class Head(NamedTuple):
    """A request's head."""

    headers: Mapping[str, str]
    """Readable, by lower-case name; without those that vary."""
    target: Target | None
    path: str
    """The target's, without its query."""
    provider: str
    dialect: Dialect | None
    route: Route | None
    client: Client
    key: str | None
    """The digest of the gateway key."""
    record: Call
    """What it says for the record of a call, which is made of a copy."""
    credential: tuple[str, str] | None
    """What replaces the client's; `None` where that is passed on, or there is neither (`refusal`)."""
    refusal: Refusal | None
    way: Way
    """To the target's upstream."""
    upstream_path: str
    passes_trace: bool


Kept = tuple[tuple[object, ...], Head]
"""A head by all that it was read from."""


class Heads:
    """Reads heads. `own`: the credentials of upstreams."""

    def __init__(self, upstreams: Mapping[str, Upstream], own: Mapping[str, tuple[str, str]], gateway_id: str) -> None:
        self._upstreams = upstreams
        self._own = own
        self._gateway_id = gateway_id

    def read(self, request: web.Request) -> tuple[Head, Kept | None]:
        """The head; and, where it is a new one, what to `keep` once the caller may call."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        fields = request.raw_headers
        key = request.method, request.raw_path, *compress(fields, _are_kept(tuple(map(credentials.NAME, fields))))
        head: Head | None = connection.heads.get(key)
        new = None
        if head is None:
            head = self._read(request)
            new = (key, head)
        if head.passes_trace and "traceparent" in request.headers:
            traces = [("traceparent", value) for value in request.headers.getall("traceparent")]
            head = head._replace(way=head.way._replace(fields=[*head.way.fields, *traces]))
        return head, new

    def keep(self, request: web.Request, new: Kept) -> None:
        """Remember a head for the requests of its connection that come after this one."""
        connection, (key, head) = request.protocol, new
        assert isinstance(connection, Connection)
        size = sum(len(name) + len(value) for name, value in request.raw_headers)
        if head.target is None or head.refusal is not None or size > KEPT_BYTES_MAX:
            return
        if len(connection.heads) >= KEPT_MAX:
            connection.heads.clear()
        connection.heads[key] = head

    def _read(self, request: web.Request) -> Head:
        headers = credentials.readable(request.headers)
        for name in ("content-length", "traceparent"):
            headers.pop(name, None)
        target = routes.resolve(request.raw_path, headers, self._upstreams)
        path = target.path.partition("?")[0] if target else ""
        upstream = self._upstreams[target.upstream] if target else None
        provider = upstream.provider if upstream else ""
        dialect, route = dialects.find(request.method, path, provider) or (None, None)
        client = clients.recognise(headers)
        key, purpose = credentials.presented(headers, request.raw_path), headers.get("x-outlay-purpose")
        fields = [pair for pair in request.headers.items() if pair[0].lower() != "traceparent"]
        credential = refusal = None
        if target is not None:
            try:
                credential = self._credential(target.upstream, headers, request.raw_path)
            except Refusal as refused:
                refusal = refused
        return Head(
            headers=headers,
            target=target,
            path=path,
            provider=provider,
            dialect=dialect,
            route=route,
            client=client,
            key=None if key is None else hashing.digest(key.key),
            record=Call(
                call_id="",
                request_id="",
                attempt=1,
                started_us=0,
                gateway_id=self._gateway_id,
                client=client.name,
                client_version=client.version,
                session_id=client.session_id,
                repo=repo_name(headers.get("x-outlay-repo")),
                branch=header_branch(headers.get("x-outlay-branch")),
                purpose=purpose if purpose in PURPOSES else None,
                dialect=dialect.name if dialect else None,
                operation=route.operation if route else None,
            ),
            credential=credential,
            refusal=refusal,
            way=_way(fields, credential, upstream, path),
            upstream_path=credentials.without_gateway_key(target.path, any_key=credential is not None)
            if target
            else "",
            passes_trace=TRACE in credentials.end_to_end([*request.headers.items(), TRACE]),
        )

    def way(self, request: web.Request, name: str, path: str) -> Way:
        """To another upstream than the target's."""
        return _way(request.headers.items(), self._own[name], self._upstreams[name], path)

    def _credential(self, name: str, headers: Mapping[str, str], raw_path: str) -> tuple[str, str] | None:
        """The credential that replaces the client's; `None` where the client's own one is passed through. Raises the
        refusal `unauthenticated`."""
        own = credentials.brings_own(headers, raw_path)
        if own and ("x-outlay-key" in headers or name not in self._own):
            return None
        if name not in self._own:
            reference = self._upstreams[name].credential
            raise Refusal(
                "unauthenticated",
                f"Outlay: the gateway has no credential for the upstream {name}: "
                + (f"{reference} is not set where the gateway runs" if reference else "none is configured")
                + ". Or send your own provider key, and the gateway key in the x-outlay-key header.",
            )
        return self._own[name]


@lru_cache(maxsize=64)
def _are_kept(names: tuple[bytes, ...]) -> list[bool]:
    return [name not in VARYING for name in names]


def _way(
    fields: Iterable[tuple[str, str]], credential: tuple[str, str] | None, upstream: Upstream | None, path: str
) -> Way:
    sent = credentials.outgoing(fields, credential)
    return Way(sent, credentials.is_signed(sent), region_of(upstream, path) if upstream else None)
