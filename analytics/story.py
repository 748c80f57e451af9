"""What the demo tells: a quarter in which a leaderboard of tokens was gamed, and what scorecard and waste show of it.

The history is made up (`simulate`); each number that is told is asked of the ledger.
"""

import random
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console

import analytics
from analytics import build, commands, findings, lake, scorecard, simulate
from gateway.config import Config
from gateway.prices import PriceBook

GAMING_TEAM = "mobile"


def make(data: Path, seed: int, now: datetime, book: PriceBook) -> simulate.Plan:
    """Write two quarters of history into an empty data folder, and what waste and scorecard come to; in the second
    quarter a team games the board."""
    lake.publish(data)
    honest = simulate.plan(seed, tickets=360, begins=simulate.quarters_before(now))
    plan = simulate.leaderboard(GAMING_TEAM)(honest, random.Random(seed))  # noqa: S311
    simulate.store_work(data, [plan])
    simulate.store_calls(data, simulate.calls(plan, book, seed))
    findings.look(data, Config().waste, book, now)
    scorecard.look(data)
    return plan


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
) -> list[tuple[Any, ...]]:
    result = db.execute((build.FOLDER / "queries" / f"{query}.sql").read_text(encoding="utf-8"), parameters)
    names = [column[0] for column in result.description or ()]
    rows = result.fetchall()
    console.print(title, highlight=False)
    commands.print_table(names, rows)
    console.print()
    return rows
