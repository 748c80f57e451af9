"""Readers of provider JSON that never raise: a provider's odd value becomes `None`, not an exception."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from gateway.call import NANO

ANYTHING = msgspec.json.Decoder()
TOKENS_MAX = 2**53
"""Counts above this are nonsense (and would not survive JSON in other tools): read as unknown."""
Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
"""What `count` takes, as a type: other values are refused."""


def names(words: str) -> frozenset[str]:
    """Names of fields or tools that stand in a text, with blanks between them."""
    return frozenset(words.split())


def count(value: Any) -> int | None:
    """A token or unit count: a whole number ≥ 0, also when sent as a float (`12.0`). Else `None`."""
    if type(value) is int:
        return value if 0 <= value <= TOKENS_MAX else None
    if not isinstance(value, float) or not 0 <= value <= TOKENS_MAX or value != int(value):
        return None
    return int(value)


def amount(value: Any) -> float | None:
    """A quantity ≥ 0 that need not be whole (seconds). Else `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TOKENS_MAX:
        return None
    return float(value)


def largest(*values: Any) -> int | None:
    """The largest of several statements of one count; `None` when none of them is a count."""
    found: int | None = None
    for value in values:
        number = count(value)
        if number is not None and (found is None or number > found):
            found = number
    return found


def whole_number(value: Any) -> int | None:
    """A count that may stand in a form as text."""
    return count(int(value)) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else count(value)


def text(value: Any, limit: int = 256) -> str | None:
    """A non-empty string of at most `limit` characters; longer ones are cut. Else `None`."""
    return value[:limit] if isinstance(value, str) and value else None


def child(value: Any, *path: str) -> Mapping[str, Any]:
    """The object at `path` below `value`, in decoded JSON; an empty one where anything on the way is missing or of
    another type."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def value_of(raw: msgspec.Raw, limit: int = 2**18) -> Any:
    """What a part of a JSON document holds; `None` where there is none, or more than `limit` bytes of it."""
    if not 0 < len(raw) <= limit:
        return None
    try:
        return ANYTHING.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def items(value: Any) -> list[Any]:
    """`value` when it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def usd(value: Any) -> int | None:
    """A provider's own USD figure as whole nano-USD (half-even), or `None` when it is not a sum of money ≥ 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        nano = Decimal(str(value)) * NANO
        return int(nano.to_integral_value()) if nano.is_finite() and 0 <= nano < TOKENS_MAX else None
    except (ArithmeticError, ValueError):
        return None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) < 20 else None


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def tidied(data: bytes) -> bytes:
    """JSON that strict readers refuse, so that they take it: lone surrogates (text cut inside an emoji), NaN, bytes
    that are no UTF-8, numbers beyond measure. Raises `ValueError` when it is no JSON at all."""
    try:
        text = data.decode("utf-8", "replace")
        value = json.loads(text, parse_constant=lambda name: None, parse_int=_integer, parse_float=_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
