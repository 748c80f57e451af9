"""Settings: the shipped file is complete and true, and each mistake is named with its line."""

from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from click.testing import CliRunner

from gateway import config
from gateway.budget_file import BudgetTable
from gateway.cli import outlay
from gateway.config import AdminKey, Config, Upstream, WorkSettings, load
from gateway.errors import UserError
from gateway.guards import GuardTable
from gateway.limits import LimitTable
from gateway.ticket_keys import TicketKeys

UPSTREAM = "[upstreams.a]\nbase_url = 'https://x'\nprovider = 'p'\n"
SHIPPED = Path(__file__).parent.parent / "config" / "outlay.toml"


def test_the_shipped_file_holds_the_defaults() -> None:
    assert msgspec.structs.replace(load(SHIPPED), file=None) == Config()


def settings() -> list[tuple[str, str, Any]]:
    """(section, setting, help) of every setting there is."""
    found = []
    tables: dict[str, Any] = {
        "budgets": BudgetTable, "guards": GuardTable, "limits": LimitTable, "upstreams": Upstream,
        "auth.admin_keys": AdminKey,
    }  # fmt: skip
    for name, hint in get_type_hints(WorkSettings).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            tables[f"work.{name}"] = hint
    for section, struct in {**get_type_hints(Config), **tables}.items():
        if section == "file":
            continue
        for name, hint in get_type_hints(struct, include_extras=True).items():
            if hasattr(hint, "__metadata__"):  # else a section of its own
                found.append((section, name, hint.__metadata__[0].description))
    return found


@pytest.mark.parametrize(("section", "name", "text"), settings())
def test_every_setting_stands_in_the_shipped_file_with_its_help(section: str, name: str, text: str) -> None:
    plain = " ".join(SHIPPED.read_text(encoding="utf-8").replace("#", " ").split())
    assert f"[{section}" in plain
    assert name in plain
    assert " ".join(text.split()) in plain


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("[server]\nprot = 1", '2: [server] unknown setting "prot"; did you mean "port"?'),
        ("\n[legder]", '2: [legder] unknown section "legder"; did you mean "ledger"?'),
        ("[server]\nport = 'x'", "2: [server] port: write a whole number, without quotes"),
        ("[server]\n\nport = 70000", "3: [server] port: Expected `int` <= 65535"),
        ("[ledger]\nsync = 'never'", "2: [ledger] sync: write one of interval, answer"),
        ("[auth]\nmode = 'open'\n[server]\nhost = '0.0.0.0'", '2: [auth] mode = "open" serves anyone'),
        *(
            (
                f"[upstreams.a]\nbase_url = '{url}'\nprovider = 'p'",
                "2: [upstreams.a] base_url must look like https://host",
            )
            for url in ("x", "http://h:99999", "http://h:abc", "http://[::1", "https://user:secret@h")
        ),
        ("[upstreams.a]\nbase_url = 'https://x'", '1: [upstreams.a] needs "provider"'),
        ("[upstreams.v1]\nbase_url = 'https://x'\nprovider = 'p'", "1: [upstreams.v1] the name becomes a path"),
        (
            "[upstreams.a]\nbase_url = 'https://x'\nprovider = 'p'\ncredential = 'sk-123'",
            "4: [upstreams.a] credential must be env:NAME or file:PATH",
        ),
        (f"{UPSTREAM}retry_statuses = [200]", "4: [upstreams.a] retry_statuses must be from 400 to 599"),
        (f"{UPSTREAM}fallbacks = ['b']", "4: [upstreams.a] fallbacks: 'b' must name another upstream, once: none is"),
        (f"{UPSTREAM}fallbacks = ['a']", "4: [upstreams.a] fallbacks: 'a' must name another upstream"),
        (
            f"{UPSTREAM}fallbacks = ['b']\n[upstreams.b]\nbase_url = 'https://x'\nprovider = 'p'",
            "4: [upstreams.a] fallbacks: b needs a credential",
        ),
        ("[tickets]\nprojects = ['PAY', 'pay']", "2: [tickets] projects: no ticket can be of 'pay'; did you mean PAY?"),
        ("[tickets]\nprojects = ['PAY-']", "2: [tickets] projects: no ticket can be of 'PAY-'; did you mean PAY?"),
        (
            "[tickets]\nprojects = ['https://github.com/acme/shop.git']",
            "2: [tickets] projects: no ticket can be of 'https://github.com/acme/shop.git'; did you mean acme/shop?",
        ),
        ("[tickets]\nprojects = ['1']", "no ticket can be of '1'; write a project's key, as PAY, or a repository"),
        ("[tickets]\npatterns = ['(']", "2: [tickets] patterns: '(' is no regular expression"),
        ("[tickets]\npatterns = ['[0-9]*']", "2: [tickets] patterns: '[0-9]*' matches the empty text"),
        ("[tickets]\nworktrees = ['~nobody-here/src']", "2: [tickets] worktrees: '~nobody-here/src' must be"),
        ("[tickets]\nworktrees = ['src']", "2: [tickets] worktrees: 'src' must be an absolute path"),
        (
            "[server]\nhost = '0.0.0.0'\n[tickets]\nworktrees = ['/src']",
            "4: [tickets] worktrees needs [server] host",
        ),
        ("[work.github]\nrepos = ['shop']", "2: [work.github] repos: 'shop' must be owner and name, as acme/shop"),
        ("[work.gitlab]\nprojects = ['shop']", "2: [work.gitlab] projects: 'shop' must be group and name"),
        ("[work.gitlab]\ntoken = 'glpat-x'", "2: [work.gitlab] token must be env:NAME or file:PATH"),
        ("[work.gitlab]\napi = 'gitlab.com'", "2: [work.gitlab] api must look like https://host"),
        ("[work.gitlab.statuses]\ndoing = 'done'", "1: [work.gitlab] statuses: an issue is done when it is closed"),
        ("[work.jira]\nprojects = ['pay']\nuser = 'a'", "2: [work.jira] projects: 'pay' must be a project's key"),
        ("[work.jira]\nprojects = ['PAY']\nuser = 'a'", "1: [work.jira] api must look like https://host"),
        ("[work.jira]\nprojects = ['PAY']\napi = 'https://a.example'", "1: [work.jira] user is missing"),
        (
            "[work.jira.statuses]\nReview = 'doing'",
            "2: [work.jira.statuses] Review: write one of todo, in_progress, done",
        ),
        ("[work.linear]\nteams = ['eng']", "2: [work.linear] teams: 'eng' must be a team's key, as ENG"),
        ("[tickets.teams]\npayments = 'always'", "2: [tickets.teams] payments: write one of optional, required, known"),
        (
            "[auth.admin_keys.a]\nkey = 'olk_x'\nrole = 'admin'",
            "2: [auth.admin_keys.a] key must be env:NAME or file:PATH",
        ),
        (
            "[auth.admin_keys.a]\nkey = 'env:A'\nrole = 'root'",
            "3: [auth.admin_keys.a] role: write one of viewer, finops, admin",
        ),
        ("[auth.admin_keys.a]\nkey = 'env:A'", '1: [auth.admin_keys.a] needs "role"'),
        ("[budgets.a]\nscope = 'org'", '1: [budgets.a] needs "limit_usd"'),
        ("[budgets.a]\nscope = 'squad:x'\nlimit_usd = 1", "1: [budgets.a] 'squad:x' is no scope"),
        ("[limits.a]\nin_flight = 1", '1: [limits.a] needs "scope"'),
        ("[limits.a]\nscope = 'org'", "1: [limits.a] limits nothing: write requests_per_minute"),
        ("[limits.a]\nscope = 'squad:x'\nin_flight = 1", "1: [limits.a] 'squad:x' is no scope"),
        ("[limits.a]\nscope = 'org'\nin_flight = 0", "3: [limits.a] in_flight: Expected `int` >= 1"),
        (
            "[limits.a]\nscope = 'org'\nusd_per_minute = 1e-10",
            "1: [limits.a] usd_per_minute must be more than 0, with nine",
        ),
        ("[guards.a]\nscope = 'org'\nretry_attempts = 0\nloop_calls = 0", "1: [guards.a] guards nothing: set"),
        ("[guards.a]\nscope = 'org'\nloop_calls = 1", "1: [guards.a] retry_attempts must be more than 2"),
        ("[guards.a]\nscope = 'org'\nrunaway_usd = -1", "1: [guards.a] runaway_usd must be 0 or more"),
        ("[limits.a]\nscope = 'org'\nrequests = 1", '3: [limits.a] unknown setting "requests"; did you mean'),
        ("[alerts]\nvelocity_usd = -1", "2: [alerts] velocity_usd must be 0 or more"),
        ("[alerts]\nslack = 'https://hooks.slack.com/sk-123'", "2: [alerts] slack must be env:NAME or file:PATH"),
        ("[alerts]\nwebhook = 'https://x'", "2: [alerts] webhook needs webhook_secret"),
        ("[alerts]\nwebhook = 'x'\nwebhook_secret = 'env:X'", "2: [alerts] webhook must be https://"),
        ("[alerts]\nwebhook_secret = 'sk-123'", "2: [alerts] webhook_secret must be env:NAME"),
        (
            "[budgets.a]\nscope = 'org'\nlimit_usd = 1\n\n[budgets.b]\nscope = 'org'\nlimit_usd = 'ten'",
            "7: [budgets.b] limit_usd: write a number, as 25 or 0.5",
        ),
        ("[budgets]\na = 3", "2: [budgets] a: write a table"),
        (
            "[budgets.a]\nscope = 'org'\nlimit_usd = 1\nwarn_at = ['x']",
            "4: [budgets.a] warn_at: write a number, without",
        ),
        (f"{UPSTREAM}retry_statuses = [500, '501']", "4: [upstreams.a] retry_statuses: write a whole number, without"),
        (f"{UPSTREAM}auth = 'basic'", "4: [upstreams.a] auth: write one of bearer, x-api-key, api-key, x-goog-api-key"),
        ("[tickets]\nprojects = 'PAY'", "2: [tickets] projects: write a list in brackets"),
        ("[ledger]\nsynthetic = 'true'", "2: [ledger] synthetic: write true or false, without quotes"),
        ("[ledger]\ndir = 3", "2: [ledger] dir: write text in quotes"),
        ("server = 3", "1: server: write a table"),
        ("[server", " is not valid TOML: "),
    ],
)
def test_mistakes(tmp_path: Path, source: str, expected: str) -> None:
    file = tmp_path / "outlay.toml"
    file.write_text(source, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load(file)
    assert str(error.value).startswith(str(file))
    assert expected in str(error.value)
    assert "sk-123" not in str(error.value)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "outlay.toml"
    file.write_text("[server]\nprot = 1\nhots = 'x'\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load(file)
    assert len(str(error.value).splitlines()) == 2


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", " sk-1\n")
    (tmp_path / "key").write_text("sk-2\n", encoding="utf-8")
    assert config.secret("env:A_KEY") == "sk-1"
    assert config.secret(f"file:{tmp_path / 'key'}") == "sk-2"
    assert config.secret("env:NOT_SET_ANYWHERE") is None
    assert config.secret(f"file:{tmp_path / 'none'}") is None


def test_projects_that_tickets_can_have(tmp_path: Path) -> None:
    projects = ["PAY", "X", "A_1", "acme/shop", "acme/platform/shop.js"]
    file = tmp_path / "outlay.toml"
    file.write_text(f"[tickets]\nprojects = {projects}\n", encoding="utf-8")
    assert load(file).tickets.projects == projects
    for name in projects:
        ticket = f"{name}#7" if "/" in name else f"{name}-7"
        assert TicketKeys(projects).named(ticket).tickets == (ticket,)


# -- outlay check ------------------------------------------------------------------------------------------------------


def notes(folder: Path, source: str) -> list[str]:
    file = folder / "outlay.toml"
    file.write_text(f"[ledger]\ndir = '{folder / 'data'}'\n{source}", encoding="utf-8")
    done = CliRunner().invoke(outlay, ["check", "--offline", "--config", str(file)])
    assert done.exit_code == 0
    return [line.removeprefix("note   ") for line in done.output.splitlines() if line.startswith("note")]


def test_check_names_what_is_hardly_meant(tmp_path: Path) -> None:
    source = "[upstreams.a]\nbase_url = '{}'\nprovider = '{}'\ncredential = 'env:HOME'\n"
    assert notes(tmp_path, source.format("https://api.openai.com/v1/", "opanai")) == [
        'a: unknown provider "opanai"; did you mean openai?',
        "a: base_url ends in /v1, which the paths of clients begin with: leave it out",
    ]
    assert notes(tmp_path, source.format("https://api.acme.example/v10", "acme")) == []


def test_check_names_secrets_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    missing, empty = f"file:{tmp_path}/none", f"file:{tmp_path}/empty"
    source = f"""
    [work.github]
    token = "env:NOT_SET_ANYWHERE"
    webhook_secret = "env:NOT_SET_EITHER"
    [work.gitlab]
    webhook_signing_token = "{missing}"
    [telemetry.otlp_headers]
    x-team = "{empty}"
    [console.oidc]
    client_secret = "{missing}"
    [upstreams.a]
    base_url = "https://a.example"
    provider = "openai"
    credential = "{missing}"
    """
    assert notes(tmp_path, source) == [
        "work.github: env:NOT_SET_ANYWHERE is not set: nothing is read there",
        "work.github: env:NOT_SET_EITHER is not set: its webhooks are not taken",
        f"work.gitlab: {missing} cannot be read: No such file or directory: its webhooks are not taken",
        f"telemetry: {empty} is empty: what is sent lacks the header x-team",
        f"console.oidc: {missing} cannot be read: No such file or directory: nobody can sign in there",
        f"a: {missing} cannot be read: No such file or directory: clients bring their own",
    ]
