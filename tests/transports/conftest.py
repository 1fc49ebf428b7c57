"""The transports, one after the other, and helpers to use one."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trustme

from asgi_aiproxy.upstream import (
    HttpxTransport,
    ReqwestTransport,
    SocketTransport,
    Timeouts,
    Transport,
    UpstreamRequest,
)
from asgi_aiproxy.upstream.base import MAX_DECODED


@dataclass(frozen=True)
class Kind:
    """A kind of transport, and how to build one with these options."""

    name: str
    library: str
    make: Callable[..., Any]
    loop: str = "asyncio"

    def __call__(self, **options: Any) -> Transport:
        transport: Transport = self.make(**options)
        return transport


def _given(library: Any) -> Callable[..., Transport]:
    """A transport of httpx or httpx2, built by its user."""

    def make(
        *,
        timeouts: Timeouts | None = None,
        max_connections: int = 100,
        proxy: str | None = None,
        ca: str | Path | bytes | None = None,
        http2: bool = False,
        max_decoded: int = MAX_DECODED,
    ) -> Transport:
        context = ssl.create_default_context()
        if ca is not None:
            content = ca if isinstance(ca, bytes) else Path(ca).read_bytes()
            context.load_verify_locations(cadata=content.decode())
        carrier = library.AsyncHTTPTransport(
            verify=context,
            limits=library.Limits(max_connections=max_connections),
            proxy=proxy,
            http2=http2,
            trust_env=False,
        )
        return HttpxTransport(carrier, timeouts=timeouts, max_decoded=max_decoded)

    return make


SOCKETS = Kind("sockets", "sockets", SocketTransport)
SOCKETS_UVLOOP = Kind("sockets-uvloop", "sockets", SocketTransport, "uvloop")
REQWEST = Kind("reqwest", "reqwest", ReqwestTransport)
HTTPX = Kind("httpx", "httpx", HttpxTransport)
HTTPX_GIVEN = Kind("httpx-given", "httpx", _given(httpx))
HTTPX2_GIVEN = Kind("httpx2-given", "httpx", _given(httpx2))
KINDS = [SOCKETS, SOCKETS_UVLOOP, REQWEST, HTTPX, HTTPX_GIVEN, HTTPX2_GIVEN]
OWN = [SOCKETS, SOCKETS_UVLOOP, REQWEST, HTTPX]  # those that are made from our own options


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop for a kind of transport."""
    callspec = getattr(request.node, "callspec", None)
    kind = callspec.params.get("kind") if callspec is not None else None
    if kind is None or kind.loop == "asyncio":
        return "asyncio"
    pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def transport(kind: Kind) -> AsyncIterator[Transport]:
    made = kind()
    yield made
    await close(made)


async def close(transport: Transport) -> None:
    """Close a transport, and the one it was given."""
    await transport.aclose()
    given = getattr(transport, "_transport", None)
    if given is not None:
        await given.aclose()


def post(url: str, body: Any = b"{}", **changes: Any) -> UpstreamRequest:
    """A request as sent to providers, with secrets wherever possible."""
    options: dict[str, Any] = {
        "method": "POST",
        "headers": [
            ("content-type", "application/json"),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("user-agent", "asgi-aiproxy/test"),
            ("authorization", "Bearer sk-SECRET"),
        ],
        **changes,
    }
    return UpstreamRequest(url=f"{url}?key=SECRET", body=body, **options)


async def rest(answer: Any) -> bytes:
    """The rest of the body of a response."""
    body = b""
    while data := await answer.read():
        body += data
    return body


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def ca(authority: trustme.CA) -> bytes:
    pem: bytes = authority.cert_pem.bytes()
    return pem
