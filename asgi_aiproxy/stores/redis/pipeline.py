"""One connection to a Redis server, shared by all calls of the process.

Theory of operation. `call` appends a command to a list and returns a future. A writer task sends
all commands of one event loop turn in one write (RESP pipelining); the reading task resolves the
futures in the order in which commands were sent, which is the order of replies. No call waits for a
free connection, so there is no pool that could be exhausted, and a cancelled call does not disturb
others: its reply is read and dropped.

A command is never sent twice, because a write may have been carried out although its reply was
lost. Whether a repetition is safe is for the caller to know (see `stores.base`).

Time-outs. Every call has a deadline. One timer watches the oldest call: when it is overdue, the
connection is closed and all calls on it fail with StoreUnavailableError. A short grace period
lets a reply be read that arrived while the event loop was busy. From then on calls fail at once,
while a background task connects again; it stops when there were no calls for some seconds, and the
next call starts over.

Event loops. A pipeline belongs to the event loop of its first call. Calls from another loop, in
another thread or in another process after a fork, have a pipeline of their own, with a connection
of its own. If the first loop is closed, the pipeline begins again in the loop of the next call, and
leaves the old connection alone: after a fork, the parent process may still use it.
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

_GRACE = 0.1  # seconds more for what a busy event loop has not read, or not even sent, yet
_MAX_WAITING = 20_000  # calls
_RECONNECT_IDLE = 10.0  # seconds without a call after which reconnecting stops


class Connection(Protocol):
    """A connection to a server."""

    async def send(self, data: bytes) -> None:
        """Send; raises StoreUnavailableError."""
        ...

    async def read(self) -> Any:
        """The next reply, possibly ErrorReply. Raises StoreUnavailableError at the end."""
        ...

    async def aclose(self) -> None:
        """Close, now."""
        ...


Connect = Callable[[], Awaitable[Connection]]


class ErrorReply(msgspec.Struct, frozen=True):
    """An error reply: the server's code, such as NOSCRIPT, and its message."""

    code: str
    text: str


class _Call(msgspec.Struct, eq=False):
    command: Command
    reply: asyncio.Future[Any]
    deadline: float


class Pipeline:
    """Calls to one server; see above.

    `timeout` is for each call, connecting included, and `pause` between attempts to connect again,
    both in seconds.
    """

    def __init__(self, connect: Connect, *, name: str, timeout: float, pause: float = 0.25) -> None:
        self._open = connect
        self._name = name
        self._timeout = timeout
        self._pause = pause
        self._loop: asyncio.AbstractEventLoop | None = None
        self._abandoned: list[object] = []
        self._others: dict[asyncio.AbstractEventLoop, Pipeline] = {}  # of other event loops
        self._begin()

    def _begin(self) -> None:
        self._unsent: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._more = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._overdue: _Call | None = None
        self._down = ""  # the reason while calls fail at once
        self._last_call = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command; the future's result may be ErrorReply. Raises StoreUnavailableError."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                return self._of(loop).call(*command)
            # A reference to the task keeps it from being garbage collected.
            if self._task is not None and not self._task.done():
                self._abandoned.append((self._task, self._connection))
            self._loop = loop
            self._begin()
        now = self._last_call = loop.time()
        if self._down:
            raise StoreUnavailableError(self._down)
        if len(self._sent) + len(self._unsent) >= _MAX_WAITING:
            raise StoreUnavailableError(
                f"{self._name}: more than {_MAX_WAITING} calls are waiting."
            )
        call = _Call(command, loop.create_future(), now + self._timeout)
        self._unsent.append(call)
        if self._timer is None:
            self._timer = loop.call_at(call.deadline, self._check)
        if self._connection is not None:
            self._more.set()
        elif self._task is None:
            self._task = start(self._connect(), what=f"connecting to {self._name}")
        return call.reply

    def _of(self, loop: asyncio.AbstractEventLoop) -> Pipeline:
        """The pipeline of another loop."""
        if loop not in self._others:
            for other in [other for other in self._others if other.is_closed()]:
                del self._others[other]
            self._others[loop] = Pipeline(
                self._open, name=self._name, timeout=self._timeout, pause=self._pause
            )
        return self._others[loop]

    async def aclose(self) -> None:
        """Fail waiting calls of the running event loop, and close. A later call connects again."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if (other := self._others.pop(loop, None)) is not None:
                await other.aclose()
            return
        task = self._task
        self._end(f"{self._name}: closed.")
        self._down = ""
        if task is not None:
            await asyncio.wait((task,))

    async def _connect(self) -> None:
        try:
            connection = await self._open()
        except Exception as error:
            self._fail(_reason(error))
        else:
            await self._serve(connection)

    async def _serve(self, connection: Connection) -> None:
        self._connection = connection
        self._more.set()
        sent = self._sent  # on this connection
        writer = asyncio.ensure_future(self._write(connection, sent))
        try:
            while True:
                reply = await connection.read()
                if not sent:
                    raise StoreUnavailableError(f"{self._name}: a reply without a command.")
                call = sent.popleft()
                if not call.reply.done():
                    call.reply.set_result(reply)
                if isinstance(reply, ErrorReply) and reply.code == "READONLY":
                    raise StoreUnavailableError(f"{self._name}: the server has become a replica.")
        except Exception as error:  # also of redis-py: the connection cannot be used any more
            if self._connection is connection:
                self._fail(_reason(error))
        finally:
            writer.cancel()
            if self._connection is connection:
                self._connection = self._task = None
            await connection.aclose()

    async def _write(self, connection: Connection, sent: deque[_Call]) -> None:
        while True:
            await self._more.wait()
            if self._connection is not connection:
                return
            self._more.clear()
            calls, self._unsent = self._unsent, []
            if calls:
                sent.extend(calls)
                try:
                    await connection.send(
                        b"".join([encode_command(call.command) for call in calls])
                    )
                except Exception as error:
                    if self._connection is connection:
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
        elif oldest is not self._overdue:
            self._overdue = oldest
            self._timer = self._loop.call_later(_GRACE, self._check)
        else:
            self._fail(f"{self._name}: no response within {self._timeout:g} s.")

    def _fail(self, why: str) -> None:
        """Give up the connection, fail the waiting calls, and connect again if there were any."""
        had_calls = self._end(why)
        if had_calls and self._loop is not None:
            self._down = why
            self._task = start(self._recover(), what=f"connecting to {self._name} again")

    def _end(self, why: str) -> bool:
        """Give up the connection; returns whether calls were waiting."""
        calls = [*self._sent, *self._unsent]
        self._sent = deque()
        self._unsent = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in calls:
            if not call.reply.done():
                call.reply.set_exception(StoreUnavailableError(why))
        self._connection = None
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        return bool(calls)

    async def _recover(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() - self._last_call < _RECONNECT_IDLE:
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._open()
            except Exception as error:
                self._down = str(error) or self._down
                await asyncio.sleep(self._pause)
            else:
                self._down = ""
                await self._serve(connection)
                return
        self._down = ""  # the next call connects
        self._task = None


def _reason(error: Exception) -> str:
    if isinstance(error, StoreUnavailableError):
        return str(error)
    return f"Redis: {type(error).__name__}: {error}"


def encode_command(command: Command) -> bytes:
    """Encode a command (RESP: an array of bulk strings)."""
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
