"""The owner at the other end of a link: it does what it does in the same process, and nothing stays open that nobody
waits for."""

import asyncio
import contextlib
import functools
import os
import socket
import stat
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import ledger, link, relay, worker
from gateway.admission import Admission, Looked, Wanted
from gateway.alerts import Alerts
from gateway.budget_file import BudgetTable, budget_of
from gateway.budget_notices import BudgetNotices
from gateway.budgets import Budgets
from gateway.call import Ask, Call
from gateway.config import AlertSettings, Config, LedgerSettings
from gateway.errors import Refusal, UserError
from gateway.guards import Guards
from gateway.late import Late
from gateway.ledger import Ledger, now_us
from gateway.limits import Limits, LimitTable
from gateway.link import Link
from gateway.owner import LocalOwner, Owner
from gateway.prices import DEFAULT_BOOK, PriceBook
from gateway.quotes import Quotes
from gateway.remote import RemoteOwner
from gateway.sessions import TOLD_US, Remembered, Sessions
from gateway.telemetry import Telemetry
from gateway.workers import Desk, Workers

NANO = 10**9
WANTED = Wanted(Ask(model="gpt-4.1", max_output_tokens=1000), None, 1000)
"""Costs 8,000,000 nano-USD for its output at most."""


class Seeing:
    """A request, from its own side."""

    def __init__(self, *, other: bool = True) -> None:
        self.looks: list[str | None] = []
        self.checks = 0
        self.may_look = asyncio.Event()
        self.may_look.set()
        self.refusal: Refusal | None = None
        self._other = other

    async def look(self, model: str | None) -> Looked | None:
        self.looks.append(model)
        await self.may_look.wait()
        return None if model is not None and not self._other else Looked(1000, 300, True, False)

    async def check(self) -> None:
        self.checks += 1
        if self.refusal is not None:
            raise self.refusal


@dataclass
class House:
    """An owner, and how it is reached."""

    owner: Owner
    own: LocalOwner
    budgets: Budgets
    limits: Limits
    journal: Ledger
    cut: Callable[[], None] = lambda: None
    telemetry: Telemetry = field(default_factory=Telemetry)

    def state(self) -> tuple[int, int, int]:
        """Spent, held, in flight."""
        accounts = list(self.budgets.accounts())
        return sum(each.spent for each in accounts), sum(each.held for each in accounts), self.limits.in_flight

    def records(self, kind: str) -> list[dict[str, Any]]:
        segments = self.journal.journal.glob("*.jsonl")
        return [record for path in segments for record in ledger.records(path) if record["e"] == kind]


@functools.cache
def _book() -> PriceBook:
    return PriceBook.load(DEFAULT_BOOK)


StartHouse = Callable[..., contextlib.AbstractAsyncContextManager[House]]


@pytest.fixture(params=["here", "linked"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> StartHouse:
    """`house(limit_usd="1", …)`: an owner with a budget, in reach of function calls or at the other end of a link."""

    @contextlib.asynccontextmanager
    async def start(
        linked: bool = request.param == "linked", sync: Any = "interval", **budget: Any
    ) -> AsyncIterator[House]:
        table = BudgetTable(**{"scope": "org", "limit_usd": Decimal(1), **budget})
        config = Config(ledger=LedgerSettings(dir=str(tmp_path), reserve_bytes=0, sync=sync))
        config = msgspec.structs.replace(config, limits={"l": LimitTable(scope="each_key", in_flight=3)})
        journal, late, telemetry = Ledger(config.ledger, "g1"), Late(tmp_path), Telemetry()
        late.start()
        journal.start()
        budgets, limits = Budgets(), Limits(config.limits)
        budgets.replace([budget_of("b", table)])
        admission = Admission(budgets, Quotes(_book()), 5.0, BudgetNotices(lambda *_, **__: None, str))
        alerts = Alerts(AlertSettings(), tmp_path, telemetry)
        own = LocalOwner(journal, late, admission, limits, Guards({}), alerts, telemetry)
        found = House(own, own, budgets, limits, journal, telemetry=telemetry)
        async with contextlib.AsyncExitStack() as stack:
            if linked:
                found.owner, found.cut = await stack.enter_async_context(_linked(config, found))
            yield found
        journal.stop()
        late.stop()

    return start


@contextlib.asynccontextmanager
async def _linked(config: Config, house: House) -> AsyncIterator[tuple[RemoteOwner, Callable[[], None]]]:
    ours, theirs = socket.socketpair()
    desk = Desk(house.own, Workers(config, house.own, house.telemetry, "g1", "book"))
    await desk.link.open(ours)
    desk.link.send(link.Begin(config, "g1", "book"))
    remote = RemoteOwner(Telemetry(), lambda: None)
    begin = await remote.connect(theirs)
    assert (begin.config, begin.gateway_id, begin.price_book) == (config, "g1", "book")
    yield remote, remote._link.close
    await remote.stop()
    await desk.gone.wait()


def call(number: int = 1, **more: Any) -> Call:
    now = now_us()
    given = {"key_id": "k", "provider": "openai", "request_model": "gpt-4.1", "operation": "chat", "stream": False}
    return Call(call_id=f"c{number}", request_id=f"r{number}", attempt=1, started_us=now, **{**given, **more})


def ended(one: Call, cost: int = 1000, result: Any = "completed") -> Call:
    one.result, one.status, one.usage_source = result, 200, "reported"
    one.list_cost_nano = one.contracted_cost_nano = cost
    return one


# -- what one process promises ----------------------------------------------------------------------------------------


async def test_a_call_is_held_recorded_and_settled(house: StartHouse) -> None:
    async with house() as h:
        one, seeing = call(), Seeing()
        grant = await h.owner.open(one, WANTED, seeing)
        assert grant is not None
        assert (one.held_nano, one.budget_action) == (grant.amount, "none")
        assert grant.rate == 8000
        assert h.state() == (0, grant.amount, 1)
        assert [record["held_nano"] for record in h.records("open")] == [grant.amount]
        assert (seeing.looks, seeing.checks) == ([], 0), "there is no need to look"
        assert await h.owner.close(ended(one)) == NANO - 1000
        h.owner.leave(one)
        assert h.state() == (1000, 0, 0)
        assert [record["result"] for record in h.records("close")] == ["completed"]


async def test_near_the_limit_the_request_is_looked_at(house: StartHouse) -> None:
    async with house(limit_usd=Decimal("0.006")) as h:
        one, seeing = call(), Seeing()
        grant = await h.owner.open(one, WANTED, seeing)
        assert grant is not None
        assert (seeing.looks, seeing.checks) == ([None], 1)
        assert one.budget_action == "clamped"
        assert one.max_output_tokens == grant.max_output_tokens
        assert 256 <= (grant.max_output_tokens or 0) < 1000


@pytest.mark.parametrize("can", [True, False])
async def test_another_model_is_asked_for_where_that_can_be(house: StartHouse, can: bool) -> None:
    async with house(limit_usd=Decimal("0.006"), on_exceed="reroute:gpt-4.1-nano") as h:
        one, seeing = call(), Seeing(other=can)
        grant = await h.owner.open(one, WANTED, seeing)
        assert grant is not None
        assert seeing.looks == [None, "gpt-4.1-nano"]
        expected = ("rerouted", "gpt-4.1-nano") if can else ("clamped", "gpt-4.1")
        assert (one.budget_action, one.request_model) == (grant.action, grant.model) == expected


async def test_refusals_say_all_that_they_say_here(house: StartHouse) -> None:
    async with house(limit_usd=Decimal("0.000001"), owner="fin@example.com", period="month") as h:
        one = call()
        with pytest.raises(Refusal, match=r"the budget b .* ask fin@example.com .* for a raise") as refused:
            await h.owner.open(one, WANTED, Seeing())
        assert (refused.value.code, one.budget_action) == ("budget_exceeded", "blocked")
        assert refused.value.resets_at is not None
        assert h.state() == (0, 0, 0)
        assert h.records("open") == []
        await h.owner.refuse(ended(one, 0, "refused"))
        assert [record["budget_action"] for record in h.records("close")] == ["blocked"]
        await h.owner.close(ended(call(2), 2000))
        with pytest.raises(Refusal, match="used up"):
            await h.owner.demand(call(3))


async def test_limits_count_and_give_back(house: StartHouse) -> None:
    async with house() as h:
        calls = [call(number) for number in range(3)]
        for one in calls:
            await h.owner.open(one, WANTED, Seeing())
        with pytest.raises(Refusal, match="allows 3 calls at a time") as refused:
            await h.owner.open(call(4), WANTED, Seeing())
        assert (refused.value.code, refused.value.retry_after) == ("too_many_in_flight", 5)
        _, held, in_flight = h.state()
        assert (held, in_flight) == (3 * (calls[0].held_nano or 0), 3)
        with pytest.raises(Refusal):
            await h.owner.enter(call(5))
        await h.owner.close(ended(calls[0], result="upstream_error"))
        h.owner.leave(calls[0])
        await h.owner.enter(call(5))
        assert h.state()[2] == 3
        h.owner.leave(call(5))
        await h.owner.task(("k", None), (), 1)  # answered after all that was said before
        assert h.state()[2] == 2


async def test_a_key_that_ended_while_its_call_waited(house: StartHouse) -> None:
    async with house(limit_usd=Decimal("0.006")) as h:
        one, seeing = call(), Seeing()
        seeing.refusal = Refusal("unauthenticated", "ended")
        with pytest.raises(Refusal, match="ended"):
            await h.owner.open(one, WANTED, seeing)
        assert (h.state(), h.records("open")) == ((0, 0, 0), [])


async def test_holds_grow_up_to_the_limit(house: StartHouse) -> None:
    wanted = Wanted(Ask(model="gpt-4.1", max_output_tokens=100_000, stream=True), None, 1000)

    class Streams(Seeing):
        async def look(self, model: str | None) -> Looked | None:
            return Looked(1000, 300, False, True)

    async with house(limit_usd=Decimal("0.1"), on_exceed="stop_stream") as h:
        one = call(stream=True)
        grant = await h.owner.open(one, wanted, Streams())
        assert grant is not None
        assert grant.may_stop
        assert await h.owner.grow(one, 40_000_000) == 50_000_000
        assert await h.owner.grow(one, 90_000_000) == 90_000_000
        assert await h.owner.grow(one, 110_000_000) is None
        assert h.state()[1] == 90_000_000


async def test_results_of_a_batch_are_booked_once(house: StartHouse) -> None:
    async with house() as h:
        digests = [bytes([number]) * 8 for number in range(3)]
        assert await h.owner.book([(ended(call(1), 5), digests[0] + digests[1])])
        assert not await h.owner.book([(ended(call(2), 7), digests[1] + digests[2])])
        assert await h.owner.book([(ended(call(3), 7), digests[2])])
        assert h.state()[0] == 12
        assert [record["call_id"] for record in h.records("close")] == ["c1", "c3"]


async def test_a_correction_is_made_once(house: StartHouse) -> None:
    async with house() as h:
        one = ended(call(upstream="openai", upstream_id="resp_1"), 5)
        await h.owner.close(one, is_pending=True)
        for _ in range(2):
            await h.owner.correct("openai/resp_1", msgspec.structs.replace(one, contracted_cost_nano=70))
        assert h.state()[0] == 70
        assert len(h.records("correct")) == 1


async def test_tasks_go_on_until_silence(house: StartHouse) -> None:
    async with house() as h:
        first = await h.owner.task(("k", "curl"), (), NANO)
        assert await h.owner.task(("k", "curl"), ("PAY-1",), 2 * NANO) == first
        assert await h.owner.task(("k", "other"), (), NANO) != first


async def test_the_end_waits_for_the_disk_where_the_settings_say_so(house: StartHouse) -> None:
    async with house(sync="answer") as h:
        await h.owner.open(one := call(), WANTED, Seeing())

        async def close() -> int | None:
            return await h.owner.close(ended(one))

        closing = asyncio.create_task(close())
        await asyncio.sleep(0)
        for _ in range(3):
            await h.owner.task(("k", None), (), 1)
        assert len(h.records("close")) == 1
        assert not closing.done()
        keeping = asyncio.create_task(h.journal.keep())
        assert await asyncio.wait_for(closing, 10) == NANO - 1000
        keeping.cancel()


async def test_a_response_in_a_session_holds_what_is_usual_and_takes_no_place(house: StartHouse) -> None:
    async with house() as h:
        wanted = Wanted(Ask(model="gpt-4.1", max_output_tokens=1000), None, 0, in_session=True)
        seeing = Seeing()
        grant = await h.owner.open(one := call(), wanted, seeing)
        assert grant is not None
        assert grant.amount == grant.ceiling > 0
        assert h.state() == (0, grant.amount, 0)
        await h.owner.close(ended(one))
        assert h.state() == (1000, 0, 0)
        assert seeing.looks == []


# -- what goes wrong between the two ----------------------------------------------------------------------------------


async def test_who_leaves_while_the_request_is_looked_at_holds_nothing(house: StartHouse) -> None:
    async with house(limit_usd=Decimal("0.006")) as h:
        seeing = Seeing()
        seeing.may_look.clear()
        opening = asyncio.create_task(h.owner.open(call(), WANTED, seeing))
        async with asyncio.timeout(5):
            while not seeing.looks:
                await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await h.owner.task(("k", None), (), 1)
        assert (h.state(), h.records("open")) == ((0, 0, 0), [])


async def test_who_leaves_while_it_waits_for_money_gets_none(house: StartHouse) -> None:
    async with house(limit_usd=Decimal("0.011")) as h:
        running, waiting = call(1), call(2)
        await h.owner.open(running, WANTED, Seeing())
        seeing = Seeing()
        opening = asyncio.create_task(h.owner.open(waiting, WANTED, seeing))
        async with asyncio.timeout(5):
            while not seeing.looks:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert not opening.done()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await h.owner.close(ended(running))
        h.owner.leave(running)
        await h.owner.task(("k", None), (), 1)
        assert h.state() == (1000, 0, 0)


@pytest.mark.parametrize("limit_usd", ["1", "0.006"], ids=["at once", "looked at"])
@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_moment_a_call_is_not_left_open(house: StartHouse, turns: int, limit_usd: str) -> None:
    async with house(limit_usd=Decimal(limit_usd)) as h:
        opening = asyncio.create_task(h.owner.open(one := call(), WANTED, Seeing()))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
            await h.owner.close(ended(one, 0))
            h.owner.leave(one)
        for _ in range(3):
            await h.owner.task(("k", None), (), 1)
        assert h.state() == (0, 0, 0)
        closed = [(record["call_id"], record["list_cost_nano"]) for record in h.records("close")]
        assert closed == [(record["call_id"], 0) for record in h.records("open")]


async def test_a_close_goes_through_although_its_caller_is_cancelled(house: StartHouse) -> None:
    async with house() as h:
        await h.owner.open(one := call(), WANTED, Seeing())

        async def close() -> None:
            await h.owner.close(ended(one))

        closing = asyncio.create_task(close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await h.owner.task(("k", None), (), 1)
        assert h.state()[:2] == (1000, 0)
        assert len(h.records("close")) == 1


async def test_what_a_worker_had_under_way_is_interrupted(house: StartHouse) -> None:
    async with house(linked=True) as h:
        calls = [call(number) for number in range(3)]
        for one in calls:
            await h.owner.open(one, WANTED, Seeing())
        await h.owner.close(ended(calls[0]))
        h.cut()
        async with asyncio.timeout(5):
            while h.limits.in_flight:
                await asyncio.sleep(0)
        held = calls[1].held_nano or 0
        assert h.state() == (1000 + 2 * held, 0, 0)
        results = {record["call_id"]: (record["result"], record["held_nano"]) for record in h.records("close")}
        assert results == {"c0": ("completed", held), "c1": ("interrupted", held), "c2": ("interrupted", held)}


# -- messages ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_messages_do_not_depend_on_where_the_bytes_are_cut(contents: list[bytes], data: st.DataObject) -> None:
    async def check() -> None:
        found: list[link.FromWorker] = []
        ours, theirs = socket.socketpair()
        sender: Link[Any] = Link(msgspec.msgpack.Decoder(link.FromWorker), found.append, lambda: None)
        reader: Link[Any] = Link(msgspec.msgpack.Decoder(link.FromWorker), found.append, lambda: None)
        with theirs:
            await sender.open(ours)
            sent = [link.Book(n, [(call(n), content)]) for n, content in enumerate(contents)]
            for message in sent:
                sender.send(message)
            sender.close()
            await asyncio.sleep(0)
            wire = b""
            while piece := await asyncio.get_running_loop().sock_recv(theirs, 2**16):
                wire += piece
        while wire:
            size = data.draw(st.integers(1, len(wire)))
            reader.data_received(wire[:size])
            wire = wire[size:]
        assert found == sent

    asyncio.run(check())


def test_what_workers_count_is_summed() -> None:
    workers, owner = [Telemetry(), Telemetry()], Telemetry()
    for number, each in enumerate(workers, start=1):
        each.refusals.labels("forbidden").inc(number)
        each.read_on.inc()
        each.in_flight.value += number
        each.breakers_open.labels("openai").set_function(lambda number=number: number)
    for _ in range(2):  # nothing twice
        for each in workers:
            owner.add(each.gained())
    owner.show(sample for each in workers for sample in each.levels())
    lines = owner.render().decode().splitlines()
    assert 'outlay_refusals_total{code="forbidden"} 3.0' in lines
    assert "outlay_read_on_calls_total 2.0" in lines
    assert "outlay_calls_in_flight 3.0" in lines
    assert 'outlay_breakers_open{upstream="openai"} 3.0' in lines
    workers[0].refusals.labels("forbidden").inc()
    owner.add(workers[0].gained())
    owner.show([])
    lines = owner.render().decode().splitlines()
    assert 'outlay_refusals_total{code="forbidden"} 4.0' in lines
    assert "outlay_calls_in_flight 0.0" in lines


def test_what_sessions_say_is_told_when_it_is_new() -> None:
    told: Counter[str] = Counter()
    own = Sessions(lambda who, session, said: told.update([f"{session} {said.tickets[0]}"]))
    others, who, at = Sessions(), ("k", None), NANO

    def says(session: str, ticket: str, at_us: int) -> None:
        own.remember(who, session, Remembered((ticket,), None, None, False, at_us))

    for _ in range(3):
        says("s", "PAY-1", at)
        own.recall(who, "s", at)
    assert told == {"s PAY-1": 1}
    says("s", "PAY-2", at)
    assert told == {"s PAY-1": 1, "s PAY-2": 1}
    own.recall(who, "s", at + TOLD_US + 1)
    assert told["s PAY-2"] == 2, "that it goes on"
    for known in own.all():
        others.take(*known)
    found = others.recall(who, "s", at)
    assert found is not None
    assert found.tickets == ("PAY-2",)


async def test_a_worker_takes_no_other_prices_than_the_owner(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    config = Config(ledger=LedgerSettings(dir=str(tmp_path)))
    owner: Link[Any] = Link(msgspec.msgpack.Decoder(link.FromWorker), lambda message: None, lambda: None)
    await owner.open(ours)
    owner.send(link.Begin(config, "g1", "another book"))
    with pytest.raises(UserError, match=r"prices.toml has changed"):
        await worker.work(theirs, [])
    owner.close()


def test_the_owners_socket_is_its_users_alone_and_none_is_left(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    left = socket.socket(socket.AF_UNIX)
    with relay.listener(deep, "other") as other, relay._folder(deep) as folder:
        other.listen()
        left.bind(str(folder / "gateway-crashed.sock"))
        left.close()
        with relay.listener(deep, "own"):
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in deep.iterdir()}
            assert found == {"gateway-other.sock": 0o600, "gateway-own.sock": 0o600}
    assert list(deep.iterdir()) == []


async def test_a_senseless_maximum_costs_nobody_else_anything(house: StartHouse) -> None:
    """What it could cost at most fits into no column and no message."""
    wanted = Wanted(Ask(model="gpt-4.1", max_output_tokens=2**53), None, 1000)
    async with house(on_exceed="warn") as found:
        one = call(1, key_id=None)
        grant = await found.owner.open(one, wanted, Seeing())
        assert grant is not None
        assert grant.ceiling < 2**63
        assert (await found.owner.open(call(2, key_id=None), WANTED, Seeing())) is not None  # the link is whole
        await found.owner.close(ended(one))
        await found.owner.close(ended(call(2, key_id=None)))
        assert found.state() == (2000, 0, 0)


async def test_what_cannot_be_written_is_not_half_written() -> None:
    got: list[Any] = []
    ours, theirs = socket.socketpair()
    one = Link[Any](msgspec.msgpack.Decoder(Any), lambda _: None, lambda: None)
    other = Link(msgspec.msgpack.Decoder(link.Told), got.append, lambda: None)
    await one.open(ours)
    await other.open(theirs)
    one.send(link.Told(1, "before"))
    with pytest.raises((OverflowError, msgspec.EncodeError, TypeError)):
        one.send(link.Told(2, ["x", 2**70]))
    one.send(link.Told(3, "after"))
    async with asyncio.timeout(10):
        while len(got) < 2:
            await asyncio.sleep(0)
    assert got == [link.Told(1, "before"), link.Told(3, "after")]
    one.close()
    other.close()
    await asyncio.sleep(0)


async def test_a_call_whose_opening_cannot_be_told_is_given_back(tmp_path: Path, house: StartHouse) -> None:
    async with house(linked=False) as found:
        ours, theirs = socket.socketpair()
        desk = Desk(found.own, Workers(Config(), found.own, found.telemetry, "g1", "book"))
        await desk.link.open(ours)
        said = desk.link.send

        def send(message: Any) -> None:
            if isinstance(message, link.Told):
                raise OverflowError("it does not fit")
            said(message)

        desk.link.send = send  # type: ignore[method-assign]
        desk._received(link.Open(1, call(1), WANTED))
        assert found.state()[1:] == (0, 0)
        assert [record["result"] for record in found.records("close")] == ["interrupted"]
        theirs.close()
        await desk.gone.wait()


@pytest.mark.parametrize("house", ["here"], indirect=True)
async def test_results_of_a_batch_are_booked_on_the_disk_or_not_at_all(house: StartHouse) -> None:
    """A crash would lose what waits in memory: a batch was never opened."""
    async with house() as found:
        whole, found.journal._fd = found.journal._fd, os.open("/dev/full", os.O_WRONLY)
        batch = ended(call(1, operation="batch"))
        with pytest.raises(OSError, match="cannot be written"):
            await found.owner.book([(batch, b"12345678")])
        os.close(found.journal._fd)
        found.journal._fd = whole
        assert await found.owner.book([(batch, b"12345678")])
        assert len(found.records("close")) == 1


async def test_what_a_stop_could_not_write_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Ledger(LedgerSettings(dir=str(tmp_path), reserve_bytes=0, on_failure="forward"), "g1")
    journal.start()
    whole, journal._fd = journal._fd, os.open("/dev/full", os.O_WRONLY)
    journal.open(call(1))
    assert journal.close(ended(call(1))) is not None
    assert journal.stop() == 1
    os.close(whole)
    assert "1 finished calls could not be recorded" in caplog.text
