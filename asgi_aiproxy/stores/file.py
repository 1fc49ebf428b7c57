"""A file that holds what a process must not forget, written whole and atomically.

Every write replaces the file by a new snapshot. Changes that arrive while one is written share the
next. A write that fails (a full disk, most likely) is tried again until it succeeds, and logged
when that begins and when it is over. Who waits in `written` learns of the failure at once; what it
had changed is taken back by `undo` before, so that such a change is made on disk and in memory, or
in neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from asgi_aiproxy._background_tasks import FailureLog
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.stores.base import StoreUnavailableError

try:
    import fcntl
except ImportError:  # Windows: nobody watches there that the file has one user
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("asgi_aiproxy")

_LATER = 1.0  # seconds that what traffic changes may be unwritten
_LAST_PAUSE = 30.0  # seconds between two attempts at most, while writing fails
_GOOD_BYE = 5.0  # seconds for the last write


def _nothing() -> None:
    """Nothing is to be taken back."""


class StateFile:
    """Keeps a file like what `snapshot` returns; one process may use it at a time.

    `undo` is called when a write has failed, before those who wait for it are told; `kept` when one
    was done.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        snapshot: Callable[[], bytes],
        *,
        undo: Callable[[], None] = _nothing,
        kept: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._path = Path(path)
        self._snapshot = snapshot
        self._undo = undo
        self._kept = kept
        self._lock: IO[Any] | None = None
        self._changes = 0
        self._written = 0
        self._task: asyncio.Task[OSError | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._log = FailureLog(f"the state of the store, {self._path}, cannot be written")

    def read(self) -> bytes | None:
        """What was written before. Raises ConfigurationError if it can not be used."""
        try:
            self._acquire()
            return self._path.read_bytes() if self._path.exists() else None
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror or error}") from error

    @property
    def changes(self) -> int:
        """The number of the last change."""
        return self._changes

    def changed(self) -> None:
        """Something is different: write it within a second."""
        self._changes += 1
        if self._timer is None and (self._task is None or self._task.done()):
            self._timer = asyncio.get_running_loop().call_later(_LATER, self._begin)

    async def written(self) -> None:
        """Write what has changed until now, at once. Raises StoreUnavailableError if it cannot be
        written; then it was undone."""
        wanted = self._changes
        while self._written < wanted:
            task = self._begin()
            await asyncio.wait((task,))
            error = None if task.cancelled() else task.result()
            if error is not None:
                raise StoreUnavailableError(
                    f"{self._path}: not written: {error.strerror or error}"
                ) from error

    async def aclose(self) -> None:
        """Write what has changed, and let others use the file. If that fails, the log says so."""
        try:
            async with asyncio.timeout(_GOOD_BYE):
                await self.written()
        except (StoreUnavailableError, TimeoutError) as error:
            logger.error("%s: what changed since the last write is lost: %r", self._path, error)
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _begin(self) -> asyncio.Task[OSError | None]:
        """Write now: the task that does it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())
        return self._task

    async def _write(self) -> OSError | None:
        """Write a snapshot; returns what went wrong."""
        changes = self._changes
        try:
            await asyncio.to_thread(self._replace, self._snapshot())
        except Exception as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
            self._log.log_failure(failure.strerror or failure)
            self._undo()
            pause = min(_LATER * 2.0 ** min(self._log.failures - 1, 10), _LAST_PAUSE)
            self._timer = asyncio.get_running_loop().call_later(pause, self._begin)
            return failure
        self._log.log_recovery()
        self._written = changes
        self._kept(changes)
        if self._changes != changes:
            self._timer = asyncio.get_running_loop().call_later(_LATER, self._begin)
        return None

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


def packed(state: msgspec.Struct) -> bytes:
    """A state as MessagePack. Lone surrogates, which UTF-8 cannot have, become question marks."""
    try:
        return msgspec.msgpack.encode(state)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(state, builtin_types=(bytes,))
        return msgspec.msgpack.encode(_unicode(plain))


def _unicode(value: Any) -> Any:
    """Plain values with all texts as Unicode."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_unicode(key): _unicode(member) for key, member in value.items()}
        case list() | tuple():
            return [_unicode(member) for member in value]
    return value
