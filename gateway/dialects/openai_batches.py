"""Batches, files and stores as OpenAI, xAI and Mistral have them. Nothing here is billed by itself: the results are,
when they are read (see `gateway/batches.py`).

Source: platform.openai.com/docs/api-reference/batch and …/files.
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, route
from gateway.dialects.openai_shapes import refuse


def read_ask(path: str, body: bytes) -> Ask:
    return Ask()


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    """Results are folded by the dialect of each."""


STORES = r"/v1/(vector_stores|containers|uploads)(/[^/]+)*$"

DIALECT = Dialect(
    name="openai_batches",
    routes=(
        route("POST", r"/(v1|openai)/batches(/[^/]+/requests)?$", None, starts=True),
        route("POST", r"/(v1|openai)/batches/[^/]+/cancel$", None),
        route("GET", r"/(v1|openai)/batches(/[^/]+(/results|/requests)?)?$", None, settles=True),
        route("POST", r"/batch/jobs$", None, starts=True),
        route("POST", r"/batch/jobs/[^/]+/cancel$", None),
        route("GET", r"/batch/jobs(/[^/]+)?$", None, settles=True),
        route("GET", r"/files/[^/]+/content$", None, settles=True),
        route("GET", r"/files(/[^/]+(/url)?)?$", None),
        route("POST", r"/files$", None),
        route("DELETE", r"/files/[^/]+$", None),
        *(route(method, STORES, None) for method in ("GET", "POST", "DELETE")),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb"(?!)"),
    fold=fold,
    refuse=refuse,
)
