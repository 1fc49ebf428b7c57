"""One connection that calls share: they are sent together, and answered in their order.

What is called in one turn of the event loop leaves in one write. Nobody waits for a connection, so
there is none to run out of, and whoever is cancelled leaves the others alone.

A call is never sent twice. It ends within the time limit: when the oldest call is overdue the
connection is given up, and every call on it fails. From then on calls fail at once, while a task of
the pipe's own tries to connect until the server answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from asgi_aiproxy._background_tasks import start
from asgi_aiproxy.stores.base import StoreUnavailableError

Argument = str | bytes | int
Command = tuple[Argument, ...]

_GRACE = 0.1  # what came, or was not even sent, while the event loop was busy gets this much more
_MOST = 20_000  # calls that may wait at the same time
_PATIENCE = 10.0  # seconds without a call after which nobody tries to connect any more


class Connection(Protocol):
    """A connection to a server."""

    async def send(self, data: bytes) -> None:
        """Send; raises StoreUnavailableError."""
        ...

    async def read(self) -> Any:
        """The next reply, or `Rejected`. Raises StoreUnavailableError when the connection ends."""
        ...

    async def aclose(self) -> None:
        """Close, now."""
        ...


Dial = Callable[[], Awaitable[Connection]]


class ErrorReply(msgspec.Struct, frozen=True):
    """A reply that says no: the server's code, such as NOSCRIPT, and its words."""

    code: str
    text: str


class _Call(msgspec.Struct, eq=False):
    command: Command
    reply: asyncio.Future[Any]
    deadline: float


class Pipeline:
    """Calls to one server. `timeout` is for each, connecting included, in seconds."""

    def __init__(self, dial: Dial, *, name: str, timeout: float, pause: float = 0.25) -> None:
        self._dial = dial
        self._name = name
        self._timeout = timeout
        self._pause = pause
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forgotten: list[object] = []
        self._begin()

    def _begin(self) -> None:
        self._unsent: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._task: asyncio.Task[None] | None = None
        self._wire: Connection | None = None
        self._more = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._late: _Call | None = None
        self._down = ""  # why calls fail at once
        self._last = 0.0

    @property
    def connected(self) -> bool:
        """Whether calls leave at once."""
        return self._wire is not None

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command; the reply may be `Rejected`. Raises StoreUnavailableError."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Another loop, or another process after a fork: nothing of before can be used, nor
            # may it be closed, for the one who made it may still use it.
            if self._task is not None and not self._task.done():
                self._forgotten.append((self._task, self._wire))
            self._loop = loop
            self._begin()
        now = self._last = loop.time()
        if self._down:
            raise StoreUnavailableError(self._down)
        if len(self._sent) + len(self._unsent) >= _MOST:
            raise StoreUnavailableError(f"{self._name}: too many calls wait.")
        call = _Call(command, loop.create_future(), now + self._timeout)
        self._unsent.append(call)
        if self._timer is None:
            self._timer = loop.call_at(call.deadline, self._check)
        if self._wire is not None:
            self._more.set()
        elif self._task is None:
            self._task = start(self._connect(), what=f"connecting to {self._name}")
        return call.reply

    async def aclose(self) -> None:
        """Fail what waits, and close. A later call opens again."""
        if self._loop is not asyncio.get_running_loop():
            return
        task = self._task
        self._end(f"{self._name}: closed.")
        self._down = ""
        if task is not None:
            await asyncio.wait((task,))

    async def _connect(self) -> None:
        try:
            wire = await self._dial()
        except Exception as error:
            self._fail(_reason(error))
        else:
            await self._serve(wire)

    async def _serve(self, wire: Connection) -> None:
        self._wire = wire
        self._more.set()
        sent = self._sent  # on this connection
        writer = asyncio.ensure_future(self._write(wire, sent))
        try:
            while True:
                reply = await wire.read()
                if not sent:
                    raise StoreUnavailableError(f"{self._name}: a reply that nobody asked for.")
                call = sent.popleft()
                if not call.reply.done():
                    call.reply.set_result(reply)
                if isinstance(reply, ErrorReply) and reply.code == "READONLY":
                    raise StoreUnavailableError(f"{self._name}: the server has become a replica.")
        except Exception as error:  # of a library, too: whatever it is, the connection is no good
            if self._wire is wire:
                self._fail(_reason(error))
        finally:
            writer.cancel()
            if self._wire is wire:
                self._wire = self._task = None
            await wire.aclose()

    async def _write(self, wire: Connection, sent: deque[_Call]) -> None:
        while True:
            await self._more.wait()
            if self._wire is not wire:
                return
            self._more.clear()
            calls, self._unsent = self._unsent, []
            if calls:
                sent.extend(calls)
                try:
                    await wire.send(b"".join([encode_command(call.command) for call in calls]))
                except Exception as error:
                    if self._wire is wire:
                        self._fail(_reason(error))
                    return

    def _check(self) -> None:
        assert self._loop is not None  # noqa: S101 (it set the timer)
        self._timer = None
        waiting = self._sent or self._unsent
        if not waiting:
            return
        oldest = waiting[0]
        if oldest.deadline > self._loop.time():
            self._timer = self._loop.call_at(oldest.deadline, self._check)
        elif oldest is not self._late:
            self._late = oldest
            self._timer = self._loop.call_later(_GRACE, self._check)
        else:
            self._fail(f"{self._name}: no answer within {self._timeout:g} s.")

    def _fail(self, why: str) -> None:
        """The connection is no good: tell who waits, and try again until it is."""
        asked = self._end(why)
        if asked and self._loop is not None:
            self._down = why
            self._task = start(self._recover(), what=f"connecting to {self._name} again")

    def _end(self, why: str) -> bool:
        """Give up the connection; whether anybody waited for it."""
        calls = [*self._sent, *self._unsent]
        self._sent = deque()
        self._unsent = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in calls:
            if not call.reply.done():
                call.reply.set_exception(StoreUnavailableError(why))
        self._wire = None
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        return bool(calls)

    async def _recover(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() - self._last < _PATIENCE:
            try:
                async with asyncio.timeout(self._timeout):
                    wire = await self._dial()
            except Exception as error:
                self._down = str(error) or self._down
                await asyncio.sleep(self._pause)
            else:
                self._down = ""
                await self._serve(wire)
                return
        self._down = ""  # the next call finds out by itself
        self._task = None


def _reason(error: Exception) -> str:
    if isinstance(error, StoreUnavailableError):
        return str(error)
    return f"Redis: {type(error).__name__}: {error}"


def encode_command(command: Command) -> bytes:
    """A command as the server reads it (RESP: an array of bulk strings)."""
    parts = [f"*{len(command)}\r\n"]
    for argument in command:
        if type(argument) is bytes:
            return _with_bytes(command)
        text = argument if type(argument) is str else str(argument)
        length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        parts.append(f"${length}\r\n{text}\r\n")
    return "".join(parts).encode("utf-8", "surrogatepass")


def _with_bytes(command: Command) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        if type(argument) is not bytes:
            argument = str(argument).encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)
