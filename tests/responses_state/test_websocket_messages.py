"""The WebSocket of the Responses API message by message, without a server and a provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from asgi_aiproxy.dialects import OPENAI_RESPONSES
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.responses_state.websocket import ResponsesWebSocket
from tests.support.socket_server import PATIENCE

pytestmark = pytest.mark.anyio

Relay = Callable[..., Awaitable[None]]
CREATE = json.dumps({"type": "response.create", "model": "m", "input": "Hi"})


def event(kind: str, **members: Any) -> bytes:
    data = json.dumps({"type": kind, **members})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def complete(scope: Any, receive: Any, send: Any, **options: Any) -> None:
    """Answers a request with the two events that every response has."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send(body(event("response.created") + b": keep-alive\n\n"))
    await send(body(event("response.completed"), more=False))


class Client:
    """The client's side of a WebSocket."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.received: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, data: str | bytes) -> None:
        name = "text" if isinstance(data, str) else "bytes"
        self.sent.put_nowait({"type": "websocket.receive", name: data})

    async def event(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            message = await self.received.get()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])


@asynccontextmanager
async def connected(relay: Relay = complete, **options: Any) -> AsyncIterator[Client]:
    client = Client()
    scope = {"type": "websocket", "path": "/v1/responses", "headers": []}

    async def send(message: Any) -> None:
        client.received.put_nowait(message)

    options = {"max_message": 5_000, "idle": PATIENCE, **options}
    socket = ResponsesWebSocket(
        scope, client.sent.get, send, face=OPENAI_RESPONSES, answer=relay, **options
    )
    client.sent.put_nowait({"type": "websocket.connect"})
    task = asyncio.ensure_future(socket.run())
    try:
        assert (await client.received.get())["type"] == "websocket.accept"
        yield client
        client.sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        async with asyncio.timeout(PATIENCE):
            await task
    finally:
        task.cancel()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
CREATES = st.fixed_dictionaries(
    {"type": st.sampled_from(["response.create", "response.delete", "", 1])},
    optional={
        "generate": JSON,
        "background": JSON,
        "stream_id": JSON,
        "stream": JSON,
        "model": JSON,
    },
)
MESSAGES = st.text() | st.binary() | (CREATES | JSON).map(json.dumps)


@given(st.lists(MESSAGES, max_size=5))
@settings(max_examples=60)
def test_any_message_is_answered_and_the_connection_goes_on(messages: list[str | bytes]) -> None:
    async def run() -> None:
        async with connected() as client:
            for message in messages:
                client.send(message)
                found = await client.event()
                if found["type"] == "error":
                    assert 400 <= found["status"] < 500
                    assert found["error"]["message"]
                elif found["type"] != "response.steer.failed":
                    assert found["type"] == "response.created"
                    assert (await client.event())["type"] == "response.completed"
            client.send(CREATE)
            assert (await client.event())["type"] == "response.created"
            assert (await client.event())["type"] == "response.completed"

    asyncio.run(run())


async def test_a_request_after_the_last_event_waits_until_the_exchange_has_ended() -> None:
    ended, numbers = asyncio.Event(), []

    async def slow(scope: Any, receive: Any, send: Any, **options: Any) -> None:
        numbers.append(len(numbers))
        await send(body(event("response.completed")))
        if len(numbers) == 1:
            await ended.wait()
        await send(body(b"", more=False))

    async with connected(slow) as client:
        client.send(CREATE)
        assert (await client.event())["type"] == "response.completed"
        client.send(CREATE)
        client.send(CREATE)  # one may wait
        assert (await client.event())["status"] == 409
        assert numbers == [0]
        ended.set()
        assert (await client.event())["type"] == "response.completed"


async def test_a_failure_within_the_gateway_is_an_error_of_that_request() -> None:
    failures: list[Exception] = [RuntimeError("bug"), APIError(ErrorKind.OVERLOADED, "Later.")]

    async def failing(scope: Any, receive: Any, send: Any, **options: Any) -> None:
        if failures:
            raise failures.pop(0)
        await complete(scope, receive, send)

    async with connected(failing) as client:
        for status in (500, 503):
            client.send(CREATE)
            found = await client.event()
            assert (found["type"], found["status"]) == ("error", status)
            assert "bug" not in json.dumps(found)
        client.send(CREATE)
        assert (await client.event())["type"] == "response.created"


async def test_an_error_event_alone_ends_a_response_with_a_status() -> None:
    async def failing(scope: Any, receive: Any, send: Any, **options: Any) -> None:
        await send(body(event("response.created")))
        error = event("error", code="rate_limit_exceeded", message="Slow down.", param=None)
        await send(body(error, more=False))

    async with connected(failing) as client:
        for _ in range(2):
            client.send(CREATE)
            assert (await client.event())["type"] == "response.created"
            found = await client.event()
            assert (found["type"], found["status"]) == ("error", 429)
            assert found["error"]["message"] == "Slow down."


async def test_events_may_be_cut_anywhere() -> None:
    async def cut(scope: Any, receive: Any, send: Any, **options: Any) -> None:
        for byte in event("response.created", text="é\u2028") + event("response.completed"):
            await send(body(bytes([byte])))
        await send(body(b"", more=False))

    async with connected(cut) as client:
        client.send(CREATE)
        assert (await client.event())["text"] == "é\u2028"
        assert (await client.event())["type"] == "response.completed"


async def test_after_an_hour_a_connection_takes_no_new_response() -> None:
    now = 0.0
    async with connected(clock=lambda: now) as client:
        client.send(CREATE)
        assert (await client.event())["type"] == "response.created"
        assert (await client.event())["type"] == "response.completed"
        now = 3_600.0
        client.send(CREATE)
        found = await client.event()
        assert found["error"]["code"] == "websocket_connection_limit_reached"


async def test_a_client_that_leaves_ends_its_request() -> None:
    begun, seen = asyncio.Event(), []

    async def waiting(scope: Any, receive: Any, send: Any, **options: Any) -> None:
        assert (await receive())["type"] == "http.request"
        begun.set()
        seen.append((await receive())["type"])

    async with connected(waiting) as client:
        client.send(CREATE)
        await begun.wait()
    assert seen == ["http.disconnect"]


async def test_each_request_has_an_id_of_its_own() -> None:
    ids: list[str] = []

    async def noted(scope: Any, receive: Any, send: Any, **options: Any) -> None:
        ids.append(scope["asgi_aiproxy.request_id"])
        assert (scope["type"], scope["method"]) == ("http", "POST")
        await complete(scope, receive, send)

    async with connected(noted) as client:
        for _ in range(2):
            client.send(CREATE)
            assert (await client.event())["type"] == "response.created"
            assert (await client.event())["type"] == "response.completed"
    assert len(set(ids)) == 2
