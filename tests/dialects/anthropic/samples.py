"""Samples for several tests of Anthropic's dialect."""

from __future__ import annotations

from typing import Any

from asgi_aiproxy.messages import (
    Request,
)
from tests.support.dialect_requests import written

PNG = "iVBORw0KGgo="


GIF = "R0lGODlh"


JPEG = "/9j/4AAQ"


WEBP = "UklGRiQAAABXRUJQVlA4IA=="


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


CACHE = {"cache_control": {"type": "ephemeral"}}


MARKED = {"anthropic": {"cache_control": {"type": "ephemeral"}}}


SONNET_4 = "claude-sonnet-4-20250514"


OPUS_46 = "claude-opus-4-6"


OPUS_47 = "claude-opus-4-7"


TOOL = {"name": "weather", "description": "The weather.", "input_schema": SCHEMA}


def body_of(request: Request, model: str = SONNET_4) -> dict[str, Any]:
    return dict(written("anthropic", request, model).body)


def said(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


CALL_A = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
