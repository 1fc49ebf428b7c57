"""Responses that are not forwarded as they arrive: refusals that are held while other keys are
tried, and errors from which the key is redacted.
"""

from __future__ import annotations

import math

from asgi_aiproxy.credentials import SecretRedactor, StreamRedactor
from asgi_aiproxy.errors import APIError, error_kind_for_status
from asgi_aiproxy.upstream.base import Headers, UpstreamResponse, header
from asgi_aiproxy.upstream.content_encoding import decode_body

# Longer than any vendor's error page.
_MAX_ERROR_BODY = 256 * 1024
_RETRY_AFTER_HEADERS = frozenset({"retry-after", "retry-after-ms"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})


async def redacted(answer: UpstreamResponse, redactor: SecretRedactor | None) -> UpstreamResponse:
    """Return the response; if it is an error, with the key redacted from it.

    (A success is long, and its content is the client's; only its error events are redacted,
    elsewhere.) Raises APIError.
    """
    if redactor is None or answer.status < 300:
        return answer
    if header(answer.headers, "content-encoding"):
        return await BufferedResponse.of(answer, redactor)
    return _RedactedResponse(answer, redactor)


class _RedactedResponse:
    """A response that is still arriving, with the key redacted."""

    def __init__(self, answer: UpstreamResponse, redactor: SecretRedactor) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._stream = StreamRedactor(redactor)

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end. Raises APIError."""
        while data := await self._answer.read():
            if out := self._stream.feed(data):
                return out
        return self._stream.close()

    async def aclose(self) -> None:
        """Close the response."""
        await self._answer.aclose()


class BufferedResponse:
    """A complete response, with the interface of one that is still arriving."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._unread = body

    @classmethod
    async def of(
        cls, answer: UpstreamResponse, redactor: SecretRedactor | None
    ) -> BufferedResponse:
        """Read a response to its end and close it; `redactor` removes the key from it.

        A compressed response is decoded, and loses its body if it cannot be decoded. Raises
        APIError if it is too long.
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
        if body:  # (a response to HEAD keeps the length of the body that it describes)
            headers = [pair for pair in headers if pair[0] not in _FRAMING]
            headers = [*headers, ("content-length", str(len(body)))]
        return cls(answer.status, headers, body)

    def with_retry_after(self, seconds: float | None) -> BufferedResponse:
        """Return the response with `retry-after` set to `seconds`; with None it is unchanged."""
        if seconds is None:
            return self
        headers = [pair for pair in self.headers if pair[0] not in _RETRY_AFTER_HEADERS]
        headers.append(("retry-after", str(max(1, math.ceil(seconds)))))
        return BufferedResponse(self.status, headers, self.body)

    async def read(self) -> bytes:
        """Return the whole body, once."""
        body, self._unread = self._unread, b""
        return body

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""
