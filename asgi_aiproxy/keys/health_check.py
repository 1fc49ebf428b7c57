"""Test refused keys in the background, so that no caller's request has to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from asgi_aiproxy._background_tasks import repeat, start
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.keys.health import Health
from asgi_aiproxy.keys.key import Key
from asgi_aiproxy.keys.key_set import KeySet
from asgi_aiproxy.keys.lease import Lease, NoKeyError

logger = logging.getLogger("asgi_aiproxy")

_MAX_CONCURRENT_TESTS = 8

Test = Callable[[Key], Awaitable[int]]


class HealthChecker:
    """Tests keys about every `interval` seconds; each test is cancelled after `timeout` seconds.

    `acquire` lends a key by its id without waiting. In a shared pool one process runs each round:
    `claim` returns whether it is this one. Raises ConfigurationError for an invalid time.
    """

    def __init__(
        self,
        keys: KeySet,
        test: Test,
        *,
        acquire: Callable[[str], Awaitable[Lease]],
        interval: float,
        include_healthy: bool,
        timeout: float,
        claim: Callable[[float], Awaitable[bool]] | None,
    ) -> None:
        if not interval > 0 or not timeout > 0:
            raise ConfigurationError(
                f"Pool {keys.name!r}: interval and timeout must be > 0 (seconds), got "
                f"{interval!r} and {timeout!r}."
            )
        self._keys = keys
        self._test = test
        self._acquire = acquire
        self._interval = interval
        self._timeout = timeout
        self._claim = claim
        self._tested = {Health.QUARANTINED}
        if include_healthy:
            self._tested.add(Health.OK)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        what = f"testing the keys of pool {self._keys.name}"
        self._task = self._task or start(repeat(self._run, what=what), what=what)

    async def stop(self) -> None:
        """Stop, and cancel tests in progress."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        # Processes must not all wake at the same moment: one that wakes too early would find the
        # claim of the previous round.
        await asyncio.sleep(self._interval * _jitter(self._keys.random))
        if self._claim is None or await self._claim(self._interval * 0.9):
            await self._test_all()

    async def _test_all(self) -> None:
        limit = asyncio.Semaphore(_MAX_CONCURRENT_TESTS)

        async def test(key_id: str) -> None:
            async with limit:
                await self._test_key(key_id)

        now = self._keys.clock()
        statuses = [state.status(now) for state in self._keys.states.values()]
        due = [status.id for status in statuses if status.health in self._tested]
        await asyncio.gather(*map(test, due))

    async def _test_key(self, key_id: str) -> None:
        try:
            lease = await self._acquire(key_id)
        except NoKeyError:
            return  # it cools down, or another request tries it already
        with lease:
            try:
                async with asyncio.timeout(self._timeout):
                    status = await self._test(lease.key)
            except Exception as error:
                logger.info("pool %s: testing key %s failed: %r", self._keys.name, key_id, error)
            else:
                lease.report(status)


def _jitter(source: random.Random) -> float:
    return source.uniform(1.0, 1.1)
