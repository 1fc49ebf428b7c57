"""WebSockets through the proxy, under real servers."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from asgi_aiproxy import Authenticate, InjectKey, Key, KeyPool, PassthroughProxy, UsageRecord
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.passthrough import key_in_subprotocol
from asgi_aiproxy.providers import OPENAI
from tests.support.passthrough_upstream import LIMITS, Frontend
from tests.support.socket_server import PATIENCE, closed_port

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

Session = Callable[[ServerConnection], Awaitable[None]]


@dataclass
class Place:
    """A proxy under a real server, in front of a WebSocket server."""

    url: str
    pool: KeyPool
    records: list[UsageRecord] = field(default_factory=list)
    requested: list[Request] = field(default_factory=list)
    sessions: list[ServerConnection] = field(default_factory=list)

    async def recorded(self) -> UsageRecord:
        async with asyncio.timeout(PATIENCE):
            while not self.records:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
        (record,) = self.records
        assert {key.in_flight for key in await self.pool.status()} == {0}
        return record


@asynccontextmanager
async def place(
    frontend: Frontend,
    session: Session,
    *,
    refuse: Callable[[Request], Response | None] = lambda request: None,
    subprotocols: list[str] | None = None,
    plain: bool = False,
    auth: Any = None,
    wrap: Any = None,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Place]:
    """`plain` leads to a URL, otherwise to OpenAI with two keys."""
    pool = KeyPool([Key("sk-first-key", id="1"), Key("sk-second-key", id="2")])
    made = Place("", pool)

    async def record(record: UsageRecord) -> None:
        made.records.append(record)

    def requested(connection: ServerConnection, request: Request) -> Response | None:
        made.requested.append(request)
        return refuse(request)

    async def run(connection: ServerConnection) -> None:
        made.sessions.append(connection)
        await session(connection)

    async with serve(
        run, "127.0.0.1", 0, process_request=requested, subprotocols=subprotocols, **(options or {})
    ) as server:  # type: ignore[call-overload]
        port = server.sockets[0].getsockname()[1]
        upstream = f"http://127.0.0.1:{port}"
        changes = {"auth": auth} if auth is not None else {}
        row = OPENAI.using(pool, base_url=upstream + "/v1", **changes)
        proxy = PassthroughProxy(upstream if plain else row, record=record, timeouts=LIMITS, **more)
        frontend.app = wrap(proxy, pool) if wrap is not None else proxy
        made.url = f"ws://127.0.0.1:{frontend.port}"
        async with proxy:
            yield made


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def idle(connection: ServerConnection) -> None:
    await connection.wait_closed()


def realtime(url: str, **options: Any) -> connect:
    options.setdefault("compression", None)
    return connect(f"{url}/v1/realtime?model=gpt-realtime", proxy=None, **options)


# ── messages ─────────────────────────────────────────────────────────────────


async def test_text_and_bytes_pass_in_both_directions(frontend: Frontend) -> None:
    async with place(frontend, echo) as at, realtime(at.url) as client:
        for message in ("hello", "grüße ✓", b"\x00\xff" * 10, "", b"", "x" * 300_000):
            await client.send(message)
            assert await client.recv() == message


async def test_messages_pass_in_order_while_both_talk(frontend: Frontend) -> None:
    async def talk(connection: ServerConnection) -> None:
        async def count() -> None:
            for number in range(300):
                await connection.send(f"down {number}")

        task = asyncio.ensure_future(count())
        got = [await connection.recv() for _ in range(300)]
        await task
        await connection.send(json.dumps(got))
        await connection.wait_closed()

    async with place(frontend, talk) as at, realtime(at.url) as client:
        for number in range(300):
            await client.send(f"up {number}")
        assert [await client.recv() for _ in range(300)] == [f"down {n}" for n in range(300)]
        assert json.loads(await client.recv()) == [f"up {n}" for n in range(300)]


async def test_a_fragmented_message_arrives_whole(frontend: Frontend) -> None:
    async with place(frontend, echo) as at, realtime(at.url) as client:
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"


async def test_idle_clients_stay_connected_and_pings_are_answered(frontend: Frontend) -> None:
    async with place(frontend, echo) as at, realtime(at.url) as client:
        await (await client.ping())
        await (await at.sessions[0].ping())
        await asyncio.sleep(0.3)
        await client.send("still there")
        assert await client.recv() == "still there"


async def test_a_slow_client_slows_the_upstream(frontend: Frontend) -> None:
    sent = 0

    async def flood(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(1000):
            await connection.send(b"x" * 65536)
            sent += 65536

    slow = {"max_queue": 1, "ping_interval": None}
    async with place(frontend, flood) as at, realtime(at.url, **slow) as client:
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.25)
        assert sent < 32 * 1024 * 1024
        for _ in range(1000):
            await client.recv()


# ── the end ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "x"), (4999, "é")])
async def test_the_upstreams_close_reaches_the_client(
    frontend: Frontend, code: int, reason: str
) -> None:
    async def closes(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, reason)

    async with place(frontend, closes) as at, realtime(at.url) as client:
        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)
        record = await at.recorded()
        assert (record.outcome, record.status) == ("done", 101)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3000, "done"), (4999, "")])
async def test_the_clients_close_reaches_the_upstream(
    frontend: Frontend, code: int, reason: str
) -> None:
    async with place(frontend, idle) as at:
        async with realtime(at.url) as client:
            await client.close(code, reason)
            async with asyncio.timeout(PATIENCE):
                await at.sessions[0].wait_closed()
        if frontend.server != "hypercorn":  # which does not report it
            assert at.sessions[0].close_code == code
        if frontend.server == "uvicorn":  # the only server that reports it
            assert at.sessions[0].close_reason == reason
        await at.recorded()


async def test_a_client_whose_connection_is_lost_frees_the_upstream(frontend: Frontend) -> None:
    async with place(frontend, idle) as at:
        client = await realtime(at.url)
        client.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await at.sessions[0].wait_closed()
        await at.recorded()


async def test_an_upstream_failure_is_not_a_clean_end(frontend: Frontend) -> None:
    async def dies(connection: ServerConnection) -> None:
        await connection.send("one")
        connection.transport.abort()

    async with place(frontend, dies) as at, realtime(at.url) as client:
        assert await client.recv() == "one"
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        assert (await at.recorded()).outcome == "failed"


async def test_a_message_of_the_client_that_is_too_long_ends_the_session(
    frontend: Frontend,
) -> None:
    async with place(frontend, echo, max_message=1000) as at, realtime(at.url) as client:
        await client.send("x" * 1000)
        assert len(await client.recv()) == 1000
        await client.send("x" * 1001)
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_a_message_of_the_upstream_that_is_too_long_ends_the_session(
    frontend: Frontend,
) -> None:
    async def shouts(connection: ServerConnection) -> None:
        await connection.send("x" * 1001)
        await connection.wait_closed()

    async with place(frontend, shouts, max_message=1000) as at, realtime(at.url) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert at.sessions[0].close_code == 1009


# ── the handshake ────────────────────────────────────────────────────────────


async def test_the_key_of_the_pool_replaces_the_callers(frontend: Frontend) -> None:
    async with place(frontend, echo) as at:
        headers = {"Authorization": "Bearer caller-token", "OpenAI-Beta": "realtime=v1"}
        async with realtime(at.url, additional_headers=headers) as client:
            assert client.response is not None
            if frontend.server != "granian":  # which leaves headers of the handshake out
                assert client.response.headers["x-auth-id"] == "1"
        (request,) = at.requested
        assert request.path == "/v1/realtime?model=gpt-realtime"
        assert request.headers["authorization"] == "Bearer sk-first-key"
        assert request.headers["openai-beta"] == "realtime=v1"
        assert "caller-token" not in str(request.headers)


async def test_a_key_in_the_browsers_subprotocol_is_removed(frontend: Frontend) -> None:
    offered = ["realtime", "openai-insecure-api-key.caller-token", "openai-beta.realtime-v1"]
    async with place(frontend, echo, subprotocols=["realtime"]) as at:
        async with realtime(at.url, subprotocols=offered) as client:
            assert client.subprotocol == "realtime"
        (request,) = at.requested
        assert request.headers["sec-websocket-protocol"] == "realtime, openai-beta.realtime-v1"
        assert request.headers["authorization"] == "Bearer sk-first-key"


async def test_the_gateways_key_may_be_sent_as_a_subprotocol_and_is_never_returned(
    frontend: Frontend,
) -> None:
    def greedy(connection: ServerConnection, offered: Any) -> Any:
        return next((each for each in offered if "api-key" in each), None)

    async with place(
        frontend, echo, auth=key_in_subprotocol(), options={"select_subprotocol": greedy}
    ) as at:
        async with realtime(at.url) as client:
            assert client.subprotocol is None
            assert "sk-" not in str(client.response)
        (request,) = at.requested
        assert request.headers["sec-websocket-protocol"] == "openai-insecure-api-key.sk-first-key"


async def test_a_subprotocol_is_negotiated_by_client_and_upstream(frontend: Frontend) -> None:
    async with (
        place(frontend, echo, plain=True, subprotocols=["b", "a"]) as at,
        connect(f"{at.url}/chat", subprotocols=["a", "b"], proxy=None) as client,
    ):
        assert client.subprotocol in ("a", "b")
        assert at.sessions[0].subprotocol == client.subprotocol


async def test_an_application_gets_headers_cookies_and_the_mount(frontend: Frontend) -> None:
    headers = {"Cookie": "a=1", "X-Own": "2", "Authorization": "Bearer theirs"}
    async with place(frontend, echo, plain=True) as at:
        async with connect(f"{at.url}/ws?x=%2F", additional_headers=headers, proxy=None) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
        (request,) = at.requested
        assert request.path == "/ws?x=%2F"
        assert {n: request.headers[n] for n in headers} == headers
        assert request.headers["x-forwarded-proto"] == "http"


@pytest.mark.parametrize("path", ["/v1/organization/x", "/v1/files/%2e%2e/x", "/v1/realtime/../x"])
async def test_a_path_that_is_not_served_is_refused_before_the_upstream_is_connected(
    frontend: Frontend, path: str
) -> None:
    async with place(frontend, echo) as at:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(at.url + path, proxy=None):
                pass
        assert 400 <= caught.value.response.status_code < 500
        assert at.requested == []


async def test_a_refusal_of_the_upstream_is_forwarded(frontend: Frontend) -> None:
    def refuse(request: Request) -> Response:
        from websockets.datastructures import Headers

        body = b'{"error":"no such model"}'
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
        return Response(404, "Not Found", headers, body)

    async with place(frontend, echo, refuse=refuse) as at:
        with pytest.raises(InvalidStatus) as caught:
            async with realtime(at.url):
                pass
        response = caught.value.response
        if frontend.server == "uvicorn":  # it can
            assert response.status_code == 404
            assert response.body == b'{"error":"no such model"}'
        assert 400 <= response.status_code < 500
        assert (await at.recorded()).status == 404


async def test_a_refusal_does_not_show_the_key(frontend: Frontend) -> None:
    def refuse(request: Request) -> Response:
        from websockets.datastructures import Headers

        body = f"not with {request.headers['authorization']}".encode()
        headers = Headers({"X-Debug": "sk-first-key", "Content-Length": str(len(body))})
        return Response(403, "No", headers, body)

    async with place(frontend, echo, refuse=refuse) as at:
        with pytest.raises(InvalidStatus) as caught:
            async with realtime(at.url):
                pass
        response = caught.value.response
        assert response.status_code == 403
        if frontend.server == "uvicorn":  # it can
            assert response.body == b"not with Bearer [key]*******"
            assert response.headers["x-debug"] == "[key]*******"
        assert "sk-first-key" not in f"{response.headers} {response.body!r}"


async def test_neither_the_handshake_nor_the_close_shows_the_key(frontend: Frontend) -> None:
    async def session(connection: ServerConnection) -> None:
        await connection.close(4001, "no more for sk-first-key")

    def reported(connection: ServerConnection, request: Request, response: Response) -> Response:
        response.headers["X-Debug"] = "sk-first-key"
        return response

    async with (
        place(frontend, session, options={"process_response": reported}) as at,
        realtime(at.url) as client,
    ):
        assert "sk-first-key" not in str(client.response and client.response.headers)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert "sk-first-key" not in (client.close_reason or "")
        if client.close_code == 4001:  # some servers forward no codes
            assert client.close_reason in ("no more for [key]*******", "")


async def test_messages_of_the_upstream_do_not_show_the_key(frontend: Frontend) -> None:
    long = "x" * 10_000

    async def session(connection: ServerConnection) -> None:
        await connection.send('{"type":"note","text":"sk-first-key"}')
        await connection.send(json.dumps({"type": "error", "text": "sk-first-key", "more": long}))
        await connection.send(b'{"type":"error","message":"sk-first-key"}')
        await connection.send(b"\x00sk-first-key")  # not a message but sound

    async with place(frontend, session) as at, realtime(at.url) as client:
        for _ in range(3):
            message = await client.recv()
            text = message if isinstance(message, str) else message.decode()
            assert "[key]*******" in text
            assert "sk-first-key" not in text
        assert await client.recv() == b"\x00sk-first-key"


@pytest.mark.parametrize("status", [429, 401])
async def test_after_a_refused_key_the_next_one_is_used(frontend: Frontend, status: int) -> None:
    from websockets.datastructures import Headers

    def refuse(request: Request) -> Response | None:
        if "first" in request.headers["authorization"]:
            return Response(status, "No", Headers({"Content-Length": "0"}), b"")
        return None

    async with place(frontend, echo, refuse=refuse) as at:
        async with realtime(at.url) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
        assert len(at.requested) == 2
        assert (await at.recorded()).key_id == "2"


async def test_a_refused_handshake_has_the_time_to_wait(frontend: Frontend) -> None:
    from websockets.datastructures import Headers

    def refuse(request: Request) -> Response:
        headers = Headers({"Content-Length": "0", "Retry-After": "20"})
        return Response(429, "No", headers, b"")

    async with place(frontend, echo, refuse=refuse) as at:
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with realtime(at.url):
                pass  # both keys cool down from here on
        with pytest.raises((InvalidStatus, ConnectionClosed)) as refused:
            async with realtime(at.url):
                pass
        response = getattr(refused.value, "response", None)
        # (Some servers cannot answer a handshake with a response.)
        if response is not None and response.status_code != 403:
            assert response.status_code == 429
            assert 0 < int(response.headers["retry-after"]) <= 20


async def test_a_redirect_is_not_followed(frontend: Frontend) -> None:
    from websockets.datastructures import Headers

    def refuse(request: Request) -> Response:
        headers = Headers({"Location": "/v1/elsewhere", "Content-Length": "0"})
        return Response(302, "Found", headers, b"")

    async with place(frontend, echo, refuse=refuse) as at:
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with realtime(at.url) as client:
                client.process_redirect = lambda error: error  # type: ignore[attr-defined]
        assert {request.path for request in at.requested} == {"/v1/realtime?model=gpt-realtime"}


async def test_no_server_listens(frontend: Frontend) -> None:
    with closed_port() as port:
        frontend.app = PassthroughProxy(f"http://127.0.0.1:{port}", timeouts=LIMITS)
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{frontend.port}/x", proxy=None):
                pass
        assert caught.value.response.status_code in (502, 403)


async def test_a_disconnect_in_the_handshake_frees_the_key(frontend: Frontend) -> None:
    if frontend.server == "granian":
        pytest.skip("it reports nothing before the handshake is over: the connect timeout applies")
    reached = asyncio.Event()
    gone = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        await reader.read()
        gone.set()
        writer.close()

    pool = KeyPool(["sk-1"])
    async with await asyncio.start_server(deaf, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        row = OPENAI.using(pool, base_url=f"http://127.0.0.1:{port}/v1")
        frontend.app = PassthroughProxy(row, timeouts=LIMITS)
        task = asyncio.ensure_future(
            connect(f"ws://127.0.0.1:{frontend.port}/v1/realtime", proxy=None).__aenter__()
        )
        async with asyncio.timeout(PATIENCE):
            await reached.wait()
            assert [key.in_flight for key in await pool.status()] == [1]
            task.cancel()
            await gone.wait()
            while (await pool.status())[0].in_flight:
                await asyncio.sleep(0.002)


async def test_without_the_library_the_error_says_what_is_missing(
    frontend: Frontend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(frontend, echo) as at:
        monkeypatch.setattr("asgi_aiproxy.passthrough.websocket.installed", lambda: False)
        with pytest.raises(InvalidStatus) as caught:
            async with realtime(at.url):
                pass
        assert caught.value.response.status_code in (501, 403)
        assert "pip install 'asgi-aiproxy[realtime]'" in caplog.text


# ── with others ──────────────────────────────────────────────────────────────


async def test_websockets_work_behind_authenticate_and_with_an_injected_key(
    frontend: Frontend,
) -> None:
    def wrap(proxy: PassthroughProxy, pool: KeyPool) -> Any:
        tokens = static_tokens({"gateway-token": "ada"})
        return Authenticate(InjectKey(proxy, pool=pool), verify=tokens)

    async with place(frontend, echo, plain=True, wrap=wrap) as at:
        headers = {"Authorization": "Bearer gateway-token"}
        async with connect(f"{at.url}/ws", additional_headers=headers, proxy=None) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
            assert [key.in_flight for key in await at.pool.status()] == [1, 0]
        browser = ["openai-insecure-api-key.gateway-token", "chat"]
        async with connect(f"{at.url}/ws", subprotocols=browser, proxy=None):
            pass
        with pytest.raises(InvalidStatus):
            async with connect(f"{at.url}/ws", proxy=None):
                pass
        assert [r.headers["authorization"] for r in at.requested] == [
            "Bearer sk-first-key",
            "Bearer sk-second-key",
        ]
        assert "gateway-token" not in str([request.headers for request in at.requested])


async def test_a_session_is_metered(frontend: Frontend) -> None:
    async def answers(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{"model":"gpt-realtime-1"}}')
        usage = {"total_tokens": 13, "input_tokens": 9, "output_tokens": 4}
        async for _ in connection:
            await connection.send(
                json.dumps({"type": "response.done", "response": {"usage": usage}})
            )

    async with place(frontend, answers) as at:
        async with realtime(at.url) as client:
            await client.recv()
            for _ in range(2):
                await client.send('{"type":"response.create"}')
                await client.recv()
        record = await at.recorded()
        assert record.usage == Usage(input=18, output=8)
        assert (record.operation, record.requested_model, record.model) == (
            "realtime",
            "gpt-realtime",
            "gpt-realtime-1",
        )


async def test_websockets_work_over_tls_with_a_configured_ca(frontend: Frontend) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with serve(echo, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        frontend.app = PassthroughProxy(url, timeouts=LIMITS, ca=authority.cert_pem.bytes())
        async with connect(f"ws://127.0.0.1:{frontend.port}/x", proxy=None) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
        frontend.app = PassthroughProxy(url, timeouts=LIMITS)
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{frontend.port}/x", proxy=None):
                pass
        assert caught.value.response.status_code in (502, 403)
