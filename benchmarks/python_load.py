"""The mock and the load in Python, where there is no C compiler: as upstream.c and load.c, slower.

`python -m benchmarks.python_load upstream BOARD FOLDER`
`python -m benchmarks.python_load load BOARD PORT CONNECTIONS PAUSE REQUEST...`
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import sys
import time
from collections.abc import Iterator
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import traffic
from benchmarks.servers import HOST

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
    b"x-request-id: req_0123456789abcdef\r\ntransfer-encoding: chunked\r\n\r\n"
)
MODEL = re.compile(rb"[/\"](burst|chunks|paced|alone)-(\d+)(?:-(\d+))?")
END = b"0\r\n\r\n"
GOLDEN = 0.6180339887498949


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Format:
    """One API's answers; `line` is one of the file `formats`, see vendors.py."""

    def __init__(self, folder: Path, line: str) -> None:
        name, path, media_type = line.split(" ", 2)
        self.path = path.encode()
        self.http = HEAD % media_type.encode()
        body = (folder / f"{name}.whole").read_bytes()
        self.whole = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"x-request-id: req_0123456789abcdef\r\ncontent-length: %d\r\n\r\n%s"
        ) % (len(body), body)
        self.head = (folder / f"{name}.head").read_bytes()
        deltas = io.BytesIO((folder / f"{name}.deltas").read_bytes())
        self.deltas = [deltas.read(int(n)) for n in (folder / f"{name}.sizes").read_text().split()]
        self.tail = (folder / f"{name}.tail").read_bytes()
        self.begin = self.http + chunk(self.head) + chunk(self.deltas[0])
        self.chunks = [chunk(delta) for delta in self.deltas]
        self.end = chunk(self.tail) + END

    @cache  # noqa: B019 (lives as long as the process)
    def burst(self, count: int) -> bytes:
        middle = b"".join(islice(cycle(self.deltas), count))
        return self.http + chunk(self.head + middle + self.tail) + END

    @cache  # noqa: B019
    def cut(self, count: int) -> bytes:
        return self.http + chunk(self.head) + b"".join(islice(cycle(self.chunks), count)) + self.end


class Mock(asyncio.Protocol):
    """A client's connection to the mock."""

    transport: asyncio.Transport
    begun = 0

    def __init__(self, board: traffic.Board, formats: list[Format], paced: set[Mock]) -> None:
        self.board, self.formats, self.paced = board, formats, paced
        self.read = b""
        self.timer: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()

    def data_received(self, data: bytes) -> None:
        self.read += data
        head, blank, body = self.read.partition(b"\r\n\r\n")
        if not blank:
            return
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if len(body) < (int(length[1]) if length else 0):
            return
        self.read = b""
        self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        self.board[traffic.REQUESTS] += 1
        line = head.partition(b"\r\n")[0]
        with_usage = b'"include_usage":true' in body
        formats = self.formats if with_usage else self.formats[1:]
        format = next((each for each in formats if each.path in line), formats[0])
        model = MODEL.search(line) or MODEL.search(body)
        match model.groups() if model else ():
            case (b"burst", count, _):
                self.transport.write(format.burst(int(count)))
            case (b"chunks", count, _):
                self.transport.write(format.cut(int(count)))
            case (b"paced" | b"alone", count, rate):  # the loop's timers tick anyway
                self.transport.write(format.begin)
                self.format, self.sent, self.total = format, 1, int(count)
                self.interval = 1 / int(rate)
                Mock.begun += 1
                self.due = self.loop.time() + Mock.begun * GOLDEN % 1 * self.interval
                self.timer = self.loop.call_at(self.due, self.step)
                self.paced.add(self)
                self.board[traffic.STREAMS] = len(self.paced)
            case _:
                self.transport.write(format.whole)

    def step(self) -> None:
        chunks = self.format.chunks
        self.transport.write(chunks[self.sent % len(chunks)])
        self.board[traffic.EVENTS] += 1
        self.sent += 1
        self.due += self.interval
        if self.sent >= self.total:
            self.finish()
        else:
            self.timer = self.loop.call_at(self.due, self.step)

    def finish(self) -> None:
        self.leave()
        self.transport.write(self.format.end)

    def leave(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.paced.discard(self)
        self.board[traffic.STREAMS] = len(self.paced)


async def upstream(board: traffic.Board, folder: Path) -> None:
    formats = [Format(folder, line) for line in (folder / "formats").read_text().splitlines()]
    paced: set[Mock] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Mock(board, formats, paced), HOST, 0, backlog=4096)
    board[traffic.READY] = server.sockets[0].getsockname()[1]
    while True:
        await asyncio.sleep(0.02)
        if board[traffic.FINISH]:
            for mock in list(paced):
                mock.finish()


class Client(asyncio.Protocol):
    """One of the clients: sends a request again after each answer, and a pause in seconds."""

    transport: asyncio.Transport

    def __init__(self, board: traffic.Board, requests: Iterator[bytes], pause: float) -> None:
        self.board, self.requests, self.pause = board, requests, pause
        self.refused = 0.0
        self.got = self.left = 0
        self.buffer = b""
        self.state = self.head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.begin()

    def begin(self) -> None:
        self.got, self.buffer, self.state = 0, b"", self.head
        self.sent_at = time.perf_counter_ns()
        self.transport.write(next(self.requests))

    def connection_lost(self, exc: Exception | None) -> None:
        self.board[traffic.ERRORS] += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.state():
            pass

    def head(self) -> bool:
        head, blank, rest = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return False
        self.buffer = rest
        self.refused = 0.0
        if not head.startswith(b"HTTP/1.1 200"):
            self.board[traffic.ERRORS] += 1
            after = re.search(rb"\r\nretry-after: *(\d+)", head, re.IGNORECASE)
            self.refused = float(after[1]) if after else 0.0
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        self.left = int(length[1]) if length else 0
        self.state = self.plain if length else self.chunked
        return True

    def plain(self) -> bool:
        self.took(len(self.buffer))
        self.left -= len(self.buffer)
        self.buffer = b""
        return self.left <= 0 and self.complete()

    def chunked(self) -> bool:
        line, end, rest = self.buffer.partition(b"\r\n")
        size = int(line, 16) if end else 0
        if not end or len(rest) < size + 2:
            return False
        self.took(size)
        self.buffer = rest[size + 2 :]
        return size > 0 or self.complete()

    def took(self, size: int) -> None:
        board = self.board
        if size and not self.got:
            at = board[traffic.SAMPLES]
            board[traffic.HEAD_SIZE + at % traffic.RING] = time.perf_counter_ns() - self.sent_at
            board[traffic.SAMPLES] = at + 1
            board[traffic.STREAMS] += 1
        self.got += size
        board[traffic.BYTES] += size

    def complete(self) -> bool:
        board = self.board
        board[traffic.REQUESTS] += 1
        board[traffic.STREAMS] -= self.got > 0
        board[traffic.SMALLEST] = min(board[traffic.SMALLEST] or self.got, self.got)
        board[traffic.LARGEST] = max(board[traffic.LARGEST], self.got)
        wait = self.refused or self.pause * random.uniform(0.5, 1.5)
        if wait:
            asyncio.get_running_loop().call_later(wait, self.begin)
        else:
            self.begin()
        return False


async def load(
    board: traffic.Board, port: int, connections: int, pause: float, requests: list[bytes]
) -> None:
    loop = asyncio.get_running_loop()
    for number in range(connections):
        first = number % len(requests)
        own = cycle([*requests[first:], *requests[:first]])
        await loop.create_connection(partial(Client, board, own, pause), HOST, port)
    board[traffic.READY] = 1
    await loop.create_future()


def main(mode: str, path: str, *rest: str) -> None:
    board = traffic.Board(Path(path), create=False)
    if mode == "upstream":
        uvloop.run(upstream(board, Path(rest[0])))
    else:
        port, connections, pause, *files = rest
        requests = [Path(file).read_bytes() for file in files]
        uvloop.run(load(board, int(port), int(connections), int(pause) / 1e6, requests))


if __name__ == "__main__":
    main(*sys.argv[1:])
