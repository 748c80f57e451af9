"""Content encodings (RFC 9110 §8.4.1), decoded in a copy: what passes the gateway stays as it was sent."""

import functools
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import zstandard

Decode = Callable[[bytes], bytes]

STEP_BYTES = 1024 * 1024
ANSWER_STEP_MAX = 64 * 1024 * 1024
"""One piece of an answer that decodes to more is no answer: it would fill the memory."""
SLICE_BYTES = 512
"""Of zstd, which has no limit of its own: one slice decodes to at most 16 MiB."""


class TooLargeError(ValueError):
    """A body that decodes to more than the limit."""


def decoder(encoding: str) -> Decode | None:
    """An incremental decoder for an answer; `None` for an encoding that is not known. May raise on bad bytes, raises
    `TooLargeError` on a piece that decodes to more than `ANSWER_STEP_MAX`."""
    match encoding.strip().lower():
        case "" | "identity":
            return bytes
        case "gzip" | "x-gzip":
            return _gunzipper()
        case "deflate":
            return functools.partial(_inflate, zlib.decompressobj())
        case "br":
            return functools.partial(_unbrotli, brotli.Decompressor())
        case "zstd":
            unpacker = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
            return functools.partial(_unzstd, unpacker)
        case _:
            return None


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """A request body, decoded whole. Raises `ValueError` on bad bytes, `TooLargeError` beyond `limit` bytes.

    Never holds more than the limit and a step: a few bytes may decode to gigabytes.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            steps = _inflated(body, zlib.MAX_WBITS | 16)
        case "deflate":
            steps = _inflated(body, zlib.MAX_WBITS)
        case "br":
            steps = _unbrotlied(body)
        case "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True)
            steps = iter(lambda: reader.read(STEP_BYTES), b"")
        case _:
            raise ValueError(f"unknown content-encoding {encoding[:40]!r}")
    found: list[bytes] = []
    size = 0
    try:
        for step in steps:
            size += len(step)
            if size > limit:
                raise TooLargeError
            found.append(step)
    except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
        raise ValueError("the bytes do not match the content-encoding") from error
    return b"".join(found)


def _gunzipper() -> Decode:
    """Gzip in any number of members, as servers send that flush each event as one."""
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decode(piece: bytes) -> bytes:
        nonlocal member
        found = b""
        while piece:
            found += _inflate(member, piece)
            if len(found) > ANSWER_STEP_MAX:
                raise TooLargeError
            piece = member.unused_data
            if member.eof:
                member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return found

    return decode


def _inflate(member: "zlib._Decompress", piece: bytes) -> bytes:
    found = member.decompress(piece, ANSWER_STEP_MAX)
    if member.unconsumed_tail:
        raise TooLargeError
    return found


def _unbrotli(decompressor: Any, piece: bytes) -> bytes:
    found: bytes = decompressor.process(piece, output_buffer_limit=ANSWER_STEP_MAX)
    if not decompressor.can_accept_more_data():
        raise TooLargeError
    return found


def _unzstd(unpacker: "zstandard.ZstdDecompressionObj", piece: bytes) -> bytes:
    found: list[bytes] = []
    size = 0
    for start in range(0, len(piece), SLICE_BYTES):
        found.append(unpacker.decompress(piece[start : start + SLICE_BYTES]))
        size += len(found[-1])
        if size > ANSWER_STEP_MAX:
            raise TooLargeError
    return b"".join(found)


def _inflated(body: bytes, wbits: int) -> Iterator[bytes]:
    """All members of a gzip (or the one of a zlib) body, step by step."""
    while body:
        member = zlib.decompressobj(wbits)
        while not member.eof:
            step = member.decompress(body, STEP_BYTES)
            body = member.unconsumed_tail
            if not step and not body and not member.eof:
                raise EOFError
            yield step
        body = member.unused_data


def _unbrotlied(body: bytes) -> Iterator[bytes]:
    decompressor = brotli.Decompressor()
    yield decompressor.process(body, output_buffer_limit=STEP_BYTES)
    while not decompressor.is_finished():
        step = decompressor.process(b"", output_buffer_limit=STEP_BYTES)
        if not step:
            raise EOFError
        yield step
