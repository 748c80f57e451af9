"""Scopes: which calls a budget or a limit is about, written as `kind:value`, as in `team:payments`.

Pure. A call is in one scope of each kind that it has a value for; in one per ticket, and per project of its tickets.
"""

import fnmatch
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from gateway.call import Call
from gateway.errors import UserError

Kind = Literal["org", "team", "user", "key", "ticket", "task", "project", "model", "purpose"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EACH: dict[str, Kind] = {
    "each_ticket": "ticket", "each_task": "task", "each_user": "user", "each_key": "key", "each_team": "team",
}  # fmt: skip
"""Templates: every value of the kind has an account of its own."""
VALUE_MAX = 512


class Scope(NamedTuple):
    """`value` is `None` for a template; for `org`, which has no values, it is empty. It may be a glob (`claude-*`): all
    that match are one."""

    kind: Kind
    value: str | None

    def __str__(self) -> str:
        if self.value is None:
            return f"each_{self.kind}"
        return f"{self.kind}:{self.value}" if self.kind != "org" else "org"

    @property
    def is_glob(self) -> bool:
        return self.value is not None and any(letter in self.value for letter in "*?[")

    def matches(self, value: str) -> bool:
        return self.value is None or self.value == value or (self.is_glob and fnmatch.fnmatchcase(value, self.value))


def parse(text: str) -> Scope:
    """Raises `UserError` for what is no scope."""
    if text in EACH:
        return Scope(EACH[text], None)
    kind, colon, value = text.partition(":")
    if text == "org":
        return Scope("org", "")
    for known in KINDS[1:]:
        if known == kind and 0 < len(value) <= VALUE_MAX and value.isprintable():
            return Scope(known, value)
    names = ", ".join(f"{known}:NAME" for known in KINDS[1:])
    given = f"{text[:60]!r} is no scope" if not colon or kind not in KINDS else f"the scope {text[:60]!r} names nothing"
    raise UserError(f"{given}: write org, {names}, or {', '.join(EACH)}")


def project_of(ticket: str) -> str:
    """`PAY` of `PAY-123`, `acme/shop` of `acme/shop#45`; a ticket of another form is a project of its own."""
    for mark in ("#", "-"):
        project, found, number = ticket.rpartition(mark)
        if found and number.isdecimal():
            return project
    return ticket


class Part(NamedTuple):
    """A scope that a call is in, and how much of it: the tickets at these indices. Empty = the whole call."""

    kind: Kind
    value: str
    tickets: tuple[int, ...] = ()


def of(call: Call) -> Iterator[Part]:
    """All scopes of a call, widest first. A call of several tickets is in each of their scopes with its share."""
    yield Part("org", "")
    single: tuple[tuple[Kind, str | None], ...] = (
        ("team", call.team_id), ("user", call.user_id), ("key", call.key_id), ("purpose", call.purpose),
        ("model", call.request_model), ("task", call.task_id),
    )  # fmt: skip
    for kind, value in single:
        if value:
            yield Part(kind, value)
    if len(call.tickets) == 1:
        yield Part("project", project_of(call.tickets[0]))
        yield Part("ticket", call.tickets[0])
        return
    projects: dict[str, list[int]] = {}
    for index, ticket in enumerate(call.tickets):
        projects.setdefault(project_of(ticket), []).append(index)
    for project, indices in projects.items():
        yield Part("project", project, tuple(indices))
    for index, ticket in enumerate(call.tickets):
        yield Part("ticket", ticket, (index,))


def share(amount: int, tickets: tuple[int, ...], of_tickets: int) -> int:
    """What of an amount falls on some of a call's tickets: equal shares, and one nano-USD more for each of the first
    until nothing remains, as in the view `call_tickets`. The shares of all tickets sum to the amount."""
    if not tickets:
        return amount
    each, rest = divmod(abs(amount), of_tickets)
    part = each * len(tickets) + sum(ticket < rest for ticket in tickets)
    return part if amount >= 0 else -part  # what is taken back is what was given
