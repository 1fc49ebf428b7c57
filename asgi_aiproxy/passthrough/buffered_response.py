"""Answers that are not passed on as they come: short ones that are kept for the client in case no
other key does better, and those that may quote the key."""

from __future__ import annotations

import math

from asgi_aiproxy.credentials import SecretRedactor, StreamRedactor
from asgi_aiproxy.errors import APIError, error_kind_for_status
from asgi_aiproxy.upstream.base import Headers, UpstreamResponse, header
from asgi_aiproxy.upstream.content_encoding import decode_body

# Longer than any vendor's page about an error.
_MAX_ERROR_BODY = 256 * 1024
_RETRY_AFTER_HEADERS = frozenset({"retry-after", "retry-after-ms"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})


async def redacted(answer: UpstreamResponse, redactor: SecretRedactor | None) -> UpstreamResponse:
    """The answer; one that is no success without the key, should it quote that.

    (Successes pass as they are, but for their errors: they are the client's, and long.) Raises
    APIError.
    """
    if redactor is None or answer.status < 300:
        return answer
    if header(answer.headers, "content-encoding"):
        return await BufferedResponse.of(answer, redactor)
    return _RedactedResponse(answer, redactor)


class _RedactedResponse:
    """An answer that is still coming, without the key."""

    def __init__(self, answer: UpstreamResponse, redactor: SecretRedactor) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._stream = StreamRedactor(redactor)

    async def read(self) -> bytes:
        """The next bytes; nothing at the end. Raises APIError."""
        while data := await self._answer.read():
            if out := self._stream.feed(data):
                return out
        return self._stream.close()

    async def aclose(self) -> None:
        """Done with it."""
        await self._answer.aclose()


class BufferedResponse:
    """An answer that has come. It is read like one that is still coming."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._rest = body

    @classmethod
    async def of(
        cls, answer: UpstreamResponse, redactor: SecretRedactor | None
    ) -> BufferedResponse:
        """Read an answer to its end, and close it; `blot` takes the key out, should it quote it.

        One that is compressed passes on as what it means, without a body if that cannot be read.
        Raises APIError if it is too long to be kept.
        """
        pieces, size = [], 0
        try:
            while data := await answer.read():
                pieces.append(data)
                size += len(data)
                if size > _MAX_ERROR_BODY:
                    message = f"The upstream's error page is longer than {_MAX_ERROR_BODY} bytes."
                    raise APIError(error_kind_for_status(answer.status), message)
        finally:
            await answer.aclose()
        body, headers = b"".join(pieces), answer.headers
        if redactor is not None:
            if body and header(headers, "content-encoding"):
                headers, body = decode_body(list(headers), body, max_decoded=_MAX_ERROR_BODY)
            body = redactor.data(body)
        if body:  # (an answer to HEAD keeps the length of what it stands for)
            headers = [pair for pair in headers if pair[0] not in _FRAMING]
            headers = [*headers, ("content-length", str(len(body)))]
        return cls(answer.status, headers, body)

    def with_retry_after(self, seconds: float | None) -> BufferedResponse:
        """The same, telling when to try again; None leaves what it says."""
        if seconds is None:
            return self
        headers = [pair for pair in self.headers if pair[0] not in _RETRY_AFTER_HEADERS]
        headers.append(("retry-after", str(max(1, math.ceil(seconds)))))
        return BufferedResponse(self.status, headers, self.body)

    async def read(self) -> bytes:
        """All of it, once."""
        rest, self._rest = self._rest, b""
        return rest

    async def aclose(self) -> None:
        """Nothing is open."""
