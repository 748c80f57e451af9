"""Identifiers: UUIDv7 (RFC 9562), ordered by time, from the call's own clock reading."""

import random
from functools import lru_cache

_random = random.Random()  # noqa: S311 - nothing is opened by an identifier
"""Seeded by the system. A look there for each identifier takes longer than all the rest."""


def uuid7(now_us: int) -> str:
    """A UUIDv7 whose time part is `now_us` (microseconds since the epoch, of which milliseconds are kept)."""
    bits = _random.getrandbits
    return f"{_begun(now_us // 1000)}{bits(12):03x}-{0x8000 | bits(14):04x}-{bits(48):012x}"


@lru_cache(maxsize=1)
def _begun(ms: int) -> str:
    """What identifiers of one millisecond have in common: the time, and the version."""
    return f"{ms >> 16 & 0xFFFFFFFF:08x}-{ms & 0xFFFF:04x}-7"
