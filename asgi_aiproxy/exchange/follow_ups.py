"""Calls that take several requests: jobs that are polled, results that are fetched, batches.

`gather` reads the response to the first request and sends the follow-ups of the conversion, one
after the other, with the same key.

A vendor's answer may name the address of a follow-up. It must be the provider's own host, or be
reached over TLS and have a name; the key is only sent within the provider's domain. Redirects are
not followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.upstream_request import PreparedRequest, with_headers
from asgi_aiproxy.keys import Key
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.translate import MAX_WHOLE
from asgi_aiproxy.upstream.base import Headers, Transport, UpstreamResponse


class _ReadResponse:
    """A response whose body was read."""

    def __init__(self, response: UpstreamResponse, body: bytes) -> None:
        self._response = response
        self._body = body

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Headers:
        """The headers."""
        return self._response.headers

    async def read(self) -> bytes:
        """Return the body at once, then nothing."""
        body, self._body = self._body, b""
        return body

    async def aclose(self) -> None:
        """Release the response."""
        await self._response.aclose()


async def gather(
    transport: Transport,
    prepared: PreparedRequest,
    key: Key | None,
    headers: Mapping[str, str],
    response: UpstreamResponse,
) -> tuple[UpstreamResponse, PreparedRequest]:
    """Read a response and send what follows from it.

    `headers` are those that hooks send to providers; a request without the key lacks them, too.
    Returns the last response, and the request with the bodies before it in its conversion. A
    refusal ends the call: it is returned unread. Raises APIError.
    """
    conversion, provider = prepared.conversion, prepared.target.provider
    if conversion is None or conversion.follow_up is None:
        return response, prepared
    bodies: tuple[bytes, ...] = ()
    while 200 <= response.status < 300:
        try:
            body = await _read(response)
            following = conversion.follow_up((*bodies, body))
        except BaseException:
            await response.aclose()
            raise
        if following is None:
            read = msgspec.structs.replace(conversion, earlier=bodies)
            gathered = msgspec.structs.replace(prepared, conversion=read)
            return _ReadResponse(response, body), gathered
        bodies = (*bodies, body)
        await response.aclose()
        if following.delay:
            await asyncio.sleep(following.delay)
        sent = {} if following.anonymous else headers
        draft = provider.transform_request(with_headers(following.draft, sent))
        used = None if following.anonymous else key
        request = provider.request(following.method, draft, used, streamed=False)
        _check_host(provider, key, request.url, anonymous=following.anonymous)
        response = await transport.send(request)
    return response, prepared


async def _read(response: UpstreamResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while data := await response.read():
        pieces.append(data)
        size += len(data)
        if size > MAX_WHOLE:
            raise APIError(
                ErrorKind.UPSTREAM, f"The provider's response is larger than {MAX_WHOLE} bytes."
            )
    return b"".join(pieces)


def _check_host(provider: Provider, key: Key | None, url: str, *, anonymous: bool) -> None:
    """Raise APIError if a follow-up goes where it must not.

    With a key: to the provider's own host, or over TLS within its domain. Without: there, or over
    TLS to any host that has a name.
    """
    base = urlsplit((key.base_url if key is not None else None) or provider.base_url)
    there = urlsplit(url)
    own, host = base.hostname or "", there.hostname or ""
    if (there.scheme, host, there.port) == (base.scheme, own, base.port):
        return
    domain = ".".join(own.split(".")[-2:])
    named = "." in host and ":" not in host and not host.replace(".", "").isdigit()
    if there.scheme == "https" and named and (anonymous or host.endswith("." + domain)):
        return
    raise APIError(
        ErrorKind.UPSTREAM,
        f"The provider named an address at another host, {host!r}, to which no request is sent.",
    )
