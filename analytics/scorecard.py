"""The scorecard over time: what the keeper holds fast and works out, and what is worked out for who reads it."""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from analytics import kept, lake, scoring
from analytics.beside import beside
from gateway.config import Config

HOLD_SECONDS = 6 * 3600.0
LOOK_SECONDS = 60.0
REST = timedelta(minutes=5)
"""Between looks of the keeper, at least …"""
REST_TIMES = 50
"""… and so many times as long as one takes."""

log = logging.getLogger("outlay.scorecard")


def look(data: Path, as_of: datetime | None = None, threads: int | None = None) -> None:
    """Work it out, and write it down. `as_of`: as of another moment than now, UTC, without a zone."""
    with lake.scratch(data, threads) as db:
        db.execute("SET enable_progress_bar = false")
        scoring.look(db, data, as_of)


def refresh(data: Path, *, anew: bool = False) -> kept.State:
    """What is written down, worked out anew where it is not fresh, or `anew` in any case."""
    return kept.refresh(data, scoring.KEPT, lambda: look(data), anew=anew)


@contextlib.contextmanager
def keeping(data: Path, config: Config | None) -> Iterator[None]:
    """Writes down, beside the keeper's rounds, what is to be held fast, and what the scorecard comes to when something
    has changed. Without settings, the constants stay as they are."""

    def hold() -> None:
        now = kept.now()
        if config is not None:
            scoring.note_terms(data, config.scorecard, now, config.work.environments)
        scoring.freeze(data, now)

    def keep() -> None:
        made = kept.read(data, scoring.KEPT)
        if made is not None and abs(kept.now() - made.at) < max(REST, REST_TIMES * timedelta(seconds=made.seconds)):
            return
        if not kept.state(data, scoring.KEPT).is_fresh():
            look(data, threads=1)

    def not_held(line: str) -> None:
        log.error("the scorecard's yardsticks stay as they were: %s", line)

    def not_kept(line: str) -> None:
        log.error("the scorecard could not be worked out, trying again: %s", line)

    with (
        beside("yardsticks", hold, HOLD_SECONDS, not_held, at_once=True),
        # A while later: it has waste in it, which is looked for first.
        beside("scorecard", keep, LOOK_SECONDS, not_kept),
    ):
        yield
