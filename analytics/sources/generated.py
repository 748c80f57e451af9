"""Which files of a change nobody wrote: generated, lock and vendored ones. Their lines say nothing of its size. Pure.

Patterns are those of `.gitattributes`: a name at any depth, a path from the root where there is a slash, `*` within a
name, `**` across folders; and a folder, at any depth, where the slash is behind it.
"""

import itertools
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
ATTRIBUTES_MAX, RULES_MAX, PATTERN_MAX = 2**17, 500, 255
"""Of a repository's `.gitattributes`, characters, rules, and characters of one, are looked at. More are not."""


def left_out(patterns: Iterable[str] = (), attributes: str = "") -> Callable[[str], bool]:
    """Tells whether a file is one that nobody wrote: by the built-in patterns, those of an installation, and those that
    a repository's `.gitattributes` marks, which can also say of a file that it is none."""
    rules = [(re.compile(_regex(pattern)), True) for pattern in (*BUILT_IN, *patterns)]
    marked = itertools.islice(_marked(attributes[:ATTRIBUTES_MAX]), RULES_MAX)
    rules += [(re.compile(_regex(pattern)), is_marked) for pattern, is_marked in marked]

    def is_left_out(path: str) -> bool:
        return next((answer for rule, answer in reversed(rules) if rule.fullmatch(path)), False)

    return is_left_out


def _marked(attributes: str) -> Iterator[tuple[str, bool]]:
    for line in attributes.splitlines():
        pattern, _, rest = line.strip().partition(" ")
        if 0 < len(pattern) <= PATTERN_MAX and not pattern.startswith(("#", '"')):
            for mark in MARKED.finditer(rest):
                yield pattern, not mark["no"] and mark["value"] != "false"


def _regex(pattern: str) -> str:
    """Without backtracking: what stands between two stars has a fixed length, so its first place is as good as any
    later one, and an atomic group keeps it. Likewise the folders between two `**`."""
    names = pattern.strip("/").split("/")
    names = [*([] if "/" in pattern.rstrip("/") else ["**"]), *names, *(["**"] if pattern.endswith("/") else [])]
    regex = ""
    for place, name in enumerate(names):
        if name != "**":
            is_first, is_last = place == 0 or names[place - 1] == "**", place == len(names) - 1
            folders = "(?:[^/]*/)*?" if is_first and place else ""
            regex += ("(?>" if is_first else "") + folders + _name(name) + (r"\Z" if is_last else "/")
            regex += ")" if is_last or names[place + 1] == "**" else ""
    return f"(?s:{regex}{'.*' if names[-1] == '**' else ''})"


def _name(pattern: str) -> str:
    """Of one file or folder, to its end."""
    first, *others = (re.escape(part).replace(r"\?", "[^/]") for part in re.split(r"\*+", pattern))
    if not others:
        return first
    return first + "".join(f"(?>[^/]*?{part})" for part in others[:-1]) + rf"(?>[^/]*?{others[-1]}(?=/|\Z))"
