"""Sees an answer's bytes go by and folds them into an `Answer`. Cannot raise, delay or change a byte.

Incremental: any cut of the network gives the same result.
"""

import re
from collections.abc import Mapping

import msgspec

from gateway import actions, alike
from gateway.call import Answer, Usage
from gateway.dialects.base import Dialect, Ending
from gateway.dialects.openai_chat import is_usage_only
from gateway.framing import AwsEvents, Events, Framing, Items, Json, Opaque, Reader, ServerSent, data_of, written
from gateway.reading import tidied
from gateway.texts import MAY_REPEAT, carries_text

SAMPLE_BYTES_MAX = 16 * 1024
"""Of the events that may have text so much is kept, to estimate from should the usage not come."""


LOOKS = 20
"""So many first events are read for the model's name, which may not stand on the first (Azure's content filters)."""
TRIES = 8
"""So many events are looked at alone, to find such as are like them: those of some streams are never alike."""

EVENT_END = b"\n\n"
ROW = re.compile(rb"((?:event: [^\n]*+\n)?+data: ?)\{[^\n]*+\n\n(?:\1\{[^\n]*+\n\n)*+")
"""Events in a row with one line of data each, and the same before it."""


class Meter(msgspec.Struct):
    """Feed it every chunk, ask `finish()` at the end. `answer.finished` turns true with the terminal event."""

    _dialect: Dialect | None
    _provider: str
    _headers: Mapping[str, str]
    answer: Answer = msgspec.field(default_factory=Answer)
    bytes_seen: int = 0
    failed: str | None = None
    """Why metering gave up, if it did: the type of an error, never its text."""
    content_bytes: int = 0
    """Size of all events that may have text."""
    ending: Ending | None = None
    """Set it before the first piece where the stream may have to be ended from our side."""
    _reader: Reader | None = None
    """From the first piece on, until metering gives up."""
    _sample: list[tuple[bytes, bytes]] = []
    """Events alone, and rows of them with what stands between their data."""
    _sampled: int = 0
    _looks_left: int = LOOKS
    _is_known: bool = False
    """The model's name was seen, or need not be looked for any more."""
    _alike: alike.Alike | None = None
    """Events of a text in which nothing else matters, as the last ones were."""
    _tries_left: int = TRIES

    __repr__ = object.__repr__  # what an answer says stands in no log

    def begin(self, headers: Mapping[str, str]) -> None:
        """The head of the answer has come, after the meter was made."""
        self._headers = headers

    def feed(self, chunk: bytes) -> None:
        self.bytes_seen += len(chunk)
        if self._dialect is None or self.failed is not None:
            return
        if (reader := self._reader) is None:
            reader = self._reader = Reader(self._headers)
        try:
            data = reader.decoded(chunk)
            framing = reader.framing
            if framing is None:
                return
            if self.ending is None and isinstance(framing, ServerSent):
                self._skim(self._dialect, framing, framing.block(data))
                return
            for event in framing.feed(data):
                self._see(self._dialect, event)
                if self.ending is not None:
                    self._show(self.ending, event)
        except Exception as error:  # noqa: BLE001 - metering must never break a call; the failure is recorded instead
            self._give_up(error)

    @property
    def _framing(self) -> Framing | None:
        return None if self._reader is None else self._reader.framing

    @property
    def unfinished(self) -> int:
        """So many of the last bytes belong to an event that has not ended. Only before them the stream can be ended;
        where the client has a part of them, not before the event is whole."""
        return 0 if (framing := self._framing) is None else len(framing)

    def end(self, usage: Usage) -> bytes | None:
        """What ends the stream in place of its unfinished bytes, as if its maximum had been reached; empty where it has
        ended by itself. `None`: it can only be broken off."""
        framing = self._framing
        if self.answer.finished:
            return b""
        if self.ending is None or framing is None or self.failed is not None or "Content-Encoding" in self._headers:
            return None
        events = self.ending.events(usage)
        return None if events is None else written(events, framing)

    def finish(self) -> Answer:
        """What was learned. Call when no more bytes will come."""
        if self._dialect is not None and self.failed is None:
            try:
                if self._reader is not None and (rest := self._reader.rest()):
                    self._see(self._dialect, rest, is_rest=True)
                if self._dialect.fold_headers is not None:
                    self._dialect.fold_headers(self.answer, self._headers)
            except Exception as error:  # noqa: BLE001 - as in `feed`
                self._give_up(error)
        return self.answer

    @property
    def sample(self) -> list[bytes]:
        """The first events with text, as JSON, up to `SAMPLE_BYTES_MAX`; the last one may be cut."""
        return [event for row, between in self._sample for event in (row.split(between) if between else (row,))]

    def is_complete(self) -> bool:
        """False when an event stream ended without the dialect's sign of completeness.

        Where neither a length nor chunks frame an answer, a lost connection looks just like its end.
        """
        seen, framing = self.finish(), self._framing
        if isinstance(framing, Items):
            return not framing.is_open
        if self._dialect is None or self.failed is not None or not self._dialect.signs_end:
            return True
        if isinstance(framing, Json | Opaque | None):
            return True
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

    def _see(self, dialect: Dialect, event: bytes, *, is_rest: bool = False) -> bool:
        """Keep what may have text, fold what may have usage or calls tools. `is_rest`: it came after the last event.
        True for a text in which nothing else matters."""
        if event.strip() == b"[DONE]":
            self.answer.finished = True
            return False
        is_whole = is_rest and isinstance(self._framing, Json)
        is_text = is_whole or (bool(event) and carries_text(event))
        if is_text:
            self._keep(event)
        if not self._is_known or is_rest or dialect.may_matter.search(event) or actions.MARK.search(event):
            self._looks_left -= 1
            # A whole answer must be JSON. An event need not (some keep-alive), nor the rest of a stream (a cut event).
            try:
                self._fold(dialect, event)
            except ValueError:
                if is_whole:
                    raise
            self._is_known = self._looks_left <= 0 or bool(self.answer.response_model or self.answer.upstream_id)
            return False
        return is_text

    def _skim(self, dialect: Dialect, framing: ServerSent, block: bytes) -> None:
        """As `_see` of each event in a block. Few matter once the model is known: the others are counted at once."""
        if framing.has_cr:
            for each in framing.split(block):
                self._see(dialect, data_of(each))
            return
        if not (block := self._pass_alike(dialect, block)):
            return
        start = 0
        marks: list[int] = []
        may_call = any([mark in block for mark in actions.MARKS])  # noqa: C419 - a list takes half the time
        for pattern in (dialect.may_matter, MAY_REPEAT, actions.MARK) if may_call else (dialect.may_matter, MAY_REPEAT):
            # Most pieces are one event without a mark, and `finditer` costs 1 µs more.
            if mark := pattern.search(block):
                marks += [mark.start(), *(more.start() for more in pattern.finditer(block, mark.end()))]
        for at in sorted(marks):
            if at >= start:  # else it is in the same event as another
                before = block.rfind(EVENT_END, start, at)
                begin = start if before < 0 else before + len(EVENT_END)
                self._pass_over(dialect, block, start, begin)
                start = block.find(EVENT_END, at) + len(EVENT_END)
                self._see(dialect, data_of(block[begin:start]))
        self._pass_over(dialect, block, start, len(block))

    def _pass_alike(self, dialect: Dialect, block: bytes) -> bytes:
        """The rest of a block, behind the first events of the stream and those that are like others; some are looked at
        alone, to find which."""
        while block:
            like = self._alike
            number, size = (0, 0) if like is None else like.run(block)
            if like is not None and number:
                self._keep_row(block[:size], like.before_data, number)
                block = block[size:]
            elif not self._is_known or self._tries_left:
                if self._is_known:
                    self._tries_left -= 1
                event, _, block = block.partition(EVENT_END)
                event += EVENT_END
                if self._see(dialect, data_of(event)):
                    self._alike = alike.of(event) or like
            else:
                break
        return block

    def _pass_over(self, dialect: Dialect, block: bytes, start: int, end: int) -> None:
        """Events in which no mark was found: text, if the data is one line. (In several, it could join to one.)"""
        while start < end:
            if row := ROW.match(block, start, end):
                stop = row.end()
                self._keep_row(row[0], row[1], row[0].count(EVENT_END + row[1]) + 1)
            else:
                found = block.find(EVENT_END, start, end)
                stop = end if found < 0 else found + len(EVENT_END)  # without one it is the third newline in a row
                self._see(dialect, data_of(block[start:stop]))
            start = stop

    def _show(self, ending: Ending, event: bytes) -> None:
        try:
            value = msgspec.json.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # some keep-alive
        if isinstance(value, dict):
            ending.see(value)

    def _keep(self, event: bytes) -> None:
        self.content_bytes += len(event)
        self._take_sample(event)

    def _take_sample(self, event: bytes) -> None:
        if (room := SAMPLE_BYTES_MAX - self._sampled) > 0:
            self._sample.append((event[:room], b""))
            self._sampled += min(len(event), room)

    def _keep_row(self, row: bytes, before_data: bytes, number: int) -> None:
        """Keep so many events, whose data are one line each, and have the same before them."""
        between = EVENT_END + before_data
        size = len(row) - number * len(between)
        self.content_bytes += size
        if self._sampled < SAMPLE_BYTES_MAX:
            data = row[len(before_data) : -len(EVENT_END)]
            if self._sampled + size <= SAMPLE_BYTES_MAX:
                self._sample.append((data, between))  # it is seldom asked for
                self._sampled += size
            else:
                for event in data.split(between):
                    self._take_sample(event)

    def _fold(self, dialect: Dialect, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = msgspec.json.decode(tidied(data))
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                dialect.fold(self.answer, item, self._provider)
        if actions.MARK.search(data):
            actions.note(self.answer.tools, value)

    def _give_up(self, error: Exception) -> None:
        self.failed = type(error).__name__
        self._reader = None  # what it holds back is of no use any more


SHOWN_BYTES_MAX = 1024 * 1024
"""An event that is longer is no usage chunk, and need not wait for its end."""


MAY_BE_USAGE = re.compile(rb'"usage"[ \t\v\f]*(?:[\r\n]|:[ \t\v\f]*[\r\n{])')
"""A usage object, also where the data goes on in another line."""


class UsageHider:
    """Takes the usage chunk out of a chat stream whose client did not ask for it. All other bytes pass as they came.

    Only whole events can be judged, so the bytes of an incomplete one wait for its end (no tool can use them earlier).
    """

    def __init__(self) -> None:
        self._events = Events()

    def feed(self, piece: bytes) -> bytes:
        passed = self._events.block(piece)
        if MAY_BE_USAGE.search(passed):
            passed = b"".join(event for event in self._events.split(passed) if not is_usage_only(event))
        return passed if len(self._events) <= SHOWN_BYTES_MAX else passed + self._events.rest()

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return self._events.rest()
