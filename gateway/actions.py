"""Tool calls, in requests and in answers, whatever the dialect: found by the names that the wire formats give them.

Sources: the tool use pages of Anthropic (messages), OpenAI (chat completions, responses), Google (generateContent), AWS
(Converse), Cohere (v2 chat) and Ollama (chat).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway.reading import child, items, names, text

MARK = re.compile(rb'"(?:name"\s*:\s*"|type"\s*:\s*"(?:local_shell|computer|apply_patch|shell)_call")')
"""A piece of JSON in which this is not found has no tool call."""
MARKS = (b'"name"', b'_call"')
"""Where it is found, one of these is: a quick look before the search of many events."""
ITEMS = names(
    "tool_use server_tool_use mcp_tool_use function_call custom_tool_call local_shell_call shell_call computer_call "
    "apply_patch_call mcp_call"
)
"""Types of the parts of an answer that are tool calls."""
NESTED = (("function", "arguments"), ("functionCall", "args"), ("toolUse", "input"), ("function_call", "arguments"))
"""Fields that hold one, and that of its arguments."""
RESULT_ITEMS = {
    "tool_result": ("tool_use_id", "content"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call_output": ("call_id", "output"),
    "local_shell_call_output": ("call_id", "output"),
    "computer_call_output": ("call_id", "output"),
    "shell_call_output": ("call_id", "output"),
    "apply_patch_call_output": ("call_id", "output"),
}
"""Types of the parts of a request that are results, and their fields for the call and for what came of it."""
CLOSED = frozenset(
    {"tools", "tool_choice", "usage", "input", "arguments", "args", "parameters", "metadata", "logprobs"}
)
"""What stands in these is no part of the conversation."""
DEPTH_MAX = 12

EDITORS = names(
    """
    apply_diff apply_patch apply_patch_call create_file edit edit_file insert_edit_into_file multi_edit multiedit
    notebookedit patch replace replace_in_file search_replace str_replace_based_edit_tool str_replace_editor write
    write_file write_to_file
    """
)
"""Tools of Claude Code, Codex, Gemini CLI, opencode and other agents that edit files; in lower case."""
SHELLS = names("bash container.exec exec_command local_shell local_shell_call shell shell_call")
"""Tools that edit files when they apply a patch; what else they do to files is not looked into."""
KNOWS_EDITORS = frozenset({"claude-code", "codex", "gemini-cli", "opencode"})
"""Clients whose other tools edit nothing."""
WRITES_ITSELF = "aider"
"""A client that edits files as the text of the answer says, without tools."""


class Called(NamedTuple):
    """A tool call."""

    id: str | None
    name: str
    arguments: Any = None


class Result(NamedTuple):
    """What came of a tool call."""

    of: str | None
    """The call's id, or the tool's name where the dialect has no ids."""
    content: Any


def calls_in(value: Any, depth: int = DEPTH_MAX) -> Iterator[Called]:
    """The tool calls in decoded JSON: an answer, an event of one, a message."""
    if isinstance(value, list) and depth:
        for each in value if value and isinstance(value[0], dict) else ():
            yield from calls_in(each, depth - 1)
    elif isinstance(value, dict) and depth:
        if (called := _call(value)) is not None:
            yield called
            return
        for name, inner in value.items():
            if name not in CLOSED and isinstance(inner, list | dict):
                yield from calls_in(inner, depth - 1)


def _call(part: Mapping[str, Any]) -> Called | None:
    kind = part.get("type")
    if isinstance(kind, str) and kind in ITEMS:
        arguments = part.get("arguments", part.get("input", part.get("action")))
        return Called(text(part.get("call_id")) or text(part.get("id")), text(part.get("name")) or kind, arguments)
    for field, of_arguments in NESTED:
        inner = part.get(field)
        if isinstance(inner, dict) and (name := text(inner.get("name"))):
            found = text(inner.get("id")) or text(inner.get("toolUseId")) or text(part.get("id"))
            if found is None and isinstance(index := part.get("index"), int):
                found = f"#{index}"  # the name of one call may come with each piece of it
            return Called(found, name, inner.get(of_arguments))
    return None


def last_result(message: Any) -> Result | None:
    """The last result of a tool in a message of a request."""
    if not isinstance(message, dict):
        return None
    content, is_tool = message.get("content"), message.get("role") == "tool"
    if is_tool and not isinstance(content, list):
        return Result(text(message.get("tool_call_id")) or text(message.get("tool_name")), content)
    if (found := _result(message)) is not None:
        return found
    for part in reversed(items(content) or items(message.get("parts"))):
        if isinstance(part, dict) and (found := _result(part)) is not None:
            return found
    return Result(text(message.get("tool_call_id")), content) if is_tool else None


def _result(part: Mapping[str, Any]) -> Result | None:
    kind = part.get("type")
    if isinstance(kind, str) and kind in RESULT_ITEMS:
        of, content = RESULT_ITEMS[kind]
        return Result(text(part.get(of)), part.get(content))
    if "functionResponse" in part and (response := child(part, "functionResponse")):
        return Result(text(response.get("id")) or text(response.get("name")), response.get("response"))
    if "toolResult" in part and (result := child(part, "toolResult")):
        return Result(text(result.get("toolUseId")), result.get("content"))
    return None


def call_of(result: Result, message: Any) -> Called | None:
    """The call that a result came of, if it is in this message."""
    found = [called for called in calls_in(message) if result.of in (called.id, called.name)]
    return found[-1] if found else None


def note(tools: dict[str, bool | None], value: Any) -> None:
    """Take the tool calls of an answer, or of an event of its stream, into `tools`: by id, whether each edits files."""
    for called in calls_in(value):
        key = called.id or f"#{len(tools)}"
        tools[key] = tools.get(key) or _edits(called)


def _edits(called: Called) -> bool | None:
    name = called.name.lower()
    if name in EDITORS:
        return True
    if name in SHELLS:
        return "apply_patch" in str(called.arguments)
    return None


def counted(tools: Mapping[str, bool | None], client: str | None) -> tuple[int, int | None]:
    """How many tool calls there were, and how many of them edit files; `None` = nobody knows."""
    if not tools and client != WRITES_ITSELF:
        return 0, 0
    edits = sum(1 for each in tools.values() if each)
    if client == WRITES_ITSELF or (not edits and client not in KNOWS_EDITORS and None in tools.values()):
        return len(tools), None
    return len(tools), edits
