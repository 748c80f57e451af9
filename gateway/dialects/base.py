"""What a dialect is: a few pure functions over bytes and JSON of one wire format. Dialects do not know each other."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from gateway.call import Answer, Ask, SubPass, Usage
from gateway.edits import renamed
from gateway.errors import Refusal
from gateway.framing import Event
from gateway.reading import amount, count, tidied, whole_number

T = TypeVar("T")
NO_VALUE = msgspec.Raw()


class Route(msgspec.Struct, frozen=True):
    """A path of the provider's API (`path`: a pattern for its end, without the query)."""

    method: str
    path: re.Pattern[str]
    operation: str | None
    """OpenTelemetry's operation name; `None` for what a provider does not bill: counting, listing, reading again."""
    settles: bool = False
    """An unbilled route whose answer may bring the usage of an earlier request: of background work, of a batch."""
    starts: bool = False
    """An unbilled route that starts what is billed later: a batch."""
    provider: str | None = None
    """Only this provider means that by the path."""

    @property
    def kind(self) -> Literal["call", "start", "unbilled"]:
        """What its requests are: billed by their answer, billed later (a batch is started), or never."""
        return "call" if self.operation is not None else "start" if self.starts else "unbilled"


class Caller(NamedTuple):
    """To whom a refusal is written."""

    client: str | None = None
    """The tool's name, as `clients` knows it: tools stop at different answers."""
    request_id: str | None = None


class Written(NamedTuple):
    """A refusal on the wire. The status may be another one than the refusal's own."""

    status: int
    headers: dict[str, str]
    body: Any


class Ending(Protocol):
    """How a running stream is ended from our side: with the dialect's own terminal events, so that tools take it for an
    answer that reached its maximum. Keeps what these events must repeat (id, model, what is still open).

    Made for one stream, and only where a budget may stop it: `meter.ending = dialect.ending(path, body)`. The meter
    lets it `see` every event that passes; `meter.end(usage)` gives the bytes. Odd values never raise.
    """

    def see(self, event: Mapping[str, Any]) -> None:
        """One event, decoded, as `fold` has it."""

    def events(self, usage: Usage) -> list[Event] | None:
        """What ends the stream after the events seen; empty where it has ended. `None` where nothing can: it has not
        begun, or is of a kind that is not known here. `usage`: what is billed up to now."""


class Dialect(msgspec.Struct, frozen=True):
    """One wire format."""

    name: str
    routes: tuple[Route, ...]
    read_ask: Callable[[str, bytes], Ask]
    """(path, decoded body) → what is asked. Raises `Refusal("request_unreadable")`."""
    may_matter: re.Pattern[bytes]
    """A stream event in which this is not found holds neither usage nor the end, and is not decoded. Not
    anchored, and without blanks it stands in one line: many events are searched at once."""
    fold: Callable[[Answer, Mapping[str, Any], str], None]
    """(answer, one JSON object: a whole answer or one event of a stream, provider) → taken in. Odd values never raise.

    The provider matters because servers that speak one wire format mean different things by it."""
    refuse: Callable[[Refusal, Caller], Written]
    """A refusal, shaped so that tools of this dialect stop and show its message."""
    links: re.Pattern[bytes] | None = None
    """Origins of addresses in unbilled answers that clients follow, with the key that they have for the gateway; group
    1 stands before the origin."""
    signs_end: bool = True
    """A whole stream of this dialect shows that it is whole: by a terminal event, or by the reason why it stopped."""
    fold_headers: Callable[[Answer, Mapping[str, str]], None] | None = None
    """Takes what only the answer's header fields (case-insensitive) have, after the body."""
    # A `path` may here have its query.
    clamp: Callable[[str, str, bytes, int], bytes | None] | None = None
    """(path, provider, decoded body, tokens) → the body with an output maximum of at most `tokens`, all other bytes as
    sent. `None` where the operation has no such maximum. `tokens` below `Ask.output_tokens_min` breaks the request."""
    reroute: Callable[[str, bytes, str], tuple[str, bytes] | None] | None = None
    """(path, decoded body, model) → path and body that ask for this model instead, all else as sent. `None` where that
    cannot be. As with `clamp`, a signature that the client made does not fit any more."""
    ending: Callable[[str, bytes], Ending | None] | None = None
    """(path, decoded body as the client sent it) → what can end the stream of its answer. `None`: nothing can, the
    connection has to be aborted."""


def route(
    method: str,
    path: str,
    operation: str | None,
    *,
    settles: bool = False,
    starts: bool = False,
    provider: str | None = None,
) -> Route:
    return Route(method, re.compile(path), operation, settles, starts, provider)


def last_wins(usage: Usage, name: str, value: Any) -> None:
    """Set one count where the provider gave one: a stream may state it many times, the last statement is the bill."""
    number = count(value)
    if number is not None:
        setattr(usage, name, number)


def add_units(usage: Usage, **counts: Any) -> None:
    """Note other billed units: the last statement of each wins, 0 and what is no count are left out."""
    units = {name: float(number) for name, value in counts.items() if (number := amount(value))}
    if units:
        usage.other_units = {**(usage.other_units or {}), **units}


def add_usage(total: Usage, more: Usage) -> None:
    """Add up what is billed separately: the responses of a session, the results of a batch."""
    for name in total.__struct_fields__:
        had, has = getattr(total, name), getattr(more, name)
        if name == "other_units":
            add_units(total, **{unit: (had or {}).get(unit, 0.0) + number for unit, number in (has or {}).items()})
        elif has is not None:
            setattr(total, name, (had or 0) + has)


def add_subpasses(answer: Answer, passes: list[SubPass]) -> None:
    """Replace the sub-passes, as a stream restates them, and note their tokens among the units."""
    answer.subpasses = passes
    add_units(
        answer.usage,
        subpass_input_tokens=sum(each.usage.input_tokens or 0 for each in passes),
        subpass_output_tokens=sum(each.usage.output_tokens or 0 for each in passes),
    )


Listed = list[msgspec.Raw] | dict[str, msgspec.Raw] | str | int | float | bool | None
"""The type of a request's field that should be a list, and may be anything. As `Raw` it would be read twice."""


def entries(value: Listed) -> list[msgspec.Raw] | None:
    """The entries of a list, undecoded; `None` for anything else."""
    return value if isinstance(value, list) else None


def length_of(value: Listed) -> int | None:
    """How many entries a list has; 1 for a value that is none; `None` where there is no value."""
    return len(value) if isinstance(value, list) else None if value is None else 1


def ends_with(path: str, *ends: str) -> bool:
    """How a path ends before its query, if it has one."""
    return path.partition("?")[0].endswith(ends)


def renamed_model(
    path: str, body: bytes, model: str, *, in_path: re.Pattern[str] | None = None, field: str = "model"
) -> tuple[str, bytes] | None:
    """Path and body with another model where they name one: group 1 of `in_path`, and the body's `field`. `None` where
    neither does."""
    new = renamed(body, model, field)
    plain, mark, query = path.partition("?")
    found = in_path.search(plain) if in_path else None
    if found is not None:
        plain = plain[: found.start(1)] + quote(model, safe="") + plain[found.end(1) :]
    return None if new is None and found is None else (plain + mark + query, body if new is None else new)


MARKS_MAX = 64
LONG_LIVED = re.compile(rb'\w+"\s*:\s*\{[^{}]*"1h"')


def may_cache(body: bytes, mark: bytes = b"cache_control") -> Literal["5m", "1h"] | None:
    """What `Ask.may_cache` says of a body in which `mark` names what to cache. Searched backwards, which in Python is
    three times as fast."""
    at, found = len(body), 0
    while (at := body.rfind(mark, 0, at)) >= 0:
        found += 1
        if found > MARKS_MAX or LONG_LIVED.match(body, at):
            return "1h"
    return "5m" if found else None


FIELD_NAME = re.compile(rb'name="(\w{1,40})"')
FILE_NAME = re.compile(rb";\s*filename\*?=")
FIELDS_MAX = 1000
FIELD_BYTES_MAX = 8192
"""A longer part of a form is a file, or as good as one."""


def read_form(body: bytes) -> Mapping[str, Any]:
    """The fields of a JSON object, or the short ones of a multipart form (RFC 7578), as text.

    What is neither has no fields. Raises the refusal `request_unreadable` for JSON that cannot be read, and for a form
    that others could read differently: with a field twice, with something before or after it.
    """
    if body.lstrip()[:1] == b"{":
        return read_request(body, dict[str, Any])
    boundary, _, rest = body.partition(b"\r\n")
    if not boundary.startswith(b"--"):
        return {}
    if not body.rstrip().endswith(b"\r\n" + boundary + b"--"):
        raise Refusal("request_unreadable", "The form does not end as it begins.")
    found: dict[str, str] = {}
    for part in rest.split(b"\r\n" + boundary, FIELDS_MAX):
        head, _, value = part[:FIELD_BYTES_MAX].partition(b"\r\n\r\n")
        if len(part) > FIELD_BYTES_MAX or FILE_NAME.search(head) or not (named := FIELD_NAME.search(head)):
            continue
        name = named[1].decode()
        if name in found:
            raise Refusal("request_unreadable", f"The form has the field {name} twice.")
        found[name] = value.decode("utf-8", "replace")
    return found


def refers(body: bytes, *marks: bytes) -> bool:
    """What `Ask.refers` says of a body in which one of `marks`, names in quotes, names what is billed beside its bytes.
    All are searched for at once, from quote to quote."""
    return _one_of(marks).search(body) is not None


@lru_cache(maxsize=64)
def _one_of(marks: tuple[bytes, ...]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, marks)))


def has_hosted(tools: list[msgspec.Raw] | None, own: bytes) -> bool:
    """True when the provider itself runs one of the tools, and reads what that brings. `own`: what the others have."""
    return any([own not in bytes(tool) for tool in tools or ()])  # noqa: C419 - a list takes half the time


class Stated:
    """An output maximum, as a request states it under one of its names."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def read_stating(body: bytes, shape: type[T]) -> tuple[T, list[Stated]]:
    """As `read_request`, with all that stands in the fields of type `Stated`: of a name that stands twice, both."""
    found: list[Stated] = []

    def note(kind: type, value: Any) -> Stated:
        found.append(Stated(value))
        return found[-1]

    return read_request(body, shape, note), found


def maximum(found: list[Stated], *read: Stated | None, least: int = 0) -> int | None:
    """The largest maximum that a request states; `None` where it states none, where that which counts may be another
    one that is none, and where one is no number, or less than `least`: that means no limit. `read`: the fields, as one
    reads them whose parser lets the last of a name win."""
    most = -1
    for each in found:
        number = whole_number(each.value)
        if number is None or number < least:
            return None
        most = max(most, number)
    return most if any(read) else None


Hook = Callable[[type, Any], Any]


def read_request(body: bytes, shape: type[T], hook: Hook | None = None) -> T:
    """Decode only the fields of `shape` from a request body; raises the refusal `request_unreadable`."""
    try:
        try:
            return msgspec.json.decode(body, type=shape, dec_hook=hook)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(tidied(body), type=shape, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise Refusal("request_unreadable", f"The request body is not what this API takes: {error}.") from None
    except (ValueError, RecursionError):
        raise Refusal("request_unreadable", "The request body is not valid JSON.") from None
