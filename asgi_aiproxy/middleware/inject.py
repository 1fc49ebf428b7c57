"""`InjectKey`: requests reach the app behind with a key of a pool, not with the caller's."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._request_id import request_id, with_id
from asgi_aiproxy.credentials import (
    INJECTED,
    BlotErrors,
    SecretRedactor,
    StreamRedactor,
    may_quote,
    presented_credentials,
    redactor_for,
    strip_credentials,
    strip_from_query,
    strip_from_subprotocols,
)
from asgi_aiproxy.errors import ConfigurationError, require_int_at_least
from asgi_aiproxy.exchange.error_mapping import no_key_error
from asgi_aiproxy.keys import KeyPool, Lease, NoKeyError
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.retry_after import retry_after

logger = logging.getLogger("asgi_aiproxy")


class InjectKey(Middleware):
    """Puts a key of `pool` into each request for `app`, HTTP and WebSocket.

    The caller's own credential is taken out wherever it stands: headers, query, subprotocols. The
    key goes into `header`, after `scheme` (by default `Bearer` in `authorization`, nothing
    elsewhere). It is judged by the answer, its status and what its headers tell of the key's
    limits, and held until the answer has ended. An application may refuse all keys at some path, so
    401 and 402 put a key to rest when it got them three times in a row, and another key did not
    the last time that it was used. `x-auth-id` names the key, in the answer, and in a request that
    wishes for one. Callers do not see it: it is blotted out of headers, of the
    bodies of answers that are no success, of lines of a success that tell of an error, and of
    messages of WebSockets (what the application compresses is not looked into).

    A request that is answered with 429, 401 or 402 is made again with another key, as long as there
    is one (of 401 and 402, three keys are asked at most): the app gets the same request once more,
    and the first answer is dropped. For that its body is kept, up to `max_replay` bytes: one that
    is longer is not made again, and neither is one whose caller named the key.

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
        max_replay: int = 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(pool, KeyPool):
            raise ConfigurationError(
                f"InjectKey: pool is a KeyPool, not {type(pool).__name__}: KeyPool(['key-1'])."
            )
        require_int_at_least(0, max_replay=max_replay)
        super().__init__(app)
        self._pool = pool
        self._max_replay = max_replay
        self._header = header.lower().encode("latin-1")
        if scheme is None:
            scheme = "Bearer" if self._header == b"authorization" else ""
        self._lead = f"{scheme} " if scheme else ""
        self.clock = clock
        self.refusals = _RefusalCounter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one scope on with a key, or answer that there is none."""
        if scope["type"] not in ("http", "websocket"):
            await self._other(scope, receive, send)
            return
        named = _asgi.header(scope, b"x-auth-id") or ""
        affinity = _asgi.header(scope, b"x-session-affinity") or ""
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        id, tried = request_id(scope), set[str]()
        asked = _Asked(receive, self._max_replay if not named else -1)

        async def acquire() -> Lease:
            return await self._pool.acquire(
                key_id=named, affinity=affinity, exclude=tried, among=principal.keys
            )

        async def another(status: int) -> Lease | None:
            """A key for the same request, if there is one and the request can be made again."""
            if asked.lost or (status != 429 and len(tried) >= _FEW):
                return None
            try:
                found = await acquire()
            except NoKeyError:
                return None
            told = id, self._pool.name, status, found.key.id
            logger.info("request %s: a key of pool %s got HTTP %d, next is %s", *told)
            return found

        try:
            lease = await acquire()
        except NoKeyError as error:
            failure = no_key_error(error, "", "", owner=f"the pool {self._pool.name!r}")
            await send_error_for(scope, receive, send, failure)
            return

        def judge(lease: Lease) -> _ResponseObserver:
            tried.add(lease.key.id)
            return _ResponseObserver(self, lease, send, id, another)

        await self._with_keys(scope, asked, lease, judge)

    async def _with_keys(
        self, scope: Scope, asked: _Asked, lease: Lease, judge: Callable[[Lease], _ResponseObserver]
    ) -> None:
        """Have the app answer with a key, and as long as that is refused with the next one."""
        refused: list[tuple[Lease, int]] = []
        with ExitStack() as held:  # a key that was refused is judged when it is known if others are
            while True:
                held.enter_context(lease)
                judged = judge(lease)
                try:
                    await self.app(self._with_key(scope, lease), asked.reader(), judged.send)
                except BaseException:
                    if judged.next is not None:
                        judged.next.cancel()
                    raise
                if judged.next is None:
                    break
                if judged.status != 429:
                    refused.append((lease, judged.status))
                lease = judged.next
            if 0 < judged.status < 400:
                for earlier, status in refused:
                    earlier.report(status)

    def _with_key(self, scope: Scope, lease: Lease) -> Scope:
        shown = presented_credentials(scope)
        headers: RawHeaders = strip_credentials(scope["headers"], shown)
        ours = (self._header.replace(b"_", b"-"), b"x-auth-id")  # WSGI takes both for the same
        headers = [pair for pair in headers if pair[0].replace(b"_", b"-") not in ours]
        headers.append((self._header, f"{self._lead}{lease.key.secret}".encode("latin-1")))
        injected = {
            **scope,
            "headers": headers,
            "query_string": strip_from_query(scope.get("query_string", b""), shown),
            INJECTED: lease.key.id,
        }
        if "subprotocols" in scope:
            injected["subprotocols"] = strip_from_subprotocols(scope["subprotocols"], shown)
        return injected

    def soonest(self, status: int, headers: RawHeaders) -> RawHeaders:
        """The headers of an answer, with the time at which the pool has a key again."""
        wait = self._pool.soonest()
        if status != 429 or not 0 < wait < float("inf"):
            return headers
        after = b"%d" % max(1, math.ceil(wait))
        kept = [pair for pair in headers if pair[0].lower() not in _WHEN]
        return [*kept, (b"retry-after", after)]


Another = Callable[[int], Awaitable[Lease | None]]

_REFUSED = frozenset({401, 402, 429})
_FEW = 3  # keys that are asked when all of them may be refused
_WHEN = frozenset({b"retry-after", b"retry-after-ms"})


class _RefusalCounter:
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


class _ResponseObserver:
    """Sees the answer on its way, and judges the key by it."""

    _STARTS = frozenset(
        {"http.response.start", "websocket.accept", "websocket.http.response.start"}
    )

    def __init__(
        self, owner: InjectKey, lease: Lease, send: Send, id: str, another: Another
    ) -> None:
        self._owner = owner
        self._lease = lease
        self._send = send
        self._id = id
        self._another = another
        self._blot = redactor_for(lease.key.secret)
        self._body: StreamRedactor | BlotErrors | None = None
        self.status = 0
        self.next: Lease | None = None  # the key for the same request once more

    async def send(self, message: Message) -> None:
        """Pass a message on, unless the request is made again."""
        if self.next is not None:
            return
        if message["type"] in self._STARTS:
            headers: RawHeaders = list(message.get("headers", ()))
            self.status = status = message.get("status", 101)
            self._judge(status, headers)
            if status in _REFUSED:
                self.next = await self._another(status)
                if self.next is not None:
                    return
                headers = self._owner.soonest(status, headers)
            if self._blot is not None:
                headers = self._blot.headers(headers)
                whole = status >= 300
                self._body = (StreamRedactor if whole else BlotErrors)(self._blot)
            headers = [pair for pair in with_id(headers, self._id) if pair[0] != b"x-auth-id"]
            headers.append((b"x-auth-id", self._lease.key.id.encode("latin-1", "replace")))
            message = {**message, "headers": headers}
        elif self._body is not None and message["type"].endswith(".body"):
            data = message.get("body", b"")
            errors = self._body if isinstance(self._body, BlotErrors) else None
            if errors is None or errors.held or errors.marks(data):
                data = self._body.feed(data)
            if not message.get("more_body", False):
                data += self._body.close()
            message = {**message, "body": data}
        elif message["type"] == "websocket.close" and self._blot is not None:
            message = {**message, "reason": self._blot.text(message.get("reason") or "")}
        elif message["type"] == "websocket.send" and self._blot is not None:
            message = self._shown(message, self._blot)
        await self._send(message)

    @staticmethod
    def _shown(message: Message, secret: SecretRedactor) -> Message:
        text, data = message.get("text"), message.get("bytes")
        if text is not None and may_quote(text):
            return {**message, "text": secret.text(text)}
        if data is not None and data[:1] == b"{" and may_quote(data):
            return {**message, "bytes": secret.data(data)}
        return message

    def _judge(self, status: int, headers: RawHeaders) -> None:
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        now = self._owner.clock()
        fair = self._owner.refusals.held_against(self._lease.key.id, status)
        if status < 400:
            self._lease.report(status)
            self._lease.update_from_headers(told, now)
        elif fair:
            self._lease.report(status, retry_after(told, now))


class _Asked:
    """A request's messages, kept as they come, so that they can be read again."""

    _KINDS = frozenset({"http.request", "websocket.connect"})

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self._kept: list[Message] = []
        self.lost = limit < 0  # whether what was read cannot be read again

    def reader(self) -> Receive:
        """A `receive` that begins with what was read before."""
        at = 0

        async def read() -> Message:
            nonlocal at
            if at < len(self._kept):
                at += 1
                return self._kept[at - 1]
            message = await self._receive()
            if not self.lost and message["type"] in self._KINDS:
                self._left -= len(message.get("body", b""))
                if self._left < 0:
                    self.lost = True
                    self._kept.clear()
                else:
                    self._kept.append(message)
                    at += 1
            return message

        return read
