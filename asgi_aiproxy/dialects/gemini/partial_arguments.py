"""Function arguments that are streamed member by member.

https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\['([^']*)'\]")
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class PartialArguments:
    """Combines pieces, each with its JSON path, to one object."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def add(self, pieces: Iterable[dict[str, Any]]) -> None:
        """Add pieces. Strings with the same path are joined; other values replace earlier ones."""
        for piece in pieces:
            path = [
                int(number) if number else name or quoted
                for name, number, quoted in _STEP.findall(piece.get("jsonPath") or "")
            ]
            kind = next((k for k in _VALUES if k in piece), None)
            if path and kind:
                value = None if kind == "nullValue" else piece[kind]
                _put(self.value, path, value)


def _put(where: Any, path: list[str | int], value: Any) -> None:
    *steps, last = path
    for step, following in zip(steps, path[1:], strict=True):
        where = where[_place(where, step, [] if isinstance(following, int) else {})]
    at = _place(where, last, None)
    if isinstance(value, str) and isinstance(where[at], str):
        value = where[at] + value
    where[at] = value


def _place(where: Any, step: str | int, default: Any) -> str | int:
    """The key of the member at `step`, created with `default` if it is missing."""
    if not isinstance(where, list):
        where.setdefault(step, default)
        return step
    if isinstance(step, int) and step < len(where):
        return step
    where.append(default)  # list items arrive in order
    return len(where) - 1
