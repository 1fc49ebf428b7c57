"""The console with 100,000 exchanges, 10,000 tokens and 1,000 keys in its store: the CPU time of
each page, and the gateway's times beside operators whose pages refresh themselves.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any

from benchmarks import wire
from benchmarks.host_protection import exchange
from benchmarks.report import Result
from benchmarks.rounds import Bench
from benchmarks.servers import HOST, uvicorn

EXCHANGES, TOKENS, KEYS, DAYS = 100_000, 10_000, 1_000, 30
BROWSERS = 5
RATE = 200  # calls of the gateway per second
ISSUE = "issue 13: "
# What the browsers of operators request every second: the parts that refresh themselves, and pages.
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


def parts(base_url: str) -> tuple[Any, Any, Any]:
    """A store, a provider with many keys, and the console of an operator over both."""
    from asgi_aiproxy import AdminApp, MemoryStore, Principal
    from asgi_aiproxy.console import Console
    from asgi_aiproxy.providers import OPENAI

    store = MemoryStore()
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


async def page_times(rounds: int) -> dict[str, list[float]]:
    """The seconds of CPU of each page."""
    store, provider, console = parts("http://127.0.0.1:9/v1")
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
    return {target: found[1:] for target, found in times.items()}  # without the first: templates


def console_pages(bench: Bench) -> list[Result]:
    """The CPU time of each page; the slowest one is judged."""
    times = asyncio.run(page_times(bench.options.few + 1))
    ranked = sorted(times.items(), key=lambda item: -median(item[1]))
    note = ", ".join(f"{target} {median(found) * 1e3:.0f}" for target, found in ranked[:4])
    (_, slowest), *_ = ranked
    every = {target: median(found) * 1e3 for target, found in ranked}
    return [
        Result(f"{ISSUE}slowest of {len(times)} pages, CPU time", [t * 1e3 for t in slowest], "ms",
               must=150, note=note, raw={"pages": every}),
        Result("  the median page", [median(every.values())], "ms"),
    ]  # fmt: skip


# The gateway beside them.


async def calls(port: int, seconds: float) -> list[float]:
    """The times of calls that begin at a fixed rate, whatever the others do."""
    request = wire.request("/ai/v1/chat/completions", wire.body("whole"))
    idle: list[Any] = []
    times: list[float] = []

    async def one(due: float) -> None:
        pair = idle.pop() if idle else await asyncio.open_connection(HOST, port)
        status, _ = await exchange(*pair, request)
        times.append(time.perf_counter() - due)
        idle.append(pair)
        if status != 200:
            raise RuntimeError(f"the gateway answered {status}")

    began = time.perf_counter()
    running = set()
    for number in range(int(seconds * RATE)):
        due = began + number / RATE
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        running.add(asyncio.ensure_future(one(time.perf_counter())))
    await asyncio.gather(*running)
    for _, writer in idle:
        writer.close()
    return times


@asynccontextmanager
async def browsers(port: int, count: int) -> AsyncIterator[list[int]]:
    """Operators' browsers: each refreshes a part of its page every second, and has pages opened."""
    answered: list[int] = []

    async def look(number: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        await asyncio.sleep(number / max(count, 1))
        for step in itertools.count(number):
            began = time.perf_counter()
            opened = [OPENED[step % len(OPENED)]] if step % 5 == 0 else []
            for target in (REFRESHED[number % len(REFRESHED)], *opened):
                writer.write(f"GET /console{target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                status, _ = await exchange(reader, writer, b"")
                answered.append(status)
            await asyncio.sleep(max(began + 1 - time.perf_counter(), 0))

    tasks = [asyncio.ensure_future(look(number)) for number in range(count)]
    try:
        yield answered
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


async def beside(port: int, seconds: float) -> tuple[float, float, int]:
    """The 99th percentile of the gateway's times alone and beside a busy console, in seconds, and
    the number of pages. Short turns of both alternate, so that neighbours disturb both.
    """
    alone: list[float] = []
    busy: list[float] = []
    pages = 0
    for _ in range(4):
        alone += await calls(port, seconds)
        async with browsers(port, BROWSERS) as answered:
            busy += await calls(port, seconds)
        pages += len(answered)
        if wrong := [status for status in answered if status != 200]:
            raise RuntimeError(f"pages answered {wrong[:5]}")
    return _p99(alone), _p99(busy), pages


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


def console_beside(bench: Bench) -> list[Result]:
    """The gateway's 99th percentile beside a busy console in the same process."""
    seconds = max(bench.options.seconds, 1.0) * 2.5
    ratios, notes = [], []
    with bench.servers() as servers:
        server = servers.start(uvicorn, "console")
        server.wait()
        for _ in range(bench.options.few):
            bench.progress.step("gateway beside console")
            alone, busy, pages = asyncio.run(beside(server.port, seconds))
            ratios.append(busy / alone)
            notes.append(f"{alone * 1e3:.2f} ms alone, {busy * 1e3:.2f} ms, {pages} pages")
    name = f"{ISSUE}p99 of the gateway beside {BROWSERS} operators, beside alone"
    return [Result(name, ratios, "x", must=1.1, note=notes[-1])]


ROWS: dict[str, Callable[[Bench], list[Result]]] = {
    "console pages": console_pages,
    "console beside": console_beside,
}
