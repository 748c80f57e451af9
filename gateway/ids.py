"""Identifiers: UUIDv7 (RFC 9562), ordered by time, from the call's own clock reading."""

import random

_random = random.Random()  # noqa: S311 - nothing is opened by an identifier
"""Seeded by the system. A look there for each identifier takes longer than all the rest."""


def uuid7(now_us: int) -> str:
    """A UUIDv7 whose time part is `now_us` (microseconds since the epoch, of which milliseconds are kept)."""
    ms, chance = now_us // 1000, _random.getrandbits(74)
    version, variant = 0x7000 | chance & 0xFFF, 0x8000 | chance >> 12 & 0x3FFF
    return f"{ms >> 16 & 0xFFFFFFFF:08x}-{ms & 0xFFFF:04x}-{version:04x}-{variant:04x}-{chance >> 26:012x}"
