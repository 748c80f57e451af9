"""DevLake's domain tables, exported as CSV or Parquet (a file each, named like the table), as files of work tables.

Read are those of `TABLES` that are there. DevLake's ids mean nothing elsewhere: tickets, repositories and pull requests
are told from their addresses. Its own links stop at the first place that matches, so titles, branches, descriptions and
messages are read again.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from analytics import build, work
from analytics.sources import links
from analytics.sources.files import CELL_MAX
from analytics.sources.source import moment
from gateway.errors import UserError
from gateway.repositories import repo_name
from gateway.ticket_keys import KEY, TicketKeys, of_address

TABLES = (
    "issues", "pull_requests", "pull_request_issues", "pull_request_commits", "commits", "cicd_deployment_commits",
)  # fmt: skip
CATEGORIES = {"TODO": "todo", "IN_PROGRESS": "in_progress", "DONE": "done"}
PULL = re.compile(
    r"https?://[^/\s]+/(?P<repo>[\w.-]+(?:/[\w.-]+)+?)(?:/-)?/(?:pull|pulls|merge_requests)/(?P<number>[0-9]{1,15})"
)
SUCCESS, FAILURE = "SUCCESS", "FAILURE"

Fields = Mapping[str, Any]


def convert(folder: Path, into: Path, keys: TicketKeys) -> tuple[list[Path], Counter[str]]:
    """Write work tables into a folder. Returns their files, and how many rows of which table tell too little. Raises
    `UserError` when there is no table."""
    there = {table: path for table in TABLES if (path := _file_of(folder, table))}
    if not there:
        raise UserError(f"{folder} has none of DevLake's tables: {', '.join(TABLES)}, each .csv or .parquet")
    export = _Export(there, keys)
    export.read()
    encoder = msgspec.json.Encoder()
    written = []
    for table, rows in export.rows.items():
        path = into / f"{table}.jsonl"
        path.write_bytes(b"".join(encoder.encode(row) + b"\n" for row in rows.values()))
        written.append(path)
    return written, export.left_out


class _Export:
    def __init__(self, there: Mapping[str, Path], keys: TicketKeys) -> None:
        self._there, self._keys = there, keys
        self.rows: dict[str, dict[tuple[Any, ...], work.Row]] = defaultdict(dict)
        self.left_out: Counter[str] = Counter()
        self._tickets: dict[str, str] = {}
        """DevLake's id → ours."""
        self._pulls: dict[str, work.PullRequest] = {}

    def read(self) -> None:
        for table, row in (("issues", self._issue), ("cicd_deployment_commits", self._deployment)):
            for fields in self._of(table):
                if not row(fields):
                    self.left_out[table] += 1
        for fields in self._of("issues"):
            parent = self._tickets.get(_text(fields, "parent_issue_id"))
            ticket = self.rows["tickets"].get((self._tickets.get(_text(fields, "id"), ""),))
            if parent and isinstance(ticket, work.Ticket):
                ticket.parent_id = parent
        messages = {_text(fields, "sha"): fields for fields in self._of("commits")}
        told: dict[str, set[str]] = defaultdict(set)
        shas: dict[str, list[str]] = defaultdict(list)
        for fields in self._of("pull_request_issues"):
            if ticket_id := self._tickets.get(_text(fields, "issue_id")):
                told[_text(fields, "pull_request_id")].add(ticket_id)
            else:
                self.left_out["pull_request_issues"] += 1
        for fields in self._of("pull_request_commits"):
            shas[_text(fields, "pull_request_id")].append(_text(fields, "commit_sha"))
        for fields in self._of("pull_requests"):
            id_ = _text(fields, "id")
            commits = [messages.get(sha, {"sha": sha}) for sha in shas[id_]]
            if not self._pull(fields, told[id_], commits):
                self.left_out["pull_requests"] += 1

    def _of(self, table: str) -> Iterable[Fields]:
        return _rows(self._there[table]) if table in self._there else ()

    def _add(self, table: str, row: work.Row) -> None:
        self.rows[table][tuple(getattr(row, name) for name in work.TABLES[table].key)] = row

    def _issue(self, fields: Fields) -> bool:
        key = _text(fields, "issue_key")
        ticket_id = of_address(_text(fields, "url")) or (key if KEY.fullmatch(key) and key[:1].isupper() else None)
        if ticket_id is None:
            return False
        self._tickets[_text(fields, "id")] = ticket_id
        category = CATEGORIES.get(_text(fields, "status"))
        ticket = {
            "ticket_id": ticket_id,
            "source": _text(fields, "id").partition(":")[0] or None,
            "project": re.split(r"[-#](?=[0-9]+$)", ticket_id)[0],
            "type": _said(fields, "original_type") or _said(fields, "type"),
            "title": _said(fields, "title"),
            "status": _said(fields, "original_status"),
            "status_category": category,
            "estimate": _number(fields, "story_point"),
            "created_at": _at(fields, "created_date"),
            "done_at": _at(fields, "resolution_date") if category == "done" else None,
            "creator": _said(fields, "creator_name"),
            "assignee": _said(fields, "assignee_name"),
            "updated_at": _at(fields, "updated_date"),
            "url": _said(fields, "url"),
        }
        return self._convert("tickets", work.Ticket, ticket)

    def _pull(self, fields: Fields, told: Iterable[str], commits: Iterable[Fields]) -> bool:
        at = PULL.match(_text(fields, "url"))
        if at is None:
            return False
        is_merged = _text(fields, "status") == "MERGED"  # others may have a merged_date, too
        pull = work.PullRequest(
            pr_id=f"{at['repo']}!{int(at['number'])}",
            repo=at["repo"],
            number=int(at["number"]),
            author=_said(fields, "author_name"),
            title=_said(fields, "title"),
            head_branch=_said(fields, "head_ref"),
            base_branch=_said(fields, "base_ref"),
            created_at=_at(fields, "created_date"),
            merged_at=_at(fields, "merged_date") if is_merged else None,
            closed_at=_at(fields, "closed_date"),
            additions=_count(fields, "additions"),
            deletions=_count(fields, "deletions"),
            merge_commit=_said(fields, "merge_commit_sha") if is_merged else None,
            url=_said(fields, "url"),
        )
        self._add("pull_requests", pull)
        body, messages = _text(fields, "description"), [_text(commit, "message") for commit in commits]
        found = links.links_of(pull, self._keys, body=body, messages=messages)
        named = {link.ticket_id for link in found}
        found += [
            work.PrTicket(pr_id=pull.pr_id, ticket_id=ticket_id, source="body_close")
            for ticket_id in sorted(set(told) - named)
        ]
        for link in found:
            self._add("pr_tickets", link)
        text = f"{pull.title or ''}\n\n{body}"
        for revert in links.reverts_of(pull.pr_id, pull.repo, text, self._keys, at=pull.merged_at):
            self._add("reverts", revert)
        for commit in commits:
            message = _text(commit, "message")
            row = work.Commit(
                sha=_text(commit, "sha"), repo=pull.repo, author=_said(commit, "author_name"),
                committed_at=_at(commit, "committed_date") or _at(commit, "authored_date"),
                message_subject=links.subject_of(message) or None, tickets=list(self._keys.in_text(message)),
                pr_id=pull.pr_id,
            )  # fmt: skip
            if row.sha:
                self._add("commits", row)
        return True

    def _deployment(self, fields: Fields) -> bool:
        repo, result = repo_name(_text(fields, "repo_url")), _text(fields, "result")
        if repo is None:
            return False
        finished = _at(fields, "finished_date")
        deployment = {
            "deployment_id": _text(fields, "id"),
            "repo": repo,
            "environment": _text(fields, "environment").lower() or None,
            "status": result.lower() or None,
            "sha": _said(fields, "commit_sha"),
            "started_at": _at(fields, "started_date") or _at(fields, "created_date"),
            "finished_at": finished if result == SUCCESS else None,
            "failed_at": finished if result == FAILURE else None,
        }
        return self._convert("deployments", work.Deployment, deployment)

    def _convert(self, table: str, kind: type[work.Row], fields: dict[str, Any]) -> bool:
        try:
            self._add(table, msgspec.convert(fields, kind))
        except msgspec.ValidationError:
            return False
        return True


def _file_of(folder: Path, table: str) -> Path | None:
    return next((path for kind in ("csv", "parquet") if (path := folder / f"{table}.{kind}").is_file()), None)


def _rows(path: Path) -> Iterator[Fields]:
    """Raises `UserError` when a file cannot be read."""
    try:
        if path.suffix == ".parquet":
            with duckdb.connect() as db:
                result = db.execute(build.step("read_foreign_rows"), {"file": build.glob_of(path)})
                while rows := result.fetchmany(10_000):
                    yield from (msgspec.json.decode(text) for (text,) in rows)
            return
        csv.field_size_limit(CELL_MAX)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            yield from csv.DictReader(lines)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (duckdb.Error, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    return "" if value is None or isinstance(value, list) else str(value).strip()


def _said(fields: Fields, name: str) -> str | None:
    return _text(fields, name) or None


def _at(fields: Fields, name: str) -> Any:
    return moment(_text(fields, name))


def _number(fields: Fields, name: str) -> float | None:
    try:
        return float(_text(fields, name))
    except ValueError:
        return None


def _count(fields: Fields, name: str) -> int | None:
    text = _text(fields, name)
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) else None
