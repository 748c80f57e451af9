"""The price book: dated rates → whole nano-USD. Pure; the only I/O is reading the files. See docs/prices.md."""

from gateway.prices.book import DEFAULT_BOOK, PriceBook
from gateway.prices.overrides import Overrides, load_overrides
from gateway.prices.rates import Band, Rates, RateSet
from gateway.prices.supplement import SUPPLEMENT

__all__ = ["DEFAULT_BOOK", "SUPPLEMENT", "Band", "Overrides", "PriceBook", "RateSet", "Rates", "load_overrides"]
