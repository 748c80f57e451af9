"""Cohere chat, embed and rerank. `billed_units` is the bill; `tokens` and `cached_tokens` are what was computed.

Source: docs.cohere.com/reference/chat. Version 1 streams lines of JSON, version 2 server-sent events.
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
    add_units,
    ends_with,
    last_wins,
    maximum,
    read_stating,
    refers,
    renamed_model,
    route,
)
from gateway.dialects.openai_shapes import fold_usage, refuse
from gateway.edits import capped
from gateway.framing import Event
from gateway.reading import child, count, items, text


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Stated | None = None
    num_generations: Any = None
    messages: Any = None
    tools: Any = None
    conversation_id: Any = None
    connectors: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    return Ask(
        model=text(request.model),
        stream=bool(request.stream),
        max_output_tokens=maximum(stated, request.max_tokens),
        message_count=len(request.messages) if isinstance(request.messages, list) else None,
        tool_count=len(request.tools) if isinstance(request.tools, list) else None,
        choices=count(request.num_generations) or 1,
        refers=bool(request.conversation_id or request.connectors) or refers(body, b'"image_url"', b'"images"'),
    )


WRITES = ("/chat", "/generate")
"""The other paths have no maximum; and vectors of another model are of no use beside the others."""


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    return capped(body, tokens, ("max_tokens",)) if ends_with(path, *WRITES) else None


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    return renamed_model(path, body, model) if ends_with(path, *WRITES) else None


ENDS = {"content-start": "content-end", "tool-call-start": "tool-call-end", "citation-start": "citation-end"}


class ChatEnding:
    """Version 2: ends what is open, innermost first, then the message."""

    def __init__(self) -> None:
        self._has_begun = self._has_ended = False
        self._open: list[tuple[str, int]] = []

    def see(self, event: Mapping[str, Any]) -> None:
        kind, index = text(event.get("type")) or "", count(event.get("index")) or 0
        self._has_begun = self._has_begun or kind == "message-start"
        self._has_ended = self._has_ended or kind == "message-end"
        if kind in ENDS:
            self._open.append((ENDS[kind], index))
        elif (kind, index) in self._open:
            self._open.remove((kind, index))

    def events(self, usage: Usage) -> list[Event] | None:
        if not self._has_begun:
            return None
        counts = {"input_tokens": usage.input_tokens or 0, "output_tokens": usage.output_tokens or 0}
        delta = {"finish_reason": "MAX_TOKENS", "usage": {"billed_units": counts, "tokens": counts}}
        ends: list[dict[str, Any]] = [{"type": kind, "index": index} for kind, index in reversed(self._open)]
        if not self._has_ended:
            ends.append({"type": "message-end", "delta": delta})
        return [*(Event(end["type"], msgspec.json.encode(end)) for end in ends), Event("", b"[DONE]")]


def ending(path: str, body: bytes) -> Ending | None:
    return ChatEnding() if ends_with(path, "/v2/chat") else None


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    """A whole answer, or the last event of a stream: `delta` holds it in version 2, `response` in version 1."""
    ended = data.get("type") == "message-end" or data.get("is_finished") is True
    said = (child(data, "delta") or child(data, "response") or data) if ended else data
    id_ = data.get("id") or data.get("response_id") or data.get("generation_id")
    answer.upstream_id = text(id_) or answer.upstream_id
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.finish_reason = text(said.get("finish_reason")) or answer.finish_reason
    for choice in items(data.get("choices")):  # others speak OpenAI's format at this path
        answer.finish_reason = text(child(choice).get("finish_reason")) or answer.finish_reason
    stated = child(said, "usage") or child(said, "meta")
    fold_usage(answer, stated, provider, "prompt_tokens", "completion_tokens")
    billed, usage = child(stated, "billed_units"), answer.usage
    last_wins(usage, "input_tokens", billed.get("input_tokens"))
    last_wins(usage, "output_tokens", billed.get("output_tokens"))
    last_wins(usage, "cache_read_input_tokens", stated.get("cached_tokens"))
    last_wins(usage, "reasoning_output_tokens", child(stated, "tokens").get("reasoning_tokens"))
    add_units(usage, search_units=billed.get("search_units"), images=billed.get("images"))
    answer.finished = answer.finished or ended


DIALECT = Dialect(
    name="cohere_chat",
    routes=(
        route("POST", r"/v[12]/chat$", "chat"),
        route("POST", r"/v1/generate$", "text_completion"),
        route("POST", r"/v[12]/embed$", "embeddings"),
        route("POST", r"/rerank$", "rerank"),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'type"\s*:\s*"message-end"|"is_finished"\s*:\s*true|"usage"\s*:'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
