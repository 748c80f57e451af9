"""What pull requests and commits say: which tickets they are for, which pull request a commit is, what they take back.

Used by all sources of work, so that links mean the same wherever they are from. Text is read as it is written: `#45`
is `acme/shop#45`, and whether that is a ticket or a pull request is looked up by the models, where late facts count,
too. Nothing raises, and the time is linear in the length of the text.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

from analytics import work
from gateway.ticket_keys import ISSUE, NUMBER, NUMBER_IN_BRANCH, REPO, SHARED_BRANCHES, TicketKeys, of_address

LinkSource = Literal["tracker", "title", "branch", "body_close", "commit", "body_mention"]
RevertKind = Literal["sha", "pr", "title", "ticket"]

ADDRESS = re.compile(r"https?://[^\s<>()\[\]{}\"'`|\\]{1,2000}")
REFERENCE = rf"(?:(?P<repo>{REPO})?#|GH-)(?P<number>{NUMBER})(?!\w)"
"""`#45`, `acme/shop#45`, `GH-45`."""
MENTIONED = re.compile(rf"(?<![\w./&#-]){REFERENCE}")
CLOSING = re.compile(
    r"(?<![\w-])(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?[ \t]{1,20}"
    rf"(?:{REFERENCE}|(?P<key>[A-Z]\w{{0,31}}-{NUMBER})(?!\w))",
    re.IGNORECASE,
)
"""Each number needs a word of its own."""
MERGE = re.compile(r"Merge(?:d| (?:branch|pull request|remote-tracking branch|tag|commit|branches))\b")

SUBJECT_MAX = 1024
SUFFIX = re.compile(rf"[ \t]*\(#{NUMBER}\)$")
"""Of the commit that a pull request was squashed to."""
PULL_OF = (
    re.compile(rf"Merge pull request #{NUMBER} (?:from|in) "),
    re.compile(rf"Merged in \S+ \(pull request #{NUMBER}\)"),
    re.compile(rf"Merged PR {NUMBER}: "),
    re.compile(rf"Pull request #{NUMBER}: "),
)
"""GitHub, Bitbucket, Azure DevOps, Bitbucket Server."""
MERGE_REQUEST = re.compile(rf"^See merge request \S{{0,255}}!{NUMBER}$", re.MULTILINE)

LAYER = re.compile(r"(?:(revert(?:s|ed|ing)?)|(?:reappl(?:y|ies)|re-?lands?|re-?landed))\b:?[ \t]*(.*)", re.IGNORECASE)
PREFIX = re.compile(r"(?:\[[^\[\]]{1,60}\]|[A-Z][A-Z0-9_]{0,31}-[0-9]{1,7})(?:[ \t]*:)?[ \t]+")
"""What stands before the word: `PAY-7:`, `[backport]`."""
QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}
LAYERS_MAX = 10
TAKES_BACK = re.compile(
    r"^(?:this[ \t]+)?(?:partial(?:ly)?[ \t]+)?"
    r"(?P<word>revert(?:s|ed|ing)?|reappl(?:y|ies)|re-?lands?)[ \t]+"
    r"(?:(?:commits?|merge requests?|pull requests?|changes?|PRs?|MRs?)[ \t:]+)?(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
WRITTEN = re.compile(rf"This reverts (?:commits?|merge requests?) |Reverts {REPO}#", re.IGNORECASE)
"""By git, GitHub and GitLab. In other words, only text whose title is that of a revert says what it takes back."""
TAKEN_BACK = re.compile(rf"(?P<sha>[0-9a-f]{{7,64}})(?![\w/])|(?P<repo>{REPO})?[#!](?P<number>{NUMBER})(?!\w)")
PULL_ADDRESS = re.compile(
    rf"https?://[^/\s]{{1,255}}/(?P<repo>[\w.-]+(?:/[\w.-]+){{1,5}}?)(?:/-)?/(?:pull|pulls|merge_requests)/(?P<number>{NUMBER})\b"
)
COMMIT_ADDRESS = re.compile(r"https?://[^/\s]{1,255}/[\w./-]{1,500}/commits?/([0-9a-f]{7,64})\b")
AND = re.compile(r"[ \t]{0,10}(?:,|&|\band\b)[ \t]{0,10}(?:and[ \t]{1,10})?(?:commit[ \t]{1,10})?")
CONTROL = re.compile(r"[\x00-\x20\x7f]+")


# -- links -------------------------------------------------------------------------------------------------------------


def links_of(
    pull: work.PullRequest,
    keys: TicketKeys,
    *,
    body: str = "",
    messages: Iterable[str] = (),
    tracker: Iterable[str] = (),
    closes: bool = True,
) -> list[work.PrTicket]:
    """The tickets that a pull request is for, each with every place that says so, the best founded first.

    `messages` are those of its commits, `tracker` the tickets that a tracker links it to: keys, `acme/shop#45`, `#45`,
    addresses. `closes`: it is to be merged into the default branch; elsewhere forges take closing words for mentions.
    """
    found: dict[tuple[LinkSource, str], None] = {}

    def note(source: LinkSource, tickets: Iterable[str]) -> None:
        found.update(((source, ticket), None) for ticket in tickets)

    said = _Said(pull, keys)
    for each in tracker:
        note("tracker", said.linked(each))
    if pull.head_branch and pull.head_branch not in SHARED_BRANCHES:
        # Without the repository: what a tracker says of a branch is this link.
        note("branch", keys.in_branch(pull.head_branch).tickets)
        numbers = NUMBER_IN_BRANCH.findall(pull.head_branch)
        note("body_mention", filter(None, (said.issue(None, number) for number in numbers)))
    own = [message for message in messages if not MERGE.match(message)]  # what was merged in is another's
    texts: list[tuple[LinkSource, str]] = [("title", pull.title or ""), *(("commit", message) for message in own)]
    for source, text in texts:
        close, mention = said.closed_and_mentioned(_written(text))
        named = [ticket for ticket in mention if "#" not in ticket]
        note(source, named)
        note(source if closes else "body_mention", close)
        note("body_mention", (ticket for ticket in mention if "#" in ticket and ticket not in close))
    close, mention = said.closed_and_mentioned(_written(_visible(body)))
    note("body_close" if closes else "body_mention", close)
    note("body_mention", (ticket for ticket in mention if ticket not in close))
    order = {source: place for place, source in enumerate(work.TABLES["pr_tickets"].choices("source"))}
    ordered = sorted(found, key=lambda link: order[link[0]])
    return [work.PrTicket(pr_id=pull.pr_id, ticket_id=ticket, source=source) for source, ticket in ordered]


class _Said:
    """References in what is said about one pull request."""

    def __init__(self, pull: work.PullRequest, keys: TicketKeys) -> None:
        self._repo, self._keys = pull.repo, keys
        apart = "/merge_requests/" in (pull.url or "")
        self._self = None if apart else f"{pull.repo}#{pull.number}"
        """Itself, where pull requests and tickets share their numbers."""

    def linked(self, text: str) -> Iterator[str]:
        """The ticket that a tracker's link names."""
        text = of_address(text.strip()) or text.strip()
        if not (reference := MENTIONED.fullmatch(text)):
            yield from self._keys.named(text).tickets
        elif self._keys.named(text, self._repo).ignored is None:
            repo, number = reference["repo"], reference["number"]
            yield self.issue(repo, number) or f"{repo or self._repo}#{number}"

    def closed_and_mentioned(self, text: str) -> tuple[list[str], list[str]]:
        close: list[str] = []
        for at in CLOSING.finditer(text):
            issue = None if at["key"] else self.issue(at["repo"], at["number"])
            close += self._keys.in_text(at["key"]) if at["key"] else filter(None, [issue])
        numbers = (self.issue(at["repo"], at["number"]) for at in MENTIONED.finditer(text))
        keyed = (ticket for ticket in self._keys.in_text(text) if not ISSUE.fullmatch(ticket))
        return close, [*keyed, *filter(None, numbers)]

    def issue(self, repo: str | None, number: str) -> str | None:
        """`acme/shop#45` of this repository or another known one; `None` of others, and of the pull request itself."""
        ticket = f"{repo or self._repo}#{number}"
        if self._self is not None and ticket.lower() == self._self.lower():
            return None
        if known := self._keys.in_text(ticket):
            return known[0]
        is_own = repo is None or repo.lower() == self._repo.lower()
        return f"{self._repo}#{number}" if is_own and self._keys.named(ticket).ignored is None else None


def _written(text: str) -> str:
    """The same with keys for the addresses of tickets."""
    return ADDRESS.sub(lambda at: f" {of_address(at[0].rstrip('.,;:!?*_~')) or at[0]} ", text)


def _visible(body: str) -> str:
    """Without comments, which templates are full of, and code."""
    parts, start = [], 0
    while (begin := body.find("<!--", start)) >= 0:
        parts.append(body[start:begin])
        end = body.find("-->", begin + 4)
        if end < 0:
            start = len(body)
            break
        start = end + 3
    lines, fence = [], ""
    for line in "".join([*parts, body[start:]]).splitlines():
        mark = line.lstrip()[:3]
        if fence or mark in ("```", "~~~"):
            fence = "" if fence == mark else fence or mark
        else:
            lines.append(re.sub(r"`[^`]*`", " ", line))
    return "\n".join(lines)


# -- commits -----------------------------------------------------------------------------------------------------------


def pull_of(message: str) -> int | None:
    """The number of the pull request that a commit of the default branch merged, or was squashed from."""
    subject = subject_of(message)
    for pattern in PULL_OF:
        if at := pattern.match(subject):
            return int(at[1])
    if at := SUFFIX.search(subject):
        return int(at[1])
    if subject.startswith("Merge "):
        return next((int(at[1]) for at in MERGE_REQUEST.finditer(message)), None)
    return None


def subject_of(message: str) -> str:
    """The first line, printable, without blanks around it, bounded."""
    return _plain(message.lstrip().partition("\n")[0])[:SUBJECT_MAX]


def title_of(subject: str) -> str:
    """A title without the numbers of pull requests behind it."""
    while at := SUFFIX.search(subject):
        subject = subject[: at.start()]
    return subject


# -- reverts -----------------------------------------------------------------------------------------------------------


def reverts_of(
    reverting: str, repo: str, message: str, keys: TicketKeys, *, at: datetime | None = None
) -> list[work.Revert]:
    """What a commit's message, or a pull request's title and, after an empty line, its body, takes back or brings back.

    A sha or a number is what git or a forge wrote: where it is that of a revert, that one is taken back. A title is the
    innermost one: of `Revert "Revert "Pay""` it is `Pay`, brought back.
    """
    subject = subject_of(message)
    found: dict[tuple[RevertKind, str], bool] = {}
    title, is_reland, number = _unwrapped(subject)
    for kind, reference, lands in _taken_back(message, repo, is_titled=title is not None, is_reland=is_reland):
        found.setdefault((kind, reference), lands)
    if title is not None:
        if number:
            found.setdefault(("pr", f"{repo}!{number}"), is_reland)
        if title:
            found.setdefault(("title", title), is_reland)
        for ticket in keys.in_text(subject):
            found.setdefault(("ticket", ticket), is_reland)
    return [
        work.Revert(reverting=reverting, repo=repo, kind=kind, reference=reference, is_reland=lands, reverted_at=at)
        for (kind, reference), lands in found.items()
    ]


def _unwrapped(subject: str) -> tuple[str | None, bool, str | None]:
    """The innermost title of a revert, or `None`; whether it is brought back; the number of the pull request that the
    outermost word is about."""
    text = title_of(PREFIX.sub("", subject, count=1) if PREFIX.match(subject) else subject)
    number: str | None = None
    lands = True
    for depth in range(LAYERS_MAX):
        layer = LAYER.fullmatch(text)
        is_quoted = layer is not None and layer[2][:1] in QUOTES
        if layer is None or (depth and not is_quoted):
            break
        lands = lands != bool(layer[1])
        text = layer[2]
        if is_quoted:
            text = text[1:].removesuffix(QUOTES[text[0]])
        if depth == 0:
            suffix = SUFFIX.search(text)
            number = suffix[1] if suffix else None
        text = title_of(text)
    else:
        return None, False, None
    if depth == 0:
        return None, False, None
    return _plain(text)[:255].rstrip(), lands, number


def _taken_back(message: str, repo: str, *, is_titled: bool, is_reland: bool) -> Iterator[tuple[RevertKind, str, bool]]:
    """`This reverts commit 1a2b3c4d, 5e6f7a8b`, `Reverts acme/shop#12`, `This reverts merge request !12`. Lists,
    quotes, code and comments tell of what was taken back elsewhere, or would be."""
    title, end, body = message.lstrip().partition("\n")
    message = f"{title}{end}{_visible(body)}"
    for start in TAKES_BACK.finditer(message):
        if not (is_titled or WRITTEN.match(message, start.start())):
            continue
        lands = is_reland or not start["word"].lower().startswith("revert")
        place = start.end()
        while True:
            if address := COMMIT_ADDRESS.match(message, place):
                yield "sha", address[1], lands
            elif address := PULL_ADDRESS.match(message, place) or TAKEN_BACK.match(message, place):
                if "sha" in address.groupdict() and address["sha"]:
                    yield "sha", address["sha"], lands
                else:
                    yield "pr", f"{address['repo'] or repo}!{address['number']}", lands
            else:
                break
            following = AND.match(message, address.end())
            if following is None:
                break
            place = following.end()


def _plain(text: str) -> str:
    return CONTROL.sub(" ", text.encode(errors="replace").decode()).strip()
