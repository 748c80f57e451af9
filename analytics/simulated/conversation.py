"""A conversation as a tool keeps it, and how each API wants it told: rendered into a request, heard from an answer.

The client's side of the wire formats. It shares nothing with the providers' side, as the real tools do not either.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A tool call that the model asked for."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Human:
    text: str


@dataclass(frozen=True)
class Model:
    text: str
    call: Call | None = None


@dataclass(frozen=True)
class Result:
    """What a tool call brought."""

    call: Call
    text: str


Entry = Human | Model | Result
History = Sequence[Entry]


class BrokenOff(Exception):  # noqa: N818 - names an event
    """The answer holds an error, or ends without its last event."""


@dataclass(frozen=True)
class Function:
    """A tool that the model is offered."""

    name: str
    description: str
    schema: Json


@dataclass(frozen=True)
class Api:
    """How one API wants a conversation told and is heard."""

    tell: Callable[[History], list[Json]]
    offer: Callable[[Iterable[Function]], list[Json]]
    hear: Callable[[Sequence[Json]], Model]
    """The JSON of the events of a stream, or of one whole answer. Raises `BrokenOff`."""


# -- OpenAI chat ------------------------------------------------------------------------------------------------------


def _tell_chat(history: History) -> list[Json]:
    told: list[Json] = []
    for entry in history:
        match entry:
            case Human(text):
                told.append({"role": "user", "content": text})
            case Model(text, None):
                told.append({"role": "assistant", "content": text})
            case Model(text, Call(id, name, arguments)):
                call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
                told.append({"role": "assistant", "content": text, "tool_calls": [call]})
            case Result(call, text):
                told.append({"role": "tool", "tool_call_id": call.id, "content": text})
    return told


def _offer_chat(functions: Iterable[Function]) -> list[Json]:
    return [
        {"type": "function", "function": {"name": f.name, "description": f.description, "parameters": f.schema}}
        for f in functions
    ]


def _hear_chat(events: Sequence[Json]) -> Model:
    text, call_id, name, arguments, finished = "", "", "", "", False
    for event in events:
        if "error" in event:
            raise BrokenOff
        for choice in event.get("choices", []):
            part = choice.get("delta") or choice.get("message") or {}
            text += part.get("content") or ""
            for call in part.get("tool_calls") or []:
                call_id, name = call.get("id") or call_id, call["function"].get("name") or name
                arguments += call["function"].get("arguments") or ""
            finished = finished or choice.get("finish_reason") is not None
    if not finished:
        raise BrokenOff
    return Model(text, Call(call_id, name, arguments) if name else None)


CHAT = Api(_tell_chat, _offer_chat, _hear_chat)


# -- OpenAI responses -------------------------------------------------------------------------------------------------


def _tell_responses(history: History) -> list[Json]:
    told: list[Json] = []
    for entry in history:
        match entry:
            case Human(text):
                told.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
            case Model(text, call):
                said = [{"type": "output_text", "text": text}]
                told.append({"type": "message", "role": "assistant", "content": said})
                if call:
                    told.append(
                        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
                    )
            case Result(call, text):
                told.append({"type": "function_call_output", "call_id": call.id, "output": text})
    return told


def _offer_responses(functions: Iterable[Function]) -> list[Json]:
    return [
        {"type": "function", "name": f.name, "description": f.description, "parameters": f.schema, "strict": False}
        for f in functions
    ]


def _hear_responses(events: Sequence[Json]) -> Model:
    last = events[-1] if events else {}
    response = last.get("response", last)
    if response.get("status") not in ("completed", "incomplete"):
        raise BrokenOff
    text, call = "", None
    for item in response["output"]:
        if item["type"] == "message":
            text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "function_call":
            call = Call(item["call_id"], item["name"], item["arguments"])
    return Model(text, call)


RESPONSES = Api(_tell_responses, _offer_responses, _hear_responses)


# -- Anthropic messages -----------------------------------------------------------------------------------------------


def _tell_messages(history: History) -> list[Json]:
    told: list[Json] = []
    for entry in history:
        match entry:
            case Human(text):
                told.append({"role": "user", "content": [{"type": "text", "text": text}]})
            case Model(text, call):
                content: list[Json] = [{"type": "text", "text": text or "…"}]
                if call:
                    given = json.loads(call.arguments or "{}")
                    content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
                told.append({"role": "assistant", "content": content})
            case Result(call, text):
                result = {"type": "tool_result", "tool_use_id": call.id, "content": text}
                told.append({"role": "user", "content": [result]})
    return told


def _offer_messages(functions: Iterable[Function]) -> list[Json]:
    return [{"name": f.name, "description": f.description, "input_schema": f.schema} for f in functions]


def _hear_messages(events: Sequence[Json]) -> Model:
    if not events or events[-1]["type"] not in ("message_stop", "message"):
        raise BrokenOff
    text, call_id, name, arguments = "", "", "", ""
    for event in events:
        for block in event.get("content", []) or [event.get("content_block") or {}]:
            text += block.get("text", "")
            if block.get("type") == "tool_use":
                call_id, name = block["id"], block["name"]
                arguments = json.dumps(block["input"]) if block["input"] else ""
        delta = event.get("delta", {})
        text += delta.get("text", "")
        arguments += delta.get("partial_json", "")
    return Model(text, Call(call_id, name, arguments) if name else None)


MESSAGES = Api(_tell_messages, _offer_messages, _hear_messages)


# -- Gemini -----------------------------------------------------------------------------------------------------------


def _tell_gemini(history: History) -> list[Json]:
    told: list[Json] = []
    for entry in history:
        match entry:
            case Human(text):
                told.append({"role": "user", "parts": [{"text": text}]})
            case Model(text, call):
                parts: list[Json] = [{"text": text}]
                if call:
                    parts.append({"functionCall": {"name": call.name, "args": json.loads(call.arguments)}})
                told.append({"role": "model", "parts": parts})
            case Result(call, text):
                response = {"name": call.name, "response": {"output": text}}
                told.append({"role": "user", "parts": [{"functionResponse": response}]})
    return told


def _offer_gemini(functions: Iterable[Function]) -> list[Json]:
    declared = [{"name": f.name, "description": f.description, "parametersJsonSchema": f.schema} for f in functions]
    return [{"functionDeclarations": declared}]


def _hear_gemini(events: Sequence[Json]) -> Model:
    text, call, finished = "", None, False
    for event in events:
        if "error" in event:
            raise BrokenOff
        for candidate in event.get("candidates", []):
            for part in candidate["content"].get("parts", []):
                text += part.get("text", "")
                if asked := part.get("functionCall"):
                    call = Call(asked.get("id", ""), asked["name"], json.dumps(asked["args"]))
            finished = finished or "finishReason" in candidate
    if not finished:
        raise BrokenOff
    return Model(text, call)


GEMINI = Api(_tell_gemini, _offer_gemini, _hear_gemini)


def server_sent(line: str) -> Mapping[str, Any] | None:
    """The JSON of one line of a stream of server-sent events; `None` for lines without any."""
    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
    return json.loads(data) if data and data != "[DONE]" else None
