"""Sees an answer's bytes go by and folds them into an `Answer`. Cannot raise, delay or change a byte.

Incremental: any cut of the network gives the same result. Compressed answers are decoded in a copy.
"""

import contextlib
from collections.abc import Mapping

import msgspec

from gateway.call import Answer
from gateway.dialects.base import Dialect
from gateway.dialects.openai_chat import is_usage_only
from gateway.encodings import TooLargeError, decoder
from gateway.framing import AwsEvents, Events, Framing, Whole, framing_of
from gateway.reading import tidied

BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"
HELD_BYTES_MAX = 64 * 1024 * 1024
"""A stream event (or a whole JSON answer) longer than this is not looked at."""


class Meter:
    """Feed it every chunk, ask `finish()` at the end. `answer.finished` turns true with the terminal event."""

    def __init__(self, dialect: Dialect | None, provider: str, headers: Mapping[str, str]) -> None:
        self.answer = Answer()
        self.bytes_seen = 0
        self.failed: str | None = None
        """Why metering gave up, if it did: the type of an error, never its text."""
        self._dialect = dialect
        self._provider = provider
        self._headers = headers
        self._decode = decoder(headers.get("Content-Encoding", ""))
        self._framing: Framing | None = None
        self._first = True

    def feed(self, chunk: bytes) -> None:
        self.bytes_seen += len(chunk)
        if self._dialect is None or self.failed is not None:
            return
        try:
            self._feed(self._dialect, chunk)
        except Exception as error:  # noqa: BLE001 - metering must never break a call; the failure is recorded instead
            self._give_up(error)

    def finish(self) -> Answer:
        """What was learned. Call when no more bytes will come."""
        if self._dialect is not None and self.failed is None:
            try:
                if self._framing is not None and (rest := self._framing.rest()):
                    # A whole answer must be JSON; the last event of a stream may have been cut.
                    cut = () if isinstance(self._framing, Whole) else (ValueError,)
                    with contextlib.suppress(*cut):
                        self._fold(self._dialect, rest)
                if self._dialect.fold_headers is not None:
                    self._dialect.fold_headers(self.answer, self._headers)
            except Exception as error:  # noqa: BLE001 - as in `feed`
                self._give_up(error)
        return self.answer

    def is_complete(self) -> bool:
        """False when an event stream of this dialect ended without the dialect's sign of completeness.

        Where neither a length nor chunks frame an answer, a lost connection looks just like its end.
        """
        seen = self.finish()
        if self._dialect is None or self.failed is not None or isinstance(self._framing, Whole | None):
            return True
        if isinstance(self._framing, AwsEvents):
            return seen.finished or seen.error is not None
        recognised = seen.response_model or seen.upstream_id or seen.usage.reported()
        return not recognised or seen.finished or bool(seen.finish_reason or seen.error)

    def _feed(self, dialect: Dialect, chunk: bytes) -> None:
        if self._decode is None:
            raise ValueError
        data = self._decode(chunk)
        if self._framing is None:
            binary = data[:1] == b"\x00"
            data = data if binary else data.lstrip(BOM_AND_SPACE)
            if not data:
                return
            self._framing = framing_of(self._headers.get("Content-Type", ""), data)
        if len(self._framing) + len(data) > HELD_BYTES_MAX:
            raise TooLargeError
        for event in self._framing.feed(data):
            if event.strip() == b"[DONE]":
                self.answer.finished = True
            elif event and (self._first or dialect.may_matter.search(event)):
                self._first = False
                with contextlib.suppress(ValueError):  # no JSON: some keep-alive
                    self._fold(dialect, event)

    def _fold(self, dialect: Dialect, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = msgspec.json.decode(tidied(data))
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                dialect.fold(self.answer, item, self._provider)

    def _give_up(self, error: Exception) -> None:
        self.failed = type(error).__name__
        self._framing = None  # what it holds back is of no use any more


class UsageHider:
    """Takes the usage chunk out of a chat stream whose client did not ask for it. All other bytes pass as they came.

    Only whole events can be judged, so the bytes of an incomplete one wait for its end (no tool can use them earlier).
    """

    def __init__(self) -> None:
        self._events = Events()

    def feed(self, piece: bytes) -> bytes:
        return b"".join(event for event in self._events.feed(piece) if not is_usage_only(event))

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return self._events.rest()
