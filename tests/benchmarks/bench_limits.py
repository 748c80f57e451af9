"""CPU of the limits per call: `python tests/benchmarks/bench_limits.py`. Admission and what follows it, with no limit,
with those that apply to the call, and with a thousand others beside them; over 1,000 keys."""

import time

from gateway.call import Call
from gateway.limits import Limits, LimitTable

CALLS = 50_000
APPLY = {
    name: LimitTable(
        scope=scope, requests_per_minute=10**9, tokens_per_minute=10**12, usd_per_minute=None, in_flight=10**6
    )
    for name, scope in {"key": "each_key", "team": "team:team-1", "org": "org"}.items()
}
OTHERS = {f"other-{i}": LimitTable(scope=f"key:other-{i}", requests_per_minute=60) for i in range(1000)}


def microseconds(tables: dict[str, LimitTable]) -> tuple[float, float]:
    """Of `admit`, and of `finished`."""
    limits = Limits(tables)
    calls = [
        Call(
            call_id=f"c{i}", request_id=f"r{i}", attempt=1, started_us=0, key_id=f"key-{i % 1000}", team_id="team-1",
            user_id="u", request_model="claude-sonnet-4-5", task_id=f"task-{i // 50}", tickets=("PAY-1",),
            result="completed", input_tokens=20_000, output_tokens=500, list_cost_nano=70_000_000,
        )
        for i in range(CALLS)
    ]  # fmt: skip
    start = time.process_time()
    for number, call in enumerate(calls):
        limits.admit(call, number * 1000)
    middle = time.process_time()
    for call in calls:
        limits.finished(call, CALLS * 1000)
    end = time.process_time()
    assert limits.in_flight == 0
    return (middle - start) / CALLS * 1e6, (end - middle) / CALLS * 1e6


def main() -> None:
    print(f"{'µs of CPU per call':<40}{'admit':>8}{'finished':>10}")
    for name, tables in {
        "no limit": {},
        "3 limits, all apply": APPLY,
        "1,003 limits, of which 3 apply": {**APPLY, **OTHERS},
    }.items():
        best = min((microseconds(tables) for _ in range(3)), key=sum)
        print(f"{name:<40}{best[0]:>8.1f}{best[1]:>10.1f}")


if __name__ == "__main__":
    main()
