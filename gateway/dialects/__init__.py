"""Wire formats. `find` says which dialect a request speaks and whether a provider bills it."""

from functools import lru_cache

from gateway.dialects import (
    anthropic_messages,
    bedrock_converse,
    bedrock_invoke,
    cohere_chat,
    gemini_generate,
    ollama_chat,
    openai_chat,
    openai_embeddings,
    openai_responses,
)
from gateway.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (
    anthropic_messages.DIALECT,
    openai_responses.DIALECT,
    openai_embeddings.DIALECT,
    gemini_generate.DIALECT,
    openai_chat.DIALECT,
    bedrock_converse.DIALECT,
    bedrock_invoke.DIALECT,
    cohere_chat.DIALECT,
    ollama_chat.DIALECT,
)


@lru_cache(maxsize=1024)
def find(method: str, path: str) -> tuple[Dialect, str | None] | None:
    """The dialect and operation of a request (path without query), or `None` for a path that no dialect knows.

    Operation `None`: a known route that no provider bills (counting tokens, listing models, reading again).
    """
    plain = path.replace("%3A", ":").replace("%3a", ":")
    for dialect in DIALECTS:
        for entry in dialect.routes:
            if entry.method == method and entry.path.search(plain):
                return dialect, entry.operation
    return None
