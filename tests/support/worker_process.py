"""A uvicorn process with one of the apps in `tests.support`, for tests with several workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.redis_server import free_port

ROOT = Path(__file__).parents[2]


@contextmanager
def worker(app: str, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `app`, as `tests.support.module:name`; yields the process and its URL."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def started(client: httpx.AsyncClient, url: str) -> None:
    """Wait until a worker answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            await client.get(f"{url}/v1/models")
        except httpx.HTTPError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("a worker did not start")
