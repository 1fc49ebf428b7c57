"""The host's own route while the gateway beside it is overloaded ten times.

One server has a route of the host and the gateway, once behind `LoadShedder` and once without it.
Ten times as many clients as keep it busy call the gateway; as SDKs do, they wait as long as
`retry-after` says when they are refused. Meanwhile one client calls the route, in a process of its
own, and the 99th percentile of its times is compared with that of the idle server, in the same
round. Below it is the same with an app that refuses everything in the place of the gateway: what
the server and the event loop cost, which no app can avoid.
"""

from __future__ import annotations

import time
from statistics import median, quantiles

from benchmarks import traffic, wire
from benchmarks.report import Result
from benchmarks.rounds import Bench
from benchmarks.servers import Server, uvicorn

BUSY = 32  # clients that keep the gateway busy
OVERLOAD = 10
PAUSE = 0.005  # seconds between two calls of the route
OWN = b"GET /own HTTP/1.1\r\nhost: x\r\n\r\n"
SETTLED = 2.0  # seconds after which the limit is found
CASES = {
    "protected": "behind LoadShedder",
    "refusing": "in its place an app that refuses everything",
    "unprotected": "without LoadShedder",
}


def measure(bench: Bench, port: int, seconds: float) -> tuple[list[int], list[int], int, int]:
    """The times of the host's route in ns: idle, and under load; and the number of the gateway's
    answers, and of refusals among them.
    """
    tools, core = bench.tools, bench.cores.load
    call = wire.request("/ai/v1/chat/completions", wire.body("whole"))
    with traffic.load(tools, core, port, 1, OWN, pause=PAUSE) as (own, _):
        idle = _times(own, seconds)
        with traffic.load(tools, core, port, BUSY * OVERLOAD, call) as (board, _):
            time.sleep(SETTLED)
            before = board[traffic.REQUESTS], board[traffic.ERRORS]
            loaded = _times(own, seconds)
            answered = board[traffic.REQUESTS] - before[0], board[traffic.ERRORS] - before[1]
        if own[traffic.ERRORS]:
            raise RuntimeError("the host's route failed")
    time.sleep(0.5)  # the server closes the connections
    return idle, loaded, *answered


def _times(board: traffic.Board, seconds: float) -> list[int]:
    since = board[traffic.SAMPLES]
    time.sleep(seconds)
    return board.samples(since)


def _p99(times: list[int]) -> float:
    return quantiles(times, n=100)[98] / 1e6


def host_protection(bench: Bench) -> list[Result]:
    """The host's own route beside an overloaded gateway, with and without `LoadShedder`."""
    seconds = max(bench.options.seconds, 1.0) * 3
    with bench.servers() as servers:
        named: dict[str, Server] = {name: servers.start(uvicorn, name) for name in CASES}
        ratios: dict[str, list[float]] = {name: [] for name in named}
        notes: dict[str, str] = {}
        for server in named.values():
            server.wait()
        for _ in range(bench.options.few):
            for name, server in named.items():
                bench.progress.step(f"host protection, {CASES[name]}")
                idle, loaded, answered, refused = measure(bench, server.port, seconds)
                ratios[name].append(_p99(loaded) / _p99(idle))
                notes[name] = (
                    f"{_p99(idle):.2f} ms idle, {_p99(loaded):.2f} ms; medians "
                    f"{median(idle) / 1e6:.2f}, {median(loaded) / 1e6:.2f} ms; "
                    f"{answered - refused} served, {refused} refused"
                )
    first, *others = CASES
    return [
        Result("issue 12: p99 of the host's route, gateway overloaded 10x, beside idle",
               ratios[first], "x", must=2.0, note=notes[first]),
        *(Result(f"  {CASES[name]}", ratios[name], "x", note=notes[name]) for name in others),
    ]  # fmt: skip
