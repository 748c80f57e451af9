"""The models: order, comments, columns as in the contract; money exact and conserved."""

import re
from collections.abc import Iterator
from decimal import Decimal
from graphlib import CycleError
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics
from analytics import build, lake, verifying
from gateway.call import NANO, Call
from tests.journals import call, segment

ADDED = ["recorded_at", "segment", "day"]


def model(name: str, sql: str) -> build.Model:
    return build.Model(name, "", {}, sql)


# -- the runner ----------------------------------------------------------------------------------------------------


def test_references_are_those_of_the_parser() -> None:
    sql = """
    -- FROM comment
    WITH own AS (SELECT 'FROM literal' AS x FROM one)
    SELECT * FROM own JOIN two USING (x) WHERE x IN (SELECT x FROM three) UNION ALL FROM four
    """
    with duckdb.connect() as db:
        assert build.references(db, sql) == {"own", "one", "two", "three", "four"}
        with pytest.raises(ValueError, match="syntax error"):
            build.references(db, "SELEKT")


def test_models_are_built_in_the_order_of_their_references() -> None:
    models = {m.name: m for m in (model("a", "FROM b"), model("b", "FROM c"), model("c", "SELECT 1 AS x"))}
    with duckdb.connect() as db:
        assert [m.name for m, _ in build.in_order(db, models)] == ["c", "b", "a"]
        with pytest.raises(CycleError):
            build.in_order(db, models | {"c": model("c", "FROM a")})


def test_a_column_is_described_by_its_own_file_or_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "first.sql").write_text("-- First's rows.\n-- @x: It's x\n-- @y: Is y\nSELECT 1 AS x, 2 AS y\n")
    (tmp_path / "second.sql").write_text("-- Second's rows.\n-- @y: Is another y\nSELECT x, 1 - y AS y FROM first\n")
    with duckdb.connect() as db:
        build.describe_views(db, build.create_sound_views(db, tmp_path, build.load(tmp_path)))
        described = db.execute("SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal")
        assert set(described.fetchall()) == {
            ("first", "x", "It's x"),
            ("first", "y", "Is y"),
            ("second", "x", "It's x"),
            ("second", "y", "Is another y"),
        }


# -- the schema ----------------------------------------------------------------------------------------------------


def test_every_relation_and_column_is_described(db: duckdb.DuckDBPyConnection) -> None:
    views = dict(db.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
    assert views.keys() == build.load().keys()
    assert [name for name, comment in views.items() if not re.search(r"One row per", comment or "")] == []
    columns = db.execute("SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal").fetchall()
    assert [(table, column) for table, column, comment in columns if not comment] == []
    described = {(name, column) for name, m in build.load().items() for column in m.columns}
    assert described - {(table, column) for table, column, _ in columns} == set()


def test_calls_has_the_fields_of_the_record_in_their_order(db: duckdb.DuckDBPyConnection) -> None:
    columns = {row[0]: row[1] for row in db.execute("DESCRIBE calls").fetchall()}
    renamed = {"started_us": "started_at"}
    fields = [
        renamed.get(f.name, f.name.replace("_nano", "_usd") if f.name.endswith("_nano") else f.name)
        for f in msgspec.structs.fields(Call)
    ]
    assert list(columns) == fields + ADDED
    assert {t for name, t in columns.items() if name.endswith("_usd")} == {"DECIMAL(18,9)"}
    assert {name: columns[name] for name in ("started_at", "tickets", "other_units", "stream", "attempt", "day")} == {
        "started_at": "TIMESTAMP",
        "tickets": "VARCHAR[]",
        "other_units": "MAP(VARCHAR, DOUBLE)",
        "stream": "BOOLEAN",
        "attempt": "INTEGER",
        "day": "DATE",
    }


def test_every_field_arrives_in_its_column(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    values: dict[str, object] = {}
    for number, f in enumerate(msgspec.structs.fields(Call), 1):
        kind = str(f.type)
        if "tuple" in kind:
            values[f.name] = (f"{f.name}-1", f"{f.name}-2")
        elif "dict" in kind:
            values[f.name] = {"pages": 1.5}
        elif "bool" in kind:
            values[f.name] = True
        elif "int" in kind and "Literal" not in kind:
            values[f.name] = number
        else:
            values[f.name] = f.name
    segment(data, [Call(**values)])  # type: ignore[arg-type]
    result = db.execute("SELECT * EXCLUDE (started_at, recorded_at, segment, day), epoch_us(started_at) FROM calls")
    row = result.fetchone()
    expected = [
        Decimal(v) / NANO if name.endswith("_nano") and isinstance(v, int) else list(v) if isinstance(v, tuple) else v
        for name, v in values.items()
        if name != "started_us"
    ]
    assert list(row or ()) == [*expected, values["started_us"]]


def test_lists_are_never_null_and_nothing_billed_is_zero(data: Path, db: duckdb.DuckDBPyConnection) -> None:
    refused = call(call_id="refused", price_status=None, list_cost_nano=None, result="refused", refusal="forbidden")
    unpriced = call(
        call_id="unpriced", price_status="unpriced", list_cost_nano=None, ticket_id="PAY-1", tickets=("PAY-1",)
    )
    segment(data, [refused, unpriced])
    rows = db.execute(
        "SELECT call_id, list_cost_usd, tickets, ticket_candidates FROM calls ORDER BY call_id"
    ).fetchall()
    assert rows == [("refused", Decimal(0), [], []), ("unpriced", None, ["PAY-1"], [])]
    summed = "SELECT sum(unpriced_calls), sum(calls), sum(list_cost_usd) FROM {}"
    assert db.execute(summed.format("spend_daily")).fetchone() == (1, 2, Decimal(0))
    assert db.execute(summed.format("price_coverage")).fetchone() == (1, 2, Decimal(0))
    assert db.execute(summed.format("ticket_costs")).fetchone() == (1, 1, Decimal(0))


@pytest.mark.parametrize("nano", [0, 1, 999_999_999_999_999_999])
def test_amounts_are_exact(data: Path, db: duckdb.DuckDBPyConnection, nano: int) -> None:
    segment(data, [call(list_cost_nano=nano, provider_cost_nano=10**18)])
    row = db.execute("SELECT list_cost_usd, provider_cost_usd FROM calls").fetchone()
    assert row == (Decimal(nano) / NANO, None)  # what fits no column hides no row


# -- the sums ------------------------------------------------------------------------------------------------------

CALLS = st.lists(
    st.tuples(
        st.integers(0, 10**12),
        st.lists(st.sampled_from(["PAY-1", "PAY-2", "acme/shop#45", "OPS-7"]), max_size=4),
        st.sampled_from([None, "ci", "eval"]),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from(["exact", "fallback", "unpriced", None]),
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, duckdb.DuckDBPyConnection]]:
    data = tmp_path_factory.mktemp("lasting")
    lake.publish(data)
    with analytics.open(data) as connection:
        yield data, connection


@settings(max_examples=4, deadline=None)
@given(CALLS)
def test_every_nano_dollar_is_in_exactly_one_place(
    lasting: tuple[Path, duckdb.DuckDBPyConnection],
    drawn: list[tuple[int, list[str], str | None, str | None, str | None]],
) -> None:
    data, db = lasting
    calls = [
        call(
            tickets=tuple(tickets),
            ticket_id=tickets[0] if tickets else None,
            purpose=purpose,
            team_id=team,
            price_status=status,
            list_cost_nano=nano if status in ("exact", "fallback") else None,
        )
        for nano, tickets, purpose, team, status in drawn
    ]
    expected: dict[str, int] = {}
    for each in calls:
        for position, ticket in enumerate(each.tickets):
            share, rest = divmod(each.list_cost_nano or 0, len(each.tickets))
            expected[ticket] = expected.get(ticket, 0) + share + (position < rest)
    path = segment(data, calls)
    try:
        found = dict(db.execute("SELECT ticket_id, list_cost_usd FROM ticket_costs").fetchall())
        assert {ticket: int(usd * NANO) for ticket, usd in found.items()} == expected
        assert verifying.verify(data).wrong == []
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        ("cost_parts", call(input_cost_nano=1)),
        ("unpriced", call(price_status="unpriced", list_cost_nano=5)),
        ("duplicates", call(call_id="twice")),
    ],
)
def test_checks_find_what_they_are_for(data: Path, db: duckdb.DuckDBPyConnection, check: str, wrong: Call) -> None:
    query = build.load(build.FOLDER / "checks")[check].sql
    segment(data, [call()])
    assert db.execute(query).fetchall() == []
    segment(data, [wrong, wrong], gateway_id="gw-2")
    assert db.execute(query).fetchall() != []


@pytest.mark.parametrize("check", ["conservation", "daily_sums"])
def test_sum_checks_find_a_missing_row(data: Path, check: str) -> None:
    segment(data, [call(tickets=("PAY-1",)), call()])
    models = build.load()
    for name in ("spend_daily", "ticket_costs"):
        models[name] = model(name, f"FROM ({models[name].sql}) LIMIT 0")
    with duckdb.connect() as db:
        query = build.load(build.FOLDER / "checks")[check]
        build.create_views(db, data, build.needed(db, models, {check: query}))
        assert len(db.execute(query.sql).fetchall()) == 1
