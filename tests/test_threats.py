"""What docs/threat-model.md says is stopped, where no other test holds it; and the page itself."""

import asyncio
import gzip
import io
import json
import logging
import re
import ssl
import stat
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import brotli
import pytest
import zstandard
from yarl import URL

from analytics import commands, lake
from gateway import dialects, options, routes, submodels
from gateway.config import Upstream
from gateway.encodings import ANSWER_STEP_MAX, TooLargeError, decoder
from gateway.keys import Keys
from gateway.meter import Meter
from tests.certificates import self_signed
from tests.conftest import PROVIDER_KEY, Running, StartGateway
from tests.fakes.upstream import FakeUpstream, fake_upstream, whole

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/threat-model.md"
CHAT: dict[str, Any] = {"model": "gpt-5.4-mini", "messages": []}
ANSWER = {"id": "x", "model": "gpt-5.4-mini", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 1}}


async def raw(gateway: Running, *parts: bytes) -> bytes:
    """What comes back for bytes on a socket, until the gateway closes it or says nothing for a while."""
    url = URL(gateway.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    answer = b""
    try:
        for part in parts:
            writer.write(part)
        await writer.drain()
        async with asyncio.timeout(2):
            while piece := await reader.read(65536):
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


# -- paths ------------------------------------------------------------------------------------------------------------


def test_an_absolute_target_hides_no_dots() -> None:
    """`..http://x/` was `../` once the address had been taken out."""
    for target in (
        "/openai/..http://x/other/v1/chat/completions",
        "/openai/v1/.https://x/chat",
        "http://h/openai/../v1/chat/completions",
        "/openai/..;/v1/chat/completions",
        "/openai/%2e%2E%3b/v1/chat/completions",
    ):
        found = routes.resolve(target, {}, ["openai"])
        assert found is None or "/../" not in found.path, target
        assert found is None or found.path == target.removeprefix("/openai")


async def test_an_address_in_a_query_passes_as_it_was_sent(gateway: Running) -> None:
    gateway.upstream.answer(whole({"data": []}))
    sent = "/openai/v1/files?after=https://example.com/a&purpose=x"
    async with gateway.session.get(
        URL(gateway.url + sent, encoded=True), headers={"Authorization": f"Bearer {gateway.key}"}
    ) as response:
        assert response.status == 200
    assert gateway.upstream.requests[0].target == sent.removeprefix("/openai")


@pytest.mark.parametrize(
    "path",
    ["//evil.example/v1/x", "/@evil.example/v1/x", "/\\evil.example/x", "/v1/x?u=http://evil.example", "/%2f%2fevil/x"],
)
def test_no_path_changes_the_host(path: str) -> None:
    found = routes.resolve(f"/openai{path}", {}, ["openai"])
    assert found is not None
    url = URL("https://api.openai.com" + found.path, encoded=True)
    assert (url.scheme, url.host, url.user) == ("https", "api.openai.com", None)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completion%73", "/v1/chat/completions/", "/v1//chat/completions", "/v1/chat//completions",
        "/V1/Chat/Completions", "/v1/chat/completion%2573", "/v1/chat/completions;v=1",
        "/openai/deployments/gpt/Chat/Completions", "/v1/batche%73",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_billed_path_is_an_unmetered_one(
    start_gateway: StartGateway, upstream: FakeUpstream, path: str
) -> None:
    lenient = Upstream(upstream.url, "openai", "env:PROVIDER_KEY", allow_unmetered_paths=True)
    async with start_gateway(upstreams={"openai": lenient}) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        async with gateway.post("/openai" + path, CHAT) as response:
            metered = dialects.find("POST", path, "openai") is not None
            assert metered or response.headers["x-outlay-refusal"] == "route_unknown"
        assert len(gateway.upstream.requests) == metered
        async with gateway.post("/openai/v1/fine_tuning/jobs", {}) as response:
            assert response.status == 200


async def test_no_field_makes_another_method_of_a_request(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    fields = {"X-HTTP-Method-Override": "POST", "x_http_method": "DELETE", "X-Method-Override": "PUT"}
    async with gateway.post("/v1/chat/completions", CHAT, **fields) as response:
        assert response.status == 200
    assert not [name for name, _ in gateway.upstream.requests[0].headers if "method" in name.lower()]


# -- one request is one request ---------------------------------------------------------------------------------------

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer KEY\r\nContent-Type: application/json\r\n"
)
BODY = json.dumps(CHAT).encode()
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer KEY\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(BODY),
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: %d\r\nContent-Length: 3\r\n" % len(BODY),
        b"Content-Length: +%d\r\n" % len(BODY),
        b"Content-Length: 0x10\r\n",
        b"Content-Length : %d\r\n" % len(BODY),
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n" % len(BODY),
        b"Content-Length: %d\r\nX: a\rb\r\n" % len(BODY),
        b"Content-Length: %d\r\nX: a\0b\r\n" % len(BODY),
        b"Content-Length: %d\r\nBad name: x\r\n" % len(BODY),
    ],
)
async def test_what_two_servers_could_read_differently_is_no_request(gateway: Running, fields: bytes) -> None:
    gateway.upstream.answer(whole(ANSWER))
    key = gateway.key.encode()
    answer = await raw(gateway, (HEAD + fields + b"\r\n" + BODY + SMUGGLED).replace(b"KEY", key))
    assert b" 200 " not in answer.partition(b"\r\n")[0], answer[:200]
    assert gateway.upstream.requests == []
    assert key not in answer


@pytest.mark.parametrize(
    "line",
    [
        b"CONNECT evil.example:443 HTTP/1.1", b"GET http://evil.example/v1/models HTTP/1.1", b"GET * HTTP/1.1",
        b"TRACE /v1/models HTTP/1.1", b"GET /v1/models\x00 HTTP/1.1", b"GET /v1/models#x HTTP/1.1",
        b"PRI * HTTP/2.0", b"GET /v1/\x80 HTTP/1.1", b"GET  /v1/models HTTP/1.1",
    ],
)  # fmt: skip
async def test_odd_request_lines_reach_no_other_host(gateway: Running, line: bytes) -> None:
    gateway.upstream.answer(whole({"data": []}))
    field = b"Authorization: Bearer " + gateway.key.encode()
    answer = await raw(gateway, line + b"\r\nHost: evil.example\r\nConnection: close\r\n" + field + b"\r\n\r\n")
    assert gateway.key.encode() not in answer
    for request in gateway.upstream.requests:
        assert (request.target, request.header("host")) == ("/v1/models", URL(gateway.upstream.url).authority)


@pytest.mark.parametrize(
    "target", [b"/-/healthz", b"/%2d/healthz", b"/%2D/%68ealthz", b"http://evil.example/-/healthz"]
)
async def test_what_is_for_the_gateway_itself_is_so_in_each_spelling(gateway: Running, target: bytes) -> None:
    answer = await raw(gateway, b"GET " + target + b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not gateway.upstream.requests


async def test_a_field_in_a_ticket_or_task_becomes_no_field_of_an_answer(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    for path in ("/t/PAY-1%0d%0aSet-Cookie:%20a=b", "/t/PAY-1/task/a%0d%0aSet-Cookie:%20a=b", "/t/PAY-1/task/%00"):
        async with gateway.post(f"{path}/v1/chat/completions", CHAT) as response:
            assert response.status == 200
            assert "Set-Cookie" not in response.headers


async def test_a_provider_speaks_for_itself_alone(gateway: Running) -> None:
    forged = [("X-Outlay-Cost-USD", "0"), ("x-outlay-ticket", "PAY-9"), ("X-Outlay-Refusal", "none")]
    gateway.upstream.answer(whole(ANSWER, headers=forged))
    async with gateway.post("/v1/chat/completions", CHAT) as response:
        assert response.status == 200
        assert "x-outlay-refusal" not in response.headers
        assert response.headers.getall("x-outlay-cost-usd") != ["0"]
        assert "x-outlay-ticket" not in response.headers


# -- credentials and origins ------------------------------------------------------------------------------------------


async def test_a_redirect_is_the_clients_to_follow(gateway: Running) -> None:
    async with fake_upstream() as other:
        other.answer(whole(ANSWER))
        away = f"{other.url}/v1/chat/completions"
        gateway.upstream.answer(whole({}, 307, [("Location", away)]))
        async with gateway.session.post(
            gateway.url + "/v1/chat/completions",
            data=io.BytesIO(BODY),
            headers={"Authorization": f"Bearer {gateway.key}"},
            allow_redirects=False,
        ) as response:
            assert (response.status, response.headers["Location"]) == (307, away)
        assert other.requests == []


@pytest.mark.parametrize("auth", ["bearer", "x-goog-api-key", "api-key"])
async def test_a_session_follows_no_redirect(start_gateway: StartGateway, upstream: FakeUpstream, auth: Any) -> None:
    """aiohttp would, and takes each credential but `Authorization` along."""
    async with fake_upstream() as other:
        other.answer(whole({}, 403))
        upstream.answer(whole({}, 302, [("Location", f"{other.url}/v1/realtime")]))
        to = Upstream(upstream.url, "openai", "env:PROVIDER_KEY", auth=auth)
        async with start_gateway(upstreams={"openai": to}) as gateway:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await gateway.session.ws_connect(
                    f"{gateway.url}/v1/realtime?model=m", headers={"Authorization": f"Bearer {gateway.key}"}
                )
            assert refused.value.status == 302
        assert PROVIDER_KEY in str(upstream.requests[0])
        assert other.requests == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/realtime?model=m"])
async def test_a_server_that_nobody_vouches_for_gets_no_key(
    start_gateway: StartGateway, tmp_path: Path, path: str
) -> None:
    tls, fake = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), FakeUpstream()
    tls.load_cert_chain(self_signed(tmp_path, "localhost"))
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, ssl=tls)
    fake.answer(whole(ANSWER))
    to = Upstream(f"https://localhost:{server.sockets[0].getsockname()[1]}", "openai", "env:PROVIDER_KEY")
    async with start_gateway(upstreams={"openai": to}) as gateway:
        if "realtime" in path:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await gateway.session.ws_connect(gateway.url + path, headers={"Authorization": f"Bearer {gateway.key}"})
            assert refused.value.status == 502
        else:
            async with gateway.post(path, CHAT) as response:
                assert (response.status, response.headers["x-outlay-refusal"]) == (502, "upstream_unreachable")
    server.close()
    assert fake.requests == []


async def test_an_open_gateway_is_open_to_no_foreign_page(open_gateway: Running) -> None:
    """Any page that a developer looks at could else spend money at his gateway: browsers ask nobody before they post
    text."""
    open_gateway.upstream.answer(whole(ANSWER))
    for origin, status in [
        ("https://evil.example", 403),
        ("http://evil.example:8080", 403),  # whose name may lead here by now
        ("https://localhost.evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:5173", 200),
        ("http://[::1]:5173", 200),
        ("http://app.localhost", 200),
        ("vscode-webview://1a2b", 200),
    ]:
        fields = {"Origin": origin, "Content-Type": "text/plain", "Authorization": ""}
        before = len(open_gateway.upstream.requests)
        async with open_gateway.post("/v1/chat/completions", CHAT, **fields) as response:
            assert response.status == status, origin
        assert len(open_gateway.upstream.requests) - before == (status == 200)
        api = open_gateway.session.get(f"{open_gateway.url}/-/api/v1/me", headers={"Origin": origin})
        async with api as response:
            assert response.status == status
    async with open_gateway.post("/v1/chat/completions", CHAT, Origin="https://page.example") as response:
        assert response.status == 200  # it has a key


async def test_addresses_that_lead_back_are_only_text(start_gateway: StartGateway, upstream: FakeUpstream) -> None:
    """The client's own fields stand in them: in an odd form they break nothing."""
    gemini = Upstream(upstream.url, "gcp.gemini", "env:PROVIDER_KEY")
    batches = Upstream(upstream.url, "anthropic", "env:PROVIDER_KEY")
    async with start_gateway(upstreams={"gemini": gemini, "anthropic": batches}) as gateway:
        upstream.answer(whole({}, headers=[("X-Goog-Upload-URL", "https://g.example/upload/1")]))
        for scheme in ("\\g<9>", "\\1", "http", "\xff"):
            fields = {"X-Forwarded-Proto": scheme}
            async with gateway.post("/upload/v1beta/files", {}, **fields) as response:
                assert response.status == 200
                assert response.headers["X-Goog-Upload-URL"].endswith("/upload/1")
        upstream.answer(whole({"type": "message_batch", "id": "b", "results_url": "https://a.example/v1/r"}))
        url = f"{gateway.url}/anthropic/v1/messages/batches/b"
        answer = await raw(
            gateway,
            b"GET /anthropic/v1/messages/batches/b HTTP/1.1\r\nHost: \xff\xfe\r\nX-Forwarded-Proto: \xff\r\n"
            b"Connection: close\r\nx-api-key: " + gateway.key.encode() + b"\r\n\r\n",
        )
        assert b" 200 " in answer.partition(b"\r\n")[0], url


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"o9","model":"gpt-5.4"}',
        '{"model":"gpt-5.4","Model":"o9"}',
        '{"MODEL":"o9","model":"gpt-5.4"}',
        '{"model":"gpt-5.4","mod\\u0065l":"gpt-5.4"}',
        '{"model":"gpt-5.4","models":["gpt-5.4"],"models":["o9"]}',
        '{"model":"gpt-5.4","tools":[{"model":"gpt-5.4","model":"o9"}]}',
        '{"model":"gpt-5.4","tools":[],"Tools":[{"model":"o9"}]}',
    ],
)
async def test_a_key_for_some_models_names_each_once(gateway: Running, body: str) -> None:
    """One parser lets the first of a name win, another the last, Go's any case."""
    gateway.upstream.answer(whole(ANSWER))
    _, key = Keys(gateway.dir).create(models=["gpt-5*"])
    async with gateway.post("/v1/chat/completions", body.encode(), Authorization=f"Bearer {key}") as response:
        assert (response.status, response.headers["x-outlay-refusal"]) == (400, "request_unreadable")
    assert gateway.upstream.requests == []


def test_names_may_stand_twice_where_they_name_no_model() -> None:
    assert submodels.named(b'{"messages":[{"id":1,"ID":2}],"a":1,"A":2}') == set()


# -- what is held, what is shown --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_an_answer_that_decodes_to_much_ends_its_metering_and_fills_no_memory(encoding: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": lambda plain: gzip.compress(plain, 1),
        "deflate": lambda plain: zlib.compress(plain, 1),
        "br": lambda plain: brotli.compress(plain, quality=2),
        "zstd": zstandard.compress,
    }
    packed = pack[encoding](b"\0" * (2 * ANSWER_STEP_MAX))
    decode = decoder(encoding)
    assert decode is not None
    with pytest.raises(TooLargeError):
        decode(packed)
    tracemalloc.start()
    try:
        meter = Meter(dialects.DIALECTS[0], "openai", {"Content-Encoding": encoding})
        meter.feed(packed)
        assert meter.failed == "TooLargeError"
        assert meter.bytes_seen == len(packed)
        assert tracemalloc.get_traced_memory()[1] < 3 * ANSWER_STEP_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("many", [b"X-Field: x\r\n" * 600, b"X-Field: " + b"x" * 70_000 + b"\r\n"])
async def test_too_many_or_too_long_fields(gateway: Running, many: bytes) -> None:
    answer = await raw(gateway, b"GET /-/healthz HTTP/1.1\r\nHost: a\r\n" + many + b"\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ", b"HTTP/1.1 431 ")), answer[:100]
    async with gateway.session.get(f"{gateway.url}/-/healthz") as response:
        assert response.status == 200


def test_a_name_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of models, branches and tickets come from clients and trackers."""
    odd = "\x1b]0;title\x07\x1b[31m[bold]x\x9b2J\u202e\r"
    commands.print_table(("model",), [(odd,)])
    told = capsys.readouterr().out
    assert "[bold]x" in told
    assert not [letter for letter in told if not letter.isprintable() and letter != "\n"]
    assert options.shown("a\tb\nü 字") == "a\tb\nü 字"


def test_a_table_of_sql_does_not_either(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analytics.sql_cli import sql

    sql.main(["SELECT chr(27) || '[31mx' AS a, chr(155) AS b", "--data", str(data)], standalone_mode=False)
    told = capsys.readouterr().out
    assert not [letter for letter in told if not letter.isprintable() and letter != "\n"]


async def test_broken_requests_leave_no_key_in_the_log(gateway: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = gateway.key.encode()
    for lines in (b"GET / HTTP/1.1\r\nAuthorization Bearer " + key, b"GET /?key=" + key + b"\0 HTTP/1.1\r\nHost: a"):
        await raw(gateway, lines + b"\r\n\r\n")
    await raw(gateway, b"\x16\x03\x01" + key + b"\r\n\r\n")
    assert gateway.key not in caplog.text


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()}


async def test_the_data_folder_is_its_users_alone(gateway: Running) -> None:
    assert stat.S_IMODE(gateway.dir.stat().st_mode) == 0o700
    private = {"keys.jsonl", "hash.key", "late.jsonl", "late.lock", "alerts.json", "alerts.lock"}
    found = modes(gateway.dir)
    assert {name: mode for name, mode in found.items() if name in private and mode != 0o600} == {}
    assert {"keys.jsonl", "hash.key"} <= found.keys()
    assert set(modes(gateway.dir / "journal").values()) == {0o600}


def test_whoever_makes_the_folder_first(tmp_path: Path) -> None:
    Keys(tmp_path / "a" / "data").create()
    lake.publish(tmp_path / "b" / "data")
    for folder in ("a", "b"):
        assert stat.S_IMODE((tmp_path / folder / "data").stat().st_mode) == 0o700
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o750)
    kept.chmod(0o750)
    Keys(kept).create()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o750


# -- the page ---------------------------------------------------------------------------------------------------------


def named(pattern: str) -> list[str]:
    return sorted(set(re.findall(pattern, PAGE.read_text(encoding="utf-8"))))


def test_each_test_that_the_threat_model_names_is_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", tests))
    found = named(r"`(test_\w+)`")
    assert len(found) > 60
    assert [name for name in found if name not in there and not (ROOT / f"tests/{name}.py").exists()] == []


def test_each_module_that_the_threat_model_names_is_there() -> None:
    found = named(r"`((?:gateway|analytics|config|docs|tests)/[\w./-]+)`")
    assert len(found) > 20
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_each_threat_has_a_test_or_says_that_nothing_stops_it() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## Threats")[2].partition("\n## ")[0]
    rows = [row for row in re.findall(r"^\| (.*) \|$", page, re.MULTILINE) if not row.startswith(("threat", "---"))]
    assert len(rows) > 30
    for row in rows:
        threat, stops, left = row.split(" | ")
        assert "`test_" in stops or stops.startswith("nothing"), threat
        assert left, threat
