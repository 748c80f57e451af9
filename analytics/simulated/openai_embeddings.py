"""OpenAI embeddings: vectors of the right length and no meaning."""

import base64
import random
from array import array
from typing import Any

import msgspec

from analytics.simulated.turns import Billed, Prompt, PromptCache, Segment, Turn
from analytics.simulated.wire import Wire, decode, positive

DIMENSIONS = {"text-embedding-3-large": 3072}


class _Request(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None
    dimensions: Any = None


def read(path: str, body: bytes) -> Prompt:
    request = decode(body, _Request)
    if not request.input:
        raise ValueError("Invalid 'input': empty.")
    one = isinstance(request.input, str) or isinstance(request.input[0], int)
    inputs: list[Any] = [request.input] if one else list(request.input)
    # A text that comes as token ids counts one token for each id.
    texts = [text if isinstance(text, str) else "????" * len(text) for text in inputs]
    return Prompt(request.model, stream=False, segments=tuple(Segment(text) for text in texts), own=request)


def bill(prompt: Prompt, cache: PromptCache) -> Billed:
    return Billed(prompt.tokens)


def whole(turn: Turn) -> Any:
    request: _Request = turn.prompt.own
    length = positive(request.dimensions) or DIMENSIONS.get(request.model, 1536)
    data = []
    for index, segment in enumerate(turn.prompt.segments):
        numbers = random.Random(segment.text)  # noqa: S311
        vector = array("f", (numbers.uniform(-0.05, 0.05) for _ in range(length)))
        packed = base64.b64encode(vector.tobytes()).decode() if request.encoding_format == "base64" else list(vector)
        data.append({"object": "embedding", "index": index, "embedding": packed})
    usage = {"prompt_tokens": turn.billed.input_tokens, "total_tokens": turn.billed.input_tokens}
    return {"object": "list", "data": data, "model": turn.model, "usage": usage}


WIRE = Wire("openai_embeddings", read, bill, whole)
