"""Typed calls from the host's own code: no socket, no HTTP client.

    ai = InProcess(app, principal=Principal("nightly-job"))
    answer = await ai.chat(model="claude-sonnet-4-5", messages="Hello")
    async for event in ai.stream(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}]):
        ...
    found = await ai.embed(model="text-embedding-3-small", input=["one", "two"])

Theory of operation. A call is an ASGI request to the app, whose scope names the operation and the
caller. So it passes the same middlewares and takes the same steps as a request from outside: keys,
fallbacks, limits, budgets, hooks, usage records. Its body and its response hold the neutral types
as JSON (`dialects.neutral`), so that nothing is lost that a provider sends.

The app runs in a task of its own. A caller that is cancelled, or leaves a stream, disconnects from
it as a client does: the request to the provider ends, and the key is free again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import ASGIApp
from asgi_aiproxy.dialects import OPENAI_CHAT, neutral
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.errors import AIProxyError, APIError, ErrorKind, internal_error, invalid
from asgi_aiproxy.inprocess import InProcessExchange, post_scope
from asgi_aiproxy.messages import (
    BlockDelta,
    BlockStart,
    Event,
    MessageEnd,
    Reasoning,
    Request,
    Response,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from asgi_aiproxy.operations.embeddings import neutral as embeddings
from asgi_aiproxy.operations.embeddings.base import EmbeddingInput, EmbeddingsRequest, Task
from asgi_aiproxy.principal import Principal

# Where apps in front of a shim expect these operations.
_PATHS = {neutral.CHAT.name: "/v1/chat/completions", neutral.EMBEDDINGS.name: "/v1/embeddings"}
_INCOMPLETE = "The response ended before it was complete."


class CallInfo(msgspec.Struct, frozen=True):
    """What served a call.

    - `provider`, `key_id`: the provider, and the id of its API key.
    - `request_id`: the id of the request in logs and usage records.
    - `ignored`: the members of the request that the provider was not sent.
    """

    provider: str = ""
    key_id: str = ""
    request_id: str = ""
    ignored: tuple[str, ...] = ()


class ChatAnswer(msgspec.Struct, frozen=True):
    """A whole answer: the neutral `response`, and `info` about the call."""

    response: Response
    info: CallInfo = CallInfo()

    @property
    def text(self) -> str:
        """The text of the answer, without reasoning."""
        return "".join(b.text for b in self.response.blocks if isinstance(b, Text))

    @property
    def reasoning(self) -> str:
        """The reasoning, or its summary."""
        return "".join(b.text for b in self.response.blocks if isinstance(b, Reasoning))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model asks to run."""
        return tuple(b for b in self.response.blocks if isinstance(b, ToolCall))

    @property
    def model(self) -> str:
        """The model as the provider names it."""
        return self.response.model

    @property
    def stop(self) -> StopReason:
        """Why the answer ended."""
        return self.response.stop

    @property
    def conversation(self) -> str:
        """What the next request continues, if the provider keeps the conversation."""
        return self.response.conversation

    @property
    def usage(self) -> Usage | None:
        """The token counts; None if the provider reported none."""
        return self.response.usage


class EmbeddingsAnswer(msgspec.Struct, frozen=True):
    """Vectors in the order of the inputs; model, usage, and `info` about the call."""

    vectors: list[list[float]]
    model: str
    usage: Usage | None = None
    info: CallInfo = CallInfo()


class ChatStream:
    """The events of one answer, for one `async for`; `async with` closes it at once.

    `info` is set when the first event has arrived.
    """

    def __init__(self, exchange: _Call) -> None:
        self._call = exchange
        self._events = exchange.events(self)
        self.info = CallInfo()

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        # The generator itself: if the caller leaves its loop, it is closed as its last reference
        # goes.
        events, self._events = self._events, _no_events()
        return events

    async def text(self) -> AsyncGenerator[str, None]:
        """Return the text of the answer, piece by piece, without reasoning."""
        blocks: set[int] = set()
        async for event in self:
            if isinstance(event, BlockStart) and isinstance(event.block, Text):
                blocks.add(event.index)
                if event.block.text:
                    yield event.block.text
            elif isinstance(event, BlockDelta) and event.index in blocks:
                yield event.text

    async def aclose(self) -> None:
        """End the request, if it has not ended."""
        await self._events.aclose()
        await self._call.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _no_events() -> AsyncGenerator[Event, None]:
    return
    yield


class InProcess:
    """Calls an app of this package from the host's own code.

    Arguments:

    - `app`: a shim, or what wraps it: the middlewares of `app` apply. A host app with a mount works
      as well; `prefix` is then the path of the mount.
    - `principal`: the caller. It is trusted: `Authenticate` takes it as it is, limits and budgets
      are its own.
    - `token`: the caller's token instead, which `Authenticate` verifies.
    - `headers`: further request headers, such as `aiproxy-session`.

    Each method raises APIError, with `kind`, `status`, `code` and `retry_after`, as HTTP clients
    get them in the response.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        principal: Principal | None = None,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        prefix: str = "",
    ) -> None:
        self._app = app
        self._principal = principal
        self._prefix = prefix.rstrip("/")
        sent = {"content-type": "application/json", **(headers or {})}
        if token:
            sent["authorization"] = f"Bearer {token}"
        self._headers = [
            (n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in sent.items()
        ]

    def __repr__(self) -> str:
        return f"InProcess({self._app!r})"

    async def chat(
        self, request: Request | Mapping[str, Any] | None = None, /, **members: Any
    ) -> ChatAnswer:
        """Return a whole answer.

        `request` is a `Request`, or the body of a request of OpenAI's chat completions, whose
        `members` can also be given by name; `messages` may be one text. Raises APIError.
        """
        call = self._call(neutral.CHAT, _encoded(request, members, stream=False))
        body, info = await call.whole()
        return ChatAnswer(neutral.decode_response(body), info)

    def stream(
        self, request: Request | Mapping[str, Any] | None = None, /, **members: Any
    ) -> ChatStream:
        """Return the events of an answer as they arrive; arguments and errors as of `chat`.

        The request is sent when the first event is awaited. An error within the answer is raised
        as well; an answer is complete only after its `MessageEnd`.
        """
        return ChatStream(self._call(neutral.CHAT, _encoded(request, members, stream=True)))

    async def embed(
        self,
        *,
        model: str,
        input: str | Sequence[str],
        dimensions: int | None = None,
        task: Task | None = None,
        user: str = "",
    ) -> EmbeddingsAnswer:
        """Return the embeddings of one or more texts.

        `dimensions` is the length of the vectors, if it is not the model's; `task` what they are
        for, where the provider distinguishes that; `user` the end user. Raises APIError.
        """
        texts = [input] if isinstance(input, str) else list(input)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise invalid("'input' must be a text or a list of texts that is not empty.", "input")
        request = EmbeddingsRequest(
            model=model,
            inputs=tuple(map(EmbeddingInput, texts)),
            dimensions=dimensions,
            task=task,
            task_member="task" if task is not None else "",
            user=user,
        )
        body, info = await self._call(
            neutral.EMBEDDINGS, embeddings.encode_request(request)
        ).whole()
        found = embeddings.decode_response(body)
        return EmbeddingsAnswer(embeddings.vectors_of(found), found.model, found.usage, info)

    def _call(self, operation: Operation, body: bytes) -> _Call:
        path = self._prefix + _PATHS[operation.name]
        scope = post_scope(path, self._headers, principal=self._principal)
        scope[neutral.SCOPE_KEY] = operation
        return _Call(self._app, scope, body)


class _Call:
    """One request to the app."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes) -> None:
        self._app = app
        self._scope = scope
        self._body = body
        self._exchange: InProcessExchange | None = None

    async def _open(self) -> CallInfo:
        """Send the request, and return what serves it. Raises the APIError of the response."""
        exchange = self._exchange = InProcessExchange(self._app, self._scope, self._body)
        start = await self._message(exchange)
        if start["status"] == 200:
            return _info(start["headers"])
        body = b"".join([piece async for piece in self._pieces(exchange)])
        error = neutral.decode_error(start["status"], body)
        error.request_id = error.request_id or _info(start["headers"]).request_id
        raise error from exchange.failure

    async def _message(self, exchange: InProcessExchange) -> Mapping[str, Any]:
        try:
            return await exchange.message()
        except APIError:
            raise
        except AIProxyError as error:
            raise APIError(ErrorKind.UPSTREAM, _INCOMPLETE) from error
        except Exception as error:
            raise internal_error() from error

    async def _pieces(self, exchange: InProcessExchange) -> AsyncGenerator[bytes, None]:
        more = True
        while more:
            message = await self._message(exchange)
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def whole(self) -> tuple[bytes, CallInfo]:
        """Return the whole body. Raises APIError."""
        try:
            info = await self._open()
            assert self._exchange is not None  # noqa: S101 (it is open)
            return b"".join([piece async for piece in self._pieces(self._exchange)]), info
        finally:
            await self.aclose()

    async def events(self, stream: ChatStream) -> AsyncGenerator[Event, None]:
        """Return the events of a stream, and set its `info`. Raises APIError."""
        try:
            stream.info = await self._open()
            assert self._exchange is not None  # noqa: S101 (it is open)
            event: Event | None = None
            async for piece in self._pieces(self._exchange):
                for line in piece.splitlines():
                    event = neutral.decode_line(line)
                    yield event
            if not isinstance(event, MessageEnd):
                raise APIError(ErrorKind.UPSTREAM, _INCOMPLETE)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Disconnect, if the app is not done."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()


def _info(headers: Sequence[tuple[bytes, bytes]]) -> CallInfo:
    found = {name: value.decode("latin-1") for name, value in headers}
    ignored = found.get(b"aiproxy-ignored", "")
    return CallInfo(
        found.get(b"aiproxy-provider", ""),
        found.get(b"aiproxy-key", ""),
        found.get(b"aiproxy-request-id", ""),
        tuple(ignored.split(", ")) if ignored else (),
    )


def _encoded(
    request: Request | Mapping[str, Any] | None, members: Mapping[str, Any], *, stream: bool
) -> bytes:
    """The body of a call. Raises APIError that names an invalid member."""
    return neutral.encode_request(_chat_request(request, members, stream=stream))


def _chat_request(
    request: Request | Mapping[str, Any] | None, members: Mapping[str, Any], *, stream: bool
) -> Request:
    """The neutral request of a call. Raises APIError that names an invalid member."""
    if isinstance(request, Request):
        if members:
            raise TypeError("give a Request, or the members of one, not both")
        neutral_request = request
    else:
        body = {**(request or {}), **members}
        conversation = body.pop("conversation", None)
        messages = body.get("messages")
        if isinstance(messages, str):
            body["messages"] = [{"role": "user", "content": messages}]
        try:
            encoded = _json.dumps(body)
        except TypeError as error:
            raise invalid(f"The request is not JSON: {error}.") from error
        neutral_request = msgspec.structs.replace(
            OPENAI_CHAT.decode_request(_CHAT, encoded), conversation=conversation
        )
    return msgspec.structs.replace(neutral_request, stream=stream, stream_usage=True)


_CHAT = Operation("chat.completions", "/chat/completions", chat=True)
