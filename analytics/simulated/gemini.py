"""Gemini's generateContent and its kin as recorded.

Output is candidates plus thoughts. Each chunk of a stream carries `usageMetadata`, cumulative. Without `alt=sse` a
stream is one JSON array that grows.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

from analytics.simulated.model import Prompt, Reply, ToolSpec, deltas, segment, tokens
from analytics.simulated.wire import Piece, Provider, Trouble, Wire, strings

MODELS = ("gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-3.1-pro-preview", "gemini-embedding-001")
REPORTS_EMBEDDING_USAGE = "gemini-embedding-2"
SSE = "$sse"
"""Where the server notes in the request that the client asked for server-sent events (a query, not a field)."""


def _read(path_model: str, body: dict[str, Any]) -> Prompt:
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise ValueError("contents is not specified")
    tools = strings(body.get("tools"))
    declared = [function for tool in tools for function in tool.get("functionDeclarations", [])]
    settings = body.get("generationConfig") or {}
    mode = ((body.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode")
    return Prompt(
        request=body,
        model=path_model,
        segments=tuple(map(segment, [*tools, *strings(body.get("systemInstruction")), *contents])),
        output_max=settings.get("maxOutputTokens"),
        tools=tuple(
            ToolSpec(function["name"], function.get("parameters") or function.get("parametersJsonSchema") or {})
            for function in declared
        ),
        must_call=mode == "ANY",
        reasons=(settings.get("thinkingConfig") or {}).get("thinkingBudget") != 0,
    )


def _usage(reply: Reply, candidates: int) -> dict[str, Any]:
    usage = reply.usage
    cached, thoughts = usage.cache_read_input_tokens, usage.reasoning_output_tokens
    found: dict[str, Any] = {"promptTokenCount": usage.input_tokens}
    if candidates:
        found["candidatesTokenCount"] = candidates
    found["totalTokenCount"] = usage.input_tokens + candidates + thoughts
    if cached:
        found["cachedContentTokenCount"] = cached
    found["promptTokensDetails"] = _text_only(usage.input_tokens)
    if cached:
        found["cacheTokensDetails"] = _text_only(cached)
    if thoughts:
        found["thoughtsTokenCount"] = thoughts
    return {**found, "serviceTier": "standard"}


def _text_only(length: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": length}]


def _part(reply: Reply) -> dict[str, Any]:
    assert reply.tool is not None
    call = {"name": reply.tool.name, "args": json.loads(reply.arguments), "id": reply.id[:8]}
    return {"functionCall": call, "thoughtSignature": "c2ltdWxhdGVk"}


def _answer(reply: Reply, parts: list[dict[str, Any]], finish: str | None, candidates: int) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if finish:
        candidate["finishReason"] = finish
    candidate["index"] = 0
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(reply, candidates),
        "modelVersion": reply.model,
        "responseId": reply.id[:22],
    }


def _finish(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.cut_short else "STOP"


def _whole(prompt: Prompt, reply: Reply) -> bytes:
    parts = [{"text": reply.text}, *([_part(reply)] if reply.tool else [])]
    shown = reply.usage.output_tokens - reply.usage.reasoning_output_tokens
    return _pretty(_answer(reply, parts, _finish(reply), shown)) + b"\n"


def _pieces(prompt: Prompt, reply: Reply) -> Iterator[Piece]:
    # Gemini's chunks are longer than the others': one in four deltas.
    texts = deltas(reply.text)
    chunks = ["".join(texts[at : at + 4]) for at in range(0, len(texts), 4)]
    candidates, unbilled = 0, reply.usage.reasoning_output_tokens
    opening = b"[" if SSE not in prompt.request else b""
    for text in chunks:
        candidates += tokens(text)
        data = _framed(prompt, _answer(reply, [{"text": text}], None, candidates))
        yield Piece(opening + data, tokens(text) + unbilled)
        unbilled, opening = 0, b"" if SSE in prompt.request else b",\r\n"
    last = [_part(reply)] if reply.tool else [{"text": "", "thoughtSignature": "c2ltdWxhdGVk"}]
    candidates += tokens(reply.arguments)
    data = _framed(prompt, _answer(reply, last, _finish(reply), candidates))
    closing = b"]" if SSE not in prompt.request else b""
    yield Piece(opening + data + closing, tokens(reply.arguments) + unbilled)


def _framed(prompt: Prompt, value: dict[str, Any]) -> bytes:
    if SSE not in prompt.request:
        return _pretty(value) + b"\n"
    return b"data: " + json.dumps(value, separators=(",", ": "), ensure_ascii=False).encode() + b"\r\n\r\n"


def _error_event(prompt: Prompt, reply: Reply, after: int) -> bytes:
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    return _framed(prompt, error) if SSE in prompt.request else b",\r\n" + _framed(prompt, error) + b"]"


def _stream_type(prompt: Prompt) -> str:
    return "text/event-stream" if SSE in prompt.request else "application/json; charset=UTF-8"


def embeddings(model: str, verb: str, body: dict[str, Any], dice: random.Random) -> tuple[int, bytes]:
    """Answer an embedding request: input tokens as billed, which most models do not report, and the body."""
    requests = strings(body.get("requests")) if verb == "batchEmbedContents" else [body]
    length = sum(tokens(segment(request.get("content"))) for request in requests)
    size = (requests[0] if requests else {}).get("outputDimensionality") or 3072
    vectors = [{"values": [round(dice.uniform(-0.05, 0.05), 9) for _ in range(size)]} for _ in requests]
    answer: dict[str, Any] = {"embeddings": vectors} if verb == "batchEmbedContents" else {"embedding": vectors[0]}
    if model.startswith(REPORTS_EMBEDDING_USAGE):
        answer["usageMetadata"] = {"promptTokenCount": length, "promptTokenDetails": _text_only(length)}
    return length, _pretty(answer) + b"\n"


def counted(length: int) -> bytes:
    """The answer to `countTokens`."""
    return _pretty({"totalTokens": length, "promptTokensDetails": _text_only(length)}) + b"\n"


def _trouble(kind: str, request_id: str, after: int) -> Trouble:
    code, status, message = {
        "unauthenticated": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        "bad_request": (400, "INVALID_ARGUMENT", "Invalid JSON payload received."),
        "not_found": (404, "NOT_FOUND", "The model or method is not found."),
        "rate_limited": (429, "RESOURCE_EXHAUSTED", f"You exceeded your current quota. Please retry in {after}s."),
        "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    }.get(kind, (500, "INTERNAL", "An internal error has occurred."))
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if kind == "rate_limited":
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{after}s"}]
    return Trouble(code, _pretty({"error": error}) + b"\n")


def _models() -> bytes:
    return _pretty({"models": [{"name": f"models/{name}", "displayName": name} for name in MODELS]}) + b"\n"


def _headers(answer_id: str) -> dict[str, str]:
    return {"x-gemini-service-tier": "standard"}


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


GENERATE = Wire("gemini_generate", _read, _whole, _pieces, _error_event, _stream_type)
PROVIDER = Provider("gemini", _headers, _trouble, _models)
