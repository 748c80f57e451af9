"""The life of a request, top to bottom: `Proxy.handle`."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from aiohttp import web
from multidict import CIMultiDict

from gateway import clients, credentials, dialects, keys, routes, tickets
from gateway.call import NANO, PURPOSES, Answer, Ask, Attribution, Call, Client, Cost, Principal, Result
from gateway.config import Config, Upstream, secret
from gateway.dialects import openai_chat
from gateway.dialects.base import Dialect
from gateway.encodings import TooLargeError, decoded
from gateway.errors import Refusal
from gateway.ids import uuid7
from gateway.ledger import Ledger, now_us
from gateway.meter import Meter, UsageHider
from gateway.prices import PriceBook
from gateway.telemetry import Telemetry
from gateway.upstream import Forwarder, NotReachedError, UpstreamAnswer, UpstreamLost

WHOLE_BYTES_MAX = 64 * 1024 * 1024
"""A larger answer is passed on as it comes, without a cost header."""
REPORTS_USAGE_UNASKED = frozenset({"mistral_ai", "perplexity", "groq", "cohere", "x_ai", "openrouter", "deepseek"})
"""Providers whose chat streams bring usage unasked, or that reject `stream_options`."""


class Proxy:
    """Authenticates, attributes, forwards, meters, prices and records."""

    def __init__(
        self,
        config: Config,
        key_ring: keys.Keys,
        prices: PriceBook,
        ledger: Ledger,
        forwarder: Forwarder,
        telemetry: Telemetry,
        gateway_id: str,
    ) -> None:
        self._config = config
        self._keys = key_ring
        self._prices = prices
        self._ledger = ledger
        self._forwarder = forwarder
        self._telemetry = telemetry
        self._gateway_id = gateway_id
        self.draining = False
        """Set while the process stops: what is cancelled then was not cancelled by the client."""
        self._credentials = {
            name: credentials.field_for(upstream.provider, upstream.auth, value)
            for name, upstream in config.upstreams.items()
            if upstream.credential and (value := secret(upstream.credential))
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request, from its head to the last byte of its answer.

        A call is recorded as open before it is forwarded and as closed before its last byte goes out, however it
        ends: completed, refused, cancelled by the client, cut by the upstream.
        """
        clock, started_us = time.perf_counter(), now_us()
        headers = _readable(request.headers)
        target = routes.resolve(request.raw_path, headers, self._config.upstreams)
        path = target.path.partition("?")[0] if target else ""
        dialect, operation = dialects.find(request.method, path) or (None, None)
        call = _new_call(started_us, self._gateway_id, clients.recognise(headers), headers)
        call.dialect, call.operation = dialect.name if dialect else None, operation
        try:
            # -- may this request pass? ---------------------------------------------------------------------------
            principal = self._authenticate(headers, request.raw_path)
            _set_principal(call, principal)
            if target is None:
                raise _no_route(self._config)
            keys.check_upstream(principal, target.upstream)
            if headers.get("upgrade", "").lower() == "websocket":
                # At once, and never 404: tools then fall back to POST.
                return web.Response(status=426, headers={"Upgrade": "HTTP/1.1"}, text="Use HTTP POST here.")
            upstream = self._config.upstreams[target.upstream]
            call.provider, call.upstream = upstream.provider, target.upstream
            if dialect is None and not upstream.allow_unmetered_paths:
                raise _not_metered(request.method, path, target.upstream)
            credential = self._credential(target.upstream, headers, request.raw_path)
            fields = credentials.outgoing(request.headers.items(), credential)
            upstream_path = credentials.without_gateway_key(target.path, any_key=credential is not None)
            body = await _read(request)
            if operation is None and dialect is not None:
                return await self._relay_unbilled(request, dialect, target.upstream, upstream_path, fields, body)
            ask = self._read_ask(dialect, path, body, headers.get("content-encoding", ""))
            call.request_bytes = len(body)
            _set_ask(call, ask)
            keys.check_model(principal, ask.model)
            attribution = tickets.attribute(
                self._config.tickets, principal, headers, target.ticket, target.task, ask, call.client, call.session_id
            )
            _set_attribution(call, attribution)
            self._check_price(upstream.provider, ask, dialect)
            asked_for_usage = _with_usage(dialect, upstream, ask, headers, body)
            if asked_for_usage is not None:
                # The extra chunk can only be taken out again of bytes that can be read.
                fields = [(name, value) for name, value in fields if name.lower() != "accept-encoding"]
            self._ledger.open(call)
        except Refusal as refusal:
            return await self._refused(refusal, call, dialect)

        # -- forward, and let every byte of the answer pass the meter -------------------------------------------------
        meter = Meter(dialect, upstream.provider, {})
        response: web.StreamResponse | None = None
        result: Result = "interrupted"
        free = False
        self._telemetry.in_flight.inc()
        try:
            async with self._forwarder.forward(
                target.upstream, upstream, request.method, upstream_path, fields, asked_for_usage or body
            ) as answer:
                call.status, call.first_byte_ms, free = answer.status, _ms_since(clock), answer.status >= 400
                meter = Meter(dialect, upstream.provider, answer.headers)
                pieces = answer.pieces()
                start = b""
                if dialect is not None and _may_be_whole(request, answer, ask):
                    start, whole = await _collect(pieces)
                    if whole:
                        meter.feed(start)
                        await self._close(call, "completed", meter, clock, free=free)
                        return web.Response(
                            status=answer.status,
                            reason=answer.reason,
                            body=start,
                            headers=_answer_headers(answer, call),
                        )
                response = web.StreamResponse(
                    status=answer.status,
                    reason=answer.reason,
                    headers=_answer_headers(answer, call, keep_length=asked_for_usage is None),
                )
                await response.prepare(request)
                hider = UsageHider() if asked_for_usage is not None else None
                async for piece in _after(start, pieces):
                    meter.feed(piece)
                    if meter.answer.finished and call.result is None:
                        # The terminal event is in this piece, and some tools leave as soon as they have seen it.
                        await self._close(call, "completed", meter, clock, free=free)
                    await response.write(piece if hider is None else hider.feed(piece))
                if hider is not None:
                    await response.write(hider.rest())
                if answer.status < 400 and not meter.is_complete():
                    raise UpstreamLost("ended without a terminal event")
                await self._close(call, "completed", meter, clock, free=free)
                await response.write_eof()
                return response
        except Refusal as refusal:
            result, free = "upstream_error", isinstance(refusal, NotReachedError)
            return self._unanswered(refusal, call, dialect)
        except UpstreamLost as lost:
            result = "upstream_cut"
            if response is None:
                return self._unanswered(_broke_off(lost), call, dialect)
            # Never a clean end without the dialect's terminal event: tools take that for an answer, or ask for ever.
            if request.transport is not None:
                request.transport.abort()
            return response
        except asyncio.CancelledError:
            result = "interrupted" if self.draining else "client_cancelled"
            raise
        except ConnectionError:
            result = "client_cancelled"
            return response or web.Response()
        finally:
            self._telemetry.in_flight.dec()
            self._record(call, result, meter, clock, free=free)

    # -- the stages -----------------------------------------------------------------------------------------------

    def _authenticate(self, headers: dict[str, str], raw_path: str) -> Principal:
        presented = credentials.presented(headers, raw_path)
        if self._config.auth.mode == "open" and presented is None:
            return Principal()
        return self._keys.authenticate(presented)

    def _credential(self, name: str, headers: dict[str, str], raw_path: str) -> tuple[str, str] | None:
        """The credential that replaces the client's; `None` where the client's own one is passed through."""
        own = credentials.brings_own(headers, raw_path)
        if own and ("x-outlay-key" in headers or name not in self._credentials):
            return None
        if name not in self._credentials:
            reference = self._config.upstreams[name].credential
            raise Refusal(
                "unauthenticated",
                f"Outlay: the gateway has no credential for the upstream {name}: "
                + (f"{reference} is not set where the gateway runs" if reference else "none is configured")
                + ". Or send your own provider key, and the gateway key in the x-outlay-key header.",
            )
        return self._credentials[name]

    def _read_ask(self, dialect: Dialect | None, path: str, body: bytes, encoding: str) -> Ask:
        if dialect is None:
            return Ask()
        try:
            plain = decoded(body, encoding, self._config.server.body_bytes_max)
        except TooLargeError:
            raise Refusal(
                "request_too_large", "Outlay: the request body decodes to more than body_bytes_max."
            ) from None
        except ValueError as error:
            raise Refusal("request_unreadable", f"Outlay: the request body cannot be decoded: {error}.") from None
        return dialect.read_ask(path, plain)

    def _check_price(self, provider: str, ask: Ask, dialect: Dialect | None) -> None:
        if self._config.prices.policy != "block" or dialect is None:
            return
        found = self._prices.find(provider, ask.model or "", datetime.now(UTC))
        if found is None or found.status == "fallback":
            raise Refusal(
                "model_unpriced",
                f"Outlay: the model {ask.model or '(none named)'} has no price here, and calls without a price are "
                "blocked. An administrator can add one to config/prices.toml.",
            )

    async def _close(self, call: Call, result: Result, meter: Meter, clock: float, *, free: bool) -> None:
        """Record, and wait for the disk where the settings say so."""
        if call.result is None:
            self._record(call, result, meter, clock, free=free)
            await self._ledger.durable()

    def _record(self, call: Call, result: Result, meter: Meter, clock: float, *, free: bool) -> None:
        """Price and close a call. The first time only: a call is closed exactly once.

        `free`: without usage it certainly cost nothing, because the provider refused it or was not reached.
        """
        if call.result is not None:
            return
        answer = meter.finish()
        failed = result == "completed" and (answer.error is not None or (call.status or 0) >= 400)
        call.result = "upstream_error" if failed else result
        call.duration_ms = _ms_since(clock)
        call.response_bytes = meter.bytes_seen
        call.response_model, call.finish_reason = answer.response_model, answer.finish_reason
        call.service_tier, call.upstream_id = answer.service_tier or call.service_tier, answer.upstream_id
        call.provider_cost_nano = answer.provider_cost_nano
        ended = answer.finished or (result == "completed" and answer.error is None)
        whole = ended and meter.failed is None
        reported = answer.usage.reported()
        call.usage_source = ("reported" if whole else "partial") if reported else "none"
        for name in answer.usage.__struct_fields__:
            setattr(call, name, getattr(answer.usage, name))
        if reported or not free:
            _set_cost(call, self._price(call, answer))
        else:
            call.list_cost_nano = call.contracted_cost_nano = 0
        if meter.failed is not None:
            self._telemetry.meter_failures.labels(call.dialect or "", meter.failed).inc()
        if not self._ledger.close(call):
            self._telemetry.unrecorded.inc()
        self._telemetry.finished(call)

    def _price(self, call: Call, answer: Answer) -> Cost:
        cost = self._prices.price(
            call.provider or "",
            (answer.response_model, call.request_model),
            answer.usage,
            datetime.fromtimestamp(call.started_us / 1e6, UTC),
            service_tier=answer.service_tier,
        )
        if cost.status == "fallback" and self._config.prices.policy == "allow":
            return Cost("unpriced", cost.price_book)
        return cost

    async def _refused(self, refusal: Refusal, call: Call, dialect: Dialect | None) -> web.Response:
        """Record a refusal of a known caller (strangers are only counted) and write it."""
        self._telemetry.refusals.labels(refusal.code).inc()
        known = call.key_id is not None or self._config.auth.mode == "open"
        if known and self._ledger.failure is None:
            call.result, call.refusal, call.status = "refused", refusal.code, refusal.status
            call.usage_source, call.list_cost_nano, call.contracted_cost_nano = "none", 0, 0
            if not self._ledger.close(call):
                self._telemetry.unrecorded.inc()
            self._telemetry.finished(call)
            await self._ledger.durable()
        return _refusal_response(refusal, dialect, call)

    def _unanswered(self, refusal: Refusal, call: Call, dialect: Dialect | None) -> web.Response:
        """The refusal that stands in for an answer that did not come."""
        self._telemetry.refusals.labels(refusal.code).inc()
        call.refusal, call.status = refusal.code, refusal.status
        return _refusal_response(refusal, dialect, call)

    async def _relay_unbilled(
        self,
        request: web.Request,
        dialect: Dialect,
        name: str,
        path: str,
        fields: credentials.Fields,
        body: bytes,
    ) -> web.StreamResponse:
        """Pass on what no provider bills (counting tokens, listing models): no ledger row."""
        self._telemetry.unmetered.labels(name).inc()
        response: web.StreamResponse | None = None
        upstream = self._config.upstreams[name]
        try:
            async with self._forwarder.forward(name, upstream, request.method, path, fields, body) as answer:
                response = web.StreamResponse(status=answer.status, headers=_answer_headers(answer, None))
                await response.prepare(request)
                async for piece in answer.pieces():
                    await response.write(piece)
                await response.write_eof()
        except Refusal as refusal:
            return _refusal_response(refusal, dialect, None)
        except UpstreamLost as lost:
            if response is None:
                return _refusal_response(_broke_off(lost), dialect, None)
            if request.transport is not None:
                request.transport.abort()
        return response


# -- the call record, field by field ------------------------------------------------------------------------------


def _new_call(started_us: int, gateway_id: str, client: Client, headers: dict[str, str]) -> Call:
    return Call(
        call_id=uuid7(started_us),
        request_id=uuid7(started_us),
        attempt=1,
        started_us=started_us,
        gateway_id=gateway_id,
        client=client.name,
        client_version=client.version,
        agent=client.agent,
        session_id=client.session_id,
        repo=tickets.plain(headers.get("x-outlay-repo")),
        branch=tickets.plain(headers.get("x-outlay-branch")),
        purpose=purpose if (purpose := headers.get("x-outlay-purpose")) in PURPOSES else None,
    )


def _set_principal(call: Call, principal: Principal) -> None:
    call.key_id, call.user_id, call.team_id = principal.key_id, principal.user_id, principal.team_id
    call.purpose = principal.purpose or call.purpose


def _set_ask(call: Call, ask: Ask) -> None:
    call.request_model, call.stream, call.service_tier = ask.model, ask.stream, ask.service_tier
    call.max_output_tokens, call.message_count, call.tool_count = (
        ask.max_output_tokens, ask.message_count, ask.tool_count,
    )  # fmt: skip
    call.session_id = call.session_id or ask.session_id


def _set_attribution(call: Call, attribution: Attribution) -> None:
    call.tickets, call.ticket_candidates = attribution.tickets, attribution.candidates
    call.ticket_id = attribution.tickets[0] if attribution.tickets else None
    call.ticket_source, call.ticket_state = attribution.ticket_source, attribution.ticket_state
    call.task_id, call.task_source = attribution.task_id, attribution.task_source


def _set_cost(call: Call, cost: Cost) -> None:
    call.price_status, call.price_id, call.price_book = cost.status, cost.price_id, cost.price_book
    call.list_cost_nano, call.contracted_cost_nano = cost.list_nano, cost.contracted_nano
    call.input_cost_nano, call.output_cost_nano, call.other_cost_nano = (
        cost.input_nano,
        cost.output_nano,
        cost.other_nano,
    )
    call.cache_read_cost_nano, call.cache_write_cost_nano = cost.cache_read_nano, cost.cache_write_nano


# -- requests and answers -----------------------------------------------------------------------------------------


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(
            "request_too_large", "Outlay: the request body is larger than this gateway takes (body_bytes_max)."
        ) from None


def _readable(fields: Mapping[str, str]) -> dict[str, str]:
    """Header fields by lower-case name. Bytes that are no UTF-8 become `?`: what we read must be printable."""
    return {name.lower(): value.encode("utf-8", "replace").decode() for name, value in fields.items()}


def _with_usage(
    dialect: Dialect | None, upstream: Upstream, ask: Ask, headers: dict[str, str], body: bytes
) -> bytes | None:
    """The body with `stream_options.include_usage` where the usage would else not be reported; `None` = as sent."""
    if dialect is not openai_chat.DIALECT or not ask.stream or "content-encoding" in headers:
        return None
    wanted = upstream.include_usage
    if wanted is None:
        wanted = upstream.provider not in REPORTS_USAGE_UNASKED
    return openai_chat.ask_for_usage(body) if wanted else None


def _may_be_whole(request: web.Request, answer: UpstreamAnswer, ask: Ask) -> bool:
    """True for an answer that is read to its end before it is passed on, so that its cost can stand in a header."""
    if request.method == "HEAD" or answer.status in (204, 304):
        return False
    if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        return False
    if ask.stream and answer.status < 400:
        return False
    return int(answer.headers.get("Content-Length", 0)) <= WHOLE_BYTES_MAX


async def _collect(pieces: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The pieces up to `WHOLE_BYTES_MAX`, and whether that was all."""
    found: list[bytes] = []
    size = 0
    async for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > WHOLE_BYTES_MAX:
            return b"".join(found), False
    return b"".join(found), True


async def _after(start: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if start:
        yield start
    async for piece in pieces:
        yield piece


def _answer_headers(answer: UpstreamAnswer, call: Call | None, *, keep_length: bool = True) -> CIMultiDict[str]:
    """The provider's header fields without hop-by-hop ones, and ours."""
    fields = credentials.end_to_end(answer.headers.items())
    headers = CIMultiDict((name, value) for name, value in fields if not name.lower().startswith("x-outlay-"))
    if not keep_length:
        headers.popall("Content-Length", None)
    headers.setdefault("Server", "outlay")
    if call is not None:
        headers.update(_own_headers(call))
    return headers


def _own_headers(call: Call) -> dict[str, str]:
    headers = {"x-outlay-call-id": call.call_id, "x-outlay-ticket-source": call.ticket_source or "none"}
    if call.tickets:
        headers["x-outlay-ticket"] = ",".join(call.tickets)
    if call.task_id:
        headers["x-outlay-task"] = call.task_id
    if call.result is not None and call.list_cost_nano is not None:
        headers["x-outlay-cost-usd"] = f"{call.list_cost_nano // NANO}.{call.list_cost_nano % NANO:09d}"
    return headers


def _refusal_response(refusal: Refusal, dialect: Dialect | None, call: Call | None) -> web.Response:
    """Our own "no", in the caller's dialect (OpenAI's where none is known)."""
    headers, body = (dialect or openai_chat.DIALECT).refuse(refusal)
    headers |= {"x-outlay-refusal": refusal.code, "Server": "outlay"}
    if refusal.status < 500:
        headers["x-should-retry"] = "false"
    if call is not None:
        headers |= {"request-id": call.request_id, "x-request-id": call.request_id, "x-outlay-call-id": call.call_id}
    return web.json_response(body, status=refusal.status, headers=headers)


def _no_route(config: Config) -> Refusal:
    names = ", ".join(f"/{name}/" for name in config.upstreams)
    return Refusal("route_unknown", f"Outlay: no upstream is configured for this path. Paths start with {names}.")


def _not_metered(method: str, path: str, name: str) -> Refusal:
    return Refusal(
        "route_unknown",
        f"Outlay cannot meter {method} {path[:100]}, so it is not forwarded. "
        f"An administrator can set allow_unmetered_paths = true in [upstreams.{name}].",
    )


def _broke_off(lost: UpstreamLost) -> Refusal:
    return Refusal("upstream_unreachable", f"Outlay: the provider's answer broke off ({lost}).")


def _ms_since(clock: float) -> int:
    return round((time.perf_counter() - clock) * 1000)
