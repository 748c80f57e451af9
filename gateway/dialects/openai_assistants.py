"""OpenAI assistants: a run reports its usage, growing, on several events; read again, it repeats it.

Source: platform.openai.com/docs/api-reference/runs. Threads and messages themselves are not billed.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, Stated, maximum, read_stating, route
from gateway.dialects.openai_shapes import fold_usage, refuse, reroute, ticket_in
from gateway.edits import capped
from gateway.reading import child, text

UNDER_WAY = frozenset({"queued", "in_progress", "requires_action", "cancelling"})


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_completion_tokens: Stated | None = None
    metadata: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    return Ask(
        model=text(request.model),
        stream=bool(request.stream),
        max_output_tokens=maximum(stated, request.max_completion_tokens),
        ticket=ticket_in(request.metadata),
        output_tokens_min=256,
        refers=True,
    )


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    """A maximum for all the answers of a run."""
    return capped(body, tokens, ("max_completion_tokens",))


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    if data.get("object") != "thread.run":
        return
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.upstream_id = text(data.get("id")) or answer.upstream_id
    fold_usage(answer, child(data, "usage"), provider, "prompt_tokens", "completion_tokens")
    status = text(data.get("status"))
    answer.pending = status in UNDER_WAY and not child(data, "usage")
    if status not in UNDER_WAY:
        answer.finish_reason = status or answer.finish_reason
    if error := child(data, "last_error"):
        answer.error = text(error.get("code")) or "error"


DIALECT = Dialect(
    name="openai_assistants",
    routes=(
        route("POST", r"/threads(/[^/]+)?/runs$", "invoke_agent"),
        route("POST", r"/threads/[^/]+/runs/[^/]+/submit_tool_outputs$", None, settles=True),
        route("POST", r"/threads/[^/]+/runs/[^/]+(/cancel)?$", None, settles=True),
        route("GET", r"/threads/[^/]+/runs/[^/]+$", None, settles=True),
        route("GET", r"/threads/[^/]+(/\w+)*$", None),
        route("GET", r"/threads/[^/]+/runs/[^/]+/steps(/[^/]+)?$", None),
        route("POST", r"/threads(/[^/]+(/messages(/[^/]+)?)?)?$", None),
        route("DELETE", r"/threads/[^/]+(/messages/[^/]+)?$", None),
        *(route(method, r"/assistants(/[^/]+)?$", None) for method in ("GET", "POST", "DELETE")),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"object"\s*:\s*"thread\.run"'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
)
