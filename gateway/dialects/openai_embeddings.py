"""OpenAI embeddings: input tokens only. Source: platform.openai.com/docs/api-reference/embeddings."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, read_request, route
from gateway.dialects.openai_shapes import azure_deployment, fold_usage, refuse
from gateway.reading import child, text


class _Request(msgspec.Struct):
    model: str | None = None


def read_ask(path: str, body: bytes) -> Ask:
    return Ask(model=azure_deployment(path) or text(read_request(body, _Request).model))


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.upstream_id = text(data.get("id")) or answer.upstream_id
    fold_usage(answer, child(data, "usage"), provider, "prompt_tokens", "completion_tokens")


DIALECT = Dialect(
    name="openai_embeddings",
    routes=(route("POST", r"/embeddings$", "embeddings"),),
    read_ask=read_ask,
    may_matter=re.compile(rb'"usage"\s*:'),
    fold=fold,
    refuse=refuse,
)
