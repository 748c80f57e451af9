"""Anthropic messages, as its own API and Vertex speak them. See `anthropic_shapes` for the usage."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.call import Answer, Ask, Excerpts
from gateway.dialects.anthropic_shapes import MessageEnding, fold_message, output_tokens_min
from gateway.dialects.base import (
    NO_VALUE,
    Caller,
    Dialect,
    Ending,
    Stated,
    Written,
    ends_with,
    has_hosted,
    maximum,
    may_cache,
    read_stating,
    refers,
    renamed_model,
    route,
)
from gateway.dialects.openai_shapes import fold_own_cost
from gateway.edits import capped
from gateway.errors import OF_BUDGETS, Refusal
from gateway.reading import child, text

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
LITELLM = ("litellm", "aider")


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: Stated | None = None
    max_tokens_to_sample: Stated | None = None
    service_tier: Any = None
    speed: Any = None
    inference_geo: Any = None
    container: Any = None
    mcp_servers: Any = None
    messages: list[msgspec.Raw] | None = None
    tools: list[msgspec.Raw] | None = None
    metadata: Any = None
    thinking: Any = None
    system: msgspec.Raw = NO_VALUE
    safeguards: msgspec.Raw = NO_VALUE
    output_config: msgspec.Raw = NO_VALUE


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    most = maximum(stated, request.max_tokens, request.max_tokens_to_sample)
    return Ask(
        model=text(request.model) or _vertex_model(path),
        stream=bool(request.stream),
        max_output_tokens=most,
        service_tier="fast" if request.speed == "fast" else text(request.service_tier),
        message_count=None if request.messages is None else len(request.messages),
        tool_count=None if request.tools is None else len(request.tools),
        session_id=_session(child(request.metadata).get("user_id")),
        excerpts=Excerpts(request.messages or (), request.system, request.safeguards, request.output_config),
        may_cache=may_cache(body),
        output_tokens_min=output_tokens_min(request.thinking, most),
        region=text(request.inference_geo),
        refers=bool(request.container or request.mcp_servers)
        or has_hosted(request.tools, b"input_schema")
        or refers(body, b'"source"'),
    )


def _vertex_model(path: str) -> str | None:
    name, verb, _ = unquote(path.rpartition("/")[2]).partition(":")
    return text(name) if verb else None


def _session(user_id: Any) -> str | None:
    """Claude Code puts a JSON string with `session_id` into `metadata.user_id`."""
    if not isinstance(user_id, str) or not user_id.startswith("{"):
        return None
    try:
        return text(child(msgspec.json.decode(user_id)).get("session_id"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    if data.get("type") == "completion":  # the older text completions report no usage
        answer.response_model = text(data.get("model")) or answer.response_model
        answer.upstream_id = text(data.get("id")) or answer.upstream_id
        answer.finish_reason = text(data.get("stop_reason")) or answer.finish_reason
    else:
        fold_message(answer, data)
        fold_own_cost(answer, child(data, "usage"), provider)


def refuse(refusal: Refusal, caller: Caller) -> Written:
    """Budgets are a 402, at which all tools stop but those that speak through LiteLLM."""
    retries_402 = refusal.code in OF_BUDGETS and caller.client in LITELLM
    status, kind = 400 if retries_402 else refusal.status, ERROR_TYPES.get(refusal.status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": refusal.message}}
    return Written(status, {}, body if caller.request_id is None else {**body, "request_id": caller.request_id})


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    return capped(body, tokens, ("max_tokens_to_sample",) if ends_with(path, "/complete") else ("max_tokens",))


VERTEX_MODEL = re.compile(r"/publishers/anthropic/models/([^/:]+)(?=:)")


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """Vertex names the model in the path, Anthropic in the body."""
    return renamed_model(path, body, model, in_path=VERTEX_MODEL)


def ending(path: str, body: bytes) -> Ending | None:
    return None if ends_with(path, "/complete") else MessageEnding()


DIALECT = Dialect(
    name="anthropic_messages",
    routes=(
        route("POST", r"/v1/messages$", "chat"),
        route("POST", r"/v1/messages/count_tokens$", None),
        route("POST", r"/v1/messages/batches$", None, starts=True),
        route("POST", r"/v1/messages/batches/[^/]+/cancel$", None),
        route("GET", r"/v1/messages/batches(/[^/]+(/results)?)?$", None, settles=True),
        route("DELETE", r"/v1/messages/batches/[^/]+$", None),
        route("POST", r"/v1/complete$", "text_completion"),
        route("POST", r"/models/count-tokens:rawPredict$", None),
        route("POST", r"/publishers/anthropic/models/[^/]+:(rawPredict|streamRawPredict)$", "chat"),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"type"\s*:\s*"(?:message_start|message_delta|message_stop|completion|error)"'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
    links=re.compile(rb'("results_url"\s*:\s*")https?://[^/"]+'),
)
