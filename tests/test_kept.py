"""What is written down: views read it at once, and it is worked out anew when it is made of something else by now."""

import errno
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from click.testing import CliRunner, Result

import analytics
from analytics import build, findings, kept, lake, scorecard, scoring, simulate, waste, work
from gateway.cli import outlay
from gateway.config import Config, ScorecardSettings, WasteSettings
from gateway.errors import UserError
from gateway.prices import DEFAULT_BOOK, PriceBook
from tests import consoles
from tests.consoles import looking, plain
from tests.journals import NOON, Today, call, segment
from tests.test_corrections import correct
from tests.trackers import know

MEASURES = sorted(build.load(build.MEASURES))
BOOK = PriceBook.load(DEFAULT_BOOK)
LATER = datetime(2026, 10, 20, tzinfo=UTC).replace(tzinfo=None)
SECTIONS = {"outcome", "cost", "flow", "durability", "signals"}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(kept, "WAIT_SECONDS", 1e9)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An organisation's scorecard as of some later day. Not changed."""
    data = tmp_path_factory.mktemp("kept") / "data"
    lake.publish(data)
    plan = simulate.idle_agents("mobile", 4, 30)(simulate.plan(3, tickets=20), random.Random(3))
    simulate.store_work(data, [plan], plan.begins)
    simulate.store_calls(data, simulate.calls(plan, BOOK))
    scoring.note_terms(data, ScorecardSettings(units_min=1, windows_min=1), plan.begins)
    scorecard.look(data, LATER)
    return data


@pytest.fixture
def looked(data: Path) -> Path:
    """A folder with two calls, of which it is noted that nothing came of them."""
    segment(data, [call(), call()])
    know(data, "PAY-1")
    note(data)
    return data


def note(data: Path, settings: WasteSettings | None = None) -> None:
    with kept.noting(data, waste.KEPT, kept.now(), waste.judged_by(settings or WasteSettings(), BOOK)):
        pass
    with kept.noting(data, scoring.KEPT, kept.now()):
        pass


def run(*arguments: str) -> Result:
    return CliRunner().invoke(outlay, list(arguments))


def rows(db: duckdb.DuckDBPyConnection, name: str) -> list[Any]:
    return sorted(db.execute(f"FROM {name}").fetchall(), key=repr)


# -- views of it -------------------------------------------------------------------------------------------------------


def test_views_have_what_was_worked_out_and_as_of_when(scored: Path) -> None:
    with lake.scratch(scored) as live, analytics.open(scored) as db:
        live.execute("SET VARIABLE as_of = $as_of", {"as_of": LATER})
        scoring.work_out(live, scored)
        for name in MEASURES:
            assert [row[:2] for row in db.execute(f"DESCRIBE {name}").fetchall()] == [
                row[:2] for row in live.execute(f"DESCRIBE {name}").fetchall()
            ]
            assert rows(db, name) == rows(live, name)
            assert db.execute(f"SELECT DISTINCT as_of FROM {name}").fetchall() == [(LATER,)]


def test_views_read_files_and_nothing_else() -> None:
    models = build.load()
    with duckdb.connect() as db:
        assert [name for name in MEASURES if build.needed(db, models, {name: models[name]})] == []


def test_it_cannot_be_asked_as_of_another_moment_but_where_it_is_worked_out(scored: Path) -> None:
    then = LATER - timedelta(days=60)
    query = "SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal ORDER BY ALL"
    with analytics.open(scored) as db:
        db.execute("SET VARIABLE as_of = $as_of", {"as_of": then})
        with pytest.raises(duckdb.InvalidInputException, match="outlay report scorecard --as-of"):
            db.execute("FROM scorecard").fetchall()
    with analytics.open(scored, as_of=then) as db:
        assert db.execute(query).fetchall() == [(name,) for name in MEASURES]
        assert "as_of" in {row[0] for row in db.execute("DESCRIBE scorecard_flow").fetchall()}
    told = run("sql", "--as-of", then.isoformat(), "--json", "--data", str(scored), query)
    assert [row["view_name"] for row in msgspec.json.decode(told.stdout)] == MEASURES
    report = run("report", "scorecard", "--as-of", then.isoformat(), "--json", "--data", str(scored))
    windows = {row["window_start"][:7] for row in msgspec.json.decode(report.stdout)["outcome"]}
    assert max(windows) == "2026-08"


def test_where_nobody_worked_it_out_there_are_no_rows_and_a_report_works_it_out(data: Path) -> None:
    with analytics.open(data) as db:
        assert [db.execute(f"FROM {name}").fetchall() for name in MEASURES] == [[]] * len(MEASURES)
    segment(data, [call(list_cost_nano=10**9, contracted_cost_nano=10**9)])
    told = run("report", "scorecard", "--json", "--data", str(data))
    report = msgspec.json.decode(told.stdout)
    assert report.keys() == SECTIONS
    assert [row["spend_usd"] for row in report["cost"]] == [1]
    assert scoring.KEPT.note(data).exists()
    assert waste.KEPT.note(data).exists()  # of which the scorecard has sums
    assert "As of 20" in run("report", "scorecard", "--section", "cost", "--data", str(data)).stdout
    assert run("report", "scorecard", "--format", "csv", "--data", str(data)).exit_code == 2


def test_what_is_gone_was_not_worked_out(looked: Path) -> None:
    scoring.table_file(looked, "scorecard_flow").unlink()
    lake.publish(looked)
    waste.file(looked, "claims").unlink()
    lake.publish(looked)
    assert kept.state(looked, scoring.KEPT).made is kept.state(looked, waste.KEPT).made is None


# -- whether it still holds --------------------------------------------------------------------------------------------


def newer(data: Path) -> tuple[bool, ...]:
    """Whether there is newer data than what findings and scorecard are made of."""
    found = kept.records(data)
    return tuple(kept.state(data, kind, found=found).is_newer for kind in (waste.KEPT, scoring.KEPT))


def test_what_is_moved_to_other_files_is_nothing_new(looked: Path, today: Today) -> None:
    moving = lake.Lake(looked, settle=0, grace=0, today=today)
    today.day += timedelta(days=2)
    for _ in range(4):
        moving.round()
    assert list((looked / "calls").glob("day=*/day.parquet"))
    assert newer(looked) == (False, False)


def read_tracker(data: Path) -> None:
    with work.alone(data):
        work.mark_synced(data, ["PAY"], kept.now())


CHANGES: dict[str, Callable[[Path], object]] = {
    "a call": lambda data: segment(data, [call()], NOON + timedelta(minutes=1)),
    "a correction": lambda data: correct(data, call()),
    "a ticket": lambda data: know(data, "PAY-2"),
    "when the tracker was read": lambda data: read_tracker(data),
}
ONLY_OF_THE_SCORECARD: dict[str, Callable[[Path], object]] = {
    "other settings": lambda data: scoring.note_terms(data, ScorecardSettings(period="quarter"), kept.now()),
    "other findings": lambda data: os.utime(waste.file(data, "found"), (1, 1)),
    "a review": lambda data: waste.reviews_file(data).write_bytes(b"{}\n"),
}


def test_newer_data_is_noticed(looked: Path) -> None:
    for name, change in (CHANGES | ONLY_OF_THE_SCORECARD).items():
        assert newer(looked) == (False, False)
        change(looked)
        assert newer(looked) == (name in CHANGES, True), name
        note(looked)


def test_what_is_old_is_not_fresh(looked: Path) -> None:
    state = kept.state(looked, waste.KEPT)
    assert state.made is not None
    assert state.is_fresh()
    for away in (-kept.FRESH, 2 * kept.FRESH):  # the clock may have been wrong
        assert not kept.State(msgspec.structs.replace(state.made, at=state.made.at + away)).is_fresh()


def test_what_is_not_known_to_be_whole_was_not_worked_out(looked: Path) -> None:
    scoring.KEPT.note(looked).write_bytes(b'{"at"')
    assert kept.state(looked, scoring.KEPT) == kept.State(None)


def test_what_was_broken_off_while_files_were_replaced_is_of_nothing_that_there_is(data: Path) -> None:
    scorecard.look(data)
    told = scoring.table_file(data, "scorecard_flow")
    told.unlink()
    told.mkdir()  # in the way, after some were written
    with pytest.raises(OSError, match=told.name):
        scorecard.look(data)
    assert kept.state(data, scoring.KEPT).is_newer


def test_views_that_have_to_be_made_first_hold_up_no_look(looked: Path) -> None:
    """To make them takes the lock of who looks."""
    for kind in (waste.KEPT, scoring.KEPT):
        (looked / "outlay.duckdb").unlink()
        with kept.noting(looked, kind, None):
            assert (looked / "outlay.duckdb").exists()


# -- who reads it ------------------------------------------------------------------------------------------------------


def test_reports_have_what_came_later_and_are_the_same_until_then(data: Path) -> None:
    def reports() -> list[str]:
        told = [run("report", name, "--json", "--data", str(data)) for name in ("scorecard", "waste")]
        assert [(each.exit_code, each.stderr) for each in told] == [(0, "")] * 2
        return [each.stdout for each in told]

    before, noted = reports(), [kind.note(data).read_bytes() for kind in (scoring.KEPT, waste.KEPT)]
    assert reports() == before
    assert [kind.note(data).read_bytes() for kind in (scoring.KEPT, waste.KEPT)] == noted
    same = {"request_hash": "d" * 32, "input_tokens": 1000, "output_tokens": 100, "client": "codex"}
    cost = {"list_cost_nano": 10**9, "contracted_cost_nano": 10**9, "input_cost_nano": 10**9}
    segment(data, [call(NOON + timedelta(minutes=n), user_id="ada", **same, **cost) for n in range(2)])
    of_scorecard, of_waste = map(msgspec.json.decode, reports())
    assert [(row["spend_usd"], row["waste_usd"]) for row in of_scorecard["cost"]] == [(2, 1)]
    assert [(row["rule"], row["claimed_usd"]) for row in of_waste] == [("W01", 1)]


def test_of_several_who_ask_at_once_one_works_it_out(looked: Path) -> None:
    segment(looked, [call()], NOON + timedelta(minutes=1))
    times: list[datetime] = []

    def look() -> None:
        with kept.noting(looked, scoring.KEPT, None) as at:
            times.append(at)
            time.sleep(0.2)  # so that the others ask meanwhile

    asking = [threading.Thread(target=kept.refresh, args=(looked, scoring.KEPT, look)) for _ in range(4)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert len(times) == 1
    assert kept.state(looked, scoring.KEPT).is_fresh()


def test_what_takes_long_is_shown_as_it_is_with_a_word_of_newer_data(
    looked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "WAIT_SECONDS", -1.0)
    place = ("--data", str(looked))
    asked = [("report", "scorecard"), ("report", "waste"), ("findings", "list")]
    assert run("report", "waste", *place).stderr == ""
    segment(looked, [call()], NOON + timedelta(minutes=1))
    for each in asked:
        told = run(*each, *place)
        assert told.exit_code == 0
        assert "As of 20" in told.stdout
        assert "There is newer data" in told.stderr
    assert "There is newer data" in run("report", "waste", "--json", *place).stderr
    assert run("report", "scorecard", "--anew", *place).stderr == ""
    assert not kept.state(looked, scoring.KEPT).is_newer
    assert kept.state(looked, waste.KEPT).is_newer


def test_settings_of_this_installation_count_and_the_shipped_ones_replace_no_others(
    looked: Path, tmp_path: Path
) -> None:
    stricter = WasteSettings(w03_polling_seconds=61)
    note(looked, stricter)
    there = kept.read(looked, waste.KEPT)
    segment(looked, [call()], NOON + timedelta(minutes=1))
    assert findings.refresh(looked, Config()) == kept.State(there, is_newer=True)  # whose they are nobody knows
    assert findings.refresh(looked, Config(waste=stricter, file="outlay.toml")).is_fresh()
    assert kept.read(looked, waste.KEPT) != there
    config = tmp_path / "outlay.toml"
    config.write_text("[waste]\nw03_polling_seconds = 62\n", encoding="utf-8")
    assert run("report", "waste", "--config", str(config), "--data", str(looked)).exit_code == 0
    with analytics.open(looked) as db:
        assert db.execute("SELECT settings.w03_polling_seconds FROM waste_settings").fetchall() == [(62,)]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_who_cannot_write_reads_what_is_there(looked: Path, error: int) -> None:
    def look() -> None:
        raise OSError(error, os.strerror(error), "here")

    segment(looked, [call()], NOON + timedelta(minutes=1))
    there = kept.refresh(looked, scoring.KEPT, look)
    assert there.made is not None
    assert there.is_newer
    with pytest.raises(OSError, match="here"):
        kept.refresh(looked, scoring.KEPT, look, anew=True)
    kept.forget(looked, scoring.KEPT)
    with pytest.raises(OSError, match="here"):
        kept.refresh(looked, scoring.KEPT, look)


def test_a_folder_that_cannot_be_written_is_said_in_one_line(data: Path) -> None:
    os.mkfifo(scoring.KEPT.note(data).with_suffix(".json.tmp"))  # what is put aside cannot be
    (data / "scorecard.lock").unlink()
    (data / "scorecard.lock").mkdir()
    told = run("report", "scorecard", "--data", str(data))
    assert isinstance(told.exception, UserError)
    assert str(told.exception) == f"{data / 'scorecard.lock'} cannot be written: Is a directory"


async def test_pages_say_as_of_when_they_are_and_that_there_is_newer_data(
    looked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consoles.set_keys(monkeypatch)
    async with looking(consoles.config(looked), "viewer") as viewer:
        for path in ("/waste", "/scorecard"):
            page = plain(await viewer.get(path))
            assert "As of 20" in page
            assert "newer data" not in page
        segment(looked, [call()], NOON + timedelta(minutes=1))
        for path, command in (("/waste", "outlay findings look"), ("/scorecard", "outlay report scorecard --anew")):
            page = plain(await viewer.get(path))
            assert "There is newer data" in page
            assert command in page
        for kind in (waste.KEPT, scoring.KEPT):
            kept.forget(looked, kind)
        assert "Nobody has looked yet" in plain(await viewer.get("/waste"))
        assert "Nobody has worked this out yet." in plain(await viewer.get("/scorecard"))


# -- the keeper --------------------------------------------------------------------------------------------------------


def test_the_keeper_works_the_scorecard_out_when_something_has_changed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorecard, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(scorecard, "REST", timedelta(0))
    monkeypatch.setattr(scorecard, "REST_TIMES", 0)

    def spent() -> Any:
        with analytics.open(data) as db:
            return db.execute("SELECT sum(spend_usd) FROM scorecard").fetchall()

    with scorecard.keeping(data, None):
        while kept.read(data, scoring.KEPT) is None:
            threading.Event().wait(0.02)
        segment(data, [call(list_cost_nano=10**9, contracted_cost_nano=10**9)])
        while spent() != [(1,)]:
            threading.Event().wait(0.02)
