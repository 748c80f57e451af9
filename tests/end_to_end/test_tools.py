"""The real tools behind `outlay run`: what of their calls is in the ledger.

Needs npm, and its registry once: pinned versions are kept in the user's cache folder. Skipped, with the reason, where
they cannot be installed. The tools have a home of their own, no real key, and reach nothing but the gateway.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.config import TicketSettings
from tests.checkouts import BRANCH, git, make_repository
from tests.conftest import Running, StartGateway
from tests.end_to_end.tools import INSTALL_SECONDS, RUN_SECONDS, run_tool
from tests.fakes.upstream import chunked, sse, whole

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 3 * RUN_SECONDS)

CLAUDE_ANSWER = chunked(
    *sse(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5-5", "content": [],
                "stop_reason": None, "usage": {"input_tokens": 9000, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
        names=True,
    )
)  # fmt: skip
CODEX_MESSAGE = {
    "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
    "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
}  # fmt: skip
CODEX_ANSWER = chunked(
    *sse(
        {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-6.1-sol", "status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": CODEX_MESSAGE},
        {
            "type": "response.completed",
            "response": {
                "id": "resp_1", "model": "gpt-6.1-sol", "status": "completed", "output": [CODEX_MESSAGE],
                "usage": {"input_tokens": 9000, "output_tokens": 5, "total_tokens": 9005},
            },
        },
        names=True,
    )
)  # fmt: skip


def gemini(text: str) -> dict[str, Any]:
    return {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 9000, "candidatesTokenCount": 5, "totalTokenCount": 9005},
    }  # fmt: skip


GEMINI_ANSWERS = (
    whole(gemini('{"complexity_reasoning": "easy", "complexity_score": 5}')),
    chunked(*sse(gemini("Hello."))),
)
"""Of the classifier that chooses a model, and of that model."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return make_repository(tmp_path / "repository")


async def use(gateway: Running, repository: Path, command: list[str], *options: str) -> None:
    """Run a tool on the branch of the repository, as `outlay run … -- COMMAND`."""
    run = [sys.executable, "-P", "-m", "gateway", "run", *options, "--", *command]
    await start(gateway, repository, command[0], run)


async def start(gateway: Running, repository: Path, tool: str, command: list[str], **settings: str) -> None:
    code, out, err = await run_tool(gateway, repository, tool, command, **settings)
    assert code == 0, err
    assert "Hello." in out


def check(rows: list[dict[str, Any]], same: str, **expected: Any) -> None:
    """Each row has what is expected, and all of them have the same task or session."""
    assert [{name: row.get(name) for name in expected} for row in rows] == [expected] * len(rows)
    [value] = {row[same] for row in rows}
    assert value


ON_BRANCH = {
    "ticket_id": "PAY-123",
    "ticket_source": "branch",
    "repo": "acme/billing-core",
    "branch": BRANCH,
    "agent": "main",
    "team_id": "payments",
    "status": 200,
    "result": "completed",
}


async def test_claude_code(gateway: Running, repository: Path) -> None:
    gateway.upstream.answer(CLAUDE_ANSWER)
    await use(gateway, repository, ["claude", "-p", "Say hello"])
    await use(gateway, repository, ["claude", "-c", "-p", "Say it again"])
    rows = gateway.closed()
    assert len(rows) == 2
    # Each prompt of a session is a task, as the hints that `outlay run` asks for tell.
    check(rows, "session_id", client="claude-code", client_version="2.1.332", task_source="conversation", **ON_BRANCH)
    await use(gateway, repository, ["claude", "-c", "-p", "And again"], "--ticket", "PAY-7,PAY-8", "--task", "nightly")
    assert gateway.closed()[2]["session_id"] == rows[0]["session_id"]
    named = {"ticket_source": "header", "tickets": ["PAY-7", "PAY-8"], "task_id": "nightly", "branch": BRANCH}
    check(gateway.closed()[2:], "task_id", **named)


async def test_codex(gateway: Running, repository: Path) -> None:
    gateway.upstream.answer(CODEX_ANSWER)
    await use(gateway, repository, ["codex", "exec", "Say hello"])
    await use(gateway, repository, ["codex", "exec", "resume", "--last", "Say it again"])
    rows = gateway.closed()
    assert len(rows) == 2
    check(rows, "task_id", client="codex", client_version="0.169.0", task_source="session", **ON_BRANCH)
    await use(gateway, repository, ["codex", "exec", "Say hello"], "--ticket", "PAY-7", "--task", "nightly")
    check(gateway.closed()[2:], "task_id", ticket_source="header", ticket_id="PAY-7", task_id="nightly", branch=BRANCH)


async def test_gemini_cli(gateway: Running, repository: Path) -> None:
    gateway.upstream.answer(*GEMINI_ANSWERS)
    await use(gateway, repository, ["gemini", "-p", "Say hello"])
    rows = gateway.closed()
    assert [row["request_model"] for row in rows] == ["gemini-3.5-flash-lite", "gemini-3.8-flash"]
    check(rows[:1], "task_id", client="gemini-cli", task_source="header", **ON_BRANCH | {"agent": "side"})
    check(rows[1:], "task_id", client="gemini-cli", client_version="0.61.0", task_source="header", **ON_BRANCH)
    assert rows[0]["task_id"] == rows[1]["task_id"]


async def test_nothing_but_address_and_key(start_gateway: StartGateway, repository: Path) -> None:
    """Without `outlay run`: Claude Code tells its branch, Codex the folder that the gateway beside it looks at."""
    async with start_gateway(tickets=TicketSettings(worktrees=[str(repository)])) as gateway:
        gateway.upstream.answer(CLAUDE_ANSWER)
        claude = {"ANTHROPIC_BASE_URL": gateway.url, "ANTHROPIC_AUTH_TOKEN": gateway.key}
        await start(gateway, repository, "claude", ["claude", "-p", "Say hello"], **claude)
        await start(gateway, repository, "claude", ["claude", "-c", "-p", "Say it again"], **claude)
        check(gateway.closed(), "task_id", client="claude-code", task_source="session", **ON_BRANCH)
        gateway.upstream.answer(CODEX_ANSWER)
        provider = {"name": "gw", "base_url": f"{gateway.url}/v1", "env_key": "GATEWAY_KEY", "wire_api": "responses"}
        settings = [f"model_providers.gw.{name}={json.dumps(value)}" for name, value in provider.items()]
        chosen = [part for setting in ("model_provider=gw", *settings) for part in ("-c", setting)]
        await start(gateway, repository, "codex", ["codex", *chosen, "exec", "Say hello"], GATEWAY_KEY=gateway.key)
        rows = gateway.closed()[2:]
        check(rows, "task_id", client="codex", task_source="session", **ON_BRANCH)
        assert rows[0]["commit_sha"] == git(repository, "rev-parse", "HEAD")
