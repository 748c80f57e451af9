"""What Bedrock's two dialects share. Source: docs.aws.amazon.com/bedrock/latest/APIReference."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.call import Usage
from gateway.dialects.base import Caller, Written, renamed_model
from gateway.errors import Refusal
from gateway.framing import Event
from gateway.reading import child, count

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


def reroute(path: str, body: bytes, model: str) -> tuple[str, bytes] | None:
    """Bedrock names the model in the path alone."""
    return renamed_model(path, body, model, in_path=MODEL)


class ConverseEnding:
    """Ends the content blocks that are open, then the message, then states the usage.

    `carried`: as the events of a vendor inside of Bedrock's own, as Nova's are.
    """

    def __init__(self, *, carried: bool = False) -> None:
        self._carried = carried
        self._open: list[int] = []
        self._seen: set[str] = set()

    def see(self, event: Mapping[str, Any]) -> None:
        self._seen |= MARKS & event.keys()
        for name in ("contentBlockStart", "contentBlockDelta"):
            if name in event and (index := count(child(event, name).get("contentBlockIndex")) or 0) not in self._open:
                self._open.append(index)
        if "contentBlockStop" in event:
            stopped = count(child(event, "contentBlockStop").get("contentBlockIndex")) or 0
            self._open = [index for index in self._open if index != stopped]

    def events(self, usage: Usage) -> list[Event] | None:
        if "messageStart" not in self._seen:
            return None
        ends: list[tuple[str, Any]] = [("contentBlockStop", {"contentBlockIndex": index}) for index in self._open]
        if "messageStop" not in self._seen:
            ends.append(("messageStop", {"stopReason": "max_tokens"}))
        if "metadata" not in self._seen:
            ends.append(("metadata", {"usage": counts_of(usage), "metrics": {"latencyMs": 0}}))
        if self._carried:
            return [Event("chunk", msgspec.json.encode({name: data})) for name, data in ends]
        return [Event(name, msgspec.json.encode(data)) for name, data in ends]


MARKS = {"messageStart", "messageStop", "metadata"}


def counts_of(usage: Usage) -> dict[str, int]:
    """The counts that `fold_counts` reads."""
    read, write = usage.cache_read_input_tokens or 0, usage.cache_write_input_tokens or 0
    given, output = usage.input_tokens or 0, usage.output_tokens or 0
    cached = {"cacheReadInputTokens": read, "cacheWriteInputTokens": write} if read or write else {}
    return {"inputTokens": given - read - write, "outputTokens": output, "totalTokens": given + output, **cached}


def refuse(refusal: Refusal, caller: Caller) -> Written:
    """The AWS SDKs raise the exception that the header names, with `message`."""
    kind = ERROR_TYPES.get(refusal.status, "ServiceUnavailableException")
    return Written(refusal.status, {"x-amzn-errortype": kind}, {"message": refusal.message})
