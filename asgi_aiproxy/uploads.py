"""Multipart bodies that pass through: read only as far as the field that names the model.

What comes before that field is kept, in memory or above a limit in a temporary file; the rest goes
from the client to the provider as it arrives. https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from typing import IO

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive, Scope
from asgi_aiproxy._watch import ClientGoneError
from asgi_aiproxy.errors import APIError, Kind, invalid

_IN_MEMORY = 1024 * 1024
_MAX_HEADER = 16 * 1024
_MAX_MODEL = 1024
_PIECE = 256 * 1024

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(rb'[;\s]name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
_FILE = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)


class ModelField:
    """Finds the field `model` in a multipart body that is fed in pieces.

    Once it is found, `model` is its value and `start` and `end` are its place in the body. What
    comes after may be fed, too: a second one is an error, for nobody knows which one a provider
    would heed.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter may lack the line end before it: pretend it is there.
        self._buffer = bytearray(b"\r\n")
        self._offset = -2  # where the buffer begins in the body
        self._within = "skipped"  # what the buffer begins with: a part's headers, body or the model
        self._looked = 0  # up to where of the buffer there is no delimiter
        self.model: str | None = None
        self.start = self.end = 0
        self.finished = False  # the body has ended

    @classmethod
    def of(cls, content_type: str) -> ModelField | None:
        """One for a body of this type; None if it is no multipart form."""
        found = _BOUNDARY.search(content_type)
        if found is None or not content_type.lower().startswith("multipart/form-data"):
            return None
        return cls((found[1] or found[2]).encode("latin-1"))

    def feed(self, data: bytes) -> None:
        """Read on. Raises APIError if this is no multipart body."""
        if self.finished:
            return  # what comes after the end means nothing
        self._buffer += data
        while not self.finished and self._step():
            pass

    def _step(self) -> bool:
        """Read one element; False if more bytes are needed."""
        if self._within == "headers":
            return self._headers()
        at = self._find()
        if at is None:
            if self._within == "model" and self._looked > _MAX_MODEL:
                raise invalid("The field 'model' is too long.", "model")
            if self._within == "skipped":
                self._drop(self._looked)
            return False
        if self._within == "model":
            self._value(at)
        end = at + len(self._delimiter) + 2
        self.finished = self._buffer[end - 2 : end] == b"--"
        self._drop(end)
        self._within = "headers"
        return True

    def _find(self) -> int | None:
        """Where the next delimiter is; one is followed by a line end, the last one by `--`."""
        size = len(self._delimiter)
        while True:
            at = self._buffer.find(self._delimiter, self._looked)
            if at < 0:
                # Its beginning may be there.
                self._looked = max(self._looked, len(self._buffer) - size + 1)
                return None
            after = bytes(self._buffer[at + size : at + size + 2])
            if after in (b"\r\n", b"--"):
                return at
            self._looked = at
            if len(after) < 2:
                return None
            self._looked += 1  # some other boundary that begins like ours

    def _headers(self) -> bool:
        if self._buffer.startswith(b"\r\n"):  # none
            end, length = 0, 2
        else:
            end, length = self._buffer.find(b"\r\n\r\n"), 4
        if (end if end >= 0 else len(self._buffer)) > _MAX_HEADER:
            raise invalid("A part of the multipart body has headers without an end.")
        if end < 0:
            return False
        wanted = _names_model(bytes(self._buffer[:end]))
        if wanted and self.model is not None:
            raise invalid("The field 'model' is given twice.", "model")
        self._within = "model" if wanted else "skipped"
        self._drop(end + length)
        return True

    def _value(self, at: int) -> None:
        if at > _MAX_MODEL:
            raise invalid("The field 'model' is too long.", "model")
        self.start, self.end = self._offset, self._offset + at
        try:
            self.model = self._buffer[:at].decode()
        except UnicodeDecodeError as error:
            raise invalid("The field 'model' is not valid UTF-8.", "model") from error

    def _drop(self, count: int) -> None:
        if count > 0:
            del self._buffer[:count]
            self._offset += count
        self._looked = 0


def _names_model(headers: bytes) -> bool:
    """Whether these are the headers of the field `model`, and not of a file."""
    for disposition in _DISPOSITION.findall(headers):
        name = _NAME.search(disposition)
        if name is not None:
            return (name[1] or name[2]) == b"model" and not _FILE.search(disposition)
    return False


class Upload:
    """A multipart request body on its way. `open` reads up to the model; `stream` sends it on."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        self.content_type = _asgi.header(scope, b"content-type") or ""
        found = _BOUNDARY.search(self.content_type)
        if not self.content_type.lower().startswith("multipart/form-data") or found is None:
            raise APIError(
                Kind.INVALID,
                "This path takes a multipart/form-data body with a boundary.",
                status=415,
            )
        self._field = ModelField((found[1] or found[2]).encode("latin-1"))
        self._length = _asgi.content_length(scope)
        if self._length is not None and self._length > limit:
            raise _asgi.too_large(limit)
        self._receive = receive
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

    async def open(self) -> str:
        """Read up to the model, and return it. Raises APIError, ClientGoneError."""
        while self._field.model is None and self._more and not self._field.finished:
            await self._keep(await self._next())
        if not self._field.model:
            raise invalid(
                "Missing required parameter: 'model'.", "model", "missing_required_parameter"
            )
        return self._field.model

    def stream(self, model: str) -> tuple[AsyncIterator[bytes], int | None]:
        """The body, asking for `model`, and its length if that is known. It can be sent once."""
        new = model.encode()
        old = self._field.end - self._field.start
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
        left = self._field.start
        while left > _PIECE:
            yield await self._kept_bytes(_PIECE)
            left -= _PIECE
        yield await self._kept_bytes(left) + model
        self._kept.seek(self._field.end)
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
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("The client left while it sent its request.")
        data: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        if not self._more:
            self._consumed.set()
        self._size += len(data)
        if self._size > self._limit:
            raise _asgi.too_large(self._limit)
        self._field.feed(data)
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
