"""Local clones as a source of work: repositories made by git itself, read by `outlay sync`'s runner."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from analytics import build, sync, work
from analytics.sources import git as git_source
from gateway.config import Config, GitHubSettings, GitSettings, WorkSettings
from tests import checkouts
from tests.checkouts import git

SHOP = "acme/shop"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "PAY-1 begin")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    work.prepare(folder)
    return folder


def commit(folder: Path, message: str, *options: str) -> str:
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message, *options)
    return git(folder, "rev-parse", "HEAD")


def read(data: Path, clone: Path, **settings: object) -> sync.Outcome:
    works = WorkSettings(git=GitSettings(clones={SHOP: str(clone)}, **settings))  # type: ignore[arg-type]
    (outcome,) = sync.sync(data, Config(work=works), ["git"])
    return outcome


def stored(data: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as db:
        build.create_views(db, data, build.load(build.MODELS / "work"))
        return db.execute(query).fetchall()


def test_commits_with_their_tickets_and_pull_requests(data: Path, clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "fix")
    commit(clone, "First part")
    commit(clone, "Second part\n\nTicket: PAY-2")
    git(clone, "checkout", "--quiet", "main")
    commit(clone, "Pay (#12)")
    git(clone, "merge", "--quiet", "--no-ff", "fix", "--message", "Merge pull request #13 from acme/fix\n\nPay more")
    outcome = read(data, clone)
    assert (outcome.failures, outcome.problems) == ([], [])
    assert outcome.tables["commits"].new == 5
    assert stored(data, "SELECT message_subject, tickets, pr_id, author FROM commits ORDER BY message_subject") == [
        ("First part", [], "acme/shop!13", "dev@example.com"),
        ("Merge pull request #13 from acme/fix", [], "acme/shop!13", "dev@example.com"),
        ("PAY-1 begin", ["PAY-1"], None, "dev@example.com"),
        ("Pay (#12)", [], "acme/shop!12", "dev@example.com"),
        ("Second part", ["PAY-2"], "acme/shop!13", "dev@example.com"),
    ]


def test_reading_goes_on_at_the_last_commit(data: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(data, clone)
    assert read(data, clone).tables == {}, "nothing is read again"
    commit(clone, "PAY-2", "--date", "2001-01-01T00:00:00Z")
    assert read(data, clone).tables["commits"] == work.Counts(new=1, changed=0, same=0, older=0, gone=0)


def test_a_wrong_clock_ends_no_history(data: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as wrong:
        wrong.setitem(checkouts.ALONE, "GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z")
        commit(clone, "PAY-2 in 2001")
    commit(clone, "PAY-3")
    read(data, clone)
    assert stored(data, "SELECT tickets FROM commits ORDER BY ALL") == [(["PAY-1"],), (["PAY-2"],), (["PAY-3"],)]


def test_what_is_older_is_not_read(data: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_source, "OLDER_IN_A_ROW", 2)
    with monkeypatch.context() as before:
        before.setitem(checkouts.ALONE, "GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z")
        git(clone, "checkout", "--quiet", "--orphan", "old")
        for number in (2, 3, 4):
            commit(clone, f"PAY-{number}")
    commit(clone, "PAY-5")
    read(data, clone)
    assert stored(data, "SELECT tickets FROM commits") == [(["PAY-5"],)]


def test_what_a_forced_push_took_out_takes_nothing_back(data: Path, clone: Path) -> None:
    first = commit(clone, "Pay (#12)")
    commit(clone, f'Revert "Pay (#12)"\n\nThis reverts commit {first}.')
    read(data, clone)
    assert stored(data, "SELECT pr_id, method FROM pr_reverts") == [("acme/shop!12", "commit")]
    git(clone, "reset", "--quiet", "--hard", "HEAD~1")
    commit(clone, "PAY-3 instead")
    read(data, clone)
    assert stored(data, "FROM reverts") == []
    assert stored(data, "SELECT tickets FROM commits WHERE message_subject = 'PAY-3 instead'") == [(["PAY-3"],)]


def test_a_commit_that_is_there_no_more_is_no_end(data: Path, clone: Path) -> None:
    read(data, clone)
    git(clone, "checkout", "--quiet", "--orphan", "other")
    commit(clone, "PAY-4 anew")
    git(clone, "branch", "--delete", "--force", "main")
    git(clone, "reflog", "expire", "--expire=now", "--all")
    git(clone, "gc", "--quiet", "--prune=now")
    assert read(data, clone).failures == []
    assert stored(data, "SELECT count(*) FROM commits") == [(2,)]


def test_what_deployments_carried(data: Path, clone: Path) -> None:
    git(clone, "tag", "v1")
    shas = [commit(clone, f"Pay (#{number})") for number in (12, 13)]
    git(clone, "tag", "--annotate", "v2", "--message", "two")
    commit(clone, "Pay (#14)")
    git(clone, "tag", "other")
    outcome = read(data, clone, deploy_tags="v*")
    assert (outcome.failures, outcome.problems) == ([], [])
    assert stored(data, "SELECT deployment_id, environment, status, sha FROM deployments ORDER BY ALL")[1] == (
        *("acme/shop@v2", "production", "success"),
        shas[1],
    )
    assert stored(data, "SELECT deployment_id, pr_id FROM deployment_prs ORDER BY ALL") == [
        ("acme/shop@v2", "acme/shop!12"),
        ("acme/shop@v2", "acme/shop!13"),
    ]
    again = read(data, clone, deploy_tags="v*")
    assert not any(counts.new or counts.changed or counts.gone for counts in again.tables.values())


def test_deployments_that_carried_nothing_are_looked_at_for_a_week(
    data: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("v1", "v2", "v3"):
        git(clone, "tag", name)
        commit(clone, f"No pull request before {name}")
    looked, between = list[str](), git_source.Clone.between

    def look(self: git_source.Clone, after: str | None, last: str) -> Iterator[list[str]]:
        looked.append(last)
        return between(self, after, last)

    monkeypatch.setattr(git_source.Clone, "between", look)
    read(data, clone, deploy_tags="v*")
    looked.clear()
    read(data, clone, deploy_tags="v*")
    fresh = [git(clone, "rev-parse", name) for name in ("v2", "v3")]
    assert [sha for sha in looked if sha in fresh] == fresh
    monkeypatch.setattr(git_source, "SETTLED_AFTER", -timedelta(days=7))
    read(data, clone, deploy_tags="v*")
    looked.clear()
    assert read(data, clone, deploy_tags="v*").failures == []
    assert [sha for sha in looked if sha in fresh] == []


def test_a_repository_that_a_forge_is_read_of_has_its_commits_from_there(data: Path, clone: Path) -> None:
    first = commit(clone, "Pay (#12)")
    commit(clone, f"Undo\n\nThis reverts commit {first}.")
    works = WorkSettings(git=GitSettings(clones={SHOP: str(clone)}), github=GitHubSettings(repos=[SHOP]))
    sync.sync(data, Config(work=works), ["git"])
    assert stored(data, "FROM commits") == []
    assert stored(data, "SELECT reference FROM reverts") == [(first,)]


def test_the_default_branch(data: Path, clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "topic")
    commit(clone, "PAY-9 not merged")
    read(data, clone, branch="main")
    assert stored(data, "SELECT tickets FROM commits") == [(["PAY-1"],)]
    (failure, other) = read(data, clone, branch="none").failures
    assert "no clone with a branch none" in failure
    assert "no clone with a branch none" in other


def test_a_bare_clone_is_read_by_the_branch_of_its_remote(data: Path, clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(clone), "bare.git")
    assert read(data, tmp_path / "bare.git").tables["commits"].new == 1


def test_a_shallow_clone_is_told(data: Path, clone: Path, tmp_path: Path) -> None:
    commit(clone, "PAY-2")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{clone}", "shallow")
    outcome = read(data, tmp_path / "shallow")
    assert "shallow" in outcome.problems[0]
    assert outcome.tables["commits"].new == 1


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_clone_is_one_line(data: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    elif what == "file":
        folder.write_text("x")
    failures = read(data, folder).failures
    assert len(failures) == 2
    assert str(folder) in failures[0]
    assert "\n" not in failures[0]


def test_nothing_of_a_clone_is_run(data: Path, clone: Path, tmp_path: Path) -> None:
    trap, sprung = tmp_path / "trap", tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\n")
    trap.chmod(0o755)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).symlink_to(trap)
    for name, value in {
        "core.fsmonitor": trap, "core.hooksPath": hooks, "core.pager": trap, "pager.log": trap, "diff.external": trap,
        "log.showSignature": "true", "gpg.program": trap, "core.sshCommand": trap, "core.alternateRefsCommand": trap,
        "alias.log": f"!{trap}", "format.pretty": "%h nothing", "log.diffMerges": "on",
        "remote.origin.url": f"ext::{trap}",
        "remote.origin.promisor": "true", "extensions.partialClone": "origin", "protocol.ext.allow": "always",
        "protocol.allow": "always",
    }.items():  # fmt: skip
        git(clone, "config", name, str(value))
    lost = git(clone, "rev-parse", "HEAD")
    object_file = clone / ".git" / "objects" / lost[:2] / lost[2:]
    git(clone, "tag", "v1")
    git(clone, "commit-graph", "write", "--reachable")
    sprung.unlink(missing_ok=True)  # by what this test itself did there
    assert read(data, clone, deploy_tags="v*").tables["commits"].new == 1
    object_file.chmod(0o644)
    object_file.unlink()  # git would fetch it
    assert read(data, clone, deploy_tags="v*").failures
    assert not sprung.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_clone_of_another_user_is_read(data: Path, clone: Path) -> None:
    for path in (clone, *clone.rglob("*")):
        os.chown(path, 12345, 12345)
    assert read(data, clone).tables["commits"].new == 1


@pytest.mark.parametrize("message", ["\x1f\x1e odd", "é" * 300], ids=["separators", "long"])
def test_odd_messages(data: Path, clone: Path, message: str) -> None:
    git(clone, "-c", "i18n.commitEncoding=latin-1", "commit", "--quiet", "--allow-empty", "--cleanup=verbatim",
        "--author", "x <>", "--message", message)  # fmt: skip
    outcome = read(data, clone)
    assert outcome.failures == []
    assert outcome.tables["commits"].new == 2
