"""Wire formats. `find` says which dialect a request speaks and whether a provider bills it."""

import re
from functools import lru_cache
from urllib.parse import unquote

from gateway.dialects import (
    anthropic_messages,
    aws_others,
    bedrock_converse,
    bedrock_invoke,
    cohere_chat,
    gemini_generate,
    gemini_interactions,
    mistral_ocr,
    ollama_chat,
    openai_assistants,
    openai_audio,
    openai_batches,
    openai_chat,
    openai_embeddings,
    openai_images,
    openai_realtime,
    openai_responses,
    openai_videos,
    watsonx_generate,
)
from gateway.dialects.base import Dialect, Route

DIALECTS: tuple[Dialect, ...] = (
    anthropic_messages.DIALECT,
    openai_responses.DIALECT,
    watsonx_generate.DIALECT,
    openai_embeddings.DIALECT,
    gemini_generate.DIALECT,
    openai_chat.DIALECT,
    bedrock_converse.DIALECT,
    bedrock_invoke.DIALECT,
    cohere_chat.DIALECT,
    ollama_chat.DIALECT,
    openai_audio.DIALECT,
    openai_images.DIALECT,
    gemini_interactions.DIALECT,
    openai_realtime.DIALECT,
    openai_assistants.DIALECT,
    openai_batches.DIALECT,
    mistral_ocr.DIALECT,
    openai_videos.DIALECT,
    aws_others.DIALECT,
)


PATH_MAX = 2048
"""A longer path is no provider's."""


def find(method: str, path: str, provider: str = "") -> tuple[Dialect, Route] | None:
    """The dialect and route of a request (path without query), or `None` for a path that no dialect knows."""
    return _find(method, path, provider) if len(path) <= PATH_MAX else None


@lru_cache(maxsize=1024)
def _find(method: str, path: str, provider: str) -> tuple[Dialect, Route] | None:
    plain = path.replace("%3A", ":").replace("%3a", ":")
    for dialect in DIALECTS:
        for entry in dialect.routes:
            if entry.method == method and entry.provider in (None, provider) and entry.path.search(plain):
                return dialect, entry
    return None


def is_disguised(method: str, path: str, provider: str) -> bool:
    """True for a path that no dialect knows as it is written, and that a lenient server may yet take for one that is
    billed: letters percent-encoded or of the other case, slashes too many."""
    plain = "/" + re.sub(r"/+", "/", unquote(unquote(path)).partition(";")[0]).strip("/")
    found = find(method, plain, provider) or find(method, plain.lower(), provider)
    return found is not None and found[1].kind != "unbilled"
