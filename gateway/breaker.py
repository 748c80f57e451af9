"""Circuit breakers: an upstream that failed several times in a row is not asked first for a while. Time is an argument.

One breaker per upstream and model: providers are overloaded model by model, and what is wrong with one model must not
cut off the others. 429 says nothing here, since it is about an account's rate and not about the upstream's health.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import msgspec

State = Literal["closed", "open", "half_open"]
Verdict = Literal["works", "fails", "unknown"]

NAME_CHARS_MAX = 256
TROUBLED_MAX = 1000
"""Names of models come from clients: of more troubled ones than that the first is forgotten."""


class Rule(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long."""

    failures: int
    """In a row; 0 = never."""
    seconds: float


class Breaker:
    """Closed until `rule.failures` attempts have failed in a row, then open for `rule.seconds`, then half open: one
    attempt at a time is the probe, whose success closes it and whose failure opens it again.

    After `rule.seconds` without a report another probe may start beside it, so that none holds the place for ever; the
    first report of them decides. Whole answers of models can take minutes.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._failures = 0
        self._opened: float | None = None
        self._probe = 0
        """The number of the latest probe."""
        self._decided = 0
        """Reports of probes up to this one count no more."""
        self._probe_until: float | None = None

    def state(self, now: float) -> State:
        if self._opened is None:
            return "closed"
        return "open" if now < self._opened + self._rule.seconds else "half_open"

    @property
    def is_spotless(self) -> bool:
        """True when nothing has to be remembered."""
        return self._opened is None and self._failures == 0

    def pause(self, now: float) -> tuple[float, float] | None:
        """Since when and until when no attempt is asked for: it is open, or another attempt is the probe."""
        if self._opened is None:
            return None
        until = self._opened + self._rule.seconds
        if now >= until and self._probe_until is not None:
            until = self._probe_until
        return (self._opened, until) if now < until else None

    def enter(self, now: float) -> int:
        """An attempt starts, whatever the state: its number among the probes, or 0 when it is none."""
        if self._opened is None or self.pause(now) is not None:
            return 0
        self._probe += 1
        self._probe_until = now + self._rule.seconds
        return self._probe

    def leave(self, entry: int, verdict: Verdict, now: float) -> None:
        """Report what `enter` let in. Unless it is closed only probes count."""
        if self._opened is None:
            self._failures = {"works": 0, "fails": self._failures + 1, "unknown": self._failures}[verdict]
            if self._rule.failures and self._failures >= self._rule.failures:
                self._opened = now
        elif entry > self._decided:
            if entry == self._probe or verdict != "unknown":
                self._probe_until = None
            if verdict != "unknown":
                self._decided = self._probe
                self._opened, self._failures = (now, self._failures) if verdict == "fails" else (None, 0)


class Breakers:
    """The breakers of all upstreams. Only those with failures are kept."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._troubled: dict[tuple[str, str], Breaker] = {}

    @property
    def has_trouble(self) -> bool:
        """False when no upstream pauses."""
        return bool(self._troubled)

    def order(self, names: Iterable[str], model: str, now: float) -> list[str]:
        """The same names, but for those that pause, which come last."""
        return sorted(names, key=lambda name: self.pause(name, model, now) is not None)

    def pause(self, name: str, model: str, now: float) -> tuple[float, float] | None:
        """Since when and until when an upstream is not asked first; `None` when it is."""
        breaker = self._of(name, model)
        return None if breaker is None else breaker.pause(now)

    def _of(self, name: str, model: str) -> Breaker | None:
        return self._troubled.get(_key(name, model)) if self._troubled else None

    def enter(self, name: str, model: str, now: float) -> int:
        breaker = self._of(name, model)
        return 0 if breaker is None else breaker.enter(now)

    def leave(self, name: str, model: str, entry: int, verdict: Verdict, now: float) -> None:
        breaker = self._of(name, model)
        if breaker is None:
            if verdict != "fails":
                return
            if len(self._troubled) >= TROUBLED_MAX:
                del self._troubled[next(iter(self._troubled))]
            breaker = self._troubled[_key(name, model)] = Breaker(self._rules[name])
        breaker.leave(entry, verdict, now)
        if breaker.is_spotless:
            del self._troubled[_key(name, model)]

    def open_models(self, name: str, now: float) -> Collection[str]:
        """The models for which an upstream's breaker is open."""
        return [
            model for (each, model), breaker in self._troubled.items() if each == name and breaker.state(now) == "open"
        ]


def _key(name: str, model: str) -> tuple[str, str]:
    return name, model[:NAME_CHARS_MAX]
