"""Answers on their way out: streams with their keep-alives, whole bodies, errors."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager, nullcontext

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, RawHeaders, Receive, Scope, Send
from asgi_aiproxy._cancellation import ClientGoneError, Deadline
from asgi_aiproxy._request_id import named, request_id
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import AIProxyError, APIError, internal_error
from asgi_aiproxy.exchange.engine import CommittedResponse, Exchange

logger = logging.getLogger("asgi_aiproxy")

# What of a provider's headers its client sees: ids to quote to support, and limits to heed.
_PASSED = frozenset(
    {"x-request-id", "request-id", "openai-processing-ms", "openai-version", "openai-model"}
    | {"retry-after", "retry-after-ms", "x-should-retry", "cf-ray", "apim-request-id"}
)
_PASSED_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")

# Proxies before us give a head of headers a few kilobytes.
_MAX_NAME, _MAX_NAMES = 100, 1000
_UNFIT = re.compile(r"[^ -~]")

_UNLIMITED = nullcontext()
_TOO_LONG = "The call took too long."
_BROKE = "The provider broke off in the middle of its answer."


class SSEResponder:
    """Sends a stream; while its provider is silent the client hears something now and then."""

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
        self._every = keepalive / 2 if face.keepalive is not None else 0.0
        self._begun = False
        self._wrote = True
        self._due: float | None = None
        self._ping: asyncio.Task[None] | None = None
        self._rounds = exchange.watch.rounds
        self._context = contextvars.copy_context()

    async def run(self) -> None:
        """Send the whole stream. Raises APIError as long as nothing was sent."""
        if self._every > 0:
            self._rounds.add(self)
        try:
            out = await self._content()
            self._rounds.watched.discard(self)
            await self._exchange.close()
            if self._ping is not None:
                await self._quiet()
            await _say(self._send, {"type": "http.response.body", "body": out, "more_body": False})
        finally:
            self._rounds.watched.discard(self)
            if self._ping is not None:
                self._ping.cancel()

    async def _content(self) -> bytes:
        """Send all but the last piece."""
        try:
            with _within(self._total):
                reply = await self._exchange.open()
                if self._ping is not None:
                    await self._quiet()
                await self._start(_headers(reply, self._exchange.request_id))
                return await self._exchange.pump(self._write, reply.first)
        except APIError as error:
            error.request_id = self._exchange.request_id
            self._exchange.fail(error)
            await self._quiet()
            if not self._begun:
                raise
            return self._face.encode_stream_error(error)
        except ClientGoneError:
            raise
        except Exception:
            failure = internal_error(self._exchange.request_id)
            self._exchange.fail(failure)
            if not self._begun:
                raise
            told = self._exchange.request_id
            logger.exception("request %s: the answer broke within the gateway", told)
            return self._face.encode_stream_error(failure)

    async def _start(self, headers: RawHeaders) -> None:
        if self._begun:
            return
        self._begun = True
        start = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *headers,
        ]
        await _say(self._send, {"type": "http.response.start", "status": 200, "headers": start})

    def _write(self, out: bytes) -> Awaitable[None]:
        self._wrote = True
        message = {"type": "http.response.body", "body": out, "more_body": True}
        return self._send(message) if self._ping is None else self._write_next(message)

    async def _write_next(self, message: Message) -> None:
        await self._quiet()
        await self._send(message)

    async def _quiet(self) -> None:
        """Wait until nothing is being said to pass the time."""
        if self._ping is not None:
            await asyncio.wait((self._ping,))

    def tick(self, now: float) -> None:
        """Ping if nothing was said since the last look, and the client reads what is said."""
        if self._due is None or now < self._due:
            self._due = self._due or now + self._every
            return
        self._due = now + self._every
        ping = not self._wrote and not self._exchange.watch.busy and self._ping is None
        if ping:
            pinging = self._rounds.loop.create_task(self._pass_time(), context=self._context)
            self._ping = None if pinging.done() else pinging  # an eager one may be
        self._wrote = ping  # that is something said, too

    async def _pass_time(self) -> None:
        try:
            await self._start([named(self._exchange.request_id)])
            message = {"body": self._face.keepalive, "more_body": True}
            await _say(self._send, {"type": "http.response.body", **message})
        except ClientGoneError:
            pass  # whoever writes next is told
        finally:
            self._ping = None


async def send_whole(send: Send, exchange: Exchange, *, total: float | None) -> None:
    """Send an answer that is no event stream. Raises APIError as long as nothing was sent."""
    begun = False

    async def write(out: bytes) -> None:
        await send({"type": "http.response.body", "body": out, "more_body": True})

    try:
        with _within(total):
            reply = await exchange.open()
            media_type = reply.media_type.encode("latin-1") or b"application/json"
            headers = _headers(reply, exchange.request_id)
            if not reply.whole:
                begun = True
                start = [(b"content-type", media_type), *headers]
                await _say(send, {"type": "http.response.start", "status": 200, "headers": start})
            out = await exchange.pump(write, reply.first)
    except ClientGoneError:
        raise
    except Exception as error:
        exchange.fail(error if isinstance(error, APIError) else internal_error())
        if not begun:
            raise
        raise ResponseAbortedError(_BROKE) from error
    await exchange.close()
    if not begun:
        await _asgi.send_response(send, 200, out, headers, media_type)
    elif exchange.finished:
        await _say(send, {"type": "http.response.body", "body": out, "more_body": False})
    else:
        # These bytes have no word for an error: break off, so that nobody takes them for whole.
        raise ResponseAbortedError(_BROKE)


class ResponseAbortedError(AIProxyError):
    """An answer that can not be told to be broken broke: the server must cut the connection."""


def _within(seconds: float | None) -> AbstractContextManager[object]:
    """A limit for the whole call, if there is one."""
    return Deadline(seconds, _TOO_LONG) if seconds is not None else _UNLIMITED


async def _say(send: Send, message: Message) -> None:
    try:
        await send(message)
    except OSError as error:
        raise ClientGoneError("The client left.") from error


async def send_error(
    send: Send, face: InboundDialect, error: APIError, *, last: bool = False
) -> None:
    """Send an error in the client's own dialect; `last` has its connection closed (HTTP/1.x)."""
    body = error.body if error.body is not None else face.encode_error(error)
    headers = _asgi.error_headers(error)
    if last:
        headers.append((b"connection", b"close"))
    await _asgi.send_response(send, error.status, body, headers)


async def refuse_websocket(
    scope: Scope, receive: Receive, send: Send, face: InboundDialect, error: APIError
) -> None:
    """Refuse the handshake of a WebSocket with an error in the client's own dialect."""
    error.request_id = request_id(scope)
    headers = _asgi.error_headers(error)
    await _asgi.refuse_websocket(
        scope, receive, send, error.status, face.encode_error(error), headers
    )


def _headers(reply: CommittedResponse, id: str) -> RawHeaders:
    """What the client learns of who answered, and of the provider's headers."""
    headers = [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in reply.headers
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    ]
    if headers and reply.blot is not None:
        headers = reply.blot.headers(headers)
    headers.append(named(id))
    headers.append((b"aiproxy-provider", reply.provider.encode("latin-1", "replace")))
    if reply.key_id:
        headers.append((b"x-auth-id", reply.key_id.encode("latin-1", "replace")))
    if reply.ignored:
        headers.append((b"aiproxy-ignored", _members(reply.ignored)))
    return headers


def _members(members: Sequence[str]) -> bytes:
    """Members of a request for a header: a caller can name them as it likes."""
    out, left = "", len(members)
    for name in members:
        shown = _UNFIT.sub("?", name[:_MAX_NAME])
        if len(out) + len(shown) > _MAX_NAMES:
            return f"{out}, and {left} more".encode()
        out = f"{out}, {shown}" if out else shown
        left -= 1
    return out.encode()
