"""Ticket keys in what people write: in values that state a ticket, in branch names, in text.

`PAY-123`, `acme/shop#45`, and what an installation's own patterns say. A value states its tickets; branches and text
are searched, by an allow-list (projects set here or known from the tracker), or without one for upper-case keys whose
project is not on the deny list. Rules and deny list were measured on public histories: docs/attribution.md.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from gateway.tracker import Snapshot, split

Reason = Literal["too_long", "too_many", "malformed", "other_project"]
"""Why a value that should name tickets is ignored."""

VALUE_MAX = 1024
TICKET_MAX = 255
TICKETS_MAX = 20
PULLS_MAX = 3
"""Pull requests that are followed from one to the next."""
NUMBER = r"([1-9][0-9]{0,6})"
KEY = re.compile(rf"([A-Za-z][A-Za-z0-9_]{{0,31}})-{NUMBER}")
REPO = r"[A-Za-z0-9][A-Za-z0-9-]{0,38}(?:/[A-Za-z0-9._-]{1,100}){1,5}"
ISSUE = re.compile(rf"({REPO})#{NUMBER}")
LONE_NUMBER = re.compile(rf"#{NUMBER}")
URLS = (
    re.compile(r"https?://[^/\s]+(?:/[^\s?#]*)?/browse/(?P<key>[A-Z][A-Z0-9_]*-[0-9]+)(?:[?#]\S*)?"),
    re.compile(r"https?://linear\.app/[^/\s]+/issue/(?P<key>[A-Z][A-Z0-9_]*-[0-9]+)(?:[/?#]\S*)?"),
    re.compile(r"https?://[^/\s]+/(?P<repo>[\w.-]+(?:/[\w.-]+)+?)(?:/-)?/issues/(?P<number>[0-9]+)(?:[/?#]\S*)?"),
)

ALONE = r"(?<![^\W_])"
"""Not behind a letter or digit of any script."""
IN_TEXT = re.compile(rf"{ALONE}([A-Z][A-Z0-9_]{{0,31}})-{NUMBER}(?!\d)")
ISSUE_IN_TEXT = re.compile(rf"(?<![\w./-]){ISSUE.pattern}(?!\d)")
AT_SEGMENT = re.compile(rf"(?:^|[/_])([A-Z][A-Z0-9_]{{0,31}})-{NUMBER}(?!\d)")
UNLISTED_IN_TEXT = re.compile(rf"(?<![\w./-])([A-Z][A-Z0-9_]{{1,9}})-{NUMBER}(?!\w|-[0-9]|\.[0-9])")
UNLISTED_IN_BRANCH = re.compile(rf"(?:^|[/_]|(?<=[0-9])-)([A-Z][A-Z0-9]{{1,9}})-{NUMBER}(?![^\W_]|-[0-9]|\.[0-9])")
NUMBER_IN_BRANCH = re.compile(rf"(?:^|/)(?:issues?[-_/]|gh-|#)?{NUMBER}(?=[-_/]|$)", re.IGNORECASE)
SHARED_BRANCHES = frozenset({"main", "master", "dev", "develop", "development", "staging", "trunk", "HEAD"})
"""Branches that belong to no ticket, whatever is merged into them."""

DENIED = {
    *("AES", "AMD", "ANSI", "ARM", "BASE", "BF", "BLAKE", "CLAUDE", "COVID", "CP", "CRC", "CVE", "CWE", "ECMA", "ED"),
    *("EUC", "FIPS", "FP", "GEMINI", "GHSA", "GLM", "GMT", "GPL", "GPT", "GROK", "H", "HMAC", "HTTP", "IEEE", "INT"),
    *("IO", "ISO", "ISSUE", "IU", "JDK", "JEP", "JSR", "KOI", "LATIN", "LLAMA", "LOG4J", "MD", "MPL", "NIST", "OSV"),
    *("P", "PEP", "PKCS", "PR", "PY", "PYTHON", "QWEN", "RC", "RFC", "RHEL", "RSA", "RTX", "SCRAM", "SHA", "SNAPSHOT"),
    *("SSL", "TLS", "UINT", "UTC", "UTF", "UUID", "V", "WINDOWS", "X", "X86"),
}
"""What looks like a project and is not, also with digits behind it."""


class Found(msgspec.Struct, frozen=True):
    """What a value names."""

    tickets: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    """What may be meant and is no evidence: `acme/shop#45` where the tracker does not know that number."""
    ignored: Reason | None = None
    """Why the whole value is no evidence: half of a wrong one would be a wrong one."""

    @property
    def says_nothing(self) -> bool:
        return not (self.tickets or self.candidates or self.ignored)


NOTHING = Found()
SEEN_MAX, SEEN_CHARS_MAX = 10_000, 512
"""So many values are remembered, and none that is longer."""


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
        listed = self._projects or self.tracker.projects
        moved = {split(alias)[0] for alias in self.tracker.aliases} if listed and not self._projects else set()
        self._known = frozenset(name for name in {*listed, *moved} if "/" not in name)
        """The allow-list of keys; empty = none."""
        self._repos = {name.lower(): name for name in self._projects or self.tracker.newest if "/" in name}
        """Known repositories by their name in lower case: forges take any."""
        self._denied = DENIED | {name.upper() for name in deny}
        self._own = [re.compile(pattern, re.ASCII) for pattern in patterns]
        self._seen: dict[tuple[str, str, str | None], Found] = {}
        """What was found in values and branches, by the kind of place: calls repeat them."""

    def named(self, value: str | None, repo: str | None = None) -> Found:
        """The tickets that a value states: `PAY-1`, `acme/shop#45`, `#45` of `repo`, the address of one, or several
        with commas. A tracker's pull request stands for its tickets."""
        return self._remembered("value", value, repo, self._named) if value else NOTHING

    def in_branch(self, branch: str, repo: str | None = None) -> Found:
        """The tickets that a branch is named after; else those of its open pull request. A number without a project
        is a candidate: it may be an issue's, or not."""
        return self._remembered("branch", branch, repo, self._of_branch)

    def _remembered(self, kind: str, text: str, repo: str | None, find: Callable[[str, str | None], Found]) -> Found:
        key = kind, text, repo
        if (found := self._seen.get(key)) is None:
            found = find(text, repo)
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            if len(text) <= SEEN_CHARS_MAX:
                self._seen[key] = found
        return found

    def _named(self, value: str, repo: str | None) -> Found:
        if len(value) > VALUE_MAX:
            return Found(ignored="too_long")
        parts = [part.strip(" \t") for part in value.split(",")]
        return self._all_of([self._stated(part, repo) for part in parts[: TICKETS_MAX + 1]])

    def _of_branch(self, branch: str, repo: str | None) -> Found:
        if branch in SHARED_BRANCHES:
            return Found()
        found = self._all_of([Found(tuple(self._in_branch(branch)))])
        of_pull = self._all_of([self._judged(t) for t in self.tracker.branches.get(repo or "", {}).get(branch, ())])
        if found.tickets:
            return Found(found.tickets, tuple(ticket for ticket in of_pull.tickets if ticket not in found.tickets))
        unsure = [f"{repo}#{number}" for number in NUMBER_IN_BRANCH.findall(branch)] if repo else []
        return Found(of_pull.tickets, tuple(unsure), found.ignored or of_pull.ignored)

    def of_commit(self, commit_sha: str | None) -> Found:
        """The tickets of the open pull request that a commit belongs to. What the commit's own message names was the
        work before this call."""
        return self._all_of([self._judged(ticket) for ticket in self.tracker.commits.get(commit_sha or "", ())])

    def in_text(self, text: str) -> tuple[str, ...]:
        """The tickets that a title or a commit message mentions."""
        found = [*self._own_keys(text), *self._listed(IN_TEXT, text)]
        if not self._known:
            found += self._unlisted(UNLISTED_IN_TEXT, text)
        for repo, number in ISSUE_IN_TEXT.findall(text):
            if known := self._repos.get(repo.lower()):
                found.append(self._present(f"{known}#{number}"))
        return _unique(found)

    # -- one part, one match ------------------------------------------------------------------------------------------

    def _all_of(self, parts: list[Found]) -> Found:
        """What several parts name together: nothing where one of them is wrong, candidates where one is unsure."""
        wrong = next((part.ignored for part in parts if part.ignored is not None), None)
        tickets = _unique(ticket for part in parts for ticket in part.tickets)
        if wrong is None and max(len(parts), len(tickets)) > TICKETS_MAX:
            wrong = "too_many"
        if wrong is not None:
            return Found(ignored=wrong)
        unsure = [candidate for part in parts for candidate in part.candidates]
        return Found(candidates=_unique([*tickets, *unsure])) if unsure else Found(tickets)

    def _stated(self, part: str, repo: str | None) -> Found:
        part = of_address(part) or part
        if any(pattern.fullmatch(part) for pattern in self._own):
            return Found((part,)) if _is_plain(part) else Found(ignored="malformed")
        if key := KEY.fullmatch(part):
            if key[1].isupper() or key[1].upper() in self._known:
                return self._judged(f"{key[1].upper()}-{key[2]}")
            return Found(ignored="malformed")  # lower case can only be told with an allow-list
        if ISSUE.fullmatch(part):
            return self._judged(part)
        if (number := LONE_NUMBER.fullmatch(part)) and repo:
            ticket = self._spelled(repo + number[0])
            found = self._judged(ticket)
            is_known = self._present(ticket) in self.tracker.tickets or ticket in self.tracker.pulls
            return found if is_known or found.ignored else Found(candidates=(ticket,))
        return Found(ignored="malformed")

    def _judged(self, ticket: str, named_by: tuple[str, ...] = ()) -> Found:
        """A ticket as the tracker has it; a pull request stands for its tickets, and may have none. Pull requests may
        name each other (`named_by`), which leads nowhere."""
        ticket = self._spelled(ticket)
        project = split(ticket)[0]
        if self._projects and not self._is_listed(project) and not any(own.fullmatch(ticket) for own in self._own):
            return Found(ignored="other_project")
        if ticket in self.tracker.tickets or ticket not in self.tracker.pulls:
            return Found((self._present(ticket),))
        path = (*named_by, ticket)
        of_pull = [each for each in self.tracker.pulls[ticket] if each not in path]
        if not of_pull or len(path) > PULLS_MAX:
            return Found((), (ticket,))
        return self._all_of([self._judged(each, path) for each in of_pull])

    def _is_listed(self, project: str) -> bool:
        return project in self._known or project.lower() in self._repos

    def _spelled(self, ticket: str) -> str:
        """The same with its repository as it is known here."""
        repo, _, number = ticket.rpartition("#")
        return f"{self._repos.get(repo.lower(), repo)}#{number}" if repo else ticket

    def _present(self, ticket: str) -> str:
        """A moved ticket's id of today."""
        return self.tracker.aliases.get(ticket, ticket)

    def _in_branch(self, branch: str) -> Iterator[str]:
        yield from self._own_keys(branch)
        if not self._known:
            yield from self._unlisted(UNLISTED_IN_BRANCH, branch)
            return
        yield from self._listed(IN_TEXT, branch)
        for ticket in self._listed(AT_SEGMENT, _upper(branch)):
            # Lower case is weaker: where the tracker can tell, it has to know the ticket.
            if ticket in branch or self.tracker.state(ticket) != "unknown":
                yield ticket

    def _own_keys(self, text: str) -> Iterator[str]:
        for pattern in self._own:
            for found in pattern.finditer(text):
                beside = text[max(found.start() - 1, 0) : found.start()] + text[found.end() : found.end() + 1]
                if _is_plain(found[0]) and not any(map(str.isalnum, beside)):
                    yield found[0]

    def _unlisted(self, pattern: re.Pattern[str], text: str) -> Iterator[str]:
        for project, number in pattern.findall(text):
            if self._denied.isdisjoint((project, project.rstrip("0123456789"))):
                yield f"{project}-{number}"

    def _listed(self, pattern: re.Pattern[str], text: str) -> Iterator[str]:
        """Keys of known projects: also of `PAY` in `FIX_PAY-1`."""
        for name, number in pattern.findall(text):
            parts = name.split("_")
            for start in range(len(parts)):
                project = "_".join(parts[start:])
                if project in self._known:
                    yield self._present(f"{project}-{number}")
                    break


def of_address(text: str) -> str | None:
    """The ticket whose page this is: `PAY-7`, `acme/shop#45`. `None` for anything else."""
    for url in URLS:
        if at := url.fullmatch(text):
            parts = at.groupdict()
            return parts.get("key") or f"{parts['repo']}#{parts['number']}"
    return None


def _unique(tickets: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tickets))


def _upper(text: str) -> str:
    """ASCII letters alone: other scripts have letters that become ASCII ones."""
    return text.translate(UPPER)


UPPER = {lower: lower - 32 for lower in range(ord("a"), ord("z") + 1)}


def _is_plain(ticket: str) -> bool:
    return (
        ticket.isascii()
        and ticket.isprintable()
        and " " not in ticket
        and "," not in ticket
        and len(ticket) <= TICKET_MAX
    )
