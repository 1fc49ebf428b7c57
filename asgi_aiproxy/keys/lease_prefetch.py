"""A key that is asked for before it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from asgi_aiproxy.keys.lease import Lease


class LeasePrefetch:
    """Asks for a key at once, so that the question to the store can travel with another one.

    `purpose` is what the key is for, as the caller knows it.
    """

    def __init__(self, acquiring: Coroutine[Any, Any, Lease], purpose: object) -> None:
        self.purpose = purpose
        self._task = asyncio.get_running_loop().create_task(acquiring)

    async def lease(self) -> Lease:
        """The key. Raises NoKeyError."""
        return await self._task

    def drop(self) -> None:
        """It is not needed after all: nothing is counted."""
        self._task.cancel()
        self._task.add_done_callback(_forgo)


def _forgo(task: asyncio.Task[Lease]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().cancel()
