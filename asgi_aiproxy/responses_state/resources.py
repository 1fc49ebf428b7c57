"""Stored responses: retrieve, delete, cancel, and list the items they were made from.

A response that its provider keeps is requested there, with the key that made it. One that only the
stash holds is answered from its record. Everything else does not exist, also what another caller
stored.

https://platform.openai.com/docs/api-reference/responses/get
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.dialects.openai_responses import paths
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.responses_state.items import Query, list_page, listed_items
from asgi_aiproxy.responses_state.records import ResponseState, StoredResponse
from asgi_aiproxy.responses_state.replay import stream_of
from asgi_aiproxy.responses_state.turn import (
    find_targets,
    keeps_response,
    may_refer_to_unknown,
    not_found_error,
)

_JSON = b"application/json"
# What a provider is sent of the query.
_FORWARDED = frozenset(
    {"include", "include[]", "stream", "starting_after", "include_obfuscation"}
    | {"after", "before", "limit", "order"}
)


async def find_resource(
    call: GatewayRequest, query: Query, router: Router, state: ResponseState
) -> GatewayRequest | StoredResponse:
    """The request for the provider that keeps a response, or the record that holds it.

    Raises APIError if there is neither, or it is another caller's.
    """
    operation = call.operation
    stored = await state.get(call.principal, operation.resource)
    if stored is None:
        # An only provider is requested without a model.
        if not may_refer_to_unknown(call, find_targets(call, router)):
            raise _not_found(operation.resource, state)
        return _forwarded(call, query)
    history = stored.history
    request = msgspec.structs.replace(call, model=history.model)
    if keeps_response(history, request, find_targets(request, router)):
        pin = call.key_id or history.key_id
        pinned = msgspec.structs.replace(request, provider=history.provider, key_id=pin)
        return _forwarded(pinned, query)
    if stored.response is None:
        raise _not_found(operation.resource, state)
    return stored


def _forwarded(call: GatewayRequest, query: Query) -> GatewayRequest:
    """A request with what the provider is sent of its query."""
    kept = {name: values for name, values in query.items() if name in _FORWARDED}
    operation = msgspec.structs.replace(call.operation, query=urlencode(kept, doseq=True))
    stream = query.get("stream") == ["true"]
    return msgspec.structs.replace(call, operation=operation, stream=stream)


async def answer_from_record(
    call: GatewayRequest, stored: StoredResponse, query: Query, state: ResponseState
) -> tuple[bytes, bytes]:
    """The body of the response to a request for a response of the stash, and its media type.

    Raises APIError.
    """
    id = call.operation.resource
    match call.operation.name:
        case paths.RETRIEVE:
            return _retrieved(stored, query)
        case paths.DELETE:
            await state.delete(call.principal, id)
            return _json.dumps({"id": id, "object": "response", "deleted": True}), _JSON
        case paths.CANCEL:
            raise invalid("Only responses that run in the background can be cancelled.")
    return _json.dumps(list_page(listed_items(id, stored.input or ()), query)), _JSON


def _retrieved(stored: StoredResponse, query: Query) -> tuple[bytes, bytes]:
    """A stored response, as it is or as the events of its stream."""
    body = bytes(stored.response or b"null")
    after = query.get("starting_after", [""])[-1]
    if query.get("stream", [""])[-1] != "true":
        if after:
            raise invalid("'starting_after' requires 'stream=true'.", "starting_after")
        return body, _JSON
    if after and not (after.isdecimal() and len(after) < 10):
        raise invalid("'starting_after' must be an integer >= 0.", "starting_after")
    return stream_of(_json.loads(body), int(after or -1)), b"text/event-stream"


def _not_found(id: str, state: ResponseState) -> APIError:
    error = not_found_error(id)
    if not state.stash:
        error.message += (
            " The gateway itself keeps no responses: that is the option responses.stash "
            "(ResponseState(stash=True))."
        )
    return error


class ForgetDeleted:
    """An ASGI `send` that forgets a response when its provider has deleted it."""

    def __init__(
        self, state: ResponseState, call: GatewayRequest, send: Send, exchange: Exchange
    ) -> None:
        self._send = send
        self._call = call
        self._state = state

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start" and message["status"] == 200:
            await self._state.delete(self._call.principal, self._call.operation.resource)
        await self._send(message)
