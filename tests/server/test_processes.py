"""The gateway in its own processes, started without a host application."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.support.servers import HYPERCORN_WAITS
from tests.support.socket_client import Caller

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")]

ROOT = Path(__file__).parents[2]
START = 60.0
GRACE = 1
BUILD = "asgi_aiproxy.config.settings:build"

COMMANDS: dict[str, list[str]] = {
    "asgi_aiproxy": ["asgi_aiproxy", "serve", "--port", "PORT"],
    "uvicorn": [
        *("uvicorn", "--factory", BUILD, "--port", "PORT"),
        *("--timeout-graceful-shutdown", str(GRACE)),
    ],
    "hypercorn": [
        *("hypercorn", "served:app", "--bind", "127.0.0.1:PORT"),
        *("--graceful-timeout", str(GRACE)),
    ],
    "granian": [
        *("granian", "--interface", "asgi", "--factory", BUILD, "--port", "PORT"),
        *("--workers-kill-timeout", str(GRACE)),
    ],
}
SERVED = f"from {BUILD.partition(':')[0]} import build\n\napp = build()\n"


@dataclass
class Process:
    """A running gateway."""

    process: asyncio.subprocess.Process
    port: int

    async def stop(self) -> str:
        """Send a signal; returns the output. Raises TimeoutError."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GRACE + START):
            out, _ = await self.process.communicate()
        return out.decode()


@asynccontextmanager
async def started(name: str, vendor: str, where: Path) -> AsyncIterator[Process]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    config = where / "aiproxy.toml"
    config.write_text(
        f'[providers.openai]\nbase_url = "{vendor}/v1"\nkeys = ["sk-1"]\n'
        f'[routes]\n"m" = ["openai"]\n'
    )
    (where / "served.py").write_text(SERVED)
    command = [part.replace("PORT", str(port)) for part in COMMANDS[name]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIPROXY_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        cwd=where,
        env={**environment, "AIPROXY_CONFIG": str(config), "PYTHONPATH": f"{ROOT}:{where}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(START):
            while process.returncode is None:
                with suppress(OSError):
                    (await Caller.to(port)).leave()
                    break
                await asyncio.sleep(0.02)
        yield Process(process, port)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too: they hold its output open
            await process.communicate()


@pytest.mark.parametrize("name", list(COMMANDS))
async def test_it_streams_notices_disconnects_and_stops_on_request(
    name: str, tmp_path: Path
) -> None:
    mock = MockProvider(Answer("Hello there."))
    async with serve(mock) as vendor, started(name, vendor, tmp_path) as gateway:
        mock.script(Fault.silence_after(2))
        caller = await Caller.to(gateway.port)
        caller.chat(stream=True)
        assert (await caller.head()).status == 200
        await caller.until(b"Hello")
        caller.leave()
        await (await mock.wait_seen()).wait_gone()

        caller = await Caller.to(gateway.port)
        caller.chat()
        answer = await caller.answer()
        assert answer.json["choices"][0]["message"]["content"] == "Hello there."
        caller.leave()

        reported = await gateway.stop()
        assert gateway.process.returncode in (0, -signal.SIGTERM), reported
        assert "Traceback" not in reported


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "granian"])
async def test_a_stream_without_end_does_not_keep_it_from_stopping(
    name: str, tmp_path: Path
) -> None:
    if name == "hypercorn" and HYPERCORN_WAITS:
        pytest.skip("from Python 3.12 on it waits until its clients have left")
    mock = MockProvider(Answer("Hello there."))
    mock.script(Fault.silence_after(2))
    async with serve(mock) as vendor, started(name, vendor, tmp_path) as gateway:
        caller = await Caller.to(gateway.port)
        caller.chat(stream=True)
        await caller.head()
        await caller.until(b"Hello")
        await gateway.stop()
        await mock.requests[0].wait_gone()
        caller.leave()


async def test_hypercorn_stops_when_the_client_of_an_endless_stream_has_disconnected(
    tmp_path: Path,
) -> None:
    mock = MockProvider(Answer("Hello there."))
    mock.script(Fault.silence_after(2))
    async with serve(mock) as vendor, started("hypercorn", vendor, tmp_path) as gateway:
        caller = await Caller.to(gateway.port)
        caller.chat(stream=True)
        await caller.head()
        await caller.until(b"Hello")
        gateway.process.send_signal(signal.SIGTERM)
        caller.leave()
        async with asyncio.timeout(GRACE + START):
            await gateway.process.communicate()
        await mock.requests[0].wait_gone()
