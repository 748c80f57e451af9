"""Usage that comes later: background work and batches are booked once, whoever asks and however often."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Call
from gateway.config import TicketSettings
from gateway.late import Late
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
    body = lines(*({"result": {"message": message}} for message in (MESSAGE, other, MESSAGE)))
    gateway.upstream.answer(chunked(body, content_type="application/x-jsonl"))
    await read(gateway, "/anthropic/v1/messages/batches/b/results")
    rows = {row["response_model"]: row["input_tokens"] for row in gateway.closed()}
    assert rows == {"claude-haiku-4-5": 2000, "claude-opus-4-8": 1000}
    assert len({row["request_id"] for row in gateway.closed()}) == 1


async def test_results_that_were_cut_are_booked_when_they_are_read_whole(gateway: Running) -> None:
    first, second = lines({"result": {"message": MESSAGE}}), lines({"result": {"message": {**MESSAGE, "id": "msg_2"}}})
    gateway.upstream.answer(
        chunked(first, 0.05, CUT, content_type="application/x-jsonl"),
        chunked(first, second, content_type="application/x-jsonl"),
    )
    with pytest.raises(Exception, match="payload"):
        await read(gateway, "/anthropic/v1/messages/batches/b/results")
    assert gateway.closed() == []
    await read(gateway, "/anthropic/v1/messages/batches/b/results")
    assert [row["input_tokens"] for row in gateway.closed()] == [2000]


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


def test_what_is_awaited_survives_and_what_is_old_does_not(tmp_path: Path) -> None:
    call = Call(call_id="c1", request_id="r1", attempt=1, started_us=5, tickets=("PAY-1",))
    late = Late(tmp_path)
    late.start()
    late.wait("openai/resp_1", call)
    late.name("openai/file-1", "openai/resp_1")
    late.name("openai/file-2", "openai/nothing")
    late.stop()
    old = encode("awaited", now_us() - 61 * 24 * 3600 * 10**6, b'{"key":"openai/old","call":{}}')
    with (tmp_path / "late.jsonl").open("ab") as file:
        file.write(old + b'{"e":"torn')
    late = Late(tmp_path)
    late.start()
    found = late.find("openai/file-1")
    assert found is not None
    assert found.call == call
    assert late.find("openai/file-2") is None
    assert late.find("openai/old") is None
    assert late.claim("openai/resp_1")
    assert not late.claim("openai/resp_1")
    late.book("openai/resp_1")
    late.stop()
    late = Late(tmp_path)
    late.start()
    assert late.find("openai/resp_1") is None
    assert not late.claim("openai/resp_1")
    late.stop()


def test_a_batch_in_the_journal_counts_as_booked_when_a_crash_came_between(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    record = encode("close", now_us(), b'{"call_id":"c","operation":"batch","upstream":"openai","upstream_id":"b1"}')
    (tmp_path / "journal" / "1.jsonl").write_bytes(record)
    late = Late(tmp_path)
    late.start()
    assert not late.claim("openai/b1")
    late.stop()
