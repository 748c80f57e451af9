"""Fills work tables as a tracker's sync does: `know` what is needed, all else is made up."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from analytics import work
from gateway.tracker import split
from tests.journals import NOON

BEGIN = NOON.replace(tzinfo=None)
"""When most calls of tests start; without a zone, as in work tables."""


def hours(number: float) -> datetime:
    """A moment so long after `BEGIN`."""
    return BEGIN + timedelta(hours=number)


def pull(number: int, branch: str | None = "fix", repo: str = "acme/shop", **fields: Any) -> work.PullRequest:
    """An open pull request of GitHub."""
    given: dict[str, Any] = {
        "base_branch": "main",
        "created_at": hours(1),
        "url": f"https://github.com/{repo}/pull/{number}",
    }
    return work.PullRequest(pr_id=f"{repo}!{number}", repo=repo, number=number, head_branch=branch, **given | fields)


def know(
    data: Path,
    *tickets: work.Ticket | str,
    pulls: Mapping[str, Iterable[str]] | None = None,
    prs: Iterable[work.PullRequest] = (),
    links: Iterable[work.PrTicket] = (),
    commits: Iterable[work.Commit] = (),
    synced: datetime = BEGIN,
) -> None:
    """Bring the work tables up to date. `pulls`: titles of pull requests name tickets, by `pr_id`."""
    rows = [work.Ticket(ticket_id=each) if isinstance(each, str) else each for each in tickets]
    titles = [
        work.PrTicket(pr_id=pr_id, ticket_id=ticket, source="title")
        for pr_id, named in (pulls or {}).items()
        for ticket in named
    ]
    with work.alone(data):
        tables: dict[str, Iterable[work.Row]] = {
            "tickets": rows,
            "pull_requests": prs,
            "pr_tickets": [*titles, *links],
            "commits": commits,
        }
        for table, each in tables.items():
            if new := list(each):
                work.spool(data, table, new)
                work.store(data, table)
        if rows:
            work.mark_synced(data, {split(each.ticket_id)[0] for each in rows}, synced)
        work.write_tracker(data)
