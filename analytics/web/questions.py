"""The SQL page: somebody's own query, confined (`analytics/sandbox.py`), and questions that are kept."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web

import analytics
from analytics import build, sandbox
from analytics.web import asking, tables
from analytics.web.visit import TOO_MANY, Download, Page, ProblemError, Visit, cannot_write
from gateway import lines

ROWS_MAX = 1000
SQL_MAX = 50_000
TOO_LONG = f"A query has at most {SQL_MAX:,} characters; this one was not run."
NAME_MAX = 120
FOLDER = build.FOLDER / "queries" / "questions"


class Event(msgspec.Struct, omit_defaults=True):
    """One line of `questions.jsonl` in the data folder."""

    event: Literal["save", "remove"]
    name: str
    by: str
    at: int
    sql: str = ""


def shipped() -> dict[str, str]:
    """Questions that come with Outlay, by what they ask."""
    found = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.sql"))]
    return {sql.partition("\n")[0].removeprefix("-- "): sql for sql in found}


def saved(data: Path) -> dict[str, Event]:
    """Those that people keep, by their names."""
    kept: dict[str, Event] = {}
    try:
        given = (data / "questions.jsonl").read_bytes()
    except FileNotFoundError:
        return kept
    for line in given.splitlines():
        try:
            event = lines.read(line, Event)
        except ValueError:
            continue  # of another version
        if event is not None:
            kept.pop(event.name, None)
            if event.event == "save":
                kept[event.name] = event
    return dict(sorted(kept.items()))


async def show(visit: Visit) -> web.Response:
    asked, relation = visit.request.query.get("question", ""), visit.request.query.get("relation", "")
    own = await asyncio.to_thread(saved, visit.console.data)
    if relation in build.load():
        described = await asyncio.to_thread(_columns, visit.console.data, relation)
        return _page(visit, own, f"SELECT *\nFROM {relation}\nLIMIT 100", relation=relation, described=described)
    sql = own[asked].sql if asked in own else shipped().get(asked, "")
    return _page(visit, own, sql, name=asked if asked in own else "")


def _columns(data: Path, relation: str) -> list[tuple[str, str, str | None]]:
    """Name, type and description of each, as the published views have them."""
    with analytics.open(data) as db:
        return db.execute(asking.text("console/relation_columns"), {"relation": relation}).fetchall()


async def open_(visit: Visit) -> web.Response:
    """Take a query to the page, without running it."""
    sql = visit.form.get("sql", "").replace("\r\n", "\n")
    return _page(
        visit, await asyncio.to_thread(saved, visit.console.data), sql, error=TOO_LONG if len(sql) > SQL_MAX else ""
    )


async def run(visit: Visit) -> web.Response:
    sql = visit.form.get("sql", "").replace("\r\n", "\n")
    own = await asyncio.to_thread(saved, visit.console.data)
    if not sql.strip():
        return _page(visit, own, sql, error="Write a query, or choose a question.")
    if len(sql) > SQL_MAX:
        return _page(visit, own, sql, error=TOO_LONG)
    is_csv, begun = "csv" in visit.form, time.monotonic()
    try:
        result = await sandbox.run(
            visit.console.data, sql, rows_max=tables.CSV_ROWS if is_csv else ROWS_MAX,
            seconds=visit.console.config.console.query_seconds,
        )  # fmt: skip
    except sandbox.SqlError as error:
        return _page(visit, own, sql, error=str(error))
    if is_csv and result.truncated:
        return _page(visit, own, sql, error=f"{TOO_MANY} The answer has more of them, or more than 32 MB.")
    if is_csv:
        raise Download(await asyncio.to_thread(tables.csv_of, tuple(result.columns), result.rows), "query")
    return _page(visit, own, sql, result=result, took=time.monotonic() - begun)


def _page(
    visit: Visit,
    own: dict[str, Event],
    sql: str,
    *,
    name: str = "",
    error: str = "",
    result: sandbox.Result | None = None,
    took: float = 0.0,
    relation: str = "",
    described: Sequence[tuple[str, str, str | None]] = (),
) -> web.Response:
    return visit.show(
        "sql.html", 422 if error else 200, sql=sql, name=name, error=error, result=result,
        took=took, shipped=shipped(), saved=own, rows_max=ROWS_MAX, why_off=sandbox.why_off(), relation=relation,
        described=described, relations=sorted(build.load().values(), key=lambda model: model.name),
    )  # fmt: skip


async def save(visit: Visit) -> web.Response:
    name, sql = " ".join(visit.form.get("name", "").split()), visit.form.get("sql", "").replace("\r\n", "\n").strip()
    if not name or not name.isprintable() or len(name) > NAME_MAX or name in shipped():
        raise ProblemError(400, "This was not kept", f"Give it a name of its own, of at most {NAME_MAX} characters.")
    if not sql or len(sql) > SQL_MAX:
        raise ProblemError(400, "This was not kept", f"A query has 1 to {SQL_MAX:,} characters.")
    await _write(visit, Event("save", name, visit.principal.key_id or "", int(time.time()), sql))
    raise web.HTTPSeeOther(visit.here("/sql", question=name))


async def remove(visit: Visit) -> web.Response:
    name = visit.form.get("name", "")
    if name not in await asyncio.to_thread(saved, visit.console.data):
        raise ProblemError(404, "No such question", "Somebody may have removed it already.")
    await _write(visit, Event("remove", name, visit.principal.key_id or "", int(time.time())))
    raise web.HTTPSeeOther("/sql")


async def _write(visit: Visit, event: Event) -> None:
    try:
        await asyncio.to_thread(lines.append, visit.console.data / "questions.jsonl", lambda: event)
    except OSError:
        raise cannot_write() from None


PAGES = [
    Page("GET", "/sql", "finops", show),
    Page("POST", "/sql", "finops", run),
    Page("POST", "/sql/open", "finops", open_),
    Page("POST", "/sql/save", "finops", save),
    Page("POST", "/sql/remove", "finops", remove),
]
