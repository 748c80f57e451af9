"""Work tables: what trackers and forges know, one Parquet file each below `work/`, kept up to date by primary key.

Whoever brings rows (`outlay import work`, or a tracker's sync) holds `alone` and calls `store` for each table, then
`write_tracker`, which tells the gateway. A file is replaced by rename, so no reader meets a lock or half a table.
"""

import contextlib
import itertools
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import duckdb
import msgspec

from analytics import build, disk
from gateway.ticket_keys import KEY
from gateway.tracker import MAPPINGS, Snapshot

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\A[^\x00-\x20\x7f]+( [^\x00-\x20\x7f]+)*\Z")]
"""A part of a primary key: printable, without blanks around it."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
LINE_ENTRIES = 5000
"""In one line of the tracker's extract."""
SQL_TYPES = {
    str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN", date: "DATE", datetime: "TIMESTAMP",
}  # fmt: skip


class Row(msgspec.Struct, kw_only=True):
    """A row of a work table. Times are UTC, without a zone."""


class Ticket(Row):
    ticket_id: Name
    source: str | None = None
    project: str | None = None
    type: str | None = None
    title: str | None = None
    status: str | None = None
    status_category: Literal["todo", "in_progress", "done"] | None = None
    resolution: str | None = None
    estimate: float | None = None
    parent_id: str | None = None
    labels: list[str] = []
    created_at: datetime | None = None
    started_at: datetime | None = None
    done_at: datetime | None = None
    reopened_count: Count | None = None
    creator: str | None = None
    assignee: str | None = None
    closer: str | None = None
    updated_at: datetime | None = None
    url: str | None = None
    aliases: list[str] = []

    def __post_init__(self) -> None:
        key = KEY.fullmatch(self.ticket_id)
        if self.ticket_id.isdecimal() or (key and not key[1].isupper()):
            raise ValueError(f"a ticket is PAY-7 or acme/shop#45, not {self.ticket_id}")


class PullRequest(Row):
    pr_id: Name
    repo: Name
    number: Count
    author: str | None = None
    author_is_bot: bool | None = None
    title: str | None = None
    head_branch: str | None = None
    base_branch: str | None = None
    created_at: datetime | None = None
    merged_at: datetime | None = None
    closed_at: datetime | None = None
    additions: Count | None = None
    deletions: Count | None = None
    files: list[str] = []
    approvals_by_others: Count | None = None
    merge_commit: str | None = None
    reverted_at: datetime | None = None
    reverted_by: str | None = None
    updated_at: datetime | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if self.pr_id != f"{self.repo}!{self.number}":
            raise ValueError(f"pr_id is repository and number, here {self.repo}!{self.number}")


class PrTicket(Row):
    pr_id: Name
    ticket_id: Name
    source: Literal["tracker", "title", "branch", "body_close", "commit", "body_mention"]


class Commit(Row):
    sha: Name
    repo: Name
    author: str | None = None
    committed_at: datetime | None = None
    message_subject: str | None = None
    tickets: list[str] = []
    pr_id: str | None = None


class TicketStatus(Row):
    """From when a ticket had a status, as its tracker's history tells."""

    ticket_id: Name
    changed_at: datetime
    status: str | None = None
    status_category: Literal["todo", "in_progress", "done"] | None = None
    changed_by: str | None = None


class Deployment(Row):
    deployment_id: Name
    repo: Name
    environment: str | None = None
    status: str | None = None
    sha: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    failed_at: datetime | None = None
    updated_at: datetime | None = None
    url: str | None = None


class DeploymentPr(Row):
    deployment_id: Name
    pr_id: Name


class Revert(Row):
    """What a pull request or a commit says that it takes back, or (`is_reland`) brings back."""

    reverting: Name
    """Pull request or sha that says so."""
    repo: Name
    kind: Literal["sha", "pr", "title", "ticket"]
    reference: Name
    is_reland: bool = False
    reverted_at: datetime | None = None


class Team(Row):
    team_id: Name
    week: date
    """Its Monday."""
    builders: Count


class User(Row):
    user_id: Name
    team_id: str | None = None


class Identity(Row):
    """Who is who: a name in a tracker or forge, and the user that gateway keys belong to."""

    source: Name
    source_user: Name
    user_id: Name


class Project(Row):
    """Not from a file: each import of tickets says which projects it was of."""

    project: Name
    synced_at: datetime | None = None


@dataclass(frozen=True)
class Table:
    row: type[Row]
    key: tuple[str, ...]
    part_of: str | None = None
    """Rows with one value of this column are replaced together: what links a pull request has no more."""
    versions: str | None = None
    """File with all versions of the rows, where they are kept."""

    @cached_property
    def columns(self) -> dict[str, str]:
        """SQL types by name."""
        return {name: _sql_type(_kind(hint)) for name, hint in get_type_hints(self.row).items()}

    @cached_property
    def required(self) -> list[str]:
        """Columns that each row has."""
        return [field.encode_name for field in msgspec.structs.fields(self.row) if field.required]

    def choices(self, column: str) -> tuple[str, ...]:
        """All values that a column can have, where there are but some."""
        kind = _kind(get_type_hints(self.row)[column])
        return get_args(kind) if get_origin(kind) is Literal else ()


def _kind(hint: Any) -> Any:
    """What a column holds unless it is empty."""
    return get_args(hint)[0] if types.NoneType in get_args(hint) else hint


def _sql_type(kind: Any) -> str:
    if get_origin(kind) is list:
        return _sql_type(get_args(kind)[0]) + "[]"
    return "VARCHAR" if get_origin(kind) is Literal else SQL_TYPES[kind]


TABLES: Mapping[str, Table] = {
    "tickets": Table(Ticket, ("ticket_id",), versions="ticket_versions"),
    "pull_requests": Table(PullRequest, ("pr_id",), versions="pull_request_versions"),
    "pr_tickets": Table(PrTicket, ("pr_id", "ticket_id", "source"), part_of="pr_id", versions="pr_ticket_versions"),
    "commits": Table(Commit, ("sha", "repo")),
    "ticket_statuses": Table(TicketStatus, ("ticket_id", "changed_at"), part_of="ticket_id"),
    "deployments": Table(Deployment, ("deployment_id",), versions="deployment_versions"),
    "deployment_prs": Table(
        DeploymentPr, ("deployment_id", "pr_id"), part_of="deployment_id", versions="deployment_pr_versions"
    ),
    "reverts": Table(Revert, ("reverting", "kind", "reference"), part_of="reverting", versions="revert_versions"),
    "teams": Table(Team, ("team_id", "week")),
    "users": Table(User, ("user_id",)),
    "identities": Table(Identity, ("source", "source_user")),
    "projects": Table(Project, ("project",)),
}
WORDS = {"kind": "VARCHAR", "word": "VARCHAR"}
"""Columns of the table of words that the settings `[work]` add to the built-in ones."""


def _files() -> dict[str, dict[str, str]]:
    """Columns by file below `work/`."""
    versions = {"seen_at": "TIMESTAMP", "is_gone": "BOOLEAN"}
    kept = {table.versions: {**table.columns, **versions} for table in TABLES.values() if table.versions}
    return {**{name: table.columns for name, table in TABLES.items()}, **kept, "words": WORDS}


class Counts(NamedTuple):
    """What became of the rows that came in, by primary key."""

    new: int
    changed: int
    same: int
    older: int
    """Left as they were stored, which is from a later `updated_at`."""
    gone: int
    """Stored, and not among those that came in of the same group."""


# -- files -------------------------------------------------------------------------------------------------------------


def folder(data: Path) -> Path:
    return data / "work"


def table_file(data: Path, table: str) -> Path:
    return folder(data) / f"{table}.parquet"


def anchor_file(data: Path, table: str) -> Path:
    """A table without rows: it gives views all columns, also where there is no file, or one of an earlier version."""
    return folder(data) / "anchor" / f"{table}.parquet"


def tracker_file(data: Path) -> Path:
    return folder(data) / "tracker.json"


@contextlib.contextmanager
def alone(data: Path) -> Iterator[None]:
    """Held while tables are brought up to date; waits for who holds it. What was put aside and not stored is gone."""
    with disk.alone(folder(data) / "work.lock", wait=True):
        try:
            yield
        finally:
            for left in folder(data).glob("*.incoming"):
                left.unlink()


def prepare(data: Path) -> None:
    """Make what the views of work tables need to be there."""
    for path in (folder(data), folder(data) / "anchor"):
        if not path.exists():
            path.mkdir(exist_ok=True)
            disk.give(path)
    with duckdb.connect() as db:
        for name, columns in _files().items():
            path = anchor_file(data, name)
            there = {"file": build.glob_of(path)}
            if not path.exists() or dict(db.execute(build.step("file_columns"), there).fetchall()) != columns:
                with disk.put(path) as aside:
                    parameters = {"incoming": os.devnull, "columns": columns, "file": str(aside)}
                    db.execute(build.step("write_work_anchor"), parameters)


# -- rows --------------------------------------------------------------------------------------------------------------


def spool(data: Path, table: str, rows: Iterable[Row]) -> None:
    """Put rows aside, so that all of them are known to be sound before any is stored."""
    encoder = msgspec.json.Encoder()
    with _spool_file(data, table).open("wb") as lines:
        lines.writelines(encoder.encode(row) + b"\n" for row in rows)


def store(data: Path, table: str, seen_at: datetime | None = None) -> Counts:
    """Bring a table up to date with the rows that were put aside. Its file stays as it is when they say nothing new.
    `seen_at`: when they were read, UTC; by default now."""
    spooled = _spool_file(data, table)
    with _merging(data, table, seen_at or _now()) as db:
        parameters = {"stored": _stored(data, table), "incoming": build.glob_of(spooled)}
        db.execute(build.step("merge_work"), {**parameters, "columns": TABLES[table].columns})
        counts = Counts(*(db.execute(build.step("count_merged")).fetchone() or (0, 0, 0, 0, 0)))
    spooled.unlink()
    return counts


def remove(data: Path, table: str, ids: Iterable[str]) -> int:
    """Take rows, named by the first column of the key, out of a table: they are gone in the tracker. Their versions
    stay. Returns how many there were."""
    with _merging(data, table, _now()) as db:
        db.execute(build.step("merge_gone"), {"stored": _stored(data, table), "gone": sorted(ids)})
        return Counts(*(db.execute(build.step("count_merged")).fetchone() or (0, 0, 0, 0, 0))).gone


@contextlib.contextmanager
def _merging(data: Path, table: str, seen_at: datetime) -> Iterator[duckdb.DuckDBPyConnection]:
    """What the block leaves in the table `merged` is written, and its new versions before: if that is cut off, the next
    time finds both."""
    path, versions = table_file(data, table), TABLES[table].versions
    with duckdb.connect() as db:
        db.execute("SET VARIABLE key = $key", {"key": TABLES[table].key})
        db.execute("SET VARIABLE part_of = $part_of", {"part_of": TABLES[table].part_of})
        yield db
        counts = Counts(*(db.execute(build.step("count_merged")).fetchone() or (0, 0, 0, 0, 0)))
        is_changed = bool(counts.new or counts.changed or counts.gone)
        if versions and (is_changed or (path.exists() and not table_file(data, versions).exists())):
            stored = _stored(data, versions)
            db.execute(build.step("merge_versions"), {"stored": stored, "seen_at": seen_at})
            with disk.put(table_file(data, versions)) as aside:
                db.execute(build.step("write_versions"), {"stored": stored, "file": str(aside)})
        if is_changed:
            with disk.put(path) as aside:
                db.execute(build.step("write_work"), {"file": str(aside)})


def _stored(data: Path, name: str) -> list[str]:
    """Files with what is stored; the first one has the columns."""
    path = table_file(data, name)
    return [*map(build.glob_of, [anchor_file(data, name), *([path] if path.exists() else [])])]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def mark_synced(data: Path, projects: Iterable[str], at: datetime | None) -> None:
    """Note that all tickets of these projects were read; with `None`, that some of them were."""
    spool(data, "projects", [Project(project=project, synced_at=at) for project in sorted(projects)])
    store(data, "projects")


def note_words(data: Path, words: Mapping[str, Iterable[str]]) -> None:
    """Write down, by kind, the words that settings add, where they are others than before."""
    rows = [{"kind": kind, "word": word} for kind in sorted(words) for word in sorted(set(words[kind]))]
    path = table_file(data, "words")
    with alone(data), duckdb.connect() as db:
        stored = db.read_parquet(_stored(data, "words"), union_by_name=True, hive_partitioning=False)
        if stored.fetchall() != [tuple(row.values()) for row in rows]:
            spooled = _spool_file(data, "words")
            spooled.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
            with disk.put(path) as aside:
                parameters = {"incoming": build.glob_of(spooled), "columns": WORDS, "file": str(aside)}
                db.execute(build.step("write_work_anchor"), parameters)


def _spool_file(data: Path, table: str) -> Path:
    return folder(data) / f"{table}.incoming"


# -- what the gateway knows --------------------------------------------------------------------------------------------


def write_tracker(data: Path) -> None:
    """Tell the gateway: it reads no Parquet."""
    with duckdb.connect() as db:
        build.create_views(db, data, build.load(build.MODELS / "work"))
        result = db.execute(build.step("tracker"))
        names = [column[0] for column in result.description or ()]
        snapshot = msgspec.convert(dict(zip(names, result.fetchone() or (), strict=True)), Snapshot)
    encoder = msgspec.json.Encoder()
    with disk.put(tracker_file(data)) as aside, aside.open("wb") as lines:
        lines.write(encoder.encode({"synced_us": snapshot.synced_us}) + b"\n")
        lines.write(encoder.encode({"partial": snapshot.partial}) + b"\n")
        for name in MAPPINGS:
            entries = iter(getattr(snapshot, name).items())
            while part := dict(itertools.islice(entries, LINE_ENTRIES)):
                lines.write(encoder.encode({name: part}) + b"\n")
