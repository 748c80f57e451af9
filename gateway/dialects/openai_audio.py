"""Speech to text and text to speech: tokens, or seconds, or the characters of the request.

Source: platform.openai.com/docs/api-reference/audio; Mistral, Cohere and OpenRouter have the same paths.
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, add_units, read_form, route
from gateway.dialects.openai_shapes import azure_deployment, fold_error, fold_usage, refuse
from gateway.reading import amount, child, text

WORDS_PER_SECOND = 2.5
"""Of speech: 150 a minute. How long a recording was, where nobody says it."""
SAID_MAX = 10_000_000


def read_ask(path: str, body: bytes) -> Ask:
    form = read_form(body)
    spoken = form.get("input") or form.get("text")
    return Ask(
        model=azure_deployment(path) or text(form.get("model")),
        stream=form.get("stream") in (True, "true") or form.get("stream_format") == "sse",
        units={"characters": float(len(spoken))} if isinstance(spoken, str) and spoken else {},
    )


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    usage = child(data, "usage")
    fold_usage(answer, usage, provider, "input_tokens", "output_tokens")
    if "prompt_tokens" in usage:  # Mistral
        fold_usage(answer, usage, provider, "prompt_tokens", "completion_tokens")
    add_units(answer.usage, seconds=usage.get("seconds") or usage.get("prompt_audio_seconds"))
    said = text(data.get("text"), SAID_MAX) or ""
    if seconds := amount(data.get("duration")) or round(len(said.split()) / WORDS_PER_SECOND, 1):
        answer.units = {"seconds": seconds}
    fold_error(answer, data)
    kind = text(data.get("type")) or ""
    answer.finished = answer.finished or kind.endswith(".done")


DIALECT = Dialect(
    name="openai_audio",
    routes=(
        route("POST", r"/audio/(transcriptions|translations)$|/v1/stt$", "transcription"),
        route("POST", r"/audio/speech$|/v1/tts$", "speech"),
        route("GET", r"/audio/(voices|models)(/[^/]+)?$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(
        rb'"type"\s*:\s*"(?:transcript(?:ion)?\.\w*\.?done|speech\.audio\.done)"|"(?:usage|error)"\s*:'
    ),
    fold=fold,
    refuse=refuse,
)
