"""Where a request goes: upstream, and the path to ask it for. The raw path and query are kept as sent."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import unquote

import msgspec

from gateway.config import Upstream

ABSOLUTE_FORM = re.compile(r"https?://[^/?#]*(?=/)", re.IGNORECASE)
AMBIGUOUS = re.compile(r"(?:^|/|\\|%2f|%5c)(?:\.|%2e){1,2}(?:/|\\|;|%2f|%5c|%3b|\?|$)", re.IGNORECASE)
"""Dot segments, also with parameters (`..;`): what we judge might not be what the provider serves."""
TICKET_PREFIX = re.compile(r"/t/([^/?]{1,400})(?:/task/([^/?]{1,400}))?(?=/)")


class Target(msgspec.Struct, frozen=True):
    """A request's destination."""

    upstream: str
    path: str
    """Raw path and query to append to the upstream's base URL."""
    ticket: str | None = None
    task: str | None = None


def resolve(raw: str, headers: Mapping[str, str], upstreams: Collection[str]) -> Target | None:
    """The target of a raw path and query; `None` when nothing is configured for it.

    `/{upstream}/…` goes to that upstream. Bare paths, for tools that take only a host, are told apart by path, header
    and query. Both may stand behind `/t/{ticket}` or `/t/{ticket}/task/{id}` (`#` of a ticket is written `~`).
    """
    marks = tuple(name for name in TELLING if name in headers)
    # What stands behind a question mark may be a key, which outlives no connection (`heads`).
    is_plain = "?" not in raw and len(raw) <= REMEMBERED_CHARS_MAX
    place = _placed(raw, marks) if is_plain else _placed.__wrapped__(raw, marks)
    if place is None:
        return None
    raw, ticket, task, bare = place
    name, _, rest = raw[1:].partition("/")
    if name in upstreams and rest:
        return Target(name, "/" + rest, ticket, task)
    return Target(bare, raw, ticket, task) if bare in upstreams else None


REMEMBERED_CHARS_MAX = 512
TELLING = ("anthropic-version", "x-goog-api-key")
"""Fields whose presence tells where a bare path leads."""


@lru_cache(maxsize=1024)
def _placed(raw: str, marks: Collection[str]) -> tuple[str, str | None, str | None, str] | None:
    """The path without what stands before it, its ticket and task, and the upstream of a bare path."""
    ticket = task = None
    raw = without_origin(raw)
    if AMBIGUOUS.search(raw.partition("?")[0]) or "#" in raw:
        return None
    if prefix := TICKET_PREFIX.match(raw):
        ticket = _ticket(prefix[1])
        task = None if prefix[2] is None else unquote(prefix[2])
        raw = raw[prefix.end() :]
    return raw, ticket, task, _bare(raw, marks)


def without_origin(raw: str) -> str:
    """A target without the scheme and host that it may have: servers must accept these (RFC 9112 §3.2.2)."""
    absolute = ABSOLUTE_FORM.match(raw)
    return raw if absolute is None else raw[absolute.end() :]


LOCATION = re.compile(r"/locations/([a-z0-9-]+)/")
REGIONAL_HOST = re.compile(r"//([a-z]{2})\.api\.(?:openai\.com|x\.ai)")


def region_of(upstream: Upstream, path: str) -> str | None:
    """Where an upstream computes: as configured, or as Vertex' paths and the hosts of OpenAI and xAI name it."""
    if upstream.region is not None:
        return upstream.region
    if upstream.provider == "gcp.vertex_ai":
        found = LOCATION.search(path) or LOCATION.search(upstream.base_url + "/")
    else:
        found = REGIONAL_HOST.search(upstream.base_url)
    return found[1] if found and found[1] != "global" else None


def _ticket(part: str) -> str:
    """`acme~shop~45` is `acme/shop#45`, also of several with commas; anything else is taken as it is."""
    return ",".join(written_out(each) for each in unquote(part).split(","))


def written_out(ticket: str) -> str:
    """The name of one ticket that stood in a path."""
    *repo, number = ticket.split("~")
    return f"{'/'.join(repo)}#{number}" if len(repo) > 1 else ticket


GEMINI = re.compile(r"/v1(?:alpha|beta)/|/(?:upload|download)/v1(?:alpha|beta)?/|/ws/google\.")
KEY_IN_QUERY = re.compile(r"(?:^|&)key=")
GOOGLES = re.compile(r"/v1/(?:models|tunedModels|files|fileSearchStores|cachedContents|interactions|batches)\b")
"""What Google has behind `/v1/`, for which its SDK asks where it is given a base URL; some of it OpenAI has, too."""


def _bare(raw: str, marks: Collection[str]) -> str:
    path, _, query = raw.partition("?")
    if path.startswith("/model/"):
        return "bedrock"
    if GEMINI.match(path):
        return "gemini"
    if not path.startswith("/v1/"):
        return ""
    if path.startswith("/v1/messages") or path == "/v1/complete":
        return "anthropic"
    if "x-goog-api-key" in marks or (KEY_IN_QUERY.search(query) and GOOGLES.match(path)):
        return "gemini"
    if path.startswith("/v1/models") and re.search(r":|%3a", path, re.IGNORECASE):
        return "gemini"
    return "anthropic" if "anthropic-version" in marks else "openai"
