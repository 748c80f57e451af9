"""Linear, over its GraphQL API: issues with the history of their states, and the pull requests attached to them.

First what its payloads say, as rows: pure. Then how they are read: `Linear`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Self

import httpx

from analytics import work
from analytics.sources.http import Api, Patience
from analytics.sources.links import PULL_ADDRESS
from analytics.sources.pages import Page
from analytics.sources.source import Batch, Part, SourceError, Tickets, moment, name, row
from analytics.sources.statuses import Category, Change, course, rows
from gateway.config import WorkSettings, secret
from gateway.errors import UserError
from gateway.reading import amount, child, items, text, whole_number
from gateway.ticket_keys import TicketKeys

TITLE_MAX = 1024
CATEGORIES: Mapping[str, Category] = {
    **dict.fromkeys(("triage", "backlog", "unstarted"), "todo"),
    **dict.fromkeys(("completed", "canceled", "duplicate"), "done"),
}
"""By type of state. One that is `started`, or that nobody knows yet, is in progress."""
GIVEN_UP = ("canceled", "duplicate")

STATE = "{ name type }"
HISTORY = f"""nodes {{ createdAt actor {{ id email }} fromState {STATE} toState {STATE} }}
  pageInfo {{ hasNextPage endCursor }}"""
ISSUE = f"""
  id identifier previousIdentifiers title url estimate trashed
  createdAt updatedAt startedAt completedAt canceledAt
  team {{ key }} state {STATE} parent {{ identifier }} creator {{ id email }} assignee {{ id email }}
  labels(first: 10) {{ nodes {{ name }} }}
  attachments(first: 10) {{ nodes {{ url }} }}
  history(first: 20, includeArchived: true) {{ {HISTORY} }}
"""
ISSUES = f"""query ($team: String!, $since: DateTimeOrDuration, $first: Int!, $after: String) {{
  issues(filter: {{ team: {{ key: {{ eq: $team }} }}, updatedAt: {{ gt: $since }} }}, first: $first, after: $after,
    orderBy: createdAt, includeArchived: true) {{ nodes {{ {ISSUE} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
