"""GitHub, over its REST API: issues, pull requests and what belongs to them, deployments, runs of workflows.

First what its payloads say, as rows: pure. Then how they are read: `GitHub`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args
from urllib.parse import quote

from analytics import work
from analytics.sources.generated import left_out
from analytics.sources.http import Api, OverHttp, asked_to_wait, token_of
from analytics.sources.links import links_of, pull_of, reverts_of, subject_of
from analytics.sources.pages import BROKEN_MAX
from analytics.sources.source import Batch, Given, Part, SourceError, Tickets, among, moment, name, row
from analytics.sources.statuses import Category, Change, course, rows
from gateway.config import WorkSettings
from gateway.errors import UserError
from gateway.reading import child, count, items, text
from gateway.ticket_keys import TicketKeys
from gateway.webhooks import Kind

TITLE_MAX, BODY_MAX = 1024, 2**18
PAGE = {"per_page": "100"}
FILES_MAX = 3000
"""More of a pull request GitHub does not tell."""
RAW = "application/vnd.github.raw+json"
GONE = (404, 410, 451)
SECOND = timedelta(seconds=1)
LATE = timedelta(days=30)
"""Deployments and runs may end, or be run again, so long after they were made."""
LIMITED_SECONDS = 60.0
"""Of waiting, where a limit does not say how long."""
RUNS_MAX = 1000
"""Of a filtered query GitHub shows no more."""
LINKED = """query ($owner: String!, $name: String!, $number: Int!) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    closingIssuesReferences(first: 50) { nodes { number repository { nameWithOwner } } } } } }"""
"""Tickets that a pull request is linked to, also by hand: the REST API shows its text alone."""
ISSUE_ADDRESS = re.compile(r"https?://[^/\s]+/(?:[^\s?#]*?/)?(?:repos/)?([\w.-]+/[\w.-]+)/issues/([0-9]+)", re.ASCII)


def login(person: Any) -> str | None:
    return name(child(person).get("login"))


def is_bot(person: Any, bots: Collection[str]) -> bool:
    who = login(person) or ""
    return child(person).get("type") == "Bot" or who.endswith("[bot]") or who in bots


def is_pull(issue: Any) -> bool:
    """Pull requests are in lists of issues."""
    return "pull_request" in child(issue)


def _number(item: Any) -> int:
    """Raises `ValueError`."""
    if number := count(child(item).get("number")):
        return number
    raise ValueError("an item without a number")


# -- issues ------------------------------------------------------------------------------------------------------------


def ticket(repo: str, issue: Any, settings: WorkSettings, changes: Sequence[Change] = ()) -> work.Ticket:
    """Raises `ValueError` when there is nothing to know it by. `changes` as from `changes_of`; without, how it went is
    not known."""
    issue = child(issue)
    went = course(changes) if changes else None
    labels = [found for each in items(issue.get("labels")) if (found := name(child(each).get("name") or each))]
    is_done = issue.get("state") == "closed"
    reason = name(issue.get("state_reason"))
    assignees = [*map(login, items(issue.get("assignees"))), login(issue.get("assignee"))]
    parent = ISSUE_ADDRESS.fullmatch(str(issue.get("parent_issue_url")))
    marked = next((label for label in labels if label in settings.github.statuses), None)
    category: Category = settings.github.statuses[marked] if marked else "in_progress" if any(assignees) else "todo"
    return row(
        work.Ticket,
        ticket_id=f"{repo}#{_number(issue)}",
        source="github",
        project=repo,
        type=name(child(issue, "type").get("name"))
        or next((settings.github.types[label] for label in labels if label in settings.github.types), None),
        title=text(issue.get("title"), TITLE_MAX),
        status=name(issue.get("state")) if is_done or not marked else marked,
        status_category="done" if is_done else category,
        resolution=reason if is_done else None,
        parent_id=f"{parent[1]}#{parent[2]}" if parent else None,
        labels=labels,
        created_at=moment(issue.get("created_at")),
        started_at=went.started_at if went else None,
        done_at=moment(issue.get("closed_at")) if is_done else None,
        reopened_count=went.reopened_count if went else None,
        creator=login(issue.get("user")),
        assignee=next(filter(None, assignees), None),
        closer=(login(issue.get("closed_by")) or (went.closer if went else None)) if is_done else None,
        updated_at=moment(issue.get("updated_at")),
        url=text(issue.get("html_url"), TITLE_MAX),
    )


def has_history(issue: Any) -> bool:
    """Of an issue that was never assigned or closed, no event says more."""
    issue = child(issue)
    return bool(
        issue.get("state") == "closed" or items(issue.get("assignees")) or issue.get("state_reason") == "reopened"
    )


def changes_of(issue: Any, events: Iterable[Any]) -> list[Change]:
    """The statuses that an issue had, from its events."""
    issue = child(issue)
    made = moment(issue.get("created_at"))
    found = [Change(made, "open", "todo", login(issue.get("user")))] if made else []
    listed = [(at, event) for event in map(child, events) if (at := moment(event.get("created_at")))]
    is_assigned = False
    for at, event in sorted(listed, key=lambda each: each[0]):
        what, who, before = event.get("event"), login(event.get("actor")), found[-1].category if found else None
        is_assigned = is_assigned or what == "assigned"
        if what == "closed" and before != "done":
            found.append(Change(at, "closed", "done", who))
        elif what == "reopened" and before == "done":
            found.append(Change(at, "open", "in_progress" if is_assigned else "todo", who))
        elif what == "assigned" and before == "todo":
            found.append(Change(at, "open", "in_progress", who))
    return found


# -- pull requests -----------------------------------------------------------------------------------------------------


def pull_request(
    repo: str,
    pull: Any,
    files: Sequence[Any] | None,
    reviews: Sequence[Any] | None,
    bots: Collection[str],
    is_left_out: Callable[[str], bool],
) -> work.PullRequest:
    """Raises `ValueError` when there is nothing to know it by. Of what is `None`, nothing is known."""
    pull, number = child(pull), _number(pull)
    author = pull.get("user")
    merged_at = moment(pull.get("merged_at"))
    written = [
        each for each in map(child, files or ()) if (path := name(each.get("filename"))) and not is_left_out(path)
    ]
    sizes = {each: sum(count(file.get(each)) or 0 for file in written) for each in ("additions", "deletions")}
    return row(
        work.PullRequest,
        pr_id=f"{repo}!{number}",
        repo=repo,
        number=number,
        author=login(author),
        author_is_bot=is_bot(author, bots),
        title=text(pull.get("title"), TITLE_MAX),
        head_branch=name(child(pull, "head").get("ref")),
        base_branch=name(child(pull, "base").get("ref")),
        created_at=moment(pull.get("created_at")),
        merged_at=merged_at,
        closed_at=moment(pull.get("closed_at")),
        # There is one on what was closed without a merge, too.
        merge_commit=name(pull.get("merge_commit_sha")) if merged_at else None,
        approvals_by_others=None if reviews is None else approvals(author, reviews, bots),
        files=[file["filename"] for file in written],
        updated_at=moment(pull.get("updated_at")),
        url=text(pull.get("html_url"), TITLE_MAX),
        **({} if files is None else sizes),
    )


def approvals(author: Any, reviews: Iterable[Any], bots: Collection[str]) -> int:
    """People other than the author whose last judgement is an approval."""
    last: dict[str, Any] = {}
    for review in sorted(map(child, reviews), key=lambda each: str(each.get("submitted_at"))):
        who = login(review.get("user"))
        is_judgement = review.get("state") in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")
        if who and is_judgement and who != login(author) and not is_bot(review.get("user"), bots):
            last[who] = review.get("state")
    return sum(state == "APPROVED" for state in last.values())


def commit(repo: str, item: Any, pr_id: str | None, keys: TicketKeys) -> work.Commit:
    """Raises `ValueError` when there is nothing to know it by."""
    said = child(item, "commit")
    message = text(said.get("message"), BODY_MAX) or ""
    return row(
        work.Commit,
        sha=name(child(item).get("sha")),
        repo=repo,
        author=login(child(item).get("author")) or name(child(said, "author").get("name")),
        committed_at=moment(child(said, "committer").get("date")),
        message_subject=subject_of(message) or None,
        tickets=list(keys.in_text(message)),
        pr_id=pr_id,
    )


def linked(data: Any) -> list[str]:
    """The tickets in the `data` of an answer to `LINKED`."""
    nodes = items(child(data, "repository", "pullRequest", "closingIssuesReferences").get("nodes"))
    found = ((name(child(node, "repository").get("nameWithOwner")), count(child(node).get("number"))) for node in nodes)
    return [f"{repo}#{number}" for repo, number in found if repo and number]


# -- deployments -------------------------------------------------------------------------------------------------------


def deployment(repo: str, item: Any, statuses: Iterable[Any]) -> work.Deployment:
    """Raises `ValueError` when there is nothing to know it by."""
    item = child(item)
    told = sorted(
        (at, str(status.get("state"))) for status in map(child, statuses) if (at := moment(status.get("created_at")))
    )
    succeeded = [at for at, state in told if state == "success"]
    failed = [at for at, state in told if state in ("failure", "error")]
    return row(
        work.Deployment,
        deployment_id=f"github:{_id(item)}",
        repo=repo,
        environment=name(item.get("environment")),
        status=told[-1][1] if told else None,
        sha=name(item.get("sha")),
        started_at=moment(item.get("created_at")),
        finished_at=next(iter(succeeded), None),
        failed_at=next((at for at in failed if not succeeded or at > succeeded[-1]), None),  # not tried again since
        updated_at=moment(item.get("updated_at")),
        url=text(item.get("url"), TITLE_MAX),
    )


def run(repo: str, item: Any, environment: str) -> work.Deployment:
    """A workflow's run that deploys. Raises `ValueError` when there is nothing to know it by."""
    item = child(item)
    ended, conclusion = moment(item.get("updated_at")), name(item.get("conclusion"))
    return row(
        work.Deployment,
        deployment_id=f"github:run:{_id(item)}",
        repo=repo,
        environment=environment,
        status=conclusion or name(item.get("status")),
        sha=name(item.get("head_sha")),
        started_at=moment(item.get("run_started_at")) or moment(item.get("created_at")),
        finished_at=ended if conclusion == "success" else None,
        failed_at=ended if conclusion in ("failure", "timed_out", "startup_failure") else None,
        updated_at=ended,
        url=text(item.get("html_url"), TITLE_MAX),
    )


def _id(item: Mapping[str, Any]) -> int:
    """Raises `ValueError`."""
    if number := count(item.get("id")):
        return number
    raise ValueError("an item without an id")


# -- how they are read -------------------------------------------------------------------------------------------------


class GitHub(OverHttp):
    name = "github"

    def __init__(self, given: Given) -> None:
        settings, where = given.settings.github, "[work.github] token"
        token = token_of(settings.token, where)
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._given = given
        self._api = Api("GitHub", settings.api, headers, where, given.patience)

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        for asked in among(self._given.settings.github.repos, projects):
            try:
                about = child(self._api.decode(self._api.get(f"repos/{asked}")))
            except SourceError:
                raise
            except UserError as error:
                yield Part(asked, _raising(error), told_by=get_args(Kind))
            else:
                yield from Repo(self._api, self._given, asked, about).parts()


def _raising(error: UserError) -> Callable[[Any, datetime | None], Iterator[Batch]]:
    def read(_: Any, __: datetime | None) -> Iterator[Batch]:
        raise error

    return read


class Repo:
    """One repository. `about` is what GitHub says of it: it may have another name than the one that was asked for."""

    def __init__(self, api: Api, given: Given, asked: str, about: Mapping[str, Any]) -> None:
        self._api, self._given, self._settings = api, given, given.settings
        self._asked, self._about = asked, about
        self.name = name(about.get("full_name")) or asked
        self._default = name(about.get("default_branch"))
        self._is_left_out: Callable[[str], bool] | None = None
        self._shows_links = bool(self._settings.github.token)  # nobody may ask GraphQL without one
        root = self._settings.github.api.rstrip("/")
        self._graphql = f"{root.removesuffix('/v3')}/graphql"  # GitHub Enterprise Server: /api/v3, and /api/graphql
        self._production = {environment.casefold() for environment in self._settings.environments}
        self._history = api.now() - timedelta(days=self._settings.history_days)
        """A first sync reads no further back."""

    def parts(self) -> Iterator[Part]:
        renamed = (self._asked, self.name) if self.name != self._asked else None
        if self._about.get("has_issues") is not False:
            tickets = Tickets(self.name, self.ids, self.ticket)
            yield Part(f"{self.name} issues", self.issues, tickets, renamed, ("ticket",))
        yield Part(f"{self.name} pull requests", self.pulls, None, renamed, ("pull_request", "commits"))
        yield Part(f"{self.name} deployments", self.deployments, None, renamed, ("deployment",))
        for workflow in self._settings.github.workflows:
            yield Part(f"{self.name} runs of {workflow}", self._runs_of(workflow), None, renamed, ("deployment",))

    # -- issues --------------------------------------------------------------------------------------------------------

    def issues(self, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        query = cursor or {**PAGE, "state": "all", "sort": "created", "direction": "asc"}
        if since is not None and not cursor:
            query = {**query, "since": _written(since)}
        done, broken = 0, Streak()
        for answer, following in self._api.pages(f"repos/{self.name}/issues", query):
            page = self._api.items(answer)
            done += len(page)
            batch = Batch({"tickets": [], "ticket_statuses": []}, following, problems=[], done=done)
            issues = [issue for issue in page if not is_pull(issue)]
            known = self._known("tickets", issues, "#") if since else {}
            for issue in issues:
                try:
                    made = ticket(self.name, issue, self._settings)
                except ValueError as error:
                    batch.problems.append(f"an issue was left out: {error}")
                    continue
                if made.updated_at is None or made.updated_at != known.get(made.ticket_id):
                    is_asked = since or made.updated_at is None or made.updated_at > self._history
                    is_whole = self._issue(self.name, issue, bool(is_asked), batch)
                    broken.note(not is_whole, batch, made.updated_at)
            yield batch

    def _issue(self, repo: str, issue: Any, is_asked: bool, batch: Batch) -> bool:
        """Its ticket, with its history where that `is_asked` for. Raises `ValueError`. False when it could not be
        read."""
        path = f"repos/{repo}/issues/{_number(issue)}/events"
        events = self._all(path, batch) if is_asked and has_history(issue) else []
        changes = changes_of(issue, events) if events else []
        made = ticket(repo, issue, self._settings, changes)
        made.updated_at = made.updated_at if events is not None else None
        batch.add("tickets", [made])
        batch.add("ticket_statuses", rows(made.ticket_id, changes))
        return events is not None

    def ids(self) -> Iterator[Collection[str]]:
        query = {**PAGE, "state": "all", "sort": "created", "direction": "asc"}
        for answer, _ in self._api.pages(f"repos/{self.name}/issues", query):
            numbers = (count(child(issue).get("number")) for issue in self._api.items(answer) if not is_pull(issue))
            yield [f"{self.name}#{number}" for number in numbers if number]

    def ticket(self, ticket_id: str) -> Batch | None:
        """Of one that was transferred, GitHub answers what it is now."""
        number = ticket_id.rpartition("#")[2]
        answer = self._api.get(f"repos/{self.name}/issues/{number}", allowed=GONE)
        if not answer.is_success:
            return None
        issue = self._api.decode(answer)
        there = ISSUE_ADDRESS.fullmatch(str(child(issue).get("url")))
        batch = Batch()
        try:
            if is_pull(issue):
                return None
            self._issue(there[1] if there else self.name, issue, True, batch)
        except ValueError:
            return None
        return batch

    # -- pull requests -------------------------------------------------------------------------------------------------

    def pulls(self, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        """Those that were updated last come first: the cursor is up to where, and all that moved before it since is for
        the next read."""
        before, until = moment(cursor), since or self._history
        done, broken, place = 0, Streak(), cursor
        query = {**PAGE, "state": "all", "sort": "updated", "direction": "desc"}
        for answer, _ in self._api.pages(f"repos/{self.name}/pulls", query):
            page = self._api.items(answer)
            known = self._known("pull_requests", page, "!") if since else {}
            for pull in page:
                done += 1
                at = moment(child(pull).get("updated_at"))
                if at is not None and at < until:
                    return
                if at is not None and before is not None and at > before:
                    continue
                if at is None or at != known.get(f"{self.name}!{child(pull).get('number')}"):
                    batch = Batch({}, place, {}, [], done)
                    try:
                        is_whole = self.pull(pull, batch)
                    except ValueError as error:
                        batch.problems.append(f"a pull request was left out: {error}")
                        is_whole = True
                    broken.note(not is_whole, batch, at)
                    if is_whole and at is not None:
                        place = batch.cursor = _written(at)
                    yield batch

    def pull(self, pull: Any, batch: Batch) -> bool:
        """A pull request of the list and all that belongs to it. Raises `ValueError` when there is nothing to know it
        by. False when some of it could not be read."""
        number = _number(pull)
        told = self._one(f"pulls/{number}", batch)
        files = self._all(f"repos/{self.name}/pulls/{number}/files", batch)
        commits = self._all(f"repos/{self.name}/pulls/{number}/commits", batch)
        reviews = self._all(f"repos/{self.name}/pulls/{number}/reviews", batch)
        tickets = self._linked(number, batch)
        is_whole = None not in (told, files, commits, reviews, tickets)
        pull = child(pull) if told is None else child(told)
        if len(files or ()) >= FILES_MAX:
            batch.problems.append(f"#{number} has more files than GitHub tells: its size is at least what is stored")
        made = pull_request(self.name, pull, files, reviews, self._settings.bots, self._left_out())
        if not is_whole:
            made.updated_at = None  # so that it replaces none that is whole
        keys = self._given.keys
        said = [message for each in commits or () if (message := text(child(each, "commit").get("message"), BODY_MAX))]
        body = text(pull.get("body"), BODY_MAX) or ""
        closes = self._default is None or made.base_branch == self._default
        batch.add("pull_requests", [made])
        batch.add("pr_tickets", links_of(made, keys, body=body, messages=said, tracker=tickets or (), closes=closes))
        batch.add("reverts", reverts_of(made.pr_id, self.name, f"{made.title}\n\n{body}", keys, at=made.merged_at))
        batch.emptied.update(pr_tickets=[made.pr_id], reverts=[made.pr_id])
        for each in commits or ():
            try:
                batch.add("commits", [commit(self.name, each, made.pr_id, keys)])
            except ValueError as error:
                batch.problems.append(f"a commit of #{number} was left out: {error}")
        return is_whole

    def _linked(self, number: int, batch: Batch) -> list[str] | None:
        """`None` when they cannot be read now. A token that may not see them at all is told of once, and has none."""
        if not self._shows_links:
            return []
        owner, _, repo = self.name.partition("/")
        variables = {"owner": owner, "name": repo, "number": number}
        try:
            answer = self._api.post(self._graphql, {"query": LINKED, "variables": variables}, allowed=(403, 404))
        except SourceError:
            raise
        except UserError as error:
            batch.problems.append(str(error))
            return None
        answered = child(self._api.decode(answer))
        kinds = {child(error).get("type") for error in items(answered.get("errors"))}
        if "RATE_LIMITED" in kinds:
            wait = asked_to_wait(answer)
            self._given.patience.wait(LIMITED_SECONDS if wait is None else max(wait, 1.0), "GitHub")
            return self._linked(number, batch)
        if not answer.is_success or kinds & {"FORBIDDEN", "INSUFFICIENT_SCOPES"}:
            self._shows_links = False
            batch.problems.append(
                "GitHub does not show which tickets pull requests are linked to by hand: the token of [work.github] "
                "may not read issues"
            )
            return []
        if kinds - {"NOT_FOUND"}:
            batch.problems.append(
                f"GitHub does not answer which tickets #{number} is linked to: the next sync tries again"
            )
            return None
        return linked(answered.get("data"))

    def _left_out(self) -> Callable[[str], bool]:
        if self._is_left_out is None:
            answer = self._api.get(
                f"repos/{self.name}/contents/.gitattributes", headers={"Accept": RAW}, allowed=(403, *GONE)
            )
            attributes = answer.text if answer.is_success else ""
            self._is_left_out = left_out(self._settings.exclude, attributes)
        return self._is_left_out

    # -- deployments ---------------------------------------------------------------------------------------------------

    def deployments(self, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        """Listed from the newest one on, read from the oldest one on: the cursor is the id of the last one read."""
        listed = [
            item
            for item in self._deployments_since(since - LATE if since else self._history)
            if str(item.get("environment")).casefold() in self._production
        ]
        listed.reverse()
        statuses: dict[int, list[Any] | None] = {}

        def read(place: int, batch: Batch) -> work.Deployment | None:
            item = listed[place]
            try:
                if place not in statuses:
                    statuses[place] = self._all(f"repos/{self.name}/deployments/{_id(item)}/statuses", batch)
                told = statuses[place]
                made = deployment(self.name, item, told or ())
            except ValueError as error:
                batch.problems.append(f"a deployment was left out: {error}")
                return None
            if told is None:
                made.updated_at = None
            return made

        known = self._given.known("deployments", [f"github:{item.get('id')}" for item in listed]) if since else {}
        broken = Streak()
        for place, item in enumerate(listed):
            at = moment(item.get("updated_at"))
            is_read = cursor is not None and (count(item.get("id")) or 0) <= cursor
            if is_read or (at is not None and at == known.get(f"github:{item.get('id')}")):
                continue
            batch = Batch({}, count(item.get("id")) or cursor, {}, [], place + 1, len(listed))
            made = read(place, batch)
            broken.note(made is not None and made.updated_at is None and at is not None, batch, at)
            if made is not None:
                earlier = (read(each, batch) for each in reversed(range(place)) if _is_same_place(listed[each], item))
                base = next((each.sha for each in earlier if each and each.finished_at), None)
                self._add_deployment(made, base or self._deployed_before(made, "github:[0-9]+"), batch)
            yield batch

    def _deployments_since(self, until: datetime) -> Iterator[Mapping[str, Any]]:
        for answer, _ in self._api.pages(f"repos/{self.name}/deployments", PAGE):
            for item in map(child, self._api.items(answer)):
                made = moment(item.get("created_at"))
                if made is not None and made < until:
                    return
                yield item

    def _runs_of(self, workflow: str) -> Callable[[Any, datetime | None], Iterator[Batch]]:
        def read(cursor: Any, since: datetime | None) -> Iterator[Batch]:
            return self.runs(workflow, cursor, since)

        return read

    def runs(self, workflow: str, cursor: Any, since: datetime | None) -> Iterator[Batch]:
        """From the oldest one on, in windows of time: of a query, GitHub shows so many and no more."""
        first = moment(child(cursor).get("from")) or (since - LATE if since else self._history)
        base, end, width, done = text(child(cursor).get("base")), self._api.now(), LATE, 0
        environment = next(iter(self._settings.environments), "production")
        path = f"repos/{self.name}/actions/workflows/{quote(workflow, safe='')}/runs"
        while first < end:
            last = min(first + width, end)
            query = {**PAGE, "created": f"{_written(first)}..{_written(last)}"}
            if self._default:
                query["branch"] = self._default
            found = self._runs(path, query)
            if found is None and width > SECOND:
                width = max(width / 2, SECOND)
                continue
            batch = Batch({}, None, {}, [], done)
            if found is None:
                batch.problems.append(f"more than {RUNS_MAX:,} runs within a second were left out")
            made = []
            for item in found or ():
                try:
                    made.append(run(self.name, item, environment))
                except ValueError as error:
                    batch.problems.append(f"a run was left out: {error}")
            known = self._given.known("deployments", [each.deployment_id for each in made]) if since else {}
            for each in sorted(made, key=lambda each: (each.started_at or first, each.deployment_id)):
                done += 1
                if each.updated_at is None or each.updated_at != known.get(each.deployment_id):
                    self._add_deployment(each, base or self._deployed_before(each, "github:run:[0-9]+"), batch)
                base = each.sha if each.finished_at else base
            first = last
            yield replace(batch, cursor={"from": _written(first), "base": base}, done=done)

    def _runs(self, path: str, query: Mapping[str, str]) -> list[Any] | None:
        """`None` when they are too many."""
        found: list[Any] = []
        for answer, _ in self._api.pages(path, query, allowed=(422,)):
            listed = child(self._api.decode(answer))
            if answer.status_code == 422 or (count(listed.get("total_count")) or 0) > RUNS_MAX:
                return None
            found += items(listed.get("workflow_runs"))
        return found

    def _deployed_before(self, made: work.Deployment, named: str) -> str | None:
        """What was deployed successfully before, as far as it is stored: it may be older than what is listed."""
        asked = {"repo": self.name, "environment": made.environment, "before": made.started_at, "named": named}
        return next((sha for (sha,) in self._given.ask("deployed_before", asked)), None) if made.finished_at else None

    def _add_deployment(self, made: work.Deployment, base: str | None, batch: Batch) -> None:
        """A successful one carries the pull requests whose commits came since the successful one before it."""
        batch.add("deployments", [made])
        if made.finished_at and made.sha and base:
            numbers: set[int] = set()
            if made.sha != base:
                path = f"repos/{self.name}/compare/{quote(base, safe='')}...{quote(made.sha, safe='')}"
                for answer, _ in self._api.pages(path, PAGE, allowed=GONE):
                    for each in items(child(self._api.decode(answer)).get("commits")):
                        number = pull_of(text(child(each, "commit").get("message"), BODY_MAX) or "")
                        numbers |= {number} if number else set()
            carried = [work.DeploymentPr(deployment_id=made.deployment_id, pr_id=f"{self.name}!{n}") for n in numbers]
            batch.add("deployment_prs", carried)
            batch.emptied.setdefault("deployment_prs", []).append(made.deployment_id)

    # -- the parts -----------------------------------------------------------------------------------------------------

    def _known(self, table: str, items: Iterable[Any], sign: str) -> Mapping[str, datetime | None]:
        return self._given.known(table, [f"{self.name}{sign}{child(item).get('number')}" for item in items])

    def _all(self, path: str, batch: Batch) -> list[Any] | None:
        """All pages of a list; `None` when it cannot be read, which is told."""
        try:
            return [item for answer, _ in self._api.pages(path, PAGE) for item in self._api.items(answer)]
        except SourceError:
            raise
        except UserError as error:
            batch.problems.append(str(error))
            return None

    def _one(self, path: str, batch: Batch) -> Any:
        try:
            return self._api.decode(self._api.get(f"repos/{self.name}/{path}"))
        except SourceError:
            raise
        except UserError as error:
            batch.problems.append(str(error))
            return None


class Streak:
    """Of items that could not be read whole. One is broken; when all are, it is not they that are broken."""

    def __init__(self) -> None:
        self._length = 0

    def note(self, is_broken: bool, batch: Batch, changed_at: datetime | None) -> None:
        """Raises `UserError` when there are too many in a row."""
        if is_broken:
            batch.miss(changed_at)
        self._length = self._length + 1 if is_broken else 0
        if self._length > BROKEN_MAX:
            raise UserError(batch.problems[-1])


def _is_same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return str(one.get("environment")).casefold() == str(other.get("environment")).casefold()


def _written(at: datetime) -> str:
    return f"{at.isoformat(timespec='seconds')}Z"
