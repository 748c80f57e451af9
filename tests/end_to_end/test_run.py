"""`outlay run` and `outlay env`, each as its own process in a real checkout."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.config import TicketSettings
from gateway.keys import Keys
from gateway.run_cli import URL
from tests.checkouts import BRANCH, git, make_repository
from tests.conftest import Running, StartGateway
from tests.end_to_end.serving import run_outlay, served, write_config
from tests.fakes.upstream import FakeUpstream, whole

ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5.4-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}
ASK_OPENAI = """
import openai
client = openai.OpenAI()
client.chat.completions.create(model="gpt-5.4-mini", messages=[{"role": "user", "content": "Why?"}])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


async def outlay(folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    process = await start(folder, *arguments, **environ)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def start(folder: Path, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "gateway", *arguments, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environ},
    )  # fmt: skip


def of(gateway: Running) -> dict[str, str]:
    gateway.upstream.answer(whole(ANSWER))
    return {"OUTLAY_URL": gateway.url, "OUTLAY_KEY": gateway.key}


async def test_a_python_script_on_a_branch(tmp_path: Path, upstream: FakeUpstream, repository: Path) -> None:
    upstream.answer(whole(ANSWER))
    async with served(write_config(tmp_path, upstream.url)) as gateway:
        where = {"OUTLAY_URL": gateway.url, "OUTLAY_KEY": gateway.key}
        code, _, err = await outlay(repository, "run", "--", sys.executable, "-c", ASK_OPENAI, **where)
        assert code == 0, err
        code, out, err = await run_outlay("sql", "--data", str(gateway.dir), "--json", "SELECT * FROM calls")
    assert code == 0, err
    [row] = json.loads(out)
    assert (row["ticket_id"], row["ticket_source"], row["status"]) == ("PAY-123", "path", 200)
    assert (row["repo"], row["branch"], row["client"]) == ("acme/billing-core", BRANCH, "openai-python")
    assert row["team_id"] == "payments"


async def test_a_ticket_and_task_that_a_person_names(gateway: Running, repository: Path) -> None:
    code, _, err = await outlay(
        repository, "run", "--ticket", "acme/shop#45", "--task", "nightly:7", "--",
        sys.executable, "-c", ASK_OPENAI, **of(gateway),
    )  # fmt: skip
    assert code == 0, err
    assert "Outlay: calls of this session go to acme/shop#45\n" in err
    [row] = gateway.closed()
    assert (row["ticket_id"], row["ticket_source"]) == ("acme/shop#45", "header")
    assert (row["task_id"], row["task_source"]) == ("nightly:7", "header")


async def test_a_tool_that_takes_only_a_base_url(gateway: Running, repository: Path) -> None:
    without_headers = 'import os; del os.environ["OPENAI_CUSTOM_HEADERS"]\n' + ASK_OPENAI
    code, _, err = await outlay(
        repository, "run", "--ticket", "acme/shop#45", "--task", "nightly:7", "--",
        sys.executable, "-c", without_headers, **of(gateway),
    )  # fmt: skip
    assert code == 0, err
    [row] = gateway.closed()
    assert (row["ticket_id"], row["ticket_source"]) == ("acme/shop#45", "path")
    assert (row["task_id"], row["task_source"]) == ("nightly:7", "path")


async def test_a_claim(gateway: Running, repository: Path) -> None:
    _, claim_key = Keys(gateway.dir).create_claim_key(team_id="payments")
    seen = "import os; assert 'OUTLAY_CLAIM_KEY' not in os.environ\n"
    code, _, err = await outlay(
        repository, "run", "--ticket", "PAY-9", "--", sys.executable, "-c", seen + ASK_OPENAI,
        OUTLAY_CLAIM_KEY=claim_key, **of(gateway),
    )  # fmt: skip
    assert code == 0, err
    [row] = gateway.closed()
    assert (row["ticket_id"], row["ticket_source"]) == ("PAY-9", "claim")


async def test_a_claim_key_that_is_none(gateway: Running, repository: Path) -> None:
    code, _, err = await outlay(repository, "run", "--", "true", OUTLAY_CLAIM_KEY="secret", **of(gateway))
    assert code == 1
    assert "claim key" in err
    assert "secret" not in err
    assert "Traceback" not in err


async def test_a_gateway_key_is_no_claim_key(gateway: Running, repository: Path) -> None:
    code, out, err = await outlay(
        repository, "run", "--", "echo", "started", OUTLAY_CLAIM_KEY=gateway.key, **of(gateway)
    )
    assert (code, out) == (1, "")
    assert err.startswith(
        "the claim key is not one: it starts with olc_ and is shown once by `outlay keys create --claims`"
    )
    assert gateway.key not in err


async def test_a_detached_checkout_in_ci(gateway: Running, repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    ci = {"GITHUB_REPOSITORY": "acme/shop", "GITHUB_HEAD_REF": "PAY-77-x", "GITHUB_REF_NAME": "7/merge"}
    code, _, err = await outlay(repository, "run", "--", sys.executable, "-c", ASK_OPENAI, **ci, **of(gateway))
    assert code == 0, err
    [row] = gateway.closed()
    assert (row["ticket_id"], row["repo"], row["branch"]) == ("PAY-77", "acme/billing-core", "PAY-77-x")


async def test_from_here_on_the_process_is_the_tool(gateway: Running, repository: Path) -> None:
    """Exit code, output, arguments and signals are its own."""
    script = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(7)"
    process = await start(
        repository, "run", "--ticket", "PAY-1", sys.executable, "-c", script, "--ticket", "-x", "", **of(gateway)
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode()) == (7, f"{process.pid} ['--ticket', '-x', '']\n")

    process = await start(repository, "run", "--ticket", "PAY-1", "sh", "-c", "echo 1; exec sleep 60", **of(gateway))
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"1\n"
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == -signal.SIGTERM


async def test_a_command_that_is_not_there(gateway: Running, repository: Path) -> None:
    code, out, err = await outlay(repository, "run", "--ticket", "PAY-1", "--", "not-there", **of(gateway))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "not-there cannot be run: No such file or directory"


async def test_where_no_gateway_is(repository: Path) -> None:
    code, out, err = await outlay(repository, "run", "--url", "http://127.0.0.1:9", "--", "echo", "started")
    assert (code, out) == (1, "")
    assert err == (
        "no Outlay gateway answers at http://127.0.0.1:9 (Connection refused): start one with `outlay serve`, "
        "or name yours with --url or OUTLAY_URL\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--url", "localhost:8080", "true"), "write an address like"),
        (("run", "--ticket", "PAY-1\nx: y", "true"), "write a ticket like"),
        (("run", "--ticket", "PÄY-1", "true"), "write a ticket like"),
        (("run", "--task", "a b", "true"), "at most 128 letters"),
        (("run",), "Missing argument 'COMMAND...'"),
        (("env", "--shell", "tcsh"), "'tcsh' is not one of"),
    ],
)
async def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = await outlay(tmp_path, *arguments)
    assert code == 2
    assert told in err


# -- what the gateway is asked ----------------------------------------------------------------------------------------

ME = {"key_id": "key_1", "team_id": "payments", "ticket_policy": "optional", "branch_tickets": []}
NAMED = {"named_tickets": [{"ticket_id": "PAY-1", "ticket_state": "known"}]}


def branch_tickets(*named: tuple[str, str]) -> dict[str, Any]:
    return {"branch_tickets": [{"ticket_id": ticket, "ticket_state": state} for ticket, state in named]}


@pytest.mark.parametrize(
    ("me", "told"),
    [
        (ME, "name no ticket: use --ticket"),
        (ME | {"ticket_policy": "known"}, "name no ticket, and this gateway takes none without: use --ticket"),
        (ME | branch_tickets(("PAY-123", "known")), f"go to PAY-123 (branch {BRANCH})"),
        (
            ME | branch_tickets(("PAY-1", "closed"), ("PAY-2", "unknown")),
            f"go to PAY-1, which is closed, PAY-2, which the tracker does not know (branch {BRANCH})",
        ),
    ],
)
async def test_the_gateway_reads_the_ticket_in_the_branch(
    upstream: FakeUpstream, repository: Path, me: dict[str, Any], told: str
) -> None:
    upstream.answer(whole(me))
    printed = "import os; print(os.environ['OPENAI_BASE_URL'])"
    code, out, err = await outlay(
        repository, "run", "--", sys.executable, "-c", printed, OUTLAY_URL=upstream.url + "/", OUTLAY_KEY="olk_k"
    )
    assert (code, err) == (0, f"Outlay: calls of this session {told}\n")
    path = "/t/" + ",".join(t["ticket_id"] for t in me["branch_tickets"]) if me["branch_tickets"] else ""
    assert out == f"{upstream.url}{path}/v1\n"
    [asked] = upstream.requests
    assert (asked.method, asked.header("x-outlay-key")) == ("GET", "olk_k")
    assert asked.target == "/-/api/v1/me?branch=feature%2FPAY-123-fix-rounding&repo=acme%2Fbilling-core"


@pytest.mark.parametrize(
    ("status", "key", "told"),
    [
        (401, {}, "asks for a gateway key: set OUTLAY_KEY to a gateway key (olk_…); `outlay keys create --team TEAM`"),
        (401, {"OUTLAY_KEY": "olk_secret"}, "does not take the key in OUTLAY_KEY: set OUTLAY_KEY to a gateway key"),
        (503, {}, "(status 503) is no Outlay gateway that takes calls"),
        (302, {}, "(status 302) is no Outlay gateway that takes calls"),
    ],
)
async def test_the_gateway_says_no(
    upstream: FakeUpstream, repository: Path, status: int, key: dict[str, str], told: str
) -> None:
    upstream.answer(whole({"error": "no"}, status=status))
    code, out, err = await outlay(repository, "run", "--", "echo", "started", OUTLAY_URL=upstream.url, **key)
    assert (code, out) == (1, "")
    assert told in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1


async def test_something_else_answers(upstream: FakeUpstream, repository: Path) -> None:
    upstream.answer(whole(b"<html>"))
    told = f"what answers at {upstream.url} (status 200) is no Outlay gateway that takes calls:"
    code, _, err = await outlay(repository, "run", "--", "true", OUTLAY_URL=upstream.url)
    assert (code, err) == (1, f"{told} name yours with --url or OUTLAY_URL, without a path like /v1, as {URL}\n")
    upstream.answer([b"SSH-2.0\r\n"])
    code, _, err = await outlay(repository, "run", "--", "true", OUTLAY_URL=upstream.url)
    assert code == 1
    assert err.startswith(f"no Outlay gateway answers at {upstream.url} (")


@pytest.mark.parametrize("path", ["/v1", "/openai"])
async def test_an_address_below_the_gateway_s_is_not_the_gateway_s(
    gateway: Running, repository: Path, path: str
) -> None:
    where = of(gateway) | {"OUTLAY_URL": gateway.url + path}
    code, out, err = await outlay(repository, "run", "--", "echo", "started", **where)
    assert (code, out) == (1, "")
    assert "is no Outlay gateway that takes calls: name yours with --url or OUTLAY_URL, without a path" in err


async def test_the_console_is_no_gateway(tmp_path: Path, repository: Path) -> None:
    with (tmp_path / "log").open("w+b") as log:
        async with served(write_config(tmp_path, "http://127.0.0.1:9", pages=True), stderr=log) as gateway:
            async with asyncio.timeout(30):
                while not (found := re.search(rb"the console is at (http://\S+)", (tmp_path / "log").read_bytes())):
                    await asyncio.sleep(0.1)
            where = {"OUTLAY_URL": found[1].decode(), "OUTLAY_KEY": gateway.key}
            code, out, err = await outlay(repository, "run", "--", "echo", "started", **where)
    assert (code, out) == (1, "")
    assert "is no Outlay gateway that takes calls" in err


async def test_a_key_with_a_role_makes_no_calls(gateway: Running, repository: Path) -> None:
    _, secret = Keys(gateway.dir).create(role="viewer")
    code, out, err = await outlay(repository, "run", "--", "echo", "started", **of(gateway) | {"OUTLAY_KEY": secret})
    assert (code, out) == (1, "")
    assert err.startswith("the key in OUTLAY_KEY has the role viewer and makes no calls: set OUTLAY_KEY to a gateway")


@pytest.mark.parametrize("command", [("run", "--ticket", "{}", "--", "echo", "started"), ("env", "--ticket", "{}")])
@pytest.mark.parametrize("ticket", ["pay-1", "fix the bug", "PAY-1,nothing", "#45"])
async def test_a_ticket_that_the_gateway_would_ignore_is_refused(
    gateway: Running, repository: Path, ticket: str, command: tuple[str, ...]
) -> None:
    code, out, err = await outlay(repository, *(part.replace("{}", ticket) for part in command), **of(gateway))
    assert (code, out) == (2, "")
    assert "write a ticket like PAY-123 or acme/shop#45, of a known project" in err


async def test_the_gateway_says_what_a_named_ticket_is(start_gateway: StartGateway, repository: Path) -> None:
    async with start_gateway(tickets=TicketSettings(projects=["PAY"], patterns=["INC[0-9]{7}"])) as gateway:
        for ticket, told in (("pay-1", "PAY-1"), ("INC0001234,PAY-2", "INC0001234, PAY-2")):
            code, _, err = await outlay(repository, "run", "--ticket", ticket, "--", "true", **of(gateway))
            assert (code, err) == (0, f"Outlay: calls of this session go to {told}\n")
        code, _, err = await outlay(repository, "run", "--ticket", "OPS-1", "--", "true", **of(gateway))
        assert (code, "of a known project" in err) == (2, True)


# -- outlay env ------------------------------------------------------------------------------------------------------


async def test_a_shell_that_takes_the_settings_calls_as_run_does(gateway: Running, repository: Path) -> None:
    code, settings, err = await outlay(repository, "env", "--ticket", "PAY-5", **of(gateway))
    assert (code, err) == (0, "Outlay: calls of this session go to PAY-5\n")
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", settings + '\nexec "$0" -c "$1"', sys.executable, ASK_OPENAI, env={"PATH": os.environ["PATH"]}
    )
    assert await asyncio.wait_for(shell.wait(), 60) == 0
    [row] = gateway.closed()
    assert (row["ticket_id"], row["repo"], row["branch"]) == ("PAY-5", "acme/billing-core", BRANCH)


async def test_env_as_json(gateway: Running, repository: Path) -> None:
    code, out, _ = await outlay(repository, "env", "--ticket", "PAY-5", "--shell", "json", **of(gateway))
    printed = json.loads(out)
    assert code == 0
    assert printed["environment"]["OUTLAY_TICKET"] == "PAY-5"
    assert printed["codex_settings"][0] == 'model_provider = "outlay"'


# -- Gemini CLI's settings --------------------------------------------------------------------------------------------

FAKE_GEMINI = '#!/bin/sh\necho "$GEMINI_CLI_HOME"\n'


async def gemini_home(folder: Path, home: Path, url: str) -> tuple[int, str, str]:
    """Run a command of the name `gemini` that prints the home it is given."""
    command = folder / "gemini"
    command.write_text(FAKE_GEMINI)
    command.chmod(0o755)
    return await outlay(folder, "run", "--ticket", "PAY-1", "--", str(command), OUTLAY_URL=url, HOME=str(home))


async def test_gemini_gets_a_home_that_accepts_the_key(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.answer(whole(ME | NAMED))
    home = tmp_path / "home"
    own = home / ".gemini"
    own.mkdir(parents=True)
    (own / "settings.json").write_text('{"ui": {"theme": "Dracula"}, "security": {"auth": {"selectedType": "x"}}}')
    (own / "GEMINI.md").write_text("of the user")
    (own / "tmp").mkdir()
    for _ in range(2):
        code, out, err = await gemini_home(tmp_path, home, upstream.url)
        assert code == 0, err
        ours = Path(out.strip()) / ".gemini"
        assert ours == home / ".cache/outlay/gemini/.gemini"
        settings = json.loads((ours / "settings.json").read_text())
        assert settings == {"ui": {"theme": "Dracula"}, "security": {"auth": {"selectedType": "gemini-api-key"}}}
        assert (ours / "GEMINI.md").read_text() == "of the user"
        (own / "tmp/session").touch()
        assert (ours / "tmp/session").exists()
    assert '"x"' in (own / "settings.json").read_text()


@pytest.mark.parametrize("settings", ['{"security": {"auth": {"selectedType": "gemini-api-key"}}}', "{} // mine"])
async def test_gemini_keeps_a_home_that_accepts_the_key_or_cannot_be_told(
    upstream: FakeUpstream, tmp_path: Path, settings: str
) -> None:
    upstream.answer(whole(ME | NAMED))
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini/settings.json").write_text(settings)
    code, out, err = await gemini_home(tmp_path, tmp_path, upstream.url)
    assert (code, out) == (0, "\n"), err


async def test_gemini_where_no_home_can_be_made(upstream: FakeUpstream, tmp_path: Path) -> None:
    upstream.answer(whole(ME | NAMED))
    (tmp_path / ".cache").write_text("a file")
    code, _, err = await gemini_home(tmp_path, tmp_path, upstream.url)
    assert (code, err) == (1, f"{tmp_path}/.cache/outlay/gemini/.gemini cannot be used: Not a directory\n")
