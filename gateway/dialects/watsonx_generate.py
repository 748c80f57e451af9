"""IBM watsonx text generation. A stream states the input on its first event alone, as 0 on later ones, and the output
so far on each.

Source: cloud.ibm.com/apidocs/watsonx-ai.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask, Usage
from gateway.dialects.base import Dialect, Ending, Stated, ends_with, maximum, read_stating, renamed_model, route
from gateway.dialects.openai_shapes import refuse
from gateway.edits import capped
from gateway.framing import Event
from gateway.reading import child, items, largest, text


class _Parameters(msgspec.Struct):
    max_new_tokens: Stated | None = None


class _Request(msgspec.Struct):
    model_id: str | None = None
    parameters: _Parameters | None = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    parameters = request.parameters or _Parameters()
    return Ask(
        model=text(request.model_id),
        stream=path.endswith("_stream"),
        max_output_tokens=maximum(stated, parameters.max_new_tokens),
    )


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    return None if ends_with(path, "/embeddings") else capped(body, tokens, ("parameters",), ("max_new_tokens",))


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    return None if ends_with(path, "/embeddings") else renamed_model(path, body, model, field="model_id")


class ResultEnding:
    """One last event, with the reason and the output's count."""

    def __init__(self) -> None:
        self._last: Mapping[str, Any] = {}
        self._has_ended = False

    def see(self, event: Mapping[str, Any]) -> None:
        results = items(event.get("results"))
        self._last = event if results else self._last
        reasons = [child(one).get("stop_reason") for one in results]
        self._has_ended = self._has_ended or any(reason not in (None, "not_finished") for reason in reasons)

    def events(self, usage: Usage) -> list[Event] | None:
        if not self._last:
            return None
        result = {
            "generated_text": "",
            "generated_token_count": usage.output_tokens or 0,
            "input_token_count": 0,
            "stop_reason": "max_tokens",
        }
        return [] if self._has_ended else [Event("message", msgspec.json.encode({**self._last, "results": [result]}))]


def ending(path: str, body: bytes) -> Ending | None:
    return ResultEnding()


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
    may_matter=re.compile(rb'"(?:results|errors)"\s*:'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
