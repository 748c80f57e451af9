"""GitLab, over its REST API (v4): issues, merge requests and what belongs to them, deployments.

First what its payloads say, as rows: pure. Then how they are read: `GitLab`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, get_args
from urllib.parse import quote

from analytics import work
from analytics.sources.generated import left_out
from analytics.sources.http import Api, OverHttp, token_of
from analytics.sources.links import links_of, reverts_of, subject_of
from analytics.sources.pages import Pages, changed
from analytics.sources.source import Batch, Given, Part, SourceError, Tickets, among, labelled, moment, name, row
from analytics.sources.statuses import Category, Change, course, rows
from gateway.errors import UserError
from gateway.reading import amount, child, items, text, whole_number
from gateway.ticket_keys import TicketKeys
from gateway.webhooks import Kind

TITLE_MAX = 1024
MACHINE = re.compile(r"(?:project|group)_\d+_bot\w*", re.ASCII)
"""The user that a token of a project or a group is."""
EPIC = re.compile(r"(?:https?://[^/\s]+)?/groups/(?P<group>[\w./-]+)/-/epics/(?P<number>\d+)", re.ASCII)
MOVED = re.compile(r"moved to (?P<path>[\w./-]+)?#(?P<number>\d+)", re.ASCII)
"""What GitLab itself notes on an issue that was moved."""
ISSUES_PAGE, MERGE_REQUESTS_PAGE = "100", "20"
"""A page is stored when all that belongs to its items was read."""
STATES = ("opened", "closed")
HIDDEN = (403, 404)
"""What this edition of GitLab does not have, or this token may not read."""
GONE = (404,)


# -- what issues say ---------------------------------------------------------------------------------------------------


def reference(item: Any) -> str:
    """`acme/shop#45`, `acme/shop!45`. Raises `ValueError` when it has none."""
    if full := text(child(item, "references").get("full")):
        return full
    raise ValueError("references.full is missing")


def login(person: Any) -> str | None:
    return name(child(person).get("username"))


def history(item: Any, states: Any, labels: Any, meanings: Mapping[str, Category]) -> list[Change]:
    """Statuses of an issue in the order of time: open, what labels say of it while it is, closed, open again."""
    made_at, closed_at = moment(child(item).get("created_at")), moment(child(item).get("closed_at"))
    events = [(moment(child(event).get("created_at")), child(event)) for event in [*items(states), *items(labels)]]
    changes = [Change(made_at, "opened", "todo", login(item.get("author")))] if made_at else []
    for at, event in sorted(((at, event) for at, event in events if at), key=lambda pair: pair[0]):
        is_closed = bool(changes) and changes[-1].category == "done"
        label, by = name(child(event, "label").get("name")), login(event.get("user"))
        if event.get("state") == "closed":
            changes.append(Change(at, "closed", "done", by))
        elif event.get("state") in ("reopened", "opened"):
            changes.append(Change(at, "opened", "in_progress" if is_closed else "todo", by))
        elif label and event.get("action") == "add" and not is_closed and (said := labelled([label], meanings)):
            changes.append(Change(at, label, said, by))
    if closed_at and item.get("state") == "closed" and (not changes or changes[-1].category != "done"):
        changes.append(Change(closed_at, "closed", "done", login(item.get("closed_by"))))  # of before it kept events
    return changes


def ticket(
    item: Any,
    changes: Sequence[Change],
    types: Mapping[str, str],
    statuses: Mapping[str, Category],
    resolutions: Mapping[str, str],
    former: Collection[str] = (),
) -> work.Ticket:
    """Of an issue, with its history, what labels mean, and the keys that it had before."""
    key, item, went = reference(item), child(item), course(changes)
    labels = [found for label in items(item.get("labels")) if (found := name(label))]
    is_done = item.get("state") == "closed"
    is_taken = bool(item.get("assignees") or item.get("assignee") or item.get("merge_requests_count"))
    is_duplicate = child(item, "_links").get("closed_as_duplicate_of") is not None
    resolution = "moved" if item.get("moved_to_id") else "duplicate" if is_duplicate else labelled(labels, resolutions)
    kind = name(item.get("issue_type"))
    return row(
        work.Ticket,
        ticket_id=key,
        source="gitlab",
        project=key.partition("#")[0],
        type=labelled(labels, types) or kind if kind == "issue" else kind,
        title=text(item.get("title"), TITLE_MAX),
        status=name(item.get("state")),
        status_category="done" if is_done else labelled(labels, statuses) or ("in_progress" if is_taken else "todo"),
        resolution=resolution if is_done else None,
        estimate=_estimate(item),
        parent_id=_epic(item),
        labels=labels,
        created_at=moment(item.get("created_at")),
        started_at=next(
            (at for at, status, said, _ in changes if said == "in_progress" and status not in STATES), None
        ),
        done_at=moment(item.get("closed_at")) or went.done_at if is_done else None,
        reopened_count=went.reopened_count,
        creator=login(item.get("author")),
        assignee=next(map(login, items(item.get("assignees"))), None),
        closer=login(item.get("closed_by")) or went.closer if is_done else None,
        updated_at=moment(item.get("updated_at")),
        url=text(item.get("web_url"), TITLE_MAX),
        aliases=sorted({*former} - {key}),
    )


def _estimate(item: Mapping[str, Any]) -> float | None:
    """Its weight, else the time that is planned for it, in hours."""
    weight, seconds = amount(item.get("weight")), amount(child(item, "time_stats").get("time_estimate"))
    return weight if weight is not None else seconds / 3600 if seconds else None


def _epic(item: Mapping[str, Any]) -> str | None:
    at = EPIC.fullmatch(str(child(item, "epic").get("url")))
    return f"{at['group']}&{at['number']}" if at else None


def moved_to(note: Any, path: str) -> str | None:
    """The present key of an issue of this project that was moved, by what GitLab noted on it. Of a project beside this
    one it notes the last part of the path alone."""
    at = MOVED.fullmatch(str(child(note).get("body"))) if child(note).get("system") is True else None
    if at is None:
        return None
    target = at["path"] or path
    if "/" not in target:
        target = f"{path.rpartition('/')[0]}/{target}"
    return f"{target}#{at['number']}"


# -- what merge requests and deployments say ---------------------------------------------------------------------------


class Size(NamedTuple):
    """Of a merge request, without files that nobody wrote. Unknown where GitLab shows not all of it."""

    additions: int | None
    deletions: int | None
    files: list[str]


def size(diffs: Any, is_left_out: Callable[[str], bool]) -> Size:
    additions = deletions = 0
    is_known, files = True, []
    for diff in map(child, items(diffs)):
        if path := text(diff.get("new_path"), TITLE_MAX):
            files.append(path)
        if path is None or is_left_out(path) or diff.get("generated_file") is True:
            continue
        is_known = is_known and not (diff.get("too_large") or diff.get("collapsed"))
        in_hunk = False
        for line in str(diff.get("diff") or "").splitlines():
            in_hunk = in_hunk or line.startswith("@@")
            additions += in_hunk and line.startswith("+")
            deletions += in_hunk and line.startswith("-")
    return Size(additions if is_known else None, deletions if is_known else None, files)


def is_machine(person: Any, bots: Collection[str]) -> bool:
    called = login(person) or ""
    return child(person).get("bot") is True or called in bots or MACHINE.fullmatch(called) is not None


def pull_request(item: Any, of: Size | None, approvals: Any, bots: Collection[str]) -> work.PullRequest:
    """Of a merge request, with its size and approvals where GitLab shows them."""
    key, item = reference(item), child(item)
    author, merged_at = login(item.get("author")), moment(item.get("merged_at"))
    approvers = [child(approval).get("user") for approval in items(child(approvals).get("approved_by"))]
    others = {login(person) for person in approvers if not is_machine(person, bots)} - {author, None}
    commit = item.get("squash_commit_sha") or item.get("merge_commit_sha") or item.get("sha")
    return row(
        work.PullRequest,
        pr_id=key,
        repo=key.partition("!")[0],
        number=item.get("iid"),
        author=author,
        author_is_bot=is_machine(item.get("author"), bots),
        title=text(item.get("title"), TITLE_MAX),
        head_branch=name(item.get("source_branch")),
        base_branch=name(item.get("target_branch")),
        created_at=moment(item.get("created_at")),
        merged_at=merged_at,
        closed_at=moment(item.get("closed_at")) or merged_at,
        additions=of.additions if of else None,
        deletions=of.deletions if of else None,
        files=of.files if of else [],
        approvals_by_others=len(others) if child(approvals) else None,
        merge_commit=text(commit) if merged_at else None,
        updated_at=moment(item.get("updated_at")),
        url=text(item.get("web_url"), TITLE_MAX),
    )


def commit(item: Any, pull: work.PullRequest, keys: TicketKeys) -> work.Commit:
    """Of a merge request."""
    item = child(item)
    message = str(item.get("message") or item.get("title") or "")
    return row(
        work.Commit,
        sha=item.get("id"),
        repo=pull.repo,
        author=name(item.get("author_name")),
        committed_at=moment(item.get("committed_date")),
        message_subject=subject_of(message),
        tickets=list(keys.in_text(message)),
        pr_id=pull.pr_id,
    )


def closed(item: Any) -> str | None:
    """The ticket that a merge request closes: an issue, or what a tracker beside GitLab calls it."""
    return text(child(item, "references").get("full")) or text(child(item).get("id"))


def deployment_id(item: Any) -> str | None:
    """It stays when a project is renamed."""
    number = whole_number(child(item).get("id"))
    return None if number is None else f"gitlab:{number}"


def deployment(item: Any, path: str) -> work.Deployment:
    item, job = child(item), child(item, "deployable")
    status = name(item.get("status"))
    ended_at = moment(job.get("finished_at")) or moment(item.get("updated_at"))
    return row(
        work.Deployment,
        deployment_id=deployment_id(item),
        repo=path,
        environment=name(child(item, "environment").get("name")),
        status=status,
        sha=text(item.get("sha")),
        started_at=moment(item.get("created_at")),
        finished_at=ended_at if status == "success" else None,
        failed_at=ended_at if status == "failed" else None,
        updated_at=moment(item.get("updated_at")),
        url=text(job.get("web_url"), TITLE_MAX),
    )


# -- how they are read -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Project:
    number: int
    path: str
    former: str
    """As it is set: it may have been renamed since."""
    branch: str | None
    """The default one."""

    @property
    def address(self) -> str:
        return f"projects/{self.number}"


class GitLab(OverHttp):
    name = "gitlab"

    def __init__(self, given: Given) -> None:
        self._given, self._settings, self._keys = given, given.settings.gitlab, given.keys
        setting = "[work.gitlab] token"
        token = token_of(self._settings.token, setting)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._api = Api("GitLab", self._settings.api, headers, setting, given.patience)

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        for path in among(self._settings.projects, projects):
            try:
                project = self._project(path)
            except SourceError:
                raise
            except UserError as error:
                yield Part(path, _refused(error), told_by=get_args(Kind))
                continue
            yield from self._parts(project)

    def _parts(self, project: _Project) -> Iterator[Part]:
        tickets = Tickets(project.path, partial(self._ids, project), self._ticket)
        renamed = (project.former, project.path) if project.former != project.path else None
        yield Part(f"{project.path} issues", partial(self._issues, project), tickets, renamed, ("ticket",))
        told_by = ("pull_request", "commits")
        yield Part(f"{project.path} merge requests", partial(self._merge_requests, project), None, renamed, told_by)
        yield Part(f"{project.path} deployments", partial(self._deployments, project), None, renamed, ("deployment",))

    def _from(self, since: datetime | None) -> datetime:
        return since or self.now() - timedelta(days=self._given.settings.history_days)

    def _project(self, path: str) -> _Project:
        """A project that was renamed is found by the name that it had, until another one gets it."""
        found = child(self._api.decode(self._api.get(f"projects/{quote(path, safe='')}")))
        number, present = whole_number(found.get("id")), text(found.get("path_with_namespace"))
        if number is None or present is None:
            raise UserError(f"GitLab does not say which project {path} is: the next sync tries again")
        return _Project(number, present, path, name(found.get("default_branch")))

    # -- issues -------------------------------------------------------------------------------------------------------

    def _issues(self, project: _Project, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        pages = Pages()
        for found, following, total in self._pages(f"{project.address}/issues", cursor or _asked(ISSUES_PAGE, since)):
            for item in changed(self._given, "tickets", found, since, _mark):
                with pages.item(f"issue {child(item).get('iid')}", child(item).get("updated_at")):
                    self._issue(item, project.former, pages)
            yield pages.end(following, len(found), total)

    def _issue(self, item: Any, former_path: str, pages: Pages) -> None:
        """With its history; instead of an issue that was moved, what it was moved to, where that can be read."""
        path, _, number = reference(item).rpartition("#")
        former = [f"{former_path}#{number}"]
        if child(item).get("moved_to_id") and (target := self._moved_to(item, path)):
            there, former = self._one(target, HIDDEN), [*former, reference(item)]
            item = there or item
        address, settings = _address(item, "issues"), self._settings
        states = self._list(f"{address}/resource_state_events") or []
        labels = self._list(f"{address}/resource_label_events") or [] if settings.statuses else []
        changes = history(item, states, labels, settings.statuses)
        one = ticket(item, changes, settings.types, settings.statuses, settings.resolutions, former)
        pages.add("tickets", [one])
        pages.add("ticket_statuses", rows(one.ticket_id, changes))

    def _moved_to(self, item: Any, path: str) -> str | None:
        notes = self._list(f"{_address(item, 'issues')}/notes") or []
        return next((key for note in reversed(notes) if (key := moved_to(note, path))), None)

    def _one(self, key: str, allowed: Collection[int]) -> Any:
        """An issue, or `None`."""
        path, _, number = key.rpartition("#")
        answer = self._api.get(f"projects/{quote(path, safe='')}/issues/{number}", allowed=allowed)
        return self._api.decode(answer) if answer.is_success else None

    def _ids(self, project: _Project) -> Iterator[list[str]]:
        for found, _, _ in self._pages(f"{project.address}/issues", _asked(ISSUES_PAGE, None)):
            here = [item for item in map(child, found) if not item.get("moved_to_id")]
            yield [key for item in here if (key := text(child(item, "references").get("full")))]

    def _ticket(self, key: str) -> Batch | None:
        if (item := self._one(key, GONE)) is None:
            return None
        pages = Pages()
        try:
            self._issue(item, key.rpartition("#")[0], pages)
        except ValueError as error:
            raise UserError(f"GitLab's issue {key} is not what it should be: {error}") from None
        return pages.end(None, 1)

    # -- merge requests -----------------------------------------------------------------------------------------------

    def _merge_requests(self, project: _Project, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        is_left_out = left_out(self._given.settings.exclude, self._attributes(project))
        pages, query = Pages(), cursor or _asked(MERGE_REQUESTS_PAGE, self._from(since))
        for found, following, total in self._pages(f"{project.address}/merge_requests", query):
            for item in changed(self._given, "pull_requests", found, since, _mark):
                with pages.item(f"merge request {child(item).get('iid')}", child(item).get("updated_at")):
                    self._merge_request(item, project.branch, is_left_out, pages)
            yield pages.end(following, len(found), total)

    def _merge_request(
        self, item: Any, default_branch: str | None, is_left_out: Callable[[str], bool], pages: Pages
    ) -> None:
        address = _address(item, "merge_requests")
        diffs = self._list(f"{address}/diffs")
        answer = self._api.get(f"{address}/approvals", allowed=HIDDEN)
        approvals = self._api.decode(answer) if answer.is_success else None
        pull = pull_request(
            item, None if diffs is None else size(diffs, is_left_out), approvals, self._given.settings.bots
        )
        commits = self._list(f"{address}/commits") or []
        issues = self._list(f"{address}/closes_issues") or []
        title, body = pull.title or "", str(child(item).get("description") or "")
        links = links_of(
            pull,
            self._keys,
            body=body,
            messages=[str(child(each).get("message") or "") for each in commits],
            tracker=[key for each in issues if (key := closed(each))],
            closes=pull.base_branch == default_branch,
        )
        reverts = reverts_of(pull.pr_id, pull.repo, f"{title}\n\n{body}", self._keys, at=pull.merged_at)
        of = [pull.pr_id]
        pages.add("commits", [commit(each, pull, self._keys) for each in commits])
        pages.add("pull_requests", [pull])
        pages.add("pr_tickets", links, of)
        pages.add("reverts", reverts, of)

    def _attributes(self, project: _Project) -> str:
        """What a repository says of its files."""
        address = f"{project.address}/repository/files/.gitattributes/raw"
        answer = self._api.get(address, {"ref": project.branch or "HEAD"}, allowed=HIDDEN)
        return answer.text if answer.is_success else ""

    # -- deployments --------------------------------------------------------------------------------------------------

    def _deployments(self, project: _Project, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        """The newest first: what changes meanwhile moves to the front, so that none is missed behind it."""
        query = {"order_by": "updated_at", "sort": "desc", "per_page": ISSUES_PAGE, **_since(self._from(since))}
        production = {environment.casefold() for environment in self._given.settings.environments}
        pages = Pages()
        for found, following, total in self._pages(f"{project.address}/deployments", cursor or query):
            for item in changed(self._given, "deployments", found, since, _deployment_mark):
                with pages.item(f"deployment {child(item).get('id')}", child(item).get("updated_at")):
                    one = deployment(item, project.path)
                    if (one.environment or "").casefold() in production:
                        pages.add("deployment_prs", self._deployed(project, item, one), [one.deployment_id])
                        pages.add("deployments", [one])
            yield pages.end(following, len(found), total)

    def _deployed(self, project: _Project, item: Any, one: work.Deployment) -> list[work.DeploymentPr]:
        if one.finished_at is None:
            return []
        merged = self._list(f"{project.address}/deployments/{item['id']}/merge_requests") or []
        return [work.DeploymentPr(deployment_id=one.deployment_id, pr_id=reference(each)) for each in merged]

    # -- requests -----------------------------------------------------------------------------------------------------

    def _pages(
        self, path: str, query: Mapping[str, str], allowed: Collection[int] = ()
    ) -> Iterator[tuple[list[Any], dict[str, str] | None, int | None]]:
        """Items, the query of the next page, and how many there are, which GitLab says of up to 10,000."""
        for answer, following in self._api.pages(path, query, allowed=allowed):
            if answer.is_success:
                yield self._api.items(answer), following, whole_number(answer.headers.get("x-total"))

    def _list(self, path: str) -> list[Any] | None:
        """All of what belongs to one item; `None` where that is not shown."""
        found: list[Any] | None = None
        for part, _, _ in self._pages(path, {"per_page": ISSUES_PAGE}, HIDDEN):
            found = [*(found or []), *part]
        return found


def _mark(item: Any) -> tuple[str | None, Any]:
    return text(child(item, "references").get("full")), child(item).get("updated_at")


def _deployment_mark(item: Any) -> tuple[str | None, Any]:
    return deployment_id(item), child(item).get("updated_at")


def _address(item: Any, kind: str) -> str:
    """Of an issue or a merge request. Raises `ValueError` when it has no numbers."""
    project, number = whole_number(child(item).get("project_id")), whole_number(child(item).get("iid"))
    if project is None or number is None:
        raise ValueError("project_id or iid is missing")
    return f"projects/{project}/{kind}/{number}"


def _asked(per_page: str, since: datetime | None) -> dict[str, str]:
    """In the order of creation: sorted by change, items would move from page to page meanwhile."""
    query = {"scope": "all", "state": "all", "order_by": "created_at", "sort": "asc", "per_page": per_page}
    return {**query, **_since(since)}


def _since(at: datetime | None) -> dict[str, str]:
    return {"updated_after": f"{at.isoformat()}Z"} if at else {}


def _refused(error: UserError) -> Callable[[Any, datetime | None], Iterator[Batch]]:
    """A part that cannot even begin."""

    def read(cursor: Any, since: datetime | None) -> Iterator[Batch]:
        raise error

    return read
