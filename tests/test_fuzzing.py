"""Any bytes: hypothesis on every dialect and framing, on recordings with odd values in them, and on what grows.

`OUTLAY_EXAMPLES=5000 pytest tests/test_fuzzing.py` looks longer; tests/fuzz/guided.py looks where coverage leads."""

import copy
import gc
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import clients, submodels, texts
from gateway.call import Ask
from gateway.dialects import DIALECTS
from gateway.dialects.base import Caller, Dialect
from gateway.framing import AwsEvents, Event, aws_frame
from gateway.meter import Meter
from gateway.ticket_keys import TicketKeys
from tests import streams
from tests.fuzz import targets

EXAMPLES = int(os.environ.get("OUTLAY_EXAMPLES", "30"))
few = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
EACH = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
CUTS = st.lists(st.integers(0, 3000), max_size=6)
PROVIDERS = st.sampled_from(targets.PROVIDERS)
ODD: list[Any] = [
    None, True, False, -1, 0, 3, 2**53, 2**53 + 1, 2**70, -(2**70), 1.5, -0.5, 1e308, "", "x" * 5000, "\ud83d", "\x00",
    "12", "-5", "1e9", [], [[]], {}, {"": {}}, [None, 1, "a", {"usage": {"input_tokens": -1}}],
]  # fmt: skip


def parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a JSON value, as a container and a key."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from parts(inner)


def mutated(value: Any, rng: random.Random) -> Any:
    """The value with some places cut out, doubled, swapped, nested, or filled with something odd."""
    value = {"": copy.deepcopy(value)}
    for _ in range(rng.randint(1, 4)):
        places = list(parts(value))
        if not places:
            break
        within, key = rng.choice(places)
        other, name = rng.choice(places)
        match rng.randrange(6):
            case 0 if within is not value:
                del within[key]
            case 1:
                within[key] = copy.deepcopy(other[name]) if within is not other else [within[key], within[key]]
            case 2:
                within[key] = [within[key]] if rng.random() < 0.5 else {"usage": within[key]}
            case 3 if isinstance(within, dict) and within is not value:
                within[rng.choice(["usage", "type", "model", "choices", "error", "message"])] = copy.deepcopy(
                    rng.choice(ODD)
                )
            case _:
                within[key] = copy.deepcopy(rng.choice(ODD))
    return value.get("")


def written(value: Any, rng: random.Random) -> bytes:
    """As JSON, now and then with a name twice, or with bytes cut, doubled or changed."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if text.startswith(b"{") and len(text) > 2 and rng.random() < 0.2:
        text = b'{"usage":{"input_tokens":-3},' + text[1:]
    for _ in range(rng.choice([0, 0, 1, 3])):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice([1, 1, 5, 50]))
        text = text[:at] + rng.choice([b"", text[at:end] * 2, b"\xff", b'"', b"{", b"\\", b"\n\n"]) + text[end:]
    return text


def damaged(stream: streams.Stream, rng: random.Random) -> bytes:
    """A recorded stream with odd events, in its own framing."""
    pieces = []
    for piece in stream.pieces:
        if rng.random() < 0.5:
            pieces.append(piece)
            continue
        if piece[:1] == b"\x00":
            framing = AwsEvents()
            [event] = framing.feed(piece)
            payload = written(mutated(json.loads(event), rng), rng)
            pieces.append(aws_frame(Event(rng.choice(["chunk", "metadata", "x"]), payload)))
            continue
        start, end = piece.find(b"{"), piece.rfind(b"}") + 1
        try:
            value = json.loads(piece[start:end])
        except ValueError:
            pieces.append(piece * rng.choice([0, 2]))
            continue
        pieces.append(piece[:start] + written(mutated(value, rng), rng) + piece[end:])
    return b"".join(pieces)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", streams.transcripts(), ids=lambda each: each.name)
@few
@given(st.randoms(use_true_random=False), PROVIDERS, CUTS)
def test_recorded_streams_with_odd_events(
    stream: streams.Stream, rng: random.Random, provider: str, places: list[int]
) -> None:
    targets.answer(stream.dialect, provider, stream.content_type, damaged(stream, rng), places)


EVENTS = [
    json.loads(piece[piece.find(b"{") : piece.rfind(b"}") + 1])
    for stream in streams.transcripts()
    for piece in stream.pieces
    if piece[:1] != b"\x00" and b"{" in piece
]
EVENTS += [
    json.loads(event)
    for stream in streams.transcripts()
    for piece in stream.pieces
    if piece[:1] == b"\x00"
    for event in AwsEvents().feed(piece)
]


@EACH
@few
@given(st.randoms(use_true_random=False), PROVIDERS)
def test_any_dialect_takes_any_event(dialect: Dialect, rng: random.Random, provider: str) -> None:
    """Also those of others, which compatible servers mix in."""
    value = mutated(rng.choice(EVENTS), rng)
    if isinstance(value, dict):
        targets.folded(dialect, provider, value)


BYTES = st.binary(max_size=300) | st.lists(
    st.sampled_from(
        [b"data: ", b"\n\n", b"\r\n", b"\r", b'{"usage":', b'{"a":1}', b"[", b"]", b",", b'"', b"\\", b"{", b"}", b"\0",
         b"[DONE]", b"event: x", b"\xef\xbb\xbf", b"\xff", aws_frame(Event("chunk", b"{}"))[:20],
         aws_frame(Event("metadata", b'{"usage":{"inputTokens":3}}'))]
    ), max_size=30,
).map(b"".join)  # fmt: skip


@EACH
@few
@given(st.sampled_from(targets.TYPES), BYTES, CUTS)
def test_any_bytes_are_metered_the_same_wherever_they_are_cut(
    dialect: Dialect, content_type: str, content: bytes, places: list[int]
) -> None:
    targets.answer(dialect, "openai", content_type, content, places)


# -- framings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", targets.FRAMINGS, ids=lambda each: each.__name__)
@few
@given(BYTES, CUTS)
def test_framings_of_any_bytes(make: Any, content: bytes, places: list[int]) -> None:
    targets.framed(make, content, places)


HEADS = st.lists(
    st.tuples(
        st.sampled_from([b":message-type", b":event-type", b"\xff", b""]), st.integers(0, 12), st.binary(max_size=9)
    )
)


@few
@given(HEADS, st.binary(max_size=30), st.binary(max_size=40), CUTS)
def test_aws_frames_that_are_sound_and_make_no_sense(
    fields: list[tuple[bytes, int, bytes]], junk: bytes, payload: bytes, places: list[int]
) -> None:
    head = b"".join(bytes([len(name)]) + name + bytes([kind]) + value for name, kind, value in fields) + junk
    content = aws_frame(Event("metadata", b"{}")) + streams.sound_frame(head, payload)
    targets.framed(AwsEvents, content, places)


@few
@given(BYTES | st.randoms(use_true_random=False).map(lambda rng: damaged(streams.transcript("chat"), rng)), CUTS)
def test_nothing_but_usage_is_hidden(content: bytes, places: list[int]) -> None:
    targets.hidden(content, places)


# -- requests ---------------------------------------------------------------------------------------------------------

REQUESTS = [json.loads(stream.request) for stream in streams.transcripts()]
for _file in sorted((streams.TRANSCRIPTS.parent / "requests").glob("*.json")):
    _given = json.loads(_file.read_bytes())
    REQUESTS.append(_given.get("body", _given))


@EACH
@few
@given(st.randoms(use_true_random=False), st.sampled_from(targets.PATHS), PROVIDERS, st.integers(1, 10**5))
def test_recorded_requests_with_odd_values(
    dialect: Dialect, rng: random.Random, path: str, provider: str, tokens: int
) -> None:
    targets.request(dialect, provider, path, written(mutated(rng.choice(REQUESTS), rng), rng), tokens)


@EACH
@pytest.mark.parametrize("caller", [Caller(), Caller("claude-code", "id"), Caller("aider"), Caller("no such tool")])
def test_each_refusal_in_each_dialect(dialect: Dialect, caller: Caller) -> None:
    targets.refused(dialect, caller)


# -- where to, and who ------------------------------------------------------------------------------------------------

SEGMENTS = st.sampled_from(
    ["/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "\\", "%5c", ";", "@", "?", "#", "http://h", "HTTPS://u@h:1",
     "openai", "anthropic", "v1", "chat", "completions", "messages", "model", "t", "PAY-1", "task", "key=olk_a",
     "&", "%", "%00", "é", "\udcff", ":", "%3A"]
)  # fmt: skip
RAW = st.lists(SEGMENTS | st.just("/"), max_size=14).map("".join) | st.text(max_size=60)
FIELD_NAMES = st.sampled_from(
    ["Authorization", "x-api-key", "API-KEY", "x-goog-api-key", "x-outlay-key", "X-Outlay-Ticket", "Connection", "TE",
     "sec-websocket-protocol", "x-other", "Cookie"]
)  # fmt: skip
FIELD_VALUES = st.sampled_from(
    ["olk_a", "Bearer olk_a", "bearer  olk_a", "Basic olk_a", "sk-own", "", "x-api-key", "AWS4-HMAC olk_",
     "openai-insecure-api-key.olk_a", "PAY-1", "\udcff"]
)  # fmt: skip


@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(RAW, st.sampled_from([{}, {"anthropic-version": "1"}, {"x-goog-api-key": "k"}]))
def test_any_target_leads_below_an_upstream_or_nowhere(raw: str, headers: dict[str, str]) -> None:
    targets.target(raw, headers)


@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES), max_size=5, unique_by=lambda each: each[0].lower()), RAW)
def test_no_key_goes_on(fields: list[tuple[str, str]], path: str) -> None:
    targets.credential(fields, path)


# -- what grows -------------------------------------------------------------------------------------------------------

N = 8_000
GROWING: dict[str, Callable[[int], bytes]] = {
    "arrays": lambda n: b"[" * n,
    "closed arrays": lambda n: b"[" * (n // 2) + b"]" * (n // 2),
    "objects": lambda n: b'{"a":' * (n // 5),
    "escapes": lambda n: b'{"model":"' + b"\\\\" * (n // 2) + b'"}',
    "open escapes": lambda n: b'{"model":"' + b'\\"' * (n // 2),
    "quotes": lambda n: b'"' * n,
    "many names": lambda n: b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(n // 12)) + b"}",
    "one name": lambda n: b"{" + b",".join(b'"max_tokens":5' for _ in range(n // 15)) + b',"model":"m"}',
    "one name of objects": lambda n: b"{" + b",".join(b'"metadata":{"a":[1]}' for _ in range(n // 21)) + b"}",
    "usage and blanks": lambda n: b'{"usage"' + b" " * n,
    "types": lambda n: b'{"type":"' + b"a." * (n // 2) + b'"}',
    "cache marks": lambda n: b'{"messages":[' + b'"cache_control":{' * (n // 17) + b"]}",
    "cache names": lambda n: b'{"a":"' + b"cache_control" * (n // 13) + b'"}',
    "base64": lambda n: b'{"input":"' + b"QUJD" * (n // 4) + b'"}',
    "nearly base64": lambda n: b'{"input":"' + b"QUJD" * (n // 4) + b' "}',
    "digits": lambda n: b'{"max_tokens":' + b"9" * n + b"}",
    "blank lines": lambda n: b"\n" * n,
    "returns": lambda n: b"\r" * n,
    "returns and lines": lambda n: b"data: {}\r\n" * (n // 10),
    "empty events": lambda n: b"data:\n\n" * (n // 7),
    "long event": lambda n: b"data: {}\n" * (n // 9),
    "commas": lambda n: b"[" + b"," * n,
    "items": lambda n: b"[" + b"{}," * (n // 3),
    "form": lambda n: (
        b"--b\r\n" + b'Content-Disposition: form-data; name="a"\r\n\r\nx\r\n--b\r\n' * (n // 55) + b"\r\n--b--"
    ),
    "form of blanks": lambda n: b"--b\r\n" + b"Content-Disposition: form-data;" + b" ;" * (n // 2) + b"\r\n--b--",
    "tools": lambda n: b'{"tools":[' + b",".join(b'{"type":"function","name":"f"}' for _ in range(n // 31)) + b"]}",
    "surrogates": lambda n: b'{"a":"' + b"\\ud83d" * (n // 6) + b'"}',
    "no text": lambda n: b'{"a":"' + b"\xff" * n + b'"}',
    "prompts": lambda n: b'{"prompt":[' + b"[1]," * (n // 4) + b"[1]]}",
    "letters": lambda n: b"PAY-1" * (n // 5),
    "slashes": lambda n: b"a/" * (n // 2),
    "hyphens": lambda n: b"A-" * (n // 2),
}


def meter_of(dialect: Dialect, content_type: str) -> Callable[[bytes], None]:
    def feed(content: bytes) -> None:
        meter = Meter(dialect, "openai", {"Content-Type": content_type})
        for start in range(0, len(content), 100):
            meter.feed(content[start : start + 100])
        meter.is_complete()

    return feed


def reader_of(dialect: Dialect) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        for path in ("/v1/chat/completions", "/v1/models/m:predict"):
            targets.request(dialect, "openai", path, content, 100)

    return read


def texts_of(content: bytes) -> None:
    texts.written_by_model(content)
    text = content.decode("utf-8", "replace")
    for keys in (TicketKeys(), TicketKeys(projects=["PAY", "acme/shop"])):
        keys.in_text(text)
        keys.named(text[:1000])
        keys.in_branch(text[:255], "acme/shop")
    clients.observe(clients.recognise({"user-agent": text}), {}, Ask(), str)
    targets.target("/openai/" + text, {})
    targets.credential([("x-api-key", text)], "/v1/models?" + text)
    try:
        submodels.named(content)
    except ValueError:
        return


def seconds(work: Callable[[bytes], None], content: bytes) -> float:
    gc.disable()  # what it costs depends on all else in the process
    try:
        begun = time.process_time()
        work(content)
        return time.process_time() - begun
    finally:
        gc.enable()


WORK: dict[str, Callable[[bytes], None]] = {
    **{f"request {each.name}": reader_of(each) for each in DIALECTS},
    **{f"{kind} {each.name}": meter_of(each, kind) for each in DIALECTS[:1] for kind in targets.TYPES},
    "json gemini_generate": meter_of(DIALECTS[4], "application/json"),
    "texts": texts_of,
}


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("work", WORK)
def test_eight_times_as_much_is_no_sixty_times_the_work(work: str, name: str) -> None:
    """CPU time of eight times the bytes: 8 where it is linear, 64 where it is quadratic. The best of several tries."""
    small, large = GROWING[name](N), GROWING[name](8 * N)
    ratios = []
    for _ in range(5):
        took = seconds(WORK[work], large)
        ratios.append(took / max(seconds(WORK[work], small), 0.0005))
        if took < 0.02 or ratios[-1] < 30:
            return
    pytest.fail(f"{len(large)} bytes cost {ratios} times what {len(small)} do")
