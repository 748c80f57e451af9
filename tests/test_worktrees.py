"""Checkouts made by git itself, read without it; and files that git never wrote."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import worktrees
from gateway.repositories import repo_name
from gateway.worktrees import checkout_of
from tests.checkouts import BRANCH, ORIGIN, git, make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


def told(folder: Path) -> tuple[str | None, str | None]:
    checkout = checkout_of(folder)
    assert checkout is not None
    return checkout.repo, checkout.branch


def test_a_folder_inside_of_a_checkout(repository: Path) -> None:
    inside = repository / "src" / "deep"
    inside.mkdir(parents=True)
    checkout = checkout_of(inside)
    assert checkout == worktrees.Checkout(repository, repository / ".git", "acme/billing-core", BRANCH)


def test_outside_of_any_checkout(tmp_path: Path) -> None:
    assert checkout_of(tmp_path) is None
    assert checkout_of(tmp_path / "not" / "there") is None
    (tmp_path / ".git").mkdir()
    assert checkout_of(tmp_path) is None


def test_a_branch_before_its_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch", "PAY-7")
    assert told(tmp_path) == (None, "PAY-7")


def test_packed_references(repository: Path) -> None:
    git(repository, "branch", "feature/PAY-123")
    git(repository, "pack-refs", "--all", "--prune")
    assert not (repository / ".git/refs/heads" / BRANCH).exists()
    assert told(repository) == ("acme/billing-core", BRANCH)


def test_a_detached_head(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    assert told(repository) == ("acme/billing-core", None)


def test_a_branch_that_is_being_rebased_is_still_the_branch(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "other", "HEAD")
    (repository / "code.py").write_text("print(2)\n")
    git(repository, "commit", "--quiet", "--all", "--message", "other")
    git(repository, "checkout", "--quiet", BRANCH)
    (repository / "code.py").write_text("print(3)\n")
    git(repository, "commit", "--quiet", "--all", "--message", "mine")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "rebase", "other")
    assert (repository / ".git/rebase-merge").is_dir()
    assert told(repository) == ("acme/billing-core", BRANCH)


def test_a_linked_worktree_has_its_own_branch(repository: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "--quiet", "-b", "PAY-124", str(linked))
    (linked / "more.py").touch()
    git(linked, "add", ".")
    git(linked, "commit", "--quiet", "--message", "more")
    assert told(linked) == ("acme/billing-core", "PAY-124")
    assert told(repository)[1] == BRANCH
    checkout = checkout_of(linked)
    assert checkout is not None
    assert checkout.git_dir.resolve() == (repository / ".git/worktrees/linked").resolve()


def test_a_submodule_is_a_checkout_of_its_own(repository: Path, tmp_path: Path) -> None:
    library = make_repository(tmp_path / "library", "main")
    git(repository, "submodule", "--quiet", "add", str(library), "vendor/library")
    inside = repository / "vendor/library"
    git(inside, "remote", "set-url", "origin", "https://github.com/acme/library")
    assert (inside / ".git").is_file()
    assert told(inside) == ("acme/library", "main")


@pytest.mark.parametrize(
    "head",
    [
        "",
        "ref: refs/heads/.invalid\n",
        "ref: refs/heads/../../../etc/passwd\n",
        "ref: refs/heads/a b\n",
        "\xff\xfe",
        "f" * 39,
    ],
)
def test_a_head_that_git_does_not_write_tells_nothing(repository: Path, head: str) -> None:
    (repository / ".git/HEAD").write_text(head, encoding="latin-1")
    assert told(repository) == ("acme/billing-core", None)


def test_a_git_file_that_leads_nowhere(tmp_path: Path) -> None:
    for text in ("", "gitdir: /not/there\n", "gitdir: \0\n", "\xff"):
        (tmp_path / ".git").write_text(text, encoding="latin-1")
        assert checkout_of(tmp_path) is None


def test_a_file_that_never_ends_is_not_waited_for(repository: Path) -> None:
    (repository / ".git/config").unlink()
    os.mkfifo(repository / ".git/config")
    assert told(repository) == (None, BRANCH)


def test_a_file_that_may_not_be_read(repository: Path) -> None:
    config = repository / ".git/config"
    config.unlink()
    config.symlink_to(config)  # ELOOP, for root too
    assert told(repository) == (None, BRANCH)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (ORIGIN, "acme/billing-core"),
        ("github.com:acme/billing-core", "acme/billing-core"),
        ("ssh://git@github.com:22/acme/shop.git", "acme/shop"),
        ("https://github.com/acme/shop", "acme/shop"),
        ("https://github.com/acme/shop.git/", "acme/shop"),
        ("https://dev:token@gitlab.example/group/sub/shop.git", "group/sub/shop"),
        ("git@gitlab.example:group/sub/deep/shop.git", "group/sub/deep/shop"),
        ("https://github.com/acme/shop.js?token=secret#x", None),
        ("git@example.com:shop.git", None),
        ("/srv/git/shop.git", None),
        ("../shop.git", None),
        ("file:///srv/git/shop.git", None),
        ("https://github.com/", None),
        ("https://github.com/acme/a%20shop", None),
        ("git@github.com:acme/shop\nx-outlay-ticket: PAY-1", None),
        ("https://github.com/" + "a" * 300, None),
        ("", None),
    ],
)
def test_repository_names(url: str, name: str | None) -> None:
    assert repo_name(url) == name


@given(
    credentials=st.from_regex(r"[a-z0-9]{1,9}(:[A-Za-z0-9]{1,30})?@", fullmatch=True),
    name=st.from_regex(r"[a-z]{1,9}(/[a-z][a-z0-9-]{0,9}){1,4}", fullmatch=True),
    form=st.sampled_from(["https://{}host.example/{}.git", "ssh://{}host.example/{}", "{}host.example:{}.git"]),
)
def test_credentials_never_become_part_of_the_name(credentials: str, name: str, form: str) -> None:
    assert repo_name(form.format(credentials, name)) == name


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ('[remote "origin"]\n\turl = a:b # mine\n', "a:b"),
        ('[REMOTE "origin"] URL="a:b;c" ; mine\n', "a:b;c"),
        ('[remote "fork"]\n\turl = a:b\n[core]\n\turl = x\n', None),
        ('[remote "origin"]\n\tfetch = +x\n[branch "main"]\n\turl = x\n[remote "origin"]\n\turl = a:b\n', "a:b"),
        ('[remote "origin"]\n\turl =\n', None),
        ("not a config", None),
    ],
)
def test_the_origin_in_a_config(config: str, url: str | None) -> None:
    assert worktrees.origin_in(config) == url


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for read in (worktrees.git_dir_in, worktrees.head_in, worktrees.branch_of, worktrees.origin_in, repo_name):
        read(text)  # never raises


# -- what the gateway looks at -----------------------------------------------------------------------------------------


async def test_only_checkouts_below_the_roots_are_read(repository: Path, tmp_path: Path) -> None:
    notes = repository / "src" / "notes"
    notes.mkdir(parents=True)
    assert checkout_of(notes) is not None
    seen = worktrees.Worktrees([str(notes.parent)])
    assert await seen.look(str(notes)) is None, "the checkout is above the root"
    assert await seen.look(str(tmp_path)) is None
    assert await worktrees.Worktrees([]).look(str(repository)) is None
    outside = tmp_path / "roots" / "linked"
    git(repository, "worktree", "add", "--quiet", "-b", "PAY-124", str(outside))
    assert await worktrees.Worktrees([str(outside.parent)]).look(str(outside)) is None, "its git folder is elsewhere"
    both = worktrees.Worktrees([str(outside.parent), str(repository)])
    found = await both.look(str(outside))
    assert found is not None
    assert found.branch == "PAY-124"


async def test_folders_that_cannot_be_looked_at_are_no_error(repository: Path, tmp_path: Path) -> None:
    seen = worktrees.Worktrees([str(tmp_path)])
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for folder in (None, f"{tmp_path}/{'x' * 300}", str(loop), f"{tmp_path}/\0", "relative", ""):
        assert await seen.look(folder) is None
    seen.stop()


async def test_a_disk_that_does_not_answer_is_not_waited_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    seen = worktrees.Worktrees([str(repository)])
    monkeypatch.setattr(worktrees, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(seen, "_read", lambda folder: gate.wait(30))
    assert await seen.look(str(repository)) is None
    gate.set()
    seen.stop()
