"""Gemini's Interactions API. Thoughts stand outside the output, tool-use tokens outside the input.

Source: ai.google.dev/api/interactions-api. A stream ends with `interaction.completed`; work in the background is read
with a later GET.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import (
    Dialect,
    Stated,
    add_units,
    last_wins,
    maximum,
    read_stating,
    refers,
    renamed_model,
    route,
)
from gateway.dialects.gemini_shapes import refuse
from gateway.edits import capped
from gateway.reading import child, count, items, text


class _Config(msgspec.Struct):
    max_output_tokens: Stated | None = None


class _Request(msgspec.Struct):
    model: str | None = None
    agent: str | None = None
    stream: bool | None = None
    service_tier: Any = None
    input: Any = None
    tools: Any = None
    generation_config: _Config | None = None
    previous_interaction_id: Any = None
    background: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    config = request.generation_config or _Config()
    return Ask(
        model=text(request.model) or text(request.agent),
        stream=bool(request.stream),
        max_output_tokens=maximum(stated, config.max_output_tokens, least=LEAST),
        service_tier=text(request.service_tier),
        message_count=len(request.input) if isinstance(request.input, list) else 1,
        tool_count=len(request.tools) if isinstance(request.tools, list) else None,
        is_tied=bool(request.background or request.previous_interaction_id),
        refers=bool(request.agent or request.previous_interaction_id)
        or any(child(tool).get("type") != "function" for tool in items(request.tools))
        or refers(body, b'"mime_type"', b'"uri"'),
    )


LEAST = 1
"""0 means no limit."""


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    return capped(body, tokens, ("generation_config",), ("max_output_tokens",), least=LEAST)


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """An agent, which stands in for a model, cannot be replaced by one."""
    return renamed_model(path, body, model)


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    said = child(data, "interaction") or data
    answer.response_model = text(said.get("model")) or text(said.get("agent")) or answer.response_model
    answer.upstream_id = text(said.get("id")) or answer.upstream_id
    answer.service_tier = text(said.get("service_tier")) or answer.service_tier
    if error := child(said, "error"):
        answer.error = text(error.get("code")) or text(error.get("status")) or "error"
    status = text(said.get("status"))
    usage, stated = answer.usage, child(said, "usage")
    if status not in (None, "in_progress"):
        answer.finish_reason = status
    thoughts, tools = count(stated.get("total_thought_tokens")), count(stated.get("total_tool_use_tokens"))
    if (fresh := count(stated.get("total_input_tokens"))) is not None:
        usage.input_tokens = fresh + (tools or 0)
    if (output := count(stated.get("total_output_tokens"))) is not None:
        usage.output_tokens = output + (thoughts or 0)
    last_wins(usage, "reasoning_output_tokens", thoughts)
    last_wins(usage, "cache_read_input_tokens", stated.get("total_cached_tokens"))
    for name, key in (("input", "input_tokens_by_modality"), ("output", "output_tokens_by_modality")):
        for entry in (child(one) for one in items(stated.get(key))):
            if (modality := text(entry.get("modality"))) in ("audio", "image"):
                last_wins(usage, f"{modality}_{name}_tokens", entry.get("tokens"))
    add_units(usage, tool_use_prompt_tokens=tools)
    answer.finished = answer.finished or data.get("event_type") == "interaction.completed"
    if status is not None:
        answer.pending = status == "in_progress" and not stated


DIALECT = Dialect(
    name="gemini_interactions",
    routes=(
        route("POST", r"/interactions$", "generate_content"),
        route("GET", r"/interactions/[^/]+$", None, settles=True),
        route("POST", r"/interactions/[^/]+/cancel$", None, settles=True),
        route("DELETE", r"/interactions/[^/]+$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'type"\s*:\s*"interaction\.(?:completed|complete|status_update)"|"error"\s*:'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
)
