"""What follows an attempt, decided from plain values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Upstream
from gateway.retries import MOST_SECONDS, Outcome, Plan, retry_after

UNREACHED, LOST = Outcome(was_sent=False), Outcome()


def upstream(retries: int = 0, seconds: float = 30.0) -> Upstream:
    return Upstream(base_url="http://x", provider="openai", retries=retries, retry_seconds=seconds)


def steps(plan: Plan, *outcomes: Outcome | int, chance: float = 0.0) -> list[object]:
    """What follows each of these: the upstream that is tried next, or how it ends."""
    found: list[object] = []
    for outcome in outcomes:
        step = plan.after(Outcome(outcome) if isinstance(outcome, int) else outcome, 0.0, chance)
        found.append(step if isinstance(step, str) else plan.upstream)
    return found


@pytest.mark.parametrize("outcome", [*(Outcome(status) for status in (429, 500, 502, 503, 529)), UNREACHED])
def test_what_cost_nothing_is_tried_again(outcome: Outcome) -> None:
    plan = Plan("a", ["a"], {"a": upstream(retries=2)}, 0.0)
    assert steps(plan, outcome, outcome, outcome) == ["a", "a", "pass"]


@pytest.mark.parametrize("outcome", [LOST, *(Outcome(status) for status in (200, 302, 400, 401, 404, 408, 504, 524))])
def test_what_may_be_billed_or_cannot_get_better_is_passed_on(outcome: Outcome) -> None:
    plan = Plan("a", ["a", "b"], {"a": upstream(retries=2), "b": upstream()}, 0.0)
    assert steps(plan, outcome) == ["pass"]


def test_by_default_nothing_is_tried_again() -> None:
    assert steps(Plan("a", ["a"], {"a": upstream()}, 0.0), 503) == ["pass"]


def test_fallbacks_come_in_their_order_with_attempts_of_their_own() -> None:
    plan = Plan("a", ["a", "b", "c"], {"a": upstream(1), "b": upstream(1), "c": upstream()}, 0.0)
    assert steps(plan, 503, UNREACHED, 429, 529, 200) == ["a", "b", "b", "c", "pass"]


@pytest.mark.parametrize("worse", [Outcome(401), Outcome(404), Outcome(503), UNREACHED])
def test_a_fallback_can_only_make_it_better(worse: Outcome) -> None:
    upstreams = {name: upstream() for name in "abc"}
    assert steps(Plan("a", ["a", "b", "c"], upstreams, 0.0), 503, worse, worse) == ["b", "c", "earlier"]
    # The one that was asked comes last while its breaker is open: then its own outcome counts.
    assert steps(Plan("a", ["b", "a"], upstreams, 0.0), worse, 404) == ["a", "pass"]
    # Or not at all.
    assert steps(Plan("a", ["b"], upstreams, 0.0), worse) == ["pass"]


def test_after_a_fallback_that_may_be_billed_no_other_is_asked() -> None:
    assert steps(Plan("a", ["a", "b", "c"], {name: upstream() for name in "abc"}, 0.0), 503, LOST) == ["b", "earlier"]


def test_a_provider_that_says_no_is_not_asked_again() -> None:
    plan = Plan("a", ["a", "b"], {"a": upstream(3), "b": upstream()}, 0.0)
    assert steps(plan, Outcome(429, {"x-should-retry": "false"})) == ["b"]


def test_waits_double_with_full_jitter() -> None:
    def waits(chance: float) -> list[object]:
        plan = Plan("a", ["a"], {"a": upstream(retries=6, seconds=1000)}, 0.0)
        return [plan.after(UNREACHED, 0.0, chance) for _ in range(6)]

    assert waits(1.0) == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert waits(0.0) == [0.0] * 6


def test_a_wait_that_is_too_long_is_left_to_the_client() -> None:
    settings = {"a": upstream(retries=5, seconds=10), "b": upstream()}
    busy = Outcome(429, {"retry-after": "7"})
    plan = Plan("a", ["a"], settings, 100.0)
    assert plan.after(busy, 101.0, 0.0) == 7.0
    assert plan.after(busy, 108.0, 0.0) == "pass"
    assert Plan("a", ["a", "b"], settings, 100.0).after(Outcome(429, {"retry-after": "3600"}), 101.0, 0.0) == 0.0
    assert Plan("a", ["a", "b"], settings, 100.0).after(UNREACHED, 111.0, 0.0) == "pass"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        (
            {"date": "Wed, 21 Oct 2026 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"},
            30.0,
        ),
        ({"date": "Wed, 21 Oct 2026 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"date": "Wed, 21 Oct 2026 07:28:00", "retry-after": "Wed, 21 Oct 2026 07:28:30 -0000"}, 30.0),
        ({"date": "Wed, 21 Oct 2026 07:28:00 +0000", "retry-after": "Wed, 21 Oct 2026 07:28:30 -0000"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_how_long_a_provider_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


FIELD = st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]\d{4,9}", fullmatch=True)


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), FIELD))
def test_odd_values_never_raise(headers: dict[str, str]) -> None:
    seconds = retry_after(headers)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@given(
    st.lists(
        st.tuples(st.sampled_from([None, 200, 401, 429, 503]), st.booleans(), st.floats(0, 20), st.floats(0, 1)),
        max_size=40,
    ),
    st.permutations(["a", "b", "c"]),
)
def test_every_plan_ends_in_time(outcomes: list[tuple[int | None, bool, float, float]], order: list[str]) -> None:
    plan = Plan("a", order, {"a": upstream(2), "b": upstream(1), "c": upstream()}, 0.0)
    now, attempts = 0.0, 1
    for status, was_sent, took, chance in outcomes:
        now += took
        step = plan.after(Outcome(status, {}, was_sent or status is not None), now, chance)
        if isinstance(step, str):
            break
        assert 0 <= step <= MOST_SECONDS
        assert status in (None, 401, 429, 503)
        assert status is not None or not was_sent
        now += step
        attempts += 1
        assert now <= 30
    assert attempts <= 6
