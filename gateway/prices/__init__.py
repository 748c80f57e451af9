"""The price book: dated rates → whole nano-USD. Pure; the only I/O is reading the files. See docs/prices.md."""

from gateway.prices.book import DEFAULT_BOOK, PriceBook
from gateway.prices.installed import load_prices
from gateway.prices.overrides import load_overrides, providers_meant

__all__ = ["DEFAULT_BOOK", "PriceBook", "load_overrides", "load_prices", "providers_meant"]
