"""Events that differ in nothing but a text: which they are, and that no other is taken for one of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import actions, alike
from gateway.dialects import DIALECTS
from gateway.dialects.base import Dialect
from gateway.texts import WRITTEN, carries_text

CHAT = b'data: {"id":"x","choices":[{"delta":{"content":"%b"},"finish_reason":null}],"usage":null}\n\n'
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text": "%b"}}\n\n'
OTHERS = [
    CHAT.replace(b"null}]", b'"stop"}]') % b"a", CHAT.replace(b"null}\n", b'{"prompt_tokens":1}}\n') % b"a",
    b"data: [DONE]\n\n", b": alive\n\n", b"\n", b'data: {"id":"x","choices":[]}\n\n', CHAT[:40], CHAT[:-2] % b"a",
]  # fmt: skip
WORDS = (
    "usage", "error", "errors", "status", "results", "message_stop", "message-end", "response.completed", "ping",
    "stop", "interaction.completed", "shell_call", "usageMetadata", "usage_info", "exception", "{", "true", "1",
)  # fmt: skip
AWS_ALONE = ("bedrock_invoke",)
"""Its streams are no server-sent events."""
RAW = st.text('a"\\\n{},é', max_size=4).map(str.encode)


def like(event: bytes) -> alike.Alike:
    found = alike.of(event)
    assert found is not None
    return found


@pytest.mark.parametrize("event", [CHAT, DELTA])
def test_events_in_a_row(event: bytes) -> None:
    block = b"".join(event % text for text in (b"Hello", b"", b", \\u00e9\\n", b"\xc3\xa9"))
    for first in (b"the", b"", b"fin"):
        assert like(event % first).run(block) == (4, len(block))
    assert like(event % b"a").before_data == event[: event.index(b"{")]


@pytest.mark.parametrize("other", OTHERS)
def test_they_end_before_another(other: bytes) -> None:
    block = CHAT % b"a" + CHAT % b"b"
    assert like(CHAT % b"c").run(block + other) == (2, len(block))
    assert like(CHAT % b"c").run(other + block) == (0, 0)


@given(st.lists(st.one_of(RAW.map(CHAT.__mod__), st.sampled_from(OTHERS)), max_size=6))
def test_nothing_else_is_one(events: list[bytes]) -> None:
    block, found = b"".join(events), like(CHAT % b"c")
    number, size = found.run(block)
    row = [event + b"\n\n" for event in block[:size].split(b"\n\n")[:-1]]
    assert (len(row), len(b"".join(row))) == (number, size)
    for event in row:
        assert event.startswith(found.head)
        assert event.endswith(found.tail)
        assert not re.search(rb'["\n]|\\$', event[len(found.head) : -len(found.tail)])


@given(
    st.sampled_from([each for each in DIALECTS if each.name not in AWS_ALONE]),
    st.sampled_from(sorted(WRITTEN)),
    st.one_of(st.text(st.characters(codec="utf-8", exclude_characters='"\n')), st.sampled_from(WORDS)),
    st.sampled_from([',"a":1', "", " "]),
)
def test_no_text_makes_an_event_matter(dialect: Dialect, name: str, text: str, rest: str) -> None:
    """Else one that is looked at alone, and one in a row, could be taken for different things."""
    event = f'{{"{name}":"{text}"{rest}}}'.encode()
    assert not dialect.may_matter.search(event)
    assert not actions.MARK.search(event)
    assert carries_text(event)


def test_what_is_long_is_not_kept() -> None:
    assert alike.of(CHAT % (b"a" * alike.LENGTH_MAX)) is None


def test_a_text_with_a_quote_ends_the_row() -> None:
    block = CHAT % b"a" + CHAT % b"b\\n"
    assert like(CHAT % b"c").run(block + CHAT % b'say \\"d\\"' + CHAT % b"e") == (2, len(block))
    assert like(CHAT % b"c").run(CHAT % b'\\"' + block) == (0, 0)


@pytest.mark.parametrize(
    "event",
    [b"data: [DONE]\n\n", b": alive\n\n", b'data: {"type":"ping"}\n\n', b'data: {"delta":\ndata: {"text":"a"}}\n\n',
     CHAT % rb"a\"b", b'data: {"text":"a"}\n', b'id: 1\ndata: {"text":"a"}\n\n', b'data: {"text":"a\n\n'],
)  # fmt: skip
def test_events_that_none_is_like(event: bytes) -> None:
    found = alike.of(event)
    assert found is None or found.run(event * 3) == (0, 0)
