"""Developers' tools, as their requests look on the wire: paths, header fields, ids in the body, side calls.

Measured on the real tools; only what a gateway can tell them by is imitated. Their prompts are made up.
"""

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from analytics.simulated.conversation import CHAT, GEMINI, MESSAGES, RESPONSES, Api, Entry, Function, Human, Json
from analytics.simulated.turns import prose


@dataclass
class Session:
    """One session of one tool: a task with its conversation so far."""

    rng: random.Random
    id: str
    repo: str
    branch: str
    history: list[Entry] = field(default_factory=list)
    agent_id: str | None = None
    """Set in a subagent, which shares the session's id."""

    @classmethod
    def begin(cls, rng: random.Random, repo: str, branch: str) -> "Session":
        return cls(rng, str(uuid.UUID(int=rng.getrandbits(128), version=4)), repo, branch)

    @property
    def folder(self) -> str:
        return "/home/dev/" + self.repo.rpartition("/")[2]


@dataclass(frozen=True)
class Request:
    """What a tool sends."""

    path: str
    """Below the gateway's base URL."""
    body: Json
    headers: dict[str, str]
    billed: bool = True


@dataclass(frozen=True)
class Tool:
    """A developer's tool."""

    name: str
    api: Api
    key_header: str
    render: Callable[[Session], Request]
    """The next request of the conversation."""
    aside: Callable[[Session], Iterator[Request]] = lambda session: iter(())
    """What it asks besides, when a session begins: a title, a token count, which model to take."""
    spawns: bool = False
    """It hands parts of the work to subagents."""


def _functions(count: int, words: int) -> tuple[Function, ...]:
    """The first `count` of a coding agent's functions, each described in about `words` tokens."""
    text, number = {"type": "string"}, {"type": "integer"}
    fields: dict[str, Json] = {
        "read_file": {"path": text, "offset": number, "limit": number},
        "edit_file": {"path": text, "old": text, "new": text},
        "run_command": {"command": text, "timeout_ms": number},
        "search": {"pattern": text, "path": text},
        "list_files": {"path": text},
        "write_file": {"path": text, "content": text},
        "fetch": {"url": text},
        "todo": {"items": {"type": "array", "items": text}},
    }
    return tuple(
        Function(
            name,
            prose(random.Random(name), words),  # noqa: S311
            {"type": "object", "properties": properties, "required": list(properties)},
        )
        for name, properties in list(fields.items())[:count]
    )


def _system(name: str, length: int) -> str:
    """A tool's system prompt: the same in every session, so that it can be cached."""
    return f"You are {name}, a coding agent. " + prose(random.Random(name), length)  # noqa: S311


# -- Claude Code ------------------------------------------------------------------------------------------------------

CLAUDE_FUNCTIONS = MESSAGES.offer(_functions(8, 300))
CLAUDE_SYSTEM = _system("Claude Code", 2_500)
BILLING = "x-anthropic-billing-header: cc_version=2.1.330.572; cc_entrypoint=cli;"
CACHE: Json = {"cache_control": {"type": "ephemeral"}}


def _claude_headers(session: Session, request_class: str) -> dict[str, str]:
    found = {
        "user-agent": "claude-cli/2.1.330 (external, cli)",
        "x-app": "cli",
        "anthropic-version": "2023-06-01",
        "X-Claude-Code-Session-Id": session.id,
        "x-claude-code-request-class": request_class,
        "X-Stainless-Retry-Count": "0",
        "X-Stainless-Timeout": "600",
    }
    return found if session.agent_id is None else found | {"x-claude-code-agent-id": session.agent_id}


def _claude_body(session: Session, model: str, system: str, messages: list[Json]) -> Json:
    device = hashlib.sha256(session.folder.encode()).hexdigest()
    user = {"device_id": device, "account_uuid": "", "session_id": session.id}
    return {
        "model": model,
        "max_tokens": 32_000,
        "stream": True,
        "system": [{"type": "text", "text": BILLING}, {"type": "text", "text": system, **CACHE}],
        "messages": messages,
        "metadata": {"user_id": json.dumps(user)},
    }


def _claude(session: Session) -> Request:
    status = (
        f"<system-reminder>\n# gitStatus\nThis is the git status at the start of the conversation.\n\n"
        f"Current branch: {session.branch}\n\nMain branch (you will usually use this for PRs): main\n\n"
        f"Status:\n(clean)\n\nRecent commits:\n86977fc OPS-100 initial\n</system-reminder>"
    )
    messages = MESSAGES.tell(session.history)
    messages[0]["content"].insert(0, {"type": "text", "text": status})
    messages[-1]["content"][-1] |= CACHE
    model = "claude-sonnet-5" if session.agent_id is None else "claude-haiku-4-5"
    body = _claude_body(session, model, CLAUDE_SYSTEM, messages)
    body |= {"tools": CLAUDE_FUNCTIONS, "thinking": {"type": "adaptive"}}
    headers = _claude_headers(session, "main" if session.agent_id is None else "subagent")
    return Request("/v1/messages?beta=true", body, headers)


def _claude_aside(session: Session) -> Iterator[Request]:
    headers = _claude_headers(session, "auxiliary")
    first = MESSAGES.tell([entry for entry in session.history if isinstance(entry, Human)][:1])
    counting = {"model": "claude-sonnet-5", "messages": first, "tools": CLAUDE_FUNCTIONS}
    yield Request("/v1/messages/count_tokens?beta=true", counting, headers, billed=False)
    title = _claude_body(session, "claude-haiku-4-5", "You are naming a coding session.", first)
    yield Request("/v1/messages?beta=true", title | {"tools": []}, headers)


# -- Codex ------------------------------------------------------------------------------------------------------------

CODEX_FUNCTIONS = RESPONSES.offer(_functions(4, 150))
CODEX_SYSTEM = _system("Codex", 2_000)


def _codex(session: Session) -> Request:
    turn = f"{session.id}-{sum(isinstance(entry, Human) for entry in session.history)}"
    ids = {"session_id": session.id, "thread_id": session.id, "turn_id": turn, "root_turn_id": turn}
    remote = {"origin": f"git@github.com:{session.repo}.git"}
    workspace = {"associated_remote_urls": remote, "latest_git_commit_hash": "86977fc", "has_changes": False}
    turn_metadata = json.dumps({**ids, "request_kind": "turn", "workspaces": {session.folder: workspace}})
    environment = Human(f"<environment_context>\n  <cwd>{session.folder}</cwd>\n</environment_context>")
    body = {
        "model": "gpt-5.6-sol",
        "instructions": CODEX_SYSTEM,
        "input": RESPONSES.tell([environment, *session.history]),
        "tools": CODEX_FUNCTIONS,
        "tool_choice": "auto",
        "reasoning": {"effort": "medium"},
        "store": False,
        "stream": True,
        "prompt_cache_key": session.id,
        "client_metadata": {**ids, "x-codex-turn-metadata": turn_metadata},
    }
    headers = {
        "user-agent": "codex_exec/0.169.0 (Linux; x86_64)",
        "originator": "codex_exec",
        "session-id": session.id,
        "thread-id": session.id,
        "x-codex-turn-metadata": turn_metadata,
    }
    return Request("/openai/v1/responses", body, headers)


# -- Gemini CLI -------------------------------------------------------------------------------------------------------

GEMINI_FUNCTIONS = GEMINI.offer(_functions(6, 200))
GEMINI_SYSTEM = {"parts": [{"text": _system("Gemini CLI", 1_500)}]}
# The model in it is not the one that is called.
GEMINI_HEADERS = {"user-agent": "GeminiCLI-tui/0.61.0/gemini-3.1-pro-preview (linux; x64; terminal)"}


def _gemini(session: Session) -> Request:
    where = Human(f"This is the Gemini CLI.\n- **Workspace Directories:**\n  - {session.folder}")
    body = {
        "contents": GEMINI.tell([where, *session.history]),
        "systemInstruction": GEMINI_SYSTEM,
        "tools": GEMINI_FUNCTIONS,
        "generationConfig": {"temperature": 1, "thinkingConfig": {"includeThoughts": True}},
    }
    return Request("/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse", body, GEMINI_HEADERS)


def _gemini_aside(session: Session) -> Iterator[Request]:
    """Which model to take is asked of a small one."""
    shape = {"type": "object", "properties": {"complexity_score": {"type": "integer"}}}
    config = {"maxOutputTokens": 1_024, "responseMimeType": "application/json", "responseJsonSchema": shape}
    body = {"contents": GEMINI.tell(session.history[:1]), "generationConfig": config}
    yield Request("/v1beta/models/gemini-3.5-flash-lite:generateContent", body, GEMINI_HEADERS)


# -- opencode, aider --------------------------------------------------------------------------------------------------

OPENCODE_FUNCTIONS = CHAT.offer(_functions(6, 150))
OPENCODE_SYSTEM = _system("opencode", 1_500)


def _opencode_headers(session: Session) -> dict[str, str]:
    name = f"ses_{session.id.replace('-', '')[:26]}"
    return {"user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.0", "x-session-id": name}


def _opencode(session: Session) -> Request:
    where = f"\n<env>\n  Working directory: {session.folder}\n  Is directory a git repo: yes\n</env>"
    body = {
        "model": "gpt-5.4",
        "messages": [{"role": "system", "content": OPENCODE_SYSTEM + where}, *CHAT.tell(session.history)],
        "tools": OPENCODE_FUNCTIONS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Request("/v1/chat/completions", body, _opencode_headers(session))


def _opencode_aside(session: Session) -> Iterator[Request]:
    system = {"role": "system", "content": "You are a title generator. You output ONLY a thread title."}
    body = {
        "model": "gpt-5.4-nano",
        "messages": [system, *CHAT.tell(session.history[:1])],
        "max_completion_tokens": 60,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    yield Request("/v1/chat/completions", body, _opencode_headers(session))


AIDER_SYSTEM = _system("aider", 1_200)


def _aider(session: Session) -> Request:
    """Never asks for usage."""
    body = {
        "model": "gpt-5.4-mini",
        "messages": [{"role": "system", "content": AIDER_SYSTEM}, *CHAT.tell(session.history)],
        "temperature": 0,
        "stream": True,
    }
    return Request("/openai/v1/chat/completions", body, {"user-agent": "OpenAI/Python 2.20.0"})


# -- a script of one's own ---------------------------------------------------------------------------------------------

SDK_HEADERS = {"user-agent": "OpenAI/Python 3.54.0", "x-stainless-lang": "python"}


def _script(session: Session) -> Request:
    body: dict[str, Any] = {
        "model": "gpt-5.4-nano",
        "messages": [{"role": "system", "content": "Summarise."}, *CHAT.tell(session.history)],
        "reasoning_effort": "none",
        "metadata": {"session_id": session.id},
    }
    return Request("/v1/chat/completions", body, SDK_HEADERS)


def _script_aside(session: Session) -> Iterator[Request]:
    for _ in range(session.rng.randint(2, 6)):
        texts = [prose(session.rng, session.rng.randint(50, 400)) for _ in range(session.rng.randint(4, 16))]
        body = {"model": "text-embedding-3-small", "input": texts, "encoding_format": "base64"}
        yield Request("/v1/embeddings", body, SDK_HEADERS)


CLAUDE_CODE = Tool("Claude Code", MESSAGES, "x-api-key", _claude, _claude_aside, spawns=True)
CODEX = Tool("Codex", RESPONSES, "authorization", _codex)
GEMINI_CLI = Tool("Gemini CLI", GEMINI, "x-goog-api-key", _gemini, _gemini_aside)
OPENCODE = Tool("opencode", CHAT, "authorization", _opencode, _opencode_aside)
AIDER = Tool("aider", CHAT, "authorization", _aider)
SCRIPT = Tool("SDK script", CHAT, "authorization", _script, _script_aside)
