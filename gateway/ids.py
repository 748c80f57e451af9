"""Identifiers: UUIDv7 (RFC 9562), ordered by time, from the call's own clock reading."""

import random

_random = random.Random()  # noqa: S311 - nothing is opened by an identifier
"""Seeded by the system. A look there for each identifier takes longer than all the rest."""


def uuid7(now_us: int) -> str:
    """A UUIDv7 whose time part is `now_us` (microseconds since the epoch, of which milliseconds are kept)."""
    value = (now_us // 1000 & (1 << 48) - 1) << 80 | _random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
