"""Metrics of finished calls: each sum stands where it stood when the calls were counted one by one."""

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gateway import counting
from gateway.call import Call
from gateway.counting import FinishedCalls, Level
from gateway.otel import OVERHEAD_SECONDS

CALL = Call(
    call_id="c", request_id="r", attempt=1, started_us=0, gateway_id="g", provider="openai", dialect="openai_chat",
    result="completed", usage_source="reported", price_status="exact", team_id="payments", tickets=("PAY-1",),
    request_model="gpt-5.4", list_cost_nano=1_500_000_000, overhead_us=100, stream=True,
)  # fmt: skip


def shown(calls: list[Call]) -> set[str]:
    registry, finished = CollectorRegistry(), FinishedCalls()
    registry.register(finished)
    for call in calls:
        finished.count(call)
    return set(generate_latest(registry).decode().splitlines())


def but(**fields: object) -> Call:
    return msgspec.structs.replace(CALL, **fields)


def test_sums_by_label() -> None:
    found = shown([CALL, but(list_cost_nano=1), but(tickets=()), but(list_cost_nano=None, price_status="unpriced")])
    kind = 'dialect="openai_chat",price_status="{}",provider="openai",result="completed",usage_source="reported"'
    assert {
        f"outlay_calls_total{{{kind.format('exact')}}} 3.0",
        f"outlay_calls_total{{{kind.format('unpriced')}}} 1.0",
        'outlay_cost_usd_total{provider="openai",response_model="gpt-5.4",team="payments"} 3.000000001',
        'outlay_unattributed_cost_usd_total{team="payments"} 1.5',
        'outlay_unpriced_calls_total{model="gpt-5.4",provider="openai"} 1.0',
        'outlay_overhead_duration_seconds_count{route="openai_chat",stream="true"} 4.0',
        'outlay_overhead_duration_seconds_sum{route="openai_chat",stream="true"} 0.0004',
    } <= found


def test_what_is_nothing_has_no_line() -> None:
    found = shown([but(list_cost_nano=0, overhead_us=None, team_id=None, stream=None)])
    assert [line for line in found if not line.startswith(("#", "outlay_calls_total"))] == []


@pytest.mark.parametrize("us", [0, 99, 100, 101, 12_800, 409_600, 409_601, 10_000_000])
def test_buckets_are_those_of_the_library(us: int) -> None:
    registry = CollectorRegistry()
    by_library = Histogram(
        "outlay_overhead_duration_seconds", "", ("route", "stream"), buckets=OVERHEAD_SECONDS, registry=registry
    )
    by_library.labels("openai_chat", "true").observe(us / 1e6)
    lines = {
        line
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("outlay_overhead_duration_seconds_bucket")
    }
    assert len(lines) == len(OVERHEAD_SECONDS) + 1
    assert lines <= shown([but(overhead_us=us)])


def test_names_of_models_are_bounded() -> None:
    calls = [but(request_model=f"m{number}") for number in range(counting.MODELS_MAX + 3)]
    lines = [line for line in shown([*calls, *calls]) if line.startswith("outlay_cost_usd_total")]
    assert len(lines) == counting.MODELS_MAX + 1
    [other] = [line for line in lines if 'response_model="other"' in line]
    assert other.endswith(" 9.0")


def test_a_level_goes_up_and_down() -> None:
    registry, level = CollectorRegistry(), Level("outlay_calls_in_flight", "Calls being forwarded.")
    registry.register(level)
    level.value += 1
    level.value += 2
    level.value -= 1
    assert "outlay_calls_in_flight 2.0" in generate_latest(registry).decode().splitlines()
    level.value = 0
    assert "outlay_calls_in_flight 0.0" in generate_latest(registry).decode().splitlines()
