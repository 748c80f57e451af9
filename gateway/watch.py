"""Watches answers that are not billed themselves for usage that belongs to earlier requests: results of background work
and of batches. What is found is booked before the answer ends, once, whoever reads it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from gateway import batches
from gateway.books import Books, add_cost, set_cost
from gateway.call import Answer, Call, Cost
from gateway.dialects.base import Dialect, add_usage
from gateway.framing import Reader
from gateway.ids import uuid7
from gateway.ledger import now_us
from gateway.reading import tidied


class Watch:
    """One such answer. Feed it every chunk, and `book` when all of it has come."""

    def __init__(
        self,
        call: Call,
        dialect: Dialect,
        path: str,
        region: str | None,
        headers: Mapping[str, str],
        books: Books,
        *,
        starts: bool,
    ) -> None:
        """`call` is who asks; it is no call itself and is never recorded. `starts`: the request started what the answer
        describes."""
        self._call = call
        self._dialect = dialect
        self._path = path
        self._reader = Reader(headers)
        self._books = books
        self._late = books.late
        self._region = region
        self._starts = starts
        self._answer = Answer()
        self._batch: batches.Batch | None = None
        self._first_result: str | None = None
        self._sums: dict[tuple[str | None, ...], tuple[Answer, Cost, int]] = {}
        """By dialect, model, price and its status: what the results add up to, what they cost, how many they are."""
        self._failed = False
        awaited = next((found for name in path.split("/") if (found := books.late.find(self._key(name)))), None)
        self._asked = call if awaited is None else awaited.call

    def feed(self, piece: bytes) -> None:
        """Never raises: what cannot be read is not booked."""
        if not self._failed:
            self._see(lambda: iter(self._reader.feed(piece)))

    async def book(self) -> None:
        """Book what the answer brought. Raises `OSError` when that cannot be written down."""
        if not self._failed:
            self._see(lambda: iter([rest] if (rest := self._reader.rest()) else []))
        if self._failed:
            return
        if self._batch is not None:
            key = self._key(self._batch.id)
            if self._starts and self._late.find(key) is None:
                self._late.wait(key, self._call)
            for name in self._batch.names:
                self._late.name(self._key(name), key)
        if self._first_result is not None:
            await self._book_results(self._key(self._first_result))
        else:
            name = self._answer.upstream_id or self._path.rpartition("/")[2]
            await self._books.settle(self._key(name), self._answer, self._region)

    def _see(self, events: Callable[[], Iterator[bytes]]) -> None:
        try:
            for event in events():
                try:
                    value = msgspec.json.decode(event)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    value = msgspec.json.decode(tidied(event))
                if isinstance(value, dict):
                    self._fold(value)
        except Exception:  # noqa: BLE001 - as in the meter: a call must not break
            self._failed = True

    def _fold(self, value: Mapping[str, Any]) -> None:
        provider = self._call.provider or ""
        self._batch = batches.batch_of(value) or self._batch
        self._dialect.fold(self._answer, value, provider)
        for result in batches.results_of(value, provider):
            self._first_result = self._first_result or result.id or self._path
            one = result.answer
            cost = self._books.price(self._asked, one, one.usage, self._region, batch=True)
            key = result.dialect.name, one.response_model, cost.price_id, cost.status
            total, so_far, number = self._sums.get(key, (Answer(response_model=one.response_model), None, 0))
            add_usage(total.usage, one.usage)
            if one.provider_cost_nano is not None:
                total.provider_cost_nano = (total.provider_cost_nano or 0) + one.provider_cost_nano
            self._sums[key] = total, cost if so_far is None else add_cost(so_far, cost), number + 1

    async def _book_results(self, key: str) -> None:
        if not self._late.claim(key):
            return
        try:
            await self._write_results()
            self._late.book(key)
        finally:
            self._late.release(key)

    async def _write_results(self) -> None:
        request_id = uuid7(now_us())
        for (dialect, model, *_), (total, cost, number) in self._sums.items():
            total.usage.other_units = {**(total.usage.other_units or {}), "batch_results": float(number)}
            call = msgspec.structs.replace(
                self._asked,
                call_id=uuid7(now_us()),
                request_id=request_id,
                dialect=dialect,
                operation="batch",
                response_model=model,
                service_tier="batch",
                stream=False,
                status=200,
                result="completed",
                usage_source="reported",
                provider_cost_nano=total.provider_cost_nano,
                upstream_id=self._first_result,
            )
            set_cost(call, cost)
            await self._books.book(call, total.usage)

    def _key(self, name: str) -> str:
        return f"{self._call.upstream}/{name}"
