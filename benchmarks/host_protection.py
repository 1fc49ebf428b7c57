"""The host's own route while the gateway beside it is overloaded ten times.

One server has a route of the host and the gateway, once behind `LoadShedder` and once without it.
Ten times as many clients as keep it busy call the gateway; as SDKs do, they wait as long as
`retry-after` says when they are refused. Meanwhile one client calls the route, once in a while, and
the 99th percentile of its times is compared with that of the idle server, in the same round.
"""

from __future__ import annotations

import asyncio
import re
import time
from statistics import quantiles

from benchmarks import wire
from benchmarks.report import Result
from benchmarks.rounds import Bench
from benchmarks.servers import HOST, Server, uvicorn

BUSY = 32  # clients that keep the gateway busy
OVERLOAD = 10
PAUSE = 0.005  # seconds between two calls of the route
OWN = b"GET /own HTTP/1.1\r\nhost: x\r\n\r\n"
_RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, float]:
    """One request; returns the status, and the seconds that `retry-after` says."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    await reader.readexactly(int(length[1]) if length is not None else 0)
    after = _RETRY_AFTER.search(head)
    return int(head[9:12]), float(after[1]) if after is not None else 0.0


async def client(port: int, request: bytes, answered: list[int]) -> None:
    """Call the gateway without a pause, but for refusals."""
    reader, writer = await asyncio.open_connection(HOST, port)
    while True:
        status, after = await exchange(reader, writer, request)
        answered.append(status)
        if status != 200:
            await asyncio.sleep(after)


async def slowest(port: int, seconds: float) -> float:
    """The 99th percentile of the times of the host's route, in seconds."""
    reader, writer = await asyncio.open_connection(HOST, port)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        status, _ = await exchange(reader, writer, OWN)
        times.append(time.perf_counter() - started)
        if status != 200:
            raise RuntimeError(f"the host's route answered {status}")
        await asyncio.sleep(PAUSE)
    writer.close()
    return quantiles(times, n=100)[98]


async def measure(port: int, seconds: float) -> tuple[float, float, list[int]]:
    """The 99th percentile idle, that under load, and the statuses of the gateway's answers."""
    request = wire.request("/ai/v1/chat/completions", wire.body("whole"))
    idle = await slowest(port, seconds)
    answered: list[int] = []
    clients = [
        asyncio.ensure_future(client(port, request, answered)) for _ in range(BUSY * OVERLOAD)
    ]
    try:
        await asyncio.sleep(min(seconds, 2.0))  # the limit is found
        answered.clear()
        loaded = await slowest(port, seconds)
    finally:
        for each in clients:
            each.cancel()
        await asyncio.wait(clients)
    return idle, loaded, answered


def host_protection(bench: Bench) -> list[Result]:
    """The host's own route beside an overloaded gateway, with and without `LoadShedder`."""
    seconds = max(bench.options.seconds, 1.0) * 2
    with bench.servers() as servers:
        named: dict[str, Server] = {
            "behind LoadShedder": servers.start(uvicorn, "protected"),
            "without it": servers.start(uvicorn, "unprotected"),
        }
        ratios: dict[str, list[float]] = {name: [] for name in named}
        notes: dict[str, str] = {}
        for server in named.values():
            server.wait()
        for _ in range(bench.options.few):
            for name, server in named.items():
                idle, loaded, answered = asyncio.run(measure(server.port, seconds))
                ratios[name].append(loaded / idle)
                served = answered.count(200)
                notes[name] = (
                    f"{idle * 1e3:.1f} ms idle, {loaded * 1e3:.1f} ms; "
                    f"{served} served, {len(answered) - served} refused"
                )
    protected, bare = named
    return [
        Result("issue 12: p99 of the host's route, gateway overloaded 10x, beside idle",
               ratios[protected], "x", must=2.0, note=notes[protected]),
        Result("  without LoadShedder", ratios[bare], "x", note=notes[bare]),
    ]  # fmt: skip
