"""Detect changes in the store by polling version numbers a few times a second.

One small read per watched name, all in one write, costs little. Compared with publish/subscribe
nothing has to be subscribed again after a failure, and no message can be missed. A read that fails,
or returns anything but a version, is logged once and repeated in the next round; other names are
not delayed by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from asgi_aiproxy._background_tasks import FailureLog, repeat, start

logger = logging.getLogger("asgi_aiproxy")


class ChangePoller:
    """Calls back when a version has changed, and once at the beginning. `every` is in seconds."""

    def __init__(self, version: Callable[[str], Awaitable[int]], *, every: float = 0.25) -> None:
        self._version = version
        self._every = every
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._known: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._poll_requested = asyncio.Event()
        self._log = FailureLog("changes in the store cannot be seen")

    def add(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Watch a name; returns a function that stops it."""
        self._watchers.setdefault(name, []).append(changed)
        self._start()
        self.poll_now()

        def stop() -> None:
            watchers = self._watchers.get(name, [])
            if changed in watchers:
                watchers.remove(changed)
            if not watchers:
                self._watchers.pop(name, None)
                self._known.pop(name, None)
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

        return stop

    def poll_now(self) -> None:
        """Poll now, because this process has changed something."""
        self._poll_requested.set()

    async def aclose(self) -> None:
        """Stop watching."""
        self._watchers.clear()
        self._known.clear()
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait((task,))

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._poll_requested = asyncio.Event()
            watching = repeat(self._poll, what="watching the store for changes")
            self._task = start(watching, what="watching the store for changes")

    async def _poll(self) -> None:
        """One round: read all versions, call back for those that changed, wait for the next."""
        self._poll_requested.clear()
        names = list(self._watchers)
        versions = await asyncio.gather(
            *(self._version(name) for name in names), return_exceptions=True
        )
        failure: BaseException | None = None
        for name, version in zip(names, versions, strict=True):
            if isinstance(version, BaseException):
                failure = failure or version
            elif self._known.get(name) != version and name in self._watchers:
                self._known[name] = version
                self._notify(name)
        if failure is not None:
            self._log.log_failure(failure)
        else:
            self._log.log_recovery()
        try:
            async with asyncio.timeout(self._every):
                await self._poll_requested.wait()
        except TimeoutError:
            pass

    def _notify(self, name: str) -> None:
        for changed in list(self._watchers[name]):
            try:
                changed()
            except Exception:
                logger.exception("the callback for a change of %r failed", changed)
