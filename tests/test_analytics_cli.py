"""sql, report and verify, as a person runs them."""

import csv
import io
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from analytics import lake
from gateway import cli
from gateway.errors import UserError
from tests.journals import NOON, Segment, call, line, segment

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(data: Path) -> Path:
    segment(
        data,
        [
            call(NOON, team_id="pay", tickets=("PAY-1", "PAY-2"), list_cost_nano=3_000_000_001, task_id="t1"),
            call(NOON, team_id="pay", purpose="ci", client="codex"),
            call(
                NOON + timedelta(days=1), team_id="ops", request_model="m", price_status="unpriced", list_cost_nano=None
            ),
        ],
    )
    return data


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([*arguments, "--data", str(data)])
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


def sealed(data: Path, *, closed: bool = False) -> None:
    lake.publish(data)
    moving = lake.Lake(data, 0, 1000, lambda: date(2026, 12, 24) if closed else date(2026, 11, 20))
    for _ in range(3):
        moving.round()


# -- sql -----------------------------------------------------------------------------------------------------------


def test_sql_prints_a_table_json_or_csv(run: Run) -> None:
    query = "SELECT team_id, list_cost_usd, tickets FROM calls ORDER BY list_cost_usd DESC NULLS LAST"
    code, out, _ = run("sql", query)
    assert (code, out.split()[:5]) == (0, ["team_id", "list_cost_usd", "tickets", "pay", "3.000000001"])
    code, out, _ = run("sql", query, "--json")
    assert json.loads(out)[0] == {"team_id": "pay", "list_cost_usd": 3.000000001, "tickets": ["PAY-1", "PAY-2"]}
    assert '"list_cost_usd": 3.000000001' in out
    code, out, _ = run("sql", query, "--format", "csv")
    assert list(csv.reader(io.StringIO(out)))[1:] == [
        ["pay", "3.000000001", '["PAY-1", "PAY-2"]'],
        ["pay", "0.000001000", "[]"],
        ["ops", "", "[]"],
    ]


def test_sql_reads_statements_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT count(*) AS n FROM calls;\nSELECT 7 AS n"))
    assert run("sql", "--format", "csv") == (0, "n\n3\nn\n7\n", "")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT team FROM calls", "Candidate bindings"),
        ("SELEKT", "syntax error"),
        ("CREATE TABLE x AS SELECT 1", "read-only"),
    ],
)
def test_a_wrong_query_is_one_line(run: Run, query: str, says: str) -> None:
    code, out, errors = run("sql", query)
    assert (code, out, errors.count("\n")) == (1, "", 1)
    assert says in errors


def test_a_missing_folder_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="1"):
        cli.main(["sql", "SELECT 1", "--data", str(tmp_path / "nowhere")])
    assert "there is no data folder" in capsys.readouterr().err


# -- report --------------------------------------------------------------------------------------------------------


def rows(out: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(out)))


def test_spend_by_ticket_splits_and_shows_what_is_without(run: Run) -> None:
    _, out, _ = run("report", "spend", "--by", "ticket", "--format", "csv")
    assert rows(out) == [
        ["ticket_id", "tasks", "calls", "unpriced_calls", "list_cost_usd"],
        ["PAY-1", "1", "1", "0", "1.500000001"],
        ["PAY-2", "1", "1", "0", "1.500000000"],
        ["", "0", "2", "1", "0.000001000"],
    ]


def test_spend_is_limited_to_days_and_a_team(run: Run) -> None:
    def calls(*options: str) -> list[str]:
        _, out, _ = run("report", "spend", "--by", "day", "--format", "csv", *options)
        return [row[1] for row in rows(out)[1:]]

    assert calls() == ["2", "1"]
    assert calls("--from", "2026-11-21") == ["1"]
    assert calls("--to", "2026-11-20") == ["2"]
    assert calls("--team", "ops") == ["1"]
    assert calls("--team", "nobody") == []


def test_every_dimension_sums_to_the_same(run: Run) -> None:
    code, _, errors = run("report", "spend", "--by", "user")
    assert code == 2
    dimensions = [word.strip("',.") for word in errors.partition("is not one of")[2].split()]
    assert {"day", "team", "model", "ticket", "task", "purpose", "client"} < set(dimensions)
    for dimension in dimensions:
        _, out, _ = run("report", "spend", "--by", dimension, "--json")
        assert sum(round(row["list_cost_usd"] * 1e9) for row in json.loads(out)) == 3_000_001_001, dimension


def test_a_table_has_a_total_and_says_what_is_not_in_it(run: Run) -> None:
    _, out, errors = run("report", "spend", "--by", "team")
    assert out.split()[-1] == "3.000001001"
    assert errors.startswith("1 calls have no price")


def test_spend_goes_to_parquet(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "spend.parquet"
    assert run("report", "spend", "--format", "parquet", "--out", str(out)) == (0, "", "")
    with duckdb.connect() as db:
        assert db.execute("SELECT sum(calls) FROM read_parquet($file)", {"file": str(out)}).fetchone() == (3,)
    code, _, errors = run("report", "spend", "--format", "parquet")
    assert (code, "--out FILE" in errors) == (2, True)


# -- verify --------------------------------------------------------------------------------------------------------


def test_verify_finds_all_well_at_every_step(run: Run, data: Path) -> None:
    for closed in (None, False, True):
        if closed is not None:
            sealed(data, closed=closed)
        code, out, _ = run("verify")
        assert (code, out.splitlines()[-1]) == (0, "All is well.")
        assert out.startswith("3 calls of 3.000001001 USD")


def test_verify_tells_torn_from_damaged_and_lists_open_calls(run: Run, data: Path) -> None:
    lost = call()
    torn = Segment(data, NOON + timedelta(seconds=1))
    torn.open(lost)
    torn.write(line("close", NOON, call())[:99])
    torn.crash()
    code, out, _ = run("verify", "--json")
    assert code == 0
    assert {k: v for k, v in json.loads(out).items() if k in ("torn", "open_calls", "wrong")} == {
        "torn": 1,
        "open_calls": [lost.call_id],
        "wrong": [],
    }
    with torn.path.open("ab") as recovered:
        recovered.write(b"\n" + line("end", NOON))
    segment(data, [lost], at=NOON + timedelta(seconds=2))
    assert run("verify")[1].splitlines()[1:] == [
        "1 lines cut off by a crash (nobody was answered from them)",
        "All is well.",
    ]


@pytest.mark.parametrize("position", ["middle", "last"])
def test_verify_names_a_damaged_record(run: Run, data: Path, position: str) -> None:
    path = sorted((data / "journal").glob("2*.jsonl"))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    number = 3 if position == "middle" else len(lines) - 1
    lines[number - 1] = lines[number - 1].replace(b'"attempt":1', b'"attempt":2')
    path.write_bytes(b"".join(lines))
    code, out, _ = run("verify")
    assert code == 1
    assert f"wrong: {path.name} line {number}: the record is damaged (its checksum does not fit)" in out.splitlines()


@pytest.mark.parametrize("closed", [False, True])
def test_verify_finds_a_sealed_file_that_is_not_what_was_sealed(run: Run, data: Path, closed: bool) -> None:
    sealed(data, closed=closed)
    path = next(data.glob("calls/day=2026-11-20/day.parquet" if closed else "calls/day=2026-11-20/part-*"))
    with duckdb.connect() as db:
        db.sql(f"SELECT * EXCLUDE (day) FROM read_parquet('{path}') LIMIT 1").write_parquet(str(path))
    code, out, _ = run("verify")
    assert code == 1
    assert f"{path.relative_to(data)} has 1 calls of" in out
    path.write_bytes(b"not Parquet")
    assert "cannot be read" in run("verify")[1]


def test_verify_finds_a_call_that_is_there_twice(run: Run, data: Path) -> None:
    twice = call(call_id="twice")
    segment(data, [twice, twice], at=NOON + timedelta(seconds=1))
    code, out, _ = run("verify")
    assert code == 1
    assert "duplicates: No call is counted twice. Not so: call_id twice, times 2" in out


def test_verify_finds_a_file_that_the_state_does_not_know(run: Run, data: Path) -> None:
    sealed(data)
    path = next(data.glob("calls/day=2026-11-20/part-*"))
    path.with_name("part-stray.parquet").write_bytes(path.read_bytes())
    code, out, _ = run("verify")
    assert code == 1
    assert "part-stray.parquet is not in the state, and yet counted" in out


def test_names_that_look_like_markup_are_shown_as_they_are(run: Run, data: Path) -> None:
    segment(data, [call(NOON, repo="[/x]"), call(NOON, repo="[red]r")], gateway_id="gw-2")
    code, out, _ = run("report", "spend", "--by", "repo")
    assert code == 0
    assert "[/x]" in out
    assert "[red]r" in out


def test_odd_columns_named_like_ours_are_shown(run: Run) -> None:
    code, out, _ = run("sql", "SELECT NULL AS unpriced_calls, 1.5::DOUBLE AS list_cost_usd")
    assert (code, "1.5" in out) == (0, True)


def test_a_state_that_lost_a_closed_day_is_noticed_and_overwrites_nothing(run: Run, data: Path) -> None:
    sealed(data, closed=True)
    state = lake.state_file(data)
    state.write_text(state.read_text().splitlines(keepends=True)[0])  # only its header is left
    code, out, _ = run("verify")
    assert code == 1
    assert "is not in the state, so it is not counted" in out
    held = lake.day_file(data, NOON.date()).read_bytes()
    segment(data, [call(NOON)], gateway_id="gw-2")
    moving = lake.Lake(data, 0, 1000, lambda: date(2026, 12, 24))
    moving.seal()
    moving.turn()
    with pytest.raises(OSError, match=r"restore lake_state\.csv"):
        moving.compact()
    assert lake.day_file(data, NOON.date()).read_bytes() == held


def test_a_folder_whose_name_would_be_read_as_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="team_id=acme"):
        lake.publish(tmp_path / "team_id=acme" / "data")
