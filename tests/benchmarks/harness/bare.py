"""The yardstick: a bare pass-through, as one would write it first. Run as a module with PORT and UPSTREAM.

aiohttp on both sides, asyncio's own loop, no logging; it reads no key, counts nothing and keeps nothing.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}


def passing_on(session: ClientSession, upstream: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        sent = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = upstream + request.path_qs
        async with session.request(request.method, url, headers=sent, data=body, allow_redirects=False) as answer:
            back = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if not answer.content_type.startswith("text/event-stream"):
                return web.Response(status=answer.status, headers=back, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=back)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    return handle


async def main(port: int, upstream: str) -> None:
    connector = TCPConnector(limit=0, keepalive_timeout=60)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None)) as session:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", passing_on(session, upstream))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
