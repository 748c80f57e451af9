"""The price book: dated rates → whole nano-USD. Pure; the only I/O is reading the two files. See docs/prices.md."""

from gateway.prices.book import DEFAULT_BOOK, PriceBook
from gateway.prices.overrides import Overrides, load_overrides
from gateway.prices.rates import Band, Rates, RateSet

__all__ = ["DEFAULT_BOOK", "Band", "Overrides", "PriceBook", "RateSet", "Rates", "load_overrides"]
