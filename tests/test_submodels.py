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


@pytest.mark.parametrize("body", [b"", b"--boundary\r\n"])
def test_nothing_and_forms_name_none(body: bytes) -> None:
    assert submodels.named(body) == set()


@pytest.mark.parametrize(
    "odd",
    [b'"\\ud800"', b"NaN", b"1e999", b"9" * 5000, b'"\xff"', b"[" * 100_000 + b"]" * 100_000, b"tru", b'"\n"'],
)  # fmt: skip
def test_what_cannot_be_read_to_its_end_is_not_taken_for_nothing(odd: bytes) -> None:
    with pytest.raises(ValueError, match="strict JSON"):
        submodels.named(b'{"models":["x"],"metadata":' + odd + b"}")


@pytest.mark.parametrize("body", [b"\xff", b"\xef\xbb\xbf{}", '{"models":["x"]}'.encode("utf-16"), b"\x00", b" "])
def test_bytes_that_only_lax_readers_take(body: bytes) -> None:
    with pytest.raises(ValueError, match="strict JSON"):
        submodels.named(body)
