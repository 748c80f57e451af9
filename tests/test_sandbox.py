"""What somebody's SQL can do: read the views. Each fence alone, then all of them against every attack."""

import asyncio
import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from analytics import lake, landlock, sandbox, sandboxed
from tests.journals import NOON, Segment, call, segment

needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")

ATTACKS = [
    "COPY calls TO '{data}/x.csv'",
    "COPY (SELECT 1) TO '{data}/lake_state.csv'",
    "COPY (SELECT 1) TO '{data}/calls' (FORMAT parquet, PARTITION_BY a, OVERWRITE)",
    "WITH x AS (COPY (SELECT 1) TO '{data}/x.csv') SELECT * FROM x",
    "WITH x AS (SELECT 1), y AS MATERIALIZED (COPY x TO '{data}/journal/x.jsonl') FROM x",
    "SELECT (WITH x AS (COPY (SELECT 1 AS a) TO '{data}/x.csv') SELECT count(*) FROM x)",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1 AS a) TO '{data}/x.csv') FROM x) UNION ALL SELECT 1",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{data}/x.csv'",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{data}/x.csv') FROM x",
    "EXPORT DATABASE '{data}/x'",
    "ATTACH '{data}/x.duckdb'",
    "LOAD '{data}/keys.jsonl'",
    "SET VARIABLE as_of = now()",
    "FROM duckdb_secrets()",
    "FROM '/etc/passwd'",
    "FROM '{data}/keys.jsonl'",
    "FROM \"{data}/keys.jsonl\"",
    "FROM read_text('/etc/passwd')",
    "FROM read_blob('{data}/keys.jsonl')",
    "FROM read_text('{data}/journal/../keys.jsonl')",
    "FROM glob('../*')",
    "FROM query('FROM read_text(''/etc/passwd'')')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM calls WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "SUMMARIZE '/etc/passwd'",
    "FROM 'https://127.0.0.1:9/x.parquet'",
    "SELEKT 1",
]  # fmt: skip
"""Tried against all fences together."""

OTHERS = [
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{data}/x.csv'",
    "/* SELECT */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{data}/x.csv'",
    "COPY FROM DATABASE outlay TO memory",
    "IMPORT DATABASE '{data}'",
    "SELECT 1; COPY (SELECT 1) TO '{data}/x.csv'",
    "SELECT 1;;SELECT 2",
    "WITH x AS (DELETE FROM calls) SELECT * FROM x",
    "WITH x AS (INSERT INTO calls SELECT 1 RETURNING *) SELECT * FROM x",
    "CREATE TABLE memory.x AS SELECT 1",
    "CREATE OR REPLACE TEMP VIEW calls AS SELECT 1",
    "CREATE MACRO m() AS TABLE FROM read_text('/etc/passwd')",
    "ATTACH ':memory:' AS x",
    "ATTACH '{data}/outlay.duckdb' AS x (READ_ONLY)",
    "DETACH outlay",
    "USE memory",
    "INSTALL httpfs",
    "SET enable_external_access = true",
    "SET GLOBAL temp_directory = '{data}'",
    "RESET lock_configuration",
    "PRAGMA enable_profiling = 'json'",
    "PRAGMA profiling_output = '{data}/x.json'",
    "CALL enable_logging(storage = 'file', storage_path = '{data}')",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "FROM which_secret('s3://x', 's3')",
    "FROM duckdb_settings()",
    "FROM read_text('{data}/calls/../../*')",
    "FROM read_csv('{data}/budgets.jsonl')",
    "FROM read_csv('{data}/lake_state.csv')",
    "FROM read_json('{data}/journal/*.jsonl')",
    "FROM read_parquet('../**/*.parquet')",
    "FROM parquet_metadata('{data}/work/anchor/*.parquet')",
    "FROM glob('{data}/**')",
    "FROM sniff_csv('{data}/hash.key')",
    "FROM read_duckdb('{data}/outlay.duckdb')",
    "FROM query_table('/etc/passwd')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''/etc/passwd'')'))",
    "PRAGMA json_execute_serialized_sql('x')",
    "DESCRIBE FROM read_csv('/etc/passwd')",
    "SHOW '{data}/keys.jsonl'",
    "SELECT getenv('HOME')",
    "SELECT * FROM calls, LATERAL (FROM read_text(calls.call_id))",
    "FROM read_csv('http://127.0.0.1:9/x.csv')",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "FORCE CHECKPOINT outlay",
    "",
    "-- nothing",
]  # fmt: skip

ANSWERED = [
    "  -- how many\n SELECT count(*), max(now()) FROM outlay.main.calls -- all\n; -- so",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
    "DESCRIBE calls",
    "SUMMARIZE ticket_costs",
    "EXPLAIN ANALYZE FROM calls",
    "PIVOT calls ON team_id IN ('pay', 'ops') USING count(*)",
    "SELECT * FROM range(3) UNION ALL VALUES (1)",
    "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal",
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'calls'",
]


@pytest.fixture
def data(data: Path) -> Path:
    segment(data, [call(NOON, team_id="pay", tickets=("PAY-1", "PAY-2"), list_cost_nano=3_000_000_001)])
    (data / "keys.jsonl").write_text('{"digest": "top secret"}\n')
    (data / "hash.key").write_bytes(b"top secret")
    (data / "budgets.jsonl").write_text('{"name": "top secret"}\n')
    return data


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Each file: digest of its bytes, and when it was changed."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = state_of(folder)
    yield
    assert state_of(folder) == before


async def ask(data: Path, sql: str, rows_max: int = 100, seconds: float = 60, **options: bool) -> sandbox.Result:
    return await sandbox.run(data, sql, rows_max=rows_max, seconds=seconds, **options)


# -- answers -------------------------------------------------------------------------------------------------------


@needs_landlock
async def test_values_come_as_what_they_are(data: Path) -> None:
    result = await ask(
        data,
        "SELECT team_id, list_cost_usd, started_at, tickets, started_at::DATE AS day, sum(attempt) OVER () AS n, "
        "NULL AS nothing, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS at, {'a': 1.5} AS s, 'olk'::BLOB AS b FROM calls;",
    )
    assert result.rows == [
        (
            "pay", Decimal("3.000000001"), datetime(2026, 11, 20, 12), ["PAY-1", "PAY-2"], date(2026, 11, 20), 1, None,  # noqa: DTZ001
            "2026-01-01 00:00:00+00", {"a": "1.5"}, b"olk",
        )
    ]  # fmt: skip
    assert result.columns[:2] == ["team_id", "list_cost_usd"]
    assert result.types[:3] == ["VARCHAR", "DECIMAL(18,9)", "TIMESTAMP"]
    assert not result.truncated


@needs_landlock
async def test_values_that_python_has_not_are_text_or_said(data: Path) -> None:
    result = await ask(data, "SELECT DATE '0044-03-15 (BC)' AS d, TIMESTAMP '12000-01-01' AS t, 1::HUGEINT << 100 AS h")
    assert result.rows == [("0044-03-15 (BC)", "12000-01-01 00:00:00", 1 << 100)]
    for query, said in (
        ("SELECT 1 AS a, [1::HUGEINT << 100] AS b", "b has a number of more than 64 bits"),
        ("SELECT INTERVAL 100000000 YEAR", "a value is too large"),
    ):
        with pytest.raises(sandbox.SqlError, match=f"{said}.*CAST"):
            await ask(data, query)


def test_a_query_is_ended_before_others_when_memory_is_short() -> None:
    code = "from analytics import sandboxed\nsandboxed.give_up(60)\nprint(open('/proc/self/oom_score_adj').read())"
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert int(said.stdout) == 1000


@needs_landlock
async def test_what_reads_relations_is_answered(data: Path) -> None:
    with unchanged(data):
        for query in ANSWERED:
            assert (await ask(data, query)).rows, query


@needs_landlock
async def test_a_running_gateway_is_seen(data: Path) -> None:
    with Segment(data, NOON + timedelta(hours=1)) as written:
        written.close(call(NOON))
        assert (await ask(data, "SELECT count(*) FROM calls")).rows == [(2,)]


@needs_landlock
async def test_no_more_rows_than_asked_for(data: Path) -> None:
    result = await ask(data, "FROM range(1000000000)", rows_max=3)
    assert (result.rows, result.truncated) == ([(0,), (1,), (2,)], True)
    assert not (await ask(data, "FROM range(3)", rows_max=3)).truncated


@needs_landlock
async def test_no_more_bytes_than_an_answer_may_have(data: Path) -> None:
    result = await ask(data, "SELECT repeat('x', 10000000) FROM range(40)", rows_max=40)
    assert (len(result.rows), result.truncated) == (3, True)


# -- attacks -------------------------------------------------------------------------------------------------------


@needs_landlock
async def test_every_attack_is_refused_in_one_line_and_changes_nothing(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    at_once = asyncio.Semaphore(2)

    async def attack(query: str) -> None:
        async with at_once:
            with pytest.raises(sandbox.SqlError) as refused:
                raise AssertionError(query, await ask(data, query.replace("{data}", str(data))))
        assert str(refused.value).count("\n") == 0, query
        assert str(refused.value), query
        assert "top secret" not in str(refused.value), query

    around = data.parent
    with unchanged(around):
        await asyncio.gather(*map(attack, ATTACKS))
    assert not [record for record in caplog.records if "passwd" in record.getMessage() or "COPY" in record.getMessage()]


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as db:
        yield db


@pytest.mark.parametrize("query", [query for query in [*ATTACKS, *OTHERS] if "getenv" not in query])
def test_the_parser_alone_tells_them(parser: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises((sandboxed.NotAllowedError, duckdb.ParserException)):
        sandboxed.check(parser, query.replace("{data}", "/data"))


@needs_landlock
@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("open(data / 'keys.jsonl')", True),
        ("open('/etc/passwd')", True),
        ("open(data / 'journal' / 'x', 'w')", True),
        ("open(data / 'lake_state.csv', 'r+')", True),
        ("(data / 'lake_state.csv').unlink()", True),
        ("os.truncate(data / 'lake_state.csv', 0)", True),
        ("os.rename(data / 'lake_state.csv', data / 'work' / 'x')", True),
        ("os.symlink('/etc', data / 'work' / 'x')", True),
        ("os.execv('/bin/true', ['true'])", True),
        ("open(data / 'lake_state.csv').read()", False),
        ("os.listdir(data / 'journal')", False),
    ],
)
def test_the_kernel_alone_confines(data: Path, code: str, refused: bool) -> None:
    with unchanged(data):
        assert confined(data, code) is refused


@needs_landlock
def test_the_kernel_refuses_a_copy_that_duckdb_would_write(data: Path) -> None:
    def copy() -> bool:
        return confined(data, f"db.execute(\"COPY (SELECT 1) TO '{data}/journal/x.csv'\")", "duckdb.Error")

    with unchanged(data):
        assert copy()


@pytest.mark.skipif(landlock.version() < 4, reason="this kernel's Landlock does not know of TCP")
def test_the_kernel_refuses_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = []

        def connect() -> None:
            landlock.restrict([])
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except PermissionError as error:
                found.append(error)

        thread = threading.Thread(target=connect)  # confined alone, and for good
        thread.start()
        thread.join()
    assert found


def confined(data: Path, code: str, error: str = "PermissionError") -> bool:
    """True when what a confined process does is refused."""
    folders, files = sandbox.read_places()
    script = (
        f"import os, pathlib, sys, duckdb\nfrom analytics import sandboxed\ndata = pathlib.Path({str(data)!r})\n"
        f"db = duckdb.connect(config=sandboxed.SETTINGS)\nsandboxed.confine(data, {folders}, {files}, kernel=True)\n"
        f"try:\n    {code}\nexcept {error}:\n    os._exit(7)\nos._exit(0)\n"
    )
    ended = subprocess.run([sys.executable, "-I", "-c", script], env={}, cwd="/", stderr=subprocess.PIPE, check=False)
    assert ended.returncode in (0, 7), ended.stderr.decode()
    return ended.returncode == 7


@pytest.mark.parametrize(
    "query", ["FROM read_text('{data}/keys.jsonl')", "FROM glob('{data}/*')", "INSTALL x", "SET threads = 9"]
)
def test_duckdbs_settings_alone_confine_reading(data: Path, query: str) -> None:
    lake.publish(data)
    folders, files = sandbox.read_places()
    request = sandboxed.Request(str(data), folders, files, "", 1, 60, confined=False)
    with duckdb.connect(config=sandboxed.SETTINGS) as db:
        sandboxed.limit(db, sandboxed.confine(data, folders, files, kernel=False), request)
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (1,)
        with pytest.raises(duckdb.Error):
            raise AssertionError(db.execute(query.replace("{data}", str(data))).fetchall())


# -- limits --------------------------------------------------------------------------------------------------------


@needs_landlock
@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT count(*) FROM range(100000000) a, range(100000000) b", "took longer than 2 s"),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t", "took longer than"),
        ("SELECT list(a.range || repeat('x', 1000)) FROM range(100000000) a", "memory"),
        ("SELECT length(repeat('x', 1600000000))", "memory"),
        ("SELECT " + "(" * 100_000 + "1" + ")" * 100_000, "."),
    ],
)
async def test_what_takes_too_much_is_ended(data: Path, query: str, says: str) -> None:
    with unchanged(data), pytest.raises(sandbox.SqlError, match=says):
        await ask(data, query, seconds=20 if says == "memory" else 2)


@needs_landlock
async def test_many_at_once(data: Path) -> None:
    answers = await asyncio.gather(
        *(ask(data, "SELECT count(*) FROM calls") for _ in range(2 * sandbox.AT_ONCE)), return_exceptions=True
    )
    assert [each.rows for each in answers if isinstance(each, sandbox.Result)] == [[(1,)]] * sandbox.AT_ONCE
    assert {str(each) for each in answers if isinstance(each, sandbox.SqlError)} == {
        f"{sandbox.AT_ONCE} queries run already: ask again when one of them has ended"
    }
    assert (await ask(data, "SELECT 1")).rows == [(1,)]


@needs_landlock
async def test_who_asks_no_more_ends_the_query(data: Path) -> None:
    lake.publish(data)
    task = asyncio.create_task(ask(data, "SELECT count(*) FROM range(100000000) a, range(100000000) b"))
    while not (mine := queries()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while queries() & mine:
            await asyncio.sleep(0.01)


def queries() -> set[str]:
    """Processes that run a query for this one, which has other children, too: another test's browser, for one."""
    return {each.name for each in Path("/proc").glob("[0-9]*") if parent(each) == os.getpid() and is_query(each)}


def parent(process: Path) -> int:
    """0 of one that has ended meanwhile. (Field 4; in the name before it there may be spaces.)"""
    try:
        return int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def is_query(process: Path) -> bool:
    try:
        return sandboxed.__name__.encode() in (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_without_landlock_nobody_elses_query_runs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert "switched off" in (sandbox.why_off() or "")
    with pytest.raises(sandbox.SqlError, match="has no Landlock"):
        await ask(data, "SELECT 1")
    assert (await ask(data, "SELECT 1", own_rights=True)).rows == [(1,)]


@needs_landlock
async def test_a_file_that_was_retired_since_it_was_listed_can_be_read(data: Path) -> None:
    lake.publish(data)
    file, retired = data / "budgets" / "budgets.parquet", data / "retired" / "budgets-budgets.parquet"
    retired.parent.mkdir(exist_ok=True)
    file.rename(retired)
    file.symlink_to(f"../retired/{retired.name}")
    assert (await ask(data, "SELECT count(*) FROM budgets")).rows == [(0,)]


@needs_landlock
async def test_a_state_that_is_replaced_meanwhile_is_asked_again(data: Path) -> None:
    """What replaces it may not be read by who was confined before."""
    lake.publish(data)

    def replace() -> int:
        """As often as it goes, while the first process runs."""
        while not (first := queries()):
            time.sleep(0.001)
        times = 0
        while first <= queries():
            lake.write_state(data, lake.read_state(data))
            times += 1
        return times

    replacing = asyncio.create_task(asyncio.to_thread(replace))
    assert (await ask(data, "SELECT count(*) FROM calls")).rows == [(1,)]
    assert await replacing > 1
