"""GitHub's API, as far as a sync reads it, on a real socket: pages with `Link`, limits, failures, repositories
that were renamed, issues that moved. Nothing happens by chance: what fails, and when, is said beforehand."""

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.forges import serving

TOKEN = "ghp_not-for-any-eye"
NOW = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
"""Times of what is there are before it."""
BOT = {"login": "renovate[bot]", "type": "Bot"}
RUNS_MAX = 1000


def ago(**span: float) -> str:
    """A moment before `NOW`, as GitHub writes it."""
    return f"{(NOW - timedelta(**span)).isoformat(timespec='seconds')}Z"


def person(name: str) -> dict[str, Any]:
    return {"login": name, "id": len(name), "type": "User"}


@dataclass
class FakeRepo:
    name: str
    id: int
    page_size: int = 100
    """GitHub may give fewer than asked for."""
    default_branch: str = "main"
    attributes: str | None = None
    issues: dict[int, Any] = field(default_factory=dict)
    pulls: dict[int, Any] = field(default_factory=dict)
    files: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    reviews: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    linked: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Tickets that pull requests are linked to by hand: `acme/shop#4`."""
    events: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    deployments: list[Any] = field(default_factory=list)
    statuses: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    compared: dict[str, list[Any]] = field(default_factory=dict)
    """Commits by `base...head`."""
    runs: list[Any] = field(default_factory=list)
    moved: dict[int, str] = field(default_factory=dict)
    """Issues that were transferred: path of each now."""

    def issue(self, number: int, *, days: float = 10, **fields: Any) -> dict[str, Any]:
        """An open one that was updated so many days ago."""
        self.issues[number] = {
            "number": number,
            "url": f"https://api.github.com/repos/{self.name}/issues/{number}",
            "html_url": f"https://github.com/{self.name}/issues/{number}",
            "title": f"Issue {number}",
            "state": "open",
            "state_reason": None,
            "user": person("ann"),
            "labels": [],
            "assignee": None,
            "assignees": [],
            "created_at": ago(days=days + 1),
            "updated_at": ago(days=days),
            "closed_at": None,
            "closed_by": None,
            **fields,
        }
        return self.issues[number]

    def pull(self, number: int, *, days: float = 10, branch: str = "fix", **fields: Any) -> dict[str, Any]:
        """An open one, with a file and a commit, that was updated so many days ago."""
        self.pulls[number] = {
            "number": number,
            "url": f"https://api.github.com/repos/{self.name}/pulls/{number}",
            "html_url": f"https://github.com/{self.name}/pull/{number}",
            "title": f"Pull request {number}",
            "body": None,
            "state": "open",
            "user": person("bob"),
            "head": {"ref": branch, "sha": f"{number:040x}", "repo": None},
            "base": {"ref": "main"},
            "created_at": ago(days=days + 1),
            "updated_at": ago(days=days),
            "merged_at": None,
            "closed_at": None,
            "merge_commit_sha": f"{number:039x}f",
            **fields,
        }
        self.issue(number, days=days, pull_request={"url": "…"}, title=self.pulls[number]["title"])
        self.files[number] = [{"filename": "app.py", "additions": number, "deletions": 1}]
        self.commits[number] = [self.commit(f"{number:040x}", f"Commit of {number}", days=days)]
        return self.pulls[number]

    @staticmethod
    def commit(sha: str, message: str, *, days: float = 10) -> dict[str, Any]:
        by = {"name": "Bob", "email": "bob@example.com", "date": ago(days=days)}
        return {"sha": sha, "commit": {"message": message, "author": by, "committer": by}, "author": person("bob")}

    def deploy(
        self, number: int, *states: str, sha: str = "", environment: str = "production", days: float = 10
    ) -> dict[str, Any]:
        """A deployment whose statuses came an hour after each other."""
        self.deployments.append(
            {
                "id": number,
                "sha": sha or f"{number:040x}",
                "environment": environment,
                "created_at": ago(days=days),
                "updated_at": ago(days=days, hours=-len(states)),
                "url": f"https://api.github.com/repos/{self.name}/deployments/{number}",
            }
        )
        self.statuses[number] = [
            {"state": state, "created_at": ago(days=days, hours=-hour)} for hour, state in enumerate(states, 1)
        ][::-1]
        return self.deployments[-1]

    def run(self, number: int, conclusion: str | None = "success", *, days: float = 10) -> dict[str, Any]:
        self.runs.append(
            {
                "id": number,
                "head_sha": f"{number:040x}",
                "head_branch": "main",
                "status": "completed" if conclusion else "in_progress",
                "conclusion": conclusion,
                "created_at": ago(days=days),
                "run_started_at": ago(days=days),
                "updated_at": ago(days=days, hours=-1),
                "html_url": f"https://github.com/{self.name}/actions/runs/{number}",
                "pull_requests": [],
            }
        )
        return self.runs[-1]


class Failure(NamedTuple):
    path: str
    """Regular expression: which requests fail."""
    status: int
    fields: dict[str, str] | None = None
    body: bytes | None = None


@dataclass
class FakeGitHub:
    repos: list[FakeRepo] = field(default_factory=list)
    renamed: dict[str, int] = field(default_factory=dict)
    """Former names of repositories, by id."""
    failures: deque[Failure] = field(default_factory=deque)
    """To answer first, each once."""
    broken: list[Failure] = field(default_factory=list)
    """To answer always."""
    ahead: timedelta = timedelta()
    """Of ours is its clock."""
    token: str = TOKEN
    before: Callable[[str], object] = lambda _: None
    """Called with the path of each request before it is answered."""
    requests: list[str] = field(default_factory=list)
    """Paths with queries."""
    port: int = 0

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v3"

    def add(self, name: str, **fields: Any) -> FakeRepo:
        self.repos.append(FakeRepo(name, 100 + len(self.repos), **fields))
        return self.repos[-1]

    def asked(self, pattern: str) -> list[str]:
        return [path for path in self.requests if re.search(pattern, path)]


class Handler(BaseHTTPRequestHandler):
    """Serves `github`."""

    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # head and body in one packet
    github: FakeGitHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((datetime.now(UTC) + self.github.ahead).timestamp())

    def do_GET(self) -> None:
        github, url = self.github, urlsplit(self.path)
        path = unquote(url.path.removeprefix("/api/v3"))
        if self._is_refused(path):
            return None
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if at := re.fullmatch(r"/repositories/(\d+)(.*)", path):
            found = next((repo for repo in github.repos if repo.id == int(at[1])), None)
            rest = at[2]
        else:
            at = re.fullmatch(r"/repos/([\w.-]+/[\w.-]+)(.*)", path)
            if at is None:
                return self._missing()
            rest = at[2]
            if at[1] in github.renamed:
                place = f"http://127.0.0.1:{github.port}/api/v3/repositories/{github.renamed[at[1]]}{rest}"
                return self._answer({}, 301, {"Location": f"{place}?{url.query}" if url.query else place})
            found = next((repo for repo in github.repos if repo.name.lower() == at[1].lower()), None)
        return self._of(found, rest, query) if found else self._missing()

    def do_POST(self) -> None:
        """GraphQL: what pull requests are linked to."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._is_refused(self.path):
            return None
        if self.path != "/api/graphql" or "closingIssuesReferences" not in asked["query"]:
            return self._missing()
        variables = asked["variables"]
        name = f"{variables['owner']}/{variables['name']}"
        repo = next((repo for repo in self.github.repos if repo.name.lower() == name.lower()), None)
        if repo is None or variables["number"] not in repo.pulls:
            return self._answer(
                {"data": {"repository": None}, "errors": [{"type": "NOT_FOUND", "path": ["repository"]}]}
            )
        places = [each.partition("#") for each in repo.linked[variables["number"]]]
        nodes = [{"number": int(number), "repository": {"nameWithOwner": name}} for name, _, number in places]
        found = {"closingIssuesReferences": {"nodes": nodes}}
        return self._answer({"data": {"repository": {"pullRequest": found}}})

    def _is_refused(self, path: str) -> bool:
        """Notes a request. True where it fails, as was said beforehand, and is answered."""
        github = self.github
        github.requests.append(self.path.removeprefix("/api/v3"))
        github.before(path)
        for failure in [*github.failures, *github.broken]:
            if re.search(failure.path, path):
                if failure in github.failures:
                    github.failures.remove(failure)
                # Some servers do quote what they were sent.
                quoted = json.dumps({"message": self.headers.get("Authorization")}).encode()
                self._send(failure.status, failure.body or quoted, failure.fields or {})
                return True
        if self.headers.get("Authorization") != f"Bearer {github.token}":
            self._answer({"message": "Bad credentials"}, 401)
            return True
        return False

    def _of(self, repo: FakeRepo, rest: str, query: dict[str, str]) -> None:
        if rest == "":
            return self._answer(
                {"id": repo.id, "full_name": repo.name, "default_branch": repo.default_branch, "has_issues": True}
            )
        if rest == "/issues":
            assert (query["state"], query["sort"], query["direction"]) == ("all", "created", "asc")
            since = query.get("since", "")
            listed = [issue for issue in repo.issues.values() if str((issue or {}).get("updated_at", "z")) >= since]
            return self._page(repo, sorted(listed, key=lambda each: str((each or {}).get("created_at"))), query)
        if rest == "/pulls":
            assert (query["state"], query["sort"], query["direction"]) == ("all", "updated", "desc")
            listed = sorted(repo.pulls.values(), key=lambda each: str(each.get("updated_at")), reverse=True)
            return self._page(repo, listed, query)
        if rest == "/deployments":
            return self._page(repo, sorted(repo.deployments, key=lambda each: -each["id"]), query)
        if at := re.fullmatch(r"/deployments/(\d+)/statuses", rest):
            return self._page(repo, repo.statuses[int(at[1])], query)
        if at := re.fullmatch(r"/issues/(\d+)", rest):
            number = int(at[1])
            if place := repo.moved.get(number):
                return self._answer({}, 301, {"Location": f"http://127.0.0.1:{self.github.port}/api/v3{place}"})
            return self._answer(repo.issues[number]) if number in repo.issues else self._answer({}, 410)
        if at := re.fullmatch(r"/issues/(\d+)/events", rest):
            return self._page(repo, repo.events[int(at[1])], query)
        if at := re.fullmatch(r"/pulls/(\d+)", rest):
            number = int(at[1])
            return self._answer(repo.pulls[number]) if number in repo.pulls else self._missing()
        if at := re.fullmatch(r"/pulls/(\d+)/(files|commits|reviews)", rest):
            return self._page(repo, getattr(repo, at[2])[int(at[1])], query)
        if at := re.fullmatch(r"/compare/(.+\.\.\..+)", rest):
            return self._page(repo, repo.compared.get(at[1], []), query, key="commits")
        if rest == "/contents/.gitattributes":
            return self._missing() if repo.attributes is None else self._send(200, repo.attributes.encode(), {})
        if rest == "/actions/workflows/deploy.yml/runs":
            first, _, last = query["created"].partition("..")
            listed = [run for run in repo.runs if first <= run["created_at"] <= last]
            listed = [run for run in listed if run["head_branch"] == query.get("branch", run["head_branch"])]
            return self._page(repo, listed[::-1], query, key="workflow_runs", most=RUNS_MAX)
        return self._missing()

    def _page(
        self, repo: FakeRepo, listed: list[Any], query: dict[str, str], *, key: str = "", most: int | None = None
    ) -> None:
        size, page = min(int(query["per_page"]), repo.page_size), int(query.get("page", "1"))
        if most is not None and page * size > most:
            self._answer({"message": "Only the first 1000 results are available"}, 422)
            return
        shown, fields = listed[(page - 1) * size : page * size], {}
        if page * size < len(listed):
            kept = "&".join(f"{name}={value}" for name, value in query.items() if name != "page")
            fields["Link"] = f'<http://127.0.0.1:9/elsewhere?{kept}&page={page + 1}>; rel="next"'
        self._answer({"total_count": len(listed), key: shown} if key else shown, 200, fields)

    def _missing(self) -> None:
        self._answer({"message": "Not Found"}, 404)

    def _answer(self, body: Any, status: int = 200, fields: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), fields or {})

    def _send(self, status: int, content: bytes, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def fake_github() -> Iterator[FakeGitHub]:
    github = FakeGitHub()
    with serving(type("OfGitHub", (Handler,), {"github": github})) as port:
        github.port = port
        yield github
