"""OpenAI chat completions (and the older text completions), also as spoken by compatible servers.

Source: platform.openai.com/docs/api-reference/chat. A stream reports usage only when `stream_options.include_usage`
is set: then on a last chunk with empty `choices`, before `data: [DONE]`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask, Excerpts, Usage
from gateway.dialects.anthropic_shapes import above, output_tokens_min
from gateway.dialects.base import (
    Dialect,
    Ending,
    Listed,
    Stated,
    add_units,
    ends_with,
    has_hosted,
    maximum,
    may_cache,
    read_request,
    read_stating,
    refers,
    route,
)
from gateway.dialects.openai_shapes import (
    SESSION_KEYS,
    azure_deployment,
    fold_error,
    fold_usage,
    named,
    refuse,
    reroute,
    ticket_in,
    usage_of,
)
from gateway.edits import capped
from gateway.errors import Refusal
from gateway.framing import Event, data_of
from gateway.reading import child, count, items, text

SEARCHES = re.compile(r"compound|sonar|search|:online")
"""Models that read more than they are given."""
MARKS = (b'"cache_control"', b'"image_url"', b'"file"')
"""Few bodies have one of them: then one search was enough."""
USAGE = re.compile(rb'"usage"\s*:\s*\{')


class _Arguments(msgspec.Struct):
    max_tokens: Stated | None = None


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Stated | None = None
    max_completion_tokens: Stated | None = None
    completion_args: _Arguments | None = None
    service_tier: Any = None
    thinking: Any = None
    reasoning: Any = None
    n: Any = None
    best_of: Any = None
    prompt: Listed = None
    messages: list[msgspec.Raw] | None = None
    tools: list[msgspec.Raw] | None = None
    metadata: Any = None
    web_search_options: Any = None
    search_parameters: Any = None
    plugins: Any = None
    venice_parameters: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    within = None if request.completion_args is None else request.completion_args.max_tokens
    most = maximum(stated, request.max_tokens, request.max_completion_tokens, within)
    is_marked = refers(body, *MARKS)
    return Ask(
        model=azure_deployment(path) or text(request.model),
        stream=bool(request.stream),
        max_output_tokens=most,
        service_tier=text(request.service_tier),
        message_count=None if request.messages is None else len(request.messages),
        tool_count=None if request.tools is None else len(request.tools),
        session_id=named(request.metadata, SESSION_KEYS),
        ticket=ticket_in(request.metadata),
        excerpts=Excerpts(request.messages or ()),
        may_cache=may_cache(body) if is_marked else None,
        output_tokens_min=1 if not (request.thinking or request.reasoning) else _output_tokens_min(request, most),
        choices=_choices(request),
        refers=bool(request.plugins or request.search_parameters or request.venice_parameters)
        or request.web_search_options is not None
        or "/conversations/" in path
        or SEARCHES.search(request.model or "") is not None
        or has_hosted(request.tools, b'"function"')
        or (is_marked and refers(body, *MARKS[1:])),
    )


def _output_tokens_min(request: _Request, most: int | None) -> int:
    """Anthropic's own field, and OpenRouter's."""
    reasoning = above(child(request.reasoning).get("max_tokens"), most)
    return max(output_tokens_min(request.thinking, most), reasoning)


def _choices(request: _Request) -> int:
    if request.n is request.best_of is request.prompt is None:
        return 1
    return max(count(request.n) or 1, count(request.best_of) or 1) * _prompts(request.prompt)


def _prompts(prompt: Listed) -> int:
    """A list of texts, or of lists of token ids, is so many prompts; a list of token ids is one."""
    return len(prompt) if isinstance(prompt, list) and prompt and bytes(prompt[0])[:1] in (b'"', b"[") else 1


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.upstream_id = text(data.get("id")) or answer.upstream_id
    if "service_tier" in data:
        answer.service_tier = text(data["service_tier"]) or answer.service_tier
    usage = child(data.get("usage")) or child(data, "x_groq", "usage")
    fold_usage(answer, usage, provider, "prompt_tokens", "completion_tokens")
    for choice in map(child, items(data.get("choices"))):
        answer.finish_reason = text(choice.get("finish_reason")) or answer.finish_reason
        if "usage" in choice:  # Moonshot
            fold_usage(answer, child(choice["usage"]), provider, "prompt_tokens", "completion_tokens")
    if "copilot_usage" in data:
        add_units(answer.usage, nano_aiu=child(data["copilot_usage"]).get("total_nano_aiu"))
    if "search-preview" in (answer.response_model or "") and answer.usage.output_tokens is not None:
        answer.usage.web_search_requests = 1  # each call of such a model searches
    if "outputs" in data:
        for output in items(data["outputs"]):  # of Mistral's conversations
            answer.response_model = text(child(output).get("model")) or answer.response_model
    answer.finished = answer.finished or data.get("type") == "conversation.response.done"
    if "error" in data:
        fold_error(answer, data)


class _StreamOptions(msgspec.Struct):
    stream: Any = None
    stream_options: Any = msgspec.UNSET


def ask_for_usage(body: bytes) -> bytes | None:
    """The same request with `stream_options.include_usage`, or `None` when it is no stream, asks for it already, or has
    options that cannot be read. All other bytes stay as sent, but for blanks around the fields of one that had options.
    """
    try:
        request = read_request(body, _StreamOptions)
    except Refusal:
        return None
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


TAKES_THE_NEW_NAME = ("openai", "azure.ai.openai")
MAXIMA = ("max_tokens", "max_completion_tokens")


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    """OpenAI's reasoning models reject `max_tokens`, other servers know nothing else."""
    if "/conversations" in path:
        return capped(body, tokens, ("completion_args",), ("max_tokens",))
    if not ends_with(path, "/chat/completions"):
        return capped(body, tokens, MAXIMA)
    return capped(body, tokens, MAXIMA[::-1] if provider in TAKES_THE_NEW_NAME else MAXIMA)


class ChatEnding:
    """Ends each choice that is open, then states the usage where the client asked for it."""

    def __init__(self, *, is_chat: bool, shows_usage: bool) -> None:
        self._is_chat = is_chat
        self._owes_usage = shows_usage
        self._base: dict[str, Any] = {}
        self._open: dict[int, bool] = {}
        """Of each choice seen, whether it goes on."""

    def see(self, event: Mapping[str, Any]) -> None:
        if not self._open and isinstance(event.get("choices"), list):  # Azure's first event has neither id nor model
            self._base = {name: value for name, value in event.items() if name in REPEATED}
        for choice in (child(one) for one in items(event.get("choices"))):
            index = count(choice.get("index")) or 0
            self._open[index] = self._open.get(index, True) and not choice.get("finish_reason")
        self._owes_usage = self._owes_usage and not (child(event, "usage") and not items(event.get("choices")))

    def events(self, usage: Usage) -> list[Event] | None:
        if not self._base:
            return None
        still_open = [index for index, is_open in (self._open or {0: True}).items() if is_open]
        chunks: list[dict[str, Any]] = [{"choices": [self._end_of(index)]} for index in still_open]
        if self._owes_usage:
            chunks.append({"choices": [], "usage": usage_of(usage, "prompt_tokens", "completion_tokens")})
        ends = [Event("", msgspec.json.encode(self._base | chunk)) for chunk in chunks]
        return [*ends, Event("", b"[DONE]")]

    def _end_of(self, index: int) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        return {"index": index, **said, "logprobs": None, "finish_reason": "length"}


REPEATED = frozenset({"id", "object", "created", "model", "system_fingerprint", "provider"})


def ending(path: str, body: bytes) -> Ending | None:
    """None for Mistral's conversations and watsonx, whose streams end in another way."""
    if "/conversations" in path or "/ml/v1/" in path:
        return None
    options = read_request(body, _StreamOptions).stream_options
    is_chat = ends_with(path, "/chat/completions", "/agents/completions") or not ends_with(path, "/completions")
    return ChatEnding(is_chat=is_chat, shows_usage=child(options).get("include_usage") is True)


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
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
