"""The mock upstream and the load: C where there is a compiler, Python where there is none."""

from __future__ import annotations

import http.client
import mmap
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import vendors, wire
from benchmarks.servers import HOST, START, Process

SOURCES = Path(__file__).parent

# The board, as in shared.h.
READY, REQUESTS, EVENTS, STREAMS, ERRORS, BYTES, SMALLEST, LARGEST, FINISH, SAMPLES = range(10)
HEAD_SIZE, RING = 16, 65536


class Board:
    """Numbers that a child process writes to a file mapped by both."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        with path.open("w+b" if create else "r+b") as file:
            if create:
                file.truncate((HEAD_SIZE + RING) * 8)
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def __getitem__(self, at: int) -> int:
        return self._numbers[at]

    def __setitem__(self, at: int, value: int) -> None:
        self._numbers[at] = value

    def samples(self, since: int) -> list[int]:
        """Latencies in ns, from this sample number on."""
        return [self[HEAD_SIZE + at % RING] for at in range(since, self[SAMPLES])]


class Tools:
    """The commands of the mock and the load, built into a folder."""

    def __init__(self, folder: Path, *, compiled: bool = True) -> None:
        self.folder = folder
        self.how = "Python (asyncio, uvloop)"
        self._commands = {
            name: [sys.executable, "-m", "benchmarks.python_load", name]
            for name in ("upstream", "load")
        }
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiled and compiler is not None and self._compile(compiler):
            self.how = "C (cc -O2)"

    def command(self, name: str, *arguments: object) -> list[str]:
        return [*self._commands[name], *map(str, arguments)]

    def _compile(self, compiler: str) -> bool:
        for name in self._commands:
            source, target = SOURCES / f"{name}.c", self.folder / name
            run = subprocess.run(
                [compiler, "-O2", "-o", target, source], capture_output=True, text=True
            )
            if run.returncode:
                print(f"{source.name} does not compile here:\n{run.stderr}", file=sys.stderr)
                return False
        self._commands = {name: [str(self.folder / name)] for name in self._commands}
        return True


class Upstream:
    """The mock of all providers."""

    def __init__(self, tools: Tools, core: int) -> None:
        payloads = tools.folder / "payloads"
        payloads.mkdir()
        vendors.write(payloads)
        self.board = Board(tools.folder / "upstream.board")
        command = tools.command("upstream", self.board.path, payloads)
        self.process = Process(command, core=core, env={})
        wait_for(lambda: self.board[READY], "the mock upstream", self.process)
        self.port = self.board[READY]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def finish(self) -> None:
        """Complete all paced streams."""
        self.board[FINISH] = 1
        try:
            wait_for(lambda: not self.board[STREAMS], "the end of streams", self.process)
        finally:
            self.board[FINISH] = 0

    def stop(self) -> None:
        self.process.stop()


@contextmanager
def load(
    tools: Tools, core: int, port: int, connections: int, *requests: bytes, pause: float = 0.0
) -> Iterator[tuple[Board, Process]]:
    """Run a load generator within the block: `connections` that send `requests` in turn, each
    `pause` seconds after the answer to the one before, see load.c.
    """
    with tempfile.TemporaryDirectory(dir=tools.folder) as name:
        folder = Path(name)
        files = [folder / str(number) for number in range(len(requests))]
        for file, request in zip(files, requests, strict=True):
            file.write_bytes(request)
        board = Board(folder / "board")
        microseconds = round(pause * 1e6)
        command = tools.command("load", board.path, port, connections, microseconds, *files)
        with _running(board, Process(command, core=core, env={})) as process:
            yield board, process


@contextmanager
def _running(board: Board, process: Process) -> Iterator[Process]:
    try:
        wait_for(lambda: board[READY], "the load", process)
        yield process
    finally:
        process.stop()


def ask(port: int, path: str, body: bytes) -> bytes:
    """One request, with a plain client; anything but 200 is an error."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {wire.TOKEN}"}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}: {answer[:500]!r}")
    return answer


def wait_for(
    condition: Callable[[], object], what: str, process: Process, seconds: float = START
) -> None:
    """Wait until `condition()` is true, while the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        process.check()
        if time.monotonic() > end:
            raise TimeoutError(f"timed out waiting for {what}")
        time.sleep(0.005)
