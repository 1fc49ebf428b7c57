"""Wait for what happens in the background, however busy the machine is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

# Seconds after which a test fails. Not an expectation: on a busy machine everything takes longer.
PATIENCE = 60.0


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition, which may be a coroutine function, is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.005)
