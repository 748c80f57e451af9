"""OpenAI chat completions (and the older text completions), also as spoken by compatible servers.

Source: platform.openai.com/docs/api-reference/chat. A stream reports usage only when `stream_options.include_usage`
is set: then on a last chunk with empty `choices`, before `data: [DONE]`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, add_units, excerpts, read_request, route
from gateway.dialects.openai_shapes import (
    SESSION_KEYS,
    azure_deployment,
    fold_error,
    fold_usage,
    named,
    refuse,
    ticket_in,
)
from gateway.framing import data_of
from gateway.reading import child, count, items, text

USAGE = re.compile(rb'"usage"\s*:\s*\{')


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    service_tier: Any = None
    messages: list[msgspec.Raw] | None = None
    tools: list[msgspec.Raw] | None = None
    metadata: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    return Ask(
        model=azure_deployment(path) or text(request.model),
        stream=bool(request.stream),
        max_output_tokens=count(request.max_completion_tokens) or count(request.max_tokens),
        service_tier=text(request.service_tier),
        message_count=None if request.messages is None else len(request.messages),
        tool_count=None if request.tools is None else len(request.tools),
        session_id=named(request.metadata, SESSION_KEYS),
        ticket=ticket_in(request.metadata),
        excerpts=excerpts(request.messages),
    )


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.upstream_id = text(data.get("id")) or answer.upstream_id
    answer.service_tier = text(data.get("service_tier")) or answer.service_tier
    fold_usage(
        answer,
        child(data, "usage") or child(data, "x_groq", "usage"),
        provider,
        "prompt_tokens",
        "completion_tokens",
    )
    for choice in items(data.get("choices")):
        answer.finish_reason = text(child(choice).get("finish_reason")) or answer.finish_reason
        fold_usage(answer, child(choice, "usage"), provider, "prompt_tokens", "completion_tokens")  # Moonshot
    add_units(answer.usage, nano_aiu=child(data, "copilot_usage").get("total_nano_aiu"))
    if "search-preview" in (answer.response_model or "") and answer.usage.output_tokens is not None:
        answer.usage.web_search_requests = 1  # each call of such a model searches
    for output in items(data.get("outputs")):  # of Mistral's conversations
        answer.response_model = text(child(output).get("model")) or answer.response_model
    answer.finished = answer.finished or data.get("type") == "conversation.response.done"
    fold_error(answer, data)


class _StreamOptions(msgspec.Struct):
    stream: Any = None
    stream_options: Any = msgspec.UNSET


def ask_for_usage(body: bytes) -> bytes | None:
    """The same request with `stream_options.include_usage`, or `None` when it is no stream, asks for it already, or has
    options that cannot be read. All other bytes stay as sent, but for blanks around the fields of one that had options.
    """
    request = read_request(body, _StreamOptions)
    if request.stream is not True:
        return None
    if request.stream_options is msgspec.UNSET:
        end = body.rindex(b"}")
        return body[:end] + b',"stream_options":{"include_usage":true}' + body[end:]
    if (
        not isinstance(request.stream_options, dict | None)
        or child(request.stream_options).get("include_usage") is True
    ):
        return None
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    options = {**child(request.stream_options), "include_usage": True}
    return msgspec.json.encode({**fields, "stream_options": options})


def is_usage_only(event: bytes) -> bool:
    """True for the extra chunk that `include_usage` brings: a usage object and no choice."""
    data = data_of(event)
    if not USAGE.search(data):
        return False
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == []


CONVERSATIONS = r"/v1/conversations(/[^/]+(/\w+(/[^/]+)?)?)?$"

DIALECT = Dialect(
    name="openai_chat",
    routes=(
        route("POST", r"/(chat|agents)/completions$", "chat"),
        route("POST", r"/completions$", "text_completion"),
        route("POST", r"/ml/v1/text/chat(_stream)?$", "chat"),  # watsonx
        route("POST", r"/publishers/(?!anthropic/|google/)[^/]+/models/[^/]+:(rawPredict|streamRawPredict)$", "chat"),
        route("POST", CONVERSATIONS, "chat", provider="mistral_ai"),  # where others keep what was said, Mistral answers
        *(route(method, CONVERSATIONS, None) for method in ("GET", "POST", "DELETE")),
        route("GET", r"/models(/.{1,512})?$", None),
        route("DELETE", r"/models/[^/]+$", None),
        route("GET", r"/chat/completions(/[^/]+(/messages)?)?$", None),
        route("POST", r"/chat/completions/[^/]+$", None),
        route("DELETE", r"/chat/completions/[^/]+$", None),
        route("GET", r"/api/v1/(generation|credits|key|auth/key|providers)$", None),  # OpenRouter
        route("GET", r"/(props|slots|health|metrics)$", None),  # llama.cpp
        route("POST", r"/(tokenize|detokenize|apply-template)$", None),
        route("POST", r"/moderations$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"usage"\s*:\s*\{|"finish_reason"\s*:\s*"|"error"\s*:'),
    fold=fold,
    refuse=refuse,
)
