"""sql, report and verify, as a person runs them."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from analytics import build, commands, lake, sql_cli
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


# -- which folder --------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where one works: the settings name the folder `store`, and `data` is one of before."""
    monkeypatch.chdir(tmp_path)
    for name in ("store", "data", "third"):
        lake.publish(tmp_path / name)
        segment(tmp_path / name, [call(NOON, team_id=f"of-{name}", request_model="m")])
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "outlay.toml").write_text('[ledger]\ndir = "store"\n')
    (tmp_path / "other.toml").write_text('[ledger]\ndir = "third"\n')
    return tmp_path


def test_each_command_reads_the_folder_of_the_settings(elsewhere: Path) -> None:
    def says(*asked: str) -> str:
        told = CliRunner().invoke(cli.outlay, asked)
        return f"{told.output}{told.exception}"

    names = {"store": [], "third": ["--config", "other.toml"], "data": ["--data", "data", "--config", "none.toml"]}
    for folder, named in names.items():
        assert f"of-{folder}" in says("report", "spend", *named)
        assert f"of-{folder}" in says("sql", "SELECT DISTINCT team_id FROM calls", *named)
        says("export", "focus", "--from", "2026-11-01", "--out", "x.csv", *named)
        assert f"of-{folder}" in (elsewhere / "x.csv").read_text()
    shutil.rmtree(elsewhere / "third")
    for asked in (["verify"], ["findings", "list"], ["report", "waste"], ["report", "scorecard"]):
        assert re.search("no data folder third|third has no journal", says(*asked, "--config", "other.toml"))
    (elsewhere / "config" / "outlay.toml").unlink()
    assert "of-data" in says("report", "spend")


@pytest.mark.parametrize(
    "asked", [["keys", "create", "--team", "pay"], ["budgets", "set", "a", "--scope", "org", "--limit-usd", "1"]]
)
def test_a_data_folder_that_is_made_anew_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(cli.outlay, [*asked, "--json"])
    assert told.exit_code == 0
    assert told.stderr.startswith(f"Made the data folder {tmp_path / 'data'}: no gateway knows it yet.")
    json.loads(told.stdout)
    assert CliRunner().invoke(cli.outlay, asked).stderr == ""


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


def test_a_query_may_begin_with_a_comment(run: Run) -> None:
    for question in sorted((build.FOLDER / "queries" / "questions").glob("*.sql")):
        text = question.read_text(encoding="utf-8")
        assert text.startswith("-- ")
    assert run("sql", "-- How many?\nSELECT 7 AS n", "--format", "csv") == (0, "n\n7\n", "")
    assert run("sql", "--wrong", "SELECT 7 AS n")[0] == 2


def test_sql_reads_statements_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT count(*) AS n FROM calls;\nSELECT 7 AS n"))
    assert run("sql", "--format", "csv") == (0, "n\n3\nn\n7\n", "")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT team FROM calls", "Candidate bindings"),
        ("SELEKT", "syntax error"),
        ("CREATE TABLE x AS SELECT 1", "only one query that reads relations runs here"),
        ("SELECT 1; COPY calls TO 'x'", "only one query that reads relations runs here"),
    ],
)
def test_a_wrong_query_is_one_line(run: Run, query: str, says: str) -> None:
    code, _, errors = run("sql", query)
    assert (code, errors.count("\n")) == (1, 1)
    assert says in errors


def test_sql_tells_that_there_was_more_and_stops_in_time(run: Run) -> None:
    code, out, errors = run("sql", "FROM range(5)", "--rows", "2", "--format", "csv")
    assert (code, out.split(), errors) == (
        0, ["range", "0", "1"], "Only the first 2 rows: --rows gives more, outlay.duckdb all.\n",
    )  # fmt: skip
    code, _, errors = run("sql", "SELECT count(*) FROM range(9999999) a, range(9999999) b", "--seconds", "1")
    assert (code, errors) == (1, "the query took longer than 1 s and was stopped: ask for less at once\n")


def test_sql_of_an_earlier_moment(run: Run) -> None:
    query = "SELECT as_of::VARCHAR AS at FROM as_of"
    assert run("sql", query, "--format", "csv", "--as-of", "2026-11-20T11:00:00")[1] == "at\n2026-11-20 11:00:00\n"


def typed(data: Path, *keys: str) -> None:
    """Into the shell, on a terminal that nobody sees."""
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text("".join(keys))
        sql_cli.shell(sql_cli.Asked(data, "csv", 100, 60, None))


def test_the_shell_asks_over_lines_and_goes_on_after_mistakes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    typed(data, "SELECT count(*) AS n\r", "FROM calls;\r", "SELEKT;\r", "SELECT 7 AS n;\r", "exit\r")
    out, errors = capsys.readouterr()
    assert out == "n\n3\nn\n7\n"
    assert "syntax error" in errors
    history = tmp_path / ".outlay_history"
    assert "+SELECT count(*) AS n" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    typed(data, "\x1b[A\x1b[A\r", "\x04")  # up twice, past `exit`; then Ctrl-D
    assert capsys.readouterr().out == "n\n7\n"


def test_the_shell_completes_relations_and_columns(data: Path) -> None:
    names = sql_cli.Names(sql_cli.columns_of(data))

    def completed(text: str) -> list[str]:
        return [each.text for each in names.get_completions(Document(text), CompleteEvent(completion_requested=True))]

    assert completed("FROM ticket_co") == ["ticket_costs", "ticket_coverage"]
    assert "calls" in completed("SELECT * FROM ")
    assert completed("SELECT * FROM ticket_costs WHERE outc") == ["outcome", "outcome_costs"]
    assert completed("FROM calls SEL") == ["SELECT"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    asks = {
        "bash": {"COMP_WORDS": "outlay report sp", "COMP_CWORD": "2"},
        "zsh": {"COMP_WORDS": "outlay report sp", "COMP_CWORD": "2"},
        "fish": {"COMP_WORDS": "outlay report", "COMP_CWORD": "sp"},
    }[shell]
    runner = CliRunner()
    script = runner.invoke(cli.outlay, [], prog_name="outlay", env={"_OUTLAY_COMPLETE": f"{shell}_source"})
    assert f"_OUTLAY_COMPLETE={shell}_complete" in script.output
    found = runner.invoke(cli.outlay, [], prog_name="outlay", env={"_OUTLAY_COMPLETE": f"{shell}_complete", **asks})
    assert "spend" in found.output


def test_bash_completes_as_the_docs_say() -> None:
    page = (Path(__file__).parent.parent / "docs/tools.md").read_text(encoding="utf-8")
    [line] = re.findall(r'^eval "\$\(_OUTLAY_COMPLETE=bash_source.*$', page, re.MULTILINE)
    asks = 'COMP_WORDS=(outlay export foc); COMP_CWORD=2; _outlay_completion outlay; echo "${COMPREPLY[@]}"'
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    out = subprocess.run(["bash", "-c", f"{line}\n{asks}"], env=environ, capture_output=True, text=True, check=True)
    assert out.stdout == "focus\n"


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


def test_a_table_of_many_tickets_shows_those_that_cost_most(run: Run, data: Path) -> None:
    many = [call(tickets=(f"MANY-{n}",), list_cost_nano=n) for n in range(40)]
    segment(data, many, at=NOON + timedelta(hours=1))
    _, out, errors = run("report", "spend", "--by", "ticket")
    assert (len(out.splitlines()), out.split()[5]) == (1 + 30 + 1, "PAY-1")
    assert "These are 30, with their total, of more" in errors
    _, out, errors = run("report", "spend", "--by", "ticket", "--limit", "43")
    assert (len(out.splitlines()), "These are" in errors) == (1 + 43 + 1, False)
    for format_ in ("csv", "json"):
        _, out, _ = run("report", "spend", "--by", "ticket", "--format", format_)
        assert all(f"MANY-{n}" in out for n in range(40))


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
    assert errors.startswith("1 call has no price and is in no sum")


def test_what_is_for_no_ticket_has_a_name(run: Run) -> None:
    assert re.search(r"^ *\(none\) ", run("report", "spend", "--by", "ticket")[1], re.MULTILINE)
    assert None in [row["ticket_id"] for row in json.loads(run("report", "spend", "--by", "ticket", "--json")[1])]


def test_a_terminal_shows_bars(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = run("report", "spend", "--by", "ticket")
    first, second, third = (line for line in out.splitlines() if "PAY-" in line or "0.000001000" in line)
    assert [row.count("█") for row in (first, second, third)] == [16, 15, 0]  # of the second, the last is not full


def test_a_terminal_that_is_too_narrow_shows_a_line_for_each_value(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = run("sql", "FROM calls WHERE tickets = ['PAY-1', 'PAY-2']")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert re.search(r"^ *list_cost_usd +3\.000000001 *$", shown, re.MULTILINE)
    assert "finish_reason" not in shown  # it has no value


def test_a_table_in_a_window_is_to_be_read_and_one_in_a_file_is_exact(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("analytics.cli.ROWS_SHOWN", 1)
    _, exact, errors = run("report", "tickets")
    assert "1.500000001" in exact.split()
    assert "These are 1, with their total, of more" in errors
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    _, shown, errors = run("report", "tickets", "--limit", "9")
    assert {"1.5000", "total", "3.0000"} <= {*re.sub(r"\x1b\[[0-9;]*m", "", shown).split()}
    assert "Left out, as the window is narrow: " in errors
    assert "These are" not in errors
    _, shown, errors = run("report", "coverage", "--section", "untagged")
    assert "advice" in re.sub(r"\x1b\[[0-9;]*m", "", shown).split()
    _, shown, _ = run("sql", "SELECT team_id, list_cost_usd FROM calls WHERE team_id = 'pay'")
    words = re.sub(r"\x1b\[[0-9;]*m", "", shown).split()
    assert words[:6] == ["team_id", "list_cost_usd", "pay", "3.000000001", "pay", "0.000001000"]
    assert "total" not in words
    assert run("sql", "SELECT 1 AS n WHERE false")[1] == "(nothing)\n"


def test_what_takes_long_shows_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "PATIENCE_SECONDS", 0.0)
    said = ""
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        with commands.patience():
            until = time.monotonic() + 30
            while terminal == "1" and "working" not in said and time.monotonic() < until:
                time.sleep(0.01)
                said += capsys.readouterr().err
        assert ("working" in said) == (terminal == "1")


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


@pytest.mark.parametrize("content", ["", "a,b\n1\n", "state,day,segment,calls,list_cost_nano\nsealed,2026-11-20\n"])
def test_a_damaged_state_is_said_by_all_who_need_it(
    run: Run, data: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """To read it as one of nothing would count what is sealed twice."""
    sealed(data)
    lake.state_file(data).write_text(content)
    told = f"{lake.state_file(data)}, which says which files count, cannot be read (it is damaged): restore it"
    for command in (["verify"], ["sql", "SELECT count(*) FROM calls"], ["report", "spend"]):
        code, out, errors = run(*command)
        assert (code, out, errors.startswith(told)) == (1, "", True)
    stop = threading.Event()
    stop.set()
    lake.keep(data, stop)
    assert told in caplog.text


def test_a_damaged_table_of_work_is_said(run: Run, data: Path) -> None:
    lake.publish(data)
    (data / "work" / "tickets.parquet").write_bytes(b"nope")
    (data / "outlay.duckdb").unlink()
    for command in (["verify"], ["sql", "SELECT count(*) FROM calls"]):
        code, _, errors = run(*command)
        assert code == 1
        assert "tickets.parquet" in errors
        assert "restore what is damaged from a backup" in errors


def test_a_folder_that_cannot_be_written_and_was_never_read(run: Run, data: Path) -> None:
    """As a snapshot of one whose keeper never ran."""
    (data / "outlay.duckdb.made").unlink()
    (data / "outlay.duckdb.made").mkdir()
    for command in (["verify"], ["sql", "SELECT count(*) FROM calls"], ["report", "spend"]):
        code, _, errors = run(*command)
        assert (code, "it has to be writable" in errors) == (1, True)


def test_what_is_no_file_is_no_segment(run: Run, data: Path) -> None:
    (data / "journal" / "20261120T000000000000-abcd1234.jsonl").mkdir()
    code, out, _ = run("verify")
    assert (code, out.splitlines()[-1]) == (0, "All is well.")
    sealed(data)
    assert run("verify")[0] == 0
    code, out, _ = run("sql", "SELECT count(*) AS calls FROM calls", "--format", "csv")
    assert (code, out.split()) == (0, ["calls", "3"])


def test_a_folder_whose_name_would_be_read_as_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="team_id=acme"):
        lake.publish(tmp_path / "team_id=acme" / "data")
