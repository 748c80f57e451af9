"""A file that is replaced while a query reads it fails that query, and not the next one: it is asked again."""

from collections.abc import Callable
from typing import TypeVar

import duckdb

T = TypeVar("T")

TRIES = 3
"""Of a query that fails."""


def is_passing(error: Exception) -> bool:
    """Whether the same query may do a moment later. What DuckDB cannot make out of half a file is of no class of its
    own."""
    return type(error) is duckdb.Error or isinstance(error, duckdb.IOException | duckdb.InvalidInputException)


def again(ask: Callable[[], T]) -> T:
    """What `ask` gives, which may run more than once. Raises `duckdb.Error`."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except duckdb.Error as error:
            if not is_passing(error):
                raise
    return ask()
