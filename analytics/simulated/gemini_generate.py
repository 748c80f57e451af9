"""Gemini generateContent, streamGenerateContent, embedContent, batchEmbedContents and countTokens.

`usageMetadata` stands on every chunk and grows. A stream is SSE with `?alt=sse`, else one growing JSON array; either
way it has no terminal event. Source: ai.google.dev/api/generate-content and recorded answers.
"""

import base64
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from analytics.simulated.turns import (
    CACHE_TOKENS_MIN,
    PAGE_TOKENS,
    Billed,
    Piece,
    Prompt,
    PromptCache,
    Segment,
    Tool,
    Turn,
    compact,
    pieces,
    tokens,
)
from analytics.simulated.wire import Failure, Provider, Wire, decode, positive

FINISH = {"stop": "STOP", "tool": "STOP", "length": "MAX_TOKENS"}
STATUSES: dict[Failure, str] = {
    "unauthenticated": "UNAUTHENTICATED",
    "invalid": "INVALID_ARGUMENT",
    "not_found": "NOT_FOUND",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "overloaded": "UNAVAILABLE",
    "internal": "INTERNAL",
}
EMBEDDING_DIMENSIONS = 3072
THOUGHT = b"simulated thought signature"


def error(failure: Failure, status: int, message: str, request_id: str) -> Any:
    details: dict[str, Any] = {}
    if failure == "rate_limited":
        details = {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]}
    return {"error": {"code": status, "message": message, "status": STATUSES[failure], **details}}


def headers(request_id: str) -> dict[str, str]:
    return {"x-gemini-service-tier": "standard", "Server": "scaffolding on HTTPServer2"}


PROVIDER = Provider(
    name="gemini",
    credential="simulated-gemini-credential",
    models={
        name: name
        for name in (
            "gemini-2.5-flash",
            "gemini-3.1-pro-preview",
            "gemini-3.5-flash",
            "gemini-3.5-flash-lite",
            "gemini-embedding-001",
        )
    },
    status={
        "unauthenticated": 401,
        "invalid": 400,
        "not_found": 404,
        "rate_limited": 429,
        "overloaded": 503,
        "internal": 500,
    },
    error=error,
    headers=headers,
    says_retry_after=False,
)


class _Thinking(msgspec.Struct, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: Any = None
    thinking_config: _Thinking | None = None


class _Calling(msgspec.Struct):
    mode: str | None = None


class _ToolConfig(msgspec.Struct, rename="camel"):
    function_calling_config: _Calling | None = None


class _Request(msgspec.Struct, rename="camel"):
    contents: list[dict[str, Any]] | dict[str, Any]
    system_instruction: Any = None
    tools: list[dict[str, Any]] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _Config | None = None


class _Part(msgspec.Struct):
    text: str = ""


class _Content(msgspec.Struct):
    parts: list[_Part]


class _Embed(msgspec.Struct, rename="camel"):
    content: _Content
    output_dimensionality: Any = None


class _EmbedMany(msgspec.Struct):
    requests: list[_Embed]


def model_of(path: str) -> tuple[str, str]:
    """(model, verb) of `/v1beta/models/MODEL:VERB`."""
    plain = path.partition("?")[0].replace("%3A", ":").replace("%3a", ":")
    model, _, verb = plain.rpartition("/")[2].partition(":")
    return model, verb


def read(path: str, body: bytes) -> Prompt:
    model, verb = model_of(path)
    request = decode(body, _Request)
    if not request.contents:
        raise ValueError("GenerateContentRequest.contents: contents is not specified")
    config = request.generation_config or _Config()
    thinking = config.thinking_config or _Thinking()
    calling = request.tool_config.function_calling_config if request.tool_config else None
    mode = calling.mode if calling else None
    tools = request.tools or []
    return Prompt(
        model=model,
        stream=verb.startswith("stream"),
        segments=_segments(request),
        tools=() if mode == "NONE" else _functions(tools),
        must_call=mode == "ANY",
        limit=positive(config.max_output_tokens),
        thinks=re.match(r"gemini-(2\.5|[3-9])", model) is not None and thinking.thinking_budget != 0,
        shows_thoughts=bool(thinking.include_thoughts),
        fetches_pages=any("urlContext" in tool for tool in tools),
        own=re.search(r"[?&]alt=sse(&|$)", path) is not None,
    )


def _segments(request: _Request) -> tuple[Segment, ...]:
    contents = request.contents if isinstance(request.contents, list) else [request.contents]
    system = [] if request.system_instruction is None else [request.system_instruction]
    return tuple(Segment(compact(part)) for part in [*system, *(request.tools or []), *contents])


def _functions(tools: list[dict[str, Any]]) -> tuple[Tool, ...]:
    found = [function for tool in tools for function in tool.get("functionDeclarations") or []]
    # Proto JSON takes names in either case, and Google's own SDK sends this one in both.
    names = ("parametersJsonSchema", "parameters_json_schema", "parameters")
    return tuple(
        Tool(str(each["name"]), next((each[name] for name in names if name in each), {}))
        for each in found
        if "name" in each
    )


def count(path: str, body: bytes) -> Any:
    """The answer of `:countTokens`, which is free."""
    wrapped = msgspec.json.decode(body)
    inner = wrapped.get("generateContentRequest", wrapped) if isinstance(wrapped, dict) else wrapped
    total = sum(segment.tokens for segment in _segments(msgspec.convert(inner, _Request)))
    return {"totalTokens": total, "promptTokensDetails": _text(total)}


def bill(prompt: Prompt, cache: PromptCache) -> Billed:
    read_, _ = cache.implicit(prompt.model, prompt.segments)
    fetched = 0
    if prompt.fetches_pages:
        fetched = random.Random(prompt.segments[-1].text).randint(*PAGE_TOKENS)  # noqa: S311
    return Billed(
        input_tokens=prompt.tokens + fetched,
        cache_read_input_tokens=read_ if read_ >= CACHE_TOKENS_MIN else 0,
        tool_use_prompt_tokens=fetched,
    )


def _text(number: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": number}]


def _usage(billed: Billed, output: int, thoughts: int) -> dict[str, Any]:
    """The metadata after `output` tokens, `thoughts` of them reasoning. Counts of nothing are left out."""
    prompt = billed.input_tokens - billed.tool_use_prompt_tokens
    counts: dict[str, Any] = {"promptTokenCount": prompt}
    if cached := billed.cache_read_input_tokens:
        counts["cachedContentTokenCount"] = cached
    if candidates := output - thoughts:
        counts["candidatesTokenCount"] = candidates
    counts |= {"totalTokenCount": billed.input_tokens + output, "promptTokensDetails": _text(prompt)}
    if cached:
        counts["cacheTokensDetails"] = _text(cached)
    if fetched := billed.tool_use_prompt_tokens:
        counts |= {"toolUsePromptTokenCount": fetched, "toolUsePromptTokensDetails": _text(fetched)}
    if thoughts:
        counts["thoughtsTokenCount"] = thoughts
    return counts | {"serviceTier": "standard"}


def _parts(turn: Turn, words: int | None) -> Iterator[tuple[dict[str, Any], int]]:
    """(part of the content, output tokens in it), texts in runs of `words` words or whole."""
    reply = turn.reply

    def runs(text: str) -> Iterator[str]:
        return pieces(text, words) if words else iter([text] if text else [])

    if turn.prompt.shows_thoughts:
        for run in runs(reply.thoughts):
            yield {"text": run, "thought": True}, tokens(run)
    for run in runs(reply.text):
        yield {"text": run}, tokens(run)
    if reply.call is not None:
        arguments = msgspec.json.decode(reply.call.arguments)
        call = {"name": reply.call.name, "args": arguments, "id": turn.id("", 8)}
        yield {"functionCall": call, "thoughtSignature": base64.b64encode(THOUGHT).decode()}, reply.call_tokens


def _chunk(turn: Turn, parts: list[Any], usage: dict[str, Any], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    response_id = turn.id("", 23)
    return {
        "candidates": [candidate | {"index": 0}],
        "usageMetadata": usage,
        "modelVersion": turn.model,
        "responseId": response_id,
    }


def whole(turn: Turn) -> Any:
    usage = _usage(turn.billed, turn.billed.output_tokens, turn.billed.reasoning_output_tokens)
    return _chunk(turn, [part for part, _ in _parts(turn, None)], usage, FINISH[turn.reply.finish])


def stream(turn: Turn) -> Iterator[Piece]:
    thoughts = turn.reply.reasoning_tokens
    # Thoughts that are not shown are counted from the first chunk on.
    hidden = 0 if turn.prompt.shows_thoughts else thoughts
    said = 0
    parts = list(_parts(turn, 12))
    for number, (part, count_) in enumerate(parts):
        fresh = count_ + (hidden if number == 0 else 0)
        said = min(said + fresh, turn.reply.tokens)
        usage = _usage(turn.billed, said, min(said, thoughts))
        yield Piece(_write(turn, number, _chunk(turn, [part], usage, None)), fresh)
    usage = _usage(turn.billed, turn.billed.output_tokens, thoughts)
    last = _chunk(turn, [{"text": ""}], usage, FINISH[turn.reply.finish])
    yield Piece(_write(turn, len(parts), last) + _array_end(turn), 0 if parts else hidden)


def _is_sse(turn: Turn) -> bool:
    return bool(turn.prompt.own)


def _write(turn: Turn, number: int, chunk: Any) -> bytes:
    """The `number`-th chunk of a stream, from 0."""
    if _is_sse(turn):
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n".encode()
    return (("," if number else "[") + json.dumps(chunk, indent=2, ensure_ascii=False) + "\n").encode()


def _array_end(turn: Turn) -> bytes:
    return b"" if _is_sse(turn) else b"]\n"


def break_off(turn: Turn, sent: int) -> bytes:
    body = error("overloaded", 503, "The model is overloaded. Please try again later.", "")
    return _write(turn, sent, body) + _array_end(turn)


def media_type(turn: Turn) -> str:
    return "text/event-stream" if _is_sse(turn) else "application/json; charset=UTF-8"


WIRE = Wire("gemini_generate", read, bill, whole, stream, break_off, media_type)


# -- embeddings ---------------------------------------------------------------------------------------------------


def read_embedding(path: str, body: bytes) -> Prompt:
    model, verb = model_of(path)
    asked = decode(body, _EmbedMany).requests if verb == "batchEmbedContents" else [decode(body, _Embed)]
    if not asked:
        raise ValueError("BatchEmbedContentsRequest.requests: is not specified")
    segments = tuple(Segment("".join(part.text for part in each.content.parts)) for each in asked)
    length = positive(asked[0].output_dimensionality) or EMBEDDING_DIMENSIONS
    return Prompt(model, stream=False, segments=segments, own=(verb, length))


def whole_embedding(turn: Turn) -> Any:
    """One vector or several. Usage as recorded: only the prompt, and older models say nothing at all."""
    verb, length = turn.prompt.own
    vectors = []
    for segment in turn.prompt.segments:
        numbers = random.Random(segment.text)  # noqa: S311
        vectors.append({"values": [round(numbers.uniform(-0.05, 0.05), 8) for _ in range(length)]})
    usage = {"usageMetadata": {"promptTokenCount": turn.billed.input_tokens}}
    if verb == "batchEmbedContents":
        return {"embeddings": vectors, **usage}
    return {"embedding": vectors[0], **usage}


def bill_embedding(prompt: Prompt, cache: PromptCache) -> Billed:
    return Billed(prompt.tokens)


EMBEDDINGS = Wire("gemini_generate", read_embedding, bill_embedding, whole_embedding)
