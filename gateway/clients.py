"""What a client's own requests tell: its name, version, session and the kind of agent. Measured on the real tools."""

import re
from collections.abc import Mapping

from gateway.call import Agent, Client
from gateway.reading import text

Headers = Mapping[str, str]

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


def recognise(headers: Headers) -> Client:
    """The client behind a request (header names in lower case)."""
    agent_string = headers.get("user-agent", "")[:512]
    for name, pattern in USER_AGENTS:
        if found := pattern.search(agent_string):
            return Client(name, found[1], _agent(name, headers), _session(headers))
    return Client(session_id=_session(headers))


def _session(headers: Headers) -> str | None:
    return next((found for name in SESSION_HEADERS if (found := text(headers.get(name), 128))), None)


def _agent(name: str, headers: Headers) -> Agent | None:
    if name == "claude-code":
        hinted = REQUEST_CLASSES.get(headers.get("x-claude-code-request-class", ""))
        return hinted or ("subagent" if "x-claude-code-agent-id" in headers else None)
    if name == "codex":
        kind = headers.get("x-openai-subagent")
        return "compaction" if kind == "compact" else "subagent" if kind else "main"
    if name == "opencode":
        return "subagent" if "x-parent-session-id" in headers else None
    return None
