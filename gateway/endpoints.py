"""What an endpoint of `/-/api/v1` is: its path, who may use it, what it takes and answers. Routes, the check of roles
and the OpenAPI document all come from these declarations. Pure.
"""

import difflib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec

from gateway.call import Principal, Role
from gateway.mistakes import in_words

Method = Literal["GET", "POST", "PUT", "DELETE"]
Access = Literal["key", "viewer", "finops", "admin"]
"""Any gateway key, or one with at least this role."""
_RANKS: dict[Role | None, int] = {None: 0, **{role: rank for rank, role in enumerate(get_args(Role), start=1)}}
T = TypeVar("T")


class ApiError(Exception):
    """A "no" of the API. The message never holds a secret, or text of the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Detail(msgspec.Struct):
    code: str
    message: str


class Problem(msgspec.Struct):
    """The body of each answer that is a "no"."""

    error: Detail


class Asked(NamedTuple):
    """A request that may pass."""

    principal: Principal
    path: Mapping[str, str]
    """The parts of the path that have names."""
    query: Any
    """Of the endpoint's `query`."""
    body: Any
    """Of the endpoint's `body`."""


class Line(NamedTuple):
    """An answer that is a line of text."""

    text: str


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    method: Method
    path: str
    """As routes have it: `{name}`, or `{name:pattern}`."""
    access: Access
    summary: str
    serve: Callable[[Asked], Awaitable[Any]]
    """Returns what `answer` says, the same as raw JSON, or a `Line`. Raises `ApiError` and `Refusal`."""
    answer: Any
    status: int = 200
    query: Any = None
    """A struct with a default for each field that may be left out."""
    body: Any = None
    refuses: Mapping[int, str] = {}
    """What else it may answer, by status: beside what follows from access, body and query."""
    may_be_line: bool = False
    shapes: Mapping[str, str] = {}
    """Patterns of the path's parts, for the description alone."""

    def admits(self, principal: Principal) -> bool:
        return self.access == "key" or _RANKS[principal.role] >= _RANKS[self.access]


def read_body(body: bytes, kind: type[T]) -> T:
    """Raises `ApiError` with what is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _unreadable(_in_words(error, kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable("the body is not JSON") from None


def read_query(pairs: Iterable[tuple[str, str]], kind: Any) -> Any:
    """The fields of a query; `None` where the endpoint takes none. A gateway key (`key`) may stand among them."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name == "key":
            continue
        if kind is None:
            raise _unreadable("this endpoint takes no query")
        if name in given:
            raise _unreadable(f"{name} is given twice" if name in kind.__struct_fields__ else "a name is given twice")
        given[name] = value
    try:
        return None if kind is None else msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _unreadable(_in_words(error, kind)) from None


def _unreadable(what: str) -> ApiError:
    return ApiError(400, "request_unreadable", f"Outlay: {what}" + ("" if what.endswith("?") else "."))


def _in_words(error: msgspec.ValidationError, kind: Any) -> str:
    """Names the field, and the right one where it is unknown; never shows what was sent."""
    message, _, where = str(error).partition(" - at `$")
    field = where.rstrip("`").lstrip(".")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        known = kind.__struct_fields__
        near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known) or 'none'}"
        return f"there is an unknown field; {advice}"
    if message.startswith("Invalid enum value"):
        name = re.split(r"[.\[]", field)[0]
        return f"{field}: {in_words(message, get_type_hints(kind)[name])}"
    message = message.replace("Object missing", "missing")
    return f"{field}: {message}" if field else message
