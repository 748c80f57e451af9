"""Content encodings (RFC 9110 §8.4.1), decoded in a copy: what passes the gateway stays as it was sent."""

import io
import zlib
from collections.abc import Callable, Iterator

import brotli
import zstandard

Decode = Callable[[bytes], bytes]

STEP_BYTES = 1024 * 1024


class TooLargeError(ValueError):
    """A body that decodes to more than the limit."""


def decoder(encoding: str) -> Decode | None:
    """An incremental decoder for an answer; `None` for an encoding that is not known. May raise on bad bytes."""
    match encoding.strip().lower():
        case "" | "identity":
            return bytes
        case "gzip" | "x-gzip":
            return _gunzipper()
        case "deflate":
            return zlib.decompressobj().decompress
        case "br":
            return brotli.Decompressor().process  # type: ignore[no-any-return]
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
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
            found += member.decompress(piece)
            piece = member.unused_data
            if member.eof:
                member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return found

    return decode


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
