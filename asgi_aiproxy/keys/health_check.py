"""Keys that were refused are tested now and then, so that no caller has to try them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key import Key
from asgi_aiproxy.keys.lease import NoKeyError

if TYPE_CHECKING:
    from asgi_aiproxy.keys.pool import KeyPool

logger = logging.getLogger("asgi_aiproxy")

_AT_ONCE = 8

Test = Callable[[Key], Awaitable[int]]


class HealthChecker:
    """Tests keys every so many seconds; each test may take `limit` seconds.

    In a shared pool one process does it, whichever comes first: `claim` says whether it is this.
    """

    def __init__(
        self,
        pool: KeyPool,
        test: Test,
        *,
        every: float,
        well: bool,
        limit: float,
        claim: Callable[[float], Awaitable[bool]] | None,
        random: random.Random,
    ) -> None:
        if not every > 0 or not limit > 0:
            raise ConfigurationError(
                f"Pool {pool.name!r}: every and limit must be above 0 seconds."
            )
        self._pool = pool
        self._test = test
        self._every = every
        self._well = well
        self._limit = limit
        self._claim = claim
        self._random = random
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        what = f"testing the keys of pool {self._pool.name}"
        self._task = self._task or start(repeat(self._run, what=what), what=what)

    async def stop(self) -> None:
        """End, and what is being tested too."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        # Not all at the same moment; who comes too early would find the last round's claim.
        await asyncio.sleep(self._every * self._random.uniform(1.0, 1.1))
        if self._claim is None or await self._claim(self._every * 0.9):
            await self._round()

    async def _round(self) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(key_id: str) -> None:
            async with room:
                await self._try(key_id)

        wanted = {Health.QUARANTINED, Health.OK} if self._well else {Health.QUARANTINED}
        due = [status.id for status in await self._pool.status() if status.health in wanted]
        await asyncio.gather(*map(one, due))

    async def _try(self, key_id: str) -> None:
        try:
            lease = await self._pool._now(key_id)
        except NoKeyError:
            return  # it rests, or somebody tries it already
        with lease:
            try:
                async with asyncio.timeout(self._limit):
                    status = await self._test(lease.key)
            except Exception as error:
                logger.info("key %s of pool %s: no test: %r", key_id, self._pool.name, error)
            else:
                lease.report(status)
