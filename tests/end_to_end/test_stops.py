"""Real tools and SDKs on a budget that is used up: they stop at once and show a person why, without trying again."""

import json
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from gateway.budget_file import BudgetTable
from tests.checkouts import make_repository
from tests.conftest import Running, StartGateway
from tests.end_to_end.tools import INSTALL_SECONDS, RUN_SECONDS, run_tool

SAYS = "the budget payments-team (team:payments, per month) is used up"
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def spent(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway whose only budget has nothing left."""
    budget = BudgetTable(scope="team:payments", limit_usd=Decimal(0), owner="fin@example.com")
    async with start_gateway(budgets={"payments-team": budget}) as running:
        yield running


def check(gateway: Running, calls: int) -> None:
    """So many calls were refused, and none got through."""
    rows = gateway.closed()
    assert {(row["result"], row["refusal"], row["budget_action"]) for row in rows} == {
        ("refused", "budget_exceeded", "blocked")
    }
    assert len(rows) == calls
    assert gateway.upstream.requests == []


# -- tools --------------------------------------------------------------------------------------------------------

with_npm = pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)


@with_npm
@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (["claude", "-p", "Say hello"], 1),
        (["codex", "exec", "Say hello"], 1),
        (["gemini", "-p", "Say hello"], 2),  # of the classifier that chooses a model, and of that model
    ],
)
async def test_tools(spent: Running, tmp_path: Path, command: list[str], calls: int) -> None:
    (tmp_path / "home").mkdir()
    repository = make_repository(tmp_path / "repository")
    run = [sys.executable, "-P", "-m", "gateway", "run", "--", *command]
    _, out, err = await run_tool(spent, repository, command[0], run)
    assert SAYS in " ".join((out + err).split())
    assert "fin@example.com" in out + err
    check(spent, calls)


# -- SDKs, with the retries that they have by default ----------------------------------------------------------------


async def test_openai(spent: Running) -> None:
    async with openai.AsyncOpenAI(base_url=f"{spent.url}/v1", api_key=spent.key) as client:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match="is used up") as error:
                await client.chat.completions.create(model="gpt-4.1", messages=HELLO, stream=stream)
            assert error.value.code == "budget_exceeded"
        with pytest.raises(openai.BadRequestError, match="is used up"):
            await client.responses.create(model="gpt-4.1", input="hello")
        with pytest.raises(openai.BadRequestError, match="is used up"):
            await client.embeddings.create(model="text-embedding-3-small", input="hello")
    check(spent, 4)


async def test_anthropic(spent: Running) -> None:
    async with anthropic.AsyncAnthropic(base_url=spent.url, api_key=spent.key) as client:
        for stream in (False, True):
            with pytest.raises(anthropic.APIStatusError, match="is used up") as error:
                await client.messages.create(model="claude-opus-5-5", max_tokens=100, messages=HELLO, stream=stream)
            assert error.value.status_code == 402
            assert json.loads(error.value.response.content)["error"]["type"] == "billing_error"
    check(spent, 2)


async def test_gemini(spent: Running) -> None:
    async with httpx.AsyncClient() as transport:
        options = types.HttpOptions(base_url=spent.url, httpx_async_client=transport)
        models = genai.Client(api_key=spent.key, http_options=options).aio
        with pytest.raises(genai_errors.ClientError, match="is used up") as error:
            await models.models.generate_content(model="gemini-2.5-flash", contents="hello")
        assert error.value.code == 402
    check(spent, 1)
