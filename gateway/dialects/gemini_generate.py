"""Gemini generateContent, streamGenerateContent and embeddings.

Source: ai.google.dev/api/generate-content. `usageMetadata` is cumulative and may stand on every chunk: the last one
wins. A stream is SSE with `?alt=sse`, else one growing JSON array; it has no terminal event.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.call import Answer, Ask, Excerpts, Usage
from gateway.dialects.base import (
    NO_VALUE,
    Dialect,
    Ending,
    Listed,
    Route,
    Stated,
    add_units,
    entries,
    has_hosted,
    length_of,
    maximum,
    read_stating,
    refers,
    renamed_model,
    route,
)
from gateway.dialects.gemini_shapes import fold_metadata, metadata_of, refuse
from gateway.dialects.openai_shapes import ticket_in
from gateway.edits import capped
from gateway.framing import Event
from gateway.reading import child, count, items, largest, text

CODE_ASSIST = "v1internal"
"""Where a model's name stands in other paths; then the body names it."""


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: Stated | None = None
    snake_maximum: Stated | None = msgspec.field(name="max_output_tokens", default=None)
    candidate_count: Any = None
    schema: msgspec.Raw = msgspec.field(name="responseJsonSchema", default=NO_VALUE)


class _SnakeConfig(msgspec.Struct):
    max_output_tokens: Stated | None = None
    camel_maximum: Stated | None = msgspec.field(name="maxOutputTokens", default=None)
    candidate_count: Any = None
    schema: msgspec.Raw = msgspec.field(name="response_json_schema", default=NO_VALUE)


class _Parameters(msgspec.Struct, rename="camel"):
    duration_seconds: Any = None
    sample_count: Any = None


class _Wrapped(msgspec.Struct, rename="camel"):
    """Code Assist's."""

    generation_config: _Config | None = None
    snake_config: _SnakeConfig | None = msgspec.field(name="generation_config", default=None)
    cached_content: Any = None


class _Request(msgspec.Struct, rename="camel"):
    parameters: _Parameters | None = None
    contents: Listed = None
    tools: Listed = None
    system_instruction: msgspec.Raw = NO_VALUE
    labels: Any = None
    generation_config: _Config | None = None
    snake_config: _SnakeConfig | None = msgspec.field(name="generation_config", default=None)
    model: str | None = None
    cached_content: Any = None
    snake_cached: Any = msgspec.field(name="cached_content", default=None)
    service_tier: Any = None
    snake_tier: Any = msgspec.field(name="service_tier", default=None)
    request: _Wrapped | None = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    model, _, verb = unquote(path.rpartition("/")[2]).partition(":")
    config, messages = request.generation_config or request.snake_config, entries(request.contents)
    tools, within = entries(request.tools), request.request or _Wrapped()
    given = request.parameters or _Parameters()
    seconds = (count(given.duration_seconds) or 0) * (count(given.sample_count) or 1)
    return Ask(
        units={"video_seconds": float(seconds)} if seconds else {},
        model=text(request.model) if model == CODE_ASSIST else text(model),
        stream=verb.startswith("stream"),
        max_output_tokens=maximum(stated, *_maxima(request), *_maxima(within), least=LEAST),
        service_tier=text(request.service_tier) or text(request.snake_tier),
        message_count=length_of(request.contents),
        tool_count=length_of(request.tools),
        ticket=ticket_in(request.labels),
        excerpts=Excerpts(
            messages or (), request.system_instruction, output_format=config.schema if config else NO_VALUE
        ),
        choices=(count(config.candidate_count) if config else None) or 1,
        refers=bool(request.cached_content or request.snake_cached or within.cached_content)
        or has_hosted(tools, b"eclarations")
        or refers(body, *MEDIA),
    )


LEAST = 1
"""0 means no limit."""
MEDIA = (b'"inlineData"', b'"inline_data"', b'"fileData"', b'"file_data"')


def _maxima(request: _Request | _Wrapped) -> list[Stated | None]:
    found: list[Stated | None] = []
    if request.generation_config is not None:
        found += (request.generation_config.max_output_tokens, request.generation_config.snake_maximum)
    if request.snake_config is not None:
        found += (request.snake_config.max_output_tokens, request.snake_config.camel_maximum)
    return found


GENERATES = re.compile(r"(?::|%3A)(?:generateContent|streamGenerateContent)$", re.IGNORECASE)
CONFIG, MAXIMUM = ("generationConfig", "generation_config"), ("maxOutputTokens", "max_output_tokens")


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    if not GENERATES.search(path.partition("?")[0]):
        return None
    within = (("request",),) if CODE_ASSIST in path else ()
    return capped(body, tokens, *within, CONFIG, MAXIMUM, least=LEAST)


MODEL_IN_PATH = re.compile(r"/models/([^/:]+?)(?=(?::|%3A)\w+$)", re.IGNORECASE)


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """Code Assist names the model in the body, all others in the path."""
    if not GENERATES.search(path.partition("?")[0]):
        return None  # vectors of another model are of no use beside the others
    return renamed_model(path, body, model, in_path=MODEL_IN_PATH)


class GenerateEnding:
    """Ends each candidate that is open: a stream has no other end."""

    def __init__(self) -> None:
        self._base: dict[str, Any] = {}
        self._is_wrapped = False
        self._open: dict[int, bool] = {}

    def see(self, event: Mapping[str, Any]) -> None:
        self._is_wrapped = bool(child(event, "response"))
        data = child(event, "response") or event
        self._base |= {name: data[name] for name in ("modelVersion", "responseId") if name in data}
        for candidate in (child(one) for one in items(data.get("candidates"))):
            index = count(candidate.get("index")) or 0
            self._open[index] = self._open.get(index, True) and not candidate.get("finishReason")

    def events(self, usage: Usage) -> list[Event] | None:
        if not self._base and not self._open:
            return None
        still_open = [index for index, is_open in (self._open or {0: True}).items() if is_open]
        if not still_open:
            return []
        said = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS"}
        candidates = [{**said, "index": index} for index in still_open]
        last = {"candidates": candidates, "usageMetadata": metadata_of(usage), **self._base}
        return [Event("", msgspec.json.encode({"response": last} if self._is_wrapped else last))]


def ending(path: str, body: bytes) -> Ending | None:
    return GenerateEnding()


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    data = child(data.get("response")) or data  # the Code Assist wrapper
    answer.response_model = text(data.get("modelVersion")) or answer.response_model
    answer.upstream_id = text(data.get("responseId")) or answer.upstream_id
    queries: set[str] = set()
    for each in items(data.get("candidates")):
        candidate = child(each)
        answer.finish_reason = text(candidate.get("finishReason")) or answer.finish_reason
        if "groundingMetadata" in candidate:
            searched = items(child(candidate["groundingMetadata"]).get("webSearchQueries"))
            queries |= {query for query in searched if isinstance(query, str) and query}
    if "promptFeedback" in data:
        answer.finish_reason = text(child(data["promptFeedback"]).get("blockReason")) or answer.finish_reason
    if "error" in data and (error := child(data["error"])):
        answer.error = text(error.get("status")) or "error"
    if queries:
        answer.usage.web_search_requests = largest(len(queries), answer.usage.web_search_requests)
    if metadata := child(data.get("usageMetadata")):
        tier = text(metadata.get("serviceTier")) or text(metadata.get("trafficType"))
        answer.service_tier = tier or answer.service_tier
        fold_metadata(answer.usage, metadata)
    if "predictions" in data:
        _fold_predictions(answer, data)


def _fold_predictions(answer: Answer, data: Mapping[str, Any]) -> None:
    """Vertex `:predict`: embeddings count tokens per text, and characters for the models that are billed by them;
    pictures are billed by number."""
    predictions = [child(one) for one in items(data.get("predictions"))]
    if pictures := sum(1 for one in predictions if "bytesBase64Encoded" in one):
        answer.units = {"images": float(pictures)}
    texts = [child(one, "embeddings", "statistics") for one in predictions]
    counts = [number for each in texts if (number := count(each.get("token_count"))) is not None]
    if counts:
        answer.usage.input_tokens = sum(counts)
        add_units(answer.usage, characters=child(data, "metadata").get("billableCharacterCount"))


def _versioned(method: str, path: str, *, settles: bool = False) -> Iterator[Route]:
    """Unbilled routes behind a version. Behind `/v1` they are OpenAI's with other providers."""
    yield route(method, "/v1(beta|alpha)" + path, None, settles=settles)
    yield route(method, "/v1" + path, None, settles=settles, provider="gcp.gemini")


DIALECT = Dialect(
    name="gemini_generate",
    routes=(
        route("POST", r":(generateContent|streamGenerateContent)$", "generate_content"),
        route("POST", r"/imagen[^/]*:predict$", "image_generation"),
        route("POST", r":(embedContent|batchEmbedContents|predict)$", "embeddings"),
        route("POST", r":predictLongRunning$", "video_generation"),
        route("POST", r":fetchPredictOperation$", None),
        route("GET", r"/operations/[^/]+$", None),
        route("POST", r":(countTokens|computeTokens)$", None),
        route("POST", r":(batchGenerateContent|asyncBatchEmbedContent)$", None, starts=True),
        *_versioned("GET", r"/batches(/[^/:]+)?$", settles=True),
        *_versioned("POST", r"/batches/[^/:]+:cancel$"),
        *_versioned("DELETE", r"/batches/[^/:]+$"),
        route("GET", r"/files/[^/:]+:download$", None, settles=True),
        *_versioned("GET", r"/(models|tunedModels|files|fileSearchStores)(/[^/:]+)*$"),
        route("GET", r"/cachedContents(/[^/:]+)?$", None),
        route("POST", r"/cachedContents$", None),
        route("PATCH", r"/cachedContents/[^/:]+$", None),
        route("DELETE", r"/(cachedContents|files|fileSearchStores)/[^/:]+$", None),
        route("POST", r"/fileSearchStores(/[^/:]+:\w+)?$", None),
        route("POST", r"/upload/v1(beta|alpha)?/files$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"(?:usageMetadata|finishReason|blockReason|error|webSearchQueries)"\s*:'),
    fold=fold,
    refuse=refuse,
    signs_end=False,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
