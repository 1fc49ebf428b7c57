"""Requests of one face, as the providers of other languages get them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from asgi_aiproxy.dialects import Operation, ProviderRequest
from asgi_aiproxy.messages import Request
from tests.support.stream_fixtures import faces, languages

# Models without the peculiarities of one generation.
MODELS = {
    "openai_chat": "gpt-test",
    "anthropic": "claude-sonnet-4-0",
    "gemini": "gemini-2.5-flash",
    "ollama": "llama-test",
    "bedrock": "us.anthropic.claude-sonnet-4-0-v1:0",
    "coze": "7379462189365198898",
    "cohere": "command-a-reasoning-08-2025",
}
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def asked(face: str, body: Any, *, model: str = "m", stream: bool = False) -> Request:
    """A client's request, read. `model` and `stream` are what the path says, if it does."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    operation = Operation("chat", "/", model=model, stream=stream, chat=True)
    return faces()[face].decode_request(operation, data)


def written(language: str, request: Request, model: str | None = None) -> ProviderRequest:
    """The request for a provider of `language`. What it holds can be sent as JSON."""
    request = msgspec.structs.replace(request, model=model or MODELS[language])
    draft = languages()[language].encode_request(request)
    json.dumps(draft.body)
    return draft


def openai(messages: list[dict[str, Any]] | None = None, **members: Any) -> Request:
    """A request in OpenAI's words, read."""
    return asked("openai_chat", {"model": "m", "messages": messages or HI, **members})


def anthropic(messages: list[dict[str, Any]] | None = None, **members: Any) -> Request:
    """A request in Anthropic's words, read."""
    body = {"model": "m", "max_tokens": 100, "messages": messages or HI, **members}
    return asked("anthropic", body)


def gemini(contents: Any = None, **members: Any) -> Request:
    """A request in Google's words, read."""
    contents = contents or [{"role": "user", "parts": [{"text": "Hi"}]}]
    return asked("gemini", {"contents": contents, **members})
