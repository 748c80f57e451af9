"""Docs under test: what they name is there."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import outlay
from gateway.errors import STATUS
from gateway.telemetry import Telemetry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_refusal_is_documented_in_order_of_precedence() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "docs/refusals.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [(code, int(status)) for code, status in rows] == list(STATUS.items())


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for metric in Telemetry().registry.collect():
        assert f"`{metric.name}" in page


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:gateway|analytics|docs|config)/[\w./-]*)`", README))))
def test_paths_in_the_readme_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^outlay (\w+)", README, re.MULTILINE))))
def test_commands_in_the_readme_exist(command: str) -> None:
    assert CliRunner().invoke(outlay, [command, "--help"]).exit_code == 0


def test_make_targets_in_the_readme_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make (\w+) ", README)) <= set(targets)
