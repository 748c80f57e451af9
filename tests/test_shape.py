"""The shape of a request: what its hashes cover, who spoke last, which tools are called."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import actions, clients, hashing, shape
from gateway.call import Answer, Client
from gateway.dialects import DIALECTS, openai_chat, openai_responses
from gateway.meter import Meter
from gateway.shape import Shape

REQUESTS = Path(__file__).parent / "transcripts" / "requests"
KEYED = hashing.keyed_parts(b"k" * 32)
JSON: dict[str, str] = {"content-type": "application/json"}
STREAM: dict[str, str] = {"content-type": "text/event-stream"}


def shape_of(body: Any, operation: str = "chat") -> Shape:
    return shape.read(body if isinstance(body, bytes) else json.dumps(body).encode(), operation, KEYED)


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-5.4", "messages": list(messages), **fields}


def says(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


# -- what a hash covers ----------------------------------------------------------------------------------------------

ASKED = chat(says("system", "You are terse."), says("user", "Add 1 and 2"), temperature=0.5)
SAME: dict[str, Any] = {
    "model": "another", "max_tokens": 7, "max_completion_tokens": 8, "stream": True, "seed": 3, "user": "u",
    "stream_options": {"include_usage": True}, "metadata": {"a": 1}, "prompt_cache_key": "k", "safety_identifier": "s",
    "service_tier": "flex", "store": True, "cache_control": {"type": "ephemeral"}, "random_seed": 5, "max_gen_len": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_change_the_work_does_not_change_the_hash(name: str) -> None:
    assert shape_of({**ASKED, name: SAME[name]}).request_hash == shape_of(ASKED).request_hash


@pytest.mark.parametrize("more", [{"temperature": 0.6}, {"tools": []}, {"response_format": {"type": "json_object"}}])
def test_what_changes_the_work_changes_the_hash(more: dict[str, Any]) -> None:
    assert shape_of({**ASKED, **more}).request_hash != shape_of(ASKED).request_hash


@given(st.permutations(list({**ASKED, **SAME})))
def test_the_order_of_fields_does_not_matter(names: list[str]) -> None:
    fields = {**ASKED, **SAME}
    assert shape_of({name: fields[name] for name in names}) == shape_of(fields)


def test_settings_within_settings() -> None:
    def asked(**config: Any) -> str | None:
        body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": config}
        return shape_of(body, "generate_content").request_hash

    assert asked(temperature=1, maxOutputTokens=5, seed=2) == asked(temperature=1)
    assert asked(temperature=1) != asked(temperature=0)


def test_hashes_need_the_key() -> None:
    body = json.dumps(ASKED).encode()
    other = shape.read(body, "chat", hashing.keyed_parts(b"o" * 32))
    assert {other.request_hash, other.prefix_hash}.isdisjoint(
        {shape_of(ASKED).request_hash, shape_of(ASKED).prefix_hash}
    )


def test_parts_are_told_apart() -> None:
    assert KEYED([b"ab", b"c"]) != KEYED([b"a", b"bc"]) != KEYED([b"abc"])


SHORT_AND_LONG = st.builds(bytes.__mul__, st.binary(max_size=20), st.sampled_from([0, 1, 200]))


@given(st.lists(SHORT_AND_LONG, max_size=4), st.lists(SHORT_AND_LONG, max_size=4))
def test_parts_have_one_hash_if_they_are_the_same(one: list[bytes], other: list[bytes]) -> None:
    assert (KEYED(one) == KEYED(other)) == (one == other)


@pytest.mark.parametrize("long", [b"", b"x" * hashing.LONG_BYTES])
def test_the_order_of_parts_and_blanks_at_their_end_count(long: bytes) -> None:
    parts = [b"", b"\0", b"\0" * 16, b"a", b"a\0", b"a" + b"\0" * 15]
    rows = [*([long + each] for each in parts), [], [b"a", long], [long, b"a"], [b"a" + long]]
    assert len(set(map(KEYED, rows))) == len(set(map(tuple, rows)))


def test_settings_are_told_from_fields() -> None:
    asked: list[dict[str, Any]] = [
        {"options": ["x"], "parameters": {"a": 1}}, {"options": {"x": ["a"]}, "parameters": 1}, {"options": []},
        {"options": {}},
    ]  # fmt: skip
    assert len({shape_of(each).request_hash for each in asked}) == len(asked)


def test_the_conversation_that_the_dialect_found_counts() -> None:
    body = {"model": "m", "input": [says("user", "a")], "messages": [says("user", "b")]}
    raw = json.dumps(body).encode()
    for dialect, name in ((openai_responses.DIALECT, "input"), (openai_chat.DIALECT, "messages")):
        found = shape.read(raw, "chat", KEYED, dialect.read_ask("/v1/x", raw).excerpts.messages)
        assert found.prefix_hash == shape_of({"messages": body[name]}).prefix_hash


def test_fields_whose_names_together_are_the_same() -> None:
    assert shape_of({"a,b": 1, "c": 2}).request_hash != shape_of({"a": 1, "b,c": 2}).request_hash


def test_the_prefix_stays_while_a_conversation_grows() -> None:
    turns = [says("system", "Be brief"), says("user", "one"), says("assistant", "1"), says("user", "two")]
    begun, grown = shape_of(chat(*turns[:2])), shape_of(chat(*turns))
    assert begun.prefix_hash == grown.prefix_hash
    assert begun.request_hash != grown.request_hash
    assert grown.prefix_part < begun.prefix_part < 1
    assert shape_of(chat(turns[0], says("user", "another"))).prefix_hash != begun.prefix_hash


def test_parts_of_a_request() -> None:
    tools = [{"name": "read", "description": "d" * 900, "input_schema": {"type": "object"}}]
    found = shape_of({"tools": tools, "system": "s" * 500, "messages": [says("user", "u" * 500)]})
    assert 0.4 < found.tools_part < 0.5
    assert 0.9 < found.prefix_part < 1


# -- marks of caches ---------------------------------------------------------------------------------------------------

MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def blocks(*texts: str, marked: int, first: bool = False) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at, each in enumerate(texts):
        mark = MARK if at == marked else {}
        text = {"type": "text", "text": each}
        found.append({**mark, **text} if first else {**text, **mark})
    return found


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(-1, 3), st.booleans(), st.booleans())
def test_where_the_marks_stand_does_not_matter(texts: list[str], marked: int, first: bool, spaced: bool) -> None:
    def asked(at: int) -> Shape:
        body = {"system": blocks(*texts, marked=at, first=first), "messages": [says("user", blocks("a", marked=at))]}
        return shape_of(json.dumps(body, separators=(", ", ": ") if spaced else (",", ":")).encode())

    assert asked(marked).request_hash == asked(-1).request_hash
    assert asked(marked).prefix_hash == asked(-1).prefix_hash


def test_cache_points_of_converse_do_not_matter() -> None:
    point = {"cachePoint": {"type": "default"}}

    def asked(*content: dict[str, Any]) -> str | None:
        return shape_of(chat(says("user", list(content)))).request_hash

    plain = asked({"text": "a"}, {"text": "b"})
    assert asked({"text": "a"}, point, {"text": "b"}) == plain == asked({"text": "a"}, {"text": "b"}, point)
    assert asked(point, {"text": "a"}, {"text": "b"}) == plain


def test_a_text_about_marks_is_a_text() -> None:
    text = 'Set "cache_control": {"type": "ephemeral"}, please'
    assert shape_of(chat(says("user", text))).request_hash != shape_of(chat(says("user", "Set , please"))).request_hash


def test_a_line_that_changes_with_each_call() -> None:
    def asked(line: str) -> Shape:
        return shape_of({"system": [{"type": "text", "text": line}], "messages": [says("user", "hi")]})

    assert asked("x-anthropic-billing-header: cch=1;").request_hash == asked(
        "x-anthropic-billing-header: cch=2;").request_hash  # fmt: skip
    assert asked("x-anthropic-billing-header: cch=1;").prefix_hash == asked("x-anthropic-billing-header: 2").prefix_hash


# -- who spoke last ----------------------------------------------------------------------------------------------------

RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}


@pytest.mark.parametrize(
    ("body", "human"),
    [
        (chat(says("user", "hi")), True),
        (chat(says("assistant", "hi")), False),
        (chat(says("tool", "ok", tool_call_id="c")), False),
        (chat(says("user", [{"type": "image_url", "image_url": {"url": "x"}}])), True),
        (chat(says("user", [RESULT])), False),
        (chat(says("user", [RESULT, {"type": "text", "text": "<system-reminder>now"}])), False),
        (chat(says("user", [RESULT, {"type": "text", "text": "Stop. Look at the Makefile"}])), True),
        (chat(says("user", [{"type": "text", "text": "results:"}, RESULT])), False),
        (chat(says("user", [{"type": "text", "text": "<system-reminder>now"}])), False),
        (chat(says("user", [{"type": "text", "text": "<system-reminder>now"}, {"type": "text", "text": "go"}])), True),
        (chat(says("user", "go"), says("system", "rules")), True),
        ({"input": "hi"}, True),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "ok"}]}, False),
        ({"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}]}, True),
        ({"contents": [{"parts": [{"text": "hi"}]}]}, True),
        ({"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}]}, False),
        (chat(), None),
        ({"messages": "hi"}, True),
        ({"messages": [7]}, None),
    ],
)
def test_whether_a_person_spoke_last(body: dict[str, Any], human: bool | None) -> None:
    assert shape_of(body).human_turn is human


@pytest.mark.parametrize("path", sorted(REQUESTS.glob("*.json")), ids=lambda path: path.stem)
def test_real_tools_begin_with_a_person(path: Path) -> None:
    recorded = json.loads(path.read_text())
    found = shape_of(recorded["body"], "generate_content" if "gemini" in path.name else "chat")
    assert found.human_turn is True
    assert found.action_hash is None
    assert found.prefix_hash
    assert found.request_hash
    assert 0 <= found.tools_part < found.prefix_part < 1


# -- actions -----------------------------------------------------------------------------------------------------------


def messages_turn(name: str, arguments: Any, result: Any, call_id: str = "t1") -> dict[str, Any]:
    use = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
    back = {"type": "tool_result", "tool_use_id": call_id, "content": result, **MARK}
    return chat(says("user", "go"), says("assistant", [{"type": "text", "text": "so"}, use]), says("user", [back]))


def chat_turn(name: str, arguments: Any, result: Any, call_id: str = "t1") -> dict[str, Any]:
    other = {"id": "t0", "type": "function", "function": {"name": "other", "arguments": "{}"}}
    use = {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return chat(
        says("user", "go"), says("assistant", None, tool_calls=[other, use]),
        says("tool", "no", tool_call_id="t0"), says("tool", result, tool_call_id=call_id),
    )  # fmt: skip


def responses_turn(name: str, arguments: Any, result: Any, call_id: str = "t1") -> dict[str, Any]:
    use = {"type": "function_call", "id": "fc", "call_id": call_id, "name": name, "arguments": json.dumps(arguments)}
    back = {"type": "function_call_output", "call_id": call_id, "output": result}
    return {"input": [{"type": "message", "role": "user", "content": "go"}, use, {"type": "reasoning"}, back]}


def gemini_turn(name: str, arguments: Any, result: Any, call_id: str = "t1") -> dict[str, Any]:
    use = {"functionCall": {"name": name, "args": arguments}}
    back = {"functionResponse": {"name": name, "response": {"output": result}}}
    return {"contents": [{"role": "model", "parts": [use]}, {"role": "user", "parts": [back]}]}


def converse_turn(name: str, arguments: Any, result: Any, call_id: str = "t1") -> dict[str, Any]:
    use = {"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}}
    back = {"toolResult": {"toolUseId": call_id, "content": [{"text": result}]}}
    return chat(says("assistant", [use]), says("user", [back]))


TURNS = [messages_turn, chat_turn, responses_turn, gemini_turn, converse_turn]


@pytest.mark.parametrize("turn", TURNS)
def test_an_action_is_name_arguments_and_result(turn: Any) -> None:
    def action(*parts: Any, **more: Any) -> str | None:
        return shape_of(turn(*parts, **more)).action_hash

    known = action("read", {"path": "a"}, "text")
    assert known
    assert known == action("read", {"path": "a"}, "text", call_id="t2")
    assert len({known, action("open", {"path": "a"}, "text"), action("read", {"path": "b"}, "text"),
                action("read", {"path": "a"}, "other")}) == 4  # fmt: skip


def test_a_person_behind_a_result_begins_anew() -> None:
    body = messages_turn("read", {}, "x")
    body["messages"][-1]["content"].append({"type": "text", "text": "now write"})
    assert (shape_of(body).human_turn, shape_of(body).action_hash) == (True, None)


def test_a_field_of_that_name_hides_nothing() -> None:
    hashes = {shape_of({**chat(says("user", text)), "request": {}}).request_hash for text in "ab"}
    assert len(hashes) == 2
    assert None not in hashes


@pytest.mark.parametrize(
    ("field", "within"),
    [("options", "num_predict"), ("textGenerationConfig", "maxTokenCount"), ("completion_args", "max_tokens")],
)
def test_limits_of_other_dialects(field: str, within: str) -> None:
    assert shape_of({**ASKED, field: {within: 5, "a": 1}}).request_hash == shape_of(
        {**ASKED, field: {within: 6, "a": 1}}).request_hash  # fmt: skip


def test_a_result_without_its_call_is_no_action() -> None:
    assert shape_of(chat(says("user", "go"), says("user", [RESULT]))).action_hash is None


# -- whatever comes ----------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["role", "content", "type", "parts", "text", "tool_calls", "function", "name", "functionCall",
                         "tool_result", "cache_control", "cachePoint", "input"]) | st.text(max_size=5),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["messages", "input", "contents", "tools", "system", "request", "options"]), VALUES)
)
def test_no_request_is_too_odd(body: dict[str, Any]) -> None:
    assert shape_of(body).request_hash or "request" in body


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(body: bytes) -> None:
    shape_of(body)


def test_deep_nesting_is_no_shape() -> None:
    assert shape_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}") == Shape()


@given(VALUES)
def test_no_answer_is_too_odd(value: Any) -> None:
    found: dict[str, bool | None] = {}
    actions.note(found, value)
    tools, edits = actions.counted(found, "codex")
    assert 0 <= (edits or 0) <= tools


# -- tool calls of answers ---------------------------------------------------------------------------------------------


def metered(dialect: str, stream: bytes, headers: dict[str, str], cut: int = 0) -> Answer:
    found = next(each for each in DIALECTS if each.name == dialect)
    meter = Meter(found, "openai", headers)
    if cut:
        chance = random.Random(cut)
        while stream:
            at = chance.randrange(1, 200)
            meter.feed(stream[:at])
            stream = stream[at:]
    else:
        meter.feed(stream)
    answer = meter.finish()
    assert meter.failed is None
    return answer


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def tool_delta(index: int, name: str | None, arguments: str, call_id: str | None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return delta(tool_calls=[{"index": index, **({"id": call_id} if call_id else {}), "function": function}])


CHAT = events(
    delta(role="assistant", content=""), *(delta(content=f"word {n}") for n in range(40)),
    tool_delta(0, "edit", "", "c1"), *(tool_delta(0, None, f'{{"name":"{n}"', None) for n in range(20)),
    tool_delta(1, "read", "", "c2"), delta(content="the end"),
)  # fmt: skip
MESSAGES = events(
    {"type": "message_start", "message": {"id": "m", "model": "claude", "usage": {"input_tokens": 5}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'a "name": b'}},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "tool_use", "id": "t1", "name": "Write", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"name": 1'}},
    {"type": "content_block_start", "index": 2,
     "content_block": {"type": "tool_use", "id": "t2", "name": "Bash", "input": {}}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)  # fmt: skip
TOOL_ITEM = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "shell", "arguments": ""}
PATCHED = {**TOOL_ITEM, "arguments": '{"command":["apply_patch","*** Begin"]}'}
RESPONSES = events(
    {"type": "response.created", "response": {"id": "r", "tools": [{"type": "function", "name": "shell"}]}},
    {"type": "response.output_item.added", "item": TOOL_ITEM},
    {"type": "response.function_call_arguments.delta", "delta": "{"},
    {"type": "response.output_item.done", "item": PATCHED},
    {"type": "response.completed", "response": {"id": "r", "model": "m", "output": [PATCHED], "usage": {
        "input_tokens": 5, "output_tokens": 6}}},
)  # fmt: skip
GEMINI = events(
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "replace", "args": {}}}]}}], "modelVersion": "g"},
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "replace", "args": {}}},
                                           {"functionCall": {"name": "glob", "args": {}}}]}}]},
)  # fmt: skip


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("dialect", "stream", "tools", "edits"),
    [
        ("openai_chat", CHAT, 2, 1), ("anthropic_messages", MESSAGES, 2, 1), ("openai_responses", RESPONSES, 1, 1),
        ("gemini_generate", GEMINI, 3, 2),
    ],
)  # fmt: skip
def test_tool_calls_of_a_stream(dialect: str, stream: bytes, tools: int, edits: int, cut: int) -> None:
    assert actions.counted(metered(dialect, stream, STREAM, cut).tools, "codex") == (tools, edits)


def test_tool_calls_of_a_whole_answer() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "str_replace_based_edit_tool", "input": {"name": "x"}}
    body = {"type": "message", "model": "m", "content": [{"type": "text", "text": "a"}, use], "usage": {}}
    assert actions.counted(metered("anthropic_messages", json.dumps(body).encode(), JSON).tools, None) == (1, 1)
    plain = {"model": "m", "choices": [{"message": {"content": "hi"}}]}
    assert actions.counted(metered("openai_chat", json.dumps(plain).encode(), JSON).tools, None) == (0, 0)


def test_a_name_that_comes_with_each_piece_is_one_call() -> None:
    stream = events(*(tool_delta(0, "edit", "x", None) for _ in range(5)), tool_delta(1, "edit", "", None))
    assert actions.counted(metered("openai_chat", stream, STREAM).tools, None) == (2, 2)


def test_tools_of_the_responses_api_that_have_no_name() -> None:
    items = [{"type": "apply_patch_call", "call_id": "a"}, {"type": "shell_call", "call_id": "b", "action": {}}]
    body = {"model": "m", "output": items, "usage": {"input_tokens": 1, "output_tokens": 1}}
    assert actions.counted(metered("openai_responses", json.dumps(body).encode(), JSON).tools, "codex") == (2, 1)


@pytest.mark.parametrize(
    ("client", "names", "edits"),
    [
        ("codex", ["mcp__deploy"], 0),
        ("openai-python", ["deploy"], None),
        ("openai-python", ["deploy", "edit"], 1),
        ("openai-python", [], 0),
        ("aider", [], None),
    ],
)
def test_not_known_is_not_none(client: str, names: list[str], edits: int | None) -> None:
    found: dict[str, bool | None] = {}
    actions.note(found, [{"type": "tool_use", "id": str(at), "name": name} for at, name in enumerate(names)])
    assert actions.counted(found, client) == (len(names), edits)


def test_tools_that_clients_name_are_known() -> None:
    assert {*actions.KNOWS_EDITORS, actions.WRITES_ITSELF} <= {*clients.OBSERVERS, "aider"}
    assert Client().agent is None
