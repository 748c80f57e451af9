"""Sees an answer's bytes go by and folds them into an `Answer`. Cannot raise, delay or change a byte.

Incremental: any cut of the network gives the same result.
"""

import contextlib
from collections.abc import Mapping

import msgspec

from gateway.call import Answer
from gateway.dialects.base import Dialect
from gateway.dialects.openai_chat import is_usage_only
from gateway.framing import AwsEvents, Events, Items, Json, Opaque, Reader
from gateway.reading import tidied
from gateway.texts import carries_text

SAMPLE_BYTES_MAX = 16 * 1024
"""Of the events that hold no usage so much is kept, to estimate from should the usage not come."""


class Meter:
    """Feed it every chunk, ask `finish()` at the end. `answer.finished` turns true with the terminal event."""

    def __init__(self, dialect: Dialect | None, provider: str, headers: Mapping[str, str]) -> None:
        self.answer = Answer()
        self.bytes_seen = 0
        self.failed: str | None = None
        """Why metering gave up, if it did: the type of an error, never its text."""
        self.sample: list[bytes] = []
        """The first events with text and without usage, as JSON, up to `SAMPLE_BYTES_MAX`."""
        self.content_bytes = 0
        """Size of all such events."""
        self._dialect = dialect
        self._provider = provider
        self._headers = headers
        self._reader = Reader(headers)
        self._sampled = 0
        self._first = True

    def feed(self, chunk: bytes) -> None:
        self.bytes_seen += len(chunk)
        if self._dialect is None or self.failed is not None:
            return
        try:
            for event in self._reader.feed(chunk):
                self._see(self._dialect, event)
        except Exception as error:  # noqa: BLE001 - metering must never break a call; the failure is recorded instead
            self._give_up(error)

    def finish(self) -> Answer:
        """What was learned. Call when no more bytes will come."""
        if self._dialect is not None and self.failed is None:
            try:
                if rest := self._reader.rest():
                    self._see_rest(self._dialect, rest)
                if self._dialect.fold_headers is not None:
                    self._dialect.fold_headers(self.answer, self._headers)
            except Exception as error:  # noqa: BLE001 - as in `feed`
                self._give_up(error)
        return self.answer

    def is_complete(self) -> bool:
        """False when an event stream of this dialect ended without the dialect's sign of completeness.

        Where neither a length nor chunks frame an answer, a lost connection looks just like its end.
        """
        seen, framing = self.finish(), self._reader.framing
        if self._dialect is None or self.failed is not None or isinstance(framing, Json | Opaque | None):
            return True
        if isinstance(framing, Items):
            return not framing.is_open
        if isinstance(framing, AwsEvents):
            return seen.finished or seen.error is not None
        recognised = seen.response_model or seen.upstream_id or seen.usage.reported()
        return not recognised or seen.finished or bool(seen.finish_reason or seen.error)

    def see(self, event: bytes) -> None:
        """One event that came apart from others, as the messages of a WebSocket do. In place of `feed`."""
        self.bytes_seen += len(event)
        if self._dialect is not None and self.failed is None:
            try:
                self._see(self._dialect, event)
            except Exception as error:  # noqa: BLE001 - as in `feed`
                self._give_up(error)

    def _see(self, dialect: Dialect, event: bytes) -> None:
        if event.strip() == b"[DONE]":
            self.answer.finished = True
        elif event and (self._first or dialect.may_matter.search(event)):
            self._first = False
            with contextlib.suppress(ValueError):  # no JSON: some keep-alive
                self._fold(dialect, event)
        elif carries_text(event):
            self._keep(event)

    def _see_rest(self, dialect: Dialect, rest: bytes) -> None:
        """A whole answer, which must be JSON, or the last event of a stream, which may have been cut."""
        cut = () if isinstance(self._reader.framing, Json) else (ValueError,)
        with contextlib.suppress(*cut):
            self._fold(dialect, rest)
        self._keep(rest)

    def _keep(self, event: bytes) -> None:
        self.content_bytes += len(event)
        if self._sampled < SAMPLE_BYTES_MAX:
            event = event[: SAMPLE_BYTES_MAX - self._sampled]
            self.sample.append(event)
            self._sampled += len(event)

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
        self._reader = Reader({})  # what it holds back is of no use any more


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
