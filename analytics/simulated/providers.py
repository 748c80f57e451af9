"""Simulated providers: OpenAI, Anthropic and Gemini on one real socket of this machine, each below its own path.

They check the credential, bill by the text they were sent, cache prompts, stream at a pace, fail now and then as the
real ones do, and keep a tally of what they served, to hold a ledger against. Everything they say is made up.
"""

import asyncio
import hashlib
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from aiohttp import web

from analytics.simulated import (
    anthropic_messages,
    gemini_generate,
    openai_chat,
    openai_embeddings,
    openai_responses,
    openai_shapes,
)
from analytics.simulated.turns import Billed, Prompt, PromptCache, Reply, Turn, answer, compact
from analytics.simulated.wire import Failed, Provider, Wire
from gateway.encodings import decoded

PROVIDERS = {
    provider.name: provider
    for provider in (openai_shapes.PROVIDER, anthropic_messages.PROVIDER, gemini_generate.PROVIDER)
}

Free = Callable[[str, bytes], Any]
"""(path and query, body) → the answer of a route that is not billed."""
OPERATIONS: dict[tuple[str, str], Wire | Free] = {
    ("openai", "/v1/chat/completions"): openai_chat.WIRE,
    ("openai", "/v1/responses"): openai_responses.WIRE,
    ("openai", "/v1/responses/input_tokens"): openai_responses.count,
    ("openai", "/v1/embeddings"): openai_embeddings.WIRE,
    ("anthropic", "/v1/messages"): anthropic_messages.WIRE,
    ("anthropic", "/v1/messages/count_tokens"): anthropic_messages.count,
    ("gemini", "generateContent"): gemini_generate.WIRE,
    ("gemini", "streamGenerateContent"): gemini_generate.WIRE,
    ("gemini", "countTokens"): gemini_generate.count,
    ("gemini", "embedContent"): gemini_generate.EMBEDDINGS,
    ("gemini", "batchEmbedContents"): gemini_generate.EMBEDDINGS,
}
"""By provider and path (Gemini: the verb at its end). All are POST; `GET …/models` is answered for each provider."""

Ended = Literal["completed", "error", "error_event", "cut", "client_left"]
Fault = Literal["rate_limited", "overloaded", "internal", "error_event", "cut"]
FAULT_WEIGHTS: dict[Fault, int] = {
    "rate_limited": 40,
    "overloaded": 30,
    "internal": 10,
    "error_event": 8,
    "cut": 12,
}
MESSAGES = {
    "rate_limited": "Rate limit reached. Please try again in 1s.",
    "overloaded": "Overloaded",
    "internal": "The server had an error while processing your request.",
}
RETRY_AFTER_SECONDS = 1
BODY_BYTES_MAX = 64 * 1024 * 1024
REMEMBERED_MAX = 100_000
TALLY_MAX = 1000
GZIP_BYTES_MIN = 1024


@dataclass(frozen=True)
class Received:
    """One request, as it came over the socket."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass
class Served:
    """One request of a billed route and what became of it. `billed` is what the provider would charge for."""

    request_id: str
    """`x-request-id` or `request-id` of the answer."""
    upstream_id: str | None
    """The id in the answer itself; `None` where there is none."""
    dialect: str
    model: str
    """As served."""
    stream: bool
    status: int
    ended: Ended
    billed: Billed


@dataclass
class SimulatedProviders:
    """Start it as an async context manager; it listens on `url` until the block is left.

    `error_rate` is the share of requests that fail; `latency_seconds` the mean time to the first byte;
    `tokens_per_second` the speed of an answer (`None`: at once); `record` keeps every request in `requests`.
    With the same `seed` the same request gets the same answer, except for what the prompt cache holds by then.
    """

    seed: int = 1
    error_rate: float = 0.0
    latency_seconds: float = 0.0
    tokens_per_second: float | None = None
    record: bool = False
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    served: deque[Served] = field(default_factory=lambda: deque(maxlen=REMEMBERED_MAX))
    """The latest; `totals` holds the sums of all."""
    totals: dict[tuple[str, str, Ended], Counter[str]] = field(default_factory=dict)
    """By dialect, served model and ending: `calls`, and tokens by the names of `Billed`."""

    def __post_init__(self) -> None:
        self._caches = {name: PromptCache() for name in PROVIDERS}
        self._times_seen: Counter[bytes] = Counter()
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.add_routes([web.get("/__served", self._tally), web.route("*", "/{provider}/{path:.*}", self._handle)])
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            shutdown_timeout=1.0,
            max_line_size=65_536,
            max_field_size=65_536,
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def base_url(self, name: str) -> str:
        """Where a provider (`openai`, `anthropic`, `gemini`) is; the path of its API (`/v1/…`) follows."""
        return f"{self.url}/{name}"

    # -- the life of a request ----------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.record:
            self.requests.append(Received(request.method, request.raw_path, tuple(request.raw_headers), body))
        name, _, path = request.raw_path[1:].partition("/")
        if name not in PROVIDERS:
            return web.Response(status=404, text="no such provider is simulated")
        provider, path = PROVIDERS[name], f"/{path}"
        rng = self._random(path, body)
        request_id = f"req_{rng.getrandbits(96):024x}"
        try:
            _check_credential(provider, request)
            if request.method == "GET" and request.path.endswith("/models"):
                return _json(request, _models(provider), provider.headers(request_id))
            operation = _operation(provider, request.method, path)
            try:
                plain = decoded(body, request.headers.get("Content-Encoding", ""), BODY_BYTES_MAX)
                asked = operation.read(path, plain) if isinstance(operation, Wire) else operation(path, plain)
            except ValueError as error:
                raise Failed("invalid", str(error)) from None
            if isinstance(operation, Wire):
                return await self._serve(request, provider, operation, asked, rng, request_id)
            return _json(request, asked, provider.headers(request_id))
        except Failed as failed:
            return _error(provider, failed, request_id)

    async def _serve(
        self,
        request: web.Request,
        provider: Provider,
        wire: Wire,
        prompt: Prompt,
        rng: random.Random,
        request_id: str,
    ) -> web.StreamResponse:
        """Answer a billed request, and book it however that ends."""
        model = _served_model(provider, prompt.model)
        streams = prompt.stream and wire.stream is not None
        fault = self._fault(rng)
        served = Served(request_id, None, wire.name, model, streams, 200, "client_left", Billed(0))
        try:
            await asyncio.sleep(self.latency_seconds * rng.uniform(0.5, 1.5))
            if fault in ("rate_limited", "overloaded", "internal"):
                served.status, served.ended = provider.status[fault], "error"
                raise Failed(fault, MESSAGES[fault])
            turn = self._take_turn(provider, wire, prompt, model, rng)
            whole = wire.whole(turn)
            served.upstream_id = whole.get("id") or whole.get("responseId")
            served.billed = turn.billed
            headers = provider.headers(request_id)
            if streams:
                return await self._stream(request, wire, turn, fault, rng, served, headers)
            await self._take_time(turn.reply.tokens)
            # What would break off in mid-stream is lost whole where nothing is streamed.
            served.ended = "completed" if fault is None else "cut"
            return _json(request, whole, headers) if fault is None else _cut(request)
        except ConnectionResetError:
            return _cut(request)  # the client has left
        finally:
            self._book(served)

    def _take_turn(self, provider: Provider, wire: Wire, prompt: Prompt, model: str, rng: random.Random) -> Turn:
        reply = answer(prompt, rng) if wire.stream else Reply("", "", None, "stop")
        billed = replace(
            wire.bill(prompt, self._caches[provider.name]),
            output_tokens=reply.tokens,
            reasoning_output_tokens=reply.reasoning_tokens,
        )
        return Turn(prompt, reply, billed, model, int(time.time()), f"{rng.getrandbits(128):032x}")

    async def _stream(
        self,
        request: web.Request,
        wire: Wire,
        turn: Turn,
        fault: Fault | None,
        rng: random.Random,
        served: Served,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        assert wire.stream is not None
        assert wire.break_off is not None
        pieces = list(wire.stream(turn))
        # A stream that breaks off has begun, and has not said its last word.
        end = len(pieces) if fault is None else rng.randint(1, len(pieces) - 1)
        response = web.StreamResponse(headers=headers | {"Content-Type": wire.media_type(turn)})
        await response.prepare(request)
        said = 0
        for piece in pieces[:end]:
            await self._take_time(piece.tokens)
            said += piece.tokens
            served.billed = turn.billed.until(turn.reply, said)
            await response.write(piece.data)
        if fault == "cut":
            served.ended = "cut"
            return _cut(request)
        if fault == "error_event":
            served.ended = "error_event"
            await response.write(wire.break_off(turn, end))
        else:
            served.ended = "completed"
        await response.write_eof()
        return response

    async def _take_time(self, tokens: int) -> None:
        if self.tokens_per_second is not None and tokens:
            await asyncio.sleep(tokens / self.tokens_per_second)

    def _fault(self, rng: random.Random) -> Fault | None:
        if rng.random() >= self.error_rate:
            return None
        return rng.choices(list(FAULT_WEIGHTS), weights=list(FAULT_WEIGHTS.values()))[0]

    def _random(self, path: str, body: bytes) -> random.Random:
        """Seeded by the request and by how often it was seen: a retry may succeed where the first attempt failed."""
        digest = hashlib.sha256(path.partition("?")[0].encode() + b"\0" + body).digest()
        if len(self._times_seen) >= REMEMBERED_MAX:
            self._times_seen.clear()
        self._times_seen[digest] += 1
        return random.Random(f"{self.seed}/{digest.hex()}/{self._times_seen[digest]}")  # noqa: S311

    # -- the tally ----------------------------------------------------------------------------------------------------

    def _book(self, served: Served) -> None:
        self.served.append(served)
        total = self.totals.setdefault((served.dialect, served.model, served.ended), Counter())
        total.update(calls=1, **asdict(served.billed))

    async def _tally(self, request: web.Request) -> web.Response:
        """`GET /__served`: the totals of all, and the latest requests."""
        totals = [
            {"dialect": dialect, "model": model, "ended": ended, **counts}
            for (dialect, model, ended), counts in self.totals.items()
        ]
        latest = list(self.served)[-TALLY_MAX:]
        return web.json_response({"totals": totals, "served": [asdict(each) for each in latest]})


# -- answers ------------------------------------------------------------------------------------------------------


def _check_credential(provider: Provider, request: web.Request) -> None:
    headers = request.headers
    given = {headers.get("Authorization", "").removeprefix("Bearer "), request.query.get("key")}
    given |= {headers.get("x-api-key"), headers.get("x-goog-api-key")}
    if provider.credential not in given:
        raise Failed("unauthenticated", "invalid API key provided")


def _operation(provider: Provider, method: str, path: str) -> Wire | Free:
    plain = path.partition("?")[0]
    key = gemini_generate.model_of(plain)[1] if provider is gemini_generate.PROVIDER else plain
    operation = OPERATIONS.get((provider.name, key)) if method == "POST" else None
    if operation is None:
        raise Failed("not_found", f"{method} {plain} is not simulated")
    return operation


def _served_model(provider: Provider, asked: str) -> str:
    if asked in provider.models.values():
        return asked
    if asked not in provider.models:
        raise Failed("not_found", f"The model {asked} does not exist; simulated are {', '.join(provider.models)}")
    return provider.models[asked]


def _models(provider: Provider) -> Any:
    names = provider.models
    match provider.name:
        case "gemini":
            return {"models": [{"name": f"models/{name}", "displayName": name} for name in names]}
        case "anthropic":
            made = "2025-09-29T00:00:00Z"
            data = [{"type": "model", "id": name, "display_name": name, "created_at": made} for name in names]
            return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
        case _:
            made_at = 1759104000
            return {
                "object": "list",
                "data": [{"id": name, "object": "model", "created": made_at, "owned_by": "system"} for name in names],
            }


def _json(request: web.Request, value: Any, headers: dict[str, str]) -> web.Response:
    body = compact(value).encode()
    response = web.Response(body=body, content_type="application/json", headers=headers)
    if len(body) >= GZIP_BYTES_MIN and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _error(provider: Provider, failed: Failed, request_id: str) -> web.Response:
    status = provider.status[failed.failure]
    headers = provider.headers(request_id)
    if failed.failure == "rate_limited" and provider.says_retry_after:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    body = provider.error(failed.failure, status, failed.message, request_id)
    return web.json_response(body, status=status, headers=headers)


def _cut(request: web.Request) -> web.StreamResponse:
    """Reset the connection. What is returned cannot be sent any more."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
