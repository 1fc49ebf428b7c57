"""A file that holds what a process must not forget, written whole and atomically."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores.base import StoreUnavailableError

try:
    import fcntl
except ImportError:  # Windows: nobody watches there that the file has one user
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("asgi_aiproxy")

_LATER = 1.0  # seconds that what traffic changes may be unwritten


class StateFile:
    """Keeps a file like what `snapshot` returns; one process may use it at a time."""

    def __init__(self, path: str | os.PathLike[str], snapshot: Callable[[], bytes]) -> None:
        self._path = Path(path)
        self._snapshot = snapshot
        self._lock: IO[Any] | None = None
        self._changes = 0
        self._written = 0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def read(self) -> bytes | None:
        """What was written before. Raises ConfigurationError if it can not be used."""
        try:
            self._acquire()
            return self._path.read_bytes() if self._path.exists() else None
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror or error}") from error

    def changed(self) -> None:
        """Something is different: write it within a second."""
        self._changes += 1
        if self._timer is None and (self._task is None or self._task.done()):
            self._timer = asyncio.get_running_loop().call_later(_LATER, self._begin)

    async def written(self) -> None:
        """Write what has changed until now, at once. Raises StoreUnavailableError."""
        wanted = self._changes
        while self._written < wanted:
            if self._task is None or self._task.done():
                self._begin()
            task = self._task
            assert task is not None  # noqa: S101 (it was begun)
            await asyncio.wait((task,))
            if not task.cancelled() and (error := task.exception()) is not None:
                raise StoreUnavailableError(f"{self._path}: not written: {error}") from error

    async def aclose(self) -> None:
        """Write what has changed, and let others use the file."""
        await self.written()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())
            self._task.add_done_callback(_complain)

    async def _write(self) -> None:
        changes = self._changes
        data = self._snapshot()
        await asyncio.to_thread(self._replace, data)
        self._written = changes
        if self._changes != changes:
            self._timer = asyncio.get_running_loop().call_later(_LATER, self._begin)

    def _replace(self, data: bytes) -> None:
        self._acquire()
        folder = self._path.parent
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)
            raise
        if os.name == "posix":
            directory = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _acquire(self) -> None:
        if self._lock is not None or fcntl is None:
            return
        lock = open(f"{self._path}.lock", "ab")  # noqa: SIM115 (held as long as the store)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ConfigurationError(
                f"{self._path} is in use by another process, or another store. A file serves one "
                f"process; several workers share their state over Redis."
            ) from None
        self._lock = lock


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the state of the store could not be written: %s", error)
