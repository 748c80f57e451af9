"""How good token estimates are, and what they cost: `OUTLAY_CORPUS=DIR python -m tests.benchmarks.bench_estimates`.

Compares estimates with what providers reported in recorded traffic. Error: |ln(estimate / reported)| as a percentage;
bias: the median estimate / reported - 1. `others`: the error with the factor that the family's other cases suggest
(leave one out). Of calls with under 20 tokens nothing is shown: they are all template.
"""

import base64
import gzip
import json
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from gateway import texts, tokens
from gateway.framing import framing_of

CORPUS = Path(os.environ.get("OUTLAY_CORPUS", "nowhere")) / "dev.jsonl.gz"
NAMES = {
    "aws-bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
}
NO_CHATS = re.compile("batch|image|transcription|rerank|predict|realtime|retrieve|compact|assistants")
TOKENS_MIN = 20
EVENTS_MIN = 10
"""Shorter streams are not cut."""
SAMPLE_BYTES = 16 * 1024
CUTS = (0.1, 0.25, 0.5, 0.75)
REASONING_SHOWN = re.compile(rb'"(?:reasoning|reasoning_content|thinking|thought)"\s*:\s*(?:"[^"]|true)')
SERVER_TOOLS = re.compile(
    rb"web_search|web_fetch|google_?search|code_?interpreter|code_?execution|url_?context|file_search|image_generation|"
    rb'"mcp|tool_search|advisor|computer|sonar|compound|x_search|urlContext|"plugins"|"preset"|guardrail|googleMaps|'
    rb'cachedContent|previous_response_id|"conversation"|venice_parameters',
    re.IGNORECASE,
)
"""Then the provider adds input that the request does not hold."""
RUNNING = ("completion_tokens", "candidatesTokenCount", "generation_token_count")

Pairs = list[tuple[float, float]]
"""Estimated and reported."""


def body(case: dict[str, Any], which: str) -> bytes:
    text = case[f"{which}_body"] or ""
    return base64.b64decode(text) if case[f"{which}_encoding"] == "base64" else text.encode()


def events(case: dict[str, Any]) -> list[bytes]:
    """The events of an answer that carry text."""
    data = body(case, "response").lstrip(b"\xef\xbb\xbf \t\r\n")
    framing = framing_of(case["response_content_type"] or "", data)
    found = [*framing.feed(data), framing.rest()]
    return [event for event in found if event and event.strip() != b"[DONE]" and texts.carries_text(event)]


def first(found: list[bytes]) -> list[bytes]:
    """As the gateway keeps them."""
    kept: list[bytes] = []
    room = SAMPLE_BYTES
    for event in found:
        kept.append(event[:room])
        room -= len(event)
        if room <= 0:
            break
    return kept


def answer(family: tokens.Family, found: list[bytes]) -> float:
    kept = found if len(found) == 1 else first(found)
    seen = sum(map(len, kept))
    return tokens.answer_estimate(texts.written_by_model(kept), family) * sum(map(len, found)) / seen if seen else 0


def running(event: bytes) -> int | None:
    """The output tokens so far, where a provider states them on every event."""
    counts = [int(n) for name in RUNNING for n in re.findall(rb'"%s"\s*:\s*(\d+)' % name.encode(), event)]
    return max(counts, default=None)


def log(pair: tuple[float, float]) -> float:
    return math.log(max(pair[0], 1) / pair[1])


def table(title: str, groups: dict[str, Pairs]) -> None:
    print(f"\n{title}\n{'family':<14}{'n':>5}{'bias':>8}{'median':>8}{'p90':>8}{'others':>8}")
    for name, pairs in sorted(groups.items(), key=lambda entry: (entry[0] == "all", entry[0])):
        logs = sorted(map(log, pairs))
        sizes = sorted(map(abs, logs))
        p90 = sizes[min(len(sizes) - 1, math.ceil(len(sizes) * 0.9) - 1)]
        apart = [abs(one - median(logs[:i] + logs[i + 1 :])) for i, one in enumerate(logs)] if len(logs) > 2 else []
        others = f"{median(apart):8.0%}" if apart else f"{'':8}"
        print(f"{name:<14}{len(logs):>5}{math.expm1(median(logs)):>+8.0%}{median(sizes):>8.0%}{p90:>8.0%}{others}")


def groups_of(entries: Iterable[tuple[str, float, float]]) -> dict[str, Pairs]:
    groups: dict[str, Pairs] = defaultdict(list)
    for name, estimated, reported in entries:
        if reported >= TOKENS_MIN:
            groups[name].append((estimated, reported))
            groups["all"].append((estimated, reported))
    return groups


def cost() -> None:
    prose = (Path(__file__).parent.parent.parent / "gateway/proxy.py").read_text(encoding="utf-8")
    text = (prose * 20)[:100_000]
    request = json.dumps({"messages": [{"role": "user", "content": text[:1000]}] * 100}).encode()
    start = time.process_time()
    tokens.encoding.__wrapped__()
    print(f"\nCPU: loading {(time.process_time() - start) * 1000:.0f} ms", end="")
    for name, work in (
        ("100 KB of code", lambda: tokens.count([text])),
        ("a request of 100 KB", lambda: tokens.request_estimate(tokens.readable(request), tokens.OTHER)),
    ):
        spent = []
        for _ in range(10):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        print(f", {name} {min(spent) * 1000:.1f} ms", end="")
    print()


def main() -> None:
    cost()
    if not CORPUS.exists():
        print("For the errors set OUTLAY_CORPUS to a folder with recorded provider traffic.")
        return
    asked: list[tuple[str, float, float]] = []
    asked_tools: list[tuple[str, float, float]] = []
    rough: list[tuple[str, float, float]] = []
    answered: list[tuple[str, float, float]] = []
    hidden: list[tuple[str, float, float]] = []
    cuts: dict[float, list[tuple[str, float, float]]] = defaultdict(list)
    cuts_running: list[tuple[str, float, float]] = []
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    for case in cases:
        expected = case["expected"]
        if (
            case["source"].get("edited")
            or case["status"] != 200
            or not expected.get("usage_reported")
            or NO_CHATS.search(case["api"])
        ):
            continue
        family = tokens.family_of(
            NAMES.get(case["provider"], case["provider"]), expected.get("model") or case["request_model"]
        )
        request = body(case, "request")
        if (
            request
            and (reported := expected.get("input_total"))
            and not SERVER_TOOLS.search(request + case["path"].encode())
        ):
            read = tokens.readable(request)
            if not read.attachments:
                entry = (family.name, tokens.request_estimate(read, family), reported)
                (asked_tools if read.has_tools else asked).append(entry)
                rough.append((family.name, len(request) / 4, reported))
        reported = expected.get("output_total")
        found = events(case)
        if not reported or not found or SERVER_TOOLS.search(request) or expected.get("image_out"):
            continue
        shown = not expected.get("reasoning") or REASONING_SHOWN.search(body(case, "response"))
        estimated = answer(family, found)
        (answered if shown else hidden).append((family.name, estimated, reported))
        if len(found) < EVENTS_MIN or not shown:
            continue
        whole = sum(map(len, texts.written_by_model(found).parts))
        for share in CUTS:
            part = found[: max(int(len(found) * share), 1)]
            part[-1] = part[-1][: len(part[-1]) // 2]  # torn in the middle
            done = sum(map(len, texts.written_by_model(part).parts))
            if whole:
                cuts[share].append((family.name, answer(family, part), reported * done / whole))
            if len(part) > 1 and (so_far := running(part[-2])):
                cuts_running.append((family.name, answer(family, part[:-1]), so_far))
    table("input, text alone", groups_of(asked))
    table("input, with tools", groups_of(asked_tools))
    table("input, bytes / 4 instead", groups_of(rough))
    table("output, all text visible", groups_of(answered))
    table("output, reasoning hidden", groups_of(hidden))
    for share, entries in cuts.items():
        table(f"output, cut at {share:.0%}, against the share of characters", {"all": groups_of(entries)["all"]})
    table("output, cut, against the provider's running count", groups_of(cuts_running))


if __name__ == "__main__":
    main()
