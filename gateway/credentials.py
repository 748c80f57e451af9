"""The credential swap: takes the gateway key out of a request and puts the upstream's own credential in.

This is one of the few named changes to what a client sends; the other is the removal of hop-by-hop fields (RFC 9110
§7.6.1) and of `x-outlay-*`.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import Literal, NamedTuple
from urllib.parse import unquote

from multidict import MultiMapping

from gateway import hashing
from gateway.call import Principal
from gateway.errors import Refusal
from gateway.keys import PREFIX, Keys

Fields = list[tuple[str, str]]
NAME = itemgetter(0)
"""Of a field."""

CREDENTIAL_FIELDS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
KEY_PROTOCOL = "openai-insecure-api-key."
"""How browsers carry a key to OpenAI's realtime API."""
HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
LISTS_NOTHING = frozenset({"keep-alive", "close"})
"""Values of the field `Connection` that name no other field."""
METHOD_FIELDS = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
"""What is judged here is the method that a request has: a server must not take it for another."""
LEFT_OUT = METHOD_FIELDS | {"host", "content-length", "expect"}
OURS = ("x-outlay-", "sec-websocket-")
AUTH_BY_PROVIDER = {"anthropic": "x-api-key", "gcp.gemini": "x-goog-api-key", "azure.ai.openai": "api-key"}


def readable(fields: Mapping[str, str]) -> dict[str, str]:
    """Header fields by lower-case name. Bytes that are no UTF-8 become `?`: what we read must be printable. Of a field
    that comes twice the last one counts; tickets are a list, which may come in parts (RFC 9110 §5.3)."""
    found: dict[str, str] = {}
    for spelled, value in fields.items():
        name = (_names.get(spelled) or _named(spelled)).lower
        if not value.isascii():
            value = value.encode("utf-8", "replace").decode()
        found[name] = f"{found[name]},{value}" if name == "x-outlay-ticket" and name in found else value
    return found


def authenticate(key_ring: Keys, mode: Literal["keys", "open"], digest: str | None) -> Principal:
    """Who presents a key of this digest, as of the last `refresh`. Raises the refusal `unauthenticated`."""
    return Principal() if mode == "open" and digest is None else key_ring.of_digest(digest)


LOCAL_PAGE = re.compile(r"https?://(?:(?:[\w-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.ASCII)


def check_page(headers: Mapping[str, str]) -> None:
    """Raises the refusal `forbidden` of a request without a key that the page of another site made a browser send: any
    page could spend at an open gateway. Browsers name the page with each request that is more than reading (Fetch,
    "Origin header")."""
    origin = headers.get("origin", "")
    if origin == "null" or (origin.startswith(("http://", "https://")) and not LOCAL_PAGE.fullmatch(origin)):
        raise Refusal(
            "forbidden",
            "Outlay: this gateway is open to the programs of this machine, and not to web pages. Give the page a key: "
            "`outlay keys create` makes one.",
        )


def authenticate_api(key_ring: Keys, mode: Literal["keys", "open"], headers: Mapping[str, str], path: str) -> Principal:
    """Who asks below `/-/api`. A key with a role is taken only from fields that no address, and so no log, holds."""
    found = presented(headers, path)
    key_ring.refresh()
    principal = authenticate(key_ring, mode, None if found is None else hashing.digest(found.key))
    if found is None:
        check_page(headers)
    if principal.role is not None and (found is None or found.place not in ("x-outlay-key", "bearer")):
        raise Refusal(
            "unauthenticated", "Outlay: send a key with a role as Authorization: Bearer, or in the x-outlay-key header."
        )
    return principal


class Presented(NamedTuple):
    """A gateway key, and where in a request it stands: the name of a header field, `bearer`, or `address`."""

    key: str
    place: str


def presented(headers: Mapping[str, str], path: str) -> Presented | None:
    """The gateway key of a request (header names in lower case), from wherever its dialect puts keys."""
    if key := headers.get("x-outlay-key"):
        return Presented(key.strip(), "x-outlay-key")
    for name in CREDENTIAL_FIELDS:
        if name not in headers:
            continue
        value, place = headers[name].strip(), name
        if name == "authorization" and value[:7].lower() == "bearer ":
            value, place = value[7:].strip(), "bearer"
        if value.startswith(PREFIX):
            return Presented(value, place)
    if "?" not in path and "sec-websocket-protocol" not in headers:
        return None
    offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
    named = [name.removeprefix(KEY_PROTOCOL) for name in offered if name.startswith(KEY_PROTOCOL)]
    found = [(key, "address") for key in _query_keys(path)] + [(key, "sec-websocket-protocol") for key in named]
    return next((Presented(*each) for each in found if each[0].startswith(PREFIX)), None)


def protocols(offered: str, *, own: bool) -> list[str]:
    """The WebSocket subprotocols to offer the upstream: without gateway keys, and without any key in one unless the
    client's own credential is passed on. Browsers can put a key nowhere else."""
    names = [name.strip() for name in offered.split(",")]
    return [name for name in names if name and PREFIX not in name and (own or not name.startswith(KEY_PROTOCOL))]


def _query_keys(path: str) -> list[str]:
    """The values of `key=` in a raw path's query."""
    return [unquote(pair[4:]) for pair in path.partition("?")[2].split("&") if pair.startswith("key=")]


def brings_own(headers: Mapping[str, str], path: str) -> bool:
    """True when the request carries a credential that is not a gateway key."""
    values = [headers[name] for name in CREDENTIAL_FIELDS if name in headers]
    values += _query_keys(path) if "?" in path else ()
    return any(value and PREFIX not in value for value in values)


class _Name(NamedTuple):
    lower: str
    kind: Literal["", "hop", "left out", "credential"]
    is_ours: bool


_names: dict[str, _Name] = {}
NAMES_MAX, NAME_CHARS_MAX = 1000, 64
"""Of so many spellings it is remembered what they name: tools repeat them."""


def _named(spelled: str) -> _Name:
    name = spelled.lower()
    kind: Literal["", "hop", "left out", "credential"] = ""
    if name in HOP_BY_HOP:
        kind = "hop"
    elif name in LEFT_OUT or name.startswith(OURS):
        kind = "left out"
    elif name in CREDENTIAL_FIELDS:
        kind = "credential"
    named = _Name(name, kind, name.startswith("x-outlay-"))
    if len(spelled) <= NAME_CHARS_MAX:
        if len(_names) >= NAMES_MAX:
            _names.clear()  # strangers can name fields, too
        _names[spelled] = named
    return named


def end_to_end(fields: Iterable[tuple[str, str]]) -> Fields:
    """Header fields without the hop-by-hop ones, in their order and spelling."""
    kept: Fields = []
    listed = ""
    for pair in fields:
        name = _names.get(pair[0]) or _named(pair[0])
        if name.kind != "hop":
            kept.append(pair)
        elif name.lower == "connection":
            listed += pair[1].lower() + ","
    if listed in ("", "keep-alive,", "close,"):
        return kept
    also = {name.strip() for name in listed.split(",")}
    return [pair for pair in kept if pair[0].lower() not in also]


def outgoing(fields: Iterable[tuple[str, str]], credential: tuple[str, str] | None) -> Fields:
    """The fields to forward. With `credential` (field name, value) it replaces every credential the client sent;
    without, only gateway keys are taken out."""
    kept: Fields = []
    for pair in end_to_end(fields):
        kind = (_names.get(pair[0]) or _named(pair[0])).kind
        if kind == "" or (kind == "credential" and credential is None and PREFIX not in pair[1]):
            kept.append(pair)
    return kept if credential is None else [*kept, credential]


def returned(fields: MultiMapping[str]) -> Iterable[tuple[str, str]]:
    """The fields of an answer to pass on: none that we set ourselves. An upstream's answers all have the same names."""
    if LISTS_NOTHING.issuperset(fields.getall("connection", ())):
        pairs = fields.items()
        return compress(pairs, _are_returned(tuple(map(NAME, pairs))))
    return [pair for pair in end_to_end(fields.items()) if not _named(pair[0]).is_ours]


@lru_cache(maxsize=64)
def _are_returned(names: tuple[str, ...]) -> list[bool]:
    return [named.kind != "hop" and not named.is_ours for named in map(_named, names)]


def without_encoding(fields: Fields) -> Fields:
    """For an answer that is read or changed on its way: the provider then sends it plain."""
    return [(name, value) for name, value in fields if name.lower() != "accept-encoding"]


def is_signed(fields: Fields) -> bool:
    """True for a request whose bytes its client has signed (AWS Signature Version 4): changed, it is rejected."""
    return any([value.startswith("AWS4-") and name.lower() == "authorization" for name, value in fields])  # noqa: C419


def of_decoded(fields: Fields) -> Fields:
    """For a body that is sent decoded, in place of the client's."""
    return [(name, value) for name, value in fields if name.lower() != "content-encoding"]


def without_gateway_key(path: str, *, any_key: bool) -> str:
    """The raw path without each `key=` that is ours, or without any when the upstream's credential replaces it."""
    plain, question, query = path.partition("?")
    if not query:
        return path
    kept = [
        pair
        for pair in query.split("&")
        if not (pair.startswith("key=") and (any_key or unquote(pair[4:]).startswith(PREFIX)))
    ]
    return plain + question + "&".join(kept) if kept else plain


def field_for(provider: str, auth: str | None, value: str) -> tuple[str, str]:
    """The header field in which an upstream expects its credential."""
    name = auth or AUTH_BY_PROVIDER.get(provider, "bearer")
    return ("Authorization", f"Bearer {value}") if name == "bearer" else (name, value)
