"""Metrics for `/-/metrics`, fed from finished records. Names and labels: docs/operations.md. No ticket, task, user or
key is a label, and the money here is for reading only: the ledger holds the exact sums.
"""

from collections import Counter as Sums
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway import otel
from gateway.budgets import Account, Budgets
from gateway.call import NANO, Call

MODELS_MAX = 1000
Instrument = TypeVar("Instrument", Counter, Histogram)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    metric: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Telemetry:
    """The gateway's own instruments, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        """Of counters, what `gained` gave."""
        self._models: set[str] = set()
        self._children: dict[tuple[Any, ...], Any] = {}
        """Instruments with their labels, which to look up in the library takes longer than to count."""
        labels = ("provider", "dialect", "result", "usage_source", "price_status")
        self.calls = Counter("outlay_calls", "Calls by how they ended.", labels, registry=self.registry)
        self.cost = Counter(
            "outlay_cost_usd", "List cost of priced calls.", ("provider", "response_model", "team"),
            registry=self.registry,
        )  # fmt: skip
        self.unattributed = Counter(
            "outlay_unattributed_cost_usd", "List cost of calls without a ticket.", ("team",), registry=self.registry
        )
        self.unpriced = Counter(
            "outlay_unpriced_calls", "Calls that cost something nobody knows.", ("provider", "model"),
            registry=self.registry,
        )  # fmt: skip
        self.refusals = Counter("outlay_refusals", "Refusals by code.", ("code",), registry=self.registry)
        self.limited = Counter(
            "outlay_limited_calls", "Calls refused by a limit, by kind of its scope, and what was used up.",
            ("scope", "limit"), registry=self.registry,
        )  # fmt: skip
        self.guarded = Counter(
            "outlay_guarded_calls", "Calls that a guard refused, or would have refused, by rule.", ("rule", "mode"),
            registry=self.registry,
        )  # fmt: skip
        self.ignored_evidence = Counter(
            "outlay_ignored_evidence", "Values that should name a ticket or its place, and were none.",
            ("source", "reason"), registry=self.registry,
        )  # fmt: skip
        self.unmetered = Counter(
            "outlay_unmetered_requests", "Requests that providers do not bill: counting, listing, reading again.",
            ("upstream",), registry=self.registry,
        )  # fmt: skip
        self.meter_failures = Counter(
            "outlay_meter_failures", "Answers whose metering gave up.", ("dialect", "why"), registry=self.registry
        )
        self.read_on = Counter(
            "outlay_read_on_calls", "Answers read on after their client had gone.", registry=self.registry
        )
        self.unrecorded = Counter(
            "outlay_unrecorded_calls", "Finished calls that the journal could not take.", registry=self.registry
        )
        self.retries = Counter(
            "outlay_retries", "Attempts after the first of a request, by where they went.", ("upstream",),
            registry=self.registry,
        )  # fmt: skip
        self.fallbacks = Counter(
            "outlay_fallbacks", "Attempts that went to a fallback.", ("upstream", "fallback"), registry=self.registry
        )
        self.breakers_open = Gauge(
            "outlay_breakers_open", "Models for which an upstream's circuit breaker is open.", ("upstream",),
            registry=self.registry,
        )  # fmt: skip
        self.webhooks = Counter(
            "outlay_webhooks", "Deliveries of webhooks that were taken.", ("source",), registry=self.registry
        )
        self.webhook_refusals = Counter(
            "outlay_webhook_refusals", "Deliveries of webhooks that were not, and why.", ("source", "reason"),
            registry=self.registry,
        )  # fmt: skip
        self.dropped = Counter(
            "outlay_telemetry_dropped", "Finished calls that no OpenTelemetry collector was told of.",
            registry=self.registry,
        )  # fmt: skip
        self.alerts = Counter(
            "outlay_alerts", "Notices by channel and what became of them.", ("kind", "channel", "result"),
            registry=self.registry,
        )  # fmt: skip
        self._budgets = {
            what: Gauge(f"outlay_budget_{what}_usd", f"{text}, all accounts of a template together.", ("budget",),
                        registry=self.registry)
            for what, text in (
                ("limit", "What a budget may spend in its present period"),
                ("spent", "What it has spent of that"),
                ("held", "What it holds for running calls"),
            )
        }  # fmt: skip
        self.holds_open = Gauge("outlay_holds_open", "Calls that hold money in budgets.", registry=self.registry)
        self.overhead = Histogram(
            "outlay_overhead_duration_seconds", "What the gateway took before it sent a call on.", ("route", "stream"),
            buckets=otel.OVERHEAD_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("outlay_calls_in_flight", "Calls being forwarded.", registry=self.registry)
        self.journal_failed = Gauge(
            "outlay_journal_failed", "1 while the journal cannot be written.", registry=self.registry
        )

    def ignored(self, evidence: Iterable[str]) -> None:
        """Count what was no evidence, each as `source:reason`."""
        for each in evidence:
            self.ignored_evidence.labels(*each.split(":")).inc()

    def attempted(self, number: int, asked: str, name: str) -> None:
        """Count an attempt that was sent: the how manyth of its request, and where it went instead of `asked`."""
        if number > 1:
            self.retries.labels(name).inc()
        if name != asked:
            self.fallbacks.labels(asked, name).inc()

    def balances(self, budgets: Budgets, at_us: int) -> None:
        """Take over the balances of now."""
        for gauge in self._budgets.values():
            gauge.clear()
        accounts_of: dict[str, list[Account]] = {}
        for account in budgets.accounts():
            if account.period.has(at_us):
                account.expire(at_us)
                accounts_of.setdefault(account.budget.name, []).append(account)
        for budget in budgets:
            accounts = accounts_of.get(budget.name, [])
            limit = sum(each.limit(at_us) for each in accounts) if accounts else budget.limit_of("", at_us)
            self._budgets["limit"].labels(budget.name).set(limit / NANO)
            self._budgets["spent"].labels(budget.name).set(sum(each.spent for each in accounts) / NANO)
            self._budgets["held"].labels(budget.name).set(sum(each.held for each in accounts) / NANO)

    def finished(self, call: Call) -> None:
        """Count one closed call."""
        self._child(self.calls, call.provider, call.dialect, call.result, call.usage_source, call.price_status).inc()
        team, model = call.team_id, self.bounded(call.response_model or call.request_model or "")
        if call.list_cost_nano is None:
            self._child(self.unpriced, call.provider, model).inc()
        elif call.list_cost_nano:
            usd = call.list_cost_nano / NANO
            self._child(self.cost, call.provider, model, team).inc(usd)
            if not call.tickets:
                self._child(self.unattributed, team).inc(usd)
        if call.overhead_us is not None:
            is_stream = "true" if call.stream else "false"
            self._child(self.overhead, call.dialect, is_stream).observe(call.overhead_us / 1e6)

    def _child(self, instrument: Instrument, *labels: str | None) -> Instrument:
        """All that finished calls are labelled with comes from the settings, from keys, or is bounded."""
        key = instrument, *labels
        child: Instrument | None = self._children.get(key)
        if child is None:
            child = self._children[key] = instrument.labels(*(label or "" for label in labels))
        return child

    def bounded(self, model: str) -> str:
        """Names of models may come from clients: after so many, the rest is `other`."""
        if len(self._models) < MODELS_MAX:
            self._models.add(model)
        return model if model in self._models else "other"

    # -- those of several processes, in one --------------------------------------------------------------------------

    def gained(self) -> list[Sample]:
        """What counters have gained since this was called last."""
        found = []
        for sample in self._samples("counter"):
            key = sample.metric, sample.labels
            if gain := sample.value - self._told.get(key, 0.0):
                found.append(sample._replace(value=gain))
                self._told[key] = sample.value
        return found

    def levels(self) -> list[Sample]:
        """What the gauges of calls that run show."""
        names = {_name(gauge) for gauge in (self.in_flight, self.breakers_open)}
        return [sample for sample in self._samples("gauge") if sample.metric in names]

    def add(self, gained: Iterable[Sample]) -> None:
        """Take in what another process's counters have gained."""
        counters = {_name(each): each for each in vars(self).values() if isinstance(each, Counter)}
        for metric, labels, value in gained:
            counter = counters[metric]
            (counter.labels(**dict(labels)) if labels else counter).inc(value)

    def show(self, levels: Iterable[Sample]) -> None:
        """Let the gauges show what those of other processes show together."""
        sums: Sums[tuple[str, tuple[tuple[str, str], ...]]] = Sums()
        for metric, labels, value in levels:
            sums[metric, labels] += round(value)
        gauges = {_name(each): each for each in (self.in_flight, self.breakers_open)}
        self.in_flight.set(0)
        for (metric, labels), number in sums.items():
            (gauges[metric].labels(**dict(labels)) if labels else gauges[metric]).set(number)

    def _samples(self, kind: str) -> Iterator[Sample]:
        for metric in self.registry.collect():
            if metric.type == kind:
                for sample in metric.samples:
                    if not sample.name.endswith("_created"):
                        yield Sample(metric.name, tuple(sorted(sample.labels.items())), sample.value)

    def render(self) -> bytes:
        return generate_latest(self.registry)


def _name(metric: Counter | Gauge) -> str:
    return next(iter(metric.describe())).name
