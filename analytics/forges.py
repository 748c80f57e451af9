"""Comments on pull requests of GitHub and merge requests of GitLab, over their REST APIs.

What a forge refuses becomes one line that says what it needs. No line quotes an answer, so none can hold a token.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import msgspec

from analytics.sources.http import send
from analytics.sources.source import Patience
from gateway.errors import UserError

WAIT_MAX_SECONDS = 60.0
"""Longer than that, in all, nobody waits for a comment."""
PAGES_MAX = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class Forge:
    """How one forge differs from the other. Paths are below the address of its API."""

    name: str
    sign: str
    """Between repository and number: `acme/shop#45`, `acme/shop!45`."""
    api: str
    token_names: tuple[str, ...]
    """Environment variables that may hold the token, the first one that is set counts."""
    needs: str
    """What its token must be allowed."""
    pull: str
    comments: str
    comment: str
    edit: str
    """Method that changes a comment."""
    has_tokens_of_apps: bool
    """Tokens that belong to nobody: who they are cannot be asked."""


FORGES = {
    "github": Forge(
        name="GitHub",
        sign="#",
        api="https://api.github.com",
        token_names=("GITHUB_TOKEN", "GH_TOKEN"),
        needs="the permission `pull-requests: write` (in a workflow: permissions), and an unlocked conversation",
        pull="repos/{repo}/pulls/{number}",
        comments="repos/{repo}/issues/{number}/comments",
        comment="repos/{repo}/issues/comments/{id}",
        edit="PATCH",
        has_tokens_of_apps=True,
    ),
    "gitlab": Forge(
        name="GitLab",
        sign="!",
        api="https://gitlab.com/api/v4",
        token_names=("GITLAB_TOKEN",),
        needs="the scope `api` and at least the role Reporter (a job's own token may not comment)",
        pull="projects/{repo}/merge_requests/{number}",
        comments="projects/{repo}/merge_requests/{number}/notes",
        comment="projects/{repo}/merge_requests/{number}/notes/{id}",
        edit="PUT",
        has_tokens_of_apps=False,
    ),
}


WORKFLOW = "github-actions[bot]"
"""Who writes with the token of a GitHub Actions job."""


class _Person(msgspec.Struct):
    id: int
    login: str = ""


class Comment(msgspec.Struct):
    """A comment, as either forge shows it."""

    id: int
    body: str | None = None
    user: _Person | None = None
    author: _Person | None = None

    @property
    def writer(self) -> _Person | None:
        return self.user or self.author


class _Head(msgspec.Struct):
    ref: str


class _Pull(msgspec.Struct):
    head: _Head | None = None
    source_branch: str | None = None


class Pull:
    """One pull request and its comments. To be used as a context manager. All methods raise `UserError`."""

    def __init__(self, forge: Forge, api: str, token: str, repo: str, number: int, *, in_workflow: bool) -> None:
        self.name = f"{repo}{forge.sign}{number}"
        self._forge = forge
        self._api = api
        self._in_workflow = in_workflow
        self._me: _Person | None = None
        """Known once we have asked, or written."""
        self._place = {"repo": quote(repo, safe="/" if forge.name == "GitHub" else ""), "number": number}
        self._http = httpx.Client(
            base_url=api.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {token}", "User-Agent": "outlay", "Accept": "application/json"},
            timeout=30.0,
            follow_redirects=True,  # a repository that was renamed; to another host it goes without the token
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def head_branch(self) -> str:
        pull = self._read(self._send("GET", self._forge.pull), _Pull)
        return pull.source_branch or (pull.head.ref if pull.head else "")

    def own_comments(self, marker: str) -> list[Comment]:
        """Those that begin with the marker and that we wrote, oldest first: anybody can write a marker."""
        marked = [comment for comment in self._comments() if (comment.body or "").startswith(marker)]
        if not marked:
            return []
        if self._me is None:
            answer = self._send("GET", "user", allowed=(403,) if self._forge.has_tokens_of_apps else ())
            self._me = None if answer.status_code == 403 else self._read(answer, _Person)
        return sorted((comment for comment in marked if self._is_own(comment)), key=lambda comment: comment.id)

    def post(self, body: str) -> Comment:
        comment = self._read(self._send("POST", self._forge.comments, json={"body": body}), Comment)
        self._me = comment.writer
        return comment

    def edit(self, comment: Comment, body: str) -> None:
        self._send(self._forge.edit, self._forge.comment, comment.id, json={"body": body})

    def delete(self, comment: Comment) -> None:
        self._send("DELETE", self._forge.comment, comment.id, allowed=(404,))  # another run was faster

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _is_own(self, comment: Comment) -> bool:
        """An app that may not ask who it is knows its comments in a workflow by their writer's name, elsewhere only
        when it has written one: another app's are not for it to change."""
        writer = comment.writer
        if writer is None:
            return False
        return writer.id == self._me.id if self._me else self._in_workflow and writer.login == WORKFLOW

    def _comments(self) -> Iterator[Comment]:
        """All, page by page. Of a link to the next page only its query is followed, so never one to another host."""
        page: dict[str, Any] = {"per_page": "100"}
        for _ in range(PAGES_MAX):
            answer = self._send("GET", self._forge.comments, params=page)
            yield from self._read(answer, list[Comment])
            following = answer.links.get("next", {}).get("url")
            if following is None:
                return
            page = parse_qs(urlsplit(following).query)
        raise UserError(f"{self._forge.name} has no end of comments on {self.name}")

    def _send(
        self, method: str, path: str, comment: int = 0, *, allowed: Collection[int] = (), **options: Any
    ) -> httpx.Response:
        at = path.format(**self._place, id=comment)
        answer = send(self._http, self._forge.name, method, at, Patience(WAIT_MAX_SECONDS), **options)
        if answer.is_success or answer.status_code in allowed:
            return answer
        token, status = self._forge.token_names[0], answer.status_code
        known = {
            401: f"does not take the token in {token}: it may have ended, or be for another host",
            403: f"does not let the token in {token} do this on {self.name}: it needs {self._forge.needs}",
            404: f"shows the token in {token} no {self.name}: check --repo and --pr; it needs {self._forge.needs}",
        }
        why = known.get(status, f"answers {status} to {method} on {self.name}: try again later")
        raise UserError(f"{self._forge.name} ({self._api}) {why}")

    def _read(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise UserError(f"{self._api} does not answer like {self._forge.name}'s API: check --api") from None
