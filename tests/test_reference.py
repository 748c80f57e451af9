"""The documentation's site: each page has its place, and what is made from the code is all there."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from analytics import build
from gateway.cli import outlay
from tests.test_admin_api import declared
from tests.test_config import settings
from tools import reference

ROOT = Path(__file__).parent.parent
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


def places(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from places(part)


def test_each_page_has_its_place(pages: dict[str, str]) -> None:
    """Decisions have theirs by themselves."""
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(places(SITE["nav"])) == sorted(written | pages.keys())


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & SITE.keys()


def test_every_command_and_option_is_there(pages: dict[str, str]) -> None:
    def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for each in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), each)
                assert inner is not None
                yield from commands(inner, f"{name} {each}")
        else:
            yield name, command

    parts = dict(
        re.findall(r"^## (outlay [^\n]*)\n(.*?)(?=^## |\Z)", pages["reference/commands.md"], re.MULTILINE | re.DOTALL)
    )
    named = dict(commands(outlay, "outlay"))
    assert parts.keys() == named.keys()
    for name, command in named.items():
        shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
        options = [each.opts[0] for each in shown]
        assert [option for option in options if option not in parts[name]] == []


def test_every_setting_is_there(pages: dict[str, str]) -> None:
    page = pages["reference/settings.md"]
    parts = dict(re.findall(r"^## \[([\w.]+)\]\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for section, name, text in settings():
        of = {place.removesuffix(".NAME"): part for place, part in parts.items()}
        rows = re.findall(rf"^\| `{name}` \|.*$", of[section], re.MULTILINE)
        [row] = rows or [of[f"{section}.{name}"]]  # a table of tables is a section of its own
        assert " ".join(text.split()).replace("|", "\\|") in row


def test_every_endpoint_is_there(pages: dict[str, str]) -> None:
    named = {(each.method, each.path) for each in declared()}
    assert {(each.method, each.path) for each in reference.endpoints()} == named
    assert pages["reference/endpoints.md"].count("/-/api/v1/") == len(named) + 1  # and the page's first line


def test_every_relation_and_column_is_there(pages: dict[str, str], empty_lake: Path) -> None:
    page = pages["reference/relations.md"]
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == sorted(build.load())
    for model in build.load().values():
        part = page.partition(f"\n## {model.name}\n")[2].partition("\n## ")[0]
        assert model.description.replace("|", "\\|")[:60] in part
        assert [column for column in model.columns if f"| `{column}` |" not in part] == []
