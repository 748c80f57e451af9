"""Local clones: commits of the default branch, what they take back, deployments from tags, what deployments carried.

Nothing is fetched and nothing of a clone is obeyed: no hook, pager, signature program, filter or fetch on demand.
Reading goes on at the last commit of the default branch that was stored. When that is on the branch no more (a forced
push), it goes on where both have parted, and what was taken out of the branch takes nothing back.
"""

import os
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from analytics import work
from analytics.sources import links
from analytics.sources.source import Batch, Given, Part, among
from gateway.errors import UserError

ALONE = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
}
IGNORED = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "core.attributesFile": os.devnull,
    "log.showSignature": "false",
    "log.mailmap": "false",
    "gpg.program": "false",
}
"""Settings of a clone that would run something, or change what is shown."""
COMMITS_MAX = 500
"""Whose messages are read at a time."""
MESSAGE_MAX = 2**20
OLDER_IN_A_ROW = 100
"""Commits of the branch that are older than what is read, before it is believed."""
SECONDS_MAX = 600.0
SETTLED_AFTER = timedelta(days=7)
"""A deployment that carried no pull request may still have carried one that is read later."""
HEADS = ("refs/remotes/origin/HEAD", "HEAD")


class Commit(NamedTuple):
    sha: str
    committed_at: datetime | None
    author: str
    message: str


class Clone:
    """One clone, as git shows it."""

    def __init__(self, repo: str, path: str, branch: str | None) -> None:
        self.repo, self._path = repo, Path(path).expanduser()
        self._branch = branch

    def head(self) -> str:
        """The newest commit of the default branch. Raises `UserError` when there is no such clone or branch."""
        if not self._path.is_dir():
            raise UserError(f"there is no clone in {self._path}: correct its path in [work.git.clones], or clone it")
        heads = HEADS if self._branch is None else (f"refs/remotes/origin/{self._branch}", f"refs/heads/{self._branch}")
        for name in heads:
            if found := self.commit(name):
                return found
        branch = f"branch {self._branch}" if self._branch else "commit"
        raise UserError(f"{self._path} is no clone with a {branch}: see [work.git] branch and clones")

    def commit(self, name: str) -> str | None:
        """The commit of that name, if it is there."""
        return self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip() or None

    @property
    def is_shallow(self) -> bool:
        return self._ask("rev-parse", "--is-shallow-repository").strip() == "true"

    def parted(self, one: str, other: str) -> str | None:
        """The newest commit that both have."""
        return next(iter(self._ask("merge-base", "--end-of-options", one, other).split()), None)

    def between(self, after: str | None, last: str) -> Iterator[list[str]]:
        """Commits that `last` has and `after` has not, the oldest first, each with its parents."""
        ends = [last, *([f"^{after}"] if after else [])]
        for line in self._told("rev-list", "--topo-order", "--reverse", "--parents", *ends).splitlines():
            yield line.split()

    def before(self, since: datetime, last: str) -> str | None:
        """The newest of the first parents that are older, so many in a row that no clock was wrong."""
        older: list[str] = []
        for line in self._told("rev-list", "--first-parent", "--timestamp", last).splitlines():
            seconds, sha = line.split()
            at = _moment(seconds)
            older = [*older, sha] if at and at < since else []
            if len(older) == OLDER_IN_A_ROW:
                break
        return next(iter(older), None)

    def commits(self, shas: Iterable[str]) -> Iterator[Commit]:
        shown = ("--format=%H%n%ct%n%ae%n%B", "--encoding=UTF-8", "--no-patch", "--no-show-signature", "--no-color")
        text = self._told("log", "-z", "--no-walk=unsorted", *shown, "--stdin", given="".join(f"{s}\n" for s in shas))
        for record in text.split("\0"):
            if record:
                sha, seconds, author, message = record[: MESSAGE_MAX + 512].split("\n", 3)
                yield Commit(sha, _moment(seconds), author, message)

    def tags(self, pattern: str) -> Iterator[tuple[str, str, datetime]]:
        """Name, commit and time of tags."""
        shown = "--format=%(refname:strip=2)%09%(objectname)%09%(*objectname)%09%(creatordate:unix)"
        for line in self._told("for-each-ref", shown, f"refs/tags/{pattern}").splitlines():
            name, object_name, tagged, seconds = line.split("\t")
            at = _moment(seconds)
            if at and (commit := self.commit(tagged or object_name)):
                yield name, commit, at

    def _told(self, command: str, *arguments: str, given: str = "") -> str:
        done = self._run(command, *arguments, given=given)
        if done.returncode != 0:
            raise UserError(f"{self._path} cannot be read: git {command} said: {_first_line(done.stderr)}")
        return done.stdout

    def _ask(self, command: str, *arguments: str) -> str:
        """Empty for a "no"."""
        done = self._run(command, *arguments)
        return done.stdout if done.returncode == 0 else ""

    def _run(self, command: str, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        own = self._path / ".git"
        settings = {**IGNORED, "safe.directory": str(self._path)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        folder = own if own.exists() else self._path
        try:
            return subprocess.run(  # noqa: S603 - fixed arguments, no shell
                ["git", "--no-pager", *options, "--git-dir", str(folder), command, *arguments],  # noqa: S607
                env={"PATH": os.environ.get("PATH", os.defpath), **ALONE},
                input=given, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS_MAX,
            )  # fmt: skip
        except FileNotFoundError:
            raise UserError("git is not installed: [work.git] needs it") from None
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{self._path} cannot be read: git {command} took longer than {SECONDS_MAX:.0f} s"
            ) from None


class Git:
    """The clones of `[work.git.clones]`."""

    name = "git"

    def __init__(self, given: Given) -> None:
        self._given, self._settings = given, given.settings.git

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def now(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None)

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        for repo in among(self._settings.clones, projects):
            clone = Clone(repo, self._settings.clones[repo], self._settings.branch)
            yield Part(f"{repo} commits", partial(self._commits, clone), goes_on=True)
            yield Part(f"{repo} deployments", partial(self._deployments, clone), goes_on=True)

    # -- commits -------------------------------------------------------------------------------------------------------

    def _commits(self, clone: Clone, cursor: Any, _: datetime | None) -> Iterator[Batch]:
        head = clone.head()
        problems = ["is a shallow clone: of what is older, nothing is known"] if clone.is_shallow else []
        after = clone.commit(cursor) if cursor else None
        taken_out: list[str] = []
        if after:
            taken_out = [sha for sha, *_ in clone.between(head, after)]
            after = clone.parted(after, head)
        after = after or clone.before(self.now() - timedelta(days=self._given.settings.history_days), head)
        graph = {sha: parents for sha, *parents in clone.between(after, head)}
        done, seen, group = 0, set[str](), list[list[str]]()
        mainline = list(_mainline(graph, head))
        for place, sha in enumerate(mainline):
            group.append([sha, *_merged(graph, sha, seen)])
            if sum(map(len, group)) >= COMMITS_MAX or place == len(mainline) - 1:
                rows = self._rows(clone, group)
                done += sum(map(len, group))
                reverting = [name for names in group for name in names] + taken_out
                yield Batch(rows, sha, {"reverts": reverting}, problems, done, len(graph))
                group, problems, taken_out = [], [], []
        if taken_out or problems:
            yield Batch({}, head, {"reverts": taken_out}, problems)

    def _rows(self, clone: Clone, groups: Sequence[Sequence[str]]) -> dict[str, list[work.Row]]:
        """Of commits of the branch, each before those that it merged."""
        first_of = {sha: names[0] for names in groups for sha in names}
        numbers: dict[str, int | None] = {}
        commits: list[work.Row] = []
        reverts: list[work.Row] = []
        for commit in clone.commits(first_of):
            first = first_of[commit.sha]
            if commit.sha == first:
                numbers[first] = links.pull_of(commit.message)
            number = numbers[first]
            commits.append(
                work.Commit(
                    sha=commit.sha,
                    repo=clone.repo,
                    author=commit.author[:255] or None,
                    committed_at=commit.committed_at,
                    message_subject=links.subject_of(commit.message),
                    tickets=list(self._given.keys.in_text(commit.message)),
                    pr_id=f"{clone.repo}!{number}" if number else None,
                )
            )
            reverts += links.reverts_of(
                commit.sha, clone.repo, commit.message, self._given.keys, at=commit.committed_at
            )
        settings = self._given.settings
        is_read_elsewhere = clone.repo in (*settings.github.repos, *settings.gitlab.projects)
        return {"reverts": reverts} if is_read_elsewhere else {"commits": commits, "reverts": reverts}

    # -- deployments ---------------------------------------------------------------------------------------------------

    def _deployments(self, clone: Clone, cursor: Any, _: datetime | None) -> Iterator[Batch]:
        """Those that tags tell of, and what deployments carried where a forge does not tell that. The cursor has those
        that are looked at no more, each with the commit that was deployed before."""
        clone.head()
        settled: dict[str, str] = cursor or {}
        if pattern := self._settings.deploy_tags:
            yield Batch({"deployments": [_tagged(clone.repo, *tag) for tag in clone.tags(pattern)]}, settled)
        carried: dict[str, list[str]] = {}
        problems: list[str] = []
        still, oldest = dict[str, str](), self.now() - SETTLED_AFTER
        for deployment, sha, before, at in self._given.ask("deployments_to_fill", {"repo": clone.repo}):
            if settled.get(deployment) == before:
                still[deployment] = before
            elif not (clone.commit(before) and clone.commit(sha)):
                problems.append(f"commits of the deployment {deployment} are not there: fetch the clone")
            else:
                carried[deployment] = [each for each, *_ in clone.between(before, sha)]
                if at < oldest:
                    still[deployment] = before
        shas = sorted({sha for each in carried.values() for sha in each})
        asked = self._given.ask("pulls_of_commits", {"repo": clone.repo, "shas": shas}) if shas else []
        pulls: dict[str, str] = dict(asked)
        rows: list[work.Row] = [
            work.DeploymentPr(deployment_id=deployment, pr_id=pull)
            for deployment, each in carried.items()
            for pull in sorted({pulls[sha] for sha in each if sha in pulls})
        ]
        yield Batch({"deployment_prs": rows}, still, {"deployment_prs": [*carried]}, problems)


def _tagged(repo: str, tag: str, sha: str, at: datetime) -> work.Deployment:
    return work.Deployment(
        deployment_id=f"{repo}@{tag}"[:255], repo=repo, environment="production", status="success",
        sha=sha, started_at=at, finished_at=at,
    )  # fmt: skip


def _mainline(graph: Mapping[str, Sequence[str]], head: str) -> list[str]:
    """From the oldest commit to the newest, by first parents."""
    line = []
    while head in graph:
        line.append(head)
        head = next(iter(graph[head]), "")
    return line[::-1]


def _merged(graph: Mapping[str, Sequence[str]], sha: str, seen: set[str]) -> list[str]:
    """What a commit of the main line brought in beside itself; `seen` is what came before."""
    seen.add(sha)
    found: list[str] = []
    ahead = list(graph[sha][1:])
    while ahead:
        if (each := ahead.pop()) in graph and each not in seen:
            seen.add(each)
            found.append(each)
            ahead += graph[each]
    return found


def _moment(seconds: str) -> datetime | None:
    """Commits can have any time; `None` for one that no table can hold."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "nothing")[:200]
