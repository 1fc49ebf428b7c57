"""Memory under heavy traffic: 2 GB each way, 1,000 idle WebSockets (this file is the upstream's
script as well: `python -m benchmarks.bulk bytes|sockets PORT`)."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks import wire
from benchmarks.passthrough import served
from benchmarks.report import Result
from benchmarks.rounds import Bench
from benchmarks.rows import ISSUE
from benchmarks.servers import HOST, Server, Servers

SIZE = 2 * 10**9
SOCKETS = 1000
MEGABYTE = 1e6
PIECE = bytes(range(256)) * 1024
IDLE_TIMEOUT = 120.0  # seconds without a byte


def bulk(bench: Bench) -> list[Result]:
    """A file of 2 GB, up and down."""
    with gateway(bench, "bytes") as server:
        for _ in range(2):  # warm up: memory that any traffic allocates
            upload(server.port, SIZE // 100)
            download(server.port, SIZE // 100)
        results = []
        for way, move in (("up", upload), ("down", download)):
            bench.progress.step(f"2 GB {way}")
            before, began = server.rss(), time.perf_counter()
            with peak(server) as seen:
                move(server.port, SIZE)
            grown = (max(seen) - before) / MEGABYTE
            speed = SIZE / MEGABYTE / (time.perf_counter() - began)
            note = f"{before / MEGABYTE:.0f} MB before, {speed:.0f} MB/s"
            row = f"{ISSUE}passthrough, 2 GB {way}, memory growth"
            results.append(Result(row, [grown], "MB", 60, note=note, raw={"seen": seen}))
    return results


def sockets(bench: Bench) -> list[Result]:
    """Idle WebSocket sessions, each after one message."""
    with gateway(bench, "sockets") as server, ExitStack() as stack:
        shake(stack.enter_context(dial(server.port)))
        before = server.rss() / MEGABYTE
        bench.progress.step(f"opening {SOCKETS} WebSockets")
        opened = []
        for _ in range(SOCKETS):
            opened.append(stack.enter_context(dial(server.port)))
            shake(opened[-1])
        time.sleep(2)  # idle
        during = server.rss() / MEGABYTE
        for one in opened:
            say(one, b"still there?")
    note = f"{before:.0f} MB before, {(during - before) * 1000 / SOCKETS:.0f} kB each"
    raw = {"before": before, "during": during}
    row = f"{ISSUE}passthrough, 1,000 idle WebSockets, all of the memory"
    return [Result(row, [during], "MB", 120, note=note, raw=raw)]


@contextmanager
def gateway(bench: Bench, kind: str) -> Iterator[Server]:
    """The proxy in front of a mock vendor of this kind."""

    def vendor(_: str, port: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.bulk", kind, str(port)]

    with Servers(bench.cores.load, {}) as others, bench.servers() as servers:
        upstream = others.start(vendor, "")
        env = {"BENCH_UPSTREAM": f"http://{HOST}:{upstream.port}"}
        server = servers.start(served, "vendor", env=env)
        upstream.wait()
        server.wait()
        yield server


@contextmanager
def peak(server: Server) -> Iterator[list[int]]:
    """Resident bytes, sampled continuously within the block."""
    seen = [server.rss()]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            seen.append(server.rss())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


# clients


def dial(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=IDLE_TIMEOUT)


def head(method: str, path: str, **more: object) -> bytes:
    lines = {"host": HOST, "authorization": f"Bearer {wire.TOKEN}", **more}
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode()


def answer(connection: socket.socket, status: int) -> tuple[bytes, bytes]:
    """The head of a response, and the part of the body received with it."""
    came = b""
    while b"\r\n\r\n" not in came:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {came!r}")
        came += data
    got, _, rest = came.partition(b"\r\n\r\n")
    if not got.startswith(b"HTTP/1.1 %d" % status):
        raise RuntimeError(f"not {status}: {came[:500]!r}")
    return got, rest


def upload(port: int, size: int) -> None:
    with dial(port) as connection:
        connection.sendall(head("POST", "/v1/files", content_length=size))
        left = size
        while left:
            left -= len(piece := PIECE[:left])
            connection.sendall(piece)
        _, rest = answer(connection, 200)
        while b"}" not in rest and (data := connection.recv(65536)):
            rest += data
        if b'"bytes":%d}' % size not in rest:
            raise RuntimeError(f"body incomplete: {rest!r}")


def download(port: int, size: int) -> None:
    with dial(port) as connection:
        connection.sendall(head("GET", f"/v1/files/file-{size}/content"))
        got, rest = answer(connection, 200)
        if b"content-length: %d" % size not in got.lower():
            raise RuntimeError(f"no length: {got!r}")
        left, room = size - len(rest), bytearray(len(PIECE))
        while left:
            count = connection.recv_into(room)
            if not count:
                raise ConnectionError(f"{left} bytes are missing")
            left -= count


def shake(connection: socket.socket) -> None:
    headers = {"connection": "Upgrade", "upgrade": "websocket"}
    headers |= {"sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==", "sec_websocket_version": "13"}
    connection.sendall(head("GET", "/v1/realtime?model=whole", **headers))
    _, rest = answer(connection, 101)
    if rest:
        raise RuntimeError(f"too early: {rest!r}")
    say(connection, b"hello")


def say(connection: socket.socket, words: bytes) -> None:
    """Send a message and receive it back (pings may precede it)."""
    connection.sendall(b"\x81%c\0\0\0\0%b" % (0x80 | len(words), words))  # masked with zeros
    wanted, came = b"\x81%c%b" % (len(words), words), b""
    while not came.endswith(wanted):
        data = connection.recv(4096)
        if not data:
            raise ConnectionError(f"closed after {came!r}")
        came += data


# the upstream


async def serve_bytes(port: int) -> None:
    """Accepts any body and returns its size; serves files of any size."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, port)
    await server.serve_forever()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if wanted := re.match(rb"GET /v1/files/file-(\d+)/content ", head):
        left = int(wanted[1])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
        while left:
            left -= len(piece := PIECE[:left])
            writer.write(piece)
            await writer.drain()
        return
    size = 0
    if length := re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE):
        left = int(length[1])
        while left:
            data = await reader.read(min(left, len(PIECE)))
            if not data:
                raise ConnectionError
            left, size = left - len(data), size + len(data)
    elif b"\r\ntransfer-encoding: chunked" in head.lower():
        while some := int(await reader.readline(), 16):
            size += len(await reader.readexactly(some))
            await reader.readline()
        await reader.readline()
    answer = b'{"id":"file-1","object":"file","bytes":%d}' % size
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    writer.write(b"content-length: %d\r\n\r\n%b" % (len(answer), answer))


async def serve_sockets(port: int) -> None:
    """Echoes every message."""
    from websockets.asyncio.server import serve

    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, HOST, port, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    kinds = {"bytes": serve_bytes, "sockets": serve_sockets}
    asyncio.run(kinds[sys.argv[1]](int(sys.argv[2])))
