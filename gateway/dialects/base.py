"""What a dialect is: a few pure functions over bytes and JSON of one wire format. Dialects do not know each other."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from gateway.call import Answer, Ask, Usage
from gateway.errors import Refusal
from gateway.reading import count, tidied

T = TypeVar("T", bound=msgspec.Struct)


class Route(msgspec.Struct, frozen=True):
    """A path of the provider's API (`path`: a pattern for its end, without the query)."""

    method: str
    path: re.Pattern[str]
    operation: str | None
    """OpenTelemetry's operation name; `None` for what a provider does not bill: counting, listing, reading again."""


class Dialect(msgspec.Struct, frozen=True):
    """One wire format."""

    name: str
    routes: tuple[Route, ...]
    read_ask: Callable[[str, bytes], Ask]
    """(path, decoded body) → what is asked. Raises `Refusal("request_unreadable")`."""
    may_matter: re.Pattern[bytes]
    """A stream event in which this is not found holds neither usage nor the end, and is not decoded."""
    fold: Callable[[Answer, Mapping[str, Any], str], None]
    """(answer, one JSON object: a whole answer or one event of a stream, provider) → taken in. Odd values never raise.

    The provider matters because servers that speak one wire format mean different things by it."""
    refuse: Callable[[Refusal], tuple[dict[str, str], Any]]
    """Headers and JSON body of a refusal, shaped so that tools of this dialect stop and show its message."""
    fold_headers: Callable[[Answer, Mapping[str, str]], None] | None = None
    """Takes what only the answer's header fields (case-insensitive) have, after the body."""


def route(method: str, path: str, operation: str | None) -> Route:
    return Route(method, re.compile(path), operation)


def last_wins(usage: Usage, name: str, value: Any) -> None:
    """Set one count where the provider gave one: a stream may state it many times, the last statement is the bill."""
    number = count(value)
    if number is not None:
        setattr(usage, name, number)


def read_request(body: bytes, shape: type[T]) -> T:
    """Decode only the fields of `shape` from a request body; raises the refusal `request_unreadable`."""
    try:
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(tidied(body), type=shape)
    except msgspec.ValidationError as error:
        raise Refusal("request_unreadable", f"The request body is not what this API takes: {error}.") from None
    except (ValueError, RecursionError):
        raise Refusal("request_unreadable", "The request body is not valid JSON.") from None
