"""The Responses API over WebSockets: on every server, in every phase of its client's leaving."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgi_aiproxy import Authenticate, Budget, Limits, MemoryStore, OpenAIShim, Principal
from asgi_aiproxy.exchange.admission import GATE_KEY
from asgi_aiproxy.middleware import static_tokens
from asgi_aiproxy.middleware.quota import Quota
from asgi_aiproxy.prices import Price, Prices
from asgi_aiproxy.providers import openai_compatible
from tests.server.test_leaving import Note, Provider, check
from tests.support.scripted_upstream import CHUNK, chat_stream, sse
from tests.support.served_gateway import chunked, gateway
from tests.support.servers import SERVERS, Running, Server, _Uvicorn
from tests.support.socket_server import PATIENCE, Line

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
VENDOR = openai_compatible("http://127.0.0.1:1/v1", name="vendor")
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


def _uvicorn_wsproto(app: Any, grace: float) -> Running:
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, ws="wsproto")
    config.timeout_graceful_shutdown = int(grace)
    server = _Uvicorn(config)

    def stop() -> None:
        server.should_exit = True

    async def serve() -> None:
        await server.serve(sockets=[sock])

    return Running(sock.getsockname()[1], asyncio.ensure_future(serve()), stop)


@pytest.fixture(params=[*SERVERS, Server("uvicorn-wsproto", _uvicorn_wsproto)], ids=str)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.param
    return found


async def answer(line: Line) -> None:
    """A vendor that says two words to every request on a connection."""
    try:
        while True:
            await line.request()
            await line.send(HEAD + chunked(*chat_stream("Hello", " there"), end=True))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass


@asynccontextmanager
async def client(running: Running, **options: Any) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{running.port}/v1/responses"
    async with connect(url, proxy=None, max_size=None, **options) as connection:
        yield connection


async def create(connection: ClientConnection, **members: Any) -> None:
    members = {"model": "m", "input": "Hi", **members}
    await connection.send(json.dumps({"type": "response.create", **members}))


async def receive(connection: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE):
        return json.loads(await connection.recv())


async def events(connection: ClientConnection) -> list[Any]:
    found: list[Any] = []
    while not found or found[-1]["type"] not in ENDS:
        found.append(await receive(connection))
    return found


async def test_several_responses_on_one_connection(server: Server) -> None:
    async with (
        gateway(server, answer, provider=VENDOR) as place,
        client(place.running) as connection,
    ):
        previous = None
        for number in range(3):
            await create(connection, previous_response_id=previous)
            last = (await events(connection))[-1]
            assert last["type"] == "response.completed"
            assert last["response"]["output"][0]["content"][0]["text"] == "Hello there"
            assert last["response"]["previous_response_id"] == previous
            previous = last["response"]["id"]
            assert (await place.recorded(number + 1)).outcome == "done"
        ids = [record.request_id for record in place.records]
        assert len(set(ids)) == 3
        assert {id.rpartition(".")[0] for id in ids} == {ids[0].rpartition(".")[0]}


async def test_odd_messages_are_errors_and_the_connection_goes_on(server: Server) -> None:
    odd: list[tuple[Any, int]] = [
        ("", 400),
        ("no JSON", 400),
        ("[]", 400),
        ("{}", 400),
        ('{"type": 1}', 400),
        ('{"type": "response.unknown"}', 400),
        ('{"type": "response.create"}', 400),
        ('{"type": "response.create", "model": "m", "input": "Hi", "generate": 1}', 400),
        ('{"type": "response.create", "model": "m", "input": {"a": 1}}', 400),
        ('{"type": "response.create", "model": "m", "input": [1]}', 400),
        ('{"type": "response.create", "model": "m", "input": []}', 400),
        ('{"type": "response.create", "model": "m", "previous_response_id": 1}', 400),
        (b"\xff\xfe", 400),
        (json.dumps({"type": "response.create", "input": "x" * 30_000}), 413),
    ]
    async with (
        gateway(server, answer, provider=VENDOR, max_body=20_000) as place,
        client(place.running) as connection,
    ):
        for message, status in odd:
            await connection.send(message)
            event = await receive(connection)
            assert (event["type"], event["status"]) == ("error", status), message
            assert event["error"]["message"]
        await connection.send(json.dumps({"type": "response.create", "model": "m"}).encode())
        assert (await receive(connection))["status"] == 400  # it has no input
        for _ in range(2):  # the same as text and as bytes
            await connection.send(b'{"type":"response.create","model":"m","input":"Hi"}')
            assert (await events(connection))[-1]["type"] == "response.completed"


async def test_a_second_request_is_refused_while_one_runs(server: Server) -> None:
    provider = Provider(HEAD + chunked(*chat_stream("Hello")[:2]))
    async with (
        gateway(server, provider, provider=VENDOR) as place,
        client(place.running) as connection,
    ):
        await create(connection)
        while (await receive(connection))["type"] != "response.output_text.delta":
            pass
        for _ in range(3):
            await create(connection)
            event = await receive(connection)
            assert (event["type"], event["status"]) == ("error", 409)
            assert event["error"]["code"] == "response_already_in_progress"
        await connection.close()
        await provider.left()
        assert (await place.recorded()).outcome == "cut"


async def test_a_conversation_that_grows_too_large_is_refused(server: Server) -> None:
    async with (
        gateway(server, answer, provider=VENDOR, max_body=20_000) as place,
        client(place.running) as connection,
    ):
        await create(connection, input="x" * 12_000)
        id = (await events(connection))[-1]["response"]["id"]
        await create(connection, input="x" * 12_000, previous_response_id=id)
        event = await receive(connection)
        assert (event["type"], event["status"]) == ("error", 413)
        assert event["error"]["code"] == "conversation_too_large"
        await create(connection, input="Hi", previous_response_id=id)
        assert (await events(connection))[-1]["type"] == "response.completed"


async def test_an_idle_connection_is_closed(server: Server) -> None:
    async with (
        gateway(server, answer, provider=VENDOR, websocket_idle=0.2) as place,
        client(place.running) as connection,
    ):
        with pytest.raises(ConnectionClosed) as caught:
            await receive(connection)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1000


# leaving


async def leave(connection: ClientConnection) -> float:
    """Break the connection off; returns when."""
    connection.transport.abort()
    return time.perf_counter()


TOOL = {"type": "function", "name": "read", "parameters": {"type": "object"}}


def calling(arguments: str, finish: str | None) -> dict[str, Any]:
    """A chunk of a vendor of chat completions that calls a tool."""
    call = {"index": 0, "id": "c1", "type": "function"}
    call["function"] = {"name": "read", "arguments": arguments}
    choices = [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": finish}]
    return {**CHUNK, "choices": choices}


def tool_call() -> bytes:
    """A response that calls a tool."""
    return HEAD + chunked(*sse(calling("{}", "tool_calls"), "[DONE]"), end=True)


def call_begins() -> list[bytes]:
    """The beginning of a call."""
    return sse(calling('{"path":', None))


async def call_a_tool(line: Line) -> None:
    """A vendor whose model calls a tool in its first response on a connection."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        await line.request()
        await line.send(tool_call())
        await line.request()


@dataclass
class Watched:
    """A host that notes when a WebSocket's call of the app has ended."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    at: float = 0.0

    def __call__(self, app: Any) -> Any:
        async def host(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:
                if scope["type"] == "websocket":
                    self.at = time.perf_counter()
                    self.ended.set()

        return host


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("phase", ["before-the-first-message", "between-turns", "tool-loop"])
async def test_leaving_while_nothing_runs_ends_the_connection(
    server: Server, phase: str, how: str, record_property: Note
) -> None:
    """There is no record but those of the responses before, and no key is in use."""
    watched = Watched()
    handler = call_a_tool if phase == "tool-loop" else answer
    turns = 0 if phase == "before-the-first-message" else 1
    async with (
        gateway(server, handler, provider=VENDOR, mounted=watched) as place,
        client(place.running) as connection,
    ):
        if turns:
            await create(connection, tools=[TOOL])
            output = (await events(connection))[-1]["response"]["output"]
            assert output[0]["type"] == ("function_call" if phase == "tool-loop" else "message")
            await place.recorded()
        moment = await leave(connection) if how == "abort" else time.perf_counter()
        if how == "close":
            await connection.close()
        async with asyncio.timeout(PATIENCE):
            await watched.ended.wait()
        record_property("ended_ms", round((watched.at - moment) * 1000, 2))
        assert [key.in_flight for key in await place.pool.status()] == [0]
        assert [record.outcome for record in place.records] == ["done"] * turns


async def test_leaving_while_it_connects(server: Server, record_property: Note) -> None:
    """The connection to the provider is open, and the TLS handshake gets no answer."""
    provider = Provider(reads=False)
    vendor = gateway(server, provider, provider=VENDOR, base="https://127.0.0.1:{port}/v1")
    async with vendor as place, client(place.running) as connection:
        await create(connection)
        await provider.reach()
        await check(place, await leave(connection), record_property, provider)


async def test_leaving_while_a_failed_provider_is_about_to_be_tried_again(
    server: Server, record_property: Note
) -> None:
    refused = asyncio.Event()

    async def handler(line: Line) -> None:
        await line.request()
        await line.answer(b"{}", "503 Service Unavailable", "Content-Type: application/json")
        refused.set()
        await line.request()

    async with (
        gateway(server, handler, provider=VENDOR, backoff=60.0) as place,
        client(place.running) as connection,
    ):
        await create(connection)
        async with asyncio.timeout(PATIENCE):
            await refused.wait()
            while place.pool.key_set.states["1"].in_flight:
                await asyncio.sleep(0.005)
        await check(place, await leave(connection), record_property)
        assert len(place.wire.lines) == 1


async def test_leaving_in_a_later_turn_closes_the_provider(
    server: Server, record_property: Note
) -> None:
    """The first response calls a tool; the client leaves in the one that its result is sent for."""
    gone = asyncio.Event()
    begun = asyncio.Event()

    async def handler(line: Line) -> None:
        if len(place.wire.lines) == 1:
            await line.request()
            await line.send(tool_call())
        await line.request()
        await line.send(HEAD + chunked(*chat_stream("Hello")[:2]))
        begun.set()
        await line.gone()
        gone.set()

    async with (
        gateway(server, handler, provider=VENDOR) as place,
        client(place.running) as connection,
    ):
        await create(connection, tools=[TOOL])
        first = (await events(connection))[-1]["response"]
        result = {"type": "function_call_output", "call_id": "c1", "output": "text"}
        await create(connection, previous_response_id=first["id"], input=[result], tools=[TOOL])
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            while "delta" not in (await receive(connection))["type"]:
                pass
        moment = await leave(connection)
        assert (await place.recorded(2)).outcome == "cut"
        assert [record.outcome for record in place.records] == ["done", "cut"]
        record_property("record_ms", round((place.recorded_at - moment) * 1000, 2))
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        left = [line.gone_at for line in place.wire.lines if line.gone_at is not None]
        record_property("upstream_ms", round((left[-1] - moment) * 1000, 2))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        HEAD,
        HEAD + chunked(chat_stream()[0]),
        HEAD + chunked(*chat_stream("Hello")[:2]),
        HEAD + chunked(*chat_stream("Hello")[:2], *call_begins()),
    ],
    ids=["head", "first-byte", "first-token", "mid-stream", "mid-call"],
)
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_leaving_closes_the_provider(
    server: Server, said: bytes, how: str, record_property: Note
) -> None:
    provider = Provider(said)
    async with (
        gateway(server, provider, provider=VENDOR) as place,
        client(place.running) as connection,
    ):
        await create(connection)
        await provider.reach()
        moment = time.perf_counter()
        if how == "abort":
            moment = await leave(connection)
        else:
            closing = asyncio.ensure_future(connection.close())
        await check(place, moment, record_property, provider)
        if how == "close":
            await closing


async def test_leaving_while_it_waits_for_a_key(server: Server, record_property: Note) -> None:
    provider = Provider()
    waiting = gateway(server, provider, provider=VENDOR, wait=PATIENCE)
    async with waiting as place, client(place.running) as first, client(place.running) as second:
        await create(first)
        await provider.reach()
        await create(second)
        async with asyncio.timeout(PATIENCE):
            while not place.pool.key_set.waiting:
                await asyncio.sleep(0.005)
        moment = await leave(second)
        async with asyncio.timeout(PATIENCE):
            while not place.records:
                await asyncio.sleep(0.005)
        record_property("record_ms", round((place.recorded_at - moment) * 1000, 2))
        assert place.records[0].outcome == "cut"


# callers and their limits


TEAM = "token-of-the-team"


def limited(limits: Limits, **options: Any) -> Callable[[OpenAIShim], Any]:
    """The app behind a token with limits."""
    prices = Prices({"m": Price(input="1", output="10")}, listed=False)

    def mounted(app: OpenAIShim) -> Any:
        caller = Principal("team", limits=limits, **options)
        inner = Quota(app, store=MemoryStore(), prices=prices)
        return Authenticate(inner, verify=static_tokens({TEAM: caller}))

    return mounted


AUTHORIZED = {"additional_headers": {"authorization": f"Bearer {TEAM}"}}


async def test_each_response_counts_as_a_request() -> None:
    server = SERVERS[0]
    mounted = limited(Limits(rpm=2, concurrency=1))
    async with (
        gateway(server, answer, provider=VENDOR, mounted=mounted) as place,
        client(place.running, **AUTHORIZED) as connection,
    ):
        for number in range(2):
            await create(connection, generate=False)  # asks no provider
            assert (await events(connection))[-1]["type"] == "response.completed"
            await create(connection)
            assert (await events(connection))[-1]["type"] == "response.completed"
            assert (await place.recorded(number + 1)).principal == "team"
        await create(connection)
        event = await receive(connection)
        assert (event["type"], event["status"]) == ("error", 429)
        assert int(event["error"]["headers"]["retry-after"]) > 0
        assert (await place.recorded(3)).outcome == "refused"


async def test_a_budget_is_judged_by_the_whole_conversation() -> None:
    # Each input has at most 5,000 tokens, at a dollar a million.
    mounted = limited(Limits(budgets=(Budget.usd(0.009),)))
    async with (
        gateway(SERVERS[0], answer, provider=VENDOR, mounted=mounted) as place,
        client(place.running, **AUTHORIZED) as connection,
    ):
        small = {"max_output_tokens": 16}
        await create(connection, input="a " * 5_000, **small)
        id = (await events(connection))[-1]["response"]["id"]
        await create(connection, input="b " * 5_000, previous_response_id=id, **small)
        event = await receive(connection)
        assert (event["type"], event["status"]) == ("error", 429)
        await create(connection, input="b " * 5_000, **small)
        assert (await events(connection))[-1]["type"] == "response.completed"
        await place.recorded(3)


async def test_models_are_those_of_the_caller() -> None:
    mounted = limited(Limits(), models=("m",))
    async with (
        gateway(SERVERS[0], answer, provider=VENDOR, mounted=mounted) as place,
        client(place.running, **AUTHORIZED) as connection,
    ):
        for generate in (True, False):
            await create(connection, model="other", generate=generate)
            event = await receive(connection)
            assert (event["type"], event["status"]) == ("error", 403)
        await create(connection)
        assert (await events(connection))[-1]["type"] == "response.completed"


async def test_the_caller_is_identified_for_each_response() -> None:
    callers: dict[str, Principal] = {TEAM: Principal("team")}

    async def verify(token: str) -> Principal | None:
        return callers.get(token)

    def mounted(app: OpenAIShim) -> Any:
        return Authenticate(Quota(app, store=MemoryStore()), verify=verify)

    async with (
        gateway(SERVERS[0], answer, provider=VENDOR, mounted=mounted) as place,
        client(place.running, **AUTHORIZED) as connection,
    ):
        await create(connection)
        assert (await events(connection))[-1]["type"] == "response.completed"
        callers[TEAM] = Principal("team", limits=Limits(rpm=1))  # from now on
        await create(connection)
        assert (await events(connection))[-1]["type"] == "response.completed"
        await create(connection)
        assert (await receive(connection))["status"] == 429
        callers[TEAM] = Principal("team", models=("other",))
        await create(connection)
        assert (await receive(connection))["status"] == 403
        del callers[TEAM]
        await create(connection)
        assert (await receive(connection))["status"] == 401


async def test_limits_that_hold_for_one_request_only_refuse_the_handshake() -> None:
    class Control:
        async def admit(self, *given: Any) -> None:
            raise AssertionError("not reached")

    def mounted(app: OpenAIShim) -> Any:
        async def host(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, GATE_KEY: Control()}, receive, send)

        return host

    async with gateway(SERVERS[0], answer, provider=VENDOR, mounted=mounted) as place:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://127.0.0.1:{place.running.port}/v1/responses", proxy=None)
        assert caught.value.response.status_code == 426


# where there are no WebSockets


async def test_a_handshake_at_a_server_without_websockets_is_a_426() -> None:
    def _without(app: Any, grace: float) -> Running:
        sock = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, ws="none")
        server = _Uvicorn(config)

        def stop() -> None:
            server.should_exit = True

        async def serve() -> None:
            await server.serve(sockets=[sock])

        return Running(sock.getsockname()[1], asyncio.ensure_future(serve()), stop)

    async with gateway(Server("uvicorn-none", _without), answer, provider=VENDOR) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.running.port)
        writer.write(
            b"GET /v1/responses HTTP/1.1\r\nhost: a\r\n"
            b"upgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 426 ")
        assert b"upgrade: http/1.1\r\n" in head.lower()
        writer.close()
