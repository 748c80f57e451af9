"""The real developer tools, as npm has them.

Pinned versions are kept in the user's cache folder. They have a home of their own, no real key, and reach nothing but
the gateway.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import Running

TOOLS = {
    "claude": "@anthropic-ai/claude-code@2.1.332",
    "codex": "@openai/codex@0.169.0",
    "gemini": "@google/gemini-cli@0.61.0",
}
INSTALL_SECONDS = 240
RUN_SECONDS = 60


def installed(tool: str) -> Path:
    """The folder with the tool's command. Skips the test where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outlay-tests"
    folder = cache / TOOLS[tool].replace("/", "-")
    if folder.exists():
        return folder / "node_modules/.bin"
    if shutil.which("npm") is None:
        pytest.skip("npm is not there")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as beside:
            install = [
                "npm",
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--fetch-retries=0",
                TOOLS[tool],
            ]
            run = {"cwd": beside, "check": True, "capture_output": True, "timeout": INSTALL_SECONDS}
            subprocess.run([*install, "--prefix", ".", TOOLS[tool]], **run)
            if tool == "claude":
                subprocess.run(["node", "node_modules/@anthropic-ai/claude-code/install.cjs"], **run)
            Path(beside).rename(folder)  # whole or not at all
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{TOOLS[tool]} cannot be installed: {error}")
    return folder / "node_modules/.bin"


async def run_tool(
    gateway: Running, repository: Path, tool: str, command: list[str], **settings: str
) -> tuple[int, str, str]:
    """Run a command of a tool: exit code, stdout, stderr."""
    closed = "http://127.0.0.1:9"
    environ = {
        "PATH": f"{installed(tool)}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(repository.parent / "home"),
        "TERM": "dumb",
        "OUTLAY_URL": gateway.url,
        "OUTLAY_KEY": gateway.key,
        "HTTPS_PROXY": closed,
        "NO_PROXY": "127.0.0.1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "GEMINI_TELEMETRY_ENABLED": "false",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=repository, env=environ, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out.decode(), err.decode()
