"""Settings: one TOML file, one struct per section, each setting with a default and a line of help.

`load` reports every problem of a file at once, as `FILE:LINE: [section] what is wrong; what to write instead`.
Secrets are never in the file: `env:NAME` or `file:PATH`, read by `secret`.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from gateway.budget_file import BudgetTable, budget_of
from gateway.call import Role, TicketPolicy
from gateway.errors import UserError
from gateway.guards import GuardTable, guard_of
from gateway.limits import LimitTable, limit_of
from gateway.mistakes import in_words
from gateway.repositories import repo_name


def _help(text: str, **limits: Any) -> Meta:
    return Meta(description=text, **limits)


StatusCategory = Literal["todo", "in_progress", "done"]


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens and what it accepts."""

    host: Annotated[str, _help('Address to bind. Anything but loopback needs [auth] mode = "keys".')] = "127.0.0.1"
    port: Annotated[int, _help("TCP port; 0 = any free one.", ge=0, le=65535)] = 8080
    workers: Annotated[
        int,
        _help(
            "Processes that serve calls, on this machine; with more than one, another one owns what they share.",
            ge=1,
            le=64,
        ),
    ] = 1
    header_bytes_max: Annotated[int, _help("Longest header field, bytes.", ge=1024)] = 65_536
    body_bytes_max: Annotated[int, _help("Largest request body, bytes, as sent and as decoded.", ge=1024)] = 67_108_864
    header_seconds: Annotated[
        float, _help("A connection on which no whole request head comes for so long is closed; idle ones, too.", gt=0)
    ] = 75.0
    body_seconds: Annotated[
        float, _help("Longest silence in a request body; slower than 1 kB/s on the whole is as good as silent.", gt=0)
    ] = 30.0
    write_seconds: Annotated[
        float, _help("A client that takes nothing of what it is sent for so long, or is gone, is cut off.", ge=1)
    ] = 60.0
    drain_seconds: Annotated[float, _help("On SIGTERM, how long running calls may take to finish.", ge=0)] = 60.0
    budget_wait_seconds: Annotated[
        float, _help("How long a call may wait for money that running calls hold, before it is refused.", ge=0, le=240)
    ] = 20.0
    read_on_calls: Annotated[
        int, _help("Answers read on to their usage at a time, after the client has gone; 0 = none.", ge=0)
    ] = 64
    read_on_seconds: Annotated[float, _help("… for at most so long each.", gt=0)] = 60.0
    read_on_bytes: Annotated[int, _help("… and so many bytes each.", ge=0)] = 4_194_304
    upstream_client: Annotated[
        Literal["lean", "aiohttp"],
        _help('What speaks to upstreams; "aiohttp" costs more, and is there to fall back on.'),
    ] = "lean"


class AdminKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Opens the admin API and nothing else."""

    key: Annotated[str, _help("The secret, olk_ and at least 32 more characters, as env:NAME or file:PATH.")]
    role: Annotated[Role, _help("viewer: reads; finops: also sets budgets; admin: also manages keys.")]


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call."""

    mode: Annotated[
        Literal["keys", "open"], _help('"keys": a gateway key on each call; "open": anyone, loopback only.')
    ] = "keys"
    admin_keys: Annotated[
        dict[str, AdminKey], _help("Keys of the admin API by name, beside those of `outlay keys create --role`.")
    ] = {}


class LedgerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The journal and the data folder."""

    dir: Annotated[str, _help("Data folder; relative to the working directory.")] = "data"
    on_failure: Annotated[
        Literal["refuse", "forward"],
        _help("When the journal cannot be written: refuse calls (503), or forward them unrecorded."),
    ] = "refuse"
    sync: Annotated[
        Literal["interval", "answer"],
        _help('fdatasync "interval": each sync_ms; "answer": before the last byte of each answer.'),
    ] = "interval"
    sync_ms: Annotated[int, _help("Group commit interval, milliseconds.", ge=1, le=10_000)] = 50
    segment_seconds: Annotated[int, _help("A journal segment is handed to sealing after this long.", ge=1)] = 300
    segment_bytes: Annotated[int, _help("… or when it has this many bytes.", ge=4096)] = 67_108_864
    reserve_bytes: Annotated[
        int, _help("Kept free on the disk so that calls in flight can still be recorded when it is full.", ge=0)
    ] = 4_194_304
    synthetic: Annotated[bool, _help("Marks all data as made up (set by `outlay demo`).")] = False


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One provider address. Reached at /NAME/… and, for openai, anthropic, gemini, bedrock, at bare paths too."""

    base_url: Annotated[str, _help("Scheme, host and path prefix; the rest of the client's path is appended.")]
    provider: Annotated[str, _help("Who serves and bills, as in OpenTelemetry: openai, anthropic, gcp.gemini, …")]
    credential: Annotated[str | None, _help("The provider's key, as env:NAME or file:PATH.")] = None
    auth: Annotated[
        Literal["bearer", "x-api-key", "api-key", "x-goog-api-key"] | None,
        _help("Header that carries the credential; by default what the provider expects."),
    ] = None
    connect_seconds: Annotated[float, _help("Longest wait for a connection.", gt=0)] = 10.0
    idle_seconds: Annotated[
        float, _help("Longest silence, before the first byte and between two; keep above 300 for reasoning.", gt=0)
    ] = 900.0
    region: Annotated[
        str | None,
        _help("Where it computes, when that has a price of its own (us, eu, …); by default what its address tells."),
    ] = None
    include_usage: Annotated[
        bool | None,
        _help("Ask chat streams for usage where the client did not; by default where the provider needs it."),
    ] = None
    allow_unmetered_paths: Annotated[bool, _help("Forward paths that Outlay cannot meter.")] = False
    retries: Annotated[
        int, _help("Attempts after the first, where that one certainly cost nothing; tools retry, too.", ge=0, le=10)
    ] = 0
    retry_statuses: Annotated[
        tuple[int, ...], _help("Answers after which another attempt, here or at a fallback, may help.")
    ] = (429, 500, 502, 503, 529)
    retry_seconds: Annotated[
        float, _help("No attempt starts later than so long after the request; a longer retry-after is passed on.", ge=0)
    ] = 30.0
    fallbacks: Annotated[
        tuple[str, ...],
        _help("Upstreams that are asked, in this order, when the attempts here have failed; same models, same paths."),
    ] = ()
    breaker_failures: Annotated[
        int, _help("Failures in a row of one model after which the fallbacks are asked first; 0 = never.", ge=0)
    ] = 5
    breaker_seconds: Annotated[float, _help("… for so long, until one attempt finds out how it is.", gt=0)] = 30.0
    breaker_refuses: Annotated[
        bool, _help("Meanwhile refuse what no fallback takes, at once; by default it is forwarded all the same.")
    ] = False


class TicketSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which work items calls belong to."""

    policy: Annotated[
        TicketPolicy,
        _help('"required" refuses calls that name no ticket, "known" also tickets that the tracker does not know.'),
    ] = "optional"
    teams: Annotated[
        dict[str, TicketPolicy], _help("The same for single teams; a key may have a policy of its own, too.")
    ] = {}
    projects: Annotated[
        list[str],
        _help("Project keys (PAY) and repositories (acme/shop) that count; empty = any that the tracker knows."),
    ] = []
    patterns: Annotated[
        list[str], _help("Regular expressions of other ticket ids, like 'INC[0-9]{7}'; the whole match is the id.")
    ] = []
    deny: Annotated[
        list[str],
        _help("What looks like a project key in a branch and is none, beside the built-in list (UTF, SHA, CVE, …)."),
    ] = []
    worktrees: Annotated[
        list[str],
        _help(
            "Folders of this machine below which clients work: the branch of the checkout that they name is looked up. "
            "For a gateway beside its clients; empty = never."
        ),
    ] = []


class GitHubSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Issues, pull requests and deployments of GitHub's repositories."""

    repos: Annotated[list[str], _help("Repositories to read: acme/shop. None = GitHub is not read.")] = []
    token: Annotated[
        str | None,
        _help("As env:NAME or file:PATH; it may read contents, issues, pull requests, deployments, actions."),
    ] = None
    api: Annotated[str, _help("Address of the API; of GitHub Enterprise Server, https://HOST/api/v3.")] = (
        "https://api.github.com"
    )
    types: Annotated[
        dict[str, str], _help("Labels that say what kind of ticket an issue is, where it has no type.")
    ] = msgspec.field(default_factory=lambda: {"bug": "bug", "enhancement": "feature"})
    statuses: Annotated[
        dict[str, StatusCategory], _help("Labels of open issues that say how far they are: todo or in_progress.")
    ] = {}
    workflows: Annotated[
        list[str], _help("Workflows, by file name, whose runs on the default branch are deployments: deploy.yml.")
    ] = []
    webhook_secret: Annotated[
        str | None, _help("Of the webhook, as env:NAME or file:PATH. None = there is no /-/webhooks/github.")
    ] = None


class GitLabSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Issues, merge requests and deployments of GitLab's projects."""

    projects: Annotated[list[str], _help("Projects to read: acme/shop. None = GitLab is not read.")] = []
    token: Annotated[str | None, _help("As env:NAME or file:PATH; it needs the scope read_api.")] = None
    api: Annotated[str, _help("Address of the API; of your own GitLab, https://HOST/api/v4.")] = (
        "https://gitlab.com/api/v4"
    )
    types: Annotated[
        dict[str, str], _help("Labels that say what kind of ticket an issue is; bug stands for type::bug, too.")
    ] = msgspec.field(default_factory=lambda: {"bug": "bug", "feature": "feature", "maintenance": "task"})
    statuses: Annotated[
        dict[str, StatusCategory],
        _help("Labels of open issues that say how far they are: todo or in_progress. The first of them was the start."),
    ] = msgspec.field(
        default_factory=lambda: {"doing": "in_progress", "in progress": "in_progress", "in dev": "in_progress"}
    )
    resolutions: Annotated[
        dict[str, str],
        _help("Labels of closed issues that say how they ended; [work.resolutions] judges what is said."),
    ] = msgspec.field(default_factory=lambda: {"wontfix": "won't fix", "duplicate": "duplicate", "invalid": "invalid"})
    webhook_secret: Annotated[
        str | None, _help("Of the webhook, as env:NAME or file:PATH. None = there is no /-/webhooks/gitlab.")
    ] = None
    webhook_signing_token: Annotated[
        str | None, _help("… or its signing token, in the same way: then the secret alone is not enough.")
    ] = None


class JiraSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Issues of a Jira Cloud site."""

    projects: Annotated[list[str], _help("Keys of projects to read: PAY. None = Jira is not read.")] = []
    api: Annotated[str, _help("Address of the site: https://acme.atlassian.net.")] = ""
    user: Annotated[str, _help("E-mail address of the account that the token is of.")] = ""
    token: Annotated[str | None, _help("As env:NAME or file:PATH; its account may browse the projects.")] = None
    statuses: Annotated[
        dict[str, StatusCategory], _help("What statuses mean, by name or number, where the site's category is wrong.")
    ] = {}
    points: Annotated[
        str | None, _help("Field with the estimate, as customfield_10016; by default, the one called story points.")
    ] = None
    webhook_secret: Annotated[
        str | None, _help("Of the webhook, as env:NAME or file:PATH. None = there is no /-/webhooks/jira.")
    ] = None


class LinearSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Issues of Linear's teams."""

    teams: Annotated[list[str], _help("Keys of teams to read: ENG. None = Linear is not read.")] = []
    token: Annotated[str | None, _help("As env:NAME or file:PATH; a key that may read.")] = None
    api: Annotated[str, _help("Address of the API.")] = "https://api.linear.app"
    types: Annotated[dict[str, str], _help("Labels that say what kind of ticket an issue is.")] = msgspec.field(
        default_factory=lambda: {"bug": "bug", "feature": "feature", "improvement": "feature"}
    )
    webhook_secret: Annotated[
        str | None, _help("Of the webhook, as env:NAME or file:PATH. None = there is no /-/webhooks/linear.")
    ] = None


class GitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Clones on this machine, where there is no forge to read, or beside it: what deployments carried."""

    branch: Annotated[
        str | None, _help("Their default branch; by default the remote's, as the clone knows it, or what it is at.")
    ] = None
    deploy_tags: Annotated[
        str | None, _help('Tags, as "v*", whose commits were deployed to production when they were tagged.')
    ] = None
    clones: Annotated[
        dict[str, str], _help("Folders by repository. Nobody fetches here: a job of yours keeps them current.")
    ] = {}


class WorkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `outlay sync` reads, and how; each tracker has a section of its own."""

    every_minutes: Annotated[
        float, _help("The control plane reads the trackers below so often; 0 = only `outlay sync` does.", ge=0)
    ] = 15.0
    wait_minutes: Annotated[
        float, _help("Longest wait for a tracker's limits, in all; the next sync goes on from there.", ge=0)
    ] = 60.0
    history_days: Annotated[
        int, _help("How far back a first sync reads pull requests and deployments; it reads all tickets.", ge=1)
    ] = 365
    environments: Annotated[
        list[str], _help("Environments that are production, in any case of letters: their deployments are read.")
    ] = msgspec.field(default_factory=lambda: ["production", "prod", "live"])
    exclude: Annotated[
        list[str],
        _help(
            "Generated files, as .gitattributes names files, beside lock files, vendor/, dist/, … and those it marks."
        ),
    ] = []
    bots: Annotated[list[str], _help("Users that are programs, where the tracker does not say so.")] = []
    resolutions: Annotated[
        dict[str, bool],
        _help(
            "Whether tickets that ended so were delivered, beside Won't Do, Duplicate, not_planned, … which were not: "
            "words of your own, or in another language."
        ),
    ] = {}
    github: GitHubSettings = GitHubSettings()
    gitlab: GitLabSettings = GitLabSettings()
    jira: JiraSettings = JiraSettings()
    linear: LinearSettings = LinearSettings()
    git: GitSettings = GitSettings()


class PriceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price book."""

    policy: Annotated[
        Literal["block", "estimate", "allow"],
        _help("A model without a price: refuse it, take a flagged fallback price, or book it as unpriced."),
    ] = "estimate"
    overrides: Annotated[
        str | None,
        _help(
            "TOML file with own prices, aliases and discounts. By default prices.toml beside this file, if it is there."
        ),
    ] = None


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Notices about budgets and odd spending, and where they go."""

    slack: Annotated[
        str | None, _help("Slack-compatible incoming webhook: where its URL is, as env:NAME or file:PATH.")
    ] = None
    webhook: Annotated[
        str | None, _help("Notices are posted there as signed JSON: a URL, or where it is: env:NAME or file:PATH.")
    ] = None
    webhook_secret: Annotated[
        str | None, _help("They are signed with this: env:NAME or file:PATH of whsec_… (base64), or of any other text.")
    ] = None
    log: Annotated[bool, _help("Notices go to the gateway's log, too.")] = True
    velocity_factor: Annotated[
        float, _help("Tell when a key spends so many times its own usual in an hour; 0 = never.", ge=0)
    ] = 5.0
    velocity_usd: Annotated[Decimal, _help("… and at least so many US dollars.")] = Decimal(10)
    runaway_calls: Annotated[int, _help("Tell when a task makes so many calls within an hour; 0 = never.", ge=0)] = 1000
    runaway_usd: Annotated[Decimal, _help("Tell when a task spends so many US dollars within an hour; 0 = never.")] = (
        Decimal(100)
    )


CHEAPER_MODELS = {
    "claude-*opus*": "claude-haiku-4-5",
    "claude-*sonnet*": "claude-haiku-4-5",
    "gpt-5*": "gpt-5-mini",
    "gpt-4.1*": "gpt-4.1-mini",
    "gpt-4o*": "gpt-4o-mini",
    "o1*": "o4-mini",
    "o3": "o4-mini",
    "o3-[0-9p]*": "o4-mini",
    "gemini-*-pro*": "gemini-2.5-flash",
}


class WasteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds of the rules of waste. Another threshold is another version of its rule (docs/waste.md)."""

    every_minutes: Annotated[
        int, _help("How often the control plane looks for waste; 0 = only when a report asks for it.", ge=0)
    ] = 60
    notice_usd: Annotated[
        Decimal, _help("Tell of new findings that claim at least so many US dollars together; 0 = never.")
    ] = Decimal(10)
    window_days: Annotated[int, _help("Calls of the last so many days are looked at.", ge=1, le=4000)] = 400
    fixed_days: Annotated[
        int, _help("An accepted finding is fixed when no call came for so long, and regressed when one comes.", ge=1)
    ] = 14
    w02_attempts: Annotated[int, _help("Retry storm: attempts at one request, at least …", ge=2)] = 4
    w02_failures: Annotated[int, _help("… of which so many failed …", ge=1)] = 2
    w02_minutes: Annotated[int, _help("… within so many minutes.", ge=1)] = 10
    w03_calls: Annotated[int, _help("Agent loop: the same action and result so many times in a row; …", ge=2)] = 5
    w03_free: Annotated[int, _help("… the first of them are not counted.", ge=1)] = 3
    w03_polling_seconds: Annotated[
        int, _help("Calls that are so far apart, on average, may be waiting for something.", ge=1)
    ] = 60
    w05_minutes: Annotated[
        int, _help("Truncated: asked again, with a larger maximum, within so many minutes.", ge=1)
    ] = 10
    w06_tokens: Annotated[int, _help("Cache miss: of prefixes of at least so many tokens …", ge=1)] = 1024
    w06_minutes: Annotated[int, _help("… that were sent so many minutes before.", ge=1)] = 5
    w06_tokens_of: Annotated[
        dict[str, int], _help("The smallest prefix that a provider caches, where it is another one.")
    ] = {}
    w06_minutes_of: Annotated[dict[str, int], _help("How long a provider keeps a prefix, where it is longer.")] = {}
    w07_tokens: Annotated[int, _help("Dead cache write: writes of at least so many tokens …", ge=1)] = 1024
    w07_minutes: Annotated[int, _help("… that are so old, to a prefix that was never read.", ge=1)] = 60
    w08_tokens: Annotated[int, _help("Context bloat: more input tokens than this, and …", ge=1)] = 100_000
    w08_times: Annotated[float, _help("… than so many times the 75th percentile of the model and client, …", ge=1)] = (
        3.0
    )
    w08_output: Annotated[float, _help("… and output of less than this part of it.", gt=0, le=1)] = 0.005
    w08_baseline: Annotated[int, _help("The percentile is of at least so many calls.", ge=1)] = 50
    w09_calls: Annotated[int, _help("Idle tools: sessions of at least so many calls …", ge=1)] = 5
    w09_tokens: Annotated[int, _help("… whose tools' descriptions have so many tokens …", ge=1)] = 5000
    w09_minutes: Annotated[int, _help("… and that have ended: no call for so long.", ge=0)] = 60
    w10_cheaper: Annotated[
        dict[str, str],
        _help("Overpowered model: which cheaper model might do for short questions, by globs of the dear ones."),
    ] = msgspec.field(default_factory=lambda: dict(CHEAPER_MODELS))
    w10_input_tokens: Annotated[int, _help("A question is short with so many input tokens …", ge=1)] = 2000
    w10_output_tokens: Annotated[int, _help("… and so many output tokens, at most.", ge=1)] = 200
    w11_tokens: Annotated[int, _help("Excess reasoning: at least so many tokens, …", ge=1)] = 4000
    w11_times: Annotated[float, _help("… more than so many times the median of the model and client, …", ge=1)] = 4.0
    w11_part: Annotated[float, _help("… and at least this part of the output.", gt=0, le=1)] = 0.95
    w11_baseline: Annotated[int, _help("The median is of at least so many calls.", ge=1)] = 50
    w11_purposes: Annotated[tuple[str, ...], _help("Purposes whose problems are hard, and are left out.")] = (
        "research",
    )
    w12_calls: Annotated[int, _help("Clockwork: sessions of at least so many calls …", ge=3)] = 30
    w12_hours: Annotated[float, _help("… over so many hours …", gt=0)] = 4.0
    w12_variation: Annotated[
        float, _help("… whose pauses vary less than this: standard deviation by mean.", gt=0, le=1)
    ] = 0.15
    w13_calls: Annotated[
        int, _help("Runaway: sessions of at least so many calls, with at most one human turn in so many, …", ge=2)
    ] = 100
    w13_usd: Annotated[Decimal, _help("… that cost more than so many US dollars …")] = Decimal(5)
    w13_times: Annotated[float, _help("… and so many times the 95th percentile of sessions of the client.", ge=1)] = 5.0
    w13_baseline: Annotated[int, _help("The percentile is of at least so many sessions.", ge=1)] = 30
    w14_hours: Annotated[
        int, _help("Ghost ticket: the tracker was read, or the ticket cancelled, so long after or before a call.", ge=0)
    ] = 24
    w15_hours: Annotated[int, _help("Dead work: the tracker was read so long after the last call, …", ge=0)] = 24
    w15_days: Annotated[int, _help("… no call for so long, …", ge=1)] = 30
    w15_usd: Annotated[Decimal, _help("… and at least so many US dollars spent.")] = Decimal("0.50")
    w15_types: Annotated[tuple[str, ...], _help("Kinds of tickets that need no pull request, in small letters.")] = (
        "spike",
        "research",
        "support",
    )
    w16_days: Annotated[int, _help("Reverted work: pull requests reverted within so many days of the merge.", ge=1)] = (
        30
    )
    w17_hours: Annotated[int, _help("Spend after done: calls so long after the ticket was delivered.", ge=1)] = 72
    w17_types: Annotated[tuple[str, ...], _help("Kinds of tickets that go on after that, in small letters.")] = (
        "docs",
        "documentation",
        "support",
    )
    w18_calls: Annotated[int, _help("Tag stuffing: somebody typed a ticket in so many times …", ge=1)] = 5
    w18_usd: Annotated[Decimal, _help("… for so many US dollars, …")] = Decimal(1)
    w18_part: Annotated[float, _help("… this part of it, at least, not on a branch of the ticket.", gt=0, le=1)] = 0.8


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sign-in to the console with an identity provider (OpenID Connect)."""

    issuer: Annotated[
        str, _help("Its address, below which /.well-known/openid-configuration is. Empty = there is no such sign-in.")
    ] = ""
    client_id: Annotated[str, _help("What it calls the console.")] = ""
    client_secret: Annotated[
        str | None, _help("As env:NAME or file:PATH; none for a client that proves itself with PKCE alone.")
    ] = None
    scopes: Annotated[tuple[str, ...], _help("What is asked for.")] = ("openid", "email", "groups")
    role_claim: Annotated[str, _help("Claim of the ID token that says what somebody may: a text, or a list.")] = (
        "groups"
    )
    roles: Annotated[
        dict[str, Role],
        _help("Role by value of that claim; who has several gets the highest, who has none gets in not."),
    ] = {}


class ConsoleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The control plane: a process that seals the journal and keeps outlay.duckdb, and one that serves the console."""

    enabled: Annotated[bool, _help("Start them with `outlay serve`.")] = True
    pages: Annotated[bool, _help("… the console, too; `outlay console` serves it alone.")] = True
    host: Annotated[
        str, _help("Address to bind. Anything but loopback needs url, and an admin key or [console.oidc].")
    ] = "127.0.0.1"
    port: Annotated[int, _help("TCP port; 0 = any free one.", ge=0, le=65535)] = 8081
    url: Annotated[
        str, _help("Where people reach it, as https://outlay.example.com; by default http:// with host and port.")
    ] = ""
    timezone: Annotated[str, _help("Zone that moments are shown in, unless a viewer chooses another.")] = "UTC"
    idle_minutes: Annotated[float, _help("A session ends after so long without a page.", gt=0)] = 60.0
    session_hours: Annotated[float, _help("… and so long after the sign-in at the latest.", gt=0)] = 12.0
    query_seconds: Annotated[float, _help("A query that takes longer is given up.", gt=0)] = 30.0
    queries: Annotated[int, _help("So many run at a time; others wait for them.", ge=1, le=64)] = 4
    oidc: OidcSettings = OidcSettings()


class ScorecardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How delivered work is measured. A change is a new version, and holds from the next quarter on."""

    period: Annotated[Literal["month", "quarter"], _help("Window that teams are looked at in.")] = "month"
    epic_types: Annotated[
        tuple[str, ...],
        _help("Types of tickets that are no piece of work: what is below them is not one. Lower-case letters only."),
    ] = ("epic", "initiative", "theme", "milestone", "project", "feature")
    merged_repos: Annotated[
        tuple[str, ...],
        _help("Repositories that are not deployed, like libraries: a change arrives when it is merged."),
    ] = ()
    join_hours: Annotated[
        int, _help("Pull requests of one author merged so many hours apart may be one piece of work; 0 = never.", ge=0)
    ] = 72
    join_overlap: Annotated[float, _help("… if they share this part of their files.", gt=0, le=1)] = 0.5
    join_lines: Annotated[
        int, _help("Those of fewer lines each that one author merged on one day (UTC) are one piece; 0 = never.", ge=0)
    ] = 150
    settle_days: Annotated[int, _help("Work counts so long after it arrived; until then it is pending.", ge=0)] = 14
    tiny_lines: Annotated[int, _help("Work of so few lines that nobody else approved counts nothing.", ge=0)] = 5
    first_median_lines: Annotated[
        int, _help("Lines of a usual piece of work, until there was a quarter to take the median of.", ge=1)
    ] = 100
    units_min: Annotated[int, _help("With fewer pieces of work, numbers say too little to be shown.", ge=1)] = 20
    windows_min: Annotated[int, _help("With fewer earlier windows, nothing is compared.", ge=1)] = 4
    windows_back: Annotated[int, _help("So many earlier windows are a team's own past.", ge=1)] = 8
    builders_min: Annotated[int, _help("Groups of fewer people are shown together with others, or not.", ge=2)] = 5
    signal_min: Annotated[
        int, _help("So many pull requests or tickets are the fewest that a sign of gaming is about.", ge=1)
    ] = 10
    signal_share: Annotated[
        float, _help("… and this part of all: of pull requests, or of the spend on tickets.", gt=0, le=1)
    ] = 0.25
    signal_growth: Annotated[float, _help("Pull requests that grew by this factor are looked at, …", gt=1)] = 1.5
    signal_spend: Annotated[float, _help("… and spend that grew by this one, …", gt=1)] = 2
    signal_flat: Annotated[float, _help("… when what came of them grew by this one at most.", gt=0)] = 1.1
    signal_parts: Annotated[int, _help("So many pull requests in one piece of work are a split one.", ge=2)] = 4
    signal_minutes: Annotated[
        int,
        _help("Tickets closed, and pull requests merged, within so many minutes of being opened are looked at.", ge=1),
    ] = 10
    signal_burst_days: Annotated[int, _help("In the last so many days of a window …", ge=1)] = 3
    signal_burst: Annotated[float, _help("… so many times the usual number arrives.", gt=1)] = 3
    signal_parked: Annotated[
        float, _help("A ticket that costs so many times the median may carry what is for others.", gt=1)
    ] = 10
    signal_sessions: Annotated[
        int, _help("So many sessions are the fewest that a sign of gaming is about, …", ge=1)
    ] = 3
    signal_calls: Annotated[int, _help("… of at least so many calls, …", ge=3)] = 30
    signal_evenness: Annotated[float, _help("… whose pauses vary by this part of their mean at most.", gt=0)] = 0.15
    samples: Annotated[int, _help("Of the bootstrap that intervals come from.", ge=50, le=2000)] = 200
    seed: Annotated[int, _help("… and its seed: the same data give the same interval.")] = 1


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told to an OpenTelemetry collector."""

    otlp: Annotated[
        str | None, _help("Spans and metrics are sent there over OTLP (HTTP, protobuf): the collector's address.")
    ] = None
    otlp_headers: Annotated[
        dict[str, str], _help("Header fields for it: name and where the value is, as env:NAME or file:PATH.")
    ] = {}
    service_name: Annotated[str, _help("service.name of what is sent.", min_length=1)] = "outlay"
    genai: Annotated[
        Literal["v1.41", "latest", "both"], _help("Which generation of OpenTelemetry's GenAI names to use.")
    ] = "v1.41"
    outlay_attributes: Annotated[bool, _help("Spans also have outlay.* attributes: ticket, task, team, cost.")] = True
    emit_estimates: Annotated[bool, _help("Counts of tokens are told also where no provider reported them.")] = False
    metrics_seconds: Annotated[float, _help("Metrics are sent so often.", gt=0)] = 60.0


DEFAULT_UPSTREAMS: dict[str, Upstream] = {
    "openai": Upstream(base_url="https://api.openai.com", provider="openai", credential="env:OPENAI_API_KEY"),
    "anthropic": Upstream(
        base_url="https://api.anthropic.com", provider="anthropic", credential="env:ANTHROPIC_API_KEY"
    ),
    "gemini": Upstream(
        base_url="https://generativelanguage.googleapis.com", provider="gcp.gemini", credential="env:GEMINI_API_KEY"
    ),
}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: Server = Server()
    auth: Auth = Auth()
    ledger: LedgerSettings = LedgerSettings()
    tickets: TicketSettings = TicketSettings()
    work: WorkSettings = WorkSettings()
    prices: PriceSettings = PriceSettings()
    console: ConsoleSettings = ConsoleSettings()
    budgets: dict[str, BudgetTable] = {}
    limits: dict[str, LimitTable] = {}
    guards: dict[str, GuardTable] = {}
    alerts: AlertSettings = AlertSettings()
    scorecard: ScorecardSettings = ScorecardSettings()
    waste: WasteSettings = WasteSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    upstreams: dict[str, Upstream] = msgspec.field(default_factory=lambda: dict(DEFAULT_UPSTREAMS))
    file: str | None = None
    """Where it was read from; set by `load`, not a setting."""


REFERENCE = re.compile(r"(env|file):\S+")
PROJECT = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
"""What `ticket_keys` reads before the number."""
UPSTREAM_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
RESERVED_UPSTREAM_NAMES = frozenset({"-", "t", "v1", "v1beta", "model"})


def load(path: Path) -> Config:
    """Read and validate a settings file.

    Raises `UserError` with one line per problem. A missing file is an error: the built-in defaults are `Config()`.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    try:
        tables = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: is not valid TOML: {error}") from None
    problems = [f"{path}:{_line_of(source, keys)}: {message}" for keys, message in _wrong_names(tables, Config, ())]
    if not problems:
        try:
            config = msgspec.structs.replace(msgspec.convert(tables, Config), file=str(path))
        except msgspec.ValidationError as error:
            message, keys = _wrong_value(error, tables)
            section = f"[{'.'.join(keys[:-1])}] " if keys[:-1] else ""
            problems.append(f"{path}:{_line_of(source, keys)}: {section}{keys[-1]}: {message}")
        else:
            problems += [f"{path}:{_line_of(source, keys)}: {message}" for keys, message in _contradictions(config)]
    if problems:
        raise UserError("\n".join(problems))
    return config


def secret(reference: str) -> str | None:
    """The value behind `env:NAME` or `file:PATH`; `None` when it is not set or cannot be read."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        return os.environ.get(name, "").strip() or None
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def why_none(reference: str) -> str:
    """Why `secret` finds nothing there, to be said."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        return f"{reference} is not set"
    try:
        Path(name).read_text(encoding="utf-8")
    except OSError as error:
        return f"{reference} cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return f"{reference} is no text"
    return f"{reference} is empty"


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """What each single setting cannot show."""
    if config.auth.mode == "open" and not is_loopback(config.server.host):
        yield (
            ("auth", "mode"),
            '[auth] mode = "open" serves anyone: bind [server] host = "127.0.0.1" or use mode = "keys"',
        )
    for name, admin in config.auth.admin_keys.items():
        entry = ("auth", "admin_keys", name)
        if not UPSTREAM_NAME.fullmatch(name):
            yield entry, f"[auth.admin_keys.{name}] the name is shown in logs: write lower-case letters, digits, - or _"
        if not REFERENCE.fullmatch(admin.key):
            yield (
                (*entry, "key"),
                f"[auth.admin_keys.{name}] key must be env:NAME or file:PATH: the key itself does not belong here",
            )
    for name in config.tickets.projects:
        if not PROJECT.fullmatch(name) and ("/" not in name or repo_name(name) != name):
            meant = repo_name(name) if "/" in name else re.split(r"[^A-Za-z0-9_]", name)[0].upper()
            is_one = meant is not None and ("/" in meant or PROJECT.fullmatch(meant))
            advice = (
                f"did you mean {meant}?" if is_one else "write a project's key, as PAY, or a repository, as acme/shop"
            )
            yield ("tickets", "projects"), f"[tickets] projects: no ticket can be of {name[:100]!r}; {advice}"
    for pattern in config.tickets.patterns:
        try:
            is_too_wide = re.compile(pattern).fullmatch("") is not None
        except re.error as error:
            yield ("tickets", "patterns"), f"[tickets] patterns: {pattern!r} is no regular expression: {error}"
        else:
            if is_too_wide:
                yield ("tickets", "patterns"), f"[tickets] patterns: {pattern!r} matches the empty text: narrow it"
    if config.tickets.worktrees and not is_loopback(config.server.host):
        yield (
            ("tickets", "worktrees"),
            '[tickets] worktrees needs [server] host = "127.0.0.1": else folders of other machines are looked up here',
        )
    for folder in config.tickets.worktrees:
        if not os.path.isabs(os.path.expanduser(folder)):  # noqa: PTH111, PTH117 - this one never raises
            yield ("tickets", "worktrees"), f"[tickets] worktrees: {folder!r} must be an absolute path, or start with ~"
    yield from _console_contradictions(config)
    yield from _work_contradictions(config.work)
    yield from _git_contradictions(config.work.git)
    yield from _webhook_contradictions(config.work)
    for name, table in config.budgets.items():
        try:
            budget_of(name, table)
        except UserError as error:
            yield ("budgets", name), f"[budgets.{name}] {str(error).removeprefix(f'budget {name}: ')}"
    for name, limit in config.limits.items():
        try:
            limit_of(name, limit)
        except UserError as error:
            yield ("limits", name), f"[limits.{name}] {error}"
    for name, guard in config.guards.items():
        try:
            guard_of(name, guard)
        except UserError as error:
            yield ("guards", name), f"[guards.{name}] {error}"
    telemetry = config.telemetry
    if telemetry.otlp is not None and not _is_address(telemetry.otlp):
        yield ("telemetry", "otlp"), "[telemetry] otlp must look like http://host:4318, without a path like /v1/traces"
    for name, reference in telemetry.otlp_headers.items():
        if not REFERENCE.fullmatch(reference):
            at = ("telemetry", "otlp_headers")
            yield at, f"[telemetry] otlp_headers: {name} must be env:NAME or file:PATH: the value does not belong here"
    alerts = config.alerts
    for name in ("velocity_usd", "runaway_usd"):
        if getattr(alerts, name) < 0:
            yield ("alerts", name), f"[alerts] {name} must be 0 or more"
    for name in ("notice_usd", "w13_usd", "w15_usd", "w18_usd"):
        if getattr(config.waste, name) < 0:
            yield ("waste", name), f"[waste] {name} must be 0 or more"
    if alerts.slack is not None and not REFERENCE.fullmatch(alerts.slack):
        yield ("alerts", "slack"), "[alerts] slack must be env:NAME or file:PATH: who has the address can post there"
    if alerts.webhook is not None and not re.fullmatch(r"(env|file):\S+|https?://\S+", alerts.webhook):
        yield ("alerts", "webhook"), "[alerts] webhook must be https://…, env:NAME or file:PATH"
    if alerts.webhook_secret is not None and not REFERENCE.fullmatch(alerts.webhook_secret):
        yield ("alerts", "webhook_secret"), "[alerts] webhook_secret must be env:NAME or file:PATH"
    if alerts.webhook is not None and alerts.webhook_secret is None:
        yield ("alerts", "webhook"), "[alerts] webhook needs webhook_secret, which its receiver checks notices with"
    for name, upstream in config.upstreams.items():
        at = ("upstreams", name)
        if not UPSTREAM_NAME.fullmatch(name) or name in RESERVED_UPSTREAM_NAMES:
            yield at, f"[upstreams.{name}] the name becomes a path: write lower-case letters, digits, - or _"
        if not _is_address(upstream.base_url):
            yield (*at, "base_url"), f"[upstreams.{name}] base_url must look like https://host or https://host/prefix"
        if upstream.credential is not None and not REFERENCE.fullmatch(upstream.credential):
            yield (
                (*at, "credential"),
                f"[upstreams.{name}] credential must be env:NAME or file:PATH: the key itself does not belong here",
            )
        if not all(400 <= status <= 599 for status in upstream.retry_statuses):
            yield (
                (*at, "retry_statuses"),
                f"[upstreams.{name}] retry_statuses must be from 400 to 599: any other answer is paid for",
            )
        for fallback in upstream.fallbacks:
            if fallback == name or fallback not in config.upstreams or upstream.fallbacks.count(fallback) > 1:
                others = ", ".join(each for each in config.upstreams if each != name) or "none is configured"
                yield (
                    (*at, "fallbacks"),
                    f"[upstreams.{name}] fallbacks: {fallback!r} must name another upstream, once: {others}",
                )
            elif config.upstreams[fallback].credential is None:
                yield (
                    (*at, "fallbacks"),
                    f"[upstreams.{name}] fallbacks: {fallback} needs a credential: what clients bring is never sent on",
                )


def _console_contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    console, oidc = config.console, config.console.oidc
    if console.url and not (re.fullmatch(r"https?://[^\s/?#@]+", console.url) and _is_address(console.url)):
        yield ("console", "url"), "[console] url must look like https://outlay.example.com, without a path"
    if not is_loopback(console.host) and not console.url:
        yield (
            ("console", "host"),
            "[console] host is not 127.0.0.1: set url to the address that people use, which others are refused at",
        )
    if not is_loopback(console.host) and not config.auth.admin_keys and not oidc.issuer:
        yield (
            ("console", "host"),
            "[console] host is not 127.0.0.1: set an admin key ([auth.admin_keys.NAME]) or [console.oidc] for sign-in",
        )
    try:
        ZoneInfo(console.timezone)
    except (KeyError, ValueError, OSError):
        yield ("console", "timezone"), f"[console] timezone: there is no zone {console.timezone!r}; as Europe/Berlin"
    at = ("console", "oidc")
    if oidc.issuer:
        if not _is_address(oidc.issuer):
            yield (*at, "issuer"), "[console.oidc] issuer must look like https://login.example.com or …/realms/acme"
        elif oidc.issuer.startswith("http://") and not is_loopback(urlsplit(oidc.issuer).hostname or ""):
            yield (*at, "issuer"), "[console.oidc] issuer must be https://…: else anybody in between is an admin"
        if not oidc.client_id:
            yield at, '[console.oidc] needs "client_id"'
        if "openid" not in oidc.scopes:
            yield (*at, "scopes"), '[console.oidc] scopes must have "openid"'
        if not oidc.roles:
            yield at, "[console.oidc] roles is empty: name a value of the claim and its role, or nobody gets in"
    if oidc.client_secret is not None and not REFERENCE.fullmatch(oidc.client_secret):
        yield (
            (*at, "client_secret"),
            "[console.oidc] client_secret must be env:NAME or file:PATH: the secret itself does not belong here",
        )


def _work_contradictions(work: WorkSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    for tracker, setting, pattern, example in (
        ("github", "repos", r"[\w-]+/[\w.-]+", "owner and name, as acme/shop"),
        ("gitlab", "projects", r"[\w.-]+(/[\w.-]+)+", "group and name, as acme/shop"),
        ("jira", "projects", r"[A-Z][A-Z0-9_]+", "a project's key, as PAY"),
        ("linear", "teams", r"[A-Z][A-Z0-9]*", "a team's key, as ENG"),
    ):
        settings, at = getattr(work, tracker), ("work", tracker)
        for name in getattr(settings, setting):
            if not re.fullmatch(pattern, name, re.ASCII):
                yield (*at, setting), f"[work.{tracker}] {setting}: {name!r} must be {example}"
        if settings.token is not None and not REFERENCE.fullmatch(settings.token):
            yield (
                (*at, "token"),
                f"[work.{tracker}] token must be env:NAME or file:PATH: the token itself does not belong here",
            )
        if not _is_address(settings.api) and (settings.api or getattr(settings, setting)):
            yield (*at, "api"), f"[work.{tracker}] api must look like https://host or https://host/prefix"
    for tracker in ("github", "gitlab"):
        if "done" in getattr(work, tracker).statuses.values():
            yield (
                ("work", tracker, "statuses"),
                f"[work.{tracker}] statuses: an issue is done when it is closed; write todo or in_progress",
            )
    if work.jira.projects and not work.jira.user:
        yield ("work", "jira", "user"), "[work.jira] user is missing: write the e-mail address of the token's account"


def _webhook_contradictions(work: WorkSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, settings in (
        ("github", work.github), ("gitlab", work.gitlab), ("jira", work.jira), ("linear", work.linear),
    ):  # fmt: skip
        for setting in ("webhook_secret", "webhook_signing_token"):
            value = getattr(settings, setting, None)
            if value is not None and not REFERENCE.fullmatch(value):
                yield (
                    ("work", name, setting),
                    f"[work.{name}] {setting} must be env:NAME or file:PATH: the secret itself does not belong here",
                )


def _git_contradictions(git: GitSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    at = ("work", "git")
    for repo in git.clones:
        if repo_name(repo) != repo:
            yield (*at, "clones", repo), f"[work.git.clones] {repo!r} must be a repository's name, as acme/shop"
    for name, value in (("branch", git.branch), ("deploy_tags", git.deploy_tags)):
        if value is not None and not re.fullmatch(r"[\w*?][\w./*?+-]*", value):
            yield (*at, name), f"[work.git] {name}: {value!r} is no name of a branch or of tags"


def _is_address(base_url: str) -> bool:
    """Scheme, host, perhaps a port and a prefix; no credential, which belongs into `credential`."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", base_url):
        return False
    try:
        parts = urlsplit(base_url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, half a bracket
        return False


def _wrong_names(table: dict[str, Any], struct: Any, at: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    hints = get_type_hints(struct)
    names = [name for name in hints if name != "file"]
    found: list[tuple[tuple[str, ...], str]] = []
    for key, value in table.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            advice = f'; did you mean "{near[0]}"?' if near else f"; known here: {', '.join(names)}"
            kind = "setting" if at else "section"
            found.append(((*at, key), f'[{".".join(at) or key}] unknown {kind} "{key}"{advice}'))
        elif get_origin(hints[key]) is dict and isinstance(value, dict):
            for name, inner in value.items():
                if isinstance(inner, dict):
                    found += _wrong_names(inner, get_args(hints[key])[1], (*at, key, name))
        elif isinstance(value, dict) and isinstance(hints[key], type) and issubclass(hints[key], msgspec.Struct):
            found += _wrong_names(value, hints[key], (*at, key))
    required = [field.encode_name for field in msgspec.structs.fields(struct) if field.required]
    found += [((*at,), f'[{".".join(at)}] needs "{name}"') for name in required if name not in table]
    return found


def _wrong_value(error: msgspec.ValidationError, tables: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What to write instead, and where. msgspec says "Expected `int`, got `str` - at `$.server.port`", with `[...]`
    for a key of a mapping, which is looked for."""
    message, _, where = str(error).partition(" - at `$")
    hint: Any = Config
    value: Any = tables
    keys: list[str] = []
    for field, index in re.findall(r"\.([^.\[\]`]+)|\[([^\]]+)\]", where):
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        if field:
            hint, value = get_type_hints(hint, include_extras=True)[field], value[field]
            keys.append(field)
        elif index == "...":
            hint = get_args(hint)[1]
            name = next(name for name in value if _is_wrong(value[name], hint))
            value = value[name]
            keys.append(name)
        else:
            hint, value = get_args(hint)[0], value[int(index)]
    return in_words(message, hint), tuple(keys) or ("file",)


def _is_wrong(value: Any, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return True
    return False


def _line_of(source: str, keys: tuple[str, ...]) -> int:
    """The line on which the setting `keys` (or else its table) stands; 1 when it cannot be found."""
    table: tuple[str, ...] = ()
    line_of_table = 1
    for number, line in enumerate(source.splitlines(), start=1):
        if header := re.match(r"\s*\[+([^\]]+)\]+", line):
            table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if table == keys[: len(table)]:
                line_of_table = number
                if table == keys:
                    return number
        elif (pair := re.match(r"\s*([\w\"'.-]+)\s*=", line)) and (*table, pair[1].strip("\"'")) == keys:
            return number
    return line_of_table
