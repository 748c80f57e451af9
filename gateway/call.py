"""The nouns of one call. Plain values: no I/O, no clock, no configuration.

A `Call` is one physical request to a provider and its answer, and is the close record of the journal: its field
names are the columns of the `calls` table, except that money is whole nano-USD (`*_nano`) here and `DECIMAL(18,9)`
USD (`*_usd`) in SQL, and `started_us` (microseconds since the epoch, UTC) becomes `started_at`.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

NANO = 1_000_000_000
"""Nano-USD in one US dollar."""

Result = Literal[
    "completed", "client_cancelled", "upstream_error", "upstream_cut", "stopped_by_budget", "refused", "interrupted"
]
UsageSource = Literal["reported", "estimated", "partial", "none"]
PriceStatus = Literal["exact", "alias", "fallback", "unpriced"]
TicketSource = Literal["claim", "key", "header", "path", "metadata", "branch", "task", "none"]
TicketState = Literal["known", "unknown", "closed", "unchecked"]
TicketPolicy = Literal["optional", "required", "known"]
TaskSource = Literal["header", "path", "session", "conversation", "none"]
BudgetAction = Literal["none", "warned", "clamped", "rerouted", "stopped", "blocked", "shadow_blocked"]
Purpose = Literal["ci", "eval", "batch", "research", "support"]
"""Declared overhead; a call without one is normal work."""
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Role = Literal["viewer", "finops", "admin"]
"""What a key may do in the admin API, each all that the one before it may."""
Agent = Literal["main", "subagent", "compaction", "side"]


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens as billed, in the OpenTelemetry meaning. `None` = the provider did not say (which is not 0).

    `input_tokens` includes cache reads, cache writes and audio or image input; `output_tokens` includes reasoning.
    `cache_write_1h_input_tokens` is a part of `cache_write_input_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    web_search_requests: int | None = None
    other_units: dict[str, float] | None = None

    def reported(self) -> bool:
        """True when the provider gave any count at all."""
        return self != NO_USAGE


NO_USAGE = Usage()


class Excerpts(msgspec.Struct, frozen=True):
    """Raw JSON of those parts of a request that are a conversation, and in which clients say where they run and what a
    call is for.

    Views of the body, decoded only where somebody looks for something (`clients.observe`, `shape.read`), and never
    recorded. Empty where the request has no such part.
    """

    messages: Sequence[msgspec.Raw] = ()
    system: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    """What the client tells beside the conversation: Codex' turn, Claude Code's safeguards."""
    output_format: msgspec.Raw = msgspec.Raw()
    """The shape that the answer has to have."""

    @property
    def first(self) -> Sequence[msgspec.Raw]:
        """The first two messages."""
        return self.messages[:2]

    @property
    def last(self) -> msgspec.Raw:
        """The last message."""
        return self.messages[-1] if self.messages else msgspec.Raw()


NO_EXCERPTS = Excerpts()


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request asks for, as far as metering, attribution and budgets need it."""

    model: str | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    service_tier: str | None = None
    message_count: int | None = None
    tool_count: int | None = None
    session_id: str | None = None
    """A session or conversation id that the body carries (`metadata`, `prompt_cache_key`, …)."""
    ticket: str | None = None
    """A ticket that the body's own metadata names."""
    excerpts: Excerpts = NO_EXCERPTS
    units: dict[str, float] = {}
    """Billed units that the request alone decides (`characters` to speak, `images` wanted): they count where the answer
    reports nothing."""
    output_tokens_min: int = 1
    """With a smaller maximum the provider rejects the request (its thinking budget must fit, …)."""
    is_tied: bool = False
    """Another upstream cannot serve it: it goes on from an answer that is kept there, or its own is asked for later."""
    choices: int = 1
    """So many outputs are asked for, each of them up to the maximum."""
    may_cache: Literal["5m", "1h"] | None = None
    """It asks for cache writes, at most at the rate for this lifetime. What providers cache unasked is not meant."""
    region: str | None = None
    """Where it is to be computed, when that has a price of its own."""
    refers: bool = False
    """It may be billed for input that its bytes do not bound: an earlier answer, a file at the provider, an image, what
    a hosted tool reads."""

    def without_excerpts(self) -> "Ask":
        """The same where nobody looks into it any more: a view of each message is more than some messages are, and text
        goes to no other process."""
        return msgspec.structs.replace(self, excerpts=NO_EXCERPTS)


class SubPass(msgspec.Struct, frozen=True):
    """A pass of another model inside one answer, billed beside its usage: advisor, compaction, image tool."""

    model: str | None
    """`None` = the served model."""
    usage: Usage


class Answer(msgspec.Struct):
    """What the provider said, folded from one answer (JSON or stream) by a dialect. Last value wins, per field."""

    usage: Usage = msgspec.field(default_factory=Usage)
    subpasses: list[SubPass] = []
    """Not part of `usage`."""
    response_model: str | None = None
    service_tier: str | None = None
    region: str | None = None
    """Where the provider computed, when that has a price of its own."""
    finish_reason: str | None = None
    upstream_id: str | None = None
    provider_cost_nano: int | None = None
    error: str | None = None
    """The type of an error that came inside a 200 answer."""
    finished: bool = False
    """The dialect's terminal event was seen: nothing that matters can follow."""
    tool_model: str | None = None
    """The model that transcribes beside the served one, in a session."""
    pending: bool = False
    """Work in the background: the usage comes with a later answer of the same `upstream_id`."""
    units: dict[str, float] = {}
    """Billed units that the answer shows (images, seconds): they count where the provider reports nothing."""
    tools: dict[str, bool | None] = {}
    """Tool calls by id, and whether each edits files; `None` = nobody knows."""


class Cost(msgspec.Struct, frozen=True):
    """A priced usage, whole nano-USD. The five parts sum to `list_nano`. All are `None` when `status` is `unpriced`."""

    status: PriceStatus
    price_book: str
    price_id: str | None = None
    list_nano: int | None = None
    input_nano: int | None = None
    cache_read_nano: int | None = None
    cache_write_nano: int | None = None
    output_nano: int | None = None
    other_nano: int | None = None
    contracted_nano: int | None = None
    guessed_model: bool = False
    """The prices are those of another seller or of another model, not only of another tier: `allow` does without."""


class Principal(msgspec.Struct, frozen=True):
    """Who calls: key → user → team."""

    key_id: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    ticket: str | None = None
    purpose: str | None = None
    models: tuple[str, ...] = ()
    """Globs of the models the key may use; empty = all."""
    upstreams: tuple[str, ...] = ()
    """Names of the upstreams the key may use; empty = all."""
    ticket_policy: TicketPolicy | None = None
    """Outranks that of the team."""
    fingerprint: str | None = None
    """Of the gateway key; see `claims`."""
    expires_at: int | None = None
    """When the gateway key ends, seconds since the epoch, UTC."""
    role: Role | None = None
    """Opens the admin API, and then no provider."""


class Attribution(msgspec.Struct, frozen=True):
    """The ticket and task of a call, and how we know."""

    tickets: tuple[str, ...] = ()
    ticket_source: TicketSource = "none"
    ticket_state: TicketState | None = None
    candidates: tuple[str, ...] = ()
    """What else was named, or may be meant, as `source:ticket`; what was no evidence, as `source:(reason)`."""
    task_id: str | None = None
    task_source: TaskSource = "none"
    repo: str | None = None
    branch: str | None = None
    commit_sha: str | None = None
    ignored: tuple[str, ...] = ()
    """What was no evidence, as `source:reason`."""


class Client(msgspec.Struct, frozen=True):
    """The calling tool and the place it works in, as its own requests tell."""

    name: str | None = None
    version: str | None = None
    agent: Agent | None = None
    session_id: str | None = None
    conversation_id: str | None = None
    """What is one task inside of a session, or over several: a prompt, the session of the parent agent."""
    derived_task: str | None = None
    """Where the client names no session: a hash of what the calls of one have in common. Two may have the same."""
    repo: str | None = None
    branch: str | None = None
    is_branch_old: bool = False
    """The branch was told when the session began, and may have changed since."""
    commit_sha: str | None = None
    folder: str | None = None
    """Working directory, on the client's machine."""


class Call(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row of the ledger. See the module's docstring for the units."""

    call_id: str
    request_id: str
    attempt: int
    started_us: int
    duration_ms: int | None = None
    first_byte_ms: int | None = None

    key_id: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    client: str | None = None
    client_version: str | None = None
    agent: Agent | None = None
    ticket_id: str | None = None
    tickets: tuple[str, ...] = ()
    ticket_source: TicketSource | None = None
    ticket_state: TicketState | None = None
    ticket_candidates: tuple[str, ...] = ()
    task_id: str | None = None
    task_source: TaskSource | None = None
    session_id: str | None = None
    repo: str | None = None
    branch: str | None = None
    purpose: str | None = None

    provider: str | None = None
    upstream: str | None = None
    dialect: str | None = None
    operation: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    service_tier: str | None = None
    stream: bool | None = None
    status: int | None = None
    result: Result | None = None
    finish_reason: str | None = None
    refusal: str | None = None

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    web_search_requests: int | None = None
    other_units: dict[str, float] | None = None
    usage_source: UsageSource | None = None

    list_cost_nano: int | None = None
    input_cost_nano: int | None = None
    cache_read_cost_nano: int | None = None
    cache_write_cost_nano: int | None = None
    output_cost_nano: int | None = None
    other_cost_nano: int | None = None
    contracted_cost_nano: int | None = None
    provider_cost_nano: int | None = None
    price_status: PriceStatus | None = None
    price_id: str | None = None
    price_book: str | None = None
    held_nano: int | None = None
    budget_action: BudgetAction | None = None

    max_output_tokens: int | None = None
    message_count: int | None = None
    tool_count: int | None = None
    tool_schema_tokens: int | None = None
    tool_calls: int | None = None
    edits: int | None = None
    human_turn: bool | None = None
    request_hash: str | None = None
    prefix_hash: str | None = None
    prefix_tokens: int | None = None
    action_hash: str | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    upstream_id: str | None = None
    gateway_id: str | None = None
    commit_sha: str | None = None
    traceparent: str | None = None
    overhead_us: int | None = None
    """From the request's head to the first byte sent upstream, without the time that its body took to come."""
