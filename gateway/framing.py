"""How the events of a stream are told apart: server-sent events, lines of JSON, AWS event streams, a growing JSON
array, or one JSON value.

Each framing takes bytes in any pieces and gives the JSON of the events that are complete now. `Reader` finds the right
one and decodes a compressed answer in a copy.
"""

import base64
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol

import msgspec

from gateway.encodings import Decode, TooLargeError, decoder

EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")
BOUNDARY_BYTES = 4
NEWLINE = 0x0A


class Event(NamedTuple):
    """One event to write: its JSON (or `[DONE]`), and its name, which not every framing and dialect has."""

    name: str
    data: bytes


class Framing(Protocol):
    """Bytes in, events out."""

    def __len__(self) -> int:
        """Bytes held back: those of the last event, which has not ended."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that this piece completes. Raises `ValueError` on bytes that cannot be this framing."""

    def rest(self) -> bytes:
        """What came after the last complete event; it is taken out."""


class Events:
    """Server-sent events (WHATWG HTML §9.2), each with the blank line that ends it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self.has_cr = False
        """Few servers end lines with CR LF: without one, a plain search does (3 times as fast)."""

    def __len__(self) -> int:
        return len(self._buffer)

    def block(self, piece: bytes) -> bytes:
        """The events that this piece completes, in a row."""
        self.has_cr = self.has_cr or b"\r" in piece
        if not self._buffer and not self.has_cr and piece[-2:] == b"\n\n" and piece[-3:-2] != b"\n":
            return piece  # most pieces end where an event does
        self._buffer += piece
        end = self._last_end()
        block = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = len(self._buffer)
        return block

    def feed(self, piece: bytes) -> list[bytes]:
        return self.split(self.block(piece))

    def split(self, block: bytes) -> list[bytes]:
        """The events of a block, each with the blank line that ends it."""
        if not self.has_cr:
            return [event + b"\n\n" for event in block.split(b"\n\n")[:-1]]
        ends = [end.end() for end in EVENT_END.finditer(block)]
        return [block[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _last_end(self) -> int:
        # From where the last search ended, so that a long event in many pieces costs its length once.
        start = max(0, self._searched - BOUNDARY_BYTES + 1)
        if not self.has_cr:
            at = self._buffer.rfind(b"\n\n", start)
            if at <= 0 or self._buffer[at - 1] != NEWLINE:
                return at + 2 if at >= 0 else 0
        ends = [
            end.end() for end in EVENT_END.finditer(self._buffer, start)
        ]  # of three newlines, the first two are one
        return ends[-1] if ends else 0

    def rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


def data_of(event: bytes) -> bytes:
    """The `data` of a server-sent event, its lines joined. Llama.cpp sends errors in a field of that name."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]  # one line, as most events are
    found = [line for line in event.splitlines() if line.startswith((b"data:", b"error:"))]
    return b"\n".join([line.partition(b":")[2].removeprefix(b" ") for line in found])


class ServerSent(Events):
    """The data of server-sent events."""

    def feed(self, piece: bytes) -> list[bytes]:
        return [data_of(event) for event in super().feed(piece)]

    def rest(self) -> bytes:
        rest = super().rest()
        return data_of(rest) if rest else rest


class Lines:
    """One JSON value per line."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def feed(self, piece: bytes) -> list[bytes]:
        *whole, rest = piece.split(b"\n")
        if not whole:
            self._parts.append(rest)
            self._size += len(rest)
            return []
        whole[0] = b"".join(self._parts) + whole[0]
        self._parts, self._size = [rest], len(rest)
        return [line for line in whole if line.strip()]

    def rest(self) -> bytes:
        rest = b"".join(self._parts)
        self._parts, self._size = [], 0
        return rest.strip()


class Json(msgspec.Struct):
    """One JSON value, or lines of JSON that nobody announced, such as a file of batch results: the first line tells."""

    _parts: list[bytes] = []
    _size: int = 0
    _lines: Lines | None = None
    _undecided: bool = True

    __repr__ = object.__repr__  # what an answer says stands in no log

    def __len__(self) -> int:
        return self._size if self._lines is None else len(self._lines)

    def feed(self, piece: bytes) -> list[bytes]:
        if self._lines is not None:
            return self._lines.feed(piece)
        self._parts.append(piece)
        self._size += len(piece)
        if self._undecided and b"\n" in piece:
            self._undecided = False
            self._parts = [b"".join(self._parts)]
            if _is_json(self._parts[0].partition(b"\n")[0]):
                self._lines = Lines()
                return self._lines.feed(self._parts.pop())
        return []

    def rest(self) -> bytes:
        if self._lines is not None:
            return self._lines.rest()
        rest = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)  # mostly there is one: not copied
        self._parts, self._size = [], 0
        return rest


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


class Items:
    """The items of one JSON array, each known when it is complete: how Gemini streams without `alt=sse`.

    Only objects and arrays are items; what else stands in an array says nothing about usage.
    """

    STRUCTURE = re.compile(rb'["{}\[\]]')
    IN_STRING = re.compile(rb'["\\]')

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._depth = 0
        self._in_string = False
        self._item_from = 0
        self.wants_comma = False
        """An item has come, and no comma after it."""

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def is_open(self) -> bool:
        """True until the array's closing bracket."""
        return self._depth > 0

    def feed(self, piece: bytes) -> list[bytes]:
        self._buffer += piece
        found: list[bytes] = []
        done = 0
        while mark := (self.IN_STRING if self._in_string else self.STRUCTURE).search(self._buffer, self._searched):
            at = mark.start()
            sign = self._buffer[at]
            self._searched = at + 1
            if sign == BACKSLASH:
                if at + 1 == len(self._buffer):
                    self._searched = at  # what it escapes has not come yet
                    break
                self._searched = at + 2
            elif sign == QUOTE:
                self._in_string = not self._in_string
            elif sign in OPENING:
                self._depth += 1
                if self._depth == 2:
                    self._item_from = at
            else:
                self._depth -= 1
                if self._depth == 1:
                    found.append(bytes(self._buffer[self._item_from : at + 1]))
                    done, self.wants_comma = at + 1, True
        else:
            self._searched = len(self._buffer)
        if self._depth <= 1 and not self._in_string:
            self.wants_comma = self.wants_comma and b"," not in self._buffer[done : self._searched]
            done = self._searched  # commas and blanks between two items, and what follows the last
        del self._buffer[:done]
        self._searched -= done
        self._item_from -= done
        return found

    def rest(self) -> bytes:
        self._buffer.clear()
        return b""  # half an item says nothing


BACKSLASH, QUOTE, OPENING = 0x5C, 0x22, (0x5B, 0x7B)


class Opaque:
    """Sound, pictures, films: nothing to read, nothing held back."""

    def __len__(self) -> int:
        return 0

    def feed(self, piece: bytes) -> list[bytes]:
        return []

    def rest(self) -> bytes:
        return b""


class _Chunk(msgspec.Struct):
    bytes: str


class AwsEvents:
    """AWS event streams (smithy.io, "Event Stream specification"): length-prefixed frames with two CRC-32.

    A frame becomes `{event type: payload}`; one that carries a vendor's own event (`chunk`) becomes that event.
    """

    PRELUDE = struct.Struct(">III")
    OVERHEAD = 16
    FRAME_BYTES_MAX = 24 * 1024 * 1024

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._damaged = ""

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, piece: bytes) -> list[bytes]:
        if self._damaged:
            raise ValueError(self._damaged)
        self._buffer += piece
        found: list[bytes] = []
        while len(self._buffer) >= self.PRELUDE.size:
            total, head_bytes, check = self.PRELUDE.unpack_from(self._buffer)
            if zlib.crc32(self._buffer[:8]) != check or not self.OVERHEAD + head_bytes <= total <= self.FRAME_BYTES_MAX:
                self._damaged = "not an AWS event stream"
                break
            if len(self._buffer) < total:
                break
            frame = bytes(self._buffer[:total])
            del self._buffer[:total]
            if zlib.crc32(frame[:-4]) != int.from_bytes(frame[-4:], "big"):
                self._damaged = "damaged AWS event"
                break
            try:
                found.append(self._event(frame[12 : 12 + head_bytes], frame[12 + head_bytes : -4]))
            except (ValueError, IndexError, RecursionError):
                self._damaged = "an AWS event that makes no sense"
                break
        return found

    def rest(self) -> bytes:
        if self._damaged:
            raise ValueError(self._damaged)  # only now: what came before it counts, wherever the network cut
        self._buffer.clear()
        return b""  # half a frame says nothing

    @staticmethod
    def _event(head: bytes, payload: bytes) -> bytes:
        fields = _string_headers(head)
        if fields.get(":message-type") != "event":
            kind = fields.get(":exception-type") or fields.get(":error-code") or "error"
            return msgspec.json.encode({"exception": {"type": kind}})
        kind = fields.get(":event-type", "")
        if kind == "chunk":
            return base64.b64decode(msgspec.json.decode(payload, type=_Chunk).bytes)
        return b"{%s:%s}" % (msgspec.json.encode(kind), payload or b"null")


def written(events: list[Event], framing: Framing) -> bytes | None:
    """The events as bytes that continue a stream of this framing where an event has ended; `None` where it is no
    stream."""
    match framing:
        case ServerSent():
            return b"".join(
                (b"event: %s\n" % event.name.encode() if event.name else b"") + b"data: %s\n\n" % event.data
                for event in events
            )
        case Lines():
            return b"".join(event.data + b"\n" for event in events)
        case AwsEvents():
            return b"".join(aws_frame(event) for event in events)
        case Items():
            items = b",\n".join(event.data for event in events)
            return (b",\n" if framing.wants_comma and events else b"") + items + b"]"
        case _:
            return None


def aws_frame(event: Event) -> bytes:
    """The inverse of what `AwsEvents` does with one frame; a `chunk` carries a vendor's own event."""
    payload = event.data
    if event.name == "chunk":
        payload = msgspec.json.encode({"bytes": base64.b64encode(payload).decode()})
    fields = ((":event-type", event.name), (":content-type", "application/json"), (":message-type", "event"))
    head = b"".join(_string_header(name.encode(), value.encode()) for name, value in fields)
    sizes = struct.pack(">II", AwsEvents.OVERHEAD + len(head) + len(payload), len(head))
    frame = sizes + zlib.crc32(sizes).to_bytes(4, "big") + head + payload
    return frame + zlib.crc32(frame).to_bytes(4, "big")


def _string_header(name: bytes, value: bytes) -> bytes:
    return b"%c%s%c%s%s" % (len(name), name, STRING, len(value).to_bytes(2, "big"), value)


STRING = 7
FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


def _string_headers(head: bytes) -> dict[str, str]:
    """The header fields of a frame that are strings; others are stepped over."""
    found: dict[str, str] = {}
    at = 0
    while at < len(head):
        name_end = at + 1 + head[at]
        name, kind, at = head[at + 1 : name_end].decode(), head[name_end], name_end + 1
        if kind in FIXED_BYTES:
            at += FIXED_BYTES[kind]
            continue
        size = int.from_bytes(head[at : at + 2], "big")
        if kind == STRING:
            found[name] = head[at + 2 : at + 2 + size].decode()
        at += 2 + size
    return found


LINES = frozenset({"application/x-ndjson", "application/stream+json", "application/jsonl", "application/x-jsonl"})
BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"
HELD_BYTES_MAX = 64 * 1024 * 1024
"""A stream event (or a whole JSON answer) longer than this is not looked at."""


BY_START: Mapping[bytes, Callable[[], Framing]] = {
    b"\x00": AwsEvents,  # the length of a frame; no text begins like that
    b"[": Items,
    b"{": Json,
}


def framing_of(content_type: str, start: bytes) -> Framing:
    """The framing of an answer, by its content type and its first bytes: content types lie (a JSON error that is
    labelled text/event-stream)."""
    by_type, by_start = _by_type(content_type), BY_START.get(start[:1], ServerSent)
    return by_start() if by_type is None or (by_type is Lines and by_start is AwsEvents) else by_type()


def is_lines(headers: Mapping[str, str]) -> bool:
    """True for an answer that says that it is JSON line by line."""
    return _by_type(headers.get("Content-Type", "")) is Lines


@lru_cache(256)
def _by_type(content_type: str) -> Callable[[], Framing] | None:
    """For types that are believed."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith(("audio/", "image/", "video/")):
        return Opaque
    return Lines if kind in LINES else None


class Reader(msgspec.Struct):
    """The events of one answer, from its bytes as they come by. Compressed answers are decoded in a copy."""

    headers: Mapping[str, str]
    framing: Framing | None = None
    """Known from the first byte that is no blank; or stated, where a part of a file may begin inside of a line."""
    _decode: Decode | None = None
    _fed: int = 0
    """Of decoded bytes; so much at most is held back."""

    __repr__ = object.__repr__

    def decoded(self, piece: bytes) -> bytes:
        """A piece as its framing takes it. Raises `ValueError` and decoders' errors on bytes that do not fit."""
        if self._decode is None:
            self._decode = self._decoder()
        data = self._decode(piece)
        if self.framing is None:
            data = data if data[:1] == b"\x00" else data.lstrip(BOM_AND_SPACE)
            if not data:
                return b""
            self.framing = framing_of(self.headers.get("Content-Type", ""), data)
        self._fed += len(data)
        if self._fed > HELD_BYTES_MAX and len(self.framing) + len(data) > HELD_BYTES_MAX:
            raise TooLargeError
        return data

    def _decoder(self) -> Decode:
        decode = decoder(encoding) if (encoding := self.headers.get("Content-Encoding")) else bytes
        if decode is None:
            raise ValueError("unknown content encoding")
        return decode

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that this piece completes. Raises as `decoded` does."""
        data = self.decoded(piece)
        return [] if self.framing is None else self.framing.feed(data)

    def rest(self) -> bytes:
        """What came after the last complete event; it is taken out."""
        return b"" if self.framing is None else self.framing.rest()
