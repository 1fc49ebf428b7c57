"""Forms with files: those that clients upload, and those that are sent to vendors.

A client's form is spooled before it is converted: to memory up to 1 MiB, to a temporary file above.
Its fields are small and are values; its files are read from the spool, in pieces or as a whole.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from asgi_aiproxy.dialects.base import Content
from asgi_aiproxy.errors import APIError, ErrorKind

_UNSAFE = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


class FormFile(msgspec.Struct, frozen=True):
    """A file of a form: its field, name, content type, and length in bytes.

    `read` returns it as a whole, `stream` in pieces.
    """

    field: str
    filename: str
    media_type: str
    length: int
    read: Callable[[], bytes]
    stream: Callable[[], AsyncIterator[bytes]]

    def read_at_most(self, limit: int, what: str) -> bytes:
        """The whole file. Raises APIError if it has more than `limit` bytes; `what` names the API
        with that limit.
        """
        if self.length > limit:
            raise APIError(
                ErrorKind.TOO_LARGE,
                f"'{self.field}' has {self.length} bytes; {what} takes at most {limit}.",
                param=self.field,
            )
        return self.read()


class Form(msgspec.Struct, frozen=True):
    """A client's form: its fields in order (a name may occur repeatedly), and its files."""

    fields: tuple[tuple[str, str], ...] = ()
    files: tuple[FormFile, ...] = ()

    def get(self, name: str) -> str | None:
        """The last value of a field; None if there is none."""
        return next((value for key, value in reversed(self.fields) if key == name), None)

    def all(self, name: str) -> list[str]:
        """All values of a field, also of one that is written as `name[]`."""
        return [value for key, value in self.fields if key in (name, f"{name}[]")]

    def uploads(self, name: str) -> list[FormFile]:
        """The files of a field, also of one that is written as `name[]`."""
        return [file for file in self.files if file.field in (name, f"{name}[]")]


def file_content(file: FormFile) -> Content:
    """The body of a request that is a file."""
    return Content(file.media_type, file.length, file.stream)


def form_content(fields: Sequence[tuple[str, str]], files: Mapping[str, FormFile]) -> Content:
    """The body of a request that is a form. Its parts are quoted as browsers do (HTML 4.10.22.8).

    The boundary is random, so that no file can contain it on purpose.
    """
    boundary = f"aiproxy-{secrets.token_hex(16)}"
    heads: list[tuple[bytes, FormFile | None]] = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n'
        heads.append((head.encode() + value.encode() + b"\r\n", None))
    for name, file in files.items():
        disposition = f'form-data; name="{_quoted(name)}"; filename="{_quoted(file.filename)}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n"
        head += f"Content-Type: {file.media_type}\r\n\r\n"
        heads.append((head.encode(), file))
    end = f"--{boundary}--\r\n".encode()
    length = len(end) + sum(len(head) + (file.length + 2 if file else 0) for head, file in heads)

    async def stream() -> AsyncIterator[bytes]:
        for head, file in heads:
            yield head
            if file is not None:
                async for piece in file.stream():
                    yield piece
                yield b"\r\n"
        yield end

    return Content(f"multipart/form-data; boundary={boundary}", length, stream)


def _quoted(text: str) -> str:
    return text.translate(_UNSAFE)


def memory_file(field: str, data: bytes, media_type: str, filename: str = "") -> FormFile:
    """A file whose bytes are at hand."""

    async def stream() -> AsyncIterator[bytes]:
        yield data

    return FormFile(field, filename or field, media_type, len(data), lambda: data, stream)


def number(form: Form, name: str) -> Any:
    """A field as a number, if it is one; else its text."""
    value = form.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        try:
            return float(value)
        except ValueError:
            return value
