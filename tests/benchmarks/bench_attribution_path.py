"""CPU of attribution per call, on recorded requests grown to real size, beside reading the ask of the same request.

Run: `python tests/benchmarks/bench_attribution_path.py`. Prints µs and the ratio to `read_ask`, which decodes the body.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway import claims, clients, dialects, hashing
from gateway.call import Principal
from gateway.config import TicketSettings
from gateway.keys import Keys
from gateway.tickets import Tickets
from gateway.tracker import Snapshot, Tracker

REQUESTS = Path(__file__).parent.parent / "transcripts" / "requests"
CASES = {"claude-code-main": 50_000, "claude-code-compaction": 500_000, "codex": 55_000, "gemini-cli-main": 41_000,
         "opencode-main": 20_000, "aider-openai": 11_000}  # fmt: skip
"""Recorded request → bytes of conversation added, as the tools send it."""
ROUNDS = 300


def microseconds(does: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(ROUNDS):
            does()
        best = min(best, time.perf_counter() - start)
    return best / ROUNDS * 1e6


def grown(body: dict[str, object], size: int) -> bytes:
    filler = "The quick brown fox jumps over the lazy dog. " * (size // 45)
    for name, message in (
        ("messages", {"role": "user", "content": filler}),
        ("input", {"type": "message", "role": "user", "content": [{"type": "input_text", "text": filler}]}),
        ("contents", {"role": "user", "parts": [{"text": filler}]}),
    ):
        conversation = body.get(name)
        if isinstance(conversation, list):
            conversation.insert(len(conversation) - 1 if name == "messages" else len(conversation), message)
    return json.dumps(body).encode()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ring = Keys(Path(folder))
        tracker = Tracker(Path(folder))
        tracker.now = Snapshot(tickets={f"P{n % 200}X-{n}": "open" for n in range(50_000)} | {"PAY-123": "open"})
        tickets = Tickets(TicketSettings(), claims.Claims(ring.claim_key), tracker)
        principal = Principal("key_1", fingerprint=claims.fingerprint("olk_1"))
        _, claim_key = ring.create_claim_key()
        at = int(time.time())
        signed = claims.sign(
            claim_key,
            claims.Claim(tickets=("PAY-123",), issued_at=at, expires_at=at + 3600, key=principal.fingerprint),
        )

        def keyed(text: str) -> str:
            return hashing.keyed(b"k" * 32, text)

        print(f"{'request':<26}{'kB':>6}{'read_ask':>11}{'observe':>10}{'attribute':>11}{'claim':>8}{'ratio':>8}")
        for name, size in CASES.items():
            request = json.loads((REQUESTS / f"{name}.json").read_text(encoding="utf-8"))
            body, path, headers = grown(request["body"], size), request["path"].partition("?")[0], request["headers"]
            found = dialects.find("POST", path, "")
            assert found is not None
            dialect, recognised = found[0], clients.recognise(headers)
            ask = dialect.read_ask(path, body)
            client = clients.observe(recognised, headers, ask, keyed)

            def attribute(extra: dict[str, str]) -> object:
                return tickets.attribute(principal, headers | extra, None, None, ask, client, at * 1_000_000)  # noqa: B023

            read = microseconds(lambda: dialect.read_ask(path, body))  # noqa: B023
            look = microseconds(lambda: clients.observe(recognised, headers, ask, keyed))  # noqa: B023
            weigh = microseconds(lambda: attribute({}))
            claimed = microseconds(lambda: attribute({"x-outlay-claim": signed}))
            print(
                f"{name:<26}{len(body) // 1000:>6}{read:>9.1f}µs{look:>8.1f}µs{weigh:>9.1f}µs{claimed:>6.1f}µs"
                f"{(look + weigh) / read:>7.2f}x"
            )


if __name__ == "__main__":
    main()
