"""IBM watsonx text generation. A stream states the input on its first event alone, as 0 on later ones, and the output
so far on each.

Source: cloud.ibm.com/apidocs/watsonx-ai.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, read_request, route
from gateway.dialects.openai_shapes import refuse
from gateway.reading import child, count, items, largest, text


class _Parameters(msgspec.Struct):
    max_new_tokens: Any = None


class _Request(msgspec.Struct):
    model_id: str | None = None
    parameters: _Parameters | None = None


def read_ask(path: str, body: bytes) -> Ask:
    request = read_request(body, _Request)
    return Ask(
        model=text(request.model_id),
        stream=path.endswith("_stream"),
        max_output_tokens=count(request.parameters.max_new_tokens) if request.parameters else None,
    )


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model_id")) or answer.response_model
    usage = answer.usage
    usage.input_tokens = largest(data.get("input_token_count"), usage.input_tokens)  # of embeddings
    for result in (child(one) for one in items(data.get("results"))):
        usage.input_tokens = largest(result.get("input_token_count"), usage.input_tokens)
        usage.output_tokens = largest(result.get("generated_token_count"), usage.output_tokens)
        reason = text(result.get("stop_reason"))
        answer.finish_reason = answer.finish_reason if reason in (None, "not_finished") else reason
    if errors := items(data.get("errors")):
        answer.error = text(child(errors[0]).get("code")) or "error"


DIALECT = Dialect(
    name="watsonx_generate",
    routes=(
        route("POST", r"/ml/v1(-beta)?/(text/generation|generation/text)(_stream)?$", "text_completion"),
        route("POST", r"/ml/v1/text/embeddings$", "embeddings"),
        route("POST", r"/ml/v1/text/tokenization$", None),
        route("GET", r"/ml/v1/foundation_model_specs$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"results"|"errors"'),
    fold=fold,
    refuse=refuse,
)
