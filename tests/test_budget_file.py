"""Where budgets are written down."""

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.budget_file import BudgetFile, BudgetTable, budget_of, nano, table_from, table_of
from gateway.errors import UserError

SOON = 4_000_000_000
"""Seconds since the epoch."""


def table(**fields: Any) -> BudgetTable:
    return table_from("b", {"scope": "org", "limit_usd": 10, **fields})


def test_changes_are_in_force_at_once_for_every_reader(tmp_path: Path) -> None:
    one, other = BudgetFile(tmp_path), BudgetFile(tmp_path)
    assert other.all() == []
    one.set("pay", table(scope="team:pay", limit_usd="12.5"), "cli")
    (found,) = other.all()
    assert (found.name, str(found.scope), found.limit_nano) == ("pay", "team:pay", 12_500_000_000)
    other.set("pay", table(limit_usd=20), "cli")
    one.raise_("pay", Decimal(5), SOON, "launch week", "key_1")
    (found,) = other.all()
    assert found.limit_of("", 0) == 25_000_000_000
    assert found.limit_of("", SOON * 1_000_000) == 20_000_000_000, "a raise ends"
    one.remove("pay", "cli")
    assert other.all() == []
    assert [(event.event, event.by) for event in other.events()] == [
        ("set", "cli"), ("set", "cli"), ("raise", "key_1"), ("remove", "cli"),
    ]  # fmt: skip


def test_a_budget_that_is_made_again_has_no_old_raises(tmp_path: Path) -> None:
    file = BudgetFile(tmp_path)
    file.set("pay", table(), "cli")
    file.raise_("pay", Decimal(5), SOON, "launch", "cli")
    file.remove("pay", "cli")
    file.set("pay", table(), "cli")
    assert file.all()[0].raises == ()


def test_settings_files_and_commands_do_not_mix(tmp_path: Path) -> None:
    toml = tmp_path / "budgets.toml"
    toml.write_text('[budgets.written]\nscope = "org"\nlimit_usd = 7\n')
    file = BudgetFile(tmp_path / "data", {"main": table(limit_usd=3)}, toml)
    assert [budget.name for budget in file.all()] == ["main", "written"]
    with pytest.raises(UserError, match="written in a settings file: change it there"):
        file.set("written", table(), "cli")
    with pytest.raises(UserError, match="written in a settings file"):
        file.remove("main", "cli")
    file.raise_("written", Decimal(1), SOON, "launch", "cli")
    found = file.get("written")
    assert found is not None
    assert found.limit_of("", 0) == 8_000_000_000
    toml.write_text('[budgets.written]\nscope = "org"\nlimit_usd = 70\n')
    found = file.get("written")
    assert found is not None
    assert found.limit_nano == 70_000_000_000


def test_what_a_crash_tore_is_skipped_and_swallows_nothing(tmp_path: Path) -> None:
    file = BudgetFile(tmp_path)
    file.set("a", table(), "cli")
    with (tmp_path / "budgets.jsonl").open("ab") as lines:
        lines.write(b'{"event":"set","na')
    file.set("b", table(), "cli")
    assert [budget.name for budget in BudgetFile(tmp_path).all()] == ["a", "b"]


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for each in range(20):
            BudgetFile(tmp_path).set(f"b{number}-{each}", table(), "cli")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(BudgetFile(tmp_path).all()) == 80


def test_nobody_else_can_read_the_list(tmp_path: Path) -> None:
    BudgetFile(tmp_path).set("a", table(), "cli")
    assert (tmp_path / "budgets.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"limit": 3}, 'unknown setting "limit"; did you mean "limit_usd"?'),
        ({"limit_usd": "much"}, "limit_usd"),
        ({"limit_usd": -1}, "-1 is no limit: write US dollars from 0"),
        ({"limit_usd": "0.0000000001"}, "at most nine decimals"),
        ({"limit_usd": "NaN"}, "is no limit"),
        ({"scope": "team"}, "is no scope: write org, team:NAME"),
        ({"period": "year"}, "year"),
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"on_exceed": "reroute:"}, "on_exceed is block, stop_stream, reroute:MODEL or warn"),
        ({"on_exceed": "explode"}, "on_exceed is block"),
        ({"warn_at": [1.5]}, "warn_at has fractions"),
        ({"mode": "dry"}, "dry"),
    ],
)
def test_mistakes_say_what_to_write(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        table(**fields)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[budgets.a]\nlimit_usd = 1", "missing required field `scope`"),
        ("[budgets.a]\nscope = 'org'\nlimit_usd = 1\nperod = 'day'", 'did you mean "period"?'),
        ("[a]\nscope = 'org'\nlimit_usd = 1", "unknown section [a]; budgets are written as [budgets.NAME]"),
        ("[budgets.a", "is not valid TOML"),
        ("[budgets]\na = 3", "budget a:"),
        ("[budgets.'a b']\nscope = 'org'\nlimit_usd = 1", "is no name of a budget"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, toml: str, says: str) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(toml)
    with pytest.raises(UserError) as error:
        BudgetFile(tmp_path, {}, path).all()
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_raises_are_temporary_and_have_a_reason(tmp_path: Path) -> None:
    file = BudgetFile(tmp_path)
    with pytest.raises(UserError, match="there is no budget pay"):
        file.raise_("pay", Decimal(5), SOON, "launch", "cli")
    file.set("pay", table(), "cli")
    for amount, until, reason, value, says in (
        (0, SOON, "launch", None, "raises nothing"),
        (5, 1000, "launch", None, "ends in the future"),
        (5, SOON, "  ", None, "needs a reason"),
        (5, SOON, "launch", "PAY-1", "has one account"),
    ):
        with pytest.raises(UserError, match=says):
            file.raise_("pay", Decimal(amount), until, reason, "cli", value)
    assert len(list(file.events())) == 1


def test_a_raise_for_one_account_of_a_template(tmp_path: Path) -> None:
    file = BudgetFile(tmp_path)
    file.set("tickets", table(scope="each_ticket"), "cli")
    budget = file.raise_("tickets", Decimal(5), SOON, "launch", "cli", "PAY-1")
    assert (budget.limit_of("PAY-1", 0), budget.limit_of("PAY-2", 0)) == (15_000_000_000, 10_000_000_000)


def test_a_budget_reads_as_it_was_written() -> None:
    written = table(
        scope="each_user", limit_usd="0.000000001", period="rolling_24h", timezone="Europe/Berlin",
        on_exceed="reroute:gpt-5-mini", warn_at=[0.9, 0.5], mode="shadow", owner="x",
    )  # fmt: skip
    budget = budget_of("b", written)
    assert budget.limit_nano == 1
    assert budget.warn_at == (0.5, 0.9)
    assert budget_of("b", table_of(budget)) == budget
    assert nano(Decimal("1e-9")) == 1
