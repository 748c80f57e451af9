"""What a key is bound to holds for every model that a request names."""

import json
from typing import Any

import pytest

from gateway import submodels


@pytest.mark.parametrize(
    ("body", "models"),
    [
        ({"model": "a", "models": ["b", {"model": "c"}, 5, None]}, {"b", "c"}),
        ({"fallbacks": [{"model": "d"}, "e"]}, {"d", "e"}),
        ({"tools": [{"type": "image_generation", "model": "f"}]}, {"f"}),
        ({"tools": [{"type": "function", "parameters": {"model": "x"}}]}, set()),
        ({"session": {"model": "g", "audio": {"input": {"transcription": {"model": "h"}}}}}, {"g", "h"}),
        ({"session": {"input_audio_transcription": {"model": "i"}}}, {"i"}),
        ({"requests": [{"params": {"model": "a", "tools": [{"model": "j"}]}}, 5]}, {"j"}),
        ({"models": "all", "tools": {"model": "x"}, "session": [], "requests": "x"}, set()),
        ([{"models": ["x"]}], set()),
    ],
)  # fmt: skip
def test_named(body: Any, models: set[str]) -> None:
    assert submodels.named(json.dumps(body).encode()) == models


@pytest.mark.parametrize("body", [b"", b"--boundary", b"\xff", b"[" * 100_000, b"\x00\x01"])
def test_what_is_no_json_names_none(body: bytes) -> None:
    assert submodels.named(body) == set()
