"""Real tools on a stream that a budget has ended: they show what there is, and do not ask for the same once more."""

import sys
from pathlib import Path

import pytest

from tests.checkouts import make_repository
from tests.conftest import StartGateway
from tests.end_to_end.tools import INSTALL_SECONDS, RUN_SECONDS, run_tool
from tests.fakes.upstream import chunked
from tests.streams import transcript


@pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS + 30)
@pytest.mark.parametrize(
    ("command", "name", "events", "shown", "requests"),
    [
        (["codex", "exec", "Say hello"], "responses", 11, "Blue", 1),
        (["codex", "exec", "Say hello"], "responses", 18, 'Blue, and the "sea".', 1),  # within a tool call
        (["gemini", "-p", "Say hello"], "gemini", 2, "A lighthouse stands [on", 2),  # one of its classifier
        # At any answer that reached its maximum it asks to go on, three times: a spent budget refuses the first.
        (["claude", "-p", "Say hello"], "messages", 8, "exceeded", 4),
    ],
)
async def test_tools(
    start_gateway: StartGateway, tmp_path: Path, command: list[str], name: str, events: int, shown: str, requests: int
) -> None:
    (tmp_path / "home").mkdir()
    repository = make_repository(tmp_path / "repository")
    stream = transcript(name)
    body = stream.ended(events)
    assert body is not None
    async with start_gateway() as gateway:
        gateway.upstream.answer(chunked(body, content_type=stream.content_type))
        run = [sys.executable, "-P", "-m", "gateway", "run", "--", *command]
        _, out, err = await run_tool(gateway, repository, command[0], run)
        assert shown in out + err
        assert len(gateway.upstream.requests) == requests
        assert {row["result"] for row in gateway.closed()} == {"completed"}
