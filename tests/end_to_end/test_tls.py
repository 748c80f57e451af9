"""Upstreams over TLS: trusted, called by another name, and cut off without a goodbye."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway import ledger
from tests.certificates import self_signed
from tests.end_to_end.serving import served, write_config
from tests.fakes.upstream import CUT, FakeUpstream, chunked, whole
from tests.test_upstream_faults import CHAT, EVENTS, STREAMED, answer


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[FakeUpstream, Path]]:
    """A provider that speaks TLS as 127.0.0.1, and the certificate that it is to be trusted by."""
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    fake = FakeUpstream()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, ssl=context)
    fake.port = server.sockets[0].getsockname()[1]
    yield fake, certificate
    server.close()


@pytest.mark.parametrize("client", ["lean", "aiohttp"])
async def test_tls(tmp_path: Path, secure: tuple[FakeUpstream, Path], client: str) -> None:
    upstream, certificate = secure
    config = write_config(tmp_path, f"https://127.0.0.1:{upstream.port}", more=[f'upstream_client = "{client}"'])
    text = config.read_text() + "\nenabled = false\n"
    text += f'[upstreams.misnamed]\nbase_url = "https://localhost:{upstream.port}"\nprovider = "openai"\n'
    config.write_text(text + 'credential = "env:PROVIDER_KEY"\n')
    async with (
        served(config, env={"SSL_CERT_FILE": str(certificate)}) as gateway,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {gateway.key}"}) as session,
    ):
        url = gateway.url + "/v1/chat/completions"
        for number in range(3):
            upstream.answer(whole(answer(f"{number}")))
            async with session.post(url, json=CHAT) as response:
                assert (response.status, await response.json()) == (200, answer(f"{number}"))
        assert len({request.port for request in upstream.requests}) == 1  # kept
        upstream.answer(chunked(EVENTS[0], 0.05, CUT))
        with contextlib.suppress(aiohttp.ClientError):
            async with session.post(url, json=STREAMED) as response:
                await response.read()
                raise AssertionError("ended as if it were whole")
        before = len(upstream.requests)
        async with session.post(gateway.url + "/misnamed/v1/chat/completions", json=CHAT) as response:
            assert (response.status, response.headers["x-outlay-refusal"]) == (502, "upstream_unreachable")
            assert "the upstream misnamed" in await response.text()
        assert len(upstream.requests) == before
    records = [record for path in (tmp_path / "data/journal").glob("*.jsonl") for record in ledger.records(path)]
    rows = [(record["result"], record["upstream"]) for record in records if record["e"] == "close"]
    assert rows == [("completed", "openai")] * 3 + [("upstream_cut", "openai"), ("upstream_error", "misnamed")]
