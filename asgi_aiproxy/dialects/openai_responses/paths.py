"""The paths of the Responses API.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from asgi_aiproxy.dialects.base import Operation
from asgi_aiproxy.dialects.openai_responses import token_count

RETRIEVE, DELETE, CANCEL = "responses.retrieve", "responses.delete", "responses.cancel"
INPUT_ITEMS = "responses.input_items"

CREATE_CONVERSATION, GET_CONVERSATION = "conversations.create", "conversations.retrieve"
UPDATE_CONVERSATION, DELETE_CONVERSATION = "conversations.update", "conversations.delete"
CONVERSATION_ITEMS = "conversations.items.list"
ADD_CONVERSATION_ITEMS = "conversations.items.create"
GET_CONVERSATION_ITEM = "conversations.items.retrieve"
DELETE_CONVERSATION_ITEM = "conversations.items.delete"
CONVERSATIONS = frozenset(
    {CREATE_CONVERSATION, GET_CONVERSATION, UPDATE_CONVERSATION, DELETE_CONVERSATION}
    | {CONVERSATION_ITEMS, ADD_CONVERSATION_ITEMS}
    | {GET_CONVERSATION_ITEM, DELETE_CONVERSATION_ITEM}
)

_POST = {
    "/v1" + operation.path: operation
    for operation in (
        Operation("responses", "/responses", chat=True),
        Operation(token_count.OPERATION, token_count.PATH, converts="token_count"),
    )
}
# (The first two names are those of operations.)
_RESOURCE = re.compile(r"/v1(/responses/(?!compact$|input_tokens$)([^/]+)(/cancel|/input_items)?)")
_OF_RESOURCES = {
    ("GET", None): RETRIEVE,
    ("DELETE", None): DELETE,
    ("POST", "/cancel"): CANCEL,
    ("GET", "/input_items"): INPUT_ITEMS,
}
_CONVERSATION = re.compile(r"/v1(/conversations(?:/([^/]+)(/items(?:/[^/]+)?)?)?)")
_OF_CONVERSATIONS = {
    ("GET", None): GET_CONVERSATION,
    ("POST", None): UPDATE_CONVERSATION,
    ("DELETE", None): DELETE_CONVERSATION,
    ("GET", "/items"): CONVERSATION_ITEMS,
    ("POST", "/items"): ADD_CONVERSATION_ITEMS,
    ("GET", "/items/"): GET_CONVERSATION_ITEM,
    ("DELETE", "/items/"): DELETE_CONVERSATION_ITEM,
}


def match(method: str, path: str) -> Operation | None:
    """The operation of a method and a percent-encoded path below the mount."""
    operation = _POST.get(path) if method == "POST" else None
    if operation is not None or not path.startswith(("/v1/responses/", "/v1/conversations")):
        return operation
    if (found := _CONVERSATION.fullmatch(path)) is not None:
        if found[2] is None:  # (Its id is made later.)
            create = Operation(CREATE_CONVERSATION, found[1], resource="new")
            return create if method == "POST" else None
        below = found[3] if found[3] in (None, "/items") else "/items/"
        name = _OF_CONVERSATIONS.get((method, below))
        if name is None:
            return None
        return Operation(name, found[1], method=method, resource=unquote(found[2]))
    found = _RESOURCE.fullmatch(path)
    name = _OF_RESOURCES.get((method, found[3])) if found is not None else None
    if found is None or name is None:
        return None
    return Operation(name, found[1], method=method, resource=unquote(found[2]))
