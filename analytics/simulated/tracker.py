"""What the tracker and the forge of the made-up organisation know: tickets of its people, and what became of them.

Of each six tickets one was delivered, one was given up and one was reverted, all last month; the others are under way.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from analytics import work
from analytics.simulated.people import PEOPLE
from gateway.tracker import split

FATES = ("delivered", "given up", "reverted", "in progress", "new", "in review")
"""By the order of the tickets of a project."""
TYPES = ("story", "bug", "task")
TICKETS = {ticket: person.repo for person in PEOPLE for ticket in person.tickets}
"""With the repository where the work is done."""
FATE = {ticket: FATES[number % len(FATES)] for number, ticket in enumerate(TICKETS)}
ENDED = ("delivered", "given up", "reverted")
WORK_DAYS = 10
"""From the begin of what has ended to its end."""


def begun(now: datetime) -> datetime:
    """When work began on all that is not new: early in the last month."""
    return (now.replace(day=1) - timedelta(days=1)).replace(day=3)


def write(data: Path, now: datetime) -> None:
    """Store it all, as of `now` (UTC, without a zone), and tell the gateway."""
    rows = [row for number, (ticket, repo) in enumerate(TICKETS.items()) for row in _of(ticket, repo, number, now)]
    tables: dict[str, type[work.Row]] = {
        name: work.TABLES[name].row
        for name in ("tickets", "ticket_statuses", "pull_requests", "pr_tickets", "deployments", "deployment_prs")
    }
    with work.alone(data):
        for name, kind in tables.items():
            work.spool(data, name, [row for row in rows if type(row) is kind])
            work.store(data, name)
        work.mark_synced(data, {split(ticket)[0] for ticket in TICKETS}, now)
        work.write_tracker(data)


def _of(ticket_id: str, repo: str, number: int, now: datetime) -> Iterator[work.Row]:
    fate, started = FATE[ticket_id], begun(now)
    made = started - timedelta(days=10)
    done = started + timedelta(days=WORK_DAYS) if fate in ENDED else None
    course: dict[Literal["todo", "in_progress", "done"], datetime | None] = {
        "todo": made,
        "in_progress": started if fate != "new" else None,
        "done": done,
    }
    statuses = [
        work.TicketStatus(ticket_id=ticket_id, changed_at=at, status=category, status_category=category)
        for category, at in course.items()
        if at is not None
    ]
    yield from statuses
    yield work.Ticket(
        ticket_id=ticket_id,
        source="jira",
        project=split(ticket_id)[0],
        type=TYPES[number % len(TYPES)],
        title=f"Made up: {fate}",
        status=statuses[-1].status,
        status_category=statuses[-1].status_category,
        resolution=None if done is None else "Won't Do" if fate == "given up" else "Done",
        created_at=made,
        started_at=course["in_progress"],
        done_at=done,
        updated_at=now - timedelta(days=1) if done is None else done,
    )
    if fate in ("delivered", "reverted", "in review"):
        merged = done and done - timedelta(hours=5)
        pr = work.PullRequest(
            pr_id=f"{repo}!{number}",
            repo=repo,
            number=number,
            title=f"{ticket_id}: a made-up change",
            head_branch=f"change/{ticket_id}",
            base_branch="main",
            created_at=started,
            merged_at=merged,
            closed_at=merged,
            additions=40,
            deletions=10,
            approvals_by_others=1,
            reverted_at=merged + timedelta(days=3) if merged and fate == "reverted" else None,
        )
        yield pr
        yield work.PrTicket(pr_id=pr.pr_id, ticket_id=ticket_id, source="title")
        if merged:
            deployment = work.Deployment(
                deployment_id=f"{repo}@{number}",
                repo=repo,
                environment="production",
                status="success",
                started_at=merged + timedelta(hours=1),
                finished_at=merged + timedelta(hours=2),
            )
            yield deployment
            yield work.DeploymentPr(deployment_id=deployment.deployment_id, pr_id=pr.pr_id)
