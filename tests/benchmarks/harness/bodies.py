"""Request bodies: the same text for every target, in the shape of a coding agent's turn."""

import json
import random
import re
from typing import Any, Literal

from tests.benchmarks.harness.answers import Api

Size = Literal["small", "medium", "large"]
SIZES: dict[Size, tuple[int, int]] = {"small": (1_000, 0), "medium": (14_200, 13), "large": (488_000, 13)}
"""Bytes of messages, and tools: bodies of about 1, 30 and 500 kB."""
NUMBER = "@N00000000"
"""Stands in the last message: the load generator numbers the calls, so that no two bodies are the same."""

WORDS = re.findall(
    r"\w+",
    "the gateway reads a request checks the budget of the key and sends it on then it reads the answer of the model "
    "counts tokens books the cost on the ticket and returns every byte as it came def async await import class return "
    "if else for while try except None True False self data path file line test error value",
)


def prose(size: int, seed: int) -> str:
    dice = random.Random(seed)
    words, length = [], 0
    while length < size:
        word = dice.choice(WORDS)
        if dice.random() < 0.08:
            word += dice.choice([".", ",", "\n", "();", " = {", "\n    "])
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:size]


def tools(count: int) -> list[dict[str, Any]]:
    return [
        {
            "name": f"tool_{i}",
            "description": prose(420, 1000 + i),
            "parameters": {
                "type": "object",
                "properties": {f"arg_{j}": {"type": "string", "description": prose(90, i * 100 + j)} for j in range(5)},
                "required": ["arg_0"],
            },
        }
        for i in range(count)
    ]


def messages(size: int) -> list[dict[str, str]]:
    """A conversation of about `size` bytes."""
    turns = [
        {"role": "system", "content": prose(300 if size <= 2048 else min(8000, size // 4), 1)},
        {"role": "user", "content": prose(400, 2)},
    ]
    left = size - len(json.dumps(turns))
    for i in range(left // 6000 + 1 if size > 2048 else 0):
        turns.append({"role": "assistant", "content": prose(250, 10 + i)})
        turns.append({"role": "user", "content": prose(max(40, min(left, 6000) - 400), 5000 + i)})
        left -= 6000
    if turns[-1]["role"] == "user":
        turns.append({"role": "assistant", "content": prose(60, 3)})
    return [*turns, {"role": "user", "content": f"Go on with step {NUMBER}."}]


def body(size: Size, model: str, stream: bool, api: Api) -> bytes:
    length, tool_count = SIZES[size]
    turns, offered = messages(length), tools(tool_count)
    asked: dict[str, Any]
    if api == "messages":
        asked = {
            "model": model, "max_tokens": 4096, "messages": turns[1:], "system": turns[0]["content"], "temperature": 1,
        }  # fmt: skip
        asked["tools"] = [{"input_schema" if k == "parameters" else k: v for k, v in t.items()} for t in offered]
    elif api == "responses":
        kinds = {"assistant": "output_text", "user": "input_text"}
        asked = {
            "model": model, "instructions": turns[0]["content"], "store": False, "max_output_tokens": 4096,
            "input": [
                {"type": "message", "role": turn["role"],
                 "content": [{"type": kinds[turn["role"]], "text": turn["content"]}]}
                for turn in turns[1:]
            ],
        }  # fmt: skip
        asked["tools"] = [{"type": "function", "strict": False, **tool} for tool in offered]
    else:
        asked = {"messages": turns, "model": model, "max_tokens": 4096, "temperature": 0.2}
        asked["tools"] = [{"type": "function", "function": tool} for tool in offered]
        if stream:
            asked["stream_options"] = {"include_usage": True}
    if not offered:
        del asked["tools"]
    if stream:
        asked["stream"] = True
    return json.dumps(asked).encode()
