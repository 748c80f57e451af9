"""Sees an answer's bytes go by and folds them into an `Answer`. Cannot raise, delay or change a byte.

Incremental: any cut of the network gives the same result. Compressed answers are decoded in a copy.
"""

import re
import zlib
from collections.abc import Callable

import brotli
import msgspec
import zstandard

from gateway.call import Answer
from gateway.dialects.base import Dialect
from gateway.dialects.openai_chat import is_usage_only

EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"
EVENT_BYTES_MAX = 32 * 1024 * 1024
"""A stream event (or a whole JSON answer) longer than this is not looked at."""

Decode = Callable[[bytes], bytes]


def decoder(encoding: str) -> Decode | None:
    """An incremental decoder for a Content-Encoding; `None` for one that is not known. May raise on bad bytes."""
    match encoding.strip().lower():
        case "" | "identity":
            return bytes
        case "gzip" | "x-gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress
        case "deflate":
            return zlib.decompressobj().decompress
        case "br":
            return brotli.Decompressor().process  # type: ignore[no-any-return]
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress
        case _:
            return None


class TooLargeError(ValueError):
    """A body that decodes to more than the limit."""


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """A compressed request body, decoded. Raises `ValueError` on bad bytes, `TooLargeError` beyond `limit` bytes."""
    if encoding.strip().lower() in ("", "identity"):
        return body
    decode = decoder(encoding)
    if decode is None:
        raise ValueError(f"unknown content-encoding {encoding[:40]!r}")
    parts: list[bytes] = []
    size = 0
    try:
        # In slices, so that a few bytes that decode to gigabytes are noticed early.
        for start in range(0, len(body), 16_384):
            part = decode(body[start : start + 16_384])
            size += len(part)
            if size > limit:
                raise TooLargeError
            parts.append(part)
    except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
        raise ValueError("the bytes do not match the content-encoding") from error
    return b"".join(parts)


def events(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The complete server-sent events of `buffer`, and the rest that is not complete yet."""
    found: list[bytes] = []
    start = 0
    for end in EVENT_END.finditer(buffer):
        found.append(buffer[start : end.end()])
        start = end.end()
    return found, buffer[start:]


class Meter:
    """Feed it every chunk, ask `finish()` once. `answer.finished` turns true with the dialect's terminal event."""

    def __init__(self, dialect: Dialect | None, provider: str, content_encoding: str = "") -> None:
        self.answer = Answer()
        self.bytes_seen = 0
        self.failed: str | None = None
        """Why metering gave up, if it did: the type of an error, never its text."""
        self._dialect = dialect
        self._provider = provider
        self._decode = decoder(content_encoding)
        self._buffer = b""
        self._is_json: bool | None = None
        self._first = True

    def feed(self, chunk: bytes) -> None:
        self.bytes_seen += len(chunk)
        if self._dialect is None or self.failed is not None:
            return
        try:
            self._feed(self._dialect, chunk)
        except Exception as error:  # noqa: BLE001 - metering must never break a call; the failure is recorded instead
            self._give_up(type(error).__name__)

    def finish(self) -> Answer:
        """What was learned. Call when no more bytes will come."""
        rest, self._buffer = self._buffer, b""
        if self._dialect is not None and self.failed is None and rest.strip():
            try:
                if self._is_json:
                    self._fold(self._dialect, rest)
                else:
                    self._fold_event(self._dialect, rest)
            except Exception as error:  # noqa: BLE001 - as in `feed`
                self._give_up(type(error).__name__)
        return self.answer

    def _feed(self, dialect: Dialect, chunk: bytes) -> None:
        if self._decode is None:
            raise ValueError
        data = self._decode(chunk)
        if len(self._buffer) + len(data) > EVENT_BYTES_MAX:
            raise TooLargeError
        self._buffer += data
        if self._is_json is None:
            # Content types lie (a JSON error labelled text/event-stream): the first byte tells.
            self._buffer = self._buffer.lstrip(BOM_AND_SPACE)
            if not self._buffer:
                return
            self._is_json = self._buffer[:1] in b"{["
        if not self._is_json:
            self._take_events(dialect)

    def _take_events(self, dialect: Dialect) -> None:
        found, self._buffer = events(self._buffer)
        for event in found:
            if self._first or dialect.may_matter.search(event) or b"[DONE]" in event:
                self._fold_event(dialect, event)

    def _fold_event(self, dialect: Dialect, event: bytes) -> None:
        data = b"\n".join(line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))
        if data.strip() == b"[DONE]":
            self.answer.finished = True
        elif data:
            self._first = False
            self._fold(dialect, data)

    def _fold(self, dialect: Dialect, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # a cut answer, or an event that is no JSON
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                dialect.fold(self.answer, item, self._provider)

    def _give_up(self, why: str) -> None:
        self.failed = why
        self._buffer = b""


class UsageHider:
    """Takes the usage chunk out of a chat stream whose client did not ask for it. All other bytes pass as they came.

    Only whole events can be judged, so the bytes of an incomplete one wait for its end (no tool can use them earlier).
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, piece: bytes) -> bytes:
        found, self._buffer = events(self._buffer + piece)
        return b"".join(event for event in found if not is_usage_only(event))

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return self._buffer
