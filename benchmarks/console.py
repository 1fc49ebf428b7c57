"""The console with 100,000 exchanges, 10,000 tokens and 1,000 keys in its store: the CPU time of
each page, and the gateway's times beside operators whose pages refresh themselves.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from benchmarks import traffic, wire
from benchmarks.report import Result
from benchmarks.rounds import Bench
from benchmarks.servers import HOST, uvicorn

EXCHANGES, TOKENS, KEYS, DAYS = 100_000, 10_000, 1_000, 30
CALLERS = 20
RATE = 400  # calls of the gateway per second
BROWSERS = 5  # operators
PAUSE = 0.5  # seconds between two requests of an operator: a page, and a part that refreshes itself
TURNS = 4  # in a round
ISSUE = "issue 13: "
# What the browsers of operators request: parts of pages that refresh themselves, and pages.
REFRESHED = ("/now", "/log/rows?limit=20", "/now", "/log/rows?limit=50", "/now")
OPENED = ("/", "/log", "/usage", "/providers", "/tokens")
_SHARED = re.compile(r"/(now|usage\?by=.*)?$")  # results that are kept for a second
_WITHOUT_PAGE = re.compile(r"live|sign-|\.csv|/static|about")


async def fill(store: Any, pool: Any, *, exchanges: int = EXCHANGES) -> None:
    """Put tokens and exchanges of the last month into a store."""
    from asgi_aiproxy import Ledger
    from asgi_aiproxy.accounts import Token, Tokens
    from asgi_aiproxy.messages import Usage
    from asgi_aiproxy.principal import Budget, Limits
    from asgi_aiproxy.usage.record import Outcome, UsageRecord

    chance, now = random.Random(7), time.time()
    table = Tokens(store).table
    limits = Limits(rpm=100, budgets=(Budget.usd(25, "month"),))
    for number in range(TOKENS):
        id = f"token-{number:05}"
        await table.put(id, Token(id=id, name=f"caller {number}", digest="0" * 64, limits=limits))
    keys = list(pool.keys)
    async with Ledger(store) as ledger:
        for number in range(exchanges):
            model = f"model-{chance.randrange(30)}"
            failed = chance.random() < 0.03
            await ledger(
                UsageRecord(
                    id=f"exchange-{number}",
                    principal=f"token-{chance.randrange(TOKENS):05}",
                    face="openai",
                    operation="chat",
                    provider="openai",
                    requested_model=model,
                    upstream_model=model,
                    model=model,
                    key_id=chance.choice(keys),
                    usage=Usage(input=chance.randrange(4000), output=chance.randrange(800)),
                    outcome=Outcome.FAILED if failed else Outcome.DONE,
                    status=502 if failed else 200,
                    started=now - (exchanges - number) / exchanges * (DAYS - 1) * 86400,
                    first_byte=0.3,
                    duration=2.0,
                    cost=None if number % 10 == 0 else chance.randrange(40_000),
                    attempts=1,
                )
            )
            if number % 5000 == 0:
                await ledger.drain(60)


def parts(base_url: str, redis_url: str = "") -> tuple[Any, Any, Any]:
    """A store in memory or in Redis, a provider with many keys, and the console of an operator over
    both.
    """
    from asgi_aiproxy import AdminApp, MemoryStore, Principal, RedisStore
    from asgi_aiproxy.console import Console
    from asgi_aiproxy.providers import OPENAI

    store = RedisStore(redis_url) if redis_url else MemoryStore()
    provider = OPENAI.using([f"sk-{number:04}" for number in range(KEYS)], base_url=base_url)
    operator = Principal("token-00001", "operator", scopes=("root",))
    admin = AdminApp(store, token="the administrator's own token", providers=[provider])
    return store, provider, Console(admin, identify=lambda scope: operator)


# The pages, one by one.


async def get(app: Any, target: str) -> tuple[int, bytes]:
    """Call an app with GET."""
    path, _, query = target.partition("?")
    found: dict[str, Any] = {"body": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        found["status"] = message.get("status", found.get("status"))
        found["body"] += message.get("body", b"")

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET"}
    scope |= {"scheme": "http", "path": path, "raw_path": path.encode(), "root_path": ""}
    scope |= {"query_string": query.encode(), "headers": [(b"host", b"x")], "client": (HOST, 1)}
    await app(scope, receive, send)
    return found["status"], found["body"]


def targets(console: Any) -> list[str]:
    """All pages, and those of usage by each kind."""
    plain = [
        route.path
        for route in console.routes
        if route.method == "GET" and "{" not in route.path and not _WITHOUT_PAGE.search(route.path)
    ]
    kinds = ("principal", "model", "provider", "key", "account", "tag", "session")
    more = [f"/usage?by={kind}" for kind in kinds]
    more += ["/usage?by=principal&name=token-00007", "/log?model=model-3", "/log?model=nothing"]
    more += ["/log?principal=caller%207", "/providers/openai", "/tokens/token-00007"]
    return [*plain, *more, "/providers/openai/keys/{key}", "/log/exchange-500", "/usage.csv"]


async def page_times(rounds: int, redis_url: str = "") -> dict[str, list[float]]:
    """The seconds of CPU of each page, in this process."""
    store, provider, console = parts("http://127.0.0.1:9/v1", redis_url)
    await fill(store, provider.keys)
    key = next(iter(provider.keys.keys))
    times: dict[str, list[float]] = {}
    for target in targets(console):
        for _ in range(rounds + 1):
            await asyncio.sleep(1.01 if _SHARED.match(target) else 0)
            began = time.process_time()
            status, body = await get(console, target.replace("{key}", key))
            times.setdefault(target, []).append(time.process_time() - began)
            if status != 200:
                raise RuntimeError(f"{target} answered {status}: {body[:300]!r}")
    await store.aclose()
    return {target: found[1:] for target, found in times.items()}  # without the first: templates


def console_pages(bench: Bench) -> list[Result]:
    """The CPU time of each page; the slowest one is judged."""
    from tests.support import redis_server

    rounds = bench.options.few + 1
    bench.progress.step("console pages, memory")
    results = _page_results("", asyncio.run(page_times(rounds)))
    bench.progress.step("console pages, Redis")
    with redis_server.server() as server:
        times = asyncio.run(page_times(rounds, server.url))
    return [*results, *_page_results(" over Redis", times)]


def _page_results(store: str, times: dict[str, list[float]]) -> list[Result]:
    ranked = sorted(times.items(), key=lambda item: -median(item[1]))
    note = ", ".join(f"{target} {median(found) * 1e3:.0f}" for target, found in ranked[:4])
    (_, slowest), *_ = ranked
    every = {target: median(found) * 1e3 for target, found in ranked}
    return [
        Result(f"{ISSUE}slowest of {len(times)} pages{store}, CPU time",
               [t * 1e3 for t in slowest], "ms", must=150, note=note, raw={"pages": every}),
        Result("  the median page", [median(every.values())], "ms"),
    ]  # fmt: skip


# The gateway beside them.


def beside(bench: Bench, port: int, seconds: float) -> tuple[list[int], list[int], int]:
    """The times of the gateway's calls alone and beside a busy console, in ns, and the number of
    pages. Short turns of both alternate, so that neighbours disturb both.
    """
    call = wire.request("/ai/v1/chat/completions", wire.body("whole"))
    pages = [_get(target) for pair in zip(REFRESHED, OPENED, strict=True) for target in pair]
    core, tools = bench.cores.load, bench.tools
    alone: list[int] = []
    busy: list[int] = []
    answered = 0
    with traffic.load(tools, core, port, CALLERS, call, pause=CALLERS / RATE) as (calls, _):
        for _ in range(TURNS):
            alone += _times(calls, seconds)
            with traffic.load(tools, core, port, BROWSERS, *pages, pause=PAUSE) as (browsers, _):
                busy += _times(calls, seconds)
                answered += browsers[traffic.REQUESTS]
                if browsers[traffic.ERRORS]:
                    raise RuntimeError(f"{browsers[traffic.ERRORS]} pages failed")
        if calls[traffic.ERRORS]:
            raise RuntimeError(f"{calls[traffic.ERRORS]} calls failed")
    return alone, busy, answered


def _times(board: traffic.Board, seconds: float) -> list[int]:
    """The times of the calls of a window, which begins when the load has settled."""
    time.sleep(min(0.2, seconds))
    since = board[traffic.SAMPLES]
    time.sleep(seconds)
    return board.samples(since)


def _get(target: str) -> bytes:
    return f"GET /console{target} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def _p99(times: list[int]) -> float:
    return quantiles(times, n=100)[98] / 1e6


def console_beside(bench: Bench) -> list[Result]:
    """The gateway's 99th percentile beside a busy console in the same process."""
    seconds = max(bench.options.seconds, 1.0) * 2.5
    alone: list[int] = []
    busy: list[int] = []
    ratios, pages = [], 0
    with bench.servers() as servers:
        server = servers.start(uvicorn, "console")
        server.wait()
        for _ in range(bench.options.few):
            bench.progress.step("gateway beside console")
            *times, answered = beside(bench, server.port, seconds)
            ratios.append(_p99(times[1]) / _p99(times[0]))
            alone += times[0]
            busy += times[1]
            pages += answered
    note = (
        f"{_p99(alone):.2f} ms alone, {_p99(busy):.2f} ms; medians {median(alone) / 1e6:.2f}, "
        f"{median(busy) / 1e6:.2f} ms; {len(busy)} calls beside {pages} pages"
    )
    name = f"{ISSUE}p99 of the gateway beside {BROWSERS} operators, beside alone"
    return [Result(name, ratios, "x", must=1.1, note=note)]


ROWS: dict[str, Callable[[Bench], list[Result]]] = {
    "console pages": console_pages,
    "console beside": console_beside,
}
