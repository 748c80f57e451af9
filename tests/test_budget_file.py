"""Where budgets are written down."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gateway import budget_file
from gateway.budget_file import (
    BudgetFile,
    BudgetTable,
    NoSuchBudgetError,
    UnreadableError,
    budget_of,
    nano,
    table_from,
    table_of,
)
from gateway.budgets import Budget
from gateway.cli import outlay
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


def settled(file: BudgetFile) -> BudgetFile:
    """After what was written to `budgets.toml` has stood long enough to count."""
    file.all()
    time.sleep(budget_file.SETTLED_SECONDS)
    return file


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
    found = settled(file).get("written")
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
        ({"limit_usd": "much"}, "budget b: limit_usd: write a number, as 25 or 0.5"),
        ({"limit_usd": -1}, "-1 is no limit: write US dollars from 0"),
        ({"limit_usd": "0.0000000001"}, "at most nine decimals"),
        ({"limit_usd": "NaN"}, "is no limit"),
        ({"limit_usd": "Infinity"}, "is no limit"),
        ({"limit_usd": "1000000000"}, "is no limit"),
        ({"limit_usd": "1.0000000000000000000000000000001"}, "at most nine decimals"),
        ({"limit_usd": "1e-999999999"}, "1E-999999999 is no limit"),
        ({"limit_usd": "1e999999999"}, "is no limit"),
        ({"limit_usd": "9" * 5000}, f"{'9' * 60} is no limit"),
        ({"owner": "a\nb"}, "budget b: owner has 1 to 200 characters, and no control characters"),
        ({"owner": "x" * 201}, "owner has 1 to 200"),
        ({"scope": "team"}, "is no scope: write org, team:NAME"),
        ({"period": "year"}, "budget b: period: write one of day, week, month, quarter, total, rolling_24h"),
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"on_exceed": "reroute:"}, "on_exceed is block, stop_stream, reroute:MODEL or warn"),
        ({"on_exceed": "explode"}, "on_exceed is block"),
        ({"warn_at": [1.5]}, "warn_at has fractions"),
        ({"mode": "dry"}, "budget b: mode: write one of enforce, shadow"),
        ({"warn_at": ["x"]}, "budget b: warn_at: write a number, without quotes"),
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
        ("[budgets]\na = 3", "budget a: write a table"),
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
        (5, 253_402_300_800, "launch", None, "before the year 10000"),
        (5, SOON, "a\x1bb", None, "a reason has 1 to 500 characters"),
        (5, SOON, "x" * 501, None, "a reason has 1 to 500 characters"),
        (5, SOON, "launch", "PAY\n1", "for whom the raise is has 1 to 512"),
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


@given(nano_usd=st.integers(0, 999_999_999 * 10**9), zeros=st.integers(0, 40))
def test_amounts_are_exact(nano_usd: int, zeros: int) -> None:
    whole, parts = divmod(nano_usd, 10**9)
    assert nano(Decimal(f"{whole}.{parts:09d}{'0' * zeros}")) == nano_usd
    assert nano(Decimal(f"{nano_usd}e-9")) == nano_usd
    with pytest.raises(UserError):
        nano(Decimal(f"{whole}.{parts:09d}{'0' * zeros}1"))


def test_a_raise_is_of_the_budget_that_was_there(tmp_path: Path) -> None:
    toml = tmp_path / "budgets.toml"
    toml.write_text('[budgets.pay]\nscope = "org"\nlimit_usd = 7\n')
    file = BudgetFile(tmp_path / "data", {}, toml)
    file.raise_("pay", Decimal(1), SOON, "launch", "cli")
    assert len(file.all()[0].raises) == 1
    toml.write_text("")
    settled(file).set("pay", table(), "cli")
    assert file.all()[0].raises == (), "the one that was raised is no more"


def test_what_is_removed_takes_its_raises_along(tmp_path: Path) -> None:
    toml = tmp_path / "budgets.toml"
    file = BudgetFile(tmp_path / "data", {}, toml)
    file.set("pay", table(), "cli")
    file.raise_("pay", Decimal(1), SOON, "launch", "cli")
    file.remove("pay", "cli")
    toml.write_text('[budgets.pay]\nscope = "org"\nlimit_usd = 7\n')
    assert settled(file).all()[0].raises == ()


@pytest.mark.parametrize("leave", [lambda toml: toml.write_text(""), Path.unlink])
def test_budgets_stay_while_their_file_is_written_anew(tmp_path: Path, leave: Callable[[Path], object]) -> None:
    """Some editors empty the file first, others move it away."""
    toml = tmp_path / "budgets.toml"
    toml.write_text('[budgets.pay]\nscope = "org"\nlimit_usd = 7\n')
    file = BudgetFile(tmp_path / "data", {}, toml)
    assert [budget.limit_nano for budget in file.all()] == [7_000_000_000]
    leave(toml)
    assert [budget.limit_nano for budget in file.all()] == [7_000_000_000]
    toml.write_text('[budgets.pay]\nscope = "org"\nlimit_usd = 70\n')
    assert [budget.limit_nano for budget in settled(file).all()] == [70_000_000_000]
    leave(toml)
    assert settled(file).all() == []


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    file = BudgetFile(tmp_path)
    file.set("pay", table(), "cli")
    file.raise_("pay", Decimal(1), SOON, "launch", "cli")
    assert len(file.set("pay", table(), "cli").raises) == 1
    assert len(list(file.events())) == 2


def test_what_is_removed_at_the_same_time_is_removed_once(tmp_path: Path) -> None:
    BudgetFile(tmp_path).set("pay", table(), "cli")
    done: list[str] = []

    def remove() -> None:
        try:
            BudgetFile(tmp_path).remove("pay", "cli")
            done.append("removed")
        except NoSuchBudgetError:
            done.append("not there")

    threads = [threading.Thread(target=remove) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["not there"] * 7 + ["removed"]
    assert [event.event for event in BudgetFile(tmp_path).events()] == ["set", "remove"]


def test_changes_are_decided_by_what_is_written_then(tmp_path: Path) -> None:
    one, other = BudgetFile(tmp_path), BudgetFile(tmp_path)
    one.set("pay", table(), "cli")
    seen: list[str] = []

    def check(before: Budget | None, after: Budget) -> None:
        lock = os.open(tmp_path / "budgets.jsonl", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        seen.append(f"{before and before.scope} {after.scope}")

    other.all()
    one.set("pay", table(scope="team:a"), "cli")
    other.set("pay", table(scope="team:b"), "cli", check)
    assert seen == ["team:a team:b"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"event":"freeze","name":"pay","at":5,"by":"x"}', "line 2 is of another version"),
        ('{"event":"set","name":"pay","at":5,"by":"x","budget":{"scope":"org","limit_usd":1,"new":2}}', "line 2 is of"),
        ('{"event":"set","name":"pay","at":5,"by":"x"}', "line 2 says too little"),
        ('{"event":"raise","name":"pay","at":5,"by":"x"}', "line 2 says too little"),
    ],
)
def test_a_line_of_another_version_is_not_skipped(tmp_path: Path, line: str, says: str) -> None:
    file = BudgetFile(tmp_path)
    file.set("pay", table(), "cli")
    with (tmp_path / "budgets.jsonl").open("a") as lines:
        lines.write(line + "\n")
    for act in (file.all, lambda: file.set("new", table(), "cli")):
        with pytest.raises(UnreadableError) as error:
            act()
        assert says in str(error.value)


def test_a_list_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "budgets.jsonl").mkdir()  # not even root reads it
    with pytest.raises(UnreadableError, match="cannot be read: Is a directory"):
        BudgetFile(tmp_path).all()


@pytest.mark.parametrize(
    ("leave", "says"),
    [
        (Path.unlink, "budgets.jsonl is gone: restore it"),
        (
            lambda file: file.write_bytes(file.read_bytes().split(b"\n")[0] + b"\n"),
            "budgets.jsonl has lost lines: rest",
        ),
    ],
)
def test_a_list_that_has_become_less_ends_no_budgets(
    tmp_path: Path, leave: Callable[[Path], object], says: str
) -> None:
    file, path = BudgetFile(tmp_path), tmp_path / "budgets.jsonl"
    file.set("pay", table(), "cli")
    file.set("ops", table(), "cli")
    content = path.read_bytes()
    leave(path)
    left = path.exists() and path.read_bytes()
    for act in (file.all, file.all, lambda: file.set("new", table(), "cli"), lambda: file.remove("pay", "cli")):
        with pytest.raises(UnreadableError) as error:
            act()
        assert says in str(error.value)
    assert (path.exists() and path.read_bytes()) == left, "and none is begun anew"
    path.write_bytes(content)
    file.set("new", table(), "cli")
    assert [budget.name for budget in file.all()] == ["new", "ops", "pay"]
    path.unlink()
    assert BudgetFile(tmp_path).all() == [], "a new start takes what is there"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_list_that_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    BudgetFile(tmp_path).set("a", table(), "cli")
    assert (tmp_path / "budgets.jsonl").stat().st_uid == 65534


# -- the command line --------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(outlay, ["budgets", *arguments, "--data", str(folder)])
    assert result.exception is None or isinstance(result.exception, UserError | SystemExit)
    return result.exit_code, str(result.exception) if isinstance(result.exception, UserError) else result.output


def test_what_people_wrote_is_shown_as_it_is(tmp_path: Path) -> None:
    for number, owner in enumerate(("[/red]", "[bold]x", ":smile:")):
        assert run(tmp_path, "set", f"b{number}", "--scope", "team:*[a]", "--limit-usd", "1", "--owner", owner)[0] == 0
        code, shown = run(tmp_path, "list")
        assert (code, owner in shown, "team:*[a]" in shown) == (0, True, True)


@pytest.mark.parametrize("scope", ["each_user", "each_key"])
def test_nobody_is_shown_what_one_person_spent(tmp_path: Path, scope: str) -> None:
    assert run(tmp_path, "set", "each", "--scope", scope, "--limit-usd", "1")[0] == 0
    code, told = run(tmp_path, "show", "each", "--for", "dev-1")
    assert (code, "not told by person: leave out --for" in told) == (1, True)
    assert run(tmp_path, "set", "each", "--scope", "each_ticket", "--limit-usd", "1")[0] == 0
    assert run(tmp_path, "show", "each", "--for", "PAY-1")[0] == 0


@pytest.mark.parametrize("option", ["--scope", "--limit-usd", "--timezone", "--on-exceed", "--owner"])
def test_bytes_that_are_no_text(tmp_path: Path, option: str) -> None:
    code, told = run(tmp_path, "set", "b", "--scope", "org", "--limit-usd", "1", option, "x\udcff")
    assert code in (1, 2)
    assert told
    assert not (tmp_path / "budgets.jsonl").exists()


def test_what_is_not_named_stays_as_it_is(tmp_path: Path) -> None:
    named = ("--period", "total", "--mode", "shadow", "--owner", "a@b", "--warn-at", "0.5", "--timezone", "Asia/Tokyo")
    assert run(tmp_path, "set", "pt", "--scope", "each_ticket", "--limit-usd", "50", *named)[0] == 0
    before = BudgetFile(tmp_path).get("pt")
    assert before is not None
    assert run(tmp_path, "set", "pt", "--scope", "each_ticket", "--limit-usd", "80")[0] == 0
    assert BudgetFile(tmp_path).get("pt") == msgspec.structs.replace(before, limit_nano=80 * 10**9)
    assert run(tmp_path, "set", "pt", "--owner", "", "--mode", "enforce")[0] == 0
    after = msgspec.structs.replace(before, limit_nano=80 * 10**9, owner=None, mode="enforce")
    assert BudgetFile(tmp_path).get("pt") == after


def test_a_new_budget_needs_a_scope_and_a_limit(tmp_path: Path) -> None:
    code, told = run(tmp_path, "set", "new", "--mode", "shadow")
    assert (code, "there is no budget new yet: to make it, give --scope and --limit-usd" in told) == (2, True)
    assert run(tmp_path, "set", "new", "--limit-usd", "1")[0] == 2
    assert run(tmp_path, "set", "new", "--limit-usd", "1", "--scope", "org")[0] == 0
    budget = BudgetFile(tmp_path).get("new")
    assert budget is not None
    assert (budget.period, budget.on_exceed, budget.warn_at, budget.mode) == ("month", "block", (0.8,), "enforce")
