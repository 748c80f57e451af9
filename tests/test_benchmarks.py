"""The benchmark of the gateway: that it runs, that what it prints is made of what it measured, and that it can fail."""

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import Telemetry
from tests.benchmarks import bench_gateway
from tests.benchmarks.bench_gateway import CELLS, Bench, Row, main, report
from tests.benchmarks.harness import answers, targets
from tests.benchmarks.harness.bodies import NUMBER, SIZES, Size, body
from tests.benchmarks.harness.load import Job, Load
from tests.benchmarks.harness.upstream import is_streamed, model_of
from tests.benchmarks.harness.wire import Incoming
from tests.journals import call

PAGE = (Path(__file__).parent.parent / "docs/performance.md").read_text(encoding="utf-8")
APIS = tuple(answers.PATHS)


def test_it_measures_the_bare_pass_through_and_the_gateway() -> None:
    bench = Bench(seconds=0.05, calls=0)
    bench.run(["ns_small", "st200b"], ["bare", "outlay"], rounds=1)
    assert bench.complaints == []
    assert [(row.cell, row.target) for row in bench.rows] == [
        ("ns_small", "bare"), ("ns_small", "outlay"), ("st200b", "bare"), ("st200b", "outlay"),
    ]  # fmt: skip
    for row in bench.rows:
        assert row.errors == {}
        assert row.figures.keys() == {"cpu_us", "per_core", "reached"}
        assert min(row.figures.values()) > 0
    table = report(bench.rows, ["bare", "outlay"])
    assert table.count("| ns_small") == 3
    assert "×" in table


# -- what it prints ------------------------------------------------------------------------------------------------


def test_ratios_are_those_of_the_same_round() -> None:
    found = {
        ("bare", 1): 100,
        ("outlay", 1): 50,
        ("bare", 2): 300,
        ("outlay", 2): 600,
        ("bare", 3): 200,
        ("outlay", 3): 180,
    }
    rows = [Row(number, "ns_small", target, {"cpu_us": cpu}, {}) for (target, number), cpu in found.items()]
    line = bench_gateway.Line("", "ns_small", "cpu_us", has_ratio=True)
    assert bench_gateway.shown(rows, line, "outlay") == "180 (0.90 ×)"
    assert bench_gateway.shown(rows, line, "bare") == "200"
    assert bench_gateway.shown(rows, line, "nginx") == "–"


def test_a_chunk_costs_the_difference_of_two_streams_and_errors_are_marked() -> None:
    rows = [Row(1, "st50b", "bare", {"cpu_us": 400.0}, {}), Row(1, "st200b", "bare", {"cpu_us": 700.0}, {"cut": 1})]
    assert bench_gateway.shown(rows, bench_gateway.Line("", "st200b-st50b", "cpu_us", True, 2), "bare") == "2.00 !"


def test_every_cell_and_target_is_documented_and_priced() -> None:
    assert [name for name in (*CELLS, *targets.RECIPES) if f"`{name}`" not in PAGE] == []
    assert {variable for variable, _ in targets.PEERS.values() if f"`{variable}`" not in PAGE} == set()
    assert {cell.model.rpartition("-c")[2] for cell in CELLS.values()} <= set(targets.SHAPES)


def test_an_unknown_cell_is_a_mistake_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--cells", "ns_tiny"])
    assert ended.value.code == 2
    assert "ns_tiny is no cell" in capsys.readouterr().err


# -- what it checks ------------------------------------------------------------------------------------------------


def metrics(priced: int, unpriced: int = 0, budgets: int = len(targets.COVERING)) -> str:
    """Of a gateway that closed so many calls."""
    telemetry = Telemetry()
    for cost in [1_000] * priced + [None] * unpriced:
        status = "exact" if cost else "unpriced"
        telemetry.finished(call(tickets=("BENCH-7",), list_cost_nano=cost, price_status=status))
    for number in range(budgets):
        telemetry._budgets["spent"].labels(f"b{number}").set(1)
    return telemetry.render().decode()


def test_lost_and_unpriced_calls_are_told() -> None:
    assert targets.miscounted(metrics(3), 3) == []
    assert targets.miscounted(metrics(3), 4) == ["4 calls were answered, 3 counted as completed and priced"]
    assert targets.miscounted(metrics(3, unpriced=1), 3) == ["outlay_unpriced_calls_total is 1"]
    assert targets.miscounted(metrics(1, budgets=2), 1) == ["2 budgets have spent anything, and 6 should have"]


GOOD = answers.script("chat", "mock-c50d0").burst
WRONG = {
    "status 503": GOOD.replace(b"200 OK", b"503 No", 1),
    "no terminal event": GOOD.replace(b"[DONE]", b"[OVER]"),
    "chunks missing": GOOD.replace(b"@T", b"#T", 1),
    "other length": GOOD.replace(b"text/event-stream; charset=utf-8", b"text/event-stream").replace(
        b"0\r\n\r\n", b"1\r\n\n\r\n0\r\n\r\n"
    ),
    "unreadable": GOOD.replace(b"\r\n\r\n", b"\r\n\r\nnone\r\n", 1),
    "cut": GOOD[:-7],
}


async def loaded(answer: bytes) -> dict[str, int]:
    """The errors of three calls to a server that gives this answer and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = Incoming()
        while not request.is_whole:
            request.feed(await reader.read(65_536) or b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        job = Job(
            port=port, headers={}, api="chat", size="small", model="mock-c50d0", stream=True, connections=1, calls=3,
        )  # fmt: skip
        outcome = await Load(job).run()
    assert outcome.ok + sum(outcome.errors.values()) == 3
    return outcome.errors


@pytest.mark.parametrize("error", WRONG)
async def test_a_wrong_answer_is_an_error(error: str) -> None:
    assert await loaded(with_close(WRONG[error])) == {error: 3}


async def test_a_good_answer_is_none() -> None:
    assert await loaded(with_close(GOOD)) == {}


def with_close(answer: bytes) -> bytes:
    """The server hangs up after each answer."""
    return answer.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)


# -- its parts -----------------------------------------------------------------------------------------------------


@given(api=st.sampled_from(APIS), stream=st.booleans(), cuts=st.sets(st.integers(0, 4000), max_size=20))
def test_where_a_message_ends_does_not_depend_on_how_it_is_cut(api: answers.Api, stream: bool, cuts: set[int]) -> None:
    script = answers.script(api, "mock-c4d0")
    whole = script.burst if stream else script.plain
    incoming = Incoming()
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(whole)), len(whole)]
    for start, end in itertools.pairwise(edges):
        assert not incoming.is_whole
        incoming.feed(whole[start:end])
    assert incoming.is_whole
    assert len(incoming.body()) == answers.payload_bytes(api, "mock-c4d0", stream)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stream", [False, True])
def test_bodies_have_their_size_and_ask_for_what_they_should(size: Size, api: answers.Api, stream: bool) -> None:
    made = body(size, "mock-c50d10", stream, api)
    wanted = {"small": 1_000, "medium": 30_000, "large": 500_000}[size]
    assert 0.8 * wanted < len(made) < 1.3 * wanted
    assert made.count(NUMBER.encode()) == 1
    assert model_of(made) == "mock-c50d10"
    assert is_streamed(made) is stream
