"""Findings of waste over time: looks of the keeper, what people say of findings, and questions about both."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec

import analytics
from analytics import build, disk, kept, lake, waste
from analytics.again import again
from analytics.beside import beside
from gateway.call import NANO
from gateway.config import Config, WasteSettings
from gateway.errors import UserError
from gateway.prices import PriceBook, load_prices
from gateway.verdicts import NEWS, News, Reason, State, Verdict

UNDISMISSED: tuple[State, ...] = ("new", "accepted", "fixed", "regressed")
NOTE_MAX = 500
DISPUTED = "W18"
"""Its findings are about somebody, who is named to those alone who settle it."""

log = logging.getLogger("outlay.findings")


# -- looks -------------------------------------------------------------------------------------------------------------


def look(
    data: Path, settings: WasteSettings, book: PriceBook, as_of: datetime | None = None, threads: int | None = None
) -> waste.News:
    """Look for waste as of a moment (UTC, without a zone), by default now, and keep what is found. What is new is noted
    for the gateway, whoever looks: the next one finds nothing new in it."""
    with lake.scratch(data, threads) as db:
        db.execute("SET enable_progress_bar = false")
        found = waste.look(db, data, settings, book, as_of)
    if found.findings and settings.notice_usd and found.claimed_nano >= settings.notice_usd * NANO:
        with waste.alone(data), disk.put(data / NEWS) as aside:
            news = News(found.as_of.replace(tzinfo=UTC), found.findings, found.claimed_nano)
            aside.write_bytes(msgspec.json.encode(news))
    return found


def refresh(data: Path, config: Config) -> kept.State:
    """What is written down, looked for anew where it is not fresh. Without settings of this installation, what was
    found by others than the shipped ones is left as it is."""
    book = load_prices(config)
    judged_by, there = waste.judged_by(config.waste, book), kept.read(data, waste.KEPT)
    if config.file is None and there is not None and there.settings != judged_by:
        return kept.state(data, waste.KEPT)
    return kept.refresh(data, waste.KEPT, lambda: look(data, config.waste, book), judged_by)


@contextlib.contextmanager
def looking(data: Path, settings: WasteSettings, book: Callable[[], PriceBook]) -> Iterator[None]:
    """Looks beside the keeper's rounds. A failure is logged in one line, once."""
    if not settings.every_minutes:
        yield
        return

    def once() -> None:
        prices = book()
        there = kept.state(data, waste.KEPT, waste.judged_by(settings, prices))
        if not there.is_fresh(timedelta(minutes=settings.every_minutes)):
            look(data, settings, prices, threads=1)

    def failed(line: str) -> None:
        log.error("waste could not be looked for, trying again: %s", line)

    with beside("waste", once, settings.every_minutes * 60.0, failed, at_once=True):
        yield


# -- questions ---------------------------------------------------------------------------------------------------------


def ask(data: Path, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of one of the queries. Raises `duckdb.Error`, `UserError`."""
    with analytics.open(data) as db:
        sql = (build.FOLDER / "queries" / f"{query}.sql").read_text(encoding="utf-8")

        def asked() -> list[dict[str, Any]]:
            result = db.execute(sql, parameters)
            names = [column[0] for column in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

        return again(asked)


def looked_at(data: Path) -> datetime | None:
    """As of when was last looked, UTC; `None` when nobody has."""
    [row] = ask(data, "waste_looked_at")
    found: datetime | None = row["looked_at"]
    return found


def listed(
    data: Path,
    states: Sequence[State] = UNDISMISSED,
    rule: str | None = None,
    team: str | None = None,
    ticket: str | None = None,
    most: int = 100,
) -> list[dict[str, Any]]:
    """Findings, those that claim most first."""
    return ask(data, "findings", states=list(states), rule=rule, team=team, ticket=ticket, most=most)


def one(data: Path, finding_id: str, team: str | None = None, *, names: bool = False) -> dict[str, Any] | None:
    """A finding with its evidence; `None` where there is none, or not of this team. `names`: whose calls they are,
    where that is what it is about."""
    rows = ask(data, "finding", finding_id=finding_id, team=team)
    if not rows:
        return None
    [found] = rows
    del found["group_key"]
    found["evidence"] = msgspec.Raw(found["evidence"].encode())
    if names and found["rule"] == DISPUTED:
        callers = ask(data, "finding_callers", call_ids=found["call_ids"])
        found["callers"] = [row["user_id"] for row in callers]
    return found


# -- reviews -----------------------------------------------------------------------------------------------------------


def review(
    data: Path, finding_id: str, by: str, verdict: Verdict, reason: Reason | None = None, note: str | None = None,
    team: str | None = None,
) -> None:  # fmt: skip
    """Write down what somebody says of a finding. It holds for what makes it one, under any version of its rule.

    Raises `UserError` where there is no such finding, or the review says too little."""
    if (verdict == "dismissed") != (reason is not None):
        raise UserError(f"a reason is given for what is dismissed, and only then: one of {', '.join(get_args(Reason))}")
    if reason == "other" and not note:
        raise UserError("with the reason other, say in a note what it is")
    if note is not None and not (len(note) <= NOTE_MAX and note.isprintable()):
        raise UserError(f"a note has at most {NOTE_MAX} characters, in one line")
    rows = ask(data, "finding", finding_id=finding_id, team=team)
    if not rows:
        raise UserError(f"there is no finding {finding_id}: see `outlay findings list`")
    [found] = rows
    said = {
        "at": int(datetime.now(UTC).timestamp() * 1_000_000), "by": by, "finding_id": finding_id, "rule": found["rule"],
        "group_key": found["group_key"], "state": verdict, "reason": reason, "note": note,
    }  # fmt: skip
    with waste.alone(data):
        _append(waste.reviews_file(data), msgspec.json.encode(said))


def _append(path: Path, line: bytes) -> None:
    """On the disk when this returns. A line that a crash cut off stays alone on its line, where it means nothing."""
    with path.open("ab+") as lines:
        size = lines.seek(0, os.SEEK_END)
        if size:
            lines.seek(size - 1)
            if lines.read(1) != b"\n":
                line = b"\n" + line
        lines.write(line + b"\n")
        lines.flush()
        os.fsync(lines.fileno())
    disk.give(path)
