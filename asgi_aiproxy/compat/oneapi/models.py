"""Models as One API lists them."""

from __future__ import annotations

from typing import Any

_CREATED = 1_626_777_600
_ALLOWED = ("create_engine", "sampling", "logprobs", "search_indices", "view", "fine_tuning")
_FORBIDDEN = ("create_engine", "search_indices", "fine_tuning")


def model_object(name: str, owner: str = "openai") -> dict[str, Any]:
    """Return a model with the `permission` that earlier clients read."""
    permission: dict[str, Any] = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": _CREATED,
        **{f"allow_{what}": what not in _FORBIDDEN for what in _ALLOWED},
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": owner,
        "permission": [permission],
        "root": name,
        "parent": None,
    }
