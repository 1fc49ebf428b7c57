"""A disconnect from a gateway that is mounted in a host, or that serves HTTP/2."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from asgi_aiproxy import OpenAIShim
from tests.hosts.test_hosts import behind_base_http, behind_fastapi_function
from tests.server.test_leaving import Note, Provider, check
from tests.support.hosts import HOSTS, Host
from tests.support.scripted_upstream import chat_stream
from tests.support.served_gateway import HEAD, chunked, gateway
from tests.support.servers import SERVERS, Server
from tests.support.socket_client import CHAT, HI
from tests.support.socket_server import PATIENCE

pytestmark = pytest.mark.anyio

UVICORN = SERVERS[0]


def behind_gzip(app: OpenAIShim) -> Any:
    return Starlette(routes=[Mount("/ai", app)], middleware=[Middleware(GZipMiddleware)])


MIDDLEWARE = [
    Host("behind-BaseHTTPMiddleware", behind_base_http),
    Host("behind-fastapi-function", behind_fastapi_function),
    Host("behind-gzip", behind_gzip),
]


def mounted(host: Host, app: OpenAIShim) -> Any:
    return host.build(app if host in MIDDLEWARE else {host.path: app})  # type: ignore[arg-type]


@pytest.mark.parametrize("host", [*HOSTS, *MIDDLEWARE], ids=str)
async def test_while_it_waits_for_the_head(host: Host, record_property: Note) -> None:
    provider = Provider()
    async with gateway(UVICORN, provider, mounted=lambda app: mounted(host, app)) as place:
        caller = await place.caller()
        caller.post({**HI, "stream": True}, host.path + CHAT)
        await provider.reach()
        await check(place, caller.leave(), record_property, provider)


@pytest.mark.parametrize("host", [*HOSTS, *MIDDLEWARE], ids=str)
async def test_in_mid_stream(host: Host, record_property: Note) -> None:
    provider = Provider(HEAD + chunked(*chat_stream("Hel")[:2]))
    async with gateway(UVICORN, provider, mounted=lambda app: mounted(host, app)) as place:
        caller = await place.caller()
        caller.post({**HI, "stream": True}, host.path + CHAT, "Accept-Encoding: gzip")
        assert (await caller.head()).status == 200
        await caller.until(b"Hel")
        await check(place, caller.leave(), record_property, provider)


@pytest.mark.parametrize("server", [s for s in SERVERS if s.name != "uvicorn"], ids=str)
async def test_by_a_reset_of_its_stream_while_its_connection_goes_on(
    server: Server, record_property: Note
) -> None:
    """HTTP/2, as between a load balancer and the gateway."""
    provider = Provider(HEAD + chunked(*chat_stream("Hel")[:2]))
    async with gateway(server, provider) as place:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.running.port)
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        body = json.dumps({**HI, "stream": True}).encode()
        headers = [
            (":method", "POST"),
            (":path", CHAT),
            (":scheme", "http"),
            (":authority", "gateway"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ]
        client.send_headers(1, headers)
        client.send_data(1, body, end_stream=True)
        writer.write(client.data_to_send())
        said = b""
        async with asyncio.timeout(PATIENCE):
            while b"Hel" not in said:
                for event in client.receive_data(await reader.read(65536)):
                    if isinstance(event, h2.events.DataReceived):
                        said += event.data
                writer.write(client.data_to_send())
        client.reset_stream(1)
        moment = time.perf_counter()
        writer.write(client.data_to_send())
        await check(place, moment, record_property, provider)
        client.ping(b"are you?")
        writer.write(client.data_to_send())
        async with asyncio.timeout(PATIENCE):
            while not any(
                isinstance(event, h2.events.PingAckReceived)
                for event in client.receive_data(await reader.read(65536))
            ):
                pass
        writer.transport.abort()
