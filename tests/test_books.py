"""The record of a call: each number of a usage, a cost and an attribution stands in its own column."""

from typing import TypeVar

import msgspec

from gateway import books, proxy
from gateway.call import Attribution, Call, Client, Cost, Usage

T = TypeVar("T", bound=msgspec.Struct)


def of_each_field_another(kind: type[T]) -> T:
    return kind(**{name: f"{kind.__name__} {name}" for name in kind.__struct_fields__})


def new_call() -> Call:
    return Call(call_id="c", request_id="r", attempt=1, started_us=0)


def columns(call: Call, start: str) -> dict[str, str]:
    """The columns whose value begins so, and what comes after that."""
    named = msgspec.structs.asdict(call).items()
    return {name: value.removeprefix(start) for name, value in named if str(value).startswith(start)}


def test_each_count_of_a_usage_has_its_column() -> None:
    call = new_call()
    books.set_usage(call, of_each_field_another(Usage))
    assert columns(call, "Usage ") == {name: name for name in Usage.__struct_fields__}


def test_each_part_of_a_cost_has_its_column() -> None:
    call = new_call()
    books.set_cost(call, of_each_field_another(Cost))
    parts = {f"{name.removesuffix('_nano')}_cost_nano": name for name in Cost.__struct_fields__ if "_nano" in name}
    named = {"price_status": "status", "price_book": "price_book", "price_id": "price_id"}
    assert columns(call, "Cost ") == parts | named


def test_each_part_of_an_attribution_has_its_column() -> None:
    call, attribution = new_call(), of_each_field_another(Attribution)
    proxy._set_attribution(call, Client(), attribution)
    same = {name: name for name in Attribution.__struct_fields__ if name not in ("candidates", "ignored")}
    assert columns(call, "Attribution ") == same | {"ticket_candidates": "candidates"}
    assert call.ticket_id == attribution.tickets[0]
