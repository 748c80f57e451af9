"""Server-sent events (WHATWG HTML §9.2), cut out of bytes that arrive in any pieces."""

import re

EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
BOUNDARY_BYTES = 4


class Events:
    """Feed it pieces; each call gives the events that are complete now, with the blank line that ends them."""

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
        """What came after the last complete event; it is taken out."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


def data_of(event: bytes) -> bytes:
    """The `data` of an event, its lines joined."""
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))
