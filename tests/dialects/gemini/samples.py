"""Samples for several tests of Google's dialect."""

from __future__ import annotations

from typing import Any

PNG = "iVBORw0KGgo="


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


PATH = "/v1beta/models/gemini-2.5-flash:generateContent"


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **more}}


def returned(name: str, response: Any, **more: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, **more}}


def config(**members: Any) -> dict[str, Any]:
    return {"generationConfig": members}
