"""What an OpenTelemetry collector is told: names, units, buckets of the conventions; nothing of a prompt or a key."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway import otel
from gateway.call import Call
from gateway.config import TelemetrySettings
from tests.conftest import PROVIDER_KEY, Running, StartGateway
from tests.fakes.upstream import FakeUpstream, chunked, fake_upstream, whole
from tests.test_alerts import until
from tests.test_meter import CHAT_STREAM
from tests.test_proxy import ANSWER, CHAT

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
async def collector() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        fake.answer(whole({}))
        yield fake


def settings(collector: FakeUpstream, **more: Any) -> TelemetrySettings:
    return TelemetrySettings(otlp=collector.url, **{"metrics_seconds": 0.2, **more})


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def spans(collector: FakeUpstream) -> list[Any]:
    found = []
    for request in collector.requests:
        if request.target == "/v1/traces":
            told = ExportTraceServiceRequest.FromString(request.body)
            found += [span for of in told.resource_spans for scope in of.scope_spans for span in scope.spans]
    return found


def metrics(collector: FakeUpstream) -> dict[str, Any]:
    """The last that was told of each."""
    found: dict[str, Any] = {}
    for request in collector.requests:
        if request.target == "/v1/metrics":
            told = ExportMetricsServiceRequest.FromString(request.body)
            found |= {m.name: m for of in told.resource_metrics for scope in of.scope_metrics for m in scope.metrics}
    return found


async def ask(gateway: Running, body: Any = CHAT, **headers: str) -> int:
    async with gateway.post("/v1/chat/completions", body, **headers) as response:
        await response.read()
        return response.status


async def test_a_call_is_a_span(start_gateway: StartGateway, collector: FakeUpstream) -> None:
    async with start_gateway(telemetry=settings(collector)) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        fields = {"x_outlay_ticket": "PAY-7", "x_outlay_repo": "acme/shop", "x_outlay_branch": "feature/PAY-7"}
        assert await ask(gateway, traceparent=PARENT, **fields) == 200
        await until(lambda: spans(collector))
        [row], port = gateway.closed(), gateway.upstream.port
        assert gateway.upstream.requests[0].header("traceparent") == PARENT
    [span] = spans(collector)
    assert (span.name, span.kind, span.status.code) == ("chat gpt-5.4-mini", 3, 0)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.start_time_unix_nano == row["started_us"] * 1000
    assert span.end_time_unix_nano - span.start_time_unix_nano == row["duration_ms"] * 1_000_000
    found = _attributes(span.attributes)
    assert found.items() >= {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5.4-mini",
        "gen_ai.response.model": "gpt-5.4-mini", "gen_ai.response.id": "chatcmpl-9", "server.address": "127.0.0.1",
        "server.port": port, "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100,
        "gen_ai.response.finish_reasons": ["stop"], "outlay.call.id": row["call_id"], "outlay.ticket.id": "PAY-7",
        "outlay.ticket.source": "header", "outlay.team.id": "payments", "outlay.result": "completed",
        "vcs.repository.name": "shop", "vcs.owner.name": "acme", "vcs.ref.head.name": "feature/PAY-7",
    }.items()  # fmt: skip
    assert found["outlay.cost.list"] == row["list_cost_nano"] / 1e9
    assert {"gen_ai.request.stream", "gen_ai.conversation.id", "error.type", "user.id"}.isdisjoint(found)
    assert row["traceparent"] == PARENT
    for request in collector.requests:
        for secret in (b"secret plan", gateway.key.encode(), PROVIDER_KEY.encode(), b"dev-1"):
            assert secret not in request.body


async def test_metrics_have_the_buckets_of_the_conventions(
    start_gateway: StartGateway, collector: FakeUpstream
) -> None:
    async with start_gateway(telemetry=settings(collector, genai="both")) as gateway:
        gateway.upstream.answer(whole(ANSWER), chunked(CHAT_STREAM))
        assert await ask(gateway, x_outlay_ticket="PAY-7") == 200
        assert await ask(gateway, {**CHAT, "stream": True, "stream_options": {"include_usage": True}}) == 200
        await until(lambda: otel.FIRST_CHUNK["latest"] in metrics(collector))
        rows = gateway.closed()
    found = metrics(collector)
    assert found.keys() == {*otel.BUCKETS, *otel.COUNTERS, otel.HOLDS} - {otel.UNPRICED}
    for name, steps in otel.BUCKETS.items():
        assert [*found[name].histogram.data_points[0].explicit_bounds] == steps
        assert found[name].unit == ("{token}" if "token" in name and "time" not in name else "s")
    durations = found["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in durations) == 2
    inputs = [
        point.sum for point in found["gen_ai.client.token.usage"].histogram.data_points
        if _attributes(point.attributes)["gen_ai.token.type"] == "input"
    ]  # fmt: skip
    assert sum(inputs) >= 1000
    assert found["outlay.cost"].unit == "USD"
    overhead = found[otel.OVERHEAD].histogram.data_points
    assert {(*sorted(_attributes(point.attributes).items()),) for point in overhead} == {
        (("route", "openai_chat"), ("stream", False)), (("route", "openai_chat"), ("stream", True)),
    }  # fmt: skip
    assert sum(point.sum for point in overhead) == pytest.approx(sum(row["overhead_us"] for row in rows) / 1e6)
    shown = {key for name in found for point in _points(found[name]) for key in _attributes(point.attributes)}
    assert not [key for key in shown if "ticket.id" in key or "task" in key or "user" in key or "key" in key]


def _points(metric: Any) -> Any:
    return metric.histogram.data_points or metric.sum.data_points or metric.gauge.data_points


async def test_errors_refusals_and_estimates(start_gateway: StartGateway, collector: FakeUpstream) -> None:
    answer = {name: value for name, value in ANSWER.items() if name != "usage"}
    async with start_gateway(telemetry=settings(collector, genai="latest")) as gateway:
        gateway.upstream.answer(whole({"error": {}}, status=429), whole(answer))
        assert await ask(gateway) == 429
        assert await ask(gateway) == 200
        assert await ask(gateway, b"no JSON") == 400
        await until(lambda: len(spans(collector)) == 3)
    failed, estimated, refused = (_attributes(span.attributes) for span in spans(collector))
    assert [span.status.code for span in spans(collector)] == [2, 0, 2]
    assert failed["error.type"] == "429"
    assert refused["error.type"] == "outlay.refusal.request_unreadable"
    assert estimated["outlay.usage.source"] == "estimated"
    assert not [name for name in estimated if name.startswith("gen_ai.usage")]


async def test_without_a_setting_nothing_is_sent(
    start_gateway: StartGateway, collector: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    async with start_gateway() as gateway:
        gateway.upstream.answer(whole(ANSWER))
        assert await ask(gateway) == 200
    assert collector.requests == []


async def test_without_our_own_attributes(start_gateway: StartGateway, collector: FakeUpstream) -> None:
    async with start_gateway(telemetry=settings(collector, outlay_attributes=False)) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        assert await ask(gateway, x_outlay_ticket="PAY-7") == 200
        await until(lambda: spans(collector))
    [span] = spans(collector)
    assert not [name for name in _attributes(span.attributes) if name.startswith(("outlay.", "vcs."))]


async def test_a_collector_that_hangs_or_is_gone_holds_nothing_up(
    start_gateway: StartGateway, collector: FakeUpstream
) -> None:
    collector.answer([100.0])
    async with start_gateway(telemetry=settings(collector)) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        for _ in range(20):
            assert await ask(gateway) == 200
        await until(lambda: collector.requests)
        for _ in range(20):
            assert await ask(gateway) == 200
        assert len(gateway.closed()) == 40
        begun = time.monotonic()
    assert time.monotonic() - begun < 60  # it is not waited for


async def test_what_is_not_sampled_is_not_sent(start_gateway: StartGateway, collector: FakeUpstream) -> None:
    async with start_gateway(telemetry=settings(collector)) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        assert await ask(gateway, traceparent=f"00-{TRACE}-{SPAN}-00") == 200
        assert await ask(gateway, traceparent="no such thing") == 200
        await until(lambda: spans(collector))
        assert [row.get("traceparent") for row in gateway.closed()] == [f"00-{TRACE}-{SPAN}-00", None]
    [span] = spans(collector)
    assert span.parent_span_id == b""


# -- names -------------------------------------------------------------------------------------------------------------


def test_the_standard_variable_outranks_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.exporter import generations

    assert [generations(each) for each in ("v1.41", "latest", "both")] == [
        ("v1.41",), ("latest",), ("v1.41", "latest"),
    ]  # fmt: skip
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,gen_ai_latest_experimental")
    assert generations("v1.41") == ("latest",)


@pytest.mark.parametrize(
    "sent",
    [None, "", PARENT[:-1], PARENT.upper(), f"01{PARENT[2:]}", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"],
)
def test_what_is_no_trace_context(sent: str | None) -> None:
    assert otel.parent_of(sent) is None


COUNTS = st.none() | st.integers(0, 10**6)


@given(
    st.builds(
        Call, call_id=st.just("c"), request_id=st.just("r"), attempt=st.just(1), started_us=st.just(0),
        input_tokens=COUNTS, output_tokens=COUNTS, audio_input_tokens=COUNTS, image_output_tokens=COUNTS,
        cache_read_input_tokens=COUNTS, usage_source=st.sampled_from(["reported", "partial", "estimated", "none"]),
        list_cost_nano=COUNTS, duration_ms=COUNTS, status=st.none() | st.integers(200, 599), stream=st.booleans(),
        result=st.sampled_from(["completed", "refused", "upstream_cut", "interrupted"]), tickets=st.just(()),
    ),
    st.booleans(),
)  # fmt: skip
def test_parts_by_modality_sum_to_the_whole(call: Call, estimates: bool) -> None:
    found = [*otel.measures(call, "https://h", ("v1.41", "latest"), estimates=estimates)]
    assert {each.instrument for each in found} <= {*otel.BUCKETS, *otel.COUNTERS}
    told = call.usage_source in otel.REPORTED or estimates
    for instrument, column in otel.TOKEN_SUMS.items():
        parts = [each.value for each in found if each.instrument == instrument]
        number = getattr(call, column) if told else None
        if call.result == "refused":
            assert parts == []
        elif column == "cache_read_input_tokens":
            assert sum(parts) == (number or 0)
        else:
            assert sum(parts) >= (number or 0)
    json.dumps(otel.attributes(call, ("v1.41",), estimates=estimates, own=True))
