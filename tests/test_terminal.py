"""Tables in windows of any width: what is shown is whole, and what is not shown is named."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import terminal
from gateway.terminal import Grid

WORD = st.text("abc012.", min_size=1, max_size=24)
NAME = st.lists(st.text("xyz", min_size=1, max_size=12), max_size=4).map("_".join)
GRIDS = st.lists(NAME, min_size=1, max_size=9, unique=True).flatmap(
    lambda names: st.builds(
        Grid,
        st.just(names),
        st.lists(st.lists(WORD, min_size=len(names), max_size=len(names)), max_size=3),
        right=st.sets(st.integers(0, len(names) - 1)),
        first=st.sets(st.sampled_from(names)),
        is_whole=st.booleans(),
    )
)


@pytest.fixture(autouse=True)
def _window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")


def shown(
    grid: Grid, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.show(grid)
    out, errors = capsys.readouterr()
    return re.sub(r"\x1b\[[0-9;]*m", "", out), errors


@given(GRIDS, st.integers(60, 220))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_is_broken_and_none_is_missing_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], grid: Grid, width: int
) -> None:
    out, errors = shown(grid, width, monkeypatch, capsys)
    assert max(map(len, out.splitlines()), default=0) <= width
    left_out = errors.removeprefix("Left out, as the window is narrow: ").removesuffix(".\n").split(", ")
    assert {*left_out} <= {*grid.names, ""}
    assert not errors or not grid.is_whole
    words = out.split()
    for number, name in enumerate(grid.names):
        if name not in left_out:
            for row in grid.rows:
                assert row[number] in words


def test_a_long_name_breaks_no_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names, values = ["_".join(letter * 12 for _ in range(4)) for letter in "xyz"], [digit * 24 for digit in "012"]
    out, errors = shown(Grid(names, [values], is_whole=True), 60, monkeypatch, capsys)
    assert (errors, {*values} <= {*out.split()}, max(map(len, out.splitlines())) <= 60) == ("", True, True)


def test_headers_go_over_lines_before_a_column_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(
        ["ticket", "list_cost_usd", "sentence"], [["PAY-1", "1.25", "what was said of it, in more words than fit"]]
    )
    assert shown(grid, 80, monkeypatch, capsys)[0].splitlines()[0].split() == ["ticket", "list_cost_usd", "sentence"]
    out, errors = shown(grid, 50, monkeypatch, capsys)
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["list_", "cost_", "ticket"]
    assert (errors, "PAY-1" in out, "than fit" in out) == ("", True, True)
    out, errors = shown(grid, 20, monkeypatch, capsys)
    assert errors == "Left out, as the window is narrow: sentence.\n"


def test_what_matters_is_left_out_last(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    grid = Grid(["id", "a", "b", "usd"], [["1" * 20, "2" * 20, "3" * 20, "4" * 20]], first=["usd"])
    out, errors = shown(grid, 70, monkeypatch, capsys)
    assert out.split()[:3] == ["id", "a", "usd"]
    assert errors == "Left out, as the window is narrow: b.\n"


def test_what_says_nothing_is_left_out_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["1" * 20, "", "0.0000", "2" * 20], ["1" * 20, "", "0", "3" * 20]]
    out, errors = shown(Grid(["id", "x" * 20, "y" * 20, "b"], rows), 50, monkeypatch, capsys)
    assert out.split()[:2] == ["id", "b"]
    assert errors == f"Left out, as the window is narrow: {'x' * 20}, {'y' * 20}.\n"


def test_a_file_has_no_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("TTY_COMPATIBLE")
    names = [f"a_rather_long_name_{number}" for number in range(20)]
    out, errors = shown(Grid(names, [["x" * 40] * 20]), 20, monkeypatch, capsys)
    assert (len(out.splitlines()), out.split()[:20], errors) == (2, names, "")


def test_a_name_of_any_length_goes_over_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "".join(f"{number:03}" for number in range(40))
    out, errors = shown(Grid(["ticket", "usd"], [[name, "1.25"]]), 60, monkeypatch, capsys)
    assert (errors, "1.25" in out) == ("", True)
    assert "".join(line.split()[0] for line in out.splitlines()[1:] if line.strip()) == name
    out, _ = shown(Grid(["ticket", *"abcd"], [[name, *["x" * 30] * 4]], is_whole=True), 60, monkeypatch, capsys)
    assert "".join(out.split()).startswith(f"ticket{name}ax")
