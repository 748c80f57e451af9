"""Circuit breakers: the state machine against a plain reference, and what is remembered of which upstream."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway import breaker
from gateway.breaker import Breaker, Breakers, Rule, Verdict

FAILURES, SECONDS = 3, 10
VERDICTS: list[Verdict] = ["works", "fails", "unknown"]


class Reference:
    """The same rules, told as what was seen: whole seconds go by one by one, and each state has its own fields."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ("closed", [])
        self.probes: list[object] = []
        """Since it opened, without a report."""

    def second(self) -> None:
        if self.state[0] == "open":
            left = self.state[1] - 1
            self.state = ("open", left) if left else ("half_open", 0)
        elif self.state[0] == "half_open" and self.state[1]:
            self.state = ("half_open", self.state[1] - 1)

    def start(self, attempt: object) -> bool:
        """True when it is a probe."""
        if self.state != ("half_open", 0):
            return False
        self.state = ("half_open", SECONDS)
        self.probes.append(attempt)
        return True

    def end(self, attempt: object, verdict: Verdict) -> None:
        if self.state[0] == "closed" and verdict != "unknown":
            last = [*self.state[1], verdict][-FAILURES:]
            self._become(("open", SECONDS) if last == ["fails"] * FAILURES else ("closed", last))
        elif self.state[0] == "half_open" and attempt in self.probes:
            if verdict != "unknown":
                self._become(("closed", []) if verdict == "works" else ("open", SECONDS))
            elif attempt is self.probes[-1]:
                self.state = ("half_open", 0)

    def _become(self, state: tuple[Any, ...]) -> None:
        self.state = state
        self.probes = []

    def asks_for_none(self) -> bool:
        return self.state[0] == "open" or (self.state[0] == "half_open" and self.state[1] > 0)


class Comparison(RuleBasedStateMachine):
    """Attempts start and end in any order, early and late, and never."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.breaker, self.reference = Breaker(Rule(FAILURES, SECONDS)), Reference()
        self.attempts: list[tuple[object, int]] = []

    @rule(seconds=st.integers(1, SECONDS + 2))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        for _ in range(seconds):
            self.reference.second()

    @rule()
    def start(self) -> None:
        attempt = object()
        entry = self.breaker.enter(self.now)
        assert (entry > 0) is self.reference.start(attempt)
        self.attempts.append((attempt, entry))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), verdict=st.sampled_from(VERDICTS))
    def end(self, data: st.DataObject, verdict: Verdict) -> None:
        attempt, entry = self.attempts.pop(data.draw(st.integers(0, len(self.attempts) - 1)))
        self.breaker.leave(entry, verdict, self.now)
        self.reference.end(attempt, verdict)

    @rule(verdict=st.sampled_from(VERDICTS))
    def start_and_end(self, verdict: Verdict) -> None:
        attempt = object()
        entry = self.breaker.enter(self.now)
        assert (entry > 0) is self.reference.start(attempt)
        self.breaker.leave(entry, verdict, self.now)
        self.reference.end(attempt, verdict)

    @invariant()
    def same(self) -> None:
        assert self.breaker.state(self.now) == self.reference.state[0]
        pause = self.breaker.pause(self.now)
        assert (pause is not None) is self.reference.asks_for_none()
        if pause is not None:
            assert pause[0] <= self.now < pause[1] == self.now + self.reference.state[-1]
        fails = self.reference.state[1] if self.reference.state[0] == "closed" else ["fails"]
        assert self.breaker.is_spotless is ("fails" not in fails[-1:])

    @invariant()
    def never_stuck(self) -> None:
        """Whatever happened, an attempt is asked for at the latest when both times have gone by."""
        assert self.breaker.pause(self.now + SECONDS) is None


Comparison.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestBreaker = Comparison.TestCase


@pytest.fixture
def breakers() -> Breakers:
    return Breakers({"a": Rule(2, 10), "b": Rule(2, 10), "never": Rule(0, 10)})


def fail(breakers: Breakers, name: str, model: str, now: float) -> None:
    breakers.leave(name, model, breakers.enter(name, model, now), "fails", now)


def test_one_model_does_not_cut_off_another(breakers: Breakers) -> None:
    for _ in range(2):
        fail(breakers, "a", "m", 1.0)
    assert breakers.order(["a", "b"], "m", 2.0) == ["b", "a"]
    assert breakers.order(["a", "b"], "other", 2.0) == ["a", "b"]
    assert breakers.open_models("a", 2.0) == ["m"]
    assert breakers.pause("a", "m", 2.0) == (1.0, 11.0)
    assert breakers.open_models("a", 11.0) == []  # half open: the next attempt finds out
    assert breakers.order(["a", "b"], "m", 11.0) == ["a", "b"]
    assert breakers.enter("a", "m", 11.0) == 1
    assert breakers.order(["a", "b"], "m", 12.0) == ["b", "a"]
    assert breakers.pause("a", "m", 12.0) == (1.0, 21.0)
    breakers.leave("a", "m", 1, "works", 12.0)
    assert (breakers.order(["a", "b"], "m", 12.0), breakers.pause("a", "m", 12.0)) == (["a", "b"], None)


def test_a_model_that_takes_longer_than_the_pause_is_found_to_work(breakers: Breakers) -> None:
    for _ in range(2):
        fail(breakers, "a", "m", 0.0)
    probes = [(at, breakers.enter("a", "m", at)) for at in (10.0, 20.0, 30.0, 40.0)]
    assert [entry for _, entry in probes] == [1, 2, 3, 4]
    breakers.leave("a", "m", 1, "works", 45.0)
    assert breakers.pause("a", "m", 45.0) is None
    breakers.leave("a", "m", 2, "works", 55.0)


def test_no_failures_and_no_breaker(breakers: Breakers) -> None:
    for _ in range(50):
        fail(breakers, "never", "m", 1.0)
    assert breakers.pause("never", "m", 1.0) is None


def test_only_so_many_are_remembered(breakers: Breakers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "TROUBLED_MAX", 3)
    for number in range(5):
        for _ in range(2):
            fail(breakers, "a", str(number), 1.0)
    assert breakers.open_models("a", 1.0) == ["2", "3", "4"]
