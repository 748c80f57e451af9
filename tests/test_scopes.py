"""Which calls a budget or a limit is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import scopes
from gateway.call import Call
from gateway.errors import UserError
from gateway.scopes import Part, Scope


def call(**fields: object) -> Call:
    return Call(call_id="c", request_id="r", attempt=1, started_us=0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "org",
        "team:payments",
        "ticket:acme/shop#45",
        "model:claude-*",
        "task:*",
        "each_ticket",
        "each_user",
        "each_key",
        "each_team",
    ],
)
def test_a_scope_reads_as_it_is_written(text: str) -> None:
    assert str(scopes.parse(text)) == text


@pytest.mark.parametrize("text", ["", "team", "team:", "squad:x", "each_model", "org:acme", "key:a\nb"])
def test_what_is_no_scope_is_told_what_to_write(text: str) -> None:
    with pytest.raises(UserError, match="write org, team:NAME"):
        scopes.parse(text)


def test_a_call_is_in_a_scope_of_each_kind_that_it_has_a_value_for() -> None:
    parts = list(scopes.of(call(team_id="pay", key_id="key_1", request_model="m", tickets=("PAY-1",), task_id="t")))
    assert parts == [
        Part("org", ""), Part("team", "pay"), Part("key", "key_1"), Part("model", "m"), Part("task", "t"),
        Part("project", "PAY"), Part("ticket", "PAY-1"),
    ]  # fmt: skip


def test_a_split_call_is_in_each_ticket_with_its_share() -> None:
    parts = list(scopes.of(call(tickets=("PAY-1", "acme/shop#4", "PAY-2"))))
    assert parts == [
        Part("org", ""), Part("project", "PAY", (0, 2)), Part("project", "acme/shop", (1,)),
        Part("ticket", "PAY-1", (0,)), Part("ticket", "acme/shop#4", (1,)), Part("ticket", "PAY-2", (2,)),
    ]  # fmt: skip


@given(st.integers(0, 10**12), st.integers(1, 9))
def test_shares_sum_to_the_amount(amount: int, tickets: int) -> None:
    assert sum(scopes.share(amount, (index,), tickets) for index in range(tickets)) == amount
    shares = [scopes.share(amount, (index,), tickets) for index in range(tickets)]
    assert max(shares) - min(shares) <= 1
    assert shares == [-scopes.share(-amount, (index,), tickets) for index in range(tickets)]
    assert scopes.share(amount, tuple(range(tickets)), tickets) == scopes.share(amount, (), tickets) == amount


def test_globs_and_templates_match() -> None:
    assert Scope("model", "claude-*").matches("claude-x")
    assert not Scope("model", "claude-*").matches("gpt")
    assert Scope("ticket", None).matches("PAY-1")
    assert not Scope("team", "a").matches("b")
