"""Addresses of servers: what passes, the HTTP clients that we use take without an error."""

import http.client
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.addresses import is_address
from gateway.cli import outlay

ODD = [
    "",
    "localhost:8080",
    "ftp://host",
    "http://",
    "http://[",
    "http://[::1",
    "http://[::g]",
    "http://ex\x01ample",
    "http://host/a\x7f",
    "http://host\n",
    "http://a b",
    "http://h:0",
    "http://h:65536",
    "http://h:x",
    "http://999.1.1.1",
    "http://1.1",
    "http://a..b",
    "http://-a",
    "http://" + "a" * 64,
    "http://" + "a." * 127 + "b",
    "http://h/" + "a" * 70_000,
    "http://bücher.example",
]


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080",
        "HTTPS://Outlay.Example./prefix/",
        "http://[::1]:8080",
        "http://outlay_gateway:8080",
        "https://xn--bcher-kva.example:443/a?b=c",
        "http://localhost",
    ],
)
def test_what_is_one(text: str) -> None:
    assert is_address(text)


@given(
    st.text()
    | st.from_regex(r"https?://[!-~]{0,20}", fullmatch=True)
    | st.from_regex(r"http://\[?[0-9a-f:.%@\]]{0,20}(:[0-9]{0,5})?[/?#]?", fullmatch=True)
)
@example("http://x:1@[::1%25eth0]:1")
def test_what_passes_is_taken_by_both_clients(text: str) -> None:
    if is_address(text):
        parts = urlsplit(text)
        assert httpx.URL(text).host
        http.client.HTTPConnection(parts.hostname or "", parts.port)
        (parts.hostname or "").encode("idna")


@pytest.mark.parametrize("url", ["http://[", "http://ex\x01ample", "localhost:8080", "http://a..b"])
@pytest.mark.parametrize(
    "command",
    [
        ["env", "--url"],
        ["run", "--url"],
        ["comment", "--ticket", "PAY-1", "--dry-run", "--url"],
        ["comment", "--ticket", "PAY-1", "--forge", "github", "--repo", "acme/shop", "--pr", "1", "--api"],
    ],
)
def test_each_command_says_so_in_one_line(command: list[str], url: str) -> None:
    ends = ["--", "true"] if command[0] == "run" else []
    done = CliRunner(env={"OUTLAY_URL": None}).invoke(outlay, [*command, url, *ends])
    assert done.exit_code == 2, done.output
    [line] = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert "write an address like http" in line
