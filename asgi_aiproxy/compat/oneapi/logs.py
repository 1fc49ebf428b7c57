"""The log of One API: exchanges of the ledger, and events of users and administrators."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from asgi_aiproxy.accounts.users import User
from asgi_aiproxy.compat.oneapi.rows import OneAPIData
from asgi_aiproxy.usage.ledger import Ledger, Query
from asgi_aiproxy.usage.record import Outcome, UsageRecord

UNKNOWN, TOP_UP, CONSUME, MANAGE, SYSTEM = range(5)
_LOG = "oneapi.log"
_START = "oneapi.log_start"  # a table with one row: entries before this Unix time were deleted
_MAX_EVENTS = 100_000
_MAX_READ = 10_000


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted; 0 and empty match all."""

    type: int = 0
    start: int = 0
    end: int = 0
    username: str = ""
    token_name: str = ""
    model_name: str = ""
    channel: int = 0
    keyword: str = ""

    def matches(self, entry: dict[str, Any]) -> bool:
        """Return whether an entry is wanted."""
        return (
            (not self.type or entry["type"] == self.type)
            and (not self.start or entry["created_at"] >= self.start)
            and (not self.end or entry["created_at"] <= self.end)
            and self.username in ("", entry["username"])
            and self.token_name in ("", entry["token_name"])
            and self.model_name in ("", entry["model_name"])
            and (not self.channel or entry["channel"] == self.channel)
            and (
                not self.keyword
                or self.keyword == str(entry["type"])
                or entry["content"].startswith(self.keyword)
            )
        )


class LogReader:
    """Reads and writes the log."""

    def __init__(self, data: OneAPIData, ledger: Ledger) -> None:
        self._data = data
        self._ledger = ledger

    async def add(self, user: User, type: int, content: str, quota: int = 0) -> None:
        """Write an event of a user."""
        entry = {"user_id": user.id, "username": user.username, "type": type}
        entry |= {"content": content, "quota": quota, "created_at": self._data.now()}
        await self._data.store.append(_LOG, json.dumps(entry).encode(), maxlen=_MAX_EVENTS)

    async def read(
        self, wanted: LogFilter, users: dict[int, str], tokens: dict[str, str], limit: int,
        *, user: User | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return the latest entries that are wanted, newest first.

        Arguments:

        - `wanted`: the filter.
        - `users`, `tokens`: names by the number of the user and the id of the token.
        - `limit`: the maximum number of entries.
        - `user`: only entries of this user; None for all.
        """
        await self._ledger.drain(2.0)
        start = await self._start()
        entries = [entry for entry in await self._events() if wanted.matches(entry)]
        if user is not None:
            entries = [entry for entry in entries if entry["user_id"] == user.id]
        if wanted.type in (0, CONSUME):
            account = user.account if user is not None else ""
            query = Query(account=account, since=start)
            found = await self._ledger.query(query, limit=_MAX_READ)
            records = (_entry(record, users, tokens) for record in found.records)
            entries += [entry for entry in records if entry and wanted.matches(entry)]
        entries.sort(key=lambda entry: entry["created_at"], reverse=True)
        return entries[:limit]

    async def records(self, user: User, since: float) -> list[UsageRecord]:
        """Return the exchanges of a user since a Unix time."""
        await self._ledger.drain(2.0)
        query = Query(account=user.account, since=max(since, await self._start()))
        return (await self._ledger.query(query, limit=_MAX_READ)).records

    async def delete(self, until: int) -> int:
        """Delete the entries before a Unix time; returns how many there were.

        Exchanges are only left out from here on: they stay in the ledger as long as it keeps them,
        because budgets and the usage of teams are computed from it.
        """
        start = await self._start()
        await self._ledger.drain(2.0)
        found = await self._ledger.query(Query(since=start, until=until), limit=_MAX_READ)
        shown = [record for record in found.records if _entry(record, {}, {}) is not None]
        rows = await self._data.store.read(_LOG, limit=_MAX_READ)
        old = [id for id, row in rows if json.loads(row)["created_at"] < until]
        if old:
            await self._data.store.trim(_LOG, old[-1])
        await self._data.store.put(_START, "log", str(max(until, int(start))).encode())
        return len(shown) + len(old)

    async def _start(self) -> float:
        stored = await self._data.store.get(_START, "log")
        return float(stored) if stored else 0.0

    async def _events(self) -> list[dict[str, Any]]:
        rows = await self._data.store.read(_LOG, limit=_MAX_READ, newest=True)
        return [_complete(json.loads(row), id) for id, row in rows]


def total_quota(entries: Iterable[dict[str, Any]]) -> int:
    """Return the sum of the quota of all exchanges among the entries."""
    return sum(entry["quota"] for entry in entries if entry["type"] == CONSUME)


def _entry(
    record: UsageRecord, users: dict[int, str], tokens: dict[str, str]
) -> dict[str, Any] | None:
    """Return the log entry of an exchange; None if nothing was used."""
    if record.outcome in (Outcome.REFUSED, Outcome.FAILED) and not record.units:
        return None
    id = record.account.removeprefix("user-")
    user = int(id) if id.isdecimal() else 0
    usage = record.usage
    channel = record.provider.removeprefix("channel-")
    known = {
        "user_id": user,
        "username": users.get(user, ""),
        "type": CONSUME,
        "content": "",
        "created_at": int(record.started),
        "token_name": tokens.get(record.principal, ""),
        "model_name": record.requested_model or record.model,
        "quota": 0 if record.not_charged else record.units or 0,
        "prompt_tokens": usage.input if usage is not None else 0,
        "completion_tokens": usage.output if usage is not None else 0,
        "channel": int(channel) if channel.isdecimal() else 0,
        "request_id": record.request_id or record.id,
        "elapsed_time": int(record.duration * 1000),
    }
    return _complete(known, record.id)


def _complete(known: dict[str, Any], id: str) -> dict[str, Any]:
    """Return an entry with all members, and a number that is the same each time."""
    digits = "".join(character for character in id if character.isdecimal()) or "0"
    return {
        "id": int(digits[-15:]),
        "user_id": 0,
        "created_at": 0,
        "type": UNKNOWN,
        "content": "",
        "username": "",
        "token_name": "",
        "model_name": "",
        "quota": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "channel": 0,
        "request_id": "",
        "elapsed_time": 0,
        "is_stream": False,
        "system_prompt_reset": False,
        **known,
    }
