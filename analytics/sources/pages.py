"""What is read of a part: rows, item by item, and a line for each item that is not what it should be."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from analytics import work
from analytics.sources.source import Batch, Given, SourceError, moment
from gateway.errors import UserError

BROKEN_MAX = 2
"""Items in a row that the other side cannot show. More of them, and it is not they that are broken."""


class Pages:
    """Of one part, one after the other."""

    def __init__(self) -> None:
        self._batch = Batch()
        self._broken = 0

    @contextlib.contextmanager
    def item(self, what: str, changed_at: Any) -> Iterator[None]:
        """One item: what is wrong with it leaves it out, and the others go on. Its rows are added at the end."""
        try:
            yield
            self._broken = 0
        except ValueError as error:
            self.problem(f"{what} is left out: {error}")
        except SourceError:
            raise
        except UserError as error:
            self._broken += 1
            if self._broken > BROKEN_MAX:
                raise
            self._batch.miss(moment(changed_at))
            self.problem(f"{what} is left out: {error}")

    def add(self, table: str, rows: Iterable[work.Row], of: Collection[str] = ()) -> None:
        """Rows, which are all there are of these groups, where the table has such."""
        self._batch.add(table, rows)
        if of:
            self._batch.emptied.setdefault(table, []).extend(of)

    def problem(self, line: str) -> None:
        self._batch.problems.append(line)

    def end(self, cursor: Any, items: int, total: int | None = None) -> Batch:
        """The page, which had so many items, and where the next one begins."""
        batch = self._batch
        batch.cursor, batch.done, batch.total = cursor, batch.done + items, total
        self._batch = Batch(done=batch.done)
        return batch


def changed(
    given: Given,
    table: str,
    listed: Sequence[Any],
    since: datetime | None,
    mark: Callable[[Any], tuple[str | None, Any]],
) -> list[Any]:
    """Without those that are stored as they are, by key and time of change (`mark`); when all is read, all of them."""
    if since is None:
        return [*listed]
    marks = [(key, moment(updated_at)) for key, updated_at in map(mark, listed)]
    known = given.known(table, [key for key, _ in marks if key])
    return [
        item for item, (key, at) in zip(listed, marks, strict=True) if key is None or at is None or known.get(key) != at
    ]
