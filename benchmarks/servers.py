"""Processes pinned to a core: started, awaited, measured, and always stopped."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.machine import ROOT

HOST = "127.0.0.1"
START = 60.0  # seconds
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

# The command that serves the app of this name on this port.
Command = Callable[[str, int], list[str]]


def uvicorn(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.apps:{app}"]
    command += ["--host", HOST, "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "error", "--timeout-graceful-shutdown", "1"]
    return command


def plain_uvicorn(app: str, port: int) -> list[str]:
    """uvicorn without its optional dependencies."""
    command = uvicorn(app, port)
    for option, value in (("--loop", "asyncio"), ("--http", "h11")):
        command[command.index(option) + 1] = value
    return command


def hypercorn(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "hypercorn", f"benchmarks.apps:{app}()"]
    command += ["--bind", f"{HOST}:{port}", "--workers", "0", "--backlog", "2048"]
    command += ["--log-level", "error", "--graceful-timeout", "1"]
    return command


def granian(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "granian", "--factory", f"benchmarks.apps:{app}"]
    command += ["--interface", "asgi", "--host", HOST, "--port", str(port), "--loop", "uvloop"]
    command += ["--workers", "1", "--runtime-threads", "1", "--http", "1", "--no-ws"]
    command += ["--backlog", "2048", "--log-level", "error"]
    return command


class Process:
    """A child process on one core, with its own children."""

    def __init__(self, command: Sequence[str], *, core: int, env: dict[str, str]) -> None:
        self.command = list(command)
        self._core = core
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self._popen = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            preexec_fn=self._prepare,
        )

    def _prepare(self) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, {self._core})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def check(self) -> None:
        """Raise if it has ended."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"{' '.join(self.command)} ended:\n{self.output()}")

    def output(self) -> str:
        """The end of its output."""
        self._output.seek(0)
        return self._output.read()[-4000:].decode(errors="replace")

    def pids(self) -> list[int]:
        """It and its descendants."""
        found = [self._popen.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, task.read_text().split())
        return found

    def cpu(self) -> float:
        """Seconds of CPU used so far, user and system, by all threads."""
        return sum(map(cpu_of, self.pids()))

    def rss(self) -> int:
        """Resident bytes."""
        kib = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    kib += int(line.split()[1])
        return kib * 1024

    def stop(self) -> None:
        """End it and all it has started."""
        try:
            if self._popen.poll() is None:
                self._kill(signal.SIGTERM)
                try:
                    self._popen.wait(4)
                except subprocess.TimeoutExpired:
                    pass
        finally:
            self._kill(signal.SIGKILL)
            self._popen.wait()
            self._output.close()

    def _kill(self, sign: int) -> None:
        try:
            os.killpg(self._popen.pid, sign)
        except ProcessLookupError:
            pass


def cpu_of(pid: int) -> float:
    """Seconds of CPU of one process: its clock, or what /proc says to the hundredth."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server(Process):
    """A process that listens."""

    def __init__(self, command: Sequence[str], port: int, *, core: int, env: dict[str, str]):
        super().__init__(command, core=core, env=env)
        self.port = port

    def wait(self) -> None:
        """Wait until it answers. (Granian listens before it can answer.)"""
        end = time.monotonic() + START
        while not self._answers():
            self.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{' '.join(self.command)} does not answer:\n{self.output()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return bool(connection.recv(1))
        except OSError:
            return False


class Servers:
    """Servers that are stopped together."""

    def __init__(self, core: int, env: dict[str, str]) -> None:
        self._core = core
        self._env = env
        self._stack = ExitStack()

    def start(self, command: Command, app: str, *, env: dict[str, str] | None = None) -> Server:
        """Start one; `wait` for it before use."""
        port = free_port()
        server = Server(command(app, port), port, core=self._core, env={**self._env, **(env or {})})
        self._stack.callback(server.stop)
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port
