"""Work tables from files: by primary key, all or nothing, and what the gateway is told of them."""

import csv
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics
from analytics import lake, verifying, work
from analytics.sources import files
from gateway import cli
from gateway.errors import UserError
from gateway.tracker import Snapshot, Tracker
from tests.journals import NOON, call, segment
from tests.test_lake import _process
from tests.trackers import hours, know, pull

Run = Callable[..., tuple[int, str, str]]
KINDS = ["csv", "jsonl", "parquet"]


@pytest.fixture
def run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`outlay import work`, in a directory with a data folder and nothing else."""
    monkeypatch.chdir(tmp_path)

    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["import", "work", *arguments])
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Rows as a file of the format that its name says. In CSV, lists are JSON."""
    rows = list(rows)
    if path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, names)
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    else:
        lines_ = path.with_suffix(".jsonl")
        lines_.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        if path.suffix == ".parquet":
            columns = work.TABLES[path.stem].columns
            with duckdb.connect() as db:
                db.read_json(str(lines_), format="newline_delimited", columns=columns).write_parquet(str(path))
    return path


def rows_of(table: str, data: Path = Path("data")) -> list[dict[str, Any]]:
    with analytics.open(data) as db:
        result = db.execute(f"FROM {table} ORDER BY ALL")
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def ids(table: str = "tickets", column: str = "ticket_id") -> list[str]:
    return [row[column] for row in rows_of(table)]


def at(year: int, month: int = 1, day: int = 1, *clock: int) -> datetime:
    """UTC, as work tables have it: without a zone."""
    return datetime(year, month, day, *clock, tzinfo=UTC).replace(tzinfo=None)


# -- formats -------------------------------------------------------------------------------------------------------

TEXTS = st.text(
    st.characters(
        exclude_categories=["Cs"],
    ),
    max_size=20,
)
NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1, max_size=20
)
MOMENTS = st.datetimes(at(1970), at(2100))
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "VARCHAR": TEXTS,
    "VARCHAR[]": st.lists(TEXTS, max_size=3),
    "BIGINT": st.integers(0, 2**53),
    "DOUBLE": st.floats(-1e9, 1e9, allow_nan=False),
    "BOOLEAN": st.booleans(),
    "TIMESTAMP": MOMENTS,
    "DATE": st.dates(at(1970).date(), at(2100).date()),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """A table's name and sound rows of it, with different keys."""
    name = draw(st.sampled_from(files.TABLES))
    table = work.TABLES[name]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _ in range(draw(st.integers(0, 4))):
        row = {
            column: draw(st.sampled_from(choices) if (choices := table.choices(column)) else COLUMNS[kind])
            for column, kind in table.columns.items()
            if column in table.required or draw(st.booleans())
        }
        row |= {
            column: draw(NAMES)
            for column in table.required
            if table.columns[column] == "VARCHAR" and not table.choices(column)
        }
        if name == "tickets":
            row["ticket_id"] += "!"  # no number alone, and no key in lower case
        if name == "pull_requests":
            row["pr_id"] = f"{row['repo']}!{row['number']}"
            if len(row["pr_id"]) > 255:
                continue
        rows[tuple(row[column] for column in table.key)] = row
    return name, list(rows.values())


@settings(max_examples=30, deadline=None)
@given(tables(), st.sampled_from(KINDS))
def test_a_file_of_any_format_gives_the_rows_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, list[dict[str, Any]]], kind: str
) -> None:
    name, rows = drawn
    folder = tmp_path_factory.mktemp("files")
    path = write(folder / f"{name}.{kind}", rows)
    if kind == "csv" and not rows:
        path.write_text(",".join(work.TABLES[name].required) + "\n")
    problems = files.Problems(path)
    found = [*files.read(path, name, problems)]
    assert problems.lines == []
    assert len(found) == len(rows)
    for row, expected in zip(found, rows, strict=True):
        written = {column: value for column, value in expected.items() if kind != "csv" or value != ""}
        assert row == msgspec.convert(written, work.TABLES[name].row)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-25T10:00:00Z", at(2026, 11, 25, 10)),
        ("2026-11-25 10:00:00.529", at(2026, 11, 25, 10, 0, 0, 529_000)),
        ("2026-11-25T18:00:00.000+0800", at(2026, 11, 25, 10)),
        ("2026-11-25", at(2026, 11, 25)),
    ],
)  # fmt: skip
def test_times_may_be_written_in_many_ways(run: Run, written: str, moment: datetime) -> None:
    write(Path("tickets.csv"), [{"ticket_id": "PAY-1", "created_at": written}])
    assert run("tickets.csv")[0] == 0
    write(Path("commits.jsonl"), [{"sha": "a", "repo": "r", "committed_at": written}])
    assert run("commits.jsonl")[0] == 0
    assert [row["created_at"] for row in rows_of("tickets")] == [moment]
    assert [row["committed_at"] for row in rows_of("commits")] == [moment]


def test_parquet_may_have_times_with_a_zone_and_other_numbers(run: Run) -> None:
    with duckdb.connect() as db:
        db.sql(
            "SELECT 'PAY-1' AS ticket_id, TIMESTAMPTZ '2026-11-25 10:00:00+02' AS done_at, NULL AS title,"
            " 1.5::DECIMAL(4,1) AS estimate, DATE '2026-11-01' AS created_at, 3::TINYINT AS reopened_count"
        ).write_parquet("tickets.parquet")
    assert run("tickets.parquet")[0] == 0
    [row] = rows_of("tickets")
    expected = {"done_at": at(2026, 11, 25, 8), "estimate": 1.5, "created_at": at(2026, 11)}
    assert {name: row[name] for name in expected} == expected
    assert (row["reopened_count"], row["title"], row["labels"]) == (3, None, [])


def test_a_number_in_parquet_that_is_none_is_named_with_its_row(run: Run) -> None:
    with duckdb.connect() as db:
        db.sql("SELECT 'PAY-' || range AS ticket_id, range / 0.0 AS estimate FROM range(2)").write_parquet(
            "tickets.parquet"
        )
    assert run("tickets.parquet")[2].startswith("tickets.parquet row 1: has a number that is none\n")


def test_lists_in_csv_are_json_or_have_commas(run: Run) -> None:
    Path("tickets.csv").write_text('\ufeffticket_id,labels,aliases\nPAY-1,"bug, a b",\nPAY-2,"[""x,y""]",OLD-5\n')
    assert run("tickets.csv")[0] == 0
    assert [(row["labels"], row["aliases"]) for row in rows_of("tickets")] == [
        (["bug", "a b"], []),
        (["x,y"], ["OLD-5"]),
    ]


# -- by primary key --------------------------------------------------------------------------------------------------


def test_rows_are_new_changed_the_same_or_older(run: Run, data: Path) -> None:
    def imported(*rows: tuple[str, str, int | None]) -> str:
        given_ = [{"ticket_id": t, "title": x} | ({} if h is None else {"updated_at": hours(h)}) for t, x, h in rows]
        code, out, _ = run(str(write(Path("tickets.jsonl"), given_)))
        assert code == 0
        return out.splitlines()[0]

    assert imported(("PAY-1", "a", 1), ("PAY-2", "a", None)) == "tickets: 2 new, 0 changed, 0 same"
    before = work.table_file(data, "tickets").stat().st_ino
    assert imported(("PAY-1", "a", 1), ("PAY-2", "a", None)) == "tickets: 0 new, 0 changed, 2 same"
    assert work.table_file(data, "tickets").stat().st_ino == before
    assert imported(("PAY-1", "b", 2), ("PAY-2", "b", None), ("PAY-3", "a", 1)) == "tickets: 1 new, 2 changed, 0 same"
    assert imported(("PAY-1", "c", 1), ("PAY-3", "c", None)) == "tickets: 0 new, 0 changed, 0 same, 2 older"
    assert imported(("PAY-1", "d", 2)) == "tickets: 0 new, 1 changed, 0 same"  # of the same time: what came last
    assert [(row["ticket_id"], row["title"]) for row in rows_of("tickets")] == [
        ("PAY-1", "d"), ("PAY-2", "b"), ("PAY-3", "a"),
    ]  # fmt: skip


def test_the_links_of_a_pull_request_are_replaced_together(run: Run) -> None:
    def imported(*links: tuple[str, str]) -> str:
        rows = [{"pr_id": pr, "ticket_id": ticket, "source": "title"} for pr, ticket in links]
        return run(str(write(Path("pr_tickets.jsonl"), rows)))[1].splitlines()[0]

    imported(("r!1", "PAY-1"), ("r!1", "PAY-2"), ("r!2", "PAY-3"))
    assert imported(("r!1", "PAY-2"), ("r!1", "PAY-4")) == "pr_tickets: 1 new, 0 changed, 1 same, 1 gone"
    assert [(row["pr_id"], row["ticket_id"]) for row in rows_of("pr_tickets")] == [
        ("r!1", "PAY-2"), ("r!1", "PAY-4"), ("r!2", "PAY-3"),
    ]  # fmt: skip


def test_an_older_pull_request_does_not_replace_a_newer_one(run: Run) -> None:
    merged = {"pr_id": "r!1", "repo": "r", "number": 1, "merged_at": hours(3), "updated_at": hours(3)}
    run(str(write(Path("pull_requests.jsonl"), [merged])))
    older = {"pr_id": "r!1", "repo": "r", "number": 1, "updated_at": hours(1)}
    assert "1 older" in run(str(write(Path("pull_requests.jsonl"), [older])))[1]
    assert rows_of("pull_requests")[0]["merged_at"] is not None


def test_each_table_has_its_key(run: Run) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "pull_requests.jsonl": [{"pr_id": "r!1", "repo": "r", "number": 1}],
        "pr_tickets.csv": [{"pr_id": "r!1", "ticket_id": "PAY-1", "source": source} for source in ("title", "branch")],
        "commits.parquet": [{"sha": "a", "repo": repo} for repo in ("r", "fork")],
    }
    paths = [str(write(Path(name), each)) for name, each in rows.items()]
    assert run(*paths)[1].splitlines()[:3] == [
        "pull_requests: 1 new, 0 changed, 0 same",
        "pr_tickets: 2 new, 0 changed, 0 same",
        "commits: 2 new, 0 changed, 0 same",
    ]
    code, out, _ = run(*paths, "--json")
    assert code == 0
    assert [(each["table"], each["same"], each["left_out_rows"]) for each in json.loads(out)["tables"]] == [
        ("pull_requests", 1, {}), ("pr_tickets", 2, {}), ("commits", 2, {}),
    ]  # fmt: skip


def test_an_import_corrects_calls_that_it_explains(run: Run, data: Path) -> None:
    segment(data, [call(tickets=("PAY-1",), ticket_id="PAY-1", ticket_source="header", ticket_state="unchecked")])
    write(Path("tickets.csv"), [{"ticket_id": "PAY-1"}])
    code, out, _ = run("tickets.csv")
    assert (code, out.splitlines()[-1]) == (0, "1 calls were corrected.")
    assert json.loads(run("tickets.csv", "--json")[1])["attribution"] == []
    with analytics.open(data) as db:
        assert db.execute("SELECT ticket_state FROM calls").fetchall() == [("known",)]
    assert verifying.verify(data).wrong == []


def test_titles_of_pull_requests_say_what_they_take_back_and_bring_back(run: Run, tmp_path: Path) -> None:
    titles = ["Pay by card", 'Revert "Pay by card" (#1)', "Search", 'Revert "Search"', 'Reapply "Search"']
    pulls = [
        {"pr_id": f"acme/shop!{n}", "repo": "acme/shop", "number": n, "title": title, "merged_at": at(2026, 3, n)}
        for n, title in enumerate(titles, 1)
    ]
    assert run(str(write(tmp_path / "pull_requests.jsonl", pulls)))[0] == 0
    found = {row["pr_id"]: (row["reverted_by"], row["landed_again_by"]) for row in rows_of("pr_reverts")}
    assert found == {"acme/shop!1": ("acme/shop!2", None), "acme/shop!3": ("acme/shop!4", "acme/shop!5")}


# -- what is wrong -----------------------------------------------------------------------------------------------------

WRONG = [
    ("tickets.jsonl", '{"ticket_id":"PAY-1","titel":"x"}', 'row 1: unknown column "titel"; did you mean "title"?'),
    ("tickets.csv", "ticket_id,qqqq\nPAY-1,x", 'row 2: unknown column "qqqq"; known here: ticket_id, source, project,'),
    ("tickets.jsonl", '\n{"title":"x"}', "row 2: ticket_id is missing"),
    ("tickets.jsonl", '{"ticket_id":null}', "row 1: ticket_id is missing"),
    ("tickets.csv", "ticket_id,title\nPAY-1,a\n,b", "row 3: ticket_id is missing"),
    ("tickets.csv", "title\na", "row 1: the column ticket_id is missing; ticket_id must be there"),
    ("pull_requests.csv", "pr_id,repo\nr!1,r", "row 1: the column number is missing; pr_id, repo, number must be"),
    ("tickets.csv", "", "row 1: the column ticket_id is missing"),
    ("tickets.csv", "ticket_id,title,title\nPAY-1,a,b", 'row 1: the column "title" is there twice'),
    ("tickets.jsonl", '{"ticket_id":7}', "row 1: ticket_id: Expected str, got int"),
    ("tickets.jsonl", '{"ticket_id":"PAY-1","labels":["a",1]}', "row 1: labels: Expected str, got int"),
    ("pull_requests.jsonl", '{"pr_id":"r!1","repo":"r","number":"1"}', "row 1: number: Expected int, got str"),
    ("tickets.csv", "ticket_id,estimate\nPAY-1,big", "row 2: estimate: Expected float, got str"),
    ("tickets.jsonl", '{"ticket_id":"PAY-1","reopened_count":-1}', "row 1: reopened_count: Expected int >= 0"),
    ("tickets.jsonl", '{"ticket_id":"PAY-1","done_at":"soon"}', 'row 1: done_at: "soon" is no time: write 2026-11-25T'),
    ("tickets.csv", "ticket_id,done_at\nPAY-1,0001-01-01T00:00:00+05", "row 2: done_at: "),
    ("tickets.jsonl", '{"ticket_id":"PAY-1","done_at":5}', "row 1: done_at: Expected datetime, got int"),
    ("tickets.csv", 'ticket_id,labels\nPAY-1,"[1]"', 'row 2: labels: "[1]" is no list of texts'),
    (
        "tickets.csv",
        "ticket_id,status_category\nPAY-1,doing",
        'row 2: status_category: "doing" is none of todo, in_progress, done',
    ),
    (
        "pr_tickets.csv",
        "pr_id,ticket_id,source\nr!1,PAY-1,guess",
        'row 2: source: "guess" is none of tracker, title, branch, body_close, commit, body_mention',
    ),
    ("tickets.jsonl", '{"ticket_id":"a\\u0000b"}', "row 1: ticket_id: must be printable text without blanks around it"),
    ("pull_requests.jsonl", '{"pr_id":"r!2","repo":"r","number":1}', "row 1: pr_id is repository and number, here r!1"),
    ("tickets.csv", "ticket_id\nPAY-1\nPAY-2\nPAY-1", "row 4: PAY-1 stands in row 2 already"),
    (
        "pr_tickets.csv",
        "pr_id,ticket_id,source\nr!1,A-1,title\nr!1,A-1,title",
        "row 3: r!1 and A-1 and title stands in row 2 already",
    ),
    ("tickets.jsonl", '{"ticket_id":"PAY-1"}\n{"ticket_id":"PA', "row 2: is no JSON object, or not a whole one"),
    ("tickets.jsonl", '["PAY-1"]', "row 1: is no JSON object, or not a whole one"),
    ("tickets.jsonl", "[" * 100_000, "row 1: is no JSON object, or not a whole one"),
    ("tickets.csv", "ticket_id,title\nPAY-1,a\nPAY-2", "row 3: has 1 cells, the header has 2"),
    ("tickets.csv", 'ticket_id,title\nPAY-1,a\nPAY-2,"b\n', "row 3: is not CSV: unexpected end of data"),
    ("tickets.csv", b"ticket_id,title\nPAY-1,\xff\xfe", "row 2: is not UTF-8 text"),
    ("tickets.jsonl", b'{"ticket_id":"PAY-1","title":"\xff\xfe"}', "row 1: is no JSON object, or not a whole one"),
    ("tickets.parquet", b"PAR1 and so on", "cannot be read as Parquet: "),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "says"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems = files.Problems(path)
    try:
        rows = [*files.read(path, path.stem, problems)]
        assert len(problems) == 1
        assert len(rows) <= 2
    except UserError as error:
        problems.lines = str(error).splitlines()
    [line] = problems.lines
    assert line.startswith(f"{path} {says}" if says.startswith("row") else f"{path}: {says}")


def test_with_one_wrong_row_nothing_is_imported(run: Run) -> None:
    paths = [str(write(Path(name), [{"sha": "a", "repo": "r"}])) for name in ("commits.jsonl",)]
    Path("tickets.csv").write_text("ticket_id,estimate\nPAY-1,1\nPAY-2,big\n")
    code, out, errors = run(*paths, "tickets.csv")
    assert (code, out) == (1, "")
    assert errors.splitlines() == [
        "tickets.csv row 3: estimate: Expected float, got str",
        "Nothing was imported; --skip-bad leaves out what is wrong.",
    ]
    assert rows_of("commits") + rows_of("tickets") == []
    assert not work.tracker_file(Path("data")).exists()
    assert list(Path("data/work").glob("*.incoming")) == []


def test_what_is_wrong_is_left_out_and_counted_by_reason(run: Run) -> None:
    rows: list[str] = [
        '{"ticket_id":"PAY-1","titel":"x"}',
        '{"ticket_id":"PAY-2","estimate":"x","titel":"y"}',
        '{"ticket_id":"PAY-1"}',
        "{}",
        '{"ticket_id":"PAY-3","status_category":"x"}',
        '{"ticket_id":"PAY-4"',
    ]
    Path("tickets.jsonl").write_text("\n".join(rows))
    code, out, errors = run("tickets.jsonl", "--skip-bad", "--json")
    assert (code, errors) == (0, "")
    [told] = json.loads(out)["tables"]
    assert told["new"] == 1
    assert told["left_out_columns"] == ["titel"]
    assert told["left_out_rows"] == dict.fromkeys(
        ["wrong type", "duplicate key", "missing key", "wrong value", "unreadable"], 1
    )
    assert ids() == ["PAY-1"]
    assert rows_of("projects") == [{"project": "PAY", "synced_at": None}]  # not all of them were read
    first = run("tickets.jsonl", "--skip-bad")[1].splitlines()[0]
    assert first.startswith("tickets: 0 new, 0 changed, 1 same; left out: 1 rows (wrong type), 1 rows (duplicate key)")
    assert first.endswith("1 rows (unreadable), the column titel")


def test_only_the_first_problems_are_shown(run: Run) -> None:
    Path("tickets.jsonl").write_text("{}\n" * 25)
    _, _, errors = run("tickets.jsonl")
    assert len(errors.splitlines()) == files.SHOWN + 2
    assert errors.splitlines()[-2] == "… and 15 more"


def test_a_damaged_parquet_file_is_refused_whole(run: Run) -> None:
    with duckdb.connect() as db:
        rows = db.sql("SELECT 'PAY-' || range AS ticket_id, sha256(range::VARCHAR) AS title FROM range(1, 60000)")
        rows.write_parquet("tickets.parquet", row_group_size=10_240, compression="zstd")
    whole = Path("tickets.parquet").read_bytes()
    damaged = len(whole) * 3 // 4
    Path("tickets.parquet").write_bytes(whole[:damaged] + bytes(50_000) + whole[damaged + 50_000 :])
    for options in ([], ["--skip-bad"]):
        code, out, errors = run("tickets.parquet", *options)
        assert (code, out, errors.count("\n")) == (1, "", 1)
        assert errors.startswith("tickets.parquet: cannot be read as Parquet: ")
    assert ids() == []


def test_files_are_named_like_their_tables(run: Run) -> None:
    for name in ("people.csv", "tickets.xlsx", "tickets", "projects.csv"):
        Path(name).touch()
        code, _, errors = run(name)
        assert (code, errors.count("\n")) == (1, 1)
        assert f"name the file like its table and format: {', '.join(files.TABLES)}, each .csv" in errors
    assert run("tickets.csv", "tickets.jsonl")[0] == 2
    for name in ("tickets.csv", "tickets.jsonl", "tickets.parquet"):
        assert run(name)[2] == f"{name}: cannot be read: No such file or directory\n"
    assert run("tickets.csv", "--data", "nowhere")[2].startswith("there is no data folder nowhere")
    assert run()[0] == 2


# -- while others read and write ---------------------------------------------------------------------------------------


def test_who_has_the_views_open_sees_the_new_rows_and_misses_no_file(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    def counted() -> list[int]:
        names = ("tickets", "pull_requests", "pr_tickets", "commits", "projects", "ticket_names", "pr_evidence")
        return [db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names]  # type: ignore[index]

    assert counted() == [0] * 7
    own = work.Commit(sha="a", repo="r")
    know(data, "PAY-1", prs=[pull(46)], pulls={"acme/shop!46": ["PAY-1"]}, commits=[own])
    assert counted() == [1] * 7
    for number in range(10):
        know(data, f"PAY-{number + 1}")
        assert counted()[0] == number + 1
    work.table_file(data, "pull_requests").unlink()
    assert counted() == [10, 0, 1, 1, 1, 10, 0]


def test_a_table_of_an_earlier_version_has_empty_columns(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    for file in ("tickets.parquet", "anchor/tickets.parquet"):
        with duckdb.connect() as other:
            other.sql("SELECT 'PAY-1' AS ticket_id, 'x' AS title").write_parquet(str(data / "work" / file))
    lake.publish(data)
    assert rows_of("tickets", data)[0] | {"labels": None} == dict.fromkeys(work.TABLES["tickets"].columns) | {
        "ticket_id": "PAY-1", "title": "x",
    }  # fmt: skip
    know(data, "PAY-1", "PAY-2")
    assert len(rows_of("tickets", data)) == 2


def test_a_project_may_get_any_name(data: Path) -> None:
    know(data, work.Ticket(ticket_id="acme/shop#1", project="acme/shop"), prs=[pull(2)])
    name = 'acme/"\\1\\g<9>'
    work.rename(data, "acme/shop", name)
    assert [(row["ticket_id"], row["project"], row["aliases"]) for row in rows_of("tickets", data)] == [
        (f"{name}#1", name, ["acme/shop#1"])
    ]
    work.rename(data, name, "acme/store")
    assert [row["pr_id"] for row in rows_of("pull_requests", data)] == ["acme/store!2"]


def _import_on(data: str, project: str) -> None:
    number = 0
    while True:
        number += 1
        know(Path(data), *(f"{project}-{each}" for each in range(1, number * 20)))


def test_killed_at_any_moment_tables_stay_whole_and_nothing_stored_is_lost(data: Path) -> None:
    moments, most = random.Random(20261123), 0
    for _ in range(3):
        with (
            _process(target=_import_on, args=(str(data), "PAY")) as one,
            _process(target=_import_on, args=(str(data), "OPS")),
        ):
            time.sleep(moments.uniform(1, 2))
            assert one.pid is not None
            os.kill(one.pid, signal.SIGKILL)
        with analytics.open(data) as db:
            rows = db.execute("SELECT count(*) FROM tickets").fetchone()
        assert rows is not None
        assert rows[0] >= most
        most = rows[0]
    know(data, "PAY-100000", "OPS-100000")
    assert len(rows_of("tickets", data)) == most + 2
    assert {row["project"] for row in rows_of("projects", data)} == {"PAY", "OPS"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_what_root_imports_is_the_folders_owners(data: Path) -> None:
    nobody = 65534
    for path in [data, *data.rglob("*")]:
        os.chown(path, nobody, nobody)
    know(data, "PAY-1")
    assert {path.stat().st_uid for path in data.rglob("*") if path.suffix != ".duckdb"} == {nobody}


# -- what the gateway is told ------------------------------------------------------------------------------------------


def told(data: Path) -> Snapshot:
    tracker = Tracker(data)
    tracker.refresh()
    return tracker.now


def test_the_gateway_is_told_of_tickets_and_of_what_leads_to_them(data: Path) -> None:
    done = work.Ticket(ticket_id="PAY-9", aliases=["OLD-5"], status_category="done", updated_at=hours(0))
    know(data, work.Ticket(ticket_id="OLD-5", updated_at=hours(-9)))
    know(
        data, done, work.Ticket(ticket_id="PAY-123", status_category="in_progress"), "acme/shop#45",
        prs=[
            pull(46, "fix-rounding"),
            pull(47, "old", merged_at=hours(-1)),
            pull(48, "fix-rounding", created_at=hours(5)),  # opened later, for the same branch
            pull(49, "develop"),
            pull(50, "next", base_branch="next"),
            pull(51, "nothing"),
            pull(7, "work", repo="group/app", url="https://gitlab.example/group/app/-/merge_requests/7"),
            pull(8, "tea", repo="acme/tea", url="https://git.example/acme/tea/pulls/8"),
        ],
        pulls={
            **{f"acme/shop!{number}": ["PAY-123"] for number in (46, 49, 50)},
            "acme/shop!47": ["OLD-5", "PAY-123"],
            "acme/shop!48": ["PAY-9"],
            "group/app!7": ["PAY-123"],
            "acme/tea!8": ["XYZ-1"],
        },
        links=[work.PrTicket(pr_id="acme/shop!51", ticket_id="PAY-123", source="body_mention")],
        commits=[
            work.Commit(sha=sha, repo="acme/shop", pr_id=f"acme/shop!{number}", tickets=["PAY-9"])
            for sha, number in {"aaa": 46, "bbb": 47, "ccc": 49, "ddd": 51}.items()
        ],
        synced=hours(30),
    )  # fmt: skip
    assert told(data) == Snapshot(
        synced_us=int((NOON + timedelta(hours=30)).timestamp()) * 1_000_000,
        tickets={"PAY-9": "closed", "PAY-123": "open", "acme/shop#45": "open"},
        aliases={"OLD-5": "PAY-9"},
        pulls={
            "acme/shop#46": ("PAY-123",),
            "acme/shop#47": ("PAY-123", "PAY-9"),
            "acme/shop#48": ("PAY-9",),
            "acme/shop#49": ("PAY-123",),
            "acme/shop#50": ("PAY-123",),
            "acme/shop#51": (),
            "acme/tea#8": ("XYZ-1",),
        },
        branches={
            "acme/shop": {"fix-rounding": ("PAY-123",)},
            "group/app": {"work": ("PAY-123",)},
            "acme/tea": {"tea": ("XYZ-1",)},
        },
        commits={"aaa": ("PAY-123",)},
    )


def test_the_gateway_is_told_anew_by_each_import_and_never_by_half(run: Run, data: Path) -> None:
    write(Path("commits.jsonl"), [{"sha": "a", "repo": "r"}])
    assert run("commits.jsonl")[0] == 0
    assert told(data) == Snapshot()
    write(Path("tickets.jsonl"), [{"ticket_id": "PAY-1"}])
    assert run("tickets.jsonl")[0] == 0
    assert (told(data).partial, told(data).synced_us) == (["PAY"], 0), "it may not be all that there are"
    before = time.time_ns() // 1000
    assert run("tickets.jsonl", "--complete")[0] == 0
    first = told(data)
    assert (first.tickets, first.partial) == ({"PAY-1": "open"}, [])
    assert before <= first.synced_us <= time.time_ns() // 1000
    assert run("commits.jsonl")[0] == 0
    assert told(data).synced_us == first.synced_us
    assert run("tickets.jsonl", "--complete")[0] == 0
    assert told(data).synced_us > first.synced_us
    assert [path.name for path in (data / "work").glob("*.tmp")] == []


# -- recorded payloads -------------------------------------------------------------------------------------------------

RECORDED = os.environ.get("OUTLAY_WORK_DATA")
needs_recordings = pytest.mark.skipif(
    RECORDED is None, reason="needs recorded payloads of trackers (OUTLAY_WORK_DATA names their folder)"
)


def recorded(name: str) -> list[dict[str, str]]:
    csv.field_size_limit(2**26)
    with (Path(RECORDED or "") / "devlake" / f"{name}.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@needs_recordings
def test_recorded_issues_and_pull_requests_are_linked(run: Run, data: Path) -> None:
    issues = [json.loads(row["data"]) for row in recorded("_raw_github_api_issues")]
    prs = [json.loads(row["data"]) for row in recorded("_raw_github_api_pull_requests")]
    commits = [(row["url"], json.loads(row["data"])) for row in recorded("_raw_github_api_pull_request_commits")]
    repo = "panjf2000/ants"
    tickets = {
        f"{repo}#{each['number']}": {
            "ticket_id": f"{repo}#{each['number']}", "source": "github", "project": repo, "title": each["title"],
            "status": each["state"], "status_category": "done" if each["state"] == "closed" else "todo",
            "labels": [label["name"] for label in each["labels"]], "created_at": each["created_at"],
            "done_at": each["closed_at"], "updated_at": each["updated_at"], "url": each["html_url"],
        }
        for each in issues if "pull_request" not in each
    }  # fmt: skip
    pulls = {
        each["number"]: {
            "pr_id": f"{repo}!{each['number']}", "repo": repo, "number": each["number"],
            "author": each["user"]["login"], "title": each["title"],
            "head_branch": each["head"]["ref"], "base_branch": each["base"]["ref"],
            "created_at": each["created_at"], "merged_at": each["merged_at"], "closed_at": each["closed_at"],
            "url": each["html_url"],
        }
        for each in prs
    }  # fmt: skip
    closing = {
        (each["number"], found)
        for each in prs
        for found in re.findall(r"(?i)\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):? #(\d+)", each["body"] or "")
    }
    links = [
        {"pr_id": f"{repo}!{number}", "ticket_id": f"{repo}#{issue}", "source": "body_close"}
        for number, issue in closing
    ]
    own = {
        each["sha"]: {
            "sha": each["sha"], "repo": repo, "author": each["commit"]["author"]["name"],
            "committed_at": each["commit"]["committer"]["date"],
            "message_subject": each["commit"]["message"].split("\n")[0],
            "pr_id": f"{repo}!{url.partition('/pulls/')[2].partition('/')[0]}",
        }
        for url, each in commits
    }  # fmt: skip
    paths = [
        write(Path("tickets.jsonl"), tickets.values()), write(Path("pull_requests.csv"), pulls.values()),
        write(Path("pr_tickets.parquet"), links), write(Path("commits.jsonl"), own.values()),
    ]  # fmt: skip
    code, out, errors = run(*map(str, paths))
    assert (code, errors) == (0, "")
    assert out.splitlines()[:2] == [
        f"tickets: {len(tickets)} new, 0 changed, 0 same", f"pull_requests: {len(pulls)} new, 0 changed, 0 same",
    ]  # fmt: skip
    assert len(links) >= 5
    snapshot = told(data)
    assert snapshot.pulls == {
        f"{repo}#{number}": tuple(sorted(f"{repo}#{issue}" for n, issue in closing if n == number)) for number in pulls
    }
    still_open = {number for number, each in pulls.items() if each["closed_at"] is None}
    with analytics.open(data) as db:
        assert (
            dict(db.execute("SELECT number, branch FROM pr_evidence WHERE ended_at IS NULL").fetchall()).keys()
            == still_open
        )
    assert set(snapshot.commits) <= {
        sha for sha, each in own.items() if int(str(each["pr_id"]).split("!")[1]) in still_open
    }
    # A call on the branch of a merged pull request, before that was merged.
    number, issue = next((n, i) for n, i in sorted(closing) if pulls[n]["head_branch"] not in ("master", "develop"))
    at = datetime.fromisoformat(pulls[number]["created_at"]) + timedelta(minutes=1)
    segment(data, [call(at, ticket_source="none", repo=repo, branch=pulls[number]["head_branch"])], at=at)
    assert "branch" in run(*map(str, paths))[1]
    with analytics.open(data) as db:
        assert db.execute("SELECT ticket_id, ticket_source FROM calls").fetchall() == [(f"{repo}#{issue}", "branch")]


@needs_recordings
def test_links_of_the_linker_plugin_lead_calls_to_its_issues(run: Run, data: Path) -> None:
    repo = "apache/incubator-devlake"
    issues = [row for row in recorded("linker_issues") if row["id"].startswith("github:GithubIssue:1:")]
    write(
        Path("tickets.csv"),
        [
            {
                "ticket_id": f"{repo}#{row['issue_key']}", "title": row["title"], "status": row["status"],
                "status_category": row["status"].lower(), "created_at": row["created_date"], "url": row["url"],
            }
            for row in issues
        ],
    )  # fmt: skip
    prs = recorded("linker_pull_requests")
    write(
        Path("pull_requests.csv"),
        [
            {
                "pr_id": f"{repo}!{row['pull_request_key']}", "repo": repo, "number": row["pull_request_key"],
                "title": row["title"], "head_branch": row["head_ref"], "base_branch": row["base_ref"],
                "created_at": row["created_date"], "closed_at": row["closed_date"], "url": row["url"],
            }
            for row in prs
        ],
    )  # fmt: skip
    links = {(row["pull_request_key"], row["issue_key"]) for row in recorded("linker_pull_request_issues")}
    write(
        Path("pr_tickets.csv"),
        [{"pr_id": f"{repo}!{pr}", "ticket_id": f"{repo}#{issue}", "source": "title"} for pr, issue in sorted(links)],
    )
    at = datetime.fromisoformat(prs[0]["created_date"] + "+00:00")
    segment(data, [call(at, ticket_source="none", repo=repo, branch=row["head_ref"]) for row in prs], at=at)
    assert run("tickets.csv", "pull_requests.csv", "pr_tickets.csv")[0] == 0
    with analytics.open(data) as db:
        found = db.execute("SELECT branch, unnest(tickets) FROM calls").fetchall()
    branches = {row["pull_request_key"]: row["head_ref"] for row in prs}
    assert set(found) == {(branches[pr], f"{repo}#{issue}") for pr, issue in links}
