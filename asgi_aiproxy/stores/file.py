"""A state file that is written whole and atomically.

Each write replaces the file by a new snapshot. Changes that are made while a snapshot is written
share the next one. A write that fails (most likely because the disk is full) is repeated until it
succeeds; the log says when failures begin and end. A caller that waits in `written` gets
an error at once. Before that `on_failure` undoes its change, so that such a change is made both on
disk and in memory, or in neither.
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
except ImportError:  # Windows: the file is not locked against a second process
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("asgi_aiproxy")

_WRITE_DELAY = 1.0  # seconds from a change to the write, unless `written` is called
_MAX_PAUSE = 30.0  # seconds between attempts while writing fails
_CLOSE_TIMEOUT = 5.0  # seconds for the last write


def _nothing() -> None:
    """Do nothing."""


class StateFile:
    """Keeps a file in step with what `snapshot` returns. One process may use it at a time.

    `on_failure` is called when a write has failed, before `written` raises; `on_written` with the
    number of the last change in the file after each write.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        snapshot: Callable[[], bytes],
        *,
        on_failure: Callable[[], None] = _nothing,
        on_written: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._path = Path(path)
        self._snapshot = snapshot
        self._on_failure = on_failure
        self._on_written = on_written
        self._lock: IO[Any] | None = None
        self._changes = 0
        self._written = 0
        self._task: asyncio.Task[OSError | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._log = FailureLog(f"the state file {self._path} cannot be written")

    def read(self) -> bytes | None:
        """The content of the file, None if there is none. Raises ConfigurationError if it cannot be
        used."""
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
        """Note a change; it is written within a second."""
        self._changes += 1
        if self._timer is None and (self._task is None or self._task.done()):
            self._timer = asyncio.get_running_loop().call_later(_WRITE_DELAY, self._begin)

    async def written(self) -> None:
        """Write all changes made until now, at once. Raises StoreUnavailableError if they cannot be
        written; `on_failure` has undone them then."""
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
        """Write all changes, and unlock the file. If that fails, it is logged."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.written()
        except (StoreUnavailableError, TimeoutError) as error:
            logger.error("%s: the changes since the last write are lost: %r", self._path, error)
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _begin(self) -> asyncio.Task[OSError | None]:
        """Start to write now, unless that is under way; returns the task."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())
        return self._task

    async def _write(self) -> OSError | None:
        """Write a snapshot; returns the error if that failed."""
        changes = self._changes
        try:
            await asyncio.to_thread(self._replace, self._snapshot())
        except Exception as error:
            failure = error if isinstance(error, OSError) else OSError(str(error))
            self._log.log_failure(failure.strerror or failure)
            self._on_failure()
            pause = min(_WRITE_DELAY * 2.0 ** min(self._log.failures - 1, 10), _MAX_PAUSE)
            self._timer = asyncio.get_running_loop().call_later(pause, self._begin)
            return failure
        self._log.log_recovery()
        self._written = changes
        self._on_written(changes)
        if self._changes != changes:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_DELAY, self._begin)
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
                f"{self._path} is in use by another process or another store. A file can be used "
                f"by one process only; several workers share their state through Redis."
            ) from None
        self._lock = lock


def encode_state(state: msgspec.Struct) -> bytes:
    """Encode as MessagePack. Lone surrogates, which UTF-8 cannot encode, become question marks."""
    try:
        return msgspec.msgpack.encode(state)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(state, builtin_types=(bytes,))
        return msgspec.msgpack.encode(_replace_surrogates(plain))


def _replace_surrogates(value: Any) -> Any:
    """The same value without lone surrogates in its strings."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {
                _replace_surrogates(key): _replace_surrogates(member)
                for key, member in value.items()
            }
        case list() | tuple():
            return [_replace_surrogates(member) for member in value]
    return value
