"""Server-sent events that differ in nothing but a text, as most of a stream's do: what was said of one is true of all
of them, so that they need not be searched for what matters."""

import re

import msgspec

from gateway.texts import WRITTEN

QUOTE, BACKSLASH, NEWLINE = b'"', b"\\", b"\n"
LENGTH_MAX = 2048
"""Longer events are not worth it: what they have in common would have to be kept, and searched for."""
BEFORE_TEXT = re.compile(rb'.*"(?:' + "|".join(sorted(WRITTEN)).encode() + rb')"\s*+:\s*+"', re.DOTALL)
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
        look like it are. A text with a quote, which has a backslash before it, ends the row."""
        if not block.startswith(self.head):
            return 0, 0
        begin, between = len(self.head), self.tail + self.head
        last = block.rfind(between, begin)
        end = max(last, block.find(self.tail, begin if last < 0 else last + len(between)))
        if BACKSLASH in block and (quoted := block.find(BACKSLASH + QUOTE, begin)) >= 0:
            end = min(end, block.rfind(between, begin, quoted))  # before the event in which a text has a quote
        if end < 0:
            return 0, 0
        end += len(self.tail)
        number = 1 + block.count(between, begin, end)
        if (block.count(QUOTE, 0, end), block.count(NEWLINE, 0, end)) != (number * self.quotes, number * self.lines):
            return 0, 0
        return number, end


def of(event: bytes) -> Alike | None:
    """Those that are like an event, where there can be any."""
    if len(event) > LENGTH_MAX or BACKSLASH + QUOTE in event:  # a quote is always the end of a text, then
        return None
    if not (before := BEFORE_DATA.match(event)) or not (found := BEFORE_TEXT.match(event)):
        return None
    tail = event[event.find(QUOTE, found.end()) :]
    return Alike(found[0], tail, before[0], event.count(QUOTE), event.count(NEWLINE))
