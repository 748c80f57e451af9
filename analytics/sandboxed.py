"""What `analytics.sandbox` starts: one process that runs one query of somebody, and may do nothing else.

It reads a request from its standard input and answers on its standard output. Before it looks at the query, it gives up
what it does not need: files to write, programs to start, TCP, files to read but those of the views. Then DuckDB's own
parser says whether it is a single query that reads relations, and DuckDB's settings forbid again what the kernel
forbids.
"""

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from analytics import landlock
from analytics.again import is_passing

BYTES_MAX = 32 * 1024 * 1024
"""Of an answer."""
MEMORY = 1024 * 1024 * 1024
"""Of a query, as DuckDB counts."""
ADDRESSES = 4 * 1024 * 1024 * 1024
"""Of the process: DuckDB reserves more than it uses."""
WRITABLE = 1536 * 1024 * 1024
"""Memory of the process that is its own: what DuckDB counts not, as long lists and JSON, is within it, too."""
_DIES_WITH_PARENT = 1

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,  # only the thread that asks for it is confined, and those that it starts: here it is the only one
    "async_threads": 0,
    "memory_limit": f"{MEMORY >> 20}MiB",
    "temp_directory": "",
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}

QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""Parts of a parsed statement that only read. `WITH x AS (COPY … TO …)` has one that is none of these."""
FUNCTIONS = {
    "duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_tables", "duckdb_types", "duckdb_views",
    "generate_series", "icu_calendar_names", "json_each", "json_tree", "pg_timezone_names", "pragma_version", "range",
    "repeat", "repeat_row", "unnest",
}  # fmt: skip
"""Functions to select from that read no file and run no text as SQL."""
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?(?:\(\s*FORMAT\s+\w+\s*\)\s*)?(.*)", re.IGNORECASE | re.DOTALL)
AS_TEXT = "ask for it as text, CAST(… AS VARCHAR)"
ONLY = "only one query that reads relations runs here: SELECT, FROM, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN"


class Request(msgspec.Struct):
    """What to run, over what, and how long it may compute."""

    data: str
    folders: list[str]
    files: list[str]
    sql: str
    rows_max: int
    cpu_seconds: int
    confined: bool
    as_of: datetime | None = None
    views: list[str] = []
    """Statements that make those that hold as of then."""


class Answer(msgspec.Struct, omit_defaults=True):
    """Rows are encoded one by one, to know when there are too many bytes of them."""

    columns: list[str] = []
    types: list[str] = []
    rows: list[msgspec.Raw] = []
    truncated: bool = False
    error: str = ""
    moved: bool = False
    """A file was replaced while the query ran. If it is the state, what has replaced it may not be read: ask again."""


class NotAllowedError(Exception):
    """The query is none that runs here. Its text says what is."""


def main() -> None:
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    answering = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library says is no part of the answer
    try:
        answer = answer_to(request)
    except NotAllowedError as error:
        answer = Answer(error=str(error))
    except (duckdb.OutOfMemoryException, MemoryError):
        answer = Answer(error=f"the query needs more than {MEMORY >> 20} MB of memory: ask for less at once")
    except (OverflowError, ValueError) as error:
        answer = Answer(error=f"a value is too large to be given as it is, {' '.join(str(error).split())}: {AS_TEXT}")
    except duckdb.Error as error:
        message = " ".join(str(error).partition("\nLINE ")[0].split())
        answer = Answer(error=message, moved=_has_moved(error, message, request.data))
    out = memoryview(msgspec.msgpack.encode(answer))
    while out:
        out = out[os.write(answering, out) :]
    os._exit(0)


def _has_moved(error: duckdb.Error, message: str, data: str) -> bool:
    """Less than `again` asks again: here it takes another process, and for a mistake in the query it is in vain."""
    return is_passing(error) and (data in message or type(error) is duckdb.Error)


def answer_to(request: Request) -> Answer:
    """Raises `NotAllowedError`, `duckdb.Error`, `MemoryError`."""
    give_up(request.cpu_seconds)
    # While it starts, DuckDB reads what the system has of processors and memory, and aborts where it may not.
    with duckdb.connect(config=SETTINGS) as db:
        views = confine(Path(request.data), request.folders, request.files, kernel=request.confined)
        limit(db, views, request)
        check(db, request.sql)
        return _run(db, request)


def give_up(cpu_seconds: int) -> None:
    """To write files, to start programs, to leave a core dump, to outlive the parent, to compute for ever; and what
    wants for memory is ended before the gateway is."""
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    with contextlib.suppress(OSError):  # a /proc that cannot be written
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_DATA, (WRITABLE, WRITABLE))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))


def confine(data: Path, folders: list[str], files: list[str], *, kernel: bool) -> int:
    """Open the views; with the kernel's help, let nothing else be read than they and what they read. Gives their
    descriptor: the file may be replaced at any moment, and the new one must not be readable by name."""
    views = os.open(data / "outlay.duckdb", os.O_RDONLY)
    if kernel:
        # Files are written aside and renamed, so their folders are opened; not that of all, which has secrets.
        own = {data / name for name in files if "/" not in name}
        places = {data / name for name in folders} | {(data / name).parent for name in files if "/" in name}
        landlock.restrict([views, *(os.open(place, os.O_PATH) for place in places | own if place.exists())])
    return views


def limit(db: duckdb.DuckDBPyConnection, views: int, request: Request) -> None:
    """Forbid, in DuckDB's own terms, what the kernel forbids."""
    data = Path(request.data)
    db.execute("SET TimeZone = 'UTC'")
    db.execute(f"ATTACH '/proc/self/fd/{views}' AS outlay (READ_ONLY)")
    db.execute("USE outlay")
    if request.as_of is not None:
        db.execute("SET VARIABLE as_of = $as_of", {"as_of": request.as_of})
    for view in request.views:
        db.execute(view)
    db.execute("SET allowed_directories = $value", {"value": [f"{data / name}/" for name in request.folders]})
    db.execute("SET allowed_paths = $value", {"value": [str(data / name) for name in request.files]})
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def check(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raises `NotAllowedError` unless it is one statement that reads relations; `duckdb.Error` where it is no SQL."""
    statements = db.extract_statements(sql)
    if len(statements) != 1:
        raise NotAllowedError(ONLY if statements else "there is no query")
    text = statements[0].query
    if statements[0].type == duckdb.StatementType.EXPLAIN:
        explained = EXPLAIN.fullmatch(text)
        if explained is None:
            raise NotAllowedError("begin with EXPLAIN, EXPLAIN ANALYZE or EXPLAIN (FORMAT …), and the query after it")
        text = explained[1]
    row = db.execute("SELECT json_serialize_sql($sql)", {"sql": text}).fetchone()
    assert row is not None
    tree = msgspec.json.decode(row[0])
    if tree["error"]:
        raise NotAllowedError(f"SQL: {tree['error_message']}" if tree["error_type"] == "parser" else ONLY)
    for node in _nodes(tree):
        kind = node.get("type")
        if not isinstance(kind, str):
            continue
        if kind.endswith("_NODE") and kind not in QUERIES:
            raise NotAllowedError(ONLY)
        if kind in ("BASE_TABLE", "SHOW_REF") and re.search(r"[./\\*?\[:]", node["table_name"]):
            raise NotAllowedError("no files are read here: select from relations; SHOW TABLES lists them")
        if kind == "TABLE_FUNCTION":
            function = node["function"].get("function_name", "").lower()
            if function not in FUNCTIONS:
                raise NotAllowedError(f"{function} is not allowed here: select from relations; SHOW TABLES lists them")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _run(db: duckdb.DuckDBPyConnection, request: Request) -> Answer:
    result = db.execute(request.sql)
    columns = [(column[0], str(column[1])) for column in result.description or ()]
    if any("ZONE" in kind for _, kind in columns):
        # Python has no type for it without one more package; as text it is UTC.
        as_text = (f"CAST(#{i} AS VARCHAR)" if "ZONE" in kind else f"#{i}" for i, (_, kind) in enumerate(columns, 1))
        row = db.execute("SELECT json_deserialize_sql(json_serialize_sql($sql))", {"sql": request.sql}).fetchone()
        assert row is not None
        result = db.execute(f"SELECT {', '.join(as_text)} FROM ({row[0]})")  # noqa: S608 - it is that query
    answer = Answer([name for name, _ in columns], [kind for _, kind in columns])
    huge = [i for i, (_, kind) in enumerate(columns) if kind in ("HUGEINT", "UHUGEINT", "BIGNUM")]
    size = 0
    while row := result.fetchone():
        values = list(row)
        for i in huge:
            values[i] = None if values[i] is None else str(values[i])
        encoded = _encoded(answer.columns, values)
        size += len(encoded)
        if len(answer.rows) == request.rows_max or size > BYTES_MAX:
            answer.truncated = True
            break
        answer.rows.append(msgspec.Raw(encoded))
    return answer


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


def _encoded(columns: list[str], values: list[Any]) -> bytes:
    """Raises `NotAllowedError`, which names the column, where a list or the like has a number of more than 64 bits."""
    try:
        return _encode(values)
    except OverflowError:
        pass
    for name, value in zip(columns, values, strict=True):
        try:
            _encode(value)
        except OverflowError:
            raise NotAllowedError(f"{name} has a number of more than 64 bits in it: {AS_TEXT}") from None
    raise AssertionError(columns)


if __name__ == "__main__":
    main()
