"""Remove records from a log by their age or any other property."""

from __future__ import annotations

from collections.abc import Callable

from asgi_aiproxy.stores.base import Logs

_READ_ROWS = 500  # records that are read together


async def trim_log(store: Logs, log: str, is_old: Callable[[bytes], bool]) -> None:
    """Remove the records at the beginning of a log for which `is_old` is true.

    Raises StoreUnavailableError.
    """
    while rows := await store.read(log, limit=_READ_ROWS):
        old = ""
        for id, value in rows:
            if not is_old(value):
                break
            old = id
        if old:
            await store.trim(log, old)
        if old != rows[-1][0]:
            return
