"""The proxy compared with a bare relay and a bare aiohttp proxy (a script in this file)."""

from __future__ import annotations

import os
import sys
from typing import Any

from asgi_aiproxy.upstream import ReqwestTransport, Transport
from benchmarks import wire
from benchmarks.apps import App, upstream
from benchmarks.report import Result
from benchmarks.rounds import Bench, Case
from benchmarks.rows import (
    CONNECTIONS,
    EVENTS,
    ISSUE,
    OURS,
    OWN,
    PYREQWEST,
    share,
    stream,
)
from benchmarks.servers import HOST, uvicorn


def vendor(transport: Transport | None = None) -> App:
    """A vendor's API: keys, an allow-list, usage read on the side, one record each."""
    from asgi_aiproxy import PassthroughProxy
    from asgi_aiproxy.providers import OPENAI

    async def record(usage: Any) -> None:
        pass

    provider = OPENAI.using(["sk-one", "sk-two"], base_url=f"{upstream()}/v1")
    return PassthroughProxy(provider, transport=transport, record=record)


def vendor_pyreqwest() -> App:
    """The same over pyreqwest."""
    return vendor(ReqwestTransport())


def application() -> App:
    """Any application at a URL."""
    from asgi_aiproxy import PassthroughProxy

    return PassthroughProxy(upstream())


def aiohttp_proxy(port: int) -> None:
    """The smallest reverse proxy with aiohttp's server and client."""
    import asyncio

    import aiohttp
    import uvloop
    from aiohttp import web

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    base = os.environ["BENCH_UPSTREAM"]
    hop = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}

    async def session(app: web.Application) -> Any:
        connector = aiohttp.TCPConnector(limit=1000)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as made:
            app["session"] = made
            yield

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = [(n, value) for n, value in request.headers.items() if n.lower() not in hop]
        call = request.app["session"].request(
            request.method,
            base + request.path_qs,
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        )
        async with call as answer:
            passed = [(n, value) for n, value in answer.headers.items() if n.lower() not in hop]
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{rest:.*}", handle)
    web.run_app(app, host=HOST, port=port, access_log=None, print=None)


def served(app: str, port: int) -> list[str]:
    """uvicorn with one of the apps of this file."""
    command = uvicorn(app, port)
    return [part.replace("benchmarks.apps:", "benchmarks.passthrough:") for part in command]


def passthrough(bench: Bench) -> list[Result]:
    """Whole answers and streams."""

    def theirs(_: str, port: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.passthrough", str(port)]

    with bench.servers() as servers:
        started = {
            "relay": servers.start(uvicorn, "relay"),
            "vendor": servers.start(served, "vendor"),
            "application": servers.start(served, "application"),
            "aiohttp": servers.start(theirs, ""),
        }
        over_pyreqwest = {
            "relay, pyreqwest": servers.start(uvicorn, "pyreqwest"),
            "vendor, pyreqwest": servers.start(served, "vendor_pyreqwest"),
        }
        whole = {
            name: Case(f"whole, {name}", server, wire.CHAT, wire.body("whole"))
            for name, server in started.items()
        }
        chunks, burst = (
            {
                name: stream(f"{kind}, {name}", server, wire.CHAT, f"{kind}-{EVENTS}", usage=True)
                for name, server in {**started, **over_pyreqwest}.items()
            }
            for kind in ("chunks", "burst")
        )
        bench.closed([*whole.values(), *chunks.values(), *burst.values()], connections=CONNECTIONS)
    pairs = [(cases["relay, pyreqwest"], cases["vendor, pyreqwest"]) for cases in (chunks, burst)]
    row = f"{ISSUE}passthrough stream, vendor{PYREQWEST}"
    results = [
        share(row, *pairs[0], must=90),
        share("  in one HTTP chunk", *pairs[1], should=90),
    ]
    for kind, cases in (("whole", whole), ("stream", chunks), ("stream, in one HTTP chunk", burst)):
        least = 0 if kind == "whole" else 90
        for name in ("vendor", "application"):
            row = f"{OURS}passthrough {kind}, {name}{OWN}"
            results.append(share(row, cases["relay"], cases[name], should=least))
            row = f"{ISSUE}passthrough {kind}, {name}, beside aiohttp"
            results.append(share(row, cases["aiohttp"], cases[name], must=50))
    return results


if __name__ == "__main__":
    aiohttp_proxy(int(sys.argv[1]))
