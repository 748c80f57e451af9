"""Work tables: what trackers and forges know, one Parquet file each below `work/`, kept up to date by primary key.

Whoever brings rows (`outlay import work`, or a tracker's sync) holds `alone` and calls `store` for each table, then
`write_tracker`, which tells the gateway. A file is replaced by rename, so no reader meets a lock or half a table.
"""

import contextlib
import itertools
import os
import re
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
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
    Decimal: "DECIMAL(18,9)",
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


class TicketPr(Row):
    """Not from a file: a pull request that a ticket's tracker, which is no forge, shows with it."""

    ticket_id: Name
    pr_id: Name


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


class Resolution(Row):
    """Whether a ticket that ended so was delivered, where the word alone does not tell."""

    resolution: Name
    is_delivering: bool


class Environment(Row):
    """Not from a file: one that the settings say is production."""

    environment: Name


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


class InvoiceLine(Row):
    """Not from a file of that name: see `analytics.invoices`."""

    statement: Name
    """Provider, account and day: what is invoiced together, and replaced together."""
    provider: Name
    account: Name
    day: date
    item: Name
    charge: Literal["usage", "discount", "credit", "tax", "fee", "none"]
    amount_usd: Decimal
    rows: Count
    source: str
    model: str | None = None
    is_known_model: bool = False
    is_final: bool | None = None


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
    "ticket_prs": Table(TicketPr, ("ticket_id", "pr_id"), part_of="ticket_id", versions="ticket_pr_versions"),
    "commits": Table(Commit, ("sha", "repo"), versions="commit_versions"),
    "ticket_statuses": Table(
        TicketStatus, ("ticket_id", "changed_at"), part_of="ticket_id", versions="ticket_status_versions"
    ),
    "deployments": Table(Deployment, ("deployment_id",), versions="deployment_versions"),
    "deployment_prs": Table(
        DeploymentPr, ("deployment_id", "pr_id"), part_of="deployment_id", versions="deployment_pr_versions"
    ),
    "reverts": Table(Revert, ("reverting", "kind", "reference"), part_of="reverting", versions="revert_versions"),
    "resolutions": Table(Resolution, ("resolution",)),
    "environments": Table(Environment, ("environment",)),
    "teams": Table(Team, ("team_id", "week")),
    "users": Table(User, ("user_id",)),
    "identities": Table(Identity, ("source", "source_user")),
    "projects": Table(Project, ("project",)),
    "invoice_lines": Table(InvoiceLine, ("statement", "item", "charge"), part_of="statement"),
}


def _columns() -> dict[str, dict[str, str]]:
    """Of each file, by its name."""
    versions = {"seen_at": "TIMESTAMP", "is_gone": "BOOLEAN"}
    kept = {table.versions: {**table.columns, **versions} for table in TABLES.values() if table.versions}
    return {**{name: table.columns for name, table in TABLES.items()}, **kept}


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
    with disk.alone(data, "work/work.lock", wait=True, may_be_first=True):
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
        for name, columns in _columns().items():
            path = anchor_file(data, name)
            there = {"file": build.glob_of(path)}
            if not path.exists() or dict(db.execute(build.step("file_columns"), there).fetchall()) != columns:
                with disk.put(path) as aside:
                    parameters = {"incoming": os.devnull, "columns": columns, "file": str(aside)}
                    db.execute(build.step("write_work_rows"), parameters)


# -- rows --------------------------------------------------------------------------------------------------------------


def spool(data: Path, table: str, rows: Iterable[Row]) -> None:
    """Put rows aside, so that all of them are known to be sound before any is stored."""
    encoder = msgspec.json.Encoder()
    with _spool_file(data, table).open("wb") as lines:
        lines.writelines(encoder.encode(row) + b"\n" for row in rows)


def store(data: Path, table: str, emptied: Collection[str] = (), seen_at: datetime | None = None) -> Counts:
    """Bring a table up to date with the rows that were put aside. Its file stays as it is when they say nothing new.
    Groups that are `emptied` have no other rows now. `seen_at`: when the rows were read, UTC; by default now."""
    path, spooled, versions = table_file(data, table), _spool_file(data, table), TABLES[table].versions
    with duckdb.connect() as db:
        db.execute("SET VARIABLE key = $key", {"key": TABLES[table].key})
        db.execute("SET VARIABLE part_of = $part_of", {"part_of": TABLES[table].part_of})
        parameters = {"stored": _files(data, table), "incoming": build.glob_of(spooled)}
        db.execute(build.step("merge_work"), {**parameters, "columns": TABLES[table].columns, "emptied": [*emptied]})
        counts = Counts(*(db.execute(build.step("count_merged")).fetchone() or (0, 0, 0, 0, 0)))
        is_changed = bool(counts.new or counts.changed or counts.gone)
        if versions and (is_changed or (path.exists() and not table_file(data, versions).exists())):
            # First: if the rest is cut off, the next time finds what is new in both.
            kept = {"stored": _files(data, versions)}
            at = seen_at or datetime.now(UTC).replace(tzinfo=None)
            db.execute(build.step("merge_versions"), {**kept, "seen_at": at})
            with disk.put(table_file(data, versions)) as aside:
                db.execute(build.step("write_versions"), {**kept, "file": str(aside)})
        if is_changed:
            with disk.put(path) as aside:
                db.execute(build.step("write_work"), {"file": str(aside)})
    spooled.unlink()
    return counts


def _files(data: Path, name: str) -> list[str]:
    """What is stored. The first file has all columns."""
    path = table_file(data, name)
    return [*map(build.glob_of, [anchor_file(data, name), *([path] if path.exists() else [])])]


def rename(data: Path, old: str, new: str) -> None:
    """A repository or project has another name. So have its tickets, which keep the former one as an alias, and all
    that belongs to it."""
    was, now = (msgspec.json.encode(name)[1:-1].decode() for name in (old, new))
    name = re.compile(rf'"{re.escape(was)}([#!][0-9]+)?"')
    for table, kind in TABLES.items():
        if not (path := table_file(data, table)).exists():
            continue
        with duckdb.connect() as db:
            file = {"file": build.glob_of(path)}
            columns = [
                name for name, _ in db.execute(build.step("file_columns"), file).fetchall() if name in kind.columns
            ]
            db.execute("SET VARIABLE columns = $columns", {"columns": columns})
            texts = db.execute(build.step("read_work_rows"), file).fetchall()
            rows: dict[tuple[Any, ...], Row] = {}
            for (text,) in texts:
                row, before = (
                    _stored(kind, each) for each in (name.sub(lambda at: f'"{now}{at[1] or ""}"', text), text)
                )
                if isinstance(row, Ticket) and isinstance(before, Ticket) and row != before:
                    row = msgspec.structs.replace(
                        row, aliases=sorted({*row.aliases, before.ticket_id} - {row.ticket_id})
                    )
                key = tuple(getattr(row, part) for part in kind.key)
                if key not in rows or row == before:  # what was stored under the new name is younger
                    rows[key] = row
            spool(data, table, rows.values())
            with disk.put(path) as aside:
                places = {"incoming": build.glob_of(_spool_file(data, table)), "file": str(aside)}
                db.execute(build.step("write_work_rows"), {**places, "columns": kind.columns})
        _spool_file(data, table).unlink()


def _stored(table: Table, text: str) -> Row:
    """A row as `read_work_rows` gives it."""
    values: dict[str, Any] = msgspec.json.decode(text)
    return msgspec.convert({name: value for name, value in values.items() if value is not None}, table.row)


def mark_synced(data: Path, projects: Iterable[str], at: datetime | None) -> None:
    """Note that all tickets of these projects were read; with `None`, that some of them were."""
    spool(data, "projects", [Project(project=project, synced_at=at) for project in sorted(projects)])
    store(data, "projects")


def _spool_file(data: Path, table: str) -> Path:
    return folder(data) / f"{table}.incoming"


# -- what the gateway knows --------------------------------------------------------------------------------------------


def write_tracker(data: Path) -> None:
    """Tell the gateway: it reads no Parquet."""
    query = build.step("tracker")
    with duckdb.connect() as db:
        build.define_views(db, data, query)
        result = db.execute(query)
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
