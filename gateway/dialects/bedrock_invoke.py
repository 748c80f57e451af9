"""Bedrock InvokeModel: the body is the model vendor's own. Where it reports no usage, the stream's invocation metrics
or the answer's header fields do; the body outranks both.

Source: docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.anthropic_shapes import fold_message
from gateway.dialects.base import NO_VALUE, Dialect, entries, excerpts, last_wins, read_request, route
from gateway.dialects.bedrock_shapes import fold_counts, model_of, refuse
from gateway.reading import child, count, items, text

METRICS = "amazon-bedrock-invocationMetrics"
PARTS = ("results", "choices", "outputs", "generations")
"""Where Titan, OpenAI-like models, Mistral and Cohere say why they stopped; Nova's streams say it in `messageStop`."""
HEADER = "x-amzn-bedrock-{}-token-count"


class _Request(msgspec.Struct):
    max_tokens: Any = None
    messages: msgspec.Raw = NO_VALUE
    system: msgspec.Raw = NO_VALUE
    output_config: msgspec.Raw = NO_VALUE


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    messages = entries(request.messages)
    return Ask(
        model=model_of(path),
        stream=path.endswith("-stream"),
        max_output_tokens=count(request.max_tokens),
        message_count=None if messages is None else len(messages),
        excerpts=excerpts(messages, request.system, output_format=request.output_config),
    )


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    usage = answer.usage
    answer.response_model = text(data.get("model")) or answer.response_model
    fold_message(answer, data)  # Anthropic
    fold_counts(usage, child(data, "usage") or child(data, "metadata", "usage"), suffix="s")  # Nova
    for key in ("prompt_token_count", "inputTextTokenCount"):  # Llama; Titan
        last_wins(usage, "input_tokens", data.get(key))
    for key in ("generation_token_count", "totalOutputTextTokenCount"):
        last_wins(usage, "output_tokens", data.get(key))
    written = [count(child(item).get("tokenCount")) for item in items(data.get("results"))]
    if any(number is not None for number in written):
        last_wins(usage, "output_tokens", sum(number or 0 for number in written))
    parts = (child(part) for name in PARTS for part in items(data.get(name)))
    for said in (data, child(data, "messageStop"), *parts):
        for key in ("stop_reason", "stopReason", "completionReason", "finish_reason"):
            answer.finish_reason = text(said.get(key)) or answer.finish_reason
    if data.get("amazon-bedrock-guardrailAction") == "INTERVENED":
        answer.finished = True  # no metrics follow
    if METRICS in data:
        fold_counts(usage, child(data, METRICS), suffix="Count", only_missing=True)
        answer.finished = True
    if "exception" in data:
        answer.error = text(child(data, "exception").get("type")) or "exception"


def fold_headers(answer: Answer, headers: Mapping[str, str]) -> None:
    """Counts that only the answer's header fields have."""
    given = {
        name: int(value)
        for name, part in (
            ("inputTokenCount", "input"),
            ("outputTokenCount", "output"),
            ("cacheReadInputTokenCount", "cache-read-input"),
            ("cacheWriteInputTokenCount", "cache-write-input"),
        )
        if (value := headers.get(HEADER.format(part), "")).isdecimal()
    }
    fold_counts(answer.usage, given, suffix="Count", only_missing=True)


DIALECT = Dialect(
    name="bedrock_invoke",
    routes=(
        route("POST", r"/model/[^/]*[Ee]mbed[^/]*/invoke$", "embeddings"),
        route("POST", r"/model/[^/]*rerank[^/]*/invoke$", "rerank"),
        route("POST", r"/model/[^/]+/(invoke|invoke-with-response-stream)$", "chat"),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb"oken_?[cC]ount|okens|[sS]top|eason|exception"),
    fold=fold,
    refuse=refuse,
    fold_headers=fold_headers,
)
