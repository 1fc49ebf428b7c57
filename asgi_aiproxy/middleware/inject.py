"""`InjectKey`: requests reach the app behind with a key of a pool, not with the caller's."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._watch import ClientGoneError
from asgi_aiproxy.credentials import (
    INJECTED,
    BlotStream,
    blot,
    presented,
    query_without,
    subprotocols_without,
    without,
)
from asgi_aiproxy.dialects import OPENAI_CHAT
from asgi_aiproxy.errors import APIError, ConfigurationError, Kind
from asgi_aiproxy.identity import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.keys import KeyPool, Lease, NoKeyError
from asgi_aiproxy.middleware.base import Wrapper
from asgi_aiproxy.retry_after import retry_after


class InjectKey(Wrapper):
    """Puts a key of `pool` into each request for `app`, HTTP and WebSocket.

    The caller's own credential is taken out wherever it stands: headers, query, subprotocols. The
    key goes into `header`, after `scheme` (by default `Bearer` in `authorization`, nothing
    elsewhere). It is judged by the answer, its status and what its headers tell of the key's
    limits, and held until the answer has ended. An application may refuse all keys at some path, so
    401 and 402 put a key to rest when it got them three times in a row, and another key did not
    the last time that it was used. `x-auth-id` names the key, in the answer, and in a request that
    wishes for one. Callers do not see it: it is blotted out of headers, and of the
    bodies of answers that are no success (compressed ones are not looked into).

    ::

        InjectKey(PassthroughProxy("http://internal:9000"), pool=KeyPool(["key-1", "key-2"]))
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        pool: KeyPool,
        header: str = "authorization",
        scheme: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(pool, KeyPool):
            raise ConfigurationError(
                f"InjectKey: pool is a KeyPool, not {type(pool).__name__}: KeyPool(['key-1'])."
            )
        super().__init__(app)
        self._pool = pool
        self._header = header.lower().encode("latin-1")
        if scheme is None:
            scheme = "Bearer" if self._header == b"authorization" else ""
        self._lead = f"{scheme} " if scheme else ""
        self._clock = clock
        self._refusals = _Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one scope on with a key, or answer that there is none."""
        if scope["type"] not in ("http", "websocket"):
            await self._other(scope, receive, send)
            return
        named = _asgi.header(scope, b"x-auth-id") or ""
        affinity = _asgi.header(scope, b"x-session-affinity") or ""
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        try:
            lease = await self._pool.acquire(key_id=named, affinity=affinity, among=principal.keys)
        except NoKeyError as error:
            await _refuse(scope, receive, send, error)
            return
        with lease:
            watched = _Judge(lease, send, self._refusals, self._clock)
            await self.app(self._with_key(scope, lease), receive, watched.send)

    def _with_key(self, scope: Scope, lease: Lease) -> Scope:
        shown = presented(scope)
        headers: RawHeaders = without(scope["headers"], shown)
        ours = (self._header.replace(b"_", b"-"), b"x-auth-id")  # WSGI takes both for the same
        headers = [pair for pair in headers if pair[0].replace(b"_", b"-") not in ours]
        headers.append((self._header, f"{self._lead}{lease.key.secret}".encode("latin-1")))
        injected = {
            **scope,
            "headers": headers,
            "query_string": query_without(scope.get("query_string", b""), shown),
            INJECTED: lease.key.id,
        }
        if "subprotocols" in scope:
            injected["subprotocols"] = subprotocols_without(scope["subprotocols"], shown)
        return injected


class _Refusals:
    """How often each key was refused in a row."""

    _ROW = 3

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def held_against(self, key_id: str, status: int) -> bool:
        """Whether an answer of this status says something of the key, and not of its path."""
        if status not in (401, 402):
            if status != 429 and status < 500:
                self._rows[key_id] = 0
            return True
        self._rows[key_id] = row = self._rows.get(key_id, 0) + 1
        return row >= self._ROW and 0 in self._rows.values()


class _Judge:
    """Sees the answer on its way, and judges the key by it."""

    _STARTS = frozenset(
        {"http.response.start", "websocket.accept", "websocket.http.response.start"}
    )

    def __init__(
        self, lease: Lease, send: Send, refusals: _Refusals, clock: Callable[[], float]
    ) -> None:
        self._lease = lease
        self._send = send
        self._refusals = refusals
        self._clock = clock
        self._blot = blot(lease.key.secret)
        self._body: BlotStream | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] in self._STARTS:
            headers: RawHeaders = list(message.get("headers", ()))
            told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
            status, now = message.get("status", 101), self._clock()
            fair = self._refusals.held_against(self._lease.key.id, status)
            if status < 400:
                self._lease.settle(status)
                self._lease.learn(told, now)
            elif fair:
                self._lease.settle(status, retry_after(told, now))
            if self._blot is not None:
                headers = self._blot.headers(headers)
                self._body = BlotStream(self._blot) if status >= 300 else None
            headers = [pair for pair in headers if pair[0] != b"x-auth-id"]
            headers.append((b"x-auth-id", self._lease.key.id.encode("latin-1", "replace")))
            message = {**message, "headers": headers}
        elif self._body is not None and message["type"].endswith(".body"):
            data = self._body.feed(message.get("body", b""))
            if not message.get("more_body", False):
                data += self._body.close()
            message = {**message, "body": data}
        elif message["type"] == "websocket.close" and self._blot is not None:
            reason = (message.get("reason") or "").encode()
            message = {**message, "reason": self._blot.data(reason).decode()}
        await self._send(message)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: NoKeyError) -> None:
    headers: RawHeaders = []
    if error.unknown:
        failure = APIError(Kind.UNAUTHORIZED, str(error), code="no_key")
    else:
        failure = APIError(Kind.LIMITED, "All keys are resting or busy.")
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after + 0.5))))
    body = OPENAI_CHAT.encode_error(failure)
    if scope["type"] == "websocket":
        await _asgi.refuse_websocket(scope, receive, send, failure.status, body, headers)
        return
    with suppress(ClientGoneError):
        await _asgi.answer(send, failure.status, body, headers)
