"""What else a catalogue may call a model. All names are lower case."""

import re
from collections.abc import Iterator

NAME_MAX = 256
"""A longer name is looked up as it is and no further: the client chooses it, and every spelling of it costs time."""
WORDS_MAX = 8
"""So many leading words at most make a family."""

_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])(?=[-:]|$)")
_VERSION = re.compile(r"([-@](20\d\d-?\d\d-?\d\d|\d\d-20\d\d|\d\d-\d\d|00\d|latest|default|v\d+(:\d+)?))+$")
_VENDOR_DOTS = re.compile(r"^([a-z-]+\.)+(?=[a-z])")
_FINE_TUNE = re.compile(r"^(ft:[^:]+):.*$")


def plain(name: str) -> str:
    """Without vendor, region, date and version: `us.anthropic.claude-3-haiku-20240307-v1:0` is `claude-3-haiku`."""
    return _VERSION.sub("", _VENDOR_DOTS.sub("", name))


def spellings(name: str) -> tuple[str, ...]:
    """The name itself, then as other catalogues write it: without path (`models/…`, an ARN), vendor (`us.anthropic.…`),
    date, and what a customer called a fine-tuned model."""
    return tuple(dict.fromkeys((name, *_rewritten(name)))) if len(name) <= NAME_MAX else (name,)


def _rewritten(name: str) -> Iterator[str]:
    bare = name.rsplit("/", 1)[-1]
    for shorter in dict.fromkeys((name, bare, _VENDOR_DOTS.sub("", bare), _FINE_TUNE.sub(r"\1", bare))):
        yield shorter
        yield _COMPACT_DATE.sub(r"-\1-\2-\3", shorter)
        yield _VERSION.sub("", shorter)


def stems(name: str) -> Iterator[str]:
    """The leading words of a name, the most first, at least two: of `claude-opus-9-x`, `claude-opus-9` comes first."""
    words = _VENDOR_DOTS.sub("", name[:NAME_MAX].rsplit("/", 1)[-1]).split("-")[:WORDS_MAX]
    for size in range(len(words), 1, -1):
        yield "-".join(words[:size])
