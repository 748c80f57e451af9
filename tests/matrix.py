"""Who may ask for what: every route that the code declares, every kind of caller, and the rule for the two, said once.

`python -m tests.matrix` prints the table that stands in docs/threat-model.md.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gateway.admin import Admin
from gateway.dialects import DIALECTS
from gateway.endpoints import Endpoint
from gateway.openapi import plain_path
from gateway.webhook_routes import Webhooks
from tests.test_admin_api import declared

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
Kind = Literal["own", "hook", "api", "call", "start", "unbilled", "unknown"]
Expected = Literal["yes", "401", "403", "404", "405"]
RANKS = {None: 0, "viewer": 1, "finops": 2, "admin": 3}
NEEDS = {"key": 0, "viewer": 1, "finops": 2, "admin": 3}


@dataclass(frozen=True)
class Caller:
    """A kind of caller. `is_known`: its key is in force."""

    name: str
    grant: dict[str, Any] | None = None
    is_known: bool = True
    may: frozenset[Kind] = frozenset({"call", "start", "unbilled"})
    """What of a provider is open to it."""

    @property
    def role(self) -> str | None:
        return (self.grant or {}).get("role")


CALLERS = (
    Caller("nobody", is_known=False),
    Caller("unknown key", is_known=False),
    Caller("revoked", {}, is_known=False),
    Caller("expired", {"expires_at": 1}, is_known=False),
    Caller("claim key", is_known=False),
    Caller("key", {}),
    Caller("key of a team and user", {"team_id": "t", "user_id": "u"}),
    Caller("key of another model", {"models": ["other-*"]}, may=frozenset({"unbilled"})),
    Caller("key of another upstream", {"upstreams": ["elsewhere"]}, may=frozenset()),
    Caller("viewer", {"role": "viewer"}, may=frozenset()),
    Caller("finops", {"role": "finops"}, may=frozenset()),
    Caller("admin", {"role": "admin"}, may=frozenset()),
    Caller("admin of a team", {"role": "admin", "team_id": "t"}, may=frozenset()),
    Caller("admin of the settings", {"role": "admin"}, may=frozenset()),
    Caller("nobody, open gateway", {}),
)


@dataclass(frozen=True)
class Place:
    """A path, and who is behind it."""

    path: str
    kind: Kind
    methods: tuple[str, ...]
    """Those that it has; HEAD goes with GET at our own paths."""
    access: str = ""
    """Of an endpoint, by method."""
    provider: str = "openai"
    endpoint: Endpoint | None = None


def expected(place: Place, method: str, caller: Caller) -> Expected:
    """The rule."""
    has = method in place.methods or (method == "HEAD" and "GET" in place.methods and place.kind in ("own", "api"))
    if place.kind == "own":
        return "yes" if has else "404"
    if place.kind == "hook":
        return "401" if has else "404"  # no key opens it: only a signature
    if place.kind == "api":
        if not place.methods:
            return "404"
        if not has:
            return "405"
        if not caller.is_known:
            return "401"
        return "yes" if RANKS[caller.role] >= NEEDS[place.access] else "403"
    if not caller.is_known:
        return "401"
    if not caller.may:
        return "403"  # a role, or another upstream: before anything is said of the path
    if not has:
        return "404"
    return "yes" if place.kind in caller.may else "403"


# -- from the code ----------------------------------------------------------------------------------------------------


def own_places() -> Iterator[Place]:
    """The gateway's own paths: for each endpoint of the API a place with its one method."""
    for route in object.__new__(Webhooks).routes():
        yield Place(route.path, "hook", (route.method,))
    for route in object.__new__(Admin).routes():
        if route.path == "/-/{rest:.*}":
            yield Place("/-/unheard/of", "own", ())
        else:
            yield Place(route.path, "own", (route.method,))
    for endpoint in declared():
        yield Place(endpoint.path, "api", (endpoint.method,), endpoint.access, endpoint=endpoint)
    yield Place("/-/api/v1/unheard/of", "api", ())


def provider_places() -> Iterator[Place]:
    """A path of each route of each dialect, and one that no dialect knows."""
    for dialect in DIALECTS:
        for route in dialect.routes:
            yield Place(sampled(route.path), route.kind, (route.method,), provider=route.provider or "openai")
    yield Place("/v1/unheard/of", "unknown", ())


def sampled(pattern: re.Pattern[str]) -> str:
    """The plainest path that a pattern matches."""
    path = _sampled(re._parser.parse(pattern.pattern))
    return path if path.startswith("/") else f"/v1/x{path}"


def _sampled(parsed: Any) -> str:
    return "".join(_one(kind, value) for kind, value in parsed)


def _one(kind: Any, value: Any) -> str:
    match kind:
        case re._constants.LITERAL:
            return chr(value)
        case re._constants.IN:
            return chr(value[0][1]) if value[0][0] is re._constants.LITERAL else "m0"
        case re._constants.ANY | re._constants.NOT_LITERAL:
            return "m0"
        case re._constants.MAX_REPEAT:
            return _sampled(value[2]) * value[0]
        case re._constants.SUBPATTERN:
            return _sampled(value[3])
        case re._constants.BRANCH:
            return _sampled(value[1][0])
        case re._constants.AT | re._constants.ASSERT_NOT:
            return ""
    raise NotImplementedError(kind)


# -- the table --------------------------------------------------------------------------------------------------------

OF_PROVIDERS: dict[Kind, str] = {
    "call": "provider: calls",
    "start": "provider: batches are begun",
    "unbilled": "provider: what costs nothing",
    "unknown": "provider: any other path",
}


def table() -> list[str]:
    """Markdown: a row for each route of our own and each kind of a provider's, a column for each kind of caller."""
    rows = [("route", *(caller.name for caller in CALLERS)), ("---",) * (len(CALLERS) + 1)]
    for place in own_places():
        for method in place.methods or ("any",):
            path = plain_path(place.path)
            rows.append((f"`{method} {path}`", *(expected(place, method, caller) for caller in CALLERS)))
    for kind, name in OF_PROVIDERS.items():
        place = Place("", kind, () if kind == "unknown" else ("POST",))
        rows.append((name, *(expected(place, "POST", caller) for caller in CALLERS)))
    return ["|" + "|".join(f" {cell} " if cell != "---" else cell for cell in row) + "|" for row in rows]


def asked(place: Place, key_id: str) -> str:
    """The path to ask for."""
    path = re.sub(r"\{key_id\}", key_id, place.path)
    path = re.sub(r"\{\w+[^}]*\}", "b-1", path)
    return path + ("?model=gpt-4.1" if path == "/-/api/v1/prices" else "")


if __name__ == "__main__":
    print("\n".join(table()))
