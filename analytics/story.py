"""What the demo tells: a quarter in which a leaderboard of tokens was gamed, and what scorecard and waste show of it.

The history is made up (`simulate`); each number that is told is asked of the ledger.
"""

import itertools
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console

import analytics
from analytics import build, commands, findings, lake, output, scorecard, simulate
from analytics.again import again
from analytics.simulated import tracker
from analytics.simulated.people import PEOPLE
from gateway.config import Config
from gateway.prices import PriceBook

GAMING_TEAM = "mobile"


def make(data: Path, seed: int, now: datetime, book: PriceBook) -> simulate.Plan:
    """Write into an empty data folder two quarters of history, in the second of which a team games the board, and since
    the last month what was done for tickets that `simulated.tracker` knows; and what waste and scorecard come to."""
    lake.publish(data)
    honest = simulate.plan(seed, tickets=360, begins=simulate.quarters_before(now))
    plan = simulate.leaderboard(GAMING_TEAM)(honest, random.Random(seed))  # noqa: S311
    simulate.store_work(data, [plan])
    recent = simulate.calls(_since_last_month(seed, now), book, seed, "recent-")
    simulate.store_calls(data, itertools.chain(simulate.calls(plan, book, seed), recent))
    findings.look(data, Config().waste, book, now)
    scorecard.look(data)
    return plan


def _since_last_month(seed: int, now: datetime) -> simulate.Plan:
    """Sessions for tickets of the people who call now, until these ended, or up to now."""
    rng, begun = random.Random(seed), tracker.begun(now)  # noqa: S311
    tasks, sessions = {}, []
    for person in PEOPLE:
        for ticket in person.tickets if person.ticket_by != "none" else ():
            tasks[ticket] = simulate.Task(ticket, person.team, "task", begun, None)
            if (fate := tracker.FATE[ticket]) != "new":
                days = tracker.WORK_DAYS if fate in tracker.ENDED else (now - begun).days
                for _ in range(rng.randint(1, 4)):
                    at = begun + timedelta(days=rng.uniform(0, days - 1))
                    sessions.append(simulate.Session(person.team, person.user, ticket, at, rng.randint(4, 20)))
    return simulate.Plan("", begun, tasks, (), sessions)


def tell(console: Console, data: Path, plan: simulate.Plan) -> None:
    """Print the story."""
    quarter = {"from": plan.measured, "to": simulate.quarter_after(plan.measured)}
    with analytics.open(data) as db:
        board = _table(console, db, "story_board", "A board of tokens, as it hung in the hall:", quarter)
        first = board[0][0]
        _table(
            console, db, "story_card", "The same quarter in delivered work (teams by name; nobody is ranked):", quarter
        )
        quarter["team"] = first
        _table(console, db, "story_waste", f"What put {first} at the top of the board:", quarter)
        _table(console, db, "story_signals", f"Signs to look at, of {first}:", quarter)


def _table(
    console: Console, db: duckdb.DuckDBPyConnection, query: str, title: str, parameters: dict[str, Any]
) -> Sequence[Sequence[Any]]:
    sql = (build.FOLDER / "queries" / f"{query}.sql").read_text(encoding="utf-8")
    names, rows = again(lambda: output.of(db.execute(sql, parameters)))  # the keeper works meanwhile
    console.print(title, highlight=False)
    commands.print_table(names, rows)
    console.print()
    return rows
