"""Films: billed by the second, made in the background. xAI says what one cost when it is read; others say nothing.

Source: platform.openai.com/docs/api-reference/videos, docs.x.ai/docs/guides/video-generations.
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, read_form, route
from gateway.dialects.openai_shapes import fold_error, fold_usage, refuse
from gateway.reading import child, text, whole_number


def read_ask(path: str, body: bytes) -> Ask:
    form = read_form(body)
    seconds = whole_number(form.get("seconds")) or whole_number(form.get("duration"))
    return Ask(model=text(form.get("model")), units={"video_seconds": float(seconds)} if seconds else {})


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    answer.upstream_id = text(data.get("id")) or text(data.get("request_id")) or answer.upstream_id
    answer.finish_reason = text(data.get("status")) or answer.finish_reason
    fold_usage(answer, child(data, "usage"), provider, "input_tokens", "output_tokens")
    if seconds := whole_number(child(data, "video").get("duration")) or whole_number(data.get("seconds")):
        answer.units = {"video_seconds": float(seconds)}
    fold_error(answer, data)
    answer.pending = "request_id" in data


DIALECT = Dialect(
    name="openai_videos",
    routes=(
        route("POST", r"/videos(/generations|/edits|/extensions|/[^/]+/remix)?$", "video_generation"),
        route("GET", r"/videos/[^/]+$", None, settles=True),
        route("GET", r"/videos(/[^/]+/content)?$", None),
        route("DELETE", r"/videos/[^/]+$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"(?:usage|status|error)"\s*:'),
    fold=fold,
    refuse=refuse,
)
