"""Calls that take several requests: jobs that are polled, results that are fetched, batches.

`gather` reads the response to the first request and sends the others of the conversion, with the
same key: its follow-ups one after the other, as each depends on the responses before it, and its
parts, of which MAX_AT_ONCE are sent at the same time, once the first request was answered. Parts
keep their order.

When a part fails, the call fails: the others are cancelled, and what was paid for so far is
reported, so that it is recorded. If fewer results are useful (`Conversion.reducible`), no further
part is sent, those under way are completed, and the response has what was answered.

A vendor's answer may name the address of a follow-up. It must be the provider's own host, or be
reached over TLS and have a name; the key is only sent within the provider's domain. Redirects are
not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from asgi_aiproxy.dialects.base import ProviderRequest
from asgi_aiproxy.errors import APIError, ErrorKind
from asgi_aiproxy.exchange.upstream_request import PreparedRequest, with_headers
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import Usage
from asgi_aiproxy.providers.base import Provider
from asgi_aiproxy.translate import MALFORMED, MAX_WHOLE, malformed_response_error
from asgi_aiproxy.upstream.base import Headers, Transport, UpstreamResponse

if TYPE_CHECKING:
    from asgi_aiproxy.exchange.conversions import Conversion

logger = logging.getLogger("asgi_aiproxy")

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
    if conversion is None or (conversion.follow_up is None and not conversion.parts):
        return response, call.prepared
    try:
        last, bodies = await _with_follow_ups(call, conversion, response)
        if conversion.parts:
            bodies, failures = await _with_parts(call, conversion, bodies[-1])
            if failures:
                call = _reduced(call, conversion, len(bodies), failures)
    except _RefusedError as refused:
        return refused.response, call.prepared
    return _gathered(call, last, bodies)


class _RefusedError(Exception):
    """A request was refused, with this response, which is not closed."""

    def __init__(self, response: UpstreamResponse) -> None:
        super().__init__()
        self.response = response


_FailedPart = _RefusedError | APIError


async def _with_follow_ups(
    call: CallRequests, conversion: Conversion, response: UpstreamResponse
) -> tuple[UpstreamResponse, tuple[bytes, ...]]:
    """Read a response, and those to its follow-ups. Return the last one, closed, and all bodies."""
    bodies: tuple[bytes, ...] = ()
    while True:
        if not 200 <= response.status < 300:
            raise _RefusedError(response)
        try:
            bodies = (*bodies, await _read(response))
        finally:
            await response.aclose()
        following = conversion.follow_up(bodies) if conversion.follow_up is not None else None
        if following is None:
            return response, bodies
        if following.delay:
            await asyncio.sleep(following.delay)
        response = await call.send(following.draft, following.method, anonymous=following.anonymous)


async def _with_parts(
    call: CallRequests, conversion: Conversion, first: bytes
) -> tuple[tuple[bytes, ...], list[_FailedPart]]:
    """Send the parts. Return their bodies after the first one, and what failed, if it may."""
    bodies: list[bytes | None] = [first, *(None for _ in conversion.parts)]
    failures: list[_FailedPart] = []
    waiting = iter(enumerate(conversion.parts, 1))

    async def send(draft: ProviderRequest) -> bytes:
        answer = await call.send(draft)
        body = (await _with_follow_ups(call, conversion, answer))[1][-1]
        if conversion.reducible:
            _usage(conversion, body)
        return body

    async def work() -> None:
        for number, draft in waiting:
            if failures:
                return
            try:
                bodies[number] = await send(draft)
            except (_RefusedError, APIError) as failure:
                if not conversion.reducible:
                    raise
                failures.append(failure)

    if conversion.reducible:
        _usage(conversion, first)  # fails before others are paid for
    try:
        await _all(*(work() for _ in range(min(MAX_AT_ONCE, len(conversion.parts)))))
    except BaseException:
        _report(call, conversion, bodies)
        raise
    finally:
        for failure in failures:
            if isinstance(failure, _RefusedError):
                await failure.response.aclose()
    return tuple(body for body in bodies if body is not None), failures


def _report(call: CallRequests, conversion: Conversion, bodies: Sequence[bytes | None]) -> None:
    """Report what the parts that were answered are charged for."""
    for body in bodies:
        with contextlib.suppress(APIError):  # the call fails with another error
            usage = _usage(conversion, body) if body is not None else None
            if usage is not None:
                call.paid(usage)


def _usage(conversion: Conversion, body: bytes) -> Usage | None:
    """What a part is charged for. Raises APIError if its response has no result."""
    try:
        return conversion.part_usage(body) if conversion.part_usage is not None else None
    except MALFORMED as error:
        raise malformed_response_error() from error


def _reduced(
    call: CallRequests,
    conversion: Conversion,
    count: int,
    failures: Sequence[_FailedPart],
) -> CallRequests:
    """The call with fewer results than requested, which is logged, and listed for the client."""
    failure = failures[0]
    logger.warning(
        "provider %s: %d of %d requests of a call were answered; one failed (%s)",
        call.prepared.target.provider.name,
        count,
        len(conversion.parts) + 1,
        failure.response.status if isinstance(failure, _RefusedError) else failure.kind.value,
    )
    draft = call.prepared.draft
    draft = msgspec.structs.replace(draft, ignored=(*draft.ignored, conversion.reducible))
    prepared = msgspec.structs.replace(call.prepared, draft=draft)
    return msgspec.structs.replace(call, prepared=prepared)


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
