"""Recorded provider traffic through the running gateway, over sockets, in odd-sized pieces. Extra: the recordings are
not part of this repository. Name their folder in OUTLAY_CORPUS."""

import base64
import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from yarl import URL

from gateway import dialects
from gateway.config import Auth, Upstream
from tests.conftest import StartGateway
from tests.fakes.upstream import chunked

pytestmark = pytest.mark.corpus

CORPUS = Path(os.environ.get("OUTLAY_CORPUS", "nowhere")) / "dev.jsonl.gz"
PROVIDERS = {
    "google": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "xai": "x_ai",
    "mistral": "mistral_ai",
    "azure": "azure.ai.openai",
    "aws-bedrock": "aws.bedrock",
}
LEFT_OUT = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding", "connection"})
TOKENS = {
    "cached_read": "cache_read_input_tokens",
    "cache_write": "cache_write_input_tokens",
    "cache_write_1h": "cache_write_1h_input_tokens",
    "output_total": "output_tokens",
    "reasoning": "reasoning_output_tokens",
    "audio_in": "audio_input_tokens",
    "audio_out": "audio_output_tokens",
}


NOT_ESTIMATED = ("speech", "transcriptions", "realtime")
"""What nobody can tell from the text of a request: how long a recording was."""


def _bytes(case: dict[str, Any], which: str) -> bytes:
    body = case[f"{which}_body"]
    return base64.b64decode(body) if case[f"{which}_encoding"] == "base64" else body.encode()


def _a_request(case: dict[str, Any]) -> bytes:
    """For the few cases whose request was not recorded."""
    request: dict[str, Any] = {"model": case["expected"].get("model"), "stream": case["stream"]}
    if case["stream"]:
        request["stream_options"] = {"include_usage": True}
    return json.dumps(request).encode()


def _differences(case: dict[str, Any], row: dict[str, Any]) -> list[str]:
    expected = case["expected"]
    if not expected.get("usage_reported"):
        if case["status"] >= 400:
            return [] if row["usage_source"] == "none" else ["usage where none was reported"]
        flagged = row["usage_source"] in ("estimated", "none" if case["api"] in NOT_ESTIMATED else "estimated")
        return [] if flagged else [f"no usage, and yet {row['usage_source']}"]
    if row["usage_source"] not in ("reported", "partial"):
        return [f"reported, and yet {row['usage_source']}"]
    units = row.get("other_units") or {}
    found = {ours: row.get(column) or 0 for ours, column in TOKENS.items()}
    found["input_total"] = (row.get("input_tokens") or 0) - int(units.get("tool_use_prompt_tokens", 0))
    scored = set(found)
    if expected.get("ambiguous"):
        scored -= {"input_total", "output_total", "reasoning"}
    if row["usage_source"] == "partial":  # what was not reported is estimated
        scored -= {name for name in ("input_total", "output_total") if name not in expected}
    right = {name: expected.get(name) or 0 for name in scored}
    wrong = [f"{name} {found[name]} not {right[name]}" for name in scored if found[name] != right[name]]
    if expected.get("model") and row.get("response_model") != expected["model"]:
        wrong.append(f"model {row.get('response_model')} not {expected['model']}")
    reasons = {*(expected.get("finish_reasons") or ()), expected.get("incomplete_reason")} - {None}
    if reasons and row.get("finish_reason") not in reasons:
        wrong.append(f"finish reason {row.get('finish_reason')} not {' or '.join(reasons)}")
    return wrong


def _summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of one batch as one."""
    total = dict(rows[0])
    for row in rows[1:]:
        total |= {name: (total.get(name) or 0) + (row.get(name) or 0) for name in ("input_tokens", *TOKENS.values())}
    return total


@pytest.mark.timeout(300)
async def test_recorded_traffic(start_gateway: StartGateway) -> None:
    if not CORPUS.exists():
        pytest.skip("set OUTLAY_CORPUS to a folder with recorded provider traffic")
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    async with start_gateway() as gateway:
        like = gateway.config.upstreams["openai"]
    names = {case["provider"]: PROVIDERS.get(case["provider"], case["provider"]) for case in cases}
    upstreams: dict[str, Upstream] = {
        f"u-{name}": msgspec.structs.replace(like, provider=provider, credential=None)
        for name, provider in names.items()
    }
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    async with start_gateway(auth=Auth(mode="open"), upstreams=upstreams) as gateway:
        for case in cases:
            method = "GET" if case["method"] == "WS" else case["method"]  # as a plain answer: the messages are lines
            known = dialects.find(method, case["path"])
            if known is None:
                seen["no dialect"] += 1
                wrong.append(f"{case['id']} {case['shape']}: no dialect")
                continue
            body, cut = _bytes(case, "response"), random.Random(case["id"])
            pieces, at = [], 0
            while at < len(body):
                size = cut.randint(1, 97)
                pieces.append(body[at : at + size])
                at += size
            kept = {name: value for name, value in case["response_headers"].items() if name not in LEFT_OUT}
            kind = case["response_content_type"] or "application/octet-stream"
            gateway.upstream.answer(
                chunked(
                    *pieces,
                    content_type=kind,
                    status=200 if case["status"] == 101 else case["status"],
                    headers=kept.items(),
                )
            )
            asked = _bytes(case, "request") or _a_request(case)
            before = len(gateway.closed())
            url = gateway.url + f"/u-{case['provider']}" + case["path"] + (f"?{case['query']}" if case["query"] else "")
            async with gateway.session.request(
                method, URL(url, encoded=True), data=asked, headers={"Authorization": "Bearer sk-own"}
            ) as response:
                passed = bytearray()
                try:
                    async for piece in response.content.iter_any():
                        passed += piece
                except aiohttp.ClientPayloadError:
                    seen["cut"] += 1
                    if case["expected"].get("outcome") != "truncated":
                        wrong.append(f"{case['id']} {case['shape']}: taken for cut ({case['expected'].get('outcome')})")
            rows = gateway.closed()[before:]
            if passed != body:
                wrong.append(f"{case['id']} {case['shape']}: the bytes differ")
            elif case["api"] == "batch_results" and case["status"] == 200:
                seen["batches"] += 1
                wrong += [f"{case['id']} {case['shape']}: {what}" for what in _differences(case, _summed(rows))]
            elif known[1].operation is None:
                seen["not billed"] += 1
                wrong += [f"{case['id']} {case['shape']}: booked"] * len(rows)
            else:
                seen["booked"] += 1
                wrong += [f"{case['id']} {case['shape']}: {len(rows)} rows"] * (len(rows) != 1)
                wrong += [f"{case['id']} {case['shape']}: {what}" for row in rows for what in _differences(case, row)]
    print(dict(seen))
    assert not wrong, "\n".join(wrong)
