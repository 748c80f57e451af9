"""GitLab, over its REST API (v4): issues, merge requests and what belongs to them, deployments.

First what its payloads say, as rows: pure. Then how they are read: `GitLab`.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any

from analytics import work
from analytics.sources.source import moment, name, row
from analytics.sources.statuses import Change, course
from gateway.reading import amount, child, items, text

TITLE_MAX = 1024
STARTED = frozenset({"doing", "in progress", "in dev", "in development", "in review", "started", "wip"})
"""Labels that say that work goes on, also behind a scope: `workflow::in dev`."""
MACHINE = re.compile(r"(?:project|group)_\d+_bot\w*", re.ASCII)
EPIC = re.compile(r"(?:https?://[^/\s]+)?/groups/(?P<group>[\w./-]+?)/-/epics/(?P<number>\d+)", re.ASCII)


def path_of(item: Any) -> str:
    """`acme/shop` of an issue's or a merge request's full reference. Its project may have been renamed since."""
    return re.split("[#!]", reference(item))[0]


def reference(item: Any) -> str:
    """`acme/shop#45`, `acme/shop!45`. Raises `ValueError` when it has none."""
    if full := text(child(item, "references").get("full")):
        return full
    raise ValueError("references.full is missing")


def login(person: Any) -> str | None:
    return name(child(person).get("username"))


# -- issues ------------------------------------------------------------------------------------------------------------


def ticket(
    item: Any, history: Iterable[Change], not_delivered: Collection[str], aliases: Collection[str]
) -> work.Ticket:
    """Of an issue. `not_delivered`: words for work that was given up, in lower case; aliases are as known elsewhere."""
    labels = [found for label in items(child(item).get("labels")) if (found := name(label))]
    is_done = item.get("state") == "closed"
    path, went = path_of(item), course(history)
    return row(
        work.Ticket,
        ticket_id=reference(item),
        source="gitlab",
        project=path,
        type=type_of(item, labels),
        title=text(item.get("title"), TITLE_MAX),
        status=name(item.get("state")),
        status_category=category(item),
        resolution=resolution(item, labels, not_delivered) if is_done else None,
        estimate=estimate(item),
        parent_id=parent(item),
        labels=labels,
        created_at=moment(item.get("created_at")),
        started_at=went.started_at,
        done_at=moment(item.get("closed_at")) if is_done else None,
        reopened_count=went.reopened_count,
        creator=login(item.get("author")),
        assignee=next(map(login, items(item.get("assignees"))), login(item.get("assignee"))),
        closer=login(item.get("closed_by")) or went.closer if is_done else None,
        updated_at=moment(item.get("updated_at")),
        url=text(item.get("web_url"), TITLE_MAX),
        aliases=sorted({*aliases} - {reference(item)}),
    )
