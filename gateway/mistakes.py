"""What msgspec says of a wrong value, in words that tell what to write instead. Pure."""

import re
from typing import Any, get_args

WHAT_TO_WRITE = {
    "int": "a whole number", "float": "a number", "decimal": "a number", "bool": "true or false",
    "str": "text in quotes", "array": "a list in brackets", "object": "a table",
}  # fmt: skip
"""By the type that was expected."""


def in_words(message: str, hint: Any) -> str:
    """`message`: without the place. `hint`: the type of the field."""
    if message.startswith("Invalid enum value"):
        return f"write one of {', '.join(choices(hint))}"
    if message == "Invalid decimal string":
        return "write a number, as 25 or 0.5"
    if (found := re.fullmatch(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", message)) and found[1] in WHAT_TO_WRITE:
        quoted = found[2] == "str" and found[1] in ("int", "float", "decimal", "bool")
        return f"write {WHAT_TO_WRITE[found[1]]}" + (", without quotes" if quoted else "")
    return message.replace("Object missing", "missing")


def choices(hint: Any) -> list[str]:
    """The values of a literal type, also inside of others."""
    if isinstance(hint, str):
        return [hint]
    return [value for inner in get_args(hint) for value in choices(inner)]
