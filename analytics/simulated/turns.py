"""The pretend model: what a request asks, what is answered, and what that is billed. Pure; knows no wire format.

Everything is derived from a `random.Random` that the caller seeds from the request, so the same request gets the same
answer. Only cache hits depend on what was asked before.
"""

import hashlib
import json
import random
import re
import string
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

WORDS = re.findall(
    r"\w+",
    "the a of to and in that for with ledger invoice rounding cache index query token stream retry queue batch worker "
    "schema migration customer payment refund cart search ranking latency timeout handler parser module function test "
    "branch commit review deploy should returns checks fixes reads writes keeps moves adds removes because when after "
    "before once only never always first last each every small large empty missing",
)
ALPHANUMERIC = string.ascii_letters + string.digits

CACHE_TOKENS_MIN = 1024
"""Shorter prefixes are not cached. Source: the providers' prompt caching guides (larger for some models)."""
LOOKBACK = 20
"""How many blocks before a breakpoint Anthropic looks for an older cache entry."""
CACHE_ENTRIES_MAX = 100_000
PAGE_TOKENS = (1_000, 5_000)
"""What a fetched page adds to the prompt (Gemini's `urlContext`)."""

Ttl = Literal["5m", "1h"]
Finish = Literal["stop", "tool", "length"]


@dataclass(frozen=True)
class Segment:
    """A part of the prompt as it counts for caching: a tool, a system block, a message or a block of one."""

    text: str
    cache: Ttl | None = None
    """A cache breakpoint stands at its end (Anthropic's `cache_control`)."""

    @property
    def tokens(self) -> int:
        return tokens(self.text)


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A request, as far as the pretend model understands it."""

    model: str
    stream: bool
    segments: tuple[Segment, ...]
    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    """The client insists on a tool call."""
    limit: int | None = None
    """Most output tokens, reasoning included."""
    thinks: bool = False
    shows_thoughts: bool = False
    fetches_pages: bool = False
    """A server-side tool adds tokens to the prompt."""
    own: Any = None
    """What only the wire format itself needs to remember of the request."""

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: str
    """A JSON object."""


@dataclass(frozen=True)
class Reply:
    """What the model says."""

    thoughts: str
    text: str
    call: ToolCall | None
    finish: Finish

    @property
    def reasoning_tokens(self) -> int:
        return tokens(self.thoughts)

    @property
    def call_tokens(self) -> int:
        return 0 if self.call is None else tokens(self.call.name) + tokens(self.call.arguments)

    @property
    def tokens(self) -> int:
        return self.reasoning_tokens + tokens(self.text) + self.call_tokens


@dataclass(frozen=True)
class Billed:
    """Tokens as billed, named and meant as in the ledger: input includes the cache parts and the tool-use prompt,
    output includes reasoning, 1h writes are a part of writes."""

    input_tokens: int
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    cache_write_1h_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    tool_use_prompt_tokens: int = 0

    def until(self, reply: Reply, done: int) -> "Billed":
        """The bill when the answer broke off after `done` output tokens (reasoning comes first)."""
        done = min(done, reply.tokens)
        return replace(self, output_tokens=done, reasoning_output_tokens=min(done, reply.reasoning_tokens))


@dataclass(frozen=True)
class Turn:
    """One request with its answer and its bill: all that a wire format needs to write it down."""

    prompt: Prompt
    reply: Reply
    billed: Billed
    model: str
    """The served model."""
    created: int
    """Seconds since the epoch."""
    tag: str
    """Seed of the ids in the answer."""

    def id(self, prefix: str, length: int, alphabet: str = ALPHANUMERIC) -> str:
        """An id, the same wherever it stands in the answer: `id("msg_01", 22)`."""
        return prefix + "".join(random.Random(f"{self.tag}/{prefix}").choices(alphabet, k=length))  # noqa: S311


@dataclass(frozen=True)
class Piece:
    """A part of a streamed answer, written at once."""

    data: bytes
    tokens: int = 0
    """Output tokens that are in it."""


def tokens(text: str) -> int:
    """About four characters each, as providers say of English text; no provider's real tokenizer."""
    return (len(text) + 3) // 4


def prose(rng: random.Random, length: int) -> str:
    """Text of about `length` tokens."""
    found: list[str] = []
    size = 0
    while size < length * 4:
        sentence = " ".join(rng.choices(WORDS, k=rng.randint(6, 14))).capitalize() + ". "
        found.append(sentence)
        size += len(sentence)
    return "".join(found)[: length * 4].strip()


def pieces(text: str, words: int) -> Iterator[str]:
    """The text in runs of up to `words` words; joined they are the text."""
    yield from re.findall(rf"(?:\s*\S+\s*){{1,{words}}}", text)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def answer(prompt: Prompt, rng: random.Random) -> Reply:
    """What the model says to `prompt`, within its limit."""
    room = prompt.limit if prompt.limit is not None else 1_000_000
    thoughts = prose(rng, min(rng.randint(16, 200), room // 2)) if prompt.thinks else ""
    room -= tokens(thoughts)
    call = None
    if prompt.tools and (prompt.must_call or rng.random() < 0.75):
        tool = rng.choice(prompt.tools)
        call = ToolCall(tool.name, compact(_arguments(tool.schema, rng)))
        cost = tokens(call.name) + tokens(call.arguments)
        if cost > room:
            call = None
        else:
            room -= cost
    wanted = prose(rng, rng.randint(8, 40) if call else int(min(rng.lognormvariate(4.8, 0.7), 1_500)) + 8)
    text = wanted[: room * 4]
    finish: Finish = "length" if text != wanted and call is None else "tool" if call else "stop"
    return Reply(thoughts, text, call, finish)


def _arguments(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value that fits a JSON schema, as far as tools use them."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match str(schema.get("type", "object")).lower():
        case "integer":
            return rng.randint(1, 500)
        case "number":
            return rng.randint(1, 5_000) / 10
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return [_arguments(schema.get("items", {"type": "string"}), rng) for _ in range(rng.randint(1, 2))]
        case "string":
            return " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
        case _:
            properties = schema.get("properties") or {}
            return {name: _arguments(inner, rng) for name, inner in properties.items()}


class PromptCache:
    """Which prefixes a provider has seen. Entries leave only when there are too many: nothing here lives for 5 minutes
    of silence."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def implicit(self, scope: str, segments: Sequence[Segment], step: int = 1) -> tuple[int, int]:
        """Tokens (read, written) where the provider caches by itself, in steps of `step` tokens."""
        prefixes = list(_prefixes(scope, segments))
        read = max((count for key, count in prefixes if key in self._seen), default=0)
        total = prefixes[-1][1] if prefixes else 0
        read, whole = _step(read, step), _step(total, step)
        self._remember(key for key, _ in prefixes)
        return read, max(0, whole - read)

    def explicit(self, scope: str, segments: Sequence[Segment]) -> tuple[int, int, int]:
        """Tokens (read, written, of these for 1 h) where the client sets breakpoints."""
        prefixes = list(_prefixes(scope, segments))
        marked = [n for n, segment in enumerate(segments) if segment.cache and prefixes[n][1] >= CACHE_TOKENS_MIN]
        if not marked:
            return 0, 0, 0
        looked_at = {n for mark in marked for n in range(max(0, mark - LOOKBACK + 1), mark + 1)}
        read = max((prefixes[n][1] for n in looked_at if prefixes[n][0] in self._seen), default=0)
        last = prefixes[marked[-1]][1]
        last_1h = max((prefixes[n][1] for n in marked if segments[n].cache == "1h"), default=0)
        self._remember(prefixes[n][0] for n in marked)
        return read, max(0, last - read), max(0, last_1h - read)

    def _remember(self, keys: Iterator[bytes]) -> None:
        for key in keys:
            self._seen[key] = None
            self._seen.move_to_end(key)
        while len(self._seen) > CACHE_ENTRIES_MAX:
            self._seen.popitem(last=False)


def _prefixes(scope: str, segments: Sequence[Segment]) -> Iterator[tuple[bytes, int]]:
    """(digest, tokens) of the prompt up to the end of each segment."""
    running = hashlib.sha256(scope.encode())
    count = 0
    for segment in segments:
        running.update(b"\0" + segment.text.encode())
        count += segment.tokens
        yield running.digest(), count


def _step(count: int, step: int) -> int:
    return count // step * step if count >= CACHE_TOKENS_MIN else 0
