"""HTTP/1.1 as the upstream and the load generator need it: where a message ends, and what its body is."""

END_OF_CHUNKS = b"\r\n0\r\n\r\n"


class Incoming:
    """One message as it comes in."""

    __slots__ = ("_chunked", "_left", "_pieces", "_start", "_tail", "fields", "is_whole", "start_line")

    def __init__(self) -> None:
        self.start_line = b""
        self.fields = b""
        """The header fields, in lower case; empty until they are all there."""
        self.is_whole = False
        self._start = b""
        self._pieces: list[bytes] = []
        self._left = 0
        self._chunked = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        if not self.start_line:
            data = self._start + data if self._start else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._start = data
                return
            self.start_line, _, fields = data[:end].partition(b"\r\n")
            self.fields = b"\r\n" + fields.lower() + b"\r\n"
            self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in self.fields
            at = self.fields.find(b"\r\ncontent-length:")
            self._left = int(self.fields[at + 17 : self.fields.index(b"\r\n", at + 2)]) if at >= 0 else 0
            self._tail = b"\r\n"
            data = data[end + 4 :]
        self._pieces.append(data)
        if self._chunked:
            self._tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
            self.is_whole = self._tail == END_OF_CHUNKS
        else:
            self._left -= len(data)
            self.is_whole = self._left <= 0

    def body(self) -> bytes:
        data = b"".join(self._pieces)
        return without_chunks(data) if self._chunked else data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def without_chunks(data: bytes) -> bytes:
    """The payload of a whole chunked body."""
    parts, at = [], 0
    while True:
        start = data.index(b"\r\n", at)
        size = int(data[at:start], 16)
        if not size:
            return b"".join(parts)
        parts.append(data[start + 2 : start + 2 + size])
        at = start + 4 + size
