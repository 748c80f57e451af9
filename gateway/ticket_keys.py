"""Ticket keys in what people write: in values that name a ticket, in branch names, in text.

`PAY-123`, `acme/shop#45`, and what an installation's own patterns say. With an allow-list (projects set here or known
from the tracker) only those count, without one each upper-case key whose project is not on the deny list. Rules and
deny list were measured on public histories: docs/attribution.md.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from gateway.tracker import Snapshot

Reason = Literal["too_long", "too_many", "malformed", "other_project", "denied"]
"""Why a value that should name tickets is ignored."""

VALUE_MAX = 1024
TICKETS_MAX = 20
KEY = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,31})-([1-9][0-9]{0,6})", re.ASCII)
ISSUE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,38}(?:/[A-Za-z0-9._-]{1,100}){1,5})#([1-9][0-9]{0,6})", re.ASCII)
NUMBER = re.compile(r"#([1-9][0-9]{0,6})", re.ASCII)
URLS = (
    re.compile(r"https?://[^/\s]+(?:/[^\s?#]*)?/browse/(?P<key>[A-Z][A-Z0-9_]*-[0-9]+)(?:[?#]\S*)?", re.ASCII),
    re.compile(r"https?://linear\.app/[^/\s]+/issue/(?P<key>[A-Z][A-Z0-9_]*-[0-9]+)(?:[/?#]\S*)?", re.ASCII),
    re.compile(
        r"https?://[^/\s]+/(?P<repo>[\w.-]+(?:/[\w.-]+)+?)(?:/-)?/issues/(?P<number>[0-9]+)(?:[/?#]\S*)?", re.ASCII
    ),
)

IN_TEXT = re.compile(r"(?<![A-Za-z0-9])([A-Z][A-Z0-9_]{0,31})-([1-9][0-9]{0,6})(?![0-9])", re.ASCII)
ISSUE_IN_TEXT = re.compile(rf"(?<![\w./-]){ISSUE.pattern}(?![0-9])", re.ASCII)
AT_SEGMENT = re.compile(r"(?:^|[/_])([A-Za-z][A-Za-z0-9_]{0,31})-([1-9][0-9]{0,6})(?![0-9])", re.ASCII)
UNLISTED = r"([A-Z][A-Z0-9_]{1,9})-([1-9][0-9]{0,6})"
UNLISTED_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9_./-]){UNLISTED}(?![A-Za-z0-9_]|-[0-9]|\.[0-9])", re.ASCII)
UNLISTED_IN_BRANCH = re.compile(rf"(?:^|[/_]){UNLISTED}(?![A-Za-z0-9]|-[0-9]|\.[0-9])", re.ASCII)
NUMBER_IN_BRANCH = re.compile(r"(?:^|/)(?:issues?[-_/]|gh-|#)?([1-9][0-9]{0,6})(?=[-_/]|$)", re.ASCII | re.IGNORECASE)
SHARED_BRANCHES = frozenset({"main", "master", "develop", "development", "trunk", "HEAD"})
"""Branches that belong to no ticket, whatever is merged into them."""

DENIED = frozenset(
    [
        "AES",
        "AMD",
        "ANSI",
        "ARM",
        "BASE",
        "BF",
        "BLAKE",
        "CLAUDE",
        "COVID",
        "CP",
        "CRC",
        "CVE",
        "CWE",
        "ECMA",
        "ED",
        "EUC",
        "FIPS",
        "FP",
        "GEMINI",
        "GHSA",
        "GLM",
        "GMT",
        "GPL",
        "GPT",
        "GROK",
        "H",
        "HMAC",
        "HTTP",
        "IEEE",
        "INT",
        "IO",
        "ISO",
        "ISSUE",
        "IU",
        "JDK",
        "JEP",
        "JSR",
        "KOI",
        "LATIN",
        "LLAMA",
        "LOG4J",
        "MD",
        "MPL",
        "NIST",
        "OSV",
        "P",
        "PEP",
        "PKCS",
        "PR",
        "PY",
        "PYTHON",
        "QWEN",
        "RC",
        "RFC",
        "RHEL",
        "RSA",
        "RTX",
        "SCRAM",
        "SHA",
        "SHA3",
        "SNAPSHOT",
        "SSL",
        "TLS",
        "UINT",
        "UTC",
        "UTF",
        "UUID",
        "V",
        "WINDOWS",
        "X",
        "X86",
    ]
)
"""What looks like a project and is not."""


class Found(msgspec.Struct, frozen=True):
    """What a value names."""

    tickets: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    """What may be meant and is no evidence: `acme/shop#45` where the tracker does not know that number."""
    ignored: Reason | None = None
    """Why the whole value is no evidence: half of a wrong one would be a wrong one."""


class TicketKeys:
    """The rules of one installation, with what its tracker knows."""

    def __init__(
        self,
        projects: Iterable[str] = (),
        patterns: Iterable[str] = (),
        deny: Iterable[str] = (),
        tracker: Snapshot | None = None,
    ) -> None:
        self.tracker = Snapshot() if tracker is None else tracker
        self._projects = frozenset(projects)
        self._known = self._projects or frozenset(self.tracker.newest)
        """The allow-list; empty = none."""
        self._denied = DENIED | {name.upper() for name in deny}
        own = "|".join(f"(?:{pattern})" for pattern in patterns)
        self._own = re.compile(own) if own else None
        self._own_in_text = re.compile(rf"(?<![A-Za-z0-9])(?:{own})(?![A-Za-z0-9])") if own else None

    def named(self, value: str | None, repo: str | None = None) -> Found:
        """The tickets that a value states: `PAY-1`, `acme/shop#45`, `#45` of `repo`, the address of one, or several
        with commas. A tracker's pull request stands for its tickets."""
        if not value:
            return Found()
        if len(value) > VALUE_MAX:
            return Found(ignored="too_long")
        parts = [part.strip() for part in value.split(",")]
        if len(parts) > TICKETS_MAX:
            return Found(ignored="too_many")
        tickets: list[str] = []
        unsure: list[str] = []
        for part in parts:
            found = self._stated(part, repo)
            if found.ignored is not None:
                return found
            tickets += found.tickets
            unsure += found.candidates
        if unsure:
            return Found(candidates=_unique([*tickets, *unsure]))
        return Found(_unique(tickets))

    def in_branch(self, branch: str | None, repo: str | None = None) -> Found:
        """The tickets that a branch is named after; else those of its open pull request. A number without a project
        is a candidate: it may be an issue's, or not."""
        if not branch or branch in SHARED_BRANCHES:
            return Found()
        of_pull = self.tracker.branches.get(repo or "", {}).get(branch, ())
        tickets = _unique(self._in_branch(branch))
        if len(tickets) > TICKETS_MAX:
            return Found(ignored="too_many")
        unsure = [f"{repo}#{number}" for number in NUMBER_IN_BRANCH.findall(branch)] if repo else []
        if not tickets:
            return Found(tuple(of_pull), tuple(unsure))
        return Found(tickets, tuple(ticket for ticket in of_pull if ticket not in tickets))

    def of_commit(self, commit_sha: str | None) -> Found:
        """The tickets of the open pull request that a commit belongs to. What the commit's own message names was the
        work before this call."""
        return Found(self.tracker.commits.get(commit_sha or "", ()))

    def in_text(self, text: str) -> tuple[str, ...]:
        """The tickets that a title or a commit message mentions."""
        return _unique(self._in_text(text))

    # -- one part, one match ------------------------------------------------------------------------------------------

    def _stated(self, part: str, repo: str | None) -> Found:
        for url in URLS:
            if at := url.fullmatch(part):
                parts = at.groupdict()
                part = parts.get("key") or f"{parts['repo']}#{parts['number']}"
                break
        if self._own is not None and self._own.fullmatch(part):
            return Found((part,))
        if key := KEY.fullmatch(part):
            project = key[1] if key[1] in self._known else key[1].upper()
            if project != key[1] and project not in self._known:
                return Found(ignored="malformed")  # lower case can only be told with an allow-list
            return self._judged(f"{project}-{key[2]}", project)
        if issue := ISSUE.fullmatch(part):
            return self._judged(part, issue[1])
        if (number := NUMBER.fullmatch(part)) and repo:
            ticket = repo + number[0]
            found = self._judged(ticket, repo)
            is_known = self._present(ticket) in self.tracker.tickets or ticket in self.tracker.pulls
            return found if is_known or found.ignored else Found(candidates=(ticket,))
        return Found(ignored="malformed")

    def _judged(self, ticket: str, project: str) -> Found:
        if self._projects and project not in self._projects:
            return Found(ignored="other_project")
        if project in self._denied and project not in self._known:
            return Found(ignored="denied")
        if ticket not in self.tracker.tickets and (of_pull := self.tracker.pulls.get(ticket)):
            return Found(of_pull)
        return Found((self._present(ticket),))

    def _present(self, ticket: str) -> str:
        """A moved ticket's id of today."""
        return self.tracker.aliases.get(ticket, ticket)

    def _in_branch(self, branch: str) -> Iterator[str]:
        yield from self._own_keys(branch)
        if not self._known:
            for project, number in UNLISTED_IN_BRANCH.findall(branch):
                if project not in self._denied:
                    yield f"{project}-{number}"
            return
        yield from self._listed(IN_TEXT, branch)
        for ticket in self._listed(AT_SEGMENT, branch.upper()):
            # Lower case is weaker: where the tracker can tell, it has to know the ticket.
            if ticket in branch or self.tracker.state(ticket) != "unknown":
                yield ticket

    def _in_text(self, text: str) -> Iterator[str]:
        yield from self._own_keys(text)
        if not self._known:
            for project, number in UNLISTED_IN_TEXT.findall(text):
                if project not in self._denied:
                    yield f"{project}-{number}"
            return
        yield from self._listed(IN_TEXT, text)
        for repo, number in ISSUE_IN_TEXT.findall(text):
            if repo in self._known:
                yield self._present(f"{repo}#{number}")

    def _own_keys(self, text: str) -> Iterator[str]:
        if self._own_in_text is not None:
            yield from (found[0] for found in self._own_in_text.finditer(text))

    def _listed(self, pattern: re.Pattern[str], text: str) -> Iterator[str]:
        """Keys of known projects: also of `PAY` in `FIX_PAY-1`."""
        for name, number in pattern.findall(text):
            parts = name.split("_")
            for start in range(len(parts)):
                project = "_".join(parts[start:])
                if project in self._known:
                    yield self._present(f"{project}-{number}")
                    break


def _unique(tickets: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tickets))
