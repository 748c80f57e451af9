"""Server-sent events that differ in nothing but a text, as most of a stream's do: what was said of one is true of all
of them, so that they need not be searched for what matters."""

import re

import msgspec

from gateway.texts import WRITTEN

QUOTE, BACKSLASH, NEWLINE = b'"', b"\\", b"\n"
BEFORE_TEXT = re.compile(rb'[^\\]*"(?:' + "|".join(sorted(WRITTEN)).encode() + rb')"\s*+:\s*+"')
"""Up to the last text that a model has written, of which there may be several."""
BEFORE_DATA = re.compile(rb"(?:event: [^\n]*+\n)?+data: ?+(?=\{[^\n]*+\n\n\Z)")
"""Of an event that has one line of data."""


class Alike(msgspec.Struct, frozen=True):
    """The events that are `head`, a text without quotes, `tail`."""

    head: bytes
    tail: bytes
    """With the quotes of the text, as `head`; with the blank line."""
    before_data: bytes
    """The beginning of `head` that is no data."""
    quotes: int
    lines: int
    """How many there are in each of them."""

    def run(self, block: bytes) -> tuple[int, int]:
        """How many events, and bytes, at the beginning of a block are such ones; 0 also where only some of those that
        look like it are."""
        if not block.startswith(self.head):
            return 0, 0
        between = self.tail + self.head
        last = block.rfind(between)
        end = block.find(self.tail, len(self.head) if last < 0 else last + len(between))
        if max(last, end) < 0:
            return 0, 0
        end = max(last, end) + len(self.tail)
        number = 1 + block.count(between, 0, end)
        if (block.count(QUOTE, 0, end), block.count(NEWLINE, 0, end)) != (number * self.quotes, number * self.lines):
            return 0, 0
        if block.find(BACKSLASH, 0, end) >= 0 and block.find(BACKSLASH + QUOTE, 0, end) >= 0:
            return 0, 0  # the end of a text is none
        return number, end


def of(event: bytes) -> Alike | None:
    """Those that are like an event, where there can be any."""
    if not (before := BEFORE_DATA.match(event)) or not (found := BEFORE_TEXT.match(event)):
        return None
    head, tail = found[0], event[event.find(QUOTE, found.end()) :]
    return None if BACKSLASH in event else Alike(head, tail, before[0], event.count(QUOTE), event.count(NEWLINE))
