"""What metering costs: `python -m tests.benchmarks.bench_metering [--calls N]`.

First the meter alone, against a loop that only counts bytes: µs per chunk of a stream, and per MB of large answers.
Then a running gateway, CPU of its process, against itself relaying the same bytes unmetered (by a path that no dialect
knows), in turns. Figures are the best of some rounds.
"""

import argparse
import asyncio
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import brotli
import zstandard

from gateway import dialects
from gateway.meter import Meter
from tests.end_to_end.serving import Served, served, write_config
from tests.fakes.upstream import Step, chunked, fake_upstream, sse, whole

ROUNDS = 5
CHUNKS = 400
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GEMINI = "/v1beta/models/gemini-3.5-flash:streamGenerateContent"
COUNTS: dict[str, Any] = {"prompt_tokens": 1200, "completion_tokens": CHUNKS, "total_tokens": 1200 + CHUNKS}


def chat() -> list[bytes]:
    head = {"id": "chatcmpl-C4GmsUaSG4ATqnzO0EmAo8RVj0QKm", "object": "chat.completion.chunk", "created": 1755018270}
    head |= {"model": "gpt-5.4-mini-2026-03-01", "service_tier": "default", "system_fingerprint": "fp_0"}
    head |= {"usage": None}
    deltas = [{**head, "choices": [{"index": 0, "delta": {"content": f" word{i}"}, "finish_reason": None}]}
              for i in range(CHUNKS)]  # fmt: skip
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [*sse(*deltas, end, {**head, "choices": [], "usage": COUNTS}), b"data: [DONE]\n\n"]


def messages() -> list[bytes]:
    start = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "model": "claude-sonnet-5",
             "usage": {"input_tokens": 1200, "output_tokens": 1}}}  # fmt: skip
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" word{i}"}}
              for i in range(CHUNKS)]  # fmt: skip
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": CHUNKS}}
    return sse(start, *deltas, end, {"type": "message_stop"}, names=True)


def responses() -> list[bytes]:
    deltas = [{"type": "response.output_text.delta", "item_id": "msg_68a1", "output_index": 0, "sequence_number": i,
               "delta": f" word{i}", "logprobs": [], "obfuscation": "aZ81kd0"} for i in range(CHUNKS)]  # fmt: skip
    response = {"id": "resp_1", "object": "response", "model": "gpt-5.6-sol", "status": "in_progress", "usage": None}
    done = {**response, "status": "completed", "usage": {"input_tokens": 1200, "output_tokens": CHUNKS}}
    start, end = {"type": "response.created", "response": response}, {"type": "response.completed", "response": done}
    return sse(start, *deltas, end, names=True)


def gemini() -> list[bytes]:
    return sse(*({"candidates": [{"content": {"parts": [{"text": f" word{i}"}], "role": "model"}, "index": 0}],
                  "usageMetadata": {"promptTokenCount": 1200, "candidatesTokenCount": i, "totalTokenCount": 1200 + i},
                  "modelVersion": "gemini-3.5-flash", "responseId": "r1"} for i in range(CHUNKS)))  # fmt: skip


def large() -> bytes:
    """1 MB of JSON, as an answer with a picture in it."""
    return json.dumps(
        {"data": [{"b64_json": "iVBORw0KGgo" * 95_000}], "usage": {"input_tokens": 9, "output_tokens": 9}}
    ).encode()


def best(work: Callable[[], None]) -> float:
    """Seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def meter_alone() -> None:
    print(f"the meter alone, µs per chunk ({CHUNKS} chunks)\n{'':<34}{'counted':>9}{'metered':>9}")
    streams = {"chat": (CHAT, chat()), "messages": (MESSAGES, messages()), "responses": (RESPONSES, responses()),
               "gemini (usage on each chunk)": (GEMINI, gemini())}  # fmt: skip
    for name, (path, chunks) in streams.items():
        show(name, path, chunks, "text/event-stream", "", 1e6 / len(chunks))
    for encoding, packed in {
        "gzip": gzip.compress(b"".join(chat())),
        "br": brotli.compress(b"".join(chat()), quality=4),
        "zstd": zstandard.compress(b"".join(chat())),
    }.items():
        pieces = [packed[i : i + 40] for i in range(0, len(packed), 40)]
        show(f"chat, {encoding}, 40 B a piece", CHAT, pieces, "text/event-stream", encoding, 1e6 / len(pieces))
    print(f"µs per MB\n{'':<34}{'counted':>9}{'metered':>9}")
    body, stream = large(), b"".join(chat()) * 8
    show("whole JSON", "/v1/images/generations", [body[i : i + 65536] for i in range(0, len(body), 65536)],
         "application/json", "", 1e12 / len(body))  # fmt: skip
    show("a fast stream, 64 KB a piece", CHAT, [stream[i : i + 65536] for i in range(0, len(stream), 65536)],
         "text/event-stream", "", 1e12 / len(stream))  # fmt: skip


def show(name: str, path: str, pieces: list[bytes], kind: str, encoding: str, scale: float) -> None:
    found = dialects.find("POST", path)
    assert found is not None
    dialect, headers = found[0], {"Content-Type": kind, "Content-Encoding": encoding}

    def counted() -> None:
        size = 0
        for piece in pieces:
            size += len(piece)

    def metered() -> None:
        meter = Meter(dialect, "openai", headers)
        for piece in pieces:
            meter.feed(piece)
        assert meter.finish().usage.reported(), meter.failed

    print(f"{name:<34}{best(counted) * scale:>9.2f}{best(metered) * scale:>9.2f}")


async def gateway(calls: int) -> None:
    answers: dict[str, tuple[str, list[Step]]] = {
        "chat stream, 400 chunks": (CHAT, chunked(*chat())),
        "messages stream, 400 chunks": (MESSAGES, chunked(*messages())),
        "whole answer, 1 KB": (CHAT, whole({"id": "1", "padding": "x" * 1000, "usage": COUNTS})),
        "whole answer, 1 MB": (CHAT, whole({"id": "1", "padding": "x" * 1_000_000, "usage": COUNTS})),
    }
    body = json.dumps({"model": "gpt-5.4-mini", "stream_options": {"include_usage": True}, "messages": []})
    print(f"a running gateway, CPU µs per call ({calls} calls)\n{'':<34}{'relayed':>9}{'metered':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        async with fake_upstream() as upstream, aiohttp.ClientSession() as session:
            config = write_config(Path(folder), upstream.url)
            config.write_text(
                config.read_text().replace("[upstreams.openai]", "[upstreams.openai]\nallow_unmetered_paths = true")
                + "\n[console]\nenabled = false\n"
            )
            async with served(config) as running:
                for name, (path, answer) in answers.items():
                    upstream.answer(answer)
                    asked = body.replace("{", '{"stream": true, ', 1) if "stream," in name else body
                    cost = {"/unheard/of": 1e9, path: 1e9}
                    for _ in range(ROUNDS):
                        for each in cost:
                            cost[each] = min(cost[each], await cpu(running, session, each, asked, calls))
                    relayed, metered = cost.values()
                    print(f"{name:<34}{relayed:>9.0f}{metered:>9.0f}{metered / relayed:>7.2f}")
                    upstream.requests.clear()


async def cpu(running: Served, session: aiohttp.ClientSession, path: str, body: str, calls: int) -> float:
    """CPU µs of the gateway's process per call."""
    headers = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json"}
    start = ticks(running.process.pid)
    for _ in range(calls):
        async with session.post(f"{running.url}/openai{path}", data=body, headers=headers) as response:
            await response.read()
            assert response.status == 200
    return (ticks(running.process.pid) - start) / TICKS_PER_SECOND / calls * 1e6


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    meter_alone()
    asyncio.run(gateway(options.calls))


if __name__ == "__main__":
    main()
