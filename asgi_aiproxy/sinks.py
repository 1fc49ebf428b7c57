"""Where records of usage may go besides the ledger: a file of JSON lines."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Self

import msgspec

from asgi_aiproxy._backlog import Backlog
from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.usage import UsageRecord

_encode = msgspec.json.Encoder().encode


class JSONLines:
    """A sink that appends each record to a file, a line each.

    Lines are whole, also when several processes write to one file, or it is moved away: it is
    opened anew for every few lines. Raises ConfigurationError if there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if not self._path.parent.is_dir():
            raise ConfigurationError(f"There is no folder {str(self._path.parent)!r}.")
        self._backlog: Backlog[bytes] = Backlog(self._write, what="lines of usage", gather=0.05)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drain()

    async def __call__(self, record: UsageRecord) -> None:
        """Take a record over."""
        self._backlog.put(_encode(record) + b"\n")

    async def drain(self, timeout: float = 3.0) -> None:
        """Wait until all lines are written, or for `timeout` seconds."""
        await self._backlog.drain(timeout)

    async def _write(self, lines: list[bytes]) -> list[bytes]:
        return await asyncio.to_thread(self._append, lines)

    def _append(self, lines: list[bytes]) -> list[bytes]:
        """Write some lines; what does not fit on the disk is to be tried again."""
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            return lines
        rest = b"".join(lines)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            return [rest]
        finally:
            os.close(file)
        return []
