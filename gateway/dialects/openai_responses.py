"""OpenAI responses. Usage stands in the terminal event of a stream (`response.completed` and its kin).

Source: platform.openai.com/docs/api-reference/responses. Reading a stored response again repeats its usage and is
never billed, nor is counting its input tokens.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Ask, Excerpts, SubPass, Usage
from gateway.dialects import openai_shapes
from gateway.dialects.base import (
    NO_VALUE,
    Caller,
    Dialect,
    Ending,
    Listed,
    Stated,
    Written,
    add_subpasses,
    add_units,
    ends_with,
    entries,
    has_hosted,
    last_wins,
    maximum,
    read_request,
    read_stating,
    refers,
    route,
)
from gateway.dialects.openai_shapes import SESSION_KEYS, fold_usage, named, reroute, ticket_in, usage_of
from gateway.edits import capped
from gateway.errors import OF_BUDGETS, Refusal
from gateway.framing import Event
from gateway.reading import child, count, items, largest, text, value_of

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


OUTPUT_TOKENS_MIN = 16
FIELD_MAX = 1000
"""A header field holds so much of a message."""
BILLED_TOOLS = {
    "file_search_call": "file_searches",
    "image_generation_call": "images",
    "code_interpreter_call": "code_interpreter_calls",
}
"""Items of an answer, and the units that they are billed by."""
DEFAULT_IMAGE_MODEL = "gpt-image-1"
"""Of the image generation tool, where the request names none."""


class _Request(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_output_tokens: Stated | None = None
    service_tier: Any = None
    input: Listed = None
    tools: list[msgspec.Raw] | None = None
    metadata: Any = None
    client_metadata: msgspec.Raw = NO_VALUE
    instructions: msgspec.Raw = NO_VALUE
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    background: Any = None


def read_ask(path: str, body: bytes) -> Ask:
    request, stated = read_stating(body, _Request)
    messages = entries(request.input)
    return Ask(
        model=text(request.model),
        stream=bool(request.stream),
        max_output_tokens=maximum(stated, request.max_output_tokens),
        service_tier=text(request.service_tier),
        message_count=1 if messages is None else len(messages),
        tool_count=None if request.tools is None else len(request.tools),
        session_id=named(value_of(request.client_metadata), SESSION_KEYS) or named(request.metadata, SESSION_KEYS),
        ticket=ticket_in(request.metadata),
        excerpts=Excerpts(messages or (), request.instructions, request.client_metadata),
        output_tokens_min=OUTPUT_TOKENS_MIN,
        is_tied=bool(request.background or request.previous_response_id or request.conversation),
        refers=bool(request.previous_response_id or request.conversation or request.prompt)
        or has_hosted(request.tools, b'"function"')
        or refers(body, b'"input_image"', b'"input_file"', b'"item_reference"'),
    )


def clamp(path: str, provider: str, body: bytes, tokens: int) -> bytes | None:
    """ChatGPT's own server rejects the field, and compacting knows none."""
    return None if "/codex/" in path or ends_with(path, "/compact") else capped(body, tokens, ("max_output_tokens",))


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    kind = text(data.get("type")) or ""
    response = child(data, "response") if kind.startswith("response.") else data
    if kind == "error" or child(response, "error"):
        error = child(response, "error") or data
        answer.error = text(error.get("code")) or text(error.get("type")) or "error"
    answer.response_model = text(response.get("model")) or answer.response_model
    answer.upstream_id = text(response.get("id")) or answer.upstream_id
    answer.service_tier = text(response.get("service_tier")) or answer.service_tier
    status = text(response.get("status"))
    if status not in (None, "queued", "in_progress"):
        answer.finish_reason = text(child(response, "incomplete_details").get("reason")) or status
    fold_usage(answer, child(response, "usage"), provider, "input_tokens", "output_tokens")
    _fold_tools(answer, response, provider)
    answer.finished = answer.finished or kind in TERMINAL
    if status is not None:
        # Its usage comes to whoever reads the response again.
        answer.pending = response.get("background") is True and not child(response, "usage")


def _fold_tools(answer: Answer, response: Mapping[str, Any], provider: str) -> None:
    """What stands beside `usage`: the image tool's tokens, at its own model's rate, and tools billed per use."""
    usage, used = child(response.get("tool_usage")), [child(item) for item in items(response.get("output"))]
    searches = child(usage.get("web_search")).get("num_requests")
    if searches is None and answer.usage.web_search_requests is None:
        searches = sum([_is_search(item) for item in used]) or None  # older answers
    last_wins(answer.usage, "web_search_requests", searches)
    kinds = [item.get("type") for item in used]
    if answer.provider_cost_nano is None:  # else the provider counts them itself
        for kind, unit in BILLED_TOOLS.items():
            if kind in kinds:
                add_units(answer.usage, **{unit: kinds.count(kind)})
    if not (of_images := child(usage.get("image_gen"))):
        return
    images = Answer()
    fold_usage(images, of_images, provider, "input_tokens", "output_tokens")
    if images.usage.input_tokens or images.usage.output_tokens:
        tools = [child(tool) for tool in items(response.get("tools"))]
        model = next((text(tool.get("model")) for tool in tools if tool.get("type") == "image_generation"), None)
        add_subpasses(answer, [SubPass(model or DEFAULT_IMAGE_MODEL, images.usage)])


def _is_search(item: Mapping[str, Any]) -> bool:
    """`open_page` and `find_in_page` are steps of a search that is already billed."""
    return item.get("type") == "web_search_call" and child(item, "action").get("type", "search") == "search"


class _Part(msgspec.Struct):
    """A part of a message that is being written."""

    kind: str
    said: list[str] = []
    annotations: list[Any] = []
    closed: Mapping[str, Any] | None = None
    is_said: bool = False

    def written(self) -> dict[str, Any]:
        if self.closed is not None:
            return dict(self.closed)
        said = "".join(self.said)
        if self.kind == "refusal":
            return {"type": self.kind, self.kind: said}
        return {"type": self.kind, "annotations": self.annotations, "logprobs": [], "text": said}


class _Message(msgspec.Struct):
    item: Mapping[str, Any]
    parts: dict[int, _Part] = {}


class ResponseEnding:
    """Ends the messages that are being written, then the response.

    Other items that are under way, tool calls and reasoning, are left out: a tool would run half a command, or send
    back reasoning that the provider does not know.
    """

    def __init__(self) -> None:
        self._response: Mapping[str, Any] = {}
        self._sequence: int | None = None
        self._output: dict[int, Mapping[str, Any]] = {}
        self._open: dict[int, _Message] = {}
        self._has_ended = False

    def see(self, event: Mapping[str, Any]) -> None:
        kind = text(event.get("type")) or ""
        self._has_ended = self._has_ended or kind in TERMINAL
        self._response = child(event, "response") or self._response
        self._sequence = largest(event.get("sequence_number"), self._sequence)
        at, item = count(event.get("output_index")), child(event, "item")
        if at is None:
            return
        if kind == "response.output_item.done":
            self._output[at] = item
            self._open.pop(at, None)
        elif kind == "response.output_item.added" and item.get("type") == "message":
            self._open[at] = _Message(item)
        elif at in self._open:
            self._see_part(self._open[at].parts, kind.removeprefix("response."), event)

    def _see_part(self, parts: dict[int, _Part], kind: str, event: Mapping[str, Any]) -> None:
        given = child(event, "part")
        named = text(given.get("type")) or kind.partition(".")[0]
        part = parts.setdefault(count(event.get("content_index")) or 0, _Part(named))
        match kind:
            case "output_text.delta" | "refusal.delta":
                part.said.append(text(event.get("delta"), DELTA_MAX) or "")
            case "output_text.done" | "refusal.done":
                part.is_said = True
            case "output_text.annotation.added":
                part.annotations.append(event.get("annotation"))
            case "content_part.done":
                part.closed = given

    def events(self, usage: Usage) -> list[Event] | None:
        if not self._response:
            return None
        if self._has_ended:
            return []
        ends: list[dict[str, Any]] = []
        output = dict(self._output)
        for at, message in sorted(self._open.items()):
            for index, part in sorted(message.parts.items()):
                ends += self._ends_of(
                    part, {"item_id": message.item.get("id"), "output_index": at, "content_index": index}
                )
            content = [part.written() for _, part in sorted(message.parts.items())]
            output[at] = {**message.item, "status": "incomplete", "content": content}
            ends.append({"type": "response.output_item.done", "output_index": at, "item": output[at]})
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [item for _, item in sorted(output.items())],
            "usage": usage_of(usage, "input_tokens", "output_tokens"),
        }
        ends.append({"type": "response.incomplete", "response": response})
        if self._sequence is not None:
            ends = [{**end, "sequence_number": self._sequence + 1 + number} for number, end in enumerate(ends)]
        return [Event(end["type"], msgspec.json.encode(end)) for end in ends]

    @staticmethod
    def _ends_of(part: _Part, where: dict[str, Any]) -> Iterator[dict[str, Any]]:
        written = part.written()
        if part.closed is None and not part.is_said:
            said = {name: value for name, value in written.items() if name in ("text", "refusal", "logprobs")}
            yield {"type": f"response.{part.kind}.done", **where, **said}
        if part.closed is None:
            yield {"type": "response.content_part.done", **where, "part": written}


DELTA_MAX = 2**24


def ending(path: str, body: bytes) -> Ending | None:
    """Work in the background goes on when its stream is cut."""
    return None if read_request(body, _Background).background is True else ResponseEnding()


class _Background(msgspec.Struct):
    background: Any = None


def refuse(refusal: Refusal, caller: Caller) -> Written:
    """Codex stops at once, with a readable sentence, only at the answer that says that a plan is used up."""
    if refusal.code not in OF_BUDGETS or caller.client != "codex":
        return openai_shapes.refuse(refusal, caller)
    error = {"type": "usage_limit_reached", "message": refusal.message}
    resets = {} if refusal.resets_at is None else {"resets_at": refusal.resets_at}
    return Written(429, {"x-codex-promo-message": _field_value(refusal.message)}, {"error": error | resets})


def _field_value(message: str) -> str:
    """What a header field can carry, and Codex reads: one line of ASCII."""
    plain = unicodedata.normalize("NFKD", " ".join(message.split())).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain if letter.isprintable())[:FIELD_MAX]


DIALECT = Dialect(
    name="openai_responses",
    routes=(
        route("POST", r"/responses(/compact)?$", "chat"),
        route("POST", r"/responses/input_tokens$", None),
        route("POST", r"/responses/[^/]+/cancel$", None, settles=True),
        route("GET", r"/responses/[^/]+$", None, settles=True),
        route("GET", r"/responses(/[^/]+/input_items)?$", None),
        route("DELETE", r"/responses/[^/]+$", None),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed|cancelled|queued)|error)"'),
    fold=fold,
    refuse=refuse,
    clamp=clamp,
    reroute=reroute,
    ending=ending,
)
