"""A drill: everything around the calls fails at once, and the gateway still shuts down in order.

One usage sink hangs, another's disk is full, and clients disconnect all at once or are in
mid-stream when the process gets a signal. It ends within its limits, each exchange has one record
in the working sink, and the log reports what the others lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asgi_aiproxy.testing import Answer, Fault, MockProvider, serve
from tests.support.socket_client import Caller

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="SIGTERM, and /dev/full"),
]

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
GRACE = 1
CLIENTS = 200

APP = """
import asyncio, logging, os
from asgi_aiproxy import JSONLinesSink, Key, KeyPool, MemoryStore, OpenAIShim
from asgi_aiproxy import PassthroughProxy, Quota
from asgi_aiproxy.hosting import Dispatcher
from asgi_aiproxy.providers import OPENAI
from asgi_aiproxy.usage.recorder import tee

logging.basicConfig(level=logging.INFO)

async def hangs(record):
    await asyncio.Event().wait()

def sinks():
    return tee(hangs, JSONLinesSink("/dev/full"), JSONLinesSink("usage.jsonl"))

provider = OPENAI.using(KeyPool([Key("sk-1", id="a")]), base_url=os.environ["VENDOR"] + "/v1")
shim = OpenAIShim(provider, record=sinks())
proxy = PassthroughProxy(provider, record=sinks())
app = Dispatcher(Quota(shim, store=MemoryStore()), {"/proxy": proxy})
"""


@dataclass
class Running:
    """A running gateway, and the folder of its usage file."""

    process: asyncio.subprocess.Process
    port: int
    folder: Path

    async def stop(self) -> str:
        """Send a signal; returns the log. Raises TimeoutError."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            out, _ = await self.process.communicate()
        return out.decode()

    def records(self) -> list[dict[str, Any]]:
        lines = (self.folder / "usage.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]


@asynccontextmanager
async def gateway(vendor: str, folder: Path) -> AsyncIterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    (folder / "served.py").write_text(APP)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "served:app", "--port", str(port)),
        *("--timeout-graceful-shutdown", str(GRACE), "--no-access-log"),
        cwd=folder,
        env={**os.environ, "VENDOR": vendor, "PYTHONPATH": f"{ROOT}:{folder}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while process.returncode is None:
                with suppress(OSError):
                    (await Caller.to(port)).leave()
                    break
                await asyncio.sleep(0.02)
        yield Running(process, port, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def streaming(port: int, path: str) -> Caller:
    """A client in the middle of its stream."""
    caller = await Caller.to(port)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    caller.post(body, path)
    assert (await caller.head()).status == 200
    await caller.until(b"Hello")
    return caller


def lost(log: str, sink: str, count: int) -> bool:
    """Return whether the log reports this number of lost records of a sink."""
    return any(f"{count} " in line and "are lost" in line and sink in line
               for line in log.splitlines())  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/proxy/v1/chat/completions"])
async def test_sigterm_in_mid_stream_with_a_sink_that_hangs_and_a_full_disk(
    tmp_path: Path, path: str
) -> None:
    mock = MockProvider(Answer("Hello there."))
    mock.always(Fault.silence_after(2))
    async with serve(mock) as vendor, gateway(vendor, tmp_path) as running:
        callers = [await streaming(running.port, path) for _ in range(5)]
        log = await running.stop()
        records = running.records()
        for caller in callers:
            caller.leave()
    assert len(records) == len({record["id"] for record in records}) == 5
    assert {record["outcome"] for record in records} <= {"cut", "failed"}
    assert lost(log, "hangs", 5), log
    assert lost(log, "/dev/full", 5), log
    assert "No space left on device" in log


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/proxy/v1/chat/completions"])
async def test_two_hundred_disconnects_at_once_write_a_record_each_and_free_all_keys(
    tmp_path: Path, path: str
) -> None:
    mock = MockProvider(Answer("Hello there."))
    mock.always(Fault.silence_after(2))
    async with serve(mock) as vendor, gateway(vendor, tmp_path) as running:
        callers: list[Caller] = []
        for _ in range(CLIENTS // 20):
            callers += await asyncio.gather(*(streaming(running.port, path) for _ in range(20)))
        for number, caller in enumerate(callers):
            caller.leave(reset=bool(number % 2))
        async with asyncio.timeout(PATIENCE):
            while not (tmp_path / "usage.jsonl").exists() or len(running.records()) < CLIENTS:
                await asyncio.sleep(0.05)
        log = await running.stop()
        records = running.records()
    assert len({record["id"] for record in records}) == len(records) == CLIENTS
    assert Counter(record["outcome"] for record in records) == {"cut": CLIENTS}
    assert lost(log, "hangs", CLIENTS), log
    assert lost(log, "/dev/full", CLIENTS), log
