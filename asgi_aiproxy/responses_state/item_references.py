"""Items of `input` that only name an item of an earlier response, replaced by that item.

The AI SDK sends a response's items so (`{"type": "item_reference", "id": ...}`), unless it is asked
not to store responses. A provider that keeps the response knows its items. For responses of other
providers the stash does: their ids are the gateway's own, and an item's id contains that of its
response (`Ids`), so that one read finds it. References that lead nowhere stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.responses_state.history import conversation_too_large, sendable
from asgi_aiproxy.responses_state.records import ResponseState

_NEEDLE = b'"item_reference"'
_ITEM_ID = re.compile(r"[a-z]{2,4}_([0-9a-f]{48})[0-9a-f]{4}")
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


async def resolve_item_references(
    call: GatewayRequest, state: ResponseState, *, limit: int
) -> GatewayRequest:
    """The request with the items that it refers to, as far as the stash has them.

    Raises APIError if its `input` becomes larger than `limit` bytes, or the store is unavailable.
    """
    raw = bytes(call.fields.get("input", b""))
    if not state.stash or _NEEDLE not in raw:
        return call
    try:
        items = _items(raw)
    except msgspec.DecodeError:
        return call
    known: dict[str, Mapping[str, Any]] = {}  # items by id, of the responses read so far
    read: set[str] = set()
    out: list[bytes] = []
    for item in map(bytes, items):
        name = _referred(item)
        response_id = _response_id(name)
        if response_id and response_id not in read:
            read.add(response_id)
            known |= await _items_of(response_id, call, state)
        found = known.get(name)
        out.append(item if found is None else _json.dumps(sendable(found)))
    if not known:
        return call
    body = b"[" + b",".join(out) + b"]"
    if len(body) > limit:
        raise conversation_too_large(limit)
    fields = {**call.fields, "input": msgspec.Raw(body)}
    return msgspec.structs.replace(call, fields=fields, body=_json.dumps(fields))


def _referred(item: bytes) -> str:
    """The id in an item that is a reference; empty otherwise."""
    if _NEEDLE not in item:
        return ""
    match _json.loads(item):
        case {"type": "item_reference", "id": str(id)}:
            return id
    return ""


def _response_id(item_id: str) -> str:
    found = _ITEM_ID.fullmatch(item_id)
    return f"resp_{found[1]}" if found is not None else ""


async def _items_of(
    response_id: str, call: GatewayRequest, state: ResponseState
) -> Mapping[str, Mapping[str, Any]]:
    stored = await state.get(call.principal, response_id)
    if stored is None or stored.response is None or stored.history.kept:
        return {}
    output = _json.loads(bytes(stored.response)).get("output")
    return {item["id"]: item for item in output or () if isinstance(item.get("id"), str)}
