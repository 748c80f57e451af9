"""Bedrock InvokeModel: the body is the model vendor's own. Where it reports no usage, the stream's invocation metrics
or the answer's header fields do; the body outranks both.

Source: docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask, Excerpts, Usage
from gateway.dialects import bedrock_shapes
from gateway.dialects.anthropic_shapes import MessageEnding, fold_message, output_tokens_min
from gateway.dialects.base import (
    NO_VALUE,
    Dialect,
    Ending,
    Listed,
    Stated,
    entries,
    last_wins,
    maximum,
    may_cache,
    read_stating,
    refers,
    route,
)
from gateway.dialects.bedrock_shapes import ConverseEnding, fold_counts, model_of, refuse
from gateway.edits import Names, capped
from gateway.framing import Event
from gateway.reading import child, count, items, text

METRICS = "amazon-bedrock-invocationMetrics"
PARTS = ("results", "choices", "outputs", "generations")
"""Where Titan, OpenAI-like models, Mistral and Cohere say why they stopped; Nova's streams say it in `messageStop`."""
HEADER = "x-amzn-bedrock-{}-token-count"


MAXIMA: tuple[tuple[str, tuple[Names, ...]], ...] = (
    ("anthropic.", (("max_tokens",),)),
    ("amazon.nova", (("inferenceConfig",), ("maxTokens", "max_new_tokens"))),
    ("amazon.titan", (("textGenerationConfig",), ("maxTokenCount",))),
    ("meta.llama", (("max_gen_len",),)),
    ("ai21.j2", (("maxTokens",),)),
    ("ai21.jamba", (("max_tokens",),)),
    ("mistral.", (("max_tokens",),)),
    ("cohere.", (("max_tokens",),)),
    ("deepseek.", (("max_tokens",),)),
    ("qwen.", (("max_tokens",),)),
    ("openai.", (("max_completion_tokens", "max_tokens"),)),
)
"""Where each vendor's body has its maximum. The vendor stands in the model's name, behind a region at times."""


class _Config(msgspec.Struct):
    max_tokens: Stated | None = msgspec.field(name="maxTokens", default=None)
    max_new_tokens: Stated | None = None
    max_token_count: Stated | None = msgspec.field(name="maxTokenCount", default=None)


class _Request(msgspec.Struct):
    max_tokens: Stated | None = None
    max_completion_tokens: Stated | None = None
    max_gen_len: Stated | None = None
    plain_max_tokens: Stated | None = msgspec.field(name="maxTokens", default=None)
    nova: _Config | None = msgspec.field(name="inferenceConfig", default=None)
    titan: _Config | None = msgspec.field(name="textGenerationConfig", default=None)
    thinking: Any = None
    messages: Listed = None
    system: msgspec.Raw = NO_VALUE
    output_config: msgspec.Raw = NO_VALUE


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    messages = entries(request.messages)
    most = maximum(stated, *_maxima(request))
    return Ask(
        model=model_of(path),
        stream=path.endswith("-stream"),
        max_output_tokens=most,
        message_count=None if messages is None else len(messages),
        excerpts=Excerpts(messages or (), request.system, output_format=request.output_config),
        may_cache=may_cache(body) or may_cache(body, b"cachePoint"),
        output_tokens_min=output_tokens_min(request.thinking, most),
        refers=refers(body, b'"source"', b'"images"'),
    )


def _maxima(request: _Request) -> tuple[Stated | None, ...]:
    nova, titan = request.nova or _Config(), request.titan or _Config()
    return (
        request.max_tokens, request.max_completion_tokens, request.max_gen_len, request.plain_max_tokens,
        nova.max_tokens, nova.max_new_tokens, titan.max_token_count,
    )  # fmt: skip


def _vendor(path: str) -> tuple[str, tuple[Names, ...]] | None:
    """The vendor of the model that a path names, and where its maximum stands. An ARN may tell none."""
    model = model_of(path) or ""
    return next((entry for entry in MAXIMA if entry[0] in model), None)


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    found = _vendor(path)
    return None if found is None or EMBEDS.search(model_of(path) or "") else capped(body, tokens, *found[1])


EMBEDS = re.compile(r"embed|rerank", re.IGNORECASE)


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """The body is one vendor's, so the other model must be too."""
    found = _vendor(path)
    fits = found is not None and found[0] in model and not EMBEDS.search(model)
    return bedrock_shapes.reroute(path, body, model) if fits else None


class InvokeEnding:
    """Ends the stream as the vendor does whose events it carries."""

    def __init__(self) -> None:
        self._inner: Ending | None = None

    def see(self, event: Mapping[str, Any]) -> None:
        if self._inner is None:
            self._inner = _ending_of(event)
        if self._inner is not None:
            self._inner.see(event)

    def events(self, usage: Usage) -> list[Event] | None:
        ends = None if self._inner is None else self._inner.events(usage)
        if not ends:
            return ends
        last = {**msgspec.json.decode(ends[-1].data), METRICS: _metrics(usage)}
        return [Event("chunk", data) for data in (*(end.data for end in ends[:-1]), msgspec.json.encode(last))]


def _metrics(usage: Usage) -> dict[str, int]:
    given, output = usage.input_tokens or 0, usage.output_tokens or 0
    return {"inputTokenCount": given, "outputTokenCount": output, "invocationLatency": 0, "firstByteLatency": 0}


class LlamaEnding:
    """One last event, with the reason and the counts."""

    def __init__(self) -> None:
        self._has_ended = False

    def see(self, event: Mapping[str, Any]) -> None:
        self._has_ended = self._has_ended or event.get("stop_reason") is not None

    def events(self, usage: Usage) -> list[Event] | None:
        last = {
            "generation": "",
            "prompt_token_count": usage.input_tokens,
            "generation_token_count": usage.output_tokens,
            "stop_reason": "length",
        }
        return [] if self._has_ended else [Event("chunk", msgspec.json.encode(last))]


def _ending_of(event: Mapping[str, Any]) -> Ending | None:
    if event.get("type") == "message_start":
        return MessageEnding()
    if "messageStart" in event:
        return ConverseEnding(carried=True)
    return LlamaEnding() if "generation" in event else None


def ending(path: str, body: bytes) -> Ending | None:
    return InvokeEnding()


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
    clamp=clamp,
    reroute=reroute,
    ending=ending,
    fold_headers=fold_headers,
)
