"""What real tools' requests tell: recorded ones (long texts cut, else unchanged), read as the gateway reads them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import clients, dialects
from gateway.call import Ask, Client, Excerpts
from tests.test_dialects import VALUES

REQUESTS = Path(__file__).parent / "transcripts" / "requests"
FOLDER = "/home/dev/billing-core"
BRANCH = "feature/PAY-123-fix-rounding"
COMMIT = "b16e3137c8b16e11d2aaeba879d1f8ac0b4e77de"


def keyed(text: str) -> str:
    return f"hash-{hash(text):x}"


def recorded(name: str) -> dict[str, Any]:
    request: dict[str, Any] = json.loads((REQUESTS / f"{name}.json").read_text(encoding="utf-8"))
    return request


def observed(name: str, **changes: Any) -> Client:
    request = recorded(name)
    found = dialects.find("POST", request["path"].partition("?")[0], "")
    assert found is not None
    ask = found[0].read_ask(request["path"], json.dumps(request["body"] | changes).encode())
    headers = request["headers"]
    return clients.observe(clients.recognise(headers), headers, ask, keyed)


@pytest.mark.parametrize(
    ("name", "client", "agent", "branch", "folder"),
    [
        ("claude-code-main", "claude-code", "main", BRANCH, FOLDER),
        ("claude-code-hinted", "claude-code", "main", BRANCH, FOLDER),
        ("claude-code-auto", "claude-code", "main", BRANCH, FOLDER),
        ("claude-code-subagent", "claude-code", "subagent", BRANCH, FOLDER),
        ("claude-code-compaction", "claude-code", "compaction", BRANCH, FOLDER),
        ("claude-code-title", "claude-code", "side", None, None),
        ("claude-code-hinted-title", "claude-code", "side", None, None),
        ("codex", "codex", "main", None, FOLDER),
        ("codex-resumed", "codex", "main", None, FOLDER),
        ("gemini-cli-classifier", "gemini-cli", "side", None, FOLDER),
        ("gemini-cli-main", "gemini-cli", "main", None, FOLDER),
        ("gemini-cli-late-classifier", "gemini-cli", "side", None, None),
        ("gemini-cli-late-main", "gemini-cli", "main", None, FOLDER),
        ("opencode-title", "opencode", "side", None, None),
        ("opencode-main", "opencode", "main", None, FOLDER),
        ("opencode-anthropic", "opencode", "main", None, FOLDER),
        ("opencode-openai", "opencode", "main", None, FOLDER),
        ("aider-openai", "aider", "main", None, None),
        ("aider-anthropic", "aider", "main", None, None),
        ("aider-commit", "aider", "side", None, None),
    ],
)
def test_recorded_requests(name: str, client: str, agent: str, branch: str | None, folder: str | None) -> None:
    found = observed(name)
    assert (found.name, found.agent, found.branch, found.folder) == (client, agent, branch, folder)


def test_each_recorded_request_is_looked_at() -> None:
    tabled = test_recorded_requests.pytestmark[0].args[1]
    assert {row[0] for row in tabled} == {path.stem for path in REQUESTS.glob("*.json")}


def test_one_session_over_all_its_calls() -> None:
    assert observed("claude-code-auto").session_id == observed("claude-code-compaction").session_id
    assert (
        observed("codex").session_id == observed("codex-resumed").session_id == "01a21547-af40-7122-8266-5377f90e75ad"
    )
    main, classifier = observed("gemini-cli-main"), observed("gemini-cli-classifier")
    assert main.derived_task == classifier.derived_task is not None
    assert main.session_id is None
    late = observed("gemini-cli-late-classifier")
    assert late.derived_task is None, "it sends neither the context nor the first prompt"
    assert observed("opencode-title").session_id == observed("opencode-main").session_id


def test_prompts_and_parents_are_tasks() -> None:
    assert observed("claude-code-hinted").conversation_id == "4de70253-ae12-4abe-8fd2-f0cc00eefbae"
    assert observed("claude-code-main").conversation_id is None
    headers = {"user-agent": "opencode/1.18.33", "x-session-id": "ses_child", "x-parent-session-id": "ses_root"}
    child = clients.observe(clients.recognise(headers), headers, Ask(), keyed)
    assert (child.session_id, child.conversation_id, child.agent) == ("ses_child", "ses_root", "subagent")


def test_where_a_branch_comes_from() -> None:
    assert observed("claude-code-main").is_branch_old
    auto = observed("claude-code-auto")
    assert (auto.repo, auto.is_branch_old) == ("acme/billing-core", False)
    codex = observed("codex")
    assert (codex.repo, codex.commit_sha) == ("acme/billing-core", COMMIT)


def said(*texts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def test_what_a_person_writes_is_no_evidence() -> None:
    pasted = "look:\n<system-reminder>\n# gitStatus\n\nCurrent branch: feature/PAY-9-other\n</system-reminder>"
    assert observed("claude-code-main", messages=[said(pasted)]).branch is None
    assert observed("claude-code-main", messages=[said("hi", pasted.removeprefix("look:\n"))]).branch is None
    notes = "<system-reminder>\nNotes\nCurrent branch: feature/PAY-9\n# gitStatus\n\nCurrent branch: fix/PAY-1\n"
    assert observed("claude-code-main", messages=[said(notes)]).branch == "fix/PAY-1"
    later = [said("hi")] * 3 + recorded("claude-code-main")["body"]["messages"]
    assert observed("claude-code-main", messages=later).branch is None, "only where a session begins"
    folder = "see\n - Primary working directory: /home/dev/other\n"
    main = recorded("claude-code-main")["body"]["messages"]
    assert observed("claude-code-main", messages=[said(folder), main[1]]).folder == FOLDER
    system = [{"type": "text", "text": "Be brief.\ngitStatus: unknown\nCurrent branch: fix/PAY-9\n"}]
    assert observed("claude-code-main", system=system, messages=[said("hi")]).branch is None
    assert observed("aider-openai", messages=[{"role": "user", "content": "Act as an expert code analyst."}]).name == (
        "openai-python"
    )
    env = "<env>\n  Working directory: /home/dev/other\n"
    assert observed("opencode-main", messages=[{"role": "user", "content": env}]).folder is None


def test_the_status_in_the_system_prompt_of_older_versions() -> None:
    status = (
        "\ngitStatus: This is the git status at the start of the conversation. Note.\n\nCurrent branch: fix/pay-7\n"
    )
    system = [{"type": "text", "text": f"You are Claude Code.\n\nWorking directory: /src/x\n{status}"}]
    found = observed("claude-code-main", system=system, messages=[said("hi")])
    assert (found.branch, found.folder) == ("fix/pay-7", "/src/x")


def test_few_texts_of_few_levels_are_looked_at() -> None:
    """Else each text of a hostile body would be passed through all levels of its nesting."""
    deep: Any = ["x"]
    for _ in range(400):
        deep = [deep]
    assert clients._texts(msgspec.Raw(json.dumps(deep).encode())) == []
    assert len(clients._texts(msgspec.Raw(json.dumps(["x"] * 20_000).encode()))) == clients.TEXTS_MAX


def test_an_opening_that_is_too_long_is_not_looked_into() -> None:
    messages = recorded("claude-code-main")["body"]["messages"]
    messages[0]["content"].append({"type": "text", "text": "x" * 300_000})
    assert observed("claude-code-main", messages=messages).branch is None


def test_headers_outrank_guesses() -> None:
    headers = {"user-agent": "claude-cli/2.1.330", "x-claude-code-request-class": "workflow"}
    assert clients.observe(clients.recognise(headers), headers, Ask(max_output_tokens=1), keyed).agent == "subagent"
    probe = {"user-agent": "claude-cli/2.1.330"}
    assert clients.observe(clients.recognise(probe), probe, Ask(max_output_tokens=1), keyed).agent == "side"
    codex = {"user-agent": "codex_exec/0.169.0", "session-id": "s2", "x-openai-subagent": "compact"}
    assert clients.observe(clients.recognise(codex), codex, Ask(), keyed).agent == "compaction"


@pytest.mark.parametrize("name", sorted(clients.OBSERVERS))
@given(parts=st.lists(VALUES, min_size=5, max_size=5), turn=st.text(max_size=50) | VALUES.map(json.dumps))
def test_no_body_is_too_odd(name: str, parts: list[Any], turn: str) -> None:
    raw = [msgspec.Raw(json.dumps(part).encode()) for part in parts]
    ask = Ask(excerpts=Excerpts(raw[1:3], raw[0], raw[3], raw[4]))
    found = clients.observe(Client(name), {"x-codex-turn-metadata": turn}, ask, keyed)
    assert found.branch is None or found.branch.isprintable()
    assert found.folder is None or found.folder.startswith("/")


@pytest.mark.parametrize(
    ("agent", "name", "version"),
    [
        ("claude-cli/2.1.330 (external, cli)", "claude-code", "2.1.330"),
        ("codex_exec/0.169.0 (Debian; x86_64)", "codex", "0.169.0"),
        ("GeminiCLI-tui/0.61.0/gemini-3.1-pro-preview (linux; x64; terminal)", "gemini-cli", "0.61.0"),
        ("opencode/1.18.33 ai-sdk/provider-utils/4.0", "opencode", "1.18.33"),
        ("litellm/1.81.10", "litellm", "1.81.10"),
        ("OpenAI/Python 3.54.0", "openai-python", "3.54.0"),
        ("AsyncAnthropic/Python 2.12.0", "anthropic-python", "2.12.0"),
        ("google-genai-sdk/2.34.0 gl-python/3.11", "google-genai", "2.34.0"),
        ("ai/7.0.173 ai-sdk-provider-utils/4", "ai-sdk", "7.0.173"),
        ("Mozilla/5.0", None, None),
    ],
)
def test_names(agent: str, name: str | None, version: str | None) -> None:
    client = clients.recognise({"user-agent": agent})
    assert (client.name, client.version) == (name, version)
