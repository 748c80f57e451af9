"""What a key may hand on: never more than it has, whatever the globs."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Principal
from gateway.errors import UserError
from gateway.grants import Grant, check, excess, outlives, outside

NAMES = st.text("ab-", max_size=4)
GLOBS = st.text("ab-*?[]!", min_size=1, max_size=6)


@given(wide=GLOBS, narrow=GLOBS, name=NAMES)
def test_what_a_covered_glob_matches_its_issuer_may_use(wide: str, narrow: str, name: str) -> None:
    issuer = Principal("key_1", models=(wide,), role="admin")
    if outside(issuer, Grant(models=(narrow,))) is None and fnmatch.fnmatchcase(name, narrow):
        assert fnmatch.fnmatchcase(name, wide)


@pytest.mark.parametrize(
    ("wide", "narrow", "fits"),
    [
        ("gpt-*", "gpt-*", True),
        ("gpt-*", "gpt-5", True),
        ("gpt-*", "gpt-5*", True),
        ("gpt-*", "gpt-?", True),
        ("*", "claude-[ab]", True),
        ("gpt-[45]", "gpt-[45]", True),
        ("gpt-[45]", "gpt-4", True),
        ("gpt-*", "*", False),
        ("gpt-*", "g*", False),
        ("gpt-?", "gpt-*", False),
        ("?", "*", False),
        ("*[a]*", "*a*", False),
        ("a*b*", "a[!b]", False),
    ],
)
def test_globs(wide: str, narrow: str, fits: bool) -> None:
    assert (outside(Principal("key_1", models=(wide,)), Grant(models=(narrow,))) is None) == fits


def test_no_role_above_ones_own() -> None:
    for issuer, fits in {None: [None], "viewer": [None, "viewer"], "finops": [None, "viewer", "finops"]}.items():
        for role in (None, "viewer", "finops", "admin"):
            assert (excess(Principal("k", role=issuer), Grant(role=role)) is None) == (role in fits)


def test_nothing_is_bound_by_an_unbound_issuer() -> None:
    wanted = Grant(team_id="a", user_id="b", models=("*",), upstreams=("x",), ticket="PAY-1", purpose="ci")
    assert excess(Principal("k", role="admin"), wanted) is None
    assert not outlives(Principal("k"), None)
    assert outlives(Principal("k", expires_at=5), None)
    assert (outlives(Principal("k", expires_at=5), 5), outlives(Principal("k", expires_at=5), 6)) == (False, True)


@pytest.mark.parametrize(
    "grant",
    [
        Grant(team_id=""),
        Grant(name="a\nb"),
        Grant(user_id="a" * 201),
        Grant(models=("a",) * 101),
        Grant(models=("",)),
        Grant(upstreams=("\x00",)),
    ],
)
def test_texts_that_are_none(grant: Grant) -> None:
    check(Grant(team_id="ä" * 200, name="a b", models=("*",) * 100))
    with pytest.raises(UserError, match="control characters"):
        check(grant)
