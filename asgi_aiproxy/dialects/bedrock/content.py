"""Writes the parts of messages as Converse's content blocks.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

from asgi_aiproxy import _json
from asgi_aiproxy.dialects import _media, _parsing
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

NAME = "bedrock"

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/markdown": "md",
}
_VIDEOS = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_AUDIO = {
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/aac": "aac",
    "audio/ogg": "ogg",
    "audio/opus": "opus",
    "audio/mp4": "mp4",
    "audio/webm": "webm",
    "audio/l16": "pcm",
}
_FORMATS = {"image": _IMAGES, "document": _DOCUMENTS, "video": _VIDEOS, "audio": _AUDIO}
# What a document's name may hold: no more than one white space in a row.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9\s\-()\[\]]+")
_WHITE_SPACE = re.compile(r"\s+")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")
_MAX_NAME, _MAX_ID = 200, 64


class ContentWriter:
    """Writes the parts of messages. `ignored` collects what cannot be carried.

    `thoughts`: whether the model takes signed reasoning back.
    """

    def __init__(self, ignored: list[str], *, thoughts: bool) -> None:
        self._ignored = ignored
        self._thoughts = thoughts
        self._documents = 0

    def blocks(self, part: Part, where: str, *, role: str) -> Iterator[dict[str, Any]]:
        """The blocks of one part, whose path is `where`; raises APIError naming it."""
        found = list(self._blocks(part, where, role=role))
        yield from found
        if found:
            yield from cache_point(part)

    def _blocks(self, part: Part, where: str, *, role: str) -> Iterator[dict[str, Any]]:
        match part:
            case Text(text) | Refusal(text):
                if text.strip():  # Bedrock rejects blank text
                    yield {"text": text}
            case Reasoning(text, {"anthropic": {"signature": signature}}) if self._thoughts:
                yield {
                    "reasoningContent": {"reasoningText": {"text": text, "signature": signature}}
                }
            case Reasoning(_, {"anthropic": {"redacted": data}}) if self._thoughts:
                yield {"reasoningContent": {"redactedContent": data}}
            case ToolCall(call_id, name, arguments):
                value = _parsing.arguments(arguments, self._ignored)
                yield {"toolUse": {"toolUseId": valid_id(call_id), "name": name, "input": value}}
            case ToolResult():
                yield self._result(part, where)
            case Media() if role == "assistant":
                self._ignored.append("messages[].images")
            case Media():
                yield self._media(part, where)
            case Opaque("bedrock", payload):
                yield dict(payload)

    def _result(self, result: ToolResult, where: str) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        if text.strip():
            content.append({"text": text})
        message = where.rpartition(".")[0]
        content += [
            self._media(part, f"{message}.content[{index}]")
            for index, part in enumerate(result.parts)
            if isinstance(part, Media)
        ]
        out: dict[str, Any] = {"toolUseId": valid_id(result.id), "content": content}
        if result.error:
            out["status"] = "error"
        return {"toolResult": out}

    def _media(self, media: Media, where: str) -> dict[str, Any]:
        if text := _parsing.document_text(media):
            kind, data = "txt", base64.b64encode(text.encode("utf-8", "replace")).decode()
            known = _DOCUMENTS.get(media.media_type.partition(";")[0].strip().lower())
            return self._document(media, known or kind, {"bytes": data})
        media_type = _media.media_type(media)
        noun = "image" if media_type in _IMAGES else media.kind
        kind = _FORMATS[noun].get(media_type, "")
        source = self._source(media, where)
        if not kind:
            kind = media.url.rpartition(".")[2].lower() if media.url else ""
            kind = {"jpg": "jpeg"}.get(kind, kind)
        if kind not in _FORMATS[noun].values():
            raise invalid(
                f"Bedrock accepts {noun}s as {', '.join(_FORMATS[noun].values())}; this one is "
                f"{media_type or 'of an unknown type'}.",
                where,
                "invalid_value",
            )
        if noun == "document":
            return self._document(media, kind, source)
        return {noun: {"format": kind, "source": source}}

    def _source(self, media: Media, where: str) -> dict[str, Any]:
        if media.data:
            return {"bytes": media.data}
        if media.url.startswith("s3://"):
            return {"s3Location": {"uri": media.url}}
        raise invalid("Bedrock accepts files as data: URLs or as s3:// URLs only.", where)

    def _document(self, media: Media, kind: str, source: dict[str, Any]) -> dict[str, Any]:
        self._documents += 1
        name = _WHITE_SPACE.sub(" ", _NOT_IN_NAMES.sub(" ", media.name)).strip()[:_MAX_NAME]
        document = {"format": kind, "name": name or f"Document {self._documents}"}
        return {"document": {**document, "source": source}}


def cache_point(part: Any) -> Iterator[dict[str, Any]]:
    """The cache point behind a part or tool that is marked with one."""
    if isinstance(part, Refusal | Opaque):
        return
    parts = (part, *part.parts) if isinstance(part, ToolResult) else (part,)
    for marked in parts:
        mark = marked.extra.get("anthropic", {}).get("cache_control")
        if mark:
            ttl = mark.get("ttl") if isinstance(mark, dict) else None
            yield {"cachePoint": {"type": "default"} | ({"ttl": ttl} if ttl else {})}
            return


def valid_id(call_id: str) -> str:
    """The id of a call in the characters and the length that Bedrock accepts."""
    return _NOT_IN_IDS.sub("_", call_id)[-_MAX_ID:]


def encoded(schema: Any) -> str:
    """A JSON schema as text."""
    return _json.dumps(schema).decode()
