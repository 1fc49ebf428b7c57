"""The WebSocket mode of the Responses API. Theory of operation.

A client opens `/v1/responses` as a WebSocket and sends `response.create` messages, which hold what
`POST /v1/responses` takes. Each is answered by the shim as that request would be, with `stream`;
only the transport differs: `_EventSend` takes the ASGI messages of the event stream and sends the
data of each event as one message. So routing, keys, limits, translation and records are the same.

One task reads from the client for the whole connection, because a server may lose a message when
the wait for it is cancelled. It notices when the client leaves, which ends the running exchange as
an HTTP disconnect does, and refuses a `response.create` that arrives while another one runs. From
the last event of a response on the next one is accepted, and waits until the exchange is settled.

Responses are remembered for the connection, whatever `store` says, so that `previous_response_id`
needs no other state (see `memory`). With `generate: false` a request is only remembered: no
provider is asked, and the id that comes back can be continued.

Errors before the first event are `error` messages with the HTTP status; the connection stays open.
One in mid-stream is `response.failed`. The connection is closed after `idle` seconds without a
message, and takes no new response after an hour, as OpenAI's.

https://platform.openai.com/docs/guides/websocket-mode
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from asgi_aiproxy import _asgi, _json
from asgi_aiproxy._asgi import Message, Receive, Scope, Send
from asgi_aiproxy._background_tasks import start
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy._request_id import named, request_id, with_request_id
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.base import InboundDialect
from asgi_aiproxy.errors import APIError, ErrorKind, internal_error, invalid
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.exchange.session_requests import scope_of_next_request
from asgi_aiproxy.framing import Frame, SSEFramer
from asgi_aiproxy.principal import ANONYMOUS, SCOPE_KEY, Principal
from asgi_aiproxy.responses_state.memory import ConnectionMemory

logger = logging.getLogger("asgi_aiproxy")

_LIFETIME_SECONDS = 3600.0
_NORMAL_CLOSURE = 1000
# Members of `response.create` that are not part of the request.
_ENVELOPE = frozenset({"type", "generate", "stream_id", "event_id", "stream"})
_ENDS = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})
_STATUS_OF_CODES = {"rate_limit_exceeded": 429, "server_is_overloaded": 503, "invalid_prompt": 400}
_BAD_GATEWAY = 502


class Create(msgspec.Struct, frozen=True):
    """A `response.create`: the body of the request it stands for, and its own members."""

    body: bytes
    generate: bool = True
    stream_id: str = ""


class RequestRelay(Protocol):
    """Answers an ASGI request over HTTP; raises APIError only if nothing was sent."""

    def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        principal: Principal,
        memory: ConnectionMemory,
        generate: bool,
    ) -> Awaitable[None]:
        """`generate` is False if the request is only to be remembered."""


class ResponsesWebSocket:
    """One WebSocket of a client.

    `answer` answers its requests. `max_message` limits messages, and the connection's memory, in
    bytes. `idle` is in seconds.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        face: InboundDialect,
        answer: RequestRelay,
        max_message: int,
        idle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._face = face
        self._answer = answer
        self._max_message = max_message
        self._idle = idle
        self._clock = clock
        self._ends_at = clock() + _LIFETIME_SECONDS
        self._memory = ConnectionMemory(2 * max_message)
        self._sending = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._waiting: str | bytes | None = None  # the next message
        self._running = False
        self._number = 0  # of requests
        self._id = request_id(scope)

    async def run(self) -> None:
        """Serve the connection until one side closes it."""
        await self._receive()  # websocket.connect
        with suppress(ClientGoneError):
            await self._send_message({"type": "websocket.accept", "headers": [named(self._id)]})
            reader = start(self._read(), what="messages of a Responses WebSocket")
            try:
                while (message := await self._next()) is not None:
                    await self._serve(message)
            finally:
                reader.cancel()
                await asyncio.wait((reader,))

    # messages of the client

    async def _read(self) -> None:
        """Take the client's messages until it leaves."""
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                data = message.get("text")
                if data is None:
                    data = message.get("bytes") or b""
                if self._running or self._waiting is not None:
                    await self._refuse(data)
                else:
                    self._waiting = data
                    self._arrived.set()
        except (OSError, RuntimeError, ClientGoneError):
            pass  # servers report a lost connection in these ways
        finally:
            self._gone.set()
            self._arrived.set()

    async def _next(self) -> str | bytes | None:
        """Wait for a message; None when the connection is over."""
        if self._waiting is None and not self._gone.is_set():
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._idle):
                    await self._arrived.wait()
            except TimeoutError:
                await self._close("No message arrived for too long.")
                return None
        self._arrived.clear()
        message, self._waiting = self._waiting, None
        return None if self._gone.is_set() else message

    async def _refuse(self, data: str | bytes) -> None:
        """Refuse a message that arrives while a response is made."""
        try:
            kind = self._parse(data)[0]
        except APIError as error:
            await self._send_error(error)
            return
        if kind == "response.steer":
            await self._refuse_steering(data)
            return
        refusal = invalid(
            "Another response is being made on this WebSocket: wait for its last event, or open "
            "another WebSocket.",
            code="response_already_in_progress",
        )
        refusal.status = 409
        await self._send_error(refusal)

    async def _refuse_steering(self, data: str | bytes) -> None:
        steer = _json.loads(data)
        event = {
            "type": "response.steer.failed",
            "sequence_number": 0,
            "error": {
                "type": "invalid_request_error",
                "code": "steering_not_supported",
                "message": "Responses cannot be steered here.",
            },
            "steer": {
                "id": None,
                "input": steer.get("input"),
                "previous_response_id": steer.get("previous_response_id"),
            },
        }
        await self.send_event(_json.dumps(event))

    def _parse(self, data: str | bytes) -> tuple[str, Mapping[str, msgspec.Raw]]:
        """The type and the members of a message. Raises APIError."""
        encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        if len(encoded) > self._max_message:
            raise APIError(
                ErrorKind.TOO_LARGE, f"The message is larger than {self._max_message} bytes."
            )
        fields = _parsing.fields(encoded)
        kind = _parsing.member(fields, "type", _parsing.text)
        if kind is None:
            raise _parsing.missing_field_error("type")
        return kind, fields

    # requests

    async def _serve(self, data: str | bytes) -> None:
        """Answer one message."""
        events = _EventSend(self)
        self._number += 1
        scope: Scope = with_request_id(self._scope, f"{self._id}.{self._number}")
        gate = None
        try:
            kind, fields = self._parse(data)
            if kind == "response.steer":
                await self._refuse_steering(data)
                return
            create = _create(kind, fields)
            if self._clock() >= self._ends_at:
                raise invalid(
                    "This WebSocket is an hour old: open another one.",
                    code="websocket_connection_limit_reached",
                )
            events.stream_id = create.stream_id
            self._running = True
            scope = await scope_of_next_request(scope)
            gate = scope.get(GATE_KEY)
            await self._answer(
                {**scope, "type": "http", "method": "POST"},
                self._request(create.body),
                events,
                principal=scope.get(SCOPE_KEY) or ANONYMOUS,
                memory=self._memory,
                generate=create.generate,
            )
            await events.close()
        except APIError as error:
            error.request_id = request_id(scope)
            await self._send_error(error, events.stream_id)
        except ClientGoneError:
            raise
        except Exception:
            logger.exception("request %s: the gateway failed", request_id(scope))
            await self._send_error(internal_error(request_id(scope)), events.stream_id)
        finally:
            self._running = False
            if gate is not None and hasattr(
                gate, "close"
            ):  # of a call that ended before it was settled
                gate.close()

    def _request(self, body: bytes) -> Receive:
        """The ASGI `receive` of a request with this body."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await self._gone.wait()
            return {"type": "http.disconnect"}

        return receive

    # messages to the client

    async def send_event(self, data: bytes, *, last: bool = False) -> None:
        """Send an event. After the `last` one of a response the next request is accepted.

        Raises OSError if the client has disconnected.
        """
        async with self._sending:
            if last:
                self._running = False
            try:
                await self._send(
                    {"type": "websocket.send", "text": data.decode("utf-8", "replace")}
                )
            except RuntimeError as error:  # of some servers
                raise ConnectionResetError(str(error)) from error

    async def _send_error(self, error: APIError, stream_id: str = "") -> None:
        body = error.body if error.body is not None else self._face.encode_error(error)
        found = _json.loads(body)
        about = found.get("error") if isinstance(found, dict) else None
        if not isinstance(about, dict):
            about = {"type": "server_error", "code": error.code, "message": error.message}
        headers = {name.decode(): value.decode() for name, value in _asgi.error_headers(error)}
        event = error_message(error.status, {**about, "headers": headers})
        try:
            await self.send_event(_with_stream_id(_json.dumps(event), stream_id))
        except OSError as failure:
            raise ClientGoneError("The client disconnected.") from failure

    async def _close(self, reason: str) -> None:
        await self._send_message(
            {"type": "websocket.close", "code": _NORMAL_CLOSURE, "reason": reason}
        )

    async def _send_message(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:
            raise ClientGoneError("The client disconnected.") from error


class _EventSend:
    """The ASGI `send` of one request: each event becomes a message of the WebSocket.

    An `error` event is held: if `response.failed` follows, that says the same, and a response has
    one last event.
    """

    def __init__(self, socket: ResponsesWebSocket) -> None:
        self.stream_id = ""
        self._socket = socket
        self._framer = SSEFramer()
        self._error: bytes | None = None

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        for frame in self._framer.frames(message.get("body", b"")):
            if frame.data.startswith(b"{"):
                await self._event(frame)

    async def close(self) -> None:
        """Send what was held."""
        if self._error is not None:
            error, self._error = self._error, None
            data = _with_stream_id(_failure(error), self.stream_id)
            try:
                await self._socket.send_event(data, last=True)
            except OSError as failure:
                raise ClientGoneError("The client disconnected.") from failure

    async def _event(self, frame: Frame) -> None:
        kind = frame.event or _parsing.get_text(_json.loads(frame.data), "type").encode()
        if kind == b"error":
            self._error = frame.data
            return
        last = kind in _ENDS
        if last:
            self._error = None
        await self._socket.send_event(_with_stream_id(frame.data, self.stream_id), last=last)


def _create(kind: str, fields: Mapping[str, msgspec.Raw]) -> Create:
    """Read a `response.create`. Raises APIError."""
    if kind != "response.create":
        raise invalid(
            f"Invalid value: '{kind[:100]}'. Supported values are: 'response.create'.",
            "type",
            "invalid_value",
        )
    if _parsing.member(fields, "background", _parsing.flag):
        raise invalid(
            "'background' is not available over a WebSocket: leave it out, or use HTTP.",
            "background",
            "unsupported_parameter",
        )
    request: dict[str, Any] = {n: value for n, value in fields.items() if n not in _ENVELOPE}
    request["stream"] = True
    return Create(
        body=_json.dumps(request),
        generate=_parsing.member(fields, "generate", _parsing.flag) is not False,
        stream_id=_parsing.member(fields, "stream_id", _parsing.text) or "",
    )


def error_message(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An `error` message with its HTTP status."""
    return {"type": "error", "status": status, "error": dict(error)}


def _failure(data: bytes) -> bytes:
    """The `error` event of a stream as an `error` message."""
    event = _json.loads(data)
    nested = event.get("error")
    about = nested if isinstance(nested, dict) else event
    code = about.get("code")
    error = {
        "type": "server_error",
        "code": code,
        "message": str(about.get("message") or "The response broke off."),
        "param": about.get("param"),
    }
    status = _STATUS_OF_CODES.get(code, _BAD_GATEWAY) if isinstance(code, str) else _BAD_GATEWAY
    return _json.dumps(error_message(status, error))


def _with_stream_id(data: bytes, stream_id: str) -> bytes:
    """An event that names the stream that its request named."""
    if not stream_id:
        return data
    return data.rstrip()[:-1] + b',"stream_id":' + _json.quote(stream_id) + b"}"
