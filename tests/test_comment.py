"""`outlay comment`, as a CI job runs it: a gateway with its keeper, and forges that page, limit and fail."""

import asyncio
import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import forges, live
from analytics.comment import MARKER, Part, Place, Spend, amount, code, place_of, render
from analytics.sources import http
from gateway import cli
from gateway.call import Call
from tests.conftest import Running
from tests.fakes.forges import ME, SOMEBODY, TOKEN, FakeForge, fake_forge, serving
from tests.journals import call, segment
from tests.test_live import wait_for

NOW = datetime.now(UTC)
VARIABLES = re.compile(r"(GITHUB|GH|GITLAB|CI|OUTLAY)_.*|CI")


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CI job runs the tests."""
    for name in list(os.environ):
        if VARIABLES.fullmatch(name):
            monkeypatch.delenv(name)
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.01)


@pytest.fixture(params=["github", "gitlab"])
def forge(request: pytest.FixtureRequest) -> Iterator[FakeForge]:
    with fake_forge(request.param) as fake:
        yield fake


@pytest.fixture
def github() -> Iterator[FakeForge]:
    with fake_forge("github") as fake:
        yield fake


def job(monkeypatch: pytest.MonkeyPatch, forge: FakeForge, gateway: str, key: str) -> None:
    """The variables of a CI job of the pull request."""
    variables = {"OUTLAY_URL": gateway, "OUTLAY_KEY": key}
    if forge.kind == "github":
        variables |= {"GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "45/merge", "GITHUB_API_URL": forge.api}
        variables |= {"GITHUB_TOKEN": TOKEN}
    else:
        variables |= {"CI_PROJECT_PATH": "acme/shop", "CI_MERGE_REQUEST_IID": "45", "CI_API_V4_URL": forge.api}
        variables |= {"GITLAB_TOKEN": TOKEN}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run(forge: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the command in a job of the forge's pull request, with a gateway that always says the same."""
    with a_gateway() as url:
        job(monkeypatch, forge, url, KEY)
        yield lambda *arguments: once(capsys, *arguments)


def once(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run the command. Nothing it prints ever shows the token or the key, or where it is in the program."""
    with pytest.raises(SystemExit) as end:
        cli.main(["comment", *arguments])
    assert isinstance(end.value.code, int)
    ran = Ran(end.value.code, *capsys.readouterr())
    for hidden in (TOKEN, os.environ.get("OUTLAY_KEY") or KEY, "Traceback"):
        assert hidden not in ran.out + ran.err
    return ran


@contextlib.contextmanager
def a_gateway(me: Any = None, asked: list[str] | None = None) -> Iterator[str]:
    """What a gateway answers: this to `me`, and the same about each ticket. Keeps what it is asked."""

    class Gateway(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            body = json.dumps(me) if "/me?" in self.path else TICKET % json.dumps(self.path.rpartition("/")[2])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    with serving(Gateway) as port:
        yield f"http://127.0.0.1:{port}/outlay/"


KEY = "olk_not-for-any-eye"
TICKET = """{"ticket_id":%s,"ticket_state":"known","list_cost_usd":1.500000001,"calls":3,"unpriced_calls":1,"tasks":2,
"first_call_at":"2026-11-20T11:00:00Z","last_call_at":"2026-11-20T11:59:00Z",
"models":[{"model":"claude-x","calls":3,"unpriced_calls":1,"list_cost_usd":1.500000001}],
"sources":[{"ticket_source":"branch","calls":3,"list_cost_usd":1.500000001}],"as_of":"2026-11-20T12:00:00Z"}"""


# -- one comment -------------------------------------------------------------------------------------------------------


async def test_it_is_written_once_and_kept_current(
    gateway: Running, forge: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def branch_call(tickets: tuple[str, ...], nano: int) -> Call:
        return call(NOW, tickets=tickets, task_id="t1", list_cost_nano=nano, ticket_source="branch", request_model="x")

    unpriced = call(NOW, tickets=("PAY-7",), task_id="t2", list_cost_nano=None, price_status="unpriced",
                    ticket_source="header", request_model="y")  # fmt: skip
    segment(
        gateway.dir,
        [branch_call(("PAY-7", "PAY-8"), 3_000_000_001), branch_call(("PAY-7",), 1), unpriced],
        at=NOW - timedelta(days=1),
        gateway_id="gw-2",
    )
    job(monkeypatch, forge, gateway.url, gateway.key)
    forge.add("First!", by=SOMEBODY)
    both = ("--ticket", "PAY-7", "--ticket", "PAY-8")
    with live.serving(gateway.dir):
        await asyncio.to_thread(wait_for, gateway.dir)
        assert await asyncio.to_thread(once, capsys, *both) == (0, f"{name_of(forge)}: created\n", "")
        [body] = forge.own(MARKER)
        assert body.splitlines()[0] == MARKER
        assert body.splitlines()[5:7] == [
            "| `PAY-7` | 1.50 | 3 | 1 | 2 | `branch` 2, `header` 1 | `x` 1.50, `y` unpriced |",
            "| `PAY-8` | 1.50 | 1 | 0 | 1 | `branch` 1 | `x` 1.50 |",
        ]
        assert "List prices" in body
        assert "counted as unpriced" in body
        assert re.search(r"<sub>Computed 20\d\d-\d\d-\d\d \d\d:\d\d UTC by Outlay</sub>", body)
        assert "dev-1" not in body

        before = len(forge.requests)
        assert (await asyncio.to_thread(once, capsys, *both)).out == f"{name_of(forge)}: unchanged\n"
        assert all(method == "GET" for method, _ in forge.requests[before:])

        segment(gateway.dir, [branch_call(("PAY-8",), 10**10)], at=NOW - timedelta(days=2), gateway_id="gw-2")
        await asyncio.sleep(live.FRESH_SECONDS + 0.1)
        ran = await asyncio.to_thread(once, capsys, *both, "--json")
    found = json.loads(ran.out, parse_float=Decimal)
    assert (found["pull_request"], found["did"]) == (name_of(forge), "updated")
    assert [ticket["list_cost_usd"] for ticket in found["tickets"]] == [Decimal("1.500000002"), Decimal("11.500000000")]
    [body] = forge.own(MARKER)
    assert body == found["body"]
    assert "| `PAY-8` | 11.50 | 2 |" in body
    assert forge.written() == ["POST", "PATCH" if forge.kind == "github" else "PUT"]
    assert len(forge.comments) == 2


def name_of(forge: FakeForge) -> str:
    return "acme/shop#45" if forge.kind == "github" else "acme/shop!45"


def test_another_time_or_other_line_ends_are_no_change(forge: FakeForge, run: Run) -> None:
    run("--ticket", "PAY-7")
    [comment_] = forge.comments
    comment_["body"] = re.sub(r"Computed .{16}", "Computed 2020-01-01 00:00", comment_["body"]).replace("\n", "  \r\n")
    assert run("--ticket", "PAY-7").out.endswith(": unchanged\n")
    comment_["body"] = comment_["body"].replace("1.50", "0.01")
    assert run("--ticket", "PAY-7").out.endswith(": updated\n")
    assert "1.50" in comment_["body"]


def test_it_is_found_on_any_page(forge: FakeForge, run: Run) -> None:
    for number in range(7):
        forge.add(f"Comment {number}", by=SOMEBODY)
    run("--ticket", "PAY-7")
    for number in range(4):
        forge.add(f"Later comment {number}", by=SOMEBODY)
    assert run("--ticket", "PAY-7").out.endswith(": unchanged\n")
    assert len(forge.own(MARKER)) == 1


def test_pages_without_end(forge: FakeForge, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forges, "PAGES_MAX", 2)
    for number in range(7):
        forge.add(f"Comment {number}", by=SOMEBODY)
    ran = run("--ticket", "PAY-7")
    assert (ran.code, "has no end of comments on acme/shop" in ran.err) == (1, True)
    assert forge.written() == []


def test_what_others_wrote_is_left_alone(forge: FakeForge, run: Run) -> None:
    """Anybody can write a marker, and quote a comment."""
    forge.add(f"{MARKER}\nOutlay says this was free", by=SOMEBODY)
    forge.add(f"I do not understand this:\n{MARKER}\n| `PAY-7` |", by=ME)
    others = [comment_["body"] for comment_ in forge.comments]
    for did in ("created", "unchanged"):
        assert run("--ticket", "PAY-7").out.endswith(f": {did}\n")
    assert [comment_["body"] for comment_ in forge.comments[:2]] == others
    assert len(forge.comments) == 3


def test_the_token_of_a_workflow_knows_its_comment(
    github: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may not ask who it is."""
    github.is_app = True
    github.add(f"{MARKER}\nof a person", by=SOMEBODY)
    github.add(f"{MARKER}\nof another app", by=SOMEBODY, login="other[bot]")
    others = list(github.comments)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with a_gateway() as url:
        job(monkeypatch, github, url, KEY)
        for did in ("created", "unchanged"):
            assert once(capsys, "--ticket", "PAY-7").out.endswith(f": {did}\n")
    assert github.comments[:-1] == others
    assert github.written() == ["POST"]


@pytest.mark.parametrize("where", ["true", None])
def test_the_token_of_another_app_touches_its_own_comments_alone(
    github: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str | None
) -> None:
    """Who it is shows in what it writes."""
    github.is_app, github.login = True, "costs[bot]"
    github.add(f"{MARKER}\nof another app", by=SOMEBODY, login="other[bot]")
    own = github.add(f"{MARKER}\nold")
    others = [github.comments[0]]
    if where:
        monkeypatch.setenv("GITHUB_ACTIONS", where)
    else:
        others.append(github.add(f"{MARKER}\nof a workflow", by=SOMEBODY, login="github-actions[bot]"))
    others = [dict(comment_) for comment_ in others]
    with a_gateway() as url:
        job(monkeypatch, github, url, KEY)
        for _ in range(2):
            assert once(capsys, "--ticket", "PAY-7").code == 0
    assert [comment_ for comment_ in github.comments if comment_ != own] == others
    assert "`PAY-7`" in own["body"]


def test_two_at_once_leave_one(forge: FakeForge, run: Run) -> None:
    """Both see no comment, and both write one."""
    both = threading.Barrier(2, timeout=20)
    forge.before_post = both.wait
    with ThreadPoolExecutor() as threads:
        ran = list(threads.map(lambda _: run("--ticket", "PAY-7"), range(2)))
    assert [each.code for each in ran] == [0, 0]
    assert forge.written().count("POST") == 2
    assert len(forge.own(MARKER)) == 1


def test_the_oldest_of_several_is_kept(forge: FakeForge, run: Run) -> None:
    for number in range(5):
        forge.add(f"{MARKER}\nold {number}")
    oldest = forge.comments[0]
    assert run("--ticket", "PAY-7").out.endswith(": updated\n")
    assert forge.comments == [oldest]
    assert "`PAY-7`" in oldest["body"]


def test_a_dry_run_writes_nothing(forge: FakeForge, run: Run) -> None:
    ran = run("--ticket", "PAY-7", "--dry-run")
    assert ran.out.startswith(f"{MARKER}\n")
    assert "| `PAY-7` | 1.50 |" in ran.out
    assert forge.requests == []


# -- the tickets of a branch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tickets", [["PAY-7"], ["PAY-7", "OPS-1"], []])
def test_they_are_those_that_the_gateway_reads_in_it(
    forge: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tickets: list[str]
) -> None:
    asked: list[str] = []
    me = {"key_id": "key_1", "branch_tickets": [{"ticket_id": name, "ticket_state": "known"} for name in tickets]}
    with a_gateway(me, asked) as url:
        job(monkeypatch, forge, url, "olk_x")
        ran = once(capsys)
    assert ran.code == 0
    assert asked[0] == "/outlay/-/api/v1/me?branch=feature%2FPAY-7-x&repo=acme%2Fshop"
    assert asked[1:] == [f"/outlay/-/api/v1/tickets/{name}" for name in tickets]
    if tickets:
        assert all(
            f"| `{name}` | 1.50 | 3 | 1 | 2 | `branch` 3 | `claude-x` 1.50 |" in forge.own(MARKER)[0]
            for name in tickets
        )
        assert "<sub>Computed 2026-11-20 12:00 UTC by Outlay</sub>" in forge.own(MARKER)[0]
    else:
        assert (
            ran.out == f"{name_of(forge)}: its branch names no ticket, so nothing was written; name one with --ticket\n"
        )
        assert forge.written() == []


# -- forges that are busy, broken, or say no ---------------------------------------------------------------------------

NO_ROOM = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}


@pytest.mark.parametrize(
    "failures",
    [
        [("GET", 429, {"Retry-After": "0"}), ("POST", 429, {"Retry-After": "0"})],
        [("GET", 403, {"Retry-After": "0"}), ("POST", 403, NO_ROOM)],
        [("GET", 502, {}), ("GET", 503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), ("POST", 500, {})],
        [("POST", 503, {"Retry-After": "soon"})] * 3,
    ],
)
def test_passing_failures_are_waited_out(
    forge: FakeForge, run: Run, failures: list[tuple[str, int, dict[str, str]]]
) -> None:
    forge.failures.extend(failures)
    assert run("--ticket", "PAY-7") == (0, f"{name_of(forge)}: created\n", "")
    assert len(forge.own(MARKER)) == 1
    assert not forge.failures


def test_an_answer_that_was_lost_leaves_no_second_comment(forge: FakeForge, run: Run) -> None:
    forge.lost = 2
    assert run("--ticket", "PAY-7") == (0, f"{name_of(forge)}: created\n", "")
    assert forge.written() == ["POST", "POST", "POST", "DELETE", "DELETE"]
    assert len(forge.own(MARKER)) == 1


@pytest.mark.parametrize(
    ("failure", "tries", "says"),
    [
        (("GET", 502, {}), 4, r"\) answers 502 to GET on acme/shop.45: try again later"),
        (("GET", 429, {"Retry-After": "3600"}), 1, r"asks to wait for 3,600 s: try again then"),
        (("GET", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}), 1, "asks to wait for"),
        (("GET", 401, {}), 1, r"does not take the token in GIT(HUB|LAB)_TOKEN: it may have ended"),
        (("GET", 403, {}), 1, r"does not let the token in GIT(HUB|LAB)_TOKEN do this on acme/shop.45: it needs the"),
        (("POST", 403, {}), 1, r"it needs the (permission `pull-requests: write`|scope `api`)"),
        (("GET", 404, {}), 1, r"shows the token in GIT(HUB|LAB)_TOKEN no acme/shop.45: check --repo and --pr"),
        (("POST", 422, {}), 1, r"answers 422 to POST on acme/shop.45"),
    ],
)
def test_what_cannot_be_helped_is_one_line(
    forge: FakeForge, run: Run, failure: tuple[str, int, dict[str, str]], tries: int, says: str
) -> None:
    forge.failures.extend([failure] * 9)
    ran = run("--ticket", "PAY-7")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert re.search(says, ran.err)
    assert forge.api in ran.err or "127.0.0.1" in ran.err
    assert len(forge.failures) == 9 - tries


def test_a_token_that_cannot_ask_who_it_is_writes_no_second_comment(forge: FakeForge, run: Run) -> None:
    forge.add(f"{MARKER}\nold")
    forge.is_app = True
    ran = run("--ticket", "PAY-7")
    if forge.kind == "gitlab":
        assert (ran.code, "it needs the scope `api`" in ran.err) == (1, True)
        assert forge.written() == []
    else:
        assert ran.out.endswith(": updated\n")  # what it writes shows that the old one is its own
        assert len(forge.own(MARKER)) == 1


def test_a_wrong_token(forge: FakeForge, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "GITLAB_TOKEN"):
        monkeypatch.setenv(name, "ghp_of-somebody-else")
    ran = run("--ticket", "PAY-7")
    assert (ran.code, "does not take the token" in ran.err, "ghp_" in ran.err) == (1, True, False)
    for name in ("GITHUB_TOKEN", "GITLAB_TOKEN"):
        monkeypatch.setenv(name, "two words\n")
    ran = run("--ticket", "PAY-7")
    assert (ran.code, "holds what no token and no key can" in ran.err, "two words" in ran.err) == (1, True, False)
    for name in ("GITHUB_TOKEN", "GITLAB_TOKEN"):
        monkeypatch.delenv(name)
    ran = run("--ticket", "PAY-7")
    assert re.fullmatch(r"set GIT(HUB|LAB)_TOKEN to a token of Git(Hub|Lab); it needs the .*\n", ran.err)


def test_another_host_does_not_get_the_token(forge: FakeForge, run: Run) -> None:
    with fake_forge(forge.kind) as other:
        other.add(f"{MARKER}\nnot ours")
        forge.failures.append(("GET", 307, {"Location": f"{other.api}/user"}))
        ran = run("--ticket", "PAY-7")
    assert other.requests[0][0] == "GET"
    assert (ran.code, "does not take the token" in ran.err) == (1, True)  # it came without one


@pytest.mark.parametrize("where", ["nobody", "a page"])
def test_what_is_no_forge(forge: FakeForge, run: Run, where: str) -> None:
    api = "http://127.0.0.1:9" if where == "nobody" else forge.api.removesuffix("/v3").removesuffix("/v4") + "/x"
    ran = run("--ticket", "PAY-7", "--api", api)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ("cannot be reached at 127.0.0.1" if where == "nobody" else "check --repo and --pr") in ran.err


# -- gateways that say no ----------------------------------------------------------------------------------------------


async def test_a_gateway_without_its_control_plane(
    gateway: Running, github: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(monkeypatch, github, gateway.url, gateway.key)
    ran = await asyncio.to_thread(once, capsys, "--ticket", "PAY-7")
    assert (ran.code, "the control plane, which knows the spend, is not running" in ran.err) == (1, True)
    assert github.written() == []


async def test_a_wrong_key_or_name(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTLAY_URL", gateway.url)
    refused = f"the gateway at {gateway.url} wants a gateway key that is in force: set OUTLAY_KEY\n"
    for key in ("", "olk_wrong"):
        monkeypatch.setenv("OUTLAY_KEY", key)
        assert await asyncio.to_thread(once, capsys, "--ticket", "PAY-7", "--dry-run") == (1, "", refused)
    monkeypatch.setenv("OUTLAY_KEY", gateway.key)
    ran = await asyncio.to_thread(once, capsys, "--ticket", "x" * 600, "--dry-run")
    assert ran == (1, "", "Outlay: a name has at most 512 characters, and no control characters.\n")


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    ran = once(capsys, "--ticket", "PAY-7", "--dry-run", "--url", "http://127.0.0.1:9")
    assert ran == (1, "", "the gateway cannot be reached at 127.0.0.1\n")


def test_what_is_no_gateway(github: FakeForge, capsys: pytest.CaptureFixture[str]) -> None:
    ran = once(capsys, "--ticket", "PAY-7", "--dry-run", "--url", github.api)
    assert (ran.code, "the gateway at" in ran.err) == (1, True)


# -- which pull request ------------------------------------------------------------------------------------------------

EVENT = {"GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "main", "GITHUB_EVENT_PATH": "EVENT"}


@pytest.mark.parametrize(
    ("environ", "given", "found"),
    [
        (
            {"GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "45/merge"},
            {},
            ("github", "acme/shop", 45, "https://api.github.com"),
        ),
        (EVENT | {"GITHUB_API_URL": "https://h/api/v3"}, {}, ("github", "acme/shop", 46, "https://h/api/v3")),
        (EVENT, {"number": 7}, ("github", "acme/shop", 7, "https://api.github.com")),
        (EVENT, {"repo": "acme/other"}, "name its number with --pr"),
        (EVENT, {"forge": "gitlab"}, "name the repository"),
        ({"GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "main"}, {}, "name its number with --pr"),
        ({"GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "0/merge"}, {}, "name its number with --pr"),
        (
            {"CI_PROJECT_PATH": "a/b/shop", "CI_MERGE_REQUEST_IID": "3", "CI_API_V4_URL": "https://h/api/v4"},
            {},
            ("gitlab", "a/b/shop", 3, "https://h/api/v4"),
        ),
        (
            {"CI_PROJECT_PATH": "me/fork", "CI_MERGE_REQUEST_PROJECT_PATH": "a/shop", "CI_MERGE_REQUEST_IID": "3"},
            {},
            ("gitlab", "a/shop", 3, "https://gitlab.com/api/v4"),
        ),
        ({"CI_PROJECT_PATH": "a/shop"}, {}, "name its number with --pr"),
        ({}, {"forge": "github", "repo": "a/b", "number": 1, "api": "http://h"}, ("github", "a/b", 1, "http://h")),
        ({}, {"repo": "a/b", "number": 1}, "say which pull request"),
        ({}, {"forge": "github", "repo": "b", "number": 1}, "name the repository like acme/shop"),
        ({}, {"forge": "github", "repo": "a/../x y", "number": 1}, "name the repository like acme/shop"),
        ({}, {"forge": "github", "repo": "a/b", "number": 1, "api": "ftp://x"}, "write an address like https://api"),
        ({}, {"forge": "github", "repo": "a/b", "number": 1, "api": "http://x:y"}, "write an address like"),
    ],
)
def test_a_job_tells_which(tmp_path: Path, environ: dict[str, str], given: dict[str, Any], found: Any) -> None:
    (tmp_path / "event.json").write_text('{"action": "opened", "pull_request": {"number": 46, "title": "x"}}')
    environ = {name: str(tmp_path / "event.json") if value == "EVENT" else value for name, value in environ.items()}
    asked = {"forge": None, "repo": None, "number": None, "api": None} | given
    if isinstance(found, tuple):
        assert place_of(environ, **asked) == Place(*found)
    else:
        with pytest.raises(click.UsageError, match=found):
            place_of(environ, **asked)


@pytest.mark.parametrize("event", ["[]", "{", '{"pull_request": null}', '{"pull_request": {"number": "x"}}', "\xff"])
def test_events_of_other_kinds(tmp_path: Path, event: str) -> None:
    path = tmp_path / "event.json"
    path.write_text(event, encoding="latin-1")
    with pytest.raises(click.UsageError, match="name its number with --pr"):
        place_of(EVENT | {"GITHUB_EVENT_PATH": str(path)}, None, None, None, None)


def test_a_wrong_option_is_a_matter_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert once(capsys, "--ticket", "PAY-1").code == 2
    assert once(capsys, "--pr", "0").code == 2
    assert once(capsys, "--url", "localhost:8080", "--dry-run", "--ticket", "PAY-1").code == 2
    for none in ("", " ", "PAY-1,", ",PAY-1"):
        ran = once(capsys, "--dry-run", "--ticket", none)
        assert (ran.code, "write tickets like PAY-123" in ran.err) == (2, True)


def test_tickets_may_be_named_with_commas(forge: FakeForge, run: Run) -> None:
    ran = run("--ticket", "PAY-1, acme/shop#2", "--ticket", "PAY-3,PAY-1", "--dry-run", "--json")
    found = [ticket["ticket_id"] for ticket in json.loads(ran.out)["tickets"]]
    assert found == ["PAY-1", "acme%2Fshop%232", "PAY-3"]


# -- what it says ------------------------------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_foreign_text_is_nothing_but_text(text: str) -> None:
    shown = code(text)
    assert shown == "–" or re.fullmatch(r"`[^`|\n]{1,80}`", shown)
    assert shown.isprintable()


@given(st.text(min_size=1, max_size=100), st.text(max_size=100), st.text(max_size=100))
def test_a_row_has_its_cells_and_nothing_else(ticket: str, model: str, source: str) -> None:
    spend = Spend(
        ticket_id=ticket,
        list_cost_usd=Decimal("1.5"),
        calls=1234,
        unpriced_calls=0,
        tasks=1,
        models=[Part(1, Decimal(1), model=model)] * 6,
        sources=[Part(1, Decimal(1), ticket_source=source)],
        as_of=NOW,
    )
    lines = render([spend, spend]).splitlines()
    assert len(lines) == 11
    for row in lines[5:7]:
        assert row.count("|") == 8
        outside = re.sub(r"`[^`]*`", "", row)
        assert set(outside) <= set("| 0123456789,.–more")
        assert row.endswith("2 more |")
        assert "| 1,234 |" in row


def test_names_that_would_be_more_than_names() -> None:
    for name in ("@octocat", "acme/shop#45", "<img src=x onerror=alert(1)>", "a|b", "`rm`", "[x](http://y)", "/close"):
        assert "@" not in re.sub(r"`[^`]*`", "", code(name))
    assert code("a|b`c\nd\u202e") == "`a¦b'c d`"
    assert code(None) == code("\n") == "–"
    assert len(code("x" * 500)) == 82


@pytest.mark.parametrize(
    ("usd", "shown"),
    [("0", "0.00"), ("0.000000001", "under 0.01"), ("0.01", "0.01"), ("1234.565", "1,234.56"), ("99.999", "100.00")],
)
def test_amounts_are_rounded_for_reading(usd: str, shown: str) -> None:
    assert amount(Decimal(usd)) == shown
