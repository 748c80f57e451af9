"""How the events of a stream are told apart: server-sent events, lines of JSON, AWS event streams, or one JSON value.

Each framing takes bytes in any pieces and gives the JSON of the events that are complete now.
"""

import base64
import re
import struct
import zlib
from typing import Protocol

import msgspec

EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")
BOUNDARY_BYTES = 4


class Framing(Protocol):
    """Bytes in, events out."""

    def __len__(self) -> int:
        """Bytes held back."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that this piece completes. Raises `ValueError` on bytes that cannot be this framing."""

    def rest(self) -> bytes:
        """What came after the last complete event; it is taken out."""


class Events:
    """Server-sent events (WHATWG HTML §9.2), each with the blank line that ends it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, piece: bytes) -> list[bytes]:
        self._buffer += piece
        # From where the last search ended, so that a long event in many pieces costs its length once.
        ends = [end.end() for end in EVENT_END.finditer(self._buffer, max(0, self._searched - BOUNDARY_BYTES + 1))]
        found = [bytes(self._buffer[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        if ends:
            del self._buffer[: ends[-1]]
        self._searched = len(self._buffer)
        return found

    def rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


def data_of(event: bytes) -> bytes:
    """The `data` of a server-sent event, its lines joined."""
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))


class ServerSent(Events):
    """The data of server-sent events."""

    def feed(self, piece: bytes) -> list[bytes]:
        return [data_of(event) for event in super().feed(piece)]

    def rest(self) -> bytes:
        return data_of(super().rest())


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


class Whole:
    """One JSON value, known when it is complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, piece: bytes) -> list[bytes]:
        self._buffer += piece
        return []

    def rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


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
            found.append(self._event(frame[12 : 12 + head_bytes], frame[12 + head_bytes : -4]))
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


def framing_of(content_type: str, start: bytes) -> Framing:
    """The framing of an answer, by its content type and its first bytes: content types lie (a JSON error that is
    labelled text/event-stream)."""
    kind = content_type.partition(";")[0].strip().lower()
    if start[:1] == b"\x00":  # the length of a frame; no text begins like that
        return AwsEvents()
    if kind in ("application/x-ndjson", "application/stream+json", "application/jsonl"):
        return Lines()
    return Whole() if start[:1] in b"{[" else ServerSent()
