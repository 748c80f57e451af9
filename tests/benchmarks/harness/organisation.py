"""A large made-up organisation as a data folder: calls in sealed days, and what its trackers and forges know.

Everything follows from the numbers asked for and the seed. A task has 20 calls of one day; few tickets cost much. Some
calls are for two tickets, for tickets that no tracker knows or that have another key by now, overhead, or for nothing.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

import analytics
from analytics import lake, work

TASK_CALLS = 20
FIRST_DAY = date(2026, 3, 1)
CALLS = """
SELECT * EXCLUDE (day) FROM (
  (FROM booked_calls LIMIT 0)
  UNION ALL BY NAME
  SELECT
    format('{:x}-{:x}', task, i) AS call_id, call_id AS request_id, 1 AS attempt,
    CAST($day AS TIMESTAMP) + to_seconds(CAST(hash(task, $seed) % 72000 + i * 60 AS BIGINT)) AS started_at,
    started_at + INTERVAL 5 SECOND AS recorded_at, 5000 AS duration_ms, 'team-' || team AS team_id,
    ['claude-code', 'codex', 'aider', 'opencode'][CAST(hash(task, 1) % 4 + 1 AS INTEGER)] AS client,
    'acme/repo-' || project AS repo, 'model-' || hash(task, 2) % 6 AS request_model, request_model AS response_model,
    'openai' AS provider,
    CASE WHEN fate < 12 THEN [] WHEN fate < 15 THEN [ticket, other] ELSE [ticket] END AS tickets,
    tickets[1] AS ticket_id, CASE WHEN fate < 12 THEN 'none' ELSE 'branch' END AS ticket_source,
    CASE WHEN fate < 5 THEN 'ci' END AS purpose, 'task-' || task AS task_id, task_id AS session_id,
    'completed' AS result, 'reported' AS usage_source, CAST(hash(task, i, 3) % 100000 AS BIGINT) AS input_tokens,
    CAST(hash(task, i, 4) % 4000 AS BIGINT) AS output_tokens,
    CASE WHEN hash(task, i, 5) % 500 > 0
      THEN CAST(hash(task, i, 6) % 200000000 * 0.000000001 AS DECIMAL(18,9)) END AS list_cost_usd,
    list_cost_usd AS input_cost_usd, list_cost_usd AS contracted_cost_usd,
    CASE WHEN list_cost_usd IS NULL THEN 'unpriced' ELSE 'exact' END AS price_status, 'whole' AS segment
  FROM (
    SELECT
      task, hash(task, $seed, 7) % 100 AS fate, project, (project + hash(task, 8) % 2) % 40 AS team,
      -- Those with low numbers have most of the tasks; one of a hundred is for a ticket that nobody made.
      concat('P', project, '-', CASE WHEN fate = 99 THEN 900000 ELSE 1 END
        + CAST(floor($tickets * power(hash(task, $seed, 9) % 100000 / 100000, 2)) AS BIGINT)) AS ticket,
      concat('P', project, '-', 1 + hash(task, $seed, 10) % $tickets) AS other
    FROM (
      SELECT task, hash(task, $seed, 11) % $projects AS project
      FROM range(CAST($first AS BIGINT), CAST($last AS BIGINT)) AS numbers(task)
    )
  ), range($task_calls) AS calls(i)
)
"""


@dataclass(frozen=True)
class Size:
    calls: int = 10_000_000
    tickets: int = 50_000
    pull_requests: int = 30_000
    deployments: int = 5_000
    projects: int = 100
    days: int = 240
    seed: int = 1

    @property
    def per_project(self) -> int:
        return self.tickets // self.projects

    @property
    def end(self) -> datetime:
        return datetime.combine(FIRST_DAY, time()) + timedelta(days=self.days)


def make(data: Path, size: Size) -> None:
    """Fill a folder. `outlay verify` finds nothing wrong in it."""
    lake.publish(data)
    make_calls(data, size)
    with work.alone(data):
        for table, rows in _tables(size).items():
            work.spool(data, table, rows)
            work.store(data, table)
        work.mark_synced(data, [f"P{project}" for project in range(size.projects)], size.end)
        work.write_tracker(data)


def make_calls(data: Path, size: Size) -> None:
    tasks = size.calls // TASK_CALLS
    state: list[lake.Row] = []
    with analytics.open(data) as db:
        for number in range(size.days):
            day = FIRST_DAY + timedelta(days=number)
            lake.day_folder(data, day).mkdir()
            parameters = {
                "day": day,
                "first": tasks * number // size.days,
                "last": tasks * (number + 1) // size.days,
                "task_calls": TASK_CALLS,
                "tickets": size.per_project,
                "projects": size.projects,
                "seed": size.seed,
            }
            file = lake.day_file(data, day)
            db.sql(CALLS, params=parameters).write_parquet(str(file), compression="zstd")
            state.append(lake.Row("closed", day, None, *lake.file_sums(db.cursor(), file)))
    lake.write_state(data, state)


def _tables(size: Size) -> dict[str, Iterable[work.Row]]:
    rng = random.Random(size.seed)
    tickets = [*_tickets(rng, size)]
    pulls = [*_pull_requests(rng, size)]
    links = [*_links(rng, size, pulls)]
    merged = [pull for pull in pulls if pull.merged_at]
    return {
        "tickets": tickets,
        "ticket_statuses": _statuses(tickets),
        "pull_requests": pulls,
        "pr_tickets": links,
        "deployments": [*_deployments(rng, size)],
        "deployment_prs": _carried(rng, size, merged),
    }


def _tickets(rng: random.Random, size: Size) -> Iterator[work.Ticket]:
    for number in range(size.projects * size.per_project):
        project = f"P{number % size.projects}"
        key = number // size.projects + 1
        created = size.end - timedelta(days=rng.uniform(0, size.days))
        started = created + timedelta(days=rng.expovariate(0.3))
        done = started + timedelta(days=rng.expovariate(0.2))
        category = "done" if done < size.end else "in_progress" if started < size.end else "todo"
        yield work.Ticket(
            ticket_id=f"{project}-{key}",
            source="jira",
            project=project,
            type=rng.choice(("bug", "story", "task", "spike")),
            title=f"What {project}-{key} is about",
            status=category,
            status_category=category,
            resolution=rng.choice(("Done", "Done", "Fixed", "Won't Do", "Duplicate")) if category == "done" else None,
            created_at=created,
            started_at=started if category != "todo" else None,
            done_at=done if category == "done" else None,
            updated_at=min(done, size.end),
            aliases=[f"OLD{number % size.projects}-{key}"] if key % 100 == 1 else [],
        )


def _statuses(tickets: Iterable[work.Ticket]) -> Iterator[work.TicketStatus]:
    for ticket in tickets:
        for category, at in (("todo", ticket.created_at), ("in_progress", ticket.started_at), ("done", ticket.done_at)):
            if at is not None:
                yield work.TicketStatus(
                    ticket_id=ticket.ticket_id, changed_at=at, status=category, status_category=category
                )


def _pull_requests(rng: random.Random, size: Size) -> Iterator[work.PullRequest]:
    for number in range(1, size.pull_requests + 1):
        created = size.end - timedelta(days=rng.uniform(0, size.days))
        ended = created + timedelta(days=rng.expovariate(0.5))
        ended_at = ended if ended < size.end else None
        merged_at = ended_at if rng.random() < 0.85 else None
        repo = f"acme/repo-{number % size.projects}"
        yield work.PullRequest(
            pr_id=f"{repo}!{number}",
            repo=repo,
            number=number,
            title=f"Change {number}",
            base_branch="main",
            created_at=created,
            closed_at=ended_at,
            merged_at=merged_at,
            additions=rng.randrange(500),
            deletions=rng.randrange(200),
            reverted_at=merged_at + timedelta(days=rng.uniform(0, 40)) if merged_at and rng.random() < 0.05 else None,
            updated_at=ended_at or created,
        )


def _links(rng: random.Random, size: Size, pulls: Iterable[work.PullRequest]) -> Iterator[work.PrTicket]:
    """One of ten is for several tickets."""
    for pull in pulls:
        for key in {rng.randrange(size.per_project) + 1 for _ in range(rng.choice((1,) * 9 + (3,)))}:
            ticket = f"P{pull.number % size.projects}-{key}"
            yield work.PrTicket(pr_id=pull.pr_id, ticket_id=ticket, source="title")


def _deployments(rng: random.Random, size: Size) -> Iterator[work.Deployment]:
    for number in range(size.deployments):
        started = size.end - timedelta(days=size.days * (1 - number / size.deployments))
        failed = rng.random() < 0.1
        yield work.Deployment(
            deployment_id=f"acme/repo-{number % size.projects}@{number}",
            repo=f"acme/repo-{number % size.projects}",
            environment="production",
            status="failure" if failed else "success",
            started_at=started,
            finished_at=None if failed else started + timedelta(minutes=10),
            failed_at=started + timedelta(minutes=10) if failed else None,
        )


def _carried(rng: random.Random, size: Size, merged: Iterable[work.PullRequest]) -> Iterator[work.DeploymentPr]:
    """Each by one of the next deployments of its repository."""
    for pull in merged:
        assert pull.merged_at is not None
        age = pull.merged_at - (size.end - timedelta(days=size.days))
        number = int(age / timedelta(days=size.days) * size.deployments) + rng.randrange(size.projects)
        number += (pull.number - number) % size.projects
        if number < size.deployments:
            yield work.DeploymentPr(deployment_id=f"acme/repo-{number % size.projects}@{number}", pr_id=pull.pr_id)
