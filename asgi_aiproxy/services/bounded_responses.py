"""An httpx transport whose responses have a maximum size, for services that are not trusted."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx2

_CODING = "content-encoding"


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Sends requests; a response of more than `limit` bytes raises httpx2.ReadError while it is
    read.

    Compressed responses are refused before they are decoded (httpx2.DecodingError), because their
    size is not known then; requests should have `accept-encoding: identity`.
    """

    def __init__(self, limit: int, *, verify: ssl.SSLContext, proxy: str | None = None) -> None:
        super().__init__(verify=verify, proxy=proxy, trust_env=False)
        self._limit = limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Raises httpx2.HTTPError."""
        response = await super().handle_async_request(request)
        stream = response.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise httpx2.ReadError("the response is not a stream of bytes")
        if response.headers.get(_CODING, "identity") != "identity":
            await stream.aclose()
            raise httpx2.DecodingError("the response is compressed")
        response.stream = _Bounded(stream, self._limit)
        return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._left -= len(data)
            if self._left < 0:
                raise httpx2.ReadError("the response is too long")
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
