"""The life of a request, top to bottom: `Proxy.handle`."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from gateway import batches, clients, credentials, dialects, guard, hashing, keys, shape, submodels
from gateway.afterwards import Afterwards, let_go
from gateway.aiohttp_client import AiohttpClient, HandshakeRefusedError
from gateway.answers import (
    WHOLE_BYTES_MAX,
    Passing,
    Whole,
    broke_off,
    collect,
    cut_off,
    has_body,
    headers_of,
    is_plain,
    led_back,
    no_route,
    not_metered,
    refusal_response,
)
from gateway.asking import Asking
from gateway.attempts import Attempt, Attempts, close_unanswered
from gateway.books import Books, OpenCall
from gateway.breaker import Breakers, Rule
from gateway.call import Ask, Attribution, Call, Client, Principal, Result
from gateway.config import Config, Upstream, secret
from gateway.dialects import openai_chat
from gateway.dialects.base import Dialect, Route
from gateway.encodings import TooLargeError, decoded
from gateway.errors import Refusal
from gateway.framing import is_lines
from gateway.heads import Head, Heads
from gateway.ids import uuid7
from gateway.late import Late
from gateway.ledger import now_us
from gateway.meter import UsageHider
from gateway.otel import TRACEPARENT
from gateway.owner import Owner
from gateway.prices import PriceBook
from gateway.realtime import Session
from gateway.retries import Plan
from gateway.routes import region_of
from gateway.shape import Shape
from gateway.telemetry import Telemetry
from gateway.tickets import Tickets
from gateway.tokens import Estimator
from gateway.turns import Turns
from gateway.upstream import UpstreamAnswer, UpstreamClient, UpstreamLost
from gateway.watch import Watch
from gateway.worktrees import Worktrees

log = logging.getLogger("outlay")

REPORTS_USAGE_UNASKED = frozenset({"mistral_ai", "perplexity", "groq", "cohere", "x_ai", "openrouter", "deepseek"})
"""Providers whose chat streams bring usage unasked, or that reject `stream_options`."""
SHAPED_AT_ONCE = 512 * 1024
"""A longer body is read in a thread, bytes: it takes a millisecond or two a megabyte. To and fro takes half of one."""
KEY_SECONDS = 0.01
"""A key that was looked at so short a time ago is not looked at again."""
KEPT_BY_PROVIDERS = frozenset({"invoke_agent", "video_generation"})
"""What these operations begin is asked for again later, at the upstream that the client knows."""


class Proxy:
    """Authenticates, attributes, forwards, meters, prices and records."""

    def __init__(
        self,
        config: Config,
        key_ring: keys.Keys,
        prices: PriceBook,
        owner: Owner,
        late: Late,
        forwarder: UpstreamClient,
        sockets: AiohttpClient,
        telemetry: Telemetry,
        estimator: Estimator,
        gateway_id: str,
        tickets: Tickets,
        worktrees: Worktrees,
        hash_key: bytes,
        turns: Turns,
    ) -> None:
        self._config = config
        self._keys = key_ring
        self._keys_are_fresh = False
        self._tickets = tickets
        self._worktrees = worktrees
        self._hash, self._hash_parts = functools.partial(hashing.keyed, hash_key), hashing.keyed_parts(hash_key)
        self._prices = prices
        self._owner = owner
        self._forwarder = forwarder
        self._sockets = sockets
        self._telemetry = telemetry
        self._turns = turns
        self._blocks_unpriced = config.prices.policy == "block"
        self._books = Books(config.prices, prices, owner, late, estimator, telemetry)
        self._afterwards = Afterwards(config.server, self._books, forwarder, telemetry)
        self._breakers = Breakers(
            {name: Rule(each.breaker_failures, each.breaker_seconds) for name, each in config.upstreams.items()}
        )
        for name in config.upstreams:
            telemetry.breakers_open.labels(name).set_function(functools.partial(self._breakers_open, name))
        self._handling = 0
        self._idle = asyncio.Event()
        self.drains = False
        """Set when the process takes no connection any more: clients are told to connect anew."""
        self.ends = False
        """Set when the process waits no longer: what is cancelled then was not cancelled by the client."""
        self._credentials = {
            name: credentials.field_for(upstream.provider, upstream.auth, value)
            for name, upstream in config.upstreams.items()
            if upstream.credential and (value := secret(upstream.credential))
        }
        self._heads = Heads(config.upstreams, self._credentials, gateway_id)

    def _breakers_open(self, name: str) -> int:
        return len(self._breakers.open_models(name, time.monotonic()))

    async def stop(self) -> None:
        """Close every call that is open. No request may come any more."""
        await self._afterwards.stop()
        await self._books.stop()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """`handle`, counted, so that the process can wait for those that run."""
        self._handling += 1
        try:
            response = await self.handle(request)
            if not response.prepared:
                self.tell(response)
            return response
        finally:
            self._handling -= 1
            if not self._handling:
                self._idle.set()

    def tell(self, response: web.StreamResponse) -> None:
        """While the process ends, clients learn that they have to connect anew."""
        if self.drains:
            response.headers["Connection"] = "close"
            response.force_close()

    async def _begun(
        self, request: web.Request, answer: UpstreamAnswer, headers: CIMultiDict[str], *, has_piece: bool
    ) -> web.StreamResponse:
        """A response whose head is out, or goes out with the piece that is here already."""
        response: web.StreamResponse
        if is_plain(request, answer):
            response = Passing(answer, headers, has_piece=has_piece)
        else:
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
            if has_body(request, answer) and "Content-Length" not in headers:
                response.force_close()  # HTTP/1.0: nothing else tells the client where the answer ends
        self.tell(response)
        await response.prepare(request)
        return response

    async def idle(self) -> None:
        """Wait until no request is being served, and no answer read on."""
        if self._handling:
            self._idle.clear()
            await self._idle.wait()
        await self._afterwards.idle()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request, from its head to the last byte of its answer.

        A call is recorded as open before it is forwarded and as closed before its last byte goes out, however it
        ends: completed, refused, cancelled by the client, cut by the upstream.
        """
        loop = asyncio.get_running_loop()
        started, started_us, began_ns = loop.time(), now_us(), time.perf_counter_ns()
        head, new = self._heads.read(request)
        headers, target, path, dialect, route = head.headers, head.target, head.path, head.dialect, head.route
        call = _new_call(started_us, head, request.headers.get("traceparent"))
        try:
            # -- may this request pass? ---------------------------------------------------------------------------
            may_go_on = functools.partial(self._authenticate, head.key)
            principal = may_go_on()
            if new is not None:
                self._heads.keep(request, new)
            if head.key is None:
                credentials.check_page(headers)
            _set_principal(call, principal)
            if target is None:
                raise no_route(self._config)
            keys.check_upstream(principal, target.upstream)
            is_session = headers.get("upgrade", "").lower() == "websocket"
            if is_session and call.operation != "realtime":
                # At once, and never 404: tools then fall back to POST.
                return web.Response(
                    status=426, headers={"Upgrade": "HTTP/1.1", "Server": "outlay"}, text="Use HTTP POST here."
                )
            upstream = self._config.upstreams[target.upstream]
            call.provider, call.upstream = upstream.provider, target.upstream
            if dialect is None:
                may_pass = upstream.allow_unmetered_paths and not principal.models
                if not may_pass or dialects.is_disguised(request.method, path, head.provider):
                    raise not_metered(request.method, path, target.upstream)
            if head.refusal is not None:
                raise head.refusal
            upstream_path, fields = head.upstream_path, head.way.fields
            reading_ns = time.perf_counter_ns()
            body = await guard.read_body(request, self._config.server)
            began_ns += time.perf_counter_ns() - reading_ns
            if loop.time() > started + KEY_SECONDS:
                may_go_on()  # a body takes time, in which a key may end
            call.request_bytes = len(body)
            await self._turns.begin()
            kind = route.kind if route is not None else "call"
            plain, ask = body, Ask()
            models: Collection[str | None] = ()
            if dialect is not None and kind == "call":
                plain = self._decoded(body, headers.get("content-encoding"))
                ask = _read_ask(dialect, target.path if call.operation == "realtime" else path, plain)
                models = (ask.model,)
            elif kind == "start" and (principal.models or self._blocks_unpriced):
                plain = self._decoded(body, headers.get("content-encoding"))
                models = _models_of_batch(path, plain)
            if principal.models:
                also = _submodels(plain) if kind != "unbilled" else ()
                for model in (*models, *also):
                    keys.check_model(principal, model)
            _set_ask(call, ask)
            client = clients.observe(head.client, headers, ask, self._hash)
            made = Shape()
            if dialect is not None and kind == "call":
                made = await self._shape(plain, call.operation, ask)
                ask = ask.without_excerpts()
            _set_shape(call, client, made)
            checkout = await self._worktrees.look(client.folder) if client.folder is not None else None
            attribution = self._tickets.attribute(
                principal, headers, target.ticket, target.task, ask, client, checkout, started_us
            )
            if attribution.task_id is None:
                task_id = await self._owner.task((principal.key_id, client.name), attribution.tickets, started_us)
                attribution = msgspec.structs.replace(attribution, task_id=task_id)
            _set_attribution(call, client, attribution)
            if attribution.ignored:
                self._telemetry.ignored(attribution.ignored)
            if kind != "unbilled":
                self._tickets.demand(principal, client, attribution)
            for model in models:
                self._check_price(upstream.provider, model)
            if kind == "start":
                await self._owner.demand(call)
            if dialect is not None and route is not None and kind != "call":
                return await self._relay_unbilled(request, call, dialect, route, upstream_path, fields, body)
            if dialect is not None and is_session:
                own = head.credential is None
                may_send = functools.partial(self._may_send, head.key)
                await self._owner.enter(call)
                try:
                    return await self._relay_session(
                        request, call, dialect, ask, upstream_path, fields, may_send, own=own
                    )
                finally:
                    self._owner.leave(call)
            await self._turns.next()
            asked_at, may_use = target.upstream, functools.partial(keys.may_use, principal)

            async def open_attempt(name: str, call: Call) -> Attempt:
                """Admit a call to its budgets and limits, open it in the books, and send it. Raises refusals."""
                upstream = self._config.upstreams[name]
                call.provider, call.upstream = upstream.provider, name
                way = head.way if name == asked_at else self._heads.way(request, name, path)
                sent_fields = way.fields
                asking = Asking(
                    dialect, ask, upstream_path, plain, way.region, upstream.provider, may_use,
                    is_signed=way.is_signed, shape=made,
                )  # fmt: skip
                if call.attempt > 1 or loop.time() > started + KEY_SECONDS:
                    may_go_on()  # a key that has ended meanwhile makes no call
                open_call = await self._books.open(call, asking, may_go_on)
                admitted, sent_path, sent_body = open_call.admitted, upstream_path, body
                if admitted is not None and admitted.body is not None:
                    sent_path, sent_body = admitted.path or upstream_path, admitted.body
                    sent_fields = credentials.of_decoded(sent_fields)
                asked_for_usage = _with_usage(dialect, upstream, sent_fields, sent_body) if ask.stream else None
                if asked_for_usage is not None or (admitted is not None and admitted.grant.may_stop):
                    # The extra chunk can only be taken out of bytes that can be read, and an end only be put to these.
                    sent_fields = credentials.without_encoding(sent_fields)
                if call.attempt == 1:
                    call.overhead_us = (time.perf_counter_ns() - began_ns) // 1000
                sent = self._forwarder.send(
                    name, upstream, request.method, sent_path, sent_fields, asked_for_usage or sent_body
                )
                return Attempt(open_call, sent, asked_for_usage is not None)

            places = [asked_at]
            if upstream.fallbacks and head.credential is not None:
                is_kept = ask.is_tied or call.operation in KEPT_BY_PROVIDERS
                places += () if is_kept else self._fallbacks(principal, asked_at, request.method, path, ask.model)
            as_whole = functools.partial(self._as_whole, request)
            attempts = Attempts(
                call, self._plan(places, ask), open_attempt, as_whole, self._books, self._breakers,
                self._telemetry,
            )  # fmt: skip
            await attempts.begin()
        except Refusal as refusal:
            return await self._refused(refusal, call, dialect)

        # -- forward, and let every byte of the answer pass the meter -------------------------------------------------
        response: web.StreamResponse | None = None
        result: Result = "interrupted"
        self._telemetry.in_flight.value += 1
        try:
            answer = await attempts.answer()
            if isinstance(answer, web.StreamResponse):
                return answer
            open_call, asked_for_usage = attempts.current.open_call, attempts.current.asked_for_usage
            meter, pieces, admitted = open_call.meter, answer.pieces(), open_call.admitted
            meter.ending = None if admitted is None else admitted.ending
            start = b""
            if dialect is not None and _may_be_whole(request, answer, ask):
                start, open_call.came_whole = await collect(pieces, meter)
                if open_call.came_whole:
                    await self._turns.begin()
                    await self._books.close(open_call, "completed")
                    await self._turns.next()
                    return as_whole(open_call, answer, start)
            keeps_length = not asked_for_usage and meter.ending is None  # else its bytes may be others
            passed_fields = headers_of(answer, open_call.call, keep_length=keeps_length)
            response = await self._begun(request, answer, passed_fields, has_piece=answer.has_piece)
            if start:
                await response.write(start)
            hides = asked_for_usage and "Content-Encoding" not in answer.headers and not is_lines(answer.headers)
            hider = UsageHider() if hides else None
            length, last = int(answer.headers.get("Content-Length", -1)), b""
            async for piece in pieces:
                meter.feed(piece)
                if (meter.answer.finished or meter.bytes_seen == length) and not open_call.is_closed:
                    # The terminal event or the last byte is in this piece: the client may leave when it has seen it.
                    open_call.came_whole = meter.bytes_seen == length and meter.is_complete()
                    await self._turns.begin()
                    await self._books.close(open_call, "completed")
                if self._books.is_near(open_call) and not await self._books.keeps_up(open_call):
                    return await self._stop(request, response, open_call, piece, pieces, hider)
                passed = piece if hider is None else hider.feed(piece)
                if open_call.is_closed and answer.is_read:
                    last = passed  # goes out in one write with the end
                else:
                    await response.write(passed)
            rest = b"" if hider is None else hider.rest()
            if not open_call.is_closed:
                await response.write(rest)
                rest = b""
                open_call.came_whole = meter.is_complete()
                if answer.status < 400 and not open_call.came_whole:
                    raise UpstreamLost("ended without a terminal event")
                await self._books.close(open_call, "completed")
            await response.write_eof(last + rest)
            return response
        except Refusal as refusal:
            return await self._unanswered(refusal, attempts.current.open_call, "upstream_error")
        except UpstreamLost as lost:
            if response is None:
                return await self._unanswered(broke_off(lost), open_call, "upstream_cut")
            await self._books.close(open_call, "upstream_cut")
            # Never a clean end without the dialect's terminal event: tools take that for an answer, or ask for ever.
            cut_off(request)
            return response
        except asyncio.CancelledError:
            result = "interrupted" if self.ends else "client_cancelled"
            raise
        except ConnectionError:
            result = "client_cancelled"
            return response or web.Response()
        except Exception:
            if response is not None:  # its head may not be out: another answer would be framed like this one
                cut_off(request)
            raise
        finally:
            self._telemetry.in_flight.value -= 1
            self._owner.leave(call)  # also when the answer is read on: its client has gone, and may ask again
            self._afterwards.take(attempts.current.open_call, result, attempts.current.sent)

    async def _stop(
        self,
        request: web.Request,
        response: web.StreamResponse,
        open_call: OpenCall,
        piece: bytes,
        pieces: AsyncIterator[bytes],
        hider: UsageHider | None,
    ) -> web.StreamResponse:
        """End a stream whose budget is used up at the end of an event, as if its maximum had been reached. `piece` was
        not passed on yet. Raises what `pieces` raises."""
        meter = open_call.meter
        while (unfinished := meter.unfinished) >= len(piece) > 0:
            # The client has the beginning of this event.
            await response.write(piece if hider is None else hider.feed(piece))
            piece = await anext(pieces, b"")
            meter.feed(piece)
        last = piece[: len(piece) - unfinished]
        ending = self._books.ending(open_call)
        open_call.call.budget_action = "stopped"
        await self._books.close(open_call, "stopped_by_budget")
        await response.write(last if hider is None else hider.feed(last))
        if ending is None:
            cut_off(request)
            return response
        await response.write(ending if hider is None else hider.feed(ending) + hider.rest())
        await response.write_eof()
        return response

    def _as_whole(
        self, request: web.Request, open_call: OpenCall, answer: UpstreamAnswer, body: bytes
    ) -> web.StreamResponse:
        """What the client gets of a call that is closed. Its cost stands in a header, and what is left of the tightest
        budget."""
        admitted = open_call.admitted
        remaining = None if admitted is None else admitted.remaining_nano
        headers = headers_of(answer, open_call.call, remaining_nano=remaining)
        if is_plain(request, answer):
            return Whole(answer, headers, body, self._turns)
        return web.Response(status=answer.status, reason=answer.reason, body=body, headers=headers)

    # -- the stages -----------------------------------------------------------------------------------------------

    def _authenticate(self, digest: str | None) -> Principal:
        """Who presents a key of this digest. Raises the refusal `unauthenticated`. Whether keys have changed is looked
        up once in a turn of the loop: what is handled in it was sent before it began."""
        if not self._keys_are_fresh:
            self._keys.refresh()
            self._keys_are_fresh = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        return credentials.authenticate(self._keys, self._config.auth.mode, digest)

    def _next_turn(self) -> None:
        self._keys_are_fresh = False

    def _fallbacks(self, principal: Principal, name: str, method: str, path: str, model: str | None) -> Iterator[str]:
        """The fallbacks of an upstream that mean the same by a path, and that the caller may use."""
        found = dialects.find(method, path, self._config.upstreams[name].provider)
        if found is None:
            return
        for fallback in self._config.upstreams[name].fallbacks:
            provider = self._config.upstreams[fallback].provider
            if fallback not in self._credentials or dialects.find(method, path, provider) != found:
                continue
            try:
                keys.check_upstream(principal, fallback)
                self._check_price(provider, model)
            except Refusal:
                continue
            yield fallback

    def _plan(self, places: Sequence[str], ask: Ask) -> Plan:
        """The order in which upstreams are asked: those whose circuit breaker is open come last, or not at all. Raises
        the refusal `upstream_unreachable` where none is left."""
        now = time.monotonic()
        order = self._ordered(places, ask.model or "", now) if self._breakers.has_trouble else places
        return Plan(places[0], order, self._config.upstreams, now)

    def _ordered(self, places: Sequence[str], model: str, now: float) -> Sequence[str]:
        upstreams, breakers = self._config.upstreams, self._breakers
        order = [
            name
            for name in breakers.order(places, model, now)
            if not upstreams[name].breaker_refuses or breakers.pause(name, model, now) is None
        ]
        if not order and (pause := breakers.pause(places[0], model, now)) is not None:
            opened, until = (datetime.now(UTC) + timedelta(seconds=at - now) for at in pause)
            raise Refusal(
                "upstream_unreachable",
                f"Outlay: the upstream {places[0]} has failed again and again with this model, so that it is not asked "
                f"since {opened:%H:%M:%S} UTC. Try again after {until:%H:%M:%S} UTC.",
            )
        return order

    def _may_send(self, key: str | None, message: bytes) -> None:
        """Raises the refusal of a client's message in a session: its key may have ended since, or may not use a model
        that the message names."""
        principal = self._authenticate(key)
        for model in _submodels(message) if principal.models else ():
            keys.check_model(principal, model)

    def _decoded(self, body: bytes, encoding: str | None) -> bytes:
        if encoding is None:
            return body
        try:
            return decoded(body, encoding, self._config.server.body_bytes_max)
        except TooLargeError:
            raise Refusal(
                "request_too_large", "Outlay: the request body decodes to more than body_bytes_max."
            ) from None
        except ValueError as error:
            raise Refusal("request_unreadable", f"Outlay: the request body cannot be decoded: {error}.") from None

    async def _shape(self, body: bytes, operation: str | None, ask: Ask) -> Shape:
        read = functools.partial(
            shape.read, body, operation, self._hash_parts, ask.excerpts.messages,
            marks_caches=ask.may_cache is not None,
        )  # fmt: skip
        return read() if len(body) <= SHAPED_AT_ONCE else await asyncio.to_thread(read)

    def _check_price(self, provider: str, model: str | None) -> None:
        """Raises the refusal `model_unpriced`."""
        if not self._blocks_unpriced:
            return
        found = self._prices.find(provider, model or "", datetime.now(UTC))
        if found is None or found.guessed_model:
            raise Refusal(
                "model_unpriced",
                f"Outlay: the model {model or '(none named)'} has no price here, and calls without a price are "
                "blocked. An administrator can add one to config/prices.toml.",
            )

    async def _refused(self, refusal: Refusal, call: Call, dialect: Dialect | None) -> web.Response:
        """Record a refusal of a known caller (strangers are only counted) and write it."""
        self._telemetry.refusals.labels(refusal.code).inc()
        known = call.key_id is not None or self._config.auth.mode == "open"
        response = refusal_response(refusal, dialect, call)
        if known:
            call.refusal, call.status = refusal.code, response.status
            await self._books.refuse(call)
        return response

    async def _unanswered(self, refusal: Refusal, open_call: OpenCall, result: Result) -> web.Response:
        """Close the call, and write the refusal that stands in for an answer that did not come."""
        self._telemetry.refusals.labels(refusal.code).inc()
        await close_unanswered(self._books, open_call, refusal, result)
        return refusal_response(refusal, open_call.dialect, open_call.call)

    async def _relay_session(
        self,
        request: web.Request,
        call: Call,
        dialect: Dialect,
        ask: Ask,
        path: str,
        fields: credentials.Fields,
        may_send: Callable[[bytes], None],
        *,
        own: bool,
    ) -> web.StreamResponse:
        """Relay a WebSocket session. `own`: with the client's own credential. Raises refusals of the upstream."""
        name = call.upstream or ""
        upstream = self._config.upstreams[name]
        protocols = credentials.protocols(request.headers.get("Sec-WebSocket-Protocol", ""), own=own)
        try:
            bytes_max = self._config.server.body_bytes_max
            socket = await self._sockets.connect(name, upstream, path, fields, protocols, bytes_max)
        except HandshakeRefusedError as refused:
            return web.Response(status=refused.status)
        self._telemetry.in_flight.value += 1
        try:
            session = Session(call, dialect, ask, region_of(upstream, path), self._books, may_send)
            return await session.relay(request, socket, bytes_max)
        finally:
            self._telemetry.in_flight.value -= 1
            await socket.close()

    async def _relay_unbilled(
        self,
        request: web.Request,
        call: Call,
        dialect: Dialect,
        route: Route,
        path: str,
        fields: credentials.Fields,
        body: bytes,
    ) -> web.StreamResponse:
        """Pass on what no provider bills (counting tokens, listing models): no ledger row. Some such answers bring the
        usage of an earlier request, which is booked before the client has them whole."""
        name = call.upstream or ""
        self._telemetry.unmetered.labels(name).inc()
        response: web.StreamResponse | None = None
        sent: asyncio.Future[UpstreamAnswer] | None = None
        try:
            upstream, own_address = self._config.upstreams[name], _own_address(request, path)
            if dialect.links is not None:
                # Addresses can only be replaced in bytes that can be read.
                fields = credentials.without_encoding(fields)
            sent = self._forwarder.send(name, upstream, request.method, path, fields, body)
            answer = await sent
            headers, pieces = headers_of(answer, None), answer.pieces()
            pieces = led_back(dialect.links, headers, pieces, own_address)
            has_piece = answer.has_piece and dialect.links is None  # else it may wait for the whole body
            response = await self._begun(request, answer, headers, has_piece=has_piece)
            if (route.settles or route.starts) and answer.status in (200, 206):
                plain_path, is_part = path.partition("?")[0], answer.status == 206
                watch = Watch(
                    call, dialect, plain_path, region_of(upstream, plain_path), answer.headers, self._books,
                    starts=route.starts, is_part=is_part,
                )  # fmt: skip
                await _relay_watched(pieces, response, watch)
            else:
                async for piece in pieces:
                    await response.write(piece)
            await response.write_eof()
        except Refusal as refusal:
            return refusal_response(refusal, dialect, None)
        except UpstreamLost as lost:
            if response is None:
                return refusal_response(broke_off(lost), dialect, None)
            cut_off(request)
        except ConnectionError:
            pass  # the client left
        except OSError as error:
            # What it brought could not be booked: the client does not get it whole, so that it is read once more.
            log.critical("results could not be recorded: %s", error)
            cut_off(request)
        except Exception:
            if response is not None:  # as in `handle`
                cut_off(request)
            raise
        finally:
            if sent is not None:
                let_go(sent)
        return response or web.Response()


# -- the call record, field by field ------------------------------------------------------------------------------


def _new_call(started_us: int, head: Head, traceparent: str | None) -> Call:
    return msgspec.structs.replace(
        head.record,
        call_id=uuid7(started_us),
        request_id=uuid7(started_us),
        started_us=started_us,
        traceparent=traceparent if traceparent and TRACEPARENT.fullmatch(traceparent) else None,
    )


def _set_principal(call: Call, principal: Principal) -> None:
    call.key_id, call.user_id, call.team_id = principal.key_id, principal.user_id, principal.team_id
    if principal.purpose:
        call.purpose = principal.purpose


def _set_ask(call: Call, ask: Ask) -> None:
    call.request_model, call.stream, call.service_tier = ask.model, ask.stream, ask.service_tier
    call.max_output_tokens, call.message_count, call.tool_count = (
        ask.max_output_tokens, ask.message_count, ask.tool_count,
    )  # fmt: skip


def _set_shape(call: Call, client: Client, made: Shape) -> None:
    call.request_hash, call.prefix_hash, call.action_hash = made.request_hash, made.prefix_hash, made.action_hash
    # What a subagent is told, or a summary is asked for with, no person has written.
    call.human_turn = made.human_turn if client.agent in (None, "main") else False


def _set_attribution(call: Call, client: Client, attribution: Attribution) -> None:
    call.client, call.client_version, call.agent = client.name, client.version, client.agent
    call.session_id = client.session_id
    (
        call.tickets, call.ticket_source, call.ticket_state, call.ticket_candidates, call.task_id, call.task_source,
        call.repo, call.branch, call.commit_sha, _,
    ) = msgspec.structs.astuple(attribution)  # fmt: skip
    if attribution.tickets:
        call.ticket_id = attribution.tickets[0]


# -- requests and answers -----------------------------------------------------------------------------------------


def _with_usage(dialect: Dialect | None, upstream: Upstream, fields: credentials.Fields, body: bytes) -> bytes | None:
    """The body of a stream's request with `stream_options.include_usage` where the usage would else not be reported;
    `None` = as sent."""
    if dialect is not openai_chat.DIALECT:
        return None
    if "content-encoding" in map(str.lower, map(credentials.NAME, fields)):
        return None
    wanted = upstream.include_usage
    if wanted is None:
        wanted = upstream.provider not in REPORTS_USAGE_UNASKED
    return openai_chat.ask_for_usage(body) if wanted else None


def _may_be_whole(request: web.Request, answer: UpstreamAnswer, ask: Ask) -> bool:
    """True for an answer that is read to its end before it is passed on, so that its cost can stand in a header."""
    if not has_body(request, answer):
        return False
    if not answer.headers.get("Content-Type", "").lower().startswith("application/json"):
        return False  # text and sound pass as they come
    if ask.stream and answer.status < 400:
        return False
    return int(answer.headers.get("Content-Length", 0)) <= WHOLE_BYTES_MAX


async def _relay_watched(pieces: AsyncIterator[bytes], response: web.StreamResponse, watch: Watch) -> None:
    """Pass an answer on so that the client has its end only when what it brought is booked. Raises `OSError`.

    An event stream ends with its terminal event. Of anything else one piece is held back until the next has come.
    """
    is_stream = response.headers.get("Content-Type", "").lower().startswith("text/event-stream")
    held = b""
    try:
        async for piece in pieces:
            watch.feed(piece)
            if not is_stream:
                held, piece = piece, held
            elif watch.is_finished:
                await watch.book()
            await response.write(piece)
    except (asyncio.CancelledError, ConnectionError, UpstreamLost):
        await watch.book(whole=False)  # what came by now may never be read again
        raise
    await watch.book()
    await response.write(held)


def _own_address(request: web.Request, path: str) -> str:
    """Where the client reached what the upstream has at `/`: `http://127.0.0.1:8080/anthropic`."""
    plain, own = path.partition("?")[0], request.raw_path.partition("?")[0]
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return f"{scheme}://{request.host}{own.removesuffix(plain)}"


def _models_of_batch(path: str, body: bytes) -> Collection[str]:
    """The models that a new batch asks for. Raises the refusal `forbidden` where the request does not show them."""
    models = batches.models_of(path, body)
    if models is None:
        raise Refusal(
            "forbidden",
            "Outlay: this batch does not show which models it asks for, and here not every model may be asked. "
            "Use a key that may use all models, or ask without a batch.",
        )
    return models


def _read_ask(dialect: Dialect, path: str, body: bytes) -> Ask:
    """What is asked. A body that no dialect should choke on, and yet does, is refused like any other."""
    try:
        return dialect.read_ask(path, body)
    except (ValueError, RecursionError):
        raise Refusal("request_unreadable", "Outlay cannot read the request body.") from None


def _submodels(body: bytes) -> Collection[str]:
    """The models named beside the one asked for. Raises the refusal `request_unreadable` where they cannot be told."""
    try:
        return submodels.named(body)
    except ValueError:
        raise Refusal(
            "request_unreadable",
            "Outlay: this is not strict JSON (half an emoji, NaN, or a field that stands twice, for example), so that "
            "nobody can tell whether it names only models that this key may use.",
        ) from None
