"""The live tail: usage records of exchanges as they end, in all workers, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from asgi_aiproxy import _asgi
from asgi_aiproxy._slices import in_slices
from asgi_aiproxy._turns import BackgroundTurns
from asgi_aiproxy.admin.routing import AdminRequest, Route
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.services.base import LogId
from asgi_aiproxy.services.own_usage import OwnRecordOut, OwnUsageService, to_own
from asgi_aiproxy.services.usage import RecordOut, invalid_cursor_error, to_record_out
from asgi_aiproxy.services.validation import convert
from asgi_aiproxy.stores.base import Store, StoreUnavailableError
from asgi_aiproxy.usage.ledger import Query, State
from asgi_aiproxy.usage.record import UsageRecord

_READ_ROWS = 200  # records that are read from the store together
_MAX_TAILS = 100
_DECODED = 10  # records that are sent together, without giving way
_PING_SECONDS = 15  # seconds between comments that keep an idle connection open

_decode = msgspec.json.Decoder(UsageRecord).decode
_encode = msgspec.json.Encoder().encode


class LiveQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of exchanges: all given fields must match. `after` is the id of the last record
    received.
    """

    principal: str = ""
    account: str = ""
    group: str = ""
    provider: str = ""
    model: str = ""
    key: str = ""
    session: str = ""
    tag: str = ""
    state: State | None = None
    after: LogId = ""

    def query(self) -> Query:
        """Return the ledger's filter."""
        fields = msgspec.structs.asdict(self)
        del fields["after"]
        return Query(**{**fields, "state": self.state or ""})


class OwnLiveQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter of one's own exchanges, see `LiveQuery`. `principal` is the id of an own token."""

    principal: str = ""
    model: str = ""
    state: State | None = None
    after: LogId = ""

    def query(self) -> Query:
        """Return the ledger's filter."""
        return Query(principal=self.principal, model=self.model, state=self.state or "")


class LiveTail:
    """Sends usage records as server-sent events, from the log `log` of the ledger in `store`.

    A client that reconnects with `Last-Event-ID` gets all records since then that the log still
    holds. While the store is unavailable, the stream waits. The caller is checked again after each
    read. `own` finds a caller's own exchanges, `principal` a token's id by its name. Events are
    made in `turns`; `poll` is the polling interval in seconds.
    """

    def __init__(
        self,
        store: Store,
        log: str,
        own: OwnUsageService,
        turns: BackgroundTurns,
        *,
        principal: Callable[[str], Awaitable[str]],
        poll: float = 0.5,
    ) -> None:
        self._principal = principal
        self._store = store
        self._log = log
        self._own = own
        self._turns = turns
        self._poll = poll
        self._open = 0

    async def tail(self, call: AdminRequest) -> Any:
        """Return an ASGI app that answers one request."""
        principal = await self._principal(call.query.principal)
        filter_ = msgspec.structs.replace(call.query, principal=principal).query()
        return await self._stream(call, filter_, to_record_out)

    async def own(self, call: AdminRequest) -> Any:
        """Return an ASGI app that answers one request for the caller's own exchanges."""
        filter_ = await self._own.filter(call.query.query(), call.caller)
        return await self._stream(call, filter_, lambda record: to_own(to_record_out(record)))

    async def _stream(
        self, call: AdminRequest, filter_: Query, show: Callable[[UsageRecord], Any]
    ) -> Any:
        # Imported on use: the module looks for ASGI servers when it is imported.
        from sse_starlette import EventSourceResponse

        if self._open >= _MAX_TAILS:
            raise APIError(
                ErrorKind.OVERLOADED,
                f"Too many live tails are open: the limit is {_MAX_TAILS}.",
                retry_after=5.0,
            )
        last_event_id = _asgi.header(call.scope, b"last-event-id") or ""
        after = call.query.after or convert(last_event_id, LogId)
        try:
            newest = await self._store.read(self._log, after, limit=1, newest=not after)
        except ValueError as error:
            raise invalid_cursor_error(after) from error
        if not after and newest:
            after = newest[0][0]

        async def still_allowed() -> None:
            if call.check is not None:
                await call.check()

        # (In turns here, because the response sends them from a task of its own.)
        events = self._turns.each(self._events(after, filter_, still_allowed, show))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return EventSourceResponse(events, ping=_PING_SECONDS, headers=headers)

    async def _events(
        self,
        after: str,
        filter_: Query,
        still_allowed: Callable[[], Awaitable[None]],
        show: Callable[[UsageRecord], Any],
    ) -> AsyncGenerator[bytes, None]:
        self._open += 1
        try:
            while True:
                rows: list[tuple[str, bytes]] = []
                with suppress(StoreUnavailableError):
                    rows = await self._store.read(self._log, after, _READ_ROWS)
                async for some in in_slices(rows, _DECODED):
                    found = [(id, _decode(value)) for id, value in some]
                    after = found[-1][0]
                    matching = [_event(id, show(r)) for id, r in found if filter_.matches(r)]
                    if matching:
                        yield b"".join(matching)
                if len(rows) < _READ_ROWS:
                    await asyncio.sleep(self._poll)
                try:
                    await still_allowed()
                except APIError as error:
                    if error.status in (401, 403):
                        return  # the token was revoked in the meantime
        finally:
            self._open -= 1

    def routes(self) -> list[Route]:
        """Return the routes of the live tail."""
        return [
            Route(
                method="GET",
                path="/usage/live",
                need="read",
                run=self.tail,
                query=LiveQuery,
                answer=RecordOut,
                media_type="text/event-stream",
                summary="Usage records of exchanges as they end, as server-sent events.",
            ),
            Route(
                method="GET",
                path="/me/usage/live",
                need="token",
                run=self.own,
                query=OwnLiveQuery,
                answer=OwnRecordOut,
                media_type="text/event-stream",
                summary="The caller's own exchanges as they end, as server-sent events.",
            ),
        ]


def _event(id: str, record: Any) -> bytes:
    """Return one server-sent event."""
    return b"id: %b\nevent: exchange\ndata: %b\n\n" % (id.encode(), _encode(record))
