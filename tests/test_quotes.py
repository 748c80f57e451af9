"""What a call may cost at most: which rates can apply, what is learned, and how soon that is forgotten."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Ask, Call
from gateway.ledger import now_us
from gateway.prices import DEFAULT_BOOK, PriceBook
from gateway.prices.overrides import load_overrides
from gateway.quotes import (
    OUTPUT_MOST,
    OVERHEAD_TOKENS,
    QUANTILE,
    REFERRED_TOKENS,
    SEEN,
    SEEN_MIN,
    TOKENS_MAX,
    Estimate,
    Last,
    Quotes,
)

BOOK = PriceBook.load(DEFAULT_BOOK)
GPT = {"provider": "openai", "request_model": "gpt-4.1"}
BYTES = 8000


@pytest.fixture
def quotes() -> Quotes:
    return Quotes(BOOK)


def call(**fields: Any) -> Call:
    given = {"call_id": "c", "request_id": "r", "attempt": 1, "started_us": now_us(), "operation": "chat", **GPT}
    return Call(**given | fields)


def quote(quotes: Quotes, ask: Ask, of: Call | None = None, **more: Any) -> Estimate:
    found = quotes.quote(of or call(), ask, None, BYTES, **more)
    assert found is not None
    return found


def bill(quotes: Quotes, ask: Ask, estimate: Estimate, **fields: Any) -> None:
    """A call that was answered and billed."""
    given = {"usage_source": "reported", "list_cost_nano": 10**6, "input_tokens": 2000, "output_tokens": 10}
    quotes.learn(call(**given | fields), estimate, BYTES, 100)


# -- input that is not in the request -----------------------------------------------------------------------------


def test_what_one_request_referred_to_raises_those_alone_that_refer(quotes: Quotes) -> None:
    plain, refers = Ask(max_output_tokens=100), Ask(max_output_tokens=100, refers=True)
    before = quote(quotes, plain)
    bill(quotes, refers, quote(quotes, refers), input_tokens=300_000)
    assert quote(quotes, plain) == before
    assert quote(quotes, refers).input_tokens >= 300_000
    assert quote(quotes, refers, call(client="codex")).input_tokens == before.input_tokens + REFERRED_TOKENS
    assert quote(quotes, refers, call(request_model="gpt-4.1-nano")).input_tokens < 300_000


def test_what_was_learned_is_forgotten(quotes: Quotes) -> None:
    refers = Ask(max_output_tokens=100, refers=True)
    first = quote(quotes, refers)
    bill(quotes, refers, first, input_tokens=300_000)
    raised = quote(quotes, refers)
    for _ in range(SEEN - 1):
        bill(quotes, refers, raised, input_tokens=2000)
    assert quote(quotes, refers).input_tokens == raised.input_tokens, "it does not feed on itself either"
    bill(quotes, refers, raised, input_tokens=2000)
    assert quote(quotes, refers).input_tokens == BYTES + OVERHEAD_TOKENS


@pytest.mark.parametrize("counted_then", [None, 2500])
@pytest.mark.parametrize("counted_now", [None, 2500])
def test_what_was_billed_once_is_bounded_the_next_time(
    quotes: Quotes, counted_then: int | None, counted_now: int | None
) -> None:
    refers = Ask(max_output_tokens=100, refers=True)
    bill(quotes, refers, quote(quotes, refers, input_tokens=counted_then), input_tokens=40_000)
    assert quote(quotes, refers, input_tokens=counted_now).input_tokens >= 40_000


def test_what_was_counted_is_the_bound(quotes: Quotes) -> None:
    ask = Ask(max_output_tokens=100)
    assert quote(quotes, ask, input_tokens=2000).input_tokens == 2000 + OVERHEAD_TOKENS
    assert quote(quotes, ask, input_tokens=20_000).input_tokens == 20_000 + OVERHEAD_TOKENS, "an image in few bytes"


def test_fees_by_use_are_learned(quotes: Quotes) -> None:
    ask = Ask(max_output_tokens=100)
    before = quote(quotes, ask)
    bill(quotes, ask, before, other_cost_nano=30_000_000)
    assert quote(quotes, ask).quote.fixed == before.quote.fixed + 30_000_000
    for _ in range(SEEN):
        bill(quotes, ask, quote(quotes, ask), other_cost_nano=0)
    assert quote(quotes, ask).quote.fixed == before.quote.fixed


# -- rates that can apply -----------------------------------------------------------------------------------------


def test_a_tier_that_the_provider_chose_counts_while_it_does(quotes: Quotes) -> None:
    model = call(request_model="gpt-5")
    ask = Ask(max_output_tokens=100)
    plain = quote(quotes, ask, model)
    priority = quote(quotes, Ask(max_output_tokens=100, service_tier="priority"), model)
    assert priority.quote.rate == 2 * plain.quote.rate
    quotes.learn(_billed("gpt-5", "priority"), plain, BYTES, 100)
    assert quote(quotes, ask, model).quote.rate == priority.quote.rate
    for _ in range(SEEN):
        quotes.learn(_billed("gpt-5", "default"), plain, BYTES, 100)
    assert quote(quotes, ask, model).quote.rate == plain.quote.rate


def _billed(model: str, tier: str) -> Call:
    return call(
        request_model=model, service_tier=tier, usage_source="reported", list_cost_nano=1, input_tokens=1
    )  # fmt: skip


def test_fast_mode_and_the_region_of_the_request_raise_the_rates(quotes: Quotes) -> None:
    model = call(provider="anthropic", request_model="claude-opus-4-6")
    rates = [
        quote(quotes, Ask(max_output_tokens=1, service_tier=tier, region=region), model).quote.rate
        for tier, region in ((None, None), ("fast", None), (None, "us"), ("fast", "us"), (None, "global"))
    ]
    assert rates == [25_000, 150_000, 27_500, 165_000, 25_000]


def test_a_surcharge_raises_the_worst_and_a_discount_does_not_lower_it(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[discount]]\nprovider = "openai"\nmodel = "gpt-4.1"\npercent = -20\n'
        '[[discount]]\nprovider = "openai"\nmodel = "gpt-4.1-*"\npercent = 20\n'
    )
    book = BOOK.with_overrides(load_overrides(path))
    for model, factor in (("gpt-4.1", 1.2), ("gpt-4.1-nano", 1.0), ("gpt-5", 1.0)):
        plain, own = (each.worst("openai", model, now_us() // 10**6, 1000) for each in (BOOK, book))
        assert plain is not None
        assert own is not None
        assert own == tuple(round(nano * factor) for nano in plain)


# -- output -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "model", "ask", "tokens"),
    [
        ("chat", "gpt-4.1", Ask(), TOKENS_MAX),
        ("chat", "gpt-4.1", Ask(max_output_tokens=0), 0),
        ("chat", "gpt-4.1", Ask(max_output_tokens=100, choices=3), 300),
        ("image_generation", "gpt-image-1", Ask(units={"images": 3.0}), 3 * OUTPUT_MOST["image_generation"].tokens),
        ("speech", "gpt-4o-mini-tts", Ask(units={"characters": 100.0}), 800),
        ("transcription", "gpt-4o-transcribe", Ask(), 16_000),
        ("realtime", "gpt-realtime", Ask(stream=True, refers=True), 8_192),
        ("embeddings", "text-embedding-3-small", Ask(), 0),
    ],
)
def test_each_operation_has_its_most_output(quotes: Quotes, operation: str, model: str, ask: Ask, tokens: int) -> None:
    found = quote(quotes, ask, call(operation=operation, request_model=model)).quote
    assert found.tokens == tokens
    assert found.clamps == (operation == "chat" and tokens > 0)


@given(st.lists(st.integers(0, 9) | st.floats(0, 9), min_size=1, max_size=3 * SEEN))
def test_of_the_last_calls_the_highest_are_known(values: list[float]) -> None:
    last = Last[float]()
    for value in values:
        last.add(value)
    window = sorted(values[-SEEN:])
    assert last.highest == max(window)
    assert last.high == (window[int(len(window) * QUANTILE)] if len(window) >= SEEN_MIN else None)


@given(
    st.lists(
        st.tuples(
            st.integers(1, SEEN), st.sampled_from((0, 0, 7, 900)), st.sampled_from((0, 0, 5)),
            st.sampled_from((None, None, "default", "priority")),
        ),
        max_size=6,
    )
)  # fmt: skip
def test_what_requests_did_not_show_is_known_of_the_last_calls(runs: list[tuple[int, int, int, str | None]]) -> None:
    quotes, ask, model = Quotes(BOOK), Ask(max_output_tokens=100), {"request_model": "gpt-5"}
    plain = quote(quotes, ask, call(**model))
    for times, surplus, fees, tier in runs:
        fields = {"input_tokens": plain.known_tokens + surplus, "other_cost_nano": fees, "service_tier": tier}
        for _ in range(times):
            bill(quotes, ask, plain, **model | fields)
    last = [each for times, *each in runs for _ in range(times)][-SEEN:]
    surplus, fees = (max((each[index] for each in last), default=0) for index in (0, 1))
    factor = 2 if any(tier == "priority" for _, _, tier in last) else 1
    seen = quote(quotes, ask, call(**model))
    assert (seen.input_tokens, seen.quote.rate) == (plain.input_tokens + surplus, factor * plain.quote.rate)
    assert seen.quote.fixed == fees + seen.input_tokens * factor * plain.quote.fixed // plain.input_tokens


def test_calls_without_a_body_teach_too(quotes: Quotes) -> None:
    session, ask = call(operation="realtime", request_model="gpt-realtime"), Ask(stream=True, refers=True)
    for _ in range(4):
        estimate = quotes.quote(session, ask, None, 0)
        assert estimate is not None
        quotes.learn(
            call(
                operation="realtime", request_model="gpt-realtime", usage_source="reported", list_cost_nano=9 * 10**6,
                output_cost_nano=10**6, input_tokens=90_000, output_tokens=50,
            ),
            estimate, 0, 0,
        )  # fmt: skip
    learned = quotes.quote(session, ask, None, 0)
    assert learned is not None
    assert learned.input_tokens >= 90_000
    assert (learned.quote.usual_tokens, learned.input_cost) == (50, 8 * 10**6)


def test_a_stream_that_nothing_can_end_does_not_stop(quotes: Quotes) -> None:
    stops = [
        quote(quotes, Ask(stream=stream), stops=given).quote.stops
        for stream in (True, False)
        for given in (None, True, False)
    ]
    assert stops == [True, True, False, False, False, False]
