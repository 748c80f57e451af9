"""`outlay serve` as its own process, as a user starts it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gateway.keys import Keys

ENVIRONMENT = {**os.environ, "PROVIDER_KEY": "sk-the-providers-own", "PYTHONWARNINGS": "error"}


@dataclass
class Served:
    """A running `outlay serve`."""

    process: asyncio.subprocess.Process
    url: str
    dir: Path
    key: str

    def kill(self) -> None:
        """Kill the gateway as a crash does; its control plane ends by itself."""
        self.process.send_signal(signal.SIGKILL)


def write_config(
    folder: Path, upstream: str, *, more: Iterable[str] = (), pages: bool = False, **ledger: object
) -> Path:
    """Settings with one upstream per provider, all at `upstream`. `more`: lines of [server]; `pages`: a console."""
    settings = {"dir": str(folder / "data"), "reserve_bytes": 4096, **ledger}
    lines = ["[server]", "port = 0", "drain_seconds = 5.0", *more, "[ledger]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for name, provider in {"openai": "openai", "anthropic": "anthropic", "gemini": "gcp.gemini"}.items():
        lines += [f"[upstreams.{name}]", f'base_url = "{upstream}"', f'provider = "{provider}"']
        lines += ['credential = "env:PROVIDER_KEY"']
    lines += ["[console]", f"pages = {json.dumps(pages)}", "port = 0"]
    config = folder / "outlay.toml"
    config.write_text("\n".join(lines), encoding="utf-8")
    return config


@contextlib.asynccontextmanager
async def served(config: Path, *, stderr: IO[bytes] | None = None, **options: Any) -> AsyncIterator[Served]:
    """Start it, wait until it listens, stop it with SIGTERM (unless it is gone already). `options`: of the process."""
    data = config.parent / "data"
    ring = Keys(data)
    _, key = ring.create(team_id="payments")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(config),
        stdout=asyncio.subprocess.PIPE, stderr=stderr, env=ENVIRONMENT | options.pop("env", {}), **options,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        first = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert first.startswith("Outlay listens on http://"), first
        yield Served(process, first.split()[3], data, key)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.wait_for(process.communicate(), 30)


async def run_outlay(*arguments: str) -> tuple[int, str, str]:
    """Run one `outlay` command: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()
