"""Mistral OCR: billed by the page. Source: docs.mistral.ai/api/#tag/ocr."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask
from gateway.dialects.base import Dialect, add_units, read_request, route
from gateway.dialects.openai_shapes import fold_error, refuse
from gateway.reading import child, text


class _Request(msgspec.Struct):
    model: str | None = None


def read_ask(path: str, body: bytes) -> Ask:
    return Ask(model=text(read_request(body, _Request).model))


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    answer.response_model = text(data.get("model")) or answer.response_model
    annotated = data.get("document_annotation") is not None
    pages = child(data, "usage_info").get("pages_processed")
    add_units(answer.usage, **{"annotated_pages" if annotated else "pages": pages})
    fold_error(answer, data)


DIALECT = Dialect(
    name="mistral_ocr",
    routes=(route("POST", r"/v1/ocr$", "ocr"),),
    read_ask=read_ask,
    may_matter=re.compile(rb'"usage_info"\s*:'),
    fold=fold,
    refuse=refuse,
)
