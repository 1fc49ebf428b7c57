"""Proxy a WebSocket: one connection to the client, one to the upstream, and the messages in
between.

The upstream is connected first, so that a client whose session is refused gets the refusal as the
response to its handshake. https://www.rfc-editor.org/rfc/rfc6455
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from asgi_aiproxy._asgi import (
    Message,
    RawHeaders,
    Receive,
    Scope,
    Send,
    deny_websocket,
    error_headers,
)
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._control_headers import key_headers
from asgi_aiproxy._request_id import named, request_id, with_id
from asgi_aiproxy.credentials import SecretRedactor, may_quote
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.admission import GATE_KEY, AdmissionControl, must_inspect
from asgi_aiproxy.exchange.record import ExchangeRecord
from asgi_aiproxy.passthrough.admission import check_admission
from asgi_aiproxy.passthrough.close_codes import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NOT_ALLOWED,
    TOO_BIG,
    TRY_AGAIN_LATER,
    close_message,
    close_reason,
    sendable_code,
)
from asgi_aiproxy.passthrough.context import ProxyContext, new_record
from asgi_aiproxy.passthrough.headers import read_response_headers
from asgi_aiproxy.passthrough.inspection import models_outside_body
from asgi_aiproxy.passthrough.key_rotation import ProxyKeyRotation
from asgi_aiproxy.passthrough.request import ProxyRequest
from asgi_aiproxy.passthrough.resource_tracking import ResourceTracker, resource_tracker
from asgi_aiproxy.passthrough.session_guard import SessionGuard
from asgi_aiproxy.passthrough.session_hooks import SessionHooks
from asgi_aiproxy.passthrough.usage_meter import SessionUsage
from asgi_aiproxy.passthrough.websocket_connect import WebSocketLimits, installed, open_websocket
from asgi_aiproxy.principal import ANONYMOUS
from asgi_aiproxy.upstream.base import Headers
from asgi_aiproxy.upstream.connect import describe_error

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.http11 import Response

logger = logging.getLogger("asgi_aiproxy")

_RETRY_AFTER = "retry-after"


class WebSocketBridge:
    """One WebSocket of a client: `run` forwards its messages until one side closes it."""

    def __init__(
        self,
        context: ProxyContext,
        limits: WebSocketLimits,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._context = context
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._usage = SessionUsage()
        self._admission: AdmissionControl | None = scope.get(GATE_KEY)
        self._guard: SessionGuard | None = None
        self._hooks: SessionHooks | None = None
        self._tracker: ResourceTracker | None = None

    async def run(self, request: ProxyRequest) -> None:
        """Connect both sides, and forward messages until one of them closes."""
        record = new_record(request, self._context)
        admission = self._admission
        # Later messages are for the upstream: a model that is not in the URL is unknown.
        fixed = request.target.sessions.match_name("GET", request.route.path) is not None
        models = [*request.route.models, *_query(request, "model")] if fixed else []
        model = models[0] if len(set(models)) == 1 else ""
        record.requested_model = record.upstream_model = model
        keys = ProxyKeyRotation(request, affinity=request.affinity, model=model)
        try:
            await self._receive()  # websocket.connect
            if not installed():
                logger.error("WebSockets require a library: pip install 'asgi-aiproxy[realtime]'")
                message = "This gateway is installed without support for WebSockets."
                raise APIError(ErrorKind.INTERNAL, message, status=501)
            request.check_models(models, "the URL of this WebSocket names no model")
            if request.inspected:
                request.check_models(models_outside_body(request.query, request.headers))
                priced = frozenset(models) if must_inspect(ANONYMOUS, admission) else None
                self._guard = SessionGuard(request, priced)
            self._tracker = resource_tracker(
                self._context.resources, self._context.ownership, request
            )
            if self._tracker is not None:
                await self._tracker.check(b"", stored=None)
            if self._context.hooks is not None:
                self._hooks = await SessionHooks.open(self._context.hooks, request)
                request = request.with_headers(self._hooks.sent_headers)
            if admission is not None:
                await check_admission(admission, request, (model,), session=True)
            upstream = await self._until_client_leaves(self._connect(request, keys, record))
            if upstream is not None:
                await self._run_session(upstream, request, keys, record)
        except APIError as error:
            record.error = error
            headers = [(b"content-type", b"application/json"), *error_headers(error)]
            await self._refuse_handshake(
                error.status, request.target.dialect.encode_error(error), headers
            )
        finally:
            reported = self._usage.reported()
            try:
                keys.release(reported[1])
            finally:
                written = record.write(reported, gate=admission, recorder=self._context.recorder)
                if self._hooks is not None:
                    self._hooks.ended(written)

    # The handshake.

    async def _connect(
        self, request: ProxyRequest, keys: ProxyKeyRotation, record: ExchangeRecord
    ) -> ClientConnection | None:
        """Return the upstream's WebSocket; None if it refused and the client got the refusal.

        Raises APIError.
        """
        from websockets.exceptions import InvalidStatus, WebSocketException

        while True:
            key = await keys.next()
            record.key_id = request.injected or keys.key_id
            record.sent()
            try:
                upstream = await open_websocket(request, key, self._limits)
            except InvalidStatus as refused:
                answer = refused.response
                headers, body = _handshake_headers(answer), bytes(answer.body or b"")
                record.status = status = answer.status_code
                if keys.using_pool_key and status >= 400:
                    if keys.redactor is not None:
                        body = keys.redactor.data(body)
                    error = keys.judge_refusal(status, headers, body, self._context.clock())
                    record.failed(error)
                    if keys.may_try_another(error):
                        continue
                    if status in (401, 402) or error.kind is ErrorKind.KEY_REJECTED:
                        failure = keys.gateway_key_error(error, status)
                        if self._hooks is not None:
                            failure = await self._hooks.checked_error(failure)
                        raise failure from None
                    if status == 429 and (after := keys.soonest()) is not None:
                        headers = [pair for pair in headers if not pair[0].startswith(_RETRY_AFTER)]
                        headers.append((_RETRY_AFTER, str(max(1, math.ceil(after)))))
                else:
                    record.answered(status)
                await self._forward_refusal(request, keys, headers, body, record)
                return None
            except (OSError, TimeoutError, WebSocketException, EOFError) as error:
                reason = (
                    describe_error(error) if isinstance(error, OSError) else type(error).__name__
                )
                message = f"The WebSocket to {request.target.name} could not be opened: {reason}."
                failure = APIError(ErrorKind.UPSTREAM, message)
                record.failed(failure)
                raise failure from error
            upgrade_headers = (
                _handshake_headers(upstream.response) if upstream.response is not None else []
            )
            keys.record_response(101, upgrade_headers, self._context.clock())
            record.status = 101
            record.answered(101)
            return upstream

    async def _forward_refusal(
        self,
        request: ProxyRequest,
        keys: ProxyKeyRotation,
        headers: Headers,
        body: bytes,
        record: ExchangeRecord,
    ) -> None:
        status = record.status
        if not 300 <= status <= 599:
            raise APIError(
                ErrorKind.UPSTREAM, f"The upstream answered with the invalid status {status}."
            )
        passed, _ = read_response_headers(headers, request.target.policy)
        if keys.redactor is not None:
            passed, body = keys.redactor.headers(passed), keys.redactor.data(body)
        if self._hooks is not None:
            kind = next((value for name, value in headers if name == "content-type"), "")
            body = await self._hooks.checked_refusal(kind, body)
        await self._refuse_handshake(status, body, passed)
        record.finished = True

    async def _until_client_leaves(
        self, connecting: Coroutine[Any, Any, ClientConnection | None]
    ) -> ClientConnection | None:
        """Return the result of `connecting`. Raises ClientGoneError if the client disconnects
        before.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(connecting)
        gone = loop.create_task(self._client_disconnected())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError("The client disconnected.")
            return task.result()
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.wait((task, gone))

    async def _client_disconnected(self) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def _refuse_handshake(self, status: int, body: bytes, headers: RawHeaders) -> None:
        """Refuse the handshake."""
        headers = with_id(headers, request_id(self._scope))
        try:
            await deny_websocket(self._scope, self._send, status, body, headers)
        except (OSError, RuntimeError) as error:  # how some servers report a disconnect
            raise ClientGoneError("The client disconnected.") from error

    # The session.

    async def _run_session(
        self,
        upstream: ClientConnection,
        request: ProxyRequest,
        keys: ProxyKeyRotation,
        record: ExchangeRecord,
    ) -> None:
        response = upstream.response
        headers = _handshake_headers(response) if response is not None else []
        client_headers, _ = read_response_headers(headers, request.target.policy)
        if keys.redactor is not None:
            client_headers = keys.redactor.headers(client_headers)
        client_headers += [named(record.request_id), *key_headers(record.key_id)]
        chosen = upstream.subprotocol
        accept: Message = {
            "type": "websocket.accept",
            # A reason that contains a key is dropped.
            "subprotocol": chosen if chosen in request.subprotocols else None,
            "headers": client_headers,
        }
        try:
            await self._send_to_client(accept)
            record.first_byte_at = time.perf_counter()
            code, reason = await self._pass_messages(upstream, keys, record)
        except BaseException:
            await upstream.close(GOING_AWAY)
            raise
        await upstream.close(code, reason)

    async def _pass_messages(
        self, upstream: ClientConnection, keys: ProxyKeyRotation, record: ExchangeRecord
    ) -> tuple[int, str]:
        """Forward messages; returns the code and reason with which to close the upstream."""
        loop = asyncio.get_running_loop()
        down = loop.create_task(self._upstream_to_client(upstream, record, keys.redactor))
        up = loop.create_task(self._client_to_upstream(upstream, record))
        try:
            await asyncio.wait((down, up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (down, up):
                task.cancel()
            await asyncio.wait((down, up))
        if not up.cancelled():
            code, reason = up.result()
            if code in (TOO_BIG, NOT_ALLOWED):
                await self._send_to_client(close_message(code, reason))
            return code, reason
        # (Some servers do not send a close while another task awaits a message.)
        code, reason = down.result()
        if keys.redactor is not None:
            reason = keys.redactor.text(reason)
        if self._hooks is not None:
            reason = await self._hooks.checked_reason(reason)
        await self._send_to_client(close_message(code, reason))
        return 1000, ""

    async def _client_to_upstream(
        self, upstream: ClientConnection, record: ExchangeRecord
    ) -> tuple[int, str]:
        """Forward the client's messages until it closes; returns its close code and reason."""
        from websockets.exceptions import ConnectionClosed

        limit = self._limits.max_message
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1005
                record.finished = code in (1000, 1001, 1005) or 3000 <= code < 5000
                return sendable_code(code), message.get("reason") or ""
            data = message.get("text")
            if data is None:
                data = message.get("bytes") or b""
            if len(data) > limit:
                return TOO_BIG, "message too big"
            try:
                if self._hooks is not None:
                    data = await self._hooks.client_message(data)
                if self._guard is not None:
                    self._guard.check(data)
                if self._tracker is not None and self._tracker.reads_body:
                    body = data.encode("utf-8", "replace") if isinstance(data, str) else data
                    await self._tracker.check(body, stored=None)
            except APIError as error:
                return await self._refused(error, record)
            try:
                await upstream.send(data)
            except ConnectionClosed:
                await asyncio.Event().wait()  # the other direction knows the reason

    async def _upstream_to_client(
        self,
        upstream: ClientConnection,
        record: ExchangeRecord,
        redactor: SecretRedactor | None,
    ) -> tuple[int, str]:
        """Forward the upstream's messages until it closes; returns its close code and reason."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                data = await upstream.recv()
                refusal = None
                # (Google's events are binary messages.)
                if isinstance(data, str) or (len(data) < _MAX_JSON_MESSAGE and data[:1] == b"{"):
                    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
                    if self._usage.feed(text):
                        refusal = await self._extend(record)
                    if redactor is not None and may_quote(data):
                        data = _redacted(redactor, data)
                await self._pass_to_client(
                    [data] if self._hooks is None else await self._hooks.server_message(data)
                )
                if refusal is not None:
                    return refusal
        except APIError as error:
            return await self._refused(error, record)
        except ConnectionClosed as closed:
            if self._hooks is not None:
                try:
                    await self._pass_to_client(await self._hooks.rest())
                except APIError as error:
                    return await self._refused(error, record)
            if closed.rcvd is not None:
                record.finished = True
                return sendable_code(closed.rcvd.code), closed.rcvd.reason
            record.error = APIError(ErrorKind.UPSTREAM, "The upstream's WebSocket was lost.")
            too_big = closed.sent is not None and closed.sent.code == TOO_BIG
            return (
                TOO_BIG if too_big else INTERNAL_ERROR,
                "the upstream was lost",
            )

    async def _pass_to_client(self, messages: list[str | bytes]) -> None:
        for data in messages:
            kind = "text" if isinstance(data, str) else "bytes"
            await self._send_to_client({"type": "websocket.send", kind: data})

    async def _refused(self, error: APIError, record: ExchangeRecord) -> tuple[int, str]:
        """Report a refused message to the client; returns the close code and reason."""
        record.error = error
        event = self._hooks.error_event(error) if self._hooks is not None else None
        if event is not None:
            await self._send_to_client({"type": "websocket.send", "text": event})
        return NOT_ALLOWED, close_reason(error)

    async def _extend(self, record: ExchangeRecord) -> tuple[int, str] | None:
        """Reserve more of the caller's budget if the reservation is used up.

        Returns the close code and reason if that is refused.
        """
        extend = getattr(self._admission, "extend", None)
        reported = self._usage.reported()
        if extend is None or reported[1] is None:
            return None
        try:
            await extend(record.to_usage_record(reported))
        except APIError as error:
            record.error = error
            code = TRY_AGAIN_LATER if error.kind is ErrorKind.OVERLOADED else NOT_ALLOWED
            return code, close_reason(error)
        return None

    async def _send_to_client(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # how some servers report a disconnect
            raise ClientGoneError("The client disconnected.") from error


_MAX_JSON_MESSAGE = 64 * 1024


def _redacted(redactor: SecretRedactor, data: str | bytes) -> str | bytes:
    return redactor.text(data) if isinstance(data, str) else redactor.data(data)


def _handshake_headers(answer: Response) -> Headers:
    """Return the response headers of a handshake."""
    return [(name.lower(), value) for name, value in answer.headers.raw_items()]


def _query(request: ProxyRequest, name: str) -> list[str]:
    return parse_qs(request.query, keep_blank_values=True).get(name, [])
