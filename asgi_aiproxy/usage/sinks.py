"""Sinks for usage records besides the ledger: a file of JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from asgi_aiproxy._retry_queue import RetryQueue
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.usage.record import UsageRecord

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_encode = msgspec.json.Encoder().encode


class JSONLinesSink:
    """A sink that appends records to a file, one JSON object per line.

    Lines stay whole when several processes write to one file; the file may be moved away, because
    it is opened for every batch. While the file cannot be opened, or the disk is full, at most
    `max_waiting` lines wait; the log says when that begins, what was lost, and when it is over.
    Raises ConfigurationError if its folder does not exist.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_waiting: int = 100_000) -> None:
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise ConfigurationError(
                f"JSONLinesSink: the folder {str(self._path.parent)!r} does not exist."
            )
        if max_waiting < 1:
            raise ConfigurationError(
                f"JSONLinesSink: max_waiting must be at least 1, not {max_waiting}."
            )
        self._error = ""
        self._backlog: RetryQueue[bytes] = RetryQueue(
            self._write,
            what=f"usage lines for {str(self._path)!r}",
            max_items=max_waiting,
            batch_delay=0.05,
            failure_reason=lambda: f"they cannot be written: {self._error}",
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()

    @property
    def lost(self) -> int:
        """The number of lines that were lost because they could not be written."""
        return self._backlog.lost

    async def __call__(self, record: UsageRecord) -> None:
        """Queue a record."""
        self._backlog.put(_encode(record) + b"\n")

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all lines are written, or for `timeout` seconds."""
        await self._backlog.drain(timeout)

    async def _write(self, lines: list[bytes]) -> list[bytes]:
        return await asyncio.to_thread(self._append, lines)

    def _append(self, lines: list[bytes]) -> list[bytes]:
        """Write some lines; returns those that do not fit on the disk."""
        try:
            with self._opened() as file:
                return self._append_to(file, lines)
        except OSError as error:
            self._error = error.strerror or str(error)
            return lines

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open and lock the file, on systems that have such locks."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        file = os.open(self._path, flags, 0o600)
        try:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # not every file system has them
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _append_to(self, file: int, lines: list[bytes]) -> list[bytes]:
        data = memoryview(b"".join(lines))
        before = os.fstat(file)
        written = 0
        try:
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError as error:
            self._error = error.strerror or str(error)
        left, whole = list(lines), 0
        while left and whole + len(left[0]) <= written:
            whole += len(left.pop(0))
        if left and written > whole:  # a part of a line: take it back, or end it
            try:
                if not stat.S_ISREG(before.st_mode):
                    raise OSError("not a file that can be cut")
                os.ftruncate(file, before.st_size + whole)
            except OSError:
                left[0] = b"\n" + left[0]
        return left
