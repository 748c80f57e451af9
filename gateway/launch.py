"""What makes a developer tool call through the gateway: its environment and its arguments. Decides; starts nothing.

Measured on the real tools (`docs/tools.md`). Where a tool takes headers, they carry the evidence: ticket, task,
repository, branch, claim. Where it takes nothing but a base URL, the path of that carries ticket and task.
"""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.errors import UserError

TOOLS = ("claude", "codex", "gemini", "opencode", "aider")
WITHOUT_SESSION = ("gemini", "aider")
"""Tell no session in their requests, so a run of one is a task."""
SHELLS = ("bash", "fish", "powershell", "json")
Environment = dict[str, str | None]
"""Variables to set; `None` takes one away."""

CODEX_VARIABLES = {
    "x-outlay-ticket": "OUTLAY_TICKET",
    "x-outlay-task": "OUTLAY_TASK",
    "x-outlay-repo": "OUTLAY_REPO",
    "x-outlay-branch": "OUTLAY_BRANCH",
    "x-outlay-claim": "OUTLAY_CLAIM",
}
"""The evidence, and where Codex takes it from: its headers may come from variables, so that its configuration is the
same for each branch and nothing stands in the list of processes."""
EVIDENCE = tuple(CODEX_VARIABLES)
IN_PATH = str.maketrans("/#", "~~")
"""`acme/shop#45` in a path: acme~shop~45."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tool's calls go, and what they say they are for."""

    url: str
    """Of the gateway, without a slash at its end."""
    key: str | None = None
    """Without a gateway key the tool keeps its own credential."""
    ticket: str | None = None
    """As a person named it."""
    path_ticket: str | None = None
    """The same, or what the gateway reads in the branch: for tools that send no branch."""
    task: str | None = None
    repo: str | None = None
    branch: str | None = None
    claim: str | None = None

    def headers(self) -> dict[str, str]:
        values = (self.ticket, self.task, self.repo, self.branch, self.claim)
        return {name: value for name, value in zip(EVIDENCE, values, strict=True) if value}

    def base(self) -> str:
        """The gateway's address with ticket and task in its path."""
        if self.path_ticket is None:
            return self.url
        parts = (part.translate(IN_PATH) if "#" in part else part for part in self.path_ticket.split(","))
        ticket = quote(",".join(parts), safe="~,")
        return f"{self.url}/t/{ticket}" + (f"/task/{quote(self.task, safe='')}" if self.task else "")


def place(repo: str | None, branch: str | None, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Repository and branch: of the checkout, or where a CI system has detached it, as that names them."""
    of_ci = environ.get("GITHUB_HEAD_REF")
    if not of_ci and environ.get("GITHUB_REF_TYPE") != "tag":
        of_ci = environ.get("GITHUB_REF_NAME")
    if not of_ci:
        of_ci = environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME")
    if not of_ci and not environ.get("CI_COMMIT_TAG"):
        of_ci = environ.get("CI_COMMIT_REF_NAME")
    return repo or environ.get("GITHUB_REPOSITORY") or environ.get("CI_PROJECT_PATH"), branch or of_ci or None


def tool_of(command: str) -> str | None:
    """The tool that a command starts, where we know it."""
    name = PurePath(command).name
    return name if name in TOOLS else None


def environment(tool: str | None, session: Session, environ: Mapping[str, str]) -> Environment:
    """The variables of one tool, or those of all for a command that we do not know."""
    where: Environment = {"OUTLAY_URL": session.url}  # for what asks the gateway from inside: status lines, `outlay`
    match tool:
        case "claude":
            for direct in ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"):
                if environ.get(direct):
                    raise UserError(f"{direct} is set, so Claude Code would not call through the gateway: unset it")
            return where | _claude(session, environ)
        case "codex":
            return where | _codex(session)
        case "gemini":
            return where | _gemini(session, environ)
        case "opencode":
            return where | _opencode(session, environ)
        case "aider":
            return where | _sdks(session, environ)
        case _:
            codex, gemini, opencode = _codex(session), _gemini(session, environ), _opencode(session, environ)
            return where | _claude(session, environ) | codex | gemini | opencode | _sdks(session, environ)


def arguments(tool: str | None, session: Session) -> list[str]:
    """What is put behind the command's name: Codex takes its provider from nowhere else."""
    if tool != "codex":
        return []
    return [part for setting in codex_settings(session) for part in ("-c", setting)]


def codex_settings(session: Session) -> list[str]:
    """Lines of Codex' `config.toml`, dotted. Evidence and key come from variables, see `CODEX_VARIABLES`."""
    provider = "model_providers.outlay"
    headers = ", ".join(f'"{name}" = "{variable}"' for name, variable in CODEX_VARIABLES.items())
    return [
        'model_provider = "outlay"',
        f'{provider}.name = "Outlay"',
        f"{provider}.base_url = {json.dumps(session.url + '/v1')}",
        f'{provider}.env_key = "{"OUTLAY_KEY" if session.key else "OPENAI_API_KEY"}"',
        f'{provider}.wire_api = "responses"',
        f"{provider}.env_http_headers = {{ {headers} }}",
    ]


def _claude(session: Session, environ: Mapping[str, str]) -> Environment:
    found: Environment = {
        "ANTHROPIC_BASE_URL": session.url,
        "ANTHROPIC_CUSTOM_HEADERS": _lines(environ.get("ANTHROPIC_CUSTOM_HEADERS"), session),
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
    }
    if session.key:
        found |= {"ANTHROPIC_AUTH_TOKEN": session.key, "ANTHROPIC_API_KEY": None}
    return found


def _codex(session: Session) -> Environment:
    headers = session.headers()
    found: Environment = {variable: headers.get(name) for name, variable in CODEX_VARIABLES.items()}
    return found | {"OUTLAY_KEY": session.key} if session.key else found


def _gemini(session: Session, environ: Mapping[str, str]) -> Environment:
    before = re.split(r",(?=\s*[^,:]+:)", environ.get("GEMINI_CLI_CUSTOM_HEADERS", ""))  # as Gemini CLI splits it
    found: Environment = {
        "GOOGLE_GEMINI_BASE_URL": session.url,
        "GEMINI_CLI_CUSTOM_HEADERS": ", ".join(_fields(before, session)),
    }
    return found | {"GEMINI_API_KEY": session.key} if session.key else found


def _opencode(session: Session, environ: Mapping[str, str]) -> Environment:
    try:
        config = json.loads(environ.get("OPENCODE_CONFIG_CONTENT") or "{}")
    except ValueError:
        raise UserError("OPENCODE_CONFIG_CONTENT is set and is not JSON: unset it, or correct it") from None
    for provider, path in {"anthropic": "/v1", "openai": "/v1", "google": "/v1beta"}.items():
        ours: dict[str, Any] = {"baseURL": session.url + path} | ({"apiKey": session.key} if session.key else {})
        config = _merged(config, {"provider": {provider: {"options": {**ours, "headers": {}}}}})
        headers = config["provider"][provider]["options"]["headers"]
        kept = {name: value for name, value in headers.items() if name.lower() not in EVIDENCE}
        config["provider"][provider]["options"]["headers"] = kept | session.headers()
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}


def _sdks(session: Session, environ: Mapping[str, str]) -> Environment:
    """Of the providers' SDKs and what is built on them. Newer ones take headers too; the path serves all."""
    base = session.base()
    found: Environment = {
        "OPENAI_BASE_URL": base + "/v1",
        "OPENAI_API_BASE": base + "/v1",
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_API_BASE": base,
        "GOOGLE_GEMINI_BASE_URL": base,
    }
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        found[name] = _lines(environ.get(name), session)
    if session.key:
        keys = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"]
        keys += ["GOOGLE_API_KEY"] if environ.get("GOOGLE_API_KEY") else []  # comes before the other one
        found |= dict.fromkeys(keys, session.key)
    return found


def _lines(before: str | None, session: Session) -> str | None:
    return "\n".join(_fields((before or "").split("\n"), session)) or None


def _fields(before: list[str], session: Session) -> list[str]:
    """Header fields: those that were there, but for former evidence, and ours."""
    kept = [
        field.strip() for field in before if field.strip() and field.partition(":")[0].strip().lower() not in EVIDENCE
    ]
    return [*kept, *(f"{name}: {value}" for name, value in session.headers().items())]


def gemini_settings(before: str) -> str | None:
    """Gemini CLI's `settings.json` with the key as its way to authenticate; `None` when it is that already.

    Beside a base URL it takes nothing else, and it reads the way from its settings only.
    """
    wanted = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    settings = json.loads(before or "{}")
    merged = _merged(settings, wanted)
    return None if merged == settings else json.dumps(merged, indent=2)


def _merged(before: Any, ours: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(ours, dict):
        return ours
    return {**before, **{name: _merged(before.get(name), value) for name, value in ours.items()}}


def printed(shell: str, settings: Environment, session: Session) -> str:
    """The settings of all tools, to be evaluated by a shell. Codex' own come last, as comments."""
    codex = codex_settings(session)
    if shell == "json":
        return json.dumps({"environment": settings, "codex_settings": codex}, indent=2)
    comments = ["# Codex takes no address from the environment. In ~/.codex/config.toml, once for all branches:"]
    comments += [f"#   {setting}" for setting in codex]
    return "\n".join([*(_statement(shell, name, value) for name, value in settings.items()), *comments])


def _statement(shell: str, name: str, value: str | None) -> str:
    match shell, value:
        case "fish", None:
            return f"set -e {name};"
        case "fish", str():
            escaped = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"set -gx {name} '{escaped}';"
        case "powershell", None:
            return f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
        case "powershell", str():
            escaped = re.sub(
                "['\u2018-\u201b]", lambda found: found[0] * 2, value
            )  # PowerShell takes all five for quotes
            return f"$env:{name} = '{escaped}'"
        case _, None:
            return f"unset {name}"
        case _:
            return f"export {name}={shlex.quote(value or '')}"
