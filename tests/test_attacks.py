"""The attack table: what people might do to look better, and how far normalized deployments let them.

All attacks are organisations of one data folder, each with the honest work of the same seed, so that all are measured
by the same yardsticks.
"""

import os
import random

import duckdb
import pytest

from analytics import build, lake, simulate
from analytics.simulate import Strategy

TOLERANCE = 0.005
SEEDS = [int(seed) for seed in os.environ.get("OUTLAY_SEEDS", "7").split(",")]
"""One takes seconds; more are for who changes what is measured."""
AT_LEAST = {"T1"}

ATTACKS: dict[str, tuple[Strategy, float]] = {
    "A1 ten times the tokens": (simulate.more_tokens, 1.00),
    "A2 redeploys": (simulate.redeploys, 1.00),
    "A3 a deployment for each pull request": (simulate.deployment_per_pull, 1.00),
    "A4 split pull requests": (simulate.split_pulls(), 1.00),
    "A5 split, with tickets": (simulate.split_pulls(tickets="own"), 1.10),
    "A5 split, with tickets and files, within a day": (
        simulate.split_pulls(tickets="own", hours=1, shares_files=False),
        1.25,
    ),
    "A5 split, without tickets, with files, within a day": (
        simulate.split_pulls(tickets="none", hours=1, shares_files=False),
        1.25,
    ),
    "A6 diffs × 10": (simulate.bigger_diffs(10), 1.80),
    "A7 diffs × 2": (simulate.bigger_diffs(2), 1.40),
    "A8 a third × 10": (simulate.bigger_diffs(10, 1 / 3), 1.30),
    "A9 tickets without work": (simulate.confetti, 1.00),
    "A10 unreviewed filler": (simulate.filler(lines=2, is_reviewed=False, tickets=False), 1.00),
    "A11 rubber stamps": (simulate.filler(lines=2, is_reviewed=True, tickets=True), 1.05),
    "A11 rubber stamps in one file": (simulate.filler(lines=2, is_reviewed=True, tickets=True, files=1), 1.05),
    "A12 next day": (simulate.revert_cycles(days=1, keeps_ticket=True), 1.00),
    "A12 next day, without ticket": (simulate.revert_cycles(days=1), 1.00),
    "A12 after 15 days": (simulate.revert_cycles(days=15, keeps_ticket=True), 1.00),
    "A12 after 15 days, without ticket": (simulate.revert_cycles(days=15), 1.00),
    "A12 the revert is told, no landing": (simulate.revert_cycles(days=15, tells="revert"), 1.00),
    "A12 the same, with more lines": (simulate.revert_cycles(days=15, tells="revert", factor=1.15), 1.00),
    "A12 nothing is told": (simulate.revert_cycles(days=15, tells="nothing", hours=96), 1.00),
    "A15 all is shipped, and rolled back": (simulate.roll_backs, 0.05),
    "A16 a line for each old ticket": (simulate.touch_ups, 1.00),
    "H1 a third is reverted": (simulate.reverted_third(), 0.72),
    "H1 and nothing says so": (simulate.reverted_third(says_so=False), 0.72),
    "H1 and a line claims to bring it back": (simulate.reverted_third(pretends=True), 0.72),
    "H2 a third of the deployments fails": (simulate.failing_third, 0.88),
    "H3 a third of the tickets is reopened": (simulate.reopened_third, 0.88),
    "H4 nobody reviews": (simulate.no_reviews, 0.55),
    "T1 the honest twin": (simulate.honest_growth, 1.15),
}
EQUAL = {"A1", "A9", "A10"}
HOLES: dict[str, tuple[Strategy, float]] = {
    "filler that looks like work": (simulate.filler(lines=50, is_reviewed=True, tickets=True), 1.60),
    "unreviewed": (simulate.filler(lines=50, is_reviewed=False, tickets=True), 1.30),
    "collusion": (simulate.collusion, 1.80),
    "split, with tickets, in the same files, 73 hours apart": (simulate.split_pulls(tickets="own", hours=73), 1.75),
    "split, with tickets and files, a day apart": (simulate.split_pulls(tickets="own", shares_files=False), 1.80),
    "the revert is told, and the landing is in other files": (
        simulate.revert_cycles(days=15, tells="revert", in_parts=True),
        2.50,
    ),
    "sandbagging": (simulate.sandbag, 1.35),
}
"""Not closed: docs/metrics.md says so. Held here so that they grow no wider unseen."""


@pytest.fixture(scope="module", params=SEEDS)
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Normalized deployments of the second quarter, by attack; of honest work by the empty name."""
    data = tmp_path_factory.mktemp("attacks")
    lake.publish(data)
    names = {"": "H0Z"} | {name: f"X{number}Z" for number, name in enumerate([*ATTACKS, *HOLES])}
    plans = [simulate.plan(request.param, "H0Z")]
    for name, (strategy, _) in {**ATTACKS, **HOLES}.items():
        plans.append(strategy(simulate.plan(request.param, names[name]), random.Random(3)))
    simulate.store_work(data, plans)
    with duckdb.connect() as db:
        models = build.load()
        wanted = {name: models[name] for name in ("pr_revert_events", "arrived_prs", "unit_prs", "work_units")}
        build.create_views(db, data, wanted | build.needed(db, models, wanted), wanted)
        measured = plans[0].measured
        found = db.execute(
            "SELECT repos[1].repo, normalized_deployments FROM work_units WHERE unit_at >= ?", [measured]
        )
        sums = dict.fromkeys(names.values(), 0.0)
        for repo, nd in found.fetchall():
            sums[repo.partition("acme/")[0]] += nd
    return {name: sums[prefix] for name, prefix in names.items()}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_stays_within_its_bound(counted: dict[str, float], name: str) -> None:
    factor, (_, bound), number = counted[name] / counted[""], ATTACKS[name], name.split()[0]
    assert counted[""] > 300
    if number in AT_LEAST:
        assert factor >= bound - TOLERANCE
    else:
        assert factor <= bound + TOLERANCE
    if number in EQUAL:
        assert factor >= bound - TOLERANCE


@pytest.mark.parametrize("name", HOLES)
def test_an_open_hole_grows_no_wider(counted: dict[str, float], name: str) -> None:
    factor = counted[name] / counted[""]
    assert 1.1 < factor <= HOLES[name][1] + TOLERANCE  # if it is closed, the page may say so
