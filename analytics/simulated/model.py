"""What the simulated providers have in common: a model that counts tokens, remembers prefixes and answers by seed.

No provider's tokenizer can be shipped, so a token is four characters of what the request really holds: counts grow
with the input, and a repeated prefix counts the same each time.
"""

import hashlib
import json
import math
import random
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

CHARACTERS_PER_TOKEN = 4
DELTA_TOKENS = 4
CACHE_MIN = 1024
CACHE_STEP = 128
REMEMBERED_MAX = 50_000

SERVED_AS = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "gpt-5.4": "gpt-5.4-2026-03-05",
}
"""Names that providers answer with another name: the one that is billed."""

WORDS = (
    "the rounding error comes from adding floats before the ledger converts them so this change keeps whole cents all "
    "along and a test covers half even cases while the parser still accepts both forms because callers rely on that "
    "order of fields next step is to run suite again then open pull request with short note on migration"
).split()


class Usage(msgspec.Struct, frozen=True):
    """Tokens as billed: input includes cache reads and writes, output includes reasoning, the 1 h part is in writes."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    cache_write_1h_input_tokens: int = 0
    reasoning_output_tokens: int = 0


class ToolSpec(msgspec.Struct, frozen=True):
    """A function that the request offers: its name and the JSON schema of its arguments."""

    name: str
    schema: dict[str, Any]


class Mark(msgspec.Struct, frozen=True):
    """An explicit cache breakpoint after `segments` segments."""

    segments: int
    one_hour: bool


class Prompt(msgspec.Struct, frozen=True):
    """What a request asks, in any dialect."""

    request: dict[str, Any]
    model: str
    segments: tuple[str, ...]
    """The text of tools, system and messages in the order in which providers cache them."""
    stream: bool = False
    output_max: int | None = None
    tools: tuple[ToolSpec, ...] = ()
    must_call: bool = False
    reasons: bool = False
    marks: tuple[Mark, ...] | None = None
    """Where the caller asked for caching; `None` where the provider caches by itself."""
    bills_cache_writes: bool = False


class Reply(msgspec.Struct, frozen=True):
    """What the model answers, before a dialect puts it into its shape."""

    id: str
    """32 hexadecimal digits, from which dialects make their ids."""
    model: str
    created: int
    usage: Usage
    text: str
    tool: ToolSpec | None = None
    arguments: str = ""
    cut_short: bool = False
    """The answer ended at the request's output limit."""


class Recent[_K, _V](OrderedDict) if False else OrderedDict:  # placeholder
    pass
