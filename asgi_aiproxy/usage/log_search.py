"""Finds the records of a batch that an interrupted write has left in a log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from asgi_aiproxy.stores.base import Logs
from asgi_aiproxy.usage.record import UsageRecord

_READ_ROWS, _MAX_READS = 1000, 50
_DELAY_SECONDS = 60.0  # by which another worker may have written older records after newer ones


class _Written(msgspec.Struct, frozen=True):
    id: str = ""
    started: float = 0.0
    duration: float = 0.0


_decode = msgspec.json.Decoder(_Written).decode


async def written_ids(store: Logs, log: str, records: Iterable[UsageRecord]) -> set[str]:
    """Return the ids of those of `records` that the log has.

    The log is read from its newest record back to those of exchanges that ended before, at most
    50,000 records. Raises StoreUnavailableError.
    """
    ends = {record.id: record.started + record.duration for record in records}
    found: set[str] = set()
    oldest, after = min(ends.values(), default=0.0) - _DELAY_SECONDS, ""
    for _ in range(_MAX_READS):
        rows = await store.read(log, after, _READ_ROWS, newest=True)
        newest = 0.0
        for _position, value in rows:
            written = _decode(value)
            newest = max(newest, written.started + written.duration)
            if written.id in ends:
                found.add(written.id)
        if len(rows) < _READ_ROWS or newest < oldest or len(found) == len(ends):
            break
        after = rows[-1][0]
        await asyncio.sleep(0)  # a store in memory does not wait: let others run
    return found
