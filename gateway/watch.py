"""Watches answers that are not billed themselves for usage that belongs to earlier requests: results of background work
and of batches. What is found is booked before the answer ends, once, whoever reads it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from gateway import batches, late
from gateway.books import Books, add_cost, set_cost
from gateway.call import Answer, Call, Cost, Usage
from gateway.dialects.base import Dialect, add_usage
from gateway.framing import Lines, Reader
from gateway.ids import uuid7
from gateway.ledger import now_us
from gateway.reading import tidied


class _Result(NamedTuple):
    digest: bytes
    dialect: str
    answer: Answer
    cost: Cost


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
        is_part: bool,
    ) -> None:
        """`call` is who asks; it is no call itself and is never recorded. `starts`: the request started what the answer
        describes. `is_part`: of a file (status 206)."""
        self._call = call
        self._dialect = dialect
        self._path = path
        self._region = region
        self._reader = Reader(headers, Lines() if is_part else None)
        self._books = books
        self._starts = starts
        self._answer = Answer()
        self._batch: batches.Batch | None = None
        self._results: list[_Result] = []
        expected = next((found for name in _names(path) if (found := books.late.find(self._key(name)))), None)
        self._owner = call if expected is None else expected.call
        """Who started the batch, where that is known."""

    @property
    def is_finished(self) -> bool:
        """True when a terminal event was seen: the client may leave with the piece that brought it."""
        return self._answer.finished

    def feed(self, piece: bytes) -> None:
        """Never raises: what cannot be read is not booked, and counted."""
        try:
            for event in self._reader.feed(piece):
                self._see(event)
        except Exception as error:  # noqa: BLE001 - as in the meter: a call must not break
            self._give_up(error)

    async def book(self, *, whole: bool = True) -> None:
        """Book what the answer brought, as far as it came. Raises `OSError` when that cannot be written down."""
        if whole:
            self._see_rest()
        known = self._books.late
        if self._batch is not None:
            key = self._key(self._batch.id)
            if self._starts and known.find(key) is None:
                known.expect(key, self._call)
            for name in self._batch.names:
                known.name(self._key(name), key)
        if self._results:
            await self._book_results()
        else:
            name = self._answer.upstream_id or self._path.rpartition("/")[2]
            await self._books.settle(self._key(name), self._answer, self._region)
        await known.durable()

    def _see_rest(self) -> None:
        try:
            if rest := self._reader.rest():
                self._see(rest)
        except Exception as error:  # noqa: BLE001 - as in `feed`
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._books.not_metered(self._dialect.name, error)
        self._reader = Reader({})  # what it holds back is of no use any more

    def _see(self, event: bytes) -> None:
        """One event, line or page. One that is no JSON hides no other."""
        try:
            try:
                value = msgspec.json.decode(event)
            except (msgspec.DecodeError, UnicodeDecodeError):
                value = msgspec.json.decode(tidied(event))
        except ValueError as error:
            if event.strip() != b"[DONE]":
                self._books.not_metered(self._dialect.name, error)
            return
        if isinstance(value, dict):
            self._fold(value)

    def _fold(self, value: Mapping[str, Any]) -> None:
        provider = self._call.provider or ""
        self._batch = batches.batch_of(value) or self._batch
        self._dialect.fold(self._answer, value, provider)
        for result in batches.results_of(value, provider):
            one = result.answer
            cost = self._books.price(self._owner, one, one.usage, self._region, batch=True)
            id_ = result.id or f"{self._path}#{len(self._results)}"
            digest = late.digest(self._call.upstream or "", id_)
            self._results.append(_Result(digest, result.dialect.name, one, cost))

    async def _book_results(self) -> None:
        while unbooked := self._books.late.unbooked(result.digest for result in self._results):
            fresh = {result.digest: result for result in self._results if result.digest in unbooked}
            calls = self._calls_of(list(fresh.values()))
            if await self._books.book([(call, b"".join(each.digest for each in group)) for call, group in calls]):
                return  # else somebody else has booked some of them meanwhile

    def _calls_of(self, results: list[_Result]) -> list[tuple[Call, list[_Result]]]:
        """One call per dialect, model and price, and the results that add up to it."""
        groups: dict[tuple[str | None, ...], list[_Result]] = {}
        for each in results:
            key = each.dialect, each.answer.response_model, each.cost.price_id, each.cost.status
            groups.setdefault(key, []).append(each)
        now = now_us()
        request_id = uuid7(now)
        calls = []
        for (dialect, model, *_), group in groups.items():
            usage, cost = Usage(), group[0].cost
            for each in group:
                add_usage(usage, each.answer.usage)
            for each in group[1:]:
                cost = add_cost(cost, each.cost)
            costs = [each.answer.provider_cost_nano for each in group if each.answer.provider_cost_nano is not None]
            usage.other_units = {**(usage.other_units or {}), "batch_results": float(len(group))}
            call = msgspec.structs.replace(
                self._owner,
                call_id=uuid7(now),
                request_id=request_id,
                dialect=dialect,
                operation="batch",
                response_model=model,
                service_tier="batch",
                stream=False,
                status=200,
                result="completed",
                usage_source="reported",
                provider_cost_nano=sum(costs) if costs else None,
                **{name: getattr(usage, name) for name in usage.__struct_fields__},
            )
            set_cost(call, cost)
            calls.append((call, group))
        return calls

    def _key(self, name: str) -> str:
        return f"{self._call.upstream}/{name}"


def _names(path: str) -> list[str]:
    """What a path may name: its parts, without a verb."""
    return [part.partition(":")[0] for part in path.split("/") if part]
