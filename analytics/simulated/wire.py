"""What a simulated wire format is: how it reads a request and how it writes an answer, an error and a stream."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from analytics.simulated.model import Prompt, Reply

Fault = Literal["rate_limited", "overloaded", "internal", "error_event", "cut"]
"""How a call goes wrong. The last two happen in mid-stream; where nothing is streamed they become `internal`."""


class Piece(NamedTuple):
    """A part of a stream: its bytes, and how many output tokens were generated for it."""

    data: bytes
    tokens: int = 0


class Trouble(NamedTuple):
    """A provider's error answer."""

    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


class Wire(NamedTuple):
    """One wire format."""

    dialect: str
    read: Callable[[str, dict[str, Any]], Prompt]
    """Model name in the path ("" where the body names it) and body → prompt. Raises `ValueError` on nonsense."""
    whole: Callable[[Prompt, Reply], bytes]
    pieces: Callable[[Prompt, Reply], Iterator[Piece]]
    error_event: Callable[[Prompt, Reply, int], bytes]
    """What a stream that fails after so many pieces says last."""
    stream_type: Callable[[Prompt], str]


class Provider(NamedTuple):
    """How one provider says what is the same on all its routes."""

    name: str
    headers: Callable[[str], dict[str, str]]
    """The fields that each answer carries, from the answer's id."""
    trouble: Callable[[Fault | Literal["unauthenticated", "bad_request", "not_found"], str, int], Trouble]
    """Kind, request id, and seconds after which to try again."""
    models: Callable[[], bytes]


def server_sent(prompt: Prompt) -> str:
    """The content type of a stream in the providers that only have server-sent events."""
    return "text/event-stream; charset=utf-8"


def strings(value: Any) -> list[Any]:
    """A list, or a single value as a list of one; nothing as an empty one."""
    return value if isinstance(value, list) else [] if value is None else [value]


class Failed(Exception):  # noqa: N818 - names an event
    """An answer in the provider's own error shape: raised anywhere, written once."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure
        self.message = message
