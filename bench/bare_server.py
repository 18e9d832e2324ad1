"""A bare aiohttp server over TLS that always answers the same bytes: the limit for reads. A process of its own.

`python -m bench.bare_server FOLDER FILE` with `server.crt` and `server.key` in FOLDER prints its port.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from aiohttp import web

from bench.api import Place
from dure.identity.authority import Authority
from dure.wire.tls import server_context


async def serve(folder: Path, body: bytes) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    tls = server_context(folder / "server.crt", folder / "server.key", folder / "ca.crt")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def running_bare(body: bytes) -> AsyncIterator[tuple[Place, int]]:
    """Where it answers, and its process id."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder)
        pair = authority.server("bare", ["127.0.0.1"])
        pair.certificate.rename(folder / "server.crt")
        pair.key.rename(folder / "server.key")
        client = authority.client("client", "bench")
        (folder / "body").write_bytes(body)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.bare_server", name, str(folder / "body"), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            port = int(await child.stdout.readline())
            yield Place("127.0.0.1", port, authority.certificate_path, client.certificate, client.key), child.pid
        finally:
            child.terminate()
            await child.wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
