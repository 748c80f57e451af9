"""The shape of a request, never its text: keyed hashes by which repeated work is found, and how its bytes are divided.

What a hash covers is what a rule of waste needs (docs/metering.md, "The shape of a request").
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway import actions
from gateway.reading import child, items, names, value_of

Hash = Callable[[Sequence[bytes]], str]
"""Keyed: the same parts give the same identifier, which tells nothing about them."""
Raws = Mapping[str, msgspec.Raw]

FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
LIST = msgspec.json.Decoder(list[msgspec.Raw])

CONVERSED = frozenset({"chat", "generate_content"})
"""Operations whose requests are a conversation."""
MESSAGES = ("messages", "input", "contents")
SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction")
TOOLS = ("tools", "toolConfig", "functions")
NOT_ASKED = names(
    """
    model stream stream_options max_tokens max_completion_tokens max_output_tokens max_tokens_to_sample maxOutputTokens
    maxTokens maxTokenCount max_gen_len max_new_tokens n_predict num_predict seed random_seed user metadata
    safety_identifier prompt_cache_key prompt_cache_retention cache_control client_metadata labels requestMetadata
    service_tier serviceTier store keep_alive safeguards session_id user_prompt_id project
    """
)
"""Fields that do not change what is asked: two requests that differ in these alone are the same work."""
SETTINGS = names(
    "generationConfig generation_config inferenceConfig textGenerationConfig completion_args options parameters"
)
"""Fields that have such fields within."""
WITHIN = b"{"
"""Stands before these: no value is this alone."""
CACHE_MARK = re.compile(rb'"cache(?:_control|Point)"')
CACHE_FIELD = re.compile(rb'"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*')
CACHE_BLOCK = re.compile(rb'\{\s*"cachePoint"\s*:\s*\{[^{}]*\}\s*\}\s*')
BLOCK_BYTES = 64
"""Before the name of a cache point, its brace stands within so many bytes."""
BLANK, BLANKS_MAX = b" \t\r\n", 64
COMMA = re.compile(rb"\s*,\s*")
BILLING = re.compile(rb'x-anthropic-billing-header:[^"\\]*')
"""A line in the system prompt of Claude Code that some versions change with each call."""
REMINDER = "<system-reminder>"
MESSAGE_MAX = 2**20
"""A longer message is not looked into, bytes."""
LOOKED_BACK = 16
"""Messages before the last one among which its tool call is looked for."""
FIRST_MAX = 3


class Shape(msgspec.Struct, frozen=True):
    """What is recorded of a request's shape. `None` = it has none of that, or it cannot be told."""

    request_hash: str | None = None
    """Of what is asked: not of limits, names of users, marks of caches; the model is told apart."""
    prefix_hash: str | None = None
    """Of what providers cache first: tools, system prompt, and the messages up to the first of a user."""
    action_hash: str | None = None
    """Of the last tool call, where the request brings its result: name, arguments and result."""
    human_turn: bool | None = None
    """Its last message is a person's, not a tool's."""
    prefix_part: float = 0.0
    """The prefix' part of the request's bytes."""
    tools_part: float = 0.0
    """That of the tools' descriptions."""


def read(
    body: bytes,
    operation: str | None,
    keyed: Hash,
    messages: Sequence[msgspec.Raw] = (),
    *,
    marks_caches: bool = True,
) -> Shape:
    """The shape of a request (decoded body), which may mark what to cache. `messages`: its conversation, where somebody
    has taken it apart. Never raises, whatever it holds."""
    try:
        return _read(body, operation, keyed, messages, _unmarked if marks_caches else _as_it_is)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):  # the last from 2 GiB on
        return Shape()


def _read(
    body: bytes,
    operation: str | None,
    keyed: Hash,
    messages: Sequence[msgspec.Raw],
    unmarked: Callable[[bytes], bytes],
) -> Shape:
    fields = FIELDS.decode(body)
    if "request" in fields and not any(name in fields for name in MESSAGES):  # Code Assist
        fields = FIELDS.decode(fields["request"])
    asked = keyed(_asked(fields, unmarked))
    if operation not in CONVERSED:
        return Shape(asked)
    messages = messages or _messages(fields)
    tools, system = _first_of(fields, TOOLS), _first_of(fields, SYSTEM)
    opening = _opening(messages)
    prefix = [tools, system, *opening]
    last, at = _last_turn(messages)
    result, whole = actions.last_result(last), len(body)
    return Shape(
        asked,
        keyed(list(map(unmarked, (tools, _unbilled(system), *opening)))) if any(prefix) else None,
        None if result is None else _action(result, last, messages[max(0, at - LOOKED_BACK) : at], keyed, unmarked),
        _is_human(last, result),
        sum(map(len, prefix)) / whole,
        len(tools) / whole,
    )


def _asked(fields: Raws, unmarked: Callable[[bytes], bytes]) -> list[bytes]:
    """Names and values of the fields that say what is asked, in the order of their names."""
    asked = sorted(fields.keys() - NOT_ASKED)
    found: list[bytes] = [msgspec.json.encode(asked)]
    for name in asked:
        raw = fields[name]
        if name in SETTINGS and bytes(raw)[:1] == b"{":
            found += (WITHIN, *_asked(FIELDS.decode(raw), unmarked))
        else:
            found.append(unmarked(_unbilled(bytes(raw)) if name in SYSTEM else raw))
    return found


def _messages(fields: Raws) -> list[msgspec.Raw]:
    """The conversation; a text alone is one message."""
    raw = _first_of(fields, MESSAGES)
    if raw[:1] == b"[":
        return LIST.decode(raw)
    return [msgspec.Raw(raw)] if raw[:1] == b'"' else []


def _first_of(fields: Raws, names: Iterable[str]) -> bytes:
    return bytes(next(filter(None, map(fields.get, names)), b""))


def _opening(messages: Sequence[msgspec.Raw]) -> list[bytes]:
    """The messages up to the first of a user."""
    found: list[bytes] = []
    for raw in messages[:FIRST_MAX]:
        found.append(bytes(raw))
        message = value_of(raw, MESSAGE_MAX)
        if not isinstance(message, dict) or message.get("role", "user") == "user":
            break
    return found


def _last_turn(messages: Sequence[msgspec.Raw]) -> tuple[Any, int]:
    """The last message that is not the tool's own instructions, which some put at the end, and where it stands."""
    for at in range(len(messages) - 1, max(-1, len(messages) - 1 - FIRST_MAX), -1):
        message = value_of(messages[at], MESSAGE_MAX)
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer"):
            return message, at
    return None, 0


def _is_human(last: Any, result: actions.Result | None) -> bool | None:
    if not isinstance(last, dict):
        return True if isinstance(last, str) else None
    if last.get("role", "user") != "user" or last.get("type", "message") != "message":
        return False
    if result is not None:
        return _is_answered(last)
    content = last.get("content", last.get("parts"))
    if isinstance(content, str):
        return not content.startswith(REMINDER)
    return not all(map(_is_reminder, items(content)))


def _is_answered(last: Any) -> bool:
    """Behind the results of tools a person says something: where turns alternate, both stand in one message."""
    for part in reversed(items(child(last).get("content")) or items(child(last).get("parts"))):
        if actions.last_result(part) is not None:
            return False
        if not _is_reminder(part):
            return True
    return False


def _is_reminder(part: Any) -> bool:
    """What a tool adds to what a person says."""
    text = part if isinstance(part, str) else child(part).get("text")
    return isinstance(text, str) and text.startswith(REMINDER)


def _action(
    result: actions.Result,
    last: Any,
    before: Sequence[msgspec.Raw],
    keyed: Hash,
    unmarked: Callable[[bytes], bytes],
) -> str | None:
    if _is_answered(last):
        return None
    for raw in reversed(before):
        if called := actions.call_of(result, value_of(raw, MESSAGE_MAX)):
            encode = msgspec.json.encode
            return keyed((called.name.encode(), encode(called.arguments), unmarked(encode(result.content))))
    return None


def _unbilled(raw: bytes) -> bytes:
    return BILLING.sub(b"", raw) if b"x-anthropic-billing-header" in raw else raw


def _as_it_is(raw: bytes) -> bytes:
    return raw


def _unmarked(raw: bytes) -> bytes:
    """JSON without the marks of what to cache. In a text these would have backslashes."""
    raw = bytes(raw)  # it may be a view, which has no `rfind`
    parts, begin = [], 0
    for mark in CACHE_MARK.finditer(raw):
        at, pattern = mark.start(), CACHE_FIELD
        if mark[0] == b'"cachePoint"':
            at, pattern = max(0, raw.rfind(b"{", max(0, at - BLOCK_BYTES), at)), CACHE_BLOCK
        if found := pattern.match(raw, at):
            start, end = _with_comma(raw, at, found.end())
            parts.append(raw[begin:start])
            begin = max(begin, end)
    return b"".join([*parts, raw[begin:]]) if parts else raw


def _with_comma(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """A span of an object or a list, with the comma before it; at its beginning, with the one that follows."""
    before = raw[max(0, start - BLANKS_MAX) : start].rstrip(BLANK)
    if before.endswith(b","):
        return max(0, start - BLANKS_MAX) + len(before) - 1, end
    found = COMMA.match(raw, end)
    return start, found.end() if found else end
