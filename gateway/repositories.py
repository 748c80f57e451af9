"""Names of repositories and branches, as clients and git write them."""

import re

REMOTE = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/\s]*@)?[^/\s]+/|(?:[^@/\s]+@)?[^:/\s]+:)(?P<name>[^\s?#]+?)(?:\.git)?/?", re.ASCII
)
NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){1,9}", re.ASCII)
NAME_MAX = 255


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
    name = (value or "").removeprefix("refs/heads/")
    return name if name.isprintable() and " " not in name and 0 < len(name) <= NAME_MAX else None
