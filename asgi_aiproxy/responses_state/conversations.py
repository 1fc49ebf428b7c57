"""Conversations: lists of items that responses read and add to, whatever vendor answers.

The gateway keeps them in its stash, also those that OpenAI answers in. A conversation is one record
of its caller (see `records`). A response that belongs to one is made from all of its items and
those of the request, and adds both its input and its output when it is complete.

https://platform.openai.com/docs/api-reference/conversations
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import getrandbits
from typing import Any
from urllib.parse import unquote

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _parsing
from asgi_aiproxy.dialects.openai_responses import paths
from asgi_aiproxy.errors import APIError, ErrorKind, invalid
from asgi_aiproxy.exchange.request import GatewayRequest
from asgi_aiproxy.keys.encryption import SealError
from asgi_aiproxy.principal import Principal
from asgi_aiproxy.responses_state.history import History, Segment, input_items
from asgi_aiproxy.responses_state.items import Query, list_page, listed_items
from asgi_aiproxy.responses_state.records import ResponseState, record_name
from asgi_aiproxy.stores.base import StoreUnavailableError

_KIND = "conversation"
_metadata = msgspec.json.Decoder(dict[str, str])


class ConversationRecord(msgspec.Struct, frozen=True):
    """A conversation: its items in order, with the accounts that made them.

    A deleted item is null, so that the ids of those after it stay.
    """

    created: int
    metadata: dict[str, str]
    segments: tuple[Segment, ...] = ()

    @property
    def history(self) -> History:
        """What a response in it continues."""
        left = (
            msgspec.structs.replace(s, items=tuple(i for i in s.items if bytes(i) != _DELETED))
            for s in self.segments
        )
        return History("", segments=tuple(left))


_DELETED = b"null"
_conversation = msgspec.json.Decoder(ConversationRecord).decode


class Conversations:
    """The conversations of all callers in a `state` with a stash."""

    def __init__(self, state: ResponseState) -> None:
        self._state = state

    async def get(self, owner: Principal, id: str) -> ConversationRecord | None:
        """A caller's conversation; None if there is none. Raises APIError."""
        name = record_name(_KIND, owner, id)
        data = await self._state.read(name)
        if data is None:
            return None
        try:
            return _conversation(await self._state.decrypt(name, data.decode()))
        except (SealError, ValueError, msgspec.MsgspecError):
            return None

    async def append(self, owner: Principal, id: str, *segments: Segment) -> None:
        """Add items to a conversation. Raises APIError if it does not exist any more."""
        async with self._state.changing(record_name(_KIND, owner, id)):
            found = await self._existing(owner, id)
            added = msgspec.structs.replace(found, segments=(*found.segments, *segments))
            await self._put(owner, id, added)

    async def answer(self, call: GatewayRequest, query: Query) -> bytes:
        """The body of the response to a request for a conversation. Raises APIError."""
        if not self._state.stash:
            raise invalid(
                "The gateway keeps no conversations: that is the option responses.stash "
                "(ResponseState(stash=True)).",
                code="unsupported_operation",
            )
        owner, id = call.principal, call.operation.resource
        match call.operation.name:
            case paths.CREATE_CONVERSATION:
                return await self._create(owner, call.body)
            case paths.GET_CONVERSATION:
                return _object(id, await self._existing(owner, id))
            case paths.UPDATE_CONVERSATION:
                return await self._update(owner, id, call.body)
            case paths.DELETE_CONVERSATION:
                await self._delete(owner, id)
                return _json.dumps({"id": id, "object": "conversation.deleted", "deleted": True})
            case paths.ADD_CONVERSATION_ITEMS:
                return await self._add(owner, id, call.body)
            case paths.GET_CONVERSATION_ITEM:
                found = await self._existing(owner, id)
                return _json.dumps(_find(id, found, _item_id(call))[1])
            case paths.DELETE_CONVERSATION_ITEM:
                return await self._delete_item(owner, id, _item_id(call))
        found = await self._existing(owner, id)
        return _json.dumps(list_page(_items(id, found), query))

    async def _create(self, owner: Principal, body: bytes) -> bytes:
        fields = _parsing.fields(body) if body else {}
        items = input_items({"input": fields["items"]}) if "items" in fields else ()
        segments = (Segment(items),) if items else ()
        made = ConversationRecord(int(time.time()), _read_metadata(fields), segments)
        id = f"conv_{getrandbits(192):048x}"
        await self._put(owner, id, made)
        return _object(id, made)

    async def _update(self, owner: Principal, id: str, body: bytes) -> bytes:
        metadata = _read_metadata(_parsing.fields(body))
        async with self._state.changing(record_name(_KIND, owner, id)):
            found = await self._existing(owner, id)
            changed = msgspec.structs.replace(found, metadata=metadata)
            await self._put(owner, id, changed)
        return _object(id, changed)

    async def _add(self, owner: Principal, id: str, body: bytes) -> bytes:
        fields = _parsing.fields(body)
        if "items" not in fields:
            raise _parsing.missing_field_error("items")
        items = input_items({"input": fields["items"]})
        await self._existing(owner, id)
        await self.append(owner, id, Segment(items))
        listed = _items(id, await self._existing(owner, id))[-len(items) :] if items else []
        return _json.dumps(list_page(listed, {"order": ["asc"], "limit": ["100"]}))

    async def _delete(self, owner: Principal, id: str) -> None:
        name = record_name(_KIND, owner, id)
        async with self._state.changing(name):  # otherwise a change that has begun restores it
            if not await self._state.remove(name):
                raise conversation_not_found(id)

    async def _delete_item(self, owner: Principal, id: str, item_id: str) -> bytes:
        async with self._state.changing(record_name(_KIND, owner, id)):
            found = await self._existing(owner, id)
            at, _ = _find(id, found, item_id)
            segments = []
            for segment in found.segments:
                items = list(segment.items)
                if 0 <= at < len(items):
                    items[at] = msgspec.Raw(_DELETED)
                at -= len(items)
                segments.append(msgspec.structs.replace(segment, items=tuple(items)))
            changed = msgspec.structs.replace(found, segments=tuple(segments))
            await self._put(owner, id, changed)
        return _object(id, changed)

    async def _existing(self, owner: Principal, id: str) -> ConversationRecord:
        found = await self.get(owner, id)
        if found is None:
            raise conversation_not_found(id)
        return found

    async def _put(self, owner: Principal, id: str, conversation: ConversationRecord) -> None:
        if conversation.history.size > self._state.max_bytes:
            raise APIError(
                ErrorKind.TOO_LARGE,
                f"The conversation is larger than {self._state.max_bytes} bytes. Begin a new one.",
                code="conversation_too_large",
            )
        name = record_name(_KIND, owner, id)
        hidden = await self._state.encrypt(name, _json.encode(conversation))
        try:
            await self._state.write(name, hidden.encode())
        except StoreUnavailableError as error:
            raise APIError(
                ErrorKind.OVERLOADED,
                "The conversation cannot be stored at the moment; try again.",
                retry_after=1.0,
            ) from error


def conversation_not_found(id: str, param: str | None = None) -> APIError:
    """The error for a conversation that does not exist, or is another caller's."""
    shown = id if len(id) <= 100 else id[:100] + "..."
    return APIError(ErrorKind.NOT_FOUND, f"Conversation with id {shown!r} not found.", param=param)


def _read_metadata(fields: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    return _parsing.member(fields, "metadata", _metadata) or {}


def _object(id: str, conversation: ConversationRecord) -> bytes:
    return _json.dumps(
        {
            "id": id,
            "object": "conversation",
            "created_at": conversation.created,
            "metadata": conversation.metadata,
        }
    )


def _item_id(call: GatewayRequest) -> str:
    return unquote(call.operation.path.rpartition("/")[2])


def _find(id: str, conversation: ConversationRecord, item_id: str) -> tuple[int, dict[str, Any]]:
    """The place and the form of an item. Raises APIError if there is none with this id."""
    for at, item in enumerate(item for s in conversation.segments for item in s.items):
        for listed in listed_items(id, [item], at):
            if listed["id"] == item_id:
                return at, listed
    shown = item_id if len(item_id) <= 100 else item_id[:100] + "..."
    raise APIError(ErrorKind.NOT_FOUND, f"Item with id {shown!r} not found in this conversation.")


def _items(id: str, conversation: ConversationRecord) -> list[dict[str, Any]]:
    return listed_items(id, [item for s in conversation.segments for item in s.items])
