"""Send responses to the client: event streams with keep-alives, and whole bodies.

A stream waits for the provider without a task of its own for keep-alives: the shared timer polls
`SSEResponder.tick`. When nothing was written for half the keep-alive interval, a task writes the
keep-alive of the client's dialect (and the head of the response, if it was not sent yet); regular
writes wait for that task, so that events never interleave.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Awaitable, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, RawHeaders, Send
from asgi_aiproxy._cancellation import ClientGoneError, Deadline
from asgi_aiproxy._control_headers import key_headers
from asgi_aiproxy._request_id import named
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import AIProxyError, APIError, internal_error
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.exchange.relay import CommittedResponse
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.exchange.targets import allowed_targets
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.providers.vendor_headers import RATE_LIMIT_PREFIXES, RESPONSE_HEADERS

logger = logging.getLogger("asgi_aiproxy")

# Limits of the header `aiproxy-ignored` in characters: reverse proxies accept a few kilobytes of
# headers in all.
_MAX_MEMBER_LENGTH, _MAX_MEMBERS_LENGTH = 100, 1000
_NOT_PRINTABLE_ASCII = re.compile(r"[^ -~]")

_UNLIMITED = nullcontext()
_TOTAL_TIMEOUT = "The request took too long."
_ABORTED_MESSAGE = "The provider's response ended before it was complete."


class SSEResponder:
    """Sends an event stream, with keep-alives while the provider is silent.

    `total` limits the whole exchange in seconds (None: no limit). After `keepalive` seconds without
    data the client is sent a keep-alive (0: never).
    """

    def __init__(
        self,
        send: Send,
        face: InboundDialect,
        exchange: Exchange,
        *,
        total: float | None,
        keepalive: float,
    ) -> None:
        self._send = send
        self._face = face
        self._exchange = exchange
        self._total = total
        self._check_interval = keepalive / 2 if face.keepalive is not None else 0.0
        self._started = False
        self._wrote_since_check = True
        self._check_due: float | None = None
        self._keepalive_task: asyncio.Task[None] | None = None
        self._timer = exchange.monitor.timer
        self._context = contextvars.copy_context()

    async def run(self) -> None:
        """Send the whole stream. Raises APIError only if nothing was sent."""
        exchange, total = self._exchange, self._total
        if self._check_interval > 0:
            self._timer.add(self)
        try:
            try:
                with Deadline(total, _TOTAL_TIMEOUT) if total is not None else _UNLIMITED:
                    committed = await exchange.open()
                    if self._keepalive_task is not None:
                        await self._wait_for_keepalive()
                    if not self._started:
                        await self._start(_headers(committed, exchange.request_id))
                    out = await exchange.pump(self._write, committed.first)
            except ClientGoneError:
                raise
            except Exception as error:
                out = await self._error_event(error)
            self._timer.remove(self)
            await exchange.close()
            if exchange.written is not None and exchange.finished:
                out += exchange.receipts.end_of_stream(exchange.written, self._face)
            if self._keepalive_task is not None:
                await self._wait_for_keepalive()
            await _send_message(
                self._send, {"type": "http.response.body", "body": out, "more_body": False}
            )
        finally:
            self._timer.remove(self)
            if self._keepalive_task is not None:
                self._keepalive_task.cancel()

    async def _error_event(self, error: Exception) -> bytes:
        """The event that ends a stream with an error. Raises the error if nothing was sent."""
        id = self._exchange.request_id
        failure = error if isinstance(error, APIError) else internal_error(id)
        failure.request_id = id
        self._exchange.fail(failure)
        await self._wait_for_keepalive()
        if not self._started:
            raise error
        if failure is not error:
            logger.error(
                "request %s: the gateway failed while it streamed the response", id, exc_info=error
            )
        return self._face.encode_stream_error(failure)

    async def _start(self, headers: RawHeaders) -> None:
        self._started = True
        start = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *headers,
        ]
        await _send_message(
            self._send, {"type": "http.response.start", "status": 200, "headers": start}
        )

    def _write(self, out: bytes) -> Awaitable[None]:
        self._wrote_since_check = True
        message = {"type": "http.response.body", "body": out, "more_body": True}
        return self._send(message) if self._keepalive_task is None else self._write_next(message)

    async def _write_next(self, message: Message) -> None:
        await self._wait_for_keepalive()
        await self._send(message)

    async def _wait_for_keepalive(self) -> None:
        """Wait until a keep-alive that is being written is finished."""
        if self._keepalive_task is not None:
            await asyncio.wait((self._keepalive_task,))

    def tick(self, now: float) -> None:
        """Send a keep-alive if nothing was written since the last check, and the client reads."""
        if self._check_due is None or now < self._check_due:
            self._check_due = self._check_due or now + self._check_interval
            return
        self._check_due = now + self._check_interval
        idle = (
            not self._wrote_since_check
            and not self._exchange.monitor.writing_to_client
            and self._keepalive_task is None
        )
        if idle:
            task = self._timer.loop.create_task(self._send_keepalive(), context=self._context)
            self._keepalive_task = None if task.done() else task  # eager tasks may be done
        self._wrote_since_check = idle  # the keep-alive counts as written

    async def _send_keepalive(self) -> None:
        try:
            if not self._started:
                await self._start([named(self._exchange.request_id)])
            message = {"body": self._face.keepalive, "more_body": True}
            await _send_message(self._send, {"type": "http.response.body", **message})
        except ClientGoneError:
            pass  # the next write raises it again
        finally:
            self._keepalive_task = None


def streams_events(call: GatewayRequest, router: Router) -> bool:
    """Whether the response to an operation besides chat certainly is an event stream."""
    if not call.operation.converts:
        return False
    from asgi_aiproxy.exchange import conversions  # (with all operations)

    try:
        return conversions.streams_events(call, allowed_targets(router, call))
    except APIError:  # the exchange will fail with it
        return False


async def send_whole(send: Send, exchange: Exchange, *, total: float | None) -> None:
    """Send a response that is not an event stream.

    Raises APIError only if nothing was sent, and ResponseAbortedError after that.
    """
    started = False
    try:
        with Deadline(total, _TOTAL_TIMEOUT) if total is not None else _UNLIMITED:
            committed = await exchange.open()
            media_type = committed.media_type.encode("latin-1") or b"application/json"
            headers = _headers(committed, exchange.request_id)
            if not committed.whole:
                started = True
                start = [(b"content-type", media_type), *headers]
                await _send_message(
                    send, {"type": "http.response.start", "status": 200, "headers": start}
                )
                out = await exchange.pump(partial(_send_piece, send), committed.first)
            else:
                out = committed.first
    except ClientGoneError:
        raise
    except Exception as error:
        exchange.fail(error if isinstance(error, APIError) else internal_error())
        if not started:
            raise
        raise ResponseAbortedError(_ABORTED_MESSAGE) from error
    await exchange.close()
    if not started:
        if exchange.written is not None:
            headers += exchange.receipts.headers(exchange.written)
        await _asgi.send_response(send, 200, out, headers, media_type)
    elif exchange.finished:
        await _send_message(send, {"type": "http.response.body", "body": out, "more_body": False})
    else:
        # This content type has no error event: abort, so that the client sees it is incomplete.
        raise ResponseAbortedError(_ABORTED_MESSAGE)


class ResponseAbortedError(AIProxyError):
    """A response failed after its start and cannot carry an error event.

    It is raised out of the app, so that the server closes the connection.
    """


def _send_piece(send: Send, out: bytes) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": out, "more_body": True})


async def _send_message(send: Send, message: Message) -> None:
    try:
        await send(message)
    except OSError as error:
        raise ClientGoneError("The client disconnected.") from error


def _headers(committed: CommittedResponse, id: str) -> RawHeaders:
    """The response headers: the provider's that are forwarded, and the gateway's own."""
    headers = [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in committed.headers
        if name in RESPONSE_HEADERS or name.startswith(RATE_LIMIT_PREFIXES)
    ]
    if headers and committed.redactor is not None:
        headers = committed.redactor.headers(headers)
    headers.append(named(id))
    headers += _origin(committed.provider, committed.key_id)
    if committed.estimated:
        headers.append((b"aiproxy-estimated", b"true"))
    if committed.emulated:
        headers.append((b"aiproxy-emulated", ", ".join(committed.emulated).encode()))
    if committed.ignored:
        headers.append((b"aiproxy-ignored", _ignored_members(committed.ignored)))
    return headers


@lru_cache(maxsize=1024)
def _origin(provider: str, key_id: str) -> RawHeaders:
    """The headers that name the provider and the key that served."""
    return [
        (b"aiproxy-provider", provider.encode("latin-1", "replace")),
        *key_headers(key_id),
    ]


def _ignored_members(members: Sequence[str]) -> bytes:
    """The value of `aiproxy-ignored`. Names come from the caller: they are cut and made ASCII."""
    out, remaining = "", len(members)
    for name in members:
        shown = _NOT_PRINTABLE_ASCII.sub("?", name[:_MAX_MEMBER_LENGTH])
        if len(out) + len(shown) > _MAX_MEMBERS_LENGTH:
            return f"{out}, and {remaining} more".encode()
        out = f"{out}, {shown}" if out else shown
        remaining -= 1
    return out.encode()
