"""What a worker gets below `/-/` belongs to the owner, which serves it on a Unix socket in the data folder."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from gateway import credentials
from gateway.config import Server
from gateway.guard import BACKLOG, FIELDS_MAX
from gateway.routes import without_origin

ANSWER_SECONDS = 120.0


def _name(gateway_id: str) -> str:
    return f"gateway-{gateway_id}.sock"


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder under a short name: the address of a socket has no more than 107 bytes."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{folder}")
    finally:
        os.close(folder)


@contextlib.contextmanager
def listener(data: Path, gateway_id: str) -> Iterator[socket.socket]:
    """A socket for the folder's user alone, while the block runs. Those that a crash left are removed."""
    with _folder(data) as folder:
        for left in folder.glob(_name("*")):
            if _is_dead(left):
                left.unlink(missing_ok=True)
        path, made = folder / _name(gateway_id), socket.socket(socket.AF_UNIX)
        aside = path.with_suffix(".new")
        try:
            os.fchmod(made.fileno(), 0o600)  # before it has a place: nobody else can reach it, not for a moment
            aside.unlink(missing_ok=True)
            made.bind(str(aside))
            made.listen(BACKLOG)
            aside.rename(path)  # under its name it is never taken for what a crash left
            yield made
        finally:
            made.close()
            path.unlink(missing_ok=True)


def _is_dead(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False


class Relay:
    """A worker's way to it."""

    def __init__(self, data: Path, gateway_id: str, server: Server) -> None:
        self._folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(f"/proc/self/fd/{self._folder}/{_name(gateway_id)}"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            max_line_size=server.header_bytes_max,
            max_field_size=server.header_bytes_max,
            max_headers=FIELDS_MAX,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )

    async def close(self) -> None:
        await self._session.close()
        os.close(self._folder)

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/-/{rest:.*}", self.serve)]

    async def serve(self, request: web.Request) -> web.Response:
        """Pass a request on, and its answer back, both as they are."""
        try:
            async with self._session.request(
                request.method,
                URL("http://owner" + without_origin(request.raw_path), encoded=True),
                headers=CIMultiDict(credentials.end_to_end(request.headers.items())),
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return web.json_response({"error": "the gateway's owner does not answer"}, status=503)
        headers = CIMultiDict(credentials.end_to_end(answer.headers.items()))
        if request.method != "HEAD":
            headers.popall("Content-Length", None)
        return web.Response(status=answer.status, reason=answer.reason, body=body, headers=headers)
