"""What the simulated providers have in common: a model that counts tokens, remembers prefixes and answers by seed.

No provider's tokenizer can be shipped, so a token is four characters of what the request really holds: counts grow
with the input, and a repeated prefix counts the same each time.
"""

import hashlib
import json
import random
from collections import OrderedDict
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


class Recent:
    """Counts how often each digest was seen, and forgets the longest unseen ones: a demo may run for weeks."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._seen

    def add(self, digest: bytes) -> int:
        """Note one more sight of `digest`; returns how often it was seen before."""
        before = self._seen.pop(digest, 0)
        self._seen[digest] = before + 1
        if len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)
        return before


class Model:
    """Answers prompts. What it says follows from the seed and the request alone; what it finds in its cache, from the
    requests before it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bodies = Recent()
        self._prefixes = Recent()

    def chance(self, body: bytes) -> random.Random:
        """The dice for a request. The same body sent again (a retry) throws anew."""
        digest = hashlib.sha256(body).digest()
        return random.Random(f"{self._seed}:{digest.hex()}:{self._bodies.add(digest)}")  # noqa: S311 - not a secret

    def reply(self, prompt: Prompt, dice: random.Random, now: int) -> Reply:
        """Answer a prompt. `now`: seconds since the epoch, for the answer's own time stamps."""
        thinking = _length(dice, 180, 4000) if prompt.reasons else 0
        text = _length(dice, 90, 1500)
        tool = dice.choice(prompt.tools) if prompt.tools and (prompt.must_call or dice.random() < 0.7) else None
        arguments = "" if tool is None else json.dumps(_example(tool.schema, dice))
        left = prompt.output_max if prompt.output_max is not None else thinking + text + tokens(arguments)
        whole = thinking + text + tokens(arguments) <= left
        if not whole:
            tool, arguments = None, ""
            thinking = min(thinking, left)
            text = min(text, left - thinking)
        read, write, write_1h = self._cached(prompt)
        usage = Usage(
            input_tokens=count(prompt),
            output_tokens=thinking + text + tokens(arguments),
            cache_read_input_tokens=read,
            cache_write_input_tokens=write,
            cache_write_1h_input_tokens=write_1h,
            reasoning_output_tokens=thinking,
        )
        return Reply(
            id=f"{dice.getrandbits(128):032x}",
            model=SERVED_AS.get(prompt.model, prompt.model),
            created=now,
            usage=usage,
            text=prose(dice, text),
            tool=tool,
            arguments=arguments,
            cut_short=not whole,
        )

    def _cached(self, prompt: Prompt) -> tuple[int, int, int]:
        """Tokens read from the cache, written to it, and the part of those written for an hour."""
        ends = list(accumulate(map(tokens, prompt.segments)))
        chain = _chain(prompt)
        if prompt.marks is None:
            read = max((end for end, link in zip(ends, chain, strict=True) if link in self._prefixes), default=0)
            read = _whole_steps(read)
            for link in chain:
                self._prefixes.add(link)
            return read, (_whole_steps(ends[-1]) - read if prompt.bills_cache_writes and ends else 0), 0
        marks = [mark for mark in prompt.marks if mark.segments and ends[mark.segments - 1] >= CACHE_MIN]
        if not marks:
            return 0, 0, 0
        last = max(mark.segments for mark in marks)
        read = max((end for end, link in zip(ends[:last], chain, strict=False) if link in self._prefixes), default=0)
        for mark in marks:
            self._prefixes.add(chain[mark.segments - 1])
        hour_end = max((ends[mark.segments - 1] for mark in marks if mark.one_hour), default=0)
        return read, ends[last - 1] - read, max(0, hour_end - read)


def tokens(text: str) -> int:
    """The length of a text in tokens."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def count(prompt: Prompt) -> int:
    """The length of a prompt in tokens."""
    return sum(map(tokens, prompt.segments))


def segment(part: Any) -> str:
    """A part of a request as text. Cache breakpoints move from turn to turn, so they are no part of it."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        part = {key: value for key, value in part.items() if key != "cache_control"}
    return json.dumps(part, ensure_ascii=False, sort_keys=True)


def deltas(text: str) -> list[str]:
    """A text in the pieces in which a stream brings it."""
    size = DELTA_TOKENS * CHARACTERS_PER_TOKEN
    return [text[at : at + size] for at in range(0, len(text), size)]


def prose(dice: random.Random, length: int) -> str:
    """Words that mean nothing, exactly `length` tokens long."""
    size = length * CHARACTERS_PER_TOKEN
    return " ".join(dice.choices(WORDS, k=size // 2 + 1))[:size]


def _chain(prompt: Prompt) -> list[bytes]:
    """A digest for each prefix of the prompt."""
    link, chain = prompt.model.encode(), []
    for text in prompt.segments:
        link = hashlib.sha256(link + text.encode("utf-8", "surrogatepass")).digest()
        chain.append(link)
    return chain


def _whole_steps(length: int) -> int:
    return length // CACHE_STEP * CACHE_STEP if length >= CACHE_MIN else 0


def _length(dice: random.Random, typical: int, longest: int) -> int:
    return max(1, min(longest, int(typical * dice.lognormvariate(0, 0.8))))


def _example(schema: dict[str, Any], dice: random.Random) -> Any:
    """A value that a JSON schema allows."""
    if schema.get("enum"):
        return dice.choice(schema["enum"])
    match str(schema.get("type", "object")).lower():
        case "string":
            return prose(dice, dice.randint(2, 12)).strip()
        case "integer" | "number":
            return dice.randint(0, 500)
        case "boolean":
            return dice.random() < 0.5
        case "array":
            return [_example(schema.get("items", {"type": "string"}), dice)]
        case _:
            return {name: _example(inner, dice) for name, inner in schema.get("properties", {}).items()}
