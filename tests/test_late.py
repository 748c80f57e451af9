"""Usage that comes later: background work and batches are booked once, whoever asks and however often."""

import asyncio
import contextlib
import fcntl
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Call
from gateway.config import TicketSettings
from gateway.keys import Keys
from gateway.late import Late, digest
from gateway.ledger import encode, now_us
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import CUT, chunked, sse, whole

QUEUED = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5.6-sol",
    "status": "queued",
    "background": True,
    "usage": None,
}
DONE = {
    **QUEUED,
    "status": "completed",
    "usage": {"input_tokens": 1000, "output_tokens": 200, "output_tokens_details": {"reasoning_tokens": 50}},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-haiku-4-5",
    "usage": {"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"},
}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4.1-mini",
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}
GEMINI = {
    "modelVersion": "gemini-2.5-flash",
    "responseId": "r1",
    "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 60, "thoughtsTokenCount": 40},
}


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def corrections(gateway: Running) -> list[dict[str, Any]]:
    return [record for record in gateway.records() if record["e"] == "correct"]


async def read(gateway: Running, path: str, **headers: str) -> bytes:
    async with gateway.session.get(
        gateway.url + path, headers={"Authorization": f"Bearer {gateway.key}", **headers}
    ) as response:
        return await response.read()


async def test_background_work_is_settled_by_the_first_answer_that_has_its_usage(gateway: Running) -> None:
    gateway.upstream.answer(whole(QUEUED))
    async with gateway.post("/v1/responses", {"model": "gpt-5.6-sol", "input": "x", "background": True}) as response:
        assert await response.json() == QUEUED
    [row] = gateway.closed()
    assert (row["usage_source"], row["upstream_id"], row.get("output_tokens")) == ("estimated", "resp_1", None)
    gateway.upstream.answer(whole({**QUEUED, "status": "in_progress"}), whole(DONE), whole(DONE))
    assert json.loads(await read(gateway, "/v1/responses/resp_1"))["status"] == "in_progress"
    assert corrections(gateway) == []
    for _ in range(2):
        assert json.loads(await read(gateway, "/v1/responses/resp_1")) == DONE
    [correction] = corrections(gateway)
    assert (correction["call_id"], correction["cause"]) == (row["call_id"], "usage")
    assert (correction["usage_source"], correction["input_tokens"], correction["output_tokens"]) == (
        "reported", 1000, 200,
    )  # fmt: skip
    assert correction["list_cost_nano"] > row["list_cost_nano"]
    assert (correction["team_id"], correction["booked_us"]) == ("payments", row["at"])
    assert len(gateway.closed()) == 1


async def test_background_work_is_settled_after_a_restart(start_gateway: StartGateway) -> None:
    async with start_gateway() as gateway:
        gateway.upstream.answer(whole(QUEUED))
        async with gateway.post("/v1/responses", {"model": "gpt-5.6-sol", "input": "x", "background": True}):
            pass
    async with start_gateway() as gateway:
        gateway.upstream.answer(chunked(*sse({"type": "response.completed", "response": DONE})))
        await read(gateway, "/v1/responses/resp_1?stream=true")
        assert [found["output_tokens"] for found in corrections(gateway)] == [200]


async def test_a_stored_response_that_is_read_again_is_never_booked(gateway: Running) -> None:
    gateway.upstream.answer(whole({**DONE, "background": False}))
    await read(gateway, "/v1/responses/resp_1")
    assert [record["e"] for record in gateway.records()] == ["start"]


INLINED = {"metadata": {"output": {"inlinedResponses": {"inlinedResponses": [{"response": GEMINI}]}}}}
PAGE = {"results": [{"batch_result": {"response": {"chat_get_completion": CHAT}}}]}
JOB = {"id": "b", "object": "batch", "outputs": [{"response": {"body": CHAT}}]}
OCTETS, JSON_LINES, JSON = "application/octet-stream", "application/x-jsonl", "application/json"
RESULTS = {
    "openai": ("/openai/v1/files/f/content", OCTETS, lines({"id": "b1", "response": {"body": CHAT}})),
    "anthropic": ("/anthropic/v1/messages/batches/b/results", JSON_LINES, lines({"result": {"message": MESSAGE}})),
    "gemini": ("/gemini/v1beta/batches/b", JSON, json.dumps({"name": "batches/b", **INLINED}, indent=1).encode()),
    "gemini file": ("/gemini/v1beta/files/f:download?alt=media", OCTETS, lines({"key": "1", "response": GEMINI})),
    "xai": ("/openai/v1/batches/b/results?limit=10", JSON, json.dumps(PAGE).encode()),
    "mistral": ("/openai/v1/batch/jobs/b?inline=true", JSON, json.dumps(JOB).encode()),
}


@pytest.mark.parametrize(("path", "kind", "body"), RESULTS.values(), ids=RESULTS)
async def test_results_of_a_batch_are_booked_once_at_the_batch_price(
    gateway: Running, path: str, kind: str, body: bytes
) -> None:
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    gateway.upstream.answer(chunked(*pieces, content_type=kind))
    found = await asyncio.gather(*(read(gateway, path) for _ in range(3)))
    assert found == [body] * 3
    [row] = gateway.closed()
    assert (row["operation"], row["service_tier"], row["usage_source"]) == ("batch", "batch", "reported")
    assert (row["input_tokens"], row["output_tokens"], row["other_units"]) == (1000, 100, {"batch_results": 1.0})
    assert "#batch" in row["price_id"]
    assert row["list_cost_nano"] > 0
    assert row["team_id"] == "payments"


async def test_a_batch_belongs_to_who_started_it(start_gateway: StartGateway) -> None:
    batch = {"id": "batch_1", "object": "batch", "output_file_id": None}
    async with start_gateway() as gateway:
        gateway.upstream.answer(whole(batch))
        async with gateway.post("/v1/batches", {"input_file_id": "f"}, x_outlay_ticket="PAY-7") as response:
            assert await response.json() == batch
        gateway.upstream.answer(whole({**batch, "output_file_id": "file-9"}))
        await read(gateway, "/v1/batches/batch_1")
        assert gateway.closed() == []
    results = lines(*({"id": f"b{i}", "response": {"body": {**CHAT, "id": f"c{i}"}}} for i in range(3)))
    async with start_gateway() as gateway:  # after a restart, and read by somebody else's key
        gateway.upstream.answer(chunked(results, content_type="application/octet-stream"))
        await read(gateway, "/v1/files/file-9/content", **{"x-outlay-ticket": "OPS-1"})
        [row] = gateway.closed()
        assert (row["tickets"], row["input_tokens"], row["other_units"]) == (["PAY-7"], 3000, {"batch_results": 3.0})
        await read(gateway, "/v1/files/file-9/content")
        assert len(gateway.closed()) == 1


async def test_results_with_several_models_are_one_row_each(gateway: Running) -> None:
    other = {**MESSAGE, "id": "msg_2", "model": "claude-opus-4-8"}
    body = lines(*({"result": {"message": message}} for message in (MESSAGE, other, {**MESSAGE, "id": "msg_3"})))
    gateway.upstream.answer(chunked(body, content_type="application/x-jsonl"))
    await read(gateway, "/anthropic/v1/messages/batches/b/results")
    rows = {row["response_model"]: row["input_tokens"] for row in gateway.closed()}
    assert rows == {"claude-haiku-4-5": 2000, "claude-opus-4-8": 1000}
    assert len({row["request_id"] for row in gateway.closed()}) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/files/file-1/content", b'{"custom_id": "1", "method": "POST", "body": {"model": "x"}}\n'),
        ("/v1/files/file-1/content", b"\x00\xff not json at all"),
        ("/v1/files/file-1/content", b'{"response": {"body": 5}}\n[1]\n{"result": null}\n'),
        ("/v1/batches/b", json.dumps({"id": "b", "object": "batch", "usage": {"input_tokens": 5}}).encode()),
        ("/v1/batches", b'{"data": [{"id": "b", "object": "batch"}]}'),
        ("/v1/responses/resp_9", b"{broken"),
    ],
)
async def test_what_brings_no_results_passes_and_books_nothing(gateway: Running, path: str, body: bytes) -> None:
    gateway.upstream.answer(whole(body))
    assert await read(gateway, path) == body
    assert gateway.closed() == []


async def test_a_batch_needs_a_ticket_where_calls_do_and_reading_does_not(start_gateway: StartGateway) -> None:
    async with start_gateway(tickets=TicketSettings(policy="required")) as gateway:
        gateway.upstream.answer(whole({"id": "b", "object": "batch"}))
        async with gateway.post("/v1/batches", {}) as response:
            assert response.headers["x-outlay-refusal"] == "ticket_required"
        assert json.loads(await read(gateway, "/v1/batches/b"))["id"] == "b"


async def test_pages_of_results_are_booked_as_they_come_and_once(gateway: Running) -> None:
    def page(start: int, end: int) -> Any:
        completions = [{"response": {"chat_get_completion": {**CHAT, "id": f"c{i}"}}} for i in range(start, end)]
        return whole({"results": [{"batch_result": one} for one in completions]})

    gateway.upstream.answer(page(0, 3), page(0, 20), page(0, 10), page(10, 25))
    booked = []
    for _ in range(4):
        await read(gateway, "/v1/batches/b/results")
        booked.append(sum(row["other_units"]["batch_results"] for row in gateway.closed()))
    assert booked == [3, 20, 20, 25]
    assert sum(row["input_tokens"] for row in gateway.closed()) == 25_000


async def test_a_line_that_is_damaged_hides_no_other(gateway: Running) -> None:
    first, second = (lines({"result": {"message": {**MESSAGE, "id": name}}}) for name in ("m1", "m2"))
    body = first + b'{"broken\n' + second
    gateway.upstream.answer(chunked(body, content_type="application/x-jsonl"))
    await read(gateway, "/anthropic/v1/messages/batches/b/results")
    assert [row["input_tokens"] for row in gateway.closed()] == [2000]
    async with gateway.session.get(gateway.url + "/-/metrics") as response:
        assert 'outlay_meter_failures_total{dialect="anthropic_messages"' in await response.text()


async def test_a_gemini_batch_belongs_to_who_started_it(gateway: Running) -> None:
    gateway.upstream.answer(whole({"name": "batches/abc", "metadata": {"state": "PENDING"}}))
    async with gateway.post(
        "/v1beta/models/gemini-2.5-flash:batchGenerateContent", {}, x_outlay_ticket="PAY-7"
    ) as response:
        assert response.status == 200
    gateway.upstream.answer(
        whole({"name": "batches/abc", "response": {"responsesFile": "files/xyz"}}),
        chunked(lines({"key": "1", "response": GEMINI}), content_type="application/octet-stream"),
    )
    await read(gateway, "/v1beta/batches/abc")
    await read(gateway, "/v1beta/files/xyz:download?alt=media", **{"x-outlay-ticket": "OPS-1"})
    assert [row["tickets"] for row in gateway.closed()] == [["PAY-7"]]


async def test_usage_that_still_grows_settles_nothing(gateway: Running) -> None:
    run = {"id": "run_1", "object": "thread.run", "model": "gpt-4o-mini", "status": "queued", "usage": None}
    growing = {**run, "status": "in_progress", "usage": {"prompt_tokens": 10, "completion_tokens": 1}}
    ended = {**run, "status": "completed", "usage": {"prompt_tokens": 5000, "completion_tokens": 900}}
    gateway.upstream.answer(whole(run), whole(growing), whole(ended))
    async with gateway.post("/v1/threads/t/runs", {"assistant_id": "a"}):
        pass
    for _ in range(2):
        await read(gateway, "/v1/threads/t/runs/run_1")
    assert [found["input_tokens"] for found in corrections(gateway)] == [5000]


async def test_a_client_that_leaves_with_the_terminal_event_leaves_a_settled_call(gateway: Running) -> None:
    gateway.upstream.answer(whole(QUEUED))
    async with gateway.post("/v1/responses", {"model": "gpt-5.6-sol", "input": "x", "background": True}):
        pass
    gateway.upstream.answer(chunked(*sse({"type": "response.completed", "response": DONE}), 30.0))
    url, headers = gateway.url + "/v1/responses/resp_1?stream=true", {"Authorization": f"Bearer {gateway.key}"}
    async with gateway.session.get(url, headers=headers) as response:
        await asyncio.wait_for(response.content.readany(), 5)
        assert [found["output_tokens"] for found in corrections(gateway)] == [200]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages/batches", {"requests": [{"params": {"model": "claude-haiku-4-5"}}]}, 200),
        ("/v1/messages/batches", {"requests": [{"params": {"model": "claude-opus-4-8"}}]}, 403),
        ("/v1/messages/batches", {"requests": [{"params": {}}]}, 403),
        (
            "/v1/messages/batches",
            {"requests": [{"params": {"model": "claude-haiku-4-5", "tools": [{"model": "claude-opus-4-8"}]}}]},
            403,
        ),
        ("/v1/messages", {"model": "claude-haiku-4-5", "tools": [{"model": "claude-opus-4-8"}]}, 403),
        ("/v1/chat/completions", {"model": "claude-haiku-x", "models": ["gpt-5"]}, 403),
        ("/v1/chat/completions", {"model": "claude-haiku-x", "models": ["claude-haiku-y"]}, 200),
        ("/v1beta/models/gemini-3-flash:batchGenerateContent", {}, 403),
        ("/v1/batches", {"input_file_id": "file-1"}, 403),
        ("/v1/batch/jobs", {"model": "claude-haiku-x", "input_files": ["f"]}, 200),
        ("/v1/realtime/client_secrets", {}, 404),
    ],
)
async def test_a_batch_asks_for_no_model_that_a_call_may_not(
    gateway: Running, path: str, body: Any, status: int
) -> None:
    _, key = Keys(gateway.dir).create(team_id="payments", models=["claude-haiku*"])
    gateway.upstream.answer(whole({"id": "b"}))
    async with gateway.session.post(
        gateway.url + path, json=body, headers={"Authorization": f"Bearer {key}"}
    ) as response:
        assert response.status == status


# What is remembered

CALL = Call(call_id="c1", request_id="r1", attempt=1, started_us=5, tickets=("PAY-1",))
ONE, TWO = digest("openai", "r1"), digest("openai", "r2")


@contextlib.contextmanager
def late(folder: Path) -> Iterator[Late]:
    known = Late(folder)
    known.start()
    try:
        yield known
    finally:
        known.stop()


def test_what_is_expected_survives_and_what_is_old_does_not(tmp_path: Path) -> None:
    with late(tmp_path) as known:
        known.expect("openai/resp_1", CALL, 7)
        known.name("openai/file-1", "openai/resp_1")
        known.name("openai/file-2", "openai/nothing")
    old = encode("expected", now_us() - 61 * 24 * 3600 * 10**6, b'{"key":"openai/old","call":{},"booked_us":1}')
    strange = encode("expected", now_us(), b'{"key":"openai/strange","call":{"call_id":5}}')
    with (tmp_path / "late.jsonl").open("ab") as file:
        file.write(old + strange + b'{"e":"torn')
    with late(tmp_path) as known:
        found = known.find("openai/file-1")
        assert found is not None
        assert (found.call, found.booked_us) == (CALL, 7)
        assert [known.find(f"openai/{name}") for name in ("file-2", "old", "strange")] == [None] * 3
        known.settle("openai/resp_1")
        assert known.find("openai/resp_1") is None
    with late(tmp_path) as known:
        assert known.find("openai/resp_1") is None


async def test_two_gateways_of_one_folder_book_once(tmp_path: Path) -> None:
    with late(tmp_path) as a, late(tmp_path) as b:
        a.expect("openai/resp_1", CALL, 7)
        assert b.find("openai/resp_1") is not None
        async with a.deciding():
            a.book([ONE], "c1")
            a.record("c1")
        async with b.deciding():
            assert not b.unbooked([ONE])
            b.forget([ONE])
            b.book([TWO], "c2")
        async with a.deciding():
            assert a.unbooked([ONE, TWO]) == {ONE}


async def test_who_holds_the_lock_stops_no_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.late.LOCK_TRIES", 3)
    with late(tmp_path) as known, (tmp_path / "late.jsonl").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        known.expect("openai/resp_1", CALL, 7)  # needs no lock
        with pytest.raises(OSError, match="another process"):
            async with known.deciding():
                pass
        fcntl.flock(other, fcntl.LOCK_UN)
        async with known.deciding():
            assert known.unbooked([ONE]) == {ONE}


async def test_what_a_crash_kept_out_of_the_journal_is_not_booked(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    long_ago, three = digest("openai", "long ago"), digest("openai", "r3")
    with late(tmp_path) as known:
        async with known.deciding():
            known.book([long_ago], "c0")
            known.record("c0")  # and sealed since, so that the journal has it no more
            known.book([ONE], "c1")
            known.book([TWO, three], "c2")
    record = encode("close", now_us(), b'{"call_id":"c1","operation":"batch","upstream":"openai"}')
    (journal / "1-a.jsonl").write_bytes(encode("start", now_us(), b"{}") + record)
    (journal / "2-b.jsonl").write_bytes(encode("start", now_us(), b"{}"))  # another gateway's, or a command's
    for _ in range(2):
        with late(tmp_path) as known:
            assert known.unbooked([long_ago, ONE, TWO, three]) == {TWO, three}


def test_a_full_disk_loses_no_other_line(tmp_path: Path) -> None:
    with late(tmp_path) as known:
        known.expect("openai/resp_1", CALL)
        size = (tmp_path / "late.jsonl").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(OSError, match=r"space|large"):
                known.expect("openai/resp_2", CALL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert known.find("openai/resp_2") is not None  # until a restart
        known.expect("openai/resp_3", CALL)
    with late(tmp_path) as known:
        assert [known.find(f"openai/resp_{n}") is not None for n in (1, 2, 3)] == [True, False, True]


async def test_results_are_booked_once_across_gateways_and_restarts(start_gateway: StartGateway) -> None:
    results = chunked(lines({"result": {"message": MESSAGE}}), content_type="application/x-jsonl")
    path = "/anthropic/v1/messages/batches/b/results"
    async with start_gateway() as a:
        async with start_gateway() as b:  # its segment is the younger one
            a.upstream.answer(results)
            await read(a, path)
            await read(b, path)
    async with start_gateway() as c:
        await read(c, path)
        assert len(c.closed()) == 1


@pytest.mark.parametrize("how", ["client leaves", "upstream cuts"])
async def test_results_that_came_are_booked_also_when_the_rest_does_not(gateway: Running, how: str) -> None:
    several = [lines({"result": {"message": {**MESSAGE, "id": f"m{i}"}}}) for i in range(4)]
    end = [30.0] if how == "client leaves" else [0.05, CUT]
    start = (several[0], 0.05, several[1], 0.05, several[2])
    gateway.upstream.answer(chunked(*start, *end, content_type="application/x-jsonl"))
    url, headers = gateway.url + "/anthropic/v1/messages/batches/b/results", {"Authorization": f"Bearer {gateway.key}"}
    async with gateway.session.get(url, headers=headers) as response:
        await response.content.readany()
        await asyncio.sleep(0.2)
        response.close()
    async with asyncio.timeout(5):
        while not gateway.closed():
            await asyncio.sleep(0.01)
    assert gateway.closed()[0]["other_units"] == {"batch_results": 3.0}
    gateway.upstream.answer(chunked(*several, content_type="application/x-jsonl"))
    await read(gateway, "/anthropic/v1/messages/batches/b/results")
    assert sum(row["other_units"]["batch_results"] for row in gateway.closed()) == 4


async def test_a_file_read_in_parts(gateway: Running) -> None:
    whole_file = lines(*({"id": f"b{i}", "response": {"body": {**CHAT, "id": f"c{i}"}}} for i in range(10)))
    cut = len(whole_file) // 2 + 20  # inside of a line
    for part in (whole_file[:cut], whole_file[cut:]):
        gateway.upstream.answer(chunked(part, content_type="application/octet-stream", status=206))
        assert await read(gateway, "/v1/files/f/content", Range="bytes=x") == part
    assert sum(row["other_units"]["batch_results"] for row in gateway.closed()) == 9  # all but the line that was cut


async def test_addresses_in_a_batch_lead_back_to_the_gateway(gateway: Running) -> None:
    batch = {
        "id": "b",
        "type": "message_batch",
        "results_url": "https://api.anthropic.com/v1/messages/batches/b/results",
    }
    gateway.upstream.answer(whole(batch))
    for prefix in ("/anthropic", "", "/t/PAY-1"):
        found = json.loads(await read(gateway, f"{prefix}/v1/messages/batches/b", **{"Accept-Encoding": "gzip"}))
        assert found["results_url"] == f"{gateway.url}{prefix}/v1/messages/batches/b/results"
    assert gateway.upstream.requests[0].header("accept-encoding") is None
    gateway.upstream.answer(whole({}, headers=[("X-Goog-Upload-URL", "https://g.example/upload/v1beta/files?id=1")]))
    async with gateway.post("/upload/v1beta/files", {}) as response:
        assert response.headers["X-Goog-Upload-URL"] == f"{gateway.url}/upload/v1beta/files?id=1"
