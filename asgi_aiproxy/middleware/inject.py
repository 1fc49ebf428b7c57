"""`InjectKey`: replace the caller's credential with an API key of a pool."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from asgi_aiproxy._asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._control_headers import KEY, KEY_HEADERS, SESSION, control_header, key_headers
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
from asgi_aiproxy.errors import APIError, ConfigurationError, require_int_at_least
from asgi_aiproxy.exchange.error_mapping import no_key_error
from asgi_aiproxy.keys import KeyPool, Lease, NoKeyError
from asgi_aiproxy.middleware.base import Middleware
from asgi_aiproxy.middleware.error_format import send_error_for
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.retry_after import retry_after
from asgi_aiproxy.upstream.content_encoding import decode_body

logger = logging.getLogger("asgi_aiproxy")


class InjectKey(Middleware):
    """Adds an API key of `pool` to each request for `app`, HTTP and WebSocket.

    The caller's own credential is removed from headers, query and subprotocols. The key goes into
    `header`, after `scheme` (by default `Bearer` in `authorization`, nothing elsewhere). It is
    leased until the response has ended, and judged by the status of the response and by its
    rate-limit headers. An application may refuse every key at some path, so a key cools down after
    401 or 402 only if it got them three times in a row, and another key was accepted the last time
    it was used. `aiproxy-key` names the key in the response; in a request it selects one.

    The key is redacted from response headers, from the bodies of responses that are no success
    (compressed ones are decoded for it, up to 256 KiB, and lose their body if that fails), from
    lines of a success that report an error, and from WebSocket messages. A compressed success is
    not inspected.

    A request that is answered with 429, 401 or 402 is repeated with another key while there is one
    (for 401 and 402, with three keys at most): the app gets the same request again, and the first
    response is dropped. For that the request body is kept, up to `max_replay` bytes: a request with
    a longer body is not repeated, and neither is one whose caller selected the key.

    `clock` returns Unix time in seconds. Raises ConfigurationError if `pool` is not a KeyPool.

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
                f"InjectKey: pool must be a KeyPool, not {type(pool).__name__}: KeyPool(['key-1'])."
            )
        require_int_at_least(0, max_replay=max_replay)
        super().__init__(app)
        self._pool = pool
        self._max_replay = max_replay
        self._header = header.lower().encode("latin-1")
        if scheme is None:
            scheme = "Bearer" if self._header == b"authorization" else ""
        self._prefix = f"{scheme} " if scheme else ""
        self.clock = clock
        self.refusals = _RefusalCounter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI scope on with a key, or answer that no key is available."""
        if scope["type"] not in ("http", "websocket"):
            await self._pass_other_scope(scope, receive, send)
            return
        try:
            selected_key_id = control_header(scope["headers"], KEY)
            affinity = control_header(scope["headers"], SESSION)
        except APIError as error:
            await send_error_for(scope, receive, send, error)
            return
        principal: Principal = scope.get(SCOPE_KEY) or ANONYMOUS
        id, tried_key_ids = request_id(scope), set[str]()
        request = _ReplayableRequest(receive, -1 if selected_key_id else self._max_replay)

        async def acquire() -> Lease:
            return await self._pool.acquire(
                key_id=selected_key_id,
                affinity=affinity,
                exclude=tried_key_ids,
                among=principal.keys,
                caller=principal.id,
            )

        async def next_key(status: int) -> Lease | None:
            """A key to repeat the request with; None if there is none, or it cannot be repeated."""
            if not request.replayable or (status != 429 and len(tried_key_ids) >= _MAX_REFUSED):
                return None
            try:
                lease = await acquire()
            except NoKeyError:
                return None
            values = id, self._pool.name, status, lease.key.id
            logger.info("request %s: a key of pool %s got HTTP %d, next is %s", *values)
            return lease

        try:
            lease = await acquire()
        except NoKeyError as error:
            failure = no_key_error(error, "", "", owner=f"the pool {self._pool.name!r}")
            await send_error_for(scope, receive, send, failure)
            return

        def observe(lease: Lease) -> _ResponseObserver:
            tried_key_ids.add(lease.key.id)
            return _ResponseObserver(self, lease, send, id, next_key)

        await self._call_with_keys(scope, request, lease, observe)

    async def _call_with_keys(
        self,
        scope: Scope,
        request: _ReplayableRequest,
        lease: Lease,
        observe: Callable[[Lease], _ResponseObserver],
    ) -> None:
        """Call the app with a key, and with the next one while the response refuses it."""
        refused: list[tuple[Lease, int]] = []
        # A refused key is kept until it is known whether another key is accepted.
        with ExitStack() as leases:
            while True:
                leases.enter_context(lease)
                response = observe(lease)
                try:
                    await self.app(self._with_key(scope, lease), request.reader(), response.send)
                except BaseException:
                    if response.next_lease is not None:
                        response.next_lease.cancel()
                    raise
                if response.next_lease is None:
                    break
                if response.status != 429:
                    refused.append((lease, response.status))
                lease = response.next_lease
            if 0 < response.status < 400:
                for earlier, status in refused:
                    earlier.report(status)

    def _with_key(self, scope: Scope, lease: Lease) -> Scope:
        """The scope with the key in place of the caller's credential."""
        presented = presented_credentials(scope)
        headers: RawHeaders = strip_credentials(scope["headers"], presented)
        # WSGI does not distinguish "_" from "-" in header names.
        replaced = (self._header.replace(b"_", b"-"), *KEY_HEADERS)
        headers = [pair for pair in headers if pair[0].replace(b"_", b"-") not in replaced]
        headers.append((self._header, f"{self._prefix}{lease.key.secret}".encode("latin-1")))
        injected = {
            **scope,
            "headers": headers,
            "query_string": strip_from_query(scope.get("query_string", b""), presented),
            INJECTED: lease.key.id,
        }
        if "subprotocols" in scope:
            injected["subprotocols"] = strip_from_subprotocols(scope["subprotocols"], presented)
        return injected

    def with_retry_after(self, status: int, headers: RawHeaders) -> RawHeaders:
        """The headers of a 429, with the seconds until the pool has a key again."""
        wait = self._pool.soonest()
        if status != 429 or not 0 < wait < float("inf"):
            return headers
        seconds = b"%d" % max(1, math.ceil(wait))
        kept = [pair for pair in headers if pair[0].lower() not in _RETRY_AFTER]
        return [*kept, (b"retry-after", seconds)]


NextKey = Callable[[int], Awaitable[Lease | None]]

_REFUSED = frozenset({401, 402, 429})
_MAX_REFUSED = 3  # keys that one request tries while all of them are refused
_RETRY_AFTER = frozenset({b"retry-after", b"retry-after-ms"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_MAX_COMPRESSED_ERROR = 256 * 1024  # bytes, compressed and decoded alike


class _RefusalCounter:
    """Counts how often each key was refused in a row."""

    _MIN_REFUSALS_IN_A_ROW = 3

    def __init__(self) -> None:
        self._refusals_in_a_row: dict[str, int] = {}

    def is_about_key(self, key_id: str, status: int) -> bool:
        """Record a response; return whether its status is about the key, and not about the path."""
        counts = self._refusals_in_a_row
        if status not in (401, 402):
            if status != 429 and status < 500:
                counts[key_id] = 0
            return True
        counts[key_id] = count = counts.get(key_id, 0) + 1
        return count >= self._MIN_REFUSALS_IN_A_ROW and 0 in counts.values()


class _ResponseObserver:
    """Passes a response on without the key, and judges the key by it."""

    _START_TYPES = frozenset(
        {"http.response.start", "websocket.accept", "websocket.http.response.start"}
    )

    def __init__(
        self, owner: InjectKey, lease: Lease, send: Send, id: str, next_key: NextKey
    ) -> None:
        self._owner = owner
        self._lease = lease
        self._send = send
        self._request_id = id
        self._next_key = next_key
        self._redactor = redactor_for(lease.key.secret)
        self._body: StreamRedactor | BlotErrors | None = None
        self._compressed: _CompressedError | None = None
        self.status = 0
        self.next_lease: Lease | None = None  # the key to repeat the request with

    async def send(self, message: Message) -> None:
        """Pass a message on, unless the request is repeated."""
        kind = message["type"]
        if self.next_lease is not None:
            return
        if kind in self._START_TYPES:
            start = await self._start(message)
            if start is None:
                return
            message = start
        elif self._compressed is not None:
            compressed = self._compressed
            if kind.endswith(".body"):
                compressed.feed(message.get("body", b""))
                if message.get("more_body", False):
                    return
                compressed.decode()
                message = {**message, "body": compressed.body}
            # (Otherwise an extension of the server sends the body: a file.)
            self._compressed = self._body = None
            await self._send(compressed.start)
        elif self._redactor is not None:
            message = self._redacted(message, self._redactor)
        await self._send(message)

    async def _start(self, message: Message) -> Message | None:
        """The message that starts a response; None if it is not to be sent now."""
        headers: RawHeaders = list(message.get("headers", ()))
        self.status = status = message.get("status", 101)
        self._judge(status, headers)
        if status in _REFUSED:
            self.next_lease = await self._next_key(status)
            if self.next_lease is not None:
                return None
            headers = self._owner.with_retry_after(status, headers)
        redactor = self._redactor
        if redactor is not None:
            headers = redactor.headers(headers)
            self._body = (StreamRedactor if status >= 300 else BlotErrors)(redactor)
        headers = [
            pair for pair in with_id(headers, self._request_id) if pair[0] not in KEY_HEADERS
        ]
        headers += key_headers(self._lease.key.id)
        message = {**message, "headers": headers}
        if redactor is not None and status >= 300 and _is_compressed(headers):
            self._compressed = _CompressedError(message, redactor)
            return None
        return message

    def _redacted(self, message: Message, redactor: SecretRedactor) -> Message:
        """A message that follows the start, without the key."""
        kind = message["type"]
        if self._body is not None and kind.endswith(".body"):
            data = message.get("body", b"")
            errors = self._body if isinstance(self._body, BlotErrors) else None
            if errors is None or errors.held or errors.marks(data):
                data = self._body.feed(data)
            if not message.get("more_body", False):
                data += self._body.close()
            return {**message, "body": data}
        if kind == "websocket.close":
            return {**message, "reason": redactor.text(message.get("reason") or "")}
        if kind == "websocket.send":
            return _redacted_message(message, redactor)
        return message

    def _judge(self, status: int, headers: RawHeaders) -> None:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        now = self._owner.clock()
        about_key = self._owner.refusals.is_about_key(self._lease.key.id, status)
        if status < 400:
            self._lease.report(status)
            self._lease.update_from_headers(pairs, now)
        elif about_key:
            self._lease.report(status, retry_after(pairs, now))


class _CompressedError:
    """A compressed response that may quote the key: held until its end, then decoded and redacted.

    A body that cannot be decoded, or is longer than 256 KiB, is dropped.
    """

    def __init__(self, start: Message, redactor: SecretRedactor) -> None:
        self.start = start
        self.body = b""
        self._redactor = redactor
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Hold some more of the body."""
        self._size += len(data)
        if self._size > _MAX_COMPRESSED_ERROR:
            self._pieces.clear()
        else:
            self._pieces.append(data)

    def decode(self) -> None:
        """Set the headers of `start`, and `body`, to what can be shown."""
        if not self._size:  # a response to HEAD, or a 304: its headers describe another response
            return
        raw: RawHeaders = self.start["headers"]
        headers, body = decode_body(
            [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw],
            b"".join(self._pieces),
            max_decoded=_MAX_COMPRESSED_ERROR,
        )
        self.body = self._redactor.data(body)
        headers = [pair for pair in headers if pair[0] not in _FRAMING]
        headers.append(("content-length", str(len(body))))
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.start = {**self.start, "headers": raw}


def _is_compressed(headers: RawHeaders) -> bool:
    for name, value in headers:
        if name.lower() == b"content-encoding":
            return value.strip().lower() not in (b"", b"identity")
    return False


def _redacted_message(message: Message, redactor: SecretRedactor) -> Message:
    """A message of a WebSocket without the key."""
    text, data = message.get("text"), message.get("bytes")
    if text is not None and may_quote(text):
        return {**message, "text": redactor.text(text)}
    if data is not None and data[:1] == b"{" and may_quote(data):
        return {**message, "bytes": redactor.data(data)}
    return message


class _ReplayableRequest:
    """The messages of a request, kept up to a number of bytes so that they can be read again.

    `limit` below zero keeps none.
    """

    _KEPT_TYPES = frozenset({"http.request", "websocket.connect"})

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._remaining_bytes = limit
        self._kept: list[Message] = []
        self.replayable = limit >= 0  # whether all messages read so far can be read again

    def reader(self) -> Receive:
        """A `receive` that begins with the messages read before."""
        position = 0

        async def read() -> Message:
            nonlocal position
            if position < len(self._kept):
                position += 1
                return self._kept[position - 1]
            message = await self._receive()
            if self.replayable and message["type"] in self._KEPT_TYPES:
                self._remaining_bytes -= len(message.get("body", b""))
                if self._remaining_bytes < 0:
                    self.replayable = False
                    self._kept.clear()
                else:
                    self._kept.append(message)
                    position += 1
            return message

        return read
