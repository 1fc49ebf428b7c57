"""A single request of the gateway's own to a target, within an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec

from asgi_aiproxy._cancellation import Deadline
from asgi_aiproxy.errors import APIError
from asgi_aiproxy.exchange.error_mapping import error_from_response
from asgi_aiproxy.exchange.record import close_response
from asgi_aiproxy.exchange.relay import Relay
from asgi_aiproxy.exchange.upstream_request import with_headers
from asgi_aiproxy.keys import Key
from asgi_aiproxy.messages import Request, Response
from asgi_aiproxy.providers.base import Target
from asgi_aiproxy.translate import MALFORMED, malformed_response_error
from asgi_aiproxy.upstream.base import UpstreamResponse

# How much of an error response is read, and for how long.
_MAX_ERROR_BYTES = 256 * 1024
_ERROR_BODY_TIMEOUT_SECONDS = 10.0


async def request_once(
    relay: Relay, target: Target, key: Key | None, headers: Mapping[str, str], request: Request
) -> Response:
    """Send a chat request with this key, and return the whole response.

    `headers` are those that hooks send to providers. Raises the APIError of the provider; it may
    hold the key.
    """
    provider = target.provider
    request = msgspec.structs.replace(request, model=target.model, stream=False)
    draft = with_headers(provider.dialect.encode_request(request), headers)
    draft = provider.transform_request(draft)
    upstream = await relay.transport.send(provider.request("POST", draft, key, streamed=False))
    try:
        if not 200 <= upstream.status < 300:
            body = await read_error_body(upstream)
            raise error_from_response(
                provider,
                upstream.status,
                upstream.headers,
                body,
                now=relay.clock(),
                native=False,
                members=draft.body,
                model=target.model,
            )
        pieces = []
        while piece := await upstream.read():
            pieces.append(piece)
    finally:
        await close_response(upstream)
    try:
        return provider.dialect.decode_response(b"".join(pieces))
    except MALFORMED as error:
        raise malformed_response_error() from error


async def read_error_body(response: UpstreamResponse) -> bytes:
    """The body of an error response, as far as it arrives in time: the status matters more."""
    body = bytearray()
    late = "The body of the error did not arrive in time."
    with suppress(APIError), Deadline(_ERROR_BODY_TIMEOUT_SECONDS, late):
        while len(body) < _MAX_ERROR_BYTES and (data := await response.read()):
            body += data
    return bytes(body)
