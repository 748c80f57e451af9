"""What is read of one page: rows, item by item, and a line for each item that is not what it should be."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from analytics import work
from analytics.sources.source import Batch, Given, moment


class Page:
    def __init__(self) -> None:
        self._rows: dict[str, list[work.Row]] = defaultdict(list)
        self._emptied: dict[str, list[str]] = defaultdict(list)
        self._problems: list[str] = []

    @contextlib.contextmanager
    def item(self, what: str) -> Iterator[None]:
        """One item: what is wrong with it leaves it out, and the others go on. Its rows are added at the end."""
        try:
            yield
        except ValueError as error:
            self._problems.append(f"{what} is left out: {error}")

    def add(self, table: str, rows: Iterable[work.Row], of: Collection[str] = ()) -> None:
        """Rows, which are all there are of these groups, where the table has such."""
        self._rows[table] += rows
        if of:
            self._emptied[table] += of

    def problem(self, line: str) -> None:
        self._problems.append(line)

    def batch(self, cursor: Any, done: int, total: int | None = None) -> Batch:
        return Batch(self._rows, cursor, self._emptied, self._problems, done, total)


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
