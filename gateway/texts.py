"""The texts in requests and answers that a model reads and writes, found in any dialect's JSON by the names of fields.

For estimates only: where a provider reports usage, none of this is looked at.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.reading import names, tidied


class Read(msgspec.Struct):
    """What counts as tokens in one request."""

    parts: list[str] = []
    messages: int = 0
    attachments: int = 0
    """Images, files, sounds: by value or by reference."""
    images: int = 0
    """Those of them that are sure to be images: what they cost does not follow from their bytes."""
    files: list[int] = []
    """The bytes of each of the others."""
    opaque_bytes: int = 0
    """What is no text, or is left out here, and may be read all the same, with at most a token per byte: hidden
    reasoning, base64 in a tool's answer, names and numbers in fields that nobody knows."""
    token_ids: int = 0
    """Input that was sent as token ids already."""
    has_tools: bool = False


class Written(msgspec.Struct):
    """What counts as tokens in one answer, or in a part of it."""

    parts: list[str] = []
    events: int = 0
    tool_calls: int = 0


BLOB = re.compile(r"(?:data:[^,]{0,200},)?[A-Za-z0-9+/_=\r\n-]{512,}\Z|data:[a-z]+/[^,]{0,200};base64,")
"""Base64, or a data URL: what a file looks like in JSON. Text of that length has blanks."""
BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{512,}")

ATTACHED = names(
    "image image_url file file_url file_data file_id fileData inlineData inline_data input_audio images bytes b64_json"
)
"""One attachment each, whatever is in it."""
MEDIA_TYPE = names("mime_type mimeType media_type")
"""Beside `data`, they say what it is."""
IMAGES = names("image image_url images")
IMAGE_DATA = re.compile(r"data:image/[\w.+-]+;base64,|iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk|SUkq|TU0A|AAAA")
"""PNG, JPEG, GIF, WebP, BMP, TIFF, HEIC and AVIF in base64."""
REFERENCE_MAX = 2048
"""A longer text is no address and no id."""
TOOLS = names("tools functions")
RENDERED = names("args arguments input output response json schema responseSchema responseJsonSchema")
"""Objects that a model reads as JSON, as it reads tools."""
SETTINGS = names(
    "model id role type object status user metadata store stream stream_options service_tier tool_choice toolChoice "
    "cache_control cachePoint cachedContent signature thoughtSignature thought_signature encrypted_content "
    "redacted_thinking redactedContent reasoning_details prompt_cache_key prompt_cache_retention safety_identifier "
    "previous_response_id conversation safetySettings include truncation modalities voice encoding_format effort "
    "reasoning_effort verbosity keep_alive mimeType mime_type media_type responseMimeType detail taskType "
    "anthropic_version anthropic_beta betas user_id container call_id tool_call_id tool_use_id toolUseId item_id "
    "input_type task_type labels response_modalities responseModalities"
)
"""Never read by the model, or not as text."""
HIDDEN = names(
    "signature thoughtSignature thought_signature encrypted_content redacted_thinking redactedContent reasoning_details"
)
"""Of these, what stands for reasoning that the model may read again."""
FRAME = names("role content type text parts messages input contents system name model")
"""Names of fields that stand for no token of their own, but for the chat template's."""


def read_by_model(body: bytes) -> Read:
    """The texts of a request body (decoded JSON). Raises `ValueError` for what is no JSON."""
    found = Read()
    waiting: list[tuple[str, Any]] = [("", _decoded(body))]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            if BLOB.match(value):
                found.attachments += 1
                found.files.append(size_of(value))
            elif value:
                found.parts.append(value)
        elif isinstance(value, list):
            if value and all(isinstance(item, int) for item in value):
                if name in ("input", "prompt"):
                    found.token_ids += len(value)
                else:
                    found.opaque_bytes += len(msgspec.json.encode(value))
            else:
                waiting += [(name, item) for item in reversed(value)]
        elif isinstance(value, dict):
            found.messages += isinstance(value.get("role"), str)
            waiting += [entry for entry in reversed(value.items()) if not _taken(found, value, *entry)]
            found.opaque_bytes += sum(size_of(key) for key in value if key not in FRAME and key not in SETTINGS)
        elif isinstance(value, int | float):
            found.opaque_bytes += len(repr(value))
    return found


def size_of(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _taken(found: Read, parent: dict[str, Any], name: str, value: Any) -> bool:
    """True for a field that needs no further look: a setting, an attachment, an object that is read as JSON."""
    if name in HIDDEN or (name == "data" and parent.get("type") == "redacted_thinking"):
        found.opaque_bytes += len(msgspec.json.encode(value))
        return True
    if name in SETTINGS or not value:
        return True
    if (
        name in ATTACHED
        or (name == "source" and isinstance(value, dict) and value.get("type") not in READ_SOURCES)
        or (name == "data" and not MEDIA_TYPE.isdisjoint(parent) and parent.get("type") != "text")
    ):
        for each in value if isinstance(value, list) else (value,):
            found.attachments += 1
            if _is_image(parent, name, each):
                found.images += 1
            else:
                found.files.append(len(msgspec.json.encode(each)))
        return True
    if name in TOOLS or (name in RENDERED and isinstance(value, dict)):
        found.has_tools = found.has_tools or name in TOOLS
        whole = _compact(value)
        text = BASE64.sub("", whole) if len(whole) > 512 else whole
        found.opaque_bytes += len(whole) - len(text)
        found.parts.append(text)
        return True
    return False


def _is_image(parent: dict[str, Any], name: str, value: Any) -> bool:
    """True for an attachment that says so, and holds nothing else."""
    said = [each.get(key) for each in (parent, value) if isinstance(each, dict) for key in ("type", *MEDIA_TYPE)]
    if name not in IMAGES and not any(isinstance(kind, str) and kind.startswith(IMAGE_TYPES) for kind in said):
        return False
    return all(len(text) <= REFERENCE_MAX or IMAGE_DATA.match(text) for text in _strings(value))


IMAGE_TYPES = ("image", "input_image")


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list | dict):
            waiting += each.values() if isinstance(each, dict) else each


READ_SOURCES = ("text", "content")
"""Types of Anthropic's document sources that are text."""

WRITTEN = names(
    "text content thinking reasoning reasoning_content reasoning_text delta partial_json arguments input refusal "
    "completion response generation outputText output_text generated_text transcript tool_plan code"
)
"""Strings under these names were generated."""
CALLED = frozenset({"args", "arguments", "input", "toolUseId"})
"""Fields of a tool call: the `name` beside them was generated too, and so were arguments that are an object."""
NOT_WRITTEN = names(
    "usage usageMetadata metadata prompt instructions tools annotations citations citationMetadata search_results "
    "groundingMetadata prompt_filter_results logprobs logprobsResult signature encrypted_content executed_tools "
    "error"
)
"""Beside the text, not of it, or the same again."""
RESULT = re.compile(r"_result$|_call_output$|^file_search_call$|^mcp_list_tools$")
"""Types of items that a server's tools wrote."""
REPEATS = re.compile(
    rb'"(?:type|event_type)"\s*:\s*"(?:[\w.]+\.(?:done|completed|incomplete|failed|cancelled|created|in_progress|queued)'
    rb'|stream-(?:start|end)|message-(?:start|end)|message_(?:start|delta|stop)|content_block_stop|ping)"'
)
MAY_REPEAT = re.compile(
    rb'type"\s*+:\s*+"(?:(?:\w*+\.)++(?:done|completed|incomplete|failed|cancelled|created|in_progress|queued)'
    rb"|stream-|message|content_block_stop|ping)"
)
"""Found wherever `REPEATS` is, in half the time: for the search of many events at once."""
WRITTEN_IN_CUT = re.compile(r'"(?:' + "|".join(sorted(WRITTEN)) + r')"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)
BETWEEN = re.compile(r"[\s,]*")


def carries_text(event: bytes) -> bool:
    """False for an event of a stream that says again what others said, or no text at all. Cheap, does not decode."""
    return REPEATS.search(event) is None


def written_by_model(sample: bytes | Sequence[bytes]) -> Written:
    """What was generated, in a whole answer or in events of a stream (apart or joined). The last event may be cut."""
    found = Written()
    for data in (sample,) if isinstance(sample, bytes) else sample:
        for value in _values(data.decode("utf-8", "replace")):
            found.events += 1
            if isinstance(value, str):
                found.parts += [_unescaped(text) for text in WRITTEN_IN_CUT.findall(value)]
            else:
                _add_written(found, value)
    return found


def _add_written(found: Written, event: Any) -> None:
    names: dict[str, str] = {}  # some servers state a text under two names: it counts under the first
    waiting: list[tuple[str, Any]] = [("", event)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            if value and name in WRITTEN and names.setdefault(value, name) == name:
                found.parts.append(value)
        elif isinstance(value, list):
            waiting += [(name, item) for item in reversed(value)]
        elif isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and RESULT.search(kind):
                continue
            if isinstance(called := value.get("name"), str) and called and not CALLED.isdisjoint(value):
                found.tool_calls += 1
                found.parts.append(called)
            for key, item in reversed(value.items()):
                if key in CALLED and isinstance(item, dict):
                    found.parts += [BASE64.sub("", _compact(item))] if item else []
                elif key not in NOT_WRITTEN and not (key == "message" and "delta" in value):  # `message`: all so far
                    waiting.append((key, item))


def _values(text: str) -> Iterator[Any]:
    """The JSON values in a row; what is cut or no JSON comes as a string."""
    decoder, at = json.JSONDecoder(), 0
    while True:
        start = BETWEEN.match(text, at)
        at = start.end() if start else at
        if at >= len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield text[at:]
            return
        yield from value if isinstance(value, list) else [value]


def _unescaped(text: str) -> str:
    """The text of a JSON string whose end may be cut."""
    for end in range(len(text), max(len(text) - 7, -1), -1):  # an escape has at most six characters
        try:
            return str(json.loads(f'"{text[:end]}"', strict=False))
        except ValueError:
            continue
    return text


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(tidied(body))


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode("utf-8", "replace")
