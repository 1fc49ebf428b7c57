"""`python -m asgi_aiproxy serve`: the Responses API over a WebSocket."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from asgi_aiproxy.testing import MockProvider, serve
from tests.server.test_reload import served

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name == "nt", reason="sends signals")]


async def test_messages_may_be_as_large_as_bodies(tmp_path: Path) -> None:
    async with serve(MockProvider()) as vendor:
        text = (
            f'max_body = 20_000_000\n[providers.anthropic]\nbase_url = "{vendor}"\nkeys = ["k"]\n'
        )
        async with (
            served(tmp_path, text) as gateway,
            connect(f"ws://127.0.0.1:{gateway.port}/v1/responses", proxy=None) as connection,
        ):

            async def last(size: int) -> Any:
                body = {"type": "response.create", "model": "claude-sonnet-4-5"}
                await connection.send(json.dumps({**body, "input": "x" * size}))
                event: Any = {"type": ""}
                while event["type"] not in ("response.completed", "error"):
                    event = json.loads(await connection.recv())
                return event

            assert (await last(19_000_000))["type"] == "response.completed"
            assert (await last(20_000_001))["status"] == 413
            assert (await last(10))["type"] == "response.completed"
