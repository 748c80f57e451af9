"""OpenAI images: tokens where the model counts them, else the number of images. Streams end with a `completed` event.

Source: platform.openai.com/docs/api-reference/images.
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, ends_with, read_form, route
from gateway.dialects.openai_shapes import azure_deployment, fold_error, fold_usage, refuse
from gateway.reading import child, items, text, whole_number


def read_ask(path: str, body: bytes) -> Ask:
    form = read_form(body)
    return Ask(
        model=azure_deployment(path) or text(form.get("model")) or DEFAULT_MODEL,
        stream=form.get("stream") in (True, "true"),
        units={"images": float(whole_number(form.get("n")) or 1)},
        refers=ends_with(path, "/edits", "/variations"),
    )


DEFAULT_MODEL = "dall-e-2"
"""What OpenAI takes where the request names none."""


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    fold_usage(answer, child(data, "usage"), provider, "input_tokens", "output_tokens")
    if "prompt_tokens" in child(data, "usage"):  # OpenRouter
        fold_usage(answer, child(data, "usage"), provider, "prompt_tokens", "completion_tokens")
    if images := items(data.get("data")):
        answer.units = {"images": float(len(images))}
    fold_error(answer, data)
    if (text(data.get("type")) or "").endswith(".completed"):
        answer.finish_reason = "completed"  # of one picture; others may follow


DIALECT = Dialect(
    name="openai_images",
    routes=(route("POST", r"/images(/generations|/edits|/variations)?$", "image_generation"),),
    read_ask=read_ask,
    may_matter=re.compile(rb'"type"\s*:\s*"image_\w+\.completed"|"error"\s*:'),
    fold=fold,
    refuse=refuse,
)
