"""A small organisation at work: people with their tools, tasks of several turns, tickets given in the ways there are.

Everything goes over sockets to one base URL, the gateway's. Who is here is made up; nobody is ranked.
"""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import httpx

from analytics.simulated import tools
from analytics.simulated.conversation import BrokenOff, Human, Json, Model, Result, server_sent
from analytics.simulated.tools import Request, Session, Tool
from analytics.simulated.turns import prose

TicketBy = Literal["header", "path", "key", "branch", "metadata", "none"]
Outcome = Literal["answered", "failed", "broke off", "cancelled", "refused"]

ATTEMPTS = 3
RETRY_SECONDS_MAX = 2.0
CANCEL_RATE = 0.02
"""Share of streams that a person stops."""
SUBAGENT_RATE = 0.1
"""Share of tool calls that are handed to a subagent, where a tool has any."""


@dataclass(frozen=True)
class Person:
    """Somebody, or something, that calls, and how its calls come by their ticket."""

    user: str
    team: str
    tool: Tool
    ticket_by: TicketBy
    tickets: Sequence[str]
    repo: str
    purpose: str | None = None

    @property
    def key_ticket(self) -> str | None:
        """The ticket that the key is bound to."""
        return self.tickets[0] if self.ticket_by == "key" else None


def _tickets(project: str, first: int) -> tuple[str, ...]:
    return tuple(f"{project}-{number}" for number in range(first, first + 6))


PAY, SEARCH, OPS = _tickets("PAY", 123), _tickets("SRCH", 40), _tickets("OPS", 871)
PEOPLE = (
    Person("dev-1", "payments", tools.CLAUDE_CODE, "header", PAY, "acme/billing-core"),
    Person("dev-2", "payments", tools.CODEX, "header", PAY, "acme/billing-core"),
    Person("dev-3", "payments", tools.AIDER, "path", PAY, "acme/billing-core"),
    Person("dev-4", "search", tools.CLAUDE_CODE, "path", SEARCH, "acme/search"),
    Person("dev-5", "search", tools.GEMINI_CLI, "header", SEARCH, "acme/search"),
    Person("indexer", "search", tools.SCRIPT, "metadata", SEARCH, "acme/search", purpose="batch"),
    Person("dev-6", "platform", tools.OPENCODE, "none", OPS, "acme/platform"),
    Person("dev-7", "platform", tools.CLAUDE_CODE, "branch", OPS, "acme/platform"),
    Person("migration", "platform", tools.CODEX, "key", OPS, "acme/platform"),
    Person("ci", "platform", tools.GEMINI_CLI, "none", OPS, "acme/platform", purpose="ci"),
)


class Enough(Exception):  # noqa: N818 - names an event
    """The calls that were asked for are made."""


class GaveUp(Exception):  # noqa: N818 - names an event
    """A session ends before its work is done: the tool stopped trying, or the person stopped the tool."""


@dataclass
class Organisation:
    """Drives `people` against `base_url`, `at_once` sessions at a time.

    `keys` maps each person's user to a gateway key. `calls` is how many billable requests to make (`None`: until
    cancelled). `pause_seconds` is the mean time that a person thinks, or a tool runs, between two calls.
    """

    base_url: str
    keys: Mapping[str, str]
    people: Sequence[Person] = PEOPLE
    seed: int = 1
    calls: int | None = None
    at_once: int = 8
    pause_seconds: float = 0.0
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """Billable requests by tool and outcome, as the tools saw them."""
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self._next = itertools.count()
        self._begun = 0

    async def work(self) -> None:
        """Returns when `calls` are made and answered."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.at_once)
        async with httpx.AsyncClient(base_url=self.base_url, limits=limits, timeout=60.0) as self.http:
            await asyncio.gather(*(self._sessions() for _ in range(self.at_once)))

    async def _sessions(self) -> None:
        """One session after the other, each by the next person."""
        while True:
            number = next(self._next)
            person = self.people[number % len(self.people)]
            rng = random.Random(f"{self.seed}/{number}")  # noqa: S311
            try:
                await _Task(self, person, rng).run()
            except GaveUp:
                continue
            except Enough:
                return

    def take(self) -> None:
        """Count a billable request that is about to be made. Raises `Enough`."""
        if self.calls is not None and self._begun >= self.calls:
            raise Enough
        self._begun += 1

    async def pause(self, rng: random.Random) -> None:
        await asyncio.sleep(rng.expovariate(1.0) * self.pause_seconds)


class _Task:
    """One session of one person's tool."""

    def __init__(self, organisation: Organisation, person: Person, rng: random.Random) -> None:
        self._organisation = organisation
        self._person = person
        self._rng = rng
        self._ticket = person.key_ticket or rng.choice(person.tickets)
        branch = f"feature/{self._ticket}-fix-rounding" if person.ticket_by == "branch" else "main"
        self._session = Session.begin(rng, person.repo, branch)

    async def run(self) -> None:
        """A few things that the person asks for, each with as many tool calls as it takes. Raises `GaveUp`."""
        session, rng = self._session, self._rng
        for request_number in range(rng.randint(1, 3)):
            session.history.append(Human(prose(rng, rng.randint(20, 600))))
            if request_number == 0:
                for request in self._person.tool.aside(session):
                    await self._ask(request, hear=None)
            await self._agent(session, rng.randint(3, 15))

    async def _agent(self, session: Session, steps_max: int) -> None:
        tool, rng = self._person.tool, self._rng
        for _ in range(steps_max):
            said = await self._ask(tool.render(session), tool.api.hear)
            session.history.append(said)
            await self._organisation.pause(rng)
            if said.call is None:
                return
            if tool.spawns and session.agent_id is None and rng.random() < SUBAGENT_RATE:
                asked = Human(prose(rng, 80))
                subagent = replace(session, history=[asked], agent_id=f"{rng.getrandbits(64):016x}")
                await self._agent(subagent, 4)
            session.history.append(Result(said.call, prose(rng, int(min(rng.lognormvariate(5.5, 1.0), 3_000)))))

    async def _ask(self, request: Request, hear: Callable[[Sequence[Json]], Model] | None) -> Model:
        """Send a request, again when that fails. What `hear` makes of the answer; an empty one without it."""
        for attempt in range(ATTEMPTS):
            if request.billed:
                self._organisation.take()
            outcome, events, wait = await self._send(request)
            said = Model("")
            if outcome == "answered" and hear is not None:
                try:
                    said = hear(events)
                except BrokenOff:
                    outcome = "broke off"
            if request.billed:
                self._organisation.outcomes[self._person.tool.name, outcome] += 1
            if outcome == "answered":
                return said
            if outcome in ("cancelled", "refused"):
                raise GaveUp
            if attempt < ATTEMPTS - 1:
                await asyncio.sleep(wait)
        raise GaveUp

    async def _send(self, request: Request) -> tuple[Outcome, list[Json], float]:
        """The outcome, the JSON that came, and how long to wait before another attempt, seconds."""
        path, headers, body = self._attributed(request)
        streams = body.get("stream") or "alt=sse" in path
        cancels = streams and self._rng.random() < CANCEL_RATE
        events: list[Json] = []
        try:
            async with self._organisation.http.stream("POST", path, json=body, headers=headers) as answer:
                if answer.status_code >= 400:
                    refused = answer.status_code < 500 and "x-outlay-refusal" in answer.headers
                    wait = min(float(answer.headers.get("retry-after", 0.2)), RETRY_SECONDS_MAX)
                    return "refused" if refused else "failed", [], wait
                if not streams:
                    return "answered", [json.loads(await answer.aread())], 0.0
                async for line in answer.aiter_lines():
                    if (event := server_sent(line)) is not None:
                        events.append(dict(event))
                    if cancels and len(events) > 2:
                        return "cancelled", [], 0.0
        except httpx.TransportError:
            return "broke off", [], 0.2
        return "answered", events, 0.0

    def _attributed(self, request: Request) -> tuple[str, dict[str, str], dict[str, Any]]:
        """(path, header fields, body) with the key, and the ticket as this person's set-up gives it."""
        person, session = self._person, self._session
        key = self._organisation.keys[person.user]
        name = person.tool.key_header
        headers = request.headers | {name: f"Bearer {key}" if name == "authorization" else key}
        path, body = request.path, request.body
        match person.ticket_by:
            case "header":
                headers["x-outlay-ticket"] = self._ticket
            case "path":
                path = f"/t/{self._ticket}/task/{session.id}{path}"
            case "branch":
                headers["x-outlay-branch"] = session.branch
            case "metadata" if "metadata" in body:
                body = body | {"metadata": body["metadata"] | {"ticket": self._ticket}}
        return path, headers, body
