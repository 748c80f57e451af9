"""What is measured: how each target starts, and what its calls need. A peer that is not installed is absent.

| target | what | installed where |
|---|---|---|
| direct | the upstream itself | |
| bare | the aiohttp pass-through of `bare` | |
| outlay | `outlay serve`, everything on but the control plane beside it | |
| outlay-console | the same with it | |
| outlay-2, outlay-3 | with so many workers | |
| nginx | proxy_pass, one worker, nothing buffered | OUTLAY_BENCH_NGINX: the binary |
| litellm | LiteLLM proxy, one worker, a master key, no database | OUTLAY_BENCH_LITELLM: a venv |
| litellm-db | the same with a virtual key and spend tracking | also OUTLAY_BENCH_LITELLM_ENGINE: a program |
| portkey | Portkey's gateway on node: checks no key, knows no cost | OUTLAY_BENCH_PORTKEY: a folder |
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.harness import measure
from tests.benchmarks.harness.answers import Api
from tests.benchmarks.harness.load import Job, Outcome

ROOT = Path(__file__).parents[3]
CREDENTIAL = "sk-bench-0123456789abcdef"
CLIENT = {
    "user-agent": "OpenAI/Python 1.99.0", "accept": "application/json", "accept-encoding": "gzip, deflate",
    "x-stainless-lang": "python", "x-stainless-package-version": "1.99.0", "x-stainless-os": "Linux",
    "x-stainless-arch": "x64", "x-stainless-runtime": "CPython", "x-stainless-runtime-version": "3.11.7",
    "x-stainless-retry-count": "0", "x-stainless-read-timeout": "600",
}  # fmt: skip
TEAM, TICKET, BUDGETS = "bench", "BENCH-7", 100
COVERING = ("org", "each_ticket", "each_team", "each_key", "model:*mock-c*", "project:BENCH")
"""The scopes of the budgets that each call is under; the others are for somebody else."""


class Absent(Exception):  # noqa: N818 - names a state
    """A peer that is not installed."""


class NotUpError(Exception):
    """A target that was started and does not answer."""


class Recipe(msgspec.Struct, kw_only=True):
    """How to start a target, and how to call it."""

    command: Sequence[str | Path]
    environment: dict[str, str] = {}
    headers: dict[str, str] = {}
    apis: tuple[Api, ...] = ("chat", "messages", "responses")
    relays_bytes: bool = True
    excluded: str | None = None
    """In the command line of a child that only stands in for something: its CPU and memory are left out."""
    start_seconds: float = 30.0


@dataclass
class Target:
    """A running target."""

    name: str
    port: int
    recipe: Recipe
    process: subprocess.Popen[bytes]
    answered: int = 0
    """Calls with a good answer."""
    failed: int = 0
    complaints: list[str] = field(default_factory=list)

    def pids(self) -> list[int]:
        return measure.tree(self.process.pid, self.recipe.excluded)

    def load(self, job: Job) -> Outcome:
        """Run a load generator against it, to its end."""
        headers = {"authorization": f"Bearer {CREDENTIAL}", **CLIENT, **self.recipe.headers}
        job = msgspec.structs.replace(job, port=self.port, headers=headers, relays_bytes=self.recipe.relays_bytes)
        command = [sys.executable, "-m", "tests.benchmarks.harness.load"]
        done = subprocess.run(command, input=msgspec.json.encode(job), stdout=subprocess.PIPE, cwd=ROOT, check=True)
        outcome = msgspec.json.decode(done.stdout, type=Outcome)
        self.answered += outcome.ok
        self.failed += sum(outcome.errors.values())
        return outcome


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(name: str, folder: Path, upstream_port: int) -> Iterator[Target]:
    """Start it in a folder of its own, wait until it answers, stop it; what was wrong then stands in `complaints`.

    Raises `Absent` and `NotUpError`.
    """
    folder.mkdir()
    port = upstream_port if name == "direct" else free_port()
    recipe = RECIPES[name](folder, port, upstream_port)
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            recipe.command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
            env={**os.environ, **recipe.environment},
        )  # fmt: skip
    target = Target(name, port, recipe, process)
    try:
        _wait(target, log)
        yield target
        if name in OURS:
            measure.settle(target.pids())
            target.complaints += miscounted(metrics_of(target), target.answered)
            target.complaints += [f"{target.failed:,} calls failed"] if target.failed else []
    finally:
        _stop(process)
    if name in OURS:
        target.complaints += _unrecorded(target, folder / "data")


PROBE = Job(
    port=0, headers={}, api="chat", size="small", model="mock-c50d0", stream=False, connections=1, calls=1,
    patience_seconds=30,
)  # fmt: skip


def _wait(target: Target, log: Path) -> None:
    until = time.monotonic() + target.recipe.start_seconds
    while True:
        if target.process.poll() is not None or time.monotonic() > until:
            raise NotUpError(f"{target.name} did not come up: …{log.read_text(errors='replace')[-500:].strip()}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", target.port), timeout=1).close()
            if target.load(PROBE).ok:
                target.failed = 0
                return
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It and its children: they are a session of their own."""
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


# -- targets -------------------------------------------------------------------------------------------------------


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def _direct(folder: Path, port: int, upstream_port: int) -> Recipe:
    return Recipe(command=_module("tests.benchmarks.harness.upstream", port))


def _bare(folder: Path, port: int, upstream_port: int) -> Recipe:
    return Recipe(command=_module("tests.benchmarks.harness.bare", port, f"http://127.0.0.1:{upstream_port}"))


def _outlay(folder: Path, port: int, upstream_port: int, console: bool = False, workers: int = 1) -> Recipe:
    """Keys, tickets, 100 budgets, prices, the journal with its sync, metrics: as an installation has it."""
    data = folder / "data"
    upstreams = "".join(
        f'[upstreams.{name}]\nbase_url = "http://127.0.0.1:{upstream_port}"\nprovider = "{name}"\n'
        'credential = "env:BENCH_PROVIDER_KEY"\n'
        for name in ("openai", "anthropic")
    )
    (folder / "outlay.toml").write_text(
        f'[server]\nworkers = {workers}\n[ledger]\ndir = "{data}"\n'
        f'[tickets]\nprojects = ["{TICKET.partition("-")[0]}"]\n'
        f"[console]\nenabled = {str(console).lower()}\n{upstreams}"
    )
    others = [f"{('team', 'key', 'ticket', 'project')[n % 4]}:X{n // 4}" for n in range(BUDGETS - len(COVERING))]
    (folder / "budgets.toml").write_text(
        "".join(
            f'[budgets.b{n}]\nscope = "{scope}"\nlimit_usd = 1_000_000\n'
            for n, scope in enumerate((*COVERING, *others))
        )
    )
    rates = '{ input = "3", output = "15", cache_read = "0.30", cache_write = "3.75" }'
    (folder / "prices.toml").write_text(
        "".join(
            f'[[price]]\nprovider = "{provider}"\nmodel = "{prefix}mock-c{shape}"\nusd_per_million = {rates}\n'
            for provider, prefix in (("openai", ""), ("anthropic", "claude-"))
            for shape in SHAPES
        )
    )
    made = subprocess.run(
        _module("gateway", "keys", "create", "--team", TEAM, "--data", data, "--json"),
        stdout=subprocess.PIPE, cwd=ROOT, check=True,
    )  # fmt: skip
    return Recipe(
        command=_module("gateway", "serve", "--config", folder / "outlay.toml", "--port", port),
        environment={"BENCH_PROVIDER_KEY": CREDENTIAL},
        headers={"authorization": f"Bearer {json.loads(made.stdout)['secret']}", "x-outlay-ticket": TICKET},
    )


def _nginx(folder: Path, port: int, upstream_port: int) -> Recipe:
    binary = _installed("nginx")
    template = (Path(__file__).parent / "nginx.conf").read_text()
    for name, value in (("PORT", port), ("UPSTREAM", upstream_port), ("FOLDER", folder)):
        template = template.replace(f"@{name}@", str(value))
    (folder / "nginx.conf").write_text(template)
    return Recipe(command=[binary, "-p", folder, "-c", folder / "nginx.conf"])


def _portkey(folder: Path, port: int, upstream_port: int) -> Recipe:
    start = _installed("portkey") / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return Recipe(
        command=["node", start, f"--port={port}", "--headless"],
        environment={"NODE_ENV": "production"},
        headers={"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1"},
        apis=("chat", "responses"),
        relays_bytes=False,
    )


def _litellm(folder: Path, port: int, upstream_port: int) -> Recipe:
    """A master key, and the cost of each call computed; nothing is kept."""
    general = {"master_key": CREDENTIAL, "disable_spend_logs": True}
    return _litellm_with(folder, port, upstream_port, general, {})


def _litellm_db(folder: Path, port: int, upstream_port: int) -> Recipe:
    """A virtual key, and spend written to what stands in for Prisma's query engine: its own cost is left out."""
    engine = _installed("litellm-db")
    started = folder / "query-engine"
    started.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(engine))} "$@"\n')
    started.chmod(0o700)
    general = {"master_key": CREDENTIAL, "proxy_batch_write_at": 10, "database_connection_pool_limit": 10}
    environment = {
        "PRISMA_QUERY_ENGINE_BINARY": str(started), "DATABASE_URL": "postgresql://u:p@127.0.0.1:5999/none",
        "DISABLE_SCHEMA_UPDATE": "true", "LITELLM_SALT_KEY": "sk-salt-0123456789abcdef", "QE_KEY": VIRTUAL_KEY,
    }  # fmt: skip
    recipe = _litellm_with(folder, port, upstream_port, general, environment)
    return msgspec.structs.replace(
        recipe, excluded=str(engine), headers={"authorization": f"Bearer {VIRTUAL_KEY}"}, start_seconds=180
    )


def _litellm_with(
    folder: Path, port: int, upstream_port: int, general: dict[str, object], environment: dict[str, str]
) -> Recipe:
    programs = _installed("litellm") / "bin"
    url = f"http://127.0.0.1:{upstream_port}"
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"{provider}/{model}", "api_base": url + path, "api_key": CREDENTIAL,
                "input_cost_per_token": 3e-6, "output_cost_per_token": 15e-6,
            },
        }
        for provider, prefix, path in (("openai", "", "/v1"), ("anthropic", "claude-", ""))
        for model in (f"{prefix}mock-c{shape}" for shape in SHAPES)
    ]  # fmt: skip
    settings = {"num_retries": 0, "request_timeout": 600, "set_verbose": False}
    (folder / "litellm.yaml").write_text(
        json.dumps({"model_list": models, "litellm_settings": settings, "general_settings": general})
    )
    return Recipe(
        command=[
            programs / "litellm", "--config", folder / "litellm.yaml", "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", "1", "--telemetry", "False",
        ],
        environment={
            "PATH": f"{programs}:{os.environ.get('PATH', '')}", "HOME": str(folder), "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", **environment,
        },
        relays_bytes=False,
        start_seconds=150,
    )  # fmt: skip


def _installed(name: str) -> Path:
    variable, what = PEERS[name]
    if not (value := os.environ.get(variable)):
        raise Absent(f"set {variable} to {what}")
    if not Path(value).exists():
        raise Absent(f"{variable}: there is no {value}")
    return Path(value)


def absent(name: str) -> str | None:
    """Why a peer cannot be measured here."""
    try:
        for each in ("litellm", name) if name == "litellm-db" else (name,):
            _installed(each)
    except Absent as reason:
        return str(reason)
    return None


SHAPES = ("50d0", "200d0", "50d10", "200d10", "10d1000", "10d3000")
"""Of the models that cells ask for."""
VIRTUAL_KEY = "sk-bench-virtual-0123456789abcdef"
PEERS = {
    "nginx": ("OUTLAY_BENCH_NGINX", "the binary"),
    "litellm": ("OUTLAY_BENCH_LITELLM", "a venv with litellm[proxy]"),
    "litellm-db": ("OUTLAY_BENCH_LITELLM_ENGINE", "a program that stands in for Prisma's query engine"),
    "portkey": ("OUTLAY_BENCH_PORTKEY", "a folder with node_modules/@portkey-ai/gateway"),
}
RECIPES: dict[str, Callable[[Path, int, int], Recipe]] = {
    "direct": _direct,
    "bare": _bare,
    "outlay": _outlay,
    "outlay-console": partial(_outlay, console=True),
    "outlay-2": partial(_outlay, workers=2),
    "outlay-3": partial(_outlay, workers=3),
    "nginx": _nginx,
    "litellm": _litellm,
    "litellm-db": _litellm_db,
    "portkey": _portkey,
}
OURS = ("outlay", "outlay-console", "outlay-2", "outlay-3")


# -- did the gateway do its work? ----------------------------------------------------------------------------------

GOOD = {"result": "completed", "usage_source": "reported", "price_status": "exact"}
NEVER = {
    "outlay_unpriced_calls_total", "outlay_unattributed_cost_usd_total", "outlay_unrecorded_calls_total",
    "outlay_meter_failures_total",
}  # fmt: skip


def metrics_of(target: Target) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{target.port}/-/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def miscounted(metrics: str, answered: int) -> list[str]:
    """What `/-/metrics` has to say against it: calls that were lost, or not priced, or under too few budgets."""
    recorded = spent = 0
    complaints = []
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "outlay_calls_total" and GOOD.items() <= sample.labels.items():
                recorded += int(sample.value)
            elif sample.name in NEVER and sample.value:
                complaints.append(f"{sample.name} is {sample.value:g}")
            elif sample.name == "outlay_budget_spent_usd" and sample.value:
                spent += 1
    if recorded != answered:
        complaints.append(f"{answered:,} calls were answered, {recorded:,} counted as completed and priced")
    if spent != len(COVERING):
        complaints.append(f"{spent} budgets have spent anything, and {len(COVERING)} should have")
    return complaints


def _unrecorded(target: Target, data: Path) -> list[str]:
    """What the journal has to say, once the gateway has stopped."""
    done = subprocess.run(_module("gateway", "verify", "--data", data, "--json"), stdout=subprocess.PIPE, cwd=ROOT)
    found = json.loads(done.stdout)
    if found["calls"] < target.answered or found["wrong"]:
        return [f"{target.answered:,} calls were answered, {found['calls']:,} are on disk; wrong: {found['wrong']}"]
    return []
