"""Which files of a change nobody wrote: generated, lock and vendored ones. Their lines say nothing of its size. Pure.

Patterns are those of `.gitattributes`: a name at any depth, a path from the root where there is a slash, `*` within a
name, `**` across folders; and a folder, at any depth, where the slash is behind it.
"""

import re
from collections.abc import Callable, Iterable, Iterator

BUILT_IN = (
    *("*.lock", "*.lockb", "*.lockfile", "*-lock.json", "*-lock.yaml", "*.lock.json", "*.lock.hcl"),
    *("npm-shrinkwrap.json", "go.sum", "go.work.sum", "Package.resolved"),
    *("dist/", "vendor/", "node_modules/", "bower_components/", "third_party/", "__snapshots__/", "*.snap"),
    *("*.min.*", "*.map", "*.generated.*", "*_generated.*"),
    *("*.pb.*", "*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*.g.dart"),
)
MARKED = re.compile(r"(?<!\S)(?P<no>[-!]?)linguist-(?:generated|vendored)(?:=(?P<value>\S+))?(?!\S)")


def left_out(patterns: Iterable[str] = (), attributes: str = "") -> Callable[[str], bool]:
    """Tells whether a file is one that nobody wrote: by the built-in patterns, those of an installation, and those that
    a repository's `.gitattributes` marks, which can also say of a file that it is none."""
    rules = [(re.compile(_regex(pattern)), True) for pattern in (*BUILT_IN, *patterns)]
    rules += [(re.compile(_regex(pattern)), is_marked) for pattern, is_marked in _marked(attributes)]

    def is_left_out(path: str) -> bool:
        return next((answer for rule, answer in reversed(rules) if rule.fullmatch(path)), False)

    return is_left_out


def _marked(attributes: str) -> Iterator[tuple[str, bool]]:
    for line in attributes.splitlines():
        pattern, _, rest = line.strip().partition(" ")
        if pattern and not pattern.startswith(("#", '"')):
            for mark in MARKED.finditer(rest):
                yield pattern, not mark["no"] and mark["value"] != "false"


def _regex(pattern: str) -> str:
    anchored = "/" in pattern.rstrip("/")
    parts = (
        _PART.get(part, re.escape(part)) for part in re.split(r"(/\*\*/|^\*\*/|/\*\*$|\*+|\?)", pattern.strip("/"))
    )
    inside = "/.*" if pattern.endswith("/") else ""
    return ("" if anchored else "(?:.*/)?") + "".join(parts) + inside


_PART = {"/**/": "/(?:.*/)?", "**/": "(?:.*/)?", "/**": "/.*", "*": "[^/]*", "**": ".*", "?": "[^/]"}
