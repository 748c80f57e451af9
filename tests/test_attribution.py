"""Attribution through the running gateway: what recorded tools, keys, claims and policies make of the ledger's rows."""

import asyncio
import dataclasses
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import app, claims
from gateway.config import Auth, TicketSettings
from gateway.keys import Keys
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import whole
from tests.test_clients import BRANCH, FOLDER, recorded
from tests.test_proxy import ANSWER, CHAT

TOOLS = {
    "claude-code": ["title", "main", "subagent", "compaction", "auto"],
    "codex": ["", "resumed"],
    "gemini-cli": ["classifier", "main"],
    "opencode": ["title", "main", "anthropic", "openai"],
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository on the branch of a ticket, whose last commit names another one."""
    folder = tmp_path / "src" / "billing-core"
    folder.mkdir(parents=True)
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["remote", "add", "origin", "git@github.com:acme/billing-core.git"],
        ["commit", "--quiet", "--allow-empty", "--message", "PAY-100 initial"],
        ["checkout", "--quiet", "-b", BRANCH],
    ):
        identity = ["-c", "user.name=Dev", "-c", "user.email=dev@example.com"]
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    return folder


async def replay(gateway: Running, name: str, folder: Path | None = None, **changes: str) -> dict[str, Any]:
    """Send a recorded request, from another folder if need be; its row."""
    request = recorded(name)
    text = json.dumps(request)
    request = json.loads(text.replace(FOLDER, str(folder)) if folder else text)
    headers = {**request["headers"], **changes}
    body = json.dumps(request["body"]).encode()
    before = len(gateway.closed())
    gateway.upstream.answer(whole(ANSWER, headers=[("Connection", "close")]))
    async with gateway.post(request["path"], body, **headers) as response:
        await response.read()
    assert gateway.upstream.requests[-1].body == body
    rows = gateway.closed()
    assert len(rows) == before + 1
    return rows[-1]


async def test_real_tools_are_attributed_by_the_branch_that_they_work_on(
    start_gateway: StartGateway, checkout: Path
) -> None:
    async with start_gateway(tickets=TicketSettings(worktrees=[str(checkout.parent)])) as gateway:
        for client, kinds in TOOLS.items():
            for kind in kinds:
                row = await replay(gateway, f"{client}-{kind}".rstrip("-"), checkout)
                if kind != "title":
                    assert (row["ticket_id"], row["ticket_source"], row["branch"]) == ("PAY-123", "branch", BRANCH)
                assert (row["client"], row["task_source"]) in (
                    (client, "session"),
                    ("gemini-cli", "none"),
                ), kind
        by_client: dict[str, set[str]] = {}
        for row in gateway.closed():
            by_client.setdefault(row["client"], set()).add(row["task_id"])
        assert len(by_client["codex"]) == len(by_client["gemini-cli"]) == 1, "one task per session"
        repos = {row["repo"] for row in gateway.closed() if row["client"] in ("codex", "gemini-cli")}
        assert repos == {"acme/billing-core"}
        [commit] = {row.get("commit_sha") for row in gateway.closed() if row["client"] == "codex"}
        assert commit == recorded("codex")["headers"]["x-codex-turn-metadata"].split('commit_hash":"')[1][:40]


async def test_without_a_worktree_to_look_at_only_what_requests_say_counts(gateway: Running, checkout: Path) -> None:
    assert (await replay(gateway, "claude-code-main", checkout))["ticket_id"] == "PAY-123"
    for name in ("codex", "gemini-cli-main", "opencode-main"):
        row = await replay(gateway, name, checkout)
        assert (row.get("ticket_id"), row["ticket_source"]) == (None, "none")


async def test_a_side_call_inherits_from_its_session(gateway: Running) -> None:
    session = recorded("claude-code-title")["headers"]["x-claude-code-session-id"]
    assert (await replay(gateway, "claude-code-title"))["ticket_source"] == "none"
    await replay(gateway, "claude-code-main", **{"x-claude-code-session-id": session})
    row = await replay(gateway, "claude-code-title")
    assert (row["ticket_id"], row["ticket_source"], row["agent"]) == ("PAY-123", "task", "side")


async def test_an_agent_whose_branch_changes(start_gateway: StartGateway, checkout: Path) -> None:
    async with start_gateway(tickets=TicketSettings(worktrees=[str(checkout)])) as gateway:
        assert (await replay(gateway, "opencode-main", checkout))["ticket_id"] == "PAY-123"
        (checkout / ".git" / "HEAD").write_text("ref: refs/heads/fix/PAY-7\n")
        await asyncio.sleep(2.1)  # a look is good for two seconds
        assert (await replay(gateway, "opencode-main", checkout))["ticket_id"] == "PAY-7"
        outside = await replay(gateway, "opencode-main", checkout.parent, **{"x-session-id": "other"})
        assert outside["ticket_source"] == "none", "no folder above those that are named is read"


async def test_claims(gateway: Running) -> None:
    event, claim_key = Keys(gateway.dir).create_claim_key()
    at = int(time.time())
    sent = claims.sign(
        claim_key,
        claims.Claim(
            tickets=("PAY-1", "PAY-2"), issued_at=at, expires_at=at + 60, branch="fix/PAY-1",
            key=claims.fingerprint(gateway.key),
        ),
    )  # fmt: skip
    gateway.upstream.answer(whole(ANSWER))
    async with gateway.post("/v1/chat/completions", CHAT, x_outlay_claim=sent, x_outlay_ticket="PAY-9") as response:
        assert response.headers["x-outlay-ticket"] == "PAY-1,PAY-2"
        assert response.headers["x-outlay-ticket-source"] == "claim"
    async with gateway.post("/v1/chat/completions", CHAT, x_outlay_claim=sent, x_outlay_branch="main"):
        pass
    Keys(gateway.dir).revoke(event.key_id)
    async with gateway.post("/v1/chat/completions", CHAT, x_outlay_claim=sent):
        pass
    first, second, third = gateway.closed()
    assert first["ticket_candidates"] == ["header:PAY-9"]
    assert "ticket_id" not in second
    assert "ticket_id" not in third
    async with gateway.session.get(f"{gateway.url}/-/metrics") as response:
        metrics = await response.text()
    assert 'outlay_ignored_evidence_total{reason="other_branch",source="claim"} 1.0' in metrics
    assert 'outlay_ignored_evidence_total{reason="unknown_claim_key",source="claim"} 1.0' in metrics
    stored = b"".join(path.read_bytes() for path in gateway.dir.rglob("*") if path.is_file())
    assert sent.encode() not in stored
    assert claim_key.encode() not in stored
    assert not [name for got in gateway.upstream.requests for name, _ in got.headers if "outlay" in name.lower()]


async def test_a_claim_key_opens_nothing(gateway: Running) -> None:
    _, claim_key = Keys(gateway.dir).create_claim_key()
    async with gateway.post("/v1/chat/completions", CHAT, Authorization=f"Bearer {claim_key}") as response:
        assert response.status == 401


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000, ",".join(f"PAY-{n}" for n in range(1, 5000)), "PAY-1\u0661", "ΡΑΥ-1", "PAY-1;DROP TABLE", "utf-8"],
)
async def test_odd_ticket_headers_are_ignored_and_the_call_goes_on(gateway: Running, value: str) -> None:
    gateway.upstream.answer(whole(ANSWER))
    async with gateway.post("/v1/chat/completions", CHAT, x_outlay_ticket=value) as response:
        assert response.status == 200
        assert response.headers["x-outlay-ticket-source"] == "none"
    [row] = gateway.closed()
    assert (row["ticket_source"], row.get("tickets")) == ("none", None)


async def test_tickets_in_two_headers(gateway: Running) -> None:
    gateway.upstream.answer(whole(ANSWER))
    fields = [("Authorization", f"Bearer {gateway.key}"), ("x-outlay-ticket", "PAY-1"), ("x-outlay-ticket", "PAY-2")]
    async with gateway.session.post(f"{gateway.url}/v1/chat/completions", data=json.dumps(CHAT), headers=fields):
        pass
    assert gateway.closed()[0]["tickets"] == ["PAY-1", "PAY-2"]


async def test_policies(start_gateway: StartGateway) -> None:
    settings = TicketSettings(policy="optional", teams={"payments": "required"})
    async with start_gateway(tickets=settings) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        async with gateway.post("/v1/messages", {"model": "m", "messages": []}) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"
            assert response.headers["x-outlay-refusal"] == "ticket_required"
        async with gateway.post("/v1/messages/count_tokens", {"model": "m", "messages": []}) as response:
            assert response.status == 200, "counting is never refused"
        _, free = Keys(gateway.dir).create(team_id="payments", ticket_policy="optional")
        async with gateway.post("/v1/chat/completions", CHAT, Authorization=f"Bearer {free}") as response:
            assert response.status == 200
        assert [row["refusal"] for row in gateway.closed() if "refusal" in row] == ["ticket_required"]


async def test_what_is_synced_counts_within_seconds(start_gateway: StartGateway) -> None:
    async with start_gateway(tickets=TicketSettings(policy="known")) as gateway:
        gateway.upstream.answer(whole(ANSWER))

        async def state(ticket: str) -> Any:
            async with gateway.post("/v1/chat/completions", CHAT, x_outlay_ticket=ticket) as response:
                return response.headers.get("x-outlay-refusal") or gateway.closed()[-1]["ticket_state"]

        assert await state("PAY-1") == "unchecked"
        (gateway.dir / "work").mkdir()
        extract = gateway.dir / "work" / "tracker.json"
        extract.write_bytes(msgspec.json.encode({"tickets": {"PAY-1": "open", "PAY-2": "closed", "PAY-9": "open"}}))
        await asyncio.sleep(1.5)
        assert [await state(f"PAY-{number}") for number in (1, 2, 3, 10)] == [
            "known", "closed", "ticket_unknown", "unchecked",
        ]  # fmt: skip
        extract.write_bytes(b'{"tickets": {"PAY-1": "half')
        await asyncio.sleep(1.5)
        assert await state("PAY-1") == "known", "what cannot be read leaves what was known"


async def test_open_mode_takes_claims_without_a_key(start_gateway: StartGateway) -> None:
    async with start_gateway(auth=Auth(mode="open")) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        _, claim_key = Keys(gateway.dir).create_claim_key()
        at = int(time.time())
        sent = claims.sign(claim_key, claims.Claim(tickets=("PAY-1",), issued_at=at, expires_at=at + 60))
        async with gateway.session.post(
            f"{gateway.url}/v1/chat/completions", json=CHAT, headers={"x-outlay-claim": sent}
        ) as response:
            assert response.headers["x-outlay-ticket-source"] == "claim"


async def test_a_restart_forgets_sessions(gateway: Running) -> None:
    """What a restart forgets is left to late evidence: the row says that there was none."""
    await replay(gateway, "claude-code-main")
    async with app.gateway(gateway.config) as (host, port):
        restarted = dataclasses.replace(gateway, url=f"http://{host}:{port}")
        session = recorded("claude-code-main")["headers"]["x-claude-code-session-id"]
        row = await replay(restarted, "claude-code-title", **{"x-claude-code-session-id": session})
        assert row["ticket_source"] == "none"
        assert row["task_id"] == session
