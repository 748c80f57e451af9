"""The console in a real browser: Debian's Chromium, or whichever is there. Nothing leaves the machine, nothing is said
on its console, and axe-core finds nothing serious. `OUTLAY_SCREENSHOTS=folder` keeps pictures of each page."""

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Error, Page, async_playwright, expect

from tests import consoles
from tests.conftest import PROVIDER_KEY, Running, starter
from tests.consoles import SECRETS, looking
from tests.fakes.upstream import fake_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PICTURES = os.environ.get("OUTLAY_SCREENSHOTS")
ALL = "?period=all"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = next((path for name in NAMES if (path := shutil.which(name))), None)
        try:
            started = await playwright.chromium.launch(executable_path=found)
        except Error as error:
            pytest.skip(f"no browser is installed: apt install chromium ({str(error).splitlines()[0]})")
        try:
            yield started
        finally:
            await started.close()


@dataclass
class Site:
    """A gateway, and the console beside it."""

    url: str
    gateway: Running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("browser")
    consoles.make(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        consoles.set_keys(patch)
        patch.setenv("PROVIDER_KEY", PROVIDER_KEY)
        async with (
            fake_upstream() as upstream,
            starter(folder, upstream)() as gateway,
            looking(consoles.config(folder / "data"), gateway=gateway.url) as viewer,
        ):
            upstream.answer(whole({"id": "x", "model": "gpt-5.4", "choices": [], "usage": {"prompt_tokens": 10}}))
            yield Site(viewer.url, gateway)


@contextlib.asynccontextmanager
async def page_of(browser: Browser, site: Site, role: str | None = None, **options: Any) -> AsyncIterator[Page]:
    """A page, signed in; afterwards nothing was said on its console, and nobody else was asked for anything."""
    context = await browser.new_context(base_url=site.url, **options)
    page, said, asked = await context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        if role is not None:
            await page.goto("/sign-in")
            await page.get_by_label("Key with a role").fill(SECRETS[role])
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        yield page
        assert [each for each in said if "status of 4" not in each] == []
        assert [url for url in asked if not url.startswith((f"{site.url}/", "data:"))] == []
    finally:
        await context.close()


async def test_from_the_overview_to_the_evidence_of_a_call(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "viewer") as page:
        await page.get_by_role("link", name="All time").click()
        await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Tickets").click()
        await page.get_by_role("link", name="All time").click()
        await page.get_by_role("link", name="PAY-1").click()
        await expect(page.get_by_role("heading", name="PAY-1")).to_contain_text("Refunds <b>in</b> full")
        await page.get_by_role("link", name="task/one").first.click()
        await page.get_by_role("link", name=re.compile("^Call ")).nth(1).click()
        evidence = page.get_by_role("region", name="Evidence of its ticket")
        await expect(evidence).to_contain_text("the branch that the tool works on")
        await page.get_by_role("region", name="Waste").get_by_role("link", name="Duplicate").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("answered 2 times")


async def test_which_tickets_cost_most_and_delivered_nothing_in_november(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "viewer") as page:
        await page.goto("/tickets")
        await page.get_by_label("From").fill("2026-11-01")
        await page.get_by_label("to", exact=True).fill("2026-11-30")
        await page.get_by_role("form", name="Days").get_by_role("button", name="Show").click()
        await page.get_by_role("link", name="Delivered nothing", exact=True).click()
        rows = page.get_by_role("table").get_by_role("row")
        await expect(rows.nth(1)).to_contain_text("PAY-2")
        await expect(rows.nth(1)).to_contain_text("$2.50 + 1 call without a price")


async def test_a_budget_is_set_and_a_call_is_refused(browser: Browser, site: Site) -> None:
    body = {"model": "gpt-5.4", "messages": [], "max_tokens": 1000}
    async with page_of(browser, site, "admin") as page:
        assert (await site.gateway.post("/v1/chat/completions", body)).status == 200
        await page.goto("/budgets")
        form = page.get_by_role("group", name="Set a budget")
        await form.get_by_label("Name", exact=True).fill("tiny")
        await form.get_by_label("Limit, USD").fill("0.000001")
        await form.locator("select[name=period]").select_option("total")
        await form.get_by_role("button", name="Set").click()
        await expect(page.get_by_role("status")).to_contain_text("Set. It is in force within a second")
        async with consoles.soon():
            while (refused := await site.gateway.post("/v1/chat/completions", body)).status == 200:
                pass
        assert refused.headers["x-outlay-refusal"] == "budget_exceeded"
        await page.goto("/budgets/tiny")
        await page.get_by_role("button", name="Remove").click()  # the browser asks for the tick first
        await expect(page.get_by_role("heading", name="Budget tiny")).to_be_visible()
        await page.get_by_role("checkbox").check()
        await page.get_by_role("button", name="Remove").click()
        await expect(page.get_by_role("status")).to_contain_text("Removed.")


async def test_a_key_is_made_and_revoked(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "admin") as page:
        await page.goto("/keys")
        await page.get_by_label("What it is for").fill("a robot")
        await page.get_by_role("button", name="Make it").click()
        secret = await page.locator("#secret").inner_text()
        assert secret.startswith("olk_")
        made = page.get_by_role("heading", name="is made")
        key_id = (await made.inner_text()).split()[2]
        await page.goto(f"/keys/{key_id}")
        assert secret not in await page.content()
        await page.get_by_role("checkbox").check()
        await page.get_by_role("button", name="Revoke").click()
        await expect(page.get_by_role("status")).to_contain_text("It opens nothing from now on")


async def test_a_finding_is_dismissed(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "finops") as page:
        await page.goto(f"/waste{ALL}")
        await page.get_by_role("link", name="Duplicate").click()
        review = page.get_by_role("group", name="Review")
        await review.get_by_label("It is").select_option("dismissed")
        await review.get_by_label("Reason, to dismiss it").select_option("test")
        await review.get_by_label("Note").fill("a load test")
        await review.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("Dismissed.")
        await expect(page.get_by_role("region", name="What was said of it")).to_contain_text("a test: a load test")
        await review.get_by_label("It is").select_option("new")
        await review.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("To be looked at again.")


async def test_a_query_is_run_and_a_tables_sql_is_opened(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "finops") as page:
        await page.goto("/sql")
        await page.get_by_role("link", name="What did each team spend, by month?").click()
        await page.get_by_role("button", name="Run", exact=True).click()
        await expect(page.get_by_role("region", name=re.compile("rows")).first).to_contain_text("payments")
        await page.goto(f"/spend{ALL}")
        await page.locator("#spend_by_team").get_by_text("Show SQL").click()
        await expect(page.locator("#spend_by_team pre")).to_contain_text("GROUP BY ALL")
        await page.locator("#spend_by_team").get_by_role("button", name="Open in SQL").click()
        await page.get_by_role("button", name="Run", exact=True).click()
        await expect(page.get_by_role("region", name=re.compile("rows")).first).to_contain_text(re.compile(r"\$3\.5"))
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Run, as CSV").click()
        assert (await download.value).suggested_filename == "outlay-query.csv"


async def test_without_the_role_there_is_no_way(browser: Browser, site: Site) -> None:
    async with page_of(browser, site) as page:
        await page.goto("/sql")
        await expect(page.get_by_role("heading", name="Sign in to Outlay")).to_be_visible()
        await page.get_by_label("Key with a role").fill("olk_wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("not known here")
        await page.get_by_label("Key with a role").fill(SECRETS["viewer"])
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Not with this role")).to_be_visible()
        await expect(page.get_by_role("navigation").get_by_role("link", name="SQL")).to_have_count(0)
        await page.goto("/budgets")
        await expect(page.get_by_role("group", name="Set a budget")).to_have_count(0)
        await page.get_by_role("button", name="Sign out").click()
        await page.goto("/")
        await expect(page.get_by_role("heading", name="Sign in to Outlay")).to_be_visible()


async def test_by_keyboard_alone(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "viewer") as page:
        await page.goto(f"/spend{ALL}")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        chart = page.get_by_role("figure")
        await chart.focus()
        await page.keyboard.press("End")
        await expect(chart.get_by_role("status")).to_contain_text(re.compile(r"payments: \$3\.5"))
        await page.keyboard.press("Escape")
        await expect(chart.get_by_role("status")).to_be_hidden()
        head = page.locator("#spend_by_team thead a", has_text="list cost")
        await head.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#spend_by_team th[aria-sort]")).to_contain_text("list cost")


async def test_it_works_without_scripts(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "viewer", java_script_enabled=False) as page:
        await page.goto(f"/tickets{ALL}&only=nothing")
        await expect(page.get_by_role("link", name="PAY-2")).to_be_visible()


PATHS = (
    f"/{ALL}", f"/spend{ALL}&by=model", f"/tickets{ALL}", "/tickets/PAY-1", "/tasks/task%2Fone", f"/calls{ALL}",
    f"/waste{ALL}", "/scorecard", "/budgets", "/keys", f"/coverage{ALL}", "/sql", "/nowhere",
)  # fmt: skip


async def test_axe_finds_nothing_and_no_page_is_wider_than_a_phone(browser: Browser, site: Site) -> None:
    async with page_of(browser, site, "admin") as page:
        call = await _address(page, "/tasks/task%2Fone", re.compile("^Call "))
        finding = await _address(page, f"/waste{ALL}", "Duplicate")
        for path in (*PATHS, call, finding):
            await page.goto(path)
            await _looked_at(page, path)
    async with page_of(browser, site) as page:
        await page.goto("/sign-in")
        await _looked_at(page, "/sign-in")


async def _looked_at(page: Page, path: str) -> None:
    """Light on a desk, then dark on a phone, where nothing but the colours and the width is another."""
    for scheme, size, rules in (("light", (1280, 900), {}), ("dark", (390, 844), {"runOnly": ["color-contrast"]})):
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": size[0], "height": size[1]})
        if PICTURES:
            name = f"{re.sub(r'[^a-z0-9]+', '-', path.lower()).strip('-')}-{scheme}.png"
            await page.screenshot(path=Path(PICTURES) / name, full_page=True)
        found = await Axe().run(page, options={"resultTypes": ["violations"], **rules})
        serious = [each["id"] for each in found.response["violations"] if each["impact"] in ("serious", "critical")]
        assert serious == [], (path, scheme, found.generate_report())
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path, scheme)


async def _address(page: Page, path: str, name: Any) -> str:
    await page.goto(path)
    href = await page.get_by_role("link", name=name).first.get_attribute("href")
    assert href is not None
    return href
