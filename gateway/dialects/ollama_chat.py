"""Ollama's own API. A stream is lines of JSON; the counts stand on the last. Without `prompt_eval_count` the prompt was
cached: then its size is not known, which is not 0.

Source: github.com/ollama/ollama/blob/main/docs/api.md.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, last_wins, read_request, route
from gateway.dialects.openai_shapes import refuse
from gateway.reading import text


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    messages: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    streams = not path.endswith(("/embed", "/embeddings"))
    return Ask(
        model=text(request.model),
        stream=streams and request.stream is not False,
        message_count=len(request.messages) if isinstance(request.messages, list) else None,
    )


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.finish_reason = text(data.get("done_reason")) or answer.finish_reason
    last_wins(answer.usage, "input_tokens", data.get("prompt_eval_count"))
    last_wins(answer.usage, "output_tokens", data.get("eval_count"))
    answer.error = "error" if data.get("error") else answer.error
    answer.finished = answer.finished or data.get("done") is True


DIALECT = Dialect(
    name="ollama_chat",
    routes=(
        route("POST", r"/api/chat$", "chat"),
        route("POST", r"/api/generate$", "text_completion"),
        route("POST", r"/api/embed(dings)?$", "embeddings"),
        route("GET", r"/api/(tags|ps|version)$", None),
        route("POST", r"/api/show$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"done"\s*:\s*true|"error"'),
    fold=fold,
    refuse=refuse,
)
