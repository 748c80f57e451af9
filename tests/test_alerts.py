"""Notices: when they are said, how they are delivered to receivers that misbehave, that calls never wait for them."""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import alerts, channels, oddities, scopes
from gateway.alerts import Alerts
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Account, Budget
from gateway.call import NANO, Call
from gateway.cli import outlay
from gateway.config import AlertSettings
from gateway.errors import UserError
from gateway.oddities import HOUR_US, Runaways, Velocity
from gateway.periods import FOREVER
from gateway.telemetry import Telemetry
from tests.conftest import Running, StartGateway
from tests.fakes.upstream import CUT, FakeUpstream, Received, fake_upstream, whole
from tests.test_proxy import ANSWER, CHAT

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = whole(b"ok")
QUICK = (0.01, 0.01, 0.01)
PAGE = (Path(__file__).parent.parent / "docs/alerts.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def is_from_outlay(request: Received, secret: str = SECRET) -> bool:
    """As the docs have it."""
    names: dict[str, Any] = {}
    exec(compile(EXAMPLE, "docs/alerts.md", "exec"), names)
    headers = {name.lower(): value for name, value in request.headers}
    result = names["is_from_outlay"](headers, request.body, secret)
    assert isinstance(result, bool)
    return result


def call(**fields: Any) -> Call:
    return Call(call_id="c", request_id="r", attempt=1, started_us=0, **fields)


# -- what is odd ------------------------------------------------------------------------------------------------------


def hours(velocity: Velocity, *usd: float, key: str = "k") -> list[bool]:
    """Spend so much in one hour after the other; whether each was odd."""
    begin = 1_000_000 * HOUR_US
    return [
        velocity.see(call(key_id=key, list_cost_nano=int(amount * NANO)), begin + number * HOUR_US) is not None
        for number, amount in enumerate(usd)
    ]


@pytest.mark.parametrize(
    ("usd", "odd"),
    [
        ([3] * 8 + [14.99], False),
        ([3] * 8 + [15], True),
        ([3] * 7 + [1000], False),  # not enough history
        ([0.01] * 24 + [9.99], False),  # cents
        ([0.01] * 24 + [10], True),
        ([3] * 8 + [1000, 14.99], False),
        ([3] * 8 + [1000, 15], True),  # one wild hour does not move the usual
        ([3] * 8 + [100] * 24 + [200], False),  # but a day does
        ([100] * 8 + [3] * 24 + [15], True),
    ],
)
def test_a_key_is_fast_by_its_own_usual(usd: list[float], odd: bool) -> None:
    assert hours(Velocity(AlertSettings()), *usd)[-1] is odd


def test_nothing_is_fast_where_that_is_switched_off() -> None:
    assert not any(hours(Velocity(AlertSettings(velocity_factor=0)), *[3] * 8, 1000))
    velocity = Velocity(AlertSettings())
    for spent in [3] * 8:
        velocity.see(call(key_id="k", list_cost_nano=spent * NANO), spent)
    assert velocity.see(call(key_id="k", operation="batch", list_cost_nano=1000 * NANO), 9 * HOUR_US) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40 * NANO)), max_size=60))
def test_the_usual_is_the_median_of_the_last_hours_with_calls(spending: list[tuple[int, int]]) -> None:
    velocity = Velocity(AlertSettings(velocity_factor=2.0, velocity_usd=Decimal(1)))
    by_hour: dict[int, int] = {}
    hour = 5
    for later, nano in spending:
        hour += later
        by_hour[hour] = by_hour.get(hour, 0) + nano
        found = velocity.see(call(key_id="k", list_cost_nano=nano), hour * HOUR_US + 7)
        before = [spent for each, spent in by_hour.items() if each < hour][-24:]
        usual = round(median(before)) if len(before) >= 8 else None
        expected = usual is not None and by_hour[hour] >= max(2 * usual, NANO)
        assert (found is not None) == expected
        if found is not None:
            assert (found.spent_nano, found.usual_nano) == (by_hour[hour], usual)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oddities, "KEYS_MAX", 100)
    monkeypatch.setattr(oddities, "TASKS_MAX", 100)
    velocity, runaways = Velocity(AlertSettings()), Runaways(AlertSettings(runaway_calls=1000))
    for number in range(999):
        for key in ("always-here", f"k{number}"):
            velocity.see(call(key_id=key, list_cost_nano=1), number * HOUR_US)
            assert runaways.see(call(task_id=key), 0) is None
    assert len(velocity.keys) == len(runaways._tasks) == 100
    assert max(len(key.before) for key in velocity.keys.values()) == oddities.HOURS_MAX
    found = runaways.see(call(task_id="always-here"), 0)
    assert found is not None
    assert found.calls == 1000


def test_a_task_runs_away_by_calls_or_by_money_within_an_hour() -> None:
    runaways = Runaways(AlertSettings(runaway_calls=10, runaway_usd=Decimal(5)))
    slow = [runaways.see(call(task_id="slow"), number * HOUR_US // 9) for number in range(100)]
    assert slow == [None] * 100
    fast = [runaways.see(call(task_id="fast", result="refused"), number) for number in range(10)]
    assert [found is not None for found in fast] == [False] * 9 + [True]
    assert runaways.see(call(task_id="dear", list_cost_nano=5 * NANO - 1), 0) is None
    found = runaways.see(call(task_id="dear", list_cost_nano=1), HOUR_US - 1)
    assert found is not None
    assert (found.calls, found.spent_nano, found.since_us) == (2, 5 * NANO, 0)
    off = Runaways(AlertSettings(runaway_calls=0, runaway_usd=Decimal(0)))
    assert off.see(call(task_id="t", list_cost_nano=10**15), 0) is None


def test_a_moment_in_the_future_silences_nothing() -> None:
    velocity = Velocity(AlertSettings())
    assert not any(hours(velocity, *[3] * 8))
    now = 1_000_008 * HOUR_US
    assert velocity.see(call(key_id="k", list_cost_nano=NANO), now + 9999 * HOUR_US) is None
    assert velocity.see(call(key_id="k", list_cost_nano=14 * NANO), now) is None
    assert velocity.see(call(key_id="k", list_cost_nano=NANO), now) == ("k", now, 15 * NANO, 3 * NANO)
    runaways = Runaways(AlertSettings(runaway_calls=2))
    assert runaways.see(call(task_id="t"), now + 9999 * HOUR_US) is None
    assert runaways.see(call(task_id="t"), now) is None
    found = runaways.see(call(task_id="t"), now + 1)
    assert found is not None
    assert (found.calls, found.since_us) == (2, now)


# -- delivery ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        monkeypatch.setenv("SLACK_URL", fake.url + "/services/T0/B0/slacks-own-secret")
        monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
        fake.answer(OK)
        yield fake


SLACK = AlertSettings(slack="env:SLACK_URL", log=False)


def webhook(receiver: FakeUpstream) -> AlertSettings:
    return AlertSettings(webhook=receiver.url + "/hook", webhook_secret="env:WEBHOOK_SECRET", log=False)


@contextlib.asynccontextmanager
async def started(
    folder: Path, of: AlertSettings, clock: Callable[[], int] = lambda: 50 * HOUR_US, waits: Sequence[float] = QUICK
) -> AsyncIterator[Alerts]:
    told = Alerts(of, folder, Telemetry(), clock=clock, waits=waits)
    told.start()
    try:
        yield told
    finally:
        await told.stop()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def results(told: Alerts) -> dict[str, float]:
    return {
        f"{sample.labels['channel']} {sample.labels['result']}": sample.value
        for metric in told._telemetry.alerts.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


def data_of(request: Received) -> dict[str, Any]:
    data = json.loads(request.body)["data"]
    assert isinstance(data, dict)
    return data


async def test_a_signed_notice(tmp_path: Path, receiver: FakeUpstream) -> None:
    async with started(tmp_path, webhook(receiver)) as told:
        told.notice("budget_warn", "payments", "80 % of it is spent.", limit_usd="100.000000000", fraction=0.8)
    [request] = receiver.requests
    assert (request.method, request.target, request.header("content-type")) == ("POST", "/hook", "application/json")
    assert json.loads(request.body) == {
        "type": "budget_warn",
        "timestamp": "1970-01-03T02:00:00Z",
        "data": {
            "subject": "payments", "message": "80 % of it is spent.", "limit_usd": "100.000000000", "fraction": 0.8,
        },
    }  # fmt: skip
    assert is_from_outlay(request)
    assert not is_from_outlay(request, "whsec_" + "A" * 32)
    request.body = request.body.replace(b"80", b"10")
    assert not is_from_outlay(request)


async def test_an_old_notice_is_not_taken_again(tmp_path: Path, receiver: FakeUpstream) -> None:
    async with started(tmp_path, webhook(receiver)) as told:
        told.notice("budget_warn", "payments", "x")
    [request] = receiver.requests
    stamp = str(int(time.time()) - 301)
    key = channels.key_of(SECRET)
    request.headers = [
        ("webhook-id", "n"), ("webhook-timestamp", stamp),
        ("webhook-signature", channels.signature(key, "n", int(stamp), request.body)),
    ]  # fmt: skip
    assert not is_from_outlay(request)


def test_signatures_are_those_of_the_standard() -> None:
    """A signature by the reference library of Standard Webhooks (Python, 1.1.0)."""
    signed = channels.signature(
        channels.key_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert channels.key_of("any text") == b"any text"
    with pytest.raises(UserError, match="no base64"):
        channels.key_of("whsec_?")


async def test_slack_gets_text_without_markup(tmp_path: Path, receiver: FakeUpstream) -> None:
    async with started(tmp_path, SLACK) as told:
        told.notice("budget_exceeded", "t", "<!channel> & <@U1> spent it, @all, see https://evil.example/@x")
    [request] = receiver.requests
    assert request.target == "/services/T0/B0/slacks-own-secret"
    assert json.loads(request.body) == {
        "text": "Outlay: &lt;!channel&gt; &amp; &lt;@\u200bU1&gt; spent it, @\u200ball, "
        "see https:\u200b//evil.example/@\u200bx"
    }


async def test_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with started(tmp_path, AlertSettings()) as told:
        told.notice("budget_exceeded", "payments", "It is spent.")
    assert ("outlay", logging.WARNING, "budget_exceeded: It is spent.") in caplog.record_tuples


@pytest.mark.parametrize(
    "fault",
    [whole(b"", 500), whole(b"", 503), whole(b"", 408), whole(b"", 429), [CUT], [b"nonsense\r\n\r\n"], [30.0]],
    ids=["500", "503", "408", "429", "reset", "nonsense", "hang"],
)
async def test_what_did_not_arrive_is_sent_again(
    tmp_path: Path, receiver: FakeUpstream, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "ANSWER_SECONDS", 0.2)
    receiver.answer(fault, fault, OK)
    async with started(tmp_path, webhook(receiver)) as told:
        told.notice("budget_warn", "a", "first")
        told.notice("budget_warn", "b", "second")
    assert [data_of(request)["message"] for request in receiver.requests] == ["first"] * 3 + ["second"]
    assert len({request.header("webhook-id") for request in receiver.requests[:3]}) == 1
    assert len({request.header("webhook-id") for request in receiver.requests}) == 2
    assert all(is_from_outlay(request) for request in receiver.requests)
    assert results(told) == {"webhook delivered": 2.0}


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_receiver_may_say_how_long_to_wait(tmp_path: Path, receiver: FakeUpstream, form: str) -> None:
    at = int(time.time() + 2)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))
    receiver.answer(whole(b"", 429, [("Retry-After", "1" if form == "seconds" else date)]), OK)
    async with started(tmp_path, SLACK, waits=(60.0,)) as told:
        told.notice("budget_warn", "a", "x")
        begin = time.time()
        await until(lambda: results(told))
    assert results(told) == {"slack delivered": 1.0}
    assert (begin + 1 if form == "seconds" else at) - 0.1 < time.time() < begin + 30


async def test_a_wait_that_a_receiver_asks_for_is_bounded(
    tmp_path: Path, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "WAIT_MAX", 0.05)
    receiver.answer(whole(b"", 429, [("Retry-After", "86400")]), OK)
    async with started(tmp_path, SLACK) as told:
        told.notice("budget_warn", "a", "x")
    assert results(told) == {"slack delivered": 1.0}


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (400, 1), (302, 1), (500, 4)])
async def test_what_cannot_arrive_is_given_up_and_said_later(
    tmp_path: Path, receiver: FakeUpstream, status: int, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    now = 50 * HOUR_US
    echo = b"Cannot POST /services/T0/B0/slacks-own-secret"
    receiver.answer(whole(echo, status, [("Location", "/elsewhere")]))
    async with started(tmp_path, SLACK, lambda: now) as told:
        told.notice("budget_warn", "a", "x", until_us=99 * HOUR_US)
        await until(lambda: results(told))
        assert len(receiver.requests) == tries
        told.notice("budget_warn", "a", "x", until_us=99 * HOUR_US)
        await asyncio.sleep(0.1)
        assert len(receiver.requests) == tries
        now += 10 * 60 * 1_000_000 + 1
        receiver.answer(OK)
        told.notice("budget_warn", "a", "x", until_us=99 * HOUR_US)
    assert len(receiver.requests) == tries + 1
    assert results(told) == {"slack failed": 1.0, "slack delivered": 1.0}
    assert f"did not reach slack: {status}\n" in caplog.text
    assert "slacks-own-secret" not in caplog.text


async def test_a_dead_channel_holds_up_no_other(
    tmp_path: Path, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "DRAIN_SECONDS", 0.1)
    async with fake_upstream() as dead:
        dead.answer([30.0])
        both = msgspec.structs.replace(webhook(dead), slack="env:SLACK_URL")
        async with started(tmp_path, both) as told:
            for number in range(20):
                told.notice("budget_warn", f"b{number}", str(number))
            await until(lambda: results(told).get("slack delivered") == 20.0)
            assert len(dead.requests) == 1
    assert [json.loads(request.body)["text"] for request in receiver.requests] == [f"Outlay: {n}" for n in range(20)]


async def test_a_notice_that_cannot_be_written_down_silences_no_other(tmp_path: Path, receiver: FakeUpstream) -> None:
    async with started(tmp_path, webhook(receiver)) as told:
        told.notice("budget_warn", "a", "odd", value=object())  # type: ignore[arg-type]
        told.notice("budget_warn", "b", "plain")
    assert [data_of(request)["message"] for request in receiver.requests] == ["plain"]


async def test_what_overflows_is_counted(
    tmp_path: Path, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "QUEUE_MAX", 3)
    async with started(tmp_path, SLACK) as told:
        for number in range(5):
            told.notice("budget_warn", f"b{number}", str(number))
        assert results(told) == {"slack dropped": 2.0}
        await until(lambda: len(receiver.requests) == 3)
        told.notice("budget_warn", "b4", "again")  # it was not said
    assert results(told) == {"slack dropped": 2.0, "slack delivered": 4.0}


async def test_the_end_waits_so_long_and_no_longer(
    tmp_path: Path, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "DRAIN_SECONDS", 0.3)
    receiver.answer([30.0])
    begin = time.monotonic()
    async with started(tmp_path, SLACK) as told:
        told.notice("budget_warn", "a", "x", until_us=99 * HOUR_US)
        told.notice("budget_warn", "b", "x", until_us=99 * HOUR_US)
    assert 0.3 <= time.monotonic() - begin < 20
    assert "2 notices could not be delivered" in caplog.text
    receiver.answer(OK)
    receiver.requests.clear()
    async with started(tmp_path, SLACK) as told:  # so they are said by the next one
        told.notice("budget_warn", "a", "x", until_us=99 * HOUR_US)
    assert len(receiver.requests) == 1


async def test_the_same_is_said_once(tmp_path: Path, receiver: FakeUpstream) -> None:
    now = 50 * HOUR_US
    async with started(tmp_path, webhook(receiver), lambda: now) as told:
        for kind, subject, end in [("budget_warn", "a", 60), ("budget_warn", "b", None), ("budget_exceeded", "a", 60)]:
            for _ in range(3):
                told.notice(kind, subject, "x", until_us=end and end * HOUR_US)  # type: ignore[arg-type]
        await until(lambda: len(receiver.requests) == 3)
        now += HOUR_US
        told.notice("budget_warn", "b", "an hour later")
        told.notice("budget_warn", "a", "still the same period", until_us=60 * HOUR_US)
    async with started(tmp_path, webhook(receiver), lambda: now) as told:  # also after a restart
        told.notice("budget_warn", "a", "still the same period", until_us=60 * HOUR_US)
        told.notice("budget_warn", "b", "said before the restart")
        now = 60 * HOUR_US
        told.notice("budget_warn", "a", "the next period", until_us=70 * HOUR_US)
    said = [data_of(request)["message"] for request in receiver.requests]
    assert said == ["x", "x", "x", "an hour later", "the next period"]
    assert (tmp_path / "alerts.json").stat().st_mode & 0o777 == 0o600


async def test_what_was_said_until_an_absurd_time_is_said_again(tmp_path: Path, receiver: FakeUpstream) -> None:
    now = 99_999 * HOUR_US  # a wrong clock
    async with started(tmp_path, SLACK, lambda: now) as told:
        told.notice("budget_warn", "a", "wrong", until_us=now + HOUR_US)
        await until(lambda: len(receiver.requests) == 1)
        now = 50 * HOUR_US
        told.notice("budget_warn", "a", "right", until_us=now + HOUR_US)
        told.notice("budget_warn", "a", "twice", until_us=now + HOUR_US)
    (tmp_path / "alerts.json").write_text(json.dumps({"said": {"slack budget_warn b": 99_999 * HOUR_US}}))
    async with started(tmp_path, SLACK, lambda: now) as told:
        told.notice("budget_warn", "b", "at once", until_us=now + 399 * 24 * HOUR_US)
        told.notice("budget_warn", "b", "twice", until_us=now + 399 * 24 * HOUR_US)
    texts = [json.loads(request.body)["text"] for request in receiver.requests]
    assert texts == ["Outlay: wrong", "Outlay: right", "Outlay: at once"]
    assert json.loads((tmp_path / "alerts.json").read_bytes())["said"] == {
        "slack budget_warn b": now + 399 * 24 * HOUR_US
    }


async def test_what_was_said_is_on_the_disk_soon(tmp_path: Path, receiver: FakeUpstream) -> None:
    async with started(tmp_path, SLACK) as told:
        told.notice("budget_warn", "a", "x", until_us=99 * HOUR_US)
        file = tmp_path / "alerts.json"
        await until(
            lambda: file.exists() and json.loads(file.read_bytes())["said"] == {"slack budget_warn a": 99 * HOUR_US}
        )


async def test_gateways_on_one_folder_keep_what_the_others_know(tmp_path: Path, receiver: FakeUpstream) -> None:
    spent = {"list_cost_nano": NANO}
    async with started(tmp_path, SLACK) as one, started(tmp_path, SLACK, lambda: 51 * HOUR_US) as other:
        for told, subject, end in ((one, "both", 60), (other, "both", 70), (one, "ones", 80), (other, "others", 90)):
            told.notice("budget_warn", subject, "x", until_us=end * HOUR_US)
        one.finished(call(key_id="both", **spent))
        one.finished(call(key_id="ones", **spent))
        for _ in range(3):
            other.finished(call(key_id="both", **spent))
        await until(lambda: results(one) == results(other) == {"slack delivered": 2.0})
        other.notice("budget_warn", "short", "x", until_us=51 * HOUR_US + 1)
    kept = json.loads((tmp_path / "alerts.json").read_bytes())
    assert {key.split()[-1]: end // HOUR_US for key, end in kept["said"].items() if not key.endswith("short")} == {
        "both": 70, "ones": 80, "others": 90,
    }  # fmt: skip
    assert {key: (one["hour"], one["spent"] // NANO) for key, one in kept["keys"].items()} == {
        "both": (51, 3), "ones": (50, 1),
    }  # fmt: skip
    async with started(tmp_path, SLACK, lambda: 95 * HOUR_US):
        pass
    assert json.loads((tmp_path / "alerts.json").read_bytes())["said"] == {}
    assert files(tmp_path) == {"alerts.json", "alerts.lock"}


async def test_the_last_state_is_written_last(tmp_path: Path, receiver: FakeUpstream) -> None:
    """The gateway ends while the write before waits for another gateway's lock."""
    lock = os.open(tmp_path / "alerts.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    told = Alerts(SLACK, tmp_path, Telemetry(), clock=lambda: 50 * HOUR_US)
    told.start()
    told.finished(call(key_id="k", list_cost_nano=NANO))
    await until(lambda: told._writer._threads)
    for _ in range(4):
        told.finished(call(key_id="k", list_cost_nano=NANO))
    end = asyncio.create_task(told.stop())
    await asyncio.sleep(0.1)
    assert not end.done()
    os.close(lock)
    await end
    assert json.loads((tmp_path / "alerts.json").read_bytes())["keys"]["k"]["spent"] == 5 * NANO


async def test_what_is_remembered_of_notices_is_bounded(
    tmp_path: Path, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "SAID_MAX", 40)
    async with started(tmp_path, SLACK) as told:
        for number in range(200):
            told.notice("budget_warn", f"b{number}", "x")
            assert len(told._said) <= 40
        told.notice("budget_warn", "b199", "x")
        await until(lambda: results(told).get("slack delivered") == 200.0)


async def test_a_damaged_file_is_no_reason_to_stop(tmp_path: Path, receiver: FakeUpstream) -> None:
    (tmp_path / "alerts.json").write_bytes(b'{"said": [')
    async with started(tmp_path, SLACK) as told:
        told.notice("budget_warn", "a", "x")
    assert len(receiver.requests) == 1


async def test_a_channel_that_is_not_set_up_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(tmp_path, AlertSettings(slack="env:NOT_SET_ANYWHERE", log=False)) as told:
        told.notice("budget_warn", "a", "x")
    assert "no notices go to [alerts] slack: env:NOT_SET_ANYWHERE is not set" in caplog.text


async def test_a_fast_key_is_told_without_its_person_and_its_usual_survives_a_restart(
    tmp_path: Path, receiver: FakeUpstream
) -> None:
    now = 50 * HOUR_US
    made = {"key_id": "key_1", "team_id": "payments", "user_id": "ada@example.com"}
    async with started(tmp_path, webhook(receiver), lambda: now) as told:
        for _ in range(8):
            told.finished(call(**made, list_cost_nano=2 * NANO))
            now += HOUR_US
    async with started(tmp_path, webhook(receiver), lambda: now) as told:
        for _ in range(5):
            told.finished(call(**made, list_cost_nano=9 * NANO))
        now += HOUR_US
        told.finished(call(**made, list_cost_nano=30 * NANO))
    first, second = receiver.requests
    assert data_of(first) == {
        "subject": "key_1",
        "message": "The key key_1 of team payments has spent $18.00 since 1970-01-03T10:00:00Z; usually it spends "
        "$2.00 an hour. If nobody expects that, `outlay keys revoke key_1` stops it.",
        "key_id": "key_1",
        "team_id": "payments",
        "since": "1970-01-03T10:00:00Z",
        "spent_usd": "18.000000000",
        "usual_usd": "2.000000000",
    }
    assert json.loads(second.body)["type"] == "spend_velocity"
    assert b"ada" not in first.body + second.body + (tmp_path / "alerts.json").read_bytes()


# -- on a running gateway ---------------------------------------------------------------------------------------------


async def test_a_runaway_task_is_told(start_gateway: StartGateway, receiver: FakeUpstream) -> None:
    of = msgspec.structs.replace(webhook(receiver), runaway_calls=3)
    async with start_gateway(alerts=of) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        for _ in range(5):
            async with gateway.post("/v1/chat/completions", CHAT, x_outlay_task="loop-1", x_outlay_ticket="PAY-7"):
                pass
        await until(lambda: receiver.requests)
    [request] = receiver.requests
    assert is_from_outlay(request)
    data = data_of(request)
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert list(data) == list(json.loads(example)["data"])
    assert (data["subject"], data["calls"], data["tickets"], data["team_id"]) == ("loop-1", 3, "PAY-7", "payments")
    assert "The task loop-1 (ticket PAY-7, key " in data["message"]
    for secret in (b"secret plan", gateway.key.encode(), b"dev-1"):
        assert secret not in request.body


async def test_calls_never_wait_for_a_notice(
    start_gateway: StartGateway, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "DRAIN_SECONDS", 0.1)
    receiver.answer([30.0])
    of = msgspec.structs.replace(webhook(receiver), slack="env:SLACK_URL", runaway_calls=1)

    async def ask(gateway: Running, number: int) -> None:
        async with gateway.post("/v1/chat/completions", CHAT, x_outlay_task=f"t{number}") as response:
            assert response.status == 200
            await response.read()

    async with start_gateway(alerts=of) as gateway:
        gateway.upstream.answer(whole(ANSWER))
        begin = time.monotonic()
        for number in range(30):
            await ask(gateway, number)
        assert time.monotonic() - begin < 25
        assert len(receiver.requests) == 2  # one for each channel, and both hang


# -- the command ------------------------------------------------------------------------------------------------------


async def tried(tmp_path: Path, section: str, *options: str) -> Any:
    file = tmp_path / "outlay.toml"
    file.write_text(f"[alerts]\n{section}", encoding="utf-8")
    arguments = ["alerts", "test", "--config", str(file), *options]
    return await asyncio.to_thread(CliRunner().invoke, outlay, arguments)


async def test_each_channel_is_tried(tmp_path: Path, receiver: FakeUpstream) -> None:
    receiver.answer(OK, whole(b"Cannot POST /hook", 403))
    section = f'slack = "env:SLACK_URL"\nwebhook = "{receiver.url}/hook"\nwebhook_secret = "env:WEBHOOK_SECRET"\n'
    done = await tried(tmp_path, section)
    assert done.exit_code == 1
    assert done.stdout == "ok     log: written\nok     slack: 200\nfailed webhook: 403\n"
    slack, hook = receiver.requests
    assert "This is a test of Outlay's notices" in json.loads(slack.body)["text"]
    assert json.loads(hook.body)["type"] == "test"
    assert is_from_outlay(hook)
    receiver.answer(OK)
    done = await tried(tmp_path, "slack = 'env:SLACK_URL'", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)[1] == {"channel": "slack", "delivered": True, "detail": "200"}


async def test_a_channel_that_cannot_be_tried_is_told(tmp_path: Path, receiver: FakeUpstream) -> None:
    done = await tried(tmp_path, "slack = 'env:NOT_SET_ANYWHERE'\nlog = false")
    assert (done.exit_code, done.stdout) == (
        1, "failed slack: env:NOT_SET_ANYWHERE is not set, or cannot be read, here\n",
    )  # fmt: skip
    (tmp_path / "url").write_text("hooks.slack.com/services/slacks-own-secret", encoding="utf-8")
    done = await tried(tmp_path, f"slack = 'file:{tmp_path / 'url'}'\nlog = false")
    assert "holds no address: it must begin with https://" in done.stdout
    assert "slacks-own-secret" not in done.output
    done = await tried(tmp_path, "log = false")
    assert isinstance(done.exception, UserError)
    assert "no notice goes anywhere" in str(done.exception)


def test_check_names_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outlay.toml").write_text(
        "[alerts]\nslack = 'env:NOT_SET_ANYWHERE'\nwebhook = 'https://x'\nwebhook_secret = 'env:HOME'", encoding="utf-8"
    )
    done = CliRunner().invoke(outlay, ["check", "--offline", "--config", "outlay.toml"])
    assert [line for line in done.output.splitlines() if "alerts" in line] == [
        "note   alerts: env:NOT_SET_ANYWHERE is not set: no notices go there"
    ]


def test_every_field_of_a_budgets_notice_is_in_the_docs() -> None:
    said: list[str] = []
    notices = BudgetNotices(lambda *_, until_us, **fields: said.extend(fields), str)
    notices.refused(Account(Budget("b", scopes.parse("team:pay"), NANO), "", FOREVER), 0)
    section = PAGE.partition("Of a budget (`budget_…`):")[2].partition("\n\n|")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `data\.(\w+)` \|", section, re.MULTILINE) == said


async def test_what_was_said_costs_nothing_to_say_again(
    tmp_path: Path, receiver: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(tmp_path, webhook(receiver)) as told:
        written: list[str] = []
        monkeypatch.setattr(alerts, "_time", lambda us: written.append("text") or "then")
        monkeypatch.setattr(alerts, "uuid7", lambda us: written.append("id") or "n")
        for _ in range(AlertSettings().runaway_calls + 50):
            told.finished(call(key_id="k", task_id="t"))
    assert written == ["text", "id"]
    assert len(receiver.requests) == 1


def test_every_setting_and_kind_is_in_the_docs() -> None:
    config = msgspec.structs.fields(AlertSettings)
    assert [field.name for field in config if f"`{field.name}`" not in PAGE and f"{field.name} = " not in PAGE] == [
        "log"
    ]
    kinds = set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## What is told")[2].partition("##")[0], re.MULTILINE))
    assert kinds == set(get_args(channels.Kind))
