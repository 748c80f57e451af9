"""A made-up organisation: teams, tickets, pull requests, deployments, calls; and strategies that game what is measured.

`plan` makes honest work of two quarters from a seed. A strategy takes a plan and gives another: it changes what people
do in the second quarter, never what is measured. `rows` are the work tables that a plan comes to, `calls` what its
agents asked models. Who is here is made up; nobody is ranked.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import exp
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import msgspec

from analytics import disk, work
from gateway import ledger
from gateway.call import Call, TicketSource, Usage
from gateway.ids import uuid7
from gateway.prices import PriceBook

BEGINS = datetime(2026, 4, 1)  # noqa: DTZ001 - UTC, as all times of work tables
TEAMS = ("checkout", "ledger", "mobile", "search", "platform")
BUILDERS = 7
MEDIAN_LINES = 100
TYPES = ("feature", "bug", "chore", "docs")
DAY = timedelta(days=1)
GROWTH = 1.1
"""Work of the second quarter is a tenth larger."""
GOLDEN = (5**0.5 - 1) / 2
"""Steps of this part of a circle fall evenly all over it."""


@dataclass(frozen=True)
class Change:
    """A pull request that was merged."""

    name: str
    """Unique in its plan."""
    team: str
    author: str
    repo: str
    tickets: tuple[str, ...]
    merged_at: datetime
    lines: int
    files: tuple[str, ...]
    is_reviewed: bool = True
    reverts: str | None = None
    """Name of the change that it takes back."""
    lands_again: str | None = None
    says_so: bool = True
    """Whether its title tells of what it takes or brings back."""
    minutes_open: int = 600


@dataclass(frozen=True)
class Task:
    """A ticket of the tracker."""

    ticket_id: str
    team: str
    type: str
    opened_at: datetime
    done_at: datetime | None
    was_reopened: bool = False


@dataclass(frozen=True)
class Session:
    """An agent at work: so many calls, one after the other."""

    team: str
    user: str
    ticket: str | None
    begins_at: datetime
    calls: int
    kind: Literal["work", "idle", "overhead"] = "work"
    typed: bool = True
    """The ticket is named by hand, and not by the branch."""
    tokens: int = 20_000
    """Input of the first call."""


@dataclass(frozen=True)
class Plan:
    """What everybody does."""

    prefix: str
    begins: datetime
    """First day of the first quarter."""
    tasks: Mapping[str, Task]
    changes: Sequence[Change]
    sessions: Sequence[Session] = ()
    redeploys: int = 0
    """So many deployments more of each release."""
    release_hours: float = 48
    """One release of a repository per so many hours; 0 = one for each change."""
    failing: frozenset[int] = frozenset()
    """Releases of the second quarter, by number modulo 3, that fail."""
    rolls_back: bool = False
    """An hour after each release of the second quarter, the last one of the first quarter is deployed again."""

    @property
    def measured(self) -> datetime:
        """First day of the second quarter."""
        return quarter_after(self.begins)

    def attacked(self) -> list[Change]:
        """Changes of the second quarter."""
        return [change for change in self.changes if change.merged_at >= self.measured]

    def with_changes(self, changed: Callable[[Change], Iterable[Change]]) -> "Plan":
        """Other changes in place of each one of the second quarter."""
        before = [change for change in self.changes if change.merged_at < self.measured]
        return replace(self, changes=[*before, *(new for change in self.attacked() for new in changed(change))])


def quarter_after(quarter: datetime) -> datetime:
    return (quarter + timedelta(days=100)).replace(day=1)


Strategy = Callable[[Plan, random.Random], Plan]


# -- honest work -------------------------------------------------------------------------------------------------------


def plan(seed: int, prefix: str = "", tickets: int = 420, begins: datetime = BEGINS) -> Plan:
    """So many tickets in each quarter, most of them with one pull request. The size of their work is log-normal, with
    σ = 1, and spread evenly over each repository and quarter: what an attack gains hangs on how it compares with the
    quarter before, which no seed should decide."""
    rng = random.Random(seed)  # noqa: S311
    tasks: dict[str, Task] = {}
    changes: list[Change] = []
    sessions: list[Session] = []
    usual = NormalDist()
    places: dict[tuple[str, datetime], float] = {}
    for number in range(2 * tickets):
        start = begins if number < tickets else quarter_after(begins)
        team = TEAMS[number % len(TEAMS)]
        opened = start + timedelta(days=rng.uniform(0, 80))
        done = opened + timedelta(days=rng.uniform(1, 6))
        ticket = f"{prefix}{team.upper()}-{number + 1}"
        tasks[ticket] = Task(ticket, team, rng.choice(TYPES), opened, done)
        author = f"{prefix}{team}-{rng.randrange(BUILDERS)}"
        repo = f"{prefix}acme/{team}-{rng.randrange(2)}"
        pulls = rng.choices((0, 1, 2), (10, 75, 15))[0]
        place = places[repo, start] = (places.get((repo, start), rng.random()) + GOLDEN * (pulls > 0)) % 1
        for part in range(pulls):
            merged = min(opened + (done - opened) * (0.6 + 0.4 * part), start + timedelta(days=86))
            size = GROWTH ** (start > begins) * exp(usual.inv_cdf(place or 0.5)) / pulls
            lines = max(1, round(MEDIAN_LINES * size))
            files = tuple(f"src/m{rng.randrange(400)}.py" for _ in range(rng.randint(1, 5)))
            changes.append(Change(f"{number}.{part}", team, author, repo, (ticket,), merged, lines, files))
        at = opened + timedelta(hours=rng.uniform(1, 10))
        typed = rng.random() < 0.5
        sessions.append(Session(team, author, ticket, at, rng.randint(4, 16), typed=typed))
        if rng.random() < 0.1:
            sessions.append(Session(team, author, None, at + DAY / 3, rng.randint(2, 8)))
        if rng.random() < 0.05:
            sessions.append(Session(team, f"{prefix}{team}-ci", None, at + DAY / 2, 5, kind="overhead"))
    return Plan(prefix, begins, tasks, changes, sessions)


# -- strategies --------------------------------------------------------------------------------------------------------


def more_tokens(before: Plan, rng: random.Random) -> Plan:
    """Ten times the tokens, nothing else."""
    return replace(before, sessions=[replace(each, tokens=each.tokens * 10) for each in before.sessions])


def redeploys(before: Plan, rng: random.Random) -> Plan:
    """Each release is deployed ten times."""
    return replace(before, redeploys=9)


def deployment_per_pull(before: Plan, rng: random.Random) -> Plan:
    return replace(before, release_hours=0)


def roll_backs(before: Plan, rng: random.Random) -> Plan:
    """All is shipped, and taken back at once."""
    return replace(before, rolls_back=True)


def touch_ups(before: Plan, rng: random.Random) -> Plan:
    """One line more, reviewed, for each ticket of the first quarter."""
    more = [
        replace(
            change,
            name=f"{change.name}/touched",
            merged_at=before.measured + timedelta(days=rng.uniform(0, 80)),
            lines=1,
            files=(f"notes/{change.name}.md",),
        )
        for change in before.changes
        if change.merged_at < before.measured
    ]
    return replace(before, changes=[*before.changes, *more])


def split_pulls(
    *, tickets: Literal["kept", "own", "none"] = "kept", hours: float = 24, shares_files: bool = True
) -> Strategy:
    """Each pull request is four of the same author, so many hours apart, in some of its files each, or in files of
    their own; with its ticket, with a ticket each, or with none."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        tasks = dict(before.tasks)

        def parts(change: Change) -> Iterator[Change]:
            for number in range(4):
                own = () if tickets == "none" else change.tickets
                if tickets == "own" and number:
                    own = (f"{change.tickets[0]}{number}00",)
                    tasks[own[0]] = replace(tasks[change.tickets[0]], ticket_id=own[0])
                files = tuple(rng.sample(change.files, (len(change.files) + 1) // 2))
                yield replace(
                    change,
                    name=f"{change.name}/{number}",
                    merged_at=change.merged_at + number * timedelta(hours=hours),
                    lines=change.lines // 4 + (number < change.lines % 4),
                    files=files if shares_files else (f"split/{change.name}/{number}.py",),
                    tickets=own,
                )

        after = before.with_changes(parts)
        return replace(after, tasks=tasks)

    return strategy


def collusion(before: Plan, rng: random.Random) -> Plan:
    """Each pull request is four, by four authors, with tickets of their own and files that they do not share."""
    tasks = dict(before.tasks)

    def parts(change: Change) -> Iterator[Change]:
        for number in range(4):
            ticket = change.tickets[0] if not number else f"{change.tickets[0]}{number}00"
            tasks[ticket] = replace(tasks[change.tickets[0]], ticket_id=ticket)
            yield replace(
                change,
                name=f"{change.name}/{number}",
                tickets=(ticket,),
                files=(f"split/{change.name}/{number}.py",),
                author=f"{before.prefix}{change.team}-{rng.randrange(BUILDERS)}",
                lines=change.lines // 4 + (number < change.lines % 4),
            )

    after = before.with_changes(parts)
    return replace(after, tasks=tasks)


def bigger_diffs(factor: int, share: float = 1.0) -> Strategy:
    def strategy(before: Plan, rng: random.Random) -> Plan:
        return before.with_changes(
            lambda change: [replace(change, lines=change.lines * factor) if rng.random() < share else change]
        )

    return strategy


def confetti(before: Plan, rng: random.Random, count: int = 400) -> Plan:
    """Tickets that are opened and closed by the same person, and nothing else."""
    tasks = dict(before.tasks)
    for number in range(count):
        team = TEAMS[number % len(TEAMS)]
        ticket = f"{before.prefix}{team.upper()}-{9_000_000 + number}"
        at = before.measured + timedelta(days=rng.uniform(0, 80))
        tasks[ticket] = Task(ticket, team, "chore", at, at + timedelta(minutes=5))
    return replace(before, tasks=tasks)


def filler(
    *, lines: int, is_reviewed: bool, tickets: bool, files: int = 400, count: int = 400, team: str | None = None
) -> Strategy:
    """Pull requests of so many lines for nothing, by one team or all, which nobody, or somebody at once, approves."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        tasks, more = dict(before.tasks), []
        honest = [change for change in before.attacked() if team in (None, change.team)]
        for number in range(count):
            like = rng.choice(honest)
            at = before.measured + timedelta(days=rng.uniform(0, 84))
            ticket = f"{before.prefix}{like.team.upper()}-{8_000_000 + number}"
            if tickets:
                tasks[ticket] = Task(ticket, like.team, "chore", at - DAY, at)
            more.append(
                replace(
                    like,
                    name=f"filler-{number}",
                    tickets=(ticket,) if tickets else (),
                    merged_at=at,
                    lines=lines,
                    files=(f"filler/{number % files}.py",),
                    is_reviewed=is_reviewed,
                    minutes_open=1,
                )
            )
        return replace(before, tasks=tasks, changes=[*before.changes, *more])

    return strategy


def revert_cycles(
    *,
    days: int,
    keeps_ticket: bool = False,
    tells: Literal["both", "revert", "nothing"] = "both",
    hours: float = 1,
    factor: float = 1,
    in_parts: bool = False,
) -> Strategy:
    """Each pull request is reverted after some days, and lands again some hours later, with so many times the lines, or
    in two parts that share no files. Titles tell of both, of the revert, or of nothing."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        def cycle(change: Change) -> Iterator[Change]:
            tickets = change.tickets if keeps_ticket else ()
            back_at = change.merged_at + days * DAY
            yield change
            yield replace(
                change,
                name=f"{change.name}/back",
                tickets=tickets,
                merged_at=back_at,
                reverts=change.name,
                says_so=tells != "nothing",
            )
            again = replace(
                change,
                name=f"{change.name}/again",
                tickets=tickets,
                merged_at=back_at + timedelta(hours=hours),
                lines=round(change.lines * factor),
                lands_again=change.name,
                says_so=tells == "both",
            )
            if in_parts:
                for number, lines in enumerate((again.lines // 2, again.lines - again.lines // 2)):
                    own = (f"parts/{change.name}/{number}.py",)
                    yield replace(again, name=f"{again.name}/{number}", lines=lines, files=own)
            else:
                yield again

        return before.with_changes(cycle)

    return strategy


def reverted_third(*, says_so: bool = True, pretends: bool = False) -> Strategy:
    """A third of the pull requests is reverted within two days, for good; a line that claims to bring it back may
    follow."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        numbers = itertools.count()

        def maybe(change: Change) -> Iterator[Change]:
            yield change
            if next(numbers) % 3 == 0:
                at = change.merged_at + timedelta(hours=rng.uniform(2, 46))
                back = replace(change, name=f"{change.name}/back", merged_at=at, reverts=change.name, says_so=says_so)
                yield back
                if pretends:
                    yield replace(
                        change,
                        name=f"{change.name}/again",
                        merged_at=at + timedelta(hours=2),
                        lines=1,
                        files=("README.md",),
                        lands_again=change.name,
                    )

        return before.with_changes(maybe)

    return strategy


def failing_third(before: Plan, rng: random.Random) -> Plan:
    """A third of the deployments fails within a day."""
    return replace(before, failing=frozenset({1}))


def reopened_third(before: Plan, rng: random.Random) -> Plan:
    tasks = {
        name: replace(task, was_reopened=task.opened_at >= before.measured and rng.random() < 1 / 3)
        for name, task in before.tasks.items()
    }
    return replace(before, tasks=tasks)


def no_reviews(before: Plan, rng: random.Random) -> Plan:
    return before.with_changes(lambda change: [replace(change, is_reviewed=False)])


def honest_growth(before: Plan, rng: random.Random) -> Plan:
    """The honest twin: a fifth more pull requests of usual size, reviewed, with tickets of their own."""
    tasks, more = dict(before.tasks), []
    chosen = rng.sample(before.attacked(), round(len(before.attacked()) / 5))
    for number, like in enumerate(chosen):
        ticket = f"{before.prefix}{like.team.upper()}-{7_000_000 + number}"
        tasks[ticket] = replace(tasks[like.tickets[0]], ticket_id=ticket)
        lines = max(1, round(MEDIAN_LINES * rng.lognormvariate(0, 1)))
        files = tuple(f"src/n{rng.randrange(400)}.py" for _ in range(rng.randint(1, 5)))
        more.append(replace(like, name=f"more-{number}", tickets=(ticket,), lines=lines, files=files))
    return replace(before, tasks=tasks, changes=[*before.changes, *more])


def sandbag(before: Plan, rng: random.Random, count: int = 400) -> Plan:
    """In the first quarter small pull requests, reviewed, are to make the yardstick of the second one small. The
    quarter before the first was an honest one."""
    first = [change for change in before.changes if change.merged_at < before.measured]
    earlier = [
        replace(each, name=f"{each.name}/earlier", tickets=(), merged_at=each.merged_at - 91 * DAY) for each in first
    ]
    small = [
        replace(
            rng.choice(first),
            name=f"small-{number}",
            tickets=(),
            merged_at=before.begins + timedelta(days=rng.uniform(0, 84)),
            lines=6,
            files=(f"small/{number}.py",),
        )
        for number in range(count)
    ]
    return replace(before, changes=[*earlier, *small, *before.changes])


def other_teams_tags(team: str) -> Strategy:
    """One team names another team's ticket for all that its agents do."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        parked = next(name for name, task in before.tasks.items() if task.team != team)
        sessions = [
            replace(each, ticket=parked, typed=True) if each.team == team and each.ticket else each
            for each in before.sessions
        ]
        return replace(before, sessions=sessions)

    return strategy


def no_tags(team: str) -> Strategy:
    """One team names no ticket any more."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        return replace(
            before, sessions=[replace(each, ticket=None) if each.team == team else each for each in before.sessions]
        )

    return strategy


def idle_agents(team: str, sessions: int = 60, calls: int = 60) -> Strategy:
    """Agents of one team that go round in circles, for a leaderboard of tokens."""

    def strategy(before: Plan, rng: random.Random) -> Plan:
        more = [
            Session(
                team,
                f"{before.prefix}{team}-{number % BUILDERS}",
                None,
                before.measured + timedelta(days=rng.uniform(20, 80)),
                calls,
                kind="idle",
                tokens=60_000,
            )
            for number in range(sessions)
        ]
        return replace(before, sessions=[*before.sessions, *more])

    return strategy


def leaderboard(team: str) -> Strategy:
    """A board of tokens hangs in the hall, and one team means to lead it: agents that go round in circles, and pull
    requests of two lines to show for them."""
    idle = idle_agents(team, sessions=50)
    small = filler(lines=2, is_reviewed=True, tickets=True, count=90, team=team)
    return lambda before, rng: small(idle(before, rng), rng)


# -- work tables -------------------------------------------------------------------------------------------------------


def rows(plan: Plan) -> Iterator[tuple[str, list[work.Row]]]:
    """Work tables by name."""
    numbers = {change.name: number for number, change in enumerate(plan.changes, 1)}
    yield "tickets", [_ticket(task, plan.prefix) for task in plan.tasks.values()]
    yield "pull_requests", [_pull(change, numbers[change.name]) for change in plan.changes]
    links = {(_pr_id(change, numbers), ticket) for change in plan.changes for ticket in change.tickets}
    yield "pr_tickets", [work.PrTicket(pr_id=pr, ticket_id=ticket, source="tracker") for pr, ticket in sorted(links)]
    yield "reverts", list(_reverts(plan, numbers))
    deployments, carried = _deployments(plan, numbers)
    yield "deployments", list(deployments)
    yield "deployment_prs", list(carried)
    users = [f"{plan.prefix}{team}-{number}" for team in TEAMS for number in range(BUILDERS)]
    yield "users", [work.User(user_id=user, team_id=user.rpartition("-")[0]) for user in users]
    monday = (plan.begins - timedelta(days=plan.begins.weekday())).date()
    mondays = [monday + timedelta(weeks=week) for week in range(27)]
    yield (
        "teams",
        [work.Team(team_id=plan.prefix + team, week=week, builders=BUILDERS) for team in TEAMS for week in mondays],
    )


def _pr_id(change: Change, numbers: Mapping[str, int]) -> str:
    return f"{change.repo}!{numbers[change.name]}"


def _ticket(task: Task, prefix: str) -> work.Ticket:
    who = f"{prefix}{task.team}-0"
    return work.Ticket(
        ticket_id=task.ticket_id,
        source="jira",
        project=task.ticket_id.rpartition("-")[0],
        type=task.type,
        title="Made up",
        status="Done" if task.done_at else "Open",
        status_category="done" if task.done_at else "todo",
        created_at=task.opened_at,
        started_at=task.opened_at,
        done_at=task.done_at,
        creator=who,
        assignee=who,
        closer=who if task.done_at else None,
        reopened_count=int(task.was_reopened),
        updated_at=task.done_at or task.opened_at,
    )


def _pull(change: Change, number: int) -> work.PullRequest:
    title = f"Change {change.name}"
    if change.reverts is not None and change.says_so:
        title = f'Revert "Change {change.reverts}"'
    elif change.lands_again is not None and change.says_so:
        title = f'Reapply "Change {change.lands_again}"'
    added = change.lines - change.lines // 4
    if change.reverts is not None:
        added = change.lines // 4
    return work.PullRequest(
        pr_id=f"{change.repo}!{number}",
        repo=change.repo,
        number=number,
        author=change.author,
        author_is_bot=False,
        title=title,
        head_branch=f"work/{number}",
        base_branch="main",
        created_at=change.merged_at - timedelta(minutes=change.minutes_open),
        merged_at=change.merged_at,
        closed_at=change.merged_at,
        additions=added,
        deletions=change.lines - added,
        files=list(change.files),
        approvals_by_others=int(change.is_reviewed),
        updated_at=change.merged_at,
    )


def _reverts(plan: Plan, numbers: Mapping[str, int]) -> Iterator[work.Revert]:
    for change in plan.changes:
        other = change.reverts or change.lands_again
        if other is not None and change.says_so:
            yield work.Revert(
                reverting=_pr_id(change, numbers),
                repo=change.repo,
                kind="pr",
                reference=f"{change.repo}!{numbers[other]}",
                is_reland=change.lands_again is not None,
                reverted_at=change.merged_at,
            )


def _deployments(plan: Plan, numbers: Mapping[str, int]) -> tuple[list[work.Deployment], list[work.DeploymentPr]]:
    deployments: list[work.Deployment] = []
    carried: list[work.DeploymentPr] = []

    def deploy(name: str, repo: str, sha: str, begun: datetime, fails: bool = False) -> None:
        done = begun + timedelta(minutes=5)
        deployments.append(
            work.Deployment(
                deployment_id=name,
                repo=repo,
                environment="production",
                sha=sha,
                status="success",
                started_at=begun,
                finished_at=done,
                failed_at=done + timedelta(hours=1) if fails else None,
                updated_at=done,
            )
        )

    for repo in sorted({change.repo for change in plan.changes}):
        changes = sorted((c for c in plan.changes if c.repo == repo), key=lambda change: change.merged_at)
        stays = ""
        for number, (at, release) in enumerate(_releases(changes, plan.begins, plan.release_hours)):
            is_attacked = at >= plan.measured
            sha = f"{repo}/{number}"
            for again in range(1 + plan.redeploys):
                name = f"{sha}.{again}"
                fails = is_attacked and number % 3 in plan.failing
                deploy(name, repo, sha, at + timedelta(minutes=30 * again), fails)
                carried += [work.DeploymentPr(deployment_id=name, pr_id=_pr_id(each, numbers)) for each in release]
            if not is_attacked:
                stays = sha
            elif plan.rolls_back:
                deploy(f"{sha}.back", repo, stays, at + timedelta(hours=1))
    return deployments, carried


def _releases(changes: Sequence[Change], begins: datetime, hours: float) -> Iterator[tuple[datetime, list[Change]]]:
    """(when, what) of one repository's releases."""
    if not hours:
        yield from ((change.merged_at + timedelta(hours=1), [change]) for change in changes)
        return
    for stretch, group in itertools.groupby(changes, lambda c: (c.merged_at - begins) // timedelta(hours=hours)):
        yield begins + (stretch + 1) * timedelta(hours=hours), list(group)


def quarters_before(now: datetime) -> datetime:
    """First day of the second last quarter that is over: a plan that begins then is past."""
    this = datetime(now.year, (now.month - 1) // 3 * 3 + 1, 1)  # noqa: DTZ001 - UTC, as all times of work tables
    return (this - timedelta(days=170)).replace(day=1)


def store_work(data: Path, plans: Iterable[Plan], seen_at: datetime | None = None) -> None:
    """Bring the work tables of a data folder up to date with what plans come to. `seen_at`: by default now."""
    tables: dict[str, list[work.Row]] = {}
    for each in plans:
        for name, found in rows(each):
            tables.setdefault(name, []).extend(found)
    with work.alone(data):
        for name, found in tables.items():
            work.spool(data, name, found)
            work.store(data, name, (), seen_at)
        work.write_tracker(data)


# -- calls -------------------------------------------------------------------------------------------------------------

MODEL = "claude-sonnet-4-5"


def calls(plan: Plan, book: PriceBook, seed: int = 1, names: str = "s") -> Iterator[Call]:
    """What agents asked models, by session; the same for the same seed. `names` begin those of sessions."""
    for number, session in enumerate(plan.sessions):
        rng = random.Random(f"{seed}/{number}")  # noqa: S311
        yield from _session(plan, session, book, rng, f"{plan.prefix}{names}{number}")


def _session(plan: Plan, session: Session, book: PriceBook, rng: random.Random, name: str) -> Iterator[Call]:
    is_idle = session.kind == "idle"
    goes_round = is_idle and rng.random() < 0.5
    at, history = session.begins_at, session.tokens
    for number in range(session.calls):
        output = rng.randint(100, 900)
        cached = history * 9 // 10 if number else 0
        usage = Usage(
            input_tokens=history,
            output_tokens=output,
            cache_read_input_tokens=cached,
            cache_write_input_tokens=history - cached if number else 0,
        )
        cost = book.price("anthropic", (MODEL, MODEL), usage, at.replace(tzinfo=UTC))
        started_us = int(at.replace(tzinfo=UTC).timestamp() * 1_000_000)
        call_id = uuid7(started_us)
        tickets = (session.ticket,) if session.ticket else ()
        source: TicketSource = ("header" if session.typed else "branch") if tickets else "none"
        edits = 0 if is_idle or session.kind == "overhead" else int(rng.random() < 0.5)
        action = f"{name}/round" if goes_round and number else f"{name}/{number}"
        yield Call(
            call_id=call_id,
            request_id=call_id,
            attempt=1,
            started_us=started_us,
            duration_ms=4_000,
            first_byte_ms=400,
            key_id=f"key-{session.user}",
            user_id=session.user,
            team_id=plan.prefix + session.team,
            client="claude-code",
            agent="main",
            tickets=tickets,
            ticket_id=session.ticket,
            ticket_source=source,
            ticket_state="known" if session.ticket in plan.tasks else None,
            task_id=name,
            task_source="session",
            session_id=name,
            branch=f"work/{session.ticket}" if session.ticket and not session.typed else None,
            purpose="ci" if session.kind == "overhead" else None,
            provider="anthropic",
            upstream="anthropic",
            dialect="anthropic_messages",
            operation="chat",
            request_model=MODEL,
            response_model=MODEL,
            stream=True,
            status=200,
            result="completed",
            finish_reason="tool_use",
            input_tokens=usage.input_tokens,
            output_tokens=output,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_write_input_tokens=usage.cache_write_input_tokens,
            usage_source="reported",
            list_cost_nano=cost.list_nano,
            input_cost_nano=cost.input_nano,
            cache_read_cost_nano=cost.cache_read_nano,
            cache_write_cost_nano=cost.cache_write_nano,
            output_cost_nano=cost.output_nano,
            other_cost_nano=cost.other_nano,
            contracted_cost_nano=cost.contracted_nano,
            price_status=cost.status,
            price_id=cost.price_id,
            price_book=cost.price_book,
            message_count=2 * number + 1,
            tool_count=12,
            tool_schema_tokens=3_000,
            tool_calls=1,
            edits=edits,
            human_turn=number == 0 or (not is_idle and number % 5 == 0),
            request_hash=f"{name}/{number}",
            prefix_hash=name,
            prefix_tokens=history,
            action_hash=action,
        )
        history += 0 if is_idle else output + rng.randint(200, 2_000)
        pause = 300.0 + rng.uniform(-5, 5) if is_idle and not goes_round else rng.expovariate(1 / 40)
        at += timedelta(seconds=5 + pause)


def store_calls(data: Path, made: Iterable[Call], writer_id: str = "simulated") -> Path:
    """Write calls as a gateway does, to an ended segment of the journal."""
    ordered = sorted(made, key=lambda call: call.started_us)
    first = ordered[0].started_us
    path = data / "journal" / f"{datetime.fromtimestamp(first / 1e6, UTC):%Y%m%dT%H%M%S%f}-{writer_id}.jsonl"
    start = {"v": ledger.FORMAT_VERSION, "gateway_id": writer_id, "synthetic": True}
    encoder = msgspec.json.Encoder()
    with disk.put(path) as aside, aside.open("wb") as lines:
        lines.write(ledger.encode("start", first, encoder.encode(start)))
        for call in ordered:
            fields = encoder.encode(call)
            lines.write(ledger.encode("open", call.started_us, fields))
            lines.write(ledger.encode("close", call.started_us + 1_000 * (call.duration_ms or 0), fields))
        lines.write(ledger.encode("end", ordered[-1].started_us, b"{}"))
    return path
