"""Multipart bodies that pass through, checked, as far as the field that names the model first.

What comes before that field is kept, in memory or above a limit in a temporary file; the rest goes
from the client to the provider as it arrives. https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from typing import IO

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive, Scope
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.multipart import FormParser, parse_boundary

_IN_MEMORY = 1024 * 1024
_PIECE = 256 * 1024
_PART = 'Content-Disposition: form-data; name="model"\r\n\r\n'


class MultipartForwarder:
    """A multipart request body on its way. `open` reads up to the model; `stream` sends it on."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, seconds: float | None) -> None:
        self.content_type = _asgi.header(scope, b"content-type") or ""
        self._boundary = parse_boundary(self.content_type)
        self._form = FormParser(self._boundary)
        self._length = _asgi.content_length(scope)
        if self._length is not None and self._length > limit:
            raise _asgi.too_large(limit)
        self._receive = receive
        self._seconds = seconds  # that the client may be silent
        self._limit = limit
        self._kept: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (close)
        self._size = self._kept_size = 0
        self._more = True
        self._consumed = asyncio.Event()
        # What `receive` read before it was asked for, and what went wrong with it.
        self._ahead: deque[bytes] = deque()
        self._failure: APIError | None = None
        self._sending = False
        self._turn = asyncio.Lock()  # one reads at a time

    def close(self) -> None:
        """Give back what was kept."""
        self._kept.close()

    async def open(self, default: str = "") -> str:
        """Read up to the model, and return it; `default` if there is none.

        Raises APIError, ClientGoneError.
        """
        form = self._form
        while form.model is None and self._more:
            await self._keep(await self._next())
        if form.field not in ("", "model"):
            raise invalid("The field that names the model must be 'model'.", form.field)
        if not form.model:
            if default and not form.field:
                return default
            raise invalid(
                "Missing required parameter: 'model'.", "model", "missing_required_parameter"
            )
        return form.model

    def stream(self, model: str) -> tuple[AsyncIterator[bytes], int | None]:
        """The body, asking for `model`, and its length if that is known. It can be sent once."""
        new = model.encode()
        if self._form.model is None:  # then a field is added, before all others
            new = b"--%b\r\n%b%b\r\n" % (self._boundary, _PART.encode(), new)
        old = self._form.end - self._form.start
        length = None if self._length is None else self._length - old + len(new)
        return self._pieces(new), length

    async def receive(self) -> Message:
        """What comes after the body: an ASGI `receive` for who watches for a disconnect.

        Until the body is asked for, some of it is read ahead: servers tell of a disconnect only
        after what came before it.
        """
        ahead = 0
        while self._more and ahead < _PIECE and not self._sending and self._failure is None:
            async with self._turn:
                try:
                    data = await self._next()
                except ClientGoneError:
                    return {"type": "http.disconnect"}
                except APIError as error:
                    self._failure = error  # told to who sends the body on
                else:
                    self._ahead.append(data)
                    ahead += len(data)
        await self._consumed.wait()
        return await self._receive()

    async def _pieces(self, model: bytes) -> AsyncIterator[bytes]:
        self._sending = True
        self._kept.seek(0)
        left = self._form.start
        while left > _PIECE:
            yield await self._kept_bytes(_PIECE)
            left -= _PIECE
        yield await self._kept_bytes(left) + model
        self._kept.seek(self._form.end)
        while piece := await self._kept_bytes(_PIECE):
            yield piece
        while True:
            async with self._turn:
                if not self._ahead:
                    if self._failure is not None:
                        raise self._failure
                    if not self._more:
                        break
                    self._ahead.append(await self._next())
            if data := self._ahead.popleft():
                yield data

    async def _next(self) -> bytes:
        message = await _asgi.next_piece(self._receive, self._seconds)
        data: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        if not self._more:
            self._consumed.set()
        self._size += len(data)
        if self._size > self._limit:
            raise _asgi.too_large(self._limit)
        self._form.feed(data)
        if not self._more:
            self._form.close()
        return data

    async def _keep(self, data: bytes) -> None:
        self._kept_size += len(data)
        if self._kept_size <= _IN_MEMORY:
            self._kept.write(data)
        else:  # on disk: not in the way of others
            await asyncio.to_thread(self._kept.write, data)

    async def _kept_bytes(self, count: int) -> bytes:
        if self._kept_size <= _IN_MEMORY:
            return self._kept.read(count)
        return await asyncio.to_thread(self._kept.read, count)
