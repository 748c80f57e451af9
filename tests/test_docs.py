"""Docs under test: what they name is there."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest
from click.testing import CliRunner

from analytics import build, sync, sync_cli, waste, work
from analytics.comment import comment
from analytics.sources import files
from analytics.work_cli import RULES
from gateway import launch
from gateway.cli import outlay
from gateway.config import Upstream, WasteSettings, WorkSettings, load
from gateway.errors import STATUS
from gateway.keys_cli import keys_
from gateway.telemetry import Telemetry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_refusal_is_documented_in_order_of_precedence() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "docs/refusals.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [(code, int(status)) for code, status in rows] == list(STATUS.items())


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_each_row_of_a_table_has_a_cell_for_each_column(page: Path) -> None:
    """Else it is no table where the page is read. A | in a cell is written \\|, also within code."""
    table = 0
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("|") else 0
        table = table or cells
        assert cells in (0, table), line
        table = cells


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for metric in Telemetry().registry.collect():
        assert f"`{metric.name}" in page


def test_every_metric_of_the_dashboard_is_there() -> None:
    dashboard = json.loads((ROOT / "config/grafana/outlay.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    known: set[str] = set()
    for metric in Telemetry().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
        known |= {metric.name + suffix for suffix in suffixes}
    named = {name for query in queries for name in re.findall(r"\boutlay_\w+", query)}
    assert named <= known
    assert {name for name in known if not name.endswith(("_sum", "_count"))} <= named  # each metric has its place


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:gateway|analytics|docs|config)/[\w./-]*)`", README))))
def test_paths_in_the_readme_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^outlay (\w+)", README, re.MULTILINE))))
def test_commands_in_the_readme_exist(command: str) -> None:
    assert CliRunner().invoke(outlay, [command, "--help"]).exit_code == 0


def test_make_targets_in_the_readme_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make (\w+) ", README)) <= set(targets)


TOOLS = (ROOT / "docs/tools.md").read_text(encoding="utf-8")
SESSION = launch.Session(url="http://127.0.0.1:8080", key="olk_k", ticket="PAY-1", path_ticket="PAY-1")


def test_what_is_set_for_tools_is_documented() -> None:
    settings = launch.environment(None, SESSION, {})
    documented = set(re.findall(r"\b[A-Z_]{6,}\b", TOOLS))
    assert settings.keys() <= documented


def test_the_codex_configuration_in_the_docs_is_that_of_outlay_run() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", TOOLS, re.DOTALL)
    assert tomllib.loads(block) == tomllib.loads("\n".join(launch.codex_settings(SESSION)))


def test_the_gemini_settings_in_the_docs_are_enough() -> None:
    [line] = re.findall(r"^\{\"security.*$", TOOLS, re.MULTILINE)
    assert launch.gemini_settings(line) is None


def test_the_status_line_in_the_docs_asks_for_the_session(tmp_path: Path) -> None:
    [line] = re.findall(r"^\{\"statusLine.*$", TOOLS, re.MULTILINE)
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$@"\n')
    curl.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUTLAY_URL": "http://gateway", "OUTLAY_KEY": "olk_k"}
    told = json.dumps({"hook_event_name": "Status", "session_id": "9f7a3e37-20c9", "cwd": "/src"})
    command = json.loads(line)["statusLine"]["command"]
    out = subprocess.run(["sh", "-c", command], env=environ, input=told, capture_output=True, text=True, check=True)
    assert out.stdout == "-fsm 3 -H x-outlay-key: olk_k http://gateway/-/api/v1/tasks/9f7a3e37-20c9?format=line\n"


def test_a_ticket_in_a_base_url_is_written_as_in_the_docs() -> None:
    task = launch.Session(url=SESSION.url, path_ticket="PAY-123", task="nightly")
    assert "`http://127.0.0.1:8080/t/PAY-123/v1`" in TOOLS
    assert f"`…{task.base().removeprefix(SESSION.url)}/v1`" in TOOLS
    assert launch.Session(url="", path_ticket="acme/shop#45").base() == "/t/acme~shop~45"


def test_the_options_of_comments_are_there() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for command in re.findall(r"`(--[\w-]+)`", page):
        assert command in {option for parameter in comment.params for option in parameter.opts}


def test_the_upstreams_with_fallbacks_in_the_docs_are_settings(tmp_path: Path) -> None:
    page = (ROOT / "docs/relaying.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "outlay.toml").write_text(block)
    config = load(tmp_path / "outlay.toml")
    assert config.upstreams["openai"].fallbacks == ("openai-eu",)
    named = set(re.findall(r"`((?:retr|breaker|fallback)\w*)\b", page))
    assert named - {"retry"} <= set(Upstream.__struct_fields__)


def test_every_source_and_how_it_is_read_is_documented() -> None:
    page = (ROOT / "docs/sync.md").read_text(encoding="utf-8")
    assert [name for name in sync.SOURCES if f"| `[work.{name}]` |" not in page] == []
    sections = get_type_hints(WorkSettings)
    own = [name for name in WorkSettings.__struct_fields__ if name not in sync.SOURCES]
    assert [name for name in (*own, *sections["github"].__struct_fields__) if not re.search(rf"\b{name}\b", page)] == []
    for option in re.findall(r"--[a-z]+", page):
        assert option in {option for parameter in sync_cli.sync_.params for option in parameter.opts}


DATA = (ROOT / "docs/data.md").read_text(encoding="utf-8")


def test_every_work_table_and_relation_is_documented() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)", DATA.partition("## Work tables")[2], re.MULTILINE))
    assert rows.keys() == set(files.TABLES)
    for name in files.TABLES:
        assert set(re.findall(r"`(\w+)(?:\[\])?`", rows[name])) >= work.TABLES[name].columns.keys()
    assert [name for name in build.load() if f"`{name}`" not in DATA] == []


def test_every_rule_of_late_evidence_is_documented() -> None:
    page = (ROOT / "docs/attribution.md").read_text(encoding="utf-8").partition("## Late evidence")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == RULES.keys()
    described = build.load()["attribution_changes"].columns["rule"]
    assert [rule for rule in RULES if rule not in described] == []


def test_every_command_and_option_for_keys_is_documented() -> None:
    page = (ROOT / "docs/keys.md").read_text(encoding="utf-8")
    for name, command in keys_.commands.items():
        assert f"outlay keys {name}" in page
        for option in {option for parameter in command.params for option in parameter.opts if option.startswith("--")}:
            assert option in page or option in ("--config", "--data", "--json")


def test_every_rule_of_waste_and_its_thresholds_are_documented() -> None:
    page = (ROOT / "docs/waste.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (W\d\d) .*?\|(.*)", page, re.MULTILINE))
    assert sorted(rows) == sorted(waste.RULES)
    for name in WasteSettings.__struct_fields__:
        where = page if name.endswith("_baseline") else rows.get(name[:3].upper(), page)
        assert re.search(rf"\b{name}\b", where), name
