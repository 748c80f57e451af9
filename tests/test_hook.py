"""The hook, installed in real repositories and run by git itself."""

import asyncio
import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import claims, hook_cli
from gateway.cli import outlay
from tests.checkouts import ALONE, git, make_repository
from tests.fakes.upstream import FakeUpstream, whole

ME = {"ticket_policy": "optional", "branch_tickets": [{"ticket_id": "PAY-124", "ticket_state": "known"}]}
NOWHERE = "http://127.0.0.1:9"
Hook = Callable[..., Result]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


@pytest.fixture
def hook(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Hook:
    """`outlay hook …` in the repository, where no gateway is."""
    for name in list(os.environ):
        if name.startswith(("OUTLAY_", "ANTHROPIC_", "GITHUB_", "CI_", "OPENCODE_", "GEMINI_", "GIT_")):
            monkeypatch.delenv(name)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OUTLAY_URL", NOWHERE)
    monkeypatch.chdir(repository)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(outlay, ["hook", *arguments])

    return invoke


async def checkout(folder: Path, *arguments: str, url: str = NOWHERE, **environ: str) -> tuple[int, str]:
    """`git checkout`: exit code, and what stands on its stderr."""
    process = await asyncio.create_subprocess_exec(
        "git", "checkout", "--quiet", *arguments, cwd=folder, stderr=asyncio.subprocess.PIPE,
        env={**ALONE, "OUTLAY_URL": url, "OUTLAY_KEY": "olk_k", **environ},
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, err.decode()


def settings(git_dir: Path) -> dict[str, str]:
    """What a shell has after it read the file."""
    file = git_dir / "outlay.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    out = subprocess.run(
        ["sh", "-c", f". {shlex.quote(str(file))}; env -0"], env={}, capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("=", 1) for line in out.split("\0") if "=" in line)


def hook_of(repository: Path) -> Path:
    return repository / ".git/hooks/post-checkout"


async def test_each_checkout_writes_the_settings_of_its_branch(
    hook: Hook, repository: Path, upstream: FakeUpstream
) -> None:
    upstream.answer(whole(ME))
    done = hook("install")
    assert done.exit_code == 0, done.output
    assert str(hook_of(repository)) in done.output
    assert settings(repository / ".git")["OUTLAY_BRANCH"] == "feature/PAY-123-fix-rounding"
    code, err = await checkout(repository, "-b", "feature/PAY-124", url=upstream.url)
    assert (code, err) == (0, "Outlay: calls of this session go to PAY-124 (branch feature/PAY-124)\n")
    now = settings(repository / ".git")
    assert (now["OUTLAY_BRANCH"], now["OUTLAY_REPO"], now["OUTLAY_KEY"]) == (
        "feature/PAY-124", "acme/billing-core", "olk_k",
    )  # fmt: skip
    assert now["OPENAI_BASE_URL"] == f"{upstream.url}/t/PAY-124/v1"


async def test_a_linked_worktree_has_settings_of_its_own(hook: Hook, repository: Path, tmp_path: Path) -> None:
    hook("install")
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "--quiet", "-b", "PAY-125", str(linked))
    assert settings(repository / ".git/worktrees/linked")["OUTLAY_BRANCH"] == "PAY-125"
    assert settings(repository / ".git")["OUTLAY_BRANCH"] == "feature/PAY-123-fix-rounding"
    assert hook("remove").exit_code == 0
    assert not list((repository / ".git").rglob("outlay.env"))


async def test_files_that_are_checked_out_change_nothing(hook: Hook, repository: Path, upstream: FakeUpstream) -> None:
    hook("install")
    (repository / "code.py").unlink()
    assert await checkout(repository, "code.py", url=upstream.url) == (0, "")
    assert upstream.requests == []


async def test_where_no_gateway_is_it_is_silent(hook: Hook, repository: Path) -> None:
    hook("install")
    assert await checkout(repository, "-b", "PAY-126") == (0, "")
    now = settings(repository / ".git")
    assert (now["OUTLAY_BRANCH"], now["OPENAI_BASE_URL"]) == ("PAY-126", f"{NOWHERE}/v1")


@pytest.mark.parametrize("answer", [[60.0], [b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", *[b" ", 0.3] * 200]])
async def test_a_gateway_that_hangs_is_not_waited_for(
    hook: Hook, repository: Path, upstream: FakeUpstream, answer: list[bytes | float]
) -> None:
    upstream.answer(answer)
    hook("install")
    began = time.monotonic()
    assert await checkout(repository, "-b", "PAY-127", url=upstream.url) == (0, "")
    assert time.monotonic() - began < hook_cli.HOOK_SECONDS + 20


async def test_a_hook_whose_outlay_is_gone_fails_no_checkout(hook: Hook, repository: Path) -> None:
    hook("install")
    file = hook_of(repository)
    file.write_text(file.read_text().replace(sys.executable, "/gone/python"))
    assert await checkout(repository, "-b", "PAY-128") == (0, "")
    assert written(repository) == []


def written(repository: Path) -> list[str]:
    return sorted(file.name for file in (repository / ".git").glob("outlay*"))


async def test_whatever_fails_the_settings_of_the_branch_before_do_not_stay(hook: Hook, repository: Path) -> None:
    hook("install")
    assert written(repository) == ["outlay.env"]
    (repository / ".git/outlay.env.new").write_text("cut sh")
    assert await checkout(repository, "-b", "PAY-132", OPENCODE_CONFIG_CONTENT="{") == (0, "")
    assert written(repository) == []
    (repository / ".git/outlay.env.new").write_text("cut sh")
    assert await checkout(repository, "-b", "PAY-133") == (0, "")
    assert written(repository) == ["outlay.env"]
    (repository / ".git/outlay.env.new").write_text("cut sh")
    assert hook("remove").exit_code == 0
    assert written(repository) == []


async def test_the_settings_of_the_branch_before_are_gone_when_the_hook_ends_early(
    hook: Hook, repository: Path, upstream: FakeUpstream
) -> None:
    """It is killed while it asks."""
    upstream.answer([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", *[b" ", 0.3] * 30])
    hook("install")
    assert await checkout(repository, "-b", "PAY-134", url=upstream.url) == (0, "")
    assert written(repository) == []


async def test_no_claim_is_written_which_would_end_before_the_branch(hook: Hook, repository: Path) -> None:
    hook("install")
    key, _ = claims.new_key("clk_1")
    for claim_key in (key, "broken"):
        assert await checkout(repository, "-B", "PAY-135", OUTLAY_CLAIM_KEY=claim_key) == (0, "")
        now = settings(repository / ".git")
        assert (now["OUTLAY_BRANCH"], "OUTLAY_CLAIM" in now) == ("PAY-135", False)
        assert "x-outlay-claim" not in now["ANTHROPIC_CUSTOM_HEADERS"]


async def test_nothing_is_imported_from_the_folder_that_is_checked_out(hook: Hook, repository: Path) -> None:
    packages = ("gateway", "click", "json")
    for package in packages:
        (repository / package).mkdir()
        (repository / package / "__init__.py").write_text("open('/'.join([__path__[0], 'ran']), 'w')")
    hook("install")
    assert await checkout(repository, "-b", "PAY-129") == (0, "")
    assert settings(repository / ".git")["OUTLAY_BRANCH"] == "PAY-129"
    assert not any((repository / package / "ran").exists() for package in packages)


async def test_a_hook_that_is_there_is_kept(hook: Hook, repository: Path) -> None:
    file = hook_of(repository)
    before = "#!/bin/sh\nset -e\n# caf\xe9\necho mine $3 >&2\nexit 0\n".encode("latin-1")
    file.write_bytes(before)
    file.chmod(0o755)
    for _ in range(2):
        assert hook("install").exit_code == 0
    assert file.read_bytes().count(b">>> outlay") == 1
    assert await checkout(repository, "-b", "PAY-130") == (0, "mine 1\n")
    assert settings(repository / ".git")["OUTLAY_BRANCH"] == "PAY-130"
    assert hook("remove").exit_code == 0
    assert file.read_bytes() == before
    assert hook("remove").output == "The hook is not installed\n"


@pytest.mark.parametrize(
    "before",
    [b"#!/usr/bin/env python3\nprint(1)\n", b"\x7fELF\x02\x01\xff\n", b"echo no first line\n", b"#!/bin/fish\n"],
)
def test_a_hook_that_is_no_shell_script_is_left_alone(hook: Hook, repository: Path, before: bytes) -> None:
    file = hook_of(repository)
    file.write_bytes(before)
    file.chmod(0o755)
    done = hook("install")
    assert done.exit_code == 1
    assert f"{file} is no shell script" in str(done.exception)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    ["#!/bin/sh", "#! /bin/sh -e", "#!/usr/bin/env bash", "#!/usr/bin/env -S bash -e", "#!/opt/bin/zsh", "#!/bin/sh\r"],
)
def test_shells_are_known_by_the_first_line(line: str) -> None:
    after = hook_cli.with_block(f"{line}\nexit 0\n", "/the python")
    assert after is not None
    assert after.startswith(f"{line}\n# >>> outlay")
    command = "'/the python' -P -m gateway.hook_cli checked-out \"$@\" 2>/dev/null"
    assert f'{command} || rm -f "$(git rev-parse --git-dir)/outlay.env" || :\n' in after
    assert after.endswith("# <<< outlay\nexit 0\n")


def test_a_hook_that_is_switched_off_is_not_switched_on(hook: Hook, repository: Path) -> None:
    file = hook_of(repository)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o644)
    done = hook("install")
    assert "is not executable, so git does not run it" in str(done.exception)
    assert file.read_text() == "#!/bin/sh\n"


async def test_the_hooks_folder_that_git_is_told_of(
    hook: Hook, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "config", "core.hooksPath", ".githooks")
    (repository / "src").mkdir()
    monkeypatch.chdir(repository / "src")
    assert hook("install").exit_code == 0
    file = repository / ".githooks/post-checkout"
    assert os.access(file, os.X_OK)
    assert await checkout(repository, "-b", "PAY-131") == (0, "")
    assert settings(repository / ".git")["OUTLAY_BRANCH"] == "PAY-131"
    assert hook("remove").exit_code == 0
    assert not file.exists()
    assert not (repository / ".git/outlay.env").exists()


def test_where_hooks_are_switched_off(hook: Hook, repository: Path) -> None:
    git(repository, "config", "core.hooksPath", "/dev/null")
    assert "core.hooksPath is /dev/null, which is no folder" in str(hook("install").exception)


def test_outside_of_any_repository(hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("install", "remove"):
        done = hook(command)
        assert (done.exit_code, str(done.exception)) == (1, "this folder is in no git repository")
