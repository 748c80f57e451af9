"""The pages of the console over plain HTTP: sums are those of the ledger, each leads to its evidence and its SQL."""

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import date, timedelta
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

import analytics
from analytics import build, disk, findings
from analytics.web import asking, pages, questions, tables, visit
from gateway.config import Config, WasteSettings
from gateway.prices import load_prices
from tests import consoles
from tests.consoles import Viewer, looking, plain
from tests.journals import NOON, call, segment
from tests.trackers import know

ALL = "?period=all"
of_module = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Looked at, and not changed."""
    folder = tmp_path_factory.mktemp("console") / "data"
    consoles.make(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def viewer(made: Path) -> AsyncIterator[Viewer]:
    """Looks at one console for all tests: what was asked once is answered at once."""
    with pytest.MonkeyPatch.context() as patch:
        consoles.set_keys(patch)
        async with looking(consoles.config(made), "admin", base=asking.PAGES) as viewer:
            yield viewer


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    consoles.set_keys(monkeypatch)


# -- figures ----------------------------------------------------------------------------------------------------------


@of_module
async def test_the_overview_says_what_was_spent_and_what_is_not_in_it(viewer: Viewer) -> None:
    text = plain(await viewer.get(f"/{ALL}"))
    assert "Spend $3.90" in text
    assert "+ 1 call without a price" in text
    assert "6 calls" in text
    assert "For tickets $3.50" in text
    assert "delivered nothing $2.50" in text
    assert "For no ticket $0.30" in text
    assert "$0.10 declared overhead" in text
    assert "For tickets $3.50 89.7 % of it + 1 call without a price" in text
    assert "delivered nothing $2.50 + 1 call without a price" in text
    assert "delivered nothing $2.50" in plain(await viewer.get(f"/{ALL}&tickets.page=9"))


@pytest.mark.parametrize("asked", ["month=9999-12", "month=0001-01", "from=9999-12-31&to=9999-12-31", "to=0001-01-01"])
@of_module
async def test_a_calendar_ends_where_python_ends(viewer: Viewer, asked: str) -> None:
    for path in ("/", "/spend", "/waste"):
        await viewer.get(f"{path}?{asked}")


@of_module
async def test_names_of_strangers_are_text(viewer: Viewer) -> None:
    page = await viewer.get(f"/{ALL}")
    assert "<b>in</b>" not in page


@of_module
async def test_each_dimension_of_spend_sums_to_the_same(viewer: Viewer) -> None:
    for by in pages.DIMENSIONS:
        page = await viewer.get(f"/spend{ALL}&by={by}")
        table = page.partition(f'id="spend_by_{by}"')[2].partition("</table>")[0]
        last = plain(re.split("<tfoot>|<tbody>", table)[-1])  # a single row has no sum below it
        assert "$3.90 + 1 call without a price" in last, by
    assert consoles.rows(page, "spend_by_day")[0][0] == "2026-11-20"


@of_module
async def test_nothing_is_by_person(made: Path) -> None:
    async with looking(consoles.config(made), "admin") as viewer:
        for path in (f"/spend{ALL}&by=key", f"/tickets{ALL}", "/tickets/PAY-1", "/tasks/task%2Fone", f"/calls{ALL}"):
            page = await viewer.get(path)
            assert "ada" not in page.split("<main")[1].replace("metadata", "")
            assert "user_id" not in page
        page = await viewer.get(f"/spend{ALL}&by=user")
        assert 'id="spend_by_team"' in page
    assert [name for name in asking_files() if re.search(r"(?<!EXCLUDE \()user_id", uncommented(name))] == []


def asking_files() -> list[Path]:
    return sorted((build.FOLDER / "queries" / "console").glob("*.sql"))


def uncommented(file: Path) -> str:
    return re.sub(r"--.*", "", file.read_text(encoding="utf-8"))


@of_module
async def test_keys_stand_by_name_and_without_what_came_of_it(viewer: Viewer) -> None:
    page = await viewer.get(f"/spend{ALL}&by=key")
    assert [row[0] for row in consoles.rows(page, "spend_by_key")] == ["key_1", "key_2", "key_3"]
    assert "outcome" not in page.split("<main")[1]


@pytest.mark.parametrize("sort", ["-list_cost_usd", "list_cost_usd", "-calls", "-input_tokens", "-unpriced_calls"])
@of_module
async def test_nothing_ranks_keys(viewer: Viewer, sort: str) -> None:
    path = f"/spend{ALL}&by=key&spend_by_key.sort={sort}"
    page = await viewer.get(path)
    assert [row[0] for row in consoles.rows(page, "spend_by_key")] == ["key_1", "key_2", "key_3"]
    assert set(re.findall(r"spend_by_key\.sort=-?(\w+)#", page)) == {"key_id", "team_id"}
    assert re.findall(r'class="key s\d"></span>([^<]*)', page) == ["spend"]
    lines = list(csv.DictReader(io.StringIO(await viewer.get(f"{path}&csv=spend_by_key"))))
    assert [line["key_id"] for line in lines] == ["key_1", "key_2", "key_3"]


@of_module
async def test_what_spend_is_made_of_leads_to_a_page(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "today", lambda: date(2026, 11, 22))
    for by in ("team", "key", "model", "day"):
        page = await viewer.get(f"/spend?by={by}")
        links = re.findall(
            r'href="(/(?:calls|spend)[^"]*)"', page.partition('id="spend_by_')[2].partition("<tbody>")[2]
        )
        await viewer.get(unescape(links[0]))


@of_module
async def test_from_the_overview_to_the_evidence(viewer: Viewer) -> None:
    page = await viewer.get(f"/{ALL}")
    assert consoles.rows(page, "tickets")[0][0] == "PAY-2"
    page = await viewer.get(f"/tickets{ALL}&only=nothing")
    [row] = consoles.rows(page, "tickets")
    assert row[:5] == ["PAY-2", "$2.50 + 1 call without a price", "=cmd|' /C calc'!A0", "bug", "abandoned"]
    page = await viewer.get("/tickets/PAY-1")
    assert [row[0] for row in consoles.rows(page, "ticket_tasks")] == ["task/one"]
    assert consoles.rows(page, "ticket_pull_requests")[0][0] == "acme/shop!7"
    assert consoles.rows(page, "ticket_deployments")[0][:3] == ["acme/shop!7", "production", "success"]
    assert "deployed to production: success: acme/shop!7" in plain(page)
    assert 'href="https://tracker.example/PAY-1"' in page
    assert 'href="/tasks/task%2Fone"' in page
    page = await viewer.get("/tasks/task%2Fone")
    _, call_id = dict.fromkeys(re.findall(r'href="/calls/([0-9a-f-]{36})"', page))
    page = await viewer.get(f"/calls/{call_id}")
    text = plain(page)
    assert "the branch that the tool works on" in text
    assert "0.500000000 USD" in text
    assert "d" * 32 in text
    assert "W01" in text


@of_module
async def test_an_address_of_a_tracker_that_a_browser_would_run_is_no_link(viewer: Viewer) -> None:
    assert "javascript:" not in await viewer.get("/tickets/PAY-2")


@of_module
async def test_rows_without_a_name_lead_to_their_calls_too(viewer: Viewer) -> None:
    for by, leads, calls in (
        ("ticket", "for=no_ticket", 2),
        ("purpose", "purpose=(none)", 5),
        ("task", "task=(none)", 2),
    ):
        page = await viewer.get(f"/spend{ALL}&by={by}")
        assert "(none)" in [row[0] for row in consoles.rows(page, f"spend_by_{by}")]
        [address] = {unescape(each) for each in re.findall(r'<td><a href="([^"]+)">[(]none[)]', page)}
        assert leads in address
        assert len(consoles.rows(await viewer.get(address), "calls")) == calls, by


@of_module
async def test_a_filter_that_is_none_is_not_shown_as_one(viewer: Viewer) -> None:
    assert "Only those with" not in await viewer.get(f"/calls{ALL}&for=bogus")
    assert "for: no ticket and no declared purpose" in plain(await viewer.get(f"/calls{ALL}&for=nothing"))


@of_module
async def test_days_without_a_call_say_where_there_are_some(viewer: Viewer) -> None:
    for path in ("/?", "/spend?", "/tickets?only=nothing&", "/calls?"):
        page = await viewer.get(f"{path}from=2024-01-01&to=2024-01-31")
        assert "recorded from 2026-11-20 to 2026-11-20" in plain(page), path
        [address] = re.findall(r'href="([^"]+)">the last month with any', page)
        assert "recorded from" not in await viewer.get(unescape(address))


async def test_a_call_without_a_price_is_no_bar_and_no_amount(data: Path) -> None:
    ticket = "acme/a-repository-with-a-long-name-that-goes-on#1234567"
    segment(data, [call(NOON, tickets=(ticket,), ticket_id=ticket, list_cost_nano=None, price_status="unpriced")])
    async with looking(consoles.config(data), "viewer") as viewer:
        for path in ("/", "/spend", f"/tickets/{quote(ticket, safe='')}"):
            page = await viewer.get(f"{path}?from=2026-11-20&to=2026-11-20")
            assert "none of these calls has a price" in page, path
            assert "<svg" not in page, path
            assert "+ 1 call without a price" in page, path
        assert consoles.rows(await viewer.get("/calls?period=all"), "calls")[0][2] == "unpriced"


async def test_a_console_without_a_call_says_how_to_send_one(data: Path) -> None:
    async with looking(consoles.config(data), "viewer") as viewer:
        for path in ("/", "/spend", "/tickets", "/calls"):
            assert "No call is recorded yet. Send one: outlay run -- claude" in plain(await viewer.get(path)), path


@of_module
async def test_whoever_asks_is_shown_what_may_be_asked(viewer: Viewer) -> None:
    page = await viewer.get("/sql?relation=ticket_costs")
    assert "FROM ticket_costs" in page
    assert "before_start_usd DECIMAL(38,9) Part of list_cost_usd for calls before work" in plain(page)
    assert 'href="/sql?relation=calls"' in page
    assert "FROM duckdb_secrets" not in await viewer.get("/sql?relation=duckdb_secrets()")


@of_module
async def test_evidence_of_a_finding_is_in_words(viewer: Viewer) -> None:
    page = await viewer.get(f"/waste{ALL}")
    [path, *_] = re.findall(r'href="(/waste/[0-9a-f]{16})"', page)
    text = plain(await viewer.get(path))
    assert "What was found" in text
    for sign in ("['", "{'", "w01_", "call_ids:"):
        assert sign not in text, sign


@of_module
async def test_a_day_that_is_none_is_said(viewer: Viewer) -> None:
    text = plain(await viewer.get("/spend?from=2026-13-01"))
    assert "“2026-13-01” is no date: write it like 2026-11-01. Shown: Last 30 days." in text
    assert "is no date" not in plain(await viewer.get("/spend?from=2026-11-01&to="))


@pytest.mark.parametrize("path", ["/tickets/NO-1", "/tasks/nothing", "/calls/nothing", "/nowhere", "/static/x.css"])
@of_module
async def test_what_is_not_there_is_said(made: Path, path: str) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        assert "<h1>" in await viewer.get(path, 404)


@of_module
async def test_tables_are_sorted_filtered_and_paged_by_their_address(viewer: Viewer) -> None:
    page = await viewer.get(f"/spend{ALL}&by=team&spend_by_team.sort=list_cost_usd")
    assert [row[0] for row in consoles.rows(page, "spend_by_team")] == ["core", "payments"]
    assert 'aria-sort="ascending"' in page
    page = await viewer.get(f"/spend{ALL}&by=team&spend_by_team.q=PAY")
    assert [row[0] for row in consoles.rows(page, "spend_by_team")] == ["payments"]
    page = await viewer.get(f"/spend{ALL}&by=team&spend_by_team.page=9")
    assert "There are not so many" in page
    page = await viewer.get(f"/spend{ALL}&by=team&spend_by_team.q=%27%3B+DROP")
    assert "Nothing contains" in page


@pytest.mark.parametrize("sort", ["user_id", "nothing_such", "x; DROP TABLE calls", 'a"b', "-", "1"])
@of_module
async def test_nothing_sorts_by_what_a_table_has_not(made: Path, sort: str) -> None:
    async with looking(consoles.config(made), "viewer") as viewer:
        async with viewer.session.get(
            f"{viewer.url}/calls", params={"period": "all", "calls.sort": sort}, allow_redirects=False
        ) as response:
            assert response.status == (503 if sort in ("user_id", "nothing_such") else 200)


@of_module
async def test_csv_is_exact_and_no_formula(viewer: Viewer) -> None:
    async with viewer.session.get(f"{viewer.url}/tickets{ALL}&csv=tickets") as response:
        assert response.content_type == "text/csv"
        assert response.headers["Content-Disposition"] == 'attachment; filename="outlay-tickets.csv"'
        lines = list(csv.DictReader(io.StringIO(await response.text())))
    assert [(row["ticket_id"], row["list_cost_usd"]) for row in lines] == [
        ("PAY-2", "2.500000000"), ("PAY-1", "1.000000000"),
    ]  # fmt: skip
    assert lines[0]["title"] == "'=cmd|' /C calc'!A0"


@of_module
async def test_csv_that_would_be_cut_off_is_not_sent(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CSV_ROWS", 6)
    assert len((await viewer.get(f"/calls{ALL}&csv=calls")).splitlines()) == 7
    monkeypatch.setattr(tables, "CSV_ROWS", 5)
    assert "Too many rows" in await viewer.get(f"/calls{ALL}&csv=calls", 422)
    await viewer.get("/sql")
    assert "has more of them" in await viewer.post("/sql", 422, sql="FROM range(6)", csv="yes")


@of_module
async def test_the_sql_that_is_shown_gives_what_is_shown(viewer: Viewer) -> None:
    for path in (
        f"/{ALL}",
        f"/spend{ALL}&by=model",
        f"/tickets{ALL}&tickets.q=pay-1",
        "/tickets/PAY-1",
        f"/calls{ALL}",
    ):
        page = await viewer.get(path)
        shown = [
            unescape(each) for each in re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code></pre>", page, re.DOTALL)
        ]
        assert shown
        with analytics.open(viewer.folder) as db:
            for sql in shown:
                db.execute(sql).fetchall()
    with analytics.open(viewer.folder) as db:
        [sql] = shown
        assert len(db.execute(sql).fetchall()) == 6


@of_module
async def test_moments_are_shown_in_the_zone_that_a_viewer_chose(made: Path) -> None:
    async with looking(consoles.config(made, timezone="Europe/Berlin"), "viewer") as viewer:
        assert "2026-11-20 13:00" in await viewer.get(f"/calls{ALL}")
        assert await viewer.get("/zone?zone=America/New_York&next=/calls", 303) == ""
        page = await viewer.get(f"/calls{ALL}")
        assert "2026-11-20 07:00" in page
        assert 'value="America/New_York"' in page
        await viewer.get("/zone?zone=Mars/Base", 303)
        await viewer.get("/zone?zone=../../etc/passwd&next=//evil.example", 303)
        assert "2026-11-20 07:00" in await viewer.get(f"/calls{ALL}")
        assert "2026-11-20 21:00" in await viewer.get(f"/calls{ALL}&zone=Asia/Tokyo")


@of_module
async def test_coverage_says_what_is_unattributed_unpriced_and_estimated(viewer: Viewer) -> None:
    page = await viewer.get(f"/coverage{ALL}")
    text = plain(page)
    assert "Unattributed $0.30 7.7 % of $3.90 1 call" in text
    assert "Without a price 1 call of 6; in no sum, and not $0" in text
    assert "Usage estimated $0.30" in text
    [link] = re.findall(r'href="(/calls[^"]*)"><span>Usage estimated', page)
    assert len(consoles.rows(await viewer.get(unescape(link)), "calls")) == 1
    assert {row[2] for row in consoles.rows(page, "coverage_prices")} == {"unpriced", "exact"}
    [link] = set(re.findall(r'href="(/calls[^"]*price_status=unpriced[^"]*usage_source=reported)"', page))
    assert len(consoles.rows(await viewer.get(unescape(link)), "calls")) == 1
    assert [row[0] for row in consoles.rows(page, "coverage_untagged")] == ["core"]


@of_module
async def test_the_scorecard_shows_no_small_group(viewer: Viewer) -> None:
    page = await viewer.get(f"/scorecard{ALL}")
    assert re.search(r"<small>As of [-0-9]+ [0-9:]+</small>", page)
    sections = ("outcome", "cost", "flow", "durability")
    shown = {row[0] for name in sections for row in consoles.rows(page, f"scorecard_{name}")}
    assert shown == set()
    assert "groups are smaller than five builders" in page


@of_module
async def test_the_sql_page_answers_within_limits_and_writes_nothing(viewer: Viewer) -> None:
    await viewer.get("/sql")
    page = await viewer.post("/sql", 200, sql="SELECT ticket_id, list_cost_usd FROM ticket_costs ORDER BY 2 DESC")
    assert "2 rows" in plain(page)
    assert 'href="/tickets/PAY-2"' in page
    assert "$2.50" in page
    page = await viewer.post("/sql", 200, sql="SELECT '<i>' AS a FROM range(2000)")
    assert "1,000 rows, and there are more" in plain(page)
    assert "<i>" not in page
    before = sorted(path.name for path in viewer.folder.rglob("*"))
    for wrong in ("SELEC 1", "COPY calls TO 'x.csv'", "SELECT * FROM read_text('/etc/passwd')", "INSTALL httpfs", " "):
        page = await viewer.post("/sql", 422, sql=wrong)
        assert 'role="alert"' in page
        assert "root:" not in page
    assert sorted(path.name for path in viewer.folder.rglob("*")) == before
    assert (await viewer.post("/sql", 200, sql="SELECT 1.50 AS a", csv="yes")).splitlines() == ["a", "1.50"]


@of_module
async def test_the_sql_page_shows_moments_as_they_are_and_cuts_no_query(viewer: Viewer) -> None:
    await viewer.get("/sql")
    sql = "SELECT TIMESTAMP '2026-11-20 12:00:01' AS at, DATE '0044-03-15 (BC)' AS ides"
    page = await viewer.post("/sql?zone=Asia/Tokyo", 200, sql=sql)
    assert "2026-11-20 12:00:01" in page.partition("<tbody>")[2]
    assert "0044-03-15 (BC)" in page.partition("<tbody>")[2]
    for path in ("/sql", "/sql/open"):
        page = await viewer.post(path, 422, sql="SELECT 1 -- " + "x" * questions.SQL_MAX)
        assert "at most 50,000 characters" in page
        [after] = re.findall(r'name="next" value="([^"]*)"', page)
        await viewer.get(unescape(after))


@of_module
async def test_sql_is_taken_to_its_page_and_not_run(viewer: Viewer) -> None:
    await viewer.get("/sql")
    page = await viewer.post("/sql/open", 200, sql="SELECT 41 + 1 AS n")
    assert "SELECT 41 + 1 AS n</textarea>" in page
    assert 'id="result"' not in page


@of_module
async def test_questions_are_kept_and_removed(viewer: Viewer) -> None:
    await viewer.get("/sql")
    where = await viewer.post("/sql/save", name=" What  is <one>? ", sql="SELECT 1")
    assert where.startswith("/sql?question=What+is+%3Cone%3E")
    page = await viewer.get("/sql?question=What+is+%3Cone%3E%3F")
    assert "SELECT 1</textarea>" in page
    assert "by config:admin" in plain(page)
    await viewer.post("/sql/save", 400, name="", sql="SELECT 1")
    await viewer.get("/sql")
    assert await viewer.post("/sql/remove", name="What is <one>?") == "/sql"
    await viewer.post("/sql/remove", 404, name="What is <one>?")
    assert "one" not in questions.saved(viewer.folder)


@pytest.mark.parametrize("question", questions.shipped())
def test_each_question_that_comes_with_it_has_an_answer(made: Path, question: str) -> None:
    with analytics.open(made) as db:
        db.execute(questions.shipped()[question]).fetchall()


@of_module
async def test_a_finding_is_accepted_dismissed_with_a_reason_and_looked_at_again(viewer: Viewer) -> None:
    [found] = findings.listed(viewer.folder)
    path = f"/waste/{found['finding_id']}"
    page = await viewer.get("/waste?period=all")
    assert f'href="{path}"' in page
    assert "$0.50" in plain(page)
    page = await viewer.get(path)
    assert "Nobody has looked at it yet" in page
    await viewer.post(path, 422, state="dismissed")
    await viewer.post(path, 422, state="dismissed", reason="other")
    await viewer.post(path, 400, state="fixed")
    await viewer.get(path)
    assert await viewer.post(path, state="dismissed", reason="test", note="load <test>") == f"{path}?done=dismissed"
    page = await viewer.get(f"{path}?done=dismissed")
    assert "config:admin: dismissed, a test: load &lt;test&gt;" in page
    assert "No finding is in this state" in await viewer.get("/waste?period=all")
    assert f'href="{path}"' in await viewer.get("/waste?period=all&state=dismissed")
    await viewer.post(path, state="accepted", reason="test")
    assert [each["state"] for each in findings.listed(viewer.folder)] == ["accepted"]
    await viewer.post(path, state="new")
    assert [each["state"] for each in findings.listed(viewer.folder)] == ["new"]


async def test_what_is_claimed_is_that_of_the_days_in_each_table_and_what_nobody_read_is_not_known(data: Path) -> None:
    know(data, "PAY-1", synced=consoles.AS_OF + timedelta(days=1))
    segment(
        data,
        [
            call(
                NOON + timedelta(days=n), tickets=(ticket,), ticket_id=ticket, ticket_source="header", team_id="core",
                ticket_state=state, list_cost_nano=10**9,
            )
            for n in range(2)
            for ticket, state in (("PAY-404", "unknown"), ("NEW-1", "unchecked"))
        ],
    )  # fmt: skip
    findings.look(data, WasteSettings(), load_prices(Config()), consoles.AS_OF + timedelta(days=2), threads=1)
    (data / disk.MARKER).touch()
    async with looking(consoles.config(data), "viewer") as viewer:
        for days, claimed in (("from=2026-11-20&to=2026-11-20", "$1.00"), ("from=2026-11-20&to=2026-11-21", "$2.00")):
            page = await viewer.get(f"/waste?{days}")
            for table, column in (("waste_by_rule", 1), ("waste_findings", 3)):
                cells = [row[column] for row in consoles.rows(page, table)]
                assert cells == [claimed], (table, days)
        page = await viewer.get(f"/tickets{ALL}")
        assert [row[:6] for row in consoles.rows(page, "tickets")] == [
            ["NEW-1", "$2.00", "–", "–", "–", "–"],
            ["PAY-404", "$2.00", "–", "–", "unknown ticket", "$2.00"],
        ]
        assert "All of this is made up" in page
