"""What holds for any bytes: parsers of requests and answers, framings, routes, credentials. Hypothesis
(tests/test_fuzzing.py) and atheris (tests/fuzz/guided.py) look for bytes for which it does not."""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway import clients, credentials, dialects, routes, submodels, texts
from gateway.call import Answer, Usage
from gateway.dialects import DIALECTS
from gateway.dialects.base import Caller, Dialect
from gateway.errors import STATUS, Refusal
from gateway.framing import AwsEvents, Events, Framing, Items, Json, Lines, ServerSent
from gateway.keys import PREFIX
from gateway.meter import Meter, UsageHider
from gateway.reading import TOKENS_MAX

PROVIDERS = ("openai", "anthropic", "gcp.gemini", "aws.bedrock", "x_ai", "openrouter", "mistral_ai", "perplexity")
TYPES = ("text/event-stream", "application/json", "application/x-ndjson", "application/vnd.amazon.eventstream", "")
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/realtime?model=gpt-realtime",
    "/v1beta/models/gemini-3:streamGenerateContent?alt=sse",
    "/v1beta/models/gemini-3:predict",
    "/model/anthropic.claude-sonnet-4-5-v1:0/invoke-with-response-stream",
    "/model/amazon.nova-micro-v1%3A0/converse-stream",
    "/api/chat",
    "/v2/chat",
    "/v1/images/generations",
    "/ml/v1/text/generation_stream",
    "/v1/conversations",
)
FRAMINGS: tuple[Callable[[], Framing], ...] = (Events, ServerSent, Lines, Json, Items, AwsEvents)
UPSTREAMS = ("openai", "anthropic", "gemini", "bedrock")
BILLED = Usage(input_tokens=30, output_tokens=7, cache_read_input_tokens=10)


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    """The content in pieces that end at these places."""
    ends = sorted({min(place, len(content)) for place in places} | {len(content)})
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# -- answers ----------------------------------------------------------------------------------------------------------


def answer(dialect: Dialect, provider: str, content_type: str, content: bytes, places: Sequence[int]) -> Meter:
    """Any answer is metered without an exception, into counts that are counts, wherever the network cut it."""
    headers = {"Content-Type": content_type, "X-Amzn-Bedrock-Input-Token-Count": "7"}
    meters = []
    for pieces in ([content], cut(content, places)):
        meter = Meter(dialect, provider, headers)
        meter.ending = dialect.ending("/v1/chat/completions", b"{}") if dialect.ending is not None else None
        for piece in pieces:
            meter.feed(piece)
            assert 0 <= meter.unfinished <= meter.bytes_seen
        meter.end(BILLED)
        meter.is_complete()
        check(meter.finish())
        assert meter.bytes_seen == len(content)
        meters.append(meter)
    one, other = meters
    assert one.answer == other.answer
    assert (one.failed, one.sample, one.content_bytes) == (other.failed, other.sample, other.content_bytes)
    texts.written_by_model(one.sample)
    return one


def folded(dialect: Dialect, provider: str, value: dict[str, Any]) -> Answer:
    """Any JSON object is taken in, again and again: what counts only once is not doubled below nothing."""
    found = Answer()
    for _ in range(2):
        dialect.fold(found, value, provider)
        check(found)
    if dialect.fold_headers is not None:
        dialect.fold_headers(found, {"X-Amzn-Bedrock-Output-Token-Count": "-1"})
    check(found)
    return found


def check(found: Answer) -> None:
    """No count below nothing, no float, no text that has no end."""
    for usage in (found.usage, *(each.usage for each in found.subpasses)):
        for name in Usage.__struct_fields__:
            value = getattr(usage, name)
            if name == "other_units":
                units(value or {})
            else:
                assert value is None or (type(value) is int and value >= 0), (name, value)
    units(found.units)
    cost = found.provider_cost_nano
    assert cost is None or (type(cost) is int and 0 <= cost <= TOKENS_MAX)
    named = (found.response_model, found.service_tier, found.finish_reason, found.upstream_id, found.error)
    for name in (*named, found.region, found.tool_model, *(each.model for each in found.subpasses)):
        assert name is None or (isinstance(name, str) and 0 < len(name) <= 256), name


def units(found: dict[str, float]) -> None:
    for name, value in found.items():
        assert isinstance(name, str)
        assert type(value) is float, (name, value)
        assert 0 <= value < math.inf, (name, value)


# -- requests ---------------------------------------------------------------------------------------------------------


def request(dialect: Dialect, provider: str, path: str, body: bytes, tokens: int) -> None:
    """Any request is read or refused. What a budget changes in it can be read, and is not changed again."""
    with contextlib.suppress(Refusal):
        ask = dialect.read_ask(path, body)
        assert ask.model is None or isinstance(ask.model, str)
        assert ask.max_output_tokens is None or (type(ask.max_output_tokens) is int and ask.max_output_tokens >= 0)
        assert type(ask.output_tokens_min) is int
        assert type(ask.choices) is int
        assert ask.choices >= 1
        units(ask.units)
        clients.observe(clients.recognise({"user-agent": "claude-cli/2.0"}), {}, ask, str)
        if dialect.ending is not None and (end := dialect.ending(path, body)) is not None:
            end.see({})
            end.events(BILLED)
        if dialect.clamp is not None and (lower := dialect.clamp(path, provider, body, tokens)) is not None:
            assert dialect.clamp(path, provider, lower, tokens) == lower
        if dialect.reroute is not None and (other := dialect.reroute(path, body, "m-2")) is not None:
            assert dialect.reroute(*other, "m-2") == other
    with contextlib.suppress(ValueError):
        assert all(isinstance(name, str) for name in submodels.named(body))
    with contextlib.suppress(ValueError, RecursionError):
        texts.read_by_model(body)


def refused(dialect: Dialect, caller: Caller) -> None:
    """Each refusal can be written, and is a refusal in any client's eyes."""
    for code in STATUS:
        status, headers, body = dialect.refuse(Refusal(code, "Outlay: no.", retry_after=3, resets_at=7), caller)
        assert 400 <= status < 600
        assert "Outlay: no." in json.dumps(body)
        assert all("\n" not in name + value for name, value in headers.items())


# -- framings ---------------------------------------------------------------------------------------------------------


def framed(make: Callable[[], Framing], content: bytes, places: Sequence[int]) -> None:
    """Events are the same wherever the network cuts; what cannot be of the framing is a `ValueError`."""
    found = []
    for pieces in ([content], cut(content, places)):
        framing, events, failed = make(), [], False
        try:
            for piece in pieces:
                events += framing.feed(piece)
                assert 0 <= len(framing) <= len(content)
            events.append(framing.rest())
            assert len(framing) == 0
        except ValueError:
            failed = True
        found.append((events, failed))
    assert found[0] == found[1]


def hidden(content: bytes, places: Sequence[int]) -> None:
    """Only whole usage chunks are taken out of a chat stream; all other bytes pass in their order."""
    shown = []
    for pieces in ([content], cut(content, places)):
        hider = UsageHider()
        shown.append(b"".join(map(hider.feed, pieces)) + hider.rest())
    assert shown[0] == shown[1]
    if b'"usage"' not in content:
        assert shown[0] == content


# -- where a request goes, and who sent it ----------------------------------------------------------------------------


def target(raw: str, headers: dict[str, str]) -> None:
    """Any target leads to a configured upstream, below its address, or nowhere."""
    found = routes.resolve(raw, headers, UPSTREAMS)
    if found is None:
        return
    assert found.upstream in UPSTREAMS
    assert found.path.startswith("/")
    assert raw.endswith(found.path)
    assert routes.AMBIGUOUS.search(found.path.partition("?")[0]) is None
    assert found.ticket is None or isinstance(found.ticket, str)
    for method in ("GET", "POST", "TRACE"):
        dialects.find(method, found.path.partition("?")[0])


def credential(fields: Sequence[tuple[str, str]], path: str) -> None:
    """What is found as a gateway key is not sent on, in no field and not in the query; nor is any other credential
    where ours replaces it."""
    headers = credentials.readable(dict(fields))
    found = credentials.presented(headers, path)
    credentials.brings_own(headers, path)
    for own in (("x-api-key", "sk-provider"), None):
        sent = credentials.outgoing(fields, own)
        query = credentials.without_gateway_key(path, any_key=own is not None)
        names = [name.lower() for name, _ in sent]
        assert not any(name.startswith("x-outlay-") or name in credentials.HOP_BY_HOP for name in names)
        if own is not None:
            assert [name for name in names if name in credentials.CREDENTIAL_FIELDS] == ["x-api-key"]
            assert credentials._query_keys(query) == []
        if found is not None and found.key.startswith(PREFIX):
            assert credentials.presented(credentials.readable(dict(sent)), query) is None


ALL = DIALECTS
