"""Sends what calls were to an OpenTelemetry collector: spans and metrics over OTLP, from a thread of its own.

A call hands its record over and goes on: nothing waits for a collector, and nothing fails with it. Where the queue is
full, or nobody takes what is sent, it is dropped and counted.
"""

import logging
import os
import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway import otel
from gateway.call import Call
from gateway.config import Config, secret
from gateway.otel import Generation
from gateway.telemetry import Telemetry

QUEUED_MAX = 10_000
BATCH_MAX = 512
BATCH_SECONDS = 1.0
SEND_SECONDS = 10
STOP_SECONDS = 3.0
LATEST = "gen_ai_latest_experimental"
"""In OTEL_SEMCONV_STABILITY_OPT_IN: the newest conventions that are known here."""

log = logging.getLogger("outlay")


def generations(setting: str) -> tuple[Generation, ...]:
    """The conventions to follow; the standard variable outranks the setting."""
    if LATEST in os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(","):
        return ("latest",)
    return ("v1.41", "latest") if setting == "both" else ("latest",) if setting == "latest" else ("v1.41",)


class _Ended(SpanProcessor):
    """Takes the spans that have ended and are sampled."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.spans.append(span)


class Exporter:
    """The thread that sends. `address`: the collector's, as `[telemetry] otlp` names it."""

    def __init__(self, config: Config, address: str, telemetry: Telemetry, gateway_id: str) -> None:
        settings = config.telemetry
        headers = _headers(settings.otlp_headers)
        resource = Resource(
            {
                "service.name": settings.service_name,
                "service.instance.id": gateway_id,
                **({"outlay.synthetic": True} if config.ledger.synthetic else {}),
            }
        )
        self._own, self._estimates = settings.outlay_attributes, settings.emit_estimates
        self._generations = generations(settings.genai)
        self._addresses = {name: upstream.base_url for name, upstream in config.upstreams.items()}
        self._telemetry = telemetry
        self._queue: queue.Queue[Call] = queue.Queue(QUEUED_MAX)
        self._ends = threading.Event()
        self._ended = _Ended()
        self._sending = 0
        self._spans = OTLPSpanExporter(f"{address}/v1/traces", headers=headers, timeout=SEND_SECONDS)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(self._ended)
        self._tracer = self._tracers.get_tracer("outlay")
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{address}/v1/metrics", headers=headers, timeout=SEND_SECONDS),
            export_interval_millis=settings.metrics_seconds * 1000,
        )
        self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        meter = self._meters.get_meter("outlay")
        self._instruments: dict[str, Any] = {
            name: meter.create_counter(name, unit) for name, unit in otel.COUNTERS.items()
        }
        for name, steps in otel.BUCKETS.items():
            unit = "{token}" if steps is otel.TOKEN_STEPS else "s"
            self._instruments[name] = meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=steps)
        meter.create_observable_gauge(otel.HOLDS, [self._holds], "{hold}")
        self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)
        self._thread.start()

    def take(self, call: Call) -> None:
        """Hand over a finished call. Returns at once."""
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            self._telemetry.dropped.inc()

    def stop(self) -> None:
        """Send what is there, for a bounded time; what is left then is dropped, and counted."""
        self._ends.set()
        self._thread.join(STOP_SECONDS)
        self._spans.shutdown()  # type: ignore[no-untyped-call]  # nothing is tried again any more
        self._meters.shutdown(timeout_millis=STOP_SECONDS * 1000)
        if left := self._queue.qsize() + self._sending:
            self._telemetry.dropped.inc(left)
            log.warning("the OpenTelemetry collector was not told of the last %d calls", left)

    # -- in threads --------------------------------------------------------------------------------------------

    def _holds(self, options: CallbackOptions) -> Iterable[Observation]:
        [gauge] = self._telemetry.holds_open.collect()  # this one alone: others look at what the loop changes
        yield Observation(gauge.samples[0].value)

    def _run(self) -> None:
        while not (self._ends.is_set() and self._queue.empty()):
            try:
                self._see(self._queue.get(timeout=0 if self._ends.is_set() else BATCH_SECONDS))
                is_due = len(self._ended.spans) >= BATCH_MAX
            except queue.Empty:
                is_due = True
            if is_due:
                self._send()
        self._send()

    def _see(self, call: Call) -> None:
        address = self._addresses.get(call.upstream or "", "")
        try:
            self._trace(call, address)
            for instrument, value, attributes in otel.measures(
                self._bounded(call), address, self._generations, estimates=self._estimates
            ):
                instrument_of = self._instruments[instrument]
                (instrument_of.add if instrument in otel.COUNTERS else instrument_of.record)(value, attributes)
        except Exception as error:  # noqa: BLE001 - one odd call must not end the thread
            log.error("a call could not be traced: %s", type(error).__name__)
            self._telemetry.dropped.inc()

    def _bounded(self, call: Call) -> Call:
        """Names of models may come from clients; each that is measured is kept for good."""
        asked, answered = call.request_model, call.response_model
        return msgspec.structs.replace(
            call, request_model=asked and self._telemetry.bounded(asked),
            response_model=answered and self._telemetry.bounded(answered),
        )  # fmt: skip

    def _trace(self, call: Call, address: str) -> None:
        begin_ns = call.started_us * 1000
        span = self._tracer.start_span(
            otel.span_name(call),
            _context(call.traceparent),
            SpanKind.CLIENT,
            otel.start_attributes(call, address),
            start_time=begin_ns,
        )
        if span.is_recording():
            span.set_attributes(otel.attributes(call, self._generations, estimates=self._estimates, own=self._own))
            if otel.error_of(call) is not None:
                span.set_status(Status(StatusCode.ERROR))
        span.end(begin_ns + (call.duration_ms or 0) * 1_000_000)

    def _send(self) -> None:
        batch: Sequence[ReadableSpan] = self._ended.spans
        self._ended.spans, self._sending = [], len(batch)
        if batch and self._spans.export(batch) is not SpanExportResult.SUCCESS:
            self._telemetry.dropped.inc(len(batch))
        self._sending = 0


def _context(traceparent: str | None) -> Context:
    """Of the client's span, if it told of one."""
    parent = otel.parent_of(traceparent)
    if parent is None:
        return Context()
    span = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))
    return set_span_in_context(NonRecordingSpan(span), Context())


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, reference in given.items() if (value := secret(reference))}
