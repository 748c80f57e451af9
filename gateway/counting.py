"""What is counted at each call, as plain numbers that the event loop alone changes. Metrics are made of them when
somebody looks: the library's own instruments take a lock for each number, which costs more than the rest of a count.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from gateway.call import NANO, Call
from gateway.otel import OVERHEAD_SECONDS

MODELS_MAX = 1000
BOUNDS_US = [round(seconds * 1e6) for seconds in OVERHEAD_SECONDS]
BOUNDS = [*map(floatToGoString, OVERHEAD_SECONDS), "+Inf"]

Labels = tuple[str, ...]
Kind = tuple[str | None, str | None, str | None, str | None, str | None, str | None, str | None, bool, bool | None]
"""Provider, dialect, result, source of the usage, price status, team, model, has it a ticket, is it a stream."""


class Level:
    """A gauge."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self.value = 0

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(self._name, self._text, value=self.value)

    describe = collect


class _Sums:
    """Of calls of a kind."""

    __slots__ = ("calls", "cost_nano", "overhead_us", "overheads", "unpriced")

    def __init__(self) -> None:
        self.calls = self.unpriced = self.cost_nano = self.overhead_us = 0
        self.overheads = [0] * len(BOUNDS)
        """How many were in each bucket of the histogram."""


class FinishedCalls:
    """The metrics of finished calls."""

    def __init__(self) -> None:
        self._sums: dict[Kind, _Sums] = {}
        self._models: set[str] = set()

    def count(self, call: Call) -> None:
        kind = (
            call.provider, call.dialect, call.result, call.usage_source, call.price_status, call.team_id,
            call.response_model or call.request_model, bool(call.tickets), call.stream,
        )  # fmt: skip
        sums = self._sums.get(kind) or self._new(kind)
        sums.calls += 1
        if call.list_cost_nano is None:
            sums.unpriced += 1
        else:
            sums.cost_nano += call.list_cost_nano
        if call.overhead_us is not None:
            sums.overhead_us += call.overhead_us
            sums.overheads[bisect_left(BOUNDS_US, call.overhead_us)] += 1

    def _new(self, kind: Kind) -> _Sums:
        return self._sums.setdefault((*kind[:6], self.bounded(kind[6] or ""), *kind[7:]), _Sums())

    def bounded(self, model: str) -> str:
        """Names of models may come from clients: after so many, the rest is `other`. All other labels come from the
        settings or from keys, or are bounded."""
        if len(self._models) < MODELS_MAX:
            self._models.add(model)
        return model if model in self._models else "other"

    def collect(self) -> Iterator[Metric]:
        calls, costs, unattributed, unpriced = (Counter[Labels]() for _ in range(4))
        overheads: dict[Labels, list[int]] = {}
        overhead_us = Counter[Labels]()
        for (provider, dialect, result, source, price, team, model, has_ticket, stream), sums in self._sums.items():
            calls[_labels(provider, dialect, result, source, price)] += sums.calls
            if sums.unpriced:
                unpriced[_labels(provider, model)] += sums.unpriced
            if sums.cost_nano:
                costs[_labels(provider, model, team)] += sums.cost_nano
                if not has_ticket:
                    unattributed[_labels(team)] += sums.cost_nano
            if any(sums.overheads):
                of = _labels(dialect, "true" if stream else "false")
                overhead_us[of] += sums.overhead_us
                overheads[of] = [
                    a + b for a, b in zip(overheads.get(of, [0] * len(BOUNDS)), sums.overheads, strict=True)
                ]
        yield _counter(
            "outlay_calls", "Calls by how they ended.",
            ("provider", "dialect", "result", "usage_source", "price_status"), calls,
        )  # fmt: skip
        yield _counter(
            "outlay_cost_usd", "List cost of priced calls.", ("provider", "response_model", "team"), costs, NANO
        )
        yield _counter(
            "outlay_unattributed_cost_usd", "List cost of calls without a ticket.", ("team",), unattributed, NANO
        )
        yield _counter(
            "outlay_unpriced_calls", "Calls that cost something nobody knows.", ("provider", "model"), unpriced
        )
        histogram = HistogramMetricFamily(
            "outlay_overhead_duration_seconds", "What the gateway took before it sent a call on.",
            labels=("route", "stream"),
        )  # fmt: skip
        for of, numbers in overheads.items():
            buckets = list(zip(BOUNDS, map(float, accumulate(numbers)), strict=True))
            histogram.add_metric(of, buckets, overhead_us[of] / 1e6)
        yield histogram

    describe = collect


def _labels(*values: str | None) -> Labels:
    return tuple(value or "" for value in values)


def _counter(name: str, text: str, labels: Labels, sums: Counter[Labels], of: int = 1) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in sums.items():
        family.add_metric(values, number / of)
    return family
