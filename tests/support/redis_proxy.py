"""A Redis proxy that reads commands: it refuses some, closes the connection for some, or falsifies
replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Literal

How = Literal["error", "hang up", "no permission"]


class RedisProxy:
    """Listens in front of a server on `port`. `refused` are commands ("CLIENT", "SCRIPT"), and
    `how` is how they are refused. `falsify` gets a command and the server's reply, both as
    received, and returns another reply. `commands` are the names of all received commands.
    """

    def __init__(self, port: int, *, refused: Collection[str] = (), how: How = "error") -> None:
        self._target = port
        self.refused = refused
        self.how = how
        self.falsify: Callable[[list[bytes], bytes], bytes] = lambda command, reply: reply
        self.commands: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> RedisProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        near, far = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 24)
        try:
            while raw := await message(reader):
                command = words(raw)
                name = command[0].decode().upper()
                self.commands.append(name)
                if name in self.refused:
                    if self.how == "hang up":
                        return
                    code = "ERR unknown command" if self.how == "error" else "NOPERM no permission"
                    writer.write(f"-{code} '{name}', with args beginning with:\r\n".encode())
                    continue
                far.write(raw)
                writer.write(self.falsify(command, await message(near)))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            far.close()
            self._tasks.discard(task)


async def message(reader: asyncio.StreamReader) -> bytes:
    """One whole RESP2 message as received; empty at the end."""
    line = await reader.readline()
    if line[:1] == b"*":
        parts = [await message(reader) for _ in range(int(line[1:]))]
        return line + b"".join(parts)
    if line[:1] == b"$" and int(line[1:]) >= 0:
        return line + await reader.readexactly(int(line[1:]) + 2)
    return line


def words(raw: bytes) -> list[bytes]:
    """The words of a command."""
    found, rest = [], raw.partition(b"\r\n")[2]
    while rest:
        length, _, rest = rest.partition(b"\r\n")
        size = int(length[1:])
        found.append(rest[:size])
        rest = rest[size + 2 :]
    return found
