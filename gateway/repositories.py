"""Names of repositories and branches, as clients and git write them."""

import re
import string
from urllib.parse import quote, unquote

REMOTE = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/\s]*@)?[^/\s]+/|(?:[^@/\s]+@)?[^:/\s]+:)(?P<name>[^\s?#]+?)(?:\.git)?/?", re.ASCII
)
NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){1,9}", re.ASCII)
NAME_MAX = 255
PLAIN = string.punctuation.replace("%", "")


def repo_name(value: str | None) -> str | None:
    """`acme/billing-core` of that, or of a remote's address (`git@github.com:acme/billing-core.git`, …), without host
    and credential. `None` for anything else."""
    if not value or len(value) > 2 * NAME_MAX:
        return None
    if remote := REMOTE.fullmatch(value):
        value = remote["name"]
    return value if NAME.fullmatch(value) and len(value) <= NAME_MAX and ".." not in value else None


def branch_name(value: str | None) -> str | None:
    """A branch, without `refs/heads/`: printable, without spaces, bounded. Else `None`."""
    if not value:
        return None
    name = value.removeprefix("refs/heads/")
    return name if name.isprintable() and " " not in name and 0 < len(name) <= NAME_MAX else None


def branch_header(branch: str) -> str:
    """A branch as the header `x-outlay-branch` holds it: in ASCII, for tools send nothing else. What is not, and `%`,
    is percent-encoded."""
    return quote(branch, safe=PLAIN)


def header_branch(value: str | None) -> str | None:
    """The branch that the header holds, also where a client encoded nothing."""
    return branch_name(unquote(value) if value and value.isascii() else value)
