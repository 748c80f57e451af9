"""Metrics for `/-/metrics`, fed from finished records. Names and labels: docs/operations.md. No ticket, task, user or
key is a label, and the money here is for reading only: the ledger holds the exact sums.
"""

from collections import Counter as Sums
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from gateway.budgets import Account, Budgets
from gateway.call import NANO
from gateway.counting import FinishedCalls, Level

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
        self._finished = FinishedCalls()
        self.finished = self._finished.count
        """Count one closed call."""
        self.bounded = self._finished.bounded
        self.registry.register(self._finished)
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
        self.in_flight = Level("outlay_calls_in_flight", "Calls being forwarded.")
        self.registry.register(self.in_flight)
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
        self.in_flight.value = sums.pop((_name(self.in_flight), ()), 0)
        for (_, labels), number in sums.items():
            self.breakers_open.labels(**dict(labels)).set(number)

    def _samples(self, kind: str) -> Iterator[Sample]:
        for metric in self.registry.collect():
            if metric.type == kind:
                for sample in metric.samples:
                    if not sample.name.endswith("_created"):
                        yield Sample(metric.name, tuple(sorted(sample.labels.items())), sample.value)

    def render(self) -> bytes:
        return generate_latest(self.registry)


def _name(metric: Counter | Gauge | Level) -> str:
    return next(iter(metric.describe())).name
