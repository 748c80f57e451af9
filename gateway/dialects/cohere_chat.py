"""Cohere chat, embed and rerank. `billed_units` is the bill; `tokens` and `cached_tokens` are what was computed.

Source: docs.cohere.com/reference/chat. Version 1 streams lines of JSON, version 2 server-sent events.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, add_units, last_wins, read_request, route
from gateway.dialects.openai_shapes import fold_usage, refuse
from gateway.reading import child, count, items, text


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Any = None
    messages: Any = None
    tools: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    return Ask(
        model=text(request.model),
        stream=bool(request.stream),
        max_output_tokens=count(request.max_tokens),
        message_count=len(request.messages) if isinstance(request.messages, list) else None,
        tool_count=len(request.tools) if isinstance(request.tools, list) else None,
    )


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
    may_matter=re.compile(rb'"message-end"|"is_finished"\s*:\s*true|"usage"'),
    fold=fold,
    refuse=refuse,
)
