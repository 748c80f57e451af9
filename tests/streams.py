"""Recorded streams, cut anywhere and ended as the gateway ends them."""

import base64
import gzip
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import dialects
from gateway.call import Usage
from gateway.dialects.base import Dialect
from gateway.framing import AwsEvents, Event, Events, Framing, Items, Lines, aws_frame
from gateway.meter import Meter

TRANSCRIPTS = Path(__file__).parent / "transcripts" / "streams"
CORPUS = Path(os.environ.get("OUTLAY_CORPUS", "/nonexistent")) / "dev.jsonl.gz"
BILLED = Usage(input_tokens=30, output_tokens=7, reasoning_output_tokens=2, cache_read_input_tokens=10)
"""What an ended stream states: more than nothing, less than any whole one."""


@dataclass(frozen=True)
class Stream:
    """One recorded answer, and what was asked."""

    name: str
    path: str
    request: bytes
    content_type: str
    pieces: tuple[bytes, ...]
    """Each ends with an event."""

    @property
    def dialect(self) -> Dialect:
        found = dialects.find("POST", self.path)
        assert found is not None
        return found[0]

    def meter(self) -> Meter:
        return Meter(self.dialect, "", {"Content-Type": self.content_type})

    def cut(self, events: int, *, torn: int = 0) -> tuple[Meter, bytes]:
        """A meter that has seen so many events, and `torn` bytes of the next; and the bytes before the torn ones."""
        meter = self.meter()
        assert self.dialect.ending is not None
        meter.ending = self.dialect.ending(self.path, self.request)
        seen = b"".join(self.pieces[:events]) + b"".join(self.pieces[events:])[:torn]
        for start in range(0, len(seen), 61):
            meter.feed(seen[start : start + 61])
        return meter, seen[: len(seen) - meter.unfinished]

    def ended(self, events: int, *, torn: int = 0) -> bytes | None:
        """The bytes that a client gets when the stream is stopped there; `None` where it is broken off."""
        meter, passed = self.cut(events, torn=torn)
        end = meter.end(BILLED)
        return None if end is None else passed + end


def transcripts() -> list[Stream]:
    return [_transcript(path) for path in sorted(TRANSCRIPTS.glob("*.json"))]


def transcript(name: str) -> Stream:
    return _transcript(TRANSCRIPTS / f"{name}.json")


def _transcript(path: Path) -> Stream:
    given = json.loads(path.read_bytes())
    pieces = tuple(_framed(given["framing"], given["events"]))
    return Stream(path.stem, given["path"], json.dumps(given["request"]).encode(), given["content_type"], pieces)


def _framed(framing: str, events: list[Any]) -> Iterator[bytes]:
    for number, event in enumerate(events):
        data = event.encode() if isinstance(event, str) else json.dumps(event).encode()
        match framing:
            case "sse":
                name = event.get("type") if isinstance(event, dict) else None
                yield (b"event: %s\r\n" % name.encode() if name else b"") + b"data: " + data + b"\r\n\r\n"
            case "lines":
                yield data + b"\n"
            case "array":
                yield (b",\r\n" if number else b"[") + data + (b"\n]" if number == len(events) - 1 else b"")
            case "aws":
                ((kind, payload),) = [*event.items()][:1]
                more = {name: value for name, value in event.items() if name != kind}
                yield aws_frame(Event(kind, json.dumps({**payload, **more}).encode()))


def recorded(*apis: str) -> Iterator[Stream]:
    """The streams of the corpus; none where it is absent."""
    if not CORPUS.exists():
        return
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        for case in map(json.loads, lines):
            if not case["stream"] or case["status"] != 200 or (apis and case["api"] not in apis):
                continue
            found = dialects.find("POST", case["path"])
            if found is not None and found[0].ending is not None and case["method"] == "POST":
                body = _bytes(case, "response")
                kind = case["response_content_type"] or "text/event-stream"
                request = _bytes(case, "request") or b"{}"
                yield Stream(f"{case['id']} {case['shape']}", case["path"], request, kind, tuple(_pieces(body, kind)))


def _bytes(case: dict[str, Any], name: str) -> bytes:
    body = case[f"{name}_body"] or ""
    return base64.b64decode(body) if case[f"{name}_encoding"] == "base64" else body.encode()


def _pieces(body: bytes, content_type: str) -> Iterator[bytes]:
    """The body, cut where an event ends."""
    framing: Framing
    if body[:1] == b"\x00":
        framing = AwsEvents()
    elif "stream+json" in content_type or "ndjson" in content_type:
        framing = Lines()
    else:
        framing = Items() if body[:1] == b"[" else Events()
    start = 0
    for at in range(1, len(body) + 1):
        if framing.feed(body[at - 1 : at]) or at == len(body):
            yield body[start:at]
            start = at


def sound_frame(head: bytes, payload: bytes) -> bytes:
    """A frame of an AWS event stream whose lengths and sums are right, whatever its head says."""
    sizes = struct.pack(">II", AwsEvents.OVERHEAD + len(head) + len(payload), len(head))
    frame = sizes + zlib.crc32(sizes).to_bytes(4, "big") + head + payload
    return frame + zlib.crc32(frame).to_bytes(4, "big")
