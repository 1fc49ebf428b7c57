"""The live tail: exchanges as they end, in all workers, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from asgi_aiproxy import _asgi
from asgi_aiproxy.admin.routing import AdminRequest, Route
from asgi_aiproxy.admin.serve import Authenticator
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.services.usage import LogId, RecordOut, invalid_cursor_error, to_record_out
from asgi_aiproxy.services.validation import convert
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.usage.ledger import Query, State
from asgi_aiproxy.usage.record import UsageRecord

_AT_ONCE = 200  # records that are read together
_TAILS = 100
_PING = 15  # seconds

_decode = msgspec.json.Decoder(UsageRecord).decode
_encode = msgspec.json.Encoder().encode


class LiveQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which exchanges: those of which all is true. `after` is the id of the last one seen."""

    principal: str = ""
    account: str = ""
    group: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    state: State | None = None
    after: LogId = ""

    def query(self) -> Query:
        """Whom to let through."""
        fields = msgspec.structs.asdict(self)
        del fields["after"]
        return Query(**{**fields, "state": self.state or ""})


class LiveTail:
    """Tells of exchanges as they end. Who comes back with `Last-Event-ID` misses none of those
    that are kept; while the store is away, it waits. `principal` finds a token's id by its name,
    `poll` is in seconds."""

    def __init__(
        self,
        store: Store,
        log: str,
        knows: Authenticator,
        *,
        principal: Callable[[str], Awaitable[str]],
        poll: float = 1.0,
    ) -> None:
        self._principal = principal
        self._store = store
        self._log = log
        self._knows = knows
        self._poll = poll
        self._open = 0

    async def tail(self, call: AdminRequest) -> Any:
        """An ASGI app that answers one request."""
        # It looks for servers when it is imported, so it is imported when it is needed.
        from sse_starlette import EventSourceResponse

        if self._open >= _TAILS:
            raise APIError(ErrorKind.OVERLOADED, f"{_TAILS} live tails are open.", retry_after=5.0)
        told = _asgi.header(call.scope, b"last-event-id") or ""
        after = call.query.after or convert(told, LogId)
        try:
            newest = await self._store.read(self._log, after, limit=1, newest=not after)
        except ValueError as error:
            raise invalid_cursor_error(after) from error
        if not after and newest:
            after = newest[0][0]

        async def still_allowed() -> None:
            await self._knows.caller(call.scope, "read")

        query = call.query
        principal = await self._principal(query.principal)
        wanted = msgspec.structs.replace(query, principal=principal).query()
        events = self._events(after, wanted, still_allowed)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return EventSourceResponse(events, ping=_PING, headers=headers)

    async def _events(
        self, after: str, wanted: Query, still_allowed: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[dict[str, str]]:
        self._open += 1
        try:
            while True:
                rows: list[tuple[str, bytes]] = []
                with suppress(StoreUnavailableError):
                    rows = await self._store.read(self._log, after, _AT_ONCE)
                for id, value in rows:
                    after = id
                    record = _decode(value)
                    if wanted.matches(record):
                        data = _encode(to_record_out(record)).decode()
                        yield {"id": id, "event": "exchange", "data": data}
                if len(rows) < _AT_ONCE:
                    await asyncio.sleep(self._poll)
                try:
                    await still_allowed()
                except APIError as error:
                    if error.status in (401, 403):
                        return  # the token was revoked meanwhile
        finally:
            self._open -= 1

    def routes(self) -> list[Route]:
        """The path of all this."""
        return [
            Route(
                method="GET",
                path="/usage/live",
                need="read",
                run=self.tail,
                query=LiveQuery,
                answer=RecordOut,
                media_type="text/event-stream",
                summary="Exchanges as they end, as server-sent events.",
            )
        ]
