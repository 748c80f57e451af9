"""What a client's own requests tell: its name, version, session, the kind of agent, and where it works.

Measured on the real tools, whose requests are replayed in tests/test_clients.py. Only the places named here are read,
each bounded, and no prompt is searched for anything: what a person or a tool wrote is no evidence.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from gateway.call import Agent, Ask, Client
from gateway.reading import child, items, text, value_of
from gateway.repositories import branch_name, repo_name

Headers = Mapping[str, str]
Hash = Callable[[str], str]
"""A keyed hash: the same text gives the same identifier, which tells nothing about the text."""

USER_AGENTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("claude-code", re.compile(r"claude-cli/([\w.-]+)")),
    ("codex", re.compile(r"codex[\w-]*/([\w.-]+)")),
    ("gemini-cli", re.compile(r"GeminiCLI[\w-]*/([\w.-]+)")),
    ("opencode", re.compile(r"opencode/([\w.-]+)")),
    ("litellm", re.compile(r"litellm/([\w.-]+)")),
    ("openai-python", re.compile(r"(?:Async)?OpenAI/Python ([\w.-]+)")),
    ("openai-js", re.compile(r"(?:Async)?OpenAI/JS ([\w.-]+)")),
    ("anthropic-python", re.compile(r"(?:Async)?Anthropic/Python ([\w.-]+)")),
    ("anthropic-js", re.compile(r"(?:Async)?Anthropic/JS ([\w.-]+)")),
    ("google-genai", re.compile(r"google-genai-sdk/([\w.-]+)")),
    ("ai-sdk", re.compile(r"\bai(?:-sdk)?/([\w.-]+)")),
    ("boto3", re.compile(r"Boto3/([\w.-]+)")),
    ("curl", re.compile(r"curl/([\w.-]+)")),
)
SESSION_HEADERS = ("x-claude-code-session-id", "x-session-id", "session-id", "session_id", "conversation_id")
REQUEST_CLASSES: dict[str, Agent] = {
    "main": "main",
    "subagent": "subagent",
    "workflow": "subagent",
    "compaction": "compaction",
    "auxiliary": "side",
    "side_reply": "side",
}
SYSTEM_MAX = 2**18
"""A longer part of a request is not looked into, bytes."""
FOLDER_MAX = 1024
TEXTS_MAX, DEPTH_MAX = 100, 6
"""Of a message's texts."""

IDENTIFIER_MAX = 128
"""A longer identifier is none: cut, two could be one."""

REMINDER = "<system-reminder>\n"
CLAUDE_STATUS = "\n# gitStatus\n"
CLAUDE_STATUS_ONCE = "\ngitStatus: This is the git status at the start of the conversation."
CURRENT_BRANCH = "\nCurrent branch: "
CLAUDE_FOLDERS = ("\n - Primary working directory: ", "\nWorking directory: ")
CLAUDE_COMPACTS = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools."
OPENCODE_FOLDER = "<env>\n  Working directory: "
OPENCODE_TITLES = "You are a title generator."
GEMINI_CONTEXT = "<session_context>\nThis is the Gemini CLI."
GEMINI_FOLDER = "\n- **Workspace Directories:**\n  - "
AIDER_OPENINGS = (
    "Act as an expert software developer",
    "Act as an expert code analyst.",
    "Act as an expert architect engineer",
)
AIDER_COMMITS = "You are an expert software engineer that generates concise, one-line Git commit messages"
AIDER_SUMMARIZES = "*Briefly* summarize this partial conversation about programming."

OPENING_BYTES = 1024
"""In so many of a message's first bytes its text begins."""
AIDER_MARK = re.compile("|".join(map(re.escape, (*AIDER_OPENINGS, AIDER_COMMITS, AIDER_SUMMARIZES))).encode())


def recognise(headers: Headers) -> Client:
    """The client behind a request (header names in lower case), as far as its header fields tell."""
    name, version = _tool(headers.get("user-agent", "")[:512])
    named = [name for name in SESSION_HEADERS if name in headers]
    session_id = next((found for name in named if (found := _identifier(headers[name]))), None)
    if name is not None:
        return Client(name, version, session_id=session_id)
    is_codex = headers.get("originator", "").lower().startswith("codex")  # "Codex Desktop", which it calls itself, too
    return Client("codex" if is_codex else None, session_id=session_id)


@lru_cache(maxsize=1024)
def _tool(agent_string: str) -> tuple[str | None, str | None]:
    """Name and version."""
    for name, pattern in USER_AGENTS:
        if version := pattern.search(agent_string):
            return name, version[1]
    return None, None


def observe(client: Client, headers: Headers, ask: Ask, keyed: Hash) -> Client:
    """The same client, with what this request's header fields and body tell. Never raises, whatever the body holds."""
    if client.session_id is None and ask.session_id is not None:
        client = msgspec.structs.replace(client, session_id=ask.session_id)
    look = OBSERVERS.get(client.name or "")
    return client if look is None else look(client, headers, ask, keyed)


# -- each client -----------------------------------------------------------------------------------------------------


def _claude_code(client: Client, headers: Headers, ask: Ask, keyed: Hash) -> Client:
    excerpts = ask.excerpts
    system = _texts(excerpts.system)
    # The state when the session began: the first block of the first message, once the end of the system prompt.
    status = [part.partition(CLAUDE_STATUS)[2] for part in _texts(*excerpts.first[:1])[:1] if part.startswith(REMINDER)]
    status += [part.partition(CLAUDE_STATUS_ONCE)[2] for part in system]
    own = [*_texts(*excerpts.first, roles=("system",)), *system]
    folder = next((found for mark in CLAUDE_FOLDERS if (found := _folder(_line_after(mark, own)))), None)
    # In auto mode it sends the present one.
    state: Mapping[str, Any] = {}
    for safeguard in items(value_of(excerpts.metadata)):
        state = child(safeguard, "classifier_context", "git_state") or state
    now = branch_name(text(state.get("branch")))
    return msgspec.structs.replace(
        client,
        agent=REQUEST_CLASSES.get(headers.get("x-claude-code-request-class", ""))
        or _claude_agent(headers, ask, system),
        conversation_id=_identifier(headers.get("x-claude-code-prompt-id")),
        repo=repo_name(text(child(state, "visibility", "origin").get("remote"))),
        branch=now or branch_name(_line_after(CURRENT_BRANCH, status)),
        is_branch_old=now is None,
        folder=_folder(text(state.get("root"), FOLDER_MAX)) or folder,
    )


def _claude_agent(headers: Headers, ask: Ask, system: list[str]) -> Agent:
    if "x-claude-code-agent-id" in headers or any("cc_is_subagent=true" in part for part in system[:1]):
        return "subagent"
    asks_title = "title" in child(value_of(ask.excerpts.output_format), "format", "schema", "properties")
    if (asks_title and not ask.tool_count) or ask.max_output_tokens == 1:
        return "side"  # names the session; looks whether a model is there
    if any(part.startswith(CLAUDE_COMPACTS) and "<summary>" in part for part in _texts(ask.excerpts.last)):
        return "compaction"
    return "main"


def _codex(client: Client, headers: Headers, ask: Ask, keyed: Hash) -> Client:
    told = child(value_of(ask.excerpts.metadata))
    turn = headers.get("x-codex-turn-metadata") or text(told.get("x-codex-turn-metadata"), SYSTEM_MAX) or ""
    metadata = child(value_of(msgspec.Raw(turn)))
    workspaces = child(metadata, "workspaces")
    folder = next(iter(workspaces), None)
    workspace = child(workspaces, folder or "")
    kind = headers.get("x-openai-subagent") or text(metadata.get("subagent_kind"))
    return msgspec.structs.replace(
        client,
        agent="compaction" if kind == "compact" else "subagent" if kind else "main",
        session_id=_identifier(metadata.get("session_id")) or client.session_id,
        repo=repo_name(text(child(workspace, "associated_remote_urls").get("origin"), 1024)),
        commit_sha=_commit(workspace.get("latest_git_commit_hash")),
        folder=_folder(folder),
    )


def _gemini_cli(client: Client, headers: Headers, ask: Ask, keyed: Hash) -> Client:
    is_side = "complexity_score" in child(value_of(ask.excerpts.output_format), "properties")
    parts = _texts(*ask.excerpts.first)[:2]
    agent: Agent = "side" if is_side else "main"
    if len(parts) < 2 or not parts[0].startswith(GEMINI_CONTEXT):
        return msgspec.structs.replace(client, agent=agent)
    # It names no session. What it says of itself, and the first prompt, stay the same through one.
    folder = _folder(_line_after(GEMINI_FOLDER, parts[:1]))
    return msgspec.structs.replace(client, agent=agent, derived_task=keyed("\n".join(parts)), folder=folder)


def _opencode(client: Client, headers: Headers, ask: Ask, keyed: Hash) -> Client:
    system = _system(ask)
    parent = _identifier(headers.get("x-parent-session-id"))
    is_side = any(part.startswith(OPENCODE_TITLES) for part in system)
    return msgspec.structs.replace(
        client,
        agent="subagent" if parent else "side" if is_side else "main",
        conversation_id=parent,
        folder=_folder(_line_after(OPENCODE_FOLDER, system)),
    )


def _sdk(client: Client, headers: Headers, ask: Ask, keyed: Hash) -> Client:
    """aider speaks through SDKs, under their name."""
    excerpts = ask.excerpts
    if AIDER_MARK.search(excerpts.system or next(iter(excerpts.first), b""), 0, OPENING_BYTES) is None:
        return client
    opening = next(iter(_system(ask)), "")
    if opening.startswith(AIDER_COMMITS):
        return msgspec.structs.replace(client, name="aider", version=None, agent="side")
    if opening.startswith(AIDER_SUMMARIZES):
        return msgspec.structs.replace(client, name="aider", version=None, agent="compaction")
    if opening.startswith(AIDER_OPENINGS):
        return msgspec.structs.replace(client, name="aider", version=None, agent="main")
    return client


OBSERVERS: Mapping[str, Callable[[Client, Headers, Ask, Hash], Client]] = {
    "claude-code": _claude_code,
    "codex": _codex,
    "gemini-cli": _gemini_cli,
    "opencode": _opencode,
    "litellm": _sdk,
    "openai-python": _sdk,
}


# -- parts of a request ----------------------------------------------------------------------------------------------


def _system(ask: Ask) -> list[str]:
    """The system prompt, wherever the dialect puts it: a field of its own, or the first message."""
    return _texts(ask.excerpts.system) or _texts(*ask.excerpts.first[:1], roles=("system", "developer"))


def _texts(*raws: msgspec.Raw, roles: tuple[str, ...] = ()) -> list[str]:
    """The texts of messages (those of some roles, if named) or of a system prompt, whatever the dialect."""
    values = [value_of(raw, SYSTEM_MAX) for raw in raws]
    wanted = [value for value in values if not roles or child(value).get("role") in roles]
    return list(islice(_strings(wanted), TEXTS_MAX))


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict) and depth < DEPTH_MAX:
        for part in value if isinstance(value, list) else map(value.get, ("text", "content", "parts")):
            yield from _strings(part, depth + 1)


def _line_after(mark: str, parts: list[str]) -> str | None:
    """The rest of the line behind the first such mark."""
    for part in parts:
        if (at := part.find(mark)) >= 0:
            return part[at + len(mark) :].partition("\n")[0]
    return None


def _identifier(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= IDENTIFIER_MAX else None


def _folder(value: str | None) -> str | None:
    return value if value and value.startswith("/") and value.isprintable() and len(value) <= FOLDER_MAX else None


COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def _commit(value: Any) -> str | None:
    return value if isinstance(value, str) and COMMIT.fullmatch(value) else None
