"""The default transport, and what it requires."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest

from asgi_aiproxy.errors import ConfigurationError
from asgi_aiproxy.upstream import HttpxTransport, ReqwestTransport, SocketTransport, Transport
from asgi_aiproxy.upstream.base import Timeouts
from asgi_aiproxy.upstream.connect import parse_destination
from asgi_aiproxy.upstream.socket_transport import _Pool
from tests.support.socket_server import PATIENCE, Line, Wire, again, deaf_port
from tests.transports.conftest import SOCKETS, SOCKETS_UVLOOP, Kind, close, post, rest

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, logging, sys
{without}
logging.basicConfig(format="LOG %(message)s")

import openai
from asgi_aiproxy import OpenAIShim
from asgi_aiproxy.providers import ANTHROPIC, OPENAI
from asgi_aiproxy.testing import MockProvider, serve
from asgi_aiproxy.upstream import default_transport

async def main():
    mock = MockProvider()
    async with serve(mock) as vendor:
        rows = OPENAI.using("sk", base_url=vendor + "/v1"), ANTHROPIC.using("sk", base_url=vendor)
        for row in rows:
            transport = default_transport({options})
            print(type(transport).__name__)
            async with OpenAIShim(row, transport=transport) as app, serve(app) as url:
                client = openai.AsyncOpenAI(base_url=url + "/v1", api_key="-", max_retries=0)
                ask = dict(model="m", messages=[dict(role="user", content="Hi")])
                answer = await client.chat.completions.create(**ask)
                print(answer.choices[0].message.content)
                stream = await client.chat.completions.create(**ask, stream=True)
                parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
                print("".join(parts))
            await transport.aclose()

asyncio.run(main())
print(sys.modules.get("pyreqwest") is not None)
"""
WITHOUT = 'sys.modules["pyreqwest"] = None\n'
WITHOUT_BOTH = WITHOUT + 'sys.modules["h2"] = None\n'


def run(without: str = "", options: str = "") -> tuple[list[str], str]:
    """The output of a program that serves and calls a gateway, and its log."""
    program = PROGRAM.replace("{without}", without).replace("{options}", options)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    logged = "\n".join(line for line in done.stderr.splitlines() if line.startswith("LOG"))
    return done.stdout.split("\n")[:-1], logged


SAID = "Hello from the mock."


def test_the_default_transport_is_the_packages_own() -> None:
    printed, logged = run(WITHOUT)
    assert printed == ["SocketTransport", SAID, SAID] * 2 + ["False"]
    assert logged == ""


def test_http2_is_pyreqwests() -> None:
    printed, logged = run(options="http2=True")
    assert printed == ["ReqwestTransport", SAID, SAID] * 2 + ["True"]
    assert logged == ""


def test_http2_uses_httpx_if_pyreqwest_cannot_be_imported_and_logs_that_once() -> None:
    printed, logged = run(WITHOUT, "http2=True")
    assert printed == ["HttpxTransport", SAID, SAID] * 2 + ["False"]
    assert logged.count("HTTP/2 is sent by httpx") == 1
    assert "pip install 'asgi-aiproxy[http2]'" in logged


def test_http2_without_pyreqwest_and_h2_is_refused_at_once_with_what_to_install() -> None:
    program = (
        "import sys\n" + WITHOUT_BOTH + "from asgi_aiproxy.upstream import default_transport\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + "default_transport(http2=True)"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "ConfigurationError" in last
    assert "pip install 'asgi-aiproxy[http2]'" in last
    assert "pip install 'httpx[http2]'" in last


@pytest.mark.parametrize("make", [SocketTransport, ReqwestTransport, HttpxTransport])
def test_transports_show_no_secret(make: Any) -> None:
    transport = make(proxy="http://me:WORD@proxy.invalid:3128")
    assert "WORD" not in repr(transport)


# ── addresses ────────────────────────────────────────────────────────────────


async def test_a_host_whose_first_address_is_dead_is_reached_by_the_next() -> None:
    transport = SOCKETS(timeouts=Timeouts(connect=PATIENCE))
    loop = asyncio.get_running_loop()
    async with Wire(again()) as wire:
        with deaf_port() as deaf:

            async def addresses(host: str, port: int, **options: Any) -> list[Any]:
                tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
                refused = (*tcp, ("127.0.0.1", 1))
                return [refused, (*tcp, ("127.0.0.1", deaf)), (*tcp, ("127.0.0.1", wire.port))]

            loop.getaddrinfo = addresses  # type: ignore[method-assign, assignment]
            async with asyncio.timeout(8.0):
                answer = await transport.send(post("http://several.example"))
            assert await rest(answer) == b"{}"
            await answer.aclose()
    await close(transport)


async def test_ipv6_addresses_are_understood() -> None:
    try:
        wire = Wire(again(), host="::1")
        await wire.__aenter__()
    except OSError:
        pytest.skip("no IPv6 here")
    transport = SOCKETS()
    answer = await transport.send(post(f"http://[::1]:{wire.port}"))
    assert await rest(answer) == b"{}"
    await answer.aclose()
    await close(transport)
    await wire.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://host", "host", "/"),
        ("http://host:80/a", "host", "/a"),
        ("https://host:443/a?b=c&d", "host", "/a?b=c&d"),
        ("https://HOST:8443/a", "host:8443", "/a"),
        ("http://[::1]:8080/", "[::1]:8080", "/"),
        ("http://me:word@host/a", "host", "/a"),
        ("http://host/a b/ü?q=ö#part", "host", "/a%20b/%C3%BC?q=%C3%B6"),
        ("http://host/a%2Fb%20c/*:x", "host", "/a%2Fb%20c/*:x"),
        ("http://bücher.example/", "xn--bcher-kva.example", "/"),
    ],
)
def test_urls_are_parsed(url: str, authority: str, target: str) -> None:
    where = parse_destination(url, None)
    assert (where.authority, where.target) == (authority, target)


# ── the pool ─────────────────────────────────────────────────────────────────


async def test_slots_are_given_in_order_and_none_is_lost() -> None:
    pool = _Pool(asyncio.get_running_loop(), 1, 1, 75.0, 3600.0)
    pool.free -= 1
    order: list[int] = []

    async def wait(number: int) -> None:
        await pool.wait_for_slot(PATIENCE)
        order.append(number)
        await asyncio.sleep(0)
        pool.release_slot()

    waiting = [asyncio.ensure_future(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    pool.release_slot()
    waiting[0].cancel()  # it has its turn already, and passes it on
    await asyncio.wait(waiting)
    assert order == [2, 3, 4]
    assert pool.free == 1


async def answered(transport: Transport, url: str, **changes: Any) -> None:
    answer = await transport.send(post(url, **changes))
    await rest(answer)
    await answer.aclose()


@pytest.mark.parametrize("kind", [SOCKETS, SOCKETS_UVLOOP], ids=lambda kind: kind.name)
async def test_idle_connections_are_limited_and_closed_by_time(kind: Kind) -> None:
    transport = kind(max_keepalive=2, keepalive_expiry=0.1)
    async with Wire(again()) as wire:
        answers = [await transport.send(post(wire.url)) for _ in range(5)]
        for answer in answers:
            await rest(answer)
            await answer.aclose()
        await wire.opened(0)  # though nothing is sent any more
        await answered(transport, wire.url)
        await wire.opened(0)
        assert len(wire.lines) == 6
    await close(transport)


@pytest.mark.parametrize("kind", [SOCKETS, SOCKETS_UVLOOP], ids=lambda kind: kind.name)
async def test_connections_through_a_proxy_for_each_key_do_not_pile_up(kind: Kind) -> None:
    transport = kind(keepalive_expiry=0.1)
    async with Wire(again()) as proxy:
        for number in range(20):
            key = f"http://user{number}:word@127.0.0.1:{proxy.port}"
            await answered(transport, "http://provider.invalid/", proxy=key)
        assert len(proxy.lines) == 20
        await proxy.opened(0)
        assert isinstance(transport, SocketTransport)
        (pool,) = transport._pools.values()
        assert (pool.open, pool._idle, pool._expiry_timer) == (set(), {}, None)
    await close(transport)


async def test_a_connection_in_use_is_not_closed_by_time() -> None:
    transport = SocketTransport(keepalive_expiry=0.02)
    go = asyncio.Event()

    async def handler(line: Line) -> None:
        while True:
            request = await line.request()
            if "wait" in request.line:
                await go.wait()
            await line.answer()

    async with Wire(handler) as wire:
        slow = asyncio.ensure_future(answered(transport, wire.url + "/wait"))
        await wire.opened(1)
        for _ in range(3):
            await answered(transport, wire.url)
            await wire.opened(1)  # but the one that waits
        go.set()
        await slow
        await wire.opened(0)
    await close(transport)


async def test_a_connection_is_not_used_beyond_its_lifetime() -> None:
    transport = SocketTransport(max_lifetime=1e-9)
    async with Wire(again()) as wire:
        for count in range(1, 4):
            await answered(transport, wire.url)
            assert len(wire.lines) == count
            await wire.opened(0)
    await close(transport)


@pytest.mark.parametrize("options", [{"keepalive_expiry": 0}, {"max_lifetime": -1.0}])
def test_ages_that_are_not_positive_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be > 0 seconds"):
        SocketTransport(**options)


def test_all_public_names_can_be_imported_without_pyreqwest() -> None:
    code = (
        "import sys\n"
        f"{WITHOUT}"
        "from asgi_aiproxy import *\n"
        "try:\n"
        "    ReqwestTransport()\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'asgi-aiproxy[http2]'" in done.stdout
