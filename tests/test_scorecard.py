"""The scorecard: constants and yardsticks hold, small groups cannot be told, money adds up, nobody is named."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import log2
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics
from analytics import build, lake, scoring, simulate, verifying, work
from analytics.simulate import Plan
from gateway.config import ScorecardSettings
from gateway.prices import DEFAULT_BOOK, PriceBook

SEED = 11


def at(*parts: int) -> datetime:
    """A moment as work tables have it: UTC, without a zone."""
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc,arg-type]


MEASURES = ("normalized_deployments", "scorecard", "scorecard_flow", "gaming_signals", "scorecard_groups", "team_spend")


def organisation(prefix: str, with_calls: bool = True) -> Plan:
    made = simulate.plan(SEED, prefix, tickets=150)
    return made if with_calls else replace(made, sessions=())


def padded(before: Plan) -> Plan:
    """Ten times the tokens in all that is for a ticket."""
    return replace(before, sessions=[replace(s, tokens=s.tokens * 10) if s.ticket else s for s in before.sessions])


def at_the_end(before: Plan) -> Plan:
    """All of the last six weeks is merged in the last days."""
    late = before.measured + timedelta(days=88, hours=12)
    return before.with_changes(
        lambda change: [replace(change, merged_at=late) if change.merged_at > late - timedelta(days=42) else change]
    )


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, duckdb.DuckDBPyConnection]]:
    """Organisations with the same work: honest H, ten times the tokens T, the same for tickets alone K, a team that
    parks its tags P, or gives none N, and one with idle agents I; without calls: split pull requests S, tickets for
    nothing and all in the last days C, rubber stamps F, no reviews U."""
    data = tmp_path_factory.mktemp("scored")
    lake.publish(data)
    rng = random.Random(1)
    plans = [
        organisation("H"),
        simulate.more_tokens(organisation("T"), rng),
        padded(organisation("K")),
        simulate.other_teams_tags("search")(organisation("P"), rng),
        simulate.no_tags("search")(organisation("N"), rng),
        simulate.idle_agents("search")(organisation("I"), rng),
        simulate.split_pulls(tickets="own")(organisation("S", with_calls=False), rng),
        simulate.confetti(at_the_end(organisation("C", with_calls=False)), rng),
        simulate.filler(lines=2, is_reviewed=True, tickets=True)(organisation("F", with_calls=False), rng),
        simulate.no_reviews(organisation("U", with_calls=False), rng),
    ]
    simulate.store_work(data, [*plans, Plan("", simulate.BEGINS, {}, SCENARIOS)])
    with work.alone(data):
        for name, table in work.TABLES.items():
            if rows := [row for row in (*BELOW, *FACTS) if isinstance(row, table.row)]:
                work.spool(data, name, rows)
                work.store(data, name)
    book = PriceBook.load(DEFAULT_BOOK)
    simulate.store_calls(data, [call for each in plans for call in simulate.calls(each, book)])
    scoring.note_terms(
        data, ScorecardSettings(units_min=8, windows_min=2, signal_min=8, signal_growth=2), simulate.BEGINS
    )
    with duckdb.connect() as db:
        scoring.work_out(db, data)
        yield data, db


def cards(db: duckdb.DuckDBPyConnection, prefix: str) -> dict[tuple[str, datetime], dict[str, Any]]:
    """Rows of the scorecard of an organisation, by team without the prefix, and window."""
    result = db.execute("FROM scorecard WHERE starts_with(team_id, $prefix)", {"prefix": prefix})
    names = [column[0] for column in result.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    return {(row["team_id"].removeprefix(prefix), row["window_start"]): row for row in rows}


# -- money -------------------------------------------------------------------------------------------------------------


def test_the_simulated_ledger_is_sound_and_all_spend_is_of_some_team(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    data, db = looked
    assert verifying.verify(data).wrong == []
    [(by_team, total)] = db.execute(
        "SELECT (SELECT sum(spend_usd) FROM scorecard), (SELECT sum(contracted_cost_usd) FROM calls)"
    ).fetchall()
    assert by_team == total > 100


def test_spend_that_is_lost_or_doubled_is_noticed(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    _, db = looked
    check = (build.FOLDER / "checks" / "scorecard_spend.sql").read_text(encoding="utf-8")
    assert db.execute(check).fetchall() == []
    for wrong in (
        "* FROM memory.main.team_spend LIMIT 3",
        "* REPLACE (split_usd + 1 AS split_usd) FROM memory.main.team_spend",
    ):
        with db.cursor() as other:
            other.execute(f"CREATE OR REPLACE TEMP TABLE team_spend AS SELECT {wrong}")
            assert len(other.execute(check).fetchall()) == 1
            other.execute("DROP TABLE temp.team_spend")


def test_ten_times_the_tokens_make_nothing_better(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    _, db = looked
    honest, padded = cards(db, "H"), cards(db, "T")
    assert honest.keys() == padded.keys()
    assert sum(row["cts_ai_low_usd"] is not None for row in honest.values()) >= 5
    for key, row in honest.items():
        for name in ("nd", "nd_per_builder_week", "ndi", "survival_14", "units"):
            assert padded[key][name] == row[name]
        assert padded[key]["spend_usd"] >= row["spend_usd"]
        for name in ("cts_ai_low_usd", "cts_ai_high_usd", "cts_ai_from_usd", "cts_ai_to_usd"):
            assert row[name] is None or padded[key][name] > row[name]


def test_tokens_for_tickets_alone_raise_coverage_of_money_and_not_of_calls(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    _, db = looked
    honest, gamed = cards(db, "H"), cards(db, "K")
    assert any(row["coverage"] > honest[key]["coverage"] for key, row in gamed.items() if row["coverage"])
    for key, row in honest.items():
        assert gamed[key]["call_coverage"] == row["call_coverage"]
        assert row["cts_ai_high_usd"] is None or gamed[key]["cts_ai_high_usd"] > row["cts_ai_high_usd"]


@pytest.mark.parametrize("prefix", ["P", "N"])
def test_tags_that_are_parked_or_not_given_save_nothing(
    looked: tuple[Path, duckdb.DuckDBPyConnection], prefix: str
) -> None:
    _, db = looked
    honest, gamed = cards(db, "H"), cards(db, prefix)
    of_team = [key for key, row in honest.items() if key[0] == "search" and row["cts_ai_high_usd"]]
    assert of_team
    for key, row in honest.items():
        # Whoever is named for it: the spend stays with the team whose keys made the calls.
        assert gamed[key]["spend_usd"] == row["spend_usd"]
        assert gamed[key]["nd"] == row["nd"]
        if key[0] != "search":
            assert (gamed[key]["coverage"], gamed[key]["waste_usd"]) == (row["coverage"], row["waste_usd"])
    for key in of_team:
        assert gamed[key]["cts_ai_high_usd"] == honest[key]["cts_ai_high_usd"]
        if prefix == "N":
            assert gamed[key]["cts_ai_low_usd"] < honest[key]["cts_ai_low_usd"]
            assert gamed[key]["coverage"] < honest[key]["coverage"]


@pytest.mark.parametrize(
    ("prefix", "signal"),
    [
        ("I", "clockwork"),
        ("P", "parked_tag"),
        ("S", "split_prs"),
        ("S", "smaller_prs"),
        ("C", "tiny_tickets"),
        ("C", "end_burst"),
        ("F", "instant_approval"),
        ("U", "unreviewed"),
    ],
)
def test_each_sign_of_gaming_is_seen(looked: tuple[Path, duckdb.DuckDBPyConnection], prefix: str, signal: str) -> None:
    teams = looked[1].execute(
        "SELECT DISTINCT team_id FROM gaming_signals WHERE signal = $signal AND starts_with(team_id, $prefix)",
        {"signal": signal, "prefix": prefix},
    ).fetchall()  # fmt: skip
    assert (teams == [(f"{prefix}search",)]) if prefix in ("I", "P") else teams


def test_honest_work_shows_no_sign_of_gaming(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    assert looked[1].execute("FROM gaming_signals WHERE starts_with(team_id, 'H')").fetchall() == []


def test_signs_of_no_outcome_are_of_numbers_that_are_shown(
    looked: tuple[Path, duckdb.DuckDBPyConnection], tmp_path: Path
) -> None:
    """They are seen where these few units are enough, and not where the scorecard keeps what they come to to itself."""
    signs = "SELECT DISTINCT team_id, signal FROM gaming_signals WHERE ends_with(signal, '_without_outcome')"
    assert looked[1].execute(signs).fetchall() == []
    data = tmp_path / "data"
    shutil.copytree(looked[0], data, symlinks=True)
    (data / "scorecard" / "terms.parquet").unlink()
    scoring.prepare(data)
    enough = ScorecardSettings(units_min=4, windows_min=2, signal_min=8, signal_growth=2)
    scoring.note_terms(data, enough, simulate.BEGINS)
    with lake.scratch(data) as db:
        scoring.work_out(db, data)
        found = db.execute(signs).fetchall()
    assert {("Isearch", "spend_without_outcome"), ("Fsearch", "prs_without_outcome")} <= {*found}


# -- people ------------------------------------------------------------------------------------------------------------


def test_nothing_of_outcomes_or_waste_is_by_person(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    _, db = looked
    for name in (*MEASURES, "work_units", "unit_prs"):
        columns = {row[0] for row in db.execute(f"DESCRIBE {name}").fetchall()}
        assert columns & {"user_id", "author", "assignee", "creator", "closer", "key_id", "session_id"} == set()
    for path in (build.FOLDER / "queries").glob("scorecard_*.sql"):
        sql = path.read_text(encoding="utf-8")
        assert "user_id" not in sql
        assert "ORDER BY team_id" in sql  # by name, never by a measure


def test_no_measure_of_work_reads_tokens_or_calls() -> None:
    models = build.load()
    with duckdb.connect() as db:
        wanted = {"work_units": models["work_units"]}
        read = build.needed(db, models, wanted)
    assert read.keys() & {"calls", "journal_entries", "booked_calls", "team_spend"} == set()


GROUPS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(builders=GROUPS)
def test_no_small_group_can_be_told(groups: duckdb.DuckDBPyConnection, builders: list[int]) -> None:
    groups.execute("DELETE FROM users")
    users = [(f"u{team}.{number}", f"t{team}") for team, count in enumerate(builders) for number in range(count)]
    if users:
        groups.executemany("INSERT INTO users VALUES (?, ?)", users)
    groups.execute("DELETE FROM teams")
    groups.executemany(
        "INSERT INTO teams VALUES (?, DATE '2026-06-29', ?)", [(f"t{t}", n) for t, n in enumerate(builders)]
    )
    rows = groups.execute("SELECT team_id, builders, shown_as FROM scorecard_groups").fetchall()
    assert len(rows) == len(builders)
    hidden = [count for team, count, shown in rows if shown != team]
    # A team without people has nobody to protect, and hides nobody.
    assert all(count >= 5 or count == 0 for team, count, shown in rows if shown == team)
    assert len(hidden) != 1 or sum(count > 0 for count in builders) == 1
    together = [count for _, count, shown in rows if shown == "(other)"]
    assert not together or (len(together) >= 2 and sum(together) >= 5 and together == hidden)
    assert bool(hidden) == any(0 < count < 5 for count in builders)


def test_a_team_is_as_small_as_it_is_or_was(groups: duckdb.DuckDBPyConnection) -> None:
    groups.execute("DELETE FROM users")
    groups.execute("DELETE FROM teams")
    groups.execute("INSERT INTO users SELECT concat('a', range), 'ta' FROM range(12)")  # who joined later is a member
    groups.execute("INSERT INTO users SELECT concat('b', range), 'tb' FROM range(2)")  # and who left is none
    groups.execute("INSERT INTO users SELECT concat('c', range), 'tc' FROM range(9)")
    groups.execute("INSERT INTO teams VALUES ('ta', DATE '2026-06-29', 3), ('tb', DATE '2026-06-29', 8)")
    rows = groups.execute("SELECT team_id, shown_as FROM scorecard_groups ORDER BY team_id").fetchall()
    assert rows == [("ta", "(other)"), ("tb", "(other)"), ("tc", "tc")]


@pytest.fixture(scope="module")
def groups() -> Iterator[duckdb.DuckDBPyConnection]:
    """The relation over tables that a test fills: one window, July 2026."""
    terms = ScorecardSettings()
    with duckdb.connect() as db:
        db.execute("CREATE TABLE users(user_id VARCHAR, team_id VARCHAR)")
        db.execute("CREATE TABLE teams(team_id VARCHAR, week DATE, builders BIGINT)")
        db.execute("CREATE TABLE pull_requests(repo VARCHAR, merged_at TIMESTAMP)")
        db.execute("CREATE TABLE production_deployments(ended_at TIMESTAMP)")
        db.execute("INSERT INTO production_deployments VALUES (TIMESTAMP '2026-07-05')")
        db.execute("CREATE TABLE team_spend(team_id VARCHAR, window_start TIMESTAMP)")
        db.execute("CREATE TABLE as_of AS SELECT TIMESTAMP '2026-10-01' AS as_of")
        db.execute(
            "CREATE TABLE scorecard_terms AS SELECT 'month' AS period, $min AS builders_min,"
            " []::VARCHAR[] AS merged_repos,"
            " TIMESTAMP '-infinity' AS applies_from, TIMESTAMP 'infinity' AS applies_to",
            {"min": terms.builders_min},
        )
        db.execute(f"CREATE VIEW scorecard_groups AS {build.load()['scorecard_groups'].sql}")
        yield db


# -- what holds --------------------------------------------------------------------------------------------------------


def test_constants_are_versions_that_hold_from_the_next_quarter_on(data: Path) -> None:
    first, second = ScorecardSettings(settle_days=7), ScorecardSettings(settle_days=30)
    assert scoring.note_terms(data, first, at(2026, 5, 3))
    assert not scoring.note_terms(data, first, at(2026, 6, 1))
    assert scoring.note_terms(data, second, at(2026, 8, 1))
    with analytics.open(data) as db:
        rows = db.execute(
            "SELECT version, settle_days, isfinite(applies_from), applies_to FROM scorecard_terms ORDER BY 1"
        ).fetchall()
        db.execute("SET VARIABLE as_of = $at", {"at": at(2026, 8, 1)})
        assert db.execute("SELECT version FROM scorecard_terms").fetchall() == [(1,)]
    assert rows[0][:3] == (1, 7, False)
    assert rows[0][3] == at(2026, 10, 1)
    assert rows[1][:3] == (2, 30, True)


def test_what_else_is_production_is_known_before_the_quarter(data: Path) -> None:
    made = simulate.rows(Plan("", simulate.BEGINS, {}, [change("a")]))
    rows = dict(made)
    rows["deployments"] = [msgspec.structs.replace(each, environment="Shop front") for each in rows["deployments"]]
    with work.alone(data):
        for name, found in rows.items():
            work.spool(data, name, found)
            work.store(data, name)
    for environments, expected in ((("live",), 0), (("live", "shop front"), 1)):
        scoring.note_terms(data, ScorecardSettings(), at(2026, 2, 1 + len(environments)), environments)
        with analytics.open(data) as db:
            assert len(db.execute("FROM production_deployments").fetchall()) == expected


def test_yardsticks_and_settled_windows_are_written_down_once(data: Path) -> None:
    scoring.note_terms(data, ScorecardSettings(units_min=1), simulate.BEGINS)
    plan = simulate.plan(SEED, "H", tickets=60)
    simulate.store_work(data, [plan], simulate.BEGINS)
    assert scoring.freeze(data, plan.measured) == len(work_rows(data, "yardsticks")) + len(work_rows(data, "settled"))
    assert len(work_rows(data, "yardsticks")) == 11
    late = plan.measured + timedelta(days=20)
    assert 0 < scoring.freeze(data, late) < len(work_rows(data, "settled"))
    before = nd(data)
    big = [replace(change, lines=change.lines * 50, name=f"late/{change.name}") for change in plan.changes[:60]]
    simulate.store_work(data, [replace(plan, changes=[*plan.changes, *big])], late)
    fewer = [work.Team(team_id="Hsearch", week=week.date(), builders=3) for week in (plan.begins - timedelta(days=2),)]
    with work.alone(data):
        work.spool(data, "teams", fewer)
        work.store(data, "teams")
    assert scoring.freeze(data, late + timedelta(days=1)) == 0
    after = nd(data)
    # What came late changes its own quarter, openly, and no yardstick of the next one.
    assert after[1] == pytest.approx(before[1], abs=1e-9)
    assert after[0] > before[0]


def test_what_is_written_down_is_as_of_then(data: Path) -> None:
    plan = simulate.plan(SEED, "H", tickets=60)
    simulate.store_work(data, [plan], plan.measured)
    assert scoring.freeze(data, plan.measured) == 0  # nothing was known before
    assert scoring.freeze(data, plan.measured + timedelta(days=1)) > 0
    with duckdb.connect() as db:
        db.execute("SET VARIABLE as_of = $at", {"at": plan.measured + timedelta(days=1)})
        scoring.work_out(db, data)
        assert db.execute("FROM size_yardsticks").fetchall() == db.execute("FROM settled_windows").fetchall() == []
        assert db.execute("SELECT count(*) > 0 FROM work_units").fetchall() == [(True,)]


def test_a_table_of_an_earlier_release_gets_the_columns_that_it_lacks(data: Path) -> None:
    scoring.note_terms(data, ScorecardSettings(settle_days=7), at(2026, 5, 3))
    path = scoring.table_file(data, "terms")
    with duckdb.connect() as db:
        db.sql(f"SELECT * EXCLUDE (join_lines) FROM '{path}'").write_parquet(str(path.with_suffix(".old")))
    path.with_suffix(".old").replace(path)
    scoring.prepare(data)
    with analytics.open(data) as db:
        rows = db.execute("SELECT settle_days, join_lines FROM scorecard_terms").fetchall()
    assert rows == [(7, ScorecardSettings().join_lines)]


def test_builders_of_a_settled_window_are_those_that_were_known_then(data: Path) -> None:
    for builders in (10, 5):
        team = work.Team(team_id="search", week=at(2026, 6, 29).date(), builders=builders)
        users = [work.User(user_id=f"search-{number}", team_id="search") for number in range(10)]
        tables = {**dict(simulate.rows(Plan("", simulate.BEGINS, {}, [change("a")]))), "teams": [team], "users": users}
        with work.alone(data):
            for name, found in tables.items():
                work.spool(data, name, found)
                work.store(data, name, (), AT)
        scoring.freeze(data, at(2026, 11, 1))
    with duckdb.connect() as db:
        scoring.work_out(db, data)
        found = db.execute(
            "SELECT nd / nd_per_builder_week FROM normalized_deployments WHERE units > 0 AND team_id = 'search'"
        )
        assert found.fetchall() == [(pytest.approx(10 * 31 / 7),)]


def test_what_is_shown_together_has_no_past(data: Path) -> None:
    plan = simulate.plan(SEED, "H", tickets=60)
    rows = {**dict(simulate.rows(plan)), "teams": []}
    rows["users"] = [user for user in rows["users"] if user.user_id[-1] < "3" or user.team_id != "Hsearch"]  # type: ignore[attr-defined]
    with work.alone(data):
        for name, found in rows.items():
            work.spool(data, name, found)
            work.store(data, name, (), plan.begins)
    scoring.freeze(data, plan.measured + timedelta(days=1))
    with duckdb.connect() as db:
        scoring.work_out(db, data)
        of_windows = db.execute(
            "SELECT window_start, list(DISTINCT team_id) FROM scorecard WHERE state IS NOT NULL GROUP BY 1"
        )
        assert all("(other)" in teams and "Hsearch" not in teams for _, teams in of_windows.fetchall())
        assert {row[0] for row in work_rows(data, "settled")} >= {"Hmobile", "Hplatform"}
        assert "(other)" not in {row[0] for row in work_rows(data, "settled")}


def work_rows(data: Path, table: str) -> list[Any]:
    with duckdb.connect() as db:
        return db.read_parquet(str(scoring.table_file(data, table))).fetchall()


def nd(data: Path) -> tuple[float, float]:
    """Of the first and of the second quarter."""
    with duckdb.connect() as db:
        scoring.work_out(db, data)
        rows = db.execute(
            "SELECT window_start, coalesce(nd, 0), first_nd, restated_nd FROM scorecard WHERE state IS NOT NULL"
        ).fetchall()
    assert all(restated == pytest.approx(now - first) for _, now, first, restated in rows if first is not None)
    halves = [sum(row[1] for row in rows if (row[0] >= at(2026, 7, 1)) == late) for late in (False, True)]
    return halves[0], halves[1]


def test_intervals_hold_the_number_and_are_the_same_each_time(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    _, db = looked
    rows = db.execute("SELECT nd_low, nd, nd_high, units FROM normalized_deployments WHERE units >= 5").fetchall()
    assert len(rows) > 50
    assert all(low < nd < high for low, nd, high, _ in rows)
    sql = build.load(build.MEASURES)["normalized_deployments"].sql
    again = db.execute(f"SELECT nd_low, nd, nd_high, units FROM ({sql}) WHERE units >= 5").fetchall()
    assert sorted(again) == sorted(rows)


def test_few_units_or_windows_are_not_enough_data(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    _, db = looked
    rows = list(cards(db, "H").values())
    few = [row for row in rows if row["units"] < 8]
    assert 0 < len(few) < len(rows)
    assert all(row["reading"] in ("not enough data", "not settled") for row in few)
    told = ("nd", "nd_low", "nd_high", "nd_per_builder_week", "survival_14", "failed_share", "cts_ai_low_usd")
    assert all(row[name] is None for row in few for name in told)
    assert all(row["nd"] is not None for row in rows if row["units"] >= 8)
    flow = db.execute(
        "SELECT units, lead_hours_p50, open_hours_p75 FROM scorecard_flow"
        " WHERE type = '(all)' AND starts_with(team_id, 'H')"
    ).fetchall()
    assert {row[0] >= 8 for row in flow} == {True, False}
    assert all((lead is None) == (hours is None) == (number < 8) for number, lead, hours in flow)
    compared = [row for row in rows if row["ndi"] is not None]
    assert compared
    assert all(row["reading"] in ("as usual", "above its own past", "below its own past") for row in compared)
    # The first two windows of a team have no past to be compared with.
    first = min(row["window_start"] for row in rows)
    assert all(row["window_start"] > first + timedelta(days=58) for row in compared)


# -- single units ------------------------------------------------------------------------------------------------------

AT = at(2026, 7, 10, 12)


def change(name: str, scenario: str = "one", **fields: Any) -> simulate.Change:
    given: dict[str, Any] = {
        "team": "search", "author": "search-1", "repo": f"acme/{scenario}", "tickets": (), "merged_at": AT,
        "lines": 100,
        "files": (f"{name}.py",),
    }  # fmt: skip
    return simulate.Change(name=f"{scenario}/{name}", **{**given, **fields})


SCENARIOS = [
    change("a"),
    change("a", "joined", files=("x.py", "y.py")),
    change("b", "joined", files=("y.py",), merged_at=AT + timedelta(hours=71)),
    change("c", "joined", files=("y.py",), merged_at=AT + timedelta(hours=71 + 73)),
    change("d", "joined", files=("y.py",), author="search-2"),
    change("e", "joined", tickets=("SEARCH-9001",), author="search-3"),
    change("f", "joined", tickets=("SEARCH-9001",), author="mobile-1", team="mobile", lines=300),
    change("a", "tiny", lines=5, is_reviewed=False),
    change("b", "tiny", lines=6, is_reviewed=False),
    *(change(f"{n}", "epics", tickets=(f"SEARCH-900{n}",), author=f"search-{n}") for n in (3, 4, 5)),
]
BELOW = [
    work.Ticket(ticket_id="SEARCH-9006", type="Capability"),
    work.Ticket(ticket_id="SEARCH-9002", type="Epic"),
    work.Ticket(ticket_id="SEARCH-9003", type="Story", parent_id="SEARCH-9006"),
    work.Ticket(ticket_id="SEARCH-9004", type="Story", parent_id="SEARCH-9002"),
    work.Ticket(ticket_id="SEARCH-9005", type="Sub-task", parent_id="SEARCH-9003"),
]


def shipped(repo: str, *pulls: work.PullRequest, **fields: Any) -> list[work.Row]:
    """Pull requests, the deployment that carried them an hour later, and their ticket."""
    ticket, hour = f"SEARCH-{repo}", timedelta(hours=1)
    deployment = work.Deployment(
        deployment_id=repo, repo=f"acme/{repo}", **{"environment": "production", "finished_at": AT + hour, **fields}
    )
    links = [work.PrTicket(pr_id=pull.pr_id, ticket_id=ticket, source="tracker") for pull in pulls]
    return [*pulls, *links, deployment, *(work.DeploymentPr(deployment_id=repo, pr_id=pull.pr_id) for pull in pulls)]


def pull(repo: str, number: int, **fields: Any) -> work.PullRequest:
    given: dict[str, Any] = {
        "author": "search-1", "title": "Change", "created_at": AT, "merged_at": AT, "additions": 100, "deletions": 0,
        "files": [f"{number}.py"], "approvals_by_others": 1,
    }  # fmt: skip
    return work.PullRequest(pr_id=f"acme/{repo}!{number}", repo=f"acme/{repo}", number=number, **{**given, **fields})


FACTS: list[work.Row] = [
    *shipped("unsized", pull("unsized", 1), pull("unsized", 2, author="mobile-1", additions=None, deletions=None)),
    *shipped("canary", pull("canary", 1), environment="live"),
    work.Deployment(
        deployment_id="late", repo="acme/canary", environment="production",
        finished_at=AT + timedelta(hours=2), failed_at=AT + timedelta(hours=3),
    ),
    work.DeploymentPr(deployment_id="late", pr_id="acme/canary!1"),
    *shipped("deps", pull("deps", 1, title="feat(deps): choose"), pull("deps", 2, title="chore(deps): bump a")),
    *shipped("named", pull("named", 10, author="Search-1"), pull("named", 9)),
    *shipped("reopened", pull("reopened", 1)),
    *(
        work.TicketStatus(ticket_id="SEARCH-reopened", changed_at=AT + day * simulate.DAY, status_category=kind)
        for day, kind in ((1, "done"), (2, None), (3, "in_progress"))
    ),
    work.Ticket(ticket_id="SEARCH-reopened", reopened_count=1),
    *shipped("hot", pull("hot", 1, additions=20)),
    pull("hot", 2, additions=20, title="Hotfix: something else", merged_at=AT + timedelta(hours=2)),
    work.Deployment(
        deployment_id="hot 2", repo="acme/hot", environment="production", finished_at=AT + timedelta(hours=3)
    ),
    work.DeploymentPr(deployment_id="hot 2", pr_id="acme/hot!2"),
]  # fmt: skip


def units(db: duckdb.DuckDBPyConnection, scenario: str) -> list[dict[str, Any]]:
    result = db.execute("FROM work_units WHERE repos[1].repo = $repo ORDER BY unit_id", {"repo": f"acme/{scenario}"})
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def test_what_a_unit_counts(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    [one] = units(looked[1], "one")
    assert (one["lines"], one["quality"], one["independence"]) == (100, 1.0, 1.0)
    assert one["size"] == pytest.approx(log2(1 + 100 / one["median_lines"]))
    assert (one["normalized_deployments"], one["team_id"], one["state"]) == (one["size"], "search", "settled")


def test_pull_requests_of_one_ticket_or_of_the_same_files_are_one_unit(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    found = units(looked[1], "joined")
    assert sorted(len(each["pr_ids"]) for each in found) == [1, 1, 2, 2]
    mixed = next(each for each in found if each["tickets"])
    assert mixed["team_id"] == "mobile"
    assert {team["team_id"]: team["part"] for team in mixed["teams"]} == {"mobile": 0.75, "search": 0.25}


def test_tiny_and_unseen_counts_nothing(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    assert sorted(each["independence"] for each in units(looked[1], "tiny")) == [0.0, 0.5]


def test_parts_of_a_ticket_go_with_it_and_tickets_of_an_epic_do_not(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    assert sorted(each["tickets"] for each in units(looked[1], "epics")) == [["SEARCH-9003"], ["SEARCH-9004"]]


def test_a_part_that_nobody_sized_counts_nothing_and_nothing_counts_twice(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    _, db = looked
    [unit] = units(db, "unsized")
    assert {team["team_id"]: team["part"] for team in unit["teams"]} == {"search": 1.0, "mobile": 0.0}
    check = (build.FOLDER / "checks" / "unit_parts.sql").read_text(encoding="utf-8")
    assert db.execute(check).fetchall() == []
    with db.cursor() as other:
        twice = "* REPLACE ([{team_id: team_id, part: 1.5}] AS teams)"
        other.execute(f"CREATE OR REPLACE TEMP TABLE work_units AS SELECT {twice} FROM memory.main.work_units LIMIT 1")
        assert len(other.execute(check).fetchall()) == 1
        other.execute("DROP TABLE temp.work_units")


def test_a_failure_after_a_first_arrival_counts(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    [unit] = units(looked[1], "canary")
    assert (unit["has_failed"], unit["quality"]) == (True, 0.5)


def test_what_only_moves_dependencies_is_no_work(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    kinds = looked[1].execute("SELECT pr_id, kind FROM arrived_prs WHERE repo = 'acme/deps' ORDER BY 1").fetchall()
    assert kinds == [("acme/deps!1", "work"), ("acme/deps!2", "bot")]


def test_logins_are_the_same_in_either_case_and_numbers_are_no_words(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    [unit] = units(looked[1], "named")
    assert (unit["unit_id"], unit["teams"]) == ("acme/named!9", [{"team_id": "search", "part": 1.0}])


def test_small_work_of_a_day_is_one_piece_and_a_hotfix_in_it_is_one_to_nothing_else(
    looked: tuple[Path, duckdb.DuckDBPyConnection],
) -> None:
    [unit] = units(looked[1], "hot")
    assert (len(unit["pr_ids"]), unit["lines"], unit["needed_hotfix"]) == (2, 40, False)


def test_a_status_of_no_known_kind_hides_no_reopening(looked: tuple[Path, duckdb.DuckDBPyConnection]) -> None:
    [unit] = units(looked[1], "reopened")
    assert unit["was_reopened"]


def test_types_that_are_no_root_are_those_of_the_time(data: Path) -> None:
    """Sub-tasks are one piece with what they are below, unless that is too large to be one: as it was said then."""
    tickets = [work.Ticket(ticket_id="SEARCH-1", type="Capability")]
    tickets += [work.Ticket(ticket_id=f"SEARCH-{n}", type="Sub-task", parent_id="SEARCH-1") for n in (2, 3)]
    changes = [change(f"{n}", tickets=(f"SEARCH-{n}",), author=f"search-{n}") for n in (2, 3)]
    rows = {**dict(simulate.rows(Plan("", simulate.BEGINS, {}, changes))), "tickets": tickets}
    with work.alone(data):
        for name, found in rows.items():
            work.spool(data, name, found)
            work.store(data, name)
    scoring.note_terms(data, ScorecardSettings(), at(2026, 1, 5))
    scoring.note_terms(data, ScorecardSettings(epic_types=("capability",)), at(2026, 8, 5))
    with analytics.open(data) as db:
        assert len(db.execute("SELECT DISTINCT unit_id FROM unit_prs").fetchall()) == 1
