"""Batches: results of many requests, read together and billed at a lower price. Says what one JSON value of an answer
(a line of a results file, or a page of them) tells about a batch. Pure.

Sources: platform.openai.com/docs/guides/batch, docs.anthropic.com/en/docs/build-with-claude/batch-processing,
ai.google.dev/gemini-api/docs/batch-mode, docs.mistral.ai/capabilities/batch, docs.x.ai/docs/guides/batch-api.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from gateway.call import Answer
from gateway.dialects import anthropic_messages, gemini_generate, openai_chat, openai_embeddings, openai_responses
from gateway.dialects.base import Dialect
from gateway.reading import child, items, text

OBJECTS = {
    "response": openai_responses.DIALECT,
    "chat.completion": openai_chat.DIALECT,
    "text_completion": openai_chat.DIALECT,
    "list": openai_embeddings.DIALECT,
}
"""What an answer's `object` says it is."""
GEMINI_MODEL = re.compile(r"/models/([^/:]+):")
BATCH_KINDS = frozenset({"batch", "message_batch"})


class Result(NamedTuple):
    """One answer of a batch."""

    id: str | None
    """The provider's, for telling whether it was booked before."""
    dialect: Dialect
    answer: Answer


class Batch(NamedTuple):
    """What an answer says about a batch itself: its id, and the names under which its results can be read."""

    id: str
    names: tuple[str, ...]


def batch_of(value: Mapping[str, Any]) -> Batch | None:
    """The batch that a JSON value describes; `None` when it describes none."""
    kind = text(value.get("object")) or text(value.get("type"))
    name = text(value.get("name"))
    id_ = text(value.get("id")) if kind in BATCH_KINDS else text(value.get("batch_id"))
    if id_ is None and name is not None and name.startswith("batches/"):
        id_ = name.removeprefix("batches/")  # Gemini
    if id_ is None:
        return None
    output = child(value, "metadata", "output") or child(value, "response")
    files = (
        *(value.get(key) for key in ("output_file_id", "error_file_id", "output_file", "error_file")),
        output.get("responsesFile"),
    )
    return Batch(id_, tuple(found.removeprefix("files/") for file in files if (found := text(file))))


class _Params(msgspec.Struct):
    model: str | None = None


class _Completion(msgspec.Struct):
    chat_get_completion: _Params | None = None


class _One(msgspec.Struct):
    params: _Params | None = None
    batch_request: _Completion | None = None


class _Start(msgspec.Struct):
    model: str | None = None
    input_file_id: str | None = None
    requests: list[_One] = []
    batch_requests: list[_One] = []


def models_of(path: str, body: bytes) -> set[str] | None:
    """The models that a new batch asks for; `None` when the request does not show them (they stand in a file)."""
    if found := GEMINI_MODEL.search(unquote(path)):
        return {found[1]}
    try:
        start = msgspec.json.decode(body, type=_Start)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    named = [one.params.model if one.params else None for one in start.requests]  # Anthropic
    for one in start.batch_requests:  # xAI
        completion = one.batch_request.chat_get_completion if one.batch_request else None
        named.append(completion.model if completion else None)
    if start.input_file_id is not None:
        return None  # OpenAI: what stands in the file counts
    if start.model is not None:  # Mistral: for all that name none
        named = [name or start.model for name in named] or [start.model]
    return set(filter(None, named)) if named and all(named) else None


def results_of(value: Mapping[str, Any], provider: str) -> Iterator[Result]:
    """The answers that a JSON value holds."""
    gemini = child(value, "metadata", "output", "inlinedResponses") or child(value, "response", "inlinedResponses")
    pages = (value.get("results"), value.get("outputs"), gemini.get("inlinedResponses"))
    for line in (value, *(child(one) for page in pages for one in items(page))):
        said = child(line, "response")
        for body in (
            child(said, "body"),  # OpenAI, Mistral
            child(line, "result", "message"),  # Anthropic
            child(line, "batch_result", "response", "chat_get_completion"),  # xAI
            said if "usageMetadata" in said else {},  # Gemini
        ):
            if (dialect := _dialect_of(body)) is not None:
                answer = Answer()
                dialect.fold(answer, body, provider)
                yield Result(answer.upstream_id or text(line.get("id")), dialect, answer)


def _dialect_of(body: Mapping[str, Any]) -> Dialect | None:
    if "usageMetadata" in body:
        return gemini_generate.DIALECT
    if body.get("type") == "message":
        return anthropic_messages.DIALECT
    return OBJECTS.get(text(body.get("object")) or "")
