"""Models that a request names beside the one it asks for: fallbacks, tools that run a model of their own, transcription
in sessions. What a key is bound to holds for them, too. Pure.

Sources: openrouter.ai/docs/features/model-routing (`models`), platform.openai.com/docs/guides/tools-image-generation
and docs.anthropic.com on the advisor tool (`tools[].model`), platform.openai.com/docs/guides/realtime (`session`).
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.reading import child, items, text


def named(body: bytes) -> set[str]:
    """The models named in a body, or an event of a session. Raises `ValueError` for what cannot be read to its end, or
    in two ways: a provider may take it all the same, and find models in it. A form (RFC 7578) names none here."""
    if not body or body.startswith(b"--"):
        return set()
    try:
        found = set(_named(msgspec.json.decode(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is not strict JSON") from None
    json.loads(body, object_pairs_hook=_once)
    return found


NAMING = frozenset(
    {"model", "models", "fallbacks", "tools", "session", "audio", "input", "transcription", "requests", "params"}
)


def _once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Some parsers let the last of a name win, others the first, and Go's take `Model` for `model`."""
    naming = [name for each, _ in fields if (name := each.casefold()) in NAMING]
    if len(naming) != len(set(naming)):
        raise ValueError("names a field twice")
    return dict(fields)


def _named(asked: Any) -> Iterator[str]:
    if not isinstance(asked, dict):
        return
    session = child(asked, "session")
    found = [*items(asked.get("models")), *items(asked.get("fallbacks")), *items(asked.get("tools")), session]
    found += [child(session, "audio", "input", "transcription"), child(session, "input_audio_transcription")]
    for each in found:
        if model := each if isinstance(each, str) else text(each.get("model")) if isinstance(each, dict) else None:
            yield model
    for one in items(asked.get("requests")):  # of a batch
        yield from _named(child(one, "params") if isinstance(one, dict) else one)
