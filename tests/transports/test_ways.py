"""Connections to a provider: outbound proxies, certificates, HTTP/2, the environment, in
process.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import re
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import hypercorn.asyncio
import hypercorn.config
import pytest
import trustme

from asgi_aiproxy.errors import APIError, ConfigurationError, ErrorKind as ErrorKind
from asgi_aiproxy.upstream import HttpxTransport, Timeouts, Transport
from tests.support.socket_server import PATIENCE, Line, Wire, again, closed_port
from tests.transports.conftest import (
    HTTPX_GIVEN,
    KINDS,
    OWN,
    REQWEST,
    SOCKETS,
    SOCKETS_UVLOOP,
    Kind,
    close,
    post,
    rest,
)

pytestmark = pytest.mark.anyio
own = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.name)


# ── outbound proxies ─────────────────────────────────────────────────────────


class Proxy:
    """An outbound proxy: HTTP (CONNECT and whole URLs) or SOCKS5, with one user."""

    def __init__(self, context: ssl.SSLContext | None = None, *, socks: bool = False) -> None:
        self.wire = Wire(self._socks if socks else self._http, context)
        self.requested: list[str] = []
        self.authorized: list[str | None] = []
        self.seen: list[str] = []  # what passes in the clear, line by line
        self.refuse = ""

    def url(self, scheme: str, credentials: str = "") -> str:
        return f"{scheme}://{credentials}127.0.0.1:{self.wire.port}"

    async def _http(self, line: Line) -> None:
        head = await line.head()
        method, target, _ = head.line.split()
        self.requested.append(f"{method} {target}")
        self.authorized.append(head.header("proxy-authorization"))
        self.seen += [f"{name}: {value}" for name, value in head.headers]
        if self.refuse:
            await line.answer(b"", self.refuse)
        elif method == "CONNECT":
            host, _, port = target.partition(":")
            await line.send(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            await self._join(line, host, int(port))
        else:
            await line.answer(b"by the proxy")

    async def _socks(self, line: Line) -> None:
        _, count = await line.reader.readexactly(2)
        methods = await line.reader.readexactly(count)
        if 2 in methods:
            await line.send(b"\x05\x02")
            await line.reader.readexactly(1)
            user = await line.reader.readexactly((await line.reader.readexactly(1))[0])
            word = await line.reader.readexactly((await line.reader.readexactly(1))[0])
            self.authorized.append(f"{user.decode()}:{word.decode()}")
            await line.send(b"\x01\x01" if self.refuse else b"\x01\x00")
        else:
            self.authorized.append(None)
            await line.send(b"\x05\xff" if self.refuse else b"\x05\x00")
        _, _, _, kind = await line.reader.readexactly(4)
        size = 4 if kind == 1 else (await line.reader.readexactly(1))[0]
        address = await line.reader.readexactly(size)
        host = ".".join(map(str, address)) if kind == 1 else address.decode()
        port = int.from_bytes(await line.reader.readexactly(2))
        self.requested.append(f"{host}:{port}")
        await line.send(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await self._join(line, host, port)

    async def _join(self, line: Line, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            with contextlib.suppress(OSError, NotImplementedError, RuntimeError):
                sink.write_eof()

        try:
            await asyncio.gather(pump(line.reader, writer), pump(reader, line.writer))
        finally:
            writer.close()


@asynccontextmanager
async def proxied(proxy: Proxy) -> AsyncIterator[Proxy]:
    async with proxy.wire:
        yield proxy


USER = "me:pass%20WORD@"
BASIC = "Basic " + base64.b64encode(b"me:pass WORD").decode()


@pytest.mark.parametrize("credentials", ["", USER], ids=["open", "with credentials"])
async def test_plain_requests_pass_through_a_proxy(kind: Kind, credentials: str) -> None:
    async with proxied(Proxy()) as proxy:
        transport = kind(proxy=proxy.url("http", credentials))
        answer = await transport.send(post("http://provider.invalid/v1/x"))
        assert await rest(answer) == b"by the proxy"
        await answer.aclose()
        assert proxy.requested == ["POST http://provider.invalid/v1/x?key=SECRET"]
        assert proxy.authorized == [BASIC if credentials else None]
        assert "WORD" not in repr(transport)
        await close(transport)


@pytest.mark.parametrize("credentials", ["", USER], ids=["open", "with credentials"])
async def test_secure_requests_pass_through_a_tunnel_unseen(
    kind: Kind, credentials: str, server_context: ssl.SSLContext, ca: bytes
) -> None:
    seen: list[str | None] = []

    async def handler(line: Line) -> None:
        request = await line.request()
        seen.append(request.header("proxy-authorization"))
        await line.answer(b"safe")

    async with Wire(handler, server_context) as wire, proxied(Proxy()) as proxy:
        transport = kind(proxy=proxy.url("http", credentials), ca=ca)
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b"safe"
        await answer.aclose()
        assert proxy.requested == [f"CONNECT 127.0.0.1:{wire.port}"]
        assert proxy.authorized == [BASIC if credentials else None]
        assert not any("SECRET" in text for text in proxy.seen)
        assert seen == [None]  # the provider does not learn the proxy's password
        await close(transport)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_proxy_can_be_reached_over_tls(
    secure: bool, server_context: ssl.SSLContext, ca: bytes
) -> None:
    context = server_context if secure else None
    async with Wire(again(b"safe"), context) as wire, proxied(Proxy(server_context)) as proxy:
        transport = SOCKETS(proxy=proxy.url("https", USER), ca=ca)
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == (b"safe" if secure else b"by the proxy")
        await answer.aclose()
        assert proxy.authorized == [BASIC]
        await close(transport)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("credentials", ["", USER], ids=["open", "with credentials"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", [SOCKETS, SOCKETS_UVLOOP, REQWEST], ids=lambda kind: kind.name)
async def test_requests_are_sent_through_a_socks_proxy(
    kind: Kind,
    scheme: str,
    credentials: str,
    secure: bool,
    server_context: ssl.SSLContext,
    ca: bytes,
) -> None:
    context = server_context if secure else None
    async with Wire(again(b"safe"), context) as wire, proxied(Proxy(socks=True)) as proxy:
        transport = kind(proxy=proxy.url(scheme, credentials), ca=ca)
        for _ in range(2):
            answer = await transport.send(post(wire.url))
            assert await rest(answer) == b"safe"
            await answer.aclose()
        assert proxy.requested == [f"127.0.0.1:{wire.port}"]
        assert proxy.authorized == ["me:pass WORD" if credentials else None]
        await close(transport)


@own
async def test_a_request_can_have_a_proxy_of_its_own(kind: Kind) -> None:
    transport = kind()
    async with proxied(Proxy()) as one, proxied(Proxy()) as two, Wire(again()) as wire:
        for proxy in (one.url("http"), two.url("http"), None, one.url("http")):
            answer = await transport.send(post(wire.url, proxy=proxy))
            await rest(answer)
            await answer.aclose()
        assert (len(one.requested), len(two.requested), len(wire.lines)) == (2, 1, 1)
    await close(transport)


async def test_a_given_transport_does_not_send_past_the_proxy_of_a_request() -> None:
    async with Wire(again()) as wire:
        transport = HTTPX_GIVEN()
        with pytest.raises(APIError, match="proxy") as caught:
            await transport.send(post(wire.url, proxy="http://me:WORD@proxy.invalid"))
        assert caught.value.kind is ErrorKind.INTERNAL
        assert "WORD" not in str(caught.value)
        assert wire.lines == []
        await close(transport)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(
    kind: Kind, secure: bool
) -> None:
    scheme = "https" if secure else "http"
    with closed_port() as port:
        transport = kind(proxy=f"http://me:WORD@127.0.0.1:{port}")
        with pytest.raises(APIError) as caught:
            await transport.send(post(f"{scheme}://provider.invalid/"))
    assert (caught.value.kind, caught.value.code) == (ErrorKind.UPSTREAM, "connect_error")
    assert "WORD" not in str(caught.value)
    await close(transport)


async def test_a_proxy_that_refuses_is_named_without_its_password(kind: Kind) -> None:
    async with proxied(Proxy()) as proxy:
        proxy.refuse = "407 Proxy Authentication Required"
        transport = kind(proxy=proxy.url("http", "me:WORD@"))
        with pytest.raises(APIError) as caught:
            await transport.send(post("https://provider.invalid/"))
        assert (caught.value.kind, caught.value.code) == (ErrorKind.UPSTREAM, "connect_error")
        assert "WORD" not in str(caught.value)
        await close(transport)


async def test_a_socks_proxy_that_refuses_is_named_without_its_password() -> None:
    async with proxied(Proxy(socks=True)) as proxy:
        proxy.refuse = "no"
        transport = SOCKETS(proxy=proxy.url("socks5", "me:WORD@"))
        with pytest.raises(APIError, match="proxy") as caught:
            await transport.send(post("https://provider.invalid/"))
        assert "WORD" not in str(caught.value)
        await proxy.wire.opened(0)
        await close(transport)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_silent_proxy_is_given_up_in_time(scheme: str) -> None:
    async def handler(line: Line) -> None:
        await line.gone()

    async with Wire(handler) as wire, asyncio.timeout(PATIENCE):
        transport = SOCKETS(
            proxy=f"{scheme}://127.0.0.1:{wire.port}", timeouts=Timeouts(connect=0.1)
        )
        with pytest.raises(APIError) as caught:
            await transport.send(post("https://provider.invalid/"))
        assert caught.value.code == "connect_timeout"
        await wire.opened(0)
        await close(transport)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_socks_proxy_for_httpx_says_what_to_install(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    proxy = f"{scheme}://me:WORD@127.0.0.1:1080"
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'httpx[socks]'")) as set_up:
        HttpxTransport(proxy=proxy)
    # A provider's or a key's own proxy is not known before its call.
    transport = HttpxTransport()
    with pytest.raises(APIError, match=re.escape("pip install 'httpx[socks]'")) as requested:
        await transport.send(post("http://provider.invalid/", proxy=proxy))
    assert requested.value.kind is ErrorKind.INTERNAL
    assert "WORD" not in f"{set_up.value} {requested.value}"
    await transport.aclose()


@own
@pytest.mark.parametrize("proxy", ["proxy:3128", "ftp://me:WORD@proxy", "http://", "http://[x"])
def test_an_invalid_proxy_is_refused_when_it_is_set(kind: Kind, proxy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(proxy=proxy)
    assert "WORD" not in str(caught.value)


@own
@pytest.mark.parametrize("proxy", ["proxy:3128", "ftp://me:WORD@proxy", "http://", "http://[x"])
async def test_an_invalid_proxy_is_not_bypassed(kind: Kind, proxy: str) -> None:
    """A provider's or a key's proxy that cannot be used is not left out either."""
    async with Wire(again()) as wire:
        transport = kind()
        with pytest.raises(APIError, match="outbound proxy") as caught:
            await transport.send(post(wire.url, proxy=proxy))
        assert caught.value.kind is ErrorKind.INTERNAL
        assert "WORD" not in str(caught.value)
        assert wire.lines == []
        await close(transport)


# ── certificates ─────────────────────────────────────────────────────────────


@own
@pytest.mark.parametrize("form", ["bytes", "text", "path as text", "path"])
async def test_a_configured_ca_is_trusted(
    kind: Kind, form: str, ca: bytes, tmp_path: Path, server_context: ssl.SSLContext
) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(ca)
    forms = {"bytes": ca, "text": ca.decode(), "path as text": str(path), "path": path}
    transport = kind(ca=forms[form])
    async with Wire(again(b"safe"), server_context) as wire:
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b"safe"
        await answer.aclose()
    await close(transport)


async def test_a_trusted_certificate_for_another_host_is_refused(
    kind: Kind, ca: bytes, authority: trustme.CA
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("somebody-else.example").configure_cert(context)
    transport = kind(ca=ca)
    async with Wire(again(), context) as wire:
        with pytest.raises(APIError, match="certificate"):
            await transport.send(post(wire.url))
    await close(transport)


@own
@pytest.mark.parametrize(
    "ca",
    [
        b"nonsense",
        b"",
        b"\xff\xfe",
        "/no/such/file.pem",
        Path("/no/such/file.pem"),
        "",
        "/tmp",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
    ids=repr,
)
def test_an_invalid_ca_is_refused_when_it_is_set(kind: Kind, ca: Any) -> None:
    with pytest.raises(ConfigurationError, match="CA"):
        kind(ca=ca)


async def test_a_body_until_the_connection_ends_is_whole_over_tls(
    kind: Kind, ca: bytes, server_context: ssl.SSLContext
) -> None:
    async def handler(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\n\r\n", b"to the end")

    transport = kind(ca=ca)
    async with Wire(handler, server_context) as wire:
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b"to the end"
        await answer.aclose()
    await close(transport)


async def test_large_bodies_pass_over_tls_and_connections_are_used_again(
    kind: Kind, ca: bytes, server_context: ssl.SSLContext
) -> None:
    whole = bytes(range(256)) * 8_000  # 2 MB

    async def handler(line: Line) -> None:
        while True:
            request = await line.request()
            await line.answer(request.body)

    transport = kind(ca=ca)
    async with Wire(handler, server_context) as wire:
        for _ in range(3):
            answer = await transport.send(post(wire.url, whole, streamed=True))
            assert await rest(answer) == whole
            await answer.aclose()
        assert len(wire.lines) == 1
    await close(transport)


# ── HTTP/2 ───────────────────────────────────────────────────────────────────


async def version(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers with the HTTP version of the request."""
    if scope["type"] == "http":
        body = scope["http_version"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("http2", [False, True], ids=["not asked for", "asked for"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_http2_is_used_only_if_requested(
    kind: Kind, http2: bool, ca: bytes, authority: trustme.CA, tmp_path: Path
) -> None:
    if kind.library == "sockets" and http2:
        pytest.skip("default_transport(http2=True) is another one")
    certificate = authority.issue_cert("127.0.0.1")
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    config = hypercorn.config.Config()
    config.certfile = config.keyfile = str(pem)
    with closed_port() as port:
        pass
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    end = threading.Event()

    async def serve() -> None:
        # It stumbles over connections that are closed without a word; that is not our matter.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        await hypercorn.asyncio.serve(
            version,  # type: ignore[arg-type]
            config,
            shutdown_trigger=functools.partial(asyncio.to_thread, end.wait),
        )

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    transport = kind(ca=ca, http2=True) if http2 else kind(ca=ca)
    try:
        await _until_served(port)
        answer = await transport.send(post(f"https://127.0.0.1:{port}"))
        assert await rest(answer) == (b"2" if http2 else b"1.1")
        await answer.aclose()
    finally:
        await close(transport)
        end.set()
        await asyncio.to_thread(thread.join, PATIENCE)


async def _until_served(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)  # the server has no event for being ready
            else:
                writer.close()
                return


# ── the environment ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(
    kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Wire(again(b"direct")) as wire, proxied(Proxy()) as proxy:
        monkeypatch.setenv(name, proxy.url("http"))
        transport = kind()
        answer = await transport.send(post(wire.url))
        assert await rest(answer) == b"direct"
        await answer.aclose()
        assert proxy.requested == []
        await close(transport)


# ── in process ───────────────────────────────────────────────────────────────


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Path", b"/")]})
    await send({"type": "http.response.body", "body": message["body"]})


def mocked(library: Any) -> Any:
    def answer(request: Any) -> Any:
        return library.Response(201, headers={"x-path": "/"}, content=request.content)

    return library.MockTransport(answer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: httpx.ASGITransport(echo),
        lambda: httpx2.ASGITransport(echo),
        lambda: mocked(httpx),
        lambda: mocked(httpx2),
    ],
    ids=["httpx asgi", "httpx2 asgi", "httpx mock", "httpx2 mock"],
)
async def test_apps_and_mocks_serve_without_a_network(make: Callable[[], Any]) -> None:
    transport = HttpxTransport(make())
    answer = await transport.send(post("http://anything", b"hello"))
    assert answer.status == 201
    assert ("x-path", "/") in answer.headers
    assert await rest(answer) == b"hello"
    await answer.aclose()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
async def test_an_app_that_fails_is_a_provider_that_failed(
    library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("a bug of SECRET")

    transport = HttpxTransport(library.ASGITransport(broken))
    with pytest.raises(APIError) as caught:
        await transport.send(post("http://anything"))
    assert caught.value.kind is ErrorKind.UPSTREAM
    assert "SECRET" not in str(caught.value)
    assert "ZeroDivisionError" in caplog.text


def test_only_httpx_transports_are_accepted() -> None:
    with pytest.raises(ConfigurationError, match="AsyncBaseTransport"):
        HttpxTransport(object())
    with pytest.raises(ConfigurationError, match="has its own"):
        HttpxTransport(httpx.AsyncHTTPTransport(), proxy="http://proxy.invalid")
    with pytest.raises(ConfigurationError, match="has its own"):
        HttpxTransport(httpx.AsyncHTTPTransport(), max_connections=5)


async def test_a_given_transport_is_not_closed() -> None:
    async with Wire(again()) as wire:
        given = httpx.AsyncHTTPTransport()
        transport: Transport = HttpxTransport(given)
        answer = await transport.send(post(wire.url))
        await rest(answer)
        await answer.aclose()
        await transport.aclose()
        assert wire.open == 1
        await given.aclose()
        await wire.opened(0)
