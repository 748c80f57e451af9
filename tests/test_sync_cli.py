"""`outlay sync` as people and the keeper run it: what it says, exit codes, a kill, rounds beside the gateway."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from analytics import lake, sync, work
from analytics.sources import http
from gateway.cli import outlay
from gateway.config import load
from gateway.errors import UserError
from tests.fakes.github import TOKEN, Failure, FakeGitHub, fake_github
from tests.test_sync_github import rows


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    monkeypatch.setenv("TRACKER_TOKEN", TOKEN)
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.001)
    with fake_github() as fake:
        shop = fake.add("acme/shop", page_size=2)
        for number in range(1, 6):
            shop.issue(number)
        shop.pull(11, title="Fixes #1")
        yield fake


@pytest.fixture
def config(github: FakeGitHub, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    path = tmp_path / "outlay.toml"
    path.write_text(
        f'[ledger]\ndir = "{tmp_path / "data"}"\n[work.github]\nrepos = ["acme/shop"]\ntoken = "env:TRACKER_TOKEN"\n'
        f'api = "{github.api}"\n[work]\nevery_minutes = 0.001\n'
    )
    return path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(outlay, ["sync", *arguments, "--config", str(config)])


def test_what_it_says(github: FakeGitHub, config: Path) -> None:
    ran = run(config)
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "github: tickets: 5 new, 0 changed, 0 same",
        "github: pull_requests: 1 new, 0 changed, 0 same",
        "github: pr_tickets: 1 new, 0 changed, 0 same",
        "github: commits: 1 new, 0 changed, 0 same",
        "github: reverts: 0 new, 0 changed, 0 same",
        "Nothing is known better of any call's ticket.",
    ]
    assert ran.stderr.splitlines() == [
        f"github: acme/shop {part}" for part in ("issues", "issues, ids", "pull requests", "deployments")
    ]
    again = json.loads(run(config, "github", "--json").stdout)
    assert again == {
        "sources": [{"source": "github", "tables": {}, "problems": [], "failures": []}], "attribution": []
    }  # fmt: skip
    assert run(config, "--full").stdout.startswith("github: tickets: 0 new, 0 changed, 5 same\n")


def test_a_source_that_fails(github: FakeGitHub, config: Path) -> None:
    github.broken.append(Failure("/pulls", 401))
    ran = run(config, "--json")
    [source] = json.loads(ran.stdout)["sources"]
    assert ran.exit_code == 1
    assert source["tables"]["tickets"]["new"] == 5
    assert source["failures"] == [ran.stderr.splitlines()[-1]]
    assert "does not take the token of [work.github] token: it may have ended" in ran.stderr
    assert TOKEN not in ran.output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["bitbucket"], 2, "'bitbucket' is not one of 'jira', "),
        (["jira"], 1, "[work.jira] does not say what to read; configured: github"),
    ],
)
def test_a_source_that_is_not_there(config: Path, arguments: list[str], code: int, says: str) -> None:
    ran = run(config, *arguments)
    said = ran.stderr if ran.exit_code == 2 else str(ran.exception)
    assert (ran.exit_code, says in said) == (code, True)


def test_nothing_is_configured(tmp_path: Path) -> None:
    (tmp_path / "outlay.toml").write_text("")
    ran = run(tmp_path / "outlay.toml")
    assert "no tracker is configured" in str(ran.exception)


def test_bars_on_a_terminal(github: FakeGitHub, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = run(config)
    assert (ran.exit_code, "github: acme/shop pull requests" in ran.stderr, "\x1b[" in ran.stderr) == (0, True, True)


def test_two_at_a_time(github: FakeGitHub, config: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def before(path: str) -> None:
        if path.endswith("/issues") and not said:
            with pytest.raises(UserError) as refused:
                sync.sync(tmp_path / "data", load(config), ["github"])
            said.append(str(refused.value))

    github.before = before
    assert run(config).exit_code == 0
    assert said == ["another sync of this data folder is under way"]


def test_a_kill_loses_nothing(github: FakeGitHub, config: Path, tmp_path: Path) -> None:
    """kill -9 while an answer is waited for; what the next one reads is what one without a kill reads."""
    begun, go_on = threading.Event(), threading.Event()

    def before(path: str) -> None:
        if "/pulls/11/files" in path:
            begun.set()
            go_on.wait(60)

    github.before = before
    command = [sys.executable, "-m", "gateway", "sync", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        assert begun.wait(60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        go_on.set()
    assert [row["ticket_id"] for row in rows(tmp_path / "data", "tickets")] == [f"acme/shop#{n}" for n in range(1, 6)]
    github.before = lambda _: None
    before_count = len(github.requests)
    assert run(config).exit_code == 0
    assert [row["additions"] for row in rows(tmp_path / "data", "pull_requests")] == [11]
    assert "since=" in next(path for path in github.requests[before_count:] if "/issues?" in path)


def test_the_keeper_reads_beside_its_rounds(
    github: FakeGitHub, config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    lake.publish(data)
    github.failures.append(Failure("/deployments$", 404))
    with sync.syncing(data, load(config)):
        _wait_for(lambda: len(github.asked("/deployments")) > 3)
    assert len(rows(data, "tickets")) == 5
    said = [record.message for record in caplog.records if record.name == "outlay.sync"]
    assert len(said) == 1
    assert "does not show repos/acme/shop/deployments" in said[0]


def test_the_keeper_logs_no_request(github: FakeGitHub, config: Path, tmp_path: Path) -> None:
    work.prepare(tmp_path / "data")
    command = [sys.executable, "-m", "analytics", "--data", str(tmp_path / "data"), "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as keeper:
        try:
            _wait_for(lambda: github.asked("/deployments"))
        finally:
            keeper.terminate()
        _, errors = keeper.communicate(timeout=60)
    assert keeper.returncode == 0
    assert b"HTTP Request" not in errors


def test_the_keeper_ends_while_a_limit_is_waited_for(github: FakeGitHub, config: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    lake.publish(data)
    github.broken.append(Failure("/pulls$", 429, {"Retry-After": "3000"}))
    with sync.syncing(data, load(config)):
        _wait_for(lambda: bool(github.asked("/pulls")))
    assert len(github.asked("/pulls")) == 1
    assert len(rows(data, "tickets")) == 5


def test_nothing_is_read_where_nothing_is_configured(tmp_path: Path) -> None:
    (tmp_path / "outlay.toml").write_text("")
    threads = threading.active_count()
    with sync.syncing(tmp_path, load(tmp_path / "outlay.toml")):
        assert threading.active_count() == threads


def _wait_for(what: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
