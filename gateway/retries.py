"""What to do after an attempt: pass its outcome on, try again here, or try the next upstream. Pure: time and chance are
arguments.

Another attempt must never pay twice. So only those are followed by another whose provider certainly billed nothing: it
was not reached, or it answered with an error. What was sent and not answered is passed on as it is.
"""

import email.utils
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from gateway.config import Upstream

BASE_SECONDS, MOST_SECONDS = 0.5, 8.0
"""Waits double from the one to the other, as those of the providers' own SDKs do."""

Step = float | Literal["pass", "earlier"]
"""Seconds until the next attempt; pass this outcome on; or pass that of the upstream that was asked on, because this
one is worse."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of an attempt."""

    status: int | None = None
    """Of the answer; `None` when there is none."""
    headers: Mapping[str, str] = {}
    """Case-insensitive."""
    was_sent: bool = True
    """False when the provider was not reached."""


class Plan(msgspec.Struct):
    """The attempts of one request: at each upstream of `order` as many as its settings say.

    `asked` is the upstream that the client asked; the others are fallbacks. They can only make things better: what
    they answer is passed on when it is no error, or when `asked` was never tried.
    """

    asked: str
    order: Sequence[str]
    upstreams: Mapping[str, Upstream]
    began: float
    place: int = 0
    retries: int = 0
    """Attempts after the first at the current upstream."""

    @property
    def upstream(self) -> str:
        """Where the current attempt goes."""
        return self.order[self.place]

    def after(self, outcome: Outcome, now: float, chance: float) -> Step:
        """What follows the current attempt; when it is another one, `upstream` says where. `chance`: from 0 to 1."""
        if outcome.status is not None and outcome.status < 400:
            return "pass"
        settings, until = self.upstreams[self.upstream], self.began + self.upstreams[self.asked].retry_seconds
        may_repeat = not outcome.was_sent or outcome.status in settings.retry_statuses
        bills_nothing = outcome.status is not None and 400 <= outcome.status < 500 and outcome.status != 408
        may_move = may_repeat or (bills_nothing and self.upstream != self.asked)
        if may_repeat and self.retries < settings.retries and outcome.headers.get("x-should-retry") != "false":
            wait = (retry_after(outcome.headers) or 0.0) + chance * min(
                MOST_SECONDS, math.ldexp(BASE_SECONDS, self.retries)
            )
            if now + wait <= until:
                self.retries += 1
                return wait
        if may_move and self.place + 1 < len(self.order) and now <= until:
            self.place += 1
            self.retries = 0
            return 0.0
        return "earlier" if self.asked in self.order[: self.place] else "pass"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds a provider asks to wait (`retry-after-ms`, `retry-after` in seconds or as a date)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    told = headers.get("retry-after")
    seconds = _number(told)
    if seconds is not None or told is None:
        return seconds
    try:
        # By the provider's own clock, which need not be ours.
        wait = email.utils.parsedate_to_datetime(told) - email.utils.parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
