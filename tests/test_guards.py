"""Guards: what goes round is slowed down or stopped, what gets on never, and shadow only says so."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import NANO, Call
from gateway.guards import ATTEMPTS_MAX, KINDS_MAX, SESSION_US, SESSIONS_MAX, GuardedError, Guards, GuardTable
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import whole
from tests.test_proxy import ANSWER

SECOND = 1_000_000
WHOLE = GuardTable(scope="org", mode="enforce", runaway_usd=Decimal(2))


class Told:
    """A session, call by call."""

    def __init__(self, table: GuardTable = WHOLE, **more: GuardTable) -> None:
        self.guards = Guards({"loops": table, **more})
        self.now = 0
        self.number = 0

    def call(self, **fields: Any) -> Call:
        self.number += 1
        made: dict[str, Any] = {
            "call_id": f"c{self.number}", "request_id": f"r{self.number}", "attempt": 1, "started_us": self.now,
            "session_id": "s", "request_hash": f"q{self.number}", "prefix_hash": "p", "human_turn": False,
            "agent": "main", "client": "claude-code",
        }  # fmt: skip
        return Call(**{**made, **fields})

    def ask(self, seconds: float = 1, status: int = 200, usd: float = 0, **fields: Any) -> str | None:
        """The rule that refused it, or would have."""
        self.now += round(seconds * SECOND)
        call = self.call(**fields)
        try:
            shadowed = self.guards.admit(call, self.now)
        except GuardedError as refusal:
            return refusal.rule
        self.guards.begun(call, shadowed, self.now)
        call.status, call.result = status, "completed" if status < 400 else "upstream_error"
        call.list_cost_nano = call.contracted_cost_nano = round(usd * NANO)
        self.guards.finished(call, self.now)
        return None if shadowed is None else f"shadow {shadowed.rule}"


# -- agent loops -------------------------------------------------------------------------------------------------------


def test_the_sixth_identical_action_is_stopped() -> None:
    told = Told()
    assert [told.ask(action_hash="a") for _ in range(7)] == [None] * 5 + ["agent_loop"] * 2
    assert told.ask(action_hash="b") is None
    assert told.ask(action_hash="a") is None


def test_the_sixth_identical_request_is_stopped() -> None:
    told = Told()
    assert [told.ask(request_hash="q") for _ in range(6)] == [None] * 5 + ["agent_loop"]


@pytest.mark.parametrize(
    "fields",
    [
        {"purpose": "eval", "request_hash": "q"},
        {"agent": "side", "request_hash": "q"},
        {"agent": "compaction", "action_hash": "a"},
        {"seconds": 61, "action_hash": "a"},
        {"session_id": None, "request_hash": "q"},
        {"session_id": None, "task_id": "t", "task_source": "none", "request_hash": "q"},
        {"request_hash": None, "action_hash": "a"},
    ],
)
def test_what_may_repeat(fields: dict[str, Any]) -> None:
    told = Told()
    assert [told.ask(**fields) for _ in range(20)] == [None] * 20


def test_a_task_that_is_named_is_a_session() -> None:
    told = Told()
    fields = {"session_id": None, "task_id": "t", "task_source": "header", "request_hash": "q"}
    assert [told.ask(**fields) for _ in range(6)][-1] == "agent_loop"


def test_agents_side_by_side_are_not_mixed_up() -> None:
    told = Told()
    found = [told.ask(action_hash=prefix, prefix_hash=prefix) for _ in range(5) for prefix in "xyz"]
    assert found == [None] * 15
    assert told.ask(action_hash="x", prefix_hash="x") == "agent_loop"


def test_a_failed_call_is_no_step() -> None:
    told = Told(GuardTable(scope="org", mode="enforce", retry_attempts=0))
    assert [told.ask(action_hash="a", status=529) for _ in range(20)] == [None] * 20
    assert [told.ask(action_hash="a") for _ in range(6)] == [None] * 5 + ["agent_loop"]


# -- retry storms ------------------------------------------------------------------------------------------------------


def test_the_fourth_attempt_waits() -> None:
    told = Told()
    assert [told.ask(0.1, 500, request_hash="q") for _ in range(3)] == [None] * 3
    assert told.ask(0.1, request_hash="q") == "retry_storm"
    assert told.ask(2, 500, request_hash="q") is None
    assert told.ask(2, request_hash="q") == "retry_storm"
    assert told.ask(2, 500, request_hash="q") is None


def test_who_waits_longer_and_longer_passes() -> None:
    told = Told()
    assert [told.ask(min(2**n, 60), 503, request_hash="q") for n in range(12)] == [None] * 12


def test_what_comes_well_is_no_storm() -> None:
    told = Told(GuardTable(scope="org", mode="enforce", loop_calls=0))
    assert [told.ask(0.1, request_hash="q") for _ in range(20)] == [None] * 20
    assert told.ask(0.1, 500, request_hash="q") is None
    assert told.ask(0.1, 200, request_hash="q") is None


def test_a_storm_is_over_after_ten_minutes() -> None:
    told = Told()
    assert [told.ask(0, 500, request_hash="q") for _ in range(3)] == [None] * 3
    assert told.ask(601, 500, request_hash="q") is None


def test_attempts_of_the_gateway_count_and_are_not_stopped() -> None:
    told = Told()
    for attempt in range(1, 6):
        assert told.ask(0.1, 500, request_hash="q", attempt=attempt) is None
    assert told.ask(0.1, request_hash="q") == "retry_storm"


def test_the_wait_is_the_true_one() -> None:
    told = Told()
    for _ in range(3):
        told.ask(0, 500, request_hash="q")
    told.now += SECOND // 2
    with pytest.raises(GuardedError) as caught:
        told.guards.admit(told.call(request_hash="q"), told.now)
    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", 2)
    assert "attempt 4" in caught.value.message


# -- runaways ----------------------------------------------------------------------------------------------------------


def test_a_runaway_goes_on_when_a_person_says_something() -> None:
    told = Told()
    assert [told.ask(usd=0.1) for _ in range(100)] == [None] * 100
    assert told.ask(usd=0.1) == "runaway"
    assert told.ask(usd=0.1, human_turn=True) is None
    assert [told.ask(usd=0.001) for _ in range(200)] == [None] * 200


def test_who_spoke_must_be_known() -> None:
    told = Told()
    assert [told.ask(usd=1, human_turn=None) for _ in range(150)] == [None] * 150


def test_much_money_in_few_calls_is_no_runaway() -> None:
    assert [Told().ask(usd=5) for _ in range(50)] == [None] * 50


# -- which guards ------------------------------------------------------------------------------------------------------


def test_shadow_only_says_so() -> None:
    told = Told(GuardTable(scope="org"))
    assert [told.ask(action_hash="a") for _ in range(8)] == [None] * 5 + ["shadow agent_loop"] * 3


def test_a_call_that_would_have_been_refused_says_so() -> None:
    told = Told(GuardTable(scope="org"))
    for _ in range(5):
        told.ask(action_hash="a")
    call = told.call(action_hash="a")
    told.guards.begun(call, told.guards.admit(call, told.now), told.now)
    call.result = "completed"
    told.guards.finished(call, told.now)
    assert (call.refusal, call.budget_action) == ("loop_stopped", "shadow_blocked")


def test_what_is_enforced_outranks_what_is_in_shadow() -> None:
    told = Told(GuardTable(scope="org"), strict=GuardTable(scope="team:a", mode="enforce", loop_calls=3))
    fields = {"team_id": "a", "action_hash": "a"}
    assert [told.ask(**fields) for _ in range(3)] == [None, None, "agent_loop"]
    other = {"team_id": "b", "action_hash": "a", "session_id": "other"}
    assert [told.ask(**other) for _ in range(6)] == [None] * 5 + ["shadow agent_loop"]


def test_without_guards_nothing_is_remembered() -> None:
    guards = Guards({})
    call = Told().call()
    assert guards.admit(call, 0) is None
    guards.begun(call, None, 0)
    guards.finished(call, 0)
    assert not guards._sessions


def test_memory_is_bounded() -> None:
    told = Told()
    for number in range(SESSIONS_MAX + 50):
        told.ask(0, session_id=f"s{number}")
    assert len(told.guards._sessions) == SESSIONS_MAX
    for number in range(KINDS_MAX + 50):
        told.ask(0, 500, request_hash=f"q{number}", prefix_hash=f"p{number}")
    [session] = [each for (_, name), each in told.guards._sessions.items() if name == "s"]
    assert (len(session.attempts), len(session.runs)) == (KINDS_MAX, KINDS_MAX)


def test_one_session_for_ever_is_bounded_too() -> None:
    told = Told(GuardTable(scope="org", mode="enforce", retry_attempts=0, loop_calls=0, runaway_usd=Decimal(1)))
    for _ in range(3 * ATTEMPTS_MAX):
        told.ask(0, 500, request_hash="q", human_turn=True)
    [session] = told.guards._sessions.values()
    assert len(session.attempts["q"].times) == ATTEMPTS_MAX
    told.ask(SESSION_US / SECOND + 1, session_id="another")
    assert [name for _, name in told.guards._sessions] == ["another"]


def test_what_no_guard_covers_is_not_remembered() -> None:
    told = Told(GuardTable(scope="team:a", mode="enforce"))
    told.ask(team_id="b")
    assert not told.guards._sessions


def test_a_call_that_was_never_made_is_not_remembered() -> None:
    told = Told()
    for _ in range(20):
        told.guards.admit(told.call(action_hash="a"), told.now)
    assert [told.ask(action_hash="a") for _ in range(5)] == [None] * 5


def test_a_person_lets_a_loop_go_on() -> None:
    told = Told()
    assert [told.ask(action_hash="a") for _ in range(6)][-1] == "agent_loop"
    assert told.ask(human_turn=True) is None
    assert told.ask(action_hash="a") is None


STEPS = st.lists(
    st.tuples(
        st.floats(0, 100), st.sampled_from([200, 429, 500]), st.sampled_from("ab"), st.sampled_from([None, "x", "y"]),
        st.sampled_from([True, False, None]), st.floats(0, 3),
    ),
    max_size=40,
)  # fmt: skip


@given(STEPS)
def test_shadow_sees_what_enforcing_would_first_refuse(steps: list[tuple[Any, ...]]) -> None:
    tables = [GuardTable(scope="org", mode=mode, runaway_usd=Decimal(2), runaway_calls=3, loop_calls=3)
              for mode in ("shadow", "enforce")]  # fmt: skip
    shadow, enforced = (
        [told.ask(seconds, status, usd, request_hash=request, action_hash=action, human_turn=human)
         for seconds, status, request, action, human, usd in steps]
        for told in map(Told, tables)
    )  # fmt: skip
    first = next((at for at, rule in enumerate(enforced) if rule), len(steps))
    assert [each and each.removeprefix("shadow ") for each in shadow[: first + 1]] == enforced[: first + 1]


# -- on a running gateway ----------------------------------------------------------------------------------------------


def turn(number: int) -> dict[str, Any]:
    """An agent's request that brings the result of the same tool call once more."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for at in range(number + 1):
        use = {"id": f"c{at}", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
        turns += [{"role": "assistant", "content": None, "tool_calls": [use]},
                  {"role": "tool", "tool_call_id": f"c{at}", "content": "nothing"}]  # fmt: skip
    return {"model": "gpt-5.4-mini", "messages": turns}


async def test_an_agent_that_goes_round_is_stopped(start_gateway: StartGateway) -> None:
    async with start_gateway(guards={"loops": GuardTable(scope="org", mode="enforce")}) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        statuses = [await _ask(gateway, number) for number in range(7)]
        assert [status for status, _ in statuses] == [200] * 5 + [400] * 2
        refusal = json.loads(statuses[-1][1])["error"]
        assert refusal["code"] == "loop_stopped"
        assert "the same tool call with the same result, 6 times in a row" in refusal["message"]
        rows = gateway.closed()
        assert [row["result"] for row in rows] == ["completed"] * 5 + ["refused"] * 2
        assert {row["action_hash"] for row in rows} == {rows[0]["action_hash"]}
        assert len(gateway.upstream.requests) == 5
        async with gateway.session.get(gateway.url + "/-/metrics") as response:
            assert 'outlay_guarded_calls_total{mode="enforce",rule="agent_loop"} 2.0' in await response.text()


async def test_in_shadow_it_is_let_through(start_gateway: StartGateway) -> None:
    async with start_gateway(guards={"loops": GuardTable(scope="org")}) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        assert [(await _ask(gateway, number))[0] for number in range(7)] == [200] * 7
        rows = gateway.closed()
    assert [row.get("budget_action") == "shadow_blocked" for row in rows] == [False] * 5 + [True] * 2
    assert [row.get("refusal") for row in rows] == [None] * 5 + ["loop_stopped"] * 2
    assert all(row["list_cost_nano"] > 0 for row in rows)


async def _ask(gateway: Running, number: int) -> tuple[int, bytes]:
    async with gateway.post("/v1/chat/completions", turn(number), x_outlay_task="t1") as response:
        return response.status, await response.read()
