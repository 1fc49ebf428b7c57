"""Measuring in rounds, one case after the other, so that a noisy neighbour hits all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from benchmarks import traffic, wire
from benchmarks.machine import Cores, Neighbours
from benchmarks.report import Progress
from benchmarks.servers import Process, Server, Servers
from benchmarks.traffic import Tools, Upstream


@dataclass(frozen=True)
class Options:
    """How long and how often to measure."""

    seconds: float  # length of a window
    rounds: int
    few: int  # rounds of rows without a limit

    @property
    def warm(self) -> float:
        """Seconds of load before a window."""
        return min(0.5, self.seconds / 2)


@dataclass
class Case:
    """A request to a server, and what it costs there: one entry a round in each list."""

    name: str
    server: Server | None  # None: requests go to the mock itself
    path: str
    body: bytes
    deltas: int = 0  # in a stream; 0: the answer is whole
    probe: bytes = b""  # the request that checks the answer, if not `body`
    probe_path: str = ""  # its path, if not `path`
    exact: bool = True  # whether all answers are of one size
    size: int = 0  # of the answer
    cpu: list[float] = field(default_factory=list)  # seconds a unit
    rate: list[float] = field(default_factory=list)  # units a second
    busy: list[float] = field(default_factory=list)  # share of the gateway's core
    load_busy: list[float] = field(default_factory=list)  # of the other core
    first: list[float] = field(default_factory=list)  # seconds to the first byte of the body

    def raw(self) -> dict[str, object]:
        lists = ("cpu", "rate", "busy", "load_busy", "first")
        return {"name": self.name, **{name: getattr(self, name) for name in lists}}


@dataclass
class Bench:
    """Everything that rows need."""

    options: Options
    cores: Cores
    tools: Tools
    upstream: Upstream
    neighbours: Neighbours
    progress: Progress
    litellm: str = ""

    def servers(self) -> Servers:
        return Servers(self.cores.gateway, {"BENCH_UPSTREAM": self.upstream.url})

    def port(self, case: Case) -> int:
        return self.upstream.port if case.server is None else case.server.port

    def verify(self, cases: Iterable[Case]) -> None:
        """Raise unless every case returns a valid answer."""
        for case in cases:
            if case.server is not None:
                case.server.wait()
            answer = traffic.ask(
                self.port(case), case.probe_path or case.path, case.probe or case.body
            )
            case.size = len(answer)
            if case.deltas:
                found = wire.deltas_in(answer)
                if found != case.deltas:
                    raise RuntimeError(f"{case.name}: {found} deltas, not {case.deltas}")
            elif not json.loads(answer)["choices"][0]["message"]["content"]:
                raise RuntimeError(f"{case.name}: no content in {answer[:500]!r}")

    def closed(self, cases: list[Case], *, connections: int, seconds: float = 0) -> None:
        """Every connection sends its request again after each answer. A unit is an answer."""
        self.verify(cases)
        seconds = seconds or self.options.seconds
        for turn in range(self.options.rounds):
            for case in cases:
                self.progress.step(f"{case.name}, round {turn + 1}")
                self._closed(case, connections, seconds)

    def _closed(self, case: Case, connections: int, seconds: float) -> None:
        request = wire.request(case.path, case.body)
        with traffic.load(self.tools, self.cores.load, self.port(case), connections, request) as (
            board,
            process,
        ):
            time.sleep(self.options.warm)
            since = board[traffic.SAMPLES]
            watch = Watch(self, case, process, lambda: board[traffic.REQUESTS])
            watch.run(seconds)
            samples = board.samples(since)
            if samples:
                case.first.append(median(samples) / 1e9)
            sizes = {board[traffic.SMALLEST], board[traffic.LARGEST]}
            if board[traffic.ERRORS] or (case.exact and sizes != {case.size}):
                raise RuntimeError(
                    f"{case.name}: {board[traffic.ERRORS]} errors; answers of {sizes} bytes, "
                    f"where one of {case.size} is right"
                )

    def paced(self, cases: list[Case], *, streams: int, rate: int, rounds: int) -> int:
        """Streams that stay open, every event a packet. A unit is an event of the upstream.

        Returns the number of streams: fewer if the first case would use up its core.
        """
        self.verify(cases)
        self.progress.step(f"{cases[0].name}, trying {streams} streams")
        trial = Case(cases[0].name, cases[0].server, cases[0].path, cases[0].body)
        self._paced(trial, streams, rate, 1.0)
        if trial.busy[0] > 0.85:
            streams = int(streams * 0.8 / trial.busy[0]) // 10 * 10
        for turn in range(rounds):
            for case in cases:
                self.progress.step(f"{case.name}, {streams} streams, round {turn + 1}")
                self._paced(case, streams, rate, self.options.seconds)
        return streams

    def _paced(self, case: Case, streams: int, rate: int, seconds: float) -> None:
        request = wire.request(case.path, case.body)
        upstream = self.upstream.board
        with traffic.load(self.tools, self.cores.load, self.port(case), streams, request) as (
            board,
            process,
        ):
            traffic.wait_for(lambda: board[traffic.STREAMS] == streams, "the streams", process)
            time.sleep(2 / rate + self.options.warm)
            watch = Watch(self, case, process, lambda: upstream[traffic.EVENTS])
            watch.run(seconds)
            if board[traffic.ERRORS] or board[traffic.STREAMS] != streams:
                raise RuntimeError(f"{case.name}: streams broke")
        self.upstream.finish()


class Watch:
    """Reads clocks and counts around a window."""

    def __init__(self, bench: Bench, case: Case, load: Process, count: Callable[[], int]) -> None:
        self._bench = bench
        self._case = case
        self._load = load
        self._count = count

    def run(self, seconds: float) -> None:
        ticks, before = self._bench.neighbours.ticks(), self._read()
        time.sleep(seconds)
        after = self._read()
        wall, units, cpu, other = (new - old for old, new in zip(before, after, strict=True))
        self._bench.neighbours.note(ticks, cpu)
        if not units:
            raise RuntimeError(f"{self._case.name}: no events were received")
        self._case.rate.append(units / wall)
        self._case.load_busy.append(other / wall)
        if self._case.server is not None:
            self._case.cpu.append(cpu / units)
            self._case.busy.append(cpu / wall)

    def _read(self) -> tuple[float, float, float, float]:
        server = self._case.server
        cpu = server.cpu() if server is not None else 0.0
        other = self._load.cpu() + self._bench.upstream.process.cpu()
        units = self._count()
        return time.perf_counter(), units, cpu, other
