"""`outlay prices`, as a person runs it: over real data folders and snapshots."""

import gzip
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

import analytics
from analytics import commands, lake, rerating, verifying
from gateway import cli, prices
from gateway.call import NANO, Call, Cost, Usage
from gateway.config import LedgerSettings
from gateway.ids import uuid7
from gateway.ledger import Correction, Ledger, encode_correction, write_corrections
from gateway.prices import PriceBook
from gateway.prices.supplement import SUPPLEMENT
from tests.journals import NOON, Segment, micros, segment

Run = Callable[..., tuple[int, str, str]]
BOOK = PriceBook.load(prices.DEFAULT_BOOK)
RECENT = datetime.now(UTC) - timedelta(days=2)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["prices", *arguments])
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


def booked(book: PriceBook = BOOK, at: datetime = NOON, region: str | None = None, **fields: Any) -> Call:
    """A call as a gateway prices it."""
    call_id = uuid7(micros(at))
    given: dict[str, Any] = {
        "provider": "openai",
        "request_model": "gpt-4.1",
        "input_tokens": 1000,
        "output_tokens": 500,
    }
    given |= {"result": "completed", "usage_source": "reported"}
    call = Call(call_id=call_id, request_id=call_id, attempt=1, started_us=micros(at), **(given | fields))
    usage = Usage(**{name: getattr(call, name) for name in Usage.__struct_fields__})
    cost = book.price(
        call.provider or "", (call.response_model, call.request_model), usage, at, service_tier=call.service_tier,
        batch=call.operation == "batch", region=region, reported_nano=call.provider_cost_nano,
    )  # fmt: skip
    return priced(call, cost)


def priced(call: Call, cost: Cost) -> Call:
    amounts = {
        f"{name.removesuffix('_nano')}_cost_nano": getattr(cost, name)
        for name in cost.__struct_fields__
        if name.endswith("_nano")
    }
    return msgspec.structs.replace(
        call, price_status=cost.status, price_id=cost.price_id, price_book=cost.price_book, **amounts
    )


def other_snapshot(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The shipped snapshot with a change of its payload, and the right hash."""
    head, _, payload = gzip.decompress(prices.DEFAULT_BOOK.read_bytes()).partition(b"\n")
    data = json.loads(payload)
    change(data)
    payload = json.dumps(data).encode()
    header = json.loads(head) | {"source_version": "9.9.9", "sha256": hashlib.sha256(payload).hexdigest()}
    path.write_bytes(gzip.compress(json.dumps(header).encode() + b"\n" + payload + b"\n"))
    return path


def models(data: dict[str, Any], provider: str = "openai") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(each for each in data["providers"] if each["id"] == provider)["models"]
    return found


def dearer(data: dict[str, Any]) -> None:
    """gpt-4.1 costs twice as much for input; gpt-4.1-mini is gone, gpt-new has come."""
    for model in models(data):
        if model["id"] == "gpt-4.1":
            model["periods"][0]["rates"]["input_mtok"] = "4"
            for variant in model["variants"]:
                if "input_mtok" in variant.get("rates", {}):
                    variant["rates"]["input_mtok"] = "3"
    gone = next(model for model in models(data) if model["id"] == "gpt-4.1-mini")
    models(data).remove(gone)
    models(data).append({**gone, "id": "gpt-new", "match": {"equals": "gpt-new"}})


# -- show ----------------------------------------------------------------------------------------------------------


def test_show_has_each_tier_period_and_band(run: Run) -> None:
    code, out, _ = run("show", "claude-sonnet-4-5", "--provider", "anthropic", "--json")
    assert code == 0
    quotes = json.loads(out)
    assert {(q["service_tier"], q["over_input_tokens"]) for q in quotes} >= {
        ("standard", 0), ("standard", 200_000), ("batch", 0), ("batch", 200_000),
    }  # fmt: skip
    base = next(q for q in quotes if q["service_tier"] == "standard" and not q["over_input_tokens"])
    assert (base["usd_per_million"]["input"], base["usd_per_million"]["output"], base["status"]) == (3, 15, "exact")
    assert base["usd_each"]["web_search_requests"] == 0.01
    _, table, _ = run("show", "claude-sonnet-4-5", "--provider", "anthropic")
    assert "anthropic/claude-sonnet-4-5#batch" in table
    assert "> 200,000" in table


def test_show_marks_what_counts_at_a_moment(run: Run) -> None:
    def counting(*options: str) -> set[tuple[str, str | None]]:
        _, out, _ = run("show", "gpt-5.6-sol", "--provider", "openai", "--json", *options)
        found = [q for q in json.loads(out) if q["service_tier"] == "standard" and not q["over_input_tokens"]]
        assert len(found) > 1
        return {(q["price_id"], q["valid_from"]) for q in found if q["counts"]}

    [(before, _)] = counting("--at", "2026-08-20")
    [(after, since)] = counting("--at", "2026-08-21T00:00")
    assert (before, after) == ("openai/gpt-5.6-sol", "openai/gpt-5.6-sol@2026-08-21")
    assert since == "2026-08-21T00:00:00Z"


def test_show_knows_own_prices_and_asks_back_for_unknown_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outlay.toml").write_text("")
    (tmp_path / "prices.toml").write_text(
        '[[price]]\nprovider = "ollama"\nmodel = "own-model"\nusd_per_million = { input = "0.5", output = "1" }\n'
    )
    code, out, _ = run("show", "own-model", "--config", str(tmp_path / "outlay.toml"), "--json")
    assert (code, json.loads(out)[0]["price_id"]) == (0, "own:ollama/own-model")
    code, out, errors = run("show", "gpt-4.l")
    assert (code, out) == (1, "")
    assert errors.startswith("the price book has no model gpt-4.l; did you mean gpt-4.1, ")
    assert "config/prices.toml" in run("show", "qqqqqqqqq")[2]
    assert "priced by a guess, which --provider shows" in run("show", "gpt-4.1-my-deployment")[2]
    code, out, errors = run("show", "gpt-4.1-my-deployment", "--provider", "openai", "--json")
    assert (code, {q["status"] for q in json.loads(out)}, errors) == (0, {"fallback"}, "")
    code, _, errors = run("show", "gpt-4.1", "--provider", "opnai")
    assert (code, errors) == (0, "the price book does not know a provider opnai: these are guesses\n")
    code, _, errors = run("show", "qqqqqqqqq", "--provider", "opnai")
    assert (code, "of opnai, a provider that it does not know;" in errors) == (1, True)


def test_show_finds_names_as_calls_are_priced(run: Run) -> None:
    """In other spellings, and with the hosts that sell a vendor's models at his prices."""

    def sold(name: str) -> set[tuple[str, str]]:
        code, out, _ = run("show", name, "--json")
        assert code == 0
        return {(q["provider"], q["status"]) for q in json.loads(out)}

    assert ("openai", "alias") in sold("ft:gpt-4.1-2025-04-14:acme::abc")
    assert {("openai", "exact"), ("azure.ai.inference", "alias")} <= sold("gpt-4.1")


# -- diff and check --------------------------------------------------------------------------------------------------


def test_diff_says_what_was_added_removed_and_changed(run: Run, tmp_path: Path) -> None:
    new = other_snapshot(tmp_path / "new.json.gz", dearer)
    code, out, _ = run("diff", "genai-prices-0.2.3", str(new), "--json")
    assert code == 0
    rows = {(row["what"], row["model"], row["service_tier"]): row for row in json.loads(out)}
    assert ("removed", "gpt-4.1-mini", None) in rows
    assert ("added", "gpt-new", None) in rows
    change = rows["changed", "gpt-4.1", None]
    assert (change["old"], change["new"], change["percent"], change["since"]) == (2, 4, 100, None)
    assert "input" in change["rates"]
    assert "cache_read" not in change["rates"]  # has a rate of its own
    assert {row["provider"] for row in json.loads(out)} == {"openai"}
    assert run("diff", str(new), str(new))[1] == "The two say the same.\n"
    code, _, errors = run("diff", "genai-prices-0.0.1", str(new))
    assert (code, "genai-prices-0.2.3-" in errors) == (1, True)


def test_check_asks_before_prices_in_use_change(run: Run, tmp_path: Path) -> None:
    new = str(other_snapshot(tmp_path / "new.json.gz", dearer))
    code, out, _ = run("check")
    assert (code, "hash, shape and rates are sound" in out) == (0, True)
    assert run("check", new)[0] == 0  # nothing was ever spent
    segment(tmp_path / "data", [booked(at=RECENT), booked(at=RECENT, request_model="gpt-4o")], at=RECENT)
    code, _, errors = run("check", new)
    assert code == 1
    assert "openai/gpt-4.1; look" in errors
    code, out, _ = run("check", new, "--yes", "--json")
    assert code == 0
    assert json.loads(out)["to_confirm"] == [{"provider": "openai", "model": "gpt-4.1", "spend_usd": 0.006}]


def test_check_asks_before_a_name_is_taken_for_another_model(run: Run, tmp_path: Path) -> None:
    def swap(data: dict[str, Any]) -> None:
        one, other = (next(m for m in models(data) if m["id"] == name) for name in ("gpt-4.1", "gpt-4.1-mini"))
        one["match"], other["match"] = other["match"], one["match"]

    new = str(other_snapshot(tmp_path / "new.json.gz", swap))
    segment(tmp_path / "data", [booked(at=RECENT), booked(at=RECENT, request_model="gpt-4o")], at=RECENT)
    code, out, errors = run("check", new)
    assert (code, "openai/gpt-4.1; look" in errors) == (1, True)
    assert "openai: gpt-4.1 was taken for openai/gpt-4.1 and is for openai/gpt-4.1-mini." in out
    code, out, _ = run("check", new, "--yes", "--json")
    assert (code, [name["model"] for name in json.loads(out)["renamed"]]) == (0, ["gpt-4.1"])


def test_check_finds_the_spend_of_a_served_name_that_no_list_has(run: Run, tmp_path: Path) -> None:
    new = str(other_snapshot(tmp_path / "new.json.gz", dearer))
    segment(tmp_path / "data", [booked(at=RECENT, response_model="my-own-fine-tune")], at=RECENT)
    code, _, errors = run("check", new)
    assert (code, "openai/gpt-4.1; look" in errors) == (1, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: models(data)[0]["periods"][0]["rates"].update(input_mtok="-1"), "bad rate"),
        (lambda data: models(data)[0].update(periods="x"), "malformed"),
    ],
)
def test_check_refuses_a_bad_snapshot(run: Run, tmp_path: Path, change: Callable[[Any], None], says: str) -> None:
    code, _, errors = run("check", str(other_snapshot(tmp_path / "bad.json.gz", change)))
    assert (code, errors.count("\n")) == (1, 1)
    assert says in errors


def test_check_refuses_a_wrong_hash(run: Run, tmp_path: Path) -> None:
    head, _, payload = gzip.decompress(prices.DEFAULT_BOOK.read_bytes()).partition(b"\n")
    bad = tmp_path / "bad.json.gz"
    bad.write_bytes(gzip.compress(head + b"\n" + payload.replace(b'"2"', b'"1"', 1)))
    code, _, errors = run("check", str(bad))
    assert code == 1
    assert "SHA-256" in errors


# -- rerate ----------------------------------------------------------------------------------------------------------


def spent(data: Path) -> dict[str, Decimal]:
    with analytics.open(data) as db:
        return dict(db.execute("SELECT call_id, list_cost_usd FROM calls").fetchall())


SPAN = ("rerate", "--from", "2026-11-20", "--to", "2026-11-20")


def test_rerate_shows_then_corrects_and_writes_nothing_the_second_time(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "config").mkdir()
    (tmp_path / "config/outlay.toml").write_text("")
    new = ("--book", str(other_snapshot(tmp_path / "new.json.gz", dearer)))
    first, other = booked(team_id="pay"), booked(request_model="gpt-4o")
    refused = msgspec.structs.replace(priced(booked(), Cost("exact", BOOK.id)), result="refused", price_status=None)
    advised = booked(other_units={"subpass_input_tokens": 5.0})
    cut = msgspec.structs.replace(booked(), usage_source="none")
    outside = booked(at=NOON + timedelta(days=1))
    segment(data, [first, other, refused, advised, cut, outside])
    lake.publish(data)
    before = spent(data)

    code, out, _ = run(*SPAN, *new)
    assert code == 0
    assert out.splitlines()[-1] == "Nothing was written; --apply corrects them."
    assert [" 0.006 " in out, " 0.008 " in out, " 0.002 " in out] == [True] * 3
    assert spent(data) == before

    code, out, _ = run(*SPAN, *new, "--apply", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["corrections_written"] == 1
    assert said["unchanged_calls"] == 1
    assert said["left_calls"] == {
        "not_billed": 1,
        "subpasses": 1,
        "usage_unknown": 1,
    }
    [change] = said["changes"]
    assert (change["model"], change["cause"], change["calls"]) == ("gpt-4.1", "price", 1)
    assert (change["list_cost_before_usd"], change["list_cost_after_usd"]) == (0.006, 0.008)
    assert spent(data) == before | {first.call_id: Decimal("0.008")}
    with analytics.open(data) as db:
        assert db.execute("SELECT call_id, cause, price_book_before FROM corrections").fetchall() == [
            (first.call_id, "price", BOOK.id)
        ]
        assert db.execute("SELECT team_id FROM calls WHERE price_book <> $id", {"id": BOOK.id}).fetchall() == [("pay",)]

    assert json.loads(run(*SPAN, *new, "--apply", "--json")[1])["corrections_written"] == 0
    assert json.loads(run(*SPAN, "--apply", "--json")[1])["corrections_written"] == 1  # and back
    assert spent(data) == before
    assert verifying.verify(data).wrong == []


def test_what_became_known_after_the_read_is_not_overruled(data: Path, dear: PriceBook) -> None:
    estimated = msgspec.structs.replace(booked(output_tokens=None), usage_source="estimated")
    known = msgspec.structs.replace(booked(output_tokens=900), call_id=estimated.call_id)
    settings = LedgerSettings(dir=str(data), reserve_bytes=0)
    gateway = Ledger(settings, "gw-1")
    gateway.start()
    booked_us = gateway.close(estimated)
    assert booked_us

    def correct(meanwhile: bool) -> int:
        span = rerating.Span(NOON.date(), NOON.date(), datetime.now(UTC))

        def corrections() -> Iterator[Correction]:
            for outcome in rerating.outcomes(data, span, dear, guesses=True):
                if meanwhile:
                    assert gateway.correct(known, "usage", booked_us)
                if isinstance(outcome, rerating.Rerated):
                    yield outcome.correction()

        return write_corrections(settings, corrections(), f"rerate-{meanwhile}")

    assert correct(meanwhile=True) == 1
    assert spent(data) == {known.call_id: Decimal(known.list_cost_nano or 0) / NANO}
    assert correct(meanwhile=False) == 1
    assert spent(data) == {known.call_id: Decimal("0.0112")}  # 1,000 tokens at 4 USD per million, 900 at 8
    gateway.stop()
    assert verifying.verify(data).wrong == []


def test_a_correction_from_a_clock_that_runs_ahead_is_overruled_once(data: Path, dear: PriceBook) -> None:
    first, ahead = booked(), datetime.now(UTC) + timedelta(hours=1)
    segment(data, [first])
    with Segment(data, ahead, "fix") as written:
        written.write(encode_correction(first, "price", micros(NOON), micros(ahead)))
    for corrections in (1, 0):
        span = rerating.Span(NOON.date(), NOON.date(), datetime.now(UTC))
        found = [
            outcome.correction()
            for outcome in rerating.outcomes(data, span, dear, guesses=True)
            if isinstance(outcome, rerating.Rerated)
        ]
        assert len(found) == corrections
        write_corrections(LedgerSettings(dir=str(data)), found, "rerate")
        assert spent(data) == {first.call_id: Decimal("0.008")}


def test_rerate_is_for_past_days_in_order_and_needs_a_folder(run: Run) -> None:
    assert run("rerate", "--from", "2026-11-20", "--to", "2026-11-19")[0] == 2
    code, _, errors = run(*SPAN)
    assert (code, "there is no data folder" in errors) == (1, True)


def test_rerate_takes_any_days_and_snapshots_by_their_ids(run: Run, data: Path) -> None:
    segment(data, [booked()])
    code, out, _ = run("rerate", "--from", "0001-01-01", "--to", "9999-12-31", "--book", "genai-prices-0.2.3", "--json")
    assert (code, json.loads(out)["unchanged_calls"]) == (0, 1)
    code, out, errors = run(*SPAN, "--book", "genai-prices-0.0.1")
    assert (code, out, errors.count("\n")) == (1, "", 1)
    assert "name a file, or one of genai-prices-0.2.3-" in errors


def test_rerate_says_whose_prices_count_and_applies_none_without_settings(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "elsewhere"
    lake.publish(kept)
    first = booked()
    segment(kept, [first])
    assert "none, for there is no config/outlay.toml here." in run(*SPAN, "--data", str(kept))[1]
    code, _, errors = run(*SPAN, "--data", str(kept), "--apply")
    assert (code, errors.count("\n"), "with --config" in errors) == (1, 1, True)
    settings = tmp_path / "outlay.toml"
    settings.write_text(f'[ledger]\ndir = "{kept}"\n')
    assert f"none in {tmp_path / 'prices.toml'}." in run(*SPAN, "--config", str(settings))[1]
    (tmp_path / "prices.toml").write_text('[[discount]]\nprovider = "openai"\npercent = 30\n')
    code, out, _ = run(*SPAN, "--config", str(settings), "--apply")
    assert (code, f"discounts: {tmp_path / 'prices.toml'}." in out) == (0, True)
    with analytics.open(kept) as db:
        assert db.execute("SELECT contracted_cost_usd FROM calls").fetchall() == [(Decimal("0.0042"),)]


def test_a_terminated_command_leaves_nothing_behind(data: Path) -> None:
    def corrections() -> Iterator[Correction]:
        yield Correction(booked(), "price", micros(NOON), micros(NOON))
        assert list((data / "journal").glob("*.new"))
        os.kill(os.getpid(), signal.SIGTERM)
        yield Correction(booked(), "price", micros(NOON), micros(NOON))

    before = set((data / "journal").iterdir())
    with pytest.raises(SystemExit) as ended, commands.tidy_when_terminated():
        write_corrections(LedgerSettings(dir=str(data)), corrections(), "fix")
    assert ended.value.code == 143
    assert set((data / "journal").iterdir()) == before


def rerated(call: Call, book: PriceBook = BOOK) -> Call:
    found = rerating.rerate(call, book)
    assert isinstance(found, Call), found
    return found


@pytest.fixture
def dear(tmp_path: Path) -> PriceBook:
    return PriceBook.load(other_snapshot(tmp_path / "new.json.gz", dearer))


CALLS = {
    "standard": {},
    "batch": {"operation": "batch", "service_tier": "batch"},
    "flex": {"service_tier": "flex"},
    "above a limit": {"request_model": "gpt-5.6-sol", "input_tokens": 300_000},
    "a region": {"request_model": "gpt-5.6-sol", "region": "eu"},
    "batch in a region": {"request_model": "gpt-5.6-sol", "region": "us", "service_tier": "batch"},
    "reported": {"provider": "openrouter", "request_model": "no/such-model", "provider_cost_nano": 5},
    "an alias": {"request_model": "gpt-4.1-2026-01-01"},
    "a fallback": {"provider": "someone", "request_model": "gpt-4.1"},
    "searches": {"web_search_requests": 3},
}


@pytest.mark.parametrize("fields", CALLS.values(), ids=CALLS)
def test_the_book_that_priced_a_call_prices_it_the_same_again(fields: dict[str, Any]) -> None:
    call = booked(**fields)
    assert call.list_cost_nano
    assert rerating.rerate(call, BOOK) is None
    if "region" in fields:
        assert "*1.1" in (call.price_id or "")


@pytest.mark.parametrize("name", ["standard", "batch", "flex", "searches", "a fallback"])
def test_tier_and_units_of_a_call_are_kept(dear: PriceBook, name: str) -> None:
    old = booked(**CALLS[name])
    new = rerated(old, dear)
    assert msgspec.structs.replace(priced(new, Cost("exact", "")), price_status=None) == msgspec.structs.replace(
        priced(old, Cost("exact", "")), price_status=None
    )
    assert new == msgspec.structs.replace(booked(dear, **CALLS[name]), call_id=old.call_id, request_id=old.call_id)


def test_a_factor_that_no_region_has_is_left_alone() -> None:
    odd = msgspec.structs.replace(booked(request_model="gpt-5.6-sol", region="eu"), price_id="openai/gpt-5.6-sol*1.7")
    assert rerating.rerate(odd, BOOK) == "region_unknown"


@pytest.mark.parametrize("tier", ["batch", "priority"])
def test_a_region_whose_factor_the_new_book_changes_is_not_lost(tmp_path: Path, tier: str) -> None:
    supplement = tmp_path / "supplement.toml"
    supplement.write_text(SUPPLEMENT.read_text().replace("percent = 10\n", "percent = 20\n"))
    call = booked(request_model="gpt-5.6-sol", region="us", service_tier=tier)
    assert (call.price_id or "").endswith(f"#{tier}*1.1")
    new = PriceBook.load(prices.DEFAULT_BOOK, supplement)
    assert rerating.rerate(call, new) == "region_unknown"


def test_a_tiers_factor_is_not_taken_for_a_regions(dear: PriceBook) -> None:
    """Which the new book need not have: it may state the tier."""
    batch = booked(service_tier="batch")
    factored = msgspec.structs.replace(batch, price_id="openai/gpt-4.1#batch*0.5")
    assert rerated(factored, dear).list_cost_nano == rerated(batch, dear).list_cost_nano
    unknown = msgspec.structs.replace(batch, price_id="openai/gpt-4.1#batch*0.45")
    assert rerating.rerate(unknown, dear) == "region_unknown"


def test_own_prices_are_the_same_in_all_regions(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        '[[price]]\nprovider = "openai"\nmodel = "gpt-5.6-sol"\nusd_per_million = { input = "0.5", output = "1" }\n'
    )
    own = BOOK.with_overrides(prices.load_overrides(tmp_path / "prices.toml"))
    listed = booked(request_model="gpt-5.6-sol", region="us")
    new = rerated(listed, own)
    assert (new.price_id, new.list_cost_nano) == ("own:openai/gpt-5.6-sol", 1_000_000)
    assert rerated(new, BOOK).list_cost_nano == booked(request_model="gpt-5.6-sol").list_cost_nano


def test_sub_passes_are_left_alone_however_they_show(dear: PriceBook) -> None:
    joined = msgspec.structs.replace(booked(), price_id="openai/gpt-4.1+openai/whisper-1")
    assert rerating.rerate(joined, dear) == "subpasses"


def test_a_row_that_does_not_say_all_is_left_alone(dear: PriceBook) -> None:
    """Its own book gives another amount."""
    first = booked()
    odd = msgspec.structs.replace(first, list_cost_nano=(first.list_cost_nano or 0) + 1, other_cost_nano=1)
    assert rerating.rerate(odd, BOOK) == "not_reproducible"
    assert rerating.rerate(odd, dear, known=[BOOK]) == "not_reproducible"
    assert rerated(first, dear).list_cost_nano == 8_000_000
    assert isinstance(rerating.rerate(first, dear, known=[BOOK]), Call)


def test_a_row_of_many_calls_keeps_its_rounding(dear: PriceBook) -> None:
    row = booked(operation="batch", service_tier="batch", other_units={"batch_results": 3.0})
    for nano, found in ((9, None), (10, "not_reproducible")):
        rounded = msgspec.structs.replace(row, list_cost_nano=(row.list_cost_nano or 0) + nano)
        assert rerating.rerate(rounded, BOOK) == found
    assert isinstance(rerating.rerate(row, dear, known=[BOOK]), Call)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("batch_limit", {"request_model": "gpt-5.6-sol", "input_tokens": 300_000}),
        ("batch_parts", {"web_search_requests": 3}),
        ("batch_parts", {"audio_input_tokens": 3}),
        ("batch_parts", {"image_output_tokens": 3}),
        ("batch_parts", {"other_units": {"batch_results": 3.0, "search_units": 1.0}}),
    ],
)
def test_a_row_of_many_calls_is_left_where_their_sum_may_cost_something_else(
    reason: str, fields: dict[str, Any]
) -> None:
    row = booked(**{"operation": "batch", "service_tier": "batch", "other_units": {"batch_results": 3.0}} | fields)
    unpriced = priced(row, Cost("unpriced", "old"))
    assert rerating.rerate(unpriced, BOOK) == reason
    one = msgspec.structs.replace(unpriced, other_units={"batch_results": 1.0})
    assert isinstance(rerating.rerate(one, BOOK), Call)


def test_what_the_book_does_not_price_keeps_its_price(dear: PriceBook) -> None:
    own = msgspec.structs.replace(
        booked(), provider="ollama", request_model="own-model", price_id="own:ollama/own-model"
    )
    assert rerating.rerate(own, BOOK) == "no_price"
    assert rerating.rerate(priced(own, Cost("unpriced", "old")), BOOK) is None


def test_causes_are_told_apart(tmp_path: Path, dear: PriceBook) -> None:
    old = booked()
    assert rerating.cause_of(old, rerated(old, dear)) == "price"
    (tmp_path / "prices.toml").write_text('[[discount]]\nprovider = "openai"\npercent = 10\n')
    discounted = BOOK.with_overrides(prices.load_overrides(tmp_path / "prices.toml"))
    new = rerated(old, discounted)
    assert rerating.cause_of(old, new) == "discount"
    assert (new.list_cost_nano, new.contracted_cost_nano) == (6_000_000, 5_400_000)
    replace = msgspec.structs.replace
    assert rerating.cause_of(replace(old, price_id="openai/gpt-4o", list_cost_nano=1), old) == "alias"
    assert rerating.cause_of(replace(old, price_id="openai/gpt-4.1#batch", list_cost_nano=1), old) == "tier"
    assert rerating.cause_of(replace(old, other_cost_nano=1, list_cost_nano=1), old) == "fee"
    unknown = priced(old, Cost("unpriced", BOOK.id))
    assert rerating.cause_of(unknown, rerated(unknown)) == "price"
    summary = rerating.Summary()
    summary.add(rerating.Rerated(unknown, rerated(unknown), 0, 0))
    [line] = summary.lines.values()
    assert (line.unpriced_before, line.list_before, line.list_after) == (1, 0, int(0.006 * NANO))


def test_a_reported_cost_stays_the_bill(dear: PriceBook) -> None:
    old = booked(provider_cost_nano=5_000_000)
    assert old.contracted_cost_nano == 5_000_000
    new = rerated(old, dear)
    assert (new.list_cost_nano, new.contracted_cost_nano) == (8_000_000, 5_000_000)
