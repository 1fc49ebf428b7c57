"""Calls that take several requests: jobs that are polled, results that are fetched, batches.

`gather` reads the response to the first request and sends the others of the conversion, with the
same key: its follow-ups one after the other, as each depends on the responses before it, or its
parts, of which MAX_AT_ONCE are sent at the same time. Parts keep their order. When one fails, the
others are cancelled, and what was paid for so far is reported, so that it is recorded.

A vendor's answer may name the address of a follow-up. It must be the provider's own host, or be
reached over TLS and have a name; the key is only sent within the provider's domain. Redirects are
not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.upstream_request import PreparedRequest, with_headers
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.translate import MAX_WHOLE
from asgi_aiproxy.upstream.base import Headers, Transport, UpstreamResponse

MAX_AT_ONCE = 4  # of the parts of a call


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


class CallRequests(msgspec.Struct, frozen=True):
    """What the requests of one call have in common.

    `headers` are those that hooks send to providers; a request without the key lacks them, too.
    `paid` is called with the usage of what was answered, if the call does not become complete.
    """

    transport: Transport
    prepared: PreparedRequest
    key: Key | None
    headers: Mapping[str, str]
    paid: Callable[[Usage], None]

    async def send(
        self, draft: ProviderRequest, method: str = "POST", *, anonymous: bool = False
    ) -> UpstreamResponse:
        """Send one more request."""
        provider = self.prepared.target.provider
        sent = with_headers(draft, {} if anonymous else self.headers)
        used = None if anonymous else self.key
        request = provider.request(method, provider.transform_request(sent), used, streamed=False)
        _check_host(provider, self.key, request.url, anonymous=anonymous)
        return await self.transport.send(request)


async def gather(
    call: CallRequests, response: UpstreamResponse
) -> tuple[UpstreamResponse, PreparedRequest]:
    """Read a response and send what follows from it.

    Returns the last response, and the request with the bodies before it in its conversion. A
    refusal ends the call: it is returned unread. Raises APIError.
    """
    conversion = call.prepared.conversion
    if conversion is None or not _accepted(response):
        return response, call.prepared
    if conversion.parts:
        return await _with_parts(call, response)
    if conversion.follow_up is None:
        return response, call.prepared
    bodies: tuple[bytes, ...] = ()
    while _accepted(response):
        try:
            body = await _read(response)
            following = conversion.follow_up((*bodies, body))
        except BaseException:
            await response.aclose()
            raise
        if following is None:
            return _gathered(call, response, (*bodies, body))
        bodies = (*bodies, body)
        await response.aclose()
        if following.delay:
            await asyncio.sleep(following.delay)
        response = await call.send(following.draft, following.method, anonymous=following.anonymous)
    return response, call.prepared


class _RefusedError(Exception):
    """A part was refused, with this response."""

    def __init__(self, response: UpstreamResponse) -> None:
        super().__init__()
        self.response = response


async def _with_parts(
    call: CallRequests, response: UpstreamResponse
) -> tuple[UpstreamResponse, PreparedRequest]:
    """Read the first response, send the parts, and read their responses."""
    conversion = call.prepared.conversion
    drafts = conversion.parts if conversion is not None else ()
    bodies: list[bytes | None] = [None] * (len(drafts) + 1)
    waiting = iter(enumerate(drafts, 1))

    async def read(number: int, answer: UpstreamResponse) -> None:
        try:
            bodies[number] = await _read(answer)
        finally:
            await answer.aclose()

    async def work() -> None:
        for number, draft in waiting:
            answer = await call.send(draft)
            if not _accepted(answer):
                raise _RefusedError(answer)
            await read(number, answer)

    try:
        await read(0, response)
        await _all(*(work() for _ in range(min(MAX_AT_ONCE, len(drafts)))))
    except _RefusedError as refused:
        _report(call, bodies)
        return refused.response, call.prepared
    except BaseException:
        _report(call, bodies)
        raise
    return _gathered(call, response, tuple(body for body in bodies if body is not None))


async def _all(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines at the same time; when one fails, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        raised = next((each for each in ended if isinstance(each, Exception)), None)
        for each in ended:
            if isinstance(each, _RefusedError) and each is not raised:
                await each.response.aclose()


def _report(call: CallRequests, bodies: Sequence[bytes | None]) -> None:
    """Report what the parts that were answered are charged for."""
    conversion = call.prepared.conversion
    if conversion is None or conversion.part_usage is None:
        return
    for body in bodies:
        if body is not None:
            with contextlib.suppress(APIError, ValueError):  # the call fails with another error
                usage = conversion.part_usage(body)
                if usage is not None:
                    call.paid(usage)


def _accepted(response: UpstreamResponse) -> bool:
    return 200 <= response.status < 300


def _gathered(
    call: CallRequests, response: UpstreamResponse, bodies: tuple[bytes, ...]
) -> tuple[UpstreamResponse, PreparedRequest]:
    """The response whose body is the last one, and the request with the bodies before it."""
    prepared = call.prepared
    if prepared.conversion is not None:
        conversion = msgspec.structs.replace(prepared.conversion, earlier=bodies[:-1])
        prepared = msgspec.structs.replace(prepared, conversion=conversion)
    return _ReadResponse(response, bodies[-1]), prepared


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
