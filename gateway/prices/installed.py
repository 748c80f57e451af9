"""The price book of an installation."""

from pathlib import Path

from gateway.config import Config
from gateway.errors import UserError
from gateway.prices.book import DEFAULT_BOOK, PriceBook
from gateway.prices.overrides import load_overrides


def load_prices(config: Config, snapshot: Path = DEFAULT_BOOK) -> PriceBook:
    """A price book, by default the shipped one, with this installation's overrides. Raises `UserError`."""
    try:
        book = PriceBook.load(snapshot)
        if config.file is None:
            return book
        overrides = Path(config.file).parent / (config.prices.overrides or "prices.toml")
        if config.prices.overrides is None and not overrides.exists():
            return book
        known = book.providers | {upstream.provider for upstream in config.upstreams.values()}
        return book.with_overrides(load_overrides(overrides, known))
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
