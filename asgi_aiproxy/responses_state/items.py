"""Items as the Responses API lists them, page by page. Pure.

https://platform.openai.com/docs/api-reference/responses/input-items
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from asgi_aiproxy import _json
from asgi_aiproxy.errors import invalid

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


def listed_items(
    response_id: str, items: Iterable[msgspec.Raw], first: int = 0
) -> list[dict[str, Any]]:
    """Items with the members that the API lists, in their order. Each always has the same id.

    `first` is the number of the first one among all items.
    """
    token = sha256(response_id.encode("utf-8", "surrogatepass")).hexdigest()[:44]
    found = (_json.loads(bytes(item)) for item in items)
    return [
        _listed(item, f"{token}{number:04x}")
        for number, item in enumerate(found, first)
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
