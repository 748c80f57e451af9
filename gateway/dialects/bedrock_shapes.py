"""What Bedrock's two dialects share. Source: docs.aws.amazon.com/bedrock/latest/APIReference."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from gateway.call import Usage
from gateway.dialects.base import Caller, Written
from gateway.errors import Refusal
from gateway.reading import count

ERROR_TYPES = {400: "ValidationException", 401: "AccessDeniedException", 402: "ServiceQuotaExceededException",
               403: "AccessDeniedException", 404: "ResourceNotFoundException", 413: "ValidationException",
               429: "ThrottlingException", 504: "ModelTimeoutException"}  # fmt: skip
MODEL = re.compile(r"/model/([^/]+)/")


def model_of(path: str) -> str | None:
    """The model id or ARN that a path names."""
    found = MODEL.search(path)
    return unquote(found[1])[:256] if found else None


def fold_counts(usage: Usage, data: Mapping[str, Any], *, suffix: str, only_missing: bool = False) -> None:
    """Take `inputTokens…` counts, which EXCLUDE cache reads and writes; `suffix` is "s" or "Count".

    With `only_missing`, a count that the body gave already stays.
    """
    fresh, output = count(data.get(f"inputToken{suffix}")), count(data.get(f"outputToken{suffix}"))
    read = count(data.get("cacheReadInputTokens", data.get("cacheReadInputTokenCount")))
    write = count(data.get("cacheWriteInputTokens", data.get("cacheWriteInputTokenCount")))
    if fresh is not None and not (only_missing and usage.input_tokens is not None):
        usage.input_tokens = fresh + (read or 0) + (write or 0)
        usage.cache_read_input_tokens, usage.cache_write_input_tokens = read, write
    if output is not None and not (only_missing and usage.output_tokens is not None):
        usage.output_tokens = output


def refuse(refusal: Refusal, caller: Caller) -> Written:
    """The AWS SDKs raise the exception that the header names, with `message`."""
    kind = ERROR_TYPES.get(refusal.status, "ServiceUnavailableException")
    return Written(refusal.status, {"x-amzn-errortype": kind}, {"message": refusal.message})
