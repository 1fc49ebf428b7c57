"""Hooks and guards in WebSocket sessions through the proxy, under real servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from asgi_aiproxy import UsageRecord
from asgi_aiproxy.hooks import Call, Hook, TextGuard, find_words
from asgi_aiproxy.usage.record import Outcome
from tests.passthrough.test_websocket import echo, place, realtime
from tests.support.passthrough_upstream import Frontend

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

GUARD = TextGuard(find_words(["project nemo"]), mode="window")
SAID = "Your prompt about project nemo is refused."


def events(*deltas: str) -> list[str]:
    """One response, whose text comes in pieces; the same in both APIs."""
    created = {"type": "response.created", "response": {"id": "r", "output": []}}
    pieces = [
        {"type": "response.output_text.delta", "response_id": "r", "item_id": "i", "delta": text}
        for text in deltas
    ]
    done = {"type": "response.done", "response": {"id": "r"}}
    completed = {"type": "response.completed", "response": {"id": "r"}}
    ends = [completed, done]
    return [json.dumps(event) for event in (created, *pieces, *ends)]


def speaks(*deltas: str) -> Any:
    async def session(connection: ServerConnection) -> None:
        async for _ in connection:
            for event in events(*deltas):
                await connection.send(event)

    return session


def connected(at: Any, path: str) -> Any:
    return connect(f"{at.url}/v1/{path}", proxy=None, compression=None)


PATHS = ["realtime?model=gpt-realtime", "responses"]
CREATE = json.dumps({"type": "response.create", "response": {}})


@pytest.mark.parametrize("path", PATHS)
async def test_no_piece_of_a_blocked_response_is_sent_and_the_session_ends(
    frontend: Frontend, path: str
) -> None:
    async with place(frontend, speaks("about project", " nemo"), hooks=[GUARD]) as at:
        async with connected(at, path) as client:
            await client.send(CREATE)
            error = json.loads(await client.recv())
            assert (error["type"], error["error"]["code"]) == ("error", "content_blocked")
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        assert (await at.recorded()).outcome == Outcome.REFUSED


@pytest.mark.parametrize("path", PATHS)
async def test_other_responses_pass_as_they_were_sent(frontend: Frontend, path: str) -> None:
    session = speaks("all", " well")
    async with (
        place(frontend, session, hooks=[GUARD]) as at,
        connected(at, path) as client,
    ):
        await client.send(CREATE)
        assert [await client.recv() for _ in range(4)] == events("all", " well")[:4]
        await client.send(CREATE)
        assert len([await client.recv() for _ in range(4)]) == 4


BLOCKED = json.dumps({"type": "x", "text": "project nemo"})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (BLOCKED, "content_blocked"),
        (BLOCKED.encode(), "content_blocked"),
        (b"\n " + BLOCKED.encode(), "content_blocked"),
        (b"\xef\xbb\xbf" + BLOCKED.encode(), "content_blocked"),
        (f"[{BLOCKED}]".encode(), "content_blocked"),
        (BLOCKED.encode("utf-16"), None),
    ],
)
async def test_a_blocked_message_of_a_client_ends_the_session(
    frontend: Frontend, message: str | bytes, code: str | None
) -> None:
    received: list[str | bytes] = []

    async def session(connection: ServerConnection) -> None:
        async for each in connection:
            received.append(each)
            await connection.send('{"error": {"code": "received"}}')

    async with place(frontend, session, hooks=[GUARD]) as at, realtime(at.url) as client:
        await client.send(message)
        assert json.loads(await client.recv())["error"]["code"] == code
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert received == []


async def test_a_hook_sees_the_session_its_messages_and_its_record(frontend: Frontend) -> None:
    seen: list[Any] = []

    class Look(Hook):
        async def before(self, call: Call) -> None:
            seen.append((call.operation, call.body))

        async def after(self, call: Call, record: UsageRecord) -> None:
            seen.append(record.operation)

    async with place(frontend, echo, hooks=[Look()]) as at:
        async with realtime(at.url) as client:
            await client.send(CREATE)
            assert await client.recv() == CREATE
        await at.recorded()
    assert seen == [("realtime", b""), ("realtime", CREATE.encode()), "realtime"]


async def test_a_session_is_refused_by_a_hook_or_if_it_could_not_be_checked(
    frontend: Frontend,
) -> None:
    async def refuse(call: Call) -> None:
        call.refuse("Not today.")

    async with place(frontend, echo, hooks=[refuse]) as at:
        with pytest.raises(InvalidStatus):
            async with realtime(at.url):
                pass
        assert at.requested == []
    async with place(frontend, echo, hooks=[GUARD], plain=True) as at:
        with pytest.raises(InvalidStatus):
            async with realtime(at.url):
                pass
        assert at.requested == []


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_a_refused_handshake_is_guarded(frontend: Frontend, status: int) -> None:
    def refuse(request: Request) -> Response:
        headers = Headers({"content-type": "application/json"})
        return Response(
            status, "No", headers, json.dumps({"error": {"message": SAID, "type": "t"}}).encode()
        )

    async with place(frontend, echo, refuse=refuse, hooks=[GUARD]) as at:
        with pytest.raises((InvalidStatus, ConnectionClosed)) as caught:
            await realtime(at.url)
    response = getattr(caught.value, "response", None)
    assert response is None or b"nemo" not in (response.body or b"")


async def test_the_reason_of_a_close_is_guarded(frontend: Frontend) -> None:
    async def close(connection: ServerConnection) -> None:
        await connection.close(4000, SAID)

    async with place(frontend, close, hooks=[GUARD]) as at, realtime(at.url) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert (client.close_code, client.close_reason) == (4000, "")
