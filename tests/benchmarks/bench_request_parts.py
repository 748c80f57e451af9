"""What each part of one call costs: `python -m tests.benchmarks.bench_request_parts [--only WORD]`.

µs (the best of some rounds) and function calls (of Python and of C, which do not depend on how busy a machine is).
Before a call is forwarded: reading the ask, quoting. After: metering, pricing, learning.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from gateway import dialects
from gateway.call import Answer, Call, Usage
from gateway.dialects.base import Dialect
from gateway.meter import Meter
from gateway.prices import PriceBook
from gateway.prices.book import DEFAULT_BOOK
from gateway.quotes import Quotes
from tests.benchmarks import bench_metering as streams

ROUNDS, SECONDS = 5, 0.02
EVENTS = 200
AT_SECONDS = 1_785_000_000


class Kind:
    """How one API is asked, and answers."""

    def __init__(self, path: str, provider: str, model: str, body: Callable[[int], bytes], answer: dict[str, Any]):
        found = dialects.find("POST", path)
        assert found is not None
        self.path, self.provider, self.model, self.body = path, provider, model, body
        self.dialect: Dialect = found[0]
        self.answer = json.dumps(answer).encode()


def conversation(size: int, text: Callable[[int, str], Any]) -> list[Any]:
    """Messages of about 2 kB, to so many bytes in all."""
    said = "def total(rows):\n    return sum(row.amount for row in rows if row.booked)\n" * (min(size, 2000) // 80 + 1)
    return [text(number, said) for number in range(max(1, size // 2000))]


def tools(size: int, wrapped: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Any]:
    schema = {"type": "object", "properties": {"path": {"type": "string", "description": "Where it is. " * 10}}}
    return [wrapped({"name": f"tool_{n}", "description": "Does it. " * 20, "parameters": schema})
            for n in range(0 if size < 10_000 else 20)]  # fmt: skip


def dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in fields.items() if value != []}).encode()


def chat_body(size: int) -> bytes:
    said = conversation(size, lambda n, text: {"role": ("user", "assistant")[n % 2], "content": text})
    given = tools(size, lambda tool: {"type": "function", "function": tool})
    return dumped({"model": "gpt-4.1-mini", "messages": said, "max_tokens": 500, "tools": given})


def messages_body(size: int) -> bytes:
    def message(number: int, text: str) -> dict[str, Any]:
        if number % 2:
            return {"role": "assistant", "content": [{"type": "tool_use", "id": f"t{number}", "name": "Read",
                                                      "input": {"file_path": f"/src/{number}.py"}}]}  # fmt: skip
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"t{number - 1}", "content": text}]}

    given = tools(size, lambda tool: {"name": tool["name"], "input_schema": tool["parameters"]})
    system = [{"type": "text", "text": "You help. " * 30, "cache_control": {"type": "ephemeral"}}]
    return dumped({"model": "claude-sonnet-4-5", "system": system if size >= 10_000 else "You help.",
                   "messages": conversation(size * 2, message), "max_tokens": 500, "tools": given})  # fmt: skip


def responses_body(size: int) -> bytes:
    said = conversation(
        size, lambda n, text: {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )
    given = tools(size, lambda tool: {"type": "function", **tool})
    return dumped({"model": "gpt-5", "input": said, "max_output_tokens": 500, "tools": given})


def gemini_body(size: int) -> bytes:
    said = conversation(size, lambda n, text: {"role": ("user", "model")[n % 2], "parts": [{"text": text}]})
    given = tools(size, lambda tool: tool)
    return dumped({"contents": said, "tools": [{"functionDeclarations": given}] if given else [],
                   "generationConfig": {"maxOutputTokens": 500}})  # fmt: skip


CHAT_USAGE = {"prompt_tokens": 1200, "completion_tokens": 40, "total_tokens": 1240,
              "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
              "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                            "rejected_prediction_tokens": 0}}  # fmt: skip
KINDS = {
    "chat": Kind("/v1/chat/completions", "openai", "gpt-4.1-mini", chat_body,
        {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-mini-2025-04-14",
         "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 40}, "finish_reason": "stop"}],
         "usage": CHAT_USAGE, "service_tier": "default"}),
    "messages": Kind("/v1/messages", "anthropic", "claude-sonnet-4-5", messages_body,
        {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
         "content": [{"type": "text", "text": "word " * 40}], "stop_reason": "end_turn", "stop_sequence": None,
         "usage": {"input_tokens": 4, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 1024,
                   "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
                   "output_tokens": 40, "service_tier": "standard"}}),
    "responses": Kind("/v1/responses", "openai", "gpt-5", responses_body,
        {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-5-2025-08-07",
         "output": [{"type": "message", "content": [{"type": "output_text", "text": "word " * 40}]}],
         "usage": {"input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 40,
                   "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1240}}),
    "gemini": Kind("/v1beta/models/gemini-2.5-flash:generateContent", "gcp.gemini", "gemini-2.5-flash", gemini_body,
        {"candidates": [{"content": {"parts": [{"text": "word " * 40}], "role": "model"}, "finishReason": "STOP"}],
         "usageMetadata": {"promptTokenCount": 1200, "candidatesTokenCount": 40, "totalTokenCount": 1240,
                           "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1200}]},
         "modelVersion": "gemini-2.5-flash", "responseId": "r1"}),
}  # fmt: skip


def best(work: Callable[[], object]) -> float:
    """µs."""
    work()
    start = time.perf_counter()
    work()
    times = max(1, int(SECONDS / (time.perf_counter() - start)))
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        found.append((time.perf_counter() - start) / times)
    return min(found) * 1e6


def calls_of(work: Callable[[], object]) -> int:
    """Function calls, of Python and of C."""
    found = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    sys.setprofile(count)
    work()
    sys.setprofile(None)
    return found - 2  # `work` itself, and what ends the profile


def show(name: str, work: Callable[[], object]) -> None:
    print(f"{name:<44}{best(work):>9.1f}{calls_of(work):>8}")


def before(name: str, kind: Kind) -> None:
    for size, label in ((600, "1 kB"), (28_000, "30 kB"), (490_000, "500 kB")):
        body = kind.body(size)
        show(f"{name}, read the ask of {label}", lambda body=body: kind.dialect.read_ask(kind.path, body))  # type: ignore[misc]


def after(name: str, kind: Kind) -> None:
    json_head = {"Content-Type": "application/json", "Content-Length": str(len(kind.answer))}

    def metered() -> Meter:
        meter = Meter(kind.dialect, kind.provider, json_head)
        meter.feed(kind.answer)
        meter.finish()
        return meter

    show(f"{name}, meter a whole answer", metered)
    answer: Answer = metered().answer
    assert answer.usage.reported()
    money(name, kind, answer.usage, answer)


def money(name: str, kind: Kind, usage: Usage, answer: Answer) -> None:
    book = PriceBook.load(DEFAULT_BOOK)
    quotes = Quotes(book)
    body = kind.body(600)
    ask = kind.dialect.read_ask(kind.path, body)
    call = Call(call_id="1", request_id="1", attempt=1, started_us=AT_SECONDS * 1_000_000, provider=kind.provider,
                request_model=kind.model, operation="chat", client="codex")  # fmt: skip
    names = (answer.response_model, call.request_model)

    def priced() -> Any:
        return book.price(
            kind.provider,
            names,
            usage,
            datetime.fromtimestamp(call.started_us / 1e6, UTC),
            service_tier=answer.service_tier or call.service_tier,
            region=answer.region,
            subpasses=answer.subpasses,
            reported_nano=answer.provider_cost_nano,
        )

    cost = priced()
    assert cost.list_nano, cost
    estimate = quotes.quote(call, ask, None, len(body))
    assert estimate is not None
    show(f"{name}, quote", lambda: quotes.quote(call, ask, None, len(body)))
    show(f"{name}, price", priced)
    call.usage_source, call.list_cost_nano, call.output_cost_nano = "reported", cost.list_nano, cost.output_nano
    call.other_cost_nano, call.output_tokens, call.input_tokens = 0, usage.output_tokens, usage.input_tokens
    show(f"{name}, learn", lambda: quotes.learn(call, estimate, len(body), 200))


def stream(name: str, path: str, chunks: list[bytes]) -> None:
    found = dialects.find("POST", path)
    assert found is not None
    dialect, head = found[0], {"Content-Type": "text/event-stream"}

    def metered(pieces: list[bytes]) -> None:
        meter = Meter(dialect, "openai", head)
        for piece in pieces:
            meter.feed(piece)
        assert meter.finish().usage.reported(), meter.failed

    joined = b"".join(chunks)
    pieces = [joined[at : at + 16_384] for at in range(0, len(joined), 16_384)]
    for label, cut in (("one piece", [joined]), ("pieces of 16 kB", pieces), ("a piece each", chunks)):
        show(f"{name}, a stream of {EVENTS}, {label}", lambda cut=cut: metered(cut))  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="one of: " + ", ".join(KINDS))
    options = parser.parse_args()
    streams.CHUNKS = EVENTS
    print(f"{'':<44}{'µs':>9}{'calls':>8}")
    for name, kind in KINDS.items():
        if name.startswith(options.only):
            before(name, kind)
            after(name, kind)
            path = streams.GEMINI if name == "gemini" else kind.path
            stream(name, path, getattr(streams, name)())


if __name__ == "__main__":
    main()
