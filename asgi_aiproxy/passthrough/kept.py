"""A short answer, read whole: kept for the client in case no other key does better."""

from __future__ import annotations

from asgi_aiproxy.errors import APIError, kind_of
from asgi_aiproxy.upstream.base import Headers, Incoming

# Longer than any vendor's page about an error.
_LONGEST = 256 * 1024
_FRAMING = frozenset({"content-length", "transfer-encoding"})


class Kept:
    """An answer that has come. It is read like one that is still coming."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._rest = body

    @classmethod
    async def of(cls, answer: Incoming, secret: str) -> Kept:
        """Read an answer to its end, and close it; `secret` is blotted out, should it quote it.

        Raises APIError if it is too long to be kept.
        """
        pieces, size = [], 0
        try:
            while data := await answer.read():
                pieces.append(data)
                size += len(data)
                if size > _LONGEST:
                    message = f"The upstream's error page is longer than {_LONGEST} bytes."
                    raise APIError(kind_of(answer.status), message)
        finally:
            await answer.aclose()
        body = b"".join(pieces)
        if secret:
            body = body.replace(secret.encode(), b"[key]")
        headers = answer.headers
        if body:  # (an answer to HEAD keeps the length of what it stands for)
            headers = [pair for pair in headers if pair[0] not in _FRAMING]
            headers = [*headers, ("content-length", str(len(body)))]
        return cls(answer.status, headers, body)

    async def read(self) -> bytes:
        """All of it, once."""
        rest, self._rest = self._rest, b""
        return rest

    async def aclose(self) -> None:
        """Nothing is open."""
