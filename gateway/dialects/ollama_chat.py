"""Ollama's own API. A stream is lines of JSON; the counts stand on the last. Without `prompt_eval_count` the prompt was
cached: then its size is not known, which is not 0.

Source: github.com/ollama/ollama/blob/main/docs/api.md.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask, Usage
from gateway.dialects.base import (
    Dialect,
    Ending,
    Stated,
    ends_with,
    last_wins,
    maximum,
    read_stating,
    refers,
    renamed_model,
    route,
)
from gateway.dialects.openai_shapes import refuse
from gateway.edits import capped
from gateway.framing import Event
from gateway.reading import text


class _Options(msgspec.Struct):
    num_predict: Stated | None = None


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    messages: Any = None
    options: _Options | None = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    options = request.options or _Options()
    streams = not path.endswith(("/embed", "/embeddings"))
    return Ask(
        model=text(request.model),
        stream=streams and request.stream is not False,
        max_output_tokens=maximum(stated, options.num_predict, least=LEAST),
        message_count=len(request.messages) if isinstance(request.messages, list) else None,
        refers=refers(body, b'"images"'),
    )


WRITES = ("/chat", "/generate")
LEAST = 1
"""0 and less mean no limit."""


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    return capped(body, tokens, ("options",), ("num_predict",), least=LEAST) if ends_with(path, *WRITES) else None


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    return renamed_model(path, body, model) if ends_with(path, *WRITES) else None


class LineEnding:
    """One last line, with the reason and the counts."""

    def __init__(self) -> None:
        self._last: Mapping[str, Any] = {}

    def see(self, event: Mapping[str, Any]) -> None:
        self._last = event

    def events(self, usage: Usage) -> list[Event] | None:
        if "message" not in self._last and "response" not in self._last:
            return None
        if self._last.get("done") is True:
            return []
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": ""}} if "message" in self._last else {"response": ""}
        )
        named = {name: self._last[name] for name in ("model", "created_at") if name in self._last}
        counts = {"prompt_eval_count": usage.input_tokens or 0, "eval_count": usage.output_tokens or 0}
        return [Event("", msgspec.json.encode({**named, **said, "done": True, "done_reason": "length", **counts}))]


def ending(path: str, body: bytes) -> Ending | None:
    return LineEnding()


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
    may_matter=re.compile(rb'"done"\s*:\s*true|"error"\s*:'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
