"""Bedrock Converse and ConverseStream. Usage stands in the answer, or in the stream's last event, `metadata`.

Source: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.anthropic_shapes import output_tokens_min
from gateway.dialects.base import Dialect, Ending, Stated, maximum, may_cache, read_stating, refers, route
from gateway.dialects.bedrock_shapes import ConverseEnding, fold_counts, model_of, refuse, reroute
from gateway.dialects.openai_shapes import ticket_in
from gateway.edits import capped
from gateway.reading import child, count, items, text


class _Inference(msgspec.Struct, rename="camel"):
    max_tokens: Stated | None = None


class _Tools(msgspec.Struct):
    tools: list[msgspec.Raw] | None = None


class _Request(msgspec.Struct, rename="camel"):
    messages: list[msgspec.Raw] | None = None
    inference_config: _Inference | None = None
    tool_config: _Tools | None = None
    request_metadata: Any = None
    additional_model_request_fields: Any = None
    service_tier: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    tools = request.tool_config.tools if request.tool_config else None
    most = maximum(stated, request.inference_config.max_tokens if request.inference_config else None)
    more = child(request.additional_model_request_fields)
    return Ask(
        model=model_of(path),
        stream=path.endswith("-stream"),
        max_output_tokens=most,
        service_tier=text(child(request.service_tier).get("type")),
        message_count=None if request.messages is None else len(request.messages),
        tool_count=None if tools is None else len(tools),
        ticket=ticket_in(request.request_metadata),
        may_cache=may_cache(body, b"cachePoint"),
        output_tokens_min=max(output_tokens_min(more.get(name), most) for name in ("thinking", "reasoning_config")),
        refers=refers(body, b'"source"'),
    )


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    return capped(body, tokens, ("inferenceConfig",), ("maxTokens",))


def ending(path: str, body: bytes) -> Ending | None:
    return ConverseEnding()


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    """A stream's event is `{event type: payload}`, a whole answer has the same fields side by side."""
    end, last = child(data, "messageStop") or data, child(data, "metadata") or data
    answer.finish_reason = text(end.get("stopReason")) or answer.finish_reason
    counts = child(last, "usage")
    fold_counts(answer.usage, counts, suffix="s")
    for entry in items(counts.get("cacheDetails")):
        if child(entry).get("ttl") == "1h":
            answer.usage.cache_write_1h_input_tokens = count(child(entry).get("inputTokens"))
    answer.service_tier = text(child(last, "serviceTier").get("type")) or answer.service_tier
    answer.response_model = text(child(last, "trace", "promptRouter").get("invokedModelId")) or answer.response_model
    if "exception" in data:
        answer.error = text(child(data, "exception").get("type")) or "exception"
    answer.finished = answer.finished or "metadata" in data


DIALECT = Dialect(
    name="bedrock_converse",
    routes=(
        route("POST", r"/model/[^/]+/(converse|converse-stream)$", "chat"),
        route("POST", r"/model/[^/]+/count-tokens$", None),
        route("GET", r"/(inference-profiles|foundation-models)(/[^/]+)?$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'\{"(?:metadata|messageStop|exception)"'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
