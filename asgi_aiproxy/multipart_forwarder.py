"""Forward multipart request bodies, with the model replaced.

The body is read up to the field that names the model, and kept in memory or, above a limit, in a
temporary file. The rest goes from the client to the provider as it arrives. A form that is
converted is read to its end, and kept likewise. All of it is checked.
https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import IO

from asgi_aiproxy import _asgi
from asgi_aiproxy._asgi import Message, Receive, Scope
from asgi_aiproxy._cancellation import ClientGoneError
from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.multipart import FormParser, FormPart, parse_boundary
from asgi_aiproxy.operations.forms import Form, FormFile
from asgi_aiproxy.providers.base import Router

_MAX_MEMORY_BYTES = 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_MAX_FIELD_BYTES = 64 * 1024  # of a form that is converted
_MODEL_PART_HEADER = 'Content-Disposition: form-data; name="model"\r\n\r\n'


class MultipartForwarder:
    """A multipart request body: `open` reads up to the model, `stream` returns the new body.

    `limit` is in bytes, `seconds` is how long the client may be silent (None: no limit). Raises
    APIError for an invalid content type, or a content length above the limit.
    """

    def __init__(self, scope: Scope, receive: Receive, limit: int, seconds: float | None) -> None:
        self.content_type = _asgi.header(scope, b"content-type") or ""
        self._boundary = parse_boundary(self.content_type)
        self._form = FormParser(self._boundary)
        self._length = _asgi.content_length(scope)
        if self._length is not None and self._length > limit:
            raise _asgi.too_large(limit)
        self._receive = receive
        self._seconds = seconds  # the client may be silent
        self._limit = limit
        self._kept: IO[bytes] = tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES)  # noqa: SIM115 (close)
        self._size = self._kept_size = 0
        self._more = True
        self._consumed = asyncio.Event()
        # What `receive` read ahead, and the error that ended it.
        self._read_ahead: deque[bytes] = deque()
        self._failure: APIError | None = None
        self._sending = False
        self._read_lock = asyncio.Lock()

    def close(self) -> None:
        """Close the temporary file."""
        self._kept.close()

    async def open(self, default: str = "") -> str:
        """Read up to the model, and return it; `default` if the body names none.

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

    async def read_form(self) -> Form:
        """Read the rest, and return the whole form. Raises APIError, ClientGoneError.

        Its files are read from memory or the temporary file, one at a time, until `close`.
        """
        while self._more:
            await self._keep(await self._next())
        fields: list[tuple[str, str]] = []
        files: list[FormFile] = []
        for part in self._form.parts:
            name, filename, media_type = part.describe()
            size = part.end - part.start
            if filename is not None:
                kind = media_type or "application/octet-stream"
                read, stream = partial(self._read, part), partial(self._stream_part, part)
                files.append(FormFile(name, filename, kind, size, read, stream))
                continue
            if size > _MAX_FIELD_BYTES:
                raise invalid(f"The field {name!r} is longer than {_MAX_FIELD_BYTES} bytes.", name)
            try:
                fields.append((name, self._read(part).decode()))
            except UnicodeDecodeError:
                raise invalid(f"The field {name!r} is not valid UTF-8.", name) from None
        return Form(tuple(fields), tuple(files))

    def _read(self, part: FormPart) -> bytes:
        self._kept.seek(part.start)
        return self._kept.read(part.end - part.start)

    async def _stream_part(self, part: FormPart) -> AsyncIterator[bytes]:
        at = part.start
        while at < part.end:
            self._kept.seek(at)
            piece = await self._kept_bytes(min(_CHUNK_BYTES, part.end - at))
            at += len(piece)
            yield piece

    def stream(self, model: str) -> tuple[AsyncIterator[bytes], int | None]:
        """Return the body with `model`, and its length in bytes if known. It can be sent once."""
        new = model.encode()
        if self._form.model is None:  # then a field is added, before all others
            new = b"--%b\r\n%b%b\r\n" % (self._boundary, _MODEL_PART_HEADER.encode(), new)
        old = self._form.end - self._form.start
        length = None if self._length is None else self._length - old + len(new)
        return self._pieces(new), length

    async def receive(self) -> Message:
        """An ASGI `receive` for the time after the body, to watch for the disconnect.

        Until the body is sent, part of it is read ahead: servers report a disconnect only after
        the body that came before it.
        """
        ahead_bytes = 0
        while (
            self._more
            and ahead_bytes < _CHUNK_BYTES
            and not self._sending
            and self._failure is None
        ):
            async with self._read_lock:
                try:
                    data = await self._next()
                except ClientGoneError:
                    return {"type": "http.disconnect"}
                except APIError as error:
                    self._failure = error  # raised to the reader of the body
                else:
                    self._read_ahead.append(data)
                    ahead_bytes += len(data)
        await self._consumed.wait()
        return await self._receive()

    async def _pieces(self, model: bytes) -> AsyncIterator[bytes]:
        self._sending = True
        self._kept.seek(0)
        remaining = self._form.start
        while remaining > _CHUNK_BYTES:
            yield await self._kept_bytes(_CHUNK_BYTES)
            remaining -= _CHUNK_BYTES
        yield await self._kept_bytes(remaining) + model
        self._kept.seek(self._form.end)
        while piece := await self._kept_bytes(_CHUNK_BYTES):
            yield piece
        while True:
            async with self._read_lock:
                if not self._read_ahead:
                    if self._failure is not None:
                        raise self._failure
                    if not self._more:
                        break
                    self._read_ahead.append(await self._next())
            if data := self._read_ahead.popleft():
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
        if self._kept_size <= _MAX_MEMORY_BYTES:
            self._kept.write(data)
        else:  # on disk: in a thread
            await asyncio.to_thread(self._kept.write, data)

    async def _kept_bytes(self, count: int) -> bytes:
        if self._kept_size <= _MAX_MEMORY_BYTES:
            return self._kept.read(count)
        return await asyncio.to_thread(self._kept.read, count)


async def read_form(
    upload: MultipartForwarder,
    router: Router,
    operation: Operation,
    model: str,
    provider: str,
    *,
    always: bool = False,
) -> Form | None:
    """Read the whole form if a target of `model` does not get it as it is; else return None.

    `provider` is the requested one. `always`: the form is read in any case, since hooks see its
    fields. Raises APIError, ClientGoneError.
    """
    if always:
        return await upload.read_form()
    targets = router.targets(model, provider)
    if all(operation.name in target.provider.native_operations for target in targets):
        return None
    return await upload.read_form()
