"""Attribution: which ticket and task a call belongs to, and how we know. The strongest evidence wins, the rest is kept.

Order of trust: key, header, path, metadata. A value that is no ticket is ignored, never guessed at.
"""

import re
from collections.abc import Mapping
from typing import cast

from gateway.call import Ask, Attribution, Principal, TaskSource, TicketSource
from gateway.config import TicketSettings
from gateway.errors import Refusal

KEY = re.compile(r"([A-Z][A-Z0-9_]{1,31})-[1-9][0-9]{0,9}", re.ASCII)
ISSUE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100})#[1-9][0-9]{0,9}", re.ASCII)
TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}", re.ASCII)
TICKETS_MAX = 20
PLAIN = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
FIELD_MAX = 1024
"""A ticket header longer than this is ignored whole."""


def parse(value: str | None, settings: TicketSettings) -> tuple[str, ...]:
    """The tickets in a header-like value (`PAY-1`, `acme/shop#45`, several with commas), without repeats.

    Empty when any part is no ticket of a known project: half of a wrong value is not evidence.
    """
    if not value or len(value) > FIELD_MAX:
        return ()
    found: dict[str, None] = {}
    for part in value.split(","):
        match = KEY.fullmatch(part.strip()) or ISSUE.fullmatch(part.strip())
        if match is None or (settings.projects and match[1] not in settings.projects):
            return ()
        found[match[0]] = None
    return tuple(found) if len(found) <= TICKETS_MAX else ()


def plain(value: str | None) -> str | None:
    """A repository or branch name from a header: printable, without spaces, bounded. Else `None`."""
    return value if value and PLAIN.fullmatch(value) else None


def attribute(
    settings: TicketSettings,
    principal: Principal,
    headers: Mapping[str, str],
    path_ticket: str | None,
    path_task: str | None,
    ask: Ask,
    session_id: str | None,
) -> Attribution:
    """Weigh the evidence."""
    evidence = (
        ("key", parse(principal.ticket, settings)),
        ("header", parse(headers.get("x-outlay-ticket"), settings)),
        ("path", parse(path_ticket, settings)),
        ("metadata", parse(ask.ticket, settings)),
    )
    named = [(cast(TicketSource, source), tickets) for source, tickets in evidence if tickets]
    task_id, task_source = _task(headers, path_task, session_id)
    if not named:
        return Attribution(task_id=task_id, task_source=task_source)
    source, tickets = named[0]
    weaker = tuple(f"{other}:{t}" for other, others in named[1:] if others != tickets for t in others)
    return Attribution(tickets, source, "unchecked", weaker, task_id, task_source)


def demand(settings: TicketSettings, client: str | None) -> None:
    """Raises the refusal `ticket_required` when policy demands a ticket. Call when none was found."""
    if settings.policy == "required":
        raise Refusal("ticket_required", _how_to_give_a_ticket(client))


def _task(headers: Mapping[str, str], path_task: str | None, session_id: str | None) -> tuple[str | None, TaskSource]:
    candidates: tuple[tuple[TaskSource, str | None], ...] = (
        ("header", headers.get("x-outlay-task")),
        ("path", path_task),
        ("session", session_id),
    )
    for source, value in candidates:
        if value and TASK.fullmatch(value):
            return value, source
    return None, "none"


def _how_to_give_a_ticket(client: str | None) -> str:
    by_tool = {
        "claude-code": "ANTHROPIC_CUSTOM_HEADERS='x-outlay-ticket: PAY-123'",
        "codex": 'http_headers = { "x-outlay-ticket" = "PAY-123" } in its model provider',
        "gemini-cli": "GEMINI_CLI_CUSTOM_HEADERS='x-outlay-ticket: PAY-123'",
    }
    how = by_tool.get(client or "", "the header x-outlay-ticket: PAY-123")
    return f"Outlay: calls need a ticket here. Set {how}, or put /t/PAY-123 before the path of the base URL."
