"""What each tool is given, as tables. That the tools understand it: `tests/end_to_end/test_tools.py`."""

import json
import subprocess
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import launch
from gateway.errors import UserError
from gateway.launch import Session
from gateway.routes import resolve

URL = "http://127.0.0.1:8080"
BRANCH = "feature/PAY-123-fix-rounding"
ON_BRANCH = Session(url=URL, key="olk_k", path_ticket="PAY-123", repo="acme/shop", branch=BRANCH)
NAMED = Session(url=URL, key="olk_k", ticket="PAY-1,PAY-2", path_ticket="PAY-1,PAY-2", task="t:1", claim="a.b.c")
WITHOUT_KEY = Session(url=URL, repo="acme/shop", branch=BRANCH)
LINES = f"x-outlay-repo: acme/shop\nx-outlay-branch: {BRANCH}"


@pytest.mark.parametrize(
    ("command", "tool"),
    [("claude", "claude"), ("/opt/bin/codex", "codex"), ("aider", "aider"), ("python", None), ("./claude.sh", None)],
)
def test_tools_are_known_by_name(command: str, tool: str | None) -> None:
    assert launch.tool_of(command) == tool


def test_claude_code() -> None:
    assert launch.environment("claude", ON_BRANCH, {}) == {
        "OUTLAY_URL": URL,
        "ANTHROPIC_BASE_URL": URL,
        "ANTHROPIC_AUTH_TOKEN": "olk_k",
        "ANTHROPIC_API_KEY": None,
        "ANTHROPIC_CUSTOM_HEADERS": LINES,
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
    }


def test_claude_code_named() -> None:
    headers = launch.environment("claude", NAMED, {})["ANTHROPIC_CUSTOM_HEADERS"]
    assert headers == "x-outlay-ticket: PAY-1,PAY-2\nx-outlay-task: t:1\nx-outlay-claim: a.b.c"


def test_headers_of_the_user_are_kept_and_former_evidence_is_not() -> None:
    before = "x-mine: 1\n\nX-Outlay-Ticket: PAY-9\nx-outlay-claim: old\nx-outlay-key: olk_other"
    after = launch.environment("claude", ON_BRANCH, {"ANTHROPIC_CUSTOM_HEADERS": before})["ANTHROPIC_CUSTOM_HEADERS"]
    assert after == f"x-mine: 1\nx-outlay-key: olk_other\n{LINES}"


@pytest.mark.parametrize("name", ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"])
def test_claude_code_must_not_go_elsewhere(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is set"):
        launch.environment("claude", ON_BRANCH, {name: "1"})
    assert launch.environment(None, ON_BRANCH, {name: "1"})


@pytest.mark.parametrize("tool", [*launch.TOOLS, None])
def test_without_a_gateway_key_tools_keep_their_own(tool: str | None) -> None:
    own = {"ANTHROPIC_API_KEY": "sk-own", "OPENAI_API_KEY": "sk-own", "GEMINI_API_KEY": "own", "GOOGLE_API_KEY": "own"}
    settings = launch.environment(tool, WITHOUT_KEY, own)
    assert not {"ANTHROPIC_AUTH_TOKEN", "OUTLAY_KEY", *own} & settings.keys()
    assert "apiKey" not in str(settings)


def codex_config(session: Session) -> dict[str, Any]:
    return tomllib.loads("\n".join(launch.codex_settings(session)))


def test_codex() -> None:
    assert codex_config(NAMED) == {
        "model_provider": "outlay",
        "model_providers": {
            "outlay": {
                "name": "Outlay",
                "base_url": f"{URL}/v1",
                "env_key": "OUTLAY_KEY",
                "wire_api": "responses",
                "env_http_headers": launch.CODEX_VARIABLES,
            }
        },
    }
    assert launch.environment("codex", NAMED, {}) == {
        "OUTLAY_URL": URL,
        "OUTLAY_KEY": "olk_k",
        "OUTLAY_TICKET": "PAY-1,PAY-2",
        "OUTLAY_TASK": "t:1",
        "OUTLAY_REPO": None,
        "OUTLAY_BRANCH": None,
        "OUTLAY_CLAIM": "a.b.c",
    }
    arguments = launch.arguments("codex", NAMED)
    assert arguments[::2] == ["-c"] * (len(arguments) // 2)
    assert arguments[1::2] == launch.codex_settings(NAMED)


def test_nothing_secret_is_an_argument() -> None:
    assert "olk_" not in str(launch.arguments("codex", NAMED))
    assert launch.arguments("claude", NAMED) == launch.arguments(None, NAMED) == []


def test_codex_without_a_gateway_key_has_its_own() -> None:
    assert codex_config(WITHOUT_KEY)["model_providers"]["outlay"]["env_key"] == "OPENAI_API_KEY"


def test_gemini() -> None:
    before = {"GEMINI_CLI_CUSTOM_HEADERS": "x-mine: a,b, x-outlay-branch: old"}
    assert launch.environment("gemini", ON_BRANCH, before) == {
        "OUTLAY_URL": URL,
        "GOOGLE_GEMINI_BASE_URL": URL,
        "GEMINI_API_KEY": "olk_k",
        "GEMINI_CLI_CUSTOM_HEADERS": f"x-mine: a,b, x-outlay-repo: acme/shop, x-outlay-branch: {BRANCH}",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", {"security": {"auth": {"selectedType": "gemini-api-key"}}}),
        (
            '{"ui": {"theme": "x"}, "security": {"auth": {"selectedType": "oauth-personal", "enforcedType": "x"}}}',
            {
                "ui": {"theme": "x"},
                "security": {"auth": {"selectedType": "gemini-api-key", "enforcedType": "x"}},
            },
        ),
        ('{"security": {"auth": {"selectedType": "gemini-api-key"}}}', None),
    ],
)
def test_gemini_settings(before: str, after: Any) -> None:
    settings = launch.gemini_settings(before)
    assert (settings and json.loads(settings)) == after


def test_opencode() -> None:
    of_user = {
        "theme": "x",
        "provider": {
            "anthropic": {"options": {"timeout": 5, "headers": {"x-mine": "1", "x-outlay-ticket": "PAY-9"}}},
            "local": {"options": {"baseURL": "http://127.0.0.1:1"}},
        },
    }
    settings = launch.environment("opencode", ON_BRANCH, {"OPENCODE_CONFIG_CONTENT": json.dumps(of_user)})
    config = json.loads(settings["OPENCODE_CONFIG_CONTENT"] or "")
    evidence = {"x-outlay-repo": "acme/shop", "x-outlay-branch": BRANCH}
    ours = {"apiKey": "olk_k", "headers": evidence}
    assert config == {
        "theme": "x",
        "provider": {
            "anthropic": {
                "options": {**ours, "baseURL": f"{URL}/v1", "timeout": 5, "headers": {"x-mine": "1", **evidence}}
            },
            "openai": {"options": {**ours, "baseURL": f"{URL}/v1"}},
            "google": {"options": {**ours, "baseURL": f"{URL}/v1beta"}},
            "local": of_user["provider"]["local"],
        },
    }


def test_opencode_with_a_configuration_that_is_none() -> None:
    with pytest.raises(UserError, match="OPENCODE_CONFIG_CONTENT is set and is not JSON"):
        launch.environment("opencode", ON_BRANCH, {"OPENCODE_CONFIG_CONTENT": "{"})


def test_aider_carries_the_ticket_in_the_path() -> None:
    settings = launch.environment("aider", ON_BRANCH, {})
    base = f"{URL}/t/PAY-123"
    assert settings == {
        "OUTLAY_URL": URL,
        "OPENAI_BASE_URL": f"{base}/v1",
        "OPENAI_API_BASE": f"{base}/v1",
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_API_BASE": base,
        "GOOGLE_GEMINI_BASE_URL": base,
        "OPENAI_CUSTOM_HEADERS": LINES,
        "ANTHROPIC_CUSTOM_HEADERS": LINES,
        "OPENAI_API_KEY": "olk_k",
        "ANTHROPIC_API_KEY": "olk_k",
        "GEMINI_API_KEY": "olk_k",
    }


def test_another_command_gets_the_settings_of_all() -> None:
    settings = launch.environment(None, NAMED, {"GOOGLE_API_KEY": "own"})
    for tool in launch.TOOLS:
        assert launch.environment(tool, NAMED, {}).keys() <= settings.keys()
    assert settings["ANTHROPIC_BASE_URL"] == f"{URL}/t/PAY-1,PAY-2/task/t%3A1"
    assert settings["GOOGLE_API_KEY"] == "olk_k"


@pytest.mark.parametrize(
    ("ticket", "path"),
    [
        ("PAY-123", "/t/PAY-123"),
        ("acme/shop#45", "/t/acme~shop~45"),
        ("acme/shop#45,acme/shop#46", "/t/acme~shop~45,acme~shop~46"),
    ],
)
def test_tickets_in_a_path(ticket: str, path: str) -> None:
    assert Session(url=URL, path_ticket=ticket).base() == URL + path


@given(
    tickets=st.lists(
        st.from_regex(r"[A-Z]{2,5}-[1-9][0-9]{0,4}|[a-z]{1,9}/[a-z.-]{1,9}#[1-9]", fullmatch=True), min_size=1
    ),
    task=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,30}", fullmatch=True),
)
def test_the_gateway_reads_in_a_path_what_was_written(tickets: list[str], task: str | None) -> None:
    ticket = ",".join(tickets)[:120]
    path = Session(url="", path_ticket=ticket, task=task).base() + "/v1/responses"
    target = resolve(path, {}, {"openai"})
    assert target is not None
    assert (target.path, target.ticket, target.task) == ("/v1/responses", ticket, task)


CI = {"GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "PAY-1"}


@pytest.mark.parametrize(
    ("repo", "branch", "environ", "place"),
    [
        (None, None, {}, (None, None)),
        (None, None, CI, ("acme/shop", "PAY-1")),
        ("acme/own", "PAY-2", CI, ("acme/own", "PAY-2")),
        (None, None, {**CI, "GITHUB_REF_NAME": "7/merge", "GITHUB_HEAD_REF": "PAY-3"}, ("acme/shop", "PAY-3")),
        (None, None, {**CI, "GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1"}, ("acme/shop", None)),
        (None, None, {"CI_PROJECT_PATH": "a/b/c", "CI_COMMIT_REF_NAME": "PAY-4"}, ("a/b/c", "PAY-4")),
        (
            None,
            None,
            {"CI_COMMIT_REF_NAME": "refs/merge-requests/1/head", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "PAY-5"},
            (None, "PAY-5"),
        ),
        (None, None, {"CI_COMMIT_REF_NAME": "v1", "CI_COMMIT_TAG": "v1"}, (None, None)),
    ],
)
def test_a_detached_checkout_in_ci(
    repo: str | None, branch: str | None, environ: dict[str, str], place: tuple[str | None, str | None]
) -> None:
    assert launch.place(repo, branch, environ) == place


ODD = {"A": 'it\'s $HOME `id`\n"two" lines\\', "B": "", "C": None}


def test_bash_reads_what_was_meant() -> None:
    script = launch.printed("bash", ODD, NAMED) + '\nprintf \'%s|%s|%s\' "$A" "$B" "${C-unset}"'
    out = subprocess.run(["sh", "-c", script], env={"C": "before"}, capture_output=True, text=True, check=True).stdout
    assert out == f"{ODD['A']}||unset"


def test_fish_and_powershell() -> None:
    fish = launch.printed("fish", ODD, NAMED).splitlines()
    assert fish[:4] == ["set -gx A 'it\\'s $HOME `id`", '"two" lines\\\\\';', "set -gx B '';", "set -e C;"]
    powershell = launch.printed("powershell", ODD | {"D": "a’b"}, NAMED).splitlines()
    assert powershell[:3] == ["$env:A = 'it''s $HOME `id`", '"two" lines\\\'', "$env:B = ''"]
    assert powershell[3:5] == ["Remove-Item Env:C -ErrorAction SilentlyContinue", "$env:D = 'a’’b'"]


@pytest.mark.parametrize("shell", ["bash", "fish", "powershell"])
def test_what_codex_needs_is_printed_as_comments(shell: str) -> None:
    comments = launch.printed(shell, {}, NAMED).splitlines()
    assert all(line.startswith("#") for line in comments)
    assert tomllib.loads("\n".join(line[1:] for line in comments[1:])) == codex_config(NAMED)


def test_json() -> None:
    printed = json.loads(launch.printed("json", ODD, NAMED))
    assert printed == {"environment": ODD, "codex_settings": launch.codex_settings(NAMED)}
