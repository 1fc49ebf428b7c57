"""Responses, and connections that are reset, before the whole request was sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from asgi_aiproxy.errors import APIError
from tests.support.socket_server import PATIENCE
from tests.transports.conftest import SOCKETS, SOCKETS_UVLOOP, Kind, close, post, rest

pytestmark = pytest.mark.anyio
ours = pytest.mark.parametrize("kind", [SOCKETS, SOCKETS_UVLOOP], ids=lambda kind: kind.name)


@contextmanager
def resetting(answer: bytes) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A server that reads the beginning of a request, answers at `go`, and is gone at `gone`."""
    go, gone = threading.Event(), threading.Event()

    def serve() -> None:
        line, _ = server.accept()
        with line:
            line.recv(16)  # what it leaves makes a reset of its closing
            go.wait(PATIENCE)
            if answer:
                line.sendall(answer)
        gone.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", go, gone
        thread.join(PATIENCE)


def upload(go: threading.Event, gone: threading.Event) -> AsyncIterator[bytes]:
    async def body() -> AsyncIterator[bytes]:
        # The event loop is blocked meanwhile: received data is not read before the next write.
        go.set()
        assert gone.wait(PATIENCE)
        for _ in range(100):
            yield b"x" * 100_000

    return body()


@ours
@pytest.mark.parametrize("sized", [False, True], ids=["chunked", "length"])
async def test_a_response_before_the_end_of_the_upload_is_read_although_writing_fails(
    kind: Kind, sized: bool
) -> None:
    reported = b'{"detail": "too big"}'
    head = b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(reported)
    transport = kind()
    with resetting(head + reported) as (url, go, gone):
        headers = [("content-length", "10000000")] if sized else []
        answer = await transport.send(post(url, upload(go, gone), headers=headers))
        assert (answer.status, await rest(answer)) == (413, reported)
        await answer.aclose()
    await close(transport)


@ours
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 X\r\nContent-Le"])
async def test_a_reset_before_the_end_of_the_head_is_an_error(kind: Kind, answer: bytes) -> None:
    transport = kind()
    with resetting(answer) as (url, go, gone), pytest.raises(APIError, match="broke"):
        await transport.send(post(url, upload(go, gone), headers=[]))
    await close(transport)


@ours
async def test_the_part_of_a_body_received_before_a_reset_is_delivered(kind: Kind) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
    transport = kind()
    with resetting(head) as (url, go, gone):
        answer = await transport.send(post(url, upload(go, gone), headers=[]))
        assert await answer.read() == b"only this"
        with pytest.raises(APIError, match="broke"):
            await answer.read()
        await answer.aclose()
    await close(transport)
