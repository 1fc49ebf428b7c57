"""Writes the parts of messages as Anthropic's content blocks.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy.dialects import _media, _parsing
from asgi_aiproxy.dialects._claude.capabilities import Model
from asgi_aiproxy.errors import invalid
from asgi_aiproxy.messages import (
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)

NAME = "anthropic"

THOUGHTS = ("thinking", "redacted_thinking")
_FILES_BETA = "files-api-2025-04-14"
_INVALID_ID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF = "application/pdf"


class Notes:
    """What the writers of a request collect: ignored members and required beta headers."""

    def __init__(self) -> None:
        self.ignored: list[str] = []
        self.betas: set[str] = set()


class ContentWriter:
    """Writes the parts of messages for one model."""

    def __init__(self, model: Model, notes: Notes) -> None:
        self._model = model
        self._notes = notes
        self._used_ids: set[str] = set()
        self._open_ids: dict[str, list[str]] = {}  # of calls without a result, by the id given

    def blocks(self, part: Part, where: str, *, role: str) -> Iterator[dict[str, Any]]:
        """The blocks of one part, whose path is `where`; raises APIError naming it."""
        match part:
            case Text(text) | Refusal(text):
                if text.strip():
                    yield cached({"type": "text", "text": text}, part)
                elif cached({}, part):
                    self._notes.ignored.append("cache_control")
            case Reasoning(text, {"anthropic": {"signature": signature}}):
                yield {"type": "thinking", "thinking": text, "signature": signature}
            case Reasoning(_, {"anthropic": {"redacted": data}}):
                yield {"type": "redacted_thinking", "data": data}
            case ToolCall(call_id, name, arguments):
                use = {"type": "tool_use", "id": self._new_id(call_id), "name": name}
                block = {**use, "input": _parsing.arguments(arguments, self._notes.ignored)}
                yield cached(block, part)
            case ToolResult():
                yield self._result(part, where)
            case Media() if role == "assistant":
                self._notes.ignored.append("messages[].images")  # not allowed in its turns
            case Media():
                yield cached(self._media(part, where), part)
            case Opaque("anthropic", payload):
                yield dict(payload)

    def _new_id(self, call_id: str) -> str:
        """The id of a call. Some vendors start with `call_0` again in every answer; Anthropic
        requires different ids in the whole conversation. (Its own are sent back unchanged.)"""
        new = valid = _INVALID_ID_CHARACTER.sub("_", call_id)
        number = 1
        while new in self._used_ids and not call_id.startswith("toolu_"):
            number += 1
            new = f"{valid}_{number}"
        self._used_ids.add(new)
        self._open_ids.setdefault(call_id, []).append(new)
        return new

    def _call_id(self, call_id: str) -> str:
        """The id of the first call with this id that has no result so far."""
        waiting = self._open_ids.get(call_id)
        return waiting.pop(0) if waiting else _INVALID_ID_CHARACTER.sub("_", call_id)

    def _result(self, result: ToolResult, where: str) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._call_id(result.id)}
        if all(isinstance(part, Text) for part in result.parts):
            out["content"] = "".join(part.text for part in result.parts if isinstance(part, Text))
        else:
            message = where.rpartition(".")[0]
            out["content"] = []
            for index, part in enumerate(result.parts):
                for block in self.blocks(part, f"{message}.content[{index}]", role="user"):
                    block.pop("cache_control", None)  # set on the whole result, below
                    out["content"].append(block)
        if result.error:
            out["is_error"] = True
        parts: tuple[Part, ...] = (result, *result.parts)
        for marked in parts:
            out = cached(out, marked)
        return out

    def _media(self, media: Media, where: str) -> dict[str, Any]:
        kind, source = media.kind, self._source(media, where)
        if source.get("media_type") in _IMAGES:
            kind = "image"  # whatever was declared
        elif source["type"] in ("base64", "text"):
            kind = "document"
        if kind == "image" and not self._model.images:
            raise invalid("This model does not accept images.", where)
        if kind == "document" and source["type"] != "text" and not self._model.pdf:
            raise invalid("This model does not accept PDF documents.", where)
        out: dict[str, Any] = {"type": kind, "source": source}
        if kind == "document" and media.name:
            out["title"] = media.name
        return out

    def _source(self, media: Media, where: str) -> dict[str, Any]:
        if media.kind not in ("image", "document"):
            raise invalid(f"Anthropic's models do not accept {media.kind}.", where)
        if media.url:
            return {"type": "url", "url": media.url}
        if media.file:
            self._notes.betas.add(_FILES_BETA)
            return {"type": "file", "file_id": media.file}
        text = _parsing.document_text(media)
        if text:
            return {"type": "text", "media_type": "text/plain", "data": text}
        kind = _media.media_type(media)
        if kind not in _IMAGES and kind != _PDF:
            raise invalid(
                f"Anthropic's models accept images as JPEG, PNG, GIF or WebP and documents as PDF "
                f"or plain text; this one is {kind or 'of an unknown type'}.",
                where,
                "invalid_value",
            )
        return {"type": "base64", "media_type": kind, "data": media.data}


def cached(block: dict[str, Any], part: Any) -> dict[str, Any]:
    """The block with the cache point of its part, if it has one."""
    mark = part.extra.get(NAME, {}).get("cache_control") if hasattr(part, "extra") else None
    return {**block, "cache_control": mark} if mark else block
