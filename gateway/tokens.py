"""Token estimates, for calls whose provider reports no usage: o200k tokens of the text, times what the model's family
makes of them. How good they are: docs/metering.md.

Counting is pure and slow (some ms for 100 KB), so `Estimator` does it in a thread of its own. The ranks of the
tokenizer are shipped: nothing is downloaded.
"""

import asyncio
import hashlib
import math
import re
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import zstandard

from gateway.errors import UserError
from gateway.texts import Read, Written, read_by_model, size_of, written_by_model

if TYPE_CHECKING:
    import tiktoken

T = TypeVar("T")

# -- the tokenizer ------------------------------------------------------------------------------------------------

RANKS = Path(__file__).parent / "tokenizers" / "o200k_base.tiktoken.zst"
RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
"""Of the unpacked file; the same that tiktoken demands of its download."""
RANKS_BYTES = 3_613_922
PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How o200k_base splits text into words (tiktoken_ext.openai_public)."""

PIECE_CHARS = 50_000
"""Text is counted in pieces of at most 200 KB: tiktoken panics on a million blanks."""
COUNTED_CHARS_MAX = 2_000_000
"""Of longer text an even sample is counted."""
PARSED_BYTES_MAX = 2 * 1024 * 1024
"""A longer request is read without its base64, and one that is longer even so is not parsed: parsing holds the GIL."""
SAMPLE_BYTES_MAX = 512 * 1024
"""No more of an answer's sample is looked at."""
SCANNED_BYTES = 256 * 1024
BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{512,}")
BYTES_PER_TOKEN = 4
"""For what cannot be read: off by -63 to +83 %."""


@cache
def encoding(path: Path = RANKS) -> "tiktoken.Encoding":
    """The tokenizer, from shipped ranks; costs 0.2 to 0.5 s and 31 MB, once. Raises `UserError` on a damaged file."""
    import tiktoken  # with `encoding`, so that a gateway that estimates nothing does not pay for it

    remedy = "Install Outlay again; until then, estimates are bytes / 4."
    try:
        ranks = zstandard.ZstdDecompressor().decompress(path.read_bytes(), RANKS_BYTES)
    except (OSError, zstandard.ZstdError) as error:
        raise UserError(f"{path}: the tokenizer's ranks cannot be read ({error}). {remedy}") from None
    found = hashlib.sha256(ranks).hexdigest()
    if found != RANKS_SHA256:
        raise UserError(f"{path}: damaged: SHA-256 {found[:12]}…, not {RANKS_SHA256[:12]}…. {remedy}")
    words = (line.split() for line in ranks.splitlines())
    return tiktoken.Encoding(
        "o200k_base",
        pat_str=PATTERN,
        mergeable_ranks={b64decode(word): int(rank) for word, rank in words},
        special_tokens={},
    )


def count(parts: Sequence[str], ranks: Path = RANKS) -> int:
    """Tokens of texts. Of more than `COUNTED_CHARS_MAX` characters an even sample is counted and scaled up."""
    whole = sum(map(len, parts))
    step = math.ceil(whole / COUNTED_CHARS_MAX) or 1
    tokens = taken = 0
    for number, piece in enumerate(_pieces(parts)):
        if number % step == 0:
            taken += len(piece)
            tokens += _count_piece(piece, ranks)
    return round(tokens * whole / taken) if taken else 0


def _pieces(parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        for start in range(0, len(part), PIECE_CHARS):
            yield part[start : start + PIECE_CHARS]


def _count_piece(piece: str, ranks: Path) -> int:
    tokenizer = encoding(ranks)
    try:
        return len(tokenizer.encode_ordinary(piece))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - a panic of the tokenizer is no Exception
        return len(piece.encode("utf-8", "replace")) // BYTES_PER_TOKEN


def readable(body: bytes) -> Read:
    """What the model reads of a request body. Raises `ValueError` or `RecursionError` where it is not such JSON."""
    if len(body) > PARSED_BYTES_MAX:
        body = b"".join(BASE64.sub(b"", piece) for piece in _scanned(body))
    if len(body) > PARSED_BYTES_MAX:
        return Read(parts=[piece.decode("utf-8", "replace") for piece in _scanned(body)])
    return read_by_model(body)


def _scanned(body: bytes) -> Iterator[bytes]:
    return (body[start : start + SCANNED_BYTES] for start in range(0, len(body), SCANNED_BYTES))


# -- calibration --------------------------------------------------------------------------------------------------

MESSAGE_TOKENS = 4
"""Role and delimiters of a message: 3 to 5 in the chat templates of OpenAI, Llama and Qwen."""
ATTACHMENT_TOKENS = 1000
"""An image of a megapixel costs 765 (OpenAI, high detail: 85 + 4 tiles of 170), 1,333 (Anthropic: pixels / 750), 1,032
(Gemini: 4 tiles of 258) or 1,120 (Gemini 3). Files and sounds may be far off: their length is not looked at."""


IMAGE_TOKENS_MAX = 16_384
"""The most of an image that is billed: GPT-6 bills 14,364 for a photo of 12 megapixels, Claude 4,784 at most, Gemini 3
2,240; Qwen's limit is 16,384. What was billed beyond is learned (`quotes`)."""
SCALED_IMAGES, SCALED_IMAGE_TOKENS_MAX = re.compile(r"4o-mini"), 48_169
"""It bills an image as 33 times the tokens, at a thirty-third of the price: 2,833 and 8 tiles of 5,667."""
SURE_BYTES_MAX = 16 * 1024 * 1024
"""A longer request is not parsed for a sure count: that holds the GIL, for 6 ms per 16 MB."""
DIGITS = "0123456789"
MARGIN, MARGIN_TOKENS = 1.3, 256
"""For what a sure count cannot know: the error of the family's factor and of its template (docs/metering.md)."""


class Family(NamedTuple):
    """How models that share a tokenizer and a chat template differ from o200k and no template."""

    name: str
    pattern: re.Pattern[str]
    factor: float
    """Tokens per o200k token, of text."""
    request: int = 3
    """Tokens of the chat template around the messages."""
    tools: int = 0
    """Tokens of the template once a request has tools."""
    tool_call: int = 10
    """Tokens around a tool call's name and arguments in an answer."""


def _family(name: str, pattern: str, factor: float, **more: int) -> Family:
    return Family(name, re.compile(pattern), factor, **more)


FAMILIES = (
    _family("claude 4.7+", r"claude-(?:[a-z]+-)*(?:4[-.][7-9]|[5-9])(?!\d)", 1.4, request=6, tools=350, tool_call=30),
    _family("claude", r"claude|anthropic", 1.2, tools=350, tool_call=30),
    _family("gemini", r"gemini|gemma|gcp\.|google", 1.04, request=0),
    _family("gpt-oss", r"gpt-oss", 1.0, request=63),
    _family("mixtral", r"mixtral|mistral-7b", 1.3),
    _family("mistral", r"mistral|ministral|codestral|magistral|devstral|pixtral|voxtral", 1.02, request=8, tools=30),
    _family("llama 3.1+", r"llama-?(?:3[.-][1-9]|4)(?![\db])", 1.05, request=30, tools=150),
    _family("llama", r"llama", 1.06, request=6, tools=150),
    _family("deepseek", r"deepseek", 1.03, tools=230, tool_call=30),
    _family("qwen", r"qwen", 1.03, tools=130, tool_call=20),
    _family("glm", r"glm", 1.06, request=8, tools=100),
    _family("grok", r"grok|x_ai", 1.0, tools=200),
    _family("cohere", r"command|cohere", 1.05, request=0, tool_call=0),
    _family("nova", r"nova", 1.06, tools=340, tool_call=30),
)
"""The first whose pattern is in the model's name counts. All but Claude: set by hand near the medians of recorded
traffic (2026-11-25; the number of calls of each is in docs/metering.md), so no better than ±10 %; `tools` and
`tool_call` rest on 1 to 5 calls each, Nova and Grok on fewer than can be judged. Claude has no public tokenizer: the
recordings say 1.03 to 1.2 for prose, comparisons with unofficial tokenizers 1.21 to 1.30 for code and JSON, and 1.45
to 1.74 since 4.7; its tool prompt is documented as 159 to 530 tokens."""
OTHER = _family("other", "", 1.0)


def family_of(provider: str, model: str | None) -> Family:
    """The family of a model, by its name, or else by its provider's."""
    for name in ((model or "").lower(), provider.lower()):
        for family in FAMILIES:
            if family.pattern.search(name):
                return family
    return OTHER


def request_estimate(found: Read, family: Family, ranks: Path = RANKS) -> int:
    """Input tokens of a request."""
    tokens = count(found.parts, ranks) * family.factor + found.token_ids + found.attachments * ATTACHMENT_TOKENS
    if found.messages:
        tokens += found.messages * MESSAGE_TOKENS + family.request
    return round(tokens + family.tools * found.has_tools)


def most_estimate(found: Read, family: Family, correction: float = 1.0, ranks: Path = RANKS) -> int:
    """The most input tokens of a request, but for what it refers to and for the template: see `overhead`.

    Beside the margin: tokenizers that part numbers into digits, and scripts that others know less well.
    """
    size = sum(map(size_of, found.parts))
    digits = sum(part.count(digit) for part in found.parts for digit in DIGITS)
    foreign = size - sum(map(len, found.parts))
    tokens = count(found.parts, ranks) * family.factor * MARGIN + found.token_ids
    return math.ceil(tokens * max(1.0, correction) + digits + foreign / 2) + found.opaque_bytes + sum(found.files)


def overhead(found: Read, family: Family, model: str | None) -> int:
    """The most tokens that no byte of a request stands for."""
    image = SCALED_IMAGE_TOKENS_MAX if SCALED_IMAGES.search(model or "") else IMAGE_TOKENS_MAX
    files = sum(max(0, round(ATTACHMENT_TOKENS * CORRECTION_MAX) - size) for size in found.files)
    template = found.messages * MESSAGE_TOKENS + family.request + family.tools * found.has_tools
    return found.images * image + files + round(template * CORRECTION_MAX) + MARGIN_TOKENS


def answer_estimate(found: Written, family: Family, ranks: Path = RANKS) -> int:
    """Output tokens of an answer, or of the part of it that was looked at."""
    tokens = round(count(["".join(found.parts)], ranks) * family.factor + found.tool_calls * family.tool_call)
    return tokens or found.events  # nothing to read (hidden, an unknown shape): most servers send a token per event


# -- learning -----------------------------------------------------------------------------------------------------

Side = Literal["input", "output"]
OBSERVATIONS_MIN = 8
OBSERVATIONS_KEPT = 64
CORRECTION_MIN, CORRECTION_MAX = 0.5, 3.0
MODELS_MAX = 1000


class Corrections:
    """What providers' own counts teach about the estimates: per provider, model and side the median of the last ratios.

    A median, because one answer with much hidden reasoning says nothing about the next.
    """

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str, Side], deque[float]] = {}

    def observe(self, provider: str, model: str, side: Side, estimated: int, reported: int) -> None:
        """Take in one call: the estimate without correction, and what the provider reported."""
        if estimated <= 0 or reported <= 0:
            return
        key = (provider, model, side)
        if key not in self._ratios and len(self._ratios) >= MODELS_MAX:
            del self._ratios[next(iter(self._ratios))]  # model names come from clients: the oldest makes room
        self._ratios.setdefault(key, deque(maxlen=OBSERVATIONS_KEPT)).append(reported / estimated)

    def factor(self, provider: str, model: str | None, side: Side) -> float:
        """What to multiply an estimate by; 1 until there are `OBSERVATIONS_MIN` observations."""
        ratios = self._ratios.get((provider, model or "", side), ())
        if len(ratios) < OBSERVATIONS_MIN:
            return 1.0
        return min(max(median(ratios), CORRECTION_MIN), CORRECTION_MAX)


# -- the thread hop -----------------------------------------------------------------------------------------------

WAITING_MAX = 64
"""Estimates that may wait for the thread; further ones are bytes / 4, so that no bodies pile up."""


class Estimator:
    """Estimates off the event loop, one at a time. Never raises (but for the cancellation of the caller)."""

    def __init__(self, ranks: Path = RANKS) -> None:
        self.failure: str | None = None
        """Why estimates are bytes / 4, when the tokenizer could not be loaded."""
        self._ranks = ranks
        self._pool = ThreadPoolExecutor(1, "tokens")
        self._waiting = 0
        self._corrections = Corrections()  # used in the thread only

    async def load(self) -> None:
        """Load the tokenizer now (it loads by itself when first needed, and then holds up the loop for about 0.1 s)."""

        def work() -> int:
            encoding(self._ranks)
            return 0

        await self._in_thread(work, 0)

    async def request_tokens(self, provider: str, model: str | None, body: bytes) -> int:
        """Input tokens of a request's body (decoded, JSON)."""
        return await self._in_thread(partial(self._request_tokens, provider, model, body), _by_bytes(len(body)))

    async def most_tokens(self, provider: str, model: str | None, body: bytes) -> int | None:
        """The most input tokens that a request's body (decoded, JSON) can be billed for, but for what it only refers
        to. `None` where that cannot be counted now: then each byte may be a token.
        """
        return await self._in_thread(partial(self._most_tokens, provider, model, body), None)

    async def answer_tokens(
        self, provider: str, model: str | None, sample: bytes | Sequence[bytes], total_bytes: int
    ) -> int:
        """Output tokens of an answer: `sample` is the whole JSON answer, or the first of those events of a stream for
        which `texts.carries_text` (JSON; the last one may be cut); `total_bytes` the size of all of them.
        """
        work = partial(self._answer_tokens, provider, model, sample, total_bytes)
        return await self._in_thread(work, _by_bytes(total_bytes))

    async def learn(
        self,
        provider: str,
        model: str,
        *,
        body: bytes,
        input_tokens: int | None,
        sample: bytes | Sequence[bytes],
        total_bytes: int,
        output_tokens: int | None,
    ) -> None:
        """Compare the estimates of a call with what its provider reported (`None` = it did not)."""

        def work() -> int:
            family = family_of(provider, model)
            if input_tokens and not (found := readable(body)).attachments:  # their allowance is no measure
                estimated = request_estimate(found, family, self._ranks)
                self._corrections.observe(provider, model, "input", estimated, input_tokens)
            if output_tokens:
                estimated = round(_answer(family, sample, total_bytes, self._ranks))
                self._corrections.observe(provider, model, "output", estimated, output_tokens)
            return 0

        await self._in_thread(work, 0)

    def close(self) -> None:
        """Let go of the thread; what is asked afterwards is bytes / 4."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _request_tokens(self, provider: str, model: str | None, body: bytes) -> int:
        estimated = request_estimate(readable(body), family_of(provider, model), self._ranks)
        return round(estimated * self._corrections.factor(provider, model, "input"))

    def _most_tokens(self, provider: str, model: str | None, body: bytes) -> int | None:
        if len(body) > SURE_BYTES_MAX:
            return None
        found, family = read_by_model(body), family_of(provider, model)
        if sum(map(len, found.parts)) > COUNTED_CHARS_MAX:
            return None
        correction = self._corrections.factor(provider, model, "input")
        most, more = most_estimate(found, family, correction, self._ranks), overhead(found, family, model)
        return min(most, len(body)) + more

    def _answer_tokens(
        self, provider: str, model: str | None, sample: bytes | Sequence[bytes], total_bytes: int
    ) -> int:
        estimated = _answer(family_of(provider, model), sample, total_bytes, self._ranks)
        return round(estimated * self._corrections.factor(provider, model, "output"))

    async def _in_thread(self, work: Callable[[], T], otherwise: T) -> T:
        if self._waiting >= WAITING_MAX:
            return otherwise
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._guarded, work, otherwise)
        except RuntimeError:  # closed
            return otherwise
        finally:
            self._waiting -= 1

    def _guarded(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except UserError as error:
            self.failure = str(error)
            return otherwise
        except Exception:  # noqa: BLE001 - no JSON, or of a kind that nobody thought of: an estimate is due all the same
            return otherwise


def _answer(family: Family, sample: bytes | Sequence[bytes], total_bytes: int, ranks: Path) -> float:
    sample = _start(sample)
    seen = len(sample) if isinstance(sample, bytes) else sum(map(len, sample))
    return answer_estimate(written_by_model(sample), family, ranks) * max(total_bytes / seen, 1) if seen else 0


def _start(sample: bytes | Sequence[bytes]) -> bytes | list[bytes]:
    """At most `SAMPLE_BYTES_MAX` of a sample."""
    if isinstance(sample, bytes):
        return sample[:SAMPLE_BYTES_MAX]
    taken, room = [], SAMPLE_BYTES_MAX
    for event in sample:
        if room <= 0:
            break
        taken.append(event[:room])
        room -= len(event)
    return taken


def _by_bytes(size: int) -> int:
    return max(size, 0) // BYTES_PER_TOKEN
