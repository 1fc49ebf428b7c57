"""Stored responses: retrieve, delete, cancel, and list the items they were made from.

A response that its provider keeps is requested there, with the key that made it. One that only the
stash holds is answered from its record. Everything else does not exist, also what another caller
stored.

https://platform.openai.com/docs/api-reference/responses/get
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy._asgi import Message, Send
from asgi_aiproxy.dialects.openai_responses import paths
from asgi_aiproxy.errors import APIError, invalid
from asgi_aiproxy.exchange.engine import Exchange
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.providers.base import Router
from asgi_aiproxy.responses_state.records import ResponseState, StoredResponse
from asgi_aiproxy.responses_state.turn import find_targets, keeps_response, not_found_error

# What a provider is sent of the query.
_FORWARDED = frozenset(
    {"include", "include[]", "stream", "starting_after", "include_obfuscation"}
    | {"after", "before", "limit", "order"}
)
_MAX_ITEMS, _USUAL_ITEMS = 100, 20
_ID_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
_WITH_STATUS = frozenset(_ID_PREFIXES) - {"reasoning"}

Query = dict[str, list[str]]


async def find_resource(
    call: GatewayRequest, query: Query, router: Router, state: ResponseState
) -> GatewayRequest | StoredResponse:
    """The request for the provider that keeps a response, or the record that holds it.

    Raises APIError if there is neither, or it is another caller's.
    """
    operation = call.operation
    stored = await state.get(call.principal, operation.resource)
    if stored is None:
        raise _not_found(operation.resource, state)
    history = stored.history
    request = msgspec.structs.replace(call, model=history.model)
    if keeps_response(history, request, find_targets(request, router)):
        kept = {name: values for name, values in query.items() if name in _FORWARDED}
        forwarded = msgspec.structs.replace(operation, query=urlencode(kept, doseq=True))
        return msgspec.structs.replace(
            request,
            operation=forwarded,
            stream=query.get("stream") == ["true"],
            provider=history.provider,
            key_id=call.key_id or history.key_id,
        )
    if stored.response is None:
        raise _not_found(operation.resource, state)
    return stored


async def answer_from_record(
    call: GatewayRequest, stored: StoredResponse, query: Query, state: ResponseState
) -> bytes:
    """The body of the response to a request for a response of the stash. Raises APIError."""
    id = call.operation.resource
    match call.operation.name:
        case paths.RETRIEVE:
            if query.get("stream") == ["true"] or "starting_after" in query:
                raise invalid(
                    "This response is complete and was not made in the background, so that there "
                    "is no stream of it: leave out 'stream' and 'starting_after'.",
                    "stream",
                    "unsupported_parameter",
                )
            return bytes(stored.response or b"null")
        case paths.DELETE:
            await state.delete(call.principal, id)
            return _json.dumps({"id": id, "object": "response", "deleted": True})
        case paths.CANCEL:
            raise invalid("Only responses that run in the background can be cancelled.")
    return _json.dumps(list_page(listed_items(id, stored.input or ()), query))


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


# items


def listed_items(response_id: str, items: Iterable[msgspec.Raw]) -> list[dict[str, Any]]:
    """Items with the members that the API lists, in their order. Each always has the same id."""
    token = sha256(response_id.encode("utf-8", "surrogatepass")).hexdigest()[:44]
    found = (_json.loads(bytes(item)) for item in items)
    return [
        _listed(item, f"{token}{number:04x}")
        for number, item in enumerate(found)
        if isinstance(item, dict)
    ]


def _listed(item: dict[str, Any], token: str) -> dict[str, Any]:
    kind = item.get("type") or "message"
    prefix = _ID_PREFIXES.get(kind, kind if isinstance(kind, str) else "item")
    listed = {"id": f"{prefix}_{token}", "type": kind, **item}
    listed["id"] = item.get("id") or listed["id"]
    if kind in _WITH_STATUS:
        listed["status"] = item.get("status") or "completed"
    if kind == "reasoning":
        listed.setdefault("summary", [])
    if kind == "message":
        listed["content"] = _content(item.get("content"), item.get("role"))
    return listed


def _content(content: Any, role: Any) -> Any:
    """The parts of a message, which may be a string."""
    if not isinstance(content, str):
        return content if content is not None else []
    if role == "assistant":
        return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": content}]


def list_page(items: Sequence[dict[str, Any]], query: Query) -> dict[str, Any]:
    """A page of a list: `limit` items in `order`, from the one after `after` on.

    Raises APIError if a parameter is invalid.
    """
    order = query.get("order", ["desc"])[-1]
    if order not in ("asc", "desc"):
        raise invalid(
            f"Invalid value: '{order[:100]}'. Supported values are: 'asc' and 'desc'.",
            "order",
            "invalid_value",
        )
    text = query.get("limit", [str(_USUAL_ITEMS)])[-1]
    limit = int(text) if text.isdecimal() and len(text) < 10 else 0
    if not 1 <= limit <= _MAX_ITEMS:
        raise invalid(f"'limit' must be between 1 and {_MAX_ITEMS}.", "limit", "invalid_value")
    ordered = list(items) if order == "asc" else list(reversed(items))
    if after := query.get("after", [""])[-1]:
        at = next((n for n, item in enumerate(ordered) if item.get("id") == after), None)
        if at is None:
            raise invalid("'after' is not the id of an item of this list.", "after")
        ordered = ordered[at + 1 :]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(ordered) > limit,
    }
