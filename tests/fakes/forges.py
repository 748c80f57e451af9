"""GitHub and GitLab, as far as comments go, on a real socket: pages, limits, failures, and comments that stay."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

TOKEN = "ghp_not-for-any-eye"
ME, SOMEBODY = 41898282, 583231


class Paths(NamedTuple):
    """Where a forge has what."""

    api: str
    pull: str
    comments: str
    comment: str
    change: str
    """Method that changes a comment."""


PATHS = {
    "github": Paths(
        api="/api/v3",
        pull="/repos/acme/shop/pulls/45",
        comments="/repos/acme/shop/issues/45/comments",
        comment="/repos/acme/shop/issues/comments/",
        change="PATCH",
    ),
    "gitlab": Paths(
        api="/api/v4",
        pull="/projects/acme%2Fshop/merge_requests/45",
        comments="/projects/acme%2Fshop/merge_requests/45/notes",
        comment="/projects/acme%2Fshop/merge_requests/45/notes/",
        change="PUT",
    ),
}


@dataclass
class FakeForge:
    """One pull request, acme/shop 45, of a forge."""

    kind: str
    comments: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 3
    """Fewer than asked for, as forges may."""
    is_app: bool = False
    """The token is an app's: it cannot ask who it is."""
    branch: str = "feature/PAY-7-x"
    failures: deque[tuple[str, int, dict[str, str]]] = field(default_factory=deque)
    """Method, status and header fields of answers to give first, each once."""
    lost: int = 0
    """So many comments are written, and yet a failure is answered."""
    before_post: Callable[[], object] = lambda: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Methods and paths."""
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATHS[self.kind].api}"

    def add(self, body: str, by: int = ME, type_: str = "User") -> dict[str, Any]:
        """A comment that somebody wrote."""
        person = {"id": by, "login": "x", "username": "x"} | ({"type": type_} if self.kind == "github" else {})
        with self._lock:
            number = max((comment["id"] for comment in self.comments), default=100) + 1
            comment = {"id": number, "body": body, "user" if self.kind == "github" else "author": person}
            self.comments.append(comment)
        return comment

    def own(self, marker: str) -> list[str]:
        return [comment["body"] for comment in self.comments if marker in comment["body"]]

    def written(self) -> list[str]:
        """Methods of the requests that changed something."""
        return [method for method, _ in self.requests if method != "GET"]


class Handler(BaseHTTPRequestHandler):
    """Serves `forge`."""

    protocol_version = "HTTP/1.1"
    forge: FakeForge

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _handle(self) -> None:
        forge, url = self.forge, urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(sent)["body"] if sent else ""
        forge.requests.append((self.command, url.path))
        for failure in list(forge.failures):
            if failure[0] == self.command:
                forge.failures.remove(failure)
                # Some servers do quote what they were sent.
                return self._answer(failure[1], {"message": self.headers.get("Authorization")}, failure[2])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"message": "Bad credentials"})
        at, asked = PATHS[forge.kind], (self.command, url.path.removeprefix(PATHS[forge.kind].api))
        if asked == ("GET", "/user"):
            return self._answer(403 if forge.is_app else 200, {"id": ME, "login": "outlay-bot"})
        if asked == ("GET", at.pull):
            return self._answer(
                200, {"head": {"ref": forge.branch}} if forge.kind == "github" else {"source_branch": forge.branch}
            )
        if asked == ("GET", at.comments):
            return self._page(parse_qs(url.query))
        if asked == ("POST", at.comments):
            forge.before_post()
            comment = forge.add(body, type_="Bot" if forge.is_app else "User")
            forge.lost -= 1
            return self._answer(201 if forge.lost < 0 else 502, comment)
        found = next((c for c in forge.comments if asked[1] == f"{at.comment}{c['id']}"), None)
        if found is not None and self.command == at.change:
            found["body"] = body
            return self._answer(200, found)
        if found is not None and self.command == "DELETE":
            forge.comments.remove(found)
            return self._answer(204, None)
        return self._answer(404, {"message": "Not Found"})

    def _page(self, query: dict[str, list[str]]) -> None:
        forge = self.forge
        assert query["per_page"] == ["100"]
        page = int(query.get("page", ["1"])[0])
        start = (page - 1) * forge.page_size
        shown = forge.comments[start : start + forge.page_size]
        fields = {}
        if start + forge.page_size < len(forge.comments):
            # Behind a proxy the address of the next page may name a host that nobody can reach, or should.
            there = "http://127.0.0.1:9/elsewhere"
            fields["Link"] = (
                f'<{there}?page=1&per_page=100>; rel="first", <{there}?page={page + 1}&per_page=100>; rel="next"'
            )
        self._answer(200, shown, fields)

    def _answer(self, status: int, body: Any, fields: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def fake_forge(kind: str) -> Iterator[FakeForge]:
    forge = FakeForge(kind)
    with serving(type("OfForge", (Handler,), {"forge": forge})) as port:
        forge.port = port
        yield forge


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server in threads, for clients that block. Gives its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
