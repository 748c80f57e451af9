"""Planted waste with honest twins: an organisation's calls and work in which it is known which calls each rule must
find, and which look alike and must be left alone. Everything follows from a seed.

`Plan.planted` has the calls by rule, `Plan.twins` those that no rule of theirs may find; all else is honest work. A
bare plan has no more than files may tell: no provider, no name of a price, `tickets` only of split calls, few parts of
costs, no sync.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from analytics import work
from gateway.call import Call
from tests.journals import segment

AS_OF = datetime(2026, 11, 20, 12)  # noqa: DTZ001 - UTC, without a zone, as all times of the lake
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - likewise
SYNCED_AT = AS_OF - timedelta(hours=36)
RATES = {"input": 3000, "read": 300, "write": 3750, "output": 15000}
"""Nano-USD per token."""
UNCACHED = {**RATES, "read": 3000, "write": 3000}
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TEAMS = ("payments", "search", "platform")


class Plan:
    """What is made up."""

    def __init__(self, seed: int, *, bare: bool = False) -> None:
        self.bare = bare
        self.random = random.Random(seed)
        self.calls: list[Call] = []
        self.planted: dict[str, set[str]] = defaultdict(set)
        self.twins: dict[str, set[str]] = defaultdict(set)
        self.rows: dict[str, list[work.Row]] = defaultdict(list)
        self._names = 0

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names:05}"

    def moment(self, days: tuple[float, float] = (3, 60)) -> datetime:
        """Some time so many days before the moment of judgement."""
        at = AS_OF - DAY * self.random.uniform(*days)
        return at.replace(hour=self.random.randrange(1, 15), microsecond=0)

    def call(self, at: datetime, **fields: Any) -> str:
        """Add a call; what is not given is that of an ordinary one. Its cost follows from its tokens."""
        call_id = fields.pop("call_id", None) or self.name("call")
        rates = fields.pop("rates", RATES)
        given: dict[str, Any] = {
            "call_id": call_id, "request_id": call_id, "attempt": 1, "started_us": _micros(at), "duration_ms": 4000,
            "first_byte_ms": 500, "team_id": "payments", "user_id": "dev-1", "client": "claude-code", "agent": "main",
            "provider": "anthropic", "upstream": "anthropic", "dialect": "anthropic_messages", "operation": "chat",
            "response_model": "claude-sonnet-4-5", "request_model": "claude-sonnet-4-5", "result": "completed",
            "status": 200, "finish_reason": "end_turn", "usage_source": "reported", "price_status": "exact",
            "price_id": f"made-up-{rates['input']}-{rates['read']}", "input_tokens": 8000, "output_tokens": 400,
            "cache_read_input_tokens": 0, "cache_write_input_tokens": 0, "tool_calls": 1, "edits": 1,
            "human_turn": False, "message_count": 5, "tool_count": 4, "tool_schema_tokens": 900,
            "request_hash": self.name("request"), "action_hash": self.name("action"),
            "session_id": self.name("session"),
        }  # fmt: skip
        given |= fields
        if given["usage_source"] == "none":
            given |= dict.fromkeys(("input_tokens", "output_tokens", "price_id"))
            parts = {"price_status": None}
        else:
            read, write = given["cache_read_input_tokens"], given["cache_write_input_tokens"]
            parts = {
                "input_cost_nano": int((given["input_tokens"] - read - write) * rates["input"]),
                "cache_read_cost_nano": int(read * rates["read"]),
                "cache_write_cost_nano": int(write * rates["write"]),
                "output_cost_nano": int(given["output_tokens"] * rates["output"]),
            }
            parts["list_cost_nano"] = sum(parts.values())
        if given.get("tickets"):
            given["ticket_id"] = given["tickets"][0]
        if self.bare:
            given |= {"provider": None, "price_id": None}
            given |= {"tickets": ()} if len(given.get("tickets", ())) == 1 else {}
            if parts.get("cache_write_cost_nano") == 0:
                parts = dict.fromkeys(("list_cost_nano", "other_cost_nano"), parts["list_cost_nano"])
        self.calls.append(Call(**{**given, **parts}))
        return call_id

    def ticket(self, tickets: str | None = None, **fields: Any) -> str:
        ticket_id = tickets or f"PAY-{100 + self._names}"
        self._names += 1
        given: dict[str, Any] = {
            "status_category": "in_progress", "type": "Story", "reopened_count": 0, "creator": "tracker-lead",
            "assignee": "tracker-dev", "project": "PAY", "source": "jira", "updated_at": SYNCED_AT,
        }  # fmt: skip
        self.rows["tickets"].append(work.Ticket(ticket_id=ticket_id, **{**given, **fields}))
        return ticket_id

    def pull(self, ticket: str, **fields: Any) -> str:
        self._names += 1
        pr_id = f"acme/shop!{self._names}"
        given: dict[str, Any] = {"additions": 80, "deletions": 20, "author": "tracker-dev", "files": [f"{pr_id}.py"]}
        self.rows["pull_requests"].append(
            work.PullRequest(pr_id=pr_id, repo="acme/shop", number=self._names, **{**given, **fields})
        )
        self.rows["pr_tickets"].append(work.PrTicket(pr_id=pr_id, ticket_id=ticket, source="branch"))
        return pr_id

    def expect(self, rule: str, calls: Iterable[str]) -> None:
        self.planted[rule] |= set(calls)

    def leave(self, rules: str, calls: Iterable[str]) -> None:
        for rule in rules.split():
            self.twins[rule] |= set(calls)

    def spaced(self, start: datetime, number: int, low: float, high: float) -> Iterator[datetime]:
        """Moments with pauses of so many seconds."""
        for _ in range(number):
            yield start
            start += timedelta(seconds=self.random.uniform(low, high))


def make(seed: int, *, bare: bool = False) -> Plan:
    plan = Plan(seed, bare=bare)
    for plant in (background, *PLANTS):
        plant(plan)
    plan.random.shuffle(plan.calls)
    return plan


def store(data: Path, plan: Plan, synced_at: datetime = SYNCED_AT) -> None:
    """Into a data folder that has been published."""
    segment(data, plan.calls)
    tables = dict(plan.rows)
    tables["projects"] = [work.Project(project="PAY", synced_at=None if plan.bare else synced_at)]
    tables["identities"] = plan.rows["identities"] + [
        work.Identity(source="jira", source_user=f"tracker-{name}", user_id=user)
        for name, user in {"lead": "dev-8", "dev": "dev-1", "other": "dev-2", "pair": "dev-3"}.items()
    ]
    with work.alone(data):
        for table, rows in tables.items():
            work.spool(data, table, rows)
            work.store(data, table)


# -- honest work -------------------------------------------------------------------------------------------------------


def background(plan: Plan) -> None:
    """Sessions as they are: people steer, caches are read, edits are made."""
    live = plan.ticket(status_category="in_progress")
    plan.pull(live)
    for _ in range(80):
        start, prefix = plan.moment(), plan.name("prefix")
        team, session, turns = plan.random.choice(TEAMS), plan.name("session"), plan.random.randrange(8, 30)
        size = plan.random.randrange(3000, 9000)
        for number, at in enumerate(plan.spaced(start, turns, 5, 90)):
            plan.call(
                at, session_id=session, team_id=team, prefix_hash=prefix, prefix_tokens=2000, tickets=(live,),
                ticket_source="branch", ticket_state="known", branch=f"feature/{live}", message_count=2 * number + 1,
                input_tokens=size + 200 * number, cache_read_input_tokens=0 if number == 0 else size,
                cache_write_input_tokens=size if number == 0 else 190, human_turn=number % 6 == 0,
                reasoning_output_tokens=plan.random.randrange(50, 350), edits=number % 2,
            )  # fmt: skip


# -- plants, each with its twins ---------------------------------------------------------------------------------------


def duplicates(plan: Plan) -> None:
    for purpose, times in ((None, 4), (None, 2), ("eval", 12), (None, 7)):
        start, request = plan.moment(), plan.name("request")
        # A minute or more apart and of different sessions: no storm.
        made = [
            plan.call(at, request_hash=request, purpose=purpose, tool_calls=0, edits=0, action_hash=None)
            for at in plan.spaced(start, times, 60, 900)
        ]
        if purpose:
            plan.leave("W01", made)
        else:
            plan.expect("W01", made[1:])
    at, request, other = plan.moment(), plan.name("request"), plan.name("session")
    failed = plan.call(
        at, request_hash=request, session_id=other, result="upstream_error", status=529, usage_source="none"
    )
    fallback = plan.call(
        at + timedelta(seconds=2),
        request_hash=request,
        session_id=other,
        request_id=failed,
        attempt=2,
        upstream="bedrock",
    )
    plan.leave("W01 W02", [failed, fallback])
    at, request = plan.moment(), plan.name("request")
    plan.leave("W01", [plan.call(at + DAY * n, request_hash=request) for n in range(3)])  # a day each
    plan.leave("W01", [plan.call(at, request_hash=plan.name("request"), result="client_cancelled") for _ in range(2)])
    cut = plan.name("request")
    plan.leave(
        "W01",
        [plan.call(at + HOUR * n, request_hash=cut, finish_reason="max_tokens" if n else "end_turn") for n in range(2)],
    )


def storms(plan: Plan) -> None:
    for size in (4, 6, 9, 15, 5):
        start, request, session = plan.moment(), plan.name("request"), plan.name("session")
        action, prefix = plan.name("action"), plan.name("prefix")
        answered = size != 5
        made = []
        for number, at in enumerate(plan.spaced(start, size, 8, 11)):
            is_last = number == size - 1
            fails = {"result": "upstream_error", "status": 503, "usage_source": "none"}
            billed = {"result": "upstream_cut", "status": 200}
            made.append(
                plan.call(
                    at, session_id=session, request_hash=request, action_hash=action, prefix_hash=prefix,
                    **({} if is_last and answered else billed if number % 3 == 1 else fails),
                )
            )  # fmt: skip
        plan.expect("W02", made[:-1] if answered else made[1:])
        if answered:
            plan.leave("W01 W02", made[-1:])
            plan.expect("W01", [plan.call(at + HOUR, request_hash=request)])
        plan.leave("W03", made)
    # Three attempts are none; nor are four with one failure, or over an hour.
    for failures, pause in (((1, 1, 0), 20), ((1, 0, 0, 0), 20), ((1, 1, 0, 0, 0), 900)):
        start, request, session = plan.moment(), plan.name("request"), plan.name("session")
        plan.leave(
            "W02",
            [
                plan.call(
                    start + timedelta(seconds=pause * n), session_id=session, request_hash=request,
                    **({"result": "upstream_error", "status": 500, "usage_source": "none"} if fails else {}),
                )
                for n, fails in enumerate(failures)
            ],
        )  # fmt: skip


def loops(plan: Plan) -> None:
    for size in (5, 8, 14, 30):
        start, action, session, prefix = plan.moment(), plan.name("action"), plan.name("session"), plan.name("prefix")
        made = [
            plan.call(at, session_id=session, action_hash=action, prefix_hash=prefix, edits=0)
            for at in plan.spaced(start, size, 4, 20)
        ]
        plan.expect("W03", made[3:])
        alone = {"session_id": plan.name("session"), "action_hash": action}  # one after the other, with other prefixes
        times = plan.spaced(plan.moment(), size, 5, 20)
        plan.expect("W03", [plan.call(at, prefix_hash=plan.name("prefix"), **alone) for at in times][3:])
        at, beside = plan.moment(), {"session_id": plan.name("session"), "action_hash": action, "agent": "subagent"}
        times = [at + timedelta(seconds=n / 5) for n in range(size)]
        plan.leave("W03", [plan.call(at, prefix_hash=plan.name("prefix"), **beside) for at in times])
        # Another agent of the session works in between.
        for at in plan.spaced(start + timedelta(seconds=1), size, 4, 20):
            plan.leave("W03", [plan.call(at, session_id=session, prefix_hash=f"{prefix}-sub", agent="subagent")])
    start, session = plan.moment(), plan.name("session")
    plan.leave("W03", [plan.call(at, session_id=session) for at in plan.spaced(start, 12, 5, 9)])  # 12 different files
    build, session, made = plan.name("action"), plan.name("session"), []
    for number, at in enumerate(plan.spaced(plan.moment(), 12, 5, 9)):
        made.append(
            plan.call(at, session_id=session, action_hash=f"{build}-{number}" if number % 2 else plan.name("edit"))
        )
    plan.leave("W03", made)
    titles, session = plan.name("action"), plan.name("session")
    plan.leave(
        "W03",
        [
            plan.call(at, session_id=session, action_hash=titles, agent="side")
            for at in plan.spaced(plan.moment(), 9, 5, 9)
        ],
    )
    plan.leave(
        "W03", [plan.call(at, session_id=session, action_hash=None) for at in plan.spaced(plan.moment(), 9, 5, 9)]
    )


def failures(plan: Plan) -> None:
    for reason in ("content_filter", "SAFETY", "malformed_function_call", "refusal"):
        plan.expect("W04", [plan.call(plan.moment(), finish_reason=reason) for _ in range(5)])
    plan.expect("W04", [plan.call(plan.moment(), result="upstream_error", status=500) for _ in range(5)])
    plan.leave("W04", [plan.call(plan.moment(), result="upstream_error", status=500, usage_source="none")])
    refused = [
        plan.call(plan.moment(), result="refused", status=402, refusal="budget_exceeded", usage_source="none")
        for _ in range(6)
    ]
    plan.leave(" ".join(f"W{n:02}" for n in range(1, 19)), refused)


def truncations(plan: Plan) -> None:
    for finish, larger in (("max_tokens", 8000), ("length", None), ("MAX_TOKENS", 3000), ("incomplete", 64000)) * 5:
        at, request, session = plan.moment(), plan.name("request"), plan.name("session")
        given = {"session_id": session, "request_hash": request, "message_count": 3}
        cut = plan.call(at, finish_reason=finish, max_output_tokens=2000, **given)
        again = plan.call(at + MINUTE, max_output_tokens=larger, **given)
        plan.expect("W05", [cut])
        plan.leave("W05", [again])
    at, request, session = plan.moment(), plan.name("request"), plan.name("session")
    first = {"finish_reason": "max_tokens", "max_output_tokens": 2000, "session_id": session}
    plan.leave(
        "W05",
        [
            plan.call(at, request_hash=request, **first),
            plan.call(at + HOUR, request_hash=request, session_id=session, max_output_tokens=9000),  # much later
            plan.call(at, **first),  # another request follows
            plan.call(at, request_hash="long", duration_ms=90_000, **first),
            plan.call(at + 11 * MINUTE, request_hash="long", session_id=session, max_output_tokens=9000),
        ],
    )


def caches(plan: Plan) -> None:
    miss = {"prefix_tokens": 6000, "input_tokens": 7000}
    for _ in range(4):
        start, prefix = plan.moment(), plan.name("prefix")
        made = [plan.call(at, prefix_hash=prefix, **miss) for at in plan.spaced(start, 10, 20, 200)]
        plan.expect("W06", made[1:])
        plan.leave("W06", made[:1])
    at, prefix = plan.moment(), plan.name("prefix")
    plan.leave(
        "W06", [plan.call(at + timedelta(milliseconds=30 * n), prefix_hash=prefix, **miss) for n in range(10)]
    )  # ten subagents at once: none has answered
    at, prefix = plan.moment(), plan.name("prefix")
    untold = {**miss, "first_byte_ms": None, "duration_ms": 20_000}
    plan.leave("W06", [plan.call(at + timedelta(milliseconds=30 * n), prefix_hash=prefix, **untold) for n in range(10)])
    at, prefix = plan.moment(), plan.name("prefix")
    plan.leave("W06", [plan.call(at + 20 * MINUTE * n, prefix_hash=prefix, **miss) for n in range(5)])
    prefix = plan.name("prefix")
    plan.leave(
        "W06 W07",
        [
            plan.call(
                at + MINUTE * n, prefix_hash=prefix, prefix_tokens=6000, input_tokens=7000, rates=UNCACHED,
                cache_write_input_tokens=0, response_model="no-cache", request_model="no-cache",
            )
            for n in range(5)
        ],
    )  # fmt: skip
    for _ in range(4):
        prefix = plan.name("prefix")
        plan.expect(
            "W07",
            [
                plan.call(at, prefix_hash=prefix, prefix_tokens=5000, cache_write_input_tokens=5000, input_tokens=6000)
                for at in plan.spaced(plan.moment(), 5, 1000, 2000)
            ],
        )
    prefix, talk = plan.name("prefix"), []
    for number, at in enumerate(plan.spaced(plan.moment(), 8, 30, 90)):
        talk.append(
            plan.call(
                at, prefix_hash=prefix, prefix_tokens=5000, input_tokens=8000 + 3000 * number,
                cache_read_input_tokens=5000 + 3000 * (number - 1) if number else 0, cache_write_input_tokens=2900,
            )
        )  # fmt: skip
    plan.leave("W07", talk)
    prefix, odd = plan.name("prefix"), {"input": 37.5, "read": 37.5, "write": 37.5, "output": 100}  # no premium
    written = {"prefix_tokens": 5000, "cache_write_input_tokens": 10_000, "input_tokens": 11_001, "rates": odd}
    plan.leave(
        "W07",
        [
            plan.call(at, prefix_hash=prefix, response_model="odd", request_model="odd", **written)
            for at in plan.spaced(plan.moment(), 3, 1000, 2000)
        ],
    )
    recent = plan.name("prefix")
    plan.leave(
        "W07",
        [plan.call(AS_OF - 20 * MINUTE, prefix_hash=recent, prefix_tokens=5000, cache_write_input_tokens=5000)],
    )


def contexts(plan: Plan) -> None:
    huge = {"input_tokens": 250_000, "output_tokens": 300, "edits": 0}
    for _ in range(3):
        session = plan.name("session")
        plan.call(plan.moment(), session_id=session)
        made = [
            plan.call(at, session_id=session, message_count=40, **huge)
            for at in plan.spaced(AS_OF - 2 * DAY, 12, 30, 200)
        ]
        plan.expect("W08", made)
        plan.leave("W08", [plan.call(AS_OF - DAY, session_id=session, **{**huge, "edits": 3, "message_count": 50})])
    session = plan.name("session")  # whose first call is not known to be one, but the others are alike
    made = [
        plan.call(at, session_id=session, message_count=None, **huge) for at in plan.spaced(plan.moment(), 6, 30, 200)
    ]
    plan.expect("W08", made)
    alone = {**huge, "session_id": None}
    plan.leave("W08", [plan.call(plan.moment(), message_count=count, **alone) for count in (1, 1, None)])
    plan.expect("W08", [plan.call(plan.moment(), message_count=30, **alone)])
    plan.leave("W08", [plan.call(plan.moment(), purpose="research", message_count=9, **huge) for _ in range(4)])
    plan.leave("W08", [plan.call(plan.moment(), message_count=1, **huge) for _ in range(4)])  # loads a document
    plan.leave("W08", [plan.call(plan.moment(), agent="compaction", message_count=200, **huge) for _ in range(4)])
    plan.leave("W08", [plan.call(plan.moment(), message_count=9, **{**huge, "edits": None}) for _ in range(4)])


def tools(plan: Plan) -> None:
    idle = {"tool_schema_tokens": 12_000, "tool_count": 60, "tool_calls": 0, "edits": 0, "input_tokens": 15_000}

    def session(
        used: int | None = 0, start: datetime | None = None, size: int = 8, result: str = "completed", **fields: Any
    ) -> list[str]:
        name = plan.name("session")
        made = []
        for number, at in enumerate(plan.spaced(start or plan.moment(), size, 20, 90)):
            more = {"tool_calls": used, "result": result} if number == 3 else {}
            made.append(plan.call(at, session_id=name, **{**idle, **fields, **more}))
        return made

    for read in (0, 14_000, 0):
        plan.expect("W09", session(cache_read_input_tokens=read))
    plan.leave("W09", session(used=1))
    plan.leave("W09", session(used=None))
    plan.leave("W09", session(used=2, result="client_cancelled"))
    plan.leave("W09", session(size=4))
    plan.leave("W09", session(start=AS_OF - 30 * MINUTE, size=6))
    plan.leave("W09", session(tool_schema_tokens=4000))


def models(plan: Plan) -> None:
    short = {
        "response_model": "claude-opus-4-5", "request_model": "claude-opus-4-5", "input_tokens": 600,
        "output_tokens": 80, "tool_count": 0, "tool_schema_tokens": 0, "tool_calls": 0, "edits": 0,
    }  # fmt: skip
    dear = {"input": 5000, "read": 500, "write": 6250, "output": 25000}
    plan.expect("W10", [plan.call(plan.moment(), rates=dear, **short) for _ in range(30)])

    def of(provider: str, model: str, rates: dict[str, float] = dear, **fields: Any) -> list[str]:
        given = {**short, "provider": provider, "request_model": model, "response_model": model, **fields}
        return [plan.call(plan.moment(), rates=rates, **given) for _ in range(3)]

    for name in ("gpt-5-2025-08-07", "gpt-5-codex", "gpt-5.2", "gpt-4.1", "gpt-4o", "o3", "o3-2025-04-16"):
        plan.expect("W10", of("openai", name))
    plan.expect("W10", of("aws.bedrock", "us.anthropic.claude-opus-4-1-20250805-v1:0"))
    plan.expect("W10", of("gcp.vertex_ai", "claude-opus-4-1@20250805"))
    plan.expect("W10", of("openrouter", "anthropic/claude-3-opus"))
    plan.expect("W10", of("azure.ai.openai", "gpt-5", response_model="our-deployment"))
    plan.expect("W10", of("openai", "gpt-5", tool_count=None))
    mini = {"input": 250, "read": 25, "write": 250, "output": 2000}
    for name in ("gpt-5-mini", "gpt-5-mini-2025-08-07", "gpt-5-nano", "o4-mini"):
        plan.leave("W10", of("openai", name, rates=mini))
    plan.leave("W10", of("openai", "gpt-5", response_model="gpt-5-mini", rates=mini))
    plan.leave("W10", of("openai", "gpt-5", reasoning_output_tokens=30))
    plan.leave("W10", [plan.call(plan.moment(), rates=dear, **{**short, "tool_count": 3}) for _ in range(5)])
    plan.leave("W10", [plan.call(plan.moment(), rates=dear, **{**short, "output_tokens": 900}) for _ in range(5)])
    plan.leave(
        "W10",
        [
            plan.call(plan.moment(), rates=dear, **{**short, "tool_count": None, "tool_schema_tokens": None})
            for _ in range(5)
        ],
    )


def reasoning(plan: Plan) -> None:
    long = {"reasoning_output_tokens": 20_000, "output_tokens": 20_400, "tool_calls": 0, "edits": 0}
    plan.expect("W11", [plan.call(plan.moment(), **long) for _ in range(20)])
    plan.leave("W11", [plan.call(plan.moment(), purpose="research", **long) for _ in range(5)])
    plan.leave("W11", [plan.call(plan.moment(), **{**long, "tool_calls": 2}) for _ in range(5)])
    plan.leave("W11", [plan.call(plan.moment(), **{**long, "output_tokens": 60_000}) for _ in range(5)])
    plan.leave("W11", [plan.call(plan.moment(), client="aider", **long) for _ in range(5)])  # no usual is known


def timers(plan: Plan) -> None:
    def session(jitter: float = 8, size: int = 60, ticks: bool = True, **fields: Any) -> list[str]:
        name, start = plan.name("session"), plan.moment((8, 50))
        return [
            plan.call(
                at, **{"session_id": name, "edits": 0, "human_turn": ticks and n == 0, "output_tokens": 60, **fields}
            )
            for n, at in enumerate(plan.spaced(start, size, 300 - jitter, 300 + jitter))
        ]

    for _ in range(3):
        plan.expect("W12", session())
    made = session()  # with attempts that the gateway added
    for number in made[10::15]:
        [first] = [call for call in plan.calls if call.call_id == number]
        again = {"call_id": plan.name("call"), "attempt": 2, "started_us": first.started_us + 2_000_000}
        plan.calls.append(msgspec.structs.replace(first, **again))
        made.append(again["call_id"])
    plan.expect("W12", made)
    plan.leave("W12", session(purpose="ci"))
    plan.leave("W12", session(jitter=290))
    plan.leave("W12", session(size=20))
    plan.leave("W12", session(edits=1))
    plan.leave("W12", session(human_turn=None))
    live = plan.ticket()
    plan.pull(live)
    plan.leave("W12", session(tickets=(live,), ticket_source="header", ticket_state="known"))


def runaways(plan: Plan) -> None:
    # A call costs 0.30 USD; few sessions are that dear, so the threshold is 5 USD.
    big = {"input_tokens": 90_000, "output_tokens": 2000}
    for turns, size in ((1, 150), (3, 300), (20, 250)):
        session, made = plan.name("session"), []
        for number, at in enumerate(plan.spaced(plan.moment(), size, 2, 40)):
            person = number % (size // turns) == 0 and number // (size // turns) < turns
            made.append(plan.call(at, session_id=session, human_turn=person, **big))
        if turns == 20:
            plan.leave("W13", made)
        else:
            plan.expect("W13", made[17:])
            plan.leave("W13", made[:16])
    session = plan.name("session")
    plan.leave(
        "W13", [plan.call(at, session_id=session, input_tokens=2000) for at in plan.spaced(plan.moment(), 200, 2, 40)]
    )
    session = plan.name("session")
    plan.leave(
        "W13",
        [plan.call(at, session_id=session, human_turn=None, **big) for at in plan.spaced(plan.moment(), 120, 2, 40)],
    )


def ghosts(plan: Plan) -> None:
    def spend(ticket: str, at: datetime, number: int = 6, **fields: Any) -> list[str]:
        given = {"tickets": (ticket,), "ticket_source": "header", "ticket_state": "unknown", **fields}
        return [plan.call(at + MINUTE * n, **given) for n in range(number)]

    plan.expect("W14", spend("PAY-99901", plan.moment()))
    unchecked = spend("PAY-99902", plan.moment(), ticket_state="unchecked")
    if plan.bare:
        plan.leave("W14", unchecked)
    else:
        plan.expect("W14", unchecked)
    plan.leave("W14", spend("PAY-99904", plan.moment(), ticket_state="known"))  # it was there at that time
    plan.expect("W14", spend("NOPE-1", plan.moment()))
    done = {"status_category": "done", "resolution": "Won\u2019t Do"}
    both = plan.ticket("PAY-778", aliases=["OLD-6"], done_at=AS_OF - 20 * DAY, **done)
    plan.pull(
        both, merged_at=AS_OF - 40 * DAY, closed_at=AS_OF - 40 * DAY, reverted_at=AS_OF - 39 * DAY, reverted_by="abc"
    )
    plan.expect("W14", spend(both, AS_OF - 15 * DAY) + spend("OLD-6", AS_OF - 14 * DAY))
    plan.expect("W14", spend("PAY-778", AS_OF - 13 * DAY, tickets=("PAY-778", "OLD-6")))
    cancelled = plan.ticket(done_at=AS_OF - 20 * DAY, **done)
    plan.expect("W14", spend(cancelled, AS_OF - 15 * DAY, ticket_state="closed"))
    plan.leave("W14", spend(cancelled, AS_OF - 20 * DAY + 10 * HOUR, ticket_state="closed"))
    plan.leave("W14", spend(cancelled, AS_OF - 22 * DAY, ticket_state="known"))
    moved = plan.ticket("PAY-777", aliases=["OLD-5"])
    plan.pull(moved)
    plan.leave("W14 W15", spend("OLD-5", plan.moment()))
    plan.leave("W14 W15", spend("PAY-99903", AS_OF - DAY))  # the tracker was read two days ago


def dead(plan: Plan) -> None:
    def spend(*tickets: str, days: float = 45, **fields: Any) -> list[str]:
        given = {
            "tickets": tickets,
            "ticket_source": "branch",
            "ticket_state": "known",
            "input_tokens": 40_000,
            **fields,
        }
        return [plan.call(AS_OF - DAY * days + MINUTE * n, **given) for n in range(10)]

    for fields in ({}, {"status_category": "todo"}, {"type": None}):
        plan.expect("W15", spend(plan.ticket(**fields)))
    gone = plan.ticket()
    plan.pull(gone, closed_at=AS_OF - 40 * DAY)
    plan.expect("W15", spend(gone))
    plan.leave("W15", spend(plan.ticket(type="Spike")))
    plan.leave("W15", spend(plan.ticket(), purpose="research"))
    plan.leave("W15", spend(plan.ticket(), days=20))
    asked = plan.ticket()
    plan.leave("W15", [*spend(asked), plan.call(AS_OF - 3 * DAY, tickets=(asked,), purpose="support")])
    plan.leave("W15", spend(plan.ticket(status_category="done", resolution="Done", done_at=AS_OF - 44 * DAY)))
    opened, merged = plan.ticket(), plan.ticket()
    plan.pull(opened, created_at=AS_OF - 41 * DAY)
    plan.pull(merged, merged_at=AS_OF - 41 * DAY, closed_at=AS_OF - 41 * DAY)
    plan.leave("W15", spend(opened))
    plan.leave("W15", spend(merged))
    cheap = plan.ticket()
    plan.leave("W15", spend(cheap, input_tokens=100))
    plan.expect("W15", spend(plan.ticket(), merged))  # half of each


def reverts(plan: Plan) -> None:
    def spend(ticket: str) -> list[str]:
        given = {"tickets": (ticket,), "ticket_source": "branch", "ticket_state": "known"}
        return [plan.call(AS_OF - 50 * DAY + MINUTE * n, **given) for n in range(8)]

    done = {"status_category": "done", "resolution": "Done", "done_at": AS_OF - 45 * DAY}
    merged = {"merged_at": AS_OF - 46 * DAY, "closed_at": AS_OF - 46 * DAY}
    for days in (1, 12, 29):
        ticket = plan.ticket(**done)
        plan.pull(ticket, reverted_at=AS_OF - (46 - days) * DAY, reverted_by="abc", **merged)
        plan.expect("W16", spend(ticket))
    late, landed, kept = plan.ticket(**done), plan.ticket(**done), plan.ticket(**done)
    plan.pull(late, reverted_at=AS_OF - 5 * DAY, reverted_by="abc", **merged)
    plan.pull(kept, **merged)
    first = plan.pull(landed, **merged)
    back = plan.pull(landed, title="Revert", merged_at=AS_OF - 45 * DAY, closed_at=AS_OF - 45 * DAY)
    again = plan.pull(landed, title="Reapply", merged_at=AS_OF - 44.5 * DAY, closed_at=AS_OF - 44.5 * DAY)
    for pr, of, lands in ((back, first, False), (again, back, True)):
        plan.rows["reverts"].append(
            work.Revert(
                reverting=pr, repo="acme/shop", kind="pr", reference=of, is_reland=lands, reverted_at=AS_OF - 45 * DAY
            )
        )
    for ticket in (late, landed, kept):
        plan.leave("W16", spend(ticket))
    # What pull requests alone say: no word is known of what was taken back.
    out = {"reverted_at": AS_OF - 45.9 * DAY, **merged}
    untold, soon, undone = plan.ticket(**done), plan.ticket(**done), plan.ticket(**done)
    plan.pull(untold, reverted_by="abc", **{**out, "additions": None})
    plan.expect("W16", spend(untold))
    plan.pull(soon, reverted_by="abc", **out)
    plan.pull(soon, merged_at=AS_OF - 45.5 * DAY, closed_at=AS_OF - 45.5 * DAY)
    back = plan.pull(undone, merged_at=AS_OF - 45.9 * DAY, reverted_at=AS_OF - 40 * DAY, reverted_by="def")
    plan.pull(undone, reverted_by=back, **out)
    for ticket in (soon, undone):
        plan.leave("W16", spend(ticket))


def afterwards(plan: Plan) -> None:
    def spend(ticket: str, days: float, **fields: Any) -> list[str]:
        given = {"tickets": (ticket,), "ticket_source": "branch", "ticket_state": "closed", **fields}
        return [plan.call(AS_OF - DAY * days + MINUTE * n, **given) for n in range(6)]

    done = {"status_category": "done", "resolution": "Done", "done_at": AS_OF - 30 * DAY}
    merged = {"merged_at": AS_OF - 31 * DAY, "closed_at": AS_OF - 31 * DAY}
    ticket, reopened, docs = (
        plan.ticket(**done),
        plan.ticket(reopened_count=1, **done),
        plan.ticket(type="Docs", **done),
    )
    untold = plan.ticket(**{**done, "reopened_count": None})
    for each in (ticket, reopened, docs, untold):
        plan.pull(each, **merged)
    plan.expect("W17", spend(ticket, 20))
    plan.leave("W17", spend(ticket, 28))
    plan.leave("W17", spend(ticket, 33))
    plan.leave("W17", spend(ticket, 19, purpose="support"))
    for each in (reopened, docs, untold):
        plan.leave("W17", spend(each, 20))
    for closer, days, is_late in (("merge-bot", (21,), False), ("shop[bot]", (29, 21, 15), True), ("jo", (21,), True)):
        ticket = plan.ticket(closer=closer, **done)
        pr = plan.pull(ticket, **merged)
        for day in days:
            to = {"repo": "acme/shop", "environment": "Production", "finished_at": AS_OF - day * DAY}
            deployment = work.Deployment(deployment_id=plan.name("deployment"), status="success", **to)
            plan.rows["deployments"].append(deployment)
            plan.rows["deployment_prs"].append(work.DeploymentPr(deployment_id=deployment.deployment_id, pr_id=pr))
        (plan.expect if is_late else plan.leave)("W17", spend(ticket, 20))


def stuffers(plan: Plan) -> None:
    ticket = plan.ticket()
    plan.pull(ticket)
    by_hand = {"tickets": (ticket,), "ticket_source": "header", "ticket_state": "known", "input_tokens": 70_000}

    def spend(**fields: Any) -> list[str]:
        return [plan.call(at, **{**by_hand, **fields}) for at in plan.spaced(plan.moment(), 8, 60, 300)]

    plan.expect("W18", spend(user_id="dev-2", branch=None))
    plan.expect("W18", spend(user_id="dev-3", branch="feature/OPS-9-x"))
    for branch in ("", "jo-wip-OPS-9"):
        other = plan.ticket()
        plan.pull(other)
        plan.expect("W18", spend(user_id="dev-2", branch=branch, tickets=(other,)))
    moved = plan.ticket("PAY-779", aliases=["OLD-7"])
    plan.pull(moved)
    plan.leave("W18", spend(user_id="dev-2", branch="fix/old-7-x", tickets=(moved,)))
    plan.leave("W18", spend(user_id="dev-1"))  # the assignee
    plan.leave("W18", spend(user_id="dev-9"))  # nobody knows who that is
    plan.leave("W18", spend(user_id="dev-8", branch=f"feature/{ticket}-x"))
    other = plan.ticket()
    plan.pull(other)
    plan.leave("W18", spend(user_id="dev-2", branch=f"fix/{other}", tickets=(other,)))  # a pair, on its branch
    plan.leave("W18", spend(user_id="dev-2", ticket_source="branch", tickets=(other,)))
    unmapped = plan.ticket(assignee="somebody")
    plan.pull(unmapped)
    plan.leave("W18", spend(user_id="dev-2", tickets=(unmapped,)))


PLANTS: tuple[Callable[[Plan], None], ...] = (
    duplicates, storms, loops, failures, truncations, caches, contexts, tools, models, reasoning, timers, runaways,
    ghosts, dead, reverts, afterwards, stuffers,
)  # fmt: skip


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
