"""What a simulated wire format is: a few pure functions between bytes and turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from analytics.simulated.turns import Billed, Piece, Prompt, PromptCache, Turn

T = TypeVar("T", bound=msgspec.Struct)

Failure = Literal["unauthenticated", "invalid", "not_found", "rate_limited", "overloaded", "internal"]


@dataclass(frozen=True)
class Wire:
    """One API of one provider."""

    name: str
    """The dialect, as in the ledger."""
    read: Callable[[str, bytes], Prompt]
    """(path and query, body) → prompt. Raises `ValueError` for what is not a request of this API."""
    bill: Callable[[Prompt, PromptCache], Billed]
    """The input side of the bill; what is cached now is remembered."""
    whole: Callable[[Turn], Any]
    """The JSON of an answer that is not streamed."""
    stream: Callable[[Turn], Iterator[Piece]] | None = None
    """The pieces of a streamed answer; `None` where nothing is generated (embeddings)."""
    break_off: Callable[[Turn, int], bytes] | None = None
    """The error event that ends a stream after so many pieces."""
    media_type: Callable[[Turn], str] = lambda turn: "text/event-stream; charset=utf-8"
    """The content type of a streamed answer."""


@dataclass(frozen=True)
class Provider:
    """What all APIs of a provider share."""

    name: str
    """The first part of its paths."""
    credential: str
    """The only key that is accepted. Made up."""
    models: dict[str, str]
    """Models by the name they are asked for → the name they are served as."""
    status: dict[Failure, int]
    error: Callable[[Failure, int, str, str], Any]
    """(failure, status, message, request id) → the JSON body of an error."""
    headers: Callable[[str], dict[str, str]]
    """Header fields of every answer, from the request id."""
    says_retry_after: bool = True
    """A 429 carries the header `retry-after`."""


def decode(body: bytes, shape: type[T]) -> T:
    """The fields of `shape` from a JSON body. Raises `ValueError`."""
    return msgspec.json.decode(body, type=shape)


def positive(value: Any) -> int | None:
    """A limit that a client set; `None` when it set none. Raises `ValueError` for one that providers refuse."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a token limit must be a whole number of at least 1")
    return value


class Failed(Exception):  # noqa: N818 - names an event
    """An answer in the provider's own error shape: raised anywhere, written once."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure
        self.message = message
