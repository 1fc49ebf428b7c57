"""A WebSocket through the proxy: one to the client, one to the upstream, and what passes between.

The upstream is asked first, so that a client whose session would be refused is told so in its
handshake. https://www.rfc-editor.org/rfc/rfc6455
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import ssl
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from asgi_aiproxy._asgi import Message, RawHeaders, Receive, Scope, Send, deny_websocket
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._request_id import request_id, with_id
from asgi_aiproxy.credentials import SecretRedactor, may_quote
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY, AdmissionControl, must_inspect, settle
from asgi_aiproxy.keys import Key
from asgi_aiproxy.passthrough.admission import check_admission
from asgi_aiproxy.passthrough.context import ExchangeRecord, ProxyContext
from asgi_aiproxy.passthrough.headers import read_response_headers
from asgi_aiproxy.passthrough.inspection import models_outside_body
from asgi_aiproxy.passthrough.key_rotation import ProxyKeyRotation
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.passthrough.session_guard import SessionGuard
from asgi_aiproxy.passthrough.usage_meter import SessionUsage
from asgi_aiproxy.principal import ANONYMOUS
from asgi_aiproxy.providers.base import Auth
from asgi_aiproxy.upstream.base import Headers, UpstreamRequest
from asgi_aiproxy.upstream.connect import describe_error, tls
from asgi_aiproxy.usage.record import plausible_usage

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.http11 import Response

logger = logging.getLogger("asgi_aiproxy")

_AFTER = "retry-after"
_GOING_AWAY, _NOT_ALLOWED, _TOO_BIG, _BROKE, _TRY_AGAIN_LATER = 1001, 1008, 1009, 1011, 1013
_MAX_REASON = 123  # bytes (RFC 6455, 5.5)
_PATIENCE = 5.0  # seconds that the upstream has for its part of a good-bye
_QUEUE = 4  # messages of the upstream's that may wait for a slow client
_PROTOCOLS = "sec-websocket-protocol"


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """The longest message in bytes, the time to connect in seconds, and whom to trust besides."""

    max_message: int
    connect: float
    ca: str | Path | bytes | None = None


class WebSocketBridge:
    """One WebSocket of a client's. `refuse` it, or `run` it to its end."""

    def __init__(
        self,
        ways: ProxyContext,
        limits: WebSocketLimits,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._ways = ways
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._sum = SessionUsage()
        self._gate: AdmissionControl | None = scope.get(GATE_KEY)
        self._guard: SessionGuard | None = None

    async def refuse(self, face: InboundDialect, error: APIError) -> None:
        """Answer the handshake with an error."""
        await self._receive()
        headers = [(b"content-type", b"application/json")]
        await self._deny(error.status, face.encode_error(error), headers)

    async def run(self, asked: ProxyRequest) -> None:
        """Connect both sides, until one of them ends it."""
        books = ExchangeRecord(asked, self._ways.clock)
        gate = self._gate
        # What is said later is the upstream's: a model that is not in the URL is not known.
        fixed = asked.site.sessions.match_name("GET", asked.route.path) is not None
        models = [*asked.route.models, *_query(asked, "model")] if fixed else []
        books.model = models[0] if len(set(models)) == 1 else ""
        turns = ProxyKeyRotation(asked, affinity=asked.affinity, model=books.model)
        try:
            await self._receive()  # websocket.connect
            if not _installed():
                logger.error("WebSockets need a library: pip install 'asgi-aiproxy[realtime]'")
                message = "WebSockets are not installed here."
                raise APIError(ErrorKind.INTERNAL, message, status=501)
            asked.check_models(models, "no model is in the URL of this WebSocket")
            if asked.inspected:
                asked.check_models(models_outside_body(asked.query, asked.headers))
                priced = frozenset(models) if must_inspect(ANONYMOUS, gate) else None
                self._guard = SessionGuard(asked, priced)
            if gate is not None:
                await check_admission(gate, asked, (books.model,), session=True)
            upstream = await self._unless_gone(self._connected(asked, turns, books))
            if upstream is not None:
                await self._bridged(upstream, asked, turns, books)
        except APIError as error:
            books.error = error
            headers = [(b"content-type", b"application/json")]
            await self._deny(error.status, asked.site.face.encode_error(error), headers)
        finally:
            usage = plausible_usage(self._sum.usage)
            try:
                turns.release(usage)
            finally:
                self._ways.recorder.put(settle(gate, books.record(self._sum.model, usage)))

    # the handshake

    async def _connected(
        self, asked: ProxyRequest, turns: ProxyKeyRotation, books: ExchangeRecord
    ) -> ClientConnection | None:
        """The upstream's WebSocket; None if it refused and the client was told so.

        Raises APIError.
        """
        from websockets.exceptions import InvalidStatus, WebSocketException

        while True:
            key = await turns.next()
            books.key_id = asked.injected or turns.key_id
            books.sent()
            try:
                upstream = await self._dial(asked, key)
            except InvalidStatus as refused:
                answer = refused.response
                headers, body = _told(answer), bytes(answer.body or b"")
                books.status = status = answer.status_code
                if turns.using_pool_key and status >= 400:
                    if turns.blot is not None:
                        body = turns.blot.data(body)
                    error = turns.refused(status, headers, body, self._ways.clock())
                    books.failed(error)
                    if turns.another(error):
                        continue
                    if status in (401, 402) or error.kind is ErrorKind.KEY_REJECTED:
                        raise turns.ours_refused(error, status) from None
                    if status == 429 and (after := turns.soonest()) is not None:
                        headers = [pair for pair in headers if not pair[0].startswith(_AFTER)]
                        headers.append((_AFTER, str(max(1, math.ceil(after)))))
                else:
                    books.answered(status)
                await self._pass_refusal(asked, turns, headers, body, books)
                return None
            except (OSError, TimeoutError, WebSocketException, EOFError) as error:
                why = describe_error(error) if isinstance(error, OSError) else type(error).__name__
                message = f"The WebSocket to {asked.site.name} could not be opened: {why}."
                failure = APIError(ErrorKind.UPSTREAM, message)
                books.failed(failure)
                raise failure from error
            told = _told(upstream.response) if upstream.response is not None else []
            turns.record_response(101, told, self._ways.clock())
            books.status = 101
            books.answered(101)
            return upstream

    async def _pass_refusal(
        self,
        asked: ProxyRequest,
        turns: ProxyKeyRotation,
        headers: Headers,
        body: bytes,
        books: ExchangeRecord,
    ) -> None:
        status = books.status
        if not 300 <= status <= 599:
            raise APIError(ErrorKind.UPSTREAM, f"The upstream answered with a status of {status}.")
        passed, _ = read_response_headers(headers, asked.site.policy)
        if turns.blot is not None:
            passed, body = turns.blot.headers(passed), turns.blot.data(body)
        await self._deny(status, body, passed)
        books.finished = True

    async def _dial(self, asked: ProxyRequest, key: Key | None) -> ClientConnection:
        from websockets.asyncio.client import connect

        out = asked.outgoing(key, keep_host=False)
        offered = list(asked.subprotocols)
        headers = []
        for name, value in out.headers:
            if name == _PROTOCOLS:
                offered.append(value)
            elif name != "accept-encoding":
                headers.append((name, value))
        url = "ws" + out.url.removeprefix("http")
        options: dict[str, Any] = {}
        if url.startswith("wss:"):
            options["ssl"] = _context(self._limits.ca)
        connecting = connect(
            url,
            additional_headers=headers,
            subprotocols=offered or None,  # type: ignore[arg-type]
            compression=None,  # it takes more memory than all the rest of an idle session
            user_agent_header=None,
            proxy=out.proxy,
            open_timeout=self._limits.connect,
            close_timeout=_PATIENCE,
            max_size=self._limits.max_message,
            max_queue=_QUEUE,
            logger=_quiet(),
            **options,
        )
        # A redirect is the client's to follow, and our key is not for wherever it leads.
        connecting.process_redirect = lambda error: error  # type: ignore[method-assign, assignment]
        return await connecting

    async def _unless_gone(
        self, connecting: Coroutine[Any, Any, ClientConnection | None]
    ) -> ClientConnection | None:
        """What comes of `connecting`. Raises ClientGoneError if the client leaves before."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(connecting)
        gone = loop.create_task(self._gone())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError("The client left.")
            return task.result()
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.wait((task, gone))

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def _deny(self, status: int, body: bytes, headers: RawHeaders) -> None:
        """Refuse the handshake."""
        headers = with_id(headers, request_id(self._scope))
        try:
            await deny_websocket(self._scope, self._send, status, body, headers)
        except (OSError, RuntimeError) as error:  # some servers say it so
            raise ClientGoneError("The client left.") from error

    # the session

    async def _bridged(
        self,
        upstream: ClientConnection,
        asked: ProxyRequest,
        turns: ProxyKeyRotation,
        books: ExchangeRecord,
    ) -> None:
        response = upstream.response
        headers = _told(response) if response is not None else []
        told, _ = read_response_headers(headers, asked.site.policy)
        if turns.blot is not None:
            told = turns.blot.headers(told)
        told = with_id(told, books.request_id)
        if books.key_id:
            told.append((b"x-auth-id", books.key_id.encode("latin-1", "replace")))
        chosen = upstream.subprotocol
        accept: Message = {
            "type": "websocket.accept",
            # Never one that holds a key.
            "subprotocol": chosen if chosen in asked.subprotocols else None,
            "headers": told,
        }
        try:
            await self._say(accept)
            books.began = time.perf_counter()
            code, why = await self._until_one_ends(upstream, turns, books)
        except BaseException:
            await upstream.close(_GOING_AWAY)
            raise
        await upstream.close(code, why)

    async def _until_one_ends(
        self, upstream: ClientConnection, turns: ProxyKeyRotation, books: ExchangeRecord
    ) -> tuple[int, str]:
        """Pass messages on; returns the code and reason that the upstream is to be closed with."""
        loop = asyncio.get_running_loop()
        down = loop.create_task(self._down(upstream, books, turns.blot))
        up = loop.create_task(self._up(upstream, books))
        try:
            await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (down, up):
                task.cancel()
            await asyncio.wait((down, up))
        if not up.cancelled():
            code, why = up.result()
            if code in (_TOO_BIG, _NOT_ALLOWED):
                await self._say(_close(code, why))
            return code, why
        # (Some servers do not send a close while somebody still waits for a message.)
        code, why = down.result()
        if turns.blot is not None:
            why = turns.blot.text(why)
        await self._say(_close(code, why))
        return 1000, ""

    async def _up(self, upstream: ClientConnection, books: ExchangeRecord) -> tuple[int, str]:
        """The client's messages, until it closes; returns with what."""
        from websockets.exceptions import ConnectionClosed

        limit = self._limits.max_message
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1005
                books.finished = code in (1000, 1001, 1005) or 3000 <= code < 5000
                return _sendable(code), message.get("reason") or ""
            data = message.get("text")
            if data is None:
                data = message.get("bytes") or b""
            if len(data) > limit:
                return _TOO_BIG, "message too big"
            if self._guard is not None:
                try:
                    self._guard.check(data)
                except APIError as error:
                    books.error = error
                    return _NOT_ALLOWED, _reason(error)
            try:
                await upstream.send(data)
            except ConnectionClosed:
                await asyncio.Event().wait()  # the other direction knows why

    async def _down(
        self, upstream: ClientConnection, books: ExchangeRecord, blot: SecretRedactor | None
    ) -> tuple[int, str]:
        """The upstream's messages, until it closes; returns with what."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                data = await upstream.recv()
                refusal = None
                if isinstance(data, str):
                    if self._sum.feed(data):
                        refusal = await self._extend(books)
                    if blot is not None and may_quote(data):
                        data = blot.text(data)
                    await self._say({"type": "websocket.send", "text": data})
                else:
                    if len(data) < _TOLD and data[:1] == b"{":  # Google's events are binary
                        if self._sum.feed(data.decode("utf-8", "replace")):
                            refusal = await self._extend(books)
                        if blot is not None and may_quote(data):
                            data = blot.data(data)
                    await self._say({"type": "websocket.send", "bytes": data})
                if refusal is not None:
                    return refusal
        except ConnectionClosed as closed:
            if closed.rcvd is not None:
                books.finished = True
                return _sendable(closed.rcvd.code), closed.rcvd.reason
            books.error = APIError(ErrorKind.UPSTREAM, "The upstream's WebSocket broke.")
            too_big = closed.sent is not None and closed.sent.code == _TOO_BIG
            return _TOO_BIG if too_big else _BROKE, "the upstream broke off"

    async def _extend(self, books: ExchangeRecord) -> tuple[int, str] | None:
        """Reserve more of the caller's budget if what was reserved is used up.

        Returns the close code and reason if that is refused.
        """
        extend = getattr(self._gate, "extend", None)
        usage = plausible_usage(self._sum.usage)
        if extend is None or usage is None:
            return None
        try:
            await extend(books.record(self._sum.model, usage))
        except APIError as error:
            books.error = error
            code = _TRY_AGAIN_LATER if error.kind is ErrorKind.OVERLOADED else _NOT_ALLOWED
            return code, _reason(error)
        return None

    async def _say(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # some servers say it so
            raise ClientGoneError("The client left.") from error


_TOLD = 64 * 1024


def _told(answer: Response) -> Headers:
    """The headers of an answer to a handshake."""
    return [(name.lower(), value) for name, value in answer.headers.raw_items()]


def _close(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}


def _reason(error: APIError) -> str:
    """The message of an error, cut to what a close frame carries."""
    return error.message.encode()[:_MAX_REASON].decode("utf-8", "ignore")


def _sendable(code: int) -> int:
    """The code as it may be sent: some only tell that none came (RFC 6455, 7.4.1)."""
    if code == 1005:
        return 1000
    return code if 1000 <= code <= 1003 or 1007 <= code <= 1014 or code >= 3000 else _GOING_AWAY


def _query(asked: ProxyRequest, name: str) -> list[str]:
    return parse_qs(asked.query, keep_blank_values=True).get(name, [])


def key_in_subprotocol(prefix: str = "openai-insecure-api-key.") -> Auth:
    """An `auth` for providers that take the key of a WebSocket as a subprotocol."""

    def auth(request: UpstreamRequest, secret: str) -> UpstreamRequest:
        return request.with_header(_PROTOCOLS, prefix + secret)

    return auth


@functools.cache
def _context(ca: str | Path | bytes | None) -> ssl.SSLContext:
    return tls(ca)


@functools.cache
def _quiet() -> logging.Logger:
    """What the library notes of each connection is not for the application's log."""
    quiet = logging.getLogger("asgi_aiproxy.websockets")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    return quiet


def _installed() -> bool:
    try:
        import websockets.asyncio.client  # noqa: F401
    except ImportError:
        return False
    return True
