"""Brings the work tables up to date from the configured trackers: each part from where it was read to, page by page.

How far a part was read is in `work/sync.json`, written after the rows of its pages: killed at any moment, the next run
reads some pages again, and rows are stored by primary key, so nothing is lost or there twice. A part's watermark moves
when its last page is stored, and the next read begins a day before it.
"""

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

from analytics import build, disk, work
from analytics.beside import beside
from analytics.sources.git import Git
from analytics.sources.github import GitHub
from analytics.sources.gitlab import GitLab
from analytics.sources.jira import Jira
from analytics.sources.linear import Linear
from analytics.sources.source import Batch, Given, Part, Patience, Source, SourceError, Tickets
from gateway import options, webhook_queue
from gateway.config import Config, WorkSettings
from gateway.errors import UserError
from gateway.ticket_keys import TicketKeys
from gateway.tracker import Tracker
from gateway.webhook_queue import Waiting
from gateway.webhooks import Hint

OVERLAP = timedelta(hours=24)
SWEEP_EVERY = timedelta(days=1)
ROWS_MAX, SECONDS_MAX = 5000, 20.0
"""Rows are stored when so many are there, or so long after the last time."""
MISSED_MAX = timedelta(days=3)
"""So long what could not be read is asked for again and again."""
LOOKUPS_MAX = 500
"""Single tickets asked for in one sweep; the rest is for the next one."""
GONE_MIN, GONE_SHARE = 10, 0.5
"""More than that are not gone: a tracker that shows less than it has, or a token that may read less."""
FOLLOW_SECONDS, PROJECT_SECONDS, UNREAD_SECONDS = 5.0, 60.0, 300.0
"""So often is looked for what webhooks told of; so often, at most, one project is asked for it, and so long rests what
could not be read."""
DELETED = "deleted"
"""Status and resolution of a ticket that its tracker has no more."""

log = logging.getLogger("outlay.sync")

SOURCES: Mapping[str, tuple[Callable[[WorkSettings], object], Callable[[Given], AbstractContextManager[Source]]]] = {
    "jira": (lambda settings: settings.jira.projects, Jira),
    "linear": (lambda settings: settings.linear.teams, Linear),
    "gitlab": (lambda settings: settings.gitlab.projects, GitLab),
    "github": (lambda settings: settings.github.repos, GitHub),
    "git": (lambda settings: settings.git.clones, Git),
}
"""By name, trackers before the forges whose pull requests name their tickets: whether it is configured, and it."""


class BusyError(UserError):
    """Another process reads already."""


class Mark(msgspec.Struct):
    """How far a part was read."""

    since: datetime | None = None
    """The watermark: what changed before is stored."""
    began: datetime | None = None
    """When the read began that is not at its end, …"""
    cursor: Any = None
    """… and where it goes on."""
    missed: datetime | None = None
    """Last change of the oldest item that this read had to leave out: the watermark stays before it, …"""
    waits: datetime | None = None
    """… since this time, and not for ever."""
    swept: datetime | None = None
    """When ids were last compared."""


class Progress(NamedTuple):
    """What is being read."""

    source: str
    part: str
    done: int = 0
    total: int | None = None
    waits: float = 0.0
    """Seconds that the tracker asked to wait."""


@dataclass
class Outcome:
    """What came of one source."""

    source: str
    tables: dict[str, work.Counts] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What was left out; the rest went on."""
    failures: list[str] = field(default_factory=list)
    """Why parts were not read to their end."""

    unread: set[Hint] = field(default_factory=set)
    """What webhooks told of and could not be read."""
    is_news: bool = False
    """The tracker's extract has to be written anew."""

    def count(self, table: str, counts: work.Counts) -> None:
        before = self.tables.get(table, work.Counts(0, 0, 0, 0, 0))
        self.tables[table] = work.Counts(*map(sum, zip(before, counts, strict=True)))
        self.is_news = self.is_news or bool(counts.new or counts.changed or counts.gone)


class Turns:
    """When webhooks may be followed again: a project is read once in a while, however much they tell of it, and what
    could not be read later than the others."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def due(self, told_of: Iterable[Waiting]) -> list[Waiting]:
        now = time.monotonic()
        self._until = {name: until for name, until in self._until.items() if until > now}
        return [each for each in told_of if self._until.keys().isdisjoint((_whose(each.hint), each.path.name))]

    def rest(self, told_of: Iterable[Waiting], unread: Collection[Waiting]) -> None:
        now = time.monotonic()
        self._until.update((_whose(each.hint), now + PROJECT_SECONDS) for each in told_of)
        self._until.update((each.path.name, now + UNREAD_SECONDS) for each in unread)


def _whose(hint: Hint) -> str:
    return f"{hint.source} {hint.project.lower()}"


def configured(settings: WorkSettings) -> list[str]:
    """Names of the sources that there is something to read of."""
    return [name for name, (is_configured, _) in SOURCES.items() if is_configured(settings)]


def sync(
    data: Path,
    config: Config,
    names: Collection[str],
    *,
    full: bool = False,
    told: Callable[[Progress], object] = lambda _: None,
    pause: Callable[[float], object] = time.sleep,
) -> list[Outcome]:
    """Read the named sources. With `full`, all that they have, whatever was read before. Raises `UserError` while
    another one is under way, `OSError`, `duckdb.Error`."""
    with disk.alone(data, "work/sync.lock", may_be_first=True) as is_alone:
        if not is_alone:
            raise BusyError("another sync of this data folder is under way")
        _store_settings(data, config.work)
        told_of = webhook_queue.waiting(data)
        outcomes = [_Run(data, config, name, full, told, pause).run() for name in names]
        read = {each.source for each in outcomes if not each.failures}
        webhook_queue.finish(data, [each for each in told_of if each.hint.source in read])
        return outcomes


def follow(
    data: Path, config: Config, turns: Turns | None = None, *, pause: Callable[[float], object] = time.sleep
) -> list[Outcome]:
    """Read what webhooks told of, and nothing else: tickets by their ids; of other things, what is new in their
    repository. What could not be read waits, and whose turn it is not. Raises as `sync` does."""
    turns = turns or Turns()
    told_of = turns.due(webhook_queue.waiting(data))
    if not told_of:
        return []
    with disk.alone(data, "work/sync.lock", may_be_first=True) as is_alone:
        if not is_alone:
            raise BusyError("another sync of this data folder is under way")
        outcomes = []
        for name in configured(config.work):
            if of_source := [each for each in told_of if each.hint.source == name]:
                run = _Run(data, config, name, False, lambda _: None, pause)
                outcomes.append(run.run([each.hint for each in of_source]))
        hints = {hint for outcome in outcomes for hint in outcome.unread}
        unread = {each for each in told_of if each.hint in hints}
        turns.rest(told_of, unread)
        webhook_queue.finish(data, [each for each in told_of if each not in unread])
        return outcomes


def _store_settings(data: Path, settings: WorkSettings) -> None:
    """What models have to know of them."""
    rows: dict[str, list[work.Row]] = {
        "resolutions": [
            work.Resolution(resolution=word.lower(), is_delivering=is_it)
            for word, is_it in settings.resolutions.items()
        ],
        "environments": [work.Environment(environment=name) for name in settings.environments],
    }
    with work.alone(data):
        for table, each in rows.items():
            work.spool(data, table, each)
            work.store(data, table)


class _Run:
    """One sync of one source."""

    def __init__(
        self,
        data: Path,
        config: Config,
        name: str,
        full: bool,
        told: Callable[[Progress], object],
        pause: Callable[[float], object],
    ) -> None:
        self._data, self._config, self._name, self._full = data, config, name, full
        self._told, self._pause = told, pause
        self._state = _read_state(data)
        self._marks = self._state.setdefault(name, {})
        self._rows = _Rows()
        self._outcome = Outcome(name)
        self._followed: set[Hint] = set()
        self._progress = Progress(name, "")

    def run(self, hints: Sequence[Hint] | None = None) -> Outcome:
        """Reads all parts, or with `hints` what they are about."""
        settings = self._config.work
        patience = Patience(settings.wait_minutes * 60, self._wait)
        given = Given(settings, ticket_keys(self._data, self._config), patience, self._known, self._ask)
        try:
            with SOURCES[self._name][1](given) as source:
                for part in source.parts(None if hints is None else {hint.project.lower() for hint in hints}):
                    self._tell(Progress(self._name, part.name))
                    try:
                        self._rename(part)
                        if hints is None:
                            self._read(source, part)
                            self._sweep(source, part)
                        else:
                            self._follow(source, part, hints)
                    except SourceError:
                        raise
                    except UserError as error:
                        self._outcome.failures.append(f"{self._name}: {part.name}: {error}")
        except UserError as error:
            self._outcome.failures.append(str(error))
            self._outcome.unread |= set(hints or ()) - self._followed
        finally:
            if self._outcome.is_news:
                with work.alone(self._data):
                    work.write_tracker(self._data)
        return self._outcome

    def _read(self, source: Source, part: Part) -> None:
        """Raises `UserError` when it cannot be read to its end; what was read is stored."""
        mark = self._marks.setdefault(part.name, Mark())
        if self._full:
            mark.since = mark.began = mark.swept = None
        if mark.began is None:
            mark.began, mark.missed = source.now(), None
            mark.cursor = mark.cursor if part.goes_on and not self._full else None
        came, resumed = False, mark.cursor is not None
        try:
            for batch in part.read(mark.cursor, mark.since and mark.since - OVERLAP):
                came, mark.cursor = True, batch.cursor
                mark.missed = min(filter(None, (mark.missed, batch.missed)), default=None)
                self._take(part, batch)
                if self._rows.is_due:
                    self._store()
        except UserError as error:
            if resumed and not came and not part.goes_on and not isinstance(error, SourceError):
                mark.began = mark.cursor = None  # a cursor that is known no more: from the beginning next time
            self._store()
            raise
        self._store()
        began = mark.began
        if part.tickets:
            with work.alone(self._data):
                work.mark_synced(self._data, [part.tickets.project], began)
                self._outcome.is_news = True
        mark.waits = (mark.waits or began) if mark.missed else None
        is_kept = mark.missed and mark.waits and began - mark.waits <= MISSED_MAX
        mark.since, mark.began = min(began, mark.missed) if mark.missed and is_kept else began, None
        mark.cursor = mark.cursor if part.goes_on else None
        _write_state(self._data, self._state)

    def _rename(self, part: Part) -> None:
        """What was read under another name, and how far."""
        if part.renamed is None:
            return
        old, new = part.renamed
        read = {name: name.partition(" ")[0] for name in self._marks}
        spelled = {was for was in read.values() if was.lower() == old.lower() and was != new}
        for was in spelled:
            with work.alone(self._data):
                work.rename(self._data, was, new)
            self._outcome.is_news = True
        for name, was in read.items():
            if was in spelled:
                self._marks[new + name.removeprefix(was)] = self._marks.pop(name)
        if spelled:
            _write_state(self._data, self._state)
        line = f"{self._name}: {old} is called {new} now: write that in [work.{self._name}]"
        if old.lower() != new.lower() and line not in self._outcome.problems:
            self._outcome.problems.append(line)

    def _follow(self, source: Source, part: Part, hints: Sequence[Hint]) -> None:
        """Reads what hints are about, in whatever order and however often they came."""
        project = part.name.partition(" ")[0] if part.tickets is None else part.tickets.project
        of_part = [hint for hint in hints if hint.project.lower() == project.lower() and hint.kind in part.told_by]
        if part.tickets is None:
            try:
                if of_part:
                    self._read(source, part)
            except UserError:
                self._outcome.unread |= set(of_part)
                raise
            return
        try:
            by_id: dict[str, set[Hint]] = {}
            for hint in of_part:
                by_id.setdefault(hint.id, set()).add(hint)
            for ticket_id, of_ticket in by_id.items():
                if ticket_id and not self._look_up(part, part.tickets, ticket_id):
                    self._outcome.unread |= of_ticket
                self._followed |= of_ticket
        finally:
            self._store()

    def _look_up(self, part: Part, tickets: Tickets, ticket_id: str) -> bool:
        """Read one ticket, or note that it is no more. False when it could not be read."""
        try:
            found = tickets.ticket(ticket_id)
        except SourceError:
            raise
        except UserError as error:
            self._problem(part, str(error))
            return False
        if found:
            self._keep(part, _known_as(found, ticket_id))
        else:
            self._rows.add("tickets", map(_deleted, self._stored([ticket_id])))
        return True

    def _sweep(self, source: Source, part: Part) -> None:
        """Compare ids once a day: of a ticket that was deleted or moved elsewhere, no tracker tells reliably."""
        mark, tickets = self._marks[part.name], part.tickets
        if tickets is None or (mark.swept is not None and source.now() - mark.swept < SWEEP_EVERY):
            return
        began, there = source.now(), set[str]()
        for ids in tickets.ids():
            there |= set(ids)
            self._tell(self._progress._replace(part=f"{part.name}, ids", done=len(there), total=None))
        known = self._listed(tickets)
        lost, strange = known - there, there - known
        if len(lost) > max(GONE_MIN, GONE_SHARE * len(known)) and not self._full:
            self._problem(part, f"{len(lost):,} of {len(known):,} tickets are gone, which is not believed; --full does")
            lost = set()
        asked = sorted(lost | strange)
        if len(asked) > LOOKUPS_MAX:
            self._problem(part, f"{len(asked) - LOOKUPS_MAX:,} tickets that moved, or are new, are left for tomorrow")
        for ticket_id in asked[:LOOKUPS_MAX]:
            self._look_up(part, tickets, ticket_id)
        mark.swept = began
        self._store()

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _take(self, part: Part, batch: Batch) -> None:
        self._keep(part, batch)
        self._tell(Progress(self._name, part.name, batch.done, batch.total))

    def _keep(self, part: Part, batch: Batch) -> None:
        for table, groups in batch.emptied.items():
            self._rows.empty(table, groups)
        for table, rows in batch.rows.items():
            self._rows.add(table, rows)
        for problem in batch.problems:
            self._problem(part, problem)

    def _store(self) -> None:
        """Rows first, then how far they were read."""
        with work.alone(self._data):
            for table in work.TABLES:
                rows, emptied = self._rows.of(table)
                if rows or emptied:
                    if table == "tickets":
                        rows = [*self._with_past(rows)]
                    elif table == "commits":
                        rows = self._of_merged(rows)
                    work.spool(self._data, table, rows)
                    self._outcome.count(table, work.store(self._data, table, emptied))
        self._rows = _Rows()
        _write_state(self._data, self._state)

    def _with_past(self, rows: Collection[work.Row]) -> Iterator[work.Row]:
        """What is known of a ticket's past stays, also when its tracker tells it no more, or was not asked."""
        tickets = [row for row in rows if isinstance(row, work.Ticket)]
        before = {ticket.ticket_id: ticket for ticket in self._stored([ticket.ticket_id for ticket in tickets])}
        for now in tickets:
            if (then := before.get(now.ticket_id)) is not None:
                now.aliases = sorted({*now.aliases, *then.aliases})
                now.started_at = then.started_at if now.started_at is None else now.started_at
                now.reopened_count = then.reopened_count if now.reopened_count is None else now.reopened_count
            yield now

    def _of_merged(self, rows: Collection[work.Row]) -> Collection[work.Row]:
        """A commit that is in several pull requests is of one that was merged, whichever is read last."""
        commits = [row for row in rows if isinstance(row, work.Commit)]
        given = {"shas": [each.sha for each in commits], "pr_ids": [each.pr_id for each in commits]}
        with self._found("merged_pulls_of_commits", given) as found_pulls:
            merged = found_pulls.fetchall()
        pulls = {pr_id for _, _, pr_id in merged}
        merged_with = {(sha, repo): pr_id for sha, repo, pr_id in merged if sha is not None}
        merged_with |= {(each.sha, each.repo): each.pr_id for each in commits if each.pr_id in pulls}
        found = {}
        for each in commits:
            each.pr_id = merged_with.get((each.sha, each.repo), each.pr_id)
            found[each.sha, each.repo] = each
        return found.values()

    def _listed(self, tickets: Tickets) -> set[str]:
        parameters = {"source": self._name, "project": tickets.project, "deleted": DELETED}
        with self._found("listed_tickets", parameters) as found:
            return {ticket_id for (ticket_id,) in found.fetchall()}

    def _known(self, table: str, ids: Collection[str]) -> Mapping[str, datetime | None]:
        with self._found("updated_at", {"table": table, "ids": [*ids]}) as found:
            return dict(found.fetchall())

    def _ask(self, step: str, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        self._store()  # what was read just now counts, too
        with self._found(step, parameters) as found:
            return found.fetchall()

    def _stored(self, ids: list[str]) -> list[work.Ticket]:
        with self._found("stored_tickets", {"ids": ids}) as found:
            names = [column[0] for column in found.description or ()]
            return [work.Ticket(**dict(zip(names, row, strict=True))) for row in found.fetchall()]

    @contextlib.contextmanager
    def _found(self, step: str, parameters: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        """The result of a step over what is stored."""
        query = build.step(step)
        with duckdb.connect() as db:
            build.define_views(db, self._data, query)
            yield db.execute(query, parameters)

    # -- what is told --------------------------------------------------------------------------------------------------

    def _problem(self, part: Part, text: str) -> None:
        self._outcome.problems.append(f"{self._name}: {part.name}: {text}")

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        self._told(progress)

    def _wait(self, seconds: float) -> None:
        self._told(self._progress._replace(waits=seconds))
        self._pause(seconds)


class _Rows:
    """Rows to be stored together, by primary key: of two with the same one, the later one counts. Commits stay one for
    each of their pull requests."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[tuple[Any, ...], work.Row]] = defaultdict(dict)
        self._emptied: dict[str, set[str]] = defaultdict(set)
        self._since = time.monotonic()

    def add(self, table: str, rows: Iterable[work.Row]) -> None:
        rows, part_of = list(rows), work.TABLES[table].part_of
        if part_of is not None:
            self._drop(table, {getattr(row, part_of) for row in rows})
        key = (*work.TABLES[table].key, "pr_id") if table == "commits" else work.TABLES[table].key
        for row in rows:
            self._rows[table][tuple(getattr(row, name) for name in key)] = row

    def empty(self, table: str, groups: Collection[str]) -> None:
        """They have no rows but those that come now."""
        self._emptied[table] |= set(groups)
        self._drop(table, groups)

    def _drop(self, table: str, groups: Collection[str]) -> None:
        part_of = work.TABLES[table].part_of
        assert part_of is not None
        kept = {key: row for key, row in self._rows[table].items() if getattr(row, part_of) not in groups}
        self._rows[table] = kept

    def of(self, table: str) -> tuple[Collection[work.Row], Collection[str]]:
        return self._rows[table].values(), self._emptied[table]

    @property
    def is_due(self) -> bool:
        return sum(map(len, self._rows.values())) >= ROWS_MAX or time.monotonic() - self._since >= SECONDS_MAX


def _deleted(ticket: work.Ticket) -> work.Ticket:
    return msgspec.structs.replace(ticket, status=DELETED, status_category="done", resolution=DELETED)


def _known_as(found: Batch, ticket_id: str) -> Batch:
    """The ticket has the id that it was asked for by as an alias."""
    for ticket in found.rows["tickets"]:
        if isinstance(ticket, work.Ticket):
            ticket.aliases = sorted({*ticket.aliases, ticket_id} - {ticket.ticket_id})
    return found


def ticket_keys(data: Path, config: Config) -> TicketKeys:
    tracker = Tracker(data)
    tracker.refresh()
    tickets = config.tickets
    return TicketKeys(tickets.projects, tickets.patterns, tickets.deny, tracker.now)


# -- how far each part was read ----------------------------------------------------------------------------------------


def state_file(data: Path) -> Path:
    return work.folder(data) / "sync.json"


def _read_state(data: Path) -> dict[str, dict[str, Mark]]:
    """By source and part."""
    try:
        return msgspec.json.decode(state_file(data).read_bytes(), type=dict[str, dict[str, Mark]])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError:
        raise UserError(f"{state_file(data)} is not what a sync wrote: delete it, then all is read anew") from None


def _write_state(data: Path, state: dict[str, dict[str, Mark]]) -> None:
    with disk.put(state_file(data)) as aside:
        aside.write_bytes(msgspec.json.encode(state))


# -- beside the gateway ------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """The process is to end."""


class Rounds:
    """Reads all that is configured, and says what is wrong once."""

    def __init__(self, data: Path, config: Config, stop: threading.Event) -> None:
        self._data, self._config, self._stop = data, config, stop
        self._said: set[str] = set()
        self._turns = Turns()

    def sync(self) -> None:
        """Raises `OSError`, `duckdb.Error`, `UserError`; the next round goes on where this one stopped."""
        disk.check_journal(self._data)  # else the folder was moved away, and would be made anew
        with contextlib.suppress(BusyError, StoppedError):
            self._say(
                sync(self._data, self._config, configured(self._config.work), told=self._go_on, pause=self._pause)
            )

    def follow(self) -> None:
        """Raises as `sync` does."""
        with contextlib.suppress(BusyError, StoppedError):
            self._say(follow(self._data, self._config, self._turns, pause=self._pause))

    def _say(self, outcomes: Iterable[Outcome]) -> None:
        lines = [line for each in outcomes for line in (*each.failures, *each.problems)]
        for line in lines:
            if line not in self._said:
                log.warning("%s", options.shown(line))
        self._said = set(lines)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError

    def _go_on(self, _: Progress) -> None:
        self._pause(0)


@contextlib.contextmanager
def syncing(data: Path, config: Config) -> Iterator[None]:
    """Reads what is configured beside the keeper's rounds, in a thread of its own, so that sealing does not wait."""
    if not configured(config.work) or not config.work.every_minutes:
        yield
        return
    stop = threading.Event()

    def failed(line: str) -> None:
        log.error("the trackers could not be read, trying again: %s", line)

    rounds = Rounds(data, config, stop)
    minutes = config.work.every_minutes
    with (
        beside("sync", rounds.sync, minutes * 60, failed, stop=stop, at_once=True),
        beside("webhooks", rounds.follow, FOLLOW_SECONDS, failed, stop=stop),
    ):
        yield
